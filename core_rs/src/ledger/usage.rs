//! What holders have used of the limits that count: by day, and by period of a day.
//!
//! A counter belongs to a holder and a rule, whatever card was used. One of a day's rule holds for the business date and begins
//! anew with the next. One of a meal is about the day on which its period began, by the terminal's clock, and is kept until that
//! day lies before yesterday.
//!
//! Always true here: a counter that stands at nothing is not there; every counter's rule is in force, is one that counts, and
//! has been in force as long as the counter.

use hashbrown::HashMap;

use super::bytes::{Decoder, Encoder};
use super::registry::{CardClass, Category};
use super::rule::{Rule, RuleKind};
use super::rules::Rules;
use crate::calendar::Date;

/// A sale as the rules see it. All of it can be told of a sale that is remembered, but for the class, which is the card's now.
#[derive(Clone, Copy, Debug)]
pub struct Sale {
    /// The holder's index.
    pub holder: u32,
    /// The card's class.
    pub class: CardClass,
    /// What the merchant sells.
    pub category: Category,
    /// The day of DE13.
    pub date: Date,
    /// DE12, hhmmss as a number.
    pub time: u32,
    /// Whether it is a purchase, online or offline: only those are meals.
    pub is_purchase: bool,
}

/// Which kind of limit a sale would pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exceeded {
    /// One on amounts.
    Amount,
    /// One on counts.
    Count,
}

/// In the place of a meal's day.
const NO_DAY: Date = Date(0);

/// What names a counter, in the order of which counters are written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Key(u64);

impl Key {
    fn new(holder: u32, rule: u16, day: Date) -> Self {
        Self(u64::from(holder) << 32 | u64::from(rule) << 16 | u64::from(day.0))
    }
    fn holder(self) -> u32 {
        (self.0 >> 32) as u32
    }
    fn rule(self) -> u16 {
        (self.0 >> 16) as u16
    }
    fn day(self) -> Date {
        Date(self.0 as u16)
    }
}

/// One counter, as the state's image holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Counter {
    key: Key,
    used: u64,
}

impl Counter {
    /// Into the state's image.
    pub(super) fn put(&self, row: &mut Encoder<'_>) {
        row.u32(self.key.holder());
        row.u16(self.key.rule());
        row.u16(self.key.day().0);
        row.u64(self.used);
    }

    /// From the state's image; `None` where under these rules, among so many holders, no such counter is kept.
    pub(super) fn take(row: &mut Decoder<'_>, rules: &Rules, holders: usize) -> Option<Self> {
        let key = Key::new(row.u32()?, row.u16()?, Date(row.u16()?));
        let used = row.u64()?;
        let rule = rules.list().get(usize::from(key.rule()))?;
        let has_day = rule.kind == RuleKind::Meal || key.day() == NO_DAY;
        (rule.kind.is_counted() && has_day && (key.holder() as usize) < holders && used > 0).then_some(Self { key, used })
    }
}

/// Whether a meal of this day is still counted.
fn is_kept(day: Date, business_date: Date) -> bool {
    day.0.saturating_add(1) >= business_date.0
}

/// The counters that a sale concerns, with their rules; those on amounts before those on counts.
fn concerned<'r>(rules: &'r Rules, sale: &'r Sale) -> impl Iterator<Item = (Key, &'r Rule)> {
    rules.counted(sale.class, sale.category).filter_map(|(place, rule)| {
        let day = match rule.kind {
            RuleKind::Meal if !sale.is_purchase => return None,
            RuleKind::Meal => rule.window.begun(sale.date, sale.time)?,
            _ => NO_DAY,
        };
        Some((Key::new(sale.holder, place, day), rule))
    })
}

/// Every counter.
#[derive(Default)]
pub struct Usage {
    counters: HashMap<Key, u64>,
}

impl Usage {
    /// Which limit this sale would pass, if any: one on amounts before one on counts.
    #[must_use]
    pub fn would_exceed(&self, rules: &Rules, sale: &Sale, amount: u64) -> Option<Exceeded> {
        concerned(rules, sale).find_map(|(key, rule)| {
            let (more, exceeded) = match rule.kind {
                RuleKind::DayMax => (amount, Exceeded::Amount),
                _ => (1, Exceeded::Count),
            };
            let used = self.counters.get(&key).copied().unwrap_or(0);
            (used.saturating_add(more) > rule.value.cast_unsigned()).then_some(exceeded)
        })
    }

    /// Counts a sale that was made.
    pub fn add(&mut self, rules: &Rules, sale: &Sale, amount: u64, business_date: Date) {
        for (key, rule) in concerned(rules, sale) {
            let more = if rule.kind == RuleKind::DayMax { amount } else { 1 };
            let is_counted = rule.kind != RuleKind::Meal || is_kept(key.day(), business_date);
            if is_counted && more > 0 {
                let used = self.counters.entry(key).or_insert(0);
                *used = used.saturating_add(more);
            }
        }
    }

    /// Takes back what was counted of a sale of this same business date: `amount` of it, and where it is undone `whole`, also that
    /// it was made. What was counted before a rule came into force, or for another class of card, is no longer there: a counter
    /// does not go below nothing.
    pub fn give_back(&mut self, rules: &Rules, sale: &Sale, amount: u64, whole: bool) {
        for (key, rule) in concerned(rules, sale) {
            let less = if rule.kind == RuleKind::DayMax { amount } else { u64::from(whole) };
            if let Some(used) = self.counters.get_mut(&key) {
                *used = used.saturating_sub(less);
                if *used == 0 {
                    self.counters.remove(&key);
                }
            }
        }
    }

    /// The business date has moved on to this one.
    pub fn cut_over(&mut self, rules: &Rules, business_date: Date) {
        let is_meal = |key: &Key| rules.list()[usize::from(key.rule())].kind == RuleKind::Meal;
        self.counters.retain(|key, _| is_meal(key) && is_kept(key.day(), business_date));
    }

    /// Other rules come into force: what was counted for a rule that stays as it was goes on, the rest is dropped.
    pub fn follow(&mut self, before: &Rules, now: &Rules) {
        let place = |rule: &Rule| {
            let place = now.list().binary_search_by_key(&rule.key(), Rule::key).ok()?;
            (now.list()[place] == *rule).then_some(place as u16)
        };
        let places: Vec<Option<u16>> = before.list().iter().map(place).collect();
        let counters = std::mem::take(&mut self.counters);
        self.counters.extend(counters.into_iter().filter_map(|(key, used)| {
            let place = places[usize::from(key.rule())]?;
            Some((Key::new(key.holder(), place, key.day()), used))
        }));
    }

    /// What a holder has used of the rule at `place` in the list, for a meal on the day of its beginning.
    #[must_use]
    pub fn used(&self, holder: u32, place: u16, day: Option<Date>) -> u64 {
        self.counters.get(&Key::new(holder, place, day.unwrap_or(NO_DAY))).copied().unwrap_or(0)
    }

    /// All counters, in the order of holders, rules and days.
    pub(super) fn counters(&self) -> Vec<Counter> {
        let mut counters: Vec<Counter> = self.counters.iter().map(|(&key, &used)| Counter { key, used }).collect();
        counters.sort_unstable_by_key(|counter| counter.key);
        counters
    }

    /// Puts a counter in its place; `None` where it is taken.
    pub(super) fn put(&mut self, counter: Counter) -> Option<()> {
        self.counters.insert(counter.key, counter.used).is_none().then_some(())
    }

    /// Bytes held.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.counters.allocation_size()
    }
}
