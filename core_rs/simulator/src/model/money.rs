//! Money: sales online and offline, loads, bills, and how they are undone or given back.

use super::batches::Column;
use super::policy::Spending;
use super::request::Identity;
use super::{Asked, Effect, Model, Ruling};

/// The most that a load may fill a cash purse with.
const PURSE_FEN_MAX: i64 = 99_999_999_999;

/// The campus's own accounts, and those of the payees.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct House {
    /// What cards were opened with in cash.
    pub suspense: i64,
    /// What cards were opened with as subsidy, and discounts.
    pub grants: i64,
    /// Surcharges.
    pub fees: i64,
    /// What was paid in.
    pub cash_desk: i64,
    /// Of tuition, electricity, water, and others.
    pub payees: [i64; 4],
}

/// What was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Purchase,
    OfflineSale,
    Completion,
    Hold,
    Load,
    Bill,
    Refund,
    Void,
}

/// What a decision did, as far as anything later asks.
#[derive(Clone, Debug)]
pub(super) struct Deed {
    pub(super) kind: Kind,
    pub(super) card: String,
    /// DE4; of a hold, what is held.
    pub(super) amount: i64,
    /// What cash and subsidy paid, or got.
    pub(super) paid: [i64; 2],
    pub(super) stands: bool,
    pub(super) has_lapsed: bool,
    /// Of the amount, what refunds have given back.
    refunded: i64,
    /// What the purses got of it.
    back: [i64; 2],
    /// Of a refund or a completion, the transaction number of the sale or the hold; of a bill, the payee.
    pub(super) about: u64,
}

impl Deed {
    pub(super) fn new(kind: Kind, card: &str, amount: i64, paid: [i64; 2]) -> Self {
        Self { kind, card: card.to_owned(), amount, paid, stands: true, has_lapsed: false, refunded: 0, back: [0, 0], about: 0 }
    }

    /// What the purses get when so much more of the amount is refunded, cash first, as far as it paid: that much, and of a surcharge, or but
    /// for a discount, as much as of the amount over all refunds, a surcharge rounded down and a discount up. What refunds that were taken
    /// back have left ahead of that stays ahead until the others have caught up.
    fn share(&self, amount: i64) -> [i64; 2] {
        let surcharge = self.paid[0] + self.paid[1] - self.amount;
        let due = i128::from(surcharge) * i128::from(self.refunded + amount);
        let due = i64::try_from(due.div_euclid(i128::from(self.amount))).expect("fen");
        let behind = due - (self.back[0] + self.back[1] - self.refunded);
        let more = amount + if surcharge >= 0 { behind.max(0) } else { behind.clamp(-amount, 0) };
        let cash = more.min(self.paid[0] - self.back[0]);
        [cash, more - cash]
    }
}

/// A payment, before anything is decided about it.
pub(super) struct Sale {
    pub(super) spending: Spending,
    number: String,
    amount: i64,
    takes_subsidy: bool,
    /// What the purses pay.
    price: i64,
}

impl Sale {
    /// What subsidy and cash pay, if cash may become a debt.
    fn split(&self, processing: u32, subsidy: i64) -> [i64; 2] {
        let from_subsidy = match processing {
            0 | 2_000 if self.takes_subsidy => self.price.min(subsidy),
            _ => 0,
        };
        [self.price - from_subsidy, from_subsidy]
    }
}

impl Model {
    /// What can be spent from the purses of a card's holder.
    pub(super) fn available_of(&self, number: &str) -> Option<[i64; 2]> {
        let holder = &self.cards.get(number)?.holder;
        let [cash, subsidy] = self.holders[holder].0;
        Some([cash - self.held_of(holder), subsidy])
    }

    fn purses(&mut self, number: &str) -> &mut [i64; 2] {
        &mut self.holders.get_mut(&self.cards[number].holder).expect("a holder").0
    }

    pub(super) fn move_cash(&mut self, number: &str, more: i64) {
        self.purses(number)[0] += more;
    }

    pub(super) fn deed(&mut self, identity: &Identity) -> &mut Deed {
        self.decisions.get_mut(identity).and_then(|decided| decided.deed.as_mut()).expect("it did something")
    }

    pub(super) fn amount_and_card<'a>(&self, asked: &Asked<'a>) -> Result<(i64, &'a str), &'static str> {
        let amount = self.amount(asked)?;
        let number = asked.draft.card.as_deref().expect("asked for");
        self.cards.get(number).map(|_| (amount, number)).ok_or("14")
    }

    fn amount(&self, asked: &Asked<'_>) -> Result<i64, &'static str> {
        let amount = asked.draft.amount.expect("asked for").cast_signed();
        if amount == 0 || amount > i64::from(self.limits.amount_max) { Err("13") } else { Ok(amount) }
    }

    pub(super) fn sale(&self, asked: &Asked<'_>, number: &str, amount: i64, is_purchase: bool) -> Sale {
        let card = &self.cards[number];
        let (class, category) = (card.class, self.merchants[asked.merchant].category);
        let (holder, day, time) = (card.holder.clone(), asked.identity.2, asked.draft.time);
        Sale {
            spending: Spending { holder, class, category, day, time, is_purchase },
            number: number.to_owned(),
            amount,
            takes_subsidy: self.rules.takes_subsidy(class, category),
            price: amount + self.rules.surcharge(class, category, amount),
        }
    }

    /// What stands against an online payment of a good card, but for funds: 57, 75, 55, 61, 65.
    pub(super) fn object(&mut self, asked: &Asked<'_>, sale: &Sale) -> Result<(), &'static str> {
        let Spending { class, category, .. } = sale.spending;
        let alone = sale.spending.is_purchase && asked.draft.processing == Some(2_000) && !sale.takes_subsidy;
        if alone || self.rules.refuses(&sale.spending) {
            return Err("57");
        }
        if self.rules.needs_pin(class, category, sale.amount) {
            self.ask_pin(asked.draft)?;
        }
        self.rules.exceeded(&sale.spending, sale.amount).map_or(Ok(()), Err)
    }

    /// How a sale that was made offline would have been answered, if it had been asked for.
    fn objection(&self, asked: &Asked<'_>, sale: &Sale) -> Option<&'static str> {
        let Spending { class, category, .. } = sale.spending;
        if let Err(code) = self.good_card(&sale.number) {
            return Some(code);
        }
        if asked.draft.processing == Some(2_000) && !sale.takes_subsidy || self.rules.refuses(&sale.spending) {
            return Some("57");
        }
        if self.rules.needs_pin(class, category, sale.amount) {
            return Some(self.pin_objection(&sale.number));
        }
        self.rules.exceeded(&sale.spending, sale.amount).or_else(|| self.uncovered(asked, sale).then_some("51"))
    }

    /// Whether the purses do not cover a sale, or there is a debt.
    fn uncovered(&self, asked: &Asked<'_>, sale: &Sale) -> bool {
        let processing = asked.draft.processing.expect("asked for");
        let [cash, subsidy] = self.available_of(&sale.number).expect("a known card");
        let [from_cash, _] = sale.split(processing, subsidy);
        let alone = processing == 2_000 && from_cash > 0;
        cash < 0 || from_cash > cash || alone
    }

    /// The purses pay, the merchant gets its price, and the campus the difference.
    fn post(&mut self, asked: &Asked<'_>, sale: &Sale, kind: Kind) -> Deed {
        let processing = asked.draft.processing.expect("asked for");
        let [_, subsidy] = *self.purses(&sale.number);
        let paid = sale.split(processing, subsidy);
        self.move_cash(&sale.number, -paid[0]);
        self.purses(&sale.number)[1] -= paid[1];
        self.merchants.get_mut(asked.merchant).expect("known").takings += sale.amount;
        self.settle_difference(sale.price, sale.amount);
        self.rules.use_up(&sale.spending, sale.amount, self.day);
        self.count(asked, Column::Debit, sale.amount);
        if sale.price != sale.amount {
            self.events.push(if sale.price > sale.amount { "decided.surcharge" } else { "decided.discount" });
        }
        if paid[0] > 0 && paid[1] > 0 {
            self.events.push("decided.split");
        }
        Deed::new(kind, &sale.number, sale.amount, paid)
    }

    /// What purses pay more than a merchant gets goes to the fees, and what they pay less comes from the grants.
    fn settle_difference(&mut self, purses: i64, merchant: i64) {
        let account = if purses.abs() > merchant.abs() { &mut self.house.fees } else { &mut self.house.grants };
        *account += purses - merchant;
    }

    pub(super) fn purchase(&mut self, asked: &Asked<'_>) -> Ruling {
        let (amount, number) = self.amount_and_card(asked)?;
        self.good_card(number)?;
        let sale = self.sale(asked, number, amount, true);
        self.object(asked, &sale)?;
        if self.uncovered(asked, &sale) {
            if self.available_of(number).expect("a known card")[0] < 0 {
                self.events.push("decided.debt_blocks");
            }
            return Err("51");
        }
        Ok(Effect { deed: Some(self.post(asked, &sale, Kind::Purchase)), ..Effect::default() })
    }

    pub(super) fn offline_sale(&mut self, asked: &Asked<'_>) -> Ruling {
        let (amount, number) = self.amount_and_card(asked)?;
        let sale = self.sale(asked, number, amount, true);
        let flag = self.objection(asked, &sale);
        self.events.push(match flag {
            None => "decided.sold_offline",
            Some("41" | "62" | "78" | "54") => "decided.flagged_for_status",
            Some("51") => "decided.flagged_for_funds",
            Some(_) => "decided.flagged_for_rules",
        });
        let before = self.purses(number)[0];
        let deed = self.post(asked, &sale, Kind::OfflineSale);
        if before >= 0 && self.purses(number)[0] < 0 {
            self.events.push("decided.debt_made");
        }
        Ok(Effect { deed: Some(deed), flag, ..Effect::default() })
    }

    pub(super) fn load(&mut self, asked: &Asked<'_>) -> Ruling {
        let (amount, number) = self.amount_and_card(asked)?;
        self.good_card(number)?;
        if self.purses(number)[0] + amount > PURSE_FEN_MAX {
            return Err("61");
        }
        if (-amount..0).contains(&self.purses(number)[0]) {
            self.events.push("decided.debt_repaid");
        }
        self.move_cash(number, amount);
        self.house.cash_desk -= amount;
        self.count(asked, Column::Credit, amount);
        Ok(Effect { deed: Some(Deed::new(Kind::Load, number, amount, [amount, 0])), ..Effect::default() })
    }

    pub(super) fn bill(&mut self, asked: &Asked<'_>) -> Ruling {
        let (amount, number) = self.amount_and_card(asked)?;
        self.good_card(number)?;
        let sale = self.sale(asked, number, amount, false);
        self.object(asked, &sale)?;
        let [cash, _] = self.available_of(number).expect("a known card");
        if amount > cash {
            return Err("51");
        }
        let payee: u64 = asked.draft.tag(30).and_then(|kind| kind.parse().ok()).expect("asked for");
        self.move_cash(number, -amount);
        self.house.payees[payee as usize - 1] += amount;
        self.rules.use_up(&sale.spending, amount, self.day);
        self.count(asked, Column::Debit, amount);
        let deed = Deed { about: payee, ..Deed::new(Kind::Bill, number, amount, [amount, 0]) };
        Ok(Effect { deed: Some(deed), ..Effect::default() })
    }

    /// The card that a message need not name is known, where it does.
    pub(super) fn know_card(&self, asked: &Asked<'_>) -> Result<(), &'static str> {
        let card = asked.draft.card.as_ref();
        if card.is_none_or(|card| self.cards.contains_key(card)) { Ok(()) } else { Err("14") }
    }

    /// The decision that DE37 names, if it is one of these kinds, of the terminal's merchant, and of the card named.
    pub(super) fn original(&self, asked: &Asked<'_>, kinds: &[Kind]) -> Option<Identity> {
        let number = asked.draft.number.as_ref()?.parse::<u64>().ok()?;
        let identity = *self.numbers.get(&number)?;
        let decided = &self.decisions[&identity];
        let deed = decided.deed.as_ref()?;
        let own = decided.merchant == asked.merchant && asked.draft.card.as_ref().is_none_or(|card| *card == deed.card);
        (kinds.contains(&deed.kind) && own).then_some(identity)
    }

    /// Gives back what is left of a sale. Gives how much of its amount that was.
    fn undo_sale(&mut self, identity: &Identity) -> i64 {
        let merchant = self.decisions[identity].merchant;
        let sale = self.deed(identity).clone();
        let left = sale.amount - sale.refunded;
        let back = [sale.paid[0] - sale.back[0], sale.paid[1] - sale.back[1]];
        self.deed(identity).stands = false;
        if sale.refunded > 0 {
            // All of it is back: its refunds cannot be taken back any more.
            let number = self.decisions[identity].position;
            let deeds = self.decisions.values_mut().filter_map(|decided| decided.deed.as_mut());
            deeds.filter(|deed| deed.kind == Kind::Refund && deed.about == number).for_each(|deed| deed.stands = false);
        }
        self.give_back(&sale, merchant, left, back);
        self.give_use_back(identity, left, true);
        left
    }

    /// A merchant gives back so much of a sale's amount, and the purses get so much.
    fn give_back(&mut self, sale: &Deed, merchant: &str, amount: i64, back: [i64; 2]) {
        self.move_cash(&sale.card, back[0]);
        self.purses(&sale.card)[1] += back[1];
        self.merchants.get_mut(merchant).expect("known").takings -= amount;
        self.settle_difference(-back[0] - back[1], -amount);
    }

    pub(super) fn void(&mut self, asked: &Asked<'_>) -> Ruling {
        self.know_card(asked)?;
        let identity = self.original(asked, &[Kind::Purchase, Kind::OfflineSale]).ok_or("25")?;
        let decided = &self.decisions[&identity];
        let (day, sale) = (decided.day, decided.deed.clone().expect("a sale"));
        if !sale.stands || day != self.day || sale.refunded > 0 {
            return Err("12");
        }
        let amount = self.undo_sale(&identity);
        self.count(asked, Column::DebitReversal, amount);
        let deed = Deed { stands: false, ..Deed::new(Kind::Void, &sale.card, amount, sale.paid) };
        Ok(Effect { deed: Some(deed), ..Effect::default() })
    }

    pub(super) fn refund(&mut self, asked: &Asked<'_>) -> Ruling {
        let amount = self.amount(asked)?;
        self.know_card(asked)?;
        let identity = self.original(asked, &[Kind::Purchase, Kind::OfflineSale, Kind::Completion]).ok_or("25")?;
        let number = self.decisions[&identity].position;
        let sale = self.deed(&identity).clone();
        if !sale.stands {
            return Err("12");
        }
        if amount > sale.amount - sale.refunded {
            return Err("61");
        }
        if sale.refunded > 0 {
            self.events.push("decided.refunded_in_parts");
        }
        let share = sale.share(amount);
        self.give_back(&sale, asked.merchant, amount, share);
        let original = self.deed(&identity);
        original.refunded += amount;
        original.back = [original.back[0] + share[0], original.back[1] + share[1]];
        self.give_use_back(&identity, amount, false);
        self.count(asked, Column::Credit, amount);
        let deed = Deed { about: number, ..Deed::new(Kind::Refund, &sale.card, amount, share) };
        Ok(Effect { deed: Some(deed), ..Effect::default() })
    }

    pub(super) fn reversal(&mut self, asked: &Asked<'_>, identity: Identity) -> Ruling {
        let Some(before) = self.decisions.get(&identity) else {
            self.tombstones.insert(identity);
            self.events.push("decided.reversal_before_original");
            return Ok(Effect::default());
        };
        let draft = asked.draft;
        let is_void = before.content.processing == Some(20_000);
        // A refund or a completion that named no card is about its original's.
        let about = before.deed.as_ref().filter(|deed| deed.kind != Kind::Void).map(|deed| &deed.card);
        let card = before.content.card.as_ref().or(about);
        let other_card = draft.card.is_some() && card.is_some() && draft.card.as_ref() != card;
        let other_amount = draft.amount.is_some() && before.content.amount.is_some() && draft.amount != before.content.amount;
        if other_card || other_amount && !is_void {
            self.events.push("decided.reversal_of_another");
            return Err("94");
        }
        let (number, merchant) = (before.position, before.merchant);
        let Some(deed) = before.deed.clone().filter(|deed| deed.stands) else {
            let is_refund = before.deed.as_ref().is_some_and(|deed| deed.kind == Kind::Refund);
            self.events.push(if is_refund { "undone.refund_of_undone" } else { "decided.nothing_to_undo" });
            return Ok(Effect::default());
        };
        match deed.kind {
            Kind::Purchase | Kind::OfflineSale | Kind::Completion => {
                self.events.push(match (deed.kind, deed.refunded) {
                    (Kind::Purchase, 0) => "undone.purchase",
                    (Kind::OfflineSale, 0) => "undone.offline_sale",
                    (Kind::Completion, 0) => "undone.completion",
                    _ => "undone.refunded_in_part",
                });
                let left = self.undo_sale(&identity);
                self.count(asked, Column::DebitReversal, left);
            }
            Kind::Hold => {
                self.events.push("undone.hold");
                self.holds.remove(&number);
                self.deed(&identity).stands = false;
                self.give_use_back(&identity, deed.amount, true);
            }
            Kind::Load => {
                self.events.push("undone.load");
                self.deed(&identity).stands = false;
                self.move_cash(&deed.card, -deed.amount);
                self.house.cash_desk += deed.amount;
                self.count(asked, Column::CreditReversal, deed.amount);
            }
            Kind::Bill => {
                self.events.push("undone.bill_payment");
                self.deed(&identity).stands = false;
                self.move_cash(&deed.card, deed.amount);
                self.house.payees[deed.about as usize - 1] -= deed.amount;
                self.give_use_back(&identity, deed.amount, true);
                self.count(asked, Column::DebitReversal, deed.amount);
            }
            Kind::Refund => self.undo_refund(asked, &identity, &deed, merchant),
            Kind::Void => unreachable!("a void does not stand"),
        }
        Ok(Effect::default())
    }

    /// What a refund gave is taken back, from the subsidy what is still there of it.
    fn undo_refund(&mut self, asked: &Asked<'_>, identity: &Identity, refund: &Deed, merchant: &str) {
        self.deed(identity).stands = false;
        if let Some(identity) = self.numbers.get(&refund.about).copied() {
            let sale = self.deed(&identity);
            sale.refunded -= refund.amount;
            sale.back = [sale.back[0] - refund.paid[0], sale.back[1] - refund.paid[1]];
            self.use_again(&identity, refund.amount);
        }
        self.events.push("undone.refund");
        let [_, subsidy] = *self.purses(&refund.card);
        let from_subsidy = refund.paid[1].min(subsidy);
        if from_subsidy < refund.paid[1] {
            self.events.push("undone.refund_spent");
        }
        self.move_cash(&refund.card, from_subsidy - refund.paid[0] - refund.paid[1]);
        self.purses(&refund.card)[1] -= from_subsidy;
        self.merchants.get_mut(merchant).expect("known").takings += refund.amount;
        self.settle_difference(refund.paid[0] + refund.paid[1], refund.amount);
        self.count(asked, Column::CreditReversal, refund.amount);
    }
}
