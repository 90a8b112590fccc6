//! The cases of the QUIC interop runner, against quinn-proto in virtual time, each under its own name and judged as the
//! runner does: by the packets on the wire, decrypted.
//!
//! Left out are `ecn` and `v2`, which the device does not speak (`v2_alone_is_refused_in_words`), and `ipv6`, which is
//! not QUIC's business here: `device::net` tests it, and scenarios run over it.

mod handshake;
mod paths;
mod share;
mod transfer;

use core::time::Duration;
use std::collections::BTreeSet;

use link::units::Percent;
use simulate::{ClientSide, Pair, Service, wire::Kind, wire::Wire};

const SECOND: Duration = Duration::from_secs(1);

fn percent(percent: f64) -> Percent {
    Percent::new(percent).expect("a percentage")
}

/// What the runner demands of nearly every case: one handshake, version 1, and no Retry.
fn one_handshake<C: ClientSide, S: Service>(pair: &Pair<C, S>) -> Wire {
    let wire = pair.wire();
    assert_eq!(wire.handshakes(), 1, "exactly one handshake");
    assert_eq!(wire.versions(), BTreeSet::from([1]));
    assert_eq!((wire.count(Kind::Retry), wire.count(Kind::VersionNegotiation)), (0, 0));
    wire
}
