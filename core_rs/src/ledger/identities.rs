//! What the switch remembers of each decision, so that a message sent again changes nothing.
//!
//! An identity is (class, terminal, day of DE13, STAN). For each there is one [`Remembered`]: enough to give the stored
//! answer again byte for byte, to see whether the content is the same, and to undo what was done.
//!
//! How it works: one [`Shelf`] a day of DE13, dropped whole when the day leaves the window.

use std::collections::BTreeMap;

pub use super::remembered::{Deed, Extra, Remembered, State};
use super::shelf::Shelf;
use crate::calendar::Date;
use crate::card_number::CardNumber;

/// Which messages share identities.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Family {
    /// 01xx and 02xx: financial and identity messages.
    Financial = 0,
    /// 03xx: file updates.
    File = 1,
    /// 04xx: reversals.
    Reversal = 2,
    /// 05xx: batch close.
    Batch = 3,
    /// 06xx: events.
    Event = 4,
    /// 08xx: network management.
    Network = 5,
    /// Every other MTI.
    Other = 6,
}

impl Family {
    /// The family of an MTI.
    #[must_use]
    pub fn of(mti: u16) -> Self {
        match mti / 100 {
            1 | 2 => Self::Financial,
            3 => Self::File,
            4 => Self::Reversal,
            5 => Self::Batch,
            6 => Self::Event,
            8 => Self::Network,
            _ => Self::Other,
        }
    }
}

/// Bits of STAN and terminal in an identity's packed part; a family stands from [`FAMILY_SHIFT`] on.
pub(super) const STAN_AND_TERMINAL_BITS: u32 = STAN_BITS + TERMINAL_BITS;
pub(super) const STAN_BITS: u32 = 20;
/// Bits of a terminal's index.
pub(super) const TERMINAL_BITS: u32 = 24;
pub(super) const FAMILY_SHIFT: u32 = 56;

/// What makes a message the same message: family, terminal, STAN (packed) and the day of DE13.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    packed: u64,
    /// The day of DE13, in the year nearest to the switch's clock.
    pub date: Date,
}

impl Identity {
    /// Packs an identity; `stan` is DE11, below 1,000,000.
    #[must_use]
    pub fn new(family: Family, terminal: u32, date: Date, stan: u32) -> Self {
        assert!(stan < 1_000_000, "DE11 has six digits");
        Self { packed: u64::from(family as u8) << FAMILY_SHIFT | u64::from(terminal) << STAN_BITS | u64::from(stan), date }
    }

    /// Whether it is what [`Self::new`] makes for a message of this family.
    pub(super) fn is_well_formed(self, family: Family) -> bool {
        self.stan() < 1_000_000 && self == Self::new(family, self.terminal(), self.date, self.stan())
    }

    /// The terminal's index.
    #[must_use]
    pub fn terminal(self) -> u32 {
        (self.packed >> STAN_BITS) as u32
    }

    /// DE11.
    #[must_use]
    pub fn stan(self) -> u32 {
        (self.packed & ((1 << STAN_BITS) - 1)) as u32
    }

    /// The packed part, for the journal.
    #[must_use]
    pub fn packed(self) -> u64 {
        self.packed
    }

    /// From the journal.
    #[must_use]
    pub fn from_packed(packed: u64, date: Date) -> Self {
        Self { packed, date }
    }
}

/// DE2, DE3, DE4 and DE49 as they came, presence included: the same identity with the same content is the same message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Content {
    card: u64,
    rest: u64,
}

const AMOUNT_BITS: u32 = 40;
const PROCESSING_SHIFT: u32 = AMOUNT_BITS;
const HAS_AMOUNT: u64 = 1 << 60;
const HAS_PROCESSING: u64 = 1 << 61;
const HAS_CURRENCY: u64 = 1 << 62;
const NO_CARD: u64 = u64::MAX;

impl Content {
    /// Packs the content; `processing` is DE3 (below 1,000,000), `amount` DE4 (below 10^12), `currency` whether DE49 (which
    /// can only be 156) is there.
    #[must_use]
    pub fn new(card: Option<CardNumber>, processing: Option<u32>, amount: Option<u64>, currency: bool) -> Self {
        let mut rest = 0;
        if let Some(amount) = amount {
            assert!(amount < 1 << AMOUNT_BITS, "DE4 has twelve digits");
            rest |= HAS_AMOUNT | amount;
        }
        if let Some(processing) = processing {
            assert!(processing < 1_000_000, "DE3 has six digits");
            rest |= HAS_PROCESSING | u64::from(processing) << PROCESSING_SHIFT;
        }
        if currency {
            rest |= HAS_CURRENCY;
        }
        Self { card: card.map_or(NO_CARD, CardNumber::packed), rest }
    }

    /// DE2.
    #[must_use]
    pub fn card(self) -> Option<CardNumber> {
        CardNumber::from_packed(self.card)
    }

    /// DE4 in fen.
    #[must_use]
    pub fn amount(self) -> Option<u64> {
        (self.rest & HAS_AMOUNT != 0).then_some(self.rest & ((1 << AMOUNT_BITS) - 1))
    }

    /// DE3.
    #[must_use]
    pub fn processing(self) -> Option<u32> {
        (self.rest & HAS_PROCESSING != 0).then_some((self.rest >> PROCESSING_SHIFT & 0xf_ffff) as u32)
    }

    /// Whether DE49 was there.
    #[must_use]
    pub fn has_currency(self) -> bool {
        self.rest & HAS_CURRENCY != 0
    }

    /// The two words, for the journal.
    #[must_use]
    pub fn packed(self) -> [u64; 2] {
        [self.card, self.rest]
    }

    /// From the journal.
    #[must_use]
    pub fn from_packed([card, rest]: [u64; 2]) -> Self {
        Self { card, rest }
    }
}

/// The elements of a request that its reply echoes and that are not part of the content: a message sent again gets the
/// first one's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Echo(u64);

impl Echo {
    /// Packs DE12 (hhmmss), DE24, DE60 (batch number), DE70 and whether DE42 is there.
    #[must_use]
    pub fn new(time: u32, nii: Option<u16>, batch: Option<u32>, network: Option<u16>, merchant: bool) -> Self {
        assert!(time < 1 << 20 && nii.unwrap_or(0) < 1 << 10 && batch.unwrap_or(0) < 1 << 20 && network.unwrap_or(0) < 1 << 10);
        let optional = |value: Option<u32>, shift: u32| value.map_or(0, |value| u64::from(value) << 1 << shift | 1 << shift);
        Self(
            u64::from(time)
                | optional(nii.map(u32::from), 20)
                | optional(batch, 31)
                | optional(network.map(u32::from), 52)
                | u64::from(merchant) << 63,
        )
    }

    fn optional(self, shift: u32, bits: u32) -> Option<u32> {
        (self.0 >> shift & 1 == 1).then_some((self.0 >> (shift + 1)) as u32 & ((1 << bits) - 1))
    }

    /// DE12, hhmmss as a number.
    #[must_use]
    pub fn time(self) -> u32 {
        self.0 as u32 & 0xf_ffff
    }

    /// DE24.
    #[must_use]
    pub fn nii(self) -> Option<u32> {
        self.optional(20, 10)
    }

    /// DE60.
    #[must_use]
    pub fn batch(self) -> Option<u32> {
        self.optional(31, 20)
    }

    /// DE70.
    #[must_use]
    pub fn network(self) -> Option<u32> {
        self.optional(52, 10)
    }

    /// Whether DE42 was there.
    #[must_use]
    pub fn merchant(self) -> bool {
        self.0 >> 63 == 1
    }

    /// The word, for the journal.
    #[must_use]
    pub fn packed(self) -> u64 {
        self.0
    }

    /// From the journal.
    #[must_use]
    pub fn from_packed(packed: u64) -> Self {
        Self(packed)
    }
}

/// Where a [`Remembered`] stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    date: Date,
    index: u32,
}

impl Place {
    /// The day of DE13.
    #[must_use]
    pub fn date(self) -> Date {
        self.date
    }
}

/// Every identity in the window.
#[derive(Default)]
pub struct Identities {
    shelves: BTreeMap<Date, Shelf>,
}

impl Identities {
    /// Where this identity is remembered.
    #[must_use]
    #[inline]
    pub fn find(&self, identity: Identity) -> Option<Place> {
        let index = self.shelves.get(&identity.date)?.find(identity.packed)?;
        Some(Place { date: identity.date, index })
    }

    /// What is remembered there.
    ///
    /// # Panics
    /// If the place's day has left the window.
    #[must_use]
    #[inline]
    pub fn get(&self, place: Place) -> Remembered {
        self.shelves[&place.date].get(place.index)
    }

    /// Where the decision with this transaction number is remembered. The newest days are looked through first.
    #[must_use]
    pub fn at(&self, position: u64) -> Option<Place> {
        let mut days = self.shelves.iter().rev();
        days.find_map(|(&date, shelf)| shelf.at(position).map(|index| Place { date, index }))
    }

    /// What it has besides, if anything.
    #[must_use]
    pub fn extra(&self, place: Place) -> Option<&Extra> {
        self.shelves[&place.date].extra(place.index)
    }

    /// What it has besides, to be changed.
    pub(super) fn extra_mut(&mut self, place: Place) -> &mut Extra {
        self.shelf(place.date).extra_mut(place.index)
    }

    fn shelf(&mut self, date: Date) -> &mut Shelf {
        self.shelves.get_mut(&date).expect("a place is on a shelf")
    }

    /// Changes what became of it.
    pub(super) fn set_state(&mut self, place: Place, state: State) {
        let shelf = self.shelf(place.date);
        let changed = Remembered { state, ..shelf.get(place.index) };
        shelf.set(place.index, &changed);
    }

    /// Takes note that the refunds of the sale with this transaction number can be undone no more.
    pub(super) fn undo_refunds(&mut self, sale: u64) {
        for shelf in self.shelves.values_mut() {
            shelf.undo_refunds(sale);
        }
    }

    /// The switch nonce that the sign-on with this transaction number was answered with.
    #[must_use]
    pub fn nonce(&self, place: Place, position: u64) -> Option<[u8; 8]> {
        self.shelves.get(&place.date)?.nonce(position)
    }

    /// Puts a decision into memory, in the place of a tombstone if one stands under its identity.
    pub(super) fn remember(&mut self, date: Date, entry: &Remembered) -> Place {
        let shelf = self.shelves.entry(date).or_default();
        Place { date, index: shelf.add(entry).expect("an identity is decided once, within the bounds of what there is") }
    }

    pub(super) fn keep_nonce(&mut self, place: Place, position: u64, nonce: [u8; 8]) {
        self.shelf(place.date).keep_nonce(position, nonce);
    }

    /// Forgets the days before `oldest`.
    pub(super) fn forget_before(&mut self, oldest: Date) {
        self.shelves = self.shelves.split_off(&oldest);
    }

    /// All that are remembered, with their days.
    pub fn all(&self) -> impl Iterator<Item = (Date, Remembered)> {
        self.shelves.iter().flat_map(|(&date, shelf)| shelf.entries().map(move |entry| (date, entry)))
    }

    /// Those that stand, with their places.
    pub(super) fn standing(&self) -> impl Iterator<Item = (Place, Remembered)> {
        let each = |(&date, shelf)| (0..).map(move |index| Place { date, index }).zip(Shelf::entries(shelf));
        self.shelves.iter().flat_map(each).filter(|(_, decided)| decided.state == State::Standing)
    }

    /// How many are remembered.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shelves.values().map(Shelf::count).sum()
    }

    /// Bytes held.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.shelves.values().map(Shelf::memory).sum()
    }

    /// The days that are remembered, in order.
    pub(super) fn shelves(&self) -> &BTreeMap<Date, Shelf> {
        &self.shelves
    }

    /// Puts a day's shelf in its place.
    pub(super) fn put(&mut self, date: Date, shelf: Shelf) {
        self.shelves.insert(date, shelf);
    }
}

#[cfg(test)]
mod tests {
    use super::super::response::Response;
    use super::*;

    #[test]
    fn packed_words_give_back_what_was_put_in() {
        let identity = Identity::new(Family::Other, 0xff_fffe, Date(9_000), 999_999);
        assert_eq!((identity.terminal(), identity.stan()), (0xff_fffe, 999_999));
        let echo = Echo::new(235_959, Some(999), Some(999_999), Some(999), true);
        assert_eq!(
            (echo.time(), echo.nii(), echo.batch(), echo.network(), echo.merchant()),
            (235_959, Some(999), Some(999_999), Some(999), true)
        );
        let none = Echo::new(0, None, None, None, false);
        assert_eq!((none.time(), none.nii(), none.batch(), none.network(), none.merchant()), (0, None, None, None, false));
        let zeros = Echo::new(0, Some(0), Some(0), Some(0), false);
        assert_eq!((zeros.nii(), zeros.batch(), zeros.network()), (Some(0), Some(0), Some(0)));
        let content = Content::new(CardNumber::from_digits(b"9999999999999999999"), Some(999_999), Some(999_999_999_999), true);
        assert_eq!((content.amount(), content.processing()), (Some(999_999_999_999), Some(999_999)));
        assert_eq!(content.card(), CardNumber::from_digits(b"9999999999999999999"));
        assert_ne!(content, Content::new(content.card(), Some(999_999), Some(999_999_999_999), false));
        assert_ne!(Content::new(None, Some(0), None, false), Content::new(None, None, None, false));
        assert_eq!(Content::new(None, None, None, false).card(), None);
    }

    #[test]
    fn families_follow_the_mti() {
        for (mti, family) in
            [(100, 0), (120, 0), (201, 0), (300, 1), (421, 2), (500, 3), (600, 4), (800, 5), (700, 6), (0, 6), (1200, 6)]
        {
            assert_eq!(Family::of(mti) as u8, family, "{mti:04}");
        }
    }

    #[test]
    fn a_day_that_leaves_the_window_is_forgotten_whole() {
        let mut identities = Identities::default();
        let content = Content::new(None, None, None, false);
        for day in 10..14 {
            for stan in 0..100 {
                let identity = Identity::new(Family::Financial, 7, Date(day), stan);
                assert_eq!(identities.find(identity), None);
                let position = u64::from(day) * 100 + u64::from(stan) + 1;
                identities.remember(
                    Date(day),
                    &Remembered::new(identity, content, Echo::default(), position, 3, Date(day), Response::Approved),
                );
            }
        }
        identities.forget_before(Date(12));
        assert_eq!(identities.count(), 200);
        assert_eq!(identities.find(Identity::new(Family::Financial, 7, Date(11), 5)), None);
        let place = identities.find(Identity::new(Family::Financial, 7, Date(12), 5)).unwrap();
        assert_eq!((identities.get(place).position(), identities.get(place).merchant()), (1_206, 3));
        assert_eq!(identities.find(Identity::new(Family::Reversal, 7, Date(12), 5)), None);
    }
}
