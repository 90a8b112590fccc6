//! A bench without silicon: an emulated ROM loader and a scripted board, each behind a pseudo-terminal.
#![allow(dead_code, reason = "each test uses the part it needs")]

pub mod device;
pub mod elf;
pub mod pty;
pub mod rom;

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The harness with its own locks and histories, so that no test meets another's.
pub fn harness(state: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
    command.env("HARNESS_LOCKS", state.join("locks")).env("HARNESS_STATE", state.join("state"));
    command.env("HARNESS_SYS_CLASS_TTY", state.join("no-ports")).env_remove("HARNESS_BOARDS");
    command.env_remove("HARNESS_WIFI_SSID").env_remove("HARNESS_WIFI_PASSWORD");
    command.current_dir(state).stdin(Stdio::null());
    command
}

/// Runs `command` and says how long it took.
pub fn timed(command: &mut Command) -> (Output, Duration) {
    let start = Instant::now();
    let output = command.output().expect("the harness was built");
    (output, start.elapsed())
}

/// What it wrote to stderr, in one line: long messages are wrapped for a person.
pub fn errors(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    text.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ")
}
