//! The virtual NIC's cable: a unix stream on which each Ethernet frame is preceded by its length (32 bits,
//! big-endian), which is what QEMU's `-netdev stream` speaks.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

/// Longest frame taken: 1,500 bytes of payload and headers with a VLAN tag, generously. A greater length means
/// that the stream is out of step.
const FRAME_MAX: usize = 9_216;

/// What may wait for a board that does not read. A NIC's receive ring drops, too.
const OUTGOING_MAX: usize = 256 * 1024;

/// One end of the cable.
pub(super) struct Cable {
    stream: UnixStream,
    incoming: Vec<u8>,
    /// How much of `incoming` has been taken.
    taken: usize,
    outgoing: Vec<u8>,
    /// How much of `outgoing` has been written.
    written: usize,
}

impl Cable {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, incoming: Vec::new(), taken: 0, outgoing: Vec::new(), written: 0 })
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Whether frames wait for room on the cable.
    pub(super) fn is_clogged(&self) -> bool {
        self.written < self.outgoing.len()
    }

    /// Reads what has arrived.
    ///
    /// # Errors
    /// `UnexpectedEof` when the board has unplugged.
    pub(super) fn fill(&mut self) -> io::Result<()> {
        self.incoming.drain(..self.taken);
        self.taken = 0;
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                self.incoming.extend_from_slice(&chunk[..read]);
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The next whole frame that was read.
    ///
    /// # Errors
    /// `InvalidData` when the stream is out of step.
    pub(super) fn next_frame(&mut self) -> io::Result<Option<&[u8]>> {
        let rest = &self.incoming[self.taken..];
        let Some((length, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length > FRAME_MAX {
            return Err(io::Error::new(ErrorKind::InvalidData, format!("a frame of {length} bytes")));
        }
        if rest.len() < length {
            return Ok(None);
        }
        let start = self.taken + 4;
        self.taken = start + length;
        Ok(Some(&self.incoming[start..self.taken]))
    }

    /// Sends a frame, or keeps it until there is room.
    ///
    /// # Errors
    /// `WouldBlock` when the board does not read and the frame was dropped; anything else when it has unplugged.
    pub(super) fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        if self.outgoing.len() - self.written + frame.len() > OUTGOING_MAX {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.outgoing.extend_from_slice(&(frame.len() as u32).to_be_bytes());
        self.outgoing.extend_from_slice(frame);
        self.flush()
    }

    /// Writes what waits.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while self.is_clogged() {
            match self.stream.write(&self.outgoing[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    // Keeps the buffer from growing while the board is slow but alive.
                    self.outgoing.drain(..self.written);
                    self.written = 0;
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.outgoing.clear();
        self.written = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Cable, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Cable::new(ours).unwrap(), theirs)
    }

    #[test]
    fn frames_survive_being_cut_anywhere() {
        let (mut cable, mut board) = pair();
        let mut bytes = Vec::new();
        for frame in [&b"first"[..], b"", b"third frame"] {
            bytes.extend_from_slice(&(frame.len() as u32).to_be_bytes());
            bytes.extend_from_slice(frame);
        }
        let mut frames = Vec::new();
        for byte in bytes {
            board.write_all(&[byte]).unwrap();
            cable.fill().unwrap();
            while let Some(frame) = cable.next_frame().unwrap() {
                frames.push(frame.to_vec());
            }
        }
        assert_eq!(frames, [b"first".to_vec(), b"".to_vec(), b"third frame".to_vec()]);
    }

    #[test]
    fn a_board_that_does_not_read_loses_whole_frames_only() {
        let (mut cable, mut board) = pair();
        let mut sent = 0u32;
        let dropped = loop {
            let mut frame = vec![0xaa; 1000];
            frame[..4].copy_from_slice(&sent.to_be_bytes());
            match cable.send(&frame) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(dropped.kind(), ErrorKind::WouldBlock);
        board.set_nonblocking(true).unwrap();
        let mut received = Vec::new();
        while received.len() < sent as usize * 1004 {
            let mut chunk = [0; 65536];
            match board.read(&mut chunk) {
                Ok(read) => received.extend_from_slice(&chunk[..read]),
                Err(_) => cable.flush().unwrap(),
            }
        }
        for (i, frame) in received.chunks(1004).enumerate() {
            assert_eq!(frame[..8], [&1000u32.to_be_bytes()[..], &(i as u32).to_be_bytes()].concat());
        }
    }

    #[test]
    fn a_stream_out_of_step_and_an_unplugged_board_are_told_apart() {
        let (mut cable, mut board) = pair();
        board.write_all(&[0xff; 8]).unwrap();
        cable.fill().unwrap();
        assert_eq!(cable.next_frame().unwrap_err().kind(), ErrorKind::InvalidData);
        let (mut cable, board) = pair();
        drop(board);
        assert_eq!(cable.fill().unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}
