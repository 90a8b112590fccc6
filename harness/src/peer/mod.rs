//! The other end of every message: a client of the harness's own, and what it makes of what it sees.
//!
//! - [`Client`] speaks MQTT over QUIC (quinn), TLS or TCP, by a codec of the harness's own or by rumqttc; it
//!   reconnects, resumes and keeps a log of its connections.
//! - [`Party`] is a client that runs workloads and remembers what arrives: the verifying peer on an unimpaired
//!   path, the reference client through the link.
//! - [`Ledger`] counts each message exactly once, from what sender and receiver say of it.

mod client;
mod connector;
mod ledger;
mod party;
mod reporter;
mod rumqttc;
mod send_log;
mod session;

use std::time::Instant;

pub use client::{Client, ClientEvent, ClientLog, ClientOptions, NotRunning};
pub use connector::{ConnectError, Connector, QuicTuning, Target};
pub(crate) use connector::{received_alert, received_quic_alert};
pub use ledger::{Account, Arrival, Closing, Ledger, Strays};
pub use party::{Implementation, Party, Running, SubscribeError, Testimony};
pub use send_log::{SendLog, Sending};

/// The clock of a trial: microseconds since its start.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Self {
        Self::at(Instant::now())
    }

    /// A clock that started at `start`.
    #[must_use]
    pub fn at(start: Instant) -> Self {
        Self { start }
    }

    /// Microseconds since the start.
    #[must_use]
    pub fn now_us(self) -> u64 {
        self.us(Instant::now())
    }

    /// An instant as microseconds since the start; 0 if it was before.
    #[must_use]
    pub fn us(self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.start);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    /// The instant `us` microseconds after the start.
    #[must_use]
    pub fn instant(self, us: u64) -> Instant {
        self.start + std::time::Duration::from_micros(us)
    }
}
