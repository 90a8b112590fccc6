//! What went over the link, counted.

use hdrhistogram::Histogram;
use link::{Direction, Reason, Record};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Packets and their bytes, IP headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Count {
    pub(super) fn add(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }
}

/// How late packets were delivered, against their schedule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SchedulingError {
    /// Deliveries measured.
    pub count: u64,
    /// Half of them were at most so late.
    pub p50_us: u64,
    /// 99 % of them were at most so late.
    pub p99_us: u64,
    /// The latest of all.
    pub max_us: u64,
    /// How many were at most so many microseconds late, and later than the bucket before.
    pub buckets: Vec<(u64, u64)>,
}

/// One direction's traffic.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DirectionStats {
    /// What was sent into the link.
    pub offered: Count,
    /// What came out of it, copies included.
    pub delivered: Count,
    /// What the link dropped, by reason.
    pub dropped: BTreeMap<Reason, u64>,
    /// Packets that arrived twice.
    pub duplicated: u64,
    /// Packets picked to change places.
    pub reordered: u64,
    /// Packets with flipped bits.
    pub corrupted: u64,
    /// Packets cut short.
    pub truncated: u64,
    /// Packets that came out of the link where nobody could take them: no board, no socket, a full buffer.
    pub undeliverable: u64,
    /// Packets that arrived with a wrong checksum and were discarded, as an IP stack does.
    pub checksum_failed: u64,
    /// How well the schedule was kept.
    pub scheduling_error: SchedulingError,
}

impl DirectionStats {
    /// Packets the link dropped, for whatever reason.
    #[must_use]
    pub fn dropped_packets(&self) -> u64 {
        self.dropped.values().sum()
    }
}

/// What went over the link, per direction.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Stats {
    /// From the board.
    pub up: DirectionStats,
    /// To the board.
    pub down: DirectionStats,
    /// Frames that bypass the impairments: ARP and DHCP.
    pub exempt_frames: u64,
    /// Packets for an address, port or protocol that nothing is mapped to.
    pub unmapped: u64,
    /// A hash over all fates, equal for equal packets and seeds.
    pub fate_hash: u64,
}

impl Stats {
    /// The statistics of `direction`.
    #[must_use]
    pub fn direction(&self, direction: Direction) -> &DirectionStats {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }

    pub(super) fn direction_mut(&mut self, direction: Direction) -> &mut DirectionStats {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }
}

/// The statistics as they are collected.
pub(super) struct Collector {
    pub(super) stats: Stats,
    late_us: [Histogram<u32>; 2],
}

impl Collector {
    pub(super) fn new() -> Self {
        let histogram = || Histogram::new_with_bounds(1, LATE_US_MAX, 3).expect("the bounds are sound");
        Self { stats: Stats::default(), late_us: [histogram(), histogram()] }
    }

    pub(super) fn on_offer(&mut self, record: &Record) {
        let stats = self.stats.direction_mut(record.direction);
        stats.offered.add(record.size as usize);
        if let Some(reason) = record.dropped {
            *stats.dropped.entry(reason).or_default() += 1;
        }
        stats.duplicated += u64::from(record.copy_us.is_some());
        stats.reordered += u64::from(record.reordered);
        stats.corrupted += u64::from(record.bits_flipped > 0);
        stats.truncated += u64::from(record.cut_to.is_some());
    }

    pub(super) fn on_delivery(&mut self, direction: Direction, bytes: usize, late: Duration) {
        self.stats.direction_mut(direction).delivered.add(bytes);
        let late_us = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
        self.late_us[direction.index()].saturating_record(late_us);
    }

    /// A copy with the scheduling errors filled in.
    pub(super) fn snapshot(&self) -> Stats {
        let mut stats = self.stats.clone();
        for direction in Direction::BOTH {
            let late_us = &self.late_us[direction.index()];
            stats.direction_mut(direction).scheduling_error = SchedulingError {
                count: late_us.len(),
                p50_us: late_us.value_at_quantile(0.5),
                p99_us: late_us.value_at_quantile(0.99),
                max_us: late_us.max(),
                buckets: late_us
                    .iter_log(FIRST_BUCKET_US, 2.0)
                    .map(|bucket| (bucket.value_iterated_to(), bucket.count_since_last_iteration()))
                    .collect(),
            };
        }
        stats
    }
}

/// Width of the first bucket; each further one reaches twice as far.
const FIRST_BUCKET_US: u64 = 16;

/// Lateness beyond ten seconds is as bad as ten seconds.
const LATE_US_MAX: u64 = 10_000_000;
