//! `harness scenario NAME`: runs scenarios, writes their reports, and says what came of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::build::build_with_talk;
use super::interrupt::interrupt;
use super::progress::Talk;
use super::replay::CommandLine;
use super::secrets::Secrets;
use super::tethered;
use super::{Exit, Failure, Format, print, talk};
use crate::board::qemu;
use crate::broker::{
    self, Broker, BrokerOptions, BrokerSpec, ClientAuthentication, Durability, Trust, read_certificates,
    sweep_leftovers,
};
use crate::certificates::{Certificates, Depth, SERVER_NAME};
use crate::firmware::build::Firmware;
use crate::measure::record::{Blame, Ending, RunRecord, Transport};
use crate::report::baseline::Baseline;
use crate::report::{Folder, Report, terminal};
use crate::run::{BoardKind, Counted, Run, faults, flaw};
use crate::scenario::{
    Action, BoardName, Certificate, Chain, ClientCertificates, Scenario, SessionState, StreamCredit, Streams,
    library,
};

/// Arguments of `harness scenario`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A scenario's name, a path to a TOML file, or `all`.
    #[arg(value_name = "NAME|FILE|all")]
    scenario: String,
    /// The board.
    #[arg(long, value_enum, default_value = "host")]
    board: BoardChoice,
    /// auto (EMQX where Docker has it, or else embedded) | embedded | emqx[:TAG] | docker:IMAGE | compose |
    /// quic://HOST:PORT | mqtts://HOST:PORT | mqtt://HOST:PORT
    #[arg(long, default_value = "auto")]
    broker: BrokerSpec,
    /// Root certificate (PEM) that board and reference client verify the broker against, in place of its own.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Run these transports only; one that the scenario lacks is added.
    #[arg(long, value_name = "quic,tls,tcp", value_delimiter = ',', value_parser = transport)]
    transport: Vec<Transport>,
    /// First seed, in place of the scenario's own.
    #[arg(long)]
    seed: Option<u64>,
    /// How many seeds, counted up from the first.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=REPEAT_MAX))]
    repeat: Option<u32>,
    #[command(flatten)]
    tethered: tethered::BoardArguments,
    /// Count instructions for every seed, not for the first one only (emulated board).
    #[arg(long)]
    icount: bool,
    /// Capture the board's packets, one `wire-N.pcapng` for each of its trials, with the TLS secrets that decrypt
    /// them: whoever has the report can then read that traffic. Without it, no secret leaves the run.
    #[arg(long)]
    pcap: bool,
    /// Fail if the run is worse than this baseline (`.toml`), or the one of its name in this folder.
    #[arg(long, value_name = "FILE|FOLDER")]
    baseline: Option<PathBuf>,
    /// Make a baseline of this run: this file (`.toml`), or one of its name in this folder, which is made where there
    /// is none; an existing file is not overwritten.
    #[arg(long, value_name = "FILE|FOLDER", conflicts_with = "baseline")]
    write_baseline: Option<PathBuf>,
    /// Where reports go.
    #[arg(long, default_value = "reports", value_name = "FOLDER")]
    reports: PathBuf,
}

/// More seeds than any run finishes: a larger number is a slip of the finger.
const REPEAT_MAX: i64 = 10_000;

/// Time a broker has to end. A container gets seconds to stop before it is killed.
const SHUT_DOWN_LIMIT: Duration = Duration::from_secs(60);

/// Boards that can be asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum BoardChoice {
    /// The firmware as a process on this machine.
    Host,
    /// The firmware on an emulated RV32IMC machine.
    Qemu,
    /// A real board on a cable.
    Esp32c3,
}

/// Runs the scenarios that were asked for.
pub fn run(arguments: &Arguments, format: Format) -> Result<Exit, Failure> {
    let scenarios = chosen(arguments)?;
    let tethered = match arguments.board {
        BoardChoice::Esp32c3 => Some(BoardKind::Esp32c3(arguments.tethered.prepare()?)),
        BoardChoice::Host | BoardChoice::Qemu => None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::environment(miette::miette!("cannot start the runtime: {error}")))?;
    let cancel = CancellationToken::new();
    let exit = runtime.block_on(async {
        let interrupt = tokio::spawn(interrupt(cancel.clone()));
        let _ = cancel.run_until_cancelled(sweep_leftovers()).await;
        let exit = every(arguments, &scenarios, tethered.as_ref(), &cancel, format).await;
        interrupt.abort();
        exit
    });
    // Tasks that still block (a name lookup) must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    exit
}

/// Runs one after the other. One that cannot run is told, and the others run all the same.
async fn every(
    arguments: &Arguments,
    scenarios: &[Scenario],
    tethered: Option<&BoardKind>,
    cancel: &CancellationToken,
    format: Format,
) -> Result<Exit, Failure> {
    if let [scenario] = scenarios {
        return one(arguments, scenario, tethered, cancel, format).await;
    }
    let mut exits = Vec::new();
    for scenario in scenarios.iter().take_while(|_| !cancel.is_cancelled()) {
        let exit = one(arguments, scenario, tethered, cancel, format).await.unwrap_or_else(|failure| {
            talk(&format!("{}: {:?}", scenario.name, failure.report));
            failure.exit
        });
        exits.push((scenario.name.as_str(), exit));
    }
    let passed = exits.iter().filter(|(_, exit)| *exit == Exit::Passed).count();
    talk(&format!("{passed} of {} scenarios passed", scenarios.len()));
    for (name, exit) in exits.iter().filter(|(_, exit)| *exit != Exit::Passed) {
        talk(&format!("  {name}: {}", exit.label()));
    }
    Ok(exits.into_iter().fold(Exit::Passed, |worst, (_, exit)| worst.worst(exit)))
}

fn chosen(arguments: &Arguments) -> Result<Vec<Scenario>, Failure> {
    let board = arguments.board.name();
    let mut scenarios = if arguments.scenario == "all" {
        let all = library::all().map_err(Failure::usage)?;
        all.into_iter().filter(|scenario| scenario.boards.contains(&board)).collect()
    } else {
        vec![library::find(&arguments.scenario).map_err(Failure::usage)?]
    };
    if arguments.scenario == "all" {
        scenarios.retain(|scenario| match unable(scenario, &arguments.broker) {
            Some(why) => {
                talk(&format!("warning: {} is left out: {why}", scenario.name));
                false
            }
            None => true,
        });
    }
    for scenario in &mut scenarios {
        refuse_unable(scenario, &arguments.broker)?;
        if !scenario.boards.contains(&board) {
            let boards: Vec<_> = scenario.boards.iter().map(|board| board.name()).collect();
            return Err(Failure::usage(miette::miette!(
                help = format!("choose one of: {}", boards.join(", ")),
                "the scenario `{}` does not run on the board `{}`",
                scenario.name,
                board.name()
            )));
        }
        if !arguments.transport.is_empty() {
            scenario.restrict_to(&arguments.transport);
        }
        scenario.seeds = scenario.seeds_for(arguments.seed, arguments.repeat);
    }
    Ok(scenarios)
}

fn refuse_unable(scenario: &Scenario, broker: &BrokerSpec) -> Result<(), Failure> {
    let Some(why) = unable(scenario, broker) else { return Ok(()) };
    Err(Failure::usage(miette::miette!(help = "run it with `--broker embedded`", "{why}")))
}

/// What a scenario asks of a broker that it cannot do, with the reason.
fn unable(scenario: &Scenario, broker: &BrokerSpec) -> Option<String> {
    let fault = faults(&scenario.steps)
        .into_iter()
        .find_map(|fault| broker.why_not(&fault).map(|why| (fault.to_string(), why)));
    let credentials = || Some((credentials(scenario)?, broker.why_no_credentials()?));
    let credit = || Some((stream_credit(scenario)?, broker.why_no_stream_credit()?));
    let (wanted, why) = fault.or_else(credentials).or_else(credit)?;
    Some(format!("`{}` wants the broker to {wanted}, which {broker} cannot: {why}", scenario.name))
}

/// What a scenario has a broker do with certificates that it does not do as it stands; `None` if it is content with the
/// ones there are.
fn credentials(scenario: &Scenario) -> Option<String> {
    let options = &scenario.broker;
    let wrong = match options.certificate {
        Certificate::Valid => None,
        Certificate::WrongName => Some("of another name"),
        Certificate::Expired => Some("that is expired"),
        Certificate::UnknownCa => Some("of an authority that nobody trusts"),
    };
    if let Some(wrong) = wrong {
        return Some(format!("show a certificate {wrong}"));
    }
    if options.client_certificates == ClientCertificates::Required {
        return Some("refuse clients without a certificate of the run's authority".into());
    }
    if scenario.variants.iter().any(|variant| variant.connection.client_certificate) {
        return Some("know clients by certificates of the run's authority".into());
    }
    (options.chain == Chain::Leaf).then(|| "show a certificate without an intermediate one".into())
}

/// When a scenario has a broker grant streams; `None` if it is content with any moment.
fn stream_credit(scenario: &Scenario) -> Option<String> {
    let late = scenario.broker.stream_credit == StreamCredit::AfterHandshake;
    late.then(|| "grant streams only after the handshake".into())
}

/// The board for one scenario; one on a cable was prepared before.
fn board(
    arguments: &Arguments,
    scenario: &Scenario,
    tethered: Option<&BoardKind>,
) -> Result<BoardKind, Failure> {
    if let Some(tethered) = tethered {
        return Ok(tethered.clone());
    }
    match arguments.board {
        BoardChoice::Host => Ok(BoardKind::Host),
        BoardChoice::Qemu => {
            // Before the build, which takes longer.
            qemu::find().map_err(Failure::environment)?;
            let counted = if arguments.icount { Counted::EverySeed } else { Counted::FirstSeed };
            let per_topic =
                scenario.variants.iter().any(|variant| variant.connection.streams == Streams::PerTopic);
            let firmware = if per_topic { Firmware::QemuStreams } else { Firmware::Qemu };
            Ok(BoardKind::Qemu { elf: build_with_talk(firmware)?, counted })
        }
        BoardChoice::Esp32c3 => arguments.tethered.prepare().map(BoardKind::Esp32c3),
    }
}

/// What one scenario needs before it starts; mistakes are found here, before anything runs.
struct Prepared {
    spec: BrokerSpec,
    baseline: Option<Baseline>,
    /// Where a baseline is to be written.
    write_baseline: Option<PathBuf>,
    /// What board and reference client are to trust, in place of what the broker brings.
    trust: Option<Trust>,
}

fn prepare(arguments: &Arguments, scenario: &Scenario) -> Result<Prepared, Failure> {
    let usage = |error: &dyn std::fmt::Display| Failure::usage(miette::miette!("{error}"));
    let mut spec = arguments.broker.clone();
    let mut trust = None;
    if let Some(ca) = &arguments.ca {
        if let BrokerSpec::External(_) = &spec {
            spec = spec.with_ca(ca.clone()).map_err(|error| usage(&error))?;
        } else {
            let roots = read_certificates(ca)
                .map_err(|error| Failure::usage(miette::miette!(help = error.remedy(), "{error}")))?;
            trust = Some(Trust::in_roots(SERVER_NAME, roots));
        }
    }
    let board = arguments.board.name().name();
    let baseline = baseline(arguments.baseline.as_deref(), scenario, board)?;
    let write_baseline = arguments.write_baseline.as_deref().map(|path| baseline_file(path, scenario, board));
    if let Some(path) = write_baseline.as_deref().filter(|path| path.exists()) {
        return Err(Failure::usage(miette::miette!(
            help = "choose another file, or remove this one",
            "the baseline {} exists already",
            path.display()
        )));
    }
    if let Some(folder) = write_baseline.as_deref().and_then(Path::parent) {
        // Now, so that a run is not made in vain.
        std::fs::create_dir_all(folder).map_err(|error| {
            let help = "choose a folder that can be made";
            Failure::usage(miette::miette!(help = help, "cannot make {}: {error}", folder.display()))
        })?;
    }
    Ok(Prepared { spec, baseline, write_baseline, trust })
}

/// The baseline at `path`, or the one of this scenario in the folder `path`, if it holds one.
fn baseline(path: Option<&Path>, scenario: &Scenario, board: &str) -> Result<Option<Baseline>, Failure> {
    let Some(path) = path else { return Ok(None) };
    let file = baseline_file(path, scenario, board);
    if !file.exists() && path.is_dir() {
        talk(&format!("{}: there is no baseline {}", scenario.name, file.display()));
        return Ok(None);
    }
    let usage = |error| Failure::usage(miette::Report::msg(error));
    let baseline = Baseline::load(&file).map_err(usage)?;
    baseline.fits(&scenario.name, board).map_err(usage)?;
    if !baseline.speaks_of(scenario.variants.iter().map(|variant| variant.name.as_str())) {
        let names: Vec<_> = scenario.variants.iter().map(|variant| variant.name.as_str()).collect();
        let silent = format!("the baseline {} holds nothing of {}", file.display(), names.join(", "));
        if !path.is_dir() {
            let help = "make one of them with --write-baseline, or leave --transport out";
            return Err(Failure::usage(miette::miette!(help = help, "{silent}")));
        }
        talk(&format!("{}: {silent}", scenario.name));
    }
    Ok(Some(baseline))
}

/// `path` if it names a file, else the file of this scenario and board in the folder `path`, there or not.
fn baseline_file(path: &Path, scenario: &Scenario, board: &str) -> PathBuf {
    let is_file =
        path.is_file() || (!path.is_dir() && path.extension().is_some_and(|extension| extension == "toml"));
    if is_file { path.to_owned() } else { path.join(format!("{}-{board}.toml", scenario.name)) }
}

async fn one(
    arguments: &Arguments,
    scenario: &Scenario,
    tethered: Option<&BoardKind>,
    cancel: &CancellationToken,
    format: Format,
) -> Result<Exit, Failure> {
    let Prepared { spec, baseline, write_baseline, trust } = prepare(arguments, scenario)?;
    if spec == BrokerSpec::Auto {
        let (settled, _) = broker::settle(spec.clone()).await;
        refuse_unable(scenario, &settled)?;
    }
    let board = &board(arguments, scenario, tethered)?;
    let secrets = Secrets::of(arguments.pcap, &spec).await?;
    let Some(mut broker) = start_broker(spec, scenario, &secrets, cancel).await? else {
        return Err(Failure::environment(miette::miette!(
            "interrupted while the broker started; nothing ran"
        )));
    };
    if let Some(why) = broker.stands_in() {
        talk(&format!("warning: EMQX is not used: {why}; the embedded broker takes its place"));
    }
    if let Some(why) = unserved(&broker, scenario) {
        broker.shut_down().await;
        return Err(why);
    }
    let spec = broker.describe().spec;
    let server_name = trust.as_ref().unwrap_or(&broker.trust()).server_name.clone();
    let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let seed = scenario.seeds.first().copied().unwrap_or_default();
    let folder = Folder::create(&arguments.reports, &scenario.name, started.as_micros() as u64, seed)
        .map_err(|error| Failure::environment(miette::Report::msg(error)))?;
    if arguments.pcap {
        write_new(&folder.file("mqtt-over-quic.lua"), crate::link::MQTT_OVER_QUIC_LUA)?;
    }

    let progress = Talk::new();
    let run = Run {
        scenario,
        board,
        broker: &mut broker,
        trust,
        server_name: &server_name,
        folder: folder.path(),
        capturing: secrets.capturing(),
        command_line: std::env::args().collect(),
        replay: replay(arguments, scenario, &spec),
        cancel: cancel.clone(),
    };
    let record = run.make(|news| progress.tell(&scenario.name, &news)).await;
    progress.done();
    save_broker_log(&broker, &folder);
    if tokio::time::timeout(SHUT_DOWN_LIMIT, broker.shut_down()).await.is_err() {
        talk("the broker did not end in time; the next run sweeps what may be left of a container");
    }
    if let BoardKind::Esp32c3(board) = board {
        tethered::note_run(board, &record, &scenario.steps);
    }
    conclude(Conclusion { scenario, baseline, write_baseline, folder: &folder, format }, record)
}

/// Starts the broker; `None` when the user does not want to wait for it.
async fn start_broker(
    spec: BrokerSpec,
    scenario: &Scenario,
    secrets: &Secrets,
    cancel: &CancellationToken,
) -> Result<Option<Broker>, Failure> {
    let certificates =
        Certificates::generate().map_err(|error| Failure::environment(miette::Report::msg(error)))?;
    let certificates = certificates.signed_by(match scenario.broker.chain {
        Chain::Leaf => Depth::Root,
        Chain::LeafIntermediate => Depth::Intermediate,
    });
    let options = BrokerOptions { key_log: secrets.key_log(), ..broker_options(scenario) };
    let start = Broker::start(spec, Arc::new(certificates), options);
    let started = cancel.run_until_cancelled(start).await.transpose();
    started.map_err(|error| Failure::environment(miette::miette!(help = error.remedy(), "{error}")))
}

/// Refuses a broker without a transport that the scenario wants: no client could reach it there.
fn unserved(broker: &Broker, scenario: &Scenario) -> Option<Failure> {
    let addresses = broker.addresses();
    let missing = scenario.variants.iter().find(|variant| addresses.get(variant.transport).is_none())?;
    let served: Vec<_> = addresses.iter().map(|(transport, _)| transport.name()).collect();
    Some(Failure::environment(miette::miette!(
        help = format!("run what it serves: `--transport {}`", served.join(",")),
        "`{}` wants {}, which the broker {} does not serve",
        scenario.name,
        missing.transport,
        broker.describe().spec
    )))
}

/// What becomes of a run's record.
struct Conclusion<'c> {
    scenario: &'c Scenario,
    baseline: Option<Baseline>,
    write_baseline: Option<PathBuf>,
    folder: &'c Folder,
    format: Format,
}

/// Judges a run, writes its report and says what came of it.
fn conclude(conclusion: Conclusion<'_>, record: RunRecord) -> Result<Exit, Failure> {
    let Conclusion { scenario, baseline, write_baseline, folder, format } = conclusion;
    let ending = record.ending.clone();
    let mut report = Report::new(record, scenario);
    let applied = baseline.map_or(Ok(()), |baseline| baseline.apply(&mut report));
    // Whatever else fails, the run has its report.
    folder.write(&report).map_err(|error| Failure::environment(miette::Report::msg(error)))?;
    applied.map_err(|error| Failure::usage(miette::Report::msg(error)))?;
    if let Some(path) = &write_baseline
        && !report.verdict.passed
    {
        talk(&format!("no baseline was written to {}: the run did not pass", path.display()));
    } else if let Some(path) = &write_baseline {
        write_new(path, &Baseline::from_report(&report).to_toml())?;
    }
    print(&match format {
        Format::Human => terminal::summary(&report, Some(folder.path()), super::colour()),
        Format::Json => terminal::json(&report, Some(folder.path())) + "\n",
    });
    Ok(match ending {
        Ending::Failed { blame: Blame::Environment, .. } => Exit::Environment,
        Ending::Failed { blame: Blame::Harness, .. } => Exit::Bug,
        _ => Exit::from_verdict(report.verdict.passed),
    })
}

fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    let written = std::fs::File::create_new(path)
        .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()));
    written.map_err(|error| {
        Failure::usage(miette::miette!(
            help = "choose another file, or remove this one",
            "cannot write {}: {error}",
            path.display()
        ))
    })
}

fn broker_options(scenario: &Scenario) -> BrokerOptions {
    BrokerOptions {
        certificate: flaw(scenario.broker.certificate),
        client_authentication: match scenario.broker.client_certificates {
            ClientCertificates::Ignored => ClientAuthentication::None,
            ClientCertificates::Required => ClientAuthentication::Required,
        },
        stream_credit: match scenario.broker.stream_credit {
            StreamCredit::InHandshake => broker::StreamCredit::InTransportParameters,
            StreamCredit::AfterHandshake => broker::StreamCredit::AfterHandshake,
        },
        durability: if restarts_with_sessions(scenario) { Durability::Disk } else { Durability::Memory },
        ..BrokerOptions::default()
    }
}

/// Whether a step wants the broker back with its sessions.
fn restarts_with_sessions(scenario: &Scenario) -> bool {
    scenario.steps.iter().any(|step| {
        matches!(
            step.action,
            Action::StopBroker(_) | Action::KillBroker(_) | Action::RestartBroker(SessionState::Keep)
        )
    })
}

/// The command that repeats the run: everything that decides its outcome, spelt out.
fn replay(arguments: &Arguments, scenario: &Scenario, broker: &str) -> String {
    let mut line = CommandLine::new("scenario");
    line.word(arguments.scenario_or(&scenario.name));
    line.option("board", Some(arguments.board.name().name()));
    line.option("broker", Some(broker));
    line.path("ca", arguments.ca.as_deref());
    let transports: Vec<_> = arguments.transport.iter().map(|transport| transport.name()).collect();
    line.option("transport", (!transports.is_empty()).then(|| transports.join(",")));
    if arguments.seed.is_some() || arguments.repeat.is_some() {
        line.option("seed", scenario.seeds.first());
        line.option("repeat", Some(scenario.seeds.len()));
    }
    arguments.tethered.spell(&mut line);
    line.flag("icount", arguments.icount);
    line.path("baseline", arguments.baseline.as_deref());
    line.finish()
}

impl Arguments {
    fn scenario_or<'a>(&'a self, name: &'a str) -> &'a str {
        if self.scenario == "all" { name } else { &self.scenario }
    }
}

impl BoardChoice {
    fn name(self) -> BoardName {
        match self {
            Self::Host => BoardName::Host,
            Self::Qemu => BoardName::Qemu,
            Self::Esp32c3 => BoardName::Esp32c3,
        }
    }
}

fn transport(text: &str) -> Result<Transport, String> {
    let known = Transport::ALL.into_iter().find(|transport| transport.name() == text);
    known.ok_or_else(|| format!("there is no transport `{text}`; choose quic, tls or tcp"))
}

fn save_broker_log(broker: &Broker, folder: &Folder) {
    if let Some(text) = broker.log() {
        // A container's own words; what the harness did to it is among the report's events.
        if let Err(error) = std::fs::write(folder.file("broker.log"), text) {
            tracing::warn!(%error, "cannot write the broker's log");
        }
        return;
    }
    let lines = broker
        .events()
        .events()
        .into_iter()
        .map(|event| serde_json::to_string(&event).expect("an event has string keys only") + "\n");
    let lines: String = lines.collect();
    if let Err(error) = std::fs::write(folder.file("broker.log"), lines) {
        tracing::warn!(%error, "cannot write the broker's log");
    }
}
