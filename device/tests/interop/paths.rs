//! Cases in which the client's address changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use device::quic::Event;
use device::quic::frame::Frame;
use link::units::Time;
use link::{LinkConfig, Moment};
use simulate::wire::{Kind, Packet, Wire};
use simulate::{Pair, PairOptions};

use crate::{SECOND, one_handshake};

/// The data of a packet's PATH_CHALLENGE.
fn challenge(packet: &Packet) -> Option<[u8; 8]> {
    packet.frames().find_map(|frame| match frame {
        Frame::PathChallenge(challenge) => Some(challenge.data),
        _ => None,
    })
}

/// The runner's criteria: the first packet of the server on each new path has a PATH_CHALLENGE, and the client answers
/// each that it gets, and once (RFC 9000 8.2.2). The server repeats what it got no answer to with the same data. Returns
/// the paths.
fn judge_paths(wire: &Wire) -> BTreeSet<SocketAddr> {
    let mut paths = BTreeSet::new();
    let mut asked: BTreeMap<[u8; 8], usize> = BTreeMap::new();
    let one_rtt = |packet: &&Packet| packet.kind == Kind::OneRtt;
    let first_path = wire.packets[0].client;
    for packet in wire.down().filter(one_rtt) {
        let sent = challenge(packet);
        if paths.insert(packet.client) && packet.client != first_path {
            assert!(sent.is_some(), "the server's first packet to {} has no PATH_CHALLENGE", packet.client);
        }
        if let Some(data) = sent.filter(|_| packet.arrived) {
            *asked.entry(data).or_default() += 1;
        }
    }
    let mut answered: BTreeMap<[u8; 8], usize> = BTreeMap::new();
    for packet in wire.up() {
        for frame in packet.frames() {
            if let Frame::PathResponse(response) = frame {
                *answered.entry(response.data).or_default() += 1;
            }
        }
    }
    assert!(asked.len() >= paths.len() - 1, "{asked:?} on {} new paths", paths.len() - 1);
    assert_eq!(answered, asked);
    paths
}

fn rebound(seed: u64, change: impl FnOnce(&mut LinkConfig, Moment)) {
    let moment = Moment {
        at: Time::from_millis(500),
        after: Some("connected".to_owned()),
        period: Some(Time::from_millis(1_500)),
        count: Some(4),
    };
    let mut options = PairOptions::seeded(seed);
    change(&mut options.link, moment);
    let mut pair = options.build().captured();
    pair.run_until_connected();
    pair.announce("connected");
    pair.echo(400_000, 60 * SECOND);
    let wire = one_handshake(&pair);
    let paths = judge_paths(&wire);
    assert_eq!(paths.len(), 5, "{paths:?}");
    assert!(paths.contains(&pair.client_address()));
    // The client did not notice: it challenges nothing and keeps the server's identifier.
    assert!(!wire.up().any(|packet| challenge(packet).is_some()));
    let ids: BTreeSet<_> =
        wire.up().filter(|packet| packet.kind == Kind::OneRtt).map(|packet| &packet.destination).collect();
    assert_eq!(ids.len(), 1);
}

#[test]
fn rebind_port() {
    rebound(11, |link, moment| link.rebind = vec![moment]);
}

#[test]
fn rebind_addr() {
    rebound(12, |link, moment| link.address_change = vec![moment]);
}

/// The runner's server has a preferred address; here the client moves by itself, which asks the same of it.
#[test]
fn connectionmigration() {
    let mut pair = Pair::seeded(13).captured();
    pair.run_until_connected();
    pair.run_until_confirmed();
    pair.echo(10_000, 10 * SECOND);
    for _ in 0..3 {
        pair.client.take_events();
        pair.migrate();
        pair.echo(20_000, 10 * SECOND);
        assert!(pair.client.has(|event| *event == Event::PathValidated), "{:?}", pair.client.events);
        assert!(pair.server.paths().contains(&pair.client_address()));
    }
    assert_eq!(pair.client.stats().migrations, 3);
    let wire = pair.wire();
    assert_eq!(wire.handshakes(), 1);
    assert_eq!(judge_paths(&wire).len(), 4);
    // Each path has an identifier of its own (RFC 9000 9.5), and the old ones are retired.
    let mut of_path: BTreeMap<SocketAddr, BTreeSet<&[u8]>> = BTreeMap::new();
    let mut challenges: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    for packet in wire.up().filter(|packet| packet.kind == Kind::OneRtt) {
        of_path.entry(packet.client).or_default().insert(&packet.destination);
        *challenges.entry(packet.client).or_default() += usize::from(challenge(packet).is_some());
    }
    assert!(of_path.values().all(|ids| ids.len() == 1), "{of_path:?}");
    assert_eq!(of_path.values().flatten().collect::<BTreeSet<_>>().len(), 4, "{of_path:?}");
    // One challenge per path is enough where nothing is lost, and the first path needs none.
    assert_eq!(challenges.values().copied().collect::<Vec<_>>(), [0, 1, 1, 1], "{challenges:?}");
    let retired =
        wire.up().filter(|packet| packet.has(|frame| matches!(frame, Frame::RetireConnectionId(_))));
    assert_eq!(retired.count(), 3);
}
