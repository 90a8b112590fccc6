//! Without QEMU: exit 3 with the remedy, before anything is built.

use std::process::Command;

#[test]
fn a_missing_emulator_is_told_with_its_remedy() {
    let empty = tempfile::tempdir().expect("a directory");
    let output = Command::new(env!("CARGO_BIN_EXE_harness"))
        .args(["scenario", "hello", "--board", "qemu"])
        .env("PATH", empty.path())
        .output()
        .expect("the harness runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(
        said.contains("qemu-system-riscv32") && said.contains("apt-get install qemu-system-misc"),
        "{said}"
    );
}

#[test]
fn doctor_finds_what_is_missing_first() {
    let empty = tempfile::tempdir().expect("a directory");
    let output = Command::new(env!("CARGO_BIN_EXE_harness"))
        .arg("doctor")
        .env("PATH", empty.path())
        .output()
        .expect("the harness runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success());
    assert!(said.contains("lacks QEMU") && said.contains("apt-get install qemu-system-misc"), "{said}");
    assert!(said.contains("lacks Docker") && said.contains("install Docker Engine"), "{said}");
    assert!(said.contains("lacks RISC-V compiler") && said.contains("rustup target add"), "{said}");
}
