//! What happened, in one number: equal traces mean equal runs.

use std::collections::BTreeMap;

use crate::Clock;
use link::Direction;

/// Bytes of a packet with an eight-byte identifier that says as little as header protection permits: a PING.
const SHORTEST: usize = 29;

/// A running hash over each datagram's time, direction, size and fate, and optionally the lines themselves.
#[derive(Clone, Debug)]
pub struct Trace {
    hash: u64,
    datagrams: u64,
    shortest: Shortest,
    /// How many datagrams reach the client at each instant to come.
    arrivals: BTreeMap<Clock, u32>,
    lines: Option<Vec<String>>,
}

/// The client's datagrams of at most [`SHORTEST`] bytes, beyond one for each that reached it at the same instant: such a one
/// may be an acknowledgement or credit, which are as short.
#[derive(Clone, Copy, Debug, Default)]
struct Shortest {
    at: Clock,
    /// How many left at that instant.
    count: u32,
    /// When most of them left, and how many.
    most: (Clock, u32),
}

impl Default for Trace {
    fn default() -> Self {
        let shortest = Shortest::default();
        Self { hash: 0xcbf2_9ce4_8422_2325, datagrams: 0, shortest, arrivals: BTreeMap::new(), lines: None }
    }
}

impl Trace {
    /// Keeps the lines, for reading.
    pub fn keep_lines(&mut self) {
        self.lines.get_or_insert_default();
    }

    /// The hash so far (FNV-1a, 64 bits).
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// Datagrams so far.
    #[must_use]
    pub const fn datagrams(&self) -> u64 {
        self.datagrams
    }

    /// The most datagrams with nothing but a PING that the client sent at one instant without being asked, and when.
    #[must_use]
    pub const fn most_pings(&self) -> (Clock, u32) {
        self.shortest.most
    }

    /// The lines so far; empty unless they are kept.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }

    pub(crate) fn datagram(&mut self, now: Clock, direction: Direction, size: usize, arrivals: &[Clock]) {
        self.datagrams += 1;
        match direction {
            Direction::Up => {
                self.arrivals = self.arrivals.split_off(&now);
                if size <= SHORTEST {
                    self.shortest.count(now, self.arrivals.get(&now).copied().unwrap_or_default());
                }
            }
            Direction::Down => {
                for &arrival in arrivals {
                    *self.arrivals.entry(arrival).or_default() += 1;
                }
            }
        }
        self.number(now.as_micros());
        self.number(direction.index() as u64);
        self.number(size as u64);
        for arrival in arrivals {
            self.number(arrival.as_micros());
        }
        self.note(now, || match arrivals {
            [] => format!("{direction:4} {size} B lost"),
            [first, ..] => format!("{direction:4} {size} B x{} until {first}", arrivals.len()),
        });
    }

    /// Adds a remark to the lines, if they are kept. It does not change the hash.
    pub fn note(&mut self, now: Clock, remark: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{now} {}", remark()));
        }
    }

    /// Adds a number to the hash.
    pub fn number(&mut self, number: u64) {
        for byte in number.to_le_bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

impl Shortest {
    fn count(&mut self, now: Clock, arrived: u32) {
        self.count = if self.at == now { self.count + 1 } else { 1 };
        self.at = now;
        let unasked = self.count.saturating_sub(arrived);
        if unasked > self.most.1 {
            self.most = (now, unasked);
        }
    }
}
