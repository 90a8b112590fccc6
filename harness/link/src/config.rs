//! What a link does to packets, as a scenario states it. See [`LinkConfig`].

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::fade::Fade;
use crate::impairment::{Corrupt, FLIPS_MAX, Jitter, Loss, Queue, Reorder, Truncate};
use crate::profile::Profile;
use crate::units::{Percent, Rate, Size, Time};

/// Which way a packet travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the board to the broker.
    Up,
    /// From the broker to the board.
    Down,
}

impl Direction {
    /// Both directions, up first.
    pub const BOTH: [Self; 2] = [Self::Up, Self::Down];

    /// 0 for up, 1 for down: for arrays with one element per direction.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}

/// The whole link: a path per direction, and what happens to both over time.
///
/// A key in `up` or `down` wins over the same key in `both`, which wins over the profile's.
/// The default is a perfect link.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkConfig {
    /// A named network to start from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    /// Impairments of both directions.
    #[serde(default, skip_serializing_if = "Path::is_perfect")]
    pub both: Path,
    /// Impairments of packets from the board.
    #[serde(default, skip_serializing_if = "Path::is_perfect")]
    pub up: Path,
    /// Impairments of packets to the board.
    #[serde(default, skip_serializing_if = "Path::is_perfect")]
    pub down: Path,
    /// Spans of time in which nothing passes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blackout: Vec<Blackout>,
    /// Moments at which the NAT on the way forgets its mappings: flows continue from a new source port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rebind: Vec<Moment>,
    /// Moments at which the board's outside address changes: flows continue from a new source address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub address_change: Vec<Moment>,
}

/// The impairments of one direction. What is absent does not impair.
///
/// A packet meets them in this order: MTU, blackout, fade, loss, rate and queue, delay with jitter and reordering,
/// corruption, truncation, duplication.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Path {
    /// One-way propagation delay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Time>,
    /// Variation of the delay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Jitter>,
    /// Stretches of time, at random moments, in which nothing passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fade: Option<Fade>,
    /// Packets that never arrive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Loss>,
    /// Probability that a packet arrives twice; the copy takes its own delay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<Percent>,
    /// Packets that change places.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reorder: Option<Reorder>,
    /// Packets with flipped bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrupt: Option<Corrupt>,
    /// Packets cut short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncate: Option<Truncate>,
    /// The bottleneck's rate, counted over whole IP packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// What may wait for the bottleneck.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<Queue>,
    /// Other people's traffic through the same bottleneck: packets of 1,200 B at random times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub background: Option<Rate>,
    /// The rate over time; replaces `rate` from its first step on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_trace: Option<Trace<Rate>>,
    /// The delay over time; replaces `delay` from its first step on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_trace: Option<Trace<Time>>,
    /// Largest IP packet that passes; larger ones vanish without a word (a black hole).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<Size>,
}

/// A value that changes in steps: `steps = [["0 s", "10 Mbit/s"], ["5 s", "1 Mbit/s"]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trace<T> {
    /// When each value begins to hold, in ascending order.
    pub steps: Vec<(Time, T)>,
    /// Starts over after so much time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<Time>,
    /// The event the times count from; without it they count from the link's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// A span of time in which nothing passes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blackout {
    /// When it begins.
    #[serde(default)]
    pub at: Time,
    /// The event `at` counts from (its first occurrence); without it, the link's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// How long it lasts.
    #[serde(rename = "for")]
    pub length: Time,
    /// Repeats every so often, counted from begin to begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<Time>,
    /// How often in all; with a period and without a count it goes on for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Only this direction; both if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
}

/// A moment at which something happens, once or periodically.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moment {
    /// When.
    #[serde(default)]
    pub at: Time,
    /// The event `at` counts from (its first occurrence); without it, the link's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Repeats every so often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<Time>,
    /// How often in all; with a period and without a count it goes on for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
}

/// A configuration that contradicts itself: where, what, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The key, from the link downwards: `up.queue`, `blackout[0].period`. One of a path is named by its direction, also
    /// where `both` or the profile has it.
    pub key: String,
    /// What is wrong with it and how to mend it.
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "link.{}: {}", self.key, self.problem)
    }
}

impl core::error::Error for ConfigError {}

impl LinkConfig {
    /// A perfect link.
    #[must_use]
    pub fn perfect() -> Self {
        Self::default()
    }

    /// The named network, nothing added.
    #[must_use]
    pub fn profile(profile: Profile) -> Self {
        Self { profile: Some(profile), ..Self::default() }
    }

    /// The same impairments in both directions.
    #[must_use]
    pub fn symmetric(both: Path) -> Self {
        Self { both, ..Self::default() }
    }

    /// What holds for `direction` once profile, `both` and the direction's own keys are put together.
    #[must_use]
    pub fn path(&self, direction: Direction) -> Path {
        let own = match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        };
        let base = self.profile.map(Profile::path).unwrap_or_default();
        own.over(&self.both.over(&base))
    }

    /// The names of the events that schedules wait for, to be checked against those the run announces.
    pub fn events(&self) -> impl Iterator<Item = &str> {
        let paths = [&self.both, &self.up, &self.down];
        let traces = paths.into_iter().flat_map(|path| {
            let rate = path.rate_trace.as_ref().and_then(|trace| trace.after.as_deref());
            let delay = path.delay_trace.as_ref().and_then(|trace| trace.after.as_deref());
            [rate, delay]
        });
        let blackouts = self.blackout.iter().map(|blackout| blackout.after.as_deref());
        let moments = self.rebind.iter().chain(&self.address_change).map(|moment| moment.after.as_deref());
        traces.chain(blackouts).chain(moments).flatten()
    }

    /// Checks what the types alone cannot.
    ///
    /// # Errors
    /// Names the first key that contradicts another or can have no effect.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for direction in Direction::BOTH {
            self.path(direction)
                .validate()
                .map_err(|(key, problem)| ConfigError { key: format!("{direction}.{key}"), problem })?;
        }
        let blackouts = self.blackout.iter().map(|b| (b.period, b.count, Some(b.length)));
        check_repetitions("blackout", blackouts)?;
        let once = |moment: &Moment| (moment.period, moment.count, None);
        check_repetitions("rebind", self.rebind.iter().map(once))?;
        check_repetitions("address_change", self.address_change.iter().map(once))
    }
}

/// Checks the entries of one schedule: period, count, and how long each lasts, if it is not a moment.
fn check_repetitions(
    schedule: &str,
    entries: impl Iterator<Item = (Option<Time>, Option<u32>, Option<Time>)>,
) -> Result<(), ConfigError> {
    for (index, (period, count, length)) in entries.enumerate() {
        check_repetition(period, count, length)
            .map_err(|(key, problem)| ConfigError { key: format!("{schedule}[{index}].{key}"), problem })?;
    }
    Ok(())
}

fn check_repetition(
    period: Option<Time>,
    count: Option<u32>,
    length: Option<Time>,
) -> Result<(), (&'static str, String)> {
    if length == Some(Time::ZERO) {
        return Err(("for", "0 s has no effect; give it a length".to_owned()));
    }
    let least = PERIOD_MIN.max(length.unwrap_or(Time::ZERO));
    if let Some(period) = period.filter(|period| *period < least) {
        return Err(("period", format!("{period} is shorter than {least}; write at least {least}")));
    }
    match (count, period) {
        (Some(0), _) => Err(("count", "0 has no effect; leave the entry out".to_owned())),
        (Some(2..), None) => {
            Err(("count", "it needs a period to repeat with; write for example period = \"5 s\"".to_owned()))
        }
        _ => Ok(()),
    }
}

/// Shortest period of anything that repeats: a shorter one would only keep the clock busy.
const PERIOD_MIN: Time = Time::from_millis(1);

impl Path {
    /// Whether nothing is impaired.
    #[must_use]
    pub fn is_perfect(&self) -> bool {
        *self == Self::default()
    }

    /// These keys, and those of `base` where they are absent.
    #[must_use]
    pub fn over(&self, base: &Self) -> Self {
        // A rate written here also replaces a trace from below, and the other way round.
        let (rate, rate_trace) = match (&self.rate, &self.rate_trace) {
            (None, None) => (base.rate, base.rate_trace.clone()),
            (rate, trace) => (*rate, trace.clone()),
        };
        let (delay, delay_trace) = match (&self.delay, &self.delay_trace) {
            (None, None) => (base.delay, base.delay_trace.clone()),
            (delay, trace) => (*delay, trace.clone()),
        };
        Self {
            delay,
            jitter: self.jitter.or(base.jitter),
            fade: self.fade.or(base.fade),
            loss: self.loss.clone().or_else(|| base.loss.clone()),
            duplicate: self.duplicate.or(base.duplicate),
            reorder: self.reorder.or(base.reorder),
            corrupt: self.corrupt.or(base.corrupt),
            truncate: self.truncate.or(base.truncate),
            rate,
            queue: self.queue.or(base.queue),
            background: self.background.or(base.background),
            rate_trace,
            delay_trace,
            mtu: self.mtu.or(base.mtu),
        }
    }

    /// Checks the keys against each other; on failure the key and the problem.
    fn validate(&self) -> Result<(), (&'static str, String)> {
        let limited = self.rate.is_some() || self.rate_trace.is_some();
        if !limited && self.queue.is_some() {
            return Err(("queue", "a queue forms only before a bottleneck; give a rate as well".to_owned()));
        }
        if !limited && self.background.is_some() {
            return Err((
                "background",
                "background traffic needs a bottleneck; give a rate as well".to_owned(),
            ));
        }
        if self.rate == Some(Rate::ZERO) {
            return Err(("rate", "nothing passes at 0 bit/s; use a blackout".to_owned()));
        }
        if matches!(self.queue, Some(Queue::Packets(0)))
            || matches!(self.queue, Some(Queue::Bytes(size)) if size.bytes() == 0)
        {
            return Err((
                "queue",
                "a queue of nothing drops whatever cannot leave at once; give it room".to_owned(),
            ));
        }
        if self.mtu.is_some_and(|mtu| mtu < MTU_MIN) {
            return Err((
                "mtu",
                format!(
                    "IPv4 packets need at least {MTU_MIN} to pass (RFC 791); write for example \"1280 B\""
                ),
            ));
        }
        if let Some(trace) = &self.rate_trace {
            trace.validate().map_err(|problem| ("rate_trace", problem))?;
            let ends_at_zero = trace.steps.last().is_some_and(|(_, rate)| *rate == Rate::ZERO);
            let all_zero = trace.steps.iter().all(|(_, rate)| *rate == Rate::ZERO);
            if all_zero || (ends_at_zero && trace.period.is_none()) {
                return Err((
                    "rate_trace",
                    "it ends at 0 bit/s for ever; end it with a rate or give a period".to_owned(),
                ));
            }
        }
        if let Some(trace) = &self.delay_trace {
            trace.validate().map_err(|problem| ("delay_trace", problem))?;
        }
        if let Some(fade) = &self.fade {
            fade.validate()?;
        }
        self.validate_dice()
    }

    fn validate_dice(&self) -> Result<(), (&'static str, String)> {
        if let Some(Loss(loss)) = &self.loss {
            if loss.random.is_none() && loss.burst.is_none() && loss.packets.is_none() {
                return Err(("loss", "it names no loss; give random, burst or packets".to_owned()));
            }
            if loss.run_max == Some(0) {
                return Err(("loss.run_max", "0 would lose nothing; leave loss out instead".to_owned()));
            }
            if loss.burst.is_some_and(|burst| burst.leave.is_zero() && !burst.enter.is_zero()) {
                return Err((
                    "loss.burst.leave",
                    "0 % never leaves the bad state; give it a chance".to_owned(),
                ));
            }
        }
        if let Some(jitter) = &self.jitter
            && jitter.0.correlation == Percent::ALL
        {
            return Err(("jitter.correlation", "100 % means no variation at all; use delay".to_owned()));
        }
        if let Some(reorder) = &self.reorder {
            if reorder.probability.is_zero() && reorder.every.is_none() {
                return Err(("reorder", "it picks no packet; give probability or every".to_owned()));
            }
            if reorder.every == Some(0) {
                return Err(("reorder.every", "there is no 0th packet; give 2 or more".to_owned()));
            }
        }
        if let Some(Corrupt(corrupt)) = &self.corrupt
            && !(1..=FLIPS_MAX as u32).contains(&corrupt.bits)
        {
            return Err((
                "corrupt.bits",
                format!("{} is not between 1 and {FLIPS_MAX}; leave bits out for one", corrupt.bits),
            ));
        }
        Ok(())
    }
}

impl<T> Trace<T> {
    fn validate(&self) -> Result<(), String> {
        if self.steps.is_empty() {
            return Err("it has no steps; give for example steps = [[\"0 s\", ...]]".to_owned());
        }
        if !self.steps.is_sorted_by_key(|(at, _)| *at) {
            return Err("its steps are not in ascending order of time; sort them".to_owned());
        }
        let last = self.steps.last().expect("checked above").0;
        match self.period {
            Some(period) if period <= last || period < PERIOD_MIN => {
                Err(format!("period = {period} ends before its last step at {last}; write a longer one"))
            }
            _ => Ok(()),
        }
    }
}

/// Every IPv4 host and router forwards packets of this size (RFC 791 3.2).
const MTU_MIN: Size = Size::from_bytes(68);
