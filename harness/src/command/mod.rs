//! The command line: `cargo run -p harness -- ...`.
//!
//! Libraries emit events and return data, this module draws. stdout is data, stderr is talk.

mod boards;
mod broker;
mod build;
mod compare;
mod cost;
mod demo;
mod doctor;
mod energy;
mod exit;
mod flash;
mod fleet;
mod interrupt;
mod list;
mod merge;
mod monitor;
mod progress;
mod prompt;
mod replay;
mod report;
mod scenario;
mod secrets;
mod simulate;
mod size;
mod tethered;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

pub use exit::Exit;

use crate::report::terminal::Colour;

/// Hardware-in-the-loop tests and benchmarks for MQTT over QUIC on the ESP32-C3.
#[derive(Debug, Parser)]
#[command(name = "harness", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 passed, 1 an expectation failed, 2 usage or scenario file, 3 environment \
                          (board, broker, Docker, port), 101 a bug in the harness.";

/// Options of every command.
#[derive(Clone, Debug, clap::Args)]
pub struct Common {
    /// Shape of what goes to stdout.
    #[arg(long, value_enum, default_value_t = Format::Human, global = true)]
    pub format: Format,
    /// Say more on stderr; twice for packets and frames.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
}

/// Shape of what goes to stdout.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Format {
    /// Tables and sentences.
    Human,
    /// One JSON document; of `scenario all`, one a line for each scenario.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a scenario and write its report.
    Scenario(scenario::Arguments),
    /// Run many devices against one broker, and write their report.
    Fleet(fleet::Arguments),
    /// Make one report of those of a fleet's shards.
    Merge(merge::Arguments),
    /// The difference of two runs, with a verdict that respects their intervals.
    Compare(compare::Arguments),
    /// Judge a recorded run again and print it, or write its report anew.
    Report(report::Arguments),
    /// The device client in random worlds, in virtual time.
    Simulate(simulate::Arguments),
    /// The scenarios, or with --metrics what their expectations may name.
    List(list::Arguments),
    /// Serve the embedded broker until Ctrl-C or SIGTERM.
    Broker(broker::Arguments),
    /// What this machine has and lacks, each with its remedy.
    Doctor,
    /// Build a board's firmware.
    Build(build::Arguments),
    /// The ESP32-C3 boards that are plugged in.
    Boards(boards::Arguments),
    /// Write a firmware to a tethered board.
    Flash(flash::Arguments),
    /// The console of a tethered board, with decoded backtraces and reset keys.
    Monitor(monitor::Arguments),
    /// Join Wi-Fi, connect, subscribe, publish, and tell what came back and the heap at each step.
    Demo(demo::Arguments),
    /// Lay a power analyser's trace over a recorded run.
    Energy(energy::Arguments),
    /// Instructions, stack and bytes of the client's handshakes and messages on RV32IMC, against their budgets.
    Cost(cost::Arguments),
    /// Flash and RAM of a firmware by section, crate and layer, against its budgets.
    Size(size::Arguments),
    /// Shell completions on stdout.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Reads the command line, runs it and turns its outcome into the process's exit code.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_logging(arguments.common.verbose);
    match run(arguments) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            talk(&format!("{:?}", failure.report));
            failure.exit.into()
        }
    }
}

/// A command that could not do its work.
pub struct Failure {
    exit: Exit,
    report: miette::Report,
}

impl Failure {
    /// The environment lacks something, or broke: exit 3.
    pub fn environment(error: impl Into<miette::Report>) -> Self {
        Self { exit: Exit::Environment, report: error.into() }
    }

    /// The command line or a scenario file is wrong: exit 2.
    pub fn usage(error: impl Into<miette::Report>) -> Self {
        Self { exit: Exit::Usage, report: error.into() }
    }
}

fn run(arguments: Arguments) -> Result<Exit, Failure> {
    match arguments.command {
        Command::Scenario(scenario) => scenario::run(&scenario, arguments.common.format),
        Command::Fleet(fleet) => fleet::run(&fleet, arguments.common.format),
        Command::Merge(merge) => merge::run(&merge, arguments.common.format),
        Command::Compare(compare) => compare::run(&compare, arguments.common.format),
        Command::Report(report) => report::run(&report, arguments.common.format),
        Command::Simulate(simulate) => simulate::run(&simulate, arguments.common.format),
        Command::List(list) => list::run(&list, arguments.common.format),
        Command::Broker(broker) => broker::run(&broker),
        Command::Doctor => doctor::run(arguments.common.format),
        Command::Build(build) => build::run(&build),
        Command::Boards(boards) => boards::run(&boards, arguments.common.format),
        Command::Flash(flash) => flash::run(&flash, arguments.common.format),
        Command::Monitor(monitor) => monitor::run(&monitor),
        Command::Demo(demo) => demo::run(&demo),
        Command::Energy(energy) => energy::run(&energy, arguments.common.format),
        Command::Cost(cost) => cost::run(&cost, arguments.common.format),
        Command::Size(size) => size::run(&size, arguments.common.format),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "harness", &mut script);
            print(&String::from_utf8_lossy(&script));
            Ok(Exit::Passed)
        }
    }
}

/// Writes `text` to stdout; a reader that has gone away is no error.
pub(crate) fn print(text: &str) {
    use std::io::Write as _;
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Writes a line to stderr; a reader that has gone away is no error.
pub(crate) fn talk(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Colour for a person at a terminal who did not ask to go without (no-color.org).
pub(crate) fn colour() -> Colour {
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
    if terminal && std::env::var_os("NO_COLOR").is_none() { Colour::Ansi } else { Colour::None }
}

fn start_logging(verbose: u8) {
    let default = match verbose {
        0 => "harness=warn",
        1 => "harness=info",
        _ => "harness=debug,device=debug",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| default.into());
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(
            std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none(),
        )
        .without_time()
        // A log that cannot be written is no reason to end a run.
        .log_internal_errors(false)
        .try_init();
}

/// Seconds that somebody waits for: one to a day.
fn seconds() -> impl clap::builder::TypedValueParser<Value = u64> {
    clap::value_parser!(u64).range(1..=86_400)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
