//! Metrics of connection attempts.

use super::{one, samples, span};
use crate::measure::record::{ConnectFailureKind, Connection, Handshake, Phase, Trial, Wire};
use crate::measure::stats::Observed;

/// Attempts, save those that the harness itself ended.
fn attempts(trial: &Trial, kind: Option<Handshake>) -> impl Iterator<Item = &Connection> {
    let asked = |connection: &Connection| {
        connection.failure.as_ref().is_some_and(|failure| failure.kind == ConnectFailureKind::Requested)
    };
    let wanted = move |connection: &Connection| kind.is_none_or(|kind| kind == connection.handshake);
    trial.connections.iter().filter(move |connection| wanted(connection) && !asked(connection))
}

/// Attempts that reached CONNACK.
fn made(trial: &Trial, kind: Option<Handshake>) -> impl Iterator<Item = &Connection> {
    attempts(trial, kind).filter(|connection| connection.elapsed_us(Phase::Connack).is_some())
}

pub(crate) fn time_to_connack(trial: &Trial, kind: Option<Handshake>) -> Option<Observed> {
    samples(attempts(trial, kind).map(|connection| span(0, connection.elapsed_us(Phase::Connack))))
}

pub(crate) fn handshake_time(trial: &Trial) -> Option<Observed> {
    samples(attempts(trial, None).filter_map(|connection| {
        let end = match connection.handshake {
            Handshake::None => Phase::TcpConnected,
            _ => Phase::HandshakeComplete,
        };
        let elapsed = connection.elapsed_us(end);
        // One that came as far as CONNACK had its handshake; its client does not tell when.
        let untold = elapsed.is_none() && connection.elapsed_us(Phase::Connack).is_some();
        (!untold).then(|| span(0, elapsed))
    }))
}

pub(crate) fn round_trips(trial: &Trial) -> Option<Observed> {
    samples(made(trial, None).filter_map(|connection| connection.round_trips))
}

pub(crate) fn client_bytes(trial: &Trial, kind: Option<Handshake>) -> Option<Observed> {
    samples(made(trial, kind).filter_map(|connection| Some(connection.client_to_connack?.bytes as f64)))
}

pub(crate) fn server_bytes(trial: &Trial) -> Option<Observed> {
    samples(made(trial, None).filter_map(|connection| Some(connection.server_to_connack?.bytes as f64)))
}

pub(crate) fn packets(trial: &Trial) -> Option<Observed> {
    let both = |connection: &Connection| -> Option<Wire> {
        Some(connection.client_to_connack? + connection.server_to_connack?)
    };
    samples(made(trial, None).filter_map(|connection| Some(both(connection)?.packets as f64)))
}

pub(crate) fn failures(trial: &Trial) -> Option<Observed> {
    one(attempts(trial, None).filter(|connection| connection.elapsed_us(Phase::Connack).is_none()).count()
        as f64)
}

pub(crate) fn count(trial: &Trial, kind: Option<Handshake>) -> Option<Observed> {
    one(made(trial, kind).count() as f64)
}

pub(crate) fn certificate_refusals(trial: &Trial) -> Option<Observed> {
    let refused = attempts(trial, None).filter_map(|connection| connection.failure.as_ref());
    one(refused.filter(|failure| failure.kind == ConnectFailureKind::Certificate).count() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::record::{ConnectCause, Mark, Role, Transport};

    fn attempt(handshake: Handshake, marks: &[(Phase, u64)]) -> Connection {
        Connection {
            cause: ConnectCause::First,
            handshake,
            started_us: 0,
            marks: marks.iter().map(|&(phase, at_us)| Mark { phase, at_us }).collect(),
            client_to_connack: None,
            server_to_connack: None,
            round_trips: None,
            failure: None,
        }
    }

    fn trial(connections: Vec<Connection>) -> Trial {
        Trial { connections, ..Trial::new("tcp", Transport::Tcp, Role::Reference, 1) }
    }

    #[test]
    fn an_attempt_that_the_harness_ended_is_not_measured() {
        use crate::measure::record::ConnectFailure;
        let failed = |kind| Connection {
            failure: Some(ConnectFailure { kind, detail: String::new(), alert: None }),
            ..attempt(Handshake::Full, &[])
        };
        let asked = failed(ConnectFailureKind::Requested);
        let trial = trial(vec![asked.clone(), failed(ConnectFailureKind::Timeout), asked]);
        assert_eq!(failures(&trial), one(1.0));
        assert_eq!(time_to_connack(&trial, None), one(f64::INFINITY));
    }

    #[test]
    fn a_handshake_whose_end_the_client_does_not_tell_is_not_measured() {
        let untold = attempt(Handshake::None, &[(Phase::FirstPacket, 1), (Phase::Connack, 90)]);
        assert_eq!(handshake_time(&trial(vec![untold.clone()])), None);
        let told = attempt(Handshake::None, &[(Phase::TcpConnected, 40), (Phase::Connack, 90)]);
        let failed = attempt(Handshake::None, &[(Phase::FirstPacket, 1)]);
        let times = handshake_time(&trial(vec![untold, told, failed]));
        assert_eq!(times, samples([40.0, f64::INFINITY].into_iter()));
    }
}
