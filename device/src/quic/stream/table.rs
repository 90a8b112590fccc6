//! All streams of a connection: who is open, whose turn it is, and the connection's flow control.
//!
//! This room is the application's side; `incoming` takes the peer's frames, `outgoing` makes this end's.

mod incoming;
mod outgoing;

use super::frames::ShortId;
use super::state::{Flags, Receiving, Sending, Stop, Stream};
use super::{Read, ReceiveMemory, UseError};
use crate::quic::StreamId;

/// What this end permits and uses. Everything is bounded by the table's constants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes the peer may have under way on each stream; at most the size of the receive buffer.
    pub stream_window: u32,
    /// Bytes the peer may have under way on all streams together.
    pub connection_window: u32,
    /// Slots kept for streams the peer opens.
    pub peer_streams: u8,
    /// Bytes this end buffers per stream for sending; at most the size of the send buffer.
    pub send_buffer: u32,
    /// Blocks at the end of the receive memory that are kept from the streams.
    pub reserved_blocks: u16,
}

/// What the peer permits: its transport parameters (RFC 9000 18.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PeerLimits {
    /// initial_max_data.
    pub data: u64,
    /// initial_max_stream_data_bidi_local: on streams the peer opens.
    pub stream_data_local: u64,
    /// initial_max_stream_data_bidi_remote: on streams this client opens.
    pub stream_data_remote: u64,
    /// initial_max_streams_bidi.
    pub streams: u64,
}

impl PeerLimits {
    /// Nothing is permitted.
    pub const NONE: Self = Self { data: 0, stream_data_local: 0, stream_data_remote: 0, streams: 0 };
}

/// Something the application wants to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamEvent {
    /// The peer opened a stream.
    Opened(StreamId),
    /// There are bytes to read, or the end of the stream.
    Readable(StreamId),
    /// There is room again after a write that found too little.
    Writable(StreamId),
    /// The stream was finished and the peer has all of it.
    Delivered(StreamId),
    /// The peer gave up the stream. What was not read is gone, unless all of it had come.
    Reset {
        /// The stream.
        id: StreamId,
        /// The peer's code.
        code: u64,
    },
    /// The peer does not want more data; the stream has been reset.
    Stopped {
        /// The stream.
        id: StreamId,
        /// The peer's code.
        code: u64,
    },
    /// Opening a stream may work now.
    Credit,
}

/// At most `N` bidirectional streams with `SEND` bytes of send buffer each; `BLOCKS` x 32 bytes of receive memory
/// are dealt out to them.
#[derive(Debug)]
pub struct Streams<const N: usize, const SEND: usize, const BLOCKS: usize> {
    slots: [Stream<SEND>; N],
    memory: ReceiveMemory<BLOCKS>,
    /// With which code the peer last gave up a half of each stream.
    codes: [u64; N],
    limits: Limits,
    peer: PeerLimits,
    /// Streams opened so far by this client and by the peer.
    local_opened: u64,
    peer_opened: u64,
    /// Streams the peer may open, in total.
    peer_streams_limit: u64,
    /// Bytes sent on all streams, against `peer.data`.
    data_sent: u64,
    /// Bytes received on all streams, their limit, and how many have been read or dropped.
    data_received: u64,
    data_limit: u64,
    data_consumed: u64,
    pending: Pending,
    data_blocked_at: Option<u64>,
    /// The slot whose turn it is to send.
    turn: usize,
    opener_waits: bool,
    credit_event: bool,
    high: BufferHighs,
}

/// Most bytes that ever waited in one stream's buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BufferHighs {
    /// Written and not yet acknowledged.
    pub send: u16,
    /// Received and not yet read, gaps included.
    pub receive: u16,
}

/// Connection-wide frames to be sent.
#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    max_data: bool,
    max_streams: bool,
    data_blocked: bool,
    streams_blocked: bool,
}

impl Pending {
    const NONE: Self =
        Self { max_data: false, max_streams: false, data_blocked: false, streams_blocked: false };
}

impl<const N: usize, const SEND: usize, const BLOCKS: usize> Default for Streams<N, SEND, BLOCKS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize, const SEND: usize, const BLOCKS: usize> Streams<N, SEND, BLOCKS> {
    /// A table at rest: no streams, and no credit for any.
    pub fn new() -> Self {
        Self {
            // Each on the spot: of an array's constant, an image of all the buffers' zeros would lie in flash.
            slots: core::array::from_fn(|_| Stream::vacant()),
            memory: ReceiveMemory::new(),
            codes: [0; N],
            limits: Limits {
                stream_window: 0,
                connection_window: 0,
                peer_streams: 0,
                send_buffer: 0,
                reserved_blocks: 0,
            },
            peer: PeerLimits::NONE,
            local_opened: 0,
            peer_opened: 0,
            peer_streams_limit: 0,
            data_sent: 0,
            data_received: 0,
            data_limit: 0,
            data_consumed: 0,
            pending: Pending::NONE,
            data_blocked_at: None,
            turn: 0,
            opener_waits: false,
            credit_event: false,
            high: BufferHighs { send: 0, receive: 0 },
        }
    }

    /// Begins a connection: forgets all streams. The buffers' bytes stay where they are.
    ///
    /// `limits` beyond what the constants hold are cut down; [`Self::limits`] tells the result, which is what
    /// the transport parameters must say.
    pub fn restart(&mut self, limits: Limits) {
        for slot in &mut self.slots {
            slot.vacate();
        }
        self.memory.deal(N, usize::from(limits.reserved_blocks));
        let limits = Limits {
            stream_window: limits.stream_window.min(self.memory.per_stream() as u32),
            connection_window: limits.connection_window,
            peer_streams: limits.peer_streams.min(N as u8),
            send_buffer: limits.send_buffer.min(SEND as u32),
            reserved_blocks: limits.reserved_blocks,
        };
        self.limits = limits;
        self.peer = PeerLimits::NONE;
        self.local_opened = 0;
        self.peer_opened = 0;
        self.peer_streams_limit = u64::from(limits.peer_streams);
        self.data_sent = 0;
        self.data_received = 0;
        self.data_limit = u64::from(limits.connection_window);
        self.data_consumed = 0;
        self.pending = Pending::NONE;
        self.data_blocked_at = None;
        self.turn = 0;
        self.opener_waits = false;
        self.credit_event = false;
        self.high = BufferHighs::default();
    }

    /// The receive memory, which is the handshake's before stream data can arrive; its reserved blocks, at the
    /// end, are so for ever.
    pub const fn memory(&self) -> &ReceiveMemory<BLOCKS> {
        &self.memory
    }

    /// The receive memory, as [`Self::memory`].
    pub const fn memory_mut(&mut self) -> &mut ReceiveMemory<BLOCKS> {
        &mut self.memory
    }

    /// The limits in force.
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// The peer's transport parameters are known: from the handshake, or remembered for 0-RTT.
    pub fn set_peer_limits(&mut self, peer: PeerLimits) {
        self.peer.data = self.peer.data.max(peer.data);
        self.peer.stream_data_local = peer.stream_data_local;
        self.peer.stream_data_remote = peer.stream_data_remote;
        self.raise_streams_credit(peer.streams);
        for stream in &mut self.slots {
            if let Some(id) = stream.id {
                let credit =
                    if id.is_client_initiated() { peer.stream_data_remote } else { peer.stream_data_local };
                stream.send_credit = stream.send_credit.max(credit);
            }
        }
    }

    /// The server refused 0-RTT: what was sent is to be sent again, under its new limits alone.
    pub fn on_early_data_refused(&mut self) {
        self.peer = PeerLimits::NONE;
        self.data_sent = 0;
        self.data_blocked_at = None;
        self.pending.data_blocked = false;
        self.pending.streams_blocked = false;
        for stream in &mut self.slots {
            stream.send_credit = 0;
            stream.blocked_at = None;
            stream.blocked_pending = false;
            stream.outgoing.rewind();
            if let Sending::ResetSent { code } = stream.sending {
                stream.sending = Sending::ResetPending { code };
            }
            if let Stop::Sent { code } = stream.stop {
                stream.stop = Stop::Pending { code };
            }
        }
    }

    /// Opens a stream.
    ///
    /// # Errors
    /// [`UseError::NoCredit`] or [`UseError::SlotsTaken`]; [`StreamEvent::Credit`] says when to try again.
    pub fn open(&mut self) -> Result<StreamId, UseError> {
        let local =
            self.slots.iter().filter(|slot| slot.id.is_some_and(StreamId::is_client_initiated)).count();
        if local + usize::from(self.limits.peer_streams) >= N {
            self.opener_waits = true;
            return Err(UseError::SlotsTaken);
        }
        if self.local_opened >= self.peer.streams {
            // Once per limit: the peer knows from then on.
            self.pending.streams_blocked |= !self.opener_waits;
            self.opener_waits = true;
            return Err(UseError::NoCredit);
        }
        let id = StreamId::client_bidirectional(self.local_opened);
        self.local_opened += 1;
        self.occupy(id, self.peer.stream_data_remote);
        Ok(id)
    }

    /// Streams that are open, in no particular order.
    pub fn ids(&self) -> impl Iterator<Item = StreamId> + '_ {
        self.slots.iter().filter_map(|slot| slot.id)
    }

    /// How many bytes [`Self::write`] takes now.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn writable(&self, id: StreamId) -> Result<usize, UseError> {
        let stream = &self.slots[self.find(id).ok_or(UseError::Unknown)?];
        stream.check_writable()?;
        Ok(stream.outgoing.space())
    }

    /// Takes as many of `bytes` as there is room for; if not all, [`StreamEvent::Writable`] will follow.
    ///
    /// # Errors
    /// [`UseError::Unknown`], [`UseError::Finished`], [`UseError::Stopped`].
    pub fn write(&mut self, id: StreamId, bytes: &[u8]) -> Result<usize, UseError> {
        let stream = self.slot(id)?;
        let written = stream.write(bytes)?;
        let buffered = stream.outgoing.buffered() as u16;
        self.high.send = self.high.send.max(buffered);
        Ok(written)
    }

    /// High-water marks of the buffers since [`Self::restart`].
    pub const fn highs(&self) -> BufferHighs {
        self.high
    }

    /// Ends the stream behind what has been written.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn finish(&mut self, id: StreamId) -> Result<(), UseError> {
        let stream = self.slot(id)?;
        stream.check_writable()?;
        stream.outgoing.finish();
        Ok(())
    }

    /// Gives up sending on the stream with an application code.
    ///
    /// # Errors
    /// [`UseError::Unknown`].
    pub fn reset(&mut self, id: StreamId, code: u64) -> Result<(), UseError> {
        self.slot(id)?.reset(code);
        Ok(())
    }

    /// Reads bytes in order into `dest`.
    ///
    /// # Errors
    /// [`UseError::Unknown`] after the end of both directions, [`UseError::Finished`] after the end of this one.
    pub fn read(&mut self, id: StreamId, dest: &mut [u8]) -> Result<Read, UseError> {
        let index = self.find(id).ok_or(UseError::Unknown)?;
        let read = self.slots[index].read(&self.memory, index, dest)?;
        self.after_read(index, read);
        Ok(read)
    }

    /// How many bytes [`Self::read`] returns now, given room.
    ///
    /// # Errors
    /// [`UseError::Unknown`].
    pub fn readable(&self, id: StreamId) -> Result<usize, UseError> {
        let stream = &self.slots[self.find(id).ok_or(UseError::Unknown)?];
        Ok(if stream.receiving == Receiving::Open { stream.incoming.readable() } else { 0 })
    }

    /// How the peer ended its side: [`Read::Finished`] once nothing more will become readable,
    /// [`Read::Reset`] once it gave up, until [`StreamEvent::Reset`] or a read has told so; [`Read::Blocked`] before.
    ///
    /// # Errors
    /// [`UseError::Unknown`] after the end of both directions.
    pub fn end(&self, id: StreamId) -> Result<Read, UseError> {
        let stream = &self.slots[self.find(id).ok_or(UseError::Unknown)?];
        Ok(match stream.receiving {
            Receiving::Open if stream.incoming.is_complete() => Read::Finished,
            Receiving::Open => Read::Blocked,
            Receiving::Reset { code } => Read::Reset(code),
            Receiving::Unwanted | Receiving::Done => Read::Finished,
        })
    }

    /// The bytes that can be read at once and lie together in memory. [`Self::consume`] drops them.
    ///
    /// # Errors
    /// [`UseError::Unknown`].
    pub fn peek(&self, id: StreamId) -> Result<&[u8], UseError> {
        let index = self.find(id).ok_or(UseError::Unknown)?;
        let stream = &self.slots[index];
        Ok(if stream.receiving == Receiving::Open { stream.incoming.peek(&self.memory, index) } else { &[] })
    }

    /// Drops `len` bytes that [`Self::peek`] has shown.
    ///
    /// # Errors
    /// [`UseError::Unknown`].
    pub fn consume(&mut self, id: StreamId, len: usize) -> Result<(), UseError> {
        let index = self.find(id).ok_or(UseError::Unknown)?;
        let len = len.min(self.slots[index].incoming.readable());
        self.slots[index].incoming.consume(len);
        if len > 0 {
            self.after_read(index, Read::Bytes(len));
        }
        Ok(())
    }

    /// Asks the peer to stop sending on the stream; what it still sends is dropped.
    ///
    /// # Errors
    /// [`UseError::Unknown`].
    pub fn stop(&mut self, id: StreamId, code: u64) -> Result<(), UseError> {
        let index = self.find(id).ok_or(UseError::Unknown)?;
        let stream = &mut self.slots[index];
        match stream.receiving {
            Receiving::Open => {
                let freed = stream.incoming.discard(&mut self.memory.of(index));
                stream.events.take(Flags::READABLE);
                if stream.incoming.is_at_end() {
                    stream.receiving = Receiving::Done;
                } else {
                    stream.receiving = Receiving::Unwanted;
                    stream.stop = Stop::Pending { code };
                }
                self.give_back(freed);
            }
            Receiving::Reset { .. } => {
                stream.events.take(Flags::RESET);
                stream.receiving = Receiving::Done;
            }
            Receiving::Unwanted | Receiving::Done => {}
        }
        self.release_if_over(index);
        Ok(())
    }

    /// The next thing the application wants to know.
    pub fn poll_event(&mut self) -> Option<StreamEvent> {
        if core::mem::take(&mut self.credit_event) {
            return Some(StreamEvent::Credit);
        }
        for index in 0..N {
            let stream = &mut self.slots[index];
            let Some(id) = stream.id else { continue };
            if stream.events.is_empty() {
                continue;
            }
            let event = if stream.events.take(Flags::OPENED) {
                StreamEvent::Opened(id)
            } else if stream.events.take(Flags::READABLE) {
                StreamEvent::Readable(id)
            } else if stream.events.take(Flags::RESET) {
                if matches!(stream.receiving, Receiving::Reset { .. }) {
                    stream.receiving = Receiving::Done;
                }
                StreamEvent::Reset { id, code: self.codes[index] }
            } else if stream.events.take(Flags::STOPPED) {
                StreamEvent::Stopped { id, code: self.codes[index] }
            } else if stream.events.take(Flags::DELIVERED) {
                StreamEvent::Delivered(id)
            } else {
                stream.events.take(Flags::WRITABLE);
                StreamEvent::Writable(id)
            };
            self.release_if_over(index);
            return Some(event);
        }
        None
    }

    /// Bytes written and not yet acknowledged, and bytes received and not yet read, over all streams.
    pub fn buffered(&self) -> (usize, usize) {
        let open = self.slots.iter().filter(|stream| stream.id.is_some());
        open.fold((0, 0), |(sent, received), stream| {
            (sent + stream.outgoing.buffered(), received + stream.incoming.span())
        })
    }

    fn occupy(&mut self, id: StreamId, send_credit: u64) {
        let Limits { send_buffer, stream_window, .. } = self.limits;
        let index = self.slots.iter().position(|slot| slot.id.is_none());
        debug_assert!(index.is_some(), "limits keep the table from overflowing");
        if let Some(index) = index {
            let slot = &mut self.slots[index];
            slot.open(
                &mut self.memory.of(index),
                id,
                send_buffer as usize,
                send_credit,
                u64::from(stream_window),
            );
            if !id.is_client_initiated() {
                slot.events.set(Flags::OPENED);
            }
        }
    }

    fn find(&self, id: StreamId) -> Option<usize> {
        self.slots.iter().position(|slot| slot.id == Some(id))
    }

    fn find_short(&self, short: ShortId) -> Option<usize> {
        self.slots.iter().position(|slot| slot.id.is_some_and(|id| ShortId::of(id) == short))
    }

    fn slot(&mut self, id: StreamId) -> Result<&mut Stream<SEND>, UseError> {
        self.slots.iter_mut().find(|slot| slot.id == Some(id)).ok_or(UseError::Unknown)
    }

    fn raise_streams_credit(&mut self, limit: u64) {
        if limit > self.peer.streams {
            self.peer.streams = limit;
            self.pending.streams_blocked = false;
            self.credit_event |= core::mem::take(&mut self.opener_waits);
        }
    }

    /// `len` bytes of connection credit are free again.
    fn give_back(&mut self, len: u64) {
        self.data_consumed += len;
        self.consider_limits(None);
    }

    fn after_read(&mut self, index: usize, read: Read) {
        if let Read::Bytes(len) = read {
            self.data_consumed += len as u64;
            self.consider_limits(Some(index));
        }
        if matches!(read, Read::Finished | Read::Reset(_)) {
            self.release_if_over(index);
        }
    }

    /// Raises the connection's limit and that of the stream in slot `index` where that is worth a frame.
    fn consider_limits(&mut self, index: Option<usize>) {
        let window = u64::from(self.limits.connection_window);
        self.pending.max_data |=
            is_worth_raising(self.data_consumed, window, self.data_limit, self.data_received);
        let Some(stream) = index.map(|index| &mut self.slots[index]) else { return };
        if stream.receiving == Receiving::Open && stream.incoming.final_size().is_none() {
            let window = u64::from(self.limits.stream_window);
            let incoming = &stream.incoming;
            stream.limit_pending |=
                is_worth_raising(incoming.offset(), window, stream.receive_limit, incoming.highest());
        }
    }

    fn release_if_over(&mut self, index: usize) {
        let stream = &mut self.slots[index];
        if !stream.is_over() {
            return;
        }
        let Some(id) = stream.id.take() else { return };
        if id.is_client_initiated() {
            self.credit_event |= core::mem::take(&mut self.opener_waits);
        } else {
            self.peer_streams_limit += 1;
            self.pending.max_streams = true;
        }
    }
}

/// Whether to tell the peer of a new limit, `window` beyond what has been consumed.
///
/// Half a window is worth a frame. So is less when the peer is about to run out: a reader that waits for the rest
/// of a message consumes nothing, and would wait for ever.
const fn is_worth_raising(consumed: u64, window: u64, limit: u64, received: u64) -> bool {
    let gain = (consumed + window).saturating_sub(limit);
    gain >= window.div_ceil(2) || (gain > 0 && limit - received < window / 4)
}
