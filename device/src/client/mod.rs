//! The client: QUIC connection, MQTT session and connection policy behind one sans-IO face.
//!
//! The owner hands in datagrams and the time, and after every call drains [`Client::poll_output`] until
//! it returns [`Output::WaitUntil`]. Nothing else moves the client.
//!
//! This module is the only one that names all layers. [`Engine`] is session and policy without QUIC, for
//! transports that the owner brings along (see [`Transport`]).

mod config;
mod engine;
mod event;
mod quic;
mod stats;
mod transport;

pub use config::{Config, Context, Policy, Reconnect, Settings};
pub use engine::{Engine, Told};
pub use event::{Cause, Connected, Event, Output, Phase};
pub use stats::{Phases, PolicyStats, Stats, TransportStats};
pub use transport::{
    AbortReason, Attempt, Close, EarlyData, Failure, FailureKind, NotMigratable, Resumption, Stall, Status,
    Transport, is_control,
};

pub use crate::mqtt::{Filter, Message, Publication, RequestError, Slot, Token};
pub use crate::quic::{DatagramBuffer, PathChange};

use crate::crypto::Crypto;
use crate::time::Instant;

/// The session's packets lie where datagrams do.
const LENT: &str = "a packet's buffer is no longer than a datagram's";

/// An MQTT client over QUIC, with `STREAMS` streams: the control stream and EMQX's data streams.
///
/// The streams share 2,944 bytes of receive memory in equal parts, and a packet must fit its stream's part. So with one
/// stream or two the largest packet that can be received is 1,152 bytes, with three 960 and with four 736; CONNECT
/// announces it, and a server that sends a larger one all the same has broken MQTT 5.0 (3.1.1 cannot announce: there it
/// is skipped and reported). Each stream has a send buffer of its own, of 2,080 bytes.
pub struct Client<C: Crypto, const STREAMS: usize = 1> {
    engine: Engine,
    quic: quic::Quic<C, STREAMS>,
}

impl<C: Crypto, const STREAMS: usize> Default for Client<C, STREAMS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: Crypto, const STREAMS: usize> Client<C, STREAMS> {
    /// Bytes of RAM beside the stack that a client takes: its own, and the buffer without which it cannot work.
    pub const BYTES: usize = size_of::<Self>() + size_of::<DatagramBuffer>();

    /// An idle client.
    pub fn new() -> Self {
        Self { engine: Engine::new(), quic: quic::Quic::new() }
    }

    /// Starts connecting, and keeps reconnecting as the policy says until [`Client::disconnect`].
    pub fn connect(&mut self, ctx: &mut Context<'_>) {
        self.engine.connect(ctx.now);
    }

    /// Ends the session in order: DISCONNECT, then the connection.
    pub fn disconnect(&mut self, ctx: &mut Context<'_>) {
        let now = ctx.now;
        self.engine.disconnect(now, &mut self.quic.with(ctx));
    }

    /// Publishes a message. QoS 1 and 2 messages are stored until acknowledged, also while disconnected, and get
    /// a token; QoS 0 messages need an open session.
    ///
    /// # Errors
    /// [`RequestError`]; nothing is left half-written.
    pub fn publish(
        &mut self,
        ctx: &mut Context<'_>,
        publication: &Publication<'_>,
    ) -> Result<Option<Token>, RequestError> {
        let (now, options) = (ctx.now, &ctx.config.mqtt);
        self.engine.session_mut().publish(now, options, publication, &mut self.quic.with(ctx))
    }

    /// Subscribes on the stream of `slot`. The subscription is remembered and renewed when the server forgot it.
    ///
    /// # Errors
    /// [`RequestError`]; nothing is left half-written.
    pub fn subscribe(
        &mut self,
        ctx: &mut Context<'_>,
        slot: Slot,
        filters: &[Filter<'_>],
    ) -> Result<Token, RequestError> {
        self.engine.session_mut().subscribe(slot, filters, &self.quic.with(ctx))
    }

    /// Ends subscriptions made on the stream of `slot`.
    ///
    /// # Errors
    /// [`RequestError`]; nothing is left half-written.
    pub fn unsubscribe(
        &mut self,
        ctx: &mut Context<'_>,
        slot: Slot,
        filters: &[&str],
    ) -> Result<Token, RequestError> {
        self.engine.session_mut().unsubscribe(slot, filters, &self.quic.with(ctx))
    }

    /// Opens the data stream of `slot` as soon as the server allows, so that QoS 0 publications find it open; also one
    /// that was [refused](Event::StreamRefused). Nothing happens beyond `STREAMS`.
    pub const fn open_stream(&mut self, slot: Slot) {
        self.engine.session_mut().open_stream(slot);
    }

    /// Moves the connection to a new local address or port, which the caller has bound already.
    ///
    /// # Errors
    /// [`NotMigratable`] without a connection that could be moved, or if the server wants its clients to stay where they
    /// are (`disable_active_migration`, RFC 9000 9): if the old address is gone, the policy finds out and reconnects.
    pub fn migrate(&mut self, ctx: &mut Context<'_>, change: PathChange) -> Result<(), NotMigratable> {
        if !self.quic.with(ctx).can_migrate() {
            return Err(NotMigratable);
        }
        self.quic.call(ctx, |connection, ctx| connection.on_local_address_changed(ctx, change));
        self.engine.on_migrated();
        Ok(())
    }

    /// Drops the connection without a word, as a power cut does. The policy goes on from there.
    pub fn abandon(&mut self) {
        self.quic.abandon();
    }

    /// Updates the 1-RTT keys at the next opportunity.
    pub fn update_keys(&mut self, _ctx: &mut Context<'_>) {
        self.quic.connection_mut().update_keys();
    }

    /// Takes in a datagram, which is decrypted in place.
    pub fn handle_datagram(&mut self, ctx: &mut Context<'_>, datagram: &mut [u8]) {
        self.quic.call(ctx, |connection, ctx| connection.handle_datagram(ctx, datagram));
    }

    /// Does what is due at `ctx.now`.
    pub fn handle_timeout(&mut self, ctx: &mut Context<'_>) {
        self.quic.call(ctx, |connection, ctx| connection.handle_timeout(ctx));
    }

    /// What is to be done next; to be called until it says [`Output::WaitUntil`].
    ///
    /// `datagram` may hold the datagram that came last. A message lies in it while it is looked at.
    pub fn poll_output<'a>(
        &'a mut self,
        ctx: &mut Context<'_>,
        datagram: &'a mut DatagramBuffer,
    ) -> Output<'a> {
        let at = ctx.now;
        if let Some(event) = self.quic.poll_event(at) {
            if let Event::Phase(phase) = event {
                self.engine.reach(at, phase);
            }
            return Output::Event { at, event };
        }
        let settings = ctx.config.settings();
        let rx = datagram.first_chunk_mut().expect(LENT);
        if let Some(told) = self.engine.poll(at, &settings, &mut self.quic.with(ctx), rx) {
            return Output::Event { at, event: self.engine.event(told, datagram.first_chunk().expect(LENT)) };
        }
        let len = self.quic.call(ctx, |connection, ctx| connection.poll_transmit(ctx, datagram));
        match len {
            Some(len) => Output::Transmit(len),
            None => Output::WaitUntil(self.next_timeout()),
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        let timeouts = [self.quic.connection().poll_timeout(), self.engine.next_timeout()];
        timeouts.into_iter().flatten().min()
    }

    /// Counters, estimates, phases and high-water marks.
    pub fn stats(&self) -> Stats {
        Stats {
            transport: self.quic.stats(),
            phases: self.engine.phases(),
            session: self.engine.session().stats(),
            policy: self.engine.stats(),
        }
    }
}
