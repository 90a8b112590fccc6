//! CONNECT (MQTT 5.0 3.1, MQTT 3.1.1 3.1).
//!
//! ```text
//! "MQTT" | level | flags | keep alive | properties (5.0) | client id
//!        | will properties (5.0), will topic, will payload | user name | password
//! ```

use super::packet::Qos;
use super::{Frame, Malformed, Properties, Reader, Version, kind, put_binary, seal};

const CLEAN_START: u8 = 0x02;
const WILL: u8 = 0x04;
const WILL_RETAIN: u8 = 0x20;
const PASSWORD: u8 = 0x40;
const USER_NAME: u8 = 0x80;

/// The message a broker publishes when a client vanishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// Topic.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// Quality of service.
    pub qos: Qos,
    /// Whether the broker keeps it as the topic's retained message.
    pub retain: bool,
    /// Its properties; not sent in 3.1.1.
    pub properties: Properties,
}

/// A CONNECT packet.
#[derive(Clone, PartialEq, Eq)]
pub struct Connect {
    /// Protocol version.
    pub version: Version,
    /// Clean start (clean session in 3.1.1).
    pub clean_start: bool,
    /// Keep alive in seconds; 0 switches it off.
    pub keep_alive_s: u16,
    /// Properties; not sent in 3.1.1.
    pub properties: Properties,
    /// Client identifier.
    pub client_id: String,
    /// Will message.
    pub will: Option<Will>,
    /// User name.
    pub user_name: Option<String>,
    /// Password.
    pub password: Option<Vec<u8>>,
}

/// Says whether there is a password, and nothing of it.
impl std::fmt::Debug for Connect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { version, clean_start, keep_alive_s, properties, client_id, will, user_name, password } =
            self;
        f.debug_struct("Connect")
            .field("version", version)
            .field("clean_start", clean_start)
            .field("keep_alive_s", keep_alive_s)
            .field("properties", properties)
            .field("client_id", client_id)
            .field("will", will)
            .field("user_name", user_name)
            .field("password", &password.as_ref().map(|_| "(hidden)"))
            .finish()
    }
}

impl Connect {
    /// A CONNECT with a clean start, a keep alive of a minute and nothing else.
    #[must_use]
    pub fn new(version: Version, client_id: &str) -> Self {
        Self {
            version,
            clean_start: true,
            keep_alive_s: 60,
            properties: Properties::default(),
            client_id: client_id.to_owned(),
            will: None,
            user_name: None,
            password: None,
        }
    }

    /// Reads a whole packet.
    ///
    /// # Errors
    /// When it is no CONNECT of a known version, naming the field.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let frame = Frame::peek(bytes)?.ok_or(Malformed("connect.header"))?;
        if frame.kind != kind::CONNECT || frame.flags != 0 {
            return Err(Malformed("connect.type"));
        }
        let mut reader = Reader(bytes.get(frame.header..frame.length).ok_or(Malformed("connect"))?);
        if reader.string("connect.protocol")? != "MQTT" {
            return Err(Malformed("connect.protocol"));
        }
        let version = match reader.u8("connect.level")? {
            4 => Version::V311,
            5 => Version::V5,
            _ => return Err(Malformed("connect.level")),
        };
        let flags = reader.u8("connect.flags")?;
        let keep_alive_s = reader.u16("connect.keep_alive")?;
        let properties = read_properties(&mut reader, version)?;
        let client_id = reader.string("connect.client_id")?.to_owned();
        let will = if flags & WILL != 0 {
            let properties = read_properties(&mut reader, version)?;
            Some(Will {
                topic: reader.string("connect.will_topic")?.to_owned(),
                payload: reader.binary("connect.will_payload")?.to_vec(),
                qos: Qos::from_bits(flags >> 3).ok_or(Malformed("connect.will_qos"))?,
                retain: flags & WILL_RETAIN != 0,
                properties,
            })
        } else {
            None
        };
        let user_name =
            if flags & USER_NAME != 0 { Some(reader.string("connect.user_name")?.to_owned()) } else { None };
        let password =
            if flags & PASSWORD != 0 { Some(reader.binary("connect.password")?.to_vec()) } else { None };
        Ok(Self {
            version,
            clean_start: flags & CLEAN_START != 0,
            keep_alive_s,
            properties,
            client_id,
            will,
            user_name,
            password,
        })
    }

    /// Writes the packet.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut flags = if self.clean_start { CLEAN_START } else { 0 };
        if let Some(will) = &self.will {
            flags |= WILL | (will.qos.bits() << 3) | if will.retain { WILL_RETAIN } else { 0 };
        }
        if self.user_name.is_some() {
            flags |= USER_NAME;
        }
        if self.password.is_some() {
            flags |= PASSWORD;
        }
        let mut body = Vec::new();
        put_binary(&mut body, b"MQTT");
        body.push(match self.version {
            Version::V311 => 4,
            Version::V5 => 5,
        });
        body.push(flags);
        body.extend_from_slice(&self.keep_alive_s.to_be_bytes());
        let with_properties = self.version == Version::V5;
        if with_properties {
            self.properties.put(&mut body);
        }
        put_binary(&mut body, self.client_id.as_bytes());
        if let Some(will) = &self.will {
            if with_properties {
                will.properties.put(&mut body);
            }
            put_binary(&mut body, will.topic.as_bytes());
            put_binary(&mut body, &will.payload);
        }
        if let Some(user_name) = &self.user_name {
            put_binary(&mut body, user_name.as_bytes());
        }
        if let Some(password) = &self.password {
            put_binary(&mut body, password);
        }
        seal(kind::CONNECT << 4, &body)
    }
}

pub(super) fn read_properties(reader: &mut Reader<'_>, version: Version) -> Result<Properties, Malformed> {
    match version {
        Version::V311 => Ok(Properties::default()),
        Version::V5 => Properties::read(reader),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::property;

    #[test]
    fn a_password_is_not_shown() {
        let mut connect = Connect::new(Version::V5, "board-1");
        assert!(format!("{connect:?}").contains("password: None"));
        connect.password = Some(vec![171; 8]);
        let shown = format!("{connect:?}");
        assert!(shown.contains("hidden") && !shown.contains("171"), "{shown}");
    }

    #[test]
    fn every_field_survives_in_both_versions() {
        for version in [Version::V311, Version::V5] {
            let mut connect = Connect::new(version, "board-1");
            connect.clean_start = false;
            connect.keep_alive_s = 7;
            connect.will = Some(Will {
                topic: "gone".into(),
                payload: b"yes".to_vec(),
                qos: Qos::AtLeastOnce,
                retain: true,
                properties: Properties::default(),
            });
            connect.user_name = Some("u".into());
            connect.password = Some(b"p".to_vec());
            if version == Version::V5 {
                connect.properties = Properties::default().with_u32(property::SESSION_EXPIRY_INTERVAL, 60);
            }
            assert_eq!(Connect::decode(&connect.encode()), Ok(connect));
        }
    }

    /// MQTT 3.1.1 figure 3.6, with "a" as client identifier.
    #[test]
    fn encoding_matches_the_specification() {
        let mut connect = Connect::new(Version::V311, "a");
        connect.keep_alive_s = 10;
        assert_eq!(connect.encode(), [0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 0x02, 0, 10, 0, 1, b'a']);
    }

    #[test]
    fn a_cut_packet_names_the_missing_field() {
        let mut bytes = Connect::new(Version::V5, "a").encode();
        bytes.pop();
        bytes[1] -= 1;
        assert_eq!(Connect::decode(&bytes), Err(Malformed("connect.client_id")));
    }
}
