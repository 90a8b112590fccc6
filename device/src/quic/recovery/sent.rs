//! The bounded table of sent packets (RFC 9002 A.1).

use core::ops::RangeInclusive;
use heapless::Vec;

use super::{PacketKind, Space};
use crate::time::{Duration, Instant};

/// Counts towards bytes in flight.
const IN_FLIGHT: u8 = 1 << 0;
/// Asks for an acknowledgement.
const ACK_ELICITING: u8 = 1 << 1;
/// Declared lost, kept to recognise a spurious loss.
const LOST: u8 = 1 << 2;
/// Acknowledged by the frame being processed.
const ACKED: u8 = 1 << 3;
/// Sent before the path changed: no RTT sample, no congestion signal.
const OLD_PATH: u8 = 1 << 4;
/// A probe for a larger MTU.
const MTU_PROBE: u8 = 1 << 5;
/// A packet sent just before this one has been acknowledged: persistent congestion cannot span the gap.
const AFTER_ACKED: u8 = 1 << 6;
/// Carries acknowledgements only: may leave the table at any time.
const ACK_ONLY: u8 = 1 << 7;

/// A packet that has been sent and is neither acknowledged nor forgotten.
#[derive(Clone, Copy, Debug)]
pub(super) struct SentPacket<T> {
    /// The low half of the microseconds of [`Self::sent_at`]. A packet that has waited for 2^32 us, 71 minutes, seems
    /// younger than it is. That takes an idle timeout as long, or none, and costs an RTT sample that is too short and a
    /// loss that is declared later.
    time: u32,
    pub(super) record: T,
    /// The low half of the packet number: all entries lie within 2^32 of each other.
    number: u32,
    pub(super) bytes: u16,
    pub(super) space: Space,
    flags: u8,
}

impl<T> SentPacket<T> {
    pub(super) fn new(
        time: Instant,
        space: Space,
        packet_number: u64,
        bytes: u16,
        kind: PacketKind,
        record: T,
    ) -> Self {
        let flags = match kind {
            PacketKind::AckOnly => ACK_ONLY,
            PacketKind::Padded => IN_FLIGHT,
            PacketKind::AckEliciting | PacketKind::Lookout => IN_FLIGHT | ACK_ELICITING,
            PacketKind::MtuProbe => IN_FLIGHT | ACK_ELICITING | MTU_PROBE,
        };
        let time = time.as_micros() as u32;
        Self { time, record, number: packet_number as u32, bytes, space, flags }
    }

    /// When the packet was sent, given that this is less than 2^32 us ago.
    pub(super) fn sent_at(&self, now: Instant) -> Instant {
        now - self.age(now)
    }

    /// How long ago the packet was sent.
    fn age(&self, now: Instant) -> Duration {
        Duration::from_micros(u64::from((now.as_micros() as u32).wrapping_sub(self.time)))
    }

    /// The packet number, given that it is at most `sent` and not 2^32 behind it.
    pub(super) const fn packet_number(&self, sent: u64) -> u64 {
        sent.saturating_sub((sent as u32).wrapping_sub(self.number) as u64)
    }

    pub(super) fn is_ack_eliciting(&self) -> bool {
        self.has(ACK_ELICITING)
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.has(IN_FLIGHT)
    }

    pub(super) fn was_lost(&self) -> bool {
        self.has(LOST)
    }

    pub(super) fn signals_congestion(&self) -> bool {
        !self.has(MTU_PROBE | OLD_PATH)
    }

    /// Whether somebody waits for its bytes: not on an old path, and not for acknowledgements only. What does not count
    /// when it is lost does not count when it turns up either.
    pub(super) fn is_missed(&self) -> bool {
        !self.has(ACK_ONLY | OLD_PATH)
    }

    /// Sent in `space`, and neither acknowledged nor lost.
    pub(super) fn is_outstanding(&self, space: Space) -> bool {
        self.space == space && !self.has(LOST | ACKED)
    }

    pub(super) fn awaits_ack(&self, space: Space) -> bool {
        self.is_outstanding(space) && self.is_ack_eliciting()
    }

    /// Takes the packet out of flight. Says whether it was in flight.
    pub(super) fn leave_flight(&mut self) -> bool {
        let was = self.has(IN_FLIGHT);
        self.flags &= !IN_FLIGHT;
        was
    }

    /// Cannot leave the table without a word to the connection.
    fn is_held(&self) -> bool {
        !self.has(LOST | ACKED | ACK_ONLY)
    }

    fn has(&self, any: u8) -> bool {
        self.flags & any != 0
    }
}

/// What [`SentTable::mark_acked`] found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marked {
    pub(super) count: u16,
    pub(super) largest: Option<u64>,
    largest_sent_at: Option<Instant>,
    ack_eliciting: u16,
}

impl Marked {
    /// When the packet was sent that gives an RTT sample, if the frame gives one (RFC 9002 5.1).
    pub(super) fn rtt_sample(&self, largest_in_frame: u64) -> Option<Instant> {
        self.largest_sent_at.filter(|_| self.largest == Some(largest_in_frame) && self.ack_eliciting > 0)
    }
}

/// Sent packets in the order of sending, the three spaces mixed.
#[derive(Debug)]
pub(super) struct SentTable<T, const N: usize> {
    packets: Vec<SentPacket<T>, N>,
    /// Entries that cannot be evicted silently: not lost, not acknowledged, more than acknowledgements.
    outstanding: u16,
    /// The next packet follows one that has been acknowledged and removed.
    after_acked: bool,
}

impl<T: Copy, const N: usize> SentTable<T, N> {
    pub(super) const fn new() -> Self {
        Self { packets: Vec::new(), outstanding: 0, after_acked: false }
    }

    pub(super) fn clear(&mut self) {
        self.packets.clear();
        self.outstanding = 0;
        self.after_acked = false;
    }

    pub(super) fn len(&self) -> usize {
        self.packets.len()
    }

    /// Entries that cannot be evicted without telling the connection.
    pub(super) fn in_flight_entries(&self) -> usize {
        usize::from(self.outstanding)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &SentPacket<T>> {
        self.packets.iter()
    }

    /// Adds `packet`, in place of the longest-lost one if need be. Leaves `reserve` entries free for others.
    pub(super) fn push(&mut self, mut packet: SentPacket<T>, reserve: usize) -> bool {
        if self.in_flight_entries() + reserve >= N {
            return false;
        }
        if self.packets.is_full() {
            self.evict_first(|packet| !packet.is_held());
        }
        if self.after_acked {
            packet.flags |= AFTER_ACKED;
        }
        let held = packet.is_held();
        let stored = self.packets.push(packet).is_ok();
        if stored {
            self.after_acked = false;
            self.outstanding += u16::from(held);
        }
        stored
    }

    /// Marks what `ranges` (descending) acknowledge in `space`, where `sent` is the largest number sent.
    pub(super) fn mark_acked(
        &mut self,
        now: Instant,
        space: Space,
        sent: u64,
        ranges: impl Iterator<Item = RangeInclusive<u64>>,
    ) -> Marked {
        let mut marked = Marked::default();
        let mut packets = self.packets.iter_mut().rev().filter(|packet| packet.space == space).peekable();
        for range in ranges {
            while packets.next_if(|packet| packet.packet_number(sent) > *range.end()).is_some() {}
            while let Some(packet) = packets.next_if(|packet| packet.packet_number(sent) >= *range.start()) {
                let number = packet.packet_number(sent);
                self.outstanding -= u16::from(packet.is_held());
                packet.flags |= ACKED;
                marked.count += 1;
                marked.largest = marked.largest.max(Some(number));
                if packet.has(LOST | OLD_PATH) {
                    continue;
                }
                marked.ack_eliciting += u16::from(packet.is_ack_eliciting());
                if marked.largest == Some(number) {
                    marked.largest_sent_at = Some(packet.sent_at(now));
                }
            }
            if packets.peek().is_none() {
                break;
            }
        }
        marked
    }

    /// Removes what is marked, oldest first.
    pub(super) fn remove_acked(&mut self, mut acked: impl FnMut(&mut SentPacket<T>)) {
        self.remove(|packet| {
            if packet.has(ACKED) {
                acked(packet);
                return Removal::Acked;
            }
            Removal::Keep
        });
    }

    /// Forgets the lost packets that were sent longer than `watched` ago.
    pub(super) fn forget_lost(&mut self, now: Instant, watched: Duration) {
        if self.packets.first().is_some_and(|packet| packet.age(now) > watched) {
            self.remove(|packet| {
                let forget = packet.has(LOST) && !packet.has(ACKED) && packet.age(now) > watched;
                if forget { Removal::Silent } else { Removal::Keep }
            });
        }
    }

    pub(super) fn drop_space(&mut self, space: Space, mut dropped: impl FnMut(&mut SentPacket<T>)) {
        let mut outstanding = self.outstanding;
        self.remove(|packet| {
            if packet.space != space {
                return Removal::Keep;
            }
            outstanding -= u16::from(packet.is_held());
            dropped(packet);
            Removal::Silent
        });
        self.outstanding = outstanding;
    }

    /// Takes out the oldest outstanding packet, of `space` if it has one.
    pub(super) fn evict_oldest(&mut self, space: Space) -> Option<SentPacket<T>> {
        let evicted = self
            .evict_first(|packet| packet.space == space && packet.is_held())
            .or_else(|| self.evict_first(SentPacket::is_held))?;
        self.outstanding -= 1;
        Some(evicted)
    }

    /// Takes out the packet whose number has this low half if it is in flight, and returns its size.
    pub(super) fn withdraw(&mut self, space: Space, number: u32) -> Option<u16> {
        let wanted = |packet: &SentPacket<T>| packet.number == number && packet.space == space;
        let withdrawn =
            self.evict_first(|packet| wanted(packet) && packet.is_held() && packet.is_in_flight())?;
        self.outstanding -= 1;
        Some(withdrawn.bytes)
    }

    /// The path changed under every packet in the table.
    pub(super) fn leave_path(&mut self) {
        for packet in &mut self.packets {
            packet.flags = (packet.flags | OLD_PATH) & !IN_FLIGHT;
        }
    }

    /// Declares lost what is outstanding in `space` up to `largest_acked` and `lost` says so; `sent` is the largest
    /// number sent.
    pub(super) fn declare_lost(
        &mut self,
        space: Space,
        sent: u64,
        largest_acked: u64,
        mut lost: impl FnMut(&mut SentPacket<T>) -> bool,
    ) {
        let packets = self.packets.iter_mut().filter(|packet| packet.is_outstanding(space));
        for packet in packets.take_while(|packet| packet.packet_number(sent) <= largest_acked) {
            let held = packet.is_held();
            if lost(packet) {
                packet.flags = (packet.flags | LOST) & !IN_FLIGHT;
                self.outstanding -= u16::from(held);
            }
        }
    }

    /// Whether losses after `since` span `duration` with nothing acknowledged in between (RFC 9002 7.6.2).
    ///
    /// Returns when the last packet of the span was sent.
    pub(super) fn persistent_loss(
        &self,
        now: Instant,
        since: Instant,
        duration: Duration,
    ) -> Option<Instant> {
        let mut start = None;
        let mut persistent = None;
        for packet in &self.packets {
            if packet.has(AFTER_ACKED | ACKED) {
                start = None;
            }
            let sent = packet.sent_at(now);
            if packet.has(ACKED) || !packet.has(LOST) || !packet.has(ACK_ELICITING) || sent <= since {
                continue;
            }
            let start = *start.get_or_insert(sent);
            if sent.saturating_since(start) > duration {
                persistent = Some(sent);
            }
        }
        persistent
    }

    fn evict_first(&mut self, which: impl Fn(&SentPacket<T>) -> bool) -> Option<SentPacket<T>> {
        let index = self.packets.iter().position(which)?;
        let evicted = self.packets.remove(index);
        if evicted.has(AFTER_ACKED) {
            match self.packets.get_mut(index) {
                Some(next) => next.flags |= AFTER_ACKED,
                None => self.after_acked = true,
            }
        }
        Some(evicted)
    }

    fn remove(&mut self, mut decide: impl FnMut(&mut SentPacket<T>) -> Removal) {
        let mut after_acked = false;
        self.packets.retain_mut(|packet| {
            if after_acked {
                packet.flags |= AFTER_ACKED;
            }
            let removal = decide(packet);
            after_acked = match removal {
                Removal::Keep => false,
                Removal::Silent => packet.has(AFTER_ACKED),
                Removal::Acked => true,
            };
            matches!(removal, Removal::Keep)
        });
        self.after_acked |= after_acked;
    }
}

enum Removal {
    Keep,
    Silent,
    Acked,
}
