//! What a broker did during a run, for the report folder.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use crate::measure::Transport;

/// Most events kept. A fleet of a thousand clients that reconnects twenty times fits; older ones are dropped
/// and counted.
const CAPACITY: usize = 100_000;

/// One thing a broker did or saw.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum BrokerEventKind {
    /// A listener is open.
    Listening {
        /// Its transport.
        transport: Transport,
        /// Where.
        address: SocketAddr,
    },
    /// A handshake ended well.
    Handshake {
        /// Over which transport.
        transport: Transport,
        /// The client's address.
        client: SocketAddr,
    },
    /// A handshake failed.
    HandshakeFailed {
        /// Over which transport.
        transport: Transport,
        /// The client's address.
        client: SocketAddr,
        /// Why.
        reason: String,
        /// The client's TLS alert, if that was it.
        alert: Option<u8>,
    },
    /// A client was turned away before its CONNECT.
    TurnedAway {
        /// Over which transport.
        transport: Transport,
        /// The client's address.
        client: SocketAddr,
    },
    /// A CONNECT was accepted.
    Connected {
        /// Over which transport.
        transport: Transport,
        /// The client identifier.
        client_id: String,
        /// Whether the broker still had its session.
        session_present: bool,
    },
    /// A CONNECT was refused.
    ConnectRefused {
        /// Over which transport.
        transport: Transport,
        /// The client identifier.
        client_id: String,
        /// The CONNACK's code.
        code: u8,
    },
    /// A data stream was opened by a client.
    DataStream {
        /// The client identifier.
        client_id: String,
        /// The QUIC stream identifier.
        stream: u64,
    },
    /// A data stream ended in another way than FIN by FIN.
    DataStreamAborted {
        /// The client identifier.
        client_id: String,
        /// The QUIC stream identifier.
        stream: u64,
        /// Why.
        reason: String,
    },
    /// A client's address changed without a new handshake.
    Migrated {
        /// The client identifier.
        client_id: String,
        /// The new address.
        client: SocketAddr,
    },
    /// A connection is over.
    Disconnected {
        /// Over which transport.
        transport: Transport,
        /// The client identifier, empty before CONNECT.
        client_id: String,
        /// Why.
        reason: String,
    },
    /// A fault was acted out.
    Fault {
        /// Which, in words.
        fault: String,
    },
}

/// An event and when it happened.
#[derive(Debug, Clone, serde::Serialize)]
pub struct BrokerEvent {
    /// Since the log began, in microseconds.
    pub at_us: u64,
    /// What happened.
    #[serde(flatten)]
    pub kind: BrokerEventKind,
}

/// The broker's log: written from every task, read by whoever writes the report.
#[derive(Debug, Clone)]
pub struct EventLog {
    began: Instant,
    began_wall: SystemTime,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    events: VecDeque<BrokerEvent>,
    dropped: u64,
}

impl Default for EventLog {
    fn default() -> Self {
        Self { began: Instant::now(), began_wall: SystemTime::now(), inner: Arc::default() }
    }
}

impl EventLog {
    /// The instant event times count from.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.began
    }

    /// The same instant on the wall clock.
    #[must_use]
    pub fn began_wall(&self) -> SystemTime {
        self.began_wall
    }

    /// Adds an event that happens now.
    pub fn record(&self, kind: BrokerEventKind) {
        tracing::debug!("{kind:?}");
        let at: Duration = self.began.elapsed();
        let event = BrokerEvent { at_us: u64::try_from(at.as_micros()).unwrap_or(u64::MAX), kind };
        let mut inner = self.inner.lock().expect("no holder of this lock panics");
        if inner.events.len() == CAPACITY {
            inner.events.pop_front();
            inner.dropped += 1;
        }
        inner.events.push_back(event);
    }

    /// Everything recorded so far, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<BrokerEvent> {
        let inner = self.inner.lock().expect("no holder of this lock panics");
        inner.events.iter().cloned().collect()
    }

    /// How many old events had to make room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.inner.lock().expect("no holder of this lock panics").dropped
    }

    /// The log as one JSON object per line.
    #[must_use]
    pub fn to_json_lines(&self) -> String {
        let mut text = String::new();
        for event in self.events() {
            let line = serde_json::to_string(&event).expect("events hold only strings and numbers");
            text.push_str(&line);
            text.push('\n');
        }
        text
    }
}
