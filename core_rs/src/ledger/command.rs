//! Commands: what changes the ledger, and the form in which the journal holds it with its outcome.
//!
//! A journal record is one command, the moment of its decision and the outcome, little-endian, without padding:
//! `kind u8 · timestamp u64 · command · outcome`. Replaying the command must give the same outcome; [`decode`] gives both
//! so that the reader can hold one against the other.

use super::accounts::AccountId;
use super::bytes::{Decoder, Encoder};
use super::identities::{Content, Echo, Identity, Place};
use super::registry::{CardClass, CardStatus, Category, HolderId, MerchantId, TerminalId, TerminalKind, Zone};
use super::response::Response;
use super::{Movements, Policy};
use crate::calendar::{Date, Timestamp};
use crate::card_number::CardNumber;
use crate::session::KeySlot;

/// What every terminal's request brings: who, what, and under which key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Family, terminal, day, STAN.
    pub identity: Identity,
    /// DE2, DE3, DE4, DE49.
    pub content: Content,
    /// DE12, DE24, DE42, DE60, DE70.
    pub echo: Echo,
    /// The key that its MAC proved.
    pub slot: KeySlot,
    /// The message type as sent.
    pub mti: u16,
}

/// From which purses a purchase may take, by digits 3 and 4 of DE3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PurseChoice {
    /// 00: by policy, subsidy first where the merchant takes it, then cash.
    Policy = 0,
    /// 10: cash alone.
    Cash = 1,
    /// 20: subsidy alone.
    Subsidy = 2,
}

/// One command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command<'a> {
    /// The campus's limits change.
    Policy(Policy),
    /// The business date moves on.
    Cutover(Date),
    /// A merchant is entered or changed.
    Merchant {
        /// Its number.
        id: MerchantId,
        /// Its name.
        name: &'a str,
        /// What it sells.
        category: Category,
        /// Management fee in basis points.
        fee_bp: u16,
    },
    /// A terminal is entered or changed.
    Terminal {
        /// DE41.
        id: TerminalId,
        /// Its merchant's index.
        merchant: u32,
        /// What it is.
        kind: TerminalKind,
        /// Where it stands.
        zone: Zone,
        /// Its wrapped master key.
        wrapped_key: [u8; 24],
    },
    /// A card, and with it its holder, is entered or changed. The opening balances are posted when the holder is new.
    Card {
        /// DE2.
        number: CardNumber,
        /// Its holder.
        holder: HolderId,
        /// Whom it is for.
        class: CardClass,
        /// Where it stands in its life.
        status: CardStatus,
        /// Its last valid day.
        expires: Date,
        /// Opening balances, cash and subsidy, in fen.
        opening: [i64; 2],
    },
    /// A file's rows, which went before, were all of it.
    Imported {
        /// The file's name.
        file: &'a str,
        /// Rows in it.
        rows: u32,
    },
    /// A terminal signs on.
    SignOn {
        /// The message.
        request: Request,
        /// DE48 tag 01.
        terminal_nonce: [u8; 8],
        /// The answer's DE48 tag 02.
        switch_nonce: [u8; 8],
    },
    /// A terminal signs off.
    SignOff(Request),
    /// A purchase.
    Purchase {
        /// The message.
        request: Request,
        /// Which purses.
        purse: PurseChoice,
    },
    /// A reversal.
    Reversal {
        /// The message.
        request: Request,
        /// What it undoes.
        original: Identity,
    },
    /// A message whose operation the switch does not know: answered 12, and remembered like any decision.
    Unknown(Request),
}

impl Command<'_> {
    /// The terminal's request, where a terminal caused the command.
    #[must_use]
    pub fn request(&self) -> Option<&Request> {
        match self {
            Self::SignOn { request, .. }
            | Self::SignOff(request)
            | Self::Purchase { request, .. }
            | Self::Reversal { request, .. }
            | Self::Unknown(request) => Some(request),
            _ => None,
        }
    }

    /// The operation's name in metrics and in PostgreSQL.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Policy(_) => "policy",
            Self::Cutover(_) => "cutover",
            Self::Merchant { .. } => "merchant",
            Self::Terminal { .. } => "terminal",
            Self::Card { .. } => "card",
            Self::Imported { .. } => "import",
            Self::SignOn { .. } => "sign_on",
            Self::SignOff(_) => "sign_off",
            Self::Purchase { .. } => "purchase",
            Self::Reversal { .. } => "reversal",
            Self::Unknown(_) => "unknown",
        }
    }
}

/// What a command did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The decision.
    pub response: Response,
    /// The money that moved. Not in the record: replaying gives it again.
    pub movements: Movements,
    /// Of a purchase's amount, what the cash and the subsidy purse paid; of a reversal's, what they got back. Fen.
    pub paid: [u64; 2],
    /// Available afterwards in the cash and the subsidy purse of the card's holder, where a card was found. Fen.
    pub after: Option<[i64; 2]>,
    /// The transaction number of what a reversal undid.
    pub original: Option<u64>,
    /// Where the decision is remembered. Not in the record: replaying gives it again.
    pub place: Option<Place>,
}

impl Outcome {
    pub(super) fn of(response: Response) -> Self {
        Self { response, movements: Movements::default(), paid: [0; 2], after: None, original: None, place: None }
    }
}

/// The accounts that the movements of an outcome touch.
pub fn touched(outcome: &Outcome) -> impl Iterator<Item = AccountId> + '_ {
    outcome.movements.as_slice().iter().flat_map(|movement| [movement.debit, movement.credit])
}

const POLICY: u8 = 1;
const CUTOVER: u8 = 2;
const MERCHANT: u8 = 3;
const TERMINAL: u8 = 4;
const CARD: u8 = 5;
const IMPORTED: u8 = 6;
const SIGN_ON: u8 = 16;
const SIGN_OFF: u8 = 17;
const PURCHASE: u8 = 18;
const REVERSAL: u8 = 19;
const UNKNOWN: u8 = 20;

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

/// Whether these bytes are a record that moves the business date on.
#[must_use]
pub fn is_cutover(record: &[u8]) -> bool {
    record.first() == Some(&CUTOVER)
}

/// Appends the record of a decided command to `out`.
pub fn encode(out: &mut Vec<u8>, timestamp: Timestamp, command: &Command<'_>, outcome: &Outcome) {
    let mut encoder = Encoder(out);
    let kind = match command {
        Command::Policy(_) => POLICY,
        Command::Cutover(_) => CUTOVER,
        Command::Merchant { .. } => MERCHANT,
        Command::Terminal { .. } => TERMINAL,
        Command::Card { .. } => CARD,
        Command::Imported { .. } => IMPORTED,
        Command::SignOn { .. } => SIGN_ON,
        Command::SignOff(_) => SIGN_OFF,
        Command::Purchase { .. } => PURCHASE,
        Command::Reversal { .. } => REVERSAL,
        Command::Unknown(_) => UNKNOWN,
    };
    encoder.u8(kind);
    encoder.u64(timestamp);
    match command {
        Command::Policy(policy) => {
            encoder.u32(policy.amount_max);
            encoder.u16(policy.identity_days);
        }
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
        Command::Imported { file, rows } => {
            encoder.text(file);
            encoder.u32(*rows);
        }
        Command::SignOn { request, terminal_nonce, switch_nonce } => {
            put_request(&mut encoder, request);
            encoder.bytes(terminal_nonce);
            encoder.bytes(switch_nonce);
        }
        Command::SignOff(request) | Command::Unknown(request) => put_request(&mut encoder, request),
        Command::Purchase { request, purse } => {
            put_request(&mut encoder, request);
            encoder.u8(*purse as u8);
        }
        Command::Reversal { request, original } => {
            put_request(&mut encoder, request);
            encoder.u64(original.packed());
            encoder.u16(original.date.0);
        }
    }
    encoder.u8(outcome.response as u8);
    encoder
        .u8(u8::from(outcome.after.is_some()) | u8::from(outcome.original.is_some()) << 1 | u8::from(outcome.paid != [0; 2]) << 2);
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
    let command = match kind {
        POLICY => Command::Policy(Policy { amount_max: decoder.u32()?, identity_days: decoder.u16()? }),
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
        IMPORTED => Command::Imported { file: decoder.text()?, rows: decoder.u32()? },
        SIGN_ON => Command::SignOn {
            request: take_request(&mut decoder)?,
            terminal_nonce: decoder.array()?,
            switch_nonce: decoder.array()?,
        },
        SIGN_OFF => Command::SignOff(take_request(&mut decoder)?),
        PURCHASE => Command::Purchase {
            request: take_request(&mut decoder)?,
            purse: match decoder.u8()? {
                0 => PurseChoice::Policy,
                1 => PurseChoice::Cash,
                2 => PurseChoice::Subsidy,
                _ => return None,
            },
        },
        REVERSAL => {
            let request = take_request(&mut decoder)?;
            let packed = decoder.u64()?;
            Command::Reversal { request, original: Identity::from_packed(packed, Date(decoder.u16()?)) }
        }
        UNKNOWN => Command::Unknown(take_request(&mut decoder)?),
        _ => return None,
    };
    let mut outcome = Outcome::of(Response::from_number(decoder.u8()?)?);
    let present = decoder.u8()?;
    if present > 7 {
        return None;
    }
    if present & 4 != 0 {
        outcome.paid = [decoder.u64()?, decoder.u64()?];
    }
    if present & 1 != 0 {
        outcome.after = Some([decoder.u64()?.cast_signed(), decoder.u64()?.cast_signed()]);
    }
    if present & 2 != 0 {
        outcome.original = Some(decoder.u64()?);
    }
    decoder.0.is_empty().then_some(Decoded { timestamp, command, outcome })
}
