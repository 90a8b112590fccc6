//! The hardware map `boards.toml`: what the boards of a bench are called, how their power is cycled, and which are not
//! to be used.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Fault;
use super::mac::Mac;

/// The file that is read when none is named.
const FILE: &str = "boards.toml";

/// The keys, as `harness boards --help` shows them.
pub const HELP: &str = "\
boards.toml, the hardware map (in the working folder, or named by --boards or HARNESS_BOARDS):

  [[board]]
  mac = \"7c:df:a1:00:00:01\"      # the chip's address, printed by `harness boards`; or port, or both
  port = \"/dev/serial/by-path/…\" # where the address is not known without asking the chip (a bridge)
  name = \"desk-1\"                # for --name
  power-cycle = [\"uhubctl\", \"-l\", \"1-1\", \"-p\", \"2\", \"-a\", \"cycle\"]  # program and arguments, no shell
  quarantine = \"does not boot one time in ten\"  # why it is not picked by itself";

/// The boards of a bench.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Map {
    /// Each board.
    #[serde(default)]
    pub board: Vec<Entry>,
}

/// What is known of one board.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Entry {
    /// The chip's address.
    pub mac: Option<Mac>,
    /// Its port, where that stays the same.
    pub port: Option<PathBuf>,
    /// What it is called.
    pub name: Option<String>,
    /// Program and arguments that take its power away and give it back.
    pub power_cycle: Option<Vec<String>>,
    /// Why it is not to be used.
    pub quarantine: Option<String>,
}

impl Map {
    /// Reads the map that `named` or `HARNESS_BOARDS` names, or `boards.toml` in the working folder if there is one.
    ///
    /// # Errors
    /// [`Fault::Map`] with the line that is wrong, or if a file that was named cannot be read.
    pub fn load(named: Option<&Path>) -> Result<Self, Fault> {
        let named = named.map(Path::to_path_buf).or_else(|| of_environment("HARNESS_BOARDS"));
        match named {
            Some(path) => Self::read(&path),
            None if Path::new(FILE).exists() => Self::read(Path::new(FILE)),
            None => Ok(Self::default()),
        }
    }

    fn read(path: &Path) -> Result<Self, Fault> {
        let fail = |cause: String| Fault::Map { path: path.into(), cause };
        let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
        Self::parse(&text).map_err(fail)
    }

    /// Reads the map's text.
    ///
    /// # Errors
    /// What is wrong, with its line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let map: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        for (number, entry) in map.board.iter().enumerate() {
            let which = || entry.name.clone().unwrap_or_else(|| format!("number {}", number + 1));
            if entry.mac.is_none() && entry.port.is_none() {
                return Err(format!("board {} has neither mac nor port", which()));
            }
            if entry.power_cycle.as_ref().is_some_and(Vec::is_empty) {
                return Err(format!("the power-cycle command of board {} is empty", which()));
            }
            let earlier = &map.board[..number];
            let twice = |other: &Entry| {
                (entry.mac.is_some() && other.mac == entry.mac)
                    || (entry.name.is_some() && other.name == entry.name)
                    || matches!((&entry.port, &other.port), (Some(a), Some(b)) if same_port(a, b))
            };
            if earlier.iter().any(twice) {
                return Err(format!("board {} is there twice", which()));
            }
        }
        Ok(map)
    }

    /// What is known of the board with that address, or at that port.
    pub fn entry(&self, mac: Option<Mac>, port: &Path) -> Option<&Entry> {
        self.board.iter().find(|entry| mac.is_some() && entry.mac == mac).or_else(|| {
            self.board.iter().find(|entry| entry.port.as_deref().is_some_and(|own| same_port(own, port)))
        })
    }
}

/// Whether `a` and `b` are one port, as a link of udev's and what it leads to are.
pub(super) fn same_port(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// A path in the environment; an empty one is none, as a CI system passes a variable that is not set.
fn of_environment(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_is_a_map() {
        let example: String = HELP.lines().skip(2).collect::<Vec<_>>().join("\n");
        let map = Map::parse(&example).unwrap();
        assert_eq!(map.board[0].name.as_deref(), Some("desk-1"));
        assert_eq!(map.board[0].power_cycle.as_ref().map(Vec::len), Some(7));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("[[board]]\nname = 'a'", "neither mac nor port"),
            ("[[board]]\nmac = 'zz'", "no MAC address"),
            ("[[board]]\nport = '/dev/x'\npower = 'y'", "power"),
            ("[[board]]\nport = '/dev/x'\npower-cycle = []", "empty"),
            ("[[board]]\nport='/a'\nname='x'\n[[board]]\nport='/b'\nname='x'", "twice"),
            ("[[board]]\nport='/a'\nname='x'\n[[board]]\nport='/a'\nname='y'", "board y is there twice"),
            ("[[board]]\nport='/dev/fd'\n[[board]]\nport='/proc/self/fd'", "number 2 is there twice"),
        ] {
            let error = Map::parse(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_board_is_found_by_address_before_port() {
        let text = "[[board]]\nport='/dev/a'\nname='p'\n[[board]]\nmac='7c:df:a1:00:00:01'\nname='m'";
        let map = Map::parse(text).unwrap();
        let name = |mac: Option<&str>, port: &str| {
            let mac = mac.map(|mac| mac.parse().unwrap());
            map.entry(mac, Path::new(port)).and_then(|entry| entry.name.clone())
        };
        assert_eq!(name(Some("7c:df:a1:00:00:01"), "/dev/a").as_deref(), Some("m"));
        assert_eq!(name(None, "/dev/a").as_deref(), Some("p"));
        assert_eq!(name(None, "/dev/b"), None);
    }
}
