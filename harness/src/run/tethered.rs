//! A tethered board in a run: its start, and its network. The board is on a real one, so its datagrams come to a proxy on
//! this machine, where they go through the link's model; nothing of the network itself is impaired.

use std::fmt;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use device::control::{Addressing, PowerMode, Wifi};

use super::impaired::Impaired;
use super::path::Path;
use super::settings::Destination;
use super::setup::TrialError;
use crate::board::esp32c3::choose::Chosen;
use crate::board::esp32c3::flash::ChipInfo;
use crate::board::esp32c3::recovery::Attempt;
use crate::board::esp32c3::wifi::Lost;
use crate::board::esp32c3::{Fault, Faults, Limits, TetheredMachine};
use crate::board::{Board, BoardError, Options};
use crate::broker::{Broker, default_port};
use crate::energy::{
    self,
    estimate::{Account, Currents},
};
use crate::firmware::elf::Elf;
use crate::link::{LinkHandle, Setup, SetupError, StreamProxy, UdpProxy};
use crate::measure::adapter::Rules;
use crate::measure::record::{self, Blame, Timing, Transport, Trial};

/// Clock of the ESP32-C3.
const CLOCK_HZ: u64 = 160_000_000;

/// A board on a cable, ready to be started as often as there are trials. Its lock is held while this lives.
#[derive(Clone)]
pub struct Tethered(Arc<Inner>);

struct Inner {
    chosen: Chosen,
    elf: Option<Arc<Elf>>,
    wifi: Option<Wifi>,
    power: Option<PowerMode>,
    lan: Lan,
    impaired: Option<Impaired>,
    chip: Option<ChipInfo>,
    adapter: Option<Rules>,
    limits: Limits,
    faults: Faults,
    listener: Arc<dyn Fn(&Attempt) + Send + Sync>,
    teller: Arc<dyn Fn(&str) + Send + Sync>,
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
    /// What impairs its network beside the link.
    pub impaired: Option<Impaired>,
    /// What the chip told when it was flashed.
    pub chip: Option<ChipInfo>,
    /// How a firmware that is not ours is read by its log.
    pub adapter: Option<Rules>,
    /// Who hears about recoveries.
    pub listener: Arc<dyn Fn(&Attempt) + Send + Sync>,
    /// Who hears what a person has to know while a trial runs.
    pub teller: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Tethered {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        let Parts { chosen, elf, wifi, power, lan, impaired, chip, adapter, listener, teller } = parts;
        let (elf, limits, faults) = (elf.map(Arc::new), Limits::default(), Faults::default());
        Self(Arc::new(Inner {
            chosen,
            elf,
            wifi,
            power,
            lan,
            impaired,
            chip,
            adapter,
            limits,
            faults,
            listener,
            teller,
        }))
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

    /// The ELF of its firmware, if it is known.
    pub fn elf(&self) -> Option<&Elf> {
        self.0.elf.as_deref()
    }

    /// The rules for a firmware that is not ours.
    pub fn adapter(&self) -> Option<&Rules> {
        self.0.adapter.as_ref()
    }

    /// Tells whoever runs this.
    pub fn say(&self, text: &str) {
        (self.0.teller)(text);
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
        let Lan { mut listen, advertise } = self.0.lan;
        if self.adapter().is_some() && listen.port() == 0 {
            // Its firmware was built for one address: a port that the system draws is not in it.
            listen.set_port(default_port(transport));
        }
        let started = if transport == Transport::Quic {
            UdpProxy { setup, listen, server }.start_observed()
        } else {
            StreamProxy { setup, listen, server }.start_observed()
        };
        let (link, address, clients) = started.map_err(|error| fail(&cannot_listen(&error, listen)))?;
        let label = label(transport, self.0.impaired.as_ref());
        let path = Path::measured(clients, label.into_iter().collect());
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

/// What a report has to say of the path that `transport` takes, beginning as whatever it shows beside a comparison does.
fn label(transport: Transport, impaired: Option<&Impaired>) -> Option<String> {
    const NOT_CROSSING: &str = "Neither TCP's handshake nor its bare acknowledgements cross the link: time, bytes and packets to \
                                CONNACK are lower than without, and the connection's own round trips are not counted";
    Some(match (transport, impaired) {
        (Transport::Quic, None) => return None,
        (Transport::Quic, Some(impaired)) => {
            format!("device over {transport}: besides the link, {impaired}")
        }
        (_, None) => format!(
            "device over {transport}: delay and stall only. A stream proxy carries it, which can drop no segment: the scenario's losses are not \
             applied, and what the board's network itself loses is not the scenario's. {NOT_CROSSING}. For TCP under real loss use \
             --board host or qemu, or impair the board's network and name the device (--impaired-device)"
        ),
        (_, Some(impaired)) => format!(
            "device over {transport}: the scenario's delays, rates and blackouts by a stream proxy, its losses not at all; instead {impaired}, \
             where segments are lost and sent again by TCP's own rules. {NOT_CROSSING}"
        ),
    })
}

/// Why the proxy does not listen, with what to do about it.
fn cannot_listen(error: &SetupError, listen: SocketAddr) -> String {
    let remedy = match error {
        SetupError::Socket { source, .. } if source.kind() == ErrorKind::AddrInUse => format!(
            "end what listens on port {} (`ss -lnp` names it), or name another with --listen {}:PORT",
            listen.port(),
            listen.ip()
        ),
        SetupError::Socket { source, .. } if source.kind() == ErrorKind::AddrNotAvailable => {
            "name an address of this machine with --listen; `ip address` lists them".to_owned()
        }
        _ => "see `harness doctor`".to_owned(),
    };
    format!("{error}\n  remedy: {remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_label_of_a_stream_proxy_tells_of_losses_only_where_there_are_some() {
        let netem = Impaired::Netem { device: "wlan0".into(), settings: "delay 25ms loss 3%".into() };
        assert_eq!(label(Transport::Quic, None), None);
        for transport in [Transport::Tls, Transport::Tcp] {
            let plain = label(transport, None).expect("a label");
            assert!(plain.starts_with(&format!("device over {transport}: delay and stall only.")), "{plain}");
            let impaired = label(transport, Some(&netem)).expect("a label");
            assert!(!impaired.contains("delay and stall only"), "{impaired}");
            assert!(impaired.contains("netem on wlan0 (delay 25ms loss 3%)"), "{impaired}");
        }
        let quic = label(Transport::Quic, Some(&netem)).expect("it is impaired twice");
        assert!(quic.starts_with("device over quic: besides the link, netem on wlan0"), "{quic}");
    }
}
