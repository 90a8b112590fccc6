//! The client on the emulated board as the client of a simulation.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use device::client::EarlyData;
use device::crypto::CipherSuite;
use device::mqtt::Qos;
use device::quic::PathChange;
use simulate::{ClientSide, Clock};
use tempfile::TempDir;

use super::{CostError, Part, Phase};
use crate::board::BoardError;
use crate::board::qemu;
use crate::firmware::elf::Elf;

/// Time QEMU has to connect to its console.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Time the program has for one answer: a handshake's longest step takes a fraction of a second on a quiet host.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// The program on the board, one request at a time. Ends with this value.
pub(super) struct Remote {
    child: Child,
    console: UnixStream,
    _directory: TempDir,
    /// The first thing that went wrong; nothing is asked after it.
    failure: Option<String>,
    outgoing: VecDeque<Vec<u8>>,
    due: Option<Clock>,
    bytes: u64,
    datagrams: u64,
    /// CONNACKs.
    pub(super) connections: usize,
    /// Publications completed.
    pub(super) acknowledged: usize,
    /// Whether the client is at rest after [`Remote::disconnect`].
    pub(super) is_stopped: bool,
}

impl Remote {
    /// Starts `elf` on the emulated machine with exact counting.
    pub(super) fn start(elf: &Path) -> Result<Self, CostError> {
        let failed = |what: String, remedy: &str| BoardError::Start { what, remedy: remedy.to_owned() };
        let elf = Elf::open(elf).map_err(|error| failed(error.to_string(), qemu::REBUILD))?;
        let directory = tempfile::Builder::new()
            .prefix("harness-cost-")
            .tempdir()
            .map_err(|error| failed(format!("no temporary directory: {error}"), "check $TMPDIR"))?;
        let flash = directory.path().join("flash.bin");
        qemu::write_flash(&elf, &flash)?;
        let socket = directory.path().join("console");
        let listener = UnixListener::bind(&socket)
            .map_err(|error| failed(format!("no socket for the console: {error}"), "check $TMPDIR"))?;
        let mut child = qemu::bare_command(&flash, &socket)
            .and_then(|mut command: Command| {
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
            })
            .map_err(|error| failed(format!("cannot run QEMU: {error}"), qemu::INSTALL))?;
        match accept(&listener, &mut child) {
            Ok(console) => Ok(Self::new(child, console, directory)),
            Err(cause) => {
                // Fails only if it has ended already.
                let _ = child.kill();
                let mut said = String::new();
                if let Some(mut errors) = child.stderr.take() {
                    let _ = errors.read_to_string(&mut said);
                }
                let _ = child.wait();
                Err(failed(format!("QEMU: {cause}: {}", said.trim()), qemu::INSTALL).into())
            }
        }
    }

    fn new(child: Child, console: UnixStream, directory: TempDir) -> Self {
        Self {
            child,
            console,
            _directory: directory,
            failure: None,
            outgoing: VecDeque::new(),
            due: None,
            bytes: 0,
            datagrams: 0,
            connections: 0,
            acknowledged: 0,
            is_stopped: false,
        }
    }

    /// Waits for the program and tells it its world; returns the size of the client.
    pub(super) fn introduce(&mut self, unix_s: u64, seed: u64, fields: &[&[u8]]) -> Result<u64, CostError> {
        let mut contents = [unix_s.to_be_bytes(), seed.to_be_bytes()].concat();
        for field in fields {
            contents.extend_from_slice(&(field.len() as u16).to_be_bytes());
            contents.extend_from_slice(field);
        }
        let ready = self.answer().map_err(CostError::Program)?;
        let size = figures(ready).map_err(CostError::Program)?;
        self.figures(b'H', &contents)?;
        size.first().copied().ok_or_else(|| CostError::Program("it did not tell the client's size".into()))
    }

    /// Instructions of X25519's two halves.
    pub(super) fn key_exchange(&mut self) -> Result<u64, CostError> {
        self.figure(b'K', &[])
    }

    /// Instructions of sealing a packet of 100 bytes.
    pub(super) fn sealing(&mut self, suite: CipherSuite) -> Result<u64, CostError> {
        self.figure(b'A', &[u8::from(suite == CipherSuite::Aes128GcmSha256)])
    }

    /// Instructions of one P-256 verification.
    pub(super) fn verification(
        &mut self,
        key: &[u8],
        signature: &[u8],
        message: &[u8],
    ) -> Result<u64, CostError> {
        let len = (signature.len() as u16).to_be_bytes();
        self.figure(b'V', &[key, &len, signature, message].concat())
    }

    /// Whether something went wrong; [`Remote::mark`] tells what.
    pub(super) const fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Ends a part of the session.
    pub(super) fn mark(&mut self, name: &'static str) -> Result<Part, CostError> {
        let figures = self.figures(b'M', &[])?;
        let [instructions, stack, handshake, tickets, phases @ ..] = figures.as_slice() else {
            return Err(CostError::Program("too few figures at the end of a part".into()));
        };
        let phases = phases.as_chunks::<2>().0.iter();
        Ok(Part {
            name,
            instructions: *instructions,
            stack: *stack,
            handshake_packets: *handshake,
            tickets: *tickets,
            bytes: std::mem::take(&mut self.bytes),
            datagrams: std::mem::take(&mut self.datagrams),
            phases: phases.filter_map(|&[event, until]| Some((phase(event as u8)?, until))).collect(),
        })
    }

    pub(super) fn connect(&mut self, now: Clock, early_data: EarlyData) {
        self.is_stopped = false;
        self.step(b'C', now, &[u8::from(early_data == EarlyData::IfPossible)]);
    }

    pub(super) fn disconnect(&mut self, now: Clock) {
        self.step(b'X', now, &[]);
    }

    pub(super) fn publish(&mut self, now: Clock, qos: Qos, topic: &str, payload: &[u8]) {
        let head = [qos.bits(), topic.len() as u8];
        self.step(b'P', now, &[&head, topic.as_bytes(), payload].concat());
    }

    /// A call of the client; what it wants is queued.
    fn step(&mut self, tag: u8, now: Clock, rest: &[u8]) {
        if self.failure.is_none()
            && let Err(cause) = self.try_step(tag, now, rest)
        {
            self.failure = Some(cause);
        }
    }

    fn try_step(&mut self, tag: u8, now: Clock, rest: &[u8]) -> Result<(), String> {
        self.ask(tag, &[&now.as_micros().to_be_bytes(), rest].concat())?;
        loop {
            let (tag, contents) = self.answer()?;
            match (tag, contents.as_slice()) {
                (b'S', datagram) => {
                    self.bytes += datagram.len() as u64;
                    self.datagrams += 1;
                    self.outgoing.push_back(contents);
                }
                (b'E', [b'C']) => self.connections += 1,
                (b'E', [b'A']) => self.acknowledged += 1,
                (b'E', [b'X']) => self.is_stopped = true,
                (b'E', _) => {}
                (b'W', due) => {
                    let due = <[u8; 8]>::try_from(due).ok();
                    self.due = due.map(|due| Clock::from_micros(u64::from_be_bytes(due)));
                    return Ok(());
                }
                _ => return Err(refusal(tag, &contents)),
            }
        }
    }

    fn figure(&mut self, tag: u8, contents: &[u8]) -> Result<u64, CostError> {
        let figures = self.figures(tag, contents)?;
        figures.first().copied().ok_or_else(|| CostError::Program("an answer without a figure".into()))
    }

    fn figures(&mut self, tag: u8, contents: &[u8]) -> Result<Vec<u64>, CostError> {
        let answer = match self.failure.take() {
            Some(failure) => Err(failure),
            None => self.ask(tag, contents).and_then(|()| self.answer()),
        };
        answer.and_then(figures).map_err(CostError::Program)
    }

    fn ask(&mut self, tag: u8, contents: &[u8]) -> Result<(), String> {
        let mut request = vec![tag];
        request.extend_from_slice(&(contents.len() as u16).to_be_bytes());
        request.extend_from_slice(contents);
        self.console.write_all(&request).map_err(|error| self.silence(&error))
    }

    fn answer(&mut self) -> Result<(u8, Vec<u8>), String> {
        let mut head = [0; 3];
        self.console.read_exact(&mut head).map_err(|error| self.silence(&error))?;
        let [tag, len @ ..] = head;
        if !b"SEWR!".contains(&tag) {
            return Err(self.last_words(&head));
        }
        let mut contents = vec![0; usize::from(u16::from_be_bytes(len))];
        self.console.read_exact(&mut contents).map_err(|error| self.silence(&error))?;
        Ok((tag, contents))
    }

    /// What an answer that is none says: the program's crash report.
    fn last_words(&mut self, head: &[u8]) -> String {
        let mut rest = Vec::new();
        // It ends the machine after its report, and so the stream; the limit on reading ends anything else.
        let _ = self.console.read_to_end(&mut rest);
        String::from_utf8_lossy(&[head, &rest].concat()).trim().to_owned()
    }

    fn silence(&mut self, error: &std::io::Error) -> String {
        match self.child.try_wait() {
            Ok(Some(status)) => format!("QEMU ended with {status}"),
            _ => format!("no answer: {error}"),
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl ClientSide for Remote {
    fn handle_datagram(&mut self, now: Clock, datagram: &mut [u8]) {
        self.step(b'D', now, datagram);
    }

    fn handle_timeout(&mut self, now: Clock) {
        self.step(b'T', now, &[]);
    }

    fn poll_transmit(&mut self, _: Clock, buffer: &mut [u8]) -> Option<usize> {
        let datagram = self.outgoing.pop_front()?;
        buffer[..datagram.len()].copy_from_slice(&datagram);
        Some(datagram.len())
    }

    fn poll_timeout(&mut self) -> Option<Clock> {
        // After a failure there is nothing left to wait for.
        self.due.filter(|_| self.failure.is_none())
    }

    fn on_local_address_changed(&mut self, _: Clock, _: PathChange) {}
}

fn phase(event: u8) -> Option<Phase> {
    Some(match event {
        b's' => Phase::Started,
        b'h' => Phase::ServerHello,
        b'v' => Phase::CertificateVerified,
        b'c' => Phase::HandshakeComplete,
        b'f' => Phase::HandshakeConfirmed,
        b'w' => Phase::ConnectWritten,
        b'C' => Phase::Connected,
        _ => return None,
    })
}

fn figures((tag, contents): (u8, Vec<u8>)) -> Result<Vec<u64>, String> {
    if tag != b'R' {
        return Err(refusal(tag, &contents));
    }
    Ok(contents.as_chunks::<8>().0.iter().copied().map(u64::from_be_bytes).collect())
}

fn refusal(tag: u8, contents: &[u8]) -> String {
    match tag {
        b'!' => format!("it refused: {}", String::from_utf8_lossy(contents)),
        _ => format!("an answer `{}` out of turn", char::from(tag)),
    }
}

fn accept(listener: &UnixListener, child: &mut Child) -> Result<UnixStream, String> {
    let text = |error: std::io::Error| error.to_string();
    listener.set_nonblocking(true).map_err(text)?;
    let deadline = Instant::now() + START_LIMIT;
    loop {
        match listener.accept() {
            Ok((console, _)) => {
                console.set_nonblocking(false).map_err(text)?;
                console.set_read_timeout(Some(ANSWER_LIMIT)).map_err(text)?;
                console.set_write_timeout(Some(ANSWER_LIMIT)).map_err(text)?;
                return Ok(console);
            }
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return Err(text(error)),
            Err(_) => {}
        }
        if let Some(status) = child.try_wait().map_err(text)? {
            return Err(status.to_string());
        }
        if Instant::now() > deadline {
            return Err(format!("it did not connect to its console within {START_LIMIT:?}"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
