//! The bytes of the journal on disk.
//!
//! **For:** encoding and checking the three things a segment holds: its header, batches and its footer.
//!
//! **Always:**
//! - Everything starts at a multiple of [`BLOCK_BYTES`] and fills whole blocks; what is unused is [`PADDING`].
//! - No [`SECTOR_BYTES`] sector of anything written is all zero, and everything is written over zeros. A disk
//!   writes sectors whole or not at all, so a write that was cut short leaves an all-zero sector, and damage does not.
//! - The fields that say how far a structure reaches stand in its first sector under a check of their own
//!   (the *head*). A flipped bit in a length can therefore never pass for a long batch cut short.
//! - `hash` covers all that follows it to the end of the last block: head, payload and padding. It names the
//!   batch before it, so the hash of the last batch fixes the whole history and, through batch 1, the identity.
//!
//! **How:** all numbers are little-endian.
//!
//! ```text
//! at   bytes  segment header     batch               footer
//!  0    32    hash               hash                hash               BLAKE3 of everything after it
//! 32     8    SWJSEGMT           SWJBATCH            SWJFOOTR
//! 40     8    head check         head check          head check         BLAKE3 of magic and 48..112, cut
//! 48     4    version            version             version
//! 52     4    0                  record count        0
//! 56     8    file bytes         payload bytes       segment number
//! 64     8    segment number     sequence            sequence of the last batch
//! 72     8    identity           first position      position of the last record
//! 80    32    identity, 0        hash before         hash of the last batch
//! 112         padding            payload, padding    padding
//! ```
//! A payload is a row of records, each a `u16` length and that many bytes.

use crate::limits::JOURNAL_RECORD_BYTES_MAX;

/// Unit of every write, in bytes: the block of the file systems in use and a multiple of any direct I/O alignment.
pub const BLOCK_BYTES: usize = 4096;
/// What a disk writes whole or not at all, in bytes.
pub const SECTOR_BYTES: usize = 512;
/// Bytes of the fixed fields before a payload.
pub(super) const HEAD_BYTES: usize = 112;
/// Bytes that a record takes beside its content.
pub const RECORD_OVERHEAD_BYTES: usize = 2;
/// Fills what a block does not use; not zero, so that a written sector can be told from an untouched one.
pub(super) const PADDING: u8 = 0xA5;

const VERSION: u32 = 1;
const SEGMENT_MAGIC: [u8; 8] = *b"SWJSEGMT";
const BATCH_MAGIC: [u8; 8] = *b"SWJBATCH";
const FOOTER_MAGIC: [u8; 8] = *b"SWJFOOTR";
const ZERO_SECTOR: [u8; SECTOR_BYTES] = [0; SECTOR_BYTES];

const _: () = assert!(HEAD_BYTES <= SECTOR_BYTES, "a head must be written whole or not at all");
const _: () = assert!(BLOCK_BYTES.is_multiple_of(SECTOR_BYTES));
const _: () = assert!(JOURNAL_RECORD_BYTES_MAX <= u16::MAX as usize);

/// A BLAKE3 hash.
pub type Hash = [u8; 32];
/// What tells one journal from any other: 16 random bytes from its creation.
pub type Identity = [u8; 16];

/// Where the history stands: the last batch and the last record in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    /// Number of the last batch; 0 before the first.
    pub(super) sequence: u64,
    /// Position of the last record; 0 before the first.
    pub(super) position: u64,
    /// Hash of the last batch, or of the identity before the first.
    pub(super) hash: Hash,
}

impl Chain {
    /// The chain before the first batch of the journal with this identity.
    pub(super) fn genesis(identity: Identity) -> Self {
        Self { sequence: 0, position: 0, hash: *blake3::hash(&identity).as_bytes() }
    }
}

/// The head of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHead {
    /// Size of the whole file in bytes.
    pub(super) bytes: u64,
    /// 1 for the first segment, then without gaps.
    pub(super) number: u64,
    /// The journal that it belongs to.
    pub(super) identity: Identity,
}

/// The head of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchHead {
    /// Records in it, at least one.
    pub(super) records: u32,
    /// Bytes of the payload, without head and padding.
    pub(super) payload_bytes: u64,
    /// 1 for the journal's first batch, then without gaps.
    pub(super) sequence: u64,
    /// Position of its first record.
    pub(super) first_position: u64,
    /// Hash of the batch before it.
    pub(super) previous: Hash,
}

/// What stands at a block where a head is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// The header of a segment.
    Segment(SegmentHead),
    /// A batch starts here.
    Batch(BatchHead),
    /// The segment is sealed here: its number and where the chain stands.
    Footer(u64, Chain),
}

/// Bytes that a batch with this payload takes in the file.
pub(super) const fn extent_bytes(payload_bytes: u64) -> u64 {
    (payload_bytes + HEAD_BYTES as u64).next_multiple_of(BLOCK_BYTES as u64)
}

/// Whether a sector is untouched.
pub(super) fn is_zero_sector(sector: &[u8]) -> bool {
    sector == &ZERO_SECTOR[..sector.len()]
}

/// Whether at least one whole sector of `bytes` is untouched.
pub(super) fn has_zero_sector(bytes: &[u8]) -> bool {
    bytes.chunks_exact(SECTOR_BYTES).any(is_zero_sector)
}

/// Completes a batch in place: `bytes` is its whole extent, with the payload already behind the head. Returns the chain
/// after it.
///
/// # Panics
/// When a sector would be all zero (a record held 511 zero bytes in a row): recovery could not tell it from a torn
/// write.
pub(super) fn seal_batch(bytes: &mut [u8], payload_bytes: usize, records: u32, chain: &Chain) -> Chain {
    assert!(records > 0 && bytes.len() as u64 == extent_bytes(payload_bytes as u64));
    put_head(bytes, BATCH_MAGIC, records, payload_bytes as u64, chain.sequence + 1, chain.position + 1);
    bytes[80..112].copy_from_slice(&chain.hash);
    bytes[HEAD_BYTES + payload_bytes..].fill(PADDING);
    let hash = put_hash(bytes);
    assert!(!has_zero_sector(bytes), "a journal record holds a sector of zeros");
    Chain { sequence: chain.sequence + 1, position: chain.position + u64::from(records), hash }
}

/// Writes the footer that seals a segment into one block.
pub(super) fn seal_footer(block: &mut [u8], segment_number: u64, chain: &Chain) {
    assert_eq!(block.len(), BLOCK_BYTES);
    block.fill(PADDING);
    put_head(block, FOOTER_MAGIC, 0, segment_number, chain.sequence, chain.position);
    block[80..112].copy_from_slice(&chain.hash);
    put_hash(block);
}

/// Writes the header of a segment into one block.
pub(super) fn seal_segment_head(block: &mut [u8], head: &SegmentHead) {
    assert_eq!(block.len(), BLOCK_BYTES);
    block.fill(PADDING);
    put_head(block, SEGMENT_MAGIC, 0, head.bytes, head.number, 0);
    block[72..88].copy_from_slice(&head.identity);
    block[88..112].fill(0);
    put_hash(block);
}

/// Reads the head at the start of `block` (at least one sector); the error says what is wrong with it.
///
/// # Errors
/// The head is damaged, or of a format that this program does not know.
pub(super) fn parse_head(block: &[u8]) -> Result<Head, &'static str> {
    if block[40..48] != head_check(block) {
        return Err("the checksum of the head does not match");
    }
    if u32_at(block, 48) != VERSION {
        return Err("the format version is not the one this program reads");
    }
    let magic: [u8; 8] = bytes_at(block, 32);
    match magic {
        SEGMENT_MAGIC => {
            Ok(Head::Segment(SegmentHead { bytes: u64_at(block, 56), number: u64_at(block, 64), identity: bytes_at(block, 72) }))
        }
        BATCH_MAGIC => Ok(Head::Batch(BatchHead {
            records: u32_at(block, 52),
            payload_bytes: u64_at(block, 56),
            sequence: u64_at(block, 64),
            first_position: u64_at(block, 72),
            previous: bytes_at(block, 80),
        })),
        FOOTER_MAGIC => Ok(Head::Footer(
            u64_at(block, 56),
            Chain { sequence: u64_at(block, 64), position: u64_at(block, 72), hash: bytes_at(block, 80) },
        )),
        _ => Err("this is neither a batch nor a footer"),
    }
}

/// The hash that a complete structure should carry in its first 32 bytes, and whether it does.
pub(super) fn verify_hash(bytes: &[u8]) -> Option<Hash> {
    let hash = *blake3::hash(&bytes[32..]).as_bytes();
    (bytes[..32] == hash).then_some(hash)
}

/// Appends one record to a payload at `at`; returns where the next one goes.
pub(super) fn put_record(payload: &mut [u8], at: usize, record: &[u8]) -> usize {
    let content = at + RECORD_OVERHEAD_BYTES;
    payload[at..content].copy_from_slice(&(record.len() as u16).to_le_bytes());
    payload[content..content + record.len()].copy_from_slice(record);
    content + record.len()
}

/// The records of one payload, in order. Ends early on a malformed one, which no verified batch holds.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    position: u64,
}

impl<'a> Records<'a> {
    /// Iterates over `payload`, whose first record has this position.
    #[must_use]
    pub fn new(payload: &'a [u8], first_position: u64) -> Self {
        Self { rest: payload, position: first_position }
    }

    /// The same without the records up to and including `position`.
    #[must_use]
    pub fn after(mut self, position: u64) -> Self {
        while self.position <= position && self.next().is_some() {}
        self
    }

    /// Goes on behind as many whole records as have `bytes` with their lengths, or a few more; gives how many bytes they had.
    pub(super) fn skip_bytes(&mut self, bytes: usize) -> usize {
        let before = self.rest.len();
        while before - self.rest.len() < bytes && self.next().is_some() {}
        before - self.rest.len()
    }

    /// The rest with its lengths, and the position of its first record.
    #[must_use]
    pub fn payload(&self) -> (u64, &'a [u8]) {
        (self.position, self.rest)
    }
}

impl<'a> Iterator for Records<'a> {
    /// Position and content.
    type Item = (u64, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = self.rest.split_first_chunk::<RECORD_OVERHEAD_BYTES>()?;
        let (record, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        self.rest = rest;
        let position = self.position;
        self.position += 1;
        Some((position, record))
    }
}

/// Whether the payload holds exactly `records` records and nothing else.
pub(super) fn payload_is_sound(payload: &[u8], records: u32) -> bool {
    let mut walk = Records::new(payload, 0);
    let lengths_are_sound = walk.by_ref().all(|(_, record)| (1..=JOURNAL_RECORD_BYTES_MAX).contains(&record.len()));
    lengths_are_sound && walk.rest.is_empty() && walk.position == u64::from(records)
}

fn put_head(bytes: &mut [u8], magic: [u8; 8], count: u32, at_56: u64, at_64: u64, at_72: u64) {
    bytes[32..40].copy_from_slice(&magic);
    bytes[48..52].copy_from_slice(&VERSION.to_le_bytes());
    bytes[52..56].copy_from_slice(&count.to_le_bytes());
    bytes[56..64].copy_from_slice(&at_56.to_le_bytes());
    bytes[64..72].copy_from_slice(&at_64.to_le_bytes());
    bytes[72..80].copy_from_slice(&at_72.to_le_bytes());
}

/// Sets the head check, then the hash over everything behind it.
fn put_hash(bytes: &mut [u8]) -> Hash {
    let check = head_check(bytes);
    bytes[40..48].copy_from_slice(&check);
    let hash = *blake3::hash(&bytes[32..]).as_bytes();
    bytes[..32].copy_from_slice(&hash);
    hash
}

fn head_check(bytes: &[u8]) -> [u8; 8] {
    let mut covered = [0; 8 + HEAD_BYTES - 48];
    covered[..8].copy_from_slice(&bytes[32..40]);
    covered[8..].copy_from_slice(&bytes[48..HEAD_BYTES]);
    bytes_at(blake3::hash(&covered).as_bytes(), 0)
}

fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes_at(bytes, at))
}
