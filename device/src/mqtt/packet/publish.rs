//! PUBLISH (MQTT 5.0 3.3, MQTT 3.1.1 3.3): a message.
//!
//! ```text
//! Flags: DUP (bit 3), QoS (bits 2-1), RETAIN (bit 0)
//! Topic Name (string), [Packet Identifier (2 bytes, QoS 1 and 2)], [Properties], Payload (the rest)
//! ```

use super::{PacketType, Properties, Property, framed, packet_id, properties, put_string, string};
use crate::codec::{NoSpace, Reader, Writer};
use crate::mqtt::{Duplicate, Error, PacketId, Qos, ReasonCode, Retain, Version, topic};

/// A message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Publish<'a> {
    /// Whether it was sent before.
    pub duplicate: Duplicate,
    /// How surely it is delivered; QoS 1 and 2 carry the packet identifier.
    pub delivery: Delivery,
    /// Whether it is retained.
    pub retain: Retain,
    /// The topic name; empty if an alias stands for it.
    pub topic: &'a str,
    /// Properties (5.0).
    pub properties: Properties<'a>,
    /// The payload.
    pub payload: &'a [u8],
}

/// QoS and packet identifier, which belong together (2.2.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// QoS 0.
    AtMostOnce,
    /// QoS 1.
    AtLeastOnce(PacketId),
    /// QoS 2.
    ExactlyOnce(PacketId),
}

impl Delivery {
    /// The QoS.
    pub const fn qos(self) -> Qos {
        match self {
            Self::AtMostOnce => Qos::AtMostOnce,
            Self::AtLeastOnce(_) => Qos::AtLeastOnce,
            Self::ExactlyOnce(_) => Qos::ExactlyOnce,
        }
    }

    /// The packet identifier, but for QoS 0.
    pub const fn id(self) -> Option<PacketId> {
        match self {
            Self::AtMostOnce => None,
            Self::AtLeastOnce(id) | Self::ExactlyOnce(id) => Some(id),
        }
    }
}

const RETAIN: u8 = 1;
const QOS_SHIFT: u8 = 1;
const DUP: u8 = 1 << 3;

impl<'a> Publish<'a> {
    /// Decodes the packet without its fixed header.
    ///
    /// # Errors
    /// `TOPIC_NAME_INVALID`, `TOPIC_ALIAS_INVALID`, malformed or protocol error.
    pub fn decode(flags: u8, body: &'a [u8], version: Version) -> Result<Self, Error> {
        let qos = Qos::from_bits(flags >> QOS_SHIFT & 3).ok_or(Error::malformed("publish.qos"))?;
        let duplicate = if flags & DUP != 0 { Duplicate::Yes } else { Duplicate::No };
        if qos == Qos::AtMostOnce && duplicate == Duplicate::Yes {
            return Err(Error::malformed("publish.dup"));
        }
        let mut r = Reader::new(body);
        let topic = string(&mut r, "publish.topic")?;
        let delivery = match qos {
            Qos::AtMostOnce => Delivery::AtMostOnce,
            Qos::AtLeastOnce => Delivery::AtLeastOnce(packet_id(&mut r, "publish.packet_id")?),
            Qos::ExactlyOnce => Delivery::ExactlyOnce(packet_id(&mut r, "publish.packet_id")?),
        };
        let properties = properties(&mut r, PacketType::Publish, version)?;
        let publish = Self {
            duplicate,
            delivery,
            retain: Retain::from_flag(flags & RETAIN != 0),
            topic,
            properties,
            payload: r.rest(),
        };
        publish.check_topic()?;
        Ok(publish)
    }

    fn check_topic(&self) -> Result<(), Error> {
        let alias = self.topic_alias();
        if alias == Some(0) {
            return Err(Error { reason: ReasonCode::TOPIC_ALIAS_INVALID, field: "publish.topic_alias" });
        }
        if self.topic.is_empty() && alias.is_some() {
            return Ok(());
        }
        match self.topic {
            "" => Err(Error::protocol("publish.topic")),
            name if topic::is_topic_name(name) => Ok(()),
            _ => Err(Error { reason: ReasonCode::TOPIC_NAME_INVALID, field: "publish.topic" }),
        }
    }

    /// The topic alias among the properties.
    pub fn topic_alias(&self) -> Option<u16> {
        self.properties.find(|property| match property {
            Property::TopicAlias(alias) => Some(alias),
            _ => None,
        })
    }

    /// Encodes the packet.
    ///
    /// # Errors
    /// If it does not fit.
    pub fn encode(&self, version: Version, w: &mut Writer<'_>) -> Result<(), NoSpace> {
        let start = w.len();
        let written = self.encode_head(version, None, w).and_then(|()| w.put(self.payload));
        if written.is_err() {
            w.truncate(start);
        }
        written
    }

    /// Encodes everything in front of the payload, with a topic alias of the session's.
    pub(in crate::mqtt) fn encode_head(
        &self,
        version: Version,
        alias: Option<u16>,
        w: &mut Writer<'_>,
    ) -> Result<(), NoSpace> {
        let mut first = PacketType::Publish.first_byte() | self.delivery.qos().bits() << QOS_SHIFT;
        if self.duplicate == Duplicate::Yes {
            first |= DUP;
        }
        if self.retain == Retain::Yes {
            first |= RETAIN;
        }
        framed(w, first, self.payload.len(), |w| {
            put_string(w, self.topic)?;
            if let Some(id) = self.delivery.id() {
                w.u16(id.value())?;
            }
            match version {
                Version::V3_1_1 => Ok(()),
                Version::V5 => self.properties.encode_after(alias.map(Property::TopicAlias), w),
            }
        })
    }
}
