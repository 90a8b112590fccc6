//! A server that accepts 0-RTT data and then permits less than that data went by (RFC 9000 7.4.1).

extern crate std;

use std::boxed::Box;
use std::vec::Vec;

use super::super::{Connection, Context, EarlyData};
use super::peer::{Counting, Kept, SERVER, SUITE, secret};
use crate::codec::{Reader, Writer};
use crate::crypto::hkdf::{derive_secret, digest, extract};
use crate::crypto::key_exchange::{NamedGroup, PrivateKey};
use crate::crypto::{HashAlgorithm, Secret, Software, TAG_LEN};
use crate::quic::cid::ConnectionId;
use crate::quic::frame::{Crypto, Frame};
use crate::quic::packet::finish_long_header;
use crate::quic::protection::{LevelKeys, protect};
use crate::quic::transport_parameters::Limits;
use crate::quic::{CloseReason, Config, Event, TransportCode, TransportError};
use crate::time::Instant;
use crate::tls;

const HASH: HashAlgorithm = HashAlgorithm::Sha256;
const REMEMBERED: Limits = Limits {
    max_data: 10_000,
    max_stream_data_bidi_local: 1_000,
    max_stream_data_bidi_remote: 2_000,
    max_streams_bidi: 4,
};
/// EncryptedExtensions: the server takes the 0-RTT data.
const ACCEPTS: &[u8] = &[0, 42, 0, 0];
/// EncryptedExtensions: the protocol.
const ALPN: &[u8] = &[0, 16, 0, 7, 0, 5, 4, b'm', b'q', b't', b't'];

/// A ticket of a connection with the limits [`REMEMBERED`].
fn ticket(config: &tls::Config<'_>) -> tls::Ticket {
    let body = [0, 0, 28, 32, 1, 2, 3, 4, 1, 0, 0, 1, 9, 0, 8, 0, 42, 0, 4, 255, 255, 255, 255];
    let message = [&[4, 0, 0, body.len() as u8][..], &body].concat();
    let tickets = tls::Tickets { suite: SUITE, resumption: secret(3) };
    let Ok(tls::Step::Ticket(new)) = tickets.handle_message::<Software>(config, &message) else {
        panic!("no ticket");
    };
    let mut ticket = new.to_ticket().expect("it is short");
    let mut bytes = [0; Limits::LEN_MAX];
    let mut w = Writer::new(&mut bytes);
    REMEMBERED.encode(&mut w).expect("fits");
    ticket.set_application(w.written()).expect("fits");
    ticket
}

/// The destination and the ClientHello of a client's first Initial, which has no token.
fn client_hello(datagram: &mut [u8]) -> (ConnectionId, Vec<u8>) {
    let destination = ConnectionId::new(&datagram[6..6 + usize::from(datagram[5])]).expect("8 bytes");
    let length_at = 6 + destination.len() + 2;
    let len = usize::from(u16::from_be_bytes([datagram[length_at] & 0x3f, datagram[length_at + 1]]));
    let packet = &mut datagram[..length_at + 2 + len];
    let keys = LevelKeys::<Software>::initial(&destination).local;
    let header = keys.header.remove(packet, length_at + 2, 0).expect("long enough");
    let len = keys.packet.open(header.number, packet, header.header_len).expect("authentic");
    let mut reader = Reader::new(&packet[header.header_len..][..len]);
    let Ok((_, Frame::Crypto(crypto))) = Frame::decode(&mut reader) else { panic!("no CRYPTO frame") };
    (destination, crypto.data.to_vec())
}

/// The ServerHello that resumes, and the handshake secrets of client and server.
fn server_hello(hello: &[u8], psk: &Secret) -> (Vec<u8>, Secret, Secret) {
    // The only key share: x25519, 32 bytes.
    let at = hello.windows(4).position(|window| window == [0, 0x1d, 0, 32]).expect("a key share") + 4;
    let key = PrivateKey::generate(NamedGroup::X25519, &mut Counting(77)).expect("a key");
    let shared = key.agree(&hello[at..at + 32]).expect("a valid share");
    let mut share = [0; 65];
    let len = key.share(&mut share);
    let extensions =
        [&[0, 43, 0, 2, 3, 4, 0, 51, 0, 36, 0, 29, 0, 32][..], &share[..len], &[0, 41, 0, 2, 0, 0]].concat();
    let body = [&[3, 3][..], &[9; 32], &[0, 0x13, 0x03, 0, 0, extensions.len() as u8], &extensions].concat();
    let message = [&[2, 0, 0, body.len() as u8][..], &body].concat();

    let early = extract::<Software>(HASH, &[], psk.as_bytes());
    let none = digest::<Software>(HASH, &[]);
    let derived = derive_secret::<Software>(HASH, &early, b"derived", none.as_bytes());
    let handshake = extract::<Software>(HASH, derived.as_bytes(), &*shared);
    let transcript = digest::<Software>(HASH, &[hello, &message]);
    let derive = |label: &[u8]| derive_secret::<Software>(HASH, &handshake, label, transcript.as_bytes());
    (message, derive(b"c hs traffic"), derive(b"s hs traffic"))
}

fn encrypted_extensions(original: &ConnectionId, limits: &Limits, early_data: &[u8]) -> Vec<u8> {
    let mut bytes = [0; 128];
    let mut w = Writer::new(&mut bytes);
    for (id, value) in [(0x00, original.as_bytes()), (0x0f, SERVER)] {
        w.put(&[id, value.len() as u8]).expect("fits");
        w.put(value).expect("fits");
    }
    let numbers = [
        (0x04, limits.max_data),
        (0x05, limits.max_stream_data_bidi_local),
        (0x06, limits.max_stream_data_bidi_remote),
        (0x08, limits.max_streams_bidi),
    ];
    for (id, number) in numbers {
        w.put(&[id, crate::codec::varint_len(number) as u8]).expect("fits");
        w.varint(number).expect("fits");
    }
    let parameters = w.written();
    let extensions = [ALPN, &[0, 57, 0, parameters.len() as u8], parameters, early_data].concat();
    let len = extensions.len() as u8;
    [&[8, 0, 0, len + 2, 0, len][..], &extensions].concat()
}

/// The first packet of its level, with `message` in a CRYPTO frame.
fn packet(first: u8, keys: &LevelKeys<Software>, message: &[u8]) -> Vec<u8> {
    let mut bytes = std::vec![0; 1200];
    let mut w = Writer::new(&mut bytes);
    w.put(&[first, 0, 0, 0, 1, 0, SERVER.len() as u8]).expect("fits");
    w.put(SERVER).expect("fits");
    // An Initial has room for a token.
    w.put(if first == 0xc3 { &[0] } else { &[] }).expect("fits");
    w.u16(0).expect("fits");
    let at = w.len();
    w.u32(0).expect("fits");
    Crypto { offset: 0, data: message }.encode(&mut w).expect("fits");
    let len = w.len() + TAG_LEN;
    bytes.truncate(len);
    finish_long_header(&mut bytes, at);
    protect(&mut bytes, 0, at..at + 4, &keys.remote.packet, &keys.remote.header);
    bytes
}

/// Resumes with 0-RTT data at a server that answers with `limits`: how the connection ended, and what became of the
/// 0-RTT data.
fn answered_with(limits: &Limits, early_data: &[u8]) -> (Option<CloseReason>, EarlyData) {
    let plain = tls::Config::new(&[], "broker.test", b"mqtt", 0);
    let ticket = ticket(&plain);
    let tls = tls::Config { ticket: Some(&ticket), ..plain };
    let (mut entropy, mut kept) = (Counting(0), Kept::default());
    let now = Instant::from_micros(1_000_000);
    let mut ctx = Context { now, tls: &tls, entropy: &mut entropy, store: &mut kept };
    let mut connection = Box::new(Connection::<Software, 2, 256>::new());
    let config = Config { early_data: tls::EarlyData::Offer, ..Config::new() };
    connection.connect(&config, &mut ctx, &[]).expect("at rest");
    assert!(connection.is_early());
    let stream = connection.open_stream().expect("the server permitted four");
    assert_eq!(connection.stream_write(stream, b"early"), Ok(5));
    let mut buffer = [0; 1472];
    let len = connection.poll_transmit(&mut ctx, &mut buffer).expect("a ClientHello");
    while connection.poll_transmit(&mut ctx, &mut [0; 1472]).is_some() {}

    let (original, hello) = client_hello(&mut buffer[..len]);
    let (message, client, server) = server_hello(&hello, &ticket.psk);
    let mut initial = packet(0xc3, &LevelKeys::initial(&original), &message);
    connection.handle_datagram(&mut ctx, &mut initial);
    let keys = LevelKeys::derive(SUITE, &client, &server);
    let message = encrypted_extensions(&original, limits, early_data);
    let mut handshake = packet(0xe3, &keys, &message);
    connection.handle_datagram(&mut ctx, &mut handshake);
    let end = core::iter::from_fn(|| connection.poll_event()).find_map(|event| match event {
        Event::Closed(reason) => Some(reason),
        _ => None,
    });
    (end, connection.early_data)
}

#[test]
fn a_server_that_accepts_early_data_must_not_lower_the_limits_it_went_by() {
    assert_eq!(answered_with(&REMEMBERED, ACCEPTS), (None, EarlyData::Accepted));
    type Lower = fn(&mut Limits);
    let lower: [(&str, Lower); 4] = [
        ("initial_max_data", |limits| limits.max_data -= 1),
        ("initial_max_stream_data_bidi_local", |limits| limits.max_stream_data_bidi_local -= 1),
        ("initial_max_stream_data_bidi_remote", |limits| limits.max_stream_data_bidi_remote -= 1),
        ("initial_max_streams_bidi", |limits| limits.max_streams_bidi -= 1),
    ];
    let violation = TransportError {
        code: TransportCode::PROTOCOL_VIOLATION,
        frame_type: crate::quic::frame::kind::CRYPTO,
        reason: "lower limits than those that 0-RTT data went by",
    };
    for (what, lower) in lower {
        let mut limits = REMEMBERED;
        lower(&mut limits);
        let (end, _) = answered_with(&limits, ACCEPTS);
        assert_eq!(end, Some(CloseReason::Transport(violation)), "{what}");
        // A server that refuses the data may permit whatever it likes.
        assert_eq!(answered_with(&limits, &[]), (None, EarlyData::Rejected), "{what}");
    }
    let higher = Limits { max_data: 1 << 20, max_streams_bidi: 5, ..REMEMBERED };
    assert_eq!(answered_with(&higher, ACCEPTS), (None, EarlyData::Accepted));
}
