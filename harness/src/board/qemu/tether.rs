//! Runs a program that dies with its parent: `harness tether PROGRAM ARGUMENTS`.
//!
//! A killed harness cannot clean up, but the kernel can: the program inherits the parent-death signal set here.

use std::env::Args;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "tether";

/// Exit status when the program cannot be run, as shells have it.
const NOT_RUN: u8 = 127;

/// Becomes the program named by `arguments`; returns only if that fails.
pub fn run(mut arguments: Args) -> ExitCode {
    let Some(program) = arguments.next() else {
        eprintln!("{SUBCOMMAND}: no program to run");
        return ExitCode::from(NOT_RUN);
    };
    // Only Linux has the signal; elsewhere a killed harness leaves its emulator.
    let tied = set_parent_process_death_signal(Some(Signal::KILL));
    if tied.is_ok() && getppid().is_none_or(|parent| parent.is_init()) {
        // The parent died before the signal was set.
        return ExitCode::from(NOT_RUN);
    }
    let error = Command::new(&program).args(arguments).exec();
    eprintln!("cannot run {program}: {error}");
    ExitCode::from(NOT_RUN)
}
