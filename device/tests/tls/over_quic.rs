//! A server that breaks the rules over QUIC: each violation ends the connection with the code of RFC 9000 20.1, and
//! the server is told so in CONNECTION_CLOSE.

use crate::script::{CERTIFICATE_VERIFY, FINISHED, SERVER_HELLO, Script, Server, signer};
use crate::support::{ALPN, Authority, NAME, Seeded, now_s};
use device::codec::{Reader, Writer};
use device::crypto::{CipherSuite, Software, TAG_LEN};
use device::quic::cid::ConnectionId;
use device::quic::frame::{ConnectionClose, Crypto, Frame};
use device::quic::packet::finish_long_header;
use device::quic::protection::{LevelKeys, protect};
use device::quic::{CloseReason, Config, Connection, Context, Event, TransportCode};
use device::time::Instant;
use device::tls::{self, Level};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256};

const SERVER_ID: &[u8; 8] = b"server-0";
/// CRYPTO bytes per packet.
const PIECE: usize = 1000;

/// Transport parameters by identifier, each below 64.
type Parameters = Vec<(u8, Vec<u8>)>;

/// Breaks transport parameters.
type Adjust = Box<dyn Fn(&mut Parameters)>;

/// A long header's parts behind the identifiers: where the packet number is and where the packet ends.
fn bounds(packet: &[u8]) -> (usize, usize) {
    let is_initial = packet[0] & 0x30 == 0;
    // The client's own identifier has no bytes, and neither have tokens here.
    let mut at = 6 + usize::from(packet[5]) + 1 + usize::from(is_initial);
    let len = usize::from(u16::from_be_bytes([packet[at] & 0x3f, packet[at + 1]]));
    at += 2;
    (at, at + len)
}

/// The frames of the client's packet at the start of `datagram`.
fn open(datagram: &mut [u8], keys: &LevelKeys<Software>) -> Vec<u8> {
    let (at, end) = bounds(datagram);
    let packet = &mut datagram[..end];
    let header = keys.local.header.remove(packet, at, 0).expect("long enough");
    let len = keys.local.packet.open(header.number, packet, header.header_len).expect("authentic");
    packet[header.header_len..][..len].to_vec()
}

/// The server's end of a connection.
struct QuicServer {
    initial: LevelKeys<Software>,
    handshake: Option<LevelKeys<Software>>,
    next: [u64; 2],
    offset: [usize; 2],
}

impl QuicServer {
    fn keys(&self, level: usize) -> &LevelKeys<Software> {
        if level == 0 { &self.initial } else { self.handshake.as_ref().expect("the ServerHello is out") }
    }

    fn packet(&mut self, level: usize, frames: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 1400];
        let number = self.next[level];
        self.next[level] += 1;
        let mut w = Writer::new(&mut bytes);
        w.put(&[[0xc3, 0xe3][level], 0, 0, 0, 1, 0, SERVER_ID.len() as u8]).expect("room");
        w.put(SERVER_ID).expect("room");
        w.put(&[0][level..]).expect("room");
        w.u16(0).expect("room");
        let at = w.len();
        w.u32(number as u32).expect("room");
        w.put(frames).expect("room");
        let len = w.len() + TAG_LEN;
        bytes.truncate(len);
        finish_long_header(&mut bytes, at);
        let keys = &self.keys(level).remote;
        protect(&mut bytes, number, at..at + 4, &keys.packet, &keys.header);
        bytes
    }

    /// A message of the handshake, in as many packets as it takes.
    fn packets(&mut self, level: usize, message: &[u8]) -> Vec<Vec<u8>> {
        let pieces = message.chunks(PIECE).map(|data| {
            let mut frames = vec![0; PIECE + 16];
            let mut w = Writer::new(&mut frames);
            Crypto { offset: self.offset[level] as u64, data }.encode(&mut w).expect("room");
            let frames = w.written().to_vec();
            self.offset[level] += data.len();
            self.packet(level, &frames)
        });
        pieces.collect()
    }
}

/// Plays `script` with these transport parameters and returns the code in the client's CONNECTION_CLOSE, which is
/// also what its owner was told.
fn code_after(
    authority: &Authority,
    unix_time_s: u64,
    mut script: Script,
    adjust: impl FnOnce(&mut Parameters),
) -> Option<TransportCode> {
    let anchors = [authority.anchor()];
    let tls = tls::Config::new(&anchors, NAME, ALPN, unix_time_s);
    let mut entropy = Seeded(3);
    let mut store = ();
    let mut client = Box::new(Connection::<Software>::new());
    let mut buffer = [0; 1472];
    macro_rules! call {
        (|$ctx:ident| $call:expr) => {{
            let now = Instant::from_micros(1_000);
            let $ctx = &mut Context { now, tls: &tls, entropy: &mut entropy, store: &mut store };
            $call
        }};
    }
    call!(|ctx| client.connect(&Config::new(), ctx, &[])).expect("at rest");
    let len = call!(|ctx| client.poll_transmit(ctx, &mut buffer)).expect("a ClientHello");
    let destination = ConnectionId::new(&buffer[6..6 + usize::from(buffer[5])]).expect("8 to 20 bytes");
    let initial = LevelKeys::initial(&destination);
    let payload = open(&mut buffer[..len], &initial);
    let mut hello = Vec::new();
    let mut reader = Reader::new(&payload);
    while !reader.is_empty() {
        if let (_, Frame::Crypto(crypto)) = Frame::decode(&mut reader).expect("valid frames") {
            hello.extend_from_slice(crypto.data);
        }
    }
    let mut parameters = vec![(0x00, destination.as_bytes().to_vec()), (0x0f, SERVER_ID.to_vec())];
    adjust(&mut parameters);
    let encoded: Vec<u8> =
        parameters.iter().flat_map(|(id, value)| [&[*id, value.len() as u8], &value[..]].concat()).collect();
    for (id, value) in &mut script.encrypted_extensions {
        if *id == 57 {
            value.clone_from(&encoded);
        }
    }
    let order = script.order.clone();
    let mut server = Server::new(script, &hello);
    let mut quic = QuicServer { initial, handshake: None, next: [0; 2], offset: [0; 2] };
    for (kind, level) in order {
        let message = server.message(kind);
        for mut packet in quic.packets(usize::from(level != Level::Initial), &message) {
            call!(|ctx| client.handle_datagram(ctx, &mut packet));
        }
        if kind == SERVER_HELLO {
            let (client, server) = server.secrets();
            quic.handshake = Some(LevelKeys::derive(CipherSuite::ChaCha20Poly1305Sha256, client, server));
        }
    }
    let told = core::iter::from_fn(|| client.poll_event()).find_map(|event| match event {
        Event::Closed(CloseReason::Transport(error)) => Some(error.code),
        Event::Closed(CloseReason::Tls(error)) => Some(TransportCode::crypto(error.alert.0)),
        Event::Closed(other) => panic!("ended by {other:?}"),
        _ => None,
    })?;
    let len = call!(|ctx| client.poll_transmit(ctx, &mut buffer)).expect("CONNECTION_CLOSE");
    let level = usize::from(buffer[0] & 0x30 != 0);
    let payload = open(&mut buffer[..len], quic.keys(level));
    let mut reader = Reader::new(&payload);
    let said =
        core::iter::from_fn(|| (!reader.is_empty()).then(|| Frame::decode(&mut reader).expect("valid").1))
            .find_map(|frame| match frame {
                Frame::ConnectionClose(ConnectionClose::Transport { code, .. }) => Some(code),
                _ => None,
            });
    assert_eq!(said, Some(told), "what the server hears is what the owner is told");
    Some(told)
}

fn code_of(change: impl FnOnce(&mut Script), adjust: impl FnOnce(&mut Parameters)) -> Option<TransportCode> {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let mut script = Script::new(&authority);
    change(&mut script);
    code_after(&authority, now_s(), script, adjust)
}

/// The code of a TLS alert (RFC 9001 4.8).
const fn alert(alert: tls::Alert) -> Option<TransportCode> {
    Some(TransportCode::crypto(alert.0))
}

#[test]
fn a_correct_server_is_accepted() {
    assert_eq!(code_of(|_| {}, |_| {}), None);
    // Reserved and unknown parameters are for everyone to ignore (RFC 9000 18.1).
    assert_eq!(code_of(|_| {}, |parameters| parameters.extend([(27, vec![1, 2, 3]), (0x11, vec![])])), None);
}

#[test]
fn wrong_transport_parameters_are_told_as_such() {
    let long = |byte: u8, rest: &[u8]| [&[byte], rest].concat();
    let cases: Vec<(&str, Adjust)> = vec![
        ("no original destination", Box::new(|p| drop(p.remove(0)))),
        ("another original destination", Box::new(|p| p[0].1[0] ^= 1)),
        ("no initial source", Box::new(|p| drop(p.remove(1)))),
        ("another initial source", Box::new(|p| p[1].1 = b"server-1".to_vec())),
        ("a retry source without a Retry", Box::new(|p| p.push((0x10, SERVER_ID.to_vec())))),
        ("an identifier of 21 bytes", Box::new(|p| p[1].1 = vec![7; 21])),
        ("a parameter twice", Box::new(|p| p.push(p[0].clone()))),
        ("a reset token of 15 bytes", Box::new(|p| p.push((0x02, vec![1; 15])))),
        ("a datagram limit below 1200", Box::new(|p| p.push((0x03, vec![0x44, 0xaf])))),
        (
            "more streams than there can be",
            Box::new(move |p| p.push((0x08, long(0xd0, &[0, 0, 0, 0, 0, 0, 1])))),
        ),
        ("an exponent above 20", Box::new(|p| p.push((0x0a, vec![21])))),
        ("an acknowledgement delay of 2^14 ms", Box::new(|p| p.push((0x0b, vec![0x80, 0, 0x40, 0])))),
        ("a flag with a value", Box::new(|p| p.push((0x0c, vec![1])))),
        ("a preferred address cut short", Box::new(|p| p.push((0x0d, vec![0; 20])))),
        ("an identifier limit of 1", Box::new(|p| p.push((0x0e, vec![1])))),
        ("a number with trailing bytes", Box::new(|p| p.push((0x04, vec![1, 0])))),
        ("an empty number", Box::new(|p| p.push((0x04, vec![])))),
    ];
    for (what, adjust) in cases {
        assert_eq!(code_of(|_| {}, adjust), Some(TransportCode::TRANSPORT_PARAMETER_ERROR), "{what}");
    }
    let missing = |script: &mut Script| drop(script.encrypted_extensions.pop());
    assert_eq!(code_of(missing, |_| {}), alert(tls::Alert::MISSING_EXTENSION));
}

#[test]
fn a_broken_handshake_ends_with_its_alert() {
    let wrong_finished = |script: &mut Script| {
        script.edit = Box::new(|kind, message| message[20] ^= u8::from(kind == FINISHED));
    };
    assert_eq!(code_of(wrong_finished, |_| {}), alert(tls::Alert::DECRYPT_ERROR));
    let wrong_key =
        |script: &mut Script| script.signing_key = signer(&Authority::new(&PKCS_ECDSA_P256_SHA256));
    assert_eq!(code_of(wrong_key, |_| {}), alert(tls::Alert::DECRYPT_ERROR));
    let altered = |script: &mut Script| {
        script.edit = Box::new(|kind, message| message[12] ^= u8::from(kind == CERTIFICATE_VERIFY));
    };
    assert_eq!(code_of(altered, |_| {}), alert(tls::Alert::DECRYPT_ERROR));
    let no_protocol = |script: &mut Script| drop(script.encrypted_extensions.remove(0));
    assert_eq!(code_of(no_protocol, |_| {}), alert(tls::Alert::NO_APPLICATION_PROTOCOL));
    let old_version = |script: &mut Script| script.hello_extensions.clear();
    assert_eq!(code_of(old_version, |_| {}), alert(tls::Alert::PROTOCOL_VERSION));
    let downgrade = |script: &mut Script| {
        script.hello_extensions.clear();
        script.random[24..].copy_from_slice(b"DOWNGRD\x01");
    };
    assert_eq!(code_of(downgrade, |_| {}), alert(tls::Alert::ILLEGAL_PARAMETER));
    let out_of_order = |script: &mut Script| script.order.swap(2, 3);
    assert_eq!(code_of(out_of_order, |_| {}), alert(tls::Alert::UNEXPECTED_MESSAGE));
}

#[test]
fn a_certificate_that_does_not_hold_ends_with_its_alert() {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let stranger = Authority::with_root_name(&PKCS_ECDSA_P256_SHA256, "another root");
    let code = code_after(&authority, now_s(), Script::new(&stranger), |_| {});
    assert_eq!(code, alert(tls::Alert::UNKNOWN_CA));
    type Spoil = fn(&mut CertificateParams);
    let leaves: [(tls::Alert, Spoil); 5] = [
        (tls::Alert::CERTIFICATE_EXPIRED, |leaf| leaf.not_after = rcgen::date_time_ymd(2020, 1, 1)),
        (tls::Alert::CERTIFICATE_EXPIRED, |leaf| leaf.not_before = rcgen::date_time_ymd(3000, 1, 1)),
        (tls::Alert::BAD_CERTIFICATE, |leaf| {
            let other = rcgen::string::Ia5String::try_from("other.example").expect("ASCII");
            leaf.subject_alt_names = vec![rcgen::SanType::DnsName(other)];
        }),
        (tls::Alert::UNSUPPORTED_CERTIFICATE, |leaf| {
            leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        }),
        (tls::Alert::UNSUPPORTED_CERTIFICATE, |leaf| {
            leaf.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
        }),
    ];
    for (expected, adjust) in leaves {
        let authority = Authority::with_leaf(&PKCS_ECDSA_P256_SHA256, adjust);
        let code = code_after(&authority, now_s(), Script::new(&authority), |_| {});
        assert_eq!(code, alert(expected));
    }
}

#[test]
fn a_message_larger_than_the_buffer_ends_with_its_code() {
    let endless = |script: &mut Script| {
        let intermediate = script.chain[1].clone();
        script.chain.extend(vec![intermediate; 20]);
    };
    assert_eq!(code_of(endless, |_| {}), Some(TransportCode::CRYPTO_BUFFER_EXCEEDED));
}
