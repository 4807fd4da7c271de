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
mod ahead;
mod bytes;
pub mod command;
pub mod identities;
pub mod image;
mod label;
mod purchase;
pub mod registry;
mod remembered;
pub mod replay;
mod response;
mod reversal;
#[allow(dead_code)]
pub mod rule;
#[allow(dead_code)]
pub mod rules;
mod shelf;
#[allow(dead_code)]
pub mod usage;

pub use accounts::Movements;
pub use command::{Command, Outcome, PurseChoice, Request};
pub use label::Label;
pub use response::Response;

use std::ops::RangeInclusive;

use accounts::{Accounts, House, Owner};
use identities::{Identities, Place, Remembered, State};
use registry::{Card, Holder, HolderId, Merchant, NONE, Purses, Registry, Terminal};

use crate::calendar::{Date, Timestamp};
use crate::limits::{CLOCK_AHEAD_DAYS, PURSE_FEN_MAX};
use crate::session::{Nonces, Session};

/// The limits that decisions depend on. They are journaled, so that a replay decides alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// The highest amount of one operation in fen.
    pub amount_max: u32,
    /// For how many business days an identity is remembered.
    pub identity_days: u16,
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
    identities: Identities,
}

/// What every outcome keeps, whatever was decided: the money that moved is the money that it tells of, a decline moves none,
/// and what it refers to was decided before.
#[inline]
fn assert_balanced(command: &Command<'_>, position: u64, outcome: &Outcome) {
    let moved = outcome.movements.total();
    if command.request().is_some() {
        assert_eq!(moved, outcome.paid[0] + outcome.paid[1], "what moved is what was paid");
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
            policy: Policy { amount_max: 0, identity_days: 1 },
            remembered_from: Date(0),
            registry: Registry::new(),
            accounts: Accounts::new(),
            identities: Identities::default(),
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
    }

    /// What can be spent from a cash and a subsidy purse, in fen.
    #[must_use]
    pub fn available(&self, purses: Purses) -> [i64; 2] {
        [self.accounts.balance(purses.cash()), self.accounts.balance(purses.subsidy())]
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
                assert!(policy.identity_days > 0, "identities are kept for a day at least");
                self.policy = *policy;
                self.forget();
            }
            Command::Cutover(date) => {
                assert!(*date > self.business_date, "the business date only moves on");
                self.business_date = *date;
                self.forget();
            }
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
            Command::Purchase { request, purse } => self.purchase(position, request, *purse, outcome),
            Command::Reversal { request, original } => self.reversal(position, request, *original, outcome),
            Command::Unknown(request) => self.remembered(position, request, Response::InvalidTransaction, outcome),
        }
        if outcome.response.is_remembered() {
            self.position = position;
            assert_balanced(command, position, outcome);
            if let Some(request) = command.request() {
                self.note_activity(timestamp, request);
            }
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
                        self.registry.terminals.add(Terminal { id, merchant, kind, zone, wrapped_key, session, last_activity: 0 });
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
                        (card.class, card.status, card.expires) = (class, status, expires);
                        index
                    }
                    None => {
                        let purses = self.registry.holders[holder].purses;
                        self.registry.cards.add(Card { number, holder, purses, class, status, expires, last_activity: 0 })
                    }
                };
                let live = &mut self.registry.holders.row_mut(holder).live_card;
                if status.is_live() {
                    assert!(*live == NONE || *live == index, "one person, one live card");
                    *live = index;
                } else if *live == index {
                    *live = NONE;
                }
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
        };
        (owner.kind(), name)
    }
}
