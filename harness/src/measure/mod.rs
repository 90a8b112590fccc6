//! From what happened to what it means: the data model of a run, its metrics, and the verdict.

pub mod record;

pub use record::{Direction, Fate, Role, RunRecord, Transport, Trial};
