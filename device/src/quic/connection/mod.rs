//! The connection: one state, entered by datagrams, time and calls.

use core::marker::PhantomData;

use crate::crypto::Crypto;
use crate::time::Instant;

use super::config::{Config, Context};
use super::error::{ConnectError, StreamError};
use super::{Event, Stats, StreamId};

/// Longest address validation token kept, in bytes: quinn's have 60 to 90, MsQuic's about 100.
pub const TOKEN_LEN_MAX: usize = 192;

/// What a read found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Read {
    /// This many bytes, at least one unless the buffer is empty.
    Data(usize),
    /// Nothing yet.
    Blocked,
    /// The peer has finished the stream and everything has been read.
    Finished,
}

/// A client's connection, idle until [`Connection::connect`] and reusable after its end.
pub struct Connection<C: Crypto> {
    crypto: PhantomData<C>,
}

impl<C: Crypto> Connection<C> {
    /// A connection at rest.
    #[expect(clippy::new_without_default, reason = "large; belongs into a static")]
    pub const fn new() -> Self {
        Self { crypto: PhantomData }
    }

    /// Starts a handshake with the server of `ctx.tls`, resuming with the ticket there, if any.
    ///
    /// `token` is what an earlier connection's [`super::SessionStore`] received, or empty.
    ///
    /// # Errors
    /// If the connection is in use or the configuration cannot be offered.
    pub fn connect(
        &mut self,
        config: &Config,
        ctx: &mut Context<'_>,
        token: &[u8],
    ) -> Result<(), ConnectError> {
        let _ = (config, ctx, token);
        Err(ConnectError::Busy)
    }

    /// Takes in the payload of a UDP datagram from the server; it is decrypted in place.
    ///
    /// Whatever it holds, the outcome shows in [`Self::poll_event`].
    pub fn handle_datagram(&mut self, ctx: &mut Context<'_>, datagram: &mut [u8]) {
        let _ = (ctx, datagram);
    }

    /// Does what is due at `ctx.now`; call it when [`Self::poll_timeout`] has passed.
    pub fn handle_timeout(&mut self, ctx: &mut Context<'_>) {
        let _ = ctx;
    }

    /// Puts the next datagram into `buffer` and returns its length; `None` when there is nothing to
    /// send now. Call until `None`.
    ///
    /// `buffer` has at least `Config::send_datagram_len` bytes.
    pub fn poll_transmit(&mut self, ctx: &mut Context<'_>, buffer: &mut [u8]) -> Option<usize> {
        let _ = (ctx, buffer);
        None
    }

    /// When [`Self::handle_timeout`] wants to be called, if nothing else happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }

    /// Opens a bidirectional stream.
    ///
    /// # Errors
    /// [`StreamError::NoCredit`], [`StreamError::NoSlot`] or [`StreamError::NotOpen`].
    pub fn open_stream(&mut self) -> Result<StreamId, StreamError> {
        Err(StreamError::NotOpen)
    }

    /// Buffers bytes for sending and returns how many of them found room.
    ///
    /// # Errors
    /// If the stream is unknown, finished, or stopped by the peer.
    pub fn stream_write(&mut self, id: StreamId, bytes: &[u8]) -> Result<usize, StreamError> {
        let _ = bytes;
        Err(StreamError::Unknown(id))
    }

    /// How many bytes [`Self::stream_write`] would take now.
    pub fn stream_capacity(&self, id: StreamId) -> usize {
        let _ = id;
        0
    }

    /// Reads received bytes in order.
    ///
    /// # Errors
    /// If the stream is unknown or reset by the peer.
    pub fn stream_read(&mut self, id: StreamId, bytes: &mut [u8]) -> Result<Read, StreamError> {
        let _ = bytes;
        Err(StreamError::Unknown(id))
    }

    /// How many bytes [`Self::stream_read`] would return now, given room.
    pub fn stream_readable(&self, id: StreamId) -> usize {
        let _ = id;
        0
    }

    /// Ends the sending side after what was written.
    ///
    /// # Errors
    /// If the stream is unknown, or finished or reset already.
    pub fn finish(&mut self, id: StreamId) -> Result<(), StreamError> {
        Err(StreamError::Unknown(id))
    }

    /// Gives the sending side up: what was written may never arrive.
    ///
    /// # Errors
    /// If the stream is unknown, or its sending side is over.
    pub fn reset(&mut self, id: StreamId, code: u64) -> Result<(), StreamError> {
        let _ = code;
        Err(StreamError::Unknown(id))
    }

    /// Asks the peer to send no more.
    ///
    /// # Errors
    /// If the stream is unknown, or its receiving side is over.
    pub fn stop_sending(&mut self, id: StreamId, code: u64) -> Result<(), StreamError> {
        let _ = code;
        Err(StreamError::Unknown(id))
    }

    /// Ends the connection with an application error code; [`Event::Closed`] follows once the peer has
    /// had time to hear of it.
    pub fn close(&mut self, now: Instant, code: u64, reason: &'static str) {
        let _ = (now, code, reason);
    }

    /// Drops the connection at once and silently: the state is free for the next [`Self::connect`].
    pub fn abandon(&mut self) {}

    /// The local address changed: moves to a fresh connection identifier, validates the path and starts
    /// congestion control anew (RFC 9000 9.2).
    pub fn on_local_address_changed(&mut self, ctx: &mut Context<'_>) {
        let _ = ctx;
    }

    /// Asks for a key update; it happens with the next packet, if the rules allow one now
    /// (RFC 9001 6.1).
    pub fn update_keys(&mut self) {}

    /// Whether the connection is open, or opening.
    pub fn is_active(&self) -> bool {
        false
    }

    /// Probe timeouts in a row since the peer last acknowledged something.
    pub fn consecutive_timeouts(&self) -> u32 {
        0
    }

    /// Figures so far.
    pub fn stats(&self) -> Stats {
        Stats::default()
    }
}
