//! The command line of the harness, and the host board it runs itself as.

fn main() -> std::process::ExitCode {
    let mut arguments = std::env::args();
    if arguments.nth(1).as_deref() == Some(device_host::SUBCOMMAND) {
        return device_host::run(arguments);
    }
    harness::command::main()
}
