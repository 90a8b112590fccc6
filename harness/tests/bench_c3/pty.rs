//! A pseudo-terminal: the harness opens one end as a serial port, the emulated board has the other.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{InputModes, LocalModes, OptionalActions, tcgetattr, tcsetattr};

/// The board's end of a pseudo-terminal. Dropping it is pulling the cable.
pub struct Pty {
    board: File,
    /// Held open: without it the board's end would see an error whenever the harness has the port closed.
    port: File,
    path: PathBuf,
}

impl Pty {
    /// A new one, raw: nothing is echoed, nothing translated.
    pub fn open() -> Self {
        let board = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("a pseudo-terminal");
        grantpt(&board).expect("ours");
        unlockpt(&board).expect("ours");
        let name = ptsname(&board, Vec::new()).expect("it has a name");
        let path = PathBuf::from(name.to_str().expect("plain text"));
        let port = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlags::NOCTTY.bits() as i32)
            .open(&path)
            .expect("its other end");
        let mut raw = tcgetattr(&port).expect("a terminal");
        raw.make_raw();
        tcsetattr(&port, OptionalActions::Now, &raw).expect("a terminal");
        Self { board: board.into(), port, path }
    }

    /// The port.
    pub fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// The harness's end as a terminal that somebody types at: [`Pty::say`] is typing.
    pub fn terminal(&self) -> File {
        self.port.try_clone().expect("an open file")
    }

    /// Makes it a terminal as a person has one: lines are edited and echoed, Ctrl-C is a signal.
    pub fn cook(&self) {
        let mut modes = tcgetattr(&self.port).expect("a terminal");
        modes.local_modes |= LocalModes::ICANON | LocalModes::ISIG | LocalModes::ECHO;
        modes.input_modes |= InputModes::ICRNL;
        tcsetattr(&self.port, OptionalActions::Now, &modes).expect("a terminal");
    }

    /// Whether it shows what is typed.
    pub fn echoes(&self) -> bool {
        tcgetattr(&self.port).expect("a terminal").local_modes.contains(LocalModes::ECHO)
    }

    /// Adds what comes to `heard` until `wanted` is in it.
    #[track_caller]
    pub fn hear(&mut self, heard: &mut String, wanted: &str, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut bytes = [0; 1024];
        while !heard.contains(wanted) {
            assert!(Instant::now() < deadline, "no `{wanted}` in: {heard}");
            let len = self.read(&mut bytes, Duration::from_millis(100));
            heard.push_str(&String::from_utf8_lossy(&bytes[..len]));
        }
    }

    /// What has arrived, waiting for at most `limit`.
    pub fn read(&mut self, into: &mut [u8], limit: Duration) -> usize {
        if !self.wait(PollFlags::IN, limit) {
            return 0;
        }
        self.board.read(into).unwrap_or(0)
    }

    /// Writes what goes out within `limit`.
    pub fn write(&mut self, bytes: &[u8], limit: Duration) -> usize {
        if !self.wait(PollFlags::OUT, limit) {
            return 0;
        }
        // A terminal takes less than a page at a time.
        self.board.write(&bytes[..bytes.len().min(1024)]).unwrap_or(0)
    }

    /// Writes all of `bytes`, or what a harness that has gone did not take within 2 s.
    pub fn say(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.write(rest, Duration::from_secs(2)) {
                0 => return,
                len => rest = &rest[len..],
            }
        }
    }

    fn wait(&self, flags: PollFlags, limit: Duration) -> bool {
        let mut fds = [PollFd::new(&self.board, flags)];
        let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
        poll(&mut fds, Some(&limit)).is_ok_and(|ready| ready > 0) && fds[0].revents().contains(flags)
    }
}
