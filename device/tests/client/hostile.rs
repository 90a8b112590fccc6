//! A broker that breaks MQTT's rules over QUIC: each breach ends in the standard's reason code, which the broker
//! hears twice: in DISCONNECT, and as the application's code of the close.

use core::time::Duration;

use device::client::{Cause, Event, Policy, Publication, Reconnect, Slot};
use device::mqtt::{Qos, ReasonCode, Version};
use link::Direction;
use quinn_proto::ConnectionError;
use simulate::{ClientSide, MqttOptions, PairOptions};

use crate::world::{Play, World, with};

fn world(version: Version) -> World<3> {
    let policy = Policy { reconnect: Reconnect::Never, ..Policy::DEFAULT };
    let mut world = with(PairOptions::seeded(31), MqttOptions { version, policy, ..MqttOptions::default() });
    world.connect();
    world
}

fn inject(world: &mut World<3>, stream: u64, bytes: &[u8]) {
    let now = world.now();
    world.server.service.inject(stream, bytes);
    world.server.wake(now);
}

/// What the owner is told and what the broker hears after `bytes` on the control stream.
fn ended_by(version: Version, bytes: &[u8]) -> (Cause, Vec<ReasonCode>, u64) {
    let mut world = world(version);
    inject(&mut world, 0, bytes);
    world.until(10, "end", |world| world.client.has(|event| *event == Event::Stopped));
    world.until(5, "close", |world| !world.server.ended().is_empty());
    let ConnectionError::ApplicationClosed(close) = &world.server.ended()[0].reason else {
        panic!("{:?}", world.server.ended());
    };
    let code = close.error_code.into_inner();
    (world.client.causes()[0], world.server.service.disconnects.clone(), code)
}

/// A PUBLISH with QoS 1, the topic `a`, and a payload that makes it this long behind its header of 3 bytes.
fn publish(len: usize) -> Vec<u8> {
    let mut bytes = vec![0x32, 0x80 | (len % 128) as u8, (len / 128) as u8, 0, 1, b'a', 0, 1, 0];
    bytes.resize(len + 3, 7);
    bytes
}

#[test]
fn each_malformation_on_the_control_stream_ends_the_connection_with_its_reason() {
    let too_large = publish(1_200);
    let cases: [(&str, &[u8], ReasonCode); 13] = [
        ("packet type 0", &[0x00, 0], ReasonCode::MALFORMED_PACKET),
        ("reserved flags", &[0x41, 2, 0, 1], ReasonCode::MALFORMED_PACKET),
        ("QoS 3", &[0x36, 5, 0, 1, b'a', 0, 1], ReasonCode::MALFORMED_PACKET),
        ("a length of five bytes", &[0x30, 0x80, 0x80, 0x80, 0x80], ReasonCode::MALFORMED_PACKET),
        ("a topic beyond the packet", &[0x30, 3, 0, 9, b'a'], ReasonCode::MALFORMED_PACKET),
        ("a topic that is not UTF-8", &[0x30, 4, 0, 1, 0xff, 0], ReasonCode::MALFORMED_PACKET),
        ("a wildcard in a topic", &[0x30, 4, 0, 1, b'#', 0], ReasonCode::TOPIC_NAME_INVALID),
        ("packet identifier 0", &[0x32, 6, 0, 1, b'a', 0, 0, 0], ReasonCode::PROTOCOL_ERROR),
        ("an unknown topic alias", &[0x30, 6, 0, 0, 3, 0x23, 0, 1], ReasonCode::TOPIC_ALIAS_INVALID),
        ("SUBACK for nothing", &[0x90, 4, 0, 9, 0, 0], ReasonCode::PROTOCOL_ERROR),
        ("a second CONNACK", &[0x20, 3, 0, 0, 0], ReasonCode::PROTOCOL_ERROR),
        ("AUTH", &[0xf0, 0], ReasonCode::PROTOCOL_ERROR),
        ("a packet beyond the announced maximum", &too_large, ReasonCode::PACKET_TOO_LARGE),
    ];
    for (what, bytes, reason) in cases {
        let (cause, heard, code) = ended_by(Version::V5, bytes);
        let Cause::Protocol(error) = cause else { panic!("{what}: {cause:?}") };
        assert_eq!(error.reason, reason, "{what}");
        assert_eq!(heard, [reason], "{what}");
        assert_eq!(code, u64::from(reason.0), "{what}");
    }
}

#[test]
fn a_broker_of_3_1_1_hears_the_reason_in_the_close_alone() {
    let (cause, heard, code) = ended_by(Version::V3_1_1, &[0xf0, 0]);
    assert!(matches!(cause, Cause::Protocol(_)), "{cause:?}");
    assert_eq!((heard, code), (vec![], u64::from(ReasonCode::MALFORMED_PACKET.0)));
}

#[test]
fn a_malformation_on_a_data_stream_closes_that_stream_alone() {
    for bytes in [&[0x36, 5, 0, 1, b'a', 0, 1][..], &[0xd0, 0], &[0xe0, 0]] {
        let mut world = world(Version::V5);
        let slot = Slot::new(1).expect("a data slot");
        world.subscribe(slot, "a/#", Qos::AtLeastOnce);
        inject(&mut world, 1, bytes);
        world.until(10, "closed stream", |world| closed(world) == 1);
        // It is opened and subscribed again.
        world.run_for(core::time::Duration::from_secs(1));
        world.broker_publishes("a/b", b"x", Qos::AtLeastOnce);
        world.until(10, "message", |world| world.client.messages().count() == 1);
        assert!(world.client.messages().all(|message| message.slot == slot));
        world.publish(&Publication::new("b", b"x").qos(Qos::AtLeastOnce));
        world.until(10, "acknowledgement", |world| world.client.acknowledged() == 1);
        assert_eq!((world.client.connections(), world.client.causes()), (1, vec![]));
    }
}

/// Data streams that were closed for a broken rule.
fn closed(world: &World<3>) -> usize {
    let is_closed = |event: &&Event<'static>| matches!(event, Event::StreamClosed { error: Some(_), .. });
    world.client.events().filter(is_closed).count()
}

/// Gives the client packets that look like stateless resets of nobody.
fn spray(world: &mut World<3>, packets: u8) {
    let now = world.now();
    for packet in 0..packets {
        let mut forged = [0x5a ^ packet; 30];
        forged[0] = 0x40 | forged[0] & 0x3f;
        world.client.handle_datagram(now, &mut forged);
    }
}

#[test]
fn who_sprays_packets_from_off_the_path_ends_no_connection() {
    for follows in [false, true] {
        let mut world = world(Version::V5);
        for lost in 1..=5 {
            // Each loss gives an attacker who sends all the time his chance.
            world.drop_next(Direction::Up);
            world.publish(&Publication::new("a", b"x").qos(Qos::AtLeastOnce));
            let before = world.client.stats().transport.pto_count;
            spray(&mut world, 50);
            world.until(5, "timeout", |world| world.client.stats().transport.pto_count > before);
            spray(&mut world, 50);
            world.until(5, "wish for another port", |world| world.client.wants_migration);
            spray(&mut world, 50);
            if follows {
                // The packets go where nobody is now.
                world.migrate_port();
            }
            world.client.wants_migration = false;
            world.until(5, "acknowledgement", |world| world.client.acknowledged() == lost);
            world.run_for(Duration::from_secs(1));
        }
        assert_eq!((world.client.connections(), world.client.causes()), (1, vec![]));
    }
}
