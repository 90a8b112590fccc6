//! The ESP32-C3 on a cable: found, locked, flashed, reset, talked to, and got back when it does not answer.
//!
//! ```text
//!  discover (sysfs) + boards.toml -> choose -> lock       which board, for this process alone
//!  image -> flash (espflash)                               what it runs
//!  port -> console -> board::Board                         what it says; ROM text, log, frames, crashes told apart
//!  recovery                                                reset, re-open, re-enumerate, power cycle: each told
//! ```
//! Every step has a time limit, every fault a name and a remedy ([`Fault`]).

pub mod choose;
pub mod debugger;
mod diagnose;
pub mod discover;
mod error;
pub mod flash;
pub mod history;
pub mod image;
mod lock;
mod mac;
mod machine;
pub mod map;
pub mod port;
#[cfg(feature = "probe")]
pub mod probe;
pub mod recovery;
mod remedy;
pub mod rom;
mod stream;
pub mod wifi;

/// Addresses of the chip's RAM, as data and as code.
pub const RAM: std::ops::Range<u64> = 0x3fc8_0000..0x403e_0000;

pub use error::Fault;
pub use lock::Lock;
pub use mac::Mac;
pub use machine::{Faults, Limits, TetheredMachine};
pub use stream::{Evidence, Incoming, Memory, Outgoing, Session};
