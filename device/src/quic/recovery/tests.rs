//! The pseudocode of RFC 9002 appendices A and B, case by case.

extern crate std;
use super::congestion::{INITIAL_WINDOW, MINIMUM_WINDOW};
use super::*;
use std::vec::Vec;

const N: usize = 24;

/// A sender whose record is the packet number itself.
struct Sender {
    recovery: Recovery<u64, N>,
    now: Instant,
    next: [u64; 3],
    acked: Vec<u64>,
    lost: Vec<u64>,
}

impl Sender {
    fn new() -> Self {
        Self {
            recovery: Recovery::default(),
            now: Instant::from_micros(1_000_000),
            next: [0; 3],
            acked: Vec::new(),
            lost: Vec::new(),
        }
    }

    /// Past the handshake, with an RTT of 100 ms.
    fn confirmed() -> Self {
        let mut sender = Self::new();
        sender.send(Space::Initial);
        sender.wait_ms(100);
        sender.ack(Space::Initial, &[0..=0]);
        sender.recovery.on_handshake_keys(sender.now);
        sender.recovery.discard_space(sender.now, Space::Initial);
        sender.recovery.on_handshake_confirmed(sender.now);
        sender.recovery.discard_space(sender.now, Space::Handshake);
        sender.acked.clear();
        sender.wait_ms(1);
        assert_eq!(sender.recovery.poll_timeout(), None);
        sender
    }

    fn wait_ms(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    fn send_kind(&mut self, space: Space, bytes: u16, kind: PacketKind) -> u64 {
        let number = self.next[space.index()];
        self.next[space.index()] += 1;
        self.recovery.on_sent(self.now, space, number, bytes, kind, number);
        number
    }

    fn send(&mut self, space: Space) -> u64 {
        self.send_kind(space, 1200, PacketKind::AckEliciting)
    }

    fn send_many(&mut self, count: usize) {
        for _ in 0..count {
            self.send(Space::Application);
        }
    }

    fn ack_after(&mut self, space: Space, ranges: &[RangeInclusive<u64>], delay_ms: u64) -> Acked {
        let Self { recovery, now, acked, lost, .. } = self;
        let outcome = |outcome| match outcome {
            Outcome::Acked(number) => acked.push(number),
            Outcome::Lost(number) => lost.push(number),
        };
        recovery
            .on_ack(*now, space, ranges.iter().cloned(), Duration::from_millis(delay_ms), outcome)
            .unwrap()
    }

    fn ack(&mut self, space: Space, ranges: &[RangeInclusive<u64>]) -> Acked {
        self.ack_after(space, ranges, 0)
    }

    fn fire(&mut self) -> Option<Expired> {
        self.now = self.now.max(self.recovery.poll_timeout().expect("a timer"));
        let Self { recovery, now, acked, lost, .. } = self;
        recovery.on_timeout(*now, |outcome| match outcome {
            Outcome::Acked(number) => acked.push(number),
            Outcome::Lost(number) => lost.push(number),
        })
    }

    fn timer_in_ms(&self) -> Option<u64> {
        self.recovery.poll_timeout().map(|timer| timer.saturating_since(self.now).as_millis())
    }
}

#[test]
fn an_acknowledged_packet_leaves_flight_and_is_reported_once() {
    let mut sender = Sender::confirmed();
    sender.send_many(2);
    assert_eq!(sender.recovery.bytes_in_flight(), 2400);
    sender.wait_ms(100);
    sender.ack(Space::Application, &[0..=1]);
    sender.ack(Space::Application, &[0..=1]);
    assert_eq!(sender.acked, [0, 1]);
    assert_eq!(sender.recovery.bytes_in_flight(), 0);
    assert_eq!(sender.recovery.poll_timeout(), None);
}

#[test]
fn an_ack_of_an_unsent_packet_is_refused() {
    let mut sender = Sender::confirmed();
    sender.send_many(1);
    let now = sender.now;
    let refused = sender.recovery.on_ack(now, Space::Application, [0..=1], Duration::ZERO, |_| ());
    assert_eq!(refused, Err(AckOfUnsent));
    let refused = sender.recovery.on_ack(now, Space::Handshake, [0..=0], Duration::ZERO, |_| ());
    assert_eq!(refused, Err(AckOfUnsent));
    assert_eq!(sender.recovery.bytes_in_flight(), 1200);
}

#[test]
fn spaces_do_not_acknowledge_each_other() {
    let mut sender = Sender::new();
    sender.send(Space::Initial);
    sender.send(Space::Application);
    sender.send(Space::Initial);
    sender.ack(Space::Initial, &[0..=1]);
    assert_eq!(sender.acked, [0, 1]);
    assert_eq!(sender.recovery.bytes_in_flight(), 1200);
}

#[test]
fn several_ranges_acknowledge_what_they_name() {
    let mut sender = Sender::confirmed();
    sender.send_many(7);
    sender.ack(Space::Application, &[6..=6, 3..=4, 1..=1]);
    assert_eq!(sender.acked, [1, 3, 4, 6]);
}

#[test]
fn a_packet_three_behind_an_acknowledged_one_is_lost() {
    let mut sender = Sender::confirmed();
    sender.send_many(4);
    sender.wait_ms(10);
    sender.ack(Space::Application, &[2..=2]);
    assert!(sender.lost.is_empty());
    sender.ack(Space::Application, &[3..=3]);
    assert_eq!(sender.lost, [0]);
    assert_eq!(sender.recovery.statistics().packets_lost, 1);
}

#[test]
fn a_packet_nine_eighths_of_an_rtt_older_than_an_acknowledged_one_is_lost() {
    let mut sender = Sender::confirmed();
    sender.send_many(2);
    sender.wait_ms(100);
    sender.ack(Space::Application, &[1..=1]);
    assert!(sender.lost.is_empty());
    assert_eq!(sender.timer_in_ms(), Some(12), "9/8 of 100 ms, 100 of which have passed");
    assert_eq!(sender.fire(), Some(Expired::Loss));
    assert_eq!(sender.lost, [0]);
    assert_eq!(sender.recovery.backoff(), 0, "a loss timer is no probe timeout");
}

#[test]
fn nothing_happens_before_the_timer_is_due() {
    let mut sender = Sender::confirmed();
    sender.send_many(1);
    let before = sender.recovery.poll_timeout().unwrap() - Duration::from_micros(1);
    assert_eq!(sender.recovery.on_timeout(before, |_| ()), None);
}

#[test]
fn the_first_probe_timeout_without_a_sample_is_about_a_second() {
    let mut sender = Sender::new();
    sender.send(Space::Initial);
    assert_eq!(sender.timer_in_ms(), Some(999));
}

#[test]
fn the_probe_timeout_doubles_until_an_acknowledgement() {
    let mut sender = Sender::confirmed();
    sender.send_many(1);
    // 100 ms + 4 * 50 ms, and the peer's 25 ms of acknowledgement delay.
    assert_eq!(sender.timer_in_ms(), Some(325));
    assert_eq!(sender.fire(), Some(Expired::Probe { space: Space::Application, probes: 2 }));
    assert_eq!(sender.recovery.permit(sender.now, Space::Application, 1200), Permit::Send);
    sender.send_many(2);
    assert_eq!(sender.timer_in_ms(), Some(650));
    assert_eq!(sender.fire(), Some(Expired::Probe { space: Space::Application, probes: 2 }));
    sender.send_many(2);
    assert_eq!(sender.timer_in_ms(), Some(1300));
    assert!(sender.lost.is_empty(), "a probe timeout loses nothing (RFC 9002 6.2)");
    sender.wait_ms(100);
    sender.ack(Space::Application, &[4..=4]);
    assert_eq!(sender.recovery.backoff(), 0);
    assert_eq!(sender.recovery.statistics().pto_count, 2);
}

#[test]
fn initial_and_handshake_probes_do_not_wait_for_the_peers_ack_delay() {
    let mut sender = Sender::new();
    sender.recovery.set_peer_max_ack_delay(Duration::from_millis(500));
    sender.send(Space::Initial);
    assert_eq!(sender.timer_in_ms(), Some(999));
}

#[test]
fn the_client_arms_the_anti_deadlock_timer_with_nothing_in_flight() {
    let mut sender = Sender::new();
    sender.send(Space::Initial);
    sender.wait_ms(100);
    sender.ack(Space::Initial, &[0..=0]);
    assert_eq!(sender.timer_in_ms(), Some(300), "the server may be blocked by anti-amplification");
    assert_eq!(sender.fire(), Some(Expired::Probe { space: Space::Initial, probes: 1 }));
    sender.recovery.on_handshake_keys(sender.now);
    assert_eq!(sender.fire(), Some(Expired::Probe { space: Space::Handshake, probes: 2 }));
}

#[test]
fn early_data_in_flight_does_not_disarm_the_anti_deadlock_timer() {
    let mut sender = Sender::new();
    sender.send(Space::Initial);
    sender.send(Space::Application);
    sender.wait_ms(100);
    sender.ack(Space::Initial, &[0..=0]);
    assert_eq!(sender.fire(), Some(Expired::Probe { space: Space::Initial, probes: 1 }));
}

#[test]
fn probes_go_on_until_the_handshake_is_confirmed() {
    let mut sender = Sender::new();
    sender.recovery.on_handshake_keys(sender.now);
    sender.send(Space::Handshake);
    sender.wait_ms(100);
    sender.ack(Space::Handshake, &[0..=0]);
    assert_eq!(sender.fire(), Some(Expired::Probe { space: Space::Handshake, probes: 2 }));
    sender.recovery.on_handshake_confirmed(sender.now);
    assert_eq!(sender.recovery.poll_timeout(), None);
}

#[test]
fn an_acknowledged_initial_does_not_reset_the_backoff() {
    let mut sender = Sender::new();
    sender.send(Space::Initial);
    sender.fire();
    sender.send(Space::Initial);
    sender.wait_ms(50);
    sender.ack(Space::Initial, &[1..=1]);
    assert_eq!(
        sender.recovery.backoff(),
        1,
        "the server may not have validated our address (RFC 9002 6.2.1)"
    );
}

#[test]
fn application_packets_have_no_probe_timeout_before_the_handshake_is_confirmed() {
    let mut sender = Sender::new();
    sender.recovery.on_handshake_keys(sender.now);
    sender.send(Space::Handshake);
    sender.send(Space::Application);
    sender.wait_ms(100);
    sender.ack(Space::Handshake, &[0..=0]);
    assert!(matches!(sender.fire(), Some(Expired::Probe { space: Space::Handshake, .. })));
    sender.recovery.on_handshake_confirmed(sender.now);
    assert!(matches!(sender.fire(), Some(Expired::Probe { space: Space::Application, .. })));
}

#[test]
fn discarding_a_space_empties_its_flight_and_resets_the_backoff() {
    let mut sender = Sender::new();
    sender.send(Space::Initial);
    sender.fire();
    sender.recovery.on_handshake_keys(sender.now);
    sender.send(Space::Handshake);
    sender.recovery.discard_space(sender.now, Space::Initial);
    assert_eq!(sender.recovery.bytes_in_flight(), 1200);
    assert_eq!(sender.recovery.backoff(), 0);
    assert!(sender.lost.is_empty());
    assert_eq!(sender.recovery.unacked(Space::Handshake).collect::<Vec<_>>(), [0]);
}

#[test]
fn the_window_limits_what_is_in_flight_but_not_probes() {
    let mut sender = Sender::confirmed();
    sender.send_many(10);
    assert_eq!(sender.recovery.bytes_in_flight(), INITIAL_WINDOW);
    assert_eq!(sender.recovery.permit(sender.now, Space::Application, 1200), Permit::CongestionLimited);
    sender.fire();
    for _ in 0..2 {
        assert_eq!(sender.recovery.permit(sender.now, Space::Application, 1200), Permit::Send);
        sender.send_many(1);
    }
    assert_eq!(sender.recovery.permit(sender.now, Space::Application, 1200), Permit::CongestionLimited);
}

#[test]
fn packets_beyond_a_burst_are_paced() {
    let mut sender = Sender::confirmed();
    sender.send_many(10);
    sender.wait_ms(10);
    sender.ack(Space::Application, &[0..=9]);
    sender.send_many(2);
    match sender.recovery.permit(sender.now, Space::Application, 1200) {
        Permit::Paced(at) => assert!(at > sender.now && at < sender.now + Duration::from_millis(20)),
        permit => panic!("{permit:?}"),
    }
}

#[test]
fn acknowledgements_alone_are_never_in_flight_and_never_fill_the_table() {
    let mut sender = Sender::confirmed();
    for _ in 0..10 * N {
        sender.send_kind(Space::Application, 40, PacketKind::AckOnly);
    }
    assert_eq!(sender.recovery.bytes_in_flight(), 0);
    assert_eq!(sender.recovery.poll_timeout(), None);
    assert_eq!(sender.recovery.permit(sender.now, Space::Application, 1200), Permit::Send);
    let number = sender.send(Space::Application);
    sender.ack(Space::Application, &[number..=number]);
    assert_eq!(sender.acked, [number]);
    assert_eq!(sender.recovery.bytes_in_flight(), 0);
}

#[test]
fn a_full_table_makes_the_sender_wait_and_still_leaves_room_for_probes() {
    let mut sender = Sender::confirmed();
    while sender.recovery.permit(sender.now, Space::Application, 50) != Permit::TableFull {
        sender.send_kind(Space::Application, 50, PacketKind::AckEliciting);
        sender.wait_ms(1);
    }
    for _ in 0..40 {
        let Some(Expired::Probe { probes, .. }) = sender.fire() else { panic!("a probe timeout") };
        for _ in 0..probes {
            assert_eq!(sender.recovery.permit(sender.now, Space::Application, 50), Permit::Send);
            sender.send_kind(Space::Application, 50, PacketKind::AckEliciting);
        }
    }
    assert!(sender.recovery.tracked() <= N);
    let newest = sender.next[2] - 1;
    sender.ack(Space::Application, &[newest..=newest]);
    assert_eq!(sender.acked, [newest]);
    assert_eq!(sender.fire(), Some(Expired::Loss));
    assert_eq!(sender.acked.len() + sender.lost.len(), sender.next[2] as usize, "each is acked or lost");
    assert_eq!(sender.recovery.bytes_in_flight(), 0);
    assert_eq!(sender.recovery.permit(sender.now, Space::Application, 50), Permit::Send);
}

#[test]
fn early_data_leaves_entries_for_the_handshake() {
    let mut sender = Sender::new();
    sender.send(Space::Initial);
    while sender.recovery.permit(sender.now, Space::Application, 50) == Permit::Send {
        sender.send_kind(Space::Application, 50, PacketKind::AckEliciting);
    }
    assert_eq!(sender.recovery.permit(sender.now, Space::Application, 50), Permit::TableFull);
    assert_eq!(sender.recovery.permit(sender.now, Space::Handshake, 50), Permit::Send);
}

#[test]
fn a_loss_halves_the_window_once_per_round_trip() {
    let mut sender = Sender::confirmed();
    sender.send_many(10);
    sender.wait_ms(100);
    sender.ack(Space::Application, &[9..=9]);
    assert_eq!(sender.lost, [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(sender.recovery.statistics().congestion_events, 1);
    let halved = sender.recovery.congestion().window();
    assert_eq!(halved, INITIAL_WINDOW / 2);
    sender.fire();
    assert_eq!(sender.lost.len(), 9);
    assert_eq!(sender.recovery.congestion().window(), halved);
}

#[test]
fn a_late_acknowledgement_of_a_lost_packet_is_a_spurious_loss_and_restores_the_window() {
    let mut sender = Sender::confirmed();
    sender.send_many(4);
    sender.wait_ms(100);
    sender.ack(Space::Application, &[1..=3]);
    assert_eq!(sender.lost, [0]);
    assert_eq!(sender.recovery.congestion().window(), INITIAL_WINDOW / 2);
    sender.wait_ms(5);
    let acked = sender.ack(Space::Application, &[0..=3]);
    assert_eq!(acked.packets, 1);
    assert_eq!(sender.acked, [1, 2, 3, 0]);
    assert_eq!(sender.recovery.statistics().spurious_losses, 1);
    assert!(sender.recovery.congestion().window() >= INITIAL_WINDOW);
    assert_eq!(sender.recovery.bytes_in_flight(), 0);
}

#[test]
fn a_late_acknowledgement_of_what_nobody_missed_is_no_spurious_loss() {
    let mut sender = Sender::confirmed();
    sender.send(Space::Application);
    let unmissed = sender.send_kind(Space::Application, 40, PacketKind::AckOnly);
    sender.send_many(3);
    sender.wait_ms(100);
    sender.ack(Space::Application, &[2..=4]);
    assert_eq!((sender.lost.as_slice(), sender.recovery.statistics().packets_lost), (&[0, unmissed][..], 1));
    sender.wait_ms(5);
    sender.ack(Space::Application, &[1..=4]);
    assert_eq!(sender.recovery.statistics().spurious_losses, 0);
    assert_eq!(sender.recovery.congestion().window(), INITIAL_WINDOW / 2, "the other one is lost");
}

#[test]
fn a_late_acknowledgement_is_no_rtt_sample() {
    let mut sender = Sender::confirmed();
    sender.send_many(4);
    sender.wait_ms(100);
    sender.ack(Space::Application, &[1..=3]);
    let before = sender.recovery.rtt().latest();
    sender.wait_ms(500);
    sender.ack(Space::Application, &[0..=0]);
    assert_eq!(sender.recovery.rtt().latest(), before);
}

#[test]
fn an_rtt_sample_needs_the_largest_packet_newly_acknowledged() {
    let mut sender = Sender::confirmed();
    sender.send_many(2);
    sender.wait_ms(100);
    sender.ack(Space::Application, &[1..=1]);
    sender.wait_ms(5);
    sender.ack(Space::Application, &[0..=1]);
    assert_eq!(sender.recovery.rtt().latest(), Duration::from_millis(100));
    assert_eq!(sender.acked, [1, 0]);
}

#[test]
fn an_ack_delay_beyond_the_peers_promise_is_cut_after_confirmation() {
    let mut sender = Sender::confirmed();
    sender.send_many(1);
    sender.wait_ms(180);
    sender.ack_after(Space::Application, &[0..=0], 80);
    // 100 * 7/8 + (180 - 25) / 8
    assert_eq!(sender.recovery.rtt().smoothed(), Duration::from_micros(106_875));
}

/// RFC 9002 7.6.3: packet 1 is acknowledged, packets 2 and the probes 7, 8 are lost.
#[test]
fn persistent_congestion_needs_losses_three_probe_timeouts_apart() {
    let mut sender = Sender::confirmed();
    sender.send_many(1);
    // The sample that reveals the loss counts: 3 x (100 + 4 x 37.5 + 25) ms.
    sender.wait_ms(826);
    sender.send_many(1);
    sender.wait_ms(1000);
    sender.send_many(1);
    sender.wait_ms(100);
    sender.ack(Space::Application, &[2..=2]);
    assert_eq!(sender.lost, [0, 1]);
    assert_eq!(sender.recovery.congestion().window(), MINIMUM_WINDOW);
    assert_eq!(sender.recovery.statistics().persistent_congestion, 1);
}

#[test]
fn losses_closer_together_are_not_persistent_congestion() {
    let mut sender = Sender::confirmed();
    sender.send_many(1);
    // The sample that reveals the loss counts: 3 x (100 + 4 x 37.5 + 25) ms.
    sender.wait_ms(824);
    sender.send_many(1);
    sender.wait_ms(1000);
    sender.send_many(1);
    sender.wait_ms(100);
    sender.ack(Space::Application, &[2..=2]);
    assert_eq!(sender.lost, [0, 1]);
    assert_eq!(sender.recovery.statistics().persistent_congestion, 0);
}

#[test]
fn an_acknowledged_packet_in_between_breaks_persistent_congestion() {
    for acked_earlier in [true, false] {
        let mut sender = Sender::confirmed();
        let period_ms = 3 * sender.recovery.pto().as_millis();
        sender.send_many(1);
        sender.wait_ms(period_ms / 2);
        sender.send_many(1);
        if acked_earlier {
            sender.wait_ms(1);
            sender.ack(Space::Application, &[1..=1]);
        }
        sender.wait_ms(period_ms);
        sender.send_many(1);
        sender.wait_ms(1000);
        sender.send_many(1);
        sender.wait_ms(100);
        sender.ack(Space::Application, if acked_earlier { &[3..=3] } else { &[3..=3, 1..=1] });
        assert_eq!(sender.lost, [0, 2]);
        assert_eq!(sender.recovery.statistics().persistent_congestion, 0, "{acked_earlier}");
    }
}

#[test]
fn losses_before_the_first_rtt_sample_are_not_persistent_congestion() {
    let mut sender = Sender::new();
    sender.send(Space::Initial);
    sender.wait_ms(20_000);
    sender.send(Space::Initial);
    sender.wait_ms(20_000);
    sender.send(Space::Initial);
    sender.wait_ms(100);
    sender.ack(Space::Initial, &[2..=2]);
    assert_eq!(sender.lost, [0, 1]);
    assert_eq!(sender.recovery.statistics().persistent_congestion, 0);
}

#[test]
fn a_retry_sends_everything_again_without_a_congestion_signal() {
    let mut sender = Sender::new();
    sender.send(Space::Initial);
    sender.send(Space::Application);
    sender.wait_ms(80);
    let now = sender.now;
    let mut lost = Vec::new();
    sender.recovery.on_retry(now, |outcome| lost.push(outcome));
    assert_eq!(lost, [Outcome::Lost(0), Outcome::Lost(0)]);
    assert_eq!(sender.recovery.bytes_in_flight(), 0);
    assert_eq!(sender.recovery.congestion().window(), INITIAL_WINDOW);
    assert_eq!(sender.recovery.rtt().smoothed(), Duration::from_millis(80));
    assert_eq!(sender.recovery.statistics().packets_lost, 0);
}

#[test]
fn refused_early_data_is_no_congestion_signal() {
    let mut sender = Sender::new();
    sender.send(Space::Initial);
    sender.send(Space::Application);
    let now = sender.now;
    let mut lost = Vec::new();
    sender.recovery.requeue_space(now, Space::Application, |outcome| lost.push(outcome));
    assert_eq!(lost, [Outcome::Lost(0)]);
    assert_eq!(sender.recovery.bytes_in_flight(), 1200);
    assert_eq!(sender.recovery.congestion().window(), INITIAL_WINDOW);
}

#[test]
fn a_new_address_starts_window_and_rtt_anew_and_old_packets_do_not_count() {
    let mut sender = Sender::confirmed();
    sender.send_many(4);
    sender.wait_ms(10);
    let now = sender.now;
    sender.recovery.on_path_changed(now, PathChange::Address);
    assert_eq!(sender.recovery.bytes_in_flight(), 0);
    assert_eq!(sender.recovery.rtt().first_sample(), None);
    sender.wait_ms(40);
    sender.ack(Space::Application, &[3..=3]);
    assert_eq!(sender.acked, [3]);
    assert_eq!(sender.lost, [0]);
    assert_eq!(sender.recovery.rtt().first_sample(), None, "no RTT sample across paths");
    assert_eq!(sender.recovery.congestion().window(), INITIAL_WINDOW, "no congestion signal across paths");
}

#[test]
fn a_new_port_keeps_window_and_rtt() {
    let mut sender = Sender::confirmed();
    sender.send_many(1);
    let now = sender.now;
    sender.recovery.on_path_changed(now, PathChange::Port);
    assert_eq!(sender.recovery.bytes_in_flight(), 1200);
    assert!(sender.recovery.rtt().first_sample().is_some());
}

#[test]
fn a_lost_mtu_probe_is_no_congestion_signal() {
    let mut sender = Sender::confirmed();
    sender.send_kind(Space::Application, 1400, PacketKind::MtuProbe);
    sender.send_many(3);
    sender.wait_ms(100);
    sender.ack(Space::Application, &[1..=3]);
    assert_eq!(sender.lost, [0]);
    assert_eq!(sender.recovery.congestion().window(), INITIAL_WINDOW);
}

#[test]
fn only_one_lookout_is_in_flight_and_none_restarts_the_probe_timer() {
    let mut sender = Sender::confirmed();
    sender.send_many(1);
    assert_eq!(sender.recovery.lookout_at(), None, "nobody is late");
    sender.fire().expect("a probe timeout");
    sender.send_many(2);
    let probe_at = sender.recovery.poll_timeout();
    for _ in 0..3 {
        sender.now = sender.recovery.lookout_at().expect("a stall");
        sender.send_kind(Space::Application, 30, PacketKind::Lookout);
        assert_eq!(sender.recovery.poll_timeout(), probe_at);
    }
    assert_eq!(sender.recovery.bytes_in_flight(), 3 * 1200 + 30);
    assert_eq!(sender.recovery.tracked(), 4);
    sender.ack(Space::Application, &[5..=5]);
    assert_eq!(sender.recovery.lookout_at(), None);
    assert_eq!(sender.lost, [0, 1, 2], "what went before the lookout that arrived");
    assert_eq!(sender.recovery.bytes_in_flight(), 0);
}

#[test]
fn an_rtt_known_from_before_shortens_the_first_probe_timeout() {
    let mut sender = Sender::new();
    sender.recovery.restart(Duration::from_millis(60));
    sender.send(Space::Initial);
    assert_eq!(sender.timer_in_ms(), Some(180));
    sender.wait_ms(100);
    sender.ack(Space::Initial, &[0..=0]);
    assert_eq!(sender.recovery.rtt().smoothed(), Duration::from_millis(100), "the first sample replaces it");
}

#[test]
fn bytes_in_flight_never_drift_in_a_long_lossy_exchange() {
    let mut sender = Sender::confirmed();
    let mut random = 12_345_u32;
    let mut step = || {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        random >> 16
    };
    for _ in 0..3000 {
        sender.wait_ms(u64::from(step() % 20));
        match step() % 4 {
            0 | 1 if sender.recovery.permit(sender.now, Space::Application, 1200) == Permit::Send => {
                sender.send(Space::Application);
            }
            2 => {
                let kind = if step() % 2 == 0 { PacketKind::AckOnly } else { PacketKind::Padded };
                if sender.recovery.permit(sender.now, Space::Application, 100) == Permit::Send {
                    sender.send_kind(Space::Application, 100, kind);
                }
            }
            _ if sender.next[2] > 0 => {
                let largest = sender.next[2] - 1 - u64::from(step() % 4).min(sender.next[2] - 1);
                let start = largest.saturating_sub(u64::from(step() % 3));
                sender.ack(Space::Application, &[start..=largest]);
            }
            _ => {}
        }
        if sender.recovery.poll_timeout().is_some_and(|timer| timer <= sender.now) {
            sender.fire();
        }
        assert!(sender.recovery.tracked() <= N);
    }
    sender.send_kind(Space::Application, 100, PacketKind::AckEliciting);
    let all = 0..=sender.next[2] - 1;
    sender.ack(Space::Application, &[all]);
    assert_eq!(sender.recovery.bytes_in_flight(), 0);
    assert_eq!(sender.recovery.poll_timeout(), None);
    assert_eq!(sender.recovery.tracked(), 0);
}

#[test]
fn in_congestion_avoidance_half_a_window_does_not_grow_and_a_used_one_does() {
    for (packets, grows) in [(6, false), (11, true)] {
        let mut sender = Sender::confirmed();
        // Out of slow start with a window of twelve datagrams: more than three are left of half of it.
        sender.recovery.congestion.set_avoiding(12 * 1200);
        let before = sender.recovery.congestion().window();
        for _ in 0..4 {
            let first = sender.next[Space::Application.index()];
            sender.send_many(packets);
            sender.wait_ms(100);
            sender.ack(Space::Application, &[first..=first + packets as u64 - 1]);
        }
        assert_eq!(sender.recovery.congestion().window() > before, grows, "{packets} of twelve in flight");
    }
    let mut sender = Sender::confirmed();
    sender.send_many(5);
    sender.wait_ms(100);
    sender.ack(Space::Application, &[0..=4]);
    assert!(sender.recovery.congestion().window() > INITIAL_WINDOW, "in slow start half of it is enough");
}
