//! Files, and what they and messages make of cards: status, PIN, the hotlist.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::calendar::Day;
use super::policy::Rule;
use super::sessions::Terminal;
use super::{Asked, Effect, Event, Merchant, Model, Ruling};
use crate::message::{Draft, PinEntry};

/// Changes in one piece of the hotlist.
const PIECE: usize = 40;

/// A row of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Row {
    /// Number, category, fee.
    Merchant(&'static str, &'static str, u16),
    /// A terminal.
    Terminal {
        /// DE41.
        id: [u8; 8],
        /// Its merchant.
        merchant: &'static str,
        /// What it is.
        kind: &'static str,
        /// Where it stands.
        zone: &'static str,
        /// Its master key.
        key: [u8; 16],
    },
    /// A card.
    Card {
        /// Its number.
        number: String,
        /// Its holder.
        holder: String,
        /// Its class.
        class: &'static str,
        /// Its status.
        status: &'static str,
        /// The last day on which it is valid.
        expires: Day,
        /// Opening balances.
        opening: [i64; 2],
    },
    /// Card number and PIN.
    Pin(String, String),
}

/// A file, right in every line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum File {
    /// Merchants, terminals, cards or PINs: rows of one kind.
    Rows(Vec<Row>),
    /// All rules there are to be.
    Rules(Vec<Rule>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Card {
    pub(super) holder: String,
    pub(super) class: &'static str,
    status: &'static str,
    expires: Day,
    pin: Option<String>,
    /// Wrong PINs in a row.
    tries: u8,
}

fn is_listed(status: &str) -> bool {
    ["lost", "frozen", "blacklisted", "cancelled"].contains(&status)
}

fn is_live(status: &str) -> bool {
    ["active", "inactive", "frozen", "blacklisted"].contains(&status)
}

/// The cards that are not to be taken.
#[derive(Clone, Default)]
pub(super) struct Hotlist {
    /// Each change: the card, and whether it came to the list.
    changes: Vec<(String, bool)>,
    /// By terminal the reading that is under way: from which version to which.
    readings: BTreeMap<[u8; 8], (u64, u64)>,
}

impl Hotlist {
    pub(super) fn version(&self) -> u64 {
        self.changes.len() as u64
    }

    fn at(&self, version: u64) -> BTreeSet<&str> {
        let mut listed = BTreeSet::new();
        for (card, came) in &self.changes[..usize::try_from(version).expect("a version")] {
            if *came {
                listed.insert(card.as_str())
            } else {
                listed.remove(card.as_str())
            };
        }
        listed
    }

    pub(super) fn forget_readings(&mut self) {
        self.readings.clear();
    }

    /// DE48 of the piece after a card, and what is worth counting about it.
    pub(super) fn read(&mut self, terminal: [u8; 8], held: u64, after: Option<&str>) -> (String, Option<&'static str>) {
        if after.is_none() {
            self.readings.insert(terminal, (held, self.version()));
        }
        let Some((_, reached)) = self.readings.get(&terminal).copied().filter(|(from, _)| *from == held) else {
            // It was forgotten: the terminal sees another version than that of its first piece, and begins anew.
            return ("5010000000000052010".to_owned(), Some("hotlist.reading_forgotten"));
        };
        let (before, now) = (self.at(held), self.at(reached));
        let order = |card: &&str| (card.len(), (*card).to_owned());
        let mut changed: Vec<(&str, char)> =
            now.difference(&before).map(|card| (*card, '+')).chain(before.difference(&now).map(|card| (*card, '-'))).collect();
        changed.sort_by_key(|(card, _)| order(card));
        changed.retain(|(card, _)| after.is_none_or(|after| order(card) > order(&after)));
        let more = changed.len() > PIECE;
        changed.truncate(PIECE);
        let mut text = format!("5010{reached:010}5201{}", u8::from(more));
        for (card, sign) in &changed {
            write!(text, "53{:02}{sign}{card}", card.len() + 1).expect("memory");
        }
        let event = match (after, changed.iter().any(|(_, sign)| *sign == '-')) {
            (Some(_), _) if reached < self.version() => Some("hotlist.changed_while_read"),
            (Some(_), _) => Some("hotlist.second_piece"),
            (None, true) => Some("hotlist.card_taken_off"),
            (None, false) => None,
        };
        (text, event)
    }
}

impl Model {
    /// The holder of a card that may be used.
    pub(super) fn good_card(&self, number: &str) -> Result<String, &'static str> {
        let card = self.cards.get(number).ok_or("14")?;
        match card.status {
            "lost" => Err("41"),
            "frozen" | "blacklisted" => Err("62"),
            "inactive" | "cancelled" => Err("78"),
            _ if card.expires < self.day => Err("54"),
            _ => Ok(card.holder.clone()),
        }
    }

    /// What a payment that needs a PIN is told about it; a wrong or right one is noted.
    pub(super) fn ask_pin(&mut self, draft: &Draft) -> Result<(), &'static str> {
        let tries_max = self.limits.pin_tries_max;
        let card = self.cards.get_mut(draft.card.as_deref().expect("asked for")).expect("a known card");
        if card.tries >= tries_max {
            return Err("75");
        }
        match (&draft.pin, &card.pin) {
            (None, _) | (_, None) => Err("55"),
            (Some(PinEntry::Digits(typed)), Some(pin)) if typed == pin => {
                if card.tries > 0 {
                    self.events.push("decided.pin_right_again");
                }
                card.tries = 0;
                Ok(())
            }
            _ => {
                card.tries += 1;
                Err("55")
            }
        }
    }

    /// How a payment that needs a PIN, and was made offline, would have been answered.
    pub(super) fn pin_objection(&self, number: &str) -> &'static str {
        if self.cards[number].tries >= self.limits.pin_tries_max { "75" } else { "55" }
    }

    fn change_status(&mut self, number: &str, status: &'static str) {
        let card = self.cards.get_mut(number).expect("a known card");
        let before = std::mem::replace(&mut card.status, status);
        if is_listed(before) != is_listed(status) {
            self.hotlist.changes.push((number.to_owned(), is_listed(status)));
        }
    }

    fn report(&mut self, asked: &Asked<'_>, from: &str, to: &'static str) -> Ruling {
        let number = asked.draft.card.as_deref().expect("asked for");
        let status = self.cards.get(number).ok_or("14")?.status;
        match status {
            "frozen" | "blacklisted" => return Err("62"),
            "inactive" | "cancelled" => return Err("78"),
            _ if status != from => {}
            _ if is_live(to) && self.other_live_card(number).is_some() => return Err("78"),
            _ => {
                self.events.push("decided.status_reported");
                self.change_status(number, to);
            }
        }
        Ok(Effect::default())
    }

    pub(super) fn loss(&mut self, asked: &Asked<'_>) -> Ruling {
        self.report(asked, "active", "lost")
    }

    pub(super) fn found(&mut self, asked: &Asked<'_>) -> Ruling {
        self.report(asked, "lost", "active")
    }

    /// Another card of the same holder that is the holder's one card, or may become it.
    #[must_use]
    pub fn other_live_card(&self, number: &str) -> Option<&str> {
        let holder = &self.cards.get(number)?.holder;
        let other = self.cards.iter().find(|(other, card)| *other != number && card.holder == *holder && is_live(card.status));
        other.map(|(other, _)| other.as_str())
    }

    /// The live card of a holder.
    #[must_use]
    pub fn live_card(&self, holder: &str) -> Option<&str> {
        let live = self.cards.iter().find(|(_, card)| card.holder == holder && is_live(card.status));
        live.map(|(number, _)| number.as_str())
    }

    /// A card's status.
    #[must_use]
    pub fn status(&self, number: &str) -> Option<&'static str> {
        self.cards.get(number).map(|card| card.status)
    }

    /// A card's PIN.
    #[must_use]
    pub fn pin(&self, number: &str) -> Option<&str> {
        self.cards.get(number)?.pin.as_deref()
    }

    /// The hotlist's version.
    #[must_use]
    pub fn hotlist_version(&self) -> u64 {
        self.hotlist.version()
    }

    /// The cards that were on the hotlist in this version.
    #[must_use]
    pub fn hotlist_at(&self, version: u64) -> BTreeSet<String> {
        self.hotlist.at(version).into_iter().map(str::to_owned).collect()
    }

    /// The cards whose status says that they are to be listed.
    #[must_use]
    pub fn listed(&self) -> BTreeSet<String> {
        self.cards.iter().filter(|(_, card)| is_listed(card.status)).map(|(number, _)| number.clone()).collect()
    }

    /// The rules in force.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        self.rules.list()
    }

    /// Takes a file, which is right. Gives how many rows of it, or rules gone with it, changed something.
    pub fn import(&mut self, file: &File) -> u64 {
        let (changed, records) = match file {
            File::Rows(rows) => {
                let changed = rows.iter().filter(|row| self.take(row)).count() as u64;
                (changed, changed)
            }
            File::Rules(list) => {
                let changed = self.rules.replace(list, self.position + 1).iter().sum();
                let rules = &self.rules;
                self.passages.retain(|(_, zone), _| rules.anti_passback(zone).is_some());
                (changed, u64::from(changed > 0))
            }
        };
        if records > 0 {
            self.position += records + 1;
            self.keep(Event::File(file.clone()));
        }
        changed
    }

    fn take(&mut self, row: &Row) -> bool {
        match row {
            Row::Merchant(id, category, fee) => {
                let new = Merchant { category, fee: *fee, takings: 0 };
                let known = self.merchants.entry(id).or_insert(Merchant { category: "", ..new });
                let changed = (known.category, known.fee) != (category, *fee);
                (known.category, known.fee) = (category, *fee);
                changed
            }
            Row::Terminal { id, merchant, kind, zone, key } => {
                let known = self.terminals.get(id);
                let same =
                    |known: &&Terminal| (known.merchant, known.kind, known.zone, known.key) == (*merchant, *kind, *zone, *key);
                if known.is_some_and(|known| same(&known)) {
                    return false;
                }
                let sessions = known.filter(|known| known.key == *key).map(|known| (known.current, known.previous));
                let (current, previous) = sessions.unwrap_or((None, None));
                let batch = known.map_or(1, |known| known.batch);
                let (merchant, kind, zone) = (*merchant, *kind, *zone);
                let terminal = Terminal { merchant, kind, zone, key: *key, current, previous, takes_previous: true, batch };
                self.terminals.insert(*id, terminal);
                true
            }
            Row::Card { number, holder, class, status, expires, opening } => {
                if !self.holders.contains_key(holder) {
                    self.holders.insert(holder.clone(), (*opening, *opening));
                    self.house.suspense -= opening[0];
                    self.house.grants -= opening[1];
                }
                let known = self.cards.get(number);
                let (pin, tries) = known.map_or((None, 0), |known| (known.pin.clone(), known.tries));
                let before = known.cloned();
                let (class, expires) = (*class, *expires);
                let old = before.as_ref().map_or("inactive", |known| known.status);
                self.cards.insert(number.clone(), Card { holder: holder.clone(), class, status: old, expires, pin, tries });
                self.change_status(number, status);
                before.as_ref() != self.cards.get(number)
            }
            Row::Pin(number, digits) => {
                let card = self.cards.get_mut(number).expect("a known card");
                let changed = card.pin.as_ref() != Some(digits) || card.tries > 0;
                card.pin = Some(digits.clone());
                card.tries = 0;
                changed
            }
        }
    }
}
