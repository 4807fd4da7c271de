//! Terminals' batches as `PostgreSQL` has them: which ones some records counted to or closed.

use std::collections::BTreeMap;

use crate::calendar::Timestamp;
use crate::copy::{CopyStream, Row};
use crate::ledger::batches::{Total, Totals};
use crate::ledger::{Ledger, Outcome, Request, Response};

/// What became of one batch.
#[derive(Default)]
struct Touched {
    /// Its totals, of one that is not its terminal's open one: it may be forgotten at the end of the day. `None`: it was forgotten
    /// before, and what stands in `PostgreSQL` is all that is known of it.
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
        touched.totals = ledger.totals(terminal, batch).or(touched.totals);
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
                touched.totals = ledger.totals(terminal, *batch).or(touched.totals);
            }
        }
    }

    /// Their rows. What did not change or is not known is NULL: what stands there stays.
    pub(super) fn rows(&self, ledger: &Ledger) -> CopyStream {
        let mut stream = CopyStream::new(13, 0);
        for ((terminal, batch), touched) in &self.touched {
            let terminal = &ledger.registry().terminals[*terminal];
            let totals = if terminal.batch == *batch { Some(terminal.totals) } else { touched.totals };
            let status = touched.closed.map(|(_, _, agrees)| if agrees { "closed" } else { "differs" });
            let mut row = stream
                .row()
                .text(&super::name(terminal))
                .i32(batch.cast_signed())
                .nullable(status, Row::text)
                .nullable(touched.closed.map(|(position, ..)| position.cast_signed()), Row::i64)
                .nullable(touched.closed.map(|(_, at, _)| at), Row::timestamptz);
            let sides = totals.map(|totals| [totals.credits, totals.credit_reversals, totals.debits, totals.debit_reversals]);
            for side in 0..4 {
                let total: Option<Total> = sides.map(|sides| sides[side]);
                row = row
                    .nullable(total.map(|total| total.number.cast_signed()), Row::i64)
                    .nullable(total.map(|total| total.amount.cast_signed()), Row::i64);
            }
            row.end();
        }
        stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::Date;
    use crate::card_number::CardNumber;
    use crate::ledger::identities::{Content, Echo, Family, Identity};
    use crate::ledger::registry::{CardClass, CardStatus, Category, HolderId, MerchantId, TerminalKind, Zone};
    use crate::ledger::{Command, Policy, PurseChoice};
    use crate::session::KeySlot;

    /// 2026-11-22.
    const TODAY: Date = Date(9_822);
    const CARD: &[u8] = b"6230000000000017";

    /// A merchant, its terminal and a card; what is decided is noted.
    struct Campus {
        ledger: Ledger,
        touched: TouchedBatches,
        stan: u32,
    }

    impl Campus {
        fn new() -> Self {
            let mut ledger = Ledger::new();
            let merchant = MerchantId::new("M1").unwrap();
            let holder = HolderId::new("H1").unwrap();
            for command in [
                Command::Policy(Policy { amount_max: 10_000, identity_days: 1, ..Policy::default() }),
                Command::Cutover(TODAY),
                Command::Merchant { id: merchant, name: "Canteen", category: Category::Canteen, fee_bp: 0 },
                Command::Terminal {
                    id: *b"T1      ",
                    merchant: 0,
                    kind: TerminalKind::Pos,
                    zone: Zone::new("").unwrap(),
                    wrapped_key: [0; 24],
                },
                Command::Card {
                    number: CardNumber::from_digits(CARD).unwrap(),
                    holder,
                    class: CardClass::Student,
                    status: CardStatus::Active,
                    expires: Date(20_000),
                    opening: [100_000, 0],
                },
            ] {
                ledger.apply(0, &command);
            }
            Self { ledger, touched: TouchedBatches::default(), stan: 0 }
        }

        fn request(&mut self, mti: u16, amount: Option<u64>, batch: Option<u32>) -> Request {
            self.stan += 1;
            let card = amount.and_then(|_| CardNumber::from_digits(CARD));
            Request {
                identity: Identity::new(Family::of(mti), 0, self.ledger.business_date(), self.stan),
                content: Content::new(card, Some(0), amount, true),
                echo: Echo::new(120_000, None, batch, None, true),
                slot: KeySlot::Current,
                mti,
            }
        }

        fn sell(&mut self, amount: u64, batch: Option<u32>) {
            let request = self.request(220, Some(amount), batch);
            let outcome = self.ledger.apply(1, &Command::OfflineSale { request, purse: PurseChoice::Policy });
            assert_eq!(outcome.response, Response::Approved);
            self.touched.count(&self.ledger, &request);
        }

        /// Closes a batch with these debits alone.
        fn close(&mut self, batch: u32, debits: Total) -> Response {
            let request = self.request(500, None, Some(batch));
            let totals = Box::new(Totals { debits, ..Totals::default() });
            let outcome = self.ledger.apply(2, &Command::BatchClose { request, totals });
            self.touched.close(&self.ledger, &request, 2, &outcome);
            outcome.response
        }

        /// Number, status and debits of each batch that was touched.
        fn seen(&self) -> Vec<(u32, Option<bool>, Option<Total>)> {
            let rows = self.touched.touched.iter().map(|(&(terminal, batch), touched)| {
                let row = &self.ledger.registry().terminals[terminal];
                let totals = if row.batch == batch { Some(row.totals) } else { touched.totals };
                (batch, touched.closed.map(|closed| closed.2), totals.map(|totals| totals.debits))
            });
            assert_eq!(self.touched.rows(&self.ledger).rows() as usize, rows.len());
            rows.collect()
        }
    }

    fn total(number: u64, amount: u64) -> Total {
        Total { number, amount }
    }

    #[test]
    fn a_batch_that_is_forgotten_at_the_days_end_has_its_totals() {
        let mut campus = Campus::new();
        campus.sell(100, None);
        campus.sell(20, Some(7));
        campus.sell(3, Some(7));
        assert_eq!(campus.close(1, total(1, 100)), Response::Approved);
        campus.sell(5, None);
        campus.ledger.apply(3, &Command::Cutover(Date(TODAY.0 + 1)));
        assert_eq!(campus.ledger.batches().totals(0, 7), None);
        let seen = [(1, Some(true), Some(total(1, 100))), (2, None, Some(total(1, 5))), (7, None, Some(total(2, 23)))];
        assert_eq!(campus.seen(), seen);
        // Not even by a batch that is closed after that.
        assert_eq!(campus.close(2, total(1, 5)), Response::Approved);
        assert_eq!(campus.seen(), [seen[0], (2, Some(true), Some(total(1, 5))), seen[2]]);
    }

    #[test]
    fn one_that_is_closed_again_when_it_is_forgotten_leaves_the_totals_that_stand_there() {
        let mut campus = Campus::new();
        campus.sell(100, None);
        assert_eq!(campus.close(1, total(1, 100)), Response::Approved);
        campus.ledger.apply(3, &Command::Cutover(Date(TODAY.0 + 1)));
        campus.touched = TouchedBatches::default();
        assert_eq!(campus.close(1, total(1, 100)), Response::TotalsDiffer);
        assert_eq!(campus.seen(), [(1, Some(false), None)]);
    }

    #[test]
    fn one_that_is_passed_over_stays_open_and_keeps_what_was_counted() {
        let mut campus = Campus::new();
        campus.sell(100, None);
        campus.sell(10, Some(4));
        assert_eq!(campus.close(4, total(9, 9)), Response::TotalsDiffer);
        assert_eq!(campus.close(4, total(1, 10)), Response::Approved);
        campus.sell(1, None);
        // What comes late to a closed batch is counted there.
        campus.sell(2, Some(4));
        assert_eq!(campus.close(5, total(1, 1)), Response::Approved);
        campus.ledger.apply(3, &Command::Cutover(Date(TODAY.0 + 1)));
        assert_eq!(
            campus.seen(),
            [(1, None, Some(total(1, 100))), (4, Some(true), Some(total(2, 12))), (5, Some(true), Some(total(1, 1)))]
        );
    }
}
