//! What an operator sees of one card, terminal or merchant.

use serde_json::{Value, json};

use crate::card_number::CardNumber;
use crate::ledger::Ledger;
use crate::ledger::registry::{Card, MerchantId, Terminal};

/// The kinds of party that can be shown.
pub const KINDS: [&str; 3] = ["card", "terminal", "merchant"];

/// The party of this kind with this identifier, or `None` where there is none. Money is in fen, moments in seconds since
/// 1970, `null` where there was none.
#[must_use]
pub fn show(ledger: &Ledger, kind: &str, identifier: &str) -> Option<Value> {
    let registry = ledger.registry();
    match kind {
        "card" => {
            let number = CardNumber::from_digits(identifier.as_bytes())?;
            registry.cards.find(&number).map(|index| card(ledger, &registry.cards[index]))
        }
        "terminal" => {
            let id = format!("{identifier:8}").into_bytes().try_into().ok()?;
            registry.terminals.find(&id).map(|index| terminal(ledger, &registry.terminals[index]))
        }
        "merchant" => {
            let merchant = &registry.merchants[registry.merchants.find(&MerchantId::new(identifier)?)?];
            Some(json!({
                "merchant": merchant.id.as_str(),
                "name": merchant.name,
                "category": merchant.category.name(),
                "takes_subsidy": merchant.category.takes_subsidy(),
                "fee_bp": merchant.fee_bp,
                "account": merchant.account,
                "balance": ledger.accounts().balance(merchant.account),
                "position": ledger.position(),
            }))
        }
        _ => None,
    }
}

fn card(ledger: &Ledger, card: &Card) -> Value {
    let holder = ledger.registry().holder_of(card);
    let [cash, subsidy] = ledger.available(holder.purses);
    json!({
        "card": card.number.digits().as_str(),
        "holder": holder.id.as_str(),
        "class": card.class.name(),
        "status": card.status.name(),
        "expires": card.expires.to_string(),
        "cash": ledger.accounts().balance(holder.purses.cash()),
        "subsidy": ledger.accounts().balance(holder.purses.subsidy()),
        "available_cash": cash,
        "available_subsidy": subsidy,
        "holds": ledger.accounts().balance(holder.purses.cash()) - cash,
        "last_activity": (card.last_activity > 0).then_some(card.last_activity),
        "position": ledger.position(),
    })
}

fn terminal(ledger: &Ledger, terminal: &Terminal) -> Value {
    json!({
        "terminal": String::from_utf8_lossy(&terminal.id).trim_end(),
        "merchant": ledger.registry().merchants[terminal.merchant].id.as_str(),
        "kind": terminal.kind.name(),
        "standing": terminal.standing.name(),
        "zone": terminal.zone.as_str(),
        "signed_on": terminal.session.current.is_some(),
        "last_activity": (terminal.last_activity > 0).then_some(terminal.last_activity / 1_000_000),
        "position": ledger.position(),
    })
}
