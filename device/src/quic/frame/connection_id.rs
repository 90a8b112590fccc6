//! NEW_CONNECTION_ID and RETIRE_CONNECTION_ID (RFC 9000 19.15, 19.16).
//!
//! ```text
//! type 0x18 | sequence | retire prior to | length (1) | identifier | stateless reset token (16)
//! type 0x19 | sequence
//! ```

use crate::codec::{DecodeError, NoSpace, Reader, Writer};
use crate::quic::cid::{ConnectionId, ResetToken};

use super::kind;

/// A further identifier of the sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewConnectionId {
    /// Its sequence number.
    pub sequence: u64,
    /// Identifiers below this one are to be retired.
    pub retire_prior_to: u64,
    /// The identifier, 1 to 20 bytes.
    pub cid: ConnectionId,
    /// Its stateless reset token.
    pub token: ResetToken,
}

impl NewConnectionId {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let sequence = r.varint("new_connection_id.sequence")?;
        let retire_prior_to = r.varint("new_connection_id.retire_prior_to")?;
        if retire_prior_to > sequence {
            return Err(DecodeError { field: "new_connection_id.retire_prior_to" });
        }
        let cid = ConnectionId::decode(r, "new_connection_id.connection_id")?;
        if cid.is_empty() {
            return Err(DecodeError { field: "new_connection_id.connection_id" });
        }
        let token = ResetToken(r.array("new_connection_id.stateless_reset_token")?);
        Ok(Self { sequence, retire_prior_to, cid, token })
    }

    /// Writes the frame.
    ///
    /// # Errors
    /// [`NoSpace`], with part of it written: the caller truncates.
    pub fn encode(&self, w: &mut Writer<'_>) -> Result<(), NoSpace> {
        w.varint(kind::NEW_CONNECTION_ID)?;
        w.varint(self.sequence)?;
        w.varint(self.retire_prior_to)?;
        w.u8(self.cid.len() as u8)?;
        w.put(self.cid.as_bytes())?;
        w.put(&self.token.0)
    }
}

/// An identifier of the receiver that the sender does not use any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RetireConnectionId {
    /// Its sequence number.
    pub sequence: u64,
}

impl RetireConnectionId {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { sequence: r.varint("retire_connection_id.sequence")? })
    }

    /// Writes the frame.
    ///
    /// # Errors
    /// [`NoSpace`], with part of it written: the caller truncates.
    pub fn encode(&self, w: &mut Writer<'_>) -> Result<(), NoSpace> {
        w.varint(kind::RETIRE_CONNECTION_ID)?;
        w.varint(self.sequence)
    }
}
