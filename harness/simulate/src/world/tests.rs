//! A sample of the worlds on every test run; `harness simulate` plays as many as one likes.

use super::{Plan, run_many, run_world};

/// Worlds per test run: about a second in a debug build.
const SAMPLE: u64 = 100;

#[test]
fn a_sample_of_worlds_passes() {
    let summary = run_many(0..SAMPLE, 2, |_| ());
    let failures: Vec<String> = summary
        .failures
        .iter()
        .map(|verdict| format!("seed {}: {}", verdict.seed, verdict.failure.as_deref().unwrap_or_default()))
        .collect();
    assert!(failures.is_empty(), "{failures:#?}");
    assert_eq!(summary.worlds, SAMPLE);
    // The sample would prove little if it left out what it claims to hold.
    assert!(summary.sessions > SAMPLE, "{summary:?}");
    for (what, count) in [
        ("resumed sessions", summary.resumed),
        ("accepted 0-RTT", summary.early),
        ("retries", summary.retries),
        ("key updates", summary.key_updates),
        ("validated paths", summary.paths_validated),
        ("messages held back by the client's receive maximum", summary.held_back),
        ("messages up to the broker's receive maximum", summary.filled),
    ] {
        assert!(count > 0, "no {what}: {summary:?}");
    }
}

#[test]
fn a_world_is_the_same_on_every_run() {
    // What a damaged packet leads to depends on all bytes.
    let damaged = (0..).filter(|&seed| Plan::draw(seed).link.down.corrupt.is_some());
    for seed in [3, 14, 15].into_iter().chain(damaged.take(20)) {
        assert_eq!(run_world(seed), run_world(seed), "seed {seed}");
    }
}
