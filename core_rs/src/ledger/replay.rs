//! Replaying the journal: a record's command is applied again, and must give the outcome that the record holds.

use super::accounts::House;
use super::ahead::WINDOW;
use super::identities::{Family, State};
use super::record::{Decoded, decode};
use super::registry::{Act, NONE};
use super::{Command, Ledger, Outcome, Request, Response, Told};
use crate::limits::{HOUSE_FEN_MAX, MERCHANT_NAME_BYTES_MAX, PURSE_FEN_MAX, SUB_ELEMENT_BYTES_MAX};

/// Why replaying stopped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unreplayable {
    /// The record.
    pub position: u64,
    /// A sentence without the position.
    pub cause: String,
}

impl Ledger {
    /// Applies the record at `position` and gives what it says, with the outcome complete.
    ///
    /// # Errors
    /// A sentence without the position, where the record is not the next one, cannot be read, names what does not exist, or
    /// gives another outcome than it holds: then the journal was not written by this switch's rules, and nothing may be built
    /// on it.
    pub fn replay<'a>(&mut self, position: u64, record: &'a [u8]) -> Result<(Decoded<'a>, Outcome), String> {
        let decoded = read(self.position + 1, position, record)?;
        let mut outcome = Outcome::of(Response::Approved);
        self.replay_decoded(&decoded, &mut outcome)?;
        Ok((decoded, outcome))
    }

    /// [`Self::replay`] for many records that follow each other, several times faster; `each` is given every one with its
    /// complete outcome, and the ledger as it stands after it.
    ///
    /// # Errors
    /// As for [`Self::replay`], with the position. The records before it have been applied.
    pub fn replay_all<'a>(
        &mut self,
        records: impl Iterator<Item = (u64, &'a [u8])>,
        each: &mut impl FnMut(&Self, &Decoded<'a>, &Outcome),
    ) -> Result<(), Unreplayable> {
        let mut records = records.fuse();
        let mut window = Vec::with_capacity(WINDOW);
        loop {
            let mut unreadable = None;
            window.clear();
            for (expected, (position, record)) in (self.position + 1..).zip(records.by_ref().take(WINDOW)) {
                match read(expected, position, record) {
                    Ok(decoded) => window.push(decoded),
                    Err(cause) => {
                        unreadable = Some(Unreplayable { position, cause });
                        break;
                    }
                }
            }
            self.warm(&window);
            for decoded in &window {
                let position = self.position + 1;
                let mut outcome = Outcome::of(Response::Approved);
                self.replay_decoded(decoded, &mut outcome).map_err(|cause| Unreplayable { position, cause })?;
                each(self, decoded, &outcome);
            }
            match unreadable {
                Some(unreadable) => return Err(unreadable),
                None if window.len() < WINDOW => return Ok(()),
                None => {}
            }
        }
    }

    /// Fetches what these records will touch.
    fn warm(&self, window: &[Decoded<'_>]) {
        let requests = || window.iter().filter_map(|decoded| decoded.command.request());
        self.look_ahead(&mut requests().filter_map(|request| request.content.card()));
        std::hint::black_box(requests().filter(|request| self.identities.find(request.identity).is_some()).count());
    }

    fn replay_decoded(&mut self, decoded: &Decoded<'_>, outcome: &mut Outcome) -> Result<(), String> {
        self.is_possible(&decoded.command)?;
        self.apply_into(decoded.timestamp, &decoded.command, outcome);
        let held = &decoded.outcome;
        let is_held = outcome.response == held.response
            && outcome.paid == held.paid
            && outcome.after == held.after
            && outcome.original == held.original
            && outcome.flag == held.flag
            && outcome.totals == held.totals;
        if !is_held {
            return Err(format!(
                "the journal holds the outcome {} {:?}, replaying gives {} {:?}",
                held.response.code(),
                held.after,
                outcome.response.code(),
                outcome.after
            ));
        }
        Ok(())
    }

    /// Whether the command could have been made here: what [`Ledger::apply`] asserts, asked. A record with a right checksum
    /// may still be a stranger's.
    fn is_possible(&self, command: &Command<'_>) -> Result<(), &'static str> {
        let registry = &self.registry;
        match *command {
            Command::Policy(policy) if !policy.is_possible() => return Err("the record sets a limit that cannot be"),
            Command::Merchant { name, .. } if name.len() > MERCHANT_NAME_BYTES_MAX => {
                return Err("the record gives a merchant a name that is too long");
            }
            Command::Cutover(date) if date <= self.business_date => return Err("the record moves the business date back"),
            Command::Terminal { merchant, .. } if merchant as usize >= registry.merchants.rows().len() => {
                return Err("the record names a merchant that does not exist");
            }
            Command::Card { number, holder, status, opening, .. } => {
                let holder = registry.holders.find(&holder);
                let card = registry.cards.find(&number);
                if card.is_some_and(|card| Some(registry.cards[card].holder) != holder) {
                    return Err("the record gives a card to another holder");
                }
                let live = holder.map_or(NONE, |holder| registry.holders[holder].live_card);
                if status.is_live() && live != NONE && Some(live) != card {
                    return Err("the record gives a holder a second live card");
                }
                if !opening.iter().all(|fen| (0..=PURSE_FEN_MAX).contains(fen)) {
                    return Err("the record opens a purse with an impossible balance");
                }
                let gives = |house: House, fen: i64| self.accounts.balance(house.account()) >= fen - HOUSE_FEN_MAX;
                if holder.is_none() && !(gives(House::Suspense, opening[0]) && gives(House::Grants, opening[1])) {
                    return Err("the record opens a purse with more than the campus's accounts can give");
                }
            }
            Command::Standing { id, .. } if registry.terminals.find(&id).is_none() => {
                return Err("the record suspends a terminal that does not exist");
            }
            Command::Pin { number, .. } if registry.cards.find(&number).is_none() => {
                return Err("the record gives a PIN to a card that does not exist");
            }
            Command::Lapse { hold } if self.holds.get(hold).is_none() => return Err("the record ends a hold that is not open"),
            Command::Reversal { original, .. } | Command::Late { told: Told::Reversal(original), .. } => {
                if original.terminal() as usize >= registry.terminals.rows().len() {
                    return Err("the record reverses for a terminal that does not exist");
                }
                if !original.is_well_formed(Family::Financial) {
                    return Err("the record reverses what is no financial message");
                }
            }
            _ => {}
        }
        command.request().map_or(Ok(()), |request| self.is_possible_request(command, request))
    }

    fn is_possible_request(&self, command: &Command<'_>, request: &Request) -> Result<(), &'static str> {
        if request.identity.terminal() as usize >= self.registry.terminals.rows().len() {
            return Err("the record names a terminal that does not exist");
        }
        if !request.identity.is_well_formed(Family::of(request.mti)) {
            return Err("the record's identity is not that of its message");
        }
        let own = request.identity.date;
        let named = match command {
            Command::Reversal { original, .. } | Command::Late { told: Told::Reversal(original), .. } => original.date,
            _ => own,
        };
        let is_late = matches!(command, Command::Late { .. });
        match ([own, named].map(|date| self.window().contains(&date)), is_late) {
            ([true, true], true) => return Err("the record puts off a message of the days whose identities are kept"),
            ([false, _], false) => return Err("the record's identity lies outside the days whose identities are kept"),
            ([_, false], false) => return Err("the record reverses what lies outside the days whose identities are kept"),
            _ => {}
        }
        if is_late && self.is_late_known(request.identity, request.content) {
            return Err("the record puts a message off a second time");
        }
        if !is_time(request.echo.time()) {
            return Err("the record's time of day is none");
        }
        if self.identities.find(request.identity).is_some_and(|place| self.identities.get(place).state != State::Tombstone) {
            return Err("the record decides an identity a second time");
        }
        if !has_possible_texts(command) {
            return Err("the record has a text that no message has");
        }
        let content = request.content;
        let has_what_it_needs = match command {
            Command::Purchase { .. }
            | Command::OfflineSale { .. }
            | Command::Hold { .. }
            | Command::Load(_)
            | Command::BillPayment { .. } => content.card().is_some() && content.amount().is_some(),
            Command::Completion { .. } | Command::Refund { .. } => content.amount().is_some(),
            Command::Identity { .. } | Command::CardReport { .. } => content.card().is_some(),
            Command::BatchClose { .. } => request.echo.batch().is_some_and(|batch| batch < 1_000_000),
            _ => true,
        };
        if !has_what_it_needs {
            return Err("the record lacks a card, an amount or a number that its operation needs");
        }
        Ok(())
    }
}

fn read(expected: u64, position: u64, record: &[u8]) -> Result<Decoded<'_>, String> {
    if position != expected {
        return Err(format!("the record after {} has number {position}", expected - 1));
    }
    decode(record).ok_or_else(|| "the record is not one that this version of the switch writes".to_owned())
}

/// Whether the texts are those of sub-elements, and there where the operation needs them.
fn has_possible_texts(command: &Command<'_>) -> bool {
    let item_of = |act: Act, item: &str| matches!(act, Act::Borrow | Act::Return) != item.is_empty();
    let (is_there, texts) = match command {
        Command::BillPayment { reference, .. } => (!reference.is_empty(), [*reference, ""]),
        Command::Identity { act, item, .. } | Command::Late { told: Told::Act(act, item), .. } => {
            (item_of(*act, item), [*item, ""])
        }
        Command::Event { place, value, .. } => (true, [*place, *value]),
        _ => (true, ["", ""]),
    };
    let printable = |text: &str| text.bytes().all(|byte| (0x20..=0x7e).contains(&byte));
    is_there && texts.iter().all(|text| text.len() <= SUB_ELEMENT_BYTES_MAX && printable(text))
}

/// Whether a number is a time of day, hhmmss.
fn is_time(number: u32) -> bool {
    number / 10_000 < 24 && number / 100 % 100 < 60 && number % 100 < 60
}
