//! What a person has to look at: what terminals told of and was not posted, and totals that differ.

use crate::ledger::batches::{Total, Totals};
use crate::ledger::registry::Act;
use crate::ledger::{Command, Ledger, Outcome, Request, Response, Told, is_advice};

/// Dated outside the days whose identities are kept.
const OUTSIDE_WINDOW: &str = "advice_outside_window";
/// Dated outside these days, or what it names is.
const REVERSAL_OUTSIDE_WINDOW: &str = "reversal_outside_window";
/// Of these days, and impossible.
const NOT_POSTED: &str = "advice_not_posted";
/// The terminal's totals of a batch are not the switch's.
const TOTALS_DIFFER: &str = "batch_totals_differ";

/// The kind of exception that a decision is, and a sentence for a person; `None`: it is none.
pub(super) fn exception(ledger: &Ledger, command: &Command<'_>, outcome: &Outcome) -> Option<(&'static str, String)> {
    match command {
        Command::Late { request, told } => {
            let (kind, item, more) = match told {
                Told::Act(_, item) => (OUTSIDE_WINDOW, *item, String::new()),
                Told::Completion(hold) => (OUTSIDE_WINDOW, "", format!(" for the hold {hold}")),
                Told::Reversal(original) => {
                    let more = format!(", of the message with DE11 {:06} of {}", original.stan(), original.date);
                    (REVERSAL_OUTSIDE_WINDOW, "", more)
                }
                Told::OfflineSale | Told::Unknown => (OUTSIDE_WINDOW, "", String::new()),
            };
            let (window, date) = (ledger.window(), request.identity.date);
            let told = what(command, request, item);
            Some((kind, format!("{told}{more}, dated {date}: taken are {} to {}", window.start(), window.end())))
        }
        Command::BatchClose { request, totals } => {
            let own = outcome.totals.as_deref()?;
            let batch = request.echo.batch().unwrap_or_default();
            Some((TOTALS_DIFFER, format!("batch {batch}; terminal: {}; switch: {}", sides(totals), sides(own))))
        }
        _ => {
            let request = command.request().filter(|request| is_advice(request.mti))?;
            let reason = reason(ledger, command, outcome.response)?;
            let item = if let Command::Identity { item, .. } = command { item } else { "" };
            Some((NOT_POSTED, format!("{}: {reason}", what(command, request, item))))
        }
    }
}

/// What the terminal said had happened.
fn what(command: &Command<'_>, request: &Request, item: &str) -> String {
    let name = match command {
        Command::Unknown(_) | Command::Late { told: Told::Unknown, .. } => {
            format!("operation {:06}", request.content.processing().unwrap_or_default())
        }
        _ => command.name().replace('_', " "),
    };
    match request.content.amount() {
        _ if !item.is_empty() => format!("{name} of {item}"),
        Some(amount) if !matches!(command, Command::Identity { .. } | Command::Late { told: Told::Act(..), .. }) => {
            format!("{name} of {amount} fen")
        }
        _ => name,
    }
}

/// Why an advice was not posted; `None` where it was, or is not one that is posted.
fn reason(ledger: &Ledger, command: &Command<'_>, response: Response) -> Option<&'static str> {
    let is_on_loan = |item: &str| ledger.loans().find(item).is_some();
    match (command, response) {
        (_, Response::Approved) => None,
        (Command::Unknown(_), _) => Some("the switch knows no such operation"),
        (Command::Identity { act: Act::Borrow, item, .. }, Response::InvalidTransaction) if is_on_loan(item) => {
            Some("the item is on loan already")
        }
        (Command::Identity { act: Act::Return, .. }, Response::OriginalNotFound) => Some("the item is not on loan"),
        (Command::Identity { act: Act::Return, .. }, Response::NotPermitted) => Some("the item was lent to another holder"),
        (Command::Completion { .. }, Response::OriginalNotFound) => Some("this merchant has no such hold of this card"),
        (Command::Completion { .. }, Response::AmountLimit) => Some("more than was held"),
        (Command::Completion { .. }, Response::InvalidTransaction) => {
            Some("the hold was completed or reversed, or has lapsed; or this completion was reversed before it came")
        }
        (_, Response::InvalidTransaction) => Some("it was reversed before it came"),
        (_, Response::InvalidAmount) => Some("the amount is 0 or more than one operation may have"),
        (_, Response::NoSuchCard) => Some("no such card"),
        _ => Some("it could not be posted"),
    }
}

/// One side's totals in words.
fn sides(totals: &Totals) -> String {
    let Totals { credits, credit_reversals, debits, debit_reversals } = totals;
    let named =
        [("debits", debits), ("debit reversals", debit_reversals), ("credits", credits), ("credit reversals", credit_reversals)];
    named.map(|(name, Total { number, amount })| format!("{number} {name} of {amount} fen")).join(", ")
}
