//! The round-trip time of the path to a host, apart from whatever the host does above IP.
//!
//! Both ways ask the host's IP stack only: an ICMP echo where the system lets unprivileged users send one, else
//! a datagram to a closed UDP port, which comes back as "port unreachable".

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};

/// How a round trip was provoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RttMethod {
    /// ICMP echo.
    Echo,
    /// A datagram to a closed UDP port.
    PortUnreachable,
}

/// Measured round trips.
#[derive(Clone, Debug, Serialize)]
pub struct RttProbe {
    /// How they were provoked.
    pub method: RttMethod,
    /// Those that came back, in order of sending.
    pub samples: Vec<Duration>,
    /// Probes that did not come back in time.
    pub unanswered: u32,
}

impl RttProbe {
    /// The shortest round trip: the path without queues.
    #[must_use]
    pub fn minimum(&self) -> Option<Duration> {
        self.samples.iter().min().copied()
    }
}

/// No round trip could be measured.
#[derive(Debug)]
pub struct RttError {
    host: IpAddr,
    source: io::Error,
}

impl fmt::Display for RttError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot measure the round-trip time to {}: {}", self.host, self.source)
    }
}

impl std::error::Error for RttError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Measures `count` round trips to `host`, one after the other; each may take `timeout`. Blocks.
///
/// # Errors
/// If nothing can be sent to the host at all. Silence is no error: see [`RttProbe::unanswered`].
pub fn probe_rtt(host: IpAddr, count: u32, timeout: Duration) -> Result<RttProbe, RttError> {
    let failed = |source| RttError { host, source };
    let mut probe = match host {
        IpAddr::V4(host) => echo_socket(host, timeout).map(Probe::Echo),
        IpAddr::V6(_) => Err(ErrorKind::Unsupported.into()),
    }
    .or_else(|_| closed_port(host, timeout).map(Probe::ClosedPort))
    .map_err(failed)?;
    let mut result = RttProbe { method: probe.method(), samples: Vec::new(), unanswered: 0 };
    for sequence in 0..count {
        match probe.round_trip(sequence as u16).map_err(failed)? {
            Some(rtt) => result.samples.push(rtt),
            None => result.unanswered += 1,
        }
    }
    Ok(result)
}

enum Probe {
    Echo(Socket),
    ClosedPort(UdpSocket),
}

/// An unprivileged ICMP socket; the kernel fills in identifier and checksum.
fn echo_socket(host: Ipv4Addr, timeout: Duration) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::ICMPV4))?;
    socket.connect(&SocketAddr::new(host.into(), 0).into())?;
    socket.set_read_timeout(Some(timeout))?;
    Ok(socket)
}

/// The port traceroute starts at: nobody listens there.
const CLOSED_PORT: u16 = 33_434;

fn closed_port(host: IpAddr, timeout: Duration) -> io::Result<UdpSocket> {
    let any: IpAddr = match host {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((host, CLOSED_PORT))?;
    socket.set_read_timeout(Some(timeout))?;
    Ok(socket)
}

impl Probe {
    fn method(&self) -> RttMethod {
        match self {
            Self::Echo(_) => RttMethod::Echo,
            Self::ClosedPort(_) => RttMethod::PortUnreachable,
        }
    }

    /// One round trip, `None` if nothing came back in time.
    fn round_trip(&mut self, sequence: u16) -> io::Result<Option<Duration>> {
        let sent = Instant::now();
        let answered = match self {
            Self::Echo(socket) => echo(socket, sequence),
            Self::ClosedPort(socket) => match socket.send(&[0]).and_then(|_| socket.recv(&mut [0])) {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
                Err(error) => Err(error),
                // The port is not closed after all; an answer is an answer.
                Ok(_) => Ok(()),
            },
        };
        match answered {
            Ok(()) => Ok(Some(sent.elapsed())),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Sends an echo request and waits for its reply; late replies to earlier ones are skipped.
fn echo(socket: &mut Socket, sequence: u16) -> io::Result<()> {
    const ECHO_REQUEST: u8 = 8;
    const ECHO_REPLY: u8 = 0;
    let [high, low] = sequence.to_be_bytes();
    socket.write_all(&[ECHO_REQUEST, 0, 0, 0, 0, 0, high, low])?;
    loop {
        let mut reply = [0; 64];
        let len = socket.read(&mut reply)?;
        if len >= 8 && reply[0] == ECHO_REPLY && reply[6..8] == [high, low] {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_round_trip_to_ourselves_is_short() {
        let probe = probe_rtt(Ipv4Addr::LOCALHOST.into(), 5, Duration::from_secs(1)).unwrap();
        assert_eq!((probe.samples.len(), probe.unanswered), (5, 0));
        assert!(probe.minimum().unwrap() < Duration::from_millis(50), "{probe:?}");
    }

    #[test]
    fn a_closed_port_answers_as_well_as_an_echo() {
        let mut probe =
            Probe::ClosedPort(closed_port(Ipv4Addr::LOCALHOST.into(), Duration::from_secs(1)).unwrap());
        assert!(probe.round_trip(0).unwrap().is_some());
    }
}
