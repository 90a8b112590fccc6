//! Mistakes of syntax, of spelling and of type, as the TOML parser and serde find them.

use super::super::error::Mistakes;
use crate::measure::metric::nearest;

/// A mistake found by the TOML parser or by serde, with a suggestion where a name is misspelt.
pub(super) fn syntax(mistakes: &mut Mistakes, error: &toml::de::Error) {
    let message = spoken(&error.message().trim_end().replace('\n', "; "));
    let quoted: Vec<_> = message.split('`').skip(1).step_by(2).collect();
    let remedy = match quoted.split_first() {
        Some((written, known)) if message.starts_with("unknown") => {
            let list = || format!("there are {}", known.join(", "));
            Some(match nearest(written, known.iter().copied()) {
                Some(near) => format!("did you mean {near}? {}", list()),
                None => list(),
            })
        }
        Some((key, _)) if message.starts_with("missing field") => {
            Some(format!("add {key}; scenarios/README.md describes every key"))
        }
        _ => None,
    };
    let remedy = remedy.or_else(|| general_remedy(&message));
    let problem = match quoted.first() {
        Some(written) if message.starts_with("unknown field") => format!("there is no key `{written}` here"),
        Some(written) if message.starts_with("unknown variant") => {
            format!("`{written}` is not a choice here")
        }
        Some(key) if message.starts_with("missing field") => format!("the key `{key}` is missing"),
        _ => message,
    };
    // A unit error carries its remedy behind a semicolon.
    let (problem, remedy) = match (problem.split_once("; write "), remedy) {
        (Some((problem, example)), _) => (problem.to_owned(), format!("write {example}")),
        (None, remedy) => (problem, remedy.unwrap_or_else(|| SHAPE.to_owned())),
    };
    mistakes.add(error.span().unwrap_or(0..1), problem, remedy);
}

/// How every line of a scenario looks: the remedy where nothing better is known.
const SHAPE: &str = "a line is `key = value`, a table `[name]`, a list `[1, 2]`; texts and quantities stand in \
                     quotes: \"20 ms\". scenarios/README.md describes every key";

/// A message of serde without the names that Rust has for types.
fn spoken(message: &str) -> String {
    let Some((written, expected)) = message.rsplit_once(", expected ") else { return message.to_owned() };
    let most = match expected {
        "u8" => u8::MAX.into(),
        "u16" => u16::MAX.into(),
        "u32" => u32::MAX.into(),
        "u64" => u64::MAX,
        "a sequence" => return format!("{written}, expected a list in brackets"),
        "a map" => return format!("{written}, expected a table"),
        _ => return message.to_owned(),
    };
    format!("{written}, expected a whole number from 0 to {most}")
}

/// What to do about a message of the TOML parser or of serde that names no key.
fn general_remedy(message: &str) -> Option<String> {
    if message.starts_with("duplicate key") {
        return Some("keep one of them".to_owned());
    }
    let of_value = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    let (_, expected) = of_value?.rsplit_once(", expected ")?;
    Some(format!("write {expected}; scenarios/README.md describes every key"))
}
