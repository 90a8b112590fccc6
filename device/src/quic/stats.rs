//! Figures about a connection.

use crate::time::{Duration, Instant};

use super::event::PHASES;

/// Figures about a connection, all counted since `connect`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// When each [`super::Phase`] was reached, indexed by `phase as usize`.
    pub phases: [Option<Instant>; PHASES],
    /// UDP datagrams sent.
    pub datagrams_sent: u32,
    /// Their payload bytes.
    pub bytes_sent: u64,
    /// UDP datagrams received, whatever they held.
    pub datagrams_received: u32,
    /// Their payload bytes.
    pub bytes_received: u64,
    /// Packets sent.
    pub packets_sent: u32,
    /// Packets received and authenticated.
    pub packets_received: u32,
    /// Packets received that were dropped: duplicates, unknown keys, not authentic, malformed.
    pub packets_dropped: u32,
    /// Packets declared lost.
    pub packets_lost: u32,
    /// Packets declared lost that arrived after all.
    pub packets_spuriously_lost: u32,
    /// Probe timeouts.
    pub pto_count: u32,
    /// Key updates, from either end.
    pub key_updates: u32,
    /// Changes of the local address.
    pub migrations: u32,
    /// Most recent RTT sample; zero before the first.
    pub rtt_latest: Duration,
    /// Smoothed RTT.
    pub rtt_smoothed: Duration,
    /// Smallest RTT sample; zero before the first.
    pub rtt_min: Duration,
    /// Congestion window in bytes.
    pub congestion_window: u32,
    /// Bytes in flight.
    pub bytes_in_flight: u32,
    /// Largest UDP payload sent, in bytes.
    pub datagram_len: u16,
    /// Most bytes that CRYPTO reassembly held at a time.
    pub crypto_buffer_high: u16,
}
