//! Label selectors, as much of them as the tests use: `a=b`, `a==b`, `a!=b`, `a in (b, c)`, `a`, `!a`, joined by commas.

use serde_json::Value;

pub struct Selector(Vec<Requirement>);

enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Missing(String),
}

impl Selector {
    /// The error is what the API server would say.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut depth = 0;
        let mut begin = 0;
        for (at, char) in text.char_indices() {
            match char {
                '(' => depth += 1,
                ')' => depth -= 1,
                ',' if depth == 0 => {
                    parts.push(&text[begin..at]);
                    begin = at + 1;
                }
                _ => {}
            }
        }
        parts.push(&text[begin..]);
        parts.into_iter().map(|part| Requirement::parse(part.trim())).collect::<Result<_, _>>().map(Self)
    }

    pub fn fits(&self, pod: &Value) -> bool {
        let label = |key: &str| pod["metadata"]["labels"][key].as_str();
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => label(key).is_some_and(|value| values.iter().any(|one| one == value)),
            Requirement::NotIn(key, values) => label(key).is_none_or(|value| values.iter().all(|one| one != value)),
            Requirement::Exists(key) => label(key).is_some(),
            Requirement::Missing(key) => label(key).is_none(),
        })
    }
}

impl Requirement {
    fn parse(text: &str) -> Result<Self, String> {
        let key = |text: &str| {
            let is_fine = |char: char| char.is_ascii_alphanumeric() || "-_./".contains(char);
            let is_key = !text.is_empty() && text.chars().all(is_fine);
            is_key
                .then(|| text.to_owned())
                .ok_or_else(|| format!("unable to parse requirement: invalid label {text:?}"))
        };
        if let Some((left, right)) = text.split_once("!=") {
            return Ok(Self::NotIn(key(left.trim())?, vec![right.trim().into()]));
        }
        if let Some((left, right)) = text.split_once("==").or_else(|| text.split_once('=')) {
            return Ok(Self::In(key(left.trim())?, vec![key(right.trim())?]));
        }
        if let Some((left, right)) = text.split_once(" in ") {
            let values = right.trim().trim_start_matches('(').trim_end_matches(')');
            let values = values.split(',').map(|value| key(value.trim())).collect::<Result<_, _>>()?;
            return Ok(Self::In(key(left.trim())?, values));
        }
        match text.strip_prefix('!') {
            Some(rest) => key(rest.trim()).map(Self::Missing),
            None => key(text).map(Self::Exists),
        }
    }
}
