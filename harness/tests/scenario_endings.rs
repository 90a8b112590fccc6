//! However a run ends - by a signal, a dead or a hung board, a reader that went away - there is a report that says so,
//! and nothing is left running.

mod scenario_support;

use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use scenario_support::{Bench, finish, tiny};

/// A scenario that goes on for half a minute.
fn long() -> String {
    tiny("", "").replace("count = 10", "count = 600")
}

/// Processes whose parent is `parent`.
fn children(parent: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("a Linux machine").flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parent_of = |process: u32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // Behind the name in parentheses: state, then parent.
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    numbers.filter(|process| parent_of(*process) == Some(parent)).collect()
}

/// Waits until the run has a board, and yields its process.
fn board_of(child: &Child) -> u32 {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(board) = children(child.id()).first() {
            return *board;
        }
        assert!(Instant::now() < deadline, "no board was started");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn is_running(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

fn signal(process: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(process).expect("a process")).expect("not zero");
    kill_process(pid, signal).expect("it runs");
}

#[test]
fn signals_end_a_run_with_a_partial_report() {
    for kind in [Signal::INT, Signal::TERM, Signal::HUP] {
        let bench = Bench::new();
        let path = bench.file("tiny.toml", &long());
        let child = bench.command(&["scenario", &path]).spawn().expect("the harness starts");
        let board = board_of(&child);
        std::thread::sleep(Duration::from_millis(1_500));
        signal(child.id(), kind);
        let ended = finish(child);
        ended.expect(1, &["interrupted", "partial report"]);
        assert!(ended.took < Duration::from_secs(15), "{kind:?}: {ended:?}");
        let report = bench.report();
        assert_eq!(report["verdict"]["passed"], false);
        assert_eq!(report["record"]["ending"]["kind"], "interrupted", "{kind:?}");
        assert_eq!(report["record"]["trials"][0]["ending"]["kind"], "interrupted");
        assert_told_until_then(&report["record"]["trials"][0]);
        assert!(bench.reports()[0].join("report.html").exists());
        assert!(!is_running(board), "the board is left running after {kind:?}");
    }
}

#[test]
fn an_interrupted_reference_client_tells_what_it_did_until_then() {
    let bench = Bench::new();
    let text = tiny("", "").replace("count = 10", "count = 60").replace("answer", "reference = true\nanswer");
    let path = bench.file("tiny.toml", &text);
    let child = bench.command(&["scenario", &path]).spawn().expect("the harness starts");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !bench.reports().first().is_some_and(|report| report.join("link-2.jsonl").exists()) {
        assert!(Instant::now() < deadline, "the reference client's trial does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(1_500));
    signal(child.id(), Signal::INT);
    finish(child).expect(1, &["interrupted"]);
    let report = bench.report();
    assert_eq!(report["record"]["trials"][1]["ending"]["kind"], "interrupted");
    assert_told_until_then(&report["record"]["trials"][1]);
}

/// What was delivered before the interruption is in the record, in both directions, and nothing counts as lost.
fn assert_told_until_then(trial: &serde_json::Value) {
    let messages = trial["messages"].as_array().expect("messages");
    for direction in ["from-board", "to-board"] {
        let fates = |fate: &str| {
            let of =
                |message: &&serde_json::Value| message["direction"] == direction && message["fate"] == fate;
            messages.iter().filter(of).count()
        };
        assert!(fates("delivered") > 0, "{direction}: {messages:#?}");
        assert!(fates("timed-out") > 0, "{direction}: it was not interrupted");
        assert_eq!(fates("lost"), 0, "{direction}: {messages:#?}");
    }
    assert_eq!(trial["connections"].as_array().map(Vec::len), Some(1), "{trial:#?}");
    assert_eq!(trial["notes"].as_array().map(Vec::len), Some(0), "{:#?}", trial["notes"]);
}

#[test]
fn a_board_that_is_killed_is_a_result() {
    let bench = Bench::new();
    let path = bench.file("tiny.toml", &long());
    let child = bench.command(&["scenario", &path]).spawn().expect("the harness starts");
    let board = board_of(&child);
    std::thread::sleep(Duration::from_millis(1_500));
    signal(board, Signal::KILL);
    let ended = finish(child);
    ended.expect(1, &["FAILED", "the board died", "SIGKILL"]);
    let report = bench.report();
    let failed = &report["record"]["trials"][0]["ending"];
    assert_eq!((failed["kind"].as_str(), failed["blame"].as_str()), (Some("failed"), Some("subject")));
    assert_eq!(faults(&report), 1);
}

#[test]
fn a_board_that_hangs_or_panics_is_a_fault() {
    for (fault, word) in [("hang", "does not answer"), ("panic", "the board died")] {
        let bench = Bench::new();
        let step = format!("\n[[step]]\ndo = \"crash-board\"\nfault = \"{fault}\"\nat = \"200 ms\"\n");
        let path = bench.file("tiny.toml", &tiny("", &step));
        let ended = bench.run(&["scenario", &path]);
        ended.expect(1, &["FAILED", word]);
        assert!(ended.took < Duration::from_secs(30), "{fault}: {ended:?}");
        assert_eq!(faults(&bench.report()), 1, "{fault}: board.faults = 0 must not pass");
    }
}

fn faults(report: &serde_json::Value) -> usize {
    let events = report["record"]["trials"][0]["events"].as_array().expect("events");
    events.iter().filter(|event| event["kind"] == "board-fault").count()
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let bench = Bench::new();
    let path = bench.file("tiny.toml", &tiny("", ""));
    let mut child = bench.command(&["scenario", &path, "-v"]).spawn().expect("the harness starts");
    drop((child.stdout.take(), child.stderr.take()));
    let ended = finish(child);
    assert_eq!(ended.code(), 0, "{ended:?}");
    assert_eq!(bench.report()["verdict"]["passed"], true);
}
