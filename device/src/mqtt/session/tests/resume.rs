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

#[test]
fn a_receive_maximum_that_holds_back_a_publish_holds_back_no_pubrel() {
    let mut world = World::new();
    world.connect(&[Property::ReceiveMaximum(2)]);
    let first = world.publish_id(&AT_LEAST_ONCE);
    let second = world.publish_id(&EXACTLY_ONCE);
    let third = world.publish_id(&EXACTLY_ONCE);
    let fourth = world.publish_id(&AT_LEAST_ONCE);
    world.drain();
    world.ack(AckKind::Pubrec, second);
    world.drain();
    assert_eq!(world.sent(Slot::CONTROL).len(), 3, "two PUBLISH, and PUBREL");
    world.reconnect_to(true, &[Property::ReceiveMaximum(1)]);
    world.drain();
    // The quota counts what was published on this connection: not the one whose PUBREL is repeated (3.3.4, 4.9).
    let sent = world.sent(Slot::CONTROL);
    assert_eq!(sent[0].publish().delivery.id(), Some(first));
    assert!(sent[1].is_ack(AckKind::Pubrel, second));
    assert_eq!(sent.len(), 2);
    world.ack(AckKind::Pubcomp, second);
    assert_eq!(world.drain().len(), 1);
    assert_eq!(world.sent(Slot::CONTROL).len(), 0, "the first is still under way");
    world.ack(AckKind::Puback, first);
    world.drain();
    assert_eq!(world.sent(Slot::CONTROL)[0].publish().delivery.id(), Some(third));
    // With the quota used up, everything but PUBLISH goes on (3.3.4).
    world.ack(AckKind::Pubrec, third);
    world.drain();
    let sent = world.sent(Slot::CONTROL);
    assert!(sent.len() == 1 && sent[0].is_ack(AckKind::Pubrel, third), "the quota is that of PUBCOMP");
    world.ack(AckKind::Pubcomp, third);
    world.drain();
    assert_eq!(world.sent(Slot::CONTROL)[0].publish().delivery.id(), Some(fourth));
}

#[test]
fn what_is_published_waits_behind_an_older_one_that_has_no_quota() {
    let mut world = World::new();
    world.connect(&[Property::ReceiveMaximum(1)]);
    let ids = [0; 3].map(|_| world.publish_id(&AT_LEAST_ONCE));
    for id in ids {
        world.drain();
        let sent = world.sent(Slot::CONTROL);
        assert_eq!(sent.iter().map(|sent| sent.publish().delivery.id()).collect::<Vec<_>>(), [Some(id)]);
        world.ack(AckKind::Puback, id);
    }
}
