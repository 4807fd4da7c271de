//! Sales: a card's purses pay a merchant, asked before or told afterwards.
//!
//! Always true here: the merchant gets DE4, whatever the holder pays: a surcharge goes to the campus's fees, a discount comes
//! from its grants. An offline sale has happened already, so it is posted whatever is wrong with the card; how it would have
//! been answered is kept as its flag.

use super::accounts::{AccountId, House, Movements};
use super::command::{Outcome, Pin, PurseChoice, Request};
use super::identities::{Deed, Remembered, State};
use super::ladder::card_decline;
use super::registry::{Category, Purses};
use super::rules::Terms;
use super::usage::Exceeded;
use super::{Ledger, Response};

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

/// How the purses share an amount that is spent already: the subsidy purse as far as it goes where it is named, and the cash
/// purse the rest, be it a debt.
fn split_offline(amount: i64, subsidy: i64, purse: PurseChoice, takes_subsidy: bool) -> [i64; 2] {
    let from_subsidy = if purse != PurseChoice::Cash && takes_subsidy { amount.min(subsidy.max(0)) } else { 0 };
    [amount - from_subsidy, from_subsidy]
}

/// Adds the movements by which purses pay `amount` fen to `receiver`: `[cash, subsidy]` leave them, what is more goes to the fees,
/// and what is missing comes from the grants.
#[inline]
pub(super) fn pay(movements: &mut Movements, purses: Purses, receiver: AccountId, amount: u64, [cash, subsidy]: [u64; 2]) {
    let subsidy_pays = subsidy.min(amount);
    let cash_pays = cash.min(amount - subsidy_pays);
    movements.push(purses.cash(), receiver, cash_pays);
    movements.push(purses.subsidy(), receiver, subsidy_pays);
    if cash + subsidy != amount {
        movements.push(purses.cash(), House::Fees.account(), cash - cash_pays);
        movements.push(purses.subsidy(), House::Fees.account(), subsidy - subsidy_pays);
        movements.push(House::Grants.account(), receiver, amount - cash_pays - subsidy_pays);
    }
}

/// What [`pay`] did, back: `giver` gives `amount` fen, and `[cash, subsidy]` reach the purses.
pub(super) fn give_back(movements: &mut Movements, purses: Purses, giver: AccountId, amount: u64, [cash, subsidy]: [u64; 2]) {
    let subsidy_gets = subsidy.min(amount);
    let cash_gets = cash.min(amount - subsidy_gets);
    movements.push(giver, purses.cash(), cash_gets);
    movements.push(giver, purses.subsidy(), subsidy_gets);
    movements.push(House::Fees.account(), purses.cash(), cash - cash_gets);
    movements.push(House::Fees.account(), purses.subsidy(), subsidy - subsidy_gets);
    movements.push(giver, House::Grants.account(), amount - cash_gets - subsidy_gets);
}

/// A card about to spend at a merchant's terminal.
pub(super) struct Spending {
    /// Its card's index.
    pub(super) card: u32,
    /// Its merchant's category.
    pub(super) category: Category,
    /// DE4.
    pub(super) amount: u64,
    /// Its PIN.
    pub(super) pin: Pin,
    /// Whether it is a purchase, which counts for meals.
    pub(super) is_purchase: bool,
}

/// What rules said: why not, if so, and whether they asked for the PIN.
#[derive(Default)]
pub(super) struct Ruling {
    pub(super) decline: Option<Response>,
    pub(super) asks_pin: bool,
}

impl Ledger {
    /// The terms on which this card spends at this category.
    #[inline]
    pub(super) fn terms(&self, card: u32, category: Category) -> Terms {
        *self.rules.terms(self.registry.cards[card].class, category)
    }

    /// What the rules say of it, where there are more than those of the subsidy: 57, 75, 55, 61, 65.
    #[cold]
    pub(super) fn rule(&self, request: &Request, spending: &Spending, terms: Terms) -> Ruling {
        let &Spending { card: index, category, amount, pin, is_purchase } = spending;
        let card = &self.registry.cards[index];
        let (date, time) = (request.identity.date, request.echo.time());
        let mut ruling = Ruling::default();
        if self.rules.refuses(card.class, category, date, time) {
            ruling.decline = Some(Response::NotPermitted);
            return ruling;
        }
        if amount > u64::from(terms.pin_above) {
            if self.pins.tries(index) >= self.policy.pin_tries_max {
                ruling.decline = Some(Response::PinTriesUsedUp);
                return ruling;
            }
            ruling.asks_pin = true;
            if pin != Pin::Right {
                ruling.decline = Some(Response::PinWrong);
                return ruling;
            }
        }
        ruling.decline = if amount > u64::from(terms.transaction_max) {
            Some(Response::AmountLimit)
        } else {
            let sale = self.sale_of(index, category, date, time, is_purchase);
            self.usage.would_exceed(&self.rules, &sale, amount).map(|exceeded| match exceeded {
                Exceeded::Amount => Response::AmountLimit,
                Exceeded::Count => Response::CountLimit,
            })
        };
        ruling
    }

    /// What a PIN that was asked for leaves behind.
    pub(super) fn note_pin(&mut self, ruling: &Ruling, spending: &Spending) {
        if ruling.asks_pin {
            self.pins.note(spending.card, spending.pin);
        }
    }

    pub(super) fn purchase(&mut self, position: u64, request: &Request, purse: PurseChoice, pin: Pin, outcome: &mut Outcome) {
        let merchant = &self.registry.merchants[self.registry.terminals[request.identity.terminal()].merchant];
        let (category, receiver) = (merchant.category, merchant.account);
        let (amount, index) = match self.amount_and_active_card(request) {
            Ok(found) => found,
            Err(response) => return self.remembered(position, request, response, outcome),
        };
        let purses = self.purses_of(index);
        let terms = self.terms(index, category);
        if purse == PurseChoice::Subsidy && !terms.takes_subsidy {
            return self.remembered(position, request, Response::NotPermitted, outcome);
        }
        let spending = Spending { card: index, category, amount, pin, is_purchase: true };
        let ruling = if terms.has_more { self.rule(request, &spending, terms) } else { Ruling::default() };
        if let Some(response) = ruling.decline {
            self.note_pin(&ruling, &spending);
            return self.remembered(position, request, response, outcome);
        }
        let total = terms.price(amount);
        let available = self.available(purses);
        let Some(paid) = split(total.cast_signed(), available, purse, terms.takes_subsidy) else {
            self.note_pin(&ruling, &spending);
            return self.remembered(position, request, Response::InsufficientFunds, outcome);
        };
        let paid = paid.map(i64::unsigned_abs);
        pay(&mut outcome.movements, purses, receiver, amount, paid);
        if paid[1] > u64::from(u32::MAX) || !self.accounts.can_post(&outcome.movements) {
            *outcome = Outcome::of(Response::Malfunction);
            return;
        }

        // The point of no return: everything has been checked, and from here on everything is done.
        if terms.has_more {
            self.note_pin(&ruling, &spending);
        }
        self.sold(position, request, Deed::Purchase, &spending, (available, paid), outcome);
    }

    pub(super) fn offline_sale(&mut self, position: u64, request: &Request, purse: PurseChoice, outcome: &mut Outcome) {
        let merchant = &self.registry.merchants[self.registry.terminals[request.identity.terminal()].merchant];
        let (category, receiver) = (merchant.category, merchant.account);
        let (amount, index) = match self.amount_and_card(request) {
            Ok(found) => found,
            Err(response) => return self.remembered(position, request, response, outcome),
        };
        let card = &self.registry.cards[index];
        let purses = card.purses;
        let terms = self.terms(index, category);
        let spending = Spending { card: index, category, amount, pin: Pin::Absent, is_purchase: true };
        let total = terms.price(amount).cast_signed();
        let available = self.available(purses);
        let refused = (purse == PurseChoice::Subsidy && !terms.takes_subsidy).then_some(Response::NotPermitted);
        let flag = card_decline(card, self.business_date)
            .or(refused)
            .or_else(|| self.rule(request, &spending, terms).decline)
            .or_else(|| split(total, available, purse, terms.takes_subsidy).is_none().then_some(Response::InsufficientFunds));
        let paid = split_offline(total, available[1], purse, terms.takes_subsidy).map(i64::unsigned_abs);
        pay(&mut outcome.movements, purses, receiver, amount, paid);
        if paid[1] > u64::from(u32::MAX) || !self.accounts.can_post(&outcome.movements) {
            *outcome = Outcome::of(Response::Malfunction);
            return;
        }

        // The point of no return: what was sold is posted.
        outcome.flag = flag;
        self.sold(position, request, Deed::OfflineSale, &spending, (available, paid), outcome);
    }

    /// Posts the movements of a sale, of which what was available and what is paid are known, and remembers it.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "it is the end of the hottest path")]
    fn sold(
        &mut self,
        position: u64,
        request: &Request,
        deed: Deed,
        spending: &Spending,
        (available, paid): ([i64; 2], [u64; 2]),
        outcome: &mut Outcome,
    ) {
        self.accounts.post(&outcome.movements);
        let after = [available[0] - paid[0].cast_signed(), available[1] - paid[1].cast_signed()];
        let entry = Remembered {
            cash_after: after[0],
            subsidy_after: after[1],
            subsidy: u32::try_from(paid[1]).expect("what is paid is below twice the ceiling of an amount"),
            deed,
            state: State::Standing,
            ..self.entry(position, request, Response::Approved)
        };
        outcome.paid = paid;
        outcome.after = Some(after);
        let place = self.identities.remember(request.identity.date, &entry);
        outcome.place = Some(place);
        self.count(request).debit(spending.amount);
        let total = paid[0] + paid[1];
        if total != spending.amount {
            self.identities.extra_mut(place).paid = Some(total);
        }
        self.use_up(request, spending);
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

    #[test]
    fn what_is_paid_comes_back_the_same_way() {
        let (purses, merchant) = (Purses(10), 20);
        for (amount, paid) in [(850, [350, 500]), (850, [400, 500]), (850, [0, 900]), (850, [200, 100]), (850, [0, 0]), (0, [0, 0])]
        {
            let (mut there, mut back) = (Movements::default(), Movements::default());
            pay(&mut there, purses, merchant, amount, paid);
            give_back(&mut back, purses, merchant, amount, paid);
            let mut balances = std::collections::BTreeMap::<u32, i64>::new();
            for movement in there.as_slice() {
                *balances.entry(movement.debit).or_default() -= movement.amount.cast_signed();
                *balances.entry(movement.credit).or_default() += movement.amount.cast_signed();
            }
            let of = |account: u32| balances.get(&account).copied().unwrap_or(0).unsigned_abs();
            assert_eq!([of(10), of(11), of(20)], [paid[0], paid[1], amount]);
            for movement in back.as_slice() {
                *balances.entry(movement.debit).or_default() -= movement.amount.cast_signed();
                *balances.entry(movement.credit).or_default() += movement.amount.cast_signed();
            }
            assert!(balances.values().all(|&fen| fen == 0), "{amount} {paid:?}");
        }
    }

    #[test]
    fn what_was_sold_offline_is_paid_by_what_there_is_and_a_debt() {
        for (purse, takes, paid) in [
            (PurseChoice::Policy, true, [350, 500]),
            (PurseChoice::Policy, false, [850, 0]),
            (PurseChoice::Cash, true, [850, 0]),
            (PurseChoice::Subsidy, true, [350, 500]),
            (PurseChoice::Subsidy, false, [850, 0]),
        ] {
            assert_eq!(split_offline(850, 500, purse, takes), paid, "{purse:?}");
        }
    }
}
