//! Device against reference client, and transport against transport, side by side.

use maud::{Markup, html};

use super::{Samples, View, breakable, count_text, display, glued, value_cell, value_text};
use crate::measure::analysis::{Group, shown_statistics};
use crate::measure::difference::{Change, Difference, difference};
use crate::measure::metric::{Figure, Metric, Shape};
use crate::measure::record::{Role, Transport};
use crate::measure::stats::Statistic;
use crate::measure::unit::Unit;

/// Parts of the table: a heading and the beginnings of its metrics' names.
const PARTS: [(&str, &[&str]); 7] = [
    ("Messages", &["delivery.", "acknowledged.", "messages", "lost", "duplicates", "reordered", "corrupt"]),
    ("Latency and throughput", &["publish.", "end_to_end.", "send.", "throughput.", "message.rate"]),
    ("Connecting", &["connect", "handshake."]),
    (
        "Keeping the service up",
        &["reconnect", "disconnects", "recovery.", "service.", "migrations", "key_updates", "board.faults"],
    ),
    ("Many devices", &["fleet."]),
    ("On the wire", &["wire.", "retransmissions", "spurious", "timeouts", "rtt.", "link."]),
    ("On the board", &["heap.", "stack.", "ram.", "flash.", "instructions.", "energy."]),
];

/// Device against reference, transport against transport: what one opens the report for.
pub(super) fn section(view: &View<'_>) -> Markup {
    if view.groups.is_empty() {
        return html! {};
    }
    html! {
        section id="comparison" {
            h2 { "Side by side" }
            p class="lead" {
                "Same seeds, same link, same workload for each column. Below each value its 95 % interval over the "
                "seeds; n counts samples."
            }
            div class="scroll" tabindex="0" role="region" aria-label="Key figures side by side" {
                table class={ "even " @if let Some(dense) = super::dense(view) { (dense) } } {
                    thead { tr {
                        th scope="col" { "Figure" }
                        @for group in &view.groups { th scope="col" class="n" { (view.key(group)) } }
                    } }
                    tbody {
                        @for (name, label) in KEY { (key_row(view, name, label)) }
                    }
                }
            }
            (differences(view))
            (remarks(view))
        }
    }
}

/// What a reader must know of a column before comparing it: a reference client whose network loses no segments is
/// no match for a board whose network does, and TCP is as good as the stacks at its ends.
fn remarks(view: &View<'_>) -> Markup {
    let mut remarks: Vec<(&Group<'_>, &str)> = Vec::new();
    for group in &view.groups {
        let of_column = |note: &&String| group.role == Role::Reference || note.starts_with("device over ");
        for note in group.trials.iter().flat_map(|trial| &trial.notes).filter(of_column) {
            if !remarks.iter().any(|(of, known)| of.variant == group.variant && known == note) {
                remarks.push((group, note));
            }
        }
    }
    html! {
        @if !remarks.is_empty() {
            ul class="notes" { @for (group, note) in remarks { li { (view.key(group)) ": " (note) } } }
        }
    }
}

/// Whether the reference client's network was as bad as the device's: over TCP a proxy cannot lose its segments.
fn same_network(device: &Group<'_>) -> bool {
    let links = device.trials.iter().flat_map(|trial| [trial.link_up.as_ref(), trial.link_down.as_ref()]);
    device.transport == Transport::Quic || links.flatten().all(|link| link.lost == 0)
}

/// Figures of the short table, and what to call them.
const KEY: [(&str, &str); 18] = [
    ("delivery.ratio", "Messages delivered"),
    ("publish.latency.p50", "Publish to PUBACK, median"),
    ("publish.latency.p99", "Publish to PUBACK, 99 %"),
    ("end_to_end.latency.p50", "End to end, median"),
    ("end_to_end.latency.p99", "End to end, 99 %"),
    ("connect.time.p50", "Connect to CONNACK, median"),
    ("connect.round_trips", "Round trips to CONNACK"),
    ("connect.client_bytes", "Client bytes to CONNACK"),
    ("reconnects", "Reconnects in one trial, most"),
    ("recovery.time.max", "Recovery after a disturbance, longest"),
    ("service.gap", "Time without service, longest"),
    ("throughput.up", "Payload from the board"),
    ("throughput.down", "Payload to the board"),
    ("wire.bytes_per_message", "On the wire per message"),
    ("wire.packets_per_message", "Packets per message"),
    ("retransmissions", "Packets sent again, per trial"),
    ("instructions.handshake.full", "Instructions, full handshake"),
    ("ram.client", "RAM of the client"),
];

fn key_row(view: &View<'_>, name: &str, label: &str) -> Markup {
    let Ok(figure) = Figure::parse(name) else { return html! {} };
    let cells: Vec<_> = view.groups.iter().map(|group| view.estimate(group, figure)).collect();
    if cells.iter().all(Option::is_none) {
        return html! {};
    }
    // One n serves the row where all columns have the same.
    let mut counts = cells.iter().flatten().map(|estimate| count_text(estimate));
    let shared = counts.next().filter(|first| counts.all(|other| other == *first));
    let samples = if shared.is_some() { Samples::Elsewhere } else { Samples::InCell };
    html! {
        tr {
            th scope="row" title={ (name) ": " (figure.metric.doc) } {
                (super::glued(label))
                @if let Some(count) = shared { span class="ci" { (count) } }
            }
            @for cell in &cells { (value_cell(figure.unit(), *cell, samples)) }
        }
    }
}

/// Every metric with its numbers, for those who want to know exactly.
pub(super) fn all_figures(view: &View<'_>) -> Markup {
    if view.report.metrics.is_empty() {
        return html! {};
    }
    html! {
        section id="figures" {
            h2 { "All figures" }
            p class="lead" {
                "Everything that was measured. n counts samples, those that never came included."
            }
            details {
                summary { "Show every metric" }
                div class="scroll" tabindex="0" role="region" aria-label="All figures" {
                    table class="even" {
                        thead { tr {
                            th scope="col" { "Metric" }
                            th scope="col" class="n" { "n" }
                            @for group in &view.groups { th scope="col" class="n" { (view.key(group)) } }
                        } }
                        @for (heading, beginnings) in PARTS { (part(view, heading, beginnings)) }
                    }
                }
            }
            details {
                summary { "What each metric means" }
                dl class="facts" {
                    @for metric in Metric::all() {
                        dt class="mono" { (metric.name) }
                        dd { (metric.doc) }
                    }
                }
            }
        }
    }
}

fn part(view: &View<'_>, heading: &str, beginnings: &[&str]) -> Markup {
    let of_part = |metric: &&&Metric| beginnings.iter().any(|start| metric.name.starts_with(start));
    let metrics: Vec<_> = Metric::all().iter().collect();
    let rows: Vec<_> = metrics.iter().filter(of_part).flat_map(|metric| rows(view, metric)).collect();
    if rows.is_empty() {
        return html! {};
    }
    html! {
        tbody {
            tr class="part" { th colspan=(view.groups.len() + 2) scope="rowgroup" { (heading) } }
            @for row in rows { (row) }
        }
    }
}

/// Statistics shown on the page; the others are in `report.json`.
fn statistics(metric: &Metric) -> Vec<Statistic> {
    match metric.shape {
        Shape::Distribution => vec![Statistic::P50, Statistic::P99, Statistic::Max],
        _ => shown_statistics(metric).to_vec(),
    }
}

fn rows(view: &View<'_>, metric: &'static Metric) -> Vec<Markup> {
    let statistics = statistics(metric);
    let estimates = |group| {
        let figures = statistics.iter().map(|statistic| Figure { metric, statistic: *statistic });
        figures.map(|figure| view.estimate(group, figure)).collect::<Vec<_>>()
    };
    let columns: Vec<_> = view.groups.iter().map(estimates).collect();
    if columns.iter().flatten().all(Option::is_none) {
        return Vec::new();
    }
    let row = |(index, statistic): (usize, &Statistic)| {
        let figure = Figure { metric, statistic: *statistic };
        let cells: Vec<_> = columns.iter().map(|column| column[index]).collect();
        let samples: u64 = cells.iter().flatten().map(|estimate| estimate.samples).max().unwrap_or(0);
        html! {
            tr {
                th scope="row" title=(metric.doc) {
                    @if index == 0 { span class="mono" { (metric.name) } }
                    @else { span class="sr" { (metric.name) } }
                    @if metric.shape == Shape::Distribution { span class="of" { " " (statistic.doc()) } }
                }
                td class="n soft" { @if index == 0 { (crate::measure::unit::thousands(samples as f64)) } }
                @for cell in &cells { (value_cell(figure.unit(), *cell, Samples::Elsewhere)) }
            }
        }
    };
    statistics.iter().enumerate().map(row).collect()
}

/// Figures whose differences are worth a sentence.
const COMPARED: [&str; 9] = [
    "delivery.ratio",
    "publish.latency.p50",
    "publish.latency.p99",
    "end_to_end.latency.p99",
    "connect.time.p50",
    "recovery.time.p50",
    "service.gap",
    "wire.bytes_per_message",
    "connect.client_bytes",
];

/// Pairs of groups that answer a question: each other variant against the first, each device against its reference.
fn pairs<'v, 'a>(view: &'v View<'a>) -> Vec<(&'v Group<'a>, &'v Group<'a>)> {
    let mut pairs = Vec::new();
    let devices: Vec<_> = view.devices().collect();
    if let Some((first, others)) = devices.split_first() {
        pairs.extend(others.iter().map(|other| (*other, *first)));
    }
    for device in &devices {
        let reference =
            view.groups.iter().find(|group| group.variant == device.variant && group.role == Role::Reference);
        let comparable = reference.filter(|_| same_network(device));
        pairs.extend(comparable.map(|reference| (reference, *device)));
    }
    pairs
}

fn differences(view: &View<'_>) -> Markup {
    let pairs = pairs(view);
    let compare = |figure: Figure, (from, to): &(&Group<'_>, &Group<'_>)| {
        difference(figure, &from.clusters(figure.metric), &to.clusters(figure.metric))
    };
    let rows: Vec<_> = COMPARED
        .iter()
        .filter_map(|name| Figure::parse(name).ok())
        .map(|figure| (figure, pairs.iter().map(|pair| compare(figure, pair)).collect::<Vec<_>>()))
        .filter(|(_, cells)| cells.iter().any(Option::is_some))
        .collect();
    if rows.is_empty() {
        return html! {};
    }
    html! {
        div class="scroll" tabindex="0" role="region" aria-label="Differences" style="margin-top:1rem" {
            table class=[super::dense(view)] {
                caption { "The second line of a cell is the 95 % interval of the difference." }
                thead { tr {
                    th scope="col" { "Difference, seed by seed" }
                    @for (from, to) in &pairs { th scope="col" { (pair_name(from, to)) } }
                } }
                tbody {
                    @for (figure, cells) in &rows {
                        tr {
                            th scope="row" class="mono" { (breakable(&figure.to_string())) }
                            @for cell in cells { (difference_cell(*figure, cell.as_ref())) }
                        }
                    }
                }
            }
        }
    }
}

fn pair_name(from: &Group<'_>, to: &Group<'_>) -> String {
    match from.role {
        Role::Device => format!("{} against {}", display(to.variant), display(from.variant)),
        Role::Reference => format!("{} device against reference", display(to.variant)),
    }
}

fn difference_cell(figure: Figure, difference: Option<&Difference>) -> Markup {
    let Some(difference) = difference else {
        return html! { td class="none" { "–" span class="sr" { "not measured on both sides" } } };
    };
    let class = match difference.change {
        Change::Better => "better",
        Change::Worse => "worse",
        Change::None | Change::Unknown => "same",
    };
    let unit = figure.unit();
    html! {
        td {
            span class=(class) { (words(difference)) }
            @if let Some(interval) = difference.interval.filter(|interval| interval.low != interval.high) {
                span class="ci" { (glued(&format!("{} to {}", signed(unit, interval.low), signed(unit, interval.high)))) }
            } @else {
                span class="ci" { (glued(&format!("{} against {}", value_text(unit, difference.to), value_text(unit, difference.from)))) }
            }
        }
    }
}

/// A difference with its sign.
pub(in crate::report) fn signed(unit: Unit, value: f64) -> String {
    match value {
        value if value.is_infinite() => if value > 0.0 { "never" } else { "from never" }.to_owned(),
        value if value > 0.0 => format!("+{}", unit.format(value)),
        value => unit.format(value).replacen('-', "\u{2212}", 1),
    }
}

/// The difference in a few words: `1.8 × lower`, `12 % higher`, `no significant difference`.
pub(in crate::report) fn words(difference: &Difference) -> String {
    match difference.change {
        Change::None | Change::Unknown => return difference.change.label().to_owned(),
        Change::Better | Change::Worse => {}
    }
    let (from, to) = (difference.from, difference.to);
    let direction = if to < from { "lower" } else { "higher" };
    if !from.is_finite() || !to.is_finite() || from == 0.0 || to == 0.0 {
        return direction.to_owned();
    }
    let ratio = from.max(to) / from.min(to);
    if ratio >= 1.5 {
        format!("{ratio:.1} × {direction}")
    } else {
        format!("{:.1} % {direction}", (to / from - 1.0).abs() * 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_belongs_to_one_part() {
        for metric in Metric::all() {
            let parts = PARTS.iter().filter(|(_, starts)| starts.iter().any(|s| metric.name.starts_with(s)));
            assert_eq!(parts.count(), 1, "{}", metric.name);
        }
    }

    #[test]
    fn every_figure_of_the_short_tables_exists() {
        for name in KEY.iter().map(|(name, _)| *name).chain(COMPARED) {
            assert!(Figure::parse(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn differences_read_naturally() {
        let words = |from, to, change| words(&Difference { from, to, interval: None, change });
        assert_eq!(words(100.0, 50.0, Change::Better), "2.0 × lower");
        assert_eq!(words(100.0, 112.0, Change::Worse), "12.0 % higher");
        assert_eq!(words(100.0, 100.0, Change::None), "no significant difference");
        assert_eq!(words(100.0, f64::INFINITY, Change::Worse), "higher");
    }
}
