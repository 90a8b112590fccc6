//! The UDP socket under the QUIC endpoint, with the faults a socket can have.
//!
//! A frozen process neither reads nor answers, and the kernel keeps a bounded backlog for it: so here a
//! frozen socket stops reading and swallows what the endpoint's timers still send. A killed process leaves
//! no socket behind: the port is closed at once, and nothing is said on the wire.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};

/// What the socket does with datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Traffic {
    /// Carries them.
    Pass,
    /// Loses them in both directions, as a firewall that drops UDP would.
    Drop,
    /// Leaves incoming ones with the kernel and sends none.
    Freeze,
}

struct State {
    /// `None` once killed.
    socket: Option<Arc<dyn AsyncUdpSocket>>,
    traffic: Traffic,
    reader: Option<Waker>,
}

pub(super) struct FaultySocket {
    state: Mutex<State>,
    address: SocketAddr,
    segments: usize,
    receive_segments: usize,
    may_fragment: bool,
}

impl fmt::Debug for FaultySocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultySocket").field("address", &self.address).finish_non_exhaustive()
    }
}

impl FaultySocket {
    /// Takes over a bound socket.
    pub(super) fn new(socket: std::net::UdpSocket) -> io::Result<Arc<Self>> {
        let socket = TokioRuntime.wrap_udp_socket(socket)?;
        Ok(Arc::new(Self {
            address: socket.local_addr()?,
            segments: socket.max_transmit_segments(),
            receive_segments: socket.max_receive_segments(),
            may_fragment: socket.may_fragment(),
            state: Mutex::new(State { socket: Some(socket), traffic: Traffic::Pass, reader: None }),
        }))
    }

    /// Changes what happens to datagrams.
    pub(super) fn set_traffic(&self, traffic: Traffic) {
        self.change(|state| state.traffic = traffic);
    }

    /// Closes the socket without a word; the endpoint's next read fails, which ends it.
    pub(super) fn kill(&self) {
        self.change(|state| state.socket = None);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let waker = {
            let mut state = self.state();
            change(&mut state);
            state.reader.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

impl AsyncUdpSocket for FaultySocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        let socket = self.state().socket.clone();
        match socket {
            Some(socket) => socket.create_io_poller(),
            None => Box::pin(AlwaysWritable),
        }
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let state = self.state();
        match (&state.socket, state.traffic) {
            (Some(socket), Traffic::Pass) => socket.try_send(transmit),
            _ => Ok(()),
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.state();
        loop {
            let Some(socket) = &state.socket else {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            };
            if state.traffic == Traffic::Freeze {
                state.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            match socket.poll_recv(cx, bufs, meta) {
                Poll::Ready(Ok(_)) if state.traffic == Traffic::Drop => {}
                Poll::Pending => {
                    state.reader = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                ready => return ready,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn max_transmit_segments(&self) -> usize {
        self.segments
    }

    fn max_receive_segments(&self) -> usize {
        self.receive_segments
    }

    fn may_fragment(&self) -> bool {
        self.may_fragment
    }
}

/// Stands in for the poller of a socket that is gone: sends to it succeed and vanish.
#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
