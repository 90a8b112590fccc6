//! Initial, 0-RTT and Handshake packets (RFC 9000 17.2).
//!
//! ```text
//! 1 1 T T R R P P | version (4) | len, destination id | len, source id
//! | token length, token (Initial only) | length | packet number (1-4) | payload
//! ```

use core::ops::Range;

use crate::codec::{DecodeError, NoSpace, Reader, Writer};
use crate::quic::VERSION_1;
use crate::quic::cid::ConnectionId;

use super::{FIXED, FORM_LONG, own_cid};

const TYPE_SHIFT: u8 = 4;
const TYPE_MASK: u8 = 0x03;
const RETRY: u8 = 3;

/// The kind of a long header packet with a payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LongKind {
    /// The first flight; keys anyone can derive.
    Initial,
    /// Early application data; only clients send it.
    ZeroRtt,
    /// The rest of the handshake.
    Handshake,
}

/// Where a long header packet lies in its datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LongPacket {
    /// Its kind.
    pub kind: LongKind,
    /// The sender's identifier.
    pub source: ConnectionId,
    /// Where the packet number starts.
    pub number_at: usize,
    /// Where the packet ends.
    pub end: usize,
}

impl LongPacket {
    pub(super) fn parse(first: u8, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        own_cid(r)?;
        let source = ConnectionId::decode(r, "packet.source_connection_id")?;
        let kind = match first >> TYPE_SHIFT & TYPE_MASK {
            0 => LongKind::Initial,
            1 => LongKind::ZeroRtt,
            _ => LongKind::Handshake,
        };
        if kind == LongKind::Initial && !r.varint_vec("initial.token")?.is_empty() {
            // RFC 9000 17.2.2: a server's Initial has no token; one that has is dropped.
            return Err(DecodeError { field: "initial.token" });
        }
        let len = r.varint("packet.length")?;
        let number_at = r.position();
        let len = usize::try_from(len).map_err(|_| DecodeError { field: "packet.length" })?;
        r.take(len, "packet.length")?;
        Ok(Self { kind, source, number_at, end: r.position() })
    }
}

pub(super) const fn is_retry(first: u8) -> bool {
    first >> TYPE_SHIFT & TYPE_MASK == RETRY
}

/// Writes a header up to the packet number, which gets `number_len` bytes and whose place is returned.
/// The length is filled in by [`finish_long_header`].
///
/// # Errors
/// [`NoSpace`], with part of it written: the caller truncates.
#[expect(clippy::indexing_slicing, reason = "a number has one to four bytes")]
pub fn encode_long_header(
    kind: LongKind,
    destination: &ConnectionId,
    token: &[u8],
    number: u64,
    number_len: usize,
    w: &mut Writer<'_>,
) -> Result<Range<usize>, NoSpace> {
    let bits = match kind {
        LongKind::Initial => 0,
        LongKind::ZeroRtt => 1,
        LongKind::Handshake => 2,
    };
    w.u8(FORM_LONG | FIXED | bits << TYPE_SHIFT | (number_len - 1) as u8)?;
    w.u32(VERSION_1)?;
    w.u8(destination.len() as u8)?;
    w.put(destination.as_bytes())?;
    w.u8(0)?;
    if kind == LongKind::Initial {
        w.varint(token.len() as u64)?;
        w.put(token)?;
    }
    w.u16(0)?;
    let at = w.len();
    w.put(&(number as u32).to_be_bytes()[4 - number_len..])?;
    Ok(at..w.len())
}

/// Fills in the length of a packet whose number is at `number_at` and that ends with `packet`.
///
/// The length is always in two bytes: a datagram is shorter than 2^14.
#[expect(clippy::indexing_slicing, reason = "the length is in front of the number")]
pub fn finish_long_header(packet: &mut [u8], number_at: usize) {
    let len = (packet.len() - number_at) as u16 | 0x4000;
    packet[number_at - 2..number_at].copy_from_slice(&len.to_be_bytes());
}
