//! A bounded set of ranges in a buffer.

use core::ops::Range;
use heapless::Vec;

/// Ranges that a set tells apart. A two-kilobyte window is two full packets or a handful of small ones; one number for all
/// sets, so that there is one copy of the code.
pub const RANGES: usize = 8;

/// The set would need more ranges than it can hold; it is unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// Disjoint, non-adjacent half-open ranges of positions in a buffer of less than 64 KiB, ascending; at most `K`.
#[derive(Clone, Debug, Default)]
pub struct RangeSet<const K: usize = RANGES> {
    ranges: Vec<Range<u16>, K, u8>,
}

impl<const K: usize> RangeSet<K> {
    /// The empty set.
    pub const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        self.ranges.clear();
    }

    /// The lowest range.
    pub fn first(&self) -> Option<Range<u16>> {
        self.ranges.first().cloned()
    }

    /// All ranges, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Range<u16>> + '_ {
        self.ranges.iter().cloned()
    }

    /// Adds `range`, joined with what it overlaps or touches.
    ///
    /// # Errors
    /// [`Full`] if that takes one range more than there is room for.
    pub fn insert(&mut self, range: Range<u16>) -> Result<(), Full> {
        if range.is_empty() {
            return Ok(());
        }
        let first =
            self.ranges.iter().position(|known| known.end >= range.start).unwrap_or(self.ranges.len());
        let touched = self.ranges[first..].iter().take_while(|known| known.start <= range.end).count();
        if touched == 0 {
            return self.ranges.insert(first, range).map_err(|_| Full);
        }
        let end = range.end.max(self.ranges[first + touched - 1].end);
        let joined = &mut self.ranges[first];
        joined.start = joined.start.min(range.start);
        joined.end = end;
        for _ in 1..touched {
            self.ranges.remove(first + 1);
        }
        Ok(())
    }

    /// Adds `range`; with no room for it, first closes the narrowest gap in the set.
    ///
    /// Where more in the set than necessary does no harm (data to be sent again), this never fails.
    pub fn insert_coarsely(&mut self, range: Range<u16>) {
        const { assert!(K >= 1, "a coarse set needs one range") };
        if self.insert(range.clone()).is_ok() {
            return;
        }
        let gaps = self.ranges.windows(2).map(|pair| pair[1].start - pair[0].end);
        let narrowest = gaps.enumerate().min_by_key(|&(_, gap)| gap);
        let distance = |known: &Range<u16>| {
            if known.start > range.end { known.start - range.end } else { range.start - known.end }
        };
        let nearest = self.ranges.iter().map(distance).enumerate().min_by_key(|&(_, gap)| gap);
        match (narrowest, nearest) {
            (Some((index, gap)), Some((_, distance))) if gap < distance => {
                let end = self.ranges.remove(index + 1).end;
                self.ranges[index].end = end;
                let inserted = self.insert(range);
                debug_assert!(inserted.is_ok(), "a range was freed");
            }
            (_, Some((index, _))) => {
                // Stretched up to its neighbour, the range joins it and whatever lies between.
                let known = self.ranges[index].clone();
                let joined = self.insert(known.start.min(range.start)..known.end.max(range.end));
                debug_assert!(joined.is_ok(), "joining needs no room");
            }
            _ => {}
        }
    }

    /// Removes `range` where that needs no further room: a hole in the middle of a range of a full set stays
    /// filled.
    pub fn remove(&mut self, range: Range<u16>) {
        if range.is_empty() {
            return;
        }
        let mut index = 0;
        while index < self.ranges.len() {
            let known = self.ranges[index].clone();
            if known.start >= range.end {
                return;
            }
            if known.end <= range.start {
                index += 1;
                continue;
            }
            match (known.start < range.start, known.end > range.end) {
                (false, false) => {
                    self.ranges.remove(index);
                }
                (true, false) => {
                    self.ranges[index].end = range.start;
                    index += 1;
                }
                (false, true) => {
                    self.ranges[index].start = range.end;
                    return;
                }
                (true, true) => {
                    if self.ranges.insert(index + 1, range.end..known.end).is_ok() {
                        self.ranges[index].end = range.start;
                    }
                    return;
                }
            }
        }
    }

    /// Takes up to `len` bytes off the lowest range.
    pub fn take_first(&mut self, len: u16) -> Option<Range<u16>> {
        let first = self.ranges.first_mut()?;
        let taken = first.start..first.end.min(first.start.saturating_add(len));
        if taken.is_empty() {
            return None;
        }
        first.start = taken.end;
        if first.start == first.end {
            self.ranges.remove(0);
        }
        Some(taken)
    }

    /// Drops the first `len` positions; the others move down by as much.
    pub fn advance(&mut self, len: u16) {
        self.ranges.retain_mut(|range| {
            *range = range.start.saturating_sub(len)..range.end.saturating_sub(len);
            range.start < range.end
        });
    }

    /// Calls `f` with the parts of `range` that are not in the set.
    pub fn for_each_gap(&self, range: Range<u16>, mut f: impl FnMut(Range<u16>)) {
        let mut start = range.start;
        for known in &self.ranges {
            if known.start >= range.end {
                break;
            }
            if known.start > start {
                f(start..known.start);
            }
            start = start.max(known.end);
        }
        if start < range.end {
            f(start..range.end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn members<const K: usize>(set: &RangeSet<K>) -> [bool; 64] {
        let mut members = [false; 64];
        for range in set.iter() {
            for offset in range {
                members[offset as usize] = true;
            }
        }
        members
    }

    fn check_form<const K: usize>(set: &RangeSet<K>) {
        let mut previous = None;
        for range in set.iter() {
            assert!(!range.is_empty());
            assert!(previous.is_none_or(|end| end < range.start), "{set:?}");
            previous = Some(range.end);
        }
    }

    proptest! {
        #[test]
        fn a_large_set_is_exact(operations in proptest::collection::vec((any::<bool>(), 0_u16..56, 0_u16..8), 0..60)) {
            let mut set = RangeSet::<40>::new();
            let mut model = [false; 64];
            for (insert, start, len) in operations {
                if insert {
                    set.insert(start..start + len).unwrap();
                } else {
                    set.remove(start..start + len);
                }
                model[start as usize..(start + len).min(64) as usize].fill(insert);
                check_form(&set);
            }
            prop_assert_eq!(members(&set), model);
        }

        #[test]
        fn a_coarse_set_holds_at_least_what_was_put_in(inserts in proptest::collection::vec((0_u16..56, 1_u16..8), 0..30)) {
            let mut set = RangeSet::<3>::new();
            for (start, len) in inserts {
                set.insert_coarsely(start..start + len);
                check_form(&set);
                let members = members(&set);
                prop_assert!((start..start + len).all(|offset| members[offset as usize]));
            }
        }

        #[test]
        fn gaps_and_ranges_make_up_the_whole(inserts in proptest::collection::vec((0_u16..56, 1_u16..8), 0..30), start in 0_u16..40, len in 0_u16..24) {
            let mut set = RangeSet::<40>::new();
            for (start, len) in inserts {
                set.insert(start..start + len).unwrap();
            }
            let members = members(&set);
            let mut gaps = [false; 64];
            set.for_each_gap(start..start + len, |gap| gaps[gap.start as usize..gap.end as usize].fill(true));
            for offset in 0..64 {
                let inside = (start..start + len).contains(&(offset as u16));
                prop_assert_eq!(gaps[offset], inside && !members[offset]);
            }
        }
    }

    #[test]
    fn what_lies_before_the_new_start_is_dropped() {
        let mut set = RangeSet::<3>::new();
        for range in [0..2, 4..8, 10..11] {
            set.insert(range).unwrap();
        }
        set.advance(5);
        assert!(set.iter().eq([0..3, 5..6]));
    }

    #[test]
    fn a_full_set_refuses_and_stays_as_it_was() {
        let mut set = RangeSet::<2>::new();
        set.insert(0..1).unwrap();
        set.insert(4..5).unwrap();
        assert_eq!(set.insert(8..9), Err(Full));
        assert!(set.iter().eq([0..1, 4..5]));
        set.insert(1..4).unwrap();
        assert_eq!(set.first(), Some(0..5));
        assert_eq!(set.iter().count(), 1);
    }
}
