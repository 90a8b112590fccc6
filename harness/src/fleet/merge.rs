//! Reports of a fleet's shards made into one.

use std::collections::BTreeSet;

use super::{SHARD, Shard};
use crate::measure::record::{Ending, RunRecord};

/// Reports that cannot be one fleet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// Nothing to merge.
    #[error("there is nothing to merge; name the report folders of all shards, or a folder that holds them")]
    Nothing,
    /// Not a fleet's.
    #[error("{0} is no report of a fleet's shard; only what `harness fleet --shard I/N` wrote can be merged")]
    NoShard(String),
    /// Different fleets.
    #[error("{0} and {1} were run with different settings: {2}; merge shards of one fleet only")]
    Different(String, String, &'static str),
    /// The same part twice.
    #[error("{0} and {1} are both shard {2}; leave one of them out")]
    Twice(String, String, String),
    /// Some are missing.
    #[error("of {of} shards these are missing: {missing}; run them, or name their reports too")]
    Missing {
        /// How many there are.
        of: u32,
        /// Their numbers.
        missing: String,
    },
}

/// One record of all shards' records. Each comes with a name for messages, such as its folder.
///
/// # Errors
/// They are not all shards of one fleet, each once.
pub fn merge(shards: Vec<(String, RunRecord)>) -> Result<RunRecord, MergeError> {
    let mut parts = Vec::new();
    for (name, record) in shards {
        let shard = record.environment.extra.get(SHARD).and_then(|text| text.parse::<Shard>().ok());
        let shard = shard.ok_or_else(|| MergeError::NoShard(name.clone()))?;
        parts.push((shard, name, record));
    }
    parts.sort_by_key(|(shard, ..)| *shard);
    let Some((first, rest)) = parts.split_first() else { return Err(MergeError::Nothing) };
    for other in rest {
        same_fleet(first, other)?;
    }
    for pair in parts.windows(2) {
        if pair[0].0 == pair[1].0 {
            let (one, two) = (pair[0].1.clone(), pair[1].1.clone());
            return Err(MergeError::Twice(one, two, pair[0].0.to_string()));
        }
    }
    let there: BTreeSet<u32> = parts.iter().map(|(shard, ..)| shard.index()).collect();
    let of = first.0.count();
    let missing: Vec<_> = (1..=of).filter(|index| !there.contains(index)).map(|n| n.to_string()).collect();
    if !missing.is_empty() {
        return Err(MergeError::Missing { of, missing: missing.join(", ") });
    }
    Ok(join(parts))
}

type Named = (Shard, String, RunRecord);

fn same_fleet(one: &Named, two: &Named) -> Result<(), MergeError> {
    let different = |what| Err(MergeError::Different(one.1.clone(), two.1.clone(), what));
    let (a, b) = (&one.2, &two.2);
    if one.0.count() != two.0.count() {
        return different("the number of shards");
    }
    if a.scenario.source != b.scenario.source {
        return different("workload, network or expectations");
    }
    if a.environment.extra.get(FLEET_SIZE) != b.environment.extra.get(FLEET_SIZE) {
        return different("the number of devices");
    }
    if a.environment.harness_version != b.environment.harness_version {
        return different("the harness's version");
    }
    Ok(())
}

/// Where a record keeps the number of the whole fleet's devices.
pub(super) const FLEET_SIZE: &str = "fleet";

fn join(parts: Vec<Named>) -> RunRecord {
    let begin_us =
        parts.iter().map(|(.., record)| record.environment.started_unix_us).min().unwrap_or_default();
    let end = |record: &RunRecord| record.environment.started_unix_us + record.environment.duration_us;
    let end_us = parts.iter().map(|(.., record)| end(record)).max().unwrap_or_default();
    let mut merged: Option<RunRecord> = None;
    for (shard, _, mut record) in parts {
        let shift_us = record.environment.started_unix_us - begin_us;
        for trial in &mut record.trials {
            trial.started_us += shift_us;
        }
        let host = &record.environment.host;
        let machine = format!("{}, {} cores, {}", host.cpu, host.cores, host.os);
        match &mut merged {
            None => {
                record.environment.extra.insert(SHARD.to_owned(), format!("{} merged", shard.count()));
                merged = Some(record);
            }
            Some(merged) => {
                merged.scenario.planned_trials += record.scenario.planned_trials;
                merged.trials.append(&mut record.trials);
                if matches!(merged.ending, Ending::Completed) {
                    merged.ending = record.ending;
                }
            }
        }
        let merged = merged.as_mut().expect("made above");
        merged.environment.extra.insert(format!("machine of shard {}", shard.index()), machine);
    }
    let mut merged = merged.expect("at least one shard");
    merged.environment.started_unix_us = begin_us;
    merged.environment.duration_us = end_us - begin_us;
    merged.environment.board.description = {
        let devices: u32 = merged
            .trials
            .iter()
            .filter(|trial| trial.variant == super::source::FLEET)
            .filter_map(|trial| trial.fleet.as_ref())
            .map(|fleet| fleet.devices)
            .sum();
        format!("{devices} firmware cores in several processes")
    };
    merged
}
