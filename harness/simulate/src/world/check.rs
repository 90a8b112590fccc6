//! What is demanded of a world when it is over.

use std::collections::BTreeMap;

use device::client::{Cause, Event, FailureKind};
use device::mqtt::Qos;
use link::Direction;
use quinn_proto::{ConnectionError, TransportErrorCode};

use super::play::{Play, Sent, recognise, topic as topic_of};
use crate::server::Ended;

/// Bytes that a stream of the device with three streams may hold: to be sent, and received.
const BUFFERS: [u32; 2] = [2080, 960];

/// Sent packets that the device remembers.
const SENT_PACKETS_MAX: u32 = device::quic::SENT_PACKETS_MAX as u32;

/// Datagrams with nothing but a PING at one instant: the two probes of a timeout and a keep-alive or lookout.
const PINGS_MAX: u32 = 3;

/// RFC 9000 20.1.
const INVALID_TOKEN: u64 = 0x0b;

/// Checks everything; the first breach is the verdict.
pub(super) fn check(play: &Play) -> Result<(), String> {
    let broker = &play.world.server.service;
    if let Some(violation) = broker.violations.first() {
        return Err(format!("the client broke MQTT: {violation}"));
    }
    check_causes(play)?;
    check_bounds(play)?;
    let client = &play.world.client;
    let calm = client.connections() == 1 && client.causes().len() <= 1 && streams_closed(play) == 0;

    let up = broker.published.iter().map(|published| {
        let index = recognise(b'u', &published.payload, &play.sent_up)?;
        let planned = play.sent_up[index].planned;
        // Data streams are numbered as they are opened, and anew on each connection.
        let is_at_home = (published.stream == 0) == (planned.slot == 0);
        Ok(Arrival { index, topic: &published.topic, qos: published.qos, is_at_home })
    });
    check_messages(Direction::Up, &play.sent_up, &up.collect::<Result<Vec<_>, String>>()?, calm)?;

    let down = client.messages().map(|received| {
        let index = recognise(b'd', &received.payload, &play.sent_down)?;
        let is_at_home = received.slot.index() == play.sent_down[index].planned.slot;
        Ok(Arrival { index, topic: &received.topic, qos: received.qos, is_at_home })
    });
    check_messages(Direction::Down, &play.sent_down, &down.collect::<Result<Vec<_>, String>>()?, calm)
}

fn streams_closed(play: &Play) -> usize {
    let closed = |event: &&Event<'_>| matches!(event, Event::StreamClosed { .. });
    play.world.client.events().filter(closed).count()
}

/// Connections end for the reasons a hostile network gives, never because either end broke a rule.
fn check_causes(play: &Play) -> Result<(), String> {
    for cause in play.world.client.causes() {
        let innocent = match cause {
            Cause::Requested | Cause::ConnectTimeout | Cause::ConnackTimeout => true,
            Cause::KeepAliveTimeout | Cause::Stalled | Cause::Forgotten => true,
            // A Retry token is bound to the address it was sent to: a NAT that forgets in between makes it void.
            Cause::Transport(failure) if failure.kind == FailureKind::PeerTransport => {
                failure.code == INVALID_TOKEN || play.world.server.ended().iter().any(is_fooled)
            }
            Cause::Transport(failure) => matches!(
                failure.kind,
                FailureKind::Timeout | FailureKind::Reset | FailureKind::PeerApplication | FailureKind::Local
            ),
            _ => false,
        };
        if !innocent {
            return Err(format!("the client ended a connection: {cause:?}"));
        }
    }
    let broken = play.world.client.events().find_map(|event| match event {
        Event::StreamClosed { slot, error: Some(error), .. } => Some((slot, error)),
        _ => None,
    });
    if let Some((slot, error)) = broken {
        return Err(format!("the client aborted a stream of {slot:?}: {error:?}"));
    }
    for ended in play.world.server.ended() {
        match &ended.reason {
            _ if is_fooled(ended) => {}
            ConnectionError::TransportError(error) => {
                return Err(format!("the server found the client at fault: {error}"));
            }
            // APPLICATION_ERROR hides why an application gave up a handshake (RFC 9000 10.2.3).
            ConnectionError::ConnectionClosed(close)
                if close.error_code != TransportErrorCode::NO_ERROR
                    && close.error_code != TransportErrorCode::APPLICATION_ERROR =>
            {
                return Err(format!("the client found the server at fault: {close}"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// quinn-proto 0.11 closes a connection for a long header whose type bits a corruption turned into Retry's, before
/// anything has proven who sent it. That is none of the client's faults.
fn is_fooled(ended: &Ended) -> bool {
    matches!(&ended.reason, ConnectionError::TransportError(error) if error.reason == "client sent Retry")
}

fn check_bounds(play: &Play) -> Result<(), String> {
    let stats = play.world.client.stats().transport;
    let used = [stats.send_buffer_max, stats.receive_buffer_max];
    for ((what, value), bound) in ["send", "receive"].into_iter().zip(used).zip(BUFFERS) {
        if value > bound {
            return Err(format!("{value} bytes in a {what} buffer of {bound}"));
        }
    }
    let (at, pings) = play.world.trace.most_pings();
    if pings > PINGS_MAX {
        return Err(format!(
            "{pings} datagrams with nothing but a PING at {at}, at most {PINGS_MAX} say anything"
        ));
    }
    if stats.packets_sent > 0 && (stats.sent_packets_max == 0 || stats.sent_packets_max > SENT_PACKETS_MAX) {
        return Err(format!("{} packets in a table of {SENT_PACKETS_MAX}", stats.sent_packets_max));
    }
    if stats.packets_lost > stats.packets_sent {
        return Err(format!("figures contradict each other: {stats:?}"));
    }
    Ok(())
}

/// A message that arrived.
struct Arrival<'a> {
    /// Its place among those that were sent.
    index: usize,
    topic: &'a str,
    qos: Qos,
    /// Whether it came on the stream it belongs to.
    is_at_home: bool,
}

/// Messages on the control stream: QoS 1 at least once, QoS 2 exactly once, whatever happens. Data streams have no
/// session: they promise the same as long as they last (`calm`). What the client publishes on them is repeated on the
/// next until it is acknowledged; what the broker publishes on them is not repeated at all.
///
/// The first arrivals on each stream come in order: those of the broker all, since streams keep the order and nothing
/// overtakes within it; those of the client within what it stores, since QoS 0 is not stored and may go first.
fn check_messages(
    direction: Direction,
    sent: &[Sent],
    arrived: &[Arrival<'_>],
    calm: bool,
) -> Result<(), String> {
    let name = if direction == Direction::Up { "up" } else { "down" };
    let mut arrivals = vec![0_u32; sent.len()];
    let mut latest = BTreeMap::new();
    for &Arrival { index, topic, qos, is_at_home } in arrived {
        let planned = sent[index].planned;
        if topic != topic_of(name, &planned) || qos.bits() != planned.qos || !is_at_home {
            let elsewhere = if is_at_home { "" } else { " on another stream" };
            return Err(format!("{name}: {planned:?} came as {topic}, QoS {}{elsewhere}", qos.bits()));
        }
        arrivals[index] += 1;
        let latest =
            latest.entry((planned.slot, direction == Direction::Up && planned.qos == 0)).or_insert(index);
        if arrivals[index] == 1 && *latest > index {
            return Err(format!(
                "{name}: message {} came after {}",
                sent[index].number, sent[*latest].number
            ));
        }
        *latest = index.max(*latest);
    }
    for (sent, &count) in sent.iter().zip(&arrivals) {
        let planned = sent.planned;
        let sure = planned.slot == 0 || calm;
        let is_kept = sure || direction == Direction::Up;
        let is_repeated = planned.slot == 0 || direction == Direction::Up;
        let fault = match (planned.qos, count) {
            (0, 2..) => Some("repeated"),
            (1 | 2, 0) if is_kept => Some("lost"),
            (2, 2..) if sure => Some("delivered more than once"),
            (1 | 2, 2..) if !is_repeated => Some("delivered more than once on a stream without a session"),
            (0, 0) if calm => Some("lost without a disconnection"),
            _ => None,
        };
        if let Some(fault) = fault {
            return Err(format!("{name}: message {} of {planned:?} {fault} ({count})", sent.number));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::plan::Planned;
    use super::*;

    fn sent(slot: usize, qos: u8) -> Vec<Sent> {
        let planned = Planned { at: core::time::Duration::ZERO, slot, topic: 0, qos, size: 0 };
        (0..4).map(|number| Sent { planned, number }).collect()
    }

    /// Checks the arrivals of so many messages, each by its place in the order they were sent in.
    fn arrive(direction: Direction, sent: &[Sent], arrivals: &[usize], calm: bool) -> Result<(), String> {
        let name = if direction == Direction::Up { "up" } else { "down" };
        let topic = topic_of(name, &sent[0].planned);
        let qos = Qos::from_bits(sent[0].planned.qos).expect("0 to 2");
        let arrived: Vec<_> =
            arrivals.iter().map(|&index| Arrival { index, topic: &topic, qos, is_at_home: true }).collect();
        check_messages(direction, sent, &arrived, calm)
    }

    fn found(result: Result<(), String>, fault: &str) {
        let text = result.expect_err(fault);
        assert!(text.contains(fault), "{text}");
    }

    #[test]
    fn first_arrivals_are_in_order_whatever_is_repeated_between() {
        for direction in Direction::BOTH {
            let sent = sent(0, 1);
            let arrive = |arrivals: &[usize]| arrive(direction, &sent, arrivals, false);
            assert_eq!(arrive(&[0, 1, 2, 3]), Ok(()));
            assert_eq!(arrive(&[0, 1, 0, 1, 2, 0, 3, 3]), Ok(()));
            found(arrive(&[0, 2, 1, 3]), "message 1 came after 2");
            // A repetition does not set the order back.
            found(arrive(&[0, 2, 0, 1, 3]), "message 1 came after 2");
        }
    }

    #[test]
    fn what_was_promised_has_to_come_and_no_more() {
        for direction in Direction::BOTH {
            for qos in [1, 2] {
                found(arrive(direction, &sent(0, qos), &[0, 1, 2], false), "lost");
            }
            found(arrive(direction, &sent(0, 2), &[0, 1, 1, 2, 3], false), "more than once");
            found(arrive(direction, &sent(1, 2), &[0, 1, 1, 2, 3], true), "more than once");
            found(arrive(direction, &sent(1, 0), &[0, 1, 1, 2, 3], false), "repeated");
            found(arrive(direction, &sent(1, 0), &[0, 1, 3], true), "lost without a disconnection");
        }
    }

    #[test]
    fn a_data_stream_that_ended_repeats_what_the_client_publishes_and_drops_what_the_broker_does() {
        for qos in [1, 2] {
            let sent = sent(1, qos);
            assert_eq!(arrive(Direction::Up, &sent, &[0, 1, 0, 1, 2, 3], false), Ok(()));
            found(arrive(Direction::Up, &sent, &[0, 1, 2], false), "lost");
            assert_eq!(arrive(Direction::Down, &sent, &[0, 1], false), Ok(()));
            found(arrive(Direction::Down, &sent, &[0, 1, 1], false), "without a session");
        }
    }
}
