//! Figures about a connection.

use crate::time::Duration;

use super::path::Path;
use super::recovery::{Congestion, Recovery};
use super::stream::BufferHighs;

/// Figures about a connection, all counted since `connect`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
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
    /// Mean deviation of the samples.
    pub rtt_variation: Duration,
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
    /// Most bytes that ever waited in one stream's buffers.
    pub stream_buffer_highs: BufferHighs,
    /// Most packets ever tracked as sent.
    pub sent_packets_high: u16,
}

/// What the connection counts itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counters {
    datagrams_sent: u32,
    bytes_sent: u64,
    datagrams_received: u32,
    bytes_received: u64,
    pub(super) packets_sent: u32,
    pub(super) packets_received: u32,
    packets_dropped: u32,
    pub(super) key_updates: u32,
    pub(super) migrations: u32,
}

impl Counters {
    pub(super) const NONE: Self = Self {
        datagrams_sent: 0,
        bytes_sent: 0,
        datagrams_received: 0,
        bytes_received: 0,
        packets_sent: 0,
        packets_received: 0,
        packets_dropped: 0,
        key_updates: 0,
        migrations: 0,
    };

    pub(super) fn on_datagram_sent(&mut self, len: usize) {
        self.datagrams_sent += 1;
        self.bytes_sent += len as u64;
    }

    pub(super) fn on_datagram_received(&mut self, len: usize) {
        self.datagrams_received += 1;
        self.bytes_received += len as u64;
    }

    pub(super) fn on_packet_dropped(&mut self) {
        self.packets_dropped += 1;
    }

    pub(super) fn stats<T: Copy, const N: usize, G: Congestion>(
        &self,
        recovery: &Recovery<T, N, G>,
        path: &Path,
        crypto_buffer_high: u16,
        stream_buffer_highs: BufferHighs,
    ) -> Stats {
        let rtt = recovery.rtt();
        let losses = recovery.statistics();
        Stats {
            datagrams_sent: self.datagrams_sent,
            bytes_sent: self.bytes_sent,
            datagrams_received: self.datagrams_received,
            bytes_received: self.bytes_received,
            packets_sent: self.packets_sent,
            packets_received: self.packets_received,
            packets_dropped: self.packets_dropped,
            packets_lost: losses.packets_lost,
            packets_spuriously_lost: losses.spurious_losses,
            pto_count: losses.pto_count,
            key_updates: self.key_updates,
            migrations: self.migrations,
            rtt_latest: rtt.latest(),
            rtt_smoothed: rtt.smoothed(),
            rtt_variation: rtt.variation(),
            rtt_min: rtt.min(),
            congestion_window: recovery.congestion().window(),
            bytes_in_flight: recovery.bytes_in_flight(),
            datagram_len: path.datagram_len(),
            crypto_buffer_high,
            stream_buffer_highs,
            sent_packets_high: losses.tracked_max,
        }
    }
}
