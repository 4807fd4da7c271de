//! Doors, loans and attendance.

use super::calendar::minute_of_day;
use super::{Asked, Effect, Model, Ruling};

/// Minutes after which a passage does not matter to any rule.
const PASSAGE_MINUTES_MAX: i64 = 10_080;

impl Model {
    fn zone(&self, asked: &Asked<'_>) -> &'static str {
        self.terminals[&asked.draft.terminal].zone
    }

    fn minute(asked: &Asked<'_>) -> i64 {
        asked.identity.2 * 1_440 + minute_of_day(asked.draft.time)
    }

    /// Whether the door stays shut for a card in order.
    fn is_shut(&mut self, asked: &Asked<'_>, number: &str, direction: u32) -> bool {
        let zone = self.zone(asked);
        let card = &self.cards[number];
        if !self.rules.opens(card.class, zone, asked.identity.2, asked.draft.time) {
            self.events.push("decided.door_shut");
            return true;
        }
        let last = self.passages.get(&(card.holder.clone(), zone));
        let now = Self::minute(asked);
        let passed_back = last.is_some_and(|(last, minute)| {
            let within = self.rules.anti_passback(zone).unwrap_or(0);
            *last == direction && (now - minute).abs() < within
        });
        if passed_back {
            self.events.push("decided.passed_back");
        }
        passed_back
    }

    /// Somebody has gone through a door about which there is a rule.
    fn note_passage(&mut self, asked: &Asked<'_>, number: &str, direction: u32) {
        let zone = self.zone(asked);
        if self.rules.anti_passback(zone).is_none() {
            return;
        }
        let now = Self::minute(asked);
        let last = self.passages.entry((self.cards[number].holder.clone(), zone)).or_insert((direction, now));
        if last.1 <= now {
            *last = (direction, now);
        }
    }

    pub(super) fn forget_passages(&mut self) {
        let oldest = self.day * 1_440 - PASSAGE_MINUTES_MAX;
        self.passages.retain(|_, (_, minute)| *minute >= oldest);
    }

    pub(super) fn pass(&mut self, asked: &Asked<'_>) -> Ruling {
        let number = asked.draft.card.as_deref().expect("asked for");
        let direction = asked.draft.processing.expect("asked for");
        self.good_card(number)?;
        if self.is_shut(asked, number, direction) {
            return Err("57");
        }
        self.note_passage(asked, number, direction);
        Ok(Effect::default())
    }

    pub(super) fn lend(&mut self, asked: &Asked<'_>, event: u32) -> Ruling {
        self.good_card(asked.draft.card.as_deref().expect("asked for"))?;
        self.change_loan(asked, event)?;
        Ok(Effect::default())
    }

    fn change_loan(&mut self, asked: &Asked<'_>, event: u32) -> Result<(), &'static str> {
        let item = asked.draft.tag(11).expect("asked for");
        let holder = &self.cards[asked.draft.card.as_deref().expect("asked for")].holder;
        match (event, self.loans.get(item)) {
            (930_000, Some(_)) => Err("12"),
            (930_000, None) => {
                self.loans.insert(item.to_owned(), holder.clone());
                Ok(())
            }
            (_, None) => Err("25"),
            (_, Some(other)) if other != holder => Err("57"),
            (_, Some(_)) => {
                self.loans.remove(item);
                Ok(())
            }
        }
    }

    /// Something that happened while the switch could not be asked.
    pub(super) fn identity_advice(&mut self, asked: &Asked<'_>, event: u32) -> Ruling {
        let number = asked.draft.card.as_deref().expect("asked for");
        let mut flag = match self.good_card(number) {
            Err("14") => return Err("14"),
            other => other.err(),
        };
        match event {
            910_000 | 920_000 => {
                if flag.is_none() && self.is_shut(asked, number, event) {
                    flag = Some("57");
                }
                self.note_passage(asked, number, event);
            }
            930_000 | 940_000 => self.change_loan(asked, event)?,
            _ => {}
        }
        if flag.is_some() {
            self.events.push("decided.advice_flagged");
        }
        Ok(Effect { flag, ..Effect::default() })
    }

    /// What is on loan, and to whom.
    pub fn all_loans(&self) -> impl Iterator<Item = (&str, &str)> {
        self.loans.iter().map(|(item, holder)| (item.as_str(), holder.as_str()))
    }
}
