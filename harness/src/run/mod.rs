//! Running a scenario: trial after trial, whatever happens to one of them, to a record of all.
//!
//! ```text
//! run -> trial -> director (board)     -> gathered -> Trial
//!              -> reference (quinn, rumqttc)       -> Trial
//! ```

pub(crate) mod connections;
mod director;
pub(crate) mod environment;
mod foreign;
mod gathered;
mod impaired;
mod journal;
mod link_log;
mod panics;
mod path;
mod reference;
mod refusal;
mod schedule;
pub(crate) mod settings;
mod setup;
mod stage;
mod tethered;
mod token;
mod trial;

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, Trust};
use crate::firmware::elf::Elf;
use crate::firmware::size::Sizes;
use crate::measure::record::{
    self, Blame, Ending, Environment, Role, RunRecord, ScenarioRecord, Timing, Trial,
};
use crate::scenario::{Scenario, Variant};

pub(crate) use connections::describe;
pub use impaired::Impaired;
pub use schedule::{faults, flaw};
pub use setup::{BoardKind, Counted};
pub use tethered::{Lan, Parts, Tethered};
pub use token::token;

/// Clock of the ESP32-C3, which turns instruction counts into estimated times.
const C3_CLOCK_HZ: u64 = 160_000_000;

/// Whether the wire of each board's trial is captured, as `wire-N.pcapng`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capturing {
    /// It is not.
    Off,
    /// It is, with the TLS secrets that the broker logs to this file, if it does.
    On {
        /// The broker's key log.
        key_log: Option<PathBuf>,
    },
}

/// One run to be made.
pub struct Run<'r> {
    /// The scenario, already restricted to what was asked for.
    pub scenario: &'r Scenario,
    /// The board.
    pub board: &'r BoardKind,
    /// The broker, started.
    pub broker: &'r mut Broker,
    /// What board and reference client trust, where that is not what the broker brings.
    pub trust: Option<Trust>,
    /// The name its certificate must be valid for.
    pub server_name: &'r str,
    /// Where logs go.
    pub folder: &'r Path,
    /// Whether packets are captured.
    pub capturing: Capturing,
    /// The command line as it was typed.
    pub command_line: Vec<String>,
    /// The command that replays the run.
    pub replay: String,
    /// Ends the run early, with a partial record.
    pub cancel: CancellationToken,
}

/// What a run tells while it is under way.
pub enum Progress<'p> {
    /// A trial begins.
    Started {
        /// Its number, from 1.
        number: usize,
        /// How many there are.
        of: usize,
        /// Which variant.
        variant: &'p str,
        /// Board or reference client.
        role: Role,
        /// With which seed.
        seed: u64,
    },
    /// It is over.
    Finished(&'p Trial),
}

impl Run<'_> {
    /// Makes the run. Trials that fail are part of the record.
    pub async fn make(self, mut progress: impl FnMut(Progress<'_>)) -> RunRecord {
        let start = Instant::now();
        let started_unix_us = unix_us();
        let plans = plans(self.scenario);
        panics::watch();
        let mut bench = trial::Bench {
            scenario: self.scenario,
            board: self.board,
            trust: self.trust.unwrap_or_else(|| self.broker.trust()),
            broker: self.broker,
            server_name: self.server_name,
            folder: self.folder.to_owned(),
            capturing: self.capturing,
            token: token(),
            cancel: self.cancel.clone(),
        };
        let mut trials = Vec::new();
        for (number, &(variant, seed, role)) in plans.iter().enumerate() {
            if self.cancel.is_cancelled() {
                break;
            }
            let (number, of) = (number + 1, plans.len());
            let one = async {
                progress(Progress::Started { number, of, variant: &variant.name, role, seed });
                let plan = trial::Plan { number, variant, role, seed, run_start: start };
                let trial = bench.run(plan).await;
                progress(Progress::Finished(&trial));
                trial
            };
            let trial = match AssertUnwindSafe(one).catch_unwind().await {
                Ok(trial) => trial,
                Err(_) => Trial::new(variant.name.clone(), variant.transport, role, seed),
            };
            let trial = panics::charge(trial);
            let fatal = is_fatal(&trial);
            trials.push(trial);
            if fatal {
                break;
            }
        }
        let ending = ending(&trials, plans.len(), &self.cancel);
        let mut board = board(self.board);
        // The board tells it, whether its firmware's ELF is at hand or not.
        if let Some(bytes) = client_state(&trials) {
            board.footprint.get_or_insert_default().client_state_bytes = Some(bytes);
        }
        RunRecord {
            scenario: ScenarioRecord {
                name: self.scenario.name.clone(),
                question: self.scenario.question.clone(),
                origin: self.scenario.origin.clone(),
                source: self.scenario.source.clone(),
                variants: self.scenario.variants.iter().map(|variant| variant.name.clone()).collect(),
                planned_trials: plans.len(),
            },
            environment: Environment {
                harness_version: env!("CARGO_PKG_VERSION").to_owned(),
                git_revision: environment::git_revision(),
                rustc_version: environment::rustc_version(),
                host: environment::host(),
                board,
                broker: broker(bench.broker),
                command_line: self.command_line,
                replay: self.replay,
                base_seed: self.scenario.seeds.first().copied().unwrap_or_default(),
                started_unix_us,
                duration_us: u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX),
                extra: std::collections::BTreeMap::new(),
            },
            ending,
            trials,
        }
    }
}

/// Every trial in the order it is run: for each seed, each variant by the board and then by the reference client, so
/// that what is compared lies close together in time.
fn plans(scenario: &Scenario) -> Vec<(&Variant, u64, Role)> {
    let roles: &[Role] = if scenario.reference { &[Role::Device, Role::Reference] } else { &[Role::Device] };
    let of_seed = |&seed| {
        scenario.variants.iter().flat_map(move |variant| roles.iter().map(move |&role| (variant, seed, role)))
    };
    scenario.seeds.iter().flat_map(of_seed).collect()
}

/// Whether further trials would only fail the same way: the environment is to blame, not the subject.
fn is_fatal(trial: &Trial) -> bool {
    matches!(
        &trial.ending,
        Ending::Failed { blame: Blame::Environment | Blame::Harness, .. } | Ending::Interrupted { .. }
    )
}

fn ending(trials: &[Trial], planned: usize, cancel: &CancellationToken) -> Ending {
    if cancel.is_cancelled() {
        return Ending::Interrupted { by: "the user".to_owned() };
    }
    let fatal = trials.iter().find(|trial| is_fatal(trial));
    match fatal.or_else(|| trials.iter().find(|trial| !trial.ending.is_completed())) {
        Some(trial) if is_fatal(trial) || trials.len() < planned => trial.ending.clone(),
        _ => Ending::Completed,
    }
}

fn board(kind: &BoardKind) -> record::Board {
    let footprint = footprint(kind);
    let (description, clock_hz) = match kind {
        BoardKind::Host => ("the firmware as a process on the host", None),
        BoardKind::Qemu { .. } => {
            ("the firmware on an emulated RV32IMC with 320 KiB of RAM", Some(C3_CLOCK_HZ))
        }
        BoardKind::Esp32c3(tethered) => return record::Board { footprint, ..tethered.record() },
    };
    record::Board {
        name: kind.name().name().to_owned(),
        description: description.to_owned(),
        firmware: Some(env!("CARGO_PKG_VERSION").to_owned()),
        chip: None,
        mac: None,
        timing: Timing::Emulated,
        clock_hz,
        footprint,
    }
}

/// Sizes of the firmware, from its ELF; `None` for a board without one, or if it cannot be read.
fn footprint(kind: &BoardKind) -> Option<record::Footprint> {
    let sizes = match kind {
        BoardKind::Host => return None,
        BoardKind::Qemu { elf, .. } => Sizes::measure(&Elf::open(elf).ok()?, crate::board::qemu::RAM),
        BoardKind::Esp32c3(tethered) => Sizes::measure(tethered.elf()?, crate::board::esp32c3::RAM),
    };
    let sizes = sizes.ok()?;
    let parts = |parts: Vec<crate::firmware::size::Part>| {
        parts.into_iter().map(|part| record::SizePart { name: part.name, bytes: part.bytes }).collect()
    };
    Some(record::Footprint {
        flash_bytes: Some(sizes.flash),
        flash_client_bytes: None,
        ram_static_bytes: Some(sizes.ram_static),
        client_state_bytes: None,
        sections: parts(sizes.sections),
        crates: parts(sizes.crates),
    })
}

/// Bytes of the client's state over QUIC, as the board reported them: what its RAM is beside its stack.
fn client_state(trials: &[Trial]) -> Option<u64> {
    let quic = trials.iter().filter(|trial| trial.transport == record::Transport::Quic);
    quic.flat_map(|trial| &trial.memory)
        .find_map(|snapshot| snapshot.client_ram?.checked_sub(snapshot.stack_high_water?))
}

fn broker(broker: &Broker) -> record::Broker {
    let description = broker.describe();
    record::Broker {
        kind: description.spec.clone(),
        version: description.version,
        description: description.product,
        image_digest: description.image_digest,
        certificate: Some(format!("{:?}", broker.certificates().kind())),
    }
}

fn unix_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
