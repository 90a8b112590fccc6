//! Dates of the proleptic Gregorian calendar in UTC, as far as a report needs them.

/// A moment in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Utc {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

impl Utc {
    /// From microseconds since the Unix epoch. Days to a date after Howard Hinnant's `civil_from_days`:
    /// years begin in March, so that the leap day comes last.
    pub(super) fn from_unix_us(microseconds: u64) -> Self {
        let seconds = i64::try_from(microseconds / 1_000_000).unwrap_or(i64::MAX);
        let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * march_month + 2) / 5 + 1;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        Self { year, month, day, hour: rest / 3_600, minute: rest / 60 % 60, second: rest % 60 }
    }

    /// `20261123T182315Z`, for folder names.
    pub(super) fn compact(self) -> String {
        let Self { year, month, day, hour, minute, second } = self;
        format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
    }

    /// `2026-11-23T18:23:15`, for machines (JUnit).
    pub(super) fn iso(self) -> String {
        let Self { year, month, day, hour, minute, second } = self;
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
    }

    /// `23 November 2026, 18:23 UTC`, for readers.
    pub(super) fn long(self) -> String {
        let month = MONTHS[(self.month - 1) as usize];
        format!("{} {month} {}, {:02}:{:02} UTC", self.day, self.year, self.hour, self.minute)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        let at = |seconds: u64| Utc::from_unix_us(seconds * 1_000_000).compact();
        assert_eq!(at(0), "19700101T000000Z");
        assert_eq!(at(951_782_400), "20000229T000000Z");
        assert_eq!(at(1_709_251_199), "20240229T235959Z");
        assert_eq!(at(1_709_251_200), "20240301T000000Z");
        assert_eq!(at(1_795_458_195), "20261123T182315Z");
        assert_eq!(at(4_102_444_800), "21000101T000000Z");
        assert_eq!(Utc::from_unix_us(1_795_458_195_000_000).long(), "23 November 2026, 18:23 UTC");
        assert_eq!(Utc::from_unix_us(1_795_458_195_000_000).iso(), "2026-11-23T18:23:15");
    }
}
