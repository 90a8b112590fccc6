//! What the network carried, and how it was disturbed.

use serde::{Deserialize, Serialize};

use super::Direction;

/// A time during which the network or the broker was disturbed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Impairment {
    /// Begin.
    pub start_us: u64,
    /// End; equal to `start_us` for something instantaneous such as a rebinding.
    pub end_us: u64,
    /// What kind.
    pub kind: ImpairmentKind,
    /// The way it worked, when not both.
    pub direction: Option<Direction>,
    /// Words for a reader, such as `blackout 5 s`.
    pub label: String,
}

/// Kinds of [`Impairment`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImpairmentKind {
    /// Nothing passes.
    Blackout,
    /// New source port seen by the server.
    NatRebind,
    /// New source address seen by the server.
    AddressChange,
    /// The broker is gone or restarting.
    BrokerDown,
    /// The broker is paused.
    BrokerFrozen,
    /// The client's session was ended by the broker.
    Kicked,
    /// Loss, delay or rate changed; service goes on.
    Degraded,
}

impl ImpairmentKind {
    /// Whether service stops, so that a recovery time is measured from its end.
    #[must_use]
    pub fn interrupts(self) -> bool {
        !matches!(self, Self::Degraded)
    }
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wire {
    /// IP packets.
    pub packets: u64,
    /// Bytes of those packets, IP header included.
    pub bytes: u64,
}

impl std::ops::Add for Wire {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { packets: self.packets + other.packets, bytes: self.bytes + other.bytes }
    }
}

/// What went over the wire in one phase, counted where the board meets the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireCount {
    /// Which phase.
    pub phase: WirePhase,
    /// Board to broker.
    pub up: Wire,
    /// Broker to board.
    pub down: Wire,
}

/// Phases whose packets are counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WirePhase {
    /// Connecting and subscribing.
    Connect,
    /// First intended message to the last acknowledgement.
    Workload,
    /// Everything else: idle, closing.
    Rest,
}

/// What the client's own transport counted over a trial; `None` where it cannot tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportStats {
    /// Packets or segments sent.
    pub packets_sent: Option<u64>,
    /// Packets or segments received.
    pub packets_received: Option<u64>,
    /// Packets declared lost.
    pub packets_lost: Option<u64>,
    /// Packets whose content was sent again.
    pub retransmissions: Option<u64>,
    /// Losses declared although the packet had arrived.
    pub spurious_losses: Option<u64>,
    /// Probe timeouts (QUIC) or retransmission timeouts (TCP).
    pub timeouts: Option<u64>,
    /// Smallest round-trip time.
    pub rtt_min_us: Option<u64>,
    /// Smoothed round-trip time at the end.
    pub rtt_smoothed_us: Option<u64>,
    /// Congestion window at the end, bytes.
    pub congestion_window: Option<u64>,
    /// Paths moved to.
    pub migrations: Option<u64>,
    /// Key updates.
    pub key_updates: Option<u64>,
}

impl TransportStats {
    /// Takes in another connection of the same trial: adds up what is counted, keeps the smallest round trip, and the
    /// latest of what is an estimate.
    pub fn add(&mut self, next: &Self) {
        let Self {
            packets_sent,
            packets_received,
            packets_lost,
            retransmissions,
            spurious_losses,
            timeouts,
            rtt_min_us,
            rtt_smoothed_us,
            congestion_window,
            migrations,
            key_updates,
        } = self;
        let counters = [
            (packets_sent, next.packets_sent),
            (packets_received, next.packets_received),
            (packets_lost, next.packets_lost),
            (retransmissions, next.retransmissions),
            (spurious_losses, next.spurious_losses),
            (timeouts, next.timeouts),
            (migrations, next.migrations),
            (key_updates, next.key_updates),
        ];
        for (total, count) in counters {
            *total = total.iter().chain(&count).copied().reduce(|total, count| total + count);
        }
        *rtt_min_us = rtt_min_us.iter().chain(&next.rtt_min_us).copied().min();
        *rtt_smoothed_us = next.rtt_smoothed_us.or(*rtt_smoothed_us);
        *congestion_window = next.congestion_window.or(*congestion_window);
    }
}

/// What the link did in one direction. Packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStats {
    /// Handed to the link.
    pub offered: u64,
    /// Delivered, copies included.
    pub delivered: u64,
    /// Lost by the loss model.
    pub lost: u64,
    /// Dropped by a full queue.
    pub queue_drops: u64,
    /// Dropped during a blackout.
    pub blackout_drops: u64,
    /// Dropped for being larger than the MTU.
    pub oversized: u64,
    /// Extra copies made.
    pub duplicated: u64,
    /// Delivered out of order.
    pub reordered: u64,
    /// Delivered with flipped bits.
    pub corrupted: u64,
    /// Bytes offered.
    pub bytes_offered: u64,
    /// Bytes delivered.
    pub bytes_delivered: u64,
    /// Longest run of consecutive losses.
    pub longest_burst: u64,
    /// Delivery later than scheduled, 99th percentile: the harness's own error.
    pub late_p99_us: Option<u64>,
}
