//! ACK (RFC 9000 19.3).
//!
//! ```text
//! type 0x02 or 0x03 | largest acknowledged | ack delay | range count | first range
//! | { gap | range length } * count | [ ECT0, ECT1, CE counts if 0x03 ]
//! ```

use core::ops::RangeInclusive;

use crate::codec::{DecodeError, NoSpace, Reader, Writer};

use super::kind;

/// Which packets arrived, and how long the acknowledgement waited.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ack<'a> {
    /// The largest packet number acknowledged.
    pub largest: u64,
    /// The delay as encoded: to be scaled by `ack_delay_exponent`.
    pub delay: u64,
    /// The packets acknowledged.
    pub ranges: AckRanges<'a>,
}

/// The ranges of an ACK that has been checked, in descending order.
#[derive(Clone, Debug)]
pub struct AckRanges<'a> {
    next: Option<RangeInclusive<u64>>,
    left: u64,
    rest: Reader<'a>,
}

impl PartialEq for AckRanges<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.clone().eq(other.clone())
    }
}

impl Eq for AckRanges<'_> {}

impl<'a> Ack<'a> {
    pub(super) fn decode(frame: u64, r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let largest = r.varint("ack.largest_acknowledged")?;
        let delay = r.varint("ack.ack_delay")?;
        let count = r.varint("ack.range_count")?;
        let first = r.varint("ack.first_range")?;
        let smallest = largest.checked_sub(first).ok_or(DecodeError { field: "ack.first_range" })?;
        let ranges = AckRanges { next: Some(smallest..=largest), left: count, rest: r.clone() };
        let mut smallest = smallest;
        for _ in 0..count {
            smallest = *next_range(smallest, r)?.start();
        }
        if frame == kind::ACK_ECN {
            r.varint("ack.ect0_count")?;
            r.varint("ack.ect1_count")?;
            r.varint("ack.ce_count")?;
        }
        Ok(Self { largest, delay, ranges })
    }

    /// Writes an ACK of `ranges`, which are descending, disjoint and not adjacent; of ranges that do
    /// not fit the oldest are left out.
    ///
    /// # Errors
    /// [`NoSpace`] if not even the newest range fits.
    #[expect(clippy::indexing_slicing, reason = "the count was written there")]
    pub fn encode(
        delay: u64,
        mut ranges: impl Iterator<Item = RangeInclusive<u64>>,
        w: &mut Writer<'_>,
    ) -> Result<(), NoSpace> {
        let Some(first) = ranges.next() else { return Ok(()) };
        let start = w.len();
        let mut head = || -> Result<usize, NoSpace> {
            w.varint(kind::ACK)?;
            w.varint(*first.end())?;
            w.varint(delay)?;
            let count_at = w.len();
            w.u8(0)?;
            w.varint(first.end() - first.start())?;
            Ok(count_at)
        };
        let count_at = match head() {
            Ok(at) => at,
            Err(error) => {
                w.truncate(start);
                return Err(error);
            }
        };
        let mut smallest = *first.start();
        // One byte holds the count: the varint form of 0 to 63.
        let mut count = 0_u8;
        for range in ranges.take(63) {
            let before = w.len();
            let gap = smallest - range.end() - 2;
            if w.varint(gap).and_then(|()| w.varint(range.end() - range.start())).is_err() {
                w.truncate(before);
                break;
            }
            smallest = *range.start();
            count += 1;
        }
        w.written_mut()[count_at] = count;
        Ok(())
    }
}

impl Iterator for AckRanges<'_> {
    type Item = RangeInclusive<u64>;

    fn next(&mut self) -> Option<Self::Item> {
        let range = self.next.take()?;
        if self.left > 0 {
            self.left -= 1;
            self.next = next_range(*range.start(), &mut self.rest).ok();
        }
        Some(range)
    }
}

/// The range below the one that starts at `smallest`.
fn next_range(smallest: u64, r: &mut Reader<'_>) -> Result<RangeInclusive<u64>, DecodeError> {
    let gap = r.varint("ack.gap")?;
    let length = r.varint("ack.range_length")?;
    let end = smallest.checked_sub(gap + 2).ok_or(DecodeError { field: "ack.gap" })?;
    let start = end.checked_sub(length).ok_or(DecodeError { field: "ack.range_length" })?;
    Ok(start..=end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quic::error::TransportError;
    use crate::quic::frame::Frame;

    fn decode(bytes: &[u8]) -> Result<Ack<'_>, TransportError> {
        let mut reader = Reader::new(bytes);
        match Frame::decode(&mut reader)? {
            (_, Frame::Ack(ack)) => {
                assert!(reader.is_empty());
                Ok(ack)
            }
            other => panic!("not an ACK: {other:?}"),
        }
    }

    #[test]
    fn ranges_round_trip_in_descending_order() {
        let ranges = [90..=100, 50..=88, 3..=3, 0..=1];
        let mut bytes = [0; 64];
        let mut writer = Writer::new(&mut bytes);
        Ack::encode(17, ranges.iter().cloned(), &mut writer).expect("fits");
        let ack = decode(writer.written()).expect("own encoding");
        assert_eq!((ack.largest, ack.delay), (100, 17));
        assert!(ack.ranges.eq(ranges));
    }

    #[test]
    fn ranges_that_do_not_fit_are_left_out() {
        let mut bytes = [0; 7];
        let mut writer = Writer::new(&mut bytes);
        Ack::encode(0, [20..=20, 10..=10, 0..=0].into_iter(), &mut writer).expect("two fit");
        assert!(decode(writer.written()).expect("valid").ranges.eq([20..=20, 10..=10]));
    }

    #[test]
    fn ecn_counts_are_read_and_ignored() {
        let ack = decode(&[0x03, 5, 0, 0, 1, 7, 8, 9]).expect("valid");
        assert!(ack.ranges.eq([4..=5]));
    }

    #[test]
    fn ranges_below_zero_are_refused() {
        assert_eq!(decode(&[0x02, 5, 0, 0, 6]).unwrap_err().reason, "ack.first_range");
        assert_eq!(decode(&[0x02, 5, 0, 1, 0, 4, 0]).unwrap_err().reason, "ack.gap");
        assert_eq!(decode(&[0x02, 5, 0, 1, 0, 0, 4]).unwrap_err().reason, "ack.range_length");
    }

    #[test]
    fn a_giant_range_count_ends_with_the_packet() {
        let bytes = [0x02, 5, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0];
        assert_eq!(decode(&bytes).unwrap_err().reason, "ack.gap");
    }
}
