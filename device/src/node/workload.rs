//! The workload: messages due at intended times, whatever the network does meanwhile.
//!
//! A message that cannot go out when it is due keeps its intended time and goes out as soon as the
//! client takes it, so a stall shows in the latency of every message it held up (no coordinated
//! omission). Message `n` waits for message `n - 1`: the order is part of the workload.

use crate::control::{Pattern, Refusal, Sample, Workload, WorkloadEnd, WorkloadResult, payload};
use crate::mqtt::{Publication, Qos, Replay, RequestError, Retain, Slot, Token};
use crate::time::{Duration, Instant};

use super::translate;

/// Publications whose acknowledgement is awaited; more than the client's store holds.
const IN_FLIGHT_MAX: usize = 32;
/// Largest payload of a workload in bytes: what the receive buffer of a like device takes.
pub(super) const SIZE_MAX: usize = 1024;
/// Taken later than this after it was due, a message is late.
const LATE: Duration = Duration::from_millis(1);

/// A running workload.
#[derive(Debug)]
pub(super) struct Running {
    spec: Workload,
    /// Streams that the topics take turns on; 0 leaves all to the control stream.
    data_streams: usize,
    started: Instant,
    /// The number of the next message.
    next: u32,
    in_flight: heapless::Vec<(Token, u32), IN_FLIGHT_MAX>,
    result: WorkloadResult,
    /// When the last message was taken.
    drained_since: Option<Instant>,
}

/// A message that is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Due {
    intended: Instant,
    /// The index of its topic.
    index: usize,
    len: usize,
}

/// What became of a message that was due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Attempt {
    /// The client took it, or will never take it; the next one may be tried.
    Settled(Sample),
    /// It stays due.
    Waiting,
}

impl Running {
    /// Starts a workload now.
    pub(super) fn start(spec: Workload, data_streams: usize, now: Instant) -> Result<Self, Refusal> {
        let size = usize::from(spec.size);
        if !(payload::OVERHEAD..=SIZE_MAX).contains(&size) {
            return Err(Refusal::BadSize { min: payload::OVERHEAD as u16, max: SIZE_MAX as u16 });
        }
        if spec.topics.is_empty() || spec.qos > 2 {
            return Err(Refusal::BadSetting);
        }
        let result = WorkloadResult {
            run: spec.run,
            end: WorkloadEnd::Complete,
            started_us: now.as_micros(),
            ended_us: 0,
            due: 0,
            accepted: 0,
            acked: 0,
            failed: 0,
            late: 0,
            full: 0,
        };
        let in_flight = heapless::Vec::new();
        Ok(Self { spec, data_streams, started: now, next: 0, in_flight, result, drained_since: None })
    }

    /// The run's number.
    pub(super) const fn run(&self) -> u32 {
        self.spec.run
    }

    /// The quality of service of its messages.
    pub(super) fn qos(&self) -> Qos {
        translate::qos(self.spec.qos)
    }

    /// When the next message is due; `None` after the last one.
    pub(super) fn next_due(&self) -> Option<Instant> {
        if self.next == self.spec.count {
            return None;
        }
        Some(match self.spec.pattern {
            Pattern::Every { interval_us } => {
                self.started + Duration::from_micros(u64::from(interval_us) * u64::from(self.next))
            }
            Pattern::Saturate => self.started,
        })
    }

    /// Writes the payload of the message that is due at `now` into `buffer`, if there is one and there is
    /// room to remember it.
    pub(super) fn prepare(&mut self, now: Instant, buffer: &mut [u8]) -> Option<Due> {
        let due = self.next_due().filter(|&due| due <= now)?;
        if self.in_flight.is_full() {
            return None;
        }
        let intended = if self.spec.pattern == Pattern::Saturate { now } else { due };
        let index = self.next as usize % self.spec.topics.len();
        let header = payload::Header {
            run: self.spec.run,
            topic: index as u16,
            sequence: self.next,
            intended_us: intended.as_micros(),
        };
        let len = usize::from(self.spec.size);
        payload::write(&header, self.spec.seed, &mut buffer[..len]).expect("start checked the size");
        Some(Due { intended, index, len })
    }

    /// The message that was prepared in `buffer`.
    pub(super) fn publication<'p>(&'p self, due: &Due, buffer: &'p [u8]) -> Publication<'p> {
        Publication {
            slot: data_slot(self.data_streams, due.index),
            retain: Retain::from_flag(self.spec.retain),
            replay: Replay::Unsafe,
            ..Publication::new(&self.spec.topics[due.index], &buffer[..due.len])
                .qos(translate::qos(self.spec.qos))
        }
    }

    /// What the client said to it.
    pub(super) fn settle(
        &mut self,
        now: Instant,
        due: &Due,
        taken: Result<Option<Token>, RequestError>,
    ) -> Attempt {
        let (sequence, intended) = (self.next, due.intended);
        let sample = match taken {
            Ok(token) => {
                if let Some(token) = token {
                    self.in_flight.push((token, sequence)).expect("prepare checked for room");
                }
                self.result.accepted += 1;
                self.result.late += u32::from(now.saturating_since(intended) > LATE);
                Sample::Published {
                    sequence,
                    intended_us: intended.as_micros(),
                    accepted_us: now.as_micros(),
                }
            }
            Err(RequestError::Full) => {
                self.result.full += 1;
                return Attempt::Waiting;
            }
            Err(RequestError::NotConnected) => return Attempt::Waiting,
            Err(_) => {
                self.result.failed += 1;
                Sample::Failed { sequence, at_us: now.as_micros(), reason: 0 }
            }
        };
        self.next += 1;
        if self.next == self.spec.count {
            self.drained_since = Some(now);
        }
        Attempt::Settled(sample)
    }

    /// The publication of `token` ended; `None` if it is none of this workload's.
    pub(super) fn on_settled(&mut self, now: Instant, token: Token, failure: Option<u8>) -> Option<Sample> {
        let index = self.in_flight.iter().position(|&(waiting, _)| waiting == token)?;
        let (_, sequence) = self.in_flight.swap_remove(index);
        let at_us = now.as_micros();
        Some(match failure {
            None => {
                self.result.acked += 1;
                Sample::Acked { sequence, at_us }
            }
            Some(reason) => {
                self.result.failed += 1;
                Sample::Failed { sequence, at_us, reason }
            }
        })
    }

    /// When the wait for acknowledgements is over; `None` before the last message was taken.
    pub(super) fn drain_ends(&self) -> Option<Instant> {
        self.drained_since.map(|since| since + Duration::from_millis(self.spec.drain_ms.into()))
    }

    /// The result, once everything was sent and acknowledged or the time for it is over.
    pub(super) fn result(&self, now: Instant) -> Option<WorkloadResult> {
        if self.next < self.spec.count {
            return None;
        }
        if self.in_flight.is_empty() {
            return Some(self.ended(now, WorkloadEnd::Complete));
        }
        let over = self.drain_ends().is_none_or(|ends| ends <= now);
        over.then(|| self.ended(now, WorkloadEnd::Unacknowledged))
    }

    /// The result when it ends now, for the given reason.
    pub(super) fn ended(&self, now: Instant, end: WorkloadEnd) -> WorkloadResult {
        let due = match self.spec.pattern {
            Pattern::Saturate => self.next,
            Pattern::Every { interval_us } => {
                let elapsed = now.saturating_since(self.started).as_micros();
                let due = elapsed.checked_div(interval_us.into()).map_or(u64::MAX, |whole| whole + 1);
                u32::try_from(due).unwrap_or(u32::MAX).min(self.spec.count)
            }
        };
        WorkloadResult { end, due, ended_us: now.as_micros(), ..self.result }
    }
}

/// The stream for the `index`th topic or subscription.
pub(super) fn data_slot(data_streams: usize, index: usize) -> Slot {
    match index.checked_rem(data_streams) {
        Some(turn) => Slot::new(1 + turn).expect("there are no more data streams than slots"),
        None => Slot::CONTROL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Verdict, clipped};
    use crate::mqtt::PacketId;

    fn spec(count: u32, interval_us: u32) -> Workload {
        Workload {
            run: 7,
            topics: [clipped("a"), clipped("b")].into_iter().collect(),
            qos: 1,
            retain: false,
            size: 64,
            count,
            pattern: Pattern::Every { interval_us },
            seed: 3,
            drain_ms: 10,
        }
    }

    fn at(us: u64) -> Instant {
        Instant::from_micros(us)
    }

    fn token(id: u16) -> Token {
        Token { slot: Slot::CONTROL, id: PacketId::new(id).expect("not zero") }
    }

    /// Publishes what is due to a client that answers with `publish`.
    fn publish(
        running: &mut Running,
        now: Instant,
        publish: impl FnOnce(&Publication<'_>) -> Result<Option<Token>, RequestError>,
    ) -> Option<Attempt> {
        let mut buffer = [0; SIZE_MAX];
        let due = running.prepare(now, &mut buffer)?;
        let taken = publish(&running.publication(&due, &buffer));
        Some(running.settle(now, &due, taken))
    }

    fn start(spec: Workload) -> Running {
        Running::start(spec, 0, at(1_000)).expect("a good workload")
    }

    #[test]
    fn a_message_held_up_keeps_its_intended_time() {
        let mut running = start(spec(2, 500));
        let full = publish(&mut running, at(1_000), |_| Err(RequestError::Full));
        assert_eq!(full, Some(Attempt::Waiting));
        let taken = publish(&mut running, at(9_000), |publication| {
            let (header, verdict) = payload::check(publication.payload);
            assert_eq!(verdict, Verdict::Intact);
            assert_eq!(header.expect("ours").intended_us, 1_000);
            Ok(Some(token(1)))
        });
        let published = Sample::Published { sequence: 0, intended_us: 1_000, accepted_us: 9_000 };
        assert_eq!(taken, Some(Attempt::Settled(published)));
        let result = running.ended(at(9_000), WorkloadEnd::Stopped);
        assert_eq!((result.late, result.full, result.due), (1, 1, 2));
    }

    #[test]
    fn nothing_is_published_before_it_is_due() {
        let mut running = start(spec(2, 500));
        assert!(publish(&mut running, at(999), |_| panic!("too early")).is_none());
        publish(&mut running, at(1_000), |_| Ok(None)).expect("due");
        assert_eq!(running.next_due(), Some(at(1_500)));
        assert!(publish(&mut running, at(1_499), |_| panic!("too early")).is_none());
    }

    #[test]
    fn it_is_complete_when_the_last_acknowledgement_came() {
        let mut running = start(spec(1, 500));
        publish(&mut running, at(1_000), |_| Ok(Some(token(9)))).expect("due");
        assert_eq!(running.result(at(2_000)), None);
        assert_eq!(running.on_settled(at(2_000), token(8), None), None, "not ours");
        let acked = running.on_settled(at(2_000), token(9), None);
        assert_eq!(acked, Some(Sample::Acked { sequence: 0, at_us: 2_000 }));
        let result = running.result(at(2_000)).expect("over");
        assert_eq!((result.end, result.acked, result.due), (WorkloadEnd::Complete, 1, 1));
    }

    #[test]
    fn a_missing_acknowledgement_ends_it_after_the_drain_time() {
        let mut running = start(spec(1, 500));
        publish(&mut running, at(1_000), |_| Ok(Some(token(9)))).expect("due");
        assert_eq!(running.drain_ends(), Some(at(11_000)));
        assert_eq!(running.result(at(10_999)), None);
        assert_eq!(running.result(at(11_000)).expect("over").end, WorkloadEnd::Unacknowledged);
    }

    #[test]
    fn topics_take_turns_and_have_streams_of_their_own_if_asked() {
        let mut running = Running::start(spec(4, 0), 3, at(0)).expect("good");
        let mut slots = [Slot::CONTROL; 4];
        for slot in &mut slots {
            let taken = publish(&mut running, at(0), |publication| {
                *slot = publication.slot;
                Ok(None)
            });
            taken.expect("due");
        }
        assert_eq!(slots.map(Slot::index), [1, 2, 1, 2]);
    }

    #[test]
    fn a_message_the_server_can_never_take_fails_and_the_next_one_follows() {
        let mut running = start(spec(2, 0));
        let failed = publish(&mut running, at(1_000), |_| Err(RequestError::TooLarge));
        let sample = Sample::Failed { sequence: 0, at_us: 1_000, reason: 0 };
        assert_eq!(failed, Some(Attempt::Settled(sample)));
        publish(&mut running, at(1_000), |_| Ok(None)).expect("due");
        assert_eq!(running.result(at(1_000)).expect("over").failed, 1);
    }

    #[test]
    fn sizes_out_of_range_are_refused() {
        for size in [0, 23, 1025] {
            let refusal = Running::start(Workload { size, ..spec(1, 1) }, 0, at(0));
            assert!(matches!(refusal, Err(Refusal::BadSize { min: 24, max: 1024 })));
        }
    }
}
