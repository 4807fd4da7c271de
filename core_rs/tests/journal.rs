//! The journal keeps what it acknowledged through every crash, and refuses everything that no crash explains.

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use rustix::event::{PollFd, PollFlags, poll};
use switch_core::journal::{
    Access, BLOCK_BYTES, DurableMark, File, FolderStorage, Identity, Journal, JournalError, MemoryStorage, NewFile, Options,
    Reader, SECTOR_BYTES, Storage, inspect,
};

const IDENTITY: Identity = *b"a test's journal";
const DISK_BYTES: u64 = 16 << 20;
const SECTORS: usize = BLOCK_BYTES / SECTOR_BYTES;
/// Small segments: three blocks more than the largest batch.
const SMALL: Options = Options { segment_bytes: 18 * BLOCK_BYTES as u64, batch_bytes_max: 60_002 };

type Records = Vec<Vec<u8>>;

fn shared(storage: &MemoryStorage) -> Arc<dyn Storage> {
    Arc::new(storage.clone())
}

fn created() -> MemoryStorage {
    let storage = MemoryStorage::new(DISK_BYTES);
    Journal::create_on(&storage, IDENTITY, &SMALL).expect("an empty disk takes a journal");
    storage
}

fn open(storage: &MemoryStorage) -> Result<(Journal, Records), JournalError> {
    let mut records = Records::new();
    let journal = Journal::open_driven(&shared(storage), &SMALL, &mut |position, record| {
        records.push(record.to_vec());
        assert_eq!(position, records.len() as u64, "positions have no gaps");
        Ok(())
    })?;
    assert_eq!(journal.position(), records.len() as u64);
    assert_eq!(journal.durable(), journal.position());
    Ok((journal, records))
}

fn refusal(storage: &MemoryStorage) -> JournalError {
    let before = storage.reopened();
    let error = open(storage).err().expect("this journal must be refused");
    for name in before.names().expect("a working disk") {
        assert_eq!(before.content(&name), storage.content(&name), "a refused start changes nothing in {name}");
    }
    error
}

/// A record whose bytes depend on its number.
fn record(number: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (number * 31 + at) as u8 | 1).collect()
}

/// Makes `records` durable as one batch.
fn write(journal: &mut Journal, records: &[Vec<u8>]) {
    for record in records {
        assert!(journal.has_room(record.len()));
        journal.append(record);
    }
    assert!(journal.submit());
    assert_eq!(journal.completed(), None);
    journal.drive().expect("a working disk");
    assert_eq!(journal.completed(), Some(journal.position()));
}

/// A journal of several batches in two segments and a third prepared, with all its records.
fn filled() -> (MemoryStorage, Records) {
    let storage = created();
    let (mut journal, _) = open(&storage).expect("an empty journal");
    journal.drive().expect("a working disk");
    let all: Records =
        [40_000, 7, 20_000, 30_000, 600, 90].iter().enumerate().map(|(number, bytes)| record(number, *bytes)).collect();
    for record in &all {
        write(&mut journal, std::slice::from_ref(record));
    }
    assert_eq!(journal.statistics().segment, 2);
    assert!(journal.statistics().prepared);
    drop(journal);
    (storage, all)
}

// --- opening ---

#[test]
fn a_new_journal_is_empty_and_is_made_once() {
    let storage = created();
    let (journal, records) = open(&storage).expect("an empty journal");
    assert_eq!((journal.identity(), records.len()), (IDENTITY, 0));
    drop(journal);
    assert!(matches!(Journal::create_on(&storage, IDENTITY, &SMALL), Err(JournalError::Exists { .. })));
}

#[test]
fn an_interrupted_creation_can_be_repeated() {
    for changes in 0.. {
        let storage = MemoryStorage::new(DISK_BYTES);
        storage.crash_after(changes, |sector| sector == 0);
        let created = Journal::create_on(&storage, IDENTITY, &SMALL);
        let storage = storage.reopened();
        if created.is_ok() {
            assert!(changes > 3, "the crashes hit the creation");
            break;
        }
        assert!(matches!(open(&storage), Err(JournalError::Missing { .. })));
        Journal::create_on(&storage, IDENTITY, &SMALL).expect("the second attempt succeeds");
        open(&storage).expect("and the journal is sound");
    }
}

#[test]
fn a_second_opener_is_refused() {
    let storage = created();
    let (journal, _) = open(&storage).expect("an empty journal");
    assert!(matches!(open(&storage), Err(JournalError::Locked { .. })));
    drop(journal);
    open(&storage).expect("the lock goes with the journal");
}

#[test]
fn impossible_options_are_refused() {
    let storage = MemoryStorage::new(DISK_BYTES);
    let cases = [
        (SMALL.segment_bytes, 60_001),
        (SMALL.segment_bytes - 2 * BLOCK_BYTES as u64, 60_002),
        (SMALL.segment_bytes + 1, 60_002),
        (1 << 40, 60_002),
    ];
    for (segment_bytes, batch_bytes_max) in cases {
        let options = Options { segment_bytes, batch_bytes_max };
        let refused = Journal::create_on(&storage, IDENTITY, &options);
        assert!(matches!(refused, Err(JournalError::Configuration(_))), "{options:?}");
    }
}

#[test]
fn a_record_that_is_not_accepted_is_named() {
    let (storage, _) = filled();
    let mut each = |position, _: &[u8]| if position == 3 { Err("no such terminal".to_owned()) } else { Ok(()) };
    let error = Journal::open_driven(&shared(&storage), &SMALL, &mut each).err().expect("the third is rejected");
    assert!(error.to_string().contains("record 3 of the journal cannot be replayed: no such terminal"), "{error}");
}

#[test]
fn a_journal_may_move_to_another_thread() {
    fn is_send<T: Send>() {}
    is_send::<Journal>();
    is_send::<Reader>();
    is_send::<DurableMark>();
}

// --- appending ---

#[test]
fn records_come_back_in_order_over_segments() {
    let (storage, all) = filled();
    let (_, records) = open(&storage).expect("a sound journal");
    assert_eq!(records, all);
}

#[test]
fn one_batch_is_in_flight_while_the_next_fills() {
    let storage = created();
    let (mut journal, _) = open(&storage).expect("an empty journal");
    assert!(!journal.submit(), "nothing to write");
    journal.append(b"first");
    assert!(journal.submit());
    journal.append(b"second");
    assert!(!journal.submit(), "the writer is busy");
    assert_eq!((journal.position(), journal.durable(), journal.completed()), (2, 0, None));
    journal.drive().expect("a working disk");
    assert_eq!((journal.completed(), journal.durable()), (Some(1), 1));
    assert_eq!(journal.flush(), 2);
    assert_eq!(journal.statistics().batches, 2);
}

#[test]
fn a_batch_has_its_bound() {
    let storage = created();
    let (mut journal, _) = open(&storage).expect("an empty journal");
    assert!(journal.has_room(60_000));
    assert!(!journal.has_room(60_001));
    journal.append(&record(0, 59_000));
    assert!(journal.has_room(60_002 - 59_002 - 2));
    assert!(!journal.has_room(60_002 - 59_002 - 1));
}

#[test]
fn a_full_disk_shows_before_it_is_hit() {
    let storage = created();
    storage.resize(20 * BLOCK_BYTES as u64);
    let (mut journal, _) = open(&storage).expect("an empty journal");
    let mut written = Records::new();
    while journal.has_room(5000) {
        written.push(record(written.len(), 5000));
        write(&mut journal, &written[written.len() - 1..]);
    }
    assert_eq!(written.len(), 8, "17 blocks hold 8 batches of 2 and a footer");
    storage.resize(DISK_BYTES);
    journal.drive().expect("a working disk");
    assert!(journal.has_room(5000), "space was freed");
    written.push(record(8, 5000));
    write(&mut journal, &written[8..]);
    drop(journal);
    assert_eq!(open(&storage).expect("a sound journal").1, written);
}

#[test]
#[should_panic(expected = "only where room was promised")]
fn appending_without_room_is_our_own_bug() {
    let storage = created();
    storage.resize(20 * BLOCK_BYTES as u64);
    let (mut journal, _) = open(&storage).expect("an empty journal");
    write(&mut journal, &[record(0, 60_000)]);
    journal.append(&record(1, 60_000));
}

#[test]
#[should_panic(expected = "a sector of zeros")]
fn a_record_must_not_hold_a_sector_of_zeros() {
    let storage = created();
    let (mut journal, _) = open(&storage).expect("an empty journal");
    write(&mut journal, &[vec![0; 1100]]);
}

#[test]
fn an_import_larger_than_a_segment_is_one_batch() {
    let storage = created();
    let (mut journal, _) = open(&storage).expect("an empty journal");
    write(&mut journal, &[record(0, 100)]);
    let import: Records = (1..=1000).map(|number| record(number, 200)).collect();
    journal.reserve(1000 * 202).expect("the disk has room");
    for record in &import {
        journal.append(record);
    }
    assert_eq!(journal.flush(), 1001);
    journal.drive().expect("a working disk");
    write(&mut journal, &[record(1001, 100)]);
    let statistics = journal.statistics();
    assert_eq!(statistics.batches, 3);
    assert!(statistics.segment > 1, "it took a segment of its own");
    drop(journal);
    let (_, records) = open(&storage).expect("a sound journal");
    assert_eq!((records.len(), &records[1..1001]), (1002, &import[..]));
}

#[test]
fn an_import_that_does_not_fit_the_disk_changes_nothing() {
    let storage = created();
    let (mut journal, _) = open(&storage).expect("an empty journal");
    journal.drive().expect("a working disk");
    storage.resize(60 * BLOCK_BYTES as u64);
    assert!(matches!(journal.reserve(1 << 20), Err(JournalError::NoSpace { .. })));
    assert!(matches!(journal.reserve(2 << 30), Err(JournalError::Configuration(_))));
    for number in 0..3 {
        write(&mut journal, &[record(number, 30_000)]);
    }
    drop(journal);
    assert_eq!(open(&storage).expect("a sound journal").1.len(), 3);
}

// --- crashes ---

#[test]
fn a_batch_missing_any_sectors_was_never_there() {
    for kept in 0..1_u32 << SECTORS {
        let storage = created();
        let (mut journal, _) = open(&storage).expect("an empty journal");
        write(&mut journal, &[record(0, 50)]);
        journal.append(&record(1, 2500));
        journal.submit();
        storage.crash_after(0, move |sector| kept & 1 << sector != 0);
        journal.drive().expect_err("the disk has crashed");
        drop(journal);

        let storage = storage.reopened();
        let (mut journal, records) = open(&storage).expect("a torn tail is no damage");
        let whole = kept == (1 << SECTORS) - 1;
        assert_eq!(records.len(), if whole { 2 } else { 1 }, "kept sectors {kept:08b}");
        assert_eq!(journal.statistics().torn_bytes > 0, !whole && kept != 0);
        write(&mut journal, &[record(2, 10)]);
        drop(journal);
        assert_eq!(open(&storage).expect("a sound journal").1.len(), records.len() + 1);
    }
}

/// Fills two segments and ends in the third, until the disk crashes; returns what was acknowledged and what was
/// appended.
fn work(storage: &MemoryStorage) -> (Records, Records) {
    let (mut acknowledged, mut appended) = (Records::new(), Records::new());
    let Ok((mut journal, records)) = open(storage) else { return (acknowledged, appended) };
    assert!(records.is_empty());
    if journal.drive().is_err() {
        return (acknowledged, appended);
    }
    for number in 0..9 {
        let record = record(number, 18_000);
        journal.append(&record);
        appended.push(record);
        journal.submit();
        let driven = journal.drive();
        if journal.completed().is_some() {
            acknowledged.clone_from(&appended);
        }
        if driven.is_err() {
            break;
        }
    }
    (acknowledged, appended)
}

#[test]
fn a_crash_at_any_change_loses_nothing_acknowledged() {
    let masks: [fn(usize) -> bool; 6] = [|_| false, |_| true, |at| at == 0, |at| at != 0, |at| at % 2 == 0, |at| at > 9];
    for mask in masks {
        for changes in 0.. {
            let storage = created();
            storage.crash_after(changes, mask);
            let (acknowledged, appended) = work(&storage);
            let storage = storage.reopened();
            let (mut journal, records) = open(&storage).unwrap_or_else(|error| panic!("after {changes} changes: {error}"));
            assert!(records.starts_with(&acknowledged), "after {changes} changes");
            assert!(appended.starts_with(&records));
            write(&mut journal, &[record(99, 18_000)]);
            drop(journal);
            assert_eq!(open(&storage).expect("a sound journal").1.len(), records.len() + 1);
            if acknowledged.len() == 9 {
                assert!(changes >= 20, "the crashes hit every step");
                break;
            }
        }
    }
}

#[test]
fn a_crash_during_recovery_is_recovered_from() {
    let torn = created();
    let (mut journal, _) = open(&torn).expect("an empty journal");
    write(&mut journal, &[record(0, 50)]);
    journal.append(&record(1, 30_000));
    journal.submit();
    torn.crash_after(0, |sector| sector != 20);
    journal.drive().expect_err("the disk has crashed");
    drop(journal);
    for mask in [|_| false, |_| true, |at| at == 0, |at| at > 0] as [fn(usize) -> bool; 4] {
        for changes in 0.. {
            let storage = torn.reopened();
            storage.crash_after(changes, mask);
            let opened = open(&storage).is_ok();
            let (_, records) = open(&storage.reopened()).expect("the second start succeeds");
            assert_eq!(records, [record(0, 50)]);
            if opened {
                assert!(changes >= 2, "the crashes hit the repair");
                break;
            }
        }
    }
}

/// A storage that notes when names are brought to disk and when a file is opened for durable writes.
struct Watched {
    storage: MemoryStorage,
    seen: Mutex<Vec<String>>,
}

impl Storage for Watched {
    fn place(&self, name: &str) -> String {
        self.storage.place(name)
    }
    fn mode(&self) -> &'static str {
        self.storage.mode()
    }
    fn lock(&self) -> io::Result<Option<Box<dyn Any + Send>>> {
        self.storage.lock()
    }
    fn names(&self) -> io::Result<Vec<String>> {
        self.storage.names()
    }
    fn create_zeroed(&self, name: &str, bytes: u64) -> io::Result<()> {
        self.storage.create_zeroed(name, bytes)
    }
    fn room(&self) -> io::Result<u64> {
        self.storage.room()
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn NewFile>> {
        self.storage.create(name)
    }
    fn open(&self, name: &str, access: Access) -> io::Result<Arc<dyn File>> {
        if access == Access::Durable {
            self.seen.lock().expect("one thread").push(name.to_owned());
        }
        self.storage.open(name, access)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.storage.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.storage.remove(name)
    }
    fn sync_names(&self) -> io::Result<()> {
        self.seen.lock().expect("one thread").push("all names".to_owned());
        self.storage.sync_names()
    }
}

#[test]
fn a_name_that_a_dead_process_gave_is_on_disk_before_anything_rests_on_it() {
    let (storage, _) = filled();
    let watched = Arc::new(Watched { storage: storage.reopened(), seen: Mutex::default() });
    let storage: Arc<dyn Storage> = Arc::clone(&watched) as Arc<dyn Storage>;
    Journal::open_driven(&storage, &SMALL, &mut |_, _| Ok(())).expect("a sound journal");
    let seen = watched.seen.lock().expect("one thread");
    assert!(seen.len() > 1 && seen[0] == "all names", "{seen:?}");
}

#[test]
fn what_a_dead_process_may_not_have_forced_to_disk_is_written_again() {
    let (storage, _) = filled();
    let storage = storage.reopened();
    open(&storage).expect("a sound journal");
    assert_eq!(storage.changes(), 1, "the last batch");
}

#[derive(Clone, Debug)]
enum Operation {
    Append(usize),
    Submit,
    Drive,
    Complete,
    Reserve(usize),
    Reopen,
    /// The machine stops, not only the process: what was not forced to disk is gone.
    PowerCut,
    /// The change after so many fails; the sectors of its write survive by these bits, used round and round.
    Crash(u64, u64),
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let operation = prop_oneof![
        6 => prop_oneof![1_usize..300, 1_usize..60_000].prop_map(Operation::Append),
        4 => Just(Operation::Submit),
        4 => Just(Operation::Drive),
        4 => Just(Operation::Complete),
        1 => prop_oneof![1_usize..300_000, Just(DISK_BYTES as usize)].prop_map(Operation::Reserve),
        1 => Just(Operation::Reopen),
        1 => Just(Operation::PowerCut),
        1 => (0_u64..4, any::<u64>()).prop_map(|(changes, sectors)| Operation::Crash(changes, sectors)),
    ];
    prop::collection::vec(operation, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_acknowledged_records_stay(operations in operations()) {
        let mut storage = created();
        let (mut journal, _) = open(&storage).expect("an empty journal");
        // Every appended record, the last position of every batch handed over, and the position acknowledged.
        let (mut appended, mut batches, mut acknowledged) = (Records::new(), VecDeque::from([0]), 0);
        for operation in operations {
            let (mut ended, mut power_cut) = (false, false);
            match operation {
                Operation::Append(bytes) => if journal.has_room(bytes) {
                    appended.push(record(appended.len(), bytes));
                    prop_assert_eq!(journal.append(&appended[appended.len() - 1]), appended.len() as u64);
                },
                Operation::Submit => if journal.submit() { batches.push_back(appended.len()) },
                Operation::Drive => ended = journal.drive().is_err(),
                Operation::Complete => if let Some(position) = journal.completed() {
                    prop_assert!(batches.contains(&(position as usize)));
                    acknowledged = position as usize;
                },
                Operation::Reserve(bytes) => {
                    batches.push_back(appended.len());
                    ended = matches!(journal.reserve(bytes), Err(JournalError::Io { .. }));
                    acknowledged = journal.durable() as usize;
                },
                Operation::Reopen => ended = true,
                Operation::PowerCut => (ended, power_cut) = (true, true),
                Operation::Crash(changes, sectors) => storage.crash_after(changes, move |at| sectors >> (at % 64) & 1 == 1),
            }
            if ended {
                drop(journal);
                storage = storage.reopened();
                if power_cut {
                    storage.remove("durable").expect("the mark");
                }
                let (reopened, records) = open(&storage).expect("no crash damages the journal");
                prop_assert!(records.len() >= acknowledged && batches.contains(&records.len()));
                prop_assert!(appended.starts_with(&records));
                acknowledged = records.len();
                appended = records;
                batches = VecDeque::from([acknowledged]);
                journal = reopened;
            }
        }
    }
}

// --- damage ---

#[test]
fn a_flipped_bit_in_anything_written_is_refused() {
    let (storage, all) = filled();
    let names = ["00000001.segment", "00000002.segment", "00000003.segment"];
    for name in names {
        let content = storage.content(name).expect("three segments");
        for at in 0..content.len() {
            let written = content[at / SECTOR_BYTES * SECTOR_BYTES..][..SECTOR_BYTES].iter().any(|byte| *byte != 0);
            if !written || (at % BLOCK_BYTES > 200 && at % 13 != 0) {
                continue;
            }
            let damaged = storage.reopened();
            damaged.alter(name, |content| content[at] ^= 1 << (at % 8));
            let error = open(&damaged).err().unwrap_or_else(|| panic!("byte {at} of {name} was flipped"));
            assert!(matches!(error, JournalError::Damaged { .. }), "{error}");
        }
    }
    assert_eq!(open(&storage).expect("the original is sound").1, all);
}

#[test]
fn damage_is_named_with_its_place() {
    let (storage, _) = filled();
    storage.alter("00000001.segment", |content| content[BLOCK_BYTES + 500] ^= 4);
    let message = refusal(&storage).to_string();
    for part in ["00000001.segment", "at byte 4096", "before record 1", "restore it from a backup"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn an_acknowledged_batch_that_lost_a_sector_is_not_taken_for_torn() {
    let (storage, all) = filled();
    let content = storage.content("00000002.segment").expect("the second segment");
    let end = content.iter().rposition(|byte| *byte != 0).expect("batches") + 1;
    for sector in 1..=SECTORS {
        let damaged = storage.reopened();
        damaged.alter("00000002.segment", |content| content[end - sector * SECTOR_BYTES..][..SECTOR_BYTES].fill(0));
        let error = refusal(&damaged);
        assert!(matches!(error, JournalError::Lost { found: 5, durable: 6, .. }), "{error}");
        // Without the mark nothing shows that it was acknowledged: it is the torn tail that it looks like.
        damaged.remove("durable").expect("the mark");
        assert_eq!(open(&damaged).expect("the operator accepts the loss").1, all[..5]);
    }
}

#[test]
fn a_missing_batch_is_refused() {
    let (storage, _) = filled();
    for sectors in [1, SECTORS] {
        let damaged = storage.reopened();
        damaged.alter("00000001.segment", |content| content[BLOCK_BYTES..][..sectors * SECTOR_BYTES].fill(0));
        assert!(matches!(refusal(&damaged), JournalError::Damaged { .. }));
    }
}

type Damage<'a> = &'a dyn Fn(&MemoryStorage);

#[test]
fn a_missing_shortened_or_foreign_segment_is_refused() {
    let (storage, _) = filled();
    let other = MemoryStorage::new(DISK_BYTES);
    Journal::create_on(&other, *b"another journal!", &SMALL).expect("an empty disk");
    let foreign = other.content("00000001.segment").expect("its segment");
    let cases: [(&str, Damage); 7] = [
        ("begins with memory/00000002.segment", &|disk| disk.remove("00000001.segment").expect("there")),
        ("is missing", &|disk| disk.remove("00000002.segment").expect("there")),
        ("is missing", &|disk| {
            disk.remove("00000002.segment").expect("there");
            disk.remove("00000003.segment").expect("there");
        }),
        ("but its header says", &|disk| {
            disk.alter("00000002.segment", |content| content.truncate(9 * BLOCK_BYTES));
        }),
        ("too short", &|disk| {
            disk.alter("00000003.segment", Vec::clear);
        }),
        ("header says that it is segment 1", &|disk| {
            let first = disk.content("00000001.segment").expect("there");
            disk.alter("00000002.segment", |content| *content = first);
        }),
        ("does not follow", &|disk| {
            disk.alter("00000001.segment", |content| content.clone_from(&foreign));
            disk.remove("00000002.segment").expect("there");
            disk.remove("00000003.segment").expect("there");
            // A batch of the other journal under this header.
            let batch = storage.content("00000001.segment").expect("there");
            disk.alter("00000001.segment", |content| content[BLOCK_BYTES..].copy_from_slice(&batch[BLOCK_BYTES..]));
        }),
    ];
    for (expected, damage) in cases {
        let damaged = storage.reopened();
        damage(&damaged);
        let message = refusal(&damaged).to_string();
        assert!(message.contains(expected), "{expected}: {message}");
    }
}

#[test]
fn data_where_none_can_be_is_refused() {
    let (storage, _) = filled();
    let third = storage.reopened();
    third.alter("00000003.segment", |content| content[5 * BLOCK_BYTES] = 1);
    assert!(refusal(&third).to_string().contains("without a footer, but 00000003.segment is in use"));
}

#[test]
fn anything_behind_a_torn_batch_is_refused() {
    let storage = created();
    let (mut journal, _) = open(&storage).expect("an empty journal");
    journal.append(&record(0, 9000));
    journal.submit();
    storage.crash_after(0, |sector| sector != 9);
    journal.drive().expect_err("the disk has crashed");
    drop(journal);
    let torn = storage.reopened();
    assert_eq!(open(&torn.reopened()).expect("a torn tail is no damage").1.len(), 0);
    torn.alter("00000001.segment", |content| content[9 * BLOCK_BYTES] = 1);
    assert!(refusal(&torn).to_string().contains("more was written behind it"));
}

#[test]
fn a_mark_of_another_journal_is_refused() {
    let (storage, _) = filled();
    storage.alter("durable", |content| content[3] ^= 1);
    assert!(refusal(&storage).to_string().contains("another journal"));
}

#[test]
fn a_half_written_mark_is_never_ahead() {
    let (storage, _) = filled();
    let mark = |change: fn(&mut Vec<u8>)| {
        let altered = storage.reopened();
        altered.alter("durable", change);
        DurableMark::open_on(&altered).and_then(|mark| mark.load(IDENTITY)).expect("a mark")
    };
    assert_eq!(mark(|_| ()), 6);
    assert_eq!(mark(|content| content[16] = 200), 6);
    assert_eq!(mark(|content| content[24] = !200), 6);
    assert_eq!(mark(|content| content[..32].fill(0)), 0);
}

#[test]
fn the_format_stays_what_it_is() {
    let (storage, _) = filled();
    let mut hasher = blake3::Hasher::new();
    for name in ["00000001.segment", "00000002.segment", "00000003.segment"] {
        hasher.update(&storage.content(name).expect("three segments"));
    }
    assert_eq!(
        hasher.finalize().to_hex().as_str(),
        "f103ec4f1f804b21e41a2159a44ce50827728bc4053f002e7d46494f5ad4b670",
        "files on disk would no longer be read: raise the format version"
    );
}

// --- reading along ---

#[test]
fn a_reader_sees_what_is_durable_and_nothing_else() {
    let storage = created();
    let (mut journal, _) = open(&storage).expect("an empty journal");
    journal.drive().expect("a working disk");
    let mark = DurableMark::open_on(&storage).expect("the mark");
    let mut reader = Reader::open_on(shared(&storage), None).expect("the first segment");
    assert_eq!(reader.identity(), IDENTITY);
    let (mut written, mut read) = (Records::new(), Records::new());
    for number in 0..40 {
        let batch: Records = (0..=number % 3).map(|at| record(number + at, 1 + number * 900)).collect();
        let fits = batch.iter().map(|record| record.len() + 2).sum::<usize>() <= SMALL.batch_bytes_max;
        let batch = if fits { &batch[..] } else { &batch[..1] };
        write(&mut journal, batch);
        written.extend_from_slice(batch);
        // It stops at the position it is given, also when more is there.
        let durable = mark.load(IDENTITY).expect("a mark");
        assert_eq!(durable, written.len() as u64);
        if number % 4 == 3 {
            while let Some(batch) = reader.next_batch(durable).expect("a sound journal") {
                assert_eq!(batch.first_position, read.len() as u64 + 1);
                read.extend(batch.records().map(|(_, record)| record.to_vec()));
                assert_eq!(batch.last_position, read.len() as u64);
            }
            assert_eq!((read.len(), reader.position()), (written.len(), durable));
        }
    }
    assert_eq!(read, written);
    assert!(journal.statistics().segment > 5);
    let inspection = inspect(&shared(&storage), &mut |_, _| Ok(())).expect("a sound journal");
    assert_eq!((inspection.position, inspection.hash), (reader.position(), reader.hash()));
}

#[test]
fn a_reader_names_damage() {
    let (storage, _) = filled();
    storage.alter("00000001.segment", |content| content[BLOCK_BYTES..][..SECTOR_BYTES].fill(0));
    let mut reader = Reader::open_on(shared(&storage), None).expect("the first segment");
    let error = reader.next_batch(6).expect_err("a missing batch");
    assert!(error.to_string().contains("not whole, but record 6 is durable"), "{error}");
}

#[test]
fn inspecting_changes_nothing() {
    let storage = created();
    let (mut journal, _) = open(&storage).expect("an empty journal");
    write(&mut journal, &[record(0, 50)]);
    journal.append(&record(1, 2500));
    journal.submit();
    storage.crash_after(0, |sector| sector < 3);
    journal.drive().expect_err("the disk has crashed");
    let storage = storage.reopened();
    let inspection = inspect(&shared(&storage), &mut |_, _| Ok(())).expect("a torn tail is no damage");
    assert_eq!((inspection.position, inspection.batches), (1, 1));
    assert_eq!(inspection.torn_bytes, BLOCK_BYTES as u64);
    assert_eq!(storage.changes(), 0);
}

// --- a real folder and real threads ---

/// Waits as the pump does: for the event, then for nothing.
fn wait(journal: &mut Journal) -> u64 {
    let event = journal.event();
    poll(&mut [PollFd::new(&event, PollFlags::IN)], None).expect("an event");
    journal.completed().expect("the event comes after the completion")
}

fn open_folder(folder: &Path) -> (Journal, Records) {
    let mut records = Records::new();
    let journal = Journal::open(folder, &SMALL, &mut |_, record| {
        records.push(record.to_vec());
        Ok(())
    });
    (journal.expect("a sound journal"), records)
}

#[test]
fn a_folder_keeps_a_journal() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().join("journal");
    let missing = Journal::open(&folder, &SMALL, &mut |_, _| Ok(()));
    assert!(matches!(missing, Err(JournalError::Missing { .. })));
    Journal::create(&folder, &SMALL).expect("an empty folder");
    assert!(matches!(Journal::create(&folder, &SMALL), Err(JournalError::Exists { .. })));

    let (mut journal, _) = open_folder(&folder);
    let identity = journal.identity();
    assert_ne!(identity, Identity::default());
    assert!(matches!(Journal::create(&folder, &SMALL), Err(JournalError::Locked { .. })));
    let second = Journal::open(&folder, &SMALL, &mut |_, _| Ok(()));
    assert!(second.err().expect("the lock is held").to_string().contains("in use by another process"));

    let mark = DurableMark::open(&folder).expect("the mark");
    let mut reader = Reader::open(&folder).expect("the first segment");
    let mut written = Records::new();
    for number in 0..30 {
        let record = record(number, 9000);
        // The next segment is prepared by another thread: reserving waits for it.
        journal.reserve(record.len() + 2).expect("room on the disk");
        journal.append(&record);
        written.push(record);
        assert!(journal.submit());
        let durable = wait(&mut journal);
        assert_eq!((durable, mark.load(identity).expect("a mark")), (number as u64 + 1, number as u64 + 1));
        let batch = reader.next_batch(durable).expect("a sound journal").expect("a batch");
        let (position, content) = batch.records().next().expect("its record");
        assert_eq!((position, content), (durable, &written[number][..]));
    }
    let event = journal.event();
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    let waiting = poll(&mut [PollFd::new(&event, PollFlags::IN)], Some(&now));
    assert_eq!(waiting, Ok(0), "every event is used up");
    drop(journal);

    let (journal, records) = open_folder(&folder);
    assert_eq!((records, journal.identity()), (written, identity));
}

#[test]
fn a_folder_without_direct_access_keeps_a_journal_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let storage: Arc<dyn Storage> = Arc::new(FolderStorage::without_direct(folder.path()));
    Journal::create_on(&*storage, IDENTITY, &SMALL).expect("an empty folder");
    let mut journal = Journal::open_on(&storage, &SMALL, &mut |_, _| Ok(())).expect("an empty journal");
    assert_eq!(journal.statistics().mode, "pwrite+fdatasync");
    journal.append(&record(0, 5000));
    assert_eq!(journal.flush(), 1);
    drop(journal);
    let (journal, records) = open_folder(folder.path());
    assert_eq!((records, journal.identity()), (vec![record(0, 5000)], IDENTITY));
}

#[test]
fn events_that_come_late_are_used_up_by_the_next_batch() {
    let storage = created();
    let mut journal = Journal::open_on(&shared(&storage), &SMALL, &mut |_, _| Ok(())).expect("an empty journal");
    for number in 0..2000 {
        // Waiting for the batch itself, one is often ahead of its event.
        journal.reserve(12).expect("room on the disk");
        journal.append(&record(number, 10));
        journal.flush();
    }
    journal.reserve(6).expect("room on the disk");
    journal.append(b"last");
    journal.submit();
    while journal.durable() < 2001 {
        // An event owed by the batches before wakes this too, and is then gone.
        let event = journal.event();
        poll(&mut [PollFd::new(&event, PollFlags::IN)], None).expect("an event");
        journal.completed();
    }
    assert_eq!(journal.statistics().batches, 2001);
}

#[test]
fn a_full_disk_refuses_an_import_at_once_and_the_journal_goes_on() {
    let storage = created();
    storage.resize(20 * BLOCK_BYTES as u64);
    let mut journal = Journal::open_on(&shared(&storage), &SMALL, &mut |_, _| Ok(())).expect("an empty journal");
    for _ in 0..3 {
        assert!(matches!(journal.reserve(100_000), Err(JournalError::NoSpace { .. })));
    }
    journal.append(b"small");
    assert_eq!(journal.flush(), 1);
    storage.resize(DISK_BYTES);
    journal.reserve(100_001).expect("space was freed");
}

#[test]
fn a_prepared_segment_smaller_than_configured_is_still_used() {
    let (storage, all) = filled();
    let options = Options { segment_bytes: 4 * SMALL.segment_bytes, ..SMALL };
    storage.resize(3 * SMALL.segment_bytes + BLOCK_BYTES as u64);
    let mut journal = Journal::open_on(&shared(&storage), &options, &mut |_, _| Ok(())).expect("a sound journal");
    assert!(matches!(journal.reserve(3 * 60_002), Err(JournalError::NoSpace { .. })));
    let mut appended = 0;
    while journal.has_room(30_000) {
        journal.append(&record(appended, 30_000));
        journal.flush();
        appended += 1;
    }
    assert!(appended >= 2, "the third segment holds two such batches");
    drop(journal);
    assert_eq!(open(&storage).expect("a sound journal").1.len(), all.len() + appended);
}

#[test]
fn dropping_finishes_the_batch_in_flight() {
    let folder = tempfile::tempdir().expect("a folder");
    Journal::create(folder.path(), &SMALL).expect("an empty folder");
    let (mut journal, _) = open_folder(folder.path());
    journal.append(b"in flight");
    journal.submit();
    journal.append(b"never handed over");
    drop(journal);
    assert_eq!(open_folder(folder.path()).1, [b"in flight"]);
}

const FAILING_CHILD: &str = "SWITCH_TEST_JOURNAL_FAILS";

/// Run again as a process of its own by the test below.
#[test]
fn child_whose_disk_fails() {
    if std::env::var_os(FAILING_CHILD).is_none() {
        return;
    }
    let storage = created();
    let mut journal = Journal::open_on(&shared(&storage), &SMALL, &mut |_, _| Ok(())).expect("an empty journal");
    journal.append(b"lost");
    storage.crash_after(0, |_| false);
    journal.submit();
    wait(&mut journal);
}

#[test]
fn a_failed_write_ends_the_process() {
    let this = std::env::current_exe().expect("this test");
    let child = Command::new(this)
        .args(["--exact", "child_whose_disk_fails", "--nocapture"])
        .env(FAILING_CHILD, "1")
        .output()
        .expect("a child");
    let message = String::from_utf8_lossy(&child.stderr);
    assert_eq!(child.status.code(), Some(74), "{message}");
    assert!(message.contains("segment: the simulated disk has crashed"), "{message}");
}
