//! One bidirectional stream: the sending and the receiving state machine (RFC 9000 3.1, 3.2).

use super::receive::{Memory, ReceiveBuffer, ReceiveMemory};
use super::{Error, SendBuffer, UseError};
use crate::quic::StreamId;

/// What reading a stream yields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Read {
    /// So many bytes were read; at least one.
    Bytes(usize),
    /// Nothing yet.
    Blocked,
    /// The peer finished the stream, and everything has been read.
    Finished,
    /// The peer gave up the stream with this code; what was not read is gone.
    Reset(u64),
}

/// RFC 9000 3.1, figure 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sending {
    /// Ready, Send and Data Sent: the buffer knows which.
    Open,
    /// RESET_STREAM is to be sent, or sent again.
    ResetPending { code: u64 },
    /// RESET_STREAM is under way.
    ResetSent { code: u64 },
    /// Data Recvd or Reset Recvd.
    Done,
}

/// RFC 9000 3.2, figure 3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Receiving {
    /// Recv, Size Known and Data Recvd: the buffer knows which.
    Open,
    /// This end does not read any more; what arrives is counted and dropped.
    Unwanted,
    /// Reset Recvd: the reader has not been told yet.
    Reset { code: u64 },
    /// Data Read or Reset Read.
    Done,
}

/// STOP_SENDING, from the wish to its acknowledgement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stop {
    None,
    Pending { code: u64 },
    Sent { code: u64 },
}

/// A slot for a stream. Its send buffer is part of it and is reused; its receive memory is lent to each call.
#[derive(Debug)]
pub(super) struct Stream<const SEND: usize> {
    pub(super) id: Option<StreamId>,
    pub(super) outgoing: SendBuffer<SEND>,
    pub(super) incoming: ReceiveBuffer,
    pub(super) sending: Sending,
    pub(super) receiving: Receiving,
    pub(super) stop: Stop,
    /// The offset up to which the peer lets this end send.
    pub(super) send_credit: u64,
    /// The offset up to which the peer may send.
    pub(super) receive_limit: u64,
    /// MAX_STREAM_DATA is to be sent.
    pub(super) limit_pending: bool,
    /// STREAM_DATA_BLOCKED is to be sent.
    pub(super) blocked_pending: bool,
    /// The credit that has been reported as too small.
    pub(super) blocked_at: Option<u64>,
    pub(super) events: Flags,
    /// A write found too little room: say when there is some.
    pub(super) writer_waits: bool,
    /// Offset up to which the reader has been told of data.
    pub(super) told_readable: u64,
}

/// Events not yet polled.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flags(u8);

impl Flags {
    pub(super) const OPENED: u8 = 1;
    pub(super) const READABLE: u8 = 1 << 1;
    pub(super) const WRITABLE: u8 = 1 << 2;
    pub(super) const DELIVERED: u8 = 1 << 3;
    pub(super) const RESET: u8 = 1 << 4;
    pub(super) const STOPPED: u8 = 1 << 5;

    pub(super) fn set(&mut self, flag: u8) {
        self.0 |= flag;
    }

    pub(super) fn take(&mut self, flag: u8) -> bool {
        let was = self.0 & flag != 0;
        self.0 &= !flag;
        was
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl<const SEND: usize> Stream<SEND> {
    pub(super) const fn vacant() -> Self {
        Self {
            id: None,
            outgoing: SendBuffer::new(),
            incoming: ReceiveBuffer::new(),
            sending: Sending::Done,
            receiving: Receiving::Done,
            stop: Stop::None,
            send_credit: 0,
            receive_limit: 0,
            limit_pending: false,
            blocked_pending: false,
            blocked_at: None,
            events: Flags(0),
            writer_waits: false,
            told_readable: 0,
        }
    }

    /// Forgets the stream, if there is one.
    pub(super) fn vacate(&mut self) {
        self.id = None;
        self.sending = Sending::Done;
        self.receiving = Receiving::Done;
        self.events = Flags::default();
        self.outgoing.restart(0);
        self.incoming = ReceiveBuffer::new();
    }

    /// Makes the slot a fresh stream. The buffers' bytes are left as they are.
    pub(super) fn open(
        &mut self,
        memory: &mut Memory<'_>,
        id: StreamId,
        send_limit: usize,
        send_credit: u64,
        receive_limit: u64,
    ) {
        self.id = Some(id);
        self.outgoing.restart(send_limit);
        self.incoming.restart(memory);
        self.sending = Sending::Open;
        self.receiving = Receiving::Open;
        self.stop = Stop::None;
        self.send_credit = send_credit;
        self.receive_limit = receive_limit;
        self.limit_pending = false;
        self.blocked_pending = false;
        self.blocked_at = None;
        self.events = Flags::default();
        self.writer_waits = false;
        self.told_readable = 0;
    }

    /// Both halves have ended and nobody needs to be told: the slot can be used again.
    pub(super) fn is_over(&self) -> bool {
        self.sending == Sending::Done && self.receiving == Receiving::Done && self.events.is_empty()
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<usize, UseError> {
        self.check_writable()?;
        let written = self.outgoing.write(bytes);
        if written < bytes.len() {
            self.writer_waits = true;
        }
        Ok(written)
    }

    pub(super) fn check_writable(&self) -> Result<(), UseError> {
        match self.sending {
            Sending::Open if !self.outgoing.is_finished() => Ok(()),
            Sending::Open | Sending::Done => Err(UseError::Finished),
            Sending::ResetPending { .. } | Sending::ResetSent { .. } => Err(UseError::Stopped),
        }
    }

    pub(super) fn reset(&mut self, code: u64) {
        if self.sending == Sending::Open {
            self.sending = Sending::ResetPending { code };
            self.blocked_pending = false;
        }
    }

    pub(super) fn read<const BLOCKS: usize>(
        &mut self,
        memory: &ReceiveMemory<BLOCKS>,
        index: usize,
        dest: &mut [u8],
    ) -> Result<Read, UseError> {
        match self.receiving {
            Receiving::Open => {
                let len = self.incoming.read(memory, index, dest);
                Ok(self.after_read(len))
            }
            Receiving::Reset { code } => {
                self.receiving = Receiving::Done;
                self.events.take(Flags::RESET);
                Ok(Read::Reset(code))
            }
            Receiving::Unwanted | Receiving::Done => Err(UseError::Finished),
        }
    }

    pub(super) fn after_read(&mut self, len: usize) -> Read {
        if len > 0 {
            return Read::Bytes(len);
        }
        if self.incoming.is_at_end() {
            self.receiving = Receiving::Done;
            self.events.take(Flags::READABLE);
            return Read::Finished;
        }
        Read::Blocked
    }

    /// Bytes of a STREAM frame. Returns by how much the highest offset grew.
    pub(super) fn on_stream(
        &mut self,
        memory: &mut Memory<'_>,
        offset: u64,
        bytes: &[u8],
        fin: bool,
    ) -> Result<u64, Error> {
        let before = self.incoming.highest();
        match self.receiving {
            Receiving::Open => {
                self.incoming.insert(memory, offset, bytes, fin, self.receive_limit)?;
                let ready = self.incoming.offset() + self.incoming.readable() as u64;
                let news = ready > self.told_readable || (fin && self.incoming.is_complete());
                if news {
                    self.told_readable = ready;
                    self.events.set(Flags::READABLE);
                }
            }
            Receiving::Unwanted => {
                let end = offset.checked_add(bytes.len() as u64).ok_or(Error::FlowControl)?;
                if end > self.receive_limit {
                    return Err(Error::FlowControl);
                }
                // The bytes themselves are not wanted, only where they end.
                self.incoming.skip_to(memory, end, fin)?;
            }
            // Retransmissions. They must still agree with the final size.
            Receiving::Reset { .. } | Receiving::Done => {
                let end = offset.saturating_add(bytes.len() as u64);
                self.incoming.check_final_size(end, fin)?;
            }
        }
        Ok(self.incoming.highest() - before)
    }

    /// RESET_STREAM. Returns by how much the highest offset grew.
    pub(super) fn on_reset(&mut self, code: u64, final_size: u64) -> Result<u64, Error> {
        let before = self.incoming.highest();
        let was_complete = self.incoming.is_complete();
        self.incoming.set_final_size(final_size, self.receive_limit)?;
        let grown = self.incoming.highest() - before;
        match self.receiving {
            // The end had come before (RFC 9000 3.2, Data Recvd).
            Receiving::Open if was_complete => {}
            Receiving::Open => {
                // All data is here already: the reader may as well have it.
                if !self.incoming.is_complete() {
                    self.receiving = Receiving::Reset { code };
                }
                self.events.set(Flags::RESET);
            }
            Receiving::Unwanted => self.receiving = Receiving::Done,
            _ => {}
        }
        Ok(grown)
    }
}
