//! Who and what a decision was about, as `PostgreSQL` has it.

use std::borrow::Cow;

use crate::card_number::CardNumber;
use crate::ledger::identities::{Deed, Place};
use crate::ledger::registry::{Act, Terminal};
use crate::ledger::{Command, Ledger, Outcome, Request, Response, Told};

/// Who and what a decision was about.
pub(crate) struct Subject<'c> {
    /// The terminal's message; `None`: the switch decided by itself.
    pub(crate) request: Option<&'c Request>,
    /// The terminal's index.
    pub(crate) terminal: u32,
    /// The index of the merchant whose books it is in.
    pub(crate) merchant: u32,
    /// The card: the one that the message names, else the one of what it refers to.
    pub(crate) card: Option<CardNumber>,
    /// Index of the card's holder, where the card is known.
    pub(crate) holder: Option<u32>,
    /// The transaction number that it refers to, whether or not there is such a one.
    pub(crate) original: Option<u64>,
    /// What was done by what it refers to, as far as that is remembered.
    pub(crate) deed: Option<Deed>,
}

impl<'c> Subject<'c> {
    /// What a record that was just applied was about; `None` where nobody's card or terminal was.
    pub(crate) fn of(ledger: &Ledger, command: &'c Command<'_>, outcome: &Outcome) -> Option<Self> {
        if let Command::Lapse { hold } = command {
            return Some(Self::of_lapse(ledger, *hold));
        }
        let request = command.request()?;
        let registry = ledger.registry();
        let terminal = request.identity.terminal();
        let own = registry.terminals[terminal].merchant;
        let (named, referred) = match command {
            Command::Reversal { original, .. } => (None, ledger.recall(*original).map(|(place, _)| place)),
            Command::Void { original, .. } | Command::Refund { original, .. } | Command::Completion { original, .. } => {
                // One of another merchant's is none of this one's business.
                let place = ledger.identities().at(*original).filter(|&place| ledger.identities().get(place).merchant() == own);
                (Some(*original), place)
            }
            Command::Late { told: Told::Completion(original), .. } => (Some(*original), None),
            _ => (None, None),
        };
        let decided = referred.map(|place| ledger.identities().get(place));
        let card = request.content.card().or_else(|| card_of(ledger, referred?));
        Some(Self {
            request: Some(request),
            terminal,
            // What a reversal gives back comes from the original's merchant, whomever the terminal belongs to by now.
            merchant: decided.map_or(own, |decided| decided.merchant()),
            card,
            holder: card.and_then(|number| registry.cards.find(&number)).map(|card| registry.cards[card].holder),
            original: outcome.original.or(named),
            deed: decided.map(|decided| decided.deed).filter(|deed| *deed != Deed::Nothing),
        })
    }

    /// A hold that lapsed may be older than what is remembered: then its merchant is the one that its terminal belongs to now.
    fn of_lapse(ledger: &Ledger, position: u64) -> Self {
        let registry = ledger.registry();
        let hold = ledger.holds().just_ended(position).expect("the hold has just lapsed");
        Self {
            request: None,
            terminal: hold.terminal,
            merchant: merchant_of_hold(ledger, position, hold.terminal),
            card: Some(registry.cards[hold.card].number),
            holder: Some(hold.holder),
            original: Some(position),
            deed: Some(Deed::Hold),
        }
    }

    /// The terminal.
    pub(crate) fn terminal<'l>(&self, ledger: &'l Ledger) -> &'l Terminal {
        &ledger.registry().terminals[self.terminal]
    }
}

fn card_of(ledger: &Ledger, place: Place) -> Option<CardNumber> {
    ledger.card_of(place).map(|card| ledger.registry().cards[card].number)
}

/// The merchant at which a hold was made.
pub(super) fn merchant_of_hold(ledger: &Ledger, position: u64, terminal: u32) -> u32 {
    let remembered = ledger.identities().at(position).map(|place| ledger.identities().get(place).merchant());
    remembered.unwrap_or(ledger.registry().terminals[terminal].merchant)
}

/// What a decision was about beside money: the bill, the item, the zone of the door, the meter's report, or what a reversal undid.
pub(super) fn detail<'c>(ledger: &Ledger, command: &Command<'c>, subject: &Subject<'_>) -> Option<Cow<'c, str>> {
    match command {
        Command::BillPayment { payee, reference, .. } => Some(format!("{} {reference}", payee.name()).into()),
        Command::Identity { act, item, .. } | Command::Late { told: Told::Act(act, item), .. } => {
            if matches!(act, Act::Borrow | Act::Return) {
                return Some((*item).into());
            }
            let zone = subject.terminal(ledger).zone;
            Some(zone.as_str()).filter(|zone| !zone.is_empty()).map(|zone| zone.to_owned().into())
        }
        Command::Event { kind, place, value, .. } => Some(report(kind.name(), place, value).into()),
        Command::Reversal { .. } => subject.deed.and_then(undone).map(Cow::from),
        _ => None,
    }
}

/// A meter's report as one text that can be taken apart again: its kind, a space, its place, a space, its value. What is empty at the
/// end is left out; a place that is not one word stands between quotes, with each quote in it doubled.
fn report(kind: &str, place: &str, value: &str) -> String {
    let is_word = !place.is_empty() && !place.contains(' ') && !place.starts_with('"');
    match (is_word, value.is_empty()) {
        (_, true) if place.is_empty() => kind.to_owned(),
        (true, true) => format!("{kind} {place}"),
        (true, false) => format!("{kind} {place} {value}"),
        (false, true) => format!("{kind} \"{}\"", place.replace('"', "\"\"")),
        (false, false) => format!("{kind} \"{}\" {value}", place.replace('"', "\"\"")),
    }
}

/// The operation that did a deed that can be undone.
fn undone(deed: Deed) -> Option<&'static str> {
    match deed {
        Deed::Purchase => Some("purchase"),
        Deed::OfflineSale => Some("offline_sale"),
        Deed::Completion => Some("completion"),
        Deed::Hold => Some("hold"),
        Deed::Load => Some("load"),
        Deed::BillPayment => Some("bill_payment"),
        Deed::Refund => Some("refund"),
        Deed::Void => Some("void"),
        Deed::Nothing | Deed::Trip | Deed::Report => None,
    }
}

/// Whether a decision may have been counted in a batch.
pub(super) fn is_counted(command: &Command<'_>, outcome: &Outcome) -> bool {
    let moved = !outcome.movements.as_slice().is_empty();
    // A completion of nothing is one all the same, and so is its reversal.
    outcome.response == Response::Approved && (moved || matches!(command, Command::Completion { .. } | Command::Reversal { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_can_be_taken_apart_again() {
        for (place, value, text) in [
            ("", "", "fire"),
            ("D3-412", "", "fire D3-412"),
            ("D3-412", "4500", "fire D3-412 4500"),
            ("D3-412", "4500 W, 3 s", "fire D3-412 4500 W, 3 s"),
            ("", "4500", "fire \"\" 4500"),
            ("Hall 1", "", "fire \"Hall 1\""),
            ("Hall 1", "4500", "fire \"Hall 1\" 4500"),
            ("the \"old\" wing", "1", "fire \"the \"\"old\"\" wing\" 1"),
            ("\"", "", "fire \"\"\"\""),
        ] {
            assert_eq!(report("fire", place, value), text);
        }
    }
}
