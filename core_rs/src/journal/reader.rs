//! Reading a journal while its switch runs: the follower's side.
//!
//! **Always:** a reader changes nothing and takes no lock. It looks only at batches that end at or before a durable
//! position given by the caller, so whatever it finds wrong there is damage, not a write in progress.
//!
//! **How:** it reads ahead in large pieces. A piece is believed up to the position that was durable when it was read;
//! for more it is read again.

use std::path::Path;
use std::sync::Arc;

use super::error::JournalError;
use super::format::{Hash, Identity, Records};
use super::segment::{Bookmark, Step, Walk};
use super::storage::{FolderStorage, Storage};

/// Reads batches in order, from the first one or from a bookmark on.
pub struct Reader {
    walk: Walk,
    /// What was durable when the window was filled.
    durable: u64,
}

/// A verified batch.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// 1 for the journal's first batch, then without gaps.
    pub sequence: u64,
    /// Position of its first record.
    pub first_position: u64,
    /// Position of its last record.
    pub last_position: u64,
    head: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Batch<'a> {
    /// Its records in order: position and content.
    #[must_use]
    pub fn records(&self) -> Records<'a> {
        Records::new(self.payload, self.first_position)
    }

    /// The bytes before its payload, as they stand in the segment: its hash first, which covers all the others, the payload
    /// and the padding.
    #[must_use]
    pub fn head(&self) -> &'a [u8] {
        self.head
    }

    /// Its records with their lengths, as [`Records::new`] takes them.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

impl Reader {
    /// Opens the journal in `folder` before its first batch.
    ///
    /// # Errors
    /// [`JournalError::Io`] or [`JournalError::Damaged`] when its first segment cannot be read.
    pub fn open(folder: &Path) -> Result<Self, JournalError> {
        Self::open_on(Arc::new(FolderStorage::new(folder)), None)
    }

    /// Opens a journal in any storage, before its first batch or at a bookmark.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn open_on(storage: Arc<dyn Storage>, from: Option<&Bookmark>) -> Result<Self, JournalError> {
        Ok(Self { walk: Walk::start(storage, from)?, durable: 0 })
    }

    /// Bytes of the segment that is being read.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.walk.segment.bytes
    }

    /// Where it stands: between the last batch returned and the next.
    #[must_use]
    pub fn bookmark(&self) -> Bookmark {
        self.walk.bookmark()
    }

    /// The journal that this is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.walk.identity
    }

    /// Position of the last record returned; 0 before the first.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.walk.chain.position
    }

    /// Hash of the last batch returned, which fixes the whole history before it.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.walk.chain.hash
    }

    /// The next batch, or `None` when all records up to `durable` have been returned. `durable` is a position that the
    /// [`super::DurableMark`] or the journal itself has given.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] or [`JournalError::Io`]; the reader stays where it is.
    pub fn next_batch(&mut self, durable: u64) -> Result<Option<Batch<'_>>, JournalError> {
        if self.walk.chain.position >= durable {
            return Ok(None);
        }
        if self.walk.chain.position >= self.durable {
            self.walk.refresh();
            self.durable = durable;
        }
        let found = loop {
            match self.walk.step()? {
                Step::Batch(found) => break found,
                Step::Sealed => {
                    self.walk.enter_next()?;
                    self.durable = durable;
                }
                Step::Blank | Step::Torn(_) => {
                    return Err(self.walk.damaged(format!("the batch is not whole, but record {durable} is durable")));
                }
                Step::Damaged(cause) => return Err(self.walk.damaged(cause)),
            }
        };
        Ok(Some(Batch {
            sequence: found.head.sequence,
            first_position: found.head.first_position,
            last_position: self.walk.chain.position,
            head: self.walk.head(&found),
            payload: self.walk.payload(&found),
        }))
    }
}
