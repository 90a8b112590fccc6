//! The client as the agent sees it, whatever the transport.

use super::stream::{Socket, StreamClient};
use crate::client::{
    Client, Context, DatagramBuffer, Filter, NotMigratable, Output, PathChange, Publication, RequestError,
    Slot, Stats, Token,
};
use crate::control::{Settings, Transport};
use crate::crypto::Crypto;
use crate::net::Net;

/// The client of each transport. Only one is in use at a time.
pub(super) struct Clients<C: Crypto, const STREAMS: usize> {
    pub(super) quic: Client<C, STREAMS>,
    pub(super) stream: StreamClient<C>,
}

impl<C: Crypto, const STREAMS: usize> Clients<C, STREAMS> {
    pub(super) fn new() -> Self {
        Self { quic: Client::new(), stream: StreamClient::new() }
    }

    /// Bytes of state of the client for `transport`, with the buffers it works in.
    pub(super) const fn bytes(transport: Transport) -> usize {
        match transport {
            Transport::Quic => Client::<C, STREAMS>::BYTES,
            Transport::Tls | Transport::Tcp => size_of::<StreamClient<C>>(),
        }
    }

    pub(super) fn stats(&self, transport: Transport) -> Stats {
        match transport {
            Transport::Quic => self.quic.stats(),
            Transport::Tls | Transport::Tcp => self.stream.stats(),
        }
    }

    /// The client for one call; `port` is the local port of a TCP connection made in it.
    pub(super) fn face<'f, 's>(
        &'f mut self,
        settings: &'f Settings,
        net: &'f mut Net<'s>,
        port: u16,
    ) -> Face<'f, 's, C, STREAMS> {
        match (settings.transport, net.tcp()) {
            (Transport::Tls | Transport::Tcp, Some(tcp)) => {
                Face::Stream(&mut self.stream, Socket { tcp, settings, port })
            }
            // Settings bring the interface with them, so there is a socket whenever there is a transport.
            (Transport::Quic, _) | (_, None) => Face::Quic(&mut self.quic),
        }
    }
}

/// A client with its socket, for one call.
pub(super) enum Face<'f, 's, C: Crypto, const STREAMS: usize> {
    Quic(&'f mut Client<C, STREAMS>),
    Stream(&'f mut StreamClient<C>, Socket<'f, 's>),
}

impl<C: Crypto, const STREAMS: usize> Face<'_, '_, C, STREAMS> {
    pub(super) fn connect(&mut self, ctx: &mut Context<'_>) {
        match self {
            Self::Quic(client) => client.connect(ctx),
            Self::Stream(client, _) => client.engine_mut().connect(ctx.now),
        }
    }

    pub(super) fn disconnect(&mut self, ctx: &mut Context<'_>) {
        match self {
            Self::Quic(client) => client.disconnect(ctx),
            Self::Stream(client, socket) => {
                let now = ctx.now;
                let (engine, _, mut view) = client.with(ctx, socket);
                engine.disconnect(now, &mut view);
            }
        }
    }

    pub(super) fn publish(
        &mut self,
        ctx: &mut Context<'_>,
        publication: &Publication<'_>,
    ) -> Result<Option<Token>, RequestError> {
        match self {
            Self::Quic(client) => client.publish(ctx, publication),
            Self::Stream(client, socket) => {
                let (now, config) = (ctx.now, ctx.config);
                let (engine, _, mut view) = client.with(ctx, socket);
                engine.session_mut().publish(now, &config.mqtt, publication, &mut view)
            }
        }
    }

    pub(super) fn subscribe(
        &mut self,
        ctx: &mut Context<'_>,
        slot: Slot,
        filters: &[Filter<'_>],
    ) -> Result<Token, RequestError> {
        match self {
            Self::Quic(client) => client.subscribe(ctx, slot, filters),
            Self::Stream(client, socket) => {
                let (engine, _, view) = client.with(ctx, socket);
                engine.session_mut().subscribe(slot, filters, &view)
            }
        }
    }

    pub(super) fn unsubscribe(
        &mut self,
        ctx: &mut Context<'_>,
        slot: Slot,
        filters: &[&str],
    ) -> Result<Token, RequestError> {
        match self {
            Self::Quic(client) => client.unsubscribe(ctx, slot, filters),
            Self::Stream(client, socket) => {
                let (engine, _, view) = client.with(ctx, socket);
                engine.session_mut().unsubscribe(slot, filters, &view)
            }
        }
    }

    /// Data streams are QUIC's.
    pub(super) fn open_stream(&mut self, slot: Slot) {
        match self {
            Self::Quic(client) => client.open_stream(slot),
            Self::Stream(..) => {}
        }
    }

    pub(super) fn migrate(&mut self, ctx: &mut Context<'_>, change: PathChange) -> Result<(), NotMigratable> {
        match self {
            Self::Quic(client) => client.migrate(ctx, change),
            Self::Stream(..) => Err(NotMigratable),
        }
    }

    /// False where there are no keys to be updated by command.
    pub(super) fn update_keys(&mut self, ctx: &mut Context<'_>) -> bool {
        match self {
            Self::Quic(client) => {
                client.update_keys(ctx);
                true
            }
            Self::Stream(..) => false,
        }
    }

    pub(super) fn abandon(&mut self, detail: &'static str) {
        match self {
            Self::Quic(client) => client.abandon(),
            Self::Stream(client, socket) => client.abandon(socket, detail),
        }
    }

    pub(super) fn handle_datagram(&mut self, ctx: &mut Context<'_>, datagram: &mut [u8]) {
        match self {
            Self::Quic(client) => client.handle_datagram(ctx, datagram),
            Self::Stream(..) => {}
        }
    }

    pub(super) fn handle_timeout(&mut self, ctx: &mut Context<'_>) {
        match self {
            Self::Quic(client) => client.handle_timeout(ctx),
            // What is due is found by polling.
            Self::Stream(..) => {}
        }
    }

    pub(super) fn poll_output<'a>(
        &'a mut self,
        ctx: &mut Context<'_>,
        datagram: &'a mut DatagramBuffer,
    ) -> Output<'a> {
        match self {
            Self::Quic(client) => client.poll_output(ctx, datagram),
            Self::Stream(client, socket) => client.poll_output(ctx, socket),
        }
    }
}
