//! The broker of a fleet. The embedded one runs as a process of its own, so that its memory and processor time
//! are not taken for the fleet's, and so that killing it is what it says.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use crate::board::folder::Folder;
use crate::broker::{
    Broker, BrokerAddresses, BrokerDescription, BrokerError, BrokerOptions, BrokerSpec, Fault, SessionState,
    Trust,
};
use crate::certificates::{Certificates, Flaw, SERVER_NAME};
use crate::measure::Transport;

/// Longest the broker's process may take until it serves.
const READY_LIMIT: Duration = Duration::from_secs(20);
/// Longest it may take to end when it is asked to.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// Lines of its last words that an error shows.
const LAST_LINES: usize = 10;

const PROCESS_PRODUCT: &str =
    concat!("embedded broker of harness ", env!("CARGO_PKG_VERSION"), ", in a process of its own");

/// How the broker goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Storm {
    /// It does not.
    None,
    /// It closes its connections and ends: every device knows at once.
    Stop,
    /// It is killed: every device has to find out.
    Kill,
}

/// A broker that serves a fleet.
pub(super) enum FleetBroker {
    /// A process of this program.
    Process(Box<Process>),
    /// One that the harness starts in a container or finds running.
    Other(Box<Broker>),
}

impl FleetBroker {
    /// Starts it, or checks that it answers.
    pub(super) async fn start(
        spec: BrokerSpec,
        certificates: Arc<Certificates>,
        log: &Path,
    ) -> Result<Self, BrokerError> {
        let (spec, stands_in) = crate::broker::settle(spec).await;
        if spec == BrokerSpec::Embedded {
            let log = log.to_owned();
            let started = tokio::task::spawn_blocking(move || Process::start(certificates, &log, stands_in));
            return Ok(Self::Process(Box::new(started.await.expect("starting a process does not panic")?)));
        }
        let broker = Broker::start(spec, certificates, BrokerOptions::default()).await?;
        Ok(Self::Other(Box::new(broker)))
    }

    pub(super) fn addresses(&self) -> BrokerAddresses {
        match self {
            Self::Process(process) => process.addresses,
            Self::Other(broker) => broker.addresses(),
        }
    }

    pub(super) fn trust(&self) -> Trust {
        match self {
            Self::Process(process) => Trust {
                server_name: SERVER_NAME.to_owned(),
                roots: process.certificates.trust(),
                anchor: Some(process.certificates.root().clone()),
            },
            Self::Other(broker) => broker.trust(),
        }
    }

    pub(super) fn certificates(&self) -> &Certificates {
        match self {
            Self::Process(process) => &process.certificates,
            Self::Other(broker) => broker.certificates(),
        }
    }

    pub(super) fn describe(&self) -> BrokerDescription {
        match self {
            Self::Process(process) => BrokerDescription {
                spec: BrokerSpec::Embedded.to_string(),
                version: Some(PROCESS_PRODUCT.to_owned()),
                product: match &process.stands_in {
                    Some(why) => format!("{PROCESS_PRODUCT}; in place of EMQX: {why}"),
                    None => PROCESS_PRODUCT.to_owned(),
                },
                image_digest: None,
                addresses: process.addresses,
            },
            Self::Other(broker) => broker.describe(),
        }
    }

    /// Why it is not EMQX although that was wanted first; `None` if it is what was asked for.
    pub(super) fn stands_in(&self) -> Option<&str> {
        match self {
            Self::Process(process) => process.stands_in.as_deref(),
            Self::Other(broker) => broker.stands_in(),
        }
    }

    /// Its process identifier, if it is a process of ours.
    pub(super) fn pid(&self) -> Option<u32> {
        match self {
            Self::Process(process) => process.child.as_ref().map(|running| running.child.id()),
            Self::Other(_) => None,
        }
    }

    /// Makes it go away.
    pub(super) async fn go(&mut self, storm: Storm) -> Result<(), BrokerError> {
        match (self, storm) {
            (_, Storm::None) => Ok(()),
            (Self::Process(process), Storm::Stop) => process.stop().await,
            (Self::Process(process), Storm::Kill) => {
                process.kill();
                Ok(())
            }
            (Self::Other(broker), Storm::Stop) => broker.apply(&Fault::Stop).await,
            (Self::Other(broker), Storm::Kill) => broker.apply(&Fault::Kill).await,
        }
    }

    /// Why it no longer serves although nobody told it to go.
    pub(super) async fn lost(&mut self) -> Option<BrokerError> {
        match self {
            Self::Process(process) => process.lost(),
            Self::Other(broker) => broker.lost().await,
        }
    }

    /// Resolves when it no longer serves although nobody told it to go, as far as that can be noticed at once.
    pub(super) fn loss(&self) -> impl Future<Output = ()> + use<> {
        let loss = match self {
            Self::Process(_) => None,
            Self::Other(broker) => Some(broker.loss()),
        };
        async move {
            match loss {
                Some(loss) => loss.await,
                None => std::future::pending().await,
            }
        }
    }

    /// Brings it back at the same addresses, without its sessions.
    pub(super) async fn come_back(&mut self) -> Result<(), BrokerError> {
        match self {
            Self::Process(process) => tokio::task::block_in_place(|| process.spawn()),
            Self::Other(broker) => broker.apply(&Fault::Start(SessionState::Lost)).await,
        }
    }

    /// What it wrote, where it does not write into the report folder itself.
    pub(super) fn log(&self) -> Option<String> {
        match self {
            Self::Process(_) => None,
            Self::Other(broker) => broker.log(),
        }
    }

    pub(super) async fn shut_down(self) {
        match self {
            Self::Process(mut process) => {
                let _ = process.stop().await;
            }
            Self::Other(broker) => broker.shut_down().await,
        }
    }
}

/// The embedded broker as a process.
pub(super) struct Process {
    certificates: Arc<Certificates>,
    /// Why it is not the one that was wanted first.
    stands_in: Option<String>,
    /// Certificate and key. Should this process be killed, the next one removes them.
    files: Folder,
    log: PathBuf,
    addresses: BrokerAddresses,
    child: Option<Running>,
}

struct Running {
    child: Child,
    /// The broker ends when this closes: when we let go of it, or die.
    _stdin: ChildStdin,
}

impl Process {
    fn start(
        certificates: Arc<Certificates>,
        log: &Path,
        stands_in: Option<String>,
    ) -> Result<Self, BrokerError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| BrokerError::File { what: "writing the broker's certificates into", path, source }
        };
        let files = Folder::new().map_err(failed(&std::env::temp_dir()))?;
        let identity = certificates.server(Flaw::None)?;
        for (name, text) in [("cert.pem", identity.chain_pem()), ("key.pem", identity.key_pem())] {
            let path = files.path().join(name);
            // For nobody else on this machine to read.
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
            file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed(&path))?;
        }
        let addresses = BrokerAddresses::default();
        let mut process =
            Self { certificates, stands_in, files, log: log.to_owned(), addresses, child: None };
        process.spawn()?;
        Ok(process)
    }

    /// Starts the process at the addresses it had before, or at free ones, and waits until it serves.
    fn spawn(&mut self) -> Result<(), BrokerError> {
        let failed = |error: &dyn std::fmt::Display| BrokerError::Core(format!("its process: {error}"));
        let program = std::env::current_exe().map_err(|error| failed(&error))?;
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(|source| BrokerError::File { what: "opening", path: self.log.clone(), source })?;
        let port = |address: Option<SocketAddr>| address.map_or(0, |address| address.port()).to_string();
        let mut command = Command::new(program);
        command.args(["broker", "--attended", "--bind", "127.0.0.1"]);
        for transport in Transport::ALL {
            command.arg(format!("--{transport}")).arg(port(self.addresses.get(transport)));
        }
        command.arg("--certificate").arg(self.files.path().join("cert.pem"));
        command.arg("--key").arg(self.files.path().join("key.pem"));
        // A Ctrl-C at the terminal is for the harness: the broker goes when the fleet has taken its leave.
        command.process_group(0);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(|error| failed(&error))?;
        let stdin = child.stdin.take().expect("it is piped");
        let stdout = child.stdout.take().expect("it is piped");
        let (sender, ready) = mpsc::channel();
        std::thread::spawn(move || {
            let mut addresses = BrokerAddresses::default();
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line == "ready" {
                    let _ = sender.send(addresses);
                } else {
                    take_address(&mut addresses, &line);
                }
            }
        });
        self.child = Some(Running { child, _stdin: stdin });
        match ready.recv_timeout(READY_LIMIT) {
            Ok(addresses) => {
                self.addresses = addresses;
                Ok(())
            }
            Err(_) => {
                self.kill();
                let last = self.last_lines();
                Err(failed(&format!("not ready within {READY_LIMIT:?}, or ended; its last lines:\n{last}")))
            }
        }
    }

    fn lost(&mut self) -> Option<BrokerError> {
        let status = self.child.as_mut()?.child.try_wait().ok()??;
        Some(BrokerError::ProcessLost { status: status.to_string(), log: self.last_lines() })
    }

    fn last_lines(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }

    /// Asks it to end, and waits.
    async fn stop(&mut self) -> Result<(), BrokerError> {
        let Some(running) = &mut self.child else { return Ok(()) };
        let pid = i32::try_from(running.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let deadline = tokio::time::Instant::now() + STOP_LIMIT;
        while tokio::time::Instant::now() < deadline {
            if !matches!(running.child.try_wait(), Ok(None)) {
                self.child = None;
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.kill();
        Err(BrokerError::Core(format!("its process does not end within {STOP_LIMIT:?}; it was killed")))
    }

    fn kill(&mut self) {
        if let Some(mut running) = self.child.take() {
            // Dead already is as good.
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Reads a line such as `quic quic://127.0.0.1:14567`.
fn take_address(addresses: &mut BrokerAddresses, line: &str) {
    let Some((transport, url)) = line.split_once(' ') else { return };
    let address = url.split_once("://").and_then(|(_, address)| address.parse().ok());
    match transport {
        "quic" => addresses.quic = address,
        "tls" => addresses.tls = address,
        "tcp" => addresses.tcp = address,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_the_broker_prints_them() {
        let mut addresses = BrokerAddresses::default();
        for line in ["quic quic://127.0.0.1:40000", "tcp mqtt://127.0.0.1:40001", "something else"] {
            take_address(&mut addresses, line);
        }
        assert_eq!(addresses.quic, Some("127.0.0.1:40000".parse().expect("an address")));
        assert_eq!(addresses.tcp, Some("127.0.0.1:40001".parse().expect("an address")));
        assert_eq!(addresses.tls, None);
    }
}
