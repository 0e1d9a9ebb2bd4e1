//! One section of the file, read key by key.
//!
//! Knows TOML and lines, not what the keys mean. The invariant: a section that was opened has only keys that its reader named.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::error::Reason;
use super::redact::without_passwords;
use super::units::{parse_duration, parse_percent, parse_size};

/// The text and its tree.
pub(super) struct Document<'t> {
    text: &'t str,
    root: Spanned<DeTable<'t>>,
}

impl<'t> Document<'t> {
    pub(super) fn parse(text: &'t str) -> Result<Self, Reason> {
        let root = DeTable::parse(text).map_err(|error| {
            let line = line_of(text, error.span().map_or(0, |span| span.start));
            Reason::Syntax { line, message: error.message().to_owned() }
        })?;
        Ok(Self { text, root })
    }

    pub(super) fn root(&self, known: &[&'static str], later: &[&str]) -> Result<Section<'_>, Reason> {
        Section::open(self.text, String::new(), self.root.get_ref(), self.root.span(), known, later)
    }
}

/// What may be said in one value or at length.
pub(super) enum Short<'t, T> {
    Value(T),
    Section(Section<'t>),
}

/// The keys of one table, and where it stands.
pub(super) struct Section<'t> {
    text: &'t str,
    path: String,
    span: Range<usize>,
    keys: Vec<Key<'t>>,
}

struct Key<'t> {
    name: &'t str,
    span: Range<usize>,
    value: &'t Spanned<DeValue<'t>>,
    is_read: Cell<bool>,
}

impl<'t> Section<'t> {
    fn open(
        text: &'t str,
        path: String,
        table: &'t DeTable<'t>,
        span: Range<usize>,
        known: &[&'static str],
        later: &[&str],
    ) -> Result<Self, Reason> {
        let section = Self { text, path, span, keys: keys_of(table) };
        match section.keys.iter().find(|key| !known.contains(&key.name)) {
            None => Ok(section),
            Some(key) if later.contains(&key.name) => {
                Err(Reason::NotSupported { what: section.name_of(key.name), line: section.line(key) })
            }
            Some(key) => Err(section.unknown(key, known)),
        }
    }

    /// The table under this key; an empty one if there is none.
    pub(super) fn section(
        &mut self,
        key: &'static str,
        known: &[&'static str],
        later: &[&str],
    ) -> Result<Section<'t>, Reason> {
        match self.key(key) {
            None => Ok(Section { text: self.text, path: self.path_of(key), span: self.span.clone(), keys: Vec::new() }),
            Some(found) => self.table(found, known, later),
        }
    }

    /// The table under this key, if there is one, be it empty.
    pub(super) fn optional(
        &mut self,
        key: &'static str,
        known: &[&'static str],
        later: &[&str],
    ) -> Result<Option<Section<'t>>, Reason> {
        self.key(key).map(|found| self.table(found, known, later)).transpose()
    }

    /// One value, or a table of settings.
    pub(super) fn short<T>(
        &mut self,
        key: &'static str,
        known: &[&'static str],
        expected: &str,
        read: impl FnOnce(&'t DeValue<'t>) -> Option<T>,
    ) -> Result<Option<Short<'t, T>>, Reason> {
        match self.key(key) {
            Some(found) if found.value.get_ref().is_table() => {
                Ok(Some(Short::Section(self.table(found, known, &[])?)))
            }
            _ => Ok(self.read(key, expected, read)?.map(Short::Value)),
        }
    }

    /// The tables under this key, by name.
    pub(super) fn sections(
        &mut self,
        key: &'static str,
        known: &[&'static str],
        later: &[&str],
    ) -> Result<Vec<(String, Section<'t>)>, Reason> {
        let Some(found) = self.key(key) else { return Ok(Vec::new()) };
        let DeValue::Table(table) = found.value.get_ref() else {
            return Err(self.invalid(found, format!("expected sections [{key}.NAME]")));
        };
        let all = Section { text: self.text, path: self.path_of(key), span: found.span.clone(), keys: keys_of(table) };
        all.keys.iter().map(|one| Ok((one.name.to_owned(), all.table(one, known, later)?))).collect()
    }

    fn table(&self, key: &Key<'t>, known: &[&'static str], later: &[&str]) -> Result<Section<'t>, Reason> {
        let path = self.path_of(key.name);
        match key.value.get_ref() {
            DeValue::Table(table) => Section::open(self.text, path, table, key.span.clone(), known, later),
            _ => Err(self.invalid(key, format!("expected a section [{path}]"))),
        }
    }

    fn read<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(&'t DeValue<'t>) -> Option<T>,
    ) -> Result<Option<T>, Reason> {
        let Some(found) = self.key(key) else { return Ok(None) };
        match read(found.value.get_ref()) {
            Some(value) => Ok(Some(value)),
            None => Err(self.invalid(found, format!("expected {expected}"))),
        }
    }

    pub(super) fn string(&mut self, key: &'static str) -> Result<Option<String>, Reason> {
        self.read(key, "a string that is not empty", |value| text_of(value).map(str::to_owned))
    }

    pub(super) fn required(&mut self, key: &'static str, expected: &'static str) -> Result<String, Reason> {
        self.string(key)?.ok_or_else(|| self.missing(key, expected))
    }

    /// What is not read by `read` is refused.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Reason> {
        self.read(key, expected, |value| text_of(value).and_then(read))
    }

    pub(super) fn strings(&mut self, key: &'static str) -> Result<Option<Vec<String>>, Reason> {
        self.read(key, "a list of strings", |value| texts_of(value, |_| true))
    }

    /// As many texts as `max` at most, each of 1 to `bytes_max` bytes.
    pub(super) fn keys(
        &mut self,
        key: &'static str,
        max: usize,
        bytes_max: usize,
    ) -> Result<Option<Vec<String>>, Reason> {
        let expected = format!("a list of at most {max} strings of 1 to {bytes_max} bytes");
        self.read(key, &expected, |value| {
            texts_of(value, |text| text.len() <= bytes_max).filter(|texts| texts.len() <= max)
        })
    }

    /// Strings by name, which no error shows; none if the key is not there.
    pub(super) fn secrets(&mut self, key: &'static str) -> Result<Vec<(String, String)>, Reason> {
        let Some(found) = self.key(key) else { return Ok(Vec::new()) };
        let pairs = found.value.get_ref().as_table().and_then(|table| {
            let pair = |key: &Key<'_>| Some((key.name.to_owned(), text_of(key.value.get_ref())?.to_owned()));
            keys_of(table).iter().map(pair).collect()
        });
        pairs.ok_or_else(|| {
            let problem = "expected strings by name, such as { Accept = \"text/plain\" }".to_owned();
            Reason::Invalid { what: self.name_of(key), line: self.line(found), problem }
        })
    }

    pub(super) fn seeds(&mut self, key: &'static str) -> Result<Option<Vec<String>>, Reason> {
        let has_port = |seed: &str| seed.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        self.read(key, "a list of \"host:port\"", |value| texts_of(value, has_port))
    }

    pub(super) fn boolean(&mut self, key: &'static str) -> Result<Option<bool>, Reason> {
        self.read(key, "true or false", DeValue::as_bool)
    }

    pub(super) fn integer(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Result<Option<u64>, Reason> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.read(key, &expected, |value| integer_of(value).filter(|n| range.contains(n)))
    }

    /// A name (`Err`) or the number of a port.
    pub(super) fn name_or_port(&mut self, key: &'static str) -> Result<Option<Result<u16, String>>, Reason> {
        self.read(key, "the name of a port, or a whole number from 1 to 65535", |value| match integer_of(value) {
            Some(port) => u16::try_from(port).ok().filter(|port| *port > 0).map(Ok),
            None => text_of(value).map(|name| Err(name.to_owned())),
        })
    }

    pub(super) fn duration(&mut self, key: &'static str) -> Result<Option<Duration>, Reason> {
        let expected = "a duration longer than zero, such as \"30s\" or \"1h 30m\"";
        self.read(key, expected, |value| text_of(value).and_then(parse_duration))
    }

    /// A duration within these bounds; [`Duration::MAX`] is none.
    pub(super) fn duration_within(
        &mut self,
        key: &'static str,
        bounds: RangeInclusive<Duration>,
    ) -> Result<Option<Duration>, Reason> {
        let (min, max) = (humantime::format_duration(*bounds.start()), humantime::format_duration(*bounds.end()));
        let expected = match *bounds.end() {
            Duration::MAX => format!("a duration of at least {min}, such as \"30m\""),
            _ => format!("a duration from {min} to {max}"),
        };
        let within = |duration: &Duration| bounds.contains(duration);
        self.read(key, &expected, |value| text_of(value).and_then(parse_duration).filter(within))
    }

    /// A number, whole or not.
    pub(super) fn number(&mut self, key: &'static str, bounds: RangeInclusive<f64>) -> Result<Option<f64>, Reason> {
        self.read(key, "a number over zero, such as 500 or 0.5", |value| {
            let number = match value {
                DeValue::Float(number) => number.as_str().parse().ok()?,
                value => integer_of(value)? as f64,
            };
            bounds.contains(&number).then_some(number)
        })
    }

    pub(super) fn size(&mut self, key: &'static str, min: u64) -> Result<Option<u64>, Reason> {
        let expected = format!("a size of at least {} KiB, such as \"64MiB\"", min >> 10);
        let size = |value| integer_of(value).or_else(|| text_of(value).and_then(parse_size));
        self.read(key, &expected, |value| size(value).filter(|bytes| *bytes >= min))
    }

    pub(super) fn part(&mut self, key: &'static str) -> Result<Option<f32>, Reason> {
        self.read(key, "a part such as \"10%\" or 0.1", |value| match value {
            DeValue::String(text) => parse_percent(text),
            DeValue::Float(part) => part.as_str().parse().ok().filter(|part| (0.0..=1.0).contains(part)),
            value => integer_of(value).filter(|part| *part <= 1).map(|part| part as f32),
        })
    }

    pub(super) fn addr(&mut self, key: &'static str) -> Result<Option<SocketAddr>, Reason> {
        let expected = "an address and port, such as \"127.0.0.1:8080\"";
        self.read(key, expected, |value| text_of(value)?.parse().ok())
    }

    pub(super) fn addrs(&mut self, key: &'static str) -> Result<Option<Vec<SocketAddr>>, Reason> {
        self.read(key, "a list of addresses and ports, such as [\"10.0.0.2:53\"]", |value| {
            value.as_array()?.iter().map(|item| text_of(item.get_ref())?.parse().ok()).collect()
        })
    }

    pub(super) fn ip(&mut self, key: &'static str) -> Result<Option<IpAddr>, Reason> {
        self.read(key, "an IP address, such as \"10.0.0.1\"", |value| text_of(value)?.parse().ok())
    }

    /// One of these words; those of `later` are known but cannot be had yet.
    pub(super) fn choice(
        &mut self,
        key: &'static str,
        words: &[&'static str],
        later: &[&str],
    ) -> Result<Option<&'static str>, Reason> {
        let Some(found) = self.key(key) else { return Ok(None) };
        let word = text_of(found.value.get_ref()).unwrap_or_default();
        if let Some(known) = words.iter().find(|known| **known == word) {
            return Ok(Some(known));
        }
        if later.contains(&word) {
            return Err(Reason::NotSupported { what: self.shown(found), line: self.line(found) });
        }
        let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
        let hint = nearest(word, words).map(|near| format!("; did you mean {near:?}?")).unwrap_or_default();
        Err(self.invalid(found, format!("expected {}{hint}", listed(&quoted))))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Refuses keys that are known but were not asked for.
    pub(super) fn nothing_left(&self, problem: &str) -> Result<(), Reason> {
        match self.keys.iter().find(|key| !key.is_read.get()) {
            None => Ok(()),
            Some(key) => {
                let what = self.name_of(key.name);
                Err(Reason::Invalid { what, line: self.line(key), problem: problem.to_owned() })
            }
        }
    }

    pub(super) fn missing(&self, key: &'static str, expected: &'static str) -> Reason {
        let line = line_of(self.text, self.span.start);
        Reason::Missing { key, section: self.path.clone(), line, expected }
    }

    /// The section itself makes no sense.
    pub(super) fn senseless(&self, problem: impl Into<String>) -> Reason {
        let line = line_of(self.text, self.span.start);
        Reason::Invalid { what: format!("[{}]", self.path), line, problem: problem.into() }
    }

    /// The value of this key, which is there, makes no sense.
    pub(super) fn wrong(&self, key: &'static str, problem: impl Into<String>) -> Reason {
        match self.key(key) {
            Some(found) => self.invalid(found, problem.into()),
            None => self.senseless(problem),
        }
    }

    fn key(&self, name: &str) -> Option<&Key<'t>> {
        let found = self.keys.iter().find(|key| key.name == name)?;
        found.is_read.set(true);
        Some(found)
    }

    fn line(&self, key: &Key<'_>) -> usize {
        line_of(self.text, key.span.start)
    }

    fn path_of(&self, key: &str) -> String {
        // A quoted key may hold anything; an error is one line.
        let key = key.escape_debug();
        if self.path.is_empty() { key.to_string() } else { format!("{}.{key}", self.path) }
    }

    /// A key as an error names it: a section at the top, a key anywhere else.
    fn name_of(&self, key: &str) -> String {
        let key = key.escape_debug();
        if self.path.is_empty() { format!("[{key}]") } else { format!("`{key}` in [{}]", self.path) }
    }

    fn shown(&self, key: &Key<'_>) -> String {
        const SHOWN_CHARS: usize = 60;
        let line = self.text[key.value.span()].lines().next().unwrap_or_default();
        let value: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN_CHARS).collect();
        let place = if self.path.is_empty() { String::new() } else { format!(" in [{}]", self.path) };
        format!("`{} = {}`{place}", key.name.escape_debug(), without_passwords(&value))
    }

    fn invalid(&self, key: &Key<'_>, problem: String) -> Reason {
        Reason::Invalid { what: self.shown(key), line: self.line(key), problem }
    }

    fn unknown(&self, key: &Key<'_>, known: &[&'static str]) -> Reason {
        let is_top = self.path.is_empty();
        let kind = if is_top { "section" } else { "key" };
        let write = |name: &str| if is_top { format!("[{name}]") } else { format!("`{name}`") };
        let hint = match nearest(key.name, known) {
            Some(near) => format!("did you mean {}?", write(near)),
            None => format!("known are: {}", known.iter().map(|name| write(name)).collect::<Vec<_>>().join(", ")),
        };
        Reason::Unknown { what: format!("{kind} {}", self.name_of(key.name)), line: self.line(key), hint }
    }
}

/// In the order of the file.
fn keys_of<'t>(table: &'t DeTable<'t>) -> Vec<Key<'t>> {
    let key = |(key, value): (&'t Spanned<DeString<'t>>, &'t Spanned<DeValue<'t>>)| Key {
        name: key.get_ref(),
        span: key.span(),
        value,
        is_read: Cell::new(false),
    };
    let mut keys: Vec<Key<'t>> = table.iter().map(key).collect();
    keys.sort_by_key(|key| key.span.start);
    keys
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The known word that was probably meant.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let distance = |name: &str| strsim::damerau_levenshtein(word, name);
    let near = known.iter().copied().min_by_key(|name| distance(name))?;
    (distance(near) <= near.len().max(word.len()).div_ceil(3)).then_some(near)
}

fn listed(words: &[String]) -> String {
    match words {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        _ => words.concat(),
    }
}

pub(super) fn text_of<'v>(value: &'v DeValue<'_>) -> Option<&'v str> {
    value.as_str().filter(|text| !text.is_empty())
}

fn texts_of(value: &DeValue<'_>, is_fine: impl Fn(&str) -> bool) -> Option<Vec<String>> {
    let one = |item: &Spanned<DeValue<'_>>| text_of(item.get_ref()).filter(|text| is_fine(text)).map(str::to_owned);
    value.as_array()?.iter().map(one).collect()
}

fn integer_of(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_near() {
        assert_eq!(nearest("ttll", &["ttl", "ttl_jitter"]), Some("ttl"));
        assert_eq!(nearest("tll", &["ttl"]), Some("ttl"));
        assert_eq!(nearest("negativ_ttl", &["ttl", "negative_ttl"]), Some("negative_ttl"));
        assert_eq!(nearest("banana", &["ttl", "lease"]), None);
    }

    #[test]
    fn lists_read_as_a_sentence() {
        assert_eq!(listed(&["a".into(), "b".into(), "c".into()]), "a, b or c");
        assert_eq!(listed(&["a".into()]), "a");
    }
}
