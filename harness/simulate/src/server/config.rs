//! What quinn-proto and rustls are told to behave like that: keys, tokens, clocks, limits.

use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use quinn_proto::crypto::rustls::QuicServerConfig;
use quinn_proto::{
    ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, ServerConfig, TokenLog, TokenReuseError,
    TransportConfig, ValidationTokenConfig,
};
use rustls::pki_types::UnixTime;
use rustls::server::WebPkiClientVerifier;

use super::ServerOptions;
use crate::seeded::SeededRandom;
use crate::{Clock, Random, Seeded};

/// The wall clock of a simulation, as rustls and quinn ask for it.
#[derive(Debug, Default)]
pub(super) struct Wall(AtomicU64);

impl Wall {
    pub(super) fn set(&self, now: Clock) {
        self.0.store(now.unix_s(), Ordering::Relaxed);
    }

    fn since_1970(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }
}

impl rustls::time_provider::TimeProvider for Wall {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.since_1970()))
    }
}

#[derive(Debug)]
struct QuinnWall(Arc<Wall>);

impl quinn_proto::TimeSource for QuinnWall {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.0.since_1970()
    }
}

/// Connection identifiers that follow from the seed. Any identifier may have been one of an earlier life of the
/// server, so unknown ones are answered by a stateless reset.
struct SeededIds(Random);

impl ConnectionIdGenerator for SeededIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.0.array::<8>())
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

pub(super) fn endpoint(
    options: &ServerOptions,
    config: &Arc<ServerConfig>,
    seed: u64,
    restart: u64,
) -> Endpoint {
    let life = if options.keeps_reset_key { 0 } else { restart as u8 };
    let reset_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &[0x5a ^ life; 32]);
    let mut endpoint_config = EndpointConfig::new(Arc::new(reset_key));
    endpoint_config.rng_seed(Some(Random::new(seed, 1_000 + restart).array()));
    endpoint_config.cid_generator(move || Box::new(SeededIds(Random::new(seed, 2_000 + restart))));
    if !options.versions.is_empty() {
        endpoint_config.supported_versions(options.versions.clone());
    }
    Endpoint::new(Arc::new(endpoint_config), Some(config.clone()), true, None)
}

pub(super) fn server_config(
    options: &ServerOptions,
    wall: &Arc<Wall>,
    sessions: &Arc<dyn rustls::server::StoresServerSessions>,
) -> ServerConfig {
    let seeded = options.seeded.as_ref().map(Seeded::provider);
    let mut provider = seeded
        .or_else(|| options.randomness.as_ref().map(SeededRandom::provider))
        .unwrap_or_else(rustls::crypto::ring::default_provider);
    let initial = provider.cipher_suites.iter().find_map(|suite| match suite.suite() {
        rustls::CipherSuite::TLS13_AES_128_GCM_SHA256 => suite.tls13()?.quic_suite(),
        _ => None,
    });
    if !options.cipher_suites.is_empty() {
        provider.cipher_suites.retain(|suite| options.cipher_suites.contains(&suite.suite()));
    }
    if !options.groups.is_empty() {
        provider.kx_groups.retain(|group| options.groups.contains(&group.name()));
    }
    let provider = Arc::new(provider);
    let verifier =
        options.client_identity.as_ref().map_or_else(WebPkiClientVerifier::no_client_auth, |identity| {
            let mut roots = rustls::RootCertStore::empty();
            roots.roots.extend(identity.anchors.iter().cloned());
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .expect("there is a root")
        });
    let builder = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring speaks TLS 1.3")
        .with_client_cert_verifier(verifier);
    let mut tls = match &options.seeded {
        Some(seeded) => builder.with_cert_resolver(seeded.resolver()),
        None => builder
            .with_single_cert(options.identity.chain.clone(), options.identity.key())
            .expect("the identity's key fits its certificate"),
    };
    tls.alpn_protocols.clone_from(&options.alpn);
    tls.max_early_data_size = if options.early_data { u32::MAX } else { 0 };
    tls.send_tls13_tickets = options.tickets;
    tls.session_storage = sessions.clone();
    tls.time_provider = wall.clone();
    if let Some(secrets) = &options.secrets {
        tls.key_log = secrets.clone();
    }
    let crypto =
        QuicServerConfig::with_initial(Arc::new(tls), initial.expect("ring has AES-128-GCM for QUIC"))
            .expect("Initial packets are protected by AES-128-GCM");
    let token_key = ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, &[]).extract(&[0xa5; 64]);
    let mut config = ServerConfig::new(Arc::new(crypto), Arc::new(token_key));
    config.migration(options.migration);
    config.time_source(Arc::new(QuinnWall(wall.clone())));
    let mut tokens = ValidationTokenConfig::default();
    tokens.sent(1).log(Arc::new(UsedTokens::default()));
    config.validation_token_config(tokens);
    config.transport_config(Arc::new(transport(options)));
    config
}

/// Remembers each token that was used: none is good twice (RFC 9000 8.1.4).
#[derive(Debug, Default)]
struct UsedTokens(Mutex<BTreeSet<u128>>);

impl TokenLog for UsedTokens {
    fn check_and_insert(&self, nonce: u128, _: SystemTime, _: Duration) -> Result<(), TokenReuseError> {
        let mut used = self.0.lock().expect("no panic while it is held");
        if used.insert(nonce) { Ok(()) } else { Err(TokenReuseError) }
    }
}

fn transport(options: &ServerOptions) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(options.stream_window.into())
        .receive_window(options.connection_window.into())
        .max_concurrent_bidi_streams(options.streams.into())
        .max_concurrent_uni_streams(0_u32.into())
        .send_window(options.send_window)
        .max_idle_timeout(options.idle_timeout.try_into().ok())
        .keep_alive_interval(options.keep_alive)
        .enable_segmentation_offload(false)
        .datagram_receive_buffer_size(None);
    if options.mtu_max > 1200 {
        let mut discovery = quinn_proto::MtuDiscoveryConfig::default();
        discovery.upper_bound(options.mtu_max);
        transport.mtu_discovery_config(Some(discovery));
    } else {
        transport.mtu_discovery_config(None);
    }
    transport
}
