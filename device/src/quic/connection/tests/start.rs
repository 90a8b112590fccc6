//! The first flight, and what anybody on the path may answer to it.

extern crate std;

use std::vec::Vec;

use super::Peer;
use super::peer::{kinds, space};
use crate::codec::Writer;
use crate::crypto::{AeadKey, CipherSuite, Crypto, Software, TAG_LEN};
use crate::quic::packet::LongKind;
use crate::quic::recovery::Space;
use crate::quic::{CloseReason, Config, ConnectError, Event, Phase};
use crate::time::Duration;

fn connected(config: Config, token: &[u8]) -> (Peer, Vec<u8>) {
    let mut peer = Peer::with(config);
    peer.connection.abandon();
    peer.call(|connection, ctx| connection.connect(&config, ctx, token)).expect("starts");
    let hello = transmit(&mut peer).expect("a ClientHello");
    (peer, hello)
}

fn transmit(peer: &mut Peer) -> Option<Vec<u8>> {
    let mut buffer = [0xaa; 1472];
    let len = peer.call(|connection, ctx| connection.poll_transmit(ctx, &mut buffer))?;
    Some(buffer[..len].to_vec())
}

/// The destination of an Initial, and its token.
fn parts(initial: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let len = usize::from(initial[5]);
    let destination = initial[6..6 + len].to_vec();
    let mut r = crate::codec::Reader::new(&initial[6 + len + 1..]);
    (destination, r.varint_vec("token").expect("valid").to_vec())
}

fn version_negotiation(hello: &[u8], versions: &[u32]) -> Vec<u8> {
    let (destination, _) = parts(hello);
    let mut packet = std::vec![0xca, 0, 0, 0, 0, 0, destination.len() as u8];
    packet.extend(destination);
    versions.iter().for_each(|version| packet.extend(version.to_be_bytes()));
    packet
}

/// A Retry with a right tag (RFC 9001 5.8).
fn retry(hello: &[u8], source: &[u8], token: &[u8]) -> Vec<u8> {
    let (original, _) = parts(hello);
    let mut packet = std::vec![0xff, 0, 0, 0, 1, 0, source.len() as u8];
    packet.extend(source);
    packet.extend(token);
    let mut pseudo = std::vec![original.len() as u8];
    pseudo.extend(&original);
    pseudo.extend(&packet);
    let key =
        [0xbe, 0x0c, 0x69, 0x0b, 0x9f, 0x66, 0x57, 0x5a, 0x1d, 0x76, 0x6b, 0x54, 0xe3, 0x68, 0xc8, 0x4e];
    let nonce = [0x46, 0x15, 0x99, 0xd3, 0x5d, 0x63, 0x2b, 0xf2, 0x23, 0x98, 0x25, 0xbb];
    let mut tag = [0; TAG_LEN];
    <Software as Crypto>::AeadKey::new(CipherSuite::Aes128GcmSha256, &key).seal(&nonce, &pseudo, &mut tag);
    packet.extend(tag);
    packet
}

#[test]
fn the_first_datagram_is_one_initial_of_1200_bytes() {
    let (mut peer, hello) = connected(Config::new(), &[]);
    assert_eq!(hello.len(), 1200);
    assert_eq!(kinds(&hello), [LongKind::Initial]);
    assert_eq!(space(kinds(&hello)[0]), Space::Initial);
    assert_eq!(parts(&hello).0.len(), 8);
    assert!(transmit(&mut peer).is_none());
    assert_eq!(peer.events(), [Event::Handshake(Phase::Started)]);
}

#[test]
fn the_token_of_an_earlier_connection_is_in_the_initial() {
    let (_, hello) = connected(Config::new(), b"validated");
    assert_eq!(parts(&hello).1, b"validated");
}

#[test]
fn a_connection_in_use_refuses_to_connect() {
    let (mut peer, _) = connected(Config::new(), &[]);
    let again = peer.call(|connection, ctx| connection.connect(&Config::new(), ctx, &[]));
    assert_eq!(again, Err(ConnectError::Busy));
}

#[test]
fn configurations_out_of_range_are_refused_by_name() {
    let mut peer = Peer::with(Config::new());
    peer.connection.abandon();
    for config in [
        Config { receive_datagram_len: 1199, ..Config::new() },
        Config { send_datagram_len: 1199, ..Config::new() },
        Config { send_datagram_len: 1473, ..Config::new() },
    ] {
        let refused = peer.call(|connection, ctx| connection.connect(&config, ctx, &[]));
        assert!(matches!(refused, Err(ConnectError::Configuration(_))), "{refused:?}");
    }
}

#[test]
fn a_server_of_other_versions_ends_the_attempt() {
    let (mut peer, hello) = connected(Config::new(), &[]);
    peer.deliver(version_negotiation(&hello, &[0x0a0a_0a0a, 0x6b33_43cf]));
    assert_eq!(peer.closed(), Some(CloseReason::VersionNegotiation));
    assert!(transmit(&mut peer).is_none());
}

#[test]
fn version_negotiation_that_lists_version_1_or_answers_another_packet_is_ignored() {
    let (mut peer, hello) = connected(Config::new(), &[]);
    peer.deliver(version_negotiation(&hello, &[0x6b33_43cf, 1]));
    let mut other = hello.clone();
    other[7] ^= 1;
    peer.deliver(version_negotiation(&other, &[0x6b33_43cf]));
    peer.deliver(version_negotiation(&hello, &[]));
    assert_eq!(peer.closed(), None);
}

#[test]
fn a_retry_is_followed_once_with_its_token_and_identifier() {
    let (mut peer, hello) = connected(Config::new(), &[]);
    peer.deliver(retry(&hello, b"retry-1", b"token"));
    let second = transmit(&mut peer).expect("the Initial again");
    assert_eq!(parts(&second), (b"retry-1".to_vec(), b"token".to_vec()));
    assert_eq!(second.len(), 1200);
    peer.deliver(retry(&hello, b"retry-2", b"other"));
    assert!(transmit(&mut peer).is_none(), "a second Retry is ignored");
    assert_eq!(peer.connection.next_number[0], 2, "packet numbers go on");
}

#[test]
fn a_retry_that_is_not_authentic_or_useless_is_ignored() {
    let (mut peer, hello) = connected(Config::new(), &[]);
    let good = retry(&hello, b"retry-1", b"token");
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x01;
        peer.deliver(bad);
    }
    peer.deliver(retry(&hello, &parts(&hello).0, b"token"));
    peer.deliver(retry(&hello, b"retry-1", &[]));
    peer.deliver(retry(&hello, b"retry-1", &[1; 300]));
    assert!(transmit(&mut peer).is_none());
    peer.deliver(good);
    assert!(transmit(&mut peer).is_some());
}

#[test]
fn an_unanswered_initial_is_repeated_and_the_attempt_given_up() {
    let (mut peer, hello) = connected(Config::new(), &[]);
    let mut datagrams = 1;
    while peer.connection.is_active() {
        let next = peer.connection.poll_timeout().expect("a timer");
        peer.wait(next.saturating_since(peer.now));
        while let Some(datagram) = transmit(&mut peer) {
            assert_eq!(datagram.len(), 1200);
            assert_eq!(parts(&datagram), parts(&hello));
            datagrams += 1;
        }
        assert!(datagrams < 20);
    }
    assert_eq!(peer.closed(), Some(CloseReason::HandshakeTimeout));
    assert!((4..=8).contains(&datagrams), "{datagrams}");
    assert!(peer.now.saturating_since(crate::time::Instant::ZERO) >= Duration::from_secs(10));
}

#[test]
fn closing_before_anything_was_heard_tells_the_server_in_a_full_initial() {
    let (mut peer, _) = connected(Config::new(), &[]);
    let now = peer.now;
    peer.connection.close(now, 3, "never mind");
    let datagram = transmit(&mut peer).expect("CONNECTION_CLOSE");
    assert_eq!((datagram.len(), kinds(&datagram)), (1200, std::vec![LongKind::Initial]));
}

#[test]
fn the_state_can_be_used_again_after_its_end() {
    let (mut peer, first) = connected(Config::new(), &[]);
    peer.connection.abandon();
    peer.call(|connection, ctx| connection.connect(&Config::new(), ctx, &[])).expect("starts again");
    let second = transmit(&mut peer).expect("a ClientHello");
    assert_ne!(parts(&first).0, parts(&second).0);
}

#[test]
fn other_versions_and_other_identifiers_are_not_for_this_client() {
    let (mut peer, hello) = connected(Config::new(), &[]);
    let mut bytes = [0; 64];
    let mut w = Writer::new(&mut bytes);
    w.put(&[0xc0, 0x6b, 0x33, 0x43, 0xcf, 0, 0]).expect("fits");
    peer.deliver(w.written().to_vec());
    peer.deliver(hello);
    assert_eq!(peer.connection.stats().packets_dropped, 2);
    assert!(peer.connection.is_active());
}
