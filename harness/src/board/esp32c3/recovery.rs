//! The recovery ladder: what is tried, in which order, when a board does not answer.
//!
//! ```text
//! reset (lines, or by command) -> re-open the port -> USB re-enumeration -> power-cycle command
//! ```
//! Each rung is tried once and has a time limit; what became of it is told, also in the error of a board that no rung
//! could help.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{Access, access};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use super::discover::{Roots, scan};
use super::{Fault, Mac};

/// One way to get a board to answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rung {
    /// By its control lines, or by the reboot command where there are none.
    Reset,
    /// Close the port and open it again, once it is there.
    Reopen,
    /// Let the kernel enumerate the USB device anew.
    Reenumerate,
    /// The command in `boards.toml` that cycles its power.
    PowerCycle,
}

impl Rung {
    /// The ladder from the gentlest to the strongest.
    pub const LADDER: [Self; 4] = [Self::Reset, Self::Reopen, Self::Reenumerate, Self::PowerCycle];
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reset => "reset",
            Self::Reopen => "opening the port again",
            Self::Reenumerate => "USB re-enumeration",
            Self::PowerCycle => "power cycle",
        })
    }
}

/// A rung, and what became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attempt {
    /// The rung.
    pub rung: Rung,
    /// What was done and seen.
    pub outcome: String,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rung, self.outcome)
    }
}

/// What the recovery ladder did, in a line for each rung.
pub(super) fn attempts_of(attempts: &[Attempt]) -> String {
    let mut text = String::new();
    if !attempts.is_empty() {
        text.push_str("; tried:");
    }
    for attempt in attempts {
        let _ = write!(text, "\n  {attempt}");
    }
    text
}

/// Time a USB device has to come back.
const RETURN_LIMIT: Duration = Duration::from_secs(5);
/// Time a power-cycle command may take.
const POWER_LIMIT: Duration = Duration::from_secs(30);
/// How often the port is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Makes the kernel forget and find the USB device at `device` in sysfs, which needs write access to its `authorized`.
///
/// # Errors
/// Why not, in words.
pub async fn reenumerate(device: &Path, port: &Path, mac: Option<Mac>) -> Result<String, String> {
    let switch = device.join("authorized");
    let fail = |error: std::io::Error| format!("cannot write {}: {error}", switch.display());
    let taken = Taken::away(&switch).map_err(fail)?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    taken.back().map_err(fail)?;
    came_back(port, mac).await.map(|after| format!("the port came back after {} ms", after.as_millis()))
}

/// Switches of USB devices that were taken from their drivers and not given back yet.
static TAKEN: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A USB device that is taken from its driver. It is given back whatever becomes of who took it: without that, only plugging it
/// in again would help.
struct Taken<'s> {
    switch: &'s Path,
}

impl<'s> Taken<'s> {
    fn away(switch: &'s Path) -> std::io::Result<Self> {
        std::fs::write(switch, "0")?;
        TAKEN.lock().unwrap_or_else(PoisonError::into_inner).push(switch.into());
        Ok(Self { switch })
    }

    fn back(self) -> std::io::Result<()> {
        std::fs::write(self.switch, "1")
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|switch| switch != self.switch);
        // Once more does no harm.
        let _ = std::fs::write(self.switch, "1");
    }
}

/// Gives back every USB device that is taken at the moment: for a process that ends without unwinding.
pub fn give_back() {
    for switch in TAKEN.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        let _ = std::fs::write(switch, "1");
    }
}

/// Runs the board's power-cycle command and waits for its port.
///
/// # Errors
/// [`Fault::Power`] if the command fails or takes too long; [`Fault::NoPort`] if the board does not come back, or
/// [`Fault::Port`] if it did under another name.
pub async fn power_cycle(command: &[String], port: &Path, mac: Option<Mac>) -> Result<String, Fault> {
    let shown = command.join(" ");
    let fail = |cause: String| Fault::Power { command: shown.clone(), cause };
    let (program, arguments) = command.split_first().ok_or_else(|| fail("it is empty".to_owned()))?;
    // Whoever is interrupted meanwhile leaves it to its end, out of reach of the terminal's Ctrl-C: half of it is a board without
    // power.
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| fail(error.to_string()))?;
    let mut said = Vec::new();
    let stderr = child.stderr.take();
    let ended = timeout(POWER_LIMIT, async {
        if let Some(mut stderr) = stderr {
            stderr.read_to_end(&mut said).await?;
        }
        child.wait().await
    })
    .await;
    let Ok(ended) = ended else {
        // It has ended meanwhile if that fails.
        let _ = child.start_kill();
        return Err(fail(format!("it did not end within {POWER_LIMIT:?}")));
    };
    let status = ended.map_err(|error| fail(error.to_string()))?;
    if !status.success() {
        let said = String::from_utf8_lossy(&said);
        return Err(fail(format!("{status}: {}", said.lines().next().unwrap_or("it said nothing"))));
    }
    match came_back(port, mac).await {
        Ok(after) => Ok(format!("`{shown}` ran, the port was there after {} ms", after.as_millis())),
        Err(cause) if port.exists() => Err(Fault::Port { port: port.into(), cause }),
        Err(_) => Err(Fault::NoPort { port: port.into() }),
    }
}

/// Waits for a port that has gone, as one does whose chip enumerates anew after a reset; nothing to tell of one that is there.
///
/// # Errors
/// In words, that it did not come back.
pub async fn reopen(port: &Path, mac: Option<Mac>) -> Result<String, String> {
    if port.exists() {
        return elsewhere(port, mac, &Roots::default()).map_or_else(|| Ok(String::new()), Err);
    }
    came_back(port, mac).await.map(|after| format!("the port came back after {} ms", after.as_millis()))
}

async fn came_back(port: &Path, mac: Option<Mac>) -> Result<Duration, String> {
    let start = std::time::Instant::now();
    // It first has to go; a device that never went is found at once, which does no harm.
    while start.elapsed() < RETURN_LIMIT {
        if let Some(moved) = elsewhere(port, mac, &Roots::default()) {
            return Err(moved);
        }
        // The kernel makes the port, and a moment later udev gives it to its group.
        if access(port, Access::READ_OK | Access::WRITE_OK).is_ok() {
            return Ok(start.elapsed());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    // Opening it tells what is wrong with one that is there.
    if port.exists() {
        return Ok(start.elapsed());
    }
    Err(format!("{} did not come back within {RETURN_LIMIT:?}", port.display()))
}

/// Whether the board with `mac` has another port than `port` now: of several that are enumerated at once, each takes the first
/// name that is free, and whoever has this one may be another board.
fn elsewhere(port: &Path, mac: Option<Mac>, roots: &Roots) -> Option<String> {
    let mac = mac?;
    let boards = scan(roots).boards;
    let now = &boards.iter().find(|found| found.mac == Some(mac))?.port;
    (now != port).then(|| format!("the board is at {} now; start again with --mac {mac}", now.display()))
}

/// What a rung needs to know about a board.
#[derive(Clone, Debug, Default)]
pub struct Means {
    /// Its USB device in sysfs.
    pub usb_device: Option<PathBuf>,
    /// Its power-cycle command: program and arguments.
    pub power_cycle: Option<Vec<String>>,
    /// Its address, where its USB device tells it.
    pub mac: Option<Mac>,
}

#[cfg(test)]
mod tests {
    use super::super::discover::tests::plug;
    use super::*;

    #[test]
    fn a_board_that_came_back_under_another_name_is_not_mistaken_for_the_one_that_has_its_old_one() {
        let root = tempfile::tempdir().unwrap();
        let roots = plug(root.path(), "ttyACM0", "1-1.1", ("303a", "1001"), "7C:DF:A1:00:00:01");
        plug(root.path(), "ttyACM1", "1-1.2", ("303a", "1001"), "7C:DF:A1:00:00:02");
        let [first, second] = ["ttyACM0", "ttyACM1"].map(|tty| roots.dev.join(tty));
        let mac = Some(Mac([0x7c, 0xdf, 0xa1, 0, 0, 2]));
        assert_eq!(elsewhere(&second, mac, &roots), None);
        let moved = elsewhere(&first, mac, &roots).expect("it is the other's");
        assert!(moved.contains("ttyACM1 now; start again with --mac 7c:df:a1:00:00:02"), "{moved}");
        // One that nothing is known of, or that is not there yet.
        assert_eq!(elsewhere(&first, None, &roots), None);
        assert_eq!(elsewhere(&first, Some(Mac([9; 6])), &roots), None);
    }

    #[tokio::test]
    async fn a_device_whose_enumeration_is_broken_off_is_given_back() {
        let device = tempfile::tempdir().unwrap();
        let switch = device.path().join("authorized");
        let state = || std::fs::read_to_string(&switch).unwrap();
        let broken_off = reenumerate(device.path(), Path::new("/dev/ttyNOPE"), None);
        let soon = timeout(Duration::from_millis(10), broken_off).await;
        assert!(soon.is_err(), "it takes 300 ms and more");
        assert_eq!(state(), "1");
        // As at the end of a process, which drops nothing.
        let taken = Taken::away(&switch).unwrap();
        assert_eq!(state(), "0");
        std::mem::forget(taken);
        give_back();
        assert_eq!(state(), "1");
    }

    fn words(command: &[&str]) -> Vec<String> {
        command.iter().map(|&word| word.to_owned()).collect()
    }

    #[tokio::test]
    async fn a_power_cycle_command_that_fails_is_named_with_what_it_said() {
        let command = words(&["sh", "-c", "echo no such hub >&2; exit 3"]);
        let fault = power_cycle(&command, Path::new("/dev/null"), None).await.unwrap_err();
        assert!(fault.to_string().contains("no such hub"), "{fault}");
    }

    #[tokio::test]
    async fn a_power_cycle_command_that_is_missing_is_named() {
        let fault =
            power_cycle(&words(&["no-such-hub-tool"]), Path::new("/dev/null"), None).await.unwrap_err();
        assert!(
            matches!(fault, Fault::Power { .. }) && fault.to_string().contains("no-such-hub-tool"),
            "{fault}"
        );
    }
}
