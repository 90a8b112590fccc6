//! From the keys of a file to a scenario that makes sense: defaults, and what the types alone cannot tell.

mod connection;
mod steps;
mod syntax;
mod workload;

use std::ops::Range;

use self::syntax::syntax;
use self::workload::limits;
use super::error::{Mistakes, ScenarioError};
use super::spans::Spans;
use super::spec::{Anchor, BoardName, File, Refusal};
use super::{Answer, Scenario};
use crate::measure::expectation::{Expectation, ExpectationError, Vocabulary};
use crate::measure::metric::nearest;
use crate::measure::record::{Role, Transport};

/// Reads a file whole, collecting every mistake it can.
pub(super) fn read(origin: &str, source: &str) -> Result<Scenario, ScenarioError> {
    let mut mistakes = Mistakes::new(origin, source);
    let spans = match Spans::parse(source) {
        Ok(spans) => spans,
        Err(error) => {
            syntax(&mut mistakes, &error);
            return Err(mistakes.into_error().expect("one was just added"));
        }
    };
    let file: File = match toml::from_str(source) {
        Ok(file) => file,
        Err(error) => {
            syntax(&mut mistakes, &error);
            return Err(mistakes.into_error().expect("one was just added"));
        }
    };
    let mut check = Check { spans, mistakes, source };
    let scenario = check.scenario(origin, file);
    match check.mistakes.into_error() {
        Some(error) => Err(error),
        None => Ok(scenario),
    }
}

struct Check<'a> {
    spans: Spans<'a>,
    mistakes: Mistakes,
    source: &'a str,
}

impl Check<'_> {
    fn scenario(&mut self, origin: &str, file: File) -> Scenario {
        self.name(origin, &file.name);
        self.question(&file.question);
        let mut variants = self.variants(&file);
        if file.refusal.is_some() {
            // One attempt is made, and judged.
            variants.iter_mut().for_each(|variant| variant.connection.reconnect.attempts = 0);
        }
        let names: Vec<_> = variants.iter().map(|variant| variant.name.clone()).collect();
        let expectations = self.expectations(&file.expect, &names, file.reference);
        let answer = Answer::parse(&file.answer, &names).unwrap_or_else(|error| {
            self.within_string("answer", &error);
            Answer::default()
        });
        let seeds = self.seeds(file.seeds.clone(), file.repeat);
        self.link(&file.link);
        let up = file.workload.up.as_ref().and_then(|flow| self.flow("workload.up", flow));
        let down = file.workload.down.as_ref().and_then(|flow| self.flow("workload.down", flow));
        let steps = self.steps(&file.step, up.is_some() || down.is_some());
        self.refusal(&file);
        self.some_time(&file.limits);
        let limits = limits(&file.limits, [up, down]);
        self.steps_in_time(&file.step, limits);
        Scenario {
            name: file.name,
            question: file.question,
            answer,
            expectations,
            variants,
            seeds,
            reference: file.reference,
            boards: self.boards(file.boards),
            link: file.link,
            up,
            down,
            broker: file.broker,
            steps,
            refusal: file.refusal,
            limits,
            origin: origin.to_owned(),
            source: self.source.to_owned(),
        }
    }

    fn value(&mut self, path: &str, problem: impl Into<String>, remedy: impl Into<String>) {
        let span = self.spans.value(path);
        self.mistakes.add(span, problem, Some(remedy.into()));
    }

    fn name(&mut self, origin: &str, name: &str) {
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        {
            self.value("name", format!("{name:?} is no scenario name"), "use a-z, 0-9 and hyphens");
            return;
        }
        let stem = std::path::Path::new(origin).file_stem().and_then(|stem| stem.to_str());
        if origin.ends_with(".toml") && stem.is_some_and(|stem| stem != name) {
            let stem = stem.unwrap_or_default();
            let problem = format!("the scenario is called {name:?}, its file {stem:?}");
            self.value("name", problem, format!("write name = {stem:?}, or rename the file"));
        }
    }

    fn question(&mut self, question: &str) {
        if !question.trim_end().ends_with('?') {
            self.value("question", "a scenario asks a question", "end it with a question mark");
        }
    }

    fn expectations(&mut self, texts: &[String], variants: &[String], reference: bool) -> Vec<Expectation> {
        if texts.is_empty() {
            self.value("expect", "nothing is expected, so the scenario cannot fail", "expect something");
        }
        let vocabulary = Vocabulary { variants, boards: &BoardName::NAMES };
        let mut expectations: Vec<Expectation> = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            match Expectation::parse(text, vocabulary) {
                Ok(expectation) if expectations.iter().any(|other| other.text == expectation.text) => {
                    self.value(
                        &format!("expect[{index}]"),
                        "this expectation stands here twice",
                        "remove one",
                    );
                }
                Ok(expectation) if expectation.roles == [Role::Reference] && !reference => {
                    self.value(
                        &format!("expect[{index}]"),
                        "this speaks of the reference client, which does not run",
                        "write reference = true, or leave out `for reference`",
                    );
                }
                Ok(expectation) => expectations.push(expectation),
                Err(error) => self.within_string(&format!("expect[{index}]"), &error),
            }
        }
        expectations
    }

    /// Points at a part of the string at `path`.
    fn within_string(&mut self, path: &str, error: &ExpectationError) {
        let whole = self.spans.value(path);
        let span = part_of_string(self.source, &whole, &error.span);
        self.mistakes.add(span, error.problem.clone(), Some(error.remedy.clone()));
    }

    fn seeds(&mut self, seeds: Option<Vec<u64>>, repeat: Option<u32>) -> Vec<u64> {
        match (seeds, repeat) {
            (Some(_), Some(_)) => {
                self.value("repeat", "seeds and repeat exclude each other", "keep one of them");
                vec![1]
            }
            (Some(seeds), None) => {
                if seeds.is_empty() {
                    self.value("seeds", "no seed is named", "write for example [1, 2, 3]");
                }
                if let Some(index) = (1..seeds.len()).find(|index| seeds[..*index].contains(&seeds[*index])) {
                    let problem = format!("seed {} is named twice", seeds[index]);
                    self.value(
                        &format!("seeds[{index}]"),
                        problem,
                        "the same seed only repeats the same network",
                    );
                }
                seeds
            }
            (None, repeat) => {
                let repeat = repeat.unwrap_or(1);
                if !(1..=REPEAT_MAX).contains(&repeat) {
                    let problem = format!("repeat = {repeat} is outside 1 to {REPEAT_MAX}");
                    self.value("repeat", problem, "write for example 3");
                }
                (1..=u64::from(repeat.min(REPEAT_MAX))).collect()
            }
        }
    }

    fn boards(&mut self, boards: Option<Vec<BoardName>>) -> Vec<BoardName> {
        let boards = boards.unwrap_or_else(|| vec![BoardName::Host, BoardName::Qemu, BoardName::Esp32c3]);
        if boards.is_empty() {
            self.value("boards", "no board is named", "leave boards out to allow all");
        }
        boards
    }

    /// A client that is refused does nothing else.
    fn refusal(&mut self, file: &File) {
        let Some(Refusal { alerts, .. }) = &file.refusal else { return };
        if alerts.is_empty() {
            let remedy = "write for example alerts = [\"unknown-ca\"]";
            self.value("refusal.alerts", "no alert is named, so any failure would pass", remedy);
        }
        let idle = "a client that is refused does nothing else; leave it out";
        for (path, given) in [
            ("workload.up", file.workload.up.is_some()),
            ("workload.down", file.workload.down.is_some()),
            ("step", !file.step.is_empty()),
        ] {
            if given {
                let span = self.spans.key(path);
                let problem = format!("a scenario with [refusal] takes no {path}");
                self.mistakes.add(span, problem, Some(idle.to_owned()));
            }
        }
        let plain = |transport: &Transport| *transport == Transport::Tcp;
        if file.transports.as_ref().is_some_and(|transports| transports.iter().any(plain)) {
            self.value("transports", "TCP without TLS has no alerts", "leave tcp out");
        }
    }

    fn link(&mut self, config: &link::LinkConfig) {
        if let Err(error) = config.validate() {
            // The link says what is wrong and, behind a semicolon, how to mend it.
            let (problem, remedy) =
                error.problem.split_once("; ").unwrap_or((&error.problem, "see scenarios/README.md"));
            let key = self.written(&error.key);
            self.value(&key, format!("{key}: {problem}"), remedy);
        }
        for event in config.events() {
            if Anchor::NAMES.contains(&event) {
                continue;
            }
            let list = format!("there are {}", Anchor::NAMES.join(", "));
            let remedy = match nearest(event, Anchor::NAMES.into_iter()) {
                Some(near) => format!("did you mean {near}? {list}"),
                None => list,
            };
            let span = self.spans.string(event).unwrap_or_else(|| self.spans.value("link"));
            self.mistakes.add(span, format!("no event is called {event:?}"), Some(remedy));
        }
    }
}

impl Check<'_> {
    /// Where the file has a key of the link: that of one direction may stand in `both`.
    fn written(&self, key: &str) -> String {
        let own = format!("link.{key}");
        let Some((_, rest)) = key.split_once('.').filter(|(path, _)| ["up", "down"].contains(path)) else {
            return own;
        };
        let table = own.split('.').take(3).collect::<Vec<_>>().join(".");
        if self.spans.has(&table) { own } else { format!("link.both.{rest}") }
    }
}

/// Byte range of a part of a string literal; the literal as a whole when escapes shift positions.
fn part_of_string(source: &str, literal: &Range<usize>, part: &Range<usize>) -> Range<usize> {
    let text = &source[literal.clone()];
    let quote = if text.starts_with("\"\"\"") || text.starts_with("'''") { 3 } else { 1 };
    if text.contains('\\') || text.contains('\n') || part.end + 2 * quote > text.len() {
        return literal.clone();
    }
    literal.start + quote + part.start..literal.start + quote + part.end
}

/// Seeds beyond this make a run of days; more are given by --repeat on the command line.
const REPEAT_MAX: u32 = 1000;

#[cfg(test)]
mod tests;

#[cfg(test)]
mod readme;
