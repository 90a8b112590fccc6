//! A 64-bit count from a hardware counter of 32 bits, which is read at least once per turn.

/// Remembers the counter's last value and its turns.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extended {
    turns: u32,
    last: u32,
}

impl Extended {
    /// A count that starts at zero turns.
    pub const fn new() -> Self {
        Self { turns: 0, last: 0 }
    }

    /// The whole count, given the hardware's `now`. At 160 MHz a turn takes 26.8 s: whoever owns this reads
    /// it more often than that.
    pub const fn extend(&mut self, now: u32) -> u64 {
        if now < self.last {
            self.turns = self.turns.wrapping_add(1);
        }
        self.last = now;
        (self.turns as u64) << 32 | now as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_counted() {
        let mut counter = Extended::new();
        assert_eq!(counter.extend(5), 5);
        assert_eq!(counter.extend(u32::MAX), u64::from(u32::MAX));
        assert_eq!(counter.extend(3), (1 << 32) + 3);
        assert_eq!(counter.extend(3), (1 << 32) + 3);
        assert_eq!(counter.extend(0), 2 << 32);
    }
}
