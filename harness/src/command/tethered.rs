//! What the commands for a tethered board have in common: which one, and how errors are told.

use std::path::PathBuf;

use super::{Failure, talk};
use crate::board::esp32c3::choose::{self, Choice, Chosen, Wish};
use crate::board::esp32c3::discover::Roots;
use crate::board::esp32c3::history::Archive;
use crate::board::esp32c3::map::Map;
use crate::board::esp32c3::{Fault, Mac};

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
    /// Whether anything here was said on the command line.
    pub fn is_said(&self) -> bool {
        self.port.is_some() || self.mac.is_some() || self.name.is_some() || self.any || self.boards.is_some()
    }

    /// The hardware map.
    pub fn map(&self) -> Result<Map, Failure> {
        Map::load(self.boards.as_deref()).map_err(failure)
    }

    /// Picks and locks the board.
    pub fn choose(&self) -> Result<Chosen, Failure> {
        let wish = Wish {
            port: self.port.clone(),
            mac: self.mac,
            name: self.name.clone(),
            choice: if self.any { Choice::AnyFree } else { Choice::Ask },
        };
        choose::choose(&wish, &Roots::default(), &self.map()?, &Archive::of_user()).map_err(failure)
    }
}

/// A fault as the command line tells it: a wrong file or name is a slip of the user, the rest is the environment's.
pub fn failure(fault: Fault) -> Failure {
    match fault {
        Fault::WrongElf { .. } | Fault::TooLarge { .. } | Fault::Map { .. } | Fault::Several { .. } => {
            Failure::usage(fault)
        }
        fault => Failure::environment(fault),
    }
}

/// Notes what became of a board; what cannot be noted is told, but fails nothing.
pub fn note(id: &str, what: crate::board::esp32c3::history::What, fault: Option<String>) {
    if let Err(error) = Archive::of_user().note(id, what, fault) {
        talk(&format!("the history of {id} cannot be written: {error}"));
    }
}
