//! A client's connection to the broker and its streams.

use std::collections::{BTreeMap, VecDeque};

use quinn_proto::{Connection, ReadError, ReadableError, StreamId, WriteError};

use super::channel::{Answer, Channel, Inbound};
use crate::Clock;

/// A connection and its streams.
#[derive(Debug, Default)]
pub(super) struct ClientLink {
    pub(super) client_id: Option<String>,
    pub(super) v5: bool,
    /// What the client takes on each stream by itself, as EMQX counts.
    pub(super) receive_maximum: u16,
    /// What the broker said in CONNACK that it takes.
    pub(super) promised: u16,
    pub(super) streams: BTreeMap<StreamId, Stream>,
    /// When reading goes on, if the last time left something.
    pub(super) next_read: Option<Clock>,
    /// When CONNACK goes out, and what follows it, if that is not yet.
    pub(super) answers_at: Option<Clock>,
    /// When the connection is closed, after a DISCONNECT had time to arrive.
    pub(super) closes_at: Option<Clock>,
}

/// A stream of it.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// None on the control stream: that channel is the session's.
    pub(super) channel: Option<Channel>,
    pub(super) inbound: Inbound,
    pub(super) input: Vec<u8>,
    pub(super) output: Vec<u8>,
    /// Acknowledgements the broker takes its time for: when, the packet, and the identifier it frees.
    pub(super) acknowledgements: VecDeque<(Clock, Vec<u8>, Option<u16>)>,
    pub(super) ended: bool,
}

impl ClientLink {
    /// When something is due that no packet brings about.
    pub(super) fn due(&self) -> Option<Clock> {
        let acknowledgements = self.streams.values().filter_map(|stream| stream.acknowledgements.front());
        let timers = [self.next_read, self.answers_at, self.closes_at];
        timers.into_iter().flatten().chain(acknowledgements.map(|(at, ..)| *at)).min()
    }
}

impl Stream {
    /// Puts down what is to be written, at once and at `acknowledge_at`.
    pub(super) fn answer(&mut self, answer: &mut Answer, acknowledge_at: Clock) {
        self.output.append(&mut answer.bytes);
        if let Some((bytes, frees)) = answer.acknowledgement.take() {
            self.acknowledgements.push_back((acknowledge_at, bytes, frees));
        }
    }

    /// Puts down the acknowledgements that are due.
    pub(super) fn acknowledge(&mut self, now: Clock) {
        while self.acknowledgements.front().is_some_and(|(at, ..)| *at <= now) {
            let Some((_, bytes, frees)) = self.acknowledgements.pop_front() else { return };
            self.output.extend(bytes);
            if let Some(id) = frees {
                self.inbound.on_acknowledged(id);
            }
        }
    }

    /// Reads up to `limit` bytes. Says whether the limit was met, so that there may be more.
    pub(super) fn read(&mut self, id: StreamId, quic: &mut Connection, limit: usize) -> bool {
        let mut stream = quic.recv_stream(id);
        let mut chunks = match stream.read(true) {
            Ok(chunks) => chunks,
            Err(ReadableError::ClosedStream | ReadableError::IllegalOrderedRead) => return false,
        };
        let mut left = limit;
        while left > 0 {
            match chunks.next(left) {
                Ok(Some(chunk)) => {
                    left -= chunk.bytes.len();
                    self.input.extend_from_slice(&chunk.bytes);
                }
                Ok(None) | Err(ReadError::Reset(_)) => {
                    self.ended = true;
                    break;
                }
                Err(ReadError::Blocked) => break,
            }
        }
        let _ = chunks.finalize();
        left == 0
    }

    /// Writes what can be written. Says whether the stream is over.
    pub(super) fn write(&mut self, id: StreamId, quic: &mut Connection) -> bool {
        while !self.output.is_empty() {
            match quic.send_stream(id).write(&self.output) {
                Ok(written) => drop(self.output.drain(..written)),
                Err(WriteError::Blocked) => return false,
                Err(WriteError::Stopped(_) | WriteError::ClosedStream) => return true,
            }
        }
        if self.ended {
            let _ = quic.send_stream(id).finish();
        }
        self.ended
    }
}
