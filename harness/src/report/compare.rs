//! Two runs side by side: what became better, what worse, and what no one can tell.

mod page;

use serde::{Deserialize, Serialize};

use super::Report;
use crate::measure::analysis::{Group, groups};
use crate::measure::difference::{Change, Difference, difference};
use crate::measure::metric::{Figure, Kind, Metric, Shape};
use crate::measure::record::{Role, RunRecord};
use crate::measure::stats::Statistic;
use crate::measure::unit::Unit;

/// Two runs compared; the first is the one before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The run before, in words.
    pub before: String,
    /// The run after, in words.
    pub after: String,
    /// What it comes to.
    pub verdict: Change,
    /// The verdict in a sentence.
    pub summary: String,
    /// What makes the runs hard to compare.
    pub caveats: Vec<String>,
    /// Every figure both runs have.
    pub figures: Vec<Compared>,
}

/// One figure of both runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// The figure, such as `publish.latency.p99`.
    pub figure: String,
    /// Variant.
    pub variant: String,
    /// Role.
    pub role: Role,
    /// Both values and what the difference means.
    pub difference: Difference,
    /// Whether it has a say in the verdict.
    pub decides: bool,
}

/// Figures with a say in the verdict. With every metric having one, chance alone would find a change in each run.
const DECIDING: [&str; 17] = [
    "delivery.ratio",
    "publish.latency.p50",
    "publish.latency.p99",
    "end_to_end.latency.p99",
    "connect.time.p50",
    "recovery.time.p50",
    "throughput.up",
    "throughput.down",
    "wire.bytes_per_message",
    "connect.client_bytes",
    "ram.client",
    "stack.high_water",
    "flash.client",
    "flash.image",
    "instructions.handshake.full",
    "instructions.publish.qos0.p50",
    "instructions.publish.qos1.p50",
];

/// A clock figure must change by more than this to decide: two runs of the same thing differ by less.
const CLOCK_MATTERS: f64 = 0.10;
/// Likewise for counts that timing moves.
const COUNTED_MATTERS: f64 = 0.05;

/// Where a link's deliveries were later than this, microseconds at the 99th percentile, the machine was too busy for
/// anything that depends on time to have a say.
const LATE_US_MAX: u64 = 10_000;

fn is_busy(report: &Report) -> bool {
    super::lateness(&report.record).is_some_and(|late| late > LATE_US_MAX)
}

/// Compares `after` with `before`.
#[must_use]
pub fn compare(before: &Report, after: &Report) -> Comparison {
    let (old, new) = (groups(&before.record), groups(&after.record));
    let kinds: &[Kind] = if is_busy(before) || is_busy(after) {
        &[Kind::Exact]
    } else {
        &[Kind::Exact, Kind::Counted, Kind::Clock]
    };
    let mut figures = Vec::new();
    for group in &new {
        if let Some(other) =
            old.iter().find(|other| other.variant == group.variant && other.role == group.role)
        {
            figures.extend(compare_groups(other, group, kinds));
        }
    }
    let of = |change: Change| {
        figures.iter().filter(move |c: &&Compared| c.decides && c.difference.change == change)
    };
    let (worse, better) = (of(Change::Worse).count(), of(Change::Better).count());
    let unknown = of(Change::Unknown).count();
    let list = |change| names(of(change));
    let (verdict, summary) = match (worse, better) {
        _ if figures.is_empty() => (Change::Unknown, "The runs have no figure in common.".to_owned()),
        (0, 0) if unknown > 0 => {
            (Change::None, format!("No significant change; {unknown} figures have too few samples to tell."))
        }
        (0, 0) => (Change::None, "No significant change.".to_owned()),
        (0, _) => (Change::Better, format!("Improvement: {} better, none worse.", list(Change::Better))),
        (_, 0) => (Change::Worse, format!("Regression: {} worse, none better.", list(Change::Worse))),
        _ => {
            let (worse, better) = (list(Change::Worse), list(Change::Better));
            (Change::Worse, format!("Regression: {worse} worse; {better} better."))
        }
    };
    Comparison {
        before: describe(&before.record),
        after: describe(&after.record),
        verdict,
        summary,
        caveats: caveats(before, after),
        figures,
    }
}

impl Comparison {
    /// The comparison as a page of its own.
    #[must_use]
    pub fn html(&self) -> String {
        page::page(self)
    }
}

/// Compares every figure; only metrics of `kinds` have a say in the verdict.
fn compare_groups(before: &Group<'_>, after: &Group<'_>, kinds: &[Kind]) -> Vec<Compared> {
    let mut compared = Vec::new();
    for metric in Metric::all() {
        let (old, new) = (before.clusters(metric), after.clusters(metric));
        if old.is_empty() || new.is_empty() {
            continue;
        }
        let statistics = match metric.shape {
            Shape::Distribution => vec![Statistic::P50, Statistic::P99],
            Shape::Value(statistic) => vec![statistic],
            Shape::Quotient => vec![Statistic::Mean],
        };
        for statistic in statistics {
            let figure = Figure { metric, statistic };
            let Some(difference) = difference(figure, &old, &new) else { continue };
            let name = figure.to_string();
            let decides = after.role == Role::Device
                && DECIDING.contains(&name.as_str())
                && kinds.contains(&metric.kind)
                && (matters(metric.kind, &difference) || difference.change == Change::None);
            let (variant, role) = (after.variant.to_owned(), after.role);
            compared.push(Compared { figure: name, variant, role, difference, decides });
        }
    }
    compared
}

/// Whether a change is large enough to mean something for its kind of figure.
fn matters(kind: Kind, difference: &Difference) -> bool {
    let least = match kind {
        Kind::Exact => return true,
        Kind::Counted => COUNTED_MATTERS,
        Kind::Clock => CLOCK_MATTERS,
    };
    let size = (difference.to - difference.from).abs() / difference.from.abs().max(difference.to.abs());
    // Something against never, or against nothing, matters however it is measured.
    !size.is_finite() || size > least
}

/// Names of figures for a sentence: the first few, and how many more.
fn names<'a>(figures: impl Iterator<Item = &'a Compared>) -> String {
    let names: Vec<_> =
        figures.map(|compared| format!("{} ({})", compared.figure, compared.variant)).collect();
    match names.len() {
        0..=3 => names.join(", "),
        n => format!("{} and {} more", names[..2].join(", "), n - 2),
    }
}

fn describe(record: &RunRecord) -> String {
    let environment = &record.environment;
    let revision = environment.git_revision.as_deref().unwrap_or("unknown revision");
    let started = super::utc::Utc::from_unix_us(environment.started_unix_us).long();
    format!("{} on {}, {revision}, {started}", record.scenario.name, environment.board.name)
}

fn caveats(before: &Report, after: &Report) -> Vec<String> {
    let (a, b) = (&before.record, &after.record);
    let mut caveats = Vec::new();
    let mut differ = |what: &str, a: &str, b: &str| {
        if a != b {
            caveats.push(format!("The runs differ in {what}: {a} before, {b} after."));
        }
    };
    differ("scenario", &a.scenario.name, &b.scenario.name);
    differ("board", &a.environment.board.name, &b.environment.board.name);
    let (old, new) = (&a.environment.broker, &b.environment.broker);
    match (&old.version, &new.version) {
        // Not the words: they also say how a run came by its broker.
        (Some(a), Some(b)) => differ("broker", a, b),
        _ => differ("broker", &old.description, &new.description),
    }
    if let (Some(a), Some(b)) = (&old.image_digest, &new.image_digest) {
        differ("image of the broker", a, b);
    }
    differ("host processor", &a.environment.host.cpu, &b.environment.host.cpu);
    let seeds = |record: &RunRecord| {
        let mut seeds: Vec<_> = record.trials.iter().map(|trial| trial.seed).collect();
        seeds.sort_unstable();
        seeds.dedup();
        seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
    };
    differ("seeds", &seeds(a), &seeds(b));
    if a.scenario.name == b.scenario.name && a.scenario.source != b.scenario.source {
        caveats.push("The scenario's text has changed between the runs.".into());
    }
    for (report, which) in [(before, "first"), (after, "second")] {
        if !report.record.ending.is_completed() {
            caveats.push(format!("The {which} run did not complete."));
        }
        if is_busy(report) {
            let late = Unit::Time.format(super::lateness(&report.record).unwrap_or_default() as f64);
            caveats.push(format!(
                "The machine was busy in the {which} run, its link late by {late} (99th percentile): only exact counts have a say."
            ));
        }
    }
    caveats
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::record::Trial;
    use crate::measure::sample;
    use crate::scenario::Scenario;

    fn report(edit: impl FnMut(&mut Trial)) -> Report {
        let mut record = sample::record();
        record.trials.retain(|trial| trial.variant == "quic" && trial.role == Role::Device);
        record.trials.iter_mut().for_each(edit);
        Report::new(record, &Scenario::parse("sample.toml", sample::SCENARIO).unwrap())
    }

    fn slowed(trial: &mut Trial) {
        for message in &mut trial.messages {
            message.acked_us = message.acked_us.map(|at| at + (at - message.intended_us));
        }
    }

    #[test]
    fn a_run_against_itself_has_not_changed() {
        let comparison = compare(&report(|_| {}), &report(|_| {}));
        assert_eq!(comparison.verdict, Change::None, "{}", comparison.summary);
        assert_eq!(comparison.summary, "No significant change.");
        assert!(comparison.caveats.is_empty(), "{:?}", comparison.caveats);
    }

    #[test]
    fn slower_is_a_regression_one_way_and_an_improvement_the_other() {
        let (fast, slow) = (report(|_| {}), report(slowed));
        let worse = compare(&fast, &slow);
        assert_eq!(worse.verdict, Change::Worse, "{}", worse.summary);
        assert!(worse.summary.starts_with("Regression: publish.latency.p50 (quic)"), "{}", worse.summary);
        assert_eq!(compare(&slow, &fast).verdict, Change::Better);
    }

    #[test]
    fn on_a_busy_machine_only_exact_counts_have_a_say() {
        let late = |trial: &mut Trial| trial.link_up.as_mut().unwrap().late_p99_us = Some(40_000);
        let slow = report(|trial| {
            slowed(trial);
            late(trial);
        });
        let comparison = compare(&report(|_| {}), &slow);
        assert_eq!(comparison.verdict, Change::None, "{}", comparison.summary);
        assert!(comparison.caveats[0].contains("busy in the second run"), "{:?}", comparison.caveats);
        let larger = report(|trial| {
            late(trial);
            trial
                .memory
                .iter_mut()
                .for_each(|snapshot| snapshot.client_ram = snapshot.client_ram.map(|b| b + 16));
        });
        assert_eq!(compare(&report(|_| {}), &larger).verdict, Change::Worse);
    }

    #[test]
    fn a_change_within_the_noise_is_none() {
        // Every message a millisecond later or earlier, by turns.
        let mut turn = 0_u64;
        let jittered = report(|trial| {
            for message in &mut trial.messages {
                turn += 1;
                message.acked_us =
                    message.acked_us.map(|at| if turn.is_multiple_of(2) { at + 1000 } else { at - 1000 });
            }
        });
        assert_eq!(compare(&report(|_| {}), &jittered).verdict, Change::None);
    }

    #[test]
    fn an_exact_count_decides_without_an_interval() {
        let more = report(|trial| {
            trial
                .memory
                .iter_mut()
                .for_each(|snapshot| snapshot.client_ram = snapshot.client_ram.map(|b| b + 16));
        });
        let comparison = compare(&report(|_| {}), &more);
        assert_eq!(comparison.verdict, Change::Worse, "{}", comparison.summary);
        assert!(comparison.summary.contains("ram.client (quic)"), "{}", comparison.summary);
    }

    #[test]
    fn what_makes_runs_hard_to_compare_is_said() {
        let mut other = report(|_| {});
        other.record.environment.board.name = "host".into();
        other.record.trials.iter_mut().for_each(|trial| trial.seed += 10);
        let comparison = compare(&report(|_| {}), &other);
        assert!(
            comparison.caveats.contains(&"The runs differ in board: qemu before, host after.".to_owned())
        );
        assert!(
            comparison
                .caveats
                .iter()
                .any(|caveat| caveat.contains("seeds: 1, 2, 3 before, 11, 12, 13 after"))
        );
    }

    #[test]
    fn the_same_broker_is_the_same_however_a_run_came_by_it() {
        let before = report(|_| {});
        let mut after = before.clone();
        let broker = &mut after.record.environment.broker;
        broker.kind = "auto".into();
        broker.description = format!("{}; in place of EMQX: Docker does not answer", broker.description);
        assert!(compare(&before, &after).caveats.is_empty(), "{:?}", compare(&before, &after).caveats);

        after.record.environment.broker.version = Some("mqtt5 0.50".into());
        let expected = "The runs differ in broker: mqtt5 0.49 before, mqtt5 0.50 after.";
        assert_eq!(compare(&before, &after).caveats, [expected]);

        after.record.environment.broker.version = None;
        let caveats = compare(&before, &after).caveats;
        assert!(caveats[0].contains("Docker does not answer"), "{caveats:?}");
    }

    #[test]
    fn another_image_of_the_same_name_is_another_broker() {
        let of = |digest: &str| {
            let mut report = report(|_| {});
            report.record.environment.broker.image_digest = Some(digest.to_owned());
            report
        };
        assert!(compare(&of("sha256:1"), &of("sha256:1")).caveats.is_empty());
        let caveats = compare(&of("sha256:1"), &of("sha256:2")).caveats;
        assert_eq!(caveats, ["The runs differ in image of the broker: sha256:1 before, sha256:2 after."]);
    }

    #[test]
    fn runs_with_nothing_in_common_cannot_be_compared() {
        let mut other = report(|_| {});
        other.record.trials.clear();
        assert_eq!(compare(&report(|_| {}), &other).verdict, Change::Unknown);
    }

    #[test]
    fn the_page_says_what_the_comparison_says() {
        let comparison = compare(&report(|_| {}), &report(slowed));
        let page = comparison.html();
        assert!(page.contains("Regression: publish.latency.p50 (quic)"));
        assert!(page.contains("publish.latency.p99"));
        assert!(!page.contains("http"));
    }

    #[test]
    fn every_deciding_figure_exists() {
        for name in DECIDING {
            assert!(Figure::parse(name).is_ok(), "{name}");
        }
    }
}
