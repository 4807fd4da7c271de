//! How long a start takes: replaying a journal from its first record, and going on from a snapshot.
//!
//! The journal is made through the ledger and the journal themselves, without messages: a campus of cards and tills, then
//! purchases by cards at random, as a day's worth of batches. What is timed is what `switch serve` does before it listens.

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};
use switch_core::journal::{Journal, Locked, Options};
use switch_core::ledger::record::encode;
use switch_core::ledger::{Command, Ledger};
use switch_core::replica::Replica;
use switch_core::snapshot;

use crate::Failure;
use crate::made::{self, NOW, TODAY};

/// What is made and measured.
pub(crate) struct Scale {
    pub(crate) records: u64,
    pub(crate) cards: u64,
    /// Records in one batch of the journal.
    pub(crate) batch: u64,
}

/// A ledger and its journal while they are made.
struct Making {
    ledger: Ledger,
    journal: Journal,
    record: Vec<u8>,
}

impl Making {
    fn decide(&mut self, command: &Command<'_>) {
        let outcome = self.ledger.apply(NOW, command);
        assert!(outcome.response.is_remembered(), "what is made here is decided");
        self.record.clear();
        encode(&mut self.record, NOW, command, &outcome);
        self.journal.append(&self.record);
    }

    fn decide_all<'a>(&mut self, batch: u64, commands: impl Iterator<Item = Command<'a>>) -> Result<(), Failure> {
        for (index, command) in (0..).zip(commands) {
            if index % batch == 0 {
                self.journal.reserve(batch as usize * 256)?;
            }
            self.decide(&command);
        }
        self.journal.flush();
        Ok(())
    }
}

fn make(folder: &Path, options: &Options, scale: &Scale) -> Result<Ledger, Failure> {
    Journal::create(folder, options)?;
    let journal = Journal::open(folder, options, &mut |_, _| Ok(()))?;
    let mut making = Making { ledger: Ledger::new(), journal, record: Vec::new() };
    making.decide_all(scale.batch, made::parties())?;
    making.decide_all(scale.batch, (0..scale.cards).map(made::card))?;
    let mut chance = fastrand::Rng::with_seed(1);
    let purchases = (making.ledger.position()..scale.records)
        .map(|index| made::purchase(index, TODAY, chance.u64(..scale.cards), chance.u64(1..900)));
    making.decide_all(scale.batch, purchases)?;
    Ok(making.ledger)
}

/// Makes a journal in `folder`, unless one is there already, and gives the times of starts on it.
pub(crate) fn measure(folder: &Path, scale: &Scale) -> Result<Value, Failure> {
    let options = Options::default();
    let made = if folder.exists() { None } else { Some(make(folder, &options, scale)?.digest()) };
    let began = Instant::now();
    let mut ledger = Ledger::new();
    let journal = Journal::resume(Locked::folder(folder)?, &options, None, &mut ledger)?;
    let replaying = began.elapsed();
    let mode = journal.statistics().mode;
    drop(journal);
    let began = Instant::now();
    let digest = ledger.digest();
    if made.is_some_and(|made| made != digest) {
        return Err("the replayed state is not the one that was written".into());
    }
    let digesting = began.elapsed();
    let records = ledger.position();
    let (cards, identities) = (ledger.registry().cards.rows().len(), ledger.identities().count());
    drop(ledger);
    let mut replica = Replica::open(folder, None, u64::MAX)?;
    replica.advance(records)?;
    let began = Instant::now();
    replica.snapshot()?;
    let writing = began.elapsed();
    drop(replica);
    let began = Instant::now();
    let resumed = snapshot::resume(Locked::folder(folder)?, &options, &mut |_| ())?;
    let resuming = began.elapsed();
    if resumed.snapshot.is_none_or(|snapshot| snapshot.position != records) || resumed.ledger.digest() != digest {
        return Err("the snapshot does not lead to the state that was written".into());
    }
    Ok(json!({
        "records": records,
        "cards": cards,
        "identities": identities,
        "mode": mode,
        "replay": { "seconds": replaying.as_secs_f64(), "records_per_second": u128::from(records) * 1_000_000 / replaying.as_micros() },
        "snapshot": { "seconds_to_write": writing.as_secs_f64(), "seconds_to_start": resuming.as_secs_f64() },
        "digest_seconds": digesting.as_secs_f64(),
    }))
}
