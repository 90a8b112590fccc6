//! A comparison as a page.

use maud::{Markup, html};

use super::{Compared, Comparison};
use crate::measure::difference::Change;
use crate::measure::metric::Figure;
use crate::measure::record::Role;
use crate::report::html::{display, document, signed, value_text, words};

pub(super) fn page(comparison: &Comparison) -> String {
    let (class, word) = match comparison.verdict {
        Change::Better => ("passed", "Improvement"),
        Change::Worse => ("failed", "Regression"),
        Change::None => ("", "No significant change"),
        Change::Unknown => ("", "Cannot be compared"),
    };
    let changed = |compared: &&Compared| matches!(compared.difference.change, Change::Better | Change::Worse);
    let (changed, same): (Vec<_>, Vec<_>) = comparison.figures.iter().partition(changed);
    let body = html! {
        header {
            p class="eyebrow" { b { "Comparison" } }
            h1 { "What changed between two runs?" }
            p { "Before: " (comparison.before) br; "After: " (comparison.after) }
            div class={ "verdict " (class) } {
                div class="word" { (word) }
                p class="answer" { (comparison.summary) }
            }
            @for caveat in &comparison.caveats { p class="notice" { b { "Mind: " } (caveat) } }
        }
        main {
            section {
                h2 { "What changed" }
                p class="lead" { "Significant means that the 95 % interval of the difference, seed by seed, does not hold zero." }
                (table(&changed, "Nothing changed significantly."))
            }
            section {
                h2 { "What did not" }
                (table(&same, "Every figure changed."))
            }
        }
    };
    document("Comparison", &body)
}

fn table(figures: &[&Compared], empty: &str) -> Markup {
    if figures.is_empty() {
        return html! { p { (empty) } };
    }
    html! {
        div class="scroll" tabindex="0" role="region" aria-label="Figures" {
            table {
                thead { tr {
                    th scope="col" { "Figure" } th scope="col" { "Of" }
                    th scope="col" class="n" { "Before" } th scope="col" class="n" { "After" }
                    th scope="col" { "Change" }
                } }
                tbody { @for compared in figures { (row(compared)) } }
            }
        }
    }
}

fn row(compared: &Compared) -> Markup {
    let Ok(figure) = Figure::parse(&compared.figure) else { return html! {} };
    let (unit, difference) = (figure.unit(), &compared.difference);
    let class = match difference.change {
        Change::Better => "better",
        Change::Worse => "worse",
        Change::None | Change::Unknown => "same",
    };
    html! {
        tr {
            th scope="row" class="mono" { (compared.figure) }
            td { (display(&compared.variant)) @if compared.role == Role::Reference { " reference client" } }
            td class="n" { (value_text(unit, difference.from)) }
            td class="n" { (value_text(unit, difference.to)) }
            td {
                span class=(class) { (words(difference)) }
                @if let Some(interval) = difference.interval {
                    span class="ci" { "difference " (signed(unit, interval.low)) " to " (signed(unit, interval.high)) }
                }
            }
        }
    }
}
