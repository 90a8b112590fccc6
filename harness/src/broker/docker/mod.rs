//! Brokers in containers, by testcontainers.
//!
//! Every container carries labels that say which process made it. It goes away when that process drops it; a
//! process that was killed leaves it behind, and the next run, whatever its broker, sweeps it up.

mod command;
mod engine;
mod faults;
mod leftovers;
mod log;
mod loss;
mod ready;
mod rotation;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use testcontainers::bollard::Docker;
use testcontainers::bollard::models::{HostConfig, PortBinding};
use testcontainers::core::IntoContainerPort;
use testcontainers::core::logs::LogFrame;
use testcontainers::runners::AsyncRunner;
use testcontainers::{
    ContainerAsync, ContainerRequest, CopyTargetOptions, GenericImage, ImageExt, TestcontainersError,
};

use super::BrokerAddresses;

pub(super) use self::engine::emqx_missing;
use self::engine::{DAEMON_LIMIT, connect, digest, ensure_image, split_reference, with_causes, within};
pub use self::engine::{DockerEngine, docker_engine};
pub(super) use self::leftovers::sweep_quickly;
use self::leftovers::{Unclaimed, label, owner_labels, remove_labelled, sweep};
use self::log::Log;
use self::loss::{Lookout, is_gone};
use super::emqx::{self, port};
use super::error::BrokerError;
use super::options::BrokerOptions;
use super::spec::BrokerSpec;
use crate::certificates::{Certificates, Identity};
use crate::measure::Transport;

/// Longest the daemon may take to create and start a container: the files go into it meanwhile.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Longest it may take to remove one.
const REMOVE_LIMIT: Duration = Duration::from_secs(20);
/// Attempts at finding free ports: another process may take them before Docker does.
const PORT_ATTEMPTS: usize = 3;

/// A broker in a container.
pub(super) struct Containerized {
    image: String,
    is_emqx: bool,
    options: BrokerOptions,
    files: Vec<(&'static str, Vec<u8>)>,
    secret: String,
    ports: HostPorts,
    docker: Docker,
    digest: Option<String>,
    log: Arc<Mutex<Log>>,
    state: State,
    lookout: Lookout,
}

/// What the container is doing.
enum State {
    Running(Box<ContainerAsync<GenericImage>>),
    Paused(Box<ContainerAsync<GenericImage>>),
    Stopped(Box<ContainerAsync<GenericImage>>),
    Gone,
}

/// Ports on the host. They stay the same over restarts, which Docker's own choice would not.
#[derive(Debug, Clone, Copy)]
struct HostPorts {
    quic: u16,
    tls: u16,
    tcp: u16,
    api: u16,
}

impl HostPorts {
    /// The port that Docker complains of, and who was to listen there; the API is plain TCP.
    fn named_in(&self, reason: &str) -> (Transport, u16) {
        let all = [
            (Transport::Quic, self.quic),
            (Transport::Tls, self.tls),
            (Transport::Tcp, self.tcp),
            (Transport::Tcp, self.api),
        ];
        let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
        let named: Vec<String> = reason.split(':').skip(1).map(digits).collect();
        all.into_iter().find(|(_, port)| named.contains(&port.to_string())).unwrap_or(all[0])
    }
}

impl Containerized {
    pub(super) async fn start(
        spec: &BrokerSpec,
        certificates: &Certificates,
        options: BrokerOptions,
    ) -> Result<Self, BrokerError> {
        let (image, is_emqx) = match spec {
            BrokerSpec::Emqx { tag } => (format!("{}:{tag}", emqx::IMAGE), true),
            BrokerSpec::Docker { image } => (image.clone(), emqx::is_image(image)),
            other => unreachable!("{other} is no container"),
        };
        let docker = connect().await?;
        sweep(&docker).await?;
        ensure_image(&docker, &image).await?;
        let secret = random_token();
        let mut broker = Self {
            files: files(certificates, &certificates.server(options.certificate)?, &secret),
            digest: digest(&docker, &image).await,
            image,
            is_emqx,
            options,
            secret,
            ports: HostPorts { quic: 0, tls: 0, tcp: 0, api: 0 },
            lookout: Lookout::start(docker.clone()),
            docker,
            log: Arc::default(),
            state: State::Gone,
        };
        let mut attempt = 0;
        loop {
            attempt += 1;
            broker.ports = free_ports(broker.options.bind, broker.options.ports)?;
            match broker.create(certificates).await {
                Ok(()) => return Ok(broker),
                Err(BrokerError::PortInUse { .. }) if attempt < PORT_ATTEMPTS => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) fn addresses(&self) -> BrokerAddresses {
        let ip = reachable(self.options.bind);
        BrokerAddresses {
            quic: Some(SocketAddr::new(ip, self.ports.quic)),
            tls: Some(SocketAddr::new(ip, self.ports.tls)),
            tcp: Some(SocketAddr::new(ip, self.ports.tcp)),
        }
    }

    pub(super) fn product(&self) -> String {
        format!("Docker image {}", self.image)
    }

    pub(super) fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// What the broker wrote so far.
    pub(super) fn log(&self) -> String {
        self.log.lock().expect("no holder of this lock panics").text()
    }

    /// Creates and starts a container, and waits until it serves.
    async fn create(&mut self, certificates: &Certificates) -> Result<(), BrokerError> {
        let token = random_token();
        let unclaimed = Unclaimed::new(&token);
        let started = tokio::time::timeout(START_LIMIT, self.request(&token).start()).await;
        unclaimed.claim();
        let failed = match started {
            Ok(Ok(container)) => {
                self.state = State::Running(Box::new(container));
                let ready = self.wait_until_ready(certificates).await;
                if ready.is_err() {
                    self.remove().await;
                }
                return ready;
            }
            Ok(Err(error)) => self.start_error(&error),
            Err(_) => BrokerError::Docker {
                what: format!("start a container of `{}`", self.image),
                reason: format!("the daemon does not answer within {} s", START_LIMIT.as_secs()),
            },
        };
        // A container that was created but could not be started is nobody's.
        let _ = tokio::time::timeout(REMOVE_LIMIT, remove_labelled(&self.docker, label::TOKEN, &token)).await;
        Err(failed)
    }

    fn request(&self, token: &str) -> ContainerRequest<GenericImage> {
        let (name, tag) = split_reference(&self.image);
        let log = Arc::clone(&self.log);
        let consumer = move |frame: &LogFrame| {
            log.lock().expect("no holder of this lock panics").push(frame.bytes());
        };
        let bindings = self.bindings();
        let mut request = GenericImage::new(name, tag)
            .with_exposed_port(port::QUIC.udp())
            .with_exposed_port(port::TLS.tcp())
            .with_exposed_port(port::TCP.tcp())
            .with_exposed_port(port::API.tcp())
            .with_log_consumer(consumer)
            .with_startup_timeout(DAEMON_LIMIT)
            .with_labels(owner_labels())
            .with_label(label::TOKEN, token)
            .with_host_config_modifier(move |config: &mut HostConfig| {
                config.publish_all_ports = Some(false);
                config.port_bindings = Some(bindings.clone());
            });
        for (name, value) in emqx::environment(&self.options) {
            request = request.with_env_var(name, value);
        }
        for (path, bytes) in &self.files {
            let target = CopyTargetOptions::new(*path).with_mode(emqx::FILE_MODE);
            request = request.with_copy_to(target, bytes.clone());
        }
        request
    }

    fn bindings(&self) -> HashMap<String, Option<Vec<PortBinding>>> {
        let bound = |port: u16| {
            let binding = PortBinding {
                host_ip: Some(self.options.bind.to_string()),
                host_port: Some(port.to_string()),
            };
            Some(vec![binding])
        };
        HashMap::from([
            (format!("{}/udp", port::QUIC), bound(self.ports.quic)),
            (format!("{}/tcp", port::TLS), bound(self.ports.tls)),
            (format!("{}/tcp", port::TCP), bound(self.ports.tcp)),
            (format!("{}/tcp", port::API), bound(self.ports.api)),
        ])
    }

    /// What a failed start means.
    fn start_error(&self, error: &TestcontainersError) -> BrokerError {
        let reason = with_causes(error);
        if reason.contains("port is already allocated") || reason.contains("address already in use") {
            let (transport, port) = self.ports.named_in(&reason);
            let address = SocketAddr::new(self.options.bind, port);
            return BrokerError::PortInUse { transport, address };
        }
        BrokerError::Docker { what: format!("start a container of `{}`", self.image), reason }
    }

    /// Resolves when the container ends although nobody told it to.
    pub(super) fn loss(&self) -> impl Future<Output = ()> + Send + use<> {
        self.lookout.loss()
    }

    /// Removes the container, whatever it is doing.
    pub(super) async fn remove(&mut self) {
        self.lookout.want(None);
        match std::mem::replace(&mut self.state, State::Gone) {
            State::Running(container) | State::Paused(container) | State::Stopped(container) => {
                let id = container.id().to_owned();
                let removed = within(REMOVE_LIMIT, "remove the container", container.rm()).await;
                // Somebody else may have done it.
                if let Err(error) = removed
                    && !is_gone(&self.docker, &id).await
                {
                    tracing::warn!("{error}; `docker rm -fv {id}` removes it, and so does the next run");
                }
            }
            State::Gone => {}
        }
    }
}

/// What a container is given to read.
fn files(certificates: &Certificates, identity: &Identity, secret: &str) -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (emqx::path::CERTIFICATE, identity.chain_pem().into_bytes()),
        (emqx::path::KEY, identity.key_pem().into_bytes()),
        (emqx::path::CLIENT_CA, certificates.root_pem().into_bytes()),
        (emqx::path::API_KEYS, emqx::api_keys(secret).into_bytes()),
    ]
}

/// Where this machine reaches what listens at `bind`.
fn reachable(bind: IpAddr) -> IpAddr {
    if bind.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { bind }
}

/// Ports that are free right now, where none are asked for.
fn free_ports(bind: IpAddr, wanted: super::options::Ports) -> Result<HostPorts, BrokerError> {
    let listen_error = |transport| {
        move |source| BrokerError::Listen { transport, address: SocketAddr::new(bind, 0), source }
    };
    // Held open together, so that they differ.
    let udp = UdpSocket::bind((bind, 0)).map_err(listen_error(Transport::Quic))?;
    let tcp: Vec<TcpListener> = (0..3)
        .map(|_| TcpListener::bind((bind, 0)).map_err(listen_error(Transport::Tcp)))
        .collect::<Result<_, _>>()?;
    let free = |n: usize| tcp[n].local_addr().map(|address| address.port());
    let or_free = |wanted: u16, n: usize| if wanted == 0 { free(n) } else { Ok(wanted) };
    let quic = match wanted.quic {
        0 => udp.local_addr().map(|address| address.port()),
        port => Ok(port),
    };
    Ok(HostPorts {
        quic: quic.map_err(listen_error(Transport::Quic))?,
        tls: or_free(wanted.tls, 0).map_err(listen_error(Transport::Tls))?,
        tcp: or_free(wanted.tcp, 1).map_err(listen_error(Transport::Tcp))?,
        api: free(2).map_err(listen_error(Transport::Tcp))?,
    })
}

/// 128 bits of the system's random source, which the hasher of a new map is keyed from.
fn random_token() -> String {
    use std::hash::{BuildHasher, RandomState};
    let word = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", word(), word())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_that_docker_complains_of_is_named_whole() {
        let ports = HostPorts { quic: 14_567, tls: 8_883, tcp: 1_883, api: 18_830 };
        let told = |port: &str| {
            format!(
                "driver failed programming external connectivity: Bind for 127.0.0.1:{port} failed: port is already allocated"
            )
        };
        for (port, named) in [
            ("14567", (Transport::Quic, 14_567)),
            ("1883", (Transport::Tcp, 1_883)),
            ("18830", (Transport::Tcp, 18_830)),
            ("8883", (Transport::Tls, 8_883)),
        ] {
            assert_eq!(ports.named_in(&told(port)), named);
        }
        let listen = "listen tcp4 127.0.0.1:18830: bind: address already in use";
        assert_eq!(ports.named_in(listen), (Transport::Tcp, 18_830));
    }

    #[test]
    fn free_ports_differ_and_wanted_ones_are_taken() {
        let wanted = crate::broker::Ports { quic: 14_567, ..Default::default() };
        let ports = free_ports(Ipv4Addr::LOCALHOST.into(), wanted).expect("free ports");
        assert_eq!(ports.quic, 14_567);
        assert!(ports.tls != ports.tcp && ports.tcp != ports.api && ports.tls != ports.api);
    }
}
