//! What happens to the link over time: blackouts, rebindings, address changes.
//!
//! A schedule counts from the link's start or from the first occurrence of a named event. Whether a
//! packet falls into a blackout is a pure function of its time; that a blackout began or a NAT must
//! forget is told to the driver as an [`Action`] once its moment has come.

use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{Blackout, Direction, LinkConfig, Moment};
use crate::units::Time;

/// Something the link does by itself at its moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Action {
    /// From now on nothing passes.
    BlackoutStart {
        /// Only this way; both if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        direction: Option<Direction>,
    },
    /// Packets pass again.
    BlackoutEnd {
        /// Only this way; both if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        direction: Option<Direction>,
    },
    /// The NAT forgets its mappings: flows must continue from a new source port.
    Rebind,
    /// The outside address changes: flows must continue from a new source address.
    AddressChange,
}

/// An action and its scheduled moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Performed {
    /// Microseconds since the link's start.
    pub time_us: u64,
    /// What happens.
    #[serde(flatten)]
    pub action: Action,
}

/// All schedules of a link.
#[derive(Clone, Debug)]
pub(crate) struct Timeline {
    schedules: Vec<Schedule>,
}

#[derive(Clone, Debug)]
struct Schedule {
    what: What,
    after: Option<String>,
    at: Duration,
    period: Option<Duration>,
    /// Occurrences in all.
    count: u64,
    /// The moment `at` counts from, once known.
    base: Option<Duration>,
    /// Next action to tell: occurrence number, and for blackouts whether its begin was told.
    next: u64,
    begun: bool,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Blackout { length: Duration, direction: Option<Direction> },
    Rebind,
    AddressChange,
}

impl Timeline {
    pub(crate) fn new(config: &LinkConfig) -> Self {
        let blackouts = config.blackout.iter().map(Schedule::blackout);
        let rebinds = config.rebind.iter().map(|moment| Schedule::moment(moment, What::Rebind));
        let changes =
            config.address_change.iter().map(|moment| Schedule::moment(moment, What::AddressChange));
        Self { schedules: blackouts.chain(rebinds).chain(changes).collect() }
    }

    /// Starts the schedules that wait for `name`.
    pub(crate) fn on_event(&mut self, name: &str, now: Duration) {
        for schedule in &mut self.schedules {
            if schedule.base.is_none() && schedule.after.as_deref() == Some(name) {
                schedule.base = Some(now);
            }
        }
    }

    /// If `now` falls into a blackout of `direction`, the moment it ends.
    pub(crate) fn blackout_end(&self, direction: Direction, now: Duration) -> Option<Duration> {
        self.schedules.iter().filter_map(|schedule| schedule.blackout_end(direction, now)).max()
    }

    /// When the next action is due.
    pub(crate) fn next_at(&self) -> Option<Duration> {
        self.schedules.iter().filter_map(Schedule::next_at).min()
    }

    /// The next action if its moment has come.
    pub(crate) fn poll(&mut self, now: Duration) -> Option<Performed> {
        let schedule = self.schedules.iter_mut().min_by_key(|s| s.next_at().unwrap_or(Duration::MAX))?;
        let at = schedule.next_at().filter(|at| *at <= now)?;
        Some(Performed { time_us: micros(at), action: schedule.advance() })
    }
}

impl Schedule {
    fn new(what: What, at: Time, after: Option<&String>, period: Option<Time>, count: Option<u32>) -> Self {
        let endless = if period.is_some() { u64::MAX } else { 1 };
        Self {
            what,
            after: after.cloned(),
            at: at.duration(),
            period: period.map(Time::duration),
            count: count.map_or(endless, u64::from),
            base: after.is_none().then_some(Duration::ZERO),
            next: 0,
            begun: false,
        }
    }

    fn blackout(blackout: &Blackout) -> Self {
        let what = What::Blackout { length: blackout.length.duration(), direction: blackout.direction };
        Self::new(what, blackout.at, blackout.after.as_ref(), blackout.period, blackout.count)
    }

    fn moment(moment: &Moment, what: What) -> Self {
        Self::new(what, moment.at, moment.after.as_ref(), moment.period, moment.count)
    }

    /// When occurrence `k` begins.
    fn occurrence(&self, k: u64) -> Option<Duration> {
        if k >= self.count {
            return None;
        }
        let first = self.base?.saturating_add(self.at);
        let later = match self.period {
            Some(period) => nanos(period).saturating_mul(k),
            None => 0,
        };
        Some(first.saturating_add(Duration::from_nanos(later)))
    }

    fn blackout_end(&self, direction: Direction, now: Duration) -> Option<Duration> {
        let What::Blackout { length, direction: only } = self.what else { return None };
        if only.is_some_and(|only| only != direction) {
            return None;
        }
        let since = now.checked_sub(self.occurrence(0)?)?;
        let k = self.period.map_or(0, |period| nanos(since) / nanos(period).max(1));
        let begin = self.occurrence(k.min(self.count - 1))?;
        let end = begin.saturating_add(length);
        (now < end).then_some(end)
    }

    fn next_at(&self) -> Option<Duration> {
        let begin = self.occurrence(self.next)?;
        match self.what {
            What::Blackout { length, .. } if self.begun => Some(begin.saturating_add(length)),
            _ => Some(begin),
        }
    }

    fn advance(&mut self) -> Action {
        match self.what {
            What::Blackout { direction, .. } if !self.begun => {
                self.begun = true;
                return Action::BlackoutStart { direction };
            }
            _ => self.next += 1,
        }
        self.begun = false;
        match self.what {
            What::Blackout { direction, .. } => Action::BlackoutEnd { direction },
            What::Rebind => Action::Rebind,
            What::AddressChange => Action::AddressChange,
        }
    }
}

/// A duration in whole nanoseconds; 584 years are enough.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A duration in whole microseconds.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
