//! `scenarios/README.md` knows every key, choice, metric and scenario there is.

use super::super::{Scenario, library};
use crate::measure::metric::{Kind, Metric, Shape};
use crate::measure::stats::Statistic;

const README: &str = include_str!("../../../../scenarios/README.md");

const HEAD: &str = "name = \"x\"\nquestion = \"x?\"\nanswer = \"x\"\nexpect = [\"duplicates = 0\"]\n";

/// The names serde offers instead of a wrong one.
fn offered(text: &str) -> Vec<String> {
    let error = Scenario::parse("x.toml", text).expect_err("the name is wrong on purpose");
    let remedy = error.remedy.clone().unwrap_or_else(|| panic!("{text}\ngave {error}"));
    let list = remedy.rsplit("there are ").next().unwrap_or_default();
    list.split(", ").map(str::to_owned).collect()
}

#[test]
fn every_key_is_documented() {
    let tables = [
        "",
        "[link]",
        "[link.both]",
        "[link.both.rate_trace]\nsteps = []",
        "[[link.blackout]]\nfor = \"1 s\"",
        "[[link.rebind]]",
        "[link.both.jitter]\nspread = \"1 ms\"",
        "[link.both.loss]",
        "[link.both.loss.burst]\nenter = \"1 %\"\nleave = \"1 %\"",
        "[link.both.fade]\nevery = \"1 s\"\nlast = \"1 ms\"",
        "[link.both.reorder]",
        "[link.both.corrupt]\nprobability = \"1 %\"",
        "[link.both.truncate]\nprobability = \"1 %\"",
        "[workload]",
        "[workload.up]\nsize = \"64 B\"\ncount = 1",
        "[connection]",
        "[connection.reconnect]\nmax = \"1 s\"\nattempts = 1",
        "[[variant]]\nname = \"a\"\ntransport = \"quic\"",
        "[broker]",
        "[[step]]\ndo = \"kick\"",
        "[refusal]\nalerts = [\"unknown-ca\"]",
        "[limits]",
    ];
    for table in tables {
        for key in offered(&format!("{HEAD}{table}\nzzz = 1\n")) {
            let written = [
                format!("`{key}`"),
                format!("{key},"),
                format!("{key} "),
                format!(".{key}]"),
                format!("[{key}]"),
            ];
            assert!(written.iter().any(|form| README.contains(form)), "key {key} of {table:?} is missing");
        }
    }
}

#[test]
fn every_choice_is_documented() {
    let places = [
        "transports = [\"zzz\"]",
        "boards = [\"zzz\"]",
        "[link]\nprofile = \"zzz\"",
        "[link.both.jitter]\nspread = \"1 ms\"\ndistribution = \"zzz\"",
        "[link.both.jitter]\nspread = \"1 ms\"\norder = \"zzz\"",
        "[link.both.corrupt]\nprobability = \"1 %\"\nchecksum = \"zzz\"",
        "[connection]\nmqtt = \"zzz\"",
        "[connection]\nstreams = \"zzz\"",
        "[connection]\nresumption = \"zzz\"",
        "[connection]\nkey_exchange = \"zzz\"",
        "[connection]\ncipher = \"zzz\"",
        "[broker]\ncertificate = \"zzz\"",
        "[broker]\nchain = \"zzz\"",
        "[broker]\nclient_certificates = \"zzz\"",
        "[broker]\nstream_credit = \"zzz\"",
        "[[step]]\ndo = \"zzz\"",
        "[[step]]\ndo = \"kick\"\nafter = \"zzz\"",
        "[[step]]\ndo = \"kick\"\nsession = \"zzz\"",
        "[[step]]\ndo = \"kick\"\nmanner = \"zzz\"",
        "[[step]]\ndo = \"kick\"\nfault = \"zzz\"",
        "[[step]]\ndo = \"kick\"\nturn_away = \"zzz\"",
        "[refusal]\nalerts = [\"zzz\"]",
        "[refusal]\nalerts = []\nby = \"zzz\"",
    ];
    for place in places {
        for choice in offered(&format!("{HEAD}{place}\n")) {
            let written = [format!("`{choice}`"), format!("`\"{choice}\"`")];
            assert!(
                written.iter().any(|form| README.contains(form)),
                "choice {choice} of {place:?} is missing"
            );
        }
    }
}

/// The README's table of metrics.
fn metrics_table() -> String {
    let mut table = String::from("| metric | unit | better | taken | meaning |\n|---|---|---|---|---|\n");
    for metric in Metric::all() {
        let statistic = if metric.shape == Shape::Distribution { ".STATISTIC" } else { "" };
        let unit = match metric.unit.symbols()[0].0 {
            "" => "–",
            symbol => symbol,
        };
        let better = format!("{:?}", metric.better).to_lowercase();
        let taken = match metric.kind {
            Kind::Exact => "exact",
            Kind::Counted => "counted",
            Kind::Clock => "clock",
        };
        table +=
            &format!("| `{}{statistic}` | {unit} | {better} | {taken} | {} |\n", metric.name, metric.doc);
    }
    table
}

#[test]
fn the_table_of_metrics_is_that_of_the_program() {
    let table = metrics_table();
    assert!(README.contains(&table), "scenarios/README.md should hold this table:\n{table}");
    assert!(Statistic::ALL.iter().all(|statistic| README.contains(&format!("`{}`", statistic.name()))));
}

#[test]
fn every_scenario_is_listed_with_its_question() {
    for name in library::names() {
        let line = format!("| `{name}` | {} |", library::find(name).unwrap().question);
        assert!(README.contains(&line), "scenarios/README.md should hold {line}");
    }
}
