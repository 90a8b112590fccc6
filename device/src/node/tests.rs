//! The node on a board of nothing but queues, in virtual time.

extern crate std;

use std::cell::Cell;
use std::collections::VecDeque;
use std::format;
use std::rc::Rc;
use std::vec::Vec;

use smoltcp::phy::{self, DeviceCapabilities, Medium};

use super::*;
use crate::control::frame;
use crate::control::{
    AbandonReason, Addressing, Blob, BlobKind, Cause, CipherChoice, Congestion, Fault, HandshakePhase,
    KeyExchange, Manner, MqttSettings, MqttVersion, PowerMode, QuicSettings, Radio, RadioState, Reconnection,
    Refusal, Request, ResetReason, Resumption, Settings, StreamMode, Wifi, WifiFailure,
};
use crate::crypto::Software;
use crate::mqtt::{PacketId, Slot, Token};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A NIC of queues.
#[derive(Default)]
struct Nic {
    arrived: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
    busy: bool,
}

struct Received(Vec<u8>);
struct Transmit<'a>(&'a mut Vec<Vec<u8>>);

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl phy::TxToken for Transmit<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = std::vec![0; len];
        let result = f(&mut frame);
        self.0.push(frame);
        result
    }
}

impl Device for Nic {
    type RxToken<'a> = Received;
    type TxToken<'a> = Transmit<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Received, Transmit<'_>)> {
        if self.busy {
            return None;
        }
        Some((Received(self.arrived.pop_front()?), Transmit(&mut self.sent)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Transmit<'_>> {
        (!self.busy).then_some(Transmit(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

/// A console of queues that takes `room` bytes.
struct Wire {
    to_board: VecDeque<u8>,
    from_board: Vec<u8>,
    room: usize,
}

impl Console for Wire {
    fn read(&mut self, bytes: &mut [u8]) -> usize {
        let len = bytes.len().min(self.to_board.len());
        bytes[..len].iter_mut().zip(self.to_board.drain(..len)).for_each(|(to, from)| *to = from);
        len
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        let len = bytes.len().min(self.room);
        self.room -= len;
        self.from_board.extend_from_slice(&bytes[..len]);
        len
    }
}

#[derive(Default)]
struct Facts {
    /// The time, where it does not stand still while the node works.
    clock: Option<Rc<Cell<u64>>>,
    link_down: bool,
    radio: Option<Radio>,
    power: PowerMode,
    events: VecDeque<Event>,
    crashed: Option<Fault>,
    rebooted: bool,
}

impl Board for Facts {
    fn name(&self) -> &str {
        "queues"
    }
    fn reset_reason(&self) -> ResetReason {
        ResetReason::External
    }
    fn hardware_address(&self) -> [u8; 6] {
        MAC
    }
    fn now(&self) -> Option<Instant> {
        self.clock.as_ref().map(|clock| Instant::from_micros(clock.get()))
    }
    fn figures(&mut self) -> Figures {
        Figures { stack_max: Some(1234), ..Figures::default() }
    }
    fn link_is_up(&self) -> bool {
        !self.link_down
    }
    fn save_power(&mut self, mode: PowerMode) -> Result<(), Refusal> {
        self.power = mode;
        Ok(())
    }
    fn radio(&mut self, _: Instant) -> Option<Radio> {
        self.radio
    }
    fn take_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
    fn crash(&mut self, fault: Fault) {
        self.crashed = Some(fault);
    }
    fn reboot(&mut self) {
        self.rebooted = true;
    }
}

/// Randomness of which each draw takes a second of the board's time.
struct Counter(u8, Option<Rc<Cell<u64>>>);

impl Entropy for Counter {
    fn fill(&mut self, bytes: &mut [u8]) {
        if let Some(clock) = &self.1 {
            clock.set(clock.get() + 1_000_000);
        }
        for byte in bytes {
            self.0 = self.0.wrapping_mul(73).wrapping_add(41);
            *byte = self.0;
        }
    }
}

struct World<'s> {
    node: Node<'s, Software>,
    nic: Nic,
    console: Wire,
    board: Facts,
    entropy: Counter,
    now: u64,
}

impl<'s> World<'s> {
    fn new(storage: &'s mut Storage<'s, Software>) -> Self {
        Self {
            node: Node::new(storage),
            nic: Nic::default(),
            console: Wire { to_board: VecDeque::new(), from_board: Vec::new(), room: usize::MAX },
            board: Facts::default(),
            entropy: Counter(1, None),
            now: 0,
        }
    }

    fn poll(&mut self) -> Option<Instant> {
        let mut loan = Loan {
            nic: &mut self.nic,
            console: &mut self.console,
            board: &mut self.board,
            entropy: &mut self.entropy,
        };
        self.node.poll(Instant::from_micros(self.now), &mut loan)
    }

    fn send(&mut self, sequence: u32, request: Request) {
        let mut out = [0; FRAME_MAX];
        let len = frame::encode(&Command { sequence, request }, &mut out).expect("fits");
        self.console.to_board.extend(&out[..len]);
    }

    /// What the node reported since the last call.
    fn reports(&mut self) -> Vec<Report> {
        let bytes = core::mem::take(&mut self.console.from_board);
        let mut decoder = Decoder::<FRAME_MAX>::new();
        let (mut input, mut reports) = (&bytes[..], Vec::new());
        while let Some(piece) = decoder.next(&mut input) {
            let Piece::Message(message) = piece else { panic!("{piece:?}") };
            reports.push(Report::decode(message).expect("a report"));
        }
        reports
    }

    /// Sends a command, polls, and returns its answer.
    fn ask(&mut self, sequence: u32, request: Request) -> Answer {
        self.send(sequence, request);
        self.poll();
        let reports = self.reports();
        let answer = reports.iter().find_map(|report| match report {
            Report::Reply { sequence: answered, answer } if *answered == sequence => Some(*answer),
            _ => None,
        });
        answer.unwrap_or_else(|| panic!("no answer in {reports:?}"))
    }

    fn configure(&mut self) {
        let anchor = authority();
        for (index, piece) in anchor.chunks(256).enumerate() {
            let blob = Blob {
                kind: BlobKind::TrustAnchor,
                total: anchor.len() as u16,
                offset: index as u16 * 256,
                bytes: heapless::Vec::from_slice(piece).expect("a chunk"),
            };
            assert_eq!(self.ask(100 + index as u32, Request::Blob(blob)), Answer::Done);
        }
        assert_eq!(self.ask(200, Request::Configure(settings())), Answer::Done);
    }
}

fn authority() -> Vec<u8> {
    let key = rcgen::KeyPair::generate().expect("P-256");
    let mut params = rcgen::CertificateParams::new([]).expect("no names");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.self_signed(&key).expect("a root").der().to_vec()
}

fn settings() -> Settings {
    Settings {
        addressing: Addressing::Static { address: [10, 77, 0, 2].into(), prefix: 24, gateway: None },
        local_port: 50_000,
        broker: ([10, 77, 0, 1], 14_567).into(),
        transport: Transport::Quic,
        server_name: clipped("broker.test"),
        unix_time_s: 1_764_000_000,
        key_exchange: KeyExchange::X25519,
        ciphers: CipherChoice::Any,
        resumption: Resumption::Off,
        quic: QuicSettings {
            streams: StreamMode::Single,
            congestion: Congestion::NewReno,
            datagram_max: 1200,
            idle_timeout_ms: 30_000,
            keep_alive_ms: 0,
            key_update_packets: 0,
        },
        mqtt: MqttSettings {
            version: MqttVersion::V5,
            client_id: clipped("queues"),
            keep_alive_s: 0,
            clean_start: true,
            session_expiry_s: 0,
            username: None,
            password: None,
            will: None,
        },
        reconnection: Reconnection::Never,
        connect_timeout_ms: 5_000,
        answer_timeout_ms: 5_000,
        migrate_after_timeouts: 0,
        give_up_after_timeouts: 0,
    }
}

#[test]
fn the_first_report_is_the_boot_and_then_there_is_nothing_to_wait_for() {
    let mut storage = Storage::new();
    let mut world = World::new(&mut storage);
    assert_eq!(world.poll(), None);
    let reports = world.reports();
    assert!(matches!(&reports[0], Report::Boot(boot) if boot.board == "queues"), "{reports:?}");
    let stack = |report: &Report| matches!(report, Report::Memory(memory) if memory.stack_max == Some(1234));
    assert!(reports.iter().any(stack), "{reports:?}");
    assert_eq!(world.poll(), None);
    assert!(world.reports().is_empty());
}

#[test]
fn a_repeated_command_is_answered_again_and_not_carried_out_again() {
    let mut storage = Storage::new();
    let mut world = World::new(&mut storage);
    world.send(1, Request::Announce);
    world.send(1, Request::Announce);
    world.send(2, Request::Announce);
    world.poll();
    let reports = world.reports();
    let boots = reports.iter().filter(|report| matches!(report, Report::Boot(_))).count();
    let replies = reports.iter().filter(|report| matches!(report, Report::Reply { .. })).count();
    assert_eq!((boots, replies), (1 + 2, 3), "{reports:?}");
}

#[test]
fn a_damaged_command_is_told_and_the_next_one_is_carried_out() {
    let mut storage = Storage::new();
    let mut world = World::new(&mut storage);
    world.poll();
    world.reports();
    world.send(1, Request::Announce);
    let middle = world.console.to_board.len() / 2;
    world.console.to_board[middle] ^= 0x55;
    world.send(2, Request::Ping { host_us: 9 });
    world.poll();
    let reports = world.reports();
    assert!(matches!(reports[0], Report::Event { event: Event::CommandDamaged, .. }), "{reports:?}");
    let pong = Answer::Pong { host_us: 9, device_us: 0 };
    assert_eq!(reports[1], Report::Reply { sequence: 2, answer: pong });
}

#[test]
fn a_console_that_takes_nothing_stops_the_input_and_loses_no_report() {
    let mut storage = Storage::new();
    let mut world = World::new(&mut storage);
    world.console.room = 0;
    for sequence in 1..=200 {
        world.send(sequence, Request::Announce);
    }
    assert_eq!(world.poll(), None);
    assert!(world.node.has_output() && !world.node.accepts_input());
    assert!(!world.console.to_board.is_empty(), "what arrives stays where it is");
    let mut replies = 0;
    while world.node.has_output() {
        world.console.room = 100;
        world.poll();
    }
    for report in world.reports() {
        replies += usize::from(matches!(report, Report::Reply { .. }));
    }
    assert_eq!(replies, 200);
    assert_eq!(world.node.agent.telemetry.stats().reports_dropped, 0);
}

#[test]
fn commands_that_need_more_than_there_is_are_refused() {
    let mut storage = Storage::new();
    let mut world = World::new(&mut storage);
    assert_eq!(world.ask(1, Request::Connect), Answer::Refused(Refusal::NotConfigured));
    assert_eq!(world.ask(2, Request::UpdateKeys), Answer::Refused(Refusal::NotConfigured));
    assert_eq!(world.ask(3, Request::Configure(settings())), Answer::Done);
    assert_eq!(world.ask(4, Request::Connect), Answer::Refused(Refusal::BadTrustAnchor));
    assert_eq!(world.ask(5, Request::UpdateKeys), Answer::Refused(Refusal::NotConnected));
    let mut odd = settings();
    odd.quic.datagram_max = 1199;
    assert_eq!(world.ask(6, Request::Configure(odd)), Answer::Refused(Refusal::BadSetting));
    let mut odd = settings();
    odd.quic.streams = StreamMode::PerTopic;
    let answer = world.ask(7, Request::Configure(odd));
    assert_eq!(answer, Answer::Refused(Refusal::Unsupported), "one stream is the control stream");
    let mut odd = settings();
    odd.addressing = Addressing::Static { address: [224, 0, 0, 1].into(), prefix: 24, gateway: None };
    assert_eq!(world.ask(8, Request::Configure(odd)), Answer::Refused(Refusal::BadSetting));
}

#[test]
fn connecting_asks_for_the_broker_s_address_and_keeps_the_settings() {
    let mut storage = Storage::new();
    let mut world = World::new(&mut storage);
    world.configure();
    assert_eq!(world.ask(1, Request::Connect), Answer::Done);
    let arp = world.nic.sent.first().expect("a frame");
    // Broadcast, ARP, for 10.77.0.1 (RFC 826).
    assert_eq!((&arp[..6], &arp[12..14], &arp[38..42]), (&[0xff; 6][..], &[8, 6][..], &[10, 77, 0, 1][..]));
    assert_eq!(world.ask(2, Request::Configure(settings())), Answer::Refused(Refusal::Connected));
    assert_eq!(world.ask(3, Request::Connect), Answer::Refused(Refusal::Connected));
}

#[test]
fn a_board_without_a_link_connects_once_it_has_one() {
    let mut storage = Storage::new();
    let mut world = World::new(&mut storage);
    world.board.link_down = true;
    world.configure();
    assert_eq!(world.ask(1, Request::Connect), Answer::Done);
    assert!(world.nic.sent.is_empty());
    world.board.link_down = false;
    world.poll();
    assert!(!world.nic.sent.is_empty());
    let reports = world.reports();
    let up = reports.iter().position(|report| matches!(report, Report::Event { event: Event::LinkUp, .. }));
    let connecting = reports
        .iter()
        .position(|report| matches!(report, Report::Event { event: Event::Connecting { .. }, .. }));
    assert!(up.expect("reported") < connecting.expect("reported"), "{reports:?}");
}

#[test]
fn an_address_is_asked_for_as_soon_as_the_link_is_up() {
    let mut storage = Storage::new();
    let mut world = World::new(&mut storage);
    world.board.link_down = true;
    let dhcp = Settings { addressing: Addressing::Dhcp, ..settings() };
    assert_eq!(world.ask(1, Request::Configure(dhcp)), Answer::Done);
    world.poll();
    world.nic.sent.clear();
    // Well before the first question would be repeated.
    world.now += 1_000_000;
    world.poll();
    assert!(world.nic.sent.is_empty());
    world.board.link_down = false;
    world.poll();
    assert_eq!(world.nic.sent.len(), 1);
}

#[test]
fn a_broker_that_never_answers_is_given_up_in_time_without_a_busy_loop() {
    let mut storage = Storage::new();
    let mut world = World::new(&mut storage);
    world.configure();
    assert_eq!(world.ask(1, Request::Connect), Answer::Done);
    let mut polls = 0;
    let ended = loop {
        let wake = world.poll().expect("something is awaited");
        assert!(wake.as_micros() >= world.now, "time does not run backwards");
        let ended = world.reports().iter().find_map(|report| match report {
            Report::Event { event: Event::Disconnected(end), at_us } => Some((end.cause, *at_us)),
            _ => None,
        });
        if let Some(ended) = ended {
            break ended;
        }
        world.now = wake.as_micros();
        polls += 1;
        assert!(polls < 200, "it polls for ever at {}", world.now);
    };
    assert!((4_900_000..=5_200_000).contains(&ended.1), "{ended:?}");
}

#[test]
fn settings_that_cannot_work_are_told_as_such_and_not_tried_again() {
    let mut storage = Storage::new();
    let mut world = World::new(&mut storage);
    world.configure();
    let reconnection = Reconnection::Backoff { first_ms: 10, max_ms: 10, attempts: 0 };
    let odd = Settings { server_name: clipped("no name"), reconnection, ..settings() };
    assert_eq!(world.ask(1, Request::Configure(odd)), Answer::Done);
    world.send(2, Request::Connect);
    world.poll();
    let events: Vec<_> = world
        .reports()
        .into_iter()
        .filter_map(|report| match report {
            Report::Event { event, .. } => Some(event),
            _ => None,
        })
        .collect();
    let end = events.iter().find_map(|event| match event {
        Event::Disconnected(end) => Some((end.cause, end.detail.as_str())),
        _ => None,
    });
    assert_eq!(end, Some((Cause::BadSettings, "the server name is neither a DNS name nor an IP address")));
    assert!(events.contains(&Event::GaveUp), "{events:?}");
}

#[test]
fn the_end_of_a_tcp_connection_s_time_is_noticed_at_once() {
    let mut storage = Storage::new();
    let mut world = World::new(&mut storage);
    let mut tcp = Settings { transport: Transport::Tcp, connect_timeout_ms: 60_000, ..settings() };
    tcp.quic.idle_timeout_ms = 2_000;
    assert_eq!(world.ask(1, Request::Configure(tcp)), Answer::Done);
    assert_eq!(world.ask(2, Request::Connect), Answer::Done);
    // Nobody answers: the stack ends the connection when it next looks after the two seconds.
    for _ in 0..50 {
        let disconnected = |report: &Report| {
            matches!(report, Report::Event { event: Event::Disconnected(end), .. }
                if end.detail == "the broker's address does not answer")
        };
        if world.reports().iter().any(disconnected) {
            assert!((2_000_000..4_000_000).contains(&world.now), "told at {} us", world.now);
            return;
        }
        world.now = world.poll().expect("something is awaited").as_micros().max(world.now);
    }
    panic!("at {} us it still waits", world.now);
}

#[test]
fn a_command_that_is_given_up_is_not_told_as_done() {
    let mut storage = Storage::new();
    let mut world = World::new(&mut storage);
    let token = |id| Token { slot: Slot::CONTROL, id: PacketId::new(id).expect("not 0") };
    world.poll();
    world.reports();
    for (sequence, id) in [(7, 1), (8, 2)] {
        world.node.agent.pending.push((token(id), sequence)).expect("room");
    }
    let error = crate::client::RequestError::TooLarge;
    let event = crate::client::Event::Abandoned { token: token(2), error };
    world.node.agent.on_event(Instant::ZERO, &event);
    world.poll();
    let given_up = Event::Abandoned { sequence: 8, reason: AbandonReason::TooLarge };
    assert_eq!(world.reports(), [Report::Event { at_us: 0, event: given_up }]);
    assert_eq!(world.node.agent.pending, [(token(1), 7)], "the other one is still awaited");
}

#[test]
fn each_connection_ends_with_its_counters() {
    let mut storage = Storage::new();
    let mut world = World::new(&mut storage);
    world.configure();
    let reconnection = Reconnection::Backoff { first_ms: 10, max_ms: 10, attempts: 0 };
    let again = Settings { reconnection, connect_timeout_ms: 1_000, ..settings() };
    assert_eq!(world.ask(1, Request::Configure(again)), Answer::Done);
    world.send(2, Request::Connect);
    let mut told = Vec::new();
    while told.len() < 6 {
        let wake = world.poll().expect("something is awaited");
        told.extend(world.reports().iter().filter_map(|report| match report {
            Report::Event { event: Event::Connecting { .. }, .. } => Some(None),
            Report::Stats(stats) => Some(Some(stats.transport.datagrams_sent)),
            _ => None,
        }));
        world.now = world.now.max(wake.as_micros());
        assert!(world.now < 60_000_000, "{told:?}");
    }
    let alternate = told.chunks(2).all(|pair| pair[0].is_none() && pair[1].is_some_and(|sent| sent > 0));
    assert!(alternate, "an attempt, and what it sent: {told:?}");
}

#[test]
fn an_attempt_begins_before_its_keys_are_made_and_a_phase_is_reached_after() {
    let mut storage = Storage::new();
    let mut world = World::new(&mut storage);
    world.configure();
    world.now = 5_000_000;
    let clock = Rc::new(Cell::new(world.now));
    (world.board.clock, world.entropy.1) = (Some(clock.clone()), Some(clock));
    world.send(1, Request::Connect);
    world.poll();
    let reports = world.reports();
    let at = |wanted: fn(&Event) -> bool| {
        let found = reports.iter().find_map(|report| match report {
            Report::Event { at_us, event } if wanted(event) => Some(*at_us),
            _ => None,
        });
        found.unwrap_or_else(|| panic!("not told in {reports:?}"))
    };
    assert_eq!(at(|event| matches!(event, Event::Connecting { .. })), 5_000_000);
    let started = at(|event| matches!(event, Event::Handshake(HandshakePhase::Started)));
    assert!(started >= 6_000_000, "the keys took a second at least: {started}");
}

#[test]
fn a_reconnect_asked_for_before_the_session_stands_makes_another_attempt() {
    let mut storage = Storage::new();
    let mut world = World::new(&mut storage);
    world.configure();
    let mut attempts = 0;
    let requests = [Some(Request::Connect), Some(Request::Reconnect(Manner::Graceful))];
    for (sequence, request) in (1..20).zip(requests.into_iter().chain(core::iter::repeat(None))) {
        if let Some(request) = request {
            world.send(sequence, request);
        }
        let wake = world.poll().expect("something is awaited");
        for report in world.reports() {
            let Report::Event { event, .. } = report else { continue };
            attempts += u32::from(matches!(event, Event::Connecting { .. }));
            assert!(attempts > 1 || !matches!(event, Event::GaveUp), "the first attempt was the last");
        }
        if attempts == 2 {
            break;
        }
        world.now = wake.as_micros();
    }
    assert_eq!(attempts, 2);
    assert_eq!(world.ask(3, Request::Connect), Answer::Refused(Refusal::Connected));
}

#[test]
fn a_busy_nic_is_waited_for() {
    let mut storage = Storage::new();
    let mut world = World::new(&mut storage);
    world.configure();
    world.nic.busy = true;
    assert_eq!(world.ask(1, Request::Connect), Answer::Done);
    assert!(world.nic.sent.is_empty());
    let wake = world.poll().expect("soon");
    assert!(wake > Instant::from_micros(world.now));
    world.nic.busy = false;
    world.now = wake.as_micros();
    world.poll();
    assert!(!world.nic.sent.is_empty());
}

#[test]
fn faults_and_reboots_wait_for_their_answer_to_be_out() {
    let mut storage = Storage::new();
    let mut world = World::new(&mut storage);
    world.console.room = 0;
    world.send(1, Request::Crash(Fault::Hang));
    world.poll();
    assert_eq!(world.board.crashed, None);
    world.console.room = usize::MAX;
    world.poll();
    assert_eq!(world.board.crashed, Some(Fault::Hang));
    assert_eq!(world.ask(2, Request::Reboot), Answer::Done);
    assert!(world.board.rebooted);
}

#[test]
fn what_the_agent_and_the_stack_take_stays_small() {
    // On a 64-bit host, where pointers and alignment make both larger than on the microcontroller. The
    // client's budget is its own.
    assert!(Node::<Software>::agent_bytes() <= 10 * 1024, "{}", Node::<Software>::agent_bytes());
    assert!(Node::<Software>::net_bytes() <= 12 * 1024, "{}", Node::<Software>::net_bytes());
}

const RADIO: Radio = Radio {
    at_us: 0,
    state: RadioState::Joined,
    bssid: Some([2; 6]),
    channel: Some(6),
    rssi_dbm: Some(-40),
    power: PowerMode::None,
};

#[test]
fn inspecting_reports_what_the_board_has_and_is_refused_where_it_has_nothing() {
    let mut storage = Storage::new();
    let mut world = World::new(&mut storage);
    world.poll();
    world.reports();
    world.send(1, Request::Inspect);
    world.poll();
    let refused = Answer::Refused(Refusal::Unsupported);
    assert_eq!(world.reports(), [Report::Reply { sequence: 1, answer: refused }]);

    world.board.radio = Some(RADIO);
    world.send(2, Request::Inspect);
    world.poll();
    let done = Report::Reply { sequence: 2, answer: Answer::Done };
    assert_eq!(world.reports(), [Report::Radio(RADIO), done]);
}

#[test]
fn a_power_mode_reaches_the_board() {
    let mut storage = Storage::new();
    let mut world = World::new(&mut storage);
    world.send(1, Request::Power(PowerMode::MaximumModemSleep));
    world.poll();
    assert_eq!(world.board.power, PowerMode::MaximumModemSleep);
}

#[test]
fn a_failed_join_is_reported_before_the_link_and_the_radio_with_it() {
    let mut storage = Storage::new();
    let mut world = World::new(&mut storage);
    world.board.link_down = true;
    world.poll();
    world.reports();
    let failed = Event::WifiFailed { failure: WifiFailure::WrongPassword, code: 15, failures: 1 };
    world.board.events.push_back(failed.clone());
    world.board.radio = Some(RADIO);
    world.board.link_down = false;
    world.poll();
    let reports = world.reports();
    assert!(matches!(&reports[0], Report::Event { event, .. } if *event == failed), "{reports:?}");
    assert_eq!(reports[1], Report::Radio(RADIO));
    assert!(matches!(&reports[2], Report::Event { event: Event::LinkUp, .. }), "{reports:?}");
}

#[test]
fn a_password_is_not_shown_by_debug_output() {
    let wifi = Wifi { ssid: clipped("lab"), password: clipped("correct horse") };
    let shown = format!("{:?}", Request::Wifi(wifi));
    assert!(shown.contains("lab") && !shown.contains("horse"), "{shown}");
}
