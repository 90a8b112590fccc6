//! Where it ran, with which seeds, how to run it again, and the raw data.

use maud::{Markup, html};

use super::{Raw, View, name};
use crate::measure::Unit;
use crate::measure::judge::describe;
use crate::report::utc::Utc;

pub(super) fn section(view: &View<'_>, files: &[Raw]) -> Markup {
    let record = &view.report.record;
    html! {
        section id="again" {
            h2 { "Run it again" }
            p class="lead" { "The same seeds give the same network for the same packets." }
            pre class="cmd" { code { (record.environment.replay) } }
            (trials(view))
            @if !files.is_empty() {
                h3 { "Raw data" }
                ul class="files" {
                    @for kind in files {
                        li {
                            @for (index, name) in kind.names.iter().enumerate() {
                                @if index > 0 { ", " }
                                a href=(name) { (name) }
                            }
                            span class="soft" { " – " (kind.description) }
                        }
                    }
                }
            }
            details {
                summary { "The scenario" }
                pre { code { (record.scenario.source) } }
            }
        }
        section id="environment" {
            h2 { "Environment" }
            (facts(view))
        }
    }
}

fn trials(view: &View<'_>) -> Markup {
    let rows: Vec<_> =
        view.groups.iter().flat_map(|group| group.trials.iter().map(move |trial| (group, trial))).collect();
    html! {
        details open[view.report.record.trials.iter().any(|trial| !trial.ending.is_completed())] {
            summary { (rows.len()) " of " (view.report.record.scenario.planned_trials) " trials" }
            div class="scroll" tabindex="0" role="region" aria-label="Trials" {
                table {
                    thead { tr {
                        th scope="col" { "Trial" }
                        th scope="col" class="n" { "Seed" }
                        th scope="col" class="n" { "Took" }
                        th scope="col" class="n" { "Clock known within" }
                        th scope="col" { "Ended" }
                    } }
                    tbody {
                        @for (group, trial) in rows {
                            tr {
                                th scope="row" { (view.key(group)) span class="sr" { (name(group)) } }
                                td class="n" { (trial.seed) }
                                td class="n" { (Unit::Time.format(trial.duration_us as f64)) }
                                td class="n" {
                                    @match trial.clock_uncertainty_us { Some(us) => { "± " (Unit::Time.format(us as f64)) } None => "–" }
                                }
                                td {
                                    span class={ "st " @if trial.ending.is_completed() { "passed" } @else { "failed" } } { (describe(&trial.ending)) }
                                    @for note in &trial.notes { div class="soft" { (note) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn facts(view: &View<'_>) -> Markup {
    let environment = &view.report.record.environment;
    let (board, broker, host) = (&environment.board, &environment.broker, &environment.host);
    let load = host.load.map(|load| format!(", load {load:.2} at the start")).unwrap_or_default();
    let machine = format!("{}, {} cores, {}{load}", host.cpu, host.cores, host.os);
    let rows: [(&str, Option<String>); 15] = [
        ("Started", Some(Utc::from_unix_us(environment.started_unix_us).long())),
        ("Took", Some(Unit::Time.format(environment.duration_us as f64))),
        ("Board", Some(format!("{}: {}", board.name, board.description))),
        ("Firmware", board.firmware.clone()),
        ("Chip", board.chip.clone()),
        ("MAC", board.mac.clone()),
        ("Broker", Some(broker.description.clone())),
        // The description usually says it already.
        ("Broker version", broker.version.clone().filter(|version| !broker.description.contains(version))),
        ("Broker image", broker.image_digest.clone()),
        ("Certificate", broker.certificate.clone()),
        ("Revision", environment.git_revision.clone()),
        ("Compiler", environment.rustc_version.clone()),
        ("Host", Some(machine)),
        ("Command line", Some(environment.command_line.join(" "))),
        ("Base seed", Some(environment.base_seed.to_string())),
    ];
    html! {
        dl class="facts" {
            @for (label, value) in rows {
                @if let Some(value) = value.filter(|value| !value.is_empty()) { dt { (label) } dd { (value) } }
            }
            @for (label, value) in &environment.extra { dt { (label) } dd { (value) } }
        }
    }
}
