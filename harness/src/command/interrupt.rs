//! Being asked to end.

use tokio_util::sync::CancellationToken;

use super::talk;

/// The first Ctrl-C, SIGTERM or SIGHUP ends the run with a partial report; the second ends the process.
pub async fn interrupt(cancel: CancellationToken) {
    asked_to_end().await;
    talk("interrupted: finishing with a partial report; once more ends at once");
    cancel.cancel();
    asked_to_end().await;
    std::process::exit(130);
}

async fn asked_to_end() {
    use tokio::signal::unix::{SignalKind, signal};
    let waits = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(|kind| {
        Box::pin(async move {
            match signal(kind) {
                Ok(mut signal) => drop(signal.recv().await),
                Err(_) => std::future::pending().await,
            }
        })
    });
    futures_util::future::select_all(waits).await;
}
