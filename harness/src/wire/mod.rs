//! MQTT 3.1.1 and 5.0 as the host side reads and writes them.
//!
//! Written apart from the device's codec on purpose: were both ends of a run one implementation, a mistake
//! in it would agree with itself. The host side may allocate, so packets own their contents.

mod connect;
mod packet;
mod properties;

pub use connect::{Connect, Will};
pub use packet::{AckKind, Acknowledge, Connack, Packet, Publish, Qos, Subscription, SubscriptionReply};
pub use properties::{Properties, property};

use std::fmt;

/// Packet types by the upper half of the first byte (MQTT 5.0 2.1.2).
pub mod kind {
    /// CONNECT.
    pub const CONNECT: u8 = 1;
    /// CONNACK.
    pub const CONNACK: u8 = 2;
    /// PUBLISH.
    pub const PUBLISH: u8 = 3;
    /// PUBACK.
    pub const PUBACK: u8 = 4;
    /// PUBREC.
    pub const PUBREC: u8 = 5;
    /// PUBREL.
    pub const PUBREL: u8 = 6;
    /// PUBCOMP.
    pub const PUBCOMP: u8 = 7;
    /// SUBSCRIBE.
    pub const SUBSCRIBE: u8 = 8;
    /// SUBACK.
    pub const SUBACK: u8 = 9;
    /// UNSUBSCRIBE.
    pub const UNSUBSCRIBE: u8 = 10;
    /// UNSUBACK.
    pub const UNSUBACK: u8 = 11;
    /// PINGREQ.
    pub const PINGREQ: u8 = 12;
    /// PINGRESP.
    pub const PINGRESP: u8 = 13;
    /// DISCONNECT.
    pub const DISCONNECT: u8 = 14;
    /// AUTH.
    pub const AUTH: u8 = 15;
}

/// Reason codes (MQTT 5.0 2.4) the harness itself sends or looks for.
pub mod reason {
    /// Normal disconnection, or success.
    pub const SUCCESS: u8 = 0x00;
    /// No matching subscribers.
    pub const NO_MATCHING_SUBSCRIBERS: u8 = 0x10;
    /// No subscription existed.
    pub const NO_SUBSCRIPTION_EXISTED: u8 = 0x11;
    /// Malformed packet.
    pub const MALFORMED_PACKET: u8 = 0x81;
    /// Server busy.
    pub const SERVER_BUSY: u8 = 0x89;
    /// Server shutting down.
    pub const SERVER_SHUTTING_DOWN: u8 = 0x8b;
    /// Keep alive timeout.
    pub const KEEP_ALIVE_TIMEOUT: u8 = 0x8d;
    /// Session taken over.
    pub const SESSION_TAKEN_OVER: u8 = 0x8e;
    /// Packet too large.
    pub const PACKET_TOO_LARGE: u8 = 0x95;
    /// Administrative action.
    pub const ADMINISTRATIVE_ACTION: u8 = 0x98;
}

/// Protocol version, by its level in CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
pub enum Version {
    /// MQTT 3.1.1.
    #[serde(rename = "3.1.1")]
    V311,
    /// MQTT 5.0.
    #[default]
    #[serde(rename = "5.0")]
    V5,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V311 => "3.1.1",
            Self::V5 => "5.0",
        })
    }
}

/// Bytes that are no MQTT packet, with the field that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed MQTT packet: {0}")]
pub struct Malformed(pub &'static str);

/// Where one packet lies in a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Packet type, 1 to 15.
    pub kind: u8,
    /// Lower half of the first byte.
    pub flags: u8,
    /// Length of the fixed header.
    pub header: usize,
    /// Length of the whole packet.
    pub length: usize,
}

impl Frame {
    /// Reads the fixed header at the start of `bytes` (MQTT 5.0 2.1); `None` when it is not whole yet. The
    /// packet itself may still be incomplete: compare [`Self::length`].
    ///
    /// # Errors
    /// When packet type 0 or a remaining length of more than four bytes shows that this is no MQTT.
    pub fn peek(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let Some((&first, rest)) = bytes.split_first() else {
            return Ok(None);
        };
        if first >> 4 == 0 {
            return Err(Malformed("packet type 0"));
        }
        let mut remaining = 0usize;
        for (at, &byte) in rest.iter().take(4).enumerate() {
            remaining |= usize::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                let header = at + 2;
                return Ok(Some(Self {
                    kind: first >> 4,
                    flags: first & 0x0f,
                    header,
                    length: header + remaining,
                }));
            }
        }
        if rest.len() >= 4 {
            return Err(Malformed("remaining length"));
        }
        Ok(None)
    }
}

/// Reads fields in wire order; each names itself in the error.
#[derive(Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, length: usize, name: &'static str) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.0.split_at_checked(length).ok_or(Malformed(name))?;
        self.0 = tail;
        Ok(head)
    }

    pub(crate) fn u8(&mut self, name: &'static str) -> Result<u8, Malformed> {
        Ok(self.take(1, name)?[0])
    }

    pub(crate) fn u16(&mut self, name: &'static str) -> Result<u16, Malformed> {
        let bytes = self.take(2, name)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    pub(crate) fn binary(&mut self, name: &'static str) -> Result<&'a [u8], Malformed> {
        let length = usize::from(self.u16(name)?);
        self.take(length, name)
    }

    pub(crate) fn string(&mut self, name: &'static str) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.binary(name)?).map_err(|_| Malformed(name))
    }

    pub(crate) fn varint(&mut self, name: &'static str) -> Result<usize, Malformed> {
        let mut value = 0;
        for at in 0..4 {
            let byte = self.u8(name)?;
            value |= usize::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed(name))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let low = u8::try_from(value & 0x7f).expect("seven bits");
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

pub(crate) fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).expect("strings of the harness are short");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Puts the fixed header before `body`.
pub(crate) fn seal(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 5);
    out.push(first);
    put_varint(&mut out, body.len());
    out.extend_from_slice(body);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_header_is_read_as_soon_as_it_is_whole() {
        assert_eq!(Frame::peek(&[]), Ok(None));
        assert_eq!(Frame::peek(&[0x30]), Ok(None));
        assert_eq!(Frame::peek(&[0x30, 0x80]), Ok(None));
        assert_eq!(
            Frame::peek(&[0x32, 0xc1, 0x02]),
            Ok(Some(Frame { kind: 3, flags: 2, header: 3, length: 3 + 321 }))
        );
    }

    #[test]
    fn impossible_headers_are_malformed() {
        assert_eq!(Frame::peek(&[0x00, 0x00]), Err(Malformed("packet type 0")));
        assert_eq!(Frame::peek(&[0x30, 0xff, 0xff, 0xff, 0xff]), Err(Malformed("remaining length")));
        assert_eq!(Frame::peek(&[0x30, 0xff, 0xff, 0xff]), Ok(None));
    }

    /// MQTT 5.0 table 2-1.
    #[test]
    fn varint_spans_the_documented_ranges() {
        for (value, length) in [
            (0, 1),
            (127, 1),
            (128, 2),
            (16_383, 2),
            (16_384, 3),
            (2_097_151, 3),
            (2_097_152, 4),
            (268_435_455, 4),
        ] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out.len(), length, "{value}");
            assert_eq!(Reader(&out).varint("v"), Ok(value));
        }
    }
}
