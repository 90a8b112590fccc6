//! virtio-net as a smoltcp device, on static buffers.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use virtio_drivers::device::net::VirtIONetRaw;
use virtio_drivers::transport::mmio::{MmioTransport, VirtIOHeader};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

use crate::mmio::VIRTIO;

/// Descriptors per queue; a power of two, and twice the buffers because the driver may split header and body.
const QUEUE_LEN: usize = 16;
/// Frames that may wait for the firmware: a full flight of ten datagrams fits.
const RX_BUFFERS: usize = 12;
/// Frames on their way out.
const TX_BUFFERS: usize = 6;
/// virtio-net header and an Ethernet frame of 1514 bytes; the driver refuses receive buffers under 1526.
const BUFFER_LEN: usize = 1536;
/// Slot that QEMU gives to the first `-device virtio-net-device`.
const SLOT: usize = 7;
const SLOT_LEN: usize = 0x1000;

type Driver = VirtIONetRaw<IdentityHal, MmioTransport<'static>, QUEUE_LEN>;

/// The network interface.
pub struct Nic {
    driver: Driver,
    rx: [RxBuffer; RX_BUFFERS],
    tx: [TxBuffer; TX_BUFFERS],
    /// In lockstep: how many of the frames that wait may be taken.
    allowance: Option<u8>,
}

/// EtherType of lockstep's frames: IEEE 802's first one for local experiments.
const LOCKSTEP: [u8; 2] = [0x88, 0xb5];
/// Two addresses and the EtherType.
const ETHERNET_HEADER: usize = 14;

struct RxBuffer {
    bytes: [u8; BUFFER_LEN],
    /// The device's token while it owns the buffer.
    token: Option<u16>,
}

struct TxBuffer {
    bytes: [u8; BUFFER_LEN],
    len: usize,
    token: Option<u16>,
}

/// Why there is no network.
#[derive(Debug)]
pub enum NicError {
    /// QEMU was started without `-device virtio-net-device`.
    Absent,
    /// The device refused its initialisation.
    Driver,
}

impl Nic {
    /// Finds and starts the device. Receive buffers go to it at the first [`Nic::poll`], when `self` has reached
    /// its final place in memory.
    pub fn new() -> Result<Self, NicError> {
        let header =
            NonNull::new((VIRTIO + SLOT * SLOT_LEN) as *mut VirtIOHeader).expect("the address is not zero");
        // SAFETY: the slot's registers exist for the life of the machine and are used by this driver alone.
        let transport = unsafe { MmioTransport::new(header, SLOT_LEN) }.map_err(|_| NicError::Absent)?;
        let driver = Driver::new(transport).map_err(|_| NicError::Driver)?;
        Ok(Self {
            driver,
            rx: [const { RxBuffer { bytes: [0; BUFFER_LEN], token: None } }; RX_BUFFERS],
            tx: [const { TxBuffer { bytes: [0; BUFFER_LEN], len: 0, token: None } }; TX_BUFFERS],
            allowance: None,
        })
    }

    /// The interface's hardware address, as QEMU was told.
    pub fn mac(&self) -> [u8; 6] {
        self.driver.mac_address()
    }

    /// Clears the device's interrupt line.
    pub fn acknowledge(&mut self) {
        self.driver.ack_interrupt();
    }

    /// From now on frames wait until [`Nic::expect`] lets them in, and sending waits for room.
    pub fn hold(&mut self) {
        self.allowance = Some(0);
    }

    /// Lets `frames` more frames in, and waits for the first of them.
    pub fn expect(&mut self, frames: u8) {
        self.allowance = Some(frames);
        while frames > 0 && self.driver.poll_receive().is_none() {}
    }

    /// Whether a frame that was let in has not been taken yet.
    pub fn is_expecting(&self) -> bool {
        self.allowance.is_some_and(|allowance| allowance > 0)
    }

    /// The body of the order that has arrived, if one has. Anything else in its place is dropped.
    pub fn next_order(&mut self) -> Option<&[u8]> {
        self.poll();
        let (header, body) = self.take()?.split_at_checked(ETHERNET_HEADER)?;
        header.ends_with(&LOCKSTEP).then_some(body)
    }

    /// Answers an order.
    pub fn say(&mut self, numbers: &[u64]) {
        let mac = self.mac();
        self.wait_for_room();
        let Some(buffer) = self.tx.iter_mut().find(|buffer| buffer.token.is_none()) else { return };
        let token = TxToken { driver: &mut self.driver, buffer };
        phy::TxToken::consume(token, ETHERNET_HEADER + size_of_val(numbers), |frame| {
            frame[..6].fill(0xff);
            frame[6..12].copy_from_slice(&mac);
            frame[12..ETHERNET_HEADER].copy_from_slice(&LOCKSTEP);
            let rooms = frame[ETHERNET_HEADER..].chunks_exact_mut(size_of::<u64>());
            for (room, number) in rooms.zip(numbers) {
                room.copy_from_slice(&number.to_le_bytes());
            }
        });
    }

    /// In lockstep a full queue must not be seen: when it empties is the host's business.
    fn wait_for_room(&mut self) {
        while self.allowance.is_some() && self.tx.iter().all(|buffer| buffer.token.is_some()) {
            self.poll();
        }
    }

    /// The frame that arrived first, if there is one. Its buffer is free again afterwards.
    fn take(&mut self) -> Option<&[u8]> {
        let token = self.driver.poll_receive()?;
        let rx = self.rx.iter_mut().find(|buffer| buffer.token == Some(token))?;
        rx.token = None;
        // SAFETY: the same buffer that `receive_begin` got under this token.
        let (header, len) = unsafe { self.driver.receive_complete(token, &mut rx.bytes) }.ok()?;
        rx.bytes.get(header..header + len)
    }

    /// Hands free receive buffers to the device and takes sent ones back.
    ///
    /// `self` is in a `static`: its address is what the device writes to.
    fn poll(&mut self) {
        for buffer in &mut self.rx {
            if buffer.token.is_none() {
                // SAFETY: the buffer lives in a `static` and is not touched again until `receive` completes it.
                buffer.token = unsafe { self.driver.receive_begin(&mut buffer.bytes) }.ok();
            }
        }
        while let Some(token) = self.driver.poll_transmit() {
            let Some(buffer) = self.tx.iter_mut().find(|buffer| buffer.token == Some(token)) else {
                return;
            };
            // SAFETY: the same slice that `transmit_begin` got.
            let _ = unsafe { self.driver.transmit_complete(token, &buffer.bytes[..buffer.len]) };
            buffer.token = None;
        }
    }
}

/// A received frame.
pub struct RxToken<'a> {
    frame: &'a [u8],
}

/// Room for one frame to send.
pub struct TxToken<'a> {
    driver: &'a mut Driver,
    buffer: &'a mut TxBuffer,
}

impl phy::Device for Nic {
    type RxToken<'a> = RxToken<'a>;
    type TxToken<'a> = TxToken<'a>;

    fn receive(&mut self, _timestamp: Instant) -> Option<(RxToken<'_>, TxToken<'_>)> {
        self.poll();
        self.wait_for_room();
        if self.allowance == Some(0) {
            return None;
        }
        let tx = self.tx.iter_mut().find(|buffer| buffer.token.is_none())?;
        let token = self.driver.poll_receive()?;
        self.allowance = self.allowance.map(|allowance| allowance - 1);
        let rx = self.rx.iter_mut().find(|buffer| buffer.token == Some(token))?;
        rx.token = None;
        // SAFETY: the same buffer that `receive_begin` got under this token.
        let (header, len) = unsafe { self.driver.receive_complete(token, &mut rx.bytes) }.ok()?;
        let frame = rx.bytes.get(header..header + len)?;
        Some((RxToken { frame }, TxToken { driver: &mut self.driver, buffer: tx }))
    }

    fn transmit(&mut self, _timestamp: Instant) -> Option<TxToken<'_>> {
        self.poll();
        self.wait_for_room();
        let buffer = self.tx.iter_mut().find(|buffer| buffer.token.is_none())?;
        Some(TxToken { driver: &mut self.driver, buffer })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

impl phy::RxToken for RxToken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.frame)
    }
}

impl phy::TxToken for TxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let Self { driver, buffer } = self;
        let header =
            driver.fill_buffer_header(&mut buffer.bytes).expect("the buffer is longer than the header");
        buffer.len = header + len;
        let result = f(&mut buffer.bytes[header..header + len]);
        // SAFETY: the buffer lives in a `static` and stays untouched while its token is held.
        buffer.token = unsafe { driver.transmit_begin(&buffer.bytes[..buffer.len]) }.ok();
        result
    }
}

/// Pages the driver may take for its two queues: two each.
const DMA_PAGES: usize = 4;

#[repr(C, align(4096))]
struct DmaPages([u8; DMA_PAGES * PAGE_SIZE]);

static mut DMA: DmaPages = DmaPages([0; DMA_PAGES * PAGE_SIZE]);
static DMA_USED: AtomicUsize = AtomicUsize::new(0);

/// Physical addresses are addresses: the machine has no MMU.
struct IdentityHal;

// SAFETY: pages are handed out once from a static, aligned, zeroed array and never reused; without an MMU every
// address is its own physical address, and virtio on this machine is cache-coherent.
unsafe impl Hal for IdentityHal {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        // Plain load and store: one hart, no interrupts, and RV32IMC has no atomic read-modify-write.
        let first = DMA_USED.load(Ordering::Relaxed);
        if first + pages > DMA_PAGES {
            // Physical address zero is the driver's sign for "out of memory".
            return (0, NonNull::dangling());
        }
        DMA_USED.store(first + pages, Ordering::Relaxed);
        let base = (&raw mut DMA).cast::<u8>();
        // SAFETY: `first + pages <= DMA_PAGES`, so the result lies within the array.
        let start = unsafe { base.add(first * PAGE_SIZE) };
        (start as PhysAddr, NonNull::new(start).expect("a static is not at address zero"))
    }

    unsafe fn dma_dealloc(_paddr: PhysAddr, _vaddr: NonNull<u8>, _pages: usize) -> i32 {
        0
    }

    unsafe fn mmio_phys_to_virt(paddr: PhysAddr, _size: usize) -> NonNull<u8> {
        NonNull::new(paddr as usize as *mut u8).expect("no device is at address zero")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _direction: BufferDirection) -> PhysAddr {
        buffer.as_ptr().cast::<u8>() as PhysAddr
    }

    unsafe fn unshare(_paddr: PhysAddr, _buffer: NonNull<[u8]>, _direction: BufferDirection) {}
}
