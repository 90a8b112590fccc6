//! The broker of random worlds: strict where [`crate::Broker`] can be scripted.
//!
//! It shares no code with the device: its codec is written anew from the standard, so that a misreading of it does
//! not cancel out.
//!
//! QoS 0, 1 and 2 both ways, 3.1.1 and 5.0, sessions that outlive connections, and EMQX's streams: the first
//! stream is the control stream; each further one is a data stream with its own packet identifiers and
//! subscriptions, which are gone when it ends.
//!
//! Breaking the protocol is not tolerated but recorded, in [`Broker::violations`].

mod channel;
pub mod packet;

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use quinn_proto::{
    Connection, ConnectionHandle, Dir, ReadError, ReadableError, StreamId, VarInt, WriteError,
};

use crate::Clock;
use crate::service::Service;
use channel::Channel;
pub use channel::Message;
use packet::{Connect, Packet};

/// How the broker behaves.
#[derive(Clone, Copy, Debug)]
pub struct BrokerOptions {
    /// How many QoS 1 and 2 messages it takes at a time per connection (5.0).
    pub receive_maximum: u16,
    /// Topic aliases it takes.
    pub topic_alias_maximum: u16,
    /// Bytes it reads per stream at a time, and the pause between; `None` reads whatever is there.
    pub reading: Option<(usize, Duration)>,
    /// Streams a client may have, granted only once its handshake is complete.
    pub late_credit: Option<u32>,
}

impl Default for BrokerOptions {
    fn default() -> Self {
        Self { receive_maximum: 32, topic_alias_maximum: 8, reading: None, late_credit: None }
    }
}

/// A message a client published.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Received {
    /// When.
    pub at: Clock,
    /// On which stream: 0 is the control stream, then in the order of opening.
    pub stream: u64,
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Vec<u8>,
    /// Its QoS.
    pub qos: u8,
}

/// The broker.
#[derive(Debug, Default)]
pub struct Broker {
    options: BrokerOptions,
    sessions: BTreeMap<String, Session>,
    links: BTreeMap<usize, ClientLink>,
    /// Connections whose session another one has taken over.
    doomed: BTreeSet<usize>,
    /// What clients published, in the order it was taken.
    pub received: Vec<Received>,
    /// What clients did against the standard.
    pub violations: Vec<String>,
    /// CONNECTs so far.
    pub connects: u64,
    /// Packets that were answered by CONNACK with a continued session.
    pub continued: u64,
}

/// What outlives a connection.
#[derive(Debug, Default)]
struct Session {
    control: Channel,
    persistent: bool,
}

/// A connection and its streams.
#[derive(Debug, Default)]
struct ClientLink {
    client_id: Option<String>,
    v5: bool,
    /// For each stream by itself, as EMQX counts.
    receive_maximum: u16,
    streams: BTreeMap<StreamId, Stream>,
    /// When reading goes on, if the last time left something.
    next_read: Option<Clock>,
    closing: bool,
}

#[derive(Debug, Default)]
struct Stream {
    /// None on the control stream: that channel is the session's.
    channel: Option<Channel>,
    input: Vec<u8>,
    output: Vec<u8>,
    aliases: BTreeMap<u16, String>,
    ended: bool,
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
    pub fn publish(&mut self, topic: &str, payload: &[u8], qos: u8) -> usize {
        let message = Message { topic: topic.to_owned(), payload: payload.to_vec(), qos };
        let online: BTreeSet<&String> =
            self.links.values().filter_map(|link| link.client_id.as_ref()).collect();
        let mut copies = 0;
        for (id, session) in &mut self.sessions {
            copies += usize::from(session.control.offer(&message, online.contains(id)));
        }
        for stream in self.links.values_mut().flat_map(|link| link.streams.values_mut()) {
            if let Some(channel) = &mut stream.channel {
                copies += usize::from(channel.offer(&message, true));
            }
        }
        copies
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
                return self.on_connect(handle, id, connect);
            }
            _ if link.client_id.is_none() => {
                return self.violation(format!("{packet:?} before CONNECT"));
            }
            Packet::Connect(_) => return self.violation("a second CONNECT".to_owned()),
            Packet::Pingreq | Packet::Disconnect if id.index() > 0 => {
                return self.violation(format!("{packet:?} on a data stream"));
            }
            Packet::Disconnect => {
                link.closing = true;
                return;
            }
            _ => {}
        }
        let v5 = link.v5;
        let Some(stream) = link.streams.get_mut(&id) else { return };
        let channel = match (&mut stream.channel, &link.client_id) {
            (Some(channel), _) => channel,
            (None, Some(client)) => match self.sessions.get_mut(client) {
                Some(session) => &mut session.control,
                None => return,
            },
            (None, None) => return,
        };
        let answer = channel.on_packet(v5, &mut stream.aliases, packet);
        stream.output.extend(answer.bytes);
        if let Some(publish) = answer.published {
            let Message { topic, payload, qos } = publish;
            self.received.push(Received { at: now, stream: id.index(), topic, payload, qos });
        }
        if let Some(violation) = answer.violation {
            self.violation(format!("stream {}: {violation}", id.index()));
        }
    }

    fn on_connect(&mut self, handle: usize, id: StreamId, connect: Connect) {
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
        self.continued += u64::from(present);
        let session = self.sessions.entry(connect.client_id.clone()).or_default();
        session.persistent = connect.persistent;
        session.control.reconnect();
        let Some(link) = self.links.get_mut(&handle) else { return };
        link.v5 = connect.v5;
        link.receive_maximum = connect.receive_maximum;
        link.client_id = Some(connect.client_id);
        let BrokerOptions { receive_maximum, topic_alias_maximum, .. } = self.options;
        if let Some(stream) = link.streams.get_mut(&id) {
            stream.output.extend(packet::connack(connect.v5, present, receive_maximum, topic_alias_maximum));
        }
    }

    fn write(&mut self, handle: usize, quic: &mut Connection) {
        let Some(link) = self.links.get_mut(&handle) else { return };
        let mut over = Vec::new();
        for (&id, stream) in &mut link.streams {
            let channel = match (&mut stream.channel, &link.client_id) {
                (Some(channel), _) => Some(channel),
                (None, Some(client)) => self.sessions.get_mut(client).map(|session| &mut session.control),
                (None, None) => None,
            };
            if let Some(channel) = channel {
                channel.transmit(link.v5, link.receive_maximum, &mut stream.output);
            }
            if stream.write(id, quic) {
                over.push(id);
            }
        }
        for id in over {
            link.streams.remove(&id);
        }
    }

    fn violation(&mut self, what: String) {
        self.violations.push(what);
    }

    fn drop_link(&mut self, handle: usize) {
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
            // EMQX closes with application code 0 on takeover, after DISCONNECT 0x8e.
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
        self.write(handle, quic);
    }

    fn on_lost(&mut self, _: Clock, connection: ConnectionHandle) {
        self.doomed.remove(&connection.0);
        self.drop_link(connection.0);
    }

    fn poll_timeout(&self) -> Option<Clock> {
        self.links.values().filter_map(|link| link.next_read).min()
    }
}

impl Stream {
    /// Reads up to `limit` bytes. Says whether the limit was met, so that there may be more.
    fn read(&mut self, id: StreamId, quic: &mut Connection, limit: usize) -> bool {
        let mut stream = quic.recv_stream(id);
        let mut chunks = match stream.read(true) {
            Ok(chunks) => chunks,
            Err(ReadableError::ClosedStream | ReadableError::IllegalOrderedRead) => return false,
        };
        let mut left = limit;
        while left > 0 {
            match chunks.next(left) {
                Ok(Some(chunk)) => {
                    left -= chunk.bytes.len();
                    self.input.extend_from_slice(&chunk.bytes);
                }
                Ok(None) | Err(ReadError::Reset(_)) => {
                    self.ended = true;
                    break;
                }
                Err(ReadError::Blocked) => break,
            }
        }
        let _ = chunks.finalize();
        left == 0
    }

    /// Writes what can be written. Says whether the stream is over.
    fn write(&mut self, id: StreamId, quic: &mut Connection) -> bool {
        while !self.output.is_empty() {
            match quic.send_stream(id).write(&self.output) {
                Ok(written) => drop(self.output.drain(..written)),
                Err(WriteError::Blocked) => return false,
                Err(WriteError::Stopped(_) | WriteError::ClosedStream) => return true,
            }
        }
        if self.ended {
            let _ = quic.send_stream(id).finish();
        }
        self.ended
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
