//! Whether two sets of trials differ, and for better or worse.

use serde::{Deserialize, Serialize};

use super::metric::{Better, Figure, Kind};
use super::stats::{self, Cluster, Interval};

/// A figure on two sides.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Value on the first side.
    #[serde(with = "stats::finite")]
    pub from: f64,
    /// Value on the second side.
    #[serde(with = "stats::finite")]
    pub to: f64,
    /// 95 % interval of the difference, second less first.
    pub interval: Option<Interval>,
    /// What it means.
    pub change: Change,
}

/// What a difference means for the second side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Significantly better.
    Better,
    /// Significantly worse.
    Worse,
    /// No significant difference: the interval holds zero, or it is too small to matter.
    None,
    /// A single reading on each side cannot tell.
    Unknown,
}

impl Change {
    /// Words for readers.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::None => "no significant difference",
            Self::Unknown => "too few samples to tell",
        }
    }
}

/// Figures that depend on timing and differ by less than this are the same for every purpose.
const TIMING_INSIGNIFICANT: f64 = 0.02;

/// Compares a figure of two sets of trials; `None` when one side did not measure it.
#[must_use]
pub fn difference(figure: Figure, a: &[Cluster], b: &[Cluster]) -> Option<Difference> {
    let from = stats::statistic(a, figure.statistic)?;
    let to = stats::statistic(b, figure.statistic)?;
    let interval = stats::difference(a, b, figure.statistic, stats::seed_of(figure.metric.name));
    let size = if from == to { 0.0 } else { (to - from).abs() / from.abs().max(to.abs()) };
    let noise = match figure.metric.kind {
        Kind::Exact => 0.0,
        Kind::Counted | Kind::Clock => TIMING_INSIGNIFICANT,
    };
    // Infinite against finite has no finite size, and matters.
    let matters = size > noise || size.is_nan();
    let significant = match interval {
        Some(interval) => Some(interval.low > 0.0 || interval.high < 0.0),
        None if figure.metric.kind == Kind::Exact => Some(true),
        None => None,
    };
    let change = match (significant, matters) {
        (_, false) | (Some(false), true) => Change::None,
        (None, true) => Change::Unknown,
        (Some(true), true) if (to < from) == (figure.better() == Better::Lower) => Change::Better,
        (Some(true), true) => Change::Worse,
    };
    Some(Difference { from, to, interval, change })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::stats::Observed;

    fn side(values: &[&[f64]]) -> Vec<Cluster> {
        let cluster = |(seed, values): (usize, &&[f64])| Cluster {
            seed: seed as u64,
            observed: Observed::Samples(values.to_vec()),
        };
        values.iter().enumerate().map(cluster).collect()
    }

    fn change(figure: &str, a: &[&[f64]], b: &[&[f64]]) -> Change {
        difference(Figure::parse(figure).unwrap(), &side(a), &side(b)).unwrap().change
    }

    const SLOW: &[&[f64]] = &[&[100.0, 110.0, 105.0], &[104.0, 103.0, 108.0], &[101.0, 99.0, 104.0]];
    const FAST: &[&[f64]] = &[&[50.0, 55.0, 52.0], &[51.0, 53.0, 54.0], &[49.0, 50.0, 56.0]];

    #[test]
    fn the_direction_depends_on_the_metric() {
        assert_eq!(change("publish.latency.p50", SLOW, FAST), Change::Better);
        assert_eq!(change("publish.latency.p50", FAST, SLOW), Change::Worse);
        assert_eq!(change("throughput.up", FAST, SLOW), Change::Better);
        assert_eq!(change("publish.latency.p50", SLOW, SLOW), Change::None);
    }

    #[test]
    fn a_difference_within_the_noise_is_none() {
        let other: &[&[f64]] = &[&[101.0, 108.0, 106.0], &[103.0, 105.0, 106.0], &[102.0, 98.0, 107.0]];
        assert_eq!(change("publish.latency.p50", SLOW, other), Change::None);
    }

    #[test]
    fn single_values_tell_only_when_they_are_exact() {
        assert_eq!(change("ram.client", &[&[2400.0]], &[&[2401.0]]), Change::Worse);
        assert_eq!(change("rtt.smoothed", &[&[2400.0]], &[&[4801.0]]), Change::Unknown);
    }

    #[test]
    fn never_is_worse_than_late() {
        let never: &[&[f64]] = &[&[f64::INFINITY; 3], &[f64::INFINITY; 3], &[f64::INFINITY; 3]];
        assert_eq!(change("publish.latency.p50", SLOW, never), Change::Worse);
        assert_eq!(change("publish.latency.p50", never, SLOW), Change::Better);
        assert_eq!(change("publish.latency.p50", never, never), Change::None);
    }
}
