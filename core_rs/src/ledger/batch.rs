//! Closing a terminal's batch: its totals against the switch's.

use super::batches::Totals;
use super::command::{Outcome, Request};
use super::{Ledger, Response};

/// DE60 has six digits. After the last number there is no next one: that batch stays open.
const BATCH_MAX: u32 = 999_999;

impl Ledger {
    /// The totals of the batch that a request belongs to: the one that DE60 names, else the terminal's open one.
    #[inline]
    pub(super) fn count(&mut self, request: &Request) -> &mut Totals {
        let index = request.identity.terminal();
        let open = self.registry.terminals[index].batch;
        match request.echo.batch() {
            Some(named) if named != open => self.batches.totals_mut(index, named, self.business_date),
            _ => &mut self.registry.terminals.row_mut(index).totals,
        }
    }

    /// The switch's totals of a batch; `None`: nothing was counted to it, or it is forgotten.
    #[must_use]
    pub fn totals(&self, terminal: u32, batch: u32) -> Option<Totals> {
        let row = &self.registry.terminals[terminal];
        if row.batch == batch { Some(row.totals) } else { self.batches.totals(terminal, batch) }
    }

    pub(super) fn batch_close(&mut self, position: u64, request: &Request, totals: &Totals, outcome: &mut Outcome) {
        let terminal = request.identity.terminal();
        let batch = request.echo.batch().expect("a batch that is closed has a number");
        let own = self.totals(terminal, batch).unwrap_or_default();
        if own != *totals {
            outcome.totals = Some(Box::new(own));
            outcome.response = Response::TotalsDiffer;
            let place = self.remember(position, request, Response::TotalsDiffer);
            outcome.place = Some(place);
            self.identities.extra_mut(place).totals.clone_from(&outcome.totals);
            return;
        }
        let next = (batch + 1).min(BATCH_MAX);
        if next > self.registry.terminals[terminal].batch {
            self.open_batch(terminal, next);
        }
        self.remembered(position, request, Response::Approved, outcome);
    }

    /// Opens a batch, and puts the one that was open to the others.
    fn open_batch(&mut self, terminal: u32, batch: u32) {
        let before = self.batches.take(terminal, batch);
        let row = self.registry.terminals.row_mut(terminal);
        let (closed, totals) = (row.batch, row.totals);
        (row.batch, row.totals) = (batch, before);
        self.batches.keep(terminal, closed, totals, self.business_date);
    }
}
