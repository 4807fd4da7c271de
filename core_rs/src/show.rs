//! What an operator sees of one card, terminal or merchant.

use serde_json::{Value, json};

use crate::card_number::CardNumber;
use crate::ledger::Ledger;
use crate::ledger::batches::Total;
use crate::ledger::registry::{Card, CardClass, Category, MerchantId, Terminal};

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
                "takes_subsidy": takes_subsidy(ledger, merchant.category),
                "fee_bp": merchant.fee_bp,
                "account": merchant.account,
                "balance": ledger.accounts().balance(merchant.account),
                "position": ledger.position(),
            }))
        }
        _ => None,
    }
}

/// Whether merchants of this category take the subsidy purse, by class of card.
fn takes_subsidy(ledger: &Ledger, category: Category) -> Value {
    let takes = |&class: &CardClass| Value::from(ledger.rules().terms(class, category).takes_subsidy);
    CardClass::ALL.iter().map(|class| (class.name().to_owned(), takes(class))).collect()
}

fn card(ledger: &Ledger, card: &Card) -> Value {
    let registry = ledger.registry();
    let holder = registry.holder_of(card);
    let [cash, subsidy] = ledger.available(holder.purses);
    let holds = ledger.holds().rows().filter(|(_, hold)| hold.holder == card.holder).map(|(position, hold)| {
        json!({
            "position": position,
            "amount": hold.amount,
            "terminal": name(&registry.terminals[hold.terminal]),
            "since": hold.timestamp / 1_000_000,
        })
    });
    let loans = ledger
        .loans()
        .rows()
        .filter(|(_, loan)| loan.holder == card.holder)
        .map(|(item, loan)| json!({ "item": item, "position": loan.position, "business_date": loan.date.to_string() }));
    let tries = ledger.pin_tries(&card.number);
    let pin = match ledger.pin_verification(&card.number) {
        None => "none",
        Some(_) if tries >= ledger.policy().pin_tries_max => "locked",
        Some(_) => "set",
    };
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
        "holds": ledger.held_of(holder.purses.cash()),
        "open_holds": holds.collect::<Vec<_>>(),
        "loans": loans.collect::<Vec<_>>(),
        "pin": pin,
        "pin_tries": tries,
        "last_activity": (card.last_activity > 0).then_some(card.last_activity),
        "position": ledger.position(),
    })
}

fn name(terminal: &Terminal) -> String {
    String::from_utf8_lossy(terminal.id.trim_ascii_end()).into_owned()
}

fn terminal(ledger: &Ledger, terminal: &Terminal) -> Value {
    let totals = &terminal.totals;
    let total = |total: &Total| json!({ "number": total.number, "amount": total.amount });
    json!({
        "terminal": name(terminal),
        "merchant": ledger.registry().merchants[terminal.merchant].id.as_str(),
        "kind": terminal.kind.name(),
        "standing": terminal.standing.name(),
        "zone": terminal.zone.as_str(),
        "signed_on": terminal.session.current.is_some(),
        "open_batch": terminal.batch,
        "debits": total(&totals.debits),
        "debit_reversals": total(&totals.debit_reversals),
        "credits": total(&totals.credits),
        "credit_reversals": total(&totals.credit_reversals),
        "last_activity": (terminal.last_activity > 0).then_some(terminal.last_activity / 1_000_000),
        "position": ledger.position(),
    })
}
