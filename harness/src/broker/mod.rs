//! The broker of a run: embedded, in Docker, or running elsewhere.

mod ability;
mod docker;
mod embedded;
mod emqx;
mod error;
mod event;
mod external;
mod fault;
mod options;
mod spec;

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use self::docker::Containerized;
pub use self::docker::{DockerEngine, docker_engine};
use self::embedded::Embedded;
pub use self::emqx::client_ca_setting;
pub use self::error::BrokerError;
pub use self::event::{BrokerEvent, BrokerEventKind, EventLog};
use self::external::External;
pub use self::external::Trust;
pub(crate) use self::external::read_certificates;
pub use self::fault::{Fault, SessionState};
pub use self::options::{
    AddressValidation, BrokerOptions, ClientAuthentication, Credentials, Durability, EarlyData, Limits,
    Overload, Ports, StreamCredit,
};
pub use self::spec::{BrokerSpec, EMQX_TAG, ExternalBroker, SpecError, default_port, scheme};
use crate::certificates::{Certificates, SERVER_NAME};
use crate::measure::Transport;
use crate::peer::Target;
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
    /// Product and version; `None` if the harness did not choose them.
    pub version: Option<String>,
    /// The same in words, and how it came to that.
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
    /// Why it is not the one that was wanted first.
    stands_in: Option<String>,
    certificates: Arc<Certificates>,
    events: EventLog,
    kind: Kind,
}

enum Kind {
    Embedded(Box<Embedded>),
    Container(Box<Containerized>),
    External(External),
}

const EMBEDDED_PRODUCT: &str = concat!(
    "embedded broker of harness ",
    env!("CARGO_PKG_VERSION"),
    ": mqtt5 core, quinn endpoint, EMQX stream semantics"
);

/// Root certificate of the standing broker of `docker-compose.yml`, below the folder the command runs in.
pub const COMPOSE_CA: &str = "reports/compose-broker/ca.pem";

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
        let (spec, stands_in) = settle(spec).await;
        let kind = match &spec {
            BrokerSpec::Auto => unreachable!("it was settled"),
            BrokerSpec::Embedded => {
                let embedded = Embedded::start(&certificates, options, events.clone()).await?;
                Kind::Embedded(Box::new(embedded))
            }
            BrokerSpec::External(external) => {
                Kind::External(External::reach(std::slice::from_ref(external), None).await?)
            }
            BrokerSpec::Compose => {
                let standing = |error| BrokerError::Standing(Box::new(error));
                // They are made first.
                read_certificates(Path::new(COMPOSE_CA)).map_err(standing)?;
                let reached = External::reach(&compose_listeners(), Some(SERVER_NAME)).await;
                Kind::External(reached.map_err(standing)?)
            }
            BrokerSpec::Emqx { .. } | BrokerSpec::Docker { .. } => {
                let container = Containerized::start(&spec, &certificates, options).await?;
                Kind::Container(Box::new(container))
            }
        };
        Ok(Self { spec, stands_in, certificates, events, kind })
    }

    /// Where its listeners are.
    #[must_use]
    pub fn addresses(&self) -> BrokerAddresses {
        match &self.kind {
            Kind::Embedded(embedded) => embedded.addresses(),
            Kind::Container(container) => container.addresses(),
            Kind::External(external) => external.addresses,
        }
    }

    /// What its clients have to trust.
    #[must_use]
    pub fn trust(&self) -> Trust {
        match &self.kind {
            Kind::Embedded(_) | Kind::Container(_) => Trust {
                server_name: SERVER_NAME.to_owned(),
                roots: self.certificates.trust(),
                anchor: Some(self.certificates.root().clone()),
            },
            Kind::External(external) => external.trust.clone(),
        }
    }

    /// How a client of the harness reaches it over `transport`, if it serves that.
    #[must_use]
    pub fn target(&self, transport: Transport) -> Option<Target> {
        let trust = self.trust();
        let address = self.addresses().get(transport)?;
        Some(Target::new(transport, address, &trust.server_name, trust.roots))
    }

    /// Which broker this is, for the report.
    #[must_use]
    pub fn describe(&self) -> BrokerDescription {
        let (version, image_digest) = match &self.kind {
            Kind::Embedded(_) => (Some(EMBEDDED_PRODUCT.to_owned()), None),
            Kind::Container(container) => (Some(container.product()), container.digest().map(str::to_owned)),
            Kind::External(_) => (None, None),
        };
        let product = match (&version, &self.stands_in) {
            (Some(version), Some(why)) => format!("{version}; in place of EMQX: {why}"),
            (Some(version), None) => version.clone(),
            (None, _) => format!("the broker at {}, which the harness did not start", self.spec),
        };
        let (spec, addresses) = (self.spec.to_string(), self.addresses());
        BrokerDescription { spec, version, product, image_digest, addresses }
    }

    /// Why it is not EMQX although that was wanted first; `None` if it is what was asked for.
    #[must_use]
    pub fn stands_in(&self) -> Option<&str> {
        self.stands_in.as_deref()
    }

    /// What the broker itself wrote, if it is one that writes: a container's log.
    #[must_use]
    pub fn log(&self) -> Option<String> {
        match &self.kind {
            Kind::Container(container) => Some(container.log()),
            Kind::Embedded(_) | Kind::External(_) => None,
        }
    }

    /// Why it no longer serves although nobody told it to stop; `None` if it does, or does not tell.
    pub async fn lost(&self) -> Option<BrokerError> {
        match &self.kind {
            Kind::Container(container) => container.lost().await,
            Kind::Embedded(_) | Kind::External(_) => None,
        }
    }

    /// Resolves when it no longer serves although nobody told it to stop, as far as that can be noticed at once: with a
    /// container. [`Self::lost`] then says why.
    pub fn loss(&self) -> impl Future<Output = ()> + Send + use<> {
        let loss = match &self.kind {
            Kind::Container(container) => Some(container.loss()),
            Kind::Embedded(_) | Kind::External(_) => None,
        };
        async move {
            match loss {
                Some(loss) => loss.await,
                None => std::future::pending().await,
            }
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

    /// Whether [`Self::events`] tells of every handshake that failed, with the client's alert.
    #[must_use]
    pub fn tells_handshakes(&self) -> bool {
        matches!(self.kind, Kind::Embedded(_))
    }

    /// Client identifiers of the clients it serves right now; empty if it does not say.
    #[must_use]
    pub fn client_ids(&self) -> Vec<String> {
        match &self.kind {
            Kind::Embedded(embedded) => embedded.client_ids(),
            Kind::Container(_) | Kind::External(_) => Vec::new(),
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
                Fault::Kick { client_id } => embedded.kick(client_id, reason::ADMINISTRATIVE_ACTION),
                Fault::Limit(limits) => embedded.limit(*limits),
                Fault::RotateCertificate(flaw) => embedded.rotate_certificate(&self.certificates, *flaw),
                Fault::DropUdp => embedded.set_udp_dropped(true),
                Fault::PassUdp => embedded.set_udp_dropped(false),
            },
            Kind::Container(container) => container.apply(fault, &self.certificates).await,
            Kind::External(_) => {
                Err(BrokerError::FaultUnsupported { broker: self.spec.to_string(), fault: fault.to_string() })
            }
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
            Kind::Container(container) => container.remove().await,
            Kind::External(_) => {}
        }
    }
}

/// Removes what runs that were killed left in Docker, if an engine answers soon; says nothing where there is none.
/// Containers of runs that live are left alone. For the beginning of a run, whatever its broker.
pub async fn sweep_leftovers() {
    docker::sweep_quickly().await;
}

/// What `auto` comes to on this machine, and why if it is not EMQX.
pub(crate) async fn settle(spec: BrokerSpec) -> (BrokerSpec, Option<String>) {
    if spec != BrokerSpec::Auto {
        return (spec, None);
    }
    match docker::emqx_missing().await {
        None => (BrokerSpec::Emqx { tag: EMQX_TAG.to_owned() }, None),
        Some(why) => (BrokerSpec::Embedded, Some(why)),
    }
}

/// Where `docker-compose.yml` publishes its broker; TCP first, which says at once when nobody listens.
fn compose_listeners() -> Vec<ExternalBroker> {
    Transport::ALL
        .into_iter()
        .rev()
        .map(|transport| ExternalBroker {
            transport,
            host: "127.0.0.1".into(),
            port: default_port(transport),
            ca: Some(COMPOSE_CA.into()),
        })
        .collect()
}
