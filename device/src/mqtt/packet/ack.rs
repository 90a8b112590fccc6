//! PUBACK, PUBREC, PUBREL, PUBCOMP (MQTT 5.0 3.4-3.7, MQTT 3.1.1 likewise): the answers to a message.
//!
//! ```text
//! Packet Identifier (2 bytes), [Reason Code (1 byte), [Properties]]
//! ```
//!
//! In 5.0 success without properties is left out; 3.1.1 has neither.

use super::{PacketType, Properties, framed, packet_id};
use crate::codec::{NoSpace, Reader, Writer};
use crate::mqtt::{Error, PacketId, ReasonCode, Version};

/// Which of the four answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AckKind {
    /// Answers QoS 1.
    Puback,
    /// QoS 2: received.
    Pubrec,
    /// QoS 2: released.
    Pubrel,
    /// QoS 2: complete.
    Pubcomp,
}

impl AckKind {
    const fn packet_type(self) -> PacketType {
        match self {
            Self::Puback => PacketType::Puback,
            Self::Pubrec => PacketType::Pubrec,
            Self::Pubrel => PacketType::Pubrel,
            Self::Pubcomp => PacketType::Pubcomp,
        }
    }
}

/// An answer to a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ack<'a> {
    /// The message's identifier.
    pub id: PacketId,
    /// How it went.
    pub reason: ReasonCode,
    /// Properties (5.0).
    pub properties: Properties<'a>,
}

impl<'a> Ack<'a> {
    /// An answer that says no more than its identifier and reason.
    pub const fn new(id: PacketId, reason: ReasonCode) -> Self {
        Self { id, reason, properties: Properties::NONE }
    }

    /// Decodes the packet without its fixed header.
    ///
    /// # Errors
    /// Malformed or protocol error.
    pub fn decode(kind: AckKind, body: &'a [u8], version: Version) -> Result<Self, Error> {
        let mut r = Reader::new(body);
        let mut ack = Self::new(packet_id(&mut r, "ack.packet_id")?, ReasonCode::SUCCESS);
        if version == Version::V5 && !r.is_empty() {
            ack.reason = ReasonCode(r.u8("ack.reason")?);
            if !r.is_empty() {
                ack.properties = Properties::decode(&mut r, kind.packet_type())?;
            }
        }
        super::empty(r.rest(), "ack")?;
        Ok(ack)
    }

    /// Encodes the packet in its shortest form.
    ///
    /// # Errors
    /// If it does not fit.
    pub fn encode(&self, kind: AckKind, version: Version, w: &mut Writer<'_>) -> Result<(), NoSpace> {
        framed(w, kind.packet_type().first_byte(), 0, |w| {
            w.u16(self.id.value())?;
            let has_properties = !self.properties.is_empty();
            if version == Version::V5 && (self.reason != ReasonCode::SUCCESS || has_properties) {
                w.u8(self.reason.0)?;
                if has_properties {
                    self.properties.encode(w)?;
                }
            }
            Ok(())
        })
    }
}
