//! The words of recovery: packets, their fates, and what a sender may do.

use crate::time::Instant;

/// A packet number space (RFC 9000 12.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Space {
    /// Initial packets.
    Initial,
    /// Handshake packets.
    Handshake,
    /// 0-RTT and 1-RTT packets.
    Application,
}

impl Space {
    /// Every space, in the order of the handshake.
    pub const ALL: [Self; 3] = [Self::Initial, Self::Handshake, Self::Application];

    /// An index for tables by space.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// What a packet asks of the peer and of the network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PacketKind {
    /// Acknowledgements only: not in flight, never repaired.
    AckOnly,
    /// Acknowledgements and PADDING: in flight, but the peer need not answer.
    Padded,
    /// Asks for an acknowledgement.
    AckEliciting,
    /// A probe for a larger MTU: its loss says nothing about congestion (RFC 9000 14.4).
    MtuProbe,
    /// A PING that [`super::Recovery::lookout_at`] asked for.
    Lookout,
}

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome<T> {
    /// The peer has it. Also told of a packet that was declared lost before (a spurious loss).
    Acked(T),
    /// It is lost, or must be treated so: what it carried is to be sent again where it still matters.
    Lost(T),
}

/// Whether a packet may be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Permit {
    /// Now.
    Send,
    /// Not before this time: the pacer spreads packets.
    Paced(Instant),
    /// Not before an acknowledgement: the congestion window is full.
    CongestionLimited,
    /// Not before an acknowledgement: the sent-packet table is full.
    TableFull,
}

/// Why the timer fired.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expired {
    /// Packets became lost by the time threshold; they have been reported.
    Loss,
    /// A probe timeout: `probes` ack-eliciting packets are to be sent in `space` now.
    ///
    /// New data first, then what [`super::Recovery::unacked`] says is oldest, else a PING (RFC 9002 6.2.4).
    Probe {
        /// Where to send.
        space: Space,
        /// How many packets, each its own datagram.
        probes: u8,
    },
}

/// Whether only the port of a path changed, or more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PathChange {
    /// The same address: the network path is most likely the same (RFC 9000 9.4).
    Port,
    /// Another address: window and RTT start anew.
    Address,
}

/// The peer acknowledged a packet that was never sent (RFC 9000 13.1, PROTOCOL_VIOLATION).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AckOfUnsent;

impl core::fmt::Display for AckOfUnsent {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the peer acknowledged a packet that was never sent")
    }
}

impl core::error::Error for AckOfUnsent {}

/// What an acknowledgement changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Acked {
    /// The largest packet number newly acknowledged by this frame.
    pub largest_newly_acked: Option<u64>,
    /// Packets newly acknowledged, late ones included.
    pub packets: u16,
    /// Packets declared lost by it.
    pub lost: u16,
}

/// Counters since the connection began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    /// In-flight packets sent.
    pub packets_sent: u32,
    /// Packets declared lost.
    pub packets_lost: u32,
    /// Bytes of packets declared lost.
    pub bytes_lost: u64,
    /// Packets declared lost that were acknowledged later.
    pub spurious_losses: u32,
    /// Probe timeouts that fired.
    pub pto_count: u32,
    /// Recovery periods entered.
    pub congestion_events: u32,
    /// Times persistent congestion was established.
    pub persistent_congestion: u32,
    /// Most bytes ever in flight.
    pub bytes_in_flight_max: u32,
    /// Most table entries ever in use.
    pub tracked_max: u16,
    /// In-flight entries given up to make room for a probe.
    pub evicted: u32,
}

impl Statistics {
    pub(super) const NEW: Self = Self {
        packets_sent: 0,
        packets_lost: 0,
        bytes_lost: 0,
        spurious_losses: 0,
        pto_count: 0,
        congestion_events: 0,
        persistent_congestion: 0,
        bytes_in_flight_max: 0,
        tracked_max: 0,
        evicted: 0,
    };
}
