//! The console socket, and panics on it.

use std::backtrace::Backtrace;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use std::{io, panic, process};

use device::node::Console;

/// How long a dying board waits for a harness that does not read.
const PANIC_PATIENCE: Duration = Duration::from_secs(1);
/// Exit code after a panic, as Rust's own.
const PANICKED: i32 = 101;

/// A non-blocking console.
pub(crate) struct SocketConsole<'a> {
    stream: &'a UnixStream,
    closed: bool,
}

impl<'a> SocketConsole<'a> {
    pub(crate) fn new(stream: &'a UnixStream) -> Self {
        Self { stream, closed: false }
    }

    /// Whether the harness went away.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    fn transferred(&mut self, result: io::Result<usize>) -> usize {
        match result {
            Ok(0) => {
                self.closed = true;
                0
            }
            Ok(len) => len,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
            Err(_) => {
                self.closed = true;
                0
            }
        }
    }
}

impl Console for SocketConsole<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> usize {
        let read = self.stream.read(bytes);
        self.transferred(read)
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        let written = self.stream.write(bytes);
        self.transferred(written)
    }
}

impl AsFd for SocketConsole<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Makes a panic print its place, message and backtrace on the console and end the process, as the
/// panic handlers of the other boards do.
pub(crate) fn report_panics(console: &UnixStream) -> io::Result<()> {
    let console = console.try_clone()?;
    panic::set_hook(Box::new(move |info| {
        // The leading zero ends a frame that may have been cut short.
        let text = format!("\0\n{info}\n{}\n", Backtrace::force_capture());
        // A harness that is gone does not need the report; the exit code tells it all the same.
        let _ = console.set_nonblocking(false);
        let _ = console.set_write_timeout(Some(PANIC_PATIENCE));
        let _ = (&console).write_all(text.as_bytes());
        process::exit(PANICKED);
    }));
    Ok(())
}
