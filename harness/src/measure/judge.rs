//! The verdict: every expectation held against every variant and role it speaks of.
//!
//! What was not measured fails, and so does a trial that did not complete: a verdict never passes for want
//! of evidence. Expectations speak of the device unless they say otherwise; the reference client is judged by
//! the same words for comparison, without effect on the verdict.

use serde::{Deserialize, Serialize};

use super::analysis::{Estimate, Group, groups};
use super::expectation::{Comparison, Expectation, Limit};
use super::metric::Shape;
use super::record::{Ending, Role, RunRecord};
use super::unit::Unit;
use crate::scenario::Scenario;

/// What a run has shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether everything that had to be met was met.
    pub passed: bool,
    /// One or two sentences that answer the scenario's question.
    pub answer: String,
    /// Every expectation by variant and role, and one outcome for each trial that did not complete.
    pub outcomes: Vec<Outcome>,
}

/// One expectation held against one variant and role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The expectation as it was written.
    pub expectation: String,
    /// Variant it was held against.
    pub variant: String,
    /// Role it was held against.
    pub role: Role,
    /// The result.
    pub status: Status,
    /// Whether a failure fails the run.
    pub decides: bool,
    /// What was measured.
    pub actual: Option<Estimate>,
    /// What it was compared with, in the same unit.
    #[serde(with = "optional")]
    pub limit: Option<f64>,
    /// The unit of both.
    pub unit: Unit,
    /// The result in words.
    pub explanation: String,
}

/// Result of an expectation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Met.
    Passed,
    /// Not met.
    Failed,
    /// Nothing measured it: not met.
    NotMeasured,
    /// It speaks of a board or variant that did not take part.
    NotApplicable,
}

impl Status {
    /// The word for readers.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::NotMeasured => "not measured",
            Self::NotApplicable => "not applicable",
        }
    }
}

/// `Option<f64>` that may be infinite.
mod optional {
    use super::super::stats::finite;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Wrapped(#[serde(with = "finite")] f64);

    pub(super) fn serialize<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        value.map(Wrapped).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
        Ok(Option::<Wrapped>::deserialize(deserializer)?.map(|wrapped| wrapped.0))
    }
}

/// Holds a run against its scenario.
#[must_use]
pub fn judge(record: &RunRecord, scenario: &Scenario) -> Verdict {
    let groups = groups(record);
    let mut outcomes = incomplete(record);
    for expectation in &scenario.expectations {
        outcomes.extend(hold(expectation, record, &groups));
    }
    let decided = |outcome: &&Outcome| outcome.decides && outcome.status != Status::NotApplicable;
    let any = outcomes.iter().any(|outcome| decided(&outcome));
    let passed = any
        && record.ending.is_completed()
        && outcomes.iter().filter(decided).all(|outcome| outcome.status == Status::Passed);
    let answer = answer(record, scenario, &groups, &outcomes, passed, any);
    Verdict { passed, answer, outcomes }
}

/// Trials and runs that did not reach their end.
fn incomplete(record: &RunRecord) -> Vec<Outcome> {
    let outcome = |variant: &str, role, explanation| Outcome {
        expectation: "the trial completes".into(),
        variant: variant.to_owned(),
        role,
        status: Status::Failed,
        decides: role == Role::Device,
        actual: None,
        limit: None,
        unit: Unit::Count,
        explanation,
    };
    let mut outcomes: Vec<_> = record
        .trials
        .iter()
        .filter(|trial| !trial.ending.is_completed())
        .map(|trial| {
            let what = format!("seed {}: {}", trial.seed, describe(&trial.ending));
            outcome(&trial.variant, trial.role, what)
        })
        .collect();
    let (done, planned) = (record.trials.len(), record.scenario.planned_trials);
    if done < planned {
        let what = format!("only {done} of {planned} trials were run: {}", describe(&record.ending));
        outcomes.push(outcome("", Role::Device, what));
    }
    outcomes
}

/// An ending in words.
#[must_use]
pub fn describe(ending: &Ending) -> String {
    match ending {
        Ending::Completed => "completed".into(),
        Ending::Interrupted { by } => format!("interrupted by {by}"),
        Ending::Failed { phase, cause, .. } => format!("failed in phase {phase}: {cause}"),
    }
}

fn hold(expectation: &Expectation, record: &RunRecord, groups: &[Group<'_>]) -> Vec<Outcome> {
    let board = &record.environment.board.name;
    if !expectation.boards.is_empty() && !expectation.boards.contains(board) {
        let what = format!("speaks of {}; this is {board}", expectation.boards.join(", "));
        return vec![not_applicable(expectation, "", what)];
    }
    let mut outcomes = Vec::new();
    for variant in &expectation.variants {
        if !record.scenario.variants.contains(variant) {
            outcomes.push(not_applicable(expectation, variant, format!("{variant} did not take part")));
        }
    }
    let spoken_of = |group: &&Group<'_>| {
        expectation.variants.is_empty() || expectation.variants.iter().any(|name| name == group.variant)
    };
    outcomes
        .extend(groups.iter().filter(spoken_of).map(|group| hold_group(expectation, record, groups, group)));
    // A variant that was to run but left no trial behind has measured nothing.
    for variant in &record.scenario.variants {
        let wanted = expectation.variants.is_empty() || expectation.variants.contains(variant);
        let present =
            groups.iter().any(|group| group.variant == variant && expectation.roles.contains(&group.role));
        if wanted && !present {
            let mut outcome = not_applicable(expectation, variant, "no trial was run".into());
            outcome.status = Status::NotMeasured;
            outcome.role = expectation.roles[0];
            outcome.decides = expectation.roles.contains(&Role::Device);
            outcomes.push(outcome);
        }
    }
    outcomes
}

fn not_applicable(expectation: &Expectation, variant: &str, explanation: String) -> Outcome {
    Outcome {
        expectation: expectation.text.clone(),
        variant: variant.to_owned(),
        role: Role::Device,
        status: Status::NotApplicable,
        decides: false,
        actual: None,
        limit: None,
        unit: expectation.figure.unit(),
        explanation,
    }
}

fn hold_group(
    expectation: &Expectation,
    record: &RunRecord,
    groups: &[Group<'_>],
    group: &Group<'_>,
) -> Outcome {
    let figure = expectation.figure;
    let unit = figure.unit();
    let decides = expectation.roles.contains(&group.role);
    let actual = group.estimate(figure);
    let (limit, limit_name) = match &expectation.limit {
        Limit::Value(value) => (Some(*value), String::new()),
        Limit::Figure { factor, figure: other } => {
            (group.value(*other).map(|value| value * factor), relative(*factor, &other.to_string()))
        }
        Limit::Variant { factor, variant } => {
            let other = groups.iter().find(|other| other.variant == variant && other.role == group.role);
            let value = other.and_then(|other| other.value(figure)).map(|value| value * factor);
            (value, relative(*factor, variant))
        }
    };
    let absent_variant = match &expectation.limit {
        Limit::Variant { variant, .. } => !record.scenario.variants.contains(variant),
        _ => false,
    };
    let (status, explanation) = match (actual, limit) {
        _ if absent_variant => (
            Status::NotApplicable,
            format!("there is nothing to compare with: {limit_name} did not take part"),
        ),
        (None, _) => (Status::NotMeasured, format!("{figure} was not measured on this board and transport")),
        (Some(_), None) => (Status::NotMeasured, format!("{limit_name}, to compare with, was not measured")),
        (Some(actual), Some(limit)) => {
            let holds = expectation.comparison.holds(actual.value, limit);
            let words = explain(expectation, &actual, limit, &limit_name, holds);
            (if holds { Status::Passed } else { Status::Failed }, words)
        }
    };
    Outcome {
        expectation: expectation.text.clone(),
        variant: group.variant.to_owned(),
        role: group.role,
        status,
        decides,
        actual,
        limit,
        unit,
        explanation,
    }
}

fn relative(factor: f64, name: &str) -> String {
    if factor == 1.0 { name.to_owned() } else { format!("{factor} × {name}") }
}

fn explain(
    expectation: &Expectation,
    actual: &Estimate,
    limit: f64,
    limit_name: &str,
    holds: bool,
) -> String {
    let figure = expectation.figure;
    let unit = figure.unit();
    let limit = unit.format(limit);
    let limit = if limit_name.is_empty() { limit } else { format!("{limit} ({limit_name})") };
    let (value, comparison) = (shown(unit, actual.value), expectation.comparison);
    let mut words = match holds {
        true => format!("{value} {comparison} {limit}"),
        false if expectation.comparison == Comparison::Equal => {
            format!("{figure} is {value}, expected {limit}")
        }
        false => format!("{figure} is {value}, expected {comparison} {limit}"),
    };
    if actual.failed > 0 && figure.metric.shape == Shape::Distribution {
        words += &format!("; {} of {} never came", actual.failed, actual.samples);
    }
    words
}

/// A value in words: what is infinite never came.
fn shown(unit: Unit, value: f64) -> String {
    if value == f64::INFINITY { "never".into() } else { unit.format(value) }
}

fn answer(
    record: &RunRecord,
    scenario: &Scenario,
    groups: &[Group<'_>],
    outcomes: &[Outcome],
    passed: bool,
    any: bool,
) -> String {
    if !record.ending.is_completed() {
        let was = if matches!(record.ending, Ending::Interrupted { .. }) { "was " } else { "" };
        return format!("No answer: the run {was}{}.", describe(&record.ending).trim_end_matches('.'));
    }
    if !any {
        return "No answer: no expectation applies to this board and these transports.".into();
    }
    let filled = scenario.answer.fill(|figure, variant| {
        let group = groups.iter().find(|group| {
            group.role == Role::Device && variant.is_none_or(|variant| variant == group.variant)
        });
        let value = group.and_then(|group| group.value(figure));
        value.map_or_else(|| "(not measured)".to_owned(), |value| shown(figure.unit(), value))
    });
    if passed {
        return format!("Yes. {filled}");
    }
    let failed = |outcome: &&Outcome| {
        outcome.decides && matches!(outcome.status, Status::Failed | Status::NotMeasured)
    };
    let failures: Vec<_> = outcomes.iter().filter(failed).collect();
    let first = failures.first().map(|outcome| {
        let over = if outcome.variant.is_empty() { String::new() } else { format!("{}: ", who(outcome)) };
        format!("{over}{}", outcome.explanation)
    });
    let more = match failures.len() {
        0 | 1 => String::new(),
        2 => "; one more check failed".to_owned(),
        n => format!("; {} more checks failed", n - 1),
    };
    format!("No. {}{more}.", first.unwrap_or_default())
}

/// Whom an outcome speaks of, for readers.
#[must_use]
pub fn who(outcome: &Outcome) -> String {
    match outcome.role {
        Role::Device => outcome.variant.clone(),
        Role::Reference => format!("{} reference", outcome.variant),
    }
}
