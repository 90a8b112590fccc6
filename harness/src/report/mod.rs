//! Reports: one folder for each run, with a page to read, JSON to compute with, JUnit for CI and every sample.
//!
//! `reports/README.md` documents the files and the JSON schema. A run that failed or was interrupted is
//! reported like any other and says so.

pub mod baseline;
pub mod compare;
mod csv;
mod folder;
mod html;
mod junit;
mod plot;
#[cfg(test)]
mod schema;
pub mod terminal;
mod utc;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub use folder::{Folder, ReportError};

use crate::measure::analysis::{Estimate, groups, shown_statistics};
use crate::measure::metric::{Better, Kind, Metric};
use crate::measure::record::{Role, RunRecord, SCHEMA_VERSION, Transport};
use crate::measure::{Statistic, Unit, Verdict, judge};
use crate::scenario::{Scenario, ScenarioError};

/// A run with everything drawn from it: the content of `report.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of this schema.
    pub schema: u32,
    /// The verdict.
    pub verdict: Verdict,
    /// Every metric that was measured, by variant and role.
    pub metrics: Vec<Measured>,
    /// What happened.
    pub record: RunRecord,
}

/// One metric of one variant and role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Name of the metric.
    pub metric: String,
    /// Variant.
    pub variant: String,
    /// Its transport.
    pub transport: Transport,
    /// Role.
    pub role: Role,
    /// Unit of the values, in words: `time` is microseconds, `percent` a fraction.
    pub unit: Unit,
    /// Whether less is better.
    pub lower_is_better: bool,
    /// Whether it was counted, and not read from a clock.
    pub exact: bool,
    /// Its statistics; a quotient has only `mean`.
    pub statistics: Vec<MeasuredStatistic>,
}

/// One statistic of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeasuredStatistic {
    /// Which one.
    pub statistic: Statistic,
    /// Its value, interval and counts.
    #[serde(flatten)]
    pub estimate: Estimate,
}

impl Report {
    /// Judges a run and draws its metrics.
    #[must_use]
    pub fn new(record: RunRecord, scenario: &Scenario) -> Self {
        let verdict = judge(&record, scenario);
        let metrics = measured(&record);
        Self { schema: SCHEMA_VERSION, verdict, metrics, record }
    }

    /// Reads a `report.json`, or the one in a report folder.
    ///
    /// # Errors
    /// The file cannot be read, is no report, or has a schema this version does not know.
    pub fn load(path: &Path) -> Result<Self, ReportError> {
        folder::load(path)
    }

    /// Judges and draws again from the recorded run, as this version of the harness sees it.
    ///
    /// # Errors
    /// The recorded scenario no longer parses.
    pub fn renewed(self) -> Result<Self, Box<ScenarioError>> {
        let mut scenario =
            Scenario::parse(&self.record.scenario.origin, &self.record.scenario.source).map_err(Box::new)?;
        // Variants the command line added are known by their transport's name only.
        let known: Vec<_> = scenario.variants.iter().map(|variant| variant.name.clone()).collect();
        if !self.record.scenario.variants.iter().all(|name| known.contains(name)) {
            let mut transports: Vec<_> = self.record.trials.iter().map(|trial| trial.transport).collect();
            transports.dedup();
            scenario.restrict_to(&transports);
        }
        Ok(Self::new(self.record, &scenario))
    }
}

/// How late the link's deliveries were: the worst of the trials' 99th percentiles, in microseconds.
fn lateness(record: &RunRecord) -> Option<u64> {
    let links = record.trials.iter().flat_map(|trial| [trial.link_up.as_ref(), trial.link_down.as_ref()]);
    links.flatten().filter_map(|link| link.late_p99_us).max()
}

fn measured(record: &RunRecord) -> Vec<Measured> {
    let groups = groups(record);
    let mut metrics = Vec::new();
    for metric in Metric::all() {
        for group in &groups {
            let statistics = shown_statistics(metric);
            let estimates = group.estimates(metric, statistics);
            let statistics: Vec<_> = statistics
                .iter()
                .zip(estimates)
                .filter_map(|(statistic, estimate)| {
                    Some(MeasuredStatistic { statistic: *statistic, estimate: estimate? })
                })
                .collect();
            if statistics.is_empty() {
                continue;
            }
            metrics.push(Measured {
                metric: metric.name.to_owned(),
                variant: group.variant.to_owned(),
                transport: group.transport,
                role: group.role,
                unit: metric.unit,
                lower_is_better: metric.better == Better::Lower,
                exact: metric.kind == Kind::Exact,
                statistics,
            });
        }
    }
    metrics
}
