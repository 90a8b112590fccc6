//! The recovery ladder, rung by rung: each is climbed once those below it have failed, and each can bring a board back.

mod bench_c3;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bench_c3::device::{Cure, Script, Scripted, Start};
use bench_c3::rom::{Chip, Flaw, Rom};
use bench_c3::{Usb, elf, errors, harness, timed, without_root_s_rights};

/// A kernel that lets a USB device go and finds it again when it is told to through sysfs.
struct Kernel {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Kernel {
    /// Watches over `usb`; a device that was enumerated again leaves `cure` behind, if there is one. Its port is nobody's for
    /// `unowned` then.
    fn watch(usb: Usb, cure: Option<PathBuf>, unowned: Duration) -> Self {
        std::fs::write(usb.authorized(), "1\n").expect("room");
        let stop = Arc::<AtomicBool>::default();
        let theirs = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut there = true;
            while !theirs.load(Ordering::Relaxed) {
                let told = std::fs::read_to_string(usb.authorized()).unwrap_or_default();
                match (there, told.trim()) {
                    (true, "0") => usb.disconnect(),
                    (false, "1") => {
                        cure.iter().for_each(|cure| touch(cure));
                        usb.permit(0o000);
                        usb.connect();
                        std::thread::sleep(unowned);
                        usb.permit(0o666);
                    }
                    _ => {}
                }
                there = match told.trim() {
                    "0" => false,
                    "1" => true,
                    // Caught while it is written.
                    _ => there,
                };
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Plugs `port` into a made-up USB, shows that to `command`, and watches over it as [`Kernel::watch`] does.
fn plug_in(
    port: &Path,
    state: &Path,
    command: &mut Command,
    cure: Option<PathBuf>,
    unowned: Duration,
) -> Kernel {
    let usb = Usb::plug(state, port);
    usb.show(command);
    Kernel::watch(usb, cure, unowned)
}

fn touch(path: &Path) {
    std::fs::write(path, "").expect("room");
}

/// A board that is silent until `cure` is there.
fn silent_until(cure: &Path) -> Scripted {
    let script = Script { start: Start::Silence, cure: Some(Cure::File(cure.into())), ..Script::default() };
    Scripted::start(script, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9))
}

/// A hardware map with a power-cycle command that leaves `cure` behind.
fn map_power_cycle(state: &Path, cure: &Path) {
    let map = format!(
        "[[board]]\nmac = '{}'\npower-cycle = ['touch', '{}']\n",
        Usb::MAC.to_ascii_lowercase(),
        cure.display()
    );
    std::fs::write(state.join("boards.toml"), map).expect("room");
}

fn verify(state: &Path) -> Command {
    let mut verify = harness(state);
    verify.args(["boards", "--verify", "--mac", Usb::MAC]);
    verify
}

/// That `told` has `parts`, one behind the other.
#[track_caller]
fn assert_in_order(told: &str, parts: &[&str]) {
    let mut rest = told;
    for part in parts {
        let at =
            rest.find(part).unwrap_or_else(|| panic!("`{part}` is missing, or not in its place: {told}"));
        rest = &rest[at + part.len()..];
    }
}

#[test]
fn a_board_that_neither_reset_nor_port_helps_comes_back_when_usb_is_enumerated_anew() {
    let state = tempfile::tempdir().expect("a folder");
    let cure = state.path().join("cured");
    let board = silent_until(&cure);
    // Its power would be cycled next: that is not done to a board that is back.
    let cycled = state.path().join("cycled");
    map_power_cycle(state.path(), &cycled);
    let mut command = verify(state.path());
    let _kernel = plug_in(board.port(), state.path(), &mut command, Some(cure), Duration::ZERO);
    let (output, _) = timed(&mut command);
    let told = errors(&output);
    assert!(output.status.success(), "{told}");
    let parts = [
        "recovery: reset: it stays silent",
        "recovery: opening the port again: it stays silent",
        "recovery: USB re-enumeration: the port came back after",
        "the board answers",
    ];
    assert_in_order(&told, &parts);
    assert!(!told.contains("power cycle") && !cycled.exists(), "{told}");
}

#[test]
fn a_board_that_nothing_else_helps_comes_back_when_its_power_is_cycled() {
    let state = tempfile::tempdir().expect("a folder");
    let cure = state.path().join("cured");
    let board = silent_until(&cure);
    map_power_cycle(state.path(), &cure);
    let mut command = verify(state.path());
    let _kernel = plug_in(board.port(), state.path(), &mut command, None, Duration::ZERO);
    let (output, _) = timed(&mut command);
    let told = errors(&output);
    assert!(output.status.success(), "{told}");
    let parts = [
        "recovery: reset: it stays silent",
        "recovery: opening the port again: it stays silent",
        "recovery: USB re-enumeration: the port came back after",
        "it stays silent",
        "recovery: power cycle: `touch",
        "ran, the port was there after",
        "the board answers",
    ];
    assert_in_order(&told, &parts);
}

#[test]
fn a_board_that_no_rung_brings_back_is_named_with_all_of_them() {
    let state = tempfile::tempdir().expect("a folder");
    let board = silent_until(&state.path().join("never"));
    map_power_cycle(state.path(), &state.path().join("cycled"));
    let mut command = verify(state.path());
    let usb = Usb::plug(state.path(), board.port());
    usb.show(&mut command);
    // Not this user's to write to.
    std::fs::create_dir(usb.authorized()).expect("room");
    let (output, _) = timed(&mut command);
    let told = errors(&output);
    assert_eq!(output.status.code(), Some(3), "{told}");
    let (_, error) = told.split_once("is silent; tried:").expect("the error, behind what was told meanwhile");
    let parts = [
        "reset: it stays silent",
        "opening the port again: it stays silent",
        "USB re-enumeration: cannot write",
        "power cycle: `touch",
        "it stays silent",
        "remedy: check that it has power",
    ];
    assert_in_order(error, &parts);
}

#[test]
fn a_loader_that_answers_after_a_power_cycle_gets_its_image() {
    let state = tempfile::tempdir().expect("a folder");
    let (cure, firmware) = (state.path().join("cured"), state.path().join("firmware.elf"));
    std::fs::write(&firmware, elf::application(2_000, 7)).expect("room");
    let rom = Rom::start(Chip { flaw: Flaw::DeafUntil(cure.clone()), ..Chip::default() });
    map_power_cycle(state.path(), &cure);
    let mut command = harness(state.path());
    command.args(["flash", "--board", "esp32c3", "--loader", "rom", "--mac", Usb::MAC, "--firmware"]);
    command.arg(&firmware);
    let _kernel = plug_in(rom.port(), state.path(), &mut command, None, Duration::ZERO);
    let (output, _) = timed(&mut command);
    let told = errors(&output);
    assert!(output.status.success(), "{told}");
    let parts = [
        "recovery: opening the port again: closed and opened; the same again",
        "recovery: USB re-enumeration: the port came back after",
        "the same again",
        "recovery: power cycle: `touch",
        "then it worked",
    ];
    assert_in_order(&told, &parts);
    assert!(rom.written() > 2_000);
}

#[test]
fn a_port_that_is_not_yet_this_user_s_after_its_enumeration_is_waited_for() {
    let state = tempfile::tempdir().expect("a folder");
    let cure = state.path().join("cured");
    let board = silent_until(&cure);
    let mut command = verify(state.path());
    let _kernel = plug_in(board.port(), state.path(), &mut command, Some(cure), Duration::from_secs(1));
    let (output, _) = without_root_s_rights(move || timed(&mut command));
    let told = errors(&output);
    assert!(output.status.success(), "{told}");
    assert_in_order(&told, &["recovery: USB re-enumeration: the port came back after", "the board answers"]);
}

#[test]
fn a_port_that_goes_with_the_reset_is_opened_when_it_is_back() {
    let state = tempfile::tempdir().expect("a folder");
    let cure = state.path().join("cured");
    let board = silent_until(&cure);
    let usb = Usb::plug(state.path(), board.port());
    let mut command = harness(state.path());
    command.args(["boards", "--verify", "--port"]).arg(usb.tty());
    let locks = state.path().join("locks");
    let thread = std::thread::spawn(move || {
        while !std::fs::read_dir(&locks).is_ok_and(|mut locks| locks.next().is_some()) {
            std::thread::sleep(Duration::from_millis(20));
        }
        // The board is chosen; it is given up on after five seconds, or at once if its port has gone by then.
        std::thread::sleep(Duration::from_secs(1));
        usb.disconnect();
        std::thread::sleep(Duration::from_secs(6));
        touch(&cure);
        usb.connect();
    });
    let (output, _) = timed(&mut command);
    thread.join().expect("no panic");
    let told = errors(&output);
    assert!(output.status.success(), "{told}");
    assert_in_order(
        &told,
        &["recovery: opening the port again: the port came back after", "the board answers"],
    );
}
