//! Retained messages (MQTT 5.0 3.3.1.3), end to end.

use core::time::Duration;

use device::client::{Filter, Publication, Slot};
use device::mqtt::{Qos, Retain, RetainHandling, Version};
use simulate::{MqttOptions, PairOptions};

use crate::world::{Play, World, with};

const STATE: Publication<'_> =
    Publication { retain: Retain::Yes, ..Publication::new("a/state", b"on").qos(Qos::AtLeastOnce) };

fn world<const STREAMS: usize>(version: Version) -> World<STREAMS> {
    let mut world = with(PairOptions::seeded(60), MqttOptions { version, ..MqttOptions::default() });
    world.connect();
    world
}

/// Publishes and waits until the broker has it.
fn publish<const STREAMS: usize>(world: &mut World<STREAMS>, publication: &Publication<'_>) {
    let before = world.client.acknowledged();
    world.publish(publication);
    world.until(5, "acknowledgement", |world| world.client.acknowledged() > before);
}

fn subscribe<const STREAMS: usize>(world: &mut World<STREAMS>, slot: Slot, filter: Filter<'_>) {
    let now = world.now();
    let token = world.client.subscribe(now, slot, &[filter]).expect("room");
    world.until(5, "SUBACK", |world| world.client.is_answered(token));
    world.run_for(Duration::from_secs(1));
}

/// Payload and flag of what was received so far.
fn received<const STREAMS: usize>(world: &World<STREAMS>) -> Vec<(&[u8], Retain)> {
    world.client.messages().map(|message| (&message.payload[..], message.retain)).collect()
}

#[test]
fn who_subscribes_later_gets_the_last_one_marked_as_retained() {
    for version in [Version::V5, Version::V3_1_1] {
        let mut world: World = world(version);
        publish(&mut world, &Publication { payload: b"off", ..STATE });
        publish(&mut world, &STATE);
        publish(&mut world, &Publication::new("a/event", b"not kept").qos(Qos::AtLeastOnce));
        subscribe(&mut world, Slot::CONTROL, Filter::new("a/+", Qos::ExactlyOnce));
        assert_eq!(received(&world), [(&b"on"[..], Retain::Yes)], "{version:?}");
        // To a subscription that exists it is a message like any other.
        publish(&mut world, &Publication { payload: b"off", ..STATE });
        world.until(5, "message", |world| world.client.messages().count() == 2);
        assert_eq!(received(&world)[1], (&b"off"[..], Retain::No), "{version:?}");
    }
}

#[test]
fn an_empty_payload_takes_it_away() {
    let mut world: World = world(Version::V5);
    publish(&mut world, &STATE);
    publish(&mut world, &Publication { payload: b"", ..STATE });
    subscribe(&mut world, Slot::CONTROL, Filter::new("a/+", Qos::AtLeastOnce));
    assert_eq!(received(&world), []);
}

#[test]
fn the_options_of_a_subscription_reach_the_broker() {
    let mut world: World = world(Version::V5);
    publish(&mut world, &STATE);
    let filter = Filter::new("a/+", Qos::AtLeastOnce);
    subscribe(&mut world, Slot::CONTROL, Filter { retain_handling: RetainHandling::DoNotSend, ..filter });
    assert_eq!(received(&world), []);
    let if_new = Filter { retain_handling: RetainHandling::SendIfNew, retain_as_published: true, ..filter };
    subscribe(&mut world, Slot::CONTROL, if_new);
    assert_eq!(received(&world), [], "the subscription was there already");
    publish(&mut world, &STATE);
    world.until(5, "message", |world| world.client.messages().count() == 1);
    assert_eq!(received(&world), [(&b"on"[..], Retain::Yes)], "as it was published");
    subscribe(&mut world, Slot::CONTROL, filter);
    assert_eq!(received(&world).len(), 2, "asked for again");
}

#[test]
fn a_data_stream_gets_them_too() {
    let mut world: World<3> = world(Version::V5);
    publish(&mut world, &STATE);
    let slot = Slot::new(1).expect("a data slot");
    subscribe(&mut world, slot, Filter::new("a/+", Qos::AtLeastOnce));
    assert_eq!(received(&world), [(&b"on"[..], Retain::Yes)]);
    assert!(world.client.messages().all(|message| message.slot == slot));
}

#[test]
fn a_continued_session_gets_none_again_and_a_renewed_one_does() {
    let mut world: World = world(Version::V5);
    publish(&mut world, &STATE);
    subscribe(&mut world, Slot::CONTROL, Filter::new("a/+", Qos::AtLeastOnce));
    assert_eq!(received(&world).len(), 1);
    for (forgets, messages) in [(false, 1), (true, 2)] {
        let (now, before) = (world.now(), world.client.connections());
        world.server.restart(now);
        if forgets {
            world.server.service.forget_sessions();
        }
        world.client.abandon();
        world.until(30, "new session", |world| world.client.connections() > before);
        world.run_for(Duration::from_secs(2));
        assert_eq!(received(&world), vec![(&b"on"[..], Retain::Yes); messages], "forgets: {forgets}");
    }
}
