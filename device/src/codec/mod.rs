//! Bytes in wire order: a reader that borrows and a writer that fits or leaves nothing behind.
//!
//! Everything above (TLS, QUIC, MQTT, control) reads and writes through these two types, so bounds
//! are checked in one place and every failure names the field it happened in.

mod reader;
mod writer;

pub use reader::Reader;
pub use writer::Writer;

/// A field that could not be read: the input ended, or the value is not allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DecodeError {
    /// The field, as `structure.field`.
    pub field: &'static str,
}

/// The output buffer is too small; nothing was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoSpace;

impl core::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "cannot decode {}", self.field)
    }
}

impl core::error::Error for DecodeError {}

impl core::fmt::Display for NoSpace {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the output buffer is too small")
    }
}

impl core::error::Error for NoSpace {}

/// Largest value a QUIC variable-length integer holds (RFC 9000 16).
pub const VARINT_MAX: u64 = (1 << 62) - 1;

/// Encoded size of `value` as a QUIC variable-length integer, in bytes (RFC 9000 16).
pub const fn varint_len(value: u64) -> usize {
    match value {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        0x4000..=0x3fff_ffff => 4,
        _ => 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_of_rfc_9000_a1_decode() {
        let cases: [(&[u8], u64); 5] = [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
            (&[0x40, 0x25], 37),
        ];
        for (bytes, value) in cases {
            let mut reader = Reader::new(bytes);
            assert_eq!(reader.varint("value"), Ok(value));
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn varints_round_trip_at_each_length_boundary() {
        for value in [0, 63, 64, 16_383, 16_384, (1 << 30) - 1, 1 << 30, VARINT_MAX] {
            let mut bytes = [0; 8];
            let mut writer = Writer::new(&mut bytes);
            writer.varint(value).expect("8 bytes hold any varint");
            assert_eq!(writer.len(), varint_len(value));
            let written = writer.len();
            assert_eq!(Reader::new(&bytes[..written]).varint("value"), Ok(value));
        }
    }

    #[test]
    fn a_truncated_field_is_named() {
        let error = Reader::new(&[0x40]).varint("crypto.offset").unwrap_err();
        assert_eq!(error.field, "crypto.offset");
    }

    #[test]
    fn a_write_that_does_not_fit_leaves_nothing_behind() {
        let mut bytes = [0xaa; 3];
        let mut writer = Writer::new(&mut bytes);
        writer.u16(1).expect("two of three bytes");
        assert_eq!(writer.u32(7), Err(NoSpace));
        assert_eq!(writer.len(), 2);
        assert_eq!(bytes, [0, 1, 0xaa]);
    }
}
