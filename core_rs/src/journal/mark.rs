//! The durable mark: a small file that tells other processes, and the next start, up to where the journal is durable.
//!
//! **Always:** it is never ahead of the truth. The writer notes a position after the batch is on disk and before anyone
//! is told of it, so whatever was acknowledged is at or before the mark, as long as the machine itself stayed up.
//!
//! **How:** identity, position and the position's complement, 32 bytes in one sector, overwritten in place through the
//! page cache and never forced: after a power cut it may be old, which is safe. Both copies are read and the lower one
//! is believed, so neither a read in the middle of a write nor a flipped bit can put it ahead.

use std::path::Path;
use std::sync::Arc;

use super::error::JournalError;
use super::format::{BLOCK_BYTES, Identity};
use super::names::UNFINISHED;
use super::storage::{Access, File, FolderStorage, Storage};

/// Name of the file.
pub(super) const MARK_NAME: &str = "durable";
const MARK_BYTES: usize = 32;

/// The mark of one journal.
pub struct DurableMark {
    file: Arc<dyn File>,
    place: String,
}

impl DurableMark {
    /// Opens the mark of the journal in `folder`, for reading.
    ///
    /// # Errors
    /// [`JournalError::Io`] when there is none yet.
    pub fn open(folder: &Path) -> Result<Self, JournalError> {
        Self::open_on(&FolderStorage::new(folder))
    }

    /// Opens the mark in any storage, for reading.
    ///
    /// # Errors
    /// [`JournalError::Io`] when there is none yet.
    pub fn open_on(storage: &dyn Storage) -> Result<Self, JournalError> {
        Self::open_with(storage, Access::CachedRead)
    }

    /// Opens the mark to read and write it.
    pub(super) fn open_to_store(storage: &dyn Storage) -> Result<Self, JournalError> {
        Self::open_with(storage, Access::Cached)
    }

    fn open_with(storage: &dyn Storage, access: Access) -> Result<Self, JournalError> {
        let place = storage.place(MARK_NAME);
        match storage.open(MARK_NAME, access) {
            Ok(file) => Ok(Self { file, place }),
            Err(error) => Err(JournalError::Io { action: "open", file: place, error }),
        }
    }

    /// Makes an empty mark and opens it.
    pub(super) fn create(storage: &dyn Storage) -> Result<Self, JournalError> {
        let unfinished = format!("{MARK_NAME}{UNFINISHED}");
        storage
            .create_zeroed(&unfinished, BLOCK_BYTES as u64)
            .and_then(|()| storage.rename(&unfinished, MARK_NAME))
            .map_err(|error| JournalError::Io { action: "create", file: storage.place(MARK_NAME), error })?;
        Self::open_to_store(storage)
    }

    /// The position up to which the journal `identity` is durable; 0 when nothing has been noted.
    ///
    /// # Errors
    /// [`JournalError::Io`], or [`JournalError::Damaged`] when the mark is another journal's.
    pub fn load(&self, identity: Identity) -> Result<u64, JournalError> {
        let mut bytes = [0; MARK_BYTES];
        self.file.read(0, &mut bytes).map_err(|error| JournalError::Io { action: "read", file: self.place.clone(), error })?;
        let (noted, positions) = bytes.split_at(size_of::<Identity>());
        if noted.iter().all(|byte| *byte == 0) {
            return Ok(0);
        }
        if noted != identity {
            return Err(JournalError::Damaged {
                file: self.place.clone(),
                offset: 0,
                position: 0,
                cause: "the mark belongs to another journal".to_owned(),
            });
        }
        let mut copies = positions.chunks_exact(8).map(|copy| {
            let mut position = [0; 8];
            position.copy_from_slice(copy);
            u64::from_le_bytes(position)
        });
        let position = copies.next().unwrap_or(0);
        let complement = copies.next().unwrap_or(u64::MAX);
        Ok(position.min(!complement))
    }

    /// Notes that everything up to `position` is durable.
    pub(super) fn store(&self, identity: Identity, position: u64) -> Result<(), JournalError> {
        let mut bytes = [0; MARK_BYTES];
        bytes[..16].copy_from_slice(&identity);
        bytes[16..24].copy_from_slice(&position.to_le_bytes());
        bytes[24..].copy_from_slice(&(!position).to_le_bytes());
        self.file.write(0, &bytes).map_err(|error| JournalError::Io { action: "write", file: self.place.clone(), error })
    }
}
