//! The purchase: a card's purses pay a merchant.

use super::identities::{Remembered, State};
use super::registry::{Card, CardStatus};
use super::{Ledger, Outcome, PurseChoice, Request, Response};
use crate::calendar::Date;

/// Why this card may not be used for paying on this day, if so.
pub(super) fn card_decline(card: &Card, today: Date) -> Option<Response> {
    match card.status {
        CardStatus::Lost => Some(Response::CardLost),
        CardStatus::Frozen => Some(Response::CardFrozen),
        CardStatus::Inactive | CardStatus::Cancelled => Some(Response::CardInactive),
        CardStatus::Active if card.expires < today => Some(Response::CardExpired),
        CardStatus::Active => None,
    }
}

/// How the purses, with `[cash, subsidy]` available, share `amount`; `None` where they do not cover it. A debt blocks both.
fn split(amount: i64, [cash, subsidy]: [i64; 2], purse: PurseChoice, takes_subsidy: bool) -> Option<[i64; 2]> {
    if cash < 0 {
        return None;
    }
    let from_subsidy = match purse {
        PurseChoice::Subsidy => amount,
        PurseChoice::Policy if takes_subsidy => amount.min(subsidy.max(0)),
        PurseChoice::Policy | PurseChoice::Cash => 0,
    };
    let from_cash = amount - from_subsidy;
    (from_subsidy <= subsidy.max(0) && from_cash <= cash).then_some([from_cash, from_subsidy])
}

impl Ledger {
    pub(super) fn purchase(&mut self, position: u64, request: &Request, purse: PurseChoice, outcome: &mut Outcome) {
        let merchant_index = self.registry.terminals[request.identity.terminal()].merchant;
        let merchant = &self.registry.merchants[merchant_index];
        let amount = request.content.amount().expect("a purchase has an amount");
        let number = request.content.card().expect("a purchase has a card");

        let reversed_before = self.identities.find(request.identity).is_some();
        if reversed_before {
            return self.remembered(position, request, Response::InvalidTransaction, outcome);
        }
        if amount == 0 || amount > u64::from(self.policy.amount_max) {
            return self.remembered(position, request, Response::InvalidAmount, outcome);
        }
        let Some(card) = self.registry.cards.find(&number) else {
            return self.remembered(position, request, Response::NoSuchCard, outcome);
        };
        let card = &self.registry.cards[card];
        if let Some(response) = card_decline(card, self.business_date) {
            return self.remembered(position, request, response, outcome);
        }
        if purse == PurseChoice::Subsidy && !merchant.category.takes_subsidy() {
            return self.remembered(position, request, Response::NotPermitted, outcome);
        }
        let purses = card.purses;
        let available = self.available(purses);
        let Some(paid) = split(amount.cast_signed(), available, purse, merchant.category.takes_subsidy()) else {
            return self.remembered(position, request, Response::InsufficientFunds, outcome);
        };
        outcome.movements.push(purses.cash(), merchant.account, paid[0].unsigned_abs());
        outcome.movements.push(purses.subsidy(), merchant.account, paid[1].unsigned_abs());
        if !self.accounts.can_post(&outcome.movements) {
            *outcome = Outcome::of(Response::Malfunction);
            return;
        }

        // The point of no return: everything has been checked, and from here on everything is done.
        self.accounts.post(&outcome.movements);
        let after = [available[0] - paid[0], available[1] - paid[1]];
        let entry = Remembered {
            cash_after: after[0],
            subsidy_after: after[1],
            subsidy: u32::try_from(paid[1]).expect("an amount is below its ceiling"),
            state: State::Purchased,
            ..self.entry(position, request, Response::Approved)
        };
        outcome.paid = paid.map(i64::unsigned_abs);
        outcome.after = Some(after);
        outcome.place = Some(self.identities.remember(request.identity.date, &entry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purses_share_an_amount_as_the_terminal_asks() {
        // amount | cash, subsidy | purse | merchant takes subsidy | cash and subsidy pay
        const TABLE: &str = "
             850 |  1000,   500 | policy  | yes |  350, 500
             850 |  1000,   900 | policy  | yes |    0, 850
             850 |  1000,   500 | policy  | no  |  850, 0
             850 |   340,   500 | policy  | yes |  -
             850 |   350,   500 | policy  | yes |  350, 500
             850 |   840,   500 | policy  | no  |  -
             850 |  1000,   900 | cash    | yes |  850, 0
             850 |   849,   900 | cash    | yes |  -
             850 |     0,   850 | subsidy | yes |    0, 850
             850 |  1000,   849 | subsidy | yes |  -
             850 |    -1, 10000 | policy  | yes |  -
             850 |    -1, 10000 | subsidy | yes |  -
               1 |     0,     0 | policy  | yes |  -
        ";
        let pair = |text: &str| -> [i64; 2] {
            let numbers: Vec<i64> = text.split(',').map(|number| number.trim().parse().unwrap()).collect();
            [numbers[0], numbers[1]]
        };
        for row in TABLE.lines().map(str::trim).filter(|row| !row.is_empty()) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let purse = match cells[2] {
                "policy" => PurseChoice::Policy,
                "cash" => PurseChoice::Cash,
                _ => PurseChoice::Subsidy,
            };
            let expected = (cells[4] != "-").then(|| pair(cells[4]));
            assert_eq!(split(cells[0].parse().unwrap(), pair(cells[1]), purse, cells[3] == "yes"), expected, "{row}");
        }
    }
}
