//! MQTT packets as a broker sees them: what clients send is decoded, what a broker sends is encoded.
//!
//! Written independently of the device's codec, so that a misreading of the standard does not cancel out.

mod encode;

use std::collections::BTreeMap;

pub use encode::{
    acknowledgement, connack, disconnect, pingresp, publish_packet, refusal, subscription_acknowledgement,
};

/// Protocol level of MQTT 5.0 in CONNECT.
const LEVEL_5: u8 = 5;

/// A packet from a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Packet {
    /// CONNECT.
    Connect(Connect),
    /// PUBLISH.
    Publish(Publish),
    /// PUBACK.
    Puback(u16),
    /// PUBREC, and whether it refuses the message.
    Pubrec(u16, bool),
    /// PUBREL.
    Pubrel(u16),
    /// PUBCOMP.
    Pubcomp(u16),
    /// SUBSCRIBE.
    Subscribe(u16, Vec<Wanted>),
    /// UNSUBSCRIBE.
    Unsubscribe(u16, Vec<String>),
    /// PINGREQ.
    Pingreq,
    /// DISCONNECT and its reason code.
    Disconnect(u8),
}

/// A topic filter of SUBSCRIBE and its options.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// The filter.
    pub filter: String,
    /// The maximum QoS.
    pub qos: u8,
    /// Whether messages keep the retain flag they were published with.
    pub retain_as_published: bool,
    /// When retained messages are sent: 0 always, 1 if the subscription is new, 2 never.
    pub retain_handling: u8,
}

impl Wanted {
    /// 3.8.3.1; 3.1.1 has only the QoS.
    fn decode(reader: &mut Reader<'_>, v5: bool) -> Result<Self> {
        let filter = reader.text()?;
        let options = reader.u8()?;
        let wanted = Self {
            filter,
            qos: options & 3,
            retain_as_published: options & 8 != 0,
            retain_handling: options >> 4 & 3,
        };
        let reserved = if v5 { 0xc0 } else { 0xfc };
        if wanted.filter.is_empty()
            || wanted.qos == 3
            || wanted.retain_handling == 3
            || options & reserved != 0
        {
            return Err(Malformed("filter or options of SUBSCRIBE"));
        }
        Ok(wanted)
    }
}

/// CONNECT's fields.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Connect {
    /// Whether it is MQTT 5.0, not 3.1.1.
    pub v5: bool,
    /// Clean session, clean start.
    pub clean: bool,
    /// The client identifier.
    pub client_id: String,
    /// Whether the session outlives the connection.
    pub persistent: bool,
    /// How many QoS 1 and 2 messages the client takes at a time.
    pub receive_maximum: u16,
    /// The largest packet it takes, if it says.
    pub maximum_packet_size: Option<u32>,
}

/// PUBLISH's fields.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Publish {
    /// DUP.
    pub dup: bool,
    /// QoS 0 to 2.
    pub qos: u8,
    /// RETAIN.
    pub retain: bool,
    /// The packet identifier; 0 with QoS 0.
    pub id: u16,
    /// The topic; empty if only an alias was given.
    pub topic: String,
    /// The topic alias.
    pub alias: Option<u16>,
    /// The payload.
    pub payload: Vec<u8>,
}

/// A packet that breaks the standard, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed(pub &'static str);

type Result<T> = core::result::Result<T, Malformed>;

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Malformed("a field ends early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn binary(&mut self) -> Result<&'a [u8]> {
        let len = self.u16()?;
        self.take(len.into())
    }

    fn text(&mut self) -> Result<String> {
        String::from_utf8(self.binary()?.to_vec()).map_err(|_| Malformed("a string is not UTF-8"))
    }

    fn id(&mut self) -> Result<u16> {
        match self.u16()? {
            0 => Err(Malformed("packet identifier 0")),
            id => Ok(id),
        }
    }

    /// The properties of a 5.0 packet that are numbers; the others are skipped.
    fn properties(&mut self) -> Result<BTreeMap<u8, u32>> {
        let (len, size) = varint(self.0)?.ok_or(Malformed("property length ends early"))?;
        self.take(size)?;
        let mut reader = Reader(self.take(len)?);
        let mut numbers = BTreeMap::new();
        while !reader.0.is_empty() {
            let id = reader.u8()?;
            let number = match id {
                0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => reader.u8()?.into(),
                0x13 | 0x21 | 0x22 | 0x23 => reader.u16()?.into(),
                0x02 | 0x11 | 0x18 | 0x27 => {
                    let bytes = reader.take(4)?;
                    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
                }
                0x0b => {
                    let (number, size) = varint(reader.0)?.ok_or(Malformed("a property ends early"))?;
                    reader.take(size)?;
                    number as u32
                }
                0x26 => {
                    reader.binary()?;
                    reader.binary()?;
                    continue;
                }
                0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => {
                    reader.binary()?;
                    continue;
                }
                _ => return Err(Malformed("an unknown property")),
            };
            if numbers.insert(id, number).is_some() {
                return Err(Malformed("a property twice"));
            }
        }
        Ok(numbers)
    }
}

/// A variable byte integer and its size, if it is complete.
fn varint(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() >= 4 { Err(Malformed("a length of more than four bytes")) } else { Ok(None) }
}

/// The first packet in `bytes` and its size, once it is complete.
///
/// # Errors
/// [`Malformed`] if it can never become a packet of this version.
pub fn decode(bytes: &[u8], v5: bool) -> Result<Option<(Packet, usize)>> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    let Some((len, size)) = varint(&bytes[1..])? else { return Ok(None) };
    let Some(body) = bytes.get(1 + size..1 + size + len) else { return Ok(None) };
    let packet = decode_body(first, Reader(body), v5)?;
    Ok(Some((packet, 1 + size + len)))
}

fn decode_body(first: u8, mut reader: Reader<'_>, v5: bool) -> Result<Packet> {
    let flags = first & 0x0f;
    let expected = if matches!(first >> 4, 6 | 8 | 10) { 2 } else { 0 };
    if first >> 4 != 3 && flags != expected {
        return Err(Malformed("reserved flags of the fixed header"));
    }
    let packet = match first >> 4 {
        1 => return connect(reader),
        3 => return publish(flags, reader, v5),
        4 => Packet::Puback(acknowledged(&mut reader, v5)?.0),
        5 => {
            let (id, reason) = acknowledged(&mut reader, v5)?;
            Packet::Pubrec(id, reason >= 0x80)
        }
        6 => Packet::Pubrel(acknowledged(&mut reader, v5)?.0),
        7 => Packet::Pubcomp(acknowledged(&mut reader, v5)?.0),
        8 => {
            let id = reader.id()?;
            if v5 {
                reader.properties()?;
            }
            let mut filters = Vec::new();
            while !reader.0.is_empty() {
                filters.push(Wanted::decode(&mut reader, v5)?);
            }
            if filters.is_empty() {
                return Err(Malformed("SUBSCRIBE to nothing"));
            }
            Packet::Subscribe(id, filters)
        }
        10 => {
            let id = reader.id()?;
            if v5 {
                reader.properties()?;
            }
            let mut filters = Vec::new();
            while !reader.0.is_empty() {
                filters.push(reader.text()?);
            }
            if filters.is_empty() {
                return Err(Malformed("UNSUBSCRIBE from nothing"));
            }
            Packet::Unsubscribe(id, filters)
        }
        12 => Packet::Pingreq,
        14 if v5 && !reader.0.is_empty() => {
            let reason = reader.u8()?;
            if !reader.0.is_empty() {
                reader.properties()?;
            }
            Packet::Disconnect(reason)
        }
        14 => Packet::Disconnect(0),
        _ => return Err(Malformed("a packet type that clients do not send")),
    };
    if reader.0.is_empty() { Ok(packet) } else { Err(Malformed("bytes after the end of a packet")) }
}

/// Identifier and reason code of an acknowledgement.
fn acknowledged(reader: &mut Reader<'_>, v5: bool) -> Result<(u16, u8)> {
    let id = reader.id()?;
    let reason = if v5 && !reader.0.is_empty() { reader.u8()? } else { 0 };
    if v5 && !reader.0.is_empty() {
        reader.properties()?;
    }
    Ok((id, reason))
}

fn connect(mut reader: Reader<'_>) -> Result<Packet> {
    if reader.text()? != "MQTT" {
        return Err(Malformed("protocol name"));
    }
    let level = reader.u8()?;
    let flags = reader.u8()?;
    let v5 = level == LEVEL_5;
    if (!v5 && level != 4) || flags & 1 != 0 {
        return Err(Malformed("protocol level or connect flags"));
    }
    let _keep_alive = reader.u16()?;
    let properties = if v5 { reader.properties()? } else { BTreeMap::new() };
    let client_id = reader.text()?;
    if flags & 0x04 != 0 {
        if v5 {
            reader.properties()?;
        }
        reader.text()?;
        reader.binary()?;
    }
    if flags & 0x80 != 0 {
        reader.text()?;
    }
    if flags & 0x40 != 0 {
        reader.binary()?;
    }
    if !reader.0.is_empty() {
        return Err(Malformed("bytes after the end of CONNECT"));
    }
    let clean = flags & 0x02 != 0;
    Ok(Packet::Connect(Connect {
        v5,
        clean,
        client_id,
        persistent: if v5 { properties.get(&0x11).is_some_and(|&expiry_s| expiry_s > 0) } else { !clean },
        receive_maximum: properties.get(&0x21).map_or(u16::MAX, |&maximum| maximum as u16),
        maximum_packet_size: properties.get(&0x27).copied(),
    }))
}

fn publish(flags: u8, mut reader: Reader<'_>, v5: bool) -> Result<Packet> {
    let qos = flags >> 1 & 3;
    if qos == 3 || (qos == 0 && flags & 8 != 0) {
        return Err(Malformed("flags of PUBLISH"));
    }
    let topic = reader.text()?;
    let id = if qos > 0 { reader.id()? } else { 0 };
    let properties = if v5 { reader.properties()? } else { BTreeMap::new() };
    let alias = properties.get(&0x23).map(|&alias| alias as u16);
    if topic.contains(['+', '#']) || alias == Some(0) || (topic.is_empty() && alias.is_none()) {
        return Err(Malformed("topic of PUBLISH"));
    }
    Ok(Packet::Publish(Publish {
        dup: flags & 8 != 0,
        qos,
        retain: flags & 1 != 0,
        id,
        topic,
        alias,
        payload: reader.0.to_vec(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_of_the_standards_example_decodes() {
        // 3.1.1, 3.3: topic a/b, packet identifier 10.
        let bytes = [0x32, 0x07, 0x00, 0x03, b'a', b'/', b'b', 0x00, 0x0a];
        let Ok(Some((Packet::Publish(publish), 9))) = decode(&bytes, false) else { panic!("a PUBLISH") };
        assert_eq!((publish.topic.as_str(), publish.id, publish.qos), ("a/b", 10, 1));
        assert_eq!(publish_packet(false, &publish), bytes);
    }

    #[test]
    fn incomplete_packets_wait_and_broken_ones_are_refused() {
        assert_eq!(decode(&[0x32, 0x07, 0x00], false), Ok(None));
        assert_eq!(decode(&[0xc0, 0x00], false), Ok(Some((Packet::Pingreq, 2))));
        assert!(decode(&[0xc1, 0x00], false).is_err());
        assert!(decode(&[0x36, 0x02, 0, 0], false).is_err());
        assert!(decode(&[0x40, 0x02, 0, 0], false).is_err());
    }
}
