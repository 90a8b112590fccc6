//! With the secrets of a real handshake, as the server logs them: when they are in the client's memory, and when not.

use core::time::Duration;
use std::sync::Arc;

use device::crypto::{CipherSuite, Secret, Software, hkdf};
use device::quic::Event;
use device::tls::{Transport, next_application_secret};
use simulate::wire::Secrets;
use simulate::{Echo, Pair, PairOptions, QuicClient, memory};

const LONG: Duration = Duration::from_secs(100);

/// A connection under test, and where its server puts down the secrets.
struct Told {
    pair: Pair<QuicClient, Echo>,
    secrets: Arc<Secrets>,
    suite: CipherSuite,
}

impl Told {
    fn confirmed(suite: CipherSuite) -> Self {
        memory::scrub_stack();
        let secrets = Arc::new(Secrets::default());
        let mut options = PairOptions::seeded(3);
        options.server.secrets = Some(Arc::clone(&secrets));
        options.client.cipher_suites = vec![suite];
        let mut told = Self { pair: options.build(), secrets, suite };
        told.pair.run_until_connected();
        told.pair.run_until_confirmed();
        told
    }

    /// Which secrets whose label has `what` in it, and which keys made of them, are in the connection's memory.
    fn found(&self, what: &str) -> Vec<String> {
        let memory = memory::of(&*self.pair.client.connection);
        let mut found = Vec::new();
        for (label, bytes) in self.secrets.all().into_iter().filter(|(label, _)| label.contains(what)) {
            let secret = Secret::from_slice(&bytes).expect("as long as a hash");
            let mut look = |name: &str, bytes: &[u8]| {
                if memory.windows(bytes.len()).any(|window| window == bytes) {
                    found.push(format!("{label}: {name}"));
                }
            };
            look("secret", secret.as_bytes());
            for (name, len) in [("key", self.suite.key_len()), ("iv", 12), ("hp", self.suite.key_len())] {
                let mut bytes = memory::Bytes::from(vec![0; len]);
                let label = format!("quic {name}");
                hkdf::expand_label::<Software>(self.suite.hash(), &secret, label.as_bytes(), &[], &mut bytes);
                look(name, &bytes);
            }
            let next = next_application_secret::<Software>(Transport::Quic, self.suite, &secret);
            look("next secret", next.as_bytes());
        }
        found
    }
}

/// Both suites: their keys have different lengths.
fn each_suite(test: impl Fn(Told)) {
    for suite in [CipherSuite::ChaCha20Poly1305Sha256, CipherSuite::Aes128GcmSha256] {
        test(Told::confirmed(suite));
    }
}

#[track_caller]
fn assert_erased_by(end: impl Fn(&mut Pair<QuicClient, Echo>)) {
    each_suite(|mut told| {
        let keys = told.found("TRAFFIC_SECRET_0");
        assert_eq!(keys.len(), 8, "both directions' secret, key, iv and header key: {keys:?}");
        end(&mut told.pair);
        assert!(!told.pair.client.connection.is_active(), "over: {:?}", told.pair.client.events);
        assert_eq!(told.found("SECRET"), [""; 0], "{:?}", told.suite);
    });
}

#[test]
fn a_complete_handshake_leaves_none_of_its_own_secrets() {
    each_suite(|told| {
        assert_eq!(told.secrets.all().iter().filter(|(label, _)| label.contains("HANDSHAKE")).count(), 2);
        assert_eq!(told.found("HANDSHAKE"), [""; 0]);
    });
}

#[test]
fn silence_leaves_no_secrets() {
    assert_erased_by(|pair| {
        pair.run_for(LONG);
        assert!(pair.client.is_closed(), "{:?}", pair.client.events);
    });
}

#[test]
fn a_restarted_server_leaves_no_secrets_of_the_connection_it_forgot() {
    assert_erased_by(|pair| {
        pair.server.restart(pair.now());
        pair.client.connection.ping();
        let reset = |event: &Event| *event == Event::Closed(device::quic::CloseReason::StatelessReset);
        assert!(pair.run_until(LONG, |pair| pair.client.has(reset)), "{:?}", pair.client.events);
    });
}

#[test]
fn a_close_leaves_no_secrets_once_the_closing_period_is_over() {
    assert_erased_by(|pair| {
        let now = pair.now().device();
        pair.client.connection.close(now, 0, "");
        pair.run_for(LONG);
    });
}

#[test]
fn a_connection_that_is_dropped_leaves_no_secrets() {
    assert_erased_by(|pair| pair.client.connection.abandon());
}
