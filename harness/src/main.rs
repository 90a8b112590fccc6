//! The command line of the harness.

fn main() -> std::process::ExitCode {
    harness::command::main()
}
