//! Days as the campus counts them.
//!
//! The protocol names a day by month and day only (DE13) and the journal by a whole date. This module turns one into
//! the other and says which local day a moment belongs to. It reads no clock: the moment is always an argument.

use std::fmt;

use jiff::civil;
use jiff::tz::TimeZone;

use crate::limits::DATE_YEAR_MAX;

/// A moment: microseconds since 1970-01-01 00:00 UTC.
pub type Timestamp = u64;

/// A calendar day, counted from 2000-01-01 (day 0). Ordered, and 2 bytes wide because every remembered identity holds one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Date(pub u16);

/// Days from 1970-01-01 to 2000-01-01.
const EPOCH_DAYS: i64 = 10_957;

impl Date {
    /// The day `year`-`month`-`day`, or `None` where there is no such day or it lies outside 2000 to 2178.
    #[must_use]
    pub fn new(year: i16, month: i8, day: i8) -> Option<Self> {
        if !(2000..=DATE_YEAR_MAX).contains(&year) {
            return None;
        }
        let date = civil::Date::new(year, month, day).ok()?;
        let days = date.duration_since(civil::date(2000, 1, 1)).as_hours() / 24;
        u16::try_from(days).ok().map(Self)
    }

    /// Reads `YYYY-MM-DD`; nothing else is taken.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
            return None;
        }
        let number = |range: std::ops::Range<usize>| -> Option<i16> {
            let part = &bytes[range];
            part.iter().all(u8::is_ascii_digit).then(|| part.iter().fold(0, |value, digit| value * 10 + i16::from(digit - b'0')))
        };
        Self::new(number(0..4)?, i8::try_from(number(5..7)?).ok()?, i8::try_from(number(8..10)?).ok()?)
    }

    /// The day of DE13 (`month_day` is MMDD as a number) in the year that brings it nearest to `near`; `None` where no year
    /// around has such a day. A tie, half a year away to both sides, goes to the past.
    #[must_use]
    pub fn nearest(month_day: u16, near: Self) -> Option<Self> {
        let (month, day) = (i8::try_from(month_day / 100).ok()?, i8::try_from(month_day % 100).ok()?);
        let year = near.civil().year();
        // 29 February may be up to four years away.
        (year - 4..=year + 4).filter_map(|candidate| Self::new(candidate, month, day)).min_by_key(|date| near.0.abs_diff(date.0))
    }

    /// Year, month, day.
    #[must_use]
    pub fn parts(self) -> (i16, i8, i8) {
        let date = self.civil();
        (date.year(), date.month(), date.day())
    }

    /// MMDD as a number, as DE13 and DE15 carry it.
    #[must_use]
    pub fn month_day(self) -> u16 {
        let (_, month, day) = self.parts();
        u16::from(month.unsigned_abs()) * 100 + u16::from(day.unsigned_abs())
    }

    /// Days since 1970-01-01.
    #[must_use]
    pub fn unix_days(self) -> i64 {
        EPOCH_DAYS + i64::from(self.0)
    }

    /// The day of the week by ISO 8601: 1 is Monday, 7 Sunday.
    #[must_use]
    pub fn weekday(self) -> u8 {
        // 2000-01-01 was a Saturday.
        ((u32::from(self.0) + 5) % 7) as u8 + 1
    }

    fn civil(self) -> civil::Date {
        // In range by construction: day 65,535 lies in 2179.
        civil::date(2000, 1, 1).saturating_add(jiff::Span::new().days(i64::from(self.0)))
    }
}

impl fmt::Display for Date {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.parts();
        write!(formatter, "{year:04}-{month:02}-{day:02}")
    }
}

/// The campus's time zone, and with it the answer to "which day is it there?". The answer is kept until the next local
/// midnight, so that asking at every wave costs a comparison.
pub struct CampusCalendar {
    zone: TimeZone,
    today: Date,
    valid: std::ops::Range<Timestamp>,
}

impl CampusCalendar {
    /// A calendar for an IANA time zone name; the empty name is the machine's own zone.
    ///
    /// # Errors
    /// A sentence, where no such zone is known here.
    pub fn new(zone: &str) -> Result<Self, String> {
        let zone = if zone.is_empty() {
            TimeZone::try_system()
                .map_err(|error| format!("this machine's time zone cannot be read ({error}); name one in campus.timezone"))?
        } else {
            TimeZone::get(zone).map_err(|error| {
                format!("the time zone {zone:?} is not known here ({error}); give an IANA name such as Asia/Shanghai")
            })?
        };
        Ok(Self { zone, today: Date(0), valid: 0..0 })
    }

    /// The campus's date at `now`. A moment outside 2000 to 2178 counts as the nearest day inside.
    pub fn date(&mut self, now: Timestamp) -> Date {
        if !self.valid.contains(&now) {
            self.look_up(now);
        }
        self.today
    }

    /// The moment in ISO 8601, with microseconds and the campus's offset from UTC; `None` where it lies beyond the year 9999.
    #[must_use]
    pub fn moment(&self, at: Timestamp) -> Option<String> {
        let at = jiff::Timestamp::from_microsecond(i64::try_from(at).ok()?).ok()?.to_zoned(self.zone.clone());
        (at.year() <= 9999).then(|| at.strftime("%Y-%m-%dT%H:%M:%S%.6f%:z").to_string())
    }

    fn look_up(&mut self, now: Timestamp) {
        let moment =
            i64::try_from(now).ok().and_then(|now| jiff::Timestamp::from_microsecond(now).ok()).unwrap_or(jiff::Timestamp::MAX);
        let today = self.zone.to_datetime(moment).date();
        self.today = Date::new(today.year(), today.month(), today.day()).unwrap_or(if today.year() < 2000 {
            Date(0)
        } else {
            Date(u16::MAX)
        });
        let midnight = |date: civil::Date| {
            date.to_zoned(self.zone.clone()).map_or(now, |zoned| u64::try_from(zoned.timestamp().as_microsecond()).unwrap_or(0))
        };
        self.valid = midnight(today)..today.tomorrow().map_or(now, midnight);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(text: &str) -> Date {
        Date::parse(text).unwrap()
    }

    #[test]
    fn text_round_trips_and_impossible_days_are_refused() {
        assert_eq!(date("2000-01-01"), Date(0));
        for text in ["2026-11-22", "2028-02-29", "2178-12-31"] {
            assert_eq!(date(text).to_string(), text);
        }
        for text in ["2026-02-29", "2026-13-01", "1999-12-31", "2026-1-01", "26-11-22", "2026-11-22 ", "+026-11-22", ""] {
            assert_eq!(Date::parse(text), None, "{text}");
        }
        assert_eq!(date("2026-11-22").unix_days(), 20_779);
    }

    #[test]
    fn days_of_the_week_are_those_of_the_calendar() {
        for (text, weekday) in [("2000-01-01", 6), ("2000-01-02", 7), ("2000-01-03", 1), ("2026-11-22", 7), ("2100-03-01", 1)] {
            assert_eq!(date(text).weekday(), weekday, "{text}");
        }
        for day in (0..=u16::MAX).step_by(97) {
            assert_eq!(i8::try_from(Date(day).weekday()), Ok(Date(day).civil().weekday().to_monday_one_offset()), "{}", Date(day));
        }
    }

    #[test]
    fn the_nearest_year_is_taken() {
        assert_eq!(Date::nearest(1231, date("2027-01-01")), Some(date("2026-12-31")));
        assert_eq!(Date::nearest(101, date("2026-12-31")), Some(date("2027-01-01")));
        assert_eq!(Date::nearest(1122, date("2026-11-22")), Some(date("2026-11-22")));
        assert_eq!(Date::nearest(229, date("2027-03-01")), Some(date("2028-02-29")));
        assert_eq!(Date::nearest(1331, date("2027-03-01")), None);
        assert_eq!(Date::nearest(0, date("2027-03-01")), None);
    }

    #[test]
    fn a_moment_belongs_to_its_local_day() {
        let mut shanghai = CampusCalendar::new("Asia/Shanghai").unwrap();
        let noon_utc = 1_795_348_800_000_000; // 2026-11-22 12:00 UTC
        let hour = 3_600_000_000;
        assert_eq!(shanghai.date(noon_utc), date("2026-11-22"));
        assert_eq!(shanghai.date(noon_utc + 4 * hour - 1), date("2026-11-22"));
        assert_eq!(shanghai.date(noon_utc + 4 * hour), date("2026-11-23"));
        assert_eq!(shanghai.date(noon_utc - 21 * hour), date("2026-11-21"));
        assert_eq!(shanghai.moment(noon_utc + 1).unwrap(), "2026-11-22T20:00:00.000001+08:00");
        assert_eq!(shanghai.moment(u64::MAX), None);
        assert!(CampusCalendar::new("Campus/Nowhere").is_err());
    }
}
