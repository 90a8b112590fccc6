//! How much is under way at a time.

use core::time::Duration;

use device::client::{Publication, RequestError};
use device::mqtt::Qos;
use link::units::{Rate, Time};
use link::{LinkConfig, Path};
use simulate::{MqttOptions, PairOptions};

use crate::world::{Play, World, with};

/// Payload bits per second of 60 messages of 1,000 bytes through 1 Mbit/s and 15 ms each way.
fn kbit_per_s(qos: Qos) -> u64 {
    let path = Path {
        delay: Some(Time::from_millis(15)),
        rate: Some(Rate::from_bits_per_second(1_000_000)),
        queue: Some(link::Queue::Packets(25)),
        ..Path::default()
    };
    let options = PairOptions { link: LinkConfig::symmetric(path), ..PairOptions::seeded(1) };
    let mut world: World = with(options, MqttOptions::default());
    world.connect();
    world.run_for(Duration::from_millis(200));
    let start = world.now();
    let mut next = 0;
    let arrived = world.run_until(Duration::from_secs(60), |world| {
        let now = world.now();
        while next < 60 {
            match world.client.publish(now, &Publication::new("device/17/up", &[7; 1000]).qos(qos)) {
                Ok(_) => next += 1,
                Err(RequestError::Full) => break,
                Err(error) => panic!("{error}"),
            }
        }
        world.server.service.published.len() == 60
    });
    assert!(arrived);
    let took_us = (world.now().elapsed() - start.elapsed()).as_micros() as u64;
    60 * 1000 * 8 * 1000 / took_us
}

#[test]
fn a_message_follows_while_the_one_before_it_is_under_way() {
    // One per round trip of 40 ms would be 200 kbit/s.
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let rate = kbit_per_s(qos);
        assert!(rate >= 280, "{qos:?}: {rate} kbit/s");
    }
}
