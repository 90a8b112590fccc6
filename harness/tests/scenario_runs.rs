//! What a run promises: every message accounted for, the same fates for the same seed, and a report of both.

mod scenario_support;

use std::collections::BTreeMap;
use std::path::Path;

use link::LogLine;
use scenario_support::{Bench, read, tiny};

/// A lossy scenario of a few seconds, with a reference client.
fn lossy() -> String {
    tiny(", \"delivery.ratio = 100 % for all\"", "")
        .replace(
            "delay = \"5 ms\"",
            "delay = \"5 ms\"\nloss = { random = \"10 %\", burst = { enter = \"2 %\", leave = \"30 %\" } }",
        )
        .replace("expect =", "reference = true\nexpect =")
        .replace("count = 10", "count = 40")
}

#[test]
fn every_message_is_accounted_for_by_device_and_reference_client() {
    let bench = Bench::new();
    let path = bench.file("tiny.toml", &lossy());
    let ended = bench.run(&["scenario", &path, "--format", "json"]);
    assert_eq!(ended.code(), 0, "{ended:#?}");
    let summary: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON alone on stdout");
    assert_eq!(summary["passed"], true);
    let report = read(&bench.path(summary["report"].as_str().expect("a folder")));
    for role in ["device", "reference"] {
        let trials = report["record"]["trials"].as_array().expect("trials");
        let trial = trials.iter().find(|trial| trial["role"] == role).expect(role);
        let messages = trial["messages"].as_array().expect("messages");
        for direction in ["from-board", "to-board"] {
            let mut numbers: Vec<_> = messages
                .iter()
                .filter(|message| message["direction"] == direction)
                .map(|message| message["sequence"].as_u64().expect("a number"))
                .collect();
            numbers.sort_unstable();
            assert_eq!(numbers, (0..40).collect::<Vec<_>>(), "{role}, {direction}: each once");
        }
        for message in messages {
            let fate = message["fate"].as_str().expect("a fate");
            assert!(["delivered", "duplicated", "reordered"].contains(&fate), "{role}: {message}");
            assert!(message["delivered_us"].is_u64(), "{role}: {message}");
        }
    }
}

/// The client asks for more than it may use at first: a stream for CONNECT in 0-RTT, and one for each topic.
#[test]
fn a_client_waits_for_stream_credit_that_comes_after_the_handshake() {
    for (stream_credit, early) in [("in-handshake", true), ("after-handshake", false)] {
        let expect = r#", "connections = 2", "connections.zero_rtt = 1", "connect.failures = 0", "disconnects = 0",
"delivery.ratio = 100 %", "acknowledged.ratio = 100 %""#;
        let more = format!(
            "\n[connection]\nstreams = \"per-topic\"\nresumption = \"early-data\"\n\
             \n[broker]\nstream_credit = \"{stream_credit}\"\n\
             \n[[step]]\ndo = \"reconnect\"\nat = \"250 ms\"\n"
        );
        let bench = Bench::new();
        // What comes down at that moment is lost with the streams and the session; this is about what goes up.
        let down = "[workload.down]\nsize = \"64 B\"\ncount = 10\ninterval = \"50 ms\"\n";
        let text = tiny(expect, &more).replace(down, "").replace("count = 10", "count = 20\ntopics = 3");
        let path = bench.file("tiny.toml", &text);
        bench.run(&["scenario", &path]).expect(0, &["PASSED"]);
        let report = bench.report();
        let marks = report["record"]["trials"][0]["connections"][1]["marks"].as_array().expect("marks");
        let nth = |phase| marks.iter().position(|mark| mark["phase"] == phase).expect(phase);
        assert_eq!(nth("connect-sent") < nth("handshake-complete"), early, "{stream_credit}: {marks:?}");
    }
}

/// The link's log of each trial.
fn logs(folder: &Path) -> Vec<Vec<LogLine>> {
    let text = std::fs::read_to_string(folder.join("link.jsonl")).expect("a log");
    let mut trials: Vec<Vec<LogLine>> = Vec::new();
    for line in text.lines() {
        if line.starts_with("{\"kind\":\"trial\"") || line.contains("\"kind\":\"trial\"") {
            trials.push(Vec::new());
        } else {
            let line = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            trials.last_mut().expect("a trial comes first").push(line);
        }
    }
    trials
}

/// What became of each packet, by direction and number.
fn fates(log: &[LogLine]) -> BTreeMap<(String, u64), Option<String>> {
    let packets = log.iter().filter_map(|line| match line {
        LogLine::Packet(record) => {
            let fate = record.dropped.map(|reason| format!("{reason:?}"));
            Some(((record.direction.to_string(), record.index), fate))
        }
        _ => None,
    });
    packets.collect()
}

#[test]
fn the_same_seed_gives_the_same_packets_the_same_fate() {
    let bench = Bench::new();
    let path = bench.file("tiny.toml", &lossy());
    for seed in ["7", "7", "8"] {
        let ended = bench.run(&["scenario", &path, "--seed", seed, "--repeat", "1"]);
        assert_eq!(ended.code(), 0, "{ended:#?}");
    }
    let reports = bench.reports();
    let [first, again, other] = [0, 1, 2].map(|index| logs(&reports[index]));
    assert_eq!(first.len(), 2, "device and reference client");
    for (trial, log) in first.iter().chain(&again).enumerate() {
        let (packets, _) =
            link::replay(log.iter().cloned()).unwrap_or_else(|error| panic!("{trial}: {error}"));
        assert!(packets > 80, "{packets}");
    }
    for (one, two) in first.iter().zip(&again) {
        let (one, two) = (fates(one), fates(two));
        let both: Vec<_> = one.keys().filter(|packet| two.contains_key(*packet)).collect();
        assert!(both.len() > 80, "{}", both.len());
        assert!(both.iter().all(|packet| one[*packet] == two[*packet]), "the fates differ");
        assert!(one.values().any(Option::is_some), "nothing was lost");
    }
    let differs =
        fates(&first[0]).iter().any(|(packet, fate)| fates(&other[0]).get(packet).is_some_and(|f| f != fate));
    assert!(differs, "another seed is another network");
}

/// The baseline with limits that no machine misses, however busy it is: only what is a share of the messages is held
/// as it was written. That the run a baseline was made from meets it is a matter of arithmetic, tested beside it.
fn at_ease(baseline: &str) -> String {
    let figures = baseline.split("[[figure]]").map(|figure| {
        let limit = |line: &str| match line.split_once(" = ") {
            Some(("at_most", _)) => "at_most = 1e12".to_owned(),
            Some(("at_least", _)) => "at_least = 0.0".to_owned(),
            _ => line.to_owned(),
        };
        if figure.contains(".ratio\"") {
            return figure.to_owned();
        }
        figure.lines().map(limit).collect::<Vec<_>>().join("\n") + "\n"
    });
    figures.collect::<Vec<_>>().join("[[figure]]")
}

#[test]
fn a_regression_against_a_baseline_fails_the_run() {
    let bench = Bench::new();
    let path = bench.file("tiny.toml", &tiny("", ""));
    // A folder that is not there yet.
    let folder = bench.path("baselines");
    let baseline = folder.join("tiny-host.toml");
    bench.run(&["scenario", &path, "--write-baseline", &folder.display().to_string()]).expect(0, &["PASSED"]);
    let eased = at_ease(&std::fs::read_to_string(&baseline).expect("it was written"));
    std::fs::write(&baseline, &eased).expect("the folder is writable");
    let baseline = baseline.display().to_string();
    bench
        .run(&["scenario", &path, "--baseline", &baseline])
        .expect(0, &["baseline: delivery.ratio ≥ 99.01 %"]);
    let tightened = bench.file("tightened.toml", &eased.replacen("at_most = 1e12", "at_most = 0.0", 1));
    let ended = bench.run(&["scenario", &path, "--baseline", &tightened]);
    ended.expect(1, &["FAILED", "Regression against the baseline: publish.latency.p50"]);
}

#[test]
fn no_baseline_is_made_of_a_run_that_failed() {
    let bench = Bench::new();
    let failing = bench.file("tiny.toml", &tiny(", \"lost >= 1\"", ""));
    let unwritten = bench.path("unwritten.toml");
    let target = unwritten.display().to_string();
    let arguments = ["scenario", &failing, "--write-baseline", &target];
    bench.run(&arguments).expect(1, &["no baseline was written"]);
    assert!(!unwritten.exists(), "a run that failed is nothing to measure others by");
}
