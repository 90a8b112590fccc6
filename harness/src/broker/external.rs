//! A broker that runs somewhere: whether it answers, and what a client has to trust.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, RootCertStore};

use super::BrokerAddresses;
use super::error::BrokerError;
use super::spec::ExternalBroker;
use crate::measure::Transport;
use crate::peer::{Client, ClientOptions, Clock, ConnectError, Connector, Target};
use crate::wire::Version;

/// Longest the broker may take to resolve, shake hands and accept a client.
const PREFLIGHT_LIMIT: Duration = Duration::from_secs(10);

/// What clients of a broker have to trust.
#[derive(Debug, Clone)]
pub struct Trust {
    /// The name its certificate bears.
    pub server_name: String,
    /// The roots to verify against.
    pub roots: RootCertStore,
    /// The one root its chain ends in: what a board is given. `None` without TLS.
    pub anchor: Option<CertificateDer<'static>>,
}

impl Trust {
    /// Trust in these roots; a board gets the first of them.
    #[must_use]
    pub fn in_roots(server_name: &str, certificates: Vec<CertificateDer<'static>>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates.iter().cloned());
        Self { server_name: server_name.to_owned(), roots, anchor: certificates.into_iter().next() }
    }
}

/// A broker that runs somewhere, at one or several addresses.
#[derive(Debug)]
pub(super) struct External {
    pub(super) addresses: BrokerAddresses,
    pub(super) trust: Trust,
}

impl External {
    /// Checks that each address answers as an MQTT broker. Its certificate has to bear `server_name`, or the
    /// host name it is reached by.
    pub(super) async fn reach(
        listeners: &[ExternalBroker],
        server_name: Option<&str>,
    ) -> Result<Self, BrokerError> {
        let mut external = Self {
            addresses: BrokerAddresses::default(),
            trust: Trust { server_name: String::new(), roots: RootCertStore::empty(), anchor: None },
        };
        for listener in listeners {
            external.reach_one(listener, server_name.unwrap_or(&listener.host)).await?;
        }
        Ok(external)
    }

    async fn reach_one(&mut self, listener: &ExternalBroker, name: &str) -> Result<(), BrokerError> {
        let address = resolve(listener).await?;
        let candidates = match (listener.transport, &listener.ca) {
            (Transport::Tcp, _) => Vec::new(),
            (_, Some(path)) => read_certificates(path)?,
            (_, None) => system_roots(),
        };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(candidates.iter().cloned());
        if listener.transport != Transport::Tcp && roots.is_empty() {
            return Err(BrokerError::UnknownAuthority {
                url: listener.to_string(),
                reason: "there is no root on this machine to check it against".into(),
            });
        }
        let target = Target::new(listener.transport, address, name, roots.clone());
        let chain = preflight(listener, target).await?;
        let slot = match listener.transport {
            Transport::Quic => &mut self.addresses.quic,
            Transport::Tls => &mut self.addresses.tls,
            Transport::Tcp => &mut self.addresses.tcp,
        };
        *slot = Some(address);
        if listener.transport != Transport::Tcp {
            let anchor = candidates.into_iter().find(|root| vouches(root, &chain, name));
            self.trust = Trust { server_name: name.to_owned(), roots, anchor };
        } else if self.trust.server_name.is_empty() {
            name.clone_into(&mut self.trust.server_name);
        }
        Ok(())
    }
}

async fn resolve(listener: &ExternalBroker) -> Result<SocketAddr, BrokerError> {
    let failed = |reason: String| BrokerError::Resolve { host: listener.host.clone(), reason };
    let lookup = tokio::net::lookup_host((listener.host.as_str(), listener.port));
    let mut found = tokio::time::timeout(PREFLIGHT_LIMIT, lookup)
        .await
        .map_err(|_| failed("the resolver does not answer".into()))?
        .map_err(|error| failed(error.to_string()))?;
    found.next().ok_or_else(|| failed("it has no address".into()))
}

/// Every certificate of a PEM file.
pub(crate) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, BrokerError> {
    let bytes = std::fs::read(path).map_err(|source| BrokerError::File {
        what: "reading the root certificate",
        path: path.to_owned(),
        source,
    })?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&bytes).filter_map(Result::ok).collect();
    if certificates.is_empty() {
        return Err(BrokerError::NoCertificate(path.to_owned()));
    }
    Ok(certificates)
}

/// The roots this machine trusts; those it cannot read do not count.
fn system_roots() -> Vec<CertificateDer<'static>> {
    rustls_native_certs::load_native_certs().certs
}

/// Connects as an MQTT client once; yields the chain the broker presented.
async fn preflight(
    listener: &ExternalBroker,
    target: Target,
) -> Result<Vec<CertificateDer<'static>>, BrokerError> {
    let name = target.server_name.clone();
    let translate = |error| translate(listener, &name, error);
    let connector = Arc::new(Connector::new(target).map_err(translate)?);
    connect_once(Arc::clone(&connector), PREFLIGHT_LIMIT).await.map_err(translate)?;
    Ok(connector.presented_chain())
}

/// Connects as an MQTT client once, without asking what the broker presented.
pub(super) async fn preflight_connect(target: Target, limit: Duration) -> Result<(), ConnectError> {
    connect_once(Arc::new(Connector::new(target)?), limit).await
}

/// The chain that the broker presents, whether or not it is one to trust.
pub(super) async fn presented(
    target: Target,
    limit: Duration,
) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let connector = Arc::new(Connector::new(target)?);
    let connected = connect_once(Arc::clone(&connector), limit).await;
    let chain = connector.presented_chain();
    if chain.is_empty() { connected.map(|()| chain) } else { Ok(chain) }
}

async fn connect_once(connector: Arc<Connector>, limit: Duration) -> Result<(), ConnectError> {
    // Of its own: another harness at this broker may ask at the same moment.
    let name = format!("harness-preflight-{:08x}", crate::run::token());
    let mut options = ClientOptions::new(Version::V5, &name);
    options.connect_limit = limit;
    let (events, _) = tokio::sync::mpsc::unbounded_channel();
    let client = Client::start(connector, options, Clock::start(), events);
    let connected = client.connected().await;
    client.disconnect().await;
    connected.map(|_| ())
}

/// A failed attempt as a fault of the environment, with its remedy.
fn translate(listener: &ExternalBroker, name: &str, error: ConnectError) -> BrokerError {
    let url = listener.to_string();
    let reason = error.to_string();
    match error {
        ConnectError::Certificate(reason) => certificate_error(url, name, &reason),
        ConnectError::Alpn => BrokerError::AlpnRefused { url },
        ConnectError::Network(_) | ConnectError::TimedOut(_) => BrokerError::Unreachable { url, reason },
        ConnectError::Refused(_) | ConnectError::Closed { .. } => BrokerError::Refused { url, reason },
        ConnectError::Handshake { .. } | ConnectError::Settings(_) => BrokerError::Handshake { url, reason },
    }
}

fn certificate_error(url: String, host: &str, reason: &CertificateError) -> BrokerError {
    use CertificateError as C;
    let told = reason.to_string();
    match reason {
        C::NotValidForName | C::NotValidForNameContext { .. } => {
            BrokerError::WrongHost { url, host: host.to_owned(), reason: told }
        }
        C::Expired | C::ExpiredContext { .. } | C::NotValidYet | C::NotValidYetContext { .. } => {
            BrokerError::NotValidNow { url, reason: told }
        }
        C::UnknownIssuer | C::BadSignature => BrokerError::UnknownAuthority { url, reason: told },
        _ => BrokerError::Handshake { url, reason: told },
    }
}

/// Whether this one root is enough to verify the chain.
fn vouches(root: &CertificateDer<'static>, chain: &[CertificateDer<'static>], name: &str) -> bool {
    let verified = || {
        let mut store = RootCertStore::empty();
        store.add(root.clone()).ok()?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider).build().ok()?;
        let (leaf, intermediates) = chain.split_first()?;
        let name = ServerName::try_from(name).ok()?;
        verifier.verify_server_cert(leaf, intermediates, &name, &[], UnixTime::now()).ok()
    };
    verified().is_some()
}
