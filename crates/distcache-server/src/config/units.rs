//! Durations, sizes, parts and rates, as people write them.

use std::ops::RangeInclusive;
use std::time::Duration;

/// `30s`, `5m`, `1h 30m`, `250ms`: longer than zero.
pub fn parse_duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok().filter(|duration| !duration.is_zero())
}

/// `65536`, `64KiB`, `1.5GiB`, `100 MB`: powers of 1024 with an `i`, of 1000 without.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * factor as f64;
    (bytes <= i64::MAX as f64).then_some(bytes as u64)
}

/// `10%`: from 0 to 1.
pub(super) fn parse_percent(text: &str) -> Option<f32> {
    let percent: f32 = text.strip_suffix('%')?.trim_end().parse().ok()?;
    (0.0..=100.0).contains(&percent).then_some(percent / 100.0)
}

/// One a day to a thousand millions a second.
pub(super) const PER_SECOND: RangeInclusive<f64> = 1.0 / 86_400.0..=1e9;

/// `500/s`, `30/m`, `0.5 / h`: so many a second.
pub(super) fn parse_rate(text: &str) -> Option<f64> {
    let (number, unit) = text.split_once('/')?;
    let seconds = match unit.trim() {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return None,
    };
    let per_second = number.trim().parse::<f64>().ok()? / seconds;
    PER_SECOND.contains(&per_second).then_some(per_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let known = [("64MiB", 64 << 20), ("65536", 65_536), ("1.5 KiB", 1_536), ("2GB", 2_000_000_000), ("0", 0)];
        for (text, bytes) in known {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "MiB", "64XB", "-1", "1..2MB", "99999999TiB", "64 Mi"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("1h 30m"), Some(Duration::from_secs(5_400)));
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert!(["", "0s", "5", "-5s", "5 apples"].iter().all(|text| parse_duration(text).is_none()));
    }

    #[test]
    fn rates() {
        let known = [("500/s", 500.0), ("30/m", 0.5), ("1800 / h", 0.5), ("0.25/s", 0.25)];
        for (text, per_second) in known {
            assert_eq!(parse_rate(text), Some(per_second), "{text}");
        }
        for text in ["", "500", "/s", "0/s", "-1/s", "nan/s", "inf/s", "500/d", "1e12/s", "500/s/s"] {
            assert_eq!(parse_rate(text), None, "{text}");
        }
    }

    #[test]
    fn parts() {
        assert_eq!(parse_percent("10%"), Some(0.1));
        assert!(["10", "101%", "-1%", "%", "nan%"].iter().all(|text| parse_percent(text).is_none()));
    }
}
