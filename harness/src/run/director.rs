//! One trial of the board: network, board, peer and steps brought together in one loop.
//!
//! The loop owns everything that changes and waits for whatever comes first: the board's word, the peer's, a step
//! that is due, or the end of a phase's time. It only gathers; [`Gathered`] makes the trial's record of it.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use device::control::{self, Request, Subscription};
use tokio_util::sync::CancellationToken;

use super::gathered::Gathered;
use super::refusal;
use super::schedule::{Schedule, Task};
use super::settings;
use super::setup::TrialError;
use super::stage::{Stage, Watch, unless_interrupted};
use crate::board::{Board, BoardError, Output, Timed};
use crate::measure::record::{Blame, Direction, EventKind};
use crate::peer::{Party, Running};
use crate::scenario::{Anchor, Manner};

/// Pings at the start and at the end of a trial: the best of them fixes the board's clock.
const PINGS: usize = 8;
/// Longest wait for the answer to a command of a step.
const WAIT_STEP: Duration = Duration::from_millis(200);
/// Silence of a working board after which it is asked whether it is still there.
const SILENCE_LIMIT: Duration = Duration::from_secs(3);

/// Time an interrupted board has to tell what it has not told yet.
const LAST_WORD_LIMIT: Duration = Duration::from_secs(1);

/// What one trial of the board needs.
pub struct Director<'r> {
    /// What it has in common with one of the reference client.
    pub stage: Stage<'r>,
    /// The board, started.
    pub board: Board,
    /// How the board finds the broker.
    pub destination: settings::Destination,
    /// The board can account for its time, as one of silicon can.
    pub accounts: bool,
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
    /// There is a connection now.
    online: bool,
    /// Reconnects that wait for a connection to leave.
    reconnects: VecDeque<Manner>,
    /// A step's reconnect is under way.
    reconnecting: bool,
    /// An attempt to connect has failed.
    failed: bool,
    addressed: bool,
    subscribed: usize,
    /// When the board last said something.
    heard: Instant,
}

impl Director<'_> {
    /// Runs the trial to its end or to its failure; either way, what was gathered comes back.
    pub async fn run(mut self) -> (Gathered, Result<(), TrialError>) {
        let mut gathered = Gathered::new(self.stage.names.down_run);
        let result = self.phases(&mut gathered).await;
        gathered.end_life(self.board.clock().clone());
        self.board.kill().await;
        (gathered, result)
    }

    async fn phases(&mut self, gathered: &mut Gathered) -> Result<(), TrialError> {
        let mut state = State {
            schedule: Schedule::new(&self.stage.scenario.steps, &self.stage.names.board),
            workload_done: self.stage.scenario.up.is_none(),
            received: HashSet::new(),
            connected: false,
            online: false,
            reconnects: VecDeque::new(),
            reconnecting: false,
            failed: false,
            addressed: false,
            subscribed: 0,
            heard: Instant::now(),
        };
        let cancel = self.cancel.clone();
        self.stage.reach(Anchor::Start, &mut state.schedule);
        if self.stage.scenario.refusal.is_some() {
            return unless_interrupted(&cancel, self.be_refused(gathered, &mut state)).await;
        }
        let peer = unless_interrupted(&cancel, self.stage.start_peer()).await?;
        let ready = async {
            self.configure(gathered, &mut state).await?;
            self.connect(gathered, &mut state).await?;
            self.start_workload(&peer, gathered, &mut state).await
        };
        let down = unless_interrupted(&cancel, ready).await?;
        let worked = unless_interrupted(&cancel, self.work(&peer, gathered, &mut state)).await;
        // However the work ended: what was sent and what arrived until then is told.
        if let Some(down) = down {
            gathered.sendings = down.stop().await;
        }
        let parted = match worked {
            Ok(()) => unless_interrupted(&cancel, self.part(gathered)).await,
            Err(error) => {
                if error.is_interruption() {
                    // The samples that the board has not told yet.
                    let _ = tokio::time::timeout(LAST_WORD_LIMIT, self.part(gathered)).await;
                }
                Err(error)
            }
        };
        gathered.arrivals = peer.finish().await.arrivals;
        parted
    }

    /// The trial of a scenario that wants the connection refused: one attempt, whose end is judged later.
    async fn be_refused(&mut self, gathered: &mut Gathered, state: &mut State) -> Result<(), TrialError> {
        self.configure(gathered, state).await?;
        self.command("connect", Request::Connect, gathered).await?;
        let limit = self.stage.scenario.limits.connect;
        self.until(refusal::PHASE, limit, gathered, state, |state| state.failed || state.connected).await?;
        let heard = self.stage.heard_refusal().await;
        self.part(gathered).await?;
        heard
    }

    async fn configure(&mut self, gathered: &mut Gathered, state: &mut State) -> Result<(), TrialError> {
        if let Err(error) = self.send_settings().await {
            return Err(match error {
                Unsettled::Board(error) => self.failed("configure", Blame::Environment, &error, gathered),
                Unsettled::Harness(cause) => TrialError::new("configure", Blame::Harness, cause),
            });
        }
        let limit = self.stage.scenario.limits.boot;
        self.until("network up", limit, gathered, state, |state| state.addressed).await
    }

    async fn send_settings(&mut self) -> Result<(), Unsettled> {
        let Stage { scenario, variant, names, .. } = self.stage;
        let certificates = Arc::clone(self.stage.broker.certificates());
        // Without TLS there is none.
        if let Some(anchor) = &self.stage.trust.anchor {
            self.board.send_blob(control::BlobKind::TrustAnchor, anchor).await?;
        }
        if variant.connection.client_certificate {
            let identity =
                certificates.client(&names.board).map_err(|error| Unsettled::Harness(error.to_string()))?;
            let chain: Vec<u8> = identity.chain.iter().flat_map(|der| der.iter().copied()).collect();
            self.board.send_blob(control::BlobKind::ClientCertificate, &chain).await?;
            self.board.send_blob(control::BlobKind::ClientKey, identity.key().secret_der()).await?;
        }
        let limit = scenario.limits.connect;
        let settings = settings::settings(variant, &self.destination, &names.board, limit)
            .map_err(Unsettled::Harness)?;
        self.board.synchronise(PINGS).await?;
        self.board.command(Request::Configure(settings)).await?;
        Ok(())
    }

    /// Has the board account for its time: how a stretch of it was spent is the difference of two accounts.
    async fn take_account(&mut self, gathered: &mut Gathered) {
        if self.accounts {
            self.ask(Request::Inspect, gathered).await;
        }
    }

    async fn connect(&mut self, gathered: &mut Gathered, state: &mut State) -> Result<(), TrialError> {
        let limit = self.stage.scenario.limits.connect;
        self.take_account(gathered).await;
        self.command("connect", Request::Connect, gathered).await?;
        self.until("connect", limit, gathered, state, |state| state.connected).await?;
        let down = &self.stage.names.down;
        for topic in down {
            let filter = settings::topic(topic)
                .map_err(|cause| TrialError::new("subscribe", Blame::Harness, cause))?;
            let subscription = Subscription { filter, qos: 2 };
            self.command("subscribe", Request::Subscribe(subscription), gathered).await?;
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
        self.take_account(gathered).await;
        self.stage.reach(Anchor::Workload, &mut state.schedule);
        let start_us = self.stage.clock.now_us();
        gathered.workload_us = Some(start_us);
        let workloads = self.stage.plan(&mut gathered.ledger, start_us)?;
        if let Some(up) = workloads.up {
            self.command("workload", Request::StartWorkload(up), gathered).await?;
        }
        Ok(workloads.down.map(|down| peer.start_workload(down)))
    }

    /// From the first intended message to the last acknowledgement and arrival.
    async fn work(
        &mut self,
        peer: &Party,
        gathered: &mut Gathered,
        state: &mut State,
    ) -> Result<(), TrialError> {
        let mut watch = Watch::new(self.stage.scenario.limits);
        let up_count = gathered.ledger.planned(Direction::FromBoard);
        let down_count = gathered.ledger.planned(Direction::ToBoard);
        state.heard = Instant::now();
        loop {
            while let Some(task) = state.schedule.take_due(Instant::now()) {
                if let Some(task) = self.stage.perform(task, peer, &mut gathered.journal).await? {
                    self.perform(task, gathered, state).await?;
                }
            }
            if state.online
                && let Some(manner) = state.reconnects.pop_front()
            {
                self.reconnect(manner, gathered, state).await;
            }
            let now = Instant::now();
            let complete = state.workload_done
                && state.received.len() >= down_count
                && peer.arrived_count() >= up_count
                && state.schedule.next_due().is_none()
                && state.reconnects.is_empty()
                && !state.reconnecting;
            if let Some(end) = watch.over(complete, now) {
                gathered.workload_end_us = Some(self.stage.clock.us(end));
                gathered.missed = (!complete).then_some("workload");
                return Ok(());
            }
            if now >= state.heard + SILENCE_LIMIT {
                self.is_alive("workload", gathered).await?;
                state.heard = Instant::now();
            }
            let wakes = [state.schedule.next_due(), Some(watch.wake()), Some(state.heard + SILENCE_LIMIT)];
            let wake = wakes.into_iter().flatten().min().unwrap_or(now).saturating_duration_since(now);
            tokio::select! {
                output = self.board.next(wake) => {
                    let output = output
                        .map_err(|error| self.failed("workload", Blame::Subject, &error, gathered))?;
                    if let Some(output) = output {
                        self.hear(output, gathered, state);
                    }
                }
                () = peer.arrived(up_count), if peer.arrived_count() < up_count => {}
            }
        }
    }

    /// A step that is the board's.
    async fn perform(
        &mut self,
        task: Task,
        gathered: &mut Gathered,
        state: &mut State,
    ) -> Result<(), TrialError> {
        match task {
            Task::Reconnect(manner) => state.reconnects.push_back(manner),
            Task::Migrate => {
                self.ask(Request::Migrate(control::Migration { port: 0, address: None }), gathered).await;
            }
            Task::UpdateKeys => self.ask(Request::UpdateKeys, gathered).await,
            Task::ResetBoard => return self.reset(gathered, state).await,
            Task::CrashBoard(fault) => self.ask(Request::Crash(settings::fault(fault)), gathered).await,
            Task::Fault(..) | Task::Heal(..) | Task::TakeOver => {}
        }
        Ok(())
    }

    async fn reconnect(&mut self, manner: Manner, gathered: &mut Gathered, state: &mut State) {
        let manner = match manner {
            Manner::Graceful => control::Manner::Graceful,
            Manner::Abrupt => control::Manner::Abrupt,
        };
        gathered.expect_reconnect();
        // Until the board says that it is back.
        (state.online, state.reconnecting) = (false, true);
        self.ask(Request::Reconnect(manner), gathered).await;
    }

    /// Sends the command of a step; a refusal is an event, since the board may be between connections.
    async fn ask(&mut self, request: Request, gathered: &mut Gathered) {
        let commander = self.board.commander();
        let answer = tokio::time::timeout(WAIT_STEP, commander.command(request)).await;
        if let Ok(Err(error)) = answer {
            let at_us = self.stage.clock.now_us();
            gathered.journal.event(at_us, EventKind::Step, format!("not carried out: {error}"));
        }
    }

    async fn reset(&mut self, gathered: &mut Gathered, state: &mut State) -> Result<(), TrialError> {
        gathered.end_life(self.board.clock().clone());
        self.board
            .reset()
            .await
            .map_err(|error| TrialError::new("reset", Blame::Environment, error.told()))?;
        let at_us = self.stage.clock.now_us();
        gathered.journal.event(at_us, EventKind::BoardReset, "reset by the scenario");
        (state.addressed, state.connected, state.subscribed) = (false, false, 0);
        self.configure(gathered, state).await?;
        self.connect(gathered, state).await
    }

    /// Takes the last figures and says goodbye.
    async fn part(&mut self, gathered: &mut Gathered) -> Result<(), TrialError> {
        self.take_account(gathered).await;
        self.command("finish", Request::Snapshot, gathered).await?;
        let synchronised = self.board.synchronise(PINGS).await.map(drop);
        synchronised.map_err(|error| self.failed("finish", Blame::Subject, &error, gathered))?;
        self.ask(Request::Disconnect, gathered).await;
        loop {
            match self.board.next(Duration::from_millis(50)).await {
                Ok(Some(output)) => gathered.on_board(output),
                Ok(None) => return Ok(()),
                Err(error) => return Err(self.failed("finish", Blame::Subject, &error, gathered)),
            }
        }
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
            match self.board.next(left).await {
                Ok(Some(output)) => {
                    let given_up = abandoned(&output.what);
                    self.hear(output, gathered, state);
                    if let Some(reason) = given_up {
                        let error = BoardError::Abandoned { request: "Subscribe", reason };
                        return Err(self.failed(phase, Blame::Subject, &error, gathered));
                    }
                }
                Ok(None) => {
                    self.is_alive(phase, gathered).await?;
                    gathered.missed = Some(phase);
                    let last = gathered.last_failure();
                    let last = last.as_deref().unwrap_or("the board reported no cause");
                    return Err(TrialError::late(phase, Blame::Subject, limit, last));
                }
                Err(error) => return Err(self.failed(phase, Blame::Subject, &error, gathered)),
            }
        }
        Ok(())
    }

    fn hear(&mut self, output: Timed<Output>, gathered: &mut Gathered, state: &mut State) {
        state.heard = Instant::now();
        if let Output::Report(report) = &output.what {
            match report {
                control::Report::Event { event, .. } => match event {
                    control::Event::AddressAcquired { .. } => state.addressed = true,
                    control::Event::MqttConnected { .. } => {
                        (state.online, state.reconnecting) = (true, false);
                        if !std::mem::replace(&mut state.connected, true) {
                            self.stage.reach(Anchor::Connected, &mut state.schedule);
                        }
                    }
                    control::Event::Subscribed { .. } => state.subscribed += 1,
                    control::Event::Disconnected(_) => (state.failed, state.online) = (true, false),
                    _ => {}
                },
                control::Report::Samples(samples) => {
                    for sample in &samples.samples {
                        if let control::Sample::Received { run, sequence, .. } = sample
                            && *run == self.stage.names.down_run
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

    async fn command(
        &mut self,
        phase: &'static str,
        request: Request,
        gathered: &mut Gathered,
    ) -> Result<(), TrialError> {
        match self.board.command(request).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed(phase, Blame::Subject, &error, gathered)),
        }
    }

    /// Asks a silent board whether it is still there.
    async fn is_alive(&mut self, phase: &'static str, gathered: &mut Gathered) -> Result<(), TrialError> {
        match self.board.synchronise(1).await.map(drop) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.failed(phase, Blame::Subject, &error, gathered)),
        }
    }

    /// An error of the board. One that died or hangs has a fault of its own, whoever is to blame for others.
    fn failed(
        &self,
        phase: &'static str,
        otherwise: Blame,
        error: &BoardError,
        gathered: &mut Gathered,
    ) -> TrialError {
        let silent = match error {
            BoardError::Died(_) | BoardError::Hung { .. } => "",
            BoardError::Timeout { .. } => "the board does not answer: ",
            _ => return TrialError::new(phase, otherwise, error.told()),
        };
        gathered.journal.event(self.stage.clock.now_us(), EventKind::BoardFault, format!("{silent}{error}"));
        // A cable that was pulled is no fault of the firmware's.
        let outside = matches!(error, BoardError::Died(death) if death.remedy.is_some());
        let blame = if outside { Blame::Environment } else { Blame::Subject };
        TrialError::new(phase, blame, format!("{silent}{}", error.told()))
    }
}

/// Why the board gave a command up, if that is what it says: nothing of what is waited for will come then.
fn abandoned(output: &Output) -> Option<control::AbandonReason> {
    match output {
        Output::Report(control::Report::Event {
            event: control::Event::Abandoned { reason, .. }, ..
        }) => Some(*reason),
        _ => None,
    }
}

/// Why a board has no settings.
enum Unsettled {
    Board(BoardError),
    Harness(String),
}

impl From<BoardError> for Unsettled {
    fn from(error: BoardError) -> Self {
        Self::Board(error)
    }
}
