//! PINs of cards. No message repeats one: errors end in logs.

use super::{Change, Fields, File, Once, Plan, Row, Wrong};
use crate::authorizer::{Authorizer, Log};
use crate::card_number::CardNumber;
use crate::pin::{PIN_DIGITS_MAX, PIN_DIGITS_MIN, Pin};

/// What a file of PINs is to do. The PIN that a card has is set again where wrong ones were tried: it forgets them.
pub(super) fn plan<L: Log>(file: &mut File<'_>, authorizer: &Authorizer<L>) -> Result<Plan, String> {
    let ledger = authorizer.ledger();
    let mut once = Once::default();
    let mut plan = Plan::default();
    while let Some((line, fields)) = file.next()? {
        let row = pin(line, fields, &mut once, |number| ledger.registry().cards.find(&number).is_some());
        let (number, pin) = row.map_err(|wrong| file.wrong(line, wrong))?;
        let key = authorizer.keys().pin_verification();
        let change = match ledger.pin_verification(&number) {
            None => Change::Added,
            Some(kept) if key.is_right(number, &pin, kept) && ledger.pin_tries(&number) == 0 => Change::None,
            Some(_) => Change::Changed,
        };
        plan.take(Row::Pin { number, verification: key.value(number, &pin) }, change);
    }
    Ok(plan)
}

fn pin(line: u64, fields: Fields<'_>, once: &mut Once, is_known: impl Fn(CardNumber) -> bool) -> Result<(CardNumber, Pin), Wrong> {
    let number = fields.card_number(0)?;
    once.see(line, fields.text(0))?;
    if !is_known(number) {
        // Without its number: where the columns were exchanged it is the PIN, and errors end in logs.
        return Err((0, "the card is not known; import the cards first".to_owned()));
    }
    let pin = Pin::from_digits(fields.text(1).as_bytes());
    let pin = pin.ok_or_else(|| (1, format!("the PIN is not {PIN_DIGITS_MIN} to {PIN_DIGITS_MAX} digits")))?;
    Ok((number, pin))
}
