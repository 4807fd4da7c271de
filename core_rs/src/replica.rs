//! A second copy of the ledger, fed from the journal: the follower's, the reconciler's.
//!
//! A replica reads the journal beside the running switch and applies every durable record as the switch did; a record whose
//! outcome comes out differently stops it. Where it settles into PostgreSQL it gives, chunk by chunk, the rows that the
//! records amount to, in the form that COPY takes.

use std::path::Path;
use std::sync::Arc;

use crate::calendar::Date;
use crate::journal::{self, Bookmark, DurableMark, FolderStorage, Hash, Identity, JournalError, Reader, Records, Storage};
use crate::ledger::command::touched;
use crate::ledger::record::{Decoded, is_cutover};
use crate::ledger::{Ledger, Outcome};
use crate::rows::Rows;
use crate::snapshot::{self, Loaded, load_newest};

/// Segments for which a snapshot leaves room on the disk: the next one of the journal, and what PostgreSQL writes meanwhile.
const SEGMENTS_SPARED: u64 = 2;

/// A ledger that follows a journal.
pub struct Replica {
    /// The journal's own folder, without the archive in which the reader may find what was moved there.
    storage: Arc<dyn Storage>,
    ledger: Ledger,
    reader: Reader,
    mark: DurableMark,
    /// The record whose snapshot it began with: durable, even where a power cut has set the mark back.
    known: u64,
    /// What was wrong with newer snapshots.
    passed_over: Vec<String>,
    /// The batch that holds the last record taken, how much of it has been taken, and where it begins.
    batch: Vec<u8>,
    taken: usize,
    before: Bookmark,
    /// For each account the chunk in which it was last touched.
    touched: Vec<u64>,
    chunks: u64,
}

/// The rows of some records that follow each other, all of one business date: a cutover is the last of a chunk.
pub struct Chunk {
    /// The first record.
    pub first: u64,
    /// The last record. Balances and parties are as they stood after it.
    pub last: u64,
    /// The business date of all of them but a cutover at the end, which has no rows by date.
    pub business_date: Date,
    /// Complete binary COPY streams by table; only tables that have rows, and one that is replaced as a whole.
    pub tables: Vec<(&'static str, Vec<u8>)>,
    /// Rows in all of them.
    pub rows: u64,
    /// Hash of the batch that holds the last record: it fixes the whole history up to it.
    pub hash: Hash,
}

impl Replica {
    /// A replica of the journal in `folder` that begins with the newest snapshot at or before `until`, or before the first
    /// record. Segments that were moved to `archive` are read there.
    ///
    /// # Errors
    /// The journal's, where it cannot be read, or begins only behind what a snapshot tells.
    pub fn open(folder: &Path, archive: Option<&Path>, until: u64) -> Result<Self, JournalError> {
        Self::open_with(Arc::new(FolderStorage::new(folder)), Arc::new(FolderStorage::with_archive(folder, archive)), until)
    }

    /// The same in any storage.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn open_on(storage: Arc<dyn Storage>, until: u64) -> Result<Self, JournalError> {
        Self::open_with(Arc::clone(&storage), storage, until)
    }

    fn open_with(storage: Arc<dyn Storage>, reading: Arc<dyn Storage>, until: u64) -> Result<Self, JournalError> {
        let Loaded { ledger, snapshot, passed_over } = load_newest(&*storage, until)?;
        let reader = Reader::open_on(reading, snapshot.as_ref().map(|snapshot| &snapshot.bookmark))?;
        let mut replica = Self {
            mark: DurableMark::open_on(&*storage)?,
            storage,
            known: ledger.position(),
            ledger,
            passed_over,
            batch: Vec::new(),
            taken: 0,
            before: reader.bookmark(),
            reader,
            touched: Vec::new(),
            chunks: 0,
        };
        if replica.before.position < replica.known {
            // The snapshot was taken in the middle of a batch.
            replica.read_batch(replica.known)?;
            let (_, rest) = Records::new(&replica.batch, replica.before.position + 1).after(replica.known).payload();
            replica.taken = replica.batch.len() - rest.len();
        }
        Ok(replica)
    }

    /// Which journal it follows.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.reader.identity()
    }

    /// The ledger as of its position.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What was wrong with snapshots that it would rather have begun with: a sentence each.
    #[must_use]
    pub fn passed_over(&self) -> &[String] {
        &self.passed_over
    }

    /// Hash of the batch that holds the last record applied: it fixes the whole history up to it.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.reader.hash()
    }

    /// The position up to which the journal is durable now.
    ///
    /// # Errors
    /// Where the mark cannot be read or belongs to another journal.
    pub fn durable(&self) -> Result<u64, JournalError> {
        Ok(self.mark.load(self.identity())?.max(self.known))
    }

    /// Writes a snapshot of the state as it is now, unless there is a newer one: then PostgreSQL is behind it, and this one would
    /// be of no use to any start. Gives the record of the newest.
    ///
    /// # Errors
    /// A sentence; the snapshots that were there stay.
    pub fn snapshot(&self) -> Result<u64, String> {
        let position = self.ledger.position();
        if let Some(newer) = snapshot::newest_above(&*self.storage, self.identity(), position).map_err(|error| error.to_string())? {
            return Ok(newer);
        }
        let whole = self.taken == self.batch.len();
        let bookmark = if whole { self.reader.bookmark() } else { self.before };
        let spare = SEGMENTS_SPARED * self.reader.segment_bytes();
        let failed = |error| format!("cannot write a snapshot in {}: {error}", self.storage.place(""));
        snapshot::write(&*self.storage, &self.ledger, &bookmark, spare).map_err(failed)?;
        Ok(position)
    }

    /// Takes away what snapshots up to here make superfluous, and gives how many segments went; see [`snapshot::retire`]. With
    /// `archive` they are put there before.
    ///
    /// # Errors
    /// A sentence; what is left has no gap.
    pub fn retire(&self, segments: bool, archive: Option<&Path>) -> Result<u64, String> {
        let folder = self.storage.place("");
        let (settled, reading) = (self.ledger.position(), self.before.segment);
        snapshot::retire(&*self.storage, self.identity(), settled, reading, segments, &mut |name| {
            archive.map_or(Ok(()), |archive| journal::archive(Path::new(&folder), archive, name))
        })
    }

    /// Reads the next batch. `false`: none is durable.
    fn read_batch(&mut self, durable: u64) -> Result<bool, JournalError> {
        let before = self.reader.bookmark();
        let Some(batch) = self.reader.next_batch(durable)? else { return Ok(false) };
        let next = self.ledger.position() + 1;
        assert!(
            batch.first_position <= next && next <= batch.last_position + 1,
            "batches follow each other without gaps, and the first one holds a snapshot's record"
        );
        self.batch.clear();
        self.batch.extend_from_slice(batch.payload());
        (self.taken, self.before) = (0, before);
        Ok(true)
    }

    /// Applies records up to and including `until`, or as far as `durable` goes, and gives each to `each`. Where it `pauses`, a
    /// cutover is the last.
    fn follow(
        &mut self,
        until: u64,
        durable: u64,
        pauses: bool,
        each: &mut impl FnMut(&Ledger, &Decoded<'_>, &Outcome),
    ) -> Result<(), JournalError> {
        while self.ledger.position() < until {
            if self.taken == self.batch.len() && !self.read_batch(durable)? {
                return Ok(());
            }
            let first = self.ledger.position() + 1;
            let mut paused = false;
            let records = Records::new(&self.batch[self.taken..], first).take_while(|(position, record)| {
                let taken = !paused && *position <= until;
                paused |= taken && pauses && is_cutover(record);
                taken
            });
            self.ledger.replay_all(records, each)?;
            let (_, rest) = Records::new(&self.batch[self.taken..], first).after(self.ledger.position()).payload();
            self.taken = self.batch.len() - rest.len();
            if paused {
                break;
            }
        }
        Ok(())
    }

    /// Goes on to exactly `until` without making rows.
    ///
    /// # Errors
    /// The journal's; a sentence of its own where the journal does not reach that far.
    pub fn advance(&mut self, until: u64) -> Result<(), String> {
        let durable = self.durable().map_err(|error| error.to_string())?;
        if until > durable || until < self.ledger.position() {
            return Err(format!(
                "the journal reaches to record {durable} and this replica stands at {}, so it cannot go to {until}",
                self.ledger.position()
            ));
        }
        self.follow(until, durable, false, &mut |_, _, _| {}).map_err(|error| error.to_string())
    }

    /// The rows of the next records, up to `records_max` of them and no further than the next cutover; `None` where no further
    /// record is durable.
    ///
    /// # Errors
    /// The journal's.
    pub fn collect(&mut self, records_max: u64) -> Result<Option<Chunk>, JournalError> {
        let durable = self.durable()?;
        let first = self.ledger.position() + 1;
        if durable < first {
            return Ok(None);
        }
        let until = durable.min(first + records_max - 1);
        self.chunks += 1;
        let mut rows = Rows::new(until - first + 1);
        let mut touched_at = std::mem::take(&mut self.touched);
        let chunk_number = self.chunks;
        let business_date = self.ledger.business_date();
        self.follow(until, durable, true, &mut |ledger, decoded, outcome| {
            rows.add(ledger, decoded, outcome);
            touched_at.resize(ledger.accounts().count() as usize, 0);
            for account in touched(outcome) {
                if std::mem::replace(&mut touched_at[account as usize], chunk_number) != chunk_number {
                    rows.touch(account);
                }
            }
        })?;
        self.touched = touched_at;
        let (tables, rows) = rows.finish(&self.ledger, first);
        Ok(Some(Chunk { first, last: self.ledger.position(), business_date, tables, rows, hash: self.hash() }))
    }

    /// Every account: number, kind, owner, balance, holds.
    #[must_use]
    pub fn accounts(&self) -> Vec<(u32, &'static str, &str, i64, i64)> {
        let accounts = self.ledger.accounts();
        let one = |account| {
            let (kind, owner) = self.ledger.owner_names(accounts.owner(account));
            (account, kind, owner, accounts.balance(account), self.ledger.held_of(account))
        };
        (0..accounts.count()).map(one).collect()
    }
}
