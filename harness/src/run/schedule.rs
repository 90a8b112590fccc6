//! The steps of a scenario as single actions, each due a while after an anchor.

use std::time::{Duration, Instant};

use crate::broker::{Fault, Limits, Overload, SessionState};
use crate::certificates::Flaw;
use crate::measure::record::ImpairmentKind;
use crate::scenario::{self, Action, Anchor, BoardFault, Certificate, Manner, Step};

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// The client gives its connection up for a new one.
    Reconnect(Manner),
    /// The client moves to a new port.
    Migrate,
    /// The client updates its keys.
    UpdateKeys,
    /// The board is reset.
    ResetBoard,
    /// The firmware is made to fail.
    CrashBoard(BoardFault),
    /// The broker is made to suffer; what disturbance begins with it, if any.
    Fault(Fault, Option<ImpairmentKind>),
    /// The broker is healed, which ends the disturbance of that kind.
    Heal(Fault, ImpairmentKind),
    /// The peer connects with the client's identifier.
    TakeOver,
}

/// What is still to be done.
pub struct Schedule {
    pending: Vec<(Anchor, Duration, Task)>,
    anchored: Vec<(Instant, Task)>,
}

impl Schedule {
    /// All repetitions of all steps; `client_id` is the client that kicks and take-overs aim at.
    pub fn new(steps: &[Step], client_id: &str) -> Self {
        let mut pending = Vec::new();
        for step in steps {
            for repetition in 0..step.times {
                let at = step.at.saturating_add(step.every.saturating_mul(repetition));
                let tasks = tasks(step.action, client_id);
                pending.extend(tasks.into_iter().map(|(later, task)| (step.after, at + later, task)));
            }
        }
        Self { pending, anchored: Vec::new() }
    }

    /// The moment that `anchor` names has come.
    pub fn anchor(&mut self, anchor: Anchor, now: Instant) {
        let (due, pending) =
            std::mem::take(&mut self.pending).into_iter().partition(|(after, ..)| *after == anchor);
        self.pending = pending;
        self.anchored.extend(due.into_iter().map(|(_, later, task)| (now + later, task)));
        // Stable: steps due at the same moment keep the order of the file.
        self.anchored.sort_by_key(|(due, _)| *due);
    }

    /// When the next task is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.anchored.first().map(|(due, _)| *due)
    }

    /// The next task, if it is due.
    pub fn take_due(&mut self, now: Instant) -> Option<Task> {
        self.next_due().filter(|due| *due <= now)?;
        Some(self.anchored.remove(0).1)
    }
}

/// Every fault that the steps ask of the broker.
pub fn faults(steps: &[Step]) -> Vec<Fault> {
    let tasks = steps.iter().flat_map(|step| tasks(step.action, "board"));
    let fault = |(_, task)| match task {
        Task::Fault(fault, _) | Task::Heal(fault, _) => Some(fault),
        _ => None,
    };
    tasks.filter_map(fault).collect()
}

fn tasks(action: Action, client_id: &str) -> Vec<(Duration, Task)> {
    let now = |task| vec![(Duration::ZERO, task)];
    let for_a_while = |fault, length, heal, kind| {
        vec![(Duration::ZERO, Task::Fault(fault, Some(kind))), (length, Task::Heal(heal, kind))]
    };
    let start = Fault::Start(SessionState::Kept);
    match action {
        Action::Reconnect(manner) => now(Task::Reconnect(manner)),
        Action::Migrate => now(Task::Migrate),
        Action::UpdateKeys => now(Task::UpdateKeys),
        Action::ResetBoard => now(Task::ResetBoard),
        Action::CrashBoard(fault) => now(Task::CrashBoard(fault)),
        Action::StopBroker(length) => for_a_while(Fault::Stop, length, start, ImpairmentKind::BrokerDown),
        Action::KillBroker(length) => for_a_while(Fault::Kill, length, start, ImpairmentKind::BrokerDown),
        Action::FreezeBroker(length) => {
            for_a_while(Fault::Freeze, length, Fault::Resume, ImpairmentKind::BrokerFrozen)
        }
        Action::RestartBroker(sessions) => {
            let sessions = match sessions {
                scenario::SessionState::Keep => SessionState::Kept,
                scenario::SessionState::Lose => SessionState::Lost,
            };
            for_a_while(Fault::Stop, Duration::ZERO, Fault::Start(sessions), ImpairmentKind::BrokerDown)
        }
        Action::DropUdp(length) => {
            for_a_while(Fault::DropUdp, length, Fault::PassUdp, ImpairmentKind::BrokerDown)
        }
        Action::Kick => {
            now(Task::Fault(Fault::Kick { client_id: client_id.to_owned() }, Some(ImpairmentKind::Kicked)))
        }
        Action::TakeOver => now(Task::TakeOver),
        Action::RotateCertificate(certificate) => {
            now(Task::Fault(Fault::RotateCertificate(flaw(certificate)), None))
        }
        Action::Overload { length, connections, turn_away } => {
            let overload = match turn_away {
                scenario::TurnAway::Close => Overload::Close,
                scenario::TurnAway::Refuse => Overload::Refuse,
            };
            let connections = usize::try_from(connections).expect("32 bits fit");
            for_a_while(
                Fault::Limit(Limits { connections, overload }),
                length,
                Fault::Limit(Limits::default()),
                ImpairmentKind::Degraded,
            )
        }
    }
}

/// What is wrong with a certificate, in the authority's terms.
pub fn flaw(certificate: Certificate) -> Flaw {
    match certificate {
        Certificate::Valid => Flaw::None,
        Certificate::WrongName => Flaw::WrongName,
        Certificate::Expired => Flaw::Expired,
        Certificate::UnknownCa => Flaw::UnknownAuthority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(action: Action, at_ms: u64, times: u32) -> Step {
        let (at, every) = (Duration::from_millis(at_ms), Duration::from_millis(100));
        Step { after: Anchor::Workload, at, times, every, action }
    }

    #[test]
    fn repetitions_are_due_one_after_the_other() {
        let mut schedule = Schedule::new(&[step(Action::Migrate, 50, 3)], "device");
        let start = Instant::now();
        assert_eq!(schedule.next_due(), None, "nothing is due before its anchor");
        schedule.anchor(Anchor::Workload, start);
        for expected_ms in [50, 150, 250] {
            let due = start + Duration::from_millis(expected_ms);
            assert_eq!(schedule.next_due(), Some(due));
            assert_eq!(schedule.take_due(due - Duration::from_millis(1)), None);
            assert_eq!(schedule.take_due(due), Some(Task::Migrate));
        }
        assert_eq!(schedule.next_due(), None);
    }

    #[test]
    fn a_broker_that_is_stopped_is_started_again() {
        let length = Duration::from_secs(2);
        let mut schedule = Schedule::new(&[step(Action::StopBroker(length), 0, 1)], "device");
        let start = Instant::now();
        schedule.anchor(Anchor::Workload, start);
        assert_eq!(
            schedule.take_due(start),
            Some(Task::Fault(Fault::Stop, Some(ImpairmentKind::BrokerDown)))
        );
        let heal = Task::Heal(Fault::Start(SessionState::Kept), ImpairmentKind::BrokerDown);
        assert_eq!(schedule.take_due(start + length), Some(heal));
    }
}
