//! The path of a virtual board's Ethernet frames: NIC, link, gateway, and back.

use std::io::ErrorKind;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use link::{Action, Checksum, Direction};

use super::connections::Connections;
use super::damage;
use super::event_loop::{Carrier, Interest, Token};
use super::gateway::{Gateway, GatewayConfig, Verdict};
use super::handle::{LinkHandle, Setup, SetupError, lock};
use super::nic::Cable;
use super::shaper::{Due, Shaper};
use super::udp_proxy::checksums;

/// Where the board's NIC is plugged in.
#[derive(Debug)]
pub enum Nic {
    /// A unix socket to listen on, at a path that does not exist yet; removed when the link ends. The board
    /// may unplug and come back, as when it is restarted.
    Path(PathBuf),
    /// The same, bound already.
    Listener(UnixListener),
    /// A connected stream.
    Stream(UnixStream),
}

/// Carries a virtual board's frames through the link to a [user-space gateway](GatewayConfig).
#[derive(Debug)]
pub struct FramePath {
    /// The impairments. They hit IP packets; ARP and DHCP bypass them.
    pub setup: Setup,
    /// The board's NIC.
    pub nic: Nic,
    /// The network the board finds itself in.
    pub gateway: GatewayConfig,
}

impl FramePath {
    /// Starts carrying frames.
    ///
    /// # Errors
    /// If the configuration is unsound, or NIC or log cannot be opened.
    pub fn start(self) -> Result<LinkHandle, SetupError> {
        let what = match &self.nic {
            Nic::Path(path) => format!("the NIC socket {}", path.display()),
            Nic::Listener(_) | Nic::Stream(_) => "the NIC socket".to_owned(),
        };
        let socket = |source| SetupError::Socket { what: what.clone(), source };
        let mut path = None;
        let (listener, cable) = match self.nic {
            Nic::Path(at) => {
                let listener = UnixListener::bind(&at).map_err(socket)?;
                path = Some(SocketFile(at));
                (Some(listener), None)
            }
            Nic::Listener(listener) => (Some(listener), None),
            Nic::Stream(stream) => (None, Some(Cable::new(stream).map_err(socket)?)),
        };
        if let Some(listener) = &listener {
            listener.set_nonblocking(true).map_err(socket)?;
        }
        let carrier = Frames {
            listener,
            _socket_file: path,
            cable,
            gateway: Gateway::new(self.gateway),
            connections: Connections::default(),
            checksums: checksums(&self.setup.config),
        };
        LinkHandle::start(&self.setup, carrier)
    }
}

/// Removes the socket's file in the end.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Someone else may have cleaned up already.
        let _ = std::fs::remove_file(&self.0);
    }
}

struct Frames {
    listener: Option<UnixListener>,
    _socket_file: Option<SocketFile>,
    cable: Option<Cable>,
    gateway: Gateway,
    connections: Connections,
    checksums: [Checksum; 2],
}

impl Carrier for Frames {
    type Packet = Vec<u8>;

    fn deliver(&mut self, due: Due<Vec<u8>>, shaper: &mut Shaper<Vec<u8>>) {
        let Due { direction, mut packet, delivery } = due;
        damage::apply(&delivery, self.checksums[direction.index()], &mut packet);
        let bytes = packet.len();
        match direction {
            Direction::Up => match self.gateway.handle_packet(packet, shaper.now()) {
                Verdict::Taken => shaper.delivered(direction, &delivery, bytes),
                Verdict::Damaged => shaper.checksum_failed(direction),
                Verdict::Unmapped => {
                    shaper.delivered(direction, &delivery, bytes);
                    lock(&shaper.shared().collector).stats.unmapped += 1;
                }
            },
            Direction::Down => {
                let frame = self.gateway.frame(&packet);
                if self.send(&frame, shaper) {
                    shaper.delivered(direction, &delivery, bytes);
                } else {
                    shaper.undeliverable(direction);
                }
            }
        }
    }

    fn perform(&mut self, action: Action) -> Option<String> {
        self.gateway.perform(action)
    }

    fn pump(&mut self, ready: &[Token], shaper: &mut Shaper<Vec<u8>>) -> std::io::Result<()> {
        if ready.contains(&Token::Listener)
            && let Some(Ok((stream, _))) = self.listener.as_ref().map(UnixListener::accept)
        {
            self.cable = Some(Cable::new(stream)?);
        }
        if ready.contains(&Token::Nic) {
            self.read_frames(shaper);
        }
        self.gateway.pump(ready, shaper.now());
        while let Some(packet) = self.gateway.next_packet() {
            let size = packet.len();
            let connection = self.connections.of_packet(Direction::Down, &packet);
            shaper.offer(Direction::Down, packet, size, connection);
        }
        Ok(())
    }

    fn interest<'a>(&'a self, interest: &mut Interest<'a>) {
        match (&self.cable, &self.listener) {
            (Some(cable), _) => {
                interest.read(cable.stream(), Token::Nic);
                if cable.is_clogged() {
                    interest.write(cable.stream(), Token::Nic);
                }
            }
            (None, Some(listener)) => interest.read(listener, Token::Listener),
            (None, None) => {}
        }
        self.gateway.interest(interest);
    }

    fn next_timeout(&mut self, now: Duration) -> Option<Duration> {
        self.gateway.next_timeout(now)
    }
}

impl Frames {
    fn read_frames(&mut self, shaper: &mut Shaper<Vec<u8>>) {
        let Some(cable) = &mut self.cable else { return };
        let mut answers = Vec::new();
        let mut result = cable.flush().and_then(|()| cable.fill());
        while result.is_ok() {
            match cable.next_frame() {
                Ok(Some(frame)) => {
                    shaper.capture(frame);
                    if let Some(packet) = self.gateway.packet_of(frame) {
                        let connection = self.connections.of_packet(Direction::Up, packet);
                        shaper.offer(Direction::Up, packet.to_vec(), packet.len(), connection);
                    } else {
                        lock(&shaper.shared().collector).stats.exempt_frames += 1;
                        answers.extend(self.gateway.handle_exempt(frame));
                    }
                }
                Ok(None) => break,
                Err(error) => result = Err(error),
            }
        }
        if let Err(error) = result {
            self.unplug(&error);
        }
        for answer in answers {
            self.send(&answer, shaper);
        }
    }

    /// Sends a frame to the board; false if there is none, or it does not read.
    fn send(&mut self, frame: &[u8], shaper: &mut Shaper<Vec<u8>>) -> bool {
        let Some(cable) = &mut self.cable else { return false };
        match cable.send(frame) {
            Ok(()) => {
                shaper.capture(frame);
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => {
                self.unplug(&error);
                false
            }
        }
    }

    fn unplug(&mut self, error: &std::io::Error) {
        if error.kind() == ErrorKind::InvalidData {
            tracing::warn!("the board's NIC stream is out of step: {error}; unplugged it");
        } else {
            tracing::debug!("the board has unplugged its NIC: {error}");
        }
        self.cable = None;
    }
}
