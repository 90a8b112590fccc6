//! MQTT control packets (MQTT 5.0 chapters 2 and 3, MQTT 3.1.1 likewise): one file per packet or family.
//!
//! ```text
//! Fixed Header: Type (4 bits), Flags (4 bits), Remaining Length (variable byte integer, 1-4 bytes)
//! Variable Header, Payload: Remaining Length bytes
//! ```
//!
//! Decoding borrows and reads in wire order; encoding fits or leaves nothing behind.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod ack;
mod auth;
mod connack;
mod connect;
mod disconnect;
mod properties;
mod publish;
mod subscribe;
mod unsubscribe;
pub(super) mod varint;

pub use ack::{Ack, AckKind};
pub use auth::Auth;
pub use connack::Connack;
pub use connect::Connect;
pub use disconnect::Disconnect;
pub(super) use properties::Place;
pub use properties::{Properties, Property};
pub use publish::{Delivery, Publish};
pub use subscribe::{Filters, Suback, Subscribe};
pub use unsubscribe::{Names, Unsuback, Unsubscribe};

pub use crate::redacted::Opaque;

use crate::codec::{NoSpace, Reader, Writer};
use crate::mqtt::{Error, PacketId, Version, topic};

/// The packet types (2.1.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PacketType {
    /// Client to server: opens a session.
    Connect = 1,
    /// Server to client: answers CONNECT.
    Connack = 2,
    /// A message.
    Publish = 3,
    /// Answers PUBLISH of QoS 1.
    Puback = 4,
    /// First answer to PUBLISH of QoS 2.
    Pubrec = 5,
    /// Answers PUBREC.
    Pubrel = 6,
    /// Answers PUBREL.
    Pubcomp = 7,
    /// Asks for messages.
    Subscribe = 8,
    /// Answers SUBSCRIBE.
    Suback = 9,
    /// Ends subscriptions.
    Unsubscribe = 10,
    /// Answers UNSUBSCRIBE.
    Unsuback = 11,
    /// Client to server: are you there?
    Pingreq = 12,
    /// Answers PINGREQ.
    Pingresp = 13,
    /// Ends the connection.
    Disconnect = 14,
    /// Extended authentication (5.0).
    Auth = 15,
}

impl PacketType {
    const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            1 => Self::Connect,
            2 => Self::Connack,
            3 => Self::Publish,
            4 => Self::Puback,
            5 => Self::Pubrec,
            6 => Self::Pubrel,
            7 => Self::Pubcomp,
            8 => Self::Subscribe,
            9 => Self::Suback,
            10 => Self::Unsubscribe,
            11 => Self::Unsuback,
            12 => Self::Pingreq,
            13 => Self::Pingresp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    const fn bit(self) -> u16 {
        1 << self as u8
    }

    /// The flags of a packet that has no choice (table 2-2).
    const fn fixed_flags(self) -> u8 {
        match self {
            Self::Pubrel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            _ => 0,
        }
    }

    const fn first_byte(self) -> u8 {
        (self as u8) << 4 | self.fixed_flags()
    }
}

/// The whole packet (3.12).
pub(super) const PINGREQ: [u8; 2] = [PacketType::Pingreq.first_byte(), 0];

/// Longest fixed header in bytes.
pub const FIXED_HEADER_MAX: usize = 5;

/// The start of every packet (2.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FixedHeader {
    /// What follows.
    pub packet_type: PacketType,
    /// The type's four flags.
    pub flags: u8,
    /// Size of what follows in bytes.
    pub remaining_len: u32,
    /// Size of the fixed header itself in bytes.
    pub header_len: usize,
}

impl FixedHeader {
    /// Reads a fixed header from the start of a stream; `None` while bytes are missing.
    ///
    /// # Errors
    /// For a reserved type, wrong flags or a malformed length, as soon as the bytes show it.
    pub fn peek(bytes: &[u8]) -> Result<Option<Self>, Error> {
        let Some((&first, rest)) = bytes.split_first() else {
            return Ok(None);
        };
        let packet_type =
            PacketType::from_bits(first >> 4).ok_or(Error::malformed("fixed_header.packet_type"))?;
        let flags = first & 0x0f;
        let are_flags_valid = match packet_type {
            PacketType::Publish => flags >> 1 & 3 != 3,
            _ => flags == packet_type.fixed_flags(),
        };
        if !are_flags_valid {
            return Err(Error::malformed("fixed_header.flags"));
        }
        match varint::peek(rest) {
            varint::Peek::Value(remaining_len, len) => {
                Ok(Some(Self { packet_type, flags, remaining_len, header_len: 1 + len }))
            }
            varint::Peek::Incomplete => Ok(None),
            varint::Peek::Invalid => Err(Error::malformed("fixed_header.remaining_length")),
        }
    }

    /// Size of the whole packet in bytes.
    pub const fn packet_len(&self) -> usize {
        self.header_len + self.remaining_len as usize
    }
}

/// Any packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "each variant is its type's namesake")]
pub enum Packet<'a> {
    Connect(Connect<'a>),
    Connack(Connack<'a>),
    Publish(Publish<'a>),
    Ack(AckKind, Ack<'a>),
    Subscribe(Subscribe<'a>),
    Suback(Suback<'a>),
    Unsubscribe(Unsubscribe<'a>),
    Unsuback(Unsuback<'a>),
    Pingreq,
    Pingresp,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}

impl<'a> Packet<'a> {
    /// Decodes one whole packet. CONNECT names its version itself; the others follow `version`.
    ///
    /// # Errors
    /// With the reason code that answers the mistake.
    #[expect(clippy::indexing_slicing, reason = "the header was just read from them")]
    pub fn decode(bytes: &'a [u8], version: Version) -> Result<Self, Error> {
        let header = FixedHeader::peek(bytes)?.ok_or(Error::malformed("fixed_header"))?;
        let body = &bytes[header.header_len..];
        if body.len() != header.remaining_len as usize {
            return Err(Error::malformed("fixed_header.remaining_length"));
        }
        Ok(match header.packet_type {
            PacketType::Connect => Self::Connect(Connect::decode(body)?),
            PacketType::Connack => Self::Connack(Connack::decode(body, version)?),
            PacketType::Publish => Self::Publish(Publish::decode(header.flags, body, version)?),
            PacketType::Puback => Self::Ack(AckKind::Puback, Ack::decode(AckKind::Puback, body, version)?),
            PacketType::Pubrec => Self::Ack(AckKind::Pubrec, Ack::decode(AckKind::Pubrec, body, version)?),
            PacketType::Pubrel => Self::Ack(AckKind::Pubrel, Ack::decode(AckKind::Pubrel, body, version)?),
            PacketType::Pubcomp => Self::Ack(AckKind::Pubcomp, Ack::decode(AckKind::Pubcomp, body, version)?),
            PacketType::Subscribe => Self::Subscribe(Subscribe::decode(body, version)?),
            PacketType::Suback => Self::Suback(Suback::decode(body, version)?),
            PacketType::Unsubscribe => Self::Unsubscribe(Unsubscribe::decode(body, version)?),
            PacketType::Unsuback => Self::Unsuback(Unsuback::decode(body, version)?),
            PacketType::Pingreq => empty(body, "pingreq").map(|()| Self::Pingreq)?,
            PacketType::Pingresp => empty(body, "pingresp").map(|()| Self::Pingresp)?,
            PacketType::Disconnect => Self::Disconnect(Disconnect::decode(body, version)?),
            PacketType::Auth => Self::Auth(Auth::decode(body, version)?),
        })
    }

    /// Encodes the packet, but for the parts that `version` does not have.
    ///
    /// # Errors
    /// If it does not fit.
    pub fn encode(&self, version: Version, w: &mut Writer<'_>) -> Result<(), NoSpace> {
        match self {
            Self::Connect(connect) => connect.encode(w),
            Self::Connack(connack) => connack.encode(version, w),
            Self::Publish(publish) => publish.encode(version, w),
            Self::Ack(kind, ack) => ack.encode(*kind, version, w),
            Self::Subscribe(subscribe) => subscribe.encode(version, w),
            Self::Suback(suback) => suback.encode(version, w),
            Self::Unsubscribe(unsubscribe) => unsubscribe.encode(version, w),
            Self::Unsuback(unsuback) => unsuback.encode(version, w),
            Self::Pingreq => w.put(&PINGREQ),
            Self::Pingresp => framed(w, PacketType::Pingresp.first_byte(), 0, |_| Ok(())),
            Self::Disconnect(disconnect) => disconnect.encode(version, w),
            Self::Auth(auth) => auth.encode(w),
        }
    }
}

/// A packet without content has none.
pub(super) fn empty(body: &[u8], field: &'static str) -> Result<(), Error> {
    if body.is_empty() { Ok(()) } else { Err(Error::malformed(field)) }
}

/// A string behind its length.
fn string<'a>(r: &mut Reader<'a>, field: &'static str) -> Result<&'a str, Error> {
    topic::string(r.vec16(field)?).ok_or(Error::malformed(field))
}

fn put_string(w: &mut Writer<'_>, text: &str) -> Result<(), NoSpace> {
    put_binary(w, text.as_bytes())
}

/// Binary data behind its length; both or nothing.
fn put_binary(w: &mut Writer<'_>, data: &[u8]) -> Result<(), NoSpace> {
    let len = u16::try_from(data.len()).map_err(|_| NoSpace)?;
    if w.remaining() < data.len() + 2 {
        return Err(NoSpace);
    }
    w.u16(len)?;
    w.put(data)
}

/// A packet identifier: not zero (2.2.1).
fn packet_id(r: &mut Reader<'_>, field: &'static str) -> Result<PacketId, Error> {
    PacketId::new(r.u16(field)?).ok_or(Error::protocol(field))
}

/// The properties of 5.0, none in 3.1.1.
fn properties<'a>(r: &mut Reader<'a>, packet: PacketType, version: Version) -> Result<Properties<'a>, Error> {
    match version {
        Version::V3_1_1 => Ok(Properties::NONE),
        Version::V5 => Properties::decode(r, packet),
    }
}

fn put_properties(w: &mut Writer<'_>, properties: Properties<'_>, version: Version) -> Result<(), NoSpace> {
    match version {
        Version::V3_1_1 => Ok(()),
        Version::V5 => properties.encode(w),
    }
}

/// Writes a packet: `first`, the length of what `body` writes and of `extra` bytes that the caller sends
/// behind it, and what `body` writes.
fn framed(
    w: &mut Writer<'_>,
    first: u8,
    extra: usize,
    body: impl FnOnce(&mut Writer<'_>) -> Result<(), NoSpace>,
) -> Result<(), NoSpace> {
    let start = w.len();
    let written = w.u8(first).and_then(|()| with_length(w, extra, body));
    if written.is_err() {
        w.truncate(start);
    }
    written
}

/// Writes what `body` writes behind its length plus `extra`, as a variable byte integer.
fn with_length(
    w: &mut Writer<'_>,
    extra: usize,
    body: impl FnOnce(&mut Writer<'_>) -> Result<(), NoSpace>,
) -> Result<(), NoSpace> {
    let start = w.len();
    // Almost always fewer than 128 bytes: room for one byte, widened afterwards when needed.
    w.u8(0)?;
    body(w)?;
    put_length(w, start, extra)
}

/// Writes the length of what stands behind the byte at `start`, plus `extra`, into that byte, or into more of them.
#[expect(clippy::indexing_slicing, reason = "the length was written there")]
#[inline(never)] // Every packet ends here: one copy.
fn put_length(w: &mut Writer<'_>, start: usize, extra: usize) -> Result<(), NoSpace> {
    let body_len = w.len() - start - 1;
    let len = u32::try_from(body_len + extra).map_err(|_| NoSpace)?;
    let widen = varint::len(len as usize) - 1;
    w.zeros(widen)?;
    let written = w.written_mut();
    if widen > 0 {
        written.copy_within(start + 1..start + 1 + body_len, start + 1 + widen);
    }
    varint::encode(&mut Writer::new(&mut written[start..]), len)
}

#[cfg(test)]
mod tests;
