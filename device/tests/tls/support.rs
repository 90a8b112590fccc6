//! A certificate authority, a rustls server without I/O, and the loop that joins it with the client.

use device::codec::Writer;
use device::crypto::{CipherSuite, Software};
use device::entropy::Entropy;
use device::tls::{Config, EarlyData, Error, Handshake, Level, Secret, Step, Ticket, TrustAnchor};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::quic::{KeyChange, ServerConnection, Version};
use rustls::server::WebPkiClientVerifier;
use rustls::{ServerConfig, SupportedProtocolVersion};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

pub(crate) const NAME: &str = "broker.example";
pub(crate) const ALPN: &[u8] = b"mqtt";
pub(crate) const CLIENT_PARAMETERS: &[u8] = b"client transport parameters";
pub(crate) const SERVER_PARAMETERS: &[u8] = b"server transport parameters";

/// Deterministic randomness: SplitMix64.
pub(crate) struct Seeded(pub(crate) u64);

impl Entropy for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            *byte = (z ^ (z >> 31)) as u8;
        }
    }
}

/// Seconds since 1970, now: the certificates of these tests are made now.
pub(crate) fn now_s() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("the clock is past 1970")
        .as_secs()
}

/// A chain leaf - intermediate - root.
pub(crate) struct Authority {
    root: CertificateDer<'static>,
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

impl Authority {
    /// A chain in which every key is of the kind of `algorithm`.
    pub(crate) fn new(algorithm: &'static rcgen::SignatureAlgorithm) -> Self {
        Self::with_leaf(algorithm, |_| {})
    }

    /// The same, with a leaf adjusted by `adjust`.
    pub(crate) fn with_leaf(
        algorithm: &'static rcgen::SignatureAlgorithm,
        adjust: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        Self::build(|| KeyPair::generate_for(algorithm).expect("a key"), "test root", |_| {}, adjust)
    }

    /// The same, with an intermediate adjusted by `adjust`.
    pub(crate) fn with_intermediate(
        algorithm: &'static rcgen::SignatureAlgorithm,
        adjust: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        Self::build(|| KeyPair::generate_for(algorithm).expect("a key"), "test root", adjust, |_| {})
    }

    /// A chain in which every key is the given one, in PKCS#8.
    #[cfg(feature = "rsa")]
    pub(crate) fn with_key(pkcs8: &[u8]) -> Self {
        Self::build(|| KeyPair::try_from(pkcs8).expect("a supported key"), "test root", |_| {}, |_| {})
    }

    /// A chain whose root has another name than that of the others.
    pub(crate) fn with_root_name(algorithm: &'static rcgen::SignatureAlgorithm, name: &str) -> Self {
        Self::build(|| KeyPair::generate_for(algorithm).expect("a key"), name, |_| {}, |_| {})
    }

    fn build(
        new_key: impl Fn() -> KeyPair,
        root_name: &str,
        adjust_intermediate: impl FnOnce(&mut CertificateParams),
        adjust_leaf: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let root_key = new_key();
        let root_params = ca_params(root_name);
        let root = root_params.self_signed(&root_key).expect("a root");
        let root_issuer = Issuer::from_params(&root_params, &root_key);

        let middle_key = new_key();
        let mut middle_params = ca_params("test intermediate");
        adjust_intermediate(&mut middle_params);
        let middle = middle_params.signed_by(&middle_key, &root_issuer).expect("an intermediate");
        let middle_issuer = Issuer::from_params(&middle_params, &middle_key);

        let leaf_key = new_key();
        let mut leaf_params = CertificateParams::new(vec![NAME.to_owned()]).expect("a valid name");
        leaf_params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf_params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        adjust_leaf(&mut leaf_params);
        let leaf = leaf_params.signed_by(&leaf_key, &middle_issuer).expect("a leaf");
        Self {
            root: root.der().clone(),
            chain: vec![leaf.der().clone(), middle.der().clone()],
            key: leaf_key.serialize_der(),
        }
    }

    pub(crate) fn anchor(&self) -> TrustAnchor<'_> {
        webpki_anchor(&self.root)
    }

    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The P-256 scalar of the leaf's key.
    pub(crate) fn private_scalar(&self) -> [u8; 32] {
        // PKCS#8 around SEC 1: the scalar follows the version and the octet string's header.
        let marker = [0x02, 0x01, 0x01, 0x04, 0x20];
        let start = self.key.windows(5).position(|bytes| bytes == marker).expect("a P-256 key") + 5;
        self.key[start..start + 32].try_into().expect("32 bytes")
    }

    /// A server that demands a client certificate of `clients`.
    pub(crate) fn server_asking_for(&self, clients: &Self) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(clients.root.clone()).expect("a root");
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has TLS 1.3 suites")
            .with_client_cert_verifier(verifier.build().expect("a verifier"))
            .with_single_cert(self.chain.clone(), self.key())
            .expect("the key fits the certificate");
        config.alpn_protocols = vec![ALPN.to_vec()];
        config
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.clone()).expect("rcgen writes PKCS#8")
    }

    /// A server configuration for QUIC with ALPN, and the log of its secrets.
    pub(crate) fn server(&self) -> (ServerConfig, Arc<SecretLog>) {
        self.server_with(rustls::crypto::ring::default_provider())
    }

    pub(crate) fn server_with(
        &self,
        provider: rustls::crypto::CryptoProvider,
    ) -> (ServerConfig, Arc<SecretLog>) {
        let versions: &[&'static SupportedProtocolVersion] = &[&rustls::version::TLS13];
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .expect("the provider has TLS 1.3 suites")
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key())
            .expect("the key fits the certificate");
        let log = Arc::new(SecretLog::default());
        config.key_log = log.clone();
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.max_early_data_size = u32::MAX;
        (config, log)
    }
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params
}

fn webpki_anchor<'a>(root: &'a CertificateDer<'_>) -> TrustAnchor<'a> {
    webpki::anchor_from_trusted_cert(root).expect("rcgen writes valid certificates").to_owned()
}

/// The secrets a rustls server logs, by label.
#[derive(Debug, Default)]
pub(crate) struct SecretLog(Mutex<HashMap<String, Vec<u8>>>);

impl SecretLog {
    pub(crate) fn secret(&self, label: &str) -> Vec<u8> {
        self.0.lock().expect("no test panics while logging").get(label).cloned().unwrap_or_default()
    }
}

impl rustls::KeyLog for SecretLog {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        self.0.lock().expect("no test panics while logging").insert(label.to_owned(), secret.to_owned());
    }
}

/// What a completed handshake left behind.
pub(crate) struct Completed {
    pub(crate) handshake: Handshake<Software>,
    pub(crate) suite: CipherSuite,
    pub(crate) handshake_secrets: (Secret, Secret),
    pub(crate) application_secrets: (Secret, Secret),
    pub(crate) early_secret: Option<Secret>,
    pub(crate) early_data_accepted: bool,
    pub(crate) retried: bool,
    pub(crate) tickets: Vec<Ticket>,
    pub(crate) server: ServerConnection,
}

/// Runs a QUIC handshake to its end.
pub(crate) fn connect(config: &Config<'_>, server: ServerConfig) -> Result<Completed, Error> {
    connect_with(config, server, EarlyData::Omit, 1)
}

pub(crate) fn connect_with(
    config: &Config<'_>,
    server: ServerConfig,
    early_data: EarlyData,
    seed: u64,
) -> Result<Completed, Error> {
    let parameters = SERVER_PARAMETERS.to_vec();
    let mut server = ServerConnection::new(Arc::new(server), Version::V1, parameters).expect("a QUIC server");
    let mut entropy = Seeded(seed);
    let mut buffer = vec![0; 4096];
    let mut out = Writer::new(&mut buffer);
    let mut client =
        Handshake::<Software>::start(config, &mut entropy, Some(CLIENT_PARAMETERS), early_data, &mut out)?;
    let early_secret = client.early_secret().map(|(_, secret)| secret.clone());
    let mut hello = out.written().to_vec();

    let mut level = Level::Initial;
    let mut suite = None;
    let mut handshake_secrets = None;
    let mut application_secrets = None;
    let mut accepted = false;
    let mut retried = false;
    let mut tickets = Vec::new();
    loop {
        if !hello.is_empty() {
            server.read_hs(&hello).unwrap_or_else(|error| panic!("the server refuses {hello:02x?}: {error}"));
            hello.clear();
        }
        let mut flight = Vec::new();
        let change = server.write_hs(&mut flight);
        if flight.is_empty() && change.is_none() {
            break;
        }
        for message in split(&flight) {
            let mut buffer = vec![0; 4096];
            let mut out = Writer::new(&mut buffer);
            match client.handle_message(config, &mut entropy, level, message, &mut out)? {
                Step::Continue | Step::CertificateVerified => {}
                Step::SecondClientHello => retried = true,
                Step::HandshakeKeys { suite: chosen, client, server } => {
                    suite = Some(chosen);
                    handshake_secrets = Some((client, server));
                }
                Step::EncryptedExtensions { transport_parameters, early_data_accepted, .. } => {
                    assert_eq!(transport_parameters, Some(SERVER_PARAMETERS));
                    accepted = early_data_accepted;
                }
                Step::Complete { client, server, .. } => application_secrets = Some((client, server)),
                Step::Ticket(ticket) => {
                    tickets.push(ticket.to_ticket().expect("a ticket of rustls is short"));
                }
            }
            hello.extend_from_slice(out.written());
        }
        match change {
            Some(KeyChange::Handshake { .. }) => level = Level::Handshake,
            Some(KeyChange::OneRtt { .. }) => level = Level::Application,
            None => {}
        }
    }
    Ok(Completed {
        handshake: client,
        suite: suite.expect("a ServerHello came"),
        handshake_secrets: handshake_secrets.expect("a ServerHello came"),
        application_secrets: application_secrets.expect("a Finished came"),
        early_secret,
        early_data_accepted: accepted,
        retried,
        tickets,
        server,
    })
}

/// The handshake messages in `bytes`.
pub(crate) fn split(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while let [_, a, b, c, ..] = *bytes {
        let (message, rest) = bytes.split_at(4 + u32::from_be_bytes([0, a, b, c]) as usize);
        messages.push(message);
        bytes = rest;
    }
    assert!(bytes.is_empty(), "rustls writes whole messages");
    messages
}
