//! A server that breaks the rules, one at a time: each ends in the standard's reason code.

use super::*;
use crate::mqtt::Error;

/// What the client does about `bytes` on the control stream.
fn answer(version: Version, bytes: &[u8]) -> Option<(Error, Option<ReasonCode>)> {
    let mut world = World::with(Options { version, ..Options::new("client") });
    world.connect(&[]);
    world.wire.to_client[0].extend(bytes);
    let notices = world.drain();
    let Some(Notice::Protocol(error)) = notices.last() else {
        return None;
    };
    let sent = world.sent(Slot::CONTROL);
    let told = sent.last().and_then(|sent| match sent.packet() {
        Packet::Disconnect(disconnect) => Some(disconnect.reason),
        _ => None,
    });
    Some((*error, told))
}

#[test]
fn each_malformation_is_answered_with_its_reason_code() {
    let malformed = ReasonCode::MALFORMED_PACKET;
    let protocol = ReasonCode::PROTOCOL_ERROR;
    let cases: [(&[u8], ReasonCode, &str); 15] = [
        (&[0x00, 0], malformed, "fixed_header.packet_type"),
        (&[0x41, 2, 0, 1], malformed, "fixed_header.flags"),
        (&[0x36, 5, 0, 1, b'a', 0, 1], malformed, "fixed_header.flags"),
        (&[0x30, 0x80, 0x80, 0x80, 0x80], malformed, "fixed_header.remaining_length"),
        (&[0x30, 0x80, 0x00], malformed, "fixed_header.remaining_length"),
        (&[0x30, 3, 0, 9, b'a'], malformed, "publish.topic"),
        (&[0x30, 4, 0, 1, 0xff, 0], malformed, "publish.topic"),
        (&[0x30, 4, 0, 1, b'+', 0], ReasonCode::TOPIC_NAME_INVALID, "publish.topic"),
        (&[0x32, 6, 0, 1, b'a', 0, 0, 0], protocol, "publish.packet_id"),
        (&[0x40, 1, 0], malformed, "ack.packet_id"),
        (&[0x90, 3, 0, 1, 0], protocol, "suback.codes"),
        (&[0xc0, 0], protocol, "fixed_header.packet_type"),
        (&[0x10, 0], protocol, "fixed_header.packet_type"),
        (&[0x82, 0], protocol, "fixed_header.packet_type"),
        (&[0xf0, 0], protocol, "auth"),
    ];
    for (bytes, reason, field) in cases {
        let expected = Some((Error { reason, field }, Some(reason)));
        assert_eq!(answer(Version::V5, bytes), expected, "{bytes:x?}");
    }
}

#[test]
fn a_3_1_1_server_is_left_without_a_word() {
    let (error, told) = answer(Version::V3_1_1, &[0x00, 0]).expect("an error");
    assert_eq!((error.field, told), ("fixed_header.packet_type", None));
    assert_eq!(
        answer(Version::V3_1_1, &[0xe0, 0]).map(|(error, _)| error.field),
        Some("fixed_header.packet_type"),
        "DISCONNECT comes from clients only"
    );
}

#[test]
fn any_bytes_end_without_a_panic() {
    for seed in 0..2_000_u32 {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
        let mut bytes = Vec::new();
        for _ in 0..64 {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            bytes.push(state as u8);
        }
        // A valid start leads further in.
        bytes[0] = [0x30, 0x32, 0x34, 0x40, 0x50, 0x62, 0x90, 0xb0, 0xe0][seed as usize % 9];
        bytes[1] &= 0x3f;
        for version in [Version::V3_1_1, Version::V5] {
            answer(version, &bytes);
        }
    }
}
