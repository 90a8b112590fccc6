//! `harness merge`: the reports of a fleet's shards made into one.

use std::path::{Path, PathBuf};

use super::{Exit, Failure, Format, colour, print};
use crate::fleet::merge;
use crate::measure::record::{Blame, Ending};
use crate::report::{Folder, Report, terminal};
use crate::scenario::Scenario;

/// Arguments of `harness merge`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Report folders of all shards, or folders that hold them.
    #[arg(required = true, value_name = "FOLDER")]
    reports: Vec<PathBuf>,
    /// Write the merged report below this folder.
    #[arg(long, default_value = "reports", value_name = "FOLDER")]
    to: PathBuf,
}

/// How deep below a folder reports are looked for: reports/fleet/RUN of each shard's artifact.
const DEPTH: usize = 4;

/// Merges the reports and judges what comes of it.
pub fn run(arguments: &Arguments, format: Format) -> Result<Exit, Failure> {
    let mut shards = Vec::new();
    for root in &arguments.reports {
        let mut found = Vec::new();
        find(root, DEPTH, &mut found);
        if found.is_empty() {
            // The error of reading it says what is wrong with it.
            found.push(root.clone());
        }
        found.sort();
        for path in found {
            let report = Report::load(&path).map_err(|error| Failure::usage(miette::Report::msg(error)))?;
            shards.push((path.display().to_string(), report.record));
        }
    }
    let mut record = merge(shards).map_err(|error| Failure::usage(miette::Report::msg(error)))?;
    record.environment.command_line = std::env::args().collect();
    let scenario =
        Scenario::parse(&record.scenario.origin, &record.scenario.source).map_err(Failure::usage)?;
    let report = Report::new(record, &scenario);
    let environment = &report.record.environment;
    let folder =
        Folder::create(&arguments.to, "fleet-merged", environment.started_unix_us, environment.base_seed)
            .and_then(|folder| folder.write(&report).map(|()| folder))
            .map_err(|error| Failure::environment(miette::Report::msg(error)))?;
    print(&match format {
        Format::Human => terminal::summary(&report, Some(folder.path()), colour()),
        Format::Json => terminal::json(&report, Some(folder.path())) + "\n",
    });
    Ok(match report.record.ending {
        Ending::Failed { blame: Blame::Environment, .. } => Exit::Environment,
        _ => Exit::from_verdict(report.verdict.passed),
    })
}

/// Report folders at `folder` or below.
fn find(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    if folder.join("report.json").is_file() {
        found.push(folder.to_owned());
        return;
    }
    if depth == 0 {
        return;
    }
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            find(&entry.path(), depth - 1, found);
        }
    }
}
