//! What the switch should do, written down a second time and naively: maps, strings and plain functions, from the terminal
//! protocol alone. It shares no code with the ledger, the sessions or the calendar.
//!
//! [`Model::handle`] says what the answer to a message must be and changes the model as the switch should change. Whatever
//! took a position is kept as history, so that after a crash the model can be brought to the position that was recovered.

use std::collections::{BTreeMap, BTreeSet};

use crate::message::{Draft, Key, Nonces};

/// Days since 1970-01-01.
pub type Day = i64;

/// 2000-01-01, which stands for "no business date yet".
pub const NO_DAY: Day = 10_957;
/// The most days by which a running switch follows its clock, and a start.
pub const FOLLOWED_DAYS: [Day; 2] = [3, 100];

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

fn nearest(month_day: u16, near: Day) -> Option<Day> {
    let (month, day) = (i64::from(month_day / 100), i64::from(month_day % 100));
    let year = civil(near).0;
    let days = (year - 4..=year + 4).filter(|year| *year >= 2_000).filter_map(|year| day_number(year, month, day));
    days.min_by_key(|day| (day - near).abs())
}

/// A row of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Row {
    /// Number, category, fee.
    Merchant(&'static str, &'static str, u16),
    /// DE41, merchant, kind, key.
    Terminal([u8; 8], &'static str, &'static str, [u8; 16]),
    /// Number, holder, status, last valid day, opening balances.
    Card(String, String, &'static str, Day, [i64; 2]),
}

#[derive(Clone)]
struct Terminal {
    merchant: &'static str,
    kind: &'static str,
    key: [u8; 16],
    current: Option<Nonces>,
    previous: Option<Nonces>,
    /// Whether the running switch still takes the previous session's key; a restart asks the journal again.
    takes_previous: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Content {
    card: Option<String>,
    processing: Option<u32>,
    amount: Option<u64>,
    currency: bool,
}

/// Class, DE41, day of DE13, STAN.
pub type Identity = (u8, [u8; 8], Day, u32);

/// What was decided under an identity.
#[derive(Clone, Debug)]
struct Decision {
    content: Content,
    position: u64,
    code: &'static str,
    day: Day,
    merchant: &'static str,
    after: Option<[i64; 2]>,
    /// What the purses paid, while it stands.
    standing: Option<[i64; 2]>,
    nonce: Option<[u8; 8]>,
}

/// What took positions, in order.
#[derive(Clone)]
enum Event {
    Policy(u32, i64),
    Cutover(Day),
    Import(Vec<Row>),
    Request(Draft, Key, [u8; 8]),
}

/// What the answer must be.
#[derive(Clone, Debug)]
pub struct Expected {
    /// DE39.
    pub code: &'static str,
    /// Whether it rests on the ledger's state and so waits for the journal.
    pub waits: bool,
    /// Whether it carries a MAC under the request's key.
    pub proved: bool,
    /// DE15.
    pub day: Day,
    /// DE37.
    pub position: Option<u64>,
    /// DE38.
    pub approval: bool,
    /// DE54.
    pub purses: Option<[i64; 2]>,
    /// DE48 of a sign-on's answer.
    pub session: Option<([u8; 8], Day)>,
    /// The position of the state that it rests on.
    pub rests_on: u64,
    /// What happened, for the coverage.
    pub event: Option<&'static str>,
}

/// The model.
#[derive(Clone)]
pub struct Model {
    /// Records so far.
    pub position: u64,
    /// The business date.
    pub day: Day,
    /// Ceiling in fen, days of memory.
    pub policy: (u32, i64),
    /// The first day of the window.
    pub remembered_from: Day,
    /// Category, fee, takings.
    merchants: BTreeMap<&'static str, (&'static str, u16, i64)>,
    terminals: BTreeMap<[u8; 8], Terminal>,
    /// Holder, status, last valid day.
    cards: BTreeMap<String, (String, &'static str, Day)>,
    /// Cash and subsidy; what it was opened with.
    holders: BTreeMap<String, ([i64; 2], [i64; 2])>,
    /// Suspense and grants.
    sources: [i64; 2],
    decisions: BTreeMap<Identity, Decision>,
    tombstones: BTreeSet<Identity>,
    history: Vec<(u64, Event)>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            position: 0,
            day: NO_DAY,
            policy: (0, 1),
            remembered_from: NO_DAY,
            merchants: BTreeMap::new(),
            terminals: BTreeMap::new(),
            cards: BTreeMap::new(),
            holders: BTreeMap::new(),
            sources: [0, 0],
            decisions: BTreeMap::new(),
            tombstones: BTreeSet::new(),
            history: Vec::new(),
        }
    }
}

/// The class of an MTI: 01xx and 02xx are one.
#[must_use]
pub fn class(mti: u16) -> u8 {
    match mti / 100 {
        1 | 2 => 2,
        family @ (3..=6 | 8) => family as u8,
        _ => 9,
    }
}

fn operation(draft: &Draft) -> &'static str {
    let purse = matches!(draft.processing, Some(0 | 1_000 | 2_000));
    match (draft.mti / 10, draft.mti % 10, draft.network) {
        (20, 0 | 1, _) if purse => "purchase",
        (10, 0 | 1, _) if draft.processing == Some(310_000) => "balance",
        (40 | 42, 0 | 1, _) => "reversal",
        (80, 0 | 1, Some(1)) => "sign_on",
        (80, 0 | 1, Some(2)) => "sign_off",
        (80, 0 | 1, Some(301)) => "echo",
        _ => "unknown",
    }
}

impl Model {
    fn keep(&mut self, event: Event) {
        self.history.push((self.position, event));
    }

    fn forget(&mut self) {
        self.remembered_from = self.remembered_from.max(self.day - (self.policy.1 - 1)).max(NO_DAY);
        let from = self.remembered_from;
        self.decisions.retain(|identity, _| identity.2 >= from);
        self.tombstones.retain(|identity| identity.2 >= from);
    }

    /// The limits change.
    pub fn set_policy(&mut self, policy: (u32, i64)) {
        self.position += 1;
        self.policy = policy;
        self.forget();
        self.keep(Event::Policy(policy.0, policy.1));
    }

    /// The business date moves on.
    pub fn cutover(&mut self, day: Day) {
        self.position += 1;
        self.day = day;
        self.forget();
        self.keep(Event::Cutover(day));
    }

    /// The clock was looked at. `true`: the business date moved on.
    pub fn keep_date(&mut self, now: u64, followed: Day, room: bool) -> bool {
        let today = campus_day(now);
        let follows = today > self.day && (self.day == NO_DAY || today - self.day <= followed) && room;
        if follows {
            self.cutover(today);
        }
        follows
    }

    /// Brings it to a position that it had. `false`: no history ends there, as in the middle of a file.
    pub fn go_back_to(&mut self, position: u64) -> bool {
        let history = std::mem::take(self).history;
        for (last, event) in history {
            if last > position {
                break;
            }
            match event {
                Event::Policy(amount, days) => self.set_policy((amount, days)),
                Event::Cutover(day) => self.cutover(day),
                Event::Import(rows) => drop(self.import(&rows)),
                Event::Request(draft, key, nonce) => drop(self.handle(&draft, key, true, nonce)),
            }
            assert_eq!(self.position, last, "the model does the same twice");
        }
        for terminal in self.terminals.values_mut() {
            terminal.takes_previous = true;
        }
        self.position == position
    }

    /// Takes a file's rows, which are right. Gives how many changed something.
    pub fn import(&mut self, rows: &[Row]) -> u64 {
        let changed = rows.iter().filter(|row| self.take(row)).count() as u64;
        if changed > 0 {
            self.position += changed + 1;
            self.keep(Event::Import(rows.to_vec()));
        }
        changed
    }

    fn take(&mut self, row: &Row) -> bool {
        match row {
            Row::Merchant(id, category, fee) => {
                let known = self.merchants.get(id).copied();
                self.merchants.insert(id, (category, *fee, known.map_or(0, |known| known.2)));
                known.is_none_or(|known| (known.0, known.1) != (*category, *fee))
            }
            Row::Terminal(id, merchant, kind, key) => {
                let known = self.terminals.get(id);
                if known.is_some_and(|known| (known.merchant, known.kind, known.key) == (*merchant, *kind, *key)) {
                    return false;
                }
                let sessions = known.filter(|known| known.key == *key).map(|known| (known.current, known.previous));
                let (current, previous) = sessions.unwrap_or((None, None));
                let terminal = Terminal { merchant, kind, key: *key, current, previous, takes_previous: true };
                self.terminals.insert(*id, terminal);
                true
            }
            Row::Card(number, holder, status, expires, opening) => {
                if !self.holders.contains_key(holder) {
                    self.holders.insert(holder.clone(), (*opening, *opening));
                    self.sources = [self.sources[0] - opening[0], self.sources[1] - opening[1]];
                }
                let entry = (holder.clone(), *status, *expires);
                self.cards.insert(number.clone(), entry.clone()) != Some(entry)
            }
        }
    }

    /// The identity of a request as the switch reads it now; `None` where there is no such day.
    #[must_use]
    pub fn identity(&self, draft: &Draft) -> Option<Identity> {
        Some((class(draft.mti), draft.terminal, nearest(draft.month_day, self.day)?, draft.stan))
    }

    fn plain(&self, code: &'static str, waits: bool, proved: bool) -> Expected {
        Expected {
            code,
            waits,
            proved,
            day: self.day,
            position: None,
            approval: false,
            purses: None,
            session: None,
            rests_on: self.position,
            event: None,
        }
    }

    /// Whether the key proves the message. `None`: it does not; else whether it is the newest session's.
    fn prove(&mut self, draft: &Draft, key: Key, operation: &str) -> Option<bool> {
        let terminal = self.terminals.get_mut(&draft.terminal).expect("a known terminal");
        match key {
            Key::None if operation == "echo" => Some(false),
            Key::SignOn(master) if operation == "sign_on" => (master == terminal.key).then_some(false),
            Key::Session(master, nonces) if operation != "sign_on" && master == terminal.key => {
                if terminal.current == Some(nonces) {
                    terminal.takes_previous = false;
                    return Some(true);
                }
                (terminal.takes_previous && terminal.previous == Some(nonces)).then_some(false)
            }
            _ => None,
        }
    }

    /// Handles a message: `room`, whether the journal takes a record now; `nonce`, the switch's next one.
    pub fn handle(&mut self, draft: &Draft, key: Key, room: bool, nonce: [u8; 8]) -> Expected {
        let operation = operation(draft);
        if !self.terminals.contains_key(&draft.terminal) {
            return self.plain("58", false, false);
        }
        let Some(is_current) = self.prove(draft, key, operation) else { return self.plain("63", false, false) };
        let proved = key != Key::None;
        let missing = match operation {
            "purchase" => draft.card.is_none() || draft.amount.is_none() || draft.merchant.is_none() || !draft.currency,
            "balance" => draft.card.is_none(),
            "sign_on" => draft.nonce.is_none(),
            _ => false,
        };
        let original = match (operation, draft.original) {
            ("reversal", None) => self.identity(draft).map(|(_, terminal, day, stan)| (2, terminal, day, stan)),
            ("reversal", Some(named)) if class(named.mti) == 2 => {
                nearest(named.month_day, self.day).map(|day| (2, draft.terminal, day, named.stan))
            }
            _ => None,
        };
        let Some(identity) = self.identity(draft).filter(|_| !missing && (operation != "reversal" || original.is_some())) else {
            return self.plain("30", false, proved);
        };
        if !self.terminal_may(draft, operation, original.unwrap_or(identity)) {
            return self.plain("58", false, proved);
        }
        if operation == "echo" {
            return self.plain("00", false, proved);
        }
        let window = self.remembered_from..=self.day + 1;
        if !window.contains(&identity.2) || !window.contains(&original.unwrap_or(identity).2) {
            return self.plain("12", true, true);
        }
        if operation == "balance" {
            let purses = self.purses(draft.card.as_deref());
            return Expected { purses, ..self.plain(if purses.is_some() { "00" } else { "14" }, true, true) };
        }
        let content =
            Content { card: draft.card.clone(), processing: draft.processing, amount: draft.amount, currency: draft.currency };
        if let Some(decided) = self.decisions.get(&identity) {
            let code = if operation == "unknown" { "12" } else { "94" };
            return if decided.content == content {
                self.answer(identity, Some("decided.again"))
            } else {
                self.plain(code, true, true)
            };
        }
        if !room {
            return self.plain("91", false, true);
        }
        self.position += 1;
        let merchant = self.terminals[&draft.terminal].merchant;
        let (position, day) = (self.position, self.day);
        let mut decision = Decision { content, position, code: "00", day, merchant, after: None, standing: None, nonce: None };
        let event = match operation {
            "purchase" => self.purchase(&identity, draft, &mut decision),
            "reversal" => self.reversal(original.expect("looked up"), draft, &mut decision),
            "sign_on" => {
                decision.nonce = Some(nonce);
                let terminal = self.terminals.get_mut(&draft.terminal).expect("known");
                terminal.previous = terminal.current.replace((draft.nonce.expect("asked for"), nonce));
                terminal.takes_previous = true;
                None
            }
            "sign_off" => {
                let terminal = self.terminals.get_mut(&draft.terminal).expect("known");
                (terminal.current, terminal.previous) = (None, None);
                None
            }
            _ => {
                decision.code = "12";
                None
            }
        };
        if is_current {
            self.terminals.get_mut(&draft.terminal).expect("known").previous = None;
        }
        self.tombstones.remove(&identity);
        self.decisions.insert(identity, decision);
        self.keep(Event::Request(draft.clone(), key, nonce));
        self.answer(identity, event)
    }

    fn answer(&self, identity: Identity, event: Option<&'static str>) -> Expected {
        let decided = &self.decisions[&identity];
        let approval = decided.code == "00" && matches!(identity.0, 2 | 4);
        Expected {
            day: decided.day,
            position: Some(decided.position),
            approval,
            purses: decided.after.filter(|_| approval && decided.content.card.is_some()),
            session: decided.nonce.map(|nonce| (nonce, decided.day)),
            event,
            ..self.plain(decided.code, true, true)
        }
    }

    fn terminal_may(&self, draft: &Draft, operation: &str, about: Identity) -> bool {
        let terminal = &self.terminals[&draft.terminal];
        let before = || self.decisions.get(&about).map(|decided| decided.merchant);
        let own = draft.merchant.is_none_or(|named| named == terminal.merchant || Some(named) == before());
        own && match operation {
            "purchase" => ["pos", "counter", "water", "library"].contains(&terminal.kind),
            "balance" => ["pos", "counter", "water", "kiosk"].contains(&terminal.kind),
            _ => true,
        }
    }

    fn purses(&self, card: Option<&str>) -> Option<[i64; 2]> {
        let (holder, ..) = self.cards.get(card?)?;
        Some(self.holders[holder].0)
    }

    fn purchase(&mut self, identity: &Identity, draft: &Draft, decision: &mut Decision) -> Option<&'static str> {
        if self.tombstones.contains(identity) {
            decision.code = "12";
            return Some("decided.tombstone_hit");
        }
        let amount = i64::try_from(draft.amount.expect("asked for")).expect("twelve digits");
        let card = self.cards.get(draft.card.as_deref().expect("asked for"));
        let (category, ..) = self.merchants[decision.merchant];
        let subsidised = category == "canteen";
        decision.code = match card {
            _ if amount == 0 || amount > i64::from(self.policy.0) => "13",
            None => "14",
            Some((_, "lost", _)) => "41",
            Some((_, "frozen", _)) => "62",
            Some((_, "inactive" | "cancelled", _)) => "78",
            Some((.., expires)) if *expires < self.day => "54",
            _ if draft.processing == Some(2_000) && !subsidised => "57",
            Some((holder, ..)) => {
                let [cash, subsidy] = self.holders[holder].0;
                let from_subsidy = match draft.processing {
                    Some(2_000) => amount,
                    Some(0) if subsidised => amount.min(subsidy),
                    _ => 0,
                };
                if from_subsidy > subsidy || amount - from_subsidy > cash {
                    "51"
                } else {
                    let paid = [amount - from_subsidy, from_subsidy];
                    let after = [cash - paid[0], subsidy - paid[1]];
                    (decision.standing, decision.after) = (Some(paid), Some(after));
                    self.holders.get_mut(holder).expect("known").0 = after;
                    self.merchants.get_mut(decision.merchant).expect("known").2 += amount;
                    "00"
                }
            }
        };
        None
    }

    fn reversal(&mut self, original: Identity, draft: &Draft, decision: &mut Decision) -> Option<&'static str> {
        let mut card = draft.card.clone();
        let mut event = None;
        match self.decisions.get_mut(&original) {
            None => {
                self.tombstones.insert(original);
                event = Some("decided.reversal_before_purchase");
            }
            Some(before) => {
                let other_card = draft.card.is_some() && before.content.card.is_some() && draft.card != before.content.card;
                let other_amount =
                    draft.amount.is_some() && before.content.amount.is_some() && draft.amount != before.content.amount;
                if other_card || other_amount {
                    decision.code = "94";
                    return Some("decided.reversal_of_another");
                }
                if let Some(paid) = before.standing.take() {
                    card = before.content.card.clone();
                    let (holder, ..) = &self.cards[card.as_ref().expect("a purchase has a card")];
                    let purses = &mut self.holders.get_mut(holder).expect("known").0;
                    *purses = [purses[0] + paid[0], purses[1] + paid[1]];
                    self.merchants.get_mut(before.merchant).expect("known").2 -= paid[0] + paid[1];
                    event = Some("decided.undone");
                }
            }
        }
        decision.after = self.purses(card.as_deref());
        event
    }

    /// Every holder's purses.
    pub fn all_purses(&self) -> impl Iterator<Item = (&str, [i64; 2])> {
        self.holders.iter().map(|(holder, (purses, _))| (holder.as_str(), *purses))
    }

    /// Every merchant's takings.
    pub fn all_takings(&self) -> impl Iterator<Item = (&'static str, i64)> {
        self.merchants.iter().map(|(id, (.., takings))| (*id, *takings))
    }

    /// Suspense and grants.
    #[must_use]
    pub fn sources(&self) -> [i64; 2] {
        self.sources
    }

    /// How many cards and terminals there are.
    #[must_use]
    pub fn sizes(&self) -> [usize; 2] {
        [self.cards.len(), self.terminals.len()]
    }
}
