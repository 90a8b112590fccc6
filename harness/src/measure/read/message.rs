//! Metrics of the workload's messages.

use super::{one, quotient, samples, span};
use crate::measure::record::{Direction, Fate, Message, Trial};
use crate::measure::stats::Observed;

fn going(trial: &Trial, direction: Option<Direction>) -> impl Iterator<Item = &Message> {
    trial.messages.iter().filter(move |message| direction.is_none_or(|d| d == message.direction))
}

pub(crate) fn delivery(trial: &Trial, direction: Option<Direction>) -> Option<Observed> {
    let arrived = going(trial, direction).filter(|message| message.fate.arrived()).count();
    quotient(arrived as f64, going(trial, direction).count() as f64)
}

fn acknowledgeable(trial: &Trial) -> impl Iterator<Item = &Message> {
    going(trial, Some(Direction::FromBoard)).filter(|message| message.qos > 0)
}

pub(crate) fn acknowledged(trial: &Trial) -> Option<Observed> {
    let acked = acknowledgeable(trial).filter(|message| message.acked_us.is_some()).count();
    quotient(acked as f64, acknowledgeable(trial).count() as f64)
}

pub(crate) fn publish_latency(trial: &Trial) -> Option<Observed> {
    samples(acknowledgeable(trial).map(|message| span(message.intended_us, message.acked_us)))
}

pub(crate) fn end_to_end(trial: &Trial, direction: Option<Direction>) -> Option<Observed> {
    let arrival = |message: &Message| message.delivered_us.filter(|_| message.fate.arrived());
    samples(going(trial, direction).map(|message| span(message.intended_us, arrival(message))))
}

pub(crate) fn backlog(trial: &Trial) -> Option<Observed> {
    samples(
        going(trial, Some(Direction::FromBoard)).map(|message| span(message.intended_us, message.sent_us)),
    )
}

pub(crate) fn count(trial: &Trial) -> Option<Observed> {
    one(trial.messages.len() as f64)
}

fn with_fate(trial: &Trial, fates: &[Fate]) -> Option<Observed> {
    if trial.messages.is_empty() {
        return None;
    }
    one(trial.messages.iter().filter(|message| fates.contains(&message.fate)).count() as f64)
}

pub(crate) fn lost(trial: &Trial) -> Option<Observed> {
    with_fate(trial, &[Fate::Lost, Fate::TimedOut])
}

pub(crate) fn duplicates(trial: &Trial) -> Option<Observed> {
    with_fate(trial, &[Fate::Duplicated])
}

pub(crate) fn reordered(trial: &Trial) -> Option<Observed> {
    with_fate(trial, &[Fate::Reordered])
}

pub(crate) fn corrupt(trial: &Trial) -> Option<Observed> {
    with_fate(trial, &[Fate::Corrupt])
}

/// Seconds from the first intended send to the last arrival.
fn seconds(trial: &Trial, direction: Option<Direction>) -> Option<f64> {
    let first = going(trial, direction).map(|message| message.intended_us).min()?;
    let last = going(trial, direction).filter_map(|message| message.delivered_us).max()?;
    (last > first).then(|| (last - first) as f64 / 1e6)
}

pub(crate) fn throughput(trial: &Trial, direction: Direction) -> Option<Observed> {
    let arrived = going(trial, Some(direction)).filter(|message| message.fate.arrived());
    let bits: f64 = arrived.map(|message| f64::from(message.size) * 8.0).sum();
    one(bits / seconds(trial, Some(direction))?)
}

pub(crate) fn rate(trial: &Trial) -> Option<Observed> {
    let arrived = trial.messages.iter().filter(|message| message.fate.arrived()).count();
    one(arrived as f64 / seconds(trial, None)?)
}
