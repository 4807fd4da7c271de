//! Decisions as values: the response codes of DE39, in the order in which they are decided.

/// A decision. The discriminant is what the journal holds, so it never changes; the order of the variants is the order in
/// which the reasons are looked at, so the first that applies is the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Response {
    /// 30: a data element is malformed or missing.
    FormatError = 1,
    /// 58: the terminal is unknown, not its merchant's, or not allowed this operation.
    TerminalNotPermitted = 2,
    /// 63: the MAC is wrong or missing, or there is no session.
    SecurityViolation = 3,
    /// 12: the operation is not known, impossible here, or dated outside the identity window.
    InvalidTransaction = 4,
    /// 94: a known identity with different content.
    DuplicateDiffers = 5,
    /// 13: amount zero or above the ceiling.
    InvalidAmount = 6,
    /// 14: no such card.
    NoSuchCard = 7,
    /// 41: the card is reported lost.
    CardLost = 8,
    /// 62: the card is frozen or blacklisted.
    CardFrozen = 9,
    /// 78: the card is not yet active, or cancelled.
    CardInactive = 10,
    /// 54: the card has expired.
    CardExpired = 11,
    /// 57: this card class may not do this here, or not now.
    NotPermitted = 12,
    /// 75: too many wrong PINs in a row.
    PinTriesUsedUp = 17,
    /// 55: the PIN is wrong, or missing where it is needed.
    PinWrong = 18,
    /// 25: what it refers to is not there.
    OriginalNotFound = 19,
    /// 61: beyond the limit of one transaction or of the day, or beyond what is left of the original.
    AmountLimit = 20,
    /// 65: as often as is allowed already.
    CountLimit = 21,
    /// 51: the purses do not cover it.
    InsufficientFunds = 13,
    /// 91: it cannot be made durable now; nothing was changed.
    Unavailable = 14,
    /// 95: the terminal's totals are not the switch's.
    TotalsDiffer = 22,
    /// 96: malfunction; nothing was changed.
    Malfunction = 15,
    /// 00: done.
    Approved = 16,
}

/// Every decision at the place of its number; the numbers begin at 1.
const BY_NUMBER: [Option<Response>; Response::ALL.len() + 1] = {
    let mut by_number = [None; Response::ALL.len() + 1];
    let mut index = 0;
    while index < Response::ALL.len() {
        by_number[Response::ALL[index] as usize] = Some(Response::ALL[index]);
        index += 1;
    }
    by_number
};

impl Response {
    /// All of them, in the order in which they are decided.
    pub const ALL: [Self; 22] = [
        Self::FormatError,
        Self::TerminalNotPermitted,
        Self::SecurityViolation,
        Self::InvalidTransaction,
        Self::DuplicateDiffers,
        Self::InvalidAmount,
        Self::NoSuchCard,
        Self::CardLost,
        Self::CardFrozen,
        Self::CardInactive,
        Self::CardExpired,
        Self::NotPermitted,
        Self::PinTriesUsedUp,
        Self::PinWrong,
        Self::OriginalNotFound,
        Self::AmountLimit,
        Self::CountLimit,
        Self::InsufficientFunds,
        Self::Unavailable,
        Self::TotalsDiffer,
        Self::Malfunction,
        Self::Approved,
    ];

    /// The two characters of DE39.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::FormatError => "30",
            Self::TerminalNotPermitted => "58",
            Self::SecurityViolation => "63",
            Self::InvalidTransaction => "12",
            Self::DuplicateDiffers => "94",
            Self::InvalidAmount => "13",
            Self::NoSuchCard => "14",
            Self::CardLost => "41",
            Self::CardFrozen => "62",
            Self::CardInactive => "78",
            Self::CardExpired => "54",
            Self::NotPermitted => "57",
            Self::PinTriesUsedUp => "75",
            Self::PinWrong => "55",
            Self::OriginalNotFound => "25",
            Self::AmountLimit => "61",
            Self::CountLimit => "65",
            Self::InsufficientFunds => "51",
            Self::Unavailable => "91",
            Self::TotalsDiffer => "95",
            Self::Malfunction => "96",
            Self::Approved => "00",
        }
    }

    /// Whether a decision of this kind is remembered under its identity, and so journaled. After the others the terminal may
    /// send the same message again and have it decided afresh.
    #[must_use]
    pub fn is_remembered(self) -> bool {
        !matches!(
            self,
            Self::FormatError | Self::TerminalNotPermitted | Self::SecurityViolation | Self::Unavailable | Self::Malfunction
        )
    }

    /// The decision with this journal number, if there is one.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        BY_NUMBER.get(usize::from(number)).copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_permanent_and_codes_differ() {
        let mut numbers: Vec<u8> = Response::ALL.iter().map(|&response| response as u8).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=22).collect::<Vec<u8>>());
        for response in &Response::ALL {
            assert_eq!(Response::from_number(*response as u8), Some(*response));
            assert_eq!(Response::ALL.iter().filter(|other| other.code() == response.code()).count(), 1);
        }
        assert_eq!(Response::from_number(0), None);
        assert_eq!(Response::from_number(23), None);
    }
}
