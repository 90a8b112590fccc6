//! `harness list`: scenarios, or the metrics that expectations may name.

use std::fmt::Write as _;

use serde_json::json;

use super::{Exit, Failure, Format, print};
use crate::measure::metric::Shape;
use crate::measure::{Metric, Statistic};
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
            let width = all.iter().map(|scenario| scenario.name.len()).max().unwrap_or_default();
            for scenario in all {
                let variants: Vec<_> =
                    scenario.variants.iter().map(|variant| variant.name.as_str()).collect();
                let boards: Vec<_> = scenario.boards.iter().map(|board| board.name()).collect();
                let _ = writeln!(text, "{:<width$}  {}", scenario.name, scenario.question);
                let _ = writeln!(
                    text,
                    "{:<width$}  {} x {} seed(s) on {}",
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
    let all = Metric::all();
    match format {
        Format::Human => {
            let width = all.iter().map(|metric| written(metric).len()).max().unwrap_or_default();
            let mut text = all.iter().fold(String::new(), |mut text, metric| {
                let unit = metric.unit.symbols()[0].0;
                let _ = writeln!(text, "{:<width$}  {unit:<6}  {}", written(metric), metric.doc);
                text
            });
            let _ = writeln!(text, "STATISTIC is one of {}", Statistic::ALL.map(Statistic::name).join(", "));
            text
        }
        Format::Json => {
            let rows: Vec<_> = all
                .iter()
                .map(|metric| {
                    json!({
                        "name": metric.name,
                        "unit": metric.unit.symbols()[0].0,
                        "takes_statistic": metric.shape == Shape::Distribution,
                        "doc": metric.doc,
                    })
                })
                .collect();
            format!("{:#}\n", json!(rows))
        }
    }
}

/// The metric as an expectation writes it.
fn written(metric: &Metric) -> String {
    let statistic = if metric.shape == Shape::Distribution { ".STATISTIC" } else { "" };
    format!("{}{statistic}", metric.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_in_a_column_of_their_own() {
        let text = scenarios(&library::all().expect("they are sound"), Format::Human);
        let starts: Vec<_> = text
            .lines()
            .step_by(2)
            .map(|line| line.find("  ").map(|end| end + line[end..].len() - line[end..].trim_start().len()))
            .collect();
        assert!(starts.windows(2).all(|pair| pair[0].is_some() && pair[0] == pair[1]), "{text}");
    }

    #[test]
    fn metrics_are_listed_as_an_expectation_writes_them() {
        let text = metrics(Format::Human);
        let line =
            |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        assert!(line("publish.latency.STATISTIC ").contains(" ms "), "{text}");
        assert!(line("delivery.ratio ").contains(" % "), "{text}");
        assert!(text.trim_end().ends_with("count, failed"), "{text}");
    }
}
