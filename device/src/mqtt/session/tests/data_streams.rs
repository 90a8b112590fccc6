use super::*;
use crate::mqtt::packet::{Delivery, Subscribe};
use crate::mqtt::{Error, Qos};

#[test]
fn a_data_stream_is_opened_after_connack_when_it_is_needed() {
    let mut world = World::new();
    let publication = Publication::new("a", b"x").qos(Qos::AtLeastOnce).on(data(1));
    let id = world.publish_id(&publication);
    world.begin();
    world.drain();
    assert!(!world.wire.is_open[1], "EMQX reads data streams only after CONNECT succeeded");
    world.sent(Slot::CONTROL);
    world.connack(false, &[]);
    assert_eq!(world.drain(), [Notice::Connected { session_present: false }, Notice::StreamOpened(data(1))]);
    assert_eq!(world.sent(data(1))[0].publish().delivery, Delivery::AtLeastOnce(id));
    assert_eq!(world.sent(Slot::CONTROL).len(), 0);
}

#[test]
fn qos_0_waits_for_its_data_stream() {
    let mut world = World::connected();
    let publication = Publication::new("a", b"x").on(data(2));
    world.wire.credit = 1;
    assert_eq!(world.publish(&publication), Err(RequestError::NotConnected));
    assert_eq!(world.drain(), [], "no credit yet");
    world.wire.credit = 2;
    assert_eq!(world.drain(), [Notice::StreamOpened(data(2))]);
    assert_eq!(world.publish(&publication), Ok(None));
    assert_eq!(world.sent(data(2)).len(), 1);
}

#[test]
fn each_stream_has_its_own_identifiers() {
    let mut world = World::connected();
    let publication = Publication::new("a", b"x").qos(Qos::AtLeastOnce);
    let control = world.publish_id(&publication);
    let on_data = world.publish_id(&publication.on(data(1)));
    assert_eq!(control, on_data);
    world.drain();
    world.reply_on(data(1), Packet::Ack(AckKind::Puback, Ack::new(on_data, ReasonCode::SUCCESS)));
    let token = Token { slot: data(1), id: on_data };
    assert_eq!(world.drain(), [Notice::Acknowledged { token, reason: ReasonCode::SUCCESS }]);
    assert_eq!(world.session.unacknowledged(), 1, "the one on the control stream");
}

#[test]
fn messages_are_acknowledged_on_their_own_stream() {
    let mut world = World::connected();
    world.session.open_stream(data(1));
    world.drain();
    world.reply_on(data(1), Packet::Publish(message("a", b"x", Delivery::AtLeastOnce(id(4)))));
    assert_eq!(world.drain().len(), 1);
    assert!(world.sent(data(1))[0].is_ack(AckKind::Puback, id(4)));
    assert_eq!(world.sent(Slot::CONTROL).len(), 0);
}

#[test]
fn an_incomplete_packet_on_one_stream_does_not_block_another() {
    let mut world = World::connected();
    world.session.open_stream(data(1));
    world.drain();
    world.wire.to_client[1].extend([0x30, 100, 0, 1, b'a']);
    world.reply(Packet::Publish(message("b", b"x", Delivery::AtMostOnce)));
    assert_eq!(world.drain().len(), 1);
}

#[test]
fn packet_types_of_the_control_stream_close_a_data_stream_only() {
    let foreign = [
        Packet::Pingresp,
        Packet::Disconnect(Disconnect::new(ReasonCode::SUCCESS)),
        Packet::Connack(Connack {
            session_present: false,
            reason: ReasonCode::SUCCESS,
            properties: Properties::NONE,
        }),
    ];
    for packet in foreign {
        let mut world = World::connected();
        world.session.open_stream(data(1));
        world.drain();
        world.reply_on(data(1), packet);
        let error = Error::protocol("fixed_header.packet_type");
        let notices = world.drain();
        assert_eq!(
            notices[0],
            Notice::StreamClosed { slot: data(1), code: None, error: Some(error) },
            "{packet:?}"
        );
        assert_eq!(world.wire.closed, [(data(1), StreamEnd::Reset(0x82))]);
        assert!(world.session.is_open(), "the connection survives");
    }
}

#[test]
fn a_stream_reset_by_the_server_is_opened_again_and_subscribed_again() {
    let mut world = World::connected();
    let token =
        world.session.subscribe(data(1), &[Filter::new("a", Qos::AtLeastOnce)], &world.wire).expect("room");
    world.drain();
    world.sent(data(1));
    world.reply_on(
        data(1),
        Packet::Suback(Suback { id: token.id, properties: Properties::NONE, codes: &[1] }),
    );
    world.drain();
    world.wire.ended[1] = Some(StreamEnd::Reset(7));
    assert_eq!(
        world.drain(),
        [Notice::StreamClosed { slot: data(1), code: Some(7), error: None }, Notice::StreamOpened(data(1))]
    );
    let sent = world.sent(data(1));
    assert!(matches!(sent[0].packet(), Packet::Subscribe(Subscribe { .. })));
}

#[test]
fn data_streams_are_restored_after_a_reconnect_though_the_session_was_present() {
    let mut world = World::connected();
    let token =
        world.session.subscribe(data(1), &[Filter::new("a", Qos::AtLeastOnce)], &world.wire).expect("room");
    let publication = Publication::new("b", b"x").qos(Qos::AtLeastOnce).on(data(1));
    let id = world.publish_id(&publication);
    world.drain();
    world.sent(data(1));
    world.reply_on(
        data(1),
        Packet::Suback(Suback { id: token.id, properties: Properties::NONE, codes: &[1] }),
    );
    world.drain();
    world.reconnect(true);
    assert_eq!(world.drain(), [Notice::StreamOpened(data(1))]);
    let sent = world.sent(data(1));
    assert!(matches!(sent[0].packet(), Packet::Subscribe(_)));
    let publish = sent[1].publish();
    assert_eq!((publish.delivery, publish.duplicate), (Delivery::AtLeastOnce(id), Duplicate::No));
}

/// The server closes the stream whenever it is opened, until it is left alone; returns what was told.
fn refuse(world: &mut World<'_>) -> Vec<Notice> {
    let mut told = Vec::new();
    loop {
        let notices = world.drain();
        let is_open = world.wire.is_open[1];
        told.extend(notices);
        if !is_open {
            return told;
        }
        world.wire.ended[1] = Some(StreamEnd::Finished);
    }
}

fn opened(told: &[Notice]) -> usize {
    told.iter().filter(|notice| matches!(notice, Notice::StreamOpened(_))).count()
}

#[test]
fn a_stream_that_the_server_keeps_closing_is_left_alone_until_the_next_connection() {
    let mut world = World::connected();
    world.session.open_stream(data(1));
    let told = refuse(&mut world);
    assert_eq!(opened(&told), usize::from(REOPENED_MAX) + 1);
    assert_eq!(told.last(), Some(&Notice::StreamRefused(data(1))));
    assert_eq!(world.drain(), [], "told once");
    world.now += STEADY_AFTER;
    assert_eq!(world.drain(), [], "time alone brings nothing back");
    world.reconnect(true);
    assert_eq!(world.drain(), [Notice::StreamOpened(data(1))]);
}

#[test]
fn a_quiet_stream_that_the_server_closes_now_and_then_is_opened_each_time() {
    let mut world = World::with(Options { keep_alive_s: 0, ..Options::new("client") });
    world.connect(&[]);
    world.session.open_stream(data(1));
    assert_eq!(world.drain(), [Notice::StreamOpened(data(1))]);
    for closures in 1..=3 * REOPENED_MAX {
        world.now += STEADY_AFTER;
        world.wire.ended[1] = Some(StreamEnd::Finished);
        let told = world.drain();
        let closed = Notice::StreamClosed { slot: data(1), code: None, error: None };
        assert_eq!(told, [closed, Notice::StreamOpened(data(1))], "{closures} closures");
    }
}

#[test]
fn what_is_stored_for_a_stream_that_is_left_alone_is_abandoned() {
    let mut world = World::connected();
    let publication = Publication::new("a", b"x").qos(Qos::AtLeastOnce).on(data(1));
    let abandoned = [0, 1].map(|_| Notice::Abandoned {
        token: Token { slot: data(1), id: world.publish_id(&publication) },
        error: RequestError::StreamRefused,
    });
    let control = world.publish_id(&Publication::new("a", b"x").qos(Qos::AtLeastOnce));
    let told = refuse(&mut world);
    assert_eq!(told[told.len() - 3..], [Notice::StreamRefused(data(1)), abandoned[0], abandoned[1]]);
    assert_eq!(world.session.unacknowledged(), 1, "the one on the control stream");
    world.ack(AckKind::Puback, control);
    assert_eq!(world.drain().len(), 1);
}

#[test]
fn a_stream_that_is_left_alone_refuses_requests_until_it_is_asked_for() {
    let mut world = World::connected();
    world.session.open_stream(data(1));
    refuse(&mut world);
    let publication = Publication::new("a", b"x").on(data(1));
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        assert_eq!(world.publish(&publication.qos(qos)), Err(RequestError::StreamRefused));
    }
    let filters = [Filter::new("a", Qos::AtLeastOnce)];
    let refused = world.session.subscribe(data(1), &filters, &world.wire);
    assert_eq!(refused, Err(RequestError::StreamRefused));
    assert_eq!(world.session.unsubscribe(data(1), &["a"], &world.wire), Err(RequestError::StreamRefused));
    assert_eq!(world.drain(), []);
    world.session.open_stream(data(1));
    assert_eq!(world.drain(), [Notice::StreamOpened(data(1))]);
    world.publish_id(&publication.qos(Qos::AtLeastOnce));
}

#[test]
fn a_stream_that_achieves_something_each_time_is_opened_again_for_ever() {
    for acknowledges in [true, false] {
        let mut world = World::connected();
        world.session.open_stream(data(1));
        for round in 0..40 {
            let publication = Publication::new("a", b"x").qos(Qos::AtLeastOnce).on(data(1));
            if acknowledges {
                let id = world.publish_id(&publication);
                world.drain();
                world.reply_on(data(1), Packet::Ack(AckKind::Puback, Ack::new(id, ReasonCode::SUCCESS)));
            } else {
                world.drain();
                world.reply_on(data(1), Packet::Publish(message("a", b"x", Delivery::AtMostOnce)));
            }
            world.drain();
            world.wire.ended[1] = Some(StreamEnd::Finished);
            let told = world.drain();
            assert_eq!(opened(&told), 1, "round {round}: {told:?}");
        }
        assert_eq!(world.session.unacknowledged(), 0);
    }
}

#[test]
fn retained_messages_alone_achieve_nothing() {
    let mut world = World::connected();
    world.session.open_stream(data(1));
    let retained = Publish { retain: Retain::Yes, ..message("a", b"x", Delivery::AtMostOnce) };
    let mut told = Vec::new();
    for _ in 0..40 {
        told.extend(world.drain());
        if world.wire.is_open[1] {
            world.reply_on(data(1), Packet::Publish(retained));
            world.wire.ended[1] = Some(StreamEnd::Finished);
        }
    }
    assert_eq!(opened(&told), usize::from(REOPENED_MAX) + 1);
}

#[test]
fn a_slot_beyond_the_streams_is_refused() {
    let mut world = World::new();
    world.wire.count = 2;
    let filters = [Filter::new("a", Qos::AtLeastOnce)];
    for connected in [false, true] {
        if connected {
            world.connect(&[]);
        }
        let publication = Publication::new("a", b"x").on(data(2));
        assert_eq!(world.publish(&publication), Err(RequestError::StreamInvalid));
        assert_eq!(world.publish(&publication.qos(Qos::ExactlyOnce)), Err(RequestError::StreamInvalid));
        let refused = world.session.subscribe(data(2), &filters, &world.wire);
        assert_eq!(refused, Err(RequestError::StreamInvalid));
        assert_eq!(world.session.unsubscribe(data(2), &["a"], &world.wire), Err(RequestError::StreamInvalid));
    }
    assert_eq!(world.session.unacknowledged(), 0);
    world.publish_id(&Publication::new("a", b"x").qos(Qos::AtLeastOnce).on(data(1)));
}

#[test]
fn unsubscribing_belongs_to_the_stream_that_subscribed() {
    let mut world = World::connected();
    let filters = [Filter::new("a", Qos::AtLeastOnce)];
    world.session.subscribe(Slot::CONTROL, &filters, &world.wire).expect("room");
    world.session.subscribe(data(1), &filters, &world.wire).expect("the same filter on another stream");
    world.drain();
    assert_eq!(world.sent(Slot::CONTROL).len(), 1);
    assert_eq!(world.sent(data(1)).len(), 1);
}
