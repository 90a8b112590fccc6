//! A scripted board: the firmware core ([`Node`]) behind a pseudo-terminal, with the ROM's words before it, a radio that
//! does what the script says, and a network whose datagrams leave through real sockets.

use std::net::{SocketAddr, SocketAddrV4};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant as Clock};

use device::control::{
    Accelerators, Activity, Event, Fault, Hardware, Heap, PowerMode, Radio, RadioState, Refusal, ResetReason,
    Wifi, WifiFailure, clipped,
};
use device::crypto::Software;
use device::node::{Board, Console, Figures, Loan, Node, Storage};
use device::time::Instant;
use device_host::{SeededEntropy, SocketNic};
use harness::link::{FramePath, GatewayConfig, LinkHandle, Nic, Protocol, Service, Setup};
use smoltcp::phy::{Device, DeviceCapabilities, RxToken as _};

use super::pty::Pty;
use super::rom::{self, Chip};

/// The network the script knows.
pub const SSID: &str = "bench";
/// Its password.
pub const PASSWORD: &str = "correct horse";
/// The board's address.
pub const MAC: [u8; 6] = [0x02, 0, 0x4d, 0x51, 0xc3, 2];

/// What the board tells of its stack: a figure of the order of the firmware's on the emulated board.
pub const STACK_MAX: u32 = 13_000;
/// What it tells of its heap, free now and at the least.
pub const HEAP_FREE: [u32; 2] = [200_000, 180_000];

/// What comes out of a board that is reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Start {
    /// The firmware.
    #[default]
    Firmware,
    /// The ROM waits for a download.
    Download,
    /// Nothing.
    Silence,
    /// Noise, as at the wrong speed.
    Garbage,
    /// The ROM finds no firmware.
    EmptyFlash,
    /// Another firmware's log.
    Foreign,
    /// A panic.
    Crash,
}

/// What the radio makes of credentials.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Air {
    /// The network is there; the right password joins it.
    #[default]
    Good,
    /// It is not there.
    NoNetwork,
    /// It is there for so long after joining.
    GoneAfter(Duration),
}

/// What makes a board start its firmware that did something else before.
#[derive(Clone, Debug)]
pub enum Cure {
    /// So many resets.
    Resets(u32),
    /// Whatever leaves this file behind, before a reset.
    File(PathBuf),
}

impl Cure {
    fn has_worked(&self, resets: u32) -> bool {
        match self {
            Self::Resets(count) => resets >= *count,
            Self::File(path) => path.exists(),
        }
    }
}

/// What the board does.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// When it is reset.
    pub start: Start,
    /// It waits in its ROM's loader for a firmware before anything else.
    pub loads: bool,
    /// What makes it start the firmware instead.
    pub cure: Option<Cure>,
    /// The radio.
    pub air: Air,
    /// The network has no DHCP server.
    pub without_dhcp: bool,
    /// The cable is pulled so long after the network was joined.
    pub pulled_after: Option<Duration>,
    /// The firmware panics so long after the network was joined, and the chip starts again.
    pub panics_after: Option<Duration>,
    /// The core stands still so long after the network was joined.
    pub hangs_after: Option<Duration>,
    /// Noise between the firmware's words.
    pub noisy: bool,
    /// Its deepest stack so far in bytes; [`STACK_MAX`] if nothing is said.
    pub stack_max: Option<u32>,
}

/// A running board; dropping it ends it.
pub struct Scripted {
    path: PathBuf,
    loaded: Arc<Mutex<Vec<u8>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Scripted {
    /// Starts a board in whose network `services` (an address, UDP and TCP) lead to this machine's sockets.
    pub fn start(script: Script, service: SocketAddrV4) -> Self {
        let pty = Pty::open();
        let path = pty.path();
        let stop = Arc::<AtomicBool>::default();
        let loaded = Arc::<Mutex<Vec<u8>>>::default();
        let (theirs, flash) = (Arc::clone(&stop), Arc::clone(&loaded));
        let thread = std::thread::spawn(move || run(pty, &script, service, &flash, &theirs));
        Self { path, loaded, stop, thread: Some(thread) }
    }

    /// Its port.
    pub fn port(&self) -> &Path {
        &self.path
    }

    /// What its flash holds once it was loaded.
    pub fn loaded(&self) -> Vec<u8> {
        self.loaded.lock().expect("not poisoned").clone()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn run(mut pty: Pty, script: &Script, service: SocketAddrV4, loaded: &Mutex<Vec<u8>>, stop: &AtomicBool) {
    let mut resets = 0;
    if script.loads {
        let Some(flash) = rom::load(&mut pty, Chip::default(), stop) else { return };
        *loaded.lock().expect("not poisoned") = flash;
        resets = 1;
    }
    while !stop.load(Ordering::Relaxed) {
        let recovered = script.cure.as_ref().is_some_and(|cure| cure.has_worked(resets));
        let start = if recovered { Start::Firmware } else { script.start };
        // The first life began before anybody listened.
        if resets > 0 {
            pty.say(words(start));
        }
        resets += 1;
        let ended = match start {
            Start::Firmware => live(&mut pty, script, service, resets, stop),
            _ => dwell(&mut pty, start, stop),
        };
        if ended == End::Pulled {
            return;
        }
    }
}

/// Why a life ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Reset,
    Pulled,
    Stopped,
}

fn words(start: Start) -> &'static [u8] {
    match start {
        Start::Firmware => {
            b"ESP-ROM:esp32c3-api1-20210207\r\nBuild:Feb  7 2021\r\nrst:0x15 (USB_UART_CHIP_RESET),boot:0xc \
              (SPI_FAST_FLASH_BOOT)\r\nSPIWP:0xee\r\nmode:DIO, clock div:2\r\nload:0x3fcd5830,len:0x15f0\r\nentry \
              0x403cc710\r\nI (24) boot: ESP-IDF v5.1 2nd stage bootloader\r\n"
        }
        Start::Download => {
            b"ESP-ROM:esp32c3-api1-20210207\r\nrst:0x15 (USB_UART_CHIP_RESET),boot:0x5 \
              (DOWNLOAD(USB/UART0/1))\r\nwaiting for download\r\n"
        }
        Start::Silence => b"",
        Start::Garbage => &[0x9f, 0xe0, 0x81, 0xfe, 0x1c, 0x0c, 0xf8, 0x80, 0xc3, 0x91, 0xf1, 0x88, 0x7e, 0x0e, 0xe3, 0x9c],
        Start::EmptyFlash => b"rst:0x1 (POWERON),boot:0xc (SPI_FAST_FLASH_BOOT)\r\ninvalid header: 0xffffffff\r\n",
        Start::Foreign => b"rst:0x1 (POWERON),boot:0xc (SPI_FAST_FLASH_BOOT)\r\nI (312) main_task: Hello world!\r\n",
        Start::Crash => {
            b"rst:0x1 (POWERON),boot:0xc (SPI_FAST_FLASH_BOOT)\r\npanicked at src/main.rs:7:5:\r\nno heap left\r\n"
        }
    }
}

/// A crash report as the firmware writes it, over a frame that was cut short.
const PANIC: &[u8] = b"\x00\r\nCRASH cause=panic sp=0x3fc9a000 panicked: no room left\r\nCRASH stack \
    0x42001234 0x3fc9b000\r\nCRASH end\r\n";

/// A board without our firmware: whatever it is told resets it, as lines would do on a real port.
fn dwell(pty: &mut Pty, _: Start, stop: &AtomicBool) -> End {
    let mut bytes = [0; 256];
    while !stop.load(Ordering::Relaxed) {
        if pty.read(&mut bytes, Duration::from_millis(20)) > 0 {
            return End::Reset;
        }
    }
    End::Stopped
}

/// A core that loops for ever: its port takes what it is told, and nothing comes of it.
fn hang(pty: &mut Pty, stop: &AtomicBool) -> End {
    let mut bytes = [0; 256];
    while !stop.load(Ordering::Relaxed) {
        pty.read(&mut bytes, Duration::from_millis(20));
    }
    End::Stopped
}

/// One life of the firmware.
fn live(pty: &mut Pty, script: &Script, service: SocketAddrV4, life: u32, stop: &AtomicBool) -> End {
    let folder = tempfile::tempdir().expect("a folder for the cable");
    let cable = folder.path().join("nic");
    let listener = UnixListener::bind(&cable).expect("a socket");
    let nic = UnixStream::connect(&cable).expect("it listens");
    nic.set_nonblocking(true).expect("a socket");
    // Without DHCP the other end of the cable is not plugged in anywhere.
    let _lan = (!script.without_dhcp).then(|| lan(listener, service));

    let mut storage = Box::new(Storage::<Software>::new());
    let mut node = Box::new(Node::new(&mut storage));
    // No two lives may name their connections alike: a broker would take the second for what it remembers of the first.
    let mut entropy = SeededEntropy::new(Some(life.into()));
    let mut board = Silicon::new(script);
    let mut nic = Wireless { nic: SocketNic::new(&nic), joined: false };
    let boot = Clock::now();
    let now = || Instant::from_micros(boot.elapsed().as_micros() as u64);
    loop {
        let mut console = Terminal { pty: &mut *pty, noisy: script.noisy };
        let mut loan =
            Loan { nic: &mut nic, console: &mut console, board: &mut board, entropy: &mut entropy };
        let wake = node.poll(now(), &mut loan);
        board.pass();
        nic.joined = board.link_is_up();
        if stop.load(Ordering::Relaxed) {
            return End::Stopped;
        }
        if board.rebooted {
            return End::Reset;
        }
        if board.is_due(script.panics_after) {
            pty.say(PANIC);
            return End::Reset;
        }
        if board.hangs || board.is_due(script.hangs_after) {
            return hang(pty, stop);
        }
        if board.is_pulled() {
            return End::Pulled;
        }
        // Both sockets are looked at once a millisecond: simple, and good enough for a script.
        let due = wake.is_some_and(|wake| wake <= now());
        if !due {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The NIC of a board that may have lost its network.
struct Wireless<'s> {
    nic: SocketNic<'s>,
    joined: bool,
}

impl<'s> Device for Wireless<'s> {
    type RxToken<'a>
        = <SocketNic<'s> as Device>::RxToken<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = <SocketNic<'s> as Device>::TxToken<'a>
    where
        Self: 'a;

    fn receive(&mut self, now: smoltcp::time::Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        if !self.joined {
            while self.nic.receive(now).is_some_and(|(frame, _)| frame.consume(|_| true)) {}
            return None;
        }
        self.nic.receive(now)
    }

    fn transmit(&mut self, now: smoltcp::time::Instant) -> Option<Self::TxToken<'_>> {
        if self.joined { self.nic.transmit(now) } else { None }
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.nic.capabilities()
    }
}

/// A network with a DHCP server, from which `service` leads to the same address of this machine.
fn lan(listener: UnixListener, service: SocketAddrV4) -> LinkHandle {
    let services = [Protocol::Udp, Protocol::Tcp].map(|protocol| Service {
        protocol,
        guest: service,
        host: SocketAddr::V4(service),
    });
    let gateway = GatewayConfig { services: services.to_vec(), ..GatewayConfig::default() };
    let path = FramePath { setup: Setup::default(), nic: Nic::Listener(listener), gateway };
    path.start().expect("a network without impairments")
}

struct Terminal<'p> {
    pty: &'p mut Pty,
    noisy: bool,
}

impl Console for Terminal<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> usize {
        self.pty.read(bytes, Duration::ZERO)
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        if self.noisy && !bytes.is_empty() {
            self.pty.write(b"\x00\xa7\xff\x13\x80\x00I (9) wifi: beacon\r\n", Duration::ZERO);
        }
        self.pty.write(bytes, Duration::ZERO)
    }
}

/// What the script makes of the chip.
struct Silicon {
    script: Script,
    join: Option<(Clock, Result<(), WifiFailure>)>,
    joined: Option<Clock>,
    failures: u16,
    events: Vec<Event>,
    rebooted: bool,
    hangs: bool,
    power: PowerMode,
    boot: Clock,
}

/// From the credentials to what becomes of them.
const JOINING: Duration = Duration::from_millis(100);

impl Silicon {
    fn new(script: &Script) -> Self {
        Self {
            script: script.clone(),
            join: None,
            joined: None,
            failures: 0,
            events: Vec::new(),
            rebooted: false,
            hangs: false,
            power: PowerMode::None,
            boot: Clock::now(),
        }
    }

    /// Lets time pass.
    fn pass(&mut self) {
        if let Some((since, outcome)) = self.join
            && since.elapsed() >= JOINING
        {
            match outcome {
                Ok(()) => (self.join, self.joined) = (None, Some(Clock::now())),
                Err(failure) => {
                    self.fail(failure);
                    // The radio tries again by itself.
                    self.join = Some((Clock::now(), Err(failure)));
                }
            }
        }
        if let (Air::GoneAfter(after), Some(joined)) = (self.script.air, self.joined)
            && joined.elapsed() >= after
        {
            self.joined = None;
            self.fail(WifiFailure::Lost);
            self.join = Some((Clock::now(), Err(WifiFailure::NetworkNotFound)));
        }
    }

    fn fail(&mut self, failure: WifiFailure) {
        self.failures += 1;
        self.events.push(Event::WifiFailed { failure, code: 15, failures: self.failures });
    }

    fn is_pulled(&self) -> bool {
        self.is_due(self.script.pulled_after)
    }

    /// Whether the network was joined so long ago.
    fn is_due(&self, after: Option<Duration>) -> bool {
        let since = self.joined.map(|joined| joined.elapsed());
        matches!((after, since), (Some(after), Some(since)) if since >= after)
    }
}

impl Board for Silicon {
    fn name(&self) -> &str {
        "esp32c3"
    }

    fn reset_reason(&self) -> ResetReason {
        ResetReason::External
    }

    fn hardware_address(&self) -> [u8; 6] {
        MAC
    }

    fn figures(&mut self) -> Figures {
        let stack = self.script.stack_max.unwrap_or(STACK_MAX);
        Figures {
            heap_free: Some(HEAP_FREE[0]),
            heap_free_min: Some(HEAP_FREE[1]),
            stack_max: Some(stack),
            stack_phase_max: Some(stack),
            stack_size: Some(178_584),
            static_ram: Some(64_000),
            ..Figures::default()
        }
    }

    fn link_is_up(&self) -> bool {
        self.joined.is_some()
    }

    fn join(&mut self, wifi: &Wifi) -> Result<(), Refusal> {
        let outcome = match self.script.air {
            Air::NoNetwork => Err(WifiFailure::NetworkNotFound),
            _ if wifi.ssid != SSID => Err(WifiFailure::NetworkNotFound),
            _ if wifi.password != PASSWORD => Err(WifiFailure::WrongPassword),
            _ => Ok(()),
        };
        self.join = Some((Clock::now(), outcome));
        Ok(())
    }

    fn save_power(&mut self, mode: PowerMode) -> Result<(), Refusal> {
        // As firmware whose console is on USB.
        if mode == PowerMode::LightSleep {
            return Err(Refusal::Unsupported);
        }
        self.power = mode;
        Ok(())
    }

    fn hardware(&self) -> Option<Hardware> {
        Some(Hardware {
            chip: clipped("ESP32-C3"),
            revision: (0, 4),
            mac: MAC,
            cpu_mhz: 160,
            reset: ResetReason::External,
            reset_code: 0x15,
            accelerators: Accelerators::Absent,
        })
    }

    fn radio(&mut self, now: Instant) -> Option<Radio> {
        let state = if self.joined.is_some() { RadioState::Joined } else { RadioState::Joining };
        Some(Radio {
            at_us: now.as_micros(),
            state,
            bssid: None,
            channel: Some(6),
            rssi_dbm: Some(-36),
            power: self.power,
        })
    }

    fn heap(&self, now: Instant) -> Option<Heap> {
        Some(Heap {
            at_us: now.as_micros(),
            size: 250_000,
            used: 50_000,
            used_max: 70_000,
            ..Heap::default()
        })
    }

    fn activity(&self, now: Instant) -> Option<Activity> {
        let since = self.boot.elapsed().as_micros() as u64;
        Some(Activity {
            at_us: now.as_micros(),
            cpu_busy_us: since / 4,
            cpu_idle_us: since - since / 4,
            light_sleep_us: 0,
            radio_on_us: self.joined.map_or(0, |joined| joined.elapsed().as_micros() as u64),
            radio_transmit_us_max: 1_000,
        })
    }

    fn take_event(&mut self) -> Option<Event> {
        (!self.events.is_empty()).then(|| self.events.remove(0))
    }

    /// Panics come of the script; of the faults on command this board knows the one that nothing is heard of.
    fn crash(&mut self, fault: Fault) {
        self.hangs |= fault == Fault::Hang;
    }

    fn reboot(&mut self) {
        self.rebooted = true;
    }
}
