//! What a broker sends.

use super::Publish;

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut len = body.len();
    loop {
        let more = len > 0x7f;
        bytes.push((len & 0x7f) as u8 | if more { 0x80 } else { 0 });
        len >>= 7;
        if !more {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

/// CONNACK that refuses, by the reason code of 5.0 and what comes closest to it in 3.1.1 (3.2.2.3).
#[must_use]
pub fn refusal(v5: bool, reason: u8) -> Vec<u8> {
    if v5 {
        return packet(0x20, &[0, reason, 0]);
    }
    let code = match reason {
        0x84 => 1,
        0x85 => 2,
        0x86 => 4,
        0x87 | 0x8a | 0x8c => 5,
        _ => 3,
    };
    packet(0x20, &[0, code])
}

/// CONNACK that accepts.
#[must_use]
pub fn connack(v5: bool, session_present: bool, receive_maximum: u16, topic_alias_maximum: u16) -> Vec<u8> {
    let mut body = vec![u8::from(session_present), 0];
    if v5 {
        body.push(6);
        body.push(0x21);
        body.extend(receive_maximum.to_be_bytes());
        body.push(0x22);
        body.extend(topic_alias_maximum.to_be_bytes());
    }
    packet(0x20, &body)
}

/// PUBLISH.
#[must_use]
pub fn publish_packet(v5: bool, publish: &Publish) -> Vec<u8> {
    let mut body = (publish.topic.len() as u16).to_be_bytes().to_vec();
    body.extend(publish.topic.as_bytes());
    if publish.qos > 0 {
        body.extend(publish.id.to_be_bytes());
    }
    if v5 {
        body.push(0);
    }
    body.extend(&publish.payload);
    let flags = u8::from(publish.dup) << 3 | publish.qos << 1 | u8::from(publish.retain);
    packet(0x30 | flags, &body)
}

/// PUBACK (4), PUBREC (5), PUBREL (6) or PUBCOMP (7); with a reason code (5.0) unless it is success.
#[must_use]
pub fn acknowledgement(kind: u8, id: u16, reason: u8) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    body.extend((reason != 0).then_some(reason));
    packet(kind << 4 | if kind == 6 { 2 } else { 0 }, &body)
}

/// SUBACK (9) or UNSUBACK (11) with their codes.
#[must_use]
pub fn subscription_acknowledgement(kind: u8, v5: bool, id: u16, codes: &[u8]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if v5 {
        body.push(0);
    }
    if v5 || kind == 9 {
        body.extend(codes);
    }
    packet(kind << 4, &body)
}

/// DISCONNECT of 5.0, with a reason code.
#[must_use]
pub fn disconnect(reason: u8) -> Vec<u8> {
    packet(0xe0, &[reason])
}

/// PINGRESP.
#[must_use]
pub fn pingresp() -> Vec<u8> {
    packet(0xd0, &[])
}
