//! A peer that breaks the rules one at a time: each ends in the RFC's error code, in bounded memory.

extern crate std;

use std::vec::Vec;

use proptest::prelude::*;

use super::super::{Space, State};
use super::Peer;
use super::peer::RESET_TOKEN;
use crate::codec::Writer;
use crate::quic::cid::{ConnectionId, ResetToken};
use crate::quic::frame::{
    Ack, Crypto, Direction, MaxStreamData, NewConnectionId, NewToken, PathChallenge, PathResponse,
    ResetStream, RetireConnectionId, Stream, kind,
};
use crate::quic::{CloseReason, Event, StreamId, TransportCode};

/// The server's own stream, and the client's.
const THEIRS: StreamId = StreamId(1);
const OURS: StreamId = StreamId(0);

fn stream(w: &mut Writer<'_>, id: StreamId, offset: u64, data: &[u8], fin: bool) {
    Stream::encode_header(id, offset, data.len(), fin, w).expect("fits");
    w.put(data).expect("fits");
}

fn new_cid(sequence: u64, retire_prior_to: u64) -> NewConnectionId {
    let cid = ConnectionId::new(&[sequence as u8 ^ 0x80; 8]).expect("eight bytes");
    NewConnectionId { sequence, retire_prior_to, cid, token: ResetToken([sequence as u8; 16]) }
}

#[test]
fn an_unknown_frame_is_an_encoding_error() {
    let mut peer = Peer::confirmed();
    peer.send(|w| w.varint(0x21).expect("fits"));
    peer.expect_code(TransportCode::FRAME_ENCODING_ERROR);
}

#[test]
fn a_frame_cut_short_is_an_encoding_error_that_names_the_field() {
    let mut peer = Peer::confirmed();
    peer.send(|w| w.put(&[kind::MAX_DATA as u8, 0x80]).expect("fits"));
    let Some(CloseReason::Transport(error)) = peer.closed() else { panic!("still open") };
    assert_eq!((error.code, error.reason), (TransportCode::FRAME_ENCODING_ERROR, "max_data.limit"));
}

#[test]
fn a_frame_type_in_a_longer_form_is_a_violation_that_names_it() {
    let mut peer = Peer::confirmed();
    peer.send(|w| w.put(&[0x40, kind::PING as u8]).expect("fits"));
    peer.expect_code(TransportCode::PROTOCOL_VIOLATION);
}

#[test]
fn packets_under_the_keys_before_an_update_are_dropped_and_change_nothing() {
    let mut peer = Peer::confirmed();
    let stale = |peer: &mut Peer, number: u64| {
        let next = core::mem::replace(&mut peer.next[2], number);
        let packet = peer.packet(|w| stream(w, THEIRS, 0, b"x", false));
        peer.next[2] = next;
        packet
    };
    let old = stale(&mut peer, 5);
    let overtaken = stale(&mut peer, 0);
    peer.next[2] = 1;
    peer.keys.on_acked(0);
    assert!(peer.keys.begin_update(1));
    peer.send(|w| w.varint(kind::PING).expect("fits"));
    assert_eq!(peer.events(), [Event::KeyUpdated]);
    peer.deliver(old);
    assert_eq!(peer.events(), [], "its stream was not opened");
    assert_eq!(peer.connection.stats().packets_dropped, 1);
    peer.deliver(overtaken);
    assert!(peer.connection.is_active());
}

#[test]
fn a_packet_without_frames_is_a_violation() {
    let mut peer = Peer::confirmed();
    peer.send(|_| ());
    peer.expect_code(TransportCode::PROTOCOL_VIOLATION);
}

#[test]
fn reserved_header_bits_are_a_violation() {
    for bits in [0x08, 0x10, 0x18] {
        let mut peer = Peer::confirmed();
        let packet = peer.packet_with(bits, |w| w.varint(kind::PING).expect("fits"));
        peer.deliver(packet);
        peer.expect_code(TransportCode::PROTOCOL_VIOLATION);
    }
}

#[test]
fn frames_that_handshake_packets_forbid_are_violations() {
    type Frame = fn(&mut Writer<'_>);
    let forbidden: [Frame; 7] = [
        |w| w.varint(kind::HANDSHAKE_DONE).expect("fits"),
        |w| stream(w, OURS, 0, b"x", false),
        |w| w.put(&[kind::MAX_DATA as u8, 1]).expect("fits"),
        |w| new_cid(1, 0).encode(w).expect("fits"),
        |w| NewToken { token: b"t" }.encode(w).expect("fits"),
        |w| PathChallenge { data: [0; 8] }.encode(w).expect("fits"),
        |w| w.put(&[kind::APPLICATION_CLOSE as u8, 0, 0]).expect("fits"),
    ];
    for frame in forbidden {
        let mut peer = Peer::handshaking();
        peer.send_handshake(frame);
        peer.expect_code(TransportCode::PROTOCOL_VIOLATION);
    }
}

#[test]
fn an_acknowledgement_of_a_packet_never_sent_is_a_violation() {
    let mut peer = Peer::confirmed();
    peer.send(|w| Ack::encode(0, [0..=7].into_iter(), w).expect("fits"));
    peer.expect_code(TransportCode::PROTOCOL_VIOLATION);
}

#[test]
fn handshake_data_far_ahead_exceeds_the_buffer() {
    for offset in [4_096, 1 << 30, (1 << 62) - 2] {
        let mut peer = Peer::handshaking();
        peer.send_handshake(|w| Crypto { offset, data: b"x" }.encode(w).expect("fits"));
        peer.expect_code(TransportCode::CRYPTO_BUFFER_EXCEEDED);
    }
}

#[test]
fn crypto_beyond_the_largest_offset_is_an_encoding_error() {
    let mut peer = Peer::handshaking();
    peer.send_handshake(|w| Crypto { offset: (1 << 62) - 1, data: b"x" }.encode(w).expect("fits"));
    peer.expect_code(TransportCode::FRAME_ENCODING_ERROR);
}

#[test]
fn data_beyond_the_window_breaks_flow_control() {
    let window = Peer::confirmed().connection.streams.limits().stream_window;
    let mut peer = Peer::confirmed();
    peer.send(|w| stream(w, THEIRS, u64::from(window) - 1, b"x", false));
    assert_eq!(peer.closed(), None);
    peer.send(|w| stream(w, THEIRS, u64::from(window), b"x", false));
    peer.expect_code(TransportCode::FLOW_CONTROL_ERROR);
}

#[test]
fn streams_that_may_not_exist_break_the_limit_or_the_state() {
    let cases: [(StreamId, TransportCode); 4] = [
        (StreamId(5), TransportCode::STREAM_LIMIT_ERROR),
        (StreamId(3), TransportCode::STREAM_LIMIT_ERROR),
        (StreamId(2), TransportCode::STREAM_STATE_ERROR),
        (OURS, TransportCode::STREAM_STATE_ERROR),
    ];
    for (id, code) in cases {
        let mut peer = Peer::confirmed();
        peer.send(|w| stream(w, id, 0, b"x", false));
        peer.expect_code(code);
    }
}

#[test]
fn credit_for_a_stream_that_was_never_opened_is_a_state_error() {
    let mut peer = Peer::confirmed();
    peer.send(|w| MaxStreamData { id: OURS, limit: 9 }.encode(w).expect("fits"));
    peer.expect_code(TransportCode::STREAM_STATE_ERROR);
}

#[test]
fn contradictory_final_sizes_are_errors() {
    let mut peer = Peer::confirmed();
    peer.send(|w| stream(w, THEIRS, 0, b"abc", true));
    peer.send(|w| stream(w, THEIRS, 0, b"abcd", false));
    peer.expect_code(TransportCode::FINAL_SIZE_ERROR);

    let mut peer = Peer::confirmed();
    peer.send(|w| stream(w, THEIRS, 0, b"abc", false));
    peer.send(|w| ResetStream { id: THEIRS, code: 0, final_size: 2 }.encode(w).expect("fits"));
    peer.expect_code(TransportCode::FINAL_SIZE_ERROR);
}

#[test]
fn retiring_an_identifier_the_client_does_not_have_is_a_violation() {
    let mut peer = Peer::confirmed();
    peer.send(|w| RetireConnectionId { sequence: 0 }.encode(w).expect("fits"));
    peer.expect_code(TransportCode::PROTOCOL_VIOLATION);
}

#[test]
fn more_identifiers_than_announced_are_an_error() {
    let mut peer = Peer::confirmed();
    for sequence in 1..=2 {
        peer.send(|w| new_cid(sequence, 0).encode(w).expect("fits"));
    }
    assert_eq!(peer.closed(), None);
    peer.send(|w| new_cid(3, 0).encode(w).expect("fits"));
    peer.expect_code(TransportCode::CONNECTION_ID_LIMIT_ERROR);
}

#[test]
fn a_flood_of_retired_identifiers_ends_the_connection() {
    let mut peer = Peer::confirmed();
    for sequence in 1..30 {
        peer.send(|w| new_cid(sequence, sequence).encode(w).expect("fits"));
    }
    peer.expect_code(TransportCode::CONNECTION_ID_LIMIT_ERROR);
}

#[test]
fn retired_identifiers_are_given_back_and_left() {
    let mut peer = Peer::confirmed();
    peer.send(|w| new_cid(1, 1).encode(w).expect("fits"));
    let sent = peer.receive().expect("RETIRE_CONNECTION_ID");
    assert!(sent.has("RetireConnectionId(RetireConnectionId { sequence: 0 })"), "{sent:?}");
    assert_eq!(sent.destination, [0x81; 8]);
}

#[test]
fn a_flood_of_challenges_gets_a_few_answers_each_in_a_full_datagram() {
    let mut peer = Peer::confirmed();
    for round in 0..50_u8 {
        peer.send(|w| PathChallenge { data: [round; 8] }.encode(w).expect("fits"));
    }
    let sent = peer.receive_all();
    let answers: usize =
        sent.iter().map(|sent| sent.frames.iter().filter(|f| f.starts_with("PathResponse")).count()).sum();
    assert_eq!(answers, 4);
    assert!(sent.iter().filter(|sent| sent.has("PathResponse")).all(|sent| sent.len == 1200), "{sent:?}");
}

#[test]
fn an_answer_nobody_asked_for_is_ignored() {
    let mut peer = Peer::confirmed();
    peer.send(|w| PathResponse { data: [1; 8] }.encode(w).expect("fits"));
    assert_eq!(peer.events(), []);
}

#[test]
fn handshake_done_before_the_handshake_is_complete_is_a_violation() {
    let mut peer = Peer::confirmed();
    peer.connection.phase = super::super::Phase::ServerHello;
    peer.send(|w| w.varint(kind::HANDSHAKE_DONE).expect("fits"));
    peer.expect_code(TransportCode::PROTOCOL_VIOLATION);
}

#[test]
fn unknown_limits_and_blocked_frames_are_harmless() {
    let mut peer = Peer::confirmed();
    peer.send(|w| {
        w.put(&[kind::MAX_STREAMS_UNI as u8, 9, kind::STREAMS_BLOCKED_BIDI as u8, 1]).expect("fits");
        w.put(&[kind::DATA_BLOCKED as u8, 5]).expect("fits");
        let _ = Direction::Bidirectional;
    });
    assert_eq!(peer.closed(), None);
}

#[test]
fn a_token_is_kept_unless_it_is_too_long() {
    let mut peer = Peer::confirmed();
    peer.send(|w| NewToken { token: &[7; 193] }.encode(w).expect("fits"));
    peer.send(|w| NewToken { token: &[8; 192] }.encode(w).expect("fits"));
    assert_eq!(peer.kept.tokens, [[8; 192]]);
}

/// What the server has to say in TLS after the handshake.
fn send_tls(peer: &mut Peer, message: &[u8]) {
    peer.connection.crypto_in.advance(Space::Application, 0..1024).expect("nothing is buffered");
    peer.send(|w| Crypto { offset: 0, data: message }.encode(w).expect("fits"));
}

/// NewSessionTicket (RFC 8446 4.6.1) with this lifetime and these extensions.
fn ticket(lifetime_s: u32, extensions: &[u8]) -> Vec<u8> {
    let body =
        [&lifetime_s.to_be_bytes()[..], &[1, 2, 3, 4, 1, 0, 0, 1, 9, 0, extensions.len() as u8], extensions]
            .concat();
    [&[4, 0, 0, body.len() as u8][..], &body].concat()
}

#[test]
fn a_certificate_request_after_the_handshake_is_a_violation() {
    let mut peer = Peer::confirmed();
    send_tls(&mut peer, &[13, 0, 0, 3, 0, 0, 0]);
    peer.expect_code(TransportCode::PROTOCOL_VIOLATION);
}

#[test]
fn a_ticket_with_a_limit_of_early_data_is_a_violation() {
    // A ticket that lives for no time at all is checked as well.
    for lifetime_s in [7200, 0] {
        for max in [0_u32, 1, 16_384, u32::MAX - 1] {
            let mut peer = Peer::confirmed();
            send_tls(&mut peer, &ticket(lifetime_s, &[&[0, 42, 0, 4][..], &max.to_be_bytes()].concat()));
            peer.expect_code(TransportCode::PROTOCOL_VIOLATION);
        }
    }
    for extensions in [&[][..], &[0, 42, 0, 4, 0xff, 0xff, 0xff, 0xff]] {
        let mut peer = Peer::confirmed();
        send_tls(&mut peer, &ticket(7200, extensions));
        assert_eq!(peer.events(), [Event::TicketStored], "{extensions:?}");
        assert_eq!(peer.kept.tickets, [7200]);
    }
}

#[test]
fn a_ticket_without_a_lifetime_is_discarded_at_once() {
    for extensions in [&[][..], &[0, 42, 0, 4, 0xff, 0xff, 0xff, 0xff]] {
        let mut peer = Peer::confirmed();
        send_tls(&mut peer, &ticket(0, extensions));
        assert_eq!((peer.events(), peer.kept.tickets), (std::vec![], std::vec![]), "{extensions:?}");
    }
}

#[test]
fn a_stateless_reset_ends_the_connection_and_a_near_miss_does_not() {
    let mut datagram = [0x41; 40];
    datagram[24..].copy_from_slice(&RESET_TOKEN);
    let mut miss = datagram;
    miss[39] ^= 1;
    let mut peer = Peer::confirmed();
    peer.deliver(miss.to_vec());
    assert_eq!(peer.closed(), None);
    peer.deliver(datagram[20..].to_vec());
    assert_eq!(peer.closed(), None, "too short to be one");
    peer.deliver(datagram.to_vec());
    assert_eq!(peer.closed(), Some(CloseReason::StatelessReset));
    assert!(peer.receive().is_none(), "a reset is never answered");
}

#[test]
fn as_many_forged_packets_as_the_cipher_permits_end_the_connection() {
    let mut peer = Peer::confirmed();
    peer.connection.forged = (1 << 36) - 2;
    for expected in [false, true] {
        let mut packet = peer.packet(|w| w.varint(kind::PING).expect("fits"));
        *packet.last_mut().expect("a tag") ^= 1;
        peer.deliver(packet);
        assert_eq!(peer.connection.state != State::Open, expected);
    }
    peer.expect_code(TransportCode::AEAD_LIMIT_REACHED);
}

#[test]
fn a_repeated_packet_changes_nothing() {
    let mut peer = Peer::confirmed();
    let packet = peer.packet(|w| stream(w, THEIRS, 0, b"abc", false));
    peer.deliver(packet.clone());
    peer.deliver(packet);
    let stats = peer.connection.stats();
    assert_eq!((stats.packets_received, stats.packets_dropped), (1, 1));
}

proptest! {
    #[test]
    fn no_datagram_makes_the_client_panic(datagram in proptest::collection::vec(any::<u8>(), 0..200), first in any::<u8>()) {
        let mut datagram = datagram;
        if let Some(byte) = datagram.first_mut() {
            *byte = first;
        }
        // Half of them claim to be of version 1.
        if first & 1 == 1 && datagram.len() > 5 {
            datagram[1..5].copy_from_slice(&[0, 0, 0, 1]);
            datagram[5] = 0;
        }
        for mut peer in [Peer::confirmed(), Peer::handshaking()] {
            peer.deliver(datagram.clone());
            peer.receive_all();
        }
    }

    #[test]
    fn no_authentic_payload_makes_the_client_panic(payload in proptest::collection::vec(prop_oneof![0_u8..0x20, any::<u8>()], 1..300)) {
        let mut peer = Peer::confirmed();
        peer.send(|w| w.put(&payload).expect("fits"));
        peer.receive_all();
        peer.events();
        let mut peer = Peer::handshaking();
        peer.send_handshake(|w| w.put(&payload).expect("fits"));
        peer.receive_all();
        peer.events();
    }
}
