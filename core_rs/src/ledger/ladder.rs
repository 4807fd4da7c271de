//! The first steps of the ladder, which operations that move money with a card have in common: 12, 13, 14, then the card's status.

use super::command::Request;
use super::registry::{Card, CardStatus};
use super::{Ledger, Response};
use crate::calendar::Date;

/// Why this card may not be used on this day, if so.
pub(super) fn card_decline(card: &Card, today: Date) -> Option<Response> {
    match card.status {
        CardStatus::Lost => Some(Response::CardLost),
        CardStatus::Frozen | CardStatus::Blacklisted => Some(Response::CardFrozen),
        CardStatus::Inactive | CardStatus::Cancelled => Some(Response::CardInactive),
        CardStatus::Active if card.expires < today => Some(Response::CardExpired),
        CardStatus::Active => None,
    }
}

impl Ledger {
    /// Whether a message was reversed before it came: asked where nothing was decided under its identity, which a tombstone has then.
    #[inline]
    pub(super) fn was_reversed_before(&self, request: &Request) -> bool {
        self.identities.find(request.identity).is_some()
    }

    /// The amount in fen that a message moves and the index of the card that it names; or why not: 12 where it was reversed before it came,
    /// 13, 14.
    ///
    /// # Panics
    /// Where the message has no amount or no card, which its form was to be refused for.
    #[inline]
    pub(super) fn amount_and_card(&self, request: &Request) -> Result<(u64, u32), Response> {
        let amount = request.content.amount().expect("what moves money has an amount");
        let number = request.content.card().expect("what moves money has a card");
        if self.was_reversed_before(request) {
            return Err(Response::InvalidTransaction);
        }
        if amount == 0 || amount > u64::from(self.policy.amount_max) {
            return Err(Response::InvalidAmount);
        }
        self.registry.cards.find(&number).map(|index| (amount, index)).ok_or(Response::NoSuchCard)
    }

    /// [`Self::amount_and_card`] where the card may be used; else also 41, 62, 78, 54.
    #[inline]
    pub(super) fn amount_and_active_card(&self, request: &Request) -> Result<(u64, u32), Response> {
        let (amount, index) = self.amount_and_card(request)?;
        card_decline(&self.registry.cards[index], self.business_date).map_or(Ok((amount, index)), Err)
    }
}
