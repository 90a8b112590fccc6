//! The MQTT session: the protocol without I/O, over one control stream and, on QUIC, data streams.
//!
//! What must survive a connection is kept in bounded tables: unacknowledged publications, identifiers of
//! QoS 2 messages received, subscriptions. Everything written comes from one of them (or, for QoS 0, is
//! written whole or not at all), so a stream without room delays a packet but never cuts it.
//!
//! ```text
//!   publish, subscribe, unsubscribe                      Notice
//!        |                                                 ^
//!   +----v----+  +---------------+  +----------+   +-------|------+
//!   |  store  |  | subscriptions |  | incoming |<--|   receive    |
//!   +----+----+  +-------+-------+  +----+-----+   +-------^------+
//!        +---------------+---- send -----+                 |
//!                          |                               |
//!                  Streams::write                    Streams::read
//! ```
//!
//! **Data streams** are EMQX's: opened after CONNACK, each with packet identifiers and subscriptions of its own,
//! packet types 3 to 11 only, forgotten by the server with their connection. So their subscriptions are
//! renewed and their unacknowledged publications sent anew each time; exactly-once holds on them for as
//! long as the stream lives.

mod alias;
mod incoming;
mod notice;
mod receive;
mod send;
mod store;
mod subscriptions;
mod types;

pub use notice::{Event, Notice};
pub use types::{
    Message, Options, PacketBuffer, Publication, RX_PACKET_MAX, Replay, RequestError, SLOTS, SessionStats,
    Slot, Start, StreamEnd, Streams, TOPIC_MAX, TX_PACKET_MAX, Token,
};

use crate::mqtt::packet::{Connack, Disconnect, Property};
use crate::mqtt::{PacketId, Qos, ReasonCode, Version};
use crate::time::{Duration, Instant};

/// The client's side of an MQTT session, and its connection's state.
pub struct Session {
    state: State,
    version: Version,
    slots: [SlotState; SLOTS],
    /// The largest packet this connection's streams can deliver.
    packet_max: u16,
    /// Announced by the last CONNECT.
    receive_maximum: u8,
    excess: Excess,
    /// Length of the body that was read into the packet buffer, so far or as a whole.
    rx_len: usize,
    /// Whose packet is being gathered there, if the transport hands packets out in pieces.
    gathering: Option<Slot>,
    /// Whose turn it is to be read first.
    turn: u8,
    limits: Limits,
    store: store::Store,
    incoming: incoming::Incoming,
    subscriptions: subscriptions::Subscriptions,
    aliases_in: alias::Incoming,
    aliases_out: alias::Outgoing,
    /// Whether the server may hold a session of ours.
    has_session: bool,
    /// Whether this connection's CONNECT asked for a new session.
    is_fresh: bool,
    /// How many publications are sent anew because the server forgot the session, to be told.
    republished: Option<u8>,
    keep_alive: Duration,
    answer_timeout: Duration,
    last_sent: Instant,
    /// Until when CONNACK or PINGRESP must come.
    answer_due: Option<Instant>,
    stats: SessionStats,
}

/// Where the connection stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// There is none, or it is over.
    Closed,
    /// CONNECT is written.
    Connecting(Replay),
    /// CONNACK came.
    Open,
}

/// Whether messages came on the control stream that the table of acknowledgements has no room for. A server of 3.1.1
/// cannot be told how many it may have in flight.
///
/// Such a message is neither delivered nor acknowledged, nor is any QoS 1 or 2 message behind it, so that none overtakes
/// another. For this the connection has to end (3.1.1: 4.8), and the server repeats them on the next one; but only once
/// it has what was acknowledged, or it would repeat all of it for ever: the answer to a PINGREQ proves that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Excess {
    None,
    /// PINGREQ is to be written behind the acknowledgements.
    Noted,
    /// The connection ends with PINGRESP.
    Asked,
}

/// One stream.
#[derive(Clone, Copy, Debug)]
struct SlotState {
    is_open: bool,
    /// Whether a data stream is to be opened.
    is_wanted: bool,
    /// How often its stream was closed since something was achieved on it, during this connection.
    closures: u8,
    /// When its data stream was last opened.
    opened_at: Instant,
    /// Whether the server forgot what was in flight here.
    is_forgotten: bool,
    next_id: PacketId,
    frame: receive::Frame,
}

impl SlotState {
    const NEW: Self = Self {
        is_open: false,
        is_wanted: false,
        closures: 0,
        opened_at: Instant::ZERO,
        is_forgotten: false,
        next_id: FIRST_ID,
        frame: receive::Frame::START,
    };

    /// Whether it was closed too often to be opened again.
    const fn is_refused(&self) -> bool {
        self.closures > REOPENED_MAX
    }
}

/// How often in a row a data stream is opened anew during one connection: a server that closes it each time is not
/// asked for ever. A publication that was acknowledged, or a message that was published while it was open, ends a row, and
/// so does [`STEADY_AFTER`].
const REOPENED_MAX: u8 = 8;

/// How long after it was opened the end of a data stream is the first in a row again: a server that closes a quiet one
/// now and then is not burdened by opening it anew.
const STEADY_AFTER: Duration = Duration::from_secs(10);

const FIRST_ID: PacketId = PacketId::new(1).expect("not zero");

/// What the server allows.
#[derive(Clone, Copy, Debug)]
struct Limits {
    receive_maximum: u16,
    maximum_packet_size: u32,
    topic_alias_maximum: u16,
    maximum_qos: Qos,
    retains: bool,
}

impl Limits {
    /// Without a word from the server (3.2.2.3). No alias before CONNACK.
    const DEFAULT: Self = Self {
        receive_maximum: u16::MAX,
        maximum_packet_size: u32::MAX,
        topic_alias_maximum: 0,
        maximum_qos: Qos::ExactlyOnce,
        retains: true,
    };
}

/// CONNECT cannot be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BeginError {
    /// The stream cannot be opened or has no room yet: try again.
    Blocked,
    /// The options make no CONNECT that a server would take: the field that is too long or breaks a rule.
    Options(&'static str),
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl Session {
    /// A session that has never been connected.
    pub const fn new() -> Self {
        Self {
            state: State::Closed,
            version: Version::V5,
            slots: [SlotState::NEW; SLOTS],
            packet_max: RX_PACKET_MAX as u16,
            receive_maximum: 0,
            excess: Excess::None,
            rx_len: 0,
            gathering: None,
            turn: 0,
            limits: Limits::DEFAULT,
            store: store::Store::new(),
            incoming: incoming::Incoming::new(),
            subscriptions: subscriptions::Subscriptions::new(),
            aliases_in: alias::Incoming::new(),
            aliases_out: alias::Outgoing::new(),
            has_session: false,
            is_fresh: false,
            republished: None,
            keep_alive: Duration::ZERO,
            answer_timeout: Duration::ZERO,
            last_sent: Instant::ZERO,
            answer_due: None,
            stats: SessionStats::ZERO,
        }
    }

    /// Opens the control stream of a new connection and writes CONNECT.
    ///
    /// `replay` says whether publications marked as replay-safe follow at once ([`Replay::Safe`], for 0-RTT)
    /// or all wait for CONNACK.
    ///
    /// `rx` serves to put CONNECT together.
    ///
    /// # Errors
    /// [`BeginError`]; nothing is written then.
    pub fn begin(
        &mut self,
        now: Instant,
        options: &Options<'_>,
        replay: Replay,
        streams: &mut dyn Streams,
        rx: &mut PacketBuffer,
    ) -> Result<(), BeginError> {
        if self.state != State::Closed {
            self.end();
        }
        if !self.slots[0].is_open {
            if !streams.open_stream(Slot::CONTROL) {
                return Err(BeginError::Blocked);
            }
            self.slots[0].is_open = true;
            self.slots[0].frame = receive::Frame::START;
        }
        self.version = options.version;
        self.is_fresh = match options.version {
            // In 3.1.1 a clean session is also one that ends with its connection (3.1.2.4).
            Version::V3_1_1 => options.session_expiry_s == 0,
            Version::V5 => {
                options.session_expiry_s == 0 || (!self.has_session && options.start == Start::Fresh)
            }
        };
        self.receive_maximum = incoming::receive_maximum(streams.count());
        self.packet_max = streams.packet_max().min(RX_PACKET_MAX) as u16;
        self.write_connect(options, streams, rx)?;
        self.limits = Limits::DEFAULT;
        self.keep_alive = Duration::from_secs(options.keep_alive_s.into());
        self.answer_timeout = options.answer_timeout;
        self.last_sent = now;
        self.answer_due = Some(now + options.answer_timeout);
        self.state = State::Connecting(replay);
        Ok(())
    }

    /// The connection is gone. What the session must remember is kept for the next one.
    pub fn end(&mut self) {
        self.state = State::Closed;
        self.answer_due = None;
        self.excess = Excess::None;
        self.gathering = None;
        self.republished = None;
        self.aliases_out.clear();
        self.incoming.on_connection_lost();
        for slot in Slot::all() {
            self.forget_stream(slot);
            self.slots[slot.index()].closures = 0;
        }
    }

    /// Writes DISCONNECT, if CONNECT was written and there is room; the connection is then to be closed.
    pub fn disconnect(&mut self, reason: ReasonCode, streams: &mut dyn Streams) {
        if self.state == State::Closed {
            return;
        }
        let mut bytes = [0; 4];
        let mut w = crate::codec::Writer::new(&mut bytes);
        if Disconnect::new(reason).encode(self.version, &mut w).is_ok()
            && self.slots[0].is_open
            && streams.writable(Slot::CONTROL) >= w.len()
        {
            streams.write(Slot::CONTROL, w.written(), &[]);
        }
        self.state = State::Closed;
        self.answer_due = None;
    }

    /// Asks for the data stream of `slot`, so that QoS 0 publications find it open. One that the server
    /// [refused](RequestError::StreamRefused) is tried again. Nothing happens beyond the streams there are.
    pub const fn open_stream(&mut self, slot: Slot) {
        let state = &mut self.slots[slot.index()];
        state.is_wanted = true;
        if state.is_refused() {
            state.closures = 0;
        }
    }

    /// Whether CONNACK came.
    pub const fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// What was counted.
    pub const fn stats(&self) -> SessionStats {
        self.stats
    }

    /// Publications in the store: not yet acknowledged, or not yet sent.
    pub fn unacknowledged(&self) -> usize {
        self.store.len()
    }

    /// When [`Session::poll`] wants to be called even if nothing arrives.
    pub fn next_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Closed => None,
            State::Connecting(_) => self.answer_due,
            State::Open if self.keep_alive.is_zero() => self.answer_due,
            State::Open => self.answer_due.or(Some(self.last_sent + self.keep_alive)),
        }
    }

    /// Reads and writes until something is to be told, or nothing more can be done.
    ///
    /// Packets are read into `rx`. What is in it matters to [`Session::event`], and to the next call if the streams do
    /// not [buffer whole packets](Streams::buffers_whole_packets).
    pub fn poll(&mut self, now: Instant, streams: &mut dyn Streams, rx: &mut PacketBuffer) -> Option<Notice> {
        if self.state == State::Closed {
            return None;
        }
        if self.answer_due.is_some_and(|due| now >= due) {
            return Some(self.on_answer_overdue(streams));
        }
        loop {
            if let Some(notice) = self.take_forgotten() {
                return Some(notice);
            }
            if let Some(notice) = self.send(now, streams) {
                return Some(notice);
            }
            match self.receive(streams, rx) {
                receive::Step::Notice(notice) => return Some(notice),
                receive::Step::Packet => {}
                receive::Step::Idle => return None,
            }
        }
    }

    fn on_answer_overdue(&mut self, streams: &mut dyn Streams) -> Notice {
        match self.state {
            State::Open => {
                self.disconnect(ReasonCode::KEEP_ALIVE_TIMEOUT, streams);
                Notice::KeepAliveTimeout
            }
            _ => {
                self.state = State::Closed;
                Notice::ConnackTimeout
            }
        }
    }

    /// Tells what became of publications that the server forgot.
    fn take_forgotten(&mut self) -> Option<Notice> {
        for slot in Slot::all() {
            if self.slots[slot.index()].is_forgotten {
                // PUBREC had come: the message arrived, only the handshake about its identifier is moot.
                if let Some(token) = self.store.take_released(slot) {
                    self.stats.publishes_acknowledged += 1;
                    return Some(Notice::Acknowledged { token, reason: ReasonCode::SUCCESS });
                }
                self.slots[slot.index()].is_forgotten = false;
            }
        }
        let republished = usize::from(self.republished.take()?);
        Some(Notice::SessionLost { republished })
    }

    /// Everything that belonged to the stream of `slot`.
    fn forget_stream(&mut self, slot: Slot) {
        let state = &mut self.slots[slot.index()];
        state.is_open = false;
        state.closures = state.closures.saturating_add(1);
        state.frame = receive::Frame::START;
        if self.gathering == Some(slot) {
            self.gathering = None;
        }
        self.aliases_in.clear(slot);
        self.store.on_stream_lost(slot);
        self.subscriptions.on_stream_lost(slot);
        if slot != Slot::CONTROL {
            self.on_session_lost(slot);
        }
    }

    /// The server knows nothing about `slot` any more. Returns how many publications are sent anew.
    fn on_session_lost(&mut self, slot: Slot) -> usize {
        self.incoming.on_session_lost(slot);
        while self.subscriptions.has_granted(slot) {
            let token = self.allocate(slot);
            self.subscriptions.renew(token);
        }
        self.slots[slot.index()].is_forgotten = true;
        self.store.on_session_lost(slot)
    }

    fn on_connack(&mut self, answer: &Answer) -> Notice {
        self.answer_due = None;
        if answer.reason.is_error() {
            self.state = State::Closed;
            return Notice::Refused(answer.reason);
        }
        self.state = State::Open;
        self.limits = answer.limits;
        self.keep_alive = answer.keep_alive.unwrap_or(self.keep_alive);
        if !answer.session_present {
            let republished = self.on_session_lost(Slot::CONTROL);
            if self.has_session {
                self.republished = Some(republished as u8);
            }
        }
        self.has_session = answer.keeps_session;
        Notice::Connected { session_present: answer.session_present }
    }

    /// A packet identifier that is free on the stream of `slot`.
    ///
    /// The tables hold fewer requests than there are identifiers, so the search ends.
    fn allocate(&mut self, slot: Slot) -> Token {
        loop {
            let id = self.slots[slot.index()].next_id;
            self.slots[slot.index()].next_id = PacketId::new(id.value().wrapping_add(1)).unwrap_or(FIRST_ID);
            let token = Token { slot, id };
            if !self.store.contains(token) && !self.subscriptions.contains(token) {
                return token;
            }
        }
    }
}

/// What CONNACK said, without a borrow.
#[derive(Clone, Copy, Debug)]
struct Answer {
    reason: ReasonCode,
    session_present: bool,
    limits: Limits,
    keep_alive: Option<Duration>,
    keeps_session: bool,
}

impl Answer {
    fn new(connack: &Connack<'_>) -> Self {
        let mut answer = Self {
            reason: connack.reason,
            session_present: connack.session_present,
            limits: Limits::DEFAULT,
            keep_alive: None,
            keeps_session: true,
        };
        let limits = &mut answer.limits;
        for property in connack.properties.iter() {
            match property {
                Property::ReceiveMaximum(value) => limits.receive_maximum = value,
                Property::MaximumPacketSize(value) => limits.maximum_packet_size = value,
                Property::TopicAliasMaximum(value) => limits.topic_alias_maximum = value,
                Property::MaximumQos(0) => limits.maximum_qos = Qos::AtMostOnce,
                Property::MaximumQos(_) => limits.maximum_qos = Qos::AtLeastOnce,
                Property::RetainAvailable(value) => limits.retains = value != 0,
                Property::ServerKeepAlive(value) => {
                    answer.keep_alive = Some(Duration::from_secs(value.into()));
                }
                Property::SessionExpiryInterval(0) => answer.keeps_session = false,
                _ => {}
            }
        }
        answer
    }
}

#[cfg(test)]
mod tests;
