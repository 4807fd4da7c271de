//! Filling a batch, writing it, and the thread that does the writing.
//!
//! **Always:** one batch is written at a time, and the next only when it is on disk, because [`super::recovery`] rests
//! on that. The durable mark is noted after the sync and before anyone is told. A failed write ends the process: the
//! kernel may have dropped the pages and a second attempt could succeed without them, so there is none, and no reply
//! that waits for the batch leaves.
//!
//! **How:** [`BatchWriter`] does the work and returns errors; [`WriterThread`] runs one on a thread of its own and
//! turns an error into the end of the process. The two batches of the journal change hands through a slot. Sealing
//! (padding, hash) is done on this side, off the thread that decides.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rustix::event::{EventfdFlags, eventfd};

use super::aligned::AlignedBuffer;
use super::error::JournalError;
use super::format::{
    BLOCK_BYTES, Chain, HEAD_BYTES, Identity, RECORD_OVERHEAD_BYTES, extent_bytes, put_record, seal_batch, seal_footer,
};
use super::mark::DurableMark;
use super::names::segment_name;
use super::segment::{BLOCK, Segment};
use super::storage::Storage;

/// Exit code of a process that could not write its journal: `EX_IOERR` of sysexits.h.
const EXIT_CODE_IO: i32 = 74;

/// Records that will be written as one batch.
pub(super) struct FillingBatch {
    buffer: AlignedBuffer,
    bytes_initial: usize,
    payload_bytes: usize,
    records: u32,
}

impl FillingBatch {
    /// An empty batch with room for this payload without growing.
    pub(super) fn new(payload_bytes: usize) -> Self {
        let bytes_initial = extent_bytes(payload_bytes as u64) as usize;
        Self { buffer: AlignedBuffer::new(bytes_initial), bytes_initial, payload_bytes: 0, records: 0 }
    }

    /// Appends a record; grows when it must.
    pub(super) fn append(&mut self, record: &[u8]) {
        let start = HEAD_BYTES + self.payload_bytes;
        let end = start + RECORD_OVERHEAD_BYTES + record.len();
        if end > self.buffer.capacity() {
            self.buffer.grow(end.max(2 * self.buffer.capacity()), start);
        }
        put_record(self.buffer.as_mut_slice(), start, record);
        self.payload_bytes = end - HEAD_BYTES;
        self.records += 1;
    }

    /// Makes room for so much more payload at once.
    pub(super) fn reserve(&mut self, payload_bytes: usize) {
        self.buffer.grow(self.extent_with(payload_bytes) as usize, HEAD_BYTES + self.payload_bytes);
    }

    /// Whether it holds no record.
    pub(super) fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Bytes of its records with their lengths.
    pub(super) fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    /// Bytes that it takes in a segment if `more` bytes of payload are added.
    pub(super) fn extent_with(&self, more: usize) -> u64 {
        extent_bytes((self.payload_bytes + more) as u64)
    }

    /// Empties it for the next use, giving back what an unusually large batch needed.
    fn clear(&mut self) {
        self.payload_bytes = 0;
        self.records = 0;
        if self.buffer.capacity() > self.bytes_initial {
            self.buffer = AlignedBuffer::new(self.bytes_initial);
        }
    }

    fn seal(&mut self, chain: &Chain) -> (&[u8], Chain) {
        let extent = self.extent_with(0) as usize;
        self.buffer.grow(extent, HEAD_BYTES + self.payload_bytes);
        let bytes = &mut self.buffer.as_mut_slice()[..extent];
        let chain = seal_batch(bytes, self.payload_bytes, self.records, chain);
        (bytes, chain)
    }
}

/// Writes batches one after another to the end of the journal.
pub(super) struct BatchWriter {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) identity: Identity,
    pub(super) segment: Segment,
    pub(super) offset: u64,
    pub(super) chain: Chain,
    pub(super) mark: DurableMark,
}

impl BatchWriter {
    /// Writes the batch, so that it is durable on return, and notes that. With `next`, seals the segment first and
    /// begins that one. On an error the writer must not be used again: what is on disk is then for the next start to
    /// find out.
    pub(super) fn write(&mut self, batch: &mut FillingBatch, next: Option<Segment>) -> Result<(), JournalError> {
        if let Some(next) = next {
            self.seal_segment(next)?;
        }
        let (bytes, chain) = batch.seal(&self.chain);
        assert!(self.offset + bytes.len() as u64 + BLOCK <= self.segment.bytes, "the batch and a footer must fit the segment");
        self.segment.file.write(self.offset, bytes).map_err(|error| self.failed(error))?;
        self.offset += bytes.len() as u64;
        self.chain = chain;
        self.mark.store(self.identity, chain.position)
    }

    fn seal_segment(&mut self, next: Segment) -> Result<(), JournalError> {
        assert_eq!(next.number, self.segment.number + 1, "segments follow each other without gaps");
        let mut block = AlignedBuffer::new(BLOCK_BYTES);
        seal_footer(block.as_mut_slice(), self.segment.number, &self.chain);
        self.segment.file.write(self.offset, block.as_slice()).map_err(|error| self.failed(error))?;
        self.segment = next;
        self.offset = BLOCK;
        Ok(())
    }

    fn failed(&self, error: std::io::Error) -> JournalError {
        JournalError::Io { action: "write", file: self.storage.place(&segment_name(self.segment.number)), error }
    }
}

/// A batch on its way to the disk, with the segment to begin if it is the first one there.
pub(super) struct Job {
    pub(super) batch: FillingBatch,
    pub(super) next: Option<Segment>,
}

/// A batch that is durable; the buffer comes back empty.
pub(super) struct Done {
    pub(super) batch: FillingBatch,
    pub(super) bytes: u64,
    pub(super) position: u64,
    pub(super) nanoseconds: u64,
}

impl Job {
    /// Does the work of the writer thread, on any thread.
    pub(super) fn run(self, writer: &mut BatchWriter) -> Result<Done, JournalError> {
        let Self { mut batch, next } = self;
        let bytes = batch.extent_with(0);
        let begun = Instant::now();
        writer.write(&mut batch, next)?;
        let nanoseconds = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        batch.clear();
        Ok(Done { batch, bytes, position: writer.chain.position, nanoseconds })
    }
}

struct Slot {
    job: Option<Job>,
    done: Option<Done>,
    stopped: bool,
}

struct Shared {
    slot: Mutex<Slot>,
    work: Condvar,
    finished: Condvar,
    event: OwnedFd,
}

impl Shared {
    fn slot(&self) -> MutexGuard<'_, Slot> {
        // A panic of the writer aborts the process, so a poisoned slot can only be the owner's own, on its way down.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a [`BatchWriter`]. Dropping it waits for the batch in flight.
pub(super) struct WriterThread {
    shared: Arc<Shared>,
    /// Completions taken whose event has not been read yet: it may come a moment after them.
    events_owed: u64,
    thread: Option<JoinHandle<()>>,
}

impl WriterThread {
    pub(super) fn start(writer: BatchWriter) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            slot: Mutex::new(Slot { job: None, done: None, stopped: false }),
            work: Condvar::new(),
            finished: Condvar::new(),
            event: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
        });
        let its = Arc::clone(&shared);
        let thread = thread::Builder::new().name("journal".to_owned()).spawn(move || {
            let _abort = AbortOnPanic;
            write_batches(writer, &its);
        })?;
        Ok(Self { shared, events_owed: 0, thread: Some(thread) })
    }

    pub(super) fn event(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }

    /// Hands over a batch; the one before must have been taken back.
    pub(super) fn submit(&self, job: Job) {
        let mut slot = self.shared.slot();
        assert!(slot.job.is_none() && slot.done.is_none(), "one batch is in flight at a time");
        slot.job = Some(job);
        drop(slot);
        self.shared.work.notify_one();
    }

    /// Takes the batch back if it is durable, and resets the event.
    pub(super) fn take_done(&mut self) -> Option<Done> {
        let done = self.shared.slot().done.take();
        self.settle_events(done.is_some());
        done
    }

    /// Waits until the batch in flight is durable and takes it back.
    pub(super) fn wait_done(&mut self) -> Done {
        let mut slot = self.shared.slot();
        loop {
            if let Some(done) = slot.done.take() {
                drop(slot);
                self.settle_events(true);
                return done;
            }
            slot = self.shared.finished.wait(slot).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The event of a batch is written just after the batch can be taken. It is read here, or at the next call, but
    /// never lost: left standing it would keep a level-triggered epoll awake.
    fn settle_events(&mut self, taken: bool) {
        self.events_owed += u64::from(taken);
        if self.events_owed > 0 {
            let mut count = [0; 8];
            if let Ok(8) = rustix::io::read(&self.shared.event, &mut count) {
                self.events_owed = self.events_owed.saturating_sub(u64::from_ne_bytes(count));
            }
        }
    }
}

impl Drop for WriterThread {
    fn drop(&mut self) {
        self.shared.slot().stopped = true;
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take() {
            // Its panic would have aborted the process.
            drop(thread.join());
        }
    }
}

fn write_batches(mut writer: BatchWriter, shared: &Shared) {
    loop {
        let mut slot = shared.slot();
        let job = loop {
            if let Some(job) = slot.job.take() {
                break job;
            }
            if slot.stopped {
                return;
            }
            slot = shared.work.wait(slot).unwrap_or_else(PoisonError::into_inner);
        };
        drop(slot);
        let done = job.run(&mut writer).unwrap_or_else(|error| end_process(&error));
        shared.slot().done = Some(done);
        shared.finished.notify_one();
        let told = rustix::io::write(&shared.event, &1_u64.to_ne_bytes());
        assert!(told.is_ok(), "an event counter far from its bound takes one more");
    }
}

/// Ends the process because the journal cannot be written.
pub(super) fn end_process(error: &JournalError) -> ! {
    eprintln!("{error}; the switch stops, because what it decides can no longer be made durable");
    std::process::exit(EXIT_CODE_IO)
}

/// Half a change must not live on, also in builds that unwind: a thread without its writer would wait for ever.
pub(super) struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            std::process::abort();
        }
    }
}
