//! A device costs the same in a fleet of a thousand as in one of a hundred: memory, processor time and turns a device, at
//! the same number of messages a second. Time is the processor's, of the threads that drive devices: what others do
//! on the machine is not in it but for caches, so the better of few attempts counts. It takes half a minute, and
//! machines that tell a thread's time, so plain `cargo test` leaves it out: `cargo test -p harness --test fleet_cost`.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// How much more a device may cost in the large fleet.
const GROWTH_MAX: f64 = 1.2;
/// Bytes of resident memory that a device may take in the large fleet, what the process takes for all of them included.
const MEMORY_MAX: f64 = 64.0 * 1024.0;
/// A machine that is busy with others may spoil one.
const ATTEMPTS: usize = 3;

/// What one device costs in a fleet that publishes 250 messages a second: microseconds of processor, turns, and bytes of
/// resident memory by which the process grew.
#[derive(Debug, Clone, Copy)]
struct Cost {
    cpu_us: f64,
    turns: f64,
    memory: f64,
}

fn cost(devices: u32, interval: &str) -> Cost {
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new(env!("CARGO_BIN_EXE_harness"))
        .args(["fleet", "--devices", &devices.to_string(), "--messages", "2", "--interval", interval])
        .args(["--storm", "none", "--ramp", "200", "--threads", "2", "--reports"])
        .arg(folder.path())
        .stdin(Stdio::null())
        .output()
        .expect("the harness");
    let told = String::from_utf8_lossy(&output.stdout);
    // Whether it also meets the limits on its times is for another step to judge.
    assert!(matches!(output.status.code(), Some(0 | 1)), "{told}");
    let report = report(&folder.path().join("fleet"));
    assert_eq!(statistic(&report, "fleet.connected.ratio", "mean"), 1.0, "{told}");
    assert_eq!(statistic(&report, "delivery.ratio", "mean"), 1.0, "{told}");
    Cost {
        cpu_us: statistic(&report, "fleet.cpu_per_device", "mean"),
        turns: statistic(&report, "fleet.turns_per_device", "mean"),
        memory: statistic(&report, "fleet.memory_per_device", "max"),
    }
}

/// The only report below `folder`.
fn report(folder: &Path) -> Value {
    let run = std::fs::read_dir(folder).expect("reports").next().expect("a run").expect("a folder");
    let text = std::fs::read_to_string(run.path().join("report.json")).expect("a report");
    serde_json::from_str(&text).expect("JSON")
}

fn statistic(report: &Value, name: &str, statistic: &str) -> f64 {
    let mut metrics = report["metrics"].as_array().expect("metrics").iter();
    let metric = metrics.find(|metric| metric["metric"] == name).unwrap_or_else(|| panic!("no {name}"));
    let mut statistics = metric["statistics"].as_array().expect("statistics").iter();
    let found = statistics.find(|found| found["statistic"] == statistic).expect(statistic);
    found["value"].as_f64().unwrap_or_else(|| panic!("{name}: {found}"))
}

#[test]
fn a_device_costs_no_more_among_a_thousand_than_among_a_hundred() {
    let mut seen = Vec::new();
    for _ in 0..ATTEMPTS {
        let (few, many) = (cost(100, "400ms"), cost(1000, "4s"));
        assert!(few.cpu_us > 0.0 && few.turns > 0.0, "{few:?}");
        // Memory is no matter of attempts: nothing else on the machine changes it.
        assert!(many.memory < MEMORY_MAX, "among 1000: {many:?}");
        assert!(many.memory <= GROWTH_MAX * few.memory, "among 100: {few:?}, among 1000: {many:?}");
        seen.push((few, many));
        if many.cpu_us <= GROWTH_MAX * few.cpu_us && many.turns <= GROWTH_MAX * few.turns {
            println!("among 100: {few:?}, among 1000: {many:?}");
            return;
        }
    }
    panic!("a device costs more than {GROWTH_MAX} times as much: {seen:?}");
}
