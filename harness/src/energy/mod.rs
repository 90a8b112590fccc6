//! What a handshake and a message cost in energy: measured by a power analyser, or estimated.
//!
//! A measurement is a trace of current over time ([`trace`]), recorded beside a run and laid over it afterwards: any
//! analyser that exports CSV will do. (The crate for Nordic's PPK2 was last released for another generation of its
//! firmware, so its own software records and this reads what it exports.) Without one there is an [`estimate`] from the times
//! and packets of the run and the data sheet's currents, and every figure says which of the two it is.

pub mod estimate;
pub mod trace;

use crate::measure::record::{Activity, Direction, Energy, Handshake, Phase, Trial, Wire, WirePhase};

/// A span of a trial that belongs to one activity.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Span {
    activity: Activity,
    start_us: u64,
    end_us: u64,
    /// Occurrences of the activity in it.
    count: usize,
    /// What the board sent for it.
    sent: Wire,
}

/// The spans of a trial whose energy is told: each handshake up to its CONNACK, and the workload as a whole, whose messages
/// share what it takes.
fn spans(trial: &Trial) -> Vec<Span> {
    let mut spans = Vec::new();
    for connection in &trial.connections {
        let Some(elapsed) = connection.elapsed_us(Phase::Connack) else { continue };
        let activity = match connection.handshake {
            Handshake::Full => Activity::HandshakeFull,
            Handshake::Resumed => Activity::HandshakeResumed,
            Handshake::ZeroRtt => Activity::HandshakeZeroRtt,
            Handshake::None => continue,
        };
        let start_us = connection.started_us;
        let sent = connection.client_to_connack.unwrap_or_default();
        spans.push(Span { activity, start_us, end_us: start_us + elapsed, count: 1, sent });
    }
    // The peer's messages are acknowledged, too, but they are not the board's publishes.
    let acked = trial.messages.iter().filter(|message| {
        message.direction == Direction::FromBoard && message.qos == 1 && message.acked_us.is_some()
    });
    let acked: Vec<_> = acked.collect();
    let start = acked.iter().map(|message| message.sent_us.unwrap_or(message.intended_us)).min();
    let end = acked.iter().filter_map(|message| message.acked_us).max();
    if let (Some(start_us), Some(end_us)) = (start, end) {
        let workload = trial.wire.iter().find(|count| count.phase == WirePhase::Workload);
        let sent = workload.map(|count| count.up).unwrap_or_default();
        spans.push(Span { activity: Activity::PublishQos1, start_us, end_us, count: acked.len(), sent });
    }
    spans
}

fn energy(span: &Span, microjoules: f64, measured: bool) -> Energy {
    Energy { activity: span.activity, microjoules: microjoules / span.count as f64, measured }
}

/// The energies of a trial by a trace whose clock reads `offset_s` at the trial's start.
///
/// # Errors
/// The span that the trace does not cover.
pub fn measured(
    trial: &Trial,
    trace: &trace::Trace,
    offset_s: f64,
) -> Result<Vec<Energy>, trace::TraceError> {
    let at = |us: u64| offset_s + us as f64 / 1e6;
    spans(trial)
        .iter()
        .map(|span| Ok(energy(span, trace.microjoules(at(span.start_us), at(span.end_us))?, true)))
        .collect()
}

/// The energies of a trial as [`estimate`] tells them, with the board's `accounts` of its time.
pub fn estimated(
    trial: &Trial,
    currents: &estimate::Currents,
    accounts: &[estimate::Account],
) -> Vec<Energy> {
    spans(trial)
        .iter()
        .map(|span| {
            let duration_s = span.end_us.saturating_sub(span.start_us) as f64 / 1e6;
            let spent =
                estimate::Use::of(accounts, span.start_us, span.end_us).unwrap_or(estimate::Use::LISTENING);
            energy(span, currents.microjoules(duration_s, spent, span.sent), false)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::record::{ConnectCause, Connection, Mark, Role, Transport, WireCount};
    use crate::measure::sample::one_message as message;

    fn handshake(started_us: u64, sent: Wire) -> Connection {
        Connection {
            cause: ConnectCause::First,
            handshake: Handshake::Full,
            started_us,
            marks: vec![Mark { phase: Phase::Connack, at_us: started_us + 100 }],
            client_to_connack: Some(sent),
            server_to_connack: None,
            round_trips: None,
            failure: None,
        }
    }

    fn trial() -> Trial {
        Trial::new("quic", Transport::Quic, Role::Device, 1)
    }

    #[test]
    fn the_peers_messages_are_no_publishes_of_the_board() {
        let mut trial = trial();
        trial.messages = vec![
            message(Direction::FromBoard, 1_000_000, Some(1_500_000)),
            message(Direction::FromBoard, 1_500_000, Some(2_000_000)),
            message(Direction::ToBoard, 900_000, Some(2_400_000)),
            message(Direction::ToBoard, 1_000_000, Some(1_100_000)),
        ];
        let trace = trace::Trace::read("time_s,current_A\n0,0.1\n5,0.1\n".as_bytes(), 3.3).expect("a trace");
        let energies = measured(&trial, &trace, 0.0).expect("all of it is covered");
        assert_eq!(energies.len(), 1);
        // A second at 330 mW, for two publishes.
        assert!((energies[0].microjoules - 165_000.0).abs() < 0.01, "{}", energies[0].microjoules);
    }

    #[test]
    fn a_handshake_is_charged_the_packets_it_sent_itself() {
        let mut trial = trial();
        let own = [Wire { packets: 5, bytes: 1_596 }, Wire { packets: 2, bytes: 1_334 }];
        trial.connections = vec![handshake(0, own[0]), handshake(1_000, own[1])];
        let all = Wire { packets: 40, bytes: 20_000 };
        trial.wire = vec![WireCount { phase: WirePhase::Connect, up: all, down: all }];
        let sent: Vec<_> = spans(&trial).iter().map(|span| span.sent).collect();
        assert_eq!(sent, own);
    }
}
