//! UART0 at 115,200 baud on its default pins (GPIO21 out, GPIO20 in), where a bridge on the board takes it to USB.
//! The ROM speaks at the same speed.

use esp_hal::Blocking;
use esp_hal::peripherals::{GPIO20, GPIO21, UART0};
use esp_hal::uart::{Config, Uart};
use silicon::station::Sleep;

use crate::doorbell;

/// A UART keeps its pins and settings through a sleep; what arrives meanwhile is lost.
pub const SLEEP: Sleep = Sleep::Possible;

/// The peripheral and its pins, in and out.
pub type Peripheral = (UART0<'static>, GPIO20<'static>, GPIO21<'static>);
/// Keeps the port's clock on.
pub type Port = Uart<'static, Blocking>;

const FIFO_LEN: u16 = 128;

/// Turns the port on.
pub fn init((uart, rx, tx): Peripheral) -> Port {
    let config = Config::default().with_baudrate(115_200);
    // Without a pin of its own the driver ties the receiver to a constant high: nothing would ever arrive.
    let port = Uart::new(uart, config).expect("115,200 baud is within the divider's range");
    let mut port = port.with_rx(rx).with_tx(tx);
    port.set_interrupt_handler(on_receive);
    arm();
    port
}

/// Wakes the main loop, once per arming.
#[esp_hal::handler]
fn on_receive() {
    UART0::regs().int_ena().modify(|_, w| w.rxfifo_full().clear_bit().rxfifo_tout().clear_bit());
    doorbell::ring_from_interrupt();
}

/// Lets the next bytes raise the interrupt.
pub fn arm() {
    let regs = UART0::regs();
    regs.int_clr().write(|w| w.rxfifo_full().clear_bit_by_one().rxfifo_tout().clear_bit_by_one());
    regs.int_ena().modify(|_, w| w.rxfifo_full().set_bit().rxfifo_tout().set_bit());
}

/// Whether bytes wait.
pub fn has_input() -> bool {
    UART0::regs().status().read().rxfifo_cnt().bits() > 0
}

/// Takes one received byte.
pub fn read() -> Option<u8> {
    has_input().then(|| UART0::regs().fifo().read().rxfifo_rd_byte().bits())
}

fn waiting() -> u16 {
    UART0::regs().status().read().txfifo_cnt().bits()
}

/// Sends one byte, if the FIFO has room.
pub fn try_write(byte: u8) -> bool {
    let ready = waiting() < FIFO_LEN - 1;
    if ready {
        // SAFETY: the field takes any byte.
        UART0::regs().fifo().write(|w| unsafe { w.rxfifo_rd_byte().bits(byte) });
    }
    ready
}

/// A UART sends by itself.
pub fn flush() {}

/// Whether everything was sent.
pub fn is_drained() -> bool {
    waiting() == 0
}
