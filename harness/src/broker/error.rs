//! What can go wrong between the harness and a broker, each with its remedy.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::certificates::CertificateError;
use crate::measure::Transport;

/// The broker of a run could not be started, reached or told to misbehave. All of these are faults of the
/// environment: the command line ends with exit code 3.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// A listener's port is taken.
    #[error("the {transport} listener cannot use {address}: the address is in use")]
    PortInUse {
        /// Which listener.
        transport: Transport,
        /// Where it was to listen.
        address: SocketAddr,
    },
    /// A listener could not be opened for another reason.
    #[error("the {transport} listener cannot be opened at {address}: {source}")]
    Listen {
        /// Which listener.
        transport: Transport,
        /// Where it was to listen.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The run's certificates could not be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// rustls refused the configuration.
    #[error("the TLS configuration is refused: {0}")]
    Tls(#[from] rustls::Error),
    /// The routing core did not start.
    #[error("the embedded broker's core does not start: {0}")]
    Core(String),
    /// The embedded broker's own process ended while a run needed it.
    #[error("the embedded broker's process ended during the run ({status}){}", after_colon(log))]
    ProcessLost {
        /// How it ended.
        status: String,
        /// The end of its log.
        log: String,
    },
    /// A file could not be read or written.
    #[error("{what} `{path}`: {source}", path = path.display())]
    File {
        /// What was tried: "reading the root certificate", ...
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A folder is where a file is to be written.
    #[error("`{path}` cannot be written: it is a folder", path = path.display())]
    FolderInTheWay {
        /// Where.
        path: PathBuf,
    },
    /// A file holds no certificate.
    #[error("`{path}` holds no certificate in PEM form", path = .0.display())]
    NoCertificate(PathBuf),
    /// Certificate and key cannot be used.
    #[error("`{path}` and its key cannot be used: {what}", path = path.display())]
    Credentials {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// The broker's host name has no address.
    #[error("the broker's host name `{host}` cannot be resolved: {reason}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        reason: String,
    },
    /// Nothing answers.
    #[error("no broker answers at {url}: {reason}")]
    Unreachable {
        /// Where.
        url: String,
        /// What was seen.
        reason: String,
    },
    /// The certificate's chain ends in a root that is not trusted.
    #[error("the certificate of {url} is not signed by the root it was checked against: {reason}")]
    UnknownAuthority {
        /// Where.
        url: String,
        /// What the verifier said.
        reason: String,
    },
    /// The certificate is for another host.
    #[error("the certificate of {url} is not for the host `{host}`: {reason}")]
    WrongHost {
        /// Where.
        url: String,
        /// The name asked for.
        host: String,
        /// What the verifier said.
        reason: String,
    },
    /// The certificate's validity is over, or has not begun.
    #[error("the certificate of {url} is not valid today: {reason}")]
    NotValidNow {
        /// Where.
        url: String,
        /// What the verifier said.
        reason: String,
    },
    /// The peer does not speak MQTT on this transport.
    #[error("{url} refuses the application protocol `mqtt` (ALPN)")]
    AlpnRefused {
        /// Where.
        url: String,
    },
    /// The TLS or QUIC handshake failed for another reason.
    #[error("the handshake with {url} failed: {reason}")]
    Handshake {
        /// Where.
        url: String,
        /// What was seen.
        reason: String,
    },
    /// The handshake went well, but the broker does not accept an MQTT client.
    #[error("{url} does not accept an MQTT client: {reason}")]
    Refused {
        /// Where.
        url: String,
        /// Its reason.
        reason: String,
    },
    /// The standing broker cannot be used.
    #[error("the standing broker of docker-compose.yml cannot be used: {0}")]
    Standing(Box<BrokerError>),
    /// This kind of broker cannot do what a scenario asks of it.
    #[error("the {broker} broker cannot {fault}")]
    FaultUnsupported {
        /// Which broker.
        broker: String,
        /// What it was to do.
        fault: String,
    },
    /// A fault asks for a state the broker is not in.
    #[error("the broker cannot {fault}: it is {state}")]
    FaultOutOfPlace {
        /// What it was to do.
        fault: String,
        /// What it is doing.
        state: &'static str,
    },
    /// A step took longer than it may.
    #[error("{what} took longer than {} s", limit.as_secs_f32())]
    TimedOut {
        /// Which step.
        what: String,
        /// The limit.
        limit: Duration,
    },
    /// There is no Docker engine to talk to.
    #[error("no Docker engine answers: {0}")]
    NoDocker(String),
    /// The image is not here and cannot be fetched.
    #[error("the image `{image}` is not on this machine and cannot be pulled: {reason}")]
    NoImage {
        /// Its reference.
        image: String,
        /// What Docker said.
        reason: String,
    },
    /// The container ended on its own.
    #[error("the container of `{image}` ended before it was ready ({status}); its last lines:\n{log}")]
    ContainerExited {
        /// Its image.
        image: String,
        /// How it ended.
        status: String,
        /// The end of its log.
        log: String,
    },
    /// The container ended, or was removed, while a run needed it.
    #[error("the container of `{image}` ended during the run ({status}); its last lines:\n{log}")]
    ContainerLost {
        /// Its image.
        image: String,
        /// How it ended.
        status: String,
        /// The end of its log.
        log: String,
    },
    /// The container runs, but its broker does not serve.
    #[error("the broker in the container of `{image}` was not ready within {} s ({reason}); its last lines:\n{log}", limit.as_secs())]
    NotReady {
        /// Its image.
        image: String,
        /// The limit.
        limit: Duration,
        /// What was still missing.
        reason: String,
        /// The end of its log.
        log: String,
    },
    /// A command of the broker's own failed in its container.
    #[error("`{command}` in the container of `{image}` {ending}{}", after_colon(output))]
    Command {
        /// The container's image.
        image: String,
        /// The command as it would be typed.
        command: String,
        /// How it ended.
        ending: String,
        /// What it wrote, errors last.
        output: String,
    },
    /// Another certificate lies ready, but a listener goes on with the one it had.
    #[error(
        "the {transport} listener in the container of `{image}` does not present its new certificate within {} s \
         after its commands to reload it ({reason})", limit.as_secs()
    )]
    NotRotated {
        /// The container's image.
        image: String,
        /// Which listener.
        transport: Transport,
        /// The limit.
        limit: Duration,
        /// What it did instead.
        reason: String,
    },
    /// There is nobody to kick.
    #[error("the broker serves no client `{client_id}`: nobody was kicked")]
    NoSuchClient {
        /// The client identifier.
        client_id: String,
    },
    /// Docker refused something else.
    #[error("Docker cannot {what}: {reason}")]
    Docker {
        /// What was tried.
        what: String,
        /// What Docker said.
        reason: String,
    },
}

impl BrokerError {
    /// What the reader can do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::PortInUse { transport, address } => format!(
                "stop what listens there (`ss -lp{} 'sport = :{}'` names it), or let the harness choose a free port",
                if *transport == Transport::Quic { "u" } else { "t" },
                address.port()
            ),
            Self::Listen { .. } => "choose an address of this machine and a port above 1023".into(),
            Self::Certificate(_) | Self::Tls(_) | Self::Core(_) => {
                "this is a fault of the harness; please report it with the message above".into()
            }
            Self::ProcessLost { .. } => {
                "see who ended it (`dmesg` tells of want of memory); then run again".into()
            }
            Self::File { .. } => "check that the path is right and the file readable".into(),
            Self::FolderInTheWay { path } => format!(
                "remove it: `sudo rmdir {}`; Docker makes such a folder, as root, when it is told to mount a file that \
                 does not exist yet",
                path.display()
            ),
            Self::NoCertificate(_) => {
                "give the root certificate as PEM: a block that starts with -----BEGIN CERTIFICATE-----".into()
            }
            Self::Credentials { .. } => {
                "give the chain and its key as PEM, the key as PKCS #8 (`openssl pkcs8 -topk8 -nodes`)".into()
            }
            Self::Resolve { .. } => "check the spelling, or give the address itself".into(),
            Self::Unreachable { url, .. } => format!(
                "check host and port, that the broker runs, and that no firewall drops {}",
                if url.starts_with("quic") { "UDP" } else { "TCP" }
            ),
            Self::UnknownAuthority { .. } => {
                "give the root that signed it with `--ca FILE`; verification cannot be switched off".into()
            }
            Self::WrongHost { host, .. } => format!(
                "use the host name the certificate bears, or issue one whose subjectAltName lists `{host}`"
            ),
            Self::NotValidNow { .. } => "renew the broker's certificate, and check this machine's clock".into(),
            Self::AlpnRefused { .. } => {
                "check that the port is the broker's MQTT-over-QUIC listener (EMQX: 14567), not one for HTTP/3".into()
            }
            Self::Handshake { .. } => {
                "check that the port belongs to the transport of the URL, and the broker's own log".into()
            }
            Self::Refused { .. } => {
                "allow anonymous clients, and topics below `harness/`, for the duration of the run".into()
            }
            Self::Standing(_) => format!(
                "`harness broker --issue {}`, then `docker compose up -d emqx`, in the folder you run this in",
                super::COMPOSE_CA.trim_end_matches("/ca.pem")
            ),
            Self::FaultUnsupported { .. } => {
                "run this scenario with `--broker embedded`, or a Docker broker".into()
            }
            Self::FaultOutOfPlace { .. } => "check the order of the broker steps in the scenario".into(),
            Self::TimedOut { .. } => "check the broker's own log; a loaded machine may need another try".into(),
            Self::NoDocker(_) => {
                "install and start Docker (`systemctl start docker`), join the group `docker`, or use `--broker embedded`".into()
            }
            Self::NoImage { image, .. } => format!(
                "run `docker pull {image}` where a registry can be reached (`docker save` and `docker load` carry it over), or use `--broker embedded`"
            ),
            Self::NotReady { .. } => {
                "read the lines above; on a slow machine, stop other work and try again".into()
            }
            Self::Command { .. } => {
                "read what it says; an image that is not EMQX's own, or of a release before 5.8, may lack the command"
                    .into()
            }
            Self::NotRotated { .. } => {
                "read the broker's own log (`broker.log` in the report folder): it could not read or use the files".into()
            }
            Self::NoSuchClient { .. } => {
                "let the step come while the client is connected (`after = \"connected\"`, a later `at`)".into()
            }
            Self::ContainerExited { .. } => "read the lines above; settings that the image does not know, or files that its user may not read, are the usual causes".into(),
            Self::ContainerLost { .. } => {
                "read the lines above, and see who ended it (`docker events --since 10m`); then run again".into()
            }
            Self::Docker { .. } => "check `docker info` and the free space of the disk".into(),
        }
    }
}

/// What a command wrote, where it wrote something.
fn after_colon(output: &str) -> String {
    if output.is_empty() { String::new() } else { format!(":\n{output}") }
}
