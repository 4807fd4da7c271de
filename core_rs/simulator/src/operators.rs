//! The operators: the campus's first files, and those that come later, right and wrong.

use switch_core::import::import;

use crate::disk::Fault;
use crate::model::{Row, campus_day, civil};
use crate::terminals::{CARDS, Terminal};
use crate::world::{World, note};
use crate::{Failure, ensure};

/// The merchants.
const MERCHANTS: [&str; 3] = ["M-CANTEEN", "M-SHOP", "M-LIBRARY"];

/// The terminals: DE41, the merchant at first, what it is, its connection.
const TERMINALS: [([u8; 8], &str, &str, usize); 6] = [
    (*b"POS00001", MERCHANTS[0], "pos", 0),
    (*b"POS2    ", MERCHANTS[1], "pos", 0),
    (*b"COUNT003", MERCHANTS[0], "counter", 1),
    (*b"KIOSK004", MERCHANTS[1], "kiosk", 2),
    (*b"LIB00005", MERCHANTS[2], "library", 3),
    (*b"GATE0006", MERCHANTS[1], "gate", 4),
];

impl World {
    /// The first files.
    pub(crate) fn import_campus(&mut self) -> Result<(), Failure> {
        let merchants = vec![
            Row::Merchant(MERCHANTS[0], "canteen", 100),
            Row::Merchant(MERCHANTS[1], "shop", 0),
            Row::Merchant(MERCHANTS[2], "library", 0),
        ];
        let mut terminals = Vec::new();
        for (index, (id, merchant, kind, connection)) in TERMINALS.into_iter().enumerate() {
            let key = self.rng.u128(..).to_be_bytes();
            terminals.push(Row::Terminal(id, merchant, kind, key));
            let mut terminal = Terminal::new(index, id, key, merchant, connection);
            if self.rng.u8(..8) == 0 {
                terminal.set_skew([-1, 1, -2, 2, 40, -400][self.rng.usize(..6)]);
            }
            self.terminals.push(terminal);
        }
        let today = campus_day(self.now);
        let statuses =
            ["active", "active", "active", "active", "active", "active", "lost", "frozen", "inactive", "cancelled", "active"];
        let mut cards = Vec::new();
        for (index, (number, status)) in CARDS.into_iter().zip(statuses).enumerate() {
            let expires = if index == 10 { today - 1 } else { today + [0, 1, 400][self.rng.usize(..3)] };
            let opening = [self.rng.i64(0..4_000), [0, self.rng.i64(0..3_000)][self.rng.usize(..2)]];
            cards.push(Row::Card(number.to_owned(), format!("H{index}"), status, expires, opening));
        }
        for rows in [merchants, terminals, cards] {
            self.take_file(&rows, None)?;
        }
        for _ in 0..10 {
            self.drive()?;
        }
        Ok(())
    }

    // --- operators ---

    /// A file, now and then one with a wrong line.
    pub(crate) fn operate(&mut self) -> Result<(), Failure> {
        let index = self.rng.usize(..self.terminals.len());
        let rows = match self.rng.u8(..7) {
            6 => self.freshmen(),
            0 => {
                let merchant = self.rng.usize(..MERCHANTS.len());
                vec![Row::Merchant(MERCHANTS[merchant], ["canteen", "shop", "library"][self.rng.usize(..3)], self.rng.u16(..100))]
            }
            1 | 2 => {
                let terminal = &mut self.terminals[index];
                if self.rng.bool() {
                    terminal.master = self.rng.u128(..).to_be_bytes();
                    self.coverage.count("import.terminal_key");
                }
                if self.rng.u8(..3) == 0 {
                    terminal.merchant = MERCHANTS[self.rng.usize(..3)];
                }
                vec![self.terminal_row(index)]
            }
            _ => {
                let first = self.rng.usize(..CARDS.len() - 1);
                let numbers = if self.rng.bool() { vec![first] } else { vec![first, first + 1] };
                let day = campus_day(self.now) + [-1, 0, 30][self.rng.usize(..3)];
                let card = |(number, status): (usize, &'static str)| {
                    let opening = if number > 11 { [500, 300] } else { [0, 0] };
                    Row::Card(CARDS[number].to_owned(), format!("H{number}"), status, day, opening)
                };
                let statuses: Vec<&'static str> = numbers
                    .iter()
                    .map(|_| ["active", "active", "active", "lost", "frozen", "inactive", "cancelled"][self.rng.usize(..7)])
                    .collect();
                numbers.into_iter().filter(|number| *number != 11).zip(statuses).map(card).collect()
            }
        };
        let spoilt = (self.rng.u8(..6) == 0).then(|| {
            [
                "1001,H5,student,active,2030-01-01,0,0",
                "2003,H99,student,active,2030-02-30,0,0",
                "2003,H99,student,active,2030-02-28,-1,0",
                "1002,H1,student,active,2030-01-01,999999,0",
                "2003,H99,student,active",
            ][self.rng.usize(..5)]
        });
        if rows.is_empty() || self.server.is_none() {
            return Ok(());
        }
        self.take_file(&rows, spoilt.filter(|_| matches!(rows[0], Row::Card(..))))
    }

    /// New cards for a year's freshmen: a batch of several blocks.
    fn freshmen(&mut self) -> Vec<Row> {
        let count = self.rng.u32(20..240);
        self.coverage.count("import.many_rows");
        let day = campus_day(self.now) + 365;
        let first = self.cards_entered;
        self.cards_entered += count;
        let card = |number: u32| Row::Card(format!("3{number:09}"), format!("N{number}"), "active", day, [100, 0]);
        (first..first + count).map(card).collect()
    }

    fn terminal_row(&self, index: usize) -> Row {
        let (id, _, kind, _) = TERMINALS[index];
        Row::Terminal(id, self.terminals[index].merchant, kind, self.terminals[index].master)
    }

    /// The file of all terminals as they stand in the field.
    pub(crate) fn import_terminals(&mut self) -> Result<(), Failure> {
        let rows: Vec<Row> = (0..self.terminals.len()).map(|index| self.terminal_row(index)).collect();
        self.take_file(&rows, None)
    }

    /// Imports a file of these rows, with a line that is wrong at its end.
    fn take_file(&mut self, rows: &[Row], spoilt: Option<&str>) -> Result<(), Failure> {
        let wall = self.wall();
        self.keep_date()?;
        self.note_boundary();
        let content = csv(rows, spoilt);
        note!(self, "an operator imports {content:?}");
        let before = self.model.position;
        let Some(server) = &mut self.server else { return Ok(()) };
        let imported = import(server.lanes.authorizer_mut(), wall, "file.csv", content.as_bytes());
        match imported {
            Ok(report) => {
                // Room was made for it behind everything before.
                self.batch_ends.insert(before);
                ensure!(spoilt.is_none(), "a file with a wrong line is taken: {content}");
                let changed = self.model.import(rows);
                ensure!(
                    u64::from(report.added + report.changed) == changed,
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
                    ensure!(error.contains(&format!("line {}", rows.len() + 2)), "another line is refused: {error}");
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
}

fn csv(rows: &[Row], spoilt: Option<&str>) -> String {
    let mut content = String::new();
    for row in rows {
        let (header, line) = match row {
            Row::Merchant(id, category, fee) => ("merchant_id,name,category,fee_bp", format!("{id},A shop,{category},{fee}")),
            Row::Terminal(id, merchant, kind, key) => {
                let id = String::from_utf8_lossy(id);
                ("terminal_id,merchant_id,kind,zone,key", format!("{id},{merchant},{kind},,{:032x}", u128::from_be_bytes(*key)))
            }
            Row::Card(number, holder, status, expires, opening) => {
                let (year, month, day) = civil(*expires);
                let [cash, subsidy] = opening;
                (
                    "card_number,holder_id,class,status,expires,cash,subsidy",
                    format!("{number},{holder},student,{status},{year:04}-{month:02}-{day:02},{cash},{subsidy}"),
                )
            }
        };
        if content.is_empty() {
            content.push_str(header);
        }
        content.push('\n');
        content.push_str(&line);
    }
    if let Some(line) = spoilt {
        content.push('\n');
        content.push_str(line);
    }
    content
}
