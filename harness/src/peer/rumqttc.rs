//! rumqttc as the client: the usual Rust client over TLS and TCP, to compare the board with.
//!
//! It reconnects when polled again and keeps what was not acknowledged. What it does not tell is the phases of
//! TCP; those of TLS come from its configuration, which is ours.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnectProperties, Filter, LastWill, Packet, PubAckReason, PubRecReason, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, StateError, mqttbytes};
use rumqttc::{Outgoing, TlsConfiguration, Transport as RumqttcTransport};
use tokio::sync::{mpsc, oneshot};

use super::client::{ClientEvent, ClientOptions, Command};
use super::connector::{Attempt, ConnectError, Connector, received_alert};
use super::reporter::Reporter;
use super::session::Tagged;
use crate::measure::Transport;
use crate::measure::record::{ConnectCause, Phase};
use crate::wire::{Properties, Publish, Qos, Subscription, Version, property, reason};

/// Requests handed to rumqttc ahead of its reading them.
const REQUESTS: usize = 10;
/// The shortest keep alive rumqttc takes.
const KEEP_ALIVE_MIN: Duration = Duration::from_secs(5);
/// Largest packet taken in, as brokers have it by default.
const PACKET_SIZE_MAX: u32 = 1 << 20;

/// Translates settings.
pub(super) fn settings(connector: &Connector, options: &ClientOptions) -> Result<MqttOptions, ConnectError> {
    let refused = |what: &str| Err(ConnectError::Settings(format!("rumqttc is not used for {what}")));
    let connect = &options.connect;
    if connect.version != Version::V5 {
        return refused("MQTT 3.1.1");
    }
    let target = connector.target();
    let transport = match (target.transport, connector.tls()) {
        (Transport::Tcp, _) => RumqttcTransport::Tcp,
        (Transport::Tls, Some(tls)) => RumqttcTransport::Tls(TlsConfiguration::Rustls(Arc::clone(tls))),
        _ => return refused("QUIC"),
    };
    let keep_alive = match connect.keep_alive_s {
        0 => Duration::from_secs(u64::from(u16::MAX)),
        s => Duration::from_secs(u64::from(s)).max(KEEP_ALIVE_MIN),
    };
    let mut settings =
        MqttOptions::new(&connect.client_id, target.address.ip().to_string(), target.address.port());
    let properties = ConnectProperties {
        session_expiry_interval: connect.properties.u32(property::SESSION_EXPIRY_INTERVAL),
        receive_maximum: connect.properties.u16(property::RECEIVE_MAXIMUM),
        max_packet_size: Some(PACKET_SIZE_MAX),
        ..ConnectProperties::new()
    };
    settings
        .set_transport(transport)
        .set_keep_alive(keep_alive)
        .set_clean_start(connect.clean_start)
        .set_connect_properties(properties)
        .set_connection_timeout(options.connect_limit.as_secs().max(1));
    if let Some(user_name) = &connect.user_name {
        let password = connect.password.as_deref().unwrap_or_default();
        settings.set_credentials(user_name, String::from_utf8_lossy(password));
    }
    if let Some(will) = &connect.will {
        let will = LastWill::new(&will.topic, will.payload.clone(), qos(will.qos), will.retain, None);
        settings.set_last_will(will);
    }
    Ok(settings)
}

/// Runs rumqttc to its end.
pub(super) async fn run(
    settings: MqttOptions,
    connector: Arc<Connector>,
    reporter: Reporter,
    mut commands: mpsc::UnboundedReceiver<Command>,
) {
    let (client, mut event_loop) = AsyncClient::new(settings, REQUESTS);
    let mut actor = Actor {
        connector,
        reporter,
        client,
        backlog: VecDeque::new(),
        handed_over: VecDeque::new(),
        forgettable: 0,
        in_flight: HashMap::new(),
        requests: VecDeque::new(),
        replies: VecDeque::new(),
        subscriptions: Vec::new(),
        connected: false,
        attempt: None,
        cause: ConnectCause::First,
        failures: 0,
        leaving: false,
        said_goodbye: false,
    };
    loop {
        actor.begin_attempt();
        actor.hand_over();
        let polled = {
            // Not to be dropped half way: connecting would start over.
            let mut poll = std::pin::pin!(event_loop.poll());
            loop {
                tokio::select! {
                    polled = &mut poll => break polled,
                    command = commands.recv(), if !actor.leaving => {
                        match command {
                            Some(Command::Reconnect) => break Err(ConnectionError::RequestsDone),
                            Some(command) => actor.on_command(command),
                            None => actor.leaving = true,
                        }
                        actor.hand_over();
                    }
                }
            }
        };
        match polled {
            Ok(event) => {
                if actor.on_event(event) {
                    return;
                }
                event_loop.options.set_clean_start(false);
            }
            Err(error) => {
                if actor.leaving || !actor.on_loss(&error, &mut event_loop).await {
                    return;
                }
            }
        }
    }
}

struct Actor {
    connector: Arc<Connector>,
    reporter: Reporter,
    client: AsyncClient,
    /// Messages rumqttc has no room for yet.
    backlog: VecDeque<Tagged>,
    /// Messages rumqttc has, but has not announced as sent.
    handed_over: VecDeque<Tagged>,
    /// How many of those it will drop if the broker lost the session.
    forgettable: usize,
    /// Messages sent and not acknowledged, by packet identifier.
    in_flight: HashMap<u16, Tagged>,
    requests: VecDeque<(Ask, Reply)>,
    /// Who waits for an answer, in the order of the requests rumqttc has.
    replies: VecDeque<Reply>,
    subscriptions: Vec<Subscription>,
    connected: bool,
    attempt: Option<(Attempt, u64)>,
    cause: ConnectCause,
    failures: u32,
    leaving: bool,
    said_goodbye: bool,
}

type Reply = Option<oneshot::Sender<Vec<u8>>>;

enum Ask {
    Subscribe(Vec<Subscription>),
    Unsubscribe(String),
}

impl Actor {
    /// Polling rumqttc without a connection opens one.
    fn begin_attempt(&mut self) {
        if self.connected || self.attempt.is_some() {
            return;
        }
        self.connector.phases().clear();
        let clock = self.reporter.clock;
        let mut attempt = Attempt::new(clock, self.connector.target().transport);
        attempt.mark(Phase::FirstPacket);
        self.attempt = Some((attempt, clock.now_us()));
    }

    fn end_attempt(&mut self, error: Option<&ConnectError>) {
        let Some((mut attempt, started_us)) = self.attempt.take() else { return };
        attempt.take_phases(self.connector.phases());
        if self.connector.target().transport == Transport::Tls {
            attempt.handshake = self.connector.phases().handshake();
        }
        if error.is_none() {
            attempt.mark(Phase::Connack);
        }
        self.reporter.attempted(self.cause, started_us, attempt, None, error);
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Publish(message) => self.backlog.push_back(message),
            Command::Subscribe(wanted, reply) => {
                self.subscriptions.extend(wanted.iter().cloned());
                self.requests.push_back((Ask::Subscribe(wanted), Some(reply)));
            }
            Command::Unsubscribe(filters, reply) => {
                self.subscriptions.retain(|known| !filters.contains(&known.filter));
                // rumqttc asks for one at a time; the last answer stands for all.
                let mut reply = Some(reply);
                for (left, filter) in filters.into_iter().enumerate().rev() {
                    let reply = if left == 0 { reply.take() } else { None };
                    self.requests.push_back((Ask::Unsubscribe(filter), reply));
                }
            }
            Command::Reconnect => {}
            Command::Disconnect => self.leaving = true,
        }
    }

    /// Hands over as much as rumqttc has room for; its queue is full otherwise, and events will follow.
    fn hand_over(&mut self) {
        while let Some((ask, _)) = self.requests.front() {
            let taken = match ask {
                Ask::Subscribe(wanted) => self.client.try_subscribe_many(
                    wanted.iter().map(|one| Filter::new(one.filter.clone(), qos(one.qos))),
                ),
                Ask::Unsubscribe(filter) => self.client.try_unsubscribe(filter),
            };
            if taken.is_err() {
                return;
            }
            let (_, reply) = self.requests.pop_front().expect("just seen");
            self.replies.push_back(reply);
        }
        while let Some(message) = self.backlog.front() {
            let publish = &message.publish;
            let payload = publish.payload.clone();
            if self.client.try_publish(&publish.topic, qos(publish.qos), publish.retain, payload).is_err() {
                return;
            }
            let message = self.backlog.pop_front().expect("just seen");
            self.handed_over.push_back(message);
        }
        if self.leaving && !self.said_goodbye {
            self.said_goodbye = self.client.try_disconnect().is_ok();
        }
    }

    /// Takes in an event; says whether it is the last.
    fn on_event(&mut self, event: Event) -> bool {
        let at = Instant::now();
        match event {
            Event::Incoming(packet) => self.on_packet(packet, at),
            Event::Outgoing(Outgoing::Publish(packet_id)) => self.on_sent(packet_id),
            Event::Outgoing(Outgoing::Disconnect) => return true,
            Event::Outgoing(_) => {}
        }
        false
    }

    fn on_packet(&mut self, packet: Packet, at: Instant) {
        match packet {
            Packet::ConnAck(connack) => {
                self.end_attempt(None);
                self.connected = true;
                self.failures = 0;
                if !connack.session_present && self.cause != ConnectCause::First {
                    // rumqttc forgets what it had, and with it what was not sent yet.
                    self.handed_over.drain(..self.forgettable);
                    self.in_flight.clear();
                    self.replies.clear();
                    if !self.subscriptions.is_empty() {
                        self.requests.push_back((Ask::Subscribe(self.subscriptions.clone()), None));
                    }
                }
                self.cause = ConnectCause::Recovery;
                self.reporter.connected(connack.session_present);
            }
            Packet::Publish(publish) => {
                let publish = Publish {
                    dup: publish.dup,
                    qos: Qos::from_bits(publish.qos as u8).unwrap_or_default(),
                    retain: publish.retain,
                    topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                    packet_id: publish.pkid,
                    properties: Properties::default(),
                    payload: publish.payload.to_vec(),
                };
                // Nobody may listen any more.
                let _ = self.reporter.events.send(ClientEvent::Message { publish, at });
            }
            Packet::PubAck(ack) => {
                let refused =
                    !matches!(ack.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers);
                self.settle(ack.pkid, refused);
            }
            Packet::PubRec(ack)
                if !matches!(ack.reason, PubRecReason::Success | PubRecReason::NoMatchingSubscribers) =>
            {
                self.settle(ack.pkid, true);
            }
            Packet::PubComp(ack) => self.settle(ack.pkid, false),
            Packet::SubAck(ack) => self.reply(ack.return_codes.iter().map(subscribe_code).collect()),
            Packet::UnsubAck(ack) => self.reply(vec![reason::SUCCESS; ack.reasons.len()]),
            _ => {}
        }
    }

    /// rumqttc wrote a PUBLISH: the next one handed over, or one it repeats.
    fn on_sent(&mut self, packet_id: u16) {
        if self.in_flight.contains_key(&packet_id) {
            return;
        }
        let Some(message) = self.handed_over.pop_front() else { return };
        message.log.sent(message.sequence);
        if packet_id == 0 {
            message.log.settle_one();
        } else {
            self.in_flight.insert(packet_id, message);
        }
    }

    fn settle(&mut self, packet_id: u16, refused: bool) {
        if let Some(message) = self.in_flight.remove(&packet_id) {
            // rumqttc keeps the code to itself; unspecified error stands for any.
            let code = if refused { 0x80 } else { reason::SUCCESS };
            message.log.acked(message.sequence, code);
        }
    }

    fn reply(&mut self, codes: Vec<u8>) {
        if let Some(Some(reply)) = self.replies.pop_front() {
            // Whoever asked may not wait any more.
            let _ = reply.send(codes);
        }
    }

    /// The connection is lost, or an attempt failed. Says whether to poll again.
    async fn on_loss(&mut self, error: &ConnectionError, event_loop: &mut EventLoop) -> bool {
        event_loop.clean();
        self.forgettable = self.handed_over.len();
        if self.connected {
            self.connected = false;
            if matches!(error, ConnectionError::RequestsDone) {
                self.cause = ConnectCause::Step;
                return true;
            }
            self.reporter.disconnected(error.to_string());
        } else {
            self.failures += 1;
            let error = self.explain(error);
            self.end_attempt(Some(&error));
            self.reporter.failed(error);
            self.cause = ConnectCause::Recovery;
        }
        self.reporter.back_off(self.failures).await
    }

    fn explain(&self, error: &ConnectionError) -> ConnectError {
        if let Some(reason) = self.connector.phases().refusal() {
            return ConnectError::Certificate(reason);
        }
        match error {
            ConnectionError::Timeout(_) => ConnectError::TimedOut(self.reporter.options.connect_limit),
            ConnectionError::Tls(reason) => {
                ConnectError::Handshake { reason: reason.to_string(), alert: alert_within(error) }
            }
            // TLS 1.3 lets a server refuse a client after the client is done with its handshake.
            other if alert_within(other).is_some() => {
                ConnectError::Closed { reason: other.to_string(), alert: alert_within(other) }
            }
            ConnectionError::Io(error) if error.kind() != io::ErrorKind::ConnectionAborted => {
                ConnectError::Network(error.to_string())
            }
            other => ConnectError::closed(other),
        }
    }
}

/// The alert that the broker sent, wherever rumqttc wraps what TLS said.
fn alert_within(error: &ConnectionError) -> Option<u8> {
    let error = match error {
        ConnectionError::Tls(rumqttc::TlsError::Io(error))
        | ConnectionError::Io(error)
        | ConnectionError::MqttState(
            StateError::Io(error) | StateError::Deserialization(mqttbytes::Error::Io(error)),
        ) => error,
        _ => return None,
    };
    received_alert(error)
}

fn qos(qos: Qos) -> QoS {
    match qos {
        Qos::AtMostOnce => QoS::AtMostOnce,
        Qos::AtLeastOnce => QoS::AtLeastOnce,
        Qos::ExactlyOnce => QoS::ExactlyOnce,
    }
}

fn subscribe_code(code: &SubscribeReasonCode) -> u8 {
    match code {
        SubscribeReasonCode::Success(qos) => *qos as u8,
        _ => 0x80,
    }
}
