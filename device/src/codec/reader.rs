#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use super::DecodeError;
use crate::redacted::redacted_debug;

/// Reads fields in wire order from borrowed bytes.
///
/// A failed read consumes nothing.
#[derive(Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

redacted_debug! { [] Reader<'_>, "Reader", shown: [position], length: [bytes], hidden: [] }

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// Bytes consumed so far.
    pub const fn position(&self) -> usize {
        self.position
    }

    /// Bytes not yet consumed.
    #[expect(clippy::indexing_slicing, reason = "the position never passes the end")]
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.position..]
    }

    /// How many bytes are not yet consumed.
    pub const fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    /// Whether everything has been consumed.
    pub const fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    /// The next `len` bytes.
    #[expect(clippy::indexing_slicing, reason = "there are as many")]
    pub fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        if len > self.remaining() {
            return Err(DecodeError { field });
        }
        let start = self.position;
        self.position += len;
        Ok(&self.bytes[start..self.position])
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let bytes = self.take(N, field)?;
        bytes.try_into().map_err(|_| DecodeError { field })
    }

    /// One byte.
    pub fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    /// A big-endian 16-bit number.
    pub fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_be_bytes)
    }

    /// A big-endian 24-bit number, as TLS lengths are.
    pub fn u24(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        let [a, b, c] = self.array(field)?;
        Ok(u32::from_be_bytes([0, a, b, c]))
    }

    /// A big-endian 32-bit number.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_be_bytes)
    }

    /// A big-endian 64-bit number.
    pub fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(u64::from_be_bytes)
    }

    /// A QUIC variable-length integer (RFC 9000 16).
    #[expect(clippy::indexing_slicing, reason = "there is at least one byte")]
    pub fn varint(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        let Some(&first) = self.rest().first() else {
            return Err(DecodeError { field });
        };
        let bytes = self.take(1 << (first >> 6), field)?;
        let value =
            bytes[1..].iter().fold(u64::from(first & 0x3f), |value, &byte| value << 8 | u64::from(byte));
        Ok(value)
    }

    /// Bytes behind a one-byte length.
    pub fn vec8(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        self.counted(field, |reader| reader.u8(field).map(usize::from))
    }

    /// Bytes behind a two-byte length.
    pub fn vec16(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        self.counted(field, |reader| reader.u16(field).map(usize::from))
    }

    /// Bytes behind a three-byte length.
    pub fn vec24(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        self.counted(field, |reader| reader.u24(field).map(|len| len as usize))
    }

    /// Bytes behind a variable-length integer.
    pub fn varint_vec(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        self.counted(field, |reader| {
            let len = reader.varint(field)?;
            usize::try_from(len).map_err(|_| DecodeError { field })
        })
    }

    fn counted(
        &mut self,
        field: &'static str,
        len: impl FnOnce(&mut Self) -> Result<usize, DecodeError>,
    ) -> Result<&'a [u8], DecodeError> {
        let mut ahead = self.clone();
        let len = len(&mut ahead)?;
        let bytes = ahead.take(len, field)?;
        *self = ahead;
        Ok(bytes)
    }
}
