//! One trial from an empty table to its record: of the board, or of the reference client.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Capturing;
use super::director::Director;
use super::foreign::Follow;
use super::journal::Journal;
use super::link_log::LinkLog;
use super::path::Path;
use super::reference::{self, Reference};
use super::refusal;
use super::settings::{self, Destination, GATEWAY_ADDRESS};
use super::setup::{BoardKind, Counted, MAC, Names, TrialError};
use super::stage::{Stage, broker_error};
use super::tethered;
use crate::board::Options;
use crate::board::qemu::QemuMachine;
use crate::broker::{Broker, Trust, default_port};
use crate::count;
use crate::link::{Capture, FramePath, GatewayConfig, LinkHandle, Nic, Protocol, Setup};
use crate::measure::adapter::Rules;
use crate::measure::record::{Blame, Connection, Phase, Role, Transport, Trial};
use crate::peer::{Clock, Closing, ConnectError, Connector, Ledger, QuicTuning, Target};
use crate::scenario::{Certificate, ClientCertificates, Scenario, Variant};

/// Time a command has to be answered. An emulated board on a busy machine takes seconds over a handshake, in which it
/// answers nothing.
const COMMAND_LIMIT: Duration = Duration::from_secs(10);

/// What every trial of a run is made from.
pub struct Bench<'r> {
    /// The scenario.
    pub scenario: &'r Scenario,
    /// The board.
    pub board: &'r BoardKind,
    /// The broker.
    pub broker: &'r mut Broker,
    /// What board and reference client are to trust.
    pub trust: Trust,
    /// The name in the broker's certificate.
    pub server_name: &'r str,
    /// Where logs go.
    pub folder: PathBuf,
    /// Whether packets are captured.
    pub capturing: Capturing,
    /// Draws topic and client names that no other run uses.
    pub token: u32,
    /// Ends the run early.
    pub cancel: CancellationToken,
}

/// Which trial.
#[derive(Clone, Copy)]
pub struct Plan<'r> {
    /// Its number in the run.
    pub number: usize,
    /// Its variant.
    pub variant: &'r Variant,
    /// Board or reference client.
    pub role: Role,
    /// Its seed.
    pub seed: u64,
    /// Start of the run on the clock of [`std::time::Instant`].
    pub run_start: std::time::Instant,
}

impl Bench<'_> {
    /// Runs one trial; whatever happens, there is a record of it.
    pub async fn run(&mut self, plan: Plan<'_>) -> Trial {
        let clock = Clock::start();
        let mut trial = Trial::new(plan.variant.name.clone(), plan.variant.transport, plan.role, plan.seed);
        trial.started_us = Clock::at(plan.run_start).now_us();
        let topics = |flow: Option<crate::scenario::Flow>| flow.map_or(0, |flow| flow.topics);
        let names = Names::new(self.token, plan.number, topics(self.scenario.up), topics(self.scenario.down));
        // A broker that goes ends the trial as the user does.
        let cancel = self.cancel.child_token();
        let (loss, ended) = (self.broker.loss(), cancel.clone());
        let noticing = tokio::spawn(async move {
            loss.await;
            ended.cancel();
        });
        let result = match plan.role {
            Role::Device => self.device(plan, &names, clock, &cancel, &mut trial).await,
            Role::Reference => self.reference(plan, &names, clock, &cancel, &mut trial).await,
        };
        noticing.abort();
        let interrupted =
            self.cancel.is_cancelled() && result.as_ref().is_err_and(TrialError::is_interruption);
        if let Err(error) = result {
            trial.ending = error.ending();
        }
        // Whatever clients noticed of it: they are not to blame for a broker that has gone.
        let lost = if interrupted { None } else { self.broker.lost().await };
        trial.duration_us = clock.now_us();
        match lost {
            Some(lost) => trial.ending = broker_error("broker", &lost).ending(),
            None => self.count(plan, &mut trial).await,
        }
        self.collect_logs(plan, &mut trial);
        trial
    }

    /// Counts the instructions of this trial's variant, where the board can.
    async fn count(&self, plan: Plan<'_>, trial: &mut Trial) {
        let BoardKind::Qemu { elf, counted } = self.board else { return };
        let chosen = *counted == Counted::EverySeed || self.scenario.seeds.first() == Some(&plan.seed);
        // A broker that is to be refused says nothing about what a connection costs.
        let wanted = plan.role == Role::Device && chosen && self.scenario.refusal.is_none();
        if !wanted || self.cancel.is_cancelled() {
            return;
        }
        let destination = self.destination(plan.variant.transport);
        let counting = async {
            let settings =
                settings::settings(plan.variant, &destination, "count", self.scenario.limits.connect)?;
            let machine = QemuMachine::new(elf, MAC).map_err(|error| error.to_string())?;
            let log = Some(self.file("count", plan.number, "log"));
            count::measure(machine, settings, plan.seed, log).await.map_err(|error| error.to_string())
        };
        let counted: Result<_, String> = tokio::select! {
            counted = counting => counted,
            () = self.cancel.cancelled() => return,
        };
        match counted {
            Ok(costs) => trial.costs = costs,
            Err(error) => trial.notes.push(format!("instructions were not counted: {error}")),
        }
    }

    /// Appends this trial's pieces to the run's logs, each behind a line that names the trial.
    fn collect_logs(&self, plan: Plan<'_>, trial: &mut Trial) {
        let Plan { number, variant, role, seed, .. } = plan;
        let header = serde_json::json!({
            "kind": "trial", "number": number, "variant": variant.name, "role": role.name(), "seed": seed,
        });
        let console_header = format!("=== {header}\n");
        let logs = [
            ("link", "jsonl", format!("{header}\n")),
            ("console", "log", console_header.clone()),
            ("count", "log", console_header),
        ];
        for (what, extension, header) in logs {
            let (piece, whole) =
                (self.file(what, number, extension), self.folder.join(format!("{what}.{extension}")));
            if let Err(error) = append(&piece, &whole, &header) {
                trial.notes.push(format!(
                    "{} could not be joined to {}: {error}",
                    piece.display(),
                    whole.display()
                ));
            }
        }
    }

    async fn device(
        &mut self,
        plan: Plan<'_>,
        names: &Names,
        clock: Clock,
        cancel: &CancellationToken,
        trial: &mut Trial,
    ) -> Result<(), TrialError> {
        let environment = |error: &dyn std::fmt::Display| TrialError::new("boot", Blame::Environment, error);
        if let BoardKind::Esp32c3(tethered) = self.board
            && let Some(rules) = tethered.adapter()
        {
            return self.foreign(plan, tethered, rules, clock, cancel, trial).await;
        }
        let options = Options {
            epoch: clock.instant(0),
            log: Some(self.file("console", plan.number, "log")),
            boot_limit: self.scenario.limits.boot,
            command_limit: COMMAND_LIMIT,
        };
        // A board that does not answer is brought up for more than a minute.
        let board = tokio::select! {
            board = self.board.start(plan.seed, options) => board,
            () = cancel.cancelled() => return Err(TrialError::interrupted()),
        };
        let mut board = board.map_err(|error| environment(&error.told()))?;
        let log = self.file("link", plan.number, "jsonl");
        let mut setup = self.setup(plan.seed, &log);
        if let Capturing::On { key_log } = &self.capturing {
            let file = self.file("wire", plan.number, "pcapng");
            setup.capture = Some(Capture { file, key_log: key_log.clone() });
        }
        let (link, destination, path) = match self.board {
            BoardKind::Esp32c3(tethered) => {
                if setup.capture.take().is_some() {
                    trial
                        .notes
                        .push("nothing was captured: a real board's frames do not pass here".to_owned());
                }
                let started =
                    tethered.start_link(self.broker, plan.variant.transport, self.server_name, setup)?;
                (started.0, started.1, Some(started.2))
            }
            BoardKind::Host | BoardKind::Qemu { .. } => {
                let nic = board.take_nic().ok_or_else(|| environment(&"this board has no virtual NIC"))?;
                let path = FramePath { setup, nic: Nic::Listener(nic), gateway: self.gateway() };
                let link = path.start().map_err(|error| environment(&error))?;
                let transport = plan.variant.transport;
                if transport != Transport::Quic {
                    trial.notes.push(format!("device over {transport}: {}", GatewayConfig::TCP_LABEL));
                }
                (link, self.destination(transport), None)
            }
        };
        let cancel = cancel.clone();
        let accounts = matches!(self.board, BoardKind::Esp32c3(_));
        let stage = self.stage(plan, names, &link, clock)?;
        let director = Director { stage, board, destination, accounts, cancel };
        let (gathered, result) = director.run().await;
        let offset_us = clock.us(link.started());
        let summary = link.stop();
        trial.duration_us = clock.now_us();
        trial.notes.extend(path.map(Path::notes).unwrap_or_default());
        let (missed, lost) = (gathered.missed, gathered.lost);
        let accounts = gathered.accounts();
        let dropped = gathered.telemetry_dropped();
        let workload = gathered.into_trial(trial, closing(&result));
        if matches!(self.board, BoardKind::Host) {
            // The stack of an unoptimised 64-bit process says nothing about a microcontroller's.
            trial.memory.iter_mut().for_each(|snapshot| snapshot.client_ram = None);
        }
        if let BoardKind::Qemu { elf, .. } = self.board
            && QemuMachine::has_heap(elf).is_ok_and(|has_heap| !has_heap)
        {
            trial.memory.iter_mut().for_each(|snapshot| snapshot.heap_used = Some(0));
        }
        let result = trust(result, dropped, trial);
        LinkLog::read_into(trial, &log, offset_us, summary, workload);
        let result = match self.board {
            BoardKind::Esp32c3(tethered) => {
                tethered.estimate_energy(trial, &accounts);
                tethered.explain(result, missed, lost, self.scenario.limits.boot)
            }
            BoardKind::Host | BoardKind::Qemu { .. } => result,
        };
        self.judge_refusal(trial, result)
    }

    /// A firmware that is not ours, read by its log: it connects where it was built to, which must be the proxy.
    async fn foreign(
        &self,
        plan: Plan<'_>,
        tethered: &tethered::Tethered,
        rules: &Rules,
        clock: Clock,
        cancel: &CancellationToken,
        trial: &mut Trial,
    ) -> Result<(), TrialError> {
        let log = self.file("link", plan.number, "jsonl");
        let setup = self.setup(plan.seed, &log);
        let transport = plan.variant.transport;
        let (link, destination, path) =
            tethered.start_link(self.broker, transport, self.server_name, setup)?;
        let proxy = destination.broker;
        tethered.say(&format!(
            "{}: has to connect to {proxy} over {transport}, which is the proxy",
            rules.firmware
        ));
        let offset_us = clock.us(link.started());
        let limits = self.scenario.limits;
        let console = self.file("console", plan.number, "log");
        let limit = limits.boot + limits.connect + limits.workload;
        let follow = Follow { rules, clock, limit, log: &console, cancel };
        let result = follow.run(tethered.machine(), trial).await;
        let came = path.client().await;
        let summary = link.stop();
        trial.duration_us = clock.now_us();
        trial.notes.push(format!("the proxy was at {proxy}, for a firmware that was built to connect there"));
        trial.notes.push(
            "it sends with its own transmit power; this project's firmware sends at 5 dBm, ESP-IDF's default is 20 dBm".to_owned(),
        );
        trial.notes.extend(path.notes());
        LinkLog::read_into(trial, &log, offset_us, summary, 0..trial.duration_us);
        result.and_then(|()| came_by(came, proxy, trial))
    }

    /// The same workload by a client of the host, through the same link with the same seed.
    async fn reference(
        &mut self,
        plan: Plan<'_>,
        names: &Names,
        clock: Clock,
        cancel: &CancellationToken,
        trial: &mut Trial,
    ) -> Result<(), TrialError> {
        let log = self.file("link", plan.number, "jsonl");
        let setup = self.setup(plan.seed, &log);
        let (link, address) = reference::start_link(self.broker, plan.variant.transport, setup, trial)?;
        let (mut ledger, mut journal) = (Ledger::new(), Journal::default());
        let (cancel, server_name) = (cancel.clone(), self.server_name);
        let stage = self.stage(plan, names, &link, clock)?;
        let mut reference = Reference { stage, address, server_name, cancel };
        let result = reference.run(&mut ledger, &mut journal, trial).await;
        let offset_us = clock.us(link.started());
        let summary = link.stop();
        trial.duration_us = clock.now_us();
        let account = ledger.close(closing(&result));
        (trial.topics, trial.messages) = (account.topics, account.messages);
        trial.notes.extend(account.contradictions);
        journal.into_trial(trial, trial.duration_us);
        let begin = trial.messages.iter().map(|message| message.intended_us).min();
        let settled = trial.messages.iter().filter_map(|message| message.acked_us.max(message.delivered_us));
        let end = settled.max().unwrap_or(trial.duration_us);
        LinkLog::read_into(trial, &log, offset_us, summary, begin.unwrap_or(end)..end);
        self.judge_refusal(trial, result)
    }

    fn stage<'s>(
        &'s mut self,
        plan: Plan<'s>,
        names: &'s Names,
        link: &'s LinkHandle,
        clock: Clock,
    ) -> Result<Stage<'s>, TrialError> {
        let peer =
            self.peer_connector().map_err(|error| TrialError::new("peer", Blame::Environment, error))?;
        let Plan { variant, seed, .. } = plan;
        let (scenario, broker, trust) = (self.scenario, &mut *self.broker, &self.trust);
        let broker_mark = refusal::mark(broker);
        Ok(Stage { scenario, variant, seed, names, broker, broker_mark, link, peer, trust, clock })
    }

    /// What came of a trial, once the client's own account of a refusal is heard. It explains best why the broker's is
    /// another.
    fn judge_refusal(&self, trial: &Trial, result: Result<(), TrialError>) -> Result<(), TrialError> {
        match (&self.scenario.refusal, &result) {
            (Some(wanted), Ok(())) => refusal::judge(wanted, trial),
            (Some(wanted), Err(error)) if error.phase == refusal::PHASE => {
                refusal::judge(wanted, trial).and(result)
            }
            _ => result,
        }
    }

    fn setup(&self, seed: u64, log: &std::path::Path) -> Setup {
        Setup { config: self.scenario.link.clone(), seed, log: Some(log.to_owned()), capture: None }
    }

    fn file(&self, what: &str, trial: usize, extension: &str) -> PathBuf {
        self.folder.join(format!("{what}-{trial}.{extension}"))
    }

    fn gateway(&self) -> GatewayConfig {
        self.broker.addresses().iter().fold(GatewayConfig::default(), |gateway, (transport, address)| {
            let protocol = if transport == Transport::Quic { Protocol::Udp } else { Protocol::Tcp };
            gateway.with_service(protocol, default_port(transport), address)
        })
    }

    fn destination(&self, transport: Transport) -> Destination {
        Destination {
            broker: SocketAddr::new(IpAddr::V4(GATEWAY_ADDRESS), default_port(transport)),
            server_name: self.server_name.to_owned(),
            addressing: settings::virtual_addressing(),
        }
    }

    /// The verifying peer's way to the broker: the best transport it serves, without impairment.
    fn peer_connector(&self) -> Result<Arc<Connector>, ConnectError> {
        let addresses = self.broker.addresses();
        // Where the scenario is about certificates, the peer stays out of it: the board is to judge.
        let options = self.scenario.broker;
        let flawed = options.certificate != Certificate::Valid;
        let guarded = options.client_certificates == ClientCertificates::Required;
        let plain =
            addresses.get(Transport::Tcp).filter(|_| flawed || guarded).map(|at| (Transport::Tcp, at));
        let (transport, address) = plain
            .or_else(|| addresses.iter().next())
            .ok_or_else(|| ConnectError::Settings("the broker serves no transport".to_owned()))?;
        let mut target = Target::new(transport, address, self.server_name, self.broker.trust().roots);
        let keep_alive = Some(Duration::from_secs(5));
        target.quic = QuicTuning { keep_alive, ..QuicTuning::default() };
        Connector::new(target).map(Arc::new)
    }
}

/// Whether a firmware that tells of a connection made it through the proxy: one past it says nothing of the link.
fn came_by(client: Option<SocketAddr>, proxy: SocketAddr, trial: &mut Trial) -> Result<(), TrialError> {
    if client.is_some() {
        return Ok(());
    }
    let missing = format!(
        "nothing came to the proxy at {proxy}\n  remedy: build the firmware to connect to {proxy}, or name the address and port it \
         was built for with --listen"
    );
    let tells = |connection: &Connection| connection.marks.iter().any(|mark| mark.phase > Phase::FirstPacket);
    if trial.connections.iter().any(tells) {
        let cause = format!("the firmware tells of a connection, but {missing}");
        return Err(TrialError::new("link", Blame::Environment, cause));
    }
    trial.notes.push(missing);
    Ok(())
}

fn closing(result: &Result<(), TrialError>) -> Closing {
    if result.is_ok() { Closing::Complete } else { Closing::Early }
}

/// A trial in which the board `dropped` telemetry is noted as such, and has failed if nothing else made it fail.
fn trust(
    result: Result<(), TrialError>,
    dropped: Option<String>,
    trial: &mut Trial,
) -> Result<(), TrialError> {
    let Some(dropped) = dropped else { return result };
    trial.notes.push(dropped.clone());
    result.and(Err(TrialError::new("telemetry", Blame::Environment, dropped)))
}

/// Moves the contents of `piece`, if there is one, to the end of `whole`.
fn append(piece: &std::path::Path, whole: &std::path::Path, header: &str) -> std::io::Result<()> {
    let mut from = match std::fs::File::open(piece) {
        Ok(from) => from,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut to = std::fs::File::options().create(true).append(true).open(whole)?;
    std::io::Write::write_all(&mut to, header.as_bytes())?;
    std::io::copy(&mut from, &mut to)?;
    std::fs::remove_file(piece)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::record::Role;

    #[test]
    fn a_trial_whose_telemetry_was_dropped_fails_and_says_why() {
        let judged = |result, dropped: Option<&str>| {
            let mut trial = Trial::new("quic", Transport::Quic, Role::Device, 1);
            let result = trust(result, dropped.map(str::to_owned), &mut trial);
            (result.err().map(|error| error.phase), trial.notes)
        };
        let earlier = || Err(TrialError::new("connect", Blame::Subject, "no answer"));
        assert_eq!(judged(Ok(()), None), (None, vec![]));
        assert_eq!(judged(Ok(()), Some("3 samples")), (Some("telemetry"), vec!["3 samples".to_owned()]));
        assert_eq!(judged(earlier(), Some("3 samples")), (Some("connect"), vec!["3 samples".to_owned()]));
    }
}
