//! The impaired network between board and broker, in real time.
//!
//! The decisions come from the `link` crate, packet by packet and seeded; this module carries them out. Each
//! carrier runs one thread of its own that sleeps in `ppoll` until a packet arrives or is due, so that
//! deliveries keep to their schedule whatever the rest of the harness does:
//!
//! - [`FramePath`]: the Ethernet frames of a virtual board, through the link, to a user-space gateway with
//!   loopback sockets to the broker. TCP segments suffer as QUIC packets do.
//! - [`UdpProxy`]: UDP datagrams of a board on the LAN, or of the reference client.
//! - [`StreamProxy`]: TCP connections of a board on the LAN: delay and stall only, since a proxy ends the
//!   connection and cannot lose its segments.
//!
//! All of them are controlled through a [`LinkHandle`]; dropping it ends the thread and closes the sockets.

mod capture;
mod connections;
mod damage;
mod event_loop;
mod flows;
mod frame_path;
mod gateway;
mod handle;
mod nic;
mod outside;
mod rtt;
mod shaper;
mod stats;
mod stream_proxy;
mod udp_proxy;
mod wire;
mod writer;

#[cfg(test)]
mod tests;

pub use capture::{Capture, MQTT_OVER_QUIC_LUA};
pub use frame_path::{FramePath, Nic};
pub(crate) use gateway::lan;
pub use gateway::{GatewayConfig, Protocol, Service, TcpAfterRebinding};
pub use handle::{Happening, LinkHandle, Occurrence, Setup, SetupError, Summary};
pub use rtt::{RttError, RttMethod, RttProbe, probe_rtt};
pub use stats::{Count, DirectionStats, SchedulingError, Stats};
pub use stream_proxy::StreamProxy;
pub use udp_proxy::{Clients, UdpProxy};
pub(crate) use wire::Wire;
