//! A scenario's words turned into what the board is told.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use device::control::{
    Addressing, CipherChoice, Congestion, Fault, KeyExchange, MqttSettings, MqttVersion, Pattern,
    QuicSettings, Reconnection, Resumption, Settings, StreamMode, Topic, Transport, Workload,
};

use crate::measure::record;
use crate::peer::ClientOptions;
use crate::scenario::{self, ConnectionOptions, Flow, Pace, Variant};
use crate::wire::{Version, property};

/// The board's address on its virtual network.
pub const BOARD_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// The gateway's address there, which is also the broker's.
pub const GATEWAY_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Length of that network's prefix in bits.
pub const PREFIX: u8 = 24;

/// Timeouts without an answer after which a client looks for another path.
const MIGRATE_AFTER_TIMEOUTS: u8 = 3;
/// Timeouts without an answer after which a connection is given up: with a PTO that doubles from some 100 ms
/// this is 10 to 20 s of silence.
const GIVE_UP_AFTER_TIMEOUTS: u8 = 7;
/// Time the broker has for CONNACK and PINGRESP.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the broker keeps the verifying peer's session: longer than any fault of a scenario.
const PEER_SESSION: Duration = Duration::from_secs(3600);

/// What a board is to connect to.
pub struct Destination {
    /// The broker's address as the board sees it.
    pub broker: SocketAddr,
    /// The name its certificate must be valid for.
    pub server_name: String,
    /// Where the board's own address comes from.
    pub addressing: Addressing,
}

/// A static address on the virtual network.
pub fn virtual_addressing() -> Addressing {
    let (address, gateway) = (IpAddr::V4(BOARD_ADDRESS), Some(IpAddr::V4(GATEWAY_ADDRESS)));
    Addressing::Static { address, prefix: PREFIX, gateway }
}

/// Settings for one variant.
///
/// # Errors
/// The name that does not fit the control channel's bounds.
pub fn settings(
    variant: &Variant,
    destination: &Destination,
    client_id: &str,
    connect_limit: Duration,
) -> Result<Settings, String> {
    let options = &variant.connection;
    Ok(Settings {
        addressing: destination.addressing,
        local_port: 0,
        broker: destination.broker,
        transport: transport(variant.transport),
        server_name: name(&destination.server_name)?,
        unix_time_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        key_exchange: match options.key_exchange {
            scenario::KeyExchange::X25519 => KeyExchange::X25519,
            scenario::KeyExchange::P256 => KeyExchange::P256,
        },
        ciphers: match options.cipher {
            scenario::Cipher::Any => CipherChoice::Any,
            scenario::Cipher::Aes128 => CipherChoice::Aes128,
            scenario::Cipher::Chacha20 => CipherChoice::ChaCha20,
        },
        resumption: resumption(options.resumption),
        quic: quic(options),
        mqtt: mqtt(options, client_id)?,
        reconnection: reconnection(options),
        connect_timeout_ms: millis(connect_limit),
        answer_timeout_ms: millis(ANSWER_TIMEOUT),
        migrate_after_timeouts: MIGRATE_AFTER_TIMEOUTS,
        give_up_after_timeouts: GIVE_UP_AFTER_TIMEOUTS,
    })
}

/// The board's half of the workload.
///
/// # Errors
/// The topic that does not fit the control channel's bounds.
pub fn workload(
    flow: &Flow,
    run: u32,
    seed: u64,
    topics: &[String],
    drain: Duration,
) -> Result<Workload, String> {
    let topics = topics.iter().map(|name| topic(name)).collect::<Result<Vec<_>, _>>()?;
    Ok(Workload {
        run,
        topics: topics.into_iter().collect(),
        qos: flow.qos,
        retain: flow.retain,
        size: flow.size,
        count: flow.count,
        pattern: match flow.pace {
            Pace::Every(interval) => {
                Pattern::Every { interval_us: u32::try_from(interval.as_micros()).unwrap_or(u32::MAX) }
            }
            Pace::Saturate => Pattern::Saturate,
        },
        seed,
        drain_ms: millis(drain),
    })
}

/// A topic within the control channel's bounds.
///
/// # Errors
/// The topic that is too long.
pub fn topic(text: &str) -> Result<Topic, String> {
    Topic::try_from(text).map_err(|_| format!("the topic `{text}` is longer than a board stores"))
}

/// The fault in the control channel's terms.
pub fn fault(fault: scenario::BoardFault) -> Fault {
    match fault {
        scenario::BoardFault::Panic => Fault::Panic,
        scenario::BoardFault::StackOverflow => Fault::StackOverflow,
        scenario::BoardFault::Hang => Fault::Hang,
        scenario::BoardFault::Exhaustion => Fault::Exhaustion,
    }
}

fn name(text: &str) -> Result<device::control::Name, String> {
    text.try_into().map_err(|_| format!("the name `{text}` is longer than a board stores"))
}

/// What later connections take from the first.
pub fn resumption(resumption: scenario::Resumption) -> Resumption {
    match resumption {
        scenario::Resumption::Off => Resumption::Off,
        scenario::Resumption::Ticket => Resumption::Ticket,
        scenario::Resumption::EarlyData => Resumption::EarlyData,
    }
}

fn transport(transport: record::Transport) -> Transport {
    match transport {
        record::Transport::Quic => Transport::Quic,
        record::Transport::Tls => Transport::Tls,
        record::Transport::Tcp => Transport::Tcp,
    }
}

fn quic(options: &ConnectionOptions) -> QuicSettings {
    QuicSettings {
        streams: match options.streams {
            scenario::Streams::Single => StreamMode::Single,
            scenario::Streams::PerTopic => StreamMode::PerTopic,
        },
        congestion: Congestion::NewReno,
        datagram_max: options.datagram,
        idle_timeout_ms: millis(options.idle_timeout),
        keep_alive_ms: millis(options.quic_keep_alive),
        key_update_packets: 0,
    }
}

fn mqtt(options: &ConnectionOptions, client_id: &str) -> Result<MqttSettings, String> {
    Ok(MqttSettings {
        version: match options.mqtt {
            scenario::MqttVersion::V311 => MqttVersion::V311,
            scenario::MqttVersion::V5 => MqttVersion::V5,
        },
        client_id: name(client_id)?,
        keep_alive_s: u16::try_from(options.keep_alive.as_secs()).unwrap_or(u16::MAX),
        clean_start: options.clean_start,
        session_expiry_s: u32::try_from(options.session_expiry.as_secs()).unwrap_or(u32::MAX),
        username: None,
        password: None,
        will: None,
    })
}

/// What the client does when its connection ends unasked.
fn reconnection(options: &ConnectionOptions) -> Reconnection {
    match options.reconnect.attempts {
        0 => Reconnection::Never,
        attempts => Reconnection::Backoff {
            first_ms: millis(options.reconnect.first.into()),
            max_ms: millis(options.reconnect.max.into()),
            attempts,
        },
    }
}

/// The verifying peer: it outlives a broker that is restarted on purpose, and misses nothing meanwhile.
pub fn peer_options(client_id: &str) -> ClientOptions {
    let mut client = ClientOptions::new(Version::V5, client_id);
    client.reconnection = Reconnection::Backoff { first_ms: 100, max_ms: 1_000, attempts: 0 };
    keep_session(&mut client, PEER_SESSION);
    client
}

/// The board's options, for the reference client.
pub fn client_options(variant: &Variant, client_id: &str, connect_limit: Duration) -> ClientOptions {
    let options = &variant.connection;
    let version = match options.mqtt {
        scenario::MqttVersion::V311 => Version::V311,
        scenario::MqttVersion::V5 => Version::V5,
    };
    let mut client = ClientOptions::new(version, client_id);
    client.reconnection = reconnection(options);
    client.connect_limit = connect_limit;
    client.answer_limit = ANSWER_TIMEOUT;
    client.connect.clean_start = options.clean_start;
    client.connect.keep_alive_s = u16::try_from(options.keep_alive.as_secs()).unwrap_or(u16::MAX);
    if version == Version::V5 {
        keep_session(&mut client, options.session_expiry);
    }
    client
}

fn keep_session(client: &mut ClientOptions, expiry: Duration) {
    let expiry_s = u32::try_from(expiry.as_secs()).unwrap_or(u32::MAX);
    let properties = std::mem::take(&mut client.connect.properties);
    client.connect.properties = properties.with_u32(property::SESSION_EXPIRY_INTERVAL, expiry_s);
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
