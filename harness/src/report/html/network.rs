//! What the link did, and what became of every message.

use maud::{Markup, html};

use super::{View, name};
use crate::measure::Unit;
use crate::measure::analysis::Group;
use crate::measure::record::{Direction, Fate, LinkStats};
use crate::measure::unit::thousands;

pub(super) fn section(view: &View<'_>) -> Markup {
    let accounts = accounts(view);
    let (wire, link) = (super::wire::section(view), link(view));
    if accounts.is_none() && wire.is_none() && link.is_none() {
        return html! {};
    }
    html! {
        section id="network" {
            h2 { "Messages and packets" }
            p class="lead" { "Every message is counted once. The link's figures are the harness's own record of what it did." }
            @if let Some(accounts) = accounts { (accounts) }
            @if let Some(wire) = wire { (wire) }
            @if let Some(link) = link { (link) }
        }
    }
}

fn accounts(view: &View<'_>) -> Option<Markup> {
    let rows: Vec<_> = view
        .groups
        .iter()
        .flat_map(|group| [Direction::FromBoard, Direction::ToBoard].map(|direction| (group, direction)))
        .filter(|(group, direction)| messages(group, *direction).next().is_some())
        .collect();
    if rows.is_empty() {
        return None;
    }
    Some(html! {
        div class="scroll" tabindex="0" role="region" aria-label="What became of every message" {
            table {
                thead { tr {
                    th scope="col" { "Messages" }
                    th scope="col" class="n" { "sent" }
                    @for fate in Fate::ALL { th scope="col" class="n" { (fate.name().replace('-', " ")) } }
                } }
                tbody {
                    @for (group, direction) in rows {
                        tr {
                            th scope="row" { (view.key(group)) " " span class="of" { (direction.label()) } }
                            td class="n" { (thousands(messages(group, direction).count() as f64)) }
                            @for fate in Fate::ALL {
                                @let count = messages(group, direction).filter(|message| message.fate == fate).count();
                                td class={ "n" @if count == 0 { " none" } } { (thousands(count as f64)) }
                            }
                        }
                    }
                }
            }
        }
    })
}

fn messages<'a>(
    group: &Group<'a>,
    direction: Direction,
) -> impl Iterator<Item = &'a crate::measure::record::Message> {
    let trials: Vec<_> = group.trials.clone();
    trials.into_iter().flat_map(|trial| &trial.messages).filter(move |message| message.direction == direction)
}

fn link(view: &View<'_>) -> Option<Markup> {
    let rows: Vec<_> = view
        .groups
        .iter()
        .flat_map(|group| {
            let sum = |read: fn(&crate::measure::Trial) -> Option<&LinkStats>| {
                group.trials.iter().filter_map(|trial| read(trial)).cloned().reduce(add)
            };
            let up = sum(|trial| trial.link_up.as_ref()).map(|stats| (group, "from the board", stats));
            let down = sum(|trial| trial.link_down.as_ref()).map(|stats| (group, "to the board", stats));
            [up, down]
        })
        .flatten()
        .collect();
    if rows.is_empty() {
        return None;
    }
    let count =
        |value: u64| html! { td class={ "n" @if value == 0 { " none" } } { (thousands(value as f64)) } };
    Some(html! {
        h3 { "The link" }
        div class="scroll" tabindex="0" role="region" aria-label="Link statistics" {
            table {
                thead { tr {
                    th scope="col" { "Packets, all seeds" }
                    @for heading in ["offered", "lost", "queue full", "blackout", "too large", "duplicated", "reordered", "corrupted", "longest burst", "delivered late by, p99"] {
                        th scope="col" class="n" { (heading) }
                    }
                } }
                tbody {
                    @for (group, direction, stats) in &rows {
                        tr {
                            th scope="row" { (view.key(group)) " " span class="of" { (direction) } span class="sr" { (name(group)) } }
                            (count(stats.offered))
                            td class="n" {
                                (thousands(stats.lost as f64))
                                @if stats.offered > 0 { span class="ci" { (super::glued(&Unit::Percent.format(stats.lost as f64 / stats.offered as f64))) } }
                            }
                            (count(stats.queue_drops)) (count(stats.blackout_drops)) (count(stats.oversized))
                            (count(stats.duplicated)) (count(stats.reordered)) (count(stats.corrupted)) (count(stats.longest_burst))
                            @match stats.late_p99_us {
                                Some(us) => td class="n" { (Unit::Time.format(us as f64)) },
                                None => td class="n none" { "–" },
                            }
                        }
                    }
                }
            }
        }
    })
}

fn add(a: LinkStats, b: LinkStats) -> LinkStats {
    LinkStats {
        offered: a.offered + b.offered,
        delivered: a.delivered + b.delivered,
        lost: a.lost + b.lost,
        queue_drops: a.queue_drops + b.queue_drops,
        blackout_drops: a.blackout_drops + b.blackout_drops,
        oversized: a.oversized + b.oversized,
        duplicated: a.duplicated + b.duplicated,
        reordered: a.reordered + b.reordered,
        corrupted: a.corrupted + b.corrupted,
        bytes_offered: a.bytes_offered + b.bytes_offered,
        bytes_delivered: a.bytes_delivered + b.bytes_delivered,
        longest_burst: a.longest_burst.max(b.longest_burst),
        late_p99_us: a.late_p99_us.max(b.late_p99_us),
    }
}
