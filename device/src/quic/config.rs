//! What the caller decides about a connection.

use crate::entropy::Entropy;
use crate::time::{Duration, Instant};
use crate::tls;

use super::error::ConnectError;
use super::recovery::rtt::INITIAL_RTT;

/// Smallest UDP payload a QUIC path carries in bytes (RFC 9000 14).
pub const DATAGRAM_LEN_MIN: u16 = 1200;
/// Largest UDP payload that is probed for: Ethernet's 1500 without IPv4 and UDP headers.
pub const DATAGRAM_LEN_MAX: u16 = 1472;

/// A buffer for any datagram: what a connection is lent to write the next one.
pub type DatagramBuffer = [u8; DATAGRAM_LEN_MAX as usize];

/// What the caller decides about a connection; plain values, copied into it.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// After how long without hearing from the peer the connection is given up; zero for never. The
    /// smaller of this and the peer's value holds (RFC 9000 10.1).
    pub idle_timeout: Duration,
    /// Send a PING after this long without traffic, so that neither the idle timeout nor a NAT forgets
    /// the connection; zero for never (RFC 9000 10.1.2). At the latest after half the idle timeout that holds, so that
    /// there is time to repeat one that is lost.
    pub keep_alive: Duration,
    /// The RTT to assume until the first sample. An earlier connection's over the same network makes lost handshake
    /// packets be repeated sooner (RFC 9002 6.2.2); without one it is [`INITIAL_RTT`].
    pub initial_rtt: Duration,
    /// After how long an incomplete handshake is given up; zero for never.
    pub handshake_timeout: Duration,
    /// Whether data goes out as 0-RTT if a ticket permits. What is written before
    /// `Event::Connected` can then be replayed by an attacker (RFC 9001 9.2).
    pub early_data: tls::EarlyData,
    /// How many bidirectional streams the server may open; bounded by the stream slots.
    pub server_streams: u8,
    /// Size of the caller's receive buffer: the largest datagram the peer may send, at least 1200.
    pub receive_datagram_len: u16,
    /// Probe the path for datagrams up to this size; [`DATAGRAM_LEN_MIN`] for no probing
    /// (RFC 9000 14.3).
    pub send_datagram_len: u16,
    /// Update the keys after this many packets; zero for only when asked to or when the cipher's
    /// limit comes near (RFC 9001 6.6).
    pub key_update_packets: u32,
    /// Which of RFC 9000 and RFC 9287's freedoms are exercised against ossification.
    pub grease: Grease,
}

/// Whether reserved values are sent for peers to ignore.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Grease {
    /// A reserved transport parameter is sent (RFC 9000 18.1).
    On,
    /// Nothing reserved is sent.
    Off,
}

impl Config {
    /// 30 s idle timeout, a PING after 15 s of silence, 10 s for the handshake, no 0-RTT, no streams from the server,
    /// datagrams of 1200 bytes.
    pub const fn new() -> Self {
        Self {
            idle_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(15),
            initial_rtt: INITIAL_RTT,
            handshake_timeout: Duration::from_secs(10),
            early_data: tls::EarlyData::Omit,
            server_streams: 0,
            receive_datagram_len: DATAGRAM_LEN_MAX,
            send_datagram_len: DATAGRAM_LEN_MIN,
            key_update_packets: 0,
            grease: Grease::On,
        }
    }

    pub(super) fn check(&self) -> Result<(), ConnectError> {
        if self.receive_datagram_len < DATAGRAM_LEN_MIN {
            return Err(ConnectError::Configuration("receive_datagram_len is below 1200"));
        }
        if !(DATAGRAM_LEN_MIN..=DATAGRAM_LEN_MAX).contains(&self.send_datagram_len) {
            return Err(ConnectError::Configuration("send_datagram_len is not within 1200 to 1472"));
        }
        Ok(())
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

/// What every entry point that may run the handshake borrows from its caller.
pub struct Context<'a> {
    /// The present.
    pub now: Instant,
    /// Whom to believe and what to offer; the ticket in it is used by `connect`.
    pub tls: &'a tls::Config<'a>,
    /// Where randomness comes from.
    pub entropy: &'a mut dyn Entropy,
    /// Who keeps what the next connection can use.
    pub store: &'a mut dyn SessionStore,
}

/// Keeps what makes the next connection to the same server faster.
///
/// The unit type keeps nothing.
pub trait SessionStore {
    /// The server sent a session ticket; the newest one is the best.
    fn on_ticket(&mut self, ticket: tls::Ticket);
    /// The server sent a token for the next connection's `connect` (RFC 9000 8.1.3); at most
    /// [`super::TOKEN_LEN_MAX`] bytes.
    fn on_token(&mut self, token: &[u8]);
}

impl SessionStore for () {
    fn on_ticket(&mut self, _: tls::Ticket) {}
    fn on_token(&mut self, _: &[u8]) {}
}
