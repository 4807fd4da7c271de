//! Whether a state that was read could be one that the ledger was in, as far as it would be asserted later.
//!
//! Whatever stands can be undone, given back or completed, so it has an amount, a card with purses, and what its deed leaves
//! behind: a hold is open, a bill has a payee, a refund was noted by its sale. The hotlist says what the cards' statuses say.
//! Only the cards of plain purchases are not looked for: they are millions, and a start would take half as long again.

use super::Ledger;
use super::identities::{Deed, Place, Remembered};
use super::response::Response;

/// The highest amount that can have been moved or held by one decision, in fen: DE4 as the highest ceiling lets it pass.
const AMOUNT_MAX: u64 = u32::MAX as u64;

impl Ledger {
    /// Whether what stands could stand.
    pub(super) fn is_sound(&self) -> bool {
        let mut holds = 0;
        for (place, decided) in self.identities.standing() {
            holds += usize::from(decided.deed == Deed::Hold);
            if !self.could_stand(place, &decided) {
                return false;
            }
        }
        let remembered_holds = self.holds.rows().filter(|&(position, _)| self.identities.at(position).is_some()).count();
        holds == remembered_holds && self.is_hotlist_sound()
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
        let is_bounded = paid <= 2 * AMOUNT_MAX && u64::from(decided.subsidy) <= paid && extra.refunded <= amount;
        let [cash, subsidy] = extra.given_back;
        let is_bounded = is_bounded && cash <= paid - u64::from(decided.subsidy) && subsidy <= u64::from(decided.subsidy);
        let stands = match decided.deed {
            Deed::Purchase | Deed::OfflineSale | Deed::Completion => true,
            Deed::Load => paid == amount,
            Deed::Hold => self.holds.get(decided.position()).is_some_and(|hold| {
                let holder = self.registry.cards[standing.card].holder;
                (hold.amount, hold.card, hold.holder) == (paid, standing.card, holder) && decided.subsidy == 0
            }),
            Deed::BillPayment => extra.payee.is_some_and(|payee| self.payees[payee as usize - 1].is_some()),
            Deed::Refund => self.identities.at(extra.original).is_none_or(|sale| {
                let is_sale = self.identities.get(sale).deed.is_sale() && self.original_at(sale).is_some();
                is_sale && self.identities.extra(sale).is_some_and(|sale| sale.refunded >= amount)
            }),
            Deed::Nothing | Deed::Void | Deed::Trip | Deed::Report => false,
        };
        stands && is_bounded
    }

    fn is_hotlist_sound(&self) -> bool {
        let mut listed = self.registry.cards.rows().iter().filter(|card| card.status.is_listed());
        listed.clone().count() == self.hotlist.count() && listed.all(|card| self.hotlist.lists(card.number))
    }
}
