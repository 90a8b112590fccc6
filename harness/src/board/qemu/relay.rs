//! Between QEMU's one console connection and the board's, which is a new one after each reset; keeps the last
//! words for a post-mortem.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::board::Connection;

/// Bytes of console output kept: a crash report takes 2 KiB at most.
const LAST_WORDS: usize = 8 * 1024;
/// Bytes in flight between relay and console task.
const PIPE: usize = 64 * 1024;
/// Bytes of QEMU's standard error kept.
const ERRORS_MAX: u64 = 16 * 1024;

/// The relay, ended when dropped.
pub(super) struct Relay {
    switch: mpsc::UnboundedSender<DuplexStream>,
    last_words: Arc<Mutex<VecDeque<u8>>>,
    _task: AbortOnDropHandle<()>,
}

impl Relay {
    /// Starts to carry `console`, first to the returned connection.
    pub(super) fn start(console: UnixStream) -> (Self, Connection) {
        let (switch, switched) = mpsc::unbounded_channel();
        let last_words = Arc::<Mutex<VecDeque<u8>>>::default();
        let (near, connection) = pair();
        let task = tokio::spawn(carry(console, near, switched, Arc::clone(&last_words)));
        (Self { switch, last_words, _task: AbortOnDropHandle::new(task) }, connection)
    }

    /// A new connection in place of the present one, which ends.
    pub(super) fn reconnect(&mut self) -> Connection {
        let (near, connection) = pair();
        // Fails only when QEMU is gone; then the connection ends at once, as it should.
        let _ = self.switch.send(near);
        connection
    }

    /// What the console said last, as text.
    pub(super) fn last_words(&self) -> String {
        let words = self.last_words.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&words.iter().copied().collect::<Vec<_>>()).into_owned()
    }
}

fn pair() -> (DuplexStream, Connection) {
    let (near, far) = tokio::io::duplex(PIPE);
    let (from_board, to_board) = tokio::io::split(far);
    (near, Connection { from_board: Box::new(from_board), to_board: Box::new(to_board) })
}

async fn carry(
    mut console: UnixStream,
    mut near: DuplexStream,
    mut switched: mpsc::UnboundedReceiver<DuplexStream>,
    last_words: Arc<Mutex<VecDeque<u8>>>,
) {
    let (mut up, mut down) = ([0; 4096], [0; 4096]);
    let mut near_open = true;
    loop {
        tokio::select! {
            read = console.read(&mut up) => {
                let Ok(len @ 1..) = read else { return };
                remember(&last_words, &up[..len]);
                // A reader that is gone loses what it did not want.
                let _ = near.write_all(&up[..len]).await;
            }
            read = near.read(&mut down), if near_open => match read {
                Ok(len @ 1..) => if console.write_all(&down[..len]).await.is_err() { return },
                _ => near_open = false,
            },
            Some(next) = switched.recv() => {
                near = next;
                near_open = true;
            }
        }
    }
}

fn remember(last_words: &Mutex<VecDeque<u8>>, bytes: &[u8]) {
    let mut words = last_words.lock().unwrap_or_else(PoisonError::into_inner);
    words.extend(bytes);
    let excess = words.len().saturating_sub(LAST_WORDS);
    words.drain(..excess);
}

/// Collects a process's standard error until it closes.
pub(super) async fn collect(stderr: impl AsyncRead + Unpin) -> String {
    let mut bytes = Vec::new();
    let mut limited = stderr.take(ERRORS_MAX);
    // What was read before an error is worth having.
    let _ = limited.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}
