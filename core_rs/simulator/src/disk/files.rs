//! The simulated disk as the journal uses it: its files.

use std::any::Any;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use switch_core::journal::{Access, BLOCK_BYTES, File, NewFile, Storage};

use super::{Change, Disk, Fault, Lie, NameChange, State, UNFINISHED, failure, is_segment};

impl Storage for Disk {
    fn place(&self, name: &str) -> String {
        format!("disk/{name}")
    }

    fn mode(&self) -> &'static str {
        if self.state().buffered { "pwrite+fdatasync" } else { "O_DIRECT|O_DSYNC" }
    }

    fn lock(&self) -> io::Result<Option<Box<dyn Any + Send>>> {
        let state = self.state();
        let free = Arc::strong_count(&state.lock) == 1;
        Ok(free.then(|| -> Box<dyn Any + Send> { Box::new(Arc::clone(&state.lock)) }))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let state = self.state();
        state.check()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn create_zeroed(&self, name: &str, bytes: u64) -> io::Result<()> {
        let state = &mut *self.state();
        let replaced = state.names.get(name).map_or(0, |&inode| state.inodes[inode].seen.len() as u64);
        state.check()?;
        if state.used() - replaced + bytes > state.bytes_max {
            state.coverage.count("disk.full");
            return Err(io::ErrorKind::StorageFull.into());
        }
        let bytes = bytes as usize;
        match state.strike(Change::Create, is_segment(name.trim_end_matches(UNFINISHED)))? {
            None => state.add(name, vec![0; bytes]),
            Some(Fault::Lost | Fault::Misdirected) => {
                let content = state.stale(bytes);
                state.add(name, content);
                state.tell(Lie::new("lie.stale_content"));
            }
            Some(fault) => {
                if state.rng.bool() {
                    let length = state.rng.usize(..=bytes / BLOCK_BYTES) * BLOCK_BYTES;
                    state.add(name, vec![0; length]);
                }
                return Err(state.end(fault, ["crash.process_in_create", "crash.power_in_create", "error.create"]));
            }
        }
        Ok(())
    }

    fn room(&self) -> io::Result<u64> {
        let state = self.state();
        state.check()?;
        Ok(state.bytes_max.saturating_sub(state.used()))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn NewFile>> {
        let state = &mut *self.state();
        if let Some(fault) = state.strike(Change::Create, false)? {
            if state.rng.bool() {
                state.add(name, Vec::new());
            }
            return Err(state.end(fault, ["crash.process_in_create", "crash.power_in_create", "error.create"]));
        }
        state.add(name, Vec::new());
        Ok(Box::new(Growing { disk: self.clone(), inode: state.inodes.len() - 1 }))
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>> {
        let state = self.state();
        state.check()?;
        let inode = state.names.get(name).copied().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(Arc::new(Handle { disk: self.clone(), inode, access }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let state = &mut *self.state();
        let struck = state.strike(Change::Rename, is_segment(to))?;
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let happens = !matches!(struck, Some(Fault::ProcessCrash | Fault::PowerCut | Fault::Error)) || state.rng.bool();
        if happens {
            NameChange::Rename(from.to_owned(), to.to_owned()).apply(&mut state.names);
            state.unsynced.push(NameChange::Rename(from.to_owned(), to.to_owned()));
        }
        state.bring_names(struck)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let state = &mut *self.state();
        let struck = state.strike(Change::Remove, false)?;
        if !state.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if struck.is_none() || state.rng.bool() {
            state.names.remove(name);
            state.unsynced.push(NameChange::Remove(name.to_owned()));
        }
        if struck.is_none() {
            state.sync_names();
        }
        struck.map_or(Ok(()), |fault| Err(state.end(fault, ["crash.process_in_remove", "crash.power_in_remove", "error.remove"])))
    }

    fn sync_names(&self) -> io::Result<()> {
        let state = &mut *self.state();
        let struck = state.strike(Change::Rename, !state.unsynced.is_empty())?;
        state.bring_names(struck)
    }
}

struct Growing {
    disk: Disk,
    inode: usize,
}

impl NewFile for Growing {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let state = &mut *self.disk.state();
        let struck = state.strike(Change::Snapshot, false)?;
        if state.used() + bytes.len() as u64 > state.bytes_max {
            state.coverage.count("disk.full");
            return Err(io::ErrorKind::StorageFull.into());
        }
        let written = if struck.is_some() { state.rng.usize(..=bytes.len()) } else { bytes.len() };
        state.inodes[self.inode].grow(&bytes[..written]);
        struck.map_or(Ok(()), |fault| Err(state.end(fault, SNAPSHOT_FAULTS)))
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        let state = &mut *self.disk.state();
        let struck = state.strike(Change::Snapshot, true)?;
        let inode = &mut state.inodes[self.inode];
        match struck {
            None => {
                inode.dirty.clone().into_iter().for_each(|sector| inode.sync(sector));
                Ok(())
            }
            Some(Fault::Lost | Fault::Misdirected) => {
                inode.dirty.clone().into_iter().for_each(|sector| inode.orphan(sector));
                state.tell(Lie::new("lie.lost_snapshot"));
                Ok(())
            }
            Some(fault) => {
                if fault == Fault::Error {
                    inode.dirty.clone().into_iter().for_each(|sector| inode.orphan(sector));
                }
                Err(state.end(fault, SNAPSHOT_FAULTS))
            }
        }
    }
}

/// What is counted where a process, the power or a call ends while a snapshot is written.
const SNAPSHOT_FAULTS: [&str; 3] = ["crash.process_in_snapshot", "crash.power_in_snapshot", "error.write_snapshot"];

struct Handle {
    disk: Disk,
    inode: usize,
    access: Access,
}

impl Handle {
    fn range(&self, state: &State, offset: u64, bytes: &[u8]) -> io::Result<Range<usize>> {
        if matches!(self.access, Access::Read | Access::Durable) {
            let is_aligned = offset.is_multiple_of(BLOCK_BYTES as u64)
                && bytes.len().is_multiple_of(BLOCK_BYTES)
                && bytes.as_ptr().addr().is_multiple_of(BLOCK_BYTES);
            assert!(is_aligned, "direct I/O would refuse this");
        }
        let start = offset as usize;
        let end = start + bytes.len();
        if end > state.inodes[self.inode].seen.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(start..end)
    }
}

impl File for Handle {
    fn bytes(&self) -> io::Result<u64> {
        let state = self.disk.state();
        state.check()?;
        Ok(state.inodes[self.inode].seen.len() as u64)
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let state = &mut *self.disk.state();
        state.check()?;
        let range = self.range(state, offset, into)?;
        match state.read_error_after {
            Some(0) => {
                (state.read_error_after, state.failed) = (None, true);
                state.coverage.count("error.read");
                return Err(failure());
            }
            Some(reads) => state.read_error_after = Some(reads - 1),
            None => {}
        }
        into.copy_from_slice(&state.inodes[self.inode].seen[range]);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let state = &mut *self.disk.state();
        let range = self.range(state, offset, bytes)?;
        match self.access {
            Access::Read | Access::CachedRead => Err(io::ErrorKind::PermissionDenied.into()),
            Access::Durable => state.write_durable(self.inode, range, bytes),
            Access::Cached => match state.strike(Change::Mark, false)? {
                None => {
                    state.inodes[self.inode].see(range, bytes);
                    Ok(())
                }
                Some(fault) => {
                    if state.rng.bool() {
                        state.inodes[self.inode].see(range, bytes);
                    }
                    Err(state.end(fault, ["crash.process_in_mark", "crash.power_in_mark", "error.write_mark"]))
                }
            },
        }
    }
}
