//! Latency as distributions and over time.

use maud::{Markup, PreEscaped, html};

use super::{View, name};
use crate::measure::analysis::Group;
use crate::measure::histogram::Samples;
use crate::measure::metric::Metric;
use crate::measure::record::{Direction, ImpairmentKind, Role, Trial};
use crate::measure::stats::Observed;
use crate::report::plot::{self, Band, Curve, Mark, MarkKind, Plot};

/// Metrics worth a distribution, with what the plots call them.
const PLOTTED: [(&str, &str); 4] = [
    ("publish.latency", "Publish to PUBACK"),
    ("end_to_end.latency", "End to end, both directions"),
    ("connect.time", "Start of a connection to CONNACK"),
    ("reconnect.time", "Lost connection to CONNACK"),
];
/// A curve of fewer samples would suggest more than there is.
const SAMPLES_MIN: u64 = 8;

pub(super) fn section(view: &View<'_>) -> Markup {
    let plots: Vec<_> =
        PLOTTED.iter().filter_map(|(metric, title)| distributions(view, metric, title)).collect();
    let (lines, reference_lines) = timelines(view);
    if plots.is_empty() && lines.is_empty() {
        return html! {};
    }
    html! {
        section id="latency" {
            h2 { "Latency" }
            p class="lead" {
                "Counted from the intended send, so a stalled sender cannot hide what it delayed. A curve that ends "
                "below 100 % lost the rest."
            }
            div class="legend" { @for group in &view.groups { (view.key(group)) } }
            div class="plots" {
                @for plot in plots { (plot) }
                @for line in lines { (line) }
            }
            @if !reference_lines.is_empty() {
                details {
                    summary { "The reference client over time" }
                    div class="plots" { @for line in reference_lines { (line) } }
                }
            }
        }
    }
}

fn svg(plot: &Plot) -> Markup {
    // Both sizes are in the page; style.css shows the one that fits.
    let with_class = |svg: &str, class: &str| svg.replacen("<svg ", &format!("<svg class=\"{class}\" "), 1);
    html! { (PreEscaped(with_class(&plot.wide, "wide"))) (PreEscaped(with_class(&plot.narrow, "narrow"))) }
}

fn distributions(view: &View<'_>, metric: &str, title: &str) -> Option<Markup> {
    let metric = Metric::find(metric)?;
    let curves: Vec<_> = view
        .groups
        .iter()
        .filter_map(|group| {
            let samples =
                Samples::new(group.clusters(metric).into_iter().flat_map(|cluster| match cluster.observed {
                    Observed::Samples(values) => values,
                    Observed::Quotient { .. } => Vec::new(),
                }));
            let dashed = group.role == Role::Reference;
            (!samples.is_empty()).then(|| Curve { series: view.series(group.variant), dashed, samples })
        })
        .collect();
    let most = curves.iter().map(|curve| curve.samples.len()).max()?;
    if most < SAMPLES_MIN {
        return None;
    }
    let summary = summary(view, metric);
    let cumulative =
        plot::cumulative(&curves, &format!("{title}: share of samples within a time. {summary}"))?;
    let spectrum = plot::spectrum(&curves, &format!("{title}: time by percentile. {summary}"))?;
    Some(html! {
        figure {
            figcaption { (title) span { "share of messages within a time" } }
            (svg(&cumulative))
        }
        figure {
            figcaption { (title) span { "time by percentile: the tail, each nine with the same room" } }
            (svg(&spectrum))
        }
    })
}

/// The plot in words, for those who cannot see it.
fn summary(view: &View<'_>, metric: &'static Metric) -> String {
    use crate::measure::{Figure, Statistic};
    let parts = view.groups.iter().filter_map(|group| {
        let value = |statistic| group.value(Figure { metric, statistic });
        let (median, tail) = (value(Statistic::P50)?, value(Statistic::P99)?);
        let text = |value| super::value_text(metric.unit, value);
        Some(format!("{}: median {}, 99th percentile {}", name(group), text(median), text(tail)))
    });
    parts.collect::<Vec<_>>().join("; ")
}

/// One time line for each group that carried messages, of its first seed: those of the device, those of the
/// reference client.
fn timelines(view: &View<'_>) -> (Vec<Markup>, Vec<Markup>) {
    let shown: Vec<_> = view
        .groups
        .iter()
        .filter_map(|group| {
            Some((group, group.trials.iter().copied().find(|trial| !trial.messages.is_empty())?))
        })
        .collect();
    // One vertical scale for all, so that they can be compared by eye.
    let latencies = || shown.iter().flat_map(|(_, trial)| marks(trial)).filter_map(|mark| mark.latency);
    let low = latencies().fold(f64::INFINITY, f64::min);
    let high = latencies().fold(0.0, f64::max);
    let range = if low.is_finite() { (low, high) } else { (1e3, 1e6) };
    let of = |role: Role| {
        let shown = shown.iter().filter(|(group, _)| group.role == role);
        shown.filter_map(|(group, trial)| timeline(view, group, trial, range)).collect()
    };
    (of(Role::Device), of(Role::Reference))
}

fn workload_start(trial: &Trial) -> u64 {
    trial.messages.iter().map(|message| message.intended_us).min().unwrap_or(0)
}

fn marks(trial: &Trial) -> Vec<Mark> {
    let start = workload_start(trial);
    let mark = |message: &crate::measure::record::Message| {
        let arrived = message.delivered_us.filter(|_| message.fate.arrived());
        Mark {
            at: (message.intended_us - start) as f64,
            latency: arrived.map(|at| at.saturating_sub(message.intended_us) as f64),
            kind: match message.direction {
                Direction::FromBoard => MarkKind::Up,
                Direction::ToBoard => MarkKind::Down,
            },
        }
    };
    trial.messages.iter().map(mark).collect()
}

fn timeline(view: &View<'_>, group: &Group<'_>, trial: &Trial, range: (f64, f64)) -> Option<Markup> {
    let start = workload_start(trial);
    let impairments: Vec<_> =
        trial.impairments.iter().filter(|impairment| impairment.end_us >= start).collect();
    let bands: Vec<_> = impairments
        .iter()
        .map(|impairment| Band {
            start: impairment.start_us.saturating_sub(start) as f64,
            end: (impairment.end_us - start) as f64,
        })
        .collect();
    let marks = marks(trial);
    let missing = marks.iter().filter(|mark| mark.latency.is_none()).count();
    let label = format!(
        "{}, seed {}: latency of {} messages over time, {missing} of them never arrived, {} disturbances",
        name(group),
        trial.seed,
        marks.len(),
        bands.len()
    );
    let plot = plot::timeline(&marks, &bands, view.series(group.variant), range, &label)?;
    Some(html! {
        figure class="full" {
            figcaption {
                (name(group)) " over time"
                span {
                    "seed " (trial.seed) " · filled: from the board, hollow: to the board"
                    @if missing > 0 { " · crosses: never arrived (" (missing) ")" }
                }
            }
            (svg(&plot))
            @if !impairments.is_empty() {
                ul class="bands" {
                    @for impairment in impairments.iter().take(BANDS_NAMED) {
                        li { (impairment.label) " at " (crate::measure::Unit::Time.format(impairment.start_us.saturating_sub(start) as f64))
                            @if impairment.kind == ImpairmentKind::Degraded { " (degraded)" } }
                    }
                    @if impairments.len() > BANDS_NAMED { li { "and " (impairments.len() - BANDS_NAMED) " more" } }
                }
            }
        }
    })
}

/// Disturbances named below a time line; beyond that, names hide the plot.
const BANDS_NAMED: usize = 8;
