//! The broker of a run: embedded, in Docker, or running elsewhere.

mod embedded;
mod error;
mod event;
mod fault;
mod options;
mod spec;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use self::embedded::Embedded;
pub use self::error::BrokerError;
pub use self::event::{BrokerEvent, BrokerEventKind, EventLog};
pub use self::fault::{Fault, SessionState};
pub use self::options::{
    AddressValidation, BrokerOptions, ClientAuthentication, EarlyData, Limits, Overload, Ports, StreamCredit,
};
pub use self::spec::{BrokerSpec, EMQX_TAG, ExternalBroker, SpecError, default_port, scheme};
use crate::certificates::Certificates;
use crate::measure::Transport;
use crate::wire::reason;

/// Where a broker's listeners are; `None` for a transport it does not serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct BrokerAddresses {
    /// UDP, for QUIC.
    pub quic: Option<SocketAddr>,
    /// TCP, for TLS.
    pub tls: Option<SocketAddr>,
    /// TCP, plain.
    pub tcp: Option<SocketAddr>,
}

impl BrokerAddresses {
    /// The address for one transport.
    #[must_use]
    pub fn get(&self, transport: Transport) -> Option<SocketAddr> {
        match transport {
            Transport::Quic => self.quic,
            Transport::Tls => self.tls,
            Transport::Tcp => self.tcp,
        }
    }

    /// The transports that are served, with their addresses.
    pub fn iter(&self) -> impl Iterator<Item = (Transport, SocketAddr)> + '_ {
        Transport::ALL.into_iter().filter_map(|transport| Some((transport, self.get(transport)?)))
    }
}

/// Which broker ran, for the report.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BrokerDescription {
    /// As it is named on the command line.
    pub spec: String,
    /// Product and version, in words.
    pub product: String,
    /// Digest of the Docker image, where there is one.
    pub image_digest: Option<String>,
    /// Its listeners.
    pub addresses: BrokerAddresses,
}

impl fmt::Display for BrokerDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.spec, self.product)
    }
}

/// A broker that serves a run.
pub struct Broker {
    spec: BrokerSpec,
    certificates: Arc<Certificates>,
    events: EventLog,
    kind: Kind,
}

enum Kind {
    Embedded(Box<Embedded>),
}

impl Broker {
    /// Starts the broker, or checks that it answers if it runs already.
    ///
    /// # Errors
    /// When it cannot be started or reached; each error names its remedy.
    pub async fn start(
        spec: BrokerSpec,
        certificates: Arc<Certificates>,
        options: BrokerOptions,
    ) -> Result<Self, BrokerError> {
        let events = EventLog::default();
        let kind = match &spec {
            BrokerSpec::Embedded => {
                let embedded = Embedded::start(&certificates, options, events.clone()).await?;
                Kind::Embedded(Box::new(embedded))
            }
            other => {
                return Err(BrokerError::FaultUnsupported {
                    broker: other.to_string(),
                    fault: "start".into(),
                });
            }
        };
        Ok(Self { spec, certificates, events, kind })
    }

    /// Where its listeners are.
    #[must_use]
    pub fn addresses(&self) -> BrokerAddresses {
        match &self.kind {
            Kind::Embedded(embedded) => embedded.addresses(),
        }
    }

    /// Which broker this is, for the report.
    #[must_use]
    pub fn describe(&self) -> BrokerDescription {
        let product = match &self.kind {
            Kind::Embedded(_) => concat!(
                "embedded broker of harness ",
                env!("CARGO_PKG_VERSION"),
                ": mqtt5 core, quinn endpoint, EMQX stream semantics"
            ),
        };
        BrokerDescription {
            spec: self.spec.to_string(),
            product: product.to_owned(),
            image_digest: None,
            addresses: self.addresses(),
        }
    }

    /// The run's certificates.
    #[must_use]
    pub fn certificates(&self) -> &Arc<Certificates> {
        &self.certificates
    }

    /// What it did so far.
    #[must_use]
    pub fn events(&self) -> &EventLog {
        &self.events
    }

    /// Client identifiers of the clients it serves right now; empty if it does not say.
    #[must_use]
    pub fn client_ids(&self) -> Vec<String> {
        match &self.kind {
            Kind::Embedded(embedded) => embedded.client_ids(),
        }
    }

    /// Acts out a fault, and returns once it is in effect.
    ///
    /// # Errors
    /// When this kind of broker cannot act it out, or not in its present state.
    pub async fn apply(&mut self, fault: &Fault) -> Result<(), BrokerError> {
        self.events.record(BrokerEventKind::Fault { fault: fault.to_string() });
        match &mut self.kind {
            Kind::Embedded(embedded) => match fault {
                Fault::Stop => embedded.stop().await,
                Fault::Kill => embedded.kill().await,
                Fault::Start(sessions) => embedded.start_again(*sessions).await,
                Fault::Freeze => embedded.freeze(),
                Fault::Resume => embedded.resume(),
                Fault::Kick { client_id } => {
                    embedded.kick(client_id, reason::ADMINISTRATIVE_ACTION).map(|_| ())
                }
                Fault::Limit(limits) => embedded.limit(*limits),
                Fault::RotateCertificate(flaw) => embedded.rotate_certificate(&self.certificates, *flaw),
                Fault::DropUdp => embedded.set_udp_dropped(true),
                Fault::PassUdp => embedded.set_udp_dropped(false),
            },
        }
    }

    /// Ends the broker if it is the run's own, and leaves nothing of it behind.
    pub async fn shut_down(mut self) {
        match &mut self.kind {
            Kind::Embedded(embedded) => {
                if embedded.stop().await.is_err() {
                    // Frozen brokers are killed; one that is down already has nothing left.
                    let _ = embedded.kill().await;
                }
            }
        }
    }
}
