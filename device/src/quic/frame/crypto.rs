//! CRYPTO (RFC 9000 19.6).
//!
//! ```text
//! type 0x06 | offset | length | data
//! ```

use crate::codec::{DecodeError, NoSpace, Reader, VARINT_MAX, Writer};
use crate::redacted::redacted_debug;

use super::kind;

/// Handshake bytes at an offset of their encryption level's stream.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Crypto<'a> {
    /// Where the bytes belong.
    pub offset: u64,
    /// The bytes.
    pub data: &'a [u8],
}

redacted_debug! { [] Crypto<'_>, "Crypto", shown: [offset], length: [data], hidden: [] }

impl<'a> Crypto<'a> {
    /// Bytes a frame needs beside its data, at most: type, offset and length below 2^14.
    pub const OVERHEAD_MAX: usize = 1 + 2 + 2;

    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let offset = r.varint("crypto.offset")?;
        let data = r.varint_vec("crypto.data")?;
        if offset + data.len() as u64 > VARINT_MAX {
            return Err(DecodeError { field: "crypto.offset" });
        }
        Ok(Self { offset, data })
    }

    /// Writes the frame.
    ///
    /// # Errors
    /// [`NoSpace`], with part of it written: the caller truncates.
    pub fn encode(&self, w: &mut Writer<'_>) -> Result<(), NoSpace> {
        w.varint(kind::CRYPTO)?;
        w.varint(self.offset)?;
        w.varint(self.data.len() as u64)?;
        w.put(self.data)
    }
}
