//! Many worlds on several threads.

use core::ops::Range;
use core::time::Duration;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::{Verdict, run_world};

/// How far [`run_many`] is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Worlds played.
    pub done: u64,
    /// Worlds in all.
    pub total: u64,
    /// Of those played, how many failed.
    pub failed: u64,
}

/// What many worlds came to. All but `wall` is the same on every run.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Worlds played.
    pub worlds: u64,
    /// Verdicts of those that failed, by ascending seed.
    pub failures: Vec<Verdict>,
    /// Real time it took.
    pub wall: Duration,
    /// Virtual time in all.
    pub elapsed: Duration,
    /// Datagrams in all.
    pub datagrams: u64,
    /// Sessions opened.
    pub sessions: u64,
    /// Of these, with a resumed TLS session.
    pub resumed: u64,
    /// Of these, with CONNECT taken as 0-RTT data.
    pub early: u64,
    /// Retry packets.
    pub retries: u64,
    /// Key updates.
    pub key_updates: u64,
    /// Paths validated after a migration.
    pub paths_validated: u64,
    /// Messages with QoS 1 or 2, both ways.
    pub messages: u64,
    /// Worlds in which the broker had messages that waited until the client acknowledged others.
    pub held_back: u64,
    /// Worlds in which the client had as many messages in flight as the broker takes.
    pub filled: u64,
    /// All verdicts' hashes, combined so that their order does not matter.
    pub hash: u64,
}

impl Summary {
    /// Worlds played per second of real time.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.worlds as f64 / self.wall.as_secs_f64().max(f64::EPSILON)
    }

    fn add(&mut self, verdict: Verdict) {
        self.worlds += 1;
        self.elapsed += verdict.elapsed;
        self.datagrams += verdict.datagrams;
        self.sessions += u64::from(verdict.sessions);
        self.resumed += u64::from(verdict.resumed);
        self.early += u64::from(verdict.early);
        self.retries += u64::from(verdict.retries);
        self.key_updates += u64::from(verdict.key_updates);
        self.paths_validated += u64::from(verdict.paths_validated);
        self.messages += u64::from(verdict.published) + u64::from(verdict.delivered);
        self.held_back += u64::from(verdict.held_back > 0);
        self.filled += u64::from(verdict.filled > 0);
        self.hash = self.hash.wrapping_add(verdict.hash().wrapping_mul(verdict.seed | 1));
        if verdict.failure.is_some() {
            self.failures.push(verdict);
        }
    }
}

/// Plays the worlds of `seeds` on `threads` threads; `progress` is called after each world, from any of them.
///
/// A panic in a world is its failure, no more. Its message goes to stderr as usual.
pub fn run_many(seeds: Range<u64>, threads: usize, progress: impl Fn(Progress) + Sync) -> Summary {
    let begin = Instant::now();
    let total = seeds.end.saturating_sub(seeds.start);
    let next = AtomicU64::new(seeds.start);
    let summary = Mutex::new(Summary::default());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let verdict = guarded(seed);
                    let mut summary = summary.lock().expect("worlds are played outside of the lock");
                    summary.add(verdict);
                    let now = Progress { done: summary.worlds, total, failed: summary.failures.len() as u64 };
                    drop(summary);
                    progress(now);
                }
            });
        }
    });
    let mut summary = summary.into_inner().expect("all threads have ended");
    summary.failures.sort_by_key(|verdict| verdict.seed);
    summary.wall = begin.elapsed();
    summary
}

fn guarded(seed: u64) -> Verdict {
    catch_unwind(AssertUnwindSafe(|| run_world(seed))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words");
        Verdict { seed, failure: Some(format!("panic: {text}")), ..Verdict::default() }
    })
}
