//! Which board: named, or the only one that is free.

use std::path::PathBuf;

use super::Fault;
use super::discover::{Found, Roots, Scan, scan};
use super::history::Archive;
use super::lock::Lock;
use super::mac::Mac;
use super::map::{Entry, Map, same_port};
use super::port::USB_SERIAL_JTAG;
use super::recovery::Means;

/// How a board is named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// By its port.
    pub port: Option<PathBuf>,
    /// By its chip's address.
    pub mac: Option<Mac>,
    /// By its name in the hardware map.
    pub name: Option<String>,
    /// What to do where several would do.
    pub choice: Choice,
}

/// What to do where several boards would do and none is named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Ask for a name: at a desk, the wrong board is worse than none.
    #[default]
    Ask,
    /// Take the first that is free: on a bench, any will do.
    AnyFree,
}

/// A board that may be used by this process alone.
#[derive(Debug)]
pub struct Chosen {
    /// The port and its USB device.
    pub found: Found,
    /// What the hardware map knows of it.
    pub entry: Entry,
    /// Its lock.
    pub lock: Lock,
}

impl Chosen {
    /// What names it in locks and histories: its address, else its port.
    pub fn id(&self) -> String {
        id(&self.found, Some(&self.entry))
    }

    /// What the recovery ladder may use.
    pub fn means(&self) -> Means {
        let usb = self.found.usb.as_ref();
        // A bridge's serial number is the bridge's, and often the same for all of a kind.
        let own = usb.filter(|usb| usb.product == USB_SERIAL_JTAG);
        Means {
            usb_device: usb.map(|usb| usb.device.clone()),
            power_cycle: self.entry.power_cycle.clone(),
            mac: own.and_then(|usb| usb.serial.as_deref()?.parse().ok()),
        }
    }
}

/// What names a board in locks and histories.
pub fn id(found: &Found, entry: Option<&Entry>) -> String {
    let mac = found.mac.or(entry.and_then(|entry| entry.mac));
    let port = || found.port.canonicalize().unwrap_or_else(|_| found.port.clone()).display().to_string();
    mac.map_or_else(port, |mac| mac.to_string())
}

/// Everything plugged in, and the ports that the map names besides.
pub fn candidates(roots: &Roots, map: &Map) -> Scan {
    let mut scan = scan(roots);
    for entry in &map.board {
        let Some(port) = &entry.port else { continue };
        let known = scan.boards.iter().any(|found| same_port(&found.port, port));
        if !known && port.exists() {
            scan.others.retain(|other| !same_port(other, port));
            scan.boards.push(Found { port: port.clone(), usb: None, mac: entry.mac });
        }
    }
    for found in &mut scan.boards {
        found.mac = found.mac.or(map.entry(None, &found.port).and_then(|entry| entry.mac));
    }
    scan
}

/// Picks and locks a board.
///
/// # Errors
/// The [`Fault`] that names why none, or more than one, would do.
pub fn choose(wish: &Wish, roots: &Roots, map: &Map, archive: &Archive) -> Result<Chosen, Fault> {
    let scan = candidates(roots, map);
    if let Some(named) = named(wish, &scan, map)? {
        return take(named, map);
    }
    let describe = |found: &Found| describe(found, map, archive);
    match &scan.boards[..] {
        [] => Err(Fault::None { others: scan.others }),
        [only] => {
            if let Some(why) = quarantine(only, map, archive) {
                return Err(Fault::Quarantined { board: id(only, map.entry(only.mac, &only.port)), why });
            }
            take(only.clone(), map)
        }
        several if wish.choice == Choice::Ask => {
            Err(Fault::Several { boards: several.iter().map(describe).collect() })
        }
        several => {
            for found in several.iter().filter(|found| quarantine(found, map, archive).is_none()) {
                match take(found.clone(), map) {
                    Err(Fault::Locked { .. }) => {}
                    // Where locks cannot be made, none of the others' can.
                    taken => return taken,
                }
            }
            Err(Fault::NoneFree { boards: several.iter().map(describe).collect() })
        }
    }
}

/// The board that `wish` names, if it names one; it is not locked.
///
/// # Errors
/// [`Fault::Absent`] or [`Fault::NoPort`].
pub fn named(wish: &Wish, scan: &Scan, map: &Map) -> Result<Option<Found>, Fault> {
    let absent = |wanted: String| Fault::Absent {
        wanted,
        found: scan.boards.iter().map(|found| id(found, map.entry(found.mac, &found.port))).collect(),
    };
    let by_mac = |mac: Mac| scan.boards.iter().find(|found| found.mac == Some(mac)).cloned();
    if let Some(name) = &wish.name {
        let entry = map.board.iter().find(|entry| entry.name.as_ref() == Some(name));
        let entry = entry.ok_or_else(|| absent(format!("`{name}` (no such name in boards.toml)")))?;
        let at_port = || {
            let port = entry.port.as_ref()?;
            scan.boards.iter().find(|found| same_port(&found.port, port)).cloned()
        };
        let found = entry.mac.and_then(by_mac).or_else(at_port);
        return found.map(Some).ok_or_else(|| absent(format!("`{name}`")));
    }
    if let Some(mac) = wish.mac {
        return by_mac(mac).map(Some).ok_or_else(|| absent(mac.to_string()));
    }
    let Some(port) = &wish.port else { return Ok(None) };
    if !port.exists() {
        return Err(Fault::NoPort { port: port.clone() });
    }
    let canonical = port.canonicalize().unwrap_or_else(|_| port.clone());
    let known =
        scan.boards.iter().find(|found| found.port.canonicalize().is_ok_and(|path| path == canonical));
    let mac = map.entry(None, port).and_then(|entry| entry.mac);
    Ok(Some(known.cloned().unwrap_or(Found { port: port.clone(), usb: None, mac })))
}

fn take(found: Found, map: &Map) -> Result<Chosen, Fault> {
    let entry = map.entry(found.mac, &found.port).cloned().unwrap_or_default();
    let lock = Lock::take(&id(&found, Some(&entry)))?;
    Ok(Chosen { found, entry, lock })
}

/// Why a board is not picked by itself: the map's word, or its history's.
pub fn quarantine(found: &Found, map: &Map, archive: &Archive) -> Option<String> {
    let entry = map.entry(found.mac, &found.port);
    let by_map = entry.and_then(|entry| entry.quarantine.clone());
    by_map.or_else(|| archive.read(&id(found, entry)).quarantine())
}

/// A board in one line.
pub fn describe(found: &Found, map: &Map, archive: &Archive) -> String {
    let entry = map.entry(found.mac, &found.port);
    let mut words = vec![found.port.display().to_string()];
    words.extend(entry.and_then(|entry| entry.name.clone()));
    words.extend(found.mac.map(|mac| mac.to_string()));
    words.extend(found.usb.as_ref().map(|usb| format!("USB {}", usb.path)));
    if let Some(why) = quarantine(found, map, archive) {
        words.push(format!("in quarantine: {why}"));
    }
    if let Some(holder) = Lock::holder(&id(found, entry)) {
        words.push(format!("in use by {holder}"));
    }
    words.join("  ")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::super::discover::tests::plug;
    use super::*;

    fn bench() -> (tempfile::TempDir, Roots, Archive) {
        // Locks are the machine's: no two benches, of this process or another, may have a board in common.
        static BENCHES: AtomicU8 = AtomicU8::new(0);
        let [.., high, low] = std::process::id().to_be_bytes();
        let bench = BENCHES.fetch_add(1, Ordering::Relaxed);
        let root = tempfile::tempdir().unwrap();
        let serial = |n: u8| format!("02:4D:{high:02X}:{low:02X}:{bench:02X}:{n:02X}");
        let roots = plug(root.path(), "ttyACM0", "1-1.1", ("303a", "1001"), &serial(1));
        plug(root.path(), "ttyACM1", "1-1.2", ("303a", "1001"), &serial(2));
        let archive = Archive::at(&root.path().join("history"));
        (root, roots, archive)
    }

    #[test]
    fn no_board_is_a_fault_with_a_remedy() {
        let nowhere = Roots { class: "/no/such".into(), dev: "/no/such".into() };
        let archive = Archive::at(std::path::Path::new("/no/such"));
        let fault = choose(&Wish::default(), &nowhere, &Map::default(), &archive).unwrap_err();
        assert!(matches!(fault, Fault::None { .. }) && !fault.remedy().is_empty(), "{fault}");
    }

    #[test]
    fn several_boards_and_none_named_is_a_fault_that_lists_them() {
        let (_root, roots, archive) = bench();
        let fault = choose(&Wish::default(), &roots, &Map::default(), &archive).unwrap_err();
        let text = fault.to_string();
        assert!(matches!(fault, Fault::Several { .. }), "{text}");
        assert!(text.contains("ttyACM0") && text.contains("ttyACM1") && text.contains("USB 1-1.2"), "{text}");
    }

    #[test]
    fn on_a_bench_the_first_free_board_is_taken_and_then_the_next() {
        let (_root, roots, archive) = bench();
        let wish = Wish { choice: Choice::AnyFree, ..Wish::default() };
        let pick = || choose(&wish, &roots, &Map::default(), &archive);
        let first = pick().unwrap();
        let second = pick().unwrap();
        assert_ne!(first.found.port, second.found.port);
        let fault = pick().unwrap_err();
        assert!(
            matches!(fault, Fault::NoneFree { .. }) && fault.to_string().contains("in use by process"),
            "{fault}"
        );
        drop(first);
        assert!(pick().is_ok());
    }

    #[test]
    fn a_board_in_quarantine_is_passed_over_but_can_be_named() {
        let (_root, roots, archive) = bench();
        let scan = candidates(&roots, &Map::default());
        let mac = scan.boards[0].mac.unwrap();
        let map = Map::parse(&format!("[[board]]\nmac = '{mac}'\nname = 'bad'\nquarantine = 'a loose pin'"))
            .unwrap();
        let wish = Wish { choice: Choice::AnyFree, ..Wish::default() };
        let picked = choose(&wish, &roots, &map, &archive).unwrap();
        assert_ne!(picked.found.mac, Some(mac));
        let named = Wish { name: Some("bad".into()), ..Wish::default() };
        assert_eq!(choose(&named, &roots, &map, &archive).unwrap().found.mac, Some(mac));
    }

    #[test]
    fn a_board_is_found_by_the_name_of_a_link_to_its_port() {
        let (root, ..) = bench();
        let roots = plug(root.path(), "ttyUSB0", "1-1.3", ("10c4", "ea60"), "0001");
        let link = root.path().join("by-path");
        std::os::unix::fs::symlink(roots.dev.join("ttyUSB0"), &link).unwrap();
        let map = Map::parse(&format!("[[board]]\nport = '{}'\nname = 'desk-1'", link.display())).unwrap();
        let wish = Wish { name: Some("desk-1".into()), ..Wish::default() };
        let found = named(&wish, &candidates(&roots, &map), &map).unwrap().unwrap();
        assert_eq!(found.port, roots.dev.join("ttyUSB0"));
    }

    #[test]
    fn a_board_that_is_not_there_is_named_with_those_that_are() {
        let (_root, roots, archive) = bench();
        let wish = Wish { mac: Some(Mac([2; 6])), ..Wish::default() };
        let fault = choose(&wish, &roots, &Map::default(), &archive).unwrap_err();
        assert!(matches!(&fault, Fault::Absent { found, .. } if found.len() == 2), "{fault}");
    }
}
