//! A thread that drives its share of the cores: whoever has something to do gets its turn, all others cost
//! nothing.
//!
//! ```text
//!   heap of times ---+
//!   link's arrivals -+--> ready --> Core::poll --> frames --> link --> socket of that core
//!   sockets ---------+
//! ```

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use device::control::frame::Decoder;
use device::crypto::Software;
use device::node::Storage;
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};

use super::cores::{Brief, Core, CoreLog, Order};
use crate::link::lan::{self, Arrival, Lan, SharedLink};

/// Longest sleep: how late a worker may hear of the next phase.
const NAP: Duration = Duration::from_millis(50);
/// Turns one core gets before the others have theirs.
const TURNS: usize = 16;
/// Largest UDP datagram.
const DATAGRAM_MAX: usize = 65_535;
/// Events taken from the system at a time.
const EVENTS: usize = 1024;

/// What the fleet is doing. Each phase follows the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub(super) enum Phase {
    /// Cores connect one after the other.
    Ramp,
    /// Connected cores publish.
    Work,
    /// The broker goes and comes back.
    Storm,
    /// Cores publish again.
    Check,
    /// Cores take their leave.
    Leave,
    /// The workers end.
    End,
}

impl Phase {
    /// All of them.
    const ALL: [Self; 6] = [Self::Ramp, Self::Work, Self::Storm, Self::Check, Self::Leave, Self::End];
}

/// What the workers and whoever directs them share.
pub(super) struct Control {
    phase: AtomicU32,
    /// Cores that have a session right now.
    pub(super) connected: AtomicU32,
    /// Workloads that ended, of all cores together.
    pub(super) done: AtomicU32,
    /// Lost connections that were replaced, of all cores together.
    pub(super) healed: AtomicU32,
    /// Turns given, all workers together.
    pub(super) turns: AtomicU64,
    /// Nanoseconds of processor time the workers took up to the end of each phase.
    cpu_ns: [AtomicU64; 6],
}

impl Control {
    pub(super) fn new() -> Self {
        Self {
            phase: AtomicU32::new(Phase::Ramp as u32),
            connected: AtomicU32::new(0),
            done: AtomicU32::new(0),
            healed: AtomicU32::new(0),
            turns: AtomicU64::new(0),
            cpu_ns: Default::default(),
        }
    }

    /// Begins a phase; the workers hear of it within [`NAP`].
    pub(super) fn begin(&self, phase: Phase) {
        self.phase.store(phase as u32, Ordering::Release);
    }

    fn phase(&self) -> Phase {
        let number = self.phase.load(Ordering::Acquire);
        Phase::ALL.into_iter().find(|phase| *phase as u32 == number).expect("only phases are stored")
    }

    /// Processor time the workers took within `phase`.
    pub(super) fn cpu(&self, phase: Phase) -> Duration {
        Duration::from_nanos(self.cpu_ns[phase as usize].load(Ordering::Acquire))
    }
}

/// One core's part in the run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// Its number on the LAN.
    pub(super) number: u32,
    /// Seed of its randomness.
    pub(super) seed: u64,
    /// When it starts, in microseconds on the run's clock.
    pub(super) start_us: u64,
    /// How long after a phase's begin it starts publishing, in microseconds.
    pub(super) offset_us: u64,
}

/// A worker's share.
pub(super) struct Share {
    /// Most cores that are about to connect for the first time: the next waits until one is through. A machine that
    /// is slower than the ramp starts them more slowly, instead of all of them timing out together.
    pub(super) connecting_max: usize,
    /// The run's clock starts here.
    pub(super) epoch: Instant,
    /// Its cores, numbered one after the other.
    pub(super) parts: Vec<Part>,
    /// What they are told.
    pub(super) brief: Arc<Brief>,
    /// The broker.
    pub(super) broker: SocketAddr,
    /// The link.
    pub(super) link: Arc<SharedLink>,
    /// The others.
    pub(super) control: Arc<Control>,
}

/// Drives a share to its end; yields what each core said, in the order of the parts.
///
/// # Errors
/// When the system has no event queue for it, or no socket for one of its cores.
pub(super) fn run(share: Share) -> std::io::Result<Vec<CoreLog>> {
    let count = share.parts.len();
    let mut storages: Vec<Storage<'_, Software>> = Vec::with_capacity(count);
    storages.resize_with(count, Storage::new);
    let mut cores = Vec::with_capacity(count);
    for (part, storage) in share.parts.iter().zip(&mut storages) {
        let core = Core::new(part.number, part.seed, storage);
        cores.push(Seat {
            core,
            flow: None,
            wake_us: u64::MAX,
            ready: false,
            starting: false,
            counted: false,
            done: 0,
            healed: 0,
        });
    }
    let mut worker = Worker {
        poll: Poll::new()?,
        lan: Lan::new(Arc::clone(&share.link), share.brief.settings.broker.port()),
        first: share.parts.first().map_or(0, |part| part.number),
        timers: BinaryHeap::new(),
        started: 0,
        connecting: 0,
        ready: VecDeque::new(),
        seats: cores,
        decoder: Decoder::new(),
        buffer: vec![0; DATAGRAM_MAX],
        phase: Phase::Ramp,
        cpu_before: thread_cpu(),
        rebindings: 0,
        share: &share,
    };
    worker.live()?;
    Ok(worker.seats.into_iter().map(|seat| seat.core.log).collect())
}

/// A core with its flow through the NAT.
struct Seat<'s> {
    core: Core<'s>,
    flow: Option<Flow>,
    /// When the core wants to be called; `u64::MAX` for not by time.
    wake_us: u64,
    /// Whether it stands in the queue of those who are.
    ready: bool,
    /// Whether it is counted among those that connect for the first time.
    starting: bool,
    /// Whether it is counted as connected.
    counted: bool,
    /// Workloads counted as done.
    done: u32,
    /// Lost connections counted as replaced.
    healed: u32,
}

struct Flow {
    socket: UdpSocket,
    /// The port the core sends from.
    port: u16,
}

struct Worker<'w, 's> {
    poll: Poll,
    lan: Lan,
    /// Number of the first core; those of one worker follow one another.
    first: u32,
    timers: BinaryHeap<Reverse<(u64, usize)>>,
    /// How many cores were started.
    started: usize,
    /// How many of them have neither a session nor a failure yet.
    connecting: usize,
    ready: VecDeque<usize>,
    seats: Vec<Seat<'s>>,
    decoder: Decoder,
    buffer: Vec<u8>,
    phase: Phase,
    cpu_before: Duration,
    rebindings: u64,
    share: &'w Share,
}

impl Worker<'_, '_> {
    fn now_us(&self) -> u64 {
        u64::try_from(self.share.epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn live(&mut self) -> std::io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            self.follow_phase();
            if self.phase == Phase::End {
                return Ok(());
            }
            self.follow_nat();
            let now_us = self.now_us();
            while let Some(&Reverse((at_us, seat))) = self.timers.peek()
                && at_us <= now_us
            {
                self.timers.pop();
                // Another time may have taken the place of this one.
                if self.seats[seat].wake_us == at_us {
                    self.rouse(seat);
                }
            }
            self.start_due(now_us);
            while let Some(arrival) = self.lan.pop_due() {
                self.arrive(arrival)?;
            }
            for _ in 0..self.ready.len() {
                let Some(seat) = self.ready.pop_front() else { break };
                self.seats[seat].ready = false;
                self.turn(seat);
            }
            let nap = if self.ready.is_empty() { self.nap() } else { Duration::ZERO };
            match self.poll.poll(&mut events, Some(nap)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                self.receive(event.token().0);
            }
        }
    }

    /// Starts the cores whose time has come, as far as there is room.
    fn start_due(&mut self, now_us: u64) {
        while self.phase < Phase::Leave
            && let Some(start_us) = self.next_start()
            && start_us <= now_us
        {
            let seat = self.started;
            self.started += 1;
            self.connecting += 1;
            self.seats[seat].starting = true;
            self.seats[seat].core.order(now_us, Order::Start);
            self.rouse(seat);
        }
    }

    /// When the next core is to start, unless it waits for room.
    fn next_start(&self) -> Option<u64> {
        let part = self.share.parts.get(self.started)?;
        (self.connecting < self.share.connecting_max).then_some(part.start_us)
    }

    fn nap(&self) -> Duration {
        let timer = self.timers.peek().map(|Reverse((at_us, _))| *at_us);
        let timer = [timer, self.next_start()].into_iter().flatten().min();
        let timer = timer.map_or(NAP, |at_us| Duration::from_micros(at_us.saturating_sub(self.now_us())));
        let link = self.lan.next_at().map_or(NAP, |at| at.saturating_duration_since(Instant::now()));
        timer.min(link).min(NAP)
    }

    /// Puts a core into the queue of those who get a turn.
    fn rouse(&mut self, seat: usize) {
        if !std::mem::replace(&mut self.seats[seat].ready, true) {
            self.ready.push_back(seat);
        }
    }

    fn seat_of(&self, board: u32) -> usize {
        (board - self.first) as usize
    }

    fn arrive(&mut self, arrival: Arrival) -> std::io::Result<()> {
        match arrival {
            Arrival::AtBoard { board, frame } => {
                let seat = self.seat_of(board);
                self.seats[seat].core.nic.arrive(frame);
                self.rouse(seat);
            }
            Arrival::AtBroker { board, from, payload } => {
                let seat = self.seat_of(board);
                let flow = self.open(seat, from).map_err(|error| {
                    // Without one, the device would be blamed for what its machine does not give.
                    std::io::Error::new(error.kind(), format!("no socket for device {board}: {error}"))
                })?;
                // A refused or full socket is a loss like any other on the way.
                if flow.socket.send(&payload).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
                {
                    // The answer to an earlier packet is reported here; this one was not sent.
                    let _ = flow.socket.send(&payload);
                }
            }
        }
        Ok(())
    }

    /// The core's flow from `port`; an error if the system gives no socket.
    fn open(&mut self, seat: usize, port: u16) -> std::io::Result<&Flow> {
        let flow = self.seats[seat].flow.take().filter(|flow| flow.port == port);
        let flow = match flow {
            Some(flow) => flow,
            // The one before is closed: what the broker still sends there vanishes.
            None => self.connect(seat, port)?,
        };
        Ok(self.seats[seat].flow.insert(flow))
    }

    fn connect(&self, seat: usize, port: u16) -> std::io::Result<Flow> {
        let mut socket = UdpSocket::from_std(lan::flow(self.share.broker)?);
        self.poll.registry().register(&mut socket, Token(seat), Interest::READABLE)?;
        Ok(Flow { socket, port })
    }

    /// Takes what a core's socket holds. Readiness is told once: all of it is read.
    fn receive(&mut self, seat: usize) {
        let Seat { core, flow: Some(flow), .. } = &self.seats[seat] else { return };
        loop {
            match flow.socket.recv(&mut self.buffer) {
                Ok(len) => self.lan.take_datagram(core.number, flow.port, &self.buffer[..len]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::Interrupted) => {}
                Err(_) => return,
            }
        }
    }

    /// Lets a core do what it can, and its frames go.
    fn turn(&mut self, seat: usize) {
        for _ in 0..TURNS {
            let now_us = self.now_us();
            self.share.control.turns.fetch_add(1, Ordering::Relaxed);
            let core = &mut self.seats[seat].core;
            let wake_us = core.poll(now_us, &self.share.brief, &mut self.decoder);
            let mut answered = false;
            for frame in std::mem::take(&mut core.nic.sent) {
                if let Some(answer) = self.lan.take_frame(core.number, &frame) {
                    core.nic.arrive(answer);
                    answered = true;
                }
            }
            let wake_us = [wake_us, core.next_order_us()].into_iter().flatten().min().unwrap_or(u64::MAX);
            self.account(seat);
            if wake_us > now_us && !answered {
                self.sleep(seat, wake_us);
                return;
            }
        }
        self.rouse(seat);
    }

    fn sleep(&mut self, seat: usize, wake_us: u64) {
        if std::mem::replace(&mut self.seats[seat].wake_us, wake_us) != wake_us && wake_us != u64::MAX {
            self.timers.push(Reverse((wake_us, seat)));
        }
    }

    /// Keeps the fleet's counters.
    fn account(&mut self, seat: usize) {
        let seat = &mut self.seats[seat];
        let control = &self.share.control;
        if seat.starting && (seat.core.log.connected || seat.core.log.complaint.is_some()) {
            seat.starting = false;
            self.connecting -= 1;
        }
        if seat.core.log.connected != seat.counted {
            seat.counted = seat.core.log.connected;
            if seat.counted {
                control.connected.fetch_add(1, Ordering::Relaxed);
            } else {
                control.connected.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let healed = seat.core.log.healed();
        if healed > seat.healed {
            control.healed.fetch_add(healed - seat.healed, Ordering::Relaxed);
            seat.healed = healed;
        }
        if seat.core.log.done > seat.done {
            control.done.fetch_add(seat.core.log.done - seat.done, Ordering::Relaxed);
            seat.done = seat.core.log.done;
        }
    }

    fn follow_phase(&mut self) {
        let phase = self.share.control.phase();
        if phase == self.phase {
            return;
        }
        let cpu = thread_cpu();
        let spent = u64::try_from((cpu - self.cpu_before).as_nanos()).unwrap_or(u64::MAX);
        self.share.control.cpu_ns[self.phase as usize].fetch_add(spent, Ordering::AcqRel);
        (self.phase, self.cpu_before) = (phase, cpu);
        let now_us = self.now_us();
        for (seat, part) in self.share.parts.iter().enumerate() {
            let (at_us, order) = match phase {
                Phase::Work => (now_us + part.offset_us, Order::Work(0)),
                Phase::Check => (now_us + part.offset_us, Order::Work(1)),
                Phase::Leave => (now_us, Order::Leave),
                Phase::Ramp | Phase::Storm | Phase::End => continue,
            };
            self.seats[seat].core.order(at_us, order);
            // The turn finds out when the order is due.
            if !std::mem::replace(&mut self.seats[seat].ready, true) {
                self.ready.push_back(seat);
            }
        }
    }

    /// Moves every flow to a new source when the NAT has forgotten its mappings.
    fn follow_nat(&mut self) {
        let rebindings = self.share.link.rebindings();
        if rebindings != self.rebindings {
            self.rebindings = rebindings;
            for seat in &mut self.seats {
                seat.flow = None;
            }
        }
    }
}

/// Processor time of this thread so far.
fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}
