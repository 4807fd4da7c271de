//! Whether a state that was read could be one that the ledger was in, as far as it would be asserted later.
//!
//! Whatever stands can be undone, given back or completed, so it has an amount, a card with purses, and what its deed leaves
//! behind: a hold is open, a bill has a payee, a refund was noted by its sale. The hotlist says what the cards' statuses say.
//! Only the cards of plain purchases are not looked for: they are millions, and a start would take half as long again.

use std::collections::BTreeMap;

use super::Ledger;
use super::batches::Totals;
use super::identities::{Deed, Place, Remembered, State};
use super::response::Response;

/// The highest amount that can have been moved or held by one decision, in fen: DE4 as the highest ceiling lets it pass.
const AMOUNT_MAX: u64 = u32::MAX as u64;

/// The highest total of a batch that a message has digits for, in fen: DE86 to 89.
const TOTAL_MAX: u64 = 9_999_999_999_999_999;

impl Ledger {
    /// Whether what stands could stand.
    pub(super) fn is_sound(&self) -> bool {
        let mut holds = 0;
        let mut refunds = BTreeMap::<u64, [u64; 3]>::new();
        for (place, decided) in self.identities.standing() {
            if !self.could_stand(place, &decided) {
                return false;
            }
            match decided.deed {
                Deed::Hold => holds += 1,
                Deed::Refund => self.add_refund(&mut refunds, place),
                _ => {}
            }
        }
        if !refunds.into_iter().all(|(sale, given)| self.has_given(sale, given)) {
            return false;
        }
        let is_past = |position: u64| (1..=self.position).contains(&position);
        let mut positions = self.holds.rows().map(|(position, _)| position).chain(self.loans.rows().map(|(_, loan)| loan.position));
        if !positions.all(is_past) || !self.are_batches_sound() {
            return false;
        }
        let remembered_holds = self.holds.rows().filter(|&(position, _)| self.identities.at(position).is_some()).count();
        holds == remembered_holds && self.is_hotlist_sound()
    }

    /// Whether batches count no more than was decided, and no more than there are digits for.
    fn are_batches_sound(&self) -> bool {
        let is_possible = |totals: Totals| {
            totals.rows().iter().all(|total| {
                total.number <= self.position && total.amount <= total.number.saturating_mul(AMOUNT_MAX).min(TOTAL_MAX)
            })
        };
        let open = self.registry.terminals.rows().iter().map(|terminal| terminal.totals);
        open.chain(self.batches.rows().map(|(_, (totals, _))| totals)).all(is_possible)
    }

    /// Adds to what a sale's refunds gave: of DE4, to the cash purse, to the subsidy purse.
    fn add_refund(&self, refunds: &mut BTreeMap<u64, [u64; 3]>, place: Place) {
        if let Some(refund) = self.original_at(place) {
            let [cash, subsidy] = refund.purses();
            let given = refunds.entry(refund.extra.original).or_default();
            given.iter_mut().zip([refund.amount(), cash, subsidy]).for_each(|(sum, fen)| *sum += fen);
        }
    }

    /// Whether a sale, where it is remembered, stands and knows of what these refunds of it gave; of others, whose day is forgotten, it
    /// may know as well.
    fn has_given(&self, sale: u64, given: [u64; 3]) -> bool {
        self.identities.at(sale).is_none_or(|place| {
            let sale = self.identities.get(place);
            let is_sale = sale.deed.is_sale() && sale.state == State::Standing && self.original_at(place).is_some();
            let known = self.identities.extra(place).map(|extra| [extra.refunded, extra.given_back[0], extra.given_back[1]]);
            is_sale && known.is_some_and(|known| known.iter().zip(given).all(|(known, given)| *known >= given))
        })
    }

    fn could_stand(&self, place: Place, decided: &Remembered) -> bool {
        let Some(amount) = decided.content.amount().filter(|amount| *amount <= AMOUNT_MAX) else { return false };
        if decided.response != Response::Approved {
            return false;
        }
        if decided.deed == Deed::Purchase && !decided.has_extra {
            return u64::from(decided.subsidy) <= amount;
        }
        let Some(standing) = self.original_at(place) else { return false };
        let extra = &standing.extra;
        let paid = extra.paid.unwrap_or(amount);
        if paid > 2 * AMOUNT_MAX
            || u64::from(decided.subsidy) > paid
            || extra.refunded > amount
            || extra.original >= decided.position()
        {
            return false;
        }
        let is_left = standing.purses().iter().zip(extra.given_back).all(|(paid, given)| given <= *paid);
        let stands = match decided.deed {
            Deed::Purchase | Deed::OfflineSale | Deed::Completion | Deed::Refund => true,
            Deed::Load => paid == amount,
            Deed::Hold => self.holds.get(decided.position()).is_some_and(|hold| {
                let holder = self.registry.cards[standing.card].holder;
                (hold.amount, hold.card, hold.holder) == (paid, standing.card, holder) && decided.subsidy == 0
            }),
            Deed::BillPayment => extra.payee.is_some_and(|payee| self.payees[payee as usize - 1].is_some()),
            Deed::Nothing | Deed::Void | Deed::Trip | Deed::Report => false,
        };
        stands && is_left
    }

    fn is_hotlist_sound(&self) -> bool {
        let mut listed = self.registry.cards.rows().iter().filter(|card| card.status.is_listed());
        listed.clone().count() == self.hotlist.count() && listed.all(|card| self.hotlist.lists(card.number))
    }
}
