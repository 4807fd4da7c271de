//! The files under the journal, as a trait: a folder on disk here, and its twin in memory ([`super::memory`]).
//!
//! **Always:** a write through [`Access::Durable`] has reached the disk when it returns, with everything needed to find
//! it again. A file made by [`Storage::create_zeroed`] is zero to its end and on disk; [`Storage::rename`] is on disk
//! when it returns. Offsets, lengths and memory of reads and durable writes are multiples of a block, as direct I/O
//! asks.
//!
//! **How:** `O_DIRECT|O_DSYNC` where the file system takes it, tried by writing once, else plain writes, each followed
//! by `fdatasync`. Segments are filled with real zeros before use: a write into a merely allocated extent would have to
//! convert it first.

use std::any::Any;
use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, FlockOperation, OFlags, fallocate, flock, statvfs};

use super::aligned::AlignedBuffer;
use super::format::BLOCK_BYTES;
use super::names::segment_number;

/// Bytes zeroed by one write when a segment is prepared: small, so that a batch waits behind little of it.
const ZERO_CHUNK_BYTES: usize = 256 << 10;
/// Bytes gathered before a new file is written to, and those that may wait for a sync.
const NEW_FILE_BUFFER_BYTES: usize = 256 << 10;
const UNFORCED_BYTES_MAX: usize = 4 << 20;
const LOCK_NAME: &str = "lock";
const PROBE_NAME: &str = "probe.new";

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading only; reads are whole blocks into aligned memory.
    Read,
    /// Reading, and writes that are on disk when they return; whole blocks from aligned memory.
    Durable,
    /// Reading and writing of any bytes, through the page cache; nothing is forced to disk.
    Cached,
    /// Reading of any bytes, through the page cache.
    CachedRead,
}

/// One open file.
pub trait File: Send + Sync {
    /// Its size in bytes.
    ///
    /// # Errors
    /// The operating system's.
    fn bytes(&self) -> io::Result<u64>;

    /// Fills `into` from `offset`; a file that ends before is an error.
    ///
    /// # Errors
    /// The operating system's.
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`; on disk on return if the file was opened so.
    ///
    /// # Errors
    /// The operating system's. What the file then holds there is unknown.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
}

/// A file that is written from its start to its end.
pub trait NewFile {
    /// Adds bytes of any number.
    ///
    /// # Errors
    /// The operating system's. The file is of no use then.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Forces all of it to disk.
    ///
    /// # Errors
    /// The operating system's. The file is of no use then.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// A flat folder of files.
pub trait Storage: Send + Sync {
    /// How the file is named to an operator; the folder itself for an empty name.
    fn place(&self, name: &str) -> String;

    /// How durable writes are made, for reports.
    fn mode(&self) -> &'static str;

    /// Takes the one lock of the folder until the guard is dropped; `None` when another holds it.
    ///
    /// # Errors
    /// The operating system's.
    fn lock(&self) -> io::Result<Option<Box<dyn Any + Send>>>;

    /// Names of all files.
    ///
    /// # Errors
    /// The operating system's.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Makes a file of `bytes` zeros, durably; replaces one of that name.
    ///
    /// # Errors
    /// The operating system's; of kind `StorageFull` before anything is written when there is no room.
    fn create_zeroed(&self, name: &str, bytes: u64) -> io::Result<()>;

    /// Bytes that files may still take.
    ///
    /// # Errors
    /// The operating system's.
    fn room(&self) -> io::Result<u64>;

    /// Makes an empty file to be written from its start; replaces one of that name.
    ///
    /// # Errors
    /// The operating system's.
    fn create(&self, name: &str) -> io::Result<Box<dyn NewFile>>;

    /// Opens an existing file.
    ///
    /// # Errors
    /// The operating system's.
    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>>;

    /// Renames durably; replaces a file of the new name.
    ///
    /// # Errors
    /// The operating system's.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file durably.
    ///
    /// # Errors
    /// The operating system's.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Brings to disk which names there are: those that a process before has made, given and removed as well.
    ///
    /// # Errors
    /// The operating system's.
    fn sync_names(&self) -> io::Result<()>;
}

/// A folder of the file system.
pub struct FolderStorage {
    folder: PathBuf,
    /// Where files are read that are not in the folder.
    archive: Option<PathBuf>,
    direct: AtomicBool,
}

impl FolderStorage {
    /// The storage in an existing folder, for reading. Writers call [`Self::probe`] first.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), archive: None, direct: AtomicBool::new(true) }
    }

    /// The storage in a folder, for reading, together with what was moved from it to an archive, if that is there.
    #[must_use]
    pub fn with_archive(folder: &Path, archive: Option<&Path>) -> Self {
        let archive = archive.filter(|archive| archive.is_dir()).map(Path::to_owned);
        Self { archive, ..Self::new(folder) }
    }

    /// Where a file is.
    fn path(&self, name: &str) -> PathBuf {
        let path = self.folder.join(name);
        match &self.archive {
            Some(archive) if !path.exists() && archive.join(name).exists() => archive.join(name),
            _ => path,
        }
    }

    /// The same without direct I/O, as if the file system did not take it.
    #[must_use]
    pub fn without_direct(folder: &Path) -> Self {
        let storage = Self::new(folder);
        storage.direct.store(false, Ordering::Relaxed);
        storage
    }

    /// Finds out by one small write whether the file system takes direct I/O. The caller holds the lock.
    ///
    /// # Errors
    /// The operating system's, but not its refusal of direct I/O.
    pub fn probe(&self) -> io::Result<()> {
        let path = self.folder.join(PROBE_NAME);
        let tried = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(flags(OFlags::DIRECT | OFlags::DSYNC))
            .open(&path)
            .and_then(|file| file.write_all_at(AlignedBuffer::new(BLOCK_BYTES).as_slice(), 0));
        let removed = fs::remove_file(&path);
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        match tried {
            Err(error) if refuses_direct(&error) => {
                self.direct.store(false, Ordering::Relaxed);
                Ok(())
            }
            // A full disk says nothing about direct I/O, and the journal can go on in the segments that it has.
            Err(error) if !is_full(&error) => Err(error),
            _ => Ok(()),
        }
    }

    fn is_direct(&self) -> bool {
        self.direct.load(Ordering::Relaxed)
    }

    fn fill_with_zeros(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let direct = if self.is_direct() { OFlags::DIRECT } else { OFlags::empty() };
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).custom_flags(flags(direct)).open(path)?;
        match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
        let zeros = AlignedBuffer::new(ZERO_CHUNK_BYTES);
        let mut offset = 0;
        while offset < bytes {
            let chunk = (bytes - offset).min(ZERO_CHUNK_BYTES as u64);
            file.write_all_at(&zeros.as_slice()[..chunk as usize], offset)?;
            offset += chunk;
        }
        file.sync_all()
    }

    fn sync_folder(&self) -> io::Result<()> {
        fs::File::open(&self.folder)?.sync_all()
    }
}

impl Storage for FolderStorage {
    fn place(&self, name: &str) -> String {
        if name.is_empty() { self.folder.display().to_string() } else { self.path(name).display().to_string() }
    }

    fn mode(&self) -> &'static str {
        if self.is_direct() { "O_DIRECT|O_DSYNC" } else { "pwrite+fdatasync" }
    }

    fn lock(&self) -> io::Result<Option<Box<dyn Any + Send>>> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(self.folder.join(LOCK_NAME))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = names_in(&self.folder)?;
        if let Some(archive) = &self.archive {
            // Only what lies before: an archive may also hold what a journal had that was put back from an older copy since.
            let first = names.iter().filter_map(|name| segment_number(name)).min().unwrap_or(0);
            names.extend(names_in(archive)?.into_iter().filter(|name| segment_number(name).is_some_and(|number| number < first)));
        }
        Ok(names)
    }

    fn room(&self) -> io::Result<u64> {
        let space = statvfs(&self.folder)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    fn create_zeroed(&self, name: &str, bytes: u64) -> io::Result<()> {
        // Asked first, so that trying again and again on a full disk does not take its last bytes from others each
        // time.
        if self.room()? < bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let path = self.folder.join(name);
        let filled = self.fill_with_zeros(&path, bytes);
        if filled.is_err() {
            // The first error is the one to report; a leftover is removed at the next start.
            drop(fs::remove_file(&path));
        }
        filled
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn NewFile>> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(self.folder.join(name))?;
        Ok(Box::new(NewFolderFile { file: BufWriter::with_capacity(NEW_FILE_BUFFER_BYTES, file), unforced: 0 }))
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>> {
        let path = self.path(name);
        let mut options = OpenOptions::new();
        options.read(true).write(matches!(access, Access::Durable | Access::Cached));
        if matches!(access, Access::Cached | Access::CachedRead) {
            let file = options.open(path)?;
            return Ok(Arc::new(FolderFile { file, sync: false }));
        }
        if self.is_direct() {
            let sync = if access == Access::Durable { OFlags::DSYNC } else { OFlags::empty() };
            // Some file systems take the flag and refuse the first read.
            let opened = options.clone().custom_flags(flags(OFlags::DIRECT | sync)).open(&path).and_then(|file| {
                file.read_at(AlignedBuffer::new(BLOCK_BYTES).as_mut_slice(), 0)?;
                Ok(file)
            });
            match opened {
                Ok(file) => return Ok(Arc::new(FolderFile { file, sync: false })),
                Err(error) if refuses_direct(&error) && access == Access::Read => {}
                Err(error) => return Err(error),
            }
        }
        let file = options.open(path)?;
        let sync = access == Access::Durable;
        Ok(Arc::new(FolderFile { file, sync }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.folder.join(from), self.folder.join(to))?;
        self.sync_folder()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.folder.join(name))?;
        self.sync_folder()
    }

    fn sync_names(&self) -> io::Result<()> {
        self.sync_folder()
    }
}

struct NewFolderFile {
    file: BufWriter<fs::File>,
    /// Bytes since the last sync.
    unforced: usize,
}

impl NewFile for NewFolderFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.unforced += bytes.len();
        if self.unforced >= UNFORCED_BYTES_MAX {
            // All at the end, it would stand before the journal's writes for as long as the disk takes.
            self.file.flush()?;
            self.file.get_ref().sync_data()?;
            self.unforced = 0;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        self.file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
    }
}

struct FolderFile {
    file: fs::File,
    /// Whether each write needs a sync of its own, as the file is not opened with `O_DSYNC`.
    sync: bool,
}

impl File for FolderFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)?;
        if self.sync { self.file.sync_data() } else { Ok(()) }
    }
}

/// Names of the files in a folder. One that is not UTF-8 is none of ours.
fn names_in(folder: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(folder)?.filter_map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).transpose()).collect()
}

fn flags(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}

fn refuses_direct(error: &io::Error) -> bool {
    matches!(rustix::io::Errno::from_io_error(error), Some(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP))
}

/// Whether an error says that there is no room, which may pass, rather than that the disk fails.
pub(super) fn is_full(error: &io::Error) -> bool {
    use rustix::io::Errno;
    // Out of descriptors or memory is treated alike: it passes, and until it does the switch answers 91.
    let is_exhausted = matches!(rustix::io::Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM));
    is_exhausted || matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}
