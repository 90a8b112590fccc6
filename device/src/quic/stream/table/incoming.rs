//! Frames of the peer about streams (RFC 9000 3, 4).

use super::super::Error;
use super::super::state::{Flags, Receiving, Sending};
use super::Streams;
use crate::quic::StreamId;

impl<const N: usize, const SEND: usize, const BLOCKS: usize> Streams<N, SEND, BLOCKS> {
    /// STREAM arrived.
    ///
    /// # Errors
    /// The peer broke a rule; the connection is to be closed.
    pub fn on_stream(&mut self, id: StreamId, offset: u64, bytes: &[u8], fin: bool) -> Result<(), Error> {
        let Some(index) = self.find_or_accept(id)? else { return Ok(()) };
        let stream = &mut self.slots[index];
        let grown = stream.on_stream(&mut self.memory.of(index), offset, bytes, fin)?;
        self.count_received(grown)?;
        self.consider_limits(Some(index));
        let stream = &mut self.slots[index];
        self.high.receive = self.high.receive.max(stream.incoming.span() as u16);
        if stream.receiving == Receiving::Unwanted {
            if stream.incoming.is_at_end() {
                stream.receiving = Receiving::Done;
            }
            self.give_back(grown);
        }
        self.release_if_over(index);
        Ok(())
    }

    /// RESET_STREAM arrived.
    ///
    /// # Errors
    /// The peer broke a rule; the connection is to be closed.
    pub fn on_reset_stream(&mut self, id: StreamId, code: u64, final_size: u64) -> Result<(), Error> {
        let Some(index) = self.find_or_accept(id)? else { return Ok(()) };
        let stream = &mut self.slots[index];
        if matches!(stream.receiving, Receiving::Done | Receiving::Reset { .. }) {
            return stream.incoming.check_final_size(final_size, true);
        }
        let was_complete = stream.incoming.is_complete();
        let grown = stream.on_reset(code, final_size)?;
        if !was_complete {
            self.codes[index] = code;
        }
        let freed = match stream.receiving {
            Receiving::Open => 0,
            _ => stream.incoming.discard(&mut self.memory.of(index)),
        };
        self.count_received(grown)?;
        self.give_back(freed);
        self.release_if_over(index);
        Ok(())
    }

    /// STOP_SENDING arrived.
    ///
    /// # Errors
    /// The peer broke a rule; the connection is to be closed.
    pub fn on_stop_sending(&mut self, id: StreamId, code: u64) -> Result<(), Error> {
        let Some(index) = self.find_or_accept(id)? else { return Ok(()) };
        let stream = &mut self.slots[index];
        if stream.sending == Sending::Open {
            stream.reset(code);
            stream.events.set(Flags::STOPPED);
            self.codes[index] = code;
        }
        Ok(())
    }

    /// MAX_DATA arrived.
    pub fn on_max_data(&mut self, limit: u64) {
        if limit > self.peer.data {
            self.peer.data = limit;
            self.pending.data_blocked = false;
        }
    }

    /// MAX_STREAM_DATA arrived.
    ///
    /// # Errors
    /// The peer broke a rule; the connection is to be closed.
    pub fn on_max_stream_data(&mut self, id: StreamId, limit: u64) -> Result<(), Error> {
        let Some(index) = self.find_or_accept(id)? else { return Ok(()) };
        let stream = &mut self.slots[index];
        if limit > stream.send_credit {
            stream.send_credit = limit;
            stream.blocked_pending = false;
        }
        Ok(())
    }

    /// MAX_STREAMS for bidirectional streams arrived.
    pub fn on_max_streams(&mut self, limit: u64) {
        self.raise_streams_credit(limit);
    }

    /// STREAM_DATA_BLOCKED arrived. The limit is raised when the application reads, not on demand.
    ///
    /// # Errors
    /// The peer broke a rule; the connection is to be closed.
    pub fn on_stream_data_blocked(&mut self, id: StreamId) -> Result<(), Error> {
        self.find_or_accept(id).map(|_| ())
    }

    /// The slot of a stream the peer speaks of; none if it has been closed. Opens the peer's streams.
    fn find_or_accept(&mut self, id: StreamId) -> Result<Option<usize>, Error> {
        if !id.is_bidirectional() {
            // None of the client's exists, and none of the server's is permitted.
            return Err(if id.is_client_initiated() { Error::StreamState } else { Error::StreamLimit });
        }
        if id.is_client_initiated() {
            if id.index() >= self.local_opened {
                return Err(Error::StreamState);
            }
        } else if id.index() >= self.peer_opened {
            if id.index() >= self.peer_streams_limit {
                return Err(Error::StreamLimit);
            }
            // Opening a stream opens all lower ones (RFC 9000 2.1).
            for index in self.peer_opened..=id.index() {
                self.occupy(StreamId(index << 2 | 1), self.peer.stream_data_local);
            }
            self.peer_opened = id.index() + 1;
        }
        Ok(self.find(id))
    }

    fn count_received(&mut self, grown: u64) -> Result<(), Error> {
        self.data_received += grown;
        if self.data_received > self.data_limit { Err(Error::FlowControl) } else { Ok(()) }
    }
}
