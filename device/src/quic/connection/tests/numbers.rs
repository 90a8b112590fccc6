//! Packet numbers that jump as far as four bytes can say: what is acknowledged is what came, in each space.

extern crate std;

use core::ops::RangeInclusive;
use std::vec::Vec;

use super::Peer;
use super::peer::Sent;
use crate::codec::{Reader, Writer};
use crate::crypto::{Software, TAG_LEN};
use crate::quic::Config;
use crate::quic::cid::ConnectionId;
use crate::quic::frame::{Frame, kind};
use crate::quic::packet::finish_long_header;
use crate::quic::protection::{LevelKeys, protect};
use crate::time::Duration;

/// As far as a number can lie ahead of the largest one so far (RFC 9000 A.3).
const JUMP: u64 = 1 << 31;

/// Numbers from jump to jump, with some in order between, and one that comes late.
fn numbers() -> Vec<u64> {
    let mut numbers =
        std::vec![0, 1, JUMP, JUMP + 1, JUMP - 1, 2 * JUMP + 1, 2 * JUMP, 3 * JUMP, 3 * JUMP - 5];
    // Each from another distance to a multiple of 2^32, and more than there are ranges.
    numbers.extend((1..=70).map(|step| 3 * JUMP + step * (JUMP - 7)));
    numbers
}

/// Every acknowledgement names packets that were sent, the last one among them.
#[track_caller]
fn assert_names_only(acked: &[RangeInclusive<u64>], sent: &[u64]) {
    let named: u64 = acked.iter().map(|range| range.end() - range.start() + 1).sum();
    let known = sent.iter().filter(|number| acked.iter().any(|range| range.contains(number))).count();
    assert_eq!(named, known as u64, "{acked:?} of {sent:?}");
    assert!(acked.windows(2).all(|pair| *pair[0].start() > pair[1].end() + 1), "{acked:?}");
    assert_eq!(acked.first().map(RangeInclusive::end), sent.iter().max());
}

fn ping(w: &mut Writer<'_>) {
    w.varint(kind::PING).expect("fits");
}

#[test]
fn numbers_of_1_rtt_packets_may_jump() {
    let mut peer = Peer::confirmed();
    let numbers = numbers();
    for (count, &number) in (1..).zip(&numbers) {
        peer.next[2] = number;
        peer.send(ping);
        peer.wait(Duration::from_millis(25));
        let sent: Sent = peer.receive().expect("an acknowledgement");
        assert_names_only(&sent.acked, &numbers[..count]);
    }
    assert_eq!(peer.closed(), None);
    // What was left far behind counts as seen; the connection goes on.
    peer.next[2] = numbers[numbers.len() - 1] - 1;
    peer.send(ping);
    assert!(peer.receive().expect("an acknowledgement").has("Ack"));
}

#[test]
fn a_number_that_is_sent_twice_after_a_jump_is_dropped() {
    let mut peer = Peer::confirmed();
    for number in [0, JUMP, 2 * JUMP] {
        peer.next[2] = number;
        peer.send(ping);
    }
    peer.receive_all();
    let dropped = peer.connection.stats().packets_dropped;
    for number in [2 * JUMP, JUMP + 2] {
        peer.next[2] = number;
        peer.send(ping);
    }
    assert_eq!(peer.connection.stats().packets_dropped, dropped + 1, "the first of the two");
    assert!(peer.connection.is_active());
}

#[test]
fn numbers_of_handshake_packets_may_jump() {
    let mut peer = Peer::handshaking();
    let numbers = numbers();
    for (count, &number) in (1..).zip(&numbers) {
        peer.next[1] = number;
        peer.send_handshake(ping);
        let sent = peer.receive().expect("an acknowledgement at once");
        assert_names_only(&sent.acked, &numbers[..count]);
    }
    assert_eq!(peer.closed(), None);
}

#[test]
fn numbers_of_initial_packets_may_jump() {
    let mut peer = Peer::with(Config::new());
    peer.connection.abandon();
    peer.call(|connection, ctx| connection.connect(&Config::new(), ctx, &[])).expect("starts");
    let mut buffer = [0; 1472];
    let len = peer.call(|connection, ctx| connection.poll_transmit(ctx, &mut buffer)).expect("a ClientHello");
    let destination = ConnectionId::new(&buffer[6..6 + usize::from(buffer[5])]).expect("eight bytes");
    let keys = LevelKeys::<Software>::initial(&destination);
    assert_eq!(len, 1200);
    let numbers = numbers();
    let mut answers = 0;
    for (count, &number) in (1..).zip(&numbers) {
        peer.deliver(initial(&keys, number));
        peer.wait(Duration::from_millis(100));
        while let Some(len) = peer.call(|connection, ctx| connection.poll_transmit(ctx, &mut buffer)) {
            answers += 1;
            assert_names_only(&acked_in_initial(&keys, &mut buffer[..len]), &numbers[..count]);
        }
    }
    assert_eq!(peer.closed(), None);
    // The first ten datagrams fill the window: nine, and the ClientHello. What else went out are probes, two at a time.
    assert!((9..=9 + 2 * 3).contains(&answers), "{answers} answers to {} PINGs", numbers.len());
    assert_eq!(peer.connection.stats().pto_count, 3, "at 1, 3 and 7 s");
}

/// A server's Initial with a PING.
fn initial(keys: &LevelKeys<Software>, number: u64) -> Vec<u8> {
    let mut bytes = std::vec![0; 64];
    let mut w = Writer::new(&mut bytes);
    // No destination, the source of the server's first packet, no token, room for the length.
    w.put(&[0xc3, 0, 0, 0, 1, 0, 1, 0x77, 0, 0, 0]).expect("fits");
    let at = w.len();
    w.u32(number as u32).expect("fits");
    ping(&mut w);
    let len = w.len() + TAG_LEN;
    bytes.truncate(len);
    finish_long_header(&mut bytes, at);
    protect(&mut bytes, number, at..at + 4, &keys.remote.packet, &keys.remote.header);
    bytes
}

/// What the client's Initial acknowledges.
fn acked_in_initial(keys: &LevelKeys<Software>, packet: &mut [u8]) -> Vec<RangeInclusive<u64>> {
    let source_at = 6 + usize::from(packet[5]);
    // An empty source and no token; the length takes two bytes.
    assert_eq!(packet[source_at..source_at + 2], [0, 0]);
    let number_at = source_at + 4;
    let header = keys.local.header.remove(packet, number_at, 0).expect("long enough");
    let len = keys.local.packet.open(header.number, packet, header.header_len).expect("authentic");
    let mut reader = Reader::new(&packet[header.header_len..header.header_len + len]);
    let mut acked = Vec::new();
    while !reader.is_empty() {
        if let (_, Frame::Ack(ack)) = Frame::decode(&mut reader).expect("a valid frame") {
            acked.extend(ack.ranges);
        }
    }
    acked
}
