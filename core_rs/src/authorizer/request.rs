//! What a message asks for: its operation, and the elements that the operation needs.

use crate::calendar::Date;
use crate::iso8583::Message;
use crate::ledger::PurseChoice;
use crate::ledger::identities::{Content, Echo, Family, Identity};
use crate::stats::Operation;

/// The days that DE13 names. Nearly every message of a day has the same, so the last one is kept.
#[derive(Default)]
pub(super) struct Days {
    last: Option<(u16, Date, Option<Date>)>,
}

impl Days {
    fn date_of(&mut self, month_day: u16, today: Date) -> Option<Date> {
        match self.last {
            Some((last, day, date)) if (last, day) == (month_day, today) => date,
            _ => {
                let date = Date::nearest(month_day, today);
                self.last = Some((month_day, today, date));
                date
            }
        }
    }
}

/// What an operation needs of its message.
pub(super) struct Needs {
    pub(super) identity: Identity,
    pub(super) content: Content,
    pub(super) echo: Echo,
    pub(super) purse: PurseChoice,
    /// What a reversal undoes.
    pub(super) original: Option<Identity>,
    /// The terminal's nonce in a sign-on.
    pub(super) nonce: [u8; 8],
}

/// The operation that MTI, DE3 and DE70 name. A repeat (MTI's last digit 1) is the operation that it repeats.
pub(super) fn operation_of(message: &Message<'_>) -> Operation {
    let (kind, origin) = (message.mti() / 10, message.mti() % 10);
    if origin > 1 {
        return Operation::Unknown;
    }
    let processing = || message.number(3).and_then(|code| u32::try_from(code).ok());
    match kind {
        20 if processing().is_some_and(|code| purse_of(code).is_some()) => Operation::Purchase,
        10 if processing() == Some(310_000) => Operation::Balance,
        40 | 42 => Operation::Reversal,
        80 => match message.number(70) {
            Some(1) => Operation::SignOn,
            Some(2) => Operation::SignOff,
            Some(301) => Operation::Echo,
            _ => Operation::Unknown,
        },
        _ => Operation::Unknown,
    }
}

/// The purses that a purchase's DE3 names: 00aa00.
fn purse_of(processing: u32) -> Option<PurseChoice> {
    match processing {
        0 => Some(PurseChoice::Policy),
        1_000 => Some(PurseChoice::Cash),
        2_000 => Some(PurseChoice::Subsidy),
        _ => None,
    }
}

/// DE60: six digits, 000001 the first.
fn batch_number(text: &[u8]) -> Option<u32> {
    let digits = text.len() == 6 && text.iter().all(u8::is_ascii_digit);
    let number = text.iter().fold(0_u32, |value, digit| value.wrapping_mul(10).wrapping_add(u32::from(digit.wrapping_sub(b'0'))));
    (digits && number > 0).then_some(number)
}

/// The terminal's nonce in a sign-on: DE48 tag 01, 16 hex digits.
fn nonce_of(message: &Message<'_>) -> Option<[u8; 8]> {
    let text: &[u8; 16] = message.sub_element(1)?.try_into().ok()?;
    let mut nonce = [0; 8];
    for (byte, pair) in nonce.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |character: u8| char::from(character).to_digit(16);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(nonce)
}

/// Reads what the operation needs; `None` where an element is missing or not one of its values.
pub(super) fn needs(message: &Message<'_>, operation: Operation, terminal: u32, today: Date, days: &mut Days) -> Option<Needs> {
    let required: &[u8] = match operation {
        Operation::Purchase => &[2, 4, 42, 49],
        Operation::Balance => &[2],
        _ => &[],
    };
    let mti_family = message.mti() / 10;
    let processed = matches!(mti_family, 10 | 20) && !message.has(3);
    let networked = mti_family == 80 && !message.has(70);
    if processed || networked || !required.iter().all(|&element| message.has(element)) {
        return None;
    }
    if message.has(49) && message.text(49) != Some(b"156") {
        return None;
    }
    let batch = match message.text(60) {
        Some(text) => Some(batch_number(text)?),
        None => None,
    };
    let small = |element: u8| message.number(element).map(|number| number as u32);
    let time = small(12).filter(|time| time / 10_000 < 24 && time / 100 % 100 < 60 && time % 100 < 60)?;
    let date = days.date_of(small(13)? as u16, today)?;
    let stan = small(11)?;
    let original = match operation {
        Operation::Reversal => Some(original_of(message, Identity::new(Family::Financial, terminal, date, stan), today, days)?),
        _ => None,
    };
    let nonce = match operation {
        Operation::SignOn => nonce_of(message)?,
        _ => [0; 8],
    };
    Some(Needs {
        identity: Identity::new(Family::of(message.mti()), terminal, date, stan),
        content: Content::new(message.card_number(), small(3), message.number(4), message.has(49)),
        echo: Echo::new(time, small(24).map(|nii| nii as u16), batch, small(70).map(|code| code as u16), message.has(42)),
        purse: small(3).and_then(purse_of).unwrap_or(PurseChoice::Policy),
        original,
        nonce,
    })
}

/// What a reversal undoes: the message that DE90 names, or else `own`, the one with the reversal's own DE11 and DE13.
fn original_of(message: &Message<'_>, own: Identity, today: Date, days: &mut Days) -> Option<Identity> {
    let Some(named) = message.original_data_elements() else {
        return Some(own);
    };
    let date = days.date_of(named.local_date, today)?;
    let financial = Family::of(named.mti) == Family::Financial;
    financial.then(|| Identity::new(Family::Financial, own.terminal(), date, named.trace))
}
