//! Metrics of what the client costs the board: memory, flash, instructions, energy.

use super::{one, samples};
use crate::measure::record::{Activity, Environment, EventKind, Footprint, MemorySnapshot, Role, Trial};
use crate::measure::stats::Observed;

pub(crate) fn heap_free_min(trial: &Trial) -> Option<Observed> {
    one(trial.memory.iter().filter_map(|snapshot| snapshot.heap_free_min).min()? as f64)
}

pub(crate) fn memory_max(trial: &Trial, read: fn(&MemorySnapshot) -> Option<u64>) -> Option<Observed> {
    one(trial.memory.iter().filter_map(read).max()? as f64)
}

/// A figure of the firmware image; the reference client has none.
pub(crate) fn footprint(
    environment: &Environment,
    trial: &Trial,
    read: fn(&Footprint) -> Option<u64>,
) -> Option<Observed> {
    if trial.role != Role::Device {
        return None;
    }
    one(read(environment.board.footprint.as_ref()?)? as f64)
}

pub(crate) fn cost(trial: &Trial, activity: Activity) -> Option<Observed> {
    let costs = trial.costs.iter().filter(|cost| cost.activity == activity);
    samples(costs.flat_map(|cost| &cost.instructions).map(|instructions| *instructions as f64))
}

pub(crate) fn energy(trial: &Trial, activity: Activity) -> Option<Observed> {
    samples(trial.energy.iter().filter(|energy| energy.activity == activity).map(|e| e.microjoules))
}

pub(crate) fn faults(trial: &Trial) -> Option<Observed> {
    one(trial.events.iter().filter(|event| event.kind == EventKind::BoardFault).count() as f64)
}
