use super::*;
use crate::measure::record::{Ending, RunRecord};
use crate::measure::sample;
use crate::report::Report;
use crate::scenario::Scenario;

fn rendered(edit: impl FnOnce(&mut RunRecord)) -> String {
    let mut record = sample::record();
    edit(&mut record);
    let report = Report::new(record, &Scenario::parse("sample.toml", sample::SCENARIO).unwrap());
    page(&report, &[Raw { names: vec!["report.json".into()], description: "everything" }])
}

#[test]
fn the_page_is_self_contained_and_has_every_section() {
    let page = rendered(|_| {});
    for id in [
        "expectations",
        "comparison",
        "figures",
        "latency",
        "connections",
        "board",
        "network",
        "again",
        "environment",
    ] {
        assert!(page.contains(&format!("id=\"{id}\"")), "{id} is missing");
    }
    for foreign in ["http://", "https://", "<script", "<link", "<img", "@import", "url("] {
        assert!(!page.contains(foreign), "{foreign} is in the page");
    }
    assert!(page.contains("cargo run -p harness -- scenario sample --board qemu"));
    assert!(page.contains("Emulated board."));
    assert!(page.len() < 2_000_000, "{} bytes", page.len());
}

#[test]
fn tags_are_balanced() {
    // HTML's void elements are the only ones without an end tag here.
    let void = ["meta", "wbr", "!DOCTYPE"];
    let page = rendered(|_| {});
    let mut open: Vec<&str> = Vec::new();
    let body = page.split("</style>").nth(1).unwrap();
    open.extend(["html", "head"]);
    for piece in body.split('<').skip(1) {
        let tag = piece.split(['>', ' ', '/']).find(|part| !part.is_empty()).unwrap();
        let inside = piece.split('>').next().unwrap();
        if piece.starts_with('/') {
            assert_eq!(open.pop(), Some(tag), "</{tag}> closes the wrong element");
        } else if !inside.ends_with('/') && !void.contains(&tag) {
            open.push(tag);
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn foreign_text_cannot_become_markup() {
    let page = rendered(|record| {
        record.scenario.question = "<script>alert(1)</script>?".into();
        record.trials[0].notes.push("<b onclick=x>".into());
        record.trials[0].impairments[0].label = "\"><script>".into();
        record.environment.board.description = "<img src=x>".into();
    });
    assert!(!page.contains("<script") && !page.contains("<b onclick") && !page.contains("<img"));
}

#[test]
fn a_partial_run_says_so() {
    let page = rendered(|record| {
        record.trials.truncate(2);
        record.ending = Ending::Interrupted { by: "Ctrl-C".into() };
    });
    assert!(page.contains("Partial report."));
    assert!(page.contains("interrupted by Ctrl-C"));
    assert!(page.contains("2 of 12 trials"));
}

#[test]
fn a_run_that_measured_nothing_still_has_a_page() {
    let page = rendered(|record| {
        record.trials.clear();
        record.environment.board.footprint = None;
        let cause = "no broker answers".to_owned();
        let blame = crate::measure::record::Blame::Environment;
        record.ending = Ending::Failed { phase: "broker".into(), cause, blame };
    });
    assert!(page.contains("no broker answers"));
    assert!(!page.contains("id=\"latency\""));
}

#[test]
fn what_never_came_is_not_shown_as_a_number() {
    let page = rendered(|record| {
        for message in record.trials.iter_mut().flat_map(|trial| &mut trial.messages) {
            message.acked_us = None;
        }
    });
    assert!(page.contains("never"));
    assert!(!page.contains("inf ") && !page.contains("NaN"));
}

#[test]
fn numbers_stay_with_their_units() {
    assert_eq!(glued("99 % of 600 in 3 s"), "99\u{a0}% of 600\u{a0}in 3\u{a0}s");
    assert_eq!(glued("no 1"), "no 1");
    // An interval may take two lines where a screen is narrow.
    let page = rendered(|_| {});
    let intervals: Vec<_> =
        page.split("<span class=\"ci\">").skip(1).filter_map(|rest| rest.split("</span>").next()).collect();
    assert!(intervals.iter().any(|interval| interval.contains("\u{a0}ms")), "{intervals:?}");
}

#[test]
fn long_names_break_behind_their_dots() {
    assert_eq!(breakable("lost = 0").into_string(), "lost = 0<wbr>");
    assert_eq!(breakable("link.loss.up").into_string(), "link.<wbr>loss.<wbr>up<wbr>");
}

#[test]
fn what_a_column_cannot_be_compared_without_stands_below_the_table() {
    let note = "device over tls: a stack of its own";
    let html = rendered(|record| {
        record.trials[0].notes.extend([note.to_owned(), "2 damaged byte(s) on the console".to_owned()]);
    });
    let remarks =
        html.split("<ul class=\"notes\">").nth(1).expect("remarks").split("</ul>").next().expect("a list");
    assert!(remarks.contains(note), "{remarks}");
    assert!(!remarks.contains("damaged"), "what happened in a trial is told beside the trial: {remarks}");
}
