//! Expectations: one sentence each, such as `publish.latency.p99 <= 2 s for quic on host, qemu`.
//!
//! ```text
//! FIGURE COMPARISON LIMIT [for WHO, ...] [on BOARD, ...]
//! FIGURE      metric or metric.statistic
//! COMPARISON  <=  <  >=  >  =  !=
//! LIMIT       NUMBER UNIT  |  [FACTOR x] FIGURE  |  [FACTOR x] VARIANT
//! WHO         device | reference | all | name of a variant
//! ```
//! A limit that names a variant compares the same figure, taken from that variant in the same role.

use std::fmt;
use std::ops::Range;

mod foregone;

use super::metric::{Figure, nearest};
use super::record::Role;

/// One expectation.
#[derive(Clone, Debug, PartialEq)]
pub struct Expectation {
    /// As it was written.
    pub text: String,
    /// What is looked at.
    pub figure: Figure,
    /// How it is compared.
    pub comparison: Comparison,
    /// With what.
    pub limit: Limit,
    /// Variants it speaks of; empty means every one.
    pub variants: Vec<String>,
    /// Roles whose failure fails the run.
    pub roles: Vec<Role>,
    /// Boards it speaks of; empty means every one.
    pub boards: Vec<String>,
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `<=`
    AtMost,
    /// `<`
    Below,
    /// `>=`
    AtLeast,
    /// `>`
    Above,
    /// `=`
    Equal,
    /// `!=`
    Different,
}

impl Comparison {
    /// Longer symbols first, as a shorter one may be the beginning of a longer.
    const SYMBOLS: [(&'static str, Self); 9] = [
        ("<=", Self::AtMost),
        ("≤", Self::AtMost),
        (">=", Self::AtLeast),
        ("≥", Self::AtLeast),
        ("!=", Self::Different),
        ("==", Self::Equal),
        ("<", Self::Below),
        (">", Self::Above),
        ("=", Self::Equal),
    ];

    /// Whether `actual` meets it. Numbers that differ by rounding only are equal.
    #[must_use]
    pub fn holds(self, actual: f64, limit: f64) -> bool {
        let gap = (actual - limit).abs();
        let equal = actual == limit || gap.is_finite() && gap <= 1e-9 * actual.abs().max(limit.abs());
        match self {
            Self::AtMost => equal || actual < limit,
            Self::Below => !equal && actual < limit,
            Self::AtLeast => equal || actual > limit,
            Self::Above => !equal && actual > limit,
            Self::Equal => equal,
            Self::Different => !equal,
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AtMost => "≤",
            Self::Below => "<",
            Self::AtLeast => "≥",
            Self::Above => ">",
            Self::Equal => "=",
            Self::Different => "≠",
        })
    }
}

/// What a figure is compared with.
#[derive(Clone, Debug, PartialEq)]
pub enum Limit {
    /// A value in the figure's base unit.
    Value(f64),
    /// Another figure of the same variant and role, times a factor.
    Figure {
        /// The factor.
        factor: f64,
        /// The figure.
        figure: Figure,
    },
    /// The same figure of another variant in the same role, times a factor.
    Variant {
        /// The factor.
        factor: f64,
        /// The variant's name.
        variant: String,
    },
}

/// What a scenario offers to expectations.
#[derive(Clone, Copy, Debug)]
pub struct Vocabulary<'a> {
    /// Names of its variants.
    pub variants: &'a [String],
    /// Names of the boards there are.
    pub boards: &'a [&'a str],
}

/// An expectation that cannot be meant: what is wrong, what to write, and which part of the text it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectationError {
    /// What is wrong.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
    /// Byte range of the offending part.
    pub span: Range<usize>,
}

impl fmt::Display for ExpectationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.problem, self.remedy)
    }
}

impl std::error::Error for ExpectationError {}

impl Expectation {
    /// Reads one expectation.
    ///
    /// # Errors
    /// Names the part that is wrong and what to write instead.
    pub fn parse(text: &str, vocabulary: Vocabulary<'_>) -> Result<Self, ExpectationError> {
        let (at, symbol, comparison) = find_comparison(text).ok_or_else(|| ExpectationError {
            problem: "no comparison in this expectation".into(),
            remedy: "write for example \"publish.latency.p99 <= 2 s\"; there are <=, <, >=, >, =, !=".into(),
            span: 0..text.len(),
        })?;
        let figure = Part::of(text, 0..at);
        let figure = figure.figure()?;
        let (rest, on) = split_word(Part::of(text, at + symbol.len()..text.len()), "on");
        let (limit, who) = split_word(rest, "for");
        let boards = match on {
            Some(on) => {
                on.names().map(|name| name.one_of("board", vocabulary.boards)).collect::<Result<_, _>>()?
            }
            None => Vec::new(),
        };
        let (variants, roles) = scope(who, vocabulary)?;
        let part = limit.clone();
        let limit = read_limit(limit, figure, vocabulary)?;
        let spoken_of = if variants.is_empty() { vocabulary.variants } else { &variants };
        if let Some(outcome) = foregone::foregone(figure, comparison, &limit, spoken_of) {
            let problem = format!("{figure} {comparison} {} {outcome}", part.text());
            return Err(part.error(problem, "write a limit that a run can meet or miss".into()));
        }
        Ok(Self { text: text.trim().to_owned(), figure, comparison, limit, variants, roles, boards })
    }
}

fn find_comparison(text: &str) -> Option<(usize, &'static str, Comparison)> {
    text.char_indices().find_map(|(at, _)| {
        let (symbol, comparison) =
            Comparison::SYMBOLS.into_iter().find(|(symbol, _)| text[at..].starts_with(symbol))?;
        Some((at, symbol, comparison))
    })
}

/// Splits `... word ...`; the word stands alone between spaces.
fn split_word<'a>(part: Part<'a>, word: &str) -> (Part<'a>, Option<Part<'a>>) {
    let inner = part.text();
    let padded = format!(" {word} ");
    match inner.find(&padded) {
        Some(at) => {
            let middle = part.span.start + at;
            (
                Part::of(part.whole, part.span.start..middle),
                Some(Part::of(part.whole, middle + padded.len()..part.span.end)),
            )
        }
        None => (part, None),
    }
}

fn scope(
    who: Option<Part<'_>>,
    vocabulary: Vocabulary<'_>,
) -> Result<(Vec<String>, Vec<Role>), ExpectationError> {
    let mut variants = Vec::new();
    let mut roles = Vec::new();
    let mut names: Vec<_> = vocabulary.variants.iter().map(String::as_str).collect();
    names.extend(["device", "reference", "all"]);
    for name in who.into_iter().flat_map(|who| who.names().collect::<Vec<_>>()) {
        match name.one_of("variant or role", &names)?.as_str() {
            "device" => roles.push(Role::Device),
            "reference" => roles.push(Role::Reference),
            "all" => roles.extend([Role::Device, Role::Reference]),
            variant => variants.push(variant.to_owned()),
        }
    }
    if roles.is_empty() {
        roles.push(Role::Device);
    }
    roles.sort_unstable();
    roles.dedup();
    Ok((variants, roles))
}

fn read_limit(part: Part<'_>, figure: Figure, vocabulary: Vocabulary<'_>) -> Result<Limit, ExpectationError> {
    let text = part.text();
    let end = text.find(|c: char| !(c.is_ascii_digit() || "+-._".contains(c))).unwrap_or(text.len());
    let (number, unit) = (text[..end].replace('_', ""), text[end..].trim());
    if number.is_empty() {
        return named_limit(part, 1.0, figure, vocabulary);
    }
    let number: f64 = number.parse().map_err(|_| {
        part.error(format!("{:?} is not a number", &text[..end]), "write for example 2 s".into())
    })?;
    if let Some(name) = unit.strip_prefix("x ").or_else(|| unit.strip_prefix("× ")) {
        let start = part.span.end - name.len();
        return named_limit(Part::of(part.whole, start..part.span.end), number, figure, vocabulary);
    }
    let expected = figure.unit();
    let Some(scale) = expected.factor(unit) else {
        let symbol = expected.symbols()[0].0;
        let example = format!("{number} {symbol}");
        let problem = match (unit, symbol) {
            (unit, "") => format!("{figure} is a plain number; {unit:?} is no unit of it"),
            ("", _) => format!("the unit of {figure} is missing"),
            (unit, _) => format!("{unit:?} is no unit of {figure}"),
        };
        let remedy = format!("write for example {}; there are {}", example.trim(), expected.symbol_list());
        return Err(part.error(problem, remedy));
    };
    let value = number * scale;
    if value < 0.0 {
        let problem = format!("{figure} is never negative");
        return Err(part.error(problem, "write a limit of 0 or more".into()));
    }
    if expected == super::Unit::Percent && value > 1.0 {
        return Err(
            part.error(format!("{figure} is never more than 100 %"), "write a limit up to 100 %".into())
        );
    }
    Ok(Limit::Value(value))
}

/// A limit that names a variant or a figure.
fn named_limit(
    part: Part<'_>,
    factor: f64,
    figure: Figure,
    vocabulary: Vocabulary<'_>,
) -> Result<Limit, ExpectationError> {
    let name = part.text();
    if vocabulary.variants.iter().any(|variant| variant == name) {
        return Ok(Limit::Variant { factor, variant: name.to_owned() });
    }
    if name.is_empty() {
        let symbol = figure.unit().symbols()[0].0;
        return Err(
            part.error("the limit is missing".into(), format!("write for example {figure} <= 2 {symbol}"))
        );
    }
    let other = match Figure::parse(name) {
        Ok(other) => other,
        Err(error) => {
            let near = nearest(name, vocabulary.variants.iter().map(String::as_str));
            let remedy = near.map_or(error.remedy, |near| format!("did you mean {near}?"));
            return Err(part.error(format!("{name:?} is no limit, variant or metric"), remedy));
        }
    };
    if other.unit() != figure.unit() {
        let problem = format!("{other} and {figure} have different units");
        return Err(part.error(problem, "compare figures of one unit".into()));
    }
    Ok(Limit::Figure { factor, figure: other })
}

/// A piece of the expectation that knows where it stands.
#[derive(Clone, Debug)]
struct Part<'a> {
    whole: &'a str,
    span: Range<usize>,
}

impl<'a> Part<'a> {
    /// The piece in `span`, blanks at its ends taken off.
    fn of(whole: &'a str, span: Range<usize>) -> Self {
        let text = &whole[span.clone()];
        let start = span.start + (text.len() - text.trim_start().len());
        let end = start + text.trim().len();
        Self { whole, span: start..end }
    }

    fn text(&self) -> &'a str {
        &self.whole[self.span.clone()]
    }

    fn names(&self) -> impl Iterator<Item = Part<'a>> {
        let (whole, start) = (self.whole, self.span.start);
        let mut offset = start;
        self.text().split(',').map(move |name| {
            let span = offset..offset + name.len();
            offset = span.end + 1;
            Part::of(whole, span)
        })
    }

    fn figure(&self) -> Result<Figure, ExpectationError> {
        Figure::parse(self.text()).map_err(|error| self.error(error.problem, error.remedy))
    }

    fn one_of(&self, what: &str, names: &[&str]) -> Result<String, ExpectationError> {
        let name = self.text();
        if names.contains(&name) {
            return Ok(name.to_owned());
        }
        let remedy = match nearest(name, names.iter().copied()) {
            Some(near) => format!("did you mean {near}? there are {}", names.join(", ")),
            None => format!("there are {}", names.join(", ")),
        };
        Err(self.error(format!("{name:?} is no {what} of this scenario"), remedy))
    }

    fn error(&self, problem: String, remedy: String) -> ExpectationError {
        let span = if self.span.is_empty() { 0..self.whole.len() } else { self.span.clone() };
        ExpectationError { problem, remedy, span }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Statistic;

    pub(super) fn parse(text: &str) -> Result<Expectation, ExpectationError> {
        let variants = ["quic".to_owned(), "tls".to_owned(), "quic-streams".to_owned()];
        Expectation::parse(text, Vocabulary { variants: &variants, boards: &["host", "qemu"] })
    }

    #[test]
    fn an_expectation_is_read_whole() {
        let e = parse("publish.latency.p99 <= 2 s for quic, tls on qemu").unwrap();
        assert_eq!(e.figure.metric.name, "publish.latency");
        assert_eq!(e.figure.statistic, Statistic::P99);
        assert_eq!(e.comparison, Comparison::AtMost);
        assert_eq!(e.limit, Limit::Value(2e6));
        assert_eq!(e.variants, ["quic", "tls"]);
        assert_eq!(e.roles, [Role::Device]);
        assert_eq!(e.boards, ["qemu"]);
    }

    #[test]
    fn limits_may_name_figures_and_variants() {
        let e = parse("end_to_end.latency.p99 <= 0.8 x tls for quic-streams").unwrap();
        assert_eq!(e.limit, Limit::Variant { factor: 0.8, variant: "tls".into() });
        let e = parse("instructions.handshake.full <= 1.15 x instructions.public_key on qemu").unwrap();
        assert!(matches!(e.limit, Limit::Figure { factor: 1.15, .. }));
        let e = parse("connect.time.resumed.p50 < connect.time.full.p50").unwrap();
        assert!(matches!(e.limit, Limit::Figure { factor: 1.0, .. }));
        assert_eq!(parse("instructions.publish.qos0.max <= 30 k").unwrap().limit, Limit::Value(30e3));
        assert_eq!(parse("duplicates = 0").unwrap().limit, Limit::Value(0.0));
        assert_eq!(parse("delivery.ratio = 100 %").unwrap().limit, Limit::Value(1.0));
    }

    #[test]
    fn mistakes_name_the_part_and_the_remedy() {
        let cases = [
            ("publish.latency.p99 <= 2 s for quik", "\"quik\" is no variant", "did you mean quic?", "quik"),
            ("publish.latency.p99 <= 2", "the unit of publish.latency.p99 is missing", "2 ms", "2"),
            ("publish.latency.p99 <= 2 kB", "\"kB\" is no unit", "ms, us, s, min", "2 kB"),
            ("duplicates <= 5 ms", "plain number", "write for example 5", "5 ms"),
            ("delivery.ratio >= 130 %", "never more than 100 %", "up to 100 %", "130 %"),
            ("publish.latency.p99 <= -1 s", "never negative", "0 or more", "-1 s"),
            (
                "delivry.ratio = 100 %",
                "no metric delivry.ratio",
                "did you mean delivery.ratio?",
                "delivry.ratio",
            ),
            ("delivery.ratio 100 %", "no comparison", "<=", "delivery.ratio 100 %"),
            ("duplicates <= delivery.ratio", "different units", "one unit", "delivery.ratio"),
            ("duplicates = 0 on quemu", "\"quemu\" is no board", "did you mean qemu?", "quemu"),
            (
                "publish.latency.p99 <= tsl",
                "\"tsl\" is no limit, variant or metric",
                "did you mean tls?",
                "tsl",
            ),
        ];
        for (text, problem, remedy, offending) in cases {
            let error = parse(text).unwrap_err();
            assert!(error.problem.contains(problem), "{text}: {error}");
            assert!(error.remedy.contains(remedy), "{text}: {error}");
            assert_eq!(&text[error.span], offending, "{text}");
        }
        assert!(parse("duplicates <=").is_err());
    }

    #[test]
    fn rounding_decides_nothing() {
        assert!(Comparison::Equal.holds(0.1 + 0.2, 0.3));
        assert!(!Comparison::Below.holds(0.1 + 0.2, 0.3));
        assert!(Comparison::AtMost.holds(0.1 + 0.2, 0.3));
        assert!(!Comparison::Equal.holds(0.999, 1.0));
        assert!(!Comparison::AtMost.holds(f64::INFINITY, 1e12));
        assert!(Comparison::Equal.holds(f64::INFINITY, f64::INFINITY));
    }
}
