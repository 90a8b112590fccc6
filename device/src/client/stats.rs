//! Counters, estimates and high-water marks: what a harness wants to know.

use super::Phase;
use crate::time::{Duration, Instant};

/// Everything the client counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// The current or last connection's transport.
    pub transport: TransportStats,
    /// When the current or last connection reached each phase.
    pub phases: Phases,
    /// The MQTT session, since the client was made.
    pub session: crate::mqtt::SessionStats,
    /// The connection policy, since the client was made.
    pub policy: PolicyStats,
}

/// A transport's counters, since its connection began. TCP leaves at zero what it does not know.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TransportStats {
    /// Smoothed round-trip time.
    pub smoothed_rtt: Duration,
    /// The last sample.
    pub latest_rtt: Duration,
    /// The least sample.
    pub min_rtt: Duration,
    /// Mean deviation of the samples.
    pub rtt_variation: Duration,
    /// Congestion window in bytes.
    pub congestion_window: u64,
    /// Bytes sent and not yet acknowledged or lost.
    pub bytes_in_flight: u64,
    /// Probe timeouts that expired.
    pub pto_count: u64,
    /// Packets sent, of every kind.
    pub packets_sent: u64,
    /// Packets that authenticated.
    pub packets_received: u64,
    /// Packets declared lost.
    pub packets_lost: u64,
    /// Packets declared lost whose acknowledgement came afterwards.
    pub packets_spuriously_lost: u64,
    /// Packets that could not be used: not authentic, duplicate, malformed.
    pub packets_dropped: u64,
    /// UDP payload bytes sent.
    pub bytes_sent: u64,
    /// UDP payload bytes received.
    pub bytes_received: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Datagrams received.
    pub datagrams_received: u64,
    /// Key updates done, either side's.
    pub key_updates: u64,
    /// Migrations done.
    pub migrations: u64,
    /// Most bytes ever waiting in one stream's send buffer.
    pub send_buffer_max: u32,
    /// Most bytes ever waiting in one stream's receive buffer.
    pub receive_buffer_max: u32,
    /// Most packets ever tracked as sent and unacknowledged.
    pub sent_packets_max: u32,
}

impl TransportStats {
    /// Nothing happened yet.
    pub const ZERO: Self = Self {
        smoothed_rtt: Duration::ZERO,
        latest_rtt: Duration::ZERO,
        min_rtt: Duration::ZERO,
        rtt_variation: Duration::ZERO,
        congestion_window: 0,
        bytes_in_flight: 0,
        pto_count: 0,
        packets_sent: 0,
        packets_received: 0,
        packets_lost: 0,
        packets_spuriously_lost: 0,
        packets_dropped: 0,
        bytes_sent: 0,
        bytes_received: 0,
        datagrams_sent: 0,
        datagrams_received: 0,
        key_updates: 0,
        migrations: 0,
        send_buffer_max: 0,
        receive_buffer_max: 0,
        sent_packets_max: 0,
    };
}

/// When a connection reached each phase.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Phases([Option<Instant>; PHASES]);

const PHASES: usize = Phase::Connack as usize + 1;

impl Phases {
    /// None was reached.
    pub(super) const NONE: Self = Self([None; PHASES]);

    /// When `phase` was reached, if it was.
    pub const fn at(&self, phase: Phase) -> Option<Instant> {
        self.0[phase as usize]
    }

    pub(super) const fn reach(&mut self, phase: Phase, at: Instant) {
        self.0[phase as usize] = Some(at);
    }
}

/// What the connection policy counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PolicyStats {
    /// Connections begun.
    pub attempts: u32,
    /// CONNACKs of success.
    pub connections: u32,
    /// Of these, with a resumed TLS session.
    pub resumptions: u32,
    /// Of these, with 0-RTT data accepted.
    pub early_data_accepted: u32,
    /// Times a migration was asked of the owner.
    pub migrations_wanted: u32,
}

impl PolicyStats {
    /// Nothing happened yet.
    pub const ZERO: Self =
        Self { attempts: 0, connections: 0, resumptions: 0, early_data_accepted: 0, migrations_wanted: 0 };
}
