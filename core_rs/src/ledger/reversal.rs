//! The reversal: a terminal that got no answer takes back what it asked for.
//!
//! A reversal is never refused for what it finds. It undoes what stands; it changes nothing where there is nothing left to undo;
//! and where its original has not come yet, it leaves a tombstone, so that the original, should it still come, takes
//! nothing. One thing it will not do is undo something of another card or amount than it names: that is a terminal in
//! confusion (94), and giving back somebody else's money would make it worse.

use super::accounts::{House, Movements};
use super::identities::{Content, Deed, Echo, Identity, Place, Remembered, State};
use super::purchase::give_back;
use super::refund::Original;
use super::{Ledger, Outcome, Request, Response};
use crate::card_number::CardNumber;

/// DE3 of a void.
const VOID: u32 = 20_000;

/// Whether a reversal's content can be meant for this original, which is about `card`: what both of them name is equal. The amount of a void, granted or not,
/// means nothing.
fn concerns(reversal: Content, original: &Remembered, card: Option<CardNumber>) -> bool {
    fn agree<T: PartialEq + Copy>(ours: Option<T>, theirs: Option<T>) -> bool {
        ours.is_none() || theirs.is_none() || ours == theirs
    }
    let amount = original.content.processing() == Some(VOID) || agree(reversal.amount(), original.content.amount());
    agree(reversal.card(), original.content.card().or(card)) && amount
}

impl Ledger {
    pub(super) fn reversal(&mut self, position: u64, request: &Request, original: Identity, outcome: &mut Outcome) {
        let known = self.identities.find(original);
        let found = known.map(|place| (place, self.identities.get(place)));
        if let Some((place, original)) = found
            && original.state != State::Tombstone
            && !concerns(request.content, &original, self.card_of(place).map(|card| self.registry.cards[card].number))
        {
            outcome.original = Some(original.position());
            return self.remembered(position, request, Response::DuplicateDiffers, outcome);
        }

        let mut card = request.content.card().and_then(|number| self.registry.cards.find(&number));
        match found {
            None => self.bury(position, original),
            Some((place, decided)) if decided.state == State::Standing => {
                let Some(standing) = self.undo(request, place, outcome) else {
                    *outcome = Outcome::of(Response::Malfunction);
                    return;
                };
                card = Some(standing.card);
            }
            Some((_, decided)) => {
                outcome.original = (decided.state != State::Tombstone).then(|| decided.position());
            }
        }
        let mut entry = self.entry(position, request, Response::Approved);
        if let Some(card) = card {
            entry.subsidy = outcome.paid[1] as u32;
            self.settle(request, entry, card, outcome);
        } else {
            outcome.place = Some(self.identities.remember(request.identity.date, &entry));
        }
    }

    /// Leaves a tombstone under an identity that has not come.
    fn bury(&mut self, position: u64, original: Identity) {
        let nothing = Content::new(None, None, None, false);
        let echo = Echo::default();
        let decided = Remembered::new(original, nothing, echo, position, 0, self.business_date, Response::InvalidTransaction);
        self.identities.remember(original.date, &Remembered { state: State::Tombstone, ..decided });
    }

    /// Undoes what stands at this place and counts it. `None`, and nothing has changed, where an account would pass its bound, or
    /// where the card is not there: the one thing that is not looked at when a state is read.
    fn undo(&mut self, request: &Request, place: Place, outcome: &mut Outcome) -> Option<Original> {
        let standing = self.original_at(place)?;
        let (amount, left) = (standing.amount(), standing.left());
        let is_done = match standing.decided.deed {
            Deed::Purchase | Deed::OfflineSale | Deed::Completion => self.undo_sale(&standing, outcome),
            Deed::Hold => self.undo_hold(&standing, outcome),
            Deed::Load => {
                let mut movements = Movements::default();
                movements.push(self.purses_of(standing.card).cash(), House::CashDesk.account(), amount);
                self.undo_plainly(&standing, movements, outcome)
            }
            Deed::BillPayment => {
                let payee = standing.extra.payee.expect("a bill was paid to somebody");
                let payee = self.payees[payee as usize - 1].expect("a payee that was paid has an account");
                let mut movements = Movements::default();
                give_back(&mut movements, self.purses_of(standing.card), payee, amount, standing.purses());
                self.undo_plainly(&standing, movements, outcome)
            }
            Deed::Refund => self.undo_refund(&standing, outcome),
            Deed::Nothing | Deed::Void | Deed::Trip | Deed::Report => unreachable!("nothing of these stands"),
        };
        if !is_done {
            return None;
        }
        match standing.decided.deed {
            Deed::Load | Deed::Refund => self.count(request).credit_reversal(amount),
            Deed::Hold => {}
            _ => self.count(request).debit_reversal(left),
        }
        Some(standing)
    }

    /// Posts movements that undo a load or a bill.
    fn undo_plainly(&mut self, standing: &Original, movements: Movements, outcome: &mut Outcome) -> bool {
        if !self.accounts.can_post(&movements) {
            return false;
        }

        // The point of no return.
        self.accounts.post(&movements);
        self.identities.set_state(standing.place, State::Undone);
        if standing.decided.deed == Deed::BillPayment {
            self.give_use_back(standing, standing.amount(), true);
        }
        outcome.movements = movements;
        outcome.paid = standing.purses();
        outcome.original = Some(standing.decided.position());
        true
    }
}
