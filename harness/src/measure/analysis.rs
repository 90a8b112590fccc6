//! A run seen through its metrics: trials grouped by variant and role, figures with intervals and counts.

use serde::{Deserialize, Serialize};

use super::metric::{Figure, Metric, Shape};
use super::record::{Environment, Role, RunRecord, Transport, Trial};
use super::stats::{self, Cluster, Interval, Observed, Statistic};

/// The trials of one variant in one role, one for each seed.
#[derive(Clone, Debug)]
pub struct Group<'a> {
    /// Name of the variant.
    pub variant: &'a str,
    /// Its transport.
    pub transport: Transport,
    /// Device or reference client.
    pub role: Role,
    /// Its trials, in the order run.
    pub trials: Vec<&'a Trial>,
    environment: &'a Environment,
}

/// One figure of one group.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The value, infinite when it rests on something that never came.
    #[serde(with = "stats::finite")]
    pub value: f64,
    /// 95 % interval; absent when there is nothing to vary.
    pub interval: Option<Interval>,
    /// Samples it was drawn from, failures included. For a quotient, its denominator.
    pub samples: u64,
    /// Samples that failed.
    pub failed: u64,
    /// Seeds that contributed.
    pub seeds: u32,
}

/// The trials of a run by variant and role: variants in the scenario's order, the device before the reference.
#[must_use]
pub fn groups(record: &RunRecord) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for trial in &record.trials {
        let place = groups.iter_mut().find(|g| g.variant == trial.variant && g.role == trial.role);
        match place {
            Some(group) => group.trials.push(trial),
            None => groups.push(Group {
                variant: &trial.variant,
                transport: trial.transport,
                role: trial.role,
                trials: vec![trial],
                environment: &record.environment,
            }),
        }
    }
    let order = |name: &str| record.scenario.variants.iter().position(|variant| variant == name);
    groups.sort_by_key(|group| (order(group.variant).unwrap_or(usize::MAX), group.role));
    groups
}

impl Group<'_> {
    /// Name for readers: `quic`, `quic reference`.
    #[must_use]
    pub fn label(&self) -> String {
        match self.role {
            Role::Device => self.variant.to_owned(),
            Role::Reference => format!("{} reference", self.variant),
        }
    }

    /// The samples of a metric, by seed. Trials that could not measure it are absent.
    #[must_use]
    pub fn clusters(&self, metric: &Metric) -> Vec<Cluster> {
        let clusters = self.trials.iter().filter_map(|trial| {
            Some(Cluster { seed: trial.seed, observed: (metric.extract)(self.environment, trial)? })
        });
        clusters.collect()
    }

    /// One figure without its interval; `None` when nothing measured it.
    #[must_use]
    pub fn value(&self, figure: Figure) -> Option<f64> {
        stats::statistic(&self.clusters(figure.metric), figure.statistic)
    }

    /// One figure with its interval.
    #[must_use]
    pub fn estimate(&self, figure: Figure) -> Option<Estimate> {
        self.estimates(figure.metric, &[figure.statistic]).pop()?
    }

    /// Several statistics of one metric.
    #[must_use]
    pub fn estimates(&self, metric: &Metric, statistics: &[Statistic]) -> Vec<Option<Estimate>> {
        let clusters = self.clusters(metric);
        let count = |statistic| stats::statistic(&clusters, statistic).unwrap_or(0.0) as u64;
        let (samples, failed) = match metric.shape {
            Shape::Quotient => (denominator(&clusters), 0),
            _ => (count(Statistic::Count), count(Statistic::Failed)),
        };
        let seeds = u32::try_from(clusters.len()).unwrap_or(u32::MAX);
        let intervals = stats::intervals(&clusters, statistics, stats::seed_of(metric.name));
        let value = |statistic: &Statistic| stats::statistic(&clusters, *statistic);
        statistics
            .iter()
            .zip(intervals)
            .map(|(statistic, interval)| {
                Some(Estimate { value: value(statistic)?, interval, samples, failed, seeds })
            })
            .collect()
    }
}

fn denominator(clusters: &[Cluster]) -> u64 {
    let wholes = clusters.iter().map(|cluster| match cluster.observed {
        Observed::Quotient { whole, .. } => whole,
        Observed::Samples(_) => 0.0,
    });
    wholes.sum::<f64>() as u64
}

/// Statistics a report shows of a metric.
#[must_use]
pub fn shown_statistics(metric: &Metric) -> &'static [Statistic] {
    use Statistic::{Max, Mean, Min, P50, P90, P99, P999, Total};
    match metric.shape {
        Shape::Distribution => &[P50, P90, P99, P999, Max, Mean],
        Shape::Value(Max) => &[Max],
        Shape::Value(Min) => &[Min],
        Shape::Value(Total) => &[Total],
        Shape::Value(_) | Shape::Quotient => &[Mean],
    }
}
