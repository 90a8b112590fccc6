//! A seeded, sans-IO model of an impaired network link.
//!
//! [`Link`] decides the fate of each packet in virtual time: no clock, no socket, no thread. The harness drives
//! it in real time, the simulation in simulated time; both get the same fates for the same seed and packets.
//!
//! ```
//! use core::time::Duration;
//! use link::{Direction, Link, LinkConfig, Path};
//!
//! let lossy = Path { delay: Some("20 ms".parse()?), loss: Some("5 %".parse::<link::units::Percent>()?.into()), ..Path::default() };
//! let mut link = Link::new(&LinkConfig::symmetric(lossy), 7)?;
//! let fate = link.offer(Direction::Up, Duration::ZERO, 1200);
//! for delivery in fate.deliveries() {
//!     assert_eq!(delivery.at, Duration::from_millis(20));
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod bottleneck;
mod chance;
mod config;
mod dice;
mod fade;
mod impairment;
mod in_flight;
mod model;
mod profile;
mod record;
mod replay;
mod timeline;
pub mod units;

pub use chance::Damage;
pub use config::{Blackout, ConfigError, Direction, LinkConfig, Moment, Path, Trace};
pub use fade::Fade;
pub use impairment::{
    Checksum, Corrupt, CorruptTable, Distribution, FLIPS_MAX, GilbertElliott, Jitter, JitterTable, Loss,
    LossTable, Order, PacketList, Queue, Reorder, Truncate,
};
pub use in_flight::InFlight;
pub use model::{Delivery, Fate, Link, UDP_IPV4_OVERHEAD};
pub use profile::Profile;
pub use record::{LogLine, Reason, Record};
pub use replay::{ReplayError, replay};
pub use timeline::{Action, Performed};
