//! Cash that is paid in, and bills that are paid out of it.

use super::accounts::{AccountId, House, Movements, Owner};
use super::command::{Outcome, Pin, Request};
use super::identities::{Deed, Remembered, State};
use super::purchase::{Ruling, Spending, pay};
use super::registry::Payee;
use super::{Ledger, Response};
use crate::limits::PURSE_FEN_MAX;

impl Ledger {
    pub(super) fn load(&mut self, position: u64, request: &Request, outcome: &mut Outcome) {
        let (amount, index) = match self.amount_and_active_card(request) {
            Ok(found) => found,
            Err(response) => return self.remembered(position, request, response, outcome),
        };
        let purses = self.purses_of(index);
        if self.accounts.balance(purses.cash()) + amount.cast_signed() > PURSE_FEN_MAX {
            return self.remembered(position, request, Response::AmountLimit, outcome);
        }
        outcome.movements.push(House::CashDesk.account(), purses.cash(), amount);
        if !self.accounts.can_post(&outcome.movements) {
            *outcome = Outcome::of(Response::Malfunction);
            return;
        }

        // The point of no return.
        self.accounts.post(&outcome.movements);
        self.count(request).credit(amount);
        outcome.paid = [amount, 0];
        let entry = Remembered { deed: Deed::Load, state: State::Standing, ..self.entry(position, request, Response::Approved) };
        self.settle(request, entry, index, outcome);
    }

    pub(super) fn bill_payment(&mut self, position: u64, request: &Request, payee: Payee, pin: Pin, outcome: &mut Outcome) {
        let merchant = self.registry.terminals[request.identity.terminal()].merchant;
        let category = self.registry.merchants[merchant].category;
        let (amount, index) = match self.amount_and_active_card(request) {
            Ok(found) => found,
            Err(response) => return self.remembered(position, request, response, outcome),
        };
        let terms = self.terms(index, category);
        let spending = Spending { card: index, category, amount, pin, is_purchase: false };
        let ruling = if terms.has_more { self.rule(request, &spending, terms) } else { Ruling::default() };
        let purses = self.purses_of(index);
        let short = (self.available(purses)[0] < amount.cast_signed()).then_some(Response::InsufficientFunds);
        if let Some(response) = ruling.decline.or(short) {
            self.note_pin(&ruling, &spending);
            return self.remembered(position, request, response, outcome);
        }
        let known = self.payees[payee as usize - 1];
        let posts = |account| {
            let mut movements = Movements::default();
            pay(&mut movements, purses, account, amount, [amount, 0]);
            movements
        };
        if known.is_some_and(|account| !self.accounts.can_post(&posts(account))) {
            *outcome = Outcome::of(Response::Malfunction);
            return;
        }

        // The point of no return.
        let account = known.unwrap_or_else(|| self.open_payee(payee));
        outcome.movements = posts(account);
        self.accounts.post(&outcome.movements);
        self.note_pin(&ruling, &spending);
        self.use_up(request, &spending);
        self.count(request).debit(amount);
        outcome.paid = [amount, 0];
        let entry =
            Remembered { deed: Deed::BillPayment, state: State::Standing, ..self.entry(position, request, Response::Approved) };
        let place = self.settle(request, entry, index, outcome);
        self.identities.extra_mut(place).payee = Some(payee);
    }

    /// Opens the account of a payee to whom a bill is paid for the first time.
    fn open_payee(&mut self, payee: Payee) -> AccountId {
        let account = self.accounts.open(Owner::Payee(payee));
        self.payees[payee as usize - 1] = Some(account);
        account
    }

    /// The accounts of the payees, as far as they have any.
    pub(super) fn find_payees(accounts: &super::Accounts) -> [Option<AccountId>; 4] {
        let mut payees = [None; 4];
        for account in 0..accounts.count() {
            if let Owner::Payee(payee) = accounts.owner(account) {
                payees[payee as usize - 1] = Some(account);
            }
        }
        payees
    }
}
