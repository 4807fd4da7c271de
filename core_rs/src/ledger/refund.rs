//! Giving back what was sold: the refund of a part, the void of a sale of the day, and what a reversal shares with them.
//!
//! Always true here: never more is given back than was paid; the purse that was debited last, cash, is given back to first; of
//! a surcharge or a discount the same part comes back as of the amount, so that at the end all of it has.

use super::command::{Outcome, Request};
use super::identities::{Deed, Extra, Place, Remembered, State};
use super::purchase::{give_back, pay};
use super::registry::Purses;
use super::{Ledger, Response};

/// A sale, a hold or a bill that something refers to, with what only few of them have besides.
pub(super) struct Original {
    pub(super) place: Place,
    pub(super) decided: Remembered,
    pub(super) extra: Extra,
    /// The index of the card whose purses it touched.
    pub(super) card: u32,
}

impl Original {
    /// What the purses paid, or got, in all.
    fn paid(&self) -> u64 {
        self.extra.paid.unwrap_or_else(|| self.amount())
    }

    /// DE4.
    pub(super) fn amount(&self) -> u64 {
        self.decided.content.amount().expect("what moves money has an amount")
    }

    /// Of DE4, what refunds have left.
    pub(super) fn left(&self) -> u64 {
        self.amount() - self.extra.refunded
    }

    /// What the purses get when `amount` more fen of DE4 are given back: the same part of what they paid as all of it is of DE4, cash
    /// first. What they have got before counts as it was, because a refund that was taken back may have been any of several; but it is
    /// never less than `amount` with a surcharge and never more with a discount, or the grants would be given a surcharge, and the
    /// fees pay for a discount.
    pub(super) fn share(&self, amount: u64) -> [u64; 2] {
        if self.amount() == 0 {
            return [0, 0];
        }
        let due = u128::from(self.paid()) * u128::from(self.extra.refunded + amount) / u128::from(self.amount());
        let due = u64::try_from(due).expect("a part of what was paid");
        let [cash_before, subsidy_before] = self.extra.given_back;
        let before = cash_before + subsidy_before;
        let given = due.saturating_sub(before);
        let given = if self.paid() < self.amount() { given.min(amount) } else { given.max(amount).min(self.paid() - before) };
        let cash = given.min(self.purses()[0] - cash_before);
        [cash, given - cash]
    }

    /// What the purses paid or got, each.
    pub(super) fn purses(&self) -> [u64; 2] {
        [self.paid() - u64::from(self.decided.subsidy), u64::from(self.decided.subsidy)]
    }
}

impl Ledger {
    /// Whether the request names a card that is not known.
    pub(super) fn names_nobody(&self, request: &Request) -> bool {
        request.content.card().is_some_and(|number| self.registry.cards.find(&number).is_none())
    }

    /// The decision with this transaction number, if it was approved, did one of these deeds, and concerns the merchant of the
    /// request's terminal and the request's card.
    pub(super) fn original(&self, request: &Request, position: u64, is_meant: impl Fn(Deed) -> bool) -> Option<Original> {
        let place = self.identities.at(position)?;
        let decided = self.identities.get(place);
        let merchant = self.registry.terminals[request.identity.terminal()].merchant;
        let original = Some(place).filter(|_| is_meant(decided.deed) && decided.merchant() == merchant)?;
        let original = self.original_at(original)?;
        let own = self.registry.cards[original.card].number;
        request.content.card().is_none_or(|named| named == own).then_some(original)
    }

    /// The decision at this place with the card that it touched; `None` where it touched none.
    pub(super) fn original_at(&self, place: Place) -> Option<Original> {
        let card = self.card_of(place)?;
        let decided = self.identities.get(place);
        let extra = self.identities.extra(place).filter(|_| decided.has_extra).cloned().unwrap_or_default();
        Some(Original { place, decided, extra, card })
    }

    /// The index of the card that the decision at this place was about, whether its message named it or what it refers to did.
    #[must_use]
    pub fn card_of(&self, place: Place) -> Option<u32> {
        let decided = self.identities.get(place);
        let touched = self.identities.extra(place).filter(|_| decided.has_extra).and_then(|extra| extra.card);
        touched.or_else(|| self.registry.cards.find(&decided.content.card()?))
    }

    pub(super) fn purses_of(&self, card: u32) -> Purses {
        self.registry.cards[card].purses
    }

    pub(super) fn void(&mut self, position: u64, request: &Request, original: u64, outcome: &mut Outcome) {
        if self.was_reversed_before(request) {
            return self.remembered(position, request, Response::InvalidTransaction, outcome);
        }
        let is_meant = |deed| matches!(deed, Deed::Purchase | Deed::OfflineSale);
        if self.names_nobody(request) {
            return self.remembered(position, request, Response::NoSuchCard, outcome);
        }
        let Some(sale) = self.original(request, original, is_meant) else {
            return self.remembered(position, request, Response::OriginalNotFound, outcome);
        };
        let of_today = sale.decided.business_date == self.business_date;
        if sale.decided.state != State::Standing || !of_today || sale.extra.refunded > 0 {
            return self.remembered(position, request, Response::InvalidTransaction, outcome);
        }
        if !self.undo_sale(&sale, outcome) {
            *outcome = Outcome::of(Response::Malfunction);
            return;
        }
        self.count(request).debit_reversal(sale.amount());
        let entry = Remembered { deed: Deed::Void, ..self.entry(position, request, Response::Approved) };
        self.settle(request, entry, sale.card, outcome);
    }

    pub(super) fn refund(&mut self, position: u64, request: &Request, original: u64, outcome: &mut Outcome) {
        let amount = request.content.amount().expect("a refund has an amount");
        if self.was_reversed_before(request) {
            return self.remembered(position, request, Response::InvalidTransaction, outcome);
        }
        if amount == 0 || amount > u64::from(self.policy.amount_max) {
            return self.remembered(position, request, Response::InvalidAmount, outcome);
        }
        if self.names_nobody(request) {
            return self.remembered(position, request, Response::NoSuchCard, outcome);
        }
        let Some(sale) = self.original(request, original, Deed::is_sale) else {
            return self.remembered(position, request, Response::OriginalNotFound, outcome);
        };
        if sale.decided.state != State::Standing {
            return self.remembered(position, request, Response::InvalidTransaction, outcome);
        }
        if amount > sale.left() {
            return self.remembered(position, request, Response::AmountLimit, outcome);
        }
        let share = sale.share(amount);
        let giver = self.registry.merchants[sale.decided.merchant()].account;
        give_back(&mut outcome.movements, self.purses_of(sale.card), giver, amount, share);
        if !self.accounts.can_post(&outcome.movements) {
            *outcome = Outcome::of(Response::Malfunction);
            return;
        }

        // The point of no return: the part is given back, and the sale knows of it.
        self.accounts.post(&outcome.movements);
        let of_sale = self.identities.extra_mut(sale.place);
        of_sale.refunded += amount;
        of_sale.given_back = [of_sale.given_back[0] + share[0], of_sale.given_back[1] + share[1]];
        self.give_use_back(&sale, amount, false);
        self.count(request).credit(amount);
        outcome.paid = share;
        outcome.original = Some(original);
        let entry = Remembered {
            deed: Deed::Refund,
            state: State::Standing,
            subsidy: share[1] as u32,
            ..self.entry(position, request, Response::Approved)
        };
        let place = self.settle(request, entry, sale.card, outcome);
        let extra = self.identities.extra_mut(place);
        (extra.original, extra.card) = (original, Some(sale.card));
        extra.paid = Some(share[0] + share[1]).filter(|paid| *paid != amount);
    }

    /// Gives back what is left of a sale, and takes note that it is undone, and so are its refunds: all of it is back. `false`, and
    /// nothing has changed, where an account would pass its bound.
    pub(super) fn undo_sale(&mut self, sale: &Original, outcome: &mut Outcome) -> bool {
        let left = sale.left();
        let share = sale.share(left);
        let giver = self.registry.merchants[sale.decided.merchant()].account;
        give_back(&mut outcome.movements, self.purses_of(sale.card), giver, left, share);
        if !self.accounts.can_post(&outcome.movements) {
            return false;
        }

        // The point of no return.
        self.accounts.post(&outcome.movements);
        self.identities.set_state(sale.place, State::Undone);
        if sale.extra.refunded > 0 {
            self.identities.undo_refunds(sale.decided.position());
        }
        self.give_use_back(sale, left, true);
        outcome.paid = share;
        outcome.original = Some(sale.decided.position());
        true
    }

    /// Takes back what a refund gave, from the subsidy purse what is still there of what it got, and the rest from the cash purse,
    /// be it a debt; so much of the sale can be refunded again. `false`, and nothing has changed, where an account would pass its
    /// bound.
    pub(super) fn undo_refund(&mut self, refund: &Original, outcome: &mut Outcome) -> bool {
        let purses = self.purses_of(refund.card);
        let [cash, subsidy] = refund.purses();
        let there = subsidy.min(self.available(purses)[1].max(0).unsigned_abs());
        let taken = [cash + subsidy - there, there];
        let receiver = self.registry.merchants[refund.decided.merchant()].account;
        pay(&mut outcome.movements, purses, receiver, refund.amount(), taken);
        if !self.accounts.can_post(&outcome.movements) {
            return false;
        }

        // The point of no return.
        self.accounts.post(&outcome.movements);
        self.identities.set_state(refund.place, State::Undone);
        // A sale whose day is forgotten can be refunded no more.
        if let Some(sale) = self.identities.at(refund.extra.original).and_then(|place| self.original_at(place)) {
            let of_sale = self.identities.extra_mut(sale.place);
            of_sale.refunded -= refund.amount();
            of_sale.given_back = [of_sale.given_back[0] - cash, of_sale.given_back[1] - subsidy];
            self.use_again(&sale, refund.amount());
        }
        outcome.paid = taken;
        outcome.original = Some(refund.decided.position());
        true
    }

    /// Remembers an approved decision that touched the purses of `card`, with what is available afterwards.
    pub(super) fn settle(&mut self, request: &Request, entry: Remembered, card: u32, outcome: &mut Outcome) -> Place {
        let after = self.available(self.purses_of(card));
        outcome.after = Some(after);
        let place =
            self.identities.remember(request.identity.date, &Remembered { cash_after: after[0], subsidy_after: after[1], ..entry });
        outcome.place = Some(place);
        place
    }
}
