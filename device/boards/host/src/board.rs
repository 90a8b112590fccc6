//! What the process can say about itself.

use std::alloc::Layout;
use std::hint::black_box;
use std::io::{Read, Seek, SeekFrom};
use std::time::Instant as Clock;
use std::{alloc, fs, thread};

use device::control::{Fault, ResetReason};
use device::node::{Board, Figures};
use device::time::Instant;

/// The process as a board.
pub(crate) struct HostBoard {
    mac: [u8; 6],
    reset: ResetReason,
    next: Next,
    link_up: bool,
    stack: Stack,
    booted: Clock,
}

/// What the main loop does after a poll.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// Go on.
    Run,
    /// Boot again.
    Reboot,
    /// End the process.
    Exit,
}

impl HostBoard {
    pub(crate) fn new(mac: [u8; 6]) -> Self {
        let stack = Stack { top: 0, size: 0 };
        let booted = Clock::now();
        Self { mac, reset: ResetReason::PowerOn, next: Next::Run, link_up: true, stack, booted }
    }

    /// The board's thread starts: its stack begins about here.
    #[inline(never)]
    pub(crate) fn on_boot(&mut self, stack_size: usize) {
        self.next = Next::Run;
        self.booted = Clock::now();
        let here = 0u8;
        self.stack = Stack { top: (&raw const here).addr(), size: stack_size };
    }

    /// The next boot follows a reboot by command.
    pub(crate) fn on_reboot(&mut self) {
        self.reset = ResetReason::Software;
    }

    pub(crate) fn set_link(&mut self, up: bool) {
        self.link_up = up;
    }

    /// Time since boot.
    pub(crate) fn clock(&self) -> Instant {
        Instant::from_micros(u64::try_from(self.booted.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    pub(crate) fn next(&self) -> Next {
        self.next
    }
}

impl Board for HostBoard {
    fn name(&self) -> &str {
        "host"
    }

    fn reset_reason(&self) -> ResetReason {
        self.reset
    }

    fn hardware_address(&self) -> [u8; 6] {
        self.mac
    }

    fn now(&self) -> Option<Instant> {
        Some(self.clock())
    }

    fn figures(&mut self) -> Figures {
        Figures {
            stack_max: self.stack.high_water(),
            stack_size: u32::try_from(self.stack.size).ok(),
            ..Figures::default()
        }
    }

    fn link_is_up(&self) -> bool {
        self.link_up
    }

    fn crash(&mut self, fault: Fault) {
        match fault {
            Fault::Panic => panic!("asked to panic"),
            Fault::StackOverflow => {
                black_box(recurse(1));
            }
            Fault::Hang => loop {
                thread::park();
            },
            // What Rust does when memory runs out; the size is beyond any address space.
            Fault::Exhaustion => alloc::handle_alloc_error(
                Layout::array::<u8>(isize::MAX as usize - 1).expect("the largest layout there is"),
            ),
        }
    }

    fn reboot(&mut self) {
        self.next = Next::Reboot;
    }
}

#[expect(unconditional_recursion, reason = "this is how a stack overflows")]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    recurse(depth + 1) + frame[0]
}

/// The stack of the board's thread.
struct Stack {
    top: usize,
    size: usize,
}

impl Stack {
    /// Deepest use below [`HostBoard::on_boot`]'s frame in bytes, rounded up to pages: the pages of a
    /// stack are touched from the top down without a gap (every frame larger than a page probes
    /// each), and the kernel tells of each page whether it ever was. `None` where it does not tell.
    ///
    /// The resident size of the stack's mapping would not do: the kernel joins a mapping with its
    /// neighbours, and then counts their pages too.
    fn high_water(&self) -> Option<u32> {
        let page = rustix::param::page_size();
        let first = self.top.checked_sub(self.size)? / page;
        let last = self.top / page;
        let mut pagemap = fs::File::open("/proc/self/pagemap").ok()?;
        pagemap.seek(SeekFrom::Start(u64::try_from(first * PAGEMAP_ENTRY).ok()?)).ok()?;
        let mut entries = vec![0; (last - first + 1) * PAGEMAP_ENTRY];
        pagemap.read_exact(&mut entries).ok()?;
        let touched = |entry: &&[u8; PAGEMAP_ENTRY]| u64::from_le_bytes(**entry) & PAGE_TOUCHED != 0;
        let (entries, _) = entries.as_chunks();
        let pages = entries.iter().rev().take_while(touched).count();
        u32::try_from(self.top.checked_sub((last + 1).checked_sub(pages)? * page)?).ok()
    }
}

/// Bytes of one page's entry in `/proc/self/pagemap`.
const PAGEMAP_ENTRY: usize = 8;

/// Bits 63 and 62 of an entry, "page present" and "page swapped" (Linux, `admin-guide/mm/pagemap`).
const PAGE_TOUCHED: u64 = 0b11 << 62;

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn touch(bytes: usize) -> u8 {
        let page = black_box([1u8; 4096]);
        if bytes > 4096 { touch(bytes - 4096) ^ page[7] } else { page[9] }
    }

    #[test]
    fn the_stack_high_water_grows_with_use_and_does_not_fall() {
        let measured = thread::Builder::new().stack_size(512 * 1024).spawn(|| {
            let mut board = HostBoard::new([2, 0, 0, 0, 0, 1]);
            board.on_boot(512 * 1024);
            let before = board.figures().stack_max;
            black_box(touch(128 * 1024));
            (before, board.figures().stack_max, board.figures().stack_max)
        });
        let (before, after, later) = measured.expect("a thread").join().expect("no panic");
        // Where the kernel does not tell there is nothing to check but that nothing is made up.
        let (Some(before), Some(after), Some(later)) = (before, after, later) else {
            assert_eq!((before, after), (None, None));
            return;
        };
        assert!(before < 64 * 1024, "{before}");
        assert!((128 * 1024..400 * 1024).contains(&after), "{after}");
        assert_eq!(later, after);
    }
}
