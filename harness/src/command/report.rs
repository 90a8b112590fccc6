//! `harness report RUN`: judges a recorded run again and prints it, or writes its page anew elsewhere.

use std::path::PathBuf;

use super::{Exit, Failure, Format, colour, print};
use crate::report::{Folder, Report, terminal};

/// Arguments of `harness report`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A report folder or its report.json.
    run: PathBuf,
    /// Write the whole report anew below this folder, as this version of the harness draws it.
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
}

/// Renders the recorded run.
pub fn run(arguments: &Arguments, format: Format) -> Result<Exit, Failure> {
    let report = Report::load(&arguments.run).map_err(|error| Failure::usage(miette::Report::msg(error)))?;
    let report = report.renewed().map_err(|error| Failure::usage(*error))?;
    let mut folder = None;
    if let Some(root) = &arguments.to {
        let environment = &report.record.environment;
        let (started, seed) = (environment.started_unix_us, environment.base_seed);
        let created = Folder::create(root, &report.record.scenario.name, started, seed);
        let written = created.and_then(|created| created.write(&report).map(|()| created));
        folder = Some(written.map_err(|error| Failure::environment(miette::Report::msg(error)))?);
    }
    let path = folder.as_ref().map(Folder::path);
    print(&match format {
        Format::Human => terminal::summary(&report, path, colour()),
        Format::Json => terminal::json(&report, path) + "\n",
    });
    Ok(Exit::from_verdict(report.verdict.passed))
}
