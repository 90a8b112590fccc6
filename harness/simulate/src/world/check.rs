//! What is demanded of a world when it is over.

use device::client::{Cause, Event, FailureKind};
use device::mqtt::{Qos, Version};
use quinn_proto::{ConnectionError, TransportErrorCode};

use super::play::{Play, Sent, recognise};
use crate::server::Ended;

/// Bytes that a stream of the device with three streams may hold: to be sent, and received.
const BUFFERS: [u32; 2] = [2080, 960];

/// Sent packets that the device remembers.
const SENT_PACKETS_MAX: u32 = device::quic::SENT_PACKETS_MAX as u32;

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
        Ok((index, published.topic.clone(), published.qos.bits()))
    });
    check_messages("up", &play.sent_up, up.collect::<Result<Vec<_>, String>>()?, calm)?;

    let down = play.world.client.messages().map(|received| {
        let index = recognise(b'd', &received.payload, &play.sent_down)?;
        Ok((index, received.topic.clone(), received.qos.bits()))
    });
    check_messages("down", &play.sent_down, down.collect::<Result<Vec<_>, String>>()?, calm)
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
    // 3.1.1 cannot tell a broker how much the client takes.
    let is_told = play.plan.mqtt.version == Version::V5;
    let broken = play.world.client.events().find_map(|event| match event {
        Event::StreamClosed { slot, error: Some(error), .. } if is_told => Some((slot, error)),
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
    if stats.packets_sent > 0 && (stats.sent_packets_max == 0 || stats.sent_packets_max > SENT_PACKETS_MAX) {
        return Err(format!("{} packets in a table of {SENT_PACKETS_MAX}", stats.sent_packets_max));
    }
    if stats.packets_lost > stats.packets_sent {
        return Err(format!("figures contradict each other: {stats:?}"));
    }
    Ok(())
}

/// Messages on the control stream: QoS 1 at least once, QoS 2 exactly once, whatever happens. Data streams have no
/// session: they promise the same as long as they last (`calm`), and what the client publishes is repeated
/// until it is acknowledged anyway. The first arrivals of each stream and QoS come in order.
fn check_messages(
    direction: &str,
    sent: &[Sent],
    arrived: Vec<(usize, String, u8)>,
    calm: bool,
) -> Result<(), String> {
    let mut arrivals = vec![0_u32; sent.len()];
    let mut latest = std::collections::BTreeMap::new();
    for (index, topic, qos) in arrived {
        let planned = sent[index].planned;
        if topic != format!("{direction}/{}", planned.slot) || qos != planned.qos {
            return Err(format!("{direction}: {planned:?} came as {topic}, QoS {qos}"));
        }
        arrivals[index] += 1;
        let latest = latest.entry((planned.slot, planned.qos)).or_insert(index);
        if arrivals[index] == 1 && *latest > index {
            return Err(format!(
                "{direction}: message {} came after {}",
                sent[index].number, sent[*latest].number
            ));
        }
        *latest = index.max(*latest);
    }
    for (sent, &count) in sent.iter().zip(&arrivals) {
        let planned = sent.planned;
        let sure = planned.slot == 0 || calm;
        let kept = sure || direction == "up";
        let qos = Qos::from_bits(planned.qos);
        let fault = match (qos, count) {
            (Some(Qos::AtMostOnce), 2..) => Some("repeated"),
            (Some(Qos::AtLeastOnce | Qos::ExactlyOnce), 0) if kept => Some("lost"),
            (Some(Qos::ExactlyOnce), 2..) if sure => Some("delivered more than once"),
            (Some(Qos::AtMostOnce), 0) if calm => Some("lost without a disconnection"),
            _ => None,
        };
        if let Some(fault) = fault {
            return Err(format!("{direction}: message {} of {planned:?} {fault} ({count})", sent.number));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::plan::Planned;
    use super::*;

    /// Checks the arrivals of so many messages, each by its place in the order they were sent in.
    fn arrive(arrivals: &[usize]) -> Result<(), String> {
        let planned = Planned { at: core::time::Duration::ZERO, slot: 0, qos: 1, size: 0 };
        let sent: Vec<Sent> = (0..4).map(|number| Sent { planned, number }).collect();
        let arrived = arrivals.iter().map(|&index| (index, "up/0".to_owned(), 1)).collect();
        check_messages("up", &sent, arrived, false)
    }

    #[test]
    fn first_arrivals_are_in_order_whatever_is_repeated_between() {
        assert_eq!(arrive(&[0, 1, 2, 3]), Ok(()));
        assert_eq!(arrive(&[0, 1, 0, 1, 2, 0, 3, 3]), Ok(()));
        let early = Err("up: message 1 came after 2".to_owned());
        assert_eq!(arrive(&[0, 2, 1, 3]), early);
        assert_eq!(arrive(&[0, 2, 0, 1, 3]), early, "a repetition does not set the order back");
    }

    #[test]
    fn what_was_promised_has_to_come() {
        assert_eq!(arrive(&[0, 1, 2]).map_err(|error| error.contains("lost")), Err(true));
    }
}
