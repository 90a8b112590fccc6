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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::record::{Fleet, Role, Transport, Trial};
    use crate::measure::sample;

    /// The record of a shard that began `later_us` after the first.
    fn shard(shard: &str, later_us: u64) -> (String, RunRecord) {
        let mut record = sample::record();
        record.environment.started_unix_us = 1_000 + later_us;
        record.environment.duration_us = 500;
        record.environment.extra.insert(SHARD.to_owned(), shard.to_owned());
        record.scenario.planned_trials = 1;
        let fleet = Some(Fleet { devices: 5, ..Fleet::default() });
        record.trials = vec![Trial {
            fleet,
            ..Trial::new(super::super::source::FLEET, Transport::Quic, Role::Device, 1)
        }];
        (format!("folder of {shard}"), record)
    }

    #[test]
    fn shards_in_any_order_make_one_record_on_one_time_line() {
        let merged = merge(vec![shard("2/2", 200), shard("1/2", 0)]).expect("all shards, once");
        assert_eq!((merged.trials.len(), merged.scenario.planned_trials), (2, 2));
        let starts: Vec<_> = merged.trials.iter().map(|trial| trial.started_us).collect();
        assert_eq!(starts, [0, 200]);
        assert_eq!((merged.environment.started_unix_us, merged.environment.duration_us), (1_000, 700));
        assert!(merged.environment.board.description.starts_with("10 firmware cores"));
        assert!(merged.ending.is_completed());
    }

    #[test]
    fn a_shard_that_was_cut_short_shows_in_the_whole() {
        let mut cut = shard("2/2", 0);
        cut.1.ending = Ending::Interrupted { by: "the user".to_owned() };
        let merged = merge(vec![shard("1/2", 0), cut]).expect("all shards, once");
        assert!(!merged.ending.is_completed());
    }

    #[test]
    fn what_is_not_one_fleet_is_named() {
        assert_eq!(merge(Vec::new()), Err(MergeError::Nothing));
        let mut alien = shard("1/2", 0);
        alien.1.environment.extra.clear();
        assert!(matches!(merge(vec![alien]), Err(MergeError::NoShard(_))));
        let mut other = shard("2/2", 0);
        other.1.scenario.source.push('#');
        assert!(matches!(merge(vec![shard("1/2", 0), other]), Err(MergeError::Different(..))));
        assert!(matches!(merge(vec![shard("1/2", 0), shard("1/2", 9)]), Err(MergeError::Twice(..))));
        let missing = MergeError::Missing { of: 3, missing: "1, 3".to_owned() };
        assert_eq!(merge(vec![shard("2/3", 0)]), Err(missing));
    }
}
