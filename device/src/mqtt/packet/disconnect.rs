//! DISCONNECT (MQTT 5.0 3.14, MQTT 3.1.1 3.14): the last packet of a connection.
//!
//! ```text
//! [Reason Code (1 byte), [Properties]]
//! ```
//!
//! A normal disconnection without properties is left out; in 3.1.1 the packet is always empty.

use super::{PacketType, Properties, framed};
use crate::codec::{NoSpace, Reader, Writer};
use crate::mqtt::{Error, ReasonCode, Version};

/// Ends the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Disconnect<'a> {
    /// Why.
    pub reason: ReasonCode,
    /// Properties (5.0).
    pub properties: Properties<'a>,
}

impl<'a> Disconnect<'a> {
    /// For `reason`, and no more words.
    pub const fn new(reason: ReasonCode) -> Self {
        Self { reason, properties: Properties::NONE }
    }

    /// Decodes the packet without its fixed header.
    ///
    /// # Errors
    /// Malformed or protocol error.
    pub fn decode(body: &'a [u8], version: Version) -> Result<Self, Error> {
        let mut r = Reader::new(body);
        let mut disconnect = Self::new(ReasonCode::SUCCESS);
        if version == Version::V5 && !r.is_empty() {
            disconnect.reason = ReasonCode(r.u8("disconnect.reason")?);
            if !r.is_empty() {
                disconnect.properties = Properties::decode(&mut r, PacketType::Disconnect)?;
            }
        }
        super::empty(r.rest(), "disconnect")?;
        Ok(disconnect)
    }

    /// Encodes the packet in its shortest form.
    ///
    /// # Errors
    /// If it does not fit.
    pub fn encode(&self, version: Version, w: &mut Writer<'_>) -> Result<(), NoSpace> {
        framed(w, PacketType::Disconnect.first_byte(), 0, |w| {
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
