//! The journal: a sound one is damaged as the plan says, then read. It is refused, or gives back what was written, from its
//! beginning; and a start that refuses it changes nothing.
//!
//! Damage alone stops at the checksums. So the plan may set them right over what it damaged: then what comes is whatever was
//! forged, and all that is asked is a sentence or an end.

use std::cell::OnceCell;
use std::sync::Arc;

use switch_core::journal::{BLOCK_BYTES, Each, Identity, Journal, MemoryStorage, Options, SECTOR_BYTES, Storage, inspect};

use crate::Input;

const IDENTITY: Identity = *b"a fuzzed journal";
const DISK_BYTES: u64 = 4 << 20;
const OPTIONS: Options = Options { segment_bytes: 18 * BLOCK_BYTES as u64, batch_bytes_max: 60_002 };
/// Changes of one plan.
const CHANGES_MAX: usize = 12;

type Records = Vec<Vec<u8>>;

thread_local!(static SOUND: OnceCell<(MemoryStorage, Records)> = const { OnceCell::new() });

/// A record whose bytes depend on its number; none is zero.
fn record(number: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (number * 31 + at) as u8 | 1).collect()
}

/// A journal of several batches in two segments, and a third prepared.
fn sound() -> (MemoryStorage, Records) {
    let storage = MemoryStorage::new(DISK_BYTES);
    Journal::create_on(&storage, IDENTITY, &OPTIONS).expect("an empty disk");
    let shared: Arc<dyn Storage> = Arc::new(storage.clone());
    let mut journal = Journal::open_driven(&shared, &OPTIONS, &mut |_, _| Ok(())).expect("an empty journal");
    journal.drive().expect("a working disk");
    let batches: [&[usize]; 6] = [&[30_000, 50, 90], &[7], &[20_000], &[30_000], &[600, 90, 90], &[90]];
    let mut records = Records::new();
    for batch in batches {
        for bytes in batch {
            records.push(record(records.len(), *bytes));
            assert!(journal.has_room(*bytes));
            journal.append(&records[records.len() - 1]);
        }
        assert!(journal.submit());
        journal.drive().expect("a working disk");
        assert_eq!(journal.completed(), Some(journal.position()));
    }
    assert_eq!(journal.statistics().segment, 2);
    (storage, records)
}

/// Sets the checks of the structure at `start` right (see the core's `journal::format` for where they stand), as far as its
/// own head says that it reaches.
fn forge(content: &mut [u8], start: usize) {
    let Some(structure) = content.get_mut(start..).filter(|rest| rest.len() >= BLOCK_BYTES) else { return };
    let covered = [&structure[32..40], &structure[48..112]].concat();
    structure[40..48].copy_from_slice(&blake3::hash(&covered).as_bytes()[..8]);
    let payload_bytes = u64::from_le_bytes(structure[56..64].try_into().expect("eight bytes"));
    let is_batch = &structure[32..40] == b"SWJBATCH";
    let extent = payload_bytes.saturating_add(112).div_ceil(BLOCK_BYTES as u64).saturating_mul(BLOCK_BYTES as u64);
    let end = if is_batch { extent.min(structure.len() as u64) as usize } else { BLOCK_BYTES };
    let hash = blake3::hash(&structure[32..end]);
    structure[..32].copy_from_slice(hash.as_bytes());
}

/// Carries out one change; whether it forged a check. `None` at the plan's end.
fn damage(storage: &MemoryStorage, input: &mut Input<'_>) -> Option<bool> {
    let [kind, file, high, low, fine] = input.array()?;
    let mut names = storage.names().expect("a working disk");
    names.push("journal.new".to_owned());
    let name = &names[usize::from(file) % names.len()];
    let block = usize::from(u16::from_be_bytes([high, low])) % 20 * BLOCK_BYTES;
    let at = block + usize::from(fine) * 2;
    let within = |content: &[u8], at: usize, bytes: usize| (at.min(content.len()), (at + bytes).min(content.len()));
    match kind % 10 {
        0..=2 => {
            let count = usize::from(input.byte()? % 16) + 1;
            let bytes = input.bytes(count);
            storage.alter(name, |content| {
                let (start, end) = within(content, at, bytes.len());
                content[start..end].copy_from_slice(&bytes[..end - start]);
            });
        }
        3 => {
            // A sector that never reached the disk.
            storage.alter(name, |content| {
                let (start, end) = within(content, block + usize::from(fine % 8) * SECTOR_BYTES, SECTOR_BYTES);
                content[start..end].fill(0);
            });
        }
        4 => {
            let from = usize::from(input.byte()?) % 20 * BLOCK_BYTES;
            storage.alter(name, |content| {
                let (start, end) = within(content, from, BLOCK_BYTES);
                let copy = content[start..end].to_vec();
                let (start, end) = within(content, block, copy.len());
                content[start..end].copy_from_slice(&copy[..end - start]);
            });
        }
        5 => {
            storage.alter(name, |content| content.truncate(at));
        }
        6 => {
            storage.alter(name, |content| content.resize(content.len() + block, fine));
        }
        7 => {
            let other = &names[usize::from(input.byte()?) % names.len()];
            // A name that is not there cannot be renamed.
            let _ = storage.rename(name, other);
        }
        8 => {
            // Nor removed.
            let _ = storage.remove(name);
        }
        _ => {
            storage.alter(name, |content| forge(content, block));
            return Some(true);
        }
    }
    Some(false)
}

/// Reads a journal by `open`: whether it was taken, and the records that it gave.
fn read(written: &Records, forged: bool, open: impl FnOnce(&mut Each<'_>) -> bool) -> (bool, Records) {
    let mut found = Records::new();
    let taken = open(&mut |position, record| {
        found.push(record.to_vec());
        assert!(forged || position == found.len() as u64, "positions have no gaps");
        Ok(())
    });
    assert!(forged || written.starts_with(&found), "what is read is what was written");
    (taken, found)
}

/// Damages a sound journal as `data` says, and reads it.
pub fn check(data: &[u8]) {
    let (storage, records) = SOUND.with(|sound_one| {
        let (storage, records) = sound_one.get_or_init(sound);
        (storage.reopened(), records.clone())
    });
    let mut input = Input(data);
    let mut forged = false;
    for _ in 0..CHANGES_MAX {
        match damage(&storage, &mut input) {
            Some(made) => forged |= made,
            None => break,
        }
    }
    let storage = storage.reopened();
    let before = storage.reopened();
    let shared: Arc<dyn Storage> = Arc::new(storage.clone());
    let inspected = read(&records, forged, |each| inspect(&shared, each).is_ok());
    let mut positions = None;
    let opened = read(&records, forged, |each| match Journal::open_driven(&shared, &OPTIONS, each) {
        Ok(mut journal) => {
            positions = Some((journal.position(), journal.durable()));
            // It can be gone on with.
            if journal.has_room(10) {
                journal.append(b"ten bytes.");
                assert!(journal.submit());
                let _ = journal.drive();
            }
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    });
    // A start also needs a disk that it can write to, so it may refuse more; what it takes is what inspecting shows.
    assert!(!opened.0 || inspected == opened);
    if let Some((position, durable)) = positions {
        assert_eq!(position, durable);
        assert!(forged || position == opened.1.len() as u64);
        let again: Arc<dyn Storage> = Arc::new(storage.reopened());
        assert!(forged || inspect(&again, &mut |_, _| Ok(())).is_ok(), "what a start has repaired is sound");
    } else if !inspected.0 {
        for name in before.names().expect("a working disk") {
            assert_eq!(before.content(&name), storage.content(&name), "a refused start changes nothing in {name}");
        }
    }
}

/// Plans of one change each, of one that is forged, and of none.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![Vec::new()];
    for kind in 0..10 {
        for file in 0..4 {
            seeds.push(vec![kind, file, 0, 1, 28, 3, 1, 2, 3, 4]);
        }
    }
    for file in 0..4 {
        seeds.push([[0, file, 0, 1, 28, 0, 255], [9, file, 0, 1, 0, 9, file]].concat());
    }
    seeds
}
