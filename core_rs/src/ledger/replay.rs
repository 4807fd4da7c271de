//! Replaying the journal: a record's command is applied again, and must give the outcome that the record holds.

use super::command::{Decoded, decode};
use super::identities::{Family, State};
use super::registry::NONE;
use super::{Command, Ledger, Outcome, Request};
use crate::limits::PURSE_FEN_MAX;

impl Ledger {
    /// Applies the record at `position` and gives what it says, with the outcome complete.
    ///
    /// # Errors
    /// A sentence without the position, where the record is not the next one, cannot be read, names what does not exist, or
    /// gives another outcome than it holds: then the journal was not written by this switch's rules, and nothing may be built
    /// on it.
    pub fn replay<'a>(&mut self, position: u64, record: &'a [u8]) -> Result<(Decoded<'a>, Outcome), String> {
        if position != self.position + 1 {
            return Err(format!("the record after {} has number {position}", self.position));
        }
        let decoded = decode(record).ok_or("the record is not one that this version of the switch writes")?;
        self.is_possible(&decoded.command)?;
        let outcome = self.apply(decoded.timestamp, &decoded.command);
        let held = Outcome { movements: outcome.movements, place: outcome.place, ..decoded.outcome };
        if outcome != held {
            return Err(format!(
                "the journal holds the outcome {} {:?}, replaying gives {} {:?}",
                held.response.code(),
                held.after,
                outcome.response.code(),
                outcome.after
            ));
        }
        Ok((decoded, outcome))
    }

    /// Whether the command could have been made here: what [`Ledger::apply`] asserts, asked. A record with a right checksum
    /// may still be a stranger's.
    fn is_possible(&self, command: &Command<'_>) -> Result<(), &'static str> {
        let registry = &self.registry;
        match *command {
            Command::Policy(policy) if policy.identity_days == 0 => return Err("the record keeps identities for no day"),
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
            }
            Command::Reversal { original, .. } if original.terminal() as usize >= registry.terminals.rows().len() => {
                return Err("the record reverses for a terminal that does not exist");
            }
            _ => {}
        }
        command.request().map_or(Ok(()), |request| self.is_possible_request(command, request))
    }

    fn is_possible_request(&self, command: &Command<'_>, request: &Request) -> Result<(), &'static str> {
        if request.identity.terminal() as usize >= self.registry.terminals.rows().len() {
            return Err("the record names a terminal that does not exist");
        }
        if Family::of(request.mti) != request.identity.family() || request.identity.stan() > 999_999 {
            return Err("the record's identity is not that of its message");
        }
        if self.identities.find(request.identity).is_some_and(|place| self.identities.get(place).state != State::Tombstone) {
            return Err("the record decides an identity a second time");
        }
        if matches!(command, Command::Purchase { .. }) && (request.content.amount().is_none() || request.content.card().is_none()) {
            return Err("the record is a purchase without a card or an amount");
        }
        Ok(())
    }
}
