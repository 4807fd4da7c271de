//! The rules of the campus, as the file says them: who may spend how much, how often, from which purse and with which PIN, and
//! who may go through which door.
//!
//! A rule is kept as it stands in the file and read each time that it is asked. What is counted is counted for each rule
//! that counts, holder, and day, and begins anew where a rule is new or has another value.

use std::collections::BTreeMap;

use super::calendar::{Day, NO_DAY, minute_of_day, weekday};

/// A row of the policy file; a field that the rule does not use is empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// What is ruled.
    pub kind: &'static str,
    /// The card's class, or `*`.
    pub class: &'static str,
    /// The merchant's category, or `*`.
    pub category: &'static str,
    /// The doors' zone.
    pub zone: &'static str,
    /// Days of the week, such as `1-5` or `67`.
    pub days: &'static str,
    /// HH:MM.
    pub from: &'static str,
    /// HH:MM.
    pub to: &'static str,
    /// A number; `yes` and `no` are 1 and 0.
    pub value: i64,
}

impl Rule {
    /// A rule about classes and categories.
    #[must_use]
    pub fn new(kind: &'static str, class: &'static str, category: &'static str, value: i64) -> Self {
        Self { kind, class, category, zone: "", days: "", from: "", to: "", value }
    }

    /// Its line in the file.
    #[must_use]
    pub fn line(&self) -> String {
        let Self { kind, class, category, zone, days, from, to, value } = self;
        let value = match *kind {
            "refuse" | "door" => String::new(),
            "subsidy" => if *value == 1 { "yes" } else { "no" }.to_owned(),
            _ => value.to_string(),
        };
        format!("{kind},{class},{category},{zone},{days},{from},{to},{value}")
    }

    /// Whether it is the same rule, be it with another value.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Self { value: 0, ..self.clone() } == Self { value: 0, ..other.clone() }
    }

    fn fits(&self, kind: &str, class: &str, category: &str) -> bool {
        self.kind == kind && ["*", class].contains(&self.class) && ["*", category].contains(&self.category)
    }

    fn has_day(&self, day: Day) -> bool {
        let wanted = weekday(day);
        let digits: Vec<i64> = self.days.chars().map(|one| one.to_digit(10).map_or(0, i64::from)).collect();
        let named = |place: usize| match digits[place] {
            0 => (digits[place - 1]..=digits[place + 1]).contains(&wanted),
            one => one == wanted,
        };
        digits.is_empty() || (0..digits.len()).any(named)
    }

    /// The day on which the period began in which a moment lies, if it lies in one.
    fn begun(&self, day: Day, time: u32) -> Option<Day> {
        let minute =
            |text: &str| text.split_once(':').map_or(0, |(h, m)| h.parse::<i64>().unwrap_or(0) * 60 + m.parse().unwrap_or(0));
        let from = minute(self.from);
        let lasts = match (minute(self.to) - from).rem_euclid(1_440) {
            0 => 1_440,
            minutes => minutes,
        };
        let since = |begin: Day| (day - begin) * 1_440 + minute_of_day(time) - from;
        [day, day - 1].into_iter().find(|&begin| self.has_day(begin) && (0..lasts).contains(&since(begin)))
    }
}

/// A payment as rules see it.
#[derive(Clone, Debug)]
pub(super) struct Spending {
    pub(super) holder: String,
    pub(super) class: &'static str,
    pub(super) category: &'static str,
    /// Of DE13.
    pub(super) day: Day,
    /// DE12.
    pub(super) time: u32,
    pub(super) is_purchase: bool,
}

/// The rules in force, and what was used of them.
#[derive(Clone, Default)]
pub(super) struct Rules {
    list: Vec<Rule>,
    /// The record that put each of them into force.
    begun: Vec<u64>,
    /// By the rule's place, the holder, and for a meal the day on which it began.
    used: BTreeMap<(usize, String, Day), i64>,
}

impl Rules {
    /// Other rules come into force with this record. Gives how many are new, have another value, are gone.
    pub(super) fn replace(&mut self, list: &[Rule], position: u64) -> [u64; 3] {
        let before = std::mem::replace(&mut self.list, list.to_vec());
        let begun = |rule: &Rule| before.iter().position(|other| other == rule).map_or(position, |place| self.begun[place]);
        self.begun = list.iter().map(begun).collect();
        let places: Vec<Option<usize>> = before.iter().map(|rule| list.iter().position(|other| other == rule)).collect();
        let used = std::mem::take(&mut self.used);
        self.used =
            used.into_iter().filter_map(|((place, holder, day), used)| Some(((places[place]?, holder, day), used))).collect();
        let in_both = list.iter().filter(|rule| before.iter().any(|other| other.is_same(rule))).count();
        let kept = list.iter().filter(|rule| before.contains(rule)).count();
        [list.len() - in_both, in_both - kept, before.len() - in_both].map(|count| count as u64)
    }

    pub(super) fn cut_over(&mut self, business_day: Day) {
        let list = &self.list;
        self.used.retain(|(place, _, day), _| list[*place].kind == "meal" && *day >= business_day - 1);
    }

    /// The value of the most specific rule of a kind.
    fn value(&self, kind: &str, class: &str, category: &str) -> Option<i64> {
        let fitting = self.list.iter().filter(|rule| rule.fits(kind, class, category));
        fitting.max_by_key(|rule| (rule.class != "*", rule.category != "*")).map(|rule| rule.value)
    }

    pub(super) fn takes_subsidy(&self, class: &str, category: &str) -> bool {
        self.value("subsidy", class, category).map_or(category == "canteen", |value| value == 1)
    }

    /// What is paid more than an amount, or less.
    pub(super) fn surcharge(&self, class: &str, category: &str, amount: i64) -> i64 {
        let points = self.value("surcharge", class, category).unwrap_or(0);
        (2 * amount * points + 10_000).div_euclid(20_000)
    }

    pub(super) fn needs_pin(&self, class: &str, category: &str, amount: i64) -> bool {
        self.value("pin_above", class, category).is_some_and(|above| amount > above)
    }

    pub(super) fn refuses(&self, spending: &Spending) -> bool {
        let fitting = self.list.iter().filter(|rule| rule.fits("refuse", spending.class, spending.category));
        fitting.into_iter().any(|rule| rule.begun(spending.day, spending.time).is_some())
    }

    pub(super) fn opens(&self, class: &str, zone: &str, day: Day, time: u32) -> bool {
        let mut rows = self.list.iter().filter(|rule| rule.kind == "door" && rule.zone == zone).peekable();
        rows.peek().is_none() || rows.any(|rule| ["*", class].contains(&rule.class) && rule.begun(day, time).is_some())
    }

    /// Minutes within which nobody goes the same way twice through a zone's doors.
    pub(super) fn anti_passback(&self, zone: &str) -> Option<i64> {
        self.list.iter().find(|rule| rule.kind == "anti_passback" && rule.zone == zone).map(|rule| rule.value)
    }

    /// The rules that count this spending: their place, their kind, the day that is counted.
    fn counting(&self, spending: &Spending) -> Vec<(usize, &'static str, Day)> {
        let counted = |(place, rule): (usize, &Rule)| match rule.kind {
            "day_max" | "day_count" => Some((place, rule.kind, NO_DAY)),
            "meal" if spending.is_purchase => Some((place, rule.kind, rule.begun(spending.day, spending.time)?)),
            _ => None,
        };
        let fits = |rule: &Rule| rule.fits(rule.kind, spending.class, spending.category);
        self.list.iter().enumerate().filter(|(_, rule)| fits(rule)).filter_map(counted).collect()
    }

    /// Which limit this spending would pass: 61 or 65.
    pub(super) fn exceeded(&self, spending: &Spending, amount: i64) -> Option<&'static str> {
        let Spending { class, category, .. } = spending;
        let passes = |(place, kind, day): &(usize, &str, Day)| {
            let used = self.used.get(&(*place, spending.holder.clone(), *day)).copied().unwrap_or(0);
            used + if *kind == "day_max" { amount } else { 1 } > self.list[*place].value
        };
        let counting = self.counting(spending);
        let too_much = self.list.iter().any(|rule| rule.fits("transaction_max", class, category) && amount > rule.value)
            || counting.iter().any(|one| one.1 == "day_max" && passes(one));
        if too_much {
            return Some("61");
        }
        counting.iter().any(|one| one.1 != "day_max" && passes(one)).then_some("65")
    }

    pub(super) fn use_up(&mut self, spending: &Spending, amount: i64, business_day: Day) {
        for (place, kind, day) in self.counting(spending) {
            if kind != "meal" || day >= business_day - 1 {
                *self.used.entry((place, spending.holder.clone(), day)).or_default() += if kind == "day_max" { amount } else { 1 };
            }
        }
    }

    /// Those that counted it when it was spent, with this record.
    fn counted(&self, spending: &Spending, position: u64) -> Vec<(usize, &'static str, Day)> {
        self.counting(spending).into_iter().filter(|(place, ..)| self.begun[*place] < position).collect()
    }

    /// Something spent is given back: so much of it and, where it is undone as a `whole`, that it was spent.
    pub(super) fn give_back(&mut self, spending: &Spending, position: u64, amount: i64, whole: bool) {
        for (place, kind, day) in self.counted(spending, position) {
            let less = if kind == "day_max" { amount } else { i64::from(whole) };
            if let Some(used) = self.used.get_mut(&(place, spending.holder.clone(), day)) {
                *used = (*used - less).max(0);
            }
        }
    }

    /// An amount that was given back is spent after all.
    pub(super) fn use_again(&mut self, spending: &Spending, position: u64, amount: i64) {
        for (place, _, day) in self.counted(spending, position).into_iter().filter(|(_, kind, _)| *kind == "day_max") {
            *self.used.entry((place, spending.holder.clone(), day)).or_default() += amount;
        }
    }

    pub(super) fn list(&self) -> &[Rule] {
        &self.list
    }
}
