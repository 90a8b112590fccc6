//! The console: frames, text and damage told apart; commands and their answers matched.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use device::control::frame::{self, Decoder, FRAME_MAX, Piece};
use device::control::{Answer, Command, Report, Request};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::log::Log;
use super::{BoardError, ClockSample, Connection, Death};

/// After how long a command is sent again: its frame or its answer may have been damaged.
const REPEAT_AFTER: Duration = Duration::from_millis(1_000);
/// Lines of a panic report that are kept.
const PANIC_LINES_MAX: usize = 200;

/// Something with the harness's time at which it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Timed<T> {
    /// Microseconds since the epoch of the board's options.
    pub at_us: u64,
    /// What.
    pub what: T,
}

/// What a board says.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(clippy::large_enum_variant, reason = "most of them are reports")]
pub enum Output {
    /// A report that is no answer to a command.
    Report(Report),
    /// A piece of log or panic text.
    Text(String),
    /// Bytes that were a frame once, or noise.
    Damaged(usize),
}

/// Sends commands and waits for their answers. Cheap to clone.
#[derive(Clone)]
pub struct Commander {
    shared: Arc<Shared>,
    frames: mpsc::Sender<Vec<u8>>,
    limit: Duration,
}

struct Shared {
    epoch: Instant,
    log: Log,
    next_sequence: AtomicU32,
    state: Mutex<State>,
    /// Ends the tasks when the last handle goes.
    tasks: Mutex<Vec<AbortOnDropHandle<()>>>,
}

#[derive(Default)]
struct State {
    waiting: HashMap<u32, oneshot::Sender<(u64, Answer)>>,
    panic: Vec<String>,
    dead: bool,
}

/// Takes over a console. The receiver ends when the console does.
pub(super) fn open(
    connection: Connection,
    epoch: Instant,
    limit: Duration,
    log: Log,
) -> (Commander, mpsc::UnboundedReceiver<Timed<Output>>) {
    let shared = Arc::new(Shared {
        epoch,
        log,
        // A board that was not reset must not take our first command for its last one.
        next_sequence: AtomicU32::new(
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.subsec_nanos()),
        ),
        state: Mutex::default(),
        tasks: Mutex::default(),
    });
    // Unbounded: an answer must not wait behind reports that nobody reads yet. The run's length bounds it.
    let (outputs, receiver) = mpsc::unbounded_channel();
    let (frames, to_write) = mpsc::channel(16);
    // The reader holds the shared part weakly through `Arc` only as long as the console lives; dropping
    // the last commander aborts both tasks.
    let reader = Reader { shared: Arc::downgrade(&shared), outputs, decoder: Decoder::new() };
    let tasks = vec![
        AbortOnDropHandle::new(tokio::spawn(reader.run(connection.from_board))),
        AbortOnDropHandle::new(tokio::spawn(write(connection.to_board, to_write))),
    ];
    *shared.tasks.lock().unwrap_or_else(PoisonError::into_inner) = tasks;
    (Commander { shared, frames, limit }, receiver)
}

impl Commander {
    /// Sends `request` and waits for its answer; a frame lost on the way is sent again.
    ///
    /// # Errors
    /// [`BoardError::Refused`], [`BoardError::Timeout`] or [`BoardError::Died`].
    pub async fn command(&self, request: Request) -> Result<Answer, BoardError> {
        let name = name(&request);
        match self.ask(name, request).await? {
            (_, Answer::Refused(refusal)) => Err(BoardError::Refused { request: name, refusal }),
            (_, answer) => Ok(answer),
        }
    }

    /// Compares the clocks once. The harness's times count from `epoch`.
    ///
    /// # Errors
    /// As [`Commander::command`].
    pub async fn ping(&self, epoch: Instant) -> Result<ClockSample, BoardError> {
        let sent_us = micros_since(epoch);
        match self.ask("Ping", Request::Ping { host_us: sent_us }).await? {
            (received_us, Answer::Pong { host_us, device_us }) => {
                Ok(ClockSample { sent_us: host_us, device_us, received_us })
            }
            (_, Answer::Refused(refusal)) => Err(BoardError::Refused { request: "Ping", refusal }),
            (received_us, Answer::Done) => Ok(ClockSample { sent_us, device_us: 0, received_us }),
        }
    }

    /// What is known about the board's end; `None` while it lives.
    pub fn death(&self) -> Option<Death> {
        let state = self.shared.state();
        let panic = (!state.panic.is_empty()).then(|| state.panic.concat());
        state.dead.then_some(Death { panic, ..Death::default() })
    }

    async fn ask(&self, name: &'static str, request: Request) -> Result<(u64, Answer), BoardError> {
        let sequence = self.shared.next_sequence.fetch_add(1, Ordering::Relaxed);
        let mut encoded = [0; FRAME_MAX];
        let len = frame::encode(&Command { sequence, request }, &mut encoded)
            .expect("FRAME_MAX bytes hold any command");
        let (sender, mut answer) = oneshot::channel();
        {
            let mut state = self.shared.state();
            if state.dead {
                return Err(BoardError::Died(Box::default()));
            }
            state.waiting.insert(sequence, sender);
        }
        let waiting = Waiting { shared: &self.shared, sequence };
        // What a command holds may be secret: its name is enough for the log.
        self.shared.log.line(micros_since(self.shared.epoch), format_args!("> #{sequence} {name}"));
        let attempts = async {
            loop {
                if self.frames.send(encoded[..len].to_vec()).await.is_err() {
                    return Err(BoardError::Died(Box::default()));
                }
                match timeout(REPEAT_AFTER, &mut answer).await {
                    Ok(Ok(answer)) => return Ok(answer),
                    Ok(Err(_)) => return Err(BoardError::Died(Box::default())),
                    Err(_) => {}
                }
            }
        };
        let answered = timeout(self.limit, attempts).await;
        drop(waiting);
        answered.unwrap_or(Err(BoardError::Timeout { what: name, limit: self.limit }))
    }
}

/// Forgets a command when its caller does.
struct Waiting<'a> {
    shared: &'a Shared,
    sequence: u32,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.state().waiting.remove(&self.sequence);
    }
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Reader {
    shared: std::sync::Weak<Shared>,
    outputs: mpsc::UnboundedSender<Timed<Output>>,
    decoder: Decoder<FRAME_MAX>,
}

impl Reader {
    async fn run(mut self, mut stream: Box<dyn AsyncRead + Send + Unpin>) {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(len @ 1..) = stream.read(&mut buffer).await {
            let Some(shared) = self.shared.upgrade() else { return };
            let at_us = micros_since(shared.epoch);
            let mut input = &buffer[..len];
            while let Some(piece) = self.decoder.next(&mut input) {
                take(&shared, &self.outputs, at_us, piece);
            }
        }
        let Some(shared) = self.shared.upgrade() else { return };
        let at_us = micros_since(shared.epoch);
        if let Some(piece) = self.decoder.finish() {
            take(&shared, &self.outputs, at_us, piece);
        }
        shared.log.line(at_us, "! console closed");
        shared.log.flush();
        let mut state = shared.state();
        state.dead = true;
        // Whoever waits learns it now.
        state.waiting.clear();
    }
}

/// Sorts one piece of the console's stream.
fn take(shared: &Shared, outputs: &mpsc::UnboundedSender<Timed<Output>>, at_us: u64, piece: Piece<'_>) {
    let output = match piece {
        Piece::Text(bytes) => {
            let text = String::from_utf8_lossy(bytes).into_owned();
            shared.log.line(at_us, text.trim_end());
            shared.log.flush();
            let mut state = shared.state();
            let panicking = !state.panic.is_empty() || text.contains("panicked at");
            if panicking && state.panic.len() < PANIC_LINES_MAX {
                state.panic.push(text.clone());
            }
            Output::Text(text)
        }
        Piece::Damaged(bytes) => {
            shared.log.line(at_us, format_args!("! {} damaged bytes", bytes.len()));
            Output::Damaged(bytes.len())
        }
        Piece::Message(message) => match Report::decode(message) {
            Ok(Report::Reply { sequence, answer }) => {
                shared.log.line(at_us, format_args!("< #{sequence} {answer:?}"));
                if let Some(waiting) = shared.state().waiting.remove(&sequence) {
                    // Nobody is left to hear it if this fails.
                    let _ = waiting.send((at_us, answer));
                }
                return;
            }
            Ok(report) => {
                shared.log.line(at_us, format_args!("< {report:?}"));
                Output::Report(report)
            }
            Err(_) => {
                shared.log.line(at_us, "! a frame of another protocol version");
                Output::Damaged(message.len())
            }
        },
    };
    let _ = outputs.send(Timed { at_us, what: output });
}

async fn write(mut stream: Box<dyn AsyncWrite + Send + Unpin>, mut frames: mpsc::Receiver<Vec<u8>>) {
    while let Some(frame) = frames.recv().await {
        let written = async {
            stream.write_all(&frame).await?;
            stream.flush().await
        };
        if written.await.is_err() {
            return;
        }
    }
}

fn micros_since(epoch: Instant) -> u64 {
    u64::try_from(epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// A command's name: what may be logged of it.
const fn name(request: &Request) -> &'static str {
    match request {
        Request::Ping { .. } => "Ping",
        Request::Announce => "Announce",
        Request::Blob(_) => "Blob",
        Request::Wifi(_) => "Wifi",
        Request::Configure(_) => "Configure",
        Request::Connect => "Connect",
        Request::Disconnect => "Disconnect",
        Request::Reconnect(_) => "Reconnect",
        Request::Subscribe(_) => "Subscribe",
        Request::Unsubscribe(_) => "Unsubscribe",
        Request::Publish(_) => "Publish",
        Request::StartWorkload(_) => "StartWorkload",
        Request::StopWorkload => "StopWorkload",
        Request::Migrate(_) => "Migrate",
        Request::UpdateKeys => "UpdateKeys",
        Request::Snapshot => "Snapshot",
        Request::Crash(_) => "Crash",
        Request::Reboot => "Reboot",
        Request::Power(_) => "Power",
        Request::Inspect => "Inspect",
    }
}

#[cfg(test)]
mod tests {
    use device::control::Event;

    use super::*;

    /// A board that died in the middle of a report, or whose line was disturbed, and goes on.
    #[tokio::test]
    async fn a_damaged_frame_never_loses_the_next_one() {
        let report = Report::Event { at_us: 1_234_567, event: Event::LinkUp };
        let mut bytes = [0; FRAME_MAX];
        let len = frame::encode(&report, &mut bytes).expect("it fits");
        let whole = &bytes[..len];
        for cut in 1..len {
            for flipped in [false, true] {
                let (near, mut far) = tokio::io::duplex(4_096);
                let (from_board, to_board) = tokio::io::split(near);
                let connection =
                    Connection { from_board: Box::new(from_board), to_board: Box::new(to_board) };
                let (_commander, mut outputs) =
                    open(connection, Instant::now(), Duration::from_secs(1), Log::default());
                let mut damaged = whole.to_vec();
                if flipped {
                    damaged[cut] ^= 0x40;
                } else {
                    damaged.truncate(cut);
                }
                far.write_all(&damaged).await.expect("it is read");
                far.write_all(whole).await.expect("it is read");
                loop {
                    let output = outputs.recv().await.expect("the console is open");
                    if output.what == Output::Report(report.clone()) {
                        break;
                    }
                }
            }
        }
    }
}
