//! Data transfer cases.
//!
//! The runner's files have megabytes; the device's windows have two kilobytes. Sizes here are scaled so that each
//! case still fills the window many times over. Data goes both ways: the server sends back what it receives.

use core::time::Duration;
use std::collections::BTreeSet;

use device::quic::frame::Frame;
use device::quic::{Event, Phase};
use link::units::Time;
use link::{Blackout, Direction, LinkConfig, Loss, LossTable, Path};
use simulate::wire::Kind;
use simulate::{Pair, PairOptions};

use crate::{SECOND, one_handshake, percent};

fn lossy(path: Path) -> LinkConfig {
    LinkConfig::symmetric(Path { delay: Some(Time::from_millis(15)), ..path })
}

/// Connects on `link` and has `len` bytes echoed.
fn transfer(seed: u64, link: LinkConfig, len: usize, limit: Duration) -> Pair {
    let mut options = PairOptions::seeded(seed);
    options.link = link;
    let mut pair = options.build().captured();
    pair.run_until_connected();
    pair.announce("connected");
    pair.echo(len, limit);
    one_handshake(&pair);
    assert_eq!(pair.server.service.received, len as u64, "each byte once");
    pair
}

#[test]
fn transfer_on_a_clean_path_loses_nothing() {
    let pair = transfer(1, PairOptions::seeded(1).link, 300_000, 60 * SECOND);
    let stats = pair.client.stats();
    assert_eq!((stats.packets_lost, stats.pto_count), (0, 0));
    // 2 KiB per round trip of 30 ms are 68 kB/s; acknowledgements and window updates may cost up to half of it.
    let seconds = pair.now().elapsed().as_secs_f64();
    assert!(seconds < 9.0, "{seconds} s for 300 kB with a window of 2 KiB");
}

#[test]
fn transferloss() {
    let loss = LossTable { random: Some(percent(2.0)), run_max: Some(3), ..LossTable::default() };
    let pair = transfer(2, lossy(Path { loss: Some(Loss(loss)), ..Path::default() }), 200_000, 60 * SECOND);
    assert!(pair.client.stats().packets_lost > 0);
}

#[test]
fn transferloss_in_bursts() {
    let burst = link::GilbertElliott {
        enter: percent(2.0),
        leave: percent(30.0),
        loss_bad: percent(80.0),
        loss_good: link::units::Percent::ZERO,
    };
    let loss = LossTable { burst: Some(burst), ..LossTable::default() };
    transfer(3, lossy(Path { loss: Some(Loss(loss)), ..Path::default() }), 100_000, 120 * SECOND);
}

#[test]
fn transfercorruption() {
    let corrupt = link::CorruptTable {
        probability: percent(2.0),
        bits: 1,
        run_max: Some(3),
        checksum: link::Checksum::Repaired,
    };
    let corrupt = Some(link::Corrupt(corrupt));
    let pair = transfer(4, lossy(Path { corrupt, ..Path::default() }), 200_000, 60 * SECOND);
    assert!(pair.client.stats().packets_dropped > 0);
}

#[test]
fn transfer_with_truncated_and_duplicated_datagrams() {
    let path = Path {
        truncate: Some(link::Truncate { probability: percent(2.0) }),
        duplicate: Some(percent(5.0)),
        ..Path::default()
    };
    transfer(5, lossy(path), 200_000, 60 * SECOND);
}

/// Whatever is overtaken by so much counts as lost, and then turns up: the link loses nothing.
#[test]
fn packets_lost_for_nothing_are_counted() {
    let reorder =
        link::Reorder { probability: percent(10.0), every: None, extra_delay: Some(Time::from_millis(60)) };
    let link = LinkConfig {
        up: Path { delay: Some(Time::from_millis(15)), reorder: Some(reorder), ..Path::default() },
        down: Path { delay: Some(Time::from_millis(15)), ..Path::default() },
        ..LinkConfig::default()
    };
    let mut pair = transfer(20, link, 100_000, 120 * SECOND);
    pair.run_for(SECOND);
    let stats = pair.client.stats();
    assert!(stats.packets_spuriously_lost >= 10, "{stats:?}");
    assert_eq!(stats.packets_spuriously_lost, stats.packets_lost, "each of them arrived: {stats:?}");
}

#[test]
fn losses_that_are_real_do_not_count_as_spurious() {
    let loss = LossTable { random: Some(percent(6.0)), run_max: Some(3), ..LossTable::default() };
    let pair = transfer(21, lossy(Path { loss: Some(Loss(loss)), ..Path::default() }), 100_000, 60 * SECOND);
    let stats = pair.client.stats();
    assert!(stats.packets_lost > 5, "{stats:?}");
    assert_eq!(stats.packets_spuriously_lost, 0, "{stats:?}");
}

#[test]
fn transfer_with_reordering() {
    let reorder =
        link::Reorder { probability: percent(10.0), every: None, extra_delay: Some(Time::from_millis(8)) };
    transfer(6, lossy(Path { reorder: Some(reorder), ..Path::default() }), 200_000, 60 * SECOND);
}

#[test]
fn blackhole() {
    let mut link = PairOptions::seeded(7).link;
    link.blackout = vec![Blackout {
        at: Time::from_millis(500),
        after: Some("connected".to_owned()),
        length: Time::from_millis(2_000),
        period: Some(Time::from_millis(5_000)),
        count: None,
        direction: None,
    }];
    transfer(7, link, 400_000, 120 * SECOND);
}

#[test]
fn multiplexing() {
    let mut pair = Pair::seeded(8).captured();
    pair.run_until_connected();
    for _ in 0..300 {
        pair.echo(32, SECOND);
    }
    assert_eq!(pair.server.service.opened, 300, "more than the 100 streams that were allowed at first");
    let wire = one_handshake(&pair);
    let streams: BTreeSet<_> = wire.up().flat_map(|packet| packet.frames()).filter_map(stream_of).collect();
    assert_eq!(streams.len(), 300);
}

fn stream_of(frame: Frame<'_>) -> Option<u64> {
    match frame {
        Frame::Stream(stream) => Some(stream.id.0),
        _ => None,
    }
}

#[test]
fn keyupdate() {
    let mut pair = Pair::seeded(9).captured();
    pair.run_until_connected();
    pair.run_until_confirmed();
    pair.echo(10_000, 10 * SECOND);
    pair.client.connection.update_keys();
    pair.echo(10_000, 10 * SECOND);
    assert_eq!(pair.client.stats().key_updates, 1);
    // quinn-proto declines an update while it still keeps the keys of the last one.
    pair.run_for(SECOND);
    pair.server.connection().expect("a connection").force_key_update();
    pair.echo(10_000, 10 * SECOND);
    assert_eq!(pair.client.stats().key_updates, 2);
    assert!(pair.client.has(|event| *event == Event::KeyUpdated));
    let wire = one_handshake(&pair);
    for direction in [Direction::Up, Direction::Down] {
        let one_rtt = wire.packets.iter().filter(|packet| packet.kind == Kind::OneRtt);
        let generations: Vec<_> =
            one_rtt.filter(|packet| packet.direction == direction).map(|packet| packet.generation).collect();
        assert!(generations.is_sorted(), "{direction:?}");
        assert_eq!(
            generations.into_iter().collect::<BTreeSet<_>>(),
            BTreeSet::from([0, 1, 2]),
            "{direction:?}"
        );
    }
}

#[test]
fn keys_change_by_themselves_after_so_many_packets() {
    let mut options = PairOptions::seeded(10);
    options.client.quic.key_update_packets = 50;
    let mut pair = options.build();
    pair.run_until_connected();
    pair.echo(100_000, 60 * SECOND);
    assert!(pair.client.stats().key_updates >= 2, "{:?}", pair.client.stats());
}

#[test]
fn a_server_that_lost_its_state_resets_the_connection() {
    let mut pair = Pair::seeded(14);
    pair.run_until_connected();
    pair.run_until_confirmed();
    let now = pair.now();
    pair.server.restart(now);
    let id = pair.client.connection.open_stream().expect("a stream");
    pair.client.write(id, &[0; 200]);
    assert!(pair.run_until(2 * SECOND, |pair| pair.client.is_closed()), "{:?}", pair.client.stats());
    assert!(
        pair.client.has(|event| matches!(event, Event::Closed(device::quic::CloseReason::StatelessReset))),
        "{:?}",
        pair.client.events
    );
}

#[test]
fn silence_ends_at_the_idle_timeout_and_keep_alive_prevents_it() {
    for keep_alive in [false, true] {
        let mut options = PairOptions::seeded(15);
        options.client.quic.idle_timeout = device::time::Duration::from_secs(10);
        if keep_alive {
            options.client.quic.keep_alive = device::time::Duration::from_secs(4);
        }
        let mut pair = options.build();
        pair.run_until_connected();
        pair.run_for(40 * SECOND);
        assert_eq!(pair.client.is_closed(), !keep_alive, "{:?}", pair.client.events);
    }
}

#[test]
fn a_dead_path_ends_at_the_idle_timeout_despite_probes() {
    let mut options = PairOptions::seeded(16);
    options.link.blackout = vec![Blackout {
        at: Time::from_millis(1_000),
        after: None,
        length: Time::from_millis(600_000),
        period: None,
        count: None,
        direction: None,
    }];
    let mut pair = options.build();
    pair.run_until_connected();
    pair.run_until_confirmed();
    pair.run_for(SECOND);
    let id = pair.client.connection.open_stream().expect("a stream");
    pair.client.write(id, &[0; 100]);
    assert!(pair.run_until(35 * SECOND, |pair| pair.client.is_closed()));
    assert!(pair.client.has(|event| matches!(event, Event::Closed(device::quic::CloseReason::IdleTimeout))));
    assert!(pair.client.stats().pto_count >= 5);
}

#[test]
fn the_largest_window_ever_is_the_devices_buffer() {
    let mut options = PairOptions::seeded(17);
    options.link.both.delay = Some(Time::from_millis(100));
    let mut pair = options.build().captured();
    pair.run_until_connected();
    pair.echo(20_000, 60 * SECOND);
    let wire = one_handshake(&pair);
    // The stream has what is left of the receive memory of 128 blocks beside the place of the handshake's last flight.
    let memory = 128 * device::quic::stream::BLOCK as u64;
    let buffer = memory - device::quic::CRYPTO_SEND_LEN as u64;
    let mut largest = 0;
    for packet in wire.up() {
        let arrived = wire.down().filter(|sent| sent.at + Duration::from_millis(100) <= packet.at);
        let arrived = arrived.flat_map(|sent| sent.frames()).filter_map(end_of).max().unwrap_or(0);
        for frame in packet.frames() {
            match frame {
                Frame::MaxStreamData(credit) => {
                    assert!(credit.limit <= arrived + buffer, "{credit:?} where {arrived} have arrived");
                    largest = largest.max(credit.limit - arrived);
                }
                Frame::MaxData(credit) => {
                    assert!(credit.limit <= arrived + memory, "{credit:?} where {arrived} have arrived");
                }
                _ => {}
            }
        }
    }
    // The memory is given out in full: after a read nothing is held back but what is not worth a frame yet.
    assert!(largest > buffer / 2, "{largest} bytes");
    assert!(wire.down().flat_map(|packet| packet.frames()).filter_map(end_of).max() == Some(20_000));
}

/// Where a STREAM frame's data ends.
fn end_of(frame: Frame<'_>) -> Option<u64> {
    match frame {
        Frame::Stream(stream) => Some(stream.offset + stream.data.len() as u64),
        _ => None,
    }
}

#[test]
fn mtu_is_probed_when_wanted() {
    let mut options = PairOptions::seeded(18);
    options.client.quic.send_datagram_len = 1472;
    let mut pair = options.build();
    pair.run_until_connected();
    pair.run_until_confirmed();
    pair.echo(20_000, 10 * SECOND);
    assert_eq!(pair.client.stats().datagram_len, 1472);
}

#[test]
fn an_mtu_black_hole_keeps_datagrams_small() {
    let mut options = PairOptions::seeded(19);
    options.client.quic.send_datagram_len = 1472;
    options.link.both.mtu = Some(link::units::Size::from_bytes(1_300));
    let mut pair = options.build();
    pair.run_until_connected();
    pair.run_until_confirmed();
    pair.echo(20_000, 20 * SECOND);
    assert!(pair.client.stats().datagram_len <= 1_272, "{:?}", pair.client.stats());
    assert!(pair.client.has(|event| *event == Event::Handshake(Phase::Confirmed)));
}
