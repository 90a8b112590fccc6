//! Metrics of connection attempts.

use super::{one, samples, span};
use crate::measure::record::{ConnectFailureKind, Connection, Handshake, Phase, Trial, Wire};
use crate::measure::stats::Observed;

fn attempts(trial: &Trial, kind: Option<Handshake>) -> impl Iterator<Item = &Connection> {
    trial.connections.iter().filter(move |connection| kind.is_none_or(|kind| kind == connection.handshake))
}

/// Attempts that reached CONNACK.
fn made(trial: &Trial, kind: Option<Handshake>) -> impl Iterator<Item = &Connection> {
    attempts(trial, kind).filter(|connection| connection.elapsed_us(Phase::Connack).is_some())
}

pub(crate) fn time_to_connack(trial: &Trial, kind: Option<Handshake>) -> Option<Observed> {
    samples(attempts(trial, kind).map(|connection| span(0, connection.elapsed_us(Phase::Connack))))
}

pub(crate) fn handshake_time(trial: &Trial) -> Option<Observed> {
    samples(attempts(trial, None).map(|connection| {
        let end = match connection.handshake {
            Handshake::None => Phase::TcpConnected,
            _ => Phase::HandshakeComplete,
        };
        span(0, connection.elapsed_us(end))
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
