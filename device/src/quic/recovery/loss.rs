//! What is lost, and what that says about the network (RFC 9002 6.1, 7).

use super::congestion::{self, Utilisation};
use super::sent::SentPacket;
use super::{Congestion, Outcome, PACKET_THRESHOLD, Phase, Recovery, Space};
use crate::time::{Duration, Instant};

/// Probe timeouts in a row that make losses persistent congestion (RFC 9002 7.6.1).
const PERSISTENT_CONGESTION_THRESHOLD: u64 = 3;

/// What one pass of loss detection took out of flight.
#[derive(Clone, Copy, Debug, Default)]
struct Losses {
    packets: u16,
    bytes: u32,
    congestive: u16,
    last_congestive: Option<Instant>,
}

impl Losses {
    fn count<T>(&mut self, now: Instant, packet: &SentPacket<T>) {
        if !packet.is_in_flight() {
            // On an old path or an acknowledgement only: nobody waits for its bytes.
            return;
        }
        self.packets += 1;
        self.bytes += u32::from(packet.bytes);
        if packet.signals_congestion() {
            self.congestive += 1;
            self.last_congestive = Some(packet.sent_at(now));
        }
    }
}

impl<T: Copy, const N: usize, C: Congestion> Recovery<T, N, C> {
    pub(super) fn take_rtt_sample(&mut self, now: Instant, sent: Instant, delay: Duration) {
        let delay = if self.phase == Phase::Confirmed { delay.min(self.peer_max_ack_delay) } else { delay };
        self.rtt.update(now, now.saturating_since(sent), delay);
    }

    /// Growth needs a window in use (RFC 9002 7.8): half of it in slow start, all but three datagrams of it afterwards.
    pub(super) fn utilisation(&self) -> Utilisation {
        let window = self.congestion.window();
        let spare = window.saturating_sub(self.bytes_in_flight);
        let half = if self.congestion.is_in_slow_start() { window / 2 } else { 0 };
        if spare <= half.max(3 * congestion::MAX_DATAGRAM_SIZE) {
            Utilisation::Full
        } else {
            Utilisation::Limited
        }
    }

    /// RFC 9002 A.10, DetectAndRemoveLostPackets, and B.8, OnPacketsLost.
    pub(super) fn detect_lost(
        &mut self,
        now: Instant,
        space: Space,
        outcome: &mut impl FnMut(Outcome<T>),
    ) -> u16 {
        let loss_delay = self.rtt.loss_delay();
        let state = &mut self.spaces[space.index()];
        state.loss_time = None;
        let (Some(sent), Some(largest_acked)) = (state.largest_sent.get(), state.largest_acked.get()) else {
            return 0;
        };
        let mut losses = Losses::default();
        self.table.declare_lost(space, sent, largest_acked, |packet| {
            let due = packet.sent_at(now) + loss_delay;
            if due > now && largest_acked < packet.packet_number(sent) + PACKET_THRESHOLD {
                if packet.is_in_flight() {
                    state.loss_time = Some(state.loss_time.map_or(due, |time| time.min(due)));
                }
                return false;
            }
            losses.count(now, packet);
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
        self.table.forget_lost(now, watched);
        losses.packets
    }

    pub(super) fn on_congestion(&mut self, now: Instant, sent: Instant, packets: u16) {
        if self.congestion.on_lost(now, sent) {
            self.statistics.congestion_events += 1;
            self.period_lost = 0;
            self.period_spurious = 0;
        }
        self.period_lost = self.period_lost.saturating_add(packets);
        let Some(first_sample) = self.rtt.first_sample() else { return };
        let duration = self.pto().saturating_mul(PERSISTENT_CONGESTION_THRESHOLD);
        let since = first_sample.max(self.persistent_until);
        if let Some(until) = self.table.persistent_loss(now, since, duration) {
            self.persistent_until = until;
            self.congestion.on_persistent_congestion();
            self.statistics.persistent_congestion += 1;
        }
    }

    pub(super) fn remove_acked(
        &mut self,
        now: Instant,
        utilisation: Utilisation,
        outcome: &mut impl FnMut(Outcome<T>),
    ) {
        let Self { table, spaces, congestion, bytes_in_flight, statistics, .. } = self;
        let mut spurious = 0;
        table.remove_acked(|packet| {
            if packet.was_lost() {
                statistics.spurious_losses += u32::from(packet.is_missed());
                spurious += u16::from(packet.is_missed() && packet.signals_congestion());
            } else if packet.is_ack_eliciting() {
                spaces[packet.space.index()].ack_eliciting_in_flight -= 1;
            }
            if packet.leave_flight() {
                let bytes = u32::from(packet.bytes);
                *bytes_in_flight -= bytes;
                congestion.on_acked(packet.sent_at(now), bytes, utilisation);
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

    pub(super) fn drop_space(&mut self, space: Space, outcome: &mut impl FnMut(Outcome<T>)) {
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
}
