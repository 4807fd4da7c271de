//! What the switch remembers of each decision, so that a message sent again changes nothing.
//!
//! An identity is (class, terminal, day of DE13, STAN). For each there is one [`Remembered`]: enough to give the stored
//! answer again byte for byte, to see whether the content is the same, and to undo what was done.
//!
//! How it works: one shelf a day of DE13, dropped whole when the day leaves the window. A shelf is a list in the order of
//! decision with a hash index over it. A shelf only grows at its end, so its order, and with it the state digest, is the
//! same after every replay.

use std::collections::BTreeMap;
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::bytes::{Decoder, Encoder};
use super::response::Response;
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
        Self { packed: u64::from(family as u8) << 56 | u64::from(terminal) << 20 | u64::from(stan), date }
    }

    /// Whether it is what [`Self::new`] makes for a message of this family.
    pub(super) fn is_well_formed(self, family: Family) -> bool {
        self.stan() < 1_000_000 && self == Self::new(family, self.terminal(), self.date, self.stan())
    }

    /// The terminal's index.
    #[must_use]
    pub fn terminal(self) -> u32 {
        (self.packed >> 20) as u32
    }

    /// DE11.
    #[must_use]
    pub fn stan(self) -> u32 {
        (self.packed & 0xf_ffff) as u32
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

/// What became of the identity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    /// A decision that moved no money, or one that cannot be undone.
    Decided = 0,
    /// A purchase that stands.
    Purchased = 1,
    /// A purchase that was reversed.
    Undone = 2,
    /// Reversed before it came: it has no decision yet, and when it comes it takes nothing.
    Tombstone = 3,
}

impl State {
    fn from_number(number: u8) -> Option<Self> {
        [Self::Decided, Self::Purchased, Self::Undone, Self::Tombstone].get(usize::from(number)).copied()
    }
}

/// One remembered decision: 64 bytes, one cache line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Remembered {
    identity: u64,
    /// What the message said.
    pub content: Content,
    /// What its reply echoes besides.
    pub echo: Echo,
    /// The transaction number, in the lower 40 bits (DE37 has twelve digits); the merchant's index above.
    position_and_merchant: u64,
    /// Available in the cash purse after it, in fen.
    pub cash_after: i64,
    /// Available in the subsidy purse after it, in fen.
    pub subsidy_after: i64,
    /// Of the amount, what the subsidy purse paid.
    pub subsidy: u32,
    /// The business date of the decision, DE15.
    pub business_date: Date,
    /// The decision.
    pub response: Response,
    /// What became of it.
    pub state: State,
}

const _: () = assert!(size_of::<Remembered>() == 64);
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
            identity: identity.packed,
            content,
            echo,
            position_and_merchant: position | u64::from(merchant) << POSITION_BITS,
            cash_after: NO_PURSES,
            subsidy_after: 0,
            subsidy: 0,
            business_date,
            response,
            state: State::Decided,
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

    /// The index of the terminal that asked.
    pub(super) fn terminal(&self) -> u32 {
        Identity::from_packed(self.identity, Date(0)).terminal()
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
        row.u8(self.state as u8);
    }

    /// From the state's image.
    pub(super) fn take(row: &mut Decoder<'_>) -> Option<Self> {
        Some(Self {
            identity: row.u64()?,
            content: Content::from_packed([row.u64()?, row.u64()?]),
            echo: Echo::from_packed(row.u64()?),
            position_and_merchant: row.u64()?,
            cash_after: row.u64()?.cast_signed(),
            subsidy_after: row.u64()?.cast_signed(),
            subsidy: row.u32()?,
            business_date: Date(row.u16()?),
            response: Response::from_number(row.u8()?)?,
            state: State::from_number(row.u8()?)?,
        })
    }
}

/// Where a [`Remembered`] stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    date: Date,
    index: u32,
}

/// The decisions of one day.
#[derive(Default)]
pub(super) struct Shelf {
    entries: Vec<Remembered>,
    index: HashTable<u32>,
    /// Switch nonces of the sign-ons among the entries, by transaction number.
    nonces: Vec<(u64, [u8; 8])>,
}

impl Shelf {
    /// A shelf from the state's image; `None` where an identity was decided twice on it.
    pub(super) fn restored(entries: Vec<Remembered>, nonces: Vec<(u64, [u8; 8])>, hasher: &DefaultHashBuilder) -> Option<Self> {
        let mut index = HashTable::with_capacity(entries.len());
        // Only a tombstone may have been replaced under its identity, so before the first one there is nothing to look for.
        let mut has_tombstones = false;
        for (number, entry) in (0_u32..).zip(&entries) {
            let hash = hasher.hash_one(entry.identity);
            let before =
                has_tombstones.then(|| index.find_mut(hash, |&other: &u32| entries[other as usize].identity == entry.identity));
            match before.flatten() {
                Some(before) if entries[*before as usize].state == State::Tombstone => *before = number,
                Some(_) => return None,
                None => {
                    index.insert_unique(hash, number, |&other| hasher.hash_one(entries[other as usize].identity));
                }
            }
            has_tombstones |= entry.state == State::Tombstone;
        }
        Some(Self { entries, index, nonces })
    }

    /// In the order of decision, with what a later one replaced.
    pub(super) fn entries(&self) -> &[Remembered] {
        &self.entries
    }

    /// Switch nonces of the sign-ons among them, by transaction number.
    pub(super) fn nonces(&self) -> &[(u64, [u8; 8])] {
        &self.nonces
    }
}

/// Every identity in the window.
pub struct Identities {
    shelves: BTreeMap<Date, Shelf>,
    hasher: DefaultHashBuilder,
}

impl Identities {
    pub(super) fn new() -> Self {
        Self { shelves: BTreeMap::new(), hasher: DefaultHashBuilder::default() }
    }

    /// Where this identity is remembered.
    #[must_use]
    #[inline]
    pub fn find(&self, identity: Identity) -> Option<Place> {
        let shelf = self.shelves.get(&identity.date)?;
        let index = *shelf
            .index
            .find(self.hasher.hash_one(identity.packed), |&entry| shelf.entries[entry as usize].identity == identity.packed)?;
        Some(Place { date: identity.date, index })
    }

    /// What is remembered there.
    ///
    /// # Panics
    /// If the place's day has left the window.
    #[must_use]
    pub fn get(&self, place: Place) -> &Remembered {
        &self.shelves[&place.date].entries[place.index as usize]
    }

    pub(super) fn get_mut(&mut self, place: Place) -> &mut Remembered {
        &mut self.shelves.get_mut(&place.date).expect("a place is on a shelf").entries[place.index as usize]
    }

    /// The switch nonce that the sign-on with this transaction number was answered with.
    #[must_use]
    pub fn nonce(&self, place: Place, position: u64) -> Option<[u8; 8]> {
        let nonces = &self.shelves.get(&place.date)?.nonces;
        nonces.binary_search_by_key(&position, |&(position, _)| position).ok().map(|index| nonces[index].1)
    }

    pub(super) fn remember(&mut self, date: Date, entry: Remembered) -> Place {
        let shelf = self.shelves.entry(date).or_default();
        let index = shelf.entries.len() as u32;
        shelf.entries.push(entry);
        let (entries, hasher) = (&shelf.entries, &self.hasher);
        shelf
            .index
            .insert_unique(hasher.hash_one(entry.identity), index, |&entry| hasher.hash_one(entries[entry as usize].identity));
        Place { date, index }
    }

    /// Puts `entry` in the place of what stood there under the same identity. It goes to the end of its shelf, so that a
    /// shelf stays in the order of decision; what stood there is forgotten.
    pub(super) fn replace(&mut self, place: Place, entry: Remembered) -> Place {
        let shelf = self.shelves.get_mut(&place.date).expect("a place is on a shelf");
        let index = shelf.entries.len() as u32;
        let slot = shelf.index.find_mut(self.hasher.hash_one(entry.identity), |&entry| entry == place.index);
        *slot.expect("a place is indexed") = index;
        shelf.entries.push(entry);
        Place { date: place.date, index }
    }

    pub(super) fn keep_nonce(&mut self, place: Place, position: u64, nonce: [u8; 8]) {
        self.shelves.get_mut(&place.date).expect("a place is on a shelf").nonces.push((position, nonce));
    }

    /// Forgets the days before `oldest`.
    pub(super) fn forget_before(&mut self, oldest: Date) {
        self.shelves = self.shelves.split_off(&oldest);
    }

    /// All that are remembered, with their days.
    pub fn all(&self) -> impl Iterator<Item = (Date, &Remembered)> {
        self.shelves.iter().flat_map(|(&date, shelf)| shelf.entries.iter().map(move |entry| (date, entry)))
    }

    /// How many are remembered.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shelves.values().map(|shelf| shelf.entries.len()).sum()
    }

    /// Bytes held.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.shelves
            .values()
            .map(|shelf| {
                shelf.entries.capacity() * size_of::<Remembered>() + shelf.index.allocation_size() + shelf.nonces.capacity() * 16
            })
            .sum()
    }

    /// The days that are remembered, in order.
    pub(super) fn shelves(&self) -> &BTreeMap<Date, Shelf> {
        &self.shelves
    }

    /// What hashes identities.
    pub(super) fn hasher(&self) -> &DefaultHashBuilder {
        &self.hasher
    }

    /// Puts a day's shelf in its place.
    pub(super) fn put(&mut self, date: Date, shelf: Shelf) {
        self.shelves.insert(date, shelf);
    }
}

#[cfg(test)]
mod tests {
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
        let mut identities = Identities::new();
        let content = Content::new(None, None, None, false);
        for day in 10..14 {
            for stan in 0..100 {
                let identity = Identity::new(Family::Financial, 7, Date(day), stan);
                assert_eq!(identities.find(identity), None);
                let position = u64::from(day) * 100 + u64::from(stan) + 1;
                identities.remember(
                    Date(day),
                    Remembered::new(identity, content, Echo::default(), position, 3, Date(day), Response::Approved),
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
