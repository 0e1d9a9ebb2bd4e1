//! How long an answer may be kept, from its headers: RFC 9111 for a shared cache, RFC 5861 for stale answers.
//!
//! Pure: headers and times in, durations out. The invariant: where headers contradict each other or make no sense, the answer
//! is kept for the shorter time. (`http-cache-semantics` knows more, how to keep and match requests, and less, the stale times
//! alone; so this is our own.)

use std::time::{Duration, SystemTime};

use hyper::header::{CACHE_CONTROL, DATE, EXPIRES, HeaderMap, HeaderName, VARY};

/// What is `None` is not said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Freshness {
    pub(super) ttl: Option<Duration>,
    pub(super) stale_while_revalidate: Option<Duration>,
    pub(super) stale_if_error: Option<Duration>,
}

impl Freshness {
    const NOT_KEPT: Self = Self {
        ttl: Some(Duration::ZERO),
        stale_while_revalidate: Some(Duration::ZERO),
        stale_if_error: Some(Duration::ZERO),
    };

    /// `began` is when the request was sent, `now` when its answer came.
    pub(super) fn of(headers: &HeaderMap, began: SystemTime, now: SystemTime) -> Self {
        let control = Control::of(headers);
        if control.not_kept || headers.get_all(VARY).iter().any(|vary| vary == "*") {
            return Self::NOT_KEPT;
        }
        let lifetime = control.lifetime(headers, now);
        let age = current_age(headers, began, now);
        let never_stale = control.never_stale || (control.s_maxage.is_some() && !control.says_stale());
        let grace = |said: Option<Duration>| if never_stale { Some(Duration::ZERO) } else { said };
        Self {
            ttl: lifetime.map(|lifetime| lifetime.saturating_sub(age)),
            stale_while_revalidate: grace(control.stale_while_revalidate),
            stale_if_error: grace(control.stale_if_error),
        }
    }
}

/// The directives of RFC 9111, section 5.2.2, that matter here.
#[derive(Debug, Default)]
struct Control {
    not_kept: bool,
    never_stale: bool,
    s_maxage: Option<Duration>,
    max_age: Option<Duration>,
    stale_while_revalidate: Option<Duration>,
    stale_if_error: Option<Duration>,
}

impl Control {
    fn of(headers: &HeaderMap) -> Self {
        let mut control = Self::default();
        for line in headers.get_all(CACHE_CONTROL) {
            let line = String::from_utf8_lossy(line.as_bytes());
            for directive in directives(&line) {
                control.add(directive);
            }
        }
        control
    }

    fn add(&mut self, directive: &str) {
        let (name, argument) = directive.split_once('=').unwrap_or((directive, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            // With the names of fields they mean these fields alone; then too, less is kept than could be.
            "no-store" | "private" | "no-cache" => self.not_kept = true,
            "must-revalidate" | "proxy-revalidate" => self.never_stale = true,
            "s-maxage" => shortest(&mut self.s_maxage, argument),
            "max-age" => shortest(&mut self.max_age, argument),
            "stale-while-revalidate" => shortest(&mut self.stale_while_revalidate, argument),
            "stale-if-error" => shortest(&mut self.stale_if_error, argument),
            // Section 5.2.3: others are passed over.
            _ => {}
        }
    }

    /// Sections 4.2.1 and 5.3. No heuristic of section 4.2.2: where nothing is said, the keyspace says it.
    fn lifetime(&self, headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
        self.s_maxage.or(self.max_age).or_else(|| {
            headers.contains_key(EXPIRES).then(|| {
                // "0" and other dates that are none mean the past.
                let expires = one_date(headers, &EXPIRES);
                let sent = one_date(headers, &DATE).unwrap_or(now);
                expires.and_then(|expires| expires.duration_since(sent).ok()).unwrap_or_default()
            })
        })
    }

    fn says_stale(&self) -> bool {
        self.stale_while_revalidate.is_some() || self.stale_if_error.is_some()
    }
}

/// Split at commas, but not within quotes.
fn directives(line: &str) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    line.split(move |c| {
        is_quoted ^= c == '"';
        c == ',' && !is_quoted
    })
}

/// Of two the shorter; what is no number of seconds is none at all (section 4.2.1).
fn shortest(known: &mut Option<Duration>, argument: &str) {
    let said = seconds(argument.trim().trim_matches('"'));
    *known = Some(known.map_or(said, |known| known.min(said)));
}

/// Section 1.2.2: what is too large is 2^31.
fn seconds(digits: &str) -> Duration {
    const MAX: u64 = 1 << 31;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Duration::ZERO;
    }
    Duration::from_secs(digits.parse().unwrap_or(MAX).min(MAX))
}

/// Section 4.2.3, for an answer that has just come.
fn current_age(headers: &HeaderMap, began: SystemTime, now: SystemTime) -> Duration {
    let apparent = one_date(headers, &DATE).and_then(|sent| now.duration_since(sent).ok()).unwrap_or_default();
    let delay = now.duration_since(began).unwrap_or_default();
    apparent.max(super::age(headers) + delay)
}

fn one_date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn of(lines: &[(&str, &str)]) -> Freshness {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        let now = NOW + Duration::from_secs(1_000_000_000);
        Freshness::of(&headers, now, now)
    }

    fn control(line: &str) -> Freshness {
        of(&[("cache-control", line)])
    }

    fn ttl(line: &str) -> Option<u64> {
        control(line).ttl.map(|ttl| ttl.as_secs())
    }

    fn date(offset: i64) -> String {
        httpdate::fmt_http_date(NOW + Duration::from_secs((1_000_000_000 + offset) as u64))
    }

    #[test]
    fn what_a_shared_cache_is_told_comes_first() {
        assert_eq!(ttl("max-age=60"), Some(60));
        assert_eq!(ttl("public, MAX-AGE=\"60\""), Some(60));
        assert_eq!(ttl("max-age=60, s-maxage=10"), Some(10));
        assert_eq!(of(&[("cache-control", "max-age=60"), ("expires", "0")]).ttl, Some(Duration::from_secs(60)));
        assert_eq!(ttl("public"), None);
        assert_eq!(of(&[]), Freshness::default());
    }

    #[test]
    fn what_must_not_be_kept_lives_for_no_time() {
        for line in ["no-store", "private", "no-cache", "max-age=60, no-store", "private=\"set-cookie\", max-age=60"] {
            assert_eq!(control(line), Freshness::NOT_KEPT, "{line}");
        }
        assert_eq!(of(&[("cache-control", "max-age=60"), ("cache-control", "no-store")]), Freshness::NOT_KEPT);
        assert_eq!(of(&[("cache-control", "max-age=60"), ("vary", "*")]), Freshness::NOT_KEPT);
        assert_eq!(ttl("ext=\"a, no-store\", max-age=60"), Some(60));
    }

    #[test]
    fn what_makes_no_sense_is_the_shorter_time() {
        assert_eq!(ttl("max-age=soon"), Some(0));
        assert_eq!(ttl("max-age"), Some(0));
        assert_eq!(ttl("max-age=-1"), Some(0));
        assert_eq!(ttl("max-age=60, max-age=30"), Some(30));
        assert_eq!(ttl("max-age=99999999999999999999999"), Some(1 << 31));
        assert_eq!(of(&[("expires", "tomorrow")]).ttl, Some(Duration::ZERO));
        assert_eq!(of(&[("expires", &date(-5)), ("date", &date(0))]).ttl, Some(Duration::ZERO));
    }

    #[test]
    fn age_is_taken_off() {
        assert_eq!(of(&[("cache-control", "max-age=60"), ("age", "20")]).ttl, Some(Duration::from_secs(40)));
        assert_eq!(of(&[("cache-control", "max-age=60"), ("age", "61")]).ttl, Some(Duration::ZERO));
        assert_eq!(of(&[("cache-control", "max-age=60"), ("date", &date(-50))]).ttl, Some(Duration::from_secs(10)));
        assert_eq!(of(&[("expires", &date(60)), ("date", &date(0))]).ttl, Some(Duration::from_secs(60)));
        assert_eq!(of(&[("expires", &date(60)), ("date", &date(-50))]).ttl, Some(Duration::from_secs(60)));
        assert_eq!(of(&[("expires", &date(60))]).ttl, Some(Duration::from_secs(60)));
    }

    #[test]
    fn stale_times_hold_unless_staleness_is_forbidden() {
        let both = "max-age=1, stale-while-revalidate=2, stale-if-error=3";
        let seconds = |freshness: Freshness| {
            [freshness.stale_while_revalidate, freshness.stale_if_error].map(|grace| grace.map(|grace| grace.as_secs()))
        };
        assert_eq!(seconds(control(both)), [Some(2), Some(3)]);
        assert_eq!(seconds(control("max-age=1")), [None, None]);
        assert_eq!(seconds(control(&format!("{both}, must-revalidate"))), [Some(0), Some(0)]);
        assert_eq!(seconds(control("s-maxage=1")), [Some(0), Some(0)]);
        assert_eq!(seconds(control("s-maxage=1, stale-while-revalidate=2")), [Some(2), None]);
    }
}
