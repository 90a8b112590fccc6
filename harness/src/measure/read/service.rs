//! Metrics of keeping the service up through disturbances.

use super::{one, samples, span};
use crate::measure::record::{ConnectCause, Direction, EventKind, Message, Phase, Trial};
use crate::measure::stats::Observed;

const DIRECTIONS: [Direction; 2] = [Direction::FromBoard, Direction::ToBoard];

pub(crate) fn reconnects(trial: &Trial) -> Option<Observed> {
    let made = trial.connections.iter().filter(|connection| {
        connection.cause == ConnectCause::Recovery && connection.elapsed_us(Phase::Connack).is_some()
    });
    one(made.count() as f64)
}

/// Each loss of a working connection, with the CONNACK that followed it. Attempts that failed in between and
/// connections left on request are no losses.
fn losses(trial: &Trial) -> Vec<(u64, Option<u64>)> {
    if let Some(fleet) = &trial.fleet {
        // The events of many devices tell nothing about one.
        return fleet.outages.iter().map(|outage| (outage.lost_us, outage.again_us)).collect();
    }
    let mut losses: Vec<(u64, Option<u64>)> = Vec::new();
    let mut working = false;
    for event in &trial.events {
        match event.kind {
            EventKind::Connected => {
                working = true;
                if let Some((_, again)) = losses.last_mut() {
                    again.get_or_insert(event.at_us);
                }
            }
            EventKind::Disconnected if working => {
                working = false;
                losses.push((event.at_us, None));
            }
            EventKind::Left => working = false,
            _ => {}
        }
    }
    losses
}

pub(crate) fn disconnects(trial: &Trial) -> Option<Observed> {
    one(losses(trial).len() as f64)
}

pub(crate) fn reconnect_time(trial: &Trial) -> Option<Observed> {
    samples(losses(trial).into_iter().map(|(lost, again)| span(lost, again)))
}

pub(crate) fn recovery_time(trial: &Trial) -> Option<Observed> {
    if trial.fleet.is_some() {
        // A fleet publishes nothing until its devices are back: nothing is due, so nothing can be told. How long each
        // of them was away is `fleet.recovery.time`.
        return None;
    }
    samples(trial.impairments.iter().filter(|impairment| impairment.kind.interrupts()).filter_map(
        |impairment| {
            DIRECTIONS
                .into_iter()
                .filter(|direction| impairment.direction.is_none_or(|only| only == *direction))
                .filter_map(|direction| {
                    let since = |message: &&Message| {
                        message.direction == direction && message.intended_us >= impairment.start_us
                    };
                    // No message to carry afterwards: this direction cannot tell.
                    let due = trial.messages.iter().filter(since).map(|message| message.intended_us).min()?;
                    // Until there is something to carry, nobody is without service.
                    let end_us = impairment.end_us.max(due);
                    let arrivals = || trial.messages.iter().filter(since).map(|m| m.delivered_us);
                    // Back before its end was told, and nothing left to show it once more.
                    if arrivals().all(|arrival| arrival.is_some_and(|at| at < impairment.end_us)) {
                        return Some(0.0);
                    }
                    let first = arrivals().flatten().filter(|arrival| *arrival >= end_us).min();
                    Some(span(end_us, first))
                })
                .max_by(f64::total_cmp)
        },
    ))
}

pub(crate) fn gap(trial: &Trial) -> Option<Observed> {
    let longest = DIRECTIONS.into_iter().filter_map(|direction| longest_gap(trial, direction));
    one(longest.max_by(f64::total_cmp)?)
}

/// Longest wait for an arrival in one direction. A pause of the workload is no wait: when everything sent
/// had arrived, waiting begins with the next intended send.
fn longest_gap(trial: &Trial, direction: Direction) -> Option<f64> {
    let messages = || trial.messages.iter().filter(|message| message.direction == direction);
    let mut since = messages().map(|message| message.intended_us).min()?;
    let arrived = || messages().filter_map(|m| m.delivered_us.map(|delivered| (m.intended_us, delivered)));
    let mut intended: Vec<_> = arrived().map(|(intended, _)| intended).collect();
    let mut arrivals: Vec<_> = arrived().map(|(_, delivered)| delivered).collect();
    intended.sort_unstable();
    arrivals.sort_unstable();
    let mut longest = 0;
    for (before, arrival) in arrivals.into_iter().enumerate() {
        // As many begun as arrived means that nothing was on its way.
        let idle = intended.partition_point(|at| *at <= since) <= before;
        let waiting_since = if idle { intended[before].max(since) } else { since };
        longest = longest.max(arrival.saturating_sub(waiting_since));
        since = since.max(arrival);
    }
    let missing =
        || messages().filter(|message| message.delivered_us.is_none() && message.intended_us > since);
    if missing().any(|message| message.qos > 0) {
        return Some(f64::INFINITY);
    }
    let tail = missing().map(|message| trial.duration_us.saturating_sub(message.intended_us)).max();
    Some(longest.max(tail.unwrap_or(0)) as f64)
}

fn stat_or_events(trial: &Trial, stat: Option<u64>, kind: EventKind) -> Option<Observed> {
    let events = trial.events.iter().filter(|event| event.kind == kind).count() as f64;
    one(stat.map_or(events, |count| count as f64))
}

pub(crate) fn migrations(trial: &Trial) -> Option<Observed> {
    let stat = trial.transport_stats.as_ref().and_then(|stats| stats.migrations);
    stat_or_events(trial, stat, EventKind::Migrated)
}

pub(crate) fn key_updates(trial: &Trial) -> Option<Observed> {
    let stat = trial.transport_stats.as_ref().and_then(|stats| stats.key_updates);
    stat_or_events(trial, stat, EventKind::KeyUpdated)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::record::{Event, Impairment, ImpairmentKind, Role, Transport};
    use crate::measure::sample::one_message as message;

    fn trial(messages: Vec<Message>) -> Trial {
        Trial { messages, duration_us: 10_000, ..Trial::new("quic", Transport::Quic, Role::Device, 1) }
    }

    fn up(intended: u64, delivered: u64) -> Message {
        message(Direction::FromBoard, intended, Some(delivered))
    }

    #[test]
    fn a_gap_is_the_longest_wait_for_an_arrival() {
        let trial = trial(vec![up(0, 10), up(100, 110), up(200, 900), up(300, 905), up(1000, 1010)]);
        // From 200, when the next send was due, to its arrival at 900.
        assert_eq!(gap(&trial), one(700.0));
    }

    #[test]
    fn a_pause_of_the_workload_is_no_gap() {
        assert_eq!(gap(&trial(vec![up(0, 10), up(5000, 5020)])), one(20.0));
    }

    #[test]
    fn a_service_that_never_came_back_has_an_infinite_gap() {
        let lost = message(Direction::FromBoard, 500, None);
        assert_eq!(gap(&trial(vec![up(0, 10), lost.clone()])), one(f64::INFINITY));
        let fire_and_forget = Message { qos: 0, ..lost };
        assert_eq!(gap(&trial(vec![up(0, 10), fire_and_forget])), one(9500.0));
        assert_eq!(gap(&trial(vec![])), None);
    }

    fn blackout(start_us: u64, end_us: u64) -> Impairment {
        let label = "blackout".into();
        Impairment { start_us, end_us, kind: ImpairmentKind::Blackout, direction: None, label }
    }

    #[test]
    fn recovery_counts_from_the_end_of_the_disturbance_in_the_slower_direction() {
        let mut trial = trial(vec![
            up(0, 10),
            up(1500, 2300),
            message(Direction::ToBoard, 1600, Some(2500)),
            up(2600, 2610),
        ]);
        trial.impairments = vec![blackout(1000, 2000)];
        assert_eq!(recovery_time(&trial), one(500.0));
        trial.impairments[0].kind = ImpairmentKind::Degraded;
        assert_eq!(recovery_time(&trial), None);
    }

    #[test]
    fn where_nothing_is_due_yet_nobody_is_without_service() {
        let mut trial = trial(vec![up(0, 10), up(1700, 1750), up(1900, 1910)]);
        trial.impairments = vec![blackout(1000, 1000)];
        assert_eq!(recovery_time(&trial), one(50.0), "the message was late by 50, the schedule let 700 pass");
    }

    #[test]
    fn a_message_from_before_the_disturbance_proves_no_recovery() {
        let mut trial = trial(vec![up(900, 2100), message(Direction::FromBoard, 1500, None)]);
        trial.impairments = vec![blackout(1000, 2000)];
        assert_eq!(recovery_time(&trial), one(f64::INFINITY));
        trial.messages.pop();
        assert_eq!(recovery_time(&trial), None, "nothing was sent afterwards, so nothing can be told");
    }

    #[test]
    fn what_a_fleet_publishes_once_all_are_back_tells_no_recovery() {
        let mut trial = trial(vec![up(30_000, 30_006)]);
        trial.impairments = vec![blackout(1000, 2000)];
        assert_eq!(recovery_time(&trial), one(6.0));
        trial.fleet = Some(crate::measure::record::Fleet::default());
        assert_eq!(recovery_time(&trial), None, "its devices took far longer to come back");
    }

    #[test]
    fn a_service_that_was_back_before_the_end_was_told_has_recovered() {
        let mut trial = trial(vec![up(900, 910), up(1200, 1700), up(1300, 1750)]);
        trial.impairments = vec![blackout(1000, 2000)];
        assert_eq!(recovery_time(&trial), one(0.0));
        trial.messages.push(message(Direction::FromBoard, 1400, None));
        assert_eq!(recovery_time(&trial), one(f64::INFINITY), "one of them never came");
    }

    #[test]
    fn a_reconnect_runs_from_noticing_to_connack() {
        let mut trial = trial(vec![]);
        let event = |at_us, kind| Event { at_us, kind, detail: String::new() };
        trial.events = vec![
            event(0, EventKind::Connected),
            event(100, EventKind::Disconnected),
            // An attempt that failed.
            event(200, EventKind::Disconnected),
            event(350, EventKind::Connected),
            event(500, EventKind::Left),
            event(600, EventKind::Connected),
            event(900, EventKind::Disconnected),
        ];
        assert_eq!(disconnects(&trial), one(2.0));
        assert_eq!(reconnect_time(&trial), samples([250.0, f64::INFINITY].into_iter()));
    }
}
