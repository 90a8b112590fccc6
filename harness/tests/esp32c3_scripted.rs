//! The esp32c3 code path from the serial port to the report, with a scripted board: the firmware core behind a
//! pseudo-terminal, its datagrams going to the link's proxy through real sockets.

mod bench_c3;

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use bench_c3::device::{Air, PASSWORD, SSID, Script, Scripted, Start};
use bench_c3::{errors, harness, timed};

/// A port that is free for UDP and TCP on loopback; the proxy will listen there.
fn free_port() -> SocketAddrV4 {
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let port = udp.local_addr().expect("bound").port();
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

struct Bench {
    state: tempfile::TempDir,
    board: Scripted,
    listen: SocketAddrV4,
}

impl Bench {
    fn new(script: Script) -> Self {
        let listen = free_port();
        let state = tempfile::tempdir().expect("a folder");
        Self { state, board: Scripted::start(script, listen), listen }
    }

    fn scenario(&self, name: &str, more: &[&str]) -> Command {
        let mut command = harness(self.state.path());
        command.args(["scenario", name, "--board", "esp32c3", "--no-flash", "--repeat", "1", "--format", "json"]);
        command.arg("--port").arg(self.board.port()).arg("--listen").arg(self.listen.to_string());
        command.env("HARNESS_WIFI_SSID", SSID).env("HARNESS_WIFI_PASSWORD", PASSWORD).args(more);
        command
    }

    fn run(&self, name: &str, more: &[&str]) -> (Output, Duration) {
        timed(&mut self.scenario(name, more))
    }

    /// A file of the one report there is.
    fn report(&self, scenario: &str, file: &str) -> String {
        let runs = self.state.path().join("reports").join(scenario);
        let mut runs = std::fs::read_dir(&runs).expect("a run").flatten().map(|entry| entry.path());
        let run = runs.find(|path| path.join("report.json").exists()).expect("a report");
        std::fs::read_to_string(run.join(file)).expect("written")
    }
}

#[test]
fn lossy_wifi_runs_to_its_report_over_the_console_and_the_udp_proxy() {
    let bench = Bench::new(Script::default());
    let (output, _) = bench.run("lossy-wifi", &[]);
    assert_eq!(output.status.code(), Some(0), "{}\n{}", errors(&output), String::from_utf8_lossy(&output.stdout));
    let report: serde_json::Value = serde_json::from_str(&bench.report("lossy-wifi", "report.json")).expect("JSON");
    let text = report.to_string();
    assert!(text.contains("path RTT at the proxy"), "the path is told apart from the board");
    assert!(text.contains("\"name\":\"esp32c3\""), "the board is named");
    assert!(!text.contains(PASSWORD), "no secret in the report");
    let console = bench.report("lossy-wifi", "console.log");
    assert!(console.contains("ESP-ROM:esp32c3") && console.contains("LinkUp"), "{console}");
    assert!(!console.contains(PASSWORD), "no secret in the console log");
}

#[test]
fn hello_runs_over_each_transport_and_tcp_is_labelled() {
    let bench = Bench::new(Script::default());
    let (output, _) = bench.run("hello", &["--transport", "quic,tcp"]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert!(bench.report("hello", "report.json").contains("delay and stall only"));
}

#[test]
fn noise_between_frames_is_survived() {
    let bench = Bench::new(Script { noisy: true, ..Script::default() });
    let (output, _) = bench.run("hello", &[]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
}

#[track_caller]
fn assert_fault(script: Script, password: &str, limit: Duration, parts: &[&str]) {
    let bench = Bench::new(script);
    let mut command = bench.scenario("hello", &[]);
    command.env("HARNESS_WIFI_PASSWORD", password);
    let (output, took) = timed(&mut command);
    let told = format!("{}{}", errors(&output), String::from_utf8_lossy(&output.stdout));
    assert_ne!(output.status.code(), Some(0), "{told}");
    assert_ne!(output.status.code(), Some(101), "{told}");
    for part in parts {
        assert!(told.contains(part), "`{part}` is missing in: {told}");
    }
    assert!(took < limit, "it took {took:?}");
    assert!(!told.contains(password), "{told}");
}

const SOON: Duration = Duration::from_secs(45);

#[test]
fn a_silent_board_is_named_with_all_that_was_tried() {
    let script = Script { start: Start::Silence, ..Script::default() };
    assert_fault(script, PASSWORD, SOON, &["is silent", "reset: it stays silent", "opening the port again"]);
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
fn a_wrong_password_ends_the_run_at_once() {
    assert_fault(Script::default(), "wrong battery", Duration::from_secs(15), &["does not accept the password"]);
}

#[test]
fn a_network_that_is_not_there_is_named() {
    let script = Script { air: Air::NoNetwork, ..Script::default() };
    assert_fault(script, PASSWORD, SOON, &["finds no Wi-Fi network `bench`"]);
}

#[test]
fn a_network_without_dhcp_is_named() {
    let script = Script { without_dhcp: true, ..Script::default() };
    assert_fault(script, PASSWORD, Duration::from_secs(90), &["no DHCP server gave it an address"]);
}

#[test]
fn a_cable_pulled_in_the_run_is_named() {
    let script = Script { pulled_after: Some(Duration::from_secs(2)), ..Script::default() };
    let bench = Bench::new(script);
    let (output, took) = bench.run("lossy-wifi", &[]);
    let told = format!("{}{}", errors(&output), String::from_utf8_lossy(&output.stdout));
    assert_ne!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("vanished while in use"), "{told}");
    assert!(took < Duration::from_secs(60), "{took:?}");
}

#[test]
fn a_board_that_answers_after_the_port_was_opened_again_is_used_and_the_recovery_told() {
    let script = Script { start: Start::Silence, recovers_after: Some(2), ..Script::default() };
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
        timed(harness(path).args(["boards", "--verify", "--format", "json", "--port"]).arg(bench.board.port())).0
    };
    let output = verify(bench.state.path());
    assert!(output.status.success(), "{}", errors(&output));
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(list["boards"][0]["quarantine"], serde_json::Value::Null);
}
