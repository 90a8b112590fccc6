//! What became of the messages a client sent, by its own account.

use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::Clock;

/// What became of one message of a workload, as its sender saw it. Microseconds of the trial's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sending {
    /// Its number in the run.
    pub sequence: u32,
    /// When it was due.
    pub intended_us: u64,
    /// When it was handed to the transport.
    pub sent_us: Option<u64>,
    /// When PUBACK or PUBCOMP arrived.
    pub acked_us: Option<u64>,
    /// The reason code of a negative acknowledgement.
    pub refused: Option<u8>,
}

/// What became of the messages of one workload, as their sender saw it.
#[derive(Debug)]
pub struct SendLog {
    clock: Clock,
    sendings: Mutex<Vec<Sending>>,
    progress: watch::Sender<usize>,
}

impl SendLog {
    /// An empty log; the messages to come are numbered from 0.
    #[must_use]
    pub fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self { clock, sendings: Mutex::default(), progress: watch::Sender::new(0) })
    }

    /// What became of each message so far, by number.
    #[must_use]
    pub fn sendings(&self) -> Vec<Sending> {
        self.lock().clone()
    }

    /// Resolves once `count` messages are settled: acknowledged, or sent if nothing acknowledges them.
    pub async fn settled(&self, count: usize) {
        let mut progress = self.progress.subscribe();
        // The sender lives as long as `self`.
        let _ = progress.wait_for(|settled| *settled >= count).await;
    }

    pub(super) fn due(&self, sequence: u32, intended_us: u64) {
        let mut sendings = self.lock();
        debug_assert_eq!(sendings.len(), sequence as usize, "numbered without gaps");
        sendings.push(Sending { sequence, intended_us, sent_us: None, acked_us: None, refused: None });
    }

    pub(super) fn sent(&self, sequence: u32) {
        let now = self.clock.now_us();
        self.change(sequence, |sending| {
            sending.sent_us.get_or_insert(now);
        });
    }

    pub(super) fn acked(&self, sequence: u32, code: u8) {
        let now = self.clock.now_us();
        let mut is_first = false;
        self.change(sequence, |sending| {
            is_first = sending.acked_us.is_none() && sending.refused.is_none();
            if code >= 0x80 {
                sending.refused = Some(code);
            } else {
                sending.acked_us.get_or_insert(now);
            }
        });
        // A message that was sent twice is acknowledged twice, and settled once.
        if is_first {
            self.settle_one();
        }
    }

    pub(super) fn settle_one(&self) {
        self.progress.send_modify(|settled| *settled += 1);
    }

    fn change(&self, sequence: u32, change: impl FnOnce(&mut Sending)) {
        if let Some(sending) = self.lock().get_mut(sequence as usize) {
            change(sending);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Sending>> {
        self.sendings.lock().expect("no holder of this lock panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_acknowledged_twice_is_settled_once() {
        let log = SendLog::new(Clock::start());
        for sequence in 0..3 {
            log.due(sequence, 0);
        }
        for (sequence, code, settled) in [(0, 0, 1), (0, 0, 1), (1, 0x97, 2), (1, 0, 2), (2, 0x10, 3)] {
            log.acked(sequence, code);
            assert_eq!(*log.progress.borrow(), settled, "{sequence} {code:#x}");
        }
        let refused: Vec<_> = log.sendings().iter().map(|sending| sending.refused).collect();
        assert_eq!(refused, [None, Some(0x97), None]);
    }
}
