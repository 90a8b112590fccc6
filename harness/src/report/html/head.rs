//! The top of the page: question, verdict, answer, and the figures one looks for first.

use maud::{Markup, html};

use super::{View, interval_text, value_text};
use crate::measure::Figure;
use crate::measure::judge::{Outcome, Status, describe};
use crate::measure::record::Role;
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
        }
    }
}

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
const TILES: [(&str, &str); 12] = [
    ("delivery.ratio", "Messages delivered"),
    ("publish.latency.p50", "Publish to PUBACK, median"),
    ("publish.latency.p99", "Publish to PUBACK, 99 %"),
    ("recovery.time.max", "Longest recovery"),
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

pub(super) fn tiles(view: &View<'_>) -> Markup {
    let Some(device) = view.devices().next() else { return html! {} };
    let reference =
        view.groups.iter().find(|group| group.variant == device.variant && group.role == Role::Reference);
    let tiles = TILES.iter().filter_map(|(figure, label)| {
        let figure = Figure::parse(figure).ok()?;
        if view.foreign_sizes() && ["ram.client", "stack.high_water"].contains(&figure.metric.name) {
            return None;
        }
        let estimate = view.estimate(device, figure)?;
        Some((
            figure,
            *label,
            estimate,
            reference.and_then(|group| view.estimate(group, figure)).map(|e| e.value),
        ))
    });
    let tiles: Vec<_> = tiles.take(TILES_MAX).collect();
    if tiles.is_empty() {
        return html! {};
    }
    html! {
        dl class="tiles" aria-label={ "Key figures, device over " (super::display(device.variant)) } {
            @for (figure, label, estimate, reference) in &tiles {
                @let unit = figure.unit();
                @let quantity = unit.quantity(estimate.value);
                div class="tile" {
                    dt { (label) }
                    dd {
                        div class="big" {
                            @if estimate.value.is_infinite() { "never" }
                            @else { (quantity.number) span class="unit" { (quantity.unit) } }
                        }
                        @if let Some(interval) = interval_text(unit, estimate) {
                            div class="sub" { (interval) }
                        }
                        @if let Some(reference) = reference {
                            div class="sub" { "reference " (value_text(unit, *reference)) }
                        }
                    }
                }
            }
        }
    }
}
