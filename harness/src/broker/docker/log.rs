//! What a container writes, as far as it is kept.

/// Bytes kept of the beginning, which tells how the broker started.
const HEAD: usize = 1 << 20;
/// Bytes kept of the end at least, which tells how it ended; twice as many at most.
const TAIL: usize = 4 << 20;

/// The beginning and the end of a log; a broker that complains of each packet writes more than anybody reads.
#[derive(Debug, Default)]
pub(super) struct Log {
    bytes: Vec<u8>,
    left_out: usize,
}

impl Log {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > HEAD + 2 * TAIL {
            let end = self.bytes.len() - TAIL;
            self.left_out += end - HEAD;
            self.bytes.drain(HEAD..end);
        }
    }

    /// All of it, with a line where something was left out.
    pub(super) fn text(&self) -> String {
        let text = String::from_utf8_lossy;
        if self.left_out == 0 {
            return text(&self.bytes).into_owned();
        }
        let (head, tail) = self.bytes.split_at(HEAD);
        format!("{}\n[{} bytes are left out]\n{}", text(head), self.left_out, text(tail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_keeps_its_beginning_and_its_last_lines() {
        let mut log = Log::default();
        log.push(b"first line\n");
        let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
        let many = 32 * 1024;
        for _ in 0..many {
            log.push(&line);
        }
        log.push(b"last line\n");
        let text = log.text();
        assert!(text.starts_with("first line\n") && text.ends_with("\nlast line\n"));
        assert!(text.len() <= HEAD + 2 * TAIL + 100, "{}", text.len());
        let note = text.lines().find(|line| line.contains("bytes are left out")).expect("it is told");
        let left_out: usize = note.trim_matches(|c: char| !c.is_ascii_digit()).parse().expect("a number");
        let written = "first line\n".len() + many * line.len() + "last line\n".len();
        assert_eq!(text.len() - note.len() - 2 + left_out, written);
    }

    #[test]
    fn a_short_log_is_as_it_was_written() {
        let mut log = Log::default();
        log.push(b"ready\n");
        log.push(b"bye\n");
        assert_eq!(log.text(), "ready\nbye\n");
    }
}
