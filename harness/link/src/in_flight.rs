//! Packets on their way, by due time.

use core::cmp::Ordering;
use core::time::Duration;
use std::collections::BinaryHeap;

/// Packets on their way. Those due at the same moment come out in the order they went in.
#[derive(Clone, Debug)]
pub struct InFlight<P> {
    heap: BinaryHeap<Entry<P>>,
    sequence: u64,
}

#[derive(Clone, Debug)]
struct Entry<P> {
    at: Duration,
    sequence: u64,
    packet: P,
}

impl<P> Default for InFlight<P> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), sequence: 0 }
    }
}

impl<P> InFlight<P> {
    /// Nothing on its way.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps `packet` until `at`.
    pub fn push(&mut self, at: Duration, packet: P) {
        self.heap.push(Entry { at, sequence: self.sequence, packet });
        self.sequence += 1;
    }

    /// When the next packet is due.
    #[must_use]
    pub fn next_at(&self) -> Option<Duration> {
        self.heap.peek().map(|entry| entry.at)
    }

    /// The next packet that is due, and when it was.
    pub fn pop_due(&mut self, now: Duration) -> Option<(Duration, P)> {
        if self.next_at()? > now {
            return None;
        }
        self.heap.pop().map(|entry| (entry.at, entry.packet))
    }

    /// How many packets are on their way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether no packet is on its way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.heap.clear();
    }
}

// The earliest entry is the greatest: `BinaryHeap` pops the greatest first.
impl<P> Ord for Entry<P> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl<P> PartialOrd for Entry<P> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<P> PartialEq for Entry<P> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<P> Eq for Entry<P> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_out_by_time_then_by_arrival() {
        let mut in_flight = InFlight::new();
        for (at, packet) in [(5, 'd'), (1, 'a'), (1, 'b'), (3, 'c')] {
            in_flight.push(Duration::from_millis(at), packet);
        }
        let due = |in_flight: &mut InFlight<char>, at| in_flight.pop_due(Duration::from_millis(at));
        assert_eq!(due(&mut in_flight, 0), None);
        assert_eq!(due(&mut in_flight, 9).unwrap().1, 'a');
        assert_eq!(due(&mut in_flight, 9).unwrap().1, 'b');
        assert_eq!(due(&mut in_flight, 4).unwrap().1, 'c');
        assert_eq!(due(&mut in_flight, 4), None);
        assert_eq!(in_flight.next_at(), Some(Duration::from_millis(5)));
    }
}
