//! One rule of the campus's policy: what it limits, for whom, where and when.
//!
//! Always true of a rule that [`Rule::check`] lets pass: it says something in every field that its kind uses and nothing in the
//! others, so that two rules with equal [`Rule::key`]s are about the same thing.

use std::ops::RangeInclusive;

use super::bytes::{Decoder, Encoder};
use super::registry::{CardClass, Category, Zone, named};
use crate::calendar::Date;
use crate::limits::{ACCOUNT_FEN_MAX, ANTI_PASSBACK_MINUTES_MAX, RULE_COUNT_MAX};

named! {
    /// What a rule limits. What takes an amount stands before what takes a count: so they are decided.
    RuleKind {
        /// The amount of one operation in fen.
        TransactionMax = 1 "transaction_max",
        /// What a holder may spend in a business date in fen.
        DayMax = 2 "day_max",
        /// How often a holder may spend in a business date.
        DayCount = 3 "day_count",
        /// How many purchases a holder may make within a period of one day.
        Meal = 4 "meal",
        /// The amount in fen above which a PIN is needed.
        PinAbove = 5 "pin_above",
        /// Whether the subsidy purse is taken: 1 or 0.
        Subsidy = 6 "subsidy",
        /// What is added to an amount, or where negative taken off it, in basis points.
        Surcharge = 7 "surcharge",
        /// Nothing is sold.
        Refuse = 8 "refuse",
        /// Who is let through the doors of a zone.
        Door = 9 "door",
        /// Minutes within which nobody goes the same way twice through the doors of a zone.
        AntiPassback = 10 "anti_passback",
    }
}

/// A field of a rule, numbered as the columns of a policy file are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum RuleField {
    /// [`Rule::kind`].
    Rule = 0,
    /// [`Rule::class`].
    Class = 1,
    /// [`Rule::category`].
    Category = 2,
    /// [`Rule::zone`].
    Zone = 3,
    /// [`Window::days`].
    Days = 4,
    /// [`Window::from`].
    From = 5,
    /// [`Window::to`].
    To = 6,
    /// [`Rule::value`].
    Value = 7,
}

impl RuleKind {
    /// Whether a rule of this kind says something in this field.
    #[must_use]
    pub fn uses(self, field: RuleField) -> bool {
        match field {
            RuleField::Rule => true,
            RuleField::Class => self != Self::AntiPassback,
            RuleField::Category => !matches!(self, Self::Door | Self::AntiPassback),
            RuleField::Zone => matches!(self, Self::Door | Self::AntiPassback),
            RuleField::Days | RuleField::From | RuleField::To => matches!(self, Self::Meal | Self::Refuse | Self::Door),
            RuleField::Value => !matches!(self, Self::Refuse | Self::Door),
        }
    }

    /// The values that it may have; 0 alone where it has none.
    #[must_use]
    pub fn values(self) -> RangeInclusive<i64> {
        match self {
            // What DE4 may have in a switch without any other limit.
            Self::TransactionMax | Self::PinAbove => 0..=i64::from(u32::MAX),
            Self::DayMax => 0..=ACCOUNT_FEN_MAX,
            Self::DayCount | Self::Meal => 0..=RULE_COUNT_MAX,
            Self::Subsidy => 0..=1,
            Self::Surcharge => -10_000..=10_000,
            Self::AntiPassback => 1..=ANTI_PASSBACK_MINUTES_MAX,
            Self::Refuse | Self::Door => 0..=0,
        }
    }

    /// Whether it limits what a holder does together, and so has counters.
    #[must_use]
    pub fn is_counted(self) -> bool {
        matches!(self, Self::DayMax | Self::DayCount | Self::Meal)
    }
}

/// Minutes of a day.
pub const DAY_MINUTES: u16 = 24 * 60;
/// Every day of the week.
pub const ALL_DAYS: u8 = 0x7f;

/// A period that comes on some days of the week, in the local time of DE12 and DE13.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Window {
    /// The days on which it begins: bit 0 is Monday, bit 6 Sunday.
    pub days: u8,
    /// The minute of the day at which it begins.
    pub from: u16,
    /// The minute of the day before which it ends; on the next day where that is not after `from`.
    pub to: u16,
}

impl Window {
    /// At any time.
    pub const ALWAYS: Self = Self { days: ALL_DAYS, from: 0, to: 0 };

    fn is_possible(self) -> bool {
        (1..=ALL_DAYS).contains(&self.days) && self.from < DAY_MINUTES && self.to < DAY_MINUTES
    }

    /// The day on which the period began that holds this moment, if one does. `time` is DE12, hhmmss as a number.
    #[must_use]
    #[inline]
    pub fn begun(self, date: Date, time: u32) -> Option<Date> {
        let minute = time / 10_000 * 60 + time / 100 % 100;
        let (from, to) = (u32::from(self.from), u32::from(self.to));
        let passes_midnight = to <= from;
        if passes_midnight && minute < to {
            let before = Date(date.0.checked_sub(1)?);
            return self.has(before).then_some(before);
        }
        (minute >= from && (passes_midnight || minute < to) && self.has(date)).then_some(date)
    }

    fn has(self, date: Date) -> bool {
        self.days >> (date.weekday() - 1) & 1 == 1
    }
}

/// One rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rule {
    /// What it limits.
    pub kind: RuleKind,
    /// For whom; `None`: for everybody.
    pub class: Option<CardClass>,
    /// At which merchants; `None`: at all.
    pub category: Option<Category>,
    /// At which doors.
    pub zone: Option<Zone>,
    /// When.
    pub window: Window,
    /// How much; 0 where the kind has no value.
    pub value: i64,
}

/// Bytes of a rule in a record, at most.
pub(super) const RULE_BYTES_MAX: usize = 3 + (2 + 16) + 5 + 8;

impl Rule {
    /// A rule of this kind for everybody, everywhere and always.
    #[must_use]
    pub fn new(kind: RuleKind, value: i64) -> Self {
        Self { kind, class: None, category: None, zone: None, window: Window::ALWAYS, value }
    }

    /// What it is about: all but its value. In the order of keys rules of one kind stand together, and of those the ones of one
    /// zone.
    #[must_use]
    pub fn key(&self) -> (u8, Option<Zone>, u8, u8, Window) {
        let class = self.class.map_or(0, |class| class as u8);
        let category = self.category.map_or(0, |category| category as u8);
        (self.kind as u8, self.zone, class, category, self.window)
    }

    /// Whether it holds for this class at merchants of this category.
    #[must_use]
    #[inline]
    pub fn concerns(&self, class: CardClass, category: Category) -> bool {
        self.class.is_none_or(|its| its == class) && self.category.is_none_or(|its| its == category)
    }

    /// Whether it says what its kind needs, and nothing else.
    ///
    /// # Errors
    /// The field that is wrong, and why.
    pub fn check(&self) -> Result<(), (RuleField, String)> {
        let name = self.kind.name();
        let unused = |field: RuleField, is_empty: bool| {
            if self.kind.uses(field) || is_empty { Ok(()) } else { Err((field, format!("{name} has none; leave it empty"))) }
        };
        unused(RuleField::Class, self.class.is_none())?;
        unused(RuleField::Category, self.category.is_none())?;
        unused(RuleField::Zone, self.zone.is_none())?;
        if self.kind.uses(RuleField::Zone) && self.zone.is_none_or(|zone| zone.as_bytes().is_empty()) {
            return Err((RuleField::Zone, format!("{name} names the zone of its doors")));
        }
        unused(RuleField::Days, self.window.days == ALL_DAYS)?;
        unused(RuleField::From, self.window.from == 0)?;
        unused(RuleField::To, self.window.to == 0)?;
        if !self.window.is_possible() {
            return Err((RuleField::Days, "there is no such period".to_owned()));
        }
        let values = self.kind.values();
        if !values.contains(&self.value) {
            return Err((RuleField::Value, format!("{} is not within {} to {}", self.value, values.start(), values.end())));
        }
        Ok(())
    }

    /// The rule as a row of a policy file, field by field.
    #[must_use]
    pub fn fields(&self) -> [String; 8] {
        let or_all = |uses: RuleField, name: Option<&'static str>| {
            if self.kind.uses(uses) { name.unwrap_or("*").to_owned() } else { String::new() }
        };
        let value = match self.kind {
            RuleKind::Refuse | RuleKind::Door => String::new(),
            RuleKind::Subsidy => if self.value == 1 { "yes" } else { "no" }.to_owned(),
            _ => self.value.to_string(),
        };
        let [from, to] = if self.window == (Window { from: 0, to: 0, ..self.window }) {
            [String::new(), String::new()]
        } else {
            [self.window.from, self.window.to].map(|minute| format!("{:02}:{:02}", minute / 60, minute % 60))
        };
        [
            self.kind.name().to_owned(),
            or_all(RuleField::Class, self.class.map(CardClass::name)),
            or_all(RuleField::Category, self.category.map(Category::name)),
            self.zone.map_or(String::new(), |zone| zone.as_str().to_owned()),
            days_text(self.window.days),
            from,
            to,
            value,
        ]
    }

    pub(super) fn put(&self, encoder: &mut Encoder<'_>) {
        let (kind, zone, class, category, window) = self.key();
        for byte in [kind, class, category] {
            encoder.u8(byte);
        }
        encoder.text(zone.as_ref().map_or("", Zone::as_str));
        encoder.u8(window.days);
        encoder.u16(window.from);
        encoder.u16(window.to);
        encoder.u64(self.value.cast_unsigned());
    }

    pub(super) fn take(decoder: &mut Decoder<'_>) -> Option<Self> {
        /// 0 is none, and every other number must be somebody's.
        #[expect(clippy::option_option, reason = "unreadable, none, this one")]
        fn optional<T>(number: u8, from_number: fn(u8) -> Option<T>) -> Option<Option<T>> {
            if number == 0 { Some(None) } else { from_number(number).map(Some) }
        }
        let rule = Self {
            kind: RuleKind::from_number(decoder.u8()?)?,
            class: optional(decoder.u8()?, CardClass::from_number)?,
            category: optional(decoder.u8()?, Category::from_number)?,
            zone: Some(Zone::new(decoder.text()?)?).filter(|zone| !zone.as_bytes().is_empty()),
            window: Window { days: decoder.u8()?, from: decoder.u16()?, to: decoder.u16()? },
            value: decoder.u64()?.cast_signed(),
        };
        rule.check().is_ok().then_some(rule)
    }
}

/// Days as a policy file has them: nothing for all of them, three or more in a row as `1-5`.
fn days_text(days: u8) -> String {
    if days == ALL_DAYS {
        return String::new();
    }
    let has = |day: u8| (1..=7).contains(&day) && days >> (day - 1) & 1 == 1;
    let mut text = String::new();
    for day in (1..=7).filter(|&day| has(day)) {
        let within = day > 1 && has(day - 1) && has(day + 1);
        match within {
            true if !text.ends_with('-') => text.push('-'),
            true => {}
            false => text.push(char::from(b'0' + day)),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes(text: &str) -> u16 {
        let (hours, minutes) = text.split_once(':').unwrap();
        hours.parse::<u16>().unwrap() * 60 + minutes.parse::<u16>().unwrap()
    }

    #[test]
    fn a_period_belongs_to_the_day_on_which_it_began() {
        // days | from, to | date, time | the day on which it began. 2026-11-22 was a Sunday.
        const TABLE: &str = "
            1234567 | 00:00 00:00 | 2026-11-22 000000 | 2026-11-22
            1234567 | 00:00 00:00 | 2026-11-22 235959 | 2026-11-22
            7       | 00:00 00:00 | 2026-11-22 120000 | 2026-11-22
            123456  | 00:00 00:00 | 2026-11-22 120000 | -
            1234567 | 11:00 13:30 | 2026-11-22 105959 | -
            1234567 | 11:00 13:30 | 2026-11-22 110000 | 2026-11-22
            1234567 | 11:00 13:30 | 2026-11-22 132959 | 2026-11-22
            1234567 | 11:00 13:30 | 2026-11-22 133000 | -
            1       | 11:00 13:30 | 2026-11-22 120000 | -
            1       | 11:00 13:30 | 2026-11-23 120000 | 2026-11-23
            1234567 | 22:00 02:00 | 2026-11-22 215959 | -
            1234567 | 22:00 02:00 | 2026-11-22 220000 | 2026-11-22
            1234567 | 22:00 02:00 | 2026-11-23 000000 | 2026-11-22
            1234567 | 22:00 02:00 | 2026-11-23 015959 | 2026-11-22
            1234567 | 22:00 02:00 | 2026-11-23 020000 | -
            7       | 22:00 02:00 | 2026-11-22 230000 | 2026-11-22
            7       | 22:00 02:00 | 2026-11-23 010000 | 2026-11-22
            7       | 22:00 02:00 | 2026-11-23 230000 | -
            1       | 22:00 02:00 | 2026-11-23 010000 | -
            1       | 22:00 02:00 | 2026-11-24 010000 | 2026-11-23
            1234567 | 18:00 00:00 | 2026-11-22 235959 | 2026-11-22
            1234567 | 18:00 00:00 | 2026-11-23 000000 | -
            1234567 | 06:00 06:00 | 2026-11-22 055959 | 2026-11-21
            1234567 | 06:00 06:00 | 2026-11-22 060000 | 2026-11-22
            1234567 | 22:00 02:00 | 2000-01-01 010000 | -
        ";
        let mut rows = 0;
        for row in TABLE.lines().map(str::trim).filter(|row| !row.is_empty()) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let days = cells[0].bytes().fold(0, |days, day| days | 1 << (day - b'1'));
            let (from, to) = cells[1].split_once(' ').unwrap();
            let (date, time) = cells[2].split_once(' ').unwrap();
            let window = Window { days, from: minutes(from), to: minutes(to) };
            assert_eq!(window.begun(Date::parse(date).unwrap(), time.parse().unwrap()), Date::parse(cells[3]), "{row}");
            rows += 1;
        }
        assert_eq!(rows, 25);
        // No number is too much for it.
        assert_eq!(Window { days: ALL_DAYS, from: 60, to: 120 }.begun(Date(u16::MAX), u32::MAX), None);
    }

    #[test]
    fn days_are_written_shortly() {
        for (days, text) in [
            (0b111_1111, ""),
            (0b001_1111, "1-5"),
            (0b110_0000, "67"),
            (0b101_0101, "1357"),
            (0b100_0111, "1-37"),
            (0b111_1110, "2-7"),
            (0b111_0111, "1-35-7"),
            (0b000_0001, "1"),
            (0b100_0000, "7"),
        ] {
            assert_eq!(days_text(days), text);
        }
    }

    #[test]
    fn a_rule_says_what_its_kind_needs_and_nothing_else() {
        let plain = |kind: RuleKind| Rule {
            zone: kind.uses(RuleField::Zone).then(|| Zone::new("DORM").unwrap()),
            ..Rule::new(kind, *kind.values().end())
        };
        let wrong = |rule: Rule| rule.check().map_err(|(field, _)| field);
        for &kind in RuleKind::ALL {
            let rule = plain(kind);
            assert_eq!(rule.check(), Ok(()), "{kind:?}");
            let changed = [
                (RuleField::Class, Rule { class: Some(CardClass::Student), ..rule }),
                (RuleField::Category, Rule { category: Some(Category::Shop), ..rule }),
                (RuleField::Zone, Rule { zone: Zone::new("GATE"), ..rule }),
                (RuleField::Days, Rule { window: Window { days: 1, ..Window::ALWAYS }, ..rule }),
                (RuleField::From, Rule { window: Window { from: 1, ..Window::ALWAYS }, ..rule }),
                (RuleField::To, Rule { window: Window { to: 1, ..Window::ALWAYS }, ..rule }),
            ];
            for (field, changed) in changed {
                assert_eq!(wrong(changed), if kind.uses(field) { Ok(()) } else { Err(field) }, "{kind:?} {field:?}");
            }
            for value in [*kind.values().start() - 1, *kind.values().end() + 1, i64::MIN, i64::MAX] {
                assert_eq!(wrong(Rule { value, ..rule }), Err(RuleField::Value), "{kind:?} {value}");
            }
            assert_eq!(wrong(Rule { value: *kind.values().start(), ..rule }), Ok(()));
        }
        for kind in [RuleKind::Door, RuleKind::AntiPassback] {
            for zone in [None, Zone::new("")] {
                assert_eq!(wrong(Rule { zone, ..plain(kind) }), Err(RuleField::Zone));
            }
        }
        for window in [Window { days: 0, ..Window::ALWAYS }, Window { days: 0x80, ..Window::ALWAYS }] {
            assert_eq!(wrong(Rule { window, ..plain(RuleKind::Meal) }), Err(RuleField::Days));
        }
        for window in [Window { from: DAY_MINUTES, ..Window::ALWAYS }, Window { to: DAY_MINUTES, ..Window::ALWAYS }] {
            assert_eq!(wrong(Rule { window, ..plain(RuleKind::Meal) }), Err(RuleField::Days));
        }
    }

    #[test]
    fn a_rule_comes_back_from_its_bytes() {
        let meal = Rule {
            class: Some(CardClass::Student),
            category: Some(Category::Canteen),
            window: Window { days: 0x1f, from: 630, to: 810 },
            ..Rule::new(RuleKind::Meal, 1)
        };
        let door = Rule { zone: Zone::new("SIXTEEN-BYTES-16"), ..Rule::new(RuleKind::Door, 0) };
        let discount = Rule::new(RuleKind::Surcharge, -10_000);
        for rule in [meal, door, discount] {
            let mut bytes = Vec::new();
            rule.put(&mut Encoder(&mut bytes));
            assert!(bytes.len() <= RULE_BYTES_MAX);
            assert_eq!(Rule::take(&mut Decoder(&bytes)), Some(rule));
            for end in 0..bytes.len() {
                assert_eq!(Rule::take(&mut Decoder(&bytes[..end])), None, "{end} bytes");
            }
        }
        let mut bytes = Vec::new();
        door.put(&mut Encoder(&mut bytes));
        assert_eq!(bytes.len(), RULE_BYTES_MAX);
    }

    #[test]
    fn a_rule_is_a_row_of_a_policy_file() {
        let zone = Zone::new("DORM-1");
        let window = Window { days: 0x60, from: 1380, to: 360 };
        for (rule, row) in [
            (Rule { class: Some(CardClass::Student), ..Rule::new(RuleKind::DayMax, 20_000) }, "day_max,student,*,,,,,20000"),
            (Rule { category: Some(Category::Shop), ..Rule::new(RuleKind::Subsidy, 1) }, "subsidy,*,shop,,,,,yes"),
            (Rule::new(RuleKind::Subsidy, 0), "subsidy,*,*,,,,,no"),
            (Rule { zone, window, ..Rule::new(RuleKind::Door, 0) }, "door,*,,DORM-1,67,23:00,06:00,"),
            (Rule { zone, ..Rule::new(RuleKind::AntiPassback, 10) }, "anti_passback,,,DORM-1,,,,10"),
            (Rule::new(RuleKind::Refuse, 0), "refuse,*,*,,,,,"),
            (
                Rule { window: Window { days: ALL_DAYS, from: 0, to: 1 }, ..Rule::new(RuleKind::Meal, 2) },
                "meal,*,*,,,00:00,00:01,2",
            ),
        ] {
            assert_eq!(rule.fields().join(","), row);
        }
    }
}
