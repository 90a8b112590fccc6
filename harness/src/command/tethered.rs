//! What the commands for a tethered board have in common: which one, and how errors are told.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;

use clap::ValueEnum as _;
use device::control::PowerMode;

use super::build::build_with_talk;
use super::interrupt::undo_when_interrupted;
use super::replay::CommandLine;
use super::{Failure, prompt, talk};
use crate::board::esp32c3::choose::{self, Choice, Chosen, Wish};
use crate::board::esp32c3::discover::Roots;
use crate::board::esp32c3::flash::{self, ChipInfo};
use crate::board::esp32c3::history::{Archive, What};
use crate::board::esp32c3::image::{Image, Layout};
use crate::board::esp32c3::map::Map;
use crate::board::esp32c3::recovery::Attempt;
use crate::board::esp32c3::{Fault, Mac, wifi};
use crate::firmware::build::Firmware;
use crate::firmware::elf::Elf;
use crate::measure::adapter::{ESP32_QUIC, Rules};
use crate::measure::record::RunRecord;
use crate::run::{Impaired, Lan, Parts, Tethered};
use crate::scenario::{Action, Step};

/// Which tethered board.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Which {
    /// The board's serial port.
    #[arg(long, value_name = "PATH")]
    pub port: Option<PathBuf>,
    /// The board's MAC address, as `harness boards` prints it.
    #[arg(long)]
    pub mac: Option<Mac>,
    /// The board's name in the hardware map.
    #[arg(long, conflicts_with_all = ["port", "mac"])]
    pub name: Option<String>,
    /// Of several boards take the first that is free and not in quarantine.
    #[arg(long, conflicts_with_all = ["port", "mac", "name"])]
    pub any: bool,
    /// The hardware map; boards.toml in the working folder if there is one.
    #[arg(long, value_name = "FILE")]
    pub boards: Option<PathBuf>,
}

impl Which {
    /// The hardware map.
    pub fn map(&self) -> Result<Map, Failure> {
        Map::load(self.boards.as_deref()).map_err(failure)
    }

    /// What was asked for.
    pub fn wish(&self) -> Wish {
        Wish {
            port: self.port.clone(),
            mac: self.mac,
            name: self.name.clone(),
            choice: if self.any { Choice::AnyFree } else { Choice::Ask },
        }
    }

    /// Picks and locks the board.
    pub fn choose(&self) -> Result<Chosen, Failure> {
        choose::choose(&self.wish(), &Roots::default(), &self.map()?, &Archive::of_user()).map_err(failure)
    }
}

/// A tethered board and its network, for commands that run its firmware.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Tethered board")]
pub struct BoardArguments {
    #[command(flatten)]
    pub which: Which,
    /// The firmware to flash, an ELF; without it this project's is built.
    #[arg(long, value_name = "FILE")]
    pub firmware: Option<PathBuf>,
    /// Run what is on the board; --firmware then only names the ELF for backtraces.
    #[arg(long)]
    pub no_flash: bool,
    /// Wi-Fi credentials, a TOML file with the keys ssid and password; else HARNESS_WIFI_SSID and HARNESS_WIFI_PASSWORD,
    /// else a prompt.
    #[arg(long, value_name = "FILE")]
    pub wifi: Option<PathBuf>,
    /// How the board saves power once it has joined the network; by itself it does not.
    #[arg(long, value_enum, value_name = "MODE", conflicts_with = "adapter")]
    pub power: Option<Power>,
    /// Read a firmware that is not this project's by its log: log:RULES.toml, or log:esp32-quic for the proof of concept.
    #[arg(long, value_name = "log:RULES", value_parser = adapter)]
    pub adapter: Option<Adapter>,
    /// This machine's address in the board's network, with a port if a firewall wants a fixed one, or a firmware that is read by
    /// its log was built for another than its transport's usual one.
    #[arg(long, value_name = "ADDRESS[:PORT]", value_parser = socket_address)]
    pub listen: Option<SocketAddr>,
    /// The address the board is told, where it is not the one of --listen.
    #[arg(long, value_name = "ADDRESS")]
    pub advertise: Option<IpAddr>,
    /// A network device of this machine on the way to the board that impairs packets by itself: by netem, or a TUN device. It
    /// must be set up; the report then tells what was done to TCP's segments.
    #[arg(long, value_name = "DEVICE")]
    pub impaired_device: Option<String>,
}

/// `--adapter` as it was given, and what it means.
#[derive(Clone, Debug)]
pub struct Adapter {
    given: String,
    rules: Rules,
}

/// How a board saves power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Power {
    /// The radio listens all the time.
    None,
    /// The radio wakes for each beacon that announces group traffic.
    MinimumModemSleep,
    /// The radio wakes for every fifth beacon.
    MaximumModemSleep,
    /// Radio off and chip asleep while nothing is due; needs firmware whose console is a UART.
    LightSleep,
}

impl Power {
    /// As it is given.
    fn name(&self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn mode(self) -> PowerMode {
        match self {
            Self::None => PowerMode::None,
            Self::MinimumModemSleep => PowerMode::MinimumModemSleep,
            Self::MaximumModemSleep => PowerMode::MaximumModemSleep,
            Self::LightSleep => PowerMode::LightSleep,
        }
    }
}

impl BoardArguments {
    /// Adds them to the command that repeats a run.
    pub(super) fn spell(&self, line: &mut CommandLine) {
        let which = &self.which;
        line.path("port", which.port.as_deref());
        line.option("mac", which.mac.as_ref());
        line.option("name", which.name.as_ref());
        line.flag("any", which.any);
        line.path("boards", which.boards.as_deref());
        line.path("firmware", self.firmware.as_deref());
        line.flag("no-flash", self.no_flash);
        line.path("wifi", self.wifi.as_deref());
        line.option("adapter", self.adapter.as_ref().map(|adapter| &adapter.given));
        line.option("power", self.power.as_ref().map(Power::name));
        line.option("listen", self.listen);
        line.option("advertise", self.advertise);
        line.option("impaired-device", self.impaired_device.as_ref());
    }

    /// The same for a board that reaches its broker by itself, without a link.
    ///
    /// # Errors
    /// If an option was given that has no effect there.
    pub fn without_link(&self) -> Result<Self, Failure> {
        let given = [
            ("--adapter", self.adapter.is_some()),
            ("--listen", self.listen.is_some()),
            ("--advertise", self.advertise.is_some()),
            ("--impaired-device", self.impaired_device.is_some()),
        ];
        if let Some((option, _)) = given.iter().find(|(_, given)| *given) {
            return Err(Failure::usage(miette::miette!(
                help = "leave it out; `harness scenario --board esp32c3` has a link, and knows it",
                "{option} has no effect here: the board connects to the broker by itself"
            )));
        }
        // Nothing will listen there, and a machine without a route has no address to find.
        let nowhere = Ipv4Addr::LOCALHOST.into();
        Ok(Self { listen: Some(SocketAddr::new(nowhere, 0)), ..self.clone() })
    }

    /// Picks, locks and flashes the board, and finds its network.
    pub fn prepare(&self) -> Result<Tethered, Failure> {
        // What needs no board first: a slip shows at once.
        let wifi = match &self.adapter {
            // Such a firmware brings its own.
            Some(_) => None,
            None => Some(wifi::credentials(self.wifi.as_deref(), prompt::wifi).map_err(failure)?),
        };
        if self.adapter.is_some() && self.firmware.is_none() && !self.no_flash {
            return Err(Failure::usage(miette::miette!(
                help = "name its ELF or image, or say --no-flash if the board has it already",
                "--adapter needs --firmware FILE: this project's firmware needs no adapter"
            )));
        }
        let lan = match self.listen {
            Some(listen) => Lan { listen, advertise: self.advertise },
            None => Lan { advertise: self.advertise, ..Lan::by_route().map_err(failure)? },
        };
        check_lan(&lan)?;
        let impaired = self.impaired_device.as_deref().map(Impaired::find).transpose().map_err(failure)?;
        let (elf, chosen, chip) = self.flash()?;
        let listener = Arc::new(|attempt: &Attempt| talk(&format!("recovery: {attempt}")));
        let adapter = self.adapter.as_ref().map(|adapter| adapter.rules.clone());
        Ok(Tethered::new(Parts {
            chosen,
            elf,
            wifi,
            power: self.power.map(Power::mode),
            lan,
            impaired,
            chip,
            adapter,
            listener,
            teller: Arc::new(talk),
        }))
    }

    /// Picks and locks the board and writes the firmware, if it is not there already.
    pub fn flash(&self) -> Result<(Option<Elf>, Chosen, Option<ChipInfo>), Failure> {
        undo_when_interrupted()?;
        let open = |path: &std::path::Path| {
            let wrong = |cause: String| failure(Fault::WrongElf { path: path.into(), cause });
            Elf::open(path).map_err(|error| wrong(error.to_string()))
        };
        if self.no_flash {
            let elf = self.firmware.as_deref().map(open).transpose()?;
            return Ok((elf, self.which.choose()?, None));
        }
        let path = match &self.firmware {
            Some(path) => path.clone(),
            None => build_with_talk(Firmware::Esp32c3)?,
        };
        let image = Image::open(&path, &Layout::default()).map_err(failure)?;
        let chosen = self.which.choose()?;
        let options = flash::Options { means: chosen.means(), ..flash::Options::default() };
        let flashed = super::flash::write(&chosen, &image, &options)?;
        // A ready image has no symbols.
        Ok((Elf::open(&path).ok(), chosen, Some(flashed.chip)))
    }
}

/// That the proxy can listen there, and the board be told of it: before anything is flashed.
fn check_lan(lan: &Lan) -> Result<(), Failure> {
    let address = lan.listen.ip();
    if address.is_unspecified() && lan.advertise.is_none() {
        return Err(Failure::usage(miette::miette!(
            help = "add --advertise ADDRESS, that of this machine in the board's network",
            "--listen {address} is no address that the board can be told"
        )));
    }
    // The port is the trial's to take.
    match UdpSocket::bind((address, 0)) {
        Ok(_) => Ok(()),
        Err(error) => Err(failure(Fault::NoAddress { cause: format!("{address}: {error}") })),
    }
}

/// Notes a run in the board's history: what the board failed at counts against it, a failed expectation does not, nor what it
/// was told to fail at.
pub fn note_run(board: &Tethered, record: &RunRecord, steps: &[Step]) {
    let passed = record.ending.is_completed();
    let told = steps.iter().any(|step| matches!(step.action, Action::CrashBoard(_)));
    let fault = board.take_fault().filter(|_| !told);
    note(&board.id(), What::Run { scenario: record.scenario.name.clone(), passed }, fault);
}

fn adapter(text: &str) -> Result<Adapter, String> {
    let rules = match text.strip_prefix("log:") {
        None => return Err(format!("`{text}` is no adapter; there is log:RULES.toml")),
        Some("esp32-quic") => Rules::parse(ESP32_QUIC),
        Some(path) => Rules::load(std::path::Path::new(path)),
    };
    Ok(Adapter { given: text.to_owned(), rules: rules.map_err(|error| error.to_string())? })
}

fn socket_address(text: &str) -> Result<SocketAddr, String> {
    let wrong = || format!("`{text}` is neither an IP address nor one with a port");
    text.parse()
        .or_else(|_| text.parse().map(|address: IpAddr| SocketAddr::new(address, 0)))
        .map_err(|_| wrong())
}

/// A fault as the command line tells it: a wrong file or name is a slip of the user, the rest is the environment's.
pub fn failure(fault: Fault) -> Failure {
    match fault {
        Fault::WrongElf { .. }
        | Fault::TooLarge { .. }
        | Fault::ApplicationAlone { .. }
        | Fault::Map { .. }
        | Fault::NotSerial { .. }
        | Fault::Several { .. }
        | Fault::Credentials { .. }
        | Fault::NoCredentials => Failure::usage(fault),
        fault => Failure::environment(fault),
    }
}

/// Notes what became of a board; what cannot be noted is told, but fails nothing.
pub fn note(id: &str, what: What, fault: Option<String>) {
    if let Err(error) = Archive::of_user().note(id, what, fault) {
        talk(&format!("the history of {id} cannot be written: {error}"));
    }
}
