//! The one timer of recovery: losses by time, probe timeouts, and lookouts between them (RFC 9002 6.2).

use super::{Congestion, Expired, Outcome, PROBE_RESERVE, Phase, Recovery, Space, Stall};
use crate::time::{Duration, Instant};

/// Doublings of the probe timeout after which it no longer grows: 2^16 s is longer than any idle timeout.
const MAX_BACKOFF: u8 = 16;

/// The longest pause between lookouts, as the part of the silence so far.
const LOOKOUT_SHARE: u64 = 16;

impl<T: Copy, const N: usize, C: Congestion> Recovery<T, N, C> {
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

    /// While probe timeouts run: when a PING ([`super::PacketKind::Lookout`]) should look out for the path's return.
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

    /// The probe timeout with the peer's max_ack_delay, without backoff: closing and draining last three of
    /// these (RFC 9000 10.2), path validation is given up after three (RFC 9000 8.2.4).
    pub fn pto(&self) -> Duration {
        self.rtt.pto() + self.peer_max_ack_delay
    }

    /// Probe timeouts since the last acknowledgement.
    pub const fn backoff(&self) -> u8 {
        self.backoff
    }

    /// The peer has acknowledged something, or what it owes no longer matters.
    pub(super) const fn end_stall(&mut self) {
        self.backoff = 0;
        self.stall = None;
    }

    /// At most one lookout is in the table: there is nothing in the others to repair.
    pub(super) fn supersede_lookout(&mut self, packet_number: u64) {
        let Some(stall) = &mut self.stall else { return };
        let Some(older) = stall.lookout.replace(packet_number as u32) else { return };
        if let Some(bytes) = self.table.withdraw(Space::Application, older) {
            self.bytes_in_flight -= u32::from(bytes);
            self.spaces[Space::Application.index()].ack_eliciting_in_flight -= 1;
        }
    }

    /// Deviates from RFC 9002 6.2 (a PTO loses nothing): with a full table the oldest packets are given up,
    /// because a probe without an entry could never be acknowledged.
    pub(super) fn make_room_for_probes(&mut self, space: Space, outcome: &mut impl FnMut(Outcome<T>)) {
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

    pub(super) fn earliest_loss(&self) -> Option<(Instant, Space)> {
        let times =
            Space::ALL.iter().filter_map(|&space| Some((self.spaces[space.index()].loss_time?, space)));
        times.min_by_key(|&(time, _)| time)
    }

    /// RFC 9002 A.8, GetPtoTimeAndSpace.
    ///
    /// Unlike the pseudocode, 0-RTT packets in flight do not disarm the anti-deadlock timer: before
    /// confirmation they have no timeout of their own, so nothing would ever fire (RFC 9002 6.2.2.1). Nor does the
    /// first acknowledgement of a Handshake packet: a server without an RTT sample repeats what was lost of its flight
    /// after 1 s, 2 s, 4 s. The probes' acknowledgements make it find out within a round trip.
    pub(super) fn probe_timeout(&self, now: Instant) -> Option<(Instant, Space)> {
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
        if earliest.is_none() && self.phase < Phase::Confirmed {
            let space = if self.phase == Phase::InitialKeys { Space::Initial } else { Space::Handshake };
            earliest = Some((now + duration.saturating_mul(factor), space));
        }
        earliest
    }

    /// RFC 9002 A.8, SetLossDetectionTimer.
    pub(super) fn rearm(&mut self, now: Instant) {
        self.timer = self.earliest_loss().or_else(|| self.probe_timeout(now)).map(|(time, _)| time);
    }
}
