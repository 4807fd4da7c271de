//! Prepares the next segment before it is needed, so that neither a decision nor a sync waits for it.
//!
//! **Always:** a segment that is ready is whole and on disk, so a batch that was promised its room will find it. At
//! most one is ready, the one after the segment in use. A full disk is no failure: the attempt is repeated now and
//! then, and until one succeeds the journal says that it has no room. Any other failure ends the process like a failed
//! write.
//!
//! **How:** orders and the ready segment stand in one slot between the owner's thread and a thread of low priority.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::error::JournalError;
use super::format::Identity;
use super::segment::{BLOCK, Segment};
use super::storage::Storage;
use super::writer::{AbortOnPanic, end_process};
use crate::limits::JOURNAL_PREPARE_RETRY_MILLISECONDS;

/// The niceness of the thread: as low as it goes.
const NICE: i32 = 19;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Order {
    number: u64,
    bytes: u64,
}

struct Slot {
    order: Option<Order>,
    ready: Option<Segment>,
    /// Whether the disk was full when the order was last tried.
    is_refused: bool,
    /// Whether an attempt is under way. It ends in a rename to the next segment's name, so that segment is not given
    /// out meanwhile: the rename would take the file from under its writer.
    is_busy: bool,
    stopped: bool,
}

impl Slot {
    fn ready_bytes(&self) -> u64 {
        self.ready.as_ref().map_or(0, |segment| segment.bytes)
    }

    /// Replaces the order; the new one has not been tried.
    fn place(&mut self, order: Option<Order>) {
        self.order = order;
        self.is_refused = false;
    }
}

struct Shared {
    storage: Arc<dyn Storage>,
    identity: Identity,
    slot: Mutex<Slot>,
    changed: Condvar,
    /// Bytes for batches and a footer in the ready segment; 0 when none is ready. Only the owner's thread takes it
    /// away.
    ready_bytes: AtomicU64,
}

/// The owner's handle.
pub(super) struct Preparer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Preparer {
    /// Without a thread: orders are carried out by [`Self::attempt`].
    pub(super) fn new(storage: Arc<dyn Storage>, identity: Identity, ready: Option<Segment>) -> Self {
        let shared = Shared {
            storage,
            identity,
            ready_bytes: AtomicU64::new(ready.as_ref().map_or(0, |segment| segment.bytes - BLOCK)),
            slot: Mutex::new(Slot { order: None, ready, is_refused: false, is_busy: false, stopped: false }),
            changed: Condvar::new(),
        };
        Self { shared: Arc::new(shared), thread: None }
    }

    /// Starts the thread.
    pub(super) fn start(&mut self) -> std::io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name("journal-prepare".to_owned()).spawn(move || {
            let _abort = AbortOnPanic;
            // Best effort: at normal priority it still works.
            let _ = rustix::process::setpriority_process(None, NICE);
            prepare_segments(&shared);
        })?;
        self.thread = Some(thread);
        Ok(())
    }

    /// Bytes that the ready segment has for batches and its footer; 0 when none is ready.
    pub(super) fn ready_bytes(&self) -> u64 {
        self.shared.ready_bytes.load(Ordering::Acquire)
    }

    /// Takes the ready segment and orders its successor of this size.
    pub(super) fn take(&self, bytes_next: u64) -> Segment {
        let mut slot = self.shared.slot();
        assert!(!slot.is_busy, "a segment is not replaced once it may be in use");
        let segment = slot.ready.take().expect("the owner has seen it ready");
        self.shared.ready_bytes.store(0, Ordering::Release);
        slot.place(Some(Order { number: segment.number + 1, bytes: bytes_next }));
        drop(slot);
        self.shared.changed.notify_all();
        segment
    }

    /// Orders a segment. One that is ready stays ready until a larger one replaces it.
    pub(super) fn order(&self, number: u64, bytes: u64) {
        let order = Order { number, bytes };
        let mut slot = self.shared.slot();
        if slot.ready_bytes() < bytes && slot.order != Some(order) {
            slot.place(Some(order));
            drop(slot);
            self.shared.changed.notify_all();
        }
    }

    /// Orders a segment and waits for it. If the disk is full for it, orders one of `bytes_otherwise` instead, does not
    /// wait for that, and returns false.
    pub(super) fn order_and_wait(&self, number: u64, bytes: u64, bytes_otherwise: u64) -> Result<bool, JournalError> {
        self.order(number, bytes);
        if self.thread.is_none() {
            self.attempt()?;
        }
        let mut slot = self.shared.slot();
        while slot.is_busy || (slot.ready_bytes() < bytes && !slot.is_refused) {
            slot = self.shared.changed.wait(slot).unwrap_or_else(PoisonError::into_inner);
        }
        if slot.ready_bytes() >= bytes {
            return Ok(true);
        }
        // A segment that is ready may be given out from now on, so nothing may replace it.
        let otherwise = Order { number, bytes: bytes_otherwise };
        if slot.ready.is_some() {
            slot.place(None);
        } else if slot.order != Some(otherwise) {
            slot.place(Some(otherwise));
        }
        drop(slot);
        self.shared.changed.notify_all();
        Ok(false)
    }

    /// Carries out a pending order on this thread, if the disk has room for it.
    pub(super) fn attempt(&self) -> Result<(), JournalError> {
        self.shared.attempt()
    }
}

impl Drop for Preparer {
    fn drop(&mut self) {
        self.shared.slot().stopped = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // Its panic would have aborted the process.
            drop(thread.join());
        }
    }
}

impl Shared {
    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attempt(&self) -> Result<(), JournalError> {
        let mut slot = self.slot();
        let Some(order) = slot.order else { return Ok(()) };
        slot.is_busy = true;
        drop(slot);
        let created = Segment::create(&*self.storage, self.identity, order.number, order.bytes);
        let mut slot = self.slot();
        slot.is_busy = false;
        match created {
            // An order changed in the meantime stays pending, and its file will replace this one.
            Ok(segment) if slot.order == Some(order) => {
                self.ready_bytes.store(segment.bytes - BLOCK, Ordering::Release);
                slot.ready = Some(segment);
                slot.place(None);
            }
            Ok(_) => {}
            Err(JournalError::NoSpace { .. }) => {
                slot.is_refused = slot.order == Some(order);
            }
            Err(error) => return Err(error),
        }
        drop(slot);
        self.changed.notify_all();
        Ok(())
    }
}

fn prepare_segments(shared: &Shared) {
    let retry = Duration::from_millis(JOURNAL_PREPARE_RETRY_MILLISECONDS);
    let mut slot = shared.slot();
    while !slot.stopped {
        if slot.order.is_none() {
            slot = shared.changed.wait(slot).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        drop(slot);
        if let Err(error) = shared.attempt() {
            end_process(&error);
        }
        slot = shared.slot();
        if slot.is_refused {
            let waited = shared.changed.wait_timeout_while(slot, retry, |slot| !slot.stopped && slot.is_refused);
            slot = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
