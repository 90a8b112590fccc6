//! Where in a file each key and value stands, found by path: `workload.up.qos`, `expect[2]`.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The parsed file with its positions.
pub(super) struct Spans<'a> {
    root: Spanned<DeTable<'a>>,
    text: &'a str,
}

/// Where a key and its value stand.
struct Place {
    key: Range<usize>,
    value: Range<usize>,
}

impl<'a> Spans<'a> {
    /// Parses TOML syntax only.
    pub(super) fn parse(text: &'a str) -> Result<Self, toml::de::Error> {
        Ok(Self { root: DeTable::parse(text)?, text })
    }

    /// The value at `path`, or the nearest thing above it that exists.
    pub(super) fn value(&self, path: &str) -> Range<usize> {
        self.place(path).value
    }

    /// The key at `path`, or the nearest thing above it that exists.
    pub(super) fn key(&self, path: &str) -> Range<usize> {
        self.place(path).key
    }

    /// Whether something stands at `path`.
    pub(super) fn has(&self, path: &str) -> bool {
        self.find(path).is_ok()
    }

    /// The first string anywhere in the file whose content is `text`.
    pub(super) fn string(&self, text: &str) -> Option<Range<usize>> {
        fn search(value: &Spanned<DeValue<'_>>, text: &str) -> Option<Range<usize>> {
            match value.get_ref() {
                DeValue::String(string) if string == text => Some(value.span()),
                DeValue::Array(items) => items.iter().find_map(|item| search(item, text)),
                DeValue::Table(table) => table.values().find_map(|item| search(item, text)),
                _ => None,
            }
        }
        self.root.get_ref().values().find_map(|value| search(value, text))
    }

    fn place(&self, path: &str) -> Place {
        let (Ok(place) | Err(place)) = self.find(path);
        Place { key: self.first_line(place.key), value: self.first_line(place.value) }
    }

    /// The place at `path`, or else the nearest above it.
    fn find(&self, path: &str) -> Result<Place, Place> {
        let mut steps = path.split(['.', '[']).map(|step| step.trim_end_matches(']'));
        let Some((key, mut value)) = steps.next().and_then(|step| self.root.get_ref().get_key_value(step))
        else {
            return Err(Place { key: 0..1, value: 0..1 });
        };
        let mut key = key.span();
        for step in steps {
            let next = match value.get_ref() {
                DeValue::Table(table) => table.get_key_value(step).map(|(k, v)| (k.span(), v)),
                DeValue::Array(items) => {
                    step.parse().ok().and_then(|index: usize| items.get(index)).map(|v| (v.span(), v))
                }
                _ => None,
            };
            let Some((k, v)) = next else { return Err(Place { key, value: value.span() }) };
            (key, value) = (k, v);
        }
        Ok(Place { key, value: value.span() })
    }

    /// Long spans, such as whole tables, are pointed at by their first line.
    fn first_line(&self, span: Range<usize>) -> Range<usize> {
        let line = self.text[span.clone()].find('\n').map_or(span.end, |at| span.start + at);
        span.start..line.max(span.start + 1).min(span.end.max(span.start + 1))
    }
}
