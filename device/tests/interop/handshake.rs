//! Handshake cases.

use std::collections::BTreeSet;

use device::codec::Reader;
use device::crypto::CipherSuite;
use device::crypto::key_exchange::NamedGroup;
use device::quic::frame::Frame;
use device::quic::{CloseReason, EarlyDataOutcome, Event, Phase};
use link::{Direction, LinkConfig, Loss, LossTable, Path};
use simulate::identity::Identity;
use simulate::wire::{Kind, Packet, Wire};
use simulate::{Pair, PairOptions};

use crate::{SECOND, one_handshake, percent};

const CLIENT_HELLO: u8 = 1;
const CERTIFICATE: u8 = 11;

fn early_data(pair: &Pair) -> Option<EarlyDataOutcome> {
    pair.client.events.iter().find_map(|(_, event)| match event {
        Event::Connected { early_data, .. } => Some(*early_data),
        _ => None,
    })
}

/// Closes the connection and lets both ends forget it.
fn close(pair: &mut Pair) {
    let now = pair.now();
    pair.client.connection.close(now.device(), 0, "done");
    assert!(pair.run_until(10 * SECOND, |pair| pair.client.is_closed()), "{:?}", pair.client.events);
    pair.client.take_events();
}

#[test]
fn handshake() {
    let mut pair = Pair::seeded(1).captured();
    pair.run_until_connected();
    let elapsed_ms = pair.now().elapsed().as_millis();
    assert!((30..45).contains(&elapsed_ms), "{elapsed_ms} ms is more than one round trip of 30 ms");
    pair.run_until_confirmed();
    pair.echo(1024, SECOND);
    one_handshake(&pair);
    assert_eq!(pair.server.accepted(), 1);
    assert_eq!(pair.client.stats().pto_count, 0);
}

#[test]
fn handshake_with_a_p256_chain() {
    let mut options = PairOptions::seeded(2);
    options.server.identity = Identity::p256();
    options.client.identity = Identity::p256();
    let mut pair = options.build();
    pair.run_until_connected();
    pair.echo(100, SECOND);
}

#[test]
fn handshake_with_a_hello_retry_request() {
    let mut options = PairOptions::seeded(3);
    options.server.groups = vec![rustls::NamedGroup::secp256r1];
    let mut pair = options.build();
    pair.run_until_connected();
    let elapsed_ms = pair.now().elapsed().as_millis();
    assert!((60..80).contains(&elapsed_ms), "{elapsed_ms} ms for two round trips of 30 ms");
    pair.echo(100, SECOND);
}

#[test]
fn handshake_over_p256_alone() {
    let mut options = PairOptions::seeded(4);
    options.client.groups = vec![NamedGroup::P256];
    let mut pair = options.build();
    pair.run_until_connected();
    pair.echo(100, SECOND);
}

/// The cipher suites in the ClientHello.
fn offered(wire: &Wire) -> Vec<u16> {
    let messages = wire.messages(0, Direction::Up, Kind::Initial);
    let (CLIENT_HELLO, hello) = &messages[0] else { panic!("{messages:?}") };
    let mut r = Reader::new(hello);
    r.take(2 + 32, "version and random").expect("whole");
    r.vec8("session").expect("whole");
    let suites = r.vec16("suites").expect("whole");
    suites.chunks(2).map(|suite| u16::from_be_bytes([suite[0], suite[1]])).collect()
}

#[test]
fn chacha20() {
    let mut options = PairOptions::seeded(5);
    options.client.cipher_suites = vec![CipherSuite::ChaCha20Poly1305Sha256];
    let mut pair = options.build().captured();
    pair.run_until_connected();
    pair.echo(100_000, 10 * SECOND);
    assert_eq!(offered(&one_handshake(&pair)), [0x1303]);
}

#[test]
fn aes128() {
    let mut options = PairOptions::seeded(6);
    options.client.cipher_suites = vec![CipherSuite::Aes128GcmSha256];
    let mut pair = options.build();
    pair.run_until_connected();
    pair.echo(100_000, 10 * SECOND);
}

#[cfg(feature = "aes256")]
#[test]
fn aes256() {
    let mut options = PairOptions::seeded(8);
    options.server.cipher_suites = vec![rustls::CipherSuite::TLS13_AES_256_GCM_SHA384];
    options.client.cipher_suites =
        vec![CipherSuite::ChaCha20Poly1305Sha256, CipherSuite::Aes128GcmSha256, CipherSuite::Aes256GcmSha384];
    options.client.quic.key_update_packets = 20;
    let mut pair = options.build();
    pair.run_until_connected();
    pair.echo(100_000, 10 * SECOND);
    assert!(pair.client.stats().key_updates > 0, "a key after the first one, too");
}

#[test]
fn longrtt() {
    let mut options = PairOptions::seeded(7);
    options.link.both.delay = Some(link::units::Time::from_millis(750));
    let mut pair = options.build().captured();
    pair.run_until_connected();
    // The first answer comes after 1.5 s, the first probe timeout after a second.
    assert!(pair.client.stats().pto_count >= 1);
    assert_eq!(pair.server.accepted(), 1, "the repeated ClientHello opens no second connection");
    pair.echo(1024, 20 * SECOND);
    let wire = one_handshake(&pair);
    let is_first = |frame: &Frame<'_>| matches!(frame, Frame::Crypto(crypto) if crypto.offset == 0);
    let hellos = wire.up().filter(|packet| packet.kind == Kind::Initial && packet.has(is_first)).count();
    assert!(hellos >= 2, "{hellos}");
}

#[test]
fn retry() {
    let mut options = PairOptions::seeded(8);
    options.server.retry = true;
    let mut pair = options.build().captured();
    pair.run_until_connected();
    assert_eq!(pair.server.retries(), 1);
    assert_eq!(pair.server.accepted(), 1, "the second Initial carried the token");
    assert!(pair.client.has(|event| *event == Event::Handshake(Phase::Retried)));
    let elapsed_ms = pair.now().elapsed().as_millis();
    assert!((60..80).contains(&elapsed_ms), "{elapsed_ms} ms for two round trips of 30 ms");
    pair.echo(1024, SECOND);
    let wire = pair.wire();
    assert_eq!((wire.handshakes(), wire.count(Kind::Retry), wire.versions()), (1, 1, BTreeSet::from([1])));
    let retry_at = wire.packets.iter().position(|packet| packet.kind == Kind::Retry).expect("counted");
    let (before, after) = wire.packets.split_at(retry_at);
    let initials = |packets: &[Packet]| -> Vec<(Vec<u8>, u64)> {
        let of_client = |packet: &&Packet| packet.kind == Kind::Initial && packet.direction == Direction::Up;
        packets.iter().filter(of_client).map(|packet| (packet.token.clone(), packet.number)).collect()
    };
    let (first, later) = (initials(before), initials(after));
    assert!(first.iter().all(|(token, _)| token.is_empty()) && !later.is_empty());
    assert!(later.iter().all(|(token, _)| *token == after[0].token), "each later Initial has the token");
    let numbers: Vec<_> = first.iter().chain(&later).map(|(_, number)| *number).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "numbers go on: {numbers:?}");
}

#[test]
fn a_token_of_an_earlier_connection_spares_the_retry() {
    let mut options = PairOptions::seeded(9);
    options.server.retry = true;
    let mut pair = options.build();
    pair.run_until_connected();
    assert!(pair.run_until(SECOND, |pair| !pair.client.kept.tokens.is_empty()), "NEW_TOKEN");
    close(&mut pair);
    pair.run_until_connected();
    assert_eq!(pair.server.retries(), 1);
    assert_eq!(pair.server.accepted(), 2);
}

#[test]
fn resumption() {
    let mut pair = Pair::seeded(10).captured();
    pair.run_until_connected();
    assert!(pair.run_until(SECOND, |pair| !pair.client.kept.tickets.is_empty()), "a ticket");
    close(&mut pair);
    let now = pair.now();
    pair.client.resume(now);
    assert!(pair.run_until(SECOND, |pair| pair.client.is_connected()));
    assert!(pair.client.has(|event| matches!(event, Event::Connected { resumed: true, .. })));
    assert!(
        !pair.client.has(|event| *event == Event::Handshake(Phase::CertificateVerified)),
        "a resumed handshake has no certificate"
    );
    pair.echo(1024, SECOND);
    let wire = pair.wire();
    assert_eq!((wire.handshakes(), wire.versions()), (2, BTreeSet::from([1])));
    let of_server = |connection| -> Vec<u8> {
        let messages = wire.messages(connection, Direction::Down, Kind::Handshake);
        messages.into_iter().map(|(kind, _)| kind).collect()
    };
    // EncryptedExtensions, Certificate, CertificateVerify, Finished; then without the two in the middle.
    assert_eq!((of_server(0), of_server(1)), (vec![8, CERTIFICATE, 15, 20], vec![8, 20]));
}

/// Connects once for a ticket, then again with 0-RTT data on the first stream, which is echoed.
fn zero_rtt(seed: u64, before_second: impl FnOnce(&mut Pair)) -> Pair {
    let mut options = PairOptions::seeded(seed);
    options.client.quic.early_data = device::tls::EarlyData::Offer;
    let mut pair = options.build().captured();
    pair.run_until_connected();
    assert!(pair.run_until(SECOND, |pair| !pair.client.kept.tickets.is_empty()), "a ticket");
    close(&mut pair);
    before_second(&mut pair);
    let now = pair.now();
    pair.client.resume(now);
    let start = pair.now();
    pair.echo(500, SECOND);
    let elapsed_ms = (pair.now().elapsed() - start.elapsed()).as_millis();
    match early_data(&pair) {
        Some(EarlyDataOutcome::Accepted) => assert!(elapsed_ms < 40, "{elapsed_ms} ms with 0-RTT"),
        outcome => assert!(elapsed_ms >= 60, "{elapsed_ms} ms with {outcome:?}"),
    }
    pair
}

#[test]
fn zerortt() {
    let pair = zero_rtt(11, |_| ());
    assert_eq!(early_data(&pair), Some(EarlyDataOutcome::Accepted));
    let wire = pair.wire();
    assert_eq!((wire.handshakes(), wire.versions()), (2, BTreeSet::from([1])));
    assert_eq!(stream_bytes(&wire, Kind::ZeroRtt), 500, "the whole request");
    assert_eq!(stream_bytes(&wire, Kind::OneRtt), 0, "nothing of it again");
    let one_rtt = wire.up().filter(|packet| packet.connection == 1 && packet.kind == Kind::OneRtt);
    let bytes: usize = one_rtt.map(|packet| packet.len).sum();
    assert!(bytes <= 300, "{bytes} bytes of 1-RTT packets for acknowledgements");
}

/// Stream bytes that the client sent on the second connection in packets of `kind`.
fn stream_bytes(wire: &Wire, kind: Kind) -> usize {
    let packets = wire.up().filter(|packet| packet.connection == 1 && packet.kind == kind);
    let len = |frame: Frame<'_>| match frame {
        Frame::Stream(stream) => stream.data.len(),
        _ => 0,
    };
    packets.flat_map(Packet::frames).map(len).sum()
}

#[test]
fn refused_early_data_is_sent_again_after_the_handshake() {
    let pair = zero_rtt(12, |pair| pair.server.reconfigure(|options| options.early_data = false));
    assert_eq!(early_data(&pair), Some(EarlyDataOutcome::Rejected));
    // The server drops what it refuses, so it logs no secret for it; what counts comes again.
    assert_eq!(pair.server.service.received, 500);
}

#[test]
fn early_data_of_an_unknown_ticket_is_sent_again_after_a_full_handshake() {
    let pair = zero_rtt(13, |pair| {
        let now = pair.now();
        pair.server.restart(now);
    });
    assert_eq!(early_data(&pair), Some(EarlyDataOutcome::Rejected));
    assert!(pair.client.has(|event| matches!(event, Event::Connected { resumed: false, .. })));
}

#[test]
fn early_data_survives_a_retry() {
    let mut options = PairOptions::seeded(14);
    options.client.quic.early_data = device::tls::EarlyData::Offer;
    let mut pair = options.build();
    pair.run_until_connected();
    assert!(pair.run_until(SECOND, |pair| !pair.client.kept.tickets.is_empty()), "a ticket");
    close(&mut pair);
    pair.client.kept.tokens.clear();
    pair.server.reconfigure(|options| options.retry = true);
    let now = pair.now();
    pair.client.resume(now);
    pair.echo(500, SECOND);
    assert_eq!(pair.server.retries(), 1);
    pair.run_until_confirmed();
    pair.echo(500, SECOND);
}

#[test]
fn amplificationlimit() {
    let mut options = PairOptions::seeded(15);
    options.server.identity = Identity::long_chain();
    options.client.identity = Identity::long_chain();
    let mut pair = options.build().captured();
    for n in 2..=7 {
        pair = pair.drop_nth_from_client(n);
    }
    pair.run_until_connected();
    pair.echo(100, 10 * SECOND);
    let wire = one_handshake(&pair);
    assert!(pair.datagrams(Direction::Up) > 7);
    // Until the server hears a Handshake packet it sends at most three times what it got, whole datagrams counted.
    let heard = wire.up().find(|packet| packet.kind == Kind::Handshake && packet.arrived);
    let heard = heard.expect("the handshake completed").datagram;
    let rtt = 2 * core::time::Duration::from_millis(15);
    let heard_at = wire.packets.iter().find(|packet| packet.datagram == heard).expect("found").at + rtt / 2;
    let bytes = |direction: Direction, until: simulate::Clock| -> usize {
        let sent = wire.packets.iter().filter(|packet| packet.direction == direction && packet.at <= until);
        sent.filter(|packet| direction == Direction::Down || packet.arrived).map(|packet| packet.len).sum()
    };
    let mut limited = 0;
    for packet in wire.down().filter(|packet| packet.at < heard_at) {
        // What was sent half a round trip before is what the server has got.
        let got_until = simulate::Clock::from_micros(packet.at.as_micros().saturating_sub(15_000));
        let (got, sent) = (bytes(Direction::Up, got_until), bytes(Direction::Down, packet.at));
        assert!(sent <= 3 * got, "{sent} bytes sent for {got} at {}", packet.at);
        limited = limited.max(sent);
    }
    assert!(limited > 3 * 1_200 - 200, "the chain must reach the limit: {limited}");
}

/// 50 connections of 1 KB each, as the runner does; on fresh links, so that one seed is one connection.
fn fifty_handshakes(path: &Path) {
    for seed in 0..50 {
        let mut options = PairOptions::seeded(seed);
        options.link = LinkConfig::symmetric(path.clone());
        options.client.quic.handshake_timeout = device::time::Duration::from_secs(60);
        let mut pair = options.build().captured();
        pair.client.connect(pair.now());
        assert!(
            pair.run_until(60 * SECOND, |pair| pair.client.is_connected()),
            "seed {seed}: {:?}",
            pair.client.events
        );
        pair.echo(1024, 60 * SECOND);
        assert_eq!(pair.wire().handshakes(), 1, "seed {seed}");
    }
}

#[test]
fn handshakeloss() {
    let loss = LossTable { random: Some(percent(30.0)), run_max: Some(3), ..LossTable::default() };
    let delay = Some(link::units::Time::from_millis(15));
    fifty_handshakes(&Path { delay, loss: Some(Loss(loss)), ..Path::default() });
}

#[test]
fn handshakecorruption() {
    let corrupt = link::CorruptTable {
        probability: percent(30.0),
        bits: 1,
        run_max: Some(3),
        checksum: link::Checksum::Repaired,
    };
    let delay = Some(link::units::Time::from_millis(15));
    fifty_handshakes(&Path { delay, corrupt: Some(link::Corrupt(corrupt)), ..Path::default() });
}

#[test]
fn v2_alone_is_refused_in_words() {
    let mut options = PairOptions::seeded(16);
    options.server.versions = vec![0x6b33_43cf];
    let mut pair = options.build();
    pair.client.connect(pair.now());
    assert!(pair.run_until(SECOND, |pair| pair.client.is_closed()), "{:?}", pair.client.events);
    assert!(
        pair.client.has(|event| matches!(event, Event::Closed(CloseReason::VersionNegotiation))),
        "{:?}",
        pair.client.events
    );
}

#[test]
fn lost_client_finished_is_resent_after_one_pto() {
    // Datagram 1 is the ClientHello, 2 acknowledges Initial and Handshake and carries Finished.
    let mut pair = Pair::seeded(7).drop_nth_from_client(2);
    pair.run_until_connected();
    pair.run_until_confirmed();
    assert_eq!(pair.client.stats().pto_count, 1);
}

#[test]
fn a_lost_client_hello_is_resent_after_one_second() {
    let mut pair = Pair::seeded(17).drop_nth_from_client(1);
    pair.run_until_connected();
    let elapsed_ms = pair.now().elapsed().as_millis();
    assert!((999..1_050).contains(&elapsed_ms), "{elapsed_ms} ms");
    assert_eq!(pair.client.stats().pto_count, 1);
}

#[test]
fn a_wrong_name_an_unknown_authority_and_a_wrong_date_are_refused() {
    type Damage = fn(&mut PairOptions);
    let cases: [(&str, Damage); 4] = [
        ("name", |options| options.client.server_name = "other.test".to_owned()),
        ("authority", |options| options.client.identity = Identity::p256()),
        ("expired", |options| options.client.clock_skew_s = 40 * 365 * 86_400),
        ("not yet valid", |options| options.client.clock_skew_s = -(40 * 365 * 86_400)),
    ];
    for (case, change) in cases {
        let mut options = PairOptions::seeded(18);
        change(&mut options);
        let mut pair = options.build();
        pair.client.connect(pair.now());
        assert!(
            pair.run_until(5 * SECOND, |pair| pair.client.is_closed()),
            "{case}: {:?}",
            pair.client.events
        );
        assert!(!pair.client.is_connected(), "{case}");
    }
}

/// A server that wants to see a certificate of `Identity::p256`, and a client that shows `own`.
fn asked_for_a_certificate(seed: u64, own: Option<std::sync::Arc<Identity>>) -> Pair {
    let mut options = PairOptions::seeded(seed);
    options.server.client_identity = Some(Identity::p256());
    options.client.own_identity = own;
    options.build().captured()
}

#[test]
fn a_client_certificate_is_shown_to_a_server_that_asks() {
    let mut pair = asked_for_a_certificate(30, Some(Identity::p256()));
    pair.run_until_connected();
    pair.run_until_confirmed();
    pair.echo(1024, SECOND);
    let quic = pair.server.connection().expect("a connection");
    let shown = quic.crypto_session().peer_identity().expect("an authenticated client");
    let shown =
        shown.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().expect("rustls' own type");
    assert_eq!(*shown, Identity::p256().chain);
    // Certificate, CertificateVerify, Finished.
    let messages = one_handshake(&pair).messages(0, Direction::Up, Kind::Handshake);
    assert_eq!(messages.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [CERTIFICATE, 15, 20]);
    // With the ticket it is known: the second handshake shows it no more.
    assert!(pair.run_until(SECOND, |pair| !pair.client.kept.tickets.is_empty()), "a ticket");
    close(&mut pair);
    let now = pair.now();
    pair.client.resume(now);
    assert!(pair.run_until(SECOND, |pair| pair.client.is_connected()));
    pair.echo(1024, SECOND);
    let messages = pair.wire().messages(1, Direction::Up, Kind::Handshake);
    assert_eq!(messages.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [20]);
}

#[test]
fn a_client_certificate_survives_loss() {
    for seed in 31..41 {
        let mut options = PairOptions::seeded(seed);
        options.server.client_identity = Some(Identity::p256());
        options.client.own_identity = Some(Identity::p256());
        let loss = LossTable { random: Some(percent(30.0)), run_max: Some(3), ..LossTable::default() };
        let delay = Some(link::units::Time::from_millis(15));
        options.link = LinkConfig::symmetric(Path { delay, loss: Some(Loss(loss)), ..Path::default() });
        options.client.quic.handshake_timeout = device::time::Duration::from_secs(60);
        let mut pair = options.build();
        pair.run_until_connected();
        pair.echo(1024, 60 * SECOND);
    }
}

#[test]
fn a_missing_or_foreign_client_certificate_is_refused_by_the_server_with_its_alert() {
    // The stranger's authority has the name of the trusted one, but not its key.
    for (own, alert) in [(None, 116), (Some(Identity::fresh()), 51)] {
        let mut pair = asked_for_a_certificate(41, own);
        pair.client.connect(pair.now());
        assert!(pair.run_until(5 * SECOND, |pair| pair.client.is_closed()), "{:?}", pair.client.events);
        // CRYPTO_ERROR with certificate_required or decrypt_error (RFC 9001 4.8).
        let code = device::quic::TransportCode::crypto(alert);
        assert!(
            pair.client.has(|event| matches!(
                event,
                Event::Closed(CloseReason::PeerTransport { code: got, .. }) if *got == code
            )),
            "{alert}: {:?}",
            pair.client.events
        );
    }
}
