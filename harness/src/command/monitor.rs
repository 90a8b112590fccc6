//! `harness monitor`: the console of a tethered board, crash addresses decoded, the board reset by a key.

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use device::control::Report;
use device::control::frame::{Decoder, FRAME_MAX, Piece};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::sync::mpsc;

use super::interrupt::Signals;
use super::tethered::{Which, failure};
use super::{Exit, Failure, seconds, talk};
use crate::board::esp32c3::port::{Into, Port};
use crate::board::esp32c3::rom::{Origin, Sorter, annotate};
use crate::board::esp32c3::{Fault, Incoming, Session};
use crate::firmware::elf::Elf;

/// Arguments of `harness monitor`.
#[derive(Debug, clap::Args)]
#[command(after_help = KEYS)]
pub struct Arguments {
    #[command(flatten)]
    which: Which,
    /// The firmware's ELF, for backtraces.
    #[arg(long, value_name = "FILE")]
    elf: Option<PathBuf>,
    /// Reset the board first.
    #[arg(long)]
    reset: bool,
    /// End after so many seconds.
    #[arg(long = "for", value_name = "SECONDS", value_parser = seconds())]
    duration: Option<u64>,
}

const KEYS: &str = "Keys: r resets the board into its firmware, d into the ROM's loader, q ends.";

/// Shows the console until a key, a signal, the time or the board ends it.
pub fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let open = |path: &std::path::Path| {
        let wrong = |cause: String| failure(Fault::WrongElf { path: path.into(), cause });
        Elf::open(path).map_err(|error| wrong(error.to_string()))
    };
    let elf = arguments.elf.as_deref().map(open).transpose()?;
    let chosen = arguments.which.choose()?;
    let product = chosen.found.usb.as_ref().map(|usb| usb.product);
    let port = Port::open(&chosen.found.port, product).map_err(failure)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::environment(miette::miette!("no runtime: {error}")))?;
    let limit = arguments.duration.map(Duration::from_secs);
    let (session, incoming) = Session::start(port).map_err(failure)?;
    let first = arguments.reset.then_some(Into::Firmware);
    runtime.block_on(show(session, incoming, elf.as_ref(), limit, first))
}

/// Shows what `incoming` brings; `first` is where the board is reset to before.
async fn show(
    mut session: Session,
    mut incoming: Incoming,
    elf: Option<&Elf>,
    limit: Option<Duration>,
    first: Option<Into>,
) -> Result<Exit, Failure> {
    let path = session.port().path().to_path_buf();
    if let Some(into) = first {
        session.reset(into).map_err(failure)?;
    }
    // Before the terminal loses its manners: a signal must not keep it from getting them back.
    let mut signals = Signals::listen();
    let (mut keys, _terminal) = keys();
    let mut screen = Screen { elf, decoder: Decoder::new(), sorter: Sorter::default() };
    let deadline = limit.map(|limit| Instant::now() + limit);
    loop {
        let left =
            deadline.map_or(Duration::from_secs(3600), |at| at.saturating_duration_since(Instant::now()));
        tokio::select! {
            chunk = incoming.next() => match chunk {
                None => return Err(failure(Fault::Pulled { port: path })),
                Some(chunk) => if !screen.show(&chunk) { return Ok(Exit::Passed) },
            },
            key = keys.recv() => {
                let into = match key {
                    Some(b'q') => return Ok(Exit::Passed),
                    Some(b'r') => Into::Firmware,
                    Some(b'd') => Into::Loader,
                    _ => continue,
                };
                if let Err(fault) = session.reset(into) {
                    talk(&fault.told());
                }
            }
            () = signals.any() => return Ok(Exit::Passed),
            () = tokio::time::sleep(left), if deadline.is_some() => return Ok(Exit::Passed),
        }
    }
}

struct Screen<'e> {
    elf: Option<&'e Elf>,
    decoder: Decoder<FRAME_MAX>,
    sorter: Sorter,
}

impl Screen<'_> {
    /// Shows what came; `false` once nobody reads it.
    fn show(&mut self, bytes: &[u8]) -> bool {
        let mut input = bytes;
        let mut text = String::new();
        while let Some(piece) = self.decoder.next(&mut input) {
            match piece {
                Piece::Text(line) => {
                    let line = String::from_utf8_lossy(line).into_owned();
                    let line = line.trim_end_matches(['\r', '\n']);
                    text.push_str(line);
                    text.push('\n');
                    if self.sorter.sort(line) == Origin::Crash {
                        for frame in self.elf.map(|elf| annotate(elf, line)).unwrap_or_default() {
                            text.push_str(&format!("    {frame}\n"));
                        }
                    }
                }
                Piece::Message(message) => match Report::decode(message) {
                    Ok(report) => text.push_str(&format!("< {report:?}\n")),
                    Err(_) => text.push_str("! a frame of another protocol version\n"),
                },
                Piece::Damaged(bytes) => text.push_str(&format!("! {} damaged bytes\n", bytes.len())),
            }
        }
        use std::io::Write as _;
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_ok()
    }
}

/// Gives the terminal its manners back.
struct Terminal(Termios);

impl Drop for Terminal {
    fn drop(&mut self) {
        // A terminal that is gone needs none.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Keys as they are pressed, where a person is at a terminal.
fn keys() -> (mpsc::UnboundedReceiver<u8>, Option<Terminal>) {
    let (sender, keys) = mpsc::unbounded_channel();
    if !std::io::stdin().is_terminal() {
        // Held open, so that waiting for a key waits for ever.
        std::mem::forget(sender);
        return (keys, None);
    }
    let terminal = tcgetattr(std::io::stdin()).ok().map(|before| {
        let mut direct = before.clone();
        direct.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &direct);
        talk(KEYS);
        Terminal(before)
    });
    // Ends with the process: a read cannot be interrupted.
    std::thread::spawn(move || {
        let mut key = [0];
        while std::io::stdin().read(&mut key).is_ok_and(|len| len > 0) && sender.send(key[0]).is_ok() {}
    });
    (keys, terminal)
}
