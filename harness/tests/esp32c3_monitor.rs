//! `harness monitor` on a scripted board, and the decoding of what crashing firmware says.

mod bench_c3;

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;
use std::time::Duration;

use bench_c3::device::{Script, Scripted, Start};
use bench_c3::pty::Pty;
use bench_c3::{elf, errors, harness, timed};
use harness::board::esp32c3::rom::decode_crash;
use harness::firmware::elf::Elf;

fn board(script: Script) -> (tempfile::TempDir, Scripted) {
    let nowhere = std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 9);
    (tempfile::tempdir().expect("a folder"), Scripted::start(script, nowhere))
}

#[test]
fn the_monitor_shows_text_until_its_time_is_over() {
    let (state, board) = board(Script { start: Start::Foreign, ..Script::default() });
    let mut monitor = harness(state.path());
    monitor.args(["monitor", "--reset", "--for", "2", "--port"]).arg(board.port());
    let (output, took) = timed(&mut monitor);
    assert!(output.status.success(), "{}", errors(&output));
    let shown = String::from_utf8_lossy(&output.stdout);
    let lines = "rst:0x1 (POWERON),boot:0xc (SPI_FAST_FLASH_BOOT)\nI (312) main_task: Hello world!\n";
    assert!(shown.contains(lines), "{shown}");
    assert!((Duration::from_secs(2)..Duration::from_secs(20)).contains(&took), "{took:?}");
}

#[test]
fn its_keys_reset_the_board_tell_what_cannot_be_done_and_end_it() {
    let (state, board) = board(Script::default());
    let mut keyboard = Pty::open();
    let mut monitor = harness(state.path());
    monitor.args(["monitor", "--for", "60", "--port"]).arg(board.port());
    monitor.stdin(keyboard.terminal()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut monitor = monitor.spawn().expect("the harness was built");
    let mut lines = BufReader::new(monitor.stdout.take().expect("piped")).lines().map_while(Result::ok);
    keyboard.say(b"r");
    // Its first life began without words: these come of the reset, and its boot report behind them.
    assert!(lines.any(|line| line.starts_with("ESP-ROM:esp32c3")), "no reset");
    assert!(lines.any(|line| line.starts_with("< Boot(")), "no boot report");
    keyboard.say(b"dq");
    let mut errors = String::new();
    monitor.stderr.take().expect("piped").read_to_string(&mut errors).expect("text");
    assert!(monitor.wait().expect("it ends").success(), "{errors}");
    assert!(errors.contains("it has no control lines") && errors.contains("remedy:"), "{errors}");
}

/// A crash report of ours, and one as ESP-IDF writes it.
fn reports() -> [String; 2] {
    let (fault, back) = (elf::FAULT, elf::RETURN);
    [
        format!(
            "CRASH cause=load access fault mcause=0x5 pc={fault:#010x} sp=0x3fc9a000 ra={back:#010x} address=0x0\r\n\
             CRASH stack 0x3fc9b000 {fault:#010x}\r\nCRASH end\r\n"
        ),
        format!(
            "Guru Meditation Error: Core  0 panic'ed (Load access fault). Exception was unhandled.\r\n\
             MEPC    : {fault:#010x}  RA      : {back:#010x}  SP      : 0x3fc9a000\r\n"
        ),
    ]
}

/// The frames of either report: where it stands, and who called. That the stack holds the first address again tells nothing:
/// no call comes before it.
fn frames() -> [String; 2] {
    [format!("{:#010x} read_register", elf::FAULT), format!("{:#010x} connect_to_broker", elf::RETURN)]
}

#[test]
fn the_monitor_puts_functions_beside_the_addresses_of_a_crash() {
    let state = tempfile::tempdir().expect("a folder");
    let firmware = state.path().join("firmware.elf");
    std::fs::write(&firmware, elf::with_functions()).expect("room");
    for report in reports() {
        let mut pty = Pty::open();
        let mut monitor = harness(state.path());
        monitor.args(["monitor", "--for", "2", "--elf"]).arg(&firmware).arg("--port").arg(pty.path());
        let speaker = std::thread::spawn(move || {
            // The port is opened, and what came before forgotten, within that time or the next.
            for _ in 0..6 {
                std::thread::sleep(Duration::from_millis(500));
                pty.say(b"I (312) main_task: all is well\r\n");
                pty.say(report.as_bytes());
                pty.say(b"ESP-ROM:esp32c3-api1-20210207\r\n");
            }
        });
        let (output, _) = timed(&mut monitor);
        speaker.join().expect("no panic");
        assert!(output.status.success(), "{}", errors(&output));
        let shown = String::from_utf8_lossy(&output.stdout);
        let below: Vec<&str> = shown
            .lines()
            .skip_while(|line| !line.contains(" : 0x") && !line.contains(" pc="))
            .skip(1)
            .collect();
        let expected: Vec<String> = frames().iter().map(|frame| format!("    {frame}")).collect();
        assert_eq!(below.get(..2), Some(&[expected[0].as_str(), expected[1].as_str()][..]), "{shown}");
        assert!(!below[2].starts_with("    "), "{shown}");
    }
}

#[test]
fn a_crash_is_decoded_with_the_place_where_it_happened_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let firmware = folder.path().join("firmware.elf");
    std::fs::write(&firmware, elf::with_functions()).expect("room");
    let elf = Elf::open(&firmware).expect("an ELF");
    for report in reports() {
        let decoded = decode_crash(Some(&elf), &format!("hello\r\n{report}"));
        let found: Vec<&str> = decoded.lines().filter_map(|line| line.strip_prefix("  ")).collect();
        assert_eq!(found, frames(), "{decoded}");
    }
}
