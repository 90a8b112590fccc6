//! Why a network was not joined or was lost, from the code that the radio gives (IEEE 802.11 9.4.1.7; from 200 on
//! the driver's own).

use device::control::WifiFailure;

/// What was going on when the code came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// While joining.
    Joining,
    /// After the network had been joined.
    Joined,
}

/// The code for which the radio names none: the driver itself refused.
pub const NO_CODE: u16 = 0;

/// The code of a join that did not end (IEEE 802.11: peer unresponsive).
pub const TIMEOUT: u16 = 39;

/// What `code` means to somebody who has to act on it.
pub const fn failure(code: u16, when: When) -> WifiFailure {
    match (code, when) {
        // The four-way handshake proves the password: an access point that knows another one falls silent in it. Once joined,
        // it is only a key that was not renewed.
        (14 | 15 | 16 | 17 | 23 | 202 | 204, When::Joining) => WifiFailure::WrongPassword,
        (18..=22 | 24 | 29 | 210 | 211, _) => WifiFailure::SecurityUnsupported,
        (NO_CODE, _) => WifiFailure::RadioFailed,
        (_, When::Joined) => WifiFailure::Lost,
        (201 | 212, When::Joining) => WifiFailure::NetworkNotFound,
        // A beacon that stops while joining: the network is too weak to be there.
        (200, When::Joining) => WifiFailure::NetworkNotFound,
        (_, When::Joining) => WifiFailure::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_common_code_names_what_to_do_about_it() {
        let cases = [
            (201, When::Joining, WifiFailure::NetworkNotFound),
            (15, When::Joining, WifiFailure::WrongPassword),
            (204, When::Joining, WifiFailure::WrongPassword),
            (202, When::Joining, WifiFailure::WrongPassword),
            (211, When::Joining, WifiFailure::SecurityUnsupported),
            (210, When::Joining, WifiFailure::SecurityUnsupported),
            (5, When::Joining, WifiFailure::Refused),
            (203, When::Joining, WifiFailure::Refused),
            (200, When::Joined, WifiFailure::Lost),
            (201, When::Joined, WifiFailure::Lost),
            (8, When::Joined, WifiFailure::Lost),
            (15, When::Joined, WifiFailure::Lost),
            (16, When::Joined, WifiFailure::Lost),
            (NO_CODE, When::Joining, WifiFailure::RadioFailed),
        ];
        for (code, when, expected) in cases {
            assert_eq!(failure(code, when), expected, "{code} {when:?}");
        }
    }
}
