//! Replaying the journal: a record's command is applied again, and must give the outcome that the record holds.

use super::command::{Decoded, decode};
use super::{Ledger, Outcome};

impl Ledger {
    /// Applies the record at `position` and gives what it says, with the outcome complete.
    ///
    /// # Errors
    /// A sentence without the position, where the record is not the next one, cannot be read, or gives another outcome
    /// than it holds: then the journal was not written by this switch's rules, and nothing may be built on it.
    pub fn replay<'a>(&mut self, position: u64, record: &'a [u8]) -> Result<(Decoded<'a>, Outcome), String> {
        if position != self.position + 1 {
            return Err(format!("the record after {} has number {position}", self.position));
        }
        let decoded = decode(record).ok_or("the record is not one that this version of the switch writes")?;
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
}
