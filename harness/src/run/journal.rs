//! What happens around a trial while it runs, written down by whoever runs it.

use crate::measure::record::{Event, EventKind, Impairment, ImpairmentKind, Trial};

/// Events and disturbances in the order they come.
#[derive(Debug, Default)]
pub struct Journal {
    events: Vec<Event>,
    /// Disturbances that go on.
    open: Vec<Impairment>,
    over: Vec<Impairment>,
    notes: Vec<String>,
}

impl Journal {
    /// Keeps something that the harness did or saw.
    pub fn event(&mut self, at_us: u64, kind: EventKind, detail: impl Into<String>) {
        self.events.push(Event { at_us, kind, detail: detail.into() });
    }

    /// Keeps a remark for the reader of the report.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// A disturbance begins; one without duration is over at once.
    pub fn disturb(&mut self, start_us: u64, kind: ImpairmentKind, label: &str) {
        let label = label.to_owned();
        let impairment = Impairment { start_us, end_us: start_us, kind, direction: None, label };
        if kind == ImpairmentKind::Kicked {
            self.over.push(impairment);
        } else {
            self.open.push(impairment);
        }
    }

    /// The oldest disturbance of that kind ends.
    pub fn heal(&mut self, end_us: u64, kind: ImpairmentKind) {
        if let Some(index) = self.open.iter().position(|impairment| impairment.kind == kind) {
            self.over.push(Impairment { end_us, ..self.open.remove(index) });
        }
    }

    /// Adds everything to the record of a trial that ended at `end_us`.
    pub fn into_trial(self, trial: &mut Trial, end_us: u64) {
        trial.events.extend(self.events);
        trial.events.sort_by_key(|event| event.at_us);
        trial.impairments.extend(self.over);
        trial.impairments.extend(self.open.into_iter().map(|open| Impairment { end_us, ..open }));
        trial.impairments.sort_by_key(|impairment| impairment.start_us);
        trial.notes.extend(self.notes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::record::{Role, Transport};

    #[test]
    fn a_disturbance_ends_when_it_is_healed_or_with_the_trial() {
        let mut journal = Journal::default();
        journal.disturb(10, ImpairmentKind::BrokerDown, "stop");
        journal.disturb(20, ImpairmentKind::BrokerFrozen, "freeze");
        journal.disturb(25, ImpairmentKind::Kicked, "kick");
        journal.heal(30, ImpairmentKind::BrokerDown);
        let mut trial = Trial::new("quic", Transport::Quic, Role::Device, 1);
        journal.into_trial(&mut trial, 99);
        let spans: Vec<_> = trial.impairments.iter().map(|i| (i.start_us, i.end_us)).collect();
        assert_eq!(spans, [(10, 30), (20, 99), (25, 25)]);
    }
}
