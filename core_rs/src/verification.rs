//! The full check: what must hold after every record of a journal, whoever wrote it.
//!
//! The ledger asserts of its own work what costs next to nothing. A [`Verifier`] trusts it with nothing: beside the replayed
//! ledger it keeps books of its own, in which it posts what each record says was paid, and holds the two against each other.
//!
//! After every record: it is the next one; its outcome comes out again; what moved is what was paid, taken from one account
//! and given to another; every account that it touched stands as in the verifier's own books, not below its floor and not
//! beyond its ceiling, with no more held than is there; what it refers to was decided before, and its own decision is
//! remembered under its position. Over everything, now and then and at the end ([`Verifier::sweep`]): the sum is zero, the
//! same for every account, one live card a holder, every memory of a decision within the days that are kept and of a
//! position that exists. A sweep comes when as many records have passed as there are things to look at, so it doubles the
//! time of a check at most.

use std::iter::Peekable;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use crate::calendar::Timestamp;
use crate::journal::{FolderStorage, JournalError, PerRecord, Reader, Start, Storage, inspect_from};
use crate::ledger::accounts::{AccountId, House, Movement, Owner};
use crate::ledger::command::touched;
use crate::ledger::record::Decoded;
use crate::ledger::registry::NONE;
use crate::ledger::{Command, Ledger, Outcome, Response};
use crate::snapshot::{self, Loaded, Seal};

/// Records between two sweeps, at least.
const SWEEP_RECORDS_MIN: u64 = 65_536;

/// What is wrong, and from which record on nothing can be trusted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The first record that is bad, or that may be.
    pub record: u64,
    /// One sentence.
    pub problem: String,
}

/// Checks records in order.
pub struct Verifier {
    ledger: Ledger,
    /// For each account its balance by the records alone.
    books: Vec<i64>,
    /// The last record at which everything was looked at and in order.
    swept: u64,
    last_timestamp: Timestamp,
}

impl Verifier {
    /// A verifier for the records after those that `ledger` has; what it holds is believed until [`Self::sweep`].
    #[must_use]
    pub fn new(ledger: Ledger) -> Self {
        let books = (0..ledger.accounts().count()).map(|account| ledger.accounts().balance(account)).collect();
        Self { swept: ledger.position(), books, ledger, last_timestamp: 0 }
    }

    /// The ledger as of the last record taken.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The moment of the last record taken; 0 without one.
    #[must_use]
    pub fn last_timestamp(&self) -> Timestamp {
        self.last_timestamp
    }

    /// Takes the record at `position` and checks all that it touches.
    ///
    /// # Errors
    /// What is wrong with it, without its position: then it is the first bad one, but for a fault that only the sweep
    /// after it can see.
    pub fn take(&mut self, position: u64, record: &[u8]) -> Result<(), Fault> {
        let fault = |problem: String| Fault { record: position, problem };
        let (decoded, outcome) = self.ledger.replay(position, record).map_err(fault)?;
        self.last_timestamp = decoded.timestamp;
        self.check(position, &decoded, &outcome).map_err(fault)?;
        let things = self.books.len() + self.ledger.identities().count();
        if position - self.swept >= SWEEP_RECORDS_MIN.max(things as u64) {
            self.sweep()?;
        }
        Ok(())
    }

    fn check(&mut self, position: u64, decoded: &Decoded<'_>, outcome: &Outcome) -> Result<(), String> {
        self.books.resize(self.ledger.accounts().count() as usize, 0);
        for &Movement { debit, credit, amount } in outcome.movements.as_slice() {
            let fen = i64::try_from(amount).ok().filter(|fen| *fen > 0 && debit != credit);
            let fen = fen.ok_or_else(|| format!("it moves {amount} fen from account {debit} to account {credit}"))?;
            self.books[debit as usize] -= fen;
            self.books[credit as usize] += fen;
        }
        self.check_payment(decoded, outcome)?;
        touched(outcome).try_for_each(|account| self.check_account(account))?;
        if self.ledger.position() != position {
            return Err(format!("it took position {}", self.ledger.position()));
        }
        if let Some(original) = outcome.original.filter(|original| !(1..position).contains(original)) {
            return Err(format!("it refers to record {original}, which does not stand before it"));
        }
        if let Some(request) = decoded.command.request().filter(|_| !matches!(decoded.command, Command::Late { .. })) {
            let remembered = self.ledger.recall(request.identity).map(|(_, remembered)| remembered.position());
            if remembered != Some(position) {
                return Err(format!("it is remembered as {remembered:?} and not under its own position"));
            }
        }
        Ok(())
    }

    /// Whether the money that moved is what the record says was paid, from and to the right accounts.
    fn check_payment(&self, decoded: &Decoded<'_>, outcome: &Outcome) -> Result<(), String> {
        let Some(request) = decoded.command.request() else { return Ok(()) };
        let paid = outcome.paid[0] + outcome.paid[1];
        if paid > 0 && outcome.response != Response::Approved {
            return Err(format!("{paid} fen were paid with {}", outcome.response.code()));
        }
        let accounts = self.ledger.accounts();
        let (mut reached, mut parties, mut holder) = ([0_i128; 2], 0_i128, None);
        for &Movement { debit, credit, amount } in outcome.movements.as_slice() {
            let wrong = || format!("it moves {amount} fen from {} to {}", self.name(debit), self.name(credit));
            for (account, fen) in [(debit, -i128::from(amount)), (credit, i128::from(amount))] {
                let owner = accounts.owner(account);
                match owner {
                    Owner::Cash(own) | Owner::Subsidy(own) => {
                        if *holder.get_or_insert(own) != own {
                            return Err(wrong());
                        }
                        reached[usize::from(matches!(owner, Owner::Subsidy(_)))] += fen;
                    }
                    // A surcharge's and a discount's own account.
                    Owner::House(House::Fees | House::Grants) => {}
                    _ => parties += fen,
                }
            }
            if !may_move(&decoded.command, accounts.owner(debit), accounts.owner(credit)) {
                return Err(wrong());
            }
        }
        // What is only held moves nothing.
        let is_held = outcome.movements.as_slice().is_empty() && outcome.paid[1] == 0;
        let told = outcome.paid.map(i128::from);
        if reached.map(i128::abs) != told
            && !(is_held && matches!(decoded.command, Command::Hold { .. } | Command::Reversal { .. }))
        {
            return Err(format!("it tells of {:?} fen in cash and subsidy purse, and {reached:?} moved", outcome.paid));
        }
        let states_amount = !matches!(decoded.command, Command::Void { .. } | Command::Reversal { .. } | Command::Hold { .. });
        let amount = i128::from(request.content.amount().unwrap_or(0));
        if states_amount && outcome.response == Response::Approved && parties.abs() != amount && outcome.after.is_some() {
            return Err(format!("{} fen reached the other side of a {} of {amount}", parties.abs(), decoded.command.name()));
        }
        let Some(holder) = holder.map(|holder| &self.ledger.registry().holders[holder]) else { return Ok(()) };
        let held = self.ledger.held(holder.purses);
        let after = [self.books[holder.purses.cash() as usize] - held, self.books[holder.purses.subsidy() as usize]];
        if outcome.after != Some(after) {
            return Err(format!("it tells of purses {:?} where {after:?} are left", outcome.after));
        }
        Ok(())
    }

    fn check_account(&self, account: AccountId) -> Result<(), String> {
        let accounts = self.ledger.accounts();
        let balance = accounts.balance(account);
        let booked = self.books[account as usize];
        if balance != booked {
            return Err(format!("{} holds {balance} fen where the records make {booked}", self.name(account)));
        }
        let floor = accounts.owner(account).floor();
        if balance < floor {
            return Err(format!("{} holds {balance} fen, below its floor of {floor}", self.name(account)));
        }
        let ceiling = accounts.owner(account).ceiling();
        if balance > ceiling {
            return Err(format!("{} holds {balance} fen, beyond its ceiling of {ceiling}", self.name(account)));
        }
        if let Owner::Cash(holder) = accounts.owner(account) {
            let purses = self.ledger.registry().holders[holder].purses;
            let (held, available) = (self.ledger.held(purses), self.ledger.available(purses)[0]);
            if held < 0 || balance - held != available {
                return Err(format!("{available} fen are available of {}, of which {held} are held", self.name(account)));
            }
        }
        Ok(())
    }

    /// Looks at everything.
    ///
    /// # Errors
    /// What is wrong, and the first record after the last sweep that found all in order.
    pub fn sweep(&mut self) -> Result<(), Fault> {
        self.look_at_all().map_err(|problem| {
            let (record, last) = (self.swept + 1, self.ledger.position());
            Fault { record, problem: format!("between the records {record} and {last} the ledger's rules were broken: {problem}") }
        })?;
        self.swept = self.ledger.position();
        Ok(())
    }

    fn look_at_all(&self) -> Result<(), String> {
        let Self { ledger, books, .. } = self;
        let sum = ledger.accounts().sum();
        if sum != 0 || books.len() != ledger.accounts().count() as usize {
            return Err(format!("the sum over all accounts is {sum} fen and not 0"));
        }
        (0..ledger.accounts().count()).try_for_each(|account| self.check_account(account))?;
        let registry = ledger.registry();
        let mut live = vec![NONE; registry.holders.rows().len()];
        for (index, card) in (0..).zip(registry.cards.rows()).filter(|(_, card)| card.status.is_live()) {
            if std::mem::replace(&mut live[card.holder as usize], index) != NONE {
                return Err(format!("holder {} has two live cards", registry.holder_of(card).id));
            }
        }
        if let Some((holder, _)) = registry.holders.rows().iter().zip(live).find(|(holder, live)| holder.live_card != *live) {
            return Err(format!("the live card of holder {} is another than the one noted", holder.id));
        }
        for (date, remembered) in ledger.identities().all() {
            let position = remembered.position();
            if !(1..=ledger.position()).contains(&position) {
                return Err(format!("a decision is remembered as record {position}, which does not exist"));
            }
            if !ledger.window().contains(&date) {
                return Err(format!("record {position} is remembered under {date}, outside the days that are kept"));
            }
        }
        Ok(())
    }

    fn name(&self, account: AccountId) -> String {
        let (kind, owner) = self.ledger.owner_names(self.ledger.accounts().owner(account));
        format!("the account {account} ({kind} {owner})")
    }
}

/// Whether an operation may move money between accounts of these owners, in this direction. A surcharge goes to the fees, and a
/// discount comes from the grants.
fn may_move(command: &Command<'_>, from: Owner, to: Owner) -> bool {
    let is_purse = |owner| matches!(owner, Owner::Cash(_) | Owner::Subsidy(_));
    let other = |owner: Owner, rest: House| match (command, owner) {
        (_, Owner::House(house)) if house == rest => true,
        (Command::BillPayment { .. } | Command::Reversal { .. }, Owner::Payee(_))
        | (Command::Load(_) | Command::Reversal { .. }, Owner::House(House::CashDesk)) => true,
        (Command::BillPayment { .. } | Command::Load(_), _) => false,
        _ => matches!(owner, Owner::Merchant(_)),
    };
    let pays =
        is_purse(from) && other(to, House::Fees) || matches!(from, Owner::House(House::Grants)) && matches!(to, Owner::Merchant(_));
    let gives_back =
        is_purse(to) && other(from, House::Fees) || matches!(to, Owner::House(House::Grants)) && matches!(from, Owner::Merchant(_));
    match command {
        Command::Purchase { .. } | Command::OfflineSale { .. } | Command::Completion { .. } | Command::BillPayment { .. } => pays,
        Command::Void { .. } | Command::Refund { .. } | Command::Load(_) => gives_back,
        Command::Reversal { .. } => pays || gives_back,
        _ => false,
    }
}

/// What checking a whole journal found.
#[derive(Serialize, Debug)]
pub struct Verification {
    /// Whether every checksum, the chain, every outcome, every account, every snapshot and the sum of all accounts are right.
    pub ok: bool,
    /// The first record that was checked: 1, or the one behind the snapshot from which a shortened journal goes on.
    pub first_record: u64,
    /// Records that are right, from record 1 on.
    pub records: u64,
    /// BLAKE3 over the state after them, hex; where not ok, over whatever was replayed.
    pub state_digest: String,
    /// Sum over all accounts in fen; zero.
    pub sum: i64,
    /// The moment of the last record, microseconds since 1970; 0 without one.
    pub last_timestamp: Timestamp,
    /// Snapshots that are the state of their record.
    pub snapshots: u64,
    /// What is wrong, where, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The first record that is bad, or that cannot be trusted because its batch is damaged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_bad_record: Option<u64>,
}

/// Checks a journal that no switch has open: every checksum, the chain, all that [`Verifier`] looks at, and every snapshot
/// against the state that the records lead to. Segments that were moved to `archive` are read there; without them it begins
/// at the oldest snapshot that is sound.
#[must_use]
pub fn verify(folder: &Path, archive: Option<&Path>) -> Verification {
    let storage: Arc<dyn Storage> = Arc::new(FolderStorage::with_archive(folder, archive));
    let (loaded, unreadable) = match snapshot::begin_whole(&*storage) {
        Ok(loaded) => (loaded, None),
        Err(error) => (Loaded::default(), Some(error)),
    };
    let start = loaded.start();
    let ledger = loaded.ledger;
    let first_record = ledger.position() + 1;
    let mut seals = snapshot::seals(&*storage).unwrap_or_default().into_iter().peekable();
    let mut checking =
        Checking { right: ledger.position(), verifier: Verifier::new(ledger), broken: None, snapshots: 0, unsound: None };
    checking.compare(&mut seals);
    let checked = match unreadable {
        Some(error) => Err(error),
        None => inspect_from(
            &storage,
            start.as_ref(),
            &mut PerRecord(&mut |position, record| {
                checking.take(position, record)?;
                checking.compare(&mut seals);
                Ok(())
            }),
        )
        .map(drop),
    };
    let end = checking.verifier.ledger().position();
    // What a sound snapshot says was durable once, so a journal that ends before it has lost records.
    let beyond = seals.filter_map(|seal| seal.digest.is_ok().then_some(seal)).next_back();
    if let (Ok(()), Some(seal)) = (&checked, beyond) {
        let Seal { position, file, .. } = seal;
        let lost = format!(
            "the journal has lost records: it ends at record {end}, but the sound snapshot {file} was made after record {position}; \
             restore the folder from a backup or the standby"
        );
        checking.unsound.get_or_insert(lost);
    }
    let Checking { right, mut verifier, broken, snapshots, unsound } = checking;
    let (problem, first_bad_record) = match (checked, verifier.sweep()) {
        (Err(error), _) => (Some(error.to_string()), broken.or_else(|| first_bad_record(&storage, start.as_ref(), &error))),
        (Ok(()), Err(fault)) => (Some(format!("{}; stop using this journal", fault.problem)), Some(fault.record)),
        (Ok(()), Ok(())) => (unsound, None),
    };
    let ledger = verifier.ledger();
    Verification {
        ok: problem.is_none(),
        first_record,
        records: first_bad_record.map_or(right, |bad| right.min(bad - 1)),
        state_digest: blake3::Hash::from_bytes(ledger.digest()).to_hex().to_string(),
        sum: i64::try_from(ledger.accounts().sum()).unwrap_or(i64::MAX),
        last_timestamp: verifier.last_timestamp(),
        snapshots,
        problem,
        first_bad_record,
    }
}

/// A check on its way.
struct Checking {
    verifier: Verifier,
    /// The last record that was right.
    right: u64,
    /// The first one that was not.
    broken: Option<u64>,
    snapshots: u64,
    /// What is wrong with the first snapshot that is not the state of its record.
    unsound: Option<String>,
}

impl Checking {
    fn take(&mut self, position: u64, record: &[u8]) -> Result<(), String> {
        match self.verifier.take(position, record) {
            Ok(()) => {
                self.right = position;
                Ok(())
            }
            Err(fault) => {
                self.broken = Some(fault.record);
                Err(fault.problem)
            }
        }
    }

    /// Holds the snapshots of records up to this one against the state. Those before the first record checked were not
    /// sound: one that was would be where the check began.
    fn compare(&mut self, seals: &mut Peekable<impl Iterator<Item = Seal>>) {
        while let Some(seal) = seals.next_if(|seal| seal.position <= self.verifier.ledger().position()) {
            let cause = match seal.digest {
                Err(cause) => Some(cause),
                Ok(digest) if seal.position == self.verifier.ledger().position() && digest == self.verifier.ledger().digest() => {
                    None
                }
                Ok(_) => Some("it is not the state of its record".to_owned()),
            };
            self.snapshots += u64::from(cause.is_none());
            if let Some(cause) = cause {
                let unsound = || format!("the snapshot {} cannot be used: {cause}; delete it while no switch runs", seal.file);
                self.unsound.get_or_insert_with(unsound);
            }
        }
    }
}

/// The first record that cannot be trusted after this error; `None` where it is about no record.
fn first_bad_record(storage: &Arc<dyn Storage>, start: Option<&Start>, error: &JournalError) -> Option<u64> {
    match error {
        JournalError::Rejected { position, .. } => Some(*position),
        JournalError::Lost { found, .. } => Some(found + 1),
        // A file as a whole: its records begin where those before it end.
        JournalError::Damaged { position: 0, file, .. } if file.ends_with(".segment") => {
            let mut reader = Reader::open_on(Arc::clone(storage), start.map(|start| &start.bookmark)).ok()?;
            while let Ok(Some(_)) = reader.next_batch(u64::MAX) {}
            Some(reader.position() + 1)
        }
        JournalError::Damaged { position, .. } => (*position > 0).then_some(*position),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::Date;
    use crate::card_number::CardNumber;
    use crate::ledger::identities::{Content, Echo, Family, Identity};
    use crate::ledger::record::encode;
    use crate::ledger::registry::{CardClass, CardStatus, Category, HolderId, MerchantId, TerminalKind, Zone};
    use crate::ledger::{Pin, Policy, PurseChoice, Request};
    use crate::limits::ACCOUNT_FEN_MAX;
    use crate::session::KeySlot;

    /// A college of one, and what its one terminal does.
    fn records() -> Vec<Vec<u8>> {
        let card = CardNumber::from_digits(b"1001");
        let request = |mti, stan, amount| Request {
            identity: Identity::new(Family::of(mti), 0, Date(9_000), stan),
            content: Content::new(card, Some(0), Some(amount), true),
            echo: Echo::new(120_000, None, None, None, true),
            slot: KeySlot::Current,
            mti,
        };
        let original = Identity::new(Family::Financial, 0, Date(9_000), 1);
        let commands = [
            Command::Policy(Policy { amount_max: 10_000, identity_days: 3, ..Policy::default() }),
            Command::Cutover(Date(9_000)),
            Command::Merchant { id: MerchantId::new("M").unwrap(), name: "M", category: Category::Canteen, fee_bp: 0 },
            Command::Terminal {
                id: *b"POS00001",
                merchant: 0,
                kind: TerminalKind::Pos,
                zone: Zone::new("").unwrap(),
                wrapped_key: [0x5a; 24],
            },
            Command::Card {
                number: card.unwrap(),
                holder: HolderId::new("S1").unwrap(),
                class: CardClass::Student,
                status: CardStatus::Active,
                expires: Date(9_999),
                opening: [1_000, 500],
            },
            Command::Purchase { request: request(200, 1, 850), purse: PurseChoice::Policy, pin: Pin::Absent },
            Command::Purchase { request: request(200, 2, 10_000), purse: PurseChoice::Policy, pin: Pin::Absent },
            Command::Reversal { request: request(400, 3, 850), original },
        ];
        let mut ledger = Ledger::new();
        let record = |command: &Command<'_>| {
            let outcome = ledger.apply(7, command);
            let mut record = Vec::new();
            encode(&mut record, 7, command, &outcome);
            record
        };
        commands.iter().map(record).collect()
    }

    /// Takes all records, with `harm` done before the one at `position`; the fault that is found.
    fn fault_after(position: u64, harm: impl Fn(&mut Verifier)) -> Fault {
        let mut verifier = Verifier::new(Ledger::new());
        for (at, record) in (1..).zip(records()) {
            if at == position {
                harm(&mut verifier);
            }
            if let Err(fault) = verifier.take(at, &record) {
                return fault;
            }
        }
        verifier.sweep().expect_err("a fault is found")
    }

    const SUBSIDY: AccountId = 7;
    const MERCHANT: AccountId = 5;

    #[test]
    fn sound_records_pass() {
        let mut verifier = Verifier::new(Ledger::new());
        (1..).zip(records()).for_each(|(position, record)| verifier.take(position, &record).unwrap());
        verifier.sweep().unwrap();
        assert_eq!((verifier.ledger().position(), verifier.last_timestamp(), verifier.swept), (8, 7, 8));
    }

    #[test]
    fn money_that_came_from_nowhere_is_found_where_it_is_touched() {
        // The reversal, record 8, is the first to touch the merchant again.
        let fault = fault_after(7, |verifier| verifier.ledger.accounts_mut().tamper(MERCHANT, 1));
        assert_eq!(fault.record, 8);
        assert!(fault.problem.contains("(merchant M) holds 1 fen where the records make 0"), "{fault:?}");
    }

    #[test]
    fn money_that_came_from_nowhere_is_found_where_nothing_touches_it() {
        let fault = fault_after(7, |verifier| verifier.ledger.accounts_mut().tamper(1, 1));
        assert_eq!(fault.record, 1, "not before the last sweep");
        assert!(fault.problem.contains("the sum over all accounts is 1 fen"), "{fault:?}");
        // A theft from one account for another, which leaves the sum as it was.
        let fault = fault_after(7, |verifier| {
            verifier.ledger.accounts_mut().tamper(1, 1);
            verifier.ledger.accounts_mut().tamper(2, -1);
        });
        assert!(fault.problem.contains("(house bank_clearing) holds 1 fen where the records make 0"), "{fault:?}");
    }

    #[test]
    fn accounts_out_of_their_bounds_are_found() {
        // Ledger and books are wrong alike, so only the bounds tell.
        let both = |verifier: &mut Verifier, account: AccountId, against: AccountId, fen: i64| {
            for (account, fen) in [(account, fen), (against, -fen)] {
                verifier.ledger.accounts_mut().tamper(account, fen);
                verifier.books[account as usize] += fen;
            }
        };
        let mut verifier = Verifier::new(Ledger::new());
        (1..6).zip(records()).for_each(|(position, record)| verifier.take(position, &record).unwrap());
        // 500 came in.
        both(&mut verifier, SUBSIDY, 3, -501);
        let fault = verifier.sweep().expect_err("below the floor");
        assert!(fault.problem.contains("(subsidy S1) holds -1 fen, below its floor of 0"), "{fault:?}");
        both(&mut verifier, SUBSIDY, 3, 1);
        verifier.sweep().expect("at the floor");
        both(&mut verifier, MERCHANT, 4, -1);
        assert!(verifier.sweep().expect_err("below the floor").problem.contains("(merchant M) holds -1 fen"));
        both(&mut verifier, MERCHANT, 4, 2);
        both(&mut verifier, MERCHANT, 0, ACCOUNT_FEN_MAX - 1);
        verifier.sweep().expect("at the ceiling");
        both(&mut verifier, MERCHANT, 4, 1);
        assert!(verifier.sweep().expect_err("beyond the ceiling").problem.contains("beyond its ceiling"));
    }

    #[test]
    fn a_position_is_taken_once_and_in_order() {
        let records = records();
        let mut verifier = Verifier::new(Ledger::new());
        verifier.take(1, &records[0]).unwrap();
        for position in [0, 1, 3] {
            let fault = verifier.take(position, &records[1]).expect_err("a gap or a repetition");
            assert_eq!(fault.record, position);
        }
    }

    #[test]
    fn an_outcome_that_does_not_fit_its_record_is_found() {
        let records = records();
        let outcomes: Vec<Outcome> = {
            let mut ledger = Ledger::new();
            (1..).zip(&records).map(|(position, record)| ledger.replay(position, record).unwrap().1).collect()
        };
        // Record 6 is a purchase of 850 fen, 500 of them from the subsidy purse; record 8 gives it back.
        let [bought, undone] = [5, 7].map(|record: usize| outcomes[record].clone());
        let cases = [
            (
                6,
                Outcome { paid: [351, 500], ..bought.clone() },
                "it tells of [351, 500] fen in cash and subsidy purse, and [-350, -500] moved",
            ),
            (
                6,
                Outcome { movements: outcomes[4].movements, paid: [1_000, 500], ..bought.clone() },
                "it moves 1000 fen from the account 4 (house suspense)",
            ),
            (6, Outcome { movements: undone.movements, ..bought.clone() }, "it moves 350 fen from the account 5 (merchant M)"),
            (6, Outcome { paid: [500, 350], ..bought.clone() }, "it tells of [500, 350] fen"),
            (6, Outcome { after: Some([651, 0]), ..bought.clone() }, "it tells of purses"),
            (6, Outcome { response: Response::CardLost, ..bought.clone() }, "850 fen were paid with 41"),
            (8, Outcome { movements: bought.movements, ..undone.clone() }, "it tells of purses Some([1000, 500])"),
            (8, Outcome { original: Some(8), ..undone.clone() }, "it refers to record 8"),
            (8, Outcome { original: Some(0), ..undone.clone() }, "it refers to record 0"),
        ];
        for (position, outcome, words) in cases {
            let mut verifier = Verifier::new(Ledger::new());
            let [before, at] = [&records[..position - 1], &records[position - 1..position]];
            (1..).zip(before).for_each(|(position, record)| verifier.take(position, record).unwrap());
            let (decoded, right) = verifier.ledger.replay(position as u64, &at[0]).unwrap();
            assert_ne!(outcome, right);
            let problem = verifier.check(position as u64, &decoded, &outcome).expect_err(words);
            assert!(problem.contains(words), "{problem}");
        }
    }

    #[test]
    fn errors_of_the_journal_name_their_record() {
        let nowhere: Arc<dyn Storage> = Arc::new(FolderStorage::new(Path::new("/nowhere")));
        let first_bad_record = |error: &JournalError| first_bad_record(&nowhere, None, error);
        let damaged = |position| JournalError::Damaged { file: "durable".into(), offset: 0, position, cause: String::new() };
        assert_eq!(first_bad_record(&damaged(7)), Some(7));
        assert_eq!(first_bad_record(&damaged(0)), None);
        let lost = JournalError::Lost { file: String::new(), offset: 0, found: 8, durable: 10 };
        assert_eq!(first_bad_record(&lost), Some(9));
        assert_eq!(first_bad_record(&JournalError::Rejected { position: 5, cause: String::new() }), Some(5));
        assert_eq!(first_bad_record(&JournalError::Missing { folder: String::new() }), None);
    }
}
