//! CONNECT (MQTT 5.0 3.1, MQTT 3.1.1 3.1): opens a session.
//!
//! ```text
//! "MQTT" (string), Level (1 byte: 4, 5), Flags (1 byte), Keep Alive (2 bytes), [Properties],
//! Client Identifier (string), [[Will Properties], Will Topic (string), Will Payload (binary)],
//! [User Name (string)], [Password (binary)]
//! ```

use super::{PacketType, Properties, framed, properties, put_binary, put_properties, put_string, string};
use crate::codec::{NoSpace, Reader, Writer};
use crate::mqtt::{Error, Qos, ReasonCode, Retain, Version, Will, topic};
use crate::redacted::redacted_debug;

/// Opens a session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The protocol version of the connection.
    pub version: Version,
    /// Whether an older session is thrown away.
    pub clean_start: bool,
    /// Longest silence in seconds; 0 for no limit.
    pub keep_alive_s: u16,
    /// Properties (5.0).
    pub properties: Properties<'a>,
    /// The client identifier.
    pub client_id: &'a str,
    /// The message for when the client vanishes.
    pub will: Option<Will<'a>>,
    /// The user name.
    pub user_name: Option<&'a str>,
    /// The password.
    pub password: Option<&'a [u8]>,
}

redacted_debug! {
    [] Connect<'_>, "Connect",
    shown: [version, clean_start, keep_alive_s, properties, client_id, will, user_name],
    length: [], hidden: [password]
}

const CLEAN_START: u8 = 1 << 1;
const WILL: u8 = 1 << 2;
const WILL_QOS_SHIFT: u8 = 3;
const WILL_RETAIN: u8 = 1 << 5;
const PASSWORD: u8 = 1 << 6;
const USER_NAME: u8 = 1 << 7;

impl<'a> Connect<'a> {
    /// Decodes the packet without its fixed header.
    ///
    /// # Errors
    /// `UNSUPPORTED_PROTOCOL_VERSION` for another protocol, else malformed or protocol error.
    pub fn decode(body: &'a [u8]) -> Result<Self, Error> {
        let mut r = Reader::new(body);
        if string(&mut r, "connect.protocol_name")? != "MQTT" {
            return Err(unsupported("connect.protocol_name"));
        }
        let version = match r.u8("connect.protocol_version")? {
            4 => Version::V3_1_1,
            5 => Version::V5,
            _ => return Err(unsupported("connect.protocol_version")),
        };
        let flags = r.u8("connect.flags")?;
        if flags & 1 != 0 {
            return Err(Error::malformed("connect.flags"));
        }
        let keep_alive_s = r.u16("connect.keep_alive")?;
        let properties = properties(&mut r, PacketType::Connect, version)?;
        let client_id = string(&mut r, "connect.client_id")?;
        let will = Self::decode_will(&mut r, flags, version)?;
        let user_name =
            if flags & USER_NAME != 0 { Some(string(&mut r, "connect.user_name")?) } else { None };
        let password = if flags & PASSWORD != 0 { Some(r.vec16("connect.password")?) } else { None };
        if version == Version::V3_1_1 && password.is_some() && user_name.is_none() {
            return Err(Error::malformed("connect.flags"));
        }
        super::empty(r.rest(), "connect")?;
        let clean_start = flags & CLEAN_START != 0;
        Ok(Self { version, clean_start, keep_alive_s, properties, client_id, will, user_name, password })
    }

    fn decode_will(r: &mut Reader<'a>, flags: u8, version: Version) -> Result<Option<Will<'a>>, Error> {
        let qos = Qos::from_bits(flags >> WILL_QOS_SHIFT & 3).ok_or(Error::malformed("connect.flags"))?;
        let retain = Retain::from_flag(flags & WILL_RETAIN != 0);
        if flags & WILL == 0 {
            let is_clear = qos == Qos::AtMostOnce && retain == Retain::No;
            return if is_clear { Ok(None) } else { Err(Error::malformed("connect.flags")) };
        }
        let properties = match version {
            Version::V3_1_1 => Properties::NONE,
            Version::V5 => Properties::decode_will(r)?,
        };
        let topic = string(r, "connect.will_topic")?;
        if !topic::is_topic_name(topic) {
            return Err(Error { reason: ReasonCode::TOPIC_NAME_INVALID, field: "connect.will_topic" });
        }
        let payload = r.vec16("connect.will_payload")?;
        Ok(Some(Will { topic, payload, qos, retain, properties }))
    }

    /// Encodes the packet.
    ///
    /// # Errors
    /// If it does not fit.
    pub fn encode(&self, w: &mut Writer<'_>) -> Result<(), NoSpace> {
        framed(w, PacketType::Connect.first_byte(), 0, |w| {
            put_string(w, "MQTT")?;
            w.u8(match self.version {
                Version::V3_1_1 => 4,
                Version::V5 => 5,
            })?;
            w.u8(self.flags())?;
            w.u16(self.keep_alive_s)?;
            put_properties(w, self.properties, self.version)?;
            put_string(w, self.client_id)?;
            if let Some(will) = &self.will {
                put_properties(w, will.properties, self.version)?;
                put_string(w, will.topic)?;
                put_binary(w, will.payload)?;
            }
            self.user_name.map_or(Ok(()), |name| put_string(w, name))?;
            self.password.map_or(Ok(()), |password| put_binary(w, password))
        })
    }

    fn flags(&self) -> u8 {
        let mut flags = if self.clean_start { CLEAN_START } else { 0 };
        if let Some(will) = &self.will {
            flags |= WILL | will.qos.bits() << WILL_QOS_SHIFT;
            if will.retain == Retain::Yes {
                flags |= WILL_RETAIN;
            }
        }
        if self.user_name.is_some() {
            flags |= USER_NAME;
        }
        if self.password.is_some() {
            flags |= PASSWORD;
        }
        flags
    }
}

const fn unsupported(field: &'static str) -> Error {
    Error { reason: ReasonCode::UNSUPPORTED_PROTOCOL_VERSION, field }
}
