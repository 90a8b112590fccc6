//! What the client costs the board: memory, flash, instructions, energy, beside budgets and the proof of concept.

use maud::{Markup, html};

use super::{View, memory};
use crate::firmware::size::Budgets;
use crate::measure::analysis::Group;
use crate::measure::record::{Activity, SizePart};
use crate::measure::unit::thousands;
use crate::measure::{Figure, Unit};

pub(super) fn section(view: &View<'_>) -> Markup {
    let parts = [
        gauges(view).filter(|_| !view.foreign_sizes()),
        memory::stack(view),
        memory::free(view).filter(|_| !view.foreign_sizes()),
        instructions(view),
        energy(view),
        sizes(view),
    ];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    if parts.is_empty() {
        return html! {};
    }
    html! {
        section id="board" {
            h2 { "On the board" }
            p class="lead" {
                @if view.foreign_sizes() {
                    "Sizes of a 64-bit program, for comparing runs with each other; run on the qemu board for those of "
                    "the 32-bit firmware."
                } @else {
                    "What QUIC, TLS and MQTT cost, against their budgets and the proof of concept: a C client with "
                    "ngtcp2, wolfSSL and coreMQTT that does not verify certificates."
                }
            }
            @for part in parts { (part) }
        }
    }
}

/// The budgets in the tree, as they were when the harness was built.
fn budgets() -> Option<Budgets> {
    toml::from_str(include_str!("../../../../device/boards/budgets.toml")).ok()
}

/// A figure with its ceiling and what others need. Bytes.
struct Gauge {
    label: &'static str,
    value: f64,
    ceiling: Option<f64>,
    others: &'static [(&'static str, f64)],
}

fn gauges(view: &View<'_>) -> Option<Markup> {
    let budgets = budgets()?;
    let board = view.report.record.environment.board.name.as_str();
    let firmware = |name: &str| budgets.firmware.get(name).map(|budget| budget.flash as f64);
    let most = |figure: &str| {
        let figure = Figure::parse(figure).ok()?;
        view.devices().filter_map(|group| group.value(figure)).max_by(f64::total_cmp)
    };
    let rows = [
        (
            "RAM of QUIC + TLS + MQTT, stack included",
            "ram.client",
            Some(budgets.client.ram as f64),
            &[("proof of concept", 149_888.0)][..],
        ),
        (
            "Stack high-water",
            "stack.high_water",
            Some(budgets.client.stack as f64),
            &[("C stack, measured", 6_200.0)],
        ),
        (
            "Client state with all buffers",
            "ram.client_state",
            Some(budgets.client.state as f64),
            &[("C stack's heap, connected and idle", 42_065.0)],
        ),
        (
            "Static RAM",
            "ram.static",
            budgets.firmware.get(board).and_then(|b| b.ram_static).map(|b| b as f64),
            &[],
        ),
        (
            "Flash of QUIC + TLS + MQTT with crypto",
            "flash.client",
            firmware("client-only"),
            &[("C stack, lean", 319_721.0), ("C stack", 508_324.0)],
        ),
        (
            "Flash image",
            "flash.image",
            firmware(board),
            if board == "esp32c3" { &[("proof of concept", 1_495_136.0)] } else { &[] },
        ),
    ];
    let gauges: Vec<_> = rows
        .into_iter()
        .filter_map(|(label, figure, ceiling, others)| {
            Some(Gauge { label, value: most(figure)?, ceiling, others })
        })
        .collect();
    (!gauges.is_empty())
        .then(|| html! { div class="gauges" { @for gauge in &gauges { (gauge_row(gauge)) } } })
}

fn gauge_row(gauge: &Gauge) -> Markup {
    let over = gauge.ceiling.is_some_and(|ceiling| gauge.value > ceiling);
    let others = gauge.others.iter().map(|(_, value)| *value);
    let full = others.chain(gauge.ceiling).fold(gauge.value, f64::max);
    let percent = |value: f64| format!("{:.2}%", value / full * 100.0);
    html! {
        div class="gauge" {
            div class="row" {
                span { (gauge.label) }
                span {
                    b { (Unit::Bytes.format(gauge.value)) }
                    @if let Some(ceiling) = gauge.ceiling {
                        span class={ @if over { "worse" } @else { "soft" } } {
                            " of " (Unit::Bytes.format(ceiling)) @if over { ", over budget" }
                        }
                    }
                }
            }
            @if gauge.ceiling.is_some() || !gauge.others.is_empty() { div class="bar" aria-hidden="true" {
                i class=[over.then_some("over")] style={ "width:" (percent(gauge.value)) } {}
                @if let Some(ceiling) = gauge.ceiling { u style={ "left:calc(" (percent(ceiling)) " - 2px)" } {} }
            } }
            @if !gauge.others.is_empty() {
                div class="marks" {
                    @for (index, (name, value)) in gauge.others.iter().enumerate() {
                        @if index > 0 { " · " }
                        (name) " " (Unit::Bytes.format(*value)) " (" (format!("{:.1}", value / gauge.value.max(1.0))) " ×)"
                    }
                }
            }
        }
    }
}

/// Activities with the C stack's instructions for the same (profile B and Bf of its measurement).
const ACTIVITIES: [(Activity, &str, Option<f64>, Option<f64>); 10] = [
    (Activity::FirstFlight, "Start to first packet", Some(18.2e6), Some(4.4e6)),
    (Activity::HandshakeFull, "Full handshake, first packet included", Some(130.2e6), Some(30.0e6)),
    (Activity::PublicKey, "of which public-key operations", None, None),
    (Activity::HandshakeResumed, "Resumed handshake", None, None),
    (Activity::HandshakeZeroRtt, "Resumed handshake with 0-RTT", None, None),
    (Activity::Connect, "CONNECT to CONNACK", Some(60.2e3), Some(60.2e3)),
    (Activity::PublishQos0, "PUBLISH QoS 0, sent", Some(30.0e3), Some(30.0e3)),
    (Activity::PublishQos1, "PUBLISH QoS 1, to PUBACK", Some(48.5e3), Some(48.5e3)),
    (Activity::PublishQos2, "PUBLISH QoS 2, to PUBCOMP", None, None),
    (Activity::Receive, "Received message, to the application", None, None),
];

/// Instructions of an activity over all trials of a group.
struct Counted {
    median: u64,
    least: u64,
    most: u64,
    count: usize,
    /// Whether they repeat exactly for a seed.
    exact: bool,
}

fn counted(group: &Group<'_>, activity: Activity) -> Option<Counted> {
    let costs =
        || group.trials.iter().flat_map(|trial| &trial.costs).filter(|cost| cost.activity == activity);
    let mut counts: Vec<u64> = costs().flat_map(|cost| cost.instructions.iter().copied()).collect();
    counts.sort_unstable();
    let (least, most) = (*counts.first()?, *counts.last()?);
    let median = counts[(counts.len() - 1) / 2];
    Some(Counted { median, least, most, count: counts.len(), exact: costs().all(|cost| cost.exact) })
}

fn instructions(view: &View<'_>) -> Option<Markup> {
    let devices: Vec<_> = view.devices().collect();
    let rows: Vec<_> = ACTIVITIES
        .iter()
        .map(|row| (row, devices.iter().map(|group| counted(group, row.0)).collect::<Vec<_>>()))
        .filter(|(_, cells)| cells.iter().any(Option::is_some))
        .collect();
    if rows.is_empty() {
        return None;
    }
    let clock_hz = view.report.record.environment.board.clock_hz;
    let exact = rows.iter().flat_map(|(_, cells)| cells).flatten().all(|counted| counted.exact);
    Some(html! {
        h3 { "Instructions" }
        div class="scroll" tabindex="0" role="region" aria-label="Instructions" {
            table {
                caption {
                    "Medians, with the range below. "
                    @if exact { "Counts are exact and repeat for a seed. " } @else { "Counts come from a cycle counter. " }
                    @if let Some(hz) = clock_hz {
                        "Times below them are estimates at " (thousands(hz as f64 / 1e6)) " MHz and one instruction a cycle."
                    }
                }
                thead { tr {
                    th scope="col" { "Activity" }
                    @for group in &devices { th scope="col" class="n" { (view.key(group)) } }
                    th scope="col" class="n" { "C stack, lean" }
                    th scope="col" class="n" { "C stack, fast maths" }
                } }
                tbody {
                    @for ((_, label, lean, fast), cells) in &rows {
                        tr {
                            th scope="row" { (label) }
                            @for cell in cells { (cost_cell(cell.as_ref(), clock_hz)) }
                            @for theirs in [lean, fast] { (their_cost(*theirs)) }
                        }
                    }
                }
            }
        }
    })
}

fn cost_cell(counted: Option<&Counted>, clock_hz: Option<u64>) -> Markup {
    let Some(counted) = counted else {
        return html! { td class="n none" { "–" span class="sr" { "not measured" } } };
    };
    let text = |count: u64| Unit::Instructions.format(count as f64);
    html! {
        td class="n" {
            (text(counted.median))
            @if let Some(hz) = clock_hz {
                span class="ci" { "≈ " (Unit::Time.format(counted.median as f64 / hz as f64 * 1e6)) }
            }
            span class="ci" {
                @if counted.least != counted.most { (text(counted.least)) " – " (text(counted.most)) ", " }
                "n\u{a0}" (counted.count)
            }
        }
    }
}

fn their_cost(count: Option<f64>) -> Markup {
    match count {
        Some(count) => html! { td class="n soft" { (Unit::Instructions.format(count)) } },
        None => html! { td class="n none" { "–" span class="sr" { "not measured" } } },
    }
}

fn energy(view: &View<'_>) -> Option<Markup> {
    let devices: Vec<_> = view.devices().collect();
    let mean = |group: &Group<'_>, activity| {
        let energies: Vec<_> = group
            .trials
            .iter()
            .flat_map(|t| &t.energy)
            .filter(|energy| energy.activity == activity)
            .collect();
        let sum: f64 = energies.iter().map(|energy| energy.microjoules).sum();
        let measured = energies.iter().all(|energy| energy.measured);
        (!energies.is_empty()).then(|| (sum / energies.len() as f64, measured))
    };
    let rows: Vec<_> = ACTIVITIES
        .iter()
        .map(|row| (row.1, devices.iter().map(|group| mean(group, row.0)).collect::<Vec<_>>()))
        .filter(|(_, cells)| cells.iter().any(Option::is_some))
        .collect();
    if rows.is_empty() {
        return None;
    }
    Some(html! {
        h3 { "Energy" }
        div class="scroll" tabindex="0" role="region" aria-label="Energy" {
            table {
                thead { tr { th scope="col" { "Activity" } @for group in &devices { th scope="col" class="n" { (view.key(group)) } } } }
                tbody {
                    @for (label, cells) in &rows {
                        tr {
                            th scope="row" { (label) }
                            @for cell in cells {
                                @match cell {
                                    Some((value, measured)) => td class="n" {
                                        (Unit::Energy.format(*value))
                                        span class="ci" { @if *measured { "measured" } @else { "estimate" } }
                                    },
                                    None => td class="n none" { "–" },
                                }
                            }
                        }
                    }
                }
            }
        }
    })
}

fn sizes(view: &View<'_>) -> Option<Markup> {
    let footprint = view.report.record.environment.board.footprint.as_ref()?;
    if footprint.sections.is_empty() && footprint.crates.is_empty() {
        return None;
    }
    Some(html! {
        h3 { "Size of the firmware" }
        div class="two" {
            (size_table("Section", &footprint.sections))
            (size_table("Crate", &footprint.crates))
        }
    })
}

fn size_table(heading: &str, parts: &[SizePart]) -> Markup {
    let mut parts: Vec<_> = parts.iter().collect();
    parts.sort_by_key(|part| std::cmp::Reverse(part.bytes));
    let largest = parts.first().map_or(1, |part| part.bytes.max(1));
    html! {
        @if !parts.is_empty() {
            div class="scroll" tabindex="0" role="region" aria-label={ "Size by " (heading.to_lowercase()) } {
                table {
                    thead { tr { th scope="col" { (heading) } th scope="col" style="width:45%" {} th scope="col" class="n" { "Bytes" } } }
                    tbody {
                        @for part in parts.iter().take(PARTS_MAX) {
                            tr {
                                th scope="row" class="mono" { (part.name) }
                                td { div class="bar" aria-hidden="true" { i style={ "width:" (part.bytes * 100 / largest) "%" } {} } }
                                td class="n" { (thousands(part.bytes as f64)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Parts listed; smaller ones do not matter to a reader.
const PARTS_MAX: usize = 16;
