//! The esp32c3 code path from the serial port to the report, with a scripted board: the firmware core behind a
//! pseudo-terminal, its datagrams going to the link's proxy through real sockets.

mod bench_c3;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use bench_c3::bench::Bench;
use bench_c3::device::{Air, Cure, HEAP_FREE, PASSWORD, SSID, STACK_MAX, Script, Start};
use bench_c3::{errors, harness, timed};
use harness::board::esp32c3::history::What;
use serde_json::Value;

#[test]
fn lossy_wifi_runs_to_its_report_over_the_console_and_the_udp_proxy() {
    let bench = Bench::new(Script::default());
    let (output, _) = bench.run("lossy-wifi", &[]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}\n{}",
        errors(&output),
        String::from_utf8_lossy(&output.stdout)
    );
    let report = bench.json("lossy-wifi");
    let text = report.to_string();
    let rtt = note(&report, "path RTT at the proxy: ");
    let measured = rtt
        .split_once(" ms least, ")
        .and_then(|(least, rest)| Some((least, rest.split_once(" ms median of 10 to 127.0.0.1 ")?.0)));
    let (least, median) = measured.unwrap_or_else(|| panic!("no figures: {rtt}"));
    let number = |text: &str| text.parse::<f64>().unwrap_or_else(|_| panic!("no number: {rtt}"));
    assert!(number(least) <= number(median), "{rtt}");
    assert!(text.contains("\"name\":\"esp32c3\""), "the board is named");
    assert!(!text.contains(PASSWORD), "no secret in the report");
    let console = bench.report("lossy-wifi", "console.log");
    assert!(console.contains("ESP-ROM:esp32c3") && console.contains("LinkUp"), "{console}");
    assert!(!console.contains(PASSWORD), "no secret in the console log");
}

/// The scenario with the one budget that a scripted board cannot meet widened: it is a process whose pointers are twice as wide, and
/// so is much of the client's state.
fn memory(bench: &Bench) -> String {
    let text = include_str!("../../scenarios/memory.toml");
    let wide = text.replace("ram.client_state <= 16 KiB", "ram.client_state <= 17 KiB");
    assert_ne!(wide, text);
    let file = bench.state.path().join("memory.toml");
    std::fs::write(&file, wide).expect("room");
    file.to_str().expect("plain text").to_owned()
}

#[test]
fn memory_is_what_the_board_tells_of_its_stack_and_heap() {
    let bench = Bench::new(Script::default());
    let (output, _) = bench.run(&memory(&bench), &[]);
    assert_eq!(output.status.code(), Some(0), "{:?}", unmet(&output));
    let report = bench.json("memory");
    let snapshots = report["record"]["trials"][0]["memory"].as_array().expect("a list");
    assert!(!snapshots.is_empty());
    for snapshot in snapshots {
        assert_eq!(snapshot["stack_high_water"], STACK_MAX, "{snapshot}");
        assert_eq!([&snapshot["heap_free"], &snapshot["heap_free_min"]], HEAP_FREE, "{snapshot}");
        assert!(snapshot["client_ram"].as_u64() > Some(STACK_MAX.into()), "{snapshot}");
    }
}

#[test]
fn a_stack_deeper_than_its_budget_fails_the_scenario() {
    let bench = Bench::new(Script { stack_max: Some(15_000), ..Script::default() });
    let (output, _) = bench.run(&memory(&bench), &[]);
    assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
    let unmet = unmet(&output);
    assert!(matches!(&unmet[..], [one] if one.contains("stack.high_water <= 14 KiB")), "{unmet:?}");
}

/// The expectations that were not met, each with its figures.
fn unmet(output: &Output) -> Vec<String> {
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", errors(output)));
    let outcomes = told["outcomes"].as_array().expect("a list").iter();
    let failed = outcomes.filter(|outcome| outcome["decides"] == true && outcome["status"] != "passed");
    failed.map(|outcome| format!("{}: {}", outcome["expectation"], outcome["explanation"])).collect()
}

/// What follows `start` in a note of the board's first trial.
#[track_caller]
fn note<'r>(report: &'r serde_json::Value, start: &str) -> &'r str {
    let notes = report["record"]["trials"][0]["notes"].as_array().expect("a list");
    let found = notes.iter().filter_map(serde_json::Value::as_str).find_map(|note| note.strip_prefix(start));
    found.unwrap_or_else(|| panic!("no `{start}` in {notes:?}"))
}

#[test]
fn hello_runs_over_each_transport_and_what_a_stream_proxy_cannot_do_is_said() {
    let bench = Bench::new(Script::default());
    let (output, _) = bench.run("hello", &["--transport", "quic,tls,tcp"]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let report = bench.json("hello");
    let trials = report["record"]["trials"].as_array().expect("a list");
    for transport in ["quic", "tls", "tcp"] {
        let mut own =
            trials.iter().filter(|trial| trial["role"] == "device" && trial["transport"] == transport);
        let trial = own.next().unwrap_or_else(|| panic!("no trial over {transport}"));
        let delivered = trial["messages"]
            .as_array()
            .expect("a list")
            .iter()
            .filter(|message| !message["delivered_us"].is_null());
        assert_eq!(delivered.count(), 20, "over {transport}");
        let label = format!("{transport}: delay and stall only");
        let notes = trial["notes"].to_string();
        assert_eq!(notes.contains(&label), transport != "quic", "{notes}");
        // Whatever the transport: the path is told apart from the board.
        assert!(notes.contains("path RTT at the proxy: ") && notes.contains(" ms median of "), "{notes}");
    }
}

#[test]
fn noise_between_frames_is_survived() {
    let bench = Bench::new(Script { noisy: true, ..Script::default() });
    let (output, _) = bench.run("hello", &[]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
}

#[test]
fn a_power_mode_that_the_firmware_refuses_is_named() {
    let bench = Bench::new(Script::default());
    let (output, took) = bench.run("hello", &["--power", "light-sleep"]);
    let told = format!("{}{}", errors(&output), String::from_utf8_lossy(&output.stdout));
    assert_ne!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("refuses the power mode LightSleep") && told.contains("uart-console"), "{told}");
    assert!(took < SOON, "{took:?}");
}

/// Yields what the board's history has against it.
#[track_caller]
fn assert_fault(script: Script, password: &str, limit: Duration, parts: &[&str]) -> Option<String> {
    let bench = Bench::new(script);
    let mut command = bench.scenario("hello", &[]);
    command.env("HARNESS_WIFI_PASSWORD", password);
    let (output, took) = timed(&mut command);
    let told = format!("{}{}", errors(&output), String::from_utf8_lossy(&output.stdout));
    assert_ne!(output.status.code(), Some(0), "{told}");
    assert_ne!(output.status.code(), Some(101), "{told}");
    for part in parts.iter().chain(&["remedy:"]) {
        assert!(told.contains(part), "`{part}` is missing in: {told}");
    }
    assert!(took < limit, "it took {took:?}");
    assert!(!told.contains(password), "{told}");
    bench.history().pop().expect("the run was noted").fault
}

const SOON: Duration = Duration::from_secs(45);

#[test]
fn a_silent_board_is_named_with_all_that_was_tried() {
    let script = Script { start: Start::Silence, ..Script::default() };
    let parts = ["is silent", "reset: it stays silent", "opening the port again"];
    let noted = assert_fault(script, PASSWORD, SOON, &parts).expect("it is the board's fault");
    assert!(noted.contains("is silent"), "{noted}");
}

#[test]
fn a_board_in_download_mode_is_named() {
    let script = Script { start: Start::Download, ..Script::default() };
    assert_fault(script, PASSWORD, SOON, &["is in download mode"]);
}

#[test]
fn garbage_on_the_console_is_named() {
    let script = Script { start: Start::Garbage, ..Script::default() };
    assert_fault(script, PASSWORD, SOON, &["garbage on", "9f e0 81"]);
}

#[test]
fn a_board_without_firmware_is_named() {
    let script = Script { start: Start::EmptyFlash, ..Script::default() };
    assert_fault(script, PASSWORD, SOON, &["no firmware that boots: invalid header: 0xffffffff"]);
}

#[test]
fn another_firmware_is_named_by_what_it_says() {
    let script = Script { start: Start::Foreign, ..Script::default() };
    assert_fault(script, PASSWORD, SOON, &["not this project's firmware", "Hello world!"]);
}

#[test]
fn a_firmware_that_panics_at_its_start_is_named_by_its_panic() {
    let script = Script { start: Start::Crash, ..Script::default() };
    assert_fault(script, PASSWORD, SOON, &["crashes when it starts", "no heap left"]);
}

#[test]
fn a_wrong_password_ends_the_run_at_once_and_is_not_held_against_the_board() {
    let limit = Duration::from_secs(15);
    let parts = ["does not accept the password"];
    assert_eq!(assert_fault(Script::default(), "wrong battery", limit, &parts), None);
}

#[test]
fn a_network_that_is_not_there_is_named() {
    let script = Script { air: Air::NoNetwork, ..Script::default() };
    assert_eq!(assert_fault(script, PASSWORD, SOON, &["finds no Wi-Fi network `bench`"]), None);
}

#[test]
fn a_network_without_dhcp_is_named() {
    let script = Script { without_dhcp: true, ..Script::default() };
    assert_fault(script, PASSWORD, Duration::from_secs(90), &["no DHCP server gave it an address"]);
}

#[test]
fn an_access_point_that_goes_in_the_run_is_named() {
    let script = Script { air: Air::GoneAfter(Duration::from_secs(2)), ..Script::default() };
    let bench = Bench::new(script);
    let (output, took) = bench.run("lossy-wifi", &[]);
    let told = errors(&output);
    assert_eq!(output.status.code(), Some(3), "{told}");
    let parts = [
        "the board lost the Wi-Fi network `bench` and did not get back to it",
        "the access point fell silent or ended the association; then no access point with that name answered",
        "remedy: switch the access point on again",
    ];
    bench.assert_told_and_reported("lossy-wifi", &told, &parts);
    assert!(took < Duration::from_secs(150), "{took:?}");
}

#[test]
fn a_cable_pulled_in_the_run_is_named() {
    let script = Script { pulled_after: Some(Duration::from_secs(2)), ..Script::default() };
    let bench = Bench::new(script);
    let (output, took) = bench.run("lossy-wifi", &[]);
    let told = errors(&output);
    assert_eq!(output.status.code(), Some(3), "{told}");
    let parts = ["vanished while in use", "remedy: check cable, hub and supply"];
    bench.assert_told_and_reported("lossy-wifi", &told, &parts);
    let noted = bench.history().pop().expect("the run was noted").fault;
    assert!(
        noted.is_some_and(|fault| fault.contains("vanished while in use")),
        "a loose plug is the board's"
    );
    assert!(took < Duration::from_secs(60), "{took:?}");
}

#[test]
fn a_board_that_panics_in_the_run_and_starts_again_is_dead_and_its_panic_is_told() {
    let script = Script { panics_after: Some(Duration::from_secs(2)), ..Script::default() };
    let bench = Bench::new(script);
    let (output, took) = bench.run("lossy-wifi", &[]);
    let told = errors(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    let parts = [
        "panicked: no room left",
        "restarted by itself, reset cause USB_UART_CHIP_RESET",
        "remedy: the console log holds everything",
    ];
    bench.assert_told_and_reported("lossy-wifi", &told, &parts);
    assert!(bench.report("lossy-wifi", "console.log").contains("no room left"));
    assert!(took < Duration::from_secs(60), "{took:?}");
}

#[test]
fn a_board_that_answers_after_the_port_was_opened_again_is_used_and_the_recovery_told() {
    let script = Script { start: Start::Silence, cure: Some(Cure::Resets(2)), ..Script::default() };
    let bench = Bench::new(script);
    let (output, _) = bench.run("hello", &[]);
    let told = errors(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("recovery: reset: it stays silent"), "{told}");
    assert!(told.contains("recovery: opening the port again"), "{told}");
}

#[test]
fn credentials_are_asked_for_where_there_are_none() {
    let bench = Bench::new(Script::default());
    let mut command = bench.scenario("hello", &[]);
    command.env_remove("HARNESS_WIFI_SSID");
    let (output, _) = timed(&mut command);
    let told = errors(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("HARNESS_WIFI_SSID"), "{told}");
}

#[test]
fn a_second_run_on_the_same_board_is_told_who_has_it() {
    let bench = Bench::new(Script::default());
    let mut first = bench.scenario("lossy-wifi", &[]).spawn().expect("the harness was built");
    std::thread::sleep(Duration::from_secs(3));
    let (output, _) = bench.run("hello", &[]);
    let told = errors(&output);
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains(&format!("process {}", first.id())), "{told}");
    // Killed, it leaves no lock behind.
    first.kill().expect("it runs");
    first.wait().expect("it ends");
    let list = timed(harness(bench.state.path()).args(["boards", "--port"]).arg(bench.board.port())).0;
    assert!(list.status.success(), "{}", errors(&list));
    assert!(!String::from_utf8_lossy(&list.stdout).contains("in use by process"), "{list:?}");
}

#[test]
fn a_board_is_verified_and_its_history_kept() {
    let bench = Bench::new(Script::default());
    let verify = |path: &Path| {
        timed(
            harness(path).args(["boards", "--verify", "--format", "json", "--port"]).arg(bench.board.port()),
        )
        .0
    };
    // Three of five runs in which the board failed.
    let archive = bench.archive();
    let id = bench.board.port().display().to_string();
    for fault in [None, Some("silent"), Some("silent"), None, Some("garbage")] {
        let run = What::Run { scenario: "hello".into(), passed: fault.is_none() };
        archive.note(&id, run, fault.map(str::to_owned)).expect("room");
    }
    let board = |list: &Output| {
        let list: serde_json::Value = serde_json::from_slice(&list.stdout).expect("JSON");
        list["boards"][0].clone()
    };
    let list = timed(harness(bench.state.path()).args(["boards", "--format", "json", "--port"]).arg(&id)).0;
    assert_eq!(board(&list)["quarantine"], "it failed at 3 of its last 5 uses, last: garbage");

    let output = verify(bench.state.path());
    let told = errors(&output);
    assert!(output.status.success(), "{told}");
    // A reset is enough, and nothing that the ladder does is worth a word.
    assert!(!told.contains("recovery:"), "{told}");
    let board = board(&output);
    assert_eq!(board["quarantine"], serde_json::Value::Null, "it proved itself");
    assert_eq!(board["runs"], serde_json::json!({ "without_fault": 2, "all": 5 }), "what was is kept");
    let last = bench.history().pop().expect("a history");
    assert_eq!((last.what, last.fault), (What::Verify, None));
}

/// A broker at the bench's address, until it is dropped.
struct Served(Child);

impl Served {
    fn start(bench: &Bench) -> Self {
        let mut broker = harness(bench.state.path());
        broker.args(["broker", "--tls", "0", "--tcp", "0", "--name", "127.0.0.1", "--quic"]);
        broker.arg(bench.listen.port().to_string()).arg("--ca").arg(ca(bench)).stdout(Stdio::null());
        let broker = broker.spawn().expect("the harness was built");
        let begin = std::time::Instant::now();
        while !ca(bench).exists() && begin.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(50));
        }
        Self(broker)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it ends");
    }
}

/// Where the broker leaves its authority's certificate.
fn ca(bench: &Bench) -> PathBuf {
    bench.state.path().join("ca.pem")
}

fn demo(bench: &Bench, password: &str, more: &[&str]) -> Command {
    let mut demo = harness(bench.state.path());
    demo.args(["demo", "--no-flash", "--broker"]).arg(format!("quic://{}", bench.listen));
    demo.arg("--port").arg(bench.board.port()).args(more);
    if ca(bench).exists() {
        demo.arg("--ca").arg(ca(bench));
    }
    demo.env("HARNESS_WIFI_SSID", SSID).env("HARNESS_WIFI_PASSWORD", password);
    demo
}

#[test]
fn the_demo_connects_publishes_and_tells_what_came_back_and_the_heap() {
    let bench = Bench::new(Script::default());
    let _broker = Served::start(&bench);
    let mut demo = demo(&bench, PASSWORD, &["--count", "2", "--power", "maximum-modem-sleep"]);
    let (output, _) = timed(&mut demo);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}\n{told}", errors(&output));
    let parts = [
        "CONNACK",
        "SUBACK",
        "came back after",
        "Intact",
        "MqttConnected: free heap 200000 B",
        "ESP32-C3 v0.4 at 160 MHz",
        "radio Joined, channel 6, -36 dBm, power mode MaximumModemSleep",
        "heap 250000 B, 50000 B used",
        "processor busy",
    ];
    for part in parts {
        assert!(told.contains(part), "`{part}` is missing in: {told}");
    }
    assert!(!told.contains(PASSWORD), "{told}");
}

#[test]
fn the_demo_names_what_fails_with_its_remedy() {
    let gone = Script { air: Air::GoneAfter(Duration::from_millis(200)), ..Script::default() };
    let cases: [(Script, &str, &[&str]); 2] = [
        (Script::default(), "wrong battery", &["does not accept the password", "help: correct the password"]),
        (
            gone,
            PASSWORD,
            &["the board lost the Wi-Fi network `bench`", "help: switch the access point on again"],
        ),
    ];
    for (script, password, parts) in cases {
        let bench = Bench::new(script);
        let _broker = Served::start(&bench);
        let (output, took) = timed(&mut demo(&bench, password, &[]));
        let told = errors(&output);
        assert_eq!(output.status.code(), Some(3), "{told}");
        for part in parts {
            assert!(told.contains(part), "`{part}` is missing in: {told}");
        }
        assert!(took < 2 * SOON, "{took:?}");
    }
    let bench = Bench::new(Script::default());
    let (output, took) = timed(&mut demo(&bench, PASSWORD, &[]));
    let told = errors(&output);
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(
        told.contains("no broker answers at quic://") && told.contains("help: check host and port"),
        "{told}"
    );
    assert!(took < 2 * SOON, "{took:?}");
}
