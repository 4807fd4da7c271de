//! The calendar, counted a second time: the proleptic Gregorian one in eras of 400 years from 1 March, and the campus's clock.

/// Days since 1970-01-01.
pub type Day = i64;

/// 2000-01-01, which stands for "no business date yet".
pub const NO_DAY: Day = 10_957;

/// Year, month, day; by the proleptic Gregorian calendar, counted in eras of 400 years from 1 March.
#[must_use]
pub fn civil(day: Day) -> (i64, i64, i64) {
    let shifted = day + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let year = year_of_era + era * 400 + i64::from(month >= 10);
    (year, if month < 10 { month + 3 } else { month - 9 }, of_year - (153 * month + 2) / 5 + 1)
}

/// The day with this date, if there is one.
#[must_use]
pub fn day_number(year: i64, month: i64, day: i64) -> Option<Day> {
    let from_march = year - i64::from(month <= 2);
    let (era, year_of_era) = (from_march.div_euclid(400), from_march.rem_euclid(400));
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let found = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year - 719_468;
    (civil(found) == (year, month, day)).then_some(found)
}

/// MMDD of a day.
#[must_use]
pub fn month_day(day: Day) -> u16 {
    let (_, month, day) = civil(day);
    u16::try_from(month * 100 + day).expect("four digits")
}

/// The campus's day at a moment, UTC+8.
#[must_use]
pub fn campus_day(microseconds: u64) -> Day {
    let seconds = i64::try_from(microseconds / 1_000_000).expect("a moment") + 8 * 3_600;
    seconds.div_euclid(86_400).max(NO_DAY)
}

/// The day with this date that lies nearest to another.
#[must_use]
pub fn nearest(month_day: u16, near: Day) -> Option<Day> {
    let (month, day) = (i64::from(month_day / 100), i64::from(month_day % 100));
    let year = civil(near).0;
    let days = (year - 4..=year + 4).filter(|year| *year >= 2_000).filter_map(|year| day_number(year, month, day));
    days.min_by_key(|day| (day - near).abs())
}

/// Monday is 1, Sunday 7.
#[must_use]
pub fn weekday(day: Day) -> i64 {
    // 1970-01-01 was a Thursday.
    (day + 3).rem_euclid(7) + 1
}

/// The minute of the day of a time of day, hhmmss as a number.
#[must_use]
pub fn minute_of_day(time: u32) -> i64 {
    i64::from(time / 10_000 * 60 + time / 100 % 100)
}
