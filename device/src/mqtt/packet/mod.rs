//! MQTT control packets (MQTT 5.0 chapters 2 and 3, MQTT 3.1.1 likewise): one file per packet or family.
//!
//! ```text
//! Fixed Header: Type (4 bits), Flags (4 bits), Remaining Length (variable byte integer, 1-4 bytes)
//! Variable Header, Payload: Remaining Length bytes
//! ```
//!
//! Decoding borrows and reads in wire order; encoding fits or leaves nothing behind.

mod properties;
mod varint;

pub use properties::{Properties, Property};

use crate::codec::{NoSpace, Reader, Writer};
use crate::mqtt::{Error, topic};

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
    const fn bit(self) -> u16 {
        1 << self as u8
    }
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

/// Encoded size of `value` as a variable byte integer.
const fn varint_len(value: usize) -> usize {
    varint::len(value)
}
