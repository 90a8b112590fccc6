use super::*;
use crate::mqtt::Qos;
use crate::mqtt::packet::Delivery;

const AT_LEAST_ONCE: Publication<'_> = Publication::new("a/b", b"payload").qos(Qos::AtLeastOnce);
const EXACTLY_ONCE: Publication<'_> = Publication::new("a/b", b"payload").qos(Qos::ExactlyOnce);

#[test]
fn qos_0_is_written_at_once_or_not_at_all() {
    let mut world = World::connected();
    assert_eq!(world.publish(&Publication::new("a/b", b"payload")), Ok(None));
    assert_eq!(*world.sent(Slot::CONTROL)[0].publish().payload, *b"payload");
    world.wire.room = 12;
    assert_eq!(world.publish(&Publication::new("a/b", b"payload")), Err(RequestError::Full));
    assert!(world.wire.to_server[0].is_empty(), "nothing half-written");
    assert_eq!(world.session.stats().refused_full, 1);
}

#[test]
fn each_publication_is_one_write_because_records_cost_room() {
    let mut world = World::connected();
    for publication in [Publication::new("a/b", b"payload"), AT_LEAST_ONCE] {
        let before = world.wire.writes;
        world.publish(&publication).expect("room");
        world.drain();
        assert_eq!(world.wire.writes, before + 1);
    }
}

#[test]
fn qos_0_needs_an_open_session() {
    let mut world = World::new();
    let publication = Publication::new("a/b", b"payload");
    assert_eq!(world.publish(&publication), Err(RequestError::NotConnected));
    world.begin();
    assert_eq!(world.publish(&publication), Err(RequestError::NotConnected));
}

#[test]
fn qos_1_ends_with_puback() {
    let mut world = World::connected();
    let id = world.publish_id(&AT_LEAST_ONCE);
    assert_eq!(world.drain(), []);
    let sent = world.sent(Slot::CONTROL);
    assert_eq!(sent[0].publish().delivery, Delivery::AtLeastOnce(id));
    world.ack(AckKind::Puback, id);
    let token = Token { slot: Slot::CONTROL, id };
    assert_eq!(world.drain(), [Notice::Acknowledged { token, reason: ReasonCode::SUCCESS }]);
    assert_eq!(world.session.unacknowledged(), 0);
}

#[test]
fn qos_2_ends_with_pubcomp() {
    let mut world = World::connected();
    let id = world.publish_id(&EXACTLY_ONCE);
    world.drain();
    world.sent(Slot::CONTROL);
    world.ack(AckKind::Pubrec, id);
    assert_eq!(world.drain(), []);
    assert!(world.sent(Slot::CONTROL)[0].is_ack(AckKind::Pubrel, id));
    world.ack(AckKind::Pubcomp, id);
    let token = Token { slot: Slot::CONTROL, id };
    assert_eq!(world.drain(), [Notice::Acknowledged { token, reason: ReasonCode::SUCCESS }]);
}

#[test]
fn a_pubrec_that_refuses_ends_the_message() {
    let mut world = World::connected();
    let id = world.publish_id(&EXACTLY_ONCE);
    world.drain();
    world.sent(Slot::CONTROL);
    world.reply(Packet::Ack(AckKind::Pubrec, Ack::new(id, ReasonCode::QUOTA_EXCEEDED)));
    let token = Token { slot: Slot::CONTROL, id };
    assert_eq!(world.drain(), [Notice::Acknowledged { token, reason: ReasonCode::QUOTA_EXCEEDED }]);
    assert_eq!(world.sent(Slot::CONTROL).len(), 0, "no PUBREL");
}

#[test]
fn stray_acknowledgements_are_harmless() {
    let mut world = World::connected();
    world.ack(AckKind::Puback, id(9));
    world.ack(AckKind::Pubcomp, id(9));
    world.ack(AckKind::Pubrec, id(9));
    assert_eq!(world.drain(), []);
    let sent = world.sent(Slot::CONTROL);
    let [pubrel] = &sent[..] else { panic!("one answer, to PUBREC") };
    let not_found = Ack::new(id(9), ReasonCode::PACKET_IDENTIFIER_NOT_FOUND);
    assert_eq!(pubrel.packet(), Packet::Ack(AckKind::Pubrel, not_found));
}

#[test]
fn a_full_store_says_so_and_keeps_what_it_has() {
    let mut world = World::connected();
    let payload = [0; 900];
    let large = Publication::new("a/b", &payload).qos(Qos::AtLeastOnce);
    let first = world.publish_id(&large);
    let second = world.publish_id(&large);
    assert_eq!(world.publish(&large), Err(RequestError::Full));
    world.drain();
    let ids: Vec<_> = world.sent(Slot::CONTROL).iter().map(|sent| sent.publish().delivery.id()).collect();
    assert_eq!(ids, [Some(first), Some(second)]);
    world.ack(AckKind::Puback, first);
    world.drain();
    world.publish_id(&large);
}

#[test]
fn what_a_full_store_refuses_opens_no_stream() {
    let mut world = World::connected();
    let payload = [0; 900];
    let large = Publication::new("a/b", &payload).qos(Qos::AtLeastOnce);
    world.publish_id(&large);
    world.publish_id(&large);
    assert_eq!(world.publish(&large.on(data(1))), Err(RequestError::Full));
    assert_eq!(world.drain(), []);
    assert!(!world.wire.is_open[1]);
}

#[test]
fn the_receive_maximum_of_the_server_is_kept() {
    let mut world = World::new();
    world.connect(&[Property::ReceiveMaximum(2)]);
    let ids: Vec<_> = (0..3).map(|_| world.publish_id(&AT_LEAST_ONCE)).collect();
    world.drain();
    assert_eq!(world.sent(Slot::CONTROL).len(), 2);
    world.ack(AckKind::Puback, ids[1]);
    world.drain();
    let sent = world.sent(Slot::CONTROL);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].publish().delivery.id(), Some(ids[2]));
}

#[test]
fn identifiers_in_flight_are_not_used_again() {
    let mut world = World::connected();
    let kept = world.publish_id(&AT_LEAST_ONCE);
    world.drain();
    world.sent(Slot::CONTROL);
    for _ in 0..70_000 {
        let id = world.publish_id(&AT_LEAST_ONCE);
        assert_ne!(id, kept);
        world.drain();
        world.wire.to_server[0].clear();
        world.ack(AckKind::Puback, id);
        world.drain();
    }
}

#[test]
fn what_the_server_does_not_support_is_refused() {
    let mut world = World::new();
    world.connect(&[Property::MaximumQos(1), Property::RetainAvailable(0), Property::MaximumPacketSize(20)]);
    assert_eq!(world.publish(&EXACTLY_ONCE), Err(RequestError::QosNotSupported));
    let retained = Publication { retain: Retain::Yes, ..AT_LEAST_ONCE };
    assert_eq!(world.publish(&retained), Err(RequestError::RetainNotSupported));
    let large = Publication::new("a/b", &[0; 20]);
    assert_eq!(world.publish(&large), Err(RequestError::TooLarge));
    world.publish_id(&AT_LEAST_ONCE);
}

#[test]
fn bad_topics_and_properties_are_refused() {
    let mut world = World::connected();
    let long = "x".repeat(TOPIC_MAX + 1);
    for topic in ["", "a/#", "+", &long] {
        assert_eq!(world.publish(&Publication::new(topic, b"")), Err(RequestError::TopicInvalid), "{topic}");
    }
    let twice = [Property::ContentType("x"), Property::ContentType("y")];
    for list in [
        &[Property::TopicAlias(1)][..],
        &[Property::SubscriptionIdentifier(1)],
        &[Property::ReceiveMaximum(1)],
        &[Property::ResponseTopic("a/#")],
        &[Property::ResponseTopic("")],
        &[Property::PayloadFormatIndicator(2)],
        &[Property::UserProperty("a", "\0")],
        &twice,
    ] {
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
            let publication = Publication { properties: Properties::of(list), ..AT_LEAST_ONCE.qos(qos) };
            assert_eq!(world.publish(&publication), Err(RequestError::PropertyInvalid), "{list:?}");
        }
    }
    let long = "x".repeat(300);
    let list = [Property::ContentType(&long)];
    let publication = Publication { properties: Properties::of(&list), ..AT_LEAST_ONCE };
    assert_eq!(world.publish(&publication), Err(RequestError::TooLarge));
    assert!(world.sent(Slot::CONTROL).is_empty() && world.session.unacknowledged() == 0);
    let list = [Property::ContentType("x")];
    let publication = Publication { properties: Properties::of(&list), ..AT_LEAST_ONCE };
    world.publish_id(&publication);
    let mut world = World::connected_v3();
    assert_eq!(world.publish(&publication), Err(RequestError::PropertyInvalid), "3.1.1 has none");
    let payload = [0; TX_PACKET_MAX];
    let result = world.publish(&Publication::new("a", &payload));
    assert_eq!(result, Err(RequestError::TooLarge));
}

#[test]
fn topics_get_aliases_as_far_as_the_server_allows() {
    let mut world = World::new();
    world.connect(&[Property::TopicAliasMaximum(1)]);
    for topic in ["sensor/1", "sensor/1", "sensor/2", "sensor/1"] {
        world.publish(&Publication::new(topic, b"x")).expect("open");
    }
    let sent = world.sent(Slot::CONTROL);
    let names: Vec<_> =
        sent.iter().map(|sent| (sent.publish().topic, sent.publish().topic_alias())).collect();
    assert_eq!(names, [("sensor/1", Some(1)), ("", Some(1)), ("sensor/2", None), ("", Some(1))]);
}

#[test]
fn stored_publications_use_aliases_too_and_forget_them_with_the_connection() {
    let mut world = World::new();
    world.connect(&[Property::TopicAliasMaximum(4)]);
    let publication = Publication::new("sensor/1", b"x").qos(Qos::AtLeastOnce);
    world.publish_id(&publication);
    world.publish_id(&publication);
    world.drain();
    let sent = world.sent(Slot::CONTROL);
    assert_eq!((sent[0].publish().topic, sent[0].publish().topic_alias()), ("sensor/1", Some(1)));
    assert_eq!((sent[1].publish().topic, sent[1].publish().topic_alias()), ("", Some(1)));
    world.reconnect(true);
    world.drain();
    let sent = world.sent(Slot::CONTROL);
    assert_eq!((sent[0].publish().topic, sent[0].publish().topic_alias()), ("sensor/1", None));
}

#[test]
fn a_blocked_stream_delays_packets_but_cuts_none() {
    let mut world = World::connected();
    for _ in 0..8 {
        world.publish_id(&AT_LEAST_ONCE);
    }
    world.wire.room = 40;
    let mut count = 0;
    for _ in 0..8 {
        world.drain();
        count += world.sent(Slot::CONTROL).len();
    }
    assert_eq!(count, 8);
}

#[test]
fn early_data_carries_only_what_is_safe_to_replay() {
    let mut world = World::new();
    let safe = Publication { replay: Replay::Safe, ..AT_LEAST_ONCE };
    let first = world.publish_id(&safe);
    let unsafe_id = world.publish_id(&AT_LEAST_ONCE);
    let last = world.publish_id(&safe);
    world
        .session
        .begin(world.now, &world.options, Replay::Safe, &mut world.wire, &mut world.rx)
        .expect("room");
    assert_eq!(world.publish(&Publication::new("a", b"")), Err(RequestError::NotConnected));
    let safe_now = Publication { replay: Replay::Safe, ..Publication::new("a", b"") };
    assert_eq!(world.publish(&safe_now), Ok(None));
    world.drain();
    let sent = world.sent(Slot::CONTROL);
    assert_eq!(sent.len(), 3, "CONNECT, the QoS 0 and the first QoS 1");
    assert_eq!(sent[2].publish().delivery.id(), Some(first));
    world.connack(false, &[]);
    world.drain();
    let ids: Vec<_> = world.sent(Slot::CONTROL).iter().map(|sent| sent.publish().delivery.id()).collect();
    assert_eq!(ids, [Some(unsafe_id), Some(last)], "what went out early is not sent again");
}
