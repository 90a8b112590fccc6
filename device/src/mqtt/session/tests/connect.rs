use super::*;
use crate::mqtt::{Qos, Will};

#[test]
fn connect_says_what_the_options_say() {
    let will = Will {
        topic: "gone",
        payload: b"1",
        qos: Qos::AtLeastOnce,
        retain: Retain::Yes,
        properties: Properties::NONE,
    };
    let options = Options {
        user_name: Some("user"),
        password: Some(b"secret"),
        will: Some(will),
        keep_alive_s: 30,
        ..Options::new("client")
    };
    let mut world = World::with(options);
    world.begin();
    let sent = world.sent(Slot::CONTROL);
    let [connect] = &sent[..] else { panic!("one packet") };
    let Packet::Connect(connect) = connect.packet() else { panic!("CONNECT first") };
    assert_eq!(
        (connect.client_id, connect.user_name, connect.password),
        ("client", Some("user"), Some(&b"secret"[..]))
    );
    assert_eq!(connect.will, Some(will));
    assert!(connect.clean_start);
    assert_eq!(connect.keep_alive_s, 30);
    let expected = [
        Property::SessionExpiryInterval(300),
        Property::ReceiveMaximum(6),
        Property::MaximumPacketSize(RX_PACKET_MAX as u32),
        Property::TopicAliasMaximum(4),
    ];
    assert_eq!(connect.properties, Properties::of(&expected));
}

#[test]
fn connect_of_3_1_1_keeps_the_session_if_it_may_outlive_the_connection() {
    for (session_expiry_s, clean) in [(0, true), (1, false)] {
        let mut world =
            World::with(Options { version: Version::V3_1_1, session_expiry_s, ..Options::new("client") });
        world.begin();
        let sent = world.sent(Slot::CONTROL);
        let Packet::Connect(connect) = sent[0].packet() else { panic!("CONNECT first") };
        assert_eq!(connect.clean_start, clean);
    }
}

#[test]
fn a_connect_that_breaks_a_rule_is_not_written() {
    let base = Options::new("client");
    let v3 = Options { version: Version::V3_1_1, ..base };
    let will = Will {
        topic: "gone",
        payload: b"",
        qos: Qos::AtMostOnce,
        retain: Retain::No,
        properties: Properties::NONE,
    };
    let foreign = [Property::TopicAlias(1)];
    let own = [Property::ReceiveMaximum(9)];
    let method = [Property::AuthenticationMethod("SCRAM-SHA-1")];
    let twice = [Property::RequestProblemInformation(0), Property::RequestProblemInformation(1)];
    let range = [Property::RequestResponseInformation(2)];
    let nul = [Property::UserProperty("a\0", "b")];
    let delays = [Property::WillDelayInterval(1), Property::WillDelayInterval(1)];
    let long = "x".repeat(RX_PACKET_MAX);
    let properties = |list| Options { properties: Properties::of(list), ..base };
    let cases = [
        ("connect.flags", Options { password: Some(b"p"), ..v3 }),
        ("connect.properties", Options { version: Version::V3_1_1, ..properties(&twice[..1]) }),
        ("connect.properties", properties(&foreign)),
        ("connect.properties", properties(&own)),
        ("connect.properties", properties(&method)),
        ("properties.duplicate", properties(&twice)),
        ("properties.request_response_information", properties(&range)),
        ("properties.user_property.name", properties(&nul)),
        ("connect.will_topic", Options { will: Some(Will { topic: "a/#", ..will }), ..base }),
        ("connect.will_topic", Options { will: Some(Will { topic: "", ..will }), ..v3 }),
        (
            "properties.duplicate",
            Options { will: Some(Will { properties: Properties::of(&delays), ..will }), ..base },
        ),
        ("connect.client_id", Options::new("a\0b")),
        ("connect.user_name", Options { user_name: Some("\0"), ..base }),
        ("fixed_header.remaining_length", Options { user_name: Some(&long), ..base }),
    ];
    for (field, options) in cases {
        let mut world = World::with(options);
        let result =
            world.session.begin(world.now, &world.options, Replay::Unsafe, &mut world.wire, &mut world.rx);
        assert_eq!(result, Err(BeginError::Options(field)), "{options:?}");
        assert!(world.wire.to_server[0].is_empty());
    }
    let fine = [twice[0], Property::UserProperty("a", "b"), Property::UserProperty("a", "b")];
    World::with(properties(&fine)).begin();
    World::with(Options { user_name: Some("u"), password: Some(b"p"), will: Some(will), ..v3 }).begin();
    World::with(Options { password: Some(b"p"), ..base }).begin();
}

#[test]
fn connect_waits_for_room_and_is_written_whole() {
    let mut world = World::new();
    world.wire.room = 10;
    let result =
        world.session.begin(world.now, &world.options, Replay::Unsafe, &mut world.wire, &mut world.rx);
    assert_eq!(result, Err(BeginError::Blocked));
    assert!(world.wire.to_server[0].is_empty());
    world.wire.room = 4096;
    world.begin();
    assert_eq!(world.sent(Slot::CONTROL).len(), 1);
}

#[test]
fn connect_waits_for_stream_credit() {
    let mut world = World::new();
    world.wire.credit = 0;
    let result =
        world.session.begin(world.now, &world.options, Replay::Unsafe, &mut world.wire, &mut world.rx);
    assert_eq!(result, Err(BeginError::Blocked));
    world.wire.credit = 1;
    world.begin();
}

#[test]
fn a_refusal_is_told_with_its_reason() {
    for version in [Version::V3_1_1, Version::V5] {
        let mut world = World::with(Options { version, ..Options::new("client") });
        world.begin();
        let connack = Connack {
            session_present: false,
            reason: ReasonCode::NOT_AUTHORIZED,
            properties: Properties::NONE,
        };
        world.reply(Packet::Connack(connack));
        assert_eq!(world.drain(), [Notice::Refused(ReasonCode::NOT_AUTHORIZED)]);
        assert!(!world.session.is_open());
    }
}

#[test]
fn a_missing_connack_times_out() {
    let mut world = World::new();
    world.begin();
    assert_eq!(world.poll(), None);
    let due = world.session.next_timeout().expect("CONNACK is awaited");
    assert_eq!(due, world.now + world.options.answer_timeout);
    world.now = due;
    assert_eq!(world.drain(), [Notice::ConnackTimeout]);
}

#[test]
fn anything_before_connack_is_a_protocol_error() {
    let mut world = World::new();
    world.begin();
    world.reply(Packet::Pingresp);
    assert_eq!(world.drain(), [Notice::Protocol(Error::protocol("connack"))]);
    let sent = world.sent(Slot::CONTROL);
    let disconnect = sent.last().expect("CONNECT and DISCONNECT").packet();
    assert_eq!(disconnect, Packet::Disconnect(Disconnect::new(ReasonCode::PROTOCOL_ERROR)));
}

#[test]
fn a_session_present_after_a_clean_start_is_a_protocol_error() {
    let mut world = World::new();
    world.begin();
    world.connack(true, &[]);
    assert_eq!(world.drain(), [Notice::Protocol(Error::protocol("connack.session_present"))]);
}

#[test]
fn a_second_connack_is_a_protocol_error() {
    let mut world = World::connected();
    world.connack(false, &[]);
    assert_eq!(world.drain(), [Notice::Protocol(Error::protocol("connack"))]);
}

#[test]
fn disconnect_says_goodbye_and_nothing_more() {
    let mut world = World::connected();
    world.session.disconnect(ReasonCode::SUCCESS, &mut world.wire);
    let sent = world.sent(Slot::CONTROL);
    assert_eq!(sent[0].packet(), Packet::Disconnect(Disconnect::new(ReasonCode::SUCCESS)));
    assert_eq!(world.poll(), None);
    assert_eq!(world.session.next_timeout(), None);
}

#[test]
fn a_disconnect_of_the_server_ends_the_connection() {
    let mut world = World::connected();
    world.reply(Packet::Disconnect(Disconnect::new(ReasonCode::SESSION_TAKEN_OVER)));
    world.reply(Packet::Pingresp);
    assert_eq!(world.drain(), [Notice::ServerDisconnect(ReasonCode::SESSION_TAKEN_OVER)]);
}

#[test]
fn the_end_of_the_control_stream_ends_the_connection() {
    let mut world = World::connected();
    world.wire.ended[0] = Some(StreamEnd::Reset(0x8e));
    assert_eq!(world.drain(), [Notice::ControlStreamEnded(Some(0x8e))]);
}

use crate::mqtt::Error;
