//! The form in which the journal holds a command with its outcome.
//!
//! A journal record is one command, the moment of its decision and the outcome, little-endian, without padding:
//! `kind u8 · timestamp u64 · command · outcome`. Replaying the command must give the same outcome; [`decode`] gives both
//! so that the reader can hold one against the other. The kinds below 16 are the switch's and its operators' own; the others
//! begin with a terminal's request. Numbers are never given twice, and what was written once can be read for ever.

use super::Policy;
use super::batches::Totals;
use super::bytes::{Decoder, Encoder};
use super::command::{Command, Outcome, Pin, PurseChoice, Request, Told};
use super::identities::{Content, Echo, Identity};
use super::registry::{
    Act, CardClass, CardStatus, Category, EventKind, HolderId, MerchantId, Payee, TerminalKind, TerminalStanding, Zone,
};
use super::response::Response;
use super::rules::Rules;
use crate::calendar::{Date, Timestamp};
use crate::card_number::CardNumber;
use crate::pin::PinVerification;
use crate::session::KeySlot;

const POLICY: u8 = 1;
const CUTOVER: u8 = 2;
const MERCHANT: u8 = 3;
const TERMINAL: u8 = 4;
const CARD: u8 = 5;
const IMPORTED: u8 = 6;
const RULES: u8 = 7;
const PIN: u8 = 8;
const LAPSE: u8 = 9;
/// [`POLICY`] with the limits of holds and PINs.
const LIMITS: u8 = 10;
const STANDING: u8 = 11;
const SIGN_ON: u8 = 16;
const SIGN_OFF: u8 = 17;
const PURCHASE: u8 = 18;
const REVERSAL: u8 = 19;
const UNKNOWN: u8 = 20;
const OFFLINE_SALE: u8 = 21;
const HOLD: u8 = 22;
const COMPLETION: u8 = 23;
const VOID: u8 = 24;
const REFUND: u8 = 25;
const LOAD: u8 = 26;
const BILL_PAYMENT: u8 = 27;
const IDENTITY: u8 = 28;
const CARD_REPORT: u8 = 29;
const BATCH_CLOSE: u8 = 30;
const EVENT: u8 = 31;
const LATE: u8 = 32;

/// What came late, behind the numbers of [`Act`].
const LATE_SALE: u8 = 16;
const LATE_COMPLETION: u8 = 17;
const LATE_REVERSAL: u8 = 18;
const LATE_UNKNOWN: u8 = 19;

fn put_request(encoder: &mut Encoder<'_>, request: &Request) {
    encoder.u64(request.identity.packed());
    encoder.u16(request.identity.date.0);
    let [card, rest] = request.content.packed();
    encoder.u64(card);
    encoder.u64(rest);
    encoder.u64(request.echo.packed());
    encoder.u8(request.slot as u8);
    encoder.u16(request.mti);
}

/// The name of each kind of record in evidence reports, by the number with which it begins.
const KIND_NAMES: [(u8, &str); 28] = [
    (POLICY, "policy"),
    (CUTOVER, "cutover"),
    (MERCHANT, "merchant"),
    (TERMINAL, "terminal"),
    (CARD, "card"),
    (IMPORTED, "import"),
    (RULES, "rules"),
    (PIN, "pin"),
    (LAPSE, "lapse"),
    (LIMITS, "limits"),
    (STANDING, "standing"),
    (SIGN_ON, "sign_on"),
    (SIGN_OFF, "sign_off"),
    (PURCHASE, "purchase"),
    (REVERSAL, "reversal"),
    (UNKNOWN, "unknown"),
    (OFFLINE_SALE, "offline_sale"),
    (HOLD, "hold"),
    (COMPLETION, "completion"),
    (VOID, "void"),
    (REFUND, "refund"),
    (LOAD, "load"),
    (BILL_PAYMENT, "bill_payment"),
    (IDENTITY, "identity"),
    (CARD_REPORT, "card_report"),
    (BATCH_CLOSE, "batch_close"),
    (EVENT, "event"),
    (LATE, "late"),
];

/// The name of a record's kind, if it is one of a kind that there is.
#[must_use]
pub fn kind_name(record: &[u8]) -> Option<&'static str> {
    let number = record.first()?;
    KIND_NAMES.iter().find(|(kind, _)| kind == number).map(|(_, name)| *name)
}

/// Whether these bytes are a record that moves the business date on.
#[must_use]
pub fn is_cutover(record: &[u8]) -> bool {
    record.first() == Some(&CUTOVER)
}

/// Appends the record of a decided command to `out`.
pub fn encode(out: &mut Vec<u8>, timestamp: Timestamp, command: &Command<'_>, outcome: &Outcome) {
    let mut encoder = Encoder(out);
    encoder.u8(kind_of(command));
    encoder.u64(timestamp);
    if let Some(request) = command.request() {
        put_request(&mut encoder, request);
        put_rest(&mut encoder, command);
    } else {
        put_own(&mut encoder, command);
    }
    put_outcome(&mut encoder, outcome);
}

fn kind_of(command: &Command<'_>) -> u8 {
    match command {
        Command::Policy(_) => LIMITS,
        Command::Cutover(_) => CUTOVER,
        Command::Merchant { .. } => MERCHANT,
        Command::Terminal { .. } => TERMINAL,
        Command::Card { .. } => CARD,
        Command::Standing { .. } => STANDING,
        Command::Rules(_) => RULES,
        Command::Pin { .. } => PIN,
        Command::Lapse { .. } => LAPSE,
        Command::Imported { .. } => IMPORTED,
        Command::SignOn { .. } => SIGN_ON,
        Command::SignOff(_) => SIGN_OFF,
        Command::Purchase { .. } => PURCHASE,
        Command::OfflineSale { .. } => OFFLINE_SALE,
        Command::Hold { .. } => HOLD,
        Command::Completion { .. } => COMPLETION,
        Command::Void { .. } => VOID,
        Command::Refund { .. } => REFUND,
        Command::Load(_) => LOAD,
        Command::BillPayment { .. } => BILL_PAYMENT,
        Command::Identity { .. } => IDENTITY,
        Command::CardReport { .. } => CARD_REPORT,
        Command::BatchClose { .. } => BATCH_CLOSE,
        Command::Event { .. } => EVENT,
        Command::Late { .. } => LATE,
        Command::Reversal { .. } => REVERSAL,
        Command::Unknown(_) => UNKNOWN,
    }
}

/// What a command says that no terminal sent.
fn put_own(encoder: &mut Encoder<'_>, command: &Command<'_>) {
    match command {
        Command::Policy(policy) => policy.put(encoder),
        Command::Cutover(date) => encoder.u16(date.0),
        Command::Merchant { id, name, category, fee_bp } => {
            encoder.text(id.as_str());
            encoder.text(name);
            encoder.u8(*category as u8);
            encoder.u16(*fee_bp);
        }
        Command::Terminal { id, merchant, kind, zone, wrapped_key } => {
            encoder.bytes(id);
            encoder.u32(*merchant);
            encoder.u8(*kind as u8);
            encoder.text(zone.as_str());
            encoder.bytes(wrapped_key);
        }
        Command::Card { number, holder, class, status, expires, opening } => {
            encoder.u64(number.packed());
            encoder.text(holder.as_str());
            encoder.u8(*class as u8);
            encoder.u8(*status as u8);
            encoder.u16(expires.0);
            encoder.u64(opening[0].cast_unsigned());
            encoder.u64(opening[1].cast_unsigned());
        }
        Command::Standing { id, standing } => {
            encoder.bytes(id);
            encoder.u8(*standing as u8);
        }
        Command::Rules(rules) => rules.put(encoder),
        Command::Pin { number, verification } => {
            encoder.u64(number.packed());
            encoder.bytes(&verification.0);
        }
        Command::Lapse { hold } => encoder.u64(*hold),
        Command::Imported { file, rows } => {
            encoder.text(file);
            encoder.u32(*rows);
        }
        _ => unreachable!("a terminal's command has a request"),
    }
}

/// What a terminal's command says beside its request.
fn put_rest(encoder: &mut Encoder<'_>, command: &Command<'_>) {
    match command {
        Command::Purchase { purse, pin, .. } => encoder.u8(*purse as u8 | (*pin as u8) << 4),
        Command::SignOn { terminal_nonce, switch_nonce, .. } => {
            encoder.bytes(terminal_nonce);
            encoder.bytes(switch_nonce);
        }
        Command::OfflineSale { purse, .. } => encoder.u8(*purse as u8),
        Command::Hold { pin, .. } => encoder.u8(*pin as u8),
        Command::Completion { original, .. } | Command::Void { original, .. } | Command::Refund { original, .. } => {
            encoder.u64(*original);
        }
        Command::BillPayment { payee, reference, pin, .. } => {
            encoder.u8(*payee as u8);
            encoder.text(reference);
            encoder.u8(*pin as u8);
        }
        Command::Identity { act, item, is_advice, .. } => {
            encoder.u8(*act as u8);
            encoder.text(item);
            encoder.u8(u8::from(*is_advice));
        }
        Command::CardReport { is_found, .. } => encoder.u8(u8::from(*is_found)),
        Command::BatchClose { totals, .. } => totals.put(encoder),
        Command::Event { kind, place, value, .. } => {
            encoder.u8(*kind as u8);
            encoder.text(place);
            encoder.text(value);
        }
        Command::Late { told, .. } => put_told(encoder, told),
        Command::Reversal { original, .. } => put_identity(encoder, *original),
        _ => {}
    }
}

fn put_told(encoder: &mut Encoder<'_>, told: &Told<'_>) {
    match *told {
        Told::Act(act, item) => {
            encoder.u8(act as u8);
            encoder.text(item);
        }
        Told::OfflineSale => encoder.u8(LATE_SALE),
        Told::Completion(original) => {
            encoder.u8(LATE_COMPLETION);
            encoder.u64(original);
        }
        Told::Reversal(original) => {
            encoder.u8(LATE_REVERSAL);
            put_identity(encoder, original);
        }
        Told::Unknown => encoder.u8(LATE_UNKNOWN),
    }
}

fn take_told<'a>(decoder: &mut Decoder<'a>) -> Option<Told<'a>> {
    Some(match decoder.u8()? {
        LATE_SALE => Told::OfflineSale,
        LATE_COMPLETION => Told::Completion(decoder.u64()?),
        LATE_REVERSAL => Told::Reversal(take_identity(decoder)?),
        LATE_UNKNOWN => Told::Unknown,
        act => Told::Act(Act::from_number(act)?, decoder.text()?),
    })
}

fn put_identity(encoder: &mut Encoder<'_>, identity: Identity) {
    encoder.u64(identity.packed());
    encoder.u16(identity.date.0);
}

const HAS_AFTER: u8 = 1;
const HAS_ORIGINAL: u8 = 2;
const HAS_PAID: u8 = 4;
const HAS_FLAG: u8 = 8;
const HAS_TOTALS: u8 = 16;

fn put_outcome(encoder: &mut Encoder<'_>, outcome: &Outcome) {
    let bit = |bit: u8, is_there: bool| if is_there { bit } else { 0 };
    encoder.u8(outcome.response as u8);
    encoder.u8(bit(HAS_AFTER, outcome.after.is_some())
        | bit(HAS_ORIGINAL, outcome.original.is_some())
        | bit(HAS_PAID, outcome.paid != [0; 2])
        | bit(HAS_FLAG, outcome.flag.is_some())
        | bit(HAS_TOTALS, outcome.totals.is_some()));
    if outcome.paid != [0; 2] {
        encoder.u64(outcome.paid[0]);
        encoder.u64(outcome.paid[1]);
    }
    if let Some(after) = outcome.after {
        encoder.u64(after[0].cast_unsigned());
        encoder.u64(after[1].cast_unsigned());
    }
    if let Some(original) = outcome.original {
        encoder.u64(original);
    }
    if let Some(flag) = outcome.flag {
        encoder.u8(flag as u8);
    }
    if let Some(totals) = &outcome.totals {
        totals.put(encoder);
    }
}

fn take_outcome(decoder: &mut Decoder<'_>) -> Option<Outcome> {
    let mut outcome = Outcome::of(Response::from_number(decoder.u8()?)?);
    let present = decoder.u8()?;
    if present >= HAS_TOTALS << 1 {
        return None;
    }
    if present & HAS_PAID != 0 {
        outcome.paid = [decoder.u64()?, decoder.u64()?];
    }
    if present & HAS_AFTER != 0 {
        outcome.after = Some([decoder.u64()?.cast_signed(), decoder.u64()?.cast_signed()]);
    }
    if present & HAS_ORIGINAL != 0 {
        outcome.original = Some(decoder.u64()?);
    }
    if present & HAS_FLAG != 0 {
        outcome.flag = Some(Response::from_number(decoder.u8()?)?);
    }
    if present & HAS_TOTALS != 0 {
        outcome.totals = Some(Box::new(Totals::take(decoder)?));
    }
    Some(outcome)
}

fn take_request(decoder: &mut Decoder<'_>) -> Option<Request> {
    let packed = decoder.u64()?;
    let identity = Identity::from_packed(packed, Date(decoder.u16()?));
    let content = Content::from_packed([decoder.u64()?, decoder.u64()?]);
    let echo = Echo::from_packed(decoder.u64()?);
    Some(Request { identity, content, echo, slot: KeySlot::from_number(decoder.u8()?)?, mti: decoder.u16()? })
}

/// What a record says: when, what, and with which outcome (its movements left out).
pub struct Decoded<'a> {
    /// When it was decided.
    pub timestamp: Timestamp,
    /// The command.
    pub command: Command<'a>,
    /// Its outcome without its movements.
    pub outcome: Outcome,
}

/// Reads a record, or `None` where it is not one that this version of the switch writes.
#[must_use]
pub fn decode(record: &[u8]) -> Option<Decoded<'_>> {
    let mut decoder = Decoder(record);
    let kind = decoder.u8()?;
    let timestamp = decoder.u64()?;
    let command = if kind < SIGN_ON { take_own(&mut decoder, kind)? } else { take_request_command(&mut decoder, kind)? };
    let outcome = take_outcome(&mut decoder)?;
    decoder.0.is_empty().then_some(Decoded { timestamp, command, outcome })
}

fn take_own<'a>(decoder: &mut Decoder<'a>, kind: u8) -> Option<Command<'a>> {
    Some(match kind {
        POLICY => Command::Policy(Policy { amount_max: decoder.u32()?, identity_days: decoder.u16()?, ..Policy::default() }),
        LIMITS => Command::Policy(Policy::take(decoder)?),
        CUTOVER => Command::Cutover(Date(decoder.u16()?)),
        MERCHANT => Command::Merchant {
            id: MerchantId::new(decoder.text()?)?,
            name: decoder.text()?,
            category: Category::from_number(decoder.u8()?)?,
            fee_bp: decoder.u16()?,
        },
        TERMINAL => Command::Terminal {
            id: decoder.array()?,
            merchant: decoder.u32()?,
            kind: TerminalKind::from_number(decoder.u8()?)?,
            zone: Zone::new(decoder.text()?)?,
            wrapped_key: decoder.array()?,
        },
        CARD => Command::Card {
            number: CardNumber::from_packed(decoder.u64()?)?,
            holder: HolderId::new(decoder.text()?)?,
            class: CardClass::from_number(decoder.u8()?)?,
            status: CardStatus::from_number(decoder.u8()?)?,
            expires: Date(decoder.u16()?),
            opening: [decoder.u64()?.cast_signed(), decoder.u64()?.cast_signed()],
        },
        STANDING => Command::Standing { id: decoder.array()?, standing: TerminalStanding::from_number(decoder.u8()?)? },
        RULES => Command::Rules(Box::new(Rules::take(decoder)?)),
        PIN => Command::Pin { number: CardNumber::from_packed(decoder.u64()?)?, verification: PinVerification(decoder.array()?) },
        LAPSE => Command::Lapse { hold: decoder.u64()? },
        IMPORTED => Command::Imported { file: decoder.text()?, rows: decoder.u32()? },
        _ => return None,
    })
}

fn take_identity(decoder: &mut Decoder<'_>) -> Option<Identity> {
    let packed = decoder.u64()?;
    Some(Identity::from_packed(packed, Date(decoder.u16()?)))
}

fn take_bool(decoder: &mut Decoder<'_>) -> Option<bool> {
    match decoder.u8()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn take_request_command<'a>(decoder: &mut Decoder<'a>, kind: u8) -> Option<Command<'a>> {
    let request = take_request(decoder)?;
    Some(match kind {
        PURCHASE => {
            let byte = decoder.u8()?;
            Command::Purchase { request, purse: PurseChoice::from_number(byte & 15)?, pin: Pin::from_number(byte >> 4)? }
        }
        SIGN_ON => Command::SignOn { request, terminal_nonce: decoder.array()?, switch_nonce: decoder.array()? },
        SIGN_OFF => Command::SignOff(request),
        OFFLINE_SALE => Command::OfflineSale { request, purse: PurseChoice::from_number(decoder.u8()?)? },
        HOLD => Command::Hold { request, pin: Pin::from_number(decoder.u8()?)? },
        COMPLETION => Command::Completion { request, original: decoder.u64()? },
        VOID => Command::Void { request, original: decoder.u64()? },
        REFUND => Command::Refund { request, original: decoder.u64()? },
        LOAD => Command::Load(request),
        BILL_PAYMENT => Command::BillPayment {
            request,
            payee: Payee::from_number(decoder.u8()?)?,
            reference: decoder.text()?,
            pin: Pin::from_number(decoder.u8()?)?,
        },
        IDENTITY => Command::Identity {
            request,
            act: Act::from_number(decoder.u8()?)?,
            item: decoder.text()?,
            is_advice: take_bool(decoder)?,
        },
        CARD_REPORT => Command::CardReport { request, is_found: take_bool(decoder)? },
        BATCH_CLOSE => Command::BatchClose { request, totals: Box::new(Totals::take(decoder)?) },
        EVENT => {
            Command::Event { request, kind: EventKind::from_number(decoder.u8()?)?, place: decoder.text()?, value: decoder.text()? }
        }
        LATE => Command::Late { request, told: take_told(decoder)? },
        REVERSAL => Command::Reversal { request, original: take_identity(decoder)? },
        UNKNOWN => Command::Unknown(request),
        _ => return None,
    })
}
