//! Lockstep: the harness owns the clock, so that what the client is given, and when, is the same on every run.
//!
//! For exact instruction counts QEMU counts (`-icount`), and nothing may depend on how fast the host is. So time
//! stands still while the firmware works. The harness moves it on by frames of an EtherType of their own among the
//! frames of the virtual wire, and each is answered when all that it brought about is done:
//!
//! ```text
//! order   Ethernet header | kind u8 | ...
//!   0 step          time in us, u64 | frames that follow, u8: 0 or 1
//!   1 key exchange
//!   2 verify        length u8, public key | length u8, signature | length u16, message
//! answer  Ethernet header | numbers, u64 each
//!   0 step          when the agent wants to be called again, in us; all ones for never
//!   1 key exchange  instructions of an X25519 key pair, and of an agreement
//!   2 verify        instructions of verifying the P-256 signature; 0 for a wrong one
//! ```
//! Numbers are little-endian.

use device::crypto::key_exchange::{NamedGroup, PrivateKey, SHARE_LEN_MAX};
use device::crypto::signature::FOR_CERTIFICATES;
use device::entropy::Entropy;
use device::node::Loan;
use device::time::Instant;

use crate::nic::Nic;
use crate::{Agent, board, clock, entropy, interrupts, uart};

/// "Never", as an answer.
const NEVER: u64 = u64::MAX;

/// What the harness asks for.
enum Order {
    Step {
        time_us: u64,
        frames: u8,
    },
    /// Done already: the answer.
    Measured([u64; 2]),
}

/// Runs the agent in lockstep for ever.
pub fn run(nic: &mut Nic, node: &mut Agent, board: &mut board::Qemu) -> ! {
    let mut entropy = entropy::Seeded::frozen();
    let mut now = Instant::ZERO;
    nic.hold();
    let mut answer_due = false;
    loop {
        let wake_at = settle(nic, node, board, &mut entropy, now);
        if core::mem::take(&mut answer_due) {
            nic.say(&[wake_at.map_or(NEVER, Instant::as_micros)]);
        }
        // A command may come meanwhile. It is carried out in the present; the step that follows is its answer.
        while !uart::has_input() {
            match nic.next_order().and_then(parse) {
                Some(Order::Step { time_us, frames }) => {
                    now = Instant::from_micros(time_us);
                    nic.expect(frames);
                    answer_due = true;
                    break;
                }
                Some(Order::Measured(numbers)) => nic.say(&numbers),
                None => {
                    clock::sleep();
                    interrupts::acknowledge();
                    nic.acknowledge();
                }
            }
        }
    }
}

/// Lets the agent do all that can be done at `now`, and returns when it wants to be called again.
fn settle(
    nic: &mut Nic,
    node: &mut Agent,
    board: &mut board::Qemu,
    entropy: &mut entropy::Seeded,
    now: Instant,
) -> Option<Instant> {
    loop {
        let mut console = board::PatientUart;
        let wake_at = node.poll(now, &mut Loan { nic: &mut *nic, console: &mut console, board, entropy });
        let is_due = wake_at.is_some_and(|wake_at| wake_at <= now);
        if !is_due && !node.has_output() && !nic.is_expecting() {
            return wake_at;
        }
    }
}

/// Reads an order, and carries out what is measured; `None` if it is malformed.
fn parse(body: &[u8]) -> Option<Order> {
    let (kind, body) = body.split_first()?;
    Some(match kind {
        0 => {
            let (time, rest) = body.split_first_chunk()?;
            Order::Step { time_us: u64::from_le_bytes(*time), frames: *rest.first()? }
        }
        1 => Order::Measured(key_exchange_cost()),
        2 => {
            let (public, body) = counted(body)?;
            let (signature, body) = counted(body)?;
            let (len, body) = body.split_first_chunk()?;
            let message = body.get(..usize::from(u16::from_le_bytes(*len)))?;
            Order::Measured([verification_cost(public, signature, message), 0])
        }
        _ => return None,
    })
}

/// A string behind its length.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*len))
}

#[inline(never)]
fn key_exchange_cost() -> [u64; 2] {
    let (mut share, mut peer) = ([0; SHARE_LEN_MAX], [0; SHARE_LEN_MAX]);
    let generate = |number| PrivateKey::generate(NamedGroup::X25519, &mut Repeated(number));
    let start = clock::instructions();
    let Some(key) = generate(1) else { return [0; 2] };
    key.share(&mut share);
    let generated = clock::instructions();
    let len = generate(2).map_or(0, |other| other.share(&mut peer));
    let before = clock::instructions();
    core::hint::black_box(key.agree(&peer[..len]).is_some());
    [generated - start, clock::instructions() - before]
}

#[inline(never)]
fn verification_cost(public: &[u8], signature: &[u8], message: &[u8]) -> u64 {
    let start = clock::instructions();
    let verdict = FOR_CERTIFICATES[0].verify_signature(public, message, signature);
    let spent = clock::instructions() - start;
    if verdict.is_ok() { spent } else { 0 }
}

/// The same byte again and again: keys of a measurement protect nothing.
struct Repeated(u8);

impl Entropy for Repeated {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill(self.0);
    }
}
