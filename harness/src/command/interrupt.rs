//! Being asked to end.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::{pending, select_all};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{Failure, talk};
use crate::board::esp32c3::recovery;

/// Ctrl-C, SIGTERM and SIGHUP, heard from its making on.
pub struct Signals([std::io::Result<Signal>; 3]);

impl Signals {
    /// Listens; within a runtime.
    pub fn listen() -> Self {
        Self([SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal))
    }

    /// Waits for one of those that could be listened for.
    pub async fn any(&mut self) {
        let waits = self.0.iter_mut().map(|signal| {
            Box::pin(async move {
                match signal {
                    Ok(signal) => drop(signal.recv().await),
                    Err(_) => pending().await,
                }
            })
        });
        select_all(waits).await;
    }
}

/// What a process that was interrupted ends with.
const INTERRUPTED: i32 = 130;
/// A run answers signals now.
static RUNNING: AtomicBool = AtomicBool::new(false);

/// The first Ctrl-C, SIGTERM or SIGHUP ends the run with a partial report; the second ends the process. Signals are heard
/// from the call on, whenever the future is polled first: what is started afterwards is never left behind by one.
pub fn interrupt(cancel: CancellationToken) -> impl Future<Output = ()> {
    let mut signals = take_over();
    async move {
        signals.any().await;
        talk("interrupted: finishing with a partial report; once more ends at once");
        cancel.cancel();
        signals.any().await;
        recovery::give_back();
        std::process::exit(INTERRUPTED);
    }
}

/// Signals as they come, for a command that ends in order by itself from now on.
pub fn take_over() -> Signals {
    RUNNING.store(true, Ordering::Relaxed);
    Signals::listen()
}

/// From now until [`interrupt`] or [`take_over`] takes over, a signal calls `undo` and ends the process, as one that is not listened for
/// would: a process that once listened never gets the system's own answer back.
///
/// # Errors
/// If there is no thread or no runtime to listen in.
pub fn end_after(undo: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (listening, listens) = oneshot::channel();
    std::thread::Builder::new().name("interrupt".to_owned()).spawn(move || {
        runtime.block_on(async {
            let mut signals = Signals::listen();
            let _ = listening.send(());
            signals.any().await;
        });
        if !RUNNING.load(Ordering::Relaxed) {
            undo();
            std::process::exit(INTERRUPTED);
        }
    })?;
    // It fails only if the thread panicked, and then nobody listens.
    listens.blocking_recv().map_err(std::io::Error::other)
}

/// From now on a signal ends a command without a report, and leaves no board without its USB device.
pub fn undo_when_interrupted() -> Result<(), Failure> {
    end_after(recovery::give_back)
        .map_err(|error| Failure::environment(miette::miette!("signals cannot be listened for: {error}")))
}
