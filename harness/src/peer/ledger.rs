//! The account of a trial: every message of its workloads, counted exactly once.
//!
//! Nothing is believed from one side. What a sender says it sent, what a receiver says it got and what the
//! plan wanted are entered separately; [`Ledger::close`] draws one [`Fate`] per message from all of it, and
//! names what does not fit together.

use std::collections::{BTreeMap, HashMap};

use device::control::{Pattern, Sample, Verdict, Workload};

use super::send_log::Sending;
use crate::measure::record::{Direction, Fate, Message};

/// A message that arrived, as its receiver saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// The run in its payload; 0 if it is no payload of a workload.
    pub run: u32,
    /// The topic index in its payload.
    pub topic: u16,
    /// The number in its payload.
    pub sequence: u32,
    /// The intended time in its payload, on the trial's clock.
    pub intended_us: u64,
    /// When it arrived, on the trial's clock.
    pub at_us: u64,
    /// Payload size.
    pub size: u32,
    /// What the payload check said.
    pub verdict: Verdict,
}

#[cfg(test)]
impl Arrival {
    /// One of 64 bytes on the first topic, whose times do not matter.
    pub(crate) const fn example(run: u32, sequence: u32, verdict: Verdict) -> Self {
        Self { run, topic: 0, sequence, intended_us: 0, at_us: 0, size: 64, verdict }
    }
}

/// What is known of one message.
#[derive(Debug, Clone, Default)]
struct Entry {
    intended_us: Option<u64>,
    sent_us: Option<u64>,
    acked_us: Option<u64>,
    refused: bool,
    intact: u32,
    corrupt: u32,
    delivered_us: Option<u64>,
    overtaken: bool,
}

/// One workload.
#[derive(Debug)]
struct Flow {
    direction: Direction,
    /// Index of its first topic in the trial's list.
    first_topic: u16,
    topics: u16,
    qos: u8,
    size: u32,
    /// When it was to start, for messages whose sender never came to say.
    start_us: u64,
    interval_us: u64,
    entries: Vec<Entry>,
    /// Highest number that arrived so far, per topic.
    highest: HashMap<u16, u32>,
}

/// How a trial ended, which tells a lost message from one that ran out of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// It ran to its end, and the network was left time to deliver.
    Complete,
    /// It was cut short.
    Early,
}

/// Things that arrived and belong to no message of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Strays {
    /// No payload of a workload.
    pub foreign: u32,
    /// A payload of another run, or a number or topic the plan does not have.
    pub unplanned: u32,
}

/// The result.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Account {
    /// Names of the topics that [`Message::topic`] counts.
    pub topics: Vec<String>,
    /// Every planned message, once.
    pub messages: Vec<Message>,
    /// What arrived besides.
    pub strays: Strays,
    /// Where sender and receiver contradict each other, in words.
    pub contradictions: Vec<String>,
}

/// Collects what each side says.
#[derive(Debug, Default)]
pub struct Ledger {
    topics: Vec<String>,
    /// Keyed by run number, which is one flow's own.
    flows: BTreeMap<u32, Flow>,
    strays: Strays,
}

impl Ledger {
    /// An empty ledger.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Enters what is to be sent, starting at `start_us`. Run numbers have to differ between workloads.
    pub fn plan(&mut self, direction: Direction, workload: &Workload, start_us: u64) {
        let first_topic = u16::try_from(self.topics.len()).expect("few topics");
        self.topics.extend(workload.topics.iter().map(ToString::to_string));
        let interval_us = match workload.pattern {
            Pattern::Every { interval_us } => u64::from(interval_us),
            Pattern::Saturate => 0,
        };
        let flow = Flow {
            direction,
            first_topic,
            topics: u16::try_from(workload.topics.len()).expect("few topics"),
            qos: workload.qos,
            size: u32::from(workload.size),
            start_us,
            interval_us,
            entries: vec![Entry::default(); workload.count as usize],
            highest: HashMap::new(),
        };
        let before = self.flows.insert(workload.run, flow);
        debug_assert!(before.is_none(), "run numbers differ");
    }

    /// Enters what a client of the harness says of a message it sent.
    pub fn sending(&mut self, run: u32, sending: &Sending) {
        if let Some(entry) = self.entry(run, sending.sequence) {
            entry.intended_us = Some(sending.intended_us);
            entry.sent_us = sending.sent_us;
            entry.acked_us = sending.acked_us;
            entry.refused = sending.refused.is_some();
        }
    }

    /// Enters telemetry of the board. `run` is that of its [`Samples`](device::control::Samples); `to_trial`
    /// moves a time of the board's clock onto the trial's. Intended times in messages it received are the
    /// harness's own.
    pub fn sample(&mut self, run: u32, sample: &Sample, to_trial: impl Fn(u64) -> u64) {
        match *sample {
            Sample::Published { sequence, intended_us, accepted_us } => {
                if let Some(entry) = self.entry(run, sequence) {
                    entry.intended_us = Some(to_trial(intended_us));
                    entry.sent_us = Some(to_trial(accepted_us));
                }
            }
            Sample::Acked { sequence, at_us } => {
                if let Some(entry) = self.entry(run, sequence) {
                    entry.acked_us = Some(to_trial(at_us));
                }
            }
            Sample::Failed { sequence, .. } => {
                if let Some(entry) = self.entry(run, sequence) {
                    entry.refused = true;
                }
            }
            Sample::Received { run, topic, sequence, intended_us, at_us, size, verdict } => {
                let at_us = to_trial(at_us);
                let size = u32::from(size);
                self.arrival(
                    Direction::ToBoard,
                    &Arrival { run, topic, sequence, intended_us, at_us, size, verdict },
                );
            }
        }
    }

    /// Enters an arrival; those of one receiver have to come in the order they arrived.
    pub fn arrival(&mut self, direction: Direction, arrival: &Arrival) {
        if arrival.verdict == Verdict::Foreign {
            self.strays.foreign += 1;
            return;
        }
        let planned = self.flows.get_mut(&arrival.run).filter(|flow| {
            flow.direction == direction
                && (arrival.sequence as usize) < flow.entries.len()
                && u64::from(arrival.topic) == u64::from(arrival.sequence) % u64::from(flow.topics)
        });
        let Some(flow) = planned else {
            self.strays.unplanned += 1;
            return;
        };
        let intact = arrival.verdict == Verdict::Intact && arrival.size == flow.size;
        let entry = &mut flow.entries[arrival.sequence as usize];
        if !intact {
            entry.corrupt += 1;
            return;
        }
        entry.intact += 1;
        if entry.intact > 1 {
            return;
        }
        entry.delivered_us = Some(arrival.at_us);
        entry.intended_us.get_or_insert(arrival.intended_us);
        let highest = flow.highest.entry(arrival.topic).or_insert(arrival.sequence);
        entry.overtaken = arrival.sequence < *highest;
        *highest = arrival.sequence.max(*highest);
    }

    /// Messages planned in one direction.
    #[must_use]
    pub fn planned(&self, direction: Direction) -> usize {
        self.flows.values().filter(|flow| flow.direction == direction).map(|flow| flow.entries.len()).sum()
    }

    fn entry(&mut self, run: u32, sequence: u32) -> Option<&mut Entry> {
        self.flows.get_mut(&run)?.entries.get_mut(sequence as usize)
    }

    /// Draws the account.
    #[must_use]
    pub fn close(self, closing: Closing) -> Account {
        let mut messages = Vec::new();
        let mut contradictions = Vec::new();
        for (run, flow) in &self.flows {
            for (sequence, entry) in flow.entries.iter().enumerate() {
                let sequence = u32::try_from(sequence).expect("as many as were planned");
                let message = flow.message(sequence, entry, closing);
                contradictions.extend(contradiction(*run, flow.qos, entry, &message, closing));
                messages.push(message);
            }
        }
        Account { topics: self.topics, messages, strays: self.strays, contradictions }
    }
}

impl Flow {
    fn message(&self, sequence: u32, entry: &Entry, closing: Closing) -> Message {
        let turn = u16::try_from(sequence % u32::from(self.topics)).expect("less than the topics");
        let planned_us = self.start_us + self.interval_us * u64::from(sequence);
        Message {
            direction: self.direction,
            topic: self.first_topic + turn,
            sequence,
            qos: self.qos,
            size: self.size,
            intended_us: entry.intended_us.unwrap_or(planned_us),
            sent_us: entry.sent_us,
            acked_us: entry.acked_us,
            delivered_us: entry.delivered_us,
            fate: entry.fate(closing),
        }
    }
}

impl Entry {
    /// The worst that is known of the message decides.
    fn fate(&self, closing: Closing) -> Fate {
        match (self.corrupt, self.intact) {
            (1.., _) => Fate::Corrupt,
            (0, 2..) => Fate::Duplicated,
            (0, 1) if self.overtaken => Fate::Reordered,
            (0, 1) => Fate::Delivered,
            (0, 0) if closing == Closing::Early => Fate::TimedOut,
            (0, 0) => Fate::Lost,
        }
    }
}

/// What sender and receiver say that cannot both be true, or must not be.
fn contradiction(run: u32, qos: u8, entry: &Entry, message: &Message, closing: Closing) -> Option<String> {
    // The broker acknowledges before it delivers: what a trial that was cut short leaves between the two is no
    // contradiction.
    let settled = closing == Closing::Complete;
    let what = if settled && message.acked_us.is_some() && entry.intact == 0 && qos > 0 {
        "was acknowledged to its sender and did not arrive"
    } else if message.fate == Fate::Duplicated && qos == 2 {
        "arrived more than once with QoS 2"
    } else if entry.refused && entry.intact > 0 {
        "was given up by its sender and arrived"
    } else {
        return None;
    };
    Some(format!("message {} of run {run} ({}) {what}", message.sequence, message.direction.label()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(run: u32, topics: &[&str], count: u32, qos: u8) -> Workload {
        Workload {
            run,
            topics: topics.iter().map(|topic| device::control::clipped(topic)).collect(),
            qos,
            retain: false,
            size: 64,
            count,
            pattern: Pattern::Every { interval_us: 100 },
            seed: 1,
            drain_ms: 0,
        }
    }

    fn arrival(run: u32, topics: u32, sequence: u32, at_us: u64) -> Arrival {
        Arrival {
            run,
            topic: u16::try_from(sequence % topics).expect("small"),
            sequence,
            intended_us: 0,
            at_us,
            size: 64,
            verdict: Verdict::Intact,
        }
    }

    fn fates(account: &Account) -> Vec<Fate> {
        account.messages.iter().map(|message| message.fate).collect()
    }

    #[test]
    fn each_message_is_counted_once_with_the_worst_that_is_known_of_it() {
        let mut ledger = Ledger::new();
        ledger.plan(Direction::FromBoard, &workload(7, &["a"], 6, 1), 1_000);
        for sequence in [0, 2, 1, 3, 3] {
            ledger.arrival(Direction::FromBoard, &arrival(7, 1, sequence, 50));
        }
        let corrupt = Arrival { verdict: Verdict::Corrupt, ..arrival(7, 1, 4, 60) };
        ledger.arrival(Direction::FromBoard, &corrupt);
        let account = ledger.close(Closing::Complete);
        assert_eq!(
            fates(&account),
            [Fate::Delivered, Fate::Reordered, Fate::Delivered, Fate::Duplicated, Fate::Corrupt, Fate::Lost,]
        );
        assert_eq!(account.messages[5].intended_us, 1_500, "by the plan, as nobody said otherwise");
        assert_eq!(account.strays, Strays::default());
    }

    #[test]
    fn order_is_kept_per_topic_and_a_second_copy_does_not_disturb_it() {
        let mut ledger = Ledger::new();
        ledger.plan(Direction::ToBoard, &workload(1, &["a", "b"], 4, 0), 0);
        for sequence in [2, 1, 3, 2, 0] {
            ledger.arrival(Direction::ToBoard, &arrival(1, 2, sequence, 50));
        }
        let account = ledger.close(Closing::Complete);
        assert_eq!(fates(&account), [Fate::Reordered, Fate::Delivered, Fate::Duplicated, Fate::Delivered]);
        assert_eq!(account.messages[1].topic, 1);
    }

    #[test]
    fn a_trial_cut_short_loses_nothing_it_did_not_wait_for() {
        let mut ledger = Ledger::new();
        ledger.plan(Direction::FromBoard, &workload(1, &["a"], 2, 1), 0);
        ledger.arrival(Direction::FromBoard, &arrival(1, 1, 0, 50));
        assert_eq!(fates(&ledger.close(Closing::Early)), [Fate::Delivered, Fate::TimedOut]);
    }

    #[test]
    fn strays_are_counted_apart() {
        let mut ledger = Ledger::new();
        ledger.plan(Direction::FromBoard, &workload(1, &["a", "b"], 2, 1), 0);
        let strays = [
            Arrival { verdict: Verdict::Foreign, ..arrival(0, 1, 0, 1) },
            arrival(2, 2, 0, 1),
            arrival(1, 2, 2, 1),
            Arrival { topic: 1, ..arrival(1, 2, 0, 1) },
        ];
        for stray in &strays {
            ledger.arrival(Direction::FromBoard, stray);
        }
        ledger.arrival(Direction::ToBoard, &arrival(1, 2, 0, 1));
        let account = ledger.close(Closing::Complete);
        assert_eq!(account.strays, Strays { foreign: 1, unplanned: 4 });
        assert_eq!(fates(&account), [Fate::Lost, Fate::Lost]);
    }

    #[test]
    fn telemetry_of_the_board_is_moved_onto_the_clock_of_the_trial() {
        let mut ledger = Ledger::new();
        ledger.plan(Direction::FromBoard, &workload(1, &["a"], 1, 1), 0);
        ledger.plan(Direction::ToBoard, &workload(2, &["b"], 1, 1), 0);
        let to_trial = |us| us - 1_000;
        let samples = [
            Sample::Published { sequence: 0, intended_us: 1_100, accepted_us: 1_110 },
            Sample::Acked { sequence: 0, at_us: 1_200 },
            Sample::Received {
                run: 2,
                topic: 0,
                sequence: 0,
                intended_us: 140,
                at_us: 1_150,
                size: 64,
                verdict: Verdict::Intact,
            },
        ];
        for sample in &samples {
            ledger.sample(1, sample, to_trial);
        }
        let account = ledger.close(Closing::Complete);
        let published = &account.messages[0];
        assert_eq!(
            (published.intended_us, published.sent_us, published.acked_us),
            (100, Some(110), Some(200))
        );
        let received = &account.messages[1];
        assert_eq!((received.intended_us, received.delivered_us), (140, Some(150)));
        assert_eq!(account.topics, ["a", "b"]);
        assert_eq!(received.topic, 1);
    }

    #[test]
    fn an_acknowledged_message_that_did_not_arrive_is_a_contradiction_once_all_had_time_to() {
        for (closing, contradictions) in [(Closing::Complete, 1), (Closing::Early, 0)] {
            let mut ledger = Ledger::new();
            ledger.plan(Direction::FromBoard, &workload(1, &["a"], 2, 1), 0);
            for sequence in 0..2 {
                let sending = Sending {
                    sequence,
                    intended_us: 0,
                    sent_us: Some(1),
                    acked_us: (sequence == 0).then_some(2),
                    refused: None,
                };
                ledger.sending(1, &sending);
            }
            let account = ledger.close(closing);
            assert_eq!(account.contradictions.len(), contradictions, "{closing:?}");
            assert!(account.contradictions.iter().all(|text| text.starts_with("message 0 of run 1")));
        }
    }
}
