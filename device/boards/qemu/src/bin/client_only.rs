//! The smallest program that links the whole client: what QUIC, TLS, MQTT and their cryptography cost in flash,
//! without a board, an IP stack or an agent around them. Built to be measured (`harness size`), not to be run.
#![no_std]
#![no_main]

#[path = "../shorter.rs"]
mod shorter;

use core::hint::black_box;
use core::mem::MaybeUninit;

use device::client::{
    Client, Config, Context, DatagramBuffer, Engine, Filter, Output, PathChange, Policy, Publication, Slot,
};
use device::crypto::Software;
use device::entropy::Entropy;
use device::time::Instant;
use device::{mqtt, quic, tls};

// `harness size` reads how large the client and its parts are on this target from the symbols of these; they take no
// flash (mutable: in `.bss`), and this program is not run.
/// The client with the buffer that it is lent.
#[used]
static mut SIZE_OF_CLIENT: MaybeUninit<[u8; Client::<Software>::BYTES]> = MaybeUninit::uninit();
#[used]
static mut SIZE_OF_DATAGRAM_BUFFER: MaybeUninit<DatagramBuffer> = MaybeUninit::uninit();
/// The MQTT session and the connection policy.
#[used]
static mut SIZE_OF_ENGINE: MaybeUninit<Engine> = MaybeUninit::uninit();
#[used]
static mut SIZE_OF_MQTT_SESSION: MaybeUninit<mqtt::Session> = MaybeUninit::uninit();
/// Within the QUIC connection, which is what the client has beside the engine.
#[used]
static mut SIZE_OF_TLS_HANDSHAKE: MaybeUninit<tls::Handshake<Software>> = MaybeUninit::uninit();
/// Kept beside the connection.
#[used]
static mut SIZE_OF_TLS_TICKET: MaybeUninit<tls::Ticket> = MaybeUninit::uninit();

/// Stands for a board's generator.
struct Opaque;

impl Entropy for Opaque {
    fn fill(&mut self, bytes: &mut [u8]) {
        black_box(bytes);
    }
}

/// Every call of the client's interface, with arguments the compiler cannot foresee.
#[riscv_rt::entry]
fn main() -> ! {
    let mut client = Client::<Software>::new();
    let mut datagram: DatagramBuffer = [0; size_of::<DatagramBuffer>()];
    let tls =
        black_box(tls::Config::new(black_box(&[]), black_box("broker"), black_box(b"mqtt"), black_box(0)));
    let config = Config {
        tls,
        quic: black_box(quic::Config::new()),
        mqtt: black_box(mqtt::Options::new("id")),
        policy: black_box(Policy::DEFAULT),
    };
    let mut entropy = Opaque;
    loop {
        let mut context = Context {
            now: Instant::from_micros(black_box(0)),
            config: black_box(&config),
            entropy: &mut entropy,
        };
        match black_box(0) {
            0 => client.connect(&mut context),
            1 => client.disconnect(&mut context),
            2 => drop(black_box(client.publish(&mut context, &black_box(Publication::new("t", b"payload"))))),
            3 => drop(black_box(client.subscribe(
                &mut context,
                black_box(Slot::CONTROL),
                black_box(&[Filter::new("t", mqtt::Qos::AtLeastOnce)]),
            ))),
            4 => {
                let _ = client.unsubscribe(&mut context, black_box(Slot::CONTROL), black_box(&["t"]));
            }
            5 => drop(black_box(client.migrate(&mut context, black_box(PathChange::Port)))),
            6 => client.update_keys(&mut context),
            7 => client.handle_datagram(&mut context, black_box(&mut datagram[..])),
            8 => client.handle_timeout(&mut context),
            9 => drop(black_box(client.stats())),
            10 => client.open_stream(black_box(Slot::CONTROL)),
            _ => {}
        }
        loop {
            match black_box(client.poll_output(&mut context, &mut datagram)) {
                Output::WaitUntil(_) => break,
                output => drop(black_box(output)),
            }
        }
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        riscv::asm::wfi();
    }
}
