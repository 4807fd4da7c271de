//! The reversal: a terminal that got no answer takes back what it asked for.
//!
//! A reversal is never refused for what it finds. It undoes a purchase that stands; it changes nothing where there is
//! nothing left to undo; and where its original has not come yet, it leaves a tombstone, so that the original, should it
//! still come, takes nothing. One thing it will not do is undo a purchase of another card or amount than it names: that
//! is a terminal in confusion (94), and giving back somebody else's money would make it worse.

use super::identities::{Content, Echo, Identity, Remembered, State};
use super::{Ledger, Outcome, Request, Response};

/// Whether a reversal's content can be meant for this original: what both of them name is equal.
fn concerns(reversal: Content, original: Content) -> bool {
    fn agree<T: PartialEq + Copy>(ours: Option<T>, theirs: Option<T>) -> bool {
        ours.is_none() || theirs.is_none() || ours == theirs
    }
    agree(reversal.card(), original.card()) && agree(reversal.amount(), original.amount())
}

impl Ledger {
    pub(super) fn reversal(&mut self, position: u64, request: &Request, original: Identity, outcome: &mut Outcome) {
        let known = self.identities.find(original);
        let found = known.map(|place| (place, self.identities.get(place)));
        if let Some((_, original)) = found
            && original.state != State::Tombstone
            && !concerns(request.content, original.content)
        {
            outcome.original = Some(original.position());
            return self.remembered(position, request, Response::DuplicateDiffers, outcome);
        }

        // The point of no return: a reversal that concerns its original is done.
        let mut card = request.content.card();
        match found {
            None => {
                let nothing = Content::new(None, None, None, false);
                let echo = Echo::default();
                let decided =
                    Remembered::new(original, nothing, echo, position, 0, self.business_date, Response::InvalidTransaction);
                self.identities.remember(original.date, &Remembered { state: State::Tombstone, ..decided });
            }
            Some((place, purchase)) if purchase.state == State::Purchased => {
                self.undo(&purchase, outcome);
                self.identities.set_state(place, State::Undone);
                card = purchase.content.card();
            }
            Some((_, decided)) => {
                outcome.original = (decided.state != State::Tombstone).then(|| decided.position());
            }
        }
        let mut entry = self.entry(position, request, Response::Approved);
        if let Some(card) = card.and_then(|number| self.registry.cards.find(&number)) {
            let after = self.available(self.registry.cards[card].purses);
            outcome.after = Some(after);
            [entry.cash_after, entry.subsidy_after] = after;
            entry.subsidy = outcome.paid[1] as u32;
        }
        outcome.place = Some(self.identities.remember(request.identity.date, &entry));
    }

    /// Gives a purchase back to the purses that paid it.
    fn undo(&mut self, purchase: &Remembered, outcome: &mut Outcome) {
        let card =
            purchase.content.card().and_then(|number| self.registry.cards.find(&number)).expect("a purchase has a known card");
        let purses = self.registry.cards[card].purses;
        let amount = purchase.content.amount().expect("a purchase has an amount");
        let subsidy = u64::from(purchase.subsidy);
        let merchant = self.registry.merchants[purchase.merchant()].account;
        let movements = &mut outcome.movements;
        movements.push(merchant, purses.cash(), amount - subsidy);
        movements.push(merchant, purses.subsidy(), subsidy);
        // The money was there before: no account is carried further than it was, but by loads, which keep far below the bound.
        assert!(self.accounts.can_post(movements), "what was paid can be given back");
        self.accounts.post(movements);
        outcome.paid = [amount - subsidy, subsidy];
        outcome.original = Some(purchase.position());
    }
}
