//! How many devices of a fleet's shards were connected at the same time.

use super::source::FLEET;
use crate::measure::record::{Phase, Trial};

/// Devices that had a session at the end of their shard's trial, all shards together, and the most of them that were
/// there at one moment. Fewer are no fleet of that size: some shards had gone when others came.
pub(super) fn devices(trials: &[Trial]) -> (u32, u32) {
    let shards: Vec<_> = trials.iter().filter(|trial| trial.variant == FLEET).map(Presence::of).collect();
    let connected = shards.iter().map(|shard| shard.connected).sum();
    // A shard's devices come one after the other and leave together: there are most of them when one ends.
    let at = |at_us| shards.iter().map(|shard| shard.at(at_us)).sum();
    let most = shards.iter().map(|shard| at(shard.until_us)).max();
    (connected, most.unwrap_or_default())
}

/// When the devices of a shard were there.
struct Presence {
    /// When each got its session, in order.
    since_us: Vec<u64>,
    /// The end of the trial.
    until_us: u64,
    /// How many had one then.
    connected: u32,
}

impl Presence {
    fn of(trial: &Trial) -> Self {
        let connack = |connection: &crate::measure::record::Connection| {
            Some(trial.started_us + connection.started_us + connection.elapsed_us(Phase::Connack)?)
        };
        let mut since_us: Vec<_> = trial.connections.iter().filter_map(connack).collect();
        since_us.sort_unstable();
        let connected = trial.fleet.as_ref().map_or(0, |fleet| fleet.connected);
        Self { since_us, until_us: trial.started_us + trial.duration_us, connected }
    }

    fn at(&self, at_us: u64) -> u32 {
        if at_us > self.until_us {
            return 0;
        }
        let come = self.since_us.partition_point(|since_us| *since_us <= at_us);
        // Some came twice.
        u32::try_from(come).unwrap_or(u32::MAX).min(self.connected)
    }
}
