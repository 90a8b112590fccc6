//! What a board of silicon needs beyond the agent, as far as it can be proven without one.
//!
//! The board crates are built for their chip only and their tests would need the chip. So everything that
//! decides lives here, knows no register, and is tested on the host: [`station`] says when to join a wireless
//! network and when to sleep, [`accelerated`] puts AES and SHA units under the client's cryptography and
//! proves them at boot, [`counter`] makes 64 bits of a cycle counter's 32, [`patience`] says when a console has
//! nobody at its other end, [`airtime`] bounds how long a radio transmits.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod accelerated;
pub mod airtime;
pub mod counter;
pub mod patience;
pub mod reason;
pub mod self_test;
pub mod station;
