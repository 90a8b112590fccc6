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
pub mod pacing;
pub mod rtt;
mod sent;
#[cfg(test)]
mod tests;

pub use congestion::{Congestion, NewReno};
pub use pacing::Pacer;
pub use rtt::RttEstimator;

use congestion::Utilisation;
use core::ops::RangeInclusive;
use sent::{SentPacket, SentTable};

use crate::time::{Duration, Instant};

/// Packets between a packet and a later acknowledged one that make it lost (RFC 9002 6.1.1, kPacketThreshold).
pub const PACKET_THRESHOLD: u64 = 3;

/// Probe timeouts in a row that make losses persistent congestion (RFC 9002 7.6.1).
const PERSISTENT_CONGESTION_THRESHOLD: u64 = 3;

/// The peer's max_ack_delay until its transport parameters are known (RFC 9000 18.2).
const DEFAULT_MAX_ACK_DELAY: Duration = Duration::from_millis(25);

/// Doublings of the probe timeout after which it no longer grows: 2^16 s is longer than any idle timeout.
const MAX_BACKOFF: u8 = 16;

/// The longest pause between lookouts, as the part of the silence so far.
const LOOKOUT_SHARE: u64 = 16;

/// Entries only probes may take, so that a full table cannot stop the repair that would empty it.
const PROBE_RESERVE: usize = 2;

/// Further entries kept from 0-RTT and early 1-RTT packets for the handshake that must overtake them.
const HANDSHAKE_RESERVE: usize = 6;

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
    /// A PING that [`Recovery::lookout_at`] asked for.
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
    /// New data first, then what [`Recovery::unacked`] says is oldest, else a PING (RFC 9002 6.2.4).
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
    const NEW: Self = Self {
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

#[derive(Clone, Copy, Debug)]
struct SpaceState {
    largest_sent: Option<u64>,
    largest_acked: Option<u64>,
    last_ack_eliciting: Option<Instant>,
    loss_time: Option<Instant>,
    ack_eliciting_in_flight: u16,
    probes: u8,
}

impl SpaceState {
    const NEW: Self = Self {
        largest_sent: None,
        largest_acked: None,
        last_ack_eliciting: None,
        loss_time: None,
        ack_eliciting_in_flight: 0,
        probes: 0,
    };
}

/// What one pass of loss detection took out of flight.
#[derive(Clone, Copy, Debug, Default)]
struct Losses {
    packets: u16,
    bytes: u32,
    congestive: u16,
    last_congestive: Option<Instant>,
}

impl Losses {
    fn count<T>(&mut self, packet: &SentPacket<T>) {
        if !packet.is_in_flight() {
            // On an old path or an acknowledgement only: nobody waits for its bytes.
            return;
        }
        self.packets += 1;
        self.bytes += u32::from(packet.bytes);
        if packet.signals_congestion() {
            self.congestive += 1;
            self.last_congestive = Some(packet.time);
        }
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
    /// Probes pass the window and the pacer (RFC 9002 7.5). Packets with acknowledgements only need no permit.
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
        state.largest_sent = Some(packet_number);
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
        let sent = state.largest_sent.filter(|&sent| largest <= sent).ok_or(AckOfUnsent)?;
        state.largest_acked = state.largest_acked.max(Some(largest));
        let marked = self.table.mark_acked(space, sent, ranges);
        let mut acked = Acked { largest_newly_acked: marked.largest, packets: marked.count, lost: 0 };
        if marked.count == 0 {
            return Ok(acked);
        }
        if let Some(sent) = marked.rtt_sample(largest) {
            self.take_rtt_sample(now, sent, delay);
        }
        let utilisation = self.utilisation();
        acked.lost = self.detect_lost(now, space, &mut outcome);
        self.remove_acked(utilisation, &mut outcome);
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

    /// When [`Self::on_timeout`] wants to be called.
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.timer
    }

    /// The timer fired (RFC 9002 A.9, OnLossDetectionTimeout). Nothing happens before its time.
    pub fn on_timeout(&mut self, now: Instant, mut outcome: impl FnMut(Outcome<T>)) -> Option<Expired> {
        if self.timer.is_none_or(|timer| timer > now) {
            return None;
        }
        if let Some((_, space)) = self.earliest_loss() {
            self.detect_lost(now, space, &mut outcome);
            self.pacer.set_rate(now, self.congestion.window(), self.rtt.smoothed());
            self.rearm(now);
            return Some(Expired::Loss);
        }
        let (_, space) = self.probe_timeout(now)?;
        // Two, so that one may be lost; but a full-size Initial is dear on a slow network.
        let probes = if self.backoff == 0 && space == Space::Initial { 1 } else { 2 };
        self.make_room_for_probes(space, &mut outcome);
        self.spaces[space.index()].probes = probes;
        self.backoff = (self.backoff + 1).min(MAX_BACKOFF);
        if space == Space::Application && self.stall.is_none() {
            self.stall = Some(Stall { since: now, lookout: None });
        }
        self.statistics.pto_count += 1;
        self.rearm(now);
        Some(Expired::Probe { space, probes })
    }

    /// Probe packets still to be sent in `space`. Each ack-eliciting packet sent there counts.
    pub const fn probes(&self, space: Space) -> u8 {
        self.spaces[space.index()].probes
    }

    /// While probe timeouts run: when a PING ([`PacketKind::Lookout`]) should look out for the path's return.
    ///
    /// The backoff of probe timeouts alone finds a path that was away for a second only after up to another
    /// second. A sender with data waiting would learn of the return from its next packet; one whose memory is full
    /// of unacknowledged data has no such packet. The PINGs stand in for it, within the congestion window. They
    /// come no faster than probe timeouts without backoff, and further apart the longer the silence lasts: an
    /// outage of any length is longer by at most a sixteenth.
    ///
    /// Deviates from RFC 9002 6.2.1 (SHOULD): they do not restart the probe timer, which keeps its own backoff.
    pub fn lookout_at(&self) -> Option<Instant> {
        let stall = self.stall.filter(|_| self.phase == Phase::Confirmed)?;
        let age = self.last_in_flight.saturating_since(stall.since);
        Some(self.last_in_flight + self.pto().max(Duration::from_micros(age.as_micros() / LOOKOUT_SHARE)))
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
        let first_sent = self.table.iter().next().map(|packet| packet.time);
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
        self.spaces[space.index()].largest_acked
    }

    /// The probe timeout with the peer's max_ack_delay, without backoff: closing and draining last three of
    /// these (RFC 9000 10.2), path validation is given up after three (RFC 9000 8.2.4).
    pub fn pto(&self) -> Duration {
        self.rtt.pto() + self.peer_max_ack_delay
    }

    /// Probe timeouts since the last acknowledgement.
    pub const fn backoff(&self) -> u8 {
        self.backoff
    }

    /// Counters since the connection began.
    pub const fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// The peer has acknowledged something, or what it owes no longer matters.
    const fn end_stall(&mut self) {
        self.backoff = 0;
        self.stall = None;
    }

    /// At most one lookout is in the table: there is nothing in the others to repair.
    fn supersede_lookout(&mut self, packet_number: u64) {
        let Some(stall) = &mut self.stall else { return };
        let Some(older) = stall.lookout.replace(packet_number as u32) else { return };
        if let Some(bytes) = self.table.withdraw(Space::Application, older) {
            self.bytes_in_flight -= u32::from(bytes);
            self.spaces[Space::Application.index()].ack_eliciting_in_flight -= 1;
        }
    }

    fn take_rtt_sample(&mut self, now: Instant, sent: Instant, delay: Duration) {
        let delay = if self.phase == Phase::Confirmed { delay.min(self.peer_max_ack_delay) } else { delay };
        self.rtt.update(now, now.saturating_since(sent), delay);
    }

    /// Growth needs a window in use: half of it in slow start, all but three datagrams of it afterwards.
    fn utilisation(&self) -> Utilisation {
        let window = self.congestion.window();
        let spare = window.saturating_sub(self.bytes_in_flight);
        if spare <= 3 * congestion::MAX_DATAGRAM_SIZE || spare <= window / 2 {
            Utilisation::Full
        } else {
            Utilisation::Limited
        }
    }

    /// RFC 9002 A.10, DetectAndRemoveLostPackets, and B.8, OnPacketsLost.
    fn detect_lost(&mut self, now: Instant, space: Space, outcome: &mut impl FnMut(Outcome<T>)) -> u16 {
        let loss_delay = self.rtt.loss_delay();
        let state = &mut self.spaces[space.index()];
        state.loss_time = None;
        let (Some(sent), Some(largest_acked)) = (state.largest_sent, state.largest_acked) else { return 0 };
        let mut losses = Losses::default();
        self.table.declare_lost(space, sent, largest_acked, |packet| {
            let due = packet.time + loss_delay;
            if due > now && largest_acked < packet.packet_number(sent) + PACKET_THRESHOLD {
                if packet.is_in_flight() {
                    state.loss_time = Some(state.loss_time.map_or(due, |time| time.min(due)));
                }
                return false;
            }
            losses.count(packet);
            if packet.is_ack_eliciting() {
                state.ack_eliciting_in_flight -= 1;
            }
            outcome(Outcome::Lost(packet.record));
            true
        });
        self.bytes_in_flight -= losses.bytes;
        self.statistics.packets_lost += u32::from(losses.packets);
        self.statistics.bytes_lost += u64::from(losses.bytes);
        if let Some(sent) = losses.last_congestive {
            self.on_congestion(now, sent, losses.congestive);
        }
        // Watched for a late acknowledgement, but not for ever.
        let watched = self.pto().saturating_mul(PERSISTENT_CONGESTION_THRESHOLD);
        self.table.forget_lost_before(now - watched);
        losses.packets
    }

    fn on_congestion(&mut self, now: Instant, sent: Instant, packets: u16) {
        if self.congestion.on_lost(now, sent) {
            self.statistics.congestion_events += 1;
            self.period_lost = 0;
            self.period_spurious = 0;
        }
        self.period_lost = self.period_lost.saturating_add(packets);
        let Some(first_sample) = self.rtt.first_sample() else { return };
        let duration = self.pto().saturating_mul(PERSISTENT_CONGESTION_THRESHOLD);
        let since = first_sample.max(self.persistent_until);
        if let Some(until) = self.table.persistent_loss(since, duration) {
            self.persistent_until = until;
            self.congestion.on_persistent_congestion();
            self.statistics.persistent_congestion += 1;
        }
    }

    fn remove_acked(&mut self, utilisation: Utilisation, outcome: &mut impl FnMut(Outcome<T>)) {
        let Self { table, spaces, congestion, bytes_in_flight, statistics, .. } = self;
        let mut spurious = 0;
        table.remove_acked(|packet| {
            if packet.was_lost() {
                statistics.spurious_losses += 1;
                spurious += u16::from(packet.signals_congestion());
            } else if packet.is_ack_eliciting() {
                spaces[packet.space.index()].ack_eliciting_in_flight -= 1;
            }
            if packet.leave_flight() {
                let bytes = u32::from(packet.bytes);
                *bytes_in_flight -= bytes;
                congestion.on_acked(packet.time, bytes, utilisation);
            }
            outcome(Outcome::Acked(packet.record));
        });
        if spurious > 0 {
            self.period_spurious = self.period_spurious.saturating_add(spurious);
            if self.period_spurious >= self.period_lost {
                self.congestion.on_spurious_loss();
            }
        }
    }

    fn drop_space(&mut self, space: Space, outcome: &mut impl FnMut(Outcome<T>)) {
        let bytes_in_flight = &mut self.bytes_in_flight;
        self.table.drop_space(space, |packet| {
            if packet.leave_flight() {
                *bytes_in_flight -= u32::from(packet.bytes);
            }
            if !packet.was_lost() {
                outcome(Outcome::Lost(packet.record));
            }
        });
        let state = &mut self.spaces[space.index()];
        state.ack_eliciting_in_flight = 0;
        state.last_ack_eliciting = None;
        state.loss_time = None;
        state.probes = 0;
    }

    /// Deviates from RFC 9002 6.2 (a PTO loses nothing): with a full table the oldest packets are given up,
    /// because a probe without an entry could never be acknowledged.
    fn make_room_for_probes(&mut self, space: Space, outcome: &mut impl FnMut(Outcome<T>)) {
        while self.table.in_flight_entries() + PROBE_RESERVE > N {
            let Some(packet) = self.table.evict_oldest(space) else { return };
            if packet.is_ack_eliciting() {
                self.spaces[packet.space.index()].ack_eliciting_in_flight -= 1;
            }
            if packet.is_in_flight() {
                self.bytes_in_flight -= u32::from(packet.bytes);
            }
            self.statistics.evicted += 1;
            outcome(Outcome::Lost(packet.record));
        }
    }

    fn earliest_loss(&self) -> Option<(Instant, Space)> {
        let times =
            Space::ALL.iter().filter_map(|&space| Some((self.spaces[space.index()].loss_time?, space)));
        times.min_by_key(|&(time, _)| time)
    }

    /// RFC 9002 A.8, GetPtoTimeAndSpace.
    ///
    /// Unlike the pseudocode, 0-RTT packets in flight do not disarm the anti-deadlock timer: before
    /// confirmation they have no timeout of their own, so nothing would ever fire (RFC 9002 6.2.2.1).
    fn probe_timeout(&self, now: Instant) -> Option<(Instant, Space)> {
        let factor = 1 << self.backoff;
        let mut duration = self.rtt.pto();
        let mut earliest: Option<(Instant, Space)> = None;
        for space in Space::ALL {
            if space == Space::Application {
                if self.phase != Phase::Confirmed {
                    break;
                }
                duration = self.pto();
            }
            let state = &self.spaces[space.index()];
            if let (1.., Some(sent)) = (state.ack_eliciting_in_flight, state.last_ack_eliciting) {
                let time = sent + duration.saturating_mul(factor);
                if earliest.is_none_or(|(earliest, _)| time < earliest) {
                    earliest = Some((time, space));
                }
            }
        }
        if earliest.is_none() && self.phase < Phase::AddressValidated {
            let space = if self.phase == Phase::InitialKeys { Space::Initial } else { Space::Handshake };
            earliest = Some((now + duration.saturating_mul(factor), space));
        }
        earliest
    }

    /// RFC 9002 A.8, SetLossDetectionTimer.
    fn rearm(&mut self, now: Instant) {
        self.timer = self.earliest_loss().or_else(|| self.probe_timeout(now)).map(|(time, _)| time);
    }
}
