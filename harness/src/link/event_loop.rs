//! The thread every carrier runs in: sleeps until a socket is ready or something is due.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use link::Action;
use rustix::event::{PollFd, PollFlags, Timespec};

use super::handle::{Command, Happening};
use super::shaper::{Due, Shaper};

/// Names a socket among those a carrier waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Wake,
    Listener,
    Nic,
    Udp(u64),
    Tcp(u64),
}

/// What carries packets to the link and away from it.
pub(super) trait Carrier {
    /// A packet on its way.
    type Packet: Clone + Send;

    /// Whether it ends TCP connections itself, so that their handshakes do not cross the link.
    const ENDS_TCP: bool = false;

    /// Takes a packet that came out of the link.
    fn deliver(&mut self, due: Due<Self::Packet>, shaper: &mut Shaper<Self::Packet>);

    /// Carries out a rebinding or address change; returns what could not be done as asked.
    fn perform(&mut self, action: Action) -> Option<String>;

    /// Reads the sockets that are ready and sends what they hold into the link. Called after every wake-up,
    /// with nothing ready if only time has passed.
    ///
    /// # Errors
    /// Only those that end the carrier for good.
    fn pump(&mut self, ready: &[Token], shaper: &mut Shaper<Self::Packet>) -> std::io::Result<()>;

    /// Names the sockets to wait for.
    fn interest<'a>(&'a self, interest: &mut Interest<'a>);

    /// When the carrier wants to be called even if nothing is ready; `Some(ZERO)` is at once.
    fn next_timeout(&mut self, now: Duration) -> Option<Duration>;
}

/// The sockets to wait for.
pub(super) struct Interest<'a> {
    fds: Vec<PollFd<'a>>,
    tokens: Vec<Token>,
}

impl<'a> Interest<'a> {
    fn new() -> Self {
        Self { fds: Vec::with_capacity(8), tokens: Vec::with_capacity(8) }
    }

    /// Waits for something to read.
    pub(super) fn read(&mut self, fd: &'a impl AsFd, token: Token) {
        self.add(fd.as_fd(), PollFlags::IN, token);
    }

    /// Waits for room to write.
    pub(super) fn write(&mut self, fd: &'a impl AsFd, token: Token) {
        self.add(fd.as_fd(), PollFlags::OUT, token);
    }

    fn add(&mut self, fd: BorrowedFd<'a>, flags: PollFlags, token: Token) {
        self.fds.push(PollFd::from_borrowed_fd(fd, flags));
        self.tokens.push(token);
    }

    /// Sleeps until one is ready or `timeout` has passed; leaves the ready ones in `ready`.
    fn wait(mut self, timeout: Option<Duration>, ready: &mut Vec<Token>) -> std::io::Result<()> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        ready.clear();
        match rustix::event::poll(&mut self.fds, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) | Ok(0) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(_) => {
                let polled = self.fds.iter().zip(&self.tokens);
                ready.extend(polled.filter(|(fd, _)| !fd.revents().is_empty()).map(|(_, token)| *token));
                Ok(())
            }
        }
    }
}

/// Runs `carrier` until it is told to stop.
pub(super) fn run<C: Carrier>(mut carrier: C, mut shaper: Shaper<C::Packet>, woken: &UnixStream) {
    // Linux rounds sleeps up by 50 us to spare the CPU; a link has to be on time. Best effort: without it
    // deliveries are that much later.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(TIMER_SLACK_NS));
    if let Err(error) = turn_until_stopped(&mut carrier, &mut shaper, woken) {
        shaper.shared().fail(format!("the link ended early: {error}"));
    }
    shaper.finish();
}

/// How much later than asked the kernel may wake the link's thread, to bundle timers.
#[cfg(target_os = "linux")]
const TIMER_SLACK_NS: u64 = 1_000;

fn turn_until_stopped<C: Carrier>(
    carrier: &mut C,
    shaper: &mut Shaper<C::Packet>,
    woken: &UnixStream,
) -> std::io::Result<()> {
    let mut ready = Vec::new();
    loop {
        if ready.contains(&Token::Wake) {
            drain(woken);
            for command in shaper.shared().take_commands() {
                match command {
                    Command::Stop => return Ok(()),
                    Command::Event(name) => shaper.on_event(name),
                    Command::Perform(action) => perform(carrier, shaper, action),
                }
            }
            shaper.publish_hash();
        }
        while let Some(performed) = shaper.poll_action() {
            perform(carrier, shaper, performed.action);
        }
        while let Some(due) = shaper.pop_due() {
            carrier.deliver(due, shaper);
        }
        carrier.pump(&ready, shaper)?;
        // Asked first: it may still change the carrier.
        let now = shaper.now();
        let wanted = carrier.next_timeout(now);
        let due = shaper.next_at().map(|at| at.saturating_sub(shaper.now()));
        let timeout = [wanted, due].into_iter().flatten().min();
        let mut interest = Interest::new();
        interest.read(woken, Token::Wake);
        carrier.interest(&mut interest);
        interest.wait(timeout, &mut ready)?;
    }
}

fn perform<C: Carrier>(carrier: &mut C, shaper: &mut Shaper<C::Packet>, action: Action) {
    let note = match action {
        Action::Rebind | Action::AddressChange => carrier.perform(action),
        // The model itself sees to blackouts.
        Action::BlackoutStart { .. } | Action::BlackoutEnd { .. } => None,
    };
    shaper.happened(Happening::Action { action, note });
}

fn drain(mut woken: &UnixStream) {
    let mut bytes = [0; 64];
    while woken.read(&mut bytes).is_ok_and(|read| read == bytes.len()) {}
}
