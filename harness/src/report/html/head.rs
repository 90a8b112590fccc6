//! The top of the page: question, verdict, answer, and the figures one looks for first.

use maud::{Markup, html};

use super::{View, count_text, display, interval_text, value_text};
use crate::measure::judge::{Outcome, Status, describe};
use crate::measure::record::Role;
use crate::measure::{Figure, Unit};
use crate::report::lateness;
use crate::report::utc::Utc;

pub(super) fn header(view: &View<'_>) -> Markup {
    let record = &view.report.record;
    let environment = &record.environment;
    html! {
        header {
            p class="eyebrow" {
                b { (record.scenario.name) }
                span { (environment.board.name) " board" }
                span { (environment.broker.description) }
                span { (Utc::from_unix_us(environment.started_unix_us).long()) }
            }
            h1 { (record.scenario.question) }
            (verdict(view))
            @if !record.ending.is_completed() {
                p class="notice" { b { "Partial report. " } "The run ended early: " (describe(&record.ending))
                    ". What was measured until then is shown below." }
            }
            @if view.foreign_sizes() {
                p class="notice" { b { "The firmware ran as a process on this machine. " }
                    "Times include its processor, and memory is that of a 64-bit program: neither is an ESP32-C3's. "
                    "Messages, packets and bytes on the wire are the same." }
            } @else if view.emulated() {
                p class="notice" { b { "Emulated board. " }
                    "Times on this page include the host's processor and are not those of an ESP32-C3. "
                    "Counts of bytes, packets, instructions and memory do not depend on it." }
            }
            @if let Some(late) = lateness(record).map(|late| late as f64).filter(|late| *late > LATE_US_MAX) {
                p class="notice" { b { "This machine was busy. " }
                    "The emulated network delivered up to " (Unit::Time.format(late)) " behind its schedule (99th percentile), "
                    "where " (Unit::Time.format(LATE_US_MAX)) " is its aim; latencies include that. Counts and decisions do not depend on it." }
            }
        }
    }
}

/// What the link's deliveries may be late by at the 99th percentile before a reader has to know.
const LATE_US_MAX: f64 = 1_000.0;

fn verdict(view: &View<'_>) -> Markup {
    let verdict = &view.report.verdict;
    let decided: Vec<&Outcome> = verdict
        .outcomes
        .iter()
        .filter(|outcome| outcome.decides && outcome.status != Status::NotApplicable)
        .collect();
    let met = decided.iter().filter(|outcome| outcome.status == Status::Passed).count();
    let (class, word) = if verdict.passed { ("passed", "Passed") } else { ("failed", "Failed") };
    html! {
        div class={ "verdict " (class) } {
            div class="word" {
                span class="dot" aria-hidden="true" {
                    svg viewBox="0 0 12 12" {
                        @if verdict.passed { path d="M2.5 6.4 5 8.9 9.6 3.4" {} }
                        @else { path d="M3 3 9 9 M9 3 3 9" {} }
                    }
                }
                span { (word) span class="tally" { " · " (met) " of " (decided.len()) " checks met" } }
            }
            p class="answer" { (super::glued(&verdict.answer)) }
        }
    }
}

/// Figures for the tiles, in order of interest; the first six that were measured are shown.
const TILES: [(&str, &str); 13] = [
    ("delivery.ratio", "Messages delivered"),
    ("publish.latency.p50", "Publish to PUBACK, median"),
    ("publish.latency.p99", "Publish to PUBACK, 99 %"),
    ("recovery.time.max", "Longest recovery"),
    ("fleet.recovery.time.max", "Longest recovery of a device"),
    ("end_to_end.latency.p99", "End to end, 99 %"),
    ("connect.time.p50", "Connect, median"),
    ("instructions.handshake.full", "Instructions of a handshake"),
    ("ram.client", "RAM of the client"),
    ("stack.high_water", "Stack high-water"),
    ("throughput.up", "Throughput from the board"),
    ("wire.bytes_per_message", "On the wire per message"),
    ("connect.client_bytes", "Client bytes to CONNACK"),
];
const TILES_MAX: usize = 6;
/// Variants named below a tile; the table has all of them.
const OTHERS_MAX: usize = 3;

pub(super) fn tiles(view: &View<'_>) -> Markup {
    let Some(device) = view.devices().next() else { return html! {} };
    let reference =
        view.groups.iter().find(|group| group.variant == device.variant && group.role == Role::Reference);
    let others: Vec<_> = view.devices().skip(1).take(OTHERS_MAX).collect();
    let tiles = TILES.iter().filter_map(|(figure, label)| {
        let figure = Figure::parse(figure).ok()?;
        if view.foreign_sizes() && ["ram.client", "stack.high_water"].contains(&figure.metric.name) {
            return None;
        }
        // A fleet's storm is of the devices that its first variant connects: what only the storm tells is theirs, too.
        let of_fleet = figure.metric.name.starts_with("fleet.");
        let mut groups = view.devices().take(if of_fleet { usize::MAX } else { 1 });
        let (shown, estimate) = groups.find_map(|group| Some((group, view.estimate(group, figure)?)))?;
        if shown.variant != device.variant {
            let label = format!("{label} ({})", display(shown.variant));
            return Some((figure, label, estimate, Vec::new()));
        }
        let beside = reference.iter().map(|group| ("reference".to_owned(), *group));
        let beside = beside.chain(others.iter().map(|group| (display(group.variant), *group)));
        let beside: Vec<_> =
            beside.filter_map(|(name, group)| Some((name, view.estimate(group, figure)?.value))).collect();
        Some((figure, (*label).to_owned(), estimate, beside))
    });
    let tiles: Vec<_> = tiles.take(TILES_MAX).collect();
    if tiles.is_empty() {
        return html! {};
    }
    html! {
        p class="tiles-of" { "The device: " b { (display(device.variant)) } @if !others.is_empty() { ", the others below each figure" } }
        dl class="tiles" aria-label={ "Key figures, device, " (display(device.variant)) } {
            @for (figure, label, estimate, beside) in &tiles {
                @let unit = figure.unit();
                @let quantity = unit.quantity(estimate.value);
                div class="tile" {
                    dt { (label) }
                    dd {
                        div class="big" {
                            @if estimate.value.is_infinite() { "never" }
                            @else { (quantity.number) span class="unit" { (quantity.unit) } }
                        }
                        div class="sub" {
                            @if let Some(interval) = interval_text(unit, estimate) { (interval) ", " }
                            (count_text(estimate))
                        }
                        @for (name, value) in beside { div class="sub" { (name) " " (value_text(unit, *value)) } }
                    }
                }
            }
        }
    }
}
