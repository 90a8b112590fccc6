//! What became of each board's runs: a flaky board is kept out until it has proven itself again.
//!
//! One file per board, one JSON line per happening. A run that failed its expectations says nothing about the *board*;
//! only what the board itself failed at counts against it.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Uses that are looked at.
const WINDOW: usize = 10;
/// Faults of the board among them that put it into quarantine.
const FAULTS_MAX: usize = 3;
/// Lines a file has before its older half goes.
const LINES_MAX: usize = 2_000;

/// Something that was done with a board.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Happening {
    /// When, in seconds since 1970.
    pub unix_s: u64,
    /// What.
    pub what: What,
    /// What the board failed at; `None` if it did its part.
    pub fault: Option<String>,
}

/// What was done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum What {
    /// A scenario was run.
    Run {
        /// Its name.
        scenario: String,
        /// Whether its expectations held.
        passed: bool,
    },
    /// The firmware was written.
    Flash,
    /// The board was tried on purpose: what came before is forgiven if it passed.
    Verify,
    /// The chip was asked what it is.
    Probe {
        /// Chip and revision, such as `esp32c3 v0.4`.
        chip: String,
        /// Size of its flash.
        flash: String,
    },
}

/// Where histories are kept.
#[derive(Clone, Debug)]
pub struct Archive(PathBuf);

impl Archive {
    /// The user's: `HARNESS_STATE`, or `harness` in the XDG state folder.
    pub fn of_user() -> Self {
        let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/state"));
        let folder = std::env::var_os("HARNESS_STATE").map(PathBuf::from).or_else(|| {
            std::env::var_os("XDG_STATE_HOME")
                .map(PathBuf::from)
                .or_else(home)
                .map(|state| state.join("harness"))
        });
        Self(folder.unwrap_or_else(|| ".harness".into()).join("boards"))
    }

    /// One in `folder`.
    pub fn at(folder: &Path) -> Self {
        Self(folder.into())
    }

    /// The history of `board`, named by its lock.
    pub fn read(&self, board: &str) -> History {
        let text = fs::read(self.path(board)).unwrap_or_default();
        // A line that was cut short by a crash is left out.
        let lines = text.split(|&byte| byte == b'\n');
        History(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }

    /// Notes what became of `board` now.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn note(&self, board: &str, what: What, fault: Option<String>) -> std::io::Result<()> {
        let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.append(board, &Happening { unix_s, what, fault })
    }

    fn append(&self, board: &str, happening: &Happening) -> std::io::Result<()> {
        fs::create_dir_all(&self.0)?;
        let path = self.path(board);
        let History(before) = self.read(board);
        let mut file = if before.len() >= LINES_MAX {
            let mut file = File::create(&path)?;
            for kept in &before[LINES_MAX / 2..] {
                writeln!(file, "{}", serde_json::to_string(kept)?)?;
            }
            file
        } else {
            let torn = fs::read(&path).is_ok_and(|text| text.last().is_some_and(|&byte| byte != b'\n'));
            let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
            if torn {
                writeln!(file)?;
            }
            file
        };
        writeln!(file, "{}", serde_json::to_string(happening)?)
    }

    fn path(&self, board: &str) -> PathBuf {
        let name: String = board.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        self.0.join(format!("{}.jsonl", name.trim_matches('-')))
    }
}

/// What became of one board, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History(pub Vec<Happening>);

impl History {
    /// What counts: the last uses since the board last proved itself. A board that is flashed to be run is used once.
    fn recent(&self) -> Vec<&Happening> {
        let proved = |happening: &Happening| happening.what == What::Verify && happening.fault.is_none();
        let start = self.0.iter().rposition(proved).map_or(0, |index| index + 1);
        let told: Vec<&Happening> = self.0[start..]
            .iter()
            .filter(|happening| !matches!(happening.what, What::Probe { .. }))
            .collect();
        let is_use = |at: usize| {
            let then = told.get(at + 1).map(|next| &next.what);
            let begins_a_run = matches!(then, Some(What::Run { .. } | What::Verify));
            told[at].what != What::Flash || told[at].fault.is_some() || !begins_a_run
        };
        let mut uses: Vec<_> = (0..told.len()).filter(|&at| is_use(at)).map(|at| told[at]).collect();
        uses.split_off(uses.len().saturating_sub(WINDOW))
    }

    /// Why the board should not be picked by itself; `None` if it may.
    pub fn quarantine(&self) -> Option<String> {
        let recent = self.recent();
        let faults: Vec<&str> = recent.iter().filter_map(|happening| happening.fault.as_deref()).collect();
        let last = faults.last()?;
        (faults.len() >= FAULTS_MAX)
            .then(|| format!("it failed at {} of its last {} uses, last: {last}", faults.len(), recent.len()))
    }

    /// Runs in which the board did its part, and all runs.
    pub fn runs(&self) -> (usize, usize) {
        let runs = || self.0.iter().filter(|happening| matches!(happening.what, What::Run { .. }));
        (runs().filter(|happening| happening.fault.is_none()).count(), runs().count())
    }

    /// Chip with revision and flash, as it last told when asked.
    pub fn chip(&self) -> Option<(&str, &str)> {
        self.0.iter().rev().find_map(|happening| match &happening.what {
            What::Probe { chip, flash } => Some((chip.as_str(), flash.as_str())),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(passed: bool) -> What {
        What::Run { scenario: "hello".into(), passed }
    }

    #[test]
    fn a_flaky_board_is_kept_out_until_it_proves_itself() {
        let folder = tempfile::tempdir().unwrap();
        let archive = Archive::at(folder.path());
        let board = "7c:df:a1:00:00:01";
        for _ in 0..5 {
            archive.note(board, run(true), None).unwrap();
        }
        for _ in 0..2 {
            archive.note(board, run(false), Some("silent".into())).unwrap();
        }
        assert_eq!(archive.read(board).quarantine(), None);
        archive.note(board, run(false), Some("garbage".into())).unwrap();
        let why = archive.read(board).quarantine().unwrap();
        assert_eq!(why, "it failed at 3 of its last 8 uses, last: garbage");
        archive.note(board, What::Verify, Some("silent".into())).unwrap();
        assert!(archive.read(board).quarantine().is_some());
        archive.note(board, What::Verify, None).unwrap();
        assert_eq!(archive.read(board).quarantine(), None);
        assert_eq!(archive.read(board).runs(), (5, 8));
    }

    #[test]
    fn a_board_that_is_flashed_for_each_run_is_used_once_a_run() {
        let folder = tempfile::tempdir().unwrap();
        let archive = Archive::at(folder.path());
        for number in 0..20 {
            let probe = What::Probe { chip: "esp32c3 v0.4".into(), flash: "4MB".into() };
            archive.note("x", probe, None).unwrap();
            archive.note("x", What::Flash, None).unwrap();
            archive.note("x", run(true), (number % 3 == 0).then(|| "silent".into())).unwrap();
        }
        let why = archive.read("x").quarantine().unwrap();
        assert_eq!(why, "it failed at 3 of its last 10 uses, last: silent");
        // What is flashed alone is a use, too: one that failed three times long ago is not kept out for ever.
        for _ in 0..8 {
            archive.note("x", What::Flash, None).unwrap();
        }
        assert_eq!(archive.read("x").quarantine(), None);
    }

    #[test]
    fn a_failed_expectation_is_no_fault_of_the_board() {
        let folder = tempfile::tempdir().unwrap();
        let archive = Archive::at(folder.path());
        for _ in 0..20 {
            archive.note("x", run(false), None).unwrap();
        }
        assert_eq!(archive.read("x").quarantine(), None);
    }

    #[test]
    fn a_line_that_was_cut_short_does_not_hide_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let archive = Archive::at(folder.path());
        archive.note("x", run(true), None).unwrap();
        let path = archive.path("x");
        // Within a letter of two bytes.
        let torn = [fs::read(&path).unwrap(), b"{\"unix_s\":1,\"fault\":\"5 \xc2".to_vec()].concat();
        fs::write(&path, torn).unwrap();
        archive.note("x", run(true), None).unwrap();
        assert_eq!(archive.read("x").runs(), (2, 2));
    }
}
