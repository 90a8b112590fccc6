//! The command line of the harness, and what it runs itself as: the host board, and the keeper of an emulator.

use harness::board::qemu::tether;

fn main() -> std::process::ExitCode {
    let mut arguments = std::env::args();
    match arguments.nth(1).as_deref() {
        Some(device_host::SUBCOMMAND) => device_host::run(arguments),
        Some(tether::SUBCOMMAND) => tether::run(arguments),
        _ => harness::command::main(),
    }
}
