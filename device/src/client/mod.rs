//! The client: QUIC connection, MQTT session and connection policy behind one sans-IO face.
//!
//! The owner hands in datagrams and the time, and after every call drains [`Client::poll_output`] until
//! it returns [`Output::WaitUntil`]. Nothing else moves the client.

mod config;
mod event;
mod stats;
mod transport;

pub use config::{Config, Context, Policy, Reconnect, Settings};
pub use event::{Cause, Connected, Event, Output, Phase};
pub use stats::{Phases, PolicyStats, Stats, TransportStats};
pub use transport::{
    AbortReason, Attempt, Close, EarlyData, Failure, FailureKind, NotMigratable, Resumption, Stall, Status,
    Transport, is_control,
};

pub use crate::mqtt::{Filter, Message, Publication, RequestError, Slot, Token};

use crate::crypto::Crypto;

/// An MQTT client over QUIC.
pub struct Client<C: Crypto> {
    stats: Stats,
    crypto: core::marker::PhantomData<C>,
}

impl<C: Crypto> Default for Client<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: Crypto> Client<C> {
    /// An idle client.
    pub const fn new() -> Self {
        Self { stats: Stats::ZERO, crypto: core::marker::PhantomData }
    }

    /// Starts connecting, and keeps reconnecting as the policy says until [`Client::disconnect`].
    pub fn connect(&mut self, _ctx: &mut Context<'_>) {}

    /// Ends the session in order: DISCONNECT, then the connection.
    pub fn disconnect(&mut self, _ctx: &mut Context<'_>) {}

    /// Publishes a message. QoS 1 and 2 messages are stored until acknowledged, also while disconnected, and get
    /// a token; QoS 0 messages need an open session.
    ///
    /// # Errors
    /// [`RequestError`]; nothing is left half-written.
    pub fn publish(
        &mut self,
        _ctx: &mut Context<'_>,
        _publication: &Publication<'_>,
    ) -> Result<Option<Token>, RequestError> {
        Err(RequestError::NotConnected)
    }

    /// Subscribes on the stream of `slot`. The subscription is remembered and renewed when the server forgot it.
    ///
    /// # Errors
    /// [`RequestError`]; nothing is left half-written.
    pub fn subscribe(
        &mut self,
        _ctx: &mut Context<'_>,
        _slot: Slot,
        _filters: &[Filter<'_>],
    ) -> Result<Token, RequestError> {
        Err(RequestError::NotConnected)
    }

    /// Ends subscriptions made on the stream of `slot`.
    ///
    /// # Errors
    /// [`RequestError`]; nothing is left half-written.
    pub fn unsubscribe(
        &mut self,
        _ctx: &mut Context<'_>,
        _slot: Slot,
        _filters: &[&str],
    ) -> Result<Token, RequestError> {
        Err(RequestError::NotConnected)
    }

    /// Moves the connection to a new local address or port, which the caller has bound already.
    ///
    /// # Errors
    /// [`NotMigratable`] before the handshake is confirmed or if the server forbids it.
    pub fn migrate(&mut self, _ctx: &mut Context<'_>) -> Result<(), NotMigratable> {
        Err(NotMigratable)
    }

    /// Updates the 1-RTT keys at the next opportunity.
    pub fn update_keys(&mut self, _ctx: &mut Context<'_>) {}

    /// Takes in a datagram, which is decrypted in place.
    pub fn handle_datagram(&mut self, _ctx: &mut Context<'_>, _datagram: &mut [u8]) {}

    /// Does what is due at `ctx.now`.
    pub fn handle_timeout(&mut self, _ctx: &mut Context<'_>) {}

    /// What is to be done next; to be called until it says [`Output::WaitUntil`].
    ///
    /// `datagram` holds at least 1200 bytes.
    pub fn poll_output(&mut self, _ctx: &mut Context<'_>, _datagram: &mut [u8]) -> Output<'_> {
        Output::WaitUntil(None)
    }

    /// Counters, estimates, phases and high-water marks.
    pub fn stats(&self) -> Stats {
        self.stats
    }
}
