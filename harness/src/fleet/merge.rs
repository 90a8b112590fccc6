//! Reports of a fleet's shards made into one.

use std::collections::BTreeSet;

use super::{FLEET_SIZE, RAMP, SHARD, STORM_KIND, Shard, THREADS};
use crate::broker::BrokerSpec;
use crate::measure::record::{Blame, Ending, RunRecord};

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
    let (of_a, of_b) = (&a.environment, &b.environment);
    if one.0.count() != two.0.count() {
        return different("the number of shards");
    }
    if a.scenario.source != b.scenario.source {
        return different("workload, network or expectations");
    }
    if of_a.extra.get(FLEET_SIZE) != of_b.extra.get(FLEET_SIZE) {
        return different("the number of devices");
    }
    if of_a.extra.get(RAMP) != of_b.extra.get(RAMP) {
        return different("how fast devices connect");
    }
    if of_a.extra.get(STORM_KIND) != of_b.extra.get(STORM_KIND) {
        return different("what the broker was made to do");
    }
    if own_broker(a) != own_broker(b) {
        return different("the kind of broker");
    }
    if of_a.harness_version != of_b.harness_version || of_a.git_revision != of_b.git_revision {
        return different("the harness's version");
    }
    Ok(())
}

/// The broker that a shard started for itself; `None` for one that runs elsewhere, where others may use it.
fn own_broker(record: &RunRecord) -> Option<&str> {
    let kind = record.environment.broker.kind.as_str();
    let elsewhere = matches!(kind.parse(), Ok(BrokerSpec::External(_) | BrokerSpec::Compose));
    (!elsewhere).then_some(kind)
}

fn join(parts: Vec<Named>) -> RunRecord {
    let begin_us =
        parts.iter().map(|(.., record)| record.environment.started_unix_us).min().unwrap_or_default();
    let end = |record: &RunRecord| record.environment.started_unix_us + record.environment.duration_us;
    let end_us = parts.iter().map(|(.., record)| end(record)).max().unwrap_or_default();
    let again = again(&parts);
    let brokers = Brokers::of(&parts);
    let processes = parts.len();
    let mut merged: Option<RunRecord> = None;
    for (shard, _, mut record) in parts {
        let shift_us = record.environment.started_unix_us - begin_us;
        for trial in &mut record.trials {
            trial.started_us += shift_us;
        }
        let facts = facts(&shard, &mut record, &brokers);
        match &mut merged {
            None => {
                record.environment.extra.insert(SHARD.to_owned(), format!("{} merged", shard.count()));
                merged = Some(record);
            }
            Some(merged) => {
                merged.scenario.planned_trials += record.scenario.planned_trials;
                merged.trials.append(&mut record.trials);
                // A failure says more than that somebody stopped another shard.
                if matches!(
                    (&merged.ending, &record.ending),
                    (Ending::Completed, _) | (Ending::Interrupted { .. }, Ending::Failed { .. })
                ) {
                    merged.ending = record.ending;
                }
            }
        }
        merged.as_mut().expect("made above").environment.extra.extend(facts);
    }
    let mut merged = merged.expect("at least one shard");
    merged.environment.started_unix_us = begin_us;
    merged.environment.duration_us = end_us - begin_us;
    merged.environment.replay = again;
    brokers.name(&mut merged);
    together(&mut merged, processes, brokers != Brokers::OneEach);
    merged
}

/// What differs from shard to shard, for the whole to keep.
fn facts(shard: &Shard, record: &mut RunRecord, brokers: &Brokers) -> Vec<(String, String)> {
    let environment = &mut record.environment;
    let host = &environment.host;
    let mut machine = format!("{}, {} cores, {}", host.cpu, host.cores, host.os);
    if let Some(threads) = environment.extra.remove(THREADS) {
        machine += &format!("; {threads} threads drove devices");
    }
    let mut facts = vec![(format!("machine of shard {}", shard.index()), machine)];
    if *brokers != Brokers::One {
        let broker = &environment.broker;
        let named = format!("{} ({})", broker.kind, broker.description);
        facts.push((format!("broker of shard {}", shard.index()), named));
    }
    facts
}

/// Whether the shards shared a broker.
#[derive(Debug, PartialEq, Eq)]
enum Brokers {
    /// All of them, the same one.
    One,
    /// Each started its own.
    OneEach,
    /// They were given these names, of one broker or of several.
    Named(BTreeSet<String>),
}

impl Brokers {
    fn of(parts: &[Named]) -> Self {
        let names: BTreeSet<_> =
            parts.iter().map(|(.., record)| record.environment.broker.kind.clone()).collect();
        match parts {
            [(.., record), _, ..] if own_broker(record).is_some() => Self::OneEach,
            _ if names.len() > 1 => Self::Named(names),
            _ => Self::One,
        }
    }

    /// Says so in the whole.
    fn name(&self, merged: &mut RunRecord) {
        let broker = &mut merged.environment.broker;
        match self {
            Self::One => {}
            Self::OneEach => broker.description = format!("a broker for each shard: {}", broker.description),
            Self::Named(names) => {
                let names = names.iter().cloned().collect::<Vec<_>>().join(", ");
                broker.description = format!("shards at brokers of different names: {names}");
                broker.kind = names;
            }
        }
    }
}

/// Says how many devices were there at the same time. At a broker that the shards share, fewer than all are no fleet
/// of that size, whatever became of each.
fn together(merged: &mut RunRecord, processes: usize, shared: bool) {
    let of_fleet = merged.trials.iter().filter(|trial| trial.variant == super::source::FLEET);
    let devices: u32 = of_fleet.filter_map(|trial| trial.fleet.as_ref()).map(|fleet| fleet.devices).sum();
    let (connected, at_once) = super::together::devices(&merged.trials);
    merged.environment.board.description = format!(
        "{devices} firmware cores in {processes} processes, {at_once} of them connected at the same time"
    );
    if shared && at_once < connected && merged.ending.is_completed() {
        merged.ending = Ending::Failed {
            phase: "merge".to_owned(),
            cause: format!(
                "of {connected} devices at most {at_once} were connected at the same time, by the clocks of their \
                 machines: start the shards together, with a workload that outlasts what lies between their starts \
                 (--messages, --interval)"
            ),
            blame: Blame::Environment,
        };
    }
}

/// The commands that repeat a fleet: its shards together, and what merges them.
fn again(parts: &[Named]) -> String {
    let line = |(shard, _, record): &Named| {
        let replay = &record.environment.replay;
        let count = shard.count();
        let any = replay.replace(&format!(" --shard {shard}"), &format!(" --shard $shard/{count}"));
        (format!("{replay} --reports \"$reports\" &"), format!("{any} --reports \"$reports\" &"))
    };
    let lines: Vec<_> = parts.iter().map(line).collect();
    let shards = match &lines[..] {
        [(_, any), rest @ ..] if rest.iter().all(|(_, other)| other == any) => {
            format!("for shard in $(seq {}); do {any} done", lines.len())
        }
        _ => lines.into_iter().map(|(line, _)| line).collect::<Vec<_>>().join(" "),
    };
    format!("reports=$(mktemp -d); {shards}; wait; cargo run -p harness -- merge \"$reports\"")
        .replace("&; wait", "& wait")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::record::{
        ConnectCause, Connection, Fleet, Handshake, Mark, Phase, Role, Transport, Trial,
    };
    use crate::measure::sample;

    /// A device's connection, 20 us after its shard's start.
    fn connection() -> Connection {
        Connection {
            cause: ConnectCause::First,
            handshake: Handshake::Full,
            started_us: 10,
            marks: vec![Mark { phase: Phase::Connack, at_us: 20 }],
            client_to_connack: None,
            server_to_connack: None,
            round_trips: None,
            failure: None,
        }
    }

    /// The record of a shard that began `later_us` after the first.
    fn shard(shard: &str, later_us: u64) -> (String, RunRecord) {
        let mut record = sample::record();
        record.environment.broker.kind = "quic://broker:14567".to_owned();
        record.environment.broker.description = "the broker at quic://broker:14567".to_owned();
        record.environment.replay = format!("cargo run -p harness -- fleet --shard {shard} --threads 2");
        record.environment.extra.insert(THREADS.to_owned(), "2".to_owned());
        record.environment.started_unix_us = 1_000 + later_us;
        record.environment.duration_us = 500;
        record.environment.extra.insert(SHARD.to_owned(), shard.to_owned());
        record.scenario.planned_trials = 1;
        let fleet = Some(Fleet { devices: 5, connected: 5, ..Fleet::default() });
        record.trials = vec![Trial {
            fleet,
            duration_us: 400,
            connections: vec![connection(); 5],
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
        let description = &merged.environment.board.description;
        assert_eq!(description, "10 firmware cores in 2 processes, 10 of them connected at the same time");
        assert!(merged.ending.is_completed());
        assert_eq!(merged.environment.broker.description, "the broker at quic://broker:14567");
        let machine = &merged.environment.extra["machine of shard 2"];
        assert!(machine.ends_with("; 2 threads drove devices"), "{machine}");
    }

    #[test]
    fn shards_that_were_not_there_together_are_no_fleet() {
        // The first leaves at 400, and the devices of the second come at 401.
        let merged = merge(vec![shard("1/2", 0), shard("2/2", 381)]).expect("all shards, once");
        let Ending::Failed { cause, blame, .. } = &merged.ending else { panic!("{:?}", merged.ending) };
        assert!(cause.starts_with("of 10 devices at most 5 were connected at the same time"), "{cause}");
        assert_eq!(*blame, Blame::Environment);
        assert!(merged.environment.board.description.contains("5 of them connected at the same time"));
        let merged = merge(vec![shard("1/2", 0), shard("2/2", 380)]).expect("all shards, once");
        assert!(merged.ending.is_completed(), "all were there at 400");
    }

    #[test]
    fn what_repeats_a_fleet_repeats_all_its_shards_together() {
        let merged = merge(vec![shard("1/2", 0), shard("2/2", 0)]).expect("all shards, once");
        assert_eq!(
            merged.environment.replay,
            "reports=$(mktemp -d); for shard in $(seq 2); do cargo run -p harness -- fleet --shard $shard/2 \
             --threads 2 --reports \"$reports\" & done; wait; cargo run -p harness -- merge \"$reports\""
        );
        let mut other = shard("2/2", 0);
        other.1.environment.replay.push_str("56");
        let merged = merge(vec![shard("1/2", 0), other]).expect("all shards, once");
        assert_eq!(
            merged.environment.replay,
            "reports=$(mktemp -d); cargo run -p harness -- fleet --shard 1/2 --threads 2 --reports \"$reports\" & \
             cargo run -p harness -- fleet --shard 2/2 --threads 256 --reports \"$reports\" & wait; \
             cargo run -p harness -- merge \"$reports\""
        );
    }

    #[test]
    fn brokers_that_are_not_one_are_named() {
        let at = |name: &str, later_us, broker: &str| {
            let mut shard = shard(name, later_us);
            shard.1.environment.broker.kind = broker.to_owned();
            shard
        };
        let merged =
            merge(vec![shard("1/2", 0), at("2/2", 0, "quic://other:14567")]).expect("all shards, once");
        let broker = &merged.environment.broker.description;
        assert_eq!(broker, "shards at brokers of different names: quic://broker:14567, quic://other:14567");
        assert!(merged.environment.extra["broker of shard 2"].starts_with("quic://other:14567"));
        // Those who have a broker each need not be there at the same time, and are not one fleet's at one broker.
        let merged =
            merge(vec![at("1/2", 0, "embedded"), at("2/2", 900, "embedded")]).expect("all shards, once");
        assert!(merged.environment.broker.description.starts_with("a broker for each shard: "));
        assert!(merged.environment.board.description.contains("5 of them connected at the same time"));
        assert!(merged.ending.is_completed());
        let kinds = merge(vec![shard("1/2", 0), at("2/2", 0, "embedded")]);
        assert!(matches!(kinds, Err(MergeError::Different(.., "the kind of broker"))), "{kinds:?}");
    }

    #[test]
    fn a_shard_that_was_cut_short_shows_in_the_whole() {
        let mut cut = shard("2/2", 0);
        cut.1.ending = Ending::Interrupted { by: "the user".to_owned() };
        let merged = merge(vec![cut.clone(), shard("1/2", 0)]).expect("all shards, once");
        assert_eq!(merged.ending, cut.1.ending);
        let mut failed = shard("1/2", 0);
        let cause = "gone".to_owned();
        failed.1.ending = Ending::Failed { phase: "broker".to_owned(), cause, blame: Blame::Environment };
        for pair in [[cut.clone(), failed.clone()], [failed.clone(), cut]] {
            let merged = merge(pair.to_vec()).expect("all shards, once");
            assert_eq!(merged.ending, failed.1.ending, "the one that says more");
        }
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
        for setting in [FLEET_SIZE, RAMP, STORM_KIND] {
            let mut other = shard("2/2", 0);
            other.1.environment.extra.insert(setting.to_owned(), "another".to_owned());
            assert!(
                matches!(merge(vec![shard("1/2", 0), other]), Err(MergeError::Different(..))),
                "{setting}"
            );
        }
        let mut other = shard("2/2", 0);
        other.1.environment.git_revision = Some("another".to_owned());
        assert!(matches!(merge(vec![shard("1/2", 0), other]), Err(MergeError::Different(..))));
        assert!(matches!(merge(vec![shard("1/2", 0), shard("1/2", 9)]), Err(MergeError::Twice(..))));
        let missing = MergeError::Missing { of: 3, missing: "1, 3".to_owned() };
        assert_eq!(merge(vec![shard("2/3", 0)]), Err(missing));
    }
}
