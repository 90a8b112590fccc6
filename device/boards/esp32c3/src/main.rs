//! The ESP32-C3 board: the firmware on silicon, with Wi-Fi.
//!
//! The same `Node` as on every board, plus what this chip needs: the radio with its scheduler and heap, a console
//! over USB or UART, the random number generator, AES and SHA units, a painted stack, crash reports, a watchdog.
#![no_std]
#![no_main]

extern crate alloc;

mod board;
mod clock;
mod console;
mod doorbell;
mod entropy;
mod memory;
mod nic;
mod once;
mod power;
mod radio;
mod shorter;
mod trap;
#[cfg(feature = "accelerators")]
mod units;

use core::task::{Context, Waker};

use device::control::Accelerators;
use device::node::{Loan, Node, Storage};
use device::time::{Duration, Instant};
use esp_hal::clock::CpuClock;
use esp_hal::peripherals::{AES, SHA};
use esp_hal::timer::timg::TimerGroup;
use silicon::station::Sleep;

use board::Esp32c3;
use console::Serial;
use nic::Nic;
use once::Once;
use power::Watchdog;
use radio::Radio;

#[cfg(feature = "accelerators")]
type Crypto = silicon::accelerated::Accelerated<units::Hardware>;
#[cfg(not(feature = "accelerators"))]
type Crypto = device::crypto::Software;

type Agent = Node<'static, Crypto>;

static STORAGE: Once<Storage<'static, Crypto>> = Once::new();
static NODE: Once<Agent> = Once::new();

/// While the console owes room for reports: a USB host asks every millisecond at the latest.
const CONSOLE_RETRY: Duration = Duration::from_micros(500);
/// Longest wait: the watchdog and the cycle counter want to see the main loop.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// A console that was used lately is not slept over.
const CONSOLE_QUIET: Duration = Duration::from_secs(3);

// What the second-stage bootloader and flashing tools look for.
esp_bootloader_esp_idf::esp_app_desc!();

#[esp_hal::main]
fn main() -> ! {
    let peripherals = esp_hal::init(esp_hal::Config::default().with_cpu_clock(CpuClock::_160MHz));
    power::watch_supply();
    memory::init_heap();
    let timers = TimerGroup::new(peripherals.TIMG0);
    let sleep = esp_rtos::sleep::configure(peripherals.LPWR);
    // Sleeps when no task runs, unless somebody holds it awake: the radio while it is on, the console on USB.
    esp_rtos::start_with_idle_hook(timers.timer0, peripherals.FROM_CPU_INTR0, sleep.light_sleep_hook);
    doorbell::init();
    #[cfg(feature = "uart-console")]
    let console = Serial::new((peripherals.UART0, peripherals.GPIO20, peripherals.GPIO21));
    #[cfg(not(feature = "uart-console"))]
    let console = Serial::new(peripherals.USB_DEVICE);

    // From here on a unit or a radio that never answers is reported as a hang.
    let watchdog = Watchdog::start(timers.wdt);
    let accelerators = accelerators(peripherals.AES, peripherals.SHA);
    let mut radio = Radio::new();
    radio.start(peripherals.WIFI).expect("the radio starts: its heap is all there");
    let nic = Nic::new();
    let board = Esp32c3::new(nic.mac(), accelerators, radio);
    let node = start();
    // What moving the state into place took of the stack is no part of any phase.
    memory::repaint();
    serve(node, nic, console, board, watchdog)
}

/// Turns the AES and SHA units on and tests them.
#[cfg(feature = "accelerators")]
fn accelerators(aes: AES<'static>, sha: SHA<'static>) -> Accelerators {
    units::init(aes, sha)
}

/// There is nothing to turn on.
#[cfg(not(feature = "accelerators"))]
fn accelerators(_: AES<'static>, _: SHA<'static>) -> Accelerators {
    Accelerators::Absent
}

/// Moves the agent to where it stays; apart from `main`, so that its temporaries leave the stack.
#[inline(never)]
fn start() -> &'static mut Agent {
    NODE.fill(Node::new(STORAGE.fill(Storage::new())))
}

/// The main loop.
fn serve(
    node: &mut Agent,
    mut nic: Nic,
    mut console: Serial,
    mut board: Esp32c3,
    mut watchdog: Watchdog,
) -> ! {
    let waker: Waker = doorbell::waker();
    let mut context = Context::from_waker(&waker);
    let mut entropy = entropy::Hardware;
    loop {
        watchdog.feed();
        board.radio.poll(&mut context);
        nic.follow(board.radio.state());
        board.times.airtime_max = nic.airtime_max();
        let mut loan =
            Loan { nic: &mut nic, console: &mut console, board: &mut board, entropy: &mut entropy };
        let wake_at = node.poll(clock::now(), &mut loan);
        // What a command asked of the radio starts at once.
        board.radio.poll(&mut context);

        console.arm();
        let frame = nic.arm(&mut context);
        if node.accepts_input() && (frame || console.has_input()) {
            continue;
        }
        let now = clock::now();
        let is_quiet = now.saturating_since(console.active_at()) >= CONSOLE_QUIET;
        if console::SLEEP == Sleep::Possible
            && is_quiet
            && !node.has_output()
            && let Some(until) = board.radio.sleep_until(wake_at)
        {
            console.drain();
            watchdog.pause();
            let slept = power::in_light_sleep(|| {
                // A ring from before the sleep is no reason to wake.
                while clock::now() < until && !console.has_input() {
                    doorbell::wait_until(until);
                }
            });
            watchdog.resume();
            board.radio.wake();
            let waited = clock::now().saturating_since(now);
            if slept {
                board.times.asleep = board.times.asleep + waited;
            } else {
                board.times.idle = board.times.idle + waited;
            }
            continue;
        }
        let retry = node.has_output().then(|| now + CONSOLE_RETRY);
        let due = [wake_at, retry, board.radio.due(), Some(now + WAIT_MAX)];
        let until = due.into_iter().flatten().min().unwrap_or(Instant::ZERO);
        if until > now {
            doorbell::wait_until(until);
            board.times.idle = board.times.idle + clock::now().saturating_since(now);
        }
    }
}
