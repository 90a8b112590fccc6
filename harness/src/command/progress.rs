//! How far a run is, on stderr.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::talk;
use crate::measure::record::Ending;
use crate::run::Progress;

/// Progress on stderr: a bar on a terminal, a line for each trial elsewhere.
pub struct Talk {
    bar: Option<ProgressBar>,
}

impl Talk {
    /// Ready to tell.
    pub fn new() -> Self {
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let bar = terminal.then(|| {
            let style =
                ProgressStyle::with_template("{spinner} {elapsed_precise} [{bar:30}] {pos}/{len} {msg}");
            let bar = ProgressBar::new(0).with_style(style.expect("the template is valid"));
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { bar }
    }

    /// Tells what has just happened.
    pub fn tell(&self, scenario: &str, progress: &Progress<'_>) {
        match (progress, &self.bar) {
            (Progress::Started { number, of, variant, role, seed }, Some(bar)) => {
                bar.set_length(*of as u64);
                bar.set_position(*number as u64 - 1);
                bar.set_message(format!("{scenario}: {variant}, {role}, seed {seed}"));
            }
            (Progress::Started { number, of, variant, role, seed }, None) => {
                talk(&format!("{scenario}: trial {number} of {of}: {variant}, {role}, seed {seed}"));
            }
            (Progress::Finished(trial), bar) => {
                if let Ending::Failed { phase, cause, .. } = &trial.ending {
                    let line = format!("{scenario}: {phase}: {cause}");
                    match bar {
                        Some(bar) => bar.println(line),
                        None => talk(&line),
                    }
                }
            }
        }
    }

    /// Takes the bar away.
    pub fn done(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
