//! The cumulative distribution of a latency, and its percentile spectrum, where the tail can be read.

use plotters::prelude::*;

use super::axis::{Axis, round_down, round_up};
use super::{AXIS, Canvas, GRID, Plot, TEXT, finish, series};
use crate::measure::histogram::{Samples, Step};

/// One curve.
pub(in crate::report) struct Curve {
    /// Series whose colour it has.
    pub(in crate::report) series: usize,
    /// Dashed for the reference client.
    pub(in crate::report) dashed: bool,
    /// What it shows.
    pub(in crate::report) samples: Samples,
}

/// Share of messages within a time. A curve that ends below 100 % had failures.
pub(in crate::report) fn cumulative(curves: &[Curve], label: &str) -> Option<Plot> {
    let (low, high) = bounds(curves)?;
    Some(Plot::draw((280, 260), |canvas| {
        let x = Axis::log_time(low, high, if canvas.narrow { 4 } else { 7 });
        let y = Axis::with_ticks(0.0..1.0, vec![0.0, 0.25, 0.5, 0.75, 1.0], percent);
        let lines = curves.iter().map(|curve| (curve, staircase(&curve.samples, low, high))).collect();
        chart(canvas, label, x, y, lines)
    }))
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// Latency over the percentile, the axis stretched towards 100 % so that each nine has the same room.
pub(in crate::report) fn spectrum(curves: &[Curve], label: &str) -> Option<Plot> {
    let (low, high) = bounds(curves)?;
    let most = curves.iter().map(|curve| curve.samples.len()).max()?;
    // A percentile beyond 1 - 1/n says nothing.
    let nines = (most.max(10) as f64).log10().clamp(1.0, 4.0);
    Some(Plot::draw((280, 260), |canvas| {
        let points = PERCENTILES.iter().map(|(share, _)| stretch(*share)).filter(|at| *at <= nines + 0.01);
        let x = Axis::with_ticks(0.0..nines, points.collect(), percentile_name);
        let y = Axis::log_time(low, high, 6);
        let lines = curves.iter().map(|curve| (curve, rising(&curve.samples, nines))).collect();
        chart(canvas, label, x, y, lines)
    }))
}

const PERCENTILES: [(f64, &str); 6] =
    [(0.0, "0 %"), (0.5, "50 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %"), (0.9999, "99.99 %")];

/// How many nines a share has.
fn stretch(share: f64) -> f64 {
    -(1.0 - share).max(1e-9).log10()
}

fn percentile_name(at: f64) -> String {
    let named = PERCENTILES.iter().find(|(share, _)| (stretch(*share) - at).abs() < 0.01);
    named.map(|(_, name)| (*name).to_owned()).unwrap_or_default()
}

fn bounds(curves: &[Curve]) -> Option<(f64, f64)> {
    let ranges = || curves.iter().filter_map(|curve| curve.samples.range());
    let low = ranges().map(|(low, _)| low).min_by(f64::total_cmp)?;
    let high = ranges().map(|(_, high)| high).max_by(f64::total_cmp)?;
    let (low, high) = (round_down(low.max(1.0) * 0.9), round_up(high.max(1.0) * 1.05));
    Some((low, if high < low * 3.0 { low * 3.0 } else { high }))
}

/// Corner points of the distribution function.
fn staircase(samples: &Samples, low: f64, high: f64) -> Vec<(f64, f64)> {
    let mut points = vec![(low, 0.0)];
    let mut share = 0.0;
    for step in samples.steps() {
        points.push((step.value.max(low), share));
        share = step.share;
        points.push((step.value.max(low), share));
    }
    points.push((high, share));
    points
}

/// Latency at each percentile, up to `nines`.
fn rising(samples: &Samples, nines: f64) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> = Vec::new();
    let mut before = 0.0;
    for Step { value, share } in samples.steps() {
        points.push((stretch(before).min(nines), value.max(1.0)));
        points.push((stretch(share).min(nines), value.max(1.0)));
        before = share;
    }
    points
}

fn chart(canvas: Canvas, label: &str, x: Axis, y: Axis, lines: Vec<(&Curve, Vec<(f64, f64)>)>) -> String {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (canvas.width, canvas.height)).into_drawing_area();
        let style = || ("sans-serif", 12).into_font().color(&TEXT);
        let mut chart = ChartBuilder::on(&area)
            .margin_top(10)
            .margin_right(22)
            .x_label_area_size(26)
            .y_label_area_size(54)
            .build_cartesian_2d(x, y)
            .expect("an SVG string takes any drawing");
        chart
            .configure_mesh()
            .bold_line_style(GRID.stroke_width(1))
            .light_line_style(TRANSPARENT)
            .axis_style(AXIS.stroke_width(1))
            .label_style(style())
            .set_all_tick_mark_size(4)
            .draw()
            .expect("an SVG string takes any drawing");
        for (curve, points) in lines {
            let stroke = series(curve.series).stroke_width(2);
            let drawn = if curve.dashed {
                chart.draw_series(DashedLineSeries::new(points, 5, 4, stroke)).map(|_| ())
            } else {
                chart.draw_series(LineSeries::new(points, stroke)).map(|_| ())
            };
            drawn.expect("an SVG string takes any drawing");
        }
        area.present().expect("an SVG string takes any drawing");
    }
    finish(svg, label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(values: impl IntoIterator<Item = f64>) -> Curve {
        Curve { series: 0, dashed: false, samples: Samples::new(values) }
    }

    #[test]
    fn plots_are_well_formed_follow_the_theme_and_have_a_text() {
        let curves =
            [curve((1..100).map(|i| f64::from(i) * 1e4)), Curve { dashed: true, ..curve([3e4, 5e5]) }];
        for plot in [cumulative(&curves, "a <\"plot\">").unwrap(), spectrum(&curves, "a <\"plot\">").unwrap()]
        {
            for svg in [plot.wide, plot.narrow] {
                let xml = roxmltree::Document::parse(&svg).unwrap_or_else(|error| panic!("{error}\n{svg}"));
                assert_eq!(xml.root_element().attribute("aria-label"), Some("a <\"plot\">"));
                assert!(svg.contains("var(--s0)") && svg.contains("var(--soft)"), "{svg}");
                assert!(!svg.contains('#'), "a fixed colour is left in {svg}");
                let texts: Vec<_> =
                    xml.descendants().filter(|n| n.has_tag_name("text")).filter_map(|n| n.text()).collect();
                assert!(texts.iter().any(|text| text.trim() == "100 ms"), "{texts:?}");
            }
        }
    }

    #[test]
    fn nothing_measured_is_no_plot() {
        assert!(cumulative(&[], "x").is_none());
        assert!(spectrum(&[curve([f64::INFINITY])], "x").is_none());
    }

    #[test]
    fn a_curve_with_failures_ends_below_one() {
        let points = staircase(&Samples::new([10.0, f64::INFINITY]), 1.0, 100.0);
        assert_eq!(points.last(), Some(&(100.0, 0.5)));
    }

    #[test]
    fn a_single_value_still_has_a_plot() {
        assert!(cumulative(&[curve([50_000.0; 3])], "x").is_some());
        assert!(spectrum(&[curve([0.0])], "x").is_some());
    }
}
