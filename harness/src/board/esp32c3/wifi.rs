//! Wi-Fi credentials on their way to a board: from the environment, a file or a prompt, never from an argument, and
//! never into a log.

use std::path::Path;

use device::control::{Event, Wifi, WifiFailure};
use serde::Deserialize;

use super::Fault;

/// The network's name.
const SSID: &str = "HARNESS_WIFI_SSID";
/// Its password.
const PASSWORD: &str = "HARNESS_WIFI_PASSWORD";

/// A credentials file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    ssid: String,
    #[serde(default)]
    password: String,
}

/// Finds the credentials: in `file` if one is named, else in the environment, else by `prompt`, which gives name and password
/// if there is somebody to ask.
///
/// # Errors
/// [`Fault::NoCredentials`] or [`Fault::Credentials`].
pub fn credentials(
    file: Option<&Path>,
    prompt: impl FnOnce() -> Option<(String, String)>,
) -> Result<Wifi, Fault> {
    if let Some(path) = file {
        let name = path.display().to_string();
        let fail = |cause: String| Fault::Credentials { source_name: name.clone(), cause };
        let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
        // An error of the parser would show the line, and with it the password.
        let file: File = toml::from_str(&text)
            .map_err(|_| fail("it is no TOML file with the keys ssid and password alone".to_owned()))?;
        return checked(&name, &file.ssid, &file.password);
    }
    // Empty is how a CI system passes a secret that is not set.
    if let Some(ssid) = std::env::var(SSID).ok().filter(|ssid| !ssid.is_empty()) {
        let password = std::env::var(PASSWORD).unwrap_or_default();
        return checked("the environment", &ssid, &password);
    }
    let (ssid, password) = prompt().ok_or(Fault::NoCredentials)?;
    checked("the prompt", &ssid, &password)
}

fn checked(source_name: &str, ssid: &str, password: &str) -> Result<Wifi, Fault> {
    let fail = |cause: String| Fault::Credentials { source_name: source_name.to_owned(), cause };
    if !(1..=32).contains(&ssid.len()) {
        return Err(fail(format!("the SSID has {} bytes", ssid.len())));
    }
    if !(password.is_empty() || (8..=63).contains(&password.len())) {
        return Err(fail(format!("the password has {} bytes", password.len())));
    }
    let name = |text: &str| text.try_into().expect("within the limits of a name");
    Ok(Wifi { ssid: name(ssid), password: name(password) })
}

/// What a board's failure to join means, and what to do about it. `last` is the newest failure, if any was told.
pub(super) fn fault(ssid: &str, last: Option<(WifiFailure, u16)>) -> Fault {
    let ssid = ssid.to_owned();
    match last {
        Some((WifiFailure::WrongPassword, _)) => Fault::WrongPassword { ssid },
        Some((WifiFailure::NetworkNotFound, _)) => Fault::NoNetwork { ssid },
        Some((failure, code)) => {
            Fault::NotJoined { ssid, cause: format!("{} (code {code})", words(failure)) }
        }
        None => Fault::NotJoined { ssid, cause: "the board told no cause".to_owned() },
    }
}

/// Why a board that had joined is not in the network any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lost {
    /// What the radio told when it left.
    pub first: WifiFailure,
    /// What it told last.
    pub last: WifiFailure,
}

impl Lost {
    /// Brings `lost` up to date with what the board tells.
    pub fn follow(lost: &mut Option<Self>, event: &Event) {
        match event {
            Event::WifiFailed { failure, .. } => {
                lost.get_or_insert(Self { first: *failure, last: *failure }).last = *failure;
            }
            Event::LinkUp => *lost = None,
            _ => {}
        }
    }

    /// The fault of the network `ssid`.
    pub fn fault(self, ssid: &str) -> Fault {
        let Self { first, last } = self;
        let then = if first == last { String::new() } else { format!("; then {}", words(last)) };
        Fault::Lost { ssid: ssid.to_owned(), cause: format!("{}{then}", words(first)) }
    }
}

/// A failure in words.
pub fn words(failure: WifiFailure) -> &'static str {
    match failure {
        WifiFailure::NetworkNotFound => "no access point with that name answered",
        WifiFailure::WrongPassword => "the access point did not accept the password",
        WifiFailure::SecurityUnsupported => {
            "the network asks for a security this firmware has not (WPA3, enterprise)"
        }
        WifiFailure::Refused => "the access point refused",
        WifiFailure::Lost => "the access point fell silent or ended the association",
        WifiFailure::RadioFailed => "the radio failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<Wifi, Fault> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        credentials(Some(file.path()), || None)
    }

    #[test]
    fn a_file_with_both_keys_is_read() {
        let wifi = file("ssid = 'bench'\npassword = 'correct horse'\n").unwrap();
        assert_eq!((wifi.ssid.as_str(), wifi.password.as_str()), ("bench", "correct horse"));
        assert!(file("ssid = 'open'").unwrap().password.is_empty());
    }

    #[test]
    fn a_mistake_never_shows_the_password() {
        for text in [
            "ssid = 'bench'\npassword = hunter2hunter2",
            "password = 'hunter2hunter2'",
            "ssid='b'\npassword='hunter2'",
        ] {
            let fault = file(text).unwrap_err();
            assert!(!format!("{fault} {fault:?}").contains("hunter2"), "{fault}");
        }
    }
}
