//! When a console has nobody at its other end.
//!
//! USB takes bytes only while a host reads them. A board on a charger, or one whose harness was killed, would
//! wait for ever; one whose harness is merely busy must lose nothing. So the console waits, for a while.

use device::time::{Duration, Instant};

/// How long a host may take nothing before it counts as gone: longer than any pause of a living harness.
pub const LIMIT: Duration = Duration::from_secs(2);

/// What to do with bytes that the console does not take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Keep them: the host is slow.
    Wait,
    /// Drop them: there is no host.
    Drop,
}

/// Watches whether the console takes bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    stuck_since: Option<Instant>,
}

impl Patience {
    /// Nothing is stuck yet.
    pub const fn new() -> Self {
        Self { stuck_since: None }
    }

    /// The console took a byte.
    pub const fn on_progress(&mut self) {
        self.stuck_since = None;
    }

    /// The console took nothing.
    pub fn on_stuck(&mut self, now: Instant) -> Verdict {
        let since = *self.stuck_since.get_or_insert(now);
        if now.saturating_since(since) >= LIMIT { Verdict::Drop } else { Verdict::Wait }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_host_is_waited_for_and_a_missing_one_is_not() {
        let mut patience = Patience::new();
        let start = Instant::from_micros(7);
        assert_eq!(patience.on_stuck(start), Verdict::Wait);
        assert_eq!(patience.on_stuck(start + Duration::from_millis(1_999)), Verdict::Wait);
        assert_eq!(patience.on_stuck(start + LIMIT), Verdict::Drop);
        assert_eq!(patience.on_stuck(start + Duration::from_secs(9)), Verdict::Drop);
    }

    #[test]
    fn a_host_that_comes_back_is_waited_for_again() {
        let mut patience = Patience::new();
        patience.on_stuck(Instant::ZERO);
        patience.on_progress();
        assert_eq!(patience.on_stuck(Instant::ZERO + LIMIT), Verdict::Wait);
    }
}
