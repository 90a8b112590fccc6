//! The temporary folder of a process that the harness starts, a virtual board or a fleet's broker: sockets, keys, and
//! what else it is given by path.
//!
//! It goes with its owner. An owner that is killed outright (SIGKILL, out of memory) cannot tidy up, so the next one
//! removes the folders whose owners are gone. The owner holds a lock, which the kernel releases with the process; a
//! process number in the name would not do, since numbers are used again and differ between containers.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use tempfile::TempDir;

/// How the names begin.
const PREFIX: &str = "harness-process-";
/// The file that the owner holds locked.
const LOCK: &str = "lock";

/// A folder that is removed when dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    directory: TempDir,
    _lock: File,
}

impl Folder {
    /// Makes one where temporary files go, and removes what killed owners left there.
    pub(crate) fn new() -> io::Result<Self> {
        Self::new_in(&std::env::temp_dir())
    }

    fn new_in(parent: &Path) -> io::Result<Self> {
        sweep(parent);
        let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
        // It gets its name when it is locked, so nobody finds it unlocked while its owner lives.
        let unnamed = directory.path().join("unlocked");
        let lock = File::create_new(&unnamed)?;
        lock.lock()?;
        fs::rename(unnamed, directory.path().join(LOCK))?;
        Ok(Self { directory, _lock: lock })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Removes folders whose owners are gone. What cannot be read or removed (another user's, say) is left.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes())
            && File::open(entry.path().join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok())
        {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_killed_owners_are_swept_and_no_others() {
        let parent = tempfile::tempdir().unwrap();
        let living = Folder::new_in(parent.path()).unwrap();
        let left = Folder::new_in(parent.path()).unwrap();
        // As SIGKILL has it: the lock is released, the folder stays.
        let Folder { directory, _lock } = left;
        let left = directory.keep();
        drop(_lock);
        let foreign = parent.path().join("harness-process-without-a-lock");
        fs::create_dir(&foreign).unwrap();
        let next = Folder::new_in(parent.path()).unwrap();
        assert!(!left.exists(), "nobody owns it");
        assert!(living.path().exists() && next.path().exists() && foreign.exists());
        let path = next.path().to_owned();
        drop(next);
        assert!(!path.exists());
    }
}
