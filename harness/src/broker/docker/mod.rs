//! Brokers in containers, by testcontainers.
//!
//! Every container carries labels that say which process made it. It goes away when that process drops it; a
//! process that was killed leaves it behind, and the next one to start a container sweeps it up.

mod leftovers;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use testcontainers::bollard::Docker;
use testcontainers::bollard::models::{HostConfig, PortBinding};
use testcontainers::bollard::query_parameters::{KillContainerOptionsBuilder, LogsOptionsBuilder};
use testcontainers::core::client::docker_client_instance;
use testcontainers::core::logs::LogFrame;
use testcontainers::core::{ExecCommand, IntoContainerPort};
use testcontainers::runners::AsyncRunner;
use testcontainers::{
    ContainerAsync, ContainerRequest, CopyTargetOptions, GenericImage, ImageExt, TestcontainersError,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::BrokerAddresses;

use self::leftovers::{label, owner_labels, remove_labelled, sweep};
use super::emqx::{self, port};
use super::error::BrokerError;
use super::external::preflight_connect;
use super::fault::{Fault, SessionState};
use super::options::{BrokerOptions, Durability};
use super::spec::BrokerSpec;
use crate::certificates::{Certificates, Flaw, SERVER_NAME};
use crate::measure::Transport;
use crate::peer::Target;

/// Longest the daemon may take for anything quick.
const DAEMON_LIMIT: Duration = Duration::from_secs(10);
/// Longest a pull may take; an image of EMQX has 100 MB.
const PULL_LIMIT: Duration = Duration::from_secs(180);
/// Longest a broker may take to be ready. EMQX needs about ten seconds on two cores.
const READY_LIMIT: Duration = Duration::from_secs(60);
const READY_PAUSE: Duration = Duration::from_millis(100);
/// One attempt to connect while it gets ready.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(2);
/// How long a stopping broker has until it is killed, in seconds.
const STOP_S: i32 = 10;
/// Bytes of log kept.
const LOG_MAX: usize = 8 << 20;
/// Lines of log shown when a container ends too early.
const LAST_LINES: usize = 20;
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
    log: Arc<Mutex<Vec<u8>>>,
    state: State,
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

impl Containerized {
    pub(super) async fn start(
        spec: &BrokerSpec,
        certificates: &Certificates,
        options: BrokerOptions,
    ) -> Result<Self, BrokerError> {
        let (image, is_emqx) = match spec {
            BrokerSpec::Emqx { tag } => (format!("{}:{tag}", emqx::IMAGE), true),
            BrokerSpec::Docker { image } => {
                (image.clone(), image.split([':', '@']).next() == Some(emqx::IMAGE))
            }
            other => unreachable!("{other} is no container"),
        };
        let docker = connect().await?;
        sweep(&docker).await?;
        ensure_image(&docker, &image).await?;
        let secret = random_token();
        let mut broker = Self {
            files: files(certificates, options.certificate, &secret)?,
            digest: digest(&docker, &image).await,
            image,
            is_emqx,
            options,
            secret,
            ports: HostPorts { quic: 0, tls: 0, tcp: 0, api: 0 },
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
        String::from_utf8_lossy(&self.log.lock().expect("no holder of this lock panics")).into_owned()
    }

    /// Creates and starts a container, and waits until it serves.
    async fn create(&mut self, certificates: &Certificates) -> Result<(), BrokerError> {
        let token = random_token();
        let started = self.request(&token).start().await;
        let container = match started {
            Ok(container) => container,
            Err(error) => {
                // A container that was created but could not be started is nobody's.
                remove_labelled(&self.docker, label::TOKEN, &token).await;
                return Err(self.start_error(&error));
            }
        };
        self.state = State::Running(Box::new(container));
        let ready = self.wait_until_ready(certificates).await;
        if ready.is_err() {
            self.remove().await;
        }
        ready
    }

    fn request(&self, token: &str) -> ContainerRequest<GenericImage> {
        let (name, tag) = split_reference(&self.image);
        let log = Arc::clone(&self.log);
        let consumer = move |frame: &LogFrame| {
            let mut log = log.lock().expect("no holder of this lock panics");
            if log.len() < LOG_MAX {
                log.extend_from_slice(frame.bytes());
            }
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
            let taken = [
                (Transport::Quic, self.ports.quic),
                (Transport::Tls, self.ports.tls),
                (Transport::Tcp, self.ports.tcp),
            ];
            let named = taken.into_iter().find(|(_, port)| reason.contains(&format!(":{port}")));
            let (transport, port) = named.unwrap_or(taken[0]);
            let address = SocketAddr::new(self.options.bind, port);
            return BrokerError::PortInUse { transport, address };
        }
        BrokerError::Docker { what: format!("start a container of `{}`", self.image), reason }
    }

    /// Waits until each listener has accepted an MQTT client, and EMQX says it is ready, too.
    async fn wait_until_ready(&self, certificates: &Certificates) -> Result<(), BrokerError> {
        let deadline = Instant::now() + READY_LIMIT;
        let mut last = None;
        while Instant::now() < deadline {
            self.check_alive().await?;
            match self.try_once(certificates).await {
                Ok(()) => return Ok(()),
                Err(reason) => last = Some(reason),
            }
            tokio::time::sleep(READY_PAUSE).await;
        }
        Err(BrokerError::NotReady {
            image: self.image.clone(),
            limit: READY_LIMIT,
            reason: last.unwrap_or_else(|| "nothing was tried".into()),
            log: self.last_lines(),
        })
    }

    async fn try_once(&self, certificates: &Certificates) -> Result<(), String> {
        if self.is_emqx {
            let status = self.api("GET", "/status", None).await?;
            if status != 200 {
                return Err(format!("the status endpoint answers {status}"));
            }
            let listeners = self.exec(&[emqx::path::CTL, "ctl", "listeners"]).await?;
            if !emqx::quic_runs(&listeners) {
                return Err("`emqx ctl listeners` does not show quic:default running".into());
            }
        }
        // A wrong certificate is what a scenario wants to see refused: then the plain listener has to do.
        let transports: &[Transport] = match self.options.certificate {
            Flaw::None => &Transport::ALL,
            _ => &[Transport::Tcp],
        };
        for transport in transports {
            let address = self.addresses().get(*transport).expect("all are published");
            let mut target = Target::new(*transport, address, SERVER_NAME, certificates.trust());
            target.identity = certificates.client("harness").ok();
            preflight_connect(target, ATTEMPT_LIMIT)
                .await
                .map_err(|error| format!("{transport}: {error}"))?;
        }
        Ok(())
    }

    async fn check_alive(&self) -> Result<(), BrokerError> {
        let State::Running(container) = &self.state else { return Ok(()) };
        match container.is_running().await {
            Ok(true) => Ok(()),
            Ok(false) => {
                let status = match container.exit_code().await {
                    Ok(Some(code)) => format!("exit code {code}"),
                    _ => "no exit code".into(),
                };
                // The log follows the end by a moment.
                tokio::time::sleep(READY_PAUSE).await;
                Err(BrokerError::ContainerExited {
                    image: self.image.clone(),
                    status,
                    log: self.last_lines(),
                })
            }
            Err(error) => Err(docker_error("look at the container", &error)),
        }
    }

    fn last_lines(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }

    /// A request to EMQX's API or status endpoint; yields the status code.
    async fn api(&self, method: &str, target: &str, secret: Option<&str>) -> Result<u16, String> {
        let address = SocketAddr::new(reachable(self.options.bind), self.ports.api);
        let exchange = async {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(emqx::request(method, target, secret).as_bytes()).await?;
            let mut response = Vec::new();
            stream.take(64 * 1024).read_to_end(&mut response).await?;
            Ok::<_, std::io::Error>(response)
        };
        let response = tokio::time::timeout(ATTEMPT_LIMIT, exchange)
            .await
            .map_err(|_| format!("{target} does not answer"))?
            .map_err(|error| format!("{target}: {error}"))?;
        emqx::status(&response).ok_or_else(|| format!("{target} does not speak HTTP"))
    }

    async fn exec(&self, command: &[&str]) -> Result<String, String> {
        let (State::Running(container) | State::Paused(container)) = &self.state else {
            return Err("the container does not run".into());
        };
        let mut result = container
            .exec(ExecCommand::new(command.iter().copied()))
            .await
            .map_err(|error| with_causes(&error))?;
        let output = result.stdout_to_vec().await.map_err(|error| with_causes(&error))?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    }

    pub(super) async fn apply(
        &mut self,
        fault: &Fault,
        certificates: &Certificates,
    ) -> Result<(), BrokerError> {
        match fault {
            Fault::Stop => {
                let container = self.take_running(fault)?;
                let stopped = container.stop_with_timeout(Some(STOP_S)).await;
                self.state = State::Stopped(container);
                stopped.map_err(|error| docker_error("stop the container", &error))
            }
            Fault::Kill => {
                let container = self.take_running(fault)?;
                let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
                let killed = self.docker.kill_container(container.id(), Some(options)).await;
                self.state = State::Stopped(container);
                killed.map_err(|error| docker_error("kill the container", &error))
            }
            Fault::Start(sessions) => self.start_again(fault, *sessions, certificates).await,
            Fault::Freeze => {
                let container = self.take_running(fault)?;
                let paused = container.pause().await;
                self.state = State::Paused(container);
                paused.map_err(|error| docker_error("pause the container", &error))
            }
            Fault::Resume => match std::mem::replace(&mut self.state, State::Gone) {
                State::Paused(container) => {
                    let resumed = container.unpause().await;
                    self.state = State::Running(container);
                    resumed.map_err(|error| docker_error("resume the container", &error))
                }
                other => self.out_of_place(fault, other),
            },
            Fault::Kick { client_id } if self.is_emqx => {
                let path = emqx::client_path(client_id);
                match self.api("DELETE", &path, Some(&self.secret)).await {
                    Ok(204 | 404) => Ok(()),
                    Ok(status) => Err(docker_text("kick a client", &format!("the API answers {status}"))),
                    Err(reason) => Err(docker_text("kick a client", &reason)),
                }
            }
            Fault::RotateCertificate(flaw) if self.is_emqx => self.rotate(*flaw, certificates).await,
            _ => Err(BrokerError::FaultUnsupported {
                broker: format!("Docker image {}", self.image),
                fault: fault.to_string(),
            }),
        }
    }

    /// Starts the same container again, whose disk has what was kept there; or a new one, which has nothing.
    async fn start_again(
        &mut self,
        fault: &Fault,
        sessions: SessionState,
        certificates: &Certificates,
    ) -> Result<(), BrokerError> {
        match std::mem::replace(&mut self.state, State::Gone) {
            State::Stopped(container) if sessions == SessionState::Lost => {
                // It is stopped; should its removal fail, the next sweep takes it.
                let _ = container.rm().await;
                self.create(certificates).await
            }
            State::Stopped(container) if self.options.durability == Durability::Disk => {
                let started = container.start().await;
                self.state = State::Running(container);
                started.map_err(|error| self.start_error(&error))?;
                self.follow_log();
                self.wait_until_ready(certificates).await
            }
            State::Stopped(container) => {
                self.state = State::Stopped(container);
                Err(BrokerError::FaultUnsupported {
                    broker: format!("Docker image {} (sessions in memory)", self.image),
                    fault: fault.to_string(),
                })
            }
            other => self.out_of_place(fault, other),
        }
    }

    /// testcontainers follows the log up to the first end of the container.
    fn follow_log(&self) {
        use futures_util::StreamExt as _;
        let State::Running(container) = &self.state else { return };
        let (docker, id, log) = (self.docker.clone(), container.id().to_owned(), Arc::clone(&self.log));
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| i32::try_from(since.as_secs()).unwrap_or(i32::MAX));
        tokio::spawn(async move {
            let options =
                LogsOptionsBuilder::new().follow(true).stdout(true).stderr(true).since(since).build();
            let mut lines = docker.logs(&id, Some(options));
            while let Some(Ok(line)) = lines.next().await {
                let mut log = log.lock().expect("no holder of this lock panics");
                if log.len() < LOG_MAX {
                    log.extend_from_slice(&line.into_bytes());
                }
            }
        });
    }

    async fn rotate(&mut self, flaw: Flaw, certificates: &Certificates) -> Result<(), BrokerError> {
        let failed = |reason: String| docker_text("put another certificate to use", &reason);
        self.options.certificate = flaw;
        self.files = files(certificates, flaw, &self.secret)?;
        for (path, bytes) in &self.files {
            let script = format!("echo {} | base64 -d > {path}", crate::certificates::base64(bytes));
            self.exec(&["sh", "-c", &script]).await.map_err(failed)?;
        }
        for command in emqx::reload_commands() {
            self.exec(&command).await.map_err(failed)?;
        }
        Ok(())
    }

    fn take_running(&mut self, fault: &Fault) -> Result<Box<ContainerAsync<GenericImage>>, BrokerError> {
        match std::mem::replace(&mut self.state, State::Gone) {
            State::Running(container) => Ok(container),
            other => self.out_of_place(fault, other),
        }
    }

    fn out_of_place<T>(&mut self, fault: &Fault, state: State) -> Result<T, BrokerError> {
        let name = match &state {
            State::Running(_) => "running",
            State::Paused(_) => "frozen",
            State::Stopped(_) | State::Gone => "stopped",
        };
        self.state = state;
        Err(BrokerError::FaultOutOfPlace { fault: fault.to_string(), state: name })
    }

    /// Removes the container, whatever it is doing.
    pub(super) async fn remove(&mut self) {
        match std::mem::replace(&mut self.state, State::Gone) {
            State::Running(container) | State::Paused(container) | State::Stopped(container) => {
                if let Err(error) = container.rm().await {
                    tracing::warn!(target: "broker", "a container could not be removed: {error}");
                }
            }
            State::Gone => {}
        }
    }
}

/// A client of the daemon that has answered.
async fn connect() -> Result<Docker, BrokerError> {
    let docker =
        docker_client_instance().await.map_err(|error| BrokerError::NoDocker(with_causes(&error)))?;
    match tokio::time::timeout(DAEMON_LIMIT, docker.ping()).await {
        Ok(Ok(_)) => Ok(docker),
        Ok(Err(error)) => Err(BrokerError::NoDocker(with_causes(&error))),
        Err(_) => Err(BrokerError::NoDocker(format!("no answer within {} s", DAEMON_LIMIT.as_secs()))),
    }
}

async fn ensure_image(docker: &Docker, image: &str) -> Result<(), BrokerError> {
    if docker.inspect_image(image).await.is_ok() {
        return Ok(());
    }
    let (name, tag) = split_reference(image);
    let pull = GenericImage::new(name, tag).pull_image();
    let reason = match tokio::time::timeout(PULL_LIMIT, pull).await {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(error)) => with_causes(&error),
        Err(_) => format!("the pull took longer than {} s", PULL_LIMIT.as_secs()),
    };
    Err(BrokerError::NoImage { image: image.to_owned(), reason })
}

/// The digest a registry knows the image by, or its local identifier.
async fn digest(docker: &Docker, image: &str) -> Option<String> {
    let inspected = docker.inspect_image(image).await.ok()?;
    inspected.repo_digests.and_then(|digests| digests.into_iter().next()).or(inspected.id)
}

/// Name and tag; a digest stays with the tag's side of testcontainers' `NAME:TAG`.
fn split_reference(image: &str) -> (&str, &str) {
    match image.rsplit_once(':') {
        // A colon before a slash belongs to a registry's port.
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (image, "latest"),
    }
}

fn files(
    certificates: &Certificates,
    flaw: Flaw,
    secret: &str,
) -> Result<Vec<(&'static str, Vec<u8>)>, BrokerError> {
    let identity = certificates.server(flaw)?;
    Ok(vec![
        (emqx::path::CERTIFICATE, identity.chain_pem().into_bytes()),
        (emqx::path::KEY, identity.key_pem().into_bytes()),
        (emqx::path::CLIENT_CA, certificates.root_pem().into_bytes()),
        (emqx::path::API_KEYS, emqx::api_keys(secret).into_bytes()),
    ])
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

fn docker_error(what: &str, error: &(dyn std::error::Error + 'static)) -> BrokerError {
    docker_text(what, &with_causes(error))
}

fn docker_text(what: &str, reason: &str) -> BrokerError {
    BrokerError::Docker { what: what.to_owned(), reason: reason.to_owned() }
}

/// An error with everything it was caused by.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let told = inner.to_string();
        if !text.contains(&told) {
            text.push_str(": ");
            text.push_str(&told);
        }
        cause = inner.source();
    }
    text
}

/// Whether a Docker engine could be there at all, without asking it: for `doctor`.
#[must_use]
pub fn socket_exists() -> bool {
    std::env::var_os("DOCKER_HOST").is_some() || Path::new("/var/run/docker.sock").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_split_at_the_tag_only() {
        for (image, expected) in [
            ("emqx/emqx:5.8.9", ("emqx/emqx", "5.8.9")),
            ("local", ("local", "latest")),
            ("registry:5000/local", ("registry:5000/local", "latest")),
            ("registry:5000/local:dev", ("registry:5000/local", "dev")),
        ] {
            assert_eq!(split_reference(image), expected);
        }
    }

    #[test]
    fn free_ports_differ_and_wanted_ones_are_taken() {
        let wanted = crate::broker::Ports { quic: 14_567, ..Default::default() };
        let ports = free_ports(Ipv4Addr::LOCALHOST.into(), wanted).expect("free ports");
        assert_eq!(ports.quic, 14_567);
        assert!(ports.tls != ports.tcp && ports.tcp != ports.api && ports.tls != ports.api);
    }
}
