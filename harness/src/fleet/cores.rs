//! One firmware core of the fleet: the same [`Node`] as on every board, with a NIC, a console and a board that
//! are queues in this process.

use std::collections::VecDeque;

use device::control::frame::{self, Decoder, FRAME_MAX, Piece};
use device::control::{
    Addressing, Answer, Blob, BlobKind, CHUNK_MAX, Cause, Command, Event, Fault, Report, Request,
    ResetReason, Sample, Settings, Workload, clipped,
};
use device::crypto::Software;
use device::entropy::Entropy;
use device::node::{Board, Console, Figures, Loan, Node, Storage};
use device::time::Instant;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use smoltcp::phy::{Device as Phy, DeviceCapabilities, Medium, RxToken, TxToken};

use super::Shard;
use crate::link::lan;
use crate::measure::record::{self, Outage};
use crate::run::connections::{self, Connections};

/// Largest Ethernet frame without its check sequence.
const FRAME_BYTES: usize = 1514;
/// Frames a NIC keeps for a core that does not read; a NIC's receive ring drops, too.
const RING: usize = 64;

/// One core with everything it is lent.
pub(super) struct Core<'s> {
    /// Its number on the LAN.
    pub(super) number: u32,
    node: Node<'s, Software>,
    pub(super) nic: Nic,
    console: Wire,
    board: FleetBoard,
    entropy: Seeded,
    sequence: u32,
    /// What it is to be told and when, in order.
    orders: VecDeque<(u64, Order)>,
    pub(super) log: CoreLog,
}

/// Something a core is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Its certificates and settings, and to connect.
    Start,
    /// To publish: the workload of that number.
    Work(usize),
    /// To disconnect.
    Leave,
}

/// What one core said.
pub(super) struct CoreLog {
    /// Its number on the LAN.
    pub(super) number: u32,
    /// Connection attempts.
    pub(super) connections: Connections,
    /// What became of messages, with the workload's number.
    pub(super) samples: Vec<(u32, Sample)>,
    /// Working connections that were lost, and when each was replaced.
    pub(super) outages: Vec<Outage>,
    /// Whether there is a session right now.
    pub(super) connected: bool,
    /// Workloads that ended.
    pub(super) done: u32,
    /// The first thing that went wrong, in words.
    pub(super) complaint: Option<String>,
}

impl<'s> Core<'s> {
    /// A core that has not started yet.
    pub(super) fn new(number: u32, seed: u64, storage: &'s mut Storage<'s, Software>) -> Self {
        Self {
            number,
            node: Node::new(storage),
            nic: Nic::default(),
            console: Wire::default(),
            board: FleetBoard { mac: lan::hardware_address(number) },
            entropy: Seeded(ChaCha20Rng::seed_from_u64(seed)),
            sequence: 0,
            orders: VecDeque::new(),
            log: CoreLog {
                number,
                connections: Connections::new(record::Transport::Quic),
                samples: Vec::new(),
                outages: Vec::new(),
                connected: false,
                done: 0,
                complaint: None,
            },
        }
    }

    /// Gives an order at `at_us`, or when those before it have been given.
    pub(super) fn order(&mut self, at_us: u64, order: Order) {
        self.orders.push_back((at_us, order));
    }

    /// When the next order is to be given.
    pub(super) fn next_order_us(&self) -> Option<u64> {
        self.orders.front().map(|(at_us, _)| *at_us)
    }

    /// Does all that can be done at `now_us`; returns when to call again, as [`Node::poll`] does.
    pub(super) fn poll(
        &mut self,
        now_us: u64,
        brief: &Brief,
        decoder: &mut Decoder<FRAME_MAX>,
    ) -> Option<u64> {
        while let Some(&(at_us, order)) = self.orders.front()
            && at_us <= now_us
        {
            self.orders.pop_front();
            match order {
                Order::Start => {
                    for request in blob(BlobKind::TrustAnchor, &brief.anchor) {
                        self.command(request);
                    }
                    self.command(Request::Configure(brief.settings(self.number)));
                    self.command(Request::Connect);
                }
                Order::Work(which) => {
                    self.command(Request::StartWorkload(brief.workload(which, self.number)));
                }
                Order::Leave => self.command(Request::Disconnect),
            }
        }
        let Self { node, nic, console, board, entropy, .. } = self;
        let wake = node.poll(Instant::from_micros(now_us), &mut Loan { nic, console, board, entropy });
        let said = std::mem::take(&mut self.console.from_core);
        let mut rest = &said[..];
        while let Some(piece) = decoder.next(&mut rest) {
            if let Piece::Message(message) = piece
                && let Ok(report) = Report::decode(message)
            {
                self.log.hear(report);
            }
        }
        let mut said = said;
        said.clear();
        // Kept for its capacity, unless a burst made it large.
        if said.capacity() <= 2 * FRAME_MAX {
            self.console.from_core = said;
        }
        wake.map(Instant::as_micros)
    }

    fn command(&mut self, request: Request) {
        self.sequence += 1;
        let mut encoded = [0; FRAME_MAX];
        let len = frame::encode(&Command { sequence: self.sequence, request }, &mut encoded)
            .expect("FRAME_MAX bytes hold any command");
        self.console.to_core.extend(&encoded[..len]);
    }
}

/// What all cores are told, but for each one's own address and names.
pub(super) struct Brief {
    /// The root certificate the broker's chain must end in; empty for none.
    pub(super) anchor: Vec<u8>,
    /// The settings.
    pub(super) settings: Settings,
    /// What is published in each of the two phases that publish.
    pub(super) workloads: [Workload; 2],
    /// Names the run's clients and topics.
    pub(super) token: u32,
    /// Which part of the fleet it is.
    pub(super) shard: Shard,
    /// Number within the whole fleet of the first core of this process.
    pub(super) first: u32,
    /// How many there are in this process, without the one that goes ahead, whose number is the next.
    pub(super) devices: u32,
}

impl Brief {
    fn settings(&self, number: u32) -> Settings {
        let mut settings = self.settings.clone();
        settings.addressing = Addressing::Static {
            address: lan::address(number).into(),
            prefix: lan::PREFIX,
            gateway: Some(lan::GATEWAY.into()),
        };
        settings.mqtt.client_id = clipped(&self.client_id(number));
        settings
    }

    /// A client identifier of its own in the whole fleet: a broker ends the session of whoever had it before. The one
    /// that goes ahead is not the first device of the next shard.
    fn client_id(&self, number: u32) -> String {
        let Self { token, first, devices, .. } = self;
        if number < *devices {
            format!("fleet-{token:08x}-{}", first + number)
        } else {
            format!("fleet-{token:08x}-ahead-{}", self.shard.index())
        }
    }

    /// What a core publishes: a topic and a run number of its own.
    pub(super) fn workload(&self, which: usize, number: u32) -> Workload {
        let mut workload = self.workloads[which].clone();
        workload.run = self.run(which, number);
        workload.seed = workload.seed.wrapping_add(u64::from(self.first + number));
        workload.topics.clear();
        let topic = format!("{}/{}", self.root(), self.first + number);
        workload.topics.push(clipped(&topic)).expect("an empty list has room");
        workload
    }

    /// The number in the payloads of a core's workload: one of its own in the whole fleet.
    pub(super) fn run(&self, which: usize, number: u32) -> u32 {
        self.token.wrapping_add((self.first + number).wrapping_mul(2)).wrapping_add(which as u32)
    }

    /// Whether a number in a payload is that of a workload of this process.
    pub(super) fn is_ours(&self, which: usize, run: u32) -> bool {
        let from = run.wrapping_sub(self.run(which, 0));
        from.is_multiple_of(2) && from / 2 < self.devices
    }

    /// What all topics of this shard begin with.
    pub(super) fn root(&self) -> String {
        format!("hil/fleet/{:08x}/{}", self.token, self.shard.index())
    }
}

impl CoreLog {
    /// Lost connections that were replaced.
    pub(super) fn healed(&self) -> u32 {
        let healed = self.outages.iter().filter(|outage| outage.again_us.is_some()).count();
        u32::try_from(healed).unwrap_or(u32::MAX)
    }

    fn hear(&mut self, report: Report) {
        match report {
            Report::Event { at_us, event } => {
                match &event {
                    Event::MqttConnected { .. } => {
                        self.connected = true;
                        if let Some(outage) = self.outages.last_mut() {
                            outage.again_us.get_or_insert(at_us);
                        }
                    }
                    Event::Disconnected(disconnection) => {
                        let asked = disconnection.cause == Cause::Requested;
                        if std::mem::take(&mut self.connected) && !asked {
                            self.outages.push(Outage { lost_us: at_us, again_us: None });
                        }
                        if !asked {
                            self.complaint.get_or_insert_with(|| connections::describe(disconnection));
                        }
                    }
                    _ => {}
                }
                self.connections.on_event(at_us, &event);
            }
            Report::Samples(samples) => {
                self.samples.extend(samples.samples.iter().map(|sample| (samples.run, *sample)));
            }
            Report::WorkloadDone(_) => self.done += 1,
            Report::Reply { answer: Answer::Refused(refusal), .. } => {
                self.complaint.get_or_insert_with(|| format!("a command was refused: {refusal:?}"));
            }
            _ => {}
        }
    }
}

/// The commands that hand over a certificate or key.
fn blob(kind: BlobKind, bytes: &[u8]) -> impl Iterator<Item = Request> {
    let total = u16::try_from(bytes.len()).expect("certificates are far shorter than 64 KiB");
    bytes.chunks(CHUNK_MAX).enumerate().map(move |(n, chunk)| {
        let offset = u16::try_from(n * CHUNK_MAX).expect("less than the total");
        let bytes = heapless::Vec::from_slice(chunk).expect("a chunk fits by definition");
        Request::Blob(Blob { kind, total, offset, bytes })
    })
}

/// A NIC whose cable is a pair of queues.
#[derive(Default)]
pub(super) struct Nic {
    received: VecDeque<Vec<u8>>,
    pub(super) sent: Vec<Vec<u8>>,
}

impl Nic {
    /// A frame arrives; dropped if the core has let too many wait.
    pub(super) fn arrive(&mut self, frame: Vec<u8>) {
        if self.received.len() < RING {
            self.received.push_back(frame);
        }
    }
}

impl Phy for Nic {
    type RxToken<'a> = Received;
    type TxToken<'a> = Transmit<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Received, Transmit<'_>)> {
        let frame = self.received.pop_front()?;
        Some((Received(frame), Transmit(&mut self.sent)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Transmit<'_>> {
        Some(Transmit(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_BYTES;
        capabilities.max_burst_size = Some(1);
        capabilities
    }
}

/// A frame that arrived.
pub(super) struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

/// Room for a frame.
pub(super) struct Transmit<'a>(&'a mut Vec<Vec<u8>>);

impl TxToken for Transmit<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push(frame);
        result
    }
}

/// The console: bytes either way.
#[derive(Default)]
struct Wire {
    to_core: VecDeque<u8>,
    from_core: Vec<u8>,
}

impl Console for Wire {
    fn read(&mut self, bytes: &mut [u8]) -> usize {
        let len = bytes.len().min(self.to_core.len());
        for (byte, read) in bytes.iter_mut().zip(self.to_core.drain(..len)) {
            *byte = read;
        }
        if self.to_core.is_empty() {
            // A certificate went through it; what follows is short.
            self.to_core.shrink_to(CONSOLE_KEPT);
        }
        len
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        self.from_core.extend_from_slice(bytes);
        bytes.len()
    }
}

/// Bytes of a command queue kept for the next command.
const CONSOLE_KEPT: usize = 256;

struct FleetBoard {
    mac: [u8; 6],
}

impl Board for FleetBoard {
    fn name(&self) -> &str {
        "fleet"
    }

    fn reset_reason(&self) -> ResetReason {
        ResetReason::PowerOn
    }

    fn hardware_address(&self) -> [u8; 6] {
        self.mac
    }

    fn figures(&mut self) -> Figures {
        Figures::default()
    }

    /// Nothing orders it: a core that fails on purpose would take the others along.
    fn crash(&mut self, _: Fault) {}

    /// Nothing orders it either.
    fn reboot(&mut self) {}
}

struct Seeded(ChaCha20Rng);

impl Entropy for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::*;
    use crate::fleet::{ORIGIN, Options, Storm, source};
    use crate::run::settings::{Destination, settings};
    use crate::scenario::Scenario;

    /// What the cores of any fleet are told.
    fn common() -> Settings {
        let options = Options {
            devices: 5,
            shard: Shard::WHOLE,
            ramp_per_s: 1.0,
            connecting: 1,
            messages: 1,
            interval: Duration::from_secs(1),
            size: 64,
            qos: 1,
            storm: Storm::None,
            down: Duration::from_secs(1),
            threads: 1,
            seed: 1,
        };
        let scenario = Scenario::parse(ORIGIN, &source(&options, None)).expect("a fleet's scenario");
        let destination = Destination {
            broker: (lan::GATEWAY, 14_567).into(),
            server_name: "localhost".to_owned(),
            addressing: Addressing::Dhcp,
        };
        settings(&scenario.variants[0], &destination, "fleet", scenario.limits.connect).expect("settings")
    }

    fn brief(shard: &str, first: u32, devices: u32) -> Brief {
        let workload = Workload {
            run: 0,
            topics: heapless::Vec::new(),
            qos: 1,
            retain: false,
            size: 64,
            count: 1,
            pattern: device::control::Pattern::Saturate,
            seed: 1,
            drain_ms: 0,
        };
        Brief {
            anchor: Vec::new(),
            settings: common(),
            workloads: [workload.clone(), workload],
            token: 0x7abc_def1,
            shard: shard.parse().expect("a shard"),
            first,
            devices,
        }
    }

    #[test]
    fn no_name_or_number_is_given_twice_in_a_fleet_of_shards() {
        let shards = [brief("1/2", 0, 3), brief("2/2", 3, 2)];
        let (mut clients, mut topics, mut runs) = (HashSet::new(), HashSet::new(), HashSet::new());
        for shard in &shards {
            // And the one that goes ahead.
            for number in 0..=shard.devices {
                assert!(clients.insert(shard.settings(number).mqtt.client_id), "{number} of {}", shard.shard);
            }
            for (number, which) in (0..shard.devices).flat_map(|number| [(number, 0), (number, 1)]) {
                let workload = shard.workload(which, number);
                assert!(runs.insert(workload.run), "{number} of {}", shard.shard);
                assert!(workload.topics[0].starts_with(&format!("{}/", shard.root())));
                topics.insert(workload.topics[0].clone());
                for other in &shards {
                    let its_own = other.shard == shard.shard;
                    assert_eq!(other.is_ours(which, workload.run), its_own, "{number} of {}", shard.shard);
                }
                assert!(!shard.is_ours(1 - which, workload.run));
            }
        }
        assert_eq!(topics.len(), 5);
        assert_ne!(shards[0].root(), shards[1].root());
    }
}
