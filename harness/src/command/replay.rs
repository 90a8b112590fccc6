//! The command line that repeats a run.

use std::path::Path;

/// A command line in the making, quoted for a POSIX shell.
pub(super) struct CommandLine(String);

impl CommandLine {
    /// `cargo run -p harness -- COMMAND`.
    pub(super) fn new(command: &str) -> Self {
        Self(format!("cargo run -p harness -- {command}"))
    }

    /// Adds a word.
    pub(super) fn word(&mut self, word: &str) {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,+=@[]".contains(c);
        self.0.push(' ');
        if !word.is_empty() && word.chars().all(plain) {
            self.0.push_str(word);
        } else {
            self.0 += &format!("'{}'", word.replace('\'', r"'\''"));
        }
    }

    /// Adds `--NAME VALUE` if there is a value.
    pub(super) fn option(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.word(&format!("--{name}"));
            self.word(&value.to_string());
        }
    }

    /// Adds `--NAME PATH` if there is a path.
    pub(super) fn path(&mut self, name: &str, path: Option<&Path>) {
        self.option(name, path.map(Path::display));
    }

    /// Adds `--NAME` if it is set.
    pub(super) fn flag(&mut self, name: &str, set: bool) {
        if set {
            self.word(&format!("--{name}"));
        }
    }

    pub(super) fn finish(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_what_was_meant() {
        let mut line = CommandLine::new("scenario");
        line.word("it's mine.toml");
        line.path("ca", Some(Path::new("/tmp/my ca.pem")));
        line.path("wifi", None);
        line.option("seed", Some(7));
        line.flag("icount", true);
        line.flag("any", false);
        assert_eq!(
            line.finish(),
            r"cargo run -p harness -- scenario 'it'\''s mine.toml' --ca '/tmp/my ca.pem' --seed 7 --icount"
        );
    }
}
