//! A bench with more than one board, other programs and impatient people: what is a board's fault, what is told of those that
//! cannot be used, and with which exit code.

mod bench_c3;

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use bench_c3::bench::Bench;
use bench_c3::device::{Script, Scripted, Start};
use bench_c3::pty::Pty;
use bench_c3::rom::{Chip, Flaw, Rom};
use bench_c3::{Usb, elf, errors, harness, timed};
use harness::board::esp32c3::history::{Archive, What};

#[track_caller]
fn assert_ends(output: &Output, code: i32, parts: &[&str]) {
    let told = errors(output);
    assert_eq!(output.status.code(), Some(code), "{told}");
    for part in parts {
        assert!(told.contains(part), "`{part}` is missing in: {told}");
    }
}

fn flash(state: &Path, port: &Path, more: &[&str]) -> Output {
    let firmware = state.join("firmware.elf");
    std::fs::write(&firmware, elf::application(2_000, 7)).expect("room");
    let mut command = harness(state);
    command.args(["flash", "--board", "esp32c3", "--loader", "rom", "--port"]).arg(port);
    timed(command.arg("--firmware").arg(&firmware).args(more)).0
}

/// What is noted of the board on `port`: a firmware written, and a fault.
fn noted(state: &Path, port: &Path) -> Vec<Option<String>> {
    let history = Archive::at(&state.join("state/boards")).read(&port.display().to_string());
    let flashed = history.0.into_iter().filter(|happening| happening.what == What::Flash);
    flashed.map(|happening| happening.fault).collect()
}

#[test]
fn only_what_is_the_board_s_fault_is_held_against_it_when_it_is_flashed() {
    let state = tempfile::tempdir().expect("a folder");
    let (other_chip, deaf) = (
        Rom::start(Chip { id: 13, ..Chip::default() }),
        Rom::start(Chip { flaw: Flaw::Deaf, ..Chip::default() }),
    );
    assert_ends(&flash(state.path(), other_chip.port(), &[]), 3, &["wrong chip"]);
    assert_eq!(noted(state.path(), other_chip.port()), []);
    // Less time than it takes any board.
    assert_ends(&flash(state.path(), deaf.port(), &["--limit", "1"]), 3, &["took longer than 1s"]);
    assert_eq!(noted(state.path(), deaf.port()), []);
}

#[test]
fn a_board_that_falls_silent_in_a_run_has_it_noted() {
    let bench = Bench::new(Script { hangs_after: Some(Duration::from_secs(2)), ..Script::default() });
    let (output, _) = bench.run("lossy-wifi", &[]);
    assert_ends(&output, 1, &["no answer to"]);
    let fault = bench.history().into_iter().find_map(|happening| happening.fault);
    assert_eq!(fault.as_deref(), Some("it fell silent in a run"));
}

#[test]
fn times_that_nobody_can_mean_are_refused() {
    let state = tempfile::tempdir().expect("a folder");
    for seconds in ["0", "86401", "18446744073709551615"] {
        let monitor = timed(harness(state.path()).args(["monitor", "--for", seconds])).0;
        assert_ends(&monitor, 2, &["--for", "1..=86400"]);
        let flash = timed(harness(state.path()).args(["flash", "--board", "esp32c3", "--limit", seconds])).0;
        assert_ends(&flash, 2, &["--limit", "1..=86400"]);
    }
}

/// A map of boards on these ports.
fn write_map(state: &Path, ports: &[&Path]) {
    let entry = |port: &&Path| format!("[[board]]\nport = '{}'\n", port.display());
    std::fs::write(state.join("boards.toml"), ports.iter().map(entry).collect::<String>()).expect("room");
}

#[test]
fn boards_that_cannot_be_locked_are_not_said_to_be_in_use() {
    let state = tempfile::tempdir().expect("a folder");
    let (one, two) = (Pty::open(), Pty::open());
    write_map(state.path(), &[&one.path(), &two.path()]);
    let mut command = harness(state.path());
    let output = timed(command.env("HARNESS_LOCKS", "/proc/x").args(["monitor", "--any", "--for", "1"])).0;
    assert_ends(&output, 3, &["cannot lock the board", "/proc/x"]);
}

#[test]
fn a_bench_without_boards_fails_its_check_and_one_whose_boards_are_at_work_does_not() {
    let state = tempfile::tempdir().expect("a folder");
    for try_them in ["--verify", "--probe"] {
        assert_ends(&timed(harness(state.path()).args(["boards", try_them])).0, 3, &["no board:"]);
    }
    let board = Pty::open();
    write_map(state.path(), &[&board.path()]);
    let mut holder = harness(state.path());
    let mut holder = holder.args(["monitor", "--for", "60"]).spawn().expect("the harness was built");
    let is_held = || {
        let list = timed(harness(state.path()).arg("boards")).0;
        String::from_utf8_lossy(&list.stdout).contains("in use by")
    };
    let start = Instant::now();
    while !is_held() {
        assert!(start.elapsed() < Duration::from_secs(60), "the monitor never took the board");
    }
    let all = timed(harness(state.path()).args(["boards", "--verify"])).0;
    let named = timed(harness(state.path()).args(["boards", "--verify", "--port"]).arg(board.path())).0;
    holder.kill().expect("it runs");
    holder.wait().expect("it ends");
    assert_ends(&all, 0, &[]);
    assert_ends(&named, 3, &["in use by process"]);
}

#[test]
fn ctrl_c_ends_a_run_whose_board_is_being_brought_up() {
    let bench = Bench::new(Script { start: Start::Silence, ..Script::default() });
    let map =
        format!("[[board]]\nport = '{}'\npower-cycle = ['sleep', '25']\n", bench.board.port().display());
    std::fs::write(bench.state.path().join("boards.toml"), map).expect("room");
    let mut command = bench.scenario("hello", &[]);
    command.stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
    let mut run = command.spawn().expect("the harness was built");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(run.stderr.take().expect("piped")));
    let line = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("recovery: reset")));
    assert!(line.is_some(), "the ladder was not climbed");
    let id = run.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().is_ok_and(|status| status.success()));
    let told: Vec<String> = lines.map_while(Result::ok).collect();
    run.wait().expect("it ends");
    let told = told.join("\n");
    assert!(told.contains("interrupted") && !told.contains("power cycle"), "{told}");
    assert!(!told.contains("is silent; tried"), "{told}");
}

#[test]
fn what_a_demo_cannot_use_is_refused_before_a_board_is_touched() {
    let state = tempfile::tempdir().expect("a folder");
    let demo = |more: &[&str]| {
        let mut demo = harness(state.path());
        // Nothing is there, and nothing is asked of it.
        demo.args(["demo", "--no-flash", "--port", "/dev/ttyNOPE", "--broker"]).args(more);
        demo.env("HARNESS_WIFI_SSID", "bench").env("HARNESS_WIFI_PASSWORD", "correct horse");
        timed(&mut demo).0
    };
    for option in [["--listen", "127.0.0.1"], ["--advertise", "192.0.2.1"], ["--adapter", "log:esp32-quic"]] {
        let output = demo(&[&["quic://192.0.2.1:1"][..], &option].concat());
        assert_ends(&output, 2, &[option[0], "has no effect here"]);
    }
    for host in ["localhost", "127.0.0.1"] {
        let output = demo(&[&format!("quic://{host}:1")]);
        assert_ends(&output, 2, &["the board would look for a broker at", host]);
    }
    let output = demo(&["mqtts://192.0.2.1:1", "--ca", "no-such.pem"]);
    assert_eq!(output.status.code(), Some(2), "{}", errors(&output));
    assert!(errors(&output).contains("no-such.pem"), "{}", errors(&output));
}

#[test]
fn an_address_that_is_not_this_machine_s_is_refused_before_a_board_is_touched() {
    let bench = Bench::new(Script::default());
    let run = |more: &[&str]| {
        let mut command = harness(bench.state.path());
        command.args(["scenario", "hello", "--board", "esp32c3", "--no-flash", "--port", "/dev/ttyNOPE"]);
        command.env("HARNESS_WIFI_SSID", "bench").env("HARNESS_WIFI_PASSWORD", "correct horse");
        timed(command.args(more)).0
    };
    assert_ends(&run(&["--listen", "0.0.0.0"]), 2, &["no address that the board can be told", "--advertise"]);
    assert_ends(&run(&["--listen", "192.0.2.77"]), 3, &["no address that the board can reach", "192.0.2.77"]);
}

#[test]
fn ctrl_c_in_a_usb_enumeration_leaves_the_device_to_its_driver() {
    let state = tempfile::tempdir().expect("a folder");
    let nowhere = std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 9);
    let board = Scripted::start(Script { start: Start::Silence, ..Script::default() }, nowhere);
    let usb = Usb::plug(state.path(), board.port());
    std::fs::write(usb.authorized(), "1").expect("room");
    let mut command = harness(state.path());
    command.args(["boards", "--verify", "--mac", Usb::MAC]);
    usb.show(&mut command);
    let mut run = command.spawn().expect("the harness was built");
    let switch = || std::fs::read_to_string(usb.authorized()).unwrap_or_default();
    let start = Instant::now();
    while switch() != "0" {
        assert!(start.elapsed() < Duration::from_secs(60), "the ladder was not climbed");
        std::thread::sleep(Duration::from_millis(2));
    }
    let id = run.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().is_ok_and(|status| status.success()));
    assert_eq!(run.wait().expect("it ends").code(), Some(130));
    assert_eq!(switch(), "1");
}

#[test]
fn what_a_firmware_file_leaves_without_effect_is_refused() {
    let state = tempfile::tempdir().expect("a folder");
    let nowhere = Path::new("/dev/ttyNOPE");
    let of_elf = flash(state.path(), nowhere, &["--address", "0x10000"]);
    assert_ends(&of_elf, 2, &["--address has no effect on an ELF", "image (.bin)"]);
    let ready = state.path().join("ready.bin");
    let mut bytes = vec![0; 4096];
    (bytes[0], bytes[12]) = (0xe9, 5);
    std::fs::write(&ready, bytes).expect("room");
    for option in ["--partition-table", "--bootloader"] {
        let mut command = harness(state.path());
        command.args(["flash", "--board", "esp32c3", "--port", "/dev/ttyNOPE", "--firmware"]).arg(&ready);
        assert_ends(&timed(command.args([option, "x"])).0, 2, &[option, "has no effect on a ready image"]);
    }
}
