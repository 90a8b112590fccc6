//! Questions at the terminal.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::interrupt;

/// Asks for the name and the password of a wireless network; `None` where nobody is at a terminal.
pub fn wifi() -> Option<(String, String)> {
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        return None;
    }
    let ssid = ask("Wi-Fi network: ").unwrap_or_default();
    let password = unechoed(|| ask("Password (not shown): ")).unwrap_or_default();
    eprintln!();
    Some((ssid, password))
}

fn ask(question: &str) -> Option<String> {
    eprint!("{question}");
    std::io::stderr().flush().ok()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).ok()?;
    Some(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Calls `act` while the terminal does not show what is typed. Whatever ends that, a signal included, it shows it again.
fn unechoed<T>(act: impl FnOnce() -> T) -> T {
    let Ok(before) = tcgetattr(std::io::stdin()) else { return act() };
    let saved = before.clone();
    // Without it a signal would leave the terminal silent; the question is asked all the same.
    let _ = interrupt::end_after(move || {
        restore(&saved);
        eprintln!();
    });
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    // If it cannot be silenced, the answer is shown; it is still asked for.
    let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &silent);
    let result = act();
    restore(&before);
    result
}

fn restore(before: &Termios) {
    // A terminal that is gone shows nothing anyway.
    let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
}
