//! Vectors for each packet type, in both versions; the bytes are laid out by hand after the standard.

extern crate std;
use super::*;
use crate::mqtt::{Duplicate, Filter, Qos, ReasonCode, Retain, RetainHandling, Will};
use Version::{V3_1_1, V5};

const fn id(value: u16) -> PacketId {
    match PacketId::new(value) {
        Some(id) => id,
        None => panic!("zero is no packet identifier"),
    }
}

/// `packet` and `bytes` are each other's encoding; one byte less and it neither fits nor decodes.
#[track_caller]
fn vector(version: Version, packet: Packet<'_>, bytes: &[u8]) {
    assert_eq!(Packet::decode(bytes, version), Ok(packet));
    let mut out = [0xaa; 256];
    let mut w = Writer::new(&mut out);
    packet.encode(version, &mut w).expect("256 bytes hold each vector");
    assert_eq!(w.written(), bytes);
    let mut w = Writer::new(&mut out[..bytes.len() - 1]);
    assert_eq!(packet.encode(version, &mut w), Err(NoSpace));
    assert_eq!(w.len(), 0, "nothing is left behind");
    for cut in 0..bytes.len() {
        assert!(Packet::decode(&bytes[..cut], version).is_err(), "cut to {cut} bytes");
    }
}

#[track_caller]
fn refused(version: Version, bytes: &[u8], reason: ReasonCode, field: &'static str) {
    assert_eq!(Packet::decode(bytes, version), Err(Error { reason, field }));
}

const MALFORMED: ReasonCode = ReasonCode::MALFORMED_PACKET;
const PROTOCOL: ReasonCode = ReasonCode::PROTOCOL_ERROR;

#[test]
fn connect_of_both_versions() {
    let plain = Connect {
        version: V3_1_1,
        clean_start: true,
        keep_alive_s: 60,
        properties: Properties::NONE,
        client_id: "c1",
        will: None,
        user_name: None,
        password: None,
    };
    let bytes = [0x10, 14, 0, 4, b'M', b'Q', b'T', b'T', 4, 0x02, 0, 60, 0, 2, b'c', b'1'];
    vector(V3_1_1, Packet::Connect(plain), &bytes);

    let list = [Property::SessionExpiryInterval(300), Property::ReceiveMaximum(20)];
    let will_list = [Property::WillDelayInterval(5)];
    let full = Connect {
        version: V5,
        clean_start: false,
        properties: Properties::of(&list),
        will: Some(Will {
            topic: "w",
            payload: b"bye",
            qos: Qos::ExactlyOnce,
            retain: Retain::Yes,
            properties: Properties::of(&will_list),
        }),
        user_name: Some("u"),
        password: Some(b"pw"),
        ..plain
    };
    let bytes = [
        0x10,
        44,
        0,
        4,
        b'M',
        b'Q',
        b'T',
        b'T',
        5,
        0b1111_0100,
        0,
        60, // header
        8,
        0x11,
        0,
        0,
        1,
        0x2c,
        0x21,
        0,
        20, // properties
        0,
        2,
        b'c',
        b'1', // client identifier
        5,
        0x18,
        0,
        0,
        0,
        5,
        0,
        1,
        b'w',
        0,
        3,
        b'b',
        b'y',
        b'e', // will
        0,
        1,
        b'u',
        0,
        2,
        b'p',
        b'w', // user name, password
    ];
    vector(V5, Packet::Connect(full), &bytes);
}

#[test]
fn connect_with_impossible_flags_is_malformed() {
    let with_flags = |flags| [0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 5, flags, 0, 60, 0, 0, 0];
    assert!(Packet::decode(&with_flags(0x02), V5).is_ok());
    for flags in [0x01, 0x08, 0x20, 0x1c] {
        refused(V5, &with_flags(flags), MALFORMED, "connect.flags");
    }
    let unsupported = ReasonCode::UNSUPPORTED_PROTOCOL_VERSION;
    let bytes = [0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 3, 2, 0, 60, 0, 0];
    refused(V5, &bytes, unsupported, "connect.protocol_version");
    let bytes = [0x10, 12, 0, 4, b'M', b'Q', b't', b't', 4, 2, 0, 60, 0, 0];
    refused(V5, &bytes, unsupported, "connect.protocol_name");
    let password_alone = [0x10, 14, 0, 4, b'M', b'Q', b'T', b'T', 4, 0x42, 0, 60, 0, 0, 0, 0];
    refused(V3_1_1, &password_alone, MALFORMED, "connect.flags");
}

#[test]
fn connack_of_both_versions() {
    let list = [Property::ReceiveMaximum(10), Property::AssignedClientIdentifier("x")];
    let connack =
        Connack { session_present: true, reason: ReasonCode::SUCCESS, properties: Properties::of(&list) };
    vector(V5, Packet::Connack(connack), &[0x20, 10, 1, 0, 7, 0x21, 0, 10, 0x12, 0, 1, b'x']);
    let refusal =
        Connack { session_present: false, reason: ReasonCode::NOT_AUTHORIZED, properties: Properties::NONE };
    vector(V5, Packet::Connack(refusal), &[0x20, 3, 0, 0x87, 0]);
    vector(V3_1_1, Packet::Connack(refusal), &[0x20, 2, 0, 5]);
}

#[test]
fn connack_that_contradicts_itself_is_refused() {
    refused(V5, &[0x20, 3, 2, 0, 0], MALFORMED, "connack.flags");
    refused(V5, &[0x20, 3, 1, 0x87, 0], PROTOCOL, "connack.session_present");
    refused(V3_1_1, &[0x20, 2, 1, 5], PROTOCOL, "connack.session_present");
    refused(V3_1_1, &[0x20, 3, 0, 0, 0], MALFORMED, "connack");
    refused(V3_1_1, &[0x20, 2, 0, 6], PROTOCOL, "connack.reason");
}

#[test]
fn publish_of_each_qos() {
    let at_most_once = Publish {
        duplicate: Duplicate::No,
        delivery: Delivery::AtMostOnce,
        retain: Retain::No,
        topic: "a/b",
        properties: Properties::NONE,
        payload: b"hi",
    };
    vector(V3_1_1, Packet::Publish(at_most_once), &[0x30, 7, 0, 3, b'a', b'/', b'b', b'h', b'i']);
    vector(V5, Packet::Publish(at_most_once), &[0x30, 8, 0, 3, b'a', b'/', b'b', 0, b'h', b'i']);
    let at_least_once = Publish {
        duplicate: Duplicate::Yes,
        delivery: Delivery::AtLeastOnce(id(10)),
        retain: Retain::Yes,
        ..at_most_once
    };
    let bytes = [0x3b, 9, 0, 3, b'a', b'/', b'b', 0, 10, b'h', b'i'];
    vector(V3_1_1, Packet::Publish(at_least_once), &bytes);
    let list = [Property::TopicAlias(3)];
    let aliased = Publish {
        delivery: Delivery::ExactlyOnce(id(0xfffe)),
        topic: "",
        properties: Properties::of(&list),
        payload: b"",
        ..at_most_once
    };
    vector(V5, Packet::Publish(aliased), &[0x34, 8, 0, 0, 0xff, 0xfe, 3, 0x23, 0, 3]);
    assert_eq!(aliased.topic_alias(), Some(3));
}

#[test]
fn publish_with_a_bad_topic_or_flag_is_refused() {
    refused(V5, &[0x36, 6, 0, 1, b'a', 0, 1, 0], MALFORMED, "fixed_header.flags");
    refused(V5, &[0x38, 4, 0, 1, b'a', 0], MALFORMED, "publish.dup");
    refused(V5, &[0x30, 4, 0, 1, b'#', 0], ReasonCode::TOPIC_NAME_INVALID, "publish.topic");
    refused(V5, &[0x30, 3, 0, 0, 0], PROTOCOL, "publish.topic");
    refused(V3_1_1, &[0x30, 2, 0, 0], PROTOCOL, "publish.topic");
    refused(V5, &[0x30, 6, 0, 0, 3, 0x23, 0, 0], ReasonCode::TOPIC_ALIAS_INVALID, "publish.topic_alias");
    refused(V5, &[0x32, 6, 0, 1, b'a', 0, 0, 0], PROTOCOL, "publish.packet_id");
    refused(V5, &[0x30, 4, 0, 1, 0xff, 0], MALFORMED, "publish.topic");
}

#[test]
fn acknowledgements_are_as_short_as_the_version_allows() {
    let kinds =
        [(AckKind::Puback, 0x40), (AckKind::Pubrec, 0x50), (AckKind::Pubrel, 0x62), (AckKind::Pubcomp, 0x70)];
    for (kind, first) in kinds {
        let success = Ack::new(id(7), ReasonCode::SUCCESS);
        vector(V3_1_1, Packet::Ack(kind, success), &[first, 2, 0, 7]);
        vector(V5, Packet::Ack(kind, success), &[first, 2, 0, 7]);
        let failure = Ack::new(id(7), ReasonCode::PACKET_IDENTIFIER_NOT_FOUND);
        vector(V5, Packet::Ack(kind, failure), &[first, 3, 0, 7, 0x92]);
        let list = [Property::ReasonString("no")];
        let worded = Ack { properties: Properties::of(&list), ..failure };
        vector(V5, Packet::Ack(kind, worded), &[first, 9, 0, 7, 0x92, 5, 0x1f, 0, 2, b'n', b'o']);
    }
}

#[test]
fn acknowledgements_with_wrong_flags_or_extra_bytes_are_malformed() {
    refused(V5, &[0x60, 2, 0, 7], MALFORMED, "fixed_header.flags");
    refused(V5, &[0x42, 2, 0, 7], MALFORMED, "fixed_header.flags");
    refused(V3_1_1, &[0x40, 3, 0, 7, 0], MALFORMED, "ack");
    refused(V5, &[0x40, 5, 0, 7, 0, 0, 0], MALFORMED, "ack");
    refused(V5, &[0x40, 2, 0, 0], PROTOCOL, "ack.packet_id");
}

#[test]
fn subscribe_with_several_filters() {
    let filters = [
        Filter::new("a/+", Qos::AtLeastOnce),
        Filter {
            no_local: true,
            retain_as_published: true,
            retain_handling: RetainHandling::DoNotSend,
            ..Filter::new("#", Qos::ExactlyOnce)
        },
    ];
    let list = [Property::SubscriptionIdentifier(5)];
    let subscribe =
        Subscribe { id: id(2), properties: Properties::of(&list), filters: Filters::of(&filters) };
    let bytes = [0x82, 15, 0, 2, 2, 0x0b, 5, 0, 3, b'a', b'/', b'+', 1, 0, 1, b'#', 0b10_1110];
    vector(V5, Packet::Subscribe(subscribe), &bytes);
    let plain = Subscribe { id: id(2), properties: Properties::NONE, filters: Filters::of(&filters[..1]) };
    vector(V3_1_1, Packet::Subscribe(plain), &[0x82, 8, 0, 2, 0, 3, b'a', b'/', b'+', 1]);
}

#[test]
fn subscribe_without_or_with_bad_filters_is_refused() {
    refused(V5, &[0x82, 3, 0, 2, 0], PROTOCOL, "subscribe.filters");
    refused(V5, &[0x82, 7, 0, 2, 0, 0, 1, b'a', 3], MALFORMED, "subscribe.options");
    refused(V5, &[0x82, 7, 0, 2, 0, 0, 1, b'a', 0x30], PROTOCOL, "subscribe.options");
    refused(V5, &[0x82, 7, 0, 2, 0, 0, 1, b'a', 0x40], MALFORMED, "subscribe.options");
    refused(V3_1_1, &[0x82, 6, 0, 2, 0, 1, b'a', 4], MALFORMED, "subscribe.options");
    let invalid = ReasonCode::TOPIC_FILTER_INVALID;
    refused(V5, &[0x82, 8, 0, 2, 0, 0, 2, b'a', b'#', 0], invalid, "subscribe.filter");
    refused(V5, &[0x80, 7, 0, 2, 0, 0, 1, b'a', 0], MALFORMED, "fixed_header.flags");
}

#[test]
fn suback_has_a_code_per_filter() {
    let suback = Suback { id: id(2), properties: Properties::NONE, codes: &[1, 0x80, 0] };
    vector(V3_1_1, Packet::Suback(suback), &[0x90, 5, 0, 2, 1, 0x80, 0]);
    vector(V5, Packet::Suback(suback), &[0x90, 6, 0, 2, 0, 1, 0x80, 0]);
    refused(V5, &[0x90, 3, 0, 2, 0], PROTOCOL, "suback.codes");
    refused(V5, &[0x90, 4, 0, 2, 0, 3], PROTOCOL, "suback.codes");
}

#[test]
fn unsubscribe_and_unsuback() {
    let names = ["a/+", "b"];
    let unsubscribe = Unsubscribe { id: id(3), properties: Properties::NONE, filters: Names::of(&names) };
    vector(V3_1_1, Packet::Unsubscribe(unsubscribe), &[0xa2, 10, 0, 3, 0, 3, b'a', b'/', b'+', 0, 1, b'b']);
    let bytes = [0xa2, 11, 0, 3, 0, 0, 3, b'a', b'/', b'+', 0, 1, b'b'];
    vector(V5, Packet::Unsubscribe(unsubscribe), &bytes);
    refused(V5, &[0xa2, 3, 0, 3, 0], PROTOCOL, "unsubscribe.filters");
    let unsuback = Unsuback { id: id(3), properties: Properties::NONE, codes: &[0, 0x11] };
    vector(V5, Packet::Unsuback(unsuback), &[0xb0, 5, 0, 3, 0, 0, 0x11]);
    vector(V3_1_1, Packet::Unsuback(Unsuback { codes: &[], ..unsuback }), &[0xb0, 2, 0, 3]);
    refused(V5, &[0xb0, 3, 0, 3, 0], PROTOCOL, "unsuback.codes");
}

#[test]
fn pings_are_two_bytes() {
    for version in [V3_1_1, V5] {
        vector(version, Packet::Pingreq, &[0xc0, 0]);
        vector(version, Packet::Pingresp, &[0xd0, 0]);
        refused(version, &[0xd0, 1, 0], MALFORMED, "pingresp");
    }
}

#[test]
fn disconnect_says_why_only_in_5_0() {
    let normal = Disconnect::new(ReasonCode::SUCCESS);
    vector(V3_1_1, Packet::Disconnect(normal), &[0xe0, 0]);
    vector(V5, Packet::Disconnect(normal), &[0xe0, 0]);
    let taken_over = Disconnect::new(ReasonCode::SESSION_TAKEN_OVER);
    vector(V5, Packet::Disconnect(taken_over), &[0xe0, 1, 0x8e]);
    let list = [Property::ServerReference("b")];
    let moved = Disconnect { reason: ReasonCode::SERVER_MOVED, properties: Properties::of(&list) };
    vector(V5, Packet::Disconnect(moved), &[0xe0, 6, 0x9d, 4, 0x1c, 0, 1, b'b']);
    refused(V3_1_1, &[0xe0, 1, 0], MALFORMED, "disconnect");
}

#[test]
fn auth_exists_only_in_5_0() {
    let list = [Property::AuthenticationMethod("m")];
    let auth = Auth { reason: ReasonCode::CONTINUE_AUTHENTICATION, properties: Properties::of(&list) };
    vector(V5, Packet::Auth(auth), &[0xf0, 6, 0x18, 4, 0x15, 0, 1, b'm']);
    refused(V3_1_1, &[0xf0, 0], MALFORMED, "fixed_header.packet_type");
    refused(V5, &[0xf0, 2, 0x42, 0], PROTOCOL, "auth.reason");
}

#[test]
fn the_fixed_header_is_judged_as_soon_as_it_shows() {
    assert_eq!(FixedHeader::peek(&[]), Ok(None));
    assert_eq!(FixedHeader::peek(&[0x30]), Ok(None));
    assert_eq!(FixedHeader::peek(&[0x30, 0xff, 0xff]), Ok(None));
    assert_eq!(FixedHeader::peek(&[0x00]), Err(Error::malformed("fixed_header.packet_type")));
    assert_eq!(FixedHeader::peek(&[0x21]), Err(Error::malformed("fixed_header.flags")));
    let endless = [0x30, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(FixedHeader::peek(&endless), Err(Error::malformed("fixed_header.remaining_length")));
    let header = FixedHeader::peek(&[0x30, 0xc1, 0x02, 0]).expect("valid").expect("whole");
    assert_eq!((header.remaining_len, header.header_len, header.packet_len()), (321, 3, 324));
}

#[test]
fn a_payload_of_128_bytes_widens_the_length() {
    let payload = [7; 125];
    let publish = Publish {
        duplicate: Duplicate::No,
        delivery: Delivery::AtMostOnce,
        retain: Retain::No,
        topic: "t",
        properties: Properties::NONE,
        payload: &payload,
    };
    let mut out = [0; 160];
    let mut w = Writer::new(&mut out);
    publish.encode(V3_1_1, &mut w).expect("fits");
    assert_eq!(w.written()[..6], [0x30, 0x80, 0x01, 0, 1, b't']);
    assert_eq!(Packet::decode(w.written(), V3_1_1), Ok(Packet::Publish(publish)));
}
