//! The ledger: who has how much, what was decided, and the one function that changes it.
//!
//! A deterministic state machine without I/O, clock or randomness: [`Ledger::apply`] takes a command and the moment of its
//! decision and gives the outcome; the same commands in the same order give the same state, shown by an equal
//! [`Ledger::digest`]. The live switch and every replica run this same code.
//!
//! Always true here: the sum over all accounts is zero; a decision and the memory of it are one step; the position rises
//! by one with every command; no account leaves its bounds; one holder has at most one live card. A decline is an outcome
//! like any other, not an error: what must not happen is asserted, and ends the process.

pub mod accounts;
mod act;
mod ahead;
mod batch;
pub mod batches;
mod bytes;
pub mod command;
mod hold;
pub mod holds;
pub mod hotlist;
pub mod identities;
pub mod image;
mod label;
mod ladder;
mod load;
pub mod loans;
mod pins;
mod presence;
mod purchase;
pub mod record;
mod refund;
pub mod registry;
mod remembered;
pub mod replay;
mod response;
mod reversal;
pub mod rule;
pub mod rules;
mod shelf;
mod soundness;
pub mod usage;

pub use accounts::Movements;
pub use command::{Command, Outcome, Pin, PurseChoice, Request, Told, is_advice};
pub use label::Label;
pub use response::Response;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use accounts::{AccountId, Accounts, House, Owner};
use batches::{Batches, Totals};
use bytes::{Decoder, Encoder};
use holds::Holds;
use hotlist::Hotlist;
use identities::{Content, Deed, Identities, Place, Remembered, State};
use loans::Loans;
use pins::Pins;
use presence::Presence;
use refund::Original;
use registry::{Card, CardStatus, Holder, HolderId, Merchant, NONE, Purses, Registry, Terminal, TerminalStanding};
use rules::Rules;
use usage::{Sale, Usage};

use crate::calendar::{Date, Timestamp};
use crate::card_number::CardNumber;
use crate::limits::{CLOCK_AHEAD_DAYS, HOLD_HOURS_MAX, PIN_TRIES_MAX, PURSE_FEN_MAX};
use crate::pin::PinVerification;
use crate::session::{Nonces, Session};

/// The limits that decisions depend on. They are journaled, so that a replay decides alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// The highest amount of one operation in fen.
    pub amount_max: u32,
    /// For how many business days an identity is remembered.
    pub identity_days: u16,
    /// After how many hours a hold lapses.
    pub hold_hours: u16,
    /// How many wrong PINs in a row are too many.
    pub pin_tries_max: u8,
}

impl Default for Policy {
    /// Nothing can be paid, holds lapse after a day, and the third wrong PIN is the last.
    fn default() -> Self {
        Self { amount_max: 0, identity_days: 1, hold_hours: 24, pin_tries_max: 3 }
    }
}

impl Policy {
    fn put(&self, encoder: &mut Encoder<'_>) {
        encoder.u32(self.amount_max);
        encoder.u16(self.identity_days);
        encoder.u16(self.hold_hours);
        encoder.u8(self.pin_tries_max);
    }

    fn take(decoder: &mut Decoder<'_>) -> Option<Self> {
        Some(Self {
            amount_max: decoder.u32()?,
            identity_days: decoder.u16()?,
            hold_hours: decoder.u16()?,
            pin_tries_max: decoder.u8()?,
        })
    }

    /// Whether every limit is one that can be.
    fn is_possible(&self) -> bool {
        self.identity_days > 0
            && (1..=HOLD_HOURS_MAX).contains(&self.hold_hours)
            && (1..=PIN_TRIES_MAX).contains(&self.pin_tries_max)
    }
}

/// The whole state.
pub struct Ledger {
    position: u64,
    business_date: Date,
    policy: Policy,
    /// The first day whose identities are all remembered. It never goes back: a day that was forgotten is not asked about
    /// again, even where the policy is widened later.
    remembered_from: Date,
    registry: Registry,
    accounts: Accounts,
    /// The accounts of the payees that were ever paid, by their numbers.
    payees: [Option<AccountId>; 4],
    identities: Identities,
    rules: Rules,
    usage: Usage,
    holds: Holds,
    batches: Batches,
    hotlist: Hotlist,
    pins: Pins,
    presence: Presence,
    loans: Loans,
    /// Advices and reversals that came dated outside the window, with the business date on which each was written down: each is so once.
    late: BTreeMap<Late, Date>,
}

/// An advice by its day, the rest of its identity, and its content: nobody sees to it that a terminal with a wrong date counts its
/// STANs on, and of two different advices neither may be lost.
type Late = (Date, u64, [u64; 2]);

fn late(identity: identities::Identity, content: Content) -> Late {
    (identity.date, identity.packed(), content.packed())
}

/// What every outcome keeps, whatever was decided: the money that moved is the money that it tells of, a decline moves none,
/// and what it refers to was decided before.
#[inline]
fn assert_balanced(command: &Command<'_>, position: u64, outcome: &Outcome) {
    let moved = outcome.movements.total();
    let is_plain = matches!(command, Command::Purchase { .. } | Command::Load(_) | Command::Completion { .. });
    if is_plain && outcome.response == Response::Approved {
        assert!(moved >= outcome.paid[0] + outcome.paid[1], "what was paid has moved");
    }
    assert!(moved == 0 || outcome.response == Response::Approved, "a decline moves nothing");
    assert!(outcome.original.is_none_or(|original| original < position), "an original was decided before");
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

impl Ledger {
    /// The state before the first record.
    #[must_use]
    pub fn new() -> Self {
        Self {
            position: 0,
            business_date: Date(0),
            policy: Policy::default(),
            remembered_from: Date(0),
            registry: Registry::new(),
            accounts: Accounts::new(),
            payees: [None; 4],
            identities: Identities::default(),
            rules: Rules::default(),
            usage: Usage::default(),
            holds: Holds::default(),
            batches: Batches::default(),
            hotlist: Hotlist::default(),
            pins: Pins::default(),
            presence: Presence::default(),
            loans: Loans::default(),
            late: BTreeMap::new(),
        }
    }

    /// The position of the last command applied; 0: none.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The day on whose books decisions are made.
    #[must_use]
    pub fn business_date(&self) -> Date {
        self.business_date
    }

    /// The limits in force.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Who takes part.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The accounts.
    #[must_use]
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// For tests that do harm to them.
    #[cfg(test)]
    pub(crate) fn accounts_mut(&mut self) -> &mut Accounts {
        &mut self.accounts
    }

    /// What is remembered.
    #[must_use]
    pub fn identities(&self) -> &Identities {
        &self.identities
    }

    /// The days of DE13 that a request may carry: those whose identities are kept, and a clock a little ahead.
    #[must_use]
    pub fn window(&self) -> RangeInclusive<Date> {
        self.remembered_from..=Date(self.business_date.0.saturating_add(CLOCK_AHEAD_DAYS))
    }

    /// Forgets the days that have left the window.
    fn forget(&mut self) {
        let oldest = Date(self.business_date.0.saturating_sub(self.policy.identity_days.max(1) - 1));
        self.remembered_from = self.remembered_from.max(oldest);
        self.identities.forget_before(self.remembered_from);
        self.batches.forget_before(self.remembered_from);
        // One that was dated ahead is known for as long as its day could still come.
        let first = self.remembered_from;
        self.late.retain(|(date, ..), noted| *noted >= oldest || *date >= first);
    }

    /// The business date moves on: what is counted by the day begins anew.
    fn cut_over(&mut self, date: Date) {
        assert!(date > self.business_date, "the business date only moves on");
        self.business_date = date;
        self.forget();
        self.usage.cut_over(&self.rules, date);
        self.presence.cut_over(date);
    }

    /// The rules in force.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The list of cards that are not to be taken.
    #[must_use]
    pub fn hotlist(&self) -> &Hotlist {
        &self.hotlist
    }

    /// The open holds.
    #[must_use]
    pub fn holds(&self) -> &Holds {
        &self.holds
    }

    /// Bytes held for rules, holds, batches, the hotlist, PINs, doors and loans.
    #[must_use]
    pub fn lists_memory(&self) -> usize {
        self.rules.memory()
            + self.usage.memory()
            + self.holds.memory()
            + self.batches.memory()
            + self.hotlist.memory()
            + self.pins.memory()
            + self.presence.memory()
            + self.loans.memory()
            + self.late.len() * 2 * size_of::<(Late, Date)>()
    }

    /// What is on loan.
    #[must_use]
    pub fn loans(&self) -> &Loans {
        &self.loans
    }

    /// The batches that are not open, as far as they are kept.
    #[must_use]
    pub fn batches(&self) -> &Batches {
        &self.batches
    }

    /// Why the card with this index may not be used today, if so.
    #[must_use]
    pub fn card_decline(&self, card: u32) -> Option<Response> {
        ladder::card_decline(&self.registry.cards[card], self.business_date)
    }

    /// What tells whether a PIN is this card's; `None` where the card has none.
    #[must_use]
    pub fn pin_verification(&self, number: &CardNumber) -> Option<PinVerification> {
        self.pins.verification(self.registry.cards.find(number)?)
    }

    /// Wrong PINs in a row that were tried with this card.
    #[must_use]
    pub fn pin_tries(&self, number: &CardNumber) -> u8 {
        self.registry.cards.find(number).map_or(0, |card| self.pins.tries(card))
    }

    /// What is held of an account, in fen: of a cash purse alone anything can be.
    #[must_use]
    pub fn held_of(&self, account: AccountId) -> i64 {
        match self.accounts.owner(account) {
            Owner::Cash(holder) => self.holds.held(holder).cast_signed(),
            _ => 0,
        }
    }

    /// Whether this advice or reversal was written down already when it came dated outside the window.
    #[must_use]
    pub fn is_late_known(&self, identity: identities::Identity, content: Content) -> bool {
        self.late.contains_key(&late(identity, content))
    }

    /// What can be spent from a cash and a subsidy purse, in fen: what is held is not in it.
    #[must_use]
    #[inline]
    pub fn available(&self, purses: Purses) -> [i64; 2] {
        let (cash, has_holds) = self.accounts.balance_and_holds(purses.cash());
        [if has_holds { cash - self.held(purses) } else { cash }, self.accounts.balance(purses.subsidy())]
    }

    /// What is held of a cash purse, in fen.
    #[must_use]
    #[cold]
    pub fn held(&self, purses: Purses) -> i64 {
        match self.accounts.owner(purses.cash()) {
            Owner::Cash(holder) => self.holds.held(holder).cast_signed(),
            _ => unreachable!("a purse has a holder"),
        }
    }

    /// What counted rules look at: who spends, where and when.
    fn sale_of(&self, card: u32, category: registry::Category, date: Date, time: u32, is_purchase: bool) -> Sale {
        let card = &self.registry.cards[card];
        Sale { holder: card.holder, class: card.class, category, date, time, is_purchase }
    }

    /// Counts what was spent, where a rule counts it.
    #[inline]
    fn use_up(&mut self, request: &Request, spending: &purchase::Spending) {
        if !self.rules.list().is_empty() {
            let (date, time) = (request.identity.date, request.echo.time());
            let sale = self.sale_of(spending.card, spending.category, date, time, spending.is_purchase);
            self.usage.add(&self.rules, &sale, spending.amount, self.business_date);
        }
    }

    /// What counted rules look at of a decision that was counted on this business date, and the position at which it was; `None` where
    /// it was not. A completion is counted by its hold.
    fn counted_today(&self, original: &Original) -> Option<(Sale, u64)> {
        if self.rules.list().is_empty() {
            return None;
        }
        let decided = &original.decided;
        let (counted_on, position) = match decided.deed {
            Deed::Completion => {
                let hold = self.identities.get(self.identities.at(original.extra.original)?);
                (hold.business_date, hold.position())
            }
            _ => (decided.business_date, decided.position()),
        };
        if counted_on != self.business_date {
            return None;
        }
        let category = self.registry.merchants[decided.merchant()].category;
        let is_purchase = matches!(decided.deed, Deed::Purchase | Deed::OfflineSale);
        Some((self.sale_of(original.card, category, original.place.date(), decided.echo.time(), is_purchase), position))
    }

    /// Gives back what was counted for a decision of this business date: an amount, and with the `whole` of it the count.
    fn give_use_back(&mut self, original: &Original, amount: u64, whole: bool) {
        if let Some((sale, position)) = self.counted_today(original) {
            self.usage.give_back(&self.rules, &sale, position, amount, whole);
        }
    }

    /// Counts an amount of a decision of this business date again that was given back.
    fn use_again(&mut self, original: &Original, amount: u64) {
        if let Some((sale, position)) = self.counted_today(original) {
            self.usage.take_again(&self.rules, &sale, position, amount);
        }
    }

    /// The decision on an identity that is remembered; a tombstone is none, for its message has not come yet.
    #[must_use]
    pub fn recall(&self, identity: identities::Identity) -> Option<(Place, Remembered)> {
        let place = self.identities.find(identity)?;
        let remembered = self.identities.get(place);
        (remembered.state != State::Tombstone).then_some((place, remembered))
    }

    /// Applies one command at the next position. An outcome whose response is not remembered
    /// ([`Response::is_remembered`]) has changed nothing and took no position.
    ///
    /// # Panics
    /// Where the command could not have been made by this switch: callers check files and messages before.
    pub fn apply(&mut self, timestamp: Timestamp, command: &Command<'_>) -> Outcome {
        let mut outcome = Outcome::of(Response::Approved);
        self.apply_into(timestamp, command, &mut outcome);
        outcome
    }

    /// [`Self::apply`] into an outcome that says [`Response::Approved`] and nothing more. It is filled in place: to copy what was
    /// just written piece by piece, the processor would wait until all that was written before has reached its cache.
    fn apply_into(&mut self, timestamp: Timestamp, command: &Command<'_>, outcome: &mut Outcome) {
        let position = self.position + 1;
        match command {
            Command::Policy(policy) => {
                assert!(policy.is_possible(), "limits are checked before they are set");
                self.policy = *policy;
                self.forget();
            }
            Command::Cutover(date) => self.cut_over(*date),
            Command::Standing { id, standing } => {
                let terminal = self.registry.terminals.find(id).expect("a suspended terminal is known");
                self.registry.terminals.row_mut(terminal).standing = *standing;
            }
            Command::Rules(rules) => {
                self.usage.follow(&self.rules, rules, position);
                self.presence.follow(|zone| rules.anti_passback(zone).is_some());
                self.rules = (**rules).clone();
            }
            Command::Pin { number, verification } => {
                let card = self.registry.cards.find(number).expect("a PIN is a known card's");
                self.pins.set(card, *verification);
            }
            Command::Lapse { hold } => self.lapse(*hold, outcome),
            Command::Imported { .. } => {}
            Command::Merchant { .. } | Command::Terminal { .. } | Command::Card { .. } => self.enter(command, outcome),
            Command::SignOn { request, terminal_nonce, switch_nonce } => {
                let place = self.remember(position, request, Response::Approved);
                self.identities.keep_nonce(place, position, *switch_nonce);
                self.terminal(request).session.sign_on(Nonces { terminal: *terminal_nonce, switch: *switch_nonce });
                outcome.place = Some(place);
            }
            Command::SignOff(request) => {
                self.terminal(request).session.sign_off();
                self.remembered(position, request, Response::Approved, outcome);
            }
            Command::Purchase { request, purse, pin } => self.purchase(position, request, *purse, *pin, outcome),
            _ => self.apply_rare(timestamp, position, command, outcome),
        }
        if outcome.response.is_remembered() {
            self.position = position;
            assert_balanced(command, position, outcome);
            if let Some(request) = command.request() {
                self.note_activity(timestamp, request);
            }
        }
    }

    /// The terminals' other requests.
    fn apply_rare(&mut self, timestamp: Timestamp, position: u64, command: &Command<'_>, outcome: &mut Outcome) {
        match command {
            Command::OfflineSale { request, purse } => self.offline_sale(position, request, *purse, outcome),
            Command::Hold { request, pin } => self.hold(timestamp, position, request, *pin, outcome),
            Command::Completion { request, original } => self.completion(position, request, *original, outcome),
            Command::Void { request, original } => self.void(position, request, *original, outcome),
            Command::Refund { request, original } => self.refund(position, request, *original, outcome),
            Command::Load(request) => self.load(position, request, outcome),
            Command::BillPayment { request, payee, pin, .. } => self.bill_payment(position, request, *payee, *pin, outcome),
            Command::Identity { request, act, item, is_advice } => {
                self.identity_act(position, request, *act, item, *is_advice, outcome);
            }
            Command::CardReport { request, is_found } => self.card_report(position, request, *is_found, outcome),
            Command::BatchClose { request, totals } => self.batch_close(position, request, totals, outcome),
            Command::Event { request, kind, .. } => self.event(position, request, *kind, outcome),
            Command::Late { request, .. } => {
                self.late.insert(late(request.identity, request.content), self.business_date);
                outcome.response = Response::InvalidTransaction;
            }
            Command::Reversal { request, original } => self.reversal(position, request, *original, outcome),
            Command::Unknown(request) => self.remembered(position, request, Response::InvalidTransaction, outcome),
            _ => unreachable!("the others are applied already"),
        }
    }

    fn note_activity(&mut self, timestamp: Timestamp, request: &Request) {
        let terminal = self.terminal(request);
        terminal.last_activity = timestamp;
        terminal.session.proved(request.slot);
        if let Some(card) = request.content.card().and_then(|number| self.registry.cards.find(&number)) {
            self.registry.cards.row_mut(card).last_activity = u32::try_from(timestamp / 1_000_000).unwrap_or(u32::MAX);
        }
    }

    fn terminal(&mut self, request: &Request) -> &mut Terminal {
        self.registry.terminals.row_mut(request.identity.terminal())
    }

    /// Puts a decision into memory. A tombstone under the same identity gives way to it.
    fn remember(&mut self, position: u64, request: &Request, response: Response) -> Place {
        let entry = self.entry(position, request, response);
        self.identities.remember(request.identity.date, &entry)
    }

    /// What is remembered of a decision that moves nothing.
    fn entry(&self, position: u64, request: &Request, response: Response) -> Remembered {
        let merchant = self.registry.terminals[request.identity.terminal()].merchant;
        Remembered::new(request.identity, request.content, request.echo, position, merchant, self.business_date, response)
    }

    /// A decision that is remembered and does nothing else.
    fn remembered(&mut self, position: u64, request: &Request, response: Response, outcome: &mut Outcome) {
        outcome.response = response;
        outcome.place = Some(self.remember(position, request, response));
    }

    fn enter(&mut self, command: &Command<'_>, outcome: &mut Outcome) {
        match *command {
            Command::Merchant { id, name, category, fee_bp } => match self.registry.merchants.find(&id) {
                Some(index) => {
                    let merchant = self.registry.merchants.row_mut(index);
                    (merchant.name, merchant.category, merchant.fee_bp) = (name.into(), category, fee_bp);
                }
                None => {
                    let account = self.accounts.open(Owner::Merchant(self.registry.merchants.rows().len() as u32));
                    self.registry.merchants.add(Merchant { id, name: name.into(), category, fee_bp, account });
                }
            },
            Command::Terminal { id, merchant, kind, zone, wrapped_key } => {
                assert!((merchant as usize) < self.registry.merchants.rows().len(), "a terminal's merchant is known");
                match self.registry.terminals.find(&id) {
                    Some(index) => {
                        let terminal = self.registry.terminals.row_mut(index);
                        if terminal.wrapped_key != wrapped_key {
                            (terminal.wrapped_key, terminal.session) = (wrapped_key, Session::default());
                        }
                        (terminal.merchant, terminal.kind, terminal.zone) = (merchant, kind, zone);
                    }
                    None => {
                        let session = Session::default();
                        let (last_activity, batch, totals) = (0, 1, Totals::default());
                        let standing = TerminalStanding::Active;
                        let terminal =
                            Terminal { id, merchant, kind, standing, zone, wrapped_key, session, last_activity, batch, totals };
                        self.registry.terminals.add(terminal);
                    }
                }
            }
            Command::Card { number, holder, class, status, expires, opening } => {
                let holder = self.registry.holders.find(&holder).unwrap_or_else(|| {
                    let index = self.open_holder(holder, opening);
                    let holder = &self.registry.holders[index];
                    outcome.movements.push(House::Suspense.account(), holder.purses.cash(), opening[0].unsigned_abs());
                    outcome.movements.push(House::Grants.account(), holder.purses.subsidy(), opening[1].unsigned_abs());
                    self.accounts.post(&outcome.movements);
                    index
                });
                let index = match self.registry.cards.find(&number) {
                    Some(index) => {
                        let card = self.registry.cards.row_mut(index);
                        assert_eq!(card.holder, holder, "a card stays its holder's");
                        (card.class, card.expires) = (class, expires);
                        index
                    }
                    None => {
                        let purses = self.registry.holders[holder].purses;
                        let status = CardStatus::Inactive;
                        self.registry.cards.add(Card { number, holder, purses, class, status, expires, last_activity: 0 })
                    }
                };
                self.set_status(index, status);
            }
            _ => unreachable!("only parties are entered"),
        }
    }

    fn open_holder(&mut self, id: HolderId, opening: [i64; 2]) -> u32 {
        assert!(opening.iter().all(|fen| (0..=PURSE_FEN_MAX).contains(fen)), "opening balances are checked before they are posted");
        let index = self.registry.holders.rows().len() as u32;
        let account = self.accounts.open(Owner::Cash(index));
        self.accounts.open(Owner::Subsidy(index));
        self.registry.holders.add(Holder { id, purses: Purses(account), live_card: NONE, opening })
    }

    /// The owner of an account as its kind and its number or name, as reports and PostgreSQL show it.
    #[must_use]
    pub fn owner_names(&self, owner: Owner) -> (&'static str, &str) {
        let name = match owner {
            Owner::House(house) => house.name(),
            Owner::Cash(holder) | Owner::Subsidy(holder) => self.registry.holders[holder].id.as_str(),
            Owner::Merchant(merchant) => self.registry.merchants[merchant].id.as_str(),
            Owner::Payee(payee) => payee.name(),
        };
        (owner.kind(), name)
    }
}
