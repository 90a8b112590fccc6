//! What a handshake and a message cost in energy: measured by a power analyser, or estimated.
//!
//! A measurement is a trace of current over time ([`trace`]), recorded beside a run and laid over it afterwards: any
//! analyser that exports CSV will do. (The crate for Nordic's PPK2 was last released for another generation of its
//! firmware, so its own software records and this reads what it exports.) Without one there is an [`estimate`] from the times
//! and packets of the run and the data sheet's currents, and every figure says which of the two it is.

pub mod estimate;
pub mod trace;

use crate::measure::record::{Activity, Energy, Handshake, Phase, Trial};

/// A span of a trial that belongs to one activity.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Span {
    activity: Activity,
    start_us: u64,
    end_us: u64,
    /// Occurrences of the activity in it.
    count: usize,
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
        spans.push(Span { activity, start_us, end_us: start_us + elapsed, count: 1 });
    }
    let acked = trial.messages.iter().filter(|message| message.qos == 1 && message.acked_us.is_some());
    let acked: Vec<_> = acked.collect();
    let start = acked.iter().map(|message| message.sent_us.unwrap_or(message.intended_us)).min();
    let end = acked.iter().filter_map(|message| message.acked_us).max();
    if let (Some(start_us), Some(end_us)) = (start, end) {
        spans.push(Span { activity: Activity::PublishQos1, start_us, end_us, count: acked.len() });
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
            let sent = estimate::sent(trial, span.activity);
            let spent =
                estimate::Use::of(accounts, span.start_us, span.end_us).unwrap_or(estimate::Use::LISTENING);
            energy(span, currents.microjoules(duration_s, spent, sent), false)
        })
        .collect()
}
