//! What a trial of the board and one of the reference client have in common: the peer, the workload, what is done to
//! the broker, and when the work is over.

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use device::control::Workload;
use tokio_util::sync::CancellationToken;

use super::journal::Journal;
use super::refusal;
use super::schedule::{Schedule, Task};
use super::settings;
use super::setup::{Names, TrialError};
use crate::broker::{Broker, BrokerError, Fault, Trust};
use crate::link::LinkHandle;
use crate::measure::record::{Blame, Direction, EventKind};
use crate::peer::{ClientOptions, Clock, Connector, Implementation, Ledger, Party};
use crate::scenario::{Anchor, Limits, Scenario, Variant};
use crate::wire::{Qos, Version};

/// Time the peer has to connect and to subscribe, on a path without impairment.
const PEER_LIMIT: Duration = Duration::from_secs(15);
/// Time a fault has to take effect: a container takes seconds to stop and to be ready again.
const FAULT_LIMIT: Duration = Duration::from_secs(90);
/// Time after the last acknowledgement in which duplicates may still arrive.
const SETTLE: Duration = Duration::from_millis(300);

/// What one trial is played on.
pub struct Stage<'r> {
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
    /// Where the broker's account of this trial begins.
    pub broker_mark: usize,
    /// The emulated network.
    pub link: &'r LinkHandle,
    /// The peer's way to the broker, unimpaired.
    pub peer: Arc<Connector>,
    /// What the subject is to trust.
    pub trust: &'r Trust,
    /// The trial's clock.
    pub clock: Clock,
}

/// The messages of both directions.
pub struct Workloads {
    /// What the subject publishes.
    pub up: Option<Workload>,
    /// What the peer publishes.
    pub down: Option<Workload>,
}

impl Stage<'_> {
    /// Connects the verifying peer and subscribes it to everything the subject will publish.
    pub async fn start_peer(&self) -> Result<Party, TrialError> {
        let options = settings::peer_options(&self.names.peer);
        let peer = Party::start(Implementation::Own, Arc::clone(&self.peer), options, self.clock)
            .map_err(|error| TrialError::new("peer", Blame::Environment, error))?;
        limited("peer", PEER_LIMIT, Blame::Environment, peer.connected()).await?;
        self.subscribe(&peer, &self.names.up).await?;
        Ok(peer)
    }

    /// Subscribes a client of the harness.
    pub async fn subscribe(&self, party: &Party, topics: &[String]) -> Result<(), TrialError> {
        let filters: Vec<&str> = topics.iter().map(String::as_str).collect();
        if filters.is_empty() {
            return Ok(());
        }
        let limit = PEER_LIMIT.max(self.scenario.limits.connect);
        limited("subscribe", limit, Blame::Environment, party.subscribe(&filters, Qos::ExactlyOnce)).await
    }

    /// Waits until the broker has heard of the refusal that the scenario wants.
    pub async fn heard_refusal(&self) -> Result<(), TrialError> {
        match &self.scenario.refusal {
            Some(wanted) => refusal::heard(wanted, self.broker, self.broker_mark).await,
            None => Ok(()),
        }
    }

    /// Tells the link and the schedule that `anchor` has come.
    pub fn reach(&self, anchor: Anchor, schedule: &mut Schedule) {
        self.link.event(anchor.name());
        schedule.anchor(anchor, Instant::now());
    }

    /// The workload, entered in `ledger` as beginning at `start_us`.
    pub fn plan(&self, ledger: &mut Ledger, start_us: u64) -> Result<Workloads, TrialError> {
        let Names { run, down_run, up, down, .. } = self.names;
        let mut plan = |flow: &Option<crate::scenario::Flow>, run, topics, direction| {
            let Some(flow) = flow else { return Ok(None) };
            let workload = settings::workload(flow, run, self.seed, topics, self.scenario.limits.drain)
                .map_err(|cause| TrialError::new("workload", Blame::Harness, cause))?;
            ledger.plan(direction, &workload, start_us);
            Ok(Some(workload))
        };
        Ok(Workloads {
            up: plan(&self.scenario.up, *run, up, Direction::FromBoard)?,
            down: plan(&self.scenario.down, *down_run, down, Direction::ToBoard)?,
        })
    }

    /// Does what is done to the broker; what is left is for the subject to do.
    pub async fn perform(
        &mut self,
        task: Task,
        peer: &Party,
        journal: &mut Journal,
    ) -> Result<Option<Task>, TrialError> {
        let at_us = self.clock.now_us();
        journal.event(at_us, EventKind::Step, format!("{task:?}"));
        match task {
            Task::Fault(fault, kind) => match self.apply(&fault).await? {
                Ok(()) => {
                    if let Some(kind) = kind {
                        journal.disturb(at_us, kind, &fault.to_string());
                    }
                }
                // The client may be between connections: an event, as where a board cannot carry out its step.
                Err(absent @ BrokerError::NoSuchClient { .. }) => {
                    journal.event(at_us, EventKind::Step, format!("not carried out: {absent}"));
                }
                Err(error) => return Err(broker_error("step", &error)),
            },
            Task::Heal(fault, kind) => {
                self.apply(&fault).await?.map_err(|error| broker_error("step", &error))?;
                if matches!(fault, Fault::Start(_)) {
                    // A broker that was killed left the peer waiting for its idle timeout. The peer is no subject:
                    // it may be told.
                    peer.client().reconnect();
                }
                journal.heal(self.clock.now_us(), kind);
            }
            Task::TakeOver => self.take_over().await?,
            for_the_subject => return Ok(Some(for_the_subject)),
        }
        Ok(None)
    }

    /// What the broker makes of a fault, within its limit.
    async fn apply(&mut self, fault: &Fault) -> Result<Result<(), BrokerError>, TrialError> {
        let applied = async { Ok::<_, std::convert::Infallible>(self.broker.apply(fault).await) };
        limited("step", FAULT_LIMIT, Blame::Environment, applied).await
    }

    /// Connects with the subject's client identifier, which makes the broker end the subject's session.
    async fn take_over(&self) -> Result<(), TrialError> {
        let options = ClientOptions::new(Version::V5, &self.names.board);
        let usurper = Party::start(Implementation::Own, Arc::clone(&self.peer), options, self.clock)
            .map_err(|error| TrialError::new("step", Blame::Environment, error))?;
        limited("step", PEER_LIMIT, Blame::Environment, usurper.connected()).await?;
        usurper.finish().await;
        Ok(())
    }
}

/// An error of the broker with its remedy.
pub fn broker_error(phase: &'static str, error: &BrokerError) -> TrialError {
    TrialError::new(phase, Blame::Environment, format!("{error}\n  remedy: {}", error.remedy()))
}

/// Waits for `work`, but not for ever: beyond `limit` it has failed.
pub async fn limited<T, E: Display>(
    phase: &'static str,
    limit: Duration,
    blame: Blame,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, TrialError> {
    match tokio::time::timeout(limit, work).await {
        Ok(outcome) => outcome.map_err(|error| TrialError::new(phase, blame, error)),
        Err(_) => Err(TrialError::late(phase, blame, limit, "no cause was told")),
    }
}

/// Ends `work` where the user does not want to wait for it.
pub async fn unless_interrupted<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, TrialError>>,
) -> Result<T, TrialError> {
    cancel.run_until_cancelled(work).await.unwrap_or_else(|| Err(TrialError::interrupted()))
}

/// When the work of a trial is over: everything arrived, every step was done and a moment has passed in which
/// duplicates may still come; or its time is over, and what is missing is lost.
pub struct Watch {
    deadline: Instant,
    complete_at: Option<Instant>,
}

impl Watch {
    /// For work that begins now.
    pub fn new(limits: Limits) -> Self {
        Self { deadline: Instant::now() + limits.workload + limits.drain, complete_at: None }
    }

    /// When the last of the work was done, once it is over.
    pub fn over(&mut self, complete: bool, now: Instant) -> Option<Instant> {
        let done = complete.then(|| *self.complete_at.get_or_insert(now));
        match done {
            Some(done) if now >= done + SETTLE => Some(done),
            _ if now >= self.deadline => Some(done.unwrap_or(now)),
            _ => None,
        }
    }

    /// When [`Self::over`] should be asked again, at the latest.
    pub fn wake(&self) -> Instant {
        self.complete_at.map_or(self.deadline, |done| (done + SETTLE).min(self.deadline))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_over_a_moment_after_its_completion_or_at_its_deadline() {
        let second = Duration::from_secs(1);
        let limits = Limits { boot: second, connect: second, workload: second, drain: second };
        let mut watch = Watch::new(limits);
        let start = Instant::now();
        assert_eq!(watch.over(false, start), None);
        assert_eq!(watch.over(true, start), None, "duplicates may still come");
        assert_eq!(watch.over(true, start + SETTLE), Some(start));
        let mut watch = Watch::new(limits);
        let late = start + 3 * second;
        assert_eq!(watch.over(false, late), Some(late));
    }

    #[tokio::test]
    async fn a_phase_without_an_end_has_failed() {
        let never = std::future::pending::<Result<(), String>>();
        let error = limited("peer", Duration::from_millis(1), Blame::Environment, never).await.unwrap_err();
        assert_eq!(error.phase, "peer");
        let (cause, remedy) = error.cause.split_once("\n  remedy: ").expect("what to do");
        assert_eq!(cause, "not reached within 1ms: no cause was told");
        assert!(remedy.contains("log"), "{remedy}");
    }
}
