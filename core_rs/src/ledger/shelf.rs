//! The decisions of one day: a list in the order of decision, and a way to find each by its identity.
//!
//! Always true here: a shelf grows at its end alone, so its order, and with it the state's digest, is the same after every
//! replay; under one identity there is one decision, which only took a tombstone's place.
//!
//! How it works: a terminal counts its messages up, so the identities that will be asked about next are the neighbours of those
//! that were asked about last. Sixteen STANs in a row of one terminal and class share a [`Page`], which is one line of the
//! processor's cache and says for each of them where its decision stands in the list; a hash table finds the page. So nearly
//! every look finds what it needs in the cache, the table has one entry for sixteen decisions, and when it must grow, entries
//! carry their keys and are moved without a look at anything else. A terminal that does not count costs a page a message.

use std::collections::BTreeMap;
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::identities::{Deed, Remembered, State};
use super::remembered::{Extra, Packed};

/// STANs on a page.
const PAGE_STANS: u64 = 16;
/// Items that are allocated together: what is allocated in advance is little, and nothing is ever moved.
const CHUNK_ITEMS: usize = 4096;

/// A list that grows without moving what is in it.
struct Chunks<T> {
    chunks: Vec<Vec<T>>,
}

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

impl<T> Chunks<T> {
    fn count(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK_ITEMS + last.len())
    }

    fn push(&mut self, item: T) {
        match self.chunks.last_mut() {
            Some(last) if last.len() < CHUNK_ITEMS => last.push(item),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK_ITEMS);
                chunk.push(item);
                self.chunks.push(chunk);
            }
        }
    }

    #[inline]
    fn get(&self, index: u32) -> &T {
        &self.chunks[index as usize / CHUNK_ITEMS][index as usize % CHUNK_ITEMS]
    }

    #[inline]
    fn get_mut(&mut self, index: u32) -> &mut T {
        &mut self.chunks[index as usize / CHUNK_ITEMS][index as usize % CHUNK_ITEMS]
    }

    fn memory(&self) -> usize {
        self.chunks.len() * CHUNK_ITEMS * size_of::<T>()
    }
}

/// For each STAN of a page the index of its decision and one; 0: there is none.
#[repr(align(64))]
struct Page([u32; PAGE_STANS as usize]);

/// Where a page stands, with what it is found by.
#[derive(Clone, Copy)]
struct Found {
    /// A [`page_key`], in two halves: four bytes fewer in each entry.
    key: [u32; 2],
    page: u32,
}

/// What an identity's page is found by: the identity without what tells the STANs of a page apart.
#[inline]
fn page_key(identity: u64) -> [u32; 2] {
    let key = identity / PAGE_STANS;
    [key as u32, (key >> 32) as u32]
}

#[inline]
fn hash(hasher: &DefaultHashBuilder, key: [u32; 2]) -> u64 {
    hasher.hash_one(u64::from(key[1]) << 32 | u64::from(key[0]))
}

/// The decisions of one day.
#[derive(Default)]
pub(super) struct Shelf {
    entries: Chunks<Packed>,
    pages: Chunks<Page>,
    index: HashTable<Found>,
    hasher: DefaultHashBuilder,
    /// Switch nonces of the sign-ons among the entries, by transaction number.
    nonces: Vec<(u64, [u8; 8])>,
    /// What few of them have besides, by their index.
    extras: BTreeMap<u32, Extra>,
}

impl Shelf {
    #[inline]
    fn page(&self, key: [u32; 2]) -> Option<u32> {
        self.index.find(hash(&self.hasher, key), |found| found.key == key).map(|found| found.page)
    }

    /// The index of the decision under this identity.
    #[inline]
    pub(super) fn find(&self, identity: u64) -> Option<u32> {
        let page = self.page(page_key(identity))?;
        self.pages.get(page).0[(identity % PAGE_STANS) as usize].checked_sub(1)
    }

    /// The decision with this index.
    #[inline]
    pub(super) fn get(&self, index: u32) -> Remembered {
        self.entries.get(index).unpack()
    }

    /// Puts another decision under the same identity there.
    pub(super) fn set(&mut self, index: u32, entry: &Remembered) {
        let packed = Packed::new(entry).expect("what was packed once is packed again");
        let place = self.entries.get_mut(index);
        assert_eq!(place.identity(), packed.identity(), "an identity keeps its place");
        *place = packed;
    }

    /// The index of the first decision whose transaction number is not below this one.
    fn first_from(&self, position: u64) -> u32 {
        let (mut low, mut high) = (0, self.entries.count() as u32);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.entries.get(middle).position() < position { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// The index of the decision with this transaction number. Decisions stand in its order; a tombstone has that of its reversal.
    pub(super) fn at(&self, position: u64) -> Option<u32> {
        let (low, count) = (self.first_from(position), self.entries.count() as u32);
        let found =
            (low..count).map(|index| (index, self.entries.get(index))).take_while(|(_, entry)| entry.position() == position);
        found.into_iter().find(|(_, entry)| entry.state() != State::Tombstone).map(|(index, _)| index)
    }

    /// What the decision with this index has besides, if anything.
    pub(super) fn extra(&self, index: u32) -> Option<&Extra> {
        self.extras.get(&index)
    }

    /// The same, to be changed.
    pub(super) fn extra_mut(&mut self, index: u32) -> &mut Extra {
        let entry = self.get(index);
        if !entry.has_extra {
            self.set(index, &Remembered { has_extra: true, ..entry });
        }
        self.extras.entry(index).or_default()
    }

    /// Puts what the decision with this index has besides, as the image has it: in order, and of those alone that say so.
    pub(super) fn restore_extra(&mut self, index: u32, extra: Extra) -> Option<()> {
        let in_order = self.extras.last_key_value().is_none_or(|(&last, _)| last < index);
        let is_due = (index as usize) < self.count() && self.get(index).has_extra;
        (in_order && is_due).then(|| {
            self.extras.insert(index, extra);
        })
    }

    /// Takes note that the refunds of the sale with this transaction number can be undone no more: they came after it.
    pub(super) fn undo_refunds(&mut self, sale: u64) {
        let later = self.extras.range(self.first_from(sale)..).filter(|(_, extra)| extra.original == sale);
        for index in later.map(|(&index, _)| index).collect::<Vec<_>>() {
            let refund = self.get(index);
            if refund.deed == Deed::Refund && refund.state == State::Standing {
                self.set(index, &Remembered { state: State::Undone, ..refund });
            }
        }
    }

    /// All that some have besides, with their indexes, in order.
    pub(super) fn extras(&self) -> &BTreeMap<u32, Extra> {
        &self.extras
    }

    /// Adds a decision at the end and gives its index. A tombstone under its identity is forgotten for it. `None`, and no
    /// decision has changed, where a decision stands under it already, or a value is beyond what there can be.
    pub(super) fn add(&mut self, entry: &Remembered) -> Option<u32> {
        let packed = Packed::new(entry)?;
        let identity = packed.identity();
        let key = page_key(identity);
        let page = self.page(key).unwrap_or_else(|| self.add_page(key));
        let number = &mut self.pages.get_mut(page).0[(identity % PAGE_STANS) as usize];
        if number.checked_sub(1).is_some_and(|before| self.entries.get(before).state() != State::Tombstone) {
            return None;
        }
        let index = u32::try_from(self.entries.count()).ok().filter(|index| *index < u32::MAX)?;
        *number = index + 1;
        self.entries.push(packed);
        Some(index)
    }

    fn add_page(&mut self, key: [u32; 2]) -> u32 {
        let page = self.pages.count() as u32;
        self.pages.push(Page([0; PAGE_STANS as usize]));
        let hasher = &self.hasher;
        self.index.insert_unique(hash(hasher, key), Found { key, page }, |found| hash(hasher, found.key));
        page
    }

    /// In the order of decision, with what a later one replaced.
    pub(super) fn entries(&self) -> impl ExactSizeIterator<Item = Remembered> {
        (0..self.entries.count()).map(|index| self.get(index as u32))
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.entries.count()
    }

    /// Switch nonces of the sign-ons, by transaction number.
    pub(super) fn nonces(&self) -> &[(u64, [u8; 8])] {
        &self.nonces
    }

    /// The switch nonce of the sign-on with this transaction number.
    pub(super) fn nonce(&self, position: u64) -> Option<[u8; 8]> {
        self.nonces.binary_search_by_key(&position, |&(position, _)| position).ok().map(|index| self.nonces[index].1)
    }

    /// Keeps a sign-on's nonce; its transaction number is above those of all before.
    pub(super) fn keep_nonce(&mut self, position: u64, nonce: [u8; 8]) {
        self.nonces.push((position, nonce));
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        self.entries.memory()
            + self.pages.memory()
            + self.index.allocation_size()
            + self.nonces.capacity() * 16
            + self.extras.len() * 2 * size_of::<Extra>()
    }
}

#[cfg(test)]
mod tests {
    use super::super::identities::{Content, Echo, Family, Identity};
    use super::super::response::Response;
    use super::*;
    use crate::calendar::Date;

    fn entry(identity: Identity, position: u64) -> Remembered {
        let content = Content::new(None, None, None, false);
        Remembered::new(identity, content, Echo::default(), position, 3, Date(9), Response::Approved)
    }

    #[test]
    fn whatever_the_terminals_count_each_identity_is_found_and_no_other() {
        // A linear congruential generator (Knuth, MMIX): the same messages every time.
        let mut state = 4_u64;
        let mut draw = |below: u32| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u32 % below
        };
        let mut shelf = Shelf::default();
        let mut known = std::collections::HashMap::new();
        for position in 1..40_000 {
            let family = [Family::Financial, Family::Reversal, Family::Network][draw(3) as usize];
            let stan = if draw(2) == 0 { draw(1_000_000) } else { position as u32 % 5_000 };
            let identity = Identity::new(family, draw(40), Date(9), stan).packed();
            assert_eq!(shelf.find(identity), known.get(&identity).copied());
            let added = shelf.add(&entry(Identity::from_packed(identity, Date(9)), position));
            assert_eq!(added.is_none(), known.contains_key(&identity), "an identity is decided once");
            if let Some(index) = added {
                known.insert(identity, index);
                assert_eq!(shelf.get(index).position(), position);
            }
        }
        assert_eq!(shelf.count(), known.len());
        for (identity, index) in known {
            assert_eq!(shelf.find(identity), Some(index));
        }
    }

    #[test]
    fn a_tombstone_gives_way_to_the_decision_that_comes_after_it_and_stays_in_the_list() {
        let mut shelf = Shelf::default();
        let identity = Identity::new(Family::Financial, 7, Date(9), 5);
        shelf.add(&Remembered { state: State::Tombstone, ..entry(identity, 1) }).unwrap();
        let decided = shelf.add(&entry(identity, 2)).unwrap();
        assert_eq!((shelf.find(identity.packed()), shelf.count()), (Some(decided), 2));
        assert_eq!(shelf.add(&entry(identity, 3)), None);
        assert_eq!(shelf.entries().map(|entry| entry.position()).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_decision_is_found_by_its_transaction_number_and_a_tombstone_is_not() {
        let mut shelf = Shelf::default();
        for stan in 0..1_000 {
            let entry = entry(Identity::new(Family::Financial, 7, Date(9), stan), u64::from(stan) * 3 + 1);
            shelf.add(&entry).unwrap();
        }
        for position in 0..3_000 {
            let expected = (position % 3 == 1).then_some(position as u32 / 3);
            assert_eq!(shelf.at(position), expected, "{position}");
        }
        let tombstone = entry(Identity::new(Family::Financial, 7, Date(9), 2_000), 3_001);
        shelf.add(&Remembered { state: State::Tombstone, ..tombstone }).unwrap();
        assert_eq!(shelf.at(3_001), None);
        let reversal = shelf.add(&entry(Identity::new(Family::Reversal, 7, Date(9), 5), 3_001)).unwrap();
        assert_eq!((shelf.at(3_001), shelf.at(3_002)), (Some(reversal), None));
    }

    #[test]
    fn sixteen_messages_in_a_row_share_a_page() {
        let mut shelf = Shelf::default();
        for stan in 0..16_000 {
            shelf.add(&entry(Identity::new(Family::Financial, 7, Date(9), stan), u64::from(stan) + 1)).unwrap();
        }
        assert_eq!(shelf.pages.count(), 1_000);
    }
}
