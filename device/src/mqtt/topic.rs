//! Topic names and topic filters (MQTT 5.0 4.7) and the string rules under them (1.5.4).

/// Longest string or binary field the wire format holds, in bytes (MQTT 5.0 1.5.4).
pub const STRING_MAX: usize = 65_535;

/// Whether `bytes` are an MQTT string: UTF-8 without U+0000, and its text.
///
/// `str::from_utf8` refuses surrogates and overlong forms, as 1.5.4 demands. Control characters and
/// non-characters SHOULD NOT be sent; they are accepted from a peer.
pub fn string(bytes: &[u8]) -> Option<&str> {
    if bytes.contains(&0) {
        return None;
    }
    core::str::from_utf8(bytes).ok()
}

/// Whether `name` may be published to: not empty, no wildcard, no U+0000 (MQTT 5.0 4.7.1, 4.7.3).
pub fn is_topic_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= STRING_MAX && !name.bytes().any(|byte| matches!(byte, 0 | b'+' | b'#'))
}

/// Whether `filter` may be subscribed to (MQTT 5.0 4.7.1, 4.7.3, 4.8.2).
///
/// `#` stands alone on the last level, `+` stands alone on its level, and `$share/{name}/` is followed
/// by a filter and names a group without wildcards.
pub fn is_topic_filter(filter: &str) -> bool {
    if filter.is_empty() || filter.len() > STRING_MAX || filter.bytes().any(|byte| byte == 0) {
        return false;
    }
    if let Some(shared) = filter.strip_prefix("$share/") {
        let Some((group, rest)) = shared.split_once('/') else {
            return false;
        };
        return is_topic_name(group) && !rest.is_empty() && levels_are_valid(rest);
    }
    levels_are_valid(filter)
}

fn levels_are_valid(filter: &str) -> bool {
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let is_valid = match level {
            "#" => levels.peek().is_none(),
            "+" => true,
            _ => !level.bytes().any(|byte| matches!(byte, b'+' | b'#')),
        };
        if !is_valid {
            return false;
        }
    }
    true
}

/// Whether messages to `name` are delivered for `filter` (MQTT 5.0 4.7.1, 4.7.2).
///
/// Wildcards on the first level do not match names that begin with `$`.
pub fn matches(filter: &str, name: &str) -> bool {
    let filter = match filter.strip_prefix("$share/") {
        Some(shared) => match shared.split_once('/') {
            Some((_, filter)) => filter,
            None => return false,
        },
        None => filter,
    };
    if name.starts_with('$') && (filter.starts_with('+') || filter.starts_with('#')) {
        return false;
    }
    let mut names = name.split('/');
    let mut filters = filter.split('/');
    loop {
        match (filters.next(), names.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(level), Some(name)) if level == name => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_hold_no_nul_no_surrogate_and_no_overlong_form() {
        assert_eq!(string("A\u{2a6d4}".as_bytes()), Some("A\u{2a6d4}"));
        assert_eq!(string(b"a\0b"), None);
        assert_eq!(string(&[0xed, 0xa0, 0x80]), None, "U+D800");
        assert_eq!(string(&[0xc0, 0x80]), None, "overlong U+0000");
        assert_eq!(string(&[0xef, 0xbb, 0xbf]), Some("\u{feff}"), "never skipped as a byte order mark");
    }

    #[test]
    fn names_hold_no_wildcard() {
        for name in ["a", "/", "/finance", "a b/ä", "$SYS/x"] {
            assert!(is_topic_name(name), "{name}");
        }
        for name in ["", "a/+", "#", "a\0"] {
            assert!(!is_topic_name(name), "{name}");
        }
    }

    #[test]
    fn filters_of_section_4_7_1() {
        for filter in
            ["sport/tennis/player1/#", "sport/#", "#", "+", "+/tennis/#", "sport/+/player1", "/+", "/", "+/+"]
        {
            assert!(is_topic_filter(filter), "{filter}");
        }
        for filter in ["", "sport/tennis#", "sport/tennis/#/ranking", "sport+", "a/+b", "##"] {
            assert!(!is_topic_filter(filter), "{filter}");
        }
    }

    #[test]
    fn shared_filters_of_section_4_8_2() {
        assert!(is_topic_filter("$share/consumer1/sport/tennis/+"));
        assert!(is_topic_filter("$share/g//"));
        for filter in ["$share/g", "$share//a", "$share/g+/a", "$share/g/", "$share/g/a#"] {
            assert!(!is_topic_filter(filter), "{filter}");
        }
    }

    #[test]
    fn matching_follows_the_examples_of_section_4_7() {
        for (filter, name) in [
            ("sport/tennis/player1/#", "sport/tennis/player1"),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon"),
            ("sport/#", "sport"),
            ("sport/tennis/+", "sport/tennis/player1"),
            ("sport/+", "sport/"),
            ("+/+", "/finance"),
            ("/+", "/finance"),
            ("$SYS/#", "$SYS/broker"),
            ("$share/g/a/+", "a/b"),
        ] {
            assert!(matches(filter, name), "{filter} {name}");
        }
        for (filter, name) in [
            ("sport/tennis/+", "sport/tennis/player1/ranking"),
            ("sport/+", "sport"),
            ("+", "/finance"),
            ("#", "$SYS/broker"),
            ("+/monitor/Clients", "$SYS/monitor/Clients"),
            ("ACCOUNTS", "Accounts"),
            ("a", "a/b"),
        ] {
            assert!(!matches(filter, name), "{filter} {name}");
        }
    }
}
