//! The reference client: the board's workload, run by quinn or rumqttc on the host, through the same link model with
//! the same seed.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::journal::Journal;
use super::schedule::{Schedule, Task};
use super::settings;
use super::setup::TrialError;
use super::stage::{Stage, Watch, limited, unless_interrupted};
use crate::broker::Broker;
use crate::link::{LinkHandle, Setup, SetupError, StreamProxy, UdpProxy};
use crate::measure::record::{Blame, Direction, Transport, Trial};
use crate::peer::{Connector, Implementation, Ledger, Party, QuicTuning, Running, Target, Testimony};
use crate::scenario::{Anchor, MqttVersion};

/// How often the end of the workload is looked for.
const TICK: Duration = Duration::from_millis(20);

/// Starts the link in front of the broker; its address stands for the broker's.
pub fn start_link(
    broker: &Broker,
    transport: Transport,
    setup: Setup,
    trial: &mut Trial,
) -> Result<(LinkHandle, SocketAddr), TrialError> {
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

/// One trial of the reference client.
pub struct Reference<'r> {
    /// What it has in common with one of the board.
    pub stage: Stage<'r>,
    /// Where it connects to: the link's near end.
    pub address: SocketAddr,
    /// The name in the broker's certificate.
    pub server_name: &'r str,
    /// Ends the trial early.
    pub cancel: CancellationToken,
}

impl Reference<'_> {
    /// Runs the trial to its end or to its failure; either way, what it brought in is in `ledger`, `journal` and
    /// `trial`.
    pub async fn run(
        &mut self,
        ledger: &mut Ledger,
        journal: &mut Journal,
        trial: &mut Trial,
    ) -> Result<(), TrialError> {
        let mut schedule = Schedule::new(&self.stage.scenario.steps, &self.stage.names.board);
        let cancel = self.cancel.clone();
        self.stage.reach(Anchor::Start, &mut schedule);
        if self.stage.scenario.refusal.is_some() {
            let subject = self.subject()?;
            let refused = async {
                // How it ends is judged by the connections it records.
                let _ = tokio::time::timeout(self.stage.scenario.limits.connect, subject.connected()).await;
                self.stage.heard_refusal().await
            };
            let heard = unless_interrupted(&cancel, refused).await;
            record(trial, subject.finish().await);
            return heard;
        }
        let peer = unless_interrupted(&cancel, self.stage.start_peer()).await?;
        let subject = self.subject()?;
        if let Err(error) = unless_interrupted(&cancel, self.connect(&subject, &mut schedule)).await {
            record(trial, subject.finish().await);
            return Err(error);
        }

        // Before the first message is due, as with a board: steps come just before a message in both.
        self.stage.reach(Anchor::Workload, &mut schedule);
        let start_us = self.stage.clock.now_us();
        let workloads = self.stage.plan(ledger, start_us)?;
        let up = workloads.up.map(|up| subject.start_workload(up));
        let down = workloads.down.map(|down| peer.start_workload(down));
        let work = self.work((&subject, up.as_ref()), &peer, &mut schedule, ledger, journal);
        let worked = unless_interrupted(&cancel, work).await;
        let runs = [(up, self.stage.names.run), (down, self.stage.names.down_run)];
        for (running, run) in runs {
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

    async fn connect(&self, subject: &Party, schedule: &mut Schedule) -> Result<(), TrialError> {
        limited("connect", self.stage.scenario.limits.connect, Blame::Subject, subject.connected()).await?;
        self.stage.reach(Anchor::Connected, schedule);
        self.stage.subscribe(subject, &self.stage.names.down).await
    }

    fn subject(&self) -> Result<Party, TrialError> {
        let Stage { scenario, variant, names, .. } = self.stage;
        let (options, transport) = (&variant.connection, variant.transport);
        let mut target =
            Target::new(transport, self.address, self.server_name, self.stage.trust.roots.clone());
        let failed = |error: &dyn std::fmt::Display| TrialError::new("connect", Blame::Harness, error);
        target.resumption = settings::resumption(options.resumption);
        target.quic = QuicTuning {
            idle_timeout: Some(options.idle_timeout).filter(|timeout| !timeout.is_zero()),
            keep_alive: Some(options.quic_keep_alive).filter(|interval| !interval.is_zero()),
        };
        if options.client_certificate {
            let certificates = self.stage.broker.certificates();
            target.identity = Some(certificates.client(&names.board).map_err(|error| failed(&error))?);
        }
        let connector = Connector::new(target).map(Arc::new).map_err(|error| failed(&error))?;
        let rumqttc = transport != Transport::Quic && options.mqtt == MqttVersion::V5;
        let implementation = if rumqttc { Implementation::Rumqttc } else { Implementation::Own };
        let client = settings::client_options(variant, &names.board, scenario.limits.connect);
        Party::start(implementation, connector, client, self.stage.clock).map_err(|error| failed(&error))
    }

    /// Performs the steps until the workload is done: every message has arrived, and the subject knows that its own have.
    async fn work(
        &mut self,
        (subject, publishing): (&Party, Option<&Running>),
        peer: &Party,
        schedule: &mut Schedule,
        ledger: &Ledger,
        journal: &mut Journal,
    ) -> Result<(), TrialError> {
        let up = ledger.planned(Direction::FromBoard);
        let down = ledger.planned(Direction::ToBoard);
        let mut watch = Watch::new(self.stage.scenario.limits);
        loop {
            while let Some(task) = schedule.take_due(Instant::now()) {
                match self.stage.perform(task, peer, journal).await? {
                    None => {}
                    Some(Task::Reconnect(_)) => subject.client().reconnect(),
                    Some(task) => {
                        journal.note(format!("the reference client has no counterpart of {task:?}"));
                    }
                }
            }
            let complete = publishing.is_none_or(Running::is_over)
                && peer.arrived_count() >= up
                && subject.arrived_count() >= down
                && schedule.next_due().is_none();
            if watch.over(complete, Instant::now()).is_some() {
                return Ok(());
            }
            tokio::time::sleep(TICK).await;
        }
    }
}

fn record(trial: &mut Trial, testimony: Testimony) {
    trial.connections = testimony.log.connections;
    trial.events = testimony.log.events;
    trial.transport_stats = testimony.log.stats;
}
