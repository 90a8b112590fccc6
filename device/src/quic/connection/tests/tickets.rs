//! CRYPTO data after the handshake: whatever does not fit is dropped, and acknowledged (RFC 9000 7.5).

extern crate std;

use std::vec::Vec;

use super::super::{Phase, Space, flight_start};
use super::Peer;
use crate::quic::frame::{Crypto, kind};
use crate::quic::{Event, TransportCode};
use crate::time::Duration;

/// The handshake is over but for its confirmation; the client's last flight takes `flight` bytes.
fn complete(flight: usize) -> Peer {
    let mut peer = Peer::confirmed();
    let connection = &mut peer.connection;
    connection.phase = Phase::Complete;
    let end = connection.streams.memory().as_bytes().len();
    connection.crypto_out.on_flight(Space::Handshake, flight_start(end), flight);
    let region = connection.crypto_out.end()..end;
    connection.crypto_in.advance(Space::Application, region).expect("nothing is buffered");
    peer
}

/// A NewSessionTicket with an identity of `len` bytes.
fn ticket(len: u16) -> Vec<u8> {
    let mut body = std::vec![0, 0, 0, 60, 1, 2, 3, 4, 1, 0];
    body.extend(len.to_be_bytes());
    body.extend(std::vec![7; usize::from(len)]);
    body.extend([0, 0]);
    let mut message = std::vec![4, 0];
    message.extend((body.len() as u16).to_be_bytes());
    message.extend(body);
    message
}

/// Sends `bytes` at `offset` of the 1-RTT CRYPTO stream, and checks that the packet is acknowledged.
fn send_crypto(peer: &mut Peer, offset: usize, bytes: &[u8]) {
    let number = peer.next[2];
    peer.send(|w| Crypto { offset: offset as u64, data: bytes }.encode(w).expect("fits"));
    peer.wait(Duration::from_millis(25));
    let acked = peer.receive_all().into_iter().flat_map(|sent| sent.acked);
    assert!(acked.into_iter().any(|range| range.contains(&number)), "packet {number} is not acknowledged");
    assert!(peer.connection.is_active());
}

#[test]
fn a_ticket_too_long_to_keep_is_acknowledged_and_the_next_one_kept() {
    for flight in [36, 1_100] {
        for len in [300, 600, 1_300, 2_500, 5_000] {
            let mut peer = complete(flight);
            let mut stream = ticket(len);
            let long = stream.len();
            stream.extend(ticket(200));
            for at in (0..stream.len()).step_by(1_000) {
                send_crypto(&mut peer, at, &stream[at..stream.len().min(at + 1_000)]);
            }
            assert_eq!(peer.events(), [Event::TicketStored], "{len} bytes, then 200, behind {flight}");
            // One event may stand for both.
            let kept = if len == 300 { 2 } else { 1 };
            assert_eq!(peer.kept.tickets.len(), kept, "{len} bytes, then 200, behind {flight}");
            // What is repeated changes nothing, in whatever order it comes.
            send_crypto(&mut peer, long - 100, &stream[long - 100..long + 50]);
            send_crypto(&mut peer, 0, &stream[..500]);
            assert_eq!(peer.events(), []);
        }
    }
}

#[test]
fn a_ticket_that_began_before_the_handshake_was_confirmed_is_kept_whole() {
    let stream = [ticket(600), ticket(500)].concat();
    let mut peer = complete(36);
    send_crypto(&mut peer, 0, &stream[..1_000]);
    assert_eq!(peer.events(), [], "the first is too long to last");
    peer.send(|w| w.varint(kind::HANDSHAKE_DONE).expect("fits"));
    send_crypto(&mut peer, 1_000, &stream[1_000..]);
    assert!(peer.events().contains(&Event::TicketStored));
    // All that is reserved for them can be used now.
    let at = stream.len();
    let long = ticket(1_130);
    send_crypto(&mut peer, at, &long[..600]);
    send_crypto(&mut peer, at + 600, &long[600..]);
    send_crypto(&mut peer, at + long.len(), &ticket(512));
    assert_eq!(peer.events(), [Event::TicketStored]);
}

#[test]
fn crypto_data_without_end_is_acknowledged_in_bounded_memory() {
    let mut peer = complete(36);
    for at in [4_000, 1 << 20, 1 << 40, 100, 300, 500, 700, 900] {
        send_crypto(&mut peer, at, &[7; 60]);
    }
    for at in 0..40 {
        send_crypto(&mut peer, 4 * at + 10, &[7]);
    }
    // A ticket of 16 MiB: what comes of it is dropped as it comes.
    let mut peer = complete(36);
    send_crypto(&mut peer, 0, &[4, 0xff, 0xff, 0xff]);
    for at in (4..100_000).step_by(1_000) {
        send_crypto(&mut peer, at, &[7; 1_000]);
    }
    assert_eq!(peer.events(), []);
}

#[test]
fn a_message_other_than_a_ticket_that_is_too_long_exceeds_the_buffer() {
    let mut peer = complete(36);
    peer.send(|w| Crypto { offset: 0, data: &[24, 0, 0x10, 0] }.encode(w).expect("fits"));
    peer.expect_code(TransportCode::CRYPTO_BUFFER_EXCEEDED);
}
