//! From what happened to what it means: the data model of a run, its metrics, and the verdict.

pub mod adapter;
pub mod analysis;
pub mod difference;
pub mod expectation;
pub mod histogram;
pub mod judge;
pub mod metric;
mod read;
pub mod record;
mod registry;
#[cfg(test)]
pub(crate) mod sample;
pub mod stats;
pub mod unit;

pub use judge::{Verdict, judge};
pub use metric::{Figure, Metric};
pub use record::{Direction, Fate, Role, RunRecord, Transport, Trial};
pub use stats::Statistic;
pub use unit::Unit;
