//! Congestion control (RFC 9002 7): a trait, and NewReno behind it.

use crate::time::Instant;

/// Bytes in a full datagram; windows are counted in it. The path MTU is not raised above 1200 by default.
pub const MAX_DATAGRAM_SIZE: u32 = 1200;

/// Window at the start and after a change of path: ten datagrams, at most 14,720 bytes (RFC 9002 7.2).
pub const INITIAL_WINDOW: u32 = 10 * MAX_DATAGRAM_SIZE;

/// Window after persistent congestion: two datagrams (RFC 9002 7.2).
pub const MINIMUM_WINDOW: u32 = 2 * MAX_DATAGRAM_SIZE;

/// Whether the sender was using its window when the acknowledged packets were in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Utilisation {
    /// The window held the sender back: it may grow.
    Full,
    /// The application or flow control held the sender back: the window must not grow (RFC 9002 7.8).
    Limited,
}

/// Decides how many bytes may be in flight.
pub trait Congestion {
    /// The congestion window in bytes.
    fn window(&self) -> u32;

    /// Whether the window grows by what is acknowledged.
    fn is_in_slow_start(&self) -> bool;

    /// A packet of `bytes` sent at `sent` was acknowledged.
    fn on_acked(&mut self, sent: Instant, bytes: u32, utilisation: Utilisation);

    /// Packets were lost, the last of them sent at `sent`. Says whether a new recovery period began.
    fn on_lost(&mut self, now: Instant, sent: Instant) -> bool;

    /// Losses span the persistent congestion period (RFC 9002 7.6).
    fn on_persistent_congestion(&mut self);

    /// Each packet whose loss began the current recovery period has arrived after all.
    fn on_spurious_loss(&mut self);

    /// The path changed: what was learned no longer applies (RFC 9000 9.4).
    fn reset(&mut self);
}

/// NewReno as RFC 9002 appendix B writes it down.
///
/// Growth in congestion avoidance counts bytes (RFC 3465 2.1), which spares a division per packet.
#[derive(Clone, Copy, Debug)]
pub struct NewReno {
    window: u32,
    slow_start_threshold: u32,
    acked_in_avoidance: u32,
    recovery_start: Option<Instant>,
    before_recovery: Option<(u32, u32)>,
}

impl Default for NewReno {
    fn default() -> Self {
        Self::new()
    }
}

impl NewReno {
    /// A controller in slow start.
    pub const fn new() -> Self {
        Self {
            window: INITIAL_WINDOW,
            slow_start_threshold: u32::MAX,
            acked_in_avoidance: 0,
            recovery_start: None,
            before_recovery: None,
        }
    }

    /// The window size above which growth is linear.
    pub const fn slow_start_threshold(&self) -> u32 {
        self.slow_start_threshold
    }

    /// A window in congestion avoidance.
    #[cfg(test)]
    pub(super) const fn set_avoiding(&mut self, window: u32) {
        self.window = window;
        self.slow_start_threshold = window;
    }

    fn in_recovery(&self, sent: Instant) -> bool {
        self.recovery_start.is_some_and(|start| sent <= start)
    }
}

impl Congestion for NewReno {
    fn window(&self) -> u32 {
        self.window
    }

    fn is_in_slow_start(&self) -> bool {
        self.window < self.slow_start_threshold
    }

    fn on_acked(&mut self, sent: Instant, bytes: u32, utilisation: Utilisation) {
        if utilisation == Utilisation::Limited || self.in_recovery(sent) {
            return;
        }
        if self.is_in_slow_start() {
            self.window = self.window.saturating_add(bytes);
            return;
        }
        self.acked_in_avoidance += bytes;
        if self.acked_in_avoidance >= self.window {
            self.acked_in_avoidance -= self.window;
            self.window = self.window.saturating_add(MAX_DATAGRAM_SIZE);
        }
    }

    fn on_lost(&mut self, now: Instant, sent: Instant) -> bool {
        if self.in_recovery(sent) {
            return false;
        }
        self.before_recovery = Some((self.window, self.slow_start_threshold));
        self.recovery_start = Some(now);
        self.slow_start_threshold = self.window / 2;
        self.window = self.slow_start_threshold.max(MINIMUM_WINDOW);
        self.acked_in_avoidance = 0;
        true
    }

    fn on_persistent_congestion(&mut self) {
        self.window = MINIMUM_WINDOW;
        self.acked_in_avoidance = 0;
        self.recovery_start = None;
        self.before_recovery = None;
    }

    fn on_spurious_loss(&mut self) {
        if let Some((window, threshold)) = self.before_recovery.take() {
            self.window = self.window.max(window);
            self.slow_start_threshold = threshold;
            self.recovery_start = None;
        }
    }

    fn reset(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Instant {
        Instant::from_micros(us)
    }

    #[test]
    fn slow_start_grows_by_what_is_acknowledged() {
        let mut reno = NewReno::new();
        reno.on_acked(at(1), 1200, Utilisation::Full);
        assert_eq!(reno.window(), INITIAL_WINDOW + 1200);
    }

    #[test]
    fn an_underused_window_does_not_grow() {
        let mut reno = NewReno::new();
        reno.on_acked(at(1), 1200, Utilisation::Limited);
        assert_eq!(reno.window(), INITIAL_WINDOW);
    }

    #[test]
    fn one_reduction_per_recovery_period() {
        let mut reno = NewReno::new();
        assert!(reno.on_lost(at(10), at(5)));
        assert_eq!(reno.window(), INITIAL_WINDOW / 2);
        assert!(!reno.on_lost(at(12), at(10)));
        assert_eq!(reno.window(), INITIAL_WINDOW / 2);
        assert!(reno.on_lost(at(20), at(11)));
        assert_eq!(reno.window(), INITIAL_WINDOW / 4);
    }

    #[test]
    fn packets_sent_before_recovery_do_not_grow_the_window() {
        let mut reno = NewReno::new();
        reno.on_lost(at(10), at(5));
        reno.on_acked(at(9), 1200, Utilisation::Full);
        assert_eq!(reno.window(), INITIAL_WINDOW / 2);
    }

    #[test]
    fn avoidance_grows_by_one_datagram_per_window() {
        let mut reno = NewReno::new();
        reno.on_lost(at(10), at(5));
        for _ in 0..5 {
            assert_eq!(reno.window(), INITIAL_WINDOW / 2);
            reno.on_acked(at(11), 1200, Utilisation::Full);
        }
        assert_eq!(reno.window(), INITIAL_WINDOW / 2 + MAX_DATAGRAM_SIZE);
    }

    #[test]
    fn the_window_never_falls_below_two_datagrams() {
        let mut reno = NewReno::new();
        for n in 1..10 {
            reno.on_lost(at(10 * n), at(10 * n - 1));
        }
        assert_eq!(reno.window(), MINIMUM_WINDOW);
    }

    #[test]
    fn a_spurious_loss_restores_the_window() {
        let mut reno = NewReno::new();
        reno.on_lost(at(10), at(5));
        reno.on_spurious_loss();
        assert_eq!((reno.window(), reno.slow_start_threshold()), (INITIAL_WINDOW, u32::MAX));
    }
}
