//! The caller's side of streams.

use crate::crypto::Crypto;

use super::super::error::StreamError;
use super::super::stream::{self, StreamEvent, UseError};
use super::super::{Event, Read, StreamId};
use super::{Connection, State};

impl<C: Crypto, const STREAMS: usize, const SEND: usize, const BLOCKS: usize>
    Connection<C, STREAMS, SEND, BLOCKS>
{
    /// Opens a bidirectional stream.
    ///
    /// # Errors
    /// [`StreamError::NoCredit`], [`StreamError::NoSlot`] or [`StreamError::NotOpen`].
    pub fn open_stream(&mut self) -> Result<StreamId, StreamError> {
        if self.state != State::Open {
            return Err(StreamError::NotOpen);
        }
        self.streams.open().map_err(|error| self.explain(StreamId(0), error))
    }

    /// Buffers bytes for sending and returns how many of them found room; if not all,
    /// [`Event::StreamWritable`] follows.
    ///
    /// # Errors
    /// If the stream is unknown, finished, or stopped by the peer.
    pub fn stream_write(&mut self, id: StreamId, bytes: &[u8]) -> Result<usize, StreamError> {
        if self.state != State::Open {
            return Err(StreamError::NotOpen);
        }
        self.streams.write(id, bytes).map_err(|error| self.explain(id, error))
    }

    /// How many bytes [`Self::stream_write`] would take now.
    pub fn stream_capacity(&self, id: StreamId) -> usize {
        self.streams.writable(id).unwrap_or(0)
    }

    /// How many bytes the server may have under way on each stream: no more can wait there to be read.
    pub const fn stream_window(&self) -> u32 {
        self.streams.limits().stream_window
    }

    /// Reads received bytes in order.
    ///
    /// What has arrived can be read after the end of the connection, too.
    ///
    /// # Errors
    /// If the stream is unknown or reset by the peer.
    pub fn stream_read(&mut self, id: StreamId, bytes: &mut [u8]) -> Result<Read, StreamError> {
        match self.streams.read(id, bytes) {
            Ok(stream::Read::Bytes(len)) => Ok(Read::Data(len)),
            Ok(stream::Read::Blocked) => Ok(Read::Blocked),
            Ok(stream::Read::Finished) => Ok(Read::Finished),
            Ok(stream::Read::Reset(code)) => Err(StreamError::Reset(code)),
            Err(error) => Err(self.explain(id, error)),
        }
    }

    /// How many bytes [`Self::stream_read`] returns now, given room.
    pub fn stream_readable(&self, id: StreamId) -> usize {
        self.streams.readable(id).unwrap_or(0)
    }

    /// How the peer ended the stream, once nothing more will become readable: in order, or with a code.
    ///
    /// The code is told once, here or by [`Event::StreamReset`], whichever is asked first.
    pub fn stream_end(&self, id: StreamId) -> Option<Result<(), u64>> {
        match self.streams.end(id) {
            Ok(stream::Read::Finished) | Err(_) => Some(Ok(())),
            Ok(stream::Read::Reset(code)) => Some(Err(code)),
            Ok(stream::Read::Blocked | stream::Read::Bytes(_)) => None,
        }
    }

    /// The received bytes that lie together in memory; [`Self::stream_consume`] drops them.
    ///
    /// # Errors
    /// If the stream is unknown.
    pub fn stream_peek(&self, id: StreamId) -> Result<&[u8], StreamError> {
        self.streams.peek(id).map_err(|error| self.explain(id, error))
    }

    /// Drops `len` bytes that [`Self::stream_peek`] has shown.
    ///
    /// # Errors
    /// If the stream is unknown.
    pub fn stream_consume(&mut self, id: StreamId, len: usize) -> Result<(), StreamError> {
        self.streams.consume(id, len).map_err(|error| self.explain(id, error))
    }

    /// Ends the sending side after what was written.
    ///
    /// # Errors
    /// If the stream is unknown, or finished or reset already.
    pub fn finish(&mut self, id: StreamId) -> Result<(), StreamError> {
        self.streams.finish(id).map_err(|error| self.explain(id, error))
    }

    /// Gives the sending side up: what was written may never arrive.
    ///
    /// # Errors
    /// If the stream is unknown.
    pub fn reset(&mut self, id: StreamId, code: u64) -> Result<(), StreamError> {
        self.streams.reset(id, code).map_err(|error| self.explain(id, error))
    }

    /// Asks the peer to send no more; what it still sends is dropped.
    ///
    /// # Errors
    /// If the stream is unknown.
    pub fn stop_sending(&mut self, id: StreamId, code: u64) -> Result<(), StreamError> {
        self.streams.stop(id, code).map_err(|error| self.explain(id, error))
    }

    fn explain(&self, id: StreamId, error: UseError) -> StreamError {
        match error {
            UseError::Unknown => StreamError::Unknown(id),
            UseError::SlotsTaken => StreamError::NoSlot,
            UseError::NoCredit => StreamError::NoCredit,
            UseError::Stopped => StreamError::Stopped,
            UseError::Finished => StreamError::Finished,
        }
    }
}

pub(super) const fn event(event: StreamEvent) -> Event {
    match event {
        StreamEvent::Opened(id) => Event::StreamOpened(id),
        StreamEvent::Readable(id) => Event::StreamReadable(id),
        StreamEvent::Writable(id) => Event::StreamWritable(id),
        StreamEvent::Delivered(id) => Event::StreamFinished(id),
        StreamEvent::Reset { id, code } => Event::StreamReset { id, code },
        StreamEvent::Stopped { id, code } => Event::StreamStopped { id, code },
        StreamEvent::Credit => Event::StreamsAvailable,
    }
}
