//! Merchants, terminals and cards.
//!
//! Rows are checked against the ledger and against the rows before them. Opening balances are posted once, when a holder is new.

use std::collections::HashMap;

use super::{Change, Fields, File, Kind, Once, Plan, Row, Wrong};
use crate::authorizer::{Authorizer, Log};
use crate::calendar::Date;
use crate::card_number::CardNumber;
use crate::ledger::Ledger;
use crate::ledger::accounts::House;
use crate::ledger::registry::{CardClass, CardStatus, Category, HolderId, MerchantId, NONE, TerminalKind, Zone};
use crate::limits::{HOUSE_FEN_MAX, MERCHANT_NAME_BYTES_MAX, PURSE_FEN_MAX};
use crate::mac::MasterKey;

/// What a file of merchants, terminals or cards is to do.
pub(super) fn plan<L: Log>(file: &mut File<'_>, authorizer: &Authorizer<L>) -> Result<Plan, String> {
    let mut checker = Checker { ledger: authorizer.ledger(), once: Once::default(), holders: HashMap::new(), opened: [0; 2] };
    let kind = file.kind;
    let mut plan = Plan::default();
    while let Some((line, fields)) = file.next()? {
        let row = match kind {
            Kind::Merchants => checker.merchant(line, fields),
            Kind::Terminals => checker.terminal(line, fields, |key| authorizer.keys().wrap(key)),
            _ => checker.card(line, fields),
        };
        let (row, change) = row.map_err(|wrong| file.wrong(line, wrong))?;
        plan.take(row, change);
    }
    Ok(plan)
}

fn key_from_hex(text: &str) -> Option<MasterKey> {
    if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(text, 16).ok().map(|key| MasterKey::new(key.to_be_bytes()))
}

/// A holder as the file, as far as it was read, leaves it.
#[derive(Clone, Copy)]
struct HolderSoFar {
    opening: [i64; 2],
    live_card: Option<CardNumber>,
}

/// Checks rows against the ledger and against the rows before them.
struct Checker<'a> {
    ledger: &'a Ledger,
    once: Once,
    holders: HashMap<HolderId, HolderSoFar>,
    /// What the holders that are new in the file are opened with, cash and subsidy, in fen.
    opened: [i64; 2],
}

impl Checker<'_> {
    fn merchant(&mut self, line: u64, fields: Fields<'_>) -> Result<(Row, Change), Wrong> {
        let id: MerchantId = fields.label(0)?;
        self.once.see(line, id.as_str())?;
        let name = fields.text(1).to_owned();
        if name.is_empty() || name.len() > MERCHANT_NAME_BYTES_MAX {
            return Err((1, format!("the name has {} bytes; it needs 1 to {MERCHANT_NAME_BYTES_MAX}", name.len())));
        }
        let category = fields.one_of(2, Category::ALL, Category::name)?;
        let fee_bp = u16::try_from(fields.number(3, 0..=10_000, "basis points")?).expect("the bound is checked");
        let registry = self.ledger.registry();
        let change = match registry.merchants.find(&id).map(|index| &registry.merchants[index]) {
            None => Change::Added,
            Some(known) if (&*known.name, known.category, known.fee_bp) == (&name, category, fee_bp) => Change::None,
            Some(_) => Change::Changed,
        };
        Ok((Row::Merchant { id, name, category, fee_bp }, change))
    }

    fn terminal(&mut self, line: u64, fields: Fields<'_>, wrap: impl Fn(&MasterKey) -> [u8; 24]) -> Result<(Row, Change), Wrong> {
        let id = fields.terminal_id(0)?;
        self.once.see(line, fields.text(0))?;
        let registry = self.ledger.registry();
        let merchant_id: MerchantId = fields.label(1)?;
        let merchant = registry
            .merchants
            .find(&merchant_id)
            .ok_or_else(|| (1, format!("merchant {merchant_id} is not known; import the merchants first")))?;
        let kind = fields.one_of(2, TerminalKind::ALL, TerminalKind::name)?;
        let zone = Zone::new(fields.text(3))
            .ok_or_else(|| (3, format!("{:?} is not 0 to 16 printable ASCII characters", fields.text(3))))?;
        // The reason never repeats the key: errors end in logs.
        let key = key_from_hex(fields.text(4)).ok_or_else(|| (4, "the key is not 32 hex digits".to_owned()))?;
        let wrapped_key = wrap(&key);
        let change = match registry.terminals.find(&id).map(|index| &registry.terminals[index]) {
            None => Change::Added,
            Some(known) if (known.merchant, known.kind, known.zone, known.wrapped_key) == (merchant, kind, zone, wrapped_key) => {
                Change::None
            }
            Some(_) => Change::Changed,
        };
        Ok((Row::Terminal { id, merchant, kind, zone, wrapped_key }, change))
    }

    fn holder_so_far(&self, id: &HolderId) -> Option<HolderSoFar> {
        self.holders.get(id).copied().or_else(|| {
            let registry = self.ledger.registry();
            let holder = &registry.holders[registry.holders.find(id)?];
            let live_card = (holder.live_card != NONE).then(|| registry.cards[holder.live_card].number);
            Some(HolderSoFar { opening: holder.opening, live_card })
        })
    }

    /// Sees that the accounts from which opening balances come stay within their bound.
    fn open(&mut self, opening: [i64; 2]) -> Result<(), Wrong> {
        for (purse, house) in [House::Suspense, House::Grants].into_iter().enumerate() {
            self.opened[purse] += opening[purse];
            let left = self.ledger.accounts().balance(house.account()) + HOUSE_FEN_MAX;
            if self.opened[purse] > left {
                return Err((
                    5 + purse,
                    format!(
                        "with this one the file opens purses with {} fen, but the account {} can give {left} and no more",
                        self.opened[purse],
                        house.name()
                    ),
                ));
            }
        }
        Ok(())
    }

    fn card(&mut self, line: u64, fields: Fields<'_>) -> Result<(Row, Change), Wrong> {
        let text = fields.text(0);
        let number = fields.card_number(0)?;
        self.once.see(line, text)?;
        let id: HolderId = fields.label(1)?;
        let class = fields.one_of(2, CardClass::ALL, CardClass::name)?;
        let status = fields.one_of(3, CardStatus::ALL, CardStatus::name)?;
        let expires = Date::parse(fields.text(4))
            .ok_or_else(|| (4, format!("{:?} is not a date; write YYYY-MM-DD, from 2000 on", fields.text(4))))?;
        let opening = [fields.number(5, 0..=PURSE_FEN_MAX, "fen")?, fields.number(6, 0..=PURSE_FEN_MAX, "fen")?];

        let registry = self.ledger.registry();
        let known = registry.cards.find(&number).map(|index| &registry.cards[index]);
        if let Some(card) = known
            && registry.holder_of(card).id != id
        {
            return Err((1, format!("card {text} belongs to holder {}; a card stays its holder's", registry.holder_of(card).id)));
        }
        let mut holder = HolderSoFar { opening, live_card: None };
        if let Some(before) = self.holder_so_far(&id) {
            if let Some(purse) = (0..2).find(|&purse| opening != [0, 0] && opening[purse] != before.opening[purse]) {
                return Err((
                    5 + purse,
                    format!(
                        "holder {id} was opened with {} fen; an opening balance is posted once and a load changes it later, so repeat it or write 0 in both purses",
                        before.opening[purse]
                    ),
                ));
            }
            holder = before;
        } else {
            self.open(opening)?;
        }
        if status.is_live() {
            if let Some(other) = holder.live_card.filter(|&other| other != number) {
                return Err((
                    0,
                    format!("holder {id} has the live card {} already; one person has one live card", other.digits().as_str()),
                ));
            }
            holder.live_card = Some(number);
        } else if holder.live_card == Some(number) {
            holder.live_card = None;
        }
        self.holders.insert(id, holder);
        let change = match known {
            None => Change::Added,
            Some(card) if (card.class, card.status, card.expires) == (class, status, expires) => Change::None,
            Some(_) => Change::Changed,
        };
        Ok((Row::Card { number, holder: id, class, status, expires, opening: holder.opening }, change))
    }
}

#[cfg(test)]
mod tests {
    use super::super::import;
    use super::*;
    use crate::authorizer::Settings;
    use crate::ledger::Policy;
    use crate::mac::KeyEncryptionKey;

    /// How many records were written.
    struct Count(u64);

    impl Log for Count {
        fn has_room(&self, _: usize) -> bool {
            true
        }
        fn reserve(&mut self, _: usize) -> Result<(), String> {
            Ok(())
        }
        fn append(&mut self, _: &[u8]) -> u64 {
            self.0 += 1;
            self.0
        }
    }

    #[test]
    fn a_file_does_not_take_more_than_the_campus_can_give() {
        for (purse, house, purses) in [("cash", House::Suspense, "40,0"), ("subsidy", House::Grants, "0,40")] {
            let mut ledger = Ledger::new();
            ledger.accounts_mut().tamper(house.account(), 100 - HOUSE_FEN_MAX);
            let key = KeyEncryptionKey::new(&[7; KeyEncryptionKey::BYTES]);
            let settings = Settings {
                policy: Policy { amount_max: 1, identity_days: 1, ..Policy::default() },
                timezone: "UTC".to_owned(),
                key,
                accept_date: None,
            };
            let mut authorizer = Authorizer::new(ledger, Count(0), settings, || [0; 8], 0).unwrap();
            let mut take = |cards: std::ops::Range<u32>| {
                let row = |card| format!("{card},H{card},student,active,2027-01-01,{purses}\n");
                let rows = format!("{}\n{}", Kind::Cards.header().join(","), cards.map(row).collect::<String>());
                import(&mut authorizer, 0, "file.csv", rows.as_bytes())
            };
            let error = take(1..4).unwrap_err();
            assert!(error.starts_with(&format!("file.csv line 4, field {purse}: ")) && error.contains(house.name()), "{error}");
            take(1..3).unwrap();
            assert!(take(3..4).unwrap_err().starts_with(&format!("file.csv line 2, field {purse}: ")));
            assert_eq!(take(1..3).unwrap().unchanged, 2);
        }
    }
}
