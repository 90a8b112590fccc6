//! Energies of a run on a scripted board: estimated, and measured by a trace that is laid over the run.

mod bench_c3;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use bench_c3::bench::Bench;
use bench_c3::device::Script;
use bench_c3::{errors, harness, timed};
use serde_json::Value;

#[test]
fn the_energy_of_a_run_is_estimated_and_called_an_estimate() {
    let bench = Bench::new(Script::default());
    let (output, _) = bench.run("clean", &["--power", "minimum-modem-sleep"]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let report = bench.json("clean");
    let trials = report["record"]["trials"].as_array().expect("trials");
    let device = trials.iter().find(|trial| trial["role"] == "device").expect("the board's");
    assert!(device["notes"].to_string().contains("ESTIMATE"), "{}", device["notes"]);
    let energies = device["energy"].as_array().expect("a list");
    assert!(energies.iter().any(|energy| energy["activity"] == "handshake-full"), "{energies:?}");
    assert!(energies.iter().all(|energy| energy["measured"] == false), "{energies:?}");
    let console = bench.report("clean", "console.log");
    assert!(console.matches("Activity(").count() >= 3, "before, between and after: {console}");
}

/// The trace's clock at the start of the run, in seconds.
const AT_S: f64 = 2.5;
/// A current that rises by so much every second, in milliamperes: no other stretch of time takes as much energy.
const SLOPE_MA: f64 = 7.0;
/// The supply.
const VOLTS: f64 = 3.0;

/// A trace of `len_s` seconds as the Power Profiler exports it.
fn trace(folder: &Path, len_s: u32) -> PathBuf {
    let mut csv = "Timestamp(ms),Current(uA),D0-D7\n".to_owned();
    for ms in (0..=len_s * 1000).step_by(10) {
        let current_ua = SLOPE_MA * f64::from(ms);
        writeln!(csv, "{ms},{current_ua},00000000").expect("a string");
    }
    let path = folder.join("trace.csv");
    std::fs::write(&path, csv).expect("room");
    path
}

fn measure(bench: &Bench, run: &Path, trace: &Path, at: f64) -> Output {
    let mut energy = harness(bench.state.path());
    energy.args(["energy", "--format", "json", "--at", &at.to_string(), "--volts", &VOLTS.to_string()]);
    energy.arg(run).arg("--trace").arg(trace);
    timed(&mut energy).0
}

/// Microjoules from `start_us` to `end_us` of the run.
fn expected(start_us: u64, end_us: u64) -> f64 {
    let at = |us: u64| AT_S + us as f64 / 1e6;
    VOLTS * SLOPE_MA / 1e3 * (at(end_us).powi(2) - at(start_us).powi(2)) / 2.0 * 1e6
}

#[test]
fn a_trace_takes_the_estimate_s_place_with_the_energy_of_just_that_time() {
    let bench = Bench::new(Script::default());
    let (output, _) = bench.run("hello", &[]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let run = bench.run_folder("hello");
    let trace = trace(bench.state.path(), 120);
    let output = measure(&bench, &run, &trace, AT_S);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert!(errors(&output).contains("2 spans measured from 12001 samples"), "{}", errors(&output));

    let mut runs: Vec<PathBuf> = bench.run_folders("hello");
    runs.retain(|folder| *folder != run);
    let [measured] = &runs[..] else { panic!("one more report: {runs:?}") };
    let text = std::fs::read_to_string(measured.join("report.json")).expect("written");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    let trials = report["record"]["trials"].as_array().expect("a list");
    let trial = trials.iter().find(|trial| trial["role"] == "device").expect("the board's");
    let us = |value: &Value| value.as_u64().expect("microseconds");
    let started = us(&trial["started_us"]);
    let connection = &trial["connections"][0];
    let marks = connection["marks"].as_array().expect("a list");
    let connack = marks.iter().find(|mark| mark["phase"] == "connack").expect("it was connected");
    let handshake = expected(started + us(&connection["started_us"]), started + us(&connack["at_us"]));
    let messages = trial["messages"].as_array().expect("a list");
    // The peer's messages cost energy too, but are nothing that the board published.
    let published = |message: &&Value| message["direction"] == "from-board" && message["qos"] == 1;
    let acked: Vec<&Value> =
        messages.iter().filter(published).filter(|message| !message["acked_us"].is_null()).collect();
    let first = acked.iter().map(|message| us(&message["sent_us"])).min().expect("there are some");
    let last = acked.iter().map(|message| us(&message["acked_us"])).max().expect("there are some");
    let message = expected(started + first, started + last) / acked.len() as f64;

    let energies = trial["energy"].as_array().expect("a list");
    assert_eq!(energies.len(), 2, "{energies:?}");
    for (activity, expected) in [("handshake-full", handshake), ("publish-qos1", message)] {
        let energy = energies.iter().find(|energy| energy["activity"] == activity).expect("measured");
        assert_eq!(energy["measured"], true);
        let microjoules = energy["microjoules"].as_f64().expect("a number");
        assert!(
            (microjoules - expected).abs() < expected * 1e-6,
            "{activity}: {microjoules}, not {expected}"
        );
    }
    let notes = trial["notes"].to_string();
    assert!(notes.contains("energy was measured") && !notes.contains("ESTIMATE"), "{notes}");
}

#[test]
fn a_trace_that_cannot_be_used_is_named_with_what_to_do() {
    let bench = Bench::new(Script::default());
    let (output, _) = bench.run("hello", &[]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let run = bench.run_folder("hello");
    let file = |name: &str, text: &str| {
        let path = bench.state.path().join(name);
        std::fs::write(&path, text).expect("room");
        path
    };
    let missing = bench.state.path().join("missing.csv");
    let cases = [
        (missing, "cannot open", "remedy:"),
        (trace(bench.state.path(), 1), "trace covers 0.000 s to 1.000 s", "remedy: check --at"),
        (file("heading.csv", "a,b\n1,2\n"), "names no time", "remedy: name it such as"),
        (file("nan.csv", "time_s,current_mA\n0,1\n1,nan\n"), "line 3 is no sample: `1,nan`", "remedy:"),
        (file("empty.csv", ""), "it is empty", "remedy:"),
    ];
    for (trace, what, remedy) in cases {
        let output = measure(&bench, &run, &trace, AT_S);
        let told = errors(&output);
        assert_eq!(output.status.code(), Some(2), "{told}");
        let name = trace.file_name().and_then(|name| name.to_str()).expect("plain text");
        for part in [what, remedy, name] {
            assert!(told.contains(part), "`{part}` is missing in: {told}");
        }
    }
    let output =
        measure(&bench, &bench.state.path().join("no-run"), &bench.state.path().join("nan.csv"), 0.0);
    assert_eq!(output.status.code(), Some(2), "{}", errors(&output));
    assert!(errors(&output).contains("no-run"), "{}", errors(&output));
}
