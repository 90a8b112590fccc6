//! Whatever ends a connection, its keys and secrets are gone from memory then.

extern crate std;

use std::string::String;
use std::vec::Vec;

use simulate::memory::{self, Bytes};

use super::super::State;
use super::Peer;
use super::peer::{RESET_TOKEN, SUITE, secret};
use crate::crypto::{Secret, Software, hkdf};
use crate::quic::frame::ConnectionClose;
use crate::quic::protection::Direction;
use crate::quic::{Config, Event};
use crate::time::Duration;
use crate::tls::{Transport, next_application_secret};

/// What must not be found, by name.
type Needles = Vec<(String, Bytes)>;

/// A traffic secret and what is derived of it.
fn material(name: &str, secret: &Secret) -> Needles {
    let mut needles = std::vec![(std::format!("{name}: secret"), secret.as_bytes().to_vec().into())];
    for (label, len) in [("quic key", SUITE.key_len()), ("quic iv", 12), ("quic hp", SUITE.key_len())] {
        let mut bytes = std::vec![0; len];
        hkdf::expand_label::<Software>(SUITE.hash(), secret, label.as_bytes(), &[], &mut bytes);
        needles.push((std::format!("{name}: {label}"), bytes.into()));
    }
    needles
}

/// The needles that are in the connection's memory.
fn found(peer: &Peer, needles: &Needles) -> Vec<String> {
    let memory = memory::of(&*peer.connection);
    let is_there = |bytes: &[u8]| memory.windows(bytes.len()).any(|window| window == bytes);
    needles.iter().filter(|(_, bytes)| is_there(bytes)).map(|(name, _)| name.clone()).collect()
}

/// A confirmed connection and all it keeps secret: 0-RTT keys too, as if the server's answer were still to come.
fn confirmed() -> (Peer, Needles) {
    memory::scrub_stack();
    let mut peer = Peer::confirmed();
    peer.connection.keys.early = Some(Direction::derive(SUITE, &secret(9)));
    let next = next_application_secret::<Software>(Transport::Quic, SUITE, &secret(2));
    let mut needles = material("local", &secret(1));
    needles.extend(material("remote", &secret(2)));
    // Only the key of what is needed ahead, or of 0-RTT, is kept.
    needles.extend(material("next", &next).drain(1..3));
    needles.extend(material("early", &secret(9)).drain(1..));
    needles.push(("resumption".into(), secret(3).as_bytes().to_vec().into()));
    (peer, needles)
}

/// A connection with Handshake keys.
fn handshaking() -> (Peer, Needles) {
    memory::scrub_stack();
    // First: what derives the needles leaves traces on the stack, and from there they get into undefined bytes of what
    // is made on it later.
    let peer = Peer::handshaking();
    let needles = [material("local", &secret(3)), material("remote", &secret(4))].concat();
    // The secrets themselves are TLS's.
    let is_kept = |(name, _): &(String, Bytes)| !name.ends_with(": secret");
    (peer, needles.into_iter().filter(is_kept).collect())
}

/// A connection whose ClientHello is out: the private half of its key share is secret.
fn opening() -> (Peer, Needles) {
    memory::scrub_stack();
    let mut peer = Peer::with(Config::new());
    peer.connection.abandon();
    peer.call(|connection, ctx| connection.connect(&Config::new(), ctx, &[])).expect("starts");
    // `Counting` counts: the identifier's eight bytes, four of grease, then the key.
    (peer, std::vec![("private key".into(), (13..13 + 32).collect::<Vec<u8>>().into())])
}

#[track_caller]
fn assert_erased_by((mut peer, needles): (Peer, Needles), end: impl FnOnce(&mut Peer)) {
    let names: Vec<String> = needles.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(found(&peer, &needles), names, "all of it is there before the end");
    end(&mut peer);
    assert_ne!(peer.connection.state, State::Open, "the connection is over");
    assert_eq!(found(&peer, &needles), [""; 0], "nothing of it is left");
}

const LONG: Duration = Duration::from_secs(60);

fn peer_closes(peer: &mut Peer) {
    peer.send(|w| ConnectionClose::Application { code: 0, reason: b"" }.encode(w).expect("fits"));
}

#[test]
fn silence_leaves_no_secrets() {
    assert_erased_by(confirmed(), |peer| peer.wait(LONG));
    assert_erased_by(handshaking(), |peer| peer.wait(LONG));
    assert_erased_by(opening(), |peer| peer.wait(LONG));
}

#[test]
fn a_stateless_reset_leaves_no_secrets() {
    assert_erased_by(confirmed(), |peer| {
        let mut reset = std::vec![0x41; 30];
        reset.extend(RESET_TOKEN);
        peer.deliver(reset);
    });
}

#[test]
fn a_connection_that_is_dropped_leaves_no_secrets() {
    for start in [confirmed, handshaking, opening] {
        assert_erased_by(start(), |peer| peer.connection.abandon());
    }
}

#[test]
fn the_peers_close_leaves_no_secrets_at_once() {
    assert_erased_by(confirmed(), peer_closes);
}

#[test]
fn this_ends_close_leaves_no_secrets_once_the_closing_period_is_over() {
    for start in [confirmed, handshaking, opening] {
        assert_erased_by(start(), |peer| {
            let now = peer.now;
            peer.connection.close(now, 0, "");
            assert!(peer.call(|connection, ctx| connection.poll_transmit(ctx, &mut [0; 1472])).is_some());
            peer.wait(LONG);
        });
    }
}

#[test]
fn an_error_leaves_no_secrets_once_the_closing_period_is_over() {
    assert_erased_by(confirmed(), |peer| {
        // A frame of a type that does not exist.
        peer.send(|w| w.put(&[0x3f]).expect("fits"));
        assert!(peer.receive().expect("at once").has("ConnectionClose"));
        peer.wait(LONG);
    });
}

#[test]
fn keys_that_others_replace_are_gone() {
    let (mut peer, needles) = confirmed();
    peer.send(|w| w.varint(crate::quic::frame::kind::PING).expect("fits"));
    let keys = peer.connection.keys.one_rtt_mut().expect("confirmed");
    keys.on_acked(0);
    assert!(keys.begin_update(1));
    keys.prepare_next();
    let replaced = needles.iter().filter(|(name, _)| {
        let header = name.ends_with("quic hp");
        (name.starts_with("local") || name.starts_with("remote")) && !header
    });
    assert_eq!(found(&peer, &replaced.cloned().collect()), [""; 0]);
}

#[test]
fn what_the_handshake_led_to_is_told_though_its_keys_are_gone() {
    let mut peer = Peer::confirmed();
    peer.connection.events.connected = Some(true);
    peer_closes(&mut peer);
    let events = peer.events();
    assert!(matches!(events[..], [Event::Connected { resumed: true, .. }, Event::Closed(_)]), "{events:?}");
}
