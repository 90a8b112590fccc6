//! The client over a byte stream: MQTT over TLS 1.3 over TCP, and over plain TCP. The baseline that QUIC
//! is compared with: the same session and policy, the same handshake, the same certificates.
//!
//! ```text
//! Engine (session, policy) -- View: Transport -- TlsStream or nothing -- Tcp (smoltcp's socket)
//! ```

use smoltcp::socket::tcp::State as TcpState;

use crate::client::{
    Attempt, Close, Context, Engine, Event, Failure, FailureKind, Output, Phase, Resumption, Stall, Stats,
    Status, Transport, TransportStats,
};
use crate::control;
use crate::crypto::Crypto;
use crate::mqtt::session::{PacketBuffer, RX_PACKET_MAX};
use crate::mqtt::{Slot, StreamEnd, Streams};
use crate::net::{TCP_BUFFER, Tcp};
use crate::time::Instant;
use crate::tls::record::{OUTGOING_LEN, OVERHEAD, TlsStream};
use crate::tls::{self, NewTicket, Step, Ticket};

/// Room for one incoming record: a chain of three P-256 certificates.
const INCOMING: usize = 3072 + OVERHEAD;

/// An MQTT client over TCP, with TLS or without.
pub(super) struct StreamClient<C: Crypto> {
    engine: Engine,
    /// The packet being gathered, for TLS hands out one record at a time.
    rx: PacketBuffer,
    tls: Option<TlsStream<C, INCOMING, OUTGOING_LEN>>,
    status: Status,
    /// This side has closed: what is left is to be delivered.
    is_closing: bool,
    ticket: Option<Ticket>,
    uses_ticket: bool,
    bytes_sent: u64,
    bytes_received: u64,
    /// When anything last came from the peer: tells a timeout from a reset.
    heard_at: Instant,
}

/// What a call is lent: the socket, the broker's address, and whether there is TLS.
pub(super) struct Socket<'n, 's> {
    pub(super) tcp: Tcp<'n, 's>,
    pub(super) settings: &'n control::Settings,
    /// The local port of the next connection.
    pub(super) port: u16,
}

impl<C: Crypto> StreamClient<C> {
    pub(super) const fn new() -> Self {
        Self {
            engine: Engine::new(),
            rx: [0; RX_PACKET_MAX],
            tls: None,
            status: Status::Idle,
            is_closing: false,
            ticket: None,
            uses_ticket: false,
            bytes_sent: 0,
            bytes_received: 0,
            heard_at: Instant::ZERO,
        }
    }

    pub(super) const fn engine_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }

    pub(super) fn with<'v, 'n, 's, 'c>(
        &'v mut self,
        ctx: &'v mut Context<'c>,
        socket: &'v mut Socket<'n, 's>,
    ) -> (&'v mut Engine, &'v mut PacketBuffer, View<'v, 'n, 's, 'c, C>) {
        let Self {
            engine,
            rx,
            tls,
            status,
            is_closing,
            ticket,
            uses_ticket,
            bytes_sent,
            bytes_received,
            heard_at,
        } = self;
        let view = View {
            tls,
            status,
            is_closing,
            ticket,
            uses_ticket,
            bytes_sent,
            bytes_received,
            heard_at,
            phases: heapless::Vec::new(),
            got_ticket: false,
            socket,
            ctx,
        };
        (engine, rx, view)
    }

    /// Drops the connection; the peer sees a reset, since TCP cannot fall silent and start anew.
    pub(super) fn abandon(&mut self, socket: &mut Socket<'_, '_>, detail: &'static str) {
        if !matches!(self.status, Status::Idle | Status::Closed(_)) {
            socket.tcp.socket.abort();
            self.tls = None;
            self.status = Status::Closed(Failure { kind: FailureKind::Local, code: 0, detail });
        }
    }

    /// What is to be told next. Never [`Output::Transmit`]: the socket sends by itself.
    pub(super) fn poll_output(&mut self, ctx: &mut Context<'_>, socket: &mut Socket<'_, '_>) -> Output<'_> {
        let at = ctx.now;
        loop {
            let (engine, rx, mut view) = self.with(ctx, socket);
            let mut moved = view.pump();
            for &phase in &view.phases {
                engine.on_phase(at, phase);
            }
            if view.got_ticket {
                engine.tell(Event::TicketReceived);
            }
            view.phases.clear();
            let config = view.ctx.config;
            let settings = config.settings();
            let told = engine.poll(at, &settings, &mut view, rx);
            // What the session wrote goes to the socket now, so that one segment carries it.
            moved |= view.pump();
            for &phase in &view.phases {
                engine.on_phase(at, phase);
            }
            if let Some(told) = told {
                return Output::Event { at, event: self.engine.event(told, &self.rx) };
            }
            if !moved {
                // The policy has left the connection by now, after the session had read what came before the end.
                if matches!(self.status, Status::Closed(_)) {
                    self.tls = None;
                }
                return Output::WaitUntil(self.engine.next_timeout());
            }
        }
    }

    pub(super) fn stats(&self) -> Stats {
        Stats {
            transport: TransportStats {
                bytes_sent: self.bytes_sent,
                bytes_received: self.bytes_received,
                ..TransportStats::ZERO
            },
            phases: self.engine.phases(),
            session: self.engine.session().stats(),
            policy: self.engine.stats(),
        }
    }
}

/// The connection with the loans of one call.
pub(super) struct View<'v, 'n, 's, 'c, C: Crypto> {
    tls: &'v mut Option<TlsStream<C, INCOMING, OUTGOING_LEN>>,
    status: &'v mut Status,
    is_closing: &'v mut bool,
    ticket: &'v mut Option<Ticket>,
    uses_ticket: &'v mut bool,
    bytes_sent: &'v mut u64,
    bytes_received: &'v mut u64,
    heard_at: &'v mut Instant,
    /// Reached in this call: at most those of one whole handshake.
    phases: heapless::Vec<Phase, 5>,
    got_ticket: bool,
    socket: &'v mut Socket<'n, 's>,
    ctx: &'v mut Context<'c>,
}

impl<C: Crypto> View<'_, '_, '_, '_, C> {
    fn is_tls(&self) -> bool {
        self.socket.settings.transport == control::Transport::Tls
    }

    fn reach(&mut self, phase: Phase) {
        // A handshake has no more phases than the list.
        let _ = self.phases.push(phase);
    }

    fn fail(&mut self, kind: FailureKind, code: u64, detail: &'static str) {
        *self.status = Status::Closed(Failure { kind, code, detail });
    }

    fn fail_tls(&mut self, error: tls::Error) {
        self.fail(FailureKind::of_tls(error.fault), error.alert.0.into(), error.cause);
    }

    /// Moves bytes between socket and TLS and follows what happened to either. True if anything moved.
    fn pump(&mut self) -> bool {
        let before = (*self.bytes_sent, *self.bytes_received, *self.status, self.phases.len());
        match *self.status {
            Status::Idle | Status::Closed(_) => return false,
            Status::Opening if self.tls.is_none() => self.open(),
            Status::Opening | Status::Early | Status::Open { .. } => {}
        }
        if self.is_tls() {
            self.receive();
            self.transmit();
        }
        self.watch();
        before != (*self.bytes_sent, *self.bytes_received, *self.status, self.phases.len())
    }

    /// Whether the socket, if it is closed, closed for the peer's silence.
    fn is_timed_out(&self) -> bool {
        let patience = self.ctx.config.quic.idle_timeout;
        !patience.is_zero() && self.ctx.now.saturating_since(*self.heard_at) >= patience
    }

    /// The SYN is out. Out of line: a new TLS stream, with its buffers, is made on the stack, and must be gone before the
    /// handshake needs it.
    #[inline(never)]
    fn open(&mut self) {
        match self.socket.tcp.socket.state() {
            TcpState::Established | TcpState::CloseWait => {}
            TcpState::Closed if self.is_timed_out() => {
                return self.fail(FailureKind::Timeout, 0, "the broker's address does not answer");
            }
            TcpState::Closed => {
                return self.fail(FailureKind::Refused, 0, "nobody listens at the broker's address");
            }
            _ => return,
        }
        *self.heard_at = self.ctx.now;
        self.reach(Phase::TcpEstablished);
        if !self.is_tls() {
            self.reach(Phase::HandshakeComplete);
            *self.status = Status::Open { resumed: false, early_data_accepted: false };
            return;
        }
        let ticket = if *self.uses_ticket { self.ticket.as_ref() } else { None };
        let config = tls::Config { ticket, ..self.ctx.config.tls };
        match TlsStream::new(&config, self.ctx.entropy) {
            Ok(stream) => *self.tls = Some(stream),
            Err(error) => self.fail_tls(error),
        }
    }

    /// Hands what the socket received to TLS, as long as it takes it.
    fn receive(&mut self) {
        let Some(stream) = self.tls.as_mut() else { return };
        let socket = &mut *self.socket.tcp.socket;
        while socket.can_recv() && stream.readable() == 0 {
            // The ticket is read until the handshake is complete; a new one comes only after that.
            let (ticket, mut kept) = if *self.uses_ticket {
                (self.ticket.as_ref(), None)
            } else {
                (None, Some((&mut *self.ticket, &mut self.got_ticket)))
            };
            let config = tls::Config { ticket, ..self.ctx.config.tls };
            let (phases, entropy) = (&mut self.phases, &mut *self.ctx.entropy);
            let mut on_step = |step: &Step<'_>| match step {
                Step::HandshakeKeys { .. } => drop(phases.push(Phase::ServerHello)),
                Step::CertificateVerified => drop(phases.push(Phase::CertificateVerified)),
                Step::Complete { .. } => drop(phases.push(Phase::HandshakeComplete)),
                Step::Ticket(ticket) => {
                    if let Some((kept, got_ticket)) = &mut kept {
                        **got_ticket |= keep(ticket, kept);
                    }
                }
                _ => {}
            };
            let taken =
                socket.recv(|bytes| match stream.handle_bytes(&config, entropy, bytes, &mut on_step) {
                    Ok(len) => (len, Ok(len)),
                    Err(error) => (bytes.len(), Err(error)),
                });
            match taken {
                Ok(Ok(len)) => {
                    *self.bytes_received += len as u64;
                    *self.heard_at = self.ctx.now;
                }
                Ok(Err(error)) => {
                    self.transmit();
                    self.socket.tcp.socket.close();
                    return self.fail_tls(error);
                }
                Err(_) => return,
            }
            if matches!(self.status, Status::Opening) && stream.is_connected() {
                *self.status = Status::Open { resumed: stream.is_resumed(), early_data_accepted: false };
                *self.uses_ticket = false;
            }
        }
    }

    /// Hands TLS's records to the socket.
    fn transmit(&mut self) {
        let Some(stream) = self.tls.as_mut() else { return };
        let socket = &mut *self.socket.tcp.socket;
        while !stream.transmit().is_empty() {
            match socket.send_slice(stream.transmit()) {
                Ok(len @ 1..) => {
                    stream.on_transmitted(len);
                    *self.bytes_sent += len as u64;
                }
                _ => return,
            }
        }
        if *self.is_closing && socket.may_send() {
            socket.close();
        }
    }

    /// Follows the socket's state.
    fn watch(&mut self) {
        let socket = &mut *self.socket.tcp.socket;
        match (socket.state(), *self.status) {
            (_, Status::Idle | Status::Closed(_)) => {}
            (TcpState::FinWait2 | TcpState::TimeWait | TcpState::Closed, _) if *self.is_closing => {
                self.fail(FailureKind::Local, 0, "closed by this client");
            }
            (TcpState::Closed, _) if !socket.can_recv() => {
                if self.is_timed_out() {
                    self.fail(FailureKind::Timeout, 0, "the broker acknowledges nothing any more");
                } else {
                    self.fail(FailureKind::Reset, 0, "the broker reset the connection");
                }
            }
            (TcpState::CloseWait, Status::Opening) if !socket.can_recv() => {
                self.fail(FailureKind::Finished, 0, "the broker ended the connection during the handshake");
            }
            _ => {}
        }
    }
}

/// Keeps a copy of `ticket`; false if it is too long. Out of line: the copy is made on the stack.
#[inline(never)]
fn keep(ticket: &NewTicket<'_>, kept: &mut Option<Ticket>) -> bool {
    let ticket = ticket.to_ticket();
    let fits = ticket.is_some();
    if fits {
        *kept = ticket;
    }
    fits
}

impl<C: Crypto> Streams for View<'_, '_, '_, '_, C> {
    fn open_stream(&mut self, slot: Slot) -> bool {
        slot == Slot::CONTROL && matches!(self.status, Status::Open { .. })
    }

    fn writable(&mut self, slot: Slot) -> usize {
        if slot != Slot::CONTROL || *self.is_closing || !matches!(self.status, Status::Open { .. }) {
            return 0;
        }
        match self.tls.as_mut() {
            Some(stream) => stream.writable(),
            None if self.socket.tcp.socket.may_send() => {
                self.socket.tcp.socket.send_capacity() - self.socket.tcp.socket.send_queue()
            }
            None => 0,
        }
    }

    fn write(&mut self, _slot: Slot, head: &[u8], body: &[u8]) {
        let written = match self.tls.as_mut() {
            Some(stream) => stream.write_parts(head, body).unwrap_or(0),
            None => {
                let socket = &mut *self.socket.tcp.socket;
                let len = socket.send_slice(head).unwrap_or(0) + socket.send_slice(body).unwrap_or(0);
                *self.bytes_sent += len as u64;
                len
            }
        };
        debug_assert_eq!(written, head.len() + body.len(), "the session asked before");
    }

    fn readable(&mut self, slot: Slot) -> usize {
        match self.tls.as_ref() {
            _ if slot != Slot::CONTROL => 0,
            Some(stream) => stream.readable(),
            None => self.socket.tcp.socket.recv_queue(),
        }
    }

    fn read(&mut self, _slot: Slot, bytes: &mut [u8]) -> usize {
        if let Some(stream) = self.tls.as_mut() {
            let len = stream.read(bytes);
            // The next record may be waiting: an incomplete packet continues there.
            self.receive();
            return len;
        }
        let len = self.socket.tcp.socket.recv_slice(bytes).unwrap_or(0);
        *self.bytes_received += len as u64;
        *self.heard_at = self.ctx.now;
        len
    }

    fn ended(&mut self, slot: Slot) -> Option<StreamEnd> {
        let socket = &*self.socket.tcp.socket;
        let more = socket.can_recv() || self.tls.as_ref().is_some_and(|stream| stream.readable() > 0);
        let ended = self.tls.as_ref().is_some_and(TlsStream::is_finished)
            || matches!(socket.state(), TcpState::CloseWait | TcpState::LastAck);
        // A failure says more than the end it brings about: an alert often comes together with the broker's FIN.
        let failed = matches!(*self.status, Status::Closed(_));
        (slot == Slot::CONTROL && ended && !more && !failed).then_some(StreamEnd::Finished)
    }

    fn close_stream(&mut self, _slot: Slot, _end: StreamEnd) {
        // The one stream is the connection: `close` ends both.
    }

    fn count(&self) -> usize {
        1
    }

    fn buffers_whole_packets(&self) -> bool {
        const { assert!(TCP_BUFFER >= RX_PACKET_MAX) };
        !self.is_tls()
    }
}

impl<C: Crypto> Transport for View<'_, '_, '_, '_, C> {
    fn connect(&mut self, now: Instant, attempt: Attempt) -> Result<(), Failure> {
        *self.tls = None;
        *self.is_closing = false;
        *self.uses_ticket = attempt.resumption == Resumption::IfPossible && self.ticket.is_some();
        *self.heard_at = now;
        let Socket { tcp, settings, port } = &mut *self.socket;
        // What is left of an older connection would be in the way.
        tcp.socket.abort();
        let patience = self.ctx.config.quic.idle_timeout;
        let timeout =
            (!patience.is_zero()).then(|| smoltcp::time::Duration::from_micros(patience.as_micros()));
        tcp.socket.set_timeout(timeout);
        match tcp.connect(settings.broker, *port) {
            Ok(()) => {
                *self.status = Status::Opening;
                self.reach(Phase::Started);
                Ok(())
            }
            Err(_) => {
                let detail = "no route to the broker";
                let failure = Failure { kind: FailureKind::Unreachable, code: 0, detail };
                *self.status = Status::Closed(failure);
                Err(failure)
            }
        }
    }

    fn status(&self) -> Status {
        *self.status
    }

    fn close(&mut self, _now: Instant, close: Close) {
        if let Some(stream) = self.tls.as_mut() {
            stream.close();
        }
        self.transmit();
        match close {
            Close::Graceful => {
                *self.is_closing = true;
                if self.tls.as_ref().is_none_or(|stream| stream.transmit().is_empty()) {
                    self.socket.tcp.socket.close();
                }
            }
            Close::Now => {
                self.socket.tcp.socket.close();
                self.fail(FailureKind::Local, 0, "closed by this client");
            }
            Close::Abort(_) => {
                self.socket.tcp.socket.abort();
                self.fail(FailureKind::Local, 0, "aborted by this client");
            }
        }
    }

    fn stall(&self) -> Stall {
        // The stack does not tell how often it repeated a segment; its own timeout ends the connection.
        Stall { received: *self.bytes_received, ..Stall::default() }
    }

    fn has_ticket(&self) -> bool {
        let now_s = self.ctx.config.tls.unix_time_s;
        self.is_tls() && self.ticket.as_ref().is_some_and(|ticket| ticket.is_fresh(now_s))
    }

    fn forget_ticket(&mut self) {
        *self.ticket = None;
        *self.uses_ticket = false;
    }

    fn random(&mut self) -> u32 {
        self.ctx.entropy.next_u32()
    }

    fn stats(&self) -> TransportStats {
        TransportStats {
            bytes_sent: *self.bytes_sent,
            bytes_received: *self.bytes_received,
            ..TransportStats::ZERO
        }
    }
}
