//! A folder in memory, for tests and the simulator: it can be full, copied as the next process would find it, altered
//! at will, and it can crash in the middle of any write, keeping any choice of that write's sectors.

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::format::{BLOCK_BYTES, SECTOR_BYTES};
use super::storage::{Access, File, NewFile, Storage};

type Keep = Box<dyn FnMut(usize) -> bool + Send>;

/// The folder. Clones share it.
#[derive(Clone)]
pub struct MemoryStorage {
    disk: Arc<Mutex<Disk>>,
}

struct Disk {
    files: BTreeMap<String, usize>,
    /// Contents by inode: a file stays readable under an open handle when its name goes.
    contents: Vec<Vec<u8>>,
    bytes_max: u64,
    changes: u64,
    crash_at: Option<(u64, Keep)>,
    crashed: bool,
    lock: Arc<()>,
}

impl MemoryStorage {
    /// An empty folder on a disk of this size.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        Self::with(BTreeMap::new(), Vec::new(), bytes_max)
    }

    fn with(files: BTreeMap<String, usize>, contents: Vec<Vec<u8>>, bytes_max: u64) -> Self {
        let disk = Disk { files, contents, bytes_max, changes: 0, crash_at: None, crashed: false, lock: Arc::new(()) };
        Self { disk: Arc::new(Mutex::new(disk)) }
    }

    /// The disk as it is now, unlocked and working again: what the next process finds.
    #[must_use]
    pub fn reopened(&self) -> Self {
        let disk = self.disk();
        Self::with(disk.files.clone(), disk.contents.clone(), disk.bytes_max)
    }

    /// Changes made so far: durable writes, creations, renames and removals.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.disk().changes
    }

    /// Fails the change after `changes` more. If it is a durable write, the sectors (counted from 0 within the write)
    /// for which `keep` is true reach the disk; any other change does not happen. From then on everything fails.
    pub fn crash_after(&self, changes: u64, keep: impl FnMut(usize) -> bool + Send + 'static) {
        let mut disk = self.disk();
        disk.crash_at = Some((disk.changes + changes, Box::new(keep)));
    }

    /// Sets the size of the disk in bytes.
    pub fn resize(&self, bytes_max: u64) {
        self.disk().bytes_max = bytes_max;
    }

    /// Alters a file behind the journal's back; false if there is none of that name.
    pub fn alter(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut disk = self.disk();
        let Some(&inode) = disk.files.get(name) else { return false };
        change(&mut disk.contents[inode]);
        true
    }

    /// Bytes of a file; `None` if there is none of that name.
    #[must_use]
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let disk = self.disk();
        disk.files.get(name).map(|&inode| disk.contents[inode].clone())
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        // A test that failed elsewhere must not hide its message behind a poisoned lock.
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk {
    fn inode(&self, name: &str) -> io::Result<usize> {
        self.files.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn used(&self) -> u64 {
        self.files.values().map(|&inode| self.contents[inode].len() as u64).sum()
    }

    fn check(&self) -> io::Result<()> {
        if self.crashed { Err(crash()) } else { Ok(()) }
    }

    /// Counts one change; the error is the crash that hits it.
    fn change(&mut self) -> io::Result<()> {
        self.check()?;
        self.changes += 1;
        if self.crash_at.as_ref().is_some_and(|(at, _)| *at < self.changes) {
            self.crashed = true;
            return Err(crash());
        }
        Ok(())
    }
}

fn crash() -> io::Error {
    io::Error::other("the simulated disk has crashed")
}

impl Storage for MemoryStorage {
    fn place(&self, name: &str) -> String {
        format!("memory/{name}")
    }

    fn mode(&self) -> &'static str {
        "memory"
    }

    fn lock(&self) -> io::Result<Option<Box<dyn Any + Send>>> {
        let disk = self.disk();
        let free = Arc::strong_count(&disk.lock) == 1;
        Ok(free.then(|| -> Box<dyn Any + Send> { Box::new(Arc::clone(&disk.lock)) }))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let disk = self.disk();
        disk.check()?;
        Ok(disk.files.keys().cloned().collect())
    }

    fn create_zeroed(&self, name: &str, bytes: u64) -> io::Result<()> {
        let mut disk = self.disk();
        disk.change()?;
        if disk.used() + bytes > disk.bytes_max {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = disk.contents.len();
        disk.contents.push(vec![0; usize::try_from(bytes).map_err(io::Error::other)?]);
        disk.files.insert(name.to_owned(), inode);
        Ok(())
    }

    fn room(&self) -> io::Result<u64> {
        let disk = self.disk();
        disk.check()?;
        Ok(disk.bytes_max.saturating_sub(disk.used()))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn NewFile>> {
        let mut disk = self.disk();
        disk.change()?;
        let inode = disk.contents.len();
        disk.contents.push(Vec::new());
        disk.files.insert(name.to_owned(), inode);
        drop(disk);
        Ok(Box::new(NewMemoryFile { storage: self.clone(), inode }))
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>> {
        let disk = self.disk();
        disk.check()?;
        let inode = disk.inode(name)?;
        Ok(Arc::new(MemoryFile { storage: self.clone(), inode, access }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.change()?;
        let inode = disk.inode(from)?;
        disk.files.remove(from);
        disk.files.insert(to.to_owned(), inode);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.change()?;
        let inode = disk.inode(name)?;
        disk.files.remove(name);
        drop(std::mem::take(&mut disk.contents[inode]));
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        self.disk().check()
    }
}

struct NewMemoryFile {
    storage: MemoryStorage,
    inode: usize,
}

impl NewFile for NewMemoryFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.storage.disk();
        disk.change()?;
        if disk.used() + bytes.len() as u64 > disk.bytes_max {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.contents[self.inode].extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        self.storage.disk().change()
    }
}

struct MemoryFile {
    storage: MemoryStorage,
    inode: usize,
    access: Access,
}

impl MemoryFile {
    fn range(&self, disk: &Disk, offset: u64, bytes: &[u8]) -> io::Result<std::ops::Range<usize>> {
        if matches!(self.access, Access::Read | Access::Durable) {
            let block = BLOCK_BYTES as u64;
            assert!(
                offset.is_multiple_of(block)
                    && bytes.len().is_multiple_of(BLOCK_BYTES)
                    && bytes.as_ptr().addr().is_multiple_of(BLOCK_BYTES),
                "direct I/O would refuse this"
            );
        }
        let start = offset as usize;
        let end = start + bytes.len();
        if end > disk.contents[self.inode].len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(start..end)
    }
}

impl File for MemoryFile {
    fn bytes(&self) -> io::Result<u64> {
        let disk = self.storage.disk();
        disk.check()?;
        Ok(disk.contents[self.inode].len() as u64)
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let disk = self.storage.disk();
        disk.check()?;
        let range = self.range(&disk, offset, into)?;
        into.copy_from_slice(&disk.contents[self.inode][range]);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.storage.disk();
        let range = self.range(&disk, offset, bytes)?;
        match self.access {
            Access::Read | Access::CachedRead => {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            Access::Cached => disk.check()?,
            Access::Durable => {
                disk.check()?;
                if let Err(error) = disk.change() {
                    let Some((_, mut keep)) = disk.crash_at.take() else { return Err(error) };
                    let content = &mut disk.contents[self.inode][range];
                    let sectors = content.chunks_exact_mut(SECTOR_BYTES).zip(bytes.chunks_exact(SECTOR_BYTES));
                    for (sector, (old, new)) in sectors.enumerate() {
                        if keep(sector) {
                            old.copy_from_slice(new);
                        }
                    }
                    return Err(error);
                }
            }
        }
        disk.contents[self.inode][range].copy_from_slice(bytes);
        Ok(())
    }
}
