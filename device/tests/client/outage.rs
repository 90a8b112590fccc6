//! Coming back after the network or the server was away.

use core::time::Duration;

use device::client::{Cause, Publication, RequestError};
use device::mqtt::Qos;
use link::units::Time;
use link::{Blackout, LinkConfig, Path};
use simulate::{Clock, MqttOptions, PairOptions};

use crate::world::{Play, World, with};

/// 20 ms each way, and away for `length` from two seconds after the connection on.
fn outage(seed: u64, length: Duration) -> PairOptions {
    let path = Path { delay: Some(Time::from_millis(20)), ..Path::default() };
    let mut link = LinkConfig::symmetric(path);
    link.blackout.push(Blackout {
        at: Time::from_millis(2_000),
        after: Some("connected".to_owned()),
        length: Time::from_millis(length.as_millis() as u64),
        period: None,
        count: None,
        direction: None,
    });
    PairOptions { link, ..PairOptions::seeded(seed) }
}

/// Publishes a message every 100 ms from `start` on, as far as there is room, and follows the client's wishes.
/// Returns when the first message was acknowledged at or after `end`.
fn first_acknowledgement_after(world: &mut World, start: Clock, end: Clock, qos: Qos) -> Clock {
    let mut due = start;
    loop {
        let before = world.client.acknowledged();
        world.step(due);
        if world.client.wants_migration {
            world.migrate_port();
        }
        if world.client.acknowledged() > before && world.now() >= end {
            return world.now();
        }
        assert!(world.now() < end + Duration::from_secs(60), "no acknowledgement: {:#?}", world.client.told);
        let now = world.now();
        if now >= due {
            due = now + Duration::from_millis(100);
            match world.client.publish(now, &Publication::new("device/up", &[7; 64]).qos(qos)) {
                Ok(_) | Err(RequestError::Full | RequestError::NotConnected) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn the_end_of_an_outage_is_noticed_though_the_store_is_full() {
    for (seed, length_ms) in [(1, 300), (2, 700), (3, 1_500), (4, 2_500), (5, 3_000), (6, 3_300)] {
        let length = Duration::from_millis(length_ms);
        let mut world: World = with(outage(seed, length), MqttOptions::default());
        world.connect();
        world.announce("connected");
        let start = world.now();
        let end = start + Duration::from_secs(2) + length;
        let back = first_acknowledgement_after(&mut world, start, end, Qos::AtLeastOnce);
        let late = back.elapsed() - end.elapsed();
        let bound = Duration::from_millis(2 * 40 + 110).max(length / 16 + Duration::from_millis(80));
        assert!(late <= bound, "{length:?} away, back {late:?} later: {:#?}", world.client.told);
    }
}

#[test]
fn a_server_that_lost_its_connections_is_found_out_within_a_second() {
    let mut options = PairOptions::seeded(7);
    options.server.keeps_reset_key = false;
    let mut world: World = with(options, MqttOptions::default());
    world.connect();
    world.run_for(Duration::from_millis(500));
    let now = world.now();
    world.server.restart(now);
    world.publish(&Publication::new("device/up", b"x").qos(Qos::AtLeastOnce));
    world.until(5, "wish for another port", |world| world.client.wants_migration);
    world.migrate_port();
    world.until(60, "acknowledgement", |world| world.client.acknowledged() == 1);
    assert_eq!(world.client.causes(), [Cause::Forgotten]);
    let away = world.now().elapsed() - now.elapsed();
    assert!(away < Duration::from_millis(1_500), "{away:?}");
}

#[test]
fn a_reconnect_repeats_its_first_packet_by_the_rtt_it_knows() {
    let mut world: World = with(PairOptions::seeded(8), MqttOptions::default());
    world.connect();
    world.run_for(Duration::from_millis(500));
    world.client.abandon();
    let before = world.now();
    world.drop_next(link::Direction::Up);
    world.until(10, "new connection", |world| world.client.connections() == 2);
    let waited = world.client.told.iter().find_map(|(at, told)| match told {
        simulate::Told::Event(device::client::Event::Attempt { .. }) if *at > before => Some(*at),
        _ => None,
    });
    let attempt = waited.expect("an attempt");
    let took = world.now().elapsed() - attempt.elapsed();
    // 30 ms there and back: one lost packet, found out after 3 x 50 ms, and two round trips.
    assert!(took < Duration::from_millis(240), "{took:?}");
}
