//! What the QEMU board's firmware was doing when it ended or stopped answering: its crash report
//! (`device/boards/qemu/src/trap.rs` has the form) or its registers and stack, with addresses turned into functions
//! and lines.

use crate::board::Autopsy;
use crate::firmware::elf::{Elf, Frames};

/// Frames shown.
const FRAMES_MAX: usize = 40;

/// The last crash report in `console`, decoded; `None` if there is none.
pub fn decode(elf: &Elf, console: &str) -> Option<Autopsy> {
    let start = console.rfind("CRASH cause=")?;
    // A report that was cut short is worth having, too.
    let (headline, rest) = console[start..].split_once("CRASH stack").unwrap_or((&console[start..], ""));
    let cause = headline.strip_prefix("CRASH cause=")?;
    let cause = cause.split(" mcause=").next().unwrap_or(cause);
    let field = |name: &str| number(headline.split(name).nth(1)?.split_whitespace().next()?);
    let words: Vec<u64> =
        rest.lines().next().unwrap_or_default().split_whitespace().filter_map(number).collect();
    let cause = panic_message(cause.trim());
    // On the QEMU board a function that ends in a panic keeps no return address: its place is in the message. On the
    // ESP32-C3 the place is on the stack, and the message is all there is.
    let pc = field(" pc=").or_else(|| panic_place(elf, &cause));
    let backtrace = backtrace(elf, pc, field(" ra="), &words);
    Some(Autopsy { cause: Some(cause), backtrace, ..Autopsy::default() })
}

/// The code behind `panic at src/x.rs:1:2: message`.
fn panic_place(elf: &Elf, cause: &str) -> Option<u64> {
    let mut place = cause.strip_prefix("panic at ")?.split(':');
    elf.address_of(place.next()?, place.next()?.parse().ok()?)
}

/// Functions and lines of the instruction at `pc`, of the caller at `ra`, and of those return addresses among
/// `stack`'s words that follow a call.
pub fn backtrace(elf: &Elf, pc: Option<u64>, ra: Option<u64>, stack: &[u64]) -> Vec<String> {
    let mut frames = elf.backtrace(pc.as_slice(), Frames::Exact);
    frames.extend(elf.backtrace(ra.as_slice(), Frames::StackScan));
    frames.extend(elf.backtrace(stack, Frames::StackScan));
    let mut frames = fold(frames);
    frames.truncate(FRAMES_MAX);
    frames
}

/// `panic sp=0x.. panicked at src/x.rs:1:2:` and its message, as `panic at src/x.rs:1:2: message`; without a place, as
/// `panic: message`.
fn panic_message(cause: &str) -> String {
    match cause.strip_prefix("panic sp=").and_then(|rest| rest.split_once(' ')) {
        Some((_, message)) => {
            message.replacen("panicked", "panic", 1).split_whitespace().collect::<Vec<_>>().join(" ")
        }
        None => cause.to_owned(),
    }
}

fn number(text: &str) -> Option<u64> {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).ok()
}

/// Runs of the same frame, as a recursion leaves them, become one line.
fn fold(frames: Vec<String>) -> Vec<String> {
    let mut folded: Vec<(String, usize)> = Vec::new();
    for frame in frames {
        match folded.last_mut() {
            Some((last, count)) if *last == frame => *count += 1,
            _ => folded.push((frame, 1)),
        }
    }
    let text = |(frame, count)| if count == 1 { frame } else { format!("{frame} ({count} times)") };
    folded.into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recursion_is_one_line() {
        let frames = ["a", "b", "b", "b", "c"].map(str::to_owned).to_vec();
        assert_eq!(fold(frames), ["a", "b (3 times)", "c"]);
    }

    #[test]
    fn a_panic_is_told_by_its_place_and_message() {
        let cause = "panic sp=0x8004f000 panicked at src/board.rs:60:29:\nasked to panic";
        assert_eq!(panic_message(cause), "panic at src/board.rs:60:29: asked to panic");
        assert_eq!(panic_message("panic sp=0x3fcb0000 panicked: asked to panic"), "panic: asked to panic");
        assert_eq!(panic_message("stack overflow"), "stack overflow");
    }
}
