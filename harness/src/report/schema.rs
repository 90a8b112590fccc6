//! Holds `report.json` to its documented schema: what is in it is in `reports/README.md`, and nothing goes away
//! without a new version.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Report;
use crate::measure::record::{
    Activity, Blame, ConnectFailure, ConnectFailureKind, Ending, Energy, Fleet, Outage, SCHEMA_VERSION,
};
use crate::measure::sample;
use crate::scenario::Scenario;

const README: &str = include_str!("../../../reports/README.md");
/// Every path of schema 1, one a line.
const PATHS: &str = include_str!("schema-1.txt");

/// A report in which nothing is absent that could be there.
fn full() -> Value {
    let mut record = sample::record();
    record.ending = Ending::Interrupted { by: "Ctrl-C".into() };
    let trial = &mut record.trials[0];
    trial.ending =
        Ending::Failed { phase: "workload".into(), cause: "a cause".into(), blame: Blame::Subject };
    trial.energy = vec![Energy { activity: Activity::Connect, microjoules: 1.0, measured: false }];
    trial.notes = vec!["a note".into()];
    trial.fleet = Some(Fleet {
        outages: vec![Outage { lost_us: 1, again_us: Some(2) }],
        recoveries_us: vec![None],
        ..Fleet::default()
    });
    trial.connections[0].failure = Some(ConnectFailure {
        kind: ConnectFailureKind::Timeout,
        detail: "no answer".into(),
        alert: Some(40),
    });
    record.environment.extra.insert("rssi".into(), "-60 dBm".into());
    let scenario = Scenario::parse("sample.toml", sample::SCENARIO).unwrap();
    serde_json::to_value(Report::new(record, &scenario)).unwrap()
}

/// Paths of all fields: `record.trials[].seed`.
fn paths(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    match value {
        // The names in it are free.
        Value::Object(_) if at.ends_with(".extra") => {}
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                paths(value, &path, found);
                found.insert(path);
            }
        }
        Value::Array(elements) => elements.iter().for_each(|value| paths(value, &format!("{at}[]"), found)),
        _ => {}
    }
}

fn present() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    paths(&full(), "", &mut found);
    found
}

#[test]
fn every_field_is_documented() {
    let start = README.find("## `report.json`").expect("the README has the schema");
    let section = &README[start..];
    let section = &section[..section[3..].find("\n## ").map_or(section.len(), |end| end + 3)];
    let words: BTreeSet<&str> = section.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).collect();
    let undocumented: Vec<_> = present()
        .into_iter()
        .filter(|path| !words.contains(path.rsplit(['.']).next().unwrap().trim_end_matches("[]")))
        .collect();
    assert!(undocumented.is_empty(), "name them in reports/README.md: {undocumented:#?}");
    assert!(section.contains(&format!("schema {SCHEMA_VERSION}\n")), "the README is of another version");
}

#[test]
fn no_field_goes_away_within_a_version() {
    assert_eq!(SCHEMA_VERSION, 1, "write the paths of the new version to a file of its own, and hold that");
    let present = present();
    let gone: Vec<_> = PATHS.lines().filter(|path| !present.contains(*path)).collect();
    assert!(gone.is_empty(), "gone from report.json, so raise SCHEMA_VERSION: {gone:#?}");
    // Told by hand, so that the list is complete when it is needed.
    let new: Vec<_> = present.iter().filter(|path| !PATHS.lines().any(|line| line == *path)).collect();
    assert!(new.is_empty(), "new in report.json, so add to report/schema-1.txt: {new:#?}");
}
