//! Every expectation against every variant and role.

use maud::{Markup, html};

use super::{View, breakable, count_text, name, value_text};
use crate::measure::analysis::Group;
use crate::measure::judge::{Outcome, Status};

pub(super) fn section(view: &View<'_>) -> Markup {
    let outcomes = &view.report.verdict.outcomes;
    let mut texts: Vec<&str> = Vec::new();
    for outcome in outcomes {
        if !texts.contains(&outcome.expectation.as_str()) {
            texts.push(&outcome.expectation);
        }
    }
    let failures: Vec<&Outcome> = outcomes
        .iter()
        .filter(|outcome| outcome.decides && matches!(outcome.status, Status::Failed | Status::NotMeasured))
        .collect();
    html! {
        section id="expectations" {
            h2 { "Expectations" }
            p class="lead" {
                "The device decides the verdict; the reference client is held to the same words for comparison "
                "and decides only where an expectation names it."
            }
            div class="scroll" tabindex="0" role="region" aria-label="Expectations" {
                table class=[super::dense(view)] {
                    thead { tr {
                        th scope="col" { "Expectation" }
                        @for group in &view.groups { th scope="col" { (view.key(group)) } }
                    } }
                    tbody {
                        @for text in &texts {
                            tr {
                                th scope="row" class="mono" { (breakable(text)) }
                                @for group in &view.groups { (cell(outcomes, text, group)) }
                            }
                        }
                    }
                }
            }
            @if !failures.is_empty() {
                h3 { "What failed" }
                ul class="files" {
                    @for outcome in failures {
                        li {
                            span class={ "st " (class(outcome.status)) } { (outcome.status.label()) } " "
                            (super::glued(&outcome.explanation))
                            @if !outcome.variant.is_empty() { span class="soft" { " – " (crate::measure::judge::who(outcome)) } }
                        }
                    }
                }
            }
        }
    }
}

fn class(status: Status) -> &'static str {
    match status {
        Status::Passed => "passed",
        Status::Failed => "failed",
        Status::NotMeasured => "not-measured",
        Status::NotApplicable => "not-applicable",
    }
}

fn cell(outcomes: &[Outcome], text: &str, group: &Group<'_>) -> Markup {
    let of_expectation = || outcomes.iter().filter(|outcome| outcome.expectation == text);
    // Several trials of one group may have failed to complete; the last outcome stands for them here.
    let own = of_expectation().rfind(|o| o.variant == group.variant && o.role == group.role);
    let general = of_expectation().find(|o| o.variant.is_empty());
    let Some(outcome) = own.or(general) else {
        return html! { td class="none" { "–" span class="sr" { "not spoken of: " (name(group)) } } };
    };
    let word = match (outcome.status, outcome.actual) {
        (Status::Passed | Status::Failed, Some(actual)) => value_text(outcome.unit, actual.value),
        (Status::NotApplicable, _) => "n/a".to_owned(),
        (status, _) => status.label().to_owned(),
    };
    html! {
        td class=[(!outcome.decides).then_some("aside")] title=(outcome.explanation) {
            span class={ "st " (class(outcome.status)) } {
                (word) span class="sr" { " (" (outcome.status.label()) ")" }
            }
            @if let Some(actual) = outcome.actual.filter(|actual| actual.samples > 1) {
                span class="ci" { (count_text(&actual)) }
            }
        }
    }
}
