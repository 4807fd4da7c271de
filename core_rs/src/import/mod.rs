//! Files of merchants, terminals and cards, of terminals' standings, of the policy's rules, and of PINs.
//!
//! The header line says which of them a file is. A file is read and checked whole against the ledger and against
//! itself; the first wrong line refuses it with its number, its field and the reason, and nothing of it is applied. Then
//! its rows become commands in one batch of the journal: after a crash all of them are there, or none.
//!
//! A row that says what the ledger already knows makes no command, so the same file may be imported again.
//!
//! | room | what it holds |
//! |---|---|
//! | `parties` | rows of merchants, terminals and cards |
//! | `standings` | rows of terminals that are suspended or work again |
//! | `policy` | rows of rules, which stand for all rules there are |
//! | `pins` | rows of PINs |

mod parties;
mod pins;
mod policy;
mod standings;

use std::collections::HashMap;
use std::ops::RangeInclusive;

use csv::StringRecord;
use serde::Serialize;

use crate::authorizer::{Authorizer, Log};
use crate::calendar::{Date, Timestamp};
use crate::card_number::CardNumber;
use crate::ledger::registry::{
    CardClass, CardStatus, Category, HolderId, MerchantId, TerminalId, TerminalKind, TerminalStanding, Zone,
};
use crate::ledger::rules::Rules;
use crate::ledger::{Command, Label};
use crate::limits::{IMPORT_BYTES_MAX, POSITION_MAX};
use crate::pin::PinVerification;

/// Bytes by which a row's record may be longer than the row.
const RECORD_BEYOND_ROW_BYTES: usize = 128;

/// Bytes of a file's name that its record keeps: the record fits the room of four rows.
const NAME_BYTES_MAX: usize = 200;

/// What a file is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Merchants,
    Terminals,
    Cards,
    Standings,
    Policy,
    Pins,
}

impl Kind {
    const ALL: [Self; 6] = [Self::Merchants, Self::Terminals, Self::Cards, Self::Standings, Self::Policy, Self::Pins];

    fn name(self) -> &'static str {
        match self {
            Self::Merchants => "merchants",
            Self::Terminals => "terminals",
            Self::Cards => "cards",
            Self::Standings => "standings",
            Self::Policy => "policy",
            Self::Pins => "pins",
        }
    }

    fn header(self) -> &'static [&'static str] {
        match self {
            Self::Merchants => &["merchant_id", "name", "category", "fee_bp"],
            Self::Terminals => &["terminal_id", "merchant_id", "kind", "zone", "key"],
            Self::Cards => &["card_number", "holder_id", "class", "status", "expires", "cash", "subsidy"],
            Self::Standings => &["terminal_id", "standing"],
            Self::Policy => &["rule", "class", "category", "zone", "days", "from", "to", "value"],
            Self::Pins => &["card_number", "pin"],
        }
    }
}

/// What an import did.
#[derive(Serialize, Debug, PartialEq, Eq)]
pub struct Report {
    /// The file's name.
    pub file: String,
    /// merchants, terminals, cards, standings, policy or pins.
    pub kind: &'static str,
    /// Rows in it.
    pub rows: u32,
    /// Rows that entered somebody or something new.
    pub added: u32,
    /// Rows that changed somebody or something known.
    pub changed: u32,
    /// Rows that said what was known.
    pub unchanged: u32,
    /// Rules that were in force and are not in the file; of other files always 0.
    pub removed: u32,
    /// The position after it.
    pub position: u64,
}

/// One row, checked.
enum Row {
    Merchant { id: MerchantId, name: String, category: Category, fee_bp: u16 },
    Terminal { id: TerminalId, merchant: u32, kind: TerminalKind, zone: Zone, wrapped_key: [u8; 24] },
    Card { number: CardNumber, holder: HolderId, class: CardClass, status: CardStatus, expires: Date, opening: [i64; 2] },
    Standing { id: TerminalId, standing: TerminalStanding },
    Rules(Box<Rules>),
    Pin { number: CardNumber, verification: PinVerification },
}

impl Row {
    fn command(&self) -> Command<'_> {
        match *self {
            Self::Merchant { id, ref name, category, fee_bp } => Command::Merchant { id, name, category, fee_bp },
            Self::Terminal { id, merchant, kind, zone, wrapped_key } => Command::Terminal { id, merchant, kind, zone, wrapped_key },
            Self::Card { number, holder, class, status, expires, opening } => {
                Command::Card { number, holder, class, status, expires, opening }
            }
            Self::Standing { id, standing } => Command::Standing { id, standing },
            Self::Rules(ref rules) => Command::Rules(rules.clone()),
            Self::Pin { number, verification } => Command::Pin { number, verification },
        }
    }
}

/// What a row means for the ledger.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Added,
    Changed,
    None,
}

/// What a file is to do.
#[derive(Default)]
struct Plan {
    rows: Vec<Row>,
    added: u32,
    changed: u32,
    unchanged: u32,
    removed: u32,
}

impl Plan {
    fn count(&mut self, change: Change) {
        match change {
            Change::Added => self.added += 1,
            Change::Changed => self.changed += 1,
            Change::None => self.unchanged += 1,
        }
    }

    fn take(&mut self, row: Row, change: Change) {
        self.count(change);
        if change != Change::None {
            self.rows.push(row);
        }
    }
}

/// Imports one file.
///
/// # Errors
/// A sentence that names file, line and field. Nothing is applied then.
pub fn import<L: Log>(authorizer: &mut Authorizer<L>, now: Timestamp, file: &str, content: &[u8]) -> Result<Report, String> {
    let mut table = File::open(file, content)?;
    let plan = match table.kind {
        Kind::Merchants | Kind::Terminals | Kind::Cards => parties::plan(&mut table, authorizer),
        Kind::Standings => standings::plan(&mut table, authorizer.ledger()),
        Kind::Policy => policy::plan(&mut table, authorizer.ledger().rules()),
        Kind::Pins => pins::plan(&mut table, authorizer),
    }?;
    if authorizer.ledger().position() + plan.rows.len() as u64 + 1 > POSITION_MAX {
        return Err(format!("{file}: there are no transaction numbers left for it"));
    }
    let reserved = authorizer.log_mut().reserve(content.len() + (table.rows as usize + 4) * RECORD_BEYOND_ROW_BYTES);
    reserved.map_err(|reason| format!("{file}: nothing was applied: {reason}"))?;

    for row in &plan.rows {
        authorizer.decide(now, &row.command());
    }
    if !plan.rows.is_empty() {
        authorizer.decide(now, &Command::Imported { file: end_of(file), rows: table.rows });
    }
    Ok(Report {
        file: file.to_owned(),
        kind: table.kind.name(),
        rows: table.rows,
        added: plan.added,
        changed: plan.changed,
        unchanged: plan.unchanged,
        removed: plan.removed,
        position: authorizer.ledger().position(),
    })
}

/// The end of a file's name, as much as its record takes.
fn end_of(name: &str) -> &str {
    let start = name.len().saturating_sub(NAME_BYTES_MAX);
    (start..name.len()).find_map(|start| name.get(start..)).unwrap_or_default()
}

/// A file, read row by row.
struct File<'a> {
    name: &'a str,
    content: &'a [u8],
    kind: Kind,
    /// Rows read so far.
    rows: u32,
    reader: csv::Reader<&'a [u8]>,
    record: StringRecord,
}

impl<'a> File<'a> {
    /// Reads the header.
    fn open(name: &'a str, content: &'a [u8]) -> Result<Self, String> {
        if content.len() > IMPORT_BYTES_MAX {
            return Err(format!("{name}: {} bytes are more than a file may have ({IMPORT_BYTES_MAX}); split it", content.len()));
        }
        let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(content);
        let mut record = StringRecord::new();
        let headers = || Kind::ALL.map(|kind| format!("\"{}\"", kind.header().join(","))).join(", ");
        if !reader.read_record(&mut record).map_err(|error| unreadable(name, content, &error))? {
            return Err(format!("{name}: the file is empty; its first line must be one of the headers {}", headers()));
        }
        let header: Vec<&str> = record.iter().map(str::trim).collect();
        let kind = Kind::ALL.into_iter().find(|kind| kind.header() == header).ok_or_else(|| {
            // Where the header was left out, the first line is a row, perhaps with a PIN or a key, and errors end in logs. No header has digits.
            let line = header.join(",");
            let what = if line.bytes().any(|byte| byte.is_ascii_digit()) { String::new() } else { format!(" {line:?}") };
            format!("{name} line 1: the header{what} is not known; it must be one of {}", headers())
        })?;
        Ok(Self { name, content, kind, rows: 0, reader, record })
    }

    /// The next row with its line.
    fn next(&mut self) -> Result<Option<(u64, Fields<'_>)>, String> {
        let Self { name, content, .. } = *self;
        if !self.reader.read_record(&mut self.record).map_err(|error| unreadable(name, content, &error))? {
            return Ok(None);
        }
        self.rows += 1;
        let line = self.record.position().map_or(0, |position| line_of(content, position));
        let (fields, columns) = (self.record.len(), self.kind.header().len());
        if fields != columns {
            return Err(format!("{name} line {line}: {fields} fields where the header has {columns}"));
        }
        Ok(Some((line, Fields { record: &self.record })))
    }

    /// The sentence for a wrong field.
    fn wrong(&self, line: u64, (field, reason): Wrong) -> String {
        format!("{} line {line}, field {}: {reason}", self.name, self.kind.header()[field])
    }
}

/// The line on which a row stands. The reader notes where the row before ended, and blank lines may lie between.
fn line_of(content: &[u8], position: &csv::Position) -> u64 {
    let before = content[position.byte() as usize..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
    position.line() + before.filter(|&&byte| byte == b'\n').count() as u64
}

fn unreadable(file: &str, content: &[u8], error: &csv::Error) -> String {
    let line = error.position().map_or(String::new(), |position| format!(" line {}", line_of(content, position)));
    match error.kind() {
        csv::ErrorKind::Utf8 { err, .. } => {
            format!("{file}{line}, field {}: the text is not UTF-8; save the file as UTF-8", err.field() + 1)
        }
        _ => format!("{file}{line}: {error}"),
    }
}

/// A reason, with the index of the field that it is about.
type Wrong = (usize, String);

#[derive(Clone, Copy)]
struct Fields<'a> {
    record: &'a StringRecord,
}

impl<'a> Fields<'a> {
    fn text(self, field: usize) -> &'a str {
        self.record[field].trim()
    }

    fn label<const N: usize>(self, field: usize) -> Result<Label<N>, Wrong> {
        let text = self.text(field);
        let label = Label::new(text).filter(|_| !text.is_empty());
        label.ok_or_else(|| (field, format!("{text:?} is not 1 to {N} printable ASCII characters")))
    }

    fn terminal_id(self, field: usize) -> Result<TerminalId, Wrong> {
        let label: Label<8> = self.label(field)?;
        let mut id = *b"        ";
        id[..label.as_bytes().len()].copy_from_slice(label.as_bytes());
        Ok(id)
    }

    fn one_of<T: Copy>(self, field: usize, all: &[T], name: fn(T) -> &'static str) -> Result<T, Wrong> {
        let text = self.text(field);
        all.iter().copied().find(|&candidate| name(candidate) == text).ok_or_else(|| {
            (
                field,
                format!("{text:?} is not one of {}", all.iter().map(|&candidate| name(candidate)).collect::<Vec<_>>().join(", ")),
            )
        })
    }

    /// A whole number; a sign is taken only where it may be negative.
    fn number(self, field: usize, range: RangeInclusive<i64>, unit: &str) -> Result<i64, Wrong> {
        let text = self.text(field);
        let digits = text.strip_prefix('-').filter(|_| *range.start() < 0).unwrap_or(text);
        let is_plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        text.parse()
            .ok()
            .filter(|number| is_plain && range.contains(number))
            .ok_or_else(|| (field, format!("{text:?} is not a whole number of {unit} from {} to {}", range.start(), range.end())))
    }

    fn card_number(self, field: usize) -> Result<CardNumber, Wrong> {
        let text = self.text(field);
        CardNumber::from_digits(text.as_bytes()).ok_or_else(|| (field, format!("{text:?} is not 1 to 19 digits")))
    }
}

/// Sees that a key stands in a file once, in the first field.
#[derive(Default)]
struct Once {
    lines: HashMap<String, u64>,
}

impl Once {
    fn see(&mut self, line: u64, key: &str) -> Result<(), Wrong> {
        match self.lines.insert(key.to_owned(), line) {
            None => Ok(()),
            Some(before) => Err((0, format!("{key} stands on line {before} already"))),
        }
    }
}
