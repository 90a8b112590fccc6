//! The whole device client - policy, MQTT session, QUIC - as the client of a simulation.

use device::client::{Cause, Client, Config, Context, Event, Output, PathChange, Policy, Publication, Stats};
use device::crypto::{Crypto, Software};
use device::mqtt::{Duplicate, Filter, Options, Qos, RequestError, Retain, Slot, Start, Token, Version};
use device::tls;

use crate::identity::Identity;
use crate::pair::ClientSide;
use crate::{ClientOptions, Clock, Random};

/// CONNECT's fields and the policy; plain values.
#[derive(Clone, Debug)]
pub struct MqttOptions {
    /// The protocol version.
    pub version: Version,
    /// The client identifier.
    pub client_id: String,
    /// What the first CONNECT does with an older session.
    pub start: Start,
    /// Keep alive in seconds.
    pub keep_alive_s: u16,
    /// Session expiry in seconds.
    pub session_expiry_s: u32,
    /// When to connect, reconnect, migrate.
    pub policy: Policy,
}

impl Default for MqttOptions {
    fn default() -> Self {
        let options = Options::new("device");
        Self {
            version: options.version,
            client_id: options.client_id.to_owned(),
            start: options.start,
            keep_alive_s: options.keep_alive_s,
            session_expiry_s: options.session_expiry_s,
            policy: Policy::DEFAULT,
        }
    }
}

/// What the client told, owned.
#[derive(Clone, PartialEq, Debug)]
pub enum Told {
    /// An event without bytes of its own.
    Event(Event<'static>),
    /// A message.
    Message(Received),
    /// SUBACK.
    Subscribed(Token, Vec<u8>),
    /// UNSUBACK.
    Unsubscribed(Token, Vec<u8>),
}

/// A message that the client received.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Received {
    /// On which stream.
    pub slot: Slot,
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Vec<u8>,
    /// Its QoS.
    pub qos: Qos,
    /// Whether it was retained.
    pub retain: Retain,
    /// Whether it may be a repetition.
    pub duplicate: Duplicate,
}

/// The device client, and everything it told.
pub struct MqttClient<const STREAMS: usize = 1, C: Crypto = Software> {
    /// The client under test.
    pub client: Box<Client<C, STREAMS>>,
    /// QUIC and TLS.
    pub options: ClientOptions,
    /// MQTT and policy.
    pub mqtt: MqttOptions,
    /// What was told, in order.
    pub told: Vec<(Clock, Told)>,
    /// Whether the client asked for a new local port; cleared by whoever gives it one.
    pub wants_migration: bool,
    entropy: Random,
    due: Option<Clock>,
}

/// Calls `$body` with the client and a context made of the other fields.
macro_rules! with_context {
    ($self:ident, $now:expr, |$client:ident, $ctx:ident| $body:expr) => {{
        let options = &$self.options;
        let own = options.own_identity.as_deref();
        let certificates = own.map(Identity::certificates).unwrap_or_default();
        let config = Config {
            tls: tls::Config {
                cipher_suites: &options.cipher_suites,
                groups: &options.groups,
                client_auth: own
                    .map(|own| tls::ClientAuth { certificates: &certificates, private_key: own.scalar() }),
                ..tls::Config::new(
                    &options.identity.anchors,
                    &options.server_name,
                    &options.alpn,
                    $now.unix_s().saturating_add_signed(options.clock_skew_s),
                )
            },
            quic: options.quic,
            mqtt: Options {
                version: $self.mqtt.version,
                start: $self.mqtt.start,
                keep_alive_s: $self.mqtt.keep_alive_s,
                session_expiry_s: $self.mqtt.session_expiry_s,
                ..Options::new(&$self.mqtt.client_id)
            },
            policy: $self.mqtt.policy,
        };
        let $ctx = &mut Context { now: $now.device(), config: &config, entropy: &mut $self.entropy };
        let $client = &mut *$self.client;
        $body
    }};
}

impl<const STREAMS: usize, C: Crypto> MqttClient<STREAMS, C> {
    /// An idle client.
    #[must_use]
    pub fn new(options: ClientOptions, mqtt: MqttOptions, seed: u64) -> Self {
        Self {
            client: Box::new(Client::new()),
            options,
            mqtt,
            told: Vec::new(),
            wants_migration: false,
            entropy: Random::new(seed, 1),
            due: None,
        }
    }

    /// Starts connecting.
    pub fn connect(&mut self, now: Clock) {
        with_context!(self, now, |client, ctx| client.connect(ctx));
    }

    /// Ends the session in order.
    pub fn disconnect(&mut self, now: Clock) {
        with_context!(self, now, |client, ctx| client.disconnect(ctx));
    }

    /// Publishes.
    ///
    /// # Errors
    /// As the client says.
    pub fn publish(
        &mut self,
        now: Clock,
        publication: &Publication<'_>,
    ) -> Result<Option<Token>, RequestError> {
        with_context!(self, now, |client, ctx| client.publish(ctx, publication))
    }

    /// Subscribes.
    ///
    /// # Errors
    /// As the client says.
    pub fn subscribe(
        &mut self,
        now: Clock,
        slot: Slot,
        filters: &[Filter<'_>],
    ) -> Result<Token, RequestError> {
        with_context!(self, now, |client, ctx| client.subscribe(ctx, slot, filters))
    }

    /// Unsubscribes.
    ///
    /// # Errors
    /// As the client says.
    pub fn unsubscribe(&mut self, now: Clock, slot: Slot, filters: &[&str]) -> Result<Token, RequestError> {
        with_context!(self, now, |client, ctx| client.unsubscribe(ctx, slot, filters))
    }

    /// Drops the connection without a word.
    pub fn abandon(&mut self) {
        self.client.abandon();
    }

    /// Asks for a key update.
    pub fn update_keys(&mut self, now: Clock) {
        with_context!(self, now, |client, ctx| client.update_keys(ctx));
    }

    /// Counters and estimates.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.client.stats()
    }

    /// The events without bytes, in order.
    pub fn events(&self) -> impl Iterator<Item = &Event<'static>> {
        self.told.iter().filter_map(|(_, told)| match told {
            Told::Event(event) => Some(event),
            _ => None,
        })
    }

    /// Whether `wanted` has been told.
    pub fn has(&self, wanted: impl Fn(&Event<'static>) -> bool) -> bool {
        self.events().any(wanted)
    }

    /// How many times CONNACK said yes.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.events().filter(|event| matches!(event, Event::Connected(_))).count()
    }

    /// Why connections ended, in order.
    #[must_use]
    pub fn causes(&self) -> Vec<Cause> {
        let cause = |event: &Event<'static>| match event {
            Event::Disconnected(cause) => Some(*cause),
            _ => None,
        };
        self.events().filter_map(cause).collect()
    }

    /// The messages received, in order.
    pub fn messages(&self) -> impl Iterator<Item = &Received> {
        self.told.iter().filter_map(|(_, told)| match told {
            Told::Message(message) => Some(message),
            _ => None,
        })
    }

    /// How many publications the server completed.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.events().filter(|event| matches!(event, Event::Acknowledged { .. })).count()
    }

    /// Whether the request was answered.
    #[must_use]
    pub fn is_answered(&self, token: Token) -> bool {
        self.told.iter().any(|(_, told)| {
            matches!(told, Told::Subscribed(answered, _) | Told::Unsubscribed(answered, _) if *answered == token)
        })
    }
}

/// The event, its bytes copied.
fn own(event: &Event<'_>) -> Told {
    match *event {
        Event::Message(message) => Told::Message(Received {
            slot: message.slot,
            topic: message.topic.to_owned(),
            payload: message.payload.to_vec(),
            qos: message.qos,
            retain: message.retain,
            duplicate: message.duplicate,
        }),
        Event::Subscribed { token, codes } => Told::Subscribed(token, codes.to_vec()),
        Event::Unsubscribed { token, codes } => Told::Unsubscribed(token, codes.to_vec()),
        Event::Attempt { number, resuming, early_data } => {
            Told::Event(Event::Attempt { number, resuming, early_data })
        }
        Event::Phase(phase) => Told::Event(Event::Phase(phase)),
        Event::Connected(connected) => Told::Event(Event::Connected(connected)),
        Event::Acknowledged { token, reason } => Told::Event(Event::Acknowledged { token, reason }),
        Event::Abandoned { token, error } => Told::Event(Event::Abandoned { token, error }),
        Event::SessionLost { republished } => Told::Event(Event::SessionLost { republished }),
        Event::StreamOpened(slot) => Told::Event(Event::StreamOpened(slot)),
        Event::StreamClosed { slot, code, error } => Told::Event(Event::StreamClosed { slot, code, error }),
        Event::StreamRefused(slot) => Told::Event(Event::StreamRefused(slot)),
        Event::Oversize { slot, size } => Told::Event(Event::Oversize { slot, size }),
        Event::MigrationWanted => Told::Event(Event::MigrationWanted),
        Event::MigrationStarted => Told::Event(Event::MigrationStarted),
        Event::PathValidated => Told::Event(Event::PathValidated),
        Event::PathFailed => Told::Event(Event::PathFailed),
        Event::KeysUpdated => Told::Event(Event::KeysUpdated),
        Event::TicketReceived => Told::Event(Event::TicketReceived),
        Event::Disconnected(cause) => Told::Event(Event::Disconnected(cause)),
        Event::RetryAt { at, number } => Told::Event(Event::RetryAt { at, number }),
        Event::Stopped => Told::Event(Event::Stopped),
    }
}

impl<const STREAMS: usize, C: Crypto> ClientSide for MqttClient<STREAMS, C> {
    fn handle_datagram(&mut self, now: Clock, datagram: &mut [u8]) {
        with_context!(self, now, |client, ctx| client.handle_datagram(ctx, datagram));
    }

    fn handle_timeout(&mut self, now: Clock) {
        with_context!(self, now, |client, ctx| client.handle_timeout(ctx));
    }

    fn poll_transmit(&mut self, now: Clock, buffer: &mut [u8]) -> Option<usize> {
        let buffer = buffer.first_chunk_mut().expect("room for any datagram");
        loop {
            let told = with_context!(self, now, |client, ctx| match client.poll_output(ctx, buffer) {
                Output::Transmit(len) => return Some(len),
                Output::WaitUntil(due) => {
                    self.due = due.map(Clock::from_device);
                    return None;
                }
                Output::Event { at, event } => {
                    assert_eq!(at, now.device(), "{event:?} has another time than the call that tells it");
                    own(&event)
                }
            });
            self.wants_migration |= told == Told::Event(Event::MigrationWanted);
            self.told.push((now, told));
        }
    }

    fn poll_timeout(&mut self) -> Option<Clock> {
        self.due
    }

    fn on_local_address_changed(&mut self, now: Clock, change: PathChange) {
        // Without a connection there is nothing to move: the next one starts from the new address.
        let _ = with_context!(self, now, |client, ctx| client.migrate(ctx, change));
        self.wants_migration = false;
    }
}
