extern crate std;

use super::*;
use crate::client::{Config, Policy};
use crate::codec::Reader;
use crate::crypto::Software;
use crate::entropy::Entropy;
use crate::mqtt::Options;
use crate::quic::{TransportCode, TransportError};

struct Counting(u8);

impl Entropy for Counting {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_add(1);
            *byte = self.0;
        }
    }
}

/// The token in the first Initial of a connection to `server_name`; the server then gives another.
fn token_shown(quic: &mut Quic<Software, 1>, server_name: &str) -> std::vec::Vec<u8> {
    let config = Config {
        tls: tls::Config::new(&[], server_name, b"mqtt", 0),
        quic: quic::Config::new(),
        mqtt: Options::new("device"),
        policy: Policy::DEFAULT,
    };
    let now = Instant::from_micros(1);
    let mut ctx = Context { now, config: &config, entropy: &mut Counting(0) };
    let attempt = Attempt { resumption: Resumption::Never, early_data: EarlyData::Never };
    quic.with(&mut ctx).connect(now, attempt).expect("a configuration that can be offered");
    let mut datagram = [0; 1472];
    quic.call(&mut ctx, |connection, ctx| connection.poll_transmit(ctx, &mut datagram)).expect("a hello");
    quic.call(&mut ctx, |_, ctx| ctx.store.on_token(server_name.as_bytes()));
    quic.abandon();
    let destination = usize::from(datagram[5]);
    Reader::new(&datagram[6 + destination + 1..]).varint_vec("token").expect("a token").to_vec()
}

#[test]
fn a_token_is_shown_to_the_server_that_gave_it_alone() {
    let mut quic = Quic::new();
    assert_eq!(token_shown(&mut quic, "one.test"), b"");
    assert_eq!(token_shown(&mut quic, "one.test"), b"one.test");
    assert_eq!(token_shown(&mut quic, "two.test"), b"");
    assert_eq!(token_shown(&mut quic, "one.test"), b"", "another server's came in between");
    assert_eq!(token_shown(&mut quic, "one.test"), b"one.test");
}

#[test]
fn each_end_is_told_as_the_fault_of_whoever_caused_it() {
    let transport = |code| failure(CloseReason::Transport(TransportError::new(code, "why"))).kind;
    assert_eq!(transport(TransportCode::INTERNAL_ERROR), FailureKind::Resource);
    assert_eq!(transport(TransportCode::CRYPTO_BUFFER_EXCEEDED), FailureKind::Resource);
    assert_eq!(transport(TransportCode::AEAD_LIMIT_REACHED), FailureKind::Resource);
    assert_eq!(transport(TransportCode::FLOW_CONTROL_ERROR), FailureKind::PeerViolation);
    assert_eq!(transport(TransportCode::KEY_UPDATE_ERROR), FailureKind::PeerViolation);
    assert_eq!(transport(TransportCode::crypto(109)), FailureKind::PeerViolation);
    let tls = |error| failure(CloseReason::Tls(error)).kind;
    assert_eq!(tls(tls::Error::peer(tls::Alert::BAD_CERTIFICATE, "why")), FailureKind::Tls);
    assert_eq!(tls(tls::Error::resource("why")), FailureKind::Resource);
    assert_eq!(tls(tls::Error::caller("why")), FailureKind::Caller);
    let peer = |code| failure(CloseReason::PeerTransport { code, frame_type: 0 }).kind;
    assert_eq!(peer(TransportCode::INTERNAL_ERROR), FailureKind::PeerTransport);
    assert_eq!(peer(TransportCode::crypto(42)), FailureKind::PeerTransport);
    assert_eq!(connect_failure(ConnectError::Configuration("why")).kind, FailureKind::Caller);
    assert_eq!(connect_failure(ConnectError::Busy).kind, FailureKind::Caller);
}
