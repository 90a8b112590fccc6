//! Between the control channel's words and the client's: settings one way, events and counters the other.

use crate::client::{self, FailureKind};
use crate::control::{
    AbandonReason, Cause, CipherChoice, Disconnection, Event, HandshakePhase, KeyExchange, MqttSettings,
    MqttStats, MqttVersion, QuicSettings, Reconnection, Resumed, Resumption, Settings, Transport,
    TransportStats, clipped,
};
use crate::crypto::CipherSuite;
use crate::crypto::key_exchange::NamedGroup;
use crate::mqtt::{self, Qos, ReasonCode, Retain};
use crate::quic;
use crate::time::Duration;

/// The protocol to ask for in ALPN. Over QUIC it is required and `mqtt`; brokers' TLS listeners know none.
pub(super) const fn alpn(transport: Transport) -> &'static [u8] {
    match transport {
        Transport::Quic => b"mqtt",
        Transport::Tls | Transport::Tcp => b"",
    }
}

/// Ciphers to offer, by preference.
pub(super) const fn ciphers(choice: CipherChoice) -> &'static [CipherSuite] {
    match choice {
        CipherChoice::Any => &[CipherSuite::ChaCha20Poly1305Sha256, CipherSuite::Aes128GcmSha256],
        CipherChoice::Aes128 => &[CipherSuite::Aes128GcmSha256],
        CipherChoice::ChaCha20 => &[CipherSuite::ChaCha20Poly1305Sha256],
    }
}

/// Groups to offer, by preference: the first one gets the key share.
pub(super) const fn groups(choice: KeyExchange) -> &'static [NamedGroup] {
    match choice {
        KeyExchange::X25519 => &[NamedGroup::X25519, NamedGroup::P256],
        KeyExchange::P256 => &[NamedGroup::P256, NamedGroup::X25519],
    }
}

/// The QUIC connection's configuration.
pub(super) fn quic(settings: &Settings) -> quic::Config {
    let QuicSettings { datagram_max, idle_timeout_ms, keep_alive_ms, key_update_packets, .. } = settings.quic;
    quic::Config {
        idle_timeout: milliseconds(idle_timeout_ms),
        keep_alive: milliseconds(keep_alive_ms),
        handshake_timeout: milliseconds(settings.connect_timeout_ms),
        send_datagram_len: datagram_max,
        key_update_packets,
        ..quic::Config::new()
    }
}

/// The connection policy.
pub(super) fn policy(settings: &Settings) -> client::Policy {
    client::Policy {
        reconnect: match settings.reconnection {
            Reconnection::Never => client::Reconnect::Never,
            Reconnection::Backoff { first_ms, max_ms, attempts } => client::Reconnect::Backoff {
                first: milliseconds(first_ms),
                max: milliseconds(max_ms),
                attempts_max: attempts.into(),
            },
        },
        connect_timeout: milliseconds(settings.connect_timeout_ms),
        resumption: match settings.resumption {
            Resumption::Off => client::Resumption::Never,
            Resumption::Ticket | Resumption::EarlyData => client::Resumption::IfPossible,
        },
        early_data: match settings.resumption {
            Resumption::Off | Resumption::Ticket => client::EarlyData::Never,
            Resumption::EarlyData => client::EarlyData::IfPossible,
        },
        migrate_after_timeouts: settings.migrate_after_timeouts.into(),
        give_up_after_timeouts: settings.give_up_after_timeouts.into(),
    }
}

/// CONNECT's fields.
pub(super) fn options(settings: &Settings) -> mqtt::Options<'_> {
    let MqttSettings { version, client_id, keep_alive_s, clean_start, session_expiry_s, .. } = &settings.mqtt;
    mqtt::Options {
        version: match version {
            MqttVersion::V311 => mqtt::Version::V3_1_1,
            MqttVersion::V5 => mqtt::Version::V5,
        },
        user_name: settings.mqtt.username.as_deref(),
        password: settings.mqtt.password.as_ref().map(|password| password.as_bytes()),
        will: settings.mqtt.will.as_ref().map(|will| mqtt::Will {
            topic: &will.topic,
            payload: &will.payload,
            qos: qos(will.qos),
            retain: Retain::from_flag(will.retain),
            properties: mqtt::Properties::NONE,
        }),
        start: if *clean_start { mqtt::Start::Fresh } else { mqtt::Start::Continue },
        keep_alive_s: *keep_alive_s,
        session_expiry_s: *session_expiry_s,
        answer_timeout: milliseconds(settings.answer_timeout_ms),
        ..mqtt::Options::new(client_id)
    }
}

/// A quality of service by its number; more than 2 is the most there is.
pub(super) const fn qos(number: u8) -> Qos {
    match Qos::from_bits(number) {
        Some(qos) => qos,
        None => Qos::ExactlyOnce,
    }
}

/// Events that need nothing but other words. `None` for those the agent makes more of.
pub(super) fn event(event: &client::Event<'_>) -> Option<Event> {
    Some(match *event {
        client::Event::Attempt { number, resuming, early_data } => Event::Connecting {
            attempt: number,
            resumption: match (resuming, early_data) {
                (false, _) => Resumption::Off,
                (true, false) => Resumption::Ticket,
                (true, true) => Resumption::EarlyData,
            },
        },
        client::Event::Phase(phase) => Event::Handshake(self::phase(phase)?),
        client::Event::Connected(connected) => Event::MqttConnected {
            session_present: connected.session_present,
            resumed: match (connected.resumed, connected.early_data_accepted) {
                (_, true) => Resumed::EarlyData,
                (true, false) => Resumed::Ticket,
                (false, false) => Resumed::Full,
            },
        },
        client::Event::SessionLost { republished } => {
            Event::SessionLost { republished: u16::try_from(republished).unwrap_or(u16::MAX) }
        }
        client::Event::StreamOpened(slot) => Event::StreamOpened { slot: slot.index() as u8 },
        client::Event::StreamClosed { slot, code, .. } => {
            Event::StreamClosed { slot: slot.index() as u8, code }
        }
        client::Event::Oversize { size, .. } => Event::MessageSkipped { size },
        client::Event::PathValidated => Event::PathValidated,
        client::Event::PathFailed => Event::PathFailed,
        client::Event::KeysUpdated => Event::KeysUpdated,
        client::Event::TicketReceived => Event::TicketReceived,
        client::Event::Disconnected(cause) => Event::Disconnected(disconnection(cause)),
        _ => return None,
    })
}

/// CONNACK has an event of its own.
const fn phase(phase: client::Phase) -> Option<HandshakePhase> {
    Some(match phase {
        client::Phase::Started => HandshakePhase::Started,
        client::Phase::TcpEstablished => HandshakePhase::TcpEstablished,
        client::Phase::ServerHello => HandshakePhase::KeysAgreed,
        client::Phase::CertificateVerified => HandshakePhase::ServerAuthenticated,
        client::Phase::HandshakeComplete => HandshakePhase::Complete,
        client::Phase::HandshakeConfirmed => HandshakePhase::Confirmed,
        client::Phase::ConnectSent => HandshakePhase::ConnectSent,
        client::Phase::Connack => return None,
    })
}

/// Why a request that was taken is given up: what the broker told of itself only later.
pub(super) const fn abandoned(error: mqtt::RequestError) -> AbandonReason {
    match error {
        mqtt::RequestError::TooLarge => AbandonReason::TooLarge,
        mqtt::RequestError::StreamRefused => AbandonReason::StreamRefused,
        _ => AbandonReason::Unsupported,
    }
}

fn disconnection(cause: client::Cause) -> Disconnection {
    let (cause, code, detail) = match cause {
        client::Cause::Requested => (Cause::Requested, 0, ""),
        client::Cause::Transport(failure) => (self::cause(failure.kind), failure.code, failure.detail),
        client::Cause::Refused(reason) => (Cause::ConnectionRefused, reason.0.into(), reason.name()),
        client::Cause::ServerDisconnect(reason) => (Cause::BrokerDisconnect, reason.0.into(), reason.name()),
        client::Cause::ControlStreamEnded(code) => (Cause::EndedByPeer, code.unwrap_or(0), "control stream"),
        client::Cause::Protocol(error) if error.reason == ReasonCode::QUOTA_EXCEEDED => {
            (Cause::DeviceLimit, error.reason.0.into(), "more messages in flight than it remembers")
        }
        client::Cause::Protocol(error) => (Cause::MqttError, error.reason.0.into(), error.field),
        client::Cause::ConnectTimeout => (Cause::ConnectTimeout, 0, ""),
        client::Cause::ConnackTimeout => (Cause::ConnackTimeout, 0, ""),
        client::Cause::KeepAliveTimeout => (Cause::KeepAliveTimeout, 0, ""),
        client::Cause::Stalled => (Cause::Stalled, 0, ""),
        client::Cause::Forgotten => (Cause::Reset, 0, "the server no longer knows the connection"),
        client::Cause::Options(field) => (Cause::BadSettings, 0, field),
    };
    Disconnection { cause, code, detail: clipped(detail) }
}

const fn cause(kind: FailureKind) -> Cause {
    match kind {
        FailureKind::Local => Cause::Requested,
        FailureKind::Resource => Cause::DeviceLimit,
        FailureKind::Caller => Cause::BadSettings,
        FailureKind::PeerApplication => Cause::ClosedByApplication,
        FailureKind::PeerTransport => Cause::ClosedByPeer,
        FailureKind::PeerViolation => Cause::TransportError,
        FailureKind::Tls => Cause::TlsRefused,
        FailureKind::Timeout => Cause::Timeout,
        FailureKind::Reset => Cause::Reset,
        FailureKind::Version => Cause::VersionMismatch,
        FailureKind::Refused => Cause::Refused,
        FailureKind::Unreachable => Cause::Unreachable,
        FailureKind::Finished => Cause::EndedByPeer,
    }
}

/// The client's counters in the report's words.
pub(super) fn stats(stats: &client::Stats) -> (TransportStats, MqttStats) {
    let client::Stats { transport, session, policy, .. } = *stats;
    let transport = TransportStats {
        handshakes_full: policy.connections - policy.resumptions,
        handshakes_resumed: policy.resumptions - policy.early_data_accepted,
        handshakes_early: policy.early_data_accepted,
        datagrams_sent: narrow(transport.datagrams_sent),
        datagrams_received: narrow(transport.datagrams_received),
        bytes_sent: transport.bytes_sent,
        bytes_received: transport.bytes_received,
        packets_sent: narrow(transport.packets_sent),
        packets_received: narrow(transport.packets_received),
        packets_lost: narrow(transport.packets_lost),
        packets_spurious: narrow(transport.packets_spuriously_lost),
        packets_dropped: narrow(transport.packets_dropped),
        pto_count: narrow(transport.pto_count),
        rtt_latest_us: narrow(transport.latest_rtt.as_micros()),
        rtt_smoothed_us: narrow(transport.smoothed_rtt.as_micros()),
        rtt_min_us: narrow(transport.min_rtt.as_micros()),
        rtt_variation_us: narrow(transport.rtt_variation.as_micros()),
        congestion_window: narrow(transport.congestion_window),
        bytes_in_flight: narrow(transport.bytes_in_flight),
        key_updates: narrow(transport.key_updates),
        migrations: narrow(transport.migrations),
        send_buffer_max: transport.send_buffer_max,
        receive_buffer_max: transport.receive_buffer_max,
        sent_packets_max: transport.sent_packets_max,
    };
    let mqtt = MqttStats {
        attempts: policy.attempts,
        connects: policy.connections,
        migrations_wanted: policy.migrations_wanted,
        publishes_sent: session.publishes_sent,
        publishes_repeated: session.publishes_resent,
        acknowledged: session.publishes_acknowledged,
        messages_received: session.messages_received,
        duplicates_suppressed: session.duplicates_suppressed,
        oversize_skipped: session.oversize_skipped,
        refused_full: session.refused_full,
        pings_sent: session.pings_sent,
        store_bytes_max: session.store_bytes_max,
        store_count_max: session.store_count_max,
    };
    (transport, mqtt)
}

fn narrow(counter: u64) -> u32 {
    u32::try_from(counter).unwrap_or(u32::MAX)
}

fn milliseconds(ms: u32) -> Duration {
    Duration::from_millis(ms.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_request_is_given_up_reaches_the_harness() {
        assert_eq!(abandoned(mqtt::RequestError::TooLarge), AbandonReason::TooLarge);
        assert_eq!(abandoned(mqtt::RequestError::StreamRefused), AbandonReason::StreamRefused);
        assert_eq!(abandoned(mqtt::RequestError::QosNotSupported), AbandonReason::Unsupported);
    }

    #[test]
    fn who_has_to_change_something_reaches_the_harness() {
        let told = |kind| {
            let failure = client::Failure { kind, code: 0x0d, detail: "why" };
            disconnection(client::Cause::Transport(failure)).cause
        };
        assert_eq!(told(FailureKind::Resource), Cause::DeviceLimit);
        assert_eq!(told(FailureKind::Caller), Cause::BadSettings);
        assert_eq!(told(FailureKind::PeerViolation), Cause::TransportError);
        assert_eq!(told(FailureKind::Tls), Cause::TlsRefused);
        assert_eq!(told(FailureKind::PeerTransport), Cause::ClosedByPeer);
        assert_eq!(disconnection(client::Cause::Options("why")).cause, Cause::BadSettings);
        let protocol = |reason| {
            disconnection(client::Cause::Protocol(mqtt::Error { reason, field: "publish.packet_id" })).cause
        };
        assert_eq!(protocol(ReasonCode::QUOTA_EXCEEDED), Cause::DeviceLimit);
        assert_eq!(protocol(ReasonCode::RECEIVE_MAXIMUM_EXCEEDED), Cause::MqttError);
    }
}
