//! Packet headers (RFC 9000 17), one file per kind.
//!
//! [`Packet::parse`] finds the bounds of the first packet in a datagram without touching what header
//! protection hides.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod long;
mod number;
mod retry;
mod short;
mod version_negotiation;

pub use long::{LongKind, LongPacket, encode_long_header, finish_long_header};
pub use number::{decode as decode_number, encoded_len as number_len};
pub use retry::{RETRY_PACKET_LEN_MAX, RetryPacket};
pub use short::encode_short_header;
pub use version_negotiation::{VersionNegotiation, Versions};

use crate::codec::{DecodeError, Reader};

/// Set in the first byte of a long header (RFC 8999 5.1).
pub const FORM_LONG: u8 = 0x80;
/// Set in the first byte of every packet of QUIC v1 (RFC 9000 17.2).
pub const FIXED: u8 = 0x40;
/// The key phase bit of a short header (RFC 9000 17.3.1).
pub const KEY_PHASE: u8 = 0x04;
/// The reserved bits of a long header, to be zero once protection is removed.
pub const RESERVED_LONG: u8 = 0x0c;
/// The reserved bits of a short header, to be zero once protection is removed.
pub const RESERVED_SHORT: u8 = 0x18;
/// The packet number's length less one, in either header.
pub const NUMBER_LEN: u8 = 0x03;

/// The first packet of a datagram, by kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Packet<'a> {
    /// The server speaks other versions.
    VersionNegotiation(VersionNegotiation<'a>),
    /// The server wants the Initial again, with a token.
    Retry(RetryPacket<'a>),
    /// Initial, 0-RTT or Handshake.
    Long(LongPacket),
    /// 1-RTT: the rest of the datagram. The packet number is behind the first byte, since this client's
    /// identifier has no bytes.
    Short,
}

impl<'a> Packet<'a> {
    /// Finds the first packet in `datagram`.
    ///
    /// # Errors
    /// Names the field that makes it no packet for this client; the rest of the datagram is then lost,
    /// since its bounds are unknown.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(datagram);
        let first = r.u8("packet.first_byte")?;
        if first & FORM_LONG == 0 {
            return match first & FIXED {
                0 => Err(DecodeError { field: "packet.fixed_bit" }),
                _ => Ok(Self::Short),
            };
        }
        match r.u32("packet.version")? {
            0 => VersionNegotiation::parse(&mut r).map(Self::VersionNegotiation),
            super::VERSION_1 if first & FIXED == 0 => Err(DecodeError { field: "packet.fixed_bit" }),
            super::VERSION_1 if long::is_retry(first) => {
                RetryPacket::parse(datagram, &mut r).map(Self::Retry)
            }
            super::VERSION_1 => LongPacket::parse(first, &mut r).map(Self::Long),
            _ => Err(DecodeError { field: "packet.version" }),
        }
    }
}

/// Reads the destination identifier, which has to be this client's: it has no bytes.
fn own_cid(r: &mut Reader<'_>) -> Result<(), DecodeError> {
    match r.vec8("packet.destination_connection_id")? {
        [] => Ok(()),
        _ => Err(DecodeError { field: "packet.destination_connection_id" }),
    }
}
