//! What the switch should do, written down a second time and naively: maps, strings and plain functions, from the terminal
//! protocol alone. It shares no code with the ledger, the sessions or the calendar.
//!
//! [`Model::handle`] says what the answer to a message must be and changes the model as the switch should change. Whatever
//! took a position is kept as history, so that after a crash the model can be brought to the position that was recovered.
//!
//! | room | what it holds |
//! |---|---|
//! | [`calendar`] | days and dates |
//! | [`request`] | what a message asks for, needs, and who may ask it |
//! | [`cards`] | files, statuses, PINs, loss and found, the hotlist |
//! | [`money`] | purchases, offline sales, loads, bills, voids, refunds, reversals |
//! | [`metered`] | holds, completions, lapses |
//! | [`people`] | doors, loans, attendance |
//! | [`batches`] | what terminals' batches add up to |
//! | `sessions` | keys, and which merchant a terminal names |
//! | [`policy`] | the campus's rules and what was used of them |

pub mod batches;
pub mod calendar;
pub mod cards;
pub mod metered;
pub mod money;
pub mod people;
pub mod policy;
pub mod request;
mod sessions;

use std::collections::{BTreeMap, BTreeSet};

use crate::message::{Draft, Key, Totals};
use batches::Batch;
use calendar::{Day, NO_DAY, campus_day, nearest};
use cards::{Card, File, Hotlist};
use metered::OpenHold;
use money::{Deed, House, Kind};
use policy::Rules;
use request::{Identity, Operation, class};
use sessions::Terminal;

/// The most days by which a running switch follows its clock, and a start.
pub const FOLLOWED_DAYS: [Day; 2] = [3, 100];

/// The limits of the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The highest amount of one operation, in fen.
    pub amount_max: u32,
    /// Days for which identities are kept.
    pub identity_days: i64,
    /// Hours after which a hold lapses.
    pub hold_hours: u16,
    /// Wrong PINs in a row.
    pub pin_tries_max: u8,
}

#[derive(Clone)]
struct Merchant {
    category: &'static str,
    fee: u16,
    takings: i64,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Content {
    card: Option<String>,
    processing: Option<u32>,
    amount: Option<u64>,
    currency: bool,
}

/// What was decided under an identity.
#[derive(Clone, Debug)]
struct Decision {
    content: Content,
    position: u64,
    code: &'static str,
    /// The business date.
    day: Day,
    merchant: &'static str,
    /// DE12.
    time: u32,
    /// DE54.
    purses: Option<[i64; 2]>,
    /// DE48.
    private: Option<String>,
    /// DE74 to 77, 86 to 89.
    totals: Option<Totals>,
    /// What it did that can be undone or asked about later.
    deed: Option<Deed>,
}

/// A request that is being decided.
struct Asked<'a> {
    draft: &'a Draft,
    identity: Identity,
    position: u64,
    merchant: &'static str,
    now: u64,
}

/// What a decision does beside moving money.
struct Effect {
    code: &'static str,
    deed: Option<Deed>,
    private: Option<String>,
    totals: Option<Totals>,
    /// What the answer would have been if the switch had been asked before.
    flag: Option<&'static str>,
}

impl Default for Effect {
    fn default() -> Self {
        Self { code: "00", deed: None, private: None, totals: None, flag: None }
    }
}

/// What was done, or why not.
type Ruling = Result<Effect, &'static str>;

/// What took positions, in order.
#[derive(Clone)]
enum Event {
    Limits(Limits),
    Cutover(Day),
    Lapse(u64),
    File(File),
    Request(Box<(Draft, Key, [u8; 8], u64)>),
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
    /// Whether it was decided just now.
    pub is_new: bool,
    /// DE54.
    pub purses: Option<[i64; 2]>,
    /// DE48.
    pub private: Option<String>,
    /// DE74 to 77, 86 to 89.
    pub totals: Option<Totals>,
    /// The position of the state that it rests on.
    pub rests_on: u64,
    /// What happened, for the coverage.
    pub events: Vec<&'static str>,
}

/// The model.
#[derive(Clone)]
pub struct Model {
    /// Records so far.
    pub position: u64,
    /// The business date.
    pub day: Day,
    /// The limits.
    pub limits: Limits,
    /// The first day of the window.
    pub remembered_from: Day,
    merchants: BTreeMap<&'static str, Merchant>,
    terminals: BTreeMap<[u8; 8], Terminal>,
    cards: BTreeMap<String, Card>,
    /// Cash and subsidy; what it was opened with.
    holders: BTreeMap<String, ([i64; 2], [i64; 2])>,
    house: House,
    decisions: BTreeMap<Identity, Decision>,
    /// By transaction number.
    numbers: BTreeMap<u64, Identity>,
    tombstones: BTreeSet<Identity>,
    /// Advices and reversals dated outside the window that were written down, with the business date of it.
    late: BTreeMap<(Identity, Content), Day>,
    holds: BTreeMap<u64, OpenHold>,
    rules: Rules,
    hotlist: Hotlist,
    /// Who has an item.
    loans: BTreeMap<String, String>,
    /// By holder and zone: DE3 of the last passage, and its minute.
    passages: BTreeMap<(String, &'static str), (u32, i64)>,
    batches: BTreeMap<([u8; 8], u32), Batch>,
    /// How what happened offline would have been answered, by position.
    flags: BTreeMap<u64, &'static str>,
    history: Vec<(u64, Event)>,
    events: Vec<&'static str>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            position: 0,
            day: NO_DAY,
            limits: Limits { amount_max: 0, identity_days: 1, hold_hours: 24, pin_tries_max: 3 },
            remembered_from: NO_DAY,
            merchants: BTreeMap::new(),
            terminals: BTreeMap::new(),
            cards: BTreeMap::new(),
            holders: BTreeMap::new(),
            house: House::default(),
            decisions: BTreeMap::new(),
            numbers: BTreeMap::new(),
            tombstones: BTreeSet::new(),
            late: BTreeMap::new(),
            holds: BTreeMap::new(),
            rules: Rules::default(),
            hotlist: Hotlist::default(),
            loans: BTreeMap::new(),
            passages: BTreeMap::new(),
            batches: BTreeMap::new(),
            flags: BTreeMap::new(),
            history: Vec::new(),
            events: Vec::new(),
        }
    }
}

impl Model {
    fn keep(&mut self, event: Event) {
        self.history.push((self.position, event));
    }

    fn forget(&mut self) {
        self.remembered_from = self.remembered_from.max(self.day - (self.limits.identity_days - 1)).max(NO_DAY);
        let from = self.remembered_from;
        self.decisions.retain(|identity, _| identity.2 >= from);
        self.numbers.retain(|_, identity| identity.2 >= from);
        self.tombstones.retain(|identity| identity.2 >= from);
        self.late.retain(|(identity, _), written| *written >= from || identity.2 >= from);
        let open: BTreeSet<_> = self.terminals.iter().map(|(id, terminal)| (*id, terminal.batch)).collect();
        self.batches.retain(|batch, totals| totals.touched >= from || open.contains(batch));
    }

    /// The limits change.
    pub fn set_limits(&mut self, limits: Limits) {
        self.position += 1;
        self.limits = limits;
        self.forget();
        self.keep(Event::Limits(limits));
    }

    /// The business date moves on.
    pub fn cutover(&mut self, day: Day) {
        self.position += 1;
        self.day = day;
        self.forget();
        self.rules.cut_over(day);
        self.forget_passages();
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
                Event::Limits(limits) => self.set_limits(limits),
                Event::Cutover(day) => self.cutover(day),
                Event::Lapse(hold) => self.lapse(hold),
                Event::File(file) => drop(self.import(&file)),
                Event::Request(request) => {
                    let (draft, key, nonce, now) = *request;
                    self.handle(now, &draft, key, true, nonce);
                }
            }
            assert_eq!(self.position, last, "the model does the same twice");
        }
        for terminal in self.terminals.values_mut() {
            terminal.takes_previous = true;
        }
        self.hotlist.forget_readings();
        self.position == position
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
            is_new: false,
            purses: None,
            private: None,
            totals: None,
            rests_on: self.position,
            events: Vec::new(),
        }
    }

    /// The identity of a reversal's original. `None`: it names none.
    fn named_original(&self, draft: &Draft) -> Option<Identity> {
        match draft.original {
            None => self.identity(draft).map(|(_, terminal, day, stan)| (2, terminal, day, stan)),
            Some(named) if class(named.mti) == 2 => {
                nearest(named.month_day, self.day).map(|day| (2, draft.terminal, day, named.stan))
            }
            Some(_) => None,
        }
    }

    /// Handles a message: `room`, whether the journal takes a record now; `nonce`, the switch's next one.
    pub fn handle(&mut self, now: u64, draft: &Draft, key: Key, room: bool, nonce: [u8; 8]) -> Expected {
        let operation = Operation::of(draft);
        if !self.terminals.contains_key(&draft.terminal) {
            return self.plain("58", false, false);
        }
        let Some(is_current) = self.prove(draft, key, operation) else { return self.plain("63", false, false) };
        let proved = key != Key::None;
        let lacks = operation.lacks(draft, self.hotlist.version());
        let reversed = if operation == Operation::Reversal { self.named_original(draft) } else { None };
        let is_whole = !lacks && (operation != Operation::Reversal || reversed.is_some());
        let Some(identity) = self.identity(draft).filter(|_| is_whole) else {
            return self.plain("30", false, proved);
        };
        let about = reversed.unwrap_or(identity);
        if !self.terminal_may(draft, operation, about) {
            return self.plain("58", false, proved);
        }
        if operation == Operation::Echo {
            return self.plain("00", false, proved);
        }
        let window = self.remembered_from..=self.day + 1;
        let request = || Event::Request(Box::new((draft.clone(), key, nonce, now)));
        let content =
            Content { card: draft.card.clone(), processing: draft.processing, amount: draft.amount, currency: draft.currency };
        if !window.contains(&identity.2) {
            return self.refuse_late((operation, draft.mti), (identity, content), is_current, request, room);
        }
        if operation.is_kept_when_late(draft.mti) && self.late.contains_key(&(identity, content.clone())) {
            // It was given to a person before its day came.
            return self.plain("12", true, true);
        }
        if let Some(answer) = self.inquiry(operation, draft) {
            return answer;
        }
        if let Some(decided) = self.decisions.get(&identity) {
            let code = if operation == Operation::Unknown { "12" } else { "94" };
            return if decided.content == content {
                let events = vec!["decided.again"];
                Expected { events, ..self.answer(identity) }
            } else {
                self.plain(code, true, true)
            };
        }
        if !window.contains(&about.2) {
            return self.refuse_late((operation, draft.mti), (identity, content), is_current, request, room);
        }
        if !room {
            return self.plain("91", false, true);
        }
        self.position += 1;
        let merchant = self.terminals[&draft.terminal].merchant;
        let asked = Asked { draft, identity, position: self.position, merchant, now };
        let ruling = self.decide(operation, &asked, about, nonce);
        self.remember(operation, &asked, content, ruling);
        self.follow_session(draft.terminal, is_current);
        self.tombstones.remove(&identity);
        self.keep(request());
        let events = std::mem::take(&mut self.events);
        Expected { events, is_new: true, ..self.answer(identity) }
    }

    /// The answer to what is dated outside the window, or names what is: an advice or a reversal is written down, once.
    fn refuse_late(
        &mut self,
        (operation, mti): (Operation, u16),
        message: (Identity, Content),
        is_current: bool,
        request: impl Fn() -> Event,
        room: bool,
    ) -> Expected {
        if !operation.is_kept_when_late(mti) || self.late.contains_key(&message) {
            return self.plain("12", true, true);
        }
        if !room {
            return self.plain("91", false, true);
        }
        self.position += 1;
        self.follow_session(message.0.1, is_current);
        self.late.insert(message, self.day);
        self.keep(request());
        let late = if operation == Operation::Reversal { "decided.late_reversal" } else { "decided.late_advice" };
        Expected { events: vec![late], ..self.plain("12", true, true) }
    }

    /// The answer to what changes nothing, if it is that.
    fn inquiry(&mut self, operation: Operation, draft: &Draft) -> Option<Expected> {
        let card = draft.card.as_deref().unwrap_or_default();
        match operation {
            Operation::Balance => {
                let purses = self.available_of(card);
                Some(Expected { purses, ..self.plain(if purses.is_some() { "00" } else { "14" }, true, true) })
            }
            Operation::Verify => {
                let class = self.cards.get(card).map(|card| card.class);
                let private = class.map(|class| format!("20{:02}{class}", class.len()));
                let code = self.good_card(card).err().unwrap_or("00");
                Some(Expected { private, ..self.plain(code, true, true) })
            }
            Operation::Hotlist => {
                let held = draft.tag(50).and_then(|text| text.parse().ok()).expect("asked for");
                let (private, event) = self.hotlist.read(draft.terminal, held, draft.tag(51));
                Some(Expected { private: Some(private), events: event.into_iter().collect(), ..self.plain("00", true, true) })
            }
            _ => None,
        }
    }

    fn decide(&mut self, operation: Operation, asked: &Asked<'_>, about: Identity, nonce: [u8; 8]) -> Ruling {
        if asked.identity.0 == 2 && self.tombstones.contains(&asked.identity) {
            self.events.push("decided.tombstone_hit");
            return Err("12");
        }
        match operation {
            Operation::Purchase => self.purchase(asked),
            Operation::OfflineSale => self.offline_sale(asked),
            Operation::Void => self.void(asked),
            Operation::Refund => self.refund(asked),
            Operation::Load => self.load(asked),
            Operation::Bill => self.bill(asked),
            Operation::Hold => self.hold(asked),
            Operation::Completion => self.completion(asked),
            Operation::Reversal => self.reversal(asked, about),
            Operation::Enter | Operation::Leave => self.pass(asked),
            Operation::Borrow | Operation::Return => self.lend(asked, asked.draft.processing.expect("asked for")),
            Operation::Attendance => self.good_card(asked.draft.card.as_deref().expect("asked for")).map(|_| Effect::default()),
            Operation::Advice(event) => self.identity_advice(asked, event),
            Operation::Loss => self.loss(asked),
            Operation::Found => self.found(asked),
            Operation::BatchClose => Ok(self.close_batch(asked)),
            Operation::Event => {
                let command = if ["01", "03"].contains(&asked.draft.tag(40).expect("asked for")) { "4304TRIP" } else { "4304NONE" };
                Ok(Effect { private: Some(command.to_owned()), ..Effect::default() })
            }
            Operation::SignOn => Ok(self.sign_on(asked, nonce)),
            Operation::SignOff => Ok(self.sign_off(asked)),
            Operation::Balance | Operation::Verify | Operation::Hotlist | Operation::Update | Operation::Echo => {
                unreachable!("answered before")
            }
            Operation::Unknown => Err("12"),
        }
    }

    fn remember(&mut self, operation: Operation, asked: &Asked<'_>, content: Content, ruling: Ruling) {
        let Effect { code, deed, private, totals, flag } = ruling.unwrap_or_else(|code| Effect { code, ..Effect::default() });
        let is_told = code == "00" && operation.is_about_purses();
        let purses = content.card.as_deref().filter(|_| is_told).and_then(|card| self.available_of(card));
        if let Some(flag) = flag {
            self.flags.insert(asked.position, flag);
        }
        let decision = Decision {
            content,
            position: asked.position,
            code,
            day: self.day,
            merchant: asked.merchant,
            time: asked.draft.time,
            purses,
            private,
            totals,
            deed,
        };
        self.decisions.insert(asked.identity, decision);
        self.numbers.insert(asked.position, asked.identity);
    }

    fn answer(&self, identity: Identity) -> Expected {
        let decided = &self.decisions[&identity];
        Expected {
            day: decided.day,
            position: Some(decided.position),
            purses: decided.purses,
            private: decided.private.clone(),
            totals: decided.totals,
            ..self.plain(decided.code, true, true)
        }
    }

    /// What the rules see of something that they have counted on this business date, and the record with which they did. A completion is
    /// counted by its hold.
    fn counted_today(&self, identity: &Identity) -> Option<(policy::Spending, u64)> {
        let decided = self.decisions.get(identity)?;
        let deed = decided.deed.as_ref()?;
        let counted = match deed.kind {
            Kind::Completion => self.decisions.get(self.numbers.get(&deed.about)?)?,
            _ => decided,
        };
        let card = self.cards.get(&deed.card)?;
        let spending = policy::Spending {
            holder: card.holder.clone(),
            class: card.class,
            category: self.merchants[decided.merchant].category,
            day: identity.2,
            time: decided.time,
            is_purchase: matches!(deed.kind, Kind::Purchase | Kind::OfflineSale),
        };
        (counted.day == self.day).then_some((spending, counted.position))
    }

    /// Gives back what the rules have counted of something that was done on this business date.
    fn give_use_back(&mut self, identity: &Identity, amount: i64, whole: bool) {
        if let Some((spending, position)) = self.counted_today(identity) {
            self.rules.give_back(&spending, position, amount, whole);
        }
    }

    /// Counts again what was given back.
    fn use_again(&mut self, identity: &Identity, amount: i64) {
        if let Some((spending, position)) = self.counted_today(identity) {
            self.rules.use_again(&spending, position, amount);
        }
    }

    // --- what it holds ---

    /// Every holder's cash and subsidy, and what is held of the cash.
    pub fn all_purses(&self) -> impl Iterator<Item = (&str, [i64; 3])> {
        self.holders.iter().map(|(holder, (purses, _))| (holder.as_str(), [purses[0], purses[1], self.held_of(holder)]))
    }

    /// Every merchant's takings.
    pub fn all_takings(&self) -> impl Iterator<Item = (&'static str, i64)> {
        self.merchants.iter().map(|(id, merchant)| (*id, merchant.takings))
    }

    /// The campus's own accounts.
    #[must_use]
    pub fn house(&self) -> &House {
        &self.house
    }

    /// How many cards, terminals, open holds and loans there are.
    #[must_use]
    pub fn sizes(&self) -> [usize; 4] {
        [self.cards.len(), self.terminals.len(), self.holds.len(), self.loans.len()]
    }

    /// How what happened offline would have been answered, by position.
    #[must_use]
    pub fn flags(&self) -> &BTreeMap<u64, &'static str> {
        &self.flags
    }
}
