//! The connection against a scripted peer that knows its keys: no TLS, one packet at a time.

mod early;
#[cfg(target_os = "linux")]
mod erasure;
mod hostile;
mod liveness;
mod numbers;
mod peer;
mod start;
mod tickets;

use peer::Peer;
