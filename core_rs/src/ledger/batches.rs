//! What terminals' batches add up to.
//!
//! The open batch of a terminal is counted in the terminal's own row; here stand the others: those that were closed, and those
//! that a terminal has named before their turn. They are kept as long as identities are.

use std::collections::BTreeMap;

use super::bytes::{Decoder, Encoder};
use crate::calendar::Date;

/// How many, and how much in fen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Total {
    /// Transactions.
    pub number: u64,
    /// Fen.
    pub amount: u64,
}

impl Total {
    #[inline]
    fn count(&mut self, amount: u64) {
        self.number += 1;
        self.amount += amount;
    }
}

/// The totals of one batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Refunds and loads.
    pub credits: Total,
    /// What was taken back of them.
    pub credit_reversals: Total,
    /// Purchases, offline sales, completions and bills.
    pub debits: Total,
    /// What was given back of them by voids and reversals.
    pub debit_reversals: Total,
}

impl Totals {
    /// Counts a purchase, an offline sale, a completion or a bill.
    #[inline]
    pub fn debit(&mut self, amount: u64) {
        self.debits.count(amount);
    }

    /// Counts what a void or a reversal gave back of one.
    pub fn debit_reversal(&mut self, amount: u64) {
        self.debit_reversals.count(amount);
    }

    /// Counts a refund or a load.
    pub fn credit(&mut self, amount: u64) {
        self.credits.count(amount);
    }

    /// Counts what a reversal took back of one.
    pub fn credit_reversal(&mut self, amount: u64) {
        self.credit_reversals.count(amount);
    }

    pub(super) fn rows(&self) -> [Total; 4] {
        [self.credits, self.credit_reversals, self.debits, self.debit_reversals]
    }

    /// Them as the elements of a message: DE74 to 77 the numbers, DE86 to 89 the amounts.
    #[must_use]
    pub fn elements(&self) -> [(u8, u64); 8] {
        let [credits, credit_reversals, debits, debit_reversals] = self.rows();
        [
            (74, credits.number),
            (75, credit_reversals.number),
            (76, debits.number),
            (77, debit_reversals.number),
            (86, credits.amount),
            (87, credit_reversals.amount),
            (88, debits.amount),
            (89, debit_reversals.amount),
        ]
    }

    /// From the elements of a message, in the order of [`Self::elements`].
    #[must_use]
    pub fn from_elements(elements: &[(u8, u64); 8]) -> Self {
        let total = |at: usize| Total { number: elements[at].1, amount: elements[at + 4].1 };
        Self { credits: total(0), credit_reversals: total(1), debits: total(2), debit_reversals: total(3) }
    }

    pub(super) fn put(&self, encoder: &mut Encoder<'_>) {
        for total in self.rows() {
            encoder.u64(total.number);
            encoder.u64(total.amount);
        }
    }

    pub(super) fn take(decoder: &mut Decoder<'_>) -> Option<Self> {
        let mut total = || Some(Total { number: decoder.u64()?, amount: decoder.u64()? });
        Some(Self { credits: total()?, credit_reversals: total()?, debits: total()?, debit_reversals: total()? })
    }
}

/// The batches that are not open, by terminal and number.
#[derive(Default)]
pub struct Batches(BTreeMap<(u32, u32), (Totals, Date)>);

impl Batches {
    /// A batch's totals; `None`: nothing was counted to it, or it is forgotten.
    #[must_use]
    pub fn totals(&self, terminal: u32, batch: u32) -> Option<Totals> {
        self.0.get(&(terminal, batch)).map(|(totals, _)| *totals)
    }

    /// A batch's totals, to be counted on this business date.
    pub(super) fn totals_mut(&mut self, terminal: u32, batch: u32, today: Date) -> &mut Totals {
        let (totals, touched) = self.0.entry((terminal, batch)).or_insert((Totals::default(), today));
        *touched = today;
        totals
    }

    /// Takes a batch out: it is the terminal's open one from now on.
    pub(super) fn take(&mut self, terminal: u32, batch: u32) -> Totals {
        self.0.remove(&(terminal, batch)).map_or_else(Totals::default, |(totals, _)| totals)
    }

    /// Keeps a batch that was open until this business date.
    pub(super) fn keep(&mut self, terminal: u32, batch: u32, totals: Totals, today: Date) {
        self.0.insert((terminal, batch), (totals, today));
    }

    /// Forgets the batches that were touched last before this day.
    pub(super) fn forget_before(&mut self, oldest: Date) {
        self.0.retain(|_, (_, touched)| *touched >= oldest);
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        self.0.len() * 2 * size_of::<((u32, u32), (Totals, Date))>()
    }

    /// All of them, by terminal and number.
    pub(super) fn rows(&self) -> impl ExactSizeIterator<Item = ((u32, u32), (Totals, Date))> {
        self.0.iter().map(|(&key, &batch)| (key, batch))
    }

    pub(super) fn put(row: &mut Encoder<'_>, ((terminal, batch), (totals, touched)): ((u32, u32), (Totals, Date))) {
        row.u32(terminal);
        row.u32(batch);
        totals.put(row);
        row.u16(touched.0);
    }

    /// Takes a row of the image, where there are so many terminals; rows come in order.
    pub(super) fn take_row(&mut self, row: &mut Decoder<'_>, terminals: usize) -> Option<()> {
        let (key, batch) = ((row.u32()?, row.u32()?), (Totals::take(row)?, Date(row.u16()?)));
        let in_order = self.0.last_key_value().is_none_or(|(&last, _)| last < key);
        ((key.0 as usize) < terminals && in_order).then(|| {
            self.0.insert(key, batch);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_their_elements() {
        let mut totals = Totals::default();
        totals.debit(850);
        totals.debit(150);
        totals.debit_reversal(150);
        totals.credit(5_000);
        totals.credit_reversal(1);
        let elements = totals.elements();
        assert_eq!(elements, [(74, 1), (75, 1), (76, 2), (77, 1), (86, 5_000), (87, 1), (88, 1_000), (89, 150)]);
        assert_eq!(Totals::from_elements(&elements), totals);
        let mut others = elements;
        for at in 0..elements.len() {
            others[at].1 += 1;
            assert_ne!(Totals::from_elements(&others), totals, "DE{}", elements[at].0);
            others[at].1 -= 1;
        }
    }

    #[test]
    fn an_image_holds_what_was_there_and_nothing_that_cannot_be() {
        let mut batches = Batches::default();
        let totals = batches.totals_mut(1, 7, Date(10));
        totals.debit(850);
        totals.debit_reversal(150);
        totals.credit(5_000);
        totals.credit_reversal(1);
        batches.totals_mut(1, 2, Date(11)).credit(u64::from(u32::MAX) + 1);
        batches.totals_mut(0, 9, Date(12));
        let mut bytes = Vec::new();
        batches.rows().for_each(|batch| Batches::put(&mut Encoder(&mut bytes), batch));
        let take = |bytes: &[u8], terminals: usize| {
            let (mut row, mut taken) = (Decoder(bytes), Batches::default());
            while !row.0.is_empty() {
                taken.take_row(&mut row, terminals)?;
            }
            Some(taken.0)
        };
        assert_eq!(take(&bytes, 2), Some(batches.0));
        assert_eq!(take(&bytes, 1), None, "a terminal that is not there");
        assert_eq!(take(&bytes[..bytes.len() - 1], 2), None, "a row cut short");
        assert_eq!(take(&bytes.repeat(2), 2), None, "rows out of order");
        assert_eq!(take(&bytes[..bytes.len() / 3].repeat(2), 2), None, "a row twice");
    }

    #[test]
    fn a_batch_is_kept_until_nobody_has_touched_it_for_so_long() {
        let mut batches = Batches::default();
        batches.totals_mut(1, 7, Date(10)).debit(5);
        batches.keep(2, 1, batches.totals(1, 7).expect("just counted"), Date(12));
        batches.totals_mut(1, 7, Date(11)).debit(5);
        batches.forget_before(Date(11));
        let debits = |batches: &Batches, terminal, batch| batches.totals(terminal, batch).map(|totals| totals.debits);
        assert_eq!(debits(&batches, 1, 7), Some(Total { number: 2, amount: 10 }), "touched on the 11th");
        batches.forget_before(Date(12));
        assert_eq!(debits(&batches, 1, 7), None);
        assert_eq!(debits(&batches, 2, 1), Some(Total { number: 1, amount: 5 }));
        assert_eq!(batches.take(2, 1).debits.number, 1);
        assert_eq!(batches.rows().len(), 0);
    }
}
