//! Metered use: a hold keeps a part of the cash purse back, the completion takes what the meter said, and what nobody completes
//! lapses.
//!
//! Always true here: what is held is what the open holds say; a hold is completed, undone or lapses once; a completion takes no
//! more than was held.

use super::command::{Outcome, Pin, Request};
use super::holds::Hold;
use super::identities::{Deed, Remembered, State};
use super::purchase::{Ruling, Spending, pay};
use super::refund::Original;
use super::registry::Purses;
use super::{Ledger, Response};
use crate::calendar::Timestamp;

/// Microseconds in an hour.
const HOUR_MICROSECONDS: u64 = 3_600_000_000;

impl Ledger {
    pub(super) fn hold(&mut self, timestamp: Timestamp, position: u64, request: &Request, pin: Pin, outcome: &mut Outcome) {
        let merchant_index = self.registry.terminals[request.identity.terminal()].merchant;
        let category = self.registry.merchants[merchant_index].category;
        let (amount, index) = match self.amount_and_active_card(request) {
            Ok(found) => found,
            Err(response) => return self.remembered(position, request, response, outcome),
        };
        let terms = self.terms(index, category);
        let spending = Spending { card: index, category, amount, pin, is_purchase: false };
        let ruling = if terms.has_more { self.rule(request, &spending, terms) } else { Ruling::default() };
        let purses = self.purses_of(index);
        let available = self.available(purses)[0];
        let short = (available <= 0).then_some(Response::InsufficientFunds);
        if let Some(response) = ruling.decline.or(short) {
            self.note_pin(&ruling, &spending);
            return self.remembered(position, request, response, outcome);
        }

        // The point of no return: as much as there is of what was asked for is kept back.
        let held = amount.min(available.unsigned_abs());
        self.note_pin(&ruling, &spending);
        self.use_up(request, &Spending { amount: held, ..spending });
        let holder = self.registry.cards[index].holder;
        self.holds.add(position, Hold { holder, card: index, terminal: request.identity.terminal(), amount: held, timestamp });
        self.accounts.set_has_holds(purses.cash(), true);
        outcome.paid = [held, 0];
        let entry = Remembered { deed: Deed::Hold, state: State::Standing, ..self.entry(position, request, Response::Approved) };
        let place = self.settle(request, entry, index, outcome);
        if held != amount {
            self.identities.extra_mut(place).paid = Some(held);
        }
    }

    pub(super) fn completion(&mut self, position: u64, request: &Request, original: u64, outcome: &mut Outcome) {
        let amount = request.content.amount().expect("a completion has an amount");
        if self.was_reversed_before(request) {
            return self.remembered(position, request, Response::InvalidTransaction, outcome);
        }
        if amount > u64::from(self.policy.amount_max) {
            return self.remembered(position, request, Response::InvalidAmount, outcome);
        }
        if self.names_nobody(request) {
            return self.remembered(position, request, Response::NoSuchCard, outcome);
        }
        let Some(hold) = self.original(request, original, |deed| deed == Deed::Hold) else {
            return self.remembered(position, request, Response::OriginalNotFound, outcome);
        };
        if hold.decided.state != State::Standing {
            return self.remembered(position, request, Response::InvalidTransaction, outcome);
        }
        let held = hold.purses()[0];
        if amount > held {
            return self.remembered(position, request, Response::AmountLimit, outcome);
        }
        let receiver = self.registry.merchants[hold.decided.merchant()].account;
        pay(&mut outcome.movements, self.purses_of(hold.card), receiver, amount, [amount, 0]);
        if !self.accounts.can_post(&outcome.movements) {
            *outcome = Outcome::of(Response::Malfunction);
            return;
        }

        // The point of no return: the meter is paid, and the rest is free.
        self.release(original);
        self.accounts.post(&outcome.movements);
        self.identities.set_state(hold.place, State::Undone);
        self.give_use_back(&hold, held - amount, false);
        self.count(request).debit(amount);
        outcome.paid = [amount, 0];
        outcome.original = Some(original);
        let entry =
            Remembered { deed: Deed::Completion, state: State::Standing, ..self.entry(position, request, Response::Approved) };
        let place = self.settle(request, entry, hold.card, outcome);
        let extra = self.identities.extra_mut(place);
        (extra.original, extra.card) = (original, Some(hold.card));
    }

    /// Frees what a hold holds.
    pub(super) fn undo_hold(&mut self, hold: &Original, outcome: &mut Outcome) -> bool {
        self.release(hold.decided.position());
        self.identities.set_state(hold.place, State::Undone);
        let held = hold.purses()[0];
        self.give_use_back(hold, held, true);
        outcome.paid = [held, 0];
        outcome.original = Some(hold.decided.position());
        true
    }

    /// Ends a hold and gives what it was.
    fn release(&mut self, position: u64) -> Hold {
        let hold = self.holds.remove(position).expect("a hold that stands is open");
        let purses = self.registry.holders[hold.holder].purses;
        self.accounts.set_has_holds(purses.cash(), self.holds.held(hold.holder) > 0);
        hold
    }

    /// The transaction number of a hold that has lasted as long as it may.
    #[must_use]
    pub fn lapsing(&self, now: Timestamp) -> Option<u64> {
        self.holds.due(now.checked_sub(u64::from(self.policy.hold_hours) * HOUR_MICROSECONDS)?, now)
    }

    pub(super) fn lapse(&mut self, position: u64, outcome: &mut Outcome) {
        let hold = self.release(position);
        // It may be older than what is remembered.
        if let Some(original) = self.identities.at(position).and_then(|place| self.original_at(place)) {
            self.identities.set_state(original.place, State::Undone);
            self.give_use_back(&original, hold.amount, true);
        }
        let purses: Purses = self.registry.holders[hold.holder].purses;
        outcome.paid = [hold.amount, 0];
        outcome.after = Some(self.available(purses));
        outcome.original = Some(position);
    }
}
