//! What the journal's records amount to in `PostgreSQL`: rows by table, in the form that COPY takes.
//!
//! Always true here: a record that a terminal caused, and a hold that lapses, is one row of `transaction`; money that moved is in
//! `posting`; a table of newest states gets one row for each thing that the records touched, as it stands after the last of them. The
//! columns and their order stand a second time in `switch/settlement.py`.
//!
//! How it works: what is only added is written at once, record by record. Of what changes only its number is noted, and its row is
//! written at the end. What has come to an end by then (a loan, a hold) is a row of NULLs behind its key: it is taken away. What is
//! written for a purchase needs nothing looked up but its card.

mod batches;
mod exception;
pub(crate) mod subject;

use std::borrow::Cow;
use std::collections::BTreeSet;

use batches::TouchedBatches;
use exception::exception;
use subject::{Subject, detail, is_counted, merchant_of_hold};

use crate::card_number::CardNumber;
use crate::copy::{CopyStream, Row};
use crate::ledger::accounts::House;
use crate::ledger::identities::Deed;
use crate::ledger::record::Decoded;
use crate::ledger::registry::{Act, Terminal};
use crate::ledger::{Command, Ledger, Outcome, Policy, Request, Response, is_advice};

/// Complete COPY streams by table.
pub type Tables = Vec<(&'static str, Vec<u8>)>;

/// Rows while they are gathered.
pub(crate) struct Rows {
    transactions: CopyStream,
    postings: CopyStream,
    exceptions: CopyStream,
    actions: CopyStream,
    accounts: Vec<u32>,
    merchants: BTreeSet<u32>,
    terminals: BTreeSet<u32>,
    cards: BTreeSet<u32>,
    holds: BTreeSet<u64>,
    items: BTreeSet<Box<str>>,
    batches: TouchedBatches,
    /// The record that replaced the rules last.
    ruled: Option<u64>,
}

/// DE41 without its padding.
fn name(terminal: &Terminal) -> Cow<'_, str> {
    String::from_utf8_lossy(terminal.id.trim_ascii_end())
}

/// What a holder paid above DE4, or got back of that; below zero: a discount. It went to the fees or came from the grants.
fn surcharge(outcome: &Outcome) -> Option<i64> {
    let [fees, grants] = [House::Fees, House::Grants].map(House::account);
    let mut sum = 0;
    for movement in outcome.movements.as_slice() {
        let is = |account| movement.debit == account || movement.credit == account;
        sum += if is(fees) { movement.amount.cast_signed() } else { 0 };
        sum -= if is(grants) { movement.amount.cast_signed() } else { 0 };
    }
    (sum != 0).then_some(sum)
}

/// A message's moment by its terminal's clock.
fn local_time<'r>(row: Row<'r>, request: &Request) -> Row<'r> {
    let time = request.echo.time();
    row.timestamp(request.identity.date, time / 10_000 * 3_600 + time / 100 % 100 * 60 + time % 100)
}

impl Rows {
    /// Rows of so many records.
    pub(crate) fn new(records: u64) -> Self {
        let capacity = records as usize;
        Self {
            transactions: CopyStream::new(22, capacity * 240),
            postings: CopyStream::new(6, capacity * 60),
            exceptions: CopyStream::new(13, 0),
            actions: CopyStream::new(4, 0),
            accounts: Vec::new(),
            merchants: BTreeSet::new(),
            terminals: BTreeSet::new(),
            cards: BTreeSet::new(),
            holds: BTreeSet::new(),
            items: BTreeSet::new(),
            batches: TouchedBatches::default(),
            ruled: None,
        }
    }

    /// An account's balance, or what is held of it, has changed.
    pub(crate) fn touch(&mut self, account: u32) {
        self.accounts.push(account);
    }

    /// Takes a record that was just applied.
    pub(crate) fn add(&mut self, ledger: &Ledger, decoded: &Decoded<'_>, outcome: &Outcome) {
        match Subject::of(ledger, &decoded.command, outcome) {
            Some(subject) => self.decided(ledger, decoded, &subject, outcome),
            None => self.entered(ledger, decoded),
        }
        for (line, movement) in (1..).zip(outcome.movements.as_slice()) {
            self.postings
                .row()
                .i64(ledger.position().cast_signed())
                .date(ledger.business_date())
                .i16(line)
                .i32(movement.debit.cast_signed())
                .i32(movement.credit.cast_signed())
                .i64(movement.amount.cast_signed())
                .end();
        }
    }

    /// What a terminal asked for, and holds that lapse.
    fn decided(&mut self, ledger: &Ledger, decoded: &Decoded<'_>, subject: &Subject<'_>, outcome: &Outcome) {
        let counted = is_counted(&decoded.command, outcome);
        let batch = match subject.request {
            Some(request) if counted => Some(self.batches.count(ledger, request)),
            Some(request) => request.echo.batch(),
            None => None,
        };
        self.transaction(ledger, decoded, subject, outcome, batch);
        if matches!(decoded.command, Command::Purchase { .. }) {
            return;
        }
        self.note_states(ledger, decoded, subject, outcome);
        if let Some((kind, text)) = exception(ledger, &decoded.command, outcome) {
            self.exception(ledger, decoded, subject, outcome, kind, &text);
        }
    }

    /// Takes note of what is another than before.
    fn note_states(&mut self, ledger: &Ledger, decoded: &Decoded<'_>, subject: &Subject<'_>, outcome: &Outcome) {
        let registry = ledger.registry();
        let is_approved = outcome.response == Response::Approved;
        match &decoded.command {
            Command::SignOn { .. } | Command::SignOff(_) => drop(self.terminals.insert(subject.terminal)),
            Command::BatchClose { request, .. } => {
                self.terminals.insert(subject.terminal);
                self.batches.close(ledger, request, decoded.timestamp, outcome);
            }
            Command::CardReport { .. } if is_approved => {
                self.cards.extend(subject.card.and_then(|number| registry.cards.find(&number)));
            }
            Command::Identity { act: Act::Borrow | Act::Return, item, .. } if is_approved => {
                self.items.insert((*item).into());
            }
            _ => {}
        }
        let hold = match &decoded.command {
            Command::Hold { .. } => Some(ledger.position()),
            Command::Completion { .. } | Command::Lapse { .. } => subject.original,
            Command::Reversal { .. } => subject.original.filter(|_| subject.deed == Some(Deed::Hold)),
            _ => None,
        };
        if let (Some(hold), Some(holder), true) = (hold, subject.holder, is_approved) {
            self.holds.insert(hold);
            self.touch(registry.holders[holder].purses.cash());
        }
    }

    /// What operators did, and the calendar.
    fn entered(&mut self, ledger: &Ledger, decoded: &Decoded<'_>) {
        let registry = ledger.registry();
        match &decoded.command {
            Command::Merchant { id, .. } => self.merchants.extend(registry.merchants.find(id)),
            Command::Terminal { id, .. } => self.terminals.extend(registry.terminals.find(id)),
            Command::Standing { id, standing } => {
                self.terminals.extend(registry.terminals.find(id));
                self.action(ledger, decoded, &format!("{} {}", String::from_utf8_lossy(id.trim_ascii_end()), standing.name()));
            }
            Command::Card { number, .. } | Command::Pin { number, .. } => self.cards.extend(registry.cards.find(number)),
            Command::Policy(Policy { amount_max, identity_days, hold_hours, pin_tries_max }) => {
                let limits = format!(
                    "amount_max {amount_max} fen, identity_days {identity_days}, hold_hours {hold_hours}, pin_tries_max {pin_tries_max}"
                );
                self.action(ledger, decoded, &limits);
            }
            Command::Cutover(date) => self.action(ledger, decoded, &date.to_string()),
            Command::Rules(rules) => {
                self.ruled = Some(ledger.position());
                let rules: Vec<String> = rules.list().iter().map(|rule| rule.fields().join(",")).collect();
                let count = if rules.len() == 1 { "1 rule".to_owned() } else { format!("{} rules", rules.len()) };
                let colon = if rules.is_empty() { "" } else { ": " };
                self.action(ledger, decoded, &format!("{count}{colon}{}", rules.join("; ")));
            }
            Command::Imported { file, rows } => self.action(ledger, decoded, &format!("{file}, {rows} rows")),
            _ => {}
        }
    }

    fn action(&mut self, ledger: &Ledger, decoded: &Decoded<'_>, detail: &str) {
        let position = ledger.position().cast_signed();
        self.actions.row().i64(position).timestamptz(decoded.timestamp).text(decoded.command.name()).text(detail).end();
    }

    fn transaction(
        &mut self,
        ledger: &Ledger,
        decoded: &Decoded<'_>,
        subject: &Subject<'_>,
        outcome: &Outcome,
        batch: Option<u32>,
    ) {
        let registry = ledger.registry();
        let request = subject.request;
        let surcharge = surcharge(outcome);
        let amount = match &decoded.command {
            // A void's DE4 says nothing; it is about the whole sale.
            Command::Void { .. } | Command::Lapse { .. } if outcome.response == Response::Approved => {
                (outcome.paid[0] + outcome.paid[1]).cast_signed() - surcharge.unwrap_or(0)
            }
            _ => request.and_then(|request| request.content.amount()).unwrap_or(0).cast_signed(),
        };
        self.transactions
            .row()
            .i64(ledger.position().cast_signed())
            .date(ledger.business_date())
            .timestamptz(decoded.timestamp)
            .text(decoded.command.name())
            .text(outcome.response.code())
            .text(&name(subject.terminal(ledger)))
            .text(registry.merchants[subject.merchant].id.as_str())
            .nullable(subject.card, |row, card: CardNumber| row.text(card.digits().as_str()))
            .nullable(subject.holder, |row, holder| row.text(registry.holders[holder].id.as_str()))
            .nullable(request.map(|request| request.identity.stan().cast_signed()), Row::i32)
            .nullable(request, local_time)
            .i64(amount)
            .i64(outcome.paid[0].cast_signed())
            .i64(outcome.paid[1].cast_signed())
            .nullable(subject.original.map(u64::cast_signed), Row::i64)
            .nullable(outcome.after.map(|after| after[0]), Row::i64)
            .nullable(outcome.after.map(|after| after[1]), Row::i64)
            .nullable(batch.map(u32::cast_signed), Row::i32)
            .nullable(outcome.flag.map(Response::code), Row::text)
            .nullable(detail(ledger, &decoded.command, subject), |row, detail| row.text(&detail))
            .nullable(surcharge, Row::i64)
            .bool(request.is_some_and(|request| is_advice(request.mti)))
            .end();
    }

    fn exception(
        &mut self,
        ledger: &Ledger,
        decoded: &Decoded<'_>,
        subject: &Subject<'_>,
        outcome: &Outcome,
        kind: &str,
        text: &str,
    ) {
        let request = subject.request.expect("a terminal told of it");
        self.exceptions
            .row()
            .i64(ledger.position().cast_signed())
            .date(ledger.business_date())
            .timestamptz(decoded.timestamp)
            .text(kind)
            .text(decoded.command.name())
            .text(outcome.response.code())
            .text(&name(subject.terminal(ledger)))
            .text(ledger.registry().merchants[subject.merchant].id.as_str())
            .nullable(subject.card, |row, card: CardNumber| row.text(card.digits().as_str()))
            .i32(request.identity.stan().cast_signed())
            .nullable(Some(request), local_time)
            .nullable(request.content.amount().map(u64::cast_signed), Row::i64)
            .text(text)
            .end();
    }

    /// The rows of all tables that have any, and how many they are; `first` is the first record.
    pub(crate) fn finish(mut self, ledger: &Ledger, first: u64) -> (Tables, u64) {
        let mut touched: BTreeSet<u32> = std::mem::take(&mut self.accounts).into_iter().collect();
        if first == 1 {
            touched.extend(0..House::ALL.len() as u32);
        }
        // Whoever is new has accounts that may not have been touched yet.
        let (cards, holders) = self.cards(ledger, &mut touched);
        let merchants = self.merchants(ledger, &mut touched);
        let terminals = self.terminals(ledger);
        let (holds, loans, batches) = (self.holds(ledger), self.loans(ledger), self.batches.rows(ledger));
        let streams = [
            ("transaction", self.transactions),
            ("posting", self.postings),
            ("exception", self.exceptions),
            ("account", accounts(ledger, &touched)),
            ("cardholder", holders),
            ("card", cards),
            ("merchant", merchants),
            ("terminal", terminals),
            ("hold", holds),
            ("loan", loans),
            ("batch", batches),
            ("operator_action", self.actions),
        ];
        let mut rows = streams.iter().map(|(_, stream)| stream.rows()).sum();
        let mut tables: Tables =
            streams.into_iter().filter_map(|(name, stream)| stream.finish().map(|bytes| (name, bytes))).collect();
        if let Some(position) = self.ruled {
            let stream = rules(ledger, position);
            rows += stream.rows();
            tables.push(("rule", stream.finish_even_empty()));
        }
        (tables, rows)
    }

    /// Cards, and their holders.
    fn cards(&self, ledger: &Ledger, touched: &mut BTreeSet<u32>) -> (CopyStream, CopyStream) {
        let registry = ledger.registry();
        let (mut cards, mut holders) = (CopyStream::new(6, 0), CopyStream::new(3, 0));
        let mut entered = BTreeSet::new();
        for &index in &self.cards {
            let card = &registry.cards[index];
            let holder = registry.holder_of(card);
            touched.extend([holder.purses.cash(), holder.purses.subsidy()]);
            cards
                .row()
                .text(card.number.digits().as_str())
                .text(holder.id.as_str())
                .text(card.class.name())
                .text(card.status.name())
                .date(card.expires)
                .bool(ledger.pin_verification(&card.number).is_some())
                .end();
            entered.insert(card.holder);
        }
        for holder in entered.iter().map(|&holder| &registry.holders[holder]) {
            holders
                .row()
                .text(holder.id.as_str())
                .i32(holder.purses.cash().cast_signed())
                .i32(holder.purses.subsidy().cast_signed())
                .end();
        }
        (cards, holders)
    }

    fn merchants(&self, ledger: &Ledger, touched: &mut BTreeSet<u32>) -> CopyStream {
        let mut stream = CopyStream::new(5, 0);
        for &index in &self.merchants {
            let merchant = &ledger.registry().merchants[index];
            touched.insert(merchant.account);
            stream
                .row()
                .text(merchant.id.as_str())
                .text(&merchant.name)
                .text(merchant.category.name())
                .i32(i32::from(merchant.fee_bp))
                .i32(merchant.account.cast_signed())
                .end();
        }
        stream
    }

    fn terminals(&self, ledger: &Ledger) -> CopyStream {
        let mut stream = CopyStream::new(7, 0);
        for &index in &self.terminals {
            let terminal = &ledger.registry().terminals[index];
            stream
                .row()
                .text(&name(terminal))
                .text(ledger.registry().merchants[terminal.merchant].id.as_str())
                .text(terminal.kind.name())
                .text(terminal.zone.as_str())
                .bool(terminal.session.current.is_some())
                .i32(terminal.batch.cast_signed())
                .text(terminal.standing.name())
                .end();
        }
        stream
    }

    fn holds(&self, ledger: &Ledger) -> CopyStream {
        let registry = ledger.registry();
        let mut stream = CopyStream::new(7, 0);
        for &position in &self.holds {
            let row = stream.row().i64(position.cast_signed());
            let Some(hold) = ledger.holds().get(position) else {
                row.null().null().null().null().null().null().end();
                continue;
            };
            row.timestamptz(hold.timestamp)
                .text(&name(&registry.terminals[hold.terminal]))
                .text(registry.merchants[merchant_of_hold(ledger, position, hold.terminal)].id.as_str())
                .text(registry.cards[hold.card].number.digits().as_str())
                .text(registry.holders[hold.holder].id.as_str())
                .i64(hold.amount.cast_signed())
                .end();
        }
        stream
    }

    fn loans(&self, ledger: &Ledger) -> CopyStream {
        let registry = ledger.registry();
        let mut stream = CopyStream::new(5, 0);
        for item in &self.items {
            let row = stream.row().text(item);
            let Some(loan) = ledger.loans().find(item) else {
                row.null().null().null().null().end();
                continue;
            };
            row.i64(loan.position.cast_signed())
                .date(loan.date)
                .text(registry.cards[loan.card].number.digits().as_str())
                .text(registry.holders[loan.holder].id.as_str())
                .end();
        }
        stream
    }
}

fn accounts(ledger: &Ledger, touched: &BTreeSet<u32>) -> CopyStream {
    let mut stream = CopyStream::new(5, touched.len() * 64);
    for &account in touched {
        let (kind, owner) = ledger.owner_names(ledger.accounts().owner(account));
        stream
            .row()
            .i32(account.cast_signed())
            .text(kind)
            .text(owner)
            .i64(ledger.accounts().balance(account))
            .i64(ledger.held_of(account))
            .end();
    }
    stream
}

/// The rules in force, as a policy file has them, since the record at `position`.
fn rules(ledger: &Ledger, position: u64) -> CopyStream {
    let mut stream = CopyStream::new(10, 0);
    for (number, rule) in (1..).zip(ledger.rules().list()) {
        let mut row = stream.row().i32(number).i64(position.cast_signed());
        for field in &rule.fields() {
            row = row.text(field);
        }
        row.end();
    }
    stream
}
