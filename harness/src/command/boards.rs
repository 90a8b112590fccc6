//! `harness boards`: which ESP32-C3 boards are there, who has them, and how reliable they are.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::json;

use super::interrupt::undo_when_interrupted;
use super::tethered::{Which, failure, note};
use super::{Exit, Failure, Format, print, talk};
use crate::board::esp32c3::choose::{self, Chosen, candidates, id, quarantine};
use crate::board::esp32c3::discover::{Found, Roots, Scan, kind};
use crate::board::esp32c3::flash::{Loader, Options, probe};
use crate::board::esp32c3::history::{Archive, What};
use crate::board::esp32c3::map::{HELP, Map};
use crate::board::esp32c3::{Fault, Faults, Lock, TetheredMachine};
use crate::board::{self, Board};

/// Arguments of `harness boards`.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Arguments {
    #[command(flatten)]
    which: Which,
    /// Ask each free chip what it is, which restarts it.
    #[arg(long, conflicts_with = "verify")]
    probe: bool,
    /// Try each free board, or the one named: start it three times and talk to it. Passing lifts a quarantine that its
    /// history put on it.
    #[arg(long)]
    verify: bool,
}

/// Starts of a board that is tried.
const STARTS: usize = 3;
/// Pings after each start.
const PINGS: usize = 20;

/// Lists the boards.
pub fn run(arguments: &Arguments, format: Format) -> Result<Exit, Failure> {
    undo_when_interrupted()?;
    let (map, archive) = (arguments.which.map()?, Archive::of_user());
    let mut scan = candidates(&Roots::default(), &map);
    let wish = arguments.which.wish();
    let named = choose::named(&wish, &scan, &map).map_err(failure)?;
    let named = match named {
        Some(found) => {
            scan = Scan { boards: vec![found], others: Vec::new() };
            Named::One
        }
        None => Named::None,
    };
    let mut exit = Exit::Passed;
    if arguments.probe || arguments.verify {
        exit = examine(arguments, &mut scan, &map, named);
    }
    if scan.boards.is_empty() && (arguments.probe || arguments.verify) {
        return Err(failure(Fault::None { others: scan.others }));
    }
    let rows: Vec<Row> = scan.boards.iter().map(|found| Row::of(found, &map, &archive)).collect();
    print(&match format {
        Format::Human => human(&rows, &scan),
        Format::Json => {
            let boards: Vec<_> = rows.iter().map(Row::json).collect();
            let others: Vec<_> = scan.others.iter().map(|port| port.display().to_string()).collect();
            format!("{:#}\n", json!({ "boards": boards, "other_ports": others }))
        }
    });
    Ok(exit)
}

/// Whether a board was named.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Named {
    None,
    One,
}

/// Probes or verifies every board that is free, or the one that was named.
fn examine(arguments: &Arguments, scan: &mut Scan, map: &Map, named: Named) -> Exit {
    let mut exit = Exit::Passed;
    for found in &mut scan.boards {
        let outcome = match take(found, map) {
            // It is at work, which is what it is there for; the list tells who has it.
            Err(Fault::Locked { .. }) if named == Named::None => Ok(()),
            Err(fault) => Err(fault.told()),
            Ok(chosen) if arguments.verify => verify(&chosen),
            Ok(chosen) => ask(&chosen, found),
        };
        if let Err(why) = outcome {
            talk(&format!("{}: {why}", found.port.display()));
            exit = Exit::Environment;
        }
    }
    exit
}

fn take(found: &Found, map: &Map) -> Result<Chosen, Fault> {
    let wish = choose::Wish { port: Some(found.port.clone()), ..choose::Wish::default() };
    choose::choose(&wish, &Roots::default(), map, &Archive::of_user())
}

fn ask(chosen: &Chosen, found: &mut Found) -> Result<(), String> {
    let product = chosen.found.usb.as_ref().map(|usb| usb.product);
    let options = Options {
        loader: Loader::Rom,
        limit: Duration::from_secs(30),
        means: chosen.means(),
        ..Options::default()
    };
    let info = probe(&chosen.found.port, product, &options).map_err(|fault| fault.told())?;
    found.mac = found.mac.or(info.mac);
    let asked = || What::Probe { chip: info.name(), flash: info.flash.clone() };
    // Behind a bridge the board is known by its port until it is asked, and by its address from the map.
    let (before, after) = (chosen.id(), id(found, Some(&chosen.entry)));
    note(&before, asked(), None);
    if after != before {
        note(&after, asked(), None);
    }
    Ok(())
}

/// Starts the board again and again and talks to it.
fn verify(chosen: &Chosen) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let faults = Faults::default();
    let outcome = runtime.map_err(|error| error.to_string())?.block_on(tries(chosen, &faults));
    let fault = faults.take();
    // A board that cannot be tried, for another program has its port or its firmware is not ours, neither passed nor failed.
    if outcome.is_ok() || fault.is_some() {
        note(&chosen.id(), What::Verify, fault.filter(|_| outcome.is_err()));
    }
    if outcome.is_ok() && chosen.entry.quarantine.is_some() {
        talk(&format!(
            "{} passed; its quarantine stands in the hardware map until you take it out",
            chosen.id()
        ));
    }
    outcome
}

async fn tries(chosen: &Chosen, faults: &Faults) -> Result<(), String> {
    let machine = TetheredMachine::new(chosen).with_faults(faults.clone()).with_listener(
        std::sync::Arc::new(|attempt| {
            talk(&format!("recovery: {attempt}"));
        }),
    );
    let options = board::Options {
        boot_limit: crate::board::esp32c3::Limits::default().ladder(),
        ..board::Options::default()
    };
    let mut board = Board::start(machine, options).await.map_err(|error| error.told())?;
    for start in 1..=STARTS {
        let talked = async {
            board.synchronise(PINGS).await?;
            if start < STARTS { board.reset().await } else { Ok(()) }
        };
        talked.await.map_err(|error| format!("at start {start} of {STARTS}: {}", error.told()))?;
    }
    board.kill().await;
    Ok(())
}

/// One board in the list.
struct Row {
    name: Option<String>,
    port: String,
    mac: Option<String>,
    usb: Option<String>,
    kind: String,
    chip: Option<(String, String)>,
    holder: Option<String>,
    quarantine: Option<String>,
    runs: (usize, usize),
}

impl Row {
    fn of(found: &Found, map: &Map, archive: &Archive) -> Self {
        let entry = map.entry(found.mac, &found.port);
        let id = id(found, entry);
        let history = archive.read(&id);
        Self {
            name: entry.and_then(|entry| entry.name.clone()),
            port: found.port.display().to_string(),
            mac: found.mac.map(|mac| mac.to_string()),
            usb: found.usb.as_ref().map(|usb| usb.path.clone()),
            kind: found.usb.as_ref().map_or("named port", kind).to_owned(),
            chip: history.chip().map(|(chip, flash)| (chip.to_owned(), flash.to_owned())),
            holder: Lock::holder(&id),
            quarantine: quarantine(found, map, archive),
            runs: history.runs(),
        }
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "name": self.name, "port": self.port, "mac": self.mac, "usb_path": self.usb, "kind": self.kind,
            "chip": self.chip.as_ref().map(|(chip, _)| chip), "flash": self.chip.as_ref().map(|(_, flash)| flash),
            "in_use_by": self.holder, "quarantine": self.quarantine,
            "runs": { "without_fault": self.runs.0, "all": self.runs.1 },
        })
    }
}

fn human(rows: &[Row], scan: &Scan) -> String {
    if rows.is_empty() {
        let fault = Fault::None { others: scan.others.clone() };
        return format!("{}\n", fault.told());
    }
    let mut text = String::new();
    for row in rows {
        let unknown = "unknown (--probe asks)";
        let _ = writeln!(
            text,
            "{}{}  {}  chip {}  {} {}",
            row.name.as_ref().map_or_else(String::new, |name| format!("{name}  ")),
            row.port,
            row.mac.as_deref().unwrap_or("MAC unknown"),
            row.chip
                .as_ref()
                .map_or_else(|| unknown.to_owned(), |(chip, flash)| format!("{chip}, {flash} flash")),
            row.kind,
            row.usb.as_ref().map_or_else(String::new, |path| format!("at USB {path}")),
        );
        if row.runs.1 > 0 {
            let _ = writeln!(text, "    {} of {} runs without a fault of the board", row.runs.0, row.runs.1);
        }
        if let Some(why) = &row.quarantine {
            let _ = writeln!(text, "    in quarantine: {why}");
        }
        if let Some(holder) = &row.holder {
            let _ = writeln!(text, "    in use by {holder}");
        }
    }
    for port in &scan.others {
        let _ = writeln!(text, "(not a board: {})", port.display());
    }
    text
}
