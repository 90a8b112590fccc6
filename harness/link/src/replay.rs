//! Checks a decision log against the model: the same seed and packets must give the same fates.

use core::fmt;
use core::time::Duration;

use crate::config::ConfigError;
use crate::model::Link;
use crate::record::{LogLine, Record};

/// Why a log does not check out.
#[derive(Clone, Debug, PartialEq)]
pub enum ReplayError {
    /// The log has no first line with configuration and seed.
    NoStart,
    /// The logged configuration is not valid.
    Config(ConfigError),
    /// A packet's fate is not the one its seed gives.
    Differs {
        /// As logged.
        logged: Box<Record>,
        /// As decided again.
        replayed: Box<Record>,
    },
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoStart => f.write_str("the log does not begin with its configuration and seed"),
            Self::Config(error) => error.fmt(f),
            Self::Differs { logged, replayed } => write!(
                f,
                "packet {} {} was logged as {logged:?} but its seed gives {replayed:?}",
                logged.index, logged.direction
            ),
        }
    }
}

impl core::error::Error for ReplayError {}

/// Offers every logged packet to a fresh link again, at its logged time.
///
/// Returns the number of packets checked and the hash over their fates.
///
/// # Errors
/// Names the first packet whose fate differs.
pub fn replay(lines: impl IntoIterator<Item = LogLine>) -> Result<(u64, u64), ReplayError> {
    let mut lines = lines.into_iter();
    let Some(LogLine::Start { config, seed }) = lines.next() else { return Err(ReplayError::NoStart) };
    let mut link = Link::new(&config, seed).map_err(ReplayError::Config)?;
    let mut packets = 0;
    for line in lines {
        match line {
            LogLine::Packet(logged) => {
                let now = Duration::from_micros(logged.time_us);
                // Whose packet it is was told to the link's log by those who can read it; it decides nothing.
                let connection = logged.connection;
                let decided = link.offer(logged.direction, now, logged.size as usize).record;
                let replayed = Record { connection, ..decided };
                if replayed != logged {
                    return Err(ReplayError::Differs {
                        logged: Box::new(logged),
                        replayed: Box::new(replayed),
                    });
                }
                packets += 1;
            }
            LogLine::Event { time_us, name } => link.on_event(&name, Duration::from_micros(time_us)),
            LogLine::Start { .. } | LogLine::Action(_) => {}
        }
    }
    Ok((packets, link.fate_hash()))
}
