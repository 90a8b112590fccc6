//! `harness simulate`: the device client in random worlds, against quinn-proto, in virtual time.

use std::fmt::Write as _;
use std::sync::Mutex;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use simulate::world::{Summary, run_many, trace_world};

use super::{Exit, Failure, Format, print};

/// Arguments of `harness simulate`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How many worlds.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Seed of the first world; the others follow.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Threads; as many as the machine has cores unless given.
    #[arg(long)]
    threads: Option<usize>,
    /// Play one world and print everything that happens in it.
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "from", "threads"])]
    trace: Option<u64>,
}

/// Failing worlds named on the terminal; the seeds of all are in the JSON.
const FAILURES_SHOWN: usize = 20;

/// Plays the worlds; one that fails fails the command.
pub fn run(arguments: &Arguments, format: Format) -> Result<Exit, Failure> {
    if let Some(seed) = arguments.trace {
        let (verdict, plan, lines) = trace_world(seed);
        print(&format!("{}\n{plan:#?}\n{verdict:#?}\n", lines.join("\n")));
        return Ok(Exit::from_verdict(verdict.failure.is_none()));
    }
    let end = arguments.from.checked_add(arguments.seeds).ok_or_else(|| {
        Failure::usage(miette::miette!(
            "--from {} --seeds {} passes the last seed",
            arguments.from,
            arguments.seeds
        ))
    })?;
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let bar = Mutex::new(bar(arguments.seeds));
    let summary = run_many(arguments.from..end, arguments.threads.unwrap_or_else(cores), |progress| {
        if let Ok(bar) = bar.lock() {
            bar.set_position(progress.done);
        }
    });
    if let Ok(bar) = bar.lock() {
        bar.finish_and_clear();
    }
    print(&match format {
        Format::Human => human(&summary),
        Format::Json => json_text(&summary),
    });
    Ok(Exit::from_verdict(summary.failures.is_empty()))
}

fn bar(worlds: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{elapsed_precise} [{bar:40}] {pos}/{len} worlds, {per_sec}");
    // Hidden by itself where stderr is no terminal.
    ProgressBar::new(worlds).with_style(style.expect("the template is valid"))
}

fn human(summary: &Summary) -> String {
    let mut text = String::new();
    for verdict in summary.failures.iter().take(FAILURES_SHOWN) {
        let cause = verdict.failure.as_deref().unwrap_or("no cause given");
        let _ =
            writeln!(text, "seed {} failed: {cause}\n  again: harness simulate --trace {0}", verdict.seed);
    }
    let _ = writeln!(
        text,
        "{} worlds, {} failed; {:.0} worlds/s; {} sessions ({} resumed, {} with 0-RTT), {} messages, {} key updates, \
         {} paths validated; hash {:016x}",
        summary.worlds,
        summary.failures.len(),
        summary.rate(),
        summary.sessions,
        summary.resumed,
        summary.early,
        summary.messages,
        summary.key_updates,
        summary.paths_validated,
        summary.hash
    );
    text
}

fn json_text(summary: &Summary) -> String {
    let failures: Vec<_> = summary
        .failures
        .iter()
        .map(|verdict| json!({ "seed": verdict.seed, "cause": verdict.failure }))
        .collect();
    let value = json!({
        "worlds": summary.worlds,
        "failures": failures,
        "worlds_per_second": summary.rate(),
        "sessions": summary.sessions,
        "resumed": summary.resumed,
        "early": summary.early,
        "messages": summary.messages,
        "hash": format!("{:016x}", summary.hash),
    });
    format!("{value}\n")
}
