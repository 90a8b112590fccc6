//! QUIC as a transport of the connection policy.

use heapless::Vec;

use super::transport::{
    AbortReason, Attempt, Close, EarlyData, Failure, FailureKind, Resumption, Stall, Status, Transport,
};
use super::{Context, Event, Phase, TransportStats};
use crate::crypto::Crypto;
use crate::mqtt::session::RX_PACKET_MAX;
use crate::mqtt::{ReasonCode, Slot, StreamEnd, Streams};
use crate::quic::{
    self, CloseReason, ConnectError, Connection, EarlyDataOutcome, SessionStore, StreamId, TOKEN_LEN_MAX,
};
use crate::time::{Duration, Instant};
use crate::tls;

/// Send buffer of each stream in bytes: two publications of 1,000 bytes with their topics, so that a second one follows
/// while the first is under way.
pub(super) const SEND: usize = 2080;
/// The least RTT that a new connection assumes from the last one's: the full-size packets of a handshake take longer
/// than what was measured with small ones.
const ASSUMED_RTT_MIN: Duration = Duration::from_millis(50);
/// Receive memory in blocks of 32 bytes: what a handshake takes, afterwards shared out to the streams.
pub(super) const BLOCKS: usize = 128;

/// A connection and what the next one can use of it.
pub(super) struct Quic<C: Crypto, const STREAMS: usize> {
    connection: Connection<C, STREAMS, SEND, BLOCKS>,
    /// By slot: those that there is room for.
    streams: [Stream; STREAMS],
    status: Status,
    /// Whether the control stream is finished, and the connection ends once that is acknowledged.
    is_closing: bool,
    ticket: Option<tls::Ticket>,
    /// Whether the handshake under way uses the ticket.
    uses_ticket: bool,
    token: Vec<u8, TOKEN_LEN_MAX>,
    /// Whose token it is: a digest of what the present or last connection was configured with.
    token_scope: u64,
}

/// The stream of a slot.
#[derive(Clone, Copy, Debug)]
struct Stream {
    id: Option<StreamId>,
    /// The peer's code when it gave up one half, by RESET_STREAM or by STOP_SENDING.
    code: Option<u64>,
}

impl Stream {
    const NONE: Self = Self { id: None, code: None };
}

/// Puts aside what the server gives for the next connection.
struct Keep<'k> {
    /// `None` while the old ticket is in use.
    ticket: Option<&'k mut Option<tls::Ticket>>,
    token: &'k mut Vec<u8, TOKEN_LEN_MAX>,
}

impl SessionStore for Keep<'_> {
    fn on_ticket(&mut self, ticket: tls::Ticket) {
        if let Some(kept) = &mut self.ticket {
            **kept = Some(ticket);
        }
    }

    fn on_token(&mut self, token: &[u8]) {
        // A token that is too long only costs a round trip.
        *self.token = Vec::from_slice(token).unwrap_or_default();
    }
}

impl<C: Crypto, const STREAMS: usize> Quic<C, STREAMS> {
    pub(super) fn new() -> Self {
        Self {
            connection: Connection::new(),
            streams: [Stream::NONE; STREAMS],
            status: Status::Idle,
            is_closing: false,
            ticket: None,
            uses_ticket: false,
            token: Vec::new(),
            token_scope: 0,
        }
    }

    pub(super) const fn connection(&self) -> &Connection<C, STREAMS, SEND, BLOCKS> {
        &self.connection
    }

    pub(super) const fn connection_mut(&mut self) -> &mut Connection<C, STREAMS, SEND, BLOCKS> {
        &mut self.connection
    }

    /// Forgets the connection; the peer is not told.
    pub(super) fn abandon(&mut self) {
        if !matches!(self.status, Status::Idle | Status::Closed(_)) {
            self.connection.abandon();
            self.status = Status::Closed(Failure {
                kind: FailureKind::Local,
                code: 0,
                detail: "dropped without a word",
            });
        }
    }

    /// The view for one call.
    pub(super) const fn with<'v, 'c>(&'v mut self, ctx: &'v mut Context<'c>) -> View<'v, 'c, C, STREAMS> {
        View { quic: self, ctx }
    }

    /// Calls the connection with the configuration, the ticket and the store.
    pub(super) fn call<R>(
        &mut self,
        ctx: &mut Context<'_>,
        call: impl FnOnce(&mut Connection<C, STREAMS, SEND, BLOCKS>, &mut quic::Context<'_>) -> R,
    ) -> R {
        // The ticket is read until the handshake is complete; a new one comes only after that.
        let is_opening = matches!(self.status, Status::Opening | Status::Early);
        let in_use = is_opening && self.uses_ticket;
        let (ticket, kept) =
            if in_use { (self.ticket.as_ref(), None) } else { (None, Some(&mut self.ticket)) };
        let tls = tls::Config { ticket, ..ctx.config.tls };
        let mut store = Keep { ticket: kept, token: &mut self.token };
        let mut quic = quic::Context { now: ctx.now, tls: &tls, entropy: ctx.entropy, store: &mut store };
        call(&mut self.connection, &mut quic)
    }

    /// Takes in what the connection tells; returns what is worth passing on.
    pub(super) fn poll_event(&mut self, now: Instant) -> Option<Event<'static>> {
        while let Some(event) = self.connection.poll_event() {
            if let Some(event) = self.on_event(now, event) {
                return Some(event);
            }
        }
        None
    }

    fn on_event(&mut self, now: Instant, event: quic::Event) -> Option<Event<'static>> {
        match event {
            quic::Event::Handshake(phase) => self::phase(phase).map(Event::Phase),
            quic::Event::Connected { resumed, early_data } => {
                let early_data_accepted = early_data == EarlyDataOutcome::Accepted;
                self.status = Status::Open { resumed, early_data_accepted };
                None
            }
            quic::Event::StreamFinished(id) => {
                if self.is_closing && self.streams.first().is_some_and(|control| control.id == Some(id)) {
                    self.connection.close(now, 0, "");
                }
                None
            }
            // The stream itself keeps neither: the session asks how it ended after all of these are polled.
            quic::Event::StreamStopped { id, code } | quic::Event::StreamReset { id, code } => {
                if let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == Some(id)) {
                    stream.code = Some(code);
                }
                None
            }
            quic::Event::Closed(reason) => {
                self.status = Status::Closed(failure(reason));
                None
            }
            quic::Event::TicketStored => Some(Event::TicketReceived),
            quic::Event::PathValidated => Some(Event::PathValidated),
            quic::Event::PathFailed => Some(Event::PathFailed),
            quic::Event::KeyUpdated => Some(Event::KeysUpdated),
            // The session looks at every stream anyway; the server opens none.
            quic::Event::StreamReadable(_)
            | quic::Event::StreamWritable(_)
            | quic::Event::StreamsAvailable
            | quic::Event::StreamOpened(_)
            | quic::Event::TokenStored => None,
        }
    }

    pub(super) fn stats(&self) -> TransportStats {
        let stats = self.connection.stats();
        TransportStats {
            smoothed_rtt: stats.rtt_smoothed,
            latest_rtt: stats.rtt_latest,
            min_rtt: stats.rtt_min,
            congestion_window: stats.congestion_window.into(),
            bytes_in_flight: stats.bytes_in_flight.into(),
            pto_count: stats.pto_count.into(),
            packets_sent: stats.packets_sent.into(),
            packets_received: stats.packets_received.into(),
            packets_lost: stats.packets_lost.into(),
            packets_spuriously_lost: stats.packets_spuriously_lost.into(),
            packets_dropped: stats.packets_dropped.into(),
            bytes_sent: stats.bytes_sent,
            bytes_received: stats.bytes_received,
            datagrams_sent: stats.datagrams_sent.into(),
            datagrams_received: stats.datagrams_received.into(),
            key_updates: stats.key_updates.into(),
            migrations: stats.migrations.into(),
            rtt_variation: stats.rtt_variation,
            send_buffer_max: stats.stream_buffer_highs.send.into(),
            receive_buffer_max: stats.stream_buffer_highs.receive.into(),
            sent_packets_max: stats.sent_packets_high.into(),
        }
    }
}

/// A connection with the loans of one call.
pub(super) struct View<'v, 'c, C: Crypto, const STREAMS: usize> {
    quic: &'v mut Quic<C, STREAMS>,
    ctx: &'v mut Context<'c>,
}

impl<C: Crypto, const STREAMS: usize> View<'_, '_, C, STREAMS> {
    fn id(&self, slot: Slot) -> Option<StreamId> {
        self.quic.streams.get(slot.index())?.id
    }
}

impl<C: Crypto, const STREAMS: usize> Streams for View<'_, '_, C, STREAMS> {
    fn open_stream(&mut self, slot: Slot) -> bool {
        let Quic { connection, streams, .. } = &mut *self.quic;
        let Some(stream) = streams.get_mut(slot.index()) else { return false };
        let Ok(id) = connection.open_stream() else { return false };
        *stream = Stream { id: Some(id), code: None };
        true
    }

    fn writable(&mut self, slot: Slot) -> usize {
        self.id(slot).map_or(0, |id| self.quic.connection.stream_capacity(id))
    }

    fn write(&mut self, slot: Slot, head: &[u8], body: &[u8]) {
        let Some(id) = self.id(slot) else { return };
        for bytes in [head, body] {
            // All of it: the session asked before. An error means that the stream is over, which it will hear.
            let written = self.quic.connection.stream_write(id, bytes);
            debug_assert!(!matches!(written, Ok(len) if len < bytes.len()));
        }
    }

    fn readable(&mut self, slot: Slot) -> usize {
        self.id(slot).map_or(0, |id| self.quic.connection.stream_readable(id))
    }

    fn read(&mut self, slot: Slot, bytes: &mut [u8]) -> usize {
        // Not past the end: reading that would free the stream before its end has been told.
        match self.id(slot) {
            Some(id) if self.quic.connection.stream_readable(id) > 0 => {
                match self.quic.connection.stream_read(id, bytes) {
                    Ok(quic::Read::Data(len)) => len,
                    _ => 0,
                }
            }
            _ => 0,
        }
    }

    fn ended(&mut self, slot: Slot) -> Option<StreamEnd> {
        let stream = self.quic.streams.get(slot.index())?;
        let id = stream.id?;
        match (self.quic.connection.stream_end(id), stream.code) {
            (Some(Err(code)), _) | (_, Some(code)) => Some(StreamEnd::Reset(code)),
            (Some(Ok(())), None) => Some(StreamEnd::Finished),
            (None, None) => None,
        }
    }

    fn close_stream(&mut self, slot: Slot, end: StreamEnd) {
        let Quic { connection, streams, .. } = &mut *self.quic;
        let Some(id) = streams.get_mut(slot.index()).and_then(|stream| stream.id.take()) else { return };
        // Each may fail because that half is over already, which is what is wanted.
        match end {
            StreamEnd::Finished => {
                let _ = connection.finish(id);
                let _ = connection.stop_sending(id, 0);
            }
            StreamEnd::Reset(code) => {
                let _ = connection.reset(id, code);
                let _ = connection.stop_sending(id, code);
            }
        }
    }

    fn count(&self) -> usize {
        STREAMS
    }

    fn packet_max(&self) -> usize {
        RX_PACKET_MAX.min(self.quic.connection.stream_window() as usize)
    }

    fn buffers_whole_packets(&self) -> bool {
        true
    }
}

impl<C: Crypto, const STREAMS: usize> Transport for View<'_, '_, C, STREAMS> {
    fn connect(&mut self, _now: Instant, attempt: Attempt) -> Result<(), Failure> {
        let quic = &mut *self.quic;
        quic.connection.abandon();
        quic.streams = [Stream::NONE; STREAMS];
        quic.is_closing = false;
        quic.uses_ticket = attempt.resumption == Resumption::IfPossible && quic.ticket.is_some();
        quic.status = Status::Opening;
        let early_data = match attempt.early_data {
            EarlyData::Never => tls::EarlyData::Omit,
            EarlyData::IfPossible => tls::EarlyData::Offer,
        };
        let configured = self.ctx.config.quic.initial_rtt;
        let initial_rtt = quic.connection.known_rtt().map_or(configured, |rtt| rtt.max(ASSUMED_RTT_MIN));
        let config = quic::Config { early_data, initial_rtt, ..self.ctx.config.quic };
        // A token is for the server that gave it (RFC 9000 8.1.3).
        let scope = tls::Scope::of::<C>(&self.ctx.config.tls).short();
        if core::mem::replace(&mut quic.token_scope, scope) != scope {
            quic.token.clear();
        }
        let token = quic.token.clone();
        let result = quic.call(self.ctx, |connection, ctx| connection.connect(&config, ctx, &token));
        match result {
            Ok(()) => {
                // And for one connection.
                quic.token.clear();
                if quic.connection.is_early() {
                    quic.status = Status::Early;
                }
                Ok(())
            }
            Err(error) => {
                let failure = connect_failure(error);
                quic.status = Status::Closed(failure);
                Err(failure)
            }
        }
    }

    fn status(&self) -> Status {
        self.quic.status
    }

    fn close(&mut self, now: Instant, close: Close) {
        let quic = &mut *self.quic;
        let code = match close {
            Close::Graceful => {
                if let Some(id) = quic.streams.first().and_then(|control| control.id)
                    && matches!(quic.status, Status::Open { .. })
                    && quic.connection.finish(id).is_ok()
                {
                    quic.is_closing = true;
                    return;
                }
                0
            }
            Close::Now => 0,
            Close::Abort(AbortReason::Protocol(reason)) => reason.0.into(),
            Close::Abort(AbortReason::Unresponsive) => ReasonCode::KEEP_ALIVE_TIMEOUT.0.into(),
        };
        quic.connection.close(now, code, "");
        quic.status =
            Status::Closed(Failure { kind: FailureKind::Local, code, detail: "closed by this client" });
    }

    fn stall(&self) -> Stall {
        Stall {
            timeouts: self.quic.connection.consecutive_timeouts(),
            received: self.quic.connection.stats().packets_received.into(),
            unreadable: self.quic.connection.unreadable_packets().into(),
        }
    }

    fn nudge(&mut self) {
        self.quic.connection.ping();
    }

    fn can_migrate(&self) -> bool {
        matches!(self.quic.status, Status::Open { .. }) && self.quic.connection.may_migrate()
    }

    fn has_ticket(&self) -> bool {
        let now_s = self.ctx.config.tls.unix_time_s;
        self.quic.ticket.as_ref().is_some_and(|ticket| ticket.is_fresh(now_s))
    }

    fn forget_ticket(&mut self) {
        self.quic.ticket = None;
        self.quic.uses_ticket = false;
    }

    fn random(&mut self) -> u32 {
        self.ctx.entropy.next_u32()
    }

    fn stats(&self) -> TransportStats {
        self.quic.stats()
    }
}

const fn phase(phase: quic::Phase) -> Option<Phase> {
    Some(match phase {
        quic::Phase::Started => Phase::Started,
        quic::Phase::Retried => return None,
        quic::Phase::ServerHello => Phase::ServerHello,
        quic::Phase::CertificateVerified => Phase::CertificateVerified,
        quic::Phase::Complete => Phase::HandshakeComplete,
        quic::Phase::Confirmed => Phase::HandshakeConfirmed,
    })
}

const fn connect_failure(error: ConnectError) -> Failure {
    match error {
        ConnectError::Busy => {
            Failure { kind: FailureKind::Caller, code: 0, detail: "the connection is in use" }
        }
        ConnectError::Configuration(detail) => Failure { kind: FailureKind::Caller, code: 0, detail },
        ConnectError::Tls(error) => tls_failure(error),
    }
}

const fn tls_failure(error: tls::Error) -> Failure {
    let kind = FailureKind::of_tls(error.fault);
    Failure { kind, code: 0x100 + error.alert.0 as u64, detail: error.cause }
}

const fn failure(reason: CloseReason) -> Failure {
    let (kind, code, detail) = match reason {
        CloseReason::Application { code } => (FailureKind::Local, code, "closed by this client"),
        CloseReason::Transport(error) if error.is_own_limit() => {
            (FailureKind::Resource, error.code.0, error.reason)
        }
        CloseReason::Transport(error) => (FailureKind::PeerViolation, error.code.0, error.reason),
        CloseReason::Tls(error) => return tls_failure(error),
        CloseReason::PeerApplication { code } => {
            (FailureKind::PeerApplication, code, "closed by the server's application")
        }
        CloseReason::PeerTransport { code, .. } => match code.alert() {
            Some(_) => (FailureKind::PeerTransport, code.0, "the server ended the TLS handshake"),
            None => (FailureKind::PeerTransport, code.0, code.name()),
        },
        CloseReason::IdleTimeout => (FailureKind::Timeout, 0, "nothing was heard for the idle timeout"),
        CloseReason::HandshakeTimeout => (FailureKind::Timeout, 0, "the handshake did not complete in time"),
        CloseReason::StatelessReset => (FailureKind::Reset, 0, "the server lost the connection's state"),
        CloseReason::VersionNegotiation => {
            (FailureKind::Version, 0, "the server does not speak QUIC version 1")
        }
    };
    Failure { kind, code, detail }
}

#[cfg(test)]
mod tests;
