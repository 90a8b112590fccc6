//! How exactly the link keeps its schedule, and how fast it forwards.
//!
//! `cargo bench -p harness --bench link` prints both beside their targets and fails if one is missed: deliveries
//! within 1 ms of schedule at the 99th percentile at 5,000 packets/s, and at least half the rate of a bare
//! loopback forwarder.
//!
//! A busy machine is late whatever the link does. A thread that only sleeps runs beside each measurement, and what
//! it sees is told apart: where it was on time, in windows of 50 ms, the link has no excuse, and those windows
//! decide when there are enough of them. As root, `chrt -f 10` before the command keeps other programs out of it.

use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use harness::link::{FramePath, GatewayConfig, LinkHandle, Nic, Protocol, Setup, UdpProxy};
use link::LinkConfig;

const PACKETS_PER_SECOND: u32 = 5_000;
const PACED_PACKETS: u32 = 25_000;
const PAYLOAD: usize = 1_200;
const LATE_US_P99_MAX: u64 = 1_000;
const RATE_SHARE_MIN: f64 = 0.5;

fn main() -> ExitCode {
    // Run by `cargo test --benches` there is nothing to measure.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let jittery = "both = { delay = \"20 ms\", jitter = \"10 ms\", loss = \"2 %\" }";
    let exact = [
        judged("UDP proxy, 20 ms", || delivery_through_proxy("both.delay = \"20 ms\"")),
        judged("UDP proxy, 20 ms +- 10 ms, 2 % loss", || delivery_through_proxy(jittery)),
        judged("frame path, 20 ms", || delivery_through_frames("both.delay = \"20 ms\"")),
    ];
    let exact = exact.into_iter().all(|kept| kept);
    let fast = forwarding_rate();
    if exact && fast { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// When something was due, since the epoch of the measurement, and how late it was. Nanoseconds.
#[derive(Clone, Copy)]
struct Sample {
    due: u64,
    late: u64,
}

/// Length of a window that is judged as a whole: 250 packets.
const WINDOW_NS: u64 = 50_000_000;
/// A window in which the sleeper was never later than this is a quiet one.
const QUIET_LATE_NS: u64 = 200_000;
/// Quiet packets that are enough for a 99th percentile to mean something.
const QUIET_PACKETS_MIN: usize = 5_000;
/// Times a measurement is repeated in search of them.
const ROUNDS_MAX: usize = 6;

/// A thread that only sleeps, at the packets' pace: what no link can improve on.
struct Sleeper {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Vec<Sample>>,
}

impl Sleeper {
    fn start(epoch: Instant) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let stop = stop.clone();
            move || {
                let mut samples = Vec::new();
                let interval = Duration::from_secs(1) / PACKETS_PER_SECOND;
                let mut due = epoch.elapsed() + interval;
                while !stop.load(Ordering::Relaxed) {
                    if let Some(early) = due.checked_sub(epoch.elapsed()) {
                        thread::sleep(early);
                    }
                    let late = epoch.elapsed().saturating_sub(due);
                    samples.push(Sample { due: due.as_nanos() as u64, late: late.as_nanos() as u64 });
                    due += interval;
                }
                samples
            }
        });
        Self { stop, thread }
    }

    fn finish(self) -> Vec<Sample> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the sleeper lives")
    }
}

/// The p-quantile in microseconds.
fn quantile(late: &mut [u64], p: f64) -> u64 {
    late.sort_unstable();
    late.last().map_or(0, |_| late[((late.len() - 1) as f64 * p) as usize] / 1_000)
}

fn line(late: &mut [u64]) -> String {
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|p| quantile(late, p));
    format!("p50 {p50} us, p99 {p99} us, max {max} us")
}

/// Lateness of one measurement.
struct Lateness {
    /// As the link sees it: from schedule to hand-over.
    link: harness::link::SchedulingError,
    /// As the receiver sees it: from sending, less the delay, to its reading. Only where the delay is constant.
    receiver: Vec<Sample>,
    /// As the sleeper sees it, over the same time.
    sleeper: Vec<Sample>,
}

/// Measures until it is known whether the link keeps its schedule.
fn judged(name: &str, measure: impl Fn() -> Lateness) -> bool {
    println!("{name}, {PACKETS_PER_SECOND} packets/s (target: late by p99 <= {LATE_US_P99_MAX} us)");
    let mut quiet = Vec::new();
    for _ in 0..ROUNDS_MAX {
        let lateness = measure();
        lateness.print();
        if lateness.link.p99_us <= LATE_US_P99_MAX {
            return true;
        }
        if lateness.machine_was_idle() {
            return false;
        }
        let (late, windows, of) = lateness.quiet();
        quiet.extend(late);
        println!("  {windows} of {of} windows of 50 ms were quiet");
        if quiet.len() >= QUIET_PACKETS_MIN {
            println!(
                "  in windows in which the sleeper was never {} us late, socket to socket: {} packets, {}",
                QUIET_LATE_NS / 1_000,
                quiet.len(),
                line(&mut quiet)
            );
            return quantile(&mut quiet, 0.99) <= LATE_US_P99_MAX;
        }
    }
    println!("  UNDECIDED: this machine is too busy to tell what the link adds; repeat on a quiet one");
    false
}

impl Lateness {
    /// Whether a thread that only sleeps kept the schedule with room to spare, so that the link has no excuse.
    fn machine_was_idle(&self) -> bool {
        let mut late: Vec<u64> = self.sleeper.iter().map(|sample| sample.late).collect();
        quantile(&mut late, 0.99) <= LATE_US_P99_MAX / 2
    }

    fn print(&self) {
        let link = &self.link;
        println!(
            "  {} packets handed over late by p50 {} us, p99 {} us, max {} us",
            link.count, link.p50_us, link.p99_us, link.max_us
        );
        let late =
            |samples: &[Sample]| line(&mut samples.iter().map(|sample| sample.late).collect::<Vec<_>>());
        if !self.receiver.is_empty() {
            println!("  from socket to socket, less the delay: {}", late(&self.receiver));
        }
        println!("  a thread that only sleeps, meanwhile: {}", late(&self.sleeper));
    }

    /// What the receiver saw in quiet windows, how many these are, and of how many.
    fn quiet(&self) -> (Vec<u64>, usize, usize) {
        let mut worst = std::collections::BTreeMap::new();
        for sample in &self.sleeper {
            let late: &mut u64 = worst.entry(sample.due / WINDOW_NS).or_default();
            *late = sample.late.max(*late);
        }
        // A window is quiet only if the next is: what is due at its end comes in the next.
        let calm = |window: &u64| worst.get(window).is_some_and(|late| *late <= QUIET_LATE_NS);
        let quiet = |window: &u64| calm(window) && calm(&(window + 1));
        let late = self.receiver.iter().filter(|sample| quiet(&(sample.due / WINDOW_NS)));
        (late.map(|sample| sample.late).collect(), worst.keys().filter(|w| quiet(w)).count(), worst.len())
    }
}

fn setup(config: &str) -> Setup {
    let config: LinkConfig = toml::from_str(config).expect("the benchmark's configuration is sound");
    Setup { config, seed: 1, ..Setup::default() }
}

fn loopback() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback has a free port");
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a time limit");
    socket
}

fn address(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().expect("a bound socket has an address")
}

/// Calls `send` at a steady pace.
fn paced(mut send: impl FnMut(u64)) {
    let begin = Instant::now();
    let interval = Duration::from_secs(1) / PACKETS_PER_SECOND;
    for i in 0..PACED_PACKETS {
        let due = begin + interval * i;
        if let Some(early) = due.checked_duration_since(Instant::now()) {
            thread::sleep(early);
        }
        send(u64::from(i));
    }
}

/// Receives until nothing comes any more; each datagram begins with the moment it was sent at.
fn receive(socket: UdpSocket, epoch: Instant, delay: Duration) -> thread::JoinHandle<Vec<Sample>> {
    thread::spawn(move || {
        let mut samples = Vec::with_capacity(PACED_PACKETS as usize);
        let mut buffer = [0; 2048];
        while let Ok(len) = socket.recv(&mut buffer) {
            let sent = buffer[..len].first_chunk::<8>().expect("the sender's time stamp");
            let due = Duration::from_nanos(u64::from_le_bytes(*sent)) + delay;
            let late = epoch.elapsed().saturating_sub(due).as_nanos() as u64;
            samples.push(Sample { due: due.as_nanos() as u64, late });
        }
        samples
    })
}

fn stamped(payload: &mut [u8], epoch: Instant) {
    payload[..8].copy_from_slice(&(epoch.elapsed().as_nanos() as u64).to_le_bytes());
}

fn delivery_through_proxy(config: &str) -> Lateness {
    let sink = loopback();
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let proxy = UdpProxy { setup: setup(config), listen, server: address(&sink) };
    let (link, front) = proxy.start().expect("the proxy starts");
    let source = loopback();
    source.connect(front).expect("loopback");
    let epoch = Instant::now();
    let receiver = receive(sink, epoch, Duration::from_millis(20));
    let sleeper = Sleeper::start(epoch);
    let mut payload = [0; PAYLOAD];
    paced(|_| {
        stamped(&mut payload, epoch);
        source.send(&payload).expect("loopback");
    });
    let sleeper = sleeper.finish();
    let receiver = receiver.join().expect("the receiver lives");
    // With jitter the receiver cannot know when a datagram was due.
    let receiver = if config.contains("jitter") { Vec::new() } else { receiver };
    Lateness { link: finish(link).up.scheduling_error, receiver, sleeper }
}

fn delivery_through_frames(config: &str) -> Lateness {
    let sink = loopback();
    let (nic, board) = UnixStream::pair().expect("a socket pair");
    let gateway = GatewayConfig::default().with_service(Protocol::Udp, 14567, address(&sink));
    let link =
        FramePath { setup: setup(config), nic: Nic::Stream(nic), gateway }.start().expect("the link starts");
    let epoch = Instant::now();
    let receiver = receive(sink, epoch, Duration::from_millis(20));
    let sleeper = Sleeper::start(epoch);
    let mut payload = [0; PAYLOAD];
    paced(|_| {
        stamped(&mut payload, epoch);
        let frame = udp_frame(&payload);
        let mut bytes = (frame.len() as u32).to_be_bytes().to_vec();
        bytes.extend(frame);
        std::io::Write::write_all(&mut &board, &bytes).expect("the link reads");
    });
    let sleeper = sleeper.finish();
    let receiver = receiver.join().expect("the receiver lives");
    Lateness { link: finish(link).up.scheduling_error, receiver, sleeper }
}

/// A frame from the board to port 14567 of the gateway.
fn udp_frame(payload: &[u8]) -> Vec<u8> {
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr};
    let udp = UdpRepr { src_port: 5000, dst_port: 14567 };
    let ip = Ipv4Repr {
        src_addr: [10, 77, 0, 2].into(),
        dst_addr: [10, 77, 0, 1].into(),
        next_header: IpProtocol::Udp,
        payload_len: udp.header_len() + payload.len(),
        hop_limit: 64,
    };
    let checksums = ChecksumCapabilities::default();
    let mut frame = vec![0; 14 + ip.buffer_len() + ip.payload_len];
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00]);
    let mut packet = Ipv4Packet::new_unchecked(&mut frame[14..]);
    ip.emit(&mut packet, &checksums);
    let mut datagram = UdpPacket::new_unchecked(packet.payload_mut());
    let (from, to) = (ip.src_addr.into(), ip.dst_addr.into());
    udp.emit(&mut datagram, &from, &to, payload.len(), |bytes| bytes.copy_from_slice(payload), &checksums);
    frame
}

fn finish(link: LinkHandle) -> harness::link::Stats {
    let summary = link.stop();
    assert_eq!(summary.failure, None);
    summary.stats
}

/// Forwards the same traffic through a bare forwarder and through the link, in turns.
fn forwarding_rate() -> bool {
    // Short and many, in turns: what else the machine does then falls on both.
    const ROUNDS: usize = 15;
    let (mut bare, mut through) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(bare_rate());
        through.push(link_rate());
    }
    let median = |rates: &mut Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        rates[ROUNDS / 2]
    };
    let (bare, through) = (median(&mut bare), median(&mut through));
    let share = through / bare;
    println!(
        "forwarding, {PAYLOAD} B datagrams: bare loopback forwarder {bare:.0} packets/s, link {through:.0} packets/s, {:.0} % (target: >= {:.0} %)",
        share * 100.0,
        RATE_SHARE_MIN * 100.0
    );
    share >= RATE_SHARE_MIN
}

/// The least a forwarder can do: receive, send.
fn bare_rate() -> f64 {
    let sink = loopback();
    let front = loopback();
    let (entry, exit) = (address(&front), address(&sink));
    let stop = Arc::new(AtomicBool::new(false));
    let forwarder = thread::spawn({
        let stop = stop.clone();
        move || {
            let out = loopback();
            out.connect(exit).expect("loopback");
            let mut buffer = [0; 2048];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((len, _)) = front.recv_from(&mut buffer) {
                    out.send(&buffer[..len]).expect("loopback");
                }
            }
        }
    });
    let rate = rate_from_to(entry, &sink);
    stop.store(true, Ordering::Relaxed);
    forwarder.join().expect("the forwarder lives");
    rate
}

fn link_rate() -> f64 {
    let sink = loopback();
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let (link, entry) =
        UdpProxy { setup: setup(""), listen, server: address(&sink) }.start().expect("the proxy starts");
    let rate = rate_from_to(entry, &sink);
    finish(link);
    rate
}

/// Packets per second from `entry` to `sink`, with a window small enough that no socket buffer overflows.
fn rate_from_to(entry: SocketAddr, sink: &UdpSocket) -> f64 {
    const WINDOW: u32 = 32;
    const TIME: Duration = Duration::from_millis(300);
    let source = loopback();
    source.connect(entry).expect("loopback");
    let payload = [0; PAYLOAD];
    let mut buffer = [0; 2048];
    let (mut on_the_way, mut received) = (0, 0u64);
    let begin = Instant::now();
    while begin.elapsed() < TIME {
        while on_the_way < WINDOW {
            source.send(&payload).expect("loopback");
            on_the_way += 1;
        }
        sink.recv(&mut buffer).expect("nothing is lost within the window");
        on_the_way -= 1;
        received += 1;
    }
    received as f64 / begin.elapsed().as_secs_f64()
}
