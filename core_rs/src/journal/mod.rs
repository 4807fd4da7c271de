//! The journal: what the switch has decided, in order, on disk before anyone is told.
//!
//! **For:** one owner thread appends records and learns when they are durable; recovery gives them all back, in order;
//! other processes read along.
//!
//! **Always:**
//! - A record has a position: 1 for the first, then without gaps. Positions and bytes never change once they are
//!   durable.
//! - A batch is all there or not at all. Everything appended between two submissions is one batch.
//! - At most one batch is in flight, and a position is given out as durable only after its batch is on disk.
//! - Room is reserved ahead: what [`Journal::append`] accepted can be written. A full disk shows in
//!   [`Journal::has_room`] before it is hit.
//! - A failed write or sync ends the process with exit code 74; it is never tried again.
//! - One process has the journal open for writing.
//!
//! **How:** records go into the filling batch; [`Journal::submit`] hands it to the writer thread and goes on with a
//! second one, so that one batch is decided while the one before is written (group commit). An eventfd says when to
//! call [`Journal::completed`]. Batches lie in segments, zero-filled files of one size, the next of which is prepared
//! in the background.
//!
//! | module | holds |
//! |---|---|
//! | `format` | the bytes of segments, batches and footers |
//! | `names` | what they are called |
//! | `storage`, `memory` | files, on disk and in memory |
//! | `segment` | making and opening segments, walking the chain |
//! | `recovery` | the crash story: what a start accepts, repairs and refuses |
//! | `writer` | writing batches; the thread |
//! | `prepare` | the next segment; the other thread |
//! | `retention` | segments that are needed no more |
//! | `mark` | the durable position, for other processes |
//! | `reader` | reading along |

use std::any::Any;
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

use crate::limits::{JOURNAL_BATCH_BYTES_MAX, JOURNAL_EXTENT_BYTES_MAX, JOURNAL_RECORD_BYTES_MAX, JOURNAL_SEGMENT_BYTES};

mod aligned;
mod error;
mod format;
mod mark;
mod memory;
mod names;
mod prepare;
mod reader;
mod recovery;
mod retention;
mod segment;
mod storage;
mod writer;

pub use error::JournalError;
pub use format::{BLOCK_BYTES, Hash, Identity, RECORD_OVERHEAD_BYTES, Records, SECTOR_BYTES};
pub use mark::DurableMark;
pub use memory::MemoryStorage;
pub use names::{SNAPSHOT, UNFINISHED};
pub use reader::{Batch, Reader};
pub use recovery::{Each, Inspection, PerRecord, Replays, Start, inspect, inspect_from};
pub use retention::{archive, remove_segments};
pub use segment::Bookmark;
pub use storage::{Access, File, FolderStorage, NewFile, Storage};

use names::segment_number;
use prepare::Preparer;
use recovery::Recovered;
use segment::{BLOCK, Segment};
use writer::{BatchWriter, Done, FillingBatch, Job, WriterThread, end_process};

/// The choices of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Size of a segment file in bytes, a multiple of 4096.
    pub segment_bytes: u64,
    /// Bytes that may wait in the filling batch before there is no room.
    pub batch_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: JOURNAL_SEGMENT_BYTES, batch_bytes_max: JOURNAL_BATCH_BYTES_MAX }
    }
}

impl Options {
    fn check(&self) -> Result<(), JournalError> {
        let batch_min = JOURNAL_RECORD_BYTES_MAX + RECORD_OVERHEAD_BYTES;
        if self.batch_bytes_max < batch_min {
            return Err(JournalError::Configuration(format!(
                "a journal batch of {} bytes cannot hold the largest record; it takes at least {batch_min}",
                self.batch_bytes_max
            )));
        }
        let segment_min = segment_bytes_for(format::extent_bytes(self.batch_bytes_max as u64));
        if self.segment_bytes < segment_min
            || !self.segment_bytes.is_multiple_of(BLOCK)
            || self.segment_bytes > JOURNAL_EXTENT_BYTES_MAX
        {
            return Err(JournalError::Configuration(format!(
                "a journal segment of {} bytes is not possible; it takes a multiple of {BLOCK} from {segment_min} to {JOURNAL_EXTENT_BYTES_MAX}",
                self.segment_bytes
            )));
        }
        Ok(())
    }
}

/// Size of a segment that holds one batch of this extent, with header and footer.
const fn segment_bytes_for(extent: u64) -> u64 {
    BLOCK + extent + BLOCK
}

/// What the journal has done since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalStatistics {
    /// Batches made durable.
    pub batches: u64,
    /// Bytes written for them, padding included.
    pub bytes: u64,
    /// Nanoseconds that the last completed batch took to write and sync; a histogram takes it after each completion.
    pub sync_nanoseconds_last: u64,
    /// How durable writes are made: `O_DIRECT|O_DSYNC`, `pwrite+fdatasync` or `memory`.
    pub mode: &'static str,
    /// Number of the segment in use.
    pub segment: u64,
    /// Bytes left in the segment in use.
    pub segment_bytes_left: u64,
    /// Whether the next segment is ready.
    pub prepared: bool,
    /// Bytes of an interrupted write that the start has cleared; 0 after a clean stop.
    pub torn_bytes: u64,
}

/// A journal's folder that this process has for itself. Snapshots can be read in it before the journal is opened.
pub struct Locked {
    storage: Arc<dyn Storage>,
    lock: Box<dyn Any + Send>,
}

impl Locked {
    /// Takes the lock of the journal in `folder`, which is released when this, or the journal opened with it, is dropped.
    ///
    /// # Errors
    /// [`JournalError::Missing`], [`JournalError::Locked`] or [`JournalError::Io`].
    pub fn folder(folder: &Path) -> Result<Self, JournalError> {
        let storage = FolderStorage::new(folder);
        refuse_missing(&storage)?;
        let lock = lock(&storage)?;
        storage.probe().map_err(|error| JournalError::Io { action: "write to", file: folder.display().to_string(), error })?;
        Ok(Self { storage: Arc::new(storage), lock })
    }

    /// The same in any storage.
    ///
    /// # Errors
    /// As for [`Self::folder`].
    pub fn on(storage: &Arc<dyn Storage>) -> Result<Self, JournalError> {
        refuse_missing(&**storage)?;
        Ok(Self { storage: Arc::clone(storage), lock: lock(&**storage)? })
    }

    /// Its files.
    #[must_use]
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }
}

/// A journal open for appending; see the module.
pub struct Journal {
    // Dropped in this order: threads end before the lock goes.
    engine: Engine,
    preparer: Preparer,
    identity: Identity,
    options: Options,
    filling: FillingBatch,
    /// The other batch, unless it is in flight.
    idle: Option<FillingBatch>,
    position: u64,
    durable: u64,
    /// Bytes of the segment in use behind the filling batch's start, once what is in flight is written.
    bytes_left: u64,
    statistics: JournalStatistics,
    /// The folder, as operators know it.
    folder: String,
    _lock: Box<dyn Any + Send>,
}

enum Engine {
    Thread(WriterThread),
    Driven(Box<Driven>),
}

/// The writer without its thread.
struct Driven {
    writer: BatchWriter,
    job: Option<Job>,
    done: Option<Done>,
}

impl Journal {
    /// Makes an empty journal in `folder`, which is made too if need be.
    ///
    /// # Errors
    /// [`JournalError::Exists`], [`JournalError::Locked`], [`JournalError::NoSpace`], [`JournalError::Configuration`]
    /// or [`JournalError::Io`].
    pub fn create(folder: &Path, options: &Options) -> Result<(), JournalError> {
        let failed = |error| JournalError::Io { action: "create", file: folder.display().to_string(), error };
        fs::create_dir_all(folder).map_err(failed)?;
        let storage = FolderStorage::new(folder);
        let _lock = lock(&storage)?;
        storage.probe().map_err(failed)?;
        let mut identity = Identity::default();
        let filled = rustix::rand::getrandom(identity.as_mut_slice(), rustix::rand::GetRandomFlags::empty());
        if filled.map_err(|error| failed(error.into()))? != identity.len() {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        create_segment(&storage, identity, options)?;
        // The folder itself may be new: its name must be on disk as well.
        let parent = folder.canonicalize().map_err(failed)?;
        parent.parent().map_or(Ok(()), |parent| fs::File::open(parent).and_then(|parent| parent.sync_all())).map_err(failed)
    }

    /// Makes an empty journal with a chosen identity in any storage.
    ///
    /// # Errors
    /// As for [`Self::create`].
    pub fn create_on(storage: &dyn Storage, identity: Identity, options: &Options) -> Result<(), JournalError> {
        let _lock = lock(storage)?;
        create_segment(storage, identity, options)
    }

    /// Opens the journal in `folder` and gives every record in order to `each`; see [`Self::resume`].
    ///
    /// # Errors
    /// As for [`Self::resume`].
    pub fn open(folder: &Path, options: &Options, each: &mut Each<'_>) -> Result<Self, JournalError> {
        Self::resume(Locked::folder(folder)?, options, None, &mut PerRecord(each))
    }

    /// Opens a journal in any storage.
    ///
    /// # Errors
    /// As for [`Self::resume`].
    pub fn open_on(storage: &Arc<dyn Storage>, options: &Options, each: &mut Each<'_>) -> Result<Self, JournalError> {
        Self::resume(Locked::on(storage)?, options, None, &mut PerRecord(each))
    }

    /// Opens a journal without threads: batches are written and segments prepared by [`Self::drive`], so that a
    /// simulator decides when, and gets an error where the process would end.
    ///
    /// # Errors
    /// As for [`Self::resume`].
    pub fn open_driven(storage: &Arc<dyn Storage>, options: &Options, each: &mut Each<'_>) -> Result<Self, JournalError> {
        Self::resume_driven(Locked::on(storage)?, options, None, &mut PerRecord(each))
    }

    /// Opens a journal that is locked: checks everything from `start` on (without one, from the first record), gives the
    /// records in order to `replays`, and clears the rest of an interrupted write at the end.
    ///
    /// # Errors
    /// [`JournalError::Damaged`], [`JournalError::Lost`], [`JournalError::Cut`], [`JournalError::Rejected`] with the error of
    /// `replays`, [`JournalError::Configuration`] or [`JournalError::Io`].
    pub fn resume(
        locked: Locked,
        options: &Options,
        start: Option<&Start>,
        replays: &mut dyn Replays,
    ) -> Result<Self, JournalError> {
        Self::open_locked(locked, options, start, replays, true)
    }

    /// [`Self::resume`] without threads; see [`Self::open_driven`].
    ///
    /// # Errors
    /// As for [`Self::resume`].
    pub fn resume_driven(
        locked: Locked,
        options: &Options,
        start: Option<&Start>,
        replays: &mut dyn Replays,
    ) -> Result<Self, JournalError> {
        Self::open_locked(locked, options, start, replays, false)
    }

    fn open_locked(
        locked: Locked,
        options: &Options,
        start: Option<&Start>,
        replays: &mut dyn Replays,
        threads: bool,
    ) -> Result<Self, JournalError> {
        options.check()?;
        let Locked { storage, lock } = locked;
        let storage = &storage;
        let recovered = recovery::recover(storage, start, replays, threads)?;
        let Recovered { identity, segment, offset, chain, next, mark, torn_bytes } = recovered;
        let number = segment.number;
        let bytes_left = segment.bytes - offset;
        let mode = storage.mode();
        let failed = |error: io::Error| JournalError::Io { action: "start the threads of", file: storage.place(""), error };
        let mut preparer = Preparer::new(Arc::clone(storage), identity, next);
        if preparer.ready_bytes() == 0 {
            preparer.order(number + 1, options.segment_bytes);
        }
        let writer = BatchWriter { storage: Arc::clone(storage), identity, segment, offset, chain, mark };
        let engine = if threads {
            preparer.start().map_err(failed)?;
            Engine::Thread(WriterThread::start(writer).map_err(failed)?)
        } else {
            Engine::Driven(Box::new(Driven { writer, job: None, done: None }))
        };
        Ok(Self {
            engine,
            preparer,
            identity,
            options: *options,
            filling: FillingBatch::new(options.batch_bytes_max),
            idle: Some(FillingBatch::new(options.batch_bytes_max)),
            position: chain.position,
            durable: chain.position,
            bytes_left,
            statistics: JournalStatistics {
                batches: 0,
                bytes: 0,
                sync_nanoseconds_last: 0,
                mode,
                segment: number,
                segment_bytes_left: bytes_left,
                prepared: false,
                torn_bytes,
            },
            folder: storage.place(""),
            _lock: lock,
        })
    }

    /// What tells this journal from any other.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Position of the last record appended; 0 before the first.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Position of the last record known to be on disk.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Whether a record of `bytes` may be appended: the filling batch is below its bound, and there is room on disk.
    /// For several records ask for their sum and [`RECORD_OVERHEAD_BYTES`] for each after the first.
    #[must_use]
    pub fn has_room(&self, bytes: usize) -> bool {
        let more = bytes + RECORD_OVERHEAD_BYTES;
        self.filling.payload_bytes() + more <= self.options.batch_bytes_max && self.has_disk_room(more)
    }

    /// Whether the filling batch with `more` bytes of payload fits what is left of this segment, or the next one.
    fn has_disk_room(&self, more: usize) -> bool {
        let needed = self.filling.extent_with(more) + BLOCK;
        needed <= self.bytes_left || needed <= self.preparer.ready_bytes()
    }

    /// Makes room for one batch of any size, an import: flushes, then waits for a segment large enough if neither this
    /// one nor the next is. `bytes` counts the records and [`RECORD_OVERHEAD_BYTES`] for each. [`Self::durable`] has
    /// moved then, and [`Self::completed`] does not tell of it again.
    ///
    /// # Errors
    /// [`JournalError::NoSpace`] when the disk is too small or the batch too large; nothing has changed then.
    pub fn reserve(&mut self, bytes: usize) -> Result<(), JournalError> {
        self.finish()?;
        let extent = format::extent_bytes(bytes as u64);
        let segment_bytes = segment_bytes_for(extent).max(self.options.segment_bytes);
        let number = self.statistics.segment + 1;
        if extent > JOURNAL_EXTENT_BYTES_MAX {
            return Err(JournalError::Configuration(format!(
                "{bytes} bytes are too much for one batch of the journal; it takes up to {JOURNAL_EXTENT_BYTES_MAX}"
            )));
        }
        if self.has_disk_room(bytes) || self.preparer.order_and_wait(number, segment_bytes, self.options.segment_bytes)? {
            self.filling.reserve(bytes);
            return Ok(());
        }
        Err(JournalError::NoSpace { folder: self.folder.clone(), bytes: segment_bytes })
    }

    /// Adds a record to the filling batch and returns its position. Nothing is written yet.
    ///
    /// # Panics
    /// When the record is empty or above its bound, or when there is no room on disk: the caller has not asked
    /// [`Self::has_room`] or [`Self::reserve`]. Later, when the batch is written, if the record held 511 zero bytes in
    /// a row: a sector of zeros could not be told from one that never reached the disk.
    pub fn append(&mut self, record: &[u8]) -> u64 {
        assert!((1..=JOURNAL_RECORD_BYTES_MAX).contains(&record.len()), "a record has 1 to 60000 bytes");
        assert!(self.has_disk_room(record.len() + RECORD_OVERHEAD_BYTES), "a record is appended only where room was promised");
        self.filling.append(record);
        self.position += 1;
        self.position
    }

    /// Hands the filling batch to the writer, if it holds a record and none is in flight. True if it did.
    pub fn submit(&mut self) -> bool {
        if self.filling.is_empty() {
            return false;
        }
        let Some(idle) = self.idle.take() else { return false };
        let extent = self.filling.extent_with(0);
        let next = (extent + BLOCK > self.bytes_left).then(|| self.begin_next_segment());
        self.bytes_left -= extent;
        let batch = std::mem::replace(&mut self.filling, idle);
        let job = Job { batch, next };
        match &mut self.engine {
            Engine::Thread(thread) => thread.submit(job),
            Engine::Driven(driven) => driven.job = Some(job),
        }
        true
    }

    fn begin_next_segment(&mut self) -> Segment {
        let next = self.preparer.take(self.options.segment_bytes);
        self.bytes_left = next.bytes - BLOCK;
        self.statistics.segment = next.number;
        next
    }

    /// Takes note of a completed batch: its last position, up to which all is durable now. `None` while none has
    /// completed. To be called when [`Self::event`] is readable; at any other time it is cheap.
    pub fn completed(&mut self) -> Option<u64> {
        let done = match &mut self.engine {
            Engine::Thread(thread) => thread.take_done(),
            Engine::Driven(driven) => driven.done.take(),
        };
        done.map(|done| self.note(done))
    }

    fn note(&mut self, done: Done) -> u64 {
        assert!((self.durable + 1..=self.position).contains(&done.position), "what is durable only grows, by what was appended");
        self.statistics.batches += 1;
        self.statistics.bytes += done.bytes;
        self.statistics.sync_nanoseconds_last = done.nanoseconds;
        self.idle = Some(done.batch);
        self.durable = done.position;
        done.position
    }

    /// Readable when a batch has become durable. [`Self::completed`] resets it.
    ///
    /// # Panics
    /// For a journal that is driven: its driver knows.
    #[must_use]
    pub fn event(&self) -> BorrowedFd<'_> {
        match &self.engine {
            Engine::Thread(thread) => thread.event(),
            Engine::Driven(_) => panic!("a driven journal has no event"),
        }
    }

    /// Waits until all that was appended is durable and returns its position; [`Self::completed`] does not tell of it
    /// again.
    pub fn flush(&mut self) -> u64 {
        if let Err(error) = self.finish() {
            end_process(&error);
        }
        self.durable
    }

    fn finish(&mut self) -> Result<(), JournalError> {
        while self.durable < self.position {
            self.submit();
            let done = match &mut self.engine {
                Engine::Thread(thread) => thread.wait_done(),
                Engine::Driven(driven) => {
                    driven.run()?;
                    driven.done.take().expect("a batch was submitted")
                }
            };
            self.note(done);
        }
        Ok(())
    }

    /// Does what the threads of a driven journal would do next: writes the batch in flight, then prepares a segment if
    /// one is ordered.
    ///
    /// # Errors
    /// Where the process would end. The journal must be dropped then.
    pub fn drive(&mut self) -> Result<(), JournalError> {
        if let Engine::Driven(driven) = &mut self.engine {
            driven.run()?;
            self.preparer.attempt()?;
        }
        Ok(())
    }

    /// What it has done since it was opened.
    #[must_use]
    pub fn statistics(&self) -> JournalStatistics {
        JournalStatistics { segment_bytes_left: self.bytes_left, prepared: self.preparer.ready_bytes() > 0, ..self.statistics }
    }
}

impl Driven {
    fn run(&mut self) -> Result<(), JournalError> {
        if let Some(job) = self.job.take() {
            self.done = Some(job.run(&mut self.writer)?);
        }
        Ok(())
    }
}

/// Whether a journal's segments are there from the first one on.
///
/// # Errors
/// [`JournalError::Missing`] or [`JournalError::Io`].
pub fn is_whole(storage: &dyn Storage) -> Result<bool, JournalError> {
    Ok(segment::numbers(storage)?.first().is_none_or(|first| *first == 1))
}

/// Which journal a folder holds, by the first segment that is there.
///
/// # Errors
/// [`JournalError::Missing`], [`JournalError::Damaged`] or [`JournalError::Io`].
pub fn identity(storage: &dyn Storage) -> Result<Identity, JournalError> {
    let numbers = segment::numbers(storage)?;
    let first = numbers.first().ok_or_else(|| JournalError::Missing { folder: storage.place("") })?;
    Ok(Segment::open(storage, *first, Access::Read, None, 0)?.1)
}

fn lock(storage: &dyn Storage) -> Result<Box<dyn Any + Send>, JournalError> {
    match storage.lock() {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(JournalError::Locked { folder: storage.place("") }),
        Err(error) => Err(JournalError::Io { action: "lock", file: storage.place(""), error }),
    }
}

/// Before anything is made in a folder that is not a journal's.
fn refuse_missing(storage: &dyn Storage) -> Result<(), JournalError> {
    if segment::names(storage)?.iter().any(|name| segment_number(name).is_some()) {
        return Ok(());
    }
    Err(JournalError::Missing { folder: storage.place("") })
}

/// The first segment is made last, so that an interrupted creation can be repeated.
fn create_segment(storage: &dyn Storage, identity: Identity, options: &Options) -> Result<(), JournalError> {
    options.check()?;
    let names = segment::names(storage)?;
    // Snapshots of a journal that was there before would be taken for this one's.
    if names.iter().any(|name| segment_number(name).is_some() || name.ends_with(SNAPSHOT)) {
        return Err(JournalError::Exists { folder: storage.place("") });
    }
    for name in names.iter().filter(|name| name.ends_with(UNFINISHED)) {
        storage.remove(name).map_err(|error| JournalError::Io { action: "remove", file: storage.place(name), error })?;
    }
    mark::DurableMark::create(storage)?;
    Segment::create(storage, identity, 1, options.segment_bytes)?;
    Ok(())
}
