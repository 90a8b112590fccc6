//! A virtual board's NIC: Ethernet frames on a unix socket, each behind its length as a big-endian
//! `u32`, as QEMU's `-netdev stream` has it. The harness listens, the board connects.

use std::io;
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// An Ethernet frame without its check sequence.
pub type Frame = Vec<u8>;

/// Frames that wait in each direction: more than any burst between two polls of the other side.
const QUEUE: usize = 1024;
/// Longest frame accepted from a board.
const FRAME_MAX: u32 = 65_536;

/// The two directions of a NIC. They stay the same when the board is reset.
#[derive(Debug)]
pub struct Nic {
    /// Frames the board sent; ends when the board's machine is dropped.
    pub from_board: mpsc::Receiver<Frame>,
    /// Frames the board is to receive. While no board is connected they are lost, as on a cut cable.
    pub to_board: mpsc::Sender<Frame>,
}

/// Listens for the board end of the cable, again after each reset.
#[derive(Debug)]
pub struct NicListener {
    _pump: AbortOnDropHandle<()>,
}

impl NicListener {
    /// Listens at `path`.
    ///
    /// # Errors
    /// Those of binding a unix socket.
    pub fn bind(path: &Path) -> io::Result<(Self, Nic)> {
        let listener = UnixListener::bind(path)?;
        let (to_harness, from_board) = mpsc::channel(QUEUE);
        let (to_board, from_harness) = mpsc::channel(QUEUE);
        let pump = tokio::spawn(serve(listener, to_harness, from_harness));
        Ok((Self { _pump: AbortOnDropHandle::new(pump) }, Nic { from_board, to_board }))
    }
}

async fn serve(
    listener: UnixListener,
    to_harness: mpsc::Sender<Frame>,
    mut from_harness: mpsc::Receiver<Frame>,
) {
    let mut board: Option<UnixStream> = None;
    loop {
        let stream = match board.take() {
            Some(stream) => stream,
            None => loop {
                tokio::select! {
                    accepted = listener.accept() => match accepted {
                        Ok((stream, _)) => break stream,
                        Err(error) => tracing::warn!(%error, "a board's NIC could not connect"),
                    },
                    frame = from_harness.recv() => if frame.is_none() { return },
                }
            },
        };
        let (mut read, mut write) = stream.into_split();
        tokio::select! {
            () = receive(&mut read, &to_harness) => {}
            () = send(&mut write, &mut from_harness) => {}
            // A board that was reset connects anew before its old connection is seen to end.
            accepted = listener.accept() => board = accepted.ok().map(|(stream, _)| stream),
        }
    }
}

/// Passes frames on until the board is gone.
async fn receive(read: &mut OwnedReadHalf, to_harness: &mpsc::Sender<Frame>) {
    loop {
        let Ok(len) = read.read_u32().await else { return };
        if len > FRAME_MAX {
            tracing::warn!(len, "a board's NIC is out of step: no frame is that long");
            return;
        }
        let mut frame = vec![0; len as usize];
        if read.read_exact(&mut frame).await.is_err() || to_harness.send(frame).await.is_err() {
            return;
        }
    }
}

/// Passes frames on until the board or the harness is gone.
async fn send(write: &mut OwnedWriteHalf, from_harness: &mut mpsc::Receiver<Frame>) {
    let mut buffer = Vec::new();
    while let Some(frame) = from_harness.recv().await {
        // One write for both, so that a frame is never half there for long.
        buffer.clear();
        buffer.extend_from_slice(&(frame.len() as u32).to_be_bytes());
        buffer.extend_from_slice(&frame);
        if write.write_all(&buffer).await.is_err() {
            return;
        }
    }
    // The link is gone; the board's own frames still have to be read.
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn connect(path: &Path) -> UnixStream {
        UnixStream::connect(path).await.expect("somebody listens")
    }

    #[tokio::test]
    async fn frames_pass_both_ways_and_after_a_reset() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("nic");
        let (_listener, mut nic) = NicListener::bind(&path).expect("a free path");
        for life in 1..=2u8 {
            let mut board = connect(&path).await;
            board.write_all(&[0, 0, 0, 2, life, 7]).await.expect("room");
            assert_eq!(nic.from_board.recv().await, Some(vec![life, 7]));
            nic.to_board.send(vec![9, life]).await.expect("room");
            let mut frame = [0; 6];
            board.read_exact(&mut frame).await.expect("a frame");
            assert_eq!(frame, [0, 0, 0, 2, 9, life]);
        }
    }

    #[tokio::test]
    async fn frames_for_an_unplugged_board_are_lost_and_block_nobody() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("nic");
        let (_listener, mut nic) = NicListener::bind(&path).expect("a free path");
        for _ in 0..3 * QUEUE {
            nic.to_board.send(vec![1]).await.expect("somebody takes it");
        }
        let mut board = connect(&path).await;
        board.write_all(&[0, 0, 0, 1, 5]).await.expect("room");
        assert_eq!(nic.from_board.recv().await, Some(vec![5]));
    }
}
