//! A trial of a firmware that does not speak the control protocol: flashed, reset, and read by its log lines, on the same
//! board and behind the same link as ours.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::setup::TrialError;
use crate::board::esp32c3::{Evidence, Fault, TetheredMachine};
use crate::measure::adapter::{LogReader, Rules};
use crate::measure::record::{Blame, Trial};
use crate::peer::Clock;

/// Time a firmware has for its first words: behind a reset the ROM speaks at once.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Bytes that tell what a firmware is that no rule knows.
const EVIDENCE_MAX: usize = 64 * 1024;
/// The longest line of a log that is read.
const LINE_MAX: usize = 64 * 1024;

/// What following a log takes.
pub struct Follow<'f> {
    /// The rules.
    pub rules: &'f Rules,
    /// The trial's clock.
    pub clock: Clock,
    /// How long the firmware is followed, if no rule ends it.
    pub limit: Duration,
    /// Where its log goes.
    pub log: &'f Path,
    /// Ends it early.
    pub cancel: &'f CancellationToken,
}

impl Follow<'_> {
    /// Resets the board, reads its log and fills in the trial.
    ///
    /// # Errors
    /// If the port cannot be used or vanishes, or if no line was known to the rules.
    pub async fn run(self, mut machine: TetheredMachine, trial: &mut Trial) -> Result<(), TrialError> {
        let failed = |machine: &TetheredMachine, fault: &Fault| {
            machine.note(fault);
            TrialError::new("boot", Blame::Environment, fault.told())
        };
        let mut incoming = machine.listen().map_err(|fault| failed(&machine, &fault))?;
        let file =
            File::create(self.log).map_err(|error| TrialError::new("boot", Blame::Environment, error))?;
        let mut evidence = Evidence::default();
        let (mut file, mut lines) = (BufWriter::new(file), Vec::new());
        let mut reader = LogReader::new(self.rules);
        let deadline = Instant::now() + self.limit;
        let silence = Instant::now() + SILENCE_MAX.min(self.limit);
        let mut ended = Ok(());
        while !reader.is_finished() {
            let chunk = tokio::select! {
                chunk = timeout_at(if evidence.heard == 0 { silence } else { deadline }, incoming.next()) => chunk,
                () = self.cancel.cancelled() => {
                    ended = Err(TrialError::interrupted());
                    break;
                }
            };
            match chunk {
                Ok(Some(chunk)) => {
                    if evidence.heard < EVIDENCE_MAX {
                        evidence.hear(&chunk);
                    }
                    lines.extend_from_slice(&chunk);
                }
                Ok(None) => {
                    ended = Err(failed(&machine, &Fault::Pulled { port: machine.port().into() }));
                    break;
                }
                Err(_) => break,
            }
            let at_us = self.clock.now_us();
            while let Some(end) = lines.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = lines.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                let line = line.trim_end();
                reader.line(at_us, line);
                // The report matters more than its log.
                let _ = writeln!(file, "{:>6}.{:06} {line}", at_us / 1_000_000, at_us % 1_000_000);
            }
            // No firmware runs behind what the ROM says then: nothing is to be waited for.
            if reader.matched() == 0
                && let Some(fault) = machine.told_by_rom(&evidence)
            {
                ended = Err(failed(&machine, &fault));
                break;
            }
            // No log has such lines: noise has.
            if lines.len() > LINE_MAX {
                lines.clear();
            }
        }
        let _ = file.flush();
        let matched = reader.matched();
        reader.into_trial(trial);
        if ended.is_ok() && matched == 0 {
            match machine.diagnose(&evidence) {
                // It speaks, only in words that the rules do not know.
                Fault::Foreign { .. } | Fault::NoRestart { .. } => {}
                fault => return Err(failed(&machine, &fault)),
            }
            let cause = format!(
                "none of the rules for {} knew a line within {:?}\n  remedy: compare the console log with the rules",
                self.rules.firmware, self.limit
            );
            return Err(TrialError::new("log", Blame::Subject, cause));
        }
        ended
    }
}
