//! What is on loan, to whom.
//!
//! Always true here: an item is on loan to one holder at most.

use std::collections::BTreeMap;

use super::bytes::{Decoder, Encoder};
use crate::calendar::Date;
use crate::limits::SUB_ELEMENT_BYTES_MAX;

/// An open loan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Loan {
    /// Index of the holder who has it.
    pub holder: u32,
    /// Index of the card that it was borrowed with.
    pub card: u32,
    /// The loan's transaction number.
    pub position: u64,
    /// The business date of the loan.
    pub date: Date,
}

/// The open loans, by the item's number.
#[derive(Default)]
pub struct Loans(BTreeMap<Box<str>, Loan>);

impl Loans {
    /// Who has this item, if it is on loan.
    #[must_use]
    pub fn find(&self, item: &str) -> Option<&Loan> {
        self.0.get(item)
    }

    /// Lends an item.
    pub(super) fn open(&mut self, item: &str, loan: Loan) {
        let before = self.0.insert(item.into(), loan);
        assert!(before.is_none(), "an item is on loan once");
    }

    /// Takes an item back.
    pub(super) fn close(&mut self, item: &str) -> Option<Loan> {
        self.0.remove(item)
    }

    /// How many items are on loan.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        self.0.keys().map(|item| item.len() + 2 * size_of::<(Box<str>, Loan)>()).sum()
    }

    /// All of them, by the item's number.
    #[must_use]
    pub fn rows(&self) -> impl ExactSizeIterator<Item = (&str, &Loan)> {
        self.0.iter().map(|(item, loan)| (&**item, loan))
    }

    pub(super) fn put(row: &mut Encoder<'_>, (item, loan): (&str, &Loan)) {
        row.text(item);
        row.u32(loan.holder);
        row.u32(loan.card);
        row.u64(loan.position);
        row.u16(loan.date.0);
    }

    /// Takes a row of the image, where there are so many cards and holders; rows come in order.
    pub(super) fn take(&mut self, row: &mut Decoder<'_>, [cards, holders, _]: [usize; 3]) -> Option<()> {
        let item = row.text()?;
        let loan = Loan { holder: row.u32()?, card: row.u32()?, position: row.u64()?, date: Date(row.u16()?) };
        let in_order = self.0.last_key_value().is_none_or(|(last, _)| **last < *item);
        let named = (loan.holder as usize) < holders && (loan.card as usize) < cards;
        ((1..=SUB_ELEMENT_BYTES_MAX).contains(&item.len()) && in_order && named).then(|| self.open(item, loan))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_lent_once_and_comes_back() {
        let mut loans = Loans::default();
        let loan = Loan { holder: 1, card: 2, position: 3, date: Date(4) };
        loans.open("QA76", loan);
        assert_eq!((loans.find("QA76"), loans.find("QA7"), loans.count()), (Some(&loan), None, 1));
        assert_eq!((loans.close("QA76"), loans.close("QA76"), loans.count()), (Some(loan), None, 0));
    }

    #[test]
    #[should_panic(expected = "on loan once")]
    fn an_item_is_not_lent_twice_unseen() {
        let mut loans = Loans::default();
        let loan = Loan { holder: 1, card: 2, position: 3, date: Date(4) };
        loans.open("QA76", loan);
        loans.open("QA76", loan);
    }

    #[test]
    fn an_image_holds_what_was_there_and_nothing_that_cannot_be() {
        let loan = Loan { holder: 1, card: 2, position: 3, date: Date(4) };
        let longest = "9".repeat(SUB_ELEMENT_BYTES_MAX);
        let take = |items: &[&str], [cards, holders]: [usize; 2]| {
            let mut bytes = Vec::new();
            for item in items {
                Loans::put(&mut Encoder(&mut bytes), (item, &loan));
            }
            let (mut row, mut loans) = (Decoder(&bytes), Loans::default());
            while !row.0.is_empty() {
                loans.take(&mut row, [cards, holders, 0])?;
            }
            Some(loans.rows().map(|(item, taken)| (item.to_owned(), *taken)).collect::<Vec<_>>())
        };
        let rows = [&longest, "QA7", "QA76"];
        assert_eq!(take(&rows, [3, 2]), Some(rows.map(|item| (item.to_owned(), loan)).to_vec()));
        assert_eq!((take(&rows, [2, 2]), take(&rows, [3, 1])), (None, None), "a card or a holder who is not there");
        assert_eq!((take(&["QA76", "QA7"], [3, 2]), take(&["QA7", "QA7"], [3, 2])), (None, None), "rows out of order");
        assert_eq!((take(&[""], [3, 2]), take(&[&(longest + "9")], [3, 2])), (None, None), "no item's number");
    }
}
