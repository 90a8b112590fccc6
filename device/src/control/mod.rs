//! The control channel: what the harness tells a board and what the board reports.
//!
//! One definition for both ends. Messages are `serde` types encoded by postcard ([`command`],
//! [`report`]), packed into frames that survive log text, garbage and truncation ([`frame`]). Workload
//! payloads ([`payload`]) carry enough to be judged by whoever receives them.
//!
//! ```text
//! harness -- Command { sequence, request } --> board
//! harness <-- Report::Reply { sequence, answer } -- board     exactly one per command
//! harness <-- Report::{Boot, Event, Samples, Memory, Stats, WorkloadDone ...} -- board
//! ```
//!
//! All times are microseconds since the board's boot; the harness estimates the offset by
//! [`Request::Ping`]. Every string and list has a bound, so messages need no heap.

pub mod command;
mod crc;
pub mod event;
pub mod frame;
pub mod hardware;
pub mod payload;
pub mod report;

pub use command::{
    Addressing, Blob, BlobKind, CipherChoice, Command, Congestion, Fault, KeyExchange, Manner, Migration,
    MqttSettings, MqttVersion, Pattern, Publication, QuicSettings, Reconnection, Request, Resumption,
    Settings, StreamMode, Subscription, Transport, Will, Workload,
};
pub use crc::crc32;
pub use event::{AbandonReason, Cause, Disconnection, Event, HandshakePhase, Resumed};
pub use hardware::{
    Accelerator, Accelerators, Activity, Hardware, Heap, PowerMode, Radio, RadioState, Wifi, WifiFailure,
};
pub use report::{
    Answer, Boot, ConsoleStats, Cost, Memory, MqttStats, Operation, Phase, Refusal, Report, ResetReason,
    Sample, Samples, Stats, TransportStats, Verdict, WireStats, WorkloadEnd, WorkloadResult,
};

/// Version of this protocol; the board names it in [`report::Boot`], whose encoding never changes. Variants added
/// at the end of an enum keep the version: who does not know one finds the frame unreadable and goes on.
pub const PROTOCOL_VERSION: u16 = 1;

/// Longest topic name or filter, in bytes.
pub const TOPIC_MAX: usize = 64;
/// Longest name: client id, server name, user, password, SSID.
pub const NAME_MAX: usize = 64;
/// Topics one workload publishes to: more than the streams any scenario compares.
pub const TOPICS_MAX: usize = 8;
/// Bytes of certificate or key in one command.
pub const CHUNK_MAX: usize = 256;
/// Free text and payload bytes in one message.
pub const TEXT_MAX: usize = 128;
/// Samples reported in one message.
pub const SAMPLES_MAX: usize = 16;
/// Longest encoded message: a workload of [`TOPICS_MAX`] topics of [`TOPIC_MAX`] bytes, with room.
pub const MESSAGE_MAX: usize = 768;

/// A topic name or filter.
pub type Topic = heapless::String<TOPIC_MAX>;
/// A client id, host name, user name, password or SSID.
pub type Name = heapless::String<NAME_MAX>;
/// A line of free text.
pub type Text = heapless::String<TEXT_MAX>;

/// The message does not fit the buffer, or the bytes are no message of this version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadMessage;

impl core::fmt::Display for BadMessage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("not a message of this control protocol version, or longer than its limit")
    }
}

impl core::error::Error for BadMessage {}

/// As much of `text` as fits into `N` bytes, cut at a character boundary.
pub fn clipped<const N: usize>(text: &str) -> heapless::String<N> {
    let mut clipped = heapless::String::new();
    for character in text.chars() {
        if clipped.push(character).is_err() {
            break;
        }
    }
    clipped
}

/// Decodes a message that must take up all of `bytes`.
fn decode_all<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, BadMessage> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        _ => Err(BadMessage),
    }
}

#[cfg(test)]
mod tests {
    use core::net::{IpAddr, Ipv6Addr, SocketAddr};

    use super::*;

    const IP: IpAddr = IpAddr::V6(Ipv6Addr::new(1, 2, 3, 4, 5, 6, 7, 8));

    fn full<const N: usize>() -> heapless::String<N> {
        clipped(str::from_utf8(&[b'x'; 256]).expect("ASCII"))
    }

    fn largest_settings() -> Settings {
        Settings {
            addressing: Addressing::Static { address: IP, prefix: 64, gateway: Some(IP) },
            local_port: u16::MAX,
            broker: SocketAddr::new(IP, u16::MAX),
            transport: Transport::Quic,
            server_name: full(),
            unix_time_s: u64::MAX,
            key_exchange: KeyExchange::P256,
            ciphers: CipherChoice::ChaCha20,
            resumption: Resumption::EarlyData,
            quic: QuicSettings {
                streams: StreamMode::PerTopic,
                congestion: Congestion::NewReno,
                datagram_max: u16::MAX,
                idle_timeout_ms: u32::MAX,
                keep_alive_ms: u32::MAX,
                key_update_packets: u32::MAX,
            },
            mqtt: MqttSettings {
                version: MqttVersion::V5,
                client_id: full(),
                keep_alive_s: u16::MAX,
                clean_start: true,
                session_expiry_s: u32::MAX,
                username: Some(full()),
                password: Some(full()),
                will: Some(Will {
                    topic: full(),
                    payload: heapless::Vec::from_array([0xff; 32]),
                    qos: 2,
                    retain: true,
                }),
            },
            reconnection: Reconnection::Backoff { first_ms: u32::MAX, max_ms: u32::MAX, attempts: u16::MAX },
            connect_timeout_ms: u32::MAX,
            answer_timeout_ms: u32::MAX,
            migrate_after_timeouts: u8::MAX,
            give_up_after_timeouts: u8::MAX,
        }
    }

    #[test]
    fn the_largest_messages_fit_and_come_back() {
        let workload = Workload {
            run: u32::MAX,
            topics: core::iter::repeat_n(full(), TOPICS_MAX).collect(),
            qos: 2,
            retain: true,
            size: u16::MAX,
            count: u32::MAX,
            pattern: Pattern::Every { interval_us: u32::MAX },
            seed: u64::MAX,
            drain_ms: u32::MAX,
        };
        let blob = Blob {
            kind: BlobKind::ClientKey,
            total: u16::MAX,
            offset: u16::MAX,
            bytes: heapless::Vec::from_array([0xff; CHUNK_MAX]),
        };
        let requests =
            [Request::Configure(largest_settings()), Request::StartWorkload(workload), Request::Blob(blob)];
        for request in requests {
            let command = Command { sequence: u32::MAX, request };
            let mut out = [0; MESSAGE_MAX];
            let encoded = command.encode(&mut out).expect("within the limit");
            assert_eq!(Command::decode(encoded), Ok(command));
        }
    }

    #[test]
    fn the_fullest_samples_fit_and_come_back() {
        let sample = Sample::Received {
            run: u32::MAX,
            topic: u16::MAX,
            sequence: u32::MAX,
            intended_us: u64::MAX,
            at_us: u64::MAX,
            size: u16::MAX,
            verdict: Verdict::Foreign,
        };
        let samples = core::iter::repeat_n(sample, SAMPLES_MAX).collect();
        let report = Report::Samples(Samples { run: u32::MAX, samples });
        let mut out = [0; MESSAGE_MAX];
        let encoded = report.encode(&mut out).expect("within the limit");
        assert_eq!(Report::decode(encoded), Ok(report));
    }

    #[test]
    fn the_boot_report_starts_with_the_protocol_version_in_every_version() {
        let boot = Boot {
            protocol: 5,
            board: clipped("host"),
            firmware: clipped("1"),
            reset: ResetReason::PowerOn,
            at_us: 9,
        };
        let mut out = [0; MESSAGE_MAX];
        let encoded = Report::Boot(boot).encode(&mut out).expect("within the limit");
        assert_eq!(encoded, b"\x00\x05\x04host\x011\x00\x09");
    }

    #[test]
    fn bytes_behind_a_message_make_it_unreadable() {
        let mut out = [0; MESSAGE_MAX];
        let command = Command { sequence: 1, request: Request::Connect };
        let len = command.encode(&mut out).expect("within the limit").len();
        assert_eq!(Command::decode(&out[..=len]), Err(BadMessage));
    }
}
