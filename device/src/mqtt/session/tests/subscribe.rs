use super::*;
use crate::mqtt::packet::{Subscribe, Unsuback};
use crate::mqtt::{Error, Qos};

#[track_caller]
fn subscribe(sent: &Sent) -> (PacketId, Vec<&str>) {
    match sent.packet() {
        Packet::Subscribe(Subscribe { id, filters, .. }) => {
            (id, filters.iter().map(|filter| filter.filter).collect())
        }
        other => panic!("{other:?} is no SUBSCRIBE"),
    }
}

fn suback(world: &mut World<'_>, id: PacketId, codes: &[u8]) {
    world.reply(Packet::Suback(Suback { id, properties: Properties::NONE, codes }));
}

#[test]
fn several_filters_go_in_one_packet_and_are_answered_together() {
    let mut world = World::connected();
    let filters = [Filter::new("a/+", Qos::AtLeastOnce), Filter::new("b", Qos::ExactlyOnce)];
    let token = world.session.subscribe(Slot::CONTROL, &filters, &world.wire).expect("room");
    world.drain();
    let sent = world.sent(Slot::CONTROL);
    assert_eq!(subscribe(&sent[0]), (token.id, std::vec!["a/+", "b"]));
    suback(&mut world, token.id, &[1, 0x87]);
    let notice = world.poll().expect("SUBACK");
    assert_eq!(world.session.event(notice, &world.rx), Event::Subscribed { token, codes: &[1, 0x87] });
}

#[test]
fn a_request_before_the_connection_is_sent_with_it() {
    let mut world = World::new();
    world.session.subscribe(Slot::CONTROL, &[Filter::new("a", Qos::AtMostOnce)], &world.wire).expect("room");
    world.connect(&[]);
    world.drain();
    assert_eq!(subscribe(&world.sent(Slot::CONTROL)[0]).1, ["a"]);
}

#[test]
fn an_answer_to_nothing_is_a_protocol_error() {
    let mut world = World::connected();
    suback(&mut world, id(9), &[0]);
    assert_eq!(world.drain(), [Notice::Protocol(Error::protocol("suback.packet_id"))]);
}

#[test]
fn unsubscribe_is_answered_with_codes_in_5_0() {
    let mut world = World::connected();
    let token = world.session.unsubscribe(Slot::CONTROL, &["a", "b"], &world.wire).expect("room");
    world.drain();
    let sent = world.sent(Slot::CONTROL);
    assert!(matches!(sent[0].packet(), Packet::Unsubscribe(_)));
    let unsuback = Unsuback { id: token.id, properties: Properties::NONE, codes: &[0, 0x11] };
    world.reply(Packet::Unsuback(unsuback));
    let notice = world.poll().expect("UNSUBACK");
    assert_eq!(world.session.event(notice, &world.rx), Event::Unsubscribed { token, codes: &[0, 0x11] });
}

#[test]
fn a_lost_session_is_subscribed_again_and_a_kept_one_is_not() {
    for session_present in [true, false] {
        let mut world = World::connected();
        let token = world
            .session
            .subscribe(Slot::CONTROL, &[Filter::new("a", Qos::AtLeastOnce)], &world.wire)
            .expect("room");
        world.drain();
        world.sent(Slot::CONTROL);
        suback(&mut world, token.id, &[1]);
        world.drain();
        world.reconnect(session_present);
        world.drain();
        let sent = world.sent(Slot::CONTROL);
        assert_eq!(sent.len(), usize::from(!session_present));
        if let Some(sent) = sent.first() {
            assert_eq!(subscribe(sent).1, ["a"]);
        }
    }
}

#[test]
fn an_unanswered_request_is_repeated_after_a_reconnect() {
    let mut world = World::connected();
    let filters = [Filter::new("a", Qos::AtMostOnce)];
    let token = world.session.subscribe(Slot::CONTROL, &filters, &world.wire).expect("room");
    world.drain();
    world.reconnect(true);
    world.drain();
    let sent = world.sent(Slot::CONTROL);
    assert_eq!(subscribe(&sent[0]), (token.id, std::vec!["a"]), "under the same identifier");
}

#[test]
fn codes_come_in_the_order_of_the_callers_filters() {
    let mut world = World::connected();
    let token = world
        .session
        .subscribe(Slot::CONTROL, &[Filter::new("a", Qos::AtLeastOnce)], &world.wire)
        .expect("room");
    world.drain();
    suback(&mut world, token.id, &[1]);
    world.drain();
    world.sent(Slot::CONTROL);
    let filters = [Filter::new("b", Qos::AtLeastOnce), Filter::new("a", Qos::ExactlyOnce)];
    let token = world.session.subscribe(Slot::CONTROL, &filters, &world.wire).expect("room");
    world.drain();
    assert_eq!(subscribe(&world.sent(Slot::CONTROL)[0]), (token.id, std::vec!["b", "a"]));
    suback(&mut world, token.id, &[1, 2]);
    world.drain();
    let token = world.session.unsubscribe(Slot::CONTROL, &["c", "a", "b"], &world.wire).expect("room");
    world.drain();
    let sent = world.sent(Slot::CONTROL);
    let Packet::Unsubscribe(unsubscribe) = sent[0].packet() else { panic!("UNSUBSCRIBE") };
    assert_eq!(
        (unsubscribe.id, unsubscribe.filters.iter().collect::<Vec<_>>()),
        (token.id, std::vec!["c", "a", "b"])
    );
}

#[test]
fn unsuback_with_a_wrong_number_of_codes_is_a_protocol_error() {
    let mut world = World::connected();
    let token = world.session.unsubscribe(Slot::CONTROL, &["a", "b"], &world.wire).expect("room");
    world.drain();
    world.reply(Packet::Unsuback(Unsuback { id: token.id, properties: Properties::NONE, codes: &[0] }));
    assert_eq!(world.drain(), [Notice::Protocol(Error::protocol("unsuback.packet_id"))]);
}

#[test]
fn unsuback_of_3_1_1_has_no_codes() {
    let mut world = World::connected_v3();
    let token = world.session.unsubscribe(Slot::CONTROL, &["a", "b"], &world.wire).expect("room");
    world.drain();
    world.reply(Packet::Unsuback(Unsuback { id: token.id, properties: Properties::NONE, codes: &[] }));
    assert_eq!(world.drain(), [Notice::Unsubscribed { token, codes: 0 }]);
}

#[test]
fn a_request_larger_than_the_server_takes_is_abandoned() {
    let mut world = World::new();
    let long = "x".repeat(60);
    let token = world
        .session
        .subscribe(Slot::CONTROL, &[Filter::new(&long, Qos::AtMostOnce)], &world.wire)
        .expect("nothing is known of the server");
    world.connect(&[Property::MaximumPacketSize(64)]);
    assert_eq!(world.drain(), [Notice::Abandoned { token, error: RequestError::TooLarge }]);
    assert_eq!(world.sent(Slot::CONTROL).len(), 0);
    let short = [Filter::new("a", Qos::AtMostOnce)];
    world.session.subscribe(Slot::CONTROL, &short, &world.wire).expect("the table is empty again");
    world.drain();
    assert_eq!(subscribe(&world.sent(Slot::CONTROL)[0]).1, ["a"]);
}

/// A server that takes at most 64 bytes, and has granted "a" with QoS 1.
fn granted_by_a_small_server() -> World<'static> {
    let mut world = World::new();
    world.connect(&SMALL);
    let filter = [Filter::new("a", Qos::AtLeastOnce)];
    let token = world.session.subscribe(Slot::CONTROL, &filter, &world.wire).expect("room");
    world.drain();
    suback(&mut world, token.id, &[1]);
    world.drain();
    world.sent(Slot::CONTROL);
    world
}

const SMALL: [Property<'static>; 1] = [Property::MaximumPacketSize(64)];

#[test]
fn a_request_larger_than_the_server_is_known_to_take_leaves_no_trace() {
    let mut world = granted_by_a_small_server();
    let long = "x".repeat(60);
    let filters = [Filter::new("a", Qos::ExactlyOnce), Filter::new(&long, Qos::AtMostOnce)];
    let refused = world.session.subscribe(Slot::CONTROL, &filters, &world.wire);
    assert_eq!(refused, Err(RequestError::TooLarge));
    let refused = world.session.unsubscribe(Slot::CONTROL, &["a", &long], &world.wire);
    assert_eq!(refused, Err(RequestError::TooLarge));
    assert_eq!(world.drain(), []);
    assert_eq!(world.sent(Slot::CONTROL).len(), 0);
    world.reconnect_to(false, &SMALL);
    world.drain();
    let sent = world.sent(Slot::CONTROL);
    let Packet::Subscribe(subscribe) = sent[0].packet() else { panic!("SUBSCRIBE") };
    assert_eq!(subscribe.filters.iter().collect::<Vec<_>>(), [Filter::new("a", Qos::AtLeastOnce)]);
}

#[test]
fn a_request_that_is_abandoned_leaves_what_was_granted_before() {
    for session_present in [true, false] {
        let mut world = granted_by_a_small_server();
        world.session.end();
        let long = "x".repeat(60);
        let filters = [Filter::new(&long, Qos::AtMostOnce), Filter::new("a", Qos::ExactlyOnce)];
        let token =
            world.session.subscribe(Slot::CONTROL, &filters, &world.wire).expect("the server may change");
        world.reconnect_to(session_present, &SMALL);
        let told = world.drain();
        assert!(told.contains(&Notice::Abandoned { token, error: RequestError::TooLarge }), "{told:?}");
        for _ in 0..2 {
            let sent = world.sent(Slot::CONTROL);
            assert_eq!((sent.len(), subscribe(&sent[0]).1), (1, std::vec!["a"]));
            suback(&mut world, subscribe(&sent[0]).0, &[2]);
            world.drain();
            world.reconnect_to(false, &SMALL);
            world.drain();
        }
    }
}

#[test]
fn what_is_asked_for_once_more_is_abandoned_in_the_end() {
    let mut world = granted_by_a_small_server();
    let tiny = [Property::MaximumPacketSize(6)];
    world.reconnect_to(false, &tiny);
    let told = world.drain();
    let abandoned = |notice: &&Notice| matches!(notice, Notice::Abandoned { .. });
    assert_eq!(told.iter().filter(abandoned).count(), 1, "{told:?}");
    assert_eq!(world.sent(Slot::CONTROL).len(), 0);
    world.reconnect_to(false, &tiny);
    assert!(!world.drain().iter().any(|notice| abandoned(&notice)), "it was told");
}

#[test]
fn renewals_keep_to_the_servers_maximum_packet_size() {
    let maximum = 64;
    let mut world = World::new();
    world.connect(&[Property::MaximumPacketSize(maximum)]);
    let filters = ["1", "2", "3", "4"].map(|digit| std::format!("{digit}/{}", "x".repeat(30)));
    for filter in &filters {
        let filter = [Filter::new(filter, Qos::AtLeastOnce)];
        let token = world.session.subscribe(Slot::CONTROL, &filter, &world.wire).expect("room");
        world.drain();
        suback(&mut world, token.id, &[1]);
        world.drain();
    }
    world.reconnect_to(false, &[Property::MaximumPacketSize(maximum)]);
    world.drain();
    let sent = world.sent(Slot::CONTROL);
    assert!(sent.iter().all(|sent| sent.bytes.len() <= maximum as usize));
    let renewed: Vec<_> = sent.iter().flat_map(|sent| subscribe(sent).1).collect();
    assert_eq!(renewed, filters);
    for sent in &sent {
        suback(&mut world, subscribe(sent).0, &[1]);
    }
    assert_eq!(world.drain().len(), filters.len());
}
