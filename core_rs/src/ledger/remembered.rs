//! One remembered decision, and how it is kept.
//!
//! Millions are kept, so each is packed into seven words: [`Packed`]. What does not fit them cannot have been decided.

use super::batches::Totals;
use super::bytes::{Decoder, Encoder};
use super::identities::{Content, Echo, FAMILY_SHIFT, Identity, STAN_AND_TERMINAL_BITS};
use super::registry::{NONE, Payee};
use super::response::Response;
use crate::calendar::Date;

/// What an approved decision did, as far as anything later asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Deed {
    /// Nothing that could be undone, given back or completed.
    Nothing = 0,
    /// A sale.
    Purchase = 1,
    /// A sale that was made offline.
    OfflineSale = 2,
    /// A metered sale.
    Completion = 3,
    /// An amount kept back.
    Hold = 4,
    /// Cash paid in.
    Load = 5,
    /// A bill paid.
    BillPayment = 6,
    /// A part of a sale given back.
    Refund = 7,
    /// A sale undone.
    Void = 8,
    /// A report on which a room is cut off.
    Trip = 9,
    /// Any other report.
    Report = 10,
}

impl Deed {
    const ALL: [Self; 11] = [
        Self::Nothing,
        Self::Purchase,
        Self::OfflineSale,
        Self::Completion,
        Self::Hold,
        Self::Load,
        Self::BillPayment,
        Self::Refund,
        Self::Void,
        Self::Trip,
        Self::Report,
    ];

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Whether goods were sold, so that a part of what was paid can be given back.
    #[must_use]
    pub fn is_sale(self) -> bool {
        matches!(self, Self::Purchase | Self::OfflineSale | Self::Completion)
    }
}

/// What became of the identity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    /// A decision that left nothing to undo.
    Decided = 0,
    /// What it did stands.
    Standing = 1,
    /// What it did was undone; of a hold, that it was completed or has lapsed too.
    Undone = 2,
    /// Reversed before it came: it has no decision yet, and when it comes it takes nothing.
    Tombstone = 3,
}

impl State {
    fn from_number(number: u8) -> Option<Self> {
        [Self::Decided, Self::Standing, Self::Undone, Self::Tombstone].get(usize::from(number)).copied()
    }
}

/// One remembered decision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Remembered {
    pub(super) identity: u64,
    /// What the message said.
    pub content: Content,
    /// What its reply echoes besides.
    pub echo: Echo,
    /// The transaction number, in the lower 40 bits (DE37 has twelve digits); the merchant's index above.
    pub(super) position_and_merchant: u64,
    /// Available in the cash purse after it, in fen.
    pub cash_after: i64,
    /// Available in the subsidy purse after it, in fen.
    pub subsidy_after: i64,
    /// What the subsidy purse paid or got.
    pub subsidy: u32,
    /// The business date of the decision, DE15.
    pub business_date: Date,
    /// The decision.
    pub response: Response,
    /// What it did.
    pub deed: Deed,
    /// What became of it.
    pub state: State,
    /// Whether there is an [`Extra`] beside it.
    pub has_extra: bool,
}

/// What few decisions have beside what all have.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Extra {
    /// What the purses paid or got in all, where that is not DE4: with a surcharge, a discount, or a hold of less than was asked. Fen.
    pub paid: Option<u64>,
    /// Of a sale's DE4, what refunds have given back. Fen.
    pub refunded: u64,
    /// What the cash and the subsidy purse have got back by that. Fen.
    pub given_back: [u64; 2],
    /// The transaction number of what was given back or completed; 0: none.
    pub original: u64,
    /// The index of the card whose purses it touched, where the message named none.
    pub card: Option<u32>,
    /// Whom a bill was paid to.
    pub payee: Option<Payee>,
    /// The switch's own totals, where a batch was closed with others.
    pub totals: Option<Box<Totals>>,
}

impl Extra {
    /// Into the state's image.
    pub(super) fn put(&self, row: &mut Encoder<'_>) {
        row.u64(self.paid.map_or(0, |paid| paid + 1));
        row.u64(self.refunded);
        self.given_back.iter().for_each(|&fen| row.u64(fen));
        row.u64(self.original);
        row.u32(self.card.unwrap_or(NONE));
        row.u8(self.payee.map_or(0, |payee| payee as u8));
        row.u8(u8::from(self.totals.is_some()));
        if let Some(totals) = &self.totals {
            totals.put(row);
        }
    }

    /// From the state's image, where there are so many cards.
    pub(super) fn take(row: &mut Decoder<'_>, cards: usize) -> Option<Self> {
        let paid = row.u64()?.checked_sub(1);
        let (refunded, given_back) = (row.u64()?, [row.u64()?, row.u64()?]);
        let (original, card) = (row.u64()?, row.u32()?);
        if card != NONE && card as usize >= cards {
            return None;
        }
        let payee = match row.u8()? {
            0 => None,
            number => Some(Payee::from_number(number)?),
        };
        let totals = match row.u8()? {
            0 => None,
            1 => Some(Box::new(Totals::take(row)?)),
            _ => return None,
        };
        Some(Self { paid, refunded, given_back, original, card: (card != NONE).then_some(card), payee, totals })
    }
}

const POSITION_BITS: u32 = 40;
/// In the place of a balance: no card was found. No account can hold it.
const NO_PURSES: i64 = i64::MIN;

impl Remembered {
    /// A decision as it is first remembered.
    #[must_use]
    pub fn new(
        identity: Identity,
        content: Content,
        echo: Echo,
        position: u64,
        merchant: u32,
        business_date: Date,
        response: Response,
    ) -> Self {
        assert!(position < 1 << POSITION_BITS && merchant < 1 << 24, "positions have twelve digits, merchants 24 bits");
        Self {
            identity: identity.packed(),
            content,
            echo,
            position_and_merchant: position | u64::from(merchant) << POSITION_BITS,
            cash_after: NO_PURSES,
            subsidy_after: 0,
            subsidy: 0,
            business_date,
            response,
            deed: Deed::Nothing,
            state: State::Decided,
            has_extra: false,
        }
    }

    /// The transaction number.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position_and_merchant & ((1 << POSITION_BITS) - 1)
    }

    /// Available afterwards in cash and subsidy purse, where the decision found a card. A card that is entered later makes
    /// no difference: the answer is stored.
    #[must_use]
    pub fn after(&self) -> Option<[i64; 2]> {
        (self.cash_after != NO_PURSES).then_some([self.cash_after, self.subsidy_after])
    }

    /// The index of the merchant that was credited.
    #[must_use]
    pub fn merchant(&self) -> u32 {
        (self.position_and_merchant >> POSITION_BITS) as u32
    }

    /// Whose it is, where it stands on this day of DE13.
    #[must_use]
    pub fn identity(&self, date: Date) -> Identity {
        Identity::from_packed(self.identity, date)
    }

    /// Into the state's image.
    pub(super) fn put(&self, row: &mut Encoder<'_>) {
        let [card, rest] = self.content.packed();
        let [cash_after, subsidy_after] = [self.cash_after, self.subsidy_after].map(i64::cast_unsigned);
        for word in [self.identity, card, rest, self.echo.packed(), self.position_and_merchant, cash_after, subsidy_after] {
            row.u64(word);
        }
        row.u32(self.subsidy);
        row.u16(self.business_date.0);
        row.u8(self.response as u8);
        row.u8(self.state as u8 | (self.deed as u8) << 2 | u8::from(self.has_extra) << 6);
    }

    /// From the state's image.
    pub(super) fn take(row: &mut Decoder<'_>) -> Option<Self> {
        let entry = Self {
            identity: row.u64()?,
            content: Content::from_packed([row.u64()?, row.u64()?]),
            echo: Echo::from_packed(row.u64()?),
            position_and_merchant: row.u64()?,
            cash_after: row.u64()?.cast_signed(),
            subsidy_after: row.u64()?.cast_signed(),
            subsidy: row.u32()?,
            business_date: Date(row.u16()?),
            response: Response::from_number(row.u8()?)?,
            deed: Deed::Nothing,
            state: State::Decided,
            has_extra: false,
        };
        let became = row.u8()?;
        let (deed, state) = (Deed::from_number(became >> 2 & 15)?, State::from_number(became & 3)?);
        (became < 1 << 7).then_some(Self { deed, state, has_extra: became >> 6 == 1, ..entry })
    }
}

/// A [`Remembered`] in 56 bytes.
#[derive(Clone, Copy)]
pub(super) struct Packed([u64; 7]);

const _: () = assert!(size_of::<Packed>() == 56);

/// Bits of a balance, with half of their range below zero: an account holds less than 10^12 fen. In the cash purse's place
/// zero bits stand for [`NO_PURSES`].
const BALANCE_BITS: u32 = 42;
const BALANCE_BIAS: i64 = 1 << (BALANCE_BITS - 1);
/// Bits of family, terminal and STAN.
const WHO_BITS: u32 = STAN_AND_TERMINAL_BITS + 3;
const RESPONSE_SHIFT: u32 = BALANCE_BITS;
const RESPONSE_BITS: u32 = 5;
const STATE_SHIFT: u32 = RESPONSE_SHIFT + RESPONSE_BITS;
const DEED_SHIFT: u32 = STATE_SHIFT + 2;
const EXTRA_SHIFT: u32 = DEED_SHIFT + 4;
const SUBSIDY_HIGH_SHIFT: u32 = EXTRA_SHIFT + 1;
/// Of the subsidy's 32 bits, those that stand beside the subsidy purse's balance; the others stand beside the cash purse's.
const SUBSIDY_LOW_BITS: u32 = 22;

const _: () = assert!(SUBSIDY_HIGH_SHIFT + u32::BITS - SUBSIDY_LOW_BITS == u64::BITS, "all of them fit the word");
const _: () = assert!(Response::ALL.len() < 1 << RESPONSE_BITS && Deed::ALL.len() <= 1 << 4);

/// The lowest `count` bits.
const fn low(word: u64, count: u32) -> u64 {
    word & ((1 << count) - 1)
}

impl Packed {
    /// Packs a decision; `None` where a value is beyond what there can be.
    #[inline]
    pub(super) fn new(entry: &Remembered) -> Option<Self> {
        let [card, rest] = entry.content.packed();
        let who = low(entry.identity, STAN_AND_TERMINAL_BITS) | entry.identity >> FAMILY_SHIFT << STAN_AND_TERMINAL_BITS;
        let cash = if entry.cash_after == NO_PURSES { 0 } else { biased(entry.cash_after)? };
        let subsidy = u64::from(entry.subsidy);
        let packed = Self([
            card,
            rest,
            entry.echo.packed(),
            entry.position_and_merchant,
            low(who, WHO_BITS) | u64::from(entry.business_date.0) << WHO_BITS,
            cash | (entry.response as u64) << RESPONSE_SHIFT
                | (entry.state as u64) << STATE_SHIFT
                | (entry.deed as u64) << DEED_SHIFT
                | u64::from(entry.has_extra) << EXTRA_SHIFT
                | subsidy >> SUBSIDY_LOW_BITS << SUBSIDY_HIGH_SHIFT,
            biased(entry.subsidy_after)? | low(subsidy, SUBSIDY_LOW_BITS) << BALANCE_BITS,
        ]);
        (packed.identity() == entry.identity).then_some(packed)
    }

    /// The identity's packed part.
    #[inline]
    pub(super) fn identity(&self) -> u64 {
        let word = self.0[4];
        low(word, STAN_AND_TERMINAL_BITS) | low(word >> STAN_AND_TERMINAL_BITS, 3) << FAMILY_SHIFT
    }

    /// The transaction number.
    #[inline]
    pub(super) fn position(&self) -> u64 {
        low(self.0[3], POSITION_BITS)
    }

    /// What became of it.
    #[inline]
    pub(super) fn state(&self) -> State {
        State::from_number(low(self.0[5] >> STATE_SHIFT, 2) as u8).expect("two bits are one of four states")
    }

    /// Unpacks it.
    #[inline]
    pub(super) fn unpack(&self) -> Remembered {
        let [card, rest, echo, position_and_merchant, who, cash, subsidy] = self.0;
        let cash_after = low(cash, BALANCE_BITS);
        Remembered {
            identity: self.identity(),
            content: Content::from_packed([card, rest]),
            echo: Echo::from_packed(echo),
            position_and_merchant,
            cash_after: if cash_after == 0 { NO_PURSES } else { cash_after.cast_signed() - BALANCE_BIAS },
            subsidy_after: low(subsidy, BALANCE_BITS).cast_signed() - BALANCE_BIAS,
            subsidy: (subsidy >> BALANCE_BITS | cash >> SUBSIDY_HIGH_SHIFT << SUBSIDY_LOW_BITS) as u32,
            business_date: Date((who >> WHO_BITS) as u16),
            response: Response::from_number(low(cash >> RESPONSE_SHIFT, RESPONSE_BITS) as u8)
                .expect("it was packed from a response"),
            deed: Deed::from_number(low(cash >> DEED_SHIFT, 4) as u8).expect("it was packed from a deed"),
            state: self.state(),
            has_extra: low(cash >> EXTRA_SHIFT, 1) == 1,
        }
    }
}

/// A balance as bits above zero.
#[inline]
fn biased(fen: i64) -> Option<u64> {
    let bits = fen.checked_add(BALANCE_BIAS)?;
    (1..2 * BALANCE_BIAS).contains(&bits).then_some(bits.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::super::identities::Family;
    use super::*;
    use crate::card_number::CardNumber;

    #[test]
    fn what_is_packed_is_unpacked_again_and_what_does_not_fit_is_refused() {
        let card = CardNumber::from_digits(b"9999999999999999999");
        let content = Content::new(card, Some(999_999), Some(999_999_999_999), true);
        let echo = Echo::new(235_959, Some(999), Some(999_999), Some(999), true);
        let identity = Identity::new(Family::Other, (1 << 24) - 1, Date(9_000), 999_999);
        let widest = Remembered {
            cash_after: -999_999_999_999,
            subsidy_after: 999_999_999_999,
            subsidy: u32::MAX,
            state: State::Tombstone,
            deed: Deed::Report,
            has_extra: true,
            ..Remembered::new(identity, content, echo, (1 << 40) - 1, (1 << 24) - 1, Date(u16::MAX), Response::Approved)
        };
        assert_eq!(Packed::new(&widest).unwrap().unpack(), widest);
        let nothing = Content::new(None, None, None, false);
        let least = Remembered::new(
            Identity::new(Family::File, 0, Date(0), 0),
            nothing,
            Echo::default(),
            0,
            0,
            Date(0),
            Response::FormatError,
        );
        for state in [State::Decided, State::Standing, State::Undone] {
            let least = Remembered { state, ..least };
            assert_eq!(Packed::new(&least).unwrap().unpack(), least);
            assert_eq!((Packed::new(&least).unwrap().state(), least.after()), (state, None));
        }
        for (cash_after, subsidy_after) in [(1 << 41, 0), (0, 1 << 41), (-(1 << 41), 0), (i64::MAX, 0), (0, i64::MIN)] {
            assert!(Packed::new(&Remembered { cash_after, subsidy_after, ..widest }).is_none());
        }
        for bit in [44, 51, 52, 59, 63] {
            let identity = 7_u64 | 1 << bit;
            assert!(Packed::new(&Remembered { identity, ..widest }).is_none(), "bit {bit}");
        }
    }
}
