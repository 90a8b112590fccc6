//! Crash reports of the QEMU board's firmware (`device/boards/qemu/src/trap.rs` has the form), with addresses
//! turned into functions and lines.

use std::fmt::Write as _;

use crate::firmware::elf::{Elf, Frames};

/// Frames shown.
const FRAMES_MAX: usize = 40;

/// The last crash report in `console`, decoded; empty if there is none.
pub fn decode(elf: &Elf, console: &str) -> String {
    let Some(start) = console.rfind("CRASH cause=") else { return String::new() };
    let mut lines = console[start..].lines();
    let headline = lines.next().unwrap_or_default().trim_start_matches("CRASH ");
    let mut text = String::new();
    let cause = headline.strip_prefix("cause=").unwrap_or(headline);
    let cause = cause.split(" mcause=").next().unwrap_or(cause);
    let _ = writeln!(text, "{}", cause.trim());

    let field = |name: &str| {
        let value = headline.split(name).nth(1)?.split_whitespace().next()?;
        u64::from_str_radix(value.trim_start_matches("0x"), 16).ok()
    };
    let mut frames = Vec::new();
    if let Some(pc) = field(" pc=") {
        frames.extend(elf.backtrace(&[pc], Frames::Exact));
    }
    if let Some(ra) = field(" ra=") {
        frames.extend(elf.backtrace(&[ra], Frames::StackScan));
    }
    let stack = lines.find_map(|line| line.trim().strip_prefix("CRASH stack"));
    let words: Vec<u64> = stack
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok())
        .collect();
    frames.extend(elf.backtrace(&words, Frames::StackScan));
    for frame in fold(frames).into_iter().take(FRAMES_MAX) {
        let _ = writeln!(text, "  {frame}");
    }
    text
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
}
