//! Handshake cases of the QUIC interop runner, against quinn-proto in virtual time.

use core::time::Duration;

use device::crypto::CipherSuite;
use device::crypto::key_exchange::NamedGroup;
use device::quic::{CloseReason, EarlyDataOutcome, Event, Phase};
use link::{Direction, LinkConfig, Loss, LossTable, Path};
use simulate::identity::Identity;
use simulate::{Pair, PairOptions};

const SECOND: Duration = Duration::from_secs(1);

fn percent(percent: f64) -> link::units::Percent {
    link::units::Percent::new(percent).expect("a percentage")
}

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
    let mut pair = Pair::seeded(1);
    pair.run_until_connected();
    let elapsed_ms = pair.now().elapsed().as_millis();
    assert!((30..45).contains(&elapsed_ms), "{elapsed_ms} ms is more than one round trip of 30 ms");
    pair.run_until_confirmed();
    pair.echo(1024, SECOND);
    assert_eq!(pair.server.accepted(), 1);
    assert_eq!(pair.server.retries(), 0);
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

#[test]
fn chacha20() {
    let mut options = PairOptions::seeded(5);
    options.client.cipher_suites = vec![CipherSuite::ChaCha20Poly1305Sha256];
    let mut pair = options.build();
    pair.run_until_connected();
    pair.echo(100_000, 10 * SECOND);
}

#[test]
fn aes128() {
    let mut options = PairOptions::seeded(6);
    options.client.cipher_suites = vec![CipherSuite::Aes128GcmSha256];
    let mut pair = options.build();
    pair.run_until_connected();
    pair.echo(100_000, 10 * SECOND);
}

#[test]
fn longrtt() {
    let mut options = PairOptions::seeded(7);
    options.link.both.delay = Some(link::units::Time::from_millis(750));
    let mut pair = options.build();
    pair.run_until_connected();
    // The first answer comes after 1.5 s, the first probe timeout after a second: at least two ClientHellos.
    assert!(pair.client.stats().pto_count >= 1);
    assert_eq!(pair.server.accepted(), 1, "the repeated ClientHello opens no second connection");
    pair.echo(1024, 20 * SECOND);
}

#[test]
fn retry() {
    let mut options = PairOptions::seeded(8);
    options.server.retry = true;
    let mut pair = options.build();
    pair.run_until_connected();
    assert_eq!(pair.server.retries(), 1);
    assert_eq!(pair.server.accepted(), 1, "the second Initial carried the token");
    assert!(pair.client.has(|event| *event == Event::Handshake(Phase::Retried)));
    let elapsed_ms = pair.now().elapsed().as_millis();
    assert!((60..80).contains(&elapsed_ms), "{elapsed_ms} ms for two round trips of 30 ms");
    pair.echo(1024, SECOND);
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
    let mut pair = Pair::seeded(10);
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
}

/// Connects once for a ticket, then again with 0-RTT data on the first stream, which is echoed.
fn zero_rtt(seed: u64, before_second: impl FnOnce(&mut Pair)) -> Pair {
    let mut options = PairOptions::seeded(seed);
    options.client.quic.early_data = device::tls::EarlyData::Offer;
    let mut pair = options.build();
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
}

#[test]
fn refused_early_data_is_sent_again_after_the_handshake() {
    let pair = zero_rtt(12, |pair| pair.server.reconfigure(|options| options.early_data = false));
    assert_eq!(early_data(&pair), Some(EarlyDataOutcome::Rejected));
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
    let mut pair = options.build();
    for n in 2..=7 {
        pair = pair.drop_nth_from_client(n);
    }
    pair.client.connect(pair.now());
    while !pair.client.is_connected() {
        assert!(pair.now().elapsed() < 60 * SECOND, "{:?}", pair.client.events);
        let deadline = pair.now() + SECOND;
        pair.step(deadline);
        // Only the first datagram arrives before the eighth; then the address is validated or more credit earned.
        if pair.datagrams(Direction::Up) <= 7 {
            assert!(pair.bytes(Direction::Down) <= 3 * 1200, "{} bytes", pair.bytes(Direction::Down));
        }
    }
    assert!(pair.datagrams(Direction::Up) > 7);
    pair.echo(100, 10 * SECOND);
}

/// 50 connections of 1 KB each, as the runner does; on fresh links, so that one seed is one connection.
fn fifty_handshakes(path: &Path) {
    for seed in 0..50 {
        let mut options = PairOptions::seeded(seed);
        options.link = LinkConfig::symmetric(path.clone());
        options.client.quic.handshake_timeout = device::time::Duration::from_secs(60);
        let mut pair = options.build();
        pair.client.connect(pair.now());
        assert!(
            pair.run_until(60 * SECOND, |pair| pair.client.is_connected()),
            "seed {seed}: {:?}",
            pair.client.events
        );
        pair.echo(1024, 60 * SECOND);
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
