//! Every message of QoS 1 and 2 gets through a bad network; QoS 2 exactly once.

use device::client::{Publication, RequestError, Slot};
use device::mqtt::{Qos, Version};
use link::{LinkConfig, Path, units};
use simulate::{MqttOptions, PairOptions};

use crate::world::{Play, World, with};

fn lossy(seed: u64) -> PairOptions {
    let path = Path {
        delay: Some(units::Time::from_millis(20)),
        loss: Some(units::Percent::new(10.0).expect("a percentage").into()),
        ..Path::default()
    };
    PairOptions { link: LinkConfig::symmetric(path), ..PairOptions::seeded(seed) }
}

/// Publishes `count` messages as fast as there is room for them, and has them echoed.
fn exchange(world: &mut World, count: u32, qos: Qos) {
    world.connect();
    world.subscribe(Slot::CONTROL, "a/#", qos);
    let mut next = 0;
    let done = world.run_until(core::time::Duration::from_secs(300), |world| {
        let now = world.now();
        while next < count {
            let payload = next.to_be_bytes();
            match world.client.publish(now, &Publication::new("a/b", &payload).qos(qos)) {
                Ok(_) => next += 1,
                Err(RequestError::Full | RequestError::NotConnected) => break,
                Err(error) => panic!("{error}"),
            }
        }
        world.client.acknowledged() == count as usize && world.client.messages().count() >= count as usize
    });
    assert!(
        done,
        "{next} published, {} acknowledged, {} received until {}: {:?}",
        world.client.acknowledged(),
        world.client.messages().count(),
        world.now(),
        world.client.causes()
    );
}

#[test]
fn qos_2_is_delivered_once_in_both_directions() {
    for seed in 0..5 {
        for version in [Version::V5, Version::V3_1_1] {
            let mqtt = MqttOptions { version, ..MqttOptions::default() };
            let mut world: World = with(lossy(seed), mqtt);
            exchange(&mut world, 50, Qos::ExactlyOnce);
            let published: Vec<_> =
                world.server.service.published.iter().map(|message| message.payload.clone()).collect();
            let expected: Vec<_> = (0..50_u32).map(|number| number.to_be_bytes().to_vec()).collect();
            assert_eq!(published, expected, "seed {seed} {version:?}");
            let received: Vec<_> = world.client.messages().map(|message| message.payload.clone()).collect();
            assert_eq!(received, expected, "seed {seed} {version:?}");
        }
    }
}

#[test]
fn qos_1_is_delivered_at_least_once() {
    for seed in 10..15 {
        let mut world: World = with(lossy(seed), MqttOptions::default());
        exchange(&mut world, 50, Qos::AtLeastOnce);
        for number in 0..50_u32 {
            let payload = number.to_be_bytes();
            let arrived = world.server.service.published.iter().any(|message| message.payload == payload);
            assert!(arrived, "seed {seed}: message {number}");
        }
    }
}

#[test]
fn qos_2_survives_broker_restarts_exactly_once() {
    for seed in 20..24 {
        let mut world: World = with(lossy(seed), MqttOptions::default());
        world.connect();
        let mut sent = 0_u32;
        for round in 0..4 {
            for _ in 0..5 {
                let payload = sent.to_be_bytes();
                world.publish(&Publication::new("a/b", &payload).qos(Qos::ExactlyOnce));
                sent += 1;
            }
            world.run_for(core::time::Duration::from_millis(15 + 20 * round));
            let now = world.now();
            world.server.restart(now);
            world.until(120, "acknowledgements", |world| world.client.acknowledged() == sent as usize);
        }
        let published: Vec<_> =
            world.server.service.published.iter().map(|message| message.payload.clone()).collect();
        let expected: Vec<_> = (0..sent).map(|number| number.to_be_bytes().to_vec()).collect();
        assert_eq!(published, expected, "seed {seed}");
    }
}
