//! One process per board: an advisory file lock that the kernel lets go when its process ends, however it ends.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::Fault;

/// Where locks are, when `HARNESS_LOCKS` does not say otherwise: one place for all users of a machine.
const FOLDER: &str = "/tmp/harness-boards";

/// A held lock; dropping it, or ending the process, lets it go.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Who holds a lock, as it is written in its file.
#[derive(Serialize, Deserialize)]
struct Holder {
    pid: u32,
    user: String,
    command: String,
    since_unix_s: u64,
}

impl Lock {
    /// Takes the lock of `board` without waiting.
    ///
    /// # Errors
    /// [`Fault::Locked`] naming its holder; [`Fault::Lock`] if there is no place for it.
    pub fn take(board: &str) -> Result<Self, Fault> {
        Self::take_in(&folder(), board)
    }

    /// The same with the locks in `folder`.
    ///
    /// # Errors
    /// As [`Lock::take`].
    pub fn take_in(folder: &Path, board: &str) -> Result<Self, Fault> {
        let fail = |what: String| Fault::Lock { board: board.to_owned(), cause: what };
        let path = path(folder, board);
        prepare(folder).map_err(|error| fail(format!("{}: {error}", folder.display())))?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o666)
            // Others' links in a folder that everybody may write to are not followed.
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
            .open(&path)
            .map_err(|error| fail(format!("{}: {error}", path.display())))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(Fault::Locked { board: board.to_owned(), holder: describe(&mut file) });
            }
            Err(error) => return Err(fail(format!("{}: {error}", path.display()))),
        }
        let written = write_holder(&mut file);
        // The lock is what counts; its holder's name is a courtesy.
        if let Err(error) = written {
            tracing::warn!("cannot name the holder in {}: {error}", path.display());
        }
        Ok(Self { _file: file })
    }

    /// Who has `board` now; `None` if nobody has.
    pub fn holder(board: &str) -> Option<String> {
        match Self::take(board) {
            Err(Fault::Locked { holder, .. }) => Some(holder),
            // Taken for a moment and let go again: nobody had it.
            _ => None,
        }
    }
}

fn folder() -> PathBuf {
    std::env::var_os("HARNESS_LOCKS").map_or_else(|| FOLDER.into(), PathBuf::from)
}

fn path(folder: &Path, board: &str) -> PathBuf {
    let name: String =
        board.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    folder.join(format!("{}.lock", name.trim_matches('-')))
}

/// Makes the folder, open to every user and with the sticky bit, as the temporary directory is.
fn prepare(folder: &Path) -> std::io::Result<()> {
    match DirBuilder::new().mode(0o777).create(folder) {
        Ok(()) => fs::set_permissions(folder, Permissions::from_mode(0o1777)),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn write_holder(file: &mut File) -> std::io::Result<()> {
    let command: Vec<_> = std::env::args().collect();
    let holder = Holder {
        pid: std::process::id(),
        user: std::env::var("USER").unwrap_or_else(|_| "unknown".to_owned()),
        command: command.join(" "),
        since_unix_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
    };
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(serde_json::to_string(&holder)?.as_bytes())
}

fn describe(file: &mut File) -> String {
    let mut text = String::new();
    // A holder that has just taken it may not have written its name yet.
    let _ = file.read_to_string(&mut text);
    let Ok(holder) = serde_json::from_str::<Holder>(&text) else {
        return "a process that did not say who it is".to_owned();
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    format!(
        "process {} of {} (`{}`), for {} s",
        holder.pid,
        holder.user,
        holder.command,
        now.saturating_sub(holder.since_unix_s)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_who_the_first_is() {
        let folder = tempfile::tempdir().unwrap();
        let held = Lock::take_in(folder.path(), "7c:df:a1:00:00:01").unwrap();
        let fault = Lock::take_in(folder.path(), "7C:DF:A1:00:00:01").unwrap_err();
        assert!(fault.to_string().contains(&format!("process {}", std::process::id())), "{fault}");
        assert!(Lock::take_in(folder.path(), "7c:df:a1:00:00:02").is_ok());
        drop(held);
        assert!(Lock::take_in(folder.path(), "7c:df:a1:00:00:01").is_ok());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let fault = Lock::take_in(Path::new("/proc/no/such"), "x").unwrap_err();
        assert!(matches!(&fault, Fault::Lock { cause, .. } if cause.contains("/proc/no/such")), "{fault}");
    }
}
