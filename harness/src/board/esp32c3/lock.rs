//! One process per board: an advisory file lock that the kernel lets go when its process ends, however it ends.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::Fault;

/// Where locks are, when `HARNESS_LOCKS` does not say otherwise: one place for all users of a machine.
const FOLDER: &str = "/tmp/harness-boards";

/// A held lock; dropping it, or ending the process, lets it go.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file would not do: a process that is being started has it open, too, until its program is loaded.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
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
        let mut file = open_or_make(&path).map_err(|error| fail(format!("{}: {error}", path.display())))?;
        match take_exclusively(&file) {
            Ok(true) => {}
            Ok(false) => {
                return Err(Fault::Locked { board: board.to_owned(), holder: describe(&mut file) });
            }
            Err(error) => return Err(fail(format!("{}: {error}", path.display()))),
        }
        let written =
            open(OpenOptions::new().write(true), &path).and_then(|mut file| write_holder(&mut file));
        // The lock is what counts; its holder's name is a courtesy.
        if let Err(error) = written {
            tracing::warn!("cannot name the holder in {}: {error}", path.display());
        }
        Ok(Self { file })
    }

    /// Who has `board` now; `None` if nobody has. Any number may ask at once, and none of them is taken for a holder.
    pub fn holder(board: &str) -> Option<String> {
        Self::holder_in(&folder(), board)
    }

    /// The same with the locks in `folder`.
    pub fn holder_in(folder: &Path, board: &str) -> Option<String> {
        // Without a file nobody ever had it.
        let mut file = open(OpenOptions::new().read(true), &path(folder, board)).ok()?;
        (is_held(&file) == Ok(true)).then(|| describe(&mut file))
    }
}

/// Opens a lock's file. Others' links in a folder that everybody may write to are not followed.
fn open(options: &mut OpenOptions, path: &Path) -> std::io::Result<File> {
    options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32).open(path)
}

/// Opens the file of a lock, and makes it if nobody did before. One that is there is only read: a kernel that protects files in
/// folders with a sticky bit lets nobody open another user's to create it, and a lock needs no more.
fn open_or_make(path: &Path) -> std::io::Result<File> {
    loop {
        match open(OpenOptions::new().read(true), path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            opened => return opened,
        }
        match open(OpenOptions::new().read(true).write(true).create_new(true), path) {
            // Somebody else was first.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Ok(file) => {
                // Whoever has the board next writes its name there, whatever this process's mask is.
                file.set_permissions(Permissions::from_mode(0o666))?;
                return Ok(file);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Takes the lock; `false` if it is held. A look at a lock is in its way for a moment: such a moment is waited out.
fn take_exclusively(file: &File) -> rustix::io::Result<bool> {
    let deadline = Instant::now() + LOOKS_LIMIT;
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) if is_held(file)? || Instant::now() >= deadline => return Ok(false),
            Err(Errno::WOULDBLOCK) => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => return Err(error),
        }
    }
}

/// Whether somebody holds the lock. A shared lock, held for the moment of the look, bears any number of others like it, but
/// no holder.
fn is_held(file: &File) -> rustix::io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => flock(file, FlockOperation::Unlock).map(|()| false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Time for others to end their looks; each takes microseconds.
const LOOKS_LIMIT: Duration = Duration::from_secs(2);

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
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
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
    file.write_all(serde_json::to_string(&holder)?.as_bytes())
}

fn describe(file: &mut File) -> String {
    let mut text = String::new();
    // A holder that has just taken it may not have written its name yet.
    let _ = file.read_to_string(&mut text);
    // Nor may one who could not write it have wiped out its predecessor's.
    let lives = |holder: &Holder| Path::new("/proc").join(holder.pid.to_string()).exists();
    let Some(holder) = serde_json::from_str::<Holder>(&text).ok().filter(lives) else {
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
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_second_holder_is_told_who_the_first_is() {
        let folder = tempfile::tempdir().unwrap();
        let held = Lock::take_in(folder.path(), "7c:df:a1:00:00:01").unwrap();
        let fault = Lock::take_in(folder.path(), "7C:DF:A1:00:00:01").unwrap_err();
        assert!(fault.to_string().contains(&format!("process {}", std::process::id())), "{fault}");
        assert!(Lock::take_in(folder.path(), "7c:df:a1:00:00:02").is_ok());
        // As a process has it that is being started meanwhile.
        let inherited = held.file.try_clone().unwrap();
        drop(held);
        assert!(Lock::take_in(folder.path(), "7c:df:a1:00:00:01").is_ok());
        drop(inherited);
    }

    #[test]
    fn a_board_that_one_user_had_is_free_for_another() {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
        let (folder, board) = (root.path().join("locks"), "7c:df:a1:00:00:01");
        drop(Lock::take_in(&folder, board).unwrap());
        let mode = fs::metadata(path(&folder, board)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o666, "whoever has it next writes its name");
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let theirs = folder.clone();
        let other = std::thread::spawn(move || {
            // Of this thread alone.
            let nobody = rustix::thread::Uid::from_raw(65_534);
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
            Lock::take_in(&theirs, board).map(|held| (held, Lock::holder_in(&theirs, board)))
        });
        let (held, holder) = other.join().unwrap().unwrap();
        assert!(holder.unwrap().contains(&format!("process {}", std::process::id())));
        let fault = Lock::take_in(&folder, board).unwrap_err();
        assert!(matches!(fault, Fault::Locked { .. }), "{fault}");
        drop(held);
        assert!(Lock::take_in(&folder, board).is_ok());
    }

    #[test]
    fn looking_at_a_board_neither_takes_it_nor_is_in_anybodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let (board, stop) = ("7c:df:a1:00:00:01", AtomicBool::new(false));
        assert_eq!(Lock::holder_in(folder.path(), board), None);
        assert!(!path(folder.path(), board).exists(), "a look leaves nothing behind");
        let held = Lock::take_in(folder.path(), board).unwrap();
        let holder = Lock::holder_in(folder.path(), board).unwrap();
        assert!(holder.contains(&format!("process {}", std::process::id())), "{holder}");
        drop(held);
        // Each look opens the file anew, as each process would.
        let look = || Lock::holder_in(folder.path(), board).is_some();
        let together = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            let looks = || {
                together.wait();
                (0..3_000).filter(|_| look()).count()
            };
            let lookers = [(); 4].map(|()| scope.spawn(looks));
            assert_eq!(lookers.map(|looker| looker.join().unwrap()), [0; 4], "nobody had it");
        });
        std::thread::scope(|scope| {
            let looks = || {
                while !stop.load(Ordering::Relaxed) {
                    look();
                }
            };
            scope.spawn(looks);
            scope.spawn(looks);
            let taken = (0..100).filter(|_| Lock::take_in(folder.path(), board).is_ok()).count();
            stop.store(true, Ordering::Relaxed);
            assert_eq!(taken, 100, "it was free each time");
        });
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let fault = Lock::take_in(Path::new("/proc/no/such"), "x").unwrap_err();
        assert!(matches!(&fault, Fault::Lock { cause, .. } if cause.contains("/proc/no/such")), "{fault}");
    }
}
