use super::*;
use crate::mqtt::Qos;
use crate::mqtt::packet::Delivery;

const AT_LEAST_ONCE: Publication<'_> = Publication::new("a/b", b"payload").qos(Qos::AtLeastOnce);
const EXACTLY_ONCE: Publication<'_> = Publication::new("a/b", b"payload").qos(Qos::ExactlyOnce);

#[test]
fn a_reconnect_asks_for_the_session() {
    let mut world = World::connected();
    world.session.end();
    world.wire = Wire::new();
    world.begin();
    let sent = world.sent(Slot::CONTROL);
    let Packet::Connect(connect) = sent[0].packet() else { panic!("CONNECT first") };
    assert!(!connect.clean_start);
}

#[test]
fn an_unacknowledged_qos_1_message_is_sent_again_as_a_duplicate() {
    let mut world = World::connected();
    let id = world.publish_id(&AT_LEAST_ONCE);
    world.drain();
    world.reconnect(true);
    assert_eq!(world.drain(), []);
    let sent = world.sent(Slot::CONTROL);
    let publish = sent[0].publish();
    assert_eq!((publish.duplicate, publish.delivery), (Duplicate::Yes, Delivery::AtLeastOnce(id)));
    assert_eq!(publish.payload, b"payload");
    assert_eq!(world.session.stats().publishes_resent, 1);
}

#[test]
fn a_message_never_sent_is_no_duplicate() {
    let mut world = World::connected();
    world.wire.room = 0;
    world.publish_id(&AT_LEAST_ONCE);
    world.drain();
    world.reconnect(true);
    world.drain();
    assert_eq!(world.sent(Slot::CONTROL)[0].publish().duplicate, Duplicate::No);
}

#[test]
fn the_order_of_publication_is_kept() {
    let mut world = World::connected();
    let first = world.publish_id(&AT_LEAST_ONCE);
    let second = world.publish_id(&EXACTLY_ONCE);
    let third = world.publish_id(&AT_LEAST_ONCE);
    world.drain();
    world.sent(Slot::CONTROL);
    world.ack(AckKind::Pubrec, second);
    world.drain();
    world.reconnect(true);
    world.drain();
    let sent = world.sent(Slot::CONTROL);
    assert_eq!(sent[0].publish().delivery.id(), Some(first));
    assert!(sent[1].is_ack(AckKind::Pubrel, second), "PUBREL in its place");
    assert_eq!(sent[2].publish().delivery.id(), Some(third));
}

#[test]
fn a_lost_session_gets_everything_anew_and_says_so() {
    let mut world = World::connected();
    let first = world.publish_id(&AT_LEAST_ONCE);
    let received = world.publish_id(&EXACTLY_ONCE);
    world.drain();
    world.sent(Slot::CONTROL);
    world.ack(AckKind::Pubrec, received);
    world.drain();
    world.reconnect(false);
    let token = Token { slot: Slot::CONTROL, id: received };
    let expected =
        [Notice::Acknowledged { token, reason: ReasonCode::SUCCESS }, Notice::SessionLost { republished: 1 }];
    assert_eq!(world.drain(), expected);
    let sent = world.sent(Slot::CONTROL);
    assert_eq!(sent.len(), 1, "no PUBREL to a server that knows nothing");
    let publish = sent[0].publish();
    assert_eq!((publish.duplicate, publish.delivery), (Duplicate::No, Delivery::AtLeastOnce(first)));
}

#[test]
fn received_qos_2_identifiers_survive_a_reconnect() {
    let mut world = World::connected();
    let publish = message("a", b"x", Delivery::ExactlyOnce(id(5)));
    world.reply(Packet::Publish(publish));
    assert_eq!(world.drain().len(), 1);
    world.reconnect(true);
    world.reply(Packet::Publish(Publish { duplicate: Duplicate::Yes, ..publish }));
    assert_eq!(world.drain(), [], "delivered before");
    assert!(world.sent(Slot::CONTROL)[0].is_ack(AckKind::Pubrec, id(5)));
    world.reconnect(false);
    world.drain();
    world.reply(Packet::Publish(publish));
    assert_eq!(world.drain().len(), 1, "a new session, a new message");
}

#[test]
fn publications_made_while_disconnected_are_sent_on_connect() {
    let mut world = World::new();
    let id = world.publish_id(&AT_LEAST_ONCE);
    world.connect(&[]);
    assert_eq!(world.drain(), []);
    assert_eq!(world.sent(Slot::CONTROL)[0].publish().delivery.id(), Some(id));
}

#[test]
fn what_a_new_server_cannot_take_is_abandoned() {
    let mut world = World::new();
    let id = world.publish_id(&EXACTLY_ONCE);
    let kept = world.publish_id(&AT_LEAST_ONCE);
    world.connect(&[Property::MaximumQos(1)]);
    let token = Token { slot: Slot::CONTROL, id };
    assert_eq!(world.drain(), [Notice::Abandoned { token, error: RequestError::QosNotSupported }]);
    assert_eq!(world.sent(Slot::CONTROL)[0].publish().delivery.id(), Some(kept));
}

#[test]
fn acknowledgements_of_an_older_connection_do_no_harm() {
    let mut world = World::connected();
    let id = world.publish_id(&AT_LEAST_ONCE);
    world.drain();
    world.ack(AckKind::Puback, id);
    world.drain();
    world.reconnect(true);
    world.ack(AckKind::Puback, id);
    assert_eq!(world.drain(), []);
}
