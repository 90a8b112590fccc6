//! The receiving side of a byte stream: a bounded ring that puts bytes in order (RFC 9000 2.2).
//!
//! Which bytes beyond the first gap have arrived is a bitmap, not a list of ranges: it cannot overflow, so
//! whatever the window admits can be kept, and a packet once acknowledged never needs to be sent again.

use super::Error;
use crate::redacted::redacted_debug;

/// Bytes per block: as many as a word has bits.
pub const BLOCK: usize = 32;

/// The memory of all receive buffers of a connection: `BLOCKS` blocks, dealt out evenly to the streams.
///
/// Before the handshake is complete no stream data can arrive: until then the whole of it serves to
/// reassemble handshake messages, and afterwards the blocks at its end that were not dealt out.
pub struct ReceiveMemory<const BLOCKS: usize> {
    ring: [[u8; BLOCK]; BLOCKS],
    /// One bit per byte beyond a stream's first gap.
    present: [u32; BLOCKS],
    per_stream: usize,
}

redacted_debug! {
    [const BLOCKS: usize] ReceiveMemory<BLOCKS>, "ReceiveMemory",
    shown: [present, per_stream], length: [ring], hidden: []
}

/// The memory of one stream.
pub struct Memory<'a> {
    ring: &'a mut [u8],
    present: &'a mut [u32],
}

redacted_debug! { [] Memory<'_>, "Memory", shown: [present], length: [ring], hidden: [] }

impl<const BLOCKS: usize> ReceiveMemory<BLOCKS> {
    /// Memory that has not been dealt out.
    pub const fn new() -> Self {
        Self { ring: [[0; BLOCK]; BLOCKS], present: [0; BLOCKS], per_stream: 0 }
    }

    /// Deals all but the last `reserved` blocks out to `streams` streams.
    pub const fn deal(&mut self, streams: usize, reserved: usize) {
        self.per_stream = BLOCKS.saturating_sub(reserved) / streams;
    }

    /// Bytes of each stream.
    pub const fn per_stream(&self) -> usize {
        self.per_stream * BLOCK
    }

    /// The memory of the stream in slot `index`.
    pub fn of(&mut self, index: usize) -> Memory<'_> {
        let blocks = index * self.per_stream..(index + 1) * self.per_stream;
        Memory { ring: self.ring[blocks.clone()].as_flattened_mut(), present: &mut self.present[blocks] }
    }

    /// The bytes of the stream in slot `index`.
    fn bytes(&self, index: usize) -> &[u8] {
        self.ring[index * self.per_stream..(index + 1) * self.per_stream].as_flattened()
    }

    /// All of it, as one run of bytes.
    pub const fn as_bytes(&self) -> &[u8] {
        self.ring.as_flattened()
    }

    /// All of it, as one run of bytes.
    pub const fn as_mut_bytes(&mut self) -> &mut [u8] {
        self.ring.as_flattened_mut()
    }
}

impl<const BLOCKS: usize> Default for ReceiveMemory<BLOCKS> {
    fn default() -> Self {
        Self::new()
    }
}

/// Bytes received and not yet read. The bytes themselves are in the [`Memory`] that is lent to each call,
/// always the same one.
#[derive(Clone, Debug, Default)]
pub struct ReceiveBuffer {
    capacity: usize,
    /// Where in the ring the byte at `start` is.
    head: usize,
    /// Offset of the next byte to be read.
    start: u64,
    /// Bytes from `start` without a gap.
    ready: usize,
    /// Offset behind the highest byte received.
    highest: u64,
    final_size: Option<u64>,
}

impl ReceiveBuffer {
    /// A buffer without memory, to be started.
    pub const fn new() -> Self {
        Self { capacity: 0, head: 0, start: 0, ready: 0, highest: 0, final_size: None }
    }

    /// Begins a stream with an empty buffer in `memory`.
    pub fn restart(&mut self, memory: &mut Memory<'_>) {
        *self = Self { capacity: memory.ring.len(), ..Self::new() };
        memory.present.fill(0);
    }

    /// Offset of the next byte to be read.
    pub const fn offset(&self) -> u64 {
        self.start
    }

    /// Offset behind the highest byte received: what flow control counts.
    pub const fn highest(&self) -> u64 {
        self.highest
    }

    /// How many bytes can be read now.
    pub const fn readable(&self) -> usize {
        self.ready
    }

    /// Bytes held, gaps included.
    pub const fn span(&self) -> usize {
        (self.highest - self.start) as usize
    }

    /// The size of the whole stream, once the peer has told it.
    pub const fn final_size(&self) -> Option<u64> {
        self.final_size
    }

    /// Whether every byte up to the end has been read.
    pub fn is_at_end(&self) -> bool {
        self.final_size == Some(self.start)
    }

    /// Whether every byte up to the end has arrived.
    pub fn is_complete(&self) -> bool {
        self.final_size == Some(self.start + self.ready as u64)
    }

    /// Takes the bytes of a STREAM frame. Repeated bytes are ignored.
    ///
    /// # Errors
    /// [`Error::FlowControl`] beyond the offset `limit` or what the buffer holds, [`Error::FinalSize`] for
    /// ends that contradict each other. The buffer is unchanged then.
    pub fn insert(
        &mut self,
        memory: &mut Memory<'_>,
        offset: u64,
        bytes: &[u8],
        fin: bool,
        limit: u64,
    ) -> Result<(), Error> {
        let end = offset.checked_add(bytes.len() as u64).ok_or(Error::FlowControl)?;
        self.check_final_size(end, fin)?;
        if end > limit.min(self.start + self.capacity as u64) {
            return Err(Error::FlowControl);
        }
        if fin {
            self.final_size = Some(end);
        }
        let contiguous = self.start + self.ready as u64;
        let had_gaps = self.highest > contiguous;
        self.highest = self.highest.max(end);
        if end <= contiguous {
            return Ok(());
        }
        let skip = contiguous.saturating_sub(offset) as usize;
        let bytes = &bytes[skip..];
        let from = (offset + skip as u64 - self.start) as usize;
        self.store(memory, from, bytes);
        if from > self.ready {
            self.mark(memory, from, bytes.len());
            return Ok(());
        }
        if had_gaps {
            self.unmark(memory, from, bytes.len());
        }
        self.ready += bytes.len();
        if had_gaps {
            self.close_gap(memory);
        }
        Ok(())
    }

    /// The peer says that the stream ends at `size` (RESET_STREAM).
    ///
    /// # Errors
    /// [`Error::FinalSize`] if that contradicts what was received, [`Error::FlowControl`] beyond `limit`.
    pub fn set_final_size(&mut self, size: u64, limit: u64) -> Result<(), Error> {
        self.check_final_size(size, true)?;
        if size > limit {
            return Err(Error::FlowControl);
        }
        self.final_size = Some(size);
        self.highest = size;
        Ok(())
    }

    /// Moves bytes in order into `dest`. Returns how many.
    pub fn read<const BLOCKS: usize>(
        &mut self,
        memory: &ReceiveMemory<BLOCKS>,
        index: usize,
        dest: &mut [u8],
    ) -> usize {
        let mut len = 0;
        // A second round where the ring wraps.
        for _ in 0..2 {
            let available = self.peek(memory, index);
            let part = available.len().min(dest.len() - len);
            dest[len..len + part].copy_from_slice(&available[..part]);
            self.consume(part);
            len += part;
        }
        len
    }

    /// The bytes in order that lie together in memory: all that can be read, or the part before the wrap.
    pub fn peek<'m, const BLOCKS: usize>(&self, memory: &'m ReceiveMemory<BLOCKS>, index: usize) -> &'m [u8] {
        let together = self.ready.min(self.capacity - self.head);
        &memory.bytes(index)[self.head..self.head + together]
    }

    /// Drops `len` bytes that have been looked at. At most what is readable.
    pub fn consume(&mut self, len: usize) {
        let len = len.min(self.ready);
        self.start += len as u64;
        self.ready -= len;
        self.head = self.index(len);
    }

    /// Drops everything that has arrived, gaps and all: nobody will read it. Returns how many bytes of
    /// flow control that frees.
    pub fn discard(&mut self, memory: &mut Memory<'_>) -> u64 {
        let freed = self.highest - self.start;
        memory.present.fill(0);
        self.ready = 0;
        self.start = self.highest;
        self.head = 0;
        freed
    }

    /// Counts bytes up to `end` as received and read, whatever they were.
    ///
    /// # Errors
    /// [`Error::FinalSize`] for ends that contradict each other.
    pub fn skip_to(&mut self, memory: &mut Memory<'_>, end: u64, fin: bool) -> Result<(), Error> {
        self.check_final_size(end, fin)?;
        if fin {
            self.final_size = Some(end);
        }
        self.highest = self.highest.max(end);
        self.discard(memory);
        Ok(())
    }

    /// Whether an end at `end`, the last one if `fin`, agrees with what is known.
    ///
    /// # Errors
    /// [`Error::FinalSize`] if not.
    pub fn check_final_size(&self, end: u64, fin: bool) -> Result<(), Error> {
        let contradicts = match self.final_size {
            Some(size) => end > size || (fin && end != size),
            None => fin && end < self.highest,
        };
        if contradicts { Err(Error::FinalSize) } else { Ok(()) }
    }

    /// Copies `bytes` to `from` bytes behind the head.
    fn store(&self, memory: &mut Memory<'_>, from: usize, bytes: &[u8]) {
        let at = self.index(from);
        let until_wrap = bytes.len().min(self.capacity - at);
        memory.ring[at..at + until_wrap].copy_from_slice(&bytes[..until_wrap]);
        memory.ring[..bytes.len() - until_wrap].copy_from_slice(&bytes[until_wrap..]);
    }

    fn mark(&self, memory: &mut Memory<'_>, from: usize, len: usize) {
        self.for_each_word(memory, from, len, |word, mask| {
            *word |= mask;
            true
        });
    }

    fn unmark(&self, memory: &mut Memory<'_>, from: usize, len: usize) {
        self.for_each_word(memory, from, len, |word, mask| {
            *word &= !mask;
            true
        });
    }

    /// Extends what is ready by the marked bytes behind it.
    fn close_gap(&mut self, memory: &mut Memory<'_>) {
        let mut found = 0;
        self.for_each_word(memory, self.ready, self.capacity - self.ready, |word, mask| {
            let first = mask.trailing_zeros();
            let wanted = mask.count_ones();
            let run = ((*word & mask) >> first).trailing_ones().min(wanted);
            found += run as usize;
            // `run` is at most 32 - first, so shifting in two steps never overflows.
            *word &= !(mask_of(run) << first);
            run == wanted
        });
        self.ready += found;
    }

    /// Calls `f` with each word of the bitmap that `len` bytes from `from` touch, and the bits they touch,
    /// until it says no.
    fn for_each_word(
        &self,
        memory: &mut Memory<'_>,
        from: usize,
        len: usize,
        mut f: impl FnMut(&mut u32, u32) -> bool,
    ) {
        let mut at = self.index(from);
        let mut left = len;
        while left > 0 {
            let bit = at % BLOCK;
            let bits = left.min(BLOCK - bit);
            if !f(&mut memory.present[at / BLOCK], mask_of(bits as u32) << bit) {
                return;
            }
            left -= bits;
            at += bits;
            if at == self.capacity {
                at = 0;
            }
        }
    }

    fn index(&self, from: usize) -> usize {
        let at = self.head + from;
        if at >= self.capacity { at - self.capacity } else { at }
    }
}

/// The low `bits` bits; at most 32.
const fn mask_of(bits: u32) -> u32 {
    if bits >= u32::BITS { u32::MAX } else { (1 << bits) - 1 }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// A buffer with memory of its own: the second stream's of two.
    struct Owned {
        memory: ReceiveMemory<5>,
        buffer: ReceiveBuffer,
    }

    impl Owned {
        fn new() -> Self {
            let mut memory = ReceiveMemory::new();
            memory.deal(2, 1);
            let mut buffer = ReceiveBuffer::new();
            buffer.restart(&mut memory.of(1));
            Self { memory, buffer }
        }

        fn insert(&mut self, offset: u64, bytes: &[u8], fin: bool, limit: u64) -> Result<(), Error> {
            self.buffer.insert(&mut self.memory.of(1), offset, bytes, fin, limit)
        }

        fn read(&mut self, dest: &mut [u8]) -> usize {
            self.buffer.read(&self.memory, 1, dest)
        }
    }

    #[test]
    fn bytes_are_readable_in_order_only() {
        let mut buffer = Owned::new();
        buffer.insert(3, b"def", false, 64).unwrap();
        assert_eq!(buffer.buffer.readable(), 0);
        buffer.insert(0, b"abc", true, 64).unwrap_err();
        buffer.insert(0, b"abc", false, 64).unwrap();
        let mut read = [0; 8];
        assert_eq!(buffer.read(&mut read), 6);
        assert_eq!(&read[..6], b"abcdef");
    }

    #[test]
    fn the_window_is_enforced() {
        let mut buffer = Owned::new();
        assert_eq!(buffer.insert(0, &[0; 11], false, 10), Err(Error::FlowControl));
        assert_eq!(buffer.insert(u64::MAX, &[0; 1], false, u64::MAX), Err(Error::FlowControl));
        assert_eq!(buffer.insert(64, &[0; 1], false, u64::MAX), Err(Error::FlowControl));
        buffer.insert(0, &[0; 10], false, 10).unwrap();
    }

    #[test]
    fn contradictory_ends_are_refused() {
        let mut buffer = Owned::new();
        buffer.insert(0, b"abc", true, 64).unwrap();
        assert_eq!(buffer.insert(0, b"abcd", false, 64), Err(Error::FinalSize));
        assert_eq!(buffer.insert(0, b"ab", true, 64), Err(Error::FinalSize));
        assert_eq!(buffer.buffer.set_final_size(4, 64), Err(Error::FinalSize));
        assert_eq!(buffer.buffer.set_final_size(3, 64), Ok(()));
        buffer.insert(1, b"bc", true, 64).unwrap();
    }

    #[test]
    fn a_full_window_out_of_order_in_single_bytes_fits() {
        let mut buffer = Owned::new();
        let mut skip = [0; 20];
        buffer.insert(0, &[0; 20], false, 64).unwrap();
        buffer.read(&mut skip);
        for offset in (20..84).rev().step_by(2).chain((20..84).step_by(2)) {
            buffer.insert(offset, &[offset as u8], false, 84).unwrap();
        }
        let mut read = [0; 64];
        assert_eq!(buffer.read(&mut read), 64);
        assert!(read.iter().copied().eq(20..84));
    }

    proptest! {
        #[test]
        fn any_order_and_overlap_yields_the_stream(
            data in proptest::collection::vec(any::<u8>(), 1..400),
            pieces in proptest::collection::vec((any::<prop::sample::Index>(), 1_usize..40, 0_usize..50), 0..200),
        ) {
            let mut buffer = Owned::new();
            let mut read: Vec<u8> = Vec::new();
            let mut have = std::vec![false; data.len()];
            let read_some = |buffer: &mut Owned, read: &mut Vec<u8>, want: usize| {
                let mut dest = std::vec![0; want];
                let len = buffer.read(&mut dest);
                read.extend_from_slice(&dest[..len]);
            };
            for (index, len, want) in pieces {
                let limit = read.len() + 64;
                let start = index.index(data.len()).min(read.len() + 63);
                let end = (start + len).min(data.len()).min(limit);
                if start >= end { continue; }
                buffer.insert(start as u64, &data[start..end], end == data.len(), limit as u64).unwrap();
                have[start..end].fill(true);
                let contiguous = have.iter().take_while(|&&have| have).count();
                prop_assert_eq!(buffer.buffer.readable(), contiguous - read.len());
                read_some(&mut buffer, &mut read, want);
                prop_assert!(buffer.buffer.span() <= 64);
            }
            while read.len() < data.len() {
                let end = (read.len() + 64).min(data.len());
                let start = read.len();
                buffer.insert(start as u64, &data[start..end], end == data.len(), end as u64).unwrap();
                read_some(&mut buffer, &mut read, 64);
            }
            prop_assert!(buffer.buffer.is_at_end());
            prop_assert_eq!(read, data);
        }
    }
}
