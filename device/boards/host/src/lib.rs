//! The host board: the device firmware as a process.
//!
//! Its NIC and its console are two unix stream sockets that the harness listens on. Everything else is
//! the process's own: the monotonic clock, the kernel's randomness, a thread of known stack size. The
//! process ends when its console or its standard input closes, so nothing is left behind when its
//! harness dies.

#![forbid(unsafe_code)]

mod arguments;
mod board;
mod console;
mod entropy;
mod nic;

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::{io, process, thread};

use device::crypto::Software;
use device::mqtt::session::SLOTS;
use device::node::{Loan, Node, Storage};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use arguments::Arguments;
use board::{HostBoard, Next};
use console::SocketConsole;
pub use entropy::SeededEntropy;
pub use nic::SocketNic;

/// The hidden subcommand under which the harness runs itself as a board.
pub const SUBCOMMAND: &str = "board-host";

/// QUIC streams the board has room for: all that a session can use.
const STREAMS: usize = SLOTS;

/// Exit code of a board that could not start: wrong arguments, or nobody listens.
const CANNOT_START: u8 = 3;

/// Stack of the board's thread: far more than the firmware takes, little enough that recursion
/// without end is found at once.
const STACK_SIZE: usize = 512 * 1024;

/// Runs the board until its console closes. `arguments` are those behind [`SUBCOMMAND`]:
/// `--nic PATH --console PATH [--seed N] [--mac XX:XX:XX:XX:XX:XX]`.
pub fn run(arguments: impl IntoIterator<Item = String>) -> ExitCode {
    match start(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("host board: {error}");
            ExitCode::from(CANNOT_START)
        }
    }
}

fn start(arguments: impl IntoIterator<Item = String>) -> Result<(), String> {
    let arguments = Arguments::parse(arguments)?;
    hold_on_to_parent();
    let connect = |path: &str| {
        UnixStream::connect(path).and_then(|stream| stream.set_nonblocking(true).map(|()| stream)).map_err(
            |error| format!("cannot connect to {path}: {error}; the harness has to listen there first"),
        )
    };
    let console = connect(&arguments.console)?;
    let nic = connect(&arguments.nic)?;
    console::report_panics(&console).map_err(|error| format!("cannot duplicate the console: {error}"))?;
    let mut entropy = SeededEntropy::new(arguments.seed);
    let mut board = HostBoard::new(arguments.mac);
    loop {
        let next = boot(&console, &nic, &mut entropy, &mut board)
            .map_err(|error| format!("waiting for the sockets failed: {error}"))?;
        match next {
            Next::Reboot => board.on_reboot(),
            Next::Run | Next::Exit => return Ok(()),
        }
    }
}

/// Ends the process when its standard input does, even if the board hangs: the harness holds the other
/// end and lets go when it dies, however it dies. (The kernel's parent-death signal would fire when the
/// *thread* that spawned us ends.)
fn hold_on_to_parent() {
    thread::spawn(|| {
        // An error is as good as an end.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        process::exit(0);
    });
}

/// One life of the board, from boot to reboot or end, on a thread of its own.
fn boot(
    console: &UnixStream,
    nic: &UnixStream,
    entropy: &mut SeededEntropy,
    board: &mut HostBoard,
) -> io::Result<Next> {
    // On the heap, so that the stack figures are the firmware's alone.
    let mut storage = Box::new(Storage::<Software, STREAMS>::new());
    let mut node = Box::new(Node::new(&mut storage));
    thread::scope(|scope| {
        let life = thread::Builder::new()
            .name("board".into())
            .stack_size(STACK_SIZE)
            .spawn_scoped(scope, || live(&mut node, console, nic, entropy, board))?;
        life.join().unwrap_or(Ok(Next::Exit))
    })
}

/// The main loop: poll the node, sleep until a socket or the clock calls.
fn live(
    node: &mut Node<'_, Software, STREAMS>,
    console: &UnixStream,
    nic: &UnixStream,
    entropy: &mut SeededEntropy,
    board: &mut HostBoard,
) -> io::Result<Next> {
    let mut nic = SocketNic::new(nic);
    let mut console = SocketConsole::new(console);
    board.on_boot(STACK_SIZE);
    loop {
        let now = board.clock();
        let wake = node.poll(now, &mut Loan { nic: &mut nic, console: &mut console, board, entropy });
        board.set_link(!nic.is_closed());
        if console.is_closed() {
            return Ok(Next::Exit);
        }
        if board.next() != Next::Run {
            return Ok(board.next());
        }
        let wait = wake.map(|wake| wake.saturating_since(board.clock()));
        if wait.is_some_and(|wait| wait.is_zero()) {
            continue;
        }
        let input = if node.accepts_input() { PollFlags::IN } else { PollFlags::empty() };
        let output = |wanted| if wanted { PollFlags::OUT } else { PollFlags::empty() };
        let nic_flags = if nic.is_closed() { PollFlags::empty() } else { input | output(nic.has_output()) };
        let mut sockets = [
            PollFd::from_borrowed_fd(console.as_fd(), input | output(node.has_output())),
            PollFd::from_borrowed_fd(nic.as_fd(), nic_flags),
        ];
        // A closed NIC would report its hang-up for ever.
        let watched = if nic.is_closed() { &mut sockets[..1] } else { &mut sockets[..] };
        let timeout = wait.map(|wait| Timespec {
            tv_sec: (wait.as_micros() / 1_000_000).try_into().unwrap_or(i64::MAX),
            tv_nsec: (wait.as_micros() % 1_000_000 * 1_000) as _,
        });
        match poll(watched, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
