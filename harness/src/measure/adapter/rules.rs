//! The rules file of `--adapter log:RULES.toml`.

use std::fmt;
use std::path::Path;

use regex::Regex;
use serde::Deserialize;

use crate::measure::record::Phase;

/// Rules, and the firmware they are for.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The firmware, in words for a reader.
    pub firmware: String,
    /// Each rule, in order; every one that matches a line applies.
    pub rules: Vec<Rule>,
}

/// What a line means.
#[derive(Clone, Debug)]
pub struct Rule {
    pattern: Regex,
    /// What it means.
    pub means: Means,
}

/// What a line can mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// A connection attempt begins.
    Connecting,
    /// The attempt reached a phase.
    Mark(Phase),
    /// The attempt failed, or the connection ended.
    Failed,
    /// Free heap: the group `bytes`, and `phase` if the pattern has one.
    HeapFree,
    /// The board failed.
    Fault,
    /// Worth an entry in the report's time line.
    Event,
    /// The firmware is done.
    End,
}

/// What a rule found in a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) number: Option<u64>,
    pub(super) phase: Option<String>,
}

/// A rules file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RulesError(String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    firmware: String,
    rule: Vec<FileRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRule {
    line: String,
    means: String,
}

impl Rules {
    /// Reads a rules file.
    ///
    /// # Errors
    /// [`RulesError`] naming the file and what is wrong.
    pub fn load(path: &Path) -> Result<Self, RulesError> {
        let fail = |cause: &dyn fmt::Display| RulesError(format!("{}: {cause}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| fail(&error))?;
        Self::parse(&text).map_err(|error| fail(&error))
    }

    /// Reads the text of one.
    ///
    /// # Errors
    /// [`RulesError`] naming the rule.
    pub fn parse(text: &str) -> Result<Self, RulesError> {
        let file: File = toml::from_str(text).map_err(|error| RulesError(error.to_string()))?;
        let rule = |(index, rule): (usize, FileRule)| {
            let fail = |cause: String| RulesError(format!("rule {}: {cause}", index + 1));
            let pattern = Regex::new(&rule.line).map_err(|error| fail(error.to_string()))?;
            let means = means(&rule.means).ok_or_else(|| {
                fail(format!("`{}` is no meaning; choose one of: {}", rule.means, meanings().join(", ")))
            })?;
            let has = |group: &str| pattern.capture_names().flatten().any(|name| name == group);
            if means == Means::HeapFree && !has("bytes") {
                return Err(fail("heap-free needs a group named bytes: (?<bytes>\\d+)".to_owned()));
            }
            Ok(Rule { pattern, means })
        };
        let rules = file.rule.into_iter().enumerate().map(rule).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { firmware: file.firmware, rules })
    }
}

impl Rule {
    pub(super) fn find(&self, line: &str) -> Option<Found> {
        let captures = self.pattern.captures(line)?;
        let group = |name: &str| captures.name(name).map(|found| found.as_str().trim().to_owned());
        Some(Found { number: group("bytes").and_then(|text| text.parse().ok()), phase: group("phase") })
    }
}

/// Marks by the name the rules use.
const MARKS: [(&str, Phase); 7] = [
    ("tcp-connected", Phase::TcpConnected),
    ("handshake-keys", Phase::HandshakeKeys),
    ("certificate-verified", Phase::CertificateVerified),
    ("handshake-complete", Phase::HandshakeComplete),
    ("connect-sent", Phase::ConnectSent),
    ("connack", Phase::Connack),
    ("subscribed", Phase::Subscribed),
];

/// Other meanings by their name.
const OTHERS: [(&str, Means); 6] = [
    ("connecting", Means::Connecting),
    ("failed", Means::Failed),
    ("heap-free", Means::HeapFree),
    ("fault", Means::Fault),
    ("event", Means::Event),
    ("end", Means::End),
];

fn means(name: &str) -> Option<Means> {
    let mark = MARKS.iter().find(|(mark, _)| *mark == name).map(|&(_, phase)| Means::Mark(phase));
    mark.or_else(|| OTHERS.iter().find(|(other, _)| *other == name).map(|&(_, means)| means))
}

fn meanings() -> Vec<&'static str> {
    OTHERS.iter().map(|(name, _)| *name).chain(MARKS.iter().map(|(name, _)| *name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_named_with_their_rule() {
        for (rule, part) in [
            ("line = 'x('\nmeans = 'end'", "rule 1"),
            ("line = 'x'\nmeans = 'ending'", "`ending` is no meaning"),
            ("line = 'x'\nmeans = 'heap-free'", "group named bytes"),
            ("line = 'x'", "means"),
        ] {
            let error = Rules::parse(&format!("firmware = 'f'\n[[rule]]\n{rule}\n")).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
