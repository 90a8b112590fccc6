//! A client, a link and a broker; what the tests share.

use core::time::Duration;

use device::client::{Publication, Slot};
use device::mqtt::{Filter, Qos};
use simulate::{Broker, BrokerOptions, ClientOptions, MqttClient, MqttOptions, Pair, PairOptions, Server};

pub(crate) type World<const STREAMS: usize = 1> = Pair<MqttClient<STREAMS>, Broker>;

/// The interop runner's default network, the default client and broker.
pub(crate) fn world(seed: u64) -> World {
    with(PairOptions::seeded(seed), MqttOptions::default())
}

pub(crate) fn with<const STREAMS: usize>(options: PairOptions, mqtt: MqttOptions) -> World<STREAMS> {
    with_broker(options, mqtt, BrokerOptions::default())
}

pub(crate) fn with_broker<const STREAMS: usize>(
    options: PairOptions,
    mqtt: MqttOptions,
    broker: BrokerOptions,
) -> World<STREAMS> {
    let client = MqttClient::new(ClientOptions { ..options.client }, mqtt, options.seed);
    let server = Server::new(options.server, options.seed, Broker::new(broker));
    Pair::new(client, server, &options.link, options.seed)
}

/// What the tests ask of a world.
pub(crate) trait Play {
    fn connect(&mut self);
    fn until(&mut self, limit_s: u64, what: &str, done: impl FnMut(&mut Self) -> bool);
    fn subscribe(&mut self, slot: Slot, filter: &str, qos: Qos);
    fn publish(&mut self, publication: &Publication<'_>);
    fn broker_publishes(&mut self, topic: &str, payload: &[u8], qos: Qos);
}

impl<const STREAMS: usize> Play for World<STREAMS> {
    /// Connects and waits for CONNACK.
    fn connect(&mut self) {
        let before = self.client.connections();
        self.client.connect(self.now());
        self.until(30, "CONNACK", |world| world.client.connections() > before);
    }

    /// Runs until `done`; panics with everything that was told if it does not come to that, and if the client broke MQTT.
    #[track_caller]
    fn until(&mut self, limit_s: u64, what: &str, done: impl FnMut(&mut Self) -> bool) {
        let reached = self.run_until(Duration::from_secs(limit_s), done);
        assert!(reached, "no {what} until {}: {:#?}", self.now(), self.client.told);
        let violations = &self.server.service.violations;
        assert!(violations.is_empty(), "the client broke MQTT before {what}: {violations:#?}");
    }

    /// Subscribes and waits for SUBACK.
    fn subscribe(&mut self, slot: Slot, filter: &str, qos: Qos) {
        let now = self.now();
        let token = self.client.subscribe(now, slot, &[Filter::new(filter, qos)]).expect("room");
        self.until(30, "SUBACK", |world| world.client.is_answered(token));
    }

    /// Publishes what must be taken.
    #[track_caller]
    fn publish(&mut self, publication: &Publication<'_>) {
        let now = self.now();
        self.client.publish(now, publication).expect("room for the publication");
    }

    /// Publishes from the broker's side.
    fn broker_publishes(&mut self, topic: &str, payload: &[u8], qos: Qos) {
        let now = self.now();
        self.server.service.publish(topic, payload, qos);
        self.server.wake(now);
    }
}
