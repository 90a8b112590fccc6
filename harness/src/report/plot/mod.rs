//! Plots as inline SVG by plotters, coloured by the page's CSS variables so that they follow dark mode.
//!
//! plotters knows fixed colours only. Each ink is drawn in a colour of its own that stands for a CSS variable,
//! and [`finish`] puts the variable in its place. Each plot comes twice, wide and narrow, because shrinking a
//! wide one to a phone would shrink its text with it.

mod axis;
mod distribution;
mod timeline;

use plotters::style::RGBColor;

pub(super) use distribution::{Curve, cumulative, spectrum};
pub(super) use timeline::{Band, Mark, MarkKind, timeline};

/// A plot for desktop and phone: two SVG elements.
pub(super) struct Plot {
    /// For wide screens.
    pub(super) wide: String,
    /// For narrow ones.
    pub(super) narrow: String,
}

/// Size of a plot in CSS pixels.
#[derive(Clone, Copy)]
struct Canvas {
    width: u32,
    height: u32,
    /// Fewer ticks fit on a phone.
    narrow: bool,
}

impl Plot {
    /// Draws both sizes.
    fn draw(heights: (u32, u32), draw: impl Fn(Canvas) -> String) -> Self {
        let wide = Canvas { width: WIDE, height: heights.0, narrow: false };
        let narrow = Canvas { width: NARROW, height: heights.1, narrow: true };
        Self { wide: draw(wide), narrow: draw(narrow) }
    }
}

/// Half of the page's text column, and a phone's.
const WIDE: u32 = 520;
const NARROW: u32 = 350;

/// Inks and the CSS variables they stand for.
const INKS: [(RGBColor, &str); 12] = [
    (series(0), "var(--s0)"),
    (series(1), "var(--s1)"),
    (series(2), "var(--s2)"),
    (series(3), "var(--s3)"),
    (series(4), "var(--s4)"),
    (series(5), "var(--s5)"),
    (AXIS, "var(--rule)"),
    (GRID, "var(--grid)"),
    (TEXT, "var(--soft)"),
    (BAND, "var(--band)"),
    (BAND_EDGE, "var(--band-edge)"),
    (LOST, "var(--bad)"),
];

/// Ink of the n-th series.
pub(super) const fn series(index: usize) -> RGBColor {
    RGBColor(200, 1, (index % SERIES) as u8)
}

/// Series that can be told apart by colour.
pub(super) const SERIES: usize = 6;
const AXIS: RGBColor = RGBColor(201, 1, 0);
const GRID: RGBColor = RGBColor(201, 1, 1);
const TEXT: RGBColor = RGBColor(201, 1, 2);
const BAND: RGBColor = RGBColor(201, 1, 3);
const BAND_EDGE: RGBColor = RGBColor(201, 1, 4);
const LOST: RGBColor = RGBColor(201, 1, 5);

/// Turns what plotters wrote into an element that fits the page: CSS colours, no fixed size, a text alternative.
fn finish(svg: String, label: &str) -> String {
    let mut svg = svg;
    for (ink, variable) in INKS {
        let hex = format!("#{:02X}{:02X}{:02X}", ink.0, ink.1, ink.2);
        svg = svg.replace(&hex, variable);
    }
    let Some(end) = svg.find('>') else { return svg };
    let view_box =
        svg[..end].split("viewBox=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or("0 0 1 1");
    let label = label.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;");
    let body = svg[end + 1..].replace("font-family=\"sans-serif\" ", "").replace("\n", "");
    format!("<svg viewBox=\"{view_box}\" role=\"img\" aria-label=\"{label}\">{body}")
}
