//! How connections came about: one waterfall for each variant and role.

use maud::{Markup, html};

use super::{View, name};
use crate::measure::Unit;
use crate::measure::analysis::Group;
use crate::measure::record::{ConnectFailureKind, Connection, Handshake, Phase};

pub(super) fn section(view: &View<'_>) -> Markup {
    let shown: Vec<_> = view.groups.iter().flat_map(|group| picked(group).map(move |c| (group, c))).collect();
    let longest = shown.iter().filter_map(|(_, connection)| last_us(connection)).max().unwrap_or(0);
    if longest == 0 {
        return html! {};
    }
    html! {
        section id="connections" {
            h2 { "Connections" }
            p class="lead" {
                "What the time to a working session is made of: the first connection of each kind, on one scale."
            }
            div class="falls" {
                @for (group, connection) in shown { (waterfall(view, group, connection, longest)) }
            }
            (failures(view))
        }
    }
}

/// The first connection of each kind of handshake that reached CONNACK, or else the first attempt.
fn picked<'a>(group: &Group<'a>) -> impl Iterator<Item = &'a Connection> {
    let trials: Vec<_> = group.trials.clone();
    let all = move || trials.clone().into_iter().flat_map(|trial| &trial.connections);
    let kinds = [Handshake::Full, Handshake::Resumed, Handshake::ZeroRtt, Handshake::None];
    let made: Vec<_> = kinds
        .into_iter()
        .filter_map(|kind| all().find(|c| c.handshake == kind && c.elapsed_us(Phase::Connack).is_some()))
        .collect();
    if made.is_empty() { all().take(1).collect::<Vec<_>>().into_iter() } else { made.into_iter() }
}

fn last_us(connection: &Connection) -> Option<u64> {
    connection.marks.iter().map(|mark| mark.at_us.saturating_sub(connection.started_us)).max()
}

fn kind_name(handshake: Handshake) -> &'static str {
    match handshake {
        Handshake::Full => "full handshake",
        Handshake::Resumed => "resumed",
        Handshake::ZeroRtt => "0-RTT",
        Handshake::None => "no TLS",
    }
}

fn waterfall(view: &View<'_>, group: &Group<'_>, connection: &Connection, longest: u64) -> Markup {
    let reference = group.role == crate::measure::Role::Reference;
    let class = format!("fall c{}{}", view.series(group.variant), if reference { " ref" } else { "" });
    let mut before = 0;
    let rows: Vec<_> = connection
        .marks
        .iter()
        // Without TLS there is none.
        .filter(|mark| !(connection.handshake == Handshake::None && mark.phase == Phase::HandshakeComplete))
        .map(|mark| {
            let at = mark.at_us.saturating_sub(connection.started_us);
            let from = before.min(at);
            before = at;
            (mark.phase.label(), from, at)
        })
        .collect();
    let percent = |us: u64| format!("{:.2}", us as f64 / longest as f64 * 100.0);
    html! {
        div class=(class) {
            h3 {
                span { (name(group)) ", " (kind_name(connection.handshake)) }
                span class="total" {
                    @match connection.elapsed_us(Phase::Connack) {
                        Some(us) => { "CONNACK after " (Unit::Time.format(us as f64)) }
                        None => { "no CONNACK" }
                    }
                    @if let Some(round_trips) = connection.round_trips { " · " (trimmed(round_trips)) " RTT" }
                    @if let Some(wire) = connection.client_to_connack {
                        " · " (Unit::Bytes.format(wire.bytes as f64)) " sent"
                    }
                }
            }
            ol {
                @for (label, from, at) in rows {
                    li {
                        span { (label) }
                        span class="track" aria-hidden="true" {
                            b style={ "left:" (percent(from)) "%;width:" (percent(at - from)) "%" } {}
                        }
                        span class="t" { (Unit::Time.format(at as f64)) }
                    }
                }
            }
        }
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

fn failures(view: &View<'_>) -> Markup {
    let failed: Vec<_> = view
        .groups
        .iter()
        .flat_map(|group| group.trials.iter().map(move |trial| (group, trial)))
        .flat_map(|(group, trial)| {
            trial.connections.iter().filter_map(move |c| Some((group, trial.seed, c.failure.as_ref()?)))
        })
        .filter(|(_, _, failure)| failure.kind != ConnectFailureKind::Requested)
        .collect();
    if failed.is_empty() {
        return html! {};
    }
    html! {
        details {
            summary { (failed.len()) " connection attempts failed" }
            ul class="files" {
                @for (group, seed, failure) in failed.iter().take(FAILURES_LISTED) {
                    li { (name(group)) ", seed " (seed) ": " (failure.detail) }
                }
                @if failed.len() > FAILURES_LISTED { li { "and more, in report.json" } }
            }
        }
    }
}

const FAILURES_LISTED: usize = 40;
