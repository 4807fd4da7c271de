//! The rules in force, made ready to be asked.
//!
//! A policy file states all rules at once; they replace those before it. Where several rules fit, all of them hold, but for what
//! can only have one value (PIN, subsidy, surcharge): there the most specific rule wins, class and category before class,
//! before category, before neither.
//!
//! Always true here: the list is in the order of its keys and no key is there twice, so that equal policies are equal, however
//! their files were ordered; whatever is asked follows from the list alone.
//!
//! How it works: for each class and category what holds there is worked out beforehand into [`Terms`], and the rules that must
//! be looked at one by one are listed. Where there are none, a payment costs one look into a table.

use std::ops::Range;

use super::bytes::{Decoder, Encoder};
use super::registry::{CardClass, Category, Zone};
use super::rule::{RULE_BYTES_MAX, Rule, RuleField, RuleKind};
use crate::calendar::Date;
use crate::limits::{JOURNAL_RECORD_BYTES_MAX, RULES_MAX};

const _: () = assert!(
    RULES_MAX * RULE_BYTES_MAX + 256 <= JOURNAL_RECORD_BYTES_MAX && RULES_MAX <= u16::MAX as usize,
    "all rules are one record, and a rule's number has 16 bits"
);

const CLASSES: usize = CardClass::ALL.len();
const CATEGORIES: usize = Category::ALL.len();

/// What holds for a class of cards at merchants of a category.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// The highest amount in fen; `u32::MAX`: any.
    pub transaction_max: u32,
    /// The amount in fen above which a PIN is needed; `u32::MAX`: never.
    pub pin_above: u32,
    /// What is added to an amount, or where negative taken off it, in basis points.
    pub surcharge_bp: i16,
    /// Whether the subsidy purse is taken.
    pub takes_subsidy: bool,
    /// Whether there is anything more to ask than [`Self::takes_subsidy`].
    pub has_more: bool,
}

impl Terms {
    /// What a holder pays for `amount` (DE4): with a surcharge more, with a discount less, rounded half up: 0.5 is 1, -0.5 is 0. Both in
    /// fen.
    #[must_use]
    #[inline]
    pub fn price(&self, amount: u64) -> u64 {
        if self.surcharge_bp == 0 {
            return amount;
        }
        let surcharge = (amount.cast_signed() * i64::from(self.surcharge_bp) + 5_000).div_euclid(10_000);
        (amount.cast_signed() + surcharge).unsigned_abs()
    }
}

/// Where in [`Rules::listed`] the rules are listed that must be looked at one by one.
#[derive(Clone, Copy, Default)]
struct Listed {
    counted: u32,
    refusing: u32,
    end: u32,
}

/// Why rules are refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RulesFault {
    /// There are more than [`RULES_MAX`].
    TooMany,
    /// A rule says again what one before it said.
    Again {
        /// The rule's place, from 0.
        rule: usize,
        /// The place of the one before.
        before: usize,
    },
    /// A rule says what its kind does not take.
    Wrong {
        /// The rule's place, from 0.
        rule: usize,
        /// Where.
        field: RuleField,
        /// Why.
        reason: String,
    },
}

/// The rules in force.
#[derive(Clone)]
pub struct Rules {
    list: Vec<Rule>,
    terms: [[Terms; CATEGORIES]; CLASSES],
    listed_for: [[Listed; CATEGORIES]; CLASSES],
    /// Places in the list.
    listed: Vec<u16>,
}

impl Default for Rules {
    /// No rules.
    fn default() -> Self {
        Self::compiled(Vec::new())
    }
}

impl PartialEq for Rules {
    fn eq(&self, other: &Self) -> bool {
        self.list == other.list
    }
}

impl Eq for Rules {}

impl std::fmt::Debug for Rules {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Rules").field(&self.list).finish()
    }
}

fn cell(class: CardClass, category: Category) -> (usize, usize) {
    (usize::from(class as u8) - 1, usize::from(category as u8) - 1)
}

/// The value of the most specific rule of a kind.
fn most_specific(list: &[Rule], kind: RuleKind, class: CardClass, category: Category) -> Option<i64> {
    let fitting = list.iter().filter(|rule| rule.kind == kind && rule.concerns(class, category));
    fitting.max_by_key(|rule| (rule.class.is_some(), rule.category.is_some())).map(|rule| rule.value)
}

fn terms_for(list: &[Rule], class: CardClass, category: Category) -> Terms {
    let fitting = |kind: RuleKind| list.iter().filter(move |rule| rule.kind == kind && rule.concerns(class, category));
    let fen = |value: i64| u32::try_from(value).expect("a rule's value was checked");
    let subsidy = most_specific(list, RuleKind::Subsidy, class, category);
    let is_more = |kind: RuleKind| !matches!(kind, RuleKind::Subsidy | RuleKind::Door | RuleKind::AntiPassback);
    Terms {
        transaction_max: fitting(RuleKind::TransactionMax).map(|rule| fen(rule.value)).min().unwrap_or(u32::MAX),
        pin_above: most_specific(list, RuleKind::PinAbove, class, category).map_or(u32::MAX, fen),
        surcharge_bp: most_specific(list, RuleKind::Surcharge, class, category)
            .map_or(0, |value| i16::try_from(value).expect("a rule's value was checked")),
        takes_subsidy: subsidy.map_or_else(|| category.takes_subsidy(), |value| value == 1),
        has_more: list.iter().any(|rule| is_more(rule.kind) && rule.concerns(class, category)),
    }
}

impl Rules {
    /// Takes rules in any order.
    ///
    /// # Errors
    /// The first rule that is wrong.
    pub fn new(mut list: Vec<Rule>) -> Result<Self, RulesFault> {
        if list.len() > RULES_MAX {
            return Err(RulesFault::TooMany);
        }
        for (rule, wrong) in list.iter().map(Rule::check).enumerate() {
            wrong.map_err(|(field, reason)| RulesFault::Wrong { rule, field, reason })?;
        }
        let mut places: Vec<usize> = (0..list.len()).collect();
        places.sort_by_key(|&place| list[place].key());
        let twice = places.windows(2).filter(|pair| list[pair[0]].key() == list[pair[1]].key());
        if let Some(pair) = twice.min_by_key(|pair| pair[1]) {
            return Err(RulesFault::Again { rule: pair[1], before: pair[0] });
        }
        list.sort_by_key(Rule::key);
        Ok(Self::compiled(list))
    }

    /// Makes a list ready that is in order.
    fn compiled(list: Vec<Rule>) -> Self {
        let mut listed = Vec::new();
        let mut listed_for = [[Listed::default(); CATEGORIES]; CLASSES];
        for &class in CardClass::ALL {
            for &category in Category::ALL {
                let mut note = |is_listed: fn(RuleKind) -> bool| {
                    let start = listed.len() as u32;
                    let fitting = |rule: &Rule| is_listed(rule.kind) && rule.concerns(class, category);
                    listed.extend((0_u16..).zip(&list).filter(|(_, rule)| fitting(rule)).map(|(place, _)| place));
                    start
                };
                let (counted, refusing) = (note(RuleKind::is_counted), note(|kind| kind == RuleKind::Refuse));
                let (row, column) = cell(class, category);
                listed_for[row][column] = Listed { counted, refusing, end: listed.len() as u32 };
            }
        }
        let terms =
            std::array::from_fn(|row| std::array::from_fn(|column| terms_for(&list, CardClass::ALL[row], Category::ALL[column])));
        Self { list, terms, listed_for, listed }
    }

    /// All of them, in the order of their keys.
    #[must_use]
    pub fn list(&self) -> &[Rule] {
        &self.list
    }

    /// What holds for this class at merchants of this category.
    #[must_use]
    #[inline]
    pub fn terms(&self, class: CardClass, category: Category) -> &Terms {
        let (row, column) = cell(class, category);
        &self.terms[row][column]
    }

    fn listed(&self, places: Range<u32>) -> impl Iterator<Item = (u16, &Rule)> {
        self.listed[places.start as usize..places.end as usize].iter().map(|&place| (place, &self.list[usize::from(place)]))
    }

    /// The rules that count what this class does at merchants of this category, with their places in the list; those on amounts
    /// before those on counts.
    pub(super) fn counted(&self, class: CardClass, category: Category) -> impl Iterator<Item = (u16, &Rule)> {
        let (row, column) = cell(class, category);
        let at = self.listed_for[row][column];
        self.listed(at.counted..at.refusing)
    }

    /// Whether nothing is sold to this class at merchants of this category at this moment. `time` is DE12, hhmmss as a number.
    #[must_use]
    pub fn refuses(&self, class: CardClass, category: Category, date: Date, time: u32) -> bool {
        let (row, column) = cell(class, category);
        let at = self.listed_for[row][column];
        self.listed(at.refusing..at.end).any(|(_, rule)| rule.window.begun(date, time).is_some())
    }

    /// The rules of a kind for a zone.
    fn of_zone<'a>(&'a self, kind: RuleKind, zone: &'a Zone) -> impl Iterator<Item = &'a Rule> {
        let start = self.list.partition_point(|rule| (rule.kind as u8, rule.zone.as_ref()) < (kind as u8, Some(zone)));
        self.list[start..].iter().take_while(move |rule| rule.kind == kind && rule.zone.as_ref() == Some(zone))
    }

    /// Whether the doors of a zone let this class through at this moment; those without a rule let everybody through. `time` is
    /// DE12, hhmmss as a number.
    #[must_use]
    pub fn lets_through(&self, class: CardClass, zone: &Zone, date: Date, time: u32) -> bool {
        let mut rules = self.of_zone(RuleKind::Door, zone).peekable();
        let opens = |rule: &Rule| rule.class.is_none_or(|its| its == class) && rule.window.begun(date, time).is_some();
        rules.peek().is_none() || rules.any(opens)
    }

    /// Minutes within which nobody goes the same way twice through the doors of a zone, if there is such a rule.
    #[must_use]
    pub fn anti_passback(&self, zone: &Zone) -> Option<u32> {
        let rule = self.of_zone(RuleKind::AntiPassback, zone).next()?;
        Some(u32::try_from(rule.value).expect("a rule's value was checked"))
    }

    /// Into a record.
    pub(super) fn put(&self, encoder: &mut Encoder<'_>) {
        encoder.u16(self.list.len() as u16);
        self.list.iter().for_each(|rule| rule.put(encoder));
    }

    /// From a record; `None` where these are not rules as [`Self::put`] writes them.
    pub(super) fn take(decoder: &mut Decoder<'_>) -> Option<Self> {
        let count = usize::from(decoder.u16()?);
        let mut list = Vec::with_capacity(count.min(RULES_MAX));
        for _ in 0..count {
            list.push(Rule::take(decoder)?);
        }
        Self::of_sorted(list)
    }

    /// From a list as [`Self::list`] gives it; `None` where it is none.
    pub(super) fn of_sorted(list: Vec<Rule>) -> Option<Self> {
        let is_possible = list.len() <= RULES_MAX
            && list.iter().all(|rule| rule.check().is_ok())
            && list.is_sorted_by(|before, rule| before.key() < rule.key());
        is_possible.then(|| Self::compiled(list))
    }

    /// Bytes held beside the structure itself.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.list.capacity() * size_of::<Rule>() + self.listed.capacity() * size_of::<u16>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::rule::{ALL_DAYS, Window};
    use super::*;

    /// 2026-11-22, a Sunday.
    const SUNDAY: Date = Date(9_822);

    fn zone(name: &str) -> Zone {
        Zone::new(name).unwrap()
    }

    /// A rule out of its kind, class, category and value, `*` for all.
    fn rule(text: &str) -> Rule {
        let words: Vec<&str> = text.split_whitespace().collect();
        let kind = RuleKind::from_name(words[0]).unwrap();
        let value = words[3].parse().unwrap();
        Rule { class: CardClass::from_name(words[1]), category: Category::from_name(words[2]), ..Rule::new(kind, value) }
    }

    fn rules(texts: &[&str]) -> Rules {
        Rules::new(texts.iter().map(|text| rule(text)).collect()).unwrap()
    }

    #[test]
    fn without_rules_only_canteens_take_the_subsidy() {
        let none = Rules::default();
        assert_eq!(Rules::new(Vec::new()), Ok(none.clone()));
        for &class in CardClass::ALL {
            for &category in Category::ALL {
                let expected = Terms {
                    transaction_max: u32::MAX,
                    pin_above: u32::MAX,
                    surcharge_bp: 0,
                    takes_subsidy: category == Category::Canteen,
                    has_more: false,
                };
                assert_eq!(none.terms(class, category), &expected);
                assert!(!none.refuses(class, category, SUNDAY, 120_000) && none.counted(class, category).next().is_none());
            }
            assert!(none.lets_through(class, &zone("GATE"), SUNDAY, 0) && none.lets_through(class, &zone(""), SUNDAY, 0));
        }
        assert_eq!(none.anti_passback(&zone("GATE")), None);
    }

    #[test]
    fn the_most_specific_rule_wins_and_all_ceilings_hold() {
        // Rules | class, category | transaction_max, pin_above, surcharge_bp, takes_subsidy, has_more; - for none
        const TABLE: &str = "
            pin_above * * 9                                              | student shop    | - 9 0 no yes
            pin_above * * 9; pin_above * shop 8                          | student shop    | - 8 0 no yes
            pin_above * * 9; pin_above * shop 8; pin_above student * 7   | student shop    | - 7 0 no yes
            pin_above * shop 8; pin_above student * 7; pin_above student shop 6 | student shop | - 6 0 no yes
            pin_above * shop 8; pin_above student * 7; pin_above student shop 6 | teacher shop | - 8 0 no yes
            pin_above * shop 8; pin_above student * 7; pin_above student shop 6 | student bath | - 7 0 no yes
            pin_above * shop 8; pin_above student * 7; pin_above student shop 6 | teacher bath | - - 0 no no
            subsidy student * 1                                          | student shop    | - - 0 yes no
            subsidy student * 1; subsidy student shop 0                  | student shop    | - - 0 no no
            subsidy teacher canteen 0                                    | teacher canteen | - - 0 no no
            subsidy teacher canteen 0                                    | student canteen | - - 0 yes no
            surcharge * * 1500; surcharge student * -100; surcharge * canteen 0 | student canteen | - - -100 yes yes
            surcharge * * 1500; surcharge student * -100; surcharge * canteen 0 | family canteen  | - - 0 yes yes
            surcharge * * 1500; surcharge student * -100; surcharge * canteen 0 | family gate     | - - 1500 no yes
            transaction_max * * 50; transaction_max student * 60         | student office  | 50 - 0 no yes
            transaction_max * * 50; transaction_max student office 40    | student office  | 40 - 0 no yes
            transaction_max * * 50; transaction_max student office 40    | merchant office | 50 - 0 no yes
            day_max temporary * 5                                        | temporary bath  | - - 0 no yes
            day_max temporary * 5                                        | student bath    | - - 0 no no
            day_count * bath 5                                           | student bath    | - - 0 no yes
            meal * canteen 1                                             | student canteen | - - 0 yes yes
            refuse family shop 0                                         | family shop     | - - 0 no yes
            refuse family shop 0                                         | family canteen  | - - 0 yes no
        ";
        let mut rows = 0;
        for row in TABLE.lines().map(str::trim).filter(|row| !row.is_empty()) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let (class, category) = cells[1].split_once(' ').unwrap();
            let expected: Vec<&str> = cells[2].split(' ').collect();
            let or_none = |text: &str| text.parse().unwrap_or(u32::MAX);
            let expected = Terms {
                transaction_max: or_none(expected[0]),
                pin_above: or_none(expected[1]),
                surcharge_bp: expected[2].parse().unwrap(),
                takes_subsidy: expected[3] == "yes",
                has_more: expected[4] == "yes",
            };
            let (class, category) = (CardClass::from_name(class).unwrap(), Category::from_name(category.trim()).unwrap());
            let mut texts: Vec<&str> = cells[0].split(';').collect();
            assert_eq!(rules(&texts).terms(class, category), &expected, "{row}");
            texts.reverse();
            assert_eq!(rules(&texts).terms(class, category), &expected, "reversed: {row}");
            rows += 1;
        }
        assert_eq!(rows, 23);
    }

    #[test]
    fn a_surcharge_is_rounded_half_up() {
        for (amount, surcharge_bp, expected) in [
            (850, 1_500, 128),
            (850, -1_500, -127),
            (849, 1_500, 127),
            (849, -1_500, -127),
            (1, 4_999, 0),
            (1, 5_000, 1),
            (1, -5_000, 0),
            (1, -5_001, -1),
            (850, 0, 0),
            (850, -10_000, -850),
            (850, 10_000, 850),
            (999_999_999_999, 10_000, 999_999_999_999),
        ] {
            let terms = Terms { surcharge_bp, ..*Rules::default().terms(CardClass::Student, Category::Shop) };
            assert_eq!(i128::from(terms.price(amount)) - i128::from(amount), expected, "{amount} at {surcharge_bp}");
        }
    }

    #[test]
    fn a_shop_refuses_a_class_at_its_hours() {
        use CardClass::{Family, Student, Teacher, Temporary};
        use Category::{Bath, Canteen, Library, Shop};
        assert_eq!(SUNDAY.weekday(), 7);
        let lunch = Window { days: 0x1f, from: 660, to: 780 };
        let refused = Rule { window: lunch, ..rule("refuse student shop 0") };
        let rules = Rules::new(vec![refused, rule("refuse family * 0"), rule("refuse * library 0")]).unwrap();
        for (class, category, day, time, expected) in [
            (Student, Shop, 23, 120_000, true),
            (Student, Shop, 23, 130_000, false),
            (Student, Shop, 22, 120_000, false),
            (Teacher, Shop, 23, 120_000, false),
            (Student, Canteen, 23, 120_000, false),
            (Family, Bath, 22, 235_959, true),
            (Temporary, Library, 22, 0, true),
        ] {
            let date = Date(SUNDAY.0 + day - 22);
            assert_eq!(rules.refuses(class, category, date, time), expected, "{class:?} {category:?} {day} {time}");
        }
    }

    #[test]
    fn doors_with_rules_let_in_whom_the_rules_name() {
        let night = Window { days: ALL_DAYS, from: 23 * 60, to: 6 * 60 };
        let day = Window { days: ALL_DAYS, from: 6 * 60, to: 23 * 60 };
        let door = |class: Option<CardClass>, name: &str, window: Window| Rule {
            class,
            zone: Some(zone(name)),
            window,
            ..Rule::new(RuleKind::Door, 0)
        };
        let student = Some(CardClass::Student);
        let rules = Rules::new(vec![
            door(student, "DORM-2", day),
            door(Some(CardClass::Teacher), "DORM-2", night),
            door(Some(CardClass::Teacher), "DORM-2", day),
            door(None, "GATE", Window { days: 0x1f, ..day }),
            Rule { zone: Some(zone("DORM-2")), ..Rule::new(RuleKind::AntiPassback, 15) },
            Rule { zone: Some(zone("GATE")), ..Rule::new(RuleKind::AntiPassback, 10_080) },
        ])
        .unwrap();
        for (class, name, time, expected) in [
            (CardClass::Student, "DORM-2", 120_000, true),
            (CardClass::Student, "DORM-2", 230_000, false),
            (CardClass::Teacher, "DORM-2", 230_000, true),
            (CardClass::Teacher, "DORM-2", 120_000, true),
            (CardClass::Family, "DORM-2", 120_000, false),
            // It is Sunday.
            (CardClass::Student, "GATE", 120_000, false),
            (CardClass::Family, "DORM-1", 30_000, true),
            (CardClass::Family, "DORM", 30_000, true),
            (CardClass::Family, "DORM-22", 30_000, true),
            (CardClass::Family, "", 30_000, true),
        ] {
            assert_eq!(rules.lets_through(class, &zone(name), SUNDAY, time), expected, "{class:?} {name} {time}");
        }
        assert!(rules.lets_through(CardClass::Family, &zone("GATE"), Date(SUNDAY.0 + 1), 120_000));
        for (name, expected) in [("DORM-2", Some(15)), ("GATE", Some(10_080)), ("DORM-1", None), ("", None)] {
            assert_eq!(rules.anti_passback(&zone(name)), expected, "{name}");
        }
    }

    #[test]
    fn rules_that_are_wrong_or_said_twice_are_refused() {
        let again = |rule, before| Err(RulesFault::Again { rule, before });
        let take = |texts: &[&str]| Rules::new(texts.iter().map(|text| rule(text)).collect());
        assert_eq!(take(&["day_max * * 5", "day_max * shop 5", "day_max * * 6"]), again(2, 0));
        assert_eq!(take(&["day_max * * 5", "meal * * 6", "meal * * 7", "day_max * * 5"]), again(2, 1));
        assert_eq!(take(&["meal * * 1", "meal * * 1", "meal * * 1"]), again(1, 0));
        let other = Rule { window: Window { from: 1, ..Window::ALWAYS }, ..rule("meal * * 1") };
        assert!(Rules::new(vec![rule("meal * * 1"), other]).is_ok(), "another period is another rule");
        let wrong = take(&["meal * * 1", "meal * * 1", "surcharge * * 10001"]).unwrap_err();
        assert!(matches!(wrong, RulesFault::Wrong { rule: 2, field: RuleField::Value, .. }), "{wrong:?}");
        let many = |count: u16| -> Vec<Rule> {
            (0..count)
                .map(|minute| Rule { window: Window { from: minute, to: 1_439, days: 1 }, ..Rule::new(RuleKind::Refuse, 0) })
                .collect()
        };
        assert_eq!(Rules::new(many(1_001)), Err(RulesFault::TooMany));
        let full = Rules::new(many(1_000)).unwrap();
        assert_eq!(full.listed.len(), 40 * 1_000);
        let mut bytes = Vec::new();
        full.put(&mut Encoder(&mut bytes));
        assert!(bytes.len() < JOURNAL_RECORD_BYTES_MAX);
        assert_eq!(Rules::take(&mut Decoder(&bytes)), Some(full));
    }

    #[test]
    fn only_what_was_written_is_read() {
        let rules = rules(&["transaction_max * * 5", "day_max student * 6", "meal * canteen 1"]);
        let mut bytes = Vec::new();
        rules.put(&mut Encoder(&mut bytes));
        let read = |bytes: &[u8]| {
            let mut decoder = Decoder(bytes);
            Rules::take(&mut decoder).filter(|_| decoder.0.is_empty())
        };
        assert_eq!(read(&bytes).as_ref(), Some(&rules));
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end]), None, "{end} bytes");
        }
        assert_eq!(read(&[bytes.clone(), vec![0]].concat()), None);
        // In another order, or twice, they are not what is written.
        let row = (bytes.len() - 2) / 3;
        let (head, rows) = bytes.split_at(2);
        let rows: Vec<&[u8]> = rows.chunks(row).collect();
        assert_eq!(read(&[head, rows[1], rows[0], rows[2]].concat()), None);
        assert_eq!(read(&[head, rows[0], rows[0], rows[2]].concat()), None);
        // Whatever bytes there are, they are rules or none.
        for place in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = bytes.clone();
                changed[place] = value;
                if let Some(read) = read(&changed) {
                    let mut again = Vec::new();
                    read.put(&mut Encoder(&mut again));
                    assert_eq!(again, changed, "byte {place}");
                }
            }
        }
    }

    fn any_rule() -> impl Strategy<Value = Rule> {
        let kind = prop::sample::select(RuleKind::ALL.to_vec());
        let class = prop::option::of(prop::sample::select(CardClass::ALL.to_vec()));
        let category = prop::option::of(prop::sample::select(Category::ALL.to_vec()));
        let window = (1..=ALL_DAYS, 0..1_440_u16, 0..1_440_u16).prop_map(|(days, from, to)| Window { days, from, to });
        (kind, class, category, prop::sample::select(vec!["A", "B", "AB"]), window, 1..=1_000_i64).prop_map(
            |(kind, class, category, name, window, value)| Rule {
                kind,
                class: class.filter(|_| kind.uses(RuleField::Class)),
                category: category.filter(|_| kind.uses(RuleField::Category)),
                zone: kind.uses(RuleField::Zone).then(|| zone(name)),
                window: if kind.uses(RuleField::Days) { window } else { Window::ALWAYS },
                value: value.clamp(*kind.values().start(), *kind.values().end()),
            },
        )
    }

    proptest! {
        /// What was made ready answers as the list does, looked at rule by rule.
        #[test]
        fn what_is_ready_is_what_the_list_says(list in prop::collection::vec(any_rule(), 0..60), day in 0..14_u16, time in 0..240_000_u32) {
            let mut unique: Vec<Rule> = Vec::new();
            for rule in list {
                if unique.iter().all(|other| other.key() != rule.key()) {
                    unique.push(rule);
                }
            }
            let rules = Rules::new(unique.clone()).unwrap();
            let date = Date(SUNDAY.0 + day);
            let holds = |rule: &Rule| rule.window.begun(date, time).is_some();
            for &class in CardClass::ALL {
                for &category in Category::ALL {
                    let fitting: Vec<&Rule> = unique.iter().filter(|rule| rule.concerns(class, category)).collect();
                    let refused = fitting.iter().any(|rule| rule.kind == RuleKind::Refuse && holds(rule));
                    prop_assert_eq!(rules.refuses(class, category, date, time), refused);
                    let counted: Vec<&Rule> = rules.counted(class, category).map(|(place, rule)| {
                        assert_eq!(&rules.list()[usize::from(place)], rule);
                        rule
                    }).collect();
                    prop_assert!(counted.is_sorted_by_key(|rule| rule.kind as u8));
                    prop_assert_eq!(counted.len(), fitting.iter().filter(|rule| rule.kind.is_counted()).count());
                    prop_assert!(counted.iter().all(|rule| fitting.contains(rule)));
                }
                for name in ["A", "B", "AB", "C"] {
                    let doors: Vec<&Rule> = unique.iter()
                        .filter(|rule| rule.kind == RuleKind::Door && rule.zone == Some(zone(name))).collect();
                    let open = doors.is_empty() || doors.iter().any(|rule| rule.class.is_none_or(|its| its == class) && holds(rule));
                    prop_assert_eq!(rules.lets_through(class, &zone(name), date, time), open);
                    let minutes = unique.iter().find(|rule| rule.kind == RuleKind::AntiPassback && rule.zone == Some(zone(name)));
                    prop_assert_eq!(rules.anti_passback(&zone(name)).map(i64::from), minutes.map(|rule| rule.value));
                }
            }
            let mut bytes = Vec::new();
            rules.put(&mut Encoder(&mut bytes));
            prop_assert_eq!(Rules::take(&mut Decoder(&bytes)), Some(rules));
        }
    }
}
