//! `report.html`: one self-contained page, to be read by people. No script, no font and no image from elsewhere.

mod board;
mod comparison;
mod connections;
mod environment;
mod expectations;
mod head;
mod latency;
mod memory;
mod network;
mod wire;

pub(super) use comparison::{signed, words};

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{Measured, Report};
use crate::measure::Figure;
use crate::measure::analysis::{Estimate, Group, groups};
use crate::measure::record::{Role, Timing};
use crate::measure::unit::{Unit, thousands};
use crate::scenario::BoardName;

/// Files of one kind that lie beside the page.
pub(super) struct Raw {
    /// Their names.
    pub(super) names: Vec<String>,
    /// What they hold.
    pub(super) description: &'static str,
}

/// The whole page.
pub(super) fn page(report: &Report, files: &[Raw]) -> String {
    let record = &report.record;
    let view = View::new(report);
    let passed = if report.verdict.passed { "passed" } else { "failed" };
    let body = html! {
        (head::header(&view))
        main {
            (head::tiles(&view))
            (expectations::section(&view))
            (comparison::section(&view))
            (latency::section(&view))
            (connections::section(&view))
            (board::section(&view))
            (network::section(&view))
            (comparison::all_figures(&view))
            (environment::section(&view, files))
        }
        footer {
            "Made by harness " (record.environment.harness_version)
            ". Intervals are 95 % bootstrap intervals over seeds; every message, failure and time-out is counted. "
            "Latency counts from the moment the schedule wanted a message sent."
        }
    };
    document(&format!("{} · {passed}", record.scenario.name), &body)
}

/// A page with the style of reports.
pub(super) fn document(title: &str, body: &Markup) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body { (body) }
        }
    }
    .into_string()
}

/// What every section looks at.
struct View<'a> {
    report: &'a Report,
    groups: Vec<Group<'a>>,
}

impl<'a> View<'a> {
    fn new(report: &'a Report) -> Self {
        Self { report, groups: groups(&report.record) }
    }

    /// Colour of a variant: its place in the scenario.
    fn series(&self, variant: &str) -> usize {
        let variants = &self.report.record.scenario.variants;
        variants.iter().position(|name| name == variant).unwrap_or(0) % super::plot::SERIES
    }

    /// A figure of a group, as the report has it.
    fn estimate(&self, group: &Group<'_>, figure: Figure) -> Option<&'a Estimate> {
        let of_figure = |measured: &&Measured| {
            measured.metric == figure.metric.name
                && measured.variant == group.variant
                && measured.role == group.role
        };
        let measured = self.report.metrics.iter().find(of_figure)?;
        let statistic = measured.statistics.iter().find(|shown| shown.statistic == figure.statistic)?;
        Some(&statistic.estimate)
    }

    fn emulated(&self) -> bool {
        self.report.record.environment.board.timing == Timing::Emulated
    }

    /// Whether sizes are those of the host's own processor, so that no budget applies to them.
    fn foreign_sizes(&self) -> bool {
        self.report.record.environment.board.name == BoardName::Host.name()
    }

    fn devices(&self) -> impl Iterator<Item = &Group<'a>> {
        self.groups.iter().filter(|group| group.role == Role::Device)
    }

    /// The name of a group in its colour and dash.
    fn key(&self, group: &Group<'_>) -> Markup {
        let class = format!("key c{}", self.series(group.variant));
        let class = if group.role == Role::Reference { class + " dashed" } else { class };
        html! { span class=(class) { i {} (name(group)) } }
    }
}

/// Class of tables with a column for each variant and role, where these are many.
fn dense(view: &View<'_>) -> Option<&'static str> {
    (view.groups.len() > 6).then_some("dense")
}

/// Name of a group for readers.
fn name(group: &Group<'_>) -> String {
    match group.role {
        Role::Device => display(group.variant),
        Role::Reference => format!("{} reference", display(group.variant)),
    }
}

/// Transports are acronyms; other variants are called what the scenario calls them.
pub(super) fn display(variant: &str) -> String {
    match variant {
        "quic" => "QUIC".into(),
        "tls" => "TLS".into(),
        "tcp" => "TCP".into(),
        other => other.to_owned(),
    }
}

/// Where the samples behind a value are counted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Samples {
    /// In the cell.
    InCell,
    /// Elsewhere, for the whole row.
    Elsewhere,
}

/// A table cell with a value and its interval.
fn value_cell(unit: Unit, estimate: Option<&Estimate>, samples: Samples) -> Markup {
    let Some(estimate) = estimate else {
        return html! { td class="n none" title="not measured" { "–" span class="sr" { "not measured" } } };
    };
    html! {
        td class="n" {
            (value_text(unit, estimate.value))
            @if let Some(text) = interval_text(unit, estimate) { span class="ci" { (glued(&text)) } }
            @if samples == Samples::InCell { span class="ci" { (count_text(estimate)) } }
        }
    }
}

/// How many samples are behind a value, and how many of them never came.
fn count_text(estimate: &Estimate) -> String {
    let never = if estimate.failed > 0 {
        format!(", {} never", thousands(estimate.failed as f64))
    } else {
        String::new()
    };
    format!("n\u{a0}{}{never}", thousands(estimate.samples as f64))
}

/// A value; what never came is said in a word.
pub(super) fn value_text(unit: Unit, value: f64) -> String {
    if value.is_infinite() { "never".into() } else { unit.format(value) }
}

/// Keeps numbers and their units on one line.
fn glued(text: &str) -> String {
    let mut glued = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    let mut before = ' ';
    while let Some(character) = characters.next() {
        let unit_follows = characters.peek().is_some_and(|next| next.is_alphabetic() || *next == '%');
        let glue = character == ' ' && before.is_ascii_digit() && unit_follows;
        glued.push(if glue { '\u{a0}' } else { character });
        before = character;
    }
    glued
}

/// Lets a long name break behind its dots, and not within its words.
fn breakable(text: &str) -> Markup {
    html! { @for part in text.split_inclusive('.') { (part) wbr; } }
}

/// `[12.1 – 14.0 ms]`, or nothing when there is no interval or no width to it.
fn interval_text(unit: Unit, estimate: &Estimate) -> Option<String> {
    let interval = estimate.interval?;
    let (low, high) = (value_text(unit, interval.low), value_text(unit, interval.high));
    if low == high {
        return None;
    }
    // One unit serves both ends when it is the same.
    let first = unit.quantity(interval.low);
    let same_unit = first.unit == unit.quantity(interval.high).unit;
    let low = if same_unit && interval.high.is_finite() { first.number } else { low };
    Some(format!("{low} – {high}"))
}

#[cfg(test)]
mod tests;
