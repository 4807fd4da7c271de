//! Replies: the echo of the request and what section 5 adds to it, in the order of the elements.

use crate::calendar::Date;
use crate::iso8583::bcd::to_ascii;
use crate::iso8583::frame::Tpdu;
use crate::iso8583::{Message, Writer};
use crate::ledger::Response;
use crate::ledger::batches::Totals;
use crate::ledger::hotlist::Piece;
use crate::ledger::identities::Echo;
use crate::mac::MacKey;

/// Begins a sub-element of DE48: two digits of tag, two of length, value.
pub(super) fn put_sub_element(out: &mut Vec<u8>, tag: u8, value: &[u8]) {
    let length = value.len() as u8;
    assert!(length < 100 && tag < 100, "a tag and a length have two digits");
    out.extend_from_slice(&[b'0' + tag / 10, b'0' + tag % 10, b'0' + length / 10, b'0' + length % 10]);
    out.extend_from_slice(value);
}

/// DE48 of a piece of the hotlist: tag 50 the version, tag 52 whether more follows, tag 53 once a change.
pub(super) fn put_hotlist(out: &mut Vec<u8>, version: u64, piece: &Piece) {
    let mut digits = [0; 10];
    write_digits(&mut digits, version);
    put_sub_element(out, 50, &digits);
    put_sub_element(out, 52, if piece.more { b"1" } else { b"0" });
    for (is_added, number) in &piece.changes {
        let mut text = [0; 20];
        let number = number.digits();
        let length = 1 + number.as_str().len();
        text[0] = if *is_added { b'+' } else { b'-' };
        text[1..length].copy_from_slice(number.as_str().as_bytes());
        put_sub_element(out, 53, &text[..length]);
    }
}

/// DE48 of the answer to a sign-on: tag 02 the switch's nonce, tag 03 the business date.
pub(super) fn sign_on_answer(nonce: [u8; 8], date: Date) -> [u8; 32] {
    let mut text = *b"0216................0308........";
    for (index, byte) in nonce.iter().enumerate() {
        text[4 + index * 2] = b"0123456789ABCDEF"[usize::from(byte >> 4)];
        text[5 + index * 2] = b"0123456789ABCDEF"[usize::from(byte & 15)];
    }
    let (year, month, day) = date.parts();
    write_digits(&mut text[24..28], u64::from(year.unsigned_abs()));
    write_digits(&mut text[28..30], u64::from(month.unsigned_abs()));
    write_digits(&mut text[30..32], u64::from(day.unsigned_abs()));
    text
}

/// The last digits of a number, as many as there is place for, up to sixteen.
#[inline]
fn write_digits(place: &mut [u8], value: u64) {
    let digits = to_ascii(value);
    place.copy_from_slice(&digits[digits.len() - place.len()..]);
}

/// Where the echoed elements besides DE2, 3, 4, 11, 13, 41 and 49 come from.
pub(super) enum Echoed<'a> {
    /// From this very message.
    Sent(&'a Message<'a>),
    /// From the message that was decided, which this one may repeat; with its merchant's number.
    Remembered(Echo, &'a [u8]),
}

/// What a reply adds to the echo.
pub(super) struct Answer<'a> {
    pub(super) response: Response,
    /// MMDD of the business date.
    pub(super) month_day: u16,
    pub(super) position: Option<u64>,
    pub(super) approval: bool,
    /// DE48.
    pub(super) private: Option<&'a [u8]>,
    pub(super) available: Option<[i64; 2]>,
    /// The switch's totals of a batch, DE74 to 77 and 86 to 89.
    pub(super) totals: Option<&'a Totals>,
}

pub(super) fn write_refusal(
    out: &mut Vec<u8>,
    tpdu: Option<Tpdu>,
    message: &Message<'_>,
    response: Response,
    month_day: u16,
    key: Option<&MacKey>,
) {
    let answer = Answer { response, month_day, position: None, approval: false, private: None, available: None, totals: None };
    write_reply(out, tpdu, message, &Echoed::Sent(message), &answer, key);
}

/// Writes a reply: section 5's echo and additions, in the order of the elements.
pub(super) fn write_reply(
    out: &mut Vec<u8>,
    tpdu: Option<Tpdu>,
    message: &Message<'_>,
    echoed: &Echoed<'_>,
    answer: &Answer<'_>,
    key: Option<&MacKey>,
) {
    let network = match echoed {
        Echoed::Sent(message) => message.number(70),
        Echoed::Remembered(echo, _) => echo.network().map(u64::from),
    };
    let mut reply =
        Writer::begin(out, tpdu.map(Tpdu::reply), (message.mti() + 10) % 10_000, network.is_some() || answer.totals.is_some());
    if message.mti() / 100 != 8 {
        reply.echo(message, 2);
    }
    for element in [3, 4, 11] {
        reply.echo(message, element);
    }
    match echoed {
        Echoed::Sent(_) => reply.echo(message, 12),
        Echoed::Remembered(echo, _) => reply.number(12, u64::from(echo.time())),
    }
    reply.echo(message, 13);
    reply.number(15, u64::from(answer.month_day));
    match echoed {
        Echoed::Sent(_) => reply.echo(message, 24),
        Echoed::Remembered(echo, _) => {
            if let Some(nii) = echo.nii() {
                reply.number(24, u64::from(nii));
            }
        }
    }
    if let Some(position) = answer.position {
        let mut digits = [0; 12];
        write_digits(&mut digits, position);
        reply.text(37, &digits);
        if answer.approval {
            reply.text(38, &digits[6..]);
        }
    }
    reply.text(39, answer.response.code().as_bytes());
    reply.echo(message, 41);
    match echoed {
        Echoed::Remembered(echo, _) if !echo.merchant() => {}
        // As it was said, where it was: a terminal that is another merchant's by now may name the one of before.
        Echoed::Remembered(_, merchant) if !message.has(42) => reply.text(42, merchant),
        _ => reply.echo(message, 42),
    }
    if let Some(private) = answer.private {
        reply.text(48, private);
    }
    reply.echo(message, 49);
    if let Some(available) = answer.available {
        reply.text(54, &purses(available));
    }
    match echoed {
        Echoed::Sent(_) => reply.echo(message, 60),
        Echoed::Remembered(echo, _) => {
            if let Some(batch) = echo.batch() {
                let mut digits = [0; 6];
                write_digits(&mut digits, u64::from(batch));
                reply.text(60, &digits);
            }
        }
    }
    if let Some(network) = network {
        reply.number(70, network);
    }
    if let Some(totals) = answer.totals {
        for (element, number) in totals.elements() {
            reply.number(element, number);
        }
    }
    reply.finish(key);
}

/// DE54: per purse account type (10 cash, 20 subsidy), amount type 02, currency, sign, twelve digits.
fn purses(available: [i64; 2]) -> [u8; 40] {
    let mut text = *b"1002156C............2002156C............";
    for (index, fen) in available.into_iter().enumerate() {
        if fen < 0 {
            text[index * 20 + 7] = b'D';
        }
        write_digits(&mut text[index * 20 + 8..index * 20 + 20], fen.unsigned_abs());
    }
    text
}
