//! The operators: the campus's first files, and those that come later, right and wrong.

use std::collections::BTreeMap;

use switch_core::import::import;

use crate::disk::Fault;
use crate::model::calendar::{campus_day, civil};
use crate::model::cards::{File, Row};
use crate::model::policy::Rule;
use crate::terminals::{CARDS, Terminal};
use crate::world::{World, note};
use crate::{Failure, ensure};

/// The merchants.
const MERCHANTS: [&str; 4] = ["M-CANTEEN", "M-SHOP", "M-LIBRARY", "M-BATH"];
const CATEGORIES: [&str; 4] = ["canteen", "shop", "library", "bath"];
const CLASSES: [&str; 5] = ["student", "teacher", "family", "temporary", "merchant"];
const ZONES: [&str; 2] = ["NORTH", "DORM"];

/// The terminals: DE41, the merchant at first, what it is, where it stands, its connection.
const TERMINALS: [([u8; 8], &str, &str, &str, usize); 10] = [
    (*b"POS00001", MERCHANTS[0], "pos", "", 0),
    (*b"POS2    ", MERCHANTS[1], "pos", "", 0),
    (*b"COUNT003", MERCHANTS[0], "counter", "", 1),
    (*b"KIOSK004", MERCHANTS[1], "kiosk", "", 2),
    (*b"LIB00005", MERCHANTS[2], "library", "", 3),
    (*b"GATE0006", MERCHANTS[1], "gate", ZONES[0], 4),
    (*b"WATER007", MERCHANTS[3], "water", "", 5),
    (*b"METER008", MERCHANTS[3], "meter", ZONES[1], 6),
    (*b"GATE0009", MERCHANTS[1], "gate", ZONES[1], 4),
    (*b"POS00010", MERCHANTS[0], "pos", "", 1),
];

/// The place in [`CARDS`] of the card whose purse is full, and what is in it.
const RICH: usize = CARDS.len() - 1;
const RICH_FEN: i64 = 99_999_999_999 - 2_000;
/// The place of the second card of the first one's holder.
const SECOND: usize = CARDS.len() - 2;
/// The place of the card that no file names.
const UNKNOWN: usize = 11;

fn holder_of(card: usize) -> String {
    format!("H{}", if card == SECOND { 0 } else { card })
}

impl World {
    /// The first files.
    pub(crate) fn import_campus(&mut self) -> Result<(), Failure> {
        let merchant = |place: usize| Row::Merchant(MERCHANTS[place], CATEGORIES[place], if place == 0 { 100 } else { 0 });
        let merchants = (0..MERCHANTS.len()).map(merchant).collect();
        let mut terminals = Vec::new();
        for (index, (id, merchant, kind, zone, connection)) in TERMINALS.into_iter().enumerate() {
            let key = self.rng.u128(..).to_be_bytes();
            terminals.push(Row::Terminal { id, merchant, kind, zone, key });
            let mut terminal = Terminal::new(index, id, kind, key, merchant, connection);
            if self.rng.u8(..12) == 0 {
                terminal.set_skew([-1, 1, -2, 2, 40, -400][self.rng.usize(..6)]);
            }
            self.terminals.push(terminal);
        }
        let today = campus_day(self.now);
        let statuses =
            ["active", "active", "active", "active", "active", "active", "lost", "frozen", "inactive", "cancelled", "active"];
        let mut cards = Vec::new();
        for (index, status) in statuses.into_iter().enumerate() {
            let expires = if index == 10 { today - 1 } else { today + [0, 1, 400, 400, 400][self.rng.usize(..5)] };
            let cash = [0, 0, 300, 4_000, 4_000][self.rng.usize(..5)];
            let opening = [self.rng.i64(0..=cash), [0, self.rng.i64(0..600), self.rng.i64(0..3_000)][self.rng.usize(..3)]];
            cards.push(self.card_row(index, status, expires, opening));
        }
        cards.push(self.card_row(RICH, "active", today + 400, [RICH_FEN, 0]));
        for rows in [merchants, terminals, cards] {
            self.take_file(&File::Rows(rows), None)?;
        }
        if self.rng.bool() {
            let mut rules = self.draw_rules();
            if self.rng.bool() {
                rules.retain(|rule| rule.kind != "pin_above");
                rules.push(Rule::new("pin_above", "*", "*", [0, 300][self.rng.usize(..2)]));
            }
            self.take_file(&File::Rules(rules), None)?;
            let pins = self.draw_pins();
            if pins != File::Rows(Vec::new()) {
                self.take_file(&pins, None)?;
            }
        }
        for _ in 0..10 {
            self.drive()?;
        }
        Ok(())
    }

    fn card_row(&mut self, card: usize, status: &'static str, expires: i64, opening: [i64; 2]) -> Row {
        let class = if self.rng.u8(..4) == 0 { CLASSES[self.rng.usize(..CLASSES.len())] } else { CLASSES[card % 2] };
        Row::Card { number: CARDS[card].to_owned(), holder: holder_of(card), class, status, expires, opening }
    }

    // --- operators ---

    /// A file, now and then one with a wrong line.
    pub(crate) fn operate(&mut self) -> Result<(), Failure> {
        if self.server.is_none() {
            return Ok(());
        }
        let index = self.rng.usize(..self.terminals.len());
        let file = match self.rng.u8(..12) {
            0 => self.freshmen(),
            1 => self.year(),
            2 => {
                let merchant = self.rng.usize(..MERCHANTS.len());
                File::Rows(vec![Row::Merchant(MERCHANTS[merchant], CATEGORIES[self.rng.usize(..4)], self.rng.u16(..100))])
            }
            3 | 4 => {
                let terminal = &mut self.terminals[index];
                if self.rng.bool() {
                    terminal.master = self.rng.u128(..).to_be_bytes();
                    self.coverage.count("import.terminal_key");
                }
                if self.rng.u8(..3) == 0 {
                    terminal.merchant = MERCHANTS[self.rng.usize(..MERCHANTS.len())];
                }
                File::Rows(vec![self.terminal_row(index)])
            }
            5 | 6 => File::Rules(self.draw_rules()),
            7 | 8 => self.draw_pins(),
            _ => self.draw_cards(),
        };
        let spoilt = (self.rng.u8(..6) == 0).then(|| self.spoilt_line(&file)).flatten();
        if file == File::Rows(Vec::new()) {
            return Ok(());
        }
        self.take_file(&file, spoilt)
    }

    fn spoilt_line(&mut self, file: &File) -> Option<&'static str> {
        let lines: &[&'static str] = match file {
            File::Rules(_) => &[
                "transaction_max,*,*,,,,,-1",
                "day_max,pupil,*,,,,,100",
                "meal,student,canteen,,0,,,1",
                "door,*,,NORTH,,08:00,,",
                "surcharge,*,shop,,,,,10001",
                "subsidy,*,shop,,,,,maybe",
                "refuse,*,*,,,,,1",
                "anti_passback,,,NORTH,,,,0",
                "tip,*,*,,,,,1",
            ],
            File::Rows(rows) => match rows.first()? {
                Row::Card { .. } => &[
                    "1001,H5,student,active,2030-01-01,0,0",
                    "2003,H99,student,active,2030-02-30,0,0",
                    "2003,H99,student,active,2030-02-28,-1,0",
                    "1002,H1,student,active,2030-01-01,999999,0",
                    "2003,H99,student,active",
                ],
                Row::Pin(..) => &["9999,1234", "1003,123", "1003,1234567890123", "1003,12a4"],
                _ => return None,
            },
        };
        Some(lines[self.rng.usize(..lines.len())])
    }

    fn draw_cards(&mut self) -> File {
        let first = self.rng.usize(..CARDS.len() - 1);
        let numbers = if self.rng.bool() { vec![first] } else { vec![first, first + 1] };
        let day = campus_day(self.now) + [-1, 0, 30, 30][self.rng.usize(..4)];
        let mut rows = Vec::new();
        let mut live: BTreeMap<String, String> = BTreeMap::new();
        for card in numbers.into_iter().filter(|card| *card != UNKNOWN) {
            let status =
                ["active", "active", "active", "lost", "frozen", "inactive", "cancelled", "blacklisted"][self.rng.usize(..8)];
            // One person has one live card: the file of an operator who knows that.
            let holder = holder_of(card);
            let number = CARDS[card].to_owned();
            let other = live.get(&holder).cloned().or_else(|| self.model.live_card(&holder).map(str::to_owned));
            let is_taken = other.is_some_and(|other| other != number);
            let status = if is_taken { ["lost", "cancelled"][self.rng.usize(..2)] } else { status };
            if !["lost", "cancelled"].contains(&status) {
                live.insert(holder, number);
            }
            let opening = if [12, 13].contains(&card) { [500, 300] } else { [0, 0] };
            rows.push(self.card_row(card, status, day, opening));
        }
        File::Rows(rows)
    }

    fn draw_pins(&mut self) -> File {
        let mut rows = Vec::new();
        for number in CARDS.into_iter().take(7) {
            if self.model.status(number).is_some() && self.rng.bool() {
                rows.push(Row::Pin(number.to_owned(), format!("{:04}", self.rng.u32(..3) * 1_111)));
            }
        }
        File::Rows(rows)
    }

    /// Some rules, each once.
    fn draw_rules(&mut self) -> Vec<Rule> {
        let mut rules: Vec<Rule> = if self.rng.bool() { self.model.rules().to_vec() } else { Vec::new() };
        if !rules.is_empty() && self.rng.bool() {
            let gone = self.rng.usize(..rules.len());
            rules.swap_remove(gone);
        }
        for _ in 0..self.rng.u8(..7) {
            let rule = self.draw_rule();
            match rules.iter_mut().find(|other| other.is_same(&rule)) {
                Some(other) => *other = rule,
                None => rules.push(rule),
            }
        }
        rules
    }

    fn draw_rule(&mut self) -> Rule {
        let rng = &mut self.rng;
        let class = ["*", "*", "student", "teacher", "family"][rng.usize(..5)];
        let category = ["*", "*", "canteen", "shop", "bath"][rng.usize(..5)];
        let days = ["", "", "1-5", "67", "1-46"][rng.usize(..5)];
        let (from, to) = [("", ""), ("00:00", "12:00"), ("12:00", "00:00"), ("18:30", "09:15"), ("10:00", "15:00")][rng.usize(..5)];
        let zone = ZONES[rng.usize(..ZONES.len())];
        match rng.u8(..11) {
            0 => Rule::new("transaction_max", class, category, rng.i64(200..900)),
            1 => Rule::new("day_max", class, category, rng.i64(0..3_000)),
            2 => Rule::new("day_count", class, category, rng.i64(0..6)),
            3 => Rule { days, from, to, ..Rule::new("meal", class, category, rng.i64(0..4)) },
            4 | 5 => Rule::new("pin_above", class, category, [0, 300, 500][rng.usize(..3)]),
            6 => Rule::new("subsidy", class, category, rng.i64(0..2)),
            7 => Rule::new("surcharge", class, category, [1_500, -1_000, 333, -777, -10_000, 10_000][rng.usize(..6)]),
            8 => Rule { days, from, to, ..Rule::new("refuse", class, category, 0) },
            9 => Rule { zone, days, from, to, ..Rule::new("door", class, "", 0) },
            _ => Rule { zone, ..Rule::new("anti_passback", "", "", [1, 30, 2_000][rng.usize(..3)]) },
        }
    }

    /// New cards for a year's freshmen: a batch of several blocks.
    fn freshmen(&mut self) -> File {
        let count = self.rng.u32(20..240);
        self.coverage.count("import.many_rows");
        let first = self.cards_entered;
        self.cards_entered += count;
        self.year_rows(first..first + count, ["active", "active", "cancelled"])
    }

    /// A year leaves, or is found to have left too early.
    fn year(&mut self) -> File {
        let known = self.cards_entered;
        if known == 0 {
            return self.freshmen();
        }
        let first = self.rng.u32(..known);
        let last = known.min(first + self.rng.u32(1..120));
        let is_known = |number: &u32| self.model.status(&format!("3{number:09}")).is_some();
        let years: Vec<u32> = (first..last).filter(is_known).collect();
        let statuses = [["cancelled", "cancelled", "frozen"], ["active", "active", "frozen"]][self.rng.usize(..2)];
        self.year_rows(years.into_iter(), statuses)
    }

    fn year_rows(&mut self, numbers: impl Iterator<Item = u32>, statuses: [&'static str; 3]) -> File {
        let expires = campus_day(self.now) + 365;
        let mut row = |number: u32| Row::Card {
            number: format!("3{number:09}"),
            holder: format!("N{number}"),
            class: "student",
            status: statuses[self.rng.usize(..3)],
            expires,
            opening: [100, 0],
        };
        File::Rows(numbers.map(&mut row).collect())
    }

    fn terminal_row(&self, index: usize) -> Row {
        let (id, _, kind, zone, _) = TERMINALS[index];
        Row::Terminal { id, merchant: self.terminals[index].merchant, kind, zone, key: self.terminals[index].master }
    }

    /// The file of all terminals as they stand in the field.
    pub(crate) fn import_terminals(&mut self) -> Result<(), Failure> {
        let rows: Vec<Row> = (0..self.terminals.len()).map(|index| self.terminal_row(index)).collect();
        self.take_file(&File::Rows(rows), None)
    }

    /// Imports a file of these rows, with a line that is wrong at its end.
    fn take_file(&mut self, file: &File, spoilt: Option<&str>) -> Result<(), Failure> {
        let wall = self.wall();
        self.keep_date()?;
        self.note_boundary();
        let content = csv(file, spoilt);
        note!(self, "an operator imports {content:?}");
        let before = self.model.position;
        let Some(server) = &mut self.server else { return Ok(()) };
        let imported = import(server.lanes.authorizer_mut(), wall, "file.csv", content.as_bytes());
        match imported {
            Ok(report) => {
                // Room was made for it behind everything before.
                self.batch_ends.insert(before);
                ensure!(spoilt.is_none(), "a file with a wrong line is taken: {content}");
                let changed = self.model.import(file);
                self.note_pins(file);
                ensure!(
                    u64::from(report.added + report.changed + report.removed) == changed,
                    "a file changed other rows than it should: {report:?}"
                );
                ensure!(report.position == self.model.position, "a file ends at another position: {report:?}");
                if changed > 0 {
                    self.imported = Some(report.position);
                }
            }
            Err(error) => {
                if self.disk.crash().is_some() || self.disk.take_failed() {
                    self.coverage.count("import.cut_off");
                    note!(self, "the file was cut off: {error}");
                    let power = self.disk.crash().map_or_else(|| self.rng.bool(), |fault| fault == Fault::PowerCut);
                    self.end(power);
                    return Ok(());
                }
                if spoilt.is_some() {
                    let rows = match file {
                        File::Rows(rows) => rows.len(),
                        File::Rules(rules) => rules.len(),
                    };
                    ensure!(error.contains(&format!("line {}", rows + 2)), "another line is refused: {error}");
                    self.coverage.count("import.refused_line");
                } else {
                    ensure!(self.disk_is_full && error.contains("no room"), "a right file is refused: {error}");
                    self.coverage.count("import.refused_for_room");
                }
            }
        }
        if let Some(server) = &mut self.server {
            server.lanes.after_command();
        }
        self.check_position()?;
        self.settle()
    }

    /// Holders are told their PINs.
    fn note_pins(&mut self, file: &File) {
        let File::Rows(rows) = file else {
            self.coverage.count("import.rules");
            return;
        };
        for row in rows {
            if let Row::Pin(number, digits) = row {
                self.coverage.count("import.pin");
                self.pins.insert(number.clone(), digits.clone());
            }
        }
    }
}

fn line(row: &Row) -> (&'static str, String) {
    match row {
        Row::Merchant(id, category, fee) => ("merchant_id,name,category,fee_bp", format!("{id},A shop,{category},{fee}")),
        Row::Terminal { id, merchant, kind, zone, key } => {
            let (id, key) = (String::from_utf8_lossy(id), u128::from_be_bytes(*key));
            ("terminal_id,merchant_id,kind,zone,key", format!("{id},{merchant},{kind},{zone},{key:032x}"))
        }
        Row::Card { number, holder, class, status, expires, opening: [cash, subsidy] } => {
            let (year, month, day) = civil(*expires);
            let line = format!("{number},{holder},{class},{status},{year:04}-{month:02}-{day:02},{cash},{subsidy}");
            ("card_number,holder_id,class,status,expires,cash,subsidy", line)
        }
        Row::Pin(number, digits) => ("card_number,pin", format!("{number},{digits}")),
    }
}

fn csv(file: &File, spoilt: Option<&str>) -> String {
    let (header, lines): (&str, Vec<String>) = match file {
        File::Rules(rules) => ("rule,class,category,zone,days,from,to,value", rules.iter().map(Rule::line).collect()),
        File::Rows(rows) => (rows.first().map_or("", |row| line(row).0), rows.iter().map(|row| line(row).1).collect()),
    };
    let mut content = header.to_owned();
    for line in lines.iter().map(String::as_str).chain(spoilt) {
        content.push('\n');
        content.push_str(line);
    }
    content
}
