//! The slowest hop: a rate, and a bounded queue before it (droptail).

use core::time::Duration;
use std::collections::VecDeque;

use crate::config::{Direction, Path, Trace};
use crate::dice::{Dice, Kind};
use crate::impairment::Queue;
use crate::timeline::nanos;
use crate::units::{Rate, Time};

/// A value that may change over time.
#[derive(Clone, Debug)]
pub(crate) struct Varying<T> {
    fixed: T,
    trace: Option<Trace<T>>,
    base: Option<Duration>,
}

impl<T: Copy> Varying<T> {
    pub(crate) fn new(fixed: T, trace: Option<Trace<T>>) -> Self {
        let base = trace.as_ref().is_some_and(|trace| trace.after.is_none()).then_some(Duration::ZERO);
        Self { fixed, trace, base }
    }

    /// Starts the trace if it waits for `name`.
    pub(crate) fn on_event(&mut self, name: &str, now: Duration) {
        let waits = self.trace.as_ref().is_some_and(|trace| trace.after.as_deref() == Some(name));
        if waits && self.base.is_none() {
            self.base = Some(now);
        }
    }

    /// The value at `now`, and until when it holds (for ever if `None`).
    pub(crate) fn at(&self, now: Duration) -> (T, Option<Duration>) {
        let (Some(trace), Some(base)) = (&self.trace, self.base) else { return (self.fixed, None) };
        let Some(since) = now.checked_sub(base) else { return (self.fixed, Some(base)) };
        let period = trace.period.map(Time::duration);
        let round = period.map_or(0, |period| nanos(since) / nanos(period).max(1));
        let round_start = base + Duration::from_nanos(round * period.map_or(0, nanos));
        let within = now - round_start;
        let following = trace.steps.partition_point(|(at, _)| at.duration() <= within);
        let value = match following.checked_sub(1) {
            Some(current) => trace.steps[current].1,
            // Before the first step of a repeated trace its last value still holds.
            None if round > 0 => trace.steps[trace.steps.len() - 1].1,
            None => self.fixed,
        };
        let until = match trace.steps.get(following) {
            Some((at, _)) => Some(round_start + at.duration()),
            None => period.map(|period| round_start + period),
        };
        (value, until)
    }
}

/// The bottleneck of one direction.
#[derive(Clone, Debug)]
pub(crate) struct Bottleneck {
    /// `None` is without limit.
    rate: Varying<Option<Rate>>,
    limit: Queue,
    /// Packets that wait: when each begins to leave, and its size.
    waiting: VecDeque<(Duration, u64)>,
    waiting_bytes: u64,
    free_at: Duration,
    background: Option<Background>,
}

impl Bottleneck {
    /// The bottleneck of `path`, if it has one.
    pub(crate) fn new(path: &Path, seed: u64, direction: Direction) -> Option<Self> {
        if path.rate.is_none() && path.rate_trace.is_none() {
            return None;
        }
        let trace = path.rate_trace.as_ref().map(|trace| Trace {
            steps: trace.steps.iter().map(|(at, rate)| (*at, Some(*rate))).collect(),
            period: trace.period,
            after: trace.after.clone(),
        });
        let rate = path.background.filter(|rate| *rate != Rate::ZERO);
        Some(Self {
            rate: Varying::new(path.rate, trace),
            limit: path.queue.unwrap_or_default(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            free_at: Duration::ZERO,
            background: rate.map(|rate| Background::new(rate, seed, direction)),
        })
    }

    pub(crate) fn on_event(&mut self, name: &str, now: Duration) {
        self.rate.on_event(name, now);
    }

    /// When the last bit of a packet that comes now has left, or `None` if the queue has no room for it.
    pub(crate) fn admit(&mut self, now: Duration, size: u64) -> Option<Duration> {
        while let Some(at) = self.background.as_ref().map(|background| background.next_at)
            && at <= now
        {
            self.enqueue(at, BACKGROUND_SIZE);
            self.background.as_mut().expect("checked by the loop").advance();
        }
        self.enqueue(now, size)
    }

    fn enqueue(&mut self, now: Duration, size: u64) -> Option<Duration> {
        while let Some((start, size)) = self.waiting.front().copied()
            && start <= now
        {
            self.waiting.pop_front();
            self.waiting_bytes -= size;
        }
        let start = self.free_at.max(now);
        if start > now {
            let fits = match self.limit {
                Queue::Packets(count) => self.waiting.len() < count as usize,
                Queue::Bytes(limit) => self.waiting_bytes + size <= limit.bytes(),
                Queue::Delay(limit) => start - now <= limit.duration(),
            };
            if !fits {
                return None;
            }
            self.waiting.push_back((start, size));
            self.waiting_bytes += size;
        }
        self.free_at = self.finish(start, size);
        Some(self.free_at)
    }

    /// When a transmission that begins at `start` ends, though the rate may change on the way.
    fn finish(&self, start: Duration, size: u64) -> Duration {
        let mut at = start;
        // Bits times nanoseconds per second: exact in integers at any rate.
        let mut left = u128::from(size) * 8 * NANOS_PER_SECOND;
        loop {
            let (rate, until) = self.rate.at(at);
            let Some(rate) = rate else { return at };
            let rate = u128::from(rate.bits_per_second());
            let sent = until.map(|until| rate * (until - at).as_nanos());
            match (sent, until) {
                (Some(sent), Some(until)) if sent < left => {
                    left -= sent;
                    at = until;
                }
                _ if rate == 0 => return Duration::MAX,
                _ => return at + Duration::from_nanos(left.div_ceil(rate) as u64),
            }
        }
    }
}

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Cross traffic: packets of one size at exponentially distributed intervals.
#[derive(Clone, Debug)]
struct Background {
    mean_interval_ns: f64,
    dice: Dice,
    index: u64,
    next_at: Duration,
}

impl Background {
    fn new(rate: Rate, seed: u64, direction: Direction) -> Self {
        let mean_interval_ns = (BACKGROUND_SIZE * 8) as f64 * 1e9 / rate.bits_per_second() as f64;
        let dice = Dice::new(seed, direction, Kind::Background);
        let mut background = Self { mean_interval_ns, dice, index: 0, next_at: Duration::ZERO };
        background.advance();
        background
    }

    fn advance(&mut self) {
        let interval = self.dice.at(self.index).exponential() * self.mean_interval_ns;
        self.next_at += Duration::from_nanos(interval as u64);
        self.index += 1;
    }
}

/// Size of a background packet: near a full datagram, as bulk traffic is.
const BACKGROUND_SIZE: u64 = 1200;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Size;

    fn bottleneck(path: Path) -> Bottleneck {
        Bottleneck::new(&path, 1, Direction::Up).expect("the path has a rate")
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn packets_leave_one_after_the_other_at_the_rate() {
        let mut one_ms_each =
            bottleneck(Path { rate: Some(Rate::from_bits_per_second(8_000_000)), ..Path::default() });
        assert_eq!(one_ms_each.admit(ms(0), 1000), Some(ms(1)));
        assert_eq!(one_ms_each.admit(ms(0), 1000), Some(ms(2)));
        assert_eq!(one_ms_each.admit(ms(10), 500), Some(Duration::from_micros(10_500)));
    }

    #[test]
    fn each_kind_of_queue_has_its_bound() {
        let admitted = |queue| {
            let rate = Some(Rate::from_bits_per_second(8_000_000));
            let mut bottleneck = bottleneck(Path { rate, queue: Some(queue), ..Path::default() });
            (0..100).filter(|_| bottleneck.admit(ms(0), 1000).is_some()).count()
        };
        assert_eq!(admitted(Queue::Packets(5)), 6, "one on the wire, five waiting");
        assert_eq!(admitted(Queue::Bytes(Size::from_bytes(5999))), 6);
        assert_eq!(admitted(Queue::Delay(Time::from_millis(5))), 6);
    }

    #[test]
    fn a_rate_trace_stalls_and_resumes_in_the_middle_of_a_packet() {
        let rate = |mbit: u64| Rate::from_bits_per_second(mbit * 1_000_000);
        let steps =
            vec![(Time::ZERO, rate(8)), (Time::from_millis(1), Rate::ZERO), (Time::from_millis(5), rate(4))];
        let trace = Trace { steps, period: None, after: None };
        let mut bottleneck = bottleneck(Path { rate_trace: Some(trace), ..Path::default() });
        // 1000 bytes in the first millisecond, nothing for four, the other 500 bytes at half the rate.
        assert_eq!(bottleneck.admit(ms(0), 1500), Some(ms(6)));
    }

    #[test]
    fn a_periodic_trace_starts_over_and_may_wait_for_an_event() {
        let steps = vec![(Time::ZERO, 1), (Time::from_millis(10), 2)];
        let trace = Trace { steps, period: Some(Time::from_millis(20)), after: Some("connected".to_owned()) };
        let mut value = Varying::new(0, Some(trace));
        assert_eq!(value.at(ms(15)), (0, None));
        value.on_event("connected", ms(100));
        assert_eq!(value.at(ms(99)), (0, Some(ms(100))));
        assert_eq!(value.at(ms(100)), (1, Some(ms(110))));
        assert_eq!(value.at(ms(115)), (2, Some(ms(120))));
        assert_eq!(value.at(ms(125)), (1, Some(ms(130))));
    }

    #[test]
    fn background_traffic_takes_its_share() {
        let rate = |mbit: u64| Some(Rate::from_bits_per_second(mbit * 1_000_000));
        let mut bottleneck = bottleneck(Path { rate: rate(10), background: rate(5), ..Path::default() });
        let mut sent = 0u32;
        // Offered far more than fits for 10 s: what passes is what the background leaves.
        for i in 0..20_000u64 {
            sent += u32::from(bottleneck.admit(Duration::from_micros(i * 500), 1200).is_some());
        }
        let mbit = f64::from(sent) * 1200.0 * 8.0 / 10.0 / 1e6;
        assert!(
            (6.5..9.0).contains(&mbit),
            "{mbit} Mbit/s beside 5 Mbit/s of Poisson traffic in one droptail queue"
        );
    }
}
