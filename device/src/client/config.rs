//! What the caller decides. Borrowed for each call, never stored.

use super::{EarlyData, Resumption};
use crate::mqtt;
use crate::time::Duration;

/// Configuration of the connection policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Whether to try again after a failure.
    pub reconnect: Reconnect,
    /// Time a transport has to open.
    pub connect_timeout: Duration,
    /// Whether tickets are used.
    pub resumption: Resumption,
    /// Whether CONNECT is sent as 0-RTT data. A replayed CONNECT takes the session over, no more; the
    /// server ends that connection for want of further packets.
    pub early_data: EarlyData,
    /// Timeouts in a row without an answer after which a new local port is asked for; 0 never asks. One is enough if packets
    /// come that are no answer: the server may have lost the connection, and whether they are its own shows on a new port.
    pub migrate_after_timeouts: u32,
    /// Timeouts in a row without an answer after which the connection is given up; 0 leaves that to the
    /// transport's idle timeout. They count anew on a new path.
    pub give_up_after_timeouts: u32,
}

/// Whether and when to try again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reconnect {
    /// Stop at the first failure.
    Never,
    /// Wait a random time up to `first`, doubled with each failure in a row up to `max`. A connection that held for ten
    /// seconds, or that its owner dropped, ends the row; one that the server accepted and then dropped, or left in silence, is a failure like any.
    ///
    /// The random half of the wait keeps a fleet from returning at one moment after an outage.
    Backoff {
        /// Longest wait before the second attempt.
        first: Duration,
        /// Longest wait at all.
        max: Duration,
        /// Attempts in a row before giving up; 0 never gives up.
        attempts_max: u32,
    },
}

impl Policy {
    /// Reconnects within 0.25 s to 30 s, resumes, sends no 0-RTT data, migrates after 3 timeouts and gives up
    /// 5 timeouts after that. With a first timeout of 0.2 s that is after 1.4 s and another 6.2 s.
    pub const DEFAULT: Self = Self {
        reconnect: Reconnect::Backoff {
            first: Duration::from_millis(500),
            max: Duration::from_secs(30),
            attempts_max: 0,
        },
        connect_timeout: Duration::from_secs(15),
        resumption: Resumption::IfPossible,
        early_data: EarlyData::Never,
        migrate_after_timeouts: 3,
        give_up_after_timeouts: 5,
    };
}

impl Default for Policy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What the session and the policy need: the part of the configuration that every transport shares.
#[derive(Clone, Copy)]
pub struct Settings<'a> {
    /// CONNECT's fields.
    pub mqtt: &'a mqtt::Options<'a>,
    /// When to connect, reconnect, migrate.
    pub policy: &'a Policy,
}

/// Everything the caller decides.
#[derive(Clone, Copy)]
pub struct Config<'a> {
    /// Whom to believe and what to offer. The ticket is the client's own: leave it `None`.
    pub tls: crate::tls::Config<'a>,
    /// The QUIC connection. Whether 0-RTT is used is the policy's.
    pub quic: crate::quic::Config,
    /// CONNECT's fields.
    pub mqtt: mqtt::Options<'a>,
    /// When to connect, reconnect, migrate.
    pub policy: Policy,
}

/// What every call is lent.
pub struct Context<'a> {
    /// The time.
    pub now: crate::time::Instant,
    /// The configuration; the same in every call but for the wall clock, until the client is idle.
    pub config: &'a Config<'a>,
    /// Randomness.
    pub entropy: &'a mut dyn crate::entropy::Entropy,
}

impl Config<'_> {
    /// The part that every transport shares.
    pub const fn settings(&self) -> Settings<'_> {
        Settings { mqtt: &self.mqtt, policy: &self.policy }
    }
}
