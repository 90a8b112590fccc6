//! Starting, watching and ending a link; the same for every carrier.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use link::{Action, ConfigError, LinkConfig};
use serde::Serialize;

use super::capture::Capture;
use super::event_loop::{self, Carrier};
use super::shaper::Shaper;
use super::stats::{Collector, Stats};

/// What every carrier needs: the impairments, their seed, and where to write down what happened.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// The impairments.
    pub config: LinkConfig,
    /// The seed of all decisions.
    pub seed: u64,
    /// Where to write the decision log, one JSON object per line. The file must not exist yet.
    pub log: Option<PathBuf>,
    /// Where to capture the board's frames. The files must not exist yet. Only the frame path has frames.
    pub capture: Option<Capture>,
}

/// A link that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file could not be created or written.
    #[error("cannot create {}: {source}; choose another path or remove it", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A socket could not be opened.
    #[error("cannot open {what}: {source}")]
    Socket {
        /// What it was for, with its address.
        what: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// No thread for the link.
    #[error("cannot start the link's thread: {0}")]
    Thread(io::Error),
}

/// Something that happened to the link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Happening {
    /// The run told of an event.
    Event {
        /// Its name.
        name: String,
    },
    /// The link did something, by schedule or on demand.
    Action {
        /// What it did.
        #[serde(flatten)]
        action: Action,
        /// What it could not do as asked, and did instead.
        #[serde(skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
}

/// Something that happened to the link, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Occurrence {
    /// Microseconds since the link's start.
    pub time_us: u64,
    /// What.
    #[serde(flatten)]
    pub what: Happening,
}

/// All there is to tell once the link has ended.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The traffic.
    pub stats: Stats,
    /// Events and actions in order of time.
    pub timeline: Vec<Occurrence>,
    /// Why the link ended by itself, or why its log is incomplete.
    pub failure: Option<String>,
    /// Whether TCP connections were ended before the link: round trips of their handshakes cannot be told from its log.
    pub ends_tcp: bool,
}

/// What the thread and its handle share.
pub(super) struct Shared {
    commands: Mutex<Vec<Command>>,
    pub(super) collector: Mutex<Collector>,
    pub(super) timeline: Mutex<Vec<Occurrence>>,
    failure: Mutex<Option<String>>,
}

/// What the handle asks of the thread.
pub(super) enum Command {
    Event(String),
    Perform(Action),
    Stop,
}

impl Shared {
    pub(super) fn take_commands(&self) -> Vec<Command> {
        std::mem::take(&mut *lock(&self.commands))
    }

    pub(super) fn fail(&self, failure: String) {
        lock(&self.failure).get_or_insert(failure);
    }
}

/// A poisoned lock still guards sound data here: every update is a single step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A running link. Dropping it ends its thread and closes its sockets.
pub struct LinkHandle {
    shared: Arc<Shared>,
    wake: UnixStream,
    thread: Option<JoinHandle<()>>,
    started: Instant,
    started_at: SystemTime,
    ends_tcp: bool,
}

impl LinkHandle {
    /// Runs `carrier` in a thread of its own.
    pub(super) fn start<C: Carrier + Send + 'static>(setup: &Setup, carrier: C) -> Result<Self, SetupError> {
        let socket =
            |source| SetupError::Socket { what: "the link's wake-up socket pair".to_owned(), source };
        let (wake, woken) = UnixStream::pair().map_err(socket)?;
        wake.set_nonblocking(true).map_err(socket)?;
        woken.set_nonblocking(true).map_err(socket)?;
        let shared = Arc::new(Shared {
            commands: Mutex::default(),
            collector: Mutex::new(Collector::new()),
            timeline: Mutex::default(),
            failure: Mutex::default(),
        });
        let started = Instant::now();
        let started_at = SystemTime::now();
        let shaper = Shaper::new(setup, started, shared.clone())?;
        let thread = std::thread::Builder::new()
            .name("link".to_owned())
            .spawn(move || event_loop::run(carrier, shaper, &woken))
            .map_err(SetupError::Thread)?;
        Ok(Self { shared, wake, thread: Some(thread), started, started_at, ends_tcp: C::ENDS_TCP })
    }

    /// Tells the link that something has happened from which schedules may count.
    pub fn event(&self, name: &str) {
        self.send(Command::Event(name.to_owned()));
    }

    /// Makes the NAT forget its mappings now: flows continue from new source ports.
    pub fn rebind(&self) {
        self.send(Command::Perform(Action::Rebind));
    }

    /// Changes the outside address now: flows continue from a new source address, where there is one.
    pub fn change_address(&self) {
        self.send(Command::Perform(Action::AddressChange));
    }

    /// The traffic so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        lock(&self.shared.collector).snapshot()
    }

    /// Events and actions so far, in order of time.
    #[must_use]
    pub fn timeline(&self) -> Vec<Occurrence> {
        lock(&self.shared.timeline).clone()
    }

    /// The moment all of the link's times count from.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The same by the wall clock.
    #[must_use]
    pub fn started_at(&self) -> SystemTime {
        self.started_at
    }

    /// Whether the link still carries packets. It ends by itself only on an I/O error or a bug.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Ends the link and writes out its log.
    #[must_use]
    pub fn stop(mut self) -> Summary {
        self.end();
        Summary {
            stats: self.stats(),
            timeline: self.timeline(),
            failure: lock(&self.shared.failure).clone(),
            ends_tcp: self.ends_tcp,
        }
    }

    fn send(&self, command: Command) {
        lock(&self.shared.commands).push(command);
        // A full socket means that the thread will wake up anyway.
        let _ = (&self.wake).write(&[1]);
    }

    fn end(&mut self) {
        self.send(Command::Stop);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            self.shared.fail("the link's thread panicked; this is a bug in the harness".to_owned());
        }
    }
}

impl Drop for LinkHandle {
    fn drop(&mut self) {
        self.end();
    }
}

impl std::fmt::Debug for LinkHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkHandle").field("running", &self.is_running()).finish_non_exhaustive()
    }
}

/// Time since `started`.
pub(super) fn since(started: Instant) -> Duration {
    Instant::now().saturating_duration_since(started)
}
