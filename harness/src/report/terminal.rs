//! A run and a comparison as text for a terminal, and as JSON for a pipe.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use super::Report;
use super::compare::Comparison;
use crate::measure::analysis::{Group, groups};
use crate::measure::difference::Change;
use crate::measure::judge::{Outcome, Status, who};
use crate::measure::metric::{Better, Figure, Kind, Metric, Shape};
use crate::measure::stats::Statistic;
use crate::measure::unit::Unit;

/// Whether to use colour: only where a person looks at a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// ANSI colours.
    Ansi,
    /// Plain text.
    None,
}

impl Colour {
    fn paint(self, code: &str, text: &str) -> String {
        match self {
            Self::Ansi => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            Self::None => text.to_owned(),
        }
    }
}

const GREEN: &str = "32";
const RED: &str = "31";
const BOLD: &str = "1";
const DIM: &str = "2";

/// Figures of the summary, where they were measured.
const SHOWN: [&str; 15] = [
    "delivery.ratio",
    "publish.latency.p50",
    "publish.latency.p99",
    "end_to_end.latency.p50",
    "end_to_end.latency.p99",
    "connect.time.p50",
    "recovery.time.max",
    "fleet.recovery.time.max",
    "throughput.up",
    "throughput.down",
    "wire.bytes_per_message",
    "connect.client_bytes",
    "ram.client",
    "stack.high_water",
    "instructions.handshake.full",
];

/// What a person wants to know after a run.
#[must_use]
pub fn summary(report: &Report, folder: Option<&Path>, colour: Colour) -> String {
    let record = &report.record;
    let groups = groups(record);
    let mut text = String::new();
    let mut line = |words: String| writeln!(text, "{words}").expect("writing to a string cannot fail");
    let (code, word) = if report.verdict.passed { (GREEN, "PASSED") } else { (RED, "FAILED") };
    let environment = &record.environment;
    line(format!(
        "{} on the {} board, {}",
        colour.paint(BOLD, &record.scenario.name),
        environment.board.name,
        environment.broker.description
    ));
    line(format!("  {}", record.scenario.question));
    line(format!("  {} {}", colour.paint(&format!("{BOLD};{code}"), word), report.verdict.answer));
    line(String::new());
    for row in expectations(report, &groups, colour) {
        line(row);
    }
    line(String::new());
    for row in figures(&groups, colour) {
        line(row);
    }
    if environment.board.timing == crate::measure::record::Timing::Emulated {
        line(
            colour
                .paint(DIM, "  Emulated board: times include the host's processor and are not board times."),
        );
    }
    line(colour.paint(DIM, &format!("  Again: {}", environment.replay)));
    if let Some(folder) = folder {
        line(format!("  Report: {}", folder.join("report.html").display()));
    }
    text
}

fn expectations(report: &Report, groups: &[Group<'_>], colour: Colour) -> Vec<String> {
    let outcomes = &report.verdict.outcomes;
    let mut texts: Vec<&str> = Vec::new();
    for outcome in outcomes {
        if !texts.contains(&outcome.expectation.as_str()) {
            texts.push(&outcome.expectation);
        }
    }
    let mut table = Table::new(groups.iter().map(Group::label), "");
    let mut failures = Vec::new();
    for text in texts {
        let of: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.expectation == text).collect();
        let failed = |outcome: &&&Outcome| {
            outcome.decides && matches!(outcome.status, Status::Failed | Status::NotMeasured)
        };
        let applies = of.iter().any(|outcome| outcome.decides && outcome.status != Status::NotApplicable);
        let mark = match (of.iter().any(|outcome| failed(&outcome)), applies) {
            (true, _) => colour.paint(RED, "✗"),
            (false, true) => colour.paint(GREEN, "✓"),
            (false, false) => "–".to_owned(),
        };
        let cells = groups.iter().map(|group| {
            let own = of.iter().rfind(|o| o.variant == group.variant && o.role == group.role);
            own.map_or_else(|| "–".to_owned(), |outcome| value(outcome))
        });
        table.row(mark, text.to_owned(), cells);
        failures.extend(of.into_iter().filter(|outcome| failed(&outcome)));
    }
    let mut rows = table.lines(colour);
    for outcome in failures {
        let of = if outcome.variant.is_empty() { String::new() } else { format!(" ({})", who(outcome)) };
        rows.push(format!("  {} {}{of}", colour.paint(RED, "✗"), outcome.explanation));
    }
    rows
}

fn value(outcome: &Outcome) -> String {
    match (outcome.status, outcome.actual) {
        (Status::Passed | Status::Failed, Some(actual)) => shown(outcome.unit, actual.value),
        (status, _) => status.label().to_owned(),
    }
}

fn shown(unit: Unit, value: f64) -> String {
    if value.is_infinite() { "never".into() } else { unit.format(value) }
}

fn figures(groups: &[Group<'_>], colour: Colour) -> Vec<String> {
    let mut table = Table::new(groups.iter().map(Group::label), "Figure, 95 % interval");
    for name in SHOWN {
        let Ok(figure) = Figure::parse(name) else { continue };
        let estimates: Vec<_> = groups.iter().map(|group| group.estimate(figure)).collect();
        if estimates.iter().all(Option::is_none) {
            continue;
        }
        let cells = estimates.into_iter().map(|estimate| {
            let Some(estimate) = estimate else { return "–".to_owned() };
            let unit = figure.unit();
            let interval = estimate.interval.filter(|i| shown(unit, i.low) != shown(unit, i.high));
            let interval = interval.map(|i| format!(" [{}, {}]", shown(unit, i.low), shown(unit, i.high)));
            format!("{}{}", shown(unit, estimate.value), interval.unwrap_or_default())
        });
        table.row(" ".into(), name.to_owned(), cells);
    }
    table.lines(colour)
}

/// Text in columns as wide as they need to be.
struct Table {
    heading: String,
    columns: Vec<String>,
    rows: Vec<(String, String, Vec<String>)>,
}

impl Table {
    fn new(columns: impl Iterator<Item = String>, heading: &str) -> Self {
        Self { heading: heading.to_owned(), columns: columns.collect(), rows: Vec::new() }
    }

    fn row(&mut self, mark: String, name: String, cells: impl Iterator<Item = String>) {
        self.rows.push((mark, name, cells.collect()));
    }

    fn lines(&self, colour: Colour) -> Vec<String> {
        if self.rows.is_empty() {
            return Vec::new();
        }
        let width = |text: &str| text.chars().count();
        let names = self.rows.iter().map(|(_, name, _)| width(name)).chain([width(&self.heading)]).max();
        let names = names.unwrap_or(0);
        let widths: Vec<_> = self
            .columns
            .iter()
            .enumerate()
            .map(|(index, heading)| {
                let cells =
                    self.rows.iter().filter_map(|(_, _, cells)| cells.get(index)).map(|cell| width(cell));
                cells.max().unwrap_or(0).max(width(heading))
            })
            .collect();
        let join = |mark: &str, name: &str, cells: &[String]| {
            let cells = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            let cells = cells.collect::<Vec<_>>().join("   ");
            format!("  {mark} {name:<names$}   {}", cells.trim_end())
        };
        let heading = join(" ", &self.heading, &self.columns);
        let mut lines = vec![colour.paint(DIM, heading.trim_end())];
        lines.extend(self.rows.iter().map(|(mark, name, cells)| join(mark, name, cells)));
        lines
    }
}

/// A run for a program: verdict and figures; the whole record is in `report.json`.
#[must_use]
pub fn json(report: &Report, folder: Option<&Path>) -> String {
    let record = &report.record;
    let value = json!({
        "schema": report.schema,
        "scenario": record.scenario.name,
        "board": record.environment.board.name,
        "broker": record.environment.broker.description,
        "passed": report.verdict.passed,
        "answer": report.verdict.answer,
        "outcomes": report.verdict.outcomes,
        "metrics": report.metrics,
        "trials": record.trials.len(),
        "replay": record.environment.replay,
        "report": folder.map(|folder| folder.display().to_string()),
    });
    value.to_string()
}

/// A comparison as text.
#[must_use]
pub fn comparison(comparison: &Comparison, colour: Colour) -> String {
    let mut text = String::new();
    let mut line = |words: String| writeln!(text, "{words}").expect("writing to a string cannot fail");
    line(format!("before  {}", comparison.before));
    line(format!("after   {}", comparison.after));
    let code = match comparison.verdict {
        Change::Worse => RED,
        Change::Better => GREEN,
        Change::None | Change::Unknown => BOLD,
    };
    line(colour.paint(code, &comparison.summary));
    for caveat in &comparison.caveats {
        line(format!("  mind: {caveat}"));
    }
    let columns = ["before", "after", "change"].map(str::to_owned);
    let mut table = Table::new(columns.into_iter(), "Figure");
    for compared in &comparison.figures {
        let difference = &compared.difference;
        if !matches!(difference.change, Change::Better | Change::Worse) && !compared.decides {
            continue;
        }
        let Ok(figure) = Figure::parse(&compared.figure) else { continue };
        let mark = match difference.change {
            Change::Better => colour.paint(GREEN, "+"),
            Change::Worse => colour.paint(RED, "-"),
            Change::None | Change::Unknown => " ".into(),
        };
        let name = format!("{} ({} {})", compared.figure, compared.variant, compared.role);
        let unit = figure.unit();
        let cells =
            [shown(unit, difference.from), shown(unit, difference.to), difference.change.label().to_owned()];
        table.row(mark, name, cells.into_iter());
    }
    for row in table.lines(colour) {
        line(row);
    }
    text
}

/// Every metric, for `harness list --metrics`.
#[must_use]
pub fn metrics() -> String {
    let columns = ["unit", "better", "taken", "meaning"].map(str::to_owned);
    let mut table = Table::new(columns.into_iter(), "Metric");
    for metric in Metric::all() {
        let unit = match metric.unit.symbols()[0].0 {
            "" => "–",
            symbol => symbol,
        };
        let better = match metric.better {
            Better::Lower => "lower",
            Better::Higher => "higher",
        };
        let taken = match metric.kind {
            Kind::Exact => "exact",
            Kind::Counted => "counted",
            Kind::Clock => "clock",
        };
        let name = match metric.shape {
            Shape::Distribution => format!("{}.STATISTIC", metric.name),
            Shape::Value(_) | Shape::Quotient => metric.name.to_owned(),
        };
        table.row(" ".into(), name, [unit, better, taken, metric.doc].map(str::to_owned).into_iter());
    }
    let mut text = table.lines(Colour::None).join("\n");
    let statistics = Statistic::ALL.map(|statistic| format!("{} ({})", statistic.name(), statistic.doc()));
    write!(text, "\n\nSTATISTIC is one of {}.\n", statistics.join(", "))
        .expect("writing to a string cannot fail");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::sample;
    use crate::scenario::Scenario;

    fn report() -> Report {
        Report::new(sample::record(), &Scenario::parse("sample.toml", sample::SCENARIO).unwrap())
    }

    #[test]
    fn the_summary_has_verdict_expectations_figures_and_the_way_back() {
        let text = summary(&report(), Some(Path::new("reports/sample/1")), Colour::None);
        println!("{text}");
        for part in [
            "sample on the qemu board",
            "FAILED No. tls: delivery.ratio is 99.83 %",
            "✗ delivery.ratio = 100 % for all",
            "✓ publish.latency.p99 <= 3 s",
            "quic reference",
            "Emulated board",
            "Again: cargo run -p harness -- scenario sample",
            "reports/sample/1/report.html",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
        assert!(!text.contains('\u{1b}'));
        assert!(text.lines().all(|line| line.trim_end() == line), "trailing blanks");
        assert!(summary(&report(), None, Colour::Ansi).contains("\u{1b}[1;31mFAILED"));
    }

    #[test]
    fn json_is_one_line_of_json() {
        let text = json(&report(), None);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["passed"], false);
        assert_eq!(value["scenario"], "sample");
        assert!(value["outcomes"].as_array().unwrap().len() > 10);
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn a_comparison_reads_as_text() {
        let (before, mut record) = (report(), sample::record());
        for message in record.trials.iter_mut().flat_map(|trial| &mut trial.messages) {
            message.acked_us = message.acked_us.map(|at| at + 400_000);
        }
        let after = Report::new(record, &Scenario::parse("sample.toml", sample::SCENARIO).unwrap());
        let text = comparison(&super::super::compare::compare(&before, &after), Colour::None);
        assert!(text.contains("Regression: publish.latency.p50 (quic)"), "{text}");
        assert!(text.contains("- publish.latency.p50 (quic device)"), "{text}");
    }

    #[test]
    fn the_list_of_metrics_names_all() {
        let text = metrics();
        assert!(Metric::all().iter().all(|metric| text.contains(metric.name) && text.contains(metric.doc)));
        assert!(text.contains("p99.9 (99.9th percentile)"));
    }
}
