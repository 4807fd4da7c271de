//! `replay`: what happened once, or what somebody made up, asked again of the switch at any speed.
//!
//! The file is a CSV with the header `offset_ms,terminal_id,card_number,operation,amount`: milliseconds from the beginning,
//! ascending; a terminal of the campus's `terminals.csv`; `purchase`, `balance`, `load`, or `reversal` or `repeat` of that
//! terminal's last purchase; fen. It is read and checked whole before anything is sent. The cards need not be known: that too
//! is something to be asked.
//!
//! A till serves one customer after the other, so a terminal has one request under way. What is due while it waits goes out
//! right after, and its latency counts from the moment for which it was set.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use csv::StringRecord;
use serde_json::Value;
use switch_core::card_number::CardNumber;

use crate::Failure;
use crate::answers::Answers;
use crate::campus::{Till, padded, read_tills};
use crate::chance::Mix;
use crate::crowd::Crowd;
use crate::drive::{Plan, figures};
use crate::driver::{Driver, Loop, Peer, Rules};
use crate::schedule::Arrival;
use crate::terminal::{Clock, Errand, Memory, Operation};

const HEADER: [&str; 5] = ["offset_ms", "terminal_id", "card_number", "operation", "amount"];
const MILLISECOND: f64 = 1e6;
/// Nanoseconds that a replay may take: a year.
const REPLAY_MAX: u64 = 366 * 86_400 * 1_000_000_000;
/// DE4 has twelve digits.
const AMOUNT_MAX: u64 = 999_999_999_999;

/// A replay as it was read: what is asked, by terminals that are counted in the order in which they first appear.
struct Replay {
    /// Offsets in milliseconds.
    arrivals: Vec<Arrival>,
    /// Places in `terminals.csv`.
    terminals: Vec<usize>,
}

/// Runs a plan's replay and gives its figures.
pub(crate) fn replay(plan: &Plan) -> Result<Value, Failure> {
    let address = plan.address.ok_or("replay needs --address")?;
    let path = plan.replay.as_deref().ok_or("replay needs --replay FILE.csv")?;
    let tills = read_tills(&plan.campus)?;
    let Replay { mut arrivals, terminals } = read_file(path, &tills)?;
    #[expect(clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "milliseconds of some days")]
    for arrival in &mut arrivals {
        arrival.due = (arrival.due as f64 * MILLISECOND / plan.speed) as u64;
    }
    let last = arrivals.last().ok_or_else(|| format!("{}: there is nothing to replay", path.display()))?.due;
    if last > REPLAY_MAX {
        return Err(format!(
            "{}: at {} times its speed it would take more than a year; nothing was sent",
            path.display(),
            plan.speed
        )
        .into());
    }
    let repeats = arrivals.iter().any(|arrival| arrival.errand == Some(Errand::Repeat));
    let tills: Vec<&Till> = terminals.iter().map(|&place| &tills[place]).collect();
    let mut clock = Clock::new()?;
    let signing_on = Instant::now();
    let connections = plan.connections.unwrap_or(tills.len());
    let mut crowd = Crowd::gather(address, &tills, connections, Memory { purchases: 1, answers: repeats }, Some(&mut clock))?;
    let sign_on = signing_on.elapsed();
    plan.say_ready(&crowd, sign_on);
    let rules = Rules {
        peer: Peer::Switch,
        pace: Loop::Open,
        depth: 1,
        mix: Mix::PURCHASES,
        allow_declines: plan.allow_declines,
        as_long_as_echo: false,
        opens: 0,
        closes: last + 1,
        progress: plan.progress,
        patience: plan.patience.as_nanos() as u64,
    };
    let answers = plan.answers.as_deref().map(|path| Answers::create(path, plan.speed)).transpose()?;
    let outcome = Driver::new(rules, &mut crowd, None, Box::new(arrivals.into_iter()), &mut clock, answers)?.run()?;
    let mut figures = figures(plan, &outcome, &crowd, sign_on)?;
    figures["speed"] = plan.speed.into();
    Ok(figures)
}

fn read_file(path: &Path, tills: &[Till]) -> Result<Replay, Failure> {
    let content = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(read(&content, tills).map_err(|reason| format!("{} {reason}; nothing was sent", path.display()))?)
}

/// Reads and checks all of it; the first line that is wrong is named with its reason.
fn read(content: &[u8], tills: &[Till]) -> Result<Replay, String> {
    let by_id: HashMap<&[u8; 8], usize> = tills.iter().enumerate().map(|(place, till)| (&till.id, place)).collect();
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(content);
    let mut reading = Reading { tills, by_id, seats: HashMap::new(), last: Vec::new(), offset: 0 };
    let mut replay = Replay { arrivals: Vec::new(), terminals: Vec::new() };
    let mut row = StringRecord::new();
    let header = HEADER.join(",");
    if !reader.read_record(&mut row).map_err(|error| format!("cannot be read: {error}"))? || row != HEADER[..] {
        return Err(format!("line 1: the first line must be {header}"));
    }
    while reader.read_record(&mut row).map_err(|error| format!("cannot be read: {error}"))? {
        let arrival = reading.arrival(&row, &mut replay.terminals);
        replay.arrivals.push(arrival.map_err(|reason| format!("line {}: {reason}", line_of(content, &row)))?);
    }
    Ok(replay)
}

/// The line on which a row stands. The reader notes where the row before ended, and blank lines may lie between.
fn line_of(content: &[u8], row: &StringRecord) -> usize {
    let (before, from) = content.split_at(row.position().map_or(0, |position| position.byte() as usize));
    let blank = from.iter().take_while(|byte| byte.is_ascii_whitespace());
    1 + before.iter().chain(blank).filter(|byte| **byte == b'\n').count()
}

/// What the lines so far say.
struct Reading<'a> {
    tills: &'a [Till],
    by_id: HashMap<&'a [u8; 8], usize>,
    /// Place in `terminals.csv` to seat.
    seats: HashMap<usize, u32>,
    /// The card of each seat's last purchase.
    last: Vec<Option<CardNumber>>,
    offset: u64,
}

impl Reading<'_> {
    fn arrival(&mut self, row: &StringRecord, terminals: &mut Vec<usize>) -> Result<Arrival, String> {
        let [offset, terminal, card, operation, amount] = row
            .iter()
            .map(str::trim)
            .collect::<Vec<_>>()
            .try_into()
            .map_err(|fields: Vec<_>| format!("{} fields where the header has {}", fields.len(), HEADER.len()))?;
        let due = whole(offset).ok_or_else(|| format!("offset_ms {offset:?} is no whole number of milliseconds"))?;
        if due < self.offset {
            return Err(format!("offset_ms {due} comes after {}; the lines must be in the order of their time", self.offset));
        }
        self.offset = due;
        let operation = Operation::from_name(operation)
            .ok_or_else(|| format!("operation {operation:?} is not one of {}", Operation::ALL.map(Operation::name).join(", ")))?;
        let seat = self.seat(terminal, operation, terminals)?;
        let number = CardNumber::from_digits(card.as_bytes());
        let known = || number.ok_or_else(|| format!("card_number {card:?} is not 1 to 19 digits"));
        let fen = whole(amount).filter(|fen| *fen <= AMOUNT_MAX);
        let fen = fen.ok_or_else(|| format!("amount {amount:?} is no whole number of fen up to {AMOUNT_MAX}"))?;
        let errand = match operation {
            Operation::Purchase => {
                self.last[seat as usize] = Some(known()?);
                Errand::Purchase { card: known()?, amount: fen }
            }
            Operation::Balance => Errand::Balance { card: known()? },
            Operation::Load => Errand::Load { card: known()?, amount: fen },
            Operation::Reversal | Operation::Repeat => {
                let last = self.last[seat as usize]
                    .ok_or_else(|| format!("a {} at {terminal}, which has made no purchase before", operation.name()))?;
                if !card.is_empty() && known()? != last {
                    return Err(format!(
                        "a {} with card {card}, but the last purchase at {terminal} was with {last}",
                        operation.name()
                    ));
                }
                if operation == Operation::Reversal { Errand::Reversal } else { Errand::Repeat }
            }
        };
        Ok(Arrival { due, seat, errand: Some(errand) })
    }

    fn seat(&mut self, terminal: &str, operation: Operation, terminals: &mut Vec<usize>) -> Result<u32, String> {
        let id: [u8; 8] = padded(terminal).map_err(|reason| format!("terminal_id {reason}"))?;
        let place = *self.by_id.get(&id).ok_or_else(|| format!("terminal_id {terminal:?} is not in the campus's terminals.csv"))?;
        let kind = self.tills[place].kind.as_str();
        let may = match operation {
            Operation::Purchase | Operation::Repeat => ["pos", "counter", "water", "library"].contains(&kind),
            Operation::Balance => ["pos", "counter", "water", "kiosk"].contains(&kind),
            Operation::Load => kind == "counter",
            Operation::Reversal => true,
        };
        if !may {
            return Err(format!("terminal {terminal} is a {kind}, which takes no {}", operation.name()));
        }
        Ok(*self.seats.entry(place).or_insert_with(|| {
            terminals.push(place);
            self.last.push(None);
            terminals.len() as u32 - 1
        }))
    }
}

/// A number of decimal digits and nothing else.
fn whole(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use switch_core::mac::MasterKey;

    use super::*;

    fn tills() -> Vec<Till> {
        [(b"T1      ", "pos"), (b"T2      ", "water"), (b"K1      ", "kiosk"), (b"G1      ", "gate"), (b"C1      ", "counter")]
            .map(|(id, kind)| Till { id: *id, merchant: [b'M'; 15], kind: kind.to_owned(), key: MasterKey::new([7; 16]) })
            .into()
    }

    fn read_rows(rows: &str) -> Result<Replay, String> {
        read(format!("offset_ms,terminal_id,card_number,operation,amount\n{rows}").as_bytes(), &tills())
    }

    #[test]
    fn rows_become_arrivals_of_terminals_in_the_order_of_their_appearance() {
        let replay = read_rows(
            "0,T2,0012345,purchase,850\n0,K1,0012345,balance,0\n\n1500,T2,0012345,reversal,850\r\n1500,T1,17,purchase,1\n1501,T1,,repeat,0\n\
             1600,C1,17,load,10000\n",
        )
        .unwrap_or_else(|reason| panic!("{reason}"));
        let card = |digits: &[u8]| CardNumber::from_digits(digits).unwrap();
        assert_eq!(replay.terminals, [1, 2, 0, 4]);
        let expected = [
            (0, 0, Errand::Purchase { card: card(b"0012345"), amount: 850 }),
            (0, 1, Errand::Balance { card: card(b"0012345") }),
            (1500, 0, Errand::Reversal),
            (1500, 2, Errand::Purchase { card: card(b"17"), amount: 1 }),
            (1501, 2, Errand::Repeat),
            (1600, 3, Errand::Load { card: card(b"17"), amount: 10_000 }),
        ];
        let expected = expected.map(|(due, seat, errand)| Arrival { due, seat, errand: Some(errand) });
        assert_eq!(replay.arrivals, expected);
    }

    #[test]
    fn wrong_lines_are_named_with_their_reason() {
        let table = [
            ("x,T1,17,purchase,1", "line 2: offset_ms \"x\" is no whole number"),
            ("5,T1,17,purchase,1\n4,T1,17,purchase,1", "line 3: offset_ms 4 comes after 5"),
            ("5,T1,17,purchase,1\n\n\n5,T9,17,purchase,1", "line 5: terminal_id \"T9\" is not in"),
            ("5,T12345678,17,purchase,1", "line 2: terminal_id \"T12345678\" has not 1 to 8 characters"),
            ("5,,17,purchase,1", "line 2: terminal_id \"\" has not 1 to 8 characters"),
            ("5,T1,1a,purchase,1", "line 2: card_number \"1a\" is not 1 to 19 digits"),
            ("5,T1,,balance,0", "line 2: card_number \"\" is not 1 to 19 digits"),
            ("5,T1,17,refund,1", "line 2: operation \"refund\" is not one of purchase, balance, reversal, repeat, load"),
            ("5,T1,17,purchase,-1", "line 2: amount \"-1\" is no whole number of fen"),
            ("5,T1,17,purchase,1000000000000", "line 2: amount \"1000000000000\" is no whole number of fen"),
            ("5,T1,17,purchase,", "line 2: amount \"\" is no whole number"),
            ("5,T1,17,purchase", "line 2: 4 fields where the header has 5"),
            ("5,G1,17,purchase,1", "line 2: terminal G1 is a gate, which takes no purchase"),
            ("5,K1,17,purchase,1", "line 2: terminal K1 is a kiosk, which takes no purchase"),
            ("5,T1,17,load,1", "line 2: terminal T1 is a pos, which takes no load"),
            ("5,T1,17,reversal,0", "line 2: a reversal at T1, which has made no purchase before"),
            ("5,T1,17,purchase,1\n6,T1,18,reversal,0", "line 3: a reversal with card 18, but the last purchase at T1 was with 17"),
        ];
        for (rows, reason) in table {
            match read_rows(rows) {
                Ok(_) => panic!("{rows:?} was taken"),
                Err(error) => assert!(error.starts_with(reason), "{rows:?}: {error}"),
            }
        }
        for content in ["", "offset_ms,terminal_id\n", "1,T1,17,purchase,1\n"] {
            assert!(read(content.as_bytes(), &tills()).is_err_and(|error| error.contains("the first line must be")), "{content:?}");
        }
    }
}
