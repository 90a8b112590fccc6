//! The sentence that answers a scenario's question, with places for figures: `{delivery.ratio}`,
//! `{publish.latency.p99 of tls}`.

use std::ops::Range;

use crate::measure::expectation::ExpectationError;
use crate::measure::metric::{Figure, nearest};

/// An answer with places for figures.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Answer {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Text(String),
    Figure(Figure, Option<String>),
}

impl Answer {
    /// Reads an answer; every figure must exist, every variant be one of `variants`.
    ///
    /// # Errors
    /// Names the part that is wrong and what to write instead.
    pub fn parse(text: &str, variants: &[String]) -> Result<Self, ExpectationError> {
        let mut pieces = Vec::new();
        let mut at = 0;
        while let Some(open) = text[at..].find('{').map(|found| at + found) {
            let close = text[open..].find('}').map(|found| open + found).ok_or_else(|| ExpectationError {
                problem: "a { without its }".into(),
                remedy: "write figures as {delivery.ratio}".into(),
                span: open..text.len(),
            })?;
            pieces.push(Piece::Text(text[at..open].to_owned()));
            pieces.push(figure(&text[open + 1..close], open + 1..close, variants)?);
            at = close + 1;
        }
        pieces.push(Piece::Text(text[at..].to_owned()));
        Ok(Self { pieces })
    }

    /// Whether there is anything to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.iter().all(|piece| matches!(piece, Piece::Text(text) if text.trim().is_empty()))
    }

    /// The sentence; `value` gives the text of a figure, of the named variant or of the first one.
    pub fn fill(&self, mut value: impl FnMut(Figure, Option<&str>) -> String) -> String {
        let pieces = self.pieces.iter().map(|piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Figure(figure, variant) => value(*figure, variant.as_deref()),
        });
        pieces.collect()
    }
}

fn figure(inner: &str, span: Range<usize>, variants: &[String]) -> Result<Piece, ExpectationError> {
    let (name, variant) = match inner.split_once(" of ") {
        Some((name, variant)) => (name.trim(), Some(variant.trim())),
        None => (inner.trim(), None),
    };
    let figure = Figure::parse(name).map_err(|error| ExpectationError {
        problem: error.problem,
        remedy: error.remedy,
        span: span.clone(),
    })?;
    if let Some(variant) = variant
        && !variants.iter().any(|known| known == variant)
    {
        let near = nearest(variant, variants.iter().map(String::as_str));
        return Err(ExpectationError {
            problem: format!("{variant:?} is no variant of this scenario"),
            remedy: near.map_or_else(
                || format!("there are {}", variants.join(", ")),
                |n| format!("did you mean {n}?"),
            ),
            span,
        });
    }
    Ok(Piece::Figure(figure, variant.map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_filled_in() {
        let variants = ["quic".to_owned(), "tls".to_owned()];
        let answer =
            Answer::parse("{delivery.ratio} arrived; TLS {delivery.ratio of tls}.", &variants).unwrap();
        let text = answer.fill(|figure, variant| format!("<{figure} {}>", variant.unwrap_or("first")));
        assert_eq!(text, "<delivery.ratio first> arrived; TLS <delivery.ratio tls>.");
        assert!(Answer::parse("", &variants).unwrap().is_empty());
    }

    #[test]
    fn a_wrong_place_is_named() {
        let variants = ["quic".to_owned()];
        let error = Answer::parse("a {publish.latency} b", &variants).unwrap_err();
        assert!(error.problem.contains("no statistic is named"), "{error}");
        assert_eq!(error.span, 3..18);
        assert!(
            Answer::parse("{delivery.ratio of tls}", &variants).unwrap_err().problem.contains("no variant")
        );
        assert!(Answer::parse("{delivery.ratio", &variants).is_err());
    }
}
