//! Baselines: what a run must not fall behind. A small TOML file that people can read and edit.
//!
//! ```toml
//! schema = 1
//! scenario = "lossy-wifi"
//! board = "host"
//!
//! [[figure]]
//! metric = "connect.client_bytes"
//! variant = "quic"
//! was = 2388.0          # 2,388 B
//! at_most = 2746.2      # 2,746 B
//! ```
//! Values are in the metric's base unit. The limits are worked out when the baseline is made: exact counts
//! tight, what timing moves looser, clocks loose. Checking only compares.

use std::fmt::Write as _;
use std::path::Path;

use serde::Deserialize;

use super::{Report, ReportError};
use crate::measure::analysis::groups;
use crate::measure::judge::{Outcome, Status, Verdict};
use crate::measure::metric::{Better, Figure, Kind};
use crate::measure::record::Role;

/// Version of the format.
const SCHEMA: u32 = 1;

/// What a run is held against.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    schema: u32,
    /// Scenario it belongs to.
    pub scenario: String,
    /// Board it was measured on.
    pub board: String,
    /// Where it came from, for the reader.
    #[serde(default)]
    pub made_from: String,
    /// Its figures.
    #[serde(default)]
    pub figure: Vec<BaselineFigure>,
}

/// One figure of a baseline, in the metric's base unit.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaselineFigure {
    /// Metric, with its statistic.
    pub metric: String,
    /// Variant of the device.
    pub variant: String,
    /// What was measured.
    pub was: f64,
    /// Most it may be.
    #[serde(default)]
    pub at_most: Option<f64>,
    /// Least it may be.
    #[serde(default)]
    pub at_least: Option<f64>,
}

/// Figures a baseline holds, where they were measured.
const HELD: [&str; 25] = [
    "delivery.ratio",
    "acknowledged.ratio",
    "publish.latency.p50",
    "publish.latency.p99",
    "end_to_end.latency.p50",
    "end_to_end.latency.p99",
    "connect.time.p50",
    "recovery.time.max",
    "service.gap",
    "connect.client_bytes",
    "connect.server_bytes",
    "connect.round_trips",
    "wire.bytes_per_message",
    "wire.packets_per_message",
    "ram.client",
    "ram.client_state",
    "ram.static",
    "stack.high_water",
    "flash.image",
    "flash.client",
    "instructions.handshake.full",
    "instructions.handshake.resumed",
    "instructions.connect",
    "instructions.publish.qos0.p50",
    "instructions.publish.qos1.p50",
];

/// How much worse a figure may become, as a share of what it was.
fn slack(kind: Kind) -> f64 {
    match kind {
        // Compilers place and inline a little differently; anything beyond is a change of ours.
        Kind::Exact => 0.01,
        // An acknowledgement more or less; in a lossy run, a packet lost here or there.
        Kind::Counted => 0.15,
        // Another machine, or this one when busy.
        Kind::Clock => 1.5,
    }
}

/// Clock figures below this, in microseconds, are mostly the host's scheduler.
const CLOCK_FLOOR_US: f64 = 20_000.0;

impl Baseline {
    /// Takes the device's figures of a run as the baseline.
    #[must_use]
    pub fn from_report(report: &Report) -> Self {
        let record = &report.record;
        let groups = groups(record);
        let mut figures = Vec::new();
        for group in groups.iter().filter(|group| group.role == Role::Device) {
            for name in HELD {
                let figure = Figure::parse(name).expect("a test parses every name of the table");
                let Some(was) = group.value(figure).filter(|value| value.is_finite()) else { continue };
                let kind = figure.metric.kind;
                let more = if kind == Kind::Clock {
                    (was * slack(kind)).max(CLOCK_FLOOR_US)
                } else {
                    was * slack(kind)
                };
                let (at_most, at_least) = match figure.better() {
                    Better::Lower => (Some(was + more), None),
                    Better::Higher => (None, Some(was / (1.0 + slack(kind)))),
                };
                let (metric, variant) = (name.to_owned(), group.variant.to_owned());
                figures.push(BaselineFigure { metric, variant, was, at_most, at_least });
            }
        }
        let revision = record.environment.git_revision.as_deref().unwrap_or("an unknown revision");
        Self {
            schema: SCHEMA,
            scenario: record.scenario.name.clone(),
            board: record.environment.board.name.clone(),
            made_from: format!("{revision}, {}", record.environment.replay),
            figure: figures,
        }
    }

    /// The file.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = format!(
            "# Baseline of {} on the {} board. Values are in base units: microseconds, bytes, fractions.\n\
             # Make it anew with --write-baseline; edit a limit where you know better.\n\
             schema = {SCHEMA}\nscenario = {:?}\nboard = {:?}\nmade_from = {:?}\n",
            self.scenario, self.board, self.scenario, self.board, self.made_from
        );
        for figure in &self.figure {
            let unit = Figure::parse(&figure.metric).map(Figure::unit).ok();
            let words = |value: f64| unit.map(|unit| unit.format(value)).unwrap_or_default();
            let mut line = |key: &str, value: f64| {
                writeln!(text, "{key} = {value:?} # {}", words(value))
                    .expect("writing to a string cannot fail");
            };
            line("\n[[figure]]\nwas", figure.was);
            if let Some(limit) = figure.at_most {
                line("at_most", limit);
            }
            if let Some(limit) = figure.at_least {
                line("at_least", limit);
            }
            writeln!(text, "metric = {:?}\nvariant = {:?}", figure.metric, figure.variant)
                .expect("writing to a string cannot fail");
        }
        text
    }

    /// Reads a baseline file.
    ///
    /// # Errors
    /// The file cannot be read, is no baseline, or names a figure that does not exist.
    pub fn load(path: &Path) -> Result<Self, ReportError> {
        let malformed = |problem: String| ReportError::Baseline { path: path.to_owned(), problem };
        let text = std::fs::read_to_string(path).map_err(|error| malformed(error.to_string()))?;
        let baseline: Self = toml::from_str(&text).map_err(|error| malformed(error.to_string()))?;
        if baseline.schema != SCHEMA {
            return Err(malformed(format!("it has schema {}, this harness reads {SCHEMA}", baseline.schema)));
        }
        if baseline.figure.is_empty() {
            return Err(malformed("it holds no figure, so no run could fall behind it".to_owned()));
        }
        for figure in &baseline.figure {
            let name = &figure.metric;
            Figure::parse(name).map_err(|error| malformed(format!("{}; {}", error.problem, error.remedy)))?;
            if figure.at_most.is_none() == figure.at_least.is_none() {
                return Err(malformed(format!("{name} needs either at_most or at_least")));
            }
            if figure.at_most.or(figure.at_least).is_none_or(|limit| !limit.is_finite()) {
                return Err(malformed(format!("the limit of {name} is not finite")));
            }
        }
        Ok(baseline)
    }

    /// Whether this baseline can be held against such a run.
    ///
    /// # Errors
    /// It is of another scenario or board.
    pub fn fits(&self, scenario: &str, board: &str) -> Result<(), ReportError> {
        if scenario == self.scenario && board == self.board {
            return Ok(());
        }
        Err(ReportError::ForeignBaseline {
            baseline: format!("{} on {}", self.scenario, self.board),
            run: format!("{scenario} on {board}"),
        })
    }

    /// Whether it has anything to say of one of these variants.
    #[must_use]
    pub fn speaks_of<'v>(&self, mut variants: impl Iterator<Item = &'v str>) -> bool {
        variants.any(|variant| self.figure.iter().any(|figure| figure.variant == variant))
    }

    /// Holds a run against the baseline: its figures join the expectations, and a regression fails the run.
    ///
    /// # Errors
    /// The baseline is of another scenario or board.
    pub fn apply(&self, report: &mut Report) -> Result<(), ReportError> {
        let record = &report.record;
        self.fits(&record.scenario.name, &record.environment.board.name)?;
        let outcomes: Vec<_> = self
            .figure
            .iter()
            // A variant left out on the command line is not held against anything.
            .filter(|figure| record.scenario.variants.contains(&figure.variant))
            .map(|figure| hold(figure, report))
            .collect();
        add(&mut report.verdict, outcomes);
        Ok(())
    }
}

fn hold(held: &BaselineFigure, report: &Report) -> Outcome {
    let figure = Figure::parse(&held.metric).expect("checked when the baseline was read");
    let unit = figure.unit();
    let groups = groups(&report.record);
    let group = groups.iter().find(|group| group.variant == held.variant && group.role == Role::Device);
    let actual = group.and_then(|group| group.estimate(figure));
    let (sign, limit) = match (held.at_most, held.at_least) {
        (Some(limit), _) => ("≤", limit),
        (None, limit) => ("≥", limit.unwrap_or(0.0)),
    };
    let (was, limit_text) = (unit.format(held.was), unit.format(limit));
    let (status, explanation) = match actual {
        None => (Status::NotMeasured, format!("{figure} was not measured; the baseline has {was}")),
        Some(actual) => {
            let holds = if held.at_most.is_some() { actual.value <= limit } else { actual.value >= limit };
            let value = unit.format(actual.value);
            let words = if holds {
                format!("{value} {sign} {limit_text}; the baseline was {was}")
            } else {
                format!("{figure} is {value}, the baseline was {was} and allows {sign} {limit_text}")
            };
            (if holds { Status::Passed } else { Status::Failed }, words)
        }
    };
    Outcome {
        expectation: format!("baseline: {figure} {sign} {limit_text}"),
        variant: held.variant.clone(),
        role: Role::Device,
        status,
        decides: true,
        actual,
        limit: Some(limit),
        unit,
        explanation,
    }
}

fn add(verdict: &mut Verdict, outcomes: Vec<Outcome>) {
    let failed: Vec<_> = outcomes.iter().filter(|outcome| outcome.status != Status::Passed).collect();
    if let Some(first) = failed.first() {
        let more = if failed.len() > 1 { format!(" and {} more", failed.len() - 1) } else { String::new() };
        let regression = format!("Regression against the baseline: {}{more}.", first.explanation);
        // A failed run is not to open with the scenario's own Yes.
        verdict.answer = match verdict.answer.strip_prefix("Yes. ") {
            Some(answer) => format!("No. {regression} Its own expectations hold: {answer}"),
            None => format!("{} {regression}", verdict.answer),
        };
        verdict.passed = false;
    }
    verdict.outcomes.extend(outcomes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::sample;
    use crate::scenario::Scenario;

    fn report(edit: impl FnOnce(&mut crate::measure::RunRecord)) -> Report {
        let mut record = sample::record();
        // One transport is enough here.
        record.trials.retain(|trial| trial.variant == "quic" && trial.role == Role::Device);
        record.scenario.variants = vec!["quic".into()];
        record.scenario.planned_trials = record.trials.len();
        edit(&mut record);
        Report::new(record, &Scenario::parse("sample.toml", sample::SCENARIO).unwrap())
    }

    fn written(baseline: &Baseline) -> Result<Baseline, ReportError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("baseline.toml");
        std::fs::write(&path, baseline.to_toml()).unwrap();
        Baseline::load(&path)
    }

    #[test]
    fn every_figure_of_the_table_exists() {
        for name in HELD {
            assert!(Figure::parse(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_baseline_reads_back_and_its_own_run_meets_it() {
        let mut report = report(|_| {});
        let baseline = Baseline::from_report(&report);
        assert!(baseline.figure.len() > 12, "{}", baseline.figure.len());
        assert_eq!(written(&baseline).unwrap(), baseline);
        let before = report.verdict.clone();
        baseline.apply(&mut report).unwrap();
        assert_eq!(report.verdict.passed, before.passed);
        assert_eq!(report.verdict.outcomes.len(), before.outcomes.len() + baseline.figure.len());
    }

    #[test]
    fn exact_counts_are_held_tightly_and_clocks_loosely() {
        let baseline = Baseline::from_report(&report(|_| {}));
        let mut more_memory = report(|record| {
            for snapshot in record.trials.iter_mut().flat_map(|trial| &mut trial.memory) {
                snapshot.client_ram = snapshot.client_ram.map(|bytes| bytes * 103 / 100);
            }
        });
        assert!(more_memory.verdict.passed, "{}", more_memory.verdict.answer);
        baseline.apply(&mut more_memory).unwrap();
        assert!(!more_memory.verdict.passed);
        let answer = &more_memory.verdict.answer;
        assert!(
            answer.starts_with("No. Regression against the baseline: ram.client is 29,664 B"),
            "{answer}"
        );
        assert!(answer.contains("Its own expectations hold: 100 % of 600 messages arrived"), "{answer}");

        let mut slower = report(|record| {
            for message in record.trials.iter_mut().flat_map(|trial| &mut trial.messages) {
                message.acked_us = message.acked_us.map(|at| at + (at - message.intended_us) / 2);
            }
        });
        baseline.apply(&mut slower).unwrap();
        assert!(slower.verdict.passed, "{}", slower.verdict.answer);
    }

    #[test]
    fn what_is_no_longer_measured_is_a_regression() {
        let baseline = Baseline::from_report(&report(|_| {}));
        let mut blind = report(|record| record.trials.iter_mut().for_each(|trial| trial.costs.clear()));
        baseline.apply(&mut blind).unwrap();
        assert!(!blind.verdict.passed);
        assert!(
            blind.verdict.answer.contains("was not measured; the baseline has"),
            "{}",
            blind.verdict.answer
        );
    }

    #[test]
    fn a_foreign_or_broken_baseline_is_refused() {
        let mut baseline = Baseline::from_report(&report(|_| {}));
        let mut run = report(|_| {});
        baseline.board = "host".into();
        let error = baseline.apply(&mut run).unwrap_err().to_string();
        assert!(error.contains("sample on host") && error.contains("sample on qemu"), "{error}");
        baseline.figure[0].metric = "delivry.ratio".into();
        let error = written(&baseline).unwrap_err().to_string();
        assert!(error.contains("did you mean delivery.ratio?"), "{error}");
        baseline.figure[0].metric = "delivery.ratio".into();
        baseline.figure[0].at_most = Some(1.0);
        let error = written(&baseline).unwrap_err().to_string();
        assert!(error.contains("needs either at_most or at_least"), "{error}");
        (baseline.figure[0].at_most, baseline.figure[0].at_least) = (Some(f64::INFINITY), None);
        let error = written(&baseline).unwrap_err().to_string();
        assert!(error.contains("the limit of delivery.ratio is not finite"), "{error}");
        baseline.figure.clear();
        let error = written(&baseline).unwrap_err().to_string();
        assert!(error.contains("it holds no figure"), "{error}");
    }
}
