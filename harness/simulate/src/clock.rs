//! One clock for three libraries, each with its own type of time.

use core::time::Duration;
use std::sync::OnceLock;
use std::time::Instant;

/// Seconds since 1970 at which every simulation starts: in the validity of the simulated certificates.
const START_UNIX_S: u64 = 1_790_000_000;

/// A moment of virtual time: microseconds since the simulation began.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Clock(u64);

impl Clock {
    /// The beginning.
    pub const START: Self = Self(0);

    /// `us` microseconds after the beginning.
    #[must_use]
    pub const fn from_micros(us: u64) -> Self {
        Self(us)
    }

    /// Microseconds since the beginning.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Time since the beginning.
    #[must_use]
    pub const fn elapsed(self) -> Duration {
        Duration::from_micros(self.0)
    }

    /// As the device counts.
    #[must_use]
    pub const fn device(self) -> device::time::Instant {
        device::time::Instant::from_micros(self.0)
    }

    /// From the device's count.
    #[must_use]
    pub const fn from_device(at: device::time::Instant) -> Self {
        Self(at.as_micros())
    }

    /// As quinn-proto counts: from an arbitrary moment of this process, so only differences mean anything.
    #[must_use]
    pub fn quinn(self) -> Instant {
        origin() + self.elapsed()
    }

    /// From quinn-proto's count, rounded up so that a timer never seems to fire early.
    #[must_use]
    pub fn from_quinn(at: Instant) -> Self {
        Self(at.saturating_duration_since(origin()).as_nanos().div_ceil(1_000) as u64)
    }

    /// The wall clock.
    #[must_use]
    pub const fn unix_s(self) -> u64 {
        START_UNIX_S + self.0 / 1_000_000
    }
}

impl core::ops::Add<Duration> for Clock {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0 + rhs.as_micros() as u64)
    }
}

impl core::fmt::Display for Clock {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:.6} s", self.elapsed().as_secs_f64())
    }
}

fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}
