//! What a message asks for: its operation, and the elements that the operation needs.

use crate::calendar::Date;
use crate::card_number::CardNumber;
use crate::iso8583::Message;
use crate::ledger::batches::Totals;
use crate::ledger::identities::{Content, Echo, Family, Identity};
use crate::ledger::registry::{Act, EventKind, Payee};
use crate::ledger::{PurseChoice, Request};
use crate::session::KeySlot;
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

impl Needs {
    /// The request as the ledger takes it.
    pub(super) fn request(&self, slot: KeySlot, mti: u16) -> Request {
        Request { identity: self.identity, content: self.content, echo: self.echo, slot, mti }
    }
}

/// What only some operations need of their message.
pub(super) enum Particulars<'a> {
    /// Nothing.
    None,
    /// The transaction number that DE37 names.
    Original(u64),
    /// A bill: whose, and which.
    Bill(Payee, &'a str),
    /// What a card was shown for, and the item that is borrowed or brought back.
    Act(Act, &'a str),
    /// A batch's totals by the terminal.
    Totals(Box<Totals>),
    /// A meter's report: what, where, how much.
    Event(EventKind, &'a str, &'a str),
    /// The version of the hotlist that the terminal holds, and the card after which it goes on.
    Hotlist(u64, Option<CardNumber>),
}

/// The operation that MTI, DE3 and DE70 name. A repeat (MTI's last digit 1) is the operation that it repeats.
pub(super) fn operation_of(message: &Message<'_>) -> Operation {
    let (kind, origin) = (message.mti() / 10, message.mti() % 10);
    if origin > 1 {
        return Operation::Unknown;
    }
    let processing = message.number(3).and_then(|code| u32::try_from(code).ok());
    match kind {
        20 => match processing {
            Some(0 | 1_000 | 2_000) => Operation::Purchase,
            Some(20_000) => Operation::Void,
            Some(200_000) => Operation::Refund,
            Some(210_000) => Operation::Load,
            Some(500_000) => Operation::BillPayment,
            _ => Operation::Unknown,
        },
        22 => match (processing, message.has(37)) {
            (Some(0), true) => Operation::Completion,
            (Some(0 | 1_000 | 2_000), false) => Operation::OfflineSale,
            _ => Operation::Unknown,
        },
        10 => match processing {
            Some(0) => Operation::Hold,
            Some(310_000) => Operation::Balance,
            Some(900_000) => Operation::Verify,
            Some(910_000) => Operation::Enter,
            Some(920_000) => Operation::Leave,
            Some(930_000) => Operation::Borrow,
            Some(940_000) => Operation::Return,
            Some(950_000) => Operation::Attendance,
            _ => Operation::Unknown,
        },
        12 if processing.and_then(act_of).is_some() => Operation::Advice,
        30 => match message.text(91) {
            Some(b"1") => Operation::Loss,
            Some(b"3") => Operation::Found,
            _ => Operation::Hotlist,
        },
        40 | 42 => Operation::Reversal,
        50 => Operation::BatchClose,
        60 => Operation::Event,
        80 => match message.number(70) {
            Some(1) => Operation::SignOn,
            Some(2) => Operation::SignOff,
            Some(301) => Operation::Echo,
            _ => Operation::Unknown,
        },
        _ => Operation::Unknown,
    }
}

/// What DE3 9x0000 says that a card was shown for.
fn act_of(processing: u32) -> Option<Act> {
    match processing {
        900_000 => Some(Act::Verify),
        910_000 => Some(Act::Enter),
        920_000 => Some(Act::Leave),
        930_000 => Some(Act::Borrow),
        940_000 => Some(Act::Return),
        950_000 => Some(Act::Attendance),
        _ => None,
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
    from_hex(message.sub_element(1)?)
}

/// Bytes from twice as many hex digits.
fn from_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |character: u8| char::from(character).to_digit(16);
        *byte = (digit(pair[0])? * 16 + digit(pair[1])?) as u8;
    }
    Some(bytes)
}

/// A number from nothing but digits, so many of them.
fn digits(text: &[u8], count: usize) -> Option<u64> {
    (text.len() == count && text.iter().all(u8::is_ascii_digit))
        .then(|| text.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0')))
}

/// The PIN block, DE48 tag 52; the outer `None`: it is not 32 hex digits.
#[expect(clippy::option_option, reason = "unreadable, absent, there")]
pub(super) fn pin_block(message: &Message<'_>) -> Option<Option<[u8; 16]>> {
    match message.sub_element(52) {
        None => Some(None),
        Some(text) => from_hex(text).map(Some),
    }
}

/// A sub-element of DE48 that has to be there and not to be empty; DE48 is printable ASCII.
fn sub_text<'a>(message: &Message<'a>, tag: u8) -> Option<&'a str> {
    message.sub_element(tag).filter(|text| !text.is_empty()).and_then(|text| std::str::from_utf8(text).ok())
}

/// A kind as two digits of DE48.
fn sub_kind(message: &Message<'_>, tag: u8) -> Option<u8> {
    digits(message.sub_element(tag)?, 2).and_then(|kind| u8::try_from(kind).ok())
}

/// Reads what only this operation needs; `None` where an element is missing or not one of its values.
pub(super) fn particulars<'a>(message: &Message<'a>, operation: Operation, hotlist_version: u64) -> Option<Particulars<'a>> {
    Some(match operation {
        Operation::Void | Operation::Refund | Operation::Completion => Particulars::Original(digits(message.text(37)?, 12)?),
        Operation::BillPayment => Particulars::Bill(Payee::from_number(sub_kind(message, 30)?)?, sub_text(message, 31)?),
        Operation::Enter | Operation::Leave | Operation::Borrow | Operation::Return | Operation::Attendance | Operation::Advice => {
            let act = message.number(3).and_then(|code| act_of(u32::try_from(code).ok()?))?;
            let has_item = matches!(act, Act::Borrow | Act::Return);
            Particulars::Act(act, if has_item { sub_text(message, 11)? } else { "" })
        }
        Operation::BatchClose => {
            let mut elements = [(0, 0); 8];
            for (place, element) in elements.iter_mut().zip([74, 75, 76, 77, 86, 87, 88, 89]) {
                *place = (element, message.number(element)?);
            }
            message.has(60).then_some(Particulars::Totals(Box::new(Totals::from_elements(&elements))))?
        }
        Operation::Event => {
            let text = |tag| message.sub_element(tag).map_or(Some(""), |text| std::str::from_utf8(text).ok());
            Particulars::Event(EventKind::from_number(sub_kind(message, 40)?)?, text(41)?, text(42)?)
        }
        Operation::Loss | Operation::Found | Operation::Hotlist => {
            message.text(101).filter(|name| *name == b"HOTLIST")?;
            if operation != Operation::Hotlist {
                return Some(Particulars::None);
            }
            message.text(91).filter(|code| *code == b"5")?;
            let held = digits(message.sub_element(50)?, 10).filter(|held| *held <= hotlist_version)?;
            let after = match message.sub_element(51) {
                None => None,
                Some(number) => Some(CardNumber::from_digits(number)?),
            };
            Particulars::Hotlist(held, after)
        }
        _ => Particulars::None,
    })
}

/// Reads what the operation needs; `None` where an element is missing or not one of its values.
pub(super) fn needs(message: &Message<'_>, operation: Operation, terminal: u32, today: Date, days: &mut Days) -> Option<Needs> {
    let required: &[u8] = match operation {
        Operation::Purchase | Operation::OfflineSale => &[2, 4, 42, 49],
        Operation::Hold | Operation::Load | Operation::BillPayment => &[2, 4],
        Operation::Refund | Operation::Completion => &[4, 37],
        Operation::Void => &[37],
        Operation::Balance
        | Operation::Verify
        | Operation::Enter
        | Operation::Leave
        | Operation::Borrow
        | Operation::Return
        | Operation::Attendance
        | Operation::Advice
        | Operation::Loss
        | Operation::Found => &[2],
        Operation::BatchClose => &[60],
        _ => &[],
    };
    let mti_family = message.mti() / 10;
    let processed = matches!(mti_family, 10 | 12 | 20 | 22) && !message.has(3);
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
