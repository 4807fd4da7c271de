//! The simulated disk: what is seen, what is on the medium, and how both come apart.
//!
//! Always true here: what a process sees (`seen`) is the page cache over the medium (`media`); they differ only in dirty
//! sectors, which a power cut keeps or drops one by one; a durable write is on the medium when it returns. A name is on the
//! medium only once the folder was synced, which a rename does.
//!
//! How it works: every change (a write, a creation, a rename, a removal) counts, and a [`Fault`] can be armed to strike at the
//! one after so many more. A crash leaves any choice of the write's 512-byte sectors, seen or even on the medium; after it
//! everything fails until [`Disk::restart`]. A failed write leaves the same, and an error. A lie ([`Lie`]) returns without an
//! error and damages: at most one in a run, because two can be made to cover each other up.
//!
//! In the buffered mode durable writes are plain writes each followed by `fdatasync`: then a failed sync leaves the data seen,
//! clean, and not on the medium, as Linux does.

mod files;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use switch_core::journal::{BLOCK_BYTES, SECTOR_BYTES};

use crate::coverage::Coverage;

/// What strikes at a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The process ends in the middle of it.
    ProcessCrash,
    /// The machine loses its power in the middle of it.
    PowerCut,
    /// The system reports an error.
    Error,
    /// A write is acknowledged and never happens.
    Lost,
    /// A write is acknowledged and happens elsewhere.
    Misdirected,
}

/// What changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// A durable write of a batch or a footer.
    Batch,
    /// Any other durable write: a segment's header, zeros over a torn tail.
    OtherWrite,
    /// A cached write: the durable mark.
    Mark,
    /// A file is made.
    Create,
    /// A snapshot grows, or is forced to the medium.
    Snapshot,
    /// A file gets another name.
    Rename,
    /// A file goes.
    Remove,
}

/// Damage beyond what a crash explains.
#[derive(Clone, Copy, Debug)]
pub struct Lie {
    /// What was done.
    pub kind: &'static str,
    /// Whether an acknowledged write of a batch or a footer is not where it should be.
    pub takes_batch: bool,
    /// Where that write should be: the segment's number and the offset in it.
    pub place: (u64, usize),
    /// Whether a batch or footer at that place or behind it was acknowledged later and did land: then the gap shows, or is filled.
    pub followed: bool,
    /// Whether the power was cut after it.
    pub power_cut: bool,
}

#[derive(Default)]
struct Inode {
    seen: Vec<u8>,
    media: Vec<u8>,
    /// Sectors that are seen and not on the medium, and may get there on their own.
    dirty: BTreeSet<usize>,
    /// Sectors that are seen and not on the medium, and count as clean: a failed sync or a lie has left them.
    orphaned: BTreeSet<usize>,
}

enum NameChange {
    Create(String, usize),
    Rename(String, String),
    Remove(String),
}

struct State {
    rng: fastrand::Rng,
    buffered: bool,
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    names_synced: BTreeMap<String, usize>,
    unsynced: Vec<NameChange>,
    bytes_max: u64,
    armed: Option<(u64, Fault, Option<Change>)>,
    read_error_after: Option<u64>,
    /// The crash that came.
    crash: Option<Fault>,
    /// An error was returned to the process.
    failed: bool,
    lie: Option<Lie>,
    lock: Arc<()>,
    coverage: Coverage,
}

/// The disk. Clones share it.
#[derive(Clone)]
pub struct Disk(Arc<Mutex<State>>);

fn crashed() -> io::Error {
    io::Error::other("the simulated machine is down")
}

fn failure() -> io::Error {
    io::Error::other("simulated input/output error")
}

/// Ending of the name of a file that is not whole yet.
const UNFINISHED: &str = ".new";

fn is_segment(name: &str) -> bool {
    name.ends_with(".segment")
}

fn is_snapshot(name: &str) -> bool {
    name.ends_with(".snapshot")
}

impl Lie {
    fn new(kind: &'static str) -> Self {
        Self { kind, takes_batch: false, place: (0, 0), followed: false, power_cut: false }
    }
}

impl Inode {
    fn sectors(range: &Range<usize>) -> Range<usize> {
        range.start / SECTOR_BYTES..range.end.div_ceil(SECTOR_BYTES)
    }

    fn sector(&self, sector: usize) -> Range<usize> {
        let start = sector * SECTOR_BYTES;
        start..(start + SECTOR_BYTES).min(self.seen.len())
    }

    /// Brings what is seen of a sector to the medium.
    fn sync(&mut self, sector: usize) {
        let range = self.sector(sector);
        self.media[range.clone()].copy_from_slice(&self.seen[range]);
        self.dirty.remove(&sector);
        self.orphaned.remove(&sector);
    }

    fn orphan(&mut self, sector: usize) {
        self.dirty.remove(&sector);
        self.orphaned.insert(sector);
    }

    fn see(&mut self, range: Range<usize>, bytes: &[u8]) {
        for sector in Self::sectors(&range) {
            self.orphaned.remove(&sector);
            self.dirty.insert(sector);
        }
        self.seen[range].copy_from_slice(bytes);
    }

    /// Makes it longer by bytes that only the cache holds.
    fn grow(&mut self, bytes: &[u8]) {
        let start = self.seen.len();
        self.seen.resize(start + bytes.len(), 0);
        self.media.resize(start + bytes.len(), 0);
        self.see(start..start + bytes.len(), bytes);
    }

    fn store(&mut self, range: Range<usize>, bytes: &[u8]) {
        self.see(range.clone(), bytes);
        Self::sectors(&range).for_each(|sector| self.sync(sector));
    }
}

impl Disk {
    /// An empty disk.
    #[must_use]
    pub fn new(seed: u64, buffered: bool, bytes_max: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            rng: fastrand::Rng::with_seed(seed),
            buffered,
            inodes: Vec::new(),
            names: BTreeMap::new(),
            names_synced: BTreeMap::new(),
            unsynced: Vec::new(),
            bytes_max,
            armed: None,
            read_error_after: None,
            crash: None,
            failed: false,
            lie: None,
            lock: Arc::new(()),
            coverage: Coverage::default(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a fault strike at the change after `changes` more. A lie that no more may be told is left out.
    pub fn arm(&self, fault: Fault, changes: u64) {
        let mut state = self.state();
        let lies = matches!(fault, Fault::Lost | Fault::Misdirected);
        if !(lies && state.lie.is_some()) {
            state.armed = Some((changes, fault, None));
        }
    }

    /// Has a fault strike at the next change of this kind.
    pub fn arm_at(&self, fault: Fault, change: Change) {
        self.arm(fault, 0);
        if let Some((_, _, kind)) = &mut self.state().armed {
            *kind = Some(change);
        }
    }

    /// Has the read after `reads` more fail.
    pub fn arm_read(&self, reads: u64) {
        self.state().read_error_after = Some(reads);
    }

    /// Takes back what is armed.
    pub fn disarm(&self) {
        let mut state = self.state();
        (state.armed, state.read_error_after) = (None, None);
    }

    /// Sets the size of the disk.
    pub fn resize(&self, bytes_max: u64) {
        self.state().bytes_max = bytes_max;
    }

    /// Bytes in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// Whether a file was left that is not whole.
    #[must_use]
    pub fn has_unfinished(&self) -> bool {
        self.state().names.keys().any(|name| name.ends_with(UNFINISHED))
    }

    /// The crash that came, if one did.
    #[must_use]
    pub fn crash(&self) -> Option<Fault> {
        self.state().crash
    }

    /// Whether an error was returned since this was asked last.
    #[must_use]
    pub fn take_failed(&self) -> bool {
        std::mem::take(&mut self.state().failed)
    }

    /// The damage done, if any.
    #[must_use]
    pub fn lie(&self) -> Option<Lie> {
        self.state().lie
    }

    /// What was counted since this was asked last.
    #[must_use]
    pub fn take_coverage(&self) -> Coverage {
        std::mem::take(&mut self.state().coverage)
    }

    /// Some dirty sectors reach the medium on their own.
    pub fn write_back(&self) {
        let state = &mut *self.state();
        for inode in &mut state.inodes {
            for sector in inode.dirty.clone() {
                if state.rng.bool() {
                    inode.sync(sector);
                    state.coverage.count("disk.written_back");
                }
            }
        }
    }

    /// The process is gone, and with it its lock; after a power cut so is what was only seen. The disk works again.
    pub fn restart(&self, power_cut: bool) {
        let state = &mut *self.state();
        (state.armed, state.read_error_after, state.crash, state.failed) = (None, None, None, false);
        state.lock = Arc::new(());
        if !power_cut {
            return;
        }
        if let Some(lie) = &mut state.lie {
            lie.power_cut = true;
        }
        // All of it, nothing, or any choice.
        let kept_of_4 = [0, 2, 4][state.rng.usize(..3)];
        for inode in &mut state.inodes {
            for sector in std::mem::take(&mut inode.orphaned) {
                let range = inode.sector(sector);
                inode.seen[range.clone()].copy_from_slice(&inode.media[range]);
                state.coverage.count("disk.orphaned_sector_dropped");
            }
            for sector in std::mem::take(&mut inode.dirty) {
                if state.rng.u8(..4) < kept_of_4 {
                    inode.sync(sector);
                } else {
                    let range = inode.sector(sector);
                    inode.seen[range.clone()].copy_from_slice(&inode.media[range]);
                    state.coverage.count("disk.cached_sector_dropped");
                }
            }
        }
        for change in std::mem::take(&mut state.unsynced) {
            if state.rng.u8(..4) < kept_of_4 {
                change.apply(&mut state.names_synced);
            } else {
                state.coverage.count("disk.name_dropped");
            }
        }
        state.names = state.names_synced.clone();
    }

    /// Turns one bit over, on the medium and in the cache, in any file; in a part that is in use more often than not.
    pub fn flip(&self) {
        let state = &mut *self.state();
        if state.lie.is_some() {
            return;
        }
        let files: Vec<(String, usize)> = state.names.iter().map(|(name, &inode)| (name.clone(), inode)).collect();
        let (name, index) = &files[state.rng.usize(..files.len())];
        let inode = &mut state.inodes[*index];
        let used: Vec<usize> = (0..inode.seen.len() / SECTOR_BYTES)
            .filter(|&sector| inode.seen[inode.sector(sector)].iter().any(|&byte| byte != 0))
            .collect();
        let in_use = !used.is_empty() && state.rng.u8(..4) > 0;
        let sectors = inode.seen.len() / SECTOR_BYTES;
        if sectors == 0 {
            return;
        }
        let sector = if in_use { used[state.rng.usize(..used.len())] } else { state.rng.usize(..sectors) };
        let at = sector * SECTOR_BYTES + state.rng.usize(..SECTOR_BYTES);
        let bit = 1 << state.rng.u8(..8);
        inode.seen[at] ^= bit;
        inode.media[at] ^= bit;
        let kind = match (is_segment(name), in_use) {
            (false, _) if is_snapshot(name) => "lie.flip_in_snapshot",
            (false, _) => "lie.flip_in_mark_or_unfinished",
            (true, false) => "lie.flip_anywhere",
            (true, true) if sector < BLOCK_BYTES / SECTOR_BYTES => "lie.flip_in_header",
            (true, true) => "lie.flip_in_batch",
        };
        state.tell(Lie::new(kind));
    }

    /// What the durable mark says now; 0 where it says nothing.
    #[must_use]
    pub fn mark(&self) -> u64 {
        let state = self.state();
        let Some(&inode) = state.names.get("durable") else { return 0 };
        let seen = &state.inodes[inode].seen;
        let word = |at: usize| u64::from_le_bytes(seen[at..at + 8].try_into().expect("eight bytes"));
        if seen[..16].iter().all(|&byte| byte == 0) { 0 } else { word(16).min(!word(24)) }
    }
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Create(name, inode) => drop(names.insert(name, inode)),
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(&from) {
                    names.insert(to, inode);
                }
            }
            Self::Remove(name) => drop(names.remove(&name)),
        }
    }
}

impl State {
    fn used(&self) -> u64 {
        self.names.values().map(|&inode| self.inodes[inode].seen.len() as u64).sum()
    }

    fn check(&self) -> io::Result<()> {
        if self.crash.is_some() { Err(crashed()) } else { Ok(()) }
    }

    fn tell(&mut self, lie: Lie) {
        self.coverage.count(lie.kind);
        self.lie = Some(lie);
    }

    /// Counts a change and gives what strikes at it. Lies wait for a change that can be lied about.
    fn strike(&mut self, change: Change, can_lie: bool) -> io::Result<Option<Fault>> {
        self.check()?;
        let Some((changes, fault, only)) = self.armed.filter(|(.., only)| only.is_none_or(|only| only == change)) else {
            return Ok(None);
        };
        if changes > 0 {
            self.armed = Some((changes - 1, fault, only));
            return Ok(None);
        }
        if matches!(fault, Fault::Lost | Fault::Misdirected) && !can_lie {
            return Ok(None);
        }
        self.armed = None;
        Ok(Some(fault))
    }

    /// Ends a change that did not go well: the crash or the error.
    fn end(&mut self, fault: Fault, what: [&'static str; 3]) -> io::Error {
        match fault {
            Fault::ProcessCrash | Fault::PowerCut => {
                self.crash = Some(fault);
                self.coverage.count(what[usize::from(fault == Fault::PowerCut)]);
                crashed()
            }
            _ => {
                self.failed = true;
                self.coverage.count(what[2]);
                failure()
            }
        }
    }

    /// Leaves of a write whatever it likes.
    fn tear(&mut self, inode: usize, range: &Range<usize>, bytes: &[u8], clean: bool) {
        let inode = &mut self.inodes[inode];
        let old = inode.seen[range.clone()].to_vec();
        let sectors = Inode::sectors(range);
        let style = self.rng.u8(..6);
        let cut = self.rng.usize(..=sectors.len());
        inode.see(range.clone(), bytes);
        for (number, sector) in sectors.enumerate() {
            // Not begun; seen whole; on the medium whole; a part from the front; any choice of sectors.
            let (seen, stored) = match style {
                0 => (false, false),
                1 => (true, false),
                2 => (true, true),
                3 => (number < cut, number < cut),
                _ => {
                    let stored = self.rng.bool();
                    (stored || self.rng.u8(..4) == 0, stored)
                }
            };
            // Through the page cache all of it is seen before any of it is stored.
            if stored {
                inode.sync(sector);
            } else if !(seen || self.buffered && style > 0) {
                let at = number * SECTOR_BYTES;
                let place = inode.sector(sector);
                inode.seen[place.clone()].copy_from_slice(&old[at..at + place.len()]);
                if inode.media[place.clone()] == inode.seen[place] {
                    inode.dirty.remove(&sector);
                }
            } else if clean {
                inode.orphan(sector);
            }
        }
    }

    fn write_durable(&mut self, inode: usize, range: Range<usize>, bytes: &[u8]) -> io::Result<()> {
        let name = self.names.iter().find(|(_, known)| **known == inode).map(|(name, _)| name.clone()).unwrap_or_default();
        let is_batch = is_segment(&name) && range.start > 0 && bytes[..SECTOR_BYTES].iter().any(|&byte| byte != 0);
        let place = (name.split('.').next().and_then(|number| number.parse().ok()).unwrap_or(0), range.start);
        match self.strike(if is_batch { Change::Batch } else { Change::OtherWrite }, true)? {
            None => {
                self.inodes[inode].store(range, bytes);
                if let Some(lie) = self.lie.as_mut().filter(|lie| is_batch && place >= lie.place) {
                    lie.followed = true;
                }
                Ok(())
            }
            Some(Fault::Lost) => {
                if self.buffered {
                    // It stands in the cache, clean, until the power is cut.
                    let inode = &mut self.inodes[inode];
                    inode.see(range.clone(), bytes);
                    Inode::sectors(&range).for_each(|sector| inode.orphan(sector));
                }
                let kind = if is_batch { "lie.lost_batch" } else { "lie.lost_other_write" };
                self.tell(Lie { takes_batch: is_batch, place, ..Lie::new(kind) });
                Ok(())
            }
            Some(Fault::Misdirected) => {
                let kind = self.write_elsewhere(inode, range.start, bytes);
                self.tell(Lie { takes_batch: is_batch, place, ..Lie::new(kind) });
                Ok(())
            }
            Some(fault) => {
                let clean = self.buffered && fault == Fault::Error;
                self.tear(inode, &range, bytes, clean);
                let what = if is_batch {
                    ["crash.process_in_batch", "crash.power_in_batch", "error.write_batch"]
                } else {
                    ["crash.process_in_other_write", "crash.power_in_other_write", "error.write_other"]
                };
                Err(self.end(fault, what))
            }
        }
    }

    fn write_elsewhere(&mut self, intended: usize, offset: usize, bytes: &[u8]) -> &'static str {
        let targets: Vec<usize> =
            self.names.values().copied().filter(|&inode| self.inodes[inode].seen.len() >= SECTOR_BYTES).collect();
        let same = self.rng.bool();
        let target = if same { intended } else { targets[self.rng.usize(..targets.len())] };
        let sectors = self.inodes[target].seen.len() / SECTOR_BYTES;
        // Whole blocks more often: a head that lies where a head may lie is the worse mistake.
        let unit = if self.rng.u8(..4) > 0 { BLOCK_BYTES / SECTOR_BYTES } else { 1 };
        let start = self.rng.usize(..sectors) / unit * unit * SECTOR_BYTES;
        if target == intended && start == offset {
            return self.write_elsewhere(intended, offset, bytes);
        }
        let end = (start + bytes.len()).min(self.inodes[target].seen.len());
        self.inodes[target].store(start..end, &bytes[..end - start]);
        if target == intended { "lie.misdirected_in_file" } else { "lie.misdirected_to_other_file" }
    }

    /// A new file's zeros were not written: what a removed file left there shows.
    fn stale(&mut self, bytes: usize) -> Vec<u8> {
        let mut content = vec![0; bytes];
        let from = self.rng.usize(..self.inodes.len().max(1));
        if let Some(old) = self.inodes.get(from).map(|inode| &inode.media) {
            let length = old.len().min(bytes);
            content[..length].copy_from_slice(&old[..length]);
        }
        content
    }

    /// What names there are is on the medium.
    fn sync_names(&mut self) {
        for change in std::mem::take(&mut self.unsynced) {
            change.apply(&mut self.names_synced);
        }
    }

    /// Brings names to the medium, unless something strikes.
    fn bring_names(&mut self, struck: Option<Fault>) -> io::Result<()> {
        match struck {
            None => {
                self.sync_names();
                Ok(())
            }
            Some(Fault::Lost | Fault::Misdirected) => {
                self.tell(Lie::new("lie.lost_rename"));
                Ok(())
            }
            Some(fault) => Err(self.end(fault, ["crash.process_in_rename", "crash.power_in_rename", "error.rename"])),
        }
    }

    fn add(&mut self, name: &str, content: Vec<u8>) {
        let inode = self.inodes.len();
        self.inodes.push(Inode { media: content.clone(), seen: content, ..Inode::default() });
        self.names.insert(name.to_owned(), inode);
        self.unsynced.push(NameChange::Create(name.to_owned(), inode));
    }
}
