//! `harness flash --board esp32c3` against an emulated ROM loader on a pseudo-terminal.

mod bench_c3;

use std::path::Path;
use std::time::Duration;

use bench_c3::rom::{Chip, Flaw, Rom, assert_holds};
use bench_c3::{elf, errors, harness, timed, without_root_s_rights};

/// A folder with a firmware of `len` bytes of code in it.
fn bench(len: usize) -> (tempfile::TempDir, std::path::PathBuf) {
    let state = tempfile::tempdir().expect("a folder");
    let firmware = state.path().join("firmware.elf");
    std::fs::write(&firmware, elf::application(len, 7)).expect("room");
    (state, firmware)
}

fn flash(state: &Path, firmware: &Path, rom: &Rom, more: &[&str]) -> std::process::Command {
    let mut command = harness(state);
    command.args(["flash", "--board", "esp32c3", "--format", "json", "--port"]).arg(rom.port());
    command.arg("--firmware").arg(firmware).args(more);
    command
}

#[track_caller]
fn assert_identical(rom: &Rom, firmware: &Path) {
    assert_holds(&rom.flash(), firmware);
}

#[test]
fn the_rom_loader_gets_a_byte_identical_image_and_then_nothing_more() {
    let (state, firmware) = bench(20_000);
    let rom = Rom::start(Chip::default());
    let (output, _) = timed(&mut flash(state.path(), &firmware, &rom, &["--loader", "rom"]));
    assert!(output.status.success(), "{}", errors(&output));
    assert_identical(&rom, &firmware);
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(told["flashed"]["chip"]["chip"], "esp32c3");
    assert_eq!(told["flashed"]["chip"]["revision"], serde_json::json!([0, 4]));
    assert_eq!(told["flashed"]["chip"]["mac"], "02:00:4d:51:c3:01");
    assert_eq!(told["flashed"]["skipped"], 0);

    // The same again: every region has the right MD5 already.
    let written = rom.written();
    let (output, _) = timed(&mut flash(state.path(), &firmware, &rom, &["--loader", "rom"]));
    assert!(output.status.success(), "{}", errors(&output));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((told["flashed"]["written"].as_u64(), rom.written()), (Some(0), written));
}

#[test]
fn a_smaller_flash_gets_a_partition_that_ends_with_it_or_nothing() {
    let (state, firmware) = bench(20_000);
    let rom = Rom::start(Chip { flash_len: 2 << 20, ..Chip::default() });
    let (output, _) = timed(&mut flash(state.path(), &firmware, &rom, &["--loader", "rom"]));
    assert!(output.status.success(), "{}", errors(&output));
    let held = rom.flash();
    // An entry of the table: magic, type, subtype, offset, length, name.
    let entries = held[0x8000..0x8c00].chunks(32).filter(|entry| entry.starts_with(&[0xaa, 0x50]));
    let number = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let ends: Vec<u32> = entries.map(|entry| number(&entry[4..8]) + number(&entry[8..12])).collect();
    assert_eq!(ends.iter().max(), Some(&(2 << 20)), "{ends:x?}");

    let ready = state.path().join("ready.bin");
    let mut bytes = vec![0; 3 << 20];
    (bytes[0], bytes[12]) = (0xe9, 5);
    std::fs::write(&ready, bytes).expect("room");
    let written = rom.written();
    let (output, _) = timed(&mut flash(state.path(), &ready, &rom, &["--loader", "rom"]));
    let told = errors(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("takes 3145728 B, 2097152 B are there for it"), "{told}");
    assert_eq!(rom.written(), written, "nothing of it");
}

#[test]
fn the_stub_gets_a_byte_identical_image_compressed() {
    let (state, firmware) = bench(20_000);
    let rom = Rom::start(Chip::default());
    let (output, _) = timed(&mut flash(state.path(), &firmware, &rom, &["--loader", "stub"]));
    assert!(output.status.success(), "{}", errors(&output));
    assert_identical(&rom, &firmware);
}

#[test]
fn a_flash_that_does_not_hold_what_is_written_is_named() {
    let (state, firmware) = bench(4_000);
    let rom = Rom::start(Chip { flaw: Flaw::StuckBit, ..Chip::default() });
    let (output, _) = timed(&mut flash(state.path(), &firmware, &rom, &["--loader", "rom"]));
    let errors = errors(&output);
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert!(errors.contains("flash verify failed at 0x0") && errors.contains("worn"), "{errors}");
}

#[test]
fn another_chip_is_named_and_left_alone() {
    let (state, firmware) = bench(4_000);
    let rom = Rom::start(Chip { id: 13, ..Chip::default() });
    let (output, _) = timed(&mut flash(state.path(), &firmware, &rom, &["--loader", "rom"]));
    let errors = errors(&output);
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert!(errors.contains("wrong chip") && errors.contains("esp32c6"), "{errors}");
    assert!(errors.contains("help: name another board with --mac or --port"), "{errors}");
    assert!(rom.flash().iter().all(|&byte| byte == 0xff));
}

#[test]
fn a_loader_that_does_not_answer_ends_within_the_time_limit() {
    for flaw in [Flaw::Deaf, Flaw::Noise] {
        let (state, firmware) = bench(4_000);
        let rom = Rom::start(Chip { flaw, ..Chip::default() });
        let (output, took) = timed(&mut flash(state.path(), &firmware, &rom, &["--limit", "20"]));
        let errors = errors(&output);
        assert_eq!(output.status.code(), Some(3), "{errors}");
        assert!(errors.contains("does not answer") && errors.contains("hold BOOT"), "{errors}");
        assert!(errors.contains("opening the port again"), "the ladder is told: {errors}");
        assert!(took < Duration::from_secs(25), "{took:?}");
    }
}

#[test]
fn a_cable_pulled_while_flashing_is_named() {
    let (state, firmware) = bench(200_000);
    let rom = Rom::start(Chip { flaw: Flaw::PulledAfter(60_000), ..Chip::default() });
    let (output, took) = timed(&mut flash(state.path(), &firmware, &rom, &["--loader", "rom"]));
    let errors = errors(&output);
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert!(errors.contains("vanished while in use"), "{errors}");
    assert!(errors.contains("help: check cable, hub and supply"), "{errors}");
    assert!(took < Duration::from_secs(60), "{took:?}");
}

#[test]
fn a_firmware_that_is_none_for_this_chip_is_named_before_the_board_is_touched() {
    let (state, _) = bench(100);
    let rom = Rom::start(Chip::default());
    let cases: [(&str, Vec<u8>, &str, &str); 3] = [
        ("other.elf", elf::for_another_board(), "nothing in it lies in the chip's flash", "`harness build"),
        ("text.elf", b"int main(void)".to_vec(), "neither an ELF nor an image", "`harness build"),
        ("large.elf", elf::application(5 << 20, 1), "B are there for it", "`harness size"),
    ];
    for (name, bytes, part, remedy) in cases {
        let file = state.path().join(name);
        std::fs::write(&file, bytes).expect("room");
        let (output, _) = timed(&mut flash(state.path(), &file, &rom, &[]));
        let errors = errors(&output);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains(part) && errors.contains(&format!("help: {remedy}")), "{errors}");
    }
    assert_eq!(rom.written(), 0);
}

#[test]
fn a_port_that_another_program_has_open_is_named_with_that_program() {
    let (state, firmware) = bench(100);
    let rom = Rom::start(Chip::default());
    let port = std::fs::File::open(rom.port()).expect("a port");
    rustix::fs::flock(&port, rustix::fs::FlockOperation::LockExclusive).expect("ours");
    let (output, _) = timed(&mut flash(state.path(), &firmware, &rom, &[]));
    let errors = errors(&output);
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert!(
        errors.contains("is busy") && errors.contains(&format!("process {}", std::process::id())),
        "{errors}"
    );
    assert!(errors.contains("help: close the other program"), "{errors}");
}

#[test]
fn a_port_that_this_user_may_not_open_is_named_with_the_udev_rule() {
    use std::os::unix::fs::PermissionsExt as _;
    let (state, firmware) = bench(100);
    let rom = Rom::start(Chip::default());
    std::fs::set_permissions(rom.port(), std::fs::Permissions::from_mode(0o000)).expect("ours");
    let mut command = flash(state.path(), &firmware, &rom, &[]);
    let (output, took) = without_root_s_rights(move || timed(&mut command));
    let errors = errors(&output);
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert!(errors.contains("may not be opened by this user"), "{errors}");
    assert!(errors.contains("usermod -aG") && errors.contains("303a"), "{errors}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert_eq!(rom.written(), 0);
}

#[test]
fn without_a_board_or_with_a_missing_port_the_remedy_is_told() {
    let (state, firmware) = bench(100);
    let mut none = harness(state.path());
    none.args(["flash", "--board", "esp32c3", "--firmware"]).arg(&firmware);
    let (output, _) = timed(&mut none);
    let told = errors(&output);
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains("no board") && told.contains("carries data"), "{told}");

    let mut missing = harness(state.path());
    missing.args(["flash", "--board", "esp32c3", "--port", "/dev/ttyNOPE", "--firmware"]).arg(&firmware);
    let (output, _) = timed(&mut missing);
    let told = errors(&output);
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(
        told.contains("there is no port /dev/ttyNOPE") && told.contains("help: check the cable"),
        "{told}"
    );
}

#[test]
fn a_bench_of_several_boards_asks_for_a_name_and_takes_the_first_free_one_when_any_will_do() {
    let (state, firmware) = bench(2_000);
    let (one, two) = (Rom::start(Chip::default()), Rom::start(Chip::default()));
    let map = format!(
        "[[board]]\nname = 'one'\nport = '{}'\nquarantine = 'a loose pin'\n[[board]]\nname = 'two'\nport = '{}'\n",
        one.port().display(),
        two.port().display()
    );
    std::fs::write(state.path().join("boards.toml"), map).expect("room");
    let run = |more: &[&str]| {
        let mut command = harness(state.path());
        command
            .args(["flash", "--board", "esp32c3", "--loader", "rom", "--firmware"])
            .arg(&firmware)
            .args(more);
        timed(&mut command).0
    };
    let output = run(&[]);
    let told = errors(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("2 boards and none named") && told.contains("a loose pin"), "{told}");
    assert!(told.contains("help: name one with --mac MAC, --port PATH, or --name NAME"), "{told}");
    let output = run(&["--any"]);
    assert!(output.status.success(), "{}", errors(&output));
    assert_eq!(one.written(), 0, "the board in quarantine was passed over");
    assert!(two.written() > 0);
    let output = run(&["--name", "one"]);
    assert!(output.status.success(), "{}", errors(&output));
    assert!(one.written() > 0, "a board that is named is taken");
}

#[test]
fn a_chip_that_is_asked_tells_what_it_is_and_the_list_remembers() {
    let (state, _) = bench(100);
    let rom = Rom::start(Chip::default());
    let list = |more: &[&str]| {
        let mut command = harness(state.path());
        command.args(["boards", "--port"]).arg(rom.port()).args(more);
        let (output, _) = timed(&mut command);
        assert!(output.status.success(), "{}", errors(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(list(&[]).contains("chip unknown"));
    let asked = list(&["--probe"]);
    assert!(asked.contains("02:00:4d:51:c3:01") && asked.contains("chip esp32c3 v0.4, 4MB flash"), "{asked}");
    assert!(list(&[]).contains("chip esp32c3 v0.4"), "remembered");
    assert_eq!(rom.written(), 0);
}
