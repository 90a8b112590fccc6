//! A core that hangs: where it stands is asked of its debug unit, and told. A stand-in answers for the unit.

mod bench_c3;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bench_c3::bench::Bench;
use bench_c3::device::{Script, Scripted, Start};
use bench_c3::{elf, errors};
use device::control::{Fault as Crash, Request};
use harness::board::esp32c3::debugger::Debugger;
use harness::board::esp32c3::recovery::Means;
use harness::board::esp32c3::{Fault, TetheredMachine};
use harness::board::{Board, BoardError, Options};
use harness::firmware::elf::Elf;

/// A debug unit that has halted the core of [`elf::with_functions`] in the inner of its functions.
fn unit() -> Debugger {
    Debugger::Unit(Arc::new(|| {
        let (fault, back) = (elf::FAULT, elf::RETURN);
        Ok(format!(
            "CRASH cause=halted by the debugger mcause=0 pc={fault:#010x} ra={back:#010x} sp=0x3fc9a000\nCRASH stack 00000000\n"
        ))
    }))
}

/// A board that does what `script` says, its machine with [`unit`], and the folder of the ELF.
fn bench(script: Script) -> (Scripted, TetheredMachine, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let firmware = folder.path().join("firmware.elf");
    std::fs::write(&firmware, elf::with_functions()).expect("room");
    let elf = Elf::open(&firmware).expect("an ELF");
    let board = Scripted::start(script, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9));
    let machine = TetheredMachine::at(board.port(), None, Means::default())
        .with_elf(Some(Arc::new(elf)))
        .with_debugger(unit());
    (board, machine, folder)
}

#[tokio::test]
async fn a_board_that_hangs_is_told_with_the_place_where_its_core_stands() {
    let (_board, machine, folder) = bench(Script::default());
    let log = folder.path().join("console.log");
    let options = Options {
        boot_limit: Duration::from_secs(60),
        command_limit: Duration::from_millis(500),
        log: Some(log.clone()),
        ..Options::new()
    };
    let mut board = Board::start(machine, options).await.expect("the board starts");
    board.command(Request::Crash(Crash::Hang)).await.expect("answered first");
    // Nobody asks it anything: its silence is enough.
    let error = board.wait_for("nothing", Duration::from_secs(60), |_| None::<()>).await.unwrap_err();
    let BoardError::Hung { place, .. } = &error else { panic!("{error}") };
    let functions = ["read_register", "connect_to_broker"];
    assert_eq!(place.backtrace.len(), functions.len(), "{place:?}");
    for (frame, function) in place.backtrace.iter().zip(functions) {
        assert!(frame.contains(function), "{place:?}");
        let log = std::fs::read_to_string(&log).expect("written");
        assert!(log.contains(&format!("! at {frame}")), "{log}");
    }
    assert!(error.to_string().contains("read_register"), "{error}");
}

#[tokio::test]
async fn where_a_silent_core_stands_is_told_with_each_rung_of_the_ladder() {
    let (_board, machine, _folder) = bench(Script { start: Start::Silence, ..Script::default() });
    let told = Arc::<Mutex<Vec<String>>>::default();
    let heard = Arc::clone(&told);
    let mut machine = machine.with_listener(Arc::new(move |attempt| {
        heard.lock().expect("not poisoned").push(attempt.to_string());
    }));
    let fault = machine.bring_up().await.err().expect("it stays silent");
    assert!(matches!(fault, Fault::Silent { .. }), "{fault}");
    let told = told.lock().expect("not poisoned");
    assert!(told.first().is_some_and(|first| first.starts_with("reset: it stays silent; at ")), "{told:?}");
    assert!(told.iter().all(|attempt| attempt.contains("read_register")), "{told:?}");
    assert!(fault.to_string().contains("read_register"), "{fault}");
}

#[test]
fn a_run_whose_board_hangs_ends_and_tells_what_it_takes_to_see_where() {
    let bench = Bench::new(Script::default());
    let text = include_str!("../../scenarios/hello.toml");
    let file = bench.state.path().join("hang.toml");
    let step = "\n[[step]]\ndo = \"crash-board\"\nfault = \"hang\"\nat = \"100 ms\"\n";
    let text = text.replace("name = \"hello\"", "name = \"hang\"");
    std::fs::write(&file, format!("{text}{step}")).expect("room");
    let (output, _) = bench.run(file.to_str().expect("plain text"), &[]);
    let told = format!("{} {}", errors(&output), String::from_utf8_lossy(&output.stdout));
    assert_eq!(output.status.code(), Some(1), "{told}");
    for part in
        ["the board hangs: no answer to", "remedy: the console log shows what it did last", "feature `probe`"]
    {
        assert!(told.contains(part), "`{part}` is missing in: {told}");
    }
}
