//! The NIC: Ethernet frames on a unix stream socket, each behind its length as a big-endian `u32`, as
//! QEMU's `-netdev stream` has it.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

/// Largest Ethernet frame without its check sequence.
const FRAME_MAX: usize = 1514;
/// The length in front of each frame.
const PREFIX: usize = 4;
/// Bytes read at a time: as many frames as a burst may have.
const READ_MAX: usize = 64 * 1024;

/// A NIC whose cable is a socket.
pub struct SocketNic<'a> {
    incoming: Incoming,
    outgoing: Outgoing<'a>,
}

struct Incoming {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    closed: bool,
}

struct Outgoing<'a> {
    stream: &'a UnixStream,
    /// The frame on its way: length and content.
    frame: Vec<u8>,
    /// How much of it is written; all of it when the NIC is free.
    written: usize,
    closed: bool,
}

impl<'a> SocketNic<'a> {
    /// A NIC on a socket that does not block.
    pub fn new(stream: &'a UnixStream) -> Self {
        Self {
            incoming: Incoming { buffer: vec![0; READ_MAX], start: 0, end: 0, closed: false },
            outgoing: Outgoing {
                stream,
                frame: Vec::with_capacity(PREFIX + FRAME_MAX),
                written: 0,
                closed: false,
            },
        }
    }

    /// Whether the cable is cut.
    pub fn is_closed(&self) -> bool {
        self.incoming.closed || self.outgoing.closed
    }

    /// Whether a frame waits for room in the socket.
    pub fn has_output(&self) -> bool {
        !self.outgoing.is_free()
    }
}

impl AsFd for SocketNic<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.outgoing.stream.as_fd()
    }
}

impl Incoming {
    /// Where the next whole frame stands in the buffer, reading once if there is none yet.
    fn next(&mut self, stream: &UnixStream) -> Option<std::ops::Range<usize>> {
        if let Some(frame) = self.buffered() {
            return Some(frame);
        }
        if self.closed {
            return None;
        }
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        match (&mut &*stream).read(&mut self.buffer[self.end..]) {
            Ok(0) => self.closed = true,
            Ok(len) => self.end += len,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.closed = true,
        }
        self.buffered()
    }

    fn buffered(&mut self) -> Option<std::ops::Range<usize>> {
        let (prefix, rest) = self.buffer[self.start..self.end].split_first_chunk::<PREFIX>()?;
        let len = u32::from_be_bytes(*prefix) as usize;
        if len > FRAME_MAX {
            // Not our protocol, or out of step: there is no way back.
            self.closed = true;
            return None;
        }
        rest.get(..len)?;
        let start = self.start + PREFIX;
        Some(start..start + len)
    }
}

impl Outgoing<'_> {
    /// Writes what is left of the last frame.
    fn flush(&mut self) {
        while !self.is_free() && !self.closed {
            match (&mut &*self.stream).write(&self.frame[self.written..]) {
                Ok(0) => self.closed = true,
                Ok(len) => self.written += len,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.closed = true,
            }
        }
    }

    fn is_free(&self) -> bool {
        self.written == self.frame.len()
    }
}

impl<'s> Device for SocketNic<'s> {
    type RxToken<'a>
        = Received<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Transmit<'a, 's>
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Transmit<'_, 's>)> {
        self.outgoing.flush();
        // A frame may need an answer, so it waits until there is room for one.
        if !self.outgoing.is_free() {
            return None;
        }
        let frame = self.incoming.next(self.outgoing.stream)?;
        self.incoming.start = frame.end;
        Some((Received(&self.incoming.buffer[frame]), Transmit(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Transmit<'_, 's>> {
        self.outgoing.flush();
        self.outgoing.is_free().then_some(Transmit(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_MAX;
        capabilities.max_burst_size = Some(1);
        capabilities
    }
}

/// A frame that arrived.
pub struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// Room for a frame.
pub struct Transmit<'a, 's>(&'a mut Outgoing<'s>);

impl TxToken for Transmit<'_, '_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let Self(outgoing) = self;
        outgoing.frame.clear();
        outgoing.frame.extend_from_slice(&(len as u32).to_be_bytes());
        outgoing.frame.resize(PREFIX + len, 0);
        outgoing.written = 0;
        let result = f(&mut outgoing.frame[PREFIX..]);
        outgoing.flush();
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::ZERO;

    fn pair() -> (UnixStream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        ours.set_nonblocking(true).expect("a socket");
        (ours, theirs)
    }

    #[test]
    fn a_frame_in_pieces_is_received_whole() {
        let (ours, mut theirs) = pair();
        let mut nic = SocketNic::new(&ours);
        theirs.write_all(&[0, 0, 0, 3, 1]).expect("room");
        assert!(nic.receive(NOW).is_none());
        theirs.write_all(&[2, 3, 0, 0, 0, 1, 9]).expect("room");
        let mut frames = Vec::new();
        while let Some((received, _)) = nic.receive(NOW) {
            frames.push(received.consume(<[u8]>::to_vec));
        }
        assert_eq!(frames, [vec![1, 2, 3], vec![9]]);
    }

    #[test]
    fn a_full_socket_makes_the_nic_busy_until_it_is_read() {
        let (ours, mut theirs) = pair();
        let mut nic = SocketNic::new(&ours);
        let mut sent = 0;
        while let Some(token) = nic.transmit(NOW) {
            token.consume(1000, |frame| frame.fill(7));
            sent += 1;
        }
        assert!(nic.has_output());
        let mut read = vec![0; sent * 1004];
        theirs.set_nonblocking(true).expect("a socket");
        let mut len = 0;
        while len < read.len() {
            match theirs.read(&mut read[len..]) {
                Ok(more) => len += more,
                Err(_) => assert!(nic.transmit(NOW).is_some() || nic.has_output()),
            }
        }
        assert!(nic.transmit(NOW).is_some());
        assert!(read.chunks(1004).all(|frame| frame[..4] == [0, 0, 3, 0xe8] && frame[4..] == [7; 1000]));
    }

    #[test]
    fn a_length_that_no_frame_has_cuts_the_cable() {
        let (ours, mut theirs) = pair();
        let mut nic = SocketNic::new(&ours);
        theirs.write_all(&[0xff; 8]).expect("room");
        assert!(nic.receive(NOW).is_none());
        assert!(nic.is_closed());
    }
}
