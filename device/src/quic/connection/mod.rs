//! The connection: one state, entered by datagrams, time and calls.
//!
//! Dispatch decides, leaves compute: `receive` takes datagrams apart, `frames` hands each frame to whom it
//! concerns, `handshake` drives TLS, `transmit` puts datagrams together, `timers` watches the clock,
//! `migration` and `close` do what their names say.

mod close;
mod frames;
mod handshake;
mod migration;
mod receive;
mod record;
mod streams;
#[cfg(test)]
mod tests;
mod timers;
mod transmit;

use crate::crypto::Crypto;
use crate::time::{Duration, Instant};
use crate::tls;

use super::cid::{ConnectionId, REMOTE_CIDS_MAX, RemoteCids};
use super::config::{Config, Context, Grease};
use super::crypto_streams::{CRYPTO_RECEIVE_LEN, CryptoReceive, CryptoSend, RESERVED_BLOCKS, flight_start};
use super::error::{CloseReason, ConnectError, TransportError};
use super::event::{EarlyDataOutcome, Event, Phase};
use super::keys::OneRttKeys;
use super::path::Path;
use super::protection::{Direction, LevelKeys};
use super::recovery::{NewReno, Recovery, Space};
use super::stats::Counters;
use super::stream::{self, Streams};
use super::transport_parameters::{Limits, LocalParameters, Migration, PeerParameters};

use close::Closing;
use record::{ReceivedPackets, Record};

/// Longest address validation token kept, in bytes: quinn's have 60 to 90, MsQuic's about 100.
pub const TOKEN_LEN_MAX: usize = 192;

/// Sent packets tracked at a time. A window of ten full datagrams needs ten; small messages at a high rate
/// are held back when 22 of them are under way.
pub const SENT_PACKETS_MAX: usize = 24;

/// Length of the identifier the first Initial goes to; at least 8 (RFC 9000 7.2).
const INITIAL_DESTINATION_LEN: usize = 8;

/// How long an acknowledgement may wait, as announced to the server (RFC 9000 13.2.1).
const MAX_ACK_DELAY: Duration = Duration::from_millis(25);

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

/// Where the connection is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Not in use.
    Idle,
    /// Shaking hands, or open.
    Open,
    /// This end has closed it and answers what still comes (RFC 9000 10.2.1).
    Closing(Closing),
    /// The peer has closed it; nothing is sent any more (RFC 9000 10.2.2).
    Draining { until: Instant },
}

/// What was agreed on with the peer, as far as it is needed after the handshake.
#[derive(Clone, Copy, Debug)]
struct Agreed {
    /// The smaller of both idle timeouts; zero for none.
    idle_timeout: Duration,
    ack_delay_exponent: u8,
    migration: Migration,
    max_udp_payload_size: u16,
    /// To be remembered with a ticket; until the server tells its own, those that were remembered.
    limits: Limits,
}

/// What the transport parameters have to confirm (RFC 9000 7.3).
#[derive(Clone, Copy, Debug)]
struct HandshakeIds {
    /// Where the very first Initial went.
    original: ConnectionId,
    /// The source of the server's first Initial.
    server: Option<ConnectionId>,
    /// The source of its Retry.
    retry: Option<ConnectionId>,
}

/// 0-RTT, from the offer to the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum EarlyData {
    NotOffered,
    /// Offered, under the limits of the connection before: [`Agreed::limits`].
    Offered,
    Accepted,
    Rejected,
}

/// Keys of each level, while they are needed.
struct Keys<C: Crypto> {
    /// Initial keys, then Handshake keys: those of one level exist at a time.
    long: Option<(Space, LevelKeys<C>)>,
    early: Option<Direction<C>>,
    stage: Stage<C>,
}

/// TLS until the handshake is complete, then the keys it led to: these are needed once it is not.
#[cfg_attr(
    feature = "rsa",
    expect(clippy::large_enum_variant, reason = "there is no heap to box an RSA key")
)]
enum Stage<C: Crypto> {
    Idle,
    Handshake(tls::Handshake<C>),
    Complete(OneRttKeys<C>, tls::Tickets),
}

/// Things to send that no other part remembers.
#[derive(Clone, Copy, Debug)]
struct Pending {
    /// A PING, and what for.
    ping: Option<Ping>,
    /// A key update was asked for.
    key_update: bool,
}

/// What a PING is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ping {
    /// To keep the connection alive, or to show a new address.
    Presence,
    /// To learn whether a path that went silent carries again.
    Lookout,
}

/// Events not yet polled, as state: nothing can overflow.
#[derive(Clone, Copy, Debug)]
struct Events {
    /// One bit per phase reached.
    phases: u8,
    /// The handshake is complete; whether it resumed a session.
    connected: Option<bool>,
    ticket: bool,
    token: bool,
    path_validated: bool,
    path_failed: bool,
    key_updated: bool,
    closed: Option<CloseReason>,
}

/// A client's connection, idle until [`Connection::connect`] and reusable after its end.
///
/// `STREAMS` bidirectional streams at a time with `SEND` bytes of send buffer each. `BLOCKS` x 32 bytes of
/// receive memory, at least 4096 bytes and less than 65536, serve the handshake and then, but for its last 1152 bytes, the streams
/// in equal parts.
pub struct Connection<
    C: Crypto,
    const STREAMS: usize = 1,
    const SEND: usize = 2048,
    const BLOCKS: usize = 128,
> {
    state: State,
    phase: Phase,
    config: Config,
    agreed: Agreed,
    early_data: EarlyData,
    events: Events,
    pending: Pending,
    ids: HandshakeIds,
    cids: RemoteCids,
    path: Path,
    /// Length of the token for Initial packets, which is at the start of the receive memory.
    token_len: u8,
    keys: Keys<C>,
    crypto_in: CryptoReceive,
    crypto_out: CryptoSend,
    next_number: [u64; 3],
    received: ReceivedPackets,
    recovery: Recovery<Record, SENT_PACKETS_MAX>,
    streams: Streams<STREAMS, SEND, BLOCKS>,
    started: Instant,
    /// When a packet was last received, or an ack-eliciting one sent after that (RFC 9000 10.1).
    active_at: Instant,
    sent_since_received: bool,
    /// Until when the pacer holds packets back.
    paced_until: Option<Instant>,
    /// Packets that failed to authenticate.
    forged: u64,
    /// Packets with a short header that could not be read, since the last one that could, on this address.
    unreadable: u8,
    counters: Counters,
}

impl<C: Crypto, const STREAMS: usize, const SEND: usize, const BLOCKS: usize>
    Connection<C, STREAMS, SEND, BLOCKS>
{
    /// A connection at rest.
    #[expect(clippy::new_without_default, reason = "large: belongs into a static")]
    pub fn new() -> Self {
        const { assert!(BLOCKS * stream::BLOCK >= CRYPTO_RECEIVE_LEN, "the handshake needs 4096 bytes") };
        const { assert!(BLOCKS * stream::BLOCK <= u16::MAX as usize, "positions in it are 16 bits wide") };
        Self {
            state: State::Idle,
            phase: Phase::Started,
            config: Config::new(),
            agreed: Agreed::NONE,
            early_data: EarlyData::NotOffered,
            events: Events::NONE,
            pending: Pending::NONE,
            ids: HandshakeIds { original: ConnectionId::EMPTY, server: None, retry: None },
            cids: RemoteCids::new(ConnectionId::EMPTY),
            path: Path::new(),
            token_len: 0,
            keys: Keys::NONE,
            crypto_in: CryptoReceive::new(),
            crypto_out: CryptoSend::new(),
            next_number: [0; 3],
            received: ReceivedPackets::new(),
            recovery: Recovery::new(NewReno::new()),
            streams: Streams::new(),
            started: Instant::ZERO,
            active_at: Instant::ZERO,
            sent_since_received: false,
            paced_until: None,
            forged: 0,
            unreadable: 0,
            counters: Counters::NONE,
        }
    }

    /// Starts a handshake with the server of `ctx.tls`, resuming with the ticket there, if any.
    ///
    /// `token` is what an earlier connection's [`super::SessionStore`] received, or empty. If 0-RTT is
    /// configured and the ticket allows it, streams can be opened and written at once.
    ///
    /// # Errors
    /// If the connection is open or the configuration cannot be offered; it is unchanged then, or at rest.
    pub fn connect(
        &mut self,
        config: &Config,
        ctx: &mut Context<'_>,
        token: &[u8],
    ) -> Result<(), ConnectError> {
        if self.state == State::Open {
            return Err(ConnectError::Busy);
        }
        config.check()?;
        self.restart(config, ctx.now);
        // A token that is too long is left out: it only spares a round trip.
        self.set_token(token);

        let mut destination = [0; INITIAL_DESTINATION_LEN];
        ctx.entropy.fill(&mut destination);
        let destination = ConnectionId::new(&destination).ok_or(ConnectError::Configuration("identifier"))?;
        self.ids = HandshakeIds { original: destination, server: None, retry: None };
        self.cids = RemoteCids::new(destination);
        self.keys.long = Some((Space::Initial, LevelKeys::initial(&destination)));
        self.start_tls(ctx).map_err(ConnectError::Tls)?;
        self.state = State::Open;
        self.reach(Phase::Started);
        Ok(())
    }

    /// Everything but the buffers' bytes as it was in the beginning.
    fn restart(&mut self, config: &Config, now: Instant) {
        self.abandon();
        self.phase = Phase::Started;
        self.config = *config;
        self.agreed = Agreed { idle_timeout: config.idle_timeout, ..Agreed::NONE };
        self.early_data = EarlyData::NotOffered;
        self.events = Events::NONE;
        self.pending = Pending::NONE;
        self.path = Path::new();
        self.token_len = 0;
        self.crypto_in.restart(TOKEN_LEN_MAX..flight_start(BLOCKS * stream::BLOCK));
        self.crypto_out.restart();
        self.next_number = [0; 3];
        self.received = ReceivedPackets::new();
        self.recovery.restart(config.initial_rtt);
        self.streams.restart(stream::Limits {
            stream_window: u32::MAX,
            connection_window: (BLOCKS * stream::BLOCK) as u32,
            peer_streams: config.server_streams,
            send_buffer: u32::MAX,
            reserved_blocks: RESERVED_BLOCKS,
        });
        self.started = now;
        self.active_at = now;
        self.sent_since_received = false;
        self.paced_until = None;
        self.forged = 0;
        self.unreadable = 0;
        self.counters = Counters::NONE;
    }

    /// Puts `token` into further Initial packets, unless it is too long.
    fn set_token(&mut self, token: &[u8]) -> bool {
        let fits = token.len() <= TOKEN_LEN_MAX;
        if fits {
            self.streams.memory_mut().as_mut_bytes()[..token.len()].copy_from_slice(token);
            self.token_len = token.len() as u8;
        }
        fits
    }

    fn start_tls(&mut self, ctx: &mut Context<'_>) -> Result<(), tls::Error> {
        let limits = self.streams.limits();
        let mut grease = [0; 4];
        ctx.entropy.fill(&mut grease);
        let parameters = LocalParameters {
            max_idle_timeout_ms: self.config.idle_timeout.as_millis(),
            max_udp_payload_size: self.config.receive_datagram_len,
            initial_max_data: u64::from(limits.connection_window),
            initial_max_stream_data: u64::from(limits.stream_window),
            initial_max_streams_bidi: u64::from(limits.peer_streams),
            max_ack_delay_ms: MAX_ACK_DELAY.as_millis(),
            active_connection_id_limit: REMOTE_CIDS_MAX as u64,
            grease: (self.config.grease == Grease::On).then_some(u32::from_ne_bytes(grease)),
        };
        let mut bytes = [0; LocalParameters::LEN_MAX];
        let mut writer = crate::codec::Writer::new(&mut bytes);
        parameters.encode(&mut writer).expect("LEN_MAX is the longest encoding");

        // Without remembered limits there is nothing 0-RTT data could go by.
        let remembered = ctx.tls.ticket.and_then(|ticket| Limits::decode(ticket.application()));
        let offer = if remembered.is_some() { self.config.early_data } else { tls::EarlyData::Omit };
        let at = flight_start(BLOCKS * stream::BLOCK);
        let mut out = crate::codec::Writer::new(&mut self.streams.memory_mut().as_mut_bytes()[at..]);
        let tls = tls::Handshake::start(ctx.tls, ctx.entropy, Some(writer.written()), offer, &mut out)?;
        let len = out.len();
        self.crypto_out.on_flight(Space::Initial, at, len);
        if let (Some((suite, secret)), Some(limits)) = (tls.early_secret(), remembered) {
            self.keys.early = Some(Direction::derive(suite, secret));
            self.early_data = EarlyData::Offered;
            self.agreed.limits = limits;
            self.streams.set_peer_limits(limits.into());
        }
        self.keys.stage = Stage::Handshake(tls);
        Ok(())
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        if let Some(event) = self.poll_connection_event() {
            return Some(event);
        }
        if let Some(event) = self.streams.poll_event() {
            return Some(streams::event(event));
        }
        self.events.closed.take().map(Event::Closed)
    }

    fn poll_connection_event(&mut self) -> Option<Event> {
        let events = &mut self.events;
        if events.phases != 0 {
            let bit = events.phases.trailing_zeros() as usize;
            events.phases &= events.phases - 1;
            return Some(Event::Handshake(Phase::ALL[bit]));
        }
        // Not from the keys: these may be gone by now.
        if let Some(resumed) = events.connected.take() {
            return Some(Event::Connected { resumed, early_data: self.early_data.outcome() });
        }
        let flags = [
            (&mut events.ticket, Event::TicketStored),
            (&mut events.token, Event::TokenStored),
            (&mut events.path_validated, Event::PathValidated),
            (&mut events.path_failed, Event::PathFailed),
            (&mut events.key_updated, Event::KeyUpdated),
        ];
        flags.into_iter().find_map(|(flag, event)| core::mem::take(flag).then_some(event))
    }

    /// Asks for a key update; it happens with the next packet that the rules permit one for
    /// (RFC 9001 6.1).
    pub fn update_keys(&mut self) {
        self.pending.key_update = self.state == State::Open;
    }

    /// Sends a PING with the next packet that has nothing else to be acknowledged (RFC 9000 10.1.2).
    pub const fn ping(&mut self) {
        self.pending.ping = Some(Ping::Presence);
    }

    /// Whether the connection is open, or opening.
    pub fn is_active(&self) -> bool {
        self.state == State::Open
    }

    /// Whether what is written now goes out as 0-RTT data.
    pub fn is_early(&self) -> bool {
        self.state == State::Open && self.keys.early.is_some() && !self.is_complete()
    }

    /// Probe timeouts in a row since the peer last acknowledged something.
    pub fn consecutive_timeouts(&self) -> u32 {
        u32::from(self.recovery.backoff())
    }

    /// Packets in a row on this local address that might be stateless resets of an identifier this end was never given a
    /// token for.
    ///
    /// Whoever knows the addresses can send such packets: by themselves they mean nothing (RFC 9000 10.3). A server that
    /// lost its keys along with its connections answers each probe with one, from whatever port the probe came.
    pub const fn unreadable_packets(&self) -> u8 {
        self.unreadable
    }

    /// The smoothed RTT of this or the last connection, if there was a sample.
    pub fn known_rtt(&self) -> Option<Duration> {
        let rtt = self.recovery.rtt();
        rtt.first_sample().map(|_| rtt.smoothed())
    }

    /// Figures so far.
    pub fn stats(&self) -> super::Stats {
        self.counters.stats(&self.recovery, &self.path, self.crypto_in.high(), self.streams.highs())
    }

    fn reach(&mut self, phase: Phase) {
        self.phase = self.phase.max(phase);
        self.events.phases |= 1 << phase as u8;
    }

    /// Whether 1-RTT keys exist.
    fn is_complete(&self) -> bool {
        self.phase >= Phase::Complete
    }

    /// Whether the handshake is confirmed: the server is known to have completed it (RFC 9001 4.1.2).
    pub fn is_confirmed(&self) -> bool {
        self.phase >= Phase::Confirmed
    }
}

impl Agreed {
    const NONE: Self = Self {
        idle_timeout: Duration::ZERO,
        ack_delay_exponent: 3,
        migration: Migration::Allowed,
        max_udp_payload_size: u16::MAX,
        limits: Limits::NONE,
    };

    fn new(config: &Config, peer: &PeerParameters) -> Self {
        let idle_timeout = match (config.idle_timeout, peer.max_idle_timeout) {
            (own, Duration::ZERO) => own,
            (Duration::ZERO, peer) => peer,
            (own, peer) => own.min(peer),
        };
        Self {
            idle_timeout,
            ack_delay_exponent: peer.ack_delay_exponent,
            migration: peer.migration,
            max_udp_payload_size: peer.max_udp_payload_size,
            limits: peer.limits,
        }
    }
}

impl Pending {
    const NONE: Self = Self { ping: None, key_update: false };
}

impl Events {
    const NONE: Self = Self {
        phases: 0,
        connected: None,
        ticket: false,
        token: false,
        path_validated: false,
        path_failed: false,
        key_updated: false,
        closed: None,
    };
}

impl EarlyData {
    const fn outcome(self) -> EarlyDataOutcome {
        match self {
            Self::NotOffered | Self::Offered => EarlyDataOutcome::NotOffered,
            Self::Accepted => EarlyDataOutcome::Accepted,
            Self::Rejected => EarlyDataOutcome::Rejected,
        }
    }
}

impl<C: Crypto> Keys<C> {
    const NONE: Self = Self { long: None, early: None, stage: Stage::Idle };

    /// Drops all keys, and with them TLS: each erases itself.
    ///
    /// One by one: in the place of all at once might come whatever the stack held where [`Self::NONE`] leaves bytes
    /// undefined, and these may be keys again.
    fn erase(&mut self) {
        self.long = None;
        self.early = None;
        self.stage = Stage::Idle;
    }

    /// Puts the 1-RTT keys in the place of TLS; the first packet under them has the number `first`. Says whether the
    /// session was resumed.
    #[inline(never)]
    fn complete(
        &mut self,
        suite: tls::CipherSuite,
        client: tls::Secret,
        server: tls::Secret,
        first: u64,
    ) -> bool {
        let mut resumed = false;
        if let Stage::Handshake(tls) = &self.stage
            && let Some(tickets) = tls.tickets()
        {
            resumed = tls.is_resumed();
            self.stage = Stage::Complete(OneRttKeys::derive(suite, client, server, first), tickets);
        }
        self.early = None;
        resumed
    }

    const fn one_rtt(&self) -> Option<&OneRttKeys<C>> {
        match &self.stage {
            Stage::Complete(keys, _) => Some(keys),
            Stage::Idle | Stage::Handshake(_) => None,
        }
    }

    const fn one_rtt_mut(&mut self) -> Option<&mut OneRttKeys<C>> {
        match &mut self.stage {
            Stage::Complete(keys, _) => Some(keys),
            Stage::Idle | Stage::Handshake(_) => None,
        }
    }

    /// Keys of Initial or Handshake packets.
    fn level(&self, space: Space) -> Option<&LevelKeys<C>> {
        self.long.as_ref().filter(|(level, _)| *level == space).map(|(_, keys)| keys)
    }
}

impl From<TransportError> for CloseReason {
    fn from(error: TransportError) -> Self {
        Self::Transport(error)
    }
}

impl From<tls::Error> for CloseReason {
    fn from(error: tls::Error) -> Self {
        Self::Tls(error)
    }
}

impl From<Limits> for stream::PeerLimits {
    fn from(limits: Limits) -> Self {
        Self {
            data: limits.max_data,
            stream_data_local: limits.max_stream_data_bidi_local,
            stream_data_remote: limits.max_stream_data_bidi_remote,
            streams: limits.max_streams_bidi,
        }
    }
}
