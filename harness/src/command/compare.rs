//! `harness compare A B`: the difference of two runs, with a verdict that respects their intervals.

use std::path::PathBuf;

use super::{Exit, Failure, Format, colour, print};
use crate::measure::difference::Change;
use crate::report::compare::compare;
use crate::report::{Report, terminal};

/// Arguments of `harness compare`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The run before: a report folder or its report.json.
    before: PathBuf,
    /// The run after.
    after: PathBuf,
    /// Also write the comparison as a page; an existing file is not overwritten.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Compares; a run that got worse fails.
pub fn run(arguments: &Arguments, format: Format) -> Result<Exit, Failure> {
    let load = |path| Report::load(path).map_err(|error| Failure::usage(miette::Report::msg(error)));
    let comparison = compare(&load(&arguments.before)?, &load(&arguments.after)?);
    if let Some(path) = &arguments.html {
        let written = std::fs::File::create_new(path)
            .and_then(|mut file| std::io::Write::write_all(&mut file, comparison.html().as_bytes()));
        written.map_err(|error| {
            Failure::usage(miette::miette!(
                help = "choose another file, or remove this one",
                "cannot write {}: {error}",
                path.display()
            ))
        })?;
    }
    print(&match format {
        Format::Human => terminal::comparison(&comparison, colour()),
        Format::Json => serde_json::to_string(&comparison).expect("a comparison has string keys only") + "\n",
    });
    Ok(Exit::from_verdict(comparison.verdict != Change::Worse))
}
