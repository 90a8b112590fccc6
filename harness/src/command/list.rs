//! `harness list`: scenarios, or the metrics that expectations may name.

use std::fmt::Write as _;

use serde_json::json;

use super::{Exit, Failure, Format, print};
use crate::measure::Metric;
use crate::scenario::{Scenario, library};

/// Arguments of `harness list`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// List the metrics instead of the scenarios.
    #[arg(long)]
    metrics: bool,
}

/// Prints the list.
pub fn run(arguments: &Arguments, format: Format) -> Result<Exit, Failure> {
    let text = if arguments.metrics {
        metrics(format)
    } else {
        scenarios(&library::all().map_err(Failure::usage)?, format)
    };
    print(&text);
    Ok(Exit::Passed)
}

fn scenarios(all: &[Scenario], format: Format) -> String {
    match format {
        Format::Human => {
            let mut text = String::new();
            for scenario in all {
                let variants: Vec<_> =
                    scenario.variants.iter().map(|variant| variant.name.as_str()).collect();
                let boards: Vec<_> = scenario.boards.iter().map(|board| board.name()).collect();
                let _ = writeln!(text, "{:<18} {}", scenario.name, scenario.question);
                let _ = writeln!(
                    text,
                    "{:<18} {} x {} seed(s) on {}",
                    "",
                    variants.join(", "),
                    scenario.seeds.len(),
                    boards.join(", ")
                );
            }
            text
        }
        Format::Json => {
            let rows: Vec<_> = all
                .iter()
                .map(|scenario| {
                    json!({
                        "name": scenario.name,
                        "question": scenario.question,
                        "variants": scenario.variants.iter().map(|variant| &variant.name).collect::<Vec<_>>(),
                        "seeds": scenario.seeds,
                        "boards": scenario.boards.iter().map(|board| board.name()).collect::<Vec<_>>(),
                        "reference": scenario.reference,
                    })
                })
                .collect();
            format!("{:#}\n", json!(rows))
        }
    }
}

fn metrics(format: Format) -> String {
    match format {
        Format::Human => Metric::all().iter().fold(String::new(), |mut text, metric| {
            let _ = writeln!(text, "{:<28} {}", metric.name, metric.doc);
            text
        }),
        Format::Json => {
            let rows: Vec<_> = Metric::all()
                .iter()
                .map(|metric| json!({ "name": metric.name, "doc": metric.doc }))
                .collect();
            format!("{:#}\n", json!(rows))
        }
    }
}
