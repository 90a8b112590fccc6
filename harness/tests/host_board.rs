//! The host board as the harness runs it: boot, commands, clock, faults, reset.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use device::control::{self, Answer, BlobKind, Fault, Phase, Refusal, Report, Request, ResetReason, frame};
use harness::board::{Board, BoardError, HostMachine, Options, Output};

const MAC: [u8; 6] = [0x02, 0x4d, 0x51, 77, 0, 2];
const LIMIT: Duration = Duration::from_secs(10);

fn machine() -> HostMachine {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_harness"));
    HostMachine::with_program(program, MAC).expect("a temporary directory").seeded(7)
}

async fn board() -> Board {
    Board::start(machine(), Options::new()).await.expect("the board starts")
}

#[tokio::test]
async fn it_boots_and_reports_its_memory() {
    let mut board = board().await;
    assert_eq!(board.boot().board, "host");
    assert_eq!(board.boot().reset, ResetReason::PowerOn);
    let memory = board.wait_for("memory", LIMIT, |report| match report {
        Report::Memory(memory) => Some(*memory),
        _ => None,
    });
    let memory = memory.await.expect("reported at boot");
    assert_eq!(memory.phase, Phase::Boot);
    assert!(memory.client_bytes > 0 && memory.net_bytes > 0 && memory.agent_bytes > 0, "{memory:?}");
}

#[tokio::test]
async fn its_clock_is_learnt_from_pings() {
    let mut board = board().await;
    let clock = board.synchronise(20).await.expect("pings").clone();
    let options_epoch_is_recent = clock.host_us(0).expect("synchronised");
    // The board booted after the epoch and within the boot limit.
    assert!((0.0..10e6).contains(&options_epoch_is_recent), "{options_epoch_is_recent}");
    assert!(clock.uncertainty_us().expect("synchronised") < 50_000);
}

#[tokio::test]
async fn a_command_without_settings_is_refused_with_a_remedy() {
    let mut board = board().await;
    let error = board.command(Request::Connect).await.unwrap_err();
    assert!(
        matches!(error, BoardError::Refused { request: "Connect", refusal: Refusal::NotConfigured }),
        "{error}"
    );
}

#[tokio::test]
async fn a_certificate_larger_than_the_board_stores_is_refused() {
    let mut board = board().await;
    let error = board.send_blob(BlobKind::TrustAnchor, &[0x30; 4000]).await.unwrap_err();
    assert!(matches!(error, BoardError::Refused { refusal: Refusal::BlobTooLarge { .. }, .. }), "{error}");
}

#[tokio::test]
async fn a_panic_is_told_with_its_message() {
    let mut board = board().await;
    assert_eq!(board.command(Request::Crash(Fault::Panic)).await.expect("answered first"), Answer::Done);
    let death = loop {
        match board.next(LIMIT).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it should be dead by now"),
            Err(BoardError::Died(death)) => break *death,
            Err(error) => panic!("{error}"),
        }
    };
    assert!(death.headline().contains("asked to panic"), "{death:?}");
    assert!(death.panic.expect("a report").contains("live"), "the backtrace names the main loop");
    assert_eq!(death.status.as_deref(), Some("exit status: 101"));
}

#[tokio::test]
async fn a_stack_overflow_and_exhausted_memory_are_told_apart() {
    for (fault, words) in
        [(Fault::StackOverflow, "overflowed its stack"), (Fault::Exhaustion, "memory allocation")]
    {
        let mut board = board().await;
        board.command(Request::Crash(fault)).await.expect("answered first");
        let error = board.wait_for("nothing", LIMIT, |_| None::<()>).await.unwrap_err();
        let BoardError::Died(death) = error else { panic!("{error}") };
        assert!(death.errors.contains(words), "{death:?}");
    }
}

#[tokio::test]
async fn a_hang_is_a_time_limit_and_a_reset_cures_it() {
    let options = Options { command_limit: Duration::from_millis(300), ..Options::new() };
    let mut board = Board::start(machine(), options).await.expect("the board starts");
    board.command(Request::Crash(Fault::Hang)).await.expect("answered first");
    let started = Instant::now();
    let error = board.command(Request::Announce).await.unwrap_err();
    assert!(matches!(error, BoardError::Timeout { what: "Announce", .. }), "{error}");
    assert!(started.elapsed() < LIMIT);
    board.reset().await.expect("it starts again");
    board.command(Request::Announce).await.expect("it answers again");
}

#[tokio::test]
async fn a_reboot_by_command_says_so() {
    let mut board = board().await;
    board.command(Request::Reboot).await.expect("answered first");
    let reset = board.wait_for("the boot report", LIMIT, |report| match report {
        Report::Boot(boot) => Some(boot.reset),
        _ => None,
    });
    assert_eq!(reset.await.expect("it boots again"), ResetReason::Software);
    board.command(Request::Announce).await.expect("it answers again");
}

#[tokio::test]
async fn a_killed_board_is_dead_for_every_caller() {
    let mut board = board().await;
    let commander = board.commander();
    board.kill().await;
    let error = board.command(Request::Announce).await.unwrap_err();
    assert!(matches!(error, BoardError::Died(_)), "{error}");
    let error = commander.command(Request::Announce).await.unwrap_err();
    assert!(matches!(error, BoardError::Died(_)), "{error}");
}

#[tokio::test]
async fn nothing_is_left_when_the_board_is_dropped() {
    let machine = machine();
    let board = Board::start(machine, Options::new()).await.expect("the board starts");
    let commander = board.commander();
    drop(board);
    let gone = async {
        while commander.command(Request::Announce).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.expect("the process ends");
}

/// As when the harness is killed: nobody is left to kill the board, and it does not look at its console.
#[test]
fn a_hanging_board_ends_when_its_harness_is_gone() {
    let directory = tempfile::tempdir().expect("a directory");
    let listen = |name| UnixListener::bind(directory.path().join(name)).expect("a free path");
    let (nic, console) = (listen("nic"), listen("console"));
    let mut board = Command::new(env!("CARGO_BIN_EXE_harness"))
        .current_dir(directory.path())
        .args([device_host::SUBCOMMAND, "--nic", "nic", "--console", "console"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("runs");
    let (_nic, (mut console, _)) = (nic.accept().expect("connects"), console.accept().expect("connects"));
    let command = control::Command { sequence: 1, request: Request::Crash(Fault::Hang) };
    let mut bytes = [0; frame::FRAME_MAX];
    let len = frame::encode(&command, &mut bytes).expect("fits");
    console.write_all(&bytes[..len]).expect("it listens");
    // It hangs once the answer is out: boot, memory, link, answer are four frames of two zeros each.
    let (mut zeros, mut byte) = (0, [0]);
    while zeros < 8 {
        console.read_exact(&mut byte).expect("it answers");
        zeros += usize::from(byte[0] == 0);
    }
    assert!(board.try_wait().expect("a child").is_none(), "it hangs");
    drop(board.stdin.take());
    let started = Instant::now();
    while board.try_wait().expect("a child").is_none() {
        assert!(started.elapsed() < LIMIT, "it is still there");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn a_program_that_is_no_board_is_a_start_error_with_its_words() {
    let machine = HostMachine::with_program(PathBuf::from("/bin/false"), MAC).expect("a directory");
    let error = Board::start(machine, Options::new()).await.err().expect("it is no board");
    assert!(matches!(&error, BoardError::Start { what, .. } if what.contains("ended at once")), "{error}");
}

#[tokio::test]
async fn the_console_log_holds_both_sides_and_no_secret() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("console.log");
    let options = Options { log: Some(path.clone()), ..Options::new() };
    let mut board = Board::start(machine(), options).await.expect("the board starts");
    board.send_blob(BlobKind::ClientKey, b"a secret of 32 bytes, no more xx").await.expect("stored");
    board.kill().await;
    let ended = board.wait_for("nothing", LIMIT, |_| None::<()>).await;
    assert!(matches!(ended, Err(BoardError::Died(_))));
    let log = std::fs::read_to_string(path).expect("written");
    for part in ["Boot", "> #", "Blob", "Done", "console closed"] {
        assert!(log.contains(part), "{part} is not in {log}");
    }
    assert!(!log.contains("secret"));
    // As bytes in a list, as `Debug` would print them.
    assert!(!log.contains("97, 32, 115"));
}

#[tokio::test]
async fn the_time_of_reports_is_the_harness_s() {
    let mut board = board().await;
    let before = Instant::now();
    board.command(Request::Snapshot).await.expect("answered");
    let mut last = 0;
    while let Some(output) = board.next(Duration::from_millis(200)).await.expect("alive") {
        assert!(output.at_us >= last, "in order");
        last = output.at_us;
        if let Output::Report(Report::Stats(_)) = output.what {
            return;
        }
        assert!(before.elapsed() < LIMIT);
    }
    panic!("a snapshot has statistics");
}
