//! CONNECTION_CLOSE (RFC 9000 19.19).
//!
//! ```text
//! type 0x1c | error code | frame type | reason length | reason     (transport)
//! type 0x1d | error code | reason length | reason                  (application)
//! ```

use crate::codec::{DecodeError, NoSpace, Reader, Writer};
use crate::quic::error::TransportCode;

use super::kind;

/// The end of the connection and its reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectionClose<'a> {
    /// By the transport.
    Transport {
        /// What went wrong.
        code: TransportCode,
        /// The frame type at fault, or 0.
        frame_type: u64,
        /// For a human; bytes as they came.
        reason: &'a [u8],
    },
    /// By the application.
    Application {
        /// The application's own code.
        code: u64,
        /// For a human; bytes as they came.
        reason: &'a [u8],
    },
}

impl<'a> ConnectionClose<'a> {
    pub(super) fn decode(frame: u64, r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let code = r.varint("connection_close.error_code")?;
        if frame == kind::APPLICATION_CLOSE {
            let reason = r.varint_vec("connection_close.reason")?;
            return Ok(Self::Application { code, reason });
        }
        Ok(Self::Transport {
            code: TransportCode(code),
            frame_type: r.varint("connection_close.frame_type")?,
            reason: r.varint_vec("connection_close.reason")?,
        })
    }

    /// Writes the frame; a reason that does not fit is cut.
    ///
    /// # Errors
    /// [`NoSpace`] if it does not fit even without a reason.
    pub fn encode(&self, w: &mut Writer<'_>) -> Result<(), NoSpace> {
        let start = w.len();
        let written = self.encode_fields(w);
        if written.is_err() {
            w.truncate(start);
        }
        written
    }

    #[expect(clippy::indexing_slicing, reason = "no more than there is")]
    fn encode_fields(&self, w: &mut Writer<'_>) -> Result<(), NoSpace> {
        let reason = match *self {
            Self::Transport { code, frame_type, reason } => {
                w.varint(kind::CONNECTION_CLOSE)?;
                w.varint(code.0)?;
                w.varint(frame_type)?;
                reason
            }
            Self::Application { code, reason } => {
                w.varint(kind::APPLICATION_CLOSE)?;
                w.varint(code)?;
                reason
            }
        };
        let reason = &reason[..reason.len().min(w.remaining().saturating_sub(2))];
        w.varint(reason.len() as u64)?;
        w.put(reason)
    }
}
