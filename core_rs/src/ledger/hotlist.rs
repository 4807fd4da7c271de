//! The cards that are not to be taken: lost, frozen, blacklisted or cancelled, as terminals keep them.
//!
//! Always true here: the version is the number of changes so far, so a version names one list for ever; a card is listed where it
//! was changed an odd number of times.
//!
//! How it works: a terminal asks for what has changed since the version that it holds, in pieces by the order of card numbers. All
//! pieces of one reading are taken from the list as it was when the reading began ([`Readings`]), so that what changes
//! meanwhile, on whichever side of the piece, comes with the next reading and is not lost between two pieces. A reading of few
//! changes looks through these for each piece; one of many walks once through all cards that were ever listed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::bytes::Encoder;
use crate::card_number::CardNumber;

/// A piece of what has changed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Piece {
    /// Cards that came to the list (`true`) or left it, in the order of their numbers.
    pub changes: Vec<(bool, CardNumber)>,
    /// Whether there is more after the last of them.
    pub more: bool,
}

/// The list with its history.
#[derive(Default)]
pub struct Hotlist {
    /// The card that each change was about: its index and number.
    log: Vec<(u32, CardNumber)>,
    /// For each card that was ever listed the versions that its changes led to.
    changes: BTreeMap<CardNumber, Vec<u32>>,
    /// How many are listed.
    listed: usize,
}

impl Hotlist {
    /// The number of changes so far.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.log.len() as u64
    }

    /// A card comes to the list or leaves it.
    pub(super) fn change(&mut self, card: u32, number: CardNumber) {
        self.log.push((card, number));
        let changes = self.changes.entry(number).or_default();
        changes.push(self.log.len() as u32);
        if changes.len() % 2 == 1 {
            self.listed += 1;
        } else {
            self.listed -= 1;
        }
    }

    fn is_listed(changes: &[u32], version: u64) -> bool {
        changes.partition_point(|&change| u64::from(change) <= version) % 2 == 1
    }

    /// Whether this card is listed.
    pub(super) fn lists(&self, number: CardNumber) -> bool {
        self.changes.get(&number).is_some_and(|changes| changes.len() % 2 == 1)
    }

    /// How many cards are listed.
    #[must_use]
    pub fn count(&self) -> usize {
        self.listed
    }

    /// What has changed from version `held` to version `as_of` of the cards after `after`: the first `max` of them.
    ///
    /// # Panics
    /// Where `held` or `as_of` is above the present version.
    #[must_use]
    pub fn piece(&self, held: u64, as_of: u64, after: Option<CardNumber>, max: usize) -> Piece {
        let mut piece = Piece::default();
        let mut take = |number: CardNumber, changes: &[u32]| {
            let (before, now) = (Self::is_listed(changes, held), Self::is_listed(changes, as_of));
            if before != now {
                piece.more = piece.changes.len() == max;
                if !piece.more {
                    piece.changes.push((now, number));
                }
            }
            piece.more
        };
        let span = &self.log[held.min(as_of) as usize..as_of as usize];
        // What the whole reading costs either way: the span once for each of its pieces, or every card once. A terminal that was
        // off while a class graduated would otherwise cost some thousand changes for every forty that it is told.
        let pieces = span.len() / max.max(1) + 1;
        if span.len() * pieces <= self.changes.len() {
            let changed = span.iter().map(|&(_, number)| number);
            let changed: BTreeSet<_> = changed.filter(|&number| after.is_none_or(|after| number > after)).collect();
            let _ = changed.into_iter().any(|number| take(number, &self.changes[&number]));
        } else {
            let rest = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
            let _ = self.changes.range(rest).any(|(&number, changes)| take(number, changes));
        }
        piece
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        self.log.capacity() * size_of::<(u32, CardNumber)>()
            + self.changes.len() * 2 * size_of::<(CardNumber, Vec<u32>)>()
            + self.log.len() * size_of::<u32>()
    }

    /// The index of the card of each change, in order.
    pub(super) fn rows(&self) -> impl ExactSizeIterator<Item = u32> {
        self.log.iter().map(|&(card, _)| card)
    }

    pub(super) fn put(row: &mut Encoder<'_>, card: u32) {
        row.u32(card);
    }
}

/// The readings that are under way: for each terminal the version that it held when it began, and the one that it reads. They are
/// forgotten by a restart: a terminal that goes on then is told that it has reached version 0 and that no more follows, so it
/// begins anew with an empty list. What it has read of a version that nobody knows any more could not be mended by changes.
#[derive(Default)]
pub struct Readings(Vec<Option<(u64, u64)>>);

impl Readings {
    /// The next piece for a terminal that holds version `held` and has read up to `after`, or begins. Gives the version that it will
    /// hold when there is no more.
    pub fn read(&mut self, hotlist: &Hotlist, terminal: u32, held: u64, after: Option<CardNumber>, max: usize) -> (u64, Piece) {
        if self.0.len() <= terminal as usize {
            self.0.resize(terminal as usize + 1, None);
        }
        let reading = &mut self.0[terminal as usize];
        if after.is_none() {
            *reading = Some((held, hotlist.version()));
        }
        match *reading {
            Some((base, as_of)) if base == held => (as_of, hotlist.piece(held, as_of, after, max)),
            _ => (0, Piece::default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(value: u32) -> CardNumber {
        CardNumber::from_digits(format!("{value}").as_bytes()).unwrap()
    }

    /// A terminal that follows the list.
    #[derive(Default)]
    struct Follower {
        held: u64,
        list: BTreeSet<CardNumber>,
        after: Option<CardNumber>,
    }

    impl Follower {
        /// Reads one piece. Whether it has come to the end.
        fn read(&mut self, readings: &mut Readings, hotlist: &Hotlist) -> bool {
            if self.held == 0 && self.after.is_none() {
                self.list.clear();
            }
            let (version, piece) = readings.read(hotlist, 3, self.held, self.after, 2);
            for (is_added, number) in &piece.changes {
                assert!(*is_added || self.held > 0, "from nothing there is nothing to take away");
                if *is_added {
                    self.list.insert(*number)
                } else {
                    self.list.remove(number)
                };
            }
            self.after = piece.changes.last().map(|change| change.1).filter(|_| piece.more);
            if !piece.more {
                self.held = version;
            }
            !piece.more
        }
    }

    #[test]
    fn whoever_reads_in_pieces_while_the_list_changes_ends_with_the_list() {
        // A linear congruential generator (Knuth, MMIX): the same history every time.
        let mut state = 9_u64;
        let mut draw = |below: u32| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u32 % below
        };
        for _ in 0..300 {
            let (mut hotlist, mut readings, mut follower) = (Hotlist::default(), Readings::default(), Follower::default());
            let mut listed = BTreeSet::new();
            for _ in 0..60 {
                let card = draw(12);
                match draw(8) {
                    0..5 => {
                        hotlist.change(card, number(card));
                        if !listed.remove(&number(card)) {
                            listed.insert(number(card));
                        }
                    }
                    5 if draw(3) == 0 => readings = Readings::default(),
                    _ => drop(follower.read(&mut readings, &hotlist)),
                }
            }
            let mut pieces = 0;
            while follower.held < hotlist.version() {
                follower.read(&mut readings, &hotlist);
                pieces += 1;
                assert!(pieces < 50, "a reading comes to an end");
            }
            assert_eq!((follower.list, hotlist.count()), (listed.clone(), listed.len()));
        }
    }

    /// The list with this history, and the list of every version as a set.
    fn history(cards: &[u32]) -> (Hotlist, Vec<BTreeSet<CardNumber>>) {
        let (mut hotlist, mut versions) = (Hotlist::default(), vec![BTreeSet::new()]);
        for &card in cards {
            hotlist.change(card, number(card));
            let mut list = versions.last().expect("the empty one").clone();
            if !list.remove(&number(card)) {
                list.insert(number(card));
            }
            versions.push(list);
        }
        (hotlist, versions)
    }

    proptest! {
        // Numbers of one to three digits, so that shorter ones have their place; short spans are looked through, long ones are not.
        #[test]
        fn a_piece_is_the_next_of_what_two_versions_differ_in(
            cards in prop::collection::vec(0_u32..120, 0..200),
            (held, as_of) in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
            after in prop::option::of(0_u32..120),
            max in 1_usize..8,
        ) {
            let (hotlist, versions) = history(&cards);
            prop_assert_eq!(hotlist.count(), versions.last().map_or(0, BTreeSet::len));
            let as_of = as_of.index(versions.len());
            let held = held.index(as_of + 1);
            for held in [held, 0, as_of.saturating_sub(3)] {
                let (before, now) = (&versions[held], &versions[as_of]);
                let differ = before.symmetric_difference(now).filter(|card| after.is_none_or(|after| **card > number(after)));
                let mut changes: Vec<_> = differ.map(|card| (now.contains(card), *card)).collect();
                let more = changes.len() > max;
                changes.truncate(max);
                let piece = hotlist.piece(held as u64, as_of as u64, after.map(number), max);
                prop_assert_eq!(piece, Piece { changes, more }, "from {} to {}", held, as_of);
            }
        }
    }

    #[test]
    fn an_image_holds_the_card_of_each_change() {
        let cards = [5, 17, 5, 3, 17, 17];
        let (hotlist, _) = history(&cards);
        let mut bytes = Vec::new();
        hotlist.rows().for_each(|card| Hotlist::put(&mut Encoder(&mut bytes), card));
        assert_eq!(bytes, cards.map(u32::to_le_bytes).concat());
    }

    #[test]
    fn a_reading_is_its_terminals_own_and_goes_on_from_where_it_began() {
        let (mut hotlist, _) = history(&[1, 2, 3]);
        let mut readings = Readings::default();
        let forgotten = (0, Piece::default());
        assert_eq!(readings.read(&hotlist, 7, 0, Some(number(1)), 2), forgotten, "nobody began");
        let begun = readings.read(&hotlist, 7, 0, None, 2);
        assert_eq!(begun, (3, Piece { changes: vec![(true, number(1)), (true, number(2))], more: true }));
        hotlist.change(3, number(3));
        assert_eq!(readings.read(&hotlist, 6, 0, Some(number(2)), 2), forgotten, "another terminal's");
        assert_eq!(readings.read(&hotlist, 7, 1, Some(number(2)), 2), forgotten, "from another version");
        let rest = (3, Piece { changes: vec![(true, number(3))], more: false });
        assert_eq!(readings.read(&hotlist, 7, 0, Some(number(2)), 2), rest);
        assert_eq!(readings.read(&hotlist, 7, 0, Some(number(2)), 2), rest, "asked for again");
        assert_eq!(readings.read(&hotlist, 7, 3, None, 2), (4, Piece { changes: vec![(false, number(3))], more: false }));
    }

    #[test]
    fn a_change_and_back_is_no_change_and_nothing_is_taken_from_an_empty_list() {
        let mut hotlist = Hotlist::default();
        for card in [5, 6, 5] {
            hotlist.change(card, number(card));
        }
        assert_eq!(hotlist.piece(0, 3, None, 9).changes, [(true, number(6))]);
        assert_eq!(hotlist.piece(1, 3, None, 9).changes, [(false, number(5)), (true, number(6))]);
        assert_eq!(hotlist.piece(1, 3, Some(number(5)), 9).changes, [(true, number(6))]);
        assert_eq!(hotlist.piece(2, 2, None, 9), Piece::default());
        assert_eq!(hotlist.piece(0, 1, None, 9).changes, [(true, number(5))]);
    }
}
