//! Variable byte integers (MQTT 5.0 1.5.5): seven bits a byte, least significant first, at most four.

use crate::codec::{NoSpace, Reader, Writer};
use crate::mqtt::Error;

/// The largest value.
pub(crate) const MAX: u32 = 268_435_455;

/// Encoded size of `value` in bytes.
pub(crate) const fn len(value: usize) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

/// Writes `value` in its shortest form.
#[expect(clippy::indexing_slicing, reason = "a length has one to four bytes")]
pub(crate) fn encode(w: &mut Writer<'_>, value: u32) -> Result<(), NoSpace> {
    if value > MAX {
        return Err(NoSpace);
    }
    let mut bytes = [0; 4];
    let count = len(value as usize);
    let mut rest = value;
    for byte in &mut bytes[..count] {
        *byte = (rest & 0x7f) as u8 | 0x80;
        rest >>= 7;
    }
    bytes[count - 1] &= 0x7f;
    w.put(&bytes[..count])
}

/// What the start of a stream says about an integer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Peek {
    /// Its value and its size in bytes.
    Value(u32, usize),
    /// More bytes are needed.
    Incomplete,
    /// More than four bytes, or not the shortest form.
    Invalid,
}

/// Reads an integer from the start of `bytes`, which may end within it.
pub(crate) fn peek(bytes: &[u8]) -> Peek {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            // The encoding MUST be the shortest (MQTT-1.5.5-1).
            let is_shortest = index == 0 || byte != 0;
            return if is_shortest { Peek::Value(value, index + 1) } else { Peek::Invalid };
        }
    }
    if bytes.len() < 4 { Peek::Incomplete } else { Peek::Invalid }
}

/// Reads an integer.
pub(crate) fn decode(r: &mut Reader<'_>, field: &'static str) -> Result<u32, Error> {
    match peek(r.rest()) {
        Peek::Value(value, count) => {
            r.take(count, field)?;
            Ok(value)
        }
        Peek::Incomplete | Peek::Invalid => Err(Error::malformed(field)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The boundaries of table 1-1.
    const BOUNDARIES: [(u32, &[u8]); 8] = [
        (0, &[0x00]),
        (127, &[0x7f]),
        (128, &[0x80, 0x01]),
        (16_383, &[0xff, 0x7f]),
        (16_384, &[0x80, 0x80, 0x01]),
        (2_097_151, &[0xff, 0xff, 0x7f]),
        (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
        (MAX, &[0xff, 0xff, 0xff, 0x7f]),
    ];

    #[test]
    fn boundaries_of_table_1_1_round_trip() {
        for (value, bytes) in BOUNDARIES {
            let mut out = [0; 4];
            let mut w = Writer::new(&mut out);
            encode(&mut w, value).expect("four bytes hold any");
            assert_eq!(w.written(), bytes);
            assert_eq!(len(value as usize), bytes.len());
            assert_eq!(decode(&mut Reader::new(bytes), "value"), Ok(value));
            assert_eq!(peek(&bytes[..bytes.len() - 1]), Peek::Incomplete);
        }
    }

    #[test]
    fn longer_forms_and_a_fifth_byte_are_refused() {
        for bytes in [&[0x80, 0x00][..], &[0xff, 0x80, 0x00], &[0x80, 0x80, 0x80, 0x80, 0x01]] {
            assert_eq!(peek(bytes), Peek::Invalid, "{bytes:?}");
        }
    }

    #[test]
    fn a_value_too_large_is_not_written() {
        let mut out = [0; 8];
        assert_eq!(encode(&mut Writer::new(&mut out), MAX + 1), Err(NoSpace));
    }
}
