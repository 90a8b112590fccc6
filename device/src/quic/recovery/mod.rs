//! Loss detection and congestion control (RFC 9002).
//!
//! [`Recovery`] remembers each packet that may need repair, together with a small record `T` of the frames it
//! carried, and hands the record back once: as [`Outcome::Acked`] or [`Outcome::Lost`]. What a record means
//! is the connection's business; recovery knows packets only.
//!
//! One table of `N` entries serves the three packet number spaces, in the order of sending. When it is full
//! the sender waits ([`Permit::TableFull`]); packets that carry only acknowledgements never wait, for they
//! need no entry. Entries of lost packets stay while there is room, so that a late acknowledgement is seen as
//! what it is: a spurious loss.

pub mod congestion;
mod loss;
pub mod pacing;
pub mod rtt;
mod sent;
#[cfg(test)]
mod tests;
mod timer;
mod types;

pub use congestion::{Congestion, NewReno};
pub use pacing::Pacer;
pub use rtt::RttEstimator;
pub use types::{AckOfUnsent, Acked, Expired, Outcome, PacketKind, PathChange, Permit, Space, Statistics};

use core::ops::RangeInclusive;
use sent::{SentPacket, SentTable};

use crate::time::{Duration, Instant};

/// Packets between a packet and a later acknowledged one that make it lost (RFC 9002 6.1.1, kPacketThreshold).
pub const PACKET_THRESHOLD: u64 = 3;

/// The peer's max_ack_delay until its transport parameters are known (RFC 9000 18.2).
const DEFAULT_MAX_ACK_DELAY: Duration = Duration::from_millis(25);

/// Entries only probes may take, so that a full table cannot stop the repair that would empty it.
const PROBE_RESERVE: usize = 2;

/// Further entries kept from 0-RTT and early 1-RTT packets for the handshake that must overtake them.
const HANDSHAKE_RESERVE: usize = 6;

#[derive(Clone, Copy, Debug)]
struct SpaceState {
    largest_sent: Largest,
    largest_acked: Largest,
    last_ack_eliciting: Option<Instant>,
    loss_time: Option<Instant>,
    ack_eliciting_in_flight: u16,
    probes: u8,
}

impl SpaceState {
    const NEW: Self = Self {
        largest_sent: Largest::NONE,
        largest_acked: Largest::NONE,
        last_ack_eliciting: None,
        loss_time: None,
        ack_eliciting_in_flight: 0,
        probes: 0,
    };
}

/// The largest packet number there was, if any, as the one after it: an `Option` would take twice the memory.
#[derive(Clone, Copy, Debug)]
struct Largest(u64);

impl Largest {
    const NONE: Self = Self(0);

    const fn get(self) -> Option<u64> {
        self.0.checked_sub(1)
    }

    fn raise(&mut self, packet_number: u64) {
        self.0 = self.0.max(packet_number + 1);
    }
}

/// The peer owes acknowledgements: at least one probe timeout has passed since the last.
#[derive(Clone, Copy, Debug)]
struct Stall {
    since: Instant,
    /// The packet number of the last PING that looked out, while its entry is in the table.
    lookout: Option<u32>,
}

/// How far the handshake is, as far as timers care.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Phase {
    InitialKeys,
    HandshakeKeys,
    /// The server has acknowledged a Handshake packet, so it has validated our address.
    AddressValidated,
    Confirmed,
}

/// RFC 9002 for a client: RTT, loss detection, probe timeouts, congestion window and pacing.
#[derive(Debug)]
pub struct Recovery<T, const N: usize, C = NewReno> {
    table: SentTable<T, N>,
    spaces: [SpaceState; 3],
    rtt: RttEstimator,
    congestion: C,
    pacer: Pacer,
    bytes_in_flight: u32,
    backoff: u8,
    stall: Option<Stall>,
    /// When a packet that counts as in flight was last sent.
    last_in_flight: Instant,
    phase: Phase,
    timer: Option<Instant>,
    peer_max_ack_delay: Duration,
    /// Losses up to here already counted as persistent congestion.
    persistent_until: Instant,
    /// In-flight packets lost in this recovery period, and how many of them arrived after all.
    period_lost: u16,
    period_spurious: u16,
    statistics: Statistics,
}

impl<T: Copy, const N: usize, C: Congestion + Default> Default for Recovery<T, N, C> {
    fn default() -> Self {
        Self::new(C::default())
    }
}

impl<T: Copy, const N: usize, C: Congestion> Recovery<T, N, C> {
    /// Recovery for a new connection.
    pub const fn new(congestion: C) -> Self {
        const { assert!(N > PROBE_RESERVE + HANDSHAKE_RESERVE, "the table must hold more than its reserve") };
        Self {
            table: SentTable::new(),
            spaces: [SpaceState::NEW; 3],
            rtt: RttEstimator::new(),
            congestion,
            pacer: Pacer::new(),
            bytes_in_flight: 0,
            backoff: 0,
            stall: None,
            last_in_flight: Instant::ZERO,
            phase: Phase::InitialKeys,
            timer: None,
            peer_max_ack_delay: DEFAULT_MAX_ACK_DELAY,
            persistent_until: Instant::ZERO,
            period_lost: 0,
            period_spurious: 0,
            statistics: Statistics::NEW,
        }
    }

    /// Begins a connection: forgets everything, in place. `initial_rtt` is assumed until the first sample.
    pub fn restart(&mut self, initial_rtt: Duration) {
        self.table.clear();
        self.spaces = [SpaceState::NEW; 3];
        self.rtt = RttEstimator::assuming(initial_rtt);
        self.congestion.reset();
        self.pacer = Pacer::new();
        self.bytes_in_flight = 0;
        self.end_stall();
        self.last_in_flight = Instant::ZERO;
        self.phase = Phase::InitialKeys;
        self.timer = None;
        self.peer_max_ack_delay = DEFAULT_MAX_ACK_DELAY;
        self.persistent_until = Instant::ZERO;
        self.period_lost = 0;
        self.period_spurious = 0;
        self.statistics = Statistics::NEW;
    }

    /// Whether a packet of `bytes` that is in flight may be sent in `space` at `now`.
    ///
    /// Probes pass the window and the pacer (RFC 9002 7.5). Packets with acknowledgements only need no permit,
    /// unless they are padded.
    pub fn permit(&self, now: Instant, space: Space, bytes: u16) -> Permit {
        if self.spaces[space.index()].probes > 0 {
            return Permit::Send;
        }
        let reserve = if space == Space::Application && self.phase != Phase::Confirmed {
            PROBE_RESERVE + HANDSHAKE_RESERVE
        } else {
            PROBE_RESERVE
        };
        if self.table.in_flight_entries() + reserve >= N {
            return Permit::TableFull;
        }
        if self.bytes_in_flight + u32::from(bytes) > self.congestion.window() {
            return Permit::CongestionLimited;
        }
        match self.pacer.earliest(now) {
            earliest if earliest > now => Permit::Paced(earliest),
            _ => Permit::Send,
        }
    }

    /// A packet left (RFC 9002 A.5, OnPacketSent).
    ///
    /// Packet numbers of a space are given in ascending order.
    pub fn on_sent(
        &mut self,
        now: Instant,
        space: Space,
        packet_number: u64,
        bytes: u16,
        kind: PacketKind,
        record: T,
    ) {
        if kind == PacketKind::Lookout {
            self.supersede_lookout(packet_number);
        }
        let state = &mut self.spaces[space.index()];
        state.largest_sent.raise(packet_number);
        let packet = SentPacket::new(now, space, packet_number, bytes, kind, record);
        let stored = self.table.push(packet, if kind == PacketKind::AckOnly { PROBE_RESERVE } else { 0 });
        debug_assert!(stored || kind == PacketKind::AckOnly, "on_sent without a permit");
        if !stored || kind == PacketKind::AckOnly {
            return;
        }
        self.bytes_in_flight += u32::from(bytes);
        self.last_in_flight = now;
        self.pacer.on_sent(now, u32::from(bytes));
        if packet.is_ack_eliciting() {
            state.ack_eliciting_in_flight += 1;
            if kind != PacketKind::Lookout {
                state.last_ack_eliciting = Some(now);
                state.probes = state.probes.saturating_sub(1);
            }
        }
        self.statistics.packets_sent += 1;
        self.statistics.bytes_in_flight_max = self.statistics.bytes_in_flight_max.max(self.bytes_in_flight);
        self.statistics.tracked_max = self.statistics.tracked_max.max(self.table.len() as u16);
        self.rearm(now);
    }

    /// An ACK frame arrived (RFC 9002 A.7, OnAckReceived).
    ///
    /// `ranges` run from the largest packet number down; `delay` is the frame's ACK Delay, zero for Initial
    /// and Handshake packets.
    ///
    /// # Errors
    /// [`AckOfUnsent`] if the frame acknowledges more than was sent; nothing has changed then.
    pub fn on_ack(
        &mut self,
        now: Instant,
        space: Space,
        ranges: impl IntoIterator<Item = RangeInclusive<u64>>,
        delay: Duration,
        mut outcome: impl FnMut(Outcome<T>),
    ) -> Result<Acked, AckOfUnsent> {
        let mut ranges = ranges.into_iter().peekable();
        let Some(largest) = ranges.peek().map(|range| *range.end()) else {
            return Ok(Acked::default());
        };
        let state = &mut self.spaces[space.index()];
        let sent = state.largest_sent.get().filter(|&sent| largest <= sent).ok_or(AckOfUnsent)?;
        state.largest_acked.raise(largest);
        let marked = self.table.mark_acked(now, space, sent, ranges);
        let mut acked = Acked { largest_newly_acked: marked.largest, packets: marked.count, lost: 0 };
        if marked.count == 0 {
            return Ok(acked);
        }
        if let Some(sent) = marked.rtt_sample(largest) {
            self.take_rtt_sample(now, sent, delay);
        }
        let utilisation = self.utilisation();
        acked.lost = self.detect_lost(now, space, &mut outcome);
        self.remove_acked(now, utilisation, &mut outcome);
        if space == Space::Handshake {
            self.phase = self.phase.max(Phase::AddressValidated);
        }
        if self.phase >= Phase::AddressValidated {
            self.end_stall();
        }
        self.pacer.set_rate(now, self.congestion.window(), self.rtt.smoothed());
        self.rearm(now);
        Ok(acked)
    }

    /// Records of ack-eliciting packets in flight in `space`, oldest first: what a probe should repeat.
    pub fn unacked(&self, space: Space) -> impl Iterator<Item = T> + '_ {
        self.table.iter().filter(move |packet| packet.awaits_ack(space)).map(|packet| packet.record)
    }

    /// Handshake keys are available: anti-deadlock probes move to the Handshake space (RFC 9002 6.2.2.1).
    pub fn on_handshake_keys(&mut self, now: Instant) {
        self.phase = self.phase.max(Phase::HandshakeKeys);
        self.rearm(now);
    }

    /// The handshake is confirmed (RFC 9001 4.1.2): 1-RTT packets get probe timeouts, too.
    pub fn on_handshake_confirmed(&mut self, now: Instant) {
        self.phase = Phase::Confirmed;
        self.rearm(now);
    }

    /// The peer's max_ack_delay transport parameter.
    pub const fn set_peer_max_ack_delay(&mut self, delay: Duration) {
        self.peer_max_ack_delay = delay;
    }

    /// The keys of a space are gone: its packets are neither lost nor in flight (RFC 9002 6.4).
    pub fn discard_space(&mut self, now: Instant, space: Space) {
        self.drop_space(space, &mut |_| ());
        self.end_stall();
        self.rearm(now);
    }

    /// Everything unacknowledged in `space` must be sent again, which is no congestion signal: 0-RTT was
    /// refused (RFC 9001 4.6.2).
    pub fn requeue_space(&mut self, now: Instant, space: Space, mut outcome: impl FnMut(Outcome<T>)) {
        self.drop_space(space, &mut outcome);
        self.rearm(now);
    }

    /// A Retry packet arrived: Initial and 0-RTT packets are to be sent again (RFC 9002 6.3).
    pub fn on_retry(&mut self, now: Instant, mut outcome: impl FnMut(Outcome<T>)) {
        let first_sent = self.table.iter().next().map(|packet| packet.sent_at(now));
        if let (0, Some(sent)) = (self.backoff, first_sent) {
            self.rtt.update(now, now.saturating_since(sent), Duration::ZERO);
        }
        self.drop_space(Space::Initial, &mut outcome);
        self.drop_space(Space::Application, &mut outcome);
        self.congestion.reset();
        self.pacer.reset();
        self.end_stall();
        self.rearm(now);
    }

    /// The connection moved to another path (RFC 9000 9.4).
    ///
    /// Packets of the old path no longer count as in flight and give no RTT samples; they can still be
    /// acknowledged or lost.
    pub fn on_path_changed(&mut self, now: Instant, change: PathChange) {
        self.end_stall();
        if change == PathChange::Address {
            self.table.leave_path();
            self.bytes_in_flight = 0;
            self.rtt = RttEstimator::new();
            self.congestion.reset();
            self.pacer.reset();
            self.period_lost = 0;
            self.period_spurious = 0;
        }
        self.rearm(now);
    }

    /// The RTT estimate.
    pub const fn rtt(&self) -> &RttEstimator {
        &self.rtt
    }

    /// The congestion controller.
    pub const fn congestion(&self) -> &C {
        &self.congestion
    }

    /// Bytes in flight.
    pub const fn bytes_in_flight(&self) -> u32 {
        self.bytes_in_flight
    }

    /// Table entries in use, lost packets under observation included.
    pub fn tracked(&self) -> usize {
        self.table.len()
    }

    /// The largest packet number the peer has acknowledged in `space`: packet numbers are encoded against it.
    pub const fn largest_acked(&self, space: Space) -> Option<u64> {
        self.spaces[space.index()].largest_acked.get()
    }

    /// Counters since the connection began.
    pub const fn statistics(&self) -> &Statistics {
        &self.statistics
    }
}
