//! The open holds: which part of whose cash purse is kept back, and since when.
//!
//! Always true here: what is held of a holder is the sum of the holder's open holds. Holds stand in the order of their
//! transaction numbers, which is that of their moments unless the clock was wrong, and lapse in it. Only the first is looked at
//! when one is sought that has lasted long enough. But one whose moment is still to come was made while the clock was ahead: how
//! old it is nobody knows, only that it is older than the next one, and so it lapses when that may.

use std::collections::BTreeMap;

use super::bytes::{Decoder, Encoder};
use crate::calendar::Timestamp;

/// An open hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hold {
    /// Index of the holder.
    pub holder: u32,
    /// Index of the card.
    pub card: u32,
    /// Index of the terminal that asked for it.
    pub terminal: u32,
    /// Fen.
    pub amount: u64,
    /// When it was decided.
    pub timestamp: Timestamp,
}

/// All open holds, by transaction number.
#[derive(Default)]
pub struct Holds {
    open: BTreeMap<u64, Hold>,
    /// What is held of each holder, where anything is.
    held: BTreeMap<u32, u64>,
    /// The one that ended last: whoever tells of its end, right after it, still has to say what it was. No part of the state.
    ended: Option<(u64, Hold)>,
}

impl Holds {
    pub(super) fn add(&mut self, position: u64, hold: Hold) {
        *self.held.entry(hold.holder).or_default() += hold.amount;
        let before = self.open.insert(position, hold);
        assert!(before.is_none(), "a transaction number is given once");
    }

    pub(super) fn remove(&mut self, position: u64) -> Option<Hold> {
        let hold = self.open.remove(&position)?;
        let held = self.held.get_mut(&hold.holder).expect("what an open hold holds is counted");
        *held -= hold.amount;
        if *held == 0 {
            self.held.remove(&hold.holder);
        }
        self.ended = Some((position, hold));
        Some(hold)
    }

    /// The hold with this transaction number, if it is the one that ended last.
    #[must_use]
    pub fn just_ended(&self, position: u64) -> Option<&Hold> {
        self.ended.as_ref().filter(|(ended, _)| *ended == position).map(|(_, hold)| hold)
    }

    /// What is held of a holder's cash purse, in fen.
    pub(super) fn held(&self, holder: u32) -> u64 {
        self.held.get(&holder).copied().unwrap_or(0)
    }

    /// The hold with this transaction number, if it is open.
    #[must_use]
    pub fn get(&self, position: u64) -> Option<&Hold> {
        self.open.get(&position)
    }

    /// The first hold, if it, or the next one where its moment is still to come, was decided at this moment or before.
    pub(super) fn due(&self, moment: Timestamp, now: Timestamp) -> Option<u64> {
        let known = self.open.values().find(|hold| hold.timestamp <= now)?;
        self.open.first_key_value().filter(|_| known.timestamp <= moment).map(|(&position, _)| position)
    }

    /// How many are open.
    #[must_use]
    pub fn count(&self) -> usize {
        self.open.len()
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        self.open.len() * 2 * size_of::<(u64, Hold)>() + self.held.len() * 2 * size_of::<(u32, u64)>()
    }

    /// All of them, by transaction number.
    #[must_use]
    pub fn rows(&self) -> impl ExactSizeIterator<Item = (u64, Hold)> {
        self.open.iter().map(|(&position, &hold)| (position, hold))
    }

    pub(super) fn put(row: &mut Encoder<'_>, (position, hold): (u64, Hold)) {
        row.u64(position);
        row.u32(hold.holder);
        row.u32(hold.card);
        row.u32(hold.terminal);
        row.u64(hold.amount);
        row.u64(hold.timestamp);
    }

    /// Takes a row of the image, where there are so many cards, holders and terminals; rows come in order.
    pub(super) fn take(&mut self, row: &mut Decoder<'_>, [cards, holders, terminals]: [usize; 3]) -> Option<()> {
        let position = row.u64()?;
        let hold = Hold { holder: row.u32()?, card: row.u32()?, terminal: row.u32()?, amount: row.u64()?, timestamp: row.u64()? };
        let in_order = self.open.last_key_value().is_none_or(|(&last, _)| last < position);
        let named = (hold.holder as usize) < holders && (hold.card as usize) < cards && (hold.terminal as usize) < terminals;
        let amount = (1..=u64::from(u32::MAX)).contains(&hold.amount);
        (in_order && named && amount).then(|| self.add(position, hold))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_held_is_what_the_open_holds_say() {
        let mut holds = Holds::default();
        let hold = |holder, amount, timestamp| Hold { holder, card: 0, terminal: 0, amount, timestamp };
        holds.add(3, hold(1, 500, 100));
        holds.add(5, hold(1, 200, 90));
        holds.add(6, hold(2, 1, 110));
        assert_eq!((holds.held(1), holds.held(2), holds.held(3)), (700, 1, 0));
        assert_eq!((holds.due(99, 100), holds.due(100, 100)), (None, Some(3)));
        assert_eq!((holds.due(89, 99), holds.due(90, 99)), (None, Some(3)), "it is older than the second, whatever the clock said");
        assert_eq!(holds.due(80, 89), None);
        assert_eq!((holds.remove(3), holds.just_ended(3)), (Some(hold(1, 500, 100)), Some(&hold(1, 500, 100))));
        assert_eq!((holds.remove(3), holds.held(1), holds.due(90, 90)), (None, 200, Some(5)));
        holds.remove(5);
        assert_eq!((holds.held(1), holds.count()), (0, 1));
        assert_eq!((holds.just_ended(3), holds.just_ended(5).map(|hold| hold.amount)), (None, Some(200)));
    }

    proptest! {
        // Each step is a new hold, or the end of one that was there some time, by chance one that has ended.
        #[test]
        fn holds_are_what_a_list_of_them_says(
            steps in prop::collection::vec((0_u32..4, 1_u64..1_000, 0_u64..50, prop::option::of(any::<prop::sample::Index>())), 1..60),
            moment in 0_u64..50,
        ) {
            let (mut holds, mut list) = (Holds::default(), Vec::new());
            for (position, (holder, amount, timestamp, ended)) in (1..).zip(steps) {
                if let Some(ended) = ended {
                    let ended = ended.index(position as usize) as u64;
                    let at = list.iter().position(|&(open, _)| open == ended);
                    let before = at.map(|at| list.remove(at).1);
                    prop_assert_eq!(holds.get(ended).copied(), before);
                    prop_assert_eq!(holds.remove(ended), before);
                } else {
                    let hold = Hold { holder, card: 0, terminal: 0, amount, timestamp };
                    holds.add(position, hold);
                    list.push((position, hold));
                }
                for holder in 0..4 {
                    let sum = list.iter().filter(|(_, hold)| hold.holder == holder).map(|(_, hold)| hold.amount).sum::<u64>();
                    prop_assert_eq!(holds.held(holder), sum);
                }
                let now = moment + 10;
                let known = list.iter().find(|(_, hold)| hold.timestamp <= now);
                let first = list.first().filter(|_| known.is_some_and(|(_, hold)| hold.timestamp <= moment));
                prop_assert_eq!((holds.due(moment, now), holds.count()), (first.map(|&(position, _)| position), list.len()));
            }
            let mut bytes = Vec::new();
            holds.rows().for_each(|hold| Holds::put(&mut Encoder(&mut bytes), hold));
            let (mut row, mut taken) = (Decoder(&bytes), Holds::default());
            while !row.0.is_empty() {
                prop_assert_eq!(taken.take(&mut row, [1, 4, 1]), Some(()));
            }
            prop_assert_eq!((taken.open, taken.held), (holds.open, holds.held));
        }
    }

    #[test]
    fn an_image_holds_no_hold_that_cannot_be() {
        let hold = Hold { holder: 3, card: 5, terminal: 1, amount: 1, timestamp: 9 };
        let take = |rows: &[(u64, Hold)], bounds: [usize; 3]| {
            let mut bytes = Vec::new();
            for &row in rows {
                Holds::put(&mut Encoder(&mut bytes), row);
            }
            let (mut row, mut holds) = (Decoder(&bytes), Holds::default());
            while !row.0.is_empty() {
                holds.take(&mut row, bounds)?;
            }
            Some(holds.count())
        };
        assert_eq!(take(&[(7, hold), (8, hold)], [6, 4, 2]), Some(2));
        for bounds in [[5, 4, 2], [6, 3, 2], [6, 4, 1]] {
            assert_eq!(take(&[(7, hold)], bounds), None, "somebody who is not there: {bounds:?}");
        }
        assert_eq!(
            (take(&[(8, hold), (7, hold)], [6, 4, 2]), take(&[(7, hold), (7, hold)], [6, 4, 2])),
            (None, None),
            "out of order"
        );
        let amounts = [(0, false), (u64::from(u32::MAX), true), (u64::from(u32::MAX) + 1, false)];
        for (amount, is_one) in amounts {
            assert_eq!(take(&[(7, Hold { amount, ..hold })], [6, 4, 2]).is_some(), is_one, "{amount}");
        }
    }
}
