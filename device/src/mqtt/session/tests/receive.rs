use super::*;
use crate::mqtt::packet::Delivery;
use crate::mqtt::session::incoming::receive_maximum;
use crate::mqtt::{Error, PacketId, Qos};

/// The message of a notice.
#[track_caller]
fn delivered<'s>(world: &'s World<'_>, notice: Option<Notice>) -> Message<'s> {
    match world.session.event(notice.expect("something came"), &world.rx) {
        Event::Message(message) => message,
        other => panic!("{other:?} is no message"),
    }
}

#[test]
fn a_message_is_delivered_with_its_parts() {
    let mut world = World::connected();
    let list = [Property::ContentType("text"), Property::UserProperty("k", "v")];
    let publish = Publish {
        retain: Retain::Yes,
        properties: Properties::of(&list),
        ..message("a/b", b"payload", Delivery::AtMostOnce)
    };
    world.reply(Packet::Publish(publish));
    let notice = world.poll();
    let message = delivered(&world, notice);
    assert_eq!((message.topic, message.payload), ("a/b", &b"payload"[..]));
    assert_eq!((message.qos, message.retain, message.slot), (Qos::AtMostOnce, Retain::Yes, Slot::CONTROL));
    assert_eq!(message.properties, Properties::of(&list));
    assert_eq!(world.drain(), []);
    assert_eq!(world.sent(Slot::CONTROL).len(), 0, "QoS 0 is not acknowledged");
}

#[test]
fn an_empty_message_is_a_message() {
    let mut world = World::connected_v3();
    world.reply(Packet::Publish(message("a", b"", Delivery::AtMostOnce)));
    let notice = world.poll();
    assert_eq!(delivered(&world, notice).payload, b"");
}

#[test]
fn qos_1_is_acknowledged_after_delivery() {
    let mut world = World::connected();
    world.reply(Packet::Publish(message("a", b"x", Delivery::AtLeastOnce(id(5)))));
    let notice = world.poll();
    assert_eq!(delivered(&world, notice).qos, Qos::AtLeastOnce);
    assert!(world.wire.to_server[0].is_empty(), "not before the application has seen it");
    assert_eq!(world.drain(), []);
    assert!(world.sent(Slot::CONTROL)[0].is_ack(AckKind::Puback, id(5)));
}

#[test]
fn qos_2_is_delivered_once() {
    let mut world = World::connected();
    let publish = message("a", b"x", Delivery::ExactlyOnce(id(5)));
    world.reply(Packet::Publish(publish));
    assert_eq!(world.drain().len(), 1);
    assert!(world.sent(Slot::CONTROL)[0].is_ack(AckKind::Pubrec, id(5)));
    world.reply(Packet::Publish(Publish { duplicate: Duplicate::Yes, ..publish }));
    assert_eq!(world.drain(), []);
    assert!(world.sent(Slot::CONTROL)[0].is_ack(AckKind::Pubrec, id(5)));
    world.ack(AckKind::Pubrel, id(5));
    assert_eq!(world.drain(), []);
    assert!(world.sent(Slot::CONTROL)[0].is_ack(AckKind::Pubcomp, id(5)));
    assert_eq!(world.session.stats().duplicates_suppressed, 1);
    world.reply(Packet::Publish(publish));
    assert_eq!(world.drain().len(), 1, "the identifier is free for a new message");
}

#[test]
fn pubrel_for_an_unknown_identifier_is_answered() {
    let mut world = World::connected();
    world.ack(AckKind::Pubrel, id(7));
    assert_eq!(world.drain(), []);
    let not_found = Ack::new(id(7), ReasonCode::PACKET_IDENTIFIER_NOT_FOUND);
    assert_eq!(world.sent(Slot::CONTROL)[0].packet(), Packet::Ack(AckKind::Pubcomp, not_found));
}

#[test]
fn packets_arrive_in_any_pieces() {
    for whole_packets in [true, false] {
        let mut world = World::connected();
        world.wire.whole_packets = whole_packets;
        world.wire.read_max = 3;
        let payload = [7; 300];
        world.reply(Packet::Publish(message("a/b", &payload, Delivery::AtLeastOnce(id(1)))));
        world.reply(Packet::Publish(message("c", b"second", Delivery::AtMostOnce)));
        let bytes: Vec<u8> = world.wire.to_client[0].drain(..).collect();
        let mut messages = Vec::new();
        for byte in bytes {
            world.wire.to_client[0].push_back(byte);
            if let Some(notice) = world.poll() {
                messages.push(delivered(&world, Some(notice)).payload.to_vec());
            }
        }
        assert_eq!(messages, [&payload[..], b"second"]);
    }
}

#[test]
fn aliases_of_the_server_are_resolved() {
    let mut world = World::connected();
    let alias = [Property::TopicAlias(2)];
    let define =
        Publish { properties: Properties::of(&alias), ..message("sensor/1", b"1", Delivery::AtMostOnce) };
    world.reply(Packet::Publish(define));
    world.reply(Packet::Publish(Publish { topic: "", payload: b"2", ..define }));
    let notice = world.poll();
    assert_eq!(delivered(&world, notice).topic, "sensor/1");
    let notice = world.poll();
    let second = delivered(&world, notice);
    assert_eq!((second.topic, second.payload), ("sensor/1", &b"2"[..]));
}

#[test]
fn an_alias_never_set_or_beyond_the_maximum_is_invalid() {
    for alias in [3, 5] {
        let mut world = World::connected();
        let list = [Property::TopicAlias(alias)];
        let publish = Publish { properties: Properties::of(&list), ..message("", b"", Delivery::AtMostOnce) };
        world.reply(Packet::Publish(publish));
        let error = Error { reason: ReasonCode::TOPIC_ALIAS_INVALID, field: "publish.topic_alias" };
        assert_eq!(world.drain(), [Notice::Protocol(error)], "alias {alias}");
    }
}

#[test]
fn an_oversize_packet_of_5_0_ends_the_connection() {
    let mut world = World::connected();
    let payload = [0; RX_PACKET_MAX];
    world.reply(Packet::Publish(message("a", &payload, Delivery::AtMostOnce)));
    let error = Error { reason: ReasonCode::PACKET_TOO_LARGE, field: "fixed_header.remaining_length" };
    assert_eq!(world.drain(), [Notice::Protocol(error)]);
    let sent = world.sent(Slot::CONTROL);
    assert_eq!(sent[0].packet(), Packet::Disconnect(Disconnect::new(ReasonCode::PACKET_TOO_LARGE)));
}

#[test]
fn smaller_streams_announce_a_smaller_maximum_and_insist_on_it() {
    for (payload_len, is_taken) in [(590, true), (600, false)] {
        let mut world = World::new();
        world.wire.packet_max = 600;
        world.begin();
        match world.sent(Slot::CONTROL)[0].packet() {
            Packet::Connect(connect) => {
                assert!(
                    connect.properties.iter().any(|property| property == Property::MaximumPacketSize(600))
                );
            }
            other => panic!("{other:?} is no CONNECT"),
        }
        world.connack(false, &[]);
        world.poll();
        world.reply(Packet::Publish(message("a", &std::vec![0; payload_len], Delivery::AtMostOnce)));
        let notice = world.poll();
        assert_eq!(matches!(notice, Some(Notice::Message(_))), is_taken, "{payload_len}: {notice:?}");
        if !is_taken {
            let Some(Notice::Protocol(error)) = notice else { panic!("{notice:?}") };
            assert_eq!(error.reason, ReasonCode::PACKET_TOO_LARGE);
        }
    }
}

#[test]
fn an_oversize_message_of_3_1_1_is_skipped_and_acknowledged() {
    let payload = [0; RX_PACKET_MAX];
    let deliveries = [
        (Delivery::AtMostOnce, None),
        (Delivery::AtLeastOnce(id(3)), Some(AckKind::Puback)),
        (Delivery::ExactlyOnce(id(3)), Some(AckKind::Pubrec)),
    ];
    for (delivery, answer) in deliveries {
        for read_max in [1, 7, usize::MAX] {
            let mut world = World::connected_v3();
            world.wire.read_max = read_max;
            world.wire.whole_packets = false;
            world.reply(Packet::Publish(message("topic", &payload, delivery)));
            world.reply(Packet::Publish(message("next", b"x", Delivery::AtMostOnce)));
            let size = world.wire.to_client[0].len() as u32 - 9;
            assert_eq!(world.poll(), Some(Notice::Oversize { slot: Slot::CONTROL, size }));
            let notice = world.poll();
            assert_eq!(delivered(&world, notice).topic, "next");
            world.drain();
            let sent = world.sent(Slot::CONTROL);
            assert_eq!(sent.len(), usize::from(answer.is_some()));
            if let Some(kind) = answer {
                assert!(sent[0].is_ack(kind, id(3)));
            }
        }
    }
}

#[test]
fn acknowledgements_wait_for_room_and_reading_waits_for_them() {
    // In 3.1.1, which knows no receive maximum.
    let mut world = World::connected_v3();
    world.wire.room = 0;
    let mut sent = 0;
    for number in 1..=100 {
        world.reply(Packet::Publish(message("a", b"x", Delivery::AtLeastOnce(id(number)))));
    }
    let delivered = world.drain().len();
    assert!(delivered < 100, "bounded by the table: {delivered}");
    world.wire.room = 4096;
    let mut total = delivered;
    loop {
        let more = world.drain().len();
        sent += world.sent(Slot::CONTROL).len();
        if more == 0 {
            break;
        }
        total += more;
    }
    assert_eq!((total, sent), (100, 100));
}

/// What was announced.
const RECEIVE_MAXIMUM: u16 = receive_maximum(SLOTS) as u16;

/// As many messages as were announced: they are taken, each with its acknowledgement.
#[track_caller]
fn fill(world: &mut World<'_>, slot: Slot, delivery: fn(PacketId) -> Delivery) {
    for number in 1..=RECEIVE_MAXIMUM {
        world.reply_on(slot, Packet::Publish(message("a", b"x", delivery(id(number)))));
        assert!(matches!(world.drain()[..], [Notice::Message(_)]), "message {number}");
    }
}

const EXCEEDED: Error = Error { reason: ReasonCode::RECEIVE_MAXIMUM_EXCEEDED, field: "publish.packet_id" };
/// One more than was announced.
const BEYOND: u16 = RECEIVE_MAXIMUM + 1;

#[test]
fn the_first_qos_2_message_beyond_the_receive_maximum_is_an_error() {
    let mut world = World::connected();
    fill(&mut world, Slot::CONTROL, Delivery::ExactlyOnce);
    world.sent(Slot::CONTROL);
    world.reply(Packet::Publish(message("a", b"x", Delivery::ExactlyOnce(id(BEYOND)))));
    assert_eq!(world.drain(), [Notice::Protocol(EXCEEDED)]);
    let sent = world.sent(Slot::CONTROL);
    assert_eq!(sent[0].packet(), Packet::Disconnect(Disconnect::new(ReasonCode::RECEIVE_MAXIMUM_EXCEEDED)));
}

#[test]
fn the_first_qos_1_message_beyond_the_receive_maximum_is_an_error() {
    let mut world = World::connected();
    // The acknowledgements cannot be written, so the server cannot have them.
    world.wire.room = 0;
    fill(&mut world, Slot::CONTROL, Delivery::AtLeastOnce);
    world.reply(Packet::Publish(message("a", b"x", Delivery::AtLeastOnce(id(BEYOND)))));
    assert_eq!(world.drain(), [Notice::Protocol(EXCEEDED)]);
}

#[test]
fn what_is_acknowledged_makes_room_below_the_receive_maximum() {
    let mut world = World::connected();
    fill(&mut world, Slot::CONTROL, Delivery::ExactlyOnce);
    world.ack(AckKind::Pubrel, id(3));
    assert_eq!(world.drain(), []);
    world.reply(Packet::Publish(message("a", b"x", Delivery::ExactlyOnce(id(BEYOND)))));
    assert_eq!(world.drain().len(), 1, "sixteen again");
    // A repetition is no further message, and QoS 0 does not count.
    let repeated = message("a", b"x", Delivery::ExactlyOnce(id(BEYOND)));
    world.reply(Packet::Publish(Publish { duplicate: Duplicate::Yes, ..repeated }));
    assert_eq!(world.drain(), []);
    world.reply(Packet::Publish(message("a", b"x", Delivery::AtMostOnce)));
    assert_eq!(world.drain().len(), 1);
    world.reply(Packet::Publish(message("a", b"x", Delivery::ExactlyOnce(id(BEYOND + 1)))));
    assert_eq!(world.drain(), [Notice::Protocol(EXCEEDED)]);
}

#[test]
fn each_stream_has_a_receive_maximum_of_its_own_and_room_for_it() {
    let mut world = World::connected();
    let slots: Vec<Slot> = Slot::all().collect();
    for slot in &slots[1..] {
        world.session.open_stream(*slot);
    }
    world.drain();
    for slot in &slots {
        fill(&mut world, *slot, Delivery::ExactlyOnce);
    }
    world.reply_on(data(1), Packet::Publish(message("a", b"x", Delivery::ExactlyOnce(id(BEYOND)))));
    let closed = Notice::StreamClosed { slot: data(1), code: None, error: Some(EXCEEDED) };
    assert_eq!(world.drain(), [closed, Notice::StreamOpened(data(1))]);
}
