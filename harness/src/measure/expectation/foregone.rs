//! Expectations that no measurement can decide: they would pass, or fail, whatever a run does.

use std::cmp::Ordering;

use super::super::metric::{Figure, Shape};
use super::super::stats::Statistic;
use super::super::unit::Unit;
use super::{Comparison, Limit};

const ALWAYS: &str = "can never fail";
const NEVER: &str = "can never hold";

/// How an expectation ends that no measurement can decide, in words.
pub(super) fn foregone(
    figure: Figure,
    comparison: Comparison,
    limit: &Limit,
    variants: &[String],
) -> Option<&'static str> {
    match limit {
        Limit::Value(value) => by_range(figure, comparison, *value),
        Limit::Figure { factor, figure: other } => {
            let order = order(figure, *other)?;
            by_order(order, comparison, *factor)
        }
        // The same figure of the same variant.
        Limit::Variant { factor, variant } => {
            let itself = variants.iter().all(|spoken_of| spoken_of == variant);
            itself.then(|| by_order(Ordering::Equal, comparison, *factor)).flatten()
        }
    }
}

/// No figure is negative, no share is more than the whole, and what was counted is a whole number.
fn by_range(figure: Figure, comparison: Comparison, value: f64) -> Option<&'static str> {
    use Comparison::{Above, AtLeast, AtMost, Below, Different, Equal};
    let (bottom, top) = (value <= 0.0, figure.unit() == Unit::Percent && value >= 1.0);
    let between = is_whole(figure) && value.fract() != 0.0;
    match comparison {
        AtLeast if bottom => Some(ALWAYS),
        AtMost if top => Some(ALWAYS),
        Different if between => Some(ALWAYS),
        Below if bottom => Some(NEVER),
        Above if top => Some(NEVER),
        Equal if between => Some(NEVER),
        AtMost | Below | AtLeast | Above | Equal | Different => None,
    }
}

/// Whether the figure is a number of things: no mean of them and no quotient.
fn is_whole(figure: Figure) -> bool {
    use Statistic::{Count, Failed, Max, Min, Total};
    matches!(figure.statistic, Count | Failed)
        || figure.unit() == Unit::Count
            && figure.metric.shape != Shape::Quotient
            && matches!(figure.statistic, Max | Min | Total)
}

/// How two statistics of one metric lie, as far as any samples must have them so: `Less` means less or equal.
fn order(one: Figure, other: Figure) -> Option<Ordering> {
    if one.metric != other.metric {
        return None;
    }
    if one.statistic == other.statistic || one.metric.shape == Shape::Quotient {
        return Some(Ordering::Equal);
    }
    if below(one.statistic, other.statistic) {
        return Some(Ordering::Less);
    }
    below(other.statistic, one.statistic).then_some(Ordering::Greater)
}

/// Whether `low` is at most `high` of the same samples, whatever they are.
fn below(low: Statistic, high: Statistic) -> bool {
    use Statistic::{Count, Failed, Max, Mean, Min, P50, P90, P99, P999, Total};
    let above: &[Statistic] = match low {
        Min => &[P50, P90, P99, P999, Mean, Max, Total],
        P50 => &[P90, P99, P999, Max, Total],
        P90 => &[P99, P999, Max, Total],
        P99 => &[P999, Max, Total],
        P999 | Mean => &[Max, Total],
        Max => &[Total],
        Failed => &[Count],
        Total | Count => &[],
    };
    above.contains(&high)
}

/// A figure beside `factor` times one that it equals, is never above (`Less`) or never below (`Greater`).
fn by_order(order: Ordering, comparison: Comparison, factor: f64) -> Option<&'static str> {
    use Comparison::{Above, AtLeast, AtMost, Below, Different, Equal};
    // No figure is negative; one that is zero or infinite equals any multiple of itself.
    match (comparison, order) {
        (AtMost, Ordering::Less | Ordering::Equal) if factor >= 1.0 => Some(ALWAYS),
        (AtLeast, Ordering::Greater | Ordering::Equal) if factor <= 1.0 => Some(ALWAYS),
        (Above, Ordering::Less | Ordering::Equal) if factor >= 1.0 => Some(NEVER),
        (Below, Ordering::Greater | Ordering::Equal) if factor <= 1.0 => Some(NEVER),
        (Equal, Ordering::Equal) if factor == 1.0 => Some(ALWAYS),
        (Different, Ordering::Equal) if factor == 1.0 => Some(NEVER),
        (_, Ordering::Equal) => Some("only compares it with itself"),
        (AtMost | AtLeast | Equal | Above | Below | Different, Ordering::Less | Ordering::Greater) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;

    #[test]
    fn an_expectation_that_nothing_can_decide_is_refused() {
        for text in [
            "duplicates >= 0",
            "delivery.ratio <= 100 %",
            "publish.latency.p99 <= publish.latency.p99",
            "publish.latency.p99 = 1 x quic for quic",
            "publish.latency.p99 <= 2 x quic for quic",
            "delivery.ratio >= 0.5 x delivery.ratio",
            "publish.latency.p50 <= publish.latency.max",
            "publish.latency.max >= 0.5 x publish.latency.mean",
            "publish.latency.failed <= publish.latency.count",
            "lost != 0.5",
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.problem.contains("can never fail"), "{text}: {error}");
        }
        for text in [
            "duplicates < 0",
            "delivery.ratio > 100 %",
            "publish.latency.p99 < tls for tls",
            "publish.latency.p99 < 0.5 x tls for tls",
            "publish.latency.p90 > 2 x publish.latency.p99",
            "publish.latency.max < publish.latency.min",
            "lost = 1.5",
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.problem.contains("can never hold"), "{text}: {error}");
        }
        for text in [
            "duplicates <= 0",
            "duplicates > 0",
            "delivery.ratio >= 100 %",
            "lost.total < 0.9 x quic",
            "lost != 1",
            "publish.latency.max <= 3 x publish.latency.p50",
            "publish.latency.p50 <= 0.5 x publish.latency.max",
            "publish.latency.p50 < publish.latency.p90",
            "publish.latency.mean <= publish.latency.p90",
            "retransmissions = 2.5",
            "wire.packets_per_message != 2.5",
        ] {
            assert!(parse(text).is_ok(), "{text}: {:?}", parse(text));
        }
    }
}
