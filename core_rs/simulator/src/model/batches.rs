//! What terminals' batches add up to.

use super::calendar::Day;
use super::{Asked, Effect, Model};
use crate::message::Totals;

/// What a batch has.
#[derive(Clone, Default)]
pub(super) struct Batch {
    totals: Totals,
    /// The business date on which it was counted in last, or stopped being the open one.
    pub(super) touched: Day,
}

/// What is counted, as its place among the numbers in [`Totals`]; the amounts follow four behind.
#[derive(Clone, Copy)]
pub(super) enum Column {
    Credit,
    CreditReversal,
    Debit,
    DebitReversal,
}

impl Model {
    /// Counts something in the batch that the message names, else in the terminal's open one.
    pub(super) fn count(&mut self, asked: &Asked<'_>, column: Column, amount: i64) {
        let terminal = asked.draft.terminal;
        let number = asked.draft.batch.unwrap_or(self.terminals[&terminal].batch);
        let batch = self.batches.entry((terminal, number)).or_default();
        batch.touched = self.day;
        batch.totals[column as usize] += 1;
        batch.totals[column as usize + 4] += amount.unsigned_abs();
    }

    /// A batch's totals.
    #[must_use]
    pub fn batch_totals(&self, terminal: [u8; 8], batch: u32) -> Totals {
        self.batches.get(&(terminal, batch)).map_or([0; 8], |batch| batch.totals)
    }

    /// A terminal's open batch.
    #[must_use]
    pub fn open_batch(&self, terminal: [u8; 8]) -> u32 {
        self.terminals[&terminal].batch
    }

    pub(super) fn close_batch(&mut self, asked: &Asked<'_>) -> Effect {
        let id = asked.draft.terminal;
        let named = asked.draft.batch.expect("asked for");
        let own = self.batch_totals(id, named);
        if asked.draft.totals != Some(own) {
            self.events.push("decided.batch_differs");
            return Effect { code: "95", totals: Some(own), ..Effect::default() };
        }
        let open = self.terminals[&id].batch;
        let next = (named + 1).min(999_999);
        if next > open {
            if let Some(batch) = self.batches.get_mut(&(id, open)) {
                batch.touched = self.day;
            }
            self.terminals.get_mut(&id).expect("known").batch = next;
        }
        self.events.push(if own == [0; 8] { "decided.batch_empty" } else { "decided.batch_equal" });
        Effect::default()
    }
}
