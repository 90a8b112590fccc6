//! What has been received, and when to say so (RFC 9000 13.2).
//!
//! [`Received`] keeps the packet numbers of one space as at most `N` ranges. It answers three questions: is
//! this packet new, what goes into the next ACK frame, and how long may that frame wait.

use core::ops::RangeInclusive;
use heapless::Vec;

use crate::time::{Duration, Instant};

/// Ack-eliciting packets that make an acknowledgement due at once (RFC 9000 13.2.2).
const ACK_EVERY: u8 = 2;

/// Whether a packet number has been seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// Never: process it.
    New,
    /// Before, or so old that it might have been: drop it.
    Duplicate,
}

/// Whether a received packet asks for an acknowledgement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Elicits {
    /// It does.
    Ack,
    /// It carries only ACK, PADDING or CONNECTION_CLOSE.
    Nothing,
}

/// Received packet numbers of one space and the acknowledgement they call for.
#[derive(Clone, Debug)]
pub struct Received<const N: usize> {
    /// Disjoint, not adjacent, the largest first; the low halves of first and last number. All lie within 2^32 of
    /// `largest`: a range that falls behind further, since the sender skipped numbers, is given up.
    ranges: Vec<(u32, u32), N>,
    /// The largest number received, if there is a range.
    largest: u64,
    /// Packet numbers below are taken for duplicates: their range has been pruned.
    floor: u64,
    largest_received_at: Instant,
    largest_eliciting: Option<u64>,
    unacknowledged: u8,
    deadline: Option<Instant>,
}

impl<const N: usize> Default for Received<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Received<N> {
    /// Nothing received.
    pub const fn new() -> Self {
        const { assert!(N >= 2, "a gap needs a range on either side") };
        Self {
            ranges: Vec::new(),
            largest: 0,
            floor: 0,
            largest_received_at: Instant::ZERO,
            largest_eliciting: None,
            unacknowledged: 0,
            deadline: None,
        }
    }

    /// Whether `packet_number` is new. Asked before the packet's frames are processed.
    pub fn check(&self, packet_number: u64) -> Seen {
        let known = self.iter().find(|&(start, _)| start <= packet_number);
        match known {
            Some((_, end)) if packet_number <= end => Seen::Duplicate,
            _ if packet_number < self.floor => Seen::Duplicate,
            _ => Seen::New,
        }
    }

    /// The largest packet number received: truncated packet numbers are decoded against it.
    pub fn largest(&self) -> Option<u64> {
        (!self.ranges.is_empty()).then_some(self.largest)
    }

    fn iter(&self) -> impl ExactSizeIterator<Item = (u64, u64)> + Clone + '_ {
        self.ranges.iter().map(|&(start, end)| (self.whole(start), self.whole(end)))
    }

    /// The number with this low half.
    const fn whole(&self, low: u32) -> u64 {
        self.largest.saturating_sub((self.largest as u32).wrapping_sub(low) as u64)
    }

    /// Records a packet whose frames have been processed.
    ///
    /// `max_ack_delay` is how long its acknowledgement may wait; zero in the Initial and Handshake spaces
    /// (RFC 9000 13.2.1).
    pub fn on_received(
        &mut self,
        now: Instant,
        packet_number: u64,
        elicits: Elicits,
        max_ack_delay: Duration,
    ) {
        if self.check(packet_number) == Seen::Duplicate {
            return;
        }
        let previous_largest = self.largest();
        if previous_largest.is_none_or(|largest| packet_number > largest) {
            while let Some(&(start, _)) = self.ranges.last()
                && packet_number - self.whole(start) > u32::MAX.into()
            {
                self.drop_lowest();
            }
            self.largest_received_at = now;
            self.largest = packet_number;
        }
        self.insert(packet_number);
        if elicits == Elicits::Nothing {
            return;
        }
        self.unacknowledged = self.unacknowledged.saturating_add(1);
        // Out of order, or the first after a gap: the peer's loss detection waits for the news.
        let out_of_order = self.largest_eliciting.is_some_and(|largest| packet_number < largest)
            || previous_largest.is_some_and(|largest| packet_number > largest + 1);
        self.largest_eliciting = self.largest_eliciting.max(Some(packet_number));
        let due = if out_of_order || self.unacknowledged >= ACK_EVERY { now } else { now + max_ack_delay };
        self.deadline = Some(self.deadline.map_or(due, |deadline| deadline.min(due)));
    }

    /// When an acknowledgement must be sent even if nothing else is.
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether an acknowledgement must be sent now.
    pub fn is_due(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Whether a packet that is sent anyway should carry an acknowledgement.
    pub const fn is_pending(&self) -> bool {
        self.unacknowledged > 0
    }

    /// Asks for an acknowledgement at once, as after a PING that probes the path.
    pub const fn force(&mut self, now: Instant) {
        self.deadline = Some(now);
    }

    /// The ranges of the next ACK frame, the largest first. Empty if nothing was received.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = RangeInclusive<u64>> + Clone + '_ {
        self.iter().map(|(start, end)| start..=end)
    }

    /// How long the acknowledgement of the largest packet number has waited (RFC 9000 13.2.5).
    pub const fn delay(&self, now: Instant) -> Duration {
        now.saturating_since(self.largest_received_at)
    }

    /// An ACK frame with all ranges left.
    pub const fn on_ack_sent(&mut self) {
        self.unacknowledged = 0;
        self.deadline = None;
    }

    /// The peer has acknowledged an ACK frame whose largest packet number was `largest`: what that frame
    /// said need not be said again (RFC 9000 13.2.4).
    pub fn on_ack_acknowledged(&mut self, largest: u64) {
        // The largest range stays, however old: an ACK frame must name at least one.
        while let Some(&(_, end)) = self.ranges.last() {
            if self.whole(end) > largest || self.ranges.len() == 1 {
                break;
            }
            self.drop_lowest();
        }
        let Some(&(start, end)) = self.ranges.last() else { return };
        if self.whole(start) <= largest {
            let start = largest.min(self.whole(end));
            self.floor = self.floor.max(start);
            if let Some(lowest) = self.ranges.last_mut() {
                lowest.0 = start as u32;
            }
        }
    }

    fn insert(&mut self, number: u64) {
        let low = number as u32;
        let index = self.iter().position(|(start, _)| start <= number + 1).unwrap_or(self.ranges.len());
        let (touches_upper, touches_lower) = self.iter().nth(index).map_or((false, false), |(start, end)| {
            debug_assert!(number > end || start == number + 1);
            (start == number + 1, end + 1 == number)
        });
        if touches_upper {
            self.ranges[index].0 = low;
            if let Some(&(start, end)) = self.ranges.get(index + 1)
                && end.wrapping_add(1) == low
            {
                self.ranges[index].0 = start;
                self.ranges.remove(index + 1);
            }
        } else if touches_lower {
            self.ranges[index].1 = low;
        } else {
            if self.ranges.is_full() {
                if index == self.ranges.len() {
                    // Below all ranges kept, yet above the floor: acknowledged never, so never processed
                    // again either.
                    self.floor = self.floor.max(number + 1);
                    return;
                }
                self.drop_lowest();
            }
            let _ = self.ranges.insert(index, (low, low));
        }
    }

    fn drop_lowest(&mut self) {
        if let Some((_, end)) = self.ranges.pop() {
            self.floor = self.floor.max(self.whole(end) + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    const DELAY: Duration = Duration::from_millis(25);

    fn at_ms(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    fn received(numbers: &[u64]) -> Received<4> {
        let mut received = Received::new();
        for &number in numbers {
            received.on_received(Instant::ZERO, number, Elicits::Ack, DELAY);
        }
        received
    }

    #[test]
    fn ranges_that_skipped_numbers_leave_far_behind_are_given_up() {
        // As far as four bytes of packet number can jump.
        const JUMP: u64 = 1 << 31;
        let far = received(&[0, JUMP, 2 * JUMP]);
        assert!(far.ranges().eq([2 * JUMP..=2 * JUMP, JUMP..=JUMP]));
        assert_eq!(far.check(0), Seen::Duplicate);
        assert_eq!(far.check(1), Seen::New);
        let numbers: Vec<u64> = (0..100).map(|step| step * (JUMP - 3)).collect();
        for count in 1..=numbers.len() {
            let ranges: Vec<_> = received(&numbers[..count]).ranges().collect();
            assert!(ranges.iter().all(|range| numbers.contains(range.start())), "{ranges:?}");
            assert!(ranges.windows(2).all(|pair| pair[0].start() > pair[1].end()), "{ranges:?}");
            assert_eq!(ranges.first().map(RangeInclusive::end), numbers[..count].last());
        }
        // All at once, from one range to the next.
        let further = received(&[5, 5 + (1 << 40)]);
        assert!(further.ranges().eq([5 + (1 << 40)..=5 + (1 << 40)]));
    }

    #[test]
    fn one_packet_is_acknowledged_after_the_delay() {
        let received = received(&[0]);
        assert!(received.is_pending());
        assert!(!received.is_due(at_ms(24)));
        assert!(received.is_due(at_ms(25)));
        assert_eq!(received.poll_timeout(), Some(at_ms(25)));
    }

    #[test]
    fn the_second_packet_is_acknowledged_at_once() {
        assert!(received(&[0, 1]).is_due(Instant::ZERO));
    }

    #[test]
    fn a_gap_and_what_fills_it_are_acknowledged_at_once() {
        let mut received = received(&[0]);
        received.on_ack_sent();
        received.on_received(at_ms(1), 2, Elicits::Ack, DELAY);
        assert!(received.is_due(at_ms(1)));
        received.on_ack_sent();
        received.on_received(at_ms(2), 1, Elicits::Ack, DELAY);
        assert!(received.is_due(at_ms(2)));
    }

    #[test]
    fn packets_that_ask_for_nothing_are_acknowledged_only_along_the_way() {
        let mut received = received(&[]);
        received.on_received(Instant::ZERO, 0, Elicits::Nothing, DELAY);
        assert!(!received.is_pending());
        assert_eq!(received.poll_timeout(), None);
        received.on_received(Instant::ZERO, 1, Elicits::Ack, DELAY);
        assert!(received.ranges().eq([0..=1]));
    }

    #[test]
    fn handshake_packets_are_acknowledged_without_delay() {
        let mut received = Received::<4>::new();
        received.on_received(at_ms(3), 0, Elicits::Ack, Duration::ZERO);
        assert!(received.is_due(at_ms(3)));
    }

    #[test]
    fn the_reported_delay_is_that_of_the_largest_packet() {
        let mut received = Received::<4>::new();
        received.on_received(at_ms(10), 5, Elicits::Ack, DELAY);
        received.on_received(at_ms(14), 3, Elicits::Ack, DELAY);
        assert_eq!(received.delay(at_ms(20)), Duration::from_millis(10));
    }

    #[test]
    fn when_ranges_run_out_the_oldest_is_forgotten_and_stays_a_duplicate() {
        let received = received(&[0, 2, 4, 6, 8]);
        assert!(received.ranges().eq([8..=8, 6..=6, 4..=4, 2..=2]));
        assert_eq!(received.check(0), Seen::Duplicate);
        assert_eq!(received.check(1), Seen::New);
    }

    #[test]
    fn an_acknowledged_acknowledgement_is_not_repeated() {
        let mut received = received(&[0, 1, 2, 5, 6, 9]);
        received.on_ack_acknowledged(6);
        assert!(received.ranges().eq([9..=9]));
        for number in 0..7 {
            assert_eq!(received.check(number), Seen::Duplicate, "{number}");
        }
        assert_eq!(received.check(7), Seen::New);
        received.on_ack_acknowledged(9);
        assert!(received.ranges().eq([9..=9]));
    }

    /// By how much the numbers that come move on: mostly not, seldom as far as four bytes can say, or to where the low
    /// halves of old and new numbers meet again.
    fn jump() -> impl Strategy<Value = u64> {
        prop_oneof![
            12 => Just(0),
            2 => 1_u64..200,
            1 => (1_u64 << 31) - 80..=1 << 31,
            1 => (1_u64 << 32) - 80..(1 << 32) + 80,
        ]
    }

    proptest! {
        #[test]
        fn a_packet_is_new_at_most_once_and_ranges_name_only_what_came(
            operations in proptest::collection::vec((0_u64..80, 0_u8..12, jump()), 0..200),
        ) {
            let mut received = Received::<4>::new();
            let mut model = BTreeSet::new();
            let mut base = 0;
            for (offset, choice, jump) in operations {
                base += jump;
                let number = base + offset;
                if choice == 0 {
                    received.on_ack_acknowledged(number.min(received.largest().unwrap_or(0)));
                } else {
                    if received.check(number) == Seen::New {
                        prop_assert!(model.insert(number), "{} was new twice", number);
                    }
                    received.on_received(Instant::ZERO, number, Elicits::Ack, DELAY);
                    prop_assert_eq!(received.check(number), Seen::Duplicate);
                }
                let ranges: Vec<_> = received.ranges().collect();
                prop_assert!(ranges.len() <= 4);
                prop_assert!(ranges.windows(2).all(|pair| pair[1].end() + 1 < *pair[0].start()));
                let named: u64 = ranges.iter().map(|range| range.end() - range.start() + 1).sum();
                let known: usize = ranges.iter().map(|range| model.range(range.clone()).count()).sum();
                prop_assert_eq!(named, known as u64, "{:?}", ranges);
                prop_assert_eq!(received.largest(), model.last().copied());
            }
        }
    }
}
