//! AUTH (MQTT 5.0 3.15): extended authentication. 3.1.1 does not have it.
//!
//! ```text
//! [Reason Code (1 byte), Properties]
//! ```

use super::{PacketType, Properties, framed};
use crate::codec::{NoSpace, Reader, Writer};
use crate::mqtt::{Error, ReasonCode, Version};

/// A step of extended authentication.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Auth<'a> {
    /// Which step.
    pub reason: ReasonCode,
    /// Properties.
    pub properties: Properties<'a>,
}

impl<'a> Auth<'a> {
    /// Decodes the packet without its fixed header.
    ///
    /// # Errors
    /// Malformed or protocol error; always in 3.1.1.
    pub fn decode(body: &'a [u8], version: Version) -> Result<Self, Error> {
        if version == Version::V3_1_1 {
            return Err(Error::malformed("fixed_header.packet_type"));
        }
        let mut r = Reader::new(body);
        let mut auth = Self { reason: ReasonCode::SUCCESS, properties: Properties::NONE };
        if !r.is_empty() {
            auth.reason = ReasonCode(r.u8("auth.reason")?);
            if !r.is_empty() {
                auth.properties = Properties::decode(&mut r, PacketType::Auth)?;
            }
        }
        let known = [ReasonCode::SUCCESS, ReasonCode::CONTINUE_AUTHENTICATION, ReasonCode::RE_AUTHENTICATE];
        if !known.contains(&auth.reason) {
            return Err(Error::protocol("auth.reason"));
        }
        super::empty(r.rest(), "auth")?;
        Ok(auth)
    }

    /// Encodes the packet in its shortest form.
    ///
    /// # Errors
    /// If it does not fit.
    pub fn encode(&self, w: &mut Writer<'_>) -> Result<(), NoSpace> {
        framed(w, PacketType::Auth.first_byte(), 0, |w| {
            if self.reason != ReasonCode::SUCCESS || !self.properties.is_empty() {
                w.u8(self.reason.0)?;
                self.properties.encode(w)?;
            }
            Ok(())
        })
    }
}
