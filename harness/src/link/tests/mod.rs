//! The link in real time: real sockets on loopback, a smoltcp guest as the board.

mod frames;
mod guest;
mod proxies;

use link::LinkConfig;

use super::Setup;

/// A setup as a scenario would write it.
fn setup(config: &str, seed: u64) -> Setup {
    let config: LinkConfig = toml::from_str(config).unwrap_or_else(|error| panic!("{config}\n{error}"));
    Setup { config, seed, ..Setup::default() }
}
