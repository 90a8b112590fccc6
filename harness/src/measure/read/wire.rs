//! Metrics of what went over the wire.

use super::{one, quotient};
use crate::measure::record::{TransportStats, Trial, Wire, WirePhase};
use crate::measure::stats::Observed;

fn total(trial: &Trial, phase: Option<WirePhase>) -> Option<Wire> {
    let counts = trial.wire.iter().filter(|count| phase.is_none_or(|phase| phase == count.phase));
    counts.map(|count| count.up + count.down).reduce(|a, b| a + b)
}

fn arrived(trial: &Trial) -> f64 {
    trial.messages.iter().filter(|message| message.fate.arrived()).count() as f64
}

pub(crate) fn bytes_per_message(trial: &Trial) -> Option<Observed> {
    quotient(total(trial, Some(WirePhase::Workload))?.bytes as f64, arrived(trial))
}

pub(crate) fn packets_per_message(trial: &Trial) -> Option<Observed> {
    quotient(total(trial, Some(WirePhase::Workload))?.packets as f64, arrived(trial))
}

pub(crate) fn overhead(trial: &Trial) -> Option<Observed> {
    let arrived = trial.messages.iter().filter(|message| message.fate.arrived());
    let payload: f64 = arrived.map(|message| f64::from(message.size)).sum();
    quotient(total(trial, Some(WirePhase::Workload))?.bytes as f64, payload)
}

pub(crate) fn bytes(trial: &Trial) -> Option<Observed> {
    one(total(trial, None)?.bytes as f64)
}

pub(crate) fn packets(trial: &Trial) -> Option<Observed> {
    one(total(trial, None)?.packets as f64)
}

pub(crate) fn stat(trial: &Trial, read: fn(&TransportStats) -> Option<u64>) -> Option<Observed> {
    one(read(trial.transport_stats.as_ref()?)? as f64)
}
