//! Evidence: a part of the journal as a report that anybody can check without the switch, line by line.
//!
//! **For:** `switch audit`. The lines, their fields and what a checker makes of them stand in `docs/evidence.md`.
//!
//! **Always:** a report holds whole batches, every byte that their hashes cover but the constant padding, and beside each
//! record's bytes what they say in words. What comes from the ledger's books and not from the record itself stands apart,
//! under `ledger`. Nothing is changed, and only what the durable mark covers is read, so it may run beside the switch.
//!
//! **How:** a ledger is replayed from the journal's beginning, because a record names its terminal by number; where that was
//! moved to an archive, it is read there, and where it was removed, from the oldest snapshot on. Lines are made
//! one record at a time, so what is held is one batch, as the journal has it, and some lines. Keys are in alphabetical
//! order, so a line's text is given by what it says, and a checker can ask for exactly that.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::calendar::{CampusCalendar, Date, Timestamp};
use crate::journal::{DurableMark, FolderStorage, RECORD_OVERHEAD_BYTES, Reader, Records, Storage};
use crate::ledger::accounts::AccountId;
use crate::ledger::identities::Identity;
use crate::ledger::record::{Decoded, decode, kind_name};
use crate::ledger::registry::TerminalId;
use crate::ledger::{Command, Ledger, Outcome, Pin, PurseChoice, Request, Response, Told, batches};
use crate::rows::subject::Subject;
use crate::session::KeySlot;
use crate::snapshot;

/// The report's format; another number where a checker of this one would misread it.
pub const FORMAT: u32 = 2;

/// Bytes of lines that are given at a time, about.
const PIECE_BYTES: usize = 1 << 20;

/// Records replayed at a time on the way to the first one that was asked for.
const SKIP_RECORDS: u64 = 1 << 18;

/// Where the records that are asked for begin or end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bound {
    /// A record's position.
    Position(u64),
    /// A business date: all records of that day.
    Day(Date),
}

impl Bound {
    /// Reads a position or a business date.
    ///
    /// # Errors
    /// A sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let position = || text.parse().ok().filter(|position| *position > 0 && text.bytes().all(|byte| byte.is_ascii_digit()));
        Date::parse(text).map(Self::Day).or_else(|| position().map(Self::Position)).ok_or_else(|| {
            format!(
                "{text:?} is neither the number of a record, from 1 on, nor a business date; write one such as 1200 or 2026-11-22"
            )
        })
    }
}

/// What is asked for, both ends included.
#[derive(Clone, Copy, Debug)]
enum Asked {
    Positions(u64, u64),
    Days(Date, Date),
}

impl Asked {
    fn new(from: Bound, to: Bound) -> Result<Self, String> {
        match (from, to) {
            (Bound::Position(from), Bound::Position(to)) if from <= to => Ok(Self::Positions(from, to)),
            (Bound::Day(from), Bound::Day(to)) if from <= to => Ok(Self::Days(from, to)),
            (Bound::Position(_), Bound::Day(_)) | (Bound::Day(_), Bound::Position(_)) => {
                Err("both ends must be numbers of records, or both business dates".to_owned())
            }
            _ => Err("the first end lies behind the second; exchange them".to_owned()),
        }
    }

    fn covers(self, position: u64, day: Date) -> bool {
        match self {
            Self::Positions(from, to) => (from..=to).contains(&position),
            Self::Days(from, to) => (from..=to).contains(&day),
        }
    }

    /// Whether a batch from `first` to `last`, which begins and ends on these days, holds something of it, and whether it
    /// lies behind it.
    fn meets(self, (first, first_day): (u64, Date), (last, last_day): (u64, Date)) -> (bool, bool) {
        match self {
            Self::Positions(from, to) => (last >= from && first <= to, first > to),
            Self::Days(from, to) => (last_day >= from && first_day <= to, first_day > to),
        }
    }

    fn ends(self) -> (Value, Value) {
        match self {
            Self::Positions(from, to) => (from.into(), to.into()),
            Self::Days(from, to) => (from.to_string().into(), to.to_string().into()),
        }
    }
}

/// A report while it is being made.
pub struct Evidence {
    reader: Reader,
    ledger: Ledger,
    /// The record whose snapshot the ledger began with; 0: none.
    began_after: u64,
    calendar: CampusCalendar,
    asked: Asked,
    durable: u64,
    timezone: String,
    now: Timestamp,
    /// The payload of the batch that is being taken, and how much of it has been.
    batch: Vec<u8>,
    taken: usize,
    lines: Vec<u8>,
    stage: Stage,
    totals: Totals,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Skipping,
    Reporting,
    Done,
}

#[derive(Default)]
struct Totals {
    batches: u64,
    first: u64,
    asked: u64,
    fen: u64,
}

impl Evidence {
    /// A report on the journal in `folder` from `from` to `to`, moments in the time zone `timezone` (empty: the machine's).
    ///
    /// # Errors
    /// A sentence, where an end is none, the journal cannot be read, or it does not reach so far.
    pub fn open(
        folder: &Path,
        archive: Option<&Path>,
        [from, to]: [&str; 2],
        timezone: &str,
        now: Timestamp,
    ) -> Result<Self, String> {
        let asked = Asked::new(Bound::parse(from)?, Bound::parse(to)?)?;
        let calendar = CampusCalendar::new(timezone)?;
        let storage: Arc<dyn Storage> = Arc::new(FolderStorage::with_archive(folder, archive));
        let begun = snapshot::begin_whole(&*storage).map_err(|error| error.to_string())?;
        let bookmark = begun.snapshot.map(|snapshot| snapshot.bookmark);
        let reader = Reader::open_on(storage, bookmark.as_ref()).map_err(|error| error.to_string())?;
        let marked = DurableMark::open(folder).and_then(|mark| mark.load(reader.identity())).map_err(|error| error.to_string())?;
        // The mark may be old after a power cut; what a snapshot tells was durable.
        let durable = marked.max(begun.ledger.position());
        if let Asked::Positions(_, to) = asked
            && to > durable
        {
            return Err(format!("the journal reaches to record {durable}, so there is no record {to}"));
        }
        Ok(Self {
            reader,
            began_after: begun.ledger.position(),
            ledger: begun.ledger,
            calendar,
            asked,
            durable,
            timezone: timezone.to_owned(),
            now,
            batch: Vec::new(),
            taken: 0,
            lines: Vec::new(),
            stage: Stage::Skipping,
            totals: Totals::default(),
        })
    }

    /// The last record that was read.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.ledger.position()
    }

    /// The last record that can be.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// The next lines, each with its newline; empty where the first record is still far; `None` behind the last.
    ///
    /// # Errors
    /// A sentence, where the journal is damaged, a record gives another outcome than it holds, or nothing was found.
    pub fn read(&mut self) -> Result<Option<Vec<u8>>, String> {
        if self.stage == Stage::Done {
            return Ok(None);
        }
        let pause = self.ledger.position() + SKIP_RECORDS;
        while self.stage != Stage::Done && self.lines.len() < PIECE_BYTES && self.ledger.position() < pause {
            if self.taken == self.batch.len() {
                self.begin_batch()?;
            } else {
                self.take_records()?;
            }
        }
        Ok(Some(std::mem::take(&mut self.lines)))
    }

    fn begin_batch(&mut self) -> Result<(), String> {
        let previous = self.reader.hash();
        let today = self.ledger.business_date();
        let Some(batch) = self.reader.next_batch(self.durable).map_err(|error| error.to_string())? else {
            return self.end(previous);
        };
        let cutover = |record: &[u8]| match decode(record).map(|decoded| decoded.command) {
            Some(Command::Cutover(date)) => Some(date),
            _ => None,
        };
        let first_day = batch.records().next().and_then(|(_, record)| cutover(record)).unwrap_or(today);
        let last_day = batch.records().filter_map(|(_, record)| cutover(record)).last().unwrap_or(today);
        let (meets, behind) = self.asked.meets((batch.first_position, first_day), (batch.last_position, last_day));
        if behind {
            return self.end(previous);
        }
        let (_, rest) = batch.records().after(self.began_after).payload();
        self.batch.clear();
        self.batch.extend_from_slice(batch.payload());
        self.taken = self.batch.len() - rest.len();
        let is_before = match self.asked {
            // Positions begin at 1, so where the journal is whole none is before.
            Asked::Positions(from, _) => from <= self.began_after,
            Asked::Days(from, _) => self.began_after > 0 && self.stage == Stage::Skipping && from <= today,
        };
        if is_before {
            return Err(format!(
                "the journal was shortened, and what is left of it can be read from record {} on; name the archive with what was taken away",
                batch.last_position + 1
            ));
        }
        if !meets {
            return Ok(());
        }
        let (sequence, first, last, head) = (batch.sequence, batch.first_position, batch.last_position, hex(batch.head()));
        if self.stage == Stage::Skipping {
            self.stage = Stage::Reporting;
            self.totals.first = first;
            let (from, to) = self.asked.ends();
            let header = json!({
                "line": "evidence",
                "format": FORMAT,
                "journal": hex(&self.reader.identity()),
                "from": from,
                "to": to,
                "before": {
                    "position": first - 1,
                    "batch": sequence - 1,
                    "hash": hex(&previous),
                    "state_digest": hex(&self.ledger.digest()),
                },
                "timezone": self.timezone,
                "made_at": self.calendar.moment(self.now),
                "made_by": concat!("switch ", env!("CARGO_PKG_VERSION")),
            });
            put(&mut self.lines, &header);
        }
        self.totals.batches += 1;
        let line = json!({
            "line": "batch", "batch": sequence, "first": first, "last": last, "previous": hex(&previous), "hash": &head[..64], "head": head,
        });
        put(&mut self.lines, &line);
        Ok(())
    }

    /// Takes records of the batch until there are lines enough.
    fn take_records(&mut self) -> Result<(), String> {
        for (position, record) in Records::new(&self.batch[self.taken..], self.ledger.position() + 1) {
            self.taken += record.len() + RECORD_OVERHEAD_BYTES;
            let (decoded, outcome) =
                self.ledger.replay(position, record).map_err(|cause| format!("record {position} cannot be replayed: {cause}"))?;
            if self.stage == Stage::Skipping {
                continue;
            }
            let asked = self.asked.covers(position, self.ledger.business_date());
            self.totals.asked += u64::from(asked);
            self.totals.fen += outcome.movements.total();
            let line = json!({
                "line": "record",
                "position": position,
                "asked": asked,
                "record": said(record, &decoded, &self.calendar),
                "ledger": known(&self.ledger, &decoded, &outcome),
                "bytes": hex(record),
            });
            put(&mut self.lines, &line);
            if self.lines.len() >= PIECE_BYTES {
                break;
            }
        }
        Ok(())
    }

    /// Ends the report behind the batch with this hash.
    fn end(&mut self, hash: [u8; 32]) -> Result<(), String> {
        let (last, today) = (self.ledger.position(), self.ledger.business_date());
        if self.totals.asked == 0 {
            let (from, to) = self.asked.ends();
            return Err(format!("nothing was recorded from {from} to {to}; the journal reaches to record {last} of {today}"));
        }
        self.stage = Stage::Done;
        let Totals { batches, first, asked, fen } = self.totals;
        let line = json!({
            "line": "end",
            "first": first,
            "last": last,
            "records": last - first + 1,
            "asked": asked,
            "batches": batches,
            "hash": hex(&hash),
            "state_digest": hex(&self.ledger.digest()),
            "debits": fen,
            "credits": fen,
        });
        put(&mut self.lines, &line);
        Ok(())
    }
}

/// What the record's bytes say, in words.
fn said(record: &[u8], decoded: &Decoded<'_>, calendar: &CampusCalendar) -> Value {
    let (kind, outcome) = (kind_name(record).expect("it was decoded"), &decoded.outcome);
    let mut said = match &decoded.command {
        // Records of the kind before it say nothing of holds and PINs.
        Command::Policy(policy) if kind == "policy" => {
            json!({ "amount_max": policy.amount_max, "identity_days": policy.identity_days })
        }
        Command::Policy(policy) => json!({
            "amount_max": policy.amount_max,
            "identity_days": policy.identity_days,
            "hold_hours": policy.hold_hours,
            "pin_tries_max": policy.pin_tries_max,
        }),
        Command::Cutover(date) => json!({ "business_date": date.to_string() }),
        Command::Merchant { id, name, category, fee_bp } => {
            json!({ "merchant": id.as_str(), "name": name, "category": category.name(), "fee_bp": fee_bp })
        }
        // The wrapped key is among the bytes, and nothing that is to be read.
        Command::Terminal { id, merchant, kind, zone, wrapped_key: _ } => {
            json!({ "terminal": name(*id), "merchant_number": merchant, "terminal_kind": kind.name(), "zone": zone.as_str() })
        }
        Command::Card { number, holder, class, status, expires, opening } => json!({
            "card": number.digits().as_str(),
            "holder": holder.as_str(),
            "class": class.name(),
            "status": status.name(),
            "expires": expires.to_string(),
            "opening_cash": opening[0],
            "opening_subsidy": opening[1],
        }),
        Command::Imported { file, rows } => json!({ "file": file, "rows": rows }),
        Command::Standing { id, standing } => json!({ "terminal": name(*id), "standing": standing.name() }),
        Command::Rules(rules) => json!({ "rules": rules.list().iter().map(|rule| rule.fields().join(",")).collect::<Vec<_>>() }),
        // What tells whether a PIN is right is among the bytes, and nothing that is to be read.
        Command::Pin { number, verification: _ } => json!({ "card": number.digits().as_str() }),
        Command::Lapse { hold } => json!({ "hold": hold }),
        Command::Reversal { request, original } => {
            let mut said = said_request(request);
            said["undoes"] = said_identity(original);
            said
        }
        command => said_by_terminal(command),
    };
    said["kind"] = kind.into();
    said["at"] = calendar.moment(decoded.timestamp).into();
    said["response"] = outcome.response.code().into();
    said["paid_cash"] = outcome.paid[0].into();
    said["paid_subsidy"] = outcome.paid[1].into();
    said["cash_after"] = outcome.after.map(|after| after[0]).into();
    said["subsidy_after"] = outcome.after.map(|after| after[1]).into();
    said["original"] = outcome.original.into();
    said["flag"] = outcome.flag.map(Response::code).into();
    said["switch_totals"] = outcome.totals.as_deref().map(said_totals).into();
    said
}

/// What a terminal's message says beside what all of them say.
fn said_by_terminal(command: &Command<'_>) -> Value {
    let mut said = said_request(command.request().expect("the others were told of before"));
    let pin = |pin: &Pin| match pin {
        Pin::Absent => "absent",
        Pin::Right => "right",
        Pin::Wrong => "wrong",
    };
    match command {
        Command::Purchase { purse, pin: given, .. } => {
            said["purses"] = said_purses(*purse).into();
            said["pin"] = pin(given).into();
        }
        Command::OfflineSale { purse, .. } => said["purses"] = said_purses(*purse).into(),
        Command::Hold { pin: given, .. } => said["pin"] = pin(given).into(),
        Command::Completion { original, .. } | Command::Void { original, .. } | Command::Refund { original, .. } => {
            said["refers_to"] = (*original).into();
        }
        Command::BillPayment { payee, reference, pin: given, .. } => {
            said["payee"] = payee.name().into();
            said["reference"] = (*reference).into();
            said["pin"] = pin(given).into();
        }
        Command::Identity { act, item, is_advice, .. } => {
            said["act"] = act.name().into();
            said["item"] = text_or_none(item);
            said["is_advice"] = (*is_advice).into();
        }
        Command::CardReport { is_found, .. } => said["is_found"] = (*is_found).into(),
        Command::BatchClose { totals, .. } => said["totals"] = said_totals(totals),
        Command::Event { kind, place, value, .. } => {
            said["event"] = kind.name().into();
            said["place"] = text_or_none(place);
            said["value"] = text_or_none(value);
        }
        Command::Late { told, .. } => {
            said["told"] = told.name().into();
            match told {
                Told::Act(_, item) => said["item"] = text_or_none(item),
                Told::Completion(original) => said["refers_to"] = (*original).into(),
                Told::Reversal(original) => said["undoes"] = said_identity(original),
                Told::OfflineSale | Told::Unknown => {}
            }
        }
        _ => {}
    }
    said
}

fn said_identity(identity: &Identity) -> Value {
    json!({ "terminal_number": identity.terminal(), "date": identity.date.to_string(), "stan": identity.stan() })
}

/// A text; what is empty is not there.
fn text_or_none(text: &str) -> Value {
    Some(text).filter(|text| !text.is_empty()).into()
}

fn said_purses(purse: PurseChoice) -> &'static str {
    match purse {
        PurseChoice::Policy => "policy",
        PurseChoice::Cash => "cash",
        PurseChoice::Subsidy => "subsidy",
    }
}

fn said_totals(totals: &batches::Totals) -> Value {
    let named = [
        ("credits", totals.credits),
        ("credit_reversals", totals.credit_reversals),
        ("debits", totals.debits),
        ("debit_reversals", totals.debit_reversals),
    ];
    named.into_iter().map(|(name, total)| (name.to_owned(), json!({ "number": total.number, "fen": total.amount }))).collect()
}

fn said_request(request: &Request) -> Value {
    let Request { identity, content, echo, slot, mti } = request;
    let time = echo.time();
    json!({
        "mti": format!("{mti:04}"),
        "terminal_number": identity.terminal(),
        "stan": identity.stan(),
        "terminal_clock": format!("{}T{:02}:{:02}:{:02}", identity.date, time / 10_000, time / 100 % 100, time % 100),
        "card": content.card().map(|card| card.to_string()),
        "processing": content.processing().map(|code| format!("{code:06}")),
        "amount": content.amount(),
        "currency": content.has_currency().then_some("156"),
        "nii": echo.nii(),
        "batch_number": echo.batch(),
        "network": echo.network(),
        "names_merchant": echo.merchant(),
        "key": match slot {
            KeySlot::SignOn => "sign_on",
            KeySlot::Current => "current",
            KeySlot::Previous => "previous",
        },
    })
}

/// What the books say beside the record.
fn known(ledger: &Ledger, decoded: &Decoded<'_>, outcome: &Outcome) -> Value {
    let registry = ledger.registry();
    let account = |account: AccountId| {
        let (kind, owner) = ledger.owner_names(ledger.accounts().owner(account));
        format!("{kind}:{owner}")
    };
    let movement = |movement: &crate::ledger::accounts::Movement| json!({ "debit": account(movement.debit), "credit": account(movement.credit), "fen": movement.amount });
    let mut known = Map::new();
    known.insert("business_date".to_owned(), ledger.business_date().to_string().into());
    known.insert("movements".to_owned(), outcome.movements.as_slice().iter().map(movement).collect());
    // As in the rows for PostgreSQL: whose card it was, and in whose books it is, where the message itself does not say.
    let Some(subject) = Subject::of(ledger, &decoded.command, outcome) else { return known.into() };
    known.insert("terminal".to_owned(), name(subject.terminal(ledger).id).into());
    known.insert("merchant".to_owned(), registry.merchants[subject.merchant].id.as_str().into());
    known.insert("holder".to_owned(), subject.holder.map(|holder| registry.holders[holder].id.as_str()).into());
    known.into()
}

fn name(id: TerminalId) -> String {
    String::from_utf8_lossy(&id).trim_end().to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes what is written");
        text
    })
}

fn put(lines: &mut Vec<u8>, line: &Value) {
    serde_json::to_writer(&mut *lines, line).expect("a line is made of numbers and text");
    lines.push(b'\n');
}
