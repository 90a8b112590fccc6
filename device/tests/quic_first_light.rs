//! The QUIC connection against quinn-proto: the shortest way from nothing to an echo.

use core::time::Duration;

use device::quic::{EarlyDataOutcome, Event, Phase};
use link::Direction;
use simulate::Pair;

#[test]
fn a_stream_echoes_after_one_handshake() {
    let mut pair = Pair::seeded(1);
    pair.run_until_connected();
    let connected = Event::Connected { resumed: false, early_data: EarlyDataOutcome::NotOffered };
    assert!(pair.client.has(|event| *event == connected));
    pair.echo(20_000, Duration::from_secs(5));
    pair.run_until_confirmed();
    let stats = pair.client.stats();
    assert_eq!(stats.packets_lost, 0);
    assert!(pair.client.has(|event| *event == Event::Handshake(Phase::Confirmed)));
}

#[test]
fn the_handshake_takes_two_client_datagrams_padded_only_where_it_must_be() {
    let mut pair = Pair::seeded(2);
    pair.run_until_connected();
    pair.run_until_confirmed();
    println!("{} datagrams, {} bytes", pair.datagrams(Direction::Up), pair.bytes(Direction::Up));
    assert!(pair.datagrams(Direction::Up) <= 3);
    assert!(pair.bytes(Direction::Up) <= 1_500);
}
