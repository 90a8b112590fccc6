//! The agent: commands in, client and workload driven, telemetry out.
//!
//! ```text
//!   console --> commands --> setup (settings, certificates)
//!      ^                        |
//!      |                        v
//!   telemetry <-- events -- client <--> net <--> NIC
//!                               ^
//!                            workload
//! ```
//! One [`Node`] runs on every board. It owns no clock, no socket and no thread: the board calls
//! [`Node::poll`] when a frame or a byte arrived or when the time it last returned has come.
//!
//! While the console cannot take what an event would cause to be reported, the node takes in nothing:
//! frames wait at the NIC, messages stay due. So nothing is dropped unless the NIC drops it, and each
//! pause is counted.

mod board;
mod commands;
mod credentials;
mod driver;
mod face;
mod meter;
mod setup;
mod stream;
mod telemetry;
mod translate;
mod workload;

pub use board::{Board, Console, Figures};

use smoltcp::phy::Device;

use crate::client::{self, DatagramBuffer};
use crate::control::frame::{Decoder, FRAME_MAX, Piece};
use crate::control::{
    Answer, Boot, Command, Event, Memory, PROTOCOL_VERSION, Phase, Report, Stats, Transport, WireStats,
    clipped,
};
use crate::crypto::Crypto;
use crate::entropy::Entropy;
use crate::mqtt::Token;
use crate::net::{self, Net};
use crate::time::{Duration, Instant};

use commands::Then;
use driver::Driver;
use face::Clients;
use meter::Meter;
use setup::Setup;
use telemetry::Telemetry;
use workload::Running;

/// Commands whose answer from the broker is awaited.
const PENDING_MAX: usize = 16;
/// Filters whose stream is remembered for unsubscribing.
const FILTERS_MAX: usize = 16;
/// Bytes taken from the console at a time.
const CONSOLE_CHUNK: usize = 64;

/// The memory of a node that is not its own: the client's and the stack's. Constant until lent, so
/// that a board can put it where it costs no stack.
pub struct Storage<'s, C: Crypto, const STREAMS: usize = 1> {
    clients: Clients<C, STREAMS>,
    net: net::Storage<'s>,
    datagram: DatagramBuffer,
}

impl<C: Crypto, const STREAMS: usize> Storage<'_, C, STREAMS> {
    /// Empty memory.
    pub fn new() -> Self {
        Self { clients: Clients::new(), net: net::Storage::new(), datagram: [0; size_of::<DatagramBuffer>()] }
    }
}

impl<C: Crypto, const STREAMS: usize> Default for Storage<'_, C, STREAMS> {
    fn default() -> Self {
        Self::new()
    }
}

/// What the board lends for one call.
pub struct Loan<'l, N, K, B> {
    /// The network interface.
    pub nic: &'l mut N,
    /// The byte stream to the harness.
    pub console: &'l mut K,
    /// The board's facts and powers.
    pub board: &'l mut B,
    /// Randomness.
    pub entropy: &'l mut dyn Entropy,
}

/// The agent with everything it drives. `STREAMS` are the QUIC streams it has room for: the control
/// stream and data streams.
pub struct Node<'s, C: Crypto, const STREAMS: usize = 1> {
    clients: &'s mut Clients<C, STREAMS>,
    net: Net<'s>,
    datagram: &'s mut DatagramBuffer,
    setup: Setup,
    decoder: Decoder<FRAME_MAX>,
    agent: Agent,
}

/// What changes while a connection is driven: all but the settings, which are borrowed meanwhile.
struct Agent {
    telemetry: Telemetry,
    workload: Option<Running>,
    /// Commands that the broker will answer, by token.
    pending: heapless::Vec<(Token, u32), PENDING_MAX>,
    /// Subscribed filters by checksum, and the index of their stream.
    filters: heapless::Vec<(u32, usize), FILTERS_MAX>,
    last_command: Option<(u32, Answer)>,
    booted: bool,
    link_up: bool,
    /// Between the command to connect and the end of the last connection.
    active: bool,
    /// The harness asked to connect, but the interface has no address yet.
    connect_wanted: bool,
    /// Connect again once the connection is closed.
    reconnect_wanted: bool,
    /// The client has said all it has to say: it may be called again.
    drained: bool,
    /// The last connection ended because the harness asked.
    ended_by_request: bool,
    /// When the client wants to be called again.
    client_due: Option<Instant>,
    /// The NIC could not take a frame that is ready.
    nic_busy: bool,
    /// More is to be done at once.
    again: bool,
    then: Option<Then>,
    meter: Meter,
}

impl<'s, C: Crypto, const STREAMS: usize> Node<'s, C, STREAMS> {
    /// A node that has not reported its boot yet.
    pub fn new(storage: &'s mut Storage<'s, C, STREAMS>) -> Self {
        let Storage { clients, net, datagram } = storage;
        Self {
            clients,
            net: Net::new(net),
            datagram,
            setup: Setup::new(),
            decoder: Decoder::new(),
            agent: Agent::new(),
        }
    }

    /// Bytes of the client's state for `transport`, with the buffers it works in.
    pub const fn client_bytes(transport: Transport) -> usize {
        Clients::<C, STREAMS>::bytes(transport)
    }

    /// Bytes of the IP stack's state and buffers.
    pub const fn net_bytes() -> usize {
        size_of::<Net<'_>>() + size_of::<net::Storage<'_>>()
    }

    /// Bytes of the agent's own state: control channel, workload, certificates.
    pub const fn agent_bytes() -> usize {
        size_of::<Self>() - size_of::<Net<'_>>()
    }

    /// Whether the console owes room for reports: the board calls again once it can write.
    pub const fn has_output(&self) -> bool {
        self.agent.telemetry.has_output()
    }

    /// Whether frames and bytes that arrive are taken in. If not, the board waits for the console to take
    /// bytes, or for the time, and leaves what arrives where it is.
    pub const fn accepts_input(&self) -> bool {
        self.agent.drained && self.agent.telemetry.room()
    }

    /// Does all that can be done at `now` and returns when to call again, besides whenever a frame or a
    /// byte arrives, or the console takes bytes again while [`Node::has_output`]. A time not later than
    /// `now` means at once; `None` means there is nothing to wait for but these.
    pub fn poll<N: Device, K: Console, B: Board>(
        &mut self,
        now: Instant,
        loan: &mut Loan<'_, N, K, B>,
    ) -> Option<Instant> {
        self.agent.again = false;
        self.agent.nic_busy = false;
        if !self.agent.booted {
            self.agent.booted = true;
            self.agent.announce(now, loan.board);
            let sizes = self.current_sizes();
            self.agent.report_memory(now, Phase::Boot, loan.board, sizes);
        }
        self.watch_link(now, loan.board);
        self.drive(now, loan, |driver| driver.run());
        self.read_console(now, loan);
        let stuck = !self.agent.drained;
        self.agent.telemetry.flush(now, loan.console);
        if stuck && !self.agent.nic_busy && self.agent.telemetry.has_room() {
            self.agent.again = true;
        }
        self.act(loan.board);
        self.wake_at(now)
    }

    const fn sizes(transport: Transport) -> Sizes {
        Sizes {
            client: Self::client_bytes(transport) as u32,
            net: Self::net_bytes() as u32,
            agent: Self::agent_bytes() as u32,
        }
    }

    /// Of the transport configured, or of the one this firmware is for.
    fn current_sizes(&self) -> Sizes {
        Self::sizes(self.setup.settings.as_ref().map_or(Transport::Quic, |settings| settings.transport))
    }

    /// Lets `act` drive the client with the settings there are; `None` when there are none.
    fn drive<N: Device, K: Console, B: Board, R>(
        &mut self,
        now: Instant,
        loan: &mut Loan<'_, N, K, B>,
        act: impl FnOnce(&mut Driver<'_, '_, 's, C, N, K, B, STREAMS>) -> R,
    ) -> Option<R> {
        let Self { clients, net, datagram, setup, agent, .. } = self;
        setup.with_config(now, |settings, config| {
            let sizes = Self::sizes(settings.transport);
            let port = net.pick_port(settings.local_port, loan.entropy);
            act(&mut Driver { now, settings, config, clients, net, datagram, agent, loan, sizes, port })
        })
    }

    /// Reports what the board tells of its link, as far as there is room.
    ///
    /// Out of line, as all is that reports: a report takes half a kilobyte, which must not lie under a handshake.
    #[inline(never)]
    fn watch_link(&mut self, now: Instant, board: &mut impl Board) {
        while self.agent.telemetry.room() {
            let Some(event) = board.take_event() else { break };
            self.agent.event(now, event);
        }
        let up = board.link_is_up();
        if up != self.agent.link_up {
            self.agent.link_up = up;
            if let Some(radio) = board.radio(now) {
                self.agent.telemetry.report(&Report::Radio(radio));
            }
            self.agent.event(now, if up { Event::LinkUp } else { Event::LinkDown });
            if up {
                self.net.on_link_up();
            }
        }
    }

    /// Carries out what the harness asks, as far as the answers find room.
    #[inline(never)]
    fn read_console<N: Device, K: Console, B: Board>(&mut self, now: Instant, loan: &mut Loan<'_, N, K, B>) {
        let mut chunk = [0; CONSOLE_CHUNK];
        while self.agent.drained && self.agent.telemetry.has_room() {
            let len = loan.console.read(&mut chunk);
            if len == 0 {
                return;
            }
            let mut input = &chunk[..len];
            // A command is longer than a chunk may hold two of, so one answer's room is enough for each.
            while let Some(piece) = self.decoder.next(&mut input) {
                match piece {
                    Piece::Message(message) => {
                        // By reference: passed on, so large a value would lie on the stack twice.
                        let command = Command::decode(message);
                        self.on_command(now, command.as_ref().ok(), loan);
                    }
                    Piece::Damaged(_) => self.on_command(now, None, loan),
                    // The harness sends no text; line noise is none of our business.
                    Piece::Text(_) => {}
                }
            }
        }
    }

    fn on_command<N: Device, K: Console, B: Board>(
        &mut self,
        now: Instant,
        command: Option<&Command>,
        loan: &mut Loan<'_, N, K, B>,
    ) {
        let Some(&Command { sequence, ref request }) = command else {
            self.agent.telemetry.count_damaged();
            self.agent.event(now, Event::CommandDamaged);
            return;
        };
        let answer = match self.agent.last_command {
            Some((last, answer)) if last == sequence => answer,
            _ => self.execute(now, sequence, request, loan),
        };
        self.agent.last_command = Some((sequence, answer));
        self.agent.telemetry.report(&Report::Reply { sequence, answer });
    }

    /// Fails or restarts, once the answer to the command is out.
    fn act(&mut self, board: &mut impl Board) {
        if self.agent.telemetry.has_output() {
            return;
        }
        match self.agent.then.take() {
            Some(Then::Crash(fault)) => board.crash(fault),
            Some(Then::Reboot) => board.reboot(),
            None => {}
        }
    }

    fn wake_at(&mut self, now: Instant) -> Option<Instant> {
        if self.agent.again {
            return Some(now);
        }
        if self.agent.nic_busy {
            return Some(now + NIC_BUSY_WAIT);
        }
        let agent = &self.agent;
        let samples = agent.telemetry.samples_due();
        if !agent.drained {
            // Until the console takes bytes, nothing else can go on.
            return samples;
        }
        let workload = agent.workload.as_ref().and_then(|running| {
            // A message that is due already waits for the client, not for the time.
            running.next_due().filter(|&due| due > now).or_else(|| running.drain_ends())
        });
        let net = self.net.poll_at(now);
        [agent.client_due, net, workload, samples].into_iter().flatten().min()
    }
}

/// How long to wait for a NIC that has no room for a frame.
const NIC_BUSY_WAIT: Duration = Duration::from_micros(500);

/// State sizes, as memory reports tell them.
#[derive(Clone, Copy)]
struct Sizes {
    client: u32,
    net: u32,
    agent: u32,
}

impl Agent {
    const fn new() -> Self {
        Self {
            telemetry: Telemetry::new(),
            workload: None,
            pending: heapless::Vec::new(),
            filters: heapless::Vec::new(),
            last_command: None,
            booted: false,
            link_up: false,
            active: false,
            connect_wanted: false,
            reconnect_wanted: false,
            drained: true,
            ended_by_request: false,
            client_due: None,
            nic_busy: false,
            again: false,
            then: None,
            meter: Meter::new(),
        }
    }

    fn announce(&mut self, now: Instant, board: &impl Board) {
        self.telemetry.report(&Report::Boot(Boot {
            protocol: PROTOCOL_VERSION,
            board: clipped(board.name()),
            firmware: clipped(env!("CARGO_PKG_VERSION")),
            reset: board.reset_reason(),
            at_us: now.as_micros(),
        }));
    }

    fn event(&mut self, at: Instant, event: Event) {
        self.telemetry.report(&Report::Event { at_us: at.as_micros(), event });
    }

    /// Not inlined: a snapshot tells them, and the end of each connection, after which its counters are gone.
    #[inline(never)]
    fn report_stats(&mut self, at: Instant, stats: &client::Stats, wire: WireStats) {
        let (transport, mqtt) = translate::stats(stats);
        let console = self.telemetry.stats();
        let at_us = at.as_micros();
        self.telemetry.report(&Report::Stats(Stats { at_us, wire, transport, mqtt, console }));
    }

    fn report_memory(&mut self, at: Instant, phase: Phase, board: &mut impl Board, sizes: Sizes) {
        let figures = board.figures();
        self.telemetry.report(&Report::Memory(Memory {
            phase,
            at_us: at.as_micros(),
            heap_free: figures.heap_free,
            heap_free_min: figures.heap_free_min,
            stack_max: figures.stack_max,
            stack_phase_max: figures.stack_phase_max,
            stack_size: figures.stack_size,
            static_ram: figures.static_ram,
            client_bytes: sizes.client,
            net_bytes: sizes.net,
            agent_bytes: sizes.agent,
            instructions: figures.instructions,
            cycles: figures.cycles,
            client_instructions: self.meter.spent(),
        }));
    }
}

#[cfg(test)]
mod tests;
