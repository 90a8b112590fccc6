//! A network device between proxy and board that impairs packets by itself: what a stream proxy cannot do to TCP's segments is
//! done there, by the kernel (netem) or by the program behind a TUN device.

use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::board::esp32c3::Fault;

/// Such a device. The harness looks at it and sets nothing up: that takes root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Impaired {
    /// It has netem as a queueing discipline.
    Netem {
        /// Its name.
        device: String,
        /// What netem does, in the words of `tc`.
        settings: String,
    },
    /// It is a TUN or TAP device: its program has its own mind.
    Tun {
        /// Its name.
        device: String,
    },
}

impl Impaired {
    /// Looks at `device`.
    ///
    /// # Errors
    /// [`Fault::Unimpaired`] if it is not there, or passes packets as they are.
    pub fn find(device: &str) -> Result<Self, Fault> {
        Self::find_in(Path::new("/sys/class/net"), device)
    }

    fn find_in(devices: &Path, device: &str) -> Result<Self, Fault> {
        let fail = |cause: String| Fault::Unimpaired { device: device.to_owned(), cause };
        let folder = devices.join(device);
        if device.contains('/') || !folder.exists() {
            return Err(fail("it is no network device of this machine".to_owned()));
        }
        if folder.join("tun_flags").exists() {
            return Ok(Self::Tun { device: device.to_owned() });
        }
        let shown = disciplines(device).map_err(fail)?;
        let settings =
            netem_in(&shown).ok_or_else(|| fail("it has no netem, nor is it a TUN device".to_owned()))?;
        Ok(Self::Netem { device: device.to_owned(), settings })
    }
}

impl fmt::Display for Impaired {
    /// As the subject and verb of a sentence.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Netem { device, settings } => {
                write!(f, "netem on {device} ({settings}) impairs what this machine sends there")
            }
            Self::Tun { device } => {
                write!(f, "the program behind the TUN device {device} impairs what passes it")
            }
        }
    }
}

/// What `tc` says of the queueing disciplines of `device`.
fn disciplines(device: &str) -> Result<String, String> {
    let show =
        |tc: &str| Command::new(tc).args(["qdisc", "show", "dev", device]).stdin(Stdio::null()).output();
    // Users that are not root often have no `sbin` in their PATH.
    let output = show("tc").or_else(|_| show("/usr/sbin/tc"));
    let output = output.map_err(|error| format!("`tc` of iproute2, which tells, does not run: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("`tc qdisc show dev {device}` failed: {}", said.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The settings in `qdisc netem 8001: root refcnt 2 limit 1000 delay 25ms loss 3%`; `None` without netem, or with one that
/// does nothing.
fn netem_in(shown: &str) -> Option<String> {
    let line = shown.lines().find(|line| line.starts_with("qdisc netem "))?;
    let (_, rest) = line.split_once(" limit ")?;
    let (_, settings) = rest.split_once(' ')?;
    Some(settings.trim().to_owned()).filter(|settings| !settings.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn netem_is_told_by_what_it_does() {
        let shown = "qdisc netem 8001: root refcnt 2 limit 1000 delay 25ms loss 3%\n";
        assert_eq!(netem_in(shown).as_deref(), Some("delay 25ms loss 3%"));
        let below = "qdisc prio 1: root refcnt 2 bands 3\nqdisc netem 30: parent 1:3 limit 1000 loss 1%\n";
        assert_eq!(netem_in(below).as_deref(), Some("loss 1%"));
        for nothing in
            ["qdisc noqueue 0: root refcnt 2\n", "qdisc netem 8001: root refcnt 2 limit 1000\n", ""]
        {
            assert_eq!(netem_in(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn a_device_is_known_by_what_the_kernel_tells_of_it() {
        let devices = tempfile::tempdir().unwrap();
        let tun = devices.path().join("tun7");
        std::fs::create_dir(&tun).unwrap();
        std::fs::write(tun.join("tun_flags"), "0x1001\n").unwrap();
        assert_eq!(
            Impaired::find_in(devices.path(), "tun7").unwrap(),
            Impaired::Tun { device: "tun7".into() }
        );
        for name in ["wlan9", "../tun7"] {
            let fault = Impaired::find_in(devices.path(), name).unwrap_err();
            assert!(fault.to_string().contains("no network device of this machine"), "{fault}");
        }
    }
}
