//! What a trial starts from: names, boards, and how it can fail.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::tethered::Tethered;
use crate::board::qemu::QemuMachine;
use crate::board::{Board, BoardError, HostMachine, Options};
use crate::measure::record::{Blame, Ending};
use crate::scenario::BoardName;

/// Hardware address of a virtual board's NIC; locally administered.
pub const MAC: [u8; 6] = [0x02, 0x00, 0x4d, 0x51, 0x00, 0x02];

/// For which seeds of a scenario instructions are counted, beside its trials.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Counted {
    /// The first one: the counts of others differ by little.
    #[default]
    FirstSeed,
    /// Each of them.
    EverySeed,
}

/// The board of a run, ready to be started as often as there are trials.
#[derive(Clone, Debug)]
pub enum BoardKind {
    /// The firmware as a process.
    Host,
    /// The firmware on an emulated RV32IMC machine.
    Qemu {
        /// The firmware.
        elf: PathBuf,
        /// For which seeds instructions are counted.
        counted: Counted,
    },
    /// A real board on a cable.
    Esp32c3(Tethered),
}

impl BoardKind {
    /// The name in scenarios and on the command line.
    pub fn name(&self) -> BoardName {
        match self {
            Self::Host => BoardName::Host,
            Self::Qemu { .. } => BoardName::Qemu,
            Self::Esp32c3(_) => BoardName::Esp32c3,
        }
    }

    /// Starts a board.
    ///
    /// # Errors
    /// [`BoardError`] if it does not start or says nothing in time.
    pub async fn start(&self, seed: u64, options: Options) -> Result<Board, BoardError> {
        match self {
            Self::Host => Board::start(HostMachine::new(MAC)?.seeded(seed), options).await,
            Self::Qemu { elf, .. } => Board::start(QemuMachine::new(elf, MAC)?.seeded(seed), options).await,
            Self::Esp32c3(tethered) => tethered.start(options).await,
        }
    }
}

/// Names of one trial's topics and clients: no trial sees another's messages.
#[derive(Clone, Debug)]
pub struct Names {
    /// The board's client identifier.
    pub board: String,
    /// The peer's client identifier.
    pub peer: String,
    /// Names the board's messages in their payloads.
    pub run: u32,
    /// Names the peer's messages in their payloads.
    pub down_run: u32,
    /// Topics the board publishes to.
    pub up: Vec<String>,
    /// Topics the board subscribes to.
    pub down: Vec<String>,
}

impl Names {
    /// Names for trial number `trial` of a run that drew `token`.
    pub fn new(token: u32, trial: usize, up_topics: u16, down_topics: u16) -> Self {
        let topics = |way: &str, count: u16| {
            (0..count).map(|n| format!("hil/{token:08x}/{trial}/{way}/{n}")).collect()
        };
        let number = u32::try_from(trial).unwrap_or(u32::MAX) << 1;
        Self {
            board: format!("board-{token:08x}-{trial}"),
            peer: format!("peer-{token:08x}-{trial}"),
            run: token.wrapping_add(number),
            down_run: token.wrapping_add(number | 1),
            up: topics("up", up_topics),
            down: topics("down", down_topics),
        }
    }
}

/// Why a trial ended early.
#[derive(Debug)]
pub struct TrialError {
    /// The phase that was not completed.
    pub phase: &'static str,
    /// Whose fault it is.
    pub blame: Blame,
    /// What happened, with its remedy where there is one.
    pub cause: String,
    interrupted: bool,
}

impl TrialError {
    /// An error of `phase`.
    pub fn new(phase: &'static str, blame: Blame, cause: impl fmt::Display) -> Self {
        Self { phase, blame, cause: cause.to_string(), interrupted: false }
    }

    /// The end of `phase` was not seen within `limit`; `known` is what is known of the cause.
    pub fn late(phase: &'static str, blame: Blame, limit: Duration, known: &str) -> Self {
        Self::new(
            phase,
            blame,
            format!("not reached within {limit:?}: {known}\n  remedy: {}", late_remedy(phase)),
        )
    }

    /// The user stopped the run.
    pub fn interrupted() -> Self {
        Self { phase: "run", blame: Blame::Environment, cause: "interrupted".to_owned(), interrupted: true }
    }

    /// Whether it is the user's doing.
    pub fn is_interruption(&self) -> bool {
        self.interrupted
    }

    /// The ending it makes of the trial.
    pub fn ending(&self) -> Ending {
        if self.interrupted {
            Ending::Interrupted { by: "the user".to_owned() }
        } else {
            Ending::Failed { phase: self.phase.to_owned(), cause: self.cause.clone(), blame: self.blame }
        }
    }
}

/// What to do about a phase that did not come to its end in time.
fn late_remedy(phase: &str) -> &'static str {
    match phase {
        "network up" => {
            "check the network's DHCP server; the console log shows how far the board came, and `boot` in [limits] allows more time"
        }
        "connect" | "subscribe" => {
            "the link's log (link.jsonl) shows what passed, the console log and the broker's what became of it; `connect` in [limits] \
             allows more time, as a slow or lossy link may need"
        }
        super::refusal::PHASE => {
            "the attempt neither succeeded nor failed: the console log shows where it stands; `connect` in [limits] allows more time"
        }
        _ => "the console log and the broker's log show what happened instead",
    }
}
