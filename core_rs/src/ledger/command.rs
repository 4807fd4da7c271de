//! Commands: what changes the ledger, and what it did. How the journal holds them says [`super::record`].

use super::accounts::AccountId;
use super::batches::Totals;
use super::identities::{Content, Echo, Identity, Place};
use super::registry::{
    Act, CardClass, CardStatus, Category, EventKind, HolderId, MerchantId, Payee, TerminalId, TerminalKind, TerminalStanding, Zone,
};
use super::response::Response;
use super::rules::Rules;
use super::{Movements, Policy};
use crate::calendar::Date;
use crate::card_number::CardNumber;
use crate::pin::PinVerification;
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

impl PurseChoice {
    pub(super) fn from_number(number: u8) -> Option<Self> {
        [Self::Policy, Self::Cash, Self::Subsidy].get(usize::from(number)).copied()
    }
}

/// What a message's PIN was found to be, before the ledger asks whether it needs one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Pin {
    /// There was none.
    Absent = 0,
    /// It is the card's.
    Right = 1,
    /// It is not the card's, or the card has none.
    Wrong = 2,
}

impl Pin {
    pub(super) fn from_number(number: u8) -> Option<Self> {
        [Self::Absent, Self::Right, Self::Wrong].get(usize::from(number)).copied()
    }
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
    /// A terminal is suspended, or works again.
    Standing {
        /// DE41.
        id: TerminalId,
        /// Whether it may work.
        standing: TerminalStanding,
    },
    /// These rules are in force from here on, in the place of all before.
    Rules(Box<Rules>),
    /// A card has another PIN.
    Pin {
        /// DE2.
        number: CardNumber,
        /// What tells whether a PIN is the card's, and nothing of the PIN without the switch's own key.
        verification: PinVerification,
    },
    /// A hold has lasted as long as it may: what it held is free again.
    Lapse {
        /// The hold's transaction number.
        hold: u64,
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
        /// Its PIN.
        pin: Pin,
    },
    /// A sale that was made while the terminal could not ask.
    OfflineSale {
        /// The message.
        request: Request,
        /// Which purses.
        purse: PurseChoice,
    },
    /// A part of the cash purse is kept back for what a meter will say.
    Hold {
        /// The message.
        request: Request,
        /// Its PIN.
        pin: Pin,
    },
    /// What the meter said of a hold.
    Completion {
        /// The message.
        request: Request,
        /// The hold's transaction number.
        original: u64,
    },
    /// A sale of the day is undone.
    Void {
        /// The message.
        request: Request,
        /// The sale's transaction number.
        original: u64,
    },
    /// A part of a sale is given back.
    Refund {
        /// The message.
        request: Request,
        /// The sale's transaction number.
        original: u64,
    },
    /// Cash was paid in at a counter.
    Load(Request),
    /// A bill is paid.
    BillPayment {
        /// The message.
        request: Request,
        /// Whom it is owed to.
        payee: Payee,
        /// Which bill.
        reference: &'a str,
        /// Its PIN.
        pin: Pin,
    },
    /// A card was shown for something that moves no money.
    Identity {
        /// The message.
        request: Request,
        /// For what.
        act: Act,
        /// What is borrowed or brought back; else empty.
        item: &'a str,
        /// Whether it happened before the switch could be asked.
        is_advice: bool,
    },
    /// A card is reported lost, or found.
    CardReport {
        /// The message.
        request: Request,
        /// Found.
        is_found: bool,
    },
    /// A terminal closes a batch.
    BatchClose {
        /// The message.
        request: Request,
        /// The terminal's totals.
        totals: Box<Totals>,
    },
    /// A meter reports.
    Event {
        /// The message.
        request: Request,
        /// What.
        kind: EventKind,
        /// Where.
        place: &'a str,
        /// How much.
        value: &'a str,
    },
    /// An advice dated outside the days that are kept, or a reversal that is, or whose original is: answered 12, kept for a person,
    /// and not remembered.
    Late {
        /// The message.
        request: Request,
        /// What it is about.
        told: Told<'a>,
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

/// Whether a terminal tells of it when it has happened already: MTI 012x, 022x.
#[must_use]
#[inline]
pub fn is_advice(mti: u16) -> bool {
    matches!(mti / 10, 12 | 22)
}

/// What a message that came too late is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told<'a> {
    /// What moved no money, and what was borrowed or brought back by it; else empty.
    Act(Act, &'a str),
    /// A sale.
    OfflineSale,
    /// Of the hold with this transaction number.
    Completion(u64),
    /// Of this message.
    Reversal(Identity),
    /// An advice whose operation the switch does not know.
    Unknown,
}

impl Told<'_> {
    /// The operation's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Act(act, _) => act.name(),
            Self::OfflineSale => "offline_sale",
            Self::Completion(_) => "completion",
            Self::Reversal(_) => "reversal",
            Self::Unknown => "unknown",
        }
    }
}

impl Command<'_> {
    /// The terminal's request, where a terminal caused the command.
    #[must_use]
    pub fn request(&self) -> Option<&Request> {
        match self {
            Self::SignOn { request, .. }
            | Self::SignOff(request)
            | Self::Purchase { request, .. }
            | Self::OfflineSale { request, .. }
            | Self::Hold { request, .. }
            | Self::Completion { request, .. }
            | Self::Void { request, .. }
            | Self::Refund { request, .. }
            | Self::Load(request)
            | Self::BillPayment { request, .. }
            | Self::Identity { request, .. }
            | Self::CardReport { request, .. }
            | Self::BatchClose { request, .. }
            | Self::Event { request, .. }
            | Self::Late { request, .. }
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
            Self::Standing { .. } => "standing",
            Self::Rules(_) => "rules",
            Self::Pin { .. } => "pin",
            Self::Lapse { .. } => "lapse",
            Self::Imported { .. } => "import",
            Self::SignOn { .. } => "sign_on",
            Self::SignOff(_) => "sign_off",
            Self::Purchase { .. } => "purchase",
            Self::OfflineSale { .. } => "offline_sale",
            Self::Hold { .. } => "hold",
            Self::Completion { .. } => "completion",
            Self::Void { .. } => "void",
            Self::Refund { .. } => "refund",
            Self::Load(_) => "load",
            Self::BillPayment { .. } => "bill_payment",
            Self::Identity { act, .. } => act.name(),
            Self::CardReport { is_found: false, .. } => "loss",
            Self::CardReport { is_found: true, .. } => "found",
            Self::BatchClose { .. } => "batch_close",
            Self::Event { .. } => "event",
            Self::Reversal { .. } => "reversal",
            Self::Late { told, .. } => told.name(),
            Self::Unknown(_) => "unknown",
        }
    }
}

/// What a command did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The decision.
    pub response: Response,
    /// The money that moved. Not in the record: replaying gives it again.
    pub movements: Movements,
    /// What left the cash and the subsidy purse, or reached them: which of the two, the movements say. Of a hold, what it holds of
    /// the cash purse. Fen.
    pub paid: [u64; 2],
    /// Available afterwards in the cash and the subsidy purse of the card's holder, where a card was found. Fen.
    pub after: Option<[i64; 2]>,
    /// The transaction number of what was undone, given back or completed.
    pub original: Option<u64>,
    /// What happened offline and was posted: how it would have been answered if the switch had been asked before, where that is
    /// not 00.
    pub flag: Option<Response>,
    /// The switch's own totals, where a batch was closed with others.
    pub totals: Option<Box<Totals>>,
    /// Where the decision is remembered. Not in the record: replaying gives it again.
    pub place: Option<Place>,
}

impl Outcome {
    /// An outcome that says this and nothing more.
    #[must_use]
    pub fn of(response: Response) -> Self {
        Self {
            response,
            movements: Movements::default(),
            paid: [0; 2],
            after: None,
            original: None,
            flag: None,
            totals: None,
            place: None,
        }
    }
}

/// The accounts that the movements of an outcome touch.
pub fn touched(outcome: &Outcome) -> impl Iterator<Item = AccountId> + '_ {
    outcome.movements.as_slice().iter().flat_map(|movement| [movement.debit, movement.credit])
}
