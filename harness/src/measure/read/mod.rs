//! What each metric reads from a trial, grouped by the part of the record it looks at.

pub(super) mod board;
pub(super) mod connect;
pub(super) mod fleet;
pub(super) mod link;
pub(super) mod message;
pub(super) mod service;
pub(super) mod wire;

use super::stats::Observed;

/// One value of a trial.
fn one(value: f64) -> Option<Observed> {
    Some(Observed::Samples(vec![value]))
}

/// Samples, or nothing when there are none: an empty list is "not measured".
fn samples(values: impl Iterator<Item = f64>) -> Option<Observed> {
    let values: Vec<_> = values.collect();
    (!values.is_empty()).then_some(Observed::Samples(values))
}

/// A quotient, or nothing over zero.
fn quotient(part: f64, whole: f64) -> Option<Observed> {
    (whole > 0.0).then_some(Observed::Quotient { part, whole })
}

/// Microseconds from `from` to `to`, infinite when `to` never came.
fn span(from: u64, to: Option<u64>) -> f64 {
    to.map_or(f64::INFINITY, |to| to.saturating_sub(from) as f64)
}
