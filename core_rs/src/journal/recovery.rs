//! What a start does with the files that the last process left, whatever ended it.
//!
//! **Always:** nothing is changed before everything has been read and found in order. What was acknowledged is kept, or
//! the start is refused. A start that is itself interrupted leaves files that the next start takes the same way.
//!
//! **The crash story.** One write is in flight at a time, it goes over zeros, and the next begins only when it is on
//! disk. So a crash leaves one of these:
//!
//! 1. *While a segment is prepared:* a file ending in `.new`, which is removed; or a whole one that holds nothing yet,
//!    which is used, once its name is on disk: the process may have died between giving the name and that.
//! 2. *While a batch or footer is written:* any choice of its sectors. If the first one is there, its head says how far
//!    the structure reaches, and beyond it all is zero. If not, all that is not zero behind the last sound structure is
//!    of this one write. In both cases a sector is missing, nobody was told of the batch, and it is overwritten with
//!    zeros. If no sector is missing it is sound.
//! 3. *After it was written, before it was acknowledged:* a sound batch, which counts. It may have been on its way to
//!    the disk when the process died, so the last structure is written once more, unchanged and durably, before
//!    anything follows it.
//! 4. *Between footer and the first batch of the next segment:* the next segment exists, because it was prepared before
//!    the footer was written.
//!
//! Everything else is damage and refused: a wrong hash with all sectors there, an intact batch behind a missing one,
//! anything not zero behind a torn one, a missing or foreign segment, a chain that does not fit. So is a sound end
//! before the position of the durable mark: then an acknowledged batch was lost as a whole, or lost a sector and would
//! pass for a torn one.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread;

use super::aligned::AlignedBuffer;
use super::error::JournalError;
use super::format::{BLOCK_BYTES, Chain, Hash, Identity, Records, SECTOR_BYTES, is_zero_sector, parse_head, verify_hash};
use super::mark::DurableMark;
use super::names::{SNAPSHOT, UNFINISHED, segment_name};
use super::segment::{BLOCK, Bookmark, Place, Segment, Step, Walk, names, numbers};
use super::storage::{Access, Storage};

/// Bytes looked at or zeroed at a time.
const SCAN_BYTES: usize = 1 << 20;
/// Bytes of records handed over at a time where reading goes on beside replaying, and how often that may be done ahead.
const READ_BYTES: usize = 256 << 10;
const READS_AHEAD: usize = 8;

/// Receives every record in order: position and content; its error ends the start.
pub type Each<'a> = dyn FnMut(u64, &[u8]) -> Result<(), String> + 'a;

/// Takes up the records of a journal that is opened.
pub trait Replays {
    /// Takes records that follow those taken before.
    ///
    /// # Errors
    /// [`JournalError::Rejected`]; it ends the start.
    fn replay(&mut self, records: Records<'_>) -> Result<(), JournalError>;
}

/// One record at a time.
pub struct PerRecord<'a, 'b>(pub &'a mut Each<'b>);

impl Replays for PerRecord<'_, '_> {
    fn replay(&mut self, mut records: Records<'_>) -> Result<(), JournalError> {
        records.try_for_each(|(position, record)| {
            (self.0)(position, record).map_err(|cause| JournalError::Rejected { position, cause })
        })
    }
}

/// From where on a journal is replayed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Start {
    /// Where reading begins.
    pub bookmark: Bookmark,
    /// The record whose state is there already: what the batches behind the bookmark hold up to it is read and not replayed.
    pub position: u64,
}

/// What a journal holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The journal.
    pub identity: Identity,
    /// Position of the last record.
    pub position: u64,
    /// Hash of the last batch, which fixes the whole history.
    pub hash: Hash,
    /// Batches.
    pub batches: u64,
    /// Bytes of an interrupted write at the end, which the next start will clear.
    pub torn_bytes: u64,
}

/// A journal ready to be continued.
pub(super) struct Recovered {
    pub(super) identity: Identity,
    pub(super) segment: Segment,
    pub(super) offset: u64,
    pub(super) chain: Chain,
    pub(super) next: Option<Segment>,
    pub(super) mark: DurableMark,
    pub(super) torn_bytes: u64,
}

/// Reads and checks a whole journal without changing anything. Meant for a journal that no switch has open.
///
/// # Errors
/// As for opening it.
pub fn inspect(storage: &Arc<dyn Storage>, each: &mut Each<'_>) -> Result<Inspection, JournalError> {
    inspect_from(storage, None, &mut PerRecord(each))
}

/// The same from a start on.
///
/// # Errors
/// As for opening it.
pub fn inspect_from(
    storage: &Arc<dyn Storage>,
    start: Option<&Start>,
    replays: &mut dyn Replays,
) -> Result<Inspection, JournalError> {
    let found = examine(storage, start, replays, true)?;
    Ok(Inspection {
        identity: found.walk.identity,
        position: found.walk.chain.position,
        hash: found.walk.chain.hash,
        batches: found.walk.chain.sequence,
        torn_bytes: found.torn_bytes,
    })
}

/// Reads and checks a journal from a start on, then clears the torn tail. The caller holds the lock. With `beside`, reading
/// goes on on a thread of its own while records are replayed.
pub(super) fn recover(
    storage: &Arc<dyn Storage>,
    start: Option<&Start>,
    replays: &mut dyn Replays,
    beside: bool,
) -> Result<Recovered, JournalError> {
    let Examined { walk, torn_bytes, next } = examine(storage, start, replays, beside)?;
    for name in names(&**storage)? {
        // A snapshot that is not whole is for the follower that looks after the journal: one may be at work already.
        if name.ends_with(UNFINISHED) && !name.contains(SNAPSHOT) {
            storage.remove(&name).map_err(|error| failed(&**storage, "remove", &name, error))?;
        }
    }
    // A segment may have got its name from a process that ended before the name was on disk. What is written to it counts as
    // durable, so its name must be there first.
    storage.sync_names().map_err(|error| failed(&**storage, "sync the names in", "", error))?;
    let open = |number| Segment::open(&**storage, number, Access::Durable, Some(walk.identity), walk.chain.position + 1);
    let (segment, _) = open(walk.segment.number)?;
    let written = clear(&segment, walk.offset, torn_bytes).and_then(|()| match walk.last {
        Some(place) if place.number == segment.number => rewrite(&segment, place),
        _ => Ok(()),
    });
    written.map_err(|error| failed(&**storage, "repair", &segment_name(segment.number), error))?;
    if let Some(place) = walk.last.filter(|place| place.number != segment.number) {
        let (sealed, _) = open(place.number)?;
        rewrite(&sealed, place).map_err(|error| failed(&**storage, "repair", &segment_name(sealed.number), error))?;
    }
    let mark = match existing(DurableMark::open_to_store(&**storage))? {
        Some(mark) => mark,
        None => DurableMark::create(&**storage)?,
    };
    mark.store(walk.identity, walk.chain.position)?;
    Ok(Recovered {
        identity: walk.identity,
        offset: walk.offset,
        chain: walk.chain,
        next: next.map(open).transpose()?.map(|(segment, _)| segment),
        segment,
        mark,
        torn_bytes,
    })
}

struct Examined {
    /// Stands at the end.
    walk: Walk,
    torn_bytes: u64,
    /// Number of a prepared segment.
    next: Option<u64>,
}

fn examine(
    storage: &Arc<dyn Storage>,
    start: Option<&Start>,
    replays: &mut dyn Replays,
    beside: bool,
) -> Result<Examined, JournalError> {
    let walk = Walk::start(Arc::clone(storage), start.map(|start| &start.bookmark))?;
    let last_number = last_segment(&**storage)?;
    let there = start.map_or(0, |start| start.position);
    let (walk, torn_bytes) = if beside {
        walk_beside(walk, last_number, there, replays)?
    } else {
        walk_to_end(walk, last_number, &mut |records| replays.replay(records.after(there)))?
    };
    let next = (last_number > walk.segment.number).then_some(walk.segment.number + 1);
    if let Some(number) = next {
        refuse_unless_blank(&walk, number, last_number)?;
    }
    let marked = existing(DurableMark::open_on(&**storage))?.map_or(Ok(0), |mark| mark.load(walk.identity))?;
    // A snapshot was made from what was durable, so it is as good a witness as the mark, and one that a power cut spares.
    let durable = marked.max(there);
    if durable > walk.chain.position {
        return Err(JournalError::Lost {
            file: storage.place(&segment_name(walk.segment.number)),
            offset: walk.offset,
            found: walk.chain.position,
            durable,
        });
    }
    Ok(Examined { walk, torn_bytes, next })
}

/// Goes to the end, giving the records of each batch, and says how many bytes of an interrupted write stand there.
fn walk_to_end(mut walk: Walk, last_number: u64, give: &mut Give<'_>) -> Result<(Walk, u64), JournalError> {
    let torn_bytes = loop {
        match walk.step()? {
            Step::Batch(found) => give(Records::new(walk.payload(&found), found.head.first_position))?,
            Step::Sealed if walk.segment.number == last_number => {
                return Err(walk.damaged(format!("the segment is sealed, but {} is missing", segment_name(last_number + 1))));
            }
            Step::Sealed => walk.enter_next()?,
            Step::Blank => break headless_bytes(&walk)?,
            Step::Torn(extent) => {
                if written(&*walk.storage, &walk.segment, walk.offset + extent)?.bytes > 0 {
                    return Err(walk.damaged("a batch is incomplete, but more was written behind it".to_owned()));
                }
                break extent;
            }
            Step::Damaged(cause) => return Err(walk.damaged(cause)),
        }
    };
    Ok((walk, torn_bytes))
}

type Give<'a> = dyn FnMut(Records<'_>) -> Result<(), JournalError> + 'a;

/// The records of some batches that follow each other.
#[derive(Default)]
struct Read {
    first_position: u64,
    payload: Vec<u8>,
}

/// [`walk_to_end`] on a thread of its own, some reads ahead of the records' being replayed on this one.
fn walk_beside(walk: Walk, last_number: u64, there: u64, replays: &mut dyn Replays) -> Result<(Walk, u64), JournalError> {
    let (full, filled) = mpsc::sync_channel::<Read>(READS_AHEAD);
    let (used, emptied) = mpsc::channel::<Read>();
    thread::scope(|scope| {
        let walking = scope.spawn(move || {
            let mut reading = Read::default();
            // That nobody takes any more means that replaying has failed: its error is the one to tell.
            let nobody = || JournalError::Rejected { position: 0, cause: "the replay has ended".to_owned() };
            let walked = walk_to_end(walk, last_number, &mut |records| {
                let mut records = records.after(there);
                // An import is one batch and may be large: it is handed over in pieces, so that what is held has a bound.
                loop {
                    let (first_position, rest) = records.payload();
                    let bytes = if rest.len() > READ_BYTES { records.skip_bytes(READ_BYTES) } else { rest.len() };
                    if reading.payload.len() + bytes > READ_BYTES && !reading.payload.is_empty() {
                        let mut empty = emptied.try_recv().unwrap_or_default();
                        empty.payload.clear();
                        full.send(std::mem::replace(&mut reading, empty)).map_err(|_| nobody())?;
                    }
                    if reading.payload.is_empty() {
                        reading.first_position = first_position;
                    }
                    reading.payload.extend_from_slice(&rest[..bytes]);
                    if bytes == rest.len() {
                        return Ok(());
                    }
                }
            });
            // What was read before damage is replayed all the same: the first record that is wrong is the one to name.
            if !reading.payload.is_empty() {
                full.send(reading).map_err(|_| nobody())?;
            }
            walked
        });
        for read in &filled {
            if let Err(error) = replays.replay(Records::new(&read.payload, read.first_position)) {
                drop(filled);
                drop(walking.join());
                return Err(error);
            }
            // The walk may have come to its end.
            drop(used.send(read));
        }
        walking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The highest segment number, after a check that none is missing behind the lowest.
fn last_segment(storage: &dyn Storage) -> Result<u64, JournalError> {
    let numbers = numbers(storage)?;
    let Some((&first, &last)) = numbers.first().zip(numbers.last()) else {
        return Err(JournalError::Missing { folder: storage.place("") });
    };
    match (first..).zip(&numbers).find(|(expected, number)| expected != *number) {
        None => Ok(last),
        Some((expected, _)) => Err(JournalError::Damaged {
            file: storage.place(&segment_name(expected)),
            offset: 0,
            position: 0,
            cause: "the file is missing, but later segments are there".to_owned(),
        }),
    }
}

/// What was written to a part of a segment that should be blank.
struct Written {
    /// Bytes up to the end of the last block that is not all zero.
    bytes: u64,
    /// Where an intact head stands.
    head_at: Option<u64>,
}

fn written(storage: &dyn Storage, segment: &Segment, from: u64) -> Result<Written, JournalError> {
    let mut buffer = AlignedBuffer::new(SCAN_BYTES);
    let mut written = Written { bytes: 0, head_at: None };
    let mut offset = from;
    while offset < segment.bytes {
        let bytes = (segment.bytes - offset).min(SCAN_BYTES as u64) as usize;
        let chunk = &mut buffer.as_mut_slice()[..bytes];
        segment.file.read(offset, chunk).map_err(|error| failed(storage, "read", &segment_name(segment.number), error))?;
        for (block, at) in chunk.chunks_exact(BLOCK_BYTES).zip((offset..).step_by(BLOCK_BYTES)) {
            if !block.chunks_exact(SECTOR_BYTES).all(is_zero_sector) {
                written.bytes = at + BLOCK - from;
                if written.head_at.is_none() && parse_head(block).is_ok() {
                    written.head_at = Some(at);
                }
            }
        }
        offset += bytes as u64;
    }
    Ok(written)
}

/// Bytes of an interrupted write whose first sector is missing; 0 at a clean end. An intact head among them is refused:
/// it was begun only after what is missing had been acknowledged.
fn headless_bytes(walk: &Walk) -> Result<u64, JournalError> {
    let written = written(&*walk.storage, &walk.segment, walk.offset)?;
    match written.head_at {
        None => Ok(written.bytes),
        Some(at) => Err(walk.damaged(format!("nothing complete stands here, but what was written later, at byte {at}, is there"))),
    }
}

/// Behind the walk's end there may be one prepared segment, and nothing may have been written to it.
fn refuse_unless_blank(walk: &Walk, number: u64, last_number: u64) -> Result<(), JournalError> {
    let storage = &*walk.storage;
    let (segment, _) = Segment::open(storage, number, Access::Read, Some(walk.identity), walk.chain.position + 1)?;
    if last_number > number || written(storage, &segment, BLOCK)?.bytes > 0 {
        return Err(walk.damaged(format!("the segment ends here without a footer, but {} is in use", segment_name(last_number))));
    }
    Ok(())
}

fn clear(segment: &Segment, offset: u64, bytes: u64) -> io::Result<()> {
    let zeros = AlignedBuffer::new((bytes as usize).min(SCAN_BYTES));
    let mut cleared = 0;
    while cleared < bytes {
        let chunk = (bytes - cleared).min(SCAN_BYTES as u64);
        segment.file.write(offset + cleared, &zeros.as_slice()[..chunk as usize])?;
        cleared += chunk;
    }
    Ok(())
}

/// Writes the last structure once more as it is. It has been verified, and is again: what is written must not be what a
/// failing read made up.
fn rewrite(segment: &Segment, place: Place) -> io::Result<()> {
    let mut buffer = AlignedBuffer::new(place.bytes as usize);
    segment.file.read(place.offset, buffer.as_mut_slice())?;
    if verify_hash(buffer.as_slice()).is_none() {
        return Err(io::Error::other("it reads differently the second time"));
    }
    segment.file.write(place.offset, buffer.as_slice())
}

/// The mark, unless there is none.
fn existing(opened: Result<DurableMark, JournalError>) -> Result<Option<DurableMark>, JournalError> {
    match opened {
        Ok(mark) => Ok(Some(mark)),
        Err(JournalError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn failed(storage: &dyn Storage, action: &'static str, name: &str, error: io::Error) -> JournalError {
    JournalError::Io { action, file: storage.place(name), error }
}
