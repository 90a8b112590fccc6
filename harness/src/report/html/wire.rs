//! Packets and bytes on the wire: for one connection and for one message, each way, column beside column.

use maud::{Markup, html};

use super::View;
use crate::measure::Unit;
use crate::measure::analysis::Group;
use crate::measure::record::{Handshake, Wire, WirePhase};

/// Sums of packets and bytes over `of` occurrences.
#[derive(Clone, Copy, Default)]
struct Sum {
    wire: Wire,
    of: u64,
}

impl Sum {
    fn add(self, wire: Wire, of: u64) -> Self {
        Self { wire: self.wire + wire, of: self.of + of }
    }
}

/// A way, as it is named and read.
type Way<T> = (&'static str, fn(&T) -> Option<Wire>);

const CONNECTION_WAYS: [Way<crate::measure::record::Connection>; 2] = [
    ("from the client", |connection| connection.client_to_connack),
    ("to the client", |connection| connection.server_to_connack),
];
const MESSAGE_WAYS: [Way<crate::measure::record::WireCount>; 2] =
    [("from the client", |count| Some(count.up)), ("to the client", |count| Some(count.down))];

/// Kinds of handshakes with what a row calls a connection made by them.
const HANDSHAKES: [(Handshake, &str); 4] = [
    (Handshake::Full, "Connection to CONNACK, full handshake"),
    (Handshake::Resumed, "Connection to CONNACK, resumed"),
    (Handshake::ZeroRtt, "Connection to CONNACK, 0-RTT"),
    (Handshake::None, "Connection to CONNACK, no TLS"),
];

/// The table; nothing where nothing was counted.
pub(super) fn section(view: &View<'_>) -> Option<Markup> {
    let mut rows: Vec<(&str, &str, Vec<Sum>)> = Vec::new();
    for (handshake, label) in HANDSHAKES {
        for (way, read) in CONNECTION_WAYS {
            let cells = view.groups.iter().map(|group| of_connections(group, handshake, read)).collect();
            rows.push((label, way, cells));
        }
    }
    for (way, read) in MESSAGE_WAYS {
        let cells = view.groups.iter().map(|group| of_messages(group, read)).collect();
        rows.push(("Message that arrived, acknowledgements and repeats included", way, cells));
    }
    rows.retain(|(.., cells)| cells.iter().any(|sum| sum.of > 0));
    if rows.is_empty() {
        return None;
    }
    Some(html! {
        h3 { "On the wire" }
        div class="scroll" tabindex="0" role="region" aria-label="On the wire" {
            table class=[super::dense(view)] {
                caption { "Means: packets, then bytes with IP headers; n counts connections or messages." }
                thead { tr {
                    th scope="col" { "For each" }
                    @for group in &view.groups { th scope="col" class="n" { (view.key(group)) } }
                } }
                tbody { @for (label, way, cells) in &rows { tr {
                    th scope="row" { (label) " " span class="of" { (way) } }
                    @for sum in cells { (cell(*sum)) }
                } } }
            }
        }
    })
}

fn of_connections(
    group: &Group<'_>,
    handshake: Handshake,
    read: fn(&crate::measure::record::Connection) -> Option<Wire>,
) -> Sum {
    let connections = group.trials.iter().flat_map(|trial| &trial.connections);
    let made = connections.filter(|made| made.handshake == handshake && made.failure.is_none());
    made.filter_map(read).fold(Sum::default(), |sum, wire| sum.add(wire, 1))
}

fn of_messages(group: &Group<'_>, read: fn(&crate::measure::record::WireCount) -> Option<Wire>) -> Sum {
    group.trials.iter().fold(Sum::default(), |sum, trial| {
        let counts = trial.wire.iter().filter(|count| count.phase == WirePhase::Workload);
        let Some(wire) = counts.filter_map(read).reduce(|a, b| a + b) else { return sum };
        sum.add(wire, trial.messages.iter().filter(|message| message.fate.arrived()).count() as u64)
    })
}

fn cell(sum: Sum) -> Markup {
    if sum.of == 0 {
        return html! { td class="n none" { "–" span class="sr" { "not measured" } } };
    }
    let mean = |total: u64| total as f64 / sum.of as f64;
    html! {
        td class="n" {
            (Unit::Count.format(mean(sum.wire.packets))) " packets"
            span class="ci" { (Unit::Bytes.format(mean(sum.wire.bytes))) ", n\u{a0}" (sum.of) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::analysis::groups;
    use crate::measure::sample;

    #[test]
    fn means_are_over_what_was_counted() {
        let mut record = sample::record();
        record.trials.truncate(1);
        let trial = &mut record.trials[0];
        let connection = trial.connections[0].clone();
        trial.connections = [100, 300]
            .map(|bytes| crate::measure::record::Connection {
                handshake: Handshake::Full,
                failure: None,
                client_to_connack: Some(Wire { packets: 2, bytes }),
                ..connection.clone()
            })
            .to_vec();
        let group = &groups(&record)[0];
        let sum = of_connections(group, Handshake::Full, CONNECTION_WAYS[0].1);
        assert_eq!((sum.of, sum.wire), (2, Wire { packets: 4, bytes: 400 }));
        assert_eq!(of_connections(group, Handshake::Resumed, CONNECTION_WAYS[0].1).of, 0);
        assert!(cell(sum).into_string().contains("200 B, n\u{a0}2"));
        assert!(cell(Sum::default()).into_string().contains("not measured"));
    }
}
