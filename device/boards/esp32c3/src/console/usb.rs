//! USB-Serial-JTAG (ESP32-C3 TRM 30): the chip's own USB port. The host sees one device with a serial port and JTAG.

use esp_hal::Blocking;
use esp_hal::peripherals::USB_DEVICE;
use esp_hal::usb::usb_serial_jtag::UsbSerialJtag;
use silicon::station::Sleep;

use crate::doorbell;

/// Its clock stands in light sleep: the host would see the cable pulled.
pub const SLEEP: Sleep = Sleep::Impossible;

/// The peripheral.
pub type Peripheral = USB_DEVICE<'static>;
/// Keeps the port's clock on.
pub type Port = UsbSerialJtag<'static, Blocking>;

/// Turns the port on.
pub fn init(peripheral: Peripheral) -> Port {
    let mut port = UsbSerialJtag::new(peripheral);
    port.set_interrupt_handler(on_receive);
    arm();
    port
}

/// Wakes the main loop, once per arming.
#[esp_hal::handler]
fn on_receive() {
    USB_DEVICE::regs().int_ena().modify(|_, w| w.serial_out_recv_pkt().clear_bit());
    doorbell::ring_from_interrupt();
}

/// Lets the next packet from the host raise the interrupt.
pub fn arm() {
    let regs = USB_DEVICE::regs();
    regs.int_clr().write(|w| w.serial_out_recv_pkt().clear_bit_by_one());
    regs.int_ena().modify(|_, w| w.serial_out_recv_pkt().set_bit());
}

/// Whether bytes wait.
pub fn has_input() -> bool {
    USB_DEVICE::regs().ep1_conf().read().serial_out_ep_data_avail().bit_is_set()
}

/// Takes one received byte.
pub fn read() -> Option<u8> {
    has_input().then(|| USB_DEVICE::regs().ep1().read().rdwr_byte().bits())
}

/// Puts one byte into the packet for the host, if there is room.
pub fn try_write(byte: u8) -> bool {
    let regs = USB_DEVICE::regs();
    let ready = regs.ep1_conf().read().serial_in_ep_data_free().bit_is_set();
    if ready {
        // SAFETY: the field takes any byte.
        regs.ep1().write(|w| unsafe { w.rdwr_byte().bits(byte) });
    }
    ready
}

/// Lets the host take what is in the packet.
pub fn flush() {
    USB_DEVICE::regs().ep1_conf().modify(|_, w| w.wr_done().set_bit());
}

/// Whether the host has taken everything.
pub fn is_drained() -> bool {
    USB_DEVICE::regs().ep1_conf().read().serial_in_ep_data_free().bit_is_set()
}
