//! What a run leaves behind: plain data, filled by the runner, read by metrics and reports.
//!
//! Times are microseconds since the start of their trial on the harness clock, unless a field says
//! otherwise; device times have already been moved onto it. An absent value is `None`, never zero: a report
//! must be able to say "not measured".

mod board;
mod connection;
mod environment;
mod fleet;
mod message;
mod network;
mod trial;

use serde::{Deserialize, Serialize};

pub use board::{Activity, Cost, Energy, MemorySnapshot};
pub use connection::{ConnectCause, ConnectFailure, ConnectFailureKind, Connection, Handshake, Mark, Phase};
pub use environment::{Board, Broker, Environment, Footprint, Host, SizePart, Timing};
pub use fleet::{Fleet, Outage};
pub use message::{Direction, Fate, Message};
pub use network::{Impairment, ImpairmentKind, LinkStats, TransportStats, Wire, WireCount, WirePhase};
pub use trial::{Event, EventKind, Role, Transport, Trial};

/// Version of the `report.json` schema; raised when a field changes its meaning or goes away.
pub const SCHEMA_VERSION: u32 = 1;

/// One run of one scenario: everything a report is made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The scenario as it was run.
    pub scenario: ScenarioRecord,
    /// Where and with what it ran.
    pub environment: Environment,
    /// How the run as a whole ended.
    pub ending: Ending,
    /// Every trial, in the order run; a failed or interrupted one stays in.
    pub trials: Vec<Trial>,
}

/// The scenario, with its source text so that a report can be judged and rendered again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScenarioRecord {
    /// The scenario's name.
    pub name: String,
    /// The question it asks.
    pub question: String,
    /// File it came from, or `built-in`.
    pub origin: String,
    /// The TOML text, unchanged.
    pub source: String,
    /// Variants the command line removed or added: the names that were asked for, in order.
    pub variants: Vec<String>,
    /// Trials that were planned; fewer in [`RunRecord::trials`] means the run was cut short.
    pub planned_trials: usize,
}

/// How a run or a trial ended.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Ending {
    /// Everything that was planned was done.
    #[default]
    Completed,
    /// Stopped from outside, such as by Ctrl-C.
    Interrupted {
        /// Who or what stopped it.
        by: String,
    },
    /// Given up; the cause names what happened, where, and the remedy.
    Failed {
        /// Phase that failed, such as `connect`.
        phase: String,
        /// What happened.
        cause: String,
        /// Whose fault it is.
        blame: Blame,
    },
}

impl Ending {
    /// Whether everything that was planned was done.
    #[must_use]
    pub fn is_completed(&self) -> bool {
        matches!(self, Self::Completed)
    }
}

/// Who is at fault for a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blame {
    /// The subject under test did not do what it should.
    Subject,
    /// Board, broker, Docker, port: the environment.
    Environment,
    /// The harness itself.
    Harness,
}
