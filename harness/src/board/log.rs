//! The console log: everything a board said and was told, each with its time.

use std::fmt::Display;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::BoardError;

/// A log file shared by the lives of one board; nowhere if there is none.
#[derive(Clone, Default)]
pub(super) struct Log(Option<Arc<Mutex<BufWriter<File>>>>);

impl Log {
    pub(super) fn create(path: Option<&Path>) -> Result<Self, BoardError> {
        let Some(path) = path else { return Ok(Self(None)) };
        let file = File::create(path)
            .map_err(|source| BoardError::Log { path: path.display().to_string(), source })?;
        Ok(Self(Some(Arc::new(Mutex::new(BufWriter::new(file))))))
    }

    /// Writes a line. What the disk does not take is lost: a run does not fail for its log.
    pub(super) fn line(&self, at_us: u64, what: impl Display) {
        if let Some(file) = &self.0 {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = writeln!(file, "{:>6}.{:06} {what}", at_us / 1_000_000, at_us % 1_000_000);
        }
    }

    /// Makes sure that everything is in the file.
    pub(super) fn flush(&self) {
        if let Some(file) = &self.0 {
            let _ = file.lock().unwrap_or_else(PoisonError::into_inner).flush();
        }
    }
}
