//! Tickets, PSK resumption and 0-RTT.

use crate::script::{CERTIFICATE, ENCRYPTED_EXTENSIONS, RETRY, SERVER_HELLO, Script};
use crate::support::{ALPN, Authority, Completed, NAME, Seeded, connect, connect_with, now_s};
use device::codec::Writer;
use device::crypto::{CipherSuite, Software};
use device::tls::{Alert, ClientAuth, Config, EarlyData, Fault, Handshake, NamedGroup, Ticket};
use rcgen::PKCS_ECDSA_P256_SHA256;
use rustls::ServerConfig;

/// Offers 0-RTT with a ticket of ChaCha20-Poly1305 to a server spoiled by `change`; returns where and how it is refused.
fn refused(change: impl FnOnce(&mut Script)) -> (u8, Alert) {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let (server, _) = authority.server();
    let anchors = [authority.anchor()];
    let config = Config::new(&anchors, NAME, ALPN, now_s());
    let ticket = ticket(&config, &server);
    let mut script = Script::new(&authority);
    change(&mut script);
    let offer = Config { ticket: Some(&ticket), ..config };
    let (message, error) =
        script.play_with(&offer, EarlyData::Offer).expect_err("the client must refuse this");
    assert_eq!(error.fault, Fault::Peer, "{error}");
    (message, error.alert)
}

#[test]
fn psk_that_was_not_among_those_offered() {
    for index in [1, 0xffff_u16] {
        let change = |s: &mut Script| s.hello_extensions.push((41, index.to_be_bytes().to_vec()));
        assert_eq!(refused(change), (SERVER_HELLO, Alert::ILLEGAL_PARAMETER));
    }
}

#[cfg(feature = "aes256")]
#[test]
fn psk_of_another_hash_than_the_suites() {
    let change = |s: &mut Script| {
        s.suite = 0x1302;
        s.hello_extensions.push((41, vec![0, 0]));
    };
    assert_eq!(refused(change), (SERVER_HELLO, Alert::ILLEGAL_PARAMETER));
}

#[test]
fn psk_in_a_retry() {
    let change = |s: &mut Script| {
        s.random = RETRY;
        s.hello_extensions = vec![(43, vec![3, 4]), (44, vec![0, 1, 7]), (41, vec![0, 0])];
    };
    assert_eq!(refused(change), (SERVER_HELLO, Alert::ILLEGAL_PARAMETER));
}

#[test]
fn early_data_accepted_without_the_key_it_was_sent_under() {
    let accept = |s: &mut Script| s.encrypted_extensions.push((42, vec![]));
    assert_eq!(refused(accept), (ENCRYPTED_EXTENSIONS, Alert::ILLEGAL_PARAMETER), "without the ticket");
    let other_suite = |s: &mut Script| {
        s.suite = 0x1301;
        s.hello_extensions.push((41, vec![0, 0]));
        accept(s);
    };
    assert_eq!(refused(other_suite), (ENCRYPTED_EXTENSIONS, Alert::ILLEGAL_PARAMETER), "with another cipher");
    let right = |s: &mut Script| {
        s.hello_extensions.push((41, vec![0, 0]));
        accept(s);
    };
    assert_eq!(refused(right).0, CERTIFICATE, "which a resumed handshake has not");
}

/// A first connection's last ticket.
fn ticket(config: &Config<'_>, server: &ServerConfig) -> Ticket {
    connect(config, server.clone()).expect("a full handshake").tickets.pop().expect("rustls gives tickets")
}

fn resume(config: &Config<'_>, server: ServerConfig, early_data: EarlyData) -> Completed {
    connect_with(config, server, early_data, 2).expect("a resumed handshake")
}

#[test]
fn ticket_resumes_without_a_certificate() {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let (server, log) = authority.server();
    let anchors = [authority.anchor()];
    let config = Config::new(&anchors, NAME, ALPN, now_s());
    let ticket = ticket(&config, &server);
    let done = resume(&Config { ticket: Some(&ticket), ..config }, server, EarlyData::Omit);
    assert!(done.handshake.is_resumed());
    assert!(done.early_secret.is_none());
    assert_eq!(done.application_secrets.0.as_bytes(), log.secret("CLIENT_TRAFFIC_SECRET_0"));
    assert_eq!(done.server.handshake_kind(), Some(rustls::HandshakeKind::Resumed));
}

#[test]
fn early_data_is_accepted_and_its_secret_agrees() {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let (server, log) = authority.server();
    let anchors = [authority.anchor()];
    let config = Config::new(&anchors, NAME, ALPN, now_s());
    let ticket = ticket(&config, &server);
    assert_eq!(ticket.max_early_data(), u32::MAX);
    let done = resume(&Config { ticket: Some(&ticket), ..config }, server, EarlyData::Offer);
    assert!(done.early_data_accepted);
    let early = done.early_secret.expect("0-RTT was offered");
    assert_eq!(early.as_bytes(), log.secret("CLIENT_EARLY_TRAFFIC_SECRET"));
}

#[test]
fn every_suite_resumes() {
    let suites = [
        CipherSuite::Aes128GcmSha256,
        #[cfg(feature = "aes256")]
        CipherSuite::Aes256GcmSha384,
    ];
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let anchors = [authority.anchor()];
    for suite in suites {
        let (server, _) = authority.server();
        let config = Config { cipher_suites: &[suite], ..Config::new(&anchors, NAME, ALPN, now_s()) };
        let ticket = ticket(&config, &server);
        let done = resume(&Config { ticket: Some(&ticket), ..config }, server, EarlyData::Offer);
        assert!(done.handshake.is_resumed() && done.early_data_accepted, "{suite:?}");
    }
}

#[test]
fn used_up_ticket_falls_back_to_a_full_handshake() {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let (server, _) = authority.server();
    let anchors = [authority.anchor()];
    let config = Config::new(&anchors, NAME, ALPN, now_s());
    let ticket = ticket(&config, &server);
    let (stranger, _) = authority.server();
    let done = resume(&Config { ticket: Some(&ticket), ..config }, stranger, EarlyData::Offer);
    assert!(!done.handshake.is_resumed() && !done.early_data_accepted);
}

#[test]
fn retry_keeps_the_ticket_and_gives_up_early_data() {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let mut provider = rustls::crypto::ring::default_provider();
    provider.kx_groups = vec![rustls::crypto::ring::kx_group::SECP256R1];
    let (server, log) = authority.server_with(provider);
    let anchors = [authority.anchor()];
    let config = Config::new(&anchors, NAME, ALPN, now_s());
    let ticket = ticket(&Config { groups: &[NamedGroup::P256], ..config }, &server);
    let done = resume(&Config { ticket: Some(&ticket), ..config }, server, EarlyData::Offer);
    assert!(done.retried && done.handshake.is_resumed());
    assert!(!done.early_data_accepted);
    assert_eq!(done.application_secrets.1.as_bytes(), log.secret("SERVER_TRAFFIC_SECRET_0"));
}

#[test]
fn ticket_is_offered_only_while_fresh_and_where_it_was_earned() {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let (server, _) = authority.server();
    let anchors = [authority.anchor()];
    let config = Config::new(&anchors, NAME, ALPN, now_s());
    let ticket = ticket(&config, &server);
    let offers = |config: &Config<'_>| {
        let mut buffer = [0; 2048];
        let hello_len = |config: &Config<'_>, buffer: &mut [u8]| {
            let mut out = Writer::new(buffer);
            Handshake::<Software>::start(config, &mut Seeded(3), None, EarlyData::Omit, &mut out)
                .expect("room");
            out.len()
        };
        hello_len(&Config { ticket: Some(&ticket), ..*config }, &mut buffer) > hello_len(config, &mut buffer)
    };
    assert!(offers(&config));

    let unix_time_s = config.unix_time_s + u64::from(ticket.lifetime_s());
    assert!(!offers(&Config { unix_time_s, ..config }), "it has expired");
    assert!(
        !offers(&Config { server_name: "other.example", ..config }),
        "another server's certificate is unseen"
    );
    let stranger = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let both = [authority.anchor(), stranger.anchor()];
    assert!(!offers(&Config { trust_anchors: &both[1..], ..config }), "the authority is no longer trusted");
    assert!(!offers(&Config { alpn: b"other", ..config }), "0-RTT data would be another protocol's");
    let certificates: [&[u8]; 1] = [b"certificate"];
    let client_auth = Some(ClientAuth { certificates: &certificates, private_key: &[1; 32] });
    assert!(!offers(&Config { client_auth, ..config }), "the server would believe the former identity");
}
