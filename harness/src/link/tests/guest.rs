//! A board for tests: a smoltcp stack on the other end of the NIC's cable.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{tcp, udp};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};

use crate::link::nic::Cable;

pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
pub(super) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 2];

/// Longer than anything a test waits for, far shorter than a stuck test would take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The stack's clock runs so many times as fast, so that its retransmission timeout of a second is no more
/// than 10 ms of the test's time.
const PACE: u32 = 100;

pub(super) struct Guest {
    interface: Interface,
    pub(super) sockets: SocketSet<'static>,
    nic: NicDevice,
    started: Instant,
}

/// Frames between the stack and the cable.
struct NicDevice {
    cable: Cable,
    /// Frames the test wants to see besides the stack.
    received: Vec<Vec<u8>>,
    incoming: VecDeque<Vec<u8>>,
}

impl Guest {
    pub(super) fn new(stream: UnixStream) -> Self {
        let cable = Cable::new(stream).expect("a unix stream can be made non-blocking");
        let mut nic = NicDevice { cable, received: Vec::new(), incoming: VecDeque::new() };
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(MAC)));
        config.random_seed = 7;
        let mut interface = Interface::new(config, &mut nic, smoltcp::time::Instant::ZERO);
        interface.update_ip_addrs(|addresses| addresses.push(IpCidr::new(ADDRESS.into(), 24)).unwrap());
        interface.routes_mut().add_default_ipv4_route(GATEWAY).unwrap();
        Self { interface, sockets: SocketSet::new(Vec::new()), nic, started: Instant::now() }
    }

    pub(super) fn udp(&mut self, port: u16) -> SocketHandle {
        let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 64], vec![0; 64 * 1500]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(port).unwrap();
        self.sockets.add(socket)
    }

    pub(super) fn send_udp(&mut self, handle: SocketHandle, to: SocketAddrV4, payload: &[u8]) {
        self.sockets.get_mut::<udp::Socket<'_>>(handle).send_slice(payload, to).unwrap();
        self.step(Duration::ZERO);
    }

    pub(super) fn received_udp(&mut self, handle: SocketHandle) -> Option<Vec<u8>> {
        let (payload, _) = self.sockets.get_mut::<udp::Socket<'_>>(handle).recv().ok()?;
        Some(payload.to_vec())
    }

    /// Waits for a datagram.
    pub(super) fn await_udp(&mut self, handle: SocketHandle) -> Vec<u8> {
        self.run_until("a datagram", |guest| guest.received_udp(handle))
    }

    pub(super) fn connect_tcp(&mut self, port: u16, to: SocketAddrV4) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; 16 * 1024]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.connect(self.interface.context(), to, port).unwrap();
        self.sockets.add(socket)
    }

    pub(super) fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Sends a frame past the stack.
    pub(super) fn send_frame(&mut self, frame: &[u8]) {
        self.nic.cable.send(frame).unwrap();
    }

    /// The frames received so far.
    pub(super) fn take_frames(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.nic.received)
    }

    /// Lets the stack work until `done` returns something.
    pub(super) fn run_until<T>(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        let begin = Instant::now();
        loop {
            if let Some(result) = done(self) {
                return result;
            }
            assert!(begin.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
            self.step(Duration::from_millis(20));
        }
    }

    /// Lets the stack work for some time.
    pub(super) fn run_for(&mut self, time: Duration) {
        let begin = Instant::now();
        while let Some(left) = time.checked_sub(begin.elapsed()) {
            self.step(left);
        }
    }

    fn now(&self) -> smoltcp::time::Instant {
        smoltcp::time::Instant::from_micros((self.started.elapsed() * PACE).as_micros() as i64)
    }

    /// Sleeps until something comes, at most `longest`, then works off what is there.
    fn step(&mut self, longest: Duration) {
        let wanted = self.interface.poll_delay(self.now(), &self.sockets).map(Duration::from);
        let sleep = wanted.map_or(longest, |wanted| (wanted / PACE).min(longest));
        let timeout = Timespec { tv_sec: sleep.as_secs() as i64, tv_nsec: sleep.subsec_nanos().into() };
        let mut flags = PollFlags::IN;
        if self.nic.cable.is_clogged() {
            flags |= PollFlags::OUT;
        }
        let mut fds = [PollFd::new(self.nic.cable.stream(), flags)];
        rustix::event::poll(&mut fds, Some(&timeout)).expect("polling a socket");

        self.nic.cable.flush().expect("the link is there");
        self.nic.cable.fill().expect("the link is there");
        while let Some(frame) = self.nic.cable.next_frame().expect("the link speaks in frames") {
            self.nic.received.push(frame.to_vec());
            self.nic.incoming.push_back(frame.to_vec());
        }
        let now = self.now();
        self.interface.poll(now, &mut self.nic, &mut self.sockets);
    }
}

struct Incoming(Vec<u8>);

struct Outgoing<'a>(&'a mut Cable);

impl Device for NicDevice {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _now: smoltcp::time::Instant) -> Option<(Incoming, Outgoing<'_>)> {
        let frame = self.incoming.pop_front()?;
        Some((Incoming(frame), Outgoing(&mut self.cable)))
    }

    fn transmit(&mut self, _now: smoltcp::time::Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing(&mut self.cable))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.send(&frame).expect("the link reads");
        result
    }
}
