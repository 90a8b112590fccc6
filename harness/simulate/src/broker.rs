//! A small MQTT broker on the streams of a simulated server, with EMQX's stream semantics.
//!
//! The first stream of a connection is the control stream; others are data streams with packet identifiers and
//! subscriptions of their own, forgotten with their connection. Sessions outlive connections. Deliveries
//! respect the client's receive maximum.

mod channel;

use std::collections::{BTreeMap, VecDeque};

use device::mqtt::packet::{
    Ack, AckKind, Connack, Connect, Delivery, Disconnect, FixedHeader, Packet, Publish, Suback, Subscribe,
    Unsuback,
};
use device::mqtt::{
    Duplicate, PacketId, Properties, Property, Qos, ReasonCode, Retain, RetainHandling, Version, topic,
};
use quinn_proto::{Connection, ConnectionHandle, Dir, ReadableError, StreamId, VarInt, WriteError};

use crate::Clock;
use crate::service::Service;
use channel::{Channel, Granted, encode};

/// How long a DISCONNECT has to arrive before the connection is closed behind it.
const CLOSE_DELAY: core::time::Duration = core::time::Duration::from_millis(100);

/// How the broker behaves.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    /// What CONNACK announces as receive maximum.
    pub receive_maximum: u16,
    /// What CONNACK announces as topic alias maximum.
    pub topic_alias_maximum: u16,
    /// What CONNACK says instead of success.
    pub refuse: Option<ReasonCode>,
    /// Whether the broker hears but never answers.
    pub mute: bool,
    /// How long it thinks over a CONNECT, as one does that asks elsewhere who the client is.
    pub connack_delay: core::time::Duration,
}

impl Default for BrokerOptions {
    fn default() -> Self {
        Self {
            receive_maximum: 32,
            topic_alias_maximum: 16,
            refuse: None,
            mute: false,
            connack_delay: core::time::Duration::ZERO,
        }
    }
}

/// A message that a client published, as often as the broker took it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Published {
    /// When.
    pub at: Clock,
    /// On the control stream, or on which data stream.
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
    /// What was published, in order of arrival.
    pub published: Vec<Published>,
    /// Successful CONNECTs.
    pub connects: u64,
    /// What the last CONNECT named as maximum packet size.
    pub maximum_packet_size: Option<u32>,
    /// DISCONNECTs by clients, with their reasons.
    pub disconnects: Vec<ReasonCode>,
    connections: BTreeMap<usize, Client>,
    /// Control streams' state of clients that are away.
    sessions: BTreeMap<String, Channel>,
    /// The last retained message of each topic.
    retained: Retained,
    kick: Option<ReasonCode>,
    reset: Option<u64>,
    /// Bytes that are to go out as they are, and on which stream of a connection.
    injected: Option<(u64, Vec<u8>)>,
}

/// Payload and QoS by topic.
type Retained = BTreeMap<String, (Vec<u8>, Qos)>;

/// A connection.
#[derive(Debug)]
struct Client {
    id: String,
    version: Version,
    receive_maximum: u16,
    keeps_session: bool,
    control: Option<StreamId>,
    connected: bool,
    /// When CONNACK goes out, and what follows it, if that is not yet.
    answers_at: Option<Clock>,
    /// When the connection is closed, after a DISCONNECT had time to arrive.
    closes_at: Option<Clock>,
    streams: BTreeMap<StreamId, Stream>,
}

/// A stream's bytes and its channel.
#[derive(Debug, Default)]
struct Stream {
    incoming: Vec<u8>,
    outgoing: VecDeque<u8>,
    aliases: BTreeMap<u16, String>,
    channel: Channel,
}

impl Broker {
    /// Publishes a message to whoever subscribes; to be followed by `Server::wake`.
    pub fn publish(&mut self, topic: &str, payload: &[u8], qos: Qos) {
        self.distribute(topic, payload, qos, Retain::No);
    }

    fn distribute(&mut self, topic: &str, payload: &[u8], qos: Qos, retain: Retain) {
        if retain == Retain::Yes {
            // An empty payload takes the retained message away (3.3.1.3).
            self.retained.remove(topic);
            if !payload.is_empty() {
                self.retained.insert(topic.to_owned(), (payload.to_vec(), qos));
            }
        }
        for session in self.sessions.values_mut() {
            session.offer(topic, payload, qos, retain);
        }
        for client in self.connections.values_mut().filter(|client| client.connected) {
            for stream in client.streams.values_mut() {
                stream.channel.offer(topic, payload, qos, retain);
            }
        }
    }

    /// Sends DISCONNECT to a client and closes; to be followed by `Server::wake`.
    pub fn kick(&mut self, reason: ReasonCode) {
        self.kick = Some(reason);
    }

    /// Resets every data stream; to be followed by `Server::wake`.
    pub fn reset_data_streams(&mut self, code: u64) {
        self.reset = Some(code);
    }

    /// Sends bytes as they are on the `stream`-th stream of a connection; to be followed by `Server::wake`.
    pub fn inject(&mut self, stream: u64, bytes: &[u8]) {
        self.injected = Some((stream, bytes.to_vec()));
    }

    /// Forgets all sessions of clients that are away.
    pub fn forget_sessions(&mut self) {
        self.sessions.clear();
    }

    /// Data streams open now.
    #[must_use]
    pub fn data_streams(&self) -> usize {
        self.connections.values().map(|client| client.streams.len().saturating_sub(1)).sum()
    }

    fn handle(&mut self, now: Clock, handle: usize, id: StreamId, bytes: &[u8], quic: &mut Connection) {
        let version = self.connections[&handle].version;
        let packet = match Packet::decode(bytes, version) {
            Ok(packet) => packet,
            Err(error) => panic!("the client sent {bytes:x?}: {error}"),
        };
        if let Packet::Connect(connect) = packet {
            self.on_connect(now, handle, id, &connect);
            return;
        }
        let Some(client) = self.connections.get_mut(&handle) else { return };
        let is_control = client.control == Some(id);
        let Some(stream) = client.streams.get_mut(&id) else { return };
        match packet {
            Packet::Publish(publish) => {
                if let Some((topic, payload, qos)) =
                    stream.on_publish(now, id, &publish, version, &mut self.published)
                {
                    self.distribute(&topic, &payload, qos, publish.retain);
                }
            }
            Packet::Ack(kind, ack) => stream.on_ack(kind, &ack, version),
            Packet::Subscribe(subscribe) => stream.on_subscribe(&subscribe, version, &self.retained),
            Packet::Unsubscribe(unsubscribe) => {
                let codes: Vec<u8> = unsubscribe
                    .filters
                    .iter()
                    .map(|name| match stream.channel.subscriptions.remove(name) {
                        Some(_) => ReasonCode::SUCCESS.0,
                        None => ReasonCode::NO_SUBSCRIPTION_EXISTED.0,
                    })
                    .collect();
                let unsuback = Unsuback { id: unsubscribe.id, properties: Properties::NONE, codes: &codes };
                stream.send(&Packet::Unsuback(unsuback), version);
            }
            Packet::Pingreq if is_control => stream.send(&Packet::Pingresp, version),
            Packet::Disconnect(disconnect) if is_control => {
                self.disconnects.push(disconnect.reason);
                quic.close(now.quinn(), VarInt::from_u32(0), bytes::Bytes::new());
                self.forget(handle);
            }
            other => panic!("the client sent {other:?} on stream {id}"),
        }
    }

    fn on_connect(&mut self, now: Clock, handle: usize, id: StreamId, connect: &Connect<'_>) {
        if let Some(reason) = self.options.refuse {
            let client = self.connections.get_mut(&handle).expect("just polled");
            client.version = connect.version;
            let connack = Connack { session_present: false, reason, properties: Properties::NONE };
            let version = client.version;
            client.streams.entry(id).or_default().send(&Packet::Connack(connack), version);
            return;
        }
        // Takeover: the older connection of the same client is dropped, its session goes on.
        let older: Vec<usize> = self
            .connections
            .iter()
            .filter(|(key, client)| **key != handle && client.id == connect.client_id)
            .map(|(key, _)| *key)
            .collect();
        for key in older {
            self.forget(key);
        }
        let kept = self.sessions.remove(connect.client_id).filter(|_| !connect.clean_start);
        let session_present = kept.is_some();
        let expiry = connect.properties.find(|property| match property {
            Property::SessionExpiryInterval(seconds) => Some(seconds),
            _ => None,
        });
        let client = self.connections.get_mut(&handle).expect("just polled");
        client.id = connect.client_id.to_owned();
        client.version = connect.version;
        client.control = Some(id);
        client.connected = true;
        client.answers_at = Some(now + self.options.connack_delay);
        client.keeps_session = match connect.version {
            Version::V3_1_1 => !connect.clean_start,
            Version::V5 => expiry.unwrap_or(0) > 0,
        };
        client.receive_maximum = connect
            .properties
            .find(|property| match property {
                Property::ReceiveMaximum(value) => Some(value),
                _ => None,
            })
            .unwrap_or(u16::MAX);
        self.maximum_packet_size = connect.properties.find(|property| match property {
            Property::MaximumPacketSize(value) => Some(value),
            _ => None,
        });
        let stream = client.streams.entry(id).or_default();
        stream.channel = kept.unwrap_or_default();
        let list = [
            Property::ReceiveMaximum(self.options.receive_maximum),
            Property::TopicAliasMaximum(self.options.topic_alias_maximum),
        ];
        let connack =
            Connack { session_present, reason: ReasonCode::SUCCESS, properties: Properties::of(&list) };
        stream.send(&Packet::Connack(connack), connect.version);
        stream.resend(connect.version);
        self.connects += 1;
    }

    /// The connection is over; its session is kept if it may be.
    fn forget(&mut self, handle: usize) {
        let Some(mut client) = self.connections.remove(&handle) else { return };
        let session = client.control.and_then(|id| client.streams.remove(&id));
        if let Some(stream) = session.filter(|_| client.connected && client.keeps_session) {
            self.sessions.insert(client.id, stream.channel);
        }
    }

    /// Reads what came on each stream. Returns whole packets.
    fn read(&mut self, handle: usize, quic: &mut Connection) -> Vec<(StreamId, Vec<u8>)> {
        let mut packets = Vec::new();
        let Some(client) = self.connections.get_mut(&handle) else { return packets };
        let control = client.control;
        for (&id, stream) in &mut client.streams {
            // Data streams are read only after CONNECT succeeded.
            if !client.connected && control.is_some_and(|control| control != id) {
                continue;
            }
            stream.fill(id, quic);
            while let Ok(Some(header)) = FixedHeader::peek(&stream.incoming) {
                if stream.incoming.len() < header.packet_len() {
                    break;
                }
                packets.push((id, stream.incoming.drain(..header.packet_len()).collect()));
            }
        }
        packets
    }

    fn write(&mut self, now: Clock, handle: usize, quic: &mut Connection) {
        let Some(client) = self.connections.get_mut(&handle) else { return };
        if client.answers_at.is_some_and(|at| now < at) {
            return;
        }
        client.answers_at = None;
        for (&id, stream) in &mut client.streams {
            stream.channel.deliver(client.receive_maximum, client.version, &mut stream.outgoing);
            while !stream.outgoing.is_empty() {
                let (front, _) = stream.outgoing.as_slices();
                match quic.send_stream(id).write(front) {
                    Ok(written) => drop(stream.outgoing.drain(..written)),
                    Err(WriteError::Blocked) => break,
                    Err(WriteError::Stopped(_) | WriteError::ClosedStream) => {
                        stream.outgoing.clear();
                        break;
                    }
                }
            }
        }
        if let Some(code) = self.reset.take() {
            let control = client.control;
            let code = VarInt::from_u64(code).expect("a small code");
            client.streams.retain(|&id, _| {
                if Some(id) != control {
                    let _ = quic.send_stream(id).reset(code);
                    let _ = quic.recv_stream(id).stop(code);
                }
                Some(id) == control
            });
        }
        if client.closes_at.is_some_and(|at| now >= at) {
            quic.close(now.quinn(), VarInt::from_u32(1), bytes::Bytes::new());
            self.forget(handle);
        }
    }
}

impl Service for Broker {
    fn poll(&mut self, now: Clock, connection: ConnectionHandle, quic: &mut Connection) {
        let handle = connection.0;
        self.connections.entry(handle).or_insert_with(Client::new);
        while let Some(id) = quic.streams().accept(Dir::Bi) {
            let client = self.connections.get_mut(&handle).expect("inserted");
            client.control.get_or_insert(id);
            client.streams.insert(id, Stream::default());
        }
        loop {
            let packets = self.read(handle, quic);
            if packets.is_empty() || self.options.mute {
                break;
            }
            for (id, bytes) in packets {
                self.handle(now, handle, id, &bytes, quic);
            }
        }
        if let (Some((number, bytes)), Some(client)) =
            (self.injected.take(), self.connections.get_mut(&handle))
        {
            let mut streams = client.streams.iter_mut();
            let stream = streams.find(|(id, _)| VarInt::from(**id).into_inner() >> 2 == number);
            stream.expect("an open stream").1.outgoing.extend(bytes);
        }
        if let (Some(reason), Some(client)) = (self.kick, self.connections.get_mut(&handle)) {
            self.kick = None;
            client.closes_at = Some(now + CLOSE_DELAY);
            let version = client.version;
            if let Some(stream) = client.control.and_then(|id| client.streams.get_mut(&id)) {
                stream.send(&Packet::Disconnect(Disconnect::new(reason)), version);
            }
        }
        self.write(now, handle, quic);
    }

    fn poll_timeout(&self) -> Option<Clock> {
        let timers = self.connections.values().flat_map(|client| [client.answers_at, client.closes_at]);
        timers.flatten().min()
    }

    fn on_closed(&mut self, now: Clock, connection: ConnectionHandle, quic: &mut Connection) {
        for (id, bytes) in self.read(connection.0, quic) {
            self.handle(now, connection.0, id, &bytes, quic);
        }
    }

    fn on_lost(&mut self, _: Clock, connection: ConnectionHandle) {
        self.forget(connection.0);
    }
}

impl Client {
    fn new() -> Self {
        Self {
            id: String::new(),
            version: Version::V5,
            receive_maximum: u16::MAX,
            keeps_session: false,
            control: None,
            connected: false,
            answers_at: None,
            closes_at: None,
            streams: BTreeMap::new(),
        }
    }
}

impl Stream {
    fn fill(&mut self, id: StreamId, quic: &mut Connection) {
        let mut stream = quic.recv_stream(id);
        let mut chunks = match stream.read(true) {
            Ok(chunks) => chunks,
            Err(ReadableError::ClosedStream | ReadableError::IllegalOrderedRead) => return,
        };
        while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
            self.incoming.extend_from_slice(&chunk.bytes);
        }
        let _ = chunks.finalize();
    }

    fn send(&mut self, packet: &Packet<'_>, version: Version) {
        encode(packet, version, &mut self.outgoing);
    }

    /// A PUBLISH: noted, answered, and returned if it is to be passed on.
    fn on_publish(
        &mut self,
        at: Clock,
        id: StreamId,
        publish: &Publish<'_>,
        version: Version,
        published: &mut Vec<Published>,
    ) -> Option<(String, Vec<u8>, Qos)> {
        let topic = match publish.topic_alias() {
            Some(alias) if publish.topic.is_empty() => self.aliases[&alias].clone(),
            Some(alias) => {
                self.aliases.insert(alias, publish.topic.to_owned());
                publish.topic.to_owned()
            }
            None => publish.topic.to_owned(),
        };
        let is_new = match publish.delivery {
            Delivery::AtMostOnce => true,
            Delivery::AtLeastOnce(packet) => {
                self.send(&Packet::Ack(AckKind::Puback, Ack::new(packet, ReasonCode::SUCCESS)), version);
                true
            }
            Delivery::ExactlyOnce(packet) => {
                self.send(&Packet::Ack(AckKind::Pubrec, Ack::new(packet, ReasonCode::SUCCESS)), version);
                self.channel.received.insert(packet.value())
            }
        };
        if !is_new {
            return None;
        }
        let qos = publish.delivery.qos();
        published.push(Published {
            at,
            stream: VarInt::from(id).into_inner() >> 2,
            topic: topic.clone(),
            payload: publish.payload.to_vec(),
            qos,
            duplicate: publish.duplicate,
        });
        Some((topic, publish.payload.to_vec(), qos))
    }

    /// A SUBSCRIBE: answered, and the retained messages it asks for queued (3.3.1.3).
    fn on_subscribe(&mut self, subscribe: &Subscribe<'_>, version: Version, retained: &Retained) {
        let codes: Vec<u8> = subscribe.filters.iter().map(|filter| filter.qos.bits()).collect();
        for filter in subscribe.filters.iter() {
            let granted = Granted { qos: filter.qos, retain_as_published: filter.retain_as_published };
            let before = self.channel.subscriptions.insert(filter.filter.to_owned(), granted);
            let is_wanted = match filter.retain_handling {
                RetainHandling::Send => true,
                RetainHandling::SendIfNew => before.is_none(),
                RetainHandling::DoNotSend => false,
            };
            for (topic, (payload, qos)) in retained.iter().filter(|_| is_wanted) {
                if topic::matches(filter.filter, topic) {
                    self.channel.push(topic, payload, filter.qos.min(*qos), Retain::Yes);
                }
            }
        }
        let suback = Suback { id: subscribe.id, properties: Properties::NONE, codes: &codes };
        self.send(&Packet::Suback(suback), version);
    }

    fn on_ack(&mut self, kind: AckKind, ack: &Ack<'_>, version: Version) {
        let id = ack.id.value();
        let answer = |kind, reason| Packet::Ack(kind, Ack::new(ack.id, reason));
        match kind {
            AckKind::Puback | AckKind::Pubcomp => {
                self.channel.sent.remove(&id);
            }
            AckKind::Pubrec => {
                if let Some(sent) = self.channel.sent.get_mut(&id) {
                    sent.is_released = true;
                }
                self.send(&answer(AckKind::Pubrel, ReasonCode::SUCCESS), version);
            }
            AckKind::Pubrel => {
                let known = self.channel.received.remove(&id);
                let reason =
                    if known { ReasonCode::SUCCESS } else { ReasonCode::PACKET_IDENTIFIER_NOT_FOUND };
                self.send(&answer(AckKind::Pubcomp, reason), version);
            }
        }
    }

    /// What the client had not acknowledged before it reconnected.
    fn resend(&mut self, version: Version) {
        let sent = self.channel.sent.clone();
        for (id, sent) in sent {
            let id = PacketId::new(id).expect("never zero");
            if sent.is_released {
                self.send(&Packet::Ack(AckKind::Pubrel, Ack::new(id, ReasonCode::SUCCESS)), version);
            } else {
                self.send(&Packet::Publish(sent.publish(Some(id), Duplicate::Yes)), version);
            }
        }
    }
}
