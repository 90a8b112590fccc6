//! The traces of RFC 8448: what the client derives and sends, byte by byte.
//!
//! The traces' ClientHellos offer other extensions than this client's, and their certificate is an RSA one
//! of 2016; so the transcript gets the RFC's ClientHello and certificate messages, everything else runs
//! through the state machine.

extern crate std;

use super::finished::ExpectFinished;
use super::handshake::{Common, State};
use super::key_schedule::{binder_key, early_secret, finished_mac};
use super::message::whole_len;
use super::record::{HEADER_LEN, PLAINTEXT_LEN_MAX, RecordKey};
use super::server_hello::ExpectServerHello;
use super::transcript::Transcript;
use super::{CipherSuite, Config, Handshake, Level, NamedGroup, NewTicket, Secret, Step, Transport};
use crate::codec::Writer;
use crate::crypto::key_exchange::PrivateKey;
use crate::crypto::{HashAlgorithm, Software, TAG_LEN, hkdf};
use crate::entropy::Entropy;
use std::string::String;
use std::vec::Vec;

const SUITE: CipherSuite = CipherSuite::Aes128GcmSha256;
const HASH: HashAlgorithm = HashAlgorithm::Sha256;

/// One section's values by name.
struct Trace(&'static str);

impl Trace {
    fn of_section(number: u8) -> Self {
        let text = include_str!("../../tests/data/rfc8448.txt");
        let start = std::format!("[{number}]\n");
        let section = text.split_once(&start).expect("the section").1;
        Self(section.split_once("\n[").map_or(section, |(section, _)| section))
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        let start = std::format!("\n{name}:\n");
        let value = self.0.split_once(&start).unwrap_or_else(|| panic!("no value {name}")).1;
        let value = value.split_once("\n\n").map_or(value, |(value, _)| value);
        let digits: String = value.split_whitespace().collect();
        digits
            .as_bytes()
            .chunks(2)
            .map(|pair| {
                let pair = core::str::from_utf8(pair).expect("hex digits");
                u8::from_str_radix(pair, 16).expect("hex digits")
            })
            .collect()
    }

    fn secret(&self, name: &str) -> Secret {
        Secret::from_slice(&self.bytes(name)).expect("a secret has 32 bytes")
    }

    /// The contents of a plaintext record.
    fn message(&self, name: &str) -> Vec<u8> {
        self.bytes(name)[HEADER_LEN..].to_vec()
    }

    /// The contents of a protected record, without its content type.
    fn open(&self, name: &str, key: &mut RecordKey<Software>) -> Vec<u8> {
        let mut record = self.bytes(name);
        let (header, body) = record.split_at_mut(HEADER_LEN);
        let len = key.open(header, body).unwrap_or_else(|_| panic!("{name} does not authenticate"));
        body[..len - 1].to_vec()
    }
}

/// Returns the same bytes over and over.
struct Fixed(Vec<u8>);

impl Entropy for Fixed {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.0[..bytes.len()]);
    }
}

fn config() -> Config<'static> {
    let suites = &[CipherSuite::Aes128GcmSha256, CipherSuite::ChaCha20Poly1305Sha256];
    Config { cipher_suites: suites, ..Config::new(&[], "server", b"", 0) }
}

/// A client that has sent the RFC's ClientHello.
fn client(trace: &Trace) -> Handshake<Software> {
    let mut common = Common::new(Transport::Records, PLAINTEXT_LEN_MAX as u16);
    common.transcript.update(&trace.message("client_hello"));
    let mut entropy = Fixed(trace.bytes("client_private_key"));
    let state = ExpectServerHello {
        random: [0; 32],
        key: PrivateKey::generate(NamedGroup::X25519, &mut entropy).expect("any bytes do"),
        transport_parameters: heapless::Vec::new(),
        psk: None,
        early_data: false,
        retried: None,
    };
    Handshake { state: State::ServerHello(state), common }
}

/// Feeds a message and returns the step and what the client answers.
fn feed<'m>(client: &mut Handshake<Software>, level: Level, message: &'m [u8]) -> (Step<'m>, Vec<u8>) {
    let mut buffer = [0; 1024];
    let mut out = Writer::new(&mut buffer);
    let step = client
        .handle_message(&config(), &mut Fixed(std::vec![7; 64]), level, message, &mut out)
        .unwrap_or_else(|error| panic!("{error}"));
    (step, out.written().to_vec())
}

/// Feeds the ServerHello and returns the keys of what follows: the client's and the server's.
fn feed_server_hello(
    client: &mut Handshake<Software>,
    trace: &Trace,
) -> (RecordKey<Software>, RecordKey<Software>) {
    let hello = trace.message("server_hello");
    let (step, _) = feed(client, Level::Initial, &hello);
    let Step::HandshakeKeys { client, server, .. } = step else { panic!("{step:?}") };
    assert_eq!(client, trace.secret("client_handshake_traffic"));
    assert_eq!(server, trace.secret("server_handshake_traffic"));
    (RecordKey::new(SUITE, client), RecordKey::new(SUITE, server))
}

/// Feeds the server's flight, passing its certificate by, and returns the client's answer.
fn feed_flight(client: &mut Handshake<Software>, trace: &Trace, flight: &[u8]) -> Vec<u8> {
    assert_eq!(client.common.secret, trace.secret("handshake_secret"));
    let mut rest = flight;
    let mut answer = Vec::new();
    while let Some(len) = whole_len(rest) {
        let (message, after) = rest.split_at(len);
        rest = after;
        if matches!(message[0], 11 | 15) {
            client.common.transcript.update(message);
            client.state = State::Finished(ExpectFinished::default());
            continue;
        }
        let (step, out) = feed(client, Level::Handshake, message);
        if let Step::Complete { client, server, .. } = step {
            assert_eq!(client, trace.secret("client_application_traffic"));
            assert_eq!(server, trace.secret("server_application_traffic"));
            answer = out;
        }
    }
    assert!(rest.is_empty() && !answer.is_empty());
    answer
}

fn seal(key: &mut RecordKey<Software>, content_type: u8, text: &[u8]) -> Vec<u8> {
    let len = text.len() + 1 + TAG_LEN;
    let mut record = std::vec![23, 3, 3, (len >> 8) as u8, len as u8];
    record.extend_from_slice(text);
    record.push(content_type);
    record.resize(HEADER_LEN + len, 0);
    let (header, body) = record.split_at_mut(HEADER_LEN);
    key.seal(header, body);
    record
}

/// Runs section 3 up to its ticket.
fn full_handshake<R>(with_ticket: impl FnOnce(NewTicket<'_>) -> R) -> R {
    let trace = Trace::of_section(3);
    let mut client = client(&trace);
    let (mut client_key, mut server_key) = feed_server_hello(&mut client, &trace);
    let flight = trace.open("server_flight", &mut server_key);
    let finished = feed_flight(&mut client, &trace, &flight);
    assert_eq!(seal(&mut client_key, 22, &finished), trace.bytes("client_finished"));

    let mut server_key = RecordKey::<Software>::new(SUITE, trace.secret("server_application_traffic"));
    let ticket = trace.open("new_session_ticket", &mut server_key);
    let (step, _) = feed(&mut client, Level::Application, &ticket);
    let Step::Ticket(ticket) = step else { panic!("{step:?}") };
    assert_eq!(ticket.psk, trace.secret("resumption_psk"));
    with_ticket(ticket)
}

#[test]
fn section_3_full_handshake() {
    full_handshake(|ticket| {
        assert_eq!((ticket.lifetime_s, ticket.max_early_data), (30, Some(1024)));
    });
}

#[test]
fn section_3_application_data_and_alerts() {
    let trace = Trace::of_section(3);
    let mut client = RecordKey::<Software>::new(SUITE, trace.secret("client_application_traffic"));
    let data: Vec<u8> = (0..50).collect();
    assert_eq!(seal(&mut client, 23, &data), trace.bytes("client_data"));
    assert_eq!(seal(&mut client, 21, &[1, 0]), trace.bytes("client_alert"));
}

#[test]
fn section_4_resumption_with_early_data() {
    let trace = Trace::of_section(4);
    let psk = full_handshake(|ticket| ticket.psk.clone());
    let early = early_secret::<Software>(HASH, Some(&psk));
    assert_eq!(early, trace.secret("early_secret"));

    let hello = trace.message("client_hello");
    let (head, binders) = hello.split_at(hello.len() - 3 - HASH.len());
    let mut transcript = Transcript::<Software>::new();
    transcript.update(head);
    let binder =
        finished_mac::<Software>(HASH, &binder_key::<Software>(HASH, &early), &transcript.hash(HASH));
    assert_eq!(binder, trace.secret("binder"));
    assert_eq!(binder.as_bytes(), &binders[3..]);

    let mut client = client(&trace);
    let transcript = client.common.transcript.hash(HASH);
    let secret = hkdf::derive_secret::<Software>(HASH, &early, b"c e traffic", transcript.as_bytes());
    assert_eq!(secret, trace.secret("client_early_traffic"));
    let mut early_key = RecordKey::<Software>::new(SUITE, secret.clone());
    assert_eq!(trace.open("early_data", &mut early_key), b"ABCDEF");

    let State::ServerHello(state) = &mut client.state else { unreachable!("the client has just begun") };
    state.psk = Some(SUITE);
    state.early_data = true;
    (client.common.secret, client.common.client) = (early, secret);
    let (_, mut server_key) = feed_server_hello(&mut client, &trace);
    assert!(client.is_resumed());
    let flight = trace.open("server_flight", &mut server_key);
    // The client's Finished differs: in the trace it follows an EndOfEarlyData.
    feed_flight(&mut client, &trace, &flight);
}

#[test]
fn section_5_hello_retry_request() {
    let trace = Trace::of_section(5);
    let mut client = client(&trace);
    let mut buffer = [0; 1024];
    let mut out = Writer::new(&mut buffer);
    let retry = trace.message("hello_retry_request");
    let mut entropy = Fixed(trace.bytes("client_private_key_2"));
    let step = client
        .handle_message(&config(), &mut entropy, Level::Initial, &retry, &mut out)
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(matches!(step, Step::SecondClientHello));
    let hello = trace.message("client_hello_2");
    for (what, id) in [("key_share", [0, 51]), ("cookie", [0, 44])] {
        let expected = extension(&hello, id);
        assert_eq!(extension(out.written(), id), expected, "{what}");
    }

    let transcript = &mut client.common.transcript;
    *transcript = Transcript::new();
    transcript.update(&trace.message("client_hello"));
    transcript.restart_with_hash(HASH);
    transcript.update(&retry);
    transcript.update(&hello);
    let (mut client_key, mut server_key) = feed_server_hello(&mut client, &trace);
    let flight = trace.open("server_flight", &mut server_key);
    let finished = feed_flight(&mut client, &trace, &flight);
    assert_eq!(seal(&mut client_key, 22, &finished), trace.bytes("client_finished"));
}

/// The value of an extension of a ClientHello without session id.
fn extension(hello: &[u8], id: [u8; 2]) -> Vec<u8> {
    let suites_len = usize::from(hello[40]);
    let mut rest = &hello[41 + suites_len + 2 + 2..];
    loop {
        let (head, after) = rest.split_at(4);
        let (value, next) = after.split_at(usize::from(u16::from_be_bytes([head[2], head[3]])));
        if head[..2] == id {
            return value.to_vec();
        }
        rest = next;
    }
}
