//! The broker inside this process: a kept routing core behind listeners of ours.
//!
//! Its QUIC listener has EMQX's stream semantics. Where it departs from EMQX:
//! - A data stream is a client of its own to the core, so "no local" does not span the streams of a
//!   connection.
//! - MsQuic's timers for silence and handshake are kept, its congestion control and ACK frequency are quinn's.

mod bridge;
mod core;
mod quic;
mod shared;
mod socket;
mod tcp;
mod tls;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use quinn::Endpoint;
use rustls::RootCertStore;
use tokio::net::TcpListener;

use self::core::{Core, SessionStore};
use self::quic::QuicPolicy;
use self::shared::Shared;
use self::socket::{FaultySocket, Traffic};
use self::tcp::TlsSlot;
use self::tls::{KeyLogFile, TlsInput};
use super::BrokerAddresses;
use super::error::BrokerError;
use super::event::{BrokerEventKind, EventLog};
use super::fault::SessionState;
use super::options::{BrokerOptions, Limits};
use crate::certificates::{Certificates, Flaw, Identity};
use crate::measure::Transport;

/// How long a stopping broker waits for its clients to hear of it.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// How long a port may stay in use after the listener that had it was killed.
const REBIND_LIMIT: Duration = Duration::from_secs(2);
const REBIND_PAUSE: Duration = Duration::from_millis(10);

/// What the broker is doing.
enum State {
    Running(Running),
    Frozen(Running),
    Down,
}

/// The embedded broker.
pub(super) struct Embedded {
    options: BrokerOptions,
    identity: Identity,
    client_roots: RootCertStore,
    key_log: Option<Arc<KeyLogFile>>,
    addresses: BrokerAddresses,
    sessions: SessionStore,
    events: EventLog,
    state: State,
}

/// Its listeners and connections while it is up.
struct Running {
    shared: Arc<Shared>,
    endpoint: Endpoint,
    socket: Arc<FaultySocket>,
    tls: TlsSlot,
}

impl Embedded {
    pub(super) async fn start(
        certificates: &Certificates,
        options: BrokerOptions,
        events: EventLog,
    ) -> Result<Self, BrokerError> {
        let key_log = options.key_log.as_deref().map(KeyLogFile::open).transpose()?;
        let ports = options.ports;
        let sessions = open_sessions(&options).await?;
        let (identity, client_roots) = match &options.credentials {
            Some(own) => (own.identity.clone(), own.client_roots.clone()),
            None => (certificates.server(options.certificate)?, certificates.trust()),
        };
        let mut broker = Self {
            identity,
            client_roots,
            key_log: key_log.map(Arc::new),
            addresses: BrokerAddresses {
                quic: Some(SocketAddr::new(options.bind, ports.quic)),
                tls: Some(SocketAddr::new(options.bind, ports.tls)),
                tcp: Some(SocketAddr::new(options.bind, ports.tcp)),
            },
            options,
            sessions,
            events,
            state: State::Down,
        };
        let running = broker.open(Duration::ZERO).await?;
        broker.state = State::Running(running);
        Ok(broker)
    }

    pub(super) fn addresses(&self) -> BrokerAddresses {
        self.addresses
    }

    /// Opens the listeners, at the ports they had before if there was a before.
    async fn open(&mut self, patience: Duration) -> Result<Running, BrokerError> {
        let socket = bind(Transport::Quic, self.addresses.quic, patience, |address| {
            let socket = UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            FaultySocket::new(socket)
        })
        .await?;
        let tls_listener = bind(Transport::Tls, self.addresses.tls, patience, listen).await?;
        let tcp_listener = bind(Transport::Tcp, self.addresses.tcp, patience, listen).await?;
        let local = |transport, address: io::Result<SocketAddr>| {
            address.map_err(|source| BrokerError::Listen {
                transport,
                address: SocketAddr::new(self.options.bind, 0),
                source,
            })
        };
        self.addresses = BrokerAddresses {
            quic: Some(local(Transport::Quic, quinn::AsyncUdpSocket::local_addr(&*socket))?),
            tls: Some(local(Transport::Tls, tls_listener.local_addr())?),
            tcp: Some(local(Transport::Tcp, tcp_listener.local_addr())?),
        };

        let (quic_tls, tcp_tls) = self.tls_configs()?;
        let endpoint = quic::endpoint(quic::server_config(quic_tls, &self.options), Arc::clone(&socket))
            .map_err(|source| BrokerError::Listen {
                transport: Transport::Quic,
                address: self.addresses.quic.expect("set above"),
                source,
            })?;
        let core =
            Core::start(self.sessions.clone(), self.options.packet_size_max).await.map_err(core_error)?;
        let shared = Arc::new(Shared::new(
            core,
            self.events.clone(),
            self.options.packet_size_max,
            self.options.limits,
        ));
        let tls: TlsSlot = Arc::new(RwLock::new(Arc::new(tcp_tls)));
        let policy = QuicPolicy::of(&self.options);
        shared.spawn(quic::accept_loop(Arc::clone(&shared), endpoint.clone(), policy));
        shared.spawn(tcp::accept_loop(Arc::clone(&shared), tls_listener, Some(Arc::clone(&tls))));
        shared.spawn(tcp::accept_loop(Arc::clone(&shared), tcp_listener, None));
        for (transport, address) in self.addresses.iter() {
            self.events.record(BrokerEventKind::Listening { transport, address });
        }
        Ok(Running { shared, endpoint, socket, tls })
    }

    fn tls_configs(&self) -> Result<(rustls::ServerConfig, rustls::ServerConfig), BrokerError> {
        let input = TlsInput {
            identity: &self.identity,
            client_roots: &self.client_roots,
            options: &self.options,
            key_log: self.key_log.clone(),
        };
        Ok((tls::server_config(&input, true)?, tls::server_config(&input, false)?))
    }

    fn running(&self, fault: &str) -> Result<&Running, BrokerError> {
        match &self.state {
            State::Running(running) | State::Frozen(running) => Ok(running),
            State::Down => Err(out_of_place(fault, "stopped")),
        }
    }

    /// Says goodbye to every client and closes the listeners.
    pub(super) async fn stop(&mut self) -> Result<(), BrokerError> {
        match std::mem::replace(&mut self.state, State::Down) {
            State::Running(running) => {
                running.stop().await;
                Ok(())
            }
            State::Frozen(running) => {
                self.state = State::Frozen(running);
                Err(out_of_place("stop", "frozen"))
            }
            State::Down => Err(out_of_place("stop", "stopped")),
        }
    }

    /// Vanishes, as on SIGKILL: sockets are closed, nothing is said.
    pub(super) async fn kill(&mut self) -> Result<(), BrokerError> {
        match std::mem::replace(&mut self.state, State::Down) {
            State::Running(running) | State::Frozen(running) => {
                running.kill().await;
                Ok(())
            }
            State::Down => Err(out_of_place("be killed", "stopped")),
        }
    }

    /// Comes back at the same ports.
    pub(super) async fn start_again(&mut self, sessions: SessionState) -> Result<(), BrokerError> {
        if !matches!(self.state, State::Down) {
            return Err(out_of_place("start", "running"));
        }
        if sessions == SessionState::Lost {
            self.sessions = open_sessions(&self.options).await?;
        }
        let running = self.open(REBIND_LIMIT).await?;
        self.state = State::Running(running);
        Ok(())
    }

    /// Stops reading and answering, as on SIGSTOP.
    pub(super) fn freeze(&mut self) -> Result<(), BrokerError> {
        match std::mem::replace(&mut self.state, State::Down) {
            State::Running(running) => {
                running.shared.gate.set_frozen(true);
                running.socket.set_traffic(Traffic::Freeze);
                self.state = State::Frozen(running);
                Ok(())
            }
            State::Frozen(running) => {
                self.state = State::Frozen(running);
                Err(out_of_place("freeze", "frozen"))
            }
            State::Down => Err(out_of_place("freeze", "stopped")),
        }
    }

    /// Goes on after [`Self::freeze`].
    pub(super) fn resume(&mut self) -> Result<(), BrokerError> {
        match std::mem::replace(&mut self.state, State::Down) {
            State::Frozen(running) => {
                running.socket.set_traffic(Traffic::Pass);
                running.shared.gate.set_frozen(false);
                self.state = State::Running(running);
                Ok(())
            }
            State::Running(running) => {
                self.state = State::Running(running);
                Err(out_of_place("resume", "running"))
            }
            State::Down => Err(out_of_place("resume", "stopped")),
        }
    }

    pub(super) fn kick(&self, client_id: &str, reason: u8) -> Result<(), BrokerError> {
        match self.running("kick a client")?.shared.kick(client_id, reason) {
            0 => Err(BrokerError::NoSuchClient { client_id: client_id.to_owned() }),
            _ => Ok(()),
        }
    }

    pub(super) fn client_ids(&self) -> Vec<String> {
        match &self.state {
            State::Running(running) | State::Frozen(running) => running.shared.client_ids(),
            State::Down => Vec::new(),
        }
    }

    pub(super) fn limit(&mut self, limits: Limits) -> Result<(), BrokerError> {
        self.options.limits = limits;
        self.running("change its limits")?.shared.set_limits(limits);
        Ok(())
    }

    /// Presents another certificate from the next handshake on. Connections stay; session tickets are
    /// forgotten, as they are when a broker reloads its listeners.
    pub(super) fn rotate_certificate(
        &mut self,
        certificates: &Certificates,
        flaw: Flaw,
    ) -> Result<(), BrokerError> {
        self.options.certificate = flaw;
        self.identity = certificates.server(flaw)?;
        let (quic_tls, tcp_tls) = self.tls_configs()?;
        let running = self.running("rotate its certificate")?;
        let config = quic::server_config(quic_tls, &self.options);
        running.endpoint.set_server_config(Some(config));
        *running.tls.write().expect("no holder of this lock panics") = Arc::new(tcp_tls);
        Ok(())
    }

    pub(super) fn set_udp_dropped(&self, dropped: bool) -> Result<(), BrokerError> {
        let running = match &self.state {
            State::Running(running) => running,
            State::Frozen(_) => return Err(out_of_place("drop UDP", "frozen")),
            State::Down => return Err(out_of_place("drop UDP", "stopped")),
        };
        let traffic = if dropped { Traffic::Drop } else { Traffic::Pass };
        running.socket.set_traffic(traffic);
        Ok(())
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if let State::Running(running) | State::Frozen(running) = &self.state {
            running.vanish();
        }
    }
}

impl Running {
    async fn stop(self) {
        self.shared.closing.cancel();
        let goodbye = async {
            self.shared.core.shut_down().await;
            self.shared.tasks.close();
            self.shared.tasks.wait().await;
        };
        if tokio::time::timeout(STOP_LIMIT, goodbye).await.is_err() {
            tracing::debug!("some clients did not hear the goodbye");
        }
        self.endpoint.close(quic::close::NORMAL, b"");
        // Lets the CONNECTION_CLOSE packets out.
        let _ = tokio::time::timeout(Duration::from_millis(200), self.endpoint.wait_idle()).await;
        self.kill().await;
    }

    async fn kill(self) {
        self.vanish();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        self.shared.core.reap().await;
    }

    /// Closes every socket; what is left ends on its own.
    fn vanish(&self) {
        self.shared.closing.cancel();
        self.socket.kill();
        self.shared.killed.cancel();
        self.shared.core.kill();
    }
}

async fn open_sessions(options: &BrokerOptions) -> Result<SessionStore, BrokerError> {
    SessionStore::open(options.sessions.as_deref()).await.map_err(core_error)
}

#[expect(clippy::needless_pass_by_value, reason = "the shape map_err wants")]
fn core_error(error: mqtt5::MqttError) -> BrokerError {
    BrokerError::Core(error.to_string())
}

fn out_of_place(fault: &str, state: &'static str) -> BrokerError {
    BrokerError::FaultOutOfPlace { fault: fault.to_owned(), state }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    // SO_REUSEADDR, as std sets it: connections of a former life may linger in TIME_WAIT.
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Opens a socket, waiting up to `patience` for a port that is being given up.
async fn bind<T>(
    transport: Transport,
    address: Option<SocketAddr>,
    patience: Duration,
    open: impl Fn(SocketAddr) -> io::Result<T>,
) -> Result<T, BrokerError> {
    let address = address.expect("the embedded broker has every listener");
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        match open(address) {
            Ok(socket) => return Ok(socket),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if tokio::time::Instant::now() >= deadline {
                    return Err(BrokerError::PortInUse { transport, address });
                }
                tokio::time::sleep(REBIND_PAUSE).await;
            }
            Err(source) => {
                return Err(BrokerError::Listen { transport, address, source });
            }
        }
    }
}
