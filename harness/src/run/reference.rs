//! The reference client: the board's workload, run by quinn or rumqttc on the host, through the same link model with
//! the same seed.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::link_log::LinkLog;
use super::schedule::{Schedule, Task};
use super::settings;
use super::setup::{Names, TrialError};
use crate::broker::Broker;
use crate::link::{LinkHandle, Setup, SetupError, StreamProxy, UdpProxy};
use crate::measure::record::{Blame, Direction, Event, EventKind, Impairment, Transport, Trial};
use crate::peer::{
    ClientOptions, Clock, Closing, Connector, Implementation, Ledger, Party, QuicTuning, Running, Target,
    Testimony,
};
use crate::scenario::{self, Anchor, Scenario, Variant};
use crate::wire::{Qos, Version, property};

/// Time after the last acknowledgement in which duplicates may still arrive.
const SETTLE: Duration = Duration::from_millis(300);
/// How often the end of the workload is looked for.
const TICK: Duration = Duration::from_millis(20);

/// One trial of the reference client.
pub struct Reference<'r> {
    /// The scenario.
    pub scenario: &'r Scenario,
    /// The variant of this trial.
    pub variant: &'r Variant,
    /// The seed of link and workload.
    pub seed: u64,
    /// Names of this trial's topics and clients.
    pub names: &'r Names,
    /// The trial's clock.
    pub clock: Clock,
    /// The peer's way to the broker, unimpaired.
    pub peer: Arc<Connector>,
    /// The name in the broker's certificate.
    pub server_name: &'r str,
}

impl Reference<'_> {
    /// Runs the trial and fills in its record.
    pub async fn run(
        &mut self,
        broker: &mut Broker,
        setup: Setup,
        log: &Path,
        trial: &mut Trial,
    ) -> Result<(), TrialError> {
        let (link, address) = self.start_link(broker, setup, trial)?;
        let link_offset_us = self.clock.us(link.started());
        let mut ledger = Ledger::new();
        let result = self.converse(broker, &link, address, &mut ledger, trial).await;
        let summary = link.stop();
        let end_us = self.clock.now_us();
        let closing = if result.is_ok() { Closing::Complete } else { Closing::Early };
        let account = ledger.close(closing);
        (trial.topics, trial.messages) = (account.topics, account.messages);
        trial.notes.extend(account.contradictions);
        trial.notes.extend(summary.failure);
        match LinkLog::read(log, link_offset_us) {
            Ok(log) => {
                trial.impairments.extend(log.impairments(end_us));
                log.count_connections(&mut trial.connections);
                let begin = trial.messages.iter().map(|message| message.intended_us).min().unwrap_or(end_us);
                let settled = trial
                    .messages
                    .iter()
                    .filter_map(|message| message.acked_us.max(message.delivered_us))
                    .max();
                trial.wire = log.phases(begin, settled.unwrap_or(end_us));
                trial.link_up =
                    Some(log.stats(link::Direction::Up, Some(summary.stats.up.scheduling_error.p99_us)));
                trial.link_down =
                    Some(log.stats(link::Direction::Down, Some(summary.stats.down.scheduling_error.p99_us)));
            }
            Err(problem) => trial.notes.push(problem),
        }
        trial.impairments.sort_by_key(|impairment| impairment.start_us);
        result
    }

    fn start_link(
        &self,
        broker: &Broker,
        setup: Setup,
        trial: &mut Trial,
    ) -> Result<(LinkHandle, SocketAddr), TrialError> {
        let transport = self.variant.transport;
        let server = broker.addresses().get(transport).ok_or_else(|| {
            TrialError::new("link", Blame::Environment, format!("the broker does not serve {transport}"))
        })?;
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let started: Result<_, SetupError> = if transport == Transport::Quic {
            UdpProxy { setup, listen, server }.start()
        } else {
            trial.notes.push(format!("reference over {transport}: the link has {} here", StreamProxy::LABEL));
            StreamProxy { setup, listen, server }.start()
        };
        started.map_err(|error| TrialError::new("link", Blame::Environment, error))
    }

    async fn converse(
        &mut self,
        broker: &mut Broker,
        link: &LinkHandle,
        address: SocketAddr,
        ledger: &mut Ledger,
        trial: &mut Trial,
    ) -> Result<(), TrialError> {
        let mut schedule = Schedule::new(&self.scenario.steps, &self.names.board);
        reach(link, &mut schedule, Anchor::Start);
        let peer = self.party(Implementation::Own, Arc::clone(&self.peer), &self.names.peer, true)?;
        let subject = self.subject(broker, address)?;
        let limits = self.scenario.limits;
        let fail = |phase, error: &dyn std::fmt::Display| TrialError::new(phase, Blame::Environment, error);
        peer.connected().await.map_err(|error| fail("peer", &error))?;
        let connected = tokio::time::timeout(limits.connect, subject.connected()).await;
        if let Ok(Err(_)) | Err(_) = &connected {
            let why = match connected {
                Ok(Err(error)) => error.to_string(),
                _ => format!("no CONNACK within {:?}", limits.connect),
            };
            record(trial, subject.finish().await);
            return Err(TrialError::new("connect", Blame::Subject, why));
        }
        reach(link, &mut schedule, Anchor::Connected);
        subscribe(&peer, &self.names.up).await?;
        subscribe(&subject, &self.names.down).await?;

        let (up, down) = self.start_workloads(&subject, &peer, ledger)?;
        reach(link, &mut schedule, Anchor::Workload);
        let deadline = tokio::time::Instant::now() + limits.workload + limits.drain;
        let worked = self.work(broker, &subject, &peer, &mut schedule, ledger, deadline, trial).await;
        for (running, run) in [(up, self.names.run), (down, self.names.down_run)] {
            if let Some(running) = running {
                running.stop().await.iter().for_each(|sending| ledger.sending(run, sending));
            }
        }
        let testimony = subject.finish().await;
        testimony.arrivals.iter().for_each(|arrival| ledger.arrival(Direction::ToBoard, arrival));
        record(trial, testimony);
        peer.finish().await.arrivals.iter().for_each(|arrival| ledger.arrival(Direction::FromBoard, arrival));
        worked
    }

    fn subject(&self, broker: &Broker, address: SocketAddr) -> Result<Party, TrialError> {
        let options = &self.variant.connection;
        let transport = self.variant.transport;
        let trust = broker.trust().roots;
        let mut target = Target::new(transport, address, self.server_name, trust);
        let failed = |error: &dyn std::fmt::Display| TrialError::new("connect", Blame::Harness, error);
        target.resumption = settings::resumption(options.resumption);
        target.quic = QuicTuning {
            idle_timeout: Some(options.idle_timeout).filter(|timeout| !timeout.is_zero()),
            keep_alive: Some(options.quic_keep_alive).filter(|interval| !interval.is_zero()),
        };
        if options.client_certificate {
            target.identity =
                Some(broker.certificates().client(&self.names.board).map_err(|error| failed(&error))?);
        }
        let connector = Connector::new(target).map(Arc::new).map_err(|error| failed(&error))?;
        let rumqttc = transport != Transport::Quic && options.mqtt == scenario::MqttVersion::V5;
        let implementation = if rumqttc { Implementation::Rumqttc } else { Implementation::Own };
        self.party(implementation, connector, &self.names.board, false)
    }

    fn party(
        &self,
        implementation: Implementation,
        connector: Arc<Connector>,
        client_id: &str,
        is_peer: bool,
    ) -> Result<Party, TrialError> {
        let options = &self.variant.connection;
        let version = match options.mqtt {
            scenario::MqttVersion::V311 if !is_peer => Version::V311,
            _ => Version::V5,
        };
        let mut client = ClientOptions::new(version, client_id);
        client.reconnection = if is_peer {
            device::control::Reconnection::Backoff { first_ms: 100, max_ms: 1_000, attempts: 0 }
        } else {
            settings::reconnection(options)
        };
        if !is_peer {
            client.connect_limit = self.scenario.limits.connect;
            client.connect.clean_start = options.clean_start;
            client.connect.keep_alive_s = u16::try_from(options.keep_alive.as_secs()).unwrap_or(u16::MAX);
            if version == Version::V5 {
                let expiry_s = u32::try_from(options.session_expiry.as_secs()).unwrap_or(u32::MAX);
                client.connect.properties = std::mem::take(&mut client.connect.properties)
                    .with_u32(property::SESSION_EXPIRY_INTERVAL, expiry_s);
            }
        }
        Party::start(implementation, connector, client, self.clock)
            .map_err(|error| TrialError::new("connect", Blame::Harness, error))
    }

    fn start_workloads(
        &self,
        subject: &Party,
        peer: &Party,
        ledger: &mut Ledger,
    ) -> Result<(Option<Running>, Option<Running>), TrialError> {
        let Names { run, down_run, up, down, .. } = self.names;
        let drain = self.scenario.limits.drain;
        let start_us = self.clock.now_us();
        let mut start = |flow: Option<scenario::Flow>, run, topics, direction, sender: &Party| {
            let Some(flow) = flow else { return Ok(None) };
            let workload = settings::workload(&flow, run, self.seed, topics, drain)
                .map_err(|cause| TrialError::new("workload", Blame::Harness, cause))?;
            ledger.plan(direction, &workload, start_us);
            Ok(Some(sender.start_workload(workload)))
        };
        let up = start(self.scenario.up, *run, up, Direction::FromBoard, subject)?;
        let down = start(self.scenario.down, *down_run, down, Direction::ToBoard, peer)?;
        Ok((up, down))
    }

    #[expect(clippy::too_many_arguments, reason = "the loop of one function, apart for its length")]
    async fn work(
        &self,
        broker: &mut Broker,
        subject: &Party,
        peer: &Party,
        schedule: &mut Schedule,
        ledger: &Ledger,
        deadline: tokio::time::Instant,
        trial: &mut Trial,
    ) -> Result<(), TrialError> {
        let up = ledger.planned(Direction::FromBoard);
        let down = ledger.planned(Direction::ToBoard);
        let mut open: Vec<Impairment> = Vec::new();
        loop {
            while let Some(task) = schedule.take_due(std::time::Instant::now()) {
                self.perform(task, broker, subject, trial, &mut open).await?;
            }
            let all = peer.arrived_count() >= up
                && subject.arrived_count() >= down
                && schedule.next_due().is_none();
            if all || tokio::time::Instant::now() >= deadline {
                tokio::time::sleep(SETTLE).await;
                let now_us = self.clock.now_us();
                open.iter_mut().for_each(|impairment| impairment.end_us = now_us);
                trial.impairments.append(&mut open);
                return Ok(());
            }
            tokio::time::sleep(TICK).await;
        }
    }

    async fn perform(
        &self,
        task: Task,
        broker: &mut Broker,
        subject: &Party,
        trial: &mut Trial,
        open: &mut Vec<Impairment>,
    ) -> Result<(), TrialError> {
        let at_us = self.clock.now_us();
        trial.events.push(Event { at_us, kind: EventKind::Step, detail: format!("{task:?}") });
        let apply = |error: crate::broker::BrokerError| TrialError::new("step", Blame::Environment, error);
        match task {
            Task::Reconnect(_) => subject.client().reconnect(),
            Task::Fault(fault, kind) => {
                broker.apply(&fault).await.map_err(apply)?;
                if let Some(kind) = kind {
                    let label = fault.to_string();
                    open.push(Impairment { start_us: at_us, end_us: at_us, kind, direction: None, label });
                }
            }
            Task::Heal(fault, kind) => {
                broker.apply(&fault).await.map_err(apply)?;
                if let Some(index) = open.iter().position(|impairment| impairment.kind == kind) {
                    let mut impairment = open.remove(index);
                    impairment.end_us = self.clock.now_us();
                    trial.impairments.push(impairment);
                }
            }
            Task::Migrate | Task::UpdateKeys | Task::ResetBoard | Task::CrashBoard(_) | Task::TakeOver => {
                trial.notes.push(format!("the reference client has no counterpart of {task:?}"));
            }
        }
        Ok(())
    }
}

fn reach(link: &LinkHandle, schedule: &mut Schedule, anchor: Anchor) {
    link.event(anchor.name());
    schedule.anchor(anchor, std::time::Instant::now());
}

async fn subscribe(party: &Party, topics: &[String]) -> Result<(), TrialError> {
    let filters: Vec<&str> = topics.iter().map(String::as_str).collect();
    if filters.is_empty() {
        return Ok(());
    }
    party
        .subscribe(&filters, Qos::ExactlyOnce)
        .await
        .map_err(|error| TrialError::new("subscribe", Blame::Environment, error))
}

fn record(trial: &mut Trial, testimony: Testimony) {
    trial.connections = testimony.log.connections;
    trial.events.extend(testimony.log.events);
    trial.events.sort_by_key(|event| event.at_us);
    trial.transport_stats = testimony.log.stats;
}
