//! Fades: stretches of time, at random moments, in which nothing that is sent arrives.
//!
//! Unlike the burst model, which moves on by packets, a fade takes as long for a sender that has slowed down as for one
//! that has not. So it is the fair one to compare transports under: bursts that are counted in packets last the longer
//! the fewer are sent.

use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::dice::{Dice, Kind};
use crate::units::Time;

/// How often and for how long a radio fades: `fade = { every = "2 s", last = "60 ms" }`.
///
/// Fades and the times between them are exponentially distributed. Both directions draw the same ones: where they
/// state the same fade, as a radio does, they go dark together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fade {
    /// Mean time from the beginning of one to that of the next.
    pub every: Time,
    /// Mean length.
    pub last: Time,
}

impl Fade {
    /// On failure the key and what is wrong with it.
    pub(crate) fn validate(&self) -> Result<(), (&'static str, String)> {
        if self.last < LAST_MIN {
            return Err((
                "fade.last",
                format!("{} is shorter than {LAST_MIN}; write at least that", self.last),
            ));
        }
        if self.every <= self.last {
            let problem = format!(
                "fades of {} every {} leave no time between them; write a longer one",
                self.last, self.every
            );
            return Err(("fade.every", problem));
        }
        Ok(())
    }
}

/// Shortest mean fade: shorter ones would only keep the clock busy.
const LAST_MIN: Time = Time::from_millis(1);

/// The fades of one link, drawn one after another as time goes on.
#[derive(Clone, Debug)]
pub(crate) struct FadeModel {
    fade: Fade,
    dice: Dice,
    /// The number of the latest fade drawn, the first being 1.
    index: u64,
    begin: Duration,
    end: Duration,
}

impl FadeModel {
    pub(crate) fn new(fade: Fade, seed: u64) -> Self {
        let dice = Dice::shared(seed, Kind::Fade);
        Self { fade, dice, index: 0, begin: Duration::ZERO, end: Duration::ZERO }
    }

    /// If `now` falls into a fade, the moment it ends. To be asked in order of time.
    pub(crate) fn end(&mut self, now: Duration) -> Option<Duration> {
        while self.end <= now {
            self.index += 1;
            let mut roll = self.dice.at(self.index);
            let last = self.fade.last.duration();
            let between = self.fade.every.duration().saturating_sub(last);
            self.begin = self.end.saturating_add(between.mul_f64(roll.exponential()));
            self.end = self.begin.saturating_add(last.mul_f64(roll.exponential()));
        }
        (self.begin <= now).then_some(self.end)
    }
}
