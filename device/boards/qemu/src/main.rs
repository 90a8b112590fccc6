//! The QEMU board: an emulated RV32IMC machine with the memory of an ESP32-C3.
//!
//! The same `Node` as on every board, plus what this machine needs: virtio-net, a 16550 console, the CLINT's
//! clock, `wfi`, a painted and guarded stack, and a trap handler with a stack of its own.
#![no_std]
#![no_main]

mod board;
mod clock;
mod entropy;
mod interrupts;
mod lockstep;
mod memory;
mod mmio;
mod nic;
mod once;
mod power;
mod shorter;
mod trap;
mod uart;

use device::crypto::Software;
use device::mqtt::session::SLOTS;
use device::node::{Loan, Node, Storage};
use device::time::{Duration, Instant};

use nic::Nic;
use once::Once;

/// QUIC streams the board has room for.
const STREAMS: usize = if cfg!(feature = "streams") { SLOTS } else { 1 };
/// The firmware's agent.
type Agent = Node<'static, Software, STREAMS>;

static NIC: Once<Nic> = Once::new();
static STORAGE: Once<Storage<'static, Software, STREAMS>> = Once::new();
static NODE: Once<Agent> = Once::new();
static ENTROPY: Once<entropy::Seeded> = Once::new();

/// While the console owes room for reports: the UART takes a byte in about this time.
const CONSOLE_RETRY: Duration = Duration::from_micros(100);

#[riscv_rt::entry]
fn main() -> ! {
    memory::init();
    uart::init();
    interrupts::init();
    let (nic, node) = start();
    let mut board = board::Qemu::new(nic.mac());
    if memory::boot_options().lockstep {
        memory::repaint();
        lockstep::run(nic, node, &mut board);
    }
    let entropy = ENTROPY.fill(entropy::Seeded::new());
    let mut console = board::Uart;
    // What moving the state into place took of the stack is no part of any phase.
    memory::repaint();
    loop {
        let mut loan = Loan { nic, console: &mut console, board: &mut board, entropy };
        let wake_at = node.poll(clock::now(), &mut loan);
        let wake_at = match wake_at {
            wake_at if node.has_output() => {
                let retry = clock::now() + CONSOLE_RETRY;
                wake_at.map_or(retry, |wake_at| wake_at.min(retry))
            }
            Some(wake_at) => wake_at,
            None => Instant::from_micros(u64::MAX / 1_000),
        };
        if wake_at > clock::now() {
            clock::sleep_until(wake_at);
        }
        if interrupts::acknowledge() {
            nic.acknowledge();
        }
    }
}

/// Moves the NIC and the agent to where they stay; apart from `main`, so that their temporaries leave the stack.
#[inline(never)]
fn start() -> (&'static mut Nic, &'static mut Agent) {
    let nic = NIC.fill(
        Nic::new().expect("QEMU has -device virtio-net-device and -global virtio-mmio.force-legacy=false"),
    );
    (nic, NODE.fill(Node::new(STORAGE.fill(Storage::new()))))
}
