//! A board under test: started, reset, talked to, and declared dead when it is.
//!
//! ```text
//!  Machine (host process, QEMU, serial port ...)    what differs: start, kill, post-mortem, NIC
//!     | Connection: any byte stream
//!  console task    text | frames | damage, each with the harness's time
//!     |                        |
//!  Commander: Request -> Answer   Board::next: reports, text, death
//! ```
//! Everything has a time limit, and a board that dies is an answer ([`BoardError::Died`]), not a hang.

mod clock;
mod console;
mod error;
pub mod esp32c3;
pub(crate) mod folder;
mod host;
mod log;
mod machine;
pub mod qemu;

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use device::control::{Answer, Blob, BlobKind, Boot, CHUNK_MAX, PROTOCOL_VERSION, Report, Request};
use tokio::sync::mpsc;
use tokio::time::{timeout, timeout_at};

pub use clock::{Clock, ClockSample};
pub use console::{Commander, Output, Timed};
pub use error::{BoardError, Death};
pub use host::HostMachine;
pub use machine::{Autopsy, BoxFuture, Connection, Machine, Place};

/// How a board is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Time zero of all times the harness tells about this board.
    pub epoch: Instant,
    /// Where everything the board says is written.
    pub log: Option<PathBuf>,
    /// Time from starting the machine to its boot report.
    pub boot_limit: Duration,
    /// Time a command has to be answered, repetitions included.
    pub command_limit: Duration,
}

impl Options {
    /// No log; 10 s to boot, 5 s to answer; times count from now.
    pub fn new() -> Self {
        Self {
            epoch: Instant::now(),
            log: None,
            boot_limit: Duration::from_secs(10),
            command_limit: Duration::from_secs(5),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

/// A board that says nothing for so long is asked whether it still runs.
const SILENCE: Duration = Duration::from_secs(3);

/// A running board.
pub struct Board {
    machine: Box<dyn Machine>,
    options: Options,
    log: log::Log,
    boot: Boot,
    commander: Commander,
    outputs: mpsc::UnboundedReceiver<Timed<Output>>,
    clock: Clock,
    /// When it last said or answered something, as far as [`Board::next`] knows.
    heard: tokio::time::Instant,
}

impl Board {
    /// Starts `machine` and waits for its boot report.
    ///
    /// # Errors
    /// [`BoardError`] if it does not start, says nothing in time, or speaks another protocol version.
    pub async fn start(mut machine: impl Machine + 'static, options: Options) -> Result<Self, BoardError> {
        let log = log::Log::create(options.log.as_deref())?;
        let (boot, commander, outputs) = start(&mut machine, &options, &log).await?;
        Ok(Self {
            machine: Box::new(machine),
            options,
            log,
            boot,
            commander,
            outputs,
            clock: Clock::default(),
            heard: tokio::time::Instant::now(),
        })
    }

    /// What the board said when it started.
    pub fn boot(&self) -> &Boot {
        &self.boot
    }

    /// Kills the board and starts it again. Its NIC stays plugged in.
    ///
    /// # Errors
    /// As [`Board::start`].
    pub async fn reset(&mut self) -> Result<(), BoardError> {
        self.machine.stop().await;
        let (boot, commander, outputs) = start(&mut *self.machine, &self.options, &self.log).await?;
        (self.boot, self.commander, self.outputs) = (boot, commander, outputs);
        self.clock = Clock::default();
        self.heard = tokio::time::Instant::now();
        Ok(())
    }

    /// Kills the board.
    pub async fn kill(&mut self) {
        self.machine.stop().await;
    }

    /// The socket at which the board's NIC is plugged in, again after each reset. Each Ethernet frame is
    /// behind its length as a big-endian `u32`. Once: `None` for a board on a real network, or when it
    /// was taken before.
    pub fn take_nic(&mut self) -> Option<UnixListener> {
        self.machine.take_nic()
    }

    /// The process the board runs in; `None` for a real board, or one that is not running.
    pub fn process_id(&self) -> Option<u32> {
        self.machine.process_id()
    }

    /// A handle for commands that can be used while somebody else reads [`Board::next`].
    pub fn commander(&self) -> Commander {
        self.commander.clone()
    }

    /// Sends a command and waits for its answer.
    ///
    /// # Errors
    /// [`BoardError::Refused`], [`BoardError::Timeout`] or [`BoardError::Died`], the latter with what is
    /// known about the cause.
    pub async fn command(&mut self, request: Request) -> Result<Answer, BoardError> {
        let answer = self.commander.command(request).await;
        self.explained(answer).await
    }

    /// Sends a certificate or key in pieces.
    ///
    /// # Errors
    /// As [`Board::command`].
    pub async fn send_blob(&mut self, kind: BlobKind, bytes: &[u8]) -> Result<(), BoardError> {
        let total = u16::try_from(bytes.len()).map_err(|_| BoardError::BlobTooLarge {
            kind,
            len: bytes.len(),
            limit: usize::from(u16::MAX),
        })?;
        let pieces = bytes.chunks(CHUNK_MAX).zip((0u16..).step_by(CHUNK_MAX));
        // An empty blob is still told: it makes the board forget the last one.
        let pieces = pieces.chain(bytes.is_empty().then_some((&[][..], 0)));
        for (piece, offset) in pieces {
            let bytes = heapless::Vec::from_slice(piece).expect("chunks are no longer than CHUNK_MAX");
            self.command(Request::Blob(Blob { kind, total, offset, bytes })).await?;
        }
        Ok(())
    }

    /// The next thing the board says, within `limit`. `None` when the time is over.
    ///
    /// # Errors
    /// [`BoardError::Died`] when there will be no more, [`BoardError::Hung`] when a board that fell silent does not
    /// answer any more.
    pub async fn next(&mut self, limit: Duration) -> Result<Option<Timed<Output>>, BoardError> {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let wake = deadline.min(self.heard + SILENCE);
            match timeout_at(wake, self.outputs.recv()).await {
                Err(_) if tokio::time::Instant::now() >= deadline => return Ok(None),
                Err(_) => self.check_alive().await?,
                Ok(Some(output)) => {
                    self.heard = tokio::time::Instant::now();
                    if let Output::Report(Report::Boot(boot)) = &output.what {
                        // It restarted by itself or by command: its clock did too.
                        self.boot = boot.clone();
                        self.clock = Clock::default();
                    }
                    return Ok(Some(output));
                }
                Ok(None) => return Err(BoardError::Died(Box::new(self.autopsy().await))),
            }
        }
    }

    async fn check_alive(&mut self) -> Result<(), BoardError> {
        let answer = self.commander.ping(self.options.epoch).await;
        match self.explained(answer).await {
            Err(BoardError::Timeout { what, limit }) => {
                Err(BoardError::Hung { what, limit, place: Place::default() })
            }
            Err(error) => Err(error),
            Ok(_) => {
                self.heard = tokio::time::Instant::now();
                Ok(())
            }
        }
    }

    /// Waits until `wanted` finds what it looks for in a report; other reports are dropped.
    ///
    /// # Errors
    /// [`BoardError::Timeout`] naming `what` after `limit`, or [`BoardError::Died`].
    pub async fn wait_for<T>(
        &mut self,
        what: &'static str,
        limit: Duration,
        mut wanted: impl FnMut(&Report) -> Option<T>,
    ) -> Result<T, BoardError> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.next(left).await? {
                None => return Err(BoardError::Timeout { what, limit }),
                Some(Timed { what: Output::Report(report), .. }) => {
                    if let Some(found) = wanted(&report) {
                        return Ok(found);
                    }
                }
                Some(_) => {}
            }
        }
    }

    /// Pings the board `count` times and learns its clock.
    ///
    /// # Errors
    /// As [`Board::command`].
    pub async fn synchronise(&mut self, count: usize) -> Result<&Clock, BoardError> {
        for _ in 0..count {
            let sample = self.commander.ping(self.options.epoch).await;
            let sample = self.explained(sample).await?;
            self.clock.add(sample);
        }
        Ok(&self.clock)
    }

    /// The board's clock, as far as [`Board::synchronise`] learnt it.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// What the board died of, once it did.
    pub async fn autopsy(&mut self) -> Death {
        let death = self.commander.death().unwrap_or_default();
        let death = death.with(self.machine.autopsy().await);
        self.log_backtrace(&death.backtrace);
        death
    }

    /// Adds the cause to a death, and the place to a hang.
    async fn explained<T>(&mut self, result: Result<T, BoardError>) -> Result<T, BoardError> {
        match result {
            Err(BoardError::Died(_)) => Err(BoardError::Died(Box::new(self.autopsy().await))),
            Err(BoardError::Timeout { what, limit }) => {
                let place = self.machine.locate().await;
                self.log_backtrace(&place.backtrace);
                Err(match place == Place::default() {
                    true => BoardError::Timeout { what, limit },
                    false => BoardError::Hung { what, limit, place },
                })
            }
            other => other,
        }
    }

    /// The message of an error holds the innermost frames only.
    fn log_backtrace(&self, backtrace: &[String]) {
        let at_us = u64::try_from(self.options.epoch.elapsed().as_micros()).unwrap_or(u64::MAX);
        for frame in backtrace {
            self.log.line(at_us, format_args!("! at {frame}"));
        }
        self.log.flush();
    }
}

type Started = (Boot, Commander, mpsc::UnboundedReceiver<Timed<Output>>);

async fn start(machine: &mut dyn Machine, options: &Options, log: &log::Log) -> Result<Started, BoardError> {
    let booted = async {
        let connection = machine.start().await?;
        let (commander, mut outputs) =
            console::open(connection, options.epoch, options.command_limit, log.clone());
        loop {
            match outputs.recv().await.map(|output| output.what) {
                Some(Output::Report(Report::Boot(boot))) => return Ok((boot, commander, outputs)),
                Some(_) => {}
                None => return Err(BoardError::Died(Box::new(commander.death().unwrap_or_default()))),
            }
        }
    };
    let booted = match timeout(options.boot_limit, booted).await {
        Ok(booted) => booted,
        Err(_) => Err(BoardError::Timeout { what: "the boot report", limit: options.boot_limit }),
    };
    match booted {
        Ok((boot, ..)) if boot.protocol != PROTOCOL_VERSION => {
            machine.stop().await;
            Err(BoardError::Protocol { board: boot.protocol, harness: PROTOCOL_VERSION })
        }
        Ok(started) => Ok(started),
        Err(BoardError::Died(death)) => Err(BoardError::Died(Box::new(death.with(machine.autopsy().await)))),
        Err(error) => {
            machine.stop().await;
            Err(error)
        }
    }
}
