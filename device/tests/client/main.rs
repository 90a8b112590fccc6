//! The whole client against quinn-proto and a broker, in virtual time.

mod data_streams;
#[cfg(target_os = "linux")]
mod erasure;
mod first_light;
mod hostile;
mod lossy;
mod outage;
mod policy;
mod retained;
mod storm;
mod throughput;
mod world;
