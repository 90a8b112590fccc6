//! TLS over a byte stream, against rustls.

use crate::support::{ALPN, Authority, NAME, Seeded, now_s};
use device::crypto::Software;
use device::entropy::Entropy;
use device::tls::record::{INCOMING_LEN, OUTGOING_LEN, OVERHEAD, TlsStream};
use device::tls::{Alert, ClientAuth, Config, Error, Fault, Step, Ticket};
use rcgen::PKCS_ECDSA_P256_SHA256;
use rustls::{ServerConfig, ServerConnection};
use std::io::{Read, Write};
use std::sync::Arc;

/// A client and a server joined by a wire that delivers at most `chunk` bytes at once.
struct Wire<'a, const IN: usize = INCOMING_LEN, const OUT: usize = OUTGOING_LEN> {
    config: Config<'a>,
    entropy: Seeded,
    client: TlsStream<Software, IN, OUT>,
    server: ServerConnection,
    chunk: usize,
    to_client: Vec<u8>,
    client_got: Vec<u8>,
    server_got: Vec<u8>,
    tickets: Vec<Ticket>,
}

impl<'a, const IN: usize, const OUT: usize> Wire<'a, IN, OUT> {
    fn new(config: Config<'a>, server: ServerConfig, chunk: usize) -> Self {
        let mut entropy = Seeded(11);
        Self {
            config,
            client: TlsStream::new(&config, &mut entropy).expect("a ClientHello"),
            entropy,
            server: ServerConnection::new(Arc::new(server)).expect("a server"),
            chunk,
            to_client: Vec::new(),
            client_got: Vec::new(),
            server_got: Vec::new(),
            tickets: Vec::new(),
        }
    }

    /// Moves bytes until nothing more happens.
    fn run(&mut self) -> Result<(), Error> {
        loop {
            let idle = self.deliver_to_server() & self.deliver_to_client()?;
            if idle {
                return Ok(());
            }
        }
    }

    fn deliver_to_server(&mut self) -> bool {
        let pending = self.client.transmit();
        let len = pending.len().min(self.chunk);
        if len == 0 {
            return true;
        }
        let mut bytes = &pending[..len];
        while !bytes.is_empty() && self.server.read_tls(&mut bytes).expect("reading from memory") > 0 {}
        self.client.on_transmitted(len);
        if let Err(error) = self.server.process_new_packets() {
            eprintln!("the server says: {error}");
        }
        let mut data = [0; 4096];
        while let Ok(len @ 1..) = self.server.reader().read(&mut data) {
            self.server_got.extend_from_slice(&data[..len]);
        }
        false
    }

    fn deliver_to_client(&mut self) -> Result<bool, Error> {
        while self.server.wants_write() {
            self.server.write_tls(&mut self.to_client).expect("writing to memory");
        }
        let len = self.to_client.len().min(self.chunk);
        let tickets = &mut self.tickets;
        let mut on_step = |step: &Step<'_>| {
            if let Step::Ticket(ticket) = step {
                tickets.extend(ticket.to_ticket());
            }
        };
        let taken = self.client.handle_bytes(
            &self.config,
            &mut self.entropy,
            &self.to_client[..len],
            &mut on_step,
        )?;
        self.to_client.drain(..taken);
        let mut data = [0; 100];
        let mut read = 0;
        while let len @ 1.. = self.client.read(&mut data) {
            self.client_got.extend_from_slice(&data[..len]);
            read += len;
        }
        Ok(taken == 0 && read == 0)
    }

    /// Writes all of `data` on the client's side.
    fn client_write(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let len = self.client.write(data).expect("a connected stream");
            data = &data[len..];
            self.run().expect("an echo");
        }
    }
}

fn server(authority: &Authority) -> ServerConfig {
    let (mut config, _) = authority.server();
    config.max_early_data_size = 0;
    config
}

fn data(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index * 7) as u8).collect()
}

#[test]
fn what_follows_the_handshake_is_left_to_the_next_call() {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let anchors = [authority.anchor()];
    let config = Config::new(&anchors, NAME, ALPN, now_s());
    let mut server = server(&authority);
    server.send_half_rtt_data = true;
    let mut wire: Wire<'_> = Wire::new(config, server, usize::MAX);
    wire.deliver_to_server();
    wire.server.writer().write_all(b"right behind").expect("a server may send before the client's Finished");
    wire.deliver_to_client().expect("the server's flight");
    assert!(wire.client.is_connected());
    assert!(!wire.to_client.is_empty(), "it was taken together with the handshake");
    wire.run().expect("the rest");
    assert_eq!(wire.client_got, b"right behind");
}

#[test]
fn data_flows_both_ways_however_it_is_cut() {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let anchors = [authority.anchor()];
    let config = Config::new(&anchors, NAME, ALPN, now_s());
    for chunk in [1, 3, 17, 1460, usize::MAX] {
        let mut wire: Wire<'_> = Wire::new(config, server(&authority), chunk);
        wire.run().unwrap_or_else(|error| panic!("chunks of {chunk}: {error}"));
        assert!(wire.client.is_connected() && !wire.server.is_handshaking());
        assert_eq!(wire.server.alpn_protocol(), Some(ALPN));
        let sent = data(10_000);
        wire.client_write(&sent);
        assert!(wire.server_got == sent, "chunks of {chunk}");
        wire.server.set_buffer_limit(None);
        for part in sent.chunks(4000) {
            wire.server.writer().write_all(part).expect("no limit");
            wire.server.write_tls(&mut wire.to_client).expect("writing to memory");
        }
        wire.run().expect("data");
        assert!(wire.client_got == sent, "chunks of {chunk}");
    }
}

#[test]
fn what_is_writable_is_taken_whole_however_full_the_buffer_is() {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let anchors = [authority.anchor()];
    let config = Config::new(&anchors, NAME, ALPN, now_s());
    let mut wire: Wire<'_> = Wire::new(config, server(&authority), usize::MAX);
    wire.run().expect("a handshake");
    let (head, body) = (data(30), data(200));
    let mut written: Vec<u8> = Vec::new();
    loop {
        let room = wire.client.writable();
        if room < head.len() {
            break;
        }
        let body = &body[..body.len().min(room - head.len())];
        assert_eq!(wire.client.write_parts(&head, body), Ok(head.len() + body.len()));
        written.extend(head.iter().chain(body));
    }
    assert!(written.len() > OUTGOING_LEN - 10 * OVERHEAD - head.len(), "a record for each write, not two");
    wire.run().expect("delivery");
    assert_eq!(wire.server_got, written);
}

#[test]
fn handshake_messages_spread_over_small_records_are_reassembled() {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let anchors = [authority.anchor()];
    let mut config = server(&authority);
    config.max_fragment_size = Some(64);
    let mut wire: Wire<'_> = Wire::new(Config::new(&anchors, NAME, ALPN, now_s()), config, 100);
    wire.run().expect("a handshake");
    assert!(wire.client.is_connected());
}

#[test]
fn smallest_buffers_that_hold_the_certificates_suffice() {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let anchors = [authority.anchor()];
    let mut config = server(&authority);
    config.max_fragment_size = Some(256);
    let mut wire: Wire<'_, 1200, 512> = Wire::new(Config::new(&anchors, NAME, ALPN, now_s()), config, 100);
    wire.run().expect("a handshake");
    let sent = data(3000);
    wire.client_write(&sent);
    assert!(wire.server_got == sent);
}

#[test]
fn record_beyond_the_buffer_ends_the_connection_with_record_overflow() {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let anchors = [authority.anchor()];
    let mut wire: Wire<'_> =
        Wire::new(Config::new(&anchors, NAME, ALPN, now_s()), server(&authority), usize::MAX);
    wire.run().expect("a handshake");
    wire.server.writer().write_all(&data(INCOMING_LEN - OVERHEAD + 1)).expect("room");
    let error = wire.run().expect_err("the record does not fit");
    assert_eq!((error.alert, error.fault), (Alert::RECORD_OVERFLOW, Fault::Resource));
    wire.deliver_to_server();
    assert!(wire.client.write(b"more").is_err());
}

#[test]
fn key_updates_go_both_ways() {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let anchors = [authority.anchor()];
    let mut wire: Wire<'_> = Wire::new(Config::new(&anchors, NAME, ALPN, now_s()), server(&authority), 50);
    wire.run().expect("a handshake");
    for round in 0..3 {
        // Asks for the client's new keys in return.
        wire.server.refresh_traffic_keys().expect("a connected server");
        wire.server.writer().write_all(b"down").expect("room");
        wire.run().expect("data under new keys");
        wire.client_write(b"up");
        wire.client.update_keys();
        wire.client_write(b"again");
        assert_eq!(wire.client_got, b"down".repeat(round + 1));
        assert_eq!(wire.server_got, b"upagain".repeat(round + 1));
    }
}

#[test]
fn close_notify_ends_the_stream_and_truncation_does_not() {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let anchors = [authority.anchor()];
    let mut wire: Wire<'_> = Wire::new(Config::new(&anchors, NAME, ALPN, now_s()), server(&authority), 50);
    wire.run().expect("a handshake");
    wire.server.writer().write_all(b"last words").expect("room");
    wire.run().expect("data");
    assert!(!wire.client.is_finished());
    wire.server.send_close_notify();
    wire.run().expect("the closure");
    assert!(wire.client.is_finished());
    assert_eq!(wire.client_got, b"last words");

    wire.client.close();
    wire.run().expect("the closure");
    let end = wire.server.reader().read(&mut [0; 8]);
    assert_eq!(end.expect("a clean end, not an unexpected one"), 0);
}

#[test]
fn ticket_resumes_over_records() {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let anchors = [authority.anchor()];
    let config = Config::new(&anchors, NAME, ALPN, now_s());
    let server = server(&authority);
    let mut wire: Wire<'_> = Wire::new(config, server.clone(), usize::MAX);
    wire.run().expect("a handshake");
    let ticket = wire.tickets.pop().expect("rustls gives tickets");
    let mut again: Wire<'_> = Wire::new(Config { ticket: Some(&ticket), ..config }, server, 1000);
    again.run().expect("a resumed handshake");
    assert!(again.client.is_resumed() && again.client.is_connected());
}

#[test]
fn tls_1_2_server_is_refused() {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let anchors = [authority.anchor()];
    let (mut config, _) = authority.server();
    config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .expect("TLS 1.2 suites")
        .with_client_cert_verifier(Arc::new(rustls::server::NoClientAuth))
        .with_cert_resolver(config.cert_resolver.clone());
    let mut wire: Wire<'_> = Wire::new(Config::new(&anchors, NAME, ALPN, now_s()), config, 1000);
    let error = wire.run().expect_err("no common version");
    assert_eq!((error.alert, error.fault), (Alert::PROTOCOL_VERSION, Fault::PeerAlert));
}

#[test]
fn protocol_the_server_does_not_speak_is_reported() {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let anchors = [authority.anchor()];
    let config = Config::new(&anchors, NAME, b"gopher", now_s());
    let mut wire: Wire<'_> = Wire::new(config, server(&authority), 1000);
    let error = wire.run().expect_err("no common protocol");
    assert_eq!((error.alert, error.fault), (Alert::NO_APPLICATION_PROTOCOL, Fault::PeerAlert));
}

#[test]
fn plain_text_server_is_recognised() {
    let anchors = [];
    let config = Config::new(&anchors, NAME, ALPN, now_s());
    let mut client = TlsStream::<Software>::new(&config, &mut Seeded(1)).expect("a ClientHello");
    let error =
        client.handle_bytes(&config, &mut Seeded(1), b"HTTP/1.1 400", &mut |_| {}).expect_err("no TLS");
    assert_eq!(error.alert, Alert::UNEXPECTED_MESSAGE);
    assert!(client.handle_bytes(&config, &mut Seeded(1), b"", &mut |_| {}).is_err(), "it stays failed");
}

#[test]
fn altered_record_fails_with_bad_record_mac() {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let anchors = [authority.anchor()];
    let mut wire: Wire<'_> = Wire::new(Config::new(&anchors, NAME, ALPN, now_s()), server(&authority), 5000);
    wire.run().expect("a handshake");
    wire.server.writer().write_all(b"payload").expect("room");
    wire.server.write_tls(&mut wire.to_client).expect("writing to memory");
    *wire.to_client.last_mut().expect("a record") ^= 1;
    assert_eq!(wire.run().expect_err("a bad tag").alert, Alert::BAD_RECORD_MAC);
}

#[test]
fn client_certificate_is_shown_and_accepted() {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let identity = Authority::with_leaf(&PKCS_ECDSA_P256_SHA256, |params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    });
    let certificates: Vec<&[u8]> = identity.chain().iter().map(AsRef::as_ref).collect();
    let private_key = identity.private_scalar();
    let client_auth = Some(ClientAuth { certificates: &certificates, private_key: &private_key });
    let anchors = [authority.anchor()];
    let config = Config { client_auth, ..Config::new(&anchors, NAME, ALPN, now_s()) };
    let mut wire: Wire<'_> = Wire::new(config, authority.server_asking_for(&identity), 700);
    wire.run().expect("a handshake");
    wire.client_write(b"hello");
    assert_eq!(wire.server_got, b"hello");
    assert_eq!(wire.server.peer_certificates(), Some(identity.chain()));
}

#[test]
fn client_without_the_demanded_certificate_is_told_so() {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let anchors = [authority.anchor()];
    let config = Config::new(&anchors, NAME, ALPN, now_s());
    let mut wire: Wire<'_> = Wire::new(config, authority.server_asking_for(&authority), 700);
    let error = wire.run().expect_err("a certificate is required");
    assert_eq!((error.alert, error.fault), (Alert::CERTIFICATE_REQUIRED, Fault::PeerAlert));
}

#[test]
fn random_damage_on_the_wire_never_panics_and_never_yields_data() {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let anchors = [authority.anchor()];
    let config = Config::new(&anchors, NAME, ALPN, now_s());
    for seed in 0..200 {
        let mut random = [0; 8];
        Seeded(seed).fill(&mut random);
        let mut wire: Wire<'_> = Wire::new(config, server(&authority), usize::MAX);
        // The first byte after the damage may come at any point of the handshake.
        let mut at = usize::from(u16::from_be_bytes([random[0], random[1]])) % 1500;
        let damaged = loop {
            let idle = wire.deliver_to_server();
            while wire.server.wants_write() {
                wire.server.write_tls(&mut wire.to_client).expect("writing to memory");
            }
            if let Some(byte) = wire.to_client.get_mut(at) {
                *byte ^= random[2] | 1;
                break wire.run();
            }
            at -= wire.to_client.len();
            if let Err(error) = wire.deliver_to_client() {
                panic!("seed {seed}: {error} without damage");
            }
            if idle && wire.to_client.is_empty() {
                break Ok(());
            }
        };
        // Only headers of plaintext records hold bytes that nobody checks: the legacy version.
        assert!(damaged.is_err() || wire.client.is_connected(), "seed {seed}");
        assert!(wire.client_got.is_empty(), "seed {seed}");
    }
}
