//! Retry (RFC 9000 17.2.5).
//!
//! ```text
//! 1 1 1 1 U U U U | version (4) | len, destination id | len, source id | token | integrity tag (16)
//! ```

use crate::codec::{DecodeError, Reader};
use crate::crypto::TAG_LEN;
use crate::quic::TOKEN_LEN_MAX;
use crate::quic::cid::{CID_LEN_MAX, ConnectionId};
use crate::redacted::redacted_debug;

use super::own_cid;

/// Longest Retry packet taken in: one with the longest token kept.
pub const RETRY_PACKET_LEN_MAX: usize = 1 + 4 + 1 + 1 + CID_LEN_MAX + TOKEN_LEN_MAX + TAG_LEN;

/// The server wants the Initial again, with a token. A Retry is a datagram of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RetryPacket<'a> {
    /// The server's new identifier.
    pub source: ConnectionId,
    /// To be put into every further Initial.
    pub token: &'a [u8],
    /// What the integrity tag covers, after the original destination identifier.
    pub covered: &'a [u8],
    /// The integrity tag (RFC 9001 5.8).
    pub tag: [u8; TAG_LEN],
}

redacted_debug! {
    ['a] RetryPacket<'a>, "RetryPacket",
    shown: [source, tag], length: [token, covered], hidden: []
}

impl<'a> RetryPacket<'a> {
    #[expect(clippy::indexing_slicing, reason = "what was read lies in the datagram")]
    pub(super) fn parse(datagram: &'a [u8], r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        if datagram.len() > RETRY_PACKET_LEN_MAX {
            return Err(DecodeError { field: "retry.token" });
        }
        own_cid(r)?;
        let source = ConnectionId::decode(r, "packet.source_connection_id")?;
        let token_len = r.remaining().checked_sub(TAG_LEN).ok_or(DecodeError { field: "retry.tag" })?;
        let token = r.take(token_len, "retry.token")?;
        let covered = &datagram[..r.position()];
        let tag = r.array("retry.tag")?;
        if token.is_empty() {
            return Err(DecodeError { field: "retry.token" });
        }
        Ok(Self { source, token, covered, tag })
    }
}
