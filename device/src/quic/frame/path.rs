//! PATH_CHALLENGE and PATH_RESPONSE (RFC 9000 19.17, 19.18).
//!
//! ```text
//! type 0x1a or 0x1b | data (8)
//! ```

use crate::codec::{DecodeError, NoSpace, Reader, Writer};

use super::kind;

/// Bytes of a challenge.
pub const PATH_DATA_LEN: usize = 8;

/// Asks for its data to come back, to prove that the path works both ways.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PathChallenge {
    /// Unpredictable bytes.
    pub data: [u8; PATH_DATA_LEN],
}

/// The answer to a challenge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PathResponse {
    /// The challenge's bytes.
    pub data: [u8; PATH_DATA_LEN],
}

impl PathChallenge {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { data: r.array("path_challenge.data")? })
    }

    /// Writes the frame.
    ///
    /// # Errors
    /// [`NoSpace`], with part of it written: the caller truncates.
    pub fn encode(&self, w: &mut Writer<'_>) -> Result<(), NoSpace> {
        w.varint(kind::PATH_CHALLENGE)?;
        w.put(&self.data)
    }
}

impl PathResponse {
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { data: r.array("path_response.data")? })
    }

    /// Writes the frame.
    ///
    /// # Errors
    /// [`NoSpace`], with part of it written: the caller truncates.
    pub fn encode(&self, w: &mut Writer<'_>) -> Result<(), NoSpace> {
        w.varint(kind::PATH_RESPONSE)?;
        w.put(&self.data)
    }
}
