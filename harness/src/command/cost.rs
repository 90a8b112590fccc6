//! `harness cost --board qemu`.

use std::fmt::Write as _;

use serde_json::json;

use super::build::{Board, build_with_talk};
use super::size::grouped;
use super::{Exit, Failure, Format, print};
use crate::cost::{Connecting, Costs, Part, measure};
use crate::firmware::build::{Firmware, workspace};
use crate::firmware::size::Budgets;

/// Arguments of `harness cost`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The board; only the emulated one counts instructions exactly.
    #[arg(long, value_enum, default_value = "qemu")]
    board: Board,
    /// From which the client's randomness follows.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A figure against its ceiling.
struct Check {
    name: &'static str,
    value: u64,
    ceiling: u64,
    unit: &'static str,
}

impl Check {
    const fn holds(&self) -> bool {
        self.value <= self.ceiling
    }
}

/// Builds, runs, measures and judges.
pub fn run(arguments: &Arguments, format: Format) -> Result<Exit, Failure> {
    if arguments.board != Board::Qemu {
        return Err(Failure::usage(miette::miette!(
            help = "use `--board qemu`",
            "only the emulated board counts instructions one by one"
        )));
    }
    let budgets = Budgets::read(&workspace().join("device/boards/budgets.toml"))
        .map_err(|error| Failure::environment(miette::Report::msg(error)))?;
    let elf = build_with_talk(Firmware::Cost)?;
    let costs = measure(&elf, arguments.seed)
        .map_err(|error| Failure::environment(miette::Report::msg(error.to_string())))?;
    let checks = checks(&costs, &budgets)
        .ok_or_else(|| Failure::environment(miette::miette!("the session lacks one of its phases")))?;
    print(&match format {
        Format::Human => human(&costs, &checks),
        Format::Json => json_text(&costs, &checks),
    });
    Ok(Exit::from_verdict(checks.iter().all(Check::holds)))
}

/// What the budgets name, measured. `None` if a part or phase is missing.
fn checks(costs: &Costs, budgets: &Budgets) -> Option<Vec<Check>> {
    let Connecting { handshake, tickets, connect } = costs.connecting("full")?;
    let handshake = handshake + tickets;
    let check = |name, value, ceiling, unit| Check { name, value, ceiling, unit };
    let ceilings = &budgets.instructions;
    Some(vec![
        check("full handshake, first Initial included", handshake, ceilings.handshake, "instructions"),
        check(
            "full handshake by its public-key operations",
            (handshake * 100).div_ceil(costs.public_key_operations()),
            ceilings.handshake_percent,
            "%",
        ),
        check("CONNECT to CONNACK", connect, ceilings.connect, "instructions"),
        check("PUBLISH 64 B, QoS 0, sent", dearest(costs, "qos0")?, ceilings.publish_qos0, "instructions"),
        check(
            "PUBLISH 64 B, QoS 1, to PUBACK",
            dearest(costs, "qos1")?,
            ceilings.publish_qos1,
            "instructions",
        ),
        check(
            "client bytes to CONNACK",
            costs.parts("full").next()?.bytes,
            budgets.client.bytes_to_connack,
            "B",
        ),
        check("state of the client, datagram buffer included", costs.state, budgets.client.state, "B"),
        check("stack below its caller", costs.stack(), budgets.client.stack, "B"),
        check("state and stack", costs.state + costs.stack(), budgets.client.ram, "B"),
    ])
}

/// What the dearest message of that name took.
///
/// Passed over is one whose PUBACK was acknowledged at once, with a datagram of its own, which otherwise happens after the
/// part and is counted in `settle`: a gap in packet numbers demands that (RFC 9000 13.2.1), and the server leaves one
/// now and then to find out who acknowledges what was not sent (21.4), the first among 64 packets. If several are
/// acknowledged at once, the client does it of its own accord, and they are judged.
fn dearest(costs: &Costs, name: &str) -> Option<u64> {
    let passed_over = acknowledged_at_once(costs, name).count() == 1;
    let parts = costs.parts(name).filter(|part| !passed_over || part.datagrams < 2);
    parts.map(|part| part.instructions).max()
}

fn acknowledged_at_once<'c>(costs: &'c Costs, name: &str) -> impl Iterator<Item = &'c Part> {
    costs.parts(name).filter(|part| part.datagrams > 1)
}

fn human(costs: &Costs, checks: &[Check]) -> String {
    let mut text =
        String::from("The client on RV32IMC, at the profile that ships; instructions are exact.\n");
    for check in checks {
        let sign = if check.holds() { '✓' } else { '✗' };
        let Check { name, value, ceiling, unit } = check;
        let (value, ceiling) = (grouped(*value), grouped(*ceiling));
        let _ = writeln!(text, "  {sign} {name:<46} {value:>12} {unit}, at most {ceiling}");
    }
    let _ = writeln!(
        text,
        "\n  public-key operations of a full handshake: {} = X25519 share and agreement {} + 3 x P-256 verification {}",
        grouped(costs.public_key_operations()),
        grouped(costs.key_exchange),
        grouped(costs.verification)
    );
    let [chacha, aes] = costs.sealing.map(grouped);
    let _ = writeln!(text, "  a packet of 100 bytes sealed: ChaCha20-Poly1305 {chacha}, AES-128-GCM {aes}");
    if let Some(Connecting { handshake, tickets, connect }) = costs.connecting("full") {
        let _ = writeln!(
            text,
            "  the full connection: handshake {} + its ticket {} + CONNECT to CONNACK {}",
            grouped(handshake),
            grouped(tickets),
            grouped(connect)
        );
    }
    for part in acknowledged_at_once(costs, "qos1") {
        let _ = writeln!(
            text,
            "  a QoS 1 message whose PUBACK was acknowledged at once, as a packet number that the server skipped demands \
             (RFC 9000 13.2.1, 21.4), not after it: {}",
            grouped(part.instructions)
        );
    }
    let _ = writeln!(
        text,
        "\n  {:<26} {:>14} {:>10} {:>12} {:>12}",
        "part", "instructions", "stack B", "bytes sent", "datagrams"
    );
    for name in ["full", "resumed", "early", "qos0", "qos1", "qos2", "disconnect", "settle"] {
        row(&mut text, name, costs);
    }
    text.push_str("  The mean where there are several. `settle`: what follows a part, such as acknowledgements and tickets.\n");
    text
}

/// A part's means, and its phases.
fn row(text: &mut String, name: &str, costs: &Costs) {
    let parts: Vec<_> = costs.parts(name).collect();
    let Some(count) = u64::try_from(parts.len()).ok().filter(|count| *count > 0) else { return };
    let mean = |figure: fn(&Part) -> u64| parts.iter().map(|part| figure(part)).sum::<u64>() / count;
    let stack = parts.iter().map(|part| part.stack).max().unwrap_or(0);
    let _ = writeln!(
        text,
        "  {name:<26} {:>14} {:>10} {:>12} {:>12}",
        grouped(mean(|part| part.instructions)),
        grouped(stack),
        grouped(mean(|part| part.bytes)),
        mean(|part| part.datagrams)
    );
    for (phase, until) in parts.first().map_or(&[][..], |part| &part.phases) {
        let _ = writeln!(text, "    {:<24} {:>14}", phase.name(), grouped(*until));
    }
}

fn json_text(costs: &Costs, checks: &[Check]) -> String {
    let checks: Vec<_> = checks
        .iter()
        .map(|check| {
            json!({
                "name": check.name,
                "value": check.value,
                "ceiling": check.ceiling,
                "unit": check.unit,
                "passed": check.holds(),
            })
        })
        .collect();
    let parts: Vec<_> = costs
        .parts
        .iter()
        .map(|part| {
            let phases: Vec<_> = part
                .phases
                .iter()
                .map(|(phase, until)| json!({ "phase": phase.name(), "instructions_until": until }))
                .collect();
            json!({
                "name": part.name,
                "instructions": part.instructions,
                "handshake_packets_after_completion": part.handshake_packets,
                "tickets": part.tickets,
                "stack_bytes": part.stack,
                "sent_bytes": part.bytes,
                "sent_datagrams": part.datagrams,
                "phases": phases,
            })
        })
        .collect();
    let document = json!({
        "checks": checks,
        "state_bytes": costs.state,
        "key_exchange_instructions": costs.key_exchange,
        "verification_instructions": costs.verification,
        "sealing_instructions": { "chacha20_poly1305": costs.sealing[0], "aes_128_gcm": costs.sealing[1] },
        "parts": parts,
    });
    format!("{document:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::Phase;

    fn costs() -> Costs {
        let phases = vec![(Phase::HandshakeComplete, 24_000_000), (Phase::Connected, 24_050_000)];
        let full = Part {
            name: "full",
            instructions: 24_090_000,
            handshake_packets: 10_000,
            tickets: 20_000,
            stack: 9_000,
            bytes: 2_400,
            datagrams: 3,
            phases,
        };
        let message = |name, instructions| Part { name, instructions, ..Part::default() };
        Costs {
            state: 16_000,
            key_exchange: 6_000_000,
            verification: 6_000_000,
            sealing: [12_000, 50_000],
            parts: vec![full, message("qos0", 20_000), message("qos0", 40_000), message("qos1", 40_000)],
        }
    }

    fn budgets() -> Budgets {
        Budgets::read(&workspace().join("device/boards/budgets.toml")).expect("the committed file is valid")
    }

    #[test]
    fn the_dearest_of_several_messages_is_judged() {
        let checks = checks(&costs(), &budgets()).expect("all phases are there");
        let failed: Vec<_> = checks.iter().filter(|check| !check.holds()).map(|check| check.name).collect();
        assert_eq!(failed, ["PUBLISH 64 B, QoS 0, sent"]);
    }

    #[test]
    fn one_message_acknowledged_at_once_is_passed_over_and_two_are_not() {
        let mut costs = costs();
        let at_once = Part { name: "qos1", instructions: 61_000, datagrams: 2, ..Part::default() };
        costs.parts.push(at_once.clone());
        assert_eq!(dearest(&costs, "qos1"), Some(40_000));
        assert!(human(&costs, &[]).contains("not after it: 61,000"));
        costs.parts.push(at_once);
        assert_eq!(dearest(&costs, "qos1"), Some(61_000));
    }

    #[test]
    fn a_handshake_is_held_against_its_public_key_operations() {
        let mut costs = costs();
        costs.verification = 5_000_000;
        let checks = checks(&costs, &budgets()).expect("all phases are there");
        let ratio = checks.iter().find(|check| check.unit == "%").expect("it is judged");
        assert_eq!((ratio.value, ratio.holds()), (115, true));
        costs.verification = 4_900_000;
        assert!(!self::checks(&costs, &budgets()).expect("all phases").iter().all(Check::holds));
    }

    #[test]
    fn a_connection_is_the_sum_of_its_handshake_its_tickets_and_connect() {
        let connecting = costs().connecting("full").expect("all phases are there");
        let Connecting { handshake, tickets, connect } = connecting;
        assert_eq!((handshake, tickets, connect), (24_010_000, 20_000, 60_000));
    }

    #[test]
    fn a_session_without_connack_is_no_result() {
        let mut costs = costs();
        costs.parts[0].phases.pop();
        assert!(checks(&costs, &budgets()).is_none());
    }
}
