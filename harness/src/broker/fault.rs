//! What a broker can be made to suffer, as a scenario names it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::options::Limits;
use crate::certificates::Flaw;

/// Whether sessions survive a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionState {
    /// They are kept: subscriptions, queued messages, unacknowledged ones.
    #[default]
    Kept,
    /// They are gone, as after a crash of a broker that keeps them in memory.
    Lost,
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Fault {
    /// Says goodbye to every client and ends.
    Stop,
    /// Ends at once and says nothing.
    Kill,
    /// Comes back after [`Fault::Stop`] or [`Fault::Kill`].
    Start(SessionState),
    /// Stops reading and answering.
    Freeze,
    /// Goes on after [`Fault::Freeze`].
    Resume,
    /// Lets go of a client by administrative action.
    Kick {
        /// Its client identifier.
        client_id: String,
    },
    /// Holds clients to other ceilings.
    Limit(Limits),
    /// Presents another certificate from the next handshake on.
    RotateCertificate(Flaw),
    /// Loses every UDP datagram; TCP goes on.
    DropUdp,
    /// Carries UDP again.
    PassUdp,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stop => f.write_str("stop"),
            Self::Kill => f.write_str("be killed"),
            Self::Start(SessionState::Kept) => f.write_str("start with its sessions"),
            Self::Start(SessionState::Lost) => f.write_str("start without its sessions"),
            Self::Freeze => f.write_str("freeze"),
            Self::Resume => f.write_str("resume"),
            Self::Kick { client_id } => write!(f, "kick the client `{client_id}`"),
            Self::Limit(limits) => write!(
                f,
                "limit itself to {} connections ({})",
                limits.connections,
                match limits.overload {
                    super::options::Overload::Accept => "accepting more",
                    super::options::Overload::Close => "closing more",
                    super::options::Overload::Refuse => "refusing more",
                }
            ),
            Self::RotateCertificate(Flaw::None) => f.write_str("present a new certificate"),
            Self::RotateCertificate(flaw) => write!(f, "present a wrong certificate ({flaw:?})"),
            Self::DropUdp => f.write_str("drop UDP"),
            Self::PassUdp => f.write_str("pass UDP again"),
        }
    }
}
