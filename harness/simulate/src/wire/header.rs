//! Packet headers (RFC 9000 17), as far as they can be read without keys.

use device::codec::{DecodeError, Reader};
use link::Direction;

use super::Kind;

/// Bytes of the identifiers that [`crate::Server`] gives itself, as short headers do not tell.
const SERVER_ID_LEN: usize = 8;

/// What a header says without keys.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) version: u32,
    pub(super) destination: Vec<u8>,
    pub(super) source: Vec<u8>,
    pub(super) token: Vec<u8>,
    pub(super) number_at: usize,
    pub(super) end: usize,
}

impl Header {
    pub(super) fn parse(bytes: &[u8], direction: Direction) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        let first = r.u8("first byte")?;
        if first & 0x80 == 0 {
            // The device's own identifier has no bytes.
            let len = if direction == Direction::Up { SERVER_ID_LEN } else { 0 };
            let destination = r.take(len, "destination")?.to_vec();
            let (kind, source, token) = (Kind::OneRtt, Vec::new(), Vec::new());
            return Ok(Self {
                kind,
                version: 0,
                destination,
                source,
                token,
                number_at: 1 + len,
                end: bytes.len(),
            });
        }
        let version = r.u32("version")?;
        let destination = r.vec8("destination")?.to_vec();
        let source = r.vec8("source")?.to_vec();
        let kind = match (version, first >> 4 & 3) {
            (0, _) => Kind::VersionNegotiation,
            (_, 0) => Kind::Initial,
            (_, 1) => Kind::ZeroRtt,
            (_, 2) => Kind::Handshake,
            _ => Kind::Retry,
        };
        let token = match kind {
            Kind::Initial => r.varint_vec("token")?.to_vec(),
            Kind::Retry => {
                let len = r.remaining().checked_sub(16).ok_or(DecodeError { field: "tag" })?;
                r.take(len, "token")?.to_vec()
            }
            _ => Vec::new(),
        };
        let end = match kind {
            Kind::VersionNegotiation | Kind::Retry => bytes.len(),
            _ => {
                let len = r.varint("length")? as usize;
                r.position() + r.clone().take(len, "length")?.len()
            }
        };
        Ok(Self { kind, version, destination, source, token, number_at: r.position(), end })
    }
}
