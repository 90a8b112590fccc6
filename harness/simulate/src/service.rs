//! What runs on a simulated server's streams, other than MQTT.

use std::collections::{BTreeMap, VecDeque};

use quinn_proto::{
    Connection, ConnectionHandle, Dir, ReadError, ReadableError, StreamId, VarInt, WriteError,
};

use crate::Clock;

/// What the server does with the streams of its connections.
pub trait Service {
    /// Something arrived or became possible on `connection`; called after each batch of events.
    fn poll(&mut self, now: Clock, connection: ConnectionHandle, quic: &mut Connection);

    /// The peer has closed the connection; what came before that can still be read.
    fn on_closed(&mut self, _now: Clock, _connection: ConnectionHandle, _quic: &mut Connection) {}

    /// The connection is gone.
    fn on_lost(&mut self, now: Clock, connection: ConnectionHandle);

    /// When [`Service::poll`] wants to be called if nothing happens before.
    fn poll_timeout(&self) -> Option<Clock> {
        None
    }
}

/// Sends back what it receives on each stream, and finishes when the client has.
#[derive(Debug, Default)]
pub struct Echo {
    streams: BTreeMap<(usize, StreamId), EchoStream>,
    /// Bytes received in all.
    pub received: u64,
    /// Streams that were opened.
    pub opened: u64,
}

#[derive(Debug, Default)]
struct EchoStream {
    waiting: VecDeque<u8>,
    finished: bool,
}

/// Bytes an echo holds per stream before it stops reading.
const ECHO_BUFFER: usize = 16 * 1024;

impl Service for Echo {
    fn poll(&mut self, _: Clock, connection: ConnectionHandle, quic: &mut Connection) {
        while let Some(id) = quic.streams().accept(Dir::Bi) {
            self.streams.insert((connection.0, id), EchoStream::default());
            self.opened += 1;
        }
        let mut over = Vec::new();
        for (&key, stream) in self.streams.range_mut((connection.0, StreamId::from(VarInt::from_u32(0)))..) {
            if key.0 != connection.0 {
                break;
            }
            if stream.poll(key.1, quic, &mut self.received) {
                over.push(key);
            }
        }
        for key in over {
            self.streams.remove(&key);
        }
    }

    fn on_lost(&mut self, _: Clock, connection: ConnectionHandle) {
        self.streams.retain(|key, _| key.0 != connection.0);
    }
}

impl EchoStream {
    /// Moves what can be moved. Says whether the stream is over.
    fn poll(&mut self, id: StreamId, quic: &mut Connection, received: &mut u64) -> bool {
        loop {
            let read = self.read(id, quic);
            *received += read as u64;
            let (front, _) = self.waiting.as_slices();
            let written = match quic.send_stream(id).write(front) {
                Ok(written) => written,
                Err(WriteError::Blocked) => 0,
                Err(WriteError::Stopped(_) | WriteError::ClosedStream) => return true,
            };
            self.waiting.drain(..written);
            if self.finished && self.waiting.is_empty() {
                let _ = quic.send_stream(id).finish();
                return true;
            }
            if read == 0 && written == 0 {
                return false;
            }
        }
    }

    fn read(&mut self, id: StreamId, quic: &mut Connection) -> usize {
        if self.finished || self.waiting.len() >= ECHO_BUFFER {
            return 0;
        }
        let mut stream = quic.recv_stream(id);
        let mut chunks = match stream.read(true) {
            Ok(chunks) => chunks,
            Err(ReadableError::ClosedStream | ReadableError::IllegalOrderedRead) => return 0,
        };
        let before = self.waiting.len();
        while self.waiting.len() < ECHO_BUFFER {
            match chunks.next(ECHO_BUFFER - self.waiting.len()) {
                Ok(Some(chunk)) => self.waiting.extend(&chunk.bytes),
                Ok(None) => {
                    self.finished = true;
                    break;
                }
                Err(ReadError::Blocked) => break,
                Err(ReadError::Reset(_)) => {
                    self.finished = true;
                    break;
                }
            }
        }
        let _ = chunks.finalize();
        self.waiting.len() - before
    }
}

/// Sends as many bytes as it is asked for in the first eight of each stream, big-endian, and finishes.
#[derive(Debug, Default)]
pub struct Source {
    streams: BTreeMap<(usize, StreamId), SourceStream>,
}

#[derive(Debug, Default)]
struct SourceStream {
    request: Vec<u8>,
    sent: u64,
}

/// The byte at `offset` of what a [`Source`] sends, and what [`Pair::echo`](crate::Pair::echo) does.
#[must_use]
pub(crate) const fn pattern(offset: u64) -> u8 {
    (offset as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]
}

impl Service for Source {
    fn poll(&mut self, _: Clock, connection: ConnectionHandle, quic: &mut Connection) {
        while let Some(id) = quic.streams().accept(Dir::Bi) {
            self.streams.insert((connection.0, id), SourceStream::default());
        }
        let of_connection = |key: &(usize, StreamId)| key.0 == connection.0;
        self.streams.retain(|key, stream| !of_connection(key) || !stream.poll(key.1, quic));
    }

    fn on_lost(&mut self, _: Clock, connection: ConnectionHandle) {
        self.streams.retain(|key, _| key.0 != connection.0);
    }
}

impl SourceStream {
    /// Sends what can be sent. Says whether the stream is over.
    fn poll(&mut self, id: StreamId, quic: &mut Connection) -> bool {
        if let Ok(mut chunks) = quic.recv_stream(id).read(true) {
            while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
                self.request.extend(&chunk.bytes);
            }
            let _ = chunks.finalize();
        }
        let Some(wanted) = self.request.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)) else {
            return false;
        };
        while self.sent < wanted {
            let end = wanted.min(self.sent + 1024);
            let bytes: Vec<u8> = (self.sent..end).map(pattern).collect();
            match quic.send_stream(id).write(&bytes) {
                Ok(written) => self.sent += written as u64,
                Err(WriteError::Blocked) => return false,
                Err(WriteError::Stopped(_) | WriteError::ClosedStream) => return true,
            }
        }
        let _ = quic.send_stream(id).finish();
        true
    }
}
