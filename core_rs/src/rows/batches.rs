//! Terminals' batches as `PostgreSQL` has them: which ones some records counted to or closed.

use std::collections::BTreeMap;

use crate::calendar::Timestamp;
use crate::copy::{CopyStream, Row};
use crate::ledger::batches::{Total, Totals};
use crate::ledger::{Ledger, Outcome, Request, Response};

/// What became of one batch.
#[derive(Default)]
struct Touched {
    /// Its totals, of one that is not its terminal's open one: it may be forgotten at the end of the day.
    totals: Option<Totals>,
    /// The terminal's last word on it, with the position and whether the totals were equal.
    closed: Option<(u64, Timestamp, bool)>,
}

/// The batches that were touched.
#[derive(Default)]
pub(super) struct TouchedBatches {
    /// For each terminal the batch that was counted to last; 0: none. Most count to the same again.
    last: Vec<u32>,
    touched: BTreeMap<(u32, u32), Touched>,
}

impl TouchedBatches {
    /// Takes note of a batch that was counted to, and gives its number: the one that the request names, else its terminal's open one.
    #[inline]
    pub(super) fn count(&mut self, ledger: &Ledger, request: &Request) -> u32 {
        let terminal = request.identity.terminal();
        let open = ledger.registry().terminals[terminal].batch;
        let batch = request.echo.batch().unwrap_or(open);
        if self.last.get(terminal as usize) != Some(&batch) {
            self.touch(terminal, batch);
        }
        if batch != open {
            self.note(ledger, terminal, batch);
        }
        batch
    }

    #[cold]
    fn touch(&mut self, terminal: u32, batch: u32) {
        if self.last.len() <= terminal as usize {
            self.last.resize(terminal as usize + 1, 0);
        }
        self.last[terminal as usize] = batch;
        self.touched.entry((terminal, batch)).or_default();
    }

    /// Keeps the totals of a batch that is not the open one.
    fn note(&mut self, ledger: &Ledger, terminal: u32, batch: u32) {
        let touched = self.touched.entry((terminal, batch)).or_default();
        touched.totals = Some(ledger.totals(terminal, batch));
    }

    /// A batch was to be closed.
    pub(super) fn close(&mut self, ledger: &Ledger, request: &Request, at: Timestamp, outcome: &Outcome) {
        let terminal = request.identity.terminal();
        let batch = request.echo.batch().expect("a batch that is closed has a number");
        self.touch(terminal, batch);
        let closed = (ledger.position(), at, outcome.response == Response::Approved);
        self.touched.entry((terminal, batch)).or_default().closed = Some(closed);
        // The one that was open may be none of those any more.
        let open = ledger.registry().terminals[terminal].batch;
        for ((_, batch), touched) in self.touched.range_mut((terminal, 0)..=(terminal, u32::MAX)) {
            if *batch != open {
                touched.totals = Some(ledger.totals(terminal, *batch));
            }
        }
    }

    /// Their rows. A status that did not change is NULL: the one that stands there stays.
    pub(super) fn rows(&self, ledger: &Ledger) -> CopyStream {
        let mut stream = CopyStream::new(13, 0);
        for ((terminal, batch), touched) in &self.touched {
            let terminal = &ledger.registry().terminals[*terminal];
            let totals = if terminal.batch == *batch { Some(terminal.totals) } else { touched.totals };
            let totals = totals.expect("a batch that is not open was looked at when it was touched");
            let status = touched.closed.map(|(_, _, agrees)| if agrees { "closed" } else { "differs" });
            let mut row = stream
                .row()
                .text(&super::name(terminal))
                .i32(batch.cast_signed())
                .nullable(status, Row::text)
                .nullable(touched.closed.map(|(position, ..)| position.cast_signed()), Row::i64)
                .nullable(touched.closed.map(|(_, at, _)| at), Row::timestamptz);
            for Total { number, amount } in [totals.credits, totals.credit_reversals, totals.debits, totals.debit_reversals] {
                row = row.i64(number.cast_signed()).i64(amount.cast_signed());
            }
            row.end();
        }
        stream
    }
}
