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
    /// What is added to `amount`, or where negative taken off it, rounded half up. Both in fen.
    #[must_use]
    pub fn surcharge(&self, amount: u32) -> i64 {
        (i64::from(amount) * i64::from(self.surcharge_bp) + 5_000).div_euclid(10_000)
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
    let highest = |kind: RuleKind| list.iter().filter(move |rule| rule.kind == kind && rule.concerns(class, category));
    let fen = |value: i64| u32::try_from(value).expect("a rule's value was checked");
    let subsidy = most_specific(list, RuleKind::Subsidy, class, category);
    let is_more = |kind: RuleKind| !matches!(kind, RuleKind::Subsidy | RuleKind::Door | RuleKind::AntiPassback);
    Terms {
        transaction_max: highest(RuleKind::TransactionMax).map(|rule| fen(rule.value)).min().unwrap_or(u32::MAX),
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
