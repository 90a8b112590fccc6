//! `harness energy RUN --trace FILE`: lays a power analyser's trace over a recorded run.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use super::{Exit, Failure, Format, colour, print, talk};
use crate::energy::measured;
use crate::energy::trace::{Trace, TraceError};
use crate::measure::Role;
use crate::report::{Folder, Report, terminal};

/// Arguments of `harness energy`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A report folder or its report.json.
    run: PathBuf,
    /// The trace, a CSV file such as the Power Profiler's export.
    #[arg(long, value_name = "FILE")]
    trace: PathBuf,
    /// The trace's time, in seconds, at the start of the run.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0, allow_negative_numbers = true, value_parser = finite)]
    at: f64,
    /// The supply in volts, for a trace of current alone.
    #[arg(long, default_value_t = 3.3, value_parser = supply)]
    volts: f64,
    /// Where the report with the measured energies is written.
    #[arg(long, default_value = "reports", value_name = "FOLDER")]
    reports: PathBuf,
}

/// Measures, and writes the report anew.
pub fn run(arguments: &Arguments, format: Format) -> Result<Exit, Failure> {
    let usage = |error: &dyn std::fmt::Display| Failure::usage(miette::miette!("{error}"));
    let mut report = Report::load(&arguments.run).map_err(|error| usage(&error))?;
    let path = arguments.trace.display();
    let file = File::open(&arguments.trace).map_err(|error| {
        usage(&format!("cannot open the trace {path}: {error}\n  remedy: check the path given to --trace"))
    })?;
    let of_trace = |error: TraceError| usage(&format!("{path}: {error}"));
    let trace = Trace::read(BufReader::new(file), arguments.volts).map_err(of_trace)?;
    let mut spans = 0;
    for trial in report.record.trials.iter_mut().filter(|trial| trial.role == Role::Device) {
        let offset_s = arguments.at + trial.started_us as f64 / 1e6;
        let energies = measured(trial, &trace, offset_s).map_err(of_trace)?;
        spans += energies.len();
        trial.energy = energies;
        trial.notes.retain(|note| !note.starts_with("energy is an ESTIMATE"));
        trial.notes.push(format!("energy was measured: {path}, {trace}"));
    }
    talk(&format!("{spans} spans measured from {trace}"));
    let report = report.renewed().map_err(|error| Failure::usage(*error))?;
    let environment = &report.record.environment;
    let name = &report.record.scenario.name;
    let folder = Folder::create(&arguments.reports, name, environment.started_unix_us, environment.base_seed)
        .and_then(|folder| folder.write(&report).map(|()| folder))
        .map_err(|error| Failure::environment(miette::Report::msg(error)))?;
    print(&match format {
        Format::Human => terminal::summary(&report, Some(folder.path()), colour()),
        Format::Json => terminal::json(&report, Some(folder.path())) + "\n",
    });
    Ok(Exit::from_verdict(report.verdict.passed))
}

fn finite(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| format!("`{text}` is no number of seconds"))
}

fn supply(text: &str) -> Result<f64, String> {
    let volts = text.parse().ok().filter(|volts: &f64| *volts > 0.0 && volts.is_finite());
    volts.ok_or_else(|| format!("`{text}` is no supply voltage, such as 3.3"))
}
