//! `harness fleet`: many devices against one broker.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use tokio_util::sync::CancellationToken;

use super::interrupt::interrupt;
use super::replay::CommandLine;
use super::{Exit, Failure, Format, colour, print, talk};
use crate::broker::{BrokerSpec, sweep_leftovers};
use crate::fleet::{DEVICES_MAX, Fleet, FleetError, ORIGIN, Options, Progress, Shard, Storm, source};
use crate::measure::record::{Blame, Ending};
use crate::report::{Folder, Report, terminal};
use crate::scenario::{Scenario, library};

/// Arguments of `harness fleet`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Devices of the whole fleet, all shards together.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    devices: u32,
    /// embedded | auto (EMQX where Docker has it, or else embedded) | emqx[:TAG] | docker:IMAGE | compose |
    /// quic://HOST:PORT
    #[arg(long, default_value = "embedded")]
    broker: BrokerSpec,
    /// Root certificate (PEM) that an external broker is verified against.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Run part I of N only (from 1), or `job/N` for the part that an indexed Kubernetes Job names.
    #[arg(long, value_name = "I/N", default_value = "1/1")]
    shard: Shard,
    /// Devices that start per second, all shards together.
    #[arg(long, value_name = "PER SECOND", default_value_t = 100.0, value_parser = rate)]
    ramp: f64,
    /// Devices that connect for the first time at once, at most: a slow machine ramps more slowly.
    #[arg(long, value_name = "COUNT", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    connecting: u32,
    /// Messages each device publishes.
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=MESSAGES_MAX))]
    messages: u32,
    /// From one message of a device to its next, such as 500ms or 2s.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = time)]
    interval: Duration,
    /// Payload bytes of each message.
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    size: u16,
    /// MQTT quality of service.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// What happens to the broker after the workload; `none` for one that runs elsewhere.
    #[arg(long, value_enum)]
    storm: Option<Storm>,
    /// How long the broker stays away.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = time)]
    down: Duration,
    /// Take the network of this scenario (a name or a file) in place of a quiet one with 5 ms each way.
    #[arg(long, value_name = "SCENARIO")]
    network: Option<String>,
    /// Threads that drive devices.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// The seed all others derive from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where reports go.
    #[arg(long, default_value = "reports", value_name = "FOLDER")]
    reports: PathBuf,
}

/// Messages of one device that its report can hold a thousand devices' of.
const MESSAGES_MAX: i64 = 10_000;

/// Runs the fleet and writes its report.
pub fn run(arguments: &Arguments, format: Format) -> Result<Exit, Failure> {
    let (options, broker) = checked(arguments)?;
    let network = arguments.network.as_deref().map(network).transpose()?;
    let scenario = Scenario::parse(ORIGIN, &source(&options, network.as_deref())).map_err(Failure::usage)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::environment(miette::miette!("cannot start the runtime: {error}")))?;
    let exit = runtime.block_on(async {
        let cancel = CancellationToken::new();
        let interrupt = tokio::spawn(interrupt(cancel.clone()));
        let _ = cancel.run_until_cancelled(sweep_leftovers()).await;
        let exit = one(arguments, &options, broker, &scenario, cancel, format).await;
        interrupt.abort();
        exit
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    exit
}

fn checked(arguments: &Arguments) -> Result<(Options, BrokerSpec), Failure> {
    let broker = match &arguments.ca {
        Some(ca) => arguments.broker.clone().with_ca(ca.clone()),
        None => Ok(arguments.broker.clone()),
    };
    let broker = broker.map_err(|error| Failure::usage(miette::Report::msg(error)))?;
    let elsewhere = matches!(broker, BrokerSpec::External(_) | BrokerSpec::Compose);
    let storm = match arguments.storm {
        Some(storm) if elsewhere && storm != Storm::None => {
            return Err(Failure::usage(miette::miette!(
                help =
                    "leave --storm out, or let the harness start the broker: embedded, emqx or docker:IMAGE",
                "the broker {broker} runs elsewhere: the harness cannot restart it"
            )));
        }
        Some(storm) => storm,
        None if elsewhere || arguments.shard != Shard::WHOLE => Storm::None,
        None => Storm::Stop,
    };
    let devices = arguments.shard.size(arguments.devices);
    if devices == 0 || devices > DEVICES_MAX {
        return Err(Failure::usage(miette::miette!(
            help = format!("one process holds 1 to {DEVICES_MAX}; choose other --devices or --shard"),
            "shard {} of {} devices has {devices}",
            arguments.shard,
            arguments.devices
        )));
    }
    let threads = arguments.threads.map_or_else(default_threads, usize::from);
    let options = Options {
        devices: arguments.devices,
        shard: arguments.shard,
        ramp_per_s: arguments.ramp,
        connecting: arguments.connecting,
        messages: arguments.messages,
        interval: arguments.interval,
        size: arguments.size,
        qos: arguments.qos,
        storm,
        down: arguments.down,
        threads,
        seed: arguments.seed,
    };
    Ok((options, broker))
}

/// The command that repeats the run: everything that decides its outcome, spelt out.
fn replay(arguments: &Arguments, options: &Options, broker: &BrokerSpec) -> String {
    let value = |storm: Storm| storm.to_possible_value().expect("none is hidden").get_name().to_owned();
    let ms = |time: Duration| format!("{}ms", time.as_millis());
    let mut line = CommandLine::new("fleet");
    line.option("devices", Some(options.devices));
    line.option("broker", Some(broker));
    line.path("ca", arguments.ca.as_deref());
    line.option("shard", (options.shard != Shard::WHOLE).then_some(options.shard));
    line.option("ramp", Some(options.ramp_per_s));
    line.option("connecting", Some(options.connecting));
    line.option("messages", Some(options.messages));
    line.option("interval", Some(ms(options.interval)));
    line.option("size", Some(options.size));
    line.option("qos", Some(options.qos));
    line.option("storm", Some(value(options.storm)));
    line.option("down", Some(ms(options.down)));
    line.option("network", arguments.network.as_ref());
    line.option("threads", Some(options.threads));
    line.option("seed", Some(options.seed));
    line.finish()
}

/// One for each core of the machine.
fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The `[link]` part of a scenario, as text.
fn network(name: &str) -> Result<String, Failure> {
    let scenario = library::find(name).map_err(Failure::usage)?;
    let whole: toml::Table = scenario.source.parse().expect("the scenario was read from it");
    let link: toml::Table = whole.into_iter().filter(|(key, _)| key == "link").collect();
    Ok(toml::to_string(&link).expect("what was read can be written"))
}

async fn one(
    arguments: &Arguments,
    options: &Options,
    broker: BrokerSpec,
    scenario: &Scenario,
    cancel: CancellationToken,
    format: Format,
) -> Result<Exit, Failure> {
    let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let folder = Folder::create(&arguments.reports, &scenario.name, started.as_micros() as u64, options.seed)
        .map_err(|error| Failure::environment(miette::Report::msg(error)))?;
    let fleet = Fleet {
        replay: replay(arguments, options, &broker),
        options,
        scenario,
        broker,
        folder: folder.path(),
        command_line: std::env::args().collect(),
        token: crate::run::token(),
        cancel,
    };
    let record = fleet
        .run(|news| match news {
            Progress::StandsIn(why) => {
                talk(&format!("warning: EMQX is not used: {why}; the embedded broker takes its place"));
            }
            Progress::Phase(phase) => talk(&format!("fleet: {phase}")),
            Progress::Count(count, of) => talk(&format!("fleet: {count} of {of}")),
        })
        .await
        .map_err(|error| failure(&error, &folder))?;
    let ending = record.ending.clone();
    let report = Report::new(record, scenario);
    folder.write(&report).map_err(|error| Failure::environment(miette::Report::msg(error)))?;
    print(&match format {
        Format::Human => terminal::summary(&report, Some(folder.path()), colour()),
        Format::Json => terminal::json(&report, Some(folder.path())) + "\n",
    });
    Ok(match ending {
        Ending::Failed { blame: Blame::Environment, .. } => Exit::Environment,
        _ => Exit::from_verdict(report.verdict.passed),
    })
}

fn failure(error: &FleetError, folder: &Folder) -> Failure {
    // Nothing ran, so there is nothing to report; a folder with a broker's log stays.
    let _ = std::fs::remove_dir(folder.path());
    Failure::environment(miette::miette!(help = error.remedy(), "{error}"))
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    if rate.is_finite() && rate >= 0.01 {
        Ok(rate)
    } else {
        Err(format!("`{text}` is no rate; give at least 0.01 devices per second"))
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time; write a number and a unit, such as 500ms or 2s");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let factor = match unit.trim() {
        "ms" => 1e-3,
        "s" => 1.0,
        "min" => 60.0,
        _ => return Err(wrong()),
    };
    let time = Duration::try_from_secs_f64(number * factor).map_err(|_| wrong())?;
    if time >= Duration::from_millis(1) && time <= TIME_MAX {
        Ok(time)
    } else {
        Err(format!("`{text}` is out of range; choose between 1ms and {} min", TIME_MAX.as_secs() / 60))
    }
}

/// Longer than any run is watched.
const TIME_MAX: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_rates_are_read_strictly() {
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("1.5s"), Ok(Duration::from_millis(1500)));
        for text in ["", "5", "s", "1h", "0s", "-1s", "9999min", "1e9s"] {
            assert!(time(text).is_err(), "{text}");
        }
        for text in ["0", "-1", "inf", "nan", "x"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_network_is_taken_over_from_a_scenario() {
        let text = network("lossy-wifi").ok().expect("a scenario of the library");
        assert!(text.starts_with("[link") && text.contains("3 %"), "{text}");
        assert!(!text.contains("workload"));
    }
}
