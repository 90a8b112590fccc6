//! The MQTT broker on the streams of a simulated server: strict, and to be scripted.
//!
//! It shares no codec with the device: its own is written anew from the standard, so that a misreading of it does not
//! cancel out.
//!
//! QoS 0, 1 and 2 both ways, 3.1.1 and 5.0, retained messages, sessions that outlive connections, and EMQX's streams:
//! the first stream is the control stream; each further one is a data stream with its own packet identifiers and
//! subscriptions, which are gone when it ends. Deliveries respect the client's receive maximum on each stream.
//!
//! A client that breaks the protocol is not punished but told on, in [`Broker::violations`].

mod channel;
mod link;
mod packet;

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use device::mqtt::{Duplicate, Qos, ReasonCode};
use quinn_proto::{Connection, ConnectionHandle, Dir, StreamId, VarInt};

use crate::Clock;
use crate::service::Service;
use channel::{Channel, Limits, Message, Retained};
use link::{ClientLink, Stream};
use packet::{Connect, Packet};

/// How long a DISCONNECT has to arrive before the connection is closed behind it.
const CLOSE_DELAY: Duration = Duration::from_millis(100);

/// How the broker behaves.
#[derive(Clone, Copy, Debug)]
pub struct BrokerOptions {
    /// How many QoS 1 and 2 messages it takes at a time (5.0).
    pub receive_maximum: u16,
    /// The same on every second connection, as of another node of a cluster.
    pub receive_maximum_again: u16,
    /// Topic aliases it takes.
    pub topic_alias_maximum: u16,
    /// QoS 1 and 2 messages it has under way to a client on each stream, whatever more the client takes: EMQX's
    /// `max_inflight`, and all there is in 3.1.1.
    pub in_flight_max: u16,
    /// How long it takes to acknowledge what a client publishes.
    pub acknowledge_after: Duration,
    /// Bytes it reads per stream at a time, and the pause between; `None` reads whatever is there.
    pub reading: Option<(usize, Duration)>,
    /// Streams a client may have, granted only once its handshake is complete.
    pub late_credit: Option<u32>,
    /// What CONNACK says instead of success.
    pub refuse: Option<ReasonCode>,
    /// Whether it hears but never answers.
    pub mute: bool,
    /// How long it thinks over a CONNECT, as one does that asks elsewhere who the client is.
    pub connack_delay: Duration,
}

impl Default for BrokerOptions {
    fn default() -> Self {
        Self {
            receive_maximum: 32,
            receive_maximum_again: 32,
            topic_alias_maximum: 16,
            in_flight_max: 32,
            acknowledge_after: Duration::ZERO,
            reading: None,
            late_credit: None,
            refuse: None,
            mute: false,
            connack_delay: Duration::ZERO,
        }
    }
}

/// A message that a client published, as often as the broker took it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Published {
    /// When.
    pub at: Clock,
    /// On which stream: 0 is the control stream, then in the order of opening.
    pub stream: u64,
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Vec<u8>,
    /// Its QoS.
    pub qos: Qos,
    /// Whether it said that it may be a repetition.
    pub duplicate: Duplicate,
}

/// The broker.
#[derive(Debug, Default)]
pub struct Broker {
    /// How it behaves now.
    pub options: BrokerOptions,
    /// What clients published, in the order it was taken.
    pub published: Vec<Published>,
    /// What clients did against the standard. Once bytes were injected, which clients may answer, answers to nothing are
    /// none of it.
    pub violations: Vec<String>,
    /// Successful CONNECTs.
    pub connects: u64,
    /// What the last CONNECT named as maximum packet size.
    pub maximum_packet_size: Option<u32>,
    /// DISCONNECTs by clients, with their reasons.
    pub disconnects: Vec<ReasonCode>,
    /// How often messages for a client waited until it acknowledged others.
    pub held_back: u64,
    /// How often a client had as many messages in flight as the broker's receive maximum allows.
    pub filled: u64,
    sessions: BTreeMap<String, Session>,
    links: BTreeMap<usize, ClientLink>,
    /// Connections whose session another one has taken over.
    doomed: BTreeSet<usize>,
    retained: Retained,
    kick: Option<ReasonCode>,
    reset: Option<u64>,
    /// Bytes that are to go out as they are, and on which stream of a connection.
    injected: Option<(u64, Vec<u8>)>,
    has_injected: bool,
}

/// What outlives a connection.
#[derive(Debug, Default)]
struct Session {
    control: Channel,
    persistent: bool,
}

impl Broker {
    /// A broker without sessions.
    #[must_use]
    pub fn new(options: BrokerOptions) -> Self {
        Self { options, ..Self::default() }
    }

    /// Publishes a message to everyone who has subscribed. Says how many copies that makes.
    ///
    /// [`crate::Server::wake`] gets it going at once.
    pub fn publish(&mut self, topic: &str, payload: &[u8], qos: Qos) -> usize {
        let (topic, payload) = (topic.to_owned(), payload.to_vec());
        self.distribute(&Message { topic, payload, qos: qos.bits(), retain: false })
    }

    fn distribute(&mut self, message: &Message) -> usize {
        if message.retain {
            // An empty payload takes the retained message away (3.3.1.3).
            self.retained.remove(&message.topic);
            if !message.payload.is_empty() {
                self.retained.insert(message.topic.clone(), message.clone());
            }
        }
        let online = self.online();
        let mut copies = 0;
        for (id, session) in &mut self.sessions {
            copies += usize::from(session.control.offer(message, online.contains(id)));
        }
        for stream in self.links.values_mut().flat_map(|link| link.streams.values_mut()) {
            if let Some(channel) = &mut stream.channel {
                copies += usize::from(channel.offer(message, true));
            }
        }
        copies
    }

    fn online(&self) -> BTreeSet<String> {
        self.links.values().filter_map(|link| link.client_id.clone()).collect()
    }

    /// Sends DISCONNECT to a client and closes; to be followed by `Server::wake`.
    pub fn kick(&mut self, reason: ReasonCode) {
        self.kick = Some(reason);
    }

    /// Resets every data stream of a connection; to be followed by `Server::wake`.
    pub fn reset_data_streams(&mut self, code: u64) {
        self.reset = Some(code);
    }

    /// Sends bytes as they are on the `stream`-th stream of a connection; to be followed by `Server::wake`.
    pub fn inject(&mut self, stream: u64, bytes: &[u8]) {
        self.injected = Some((stream, bytes.to_vec()));
        self.has_injected = true;
    }

    /// Forgets all sessions of clients that are away.
    pub fn forget_sessions(&mut self) {
        let online = self.online();
        self.sessions.retain(|id, _| online.contains(id));
    }

    /// Data streams open now.
    #[must_use]
    pub fn data_streams(&self) -> usize {
        self.links.values().map(|link| link.streams.len().saturating_sub(1)).sum()
    }

    /// Whether a message of this topic would reach anyone, now or when they are back.
    #[must_use]
    pub fn has_subscriber(&self, topic: &str) -> bool {
        let sessions = self.sessions.values().map(|session| &session.control);
        let streams = self.links.values().flat_map(|link| link.streams.values());
        sessions
            .chain(streams.filter_map(|stream| stream.channel.as_ref()))
            .any(|channel| channel.wants(topic))
    }

    /// Messages for clients that are not completely acknowledged.
    #[must_use]
    pub fn undelivered(&self) -> usize {
        let sessions = self.sessions.values().map(|session| session.control.pending());
        let streams = self.links.values().flat_map(|link| link.streams.values());
        sessions.sum::<usize>()
            + streams.filter_map(|stream| stream.channel.as_ref()).map(Channel::pending).sum::<usize>()
    }

    /// What is undelivered, in words.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (id, session) in &self.sessions {
            text += &format!("session {id}: {}; ", session.control.describe());
        }
        for (handle, link) in &self.links {
            for (id, stream) in &link.streams {
                let channel = stream.channel.as_ref().map(Channel::describe).unwrap_or_default();
                text += &format!(
                    "connection {handle} stream {}: {channel}, {} B in, {} B out, ended: {}; ",
                    id.index(),
                    stream.input.len(),
                    stream.output.len(),
                    stream.ended,
                );
            }
        }
        text
    }

    fn read(&mut self, now: Clock, handle: usize, quic: &mut Connection) {
        let Some(link) = self.links.get_mut(&handle) else { return };
        if link.next_read.is_some_and(|at| at > now) {
            return;
        }
        link.next_read = None;
        let (limit, pause) = self.options.reading.unwrap_or((usize::MAX, Duration::ZERO));
        let ids: Vec<StreamId> = link.streams.keys().copied().collect();
        for id in ids {
            let Some(link) = self.links.get_mut(&handle) else { return };
            // Data streams are read only after CONNECT.
            if id.index() > 0 && link.client_id.is_none() {
                continue;
            }
            let Some(stream) = link.streams.get_mut(&id) else { continue };
            if stream.read(id, quic, limit) {
                link.next_read = Some(now + pause);
            }
            if self.options.mute {
                stream.input.clear();
            }
            self.parse(now, handle, id);
        }
    }

    fn parse(&mut self, now: Clock, handle: usize, id: StreamId) {
        loop {
            let Some(link) = self.links.get_mut(&handle) else { return };
            let v5 = link.v5;
            let Some(stream) = link.streams.get_mut(&id) else { return };
            match packet::decode(&stream.input, connect_version(&stream.input).unwrap_or(v5)) {
                Ok(Some((packet, size))) => {
                    stream.input.drain(..size);
                    self.on_packet(now, handle, id, packet);
                }
                Ok(None) => return,
                Err(malformed) => {
                    stream.input.clear();
                    self.violation(format!("stream {}: {}", id.index(), malformed.0));
                    return;
                }
            }
        }
    }

    fn on_packet(&mut self, now: Clock, handle: usize, id: StreamId, packet: Packet) {
        let Some(link) = self.links.get_mut(&handle) else { return };
        match packet {
            Packet::Connect(connect) if id.index() == 0 && link.client_id.is_none() => {
                return self.on_connect(now, handle, id, connect);
            }
            // Who was refused may still say DISCONNECT.
            Packet::Disconnect(reason) if id.index() == 0 => {
                self.disconnects.push(ReasonCode(reason));
                link.closes_at = Some(now);
                return;
            }
            _ if link.client_id.is_none() => {
                return self.violation(format!("{packet:?} before CONNECT"));
            }
            Packet::Connect(_) => return self.violation("a second CONNECT".to_owned()),
            Packet::Pingreq | Packet::Disconnect(_) if id.index() > 0 => {
                return self.violation(format!("{packet:?} on a data stream"));
            }
            _ => {}
        }
        let limits = limits(&self.options, link);
        let Some(stream) = link.streams.get_mut(&id) else { return };
        let channel = match (&mut stream.channel, &link.client_id) {
            (Some(channel), _) => channel,
            (None, Some(client)) => match self.sessions.get_mut(client) {
                Some(session) => &mut session.control,
                None => return,
            },
            (None, None) => return,
        };
        let mut answer = channel.on_packet(limits, &mut stream.inbound, &self.retained, packet);
        self.filled += u64::from(answer.is_full);
        stream.answer(&mut answer, now + self.options.acknowledge_after);
        if let Some((message, dup)) = answer.published {
            self.distribute(&message);
            let Message { topic, payload, qos, .. } = message;
            self.published.push(Published {
                at: now,
                stream: id.index(),
                topic,
                payload,
                qos: Qos::from_bits(qos).expect("decoding found no QoS 3"),
                duplicate: if dup { Duplicate::Yes } else { Duplicate::No },
            });
        }
        let unfounded = answer.unfounded.filter(|_| !self.has_injected);
        if let Some(violation) = answer.violation.or(unfounded) {
            self.violation(format!("stream {}: {violation}", id.index()));
        }
    }

    fn on_connect(&mut self, now: Clock, handle: usize, id: StreamId, connect: Connect) {
        let Some(link) = self.links.get_mut(&handle) else { return };
        link.v5 = connect.v5;
        let stream = link.streams.entry(id).or_default();
        if let Some(reason) = self.options.refuse {
            stream.output.extend(packet::refusal(connect.v5, reason.0));
            return;
        }
        self.connects += 1;
        for (&other, link) in &mut self.links {
            if other != handle && link.client_id.as_ref() == Some(&connect.client_id) {
                link.client_id = None;
                self.doomed.insert(other);
            }
        }
        if connect.clean {
            self.sessions.remove(&connect.client_id);
        }
        let present = self.sessions.contains_key(&connect.client_id);
        let session = self.sessions.entry(connect.client_id.clone()).or_default();
        session.persistent = connect.persistent;
        session.control.reconnect();
        self.maximum_packet_size = connect.maximum_packet_size;
        let Some(link) = self.links.get_mut(&handle) else { return };
        link.receive_maximum = connect.receive_maximum;
        link.client_id = Some(connect.client_id);
        link.answers_at = Some(now + self.options.connack_delay);
        let BrokerOptions { receive_maximum, receive_maximum_again, topic_alias_maximum, .. } = self.options;
        let receive_maximum = if self.connects % 2 == 1 { receive_maximum } else { receive_maximum_again };
        link.promised = receive_maximum;
        if let Some(stream) = link.streams.get_mut(&id) {
            stream.output.extend(packet::connack(connect.v5, present, receive_maximum, topic_alias_maximum));
        }
    }

    fn write(&mut self, now: Clock, handle: usize, quic: &mut Connection) {
        let Some(link) = self.links.get_mut(&handle) else { return };
        if link.answers_at.is_some_and(|at| at > now) {
            return;
        }
        link.answers_at = None;
        let limits = limits(&self.options, link);
        let mut over = Vec::new();
        for (&id, stream) in &mut link.streams {
            stream.acknowledge(now);
            let channel = match (&mut stream.channel, &link.client_id) {
                (Some(channel), _) => Some(channel),
                (None, Some(client)) => self.sessions.get_mut(client).map(|session| &mut session.control),
                (None, None) => None,
            };
            if let Some(channel) = channel {
                self.held_back += u64::from(channel.transmit(limits, &mut stream.output));
            }
            if stream.write(id, quic) {
                over.push(id);
            }
        }
        for id in over {
            link.streams.remove(&id);
        }
    }

    /// Does what the script says to the connection that is polled first.
    fn perform(&mut self, now: Clock, handle: usize, quic: &mut Connection) {
        let Some(link) = self.links.get_mut(&handle) else { return };
        if let Some((number, bytes)) = self.injected.take() {
            let mut streams = link.streams.iter_mut();
            let stream = streams.find(|(id, _)| id.index() == number);
            stream.expect("an open stream").1.output.extend(bytes);
        }
        if let Some(reason) = self.kick.take() {
            link.closes_at = Some(now + CLOSE_DELAY);
            // 3.1.1 has none from the server.
            if let Some((_, control)) = link.streams.iter_mut().find(|(id, _)| id.index() == 0 && link.v5) {
                control.output.extend(packet::disconnect(reason.0));
            }
        }
        if let Some(code) = self.reset.take() {
            let code = VarInt::from_u64(code).expect("a small code");
            link.streams.retain(|&id, _| {
                if id.index() > 0 {
                    let _ = quic.send_stream(id).reset(code);
                    let _ = quic.recv_stream(id).stop(code);
                }
                id.index() == 0
            });
        }
    }

    fn violation(&mut self, what: String) {
        self.violations.push(what);
    }

    fn drop_link(&mut self, handle: usize) {
        self.doomed.remove(&handle);
        let Some(link) = self.links.remove(&handle) else { return };
        if let Some(client) = link.client_id
            && self.sessions.get(&client).is_some_and(|session| !session.persistent)
        {
            self.sessions.remove(&client);
        }
    }
}

impl Service for Broker {
    fn poll(&mut self, now: Clock, connection: ConnectionHandle, quic: &mut Connection) {
        let handle = connection.0;
        if self.doomed.remove(&handle) {
            // As EMQX does on takeover.
            quic.close(now.quinn(), VarInt::from_u32(0), bytes::Bytes::from_static(b"taken over"));
            self.drop_link(handle);
            return;
        }
        if let Some(streams) = self.options.late_credit
            && !quic.is_handshaking()
            && !self.links.contains_key(&handle)
        {
            quic.set_max_concurrent_streams(Dir::Bi, VarInt::from_u32(streams));
        }
        if quic.is_handshaking() && self.options.late_credit.is_some() {
            return;
        }
        let link = self.links.entry(handle).or_default();
        while let Some(id) = quic.streams().accept(Dir::Bi) {
            let channel = (id.index() > 0).then(Channel::default);
            link.streams.insert(id, Stream { channel, ..Stream::default() });
        }
        self.read(now, handle, quic);
        self.perform(now, handle, quic);
        self.write(now, handle, quic);
        if self.links.get(&handle).and_then(|link| link.closes_at).is_some_and(|at| at <= now) {
            quic.close(now.quinn(), VarInt::from_u32(0), bytes::Bytes::new());
            self.drop_link(handle);
        }
    }

    fn on_closed(&mut self, now: Clock, connection: ConnectionHandle, quic: &mut Connection) {
        if !self.doomed.contains(&connection.0) {
            self.read(now, connection.0, quic);
        }
    }

    fn on_lost(&mut self, _: Clock, connection: ConnectionHandle) {
        self.drop_link(connection.0);
    }

    fn poll_timeout(&self) -> Option<Clock> {
        self.links.values().filter_map(ClientLink::due).min()
    }
}

fn limits(options: &BrokerOptions, link: &ClientLink) -> Limits {
    Limits {
        v5: link.v5,
        window: options.in_flight_max.min(link.receive_maximum),
        receive_maximum: link.promised,
        alias_maximum: options.topic_alias_maximum,
    }
}

/// What CONNECT itself says about the version, before the link knows.
fn connect_version(input: &[u8]) -> Option<bool> {
    if input.first()? >> 4 != 1 {
        return None;
    }
    let at = input.windows(4).position(|window| window == b"MQTT")?;
    Some(*input.get(at + 4)? == 5)
}
