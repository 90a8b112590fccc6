//! One trial of the board: network, board, peer and steps brought together in one loop.
//!
//! The loop owns everything that changes and waits for whatever comes first: the board's word, the peer's, a step
//! that is due, or the end of a phase's time. It only gathers; [`super::assembly`] makes the trial's record of it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use device::control::{self, Request, Subscription};
use tokio_util::sync::CancellationToken;

use super::gathered::Gathered;
use super::schedule::{Schedule, Task};
use super::settings;
use super::setup::{Names, TrialError};
use crate::board::{Board, BoardError, Output, Timed};
use crate::broker::Broker;
use crate::link::LinkHandle;
use crate::measure::record::{Blame, Direction, EventKind};
use crate::peer::{ClientOptions, Clock, Connector, Implementation, Party, Running};
use crate::scenario::{Anchor, Manner, Scenario, Variant};
use crate::wire::{Qos, Version};

/// Pings at the start and at the end of a trial: the best of them fixes the board's clock.
const PINGS: usize = 8;
/// Time after the last acknowledgement in which duplicates may still arrive.
const SETTLE: Duration = Duration::from_millis(300);
/// Longest wait for the answer to a command of a step.
const WAIT_STEP: Duration = Duration::from_millis(200);

/// What one trial needs from its run.
pub struct Director<'r> {
    /// The scenario.
    pub scenario: &'r Scenario,
    /// The variant of this trial.
    pub variant: &'r Variant,
    /// The seed of link, board and workload.
    pub seed: u64,
    /// Names of this trial's topics and clients.
    pub names: &'r Names,
    /// The broker.
    pub broker: &'r mut Broker,
    /// The board, started.
    pub board: Board,
    /// Its virtual network, or the proxy of a real one.
    pub link: &'r LinkHandle,
    /// How the board finds the broker.
    pub destination: settings::Destination,
    /// The peer's way to the broker, unimpaired.
    pub peer: Arc<Connector>,
    /// The trial's clock.
    pub clock: Clock,
    /// Ends the trial early.
    pub cancel: CancellationToken,
}

/// Where the trial stands.
struct State {
    schedule: Schedule,
    workload_done: bool,
    /// Down messages that the board has, by number.
    received: HashSet<u32>,
    connected: bool,
    addressed: bool,
    subscribed: usize,
}

impl Director<'_> {
    /// Runs the trial to its end or to its failure; either way, what was gathered comes back.
    pub async fn run(mut self) -> (Gathered, Result<(), TrialError>) {
        let mut gathered = Gathered::new(self.names.down_run);
        let cancel = self.cancel.clone();
        let result = tokio::select! {
            result = self.phases(&mut gathered) => result,
            () = cancel.cancelled() => Err(TrialError::interrupted()),
        };
        gathered.end_life(self.board.clock().clone());
        self.board.kill().await;
        (gathered, result)
    }

    async fn phases(&mut self, gathered: &mut Gathered) -> Result<(), TrialError> {
        let mut state = State {
            schedule: Schedule::new(&self.scenario.steps, &self.names.board),
            workload_done: self.scenario.up.is_none(),
            received: HashSet::new(),
            connected: false,
            addressed: false,
            subscribed: 0,
        };
        self.reach(Anchor::Start, &mut state);
        let peer = self.start_peer().await?;
        self.configure(gathered, &mut state).await?;
        self.connect(gathered, &mut state).await?;
        let down = self.start_workload(&peer, gathered, &mut state).await?;
        let worked = self.work(&peer, gathered, &mut state).await;
        if let Some(down) = down {
            gathered.sendings = down.stop().await;
        }
        let parted = match worked {
            Ok(()) => self.part(gathered).await,
            Err(error) => Err(error),
        };
        gathered.arrivals = peer.finish().await.arrivals;
        parted
    }

    /// Connects the verifying peer and subscribes it to everything the board will publish.
    async fn start_peer(&self) -> Result<Party, TrialError> {
        let fail = |error: &dyn std::fmt::Display| TrialError::new("peer", Blame::Environment, error);
        let mut options = ClientOptions::new(Version::V5, &self.names.peer);
        // The peer outlives a broker that is restarted on purpose.
        options.reconnection = control::Reconnection::Backoff { first_ms: 100, max_ms: 1_000, attempts: 0 };
        let peer = Party::start(Implementation::Own, Arc::clone(&self.peer), options, self.clock)
            .map_err(|error| fail(&error))?;
        peer.connected().await.map_err(|error| fail(&error))?;
        let filters: Vec<&str> = self.names.up.iter().map(String::as_str).collect();
        if !filters.is_empty() {
            peer.subscribe(&filters, Qos::ExactlyOnce).await.map_err(|error| fail(&error))?;
        }
        Ok(peer)
    }

    async fn configure(&mut self, gathered: &mut Gathered, state: &mut State) -> Result<(), TrialError> {
        let limits = self.scenario.limits;
        let certificates = Arc::clone(self.broker.certificates());
        let fail = |error: BoardError| TrialError::new("configure", Blame::Environment, error);
        // Without TLS there is none.
        if let Some(anchor) = self.broker.trust().anchor {
            self.board.send_blob(control::BlobKind::TrustAnchor, &anchor).await.map_err(fail)?;
        }
        if self.variant.connection.client_certificate {
            let identity = certificates
                .client(&self.names.board)
                .map_err(|error| TrialError::new("configure", Blame::Harness, error))?;
            let chain: Vec<u8> = identity.chain.iter().flat_map(|der| der.iter().copied()).collect();
            self.board.send_blob(control::BlobKind::ClientCertificate, &chain).await.map_err(fail)?;
            self.board
                .send_blob(control::BlobKind::ClientKey, identity.key().secret_der())
                .await
                .map_err(fail)?;
        }
        let settings = settings::settings(self.variant, &self.destination, &self.names.board, limits.connect)
            .map_err(|cause| TrialError::new("configure", Blame::Harness, cause))?;
        self.board.synchronise(PINGS).await.map_err(fail)?;
        self.board.command(Request::Configure(settings)).await.map_err(fail)?;
        self.until("network up", limits.boot, gathered, state, |state| state.addressed).await
    }

    async fn connect(&mut self, gathered: &mut Gathered, state: &mut State) -> Result<(), TrialError> {
        let limit = self.scenario.limits.connect;
        self.command("connect", Request::Connect).await?;
        self.until("connect", limit, gathered, state, |state| state.connected).await?;
        let down = self.names.down.clone();
        for topic in &down {
            let filter = settings::topic(topic)
                .map_err(|cause| TrialError::new("subscribe", Blame::Harness, cause))?;
            self.command("subscribe", Request::Subscribe(Subscription { filter, qos: 2 })).await?;
        }
        self.until("subscribe", limit, gathered, state, |state| state.subscribed >= down.len()).await
    }

    /// Starts the messages of both directions; what the peer sends is returned, to be ended.
    async fn start_workload(
        &mut self,
        peer: &Party,
        gathered: &mut Gathered,
        state: &mut State,
    ) -> Result<Option<Running>, TrialError> {
        let Names { run, down_run, up, down, .. } = self.names;
        let drain = self.scenario.limits.drain;
        let workload = |flow, run, topics| {
            settings::workload(flow, run, self.seed, topics, drain)
                .map_err(|cause| TrialError::new("workload", Blame::Harness, cause))
        };
        let up = self.scenario.up.as_ref().map(|flow| workload(flow, *run, up)).transpose()?;
        let down = self.scenario.down.as_ref().map(|flow| workload(flow, *down_run, down)).transpose()?;
        self.reach(Anchor::Workload, state);
        let start_us = self.clock.now_us();
        gathered.workload_us = Some(start_us);
        if let Some(up) = up {
            gathered.ledger.plan(Direction::FromBoard, &up, start_us);
            self.command("workload", Request::StartWorkload(up)).await?;
        }
        Ok(down.map(|down| {
            gathered.ledger.plan(Direction::ToBoard, &down, start_us);
            peer.start_workload(down)
        }))
    }

    /// From the first intended message to the last acknowledgement and arrival.
    async fn work(
        &mut self,
        peer: &Party,
        gathered: &mut Gathered,
        state: &mut State,
    ) -> Result<(), TrialError> {
        let limits = self.scenario.limits;
        let deadline = Instant::now() + limits.workload + limits.drain;
        let up_count = gathered.ledger.planned(Direction::FromBoard);
        let down_count = gathered.ledger.planned(Direction::ToBoard);
        let mut done_at = None;
        loop {
            while let Some(task) = state.schedule.take_due(Instant::now()) {
                self.perform(task, gathered, state).await?;
            }
            let now = Instant::now();
            let complete = state.workload_done
                && state.received.len() >= down_count
                && peer.arrived_count() >= up_count
                && state.schedule.next_due().is_none();
            let done = complete.then(|| *done_at.get_or_insert(now));
            if done.is_some_and(|done| now >= done + SETTLE) || now >= deadline {
                gathered.workload_end_us = Some(self.clock.us(done.unwrap_or(now)));
                return Ok(());
            }
            let wake = [state.schedule.next_due(), done.map(|done| done + SETTLE), Some(deadline)];
            let wake = wake.into_iter().flatten().min().unwrap_or(deadline).saturating_duration_since(now);
            tokio::select! {
                output = self.board.next(wake) => {
                    if let Some(output) = output.map_err(|error| self.died("workload", &error, gathered))? {
                        self.hear(output, gathered, state);
                    }
                }
                () = peer.arrived(up_count), if peer.arrived_count() < up_count => {}
            }
        }
    }

    async fn perform(
        &mut self,
        task: Task,
        gathered: &mut Gathered,
        state: &mut State,
    ) -> Result<(), TrialError> {
        let at_us = self.clock.now_us();
        gathered.event(at_us, EventKind::Step, format!("{task:?}"));
        match task {
            Task::Reconnect(manner) => {
                let manner = match manner {
                    Manner::Graceful => control::Manner::Graceful,
                    Manner::Abrupt => control::Manner::Abrupt,
                };
                gathered.expect_reconnect();
                self.ask(Request::Reconnect(manner), gathered).await;
            }
            Task::Migrate => {
                self.ask(Request::Migrate(control::Migration { port: 0, address: None }), gathered).await;
            }
            Task::UpdateKeys => self.ask(Request::UpdateKeys, gathered).await,
            Task::ResetBoard => return self.reset(gathered, state).await,
            Task::CrashBoard(fault) => self.ask(Request::Crash(settings::fault(fault)), gathered).await,
            Task::Fault(fault, kind) => {
                self.apply(&fault).await?;
                if let Some(kind) = kind {
                    gathered.disturb(self.clock.now_us(), kind, &fault.to_string());
                }
            }
            Task::Heal(fault, kind) => {
                self.apply(&fault).await?;
                gathered.heal(self.clock.now_us(), kind);
            }
            Task::TakeOver => self.take_over().await?,
        }
        Ok(())
    }

    async fn apply(&mut self, fault: &crate::broker::Fault) -> Result<(), TrialError> {
        self.broker.apply(fault).await.map_err(|error| TrialError::new("step", Blame::Environment, error))
    }

    /// Sends the command of a step; a refusal is an event, since the board may be between connections.
    async fn ask(&mut self, request: Request, gathered: &mut Gathered) {
        let commander = self.board.commander();
        let answer = tokio::time::timeout(WAIT_STEP, commander.command(request)).await;
        if let Ok(Err(error)) = answer {
            gathered.event(self.clock.now_us(), EventKind::Step, format!("not carried out: {error}"));
        }
    }

    async fn reset(&mut self, gathered: &mut Gathered, state: &mut State) -> Result<(), TrialError> {
        gathered.end_life(self.board.clock().clone());
        self.board.reset().await.map_err(|error| TrialError::new("reset", Blame::Environment, error))?;
        gathered.event(self.clock.now_us(), EventKind::BoardReset, "reset by the scenario");
        (state.addressed, state.connected, state.subscribed) = (false, false, 0);
        self.configure(gathered, state).await?;
        self.connect(gathered, state).await
    }

    /// Connects with the board's client identifier, which makes the broker end the board's session.
    async fn take_over(&mut self) -> Result<(), TrialError> {
        let fail = |error: &dyn std::fmt::Display| TrialError::new("step", Blame::Environment, error);
        let options = ClientOptions::new(Version::V5, &self.names.board);
        let usurper = Party::start(Implementation::Own, Arc::clone(&self.peer), options, self.clock)
            .map_err(|error| fail(&error))?;
        usurper.connected().await.map_err(|error| fail(&error))?;
        usurper.finish().await;
        Ok(())
    }

    /// Takes the last figures and says goodbye.
    async fn part(&mut self, gathered: &mut Gathered) -> Result<(), TrialError> {
        self.command("finish", Request::Snapshot).await?;
        let fail = |error: BoardError| TrialError::new("finish", Blame::Subject, error);
        self.board.synchronise(PINGS).await.map_err(fail)?;
        self.ask(Request::Disconnect, gathered).await;
        while let Some(output) = self.board.next(Duration::from_millis(50)).await.map_err(fail)? {
            gathered.on_board(output);
        }
        Ok(())
    }

    /// Listens to the board until `reached`, for at most `limit`.
    async fn until(
        &mut self,
        phase: &'static str,
        limit: Duration,
        gathered: &mut Gathered,
        state: &mut State,
        reached: impl Fn(&State) -> bool,
    ) -> Result<(), TrialError> {
        let deadline = Instant::now() + limit;
        while !reached(state) {
            let left = deadline.saturating_duration_since(Instant::now());
            let output = self.board.next(left).await.map_err(|error| self.died(phase, &error, gathered))?;
            match output {
                Some(output) => self.hear(output, gathered, state),
                None => {
                    let last =
                        gathered.last_failure().unwrap_or_else(|| "the board reported no cause".to_owned());
                    let cause = format!("not reached within {limit:?}: {last}");
                    return Err(TrialError::new(phase, Blame::Subject, cause));
                }
            }
        }
        Ok(())
    }

    fn hear(&mut self, output: Timed<Output>, gathered: &mut Gathered, state: &mut State) {
        if let Output::Report(report) = &output.what {
            match report {
                control::Report::Event { event, .. } => match event {
                    control::Event::AddressAcquired { .. } => state.addressed = true,
                    control::Event::MqttConnected { .. } if !state.connected => {
                        state.connected = true;
                        self.reach(Anchor::Connected, state);
                    }
                    control::Event::Subscribed { .. } => state.subscribed += 1,
                    _ => {}
                },
                control::Report::Samples(samples) => {
                    for sample in &samples.samples {
                        if let control::Sample::Received { run, sequence, .. } = sample
                            && *run == self.names.down_run
                        {
                            state.received.insert(*sequence);
                        }
                    }
                }
                control::Report::WorkloadDone(result) => {
                    state.workload_done = result.end != control::WorkloadEnd::Stopped;
                }
                _ => {}
            }
        }
        gathered.on_board(output);
    }

    /// Tells the link and the schedule that `anchor` has come.
    fn reach(&self, anchor: Anchor, state: &mut State) {
        self.link.event(anchor.name());
        state.schedule.anchor(anchor, Instant::now());
    }

    async fn command(&mut self, phase: &'static str, request: Request) -> Result<(), TrialError> {
        self.board
            .command(request)
            .await
            .map(drop)
            .map_err(|error| TrialError::new(phase, Blame::Subject, error))
    }

    fn died(&self, phase: &'static str, error: &BoardError, gathered: &mut Gathered) -> TrialError {
        gathered.event(self.clock.now_us(), EventKind::BoardFault, error.to_string());
        TrialError::new(phase, Blame::Subject, error)
    }
}
