//! Connecting while many packets are lost.

use core::time::Duration;

use device::client::{Cause, Policy, Publication, Reconnect};
use device::mqtt::Qos;
use device::time::Duration as Span;
use link::{LinkConfig, Loss, LossTable, Path, units};
use simulate::{MqttOptions, PairOptions};

use crate::world::{Play, World, with};

/// 15 ms each way.
fn path(loss: LossTable) -> Path {
    Path { delay: Some(units::Time::from_millis(15)), loss: Some(Loss(loss)), ..Path::default() }
}

/// 30 % of all packets lost, at most three of them in a row: the link of the scenario `reconnect-storm`.
fn storm(seed: u64) -> PairOptions {
    let random = Some(units::Percent::new(30.0).expect("a percentage"));
    let loss = LossTable { random, run_max: Some(3), ..LossTable::default() };
    PairOptions { link: LinkConfig::symmetric(path(loss)), ..PairOptions::seeded(seed) }
}

/// These packets of the client are lost, and these of the server.
fn losing(up: &str, down: &str) -> PairOptions {
    let packets = |list: &str| {
        path(LossTable { packets: Some(list.parse().expect("a list of packets")), ..LossTable::default() })
    };
    let link = LinkConfig { up: packets(up), down: packets(down), ..LinkConfig::default() };
    PairOptions { link, ..PairOptions::seeded(1) }
}

/// Times from leaving one connection to the CONNACK of the next.
fn reconnect_times(seed: u64, count: usize) -> Vec<Duration> {
    let reconnect =
        Reconnect::Backoff { first: Span::from_millis(1), max: Span::from_millis(500), attempts_max: 0 };
    let mqtt = MqttOptions { policy: Policy { reconnect, ..Policy::DEFAULT }, ..MqttOptions::default() };
    let mut world: World = with(storm(seed), mqtt);
    world.connect();
    let reconnect = |_| {
        world.run_for(Duration::from_millis(500));
        let (start, before) = (world.now(), world.client.connections());
        world.client.abandon();
        world.publish(&Publication::new("a/b", b"x").qos(Qos::AtLeastOnce));
        world.until(60, "CONNACK", |world| {
            if world.client.wants_migration {
                world.migrate_port();
            }
            world.client.connections() > before
        });
        world.now().elapsed() - start.elapsed()
    };
    let times = (0..count).map(reconnect).collect();
    assert!(!world.client.causes().contains(&Cause::ConnackTimeout), "seed {seed}");
    times
}

#[test]
fn reconnects_come_through_though_nearly_every_third_packet_is_lost() {
    let mut times: Vec<_> = (0..18).flat_map(|seed| reconnect_times(seed, 50)).collect();
    times.sort_unstable();
    let (half, most) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    assert!(half < Duration::from_millis(500), "{half:?}: {times:?}");
    assert!(most < Duration::from_secs(6), "{most:?}: {times:?}");
}

#[test]
fn a_lost_connect_goes_with_the_next_probe_of_the_handshake() {
    // The client's second packet is its Finished with CONNECT; the server's HANDSHAKE_DONE is lost at first, too.
    let mut world: World = with(losing("2", "3"), MqttOptions::default());
    world.connect();
    let elapsed = world.now().elapsed();
    // Two round trips, and one probe timeout of up to three.
    assert!(elapsed < Duration::from_millis(5 * 30 + 40), "{elapsed:?}: {:?}", world.client.told);
}
