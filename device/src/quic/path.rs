//! The path to the server: validation after a change of address, answers to its challenges, and the size
//! of datagrams it carries (RFC 9000 8.2, 9, 14).

use heapless::{Deque, Vec};

use crate::time::{Duration, Instant};

use super::config::{Config, DATAGRAM_LEN_MIN};
use super::frame::PATH_DATA_LEN;

/// Challenges of the peer that await an answer; more are ignored, it will ask again.
const RESPONSES_MAX: usize = 4;
/// Times a path is challenged before it counts as failed.
const CHALLENGES_MAX: usize = 3;
/// How long at least the last challenge may remain unanswered: three probe timeouts of a path of unknown RTT
/// (RFC 9000 8.2.4).
const PATIENCE: Duration = Duration::from_secs(3);
/// Losses of a probe after which its size counts as too large (RFC 8899 5.1.2, MAX_PROBES).
const MTU_PROBES_MAX: u8 = 3;
/// The search ends when it could gain less than this.
const MTU_STEP_MIN: u16 = 32;
/// Probe timeouts in a row after which a raised datagram size is no longer trusted.
const BLACK_HOLE_BACKOFF: u8 = 3;

/// What became of a challenge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Validation {
    /// The path was not challenged, or has answered.
    Idle,
    /// A challenge is due.
    Due,
    /// An answer is awaited.
    Waiting,
}

/// The one path of a client.
#[derive(Debug)]
pub struct Path {
    responses: Deque<[u8; PATH_DATA_LEN], RESPONSES_MAX>,
    validation: Validation,
    challenges: Vec<[u8; PATH_DATA_LEN], CHALLENGES_MAX>,
    challenge_again_at: Instant,
    /// Datagrams of this size get through.
    datagram_len: u16,
    search: Search,
}

/// The search for a larger datagram size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Search {
    /// Not begun, or ended.
    Off,
    /// A datagram of `target` bytes is to be sent; larger than `above` is known not to work.
    Due { target: u16, above: u16, failures: u8 },
    /// It is under way.
    InFlight { target: u16, above: u16, failures: u8 },
}

impl Path {
    /// A path that carries what every path must.
    pub const fn new() -> Self {
        Self {
            responses: Deque::new(),
            validation: Validation::Idle,
            challenges: Vec::new(),
            challenge_again_at: Instant::ZERO,
            datagram_len: DATAGRAM_LEN_MIN,
            search: Search::Off,
        }
    }

    /// The server wants an answer to `data`.
    pub fn on_challenge(&mut self, data: [u8; PATH_DATA_LEN]) {
        // A full queue: the server floods, or will ask again.
        let _ = self.responses.push_back(data);
    }

    /// Whether an answer is owed.
    pub fn owes_response(&self) -> bool {
        !self.responses.is_empty()
    }

    /// The next answer; it counts as sent. An answer is sent once (RFC 9000 13.3).
    pub fn next_response(&mut self) -> Option<[u8; PATH_DATA_LEN]> {
        self.responses.pop_front()
    }

    /// The path is new: challenge it.
    pub fn begin_validation(&mut self) {
        self.validation = Validation::Due;
        self.challenges.clear();
        self.datagram_len = DATAGRAM_LEN_MIN;
        self.search = Search::Off;
    }

    /// What is going on.
    pub const fn validation(&self) -> Validation {
        self.validation
    }

    /// A challenge was sent. The next one follows after `pto`, then after twice that.
    pub fn on_challenge_sent(&mut self, now: Instant, pto: Duration, data: [u8; PATH_DATA_LEN]) {
        if self.challenges.push(data).is_ok() {
            self.validation = Validation::Waiting;
            let wait = pto.saturating_mul(1 << (self.challenges.len() - 1));
            self.challenge_again_at = now + if self.challenges.is_full() { wait.max(PATIENCE) } else { wait };
        }
    }

    /// An answer arrived. Says whether it validates the path.
    pub fn on_response(&mut self, data: [u8; PATH_DATA_LEN]) -> bool {
        let answers = self.validation != Validation::Idle && self.challenges.contains(&data);
        if answers {
            self.validation = Validation::Idle;
            self.challenges.clear();
        }
        answers
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        (self.validation == Validation::Waiting).then_some(self.challenge_again_at)
    }

    /// Asks again when an answer is overdue. Says whether the path has failed.
    pub fn handle_timeout(&mut self, now: Instant) -> bool {
        if self.validation != Validation::Waiting || self.challenge_again_at > now {
            return false;
        }
        let failed = self.challenges.is_full();
        self.validation = if failed { Validation::Idle } else { Validation::Due };
        failed
    }

    /// The largest datagram to send.
    pub const fn datagram_len(&self) -> u16 {
        self.datagram_len
    }

    /// Begins the search for a larger size, if the configuration and the peer want one.
    pub fn begin_search(&mut self, config: &Config, peer_max: u16) {
        let target = config.send_datagram_len.min(peer_max);
        if target >= self.datagram_len + MTU_STEP_MIN {
            self.search = Search::Due { target, above: target + 1, failures: 0 };
        }
    }

    /// The size of the datagram to probe with now.
    pub const fn due_probe(&self) -> Option<u16> {
        match self.search {
            Search::Due { target, .. } => Some(target),
            _ => None,
        }
    }

    /// The probe was sent.
    pub fn on_probe_sent(&mut self) {
        if let Search::Due { target, above, failures } = self.search {
            self.search = Search::InFlight { target, above, failures };
        }
    }

    /// A probe of `len` bytes arrived.
    pub fn on_probe_acked(&mut self, len: u16) {
        if let Search::InFlight { target, above, .. } = self.search
            && target == len
        {
            self.datagram_len = len;
            self.search = self.next_target(above);
        }
    }

    /// A probe of `len` bytes was lost.
    pub fn on_probe_lost(&mut self, len: u16) {
        let Search::InFlight { target, above, failures } = self.search else { return };
        if target != len {
            return;
        }
        self.search = if failures + 1 < MTU_PROBES_MAX {
            Search::Due { target, above, failures: failures + 1 }
        } else {
            self.next_target(target)
        };
    }

    /// After `backoff` probe timeouts in a row, falls back to the size every path carries.
    pub fn on_probe_timeout(&mut self, backoff: u8) {
        if backoff >= BLACK_HOLE_BACKOFF && self.datagram_len > DATAGRAM_LEN_MIN {
            self.datagram_len = DATAGRAM_LEN_MIN;
            self.search = Search::Off;
        }
    }

    /// Halves the distance between what works and what does not.
    const fn next_target(&self, above: u16) -> Search {
        let target = self.datagram_len + (above - self.datagram_len) / 2;
        if target < self.datagram_len + MTU_STEP_MIN {
            return Search::Off;
        }
        Search::Due { target, above, failures: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PTO: Duration = Duration::from_millis(10);

    #[test]
    fn three_unanswered_challenges_fail_the_path() {
        let mut path = Path::new();
        path.begin_validation();
        let mut now = Instant::ZERO;
        for (attempt, wait) in [PTO, PTO.saturating_mul(2), PATIENCE].into_iter().enumerate() {
            assert_eq!(path.validation(), Validation::Due);
            path.on_challenge_sent(now, PTO, [attempt as u8; 8]);
            now += wait;
            assert_eq!(path.poll_timeout(), Some(now));
            assert_eq!(path.handle_timeout(now), attempt == 2);
        }
        assert_eq!(path.validation(), Validation::Idle);
    }

    #[test]
    fn any_of_the_challenges_may_be_answered() {
        let mut path = Path::new();
        path.begin_validation();
        path.on_challenge_sent(Instant::ZERO, PTO, [1; 8]);
        path.handle_timeout(Instant::ZERO + PTO);
        path.on_challenge_sent(Instant::ZERO + PTO, PTO, [2; 8]);
        assert!(!path.on_response([3; 8]));
        assert!(path.on_response([1; 8]));
        assert!(!path.on_response([1; 8]));
    }

    #[test]
    fn a_flood_of_challenges_is_bounded() {
        let mut path = Path::new();
        (0..100).for_each(|byte| path.on_challenge([byte; 8]));
        assert_eq!(core::iter::from_fn(|| path.next_response()).count(), RESPONSES_MAX);
    }

    #[test]
    fn the_search_ends_within_two_steps_of_the_largest_size() {
        for limit in [1200, 1280, 1300, 1400, 1451, 1472] {
            let mut path = Path::new();
            path.begin_search(&Config { send_datagram_len: 1472, ..Config::new() }, u16::MAX);
            let mut probes = 0;
            while let Some(len) = path.due_probe() {
                path.on_probe_sent();
                if len <= limit {
                    path.on_probe_acked(len);
                } else {
                    path.on_probe_lost(len);
                }
                probes += 1;
            }
            assert!(
                path.datagram_len() <= limit && path.datagram_len() + 2 * MTU_STEP_MIN > limit,
                "{limit}"
            );
            assert!(probes <= 15);
        }
    }

    #[test]
    fn a_black_hole_ends_larger_datagrams() {
        let mut path = Path::new();
        path.begin_search(&Config { send_datagram_len: 1472, ..Config::new() }, 1400);
        path.on_probe_sent();
        path.on_probe_acked(1400);
        path.on_probe_timeout(2);
        assert_eq!(path.datagram_len(), 1400);
        path.on_probe_timeout(3);
        assert_eq!(path.datagram_len(), 1200);
    }
}
