//! Dates and times as text, in the form of ISO 8601.
//!
//! Knows the calendar and no clock.

/// A date by its days since 1970-01-01, in the Gregorian calendar, also before it was one.
///
/// After `civil_from_days` of <https://howardhinnant.github.io/date_algorithms.html>.
#[cfg(feature = "postgres")]
pub(super) fn date(days_since_1970: i64) -> String {
    let days = days_since_1970 + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    // Years before 1 are counted as astronomers do: 0 is 1 BC.
    let sign = if year < 0 { "-" } else { "" };
    format!("{sign}{:04}-{month:02}-{day:02}", year.unsigned_abs())
}

/// Microseconds of a second behind their point, without the zeros at the end; nothing if there are none.
pub(super) fn fraction(micros: u32) -> String {
    if micros == 0 { String::new() } else { format!(".{micros:06}").trim_end_matches('0').to_owned() }
}

#[cfg(all(test, feature = "postgres"))]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        for (days, text) in [(0, "1970-01-01"), (-1, "1969-12-31"), (11_016, "2000-02-29"), (19_782, "2024-02-29")] {
            assert_eq!(date(days), text);
        }
        assert_eq!(date(20_483), "2026-01-30");
    }

    #[test]
    fn a_fraction_is_as_long_as_it_must_be() {
        assert_eq!([0, 500_000, 1].map(fraction), ["", ".5", ".000001"]);
    }
}
