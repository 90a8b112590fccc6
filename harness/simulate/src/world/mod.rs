//! Random worlds: a network, a server, a client and a workload, all drawn from one seed.
//!
//! [`run_world`] plays one; [`run_many`] plays a range on several threads. What a world is made of is in [`Plan`];
//! what is demanded of it in [`Verdict::failure`].

mod check;
mod many;
mod plan;
mod play;
#[cfg(test)]
mod tests;

pub use many::{Progress, Summary, run_many};
pub use plan::{Event, Plan, Scheduled};
pub use play::{Verdict, run_world, trace_world};
