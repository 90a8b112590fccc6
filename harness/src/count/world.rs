//! The clock of a count, and what is under way on the wire.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use device::control::Transport;
use simulate::{Clock, Random, Seeded};

use super::CountError;
use super::host::{Host, is_arp};
use super::machine::{Done, Machine};
use crate::board::Board;

/// One-way delay of the wire.
const DELAY: Duration = Duration::from_millis(20);

/// Board and host on one clock.
pub(super) struct World {
    now: Clock,
    machine: Machine,
    host: Host,
    /// Frames under way to the board, and to the host; first come, first served, as all take as long.
    to_board: VecDeque<(Clock, Vec<u8>)>,
    to_host: VecDeque<(Clock, Vec<u8>)>,
    wake: Option<Clock>,
    /// Draws the messages of signatures that are measured.
    random: Random,
}

impl World {
    pub(super) async fn start(
        board: &mut Board,
        transport: Transport,
        seeded: &Seeded,
        seed: u64,
    ) -> Result<Self, CountError> {
        let nic = board.take_nic().ok_or_else(|| io::Error::other("this board has no virtual NIC"))?;
        Ok(Self {
            now: Clock::START,
            machine: Machine::plug_in(nic).await?,
            host: Host::new(transport, seeded, seed),
            to_board: VecDeque::new(),
            to_host: VecDeque::new(),
            wake: None,
            random: Random::new(seed, 4_000),
        })
    }

    pub(super) const fn now(&self) -> Clock {
        self.now
    }

    /// Publishes a message to the board.
    pub(super) async fn publish(&mut self, topic: &str, payload: &[u8]) -> io::Result<()> {
        self.host.publish(self.now, topic, payload);
        self.collect();
        Ok(())
    }

    /// Instructions of the public-key operations of one handshake: an X25519 key pair and agreement, and three
    /// signatures verified, two of a chain leaf, intermediate, root, and one of CertificateVerify.
    pub(super) async fn public_key_costs(&mut self, seeded: &Seeded) -> io::Result<u64> {
        let mut spent: u64 = self.machine.key_exchange().await?.iter().sum();
        for _ in 0..3 {
            let message: [u8; 256] = self.random.array();
            let (public, signature) = seeded.sign(&message);
            spent += self.machine.verify(&public, &signature, &message).await?;
        }
        Ok(spent)
    }

    /// Lets the board do all that can be done now.
    pub(super) async fn settle(&mut self) -> io::Result<()> {
        let done = self.machine.step(self.now.as_micros(), None).await?;
        self.take_in(done);
        Ok(())
    }

    /// Jumps to what happens next, not beyond `deadline`. False if that is reached.
    pub(super) async fn advance(&mut self, deadline: Clock) -> io::Result<bool> {
        let first = |lane: &VecDeque<(Clock, Vec<u8>)>| lane.front().map(|(at, _)| *at);
        let moments =
            [first(&self.to_board), first(&self.to_host), self.wake, self.host.poll_timeout(self.now)];
        let Some(next) = moments.into_iter().flatten().min().filter(|next| *next <= deadline) else {
            self.now = self.now.max(deadline);
            return Ok(false);
        };
        self.now = self.now.max(next);
        while self.to_host.front().is_some_and(|(at, _)| *at <= self.now) {
            let (_, frame) = self.to_host.pop_front().expect("just seen");
            self.host.handle_frame(self.now, frame);
        }
        self.host.poll(self.now);
        self.collect();
        if self.to_board.front().is_some_and(|(at, _)| *at <= self.now) {
            let (_, frame) = self.to_board.pop_front().expect("just seen");
            let done = self.machine.step(self.now.as_micros(), Some(&frame)).await?;
            self.take_in(done);
        } else if self.wake.is_some_and(|wake| wake <= self.now) {
            self.settle().await?;
        }
        Ok(true)
    }

    fn take_in(&mut self, done: Done) {
        self.wake = done.wake_us.map(Clock::from_micros);
        for frame in done.frames {
            let at = if is_arp(&frame) { self.now } else { self.now + DELAY };
            if is_arp(&frame) {
                // A network that is set up: the question costs no round trip.
                self.host.handle_frame(at, frame);
                self.host.poll(at);
                self.collect();
            } else {
                self.to_host.push_back((at, frame));
            }
        }
    }

    /// Puts what the host sends on the wire.
    fn collect(&mut self) {
        while let Some(frame) = self.host.next_frame() {
            if is_arp(&frame) {
                self.to_board.push_front((self.now, frame));
            } else {
                self.to_board.push_back((self.now + DELAY, frame));
            }
        }
    }
}
