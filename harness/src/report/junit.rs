//! `junit.xml`: one test case for each expectation, variant and role.

use std::fmt::Write as _;

use super::Report;
use super::utc::Utc;
use crate::measure::judge::{Outcome, Status, who};

/// The whole document.
pub(super) fn document(report: &Report) -> String {
    let record = &report.record;
    let environment = &record.environment;
    let outcomes = &report.verdict.outcomes;
    // A verdict that no expectation brought about - none applies, the run ended early - is a failure of its own.
    let unexplained = !report.verdict.passed && !outcomes.iter().any(fails);
    let failures = outcomes.iter().filter(|outcome| fails(outcome)).count() + usize::from(unexplained);
    let tests = outcomes.len() + usize::from(unexplained);
    let skipped = outcomes.iter().filter(|outcome| skips(outcome)).count();
    let seconds = environment.duration_us as f64 / 1e6;
    let name = attribute(&record.scenario.name);
    let counts = format!("tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\"");
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let put = |text: &mut String, line: std::fmt::Arguments<'_>| {
        text.write_fmt(line).expect("writing to a string cannot fail");
        text.push('\n');
    };
    put(&mut text, format_args!("<testsuites name=\"{name}\" {counts} time=\"{seconds:.3}\">"));
    let started = Utc::from_unix_us(environment.started_unix_us).iso();
    put(
        &mut text,
        format_args!("  <testsuite name=\"{name}\" {counts} time=\"{seconds:.3}\" timestamp=\"{started}\">"),
    );
    put(&mut text, format_args!("    <properties>"));
    let properties = [
        ("board", environment.board.name.as_str()),
        ("broker", environment.broker.description.as_str()),
        ("revision", environment.git_revision.as_deref().unwrap_or("unknown")),
        ("replay", environment.replay.as_str()),
        ("answer", report.verdict.answer.as_str()),
    ];
    for (key, value) in properties {
        put(&mut text, format_args!("      <property name=\"{key}\" value=\"{}\"/>", attribute(value)));
    }
    put(&mut text, format_args!("    </properties>"));
    for outcome in outcomes {
        test_case(&mut text, &record.scenario.name, outcome);
    }
    if unexplained {
        let answer = attribute(&report.verdict.answer);
        put(
            &mut text,
            format_args!(
                "    <testcase classname=\"{name}\" name=\"the verdict\"><failure message=\"{answer}\" \
                 type=\"failed\">{answer}</failure></testcase>"
            ),
        );
    }
    put(&mut text, format_args!("  </testsuite>"));
    put(&mut text, format_args!("</testsuites>"));
    text
}

/// Only what decides the verdict may turn a CI run red.
fn fails(outcome: &Outcome) -> bool {
    outcome.decides && matches!(outcome.status, Status::Failed | Status::NotMeasured)
}

fn skips(outcome: &Outcome) -> bool {
    outcome.status == Status::NotApplicable || (!outcome.decides && outcome.status != Status::Passed)
}

fn test_case(text: &mut String, scenario: &str, outcome: &Outcome) {
    let mut class = scenario.to_owned();
    if !outcome.variant.is_empty() {
        class = format!("{scenario}.{}", who(outcome).replace(' ', "."));
    }
    let explanation = attribute(&outcome.explanation);
    let inner = if fails(outcome) {
        format!(
            "<failure message=\"{explanation}\" type=\"{}\">{explanation}</failure>",
            outcome.status.label()
        )
    } else if skips(outcome) {
        format!("<skipped message=\"{}: {explanation}\"/>", outcome.status.label())
    } else {
        format!("<system-out>{explanation}</system-out>")
    };
    writeln!(
        text,
        "    <testcase classname=\"{}\" name=\"{}\">{inner}</testcase>",
        attribute(&class),
        attribute(&outcome.expectation)
    )
    .expect("writing to a string cannot fail");
}

/// Text for an attribute or element. Characters XML 1.0 does not allow become U+FFFD (section 2.2).
fn attribute(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push_str("&#10;"),
            '\t' => escaped.push_str("&#9;"),
            '\r' => escaped.push_str("&#13;"),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::record::{Blame, Ending};
    use crate::measure::sample;
    use crate::scenario::Scenario;

    fn report(edit: impl FnOnce(&mut crate::measure::RunRecord)) -> Report {
        let mut record = sample::record();
        edit(&mut record);
        Report::new(record, &Scenario::parse("sample.toml", sample::SCENARIO).unwrap())
    }

    #[test]
    fn the_document_is_well_formed_and_counts_right() {
        let cause = "said <\"nonsense\"> & \u{1b}[31mred\u{1b}[0m\nand died".to_owned();
        let report = report(|record| {
            record.trials[0].ending =
                Ending::Failed { phase: "connect".into(), cause, blame: Blame::Subject };
        });
        let text = document(&report);
        let xml = roxmltree::Document::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let suite = xml.descendants().find(|node| node.has_tag_name("testsuite")).unwrap();
        let count = |tag: &str| suite.descendants().filter(|node| node.has_tag_name(tag)).count().to_string();
        assert_eq!(suite.attribute("tests"), Some(count("testcase").as_str()));
        assert_eq!(suite.attribute("failures"), Some(count("failure").as_str()));
        assert_eq!(suite.attribute("skipped"), Some(count("skipped").as_str()));
        assert_eq!(suite.attribute("timestamp"), Some("2026-11-18T11:06:40"));
        let failure = suite.descendants().find(|node| node.has_tag_name("failure")).unwrap();
        assert!(failure.attribute("message").unwrap().contains("said <\"nonsense\"> & \u{fffd}[31mred"));
    }

    #[test]
    fn a_run_that_failed_without_a_failed_expectation_fails_a_build_too() {
        let mut report = report(|_| {});
        report.verdict.passed = false;
        report.verdict.answer = "No answer: no expectation applies.".to_owned();
        report.verdict.outcomes.clear();
        let text = document(&report);
        let xml = roxmltree::Document::parse(&text).unwrap();
        let suite = xml.descendants().find(|node| node.has_tag_name("testsuite")).unwrap();
        assert_eq!((suite.attribute("tests"), suite.attribute("failures")), (Some("1"), Some("1")));
        let failure = suite.descendants().find(|node| node.has_tag_name("failure")).unwrap();
        assert_eq!(failure.attribute("message"), Some("No answer: no expectation applies."));
    }

    #[test]
    fn what_does_not_decide_never_fails_a_build() {
        let report = report(|record| {
            record.trials.iter_mut().filter(|t| t.role == crate::measure::Role::Reference).for_each(
                |trial| {
                    trial.messages.iter_mut().for_each(|message| message.acked_us = None);
                },
            );
        });
        let text = document(&report);
        let xml = roxmltree::Document::parse(&text).unwrap();
        let case = xml.descendants().find(|node| {
            node.attribute("classname") == Some("sample.quic.reference")
                && node.attribute("name").is_some_and(|name| name.starts_with("publish.latency.p99"))
        });
        assert!(case.unwrap().children().any(|child| child.has_tag_name("skipped")));
    }
}
