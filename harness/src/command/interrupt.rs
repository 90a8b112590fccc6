//! Being asked to end.

use futures_util::future::{pending, select_all};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::talk;

/// The first Ctrl-C, SIGTERM or SIGHUP ends the run with a partial report; the second ends the process. Signals are heard
/// from the call on, whenever the future is polled first: what is started afterwards is never left behind by one.
pub fn interrupt(cancel: CancellationToken) -> impl Future<Output = ()> {
    let mut signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    async move {
        any(&mut signals).await;
        talk("interrupted: finishing with a partial report; once more ends at once");
        cancel.cancel();
        any(&mut signals).await;
        std::process::exit(130);
    }
}

/// Waits for one of those that could be listened for.
async fn any(signals: &mut [std::io::Result<Signal>]) {
    let waits = signals.iter_mut().map(|signal| {
        Box::pin(async move {
            match signal {
                Ok(signal) => drop(signal.recv().await),
                Err(_) => pending().await,
            }
        })
    });
    select_all(waits).await;
}
