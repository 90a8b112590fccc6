//! Writes decision log and packet capture from a thread of its own: a slow disk must not delay packets.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use link::LogLine;

use super::capture::Recorder;
use super::handle::{Setup, SetupError};

enum Item {
    Line(LogLine),
    Frame { at: SystemTime, frame: Vec<u8> },
}

/// What the writer holds in memory at most. When it is full the link waits: a log with gaps cannot be
/// replayed, and a disk that slow will show up as lateness in the statistics.
const BACKLOG_MAX: usize = 16_384;

/// How much may be lost if the harness is killed: the writer flushes when it has been idle so long.
const FLUSH_AFTER: Duration = Duration::from_millis(200);

/// The link's end of the writer.
pub(super) struct Writer {
    sender: Option<SyncSender<Item>>,
    thread: Option<JoinHandle<io::Result<()>>>,
    logs: bool,
    captures: bool,
}

impl Writer {
    /// Opens the files that `setup` asks for.
    pub(super) fn start(setup: &Setup) -> Result<Self, SetupError> {
        let create = |path: &std::path::Path| {
            let file = File::create_new(path)
                .map_err(|source| SetupError::File { path: path.to_owned(), source })?;
            Ok::<_, SetupError>(BufWriter::with_capacity(64 * 1024, file))
        };
        let log = setup.log.as_deref().map(create).transpose()?;
        let record = |capture| {
            Recorder::create(capture)
                .map_err(|source| SetupError::File { path: capture.file.clone(), source })
        };
        let recorder = setup.capture.as_ref().map(record).transpose()?;
        let (logs, captures) = (log.is_some(), recorder.is_some());
        if !logs && !captures {
            return Ok(Self { sender: None, thread: None, logs, captures });
        }
        let (sender, receiver) = sync_channel(BACKLOG_MAX);
        let thread = std::thread::Builder::new()
            .name("link-log".to_owned())
            .spawn(move || write_all(&receiver, log, recorder))
            .map_err(SetupError::Thread)?;
        Ok(Self { sender: Some(sender), thread: Some(thread), logs, captures })
    }

    /// Adds a line to the decision log.
    pub(super) fn line(&mut self, line: impl FnOnce() -> LogLine) {
        if self.logs {
            self.send(Item::Line(line()));
        }
    }

    /// Adds a frame to the capture.
    pub(super) fn frame(&mut self, frame: &[u8]) {
        if self.captures {
            self.send(Item::Frame { at: SystemTime::now(), frame: frame.to_vec() });
        }
    }

    fn send(&mut self, item: Item) {
        // The other end is gone only after a write error, which `finish` reports.
        if self.sender.as_ref().is_some_and(|sender| sender.send(item).is_err()) {
            self.sender = None;
        }
    }

    /// Writes out what is left and closes the files.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.sender = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("the link's log writer panicked")),
            None => Ok(()),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Whoever wants to know of errors has called `finish` before.
        let _ = self.finish();
    }
}

fn write_all(
    items: &Receiver<Item>,
    mut log: Option<BufWriter<File>>,
    mut recorder: Option<Recorder>,
) -> io::Result<()> {
    use std::sync::mpsc::RecvTimeoutError;
    loop {
        match items.recv_timeout(FLUSH_AFTER) {
            Ok(Item::Line(line)) => {
                let file = log.as_mut().expect("lines are sent only with a log");
                serde_json::to_writer(&mut *file, &line)?;
                file.write_all(b"\n")?;
            }
            Ok(Item::Frame { at, frame }) => {
                let recorder = recorder.as_mut().expect("frames are sent only with a capture");
                recorder.frame(at, &frame)?;
            }
            Err(ended) => {
                log.as_mut().map_or(Ok(()), Write::flush)?;
                if ended == RecvTimeoutError::Disconnected {
                    return recorder.map_or(Ok(()), Recorder::finish);
                }
                recorder.as_mut().map_or(Ok(()), Recorder::flush)?;
                // Nothing to do: sleep until something comes.
                continue;
            }
        }
    }
}
