//! NEW_TOKEN (RFC 9000 19.7).
//!
//! ```text
//! type 0x07 | length | token
//! ```

use crate::codec::{DecodeError, NoSpace, Reader, Writer};
use crate::redacted::redacted_debug;

use super::kind;

/// A token for the Initial of the next connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NewToken<'a> {
    /// Opaque to the client.
    pub token: &'a [u8],
}

redacted_debug! { [] NewToken<'_>, "NewToken", shown: [], length: [token], hidden: [] }

impl<'a> NewToken<'a> {
    pub(super) fn decode(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let token = r.varint_vec("new_token.token")?;
        if token.is_empty() {
            return Err(DecodeError { field: "new_token.token" });
        }
        Ok(Self { token })
    }

    /// Writes the frame.
    ///
    /// # Errors
    /// [`NoSpace`], with part of it written: the caller truncates.
    pub fn encode(&self, w: &mut Writer<'_>) -> Result<(), NoSpace> {
        w.varint(kind::NEW_TOKEN)?;
        w.varint(self.token.len() as u64)?;
        w.put(self.token)
    }
}
