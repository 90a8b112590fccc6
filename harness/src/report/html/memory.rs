//! Memory of the board by phase, variant beside variant, and what the proof of concept had left at the same points.

use maud::{Markup, html};

use super::View;
use crate::measure::analysis::Group;
use crate::measure::record::MemorySnapshot;
use crate::measure::unit::thousands;

/// The proof of concept's own five points, with the heap it had free; the phases are ours. Its four regions at boot
/// are 132, 113, 10 and 7 KiB.
const PROOF_OF_CONCEPT_HEAP: [(&str, &str, u64); 5] = [
    ("boot", "boot", 268_288),
    ("network up", "network up", 189_452),
    ("connect", "client task started", 160_436),
    ("client ready", "client initialised", 64_792),
    ("connected", "MQTT connected", 39_564),
];

/// The most of a figure in a phase over all trials of a group, or the least.
fn over_trials(
    group: &Group<'_>,
    phase: &str,
    read: fn(&MemorySnapshot) -> Option<u64>,
    pick: fn(u64, u64) -> u64,
) -> Option<u64> {
    let snapshots = group.trials.iter().flat_map(|trial| &trial.memory);
    snapshots.filter(|snapshot| snapshot.phase == phase).filter_map(read).reduce(pick)
}

/// Phases in the order they came.
fn phases(view: &View<'_>) -> Vec<String> {
    let mut phases: Vec<String> = Vec::new();
    for snapshot in view.devices().flat_map(|group| &group.trials).flat_map(|trial| &trial.memory) {
        if !phases.contains(&snapshot.phase) {
            phases.push(snapshot.phase.clone());
        }
    }
    phases
}

pub(super) fn stack(view: &View<'_>) -> Option<Markup> {
    let read = |snapshot: &MemorySnapshot| snapshot.stack_high_water;
    let devices: Vec<_> = view.devices().collect();
    let rows: Vec<_> = phases(view)
        .into_iter()
        .map(|phase| {
            let cells: Vec<_> =
                devices.iter().map(|group| over_trials(group, &phase, read, u64::max)).collect();
            (phase, cells)
        })
        .filter(|(_, cells)| cells.iter().any(Option::is_some))
        .collect();
    let trials = devices.iter().map(|group| group.trials.len()).max()?;
    (!rows.is_empty()).then(|| {
        html! {
            h3 { "Stack by phase" }
            div class="scroll" tabindex="0" role="region" aria-label="Stack by phase" {
                table {
                    caption { "High-water mark so far, the most of " (trials) " trial" @if trials != 1 { "s" } "." }
                    thead { tr {
                        th scope="col" { "Phase" }
                        @for group in &devices { th scope="col" class="n" { (view.key(group)) } }
                    } }
                    tbody { @for (phase, cells) in &rows { tr {
                        th scope="row" { (phase) }
                        @for cell in cells { (bytes(*cell)) }
                    } } }
                }
            }
        }
    })
}

pub(super) fn free(view: &View<'_>) -> Option<Markup> {
    let read = |snapshot: &MemorySnapshot| snapshot.heap_free;
    let devices: Vec<_> = view.devices().collect();
    let rows: Vec<_> = PROOF_OF_CONCEPT_HEAP
        .iter()
        .map(|(phase, label, theirs)| {
            let cells: Vec<_> =
                devices.iter().map(|group| over_trials(group, phase, read, u64::min)).collect();
            (*label, cells, *theirs)
        })
        .collect();
    if rows.iter().all(|(_, cells, _)| cells.iter().all(Option::is_none)) {
        return None;
    }
    let used = |snapshot: &MemorySnapshot| snapshot.heap_used;
    let snapshots = || devices.iter().flat_map(|group| &group.trials).flat_map(|trial| &trial.memory);
    let most_used = snapshots().filter_map(used).max();
    let least = snapshots().filter_map(|snapshot| snapshot.heap_free_min).min();
    Some(html! {
        h3 { "Free memory at the proof of concept's five points" }
        div class="scroll" tabindex="0" role="region" aria-label="Free memory by phase" {
            table {
                caption {
                    "The least of all trials. The firmware needs no heap: free is what its statics and its deepest "
                    "stack have left of RAM. The proof of concept's is free heap, after Wi-Fi and its task stacks."
                    @if let Some(bytes) = most_used { " Most heap in use: " (thousands(bytes as f64)) " B." }
                    @if let Some(bytes) = least { " Least heap ever free: " (thousands(bytes as f64)) " B." }
                }
                thead { tr {
                    th scope="col" { "Point" }
                    @for group in &devices { th scope="col" class="n" { (view.key(group)) } }
                    th scope="col" class="n" { "Proof of concept" }
                } }
                tbody { @for (label, cells, theirs) in &rows { tr {
                    th scope="row" { (label) }
                    @for cell in cells { (bytes(*cell)) }
                    (bytes(Some(*theirs)))
                } } }
            }
        }
    })
}

fn bytes(value: Option<u64>) -> Markup {
    match value {
        Some(bytes) => html! { td class="n" { (thousands(bytes as f64)) " B" } },
        None => html! { td class="n none" { "–" span class="sr" { "not measured" } } },
    }
}
