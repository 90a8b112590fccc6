//! The console as a byte stream: a thread reads the port, tasks take what it read.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use device::control::frame::{self, Decoder, FRAME_MAX, Piece};
use device::control::{Answer, Command, Event, Refusal, Report, Request, WifiFailure};
use serialport::TTYPort;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;

use super::Fault;
use super::port::{Into, Port, Wiring};

/// Bytes of console output kept for a post-mortem: a crash report with a page of stack.
const LAST_WORDS: usize = 32 * 1024;
/// Time a port has to take what is written; a wedged USB-Serial-JTAG takes nothing.
const WRITE_LIMIT: Duration = Duration::from_secs(2);

/// A port that is being read and written; dropping it ends both and closes the port.
pub struct Session {
    port: Port,
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
    writer: Arc<Mutex<Option<TTYPort>>>,
}

/// What comes out of a port.
pub struct Incoming {
    before: VecDeque<u8>,
    chunks: mpsc::UnboundedReceiver<Vec<u8>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    last_words: Mutex<VecDeque<u8>>,
    /// Why the port ended, once it did.
    ended: Mutex<Option<io::Error>>,
    /// The board runs: a start of the ROM from now on is one that nobody asked for.
    running: AtomicBool,
    restarted: AtomicBool,
}

impl Session {
    /// Starts to read and write `port`.
    ///
    /// # Errors
    /// [`Fault::Port`].
    pub fn start(port: Port) -> Result<(Self, Incoming), Fault> {
        let (tty, writer) = (port.handle()?, port.handle()?);
        let shared = Arc::<Shared>::default();
        let (sender, chunks) = mpsc::unbounded_channel();
        let theirs = Arc::clone(&shared);
        let reader = std::thread::Builder::new()
            .name("console".to_owned())
            .spawn(move || read(tty, &theirs, &sender))
            .map_err(|error| Fault::Port { port: port.path().into(), cause: error.to_string() })?;
        let writer = Arc::new(Mutex::new(Some(writer)));
        Ok((
            Self { port, shared, reader: Some(reader), writer },
            Incoming { before: VecDeque::new(), chunks },
        ))
    }

    /// The port.
    pub fn port(&mut self) -> &mut Port {
        &mut self.port
    }

    /// A way to write to the port while this session lives.
    ///
    /// # Errors
    /// [`Fault::Port`].
    pub fn outgoing(&self) -> Result<Outgoing, Fault> {
        let tty = Arc::clone(&self.writer);
        // Commands wait for their answers, so no more than a few are ever under way.
        let (sender, commands) = mpsc::unbounded_channel();
        std::thread::Builder::new()
            .name("console-out".to_owned())
            .spawn(move || write(&tty, commands))
            .map_err(|error| Fault::Port { port: self.port.path().into(), cause: error.to_string() })?;
        Ok(Outgoing(sender))
    }

    /// Resets the chip: by the control lines, or, where there are none, into its firmware by command. Takes some 200 ms
    /// and blocks.
    ///
    /// # Errors
    /// As [`Port::reset`].
    pub fn reset(&mut self, into: Into) -> Result<(), Fault> {
        if self.port.wiring() == Wiring::Bare && into == Into::Firmware {
            self.outgoing()?.send(command(Request::Reboot).1);
            return Ok(());
        }
        self.port.reset(into)
    }

    /// From now on the board's restart ends the console: what ran before is dead, as a process would be.
    pub fn expect_no_restart(&self) {
        self.shared.running.store(true, Ordering::Relaxed);
    }

    /// A look at the last words that outlives this session.
    pub fn memory(&self) -> Memory {
        Memory(Arc::clone(&self.shared))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Waits for a command under way, which has a time limit.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(reader) = self.reader.take() {
            // It looks every READ_WAIT; until then the port cannot be opened again.
            let _ = reader.join();
        }
    }
}

impl Incoming {
    /// The next bytes; `None` once the port has ended.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        self.chunks.recv().await
    }

    /// Gives `bytes`, which were read before, once more.
    pub fn give_back(&mut self, bytes: Vec<u8>) {
        self.before = bytes.into();
    }
}

/// What a port said last, and why it ended.
#[derive(Clone)]
pub struct Memory(Arc<Shared>);

impl Memory {
    /// The last words as text.
    pub fn last_words(&self) -> String {
        let words = self.0.last_words.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&words.iter().copied().collect::<Vec<_>>()).into_owned()
    }

    /// Whether the chip started again without being asked.
    pub fn restarted(&self) -> bool {
        self.0.restarted.load(Ordering::Relaxed)
    }

    /// Why the port ended, if it did.
    pub fn end(&self) -> Option<String> {
        let ended = self.0.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.as_ref().map(ToString::to_string)
    }
}

fn read(mut tty: TTYPort, shared: &Shared, chunks: &mpsc::UnboundedSender<Vec<u8>>) {
    let mut buffer = vec![0; 16 * 1024];
    let mut watch = Watch::default();
    while !shared.stop.load(Ordering::Relaxed) {
        if watch.is_over() {
            shared.restarted.store(true, Ordering::Relaxed);
            return;
        }
        let error = match tty.read(&mut buffer) {
            Ok(0) => io::Error::from(ErrorKind::UnexpectedEof),
            Ok(len) => {
                shared.remember(&buffer[..len]);
                if shared.running.load(Ordering::Relaxed) {
                    watch.look(&buffer[..len]);
                }
                if chunks.send(buffer[..len].to_vec()).is_err() {
                    return;
                }
                continue;
            }
            Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::Interrupted) => continue,
            Err(error) => error,
        };
        *shared.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        return;
    }
}

/// Looks out for the ROM's first words.
#[derive(Default)]
struct Watch {
    tail: Vec<u8>,
    seen: Option<Instant>,
}

/// What the ROM says first.
const ROM_START: &[u8] = b"ESP-ROM:esp32c3";
/// From there to the end of its line on the reset's cause.
const ROM_TALK: Duration = Duration::from_millis(200);

impl Watch {
    fn look(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        if self.seen.is_none() && self.tail.windows(ROM_START.len()).any(|words| words == ROM_START) {
            self.seen = Some(Instant::now());
        }
        let kept = self.tail.len().min(ROM_START.len() - 1);
        self.tail.drain(..self.tail.len() - kept);
    }

    fn is_over(&self) -> bool {
        self.seen.is_some_and(|seen| seen.elapsed() >= ROM_TALK)
    }
}

impl Shared {
    fn remember(&self, bytes: &[u8]) {
        let mut words = self.last_words.lock().unwrap_or_else(PoisonError::into_inner);
        words.extend(bytes);
        let excess = words.len().saturating_sub(LAST_WORDS);
        words.drain(..excess);
    }
}

impl AsyncRead for Incoming {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.before.is_empty() {
            match self.chunks.poll_recv(context) {
                Poll::Pending => return Poll::Pending,
                // The end of the stream.
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Ready(Some(chunk)) => self.before = chunk.into(),
            }
        }
        let (front, _) = self.before.as_slices();
        let len = front.len().min(into.remaining());
        into.put_slice(&front[..len]);
        self.before.drain(..len);
        Poll::Ready(Ok(()))
    }
}

/// Writes from a thread, since a port may block.
#[derive(Clone)]
pub struct Outgoing(mpsc::UnboundedSender<Vec<u8>>);

impl Outgoing {
    /// Writes `bytes` as soon as the port takes them; they are lost if it is gone.
    pub fn send(&self, bytes: Vec<u8>) {
        let _ = self.0.send(bytes);
    }
}

fn write(tty: &Mutex<Option<TTYPort>>, mut commands: mpsc::UnboundedReceiver<Vec<u8>>) {
    use serialport::SerialPort as _;
    while let Some(command) = commands.blocking_recv() {
        let mut tty = tty.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(tty) = tty.as_mut() else { return };
        // Should that fail, the port keeps the shorter time it was opened with.
        let _ = tty.set_timeout(WRITE_LIMIT);
        if tty.write_all(&command).is_err() {
            return;
        }
    }
}

impl AsyncWrite for Outgoing {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let sent = self.0.send(bytes.to_vec()).map(|()| bytes.len());
        Poll::Ready(sent.map_err(|_| io::Error::from(ErrorKind::BrokenPipe)))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A command as bytes on the wire, before anybody speaks the protocol with the board, and its number.
pub(super) fn command(request: Request) -> (u32, Vec<u8>) {
    // Never the number of the last command of another harness.
    let sequence = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.subsec_nanos());
    let mut bytes = vec![0; FRAME_MAX];
    let len =
        frame::encode(&Command { sequence, request }, &mut bytes).expect("FRAME_MAX bytes hold any command");
    bytes.truncate(len);
    (sequence, bytes)
}

/// What was heard while waiting for a boot report: enough to say what is wrong when none came.
#[derive(Debug)]
pub struct Evidence {
    decoder: Decoder<FRAME_MAX>,
    /// All text so far.
    pub text: String,
    /// How many bytes of it came.
    pub text_bytes: usize,
    /// The first bytes, as they came.
    pub first: Vec<u8>,
    /// How many bytes came.
    pub heard: usize,
    /// Frames that held a report.
    pub reports: usize,
    /// The boot report has come.
    pub booted: bool,
    /// The interface has a link: the wireless network is joined.
    pub link_up: bool,
    /// The last failure to join, with the radio's code.
    pub wifi_failure: Option<(WifiFailure, u16)>,
    /// The command that was answered last.
    pub answered: Option<u32>,
    /// The board refused it.
    pub refusal: Option<Refusal>,
    /// The command to restart, until it is answered.
    pub restart: Option<u32>,
    /// A boot report came before that answer: of the life before, if an answer follows.
    pub unconfirmed: bool,
}

/// Bytes kept as a sample.
const SAMPLE: usize = 12;

impl Default for Evidence {
    fn default() -> Self {
        let (text, first) = (String::new(), Vec::new());
        let (booted, link_up) = (false, false);
        let decoder = Decoder::new();
        Self {
            restart: None,
            unconfirmed: false,
            decoder,
            text,
            text_bytes: 0,
            first,
            heard: 0,
            reports: 0,
            booted,
            link_up,
            wifi_failure: None,
            answered: None,
            refusal: None,
        }
    }
}

impl Evidence {
    /// Hears `bytes`.
    pub fn hear(&mut self, bytes: &[u8]) {
        self.heard += bytes.len();
        let wanted = SAMPLE.saturating_sub(self.first.len()).min(bytes.len());
        self.first.extend_from_slice(&bytes[..wanted]);
        let mut input = bytes;
        while let Some(piece) = self.decoder.next(&mut input) {
            match piece {
                Piece::Text(text) => {
                    let printable = text.iter().filter(|&&byte| is_printable(byte)).count();
                    // Noise has some bytes that look like text; text has next to none that do not.
                    if printable * 10 >= text.len() * 9 {
                        self.text.push_str(&String::from_utf8_lossy(text));
                        self.text_bytes += text.len();
                    }
                }
                Piece::Damaged(_) => {}
                Piece::Message(message) => {
                    if let Ok(report) = Report::decode(message) {
                        self.reports += 1;
                        self.take(&report);
                    }
                }
            }
        }
    }
}

impl Evidence {
    fn take(&mut self, report: &Report) {
        match report {
            Report::Boot(_) if self.restart.is_none() => (self.booted, self.link_up) = (true, false),
            Report::Boot(_) => self.unconfirmed = true,
            Report::Reply { sequence, .. } if self.restart == Some(*sequence) => {
                (self.restart, self.unconfirmed) = (None, false);
            }
            Report::Reply { sequence, answer } => {
                self.answered = Some(*sequence);
                self.refusal = match answer {
                    Answer::Refused(refusal) => Some(*refusal),
                    _ => None,
                };
            }
            Report::Event { event: Event::LinkUp, .. } => self.link_up = true,
            Report::Event { event: Event::WifiFailed { failure, code, .. }, .. } => {
                self.wifi_failure = Some((*failure, *code));
            }
            _ => {}
        }
    }
}

fn is_printable(byte: u8) -> bool {
    matches!(byte, b' '..=b'~' | b'\r' | b'\n' | b'\t' | 0x1b)
}
