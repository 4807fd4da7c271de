//! The same work every time, for counting its instructions under Callgrind: `instructions.py` runs it, compares and shows the counts.
//!
//! Always true here: campus, keys, nonces, cards, amounts and clock are fixed, so that two runs do the same. What is counted is what
//! the functions named `counted_...` do and nothing beside them: requests are made before, and answers are checked after. A path ends
//! with [`end_of_path`], by whose call Callgrind sets the counts of one path apart from the next one's.
//!
//! The core is the real one with its journal in memory: sockets, threads and the disk's own work are not in the counts.

use std::fmt::Write;
use std::hint::black_box;
use std::sync::Arc;

use serde_json::{Value, json};
use switch_core::authorizer::{Authorizer, Replies, Settings};
use switch_core::calendar::Timestamp;
use switch_core::card_number::CardNumber;
use switch_core::import::import;
use switch_core::iso8583::frame::{self, Split};
use switch_core::iso8583::{Message, Writer};
use switch_core::journal::{Journal, MemoryStorage, Options, Reader, Storage};
use switch_core::ledger::{Ledger, Policy, Response};
use switch_core::mac::{KeyEncryptionKey, MacKey, MasterKey};
use switch_core::replica::Replica;

use crate::Failure;

/// 2026-11-22, noon in UTC.
const NOW: Timestamp = 1_795_348_800_000_000;
const TILLS: usize = 64;
const CARDS: usize = 1_000;
/// Of the cards, those without money.
const POOR: usize = 50;
/// Requests in one batch of the journal.
const BATCH: usize = 128;
const OPTIONS: Options = Options { segment_bytes: 32 << 20, batch_bytes_max: 1 << 20 };
const SWITCH_NONCE: [u8; 8] = [0x5a; 8];

/// A till with its session.
struct Till {
    id: [u8; 8],
    key: MacKey,
    stan: u64,
}

impl Till {
    /// Writes a financial message; the same elements with `mti` 100 and `processing` 310000 ask for a balance.
    fn ask(&mut self, mti: u16, processing: u64, card: usize, amount: Option<u64>, out: &mut Vec<u8>) {
        self.stan += 1;
        let mut request = Writer::begin(out, None, mti, false);
        request.card_number(card_number(card));
        request.number(3, processing);
        if let Some(amount) = amount {
            request.number(4, amount);
        }
        request.number(11, self.stan);
        request.number(12, 120_000);
        request.number(13, 1_122);
        request.text(41, &self.id);
        request.text(42, b"M00000000000001");
        request.text(49, b"156");
        request.finish(Some(&self.key));
    }

    /// Writes the reversal of the purchase with this STAN.
    fn reverse(&mut self, original: u64, card: usize, amount: u64, out: &mut Vec<u8>) {
        self.stan += 1;
        let mut request = Writer::begin(out, None, 400, true);
        request.card_number(card_number(card));
        request.number(3, 0);
        request.number(4, amount);
        request.number(11, self.stan);
        request.number(12, 120_000);
        request.number(13, 1_122);
        request.text(41, &self.id);
        request.text(42, b"M00000000000001");
        request.text(49, b"156");
        request.digits(90, format!("0200{original:06}1122120000{:022}", 0).as_bytes());
        request.finish(Some(&self.key));
    }
}

fn card_number(index: usize) -> CardNumber {
    CardNumber::from_digits(format!("6230{index:012}").as_bytes()).expect("sixteen digits")
}

/// Ends the counts of the path before it.
#[inline(never)]
fn end_of_path(name: &'static str) -> &'static str {
    black_box(name)
}

/// The campus at work.
struct Campus {
    core: Authorizer<Journal>,
    tills: Vec<Till>,
    replies: Replies,
}

impl Campus {
    fn new(storage: &Arc<dyn Storage>) -> Result<Self, Failure> {
        Journal::create_on(&**storage, [1; 16], &OPTIONS)?;
        let journal = Journal::open_driven(storage, &OPTIONS, &mut |_, _| Ok(()))?;
        let settings = Settings {
            policy: Policy { amount_max: 5_000_000, identity_days: 8, ..Policy::default() },
            timezone: "UTC".to_owned(),
            key: KeyEncryptionKey::new(&[7; KeyEncryptionKey::BYTES]),
            accept_date: None,
        };
        let mut core = Authorizer::new(Ledger::new(), journal, settings, || SWITCH_NONCE, NOW)?;
        let mut terminals = "terminal_id,merchant_id,kind,zone,key\n".to_owned();
        for till in 0..TILLS {
            writeln!(terminals, "T{till:07},M00000000000001,pos,,{till:032x}")?;
        }
        let mut cards = "card_number,holder_id,class,status,expires,cash,subsidy\n".to_owned();
        for card in 0..CARDS {
            let (cash, subsidy) = if card < POOR { (0, 0) } else { (50_000_000, 20_000 * (card % 2)) };
            writeln!(cards, "6230{card:012},H{card:08},student,active,2030-06-30,{cash},{subsidy}")?;
        }
        let files = [
            ("merchants.csv", "merchant_id,name,category,fee_bp\nM00000000000001,First canteen,canteen,120\n"),
            ("terminals.csv", &terminals),
            ("cards.csv", &cards),
        ];
        for (name, content) in files {
            import(&mut core, NOW, name, content.as_bytes())?;
        }
        let mut campus = Self { core, tills: Vec::new(), replies: Replies::default() };
        for till in 0..TILLS {
            let till = campus.sign_on(till)?;
            campus.tills.push(till);
        }
        campus.core.log_mut().flush();
        Ok(campus)
    }

    fn sign_on(&mut self, till: usize) -> Result<Till, Failure> {
        let id: [u8; 8] = format!("T{till:07}").into_bytes().try_into().expect("eight bytes");
        let nonce = (till as u64).to_be_bytes();
        let master = MasterKey::new((till as u128).to_be_bytes());
        let mut out = Vec::new();
        let mut request = Writer::begin(&mut out, None, 800, true);
        request.number(11, 1);
        request.number(12, 120_000);
        request.number(13, 1_122);
        request.text(41, &id);
        request.text(48, format!("0116{:016X}", u64::from_be_bytes(nonce)).as_bytes());
        request.number(70, 1);
        request.finish(Some(&master.sign_on_key(&id)));
        if handle_all(&mut self.core, &out, &mut self.replies, Response::Approved) != 1 {
            return Err("a sign-on was not approved".into());
        }
        Ok(Till { id, key: master.session_mac_key(&id, &nonce, &SWITCH_NONCE), stan: 1 })
    }

    /// Has `requests` handled; all [`BATCH`] of them must get `response`.
    fn answered(&mut self, requests: &[u8], response: Response, counted: Counted) -> Result<(), Failure> {
        self.replies.durable.clear();
        self.replies.at_once.clear();
        let answered = match counted {
            Counted::Requests => counted_requests(&mut self.core, requests, &mut self.replies, response),
            Counted::Batches => handle_all(&mut self.core, requests, &mut self.replies, response),
        };
        match counted {
            Counted::Batches => counted_batch(self.core.log_mut())?,
            Counted::Requests => _ = self.core.log_mut().flush(),
        }
        if answered != BATCH {
            return Err(format!("{answered} of {BATCH} requests were answered {response:?}").into());
        }
        Ok(())
    }

    /// Has `count` requests made and handled in batches, and gives them.
    fn ask(
        &mut self,
        count: usize,
        response: Response,
        counted: Counted,
        mut ask: impl FnMut(&mut Till, usize, &mut Vec<u8>),
    ) -> Result<Vec<Vec<u8>>, Failure> {
        let mut batches = Vec::new();
        for first in (0..count).step_by(BATCH) {
            let mut requests = Vec::new();
            for index in first..first + BATCH {
                ask(&mut self.tills[index % TILLS], index, &mut requests);
            }
            self.answered(&requests, response, counted)?;
            batches.push(requests);
        }
        Ok(batches)
    }
}

/// What of a batch's work is counted.
#[derive(Clone, Copy)]
enum Counted {
    Requests,
    Batches,
}

/// Handles every frame in `requests`, which came together as in a wave of the pump, from its first byte to its answer's last; gives how
/// many were proved and got `response`.
#[inline]
fn handle_all(core: &mut Authorizer<Journal>, requests: &[u8], replies: &mut Replies, response: Response) -> usize {
    core.look_ahead(frame::messages(requests));
    let (mut ahead, mut answered) = (requests, 0);
    while let Split::Frame { tpdu, message, consumed } = frame::split(ahead) {
        let handled = core.handle(NOW, tpdu, message, replies);
        answered += usize::from(handled.is_ok_and(|handled| handled.proved && handled.response == response));
        ahead = &ahead[consumed..];
    }
    answered
}

#[inline(never)]
fn counted_requests(core: &mut Authorizer<Journal>, requests: &[u8], replies: &mut Replies, response: Response) -> usize {
    handle_all(core, requests, replies, response)
}

/// A batch from the filled buffer to the storage: head, padding, hash, and a copy in the place of the disk.
#[inline(never)]
fn counted_batch(journal: &mut Journal) -> Result<(), Failure> {
    journal.submit();
    journal.drive()?;
    journal.completed().map(|_| ()).ok_or_else(|| "a batch was not written".into())
}

#[inline(never)]
fn counted_parse(messages: &[&[u8]]) -> usize {
    messages.iter().filter(|message| Message::parse(message).is_ok_and(|message| message.fault().is_none())).count()
}

#[inline(never)]
fn counted_macs(key: &MacKey, messages: &[&[u8]]) -> u8 {
    messages.iter().fold(0, |sum, message| sum ^ key.tag(message)[0])
}

#[inline(never)]
fn counted_replay(ledger: &mut Ledger, records: &[(u64, Vec<u8>)]) -> Result<(), Failure> {
    let records = records.iter().map(|(position, record)| (*position, record.as_slice()));
    Ok(ledger.replay_all(records, &mut |_, _, _| {}).map_err(|unreplayable| unreplayable.cause)?)
}

#[inline(never)]
fn counted_rows(replica: &mut Replica, records: u64) -> Result<u64, Failure> {
    Ok(replica.collect(records)?.map_or(0, |chunk| chunk.last + 1 - chunk.first))
}

/// Does all of it, `count` (a multiple of [`BATCH`]) of each kind; gives the names of the paths in the order in which they were
/// taken, each with the number that its instructions are to be divided by.
pub(crate) fn run(count: usize) -> Result<Value, Failure> {
    if count == 0 || !count.is_multiple_of(BATCH) {
        return Err(format!("--count takes a multiple of {BATCH}").into());
    }
    let memory: Arc<dyn Storage> = Arc::new(MemoryStorage::new(1 << 30));
    let mut campus = Campus::new(&memory)?;
    let mut paths = Vec::new();
    let mut end = |name| paths.push(end_of_path(name));
    let (rich, fen) = (|index: usize| POOR + index * 7 % (CARDS - POOR), |index: usize| 100 + (index * 31 % 1_900) as u64);
    let mut pay = |till: &mut Till, index: usize, out: &mut Vec<u8>| till.ask(200, 0, rich(index), Some(fen(index)), out);

    campus.ask(count, Response::Approved, Counted::Batches, &mut pay)?;
    end("batch");
    let first = campus.core.ledger().position() + 1;
    let purchases = campus.ask(count, Response::Approved, Counted::Requests, &mut pay)?;
    end("purchase");
    for batch in &purchases {
        campus.answered(batch, Response::Approved, Counted::Requests)?;
    }
    end("repeat");
    campus.ask(count, Response::Approved, Counted::Requests, |till, index, out| till.ask(100, 310_000, rich(index), None, out))?;
    end("balance");
    campus.ask(count, Response::InsufficientFunds, Counted::Requests, |till, index, out| {
        till.ask(200, 0, index % POOR, Some(500), out);
    })?;
    end("decline");
    campus.ask(count, Response::Approved, Counted::Requests, |till, index, out| {
        // The first purchase of each till has STAN 2, and all of them were given to the tills in turn.
        till.reverse((2 + index / TILLS) as u64, rich(index), fen(index), out);
    })?;
    end("reversal");

    let messages: Vec<&[u8]> = purchases.iter().flat_map(|batch| frame::messages(batch)).collect();
    if counted_parse(&messages) != count {
        return Err("a message could not be read".into());
    }
    end("parse");
    black_box(counted_macs(&campus.tills[0].key, &messages));
    end("mac");

    let records = records(&memory, campus.core.ledger().position())?;
    let (before, after) = records.split_at(first as usize - 1);
    let mut ledger = Ledger::new();
    ledger
        .replay_all(before.iter().map(|(position, record)| (*position, record.as_slice())), &mut |_, _, _| {})
        .map_err(|unreplayable| unreplayable.cause)?;
    counted_replay(&mut ledger, &after[..count])?;
    end("replay");
    let mut replica = Replica::open_on(memory, u64::MAX)?;
    replica.advance(first - 1)?;
    if counted_rows(&mut replica, count as u64)? != count as u64 || replica.ledger().digest() != ledger.digest() {
        return Err("the replica and the replayed ledger are not the same".into());
    }
    end("rows");
    Ok(json!({ "paths": paths, "count": count }))
}

/// The journal's records up to `durable`, from the first one on.
fn records(storage: &Arc<dyn Storage>, durable: u64) -> Result<Vec<(u64, Vec<u8>)>, Failure> {
    let mut reader = Reader::open_on(Arc::clone(storage), None)?;
    let mut records = Vec::new();
    while let Some(batch) = reader.next_batch(durable)? {
        records.extend(batch.records().map(|(position, record)| (position, record.to_vec())));
    }
    Ok(records)
}
