//! The metrics a scenario may expect something of and a report shows: one table, one entry each.
//!
//! A metric is a pure function of a trial. It yields the samples of that trial (infinite where something
//! failed), a quotient, or nothing when the board cannot measure it; [`Statistic`]s are drawn from them.

use std::fmt;

use super::record::{Environment, Trial};
use super::registry::REGISTRY;
use super::stats::{Observed, Statistic};
use super::unit::Unit;

/// One metric.
pub struct Metric {
    /// Its name, such as `publish.latency`.
    pub name: &'static str,
    /// What its numbers count.
    pub unit: Unit,
    /// What it means, in one sentence.
    pub doc: &'static str,
    /// Which way is better.
    pub better: Better,
    /// Whether its numbers depend on a clock.
    pub kind: Kind,
    /// How its samples become one number.
    pub shape: Shape,
    /// Reads it from a trial; `None` when that trial could not measure it.
    pub extract: fn(&Environment, &Trial) -> Option<Observed>,
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Less is better.
    Lower,
    /// More is better.
    Higher,
}

/// What a metric's numbers depend on, which decides how tightly a baseline holds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Counted, and the same in every run with the same seed and firmware.
    Exact,
    /// Counted, but timing moves it a little: when an acknowledgement goes out, what counts as lost.
    Counted,
    /// Read from a clock, or depends on timing; on virtual boards it includes the host's processor.
    Clock,
}

/// How the samples of a metric become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Many samples; an expectation must name the statistic it means.
    Distribution,
    /// One value for each trial; this statistic is meant unless another is named.
    Value(Statistic),
    /// A quotient, pooled over trials; takes no statistic.
    Quotient,
}

impl Metric {
    /// The metric of that name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        REGISTRY.iter().find(|metric| metric.name == name)
    }

    /// Every metric, in the order reports show them.
    #[must_use]
    pub fn all() -> &'static [Self] {
        REGISTRY
    }
}

impl fmt::Debug for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metric({})", self.name)
    }
}

impl PartialEq for Metric {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// One number of a metric, such as `publish.latency.p99`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// The metric.
    pub metric: &'static Metric,
    /// The statistic; for a quotient it has no effect.
    pub statistic: Statistic,
}

impl Figure {
    /// Reads `publish.latency.p99` or `delivery.ratio`.
    ///
    /// # Errors
    /// Says what is wrong and what to write instead.
    pub fn parse(text: &str) -> Result<Self, FigureError> {
        if let Some(metric) = Metric::find(text) {
            return match metric.shape {
                Shape::Distribution => Err(FigureError {
                    problem: format!("{text} has many values, and no statistic is named"),
                    remedy: format!("write for example {text}.p99; there are {}", statistic_names()),
                }),
                Shape::Value(statistic) => Ok(Self { metric, statistic }),
                Shape::Quotient => Ok(Self { metric, statistic: Statistic::Mean }),
            };
        }
        for statistic in Statistic::ALL {
            let Some(name) = text.strip_suffix(statistic.name()).and_then(|rest| rest.strip_suffix('.'))
            else {
                continue;
            };
            let Some(metric) = Metric::find(name) else { continue };
            if metric.shape == Shape::Quotient {
                return Err(FigureError {
                    problem: format!("{name} is one number for all trials and has no {}", statistic.name()),
                    remedy: format!("write {name} alone"),
                });
            }
            return Ok(Self { metric, statistic });
        }
        Err(unknown(text))
    }

    /// The unit of the figure: counts and failures count samples, whatever the metric measures.
    #[must_use]
    pub fn unit(self) -> Unit {
        match self.statistic {
            Statistic::Count | Statistic::Failed => Unit::Count,
            _ => self.metric.unit,
        }
    }

    /// Which way is better.
    #[must_use]
    pub fn better(self) -> Better {
        match self.statistic {
            Statistic::Failed => Better::Lower,
            Statistic::Count => Better::Higher,
            _ => self.metric.better,
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.metric.shape {
            Shape::Quotient => f.write_str(self.metric.name),
            Shape::Value(statistic) if statistic == self.statistic => f.write_str(self.metric.name),
            _ => write!(f, "{}.{}", self.metric.name, self.statistic.name()),
        }
    }
}

/// A figure that does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FigureError {
    /// What is wrong.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
}

fn unknown(text: &str) -> FigureError {
    let (name, statistic) = match Statistic::ALL.iter().find(|s| text.ends_with(&format!(".{}", s.name()))) {
        Some(s) => (&text[..text.len() - s.name().len() - 1], Some(*s)),
        None => (text, None),
    };
    // A misspelt statistic behind an existing metric deserves its own words.
    if let Some((stem, tail)) = text.rsplit_once('.')
        && Metric::find(stem).is_some()
    {
        return FigureError {
            problem: format!("{stem} has no statistic {tail}"),
            remedy: format!("there are {}", statistic_names()),
        };
    }
    let nearest = nearest(name, Metric::all().iter().map(|metric| metric.name));
    let suggestion = nearest.map(|name| match (Metric::find(name).map(|m| m.shape), statistic) {
        (Some(Shape::Distribution), statistic) => {
            format!("{name}.{}", statistic.unwrap_or(Statistic::P99).name())
        }
        (Some(Shape::Value(_)), Some(statistic)) => format!("{name}.{}", statistic.name()),
        _ => name.to_owned(),
    });
    FigureError {
        problem: format!("there is no metric {name}"),
        remedy: match suggestion {
            Some(name) => format!("did you mean {name}? `harness list --metrics` shows all of them"),
            None => "`harness list --metrics` shows all of them".into(),
        },
    }
}

fn statistic_names() -> String {
    Statistic::ALL.map(Statistic::name).join(", ")
}

/// The candidate most like `name`, if any is like it at all.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| {
            // A prefix counts as near: people write `latency` for `publish.latency`.
            let contained = !name.is_empty() && (candidate.contains(name) || name.contains(candidate));
            // So does a single slip of the fingers, however short the name.
            let slip = strsim::osa_distance(name, candidate) == 1;
            let likeness = strsim::jaro_winkler(name, candidate);
            (candidate, likeness.max(if contained { 0.86 } else { 0.0 }).max(if slip { 0.95 } else { 0.0 }))
        })
        .filter(|(_, likeness)| *likeness > 0.75)
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(candidate, _)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_never_end_in_a_statistic() {
        for (index, metric) in Metric::all().iter().enumerate() {
            assert!(Metric::all()[..index].iter().all(|other| other.name != metric.name), "{}", metric.name);
            assert!(metric.doc.ends_with('.'), "{}: {}", metric.name, metric.doc);
            for statistic in Statistic::ALL {
                assert!(!metric.name.ends_with(&format!(".{}", statistic.name())), "{}", metric.name);
            }
        }
    }

    #[test]
    fn a_figure_prints_what_it_was_read_from() {
        for text in ["publish.latency.p99", "publish.latency.p99.9", "delivery.ratio", "duplicates"] {
            assert_eq!(Figure::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Figure::parse("duplicates.total").unwrap().to_string(), "duplicates");
        assert_eq!(Figure::parse("publish.latency.failed").unwrap().unit(), Unit::Count);
    }

    #[test]
    fn a_wrong_figure_is_answered_with_a_right_one() {
        let error = |text: &str| Figure::parse(text).unwrap_err();
        assert_eq!(error("publish.latncy.p99").problem, "there is no metric publish.latncy");
        assert!(error("publish.latncy.p99").remedy.starts_with("did you mean publish.latency.p99?"));
        assert!(error("deliver.ratio").remedy.starts_with("did you mean delivery.ratio?"));
        assert!(error("publish.latency").problem.contains("no statistic is named"));
        assert_eq!(error("publish.latency.p95").problem, "publish.latency has no statistic p95");
        assert!(error("delivery.ratio.p99").remedy.contains("write delivery.ratio alone"));
        assert!(!error("zzz").remedy.contains("did you mean"));
    }
}
