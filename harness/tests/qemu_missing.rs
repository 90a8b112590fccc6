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
        .env("DOCKER_HOST", "unix:///there/is/no/engine.sock")
        .output()
        .expect("the harness runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success());
    assert!(said.contains("lacks QEMU") && said.contains("apt-get install qemu-system-misc"), "{said}");
    assert!(said.contains("lacks Docker") && said.contains("install and start Docker"), "{said}");
    assert!(said.contains("lacks RISC-V compiler") && said.contains("rustup target add"), "{said}");
}

#[test]
fn a_missing_compiler_is_told_with_its_remedy_where_the_emulator_is_there() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a directory");
    let emulator = folder.path().join("qemu-system-riscv32");
    // Enough of one to answer what it is: nothing is emulated before there is a firmware.
    std::fs::write(&emulator, "#!/bin/sh\necho 'QEMU emulator version 7.2.0'\n").expect("it is written");
    std::fs::set_permissions(&emulator, std::fs::Permissions::from_mode(0o755)).expect("it may be run");
    let output = Command::new(env!("CARGO_BIN_EXE_harness"))
        .args(["scenario", "hello", "--board", "qemu"])
        .env("PATH", folder.path())
        .env_remove("RUSTC")
        .env_remove("CARGO")
        .output()
        .expect("the harness runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("rustup target add riscv32imc-unknown-none-elf"), "{said}");
}
