//! Looking ahead: fetching from memory what many decisions will touch, before the first of them is made.
//!
//! A purchase of one of millions of cards misses the processor's cache four times, each time to learn where to look next: the
//! card's place in the index, its row, its purses. Alone it waits for each miss in turn. Of many purchases all are asked for
//! the first step, then all for the next, so that the processor waits for many misses at a time.
//!
//! Always true here: nothing is changed or decided, and no answer hangs on what was found.

use std::hint::black_box;

use super::Ledger;
use super::registry::Purses;
use crate::card_number::CardNumber;

/// Decisions that are looked at together: enough that a miss waits beside many others, few enough that what was fetched is still
/// there when its decision's turn comes.
pub(super) const WINDOW: usize = 64;

impl Ledger {
    /// Fetches what decisions on these cards will touch, as far as there are such cards.
    pub fn look_ahead(&self, cards: &mut impl Iterator<Item = CardNumber>) {
        let table = &self.registry.cards;
        loop {
            let (mut places, mut known) = ([None; WINDOW], 0);
            for (place, number) in places.iter_mut().zip(&mut *cards) {
                *place = table.place(&number);
                known += 1;
            }
            let mut rows = [0; WINDOW];
            let mut found = 0;
            for &row in places[..known].iter().flatten() {
                rows[found] = *row;
                found += 1;
            }
            let mut purses = [Purses(0); WINDOW];
            for (purses, &row) in purses.iter_mut().zip(&rows[..found]) {
                let card = &table[row];
                *purses = card.purses;
                // A row may lie across two lines of the cache.
                black_box((card.number, card.status));
            }
            for &purses in &purses[..found] {
                black_box(self.available(purses));
            }
            if known < WINDOW {
                return;
            }
        }
    }
}
