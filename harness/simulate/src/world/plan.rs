//! What a world is made of.

use core::time::Duration;

use device::client::{EarlyData, Policy, Resumption};
use device::mqtt::Version;
use link::units::{Percent, Rate, Time};
use link::{
    Blackout, Corrupt, CorruptTable, Distribution, GilbertElliott, Jitter, JitterTable, LinkConfig, Loss,
    LossTable, Moment, Order, Path, Reorder, Truncate,
};

use crate::seeded::SeededRandom;
use crate::{BrokerOptions, ClientOptions, MqttOptions, Random, ServerOptions};

/// Streams a client may use in a world: the control stream and two data streams.
pub(super) const STREAMS: usize = 3;

/// Topics of a stream: more than the device and most brokers have aliases for, and some too short or too long for one.
pub(super) const TOPICS: [&str; 6] =
    ["t", "door", "temperature", "humidity", "battery/voltage", "a/topic/that/is/a/little/longer"];

/// A message to be published, by the client or by the broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Planned {
    /// When at the earliest, counted from the first session.
    pub at: Duration,
    /// On which stream (from the client), or to whose subscription (to the client).
    pub slot: usize,
    /// To which of the stream's [`TOPICS`].
    pub topic: usize,
    /// QoS 0 to 2.
    pub qos: u8,
    /// Payload bytes beyond the mark that tells it from others.
    pub size: usize,
}

/// Something that happens to a world besides messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The client updates its keys.
    UpdateKeys,
    /// The server updates its keys.
    ServerUpdatesKeys,
    /// The client moves to another address and knows.
    Migrate,
    /// The client ends its session and connects again.
    Reconnect,
    /// The server loses all connections and tickets; the broker's sessions survive.
    ServerRestarts,
    /// From now on the server refuses 0-RTT.
    RefuseEarlyData,
    /// From now on the server demands proof of the address.
    DemandRetry,
    /// The broker resets all data streams; the connection lives on.
    ResetDataStreams,
}

/// An [`Event`] and its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scheduled {
    /// When, counted from the first session.
    pub at: Duration,
    /// What.
    pub event: Event,
}

/// Everything about a world.
#[derive(Clone, Debug)]
pub struct Plan {
    /// From which all of it was drawn.
    pub seed: u64,
    /// The network.
    pub link: LinkConfig,
    /// The server.
    pub server: ServerOptions,
    /// The broker on it.
    pub broker: BrokerOptions,
    /// QUIC and TLS of the client.
    pub client: ClientOptions,
    /// MQTT and policy of the client.
    pub mqtt: MqttOptions,
    /// Streams in use, the control stream included.
    pub streams: usize,
    /// What the client publishes.
    pub up: Vec<Planned>,
    /// What the broker publishes.
    pub down: Vec<Planned>,
    /// What else happens.
    pub events: Vec<Scheduled>,
}

impl Plan {
    /// The world of `seed`.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut random = Random::new(seed, 3);
        let streams = random.pick(&[1, 1, 2, STREAMS]);
        let mut plan = Self {
            seed,
            link: network(&mut random),
            server: server(&mut random, streams),
            broker: broker(&mut random),
            client: client(&mut random),
            mqtt: mqtt(&mut random),
            streams,
            up: messages(&mut random, streams),
            down: messages(&mut random, streams),
            events: events(&mut random),
        };
        // A damaged packet leads to other outcomes with other keys: a world repeats with all its bytes.
        plan.server.randomness = Some(SeededRandom::new(seed));
        plan.down.extend(bursts(&mut random, streams));
        plan.down.sort_by_key(|planned| planned.at);
        plan.broker.in_flight_max = in_flight_max(&mut random, plan.mqtt.version, streams);
        // A server without credit at first raises it in 1-RTT, as EMQX 5.8 does.
        plan.broker.late_credit = if random.once_in(8) { Some(plan.server.streams) } else { None };
        if plan.broker.late_credit.is_some() {
            plan.server.streams = 0;
        }
        // A server behind a load balancer that goes by addresses: who moves, or is moved by a NAT, has to connect again.
        plan.server.migration = !random.once_in(12);
        plan
    }
}

fn percent(tenths: u64) -> Percent {
    Percent::new(tenths as f64 / 10.0).expect("at most a thousand tenths")
}

fn network(random: &mut Random) -> LinkConfig {
    let delay_ms = match random.below(4) {
        0 => random.between(1, 5),
        1 | 2 => random.between(5, 60),
        _ => random.between(60, 300),
    };
    let mut link =
        LinkConfig { up: path(random, delay_ms), down: path(random, delay_ms), ..LinkConfig::default() };
    if random.once_in(4) {
        link.blackout.push(Blackout {
            at: Time::from_millis(random.below(3_000)),
            after: random.once_in(2).then(|| "connected".to_owned()),
            length: Time::from_millis(random.between(100, 8_000)),
            period: None,
            count: None,
            direction: random.pick(&[None, None, Some(link::Direction::Up), Some(link::Direction::Down)]),
        });
    }
    if random.once_in(5) {
        let repeated = random.once_in(2);
        let moment = Moment {
            at: Time::from_millis(random.below(2_000)),
            after: Some("connected".to_owned()),
            period: repeated.then(|| Time::from_millis(random.between(500, 4_000))),
            count: repeated.then_some(3),
        };
        if random.once_in(2) { link.rebind.push(moment) } else { link.address_change.push(moment) }
    }
    link
}

fn path(random: &mut Random, delay_ms: u64) -> Path {
    let mut path = Path { delay: Some(Time::from_millis(delay_ms)), ..Path::default() };
    if random.once_in(2) {
        path.jitter = Some(Jitter(JitterTable {
            spread: Time::from_millis(random.between(1, delay_ms.max(2))),
            distribution: random.pick(&[Distribution::Uniform, Distribution::Normal, Distribution::Pareto]),
            correlation: percent(random.below(900)),
            order: random.pick(&[Order::Keep, Order::Free]),
        }));
    }
    match random.below(4) {
        0 => {
            let loss = LossTable { random: Some(percent(random.between(1, 150))), ..LossTable::default() };
            path.loss = Some(Loss(loss));
        }
        1 => {
            let burst = GilbertElliott {
                enter: percent(random.between(5, 40)),
                leave: percent(random.between(200, 600)),
                loss_bad: percent(random.between(500, 1_000)),
                loss_good: Percent::ZERO,
            };
            path.loss = Some(Loss(LossTable { burst: Some(burst), ..LossTable::default() }));
        }
        _ => {}
    }
    if random.once_in(4) {
        path.duplicate = Some(percent(random.between(5, 100)));
    }
    if random.once_in(4) {
        path.reorder = Some(Reorder {
            probability: percent(random.between(5, 200)),
            every: None,
            extra_delay: random.once_in(2).then(|| Time::from_millis(random.between(1, 60))),
        });
    }
    if random.once_in(4) {
        path.corrupt = Some(Corrupt(CorruptTable {
            probability: percent(random.between(1, 80)),
            bits: random.between(1, 4) as u32,
            run_max: None,
            checksum: link::Checksum::Repaired,
        }));
    }
    if random.once_in(6) {
        path.truncate = Some(Truncate { probability: percent(random.between(1, 40)) });
    }
    if random.once_in(4) {
        path.rate = Some(Rate::from_bits_per_second(random.pick(&[128_000, 500_000, 2_000_000, 10_000_000])));
        path.queue = Some(link::Queue::Packets(random.between(8, 64) as u32));
    }
    path
}

fn server(random: &mut Random, streams: usize) -> ServerOptions {
    let stream_window = random.pick(&[100, 400, 1_500, 10_000, 65_536]);
    ServerOptions {
        retry: random.once_in(6),
        early_data: !random.once_in(4),
        tickets: random.pick(&[0, 1, 2]),
        stream_window,
        connection_window: stream_window * random.pick(&[1, 2, 8]),
        streams: random.between(streams as u64, 20) as u32,
        idle_timeout: Duration::from_secs(random.between(5, 40)),
        keep_alive: random.once_in(6).then(|| Duration::from_secs(2)),
        mtu_max: random.pick(&[1_200, 1_200, 1_452]),
        keeps_reset_key: random.once_in(2),
        ..ServerOptions::default()
    }
}

fn broker(random: &mut Random) -> BrokerOptions {
    BrokerOptions {
        receive_maximum: random.pick(&[1, 2, 8, 32]),
        topic_alias_maximum: random.pick(&[0, 1, 8]),
        acknowledge_after: if random.once_in(2) {
            Duration::from_millis(random.between(1, 200))
        } else {
            Duration::ZERO
        },
        reading: random
            .once_in(5)
            .then(|| (random.between(50, 500) as usize, Duration::from_millis(random.between(10, 200)))),
        receive_maximum_again: random.pick(&[1, 2, 8, 32]),
        ..BrokerOptions::default()
    }
}

fn client(random: &mut Random) -> ClientOptions {
    let mut options = ClientOptions::default();
    options.quic.idle_timeout = device::time::Duration::from_secs(random.between(5, 40));
    options.quic.keep_alive =
        random.pick(&[device::time::Duration::ZERO, device::time::Duration::from_secs(3)]);
    options.quic.key_update_packets = random.pick(&[0, 0, 30]);
    options.quic.send_datagram_len = random.pick(&[1_200, 1_200, 1_472]);
    options.cipher_suites = vec![random.pick(&[
        device::crypto::CipherSuite::ChaCha20Poly1305Sha256,
        device::crypto::CipherSuite::Aes128GcmSha256,
    ])];
    options
}

fn mqtt(random: &mut Random) -> MqttOptions {
    MqttOptions {
        version: random.pick(&[Version::V5, Version::V5, Version::V3_1_1]),
        keep_alive_s: random.pick(&[0, 5, 60]),
        session_expiry_s: u32::MAX,
        policy: Policy {
            early_data: random.pick(&[EarlyData::Never, EarlyData::IfPossible]),
            resumption: random.pick(&[Resumption::IfPossible, Resumption::IfPossible, Resumption::Never]),
            ..Policy::DEFAULT
        },
        ..MqttOptions::default()
    }
}

fn messages(random: &mut Random, streams: usize) -> Vec<Planned> {
    let count = random.pick(&[0, 3, 8, 20, 40]);
    let mut at = Duration::ZERO;
    let mut planned = Vec::new();
    for _ in 0..count {
        at += Duration::from_millis(if random.once_in(3) { random.below(1_000) } else { random.below(20) });
        planned.push(Planned {
            at,
            slot: random.below(streams as u64) as usize,
            topic: random.below(TOPICS.len() as u64) as usize,
            qos: random.below(3) as u8,
            size: match random.below(4) {
                0 => 0,
                1 | 2 => random.below(100) as usize,
                _ => random.below(900) as usize,
            },
        });
    }
    planned
}

/// Messages of QoS 1 and 2 that the broker publishes at one moment, to one stream or to each in turn: more than it may
/// have under way.
fn bursts(random: &mut Random, streams: usize) -> Vec<Planned> {
    let mut planned = Vec::new();
    for _ in 0..random.pick(&[0, 0, 1, 2]) {
        let at = Duration::from_millis(random.below(3_000));
        let first = random.below(streams as u64) as usize;
        let spread = random.once_in(2);
        let qos = random.pick(&[Some(1), Some(2), Some(2), None]);
        let size_max = random.pick(&[1, 40, 400]);
        for number in 0..random.between(4, 30) as usize {
            planned.push(Planned {
                at,
                slot: if spread { (first + number) % streams } else { first },
                topic: number % TOPICS.len(),
                qos: qos.unwrap_or_else(|| random.between(1, 2) as u8),
                size: random.below(size_max) as usize,
            });
        }
    }
    planned
}

/// 3.1.1 cannot tell a broker how much the client takes: it gets what its table has room for on so many streams.
fn in_flight_max(random: &mut Random, version: Version, streams: usize) -> u16 {
    match (version, streams) {
        (Version::V5, _) => random.pick(&[1, 3, 32, 32]),
        (Version::V3_1_1, 1) => random.pick(&[1, 8, 32]),
        (Version::V3_1_1, _) => random.pick(&[1, 4, 8]),
    }
}

fn events(random: &mut Random) -> Vec<Scheduled> {
    const EVENTS: [Event; 9] = [
        // Twice as often as the others: only a new connection shows resumption, 0-RTT and tokens.
        Event::Reconnect,
        Event::UpdateKeys,
        Event::ServerUpdatesKeys,
        Event::Migrate,
        Event::Reconnect,
        Event::ServerRestarts,
        Event::RefuseEarlyData,
        Event::DemandRetry,
        Event::ResetDataStreams,
    ];
    let count = random.pick(&[0, 0, 1, 2, 3, 5]);
    let mut events: Vec<Scheduled> = (0..count)
        .map(|_| Scheduled { at: Duration::from_millis(random.below(4_000)), event: random.pick(&EVENTS) })
        .collect();
    events.sort_by_key(|scheduled| scheduled.at);
    events
}
