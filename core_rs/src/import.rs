//! Files of merchants, terminals and cards.
//!
//! The header line says which of the three a file is. A file is read and checked whole against the ledger and against
//! itself; the first wrong line refuses it with its number, its field and the reason, and nothing of it is applied. Then
//! its rows become commands in one batch of the journal: after a crash all of them are there, or none.
//!
//! A row that says what the ledger already knows makes no command, so the same file may be imported again. Opening
//! balances are posted once, when a holder is new.

use std::collections::HashMap;

use csv::StringRecord;
use serde::Serialize;

use crate::authorizer::{Authorizer, Log};
use crate::calendar::{Date, Timestamp};
use crate::card_number::CardNumber;
use crate::ledger::accounts::House;
use crate::ledger::registry::{CardClass, CardStatus, Category, HolderId, MerchantId, NONE, TerminalId, TerminalKind, Zone};
use crate::ledger::{Command, Ledger};
use crate::limits::{HOUSE_FEN_MAX, IMPORT_BYTES_MAX, MERCHANT_NAME_BYTES_MAX, POSITION_MAX, PURSE_FEN_MAX};
use crate::mac::MasterKey;

/// Bytes by which a row's record may be longer than the row.
const RECORD_BEYOND_ROW_BYTES: usize = 128;

/// Bytes of a file's name that its record keeps: the record fits the room of four rows.
const NAME_BYTES_MAX: usize = 200;

const MERCHANTS: [&str; 4] = ["merchant_id", "name", "category", "fee_bp"];
const TERMINALS: [&str; 5] = ["terminal_id", "merchant_id", "kind", "zone", "key"];
const CARDS: [&str; 7] = ["card_number", "holder_id", "class", "status", "expires", "cash", "subsidy"];

/// What an import did.
#[derive(Serialize, Debug, PartialEq, Eq)]
pub struct Report {
    /// The file's name.
    pub file: String,
    /// merchants, terminals or cards.
    pub kind: &'static str,
    /// Rows in it.
    pub rows: u32,
    /// Rows that entered somebody new.
    pub added: u32,
    /// Rows that changed somebody known.
    pub changed: u32,
    /// Rows that said what was known.
    pub unchanged: u32,
    /// The position after it.
    pub position: u64,
}

/// One row, checked.
enum Row {
    Merchant { id: MerchantId, name: String, category: Category, fee_bp: u16 },
    Terminal { id: TerminalId, merchant: u32, kind: TerminalKind, zone: Zone, wrapped_key: [u8; 24] },
    Card { number: CardNumber, holder: HolderId, class: CardClass, status: CardStatus, expires: Date, opening: [i64; 2] },
}

/// What a row means for the ledger.
enum Change {
    Added,
    Changed,
    None,
}

/// Imports one file.
///
/// # Errors
/// A sentence that names file, line and field. Nothing is applied then.
pub fn import<L: Log>(authorizer: &mut Authorizer<L>, now: Timestamp, file: &str, content: &[u8]) -> Result<Report, String> {
    if content.len() > IMPORT_BYTES_MAX {
        return Err(format!("{file}: {} bytes are more than a file may have ({IMPORT_BYTES_MAX}); split it", content.len()));
    }
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(content);
    let mut record = StringRecord::new();
    let mut next = |record: &mut StringRecord| reader.read_record(record).map_err(|error| unreadable(file, content, &error));
    if !next(&mut record)? {
        return Err(format!("{file}: the file is empty; its first line must be one of the headers {}", headers()));
    }
    let header: Vec<String> = record.iter().map(|name| name.trim().to_owned()).collect();
    let kind = match header.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        names if *names == MERCHANTS => "merchants",
        names if *names == TERMINALS => "terminals",
        names if *names == CARDS => "cards",
        _ => return Err(format!("{file} line 1: the header {:?} is not known; it must be one of {}", header.join(","), headers())),
    };

    let mut checker = Checker { ledger: authorizer.ledger(), lines: HashMap::new(), holders: HashMap::new(), opened: [0; 2] };
    let mut rows = Vec::new();
    while next(&mut record)? {
        let line = record.position().map_or(0, |position| line_of(content, position));
        if record.len() != header.len() {
            return Err(format!("{file} line {line}: {} fields where the header has {}", record.len(), header.len()));
        }
        let fields = Fields { record: &record };
        let row = match kind {
            "merchants" => checker.merchant(line, fields),
            "terminals" => checker.terminal(line, fields, |key| authorizer.keys().wrap(key)),
            _ => checker.card(line, fields),
        };
        rows.push(row.map_err(|(field, reason)| format!("{file} line {line}, field {}: {reason}", header[field]))?);
    }
    if authorizer.ledger().position() + rows.len() as u64 + 1 > POSITION_MAX {
        return Err(format!("{file}: there are no transaction numbers left for it"));
    }
    let reserved = authorizer.log_mut().reserve(content.len() + (rows.len() + 4) * RECORD_BEYOND_ROW_BYTES);
    reserved.map_err(|reason| format!("{file}: nothing was applied: {reason}"))?;

    let mut report =
        Report { file: file.to_owned(), kind, rows: rows.len() as u32, added: 0, changed: 0, unchanged: 0, position: 0 };
    for (row, change) in &rows {
        match change {
            Change::Added => report.added += 1,
            Change::Changed => report.changed += 1,
            Change::None => {
                report.unchanged += 1;
                continue;
            }
        }
        authorizer.decide(now, &row.command());
    }
    if report.added + report.changed > 0 {
        authorizer.decide(now, &Command::Imported { file: end_of(file), rows: report.rows });
    }
    report.position = authorizer.ledger().position();
    Ok(report)
}

/// The end of a file's name, as much as its record takes.
fn end_of(name: &str) -> &str {
    let start = name.len().saturating_sub(NAME_BYTES_MAX);
    (start..name.len()).find_map(|start| name.get(start..)).unwrap_or_default()
}

fn headers() -> String {
    [&MERCHANTS[..], &TERMINALS, &CARDS].map(|header| format!("\"{}\"", header.join(","))).join(", ")
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

impl Row {
    fn command(&self) -> Command<'_> {
        match *self {
            Self::Merchant { id, ref name, category, fee_bp } => Command::Merchant { id, name, category, fee_bp },
            Self::Terminal { id, merchant, kind, zone, wrapped_key } => Command::Terminal { id, merchant, kind, zone, wrapped_key },
            Self::Card { number, holder, class, status, expires, opening } => {
                Command::Card { number, holder, class, status, expires, opening }
            }
        }
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

    fn label<const N: usize>(self, field: usize) -> Result<crate::ledger::Label<N>, Wrong> {
        let text = self.text(field);
        let label = crate::ledger::Label::new(text).filter(|_| !text.is_empty());
        label.ok_or_else(|| (field, format!("{text:?} is not 1 to {N} printable ASCII characters")))
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

    fn number(self, field: usize, max: i64, unit: &str) -> Result<i64, Wrong> {
        let text = self.text(field);
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse()
            .ok()
            .filter(|number| digits && (0..=max).contains(number))
            .ok_or_else(|| (field, format!("{text:?} is not a whole number of {unit} from 0 to {max}")))
    }
}

fn key_from_hex(text: &str) -> Option<MasterKey> {
    if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(text, 16).ok().map(|key| MasterKey::new(key.to_be_bytes()))
}

/// A holder as the file, as far as it was read, leaves it.
#[derive(Clone, Copy)]
struct HolderSoFar {
    opening: [i64; 2],
    live_card: Option<CardNumber>,
}

/// Checks rows against the ledger and against the rows before them.
struct Checker<'a> {
    ledger: &'a Ledger,
    /// The line on which a key stands already.
    lines: HashMap<String, u64>,
    holders: HashMap<HolderId, HolderSoFar>,
    /// What the holders that are new in the file are opened with, cash and subsidy, in fen.
    opened: [i64; 2],
}

impl Checker<'_> {
    fn once(&mut self, line: u64, key: &str) -> Result<(), Wrong> {
        match self.lines.insert(key.to_owned(), line) {
            None => Ok(()),
            Some(before) => Err((0, format!("{key} stands on line {before} already"))),
        }
    }

    fn merchant(&mut self, line: u64, fields: Fields<'_>) -> Result<(Row, Change), Wrong> {
        let id: MerchantId = fields.label(0)?;
        self.once(line, id.as_str())?;
        let name = fields.text(1).to_owned();
        if name.is_empty() || name.len() > MERCHANT_NAME_BYTES_MAX {
            return Err((1, format!("the name has {} bytes; it needs 1 to {MERCHANT_NAME_BYTES_MAX}", name.len())));
        }
        let category = fields.one_of(2, Category::ALL, Category::name)?;
        let fee_bp = u16::try_from(fields.number(3, 10_000, "basis points")?).expect("the bound is checked");
        let registry = self.ledger.registry();
        let change = match registry.merchants.find(&id).map(|index| &registry.merchants[index]) {
            None => Change::Added,
            Some(known) if (&*known.name, known.category, known.fee_bp) == (&name, category, fee_bp) => Change::None,
            Some(_) => Change::Changed,
        };
        Ok((Row::Merchant { id, name, category, fee_bp }, change))
    }

    fn terminal(&mut self, line: u64, fields: Fields<'_>, wrap: impl Fn(&MasterKey) -> [u8; 24]) -> Result<(Row, Change), Wrong> {
        let label: crate::ledger::Label<8> = fields.label(0)?;
        self.once(line, label.as_str())?;
        let mut id = *b"        ";
        id[..label.as_str().len()].copy_from_slice(label.as_str().as_bytes());
        let registry = self.ledger.registry();
        let merchant_id: MerchantId = fields.label(1)?;
        let merchant = registry
            .merchants
            .find(&merchant_id)
            .ok_or_else(|| (1, format!("merchant {merchant_id} is not known; import the merchants first")))?;
        let kind = fields.one_of(2, TerminalKind::ALL, TerminalKind::name)?;
        let zone = Zone::new(fields.text(3))
            .ok_or_else(|| (3, format!("{:?} is not 0 to 16 printable ASCII characters", fields.text(3))))?;
        // The reason never repeats the key: errors end in logs.
        let key = key_from_hex(fields.text(4)).ok_or_else(|| (4, "the key is not 32 hex digits".to_owned()))?;
        let wrapped_key = wrap(&key);
        let change = match registry.terminals.find(&id).map(|index| &registry.terminals[index]) {
            None => Change::Added,
            Some(known) if (known.merchant, known.kind, known.zone, known.wrapped_key) == (merchant, kind, zone, wrapped_key) => {
                Change::None
            }
            Some(_) => Change::Changed,
        };
        Ok((Row::Terminal { id, merchant, kind, zone, wrapped_key }, change))
    }

    fn holder_so_far(&self, id: &HolderId) -> Option<HolderSoFar> {
        self.holders.get(id).copied().or_else(|| {
            let registry = self.ledger.registry();
            let holder = &registry.holders[registry.holders.find(id)?];
            let live_card = (holder.live_card != NONE).then(|| registry.cards[holder.live_card].number);
            Some(HolderSoFar { opening: holder.opening, live_card })
        })
    }

    /// Sees that the accounts from which opening balances come stay within their bound.
    fn open(&mut self, opening: [i64; 2]) -> Result<(), Wrong> {
        for (purse, house) in [House::Suspense, House::Grants].into_iter().enumerate() {
            self.opened[purse] += opening[purse];
            let left = self.ledger.accounts().balance(house.account()) + HOUSE_FEN_MAX;
            if self.opened[purse] > left {
                return Err((
                    5 + purse,
                    format!(
                        "with this one the file opens purses with {} fen, but the account {} can give {left} and no more",
                        self.opened[purse],
                        house.name()
                    ),
                ));
            }
        }
        Ok(())
    }

    fn card(&mut self, line: u64, fields: Fields<'_>) -> Result<(Row, Change), Wrong> {
        let text = fields.text(0);
        let number = CardNumber::from_digits(text.as_bytes()).ok_or_else(|| (0, format!("{text:?} is not 1 to 19 digits")))?;
        self.once(line, text)?;
        let id: HolderId = fields.label(1)?;
        let class = fields.one_of(2, CardClass::ALL, CardClass::name)?;
        let status = fields.one_of(3, CardStatus::ALL, CardStatus::name)?;
        let expires = Date::parse(fields.text(4))
            .ok_or_else(|| (4, format!("{:?} is not a date; write YYYY-MM-DD, from 2000 on", fields.text(4))))?;
        let opening = [fields.number(5, PURSE_FEN_MAX, "fen")?, fields.number(6, PURSE_FEN_MAX, "fen")?];

        let registry = self.ledger.registry();
        let known = registry.cards.find(&number).map(|index| &registry.cards[index]);
        if let Some(card) = known
            && registry.holder_of(card).id != id
        {
            return Err((1, format!("card {text} belongs to holder {}; a card stays its holder's", registry.holder_of(card).id)));
        }
        let mut holder = HolderSoFar { opening, live_card: None };
        if let Some(before) = self.holder_so_far(&id) {
            if let Some(purse) = (0..2).find(|&purse| opening != [0, 0] && opening[purse] != before.opening[purse]) {
                return Err((
                    5 + purse,
                    format!(
                        "holder {id} was opened with {} fen; an opening balance is posted once and a load changes it later, so repeat it or write 0 in both purses",
                        before.opening[purse]
                    ),
                ));
            }
            holder = before;
        } else {
            self.open(opening)?;
        }
        if status.is_live() {
            if let Some(other) = holder.live_card.filter(|&other| other != number) {
                return Err((
                    0,
                    format!("holder {id} has the live card {} already; one person has one live card", other.digits().as_str()),
                ));
            }
            holder.live_card = Some(number);
        } else if holder.live_card == Some(number) {
            holder.live_card = None;
        }
        self.holders.insert(id, holder);
        let change = match known {
            None => Change::Added,
            Some(card) if (card.class, card.status, card.expires) == (class, status, expires) => Change::None,
            Some(_) => Change::Changed,
        };
        Ok((Row::Card { number, holder: id, class, status, expires, opening: holder.opening }, change))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorizer::Settings;
    use crate::ledger::Policy;
    use crate::mac::KeyEncryptionKey;

    /// How many records were written.
    struct Count(u64);

    impl Log for Count {
        fn has_room(&self, _: usize) -> bool {
            true
        }
        fn reserve(&mut self, _: usize) -> Result<(), String> {
            Ok(())
        }
        fn append(&mut self, _: &[u8]) -> u64 {
            self.0 += 1;
            self.0
        }
    }

    #[test]
    fn a_file_does_not_take_more_than_the_campus_can_give() {
        for (purse, house, purses) in [("cash", House::Suspense, "40,0"), ("subsidy", House::Grants, "0,40")] {
            let mut ledger = Ledger::new();
            ledger.accounts_mut().tamper(house.account(), 100 - HOUSE_FEN_MAX);
            let key = KeyEncryptionKey::new(&[7; KeyEncryptionKey::BYTES]);
            let settings = Settings {
                policy: Policy { amount_max: 1, identity_days: 1, ..Policy::default() },
                timezone: "UTC".to_owned(),
                key,
                accept_date: None,
            };
            let mut authorizer = Authorizer::new(ledger, Count(0), settings, || [0; 8], 0).unwrap();
            let mut take = |cards: std::ops::Range<u32>| {
                let row = |card| format!("{card},H{card},student,active,2027-01-01,{purses}\n");
                let rows = format!("{}\n{}", CARDS.join(","), cards.map(row).collect::<String>());
                import(&mut authorizer, 0, "file.csv", rows.as_bytes())
            };
            let error = take(1..4).unwrap_err();
            assert!(error.starts_with(&format!("file.csv line 4, field {purse}: ")) && error.contains(house.name()), "{error}");
            take(1..3).unwrap();
            assert!(take(3..4).unwrap_err().starts_with(&format!("file.csv line 2, field {purse}: ")));
            assert_eq!(take(1..3).unwrap().unchanged, 2);
        }
    }
}
