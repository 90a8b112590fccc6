//! Latency of each message over the time it was meant to be sent, with the impairments behind it.

use std::collections::BTreeSet;

use plotters::prelude::*;

use super::axis::{Axis, round_down, round_up};
use super::{AXIS, BAND, BAND_EDGE, Canvas, GRID, LOST, Plot, TEXT, finish, series};

/// One message.
#[derive(Clone, Copy)]
pub(in crate::report) struct Mark {
    /// Intended send, microseconds since the workload began.
    pub(in crate::report) at: f64,
    /// Latency in microseconds; `None` when it never arrived.
    pub(in crate::report) latency: Option<f64>,
    /// How it is drawn.
    pub(in crate::report) kind: MarkKind,
}

/// How a message is drawn.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::report) enum MarkKind {
    /// Filled: from the board.
    Up,
    /// Hollow: to the board.
    Down,
}

/// An impairment, microseconds since the workload began.
pub(in crate::report) struct Band {
    /// Begin.
    pub(in crate::report) start: f64,
    /// End; equal to the begin for a moment.
    pub(in crate::report) end: f64,
}

/// The plot; `None` without any message. `series` is the colour.
pub(in crate::report) fn timeline(
    marks: &[Mark],
    bands: &[Band],
    ink: usize,
    range: (f64, f64),
    label: &str,
) -> Option<Plot> {
    let last = marks.iter().map(|mark| mark.at).max_by(f64::total_cmp)?;
    let end = bands.iter().map(|band| band.end).fold(last, f64::max).max(1e5) * 1.02;
    let (low, high) = (round_down(range.0.max(1.0) * 0.8), round_up(range.1.max(1e3) * 1.3));
    Some(Plot::draw((220, 220), |canvas| draw(canvas, marks, bands, ink, end, (low, high), label)))
}

fn draw(
    canvas: Canvas,
    marks: &[Mark],
    bands: &[Band],
    ink: usize,
    end: f64,
    (low, high): (f64, f64),
    label: &str,
) -> String {
    let canvas = Canvas { width: if canvas.narrow { canvas.width } else { canvas.width * 2 }, ..canvas };
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (canvas.width, canvas.height)).into_drawing_area();
        let x = Axis::time(end, if canvas.narrow { 5 } else { 10 });
        let y = Axis::log_time(low, high, 5);
        let mut chart = ChartBuilder::on(&area)
            .margin_top(10)
            .margin_right(22)
            .x_label_area_size(26)
            .y_label_area_size(54)
            .build_cartesian_2d(x, y)
            .expect("an SVG string takes any drawing");
        let shades = bands.iter().flat_map(|band| {
            let fill = Rectangle::new([(band.start, low), (band.end, high)], BAND.filled()).into_dyn();
            let edge =
                PathElement::new(vec![(band.start, low), (band.start, high)], BAND_EDGE.stroke_width(1));
            [fill, edge.into_dyn()]
        });
        chart.draw_series(shades).expect("an SVG string takes any drawing");
        chart
            .configure_mesh()
            .disable_x_mesh()
            .bold_line_style(GRID.stroke_width(1))
            .light_line_style(TRANSPARENT)
            .axis_style(AXIS.stroke_width(1))
            .label_style(("sans-serif", 12).into_font().color(&TEXT))
            .set_all_tick_mark_size(4)
            .draw()
            .expect("an SVG string takes any drawing");
        let points = thinned(marks, end, (low, high), canvas).into_iter().map(|mark| match mark.latency {
            Some(latency) => {
                let style = match mark.kind {
                    MarkKind::Up => series(ink).filled(),
                    MarkKind::Down => series(ink).stroke_width(1),
                };
                Circle::new((mark.at, latency.clamp(low, high)), 2.4, style).into_dyn()
            }
            None => Cross::new((mark.at, high * 0.9), 4, LOST.stroke_width(2)).into_dyn(),
        });
        chart.draw_series(points).expect("an SVG string takes any drawing");
        area.present().expect("an SVG string takes any drawing");
    }
    finish(svg, label)
}

/// One of those marks that would fall on the same spot: a soak test has more messages than pixels.
fn thinned(marks: &[Mark], end: f64, (low, high): (f64, f64), canvas: Canvas) -> Vec<Mark> {
    let mut taken = BTreeSet::new();
    let spot = |mark: &Mark| {
        let x = mark.at / end * f64::from(canvas.width) / SPOT;
        let y = mark.latency.map_or(-1.0, |latency| {
            (latency.max(low) / low).ln() / (high / low).ln() * f64::from(canvas.height) / SPOT
        });
        (x as i64, y as i64, mark.kind)
    };
    marks.iter().filter(|mark| taken.insert(spot(mark))).copied().collect()
}

/// Marks closer than this many pixels cover one another.
const SPOT: f64 = 1.5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_line_shows_bands_and_losses() {
        let marks = [
            Mark { at: 0.0, latency: Some(3e4), kind: MarkKind::Up },
            Mark { at: 1e6, latency: None, kind: MarkKind::Down },
        ];
        let plot = timeline(&marks, &[Band { start: 2e5, end: 6e5 }], 1, (3e4, 3e4), "latency").unwrap();
        for svg in [plot.wide, plot.narrow] {
            roxmltree::Document::parse(&svg).unwrap_or_else(|error| panic!("{error}\n{svg}"));
            for ink in ["var(--s1)", "var(--bad)", "var(--band)"] {
                assert!(svg.contains(ink), "{ink} is missing in {svg}");
            }
            assert!(!svg.contains('#'), "a fixed colour is left in {svg}");
        }
        assert!(timeline(&[], &[], 0, (1.0, 1.0), "x").is_none());
    }

    #[test]
    fn many_marks_are_thinned_and_losses_kept() {
        let mut marks: Vec<_> = (0..50_000)
            .map(|i| Mark {
                at: f64::from(i) * 100.0,
                latency: Some(3e4 + f64::from(i % 100)),
                kind: MarkKind::Up,
            })
            .collect();
        marks.push(Mark { at: 2.5e6, latency: None, kind: MarkKind::Up });
        let canvas = Canvas { width: 1000, height: 200, narrow: false };
        let thin = thinned(&marks, 5e6, (1e4, 1e6), canvas);
        assert!(thin.len() < 3000, "{}", thin.len());
        assert!(thin.iter().any(|mark| mark.latency.is_none()));
    }
}
