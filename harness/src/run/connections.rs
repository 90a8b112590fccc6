//! The board's events turned into connection attempts and a time line.

use device::control::{Cause, Disconnection, Event as BoardEvent, HandshakePhase, Resumed, Resumption};

use crate::measure::record::{
    ConnectCause, ConnectFailure, ConnectFailureKind, Connection, Event, EventKind, Handshake, Mark, Phase,
    Transport,
};

/// Gathers the attempts and events of one trial.
pub struct Connections {
    transport: Transport,
    attempts: Vec<Connection>,
    events: Vec<Event>,
    /// Whether the attempt under way was asked for by a step.
    asked: bool,
}

impl Connections {
    /// For a trial over `transport`.
    pub fn new(transport: Transport) -> Self {
        Self { transport, attempts: Vec::new(), events: Vec::new(), asked: false }
    }

    /// A step of the scenario is about to make the board connect anew.
    pub fn expect_reconnect(&mut self) {
        self.asked = true;
    }

    /// Takes one event of the board, which happened at `at_us` on the trial's clock.
    pub fn on_event(&mut self, at_us: u64, event: &BoardEvent) {
        match event {
            BoardEvent::Connecting { resumption, .. } => self.start(at_us, *resumption),
            BoardEvent::Handshake(phase) => self.mark_handshake(at_us, *phase),
            BoardEvent::MqttConnected { resumed, session_present } => {
                self.connected(at_us, *resumed, *session_present);
            }
            BoardEvent::Subscribed { .. } => self.mark_once(at_us, Phase::Subscribed),
            BoardEvent::Disconnected(disconnection) => self.disconnected(at_us, disconnection),
            BoardEvent::MigrationStarted { port } => {
                self.event(at_us, EventKind::Migrated, format!("local port {port}"));
            }
            BoardEvent::PathValidated => self.event(at_us, EventKind::PathValidated, String::new()),
            BoardEvent::KeysUpdated => self.event(at_us, EventKind::KeyUpdated, String::new()),
            _ => {}
        }
    }

    /// Adds an event that is not the board's own.
    pub fn event(&mut self, at_us: u64, kind: EventKind, detail: impl Into<String>) {
        self.events.push(Event { at_us, kind, detail: detail.into() });
    }

    /// The attempts and events, in order of time. An attempt still under way counts as failed.
    pub fn finish(mut self) -> (Vec<Connection>, Vec<Event>) {
        if let Some(last) = self.attempts.last_mut().filter(|last| !is_connected(last)) {
            last.failure.get_or_insert_with(|| ConnectFailure {
                kind: ConnectFailureKind::Timeout,
                detail: "still under way when the trial ended".to_owned(),
                alert: None,
            });
        }
        self.events.sort_by_key(|event| event.at_us);
        (self.attempts, self.events)
    }

    fn start(&mut self, at_us: u64, resumption: Resumption) {
        let cause = match (self.attempts.is_empty(), std::mem::take(&mut self.asked)) {
            (true, _) => ConnectCause::First,
            (false, true) => ConnectCause::Step,
            (false, false) => ConnectCause::Recovery,
        };
        let handshake = match (self.transport, resumption) {
            (Transport::Tcp, _) => Handshake::None,
            (_, Resumption::Off) => Handshake::Full,
            (_, Resumption::Ticket) => Handshake::Resumed,
            (_, Resumption::EarlyData) => Handshake::ZeroRtt,
        };
        self.attempts.push(Connection {
            cause,
            handshake,
            started_us: at_us,
            marks: Vec::new(),
            client_to_connack: None,
            server_to_connack: None,
            round_trips: None,
            failure: None,
        });
    }

    fn mark_handshake(&mut self, at_us: u64, phase: HandshakePhase) {
        let phase = match phase {
            HandshakePhase::TcpEstablished => Phase::TcpConnected,
            HandshakePhase::Started => Phase::FirstPacket,
            HandshakePhase::KeysAgreed => Phase::HandshakeKeys,
            HandshakePhase::ServerAuthenticated => Phase::CertificateVerified,
            HandshakePhase::Complete => Phase::HandshakeComplete,
            HandshakePhase::ConnectSent => Phase::ConnectSent,
            HandshakePhase::RetryReceived
            | HandshakePhase::HelloRetryRequested
            | HandshakePhase::Confirmed => return,
        };
        self.mark_once(at_us, phase);
    }

    fn connected(&mut self, at_us: u64, resumed: Resumed, session_present: bool) {
        self.mark_once(at_us, Phase::Connack);
        if let Some(attempt) = self.attempts.last_mut().filter(|attempt| attempt.handshake != Handshake::None)
        {
            attempt.handshake = match resumed {
                Resumed::Full => Handshake::Full,
                Resumed::Ticket | Resumed::EarlyDataRefused => Handshake::Resumed,
                Resumed::EarlyData => Handshake::ZeroRtt,
            };
        }
        let session = if session_present { "session resumed" } else { "new session" };
        self.event(at_us, EventKind::Connected, session);
    }

    fn disconnected(&mut self, at_us: u64, disconnection: &Disconnection) {
        let why = describe(disconnection);
        if let Some(attempt) = self.attempts.last_mut().filter(|attempt| !is_connected(attempt)) {
            // A client that stops waiting to try again says so of the same attempt.
            attempt.failure.get_or_insert_with(|| ConnectFailure {
                kind: kind(disconnection, self.transport),
                detail: why.clone(),
                alert: alert(disconnection, self.transport),
            });
        }
        let asked = disconnection.cause == Cause::Requested;
        self.event(at_us, if asked { EventKind::Left } else { EventKind::Disconnected }, why);
    }

    fn mark_once(&mut self, at_us: u64, phase: Phase) {
        if let Some(attempt) = self.attempts.last_mut()
            && attempt.marks.iter().all(|mark| mark.phase != phase)
        {
            attempt.marks.push(Mark { phase, at_us });
        }
    }
}

/// A disconnection in words, with what to do about it where the board itself could not go on.
pub fn describe(disconnection: &Disconnection) -> String {
    let Disconnection { cause, code, detail } = disconnection;
    let mut words = match (code, detail.is_empty()) {
        (0, true) => format!("{cause:?}"),
        (0, false) => format!("{cause:?}: {detail}"),
        (code, true) => format!("{cause:?} (code {code:#x})"),
        (code, false) => format!("{cause:?} (code {code:#x}): {detail}"),
    };
    if let Some(remedy) = remedy(disconnection) {
        words.push_str("; ");
        words.push_str(remedy);
    }
    words
}

/// What helps a board that could not go on, through no fault of the broker's.
fn remedy(disconnection: &Disconnection) -> Option<&'static str> {
    match (disconnection.cause, disconnection.code) {
        (Cause::DeviceLimit, AEAD_LIMIT_REACHED) => Some("it connects anew, with new keys"),
        (Cause::DeviceLimit, QUOTA_EXCEEDED) => Some(
            "it gets the rest on the next connection; MQTT 5.0 tells the broker the limit, a smaller in-flight window \
             of the broker's keeps it",
        ),
        // What else is limited is the handshake, and certificates are most of it.
        (Cause::DeviceLimit, _) => Some("use shorter certificate chains (no root, P-256 keys)"),
        (Cause::BadSettings, _) => Some("correct the scenario's settings of the client"),
        _ => None,
    }
}

/// What a disconnection means for an attempt that had no CONNACK yet.
fn kind(disconnection: &Disconnection, transport: Transport) -> ConnectFailureKind {
    let alert = alert(disconnection, transport);
    match disconnection.cause {
        Cause::TlsRefused if alert.is_some_and(|alert| CERTIFICATE_ALERTS.contains(&alert)) => {
            ConnectFailureKind::Certificate
        }
        Cause::ConnectTimeout | Cause::ConnackTimeout | Cause::Timeout | Cause::Stalled => {
            ConnectFailureKind::Timeout
        }
        Cause::TlsRefused
        | Cause::Refused
        | Cause::ConnectionRefused
        | Cause::Reset
        | Cause::EndedByPeer
        | Cause::ClosedByPeer
        | Cause::ClosedByApplication
        | Cause::BrokerDisconnect => ConnectFailureKind::Refused,
        // With words to it, it is what the client itself refused to do.
        Cause::Requested if disconnection.detail.is_empty() => ConnectFailureKind::Requested,
        _ => ConnectFailureKind::Other,
    }
}

/// The TLS alert behind a disconnection: its own number over TLS, 0x100 more over QUIC (RFC 9001 4.8).
fn alert(disconnection: &Disconnection, transport: Transport) -> Option<u8> {
    if !matches!(disconnection.cause, Cause::TlsRefused | Cause::ClosedByPeer) {
        return None;
    }
    let base = if transport == Transport::Quic { 0x100 } else { 0 };
    u8::try_from(disconnection.code.checked_sub(base)?).ok()
}

/// Alerts by which this client refuses a certificate: bad_certificate to unknown_ca, and decrypt_error for its
/// signature (RFC 8446 6.2).
const CERTIFICATE_ALERTS: [u8; 7] = [42, 43, 44, 45, 46, 48, 51];

/// A QUIC error (RFC 9000 20.1).
const AEAD_LIMIT_REACHED: u64 = 0x0f;
/// An MQTT reason code (MQTT 5.0 2.4).
const QUOTA_EXCEEDED: u64 = 0x97;

fn is_connected(connection: &Connection) -> bool {
    connection.marks.iter().any(|mark| mark.phase == Phase::Connack)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(connections: &mut Connections, at_us: u64, resumed: Resumed) {
        connections.on_event(at_us, &BoardEvent::Connecting { attempt: 1, resumption: Resumption::Ticket });
        connections.on_event(at_us + 10, &BoardEvent::Handshake(HandshakePhase::KeysAgreed));
        connections.on_event(at_us + 30, &BoardEvent::MqttConnected { session_present: false, resumed });
    }

    fn lost() -> BoardEvent {
        let detail = "nothing heard".try_into().expect("short");
        BoardEvent::Disconnected(Disconnection { cause: Cause::Timeout, code: 0, detail })
    }

    #[test]
    fn causes_tell_a_step_from_a_recovery() {
        let mut connections = Connections::new(Transport::Quic);
        connect(&mut connections, 0, Resumed::Full);
        connections.on_event(50, &lost());
        connect(&mut connections, 100, Resumed::Ticket);
        connections.expect_reconnect();
        connect(&mut connections, 200, Resumed::EarlyData);
        let (attempts, _) = connections.finish();
        let causes: Vec<_> = attempts.iter().map(|attempt| (attempt.cause, attempt.handshake)).collect();
        assert_eq!(
            causes,
            [
                (ConnectCause::First, Handshake::Full),
                (ConnectCause::Recovery, Handshake::Resumed),
                (ConnectCause::Step, Handshake::ZeroRtt)
            ]
        );
        assert_eq!(attempts[0].elapsed_us(Phase::Connack), Some(30));
    }

    #[test]
    fn an_attempt_that_ends_before_connack_has_failed() {
        let mut connections = Connections::new(Transport::Quic);
        connections.on_event(0, &BoardEvent::Connecting { attempt: 1, resumption: Resumption::Off });
        connections.on_event(9, &lost());
        let (attempts, events) = connections.finish();
        let failure = attempts[0].failure.as_ref().expect("it ended before CONNACK");
        assert_eq!(
            (failure.kind, failure.detail.as_str()),
            (ConnectFailureKind::Timeout, "Timeout: nothing heard")
        );
        assert_eq!(events[0].kind, EventKind::Disconnected);
    }

    #[test]
    fn an_attempt_that_the_harness_ended_is_no_failure_of_the_boards() {
        let attempts = |ends: &[BoardEvent]| {
            let mut connections = Connections::new(Transport::Quic);
            connections.on_event(0, &BoardEvent::Connecting { attempt: 1, resumption: Resumption::Off });
            ends.iter().for_each(|end| connections.on_event(9, end));
            connections.finish().0
        };
        let requested = |detail: &str| {
            let detail = detail.try_into().expect("short");
            BoardEvent::Disconnected(Disconnection { cause: Cause::Requested, code: 0, detail })
        };
        let asked = requested("");
        let kind = |ends: &[BoardEvent]| attempts(ends)[0].failure.as_ref().map(|failure| failure.kind);
        assert_eq!(kind(std::slice::from_ref(&asked)), Some(ConnectFailureKind::Requested));
        assert_eq!(kind(&[requested("it is in use")]), Some(ConnectFailureKind::Other), "not the harness");
        assert_eq!(kind(&[lost(), asked]), Some(ConnectFailureKind::Timeout), "it had failed already");
    }

    #[test]
    fn a_limit_of_the_board_is_told_as_the_boards_with_a_remedy() {
        let words = |cause, code, detail: &str| {
            describe(&Disconnection { cause, code, detail: detail.try_into().expect("short") })
        };
        assert_eq!(
            words(Cause::DeviceLimit, 0x0d, "more handshake data than the buffer holds"),
            "DeviceLimit (code 0xd): more handshake data than the buffer holds; \
             use shorter certificate chains (no root, P-256 keys)"
        );
        assert!(words(Cause::DeviceLimit, AEAD_LIMIT_REACHED, "").ends_with("with new keys"));
        assert!(words(Cause::DeviceLimit, QUOTA_EXCEEDED, "").contains("MQTT 5.0"));
        assert!(words(Cause::BadSettings, 0, "connect.will_topic").contains("correct the scenario"));
        assert!(!words(Cause::TransportError, 0x0d, "").contains("certificate"));
    }

    #[test]
    fn a_certificate_that_the_server_refused_is_not_told_as_the_servers() {
        let failure = |cause| {
            let mut connections = Connections::new(Transport::Quic);
            connections.on_event(0, &BoardEvent::Connecting { attempt: 1, resumption: Resumption::Off });
            let detail = "".try_into().expect("short");
            let bad_certificate = Disconnection { cause, code: 0x100 + 42, detail };
            connections.on_event(9, &BoardEvent::Disconnected(bad_certificate));
            let failure = connections.finish().0.remove(0).failure.expect("it ended before CONNACK");
            (failure.kind, failure.alert)
        };
        assert_eq!(failure(Cause::TlsRefused), (ConnectFailureKind::Certificate, Some(42)));
        assert_eq!(failure(Cause::ClosedByPeer), (ConnectFailureKind::Refused, Some(42)));
    }

    #[test]
    fn an_attempt_under_way_at_the_end_is_not_passed_over() {
        let mut connections = Connections::new(Transport::Tcp);
        connections.on_event(0, &BoardEvent::Connecting { attempt: 1, resumption: Resumption::Off });
        let (attempts, _) = connections.finish();
        assert!(attempts[0].failure.is_some());
        assert_eq!(attempts[0].handshake, Handshake::None);
    }
}
