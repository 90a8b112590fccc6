//! The scenarios at hand: those built into the program, and files by path.

use std::path::Path;

use super::{Scenario, ScenarioError};
use crate::measure::metric::nearest;

/// Name and text of each file in `scenarios/` when the harness was built, so that the binary works anywhere.
const BUILT_IN: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/scenarios.rs"));

/// Names of the built-in scenarios, sorted.
#[must_use]
pub fn names() -> Vec<&'static str> {
    BUILT_IN.iter().map(|(name, _)| *name).collect()
}

/// The scenario called `name`, or the one in the file `name` if it looks like a path.
///
/// # Errors
/// Unknown names are answered with the list and the nearest one; files with their mistakes.
pub fn find(name: &str) -> Result<Scenario, ScenarioError> {
    if name.contains(['/', '\\']) || name.ends_with(".toml") {
        return load(Path::new(name));
    }
    match BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
        Some((_, text)) => Scenario::parse(&format!("scenarios/{name}.toml"), text),
        None => Err(unknown(name)),
    }
}

/// Every built-in scenario.
///
/// # Errors
/// The first one with a mistake, which the tests of this crate rule out.
pub fn all() -> Result<Vec<Scenario>, ScenarioError> {
    names().into_iter().map(find).collect()
}

fn load(path: &Path) -> Result<Scenario, ScenarioError> {
    let origin = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        let remedy = format!("built-in scenarios are named without path and .toml: {}", names().join(", "));
        ScenarioError::without_source(
            &origin,
            format!("cannot read scenario file {origin}: {error}"),
            Some(remedy),
        )
    })?;
    Scenario::parse(&origin, &text)
}

fn unknown(name: &str) -> ScenarioError {
    let names = names();
    let list = format!("there are {}; or give the path of a file", names.join(", "));
    let remedy = match nearest(name, names.iter().copied()) {
        Some(near) => format!("did you mean {near}? {list}"),
        None => list,
    };
    ScenarioError::without_source(name, format!("there is no scenario {name:?}"), Some(remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_scenario_is_sound() {
        for name in names() {
            let scenario = find(name).unwrap_or_else(|error| panic!("{:?}", miette::Report::new(error)));
            assert_eq!(scenario.name, name);
            assert!(!scenario.expectations.is_empty() && !scenario.answer.is_empty(), "{name}");
        }
        assert_eq!(all().unwrap().len(), names().len());
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest_and_the_list() {
        let error = find("lossy-wify").unwrap_err();
        assert_eq!(error.problem, "there is no scenario \"lossy-wify\"");
        let remedy = error.remedy.unwrap();
        assert!(remedy.starts_with("did you mean lossy-wifi? there are "), "{remedy}");
        assert!(names().iter().all(|name| remedy.contains(name)), "{remedy}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = find("no/such.toml").unwrap_err();
        assert!(error.problem.starts_with("cannot read scenario file no/such.toml"), "{error}");
    }
}
