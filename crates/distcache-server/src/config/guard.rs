//! What stands before a source: the sections `[guards.NAME]`, which keyspaces share, and the guard of a keyspace alone.
//!
//! Knows names and bounds, not how loads are guarded. The invariant: keyspaces that share a guard have the same settings of it,
//! since these stand in one place.

use std::ops::RangeInclusive;
use std::time::Duration;

use distcache::{CircuitBreaker, GuardSettings, RateLimit, Retry};
use toml::de::DeValue;

use super::error::Reason;
use super::keyspace::check_name;
use super::section::{Section, Short, nearest, text_of};
use super::units::{PER_SECOND, parse_rate};

const KNOWN: [&str; 4] = ["loads_max", "rate_limit", "circuit_breaker", "retry"];
const RATE_KNOWN: [&str; 3] = ["per_second", "burst", "wait"];
const BREAKER_KNOWN: [&str; 5] = ["failure_rate", "window", "calls_min", "open_for", "probes"];
const RETRY_KNOWN: [&str; 3] = ["attempts", "backoff", "backoff_max"];

const DAY: Duration = Duration::from_secs(24 * 3600);
const MOMENT: Duration = Duration::from_millis(1);
const WINDOW: RangeInclusive<Duration> = Duration::from_millis(100)..=DAY;

/// The guards that have a name.
pub(super) struct Guards(Vec<(String, GuardSettings)>);

pub(super) fn guards(root: &mut Section<'_>) -> Result<Guards, Reason> {
    let named = |(name, mut section): (String, Section<'_>)| {
        check_name(&name, &section)?;
        Ok((name.clone(), guard(&mut section)?.group(name)))
    };
    root.sections("guards", &KNOWN, &[])?.into_iter().map(named).collect::<Result<_, Reason>>().map(Guards)
}

impl Guards {
    /// The guard of a keyspace: one of these by its name, or a section of its own.
    pub(super) fn of(&self, keyspace: &mut Section<'_>) -> Result<Option<GuardSettings>, Reason> {
        const EXPECTED: &str = "the name of a section [guards.NAME], or a section of settings";
        match keyspace.short("guard", &KNOWN, EXPECTED, |value| text_of(value).map(str::to_owned))? {
            None => Ok(None),
            Some(Short::Section(mut section)) => guard(&mut section).map(Some),
            Some(Short::Value(name)) => match self.0.iter().find(|(known, _)| *known == name) {
                Some((_, settings)) => Ok(Some(settings.clone())),
                None => Err(keyspace.wrong("guard", self.not_there(&name))),
            },
        }
    }

    fn not_there(&self, name: &str) -> String {
        let known: Vec<&str> = self.0.iter().map(|(name, _)| name.as_str()).collect();
        let hint = nearest(name, &known).map(|near| format!("; did you mean {near:?}?")).unwrap_or_default();
        format!("there is no section [guards.{}]{hint}", name.escape_debug())
    }
}

fn guard(section: &mut Section<'_>) -> Result<GuardSettings, Reason> {
    let mut settings = GuardSettings::new();
    settings.loads_max = section.integer("loads_max", 1..=1 << 20)?.map(|loads| loads as usize);
    settings.rate_limit = rate_limit(section)?;
    settings.circuit_breaker = circuit_breaker(section)?;
    settings.retry = retry(section)?;
    Ok(settings)
}

fn rate_limit(section: &mut Section<'_>) -> Result<Option<RateLimit>, Reason> {
    const EXPECTED: &str = "a rate such as \"500/s\" or \"30/m\", or a section of settings";
    let rate = |value: &DeValue<'_>| text_of(value).and_then(parse_rate);
    let mut section = match section.short("rate_limit", &RATE_KNOWN, EXPECTED, rate)? {
        None => return Ok(None),
        Some(Short::Value(per_second)) => return Ok(Some(RateLimit::per_second(per_second))),
        Some(Short::Section(section)) => section,
    };
    let Some(per_second) = section.number("per_second", PER_SECOND)? else {
        return Err(section.missing("per_second", "how many loads may begin in a second"));
    };
    let mut limit = RateLimit::per_second(per_second);
    limit.burst = section.integer("burst", 1..=u64::from(u32::MAX))?.map(|loads| loads as u32);
    if let Some(wait_max) = section.duration_within("wait", MOMENT..=DAY)? {
        limit = limit.wait(wait_max);
    }
    Ok(Some(limit))
}

fn circuit_breaker(section: &mut Section<'_>) -> Result<Option<CircuitBreaker>, Reason> {
    let Some(mut section) = switched(section, "circuit_breaker", &BREAKER_KNOWN)? else { return Ok(None) };
    let mut breaker = CircuitBreaker::new();
    let Some(section) = section.as_mut() else { return Ok(Some(breaker)) };
    if let Some(part) = section.part("failure_rate")? {
        if part == 0.0 {
            return Err(section.wrong("failure_rate", "expected a part over 0, such as \"50%\""));
        }
        breaker.failure_rate = part;
    }
    breaker.window = section.duration_within("window", WINDOW)?.unwrap_or(breaker.window);
    breaker.calls_min = section.integer("calls_min", 1..=1_000_000)?.map_or(breaker.calls_min, |calls| calls as u32);
    breaker.open_for = section.duration_within("open_for", MOMENT..=DAY)?.unwrap_or(breaker.open_for);
    breaker.probes = section.integer("probes", 1..=1_000)?.map_or(breaker.probes, |probes| probes as u32);
    Ok(Some(breaker))
}

fn retry(section: &mut Section<'_>) -> Result<Option<Retry>, Reason> {
    let Some(mut section) = switched(section, "retry", &RETRY_KNOWN)? else { return Ok(None) };
    let retry = Retry::new();
    let Some(section) = section.as_mut() else { return Ok(Some(retry)) };
    let attempts = section.integer("attempts", 1..=100)?.map_or(retry.attempts, |attempts| attempts as u32);
    let backoff = section.duration_within("backoff", MOMENT..=DAY)?.unwrap_or(retry.backoff);
    let max = section.duration_within("backoff_max", backoff..=DAY)?.unwrap_or(retry.backoff_max.max(backoff));
    Ok(Some(retry.attempts(attempts).backoff(backoff, max)))
}

/// `true` alone is on with the defaults (`Some(None)`), `false` is off.
fn switched<'t>(
    section: &mut Section<'t>,
    key: &'static str,
    known: &[&'static str],
) -> Result<Option<Option<Section<'t>>>, Reason> {
    Ok(match section.short(key, known, "true, false or a section of settings", DeValue::as_bool)? {
        None | Some(Short::Value(false)) => None,
        Some(Short::Value(true)) => Some(None),
        Some(Short::Section(section)) => Some(Some(section)),
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::Config;

    const SECOND: Duration = Duration::from_secs(1);

    fn parsed(text: &str) -> Result<Vec<Option<GuardSettings>>, String> {
        let config = Config::parse(text, PathBuf::new()).map_err(|reason| reason.to_string())?;
        Ok(config.keyspaces.into_iter().map(|keyspace| keyspace.guard).collect())
    }

    /// The guard of one keyspace, as the lines of its section say.
    fn guard_of(lines: &str) -> Result<GuardSettings, String> {
        let text = format!("[keyspaces.u]\nsource = {{ kind = \"none\" }}\n[keyspaces.u.guard]\n{lines}\n");
        Ok(parsed(&text)?.remove(0).unwrap())
    }

    #[test]
    fn a_named_guard_is_one_for_all_who_name_it() {
        let text = r#"
            [keyspaces.users]
            source = { kind = "none" }
            guard = "db"
            [keyspaces.orders]
            source = { kind = "none" }
            guard = "db"
            [keyspaces.plain]
            source = { kind = "none" }
            [guards.db]
            loads_max = 32
            rate_limit = "30/m"
        "#;
        let db = GuardSettings::new().group("db").loads_max(32).rate_limit(RateLimit::per_second(0.5));
        assert_eq!(parsed(text).unwrap(), [Some(db.clone()), Some(db), None]);
    }

    #[test]
    fn a_guard_says_at_length_or_in_a_word_what_it_is() {
        let short = guard_of("circuit_breaker = true\nretry = true\nrate_limit = \"500/s\"").unwrap();
        let expected = GuardSettings::new().circuit_breaker(CircuitBreaker::new()).retry(Retry::new());
        assert_eq!(short, expected.rate_limit(RateLimit::per_second(500.0)));
        let off = guard_of("circuit_breaker = false\nretry = false").unwrap();
        assert_eq!(off, GuardSettings::new(), "and of no group");
        let long = guard_of(
            "rate_limit = { per_second = 0.5, burst = 10, wait = \"100ms\" }
            circuit_breaker = { failure_rate = \"25%\", window = \"1m\", calls_min = 5, open_for = \"30s\", probes = 2 }
            retry = { attempts = 5, backoff = \"1s\", backoff_max = \"10s\" }",
        );
        let breaker = CircuitBreaker::new().failure_rate(0.25).window(60 * SECOND).calls_min(5);
        let expected = GuardSettings::new()
            .rate_limit(RateLimit::per_second(0.5).burst(10).wait(SECOND / 10))
            .circuit_breaker(breaker.open_for(30 * SECOND).probes(2))
            .retry(Retry::new().attempts(5).backoff(SECOND, 10 * SECOND));
        assert_eq!(long.unwrap(), expected);
        let slow = guard_of("retry = { backoff = \"1m\" }").unwrap();
        assert_eq!(slow.retry, Some(Retry::new().backoff(60 * SECOND, 60 * SECOND)), "no pause is over the longest");
    }

    #[test]
    fn what_a_guard_cannot_be_is_named_with_its_line() {
        let named = |name: &str| {
            let keyspace = format!("[keyspaces.u]\nsource = {{ kind = \"none\" }}\nguard = {name}\n");
            parsed(&(keyspace + "[guards.database]\n")).unwrap_err()
        };
        assert_eq!(
            named("\"databse\""),
            "`guard = \"databse\"` in [keyspaces.u] at line 3: there is no section [guards.databse]; did you mean \"database\"?"
        );
        assert!(
            named("7").contains("at line 3: expected the name of a section [guards.NAME], or a section of settings")
        );
        assert!(parsed("\n[guards.\"a b\"]\n").unwrap_err().contains("[guards.a b] at line 2: `a b` is no name"));
        let refused = |line: &str| guard_of(line).unwrap_err();
        let unknown = refused("retries = true");
        assert_eq!(unknown, "unknown key `retries` in [keyspaces.u.guard] at line 4; did you mean `retry`?");
        let nested = refused("retry = { atempts = 3 }");
        assert_eq!(nested, "unknown key `atempts` in [keyspaces.u.guard.retry] at line 4; did you mean `attempts`?");
        assert!(
            refused("loads_max = 0").contains("`loads_max = 0` in [keyspaces.u.guard] at line 4: expected a whole")
        );
        assert!(
            refused("rate_limit = 500")
                .ends_with("expected a rate such as \"500/s\" or \"30/m\", or a section of settings")
        );
        assert!(refused("rate_limit = \"0/s\"").contains("expected a rate"));
        assert!(
            refused("rate_limit = { burst = 2 }").contains("`per_second` is missing in [keyspaces.u.guard.rate_limit]")
        );
        assert!(refused("rate_limit = { per_second = 0 }").contains("expected a number over zero"));
        assert!(refused("circuit_breaker = \"on\"").contains("expected true, false or a section of settings"));
        assert!(refused("circuit_breaker = { failure_rate = 0 }").contains("expected a part over 0"));
        assert!(refused("circuit_breaker = { window = \"10ms\" }").contains("expected a duration from 100ms to 1day"));
        let longest = refused("retry = { backoff = \"3s\", backoff_max = \"2s\" }");
        assert!(longest.ends_with("expected a duration from 3s to 1day"), "{longest}");
    }
}
