//! TLS secrets of captured runs.

use std::path::PathBuf;

use super::{Failure, talk};
use crate::broker::{BrokerSpec, settle};
use crate::run::Capturing;

/// The TLS secrets of a captured run. They stay in a file only this user can read, and only until the run ends;
/// what a capture needs of them becomes part of it.
pub(super) enum Secrets {
    /// Nothing is captured.
    NotWanted,
    /// The broker does not give them.
    Unknown,
    /// The broker logs them here.
    In(tempfile::NamedTempFile),
}

impl Secrets {
    /// Makes room for the secrets of a run with that broker, if it is captured.
    pub(super) async fn of(captured: bool, broker: &BrokerSpec) -> Result<Self, Failure> {
        if !captured {
            return Ok(Self::NotWanted);
        }
        let (broker, _) = settle(broker.clone()).await;
        if broker != BrokerSpec::Embedded {
            talk(
                "this broker does not give its TLS secrets: captures stay encrypted, unlike with --broker embedded",
            );
            return Ok(Self::Unknown);
        }
        tempfile::NamedTempFile::new().map(Self::In).map_err(|error| {
            Failure::environment(miette::miette!(
                help = "make room there, or point TMPDIR elsewhere",
                "cannot make a file for TLS secrets in {}: {error}",
                std::env::temp_dir().display()
            ))
        })
    }

    /// Where the broker is to log them.
    pub(super) fn key_log(&self) -> Option<PathBuf> {
        match self {
            Self::In(file) => Some(file.path().to_owned()),
            Self::NotWanted | Self::Unknown => None,
        }
    }

    /// What a run is told.
    pub(super) fn capturing(&self) -> Capturing {
        match self {
            Self::NotWanted => Capturing::Off,
            Self::Unknown | Self::In(_) => Capturing::On { key_log: self.key_log() },
        }
    }
}
