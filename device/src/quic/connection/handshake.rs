//! The TLS handshake: CRYPTO bytes in, keys and flights out (RFC 9001 4).

use core::ops::Range;

use crate::codec::Writer;
use crate::crypto::{Crypto, Secret};
use crate::time::Instant;
use crate::tls::{self, CipherSuite, Step};

use super::super::ack::Received;
use super::super::crypto_streams::Kept;
use super::super::error::{CloseReason, TransportCode, TransportError};
use super::super::protection::LevelKeys;
use super::super::recovery::Space;
use super::super::stream::BLOCK;
use super::super::transport_parameters::{Limits, PeerParameters};
use super::{Agreed, Connection, Context, EarlyData, Phase, Stage};

/// What a message led to, once it no longer borrows the buffer.
enum Outcome {
    Nothing,
    SecondHello,
    HandshakeKeys { suite: CipherSuite, client: Secret, server: Secret },
    Parameters { parameters: PeerParameters, early_data_accepted: bool },
    CertificateVerified,
    Complete { suite: CipherSuite, client: Secret, server: Secret },
    TicketStored,
}

impl Outcome {
    /// Of a step, or of TLS's error.
    #[inline(never)]
    fn of(step: Result<Step<'_>, tls::Error>) -> Result<Self, CloseReason> {
        Ok(match step? {
            // Tickets come after the handshake.
            Step::Continue | Step::Ticket(_) => Self::Nothing,
            Step::SecondClientHello => Self::SecondHello,
            Step::HandshakeKeys { suite, client, server } => Self::HandshakeKeys { suite, client, server },
            Step::EncryptedExtensions { transport_parameters, early_data_accepted, .. } => {
                let Some(bytes) = transport_parameters else {
                    let reason = "the server sent no transport parameters";
                    // RFC 9001 8.2: missing_extension.
                    let code = TransportCode::crypto(tls::Alert::MISSING_EXTENSION.0);
                    return Err(TransportError::new(code, reason).into());
                };
                Self::Parameters { parameters: PeerParameters::decode(bytes)?, early_data_accepted }
            }
            Step::CertificateVerified => Self::CertificateVerified,
            Step::Complete { suite, client, server } => Self::Complete { suite, client, server },
        })
    }
}

impl<C: Crypto, const STREAMS: usize, const SEND: usize, const BLOCKS: usize>
    Connection<C, STREAMS, SEND, BLOCKS>
{
    /// CRYPTO bytes arrived: every message they complete goes to TLS.
    ///
    /// The certificate chain's verification, which needs the stack most, comes from here. So what other frames and
    /// messages need has frames of its own.
    #[inline(never)]
    pub(super) fn on_crypto(
        &mut self,
        ctx: &mut Context<'_>,
        space: Space,
        offset: u64,
        data: &[u8],
    ) -> Result<Kept, CloseReason> {
        // A server that asked for a certificate gives no ticket before it has verified it (RFC 8446 4.6.1): the flight, too
        // long to leave room for a ticket, has arrived.
        if space == Space::Application && self.crypto_out.answers_request() {
            self.free_flight();
        }
        let memory = self.streams.memory_mut().as_mut_bytes();
        if self.crypto_in.insert(memory, space, offset, data)? == Kept::No {
            return Ok(Kept::No);
        }
        while let Some(len) = self.crypto_in.message_len(self.streams.memory().as_bytes())? {
            let mut flight = 0..0;
            let outcome = self.run_tls(ctx, len, &mut flight);
            self.crypto_in.consume(self.streams.memory_mut().as_mut_bytes(), len);
            self.on_outcome(ctx, outcome, &flight)?;
        }
        Ok(Kept::Yes)
    }

    /// Gives TLS the message at the start of the buffer. Returns what it led to; in `flight`, where in the memory TLS
    /// wrote its flight.
    fn run_tls(
        &mut self,
        ctx: &mut Context<'_>,
        len: usize,
        flight: &mut Range<usize>,
    ) -> Result<Outcome, CloseReason> {
        let Self { keys, crypto_in, streams, agreed, .. } = self;
        let level = Self::level(crypto_in.level());
        let memory = streams.memory_mut().as_mut_bytes();
        let (message, out_at, mut out) = crypto_in.message(memory, len);
        match &mut keys.stage {
            Stage::Idle => Ok(Outcome::Nothing),
            Stage::Handshake(tls) => {
                let step = tls.handle_message(ctx.tls, ctx.entropy, level, message, &mut out);
                *flight = out_at..out_at + out.len();
                Outcome::of(step)
            }
            Stage::Complete(_, tickets) => {
                on_message_after_handshake::<C>(ctx, tickets, &agreed.limits, message)
            }
        }
    }

    #[inline(never)]
    fn on_outcome(
        &mut self,
        ctx: &mut Context<'_>,
        outcome: Result<Outcome, CloseReason>,
        flight: &Range<usize>,
    ) -> Result<(), CloseReason> {
        match outcome? {
            Outcome::Nothing => {}
            Outcome::SecondHello => {
                self.crypto_out.on_flight(Space::Initial, flight.start, flight.len());
                self.reject_early_data(ctx);
            }
            Outcome::HandshakeKeys { suite, client, server } => {
                self.crypto_out.forget();
                self.crypto_in.advance(Space::Handshake, 0..BLOCKS * BLOCK)?;
                self.leave_initial(ctx.now);
                self.keys.long = Some((Space::Handshake, LevelKeys::derive(suite, &client, &server)));
                self.recovery.on_handshake_keys(ctx.now);
                self.reach(Phase::ServerHello);
            }
            Outcome::Parameters { parameters, early_data_accepted } => {
                self.on_parameters(ctx, &parameters, early_data_accepted)?;
            }
            Outcome::CertificateVerified => self.reach(Phase::CertificateVerified),
            Outcome::Complete { suite, client, server } => {
                self.crypto_out.on_flight(Space::Handshake, flight.start, flight.len());
                self.crypto_in.advance(Space::Application, self.crypto_out.end()..BLOCKS * BLOCK)?;
                let first = self.next_number[Space::Application.index()];
                self.events.connected = Some(self.keys.complete(suite, client, server, first));
                self.reach(Phase::Complete);
            }
            Outcome::TicketStored => self.events.ticket = true,
        }
        Ok(())
    }

    /// The ServerHello was the last thing the server had to say in Initial packets, and it proves that the server
    /// has the ClientHello: neither end needs them any more.
    ///
    /// Deviates from RFC 9000 13.2.1 (MUST acknowledge Initial packets) and discards the keys a little earlier
    /// than RFC 9001 4.9.1 asks for. The next Handshake packet makes the server discard its own; an
    /// acknowledgement before that would only cost a datagram padded to 1200 bytes.
    fn leave_initial(&mut self, now: Instant) {
        self.recovery.discard_space(now, Space::Initial);
        self.received.long = Received::new();
    }

    fn on_parameters(
        &mut self,
        ctx: &mut Context<'_>,
        parameters: &PeerParameters,
        early_data_accepted: bool,
    ) -> Result<(), CloseReason> {
        let server = self.ids.server.unwrap_or(super::ConnectionId::EMPTY);
        parameters.check_connection_ids(&self.ids.original, &server, self.ids.retry.as_ref())?;
        if self.early_data == EarlyData::Offered {
            if !early_data_accepted {
                self.reject_early_data(ctx);
            } else if !parameters.limits.covers(&self.agreed.limits) {
                let reason = "lower limits than those that 0-RTT data went by";
                return Err(TransportError::violation(reason).into());
            } else {
                self.early_data = EarlyData::Accepted;
            }
        }
        if let Some(token) = parameters.reset_token {
            self.cids.set_initial_token(token);
        }
        if let Some((cid, token)) = parameters.preferred {
            self.cids.on_new(1, 0, cid, token)?;
        }
        self.agreed = Agreed::new(&self.config, parameters);
        self.recovery.set_peer_max_ack_delay(parameters.max_ack_delay);
        self.streams.set_peer_limits(parameters.limits.into());
        Ok(())
    }

    /// 0-RTT data does not count: all of it goes out again with 1-RTT keys (RFC 9001 4.6.2).
    fn reject_early_data(&mut self, ctx: &Context<'_>) {
        if !self.has_early_data() {
            return;
        }
        self.early_data = EarlyData::Rejected;
        self.keys.early = None;
        // The streams rewind as a whole; nothing else is sent as 0-RTT.
        self.recovery.requeue_space(ctx.now, Space::Application, |_| {});
        self.streams.on_early_data_refused();
    }
}

/// What a message leads to that comes when the handshake is complete: only tickets may (RFC 9001 4.4, 4.6.1). Out of
/// line: a ticket's copy need not lie under the handshake.
#[inline(never)]
fn on_message_after_handshake<C: Crypto>(
    ctx: &mut Context<'_>,
    tickets: &tls::Tickets,
    limits: &Limits,
    message: &[u8],
) -> Result<Outcome, CloseReason> {
    // To TLS it is a message out of place.
    if message.first() == Some(&tls::CERTIFICATE_REQUEST) {
        return Err(TransportError::violation("a certificate request after the handshake").into());
    }
    match tickets.handle_message::<C>(ctx.tls, message)? {
        // Over QUIC the amount is bounded by flow control alone.
        Step::Ticket(ticket) if ticket.max_early_data.is_some_and(|max| max != u32::MAX) => {
            Err(TransportError::violation("early_data.max_size").into())
        }
        Step::Ticket(ticket) => Ok(store_ticket(ctx, limits, &ticket)),
        _ => Ok(Outcome::Nothing),
    }
}

/// Keeps a ticket together with the limits that 0-RTT data will go by.
fn store_ticket(ctx: &mut Context<'_>, limits: &Limits, ticket: &tls::NewTicket<'_>) -> Outcome {
    // A ticket that is too long, or not to be kept, is as good as none.
    let Some(mut ticket) = ticket.to_ticket() else { return Outcome::Nothing };
    const { assert!(Limits::LEN_MAX <= tls::TICKET_APPLICATION_LEN_MAX) };
    let mut bytes = [0; Limits::LEN_MAX];
    let mut writer = Writer::new(&mut bytes);
    limits.encode(&mut writer).expect("LEN_MAX is the longest encoding");
    if ticket.set_application(writer.written()).is_err() {
        return Outcome::Nothing;
    }
    ctx.store.on_ticket(ticket);
    Outcome::TicketStored
}
