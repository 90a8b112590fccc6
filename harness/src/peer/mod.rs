//! The other end of every message: a client of the harness's own, and what it makes of what it sees.
//!
//! - [`Client`] speaks MQTT over QUIC (quinn), TLS or TCP with a codec of its own; it reconnects, resumes and
//!   keeps a log of its connections. On an unimpaired path it is the verifying peer ([`Peer`]); through the
//!   link it is the reference client the board is compared with ([`reference`]).
//! - [`Ledger`] counts each message exactly once, from what sender and receiver say of it.

mod client;
mod connector;
mod session;

use std::time::Instant;

pub use client::{Client, ClientEvent, ClientLog, ClientOptions, SendLog, Sending};
pub use connector::{ConnectError, Connector, QuicTuning, Target};

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
