//! Segment files: making one, opening one, and walking the chain of batches through them.
//!
//! **Always:** a segment has its final name only when it is whole: its size, its zeros and its header are on disk
//! before the rename. So a header that does not verify is damage, never an interrupted creation.
//!
//! **How:** [`Walk`] reads one structure at a time through a window of aligned memory and says what it is ([`Step`]).
//! It judges only the structure at hand; whether a torn one may be forgiven is for [`super::recovery`] to say.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::aligned::AlignedBuffer;
use super::error::JournalError;
use super::format::{
    self, BLOCK_BYTES, BatchHead, Chain, HEAD_BYTES, Hash, Head, Identity, SECTOR_BYTES, SegmentHead, extent_bytes,
    has_zero_sector, is_zero_sector, parse_head, payload_is_sound, verify_hash,
};
use super::names::{UNFINISHED, segment_name, segment_number};
use super::storage::{Access, File, Storage};
use crate::limits::JOURNAL_EXTENT_BYTES_MAX;

/// The block in bytes, as file offsets count.
pub(super) const BLOCK: u64 = BLOCK_BYTES as u64;
/// Bytes read at first and at most in one go: little at the tail, where most of it is not written yet; much in a long
/// replay.
const WINDOW_BYTES_MIN: usize = 64 << 10;
const WINDOW_BYTES_MAX: usize = 4 << 20;

/// A place between two batches, from which a journal can be read on without what lies before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bookmark {
    /// The journal.
    pub identity: Identity,
    /// Number of the segment.
    pub segment: u64,
    /// Byte in it at which the next structure starts.
    pub offset: u64,
    /// Number of the last batch before it; 0: none.
    pub sequence: u64,
    /// Position of the last record before it; 0: none.
    pub position: u64,
    /// Hash of the last batch before it, or of the identity where there is none.
    pub hash: Hash,
    /// Bytes of that batch in the segment, which end where the next structure starts; 0 where there is none.
    pub batch_bytes: u64,
}

/// An open segment file with a sound header.
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) bytes: u64,
    pub(super) file: Arc<dyn File>,
}

impl Segment {
    /// Makes a segment and opens it for durable writes. Replaces an unused one of the same number.
    pub(super) fn create(storage: &dyn Storage, identity: Identity, number: u64, bytes: u64) -> Result<Self, JournalError> {
        let name = segment_name(number);
        let unfinished = format!("{name}{UNFINISHED}");
        let failed = |error: io::Error| {
            if super::storage::is_full(&error) {
                JournalError::NoSpace { folder: storage.place(""), bytes }
            } else {
                JournalError::Io { action: "prepare", file: storage.place(&name), error }
            }
        };
        storage.create_zeroed(&unfinished, bytes).map_err(failed)?;
        let mut block = AlignedBuffer::new(BLOCK_BYTES);
        format::seal_segment_head(block.as_mut_slice(), &SegmentHead { bytes, number, identity });
        let finished = storage.open(&unfinished, Access::Durable).and_then(|file| {
            file.write(0, block.as_slice())?;
            storage.rename(&unfinished, &name)?;
            Ok(file)
        });
        match finished {
            Ok(file) => Ok(Self { number, bytes, file }),
            Err(error) => {
                // Its space may be what is missing. The first error is the one to report; a leftover is removed at the
                // next start.
                drop(storage.remove(&unfinished));
                Err(failed(error))
            }
        }
    }

    /// Opens segment `number`, which must be of the journal `identity` if that is known already. `position` is the
    /// first record that it could hold, for errors.
    pub(super) fn open(
        storage: &dyn Storage,
        number: u64,
        access: Access,
        identity: Option<Identity>,
        position: u64,
    ) -> Result<(Self, Identity), JournalError> {
        let name = segment_name(number);
        let failed = |error| JournalError::Io { action: "read", file: storage.place(&name), error };
        let damaged =
            |cause: &str| JournalError::Damaged { file: storage.place(&name), offset: 0, position, cause: cause.to_owned() };
        let file = storage.open(&name, access).map_err(failed)?;
        let bytes = file.bytes().map_err(failed)?;
        if bytes < BLOCK {
            return Err(damaged("the file is too short to be a segment"));
        }
        let mut block = AlignedBuffer::new(BLOCK_BYTES);
        file.read(0, block.as_mut_slice()).map_err(failed)?;
        let head = match parse_head(block.as_slice()) {
            Ok(Head::Segment(head)) => head,
            Ok(_) => return Err(damaged("the file does not start with a segment header")),
            Err(cause) => return Err(damaged(cause)),
        };
        if verify_hash(block.as_slice()).is_none() {
            return Err(damaged("the checksum of the segment header does not match"));
        }
        if head.number != number {
            return Err(damaged(&format!("the header says that it is segment {}", head.number)));
        }
        if identity.is_some_and(|identity| identity != head.identity) {
            return Err(damaged("the segment belongs to another journal"));
        }
        if head.bytes != bytes {
            return Err(damaged(&format!("the file has {bytes} bytes, but its header says {}", head.bytes)));
        }
        Ok((Self { number, bytes, file }, head.identity))
    }
}

/// The names of all files.
pub(super) fn names(storage: &dyn Storage) -> Result<Vec<String>, JournalError> {
    match storage.names() {
        Ok(names) => Ok(names),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(JournalError::Missing { folder: storage.place("") }),
        Err(error) => Err(JournalError::Io { action: "read", file: storage.place(""), error }),
    }
}

/// The numbers of the segments that are there, in order.
pub(super) fn numbers(storage: &dyn Storage) -> Result<Vec<u64>, JournalError> {
    let mut numbers: Vec<u64> = names(storage)?.iter().filter_map(|name| segment_number(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// What stands where the walk is.
pub(super) enum Step {
    /// A sound batch; the walk has moved behind it.
    Batch(Found),
    /// A sound footer; [`Walk::enter_next`] goes on.
    Sealed,
    /// The first sector is untouched.
    Blank,
    /// The structure has a sound head, a wrong hash and an untouched sector within this many bytes.
    Torn(u64),
    /// Neither sound nor explained by an interrupted write.
    Damaged(String),
}

/// A batch in the walk's window, valid until the next step.
pub(super) struct Found {
    pub(super) head: BatchHead,
    payload: Range<usize>,
}

/// Where the last sound structure stands.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) number: u64,
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

/// Reads a journal in order.
pub(super) struct Walk {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) identity: Identity,
    pub(super) segment: Segment,
    /// Where the next structure starts.
    pub(super) offset: u64,
    /// Where the history stands before it.
    pub(super) chain: Chain,
    /// The last batch or footer that this walk has met.
    pub(super) last: Option<Place>,
    /// Bytes of the last batch, which ends where the walk stands unless it has just entered a segment.
    batch_bytes: u64,
    window: Window,
}

impl Walk {
    /// Starts before the first batch, or at a bookmark.
    pub(super) fn start(storage: Arc<dyn Storage>, from: Option<&Bookmark>) -> Result<Self, JournalError> {
        let (number, position) = from.map_or((1, 1), |bookmark| (bookmark.segment, bookmark.position + 1));
        let expected = from.map(|bookmark| bookmark.identity);
        if let Some(&first) = numbers(&*storage)?.first().filter(|first| **first > number) {
            return Err(JournalError::Cut { file: storage.place(&segment_name(first)) });
        }
        let (segment, identity) = Segment::open(&*storage, number, Access::Read, expected, position)?;
        let (offset, chain, batch_bytes) = match from {
            None => (BLOCK, Chain::genesis(identity), 0),
            Some(&Bookmark { offset, sequence, position, hash, batch_bytes, .. }) => {
                (offset, Chain { sequence, position, hash }, batch_bytes)
            }
        };
        let mut walk = Self { storage, identity, segment, offset, chain, last: None, batch_bytes, window: Window::new() };
        if offset < BLOCK || !offset.is_multiple_of(BLOCK) || offset + BLOCK > walk.segment.bytes {
            return Err(walk.damaged("no batch can start here, but a snapshot says that one does".to_owned()));
        }
        if chain.sequence > 0 {
            walk.check_batch_before()?;
        }
        Ok(walk)
    }

    /// The batch before a bookmark must be the one that the bookmark names: its hash fixes all that was before it. Segments that
    /// are older than the snapshot, or of another history, are told by this.
    fn check_batch_before(&mut self) -> Result<(), JournalError> {
        let end = self.offset;
        let bytes = self.batch_bytes;
        let is_possible =
            bytes >= BLOCK && bytes.is_multiple_of(BLOCK) && bytes <= end - BLOCK && bytes <= JOURNAL_EXTENT_BYTES_MAX;
        let hash = if is_possible {
            self.offset = end - bytes;
            let hash = verify_hash(self.fetch(bytes)?);
            self.offset = end;
            hash
        } else {
            None
        };
        if hash != Some(self.chain.hash) {
            return Err(self.damaged(
                "the batch before this place is not the one that a sound snapshot was made after: the segments are older than the \
                 snapshot, have lost records, or are of another history"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// Where the walk stands.
    pub(super) fn bookmark(&self) -> Bookmark {
        let Chain { sequence, position, hash } = self.chain;
        let (segment, batch_bytes) = (self.segment.number, self.batch_bytes);
        Bookmark { identity: self.identity, segment, offset: self.offset, sequence, position, hash, batch_bytes }
    }

    /// Goes on in the next segment, after [`Step::Sealed`].
    pub(super) fn enter_next(&mut self) -> Result<(), JournalError> {
        let number = self.segment.number + 1;
        let (segment, _) = Segment::open(&*self.storage, number, Access::Read, Some(self.identity), self.chain.position + 1)?;
        self.segment = segment;
        self.offset = BLOCK;
        self.window.discard();
        Ok(())
    }

    /// Forgets what was read ahead, because it may have been written since.
    pub(super) fn refresh(&mut self) {
        self.window.discard();
    }

    /// Looks at the next structure.
    pub(super) fn step(&mut self) -> Result<Step, JournalError> {
        if self.offset + BLOCK > self.segment.bytes {
            return Ok(Step::Damaged("the segment ends without a footer".to_owned()));
        }
        let block = self.fetch(BLOCK)?;
        if is_zero_sector(&block[..SECTOR_BYTES]) {
            return Ok(Step::Blank);
        }
        match parse_head(block) {
            Err(cause) => Ok(Step::Damaged(cause.to_owned())),
            Ok(Head::Segment(_)) => Ok(Step::Damaged("a segment header stands where a batch should".to_owned())),
            Ok(Head::Footer(number, chain)) => self.step_footer(number, chain),
            Ok(Head::Batch(head)) => self.step_batch(head),
        }
    }

    fn step_footer(&mut self, number: u64, chain: Chain) -> Result<Step, JournalError> {
        let block = self.fetch(BLOCK)?;
        if verify_hash(block).is_none() {
            return Ok(torn_or_damaged(block, "footer"));
        }
        if number != self.segment.number || chain != self.chain {
            return Ok(Step::Damaged("the footer does not follow the last batch".to_owned()));
        }
        self.last = Some(self.place(BLOCK));
        Ok(Step::Sealed)
    }

    fn step_batch(&mut self, head: BatchHead) -> Result<Step, JournalError> {
        let room = (self.segment.bytes - self.offset - BLOCK).min(JOURNAL_EXTENT_BYTES_MAX);
        if head.payload_bytes > room || extent_bytes(head.payload_bytes) > room {
            return Ok(Step::Damaged(format!("a batch of {} bytes does not fit here", head.payload_bytes)));
        }
        if head.sequence != self.chain.sequence + 1
            || head.first_position != self.chain.position + 1
            || head.previous != self.chain.hash
        {
            return Ok(Step::Damaged(format!(
                "batch {} starting with record {} does not follow batch {}",
                head.sequence, head.first_position, self.chain.sequence
            )));
        }
        let extent = extent_bytes(head.payload_bytes);
        let payload = HEAD_BYTES..HEAD_BYTES + head.payload_bytes as usize;
        let bytes = self.fetch(extent)?;
        let Some(hash) = verify_hash(bytes) else {
            return Ok(torn_or_damaged(bytes, "batch"));
        };
        if !payload_is_sound(&bytes[payload.clone()], head.records) {
            return Ok(Step::Damaged("the records of the batch do not fill it exactly".to_owned()));
        }
        let found = Found { head, payload: self.window.index(self.offset, payload) };
        self.last = Some(self.place(extent));
        self.batch_bytes = extent;
        self.offset += extent;
        self.chain = Chain { sequence: head.sequence, position: self.chain.position + u64::from(head.records), hash };
        Ok(Step::Batch(found))
    }

    /// The payload of the batch that the last step found.
    pub(super) fn payload(&self, found: &Found) -> &[u8] {
        &self.window.buffer.as_slice()[found.payload.clone()]
    }

    /// The head of the batch that the last step found.
    pub(super) fn head(&self, found: &Found) -> &[u8] {
        &self.window.buffer.as_slice()[found.payload.start - HEAD_BYTES..found.payload.start]
    }

    /// The damage at the walk's place, as an error.
    pub(super) fn damaged(&self, cause: String) -> JournalError {
        JournalError::Damaged {
            file: self.storage.place(&segment_name(self.segment.number)),
            offset: self.offset,
            position: self.chain.position + 1,
            cause,
        }
    }

    fn place(&self, bytes: u64) -> Place {
        Place { number: self.segment.number, offset: self.offset, bytes }
    }

    fn fetch(&mut self, bytes: u64) -> Result<&[u8], JournalError> {
        self.window.fetch(&self.segment, self.offset, bytes as usize).map_err(|error| JournalError::Io {
            action: "read",
            file: self.storage.place(&segment_name(self.segment.number)),
            error,
        })
    }
}

fn torn_or_damaged(bytes: &[u8], what: &str) -> Step {
    if has_zero_sector(bytes) {
        Step::Torn(bytes.len() as u64)
    } else {
        Step::Damaged(format!("the checksum of the {what} does not match, and it was written whole"))
    }
}

/// A part of the segment in memory.
struct Window {
    buffer: AlignedBuffer,
    start: u64,
    end: u64,
    chunk: usize,
}

impl Window {
    fn new() -> Self {
        Self { buffer: AlignedBuffer::new(WINDOW_BYTES_MIN), start: 0, end: 0, chunk: WINDOW_BYTES_MIN }
    }

    fn discard(&mut self) {
        self.end = self.start;
        self.chunk = WINDOW_BYTES_MIN;
        // An import was read: its memory is not kept for ever.
        if self.buffer.capacity() > 4 * WINDOW_BYTES_MAX {
            self.buffer = AlignedBuffer::new(WINDOW_BYTES_MIN);
        }
    }

    /// `range` counted from the file's `offset`, as a range of the buffer.
    fn index(&self, offset: u64, range: Range<usize>) -> Range<usize> {
        let base = (offset - self.start) as usize;
        base + range.start..base + range.end
    }

    fn fetch(&mut self, segment: &Segment, offset: u64, bytes: usize) -> io::Result<&[u8]> {
        let inside = (self.start..self.end).contains(&offset);
        let kept = if inside { (self.end - offset) as usize } else { 0 };
        if kept < bytes {
            let wanted = bytes.max(kept + self.chunk).min((segment.bytes - offset) as usize);
            let moved = (offset.saturating_sub(self.start)) as usize;
            if wanted > self.buffer.capacity() {
                let mut larger = AlignedBuffer::new(wanted);
                if kept > 0 {
                    larger.as_mut_slice()[..kept].copy_from_slice(&self.buffer.as_slice()[moved..moved + kept]);
                }
                self.buffer = larger;
            } else if kept > 0 {
                self.buffer.as_mut_slice().copy_within(moved..moved + kept, 0);
            }
            // Until the read has succeeded the window holds only what was kept.
            self.start = offset;
            self.end = offset + kept as u64;
            segment.file.read(self.end, &mut self.buffer.as_mut_slice()[kept..wanted])?;
            self.end = offset + wanted as u64;
            self.chunk = (self.chunk * 2).min(WINDOW_BYTES_MAX);
        }
        let range = self.index(offset, 0..bytes);
        Ok(&self.buffer.as_slice()[range])
    }
}
