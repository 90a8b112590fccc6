//! CONNACK (MQTT 5.0 3.2, MQTT 3.1.1 3.2): answers CONNECT.
//!
//! ```text
//! Acknowledge Flags (1 byte: bit 0 session present), Reason Code (1 byte), [Properties]
//! ```

use super::{PacketType, Properties, framed, properties, put_properties};
use crate::codec::{NoSpace, Reader, Writer};
use crate::mqtt::{Error, ReasonCode, Version};

/// Answers CONNECT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connack<'a> {
    /// Whether the server continues an older session.
    pub session_present: bool,
    /// Success, or why not; return codes of 3.1.1 in the words of 5.0.
    pub reason: ReasonCode,
    /// Properties (5.0).
    pub properties: Properties<'a>,
}

impl<'a> Connack<'a> {
    /// Decodes the packet without its fixed header.
    ///
    /// # Errors
    /// Malformed or protocol error.
    pub fn decode(body: &'a [u8], version: Version) -> Result<Self, Error> {
        let mut r = Reader::new(body);
        let flags = r.u8("connack.flags")?;
        if flags & !1 != 0 {
            return Err(Error::malformed("connack.flags"));
        }
        let session_present = flags == 1;
        let code = r.u8("connack.reason")?;
        let reason = match version {
            Version::V3_1_1 => ReasonCode::from_connack_v3(code).ok_or(Error::protocol("connack.reason"))?,
            Version::V5 => ReasonCode(code),
        };
        if reason != ReasonCode::SUCCESS && (session_present || !reason.is_error()) {
            return Err(Error::protocol("connack.session_present"));
        }
        let properties = properties(&mut r, PacketType::Connack, version)?;
        super::empty(r.rest(), "connack")?;
        Ok(Self { session_present, reason, properties })
    }

    /// Encodes the packet.
    ///
    /// # Errors
    /// If it does not fit.
    pub fn encode(&self, version: Version, w: &mut Writer<'_>) -> Result<(), NoSpace> {
        framed(w, PacketType::Connack.first_byte(), 0, |w| {
            w.u8(u8::from(self.session_present))?;
            w.u8(match version {
                Version::V3_1_1 => self.return_code(),
                Version::V5 => self.reason.0,
            })?;
            put_properties(w, self.properties, version)
        })
    }

    /// The nearest return code of 3.1.1.
    const fn return_code(&self) -> u8 {
        match self.reason {
            ReasonCode::SUCCESS => 0,
            ReasonCode::UNSUPPORTED_PROTOCOL_VERSION => 1,
            ReasonCode::CLIENT_IDENTIFIER_NOT_VALID => 2,
            ReasonCode::BAD_USER_NAME_OR_PASSWORD => 4,
            ReasonCode::NOT_AUTHORIZED => 5,
            _ => 3,
        }
    }
}
