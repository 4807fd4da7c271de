//! What a message asks for, what it must bring, and which terminals may ask it.

use super::calendar::Day;
use crate::message::{Draft, PinEntry};

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Operation {
    /// 0200 00aa00.
    Purchase,
    /// 0220 00aa00 without DE37.
    OfflineSale,
    /// 0200 020000.
    Void,
    /// 0200 200000.
    Refund,
    /// 0200 210000.
    Load,
    /// 0200 500000.
    Bill,
    /// 0100 000000.
    Hold,
    /// 0220 000000 with DE37.
    Completion,
    /// 0100 310000.
    Balance,
    /// 0100 900000.
    Verify,
    /// 0100 910000.
    Enter,
    /// 0100 920000.
    Leave,
    /// 0100 930000.
    Borrow,
    /// 0100 940000.
    Return,
    /// 0100 950000.
    Attendance,
    /// 0120 with the DE3 of the event.
    Advice(u32),
    /// 0300, DE91 1.
    Loss,
    /// 0300, DE91 3.
    Found,
    /// 0300, DE91 5.
    Hotlist,
    /// 0300 that cannot be read.
    Update,
    /// 0500.
    BatchClose,
    /// 0600.
    Event,
    /// 0400, 0420.
    Reversal,
    /// 0800, DE70 001.
    SignOn,
    /// 0800, DE70 002.
    SignOff,
    /// 0800, DE70 301.
    Echo,
    /// Anything else.
    Unknown,
}

/// Class, DE41, day of DE13, STAN.
pub type Identity = (u8, [u8; 8], Day, u32);

/// The class of an MTI: 01xx and 02xx are one.
#[must_use]
pub fn class(mti: u16) -> u8 {
    match mti / 100 {
        1 | 2 => 2,
        family @ (3..=6 | 8) => family as u8,
        _ => 9,
    }
}

impl Operation {
    /// What a message asks for.
    #[must_use]
    pub fn of(draft: &Draft) -> Self {
        if draft.mti % 10 > 1 {
            return Self::Unknown;
        }
        match (draft.mti / 10, draft.processing, draft.network) {
            (20, Some(0 | 1_000 | 2_000), _) => Self::Purchase,
            (20, Some(20_000), _) => Self::Void,
            (20, Some(200_000), _) => Self::Refund,
            (20, Some(210_000), _) => Self::Load,
            (20, Some(500_000), _) => Self::Bill,
            (22, Some(0), _) if draft.number.is_some() => Self::Completion,
            (22, Some(0 | 1_000 | 2_000), _) if draft.number.is_none() => Self::OfflineSale,
            (10, Some(0), _) => Self::Hold,
            (10, Some(310_000), _) => Self::Balance,
            (10, Some(900_000), _) => Self::Verify,
            (10, Some(910_000), _) => Self::Enter,
            (10, Some(920_000), _) => Self::Leave,
            (10, Some(930_000), _) => Self::Borrow,
            (10, Some(940_000), _) => Self::Return,
            (10, Some(950_000), _) => Self::Attendance,
            (12, Some(event @ (900_000 | 910_000 | 920_000 | 930_000 | 940_000 | 950_000)), _) => Self::Advice(event),
            (30, ..) => match draft.update {
                Some('1') => Self::Loss,
                Some('3') => Self::Found,
                Some('5') => Self::Hotlist,
                _ => Self::Update,
            },
            (40 | 42, ..) => Self::Reversal,
            (50, ..) => Self::BatchClose,
            (60, ..) => Self::Event,
            (80, _, Some(1)) => Self::SignOn,
            (80, _, Some(2)) => Self::SignOff,
            (80, _, Some(301)) => Self::Echo,
            _ => Self::Unknown,
        }
    }

    /// Its name in the coverage and in the switch's own counts.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Purchase => "purchase",
            Self::OfflineSale => "offline_sale",
            Self::Void => "void",
            Self::Refund => "refund",
            Self::Load => "load",
            Self::Bill => "bill_payment",
            Self::Hold => "hold",
            Self::Completion => "completion",
            Self::Balance => "balance",
            Self::Verify => "verify",
            Self::Enter => "enter",
            Self::Leave => "leave",
            Self::Borrow => "borrow",
            Self::Return => "return",
            Self::Attendance => "attendance",
            Self::Advice(_) => "identity_advice",
            Self::Loss => "loss",
            Self::Found => "found",
            Self::Hotlist | Self::Update => "hotlist",
            Self::BatchClose => "batch_close",
            Self::Event => "event",
            Self::Reversal => "reversal",
            Self::SignOn => "sign_on",
            Self::SignOff => "sign_off",
            Self::Echo => "echo",
            Self::Unknown => "unknown",
        }
    }

    /// Whether it tells of what has happened already.
    #[must_use]
    pub fn is_advice(self) -> bool {
        matches!(self, Self::OfflineSale | Self::Completion | Self::Advice(_))
    }

    /// Whether it is for a person where it is dated outside the window.
    pub(super) fn is_kept_when_late(self, mti: u16) -> bool {
        self.is_advice() || self == Self::Reversal || (self == Self::Unknown && matches!(mti / 10, 12 | 22))
    }

    /// Whether its answer has DE54 where the card is named.
    pub(super) fn is_about_purses(self) -> bool {
        matches!(
            self,
            Self::Purchase
                | Self::OfflineSale
                | Self::Void
                | Self::Refund
                | Self::Load
                | Self::Bill
                | Self::Hold
                | Self::Completion
                | Self::Balance
                | Self::Reversal
        )
    }

    /// Whether a terminal of this kind may ask it.
    #[must_use]
    pub fn is_allowed_to(self, kind: &str) -> bool {
        let till = ["pos", "counter"].contains(&kind);
        match self {
            Self::Purchase => till || ["water", "library"].contains(&kind),
            Self::OfflineSale => till || kind == "water",
            Self::Void | Self::Refund => till,
            Self::Load => kind == "counter",
            Self::Bill | Self::Loss | Self::Found => ["kiosk", "counter"].contains(&kind),
            Self::Balance => till || ["kiosk", "water"].contains(&kind),
            Self::Verify => till || ["kiosk", "gate", "library"].contains(&kind),
            Self::Hold | Self::Completion => kind == "water",
            Self::Enter | Self::Leave | Self::Attendance | Self::Advice(910_000 | 920_000 | 950_000) => kind == "gate",
            Self::Borrow | Self::Return | Self::Advice(930_000 | 940_000) => kind == "library",
            Self::Advice(_) => ["gate", "library"].contains(&kind),
            Self::Event => kind == "meter",
            _ => true,
        }
    }

    /// Whether something that it needs is missing or is not what it may be. `version` is the hotlist's.
    pub(super) fn lacks(self, draft: &Draft, version: u64) -> bool {
        let number = || draft.number.as_ref().is_some_and(|text| text.len() == 12 && text.bytes().all(|one| one.is_ascii_digit()));
        let card = draft.card.is_some();
        let paid = card && draft.amount.is_some();
        let held = || draft.tag(50).filter(|text| text.len() == 10).and_then(|text| text.parse::<u64>().ok());
        let item = || draft.tag(11).is_some_and(|item| !item.is_empty());
        let is_there = match self {
            Self::Purchase | Self::OfflineSale => paid && draft.merchant.is_some() && draft.currency,
            Self::Void => number(),
            Self::Refund | Self::Completion => number() && draft.amount.is_some(),
            Self::Load | Self::Hold => paid,
            Self::Bill => {
                let kind = draft.tag(30).is_some_and(|kind| ["01", "02", "03", "04"].contains(&kind));
                paid && kind && draft.tag(31).is_some_and(|reference| !reference.is_empty())
            }
            Self::Borrow | Self::Return | Self::Advice(930_000 | 940_000) => card && item(),
            Self::Balance | Self::Verify | Self::Enter | Self::Leave | Self::Attendance | Self::Advice(_) => card,
            Self::Loss | Self::Found => card && draft.file == Some("HOTLIST"),
            Self::Hotlist => draft.file == Some("HOTLIST") && held().is_some_and(|held| held <= version),
            Self::Update => false,
            Self::BatchClose => draft.batch.is_some() && draft.totals.is_some(),
            Self::Event => draft.tag(40).is_some_and(|kind| ["01", "02", "03", "04"].contains(&kind)),
            Self::SignOn => draft.nonce.is_some(),
            Self::Reversal | Self::SignOff | Self::Echo | Self::Unknown => true,
        };
        !is_there || draft.pin == Some(PinEntry::Short) || draft.batch == Some(0)
    }
}
