//! What every kind of client reports, and how long it waits between attempts.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use device::control::Reconnection;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::Clock;
use super::client::{ClientEvent, ClientLog, ClientOptions};
use super::connector::{Attempt, ConnectError};
use crate::measure::record::{ConnectCause, Connection, Event, EventKind, Wire};

pub(super) struct Reporter {
    pub(super) options: ClientOptions,
    pub(super) clock: Clock,
    pub(super) events: mpsc::UnboundedSender<ClientEvent>,
    /// How the first attempt ended.
    pub(super) outcome: watch::Sender<Option<Result<bool, ConnectError>>>,
    pub(super) log: Arc<Mutex<ClientLog>>,
    /// Whoever runs the client wants it to end.
    pub(super) leave: CancellationToken,
}

impl Reporter {
    pub(super) fn connected(&self, session_present: bool) {
        self.tell(EventKind::Connected, "", ClientEvent::Connected { session_present });
        self.settle_outcome(Ok(session_present));
    }

    pub(super) fn disconnected(&self, reason: String) {
        self.tell(EventKind::Disconnected, &reason.clone(), ClientEvent::Disconnected { reason });
    }

    /// An attempt failed.
    pub(super) fn failed(&self, error: ConnectError) {
        self.disconnected(error.to_string());
        self.settle_outcome(Err(error));
    }

    /// Enters an attempt in the log, failed or not.
    pub(super) fn attempted(
        &self,
        cause: ConnectCause,
        started_us: u64,
        attempt: Attempt,
        wire: Option<(Wire, Wire)>,
        error: Option<&ConnectError>,
    ) {
        self.log().connections.push(Connection {
            cause,
            handshake: attempt.handshake,
            started_us,
            marks: attempt.marks,
            client_to_connack: wire.map(|(sent, _)| sent),
            server_to_connack: wire.map(|(_, received)| received),
            round_trips: None,
            failure: error.map(ConnectError::to_record),
        });
    }

    /// Waits before the next attempt; says whether there is to be one.
    pub(super) async fn back_off(&self, failures: u32) -> bool {
        let again = match self.options.reconnection {
            Reconnection::Never => false,
            Reconnection::Backoff { attempts, .. } if attempts != 0 && failures >= u32::from(attempts) => {
                false
            }
            Reconnection::Backoff { first_ms, max_ms, .. } => {
                let factor = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
                let delay_ms = first_ms.saturating_mul(factor).min(max_ms);
                let wait = tokio::time::sleep(Duration::from_millis(u64::from(delay_ms)));
                self.leave.run_until_cancelled(wait).await.is_some()
            }
        };
        if !again {
            // Nobody may listen any more.
            let _ = self.events.send(ClientEvent::GaveUp);
        }
        again
    }

    pub(super) fn log(&self) -> std::sync::MutexGuard<'_, ClientLog> {
        self.log.lock().expect("no holder of this lock panics")
    }

    fn settle_outcome(&self, outcome: Result<bool, ConnectError>) {
        self.outcome.send_if_modified(|first| {
            let is_first = first.is_none();
            if is_first {
                *first = Some(outcome);
            }
            is_first
        });
    }

    fn tell(&self, kind: EventKind, detail: &str, event: ClientEvent) {
        let at_us = self.clock.now_us();
        self.log().events.push(Event { at_us, kind, detail: detail.to_owned() });
        let _ = self.events.send(event);
    }
}
