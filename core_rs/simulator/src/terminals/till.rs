//! What a terminal counts of its batch, from the answers that it got and nothing else.
//!
//! It counts a transaction number once. Where it cannot know what the switch has counted (a reversal says 00 whether or not
//! there was something to undo), it is not sure of the batch until it has taken over the switch's totals.

use std::collections::{BTreeMap, BTreeSet};

use super::Heard;
use crate::message::{Draft, Totals};
use crate::model::request::{Operation, class};

/// The terminal's batches.
pub(super) struct Till {
    /// The number of the open one.
    pub(super) open: u32,
    counted: BTreeMap<u32, Totals>,
    seen: BTreeSet<u64>,
    unsure: BTreeSet<u32>,
    /// A request that nobody waits for any more may still be counted, whenever and wherever.
    is_loose: bool,
    /// The batch close under way: its request, and whether its totals must be right.
    closing: Option<(usize, bool)>,
}

impl Till {
    pub(super) fn new() -> Self {
        Self { open: 1, counted: BTreeMap::new(), seen: BTreeSet::new(), unsure: BTreeSet::new(), is_loose: false, closing: None }
    }

    pub(super) fn totals(&self, batch: u32) -> Totals {
        self.counted.get(&batch).copied().unwrap_or_default()
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Nobody waits for the answer to a request any more.
    pub(super) fn give_up(&mut self, draft: &Draft) {
        self.is_loose |= class(draft.mti) == 2;
    }

    /// A request is reversed without an answer: it may have been counted.
    pub(super) fn doubt(&mut self, draft: &Draft) {
        self.unsure.insert(draft.batch.unwrap_or(self.open));
    }

    /// A close of this batch is sent with these totals.
    pub(super) fn begin_close(&mut self, request: usize, batch: u32, totals: Totals) {
        let sure = batch == self.open && totals == self.totals(batch) && !self.is_loose && !self.unsure.contains(&batch);
        self.closing = Some((request, sure));
    }

    /// An answer has come to something that may be counted. `voided` is what a void's original was about, where that is known.
    pub(super) fn note(&mut self, draft: &Draft, heard: &Heard, merchant: &str, voided: Option<u64>) {
        let operation = Operation::of(draft);
        let amount = draft.amount.unwrap_or(0);
        let (column, amount) = match operation {
            Operation::Refund | Operation::Load => (0, Some(amount)),
            Operation::Purchase | Operation::OfflineSale | Operation::Completion | Operation::Bill => (2, Some(amount)),
            Operation::Void => (3, voided),
            Operation::Reversal => (3, None),
            _ => return,
        };
        let Some(number) = heard.number else {
            // It may have been counted, and forgotten, before this was answered.
            let is_clear = ["30", "91", "63"].contains(&heard.code.as_str())
                || heard.code == "58" && draft.merchant.is_none_or(|named| named == merchant || named == super::NOBODY);
            self.is_loose |= !is_clear;
            return;
        };
        if heard.code != "00" || !self.seen.insert(number) {
            return;
        }
        let batch = heard.batch.unwrap_or(self.open);
        if batch != self.open {
            self.unsure.insert(batch);
        }
        let Some(amount) = amount else {
            self.unsure.insert(batch);
            return;
        };
        let totals = self.counted.entry(batch).or_default();
        totals[column] += 1;
        totals[column + 4] += amount;
    }

    /// The answer to a batch close has come. `Ok(true)`: its totals had to be right, and were.
    ///
    /// # Errors
    /// They had to be right, and were not.
    pub(super) fn hear_close(&mut self, request: usize, draft: &Draft, heard: &Heard) -> Result<bool, String> {
        let Some((_, sure)) = self.closing.take_if(|(closing, _)| *closing == request) else { return Ok(false) };
        let batch = draft.batch.expect("it names a batch");
        match (heard.code.as_str(), heard.totals) {
            ("00", _) => {
                self.open = self.open.max(batch + 1);
                Ok(sure)
            }
            ("95", Some(totals)) if !sure => {
                self.counted.insert(batch, totals);
                self.unsure.remove(&batch);
                Ok(false)
            }
            ("95", totals) => Err(format!("it has counted {:?}, and the switch says {totals:?}", self.totals(batch))),
            _ => {
                // It may have been closed, and forgotten.
                self.is_loose = true;
                Ok(false)
            }
        }
    }
}
