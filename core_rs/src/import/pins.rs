//! PINs of cards. No message repeats one: errors end in logs.

use super::{Fields, File, Once, Wrong};
use crate::authorizer::{Authorizer, Log};
use crate::card_number::CardNumber;
use crate::pin::{PIN_DIGITS_MAX, PIN_DIGITS_MIN, Pin};

/// The cards in a file, each with what is kept of its PIN.
pub(super) fn read<L: Log>(file: &mut File<'_>, authorizer: &Authorizer<L>) -> Result<Vec<(CardNumber, [u8; 16])>, String> {
    let cards = &authorizer.ledger().registry().cards;
    let mut once = Once::default();
    let mut rows = Vec::new();
    while let Some((line, fields)) = file.next()? {
        let row = pin(line, fields, &mut once, |number| cards.find(&number).is_some());
        let (number, pin) = row.map_err(|wrong| file.wrong(line, wrong))?;
        rows.push((number, authorizer.keys().pin_verification().value(number, &pin)));
    }
    Ok(rows)
}

fn pin(line: u64, fields: Fields<'_>, once: &mut Once, is_known: impl Fn(CardNumber) -> bool) -> Result<(CardNumber, Pin), Wrong> {
    let number = fields.card_number(0)?;
    once.see(line, fields.text(0))?;
    if !is_known(number) {
        return Err((0, format!("card {number} is not known; import the cards first")));
    }
    let pin = Pin::from_digits(fields.text(1).as_bytes());
    let pin = pin.ok_or_else(|| (1, format!("the PIN is not {PIN_DIGITS_MIN} to {PIN_DIGITS_MAX} digits")))?;
    Ok((number, pin))
}
