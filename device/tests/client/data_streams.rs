//! EMQX's data streams, end to end.

use device::client::{Cause, Event, Phase, Publication, Slot};
use device::mqtt::Qos;
use quinn_proto::{Dir, Side, StreamId};
use simulate::{MqttOptions, PairOptions};

use crate::world::{Play, World, with};

fn world() -> World<3> {
    with(PairOptions::seeded(21), MqttOptions::default())
}

fn data(index: usize) -> Slot {
    Slot::new(index).expect("a data slot")
}

#[test]
fn publish_and_subscribe_on_streams_of_their_own() {
    let mut world = world();
    world.connect();
    world.subscribe(data(1), "a/#", Qos::AtLeastOnce);
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        world.publish(&Publication::new("a/b", b"x").qos(qos).on(data(2)));
    }
    world.until(10, "messages", |world| world.client.messages().count() == 2);
    world.until(10, "acknowledgements", |world| world.client.acknowledged() == 2);
    assert!(world.client.messages().all(|message| message.slot == data(1)));
    assert!(world.server.service.published.iter().all(|message| message.stream == 2));
    assert_eq!(world.server.service.data_streams(), 2);
}

#[test]
fn four_streams_announce_what_each_of_them_can_hold_and_take_it() {
    let mut world: World<4> = with(PairOptions::seeded(23), MqttOptions::default());
    world.connect();
    let announced = world.server.service.maximum_packet_size.expect("a limit");
    assert_eq!(announced, 736, "a quarter of the receive memory");
    for index in 0..4 {
        world.subscribe(Slot::new(index).expect("a slot"), "a/#", Qos::AtLeastOnce);
    }
    // Fixed header of 3 bytes, topic of 5, identifier of 2, no properties: 1.
    let payload = vec![7; announced as usize - 11];
    for _ in 0..3 {
        world.broker_publishes("a/b", &payload, Qos::AtLeastOnce);
    }
    world.until(10, "messages on each stream", |world| world.client.messages().count() == 12);
    assert_eq!(world.client.connections(), 1);
    let highs = world.client.stats().transport;
    assert!((700..=736).contains(&highs.receive_buffer_max), "{}", highs.receive_buffer_max);
    assert!(highs.send_buffer_max > 0 && highs.sent_packets_max > 0);
}

#[test]
fn streams_wait_for_credit() {
    let mut options = PairOptions::seeded(22);
    options.server.streams = 1;
    let mut world: World<3> = with(options, MqttOptions::default());
    world.connect();
    world.publish(&Publication::new("a/b", b"x").qos(Qos::AtLeastOnce).on(data(1)));
    world.run_for(core::time::Duration::from_secs(1));
    assert_eq!(world.client.acknowledged(), 0);
    let quic = world.server.connection().expect("connected");
    quic.set_max_concurrent_streams(quinn_proto::Dir::Bi, 5_u32.into());
    let now = world.now();
    world.server.wake(now);
    world.until(10, "acknowledgement", |world| world.client.acknowledged() == 1);
}

#[test]
fn connect_waits_for_a_server_that_starts_without_stream_credit() {
    // As EMQX 5.8 does: zero in its transport parameters, MAX_STREAMS after the handshake.
    let mut options = PairOptions::seeded(24);
    options.server.streams = 0;
    let mut world: World<3> = with(options, MqttOptions::default());
    let now = world.now();
    world.client.connect(now);
    world.run_for(core::time::Duration::from_secs(1));
    assert!(world.client.has(|event| *event == Event::Phase(Phase::HandshakeConfirmed)));
    assert!(!world.client.has(|event| *event == Event::Phase(Phase::ConnectSent)));
    let quic = world.server.connection().expect("connected");
    quic.set_max_concurrent_streams(quinn_proto::Dir::Bi, 10_u32.into());
    let now = world.now();
    world.server.wake(now);
    world.until(1, "CONNACK", |world| world.client.connections() == 1);
}

#[test]
fn a_stream_that_the_broker_resets_is_opened_and_subscribed_again() {
    let mut world = world();
    world.connect();
    world.subscribe(data(1), "a/#", Qos::AtLeastOnce);
    let now = world.now();
    world.server.service.reset_data_streams(7);
    world.server.wake(now);
    let closed = |event: &Event<'static>| matches!(event, Event::StreamClosed { code: Some(7), .. });
    world.until(10, "closed stream", |world| world.client.has(closed));
    world.run_for(core::time::Duration::from_secs(1));
    world.broker_publishes("a/b", b"x", Qos::AtLeastOnce);
    world.until(10, "message", |world| world.client.messages().count() == 1);
    assert_eq!(world.client.connections(), 1, "the connection survives");
}

/// The broker gives up its half of the client's stream `index`, and goes on reading.
fn reset_one_half<const STREAMS: usize>(world: &mut World<STREAMS>, index: u64, code: u32) {
    let id = StreamId::new(Side::Client, Dir::Bi, index);
    let now = world.now();
    world.server.connection().expect("connected").send_stream(id).reset(code.into()).expect("open");
    world.server.wake(now);
}

#[test]
fn the_code_of_a_reset_is_told_though_the_broker_goes_on_reading() {
    let mut world = world();
    world.connect();
    world.subscribe(data(1), "a/#", Qos::AtLeastOnce);
    reset_one_half(&mut world, 1, 7);
    let closed = |event: &Event<'static>| matches!(event, Event::StreamClosed { .. });
    world.until(10, "closed stream", |world| world.client.has(closed));
    let told = world.client.events().find(|event| closed(event)).expect("told");
    assert_eq!(*told, Event::StreamClosed { slot: data(1), code: Some(7), error: None });
    reset_one_half(&mut world, 0, 0x8e);
    world.until(10, "end of the session", |world| !world.client.causes().is_empty());
    assert_eq!(world.client.causes(), [Cause::ControlStreamEnded(Some(0x8e))]);
}

#[test]
fn data_streams_are_restored_after_a_reconnect() {
    let mut world = world();
    world.connect();
    world.subscribe(data(1), "a/#", Qos::AtLeastOnce);
    let now = world.now();
    world.server.restart(now);
    world.publish(&Publication::new("a/b", b"x").qos(Qos::AtLeastOnce).on(data(2)));
    world.until(60, "acknowledgement", |world| world.client.acknowledged() == 1);
    world.broker_publishes("a/c", b"y", Qos::AtLeastOnce);
    world.until(10, "message", |world| world.client.messages().any(|message| message.topic == "a/c"));
    assert_eq!(world.client.connections(), 2);
}
