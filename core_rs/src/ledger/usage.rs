//! What holders have used of the limits that count: by day, and by period of a day.
//!
//! A counter belongs to a holder and a rule, whatever card was used. One of a day's rule holds for the business date and begins
//! anew with the next. One of a meal is about the day on which its period began, by the terminal's clock, and is kept until that
//! day lies before yesterday.
//!
//! Always true here: a counter that stands at nothing is not there; every counter's rule is in force, is one that counts, and
//! has been in force as long as the counter: what was sold before is neither counted nor given back.

use hashbrown::HashMap;

use super::bytes::{Decoder, Encoder};
use super::registry::{CardClass, Category};
use super::rule::{Rule, RuleKind};
use super::rules::Rules;
use crate::calendar::Date;

/// A sale as the rules see it. All of it can be told of a sale that is remembered, but for the class, which is the card's now, and the
/// category, which is the merchant's now.
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

    /// Whether it stands before another one.
    pub(super) fn is_before(&self, other: &Self) -> bool {
        self.key < other.key
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
    /// The position at which each rule came into force, by its place in the list.
    begun: Vec<u64>,
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

    /// The counters that a sale of this position concerned already when it was made.
    fn counted<'r>(&self, rules: &'r Rules, sale: &'r Sale, position: u64) -> Vec<(Key, &'r Rule)> {
        concerned(rules, sale).filter(|(key, _)| self.begun[usize::from(key.rule())] < position).collect()
    }

    /// Takes back what was counted of a sale of this same business date, made at this position: `amount` of it, and where it is undone
    /// `whole`, also that it was made. A counter does not go below nothing, for the card may have been of another class then.
    pub fn give_back(&mut self, rules: &Rules, sale: &Sale, position: u64, amount: u64, whole: bool) {
        for (key, rule) in self.counted(rules, sale, position) {
            let less = if rule.kind == RuleKind::DayMax { amount } else { u64::from(whole) };
            if let Some(used) = self.counters.get_mut(&key) {
                *used = used.saturating_sub(less);
                if *used == 0 {
                    self.counters.remove(&key);
                }
            }
        }
    }

    /// Counts an amount of a sale of this same business date again that [`Self::give_back`] took back: that it was made is counted
    /// still.
    pub fn take_again(&mut self, rules: &Rules, sale: &Sale, position: u64, amount: u64) {
        for (key, rule) in self.counted(rules, sale, position) {
            if rule.kind == RuleKind::DayMax && amount > 0 {
                let used = self.counters.entry(key).or_insert(0);
                *used = used.saturating_add(amount);
            }
        }
    }

    /// The business date has moved on to this one.
    pub fn cut_over(&mut self, rules: &Rules, business_date: Date) {
        let is_meal = |key: &Key| rules.list()[usize::from(key.rule())].kind == RuleKind::Meal;
        self.counters.retain(|key, _| is_meal(key) && is_kept(key.day(), business_date));
    }

    /// Other rules come into force at this position: what was counted for a rule that stays as it was goes on, the rest is dropped.
    pub fn follow(&mut self, before: &Rules, now: &Rules, position: u64) {
        let place = |rule: &Rule| {
            let place = now.list().binary_search_by_key(&rule.key(), Rule::key).ok()?;
            (now.list()[place] == *rule).then_some(place as u16)
        };
        let places: Vec<Option<u16>> = before.list().iter().map(place).collect();
        let begun = std::mem::replace(&mut self.begun, vec![position; now.list().len()]);
        for (place, begun) in places.iter().zip(begun) {
            if let Some(place) = place {
                self.begun[usize::from(*place)] = begun;
            }
        }
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

    /// The position at which each rule came into force, by its place in the list.
    pub(super) fn begun(&self) -> &[u64] {
        &self.begun
    }

    /// Puts in which position the next rule came into force.
    pub(super) fn begin(&mut self, position: u64) {
        self.begun.push(position);
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
        self.counters.allocation_size() + self.begun.capacity() * size_of::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::super::rule::{ALL_DAYS, Window};
    use super::*;

    /// 2026-11-22, a Sunday.
    const TODAY: Date = Date(9_822);
    const STUDENT: Option<CardClass> = Some(CardClass::Student);

    const SALE: Sale =
        Sale { holder: 7, class: CardClass::Student, category: Category::Canteen, date: TODAY, time: 120_000, is_purchase: true };

    fn meal(from: u16, to: u16, value: i64) -> Rule {
        Rule { window: Window { days: ALL_DAYS, from, to }, ..Rule::new(RuleKind::Meal, value) }
    }

    fn rules(list: &[Rule]) -> Rules {
        Rules::new(list.to_vec()).unwrap()
    }

    /// Nothing used yet, under rules that came into force at position 10.
    fn unused(rules: &Rules) -> Usage {
        let mut usage = Usage::default();
        usage.follow(&Rules::default(), rules, 10);
        usage
    }

    /// A sale's position, after the rules came into force.
    const MADE: u64 = 11;

    /// The image of what is used, which comes back the same.
    fn image(usage: &Usage, rules: &Rules) -> Vec<u8> {
        let mut bytes = Vec::new();
        usage.counters().iter().for_each(|counter| counter.put(&mut Encoder(&mut bytes)));
        let mut again = Usage::default();
        let mut rows = Decoder(&bytes);
        while !rows.0.is_empty() {
            again.put(Counter::take(&mut rows, rules, 100).unwrap()).unwrap();
        }
        assert_eq!(again.counters(), usage.counters());
        bytes
    }

    #[test]
    fn a_days_limits_hold_over_all_that_their_rule_matches() {
        let rules = rules(&[
            Rule { class: STUDENT, ..Rule::new(RuleKind::DayMax, 1_000) },
            Rule { category: Some(Category::Shop), ..Rule::new(RuleKind::DayMax, 300) },
            Rule { class: STUDENT, category: Some(Category::Canteen), ..Rule::new(RuleKind::DayCount, 2) },
        ]);
        let mut usage = unused(&rules);
        let shop = Sale { category: Category::Shop, ..SALE };
        let hold = Sale { is_purchase: false, ..SALE };
        assert_eq!(usage.would_exceed(&rules, &SALE, 1_000), None);
        assert_eq!(usage.would_exceed(&rules, &SALE, 1_001), Some(Exceeded::Amount));
        usage.add(&rules, &SALE, 500, TODAY);
        usage.add(&rules, &shop, 200, TODAY);
        // Limit of the shop, of the day, of neither.
        assert_eq!(usage.would_exceed(&rules, &shop, 101), Some(Exceeded::Amount));
        assert_eq!(usage.would_exceed(&rules, &SALE, 301), Some(Exceeded::Amount));
        assert_eq!(usage.would_exceed(&rules, &SALE, 300), None);
        // A hold is counted by day like a purchase; the amount is asked before the count.
        usage.add(&rules, &hold, 100, TODAY);
        assert_eq!(usage.would_exceed(&rules, &SALE, 200), Some(Exceeded::Count));
        assert_eq!(usage.would_exceed(&rules, &SALE, 201), Some(Exceeded::Amount));
        // Others have counters of their own, and other classes none.
        let other = Sale { holder: 8, ..SALE };
        assert_eq!(usage.would_exceed(&rules, &other, 1_000), None);
        let teacher = Sale { class: CardClass::Teacher, ..SALE };
        assert_eq!(usage.would_exceed(&rules, &teacher, u64::MAX), None);
        usage.add(&rules, &teacher, 500, TODAY);
        assert_eq!((usage.used(7, 1, None), usage.used(7, 0, None), usage.used(7, 2, None)), (800, 200, 2));
        assert_eq!(image(&usage, &rules).len(), 3 * 16);
        // The next day begins with nothing.
        usage.cut_over(&rules, Date(TODAY.0 + 1));
        assert_eq!(usage.would_exceed(&rules, &shop, 300), None);
        assert!(image(&usage, &rules).is_empty());
    }

    #[test]
    fn a_meal_is_counted_on_the_day_on_which_it_began() {
        let (lunch, night) = (meal(660, 810, 1), meal(22 * 60, 2 * 60, 2));
        let rules = rules(&[lunch, night]);
        let mut usage = unused(&rules);
        let at = |days: u16, time: u32| Sale { date: Date(TODAY.0 + days), time, ..SALE };
        usage.add(&rules, &at(0, 110_000), 5, TODAY);
        assert_eq!(usage.would_exceed(&rules, &at(0, 132_959), 1), Some(Exceeded::Count));
        assert_eq!(usage.would_exceed(&rules, &at(0, 133_000), 1), None, "after lunch");
        assert_eq!(usage.would_exceed(&rules, &at(1, 120_000), 1), None, "tomorrow's");
        let hold = Sale { is_purchase: false, ..at(0, 120_000) };
        assert_eq!(usage.would_exceed(&rules, &hold, 1), None, "no meal");
        usage.add(&rules, &hold, 1, TODAY);
        assert_eq!(usage.used(7, 0, Some(TODAY)), 1);
        // One night, over midnight: also where the business date has moved on between.
        usage.add(&rules, &at(0, 235_900), 5, TODAY);
        usage.cut_over(&rules, Date(TODAY.0 + 1));
        usage.add(&rules, &at(1, 500), 5, Date(TODAY.0 + 1));
        assert_eq!(usage.would_exceed(&rules, &at(1, 15_959), 5), Some(Exceeded::Count));
        assert_eq!(usage.would_exceed(&rules, &at(0, 235_959), 5), Some(Exceeded::Count));
        assert_eq!(usage.would_exceed(&rules, &at(1, 220_000), 5), None, "the next night");
        assert_eq!(usage.used(7, 1, Some(TODAY)), 2);
        image(&usage, &rules);
        // A day later it is forgotten, and what comes late for it is not counted.
        usage.cut_over(&rules, Date(TODAY.0 + 2));
        assert!(image(&usage, &rules).is_empty());
        usage.add(&rules, &at(0, 235_900), 5, Date(TODAY.0 + 2));
        assert!(image(&usage, &rules).is_empty());
        usage.add(&rules, &at(3, 120_000), 5, Date(TODAY.0 + 2));
        assert_eq!(usage.used(7, 0, Some(Date(TODAY.0 + 3))), 1, "a terminal's clock may be ahead");
    }

    #[test]
    fn what_is_given_back_may_be_used_again() {
        let rules = rules(&[Rule::new(RuleKind::DayMax, 1_000), Rule::new(RuleKind::DayCount, 1), meal(660, 810, 1)]);
        let mut usage = unused(&rules);
        let used = |usage: &Usage| [usage.used(7, 0, None), usage.used(7, 1, None), usage.used(7, 2, Some(TODAY))];
        usage.add(&rules, &SALE, 600, TODAY);
        assert_eq!(used(&usage), [600, 1, 1]);
        usage.give_back(&rules, &SALE, MADE, 200, false);
        assert_eq!(used(&usage), [400, 1, 1]);
        assert_eq!(usage.would_exceed(&rules, &SALE, 600), Some(Exceeded::Count));
        usage.give_back(&rules, &SALE, MADE, 400, true);
        assert!(image(&usage, &rules).is_empty(), "a counter at nothing is none");
        assert_eq!(usage.would_exceed(&rules, &SALE, 1_000), None);
        usage.add(&rules, &SALE, 600, TODAY);
        usage.give_back(&rules, &SALE, MADE, 200, false);
        usage.take_again(&rules, &SALE, MADE, 200);
        assert_eq!(used(&usage), [600, 1, 1]);
        usage.give_back(&rules, &SALE, MADE, 600, true);
        // More than there is, or from another holder, goes to nothing and no further.
        usage.add(&rules, &SALE, 100, TODAY);
        usage.give_back(&rules, &Sale { holder: 8, ..SALE }, MADE, 100, true);
        assert_eq!(used(&usage), [100, 1, 1]);
        usage.give_back(&rules, &SALE, MADE, 101, true);
        usage.give_back(&rules, &SALE, MADE, 1, true);
        assert_eq!(used(&usage), [0; 3]);
        // Beyond what a number holds it stays at the end.
        usage.add(&rules, &SALE, u64::MAX, TODAY);
        usage.add(&rules, &SALE, u64::MAX, TODAY);
        assert_eq!(usage.would_exceed(&rules, &SALE, 1), Some(Exceeded::Amount));
    }

    #[test]
    fn a_limit_of_nothing_lets_nothing_pass() {
        for (rule, exceeded) in [
            (Rule::new(RuleKind::DayMax, 0), Exceeded::Amount),
            (Rule::new(RuleKind::DayCount, 0), Exceeded::Count),
            (meal(660, 810, 0), Exceeded::Count),
        ] {
            assert_eq!(Usage::default().would_exceed(&rules(&[rule]), &SALE, 1), Some(exceeded));
        }
    }

    #[test]
    fn a_rule_that_stays_keeps_its_counters() {
        let (day, shop) =
            (Rule::new(RuleKind::DayMax, 1_000), Rule { category: Some(Category::Shop), ..Rule::new(RuleKind::DayMax, 9) });
        let (count, lunch) = (Rule::new(RuleKind::DayCount, 5), meal(660, 810, 2));
        let before = rules(&[day, count, lunch]);
        let mut usage = unused(&before);
        usage.add(&before, &SALE, 600, TODAY);
        usage.add(&before, &Sale { holder: 8, ..SALE }, 50, TODAY);
        // Other places in the list; the count's limit is another rule's now.
        let now = rules(&[shop, day, Rule { value: 6, ..count }, lunch]);
        usage.follow(&before, &now, 20);
        let used = |usage: &Usage, holder: u32| {
            [
                usage.used(holder, 0, None),
                usage.used(holder, 1, None),
                usage.used(holder, 2, None),
                usage.used(holder, 3, Some(TODAY)),
            ]
        };
        assert_eq!(now.list()[0], day);
        assert_eq!((used(&usage, 7), used(&usage, 8)), ([600, 0, 0, 1], [50, 0, 0, 1]));
        image(&usage, &now);
        // What was sold before a rule came into force was not counted by it, and is not given back to it.
        let shops = Sale { category: Category::Shop, ..SALE };
        usage.add(&now, &shops, 5, TODAY);
        usage.give_back(&now, &shops, 15, 3, true);
        assert_eq!(used(&usage, 7), [602, 5, 1, 1]);
        usage.take_again(&now, &shops, 15, 3);
        assert_eq!(used(&usage, 7), [605, 5, 1, 1]);
        usage.give_back(&now, &shops, 25, 3, true);
        assert_eq!(used(&usage, 7), [602, 2, 0, 0]);
        usage.follow(&now, &Rules::default(), 30);
        assert!(image(&usage, &Rules::default()).is_empty());
    }

    #[test]
    fn an_image_holds_only_counters_that_there_can_be() {
        let rules = rules(&[Rule::new(RuleKind::DayMax, 5), meal(660, 810, 1), Rule::new(RuleKind::PinAbove, 5)]);
        let row = |holder: u32, rule: u16, day: u16, used: u64| {
            let mut bytes = Vec::new();
            Counter { key: Key::new(holder, rule, Date(day)), used }.put(&mut Encoder(&mut bytes));
            Counter::take(&mut Decoder(&bytes), &rules, 10).is_some()
        };
        assert!(row(9, 0, 0, 1) && row(9, 1, TODAY.0, 1));
        for (holder, rule, day, used) in [(10, 0, 0, 1), (9, 2, 0, 1), (9, 3, 0, 1), (9, 0, 1, 1), (9, 0, 0, 0)] {
            assert!(!row(holder, rule, day, used), "{holder} {rule} {day} {used}");
        }
        let mut usage = Usage::default();
        let counter = Counter { key: Key::new(1, 0, NO_DAY), used: 1 };
        assert_eq!((usage.put(counter), usage.put(counter)), (Some(()), None));
    }
}
