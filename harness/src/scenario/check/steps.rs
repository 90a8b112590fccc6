//! What is done when.

use std::time::Duration;

use link::units::Time;

use super::super::spec::{ActionName, Anchor, StepEntry};
use super::super::{Action, Limits, Manner, SessionState, Step};
use super::Check;

impl Check<'_> {
    pub(super) fn steps(&mut self, entries: &[StepEntry], workload: bool) -> Vec<Step> {
        let steps = entries.iter().enumerate().filter_map(|(index, entry)| {
            let path = format!("step[{index}]");
            if entry.after == Anchor::Workload && !workload {
                let remedy = "add a workload, or write after = \"connected\"";
                self.value(&path, "this step waits for a workload, but there is none", remedy);
            }
            self.step(&path, entry)
        });
        steps.collect()
    }

    /// Refuses steps that would never be reached.
    pub(super) fn steps_in_time(&mut self, entries: &[StepEntry], limits: Limits) {
        let work = limits.workload + limits.drain;
        for (index, entry) in entries.iter().enumerate() {
            let end = match entry.after {
                Anchor::Workload => work,
                Anchor::Connected => limits.connect + work,
                Anchor::Start => limits.boot + limits.connect + work,
            };
            let repeated = entry.every.map_or(Duration::ZERO, Time::duration);
            let repeated = repeated.saturating_mul(entry.times.unwrap_or(1).saturating_sub(1));
            let length = entry.length.map_or(Duration::ZERO, Time::duration);
            if entry.at.duration().saturating_add(repeated).saturating_add(length) >= end {
                let problem = format!("this step comes when the workload's time ({work:?}) is over");
                let remedy = "write an earlier time, or a longer limits.workload";
                self.value(&format!("step[{index}].at"), problem, remedy);
            }
        }
    }

    fn step(&mut self, path: &str, entry: &StepEntry) -> Option<Step> {
        self.step_keys(path, entry);
        let times = entry.times.unwrap_or(1);
        if times == 0 {
            self.value(&format!("{path}.times"), "a step that is never done", "leave the step out instead");
        }
        if times > 1 && entry.every.is_none() {
            self.value(&format!("{path}.times"), "times needs every", "write for example every = \"5 s\"");
        }
        if times <= 1 && entry.every.is_some() {
            self.value(&format!("{path}.every"), "every needs times", "write for example times = 3");
        }
        let action = self.action(path, entry)?;
        let every = entry.every.map_or(Duration::ZERO, Time::duration);
        Some(Step { after: entry.after, at: entry.at.duration(), times, every, action })
    }

    /// Refuses keys that the step's action does not take.
    fn step_keys(&mut self, path: &str, entry: &StepEntry) {
        use ActionName as A;
        let given = [
            ("for", entry.length.is_some()),
            ("session", entry.session.is_some()),
            ("manner", entry.manner.is_some()),
            ("certificate", entry.certificate.is_some()),
            ("fault", entry.fault.is_some()),
            ("connections", entry.connections.is_some()),
            ("turn_away", entry.turn_away.is_some()),
        ];
        let taken: &[&str] = match entry.action {
            A::StopBroker | A::KillBroker | A::FreezeBroker | A::DropUdp => &["for"],
            A::Overload => &["for", "connections", "turn_away"],
            A::RestartBroker => &["session"],
            A::Reconnect => &["manner"],
            A::RotateCertificate => &["certificate"],
            A::CrashBoard => &["fault"],
            A::Migrate | A::UpdateKeys | A::ResetBoard | A::Kick | A::TakeOver => &[],
        };
        for (key, is_given) in given {
            if is_given && !taken.contains(&key) {
                let span = self.spans.key(&format!("{path}.{key}"));
                let problem = format!("{} takes no {key}", entry.action.name());
                self.mistakes.add(span, problem, Some("leave it out".to_owned()));
            }
        }
    }

    fn action(&mut self, path: &str, entry: &StepEntry) -> Option<Action> {
        use ActionName as A;
        let mut length = || match entry.length.filter(|length| *length != Time::ZERO) {
            Some(length) => Some(length.duration()),
            None => {
                let problem = format!("{} needs to know how long", entry.action.name());
                self.value(&format!("{path}.for"), problem, "write for example for = \"5 s\"");
                None
            }
        };
        Some(match entry.action {
            A::StopBroker => Action::StopBroker(length()?),
            A::KillBroker => Action::KillBroker(length()?),
            A::FreezeBroker => Action::FreezeBroker(length()?),
            A::DropUdp => Action::DropUdp(length()?),
            A::Overload => Action::Overload {
                length: length()?,
                connections: entry.connections.unwrap_or(0),
                turn_away: entry.turn_away.unwrap_or_default(),
            },
            A::RestartBroker => Action::RestartBroker(entry.session.unwrap_or(SessionState::Keep)),
            A::Reconnect => Action::Reconnect(entry.manner.unwrap_or(Manner::Graceful)),
            A::RotateCertificate => Action::RotateCertificate(entry.certificate.unwrap_or_default()),
            A::Migrate => Action::Migrate,
            A::UpdateKeys => Action::UpdateKeys,
            A::ResetBoard => Action::ResetBoard,
            A::Kick => Action::Kick,
            A::TakeOver => Action::TakeOver,
            A::CrashBoard => {
                let Some(fault) = entry.fault else {
                    let remedy = "write for example fault = \"panic\"";
                    self.value(path, "crash-board needs to know which fault", remedy);
                    return None;
                };
                Action::CrashBoard(fault)
            }
        })
    }
}
