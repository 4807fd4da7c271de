//! Snapshots: the ledger's state at a position, in a file beside the journal, so that a start need not replay all of it.
//!
//! The follower makes them from its replica, never the process that authorizes. A start takes the newest one that is sound
//! and goes on in the journal from its bookmark; one that is not sound is passed over, told, and the one before is taken.
//!
//! Always true here: a snapshot has its final name only when it is whole and on disk, with its folder; [`KEPT`] that are sound
//! and this journal's are kept, and an older one goes only when there are more. What a snapshot says was durable when it was
//! made, so a journal that does not hold the batch that a sound snapshot was made after has lost records. Only one process
//! at a time makes snapshots and takes files away: the follower that has claimed it.
//!
//! ```text
//! head   magic SWSNAPSH · u32 version · identity 16 · u64 position · u64 segment, offset, sequence, bookmark's position, bytes
//!        of the batch before · hash 32 · BLAKE3 of the head so far
//! image  the state, see ledger::image
//! foot   u32 zero · u64 bytes of the image · BLAKE3 over the image, which is the state's digest
//! ```
//! Numbers are little-endian.

use std::io;
use std::sync::Arc;

use crate::journal::{
    Access, Bookmark, File, Identity, Journal, JournalError, Locked, Options, Records, Replays, SNAPSHOT, Start, Storage,
    UNFINISHED, identity, is_whole, remove_segments,
};
use crate::ledger::Ledger;
use crate::ledger::image::{Blocks, IMAGE_BLOCK_BYTES_MAX};
use crate::ledger::replay::Unreplayable;

/// How many are kept: the newest, and one to fall back to.
pub const KEPT: usize = 2;

const MAGIC: [u8; 8] = *b"SWSNAPSH";
const VERSION: u32 = 2;
const HEAD_BYTES: usize = 8 + 4 + 16 + 8 + 5 * 8 + 32 + 32;
const FOOT_BYTES: usize = 4 + 8 + 32;
/// Bytes read at a time.
const READ_BYTES: usize = 1 << 20;

/// A snapshot, as its head says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// The record as of which its state is.
    pub position: u64,
    /// Where the journal goes on: between two batches, the first of which may begin before `position`.
    pub bookmark: Bookmark,
}

/// The file name of a snapshot.
fn snapshot_name(position: u64) -> String {
    format!("{position:012}{SNAPSHOT}")
}

/// The position of the snapshot with this file name.
fn snapshot_position(name: &str) -> Option<u64> {
    let position = name.strip_suffix(SNAPSHOT)?.parse().ok()?;
    (snapshot_name(position) == name).then_some(position)
}

/// The positions of all snapshots, newest first.
fn positions(storage: &dyn Storage) -> io::Result<Vec<u64>> {
    let mut positions: Vec<u64> = storage.names()?.iter().filter_map(|name| snapshot_position(name)).collect();
    positions.sort_unstable_by(|one, other| other.cmp(one));
    Ok(positions)
}

/// Writes the snapshot of a ledger, whose record is on stable storage. `spare`: bytes that must be left on the disk, for the
/// journal goes first.
///
/// # Errors
/// The operating system's, `StorageFull` before anything is written where there is no room; the snapshots that are there stay.
pub fn write(storage: &dyn Storage, ledger: &Ledger, bookmark: &Bookmark, spare: u64) -> io::Result<()> {
    let position = ledger.position();
    assert!(bookmark.position <= position, "a snapshot's bookmark is at or before its record");
    // What a follower that was killed in the middle of one has left.
    for name in storage.names()?.iter().filter(|name| name.contains(SNAPSHOT) && name.ends_with(UNFINISHED)) {
        storage.remove(name)?;
    }
    let mut bytes = (HEAD_BYTES + FOOT_BYTES) as u64;
    ledger.image(&mut |block| bytes += block.len() as u64);
    if storage.room()? < bytes + spare {
        return Err(io::ErrorKind::StorageFull.into());
    }
    let (name, unfinished) = (snapshot_name(position), format!("{}{UNFINISHED}", snapshot_name(position)));
    let mut file = storage.create(&unfinished)?;
    let written = (|| {
        file.append(&head(position, bookmark))?;
        let (mut hasher, mut bytes, mut failed) = (blake3::Hasher::new(), 0_u64, Ok(()));
        ledger.image(&mut |block| {
            if failed.is_ok() {
                hasher.update(block);
                bytes += block.len() as u64;
                failed = file.append(block);
            }
        });
        failed?;
        let mut foot = [0; FOOT_BYTES];
        foot[4..12].copy_from_slice(&bytes.to_le_bytes());
        foot[12..].copy_from_slice(hasher.finalize().as_bytes());
        file.append(&foot)?;
        file.finish()?;
        storage.rename(&unfinished, &name)
    })();
    if written.is_err() {
        // The first error is the one to report; a leftover is removed before the next one.
        drop(storage.remove(&unfinished));
    }
    written
}

fn head(position: u64, bookmark: &Bookmark) -> [u8; HEAD_BYTES] {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend_from_slice(&MAGIC);
    head.extend_from_slice(&VERSION.to_le_bytes());
    head.extend_from_slice(&bookmark.identity);
    let batch = [bookmark.sequence, bookmark.position, bookmark.batch_bytes];
    for number in [position, bookmark.segment, bookmark.offset].into_iter().chain(batch) {
        head.extend_from_slice(&number.to_le_bytes());
    }
    head.extend_from_slice(&bookmark.hash);
    let check = blake3::hash(&head);
    head.extend_from_slice(check.as_bytes());
    head.try_into().expect("the fields make the head")
}

/// Why a snapshot cannot be used: a sentence.
fn fault(name: &str, cause: impl std::fmt::Display) -> String {
    format!("the snapshot {name} cannot be used: {cause}")
}

fn parse_head(head: &[u8; HEAD_BYTES]) -> Result<Snapshot, &'static str> {
    let (covered, check) = head.split_at(HEAD_BYTES - 32);
    if blake3::hash(covered).as_bytes() != check {
        return Err("the checksum of its head does not match");
    }
    if covered[..8] != MAGIC || covered[8..12] != VERSION.to_le_bytes() {
        return Err("its format is not one that this program reads");
    }
    let number = |index: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&covered[28 + index * 8..36 + index * 8]);
        u64::from_le_bytes(bytes)
    };
    let (mut identity, mut hash) = (Identity::default(), [0; 32]);
    identity.copy_from_slice(&covered[12..28]);
    hash.copy_from_slice(&covered[76..108]);
    let (segment, offset, sequence, position, batch_bytes) = (number(1), number(2), number(3), number(4), number(5));
    let bookmark = Bookmark { identity, segment, offset, sequence, position, hash, batch_bytes };
    Ok(Snapshot { position: number(0), bookmark })
}

/// Reads the image's blocks and takes their hash.
struct FileBlocks {
    file: Arc<dyn File>,
    /// What is left to be read of the file.
    offset: u64,
    end: u64,
    buffer: Vec<u8>,
    /// The part of the buffer that was not given yet.
    ahead: std::ops::Range<usize>,
    hasher: blake3::Hasher,
    image_bytes: u64,
}

impl FileBlocks {
    fn new(file: Arc<dyn File>, end: u64) -> Self {
        let buffer = vec![0; READ_BYTES.max(IMAGE_BLOCK_BYTES_MAX + 4)];
        Self { file, offset: HEAD_BYTES as u64, end, buffer, ahead: 0..0, hasher: blake3::Hasher::new(), image_bytes: 0 }
    }

    /// The next `bytes` as a range of the buffer.
    fn take(&mut self, bytes: usize) -> Result<std::ops::Range<usize>, String> {
        if self.ahead.len() < bytes {
            self.buffer.copy_within(self.ahead.clone(), 0);
            self.ahead = 0..self.ahead.len();
            let more = ((self.end - self.offset) as usize).min(self.buffer.len() - self.ahead.end);
            let place = &mut self.buffer[self.ahead.end..self.ahead.end + more];
            self.file.read(self.offset, place).map_err(|error| format!("it cannot be read: {error}"))?;
            self.offset += more as u64;
            self.ahead.end += more;
            if self.ahead.len() < bytes {
                return Err("it ends too early".to_owned());
            }
        }
        let taken = self.ahead.start..self.ahead.start + bytes;
        self.ahead.start = taken.end;
        Ok(taken)
    }

    /// Whether a block comes next, and not the foot.
    fn more(&mut self) -> Result<bool, String> {
        let length = self.take(4)?;
        self.ahead.start = length.start;
        Ok(self.buffer[length] != [0; 4])
    }

    /// After the last block: the image's hash, if the foot has it.
    fn finish(mut self) -> Result<[u8; 32], String> {
        let taken = self.take(FOOT_BYTES)?;
        let foot = &self.buffer[taken];
        let right = foot[..4] == [0; 4] && foot[4..12] == self.image_bytes.to_le_bytes();
        let digest = *self.hasher.finalize().as_bytes();
        if !right || foot[12..] != digest || !self.ahead.is_empty() || self.offset != self.end {
            return Err("the checksum of its state does not match".to_owned());
        }
        Ok(digest)
    }
}

impl Blocks for FileBlocks {
    fn next(&mut self) -> Result<&[u8], String> {
        let length = self.take(4)?;
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.buffer[length]);
        let length = u32::from_le_bytes(bytes) as usize;
        if !(1..=IMAGE_BLOCK_BYTES_MAX).contains(&length) {
            return Err("it ends too early, or the length of a block is wrong".to_owned());
        }
        self.hasher.update(&bytes);
        let block = self.take(length)?;
        self.hasher.update(&self.buffer[block.clone()]);
        self.image_bytes += 4 + length as u64;
        Ok(&self.buffer[block])
    }
}

fn open(storage: &dyn Storage, identity: Identity, position: u64) -> Result<(Snapshot, FileBlocks), String> {
    let name = snapshot_name(position);
    let unreadable = |error: io::Error| format!("it cannot be read: {error}");
    let file = storage.open(&name, Access::CachedRead).map_err(unreadable)?;
    let end = file.bytes().map_err(unreadable)?;
    let mut head = [0; HEAD_BYTES];
    if end < (HEAD_BYTES + FOOT_BYTES) as u64 {
        return Err("it is too short".to_owned());
    }
    file.read(0, &mut head).map_err(unreadable)?;
    let snapshot = parse_head(&head)?;
    if snapshot.position != position || snapshot.bookmark.position > position {
        return Err(format!("its head says that it is of record {}", snapshot.position));
    }
    if snapshot.bookmark.identity != identity {
        return Err("it belongs to another journal".to_owned());
    }
    Ok((snapshot, FileBlocks::new(file, end)))
}

/// Reads a snapshot through, without taking up its state, and says whether it is sound, and its state's digest.
fn check(storage: &dyn Storage, identity: Identity, position: u64) -> Result<(Snapshot, [u8; 32]), String> {
    let (snapshot, mut blocks) = open(storage, identity, position)?;
    while blocks.more()? {
        blocks.next()?;
    }
    Ok((snapshot, blocks.finish()?))
}

fn load(storage: &dyn Storage, identity: Identity, position: u64) -> Result<(Snapshot, Ledger), String> {
    let (snapshot, mut blocks) = open(storage, identity, position)?;
    let ledger = Ledger::from_image(&mut blocks)?;
    blocks.finish()?;
    if ledger.position() != position {
        return Err(format!("its state is that of record {}", ledger.position()));
    }
    Ok((snapshot, ledger))
}

/// A state to go on from.
#[derive(Default)]
pub struct Loaded {
    /// The state; before the first record where there is no snapshot.
    pub ledger: Ledger,
    /// The snapshot that it is from.
    pub snapshot: Option<Snapshot>,
    /// What was wrong with newer ones: a sentence each.
    pub passed_over: Vec<String>,
}

impl Loaded {
    /// From where the journal is replayed on top of it; `None`: from its first record on.
    #[must_use]
    pub fn start(&self) -> Option<Start> {
        self.snapshot.map(|Snapshot { position, bookmark }| Start { bookmark, position })
    }
}

/// Loads the newest sound snapshot of this journal at or before `until`.
///
/// # Errors
/// Where the folder, or the journal in it, cannot be read.
pub fn load_newest(storage: &dyn Storage, until: u64) -> Result<Loaded, JournalError> {
    load_first(storage, found(storage)?.into_iter().filter(|&position| position <= until))
}

/// Loads the first of these that is a sound snapshot of this journal.
fn load_first(storage: &dyn Storage, positions: impl Iterator<Item = u64>) -> Result<Loaded, JournalError> {
    let identity = identity(storage)?;
    let mut passed_over = Vec::new();
    for position in positions {
        match load(storage, identity, position) {
            Ok((snapshot, ledger)) => return Ok(Loaded { ledger, snapshot: Some(snapshot), passed_over }),
            Err(cause) => passed_over.push(fault(&storage.place(&snapshot_name(position)), cause)),
        }
    }
    Ok(Loaded { passed_over, ..Loaded::default() })
}

/// What as much as possible of a journal is replayed on: nothing where it is there from its first record on, else the oldest
/// sound snapshot.
///
/// # Errors
/// Where the folder, or the journal in it, cannot be read.
pub fn begin_whole(storage: &dyn Storage) -> Result<Loaded, JournalError> {
    let positions = if is_whole(storage)? { Vec::new() } else { found(storage)? };
    load_first(storage, positions.into_iter().rev())
}

/// What a snapshot says of itself.
pub struct Seal {
    /// The record.
    pub position: u64,
    /// Its file, as operators know it.
    pub file: String,
    /// The digest of its state, or why it is not sound.
    pub digest: Result<[u8; 32], String>,
}

/// Reads all snapshots through, oldest first.
///
/// # Errors
/// Where the folder cannot be read.
pub fn seals(storage: &dyn Storage) -> Result<Vec<Seal>, JournalError> {
    let identity = identity(storage)?;
    let seal = |position| Seal {
        position,
        file: storage.place(&snapshot_name(position)),
        digest: check(storage, identity, position).map(|(_, digest)| digest),
    };
    Ok(found(storage)?.into_iter().rev().map(seal).collect())
}

fn found(storage: &dyn Storage) -> Result<Vec<u64>, JournalError> {
    positions(storage).map_err(|error| JournalError::Io { action: "read", file: storage.place(""), error })
}

/// The position of the newest sound snapshot of this journal above `position`, if there is one.
///
/// # Errors
/// Where the folder cannot be read.
pub fn newest_above(storage: &dyn Storage, identity: Identity, position: u64) -> Result<Option<u64>, JournalError> {
    let mut above = found(storage)?.into_iter().take_while(|&other| other > position);
    Ok(above.find(|&other| check(storage, identity, other).is_ok()))
}

/// Takes away what the snapshots up to the record `settled` make superfluous: snapshots that are not among the [`KEPT`] newest
/// sound ones, and, with `segments`, the segments before the older of these. Each is read through first, and nothing goes where
/// there are fewer, or where a sound snapshot lies beyond `settled`: then PostgreSQL has still to pass what they stand for.
/// Never goes a segment from `reading` on. `keep` is given the name of each segment before it goes. Gives how many segments went.
///
/// # Errors
/// A sentence. What is left of the journal has no gap.
pub fn retire(
    storage: &dyn Storage,
    identity: Identity,
    settled: u64,
    reading: u64,
    segments: bool,
    keep: &mut dyn FnMut(&str) -> io::Result<()>,
) -> Result<u64, String> {
    let all = found(storage).map_err(|error| error.to_string())?;
    let (mut kept, mut others) = (Vec::new(), Vec::new());
    for position in all {
        match check(storage, identity, position) {
            Ok((snapshot, _)) if kept.len() < KEPT => kept.push(snapshot),
            _ => others.push(position),
        }
    }
    if kept.len() < KEPT || kept[0].position > settled {
        return Ok(0);
    }
    for position in others {
        let name = snapshot_name(position);
        storage.remove(&name).map_err(|error| format!("cannot remove {}: {error}", storage.place(&name)))?;
    }
    let below = kept[KEPT - 1].bookmark.segment.min(reading);
    if segments { remove_segments(storage, below, keep).map_err(|error| error.to_string()) } else { Ok(0) }
}

impl From<Unreplayable> for JournalError {
    fn from(Unreplayable { position, cause }: Unreplayable) -> Self {
        Self::Rejected { position, cause }
    }
}

impl Replays for Ledger {
    fn replay(&mut self, records: Records<'_>) -> Result<(), JournalError> {
        Ok(self.replay_all(records, &mut |_, _, _| ())?)
    }
}

/// A ledger that replays and tells how far it is.
struct Told<'a> {
    ledger: &'a mut Ledger,
    tell: &'a mut dyn FnMut(u64),
}

impl Replays for Told<'_> {
    fn replay(&mut self, records: Records<'_>) -> Result<(), JournalError> {
        Replays::replay(self.ledger, records)?;
        (self.tell)(self.ledger.position());
        Ok(())
    }
}

/// A journal that is open, and the state that it leads to.
pub struct Resumed {
    /// The state after its last record.
    pub ledger: Ledger,
    /// The journal.
    pub journal: Journal,
    /// The snapshot that it went on from.
    pub snapshot: Option<Snapshot>,
    /// What was wrong with newer ones: a sentence each.
    pub passed_over: Vec<String>,
}

/// Opens a journal from its newest sound snapshot on. `tell` is given the position reached, again and again.
///
/// # Errors
/// As for [`Journal::resume`].
pub fn resume(locked: Locked, options: &Options, tell: &mut dyn FnMut(u64)) -> Result<Resumed, JournalError> {
    resume_with(locked, options, tell, Journal::resume)
}

/// The same without threads; see [`Journal::open_driven`].
///
/// # Errors
/// As for [`Journal::resume`].
pub fn resume_driven(locked: Locked, options: &Options) -> Result<Resumed, JournalError> {
    resume_with(locked, options, &mut |_| (), Journal::resume_driven)
}

type Open = fn(Locked, &Options, Option<&Start>, &mut dyn Replays) -> Result<Journal, JournalError>;

fn resume_with(locked: Locked, options: &Options, tell: &mut dyn FnMut(u64), open: Open) -> Result<Resumed, JournalError> {
    let loaded = load_newest(&**locked.storage(), u64::MAX)?;
    let start = loaded.start();
    let Loaded { mut ledger, snapshot, passed_over } = loaded;
    let journal = open(locked, options, start.as_ref(), &mut Told { ledger: &mut ledger, tell })?;
    Ok(Resumed { ledger, journal, snapshot, passed_over })
}
