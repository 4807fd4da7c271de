//! The core without sockets, threads and disk: what one purchase costs from its frame's first byte to its answer's last.
//!
//! The work is the authorizer's own: frame, parse, MAC, checks, ledger, duplicate memory, journal record, answer, MAC. The
//! record is copied into a batch's buffer as the journal does it, and goes nowhere. Requests are made before and answers
//! checked after the clock runs, a block at a time. Of these a wave is handed over at a time, as by the pump.

use std::fs;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};
use switch_core::authorizer::{Authorizer, Log, Replies, Settings};
use switch_core::card_number::CardNumber;
use switch_core::import::import;
use switch_core::iso8583::Message;
use switch_core::iso8583::frame::{self, Split};
use switch_core::ledger::{Command, Ledger, Policy, Response};
use switch_core::mac::KeyEncryptionKey;
use switch_core::reactor::wall_clock;

use crate::Failure;
use crate::campus::Campus;
use crate::made;
use crate::terminal::{Clock, Errand, Memory, Request, Terminal};

/// Purchases between two looks at the clock: few enough that their frames stay in the cache, as in the pump.
const BLOCK: usize = 512;
/// Messages that are handed over at a time, unless said: those that the core can look ahead at. In a real switch it is one at a time
/// where little is asked, up to 64 at 64 connections with one purchase under way on each (two messages in three are among 32 or more), and
/// 126 on the average at 512 connections with 16.
pub(crate) const WAVE: usize = 16;
/// Terminals that take turns, at most.
const TERMINALS: usize = 256;
/// Bytes after which the batch's buffer begins again.
const BATCH_BYTES: usize = 1 << 20;

/// A batch of the journal that is never written.
struct Batch {
    position: u64,
    bytes: Vec<u8>,
}

impl Log for Batch {
    fn has_room(&self, _: usize) -> bool {
        true
    }

    fn reserve(&mut self, _: usize) -> Result<(), String> {
        Ok(())
    }

    fn append(&mut self, record: &[u8]) -> u64 {
        if self.bytes.len() > BATCH_BYTES {
            self.bytes.clear();
        }
        self.bytes.extend_from_slice(&(record.len() as u16).to_le_bytes());
        self.bytes.extend_from_slice(record);
        self.position += 1;
        self.position
    }
}

/// A ledger with so many cards, and their numbers. Ten million of them as a file to import would take minutes.
fn with_cards(count: u64) -> (Ledger, Vec<CardNumber>) {
    let mut ledger = Ledger::new();
    let numbers = (0..count).map(|index| {
        let command = made::card(index);
        let outcome = ledger.apply(wall_clock(), &command);
        assert!(outcome.response.is_remembered(), "a card that is made here is taken");
        let Command::Card { number, .. } = command else { unreachable!("a card is made by the command for it") };
        number
    });
    let numbers = numbers.collect();
    (ledger, numbers)
}

/// Makes `purchases` purchases on the campus in `folder` and gives the time that one took; by so many `cards`, if said, instead of
/// the campus's own; `wave` of them are handed over at a time, and, in turns with these, one.
pub(crate) fn measure(folder: &Path, purchases: usize, cards: Option<u64>, wave: usize) -> Result<Value, Failure> {
    let settings = Settings {
        policy: Policy { amount_max: 5_000_000, identity_days: 8, ..Policy::default() },
        timezone: "UTC".to_owned(),
        key: KeyEncryptionKey::new(&[7; KeyEncryptionKey::BYTES]),
        accept_date: None,
    };
    let nonces = || fastrand::u64(..).to_be_bytes();
    let mut campus = Campus::read(folder)?;
    let mut ledger = Ledger::new();
    let mut files = vec!["merchants.csv", "terminals.csv"];
    match cards {
        Some(count) => (ledger, campus.cards) = with_cards(count),
        None => files.push("cards.csv"),
    }
    let batch = Batch { position: ledger.position(), bytes: Vec::new() };
    let mut core = Authorizer::new(ledger, batch, settings, nonces, wall_clock())?;
    for name in files {
        import(&mut core, wall_clock(), name, &fs::read(folder.join(name))?)?;
    }
    let mut replies = Replies::default();
    let mut clock = Clock::new()?;
    let mut terminals: Vec<Terminal> = campus.tills.iter().take(TERMINALS).map(|till| Terminal::new(till, Memory::NONE)).collect();
    let turns = terminals.len();
    if turns == 0 || campus.cards.is_empty() {
        return Err("the campus has no tills or no cards".into());
    }
    let mut requests = Vec::new();
    for terminal in &mut terminals {
        requests.clear();
        replies.durable.clear();
        terminal.sign_on(clock.stamp(wall_clock()), &mut requests);
        handle_all(&mut core, &requests, wave, &mut replies)?;
        terminal.signed_on(&replies.durable[frame::LENGTH_BYTES..])?;
    }
    // Of one purchase, on the average over a block; one entry a block. Every second block comes one message at a time.
    let (mut nanoseconds, mut nanoseconds_alone) = (Vec::new(), Vec::new());
    let mut chance = fastrand::Rng::new();
    let mut asked: Vec<Request> = Vec::with_capacity(BLOCK);
    for block in 0..purchases.div_ceil(BLOCK) {
        requests.clear();
        replies.durable.clear();
        asked.clear();
        let stamp = clock.stamp(wall_clock());
        let first = block * BLOCK;
        for index in first..first + BLOCK {
            let terminal = &mut terminals[index % turns];
            let card = campus.cards[chance.usize(..campus.cards.len())];
            asked.push(terminal.ask(&Errand::purchase(card, &mut chance), stamp, 0, &mut requests));
        }
        let (wave, took) = if block % 2 == 0 { (wave, &mut nanoseconds) } else { (1, &mut nanoseconds_alone) };
        let began = Instant::now();
        handle_all(&mut core, &requests, wave, &mut replies)?;
        took.push(began.elapsed().as_nanos() as u64 / BLOCK as u64);
        check_all(&terminals, first, &asked, &replies.durable)?;
    }
    Ok(json!({
        "purchases": (nanoseconds.len() + nanoseconds_alone.len()) * BLOCK,
        "terminals": turns,
        "cards": campus.cards.len(),
        "wave": wave,
        "nanoseconds": percentiles(nanoseconds),
        "nanoseconds_alone": percentiles(nanoseconds_alone),
    }))
}

fn percentiles(mut nanoseconds: Vec<u64>) -> Value {
    nanoseconds.sort_unstable();
    let percentile = |percent: usize| nanoseconds.get(nanoseconds.len().saturating_sub(1) * percent / 100);
    json!({ "p10": percentile(10), "p50": percentile(50), "p90": percentile(90) })
}

fn handle_all(core: &mut Authorizer<Batch>, requests: &[u8], wave: usize, replies: &mut Replies) -> Result<(), Failure> {
    let now = wall_clock();
    let mut ahead = requests;
    loop {
        core.look_ahead(frame::messages(ahead).take(wave));
        for _ in 0..wave {
            let Split::Frame { tpdu, message, consumed } = frame::split(ahead) else { return Ok(()) };
            core.handle(now, tpdu, message, replies)?;
            ahead = &ahead[consumed..];
        }
    }
}

fn check_all(terminals: &[Terminal], first: usize, asked: &[Request], answers: &[u8]) -> Result<(), Failure> {
    let mut ahead = answers;
    for (offset, request) in asked.iter().enumerate() {
        let Split::Frame { message, consumed, .. } = frame::split(ahead) else { return Err("an answer is missing".into()) };
        ahead = &ahead[consumed..];
        let reply = Message::parse(message)?;
        match terminals[(first + offset) % terminals.len()].mistrust(request, &reply) {
            Ok(said) if said.response == Response::Approved => {}
            Ok(said) => return Err(format!("a purchase was answered {}", said.response.code()).into()),
            Err(fault) => return Err(format!("{fault}: {reply:?} {:?}", reply.text(39)).into()),
        }
    }
    Ok(())
}
