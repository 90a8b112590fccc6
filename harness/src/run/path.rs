//! The path between the proxy and a tethered board: its round trips, measured while a trial runs, apart from the link's delay
//! and from the time the board takes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::link::{Clients, RttProbe, probe_rtt};

/// Round trips measured to the board in each trial.
const PROBES: u32 = 10;
/// Time one of them may take.
const PROBE_LIMIT: Duration = Duration::from_millis(500);
/// From the board's first packet to the first probe, so that probes stay out of the handshake.
const PROBE_AFTER: Duration = Duration::from_secs(1);

/// Between two looks at who came.
const PAUSE: Duration = Duration::from_millis(20);
/// Time packets have that a log speaks of.
const PACKETS_BEHIND: Duration = Duration::from_secs(1);

/// A path under measurement.
pub struct Path {
    notes: Vec<String>,
    clients: Clients,
    measuring: Option<Measuring>,
}

struct Measuring {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Option<(SocketAddr, Result<RttProbe, String>)>>,
}

impl Path {
    /// Starts to measure as soon as `clients` has heard the board; `notes` tell what else there is to know.
    pub fn measured(clients: Clients, mut notes: Vec<String>) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let (theirs, seen) = (Arc::clone(&stop), clients.clone());
        let thread =
            std::thread::Builder::new().name("path-rtt".to_owned()).spawn(move || measure(&seen, &theirs));
        let measuring = match thread {
            Ok(thread) => Some(Measuring { stop, thread }),
            Err(error) => {
                notes.push(format!("path RTT at the proxy: not measured: {error}"));
                None
            }
        };
        Self { notes, clients, measuring }
    }

    /// Who came to the proxy last. One whose log tells of a connection may be ahead of its packets by a moment.
    pub async fn client(&self) -> Option<SocketAddr> {
        let deadline = tokio::time::Instant::now() + PACKETS_BEHIND;
        while self.clients.last().is_none() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(PAUSE).await;
        }
        self.clients.last()
    }

    /// What there is to tell.
    pub fn notes(self) -> Vec<String> {
        let mut notes = self.notes;
        let Some(Measuring { stop, thread }) = self.measuring else { return notes };
        stop.store(true, Ordering::Relaxed);
        notes.push(match thread.join() {
            Ok(Some((board, Ok(probe)))) => tell(board, &probe),
            Ok(Some((_, Err(cause)))) => format!("path RTT at the proxy: {cause}"),
            Ok(None) => "path RTT at the proxy: not measured, nothing of the board came".to_owned(),
            Err(_) => "path RTT at the proxy: its thread panicked; this is a bug in the harness".to_owned(),
        });
        notes
    }
}

fn measure(clients: &Clients, stop: &AtomicBool) -> Option<(SocketAddr, Result<RttProbe, String>)> {
    let board = loop {
        if let Some(board) = clients.last() {
            break board;
        }
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        std::thread::sleep(PAUSE);
    };
    let begin = Instant::now() + PROBE_AFTER;
    while Instant::now() < begin && !stop.load(Ordering::Relaxed) {
        std::thread::sleep(PAUSE);
    }
    Some((board, probe_rtt(board.ip(), PROBES, PROBE_LIMIT).map_err(|error| error.to_string())))
}

fn tell(board: SocketAddr, probe: &RttProbe) -> String {
    let mut samples = probe.samples.clone();
    samples.sort();
    let ms = |sample: &Duration| sample.as_secs_f64() * 1e3;
    match (samples.first(), samples.get(samples.len() / 2)) {
        (Some(least), Some(median)) => format!(
            "path RTT at the proxy: {:.2} ms least, {:.2} ms median of {} to {} ({:?}); neither the link's delay nor the board's own \
             time above IP is in it",
            ms(least),
            ms(median),
            samples.len(),
            board.ip(),
            probe.method
        ),
        _ => format!("path RTT at the proxy: {} did not answer {} probes", board.ip(), probe.unanswered),
    }
}
