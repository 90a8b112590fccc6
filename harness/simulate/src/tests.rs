//! The simulation itself, checked with quinn-proto on both sides.

use core::time::Duration;

use link::{Direction, LinkConfig, Path};
use quinn_proto::{Dir, Event, ReadError};

use crate::reference::ReferenceClient;
use crate::server::{Server, ServerOptions};
use crate::service::Echo;
use crate::{Pair, PairOptions};

fn pair(seed: u64, link: &LinkConfig, server: ServerOptions) -> Pair<ReferenceClient, Echo> {
    Pair::new(ReferenceClient::new(seed), Server::new(server, seed, Echo::default()), link, seed)
}

fn connected(pair: &mut Pair<ReferenceClient, Echo>) -> bool {
    pair.client.events.iter().any(|event| matches!(event, Event::Connected))
}

/// Connects, and has `len` bytes echoed.
fn exchange(pair: &mut Pair<ReferenceClient, Echo>, len: usize) {
    assert!(pair.run_until(Duration::from_secs(10), connected), "{:?}", pair.client.events);
    let id = pair.client.connection.streams().open(Dir::Bi).expect("credit");
    let (mut sent, mut received) = (0, 0);
    let done = pair.run_until(Duration::from_secs(60), |pair| {
        let quic = &mut pair.client.connection;
        while sent < len {
            match quic.send_stream(id).write(&vec![7; (len - sent).min(1000)]) {
                Ok(written) => sent += written,
                Err(_) => break,
            }
        }
        if sent == len {
            let _ = quic.send_stream(id).finish();
        }
        let mut stream = quic.recv_stream(id);
        let Ok(mut chunks) = stream.read(true) else { return false };
        let finished = loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => received += chunk.bytes.len(),
                Ok(None) => break true,
                Err(ReadError::Blocked) => break false,
                Err(error) => panic!("{error}"),
            }
        };
        let _ = chunks.finalize();
        finished
    });
    assert!(done, "{received} of {len} bytes");
    assert_eq!(received, len);
}

#[test]
fn two_quinns_connect_in_one_round_trip_and_exchange_data() {
    let mut pair = pair(1, &PairOptions::seeded(1).link, ServerOptions::default());
    assert!(pair.run_until(Duration::from_secs(1), connected));
    let elapsed_ms = pair.now().elapsed().as_millis();
    assert!((30..50).contains(&elapsed_ms), "{elapsed_ms} ms with a round trip of 30 ms");
    exchange(&mut pair, 50_000);
    assert_eq!(pair.server.service.received, 50_000);
}

#[test]
fn a_seed_gives_the_same_datagrams_on_every_run() {
    let lossy = Path {
        delay: Some(link::units::Time::from_millis(20)),
        loss: Some(link::units::Percent::new(5.0).expect("a percentage").into()),
        ..Path::default()
    };
    let run = |seed| {
        let mut pair = pair(seed, &LinkConfig::symmetric(lossy.clone()), ServerOptions::default());
        exchange(&mut pair, 20_000);
        (pair.trace.hash(), pair.trace.datagrams())
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}

#[test]
fn a_demanded_retry_costs_a_round_trip() {
    let options = ServerOptions { retry: true, ..ServerOptions::default() };
    let mut pair = pair(5, &PairOptions::seeded(5).link, options);
    assert!(pair.run_until(Duration::from_secs(1), connected));
    assert_eq!(pair.server.retries(), 1);
    let elapsed_ms = pair.now().elapsed().as_millis();
    assert!((60..90).contains(&elapsed_ms), "{elapsed_ms} ms");
}

#[test]
fn a_rebound_client_is_followed_by_the_server() {
    let mut pair = pair(6, &PairOptions::seeded(6).link, ServerOptions::default());
    assert!(pair.run_until(Duration::from_secs(1), connected));
    pair.rebind_port();
    exchange(&mut pair, 5_000);
    assert!(pair.server.paths().contains(&pair.client_address()));
    assert!(pair.datagrams(Direction::Down) > 0);
}
