//! The server side of TLS, for QUIC and for TCP.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{self, cipher_suite};
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::{KeyLog, RootCertStore, ServerConfig};

use crate::broker::error::BrokerError;
use crate::broker::options::{BrokerOptions, ClientAuthentication, EarlyData};
use crate::certificates::Identity;

/// The application protocol of MQTT, over QUIC and over TLS alike.
pub(in crate::broker) const ALPN: &[u8] = b"mqtt";

/// Session tickets remembered. Each is good for one resumption; a fleet of a few thousand boards fits.
const TICKETS_MAX: usize = 8 * 1024;

/// What both listeners need to make their configuration.
pub(super) struct TlsInput<'a> {
    pub(super) identity: &'a Identity,
    pub(super) client_roots: &'a RootCertStore,
    pub(super) options: &'a BrokerOptions,
    pub(super) key_log: Option<Arc<KeyLogFile>>,
}

/// The configuration of one listener. Each call starts with no tickets, as a restarted broker does.
pub(super) fn server_config(input: &TlsInput<'_>, for_quic: bool) -> Result<ServerConfig, BrokerError> {
    let provider = Arc::new(provider());
    let versions: &[_] = if for_quic {
        &[&rustls::version::TLS13]
    } else {
        &[&rustls::version::TLS13, &rustls::version::TLS12]
    };
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions)?;
    let builder = match input.options.client_authentication {
        ClientAuthentication::None => builder.with_no_client_auth(),
        ClientAuthentication::Required => {
            let roots = Arc::new(input.client_roots.clone());
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                .build()
                .expect("the run's authority has a root");
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(input.identity.chain.clone(), input.identity.key())?;
    config.ignore_client_order = true;
    config.session_storage = ServerSessionMemoryCache::new(TICKETS_MAX);
    config.send_tls13_tickets = 1;
    if for_quic {
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.max_early_data_size = match input.options.early_data {
            EarlyData::Accept => u32::MAX,
            EarlyData::Reject => 0,
        };
    }
    if let Some(key_log) = &input.key_log {
        config.key_log = Arc::clone(key_log) as Arc<dyn KeyLog>;
    }
    Ok(config)
}

/// ring, with the cipher suites in EMQX's order of preference.
fn provider() -> CryptoProvider {
    let mut provider = ring::default_provider();
    let preferred = [
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        cipher_suite::TLS13_AES_128_GCM_SHA256,
    ];
    provider.cipher_suites.retain(|suite| !preferred.contains(suite));
    provider.cipher_suites.splice(0..0, preferred);
    provider
}

/// Appends TLS secrets to a file, one line each, in the format of SSLKEYLOGFILE.
#[derive(Debug)]
pub(super) struct KeyLogFile(Mutex<File>);

impl KeyLogFile {
    pub(super) fn open(path: &Path) -> Result<Self, BrokerError> {
        File::options().create(true).append(true).open(path).map(|file| Self(Mutex::new(file))).map_err(
            |source| BrokerError::File { what: "opening the key log", path: path.to_owned(), source },
        )
    }
}

impl KeyLog for KeyLogFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
        let line = format!("{label} {} {}\n", hex(client_random), hex(secret));
        let mut file = self.0.lock().expect("no holder of this lock panics");
        if let Err(error) = file.write_all(line.as_bytes()) {
            tracing::warn!("the key log cannot be written: {error}");
        }
    }
}
