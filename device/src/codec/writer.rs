use super::{NoSpace, VARINT_MAX, varint_len};
use crate::redacted::redacted_debug;

/// Writes fields in wire order into a borrowed buffer.
///
/// A write that does not fit changes nothing.
pub struct Writer<'a> {
    bytes: &'a mut [u8],
    len: usize,
}

redacted_debug! { [] Writer<'_>, "Writer", shown: [len], length: [bytes], hidden: [] }

impl<'a> Writer<'a> {
    /// A writer at the start of `bytes`.
    pub const fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, len: 0 }
    }

    /// Bytes written so far.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing has been written.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many more bytes fit.
    pub const fn remaining(&self) -> usize {
        self.bytes.len() - self.len
    }

    /// What has been written.
    pub fn written(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// What has been written, to be patched (lengths, packet protection).
    pub fn written_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }

    /// Takes back everything after the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Copies `bytes`.
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), NoSpace> {
        self.skip(bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    /// Reserves `len` bytes to be filled by the caller; they hold what the buffer held.
    pub fn skip(&mut self, len: usize) -> Result<&mut [u8], NoSpace> {
        if len > self.remaining() {
            return Err(NoSpace);
        }
        let start = self.len;
        self.len += len;
        Ok(&mut self.bytes[start..self.len])
    }

    /// Writes `len` zero bytes.
    pub fn zeros(&mut self, len: usize) -> Result<(), NoSpace> {
        self.skip(len)?.fill(0);
        Ok(())
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> Result<(), NoSpace> {
        self.put(&[value])
    }

    /// A big-endian 16-bit number.
    pub fn u16(&mut self, value: u16) -> Result<(), NoSpace> {
        self.put(&value.to_be_bytes())
    }

    /// The low 24 bits, big-endian.
    pub fn u24(&mut self, value: u32) -> Result<(), NoSpace> {
        self.put(&value.to_be_bytes()[1..])
    }

    /// A big-endian 32-bit number.
    pub fn u32(&mut self, value: u32) -> Result<(), NoSpace> {
        self.put(&value.to_be_bytes())
    }

    /// A big-endian 64-bit number.
    pub fn u64(&mut self, value: u64) -> Result<(), NoSpace> {
        self.put(&value.to_be_bytes())
    }

    /// A QUIC variable-length integer in its shortest form (RFC 9000 16).
    ///
    /// `value` is at most [`VARINT_MAX`]; larger ones are a bug of the caller.
    pub fn varint(&mut self, value: u64) -> Result<(), NoSpace> {
        debug_assert!(value <= VARINT_MAX);
        let len = varint_len(value);
        let mut bytes = value.to_be_bytes();
        let start = bytes.len() - len;
        bytes[start] |= match len {
            1 => 0x00,
            2 => 0x40,
            4 => 0x80,
            _ => 0xc0,
        };
        self.put(&bytes[start..])
    }

    /// Writes what `body` writes behind a two-byte length.
    pub fn vec16<E: From<NoSpace>>(
        &mut self,
        body: impl FnOnce(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.counted::<2, E>(body)
    }

    /// Writes what `body` writes behind a three-byte length.
    pub fn vec24<E: From<NoSpace>>(
        &mut self,
        body: impl FnOnce(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.counted::<3, E>(body)
    }

    /// Writes what `body` writes behind a one-byte length.
    pub fn vec8<E: From<NoSpace>>(&mut self, body: impl FnOnce(&mut Self) -> Result<(), E>) -> Result<(), E> {
        self.counted::<1, E>(body)
    }

    fn counted<const N: usize, E: From<NoSpace>>(
        &mut self,
        body: impl FnOnce(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.len;
        self.skip(N)?;
        let written = body(self).and_then(|()| {
            let len = self.len - start - N;
            let prefix = len.to_be_bytes();
            let (high, low) = prefix.split_at(prefix.len() - N);
            if high.iter().any(|&byte| byte != 0) {
                return Err(NoSpace.into());
            }
            self.bytes[start..start + N].copy_from_slice(low);
            Ok(())
        });
        if written.is_err() {
            self.len = start;
        }
        written
    }
}
