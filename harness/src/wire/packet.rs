//! The packets after CONNECT (MQTT 5.0 3.2-3.14).

use super::connect::read_properties;
use super::{Frame, Malformed, Properties, Reader, Version, kind, put_binary, reason, seal};

/// Quality of service.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize,
)]
pub enum Qos {
    /// At most once.
    #[default]
    #[serde(rename = "0")]
    AtMostOnce,
    /// At least once.
    #[serde(rename = "1")]
    AtLeastOnce,
    /// Exactly once.
    #[serde(rename = "2")]
    ExactlyOnce,
}

impl Qos {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::AtMostOnce, Self::AtLeastOnce, Self::ExactlyOnce];

    /// From the two lowest bits.
    #[must_use]
    pub fn from_bits(bits: u8) -> Option<Self> {
        match bits & 3 {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }

    /// As two bits.
    #[must_use]
    pub fn bits(self) -> u8 {
        self as u8
    }
}

/// CONNACK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connack {
    /// Whether the broker still had the session.
    pub session_present: bool,
    /// 0 for accepted.
    pub code: u8,
    /// Properties; empty in 3.1.1.
    pub properties: Properties,
}

/// PUBLISH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// Whether it may have been sent before.
    pub dup: bool,
    /// Quality of service.
    pub qos: Qos,
    /// Retain flag.
    pub retain: bool,
    /// Topic name.
    pub topic: String,
    /// Packet identifier; meaningless with QoS 0.
    pub packet_id: u16,
    /// Properties; not sent in 3.1.1.
    pub properties: Properties,
    /// Payload.
    pub payload: Vec<u8>,
}

impl Publish {
    /// A message without flags and properties.
    #[must_use]
    pub fn new(topic: &str, payload: impl Into<Vec<u8>>, qos: Qos) -> Self {
        Self {
            dup: false,
            qos,
            retain: false,
            topic: topic.to_owned(),
            packet_id: 0,
            properties: Properties::default(),
            payload: payload.into(),
        }
    }
}

/// The four packets that acknowledge a PUBLISH.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AckKind {
    /// PUBACK.
    Puback,
    /// PUBREC.
    Pubrec,
    /// PUBREL.
    Pubrel,
    /// PUBCOMP.
    Pubcomp,
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledge {
    /// Which of them.
    pub kind: AckKind,
    /// What it acknowledges.
    pub packet_id: u16,
    /// Reason code; always 0 in 3.1.1.
    pub reason: u8,
}

impl Acknowledge {
    /// One that reports success.
    #[must_use]
    pub fn new(kind: AckKind, packet_id: u16) -> Self {
        Self { kind, packet_id, reason: reason::SUCCESS }
    }
}

/// One filter of a SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Topic filter.
    pub filter: String,
    /// Highest quality of service wanted.
    pub qos: Qos,
}

/// SUBACK or UNSUBACK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionReply {
    /// What it replies to.
    pub packet_id: u16,
    /// One code per filter; none in a 3.1.1 UNSUBACK.
    pub codes: Vec<u8>,
}

/// A packet the harness exchanges with a broker once connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// CONNACK.
    Connack(Connack),
    /// PUBLISH.
    Publish(Publish),
    /// PUBACK, PUBREC, PUBREL, PUBCOMP.
    Acknowledge(Acknowledge),
    /// SUBSCRIBE.
    Subscribe {
        /// Packet identifier.
        packet_id: u16,
        /// What to subscribe to.
        subscriptions: Vec<Subscription>,
    },
    /// SUBACK.
    Suback(SubscriptionReply),
    /// UNSUBSCRIBE.
    Unsubscribe {
        /// Packet identifier.
        packet_id: u16,
        /// Topic filters.
        filters: Vec<String>,
    },
    /// UNSUBACK.
    Unsuback(SubscriptionReply),
    /// PINGREQ.
    Pingreq,
    /// PINGRESP.
    Pingresp,
    /// DISCONNECT.
    Disconnect {
        /// Reason code; always 0 in 3.1.1.
        reason: u8,
    },
}

impl Packet {
    /// Reads one whole packet.
    ///
    /// # Errors
    /// When a field is cut, out of range or of an unknown type; AUTH and CONNECT are not expected here.
    pub fn decode(bytes: &[u8], version: Version) -> Result<Self, Malformed> {
        let frame = Frame::peek(bytes)?.ok_or(Malformed("header"))?;
        let mut reader = Reader(bytes.get(frame.header..frame.length).ok_or(Malformed("packet"))?);
        match frame.kind {
            kind::CONNACK => Ok(Self::Connack(Connack {
                session_present: reader.u8("connack.flags")? & 1 == 1,
                code: reader.u8("connack.code")?,
                properties: read_properties(&mut reader, version)?,
            })),
            kind::PUBLISH => decode_publish(frame.flags, reader, version).map(Self::Publish),
            kind::PUBACK => decode_ack(AckKind::Puback, reader).map(Self::Acknowledge),
            kind::PUBREC => decode_ack(AckKind::Pubrec, reader).map(Self::Acknowledge),
            kind::PUBREL => decode_ack(AckKind::Pubrel, reader).map(Self::Acknowledge),
            kind::PUBCOMP => decode_ack(AckKind::Pubcomp, reader).map(Self::Acknowledge),
            kind::SUBACK => decode_reply(reader, version).map(Self::Suback),
            kind::UNSUBACK => decode_reply(reader, version).map(Self::Unsuback),
            kind::PINGREQ => Ok(Self::Pingreq),
            kind::PINGRESP => Ok(Self::Pingresp),
            kind::DISCONNECT => Ok(Self::Disconnect {
                reason: if reader.is_empty() { reason::SUCCESS } else { reader.u8("disconnect.reason")? },
            }),
            _ => Err(Malformed("packet type")),
        }
    }

    /// Writes the packet.
    #[must_use]
    pub fn encode(&self, version: Version) -> Vec<u8> {
        let with_properties = version == Version::V5;
        match self {
            Self::Connack(connack) => {
                let mut body = vec![u8::from(connack.session_present), connack.code];
                if with_properties {
                    connack.properties.put(&mut body);
                }
                seal(kind::CONNACK << 4, &body)
            }
            Self::Publish(publish) => encode_publish(publish, version),
            Self::Acknowledge(ack) => {
                let first = match ack.kind {
                    AckKind::Puback => kind::PUBACK << 4,
                    AckKind::Pubrec => kind::PUBREC << 4,
                    AckKind::Pubrel => (kind::PUBREL << 4) | 2,
                    AckKind::Pubcomp => kind::PUBCOMP << 4,
                };
                let mut body = ack.packet_id.to_be_bytes().to_vec();
                if with_properties && ack.reason != reason::SUCCESS {
                    body.push(ack.reason);
                }
                seal(first, &body)
            }
            Self::Subscribe { packet_id, subscriptions } => {
                let mut body = packet_id.to_be_bytes().to_vec();
                if with_properties {
                    body.push(0);
                }
                for subscription in subscriptions {
                    put_binary(&mut body, subscription.filter.as_bytes());
                    body.push(subscription.qos.bits());
                }
                seal((kind::SUBSCRIBE << 4) | 2, &body)
            }
            Self::Unsubscribe { packet_id, filters } => {
                let mut body = packet_id.to_be_bytes().to_vec();
                if with_properties {
                    body.push(0);
                }
                for filter in filters {
                    put_binary(&mut body, filter.as_bytes());
                }
                seal((kind::UNSUBSCRIBE << 4) | 2, &body)
            }
            Self::Suback(reply) | Self::Unsuback(reply) => {
                let mut body = reply.packet_id.to_be_bytes().to_vec();
                if with_properties {
                    body.push(0);
                }
                body.extend_from_slice(&reply.codes);
                let kind = if matches!(self, Self::Suback(_)) { kind::SUBACK } else { kind::UNSUBACK };
                seal(kind << 4, &body)
            }
            Self::Pingreq => seal(kind::PINGREQ << 4, &[]),
            Self::Pingresp => seal(kind::PINGRESP << 4, &[]),
            Self::Disconnect { reason } => {
                let body: &[u8] =
                    if with_properties && *reason != reason::SUCCESS { &[*reason] } else { &[] };
                seal(kind::DISCONNECT << 4, body)
            }
        }
    }
}

fn decode_publish(flags: u8, mut reader: Reader<'_>, version: Version) -> Result<Publish, Malformed> {
    let qos = Qos::from_bits(flags >> 1).ok_or(Malformed("publish.qos"))?;
    let topic = reader.string("publish.topic")?.to_owned();
    let packet_id = if qos == Qos::AtMostOnce { 0 } else { reader.u16("publish.packet_id")? };
    let properties = read_properties(&mut reader, version)?;
    Ok(Publish {
        dup: flags & 8 != 0,
        qos,
        retain: flags & 1 != 0,
        topic,
        packet_id,
        properties,
        payload: reader.0.to_vec(),
    })
}

fn encode_publish(publish: &Publish, version: Version) -> Vec<u8> {
    let first = (kind::PUBLISH << 4)
        | (u8::from(publish.dup) << 3)
        | (publish.qos.bits() << 1)
        | u8::from(publish.retain);
    let mut body = Vec::with_capacity(publish.topic.len() + publish.payload.len() + 16);
    put_binary(&mut body, publish.topic.as_bytes());
    if publish.qos != Qos::AtMostOnce {
        body.extend_from_slice(&publish.packet_id.to_be_bytes());
    }
    if version == Version::V5 {
        publish.properties.put(&mut body);
    }
    body.extend_from_slice(&publish.payload);
    seal(first, &body)
}

fn decode_ack(kind: AckKind, mut reader: Reader<'_>) -> Result<Acknowledge, Malformed> {
    Ok(Acknowledge {
        kind,
        packet_id: reader.u16("ack.packet_id")?,
        reason: if reader.is_empty() { reason::SUCCESS } else { reader.u8("ack.reason")? },
    })
}

fn decode_reply(mut reader: Reader<'_>, version: Version) -> Result<SubscriptionReply, Malformed> {
    let packet_id = reader.u16("reply.packet_id")?;
    read_properties(&mut reader, version)?;
    Ok(SubscriptionReply { packet_id, codes: reader.0.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::property;

    #[test]
    fn packets_read_back_as_they_were_written() {
        let mut publish = Publish::new("a/b", *b"payload", Qos::ExactlyOnce);
        publish.packet_id = 513;
        publish.dup = true;
        for version in [Version::V311, Version::V5] {
            for packet in [
                Packet::Connack(Connack {
                    session_present: true,
                    code: 0,
                    properties: Properties::default(),
                }),
                Packet::Publish(publish.clone()),
                Packet::Publish(Publish::new("t", *b"", Qos::AtMostOnce)),
                Packet::Acknowledge(Acknowledge::new(AckKind::Pubrel, 7)),
                Packet::Suback(SubscriptionReply { packet_id: 9, codes: vec![0, 1, 0x80] }),
                Packet::Pingreq,
                Packet::Pingresp,
                Packet::Disconnect { reason: 0 },
            ] {
                assert_eq!(Packet::decode(&packet.encode(version), version), Ok(packet));
            }
        }
    }

    #[test]
    fn reasons_and_properties_are_carried_in_version_5() {
        let mut publish = Publish::new("t", *b"x", Qos::AtLeastOnce);
        publish.properties = Properties::default().with_u16(property::TOPIC_ALIAS, 2);
        for packet in [
            Packet::Publish(publish),
            Packet::Disconnect { reason: reason::SESSION_TAKEN_OVER },
            Packet::Acknowledge(Acknowledge { kind: AckKind::Puback, packet_id: 1, reason: 0x10 }),
        ] {
            assert_eq!(Packet::decode(&packet.encode(Version::V5), Version::V5), Ok(packet));
        }
    }

    #[test]
    fn subscribe_matches_the_specification() {
        let packet = Packet::Subscribe {
            packet_id: 10,
            subscriptions: vec![
                Subscription { filter: "a/b".into(), qos: Qos::AtLeastOnce },
                Subscription { filter: "c/d".into(), qos: Qos::ExactlyOnce },
            ],
        };
        // MQTT 3.1.1 figure 3.23.
        assert_eq!(
            packet.encode(Version::V311),
            [0x82, 14, 0, 10, 0, 3, b'a', b'/', b'b', 1, 0, 3, b'c', b'/', b'd', 2]
        );
    }

    #[test]
    fn quality_of_service_three_is_malformed() {
        assert_eq!(Packet::decode(&[0x36, 3, 0, 1, b't'], Version::V311), Err(Malformed("publish.qos")));
    }
}
