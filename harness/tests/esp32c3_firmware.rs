//! `harness scenario --firmware FILE`: a firmware goes through the ROM's loader onto the board and is run there, ours or one that
//! is read by its log.

mod bench_c3;

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bench_c3::bench::{Bench, free_port};
use bench_c3::device::Script;
use bench_c3::pty::Pty;
use bench_c3::rom::{self, Chip, assert_holds};
use bench_c3::{elf, errors, harness, timed};
use harness::board::esp32c3::history::Archive;
use serde_json::Value;

/// A log as the proof of concept writes it, with the figures of its README; written for this test. The board says it again
/// and again, as one that is reset would.
const FOREIGN_LOG: &str = "ESP-ROM:esp32c3-api1-20210207\r\n\
    I (3210) main: Free heap before task: 189452 bytes\r\n\
    I (3400) quic_demo: Initializing QUIC client\r\n\
    I (3480) quic_demo: Free heap after QUIC init: 64792 bytes\r\n\
    I (4600) quic_demo: QUIC connection established\r\n\
    I (4610) quic_demo: Calling MQTT_Connect\r\n\
    I (5320) quic_demo: MQTT_Connect returned: 0 (MQTTSuccess)\r\n\
    I (5330) quic_demo: Free heap after MQTT connect: 39564 bytes\r\n";

/// The log of a firmware that nobody has heard of.
const UNHEARD_LOG: &str = "ESP-ROM:esp32c3-api1-20210207\r\n\
    dialling\r\nroom: 70123 left (idle)\r\nlink is secure\r\nwelcome\r\nroom: 51234 left (connected)\r\nthat is all\r\n";

/// Its rules.
const UNHEARD_RULES: &str = "firmware = 'unheard-of 1.0'\n\
    [[rule]]\nline = '^dialling'\nmeans = 'connecting'\n\
    [[rule]]\nline = '^link is secure'\nmeans = 'handshake-complete'\n\
    [[rule]]\nline = '^welcome'\nmeans = 'connack'\n\
    [[rule]]\nline = '^room: (?<bytes>\\d+) left \\((?<phase>\\w+)\\)'\nmeans = 'heap-free'\n\
    [[rule]]\nline = '^that is all'\nmeans = 'end'\n";

/// A board that says the same again and again, as one that is reset would.
struct Foreign {
    port: std::path::PathBuf,
    /// Where it connects to: it was built to.
    server: SocketAddrV4,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Option<Vec<u8>>>,
}

/// What is on the board at first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flash {
    Loaded,
    Empty,
}

impl Foreign {
    fn start(flash: Flash, log: &'static str) -> Self {
        let mut pty = Pty::open();
        let (port, stop) = (pty.path(), Arc::<AtomicBool>::default());
        let (theirs, server) = (Arc::clone(&stop), free_port());
        let radio = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
        let thread = std::thread::spawn(move || {
            let loaded = match flash {
                Flash::Loaded => Vec::new(),
                Flash::Empty => rom::load(&mut pty, Chip::default(), &theirs)?,
            };
            while !theirs.load(Ordering::Relaxed) {
                // Refused while nobody listens there.
                let _ = radio.send_to(b"a first packet, more or less", server);
                pty.say(log.as_bytes());
                std::thread::sleep(Duration::from_millis(500));
            }
            Some(loaded)
        });
        Self { port, server, stop, thread }
    }

    /// Ends it; what was written to its flash, if anything was.
    fn end(self) -> Option<Vec<u8>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic")
    }

    /// Runs a scenario with these expectations, and `more` on the command line.
    fn run(&self, state: &Path, expect: &str, more: &[&str]) -> Output {
        write_scenario(state, expect);
        timed(self.command(state, self.server).args(more)).0
    }

    fn command(&self, state: &Path, listen: SocketAddrV4) -> Command {
        let mut command = harness(state);
        command.args(["scenario", "foreign.toml", "--board", "esp32c3", "--repeat", "1", "--format", "json"]);
        command.args(["--listen", &listen.to_string(), "--port"]).arg(&self.port);
        command
    }
}

/// A scenario with these expectations, and little time.
fn write_scenario(state: &Path, expect: &str) {
    let scenario = format!(
        "name = 'foreign'\nquestion = 'How long does it take?'\nanswer = '{{heap.free_min}}'\nreference = false\n\
         expect = [{expect}]\n[limits]\nboot = '1 s'\nconnect = '1 s'\nworkload = '2 s'\n"
    );
    std::fs::write(state.join("foreign.toml"), scenario).expect("room");
}

#[track_caller]
fn assert_passed(output: &Output) {
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}\n{stdout}", errors(output));
}

#[test]
fn a_foreign_firmware_is_read_by_its_log() {
    let state = tempfile::tempdir().expect("a folder");
    let board = Foreign::start(Flash::Loaded, FOREIGN_LOG);
    let expect =
        "'connect.time.full.max <= 1930 ms', 'connect.time.full.max >= 1910 ms', 'heap.free_min = 39564 B'";
    let output = board.run(state.path(), expect, &["--no-flash", "--adapter", "log:esp32-quic"]);
    let server = board.server;
    board.end();
    assert_passed(&output);
    let told = errors(&output);
    assert!(told.contains(&format!("has to connect to {server} over quic")), "{told}");
}

#[test]
fn a_firmware_that_nobody_has_heard_of_is_flashed_and_read_by_the_rules_in_a_file() {
    let state = tempfile::tempdir().expect("a folder");
    let (firmware, rules) = (state.path().join("unheard.elf"), state.path().join("unheard.toml"));
    std::fs::write(&firmware, elf::application(20_000, 5)).expect("room");
    std::fs::write(&rules, UNHEARD_RULES).expect("room");
    let board = Foreign::start(Flash::Empty, UNHEARD_LOG);
    let adapter = format!("log:{}", rules.display());
    let firmware_path = firmware.to_str().expect("plain text");
    let output = board.run(
        state.path(),
        "'heap.free_min = 51234 B', 'connections = 1'",
        &["--firmware", firmware_path, "--adapter", &adapter],
    );
    assert_holds(&board.end().expect("it was loaded"), &firmware);
    assert_passed(&output);
    let runs = std::fs::read_dir(state.path().join("reports/foreign")).expect("a run");
    let run = runs.flatten().map(|entry| entry.path().join("report.json")).find(|path| path.exists());
    let text = std::fs::read_to_string(run.expect("a report")).expect("written");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    let told = &report["record"]["environment"]["board"];
    assert_eq!(told["firmware"], "unheard-of 1.0");
    assert_eq!(told["chip"], "esp32c3 v0.4", "as it told the flasher");
    assert!(told["footprint"]["flash_bytes"].as_u64() > Some(20_000), "{}", told["footprint"]);
    let trial = &report["record"]["trials"][0];
    let phases: Vec<_> = trial["memory"].as_array().expect("a list").iter().map(|at| &at["phase"]).collect();
    assert_eq!(phases, ["idle", "connected"]);
    assert!(trial["notes"].to_string().contains("messages were not counted"), "{}", trial["notes"]);
}

#[test]
fn a_firmware_that_tells_of_a_connection_past_the_proxy_is_told_where_it_has_to_connect() {
    let state = tempfile::tempdir().expect("a folder");
    let board = Foreign::start(Flash::Loaded, FOREIGN_LOG);
    // It was built for another address.
    let elsewhere = free_port();
    write_scenario(state.path(), "'connections = 1'");
    let output =
        timed(board.command(state.path(), elsewhere).args(["--no-flash", "--adapter", "log:esp32-quic"])).0;
    board.end();
    let told = errors(&output);
    assert_eq!(output.status.code(), Some(3), "{told}");
    let parts = [
        format!("the firmware tells of a connection, but nothing came to the proxy at {elsewhere}"),
        format!(
            "remedy: build the firmware to connect to {elsewhere}, or name the address and port it was built for with --listen"
        ),
    ];
    for part in parts {
        assert!(told.contains(&part), "`{part}` is missing in: {told}");
    }
}

#[test]
fn a_foreign_firmware_that_does_not_run_is_named_for_what_the_board_does_instead() {
    let download = "rst:0x1 (POWERON),boot:0x4 (DOWNLOAD(USB/UART0/1))\r\nwaiting for download\r\n";
    let empty = "rst:0x1 (POWERON),boot:0xc (SPI_FAST_FLASH_BOOT)\r\ninvalid header: 0xffffffff\r\n";
    for (log, part, remedy) in [
        (download, "is in download mode", "release BOOT"),
        (empty, "has no firmware that boots: invalid header", "harness flash"),
        ("\u{1}\u{1c}\u{e9}\u{7f}\u{2}A\u{5}\u{c}\u{f8}", "garbage on", "speed"),
        ("", "is silent", "check that it has power"),
    ] {
        let state = tempfile::tempdir().expect("a folder");
        let board = Foreign::start(Flash::Loaded, log);
        let adapter = ["--no-flash", "--adapter", "log:esp32-quic"];
        let output = board.run(state.path(), "'connections = 1'", &adapter);
        let id = board.port.display().to_string();
        board.end();
        let told = errors(&output);
        assert_eq!(output.status.code(), Some(3), "{told}");
        assert!(told.contains(part) && told.contains(remedy), "`{part}`, `{remedy}`: {told}");
        let history = Archive::at(&state.path().join("state/boards")).read(&id).0;
        let fault = history.iter().find_map(|happening| happening.fault.as_deref());
        // That another firmware was not there yet is not the board's fault.
        assert_eq!(fault.is_some(), log != empty, "{fault:?}");
    }
}

#[test]
fn rules_that_cannot_be_used_and_a_log_that_they_do_not_know_are_named() {
    let state = tempfile::tempdir().expect("a folder");
    let board = Foreign::start(Flash::Loaded, UNHEARD_LOG);
    let wrong = state.path().join("wrong.toml");
    std::fs::write(
        &wrong,
        "firmware = 'x'\n[[rule]]\nline = 'a'\nmeans = 'connecting'\n[[rule]]\nline = 'b'\nmeans = 'hello'\n",
    )
    .expect("room");
    let wrong = format!("log:{}", wrong.display());
    let cases: [(&[&str], i32, &[&str]); 5] = [
        (&["--no-flash", "--adapter", "log:missing.toml"], 2, &["missing.toml", "No such file"]),
        (
            &["--no-flash", "--adapter", &wrong],
            2,
            &["wrong.toml: rule 2: `hello` is no meaning; choose one of: connecting,"],
        ),
        (
            &["--no-flash", "--adapter", "esp32-quic"],
            2,
            &["`esp32-quic` is no adapter; there is log:RULES.toml"],
        ),
        (&["--adapter", "log:esp32-quic"], 2, &["--adapter needs --firmware FILE", "say --no-flash"]),
        (
            &["--no-flash", "--adapter", "log:esp32-quic"],
            1,
            &[
                "none of the rules for emqx/ESP32-QUIC",
                "knew a line within 4s",
                "remedy: compare the console log",
            ],
        ),
    ];
    for (more, code, parts) in cases {
        let output = board.run(state.path(), "'connections = 1'", more);
        let told = errors(&output);
        assert_eq!(output.status.code(), Some(code), "{told}");
        for part in parts {
            assert!(told.contains(part), "`{part}` is missing in: {told}");
        }
    }
    board.end();
}

#[test]
fn our_firmware_is_flashed_and_then_run() {
    let bench = Bench::new(Script { loads: true, ..Script::default() });
    let firmware = bench.state.path().join("firmware.elf");
    std::fs::write(&firmware, elf::application(20_000, 6)).expect("room");
    let mut command = bench.flashing_scenario("hello", &["--firmware"]);
    let (output, _) = timed(command.arg(&firmware));
    assert_passed(&output);
    assert_holds(&bench.board.loaded(), &firmware);
    let report = bench.json("hello");
    assert_eq!(report["record"]["environment"]["board"]["chip"], "esp32c3 v0.4");
    assert!(bench.report("hello", "console.log").contains("ESP-ROM:esp32c3"), "it was started");
}
