//! Timers, acknowledgements, migration and the end.

extern crate std;

use super::super::State;
use super::Peer;
use super::peer::SERVER;
use crate::quic::cid::{ConnectionId, ResetToken};
use crate::quic::frame::{Ack, ConnectionClose, NewConnectionId, kind};
use crate::quic::{CloseReason, Config, Event, PathChange, Read, StreamError, StreamId, TransportCode};
use crate::time::{Duration, Instant};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn ping(peer: &mut Peer) {
    peer.send(|w| w.varint(kind::PING).expect("fits"));
}

fn acknowledge(peer: &mut Peer, largest: u64) {
    peer.send(|w| Ack::encode(0, [0..=largest].into_iter(), w).expect("fits"));
}

#[test]
fn the_first_packet_waits_for_its_acknowledgement_and_the_second_does_not() {
    let mut peer = Peer::confirmed();
    ping(&mut peer);
    assert!(peer.receive().is_none());
    assert_eq!(peer.connection.poll_timeout(), Some(peer.now + ms(25)));
    ping(&mut peer);
    assert!(peer.receive().expect("due").has("Ack"));
    ping(&mut peer);
    peer.wait(ms(25));
    assert!(peer.receive().expect("due").has("Ack"));
    assert!(peer.receive().is_none());
}

#[test]
fn an_acknowledgement_travels_with_data() {
    let mut peer = Peer::confirmed();
    ping(&mut peer);
    let id = peer.connection.open_stream().expect("credit");
    peer.connection.stream_write(id, b"hello").expect("open");
    let sent = peer.receive().expect("data");
    assert!(sent.has("Ack") && sent.has("Stream"), "{sent:?}");
    assert!(sent.len < 60, "{} bytes for 5", sent.len);
}

#[test]
fn silence_ends_at_the_idle_timeout_and_nobody_is_told() {
    let mut peer = Peer::confirmed();
    peer.wait(Duration::from_micros(29_999_999));
    assert_eq!(peer.closed(), None);
    peer.wait(Duration::from_micros(1));
    assert_eq!(peer.closed(), Some(CloseReason::IdleTimeout));
    assert!(peer.receive().is_none());
    assert_eq!(peer.connection.poll_timeout(), None);
}

#[test]
fn a_keep_alive_ping_goes_out_before_the_timeout() {
    let mut peer = Peer::confirmed();
    peer.connection.config.keep_alive = Duration::from_secs(10);
    assert_eq!(peer.connection.poll_timeout(), Some(peer.now + Duration::from_secs(10)));
    peer.wait(Duration::from_secs(10));
    assert!(peer.receive().expect("a PING").has("Ping"));
    assert!(peer.receive().is_none());
}

#[test]
fn a_keep_alive_ping_goes_out_after_half_the_idle_timeout_that_holds() {
    for (idle, half) in [(ms(20_000), ms(10_000)), (ms(4_000), ms(2_000)), (ms(1), Duration::ZERO)] {
        let mut peer = Peer::confirmed();
        peer.connection.config.keep_alive = Duration::from_secs(15);
        peer.connection.agreed.idle_timeout = idle;
        // Three probe timeouts hold where the server names less (RFC 9000 10.1).
        let least = Duration::from_micros(peer.connection.recovery.pto().as_micros() * 3 / 2);
        assert_eq!(peer.connection.poll_timeout(), Some(peer.now + half.max(least)), "{idle:?}");
        peer.wait(half.max(least));
        assert!(peer.receive().expect("a PING").has("Ping"));
    }
}

#[test]
fn a_silent_peer_is_asked_by_probe_timeouts_and_lookouts_alone() {
    let mut peer = Peer::confirmed();
    peer.connection.config.keep_alive = Duration::from_secs(3);
    let id = peer.connection.open_stream().expect("credit");
    peer.connection.stream_write(id, b"hello").expect("open");
    peer.receive().expect("data");
    let mut datagrams = 0;
    while peer.closed().is_none() {
        let next = peer.connection.poll_timeout().expect("the idle timeout");
        assert!(next > peer.now, "time stands still after {datagrams} datagrams");
        peer.wait(next.saturating_since(peer.now));
        let sent = peer.receive_all();
        assert!(sent.len() <= 2, "{} datagrams at one instant: {sent:?}", sent.len());
        datagrams += sent.len();
    }
    assert!((10..50).contains(&datagrams), "{datagrams} in 30 s");
}

#[test]
fn a_path_that_fell_silent_is_looked_for_between_probe_timeouts() {
    let mut peer = Peer::confirmed();
    let id = peer.connection.open_stream().expect("credit");
    peer.connection.stream_write(id, b"hello").expect("open");
    peer.receive().expect("data");
    let fell_silent = peer.now;
    let (mut lookouts, mut longest) = (0, Duration::ZERO);
    let mut last = peer.now;
    while peer.now < fell_silent + Duration::from_secs(20) {
        let next = peer.connection.poll_timeout().expect("a timer");
        peer.wait(next.saturating_since(peer.now));
        for sent in peer.receive_all() {
            lookouts += usize::from(sent.has("Ping"));
            longest = longest.max(peer.now.saturating_since(last));
            last = peer.now;
        }
    }
    let pto = peer.connection.recovery.pto();
    assert!(longest <= pto.max(Duration::from_millis(20_000 / 16)) + ms(1), "{longest:?}");
    assert!((5..40).contains(&lookouts), "{lookouts}");
    assert_eq!(peer.connection.recovery.backoff(), 4, "the probe timeout backs off as ever: 1, 3, 7, 15 s");
    assert!(peer.connection.recovery.tracked() <= 1 + 2 * 4 + 1, "lookouts replace each other");
}

#[test]
fn packets_nobody_can_read_are_counted_until_one_is_readable() {
    let mut peer = Peer::confirmed();
    for count in 1..=3 {
        let mut forged = peer.packet(|w| w.put(&[0; 30]).expect("fits"));
        *forged.last_mut().expect("a tag") ^= 1;
        peer.deliver(forged);
        assert_eq!(peer.connection.unreadable_packets(), count);
    }
    ping(&mut peer);
    assert_eq!(peer.connection.unreadable_packets(), 0);
}

#[test]
fn a_handshake_that_does_not_complete_is_given_up() {
    let mut peer = Peer::handshaking();
    peer.wait(Duration::from_secs(10));
    assert_eq!(peer.closed(), Some(CloseReason::HandshakeTimeout));
}

#[test]
fn the_callers_close_tells_the_peer_and_answers_ever_more_rarely() {
    let mut peer = Peer::confirmed();
    let now = peer.now;
    peer.connection.close(now, 7, "done");
    assert_eq!(peer.closed(), Some(CloseReason::Application { code: 7 }));
    assert!(peer.receive().expect("at once").has("ConnectionClose(Application { code: 7"));
    let mut answers = 0;
    for _ in 0..32 {
        ping(&mut peer);
        answers += peer.receive_all().len();
    }
    assert_eq!(answers, 6, "after 1, 2, 4, 8, 16 and 32 datagrams");
    assert_eq!(peer.connection.open_stream(), Err(StreamError::NotOpen));
    peer.wait(Duration::from_secs(10));
    assert_eq!(peer.connection.state, State::Idle);
}

#[test]
fn before_the_handshake_is_complete_the_reason_stays_private() {
    let mut peer = Peer::handshaking();
    let now = peer.now;
    peer.connection.close(now, 7, "secret");
    let sent = peer.receive().expect("CONNECTION_CLOSE");
    assert!(sent.has("ConnectionClose(Transport { code: APPLICATION_ERROR"), "{sent:?}");
    assert!(!std::format!("{sent:?}").contains("115, 101, 99"), "{sent:?}");
}

#[test]
fn the_peers_close_is_not_answered() {
    let mut peer = Peer::confirmed();
    peer.send(|w| ConnectionClose::Application { code: 1, reason: b"takeover" }.encode(w).expect("fits"));
    assert_eq!(peer.closed(), Some(CloseReason::PeerApplication { code: 1 }));
    ping(&mut peer);
    assert!(peer.receive().is_none());
    peer.wait(Duration::from_secs(10));
    assert_eq!(peer.connection.poll_timeout(), None);
}

#[test]
fn what_arrived_can_be_read_after_the_end() {
    let mut peer = Peer::confirmed();
    peer.send(|w| {
        w.put(&[kind::STREAM as u8 | 0x02, 1, 3]).expect("fits");
        w.put(b"bye").expect("fits");
        ConnectionClose::Application { code: 0, reason: b"" }.encode(w).expect("fits");
    });
    assert_eq!(peer.closed(), Some(CloseReason::PeerApplication { code: 0 }));
    let mut bytes = [0; 8];
    assert_eq!(peer.connection.stream_read(StreamId(1), &mut bytes), Ok(Read::Data(3)));
}

fn move_to_another_address(peer: &mut Peer) {
    peer.call(|connection, ctx| connection.on_local_address_changed(ctx, PathChange::Address));
}

fn spare(peer: &mut Peer) {
    let cid = ConnectionId::new(b"server-1").expect("eight");
    let frame = NewConnectionId { sequence: 1, retire_prior_to: 0, cid, token: ResetToken([1; 16]) };
    peer.send(|w| frame.encode(w).expect("fits"));
    peer.wait(ms(25));
    assert_eq!(peer.receive().expect("an acknowledgement").destination, SERVER);
}

#[test]
fn a_new_address_gets_a_fresh_identifier_and_a_challenge() {
    let mut peer = Peer::confirmed();
    spare(&mut peer);
    move_to_another_address(&mut peer);
    let sent = peer.receive().expect("a challenge");
    assert_eq!((sent.len, &sent.destination[..]), (1200, &b"server-1"[..]));
    assert!(sent.has("PathChallenge") && sent.has("RetireConnectionId"), "{sent:?}");
    let challenge = sent.frames.iter().find(|frame| frame.starts_with("PathChallenge")).expect("there");
    // `Counting` yields consecutive bytes.
    let first: u8 = challenge.split(['[', ',']).nth(1).expect("data").trim().parse().expect("a number");
    let data = core::array::from_fn(|index| first + index as u8);
    peer.send(|w| crate::quic::frame::PathResponse { data }.encode(w).expect("fits"));
    assert_eq!(peer.events(), [Event::PathValidated]);
}

#[test]
fn a_path_that_never_answers_has_failed_after_three_challenges() {
    let mut peer = Peer::confirmed();
    spare(&mut peer);
    move_to_another_address(&mut peer);
    let mut challenges = 0;
    for _ in 0..100 {
        challenges += peer.receive_all().iter().filter(|sent| sent.has("PathChallenge")).count();
        if peer.events().contains(&Event::PathFailed) {
            assert_eq!(challenges, 3);
            assert!(peer.connection.is_active());
            return;
        }
        let next = peer.connection.poll_timeout().expect("a timer");
        peer.wait(next.saturating_since(peer.now));
    }
    panic!("no verdict after {challenges} challenges");
}

#[test]
fn without_a_spare_identifier_the_connection_still_moves() {
    let mut peer = Peer::confirmed();
    move_to_another_address(&mut peer);
    let sent = peer.receive().expect("a challenge");
    assert_eq!(sent.destination, SERVER);
    assert!(sent.has("PathChallenge"), "{sent:?}");
}

#[test]
fn a_key_update_waits_for_an_acknowledgement() {
    let mut peer = Peer::confirmed();
    peer.connection.update_keys();
    let id = peer.connection.open_stream().expect("credit");
    peer.connection.stream_write(id, b"a").expect("open");
    peer.receive().expect("in the old phase");
    assert_eq!(peer.connection.stats().key_updates, 0);
    acknowledge(&mut peer, 0);
    peer.connection.stream_write(id, b"b").expect("open");
    peer.receive().expect("in the new phase");
    assert_eq!(peer.events(), [Event::KeyUpdated]);
    acknowledge(&mut peer, 1);
    assert_eq!(peer.connection.stats().key_updates, 1);
}

#[test]
fn an_exhausted_key_ends_the_connection() {
    let mut peer = Peer::confirmed();
    peer.connection.keys.one_rtt_mut().expect("confirmed").exhaust();
    peer.call(|connection, ctx| connection.poll_transmit(ctx, &mut [0; 1472]));
    let Some(CloseReason::Transport(error)) = peer.closed() else { panic!("still open") };
    assert_eq!(error.code, TransportCode::AEAD_LIMIT_REACHED);
}

#[test]
fn lost_data_is_sent_again_after_a_probe_timeout() {
    let mut peer = Peer::confirmed();
    let id = peer.connection.open_stream().expect("credit");
    peer.connection.stream_write(id, b"important").expect("open");
    assert!(peer.receive().expect("data").has("Stream"));
    let pto = peer.connection.poll_timeout().expect("armed");
    peer.wait(pto.saturating_since(peer.now));
    assert!(peer.receive().expect("the probe").has("Stream"));
    assert_eq!(peer.connection.stats().pto_count, 1);
}

#[test]
fn a_larger_datagram_is_probed_for_and_used() {
    let mut peer = Peer::confirmed();
    peer.connection.path.begin_search(&Config { send_datagram_len: 1472, ..Config::new() }, u16::MAX);
    let sent = peer.receive().expect("a probe");
    assert_eq!((sent.len, &sent.frames[..]), (1472, &["Ping".into(), "Padding".into()][..]));
    acknowledge(&mut peer, 0);
    assert_eq!(peer.connection.stats().datagram_len, 1472);
}

#[test]
fn an_acknowledged_packet_confirms_the_handshake() {
    let mut peer = Peer::confirmed();
    peer.connection.phase = crate::quic::Phase::Complete;
    let id = peer.connection.open_stream().expect("credit");
    peer.connection.stream_write(id, b"hello").expect("open");
    peer.receive().expect("data");
    acknowledge(&mut peer, 0);
    assert_eq!(peer.events(), [Event::Handshake(crate::quic::Phase::Confirmed)]);
}

#[test]
fn a_lost_acknowledgement_is_repeated_with_the_next_handshake_packet() {
    let mut peer = Peer::handshaking();
    let now = peer.now;
    peer.connection.recovery.on_handshake_keys(now);
    peer.send_handshake(|w| w.varint(kind::PING).expect("fits"));
    assert!(peer.receive().expect("at once").has("Ack"));
    let pto = peer.connection.poll_timeout().expect("armed against deadlock");
    peer.wait(pto.saturating_since(peer.now));
    let probe = peer.receive().expect("a probe");
    assert!(probe.has("Ack") && probe.has("Ping"), "{probe:?}");
}

#[test]
fn time_that_stands_still_does_nothing() {
    let mut peer = Peer::confirmed();
    assert!(peer.connection.poll_timeout().is_some_and(|at| at > peer.now));
    peer.wait(Duration::ZERO);
    assert!(peer.receive().is_none() && peer.events().is_empty());
    assert!(peer.now > Instant::ZERO);
}
