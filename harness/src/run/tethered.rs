//! A tethered board in a run: its start, and its network. The board is on a real one, so its datagrams come to a proxy on
//! this machine, where they go through the link's model; nothing of the network itself is impaired.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use device::control::{Addressing, PowerMode, Wifi};

use super::settings::Destination;
use super::setup::TrialError;
use crate::board::esp32c3::choose::Chosen;
use crate::board::esp32c3::flash::ChipInfo;
use crate::board::esp32c3::recovery::Attempt;
use crate::board::esp32c3::wifi::Lost;
use crate::board::esp32c3::{Fault, Faults, Limits, TetheredMachine};
use crate::board::{Board, BoardError, Options};
use crate::broker::Broker;
use crate::energy::{
    self,
    estimate::{Account, Currents},
};
use crate::firmware::elf::Elf;
use crate::link::{Clients, LinkHandle, RttProbe, Setup, StreamProxy, UdpProxy, probe_rtt};
use crate::measure::adapter::Rules;
use crate::measure::record::{self, Blame, Timing, Transport, Trial};

/// Clock of the ESP32-C3.
const CLOCK_HZ: u64 = 160_000_000;
/// Round trips measured to the board in each trial.
const PROBES: u32 = 10;
/// Time one of them may take.
const PROBE_LIMIT: Duration = Duration::from_millis(500);
/// From the board's first datagram to the first probe, so that probes stay out of the handshake.
const PROBE_AFTER: Duration = Duration::from_secs(1);

/// A board on a cable, ready to be started as often as there are trials. Its lock is held while this lives.
#[derive(Clone)]
pub struct Tethered(Arc<Inner>);

struct Inner {
    chosen: Chosen,
    elf: Option<Arc<Elf>>,
    wifi: Option<Wifi>,
    power: Option<PowerMode>,
    lan: Lan,
    chip: Option<ChipInfo>,
    adapter: Option<Rules>,
    limits: Limits,
    faults: Faults,
    listener: Arc<dyn Fn(&Attempt) + Send + Sync>,
}

/// Where the board finds this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lan {
    /// Where the proxy listens; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The address the board is told, where it is not the one listened on.
    pub advertise: Option<IpAddr>,
}

impl Lan {
    /// The address of the interface that leads out of this machine, if there is one.
    ///
    /// # Errors
    /// [`Fault::NoAddress`].
    pub fn by_route() -> Result<Self, Fault> {
        let fail = |error: std::io::Error| Fault::NoAddress { cause: error.to_string() };
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(fail)?;
        // Nothing is sent: connecting asks the routing table (the address is one for documentation, RFC 5737).
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).map_err(fail)?;
        let address = socket.local_addr().map_err(fail)?.ip();
        Ok(Self { listen: SocketAddr::new(address, 0), advertise: None })
    }
}

impl fmt::Debug for Tethered {
    /// Without the network's password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tethered").field("port", &self.0.chosen.found.port).finish_non_exhaustive()
    }
}

/// What a [`Tethered`] board is made from.
pub struct Parts {
    /// The board, locked.
    pub chosen: Chosen,
    /// The firmware it runs.
    pub elf: Option<Elf>,
    /// The network it is to join; `None` for a board that is on one by itself.
    pub wifi: Option<Wifi>,
    /// How it saves power there, if not as it does by itself.
    pub power: Option<PowerMode>,
    /// Where it finds this machine.
    pub lan: Lan,
    /// What the chip told when it was flashed.
    pub chip: Option<ChipInfo>,
    /// How a firmware that is not ours is read by its log.
    pub adapter: Option<Rules>,
    /// Who hears about recoveries.
    pub listener: Arc<dyn Fn(&Attempt) + Send + Sync>,
}

impl Tethered {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        let Parts { chosen, elf, wifi, power, lan, chip, adapter, listener } = parts;
        let (elf, limits, faults) = (elf.map(Arc::new), Limits::default(), Faults::default());
        Self(Arc::new(Inner { chosen, elf, wifi, power, lan, chip, adapter, limits, faults, listener }))
    }

    /// Starts the board and joins its network.
    ///
    /// # Errors
    /// [`BoardError::Tethered`] naming the fault; as [`Board::start`] otherwise.
    pub async fn start(&self, options: Options) -> Result<Board, BoardError> {
        let inner = &*self.0;
        let machine = self.machine();
        // The ladder has its own limits, which name what went wrong.
        let options = Options { boot_limit: options.boot_limit.max(inner.limits.ladder()), ..options };
        Board::start(machine, options).await
    }

    /// The board as a machine that was not started.
    pub fn machine(&self) -> TetheredMachine {
        let inner = &*self.0;
        TetheredMachine::new(&inner.chosen)
            .with_elf(inner.elf.clone())
            .with_wifi(inner.wifi.clone())
            .with_power(inner.power)
            .with_limits(inner.limits)
            .with_faults(inner.faults.clone())
            .with_listener(Arc::clone(&inner.listener))
    }

    /// The wireless network it is to join.
    pub fn network(&self) -> Option<&str> {
        self.0.wifi.as_ref().map(|wifi| wifi.ssid.as_str())
    }

    /// The rules for a firmware that is not ours.
    pub fn adapter(&self) -> Option<&Rules> {
        self.0.adapter.as_ref()
    }

    /// What the board failed at since this was asked last.
    pub fn take_fault(&self) -> Option<String> {
        self.0.faults.take()
    }

    /// What names the board in locks and histories.
    pub fn id(&self) -> String {
        self.0.chosen.id()
    }

    /// The board as a report tells of it.
    pub fn record(&self) -> record::Board {
        let found = &self.0.chosen.found;
        // A pseudo-terminal leads to a program, not to silicon.
        let scripted = found.port.starts_with("/dev/pts");
        let (description, timing) = if scripted {
            ("the firmware core as a program behind a pseudo-terminal".to_owned(), Timing::Emulated)
        } else {
            (format!("an ESP32-C3 on {}", found.port.display()), Timing::Physical)
        };
        let chip = self.0.chip.as_ref();
        record::Board {
            name: "esp32c3".to_owned(),
            description,
            firmware: Some(match self.adapter() {
                Some(rules) => rules.firmware.clone(),
                None => env!("CARGO_PKG_VERSION").to_owned(),
            }),
            chip: chip.map(ChipInfo::name),
            mac: found.mac.or(chip.and_then(|chip| chip.mac)).map(|mac| mac.to_string()),
            timing,
            clock_hz: (!scripted).then_some(CLOCK_HZ),
            footprint: None,
        }
    }

    /// Starts the link as a proxy in the board's network.
    ///
    /// # Errors
    /// If the broker does not serve `transport`, or the proxy cannot listen.
    pub fn start_link(
        &self,
        broker: &Broker,
        transport: Transport,
        server_name: &str,
        setup: Setup,
    ) -> Result<(LinkHandle, Destination, Path), TrialError> {
        let fail = |error: &dyn fmt::Display| TrialError::new("link", Blame::Environment, error);
        let server = broker.addresses().get(transport);
        let server = server.ok_or_else(|| fail(&format!("the broker does not serve {transport}")))?;
        let Lan { listen, advertise } = self.0.lan;
        let (link, address, path) = if transport == Transport::Quic {
            let (link, address, clients) =
                UdpProxy { setup, listen, server }.start_observed().map_err(|error| fail(&error))?;
            (link, address, Path::measured(clients))
        } else {
            let (link, address) =
                StreamProxy { setup, listen, server }.start().map_err(|error| fail(&error))?;
            let note = format!(
                "{transport}: delay and stall only. A stream proxy carries it, so no segment is lost, and neither TCP's handshake nor its \
                 bare acknowledgements cross it: time, bytes and packets to CONNACK are lower than without, and round trips are not \
                 measured. For TCP under real loss use \
                 --board host or qemu, or impair the board's network itself (netem)"
            );
            (link, address, Path { notes: vec![note], measuring: None })
        };
        let destination = Destination {
            broker: SocketAddr::new(advertise.unwrap_or(address.ip()), address.port()),
            server_name: server_name.to_owned(),
            addressing: Addressing::Dhcp,
        };
        Ok((link, destination, path))
    }

    /// Estimates what handshakes and messages cost; a trace of an analyser replaces it later.
    pub fn estimate_energy(&self, trial: &mut Trial, accounts: &[Account]) {
        let currents = Currents::ESP32C3;
        trial.energy = energy::estimated(trial, &currents, accounts);
        if !trial.energy.is_empty() {
            trial.notes.push(currents.note());
        }
    }

    /// What came of a trial in this kind of board's terms. `missed` is the phase whose end was not reached in time, `lost`
    /// tells why the board is not in its network any more.
    pub fn explain(
        &self,
        result: Result<(), TrialError>,
        missed: Option<&'static str>,
        lost: Option<Lost>,
        limit: Duration,
    ) -> Result<(), TrialError> {
        // A board that died or fell silent meanwhile is another matter.
        let Some(phase) = missed else { return result };
        let fault = match (lost, &self.0.wifi) {
            (Some(lost), Some(wifi)) => lost.fault(&wifi.ssid),
            _ if phase == "network up" => Fault::NoDhcp { limit },
            _ => return result,
        };
        Err(TrialError::new(phase, Blame::Environment, fault.told()))
    }
}

/// The path between proxy and board, measured while a trial runs.
pub struct Path {
    notes: Vec<String>,
    measuring: Option<Measuring>,
}

struct Measuring {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Option<(SocketAddr, Result<RttProbe, String>)>>,
}

impl Path {
    /// Starts to measure as soon as `clients` has heard the board.
    fn measured(clients: Clients) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let theirs = Arc::clone(&stop);
        let thread =
            std::thread::Builder::new().name("path-rtt".to_owned()).spawn(move || measure(&clients, &theirs));
        match thread {
            Ok(thread) => Self { notes: Vec::new(), measuring: Some(Measuring { stop, thread }) },
            Err(error) => {
                Self { notes: vec![format!("the path's RTT was not measured: {error}")], measuring: None }
            }
        }
    }

    /// What there is to tell.
    pub fn notes(self) -> Vec<String> {
        let mut notes = self.notes;
        let Some(Measuring { stop, thread }) = self.measuring else { return notes };
        stop.store(true, Ordering::Relaxed);
        notes.push(match thread.join() {
            Ok(Some((board, Ok(probe)))) => tell(board, &probe),
            Ok(Some((_, Err(cause)))) => format!("path RTT at the proxy: {cause}"),
            Ok(None) => "path RTT at the proxy: not measured, no datagram of the board came".to_owned(),
            Err(_) => "path RTT at the proxy: its thread panicked; this is a bug in the harness".to_owned(),
        });
        notes
    }
}

fn measure(clients: &Clients, stop: &AtomicBool) -> Option<(SocketAddr, Result<RttProbe, String>)> {
    let pause = Duration::from_millis(20);
    let board = loop {
        if let Some(board) = clients.last() {
            break board;
        }
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        std::thread::sleep(pause);
    };
    let begin = Instant::now() + PROBE_AFTER;
    while Instant::now() < begin && !stop.load(Ordering::Relaxed) {
        std::thread::sleep(pause);
    }
    Some((board, probe_rtt(board.ip(), PROBES, PROBE_LIMIT).map_err(|error| error.to_string())))
}

fn tell(board: SocketAddr, probe: &RttProbe) -> String {
    let mut samples = probe.samples.clone();
    samples.sort();
    let ms = |sample: &Duration| sample.as_secs_f64() * 1e3;
    match (samples.first(), samples.get(samples.len() / 2)) {
        (Some(least), Some(median)) => format!(
            "path RTT at the proxy: {:.2} ms least, {:.2} ms median of {} to {} ({:?}); neither the link's delay nor the board's own \
             time above IP is in it",
            ms(least),
            ms(median),
            samples.len(),
            board.ip(),
            probe.method
        ),
        _ => format!("path RTT at the proxy: {} did not answer {} probes", board.ip(), probe.unanswered),
    }
}
