//! A start from a snapshot gives the state that replaying everything gives; one that is damaged is passed over; what is taken away
//! after it is needed by no start.

mod college;

use std::path::Path;
use std::sync::Arc;

use college::world::{Step, World, everything, step};
use college::{AMOUNT_MAX, college};
use proptest::prelude::*;
use switch_core::calendar::Date;
use switch_core::evidence::Evidence;
use switch_core::journal::{
    BLOCK_BYTES, DurableMark, FolderStorage, Identity as JournalIdentity, Journal, JournalError, Locked, MemoryStorage, Options,
    Reader, Storage,
};
use switch_core::ledger::batches::Totals;
use switch_core::ledger::identities::{Content, Echo, Family, Identity, State};
use switch_core::ledger::image::Blocks;
use switch_core::ledger::record::encode;
use switch_core::ledger::{Command, Ledger, Outcome, Request, Response};
use switch_core::replica::Replica;
use switch_core::session::KeySlot;
use switch_core::snapshot::{self, Resumed};
use switch_core::verification::verify;

const IDENTITY: JournalIdentity = *b"a test's journal";
const DISK_BYTES: u64 = 16 << 20;
/// Small segments, so that some runs need several.
const OPTIONS: Options = Options { segment_bytes: 18 * BLOCK_BYTES as u64, batch_bytes_max: 60_002 };

fn shared(storage: &MemoryStorage) -> Arc<dyn Storage> {
    Arc::new(storage.clone())
}

fn created() -> MemoryStorage {
    let storage = MemoryStorage::new(DISK_BYTES);
    Journal::create_on(&storage, IDENTITY, &OPTIONS).expect("an empty disk takes a journal");
    storage
}

fn resume(storage: &MemoryStorage) -> Result<Resumed, JournalError> {
    snapshot::resume(Locked::on(&shared(storage))?, &OPTIONS, &mut |_| ())
}

/// The world of an empty journal.
fn world(storage: &MemoryStorage) -> World {
    World::new(resume(storage).expect("an empty journal").journal)
}

/// The same without threads: its batches and segments are alike in every run.
fn driven_world(storage: &MemoryStorage) -> World {
    let locked = Locked::on(&shared(storage)).expect("nobody else has it");
    World::new(snapshot::resume_driven(locked, &OPTIONS).expect("an empty journal").journal)
}

/// Has a follower make a snapshot of this record.
fn take_snapshot(storage: &MemoryStorage, position: u64) {
    let mut replica = Replica::open_on(shared(storage), position).expect("a sound journal");
    replica.advance(position).expect("a durable record");
    assert_eq!(replica.snapshot().expect("room for a snapshot"), position);
    assert_eq!(replica.retire(false, None), Ok(0));
}

fn snapshots(storage: &MemoryStorage) -> Vec<String> {
    storage.names().expect("a working disk").into_iter().filter(|name| name.ends_with(".snapshot")).collect()
}

fn segments(storage: &MemoryStorage) -> usize {
    storage.names().expect("a working disk").iter().filter(|name| name.ends_with(".segment")).count()
}

/// A stopped switch's journal of several segments with two snapshots, the first in the middle of a batch; and its last position
/// and digest.
fn filled() -> (MemoryStorage, u64, [u8; 32]) {
    let storage = created();
    let mut world = driven_world(&storage);
    let mut position_of_first = 0;
    for step in everything() {
        world.take(&step);
        world.authorizer.log_mut().drive().expect("a working disk");
    }
    for number in 0..120 {
        world.take(&Step::Purchase(0, number, 2, 1));
        world.take(&Step::Reversal(1, number, 900));
        if number % 3 == 0 {
            world.take(&Step::Flush);
            world.authorizer.log_mut().drive().expect("a working disk");
        }
        let position = world.authorizer.log().position();
        match number {
            60 => position_of_first = position - 1,
            90 => take_snapshot(&storage, position_of_first),
            _ => {}
        }
    }
    world.take(&Step::NextDay);
    world.take(&Step::Hold(200, 0, 30));
    world.take(&Step::Refund(0, 201, 0, 1));
    world.take(&Step::PurchaseWithPin(1, 202, 1, 500, false));
    world.take(&Step::Flush);
    let position = world.authorizer.log().position();
    take_snapshot(&storage, position - 2);
    let digest = world.authorizer.ledger().digest();
    drop(world);
    assert_eq!(snapshots(&storage).len(), 2);
    (storage, position, digest)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_start_from_a_snapshot_of_any_record_gives_back_the_state(
        steps in prop::collection::vec((step(), prop::option::weighted(0.3, any::<prop::sample::Index>())), 1..60)
    ) {
        let storage = created();
        let mut world = world(&storage);
        for (step, snapshot) in steps.iter().chain(&[(Step::Restart(AMOUNT_MAX), None)]) {
            match step {
                Step::Restart(amount_max) => {
                    // The world compares the state's digest with what it was at that position.
                    world = world.restarted(*amount_max, |ledger| {
                        let resumed = resume(&storage)?;
                        assert!(resumed.passed_over.is_empty(), "{:?}", resumed.passed_over);
                        *ledger = resumed.ledger;
                        Ok(resumed.journal)
                    });
                }
                step => world.take(step),
            }
            if let Some(index) = snapshot {
                let durable = DurableMark::open_on(&storage).and_then(|mark| mark.load(IDENTITY)).expect("the mark");
                let newest = snapshots(&storage).last().map_or(0, |name| name[..12].parse().expect("a position"));
                if durable > newest {
                    take_snapshot(&storage, newest + 1 + index.index((durable - newest) as usize) as u64);
                }
            }
            prop_assert!(snapshots(&storage).len() <= snapshot::KEPT);
        }
    }
}

#[test]
fn a_snapshot_is_taken_and_its_state_is_the_replayed_one() {
    let (storage, position, digest) = filled();
    let resumed = resume(&storage.reopened()).expect("a sound journal");
    assert_eq!(resumed.snapshot.map(|snapshot| snapshot.position), Some(position - 2));
    assert_eq!((resumed.ledger.position(), resumed.ledger.digest()), (position, digest));
    let replayed = storage.reopened();
    for name in snapshots(&replayed) {
        replayed.remove(&name).expect("there");
    }
    let resumed = resume(&replayed).expect("a sound journal");
    assert!(resumed.snapshot.is_none());
    assert_eq!((resumed.ledger.position(), resumed.ledger.digest()), (position, digest));
}

type Damage<'a> = &'a dyn Fn(&mut Vec<u8>);

#[test]
fn a_damaged_snapshot_is_told_and_the_one_before_is_taken() {
    let (storage, position, digest) = filled();
    let [older, newest] = <[String; 2]>::try_from(snapshots(&storage)).expect("two");
    let content = storage.content(&newest).expect("there");
    let damages: [(&str, Damage); 4] = [
        ("cut", &|content| content.truncate(content.len() - 1)),
        ("longer", &|content| content.push(0)),
        ("empty", &Vec::clear),
        ("head alone", &|content| content.truncate(140)),
    ];
    let flips = (0..content.len()).step_by(7).chain(0..148).chain(content.len() - 60..content.len());
    let flips = flips.map(|at| (at, 1_u8 << (at % 8)));
    let check = |damaged: &MemoryStorage, what: &str| {
        let resumed = resume(damaged).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(resumed.passed_over.len(), 1, "{what}: {:?}", resumed.passed_over);
        assert!(resumed.passed_over[0].contains(&format!("the snapshot memory/{newest} cannot be used: ")), "{what}");
        assert_eq!(resumed.snapshot.map(|snapshot| format!("{:012}.snapshot", snapshot.position)).as_ref(), Some(&older));
        assert_eq!((resumed.ledger.position(), resumed.ledger.digest()), (position, digest), "{what}");
    };
    for (what, damage) in damages {
        let damaged = storage.reopened();
        damaged.alter(&newest, damage);
        check(&damaged, what);
    }
    for (at, bit) in flips {
        let damaged = storage.reopened();
        damaged.alter(&newest, |content| content[at] ^= bit);
        check(&damaged, &format!("byte {at}"));
    }
    let both = storage.reopened();
    for name in [&older, &newest] {
        both.alter(name, |content| content[200] ^= 1);
    }
    let resumed = resume(&both).expect("the whole journal is there");
    assert_eq!((resumed.passed_over.len(), resumed.snapshot, resumed.ledger.digest()), (2, None, digest));
}

#[test]
fn another_journals_snapshot_is_passed_over() {
    let (storage, position, digest) = filled();
    let other = MemoryStorage::new(DISK_BYTES);
    Journal::create_on(&other, *b"another journal!", &OPTIONS).expect("an empty disk");
    drop(college(resume(&other).expect("an empty journal").journal));
    take_snapshot(&other, 3);
    let name = "000000000003.snapshot";
    let foreign = other.content(name).expect("there");
    for old in snapshots(&storage) {
        storage.remove(&old).expect("there");
    }
    take_snapshot(&storage, 3);
    storage.alter(name, |content| *content = foreign);
    let resumed = resume(&storage).expect("a sound journal");
    assert!(resumed.passed_over[0].contains("another journal"), "{:?}", resumed.passed_over);
    assert_eq!((resumed.ledger.position(), resumed.ledger.digest()), (position, digest));
}

/// As after a power cut on a disk that confirmed what it did not keep: the mark is old, the last batches are not there.
fn lose_the_end(storage: &MemoryStorage) {
    storage.remove("durable").expect("there");
    let written = |name: &String| storage.content(name).is_some_and(|content| content[BLOCK_BYTES..].iter().any(|byte| *byte != 0));
    let last = (1..100).map(|number| format!("{number:08}.segment")).take_while(written).last().expect("a segment in use");
    storage.alter(&last, |content| {
        let end = content.iter().rposition(|byte| *byte != 0).expect("a batch") / BLOCK_BYTES * BLOCK_BYTES;
        content[end - 2 * BLOCK_BYTES..].fill(0);
    });
}

#[test]
fn a_journal_that_ends_before_a_sound_snapshot_has_lost_records() {
    let (storage, position, _) = filled();
    lose_the_end(&storage);
    let before = storage.reopened();
    let error = resume(&storage).err().expect("records are missing").to_string();
    assert!(error.contains("a sound snapshot was made after") && error.contains("have lost records"), "{error}");
    for name in before.names().expect("a working disk") {
        assert_eq!(before.content(&name), storage.content(&name), "a refused start changes nothing in {name}");
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    laid_out(&storage, folder.path());
    let found = verify(folder.path(), None);
    assert!(!found.ok && found.records < position - 2, "{found:?}");
    let problem = found.problem.expect("not ok");
    assert!(problem.contains("has lost records") && problem.contains(&format!("{:012}.snapshot", position - 2)), "{problem}");
}

#[test]
fn a_crash_while_a_snapshot_is_made_leaves_the_ones_before() {
    for changes in 0.. {
        let (storage, position, digest) = filled();
        let before = snapshots(&storage);
        let mut replica = Replica::open_on(shared(&storage), u64::MAX).expect("a sound journal");
        replica.advance(position).expect("durable");
        storage.crash_after(changes, |_| true);
        let made = replica.snapshot();
        let storage = storage.reopened();
        let there = snapshots(&storage);
        // After the new one has its name the oldest may be there still: one too many, never one too few.
        assert!(there.len() >= 2 && before.iter().any(|name| there.contains(name)), "after {changes} changes: {there:?}");
        let resumed = resume(&storage).expect("a sound journal");
        assert_eq!((resumed.passed_over.len(), resumed.ledger.digest()), (0, digest));
        drop(resumed);
        take_snapshot(&storage, position);
        let left = storage.names().expect("a working disk");
        assert!(left.iter().all(|name| !name.contains(".snapshot.new")), "a leftover goes before the next one");
        assert_eq!(snapshots(&storage).len(), 2);
        if made.is_ok() {
            assert!(changes >= 5, "the crashes hit every step");
            break;
        }
    }
}

#[test]
fn a_full_disk_refuses_a_snapshot_and_keeps_the_ones_before() {
    let (storage, position, _) = filled();
    let before = snapshots(&storage);
    let mut replica = Replica::open_on(shared(&storage), u64::MAX).expect("a sound journal");
    replica.advance(position).expect("durable");
    storage.resize(0);
    let error = replica.snapshot().expect_err("there is no room");
    assert!(error.contains("cannot write a snapshot in memory/"), "{error}");
    assert_eq!(snapshots(&storage), before);
}

#[test]
fn segments_go_only_when_two_sound_snapshots_are_past_them() {
    let (storage, position, digest) = filled();
    let whole = segments(&storage);
    let replica = Replica::open_on(shared(&storage), u64::MAX).expect("a sound journal");
    let damaged = storage.reopened();
    let newest = snapshots(&storage).pop().expect("two");
    damaged.alter(&newest, |content| content[300] ^= 1);
    let cautious = Replica::open_on(shared(&damaged), u64::MAX).expect("the older one is sound");
    assert_eq!(cautious.retire(true, None), Ok(0), "one sound snapshot is too few");
    assert_eq!((segments(&damaged), snapshots(&damaged).len()), (whole, 2));

    let gone = replica.retire(true, None).expect("a working disk");
    assert!(gone >= 1 && segments(&storage) == whole - gone as usize, "{gone} of {whole}");
    assert_eq!(replica.retire(true, None), Ok(0), "once");
    let resumed = resume(&storage.reopened()).expect("a sound journal");
    assert_eq!((resumed.ledger.position(), resumed.ledger.digest()), (position, digest));
    // The fallback has all that it needs, too.
    storage.alter(&newest, |content| content[300] ^= 1);
    let resumed = resume(&storage.reopened()).expect("a sound journal");
    assert_eq!((resumed.passed_over.len(), resumed.ledger.digest()), (1, digest));
    for name in snapshots(&storage) {
        storage.remove(&name).expect("there");
    }
    let error = resume(&storage).err().expect("there is nothing to begin with");
    assert!(matches!(error, JournalError::Cut { .. }), "{error}");
    assert!(error.to_string().contains("put back the removed segments"), "{error}");
    let error = Replica::open_on(shared(&storage), u64::MAX).err().expect("nor for a replica");
    assert!(matches!(error, JournalError::Cut { .. }), "{error}");
}

/// Puts another journal's snapshot of record `position` among these.
fn put_foreign(storage: &MemoryStorage, position: u64) {
    let other = MemoryStorage::new(DISK_BYTES);
    Journal::create_on(&other, *b"another journal!", &OPTIONS).expect("an empty disk");
    drop(college(resume(&other).expect("an empty journal").journal));
    take_snapshot(&other, 3);
    let content = other.content("000000000003.snapshot").expect("there");
    let name = format!("{position:012}.snapshot");
    drop(storage.create(&name).expect("room"));
    storage.alter(&name, |file| *file = content);
}

#[test]
fn another_journals_snapshots_decide_nothing() {
    let (storage, position, digest) = filled();
    let own = snapshots(&storage);
    put_foreign(&storage, position + 1_000);
    put_foreign(&storage, position + 2_000);
    let replica = Replica::open_on(shared(&storage), u64::MAX).expect("a sound journal");
    assert!(replica.retire(true, None).expect("a working disk") >= 1, "the own two are sound");
    assert_eq!(snapshots(&storage), own, "they are taken away");
    let resumed = resume(&storage).expect("a sound journal");
    assert_eq!((resumed.ledger.position(), resumed.ledger.digest()), (position, digest));

    // Nor is a journal made where they lie.
    let left = MemoryStorage::new(DISK_BYTES);
    put_foreign(&left, 3);
    assert!(matches!(Journal::create_on(&left, IDENTITY, &OPTIONS), Err(JournalError::Exists { .. })));
}

#[test]
fn a_damaged_snapshot_does_not_push_out_a_sound_one() {
    let (storage, position, digest) = filled();
    let [older, newest] = <[String; 2]>::try_from(snapshots(&storage)).expect("two");
    storage.alter(&newest, |content| content[300] ^= 1);
    take_snapshot(&storage, position);
    assert_eq!(snapshots(&storage), [older.clone(), format!("{position:012}.snapshot")]);
    storage.alter(&format!("{position:012}.snapshot"), |content| content[300] ^= 1);
    let resumed = resume(&storage).expect("the older one is sound still");
    assert_eq!((resumed.passed_over.len(), resumed.ledger.digest()), (1, digest));
}

#[test]
fn where_postgresql_is_behind_the_snapshots_nothing_is_made_and_nothing_goes() {
    let (storage, position, _) = filled();
    let (before, whole) = (snapshots(&storage), segments(&storage));
    for settled in [0, 50, position - 3] {
        // As a follower of a database that is new, or was put back from a backup.
        let mut replica = Replica::open_on(shared(&storage), settled).expect("the whole journal is there");
        replica.advance(settled).expect("durable");
        assert_eq!(replica.snapshot(), Ok(position - 2), "there is a newer one");
        assert_eq!(replica.retire(true, None), Ok(0), "at record {settled}");
        assert_eq!((snapshots(&storage), segments(&storage)), (before.clone(), whole));
        replica.advance(position).expect("every segment that it needs is there");
    }
}

#[test]
fn segments_older_than_a_sound_snapshot_are_refused() {
    let (storage, ..) = filled();
    let backup = storage.reopened();
    drop(resume(&backup).expect("a sound journal"));
    let mut journal = resume(&storage).expect("a sound journal").journal;
    for _ in 0..400 {
        journal.reserve(3_000).expect("room");
        journal.append(&[7; 2_900]);
        journal.flush();
    }
    drop(journal);
    // A snapshot of the same state behind all that: its bookmark stands where the backup has nothing, or something else.
    let mut reader = Reader::open_on(shared(&storage), None).expect("a sound journal");
    let durable = DurableMark::open_on(&storage).and_then(|mark| mark.load(IDENTITY)).expect("the mark");
    while reader.next_batch(durable).expect("a sound journal").is_some() {}
    let ledger = resume(&backup.reopened()).expect("a sound journal").ledger;
    let position = ledger.position();
    let bookmark = switch_core::journal::Bookmark { position, ..reader.bookmark() };
    for name in snapshots(&backup) {
        backup.remove(&name).expect("there");
    }
    snapshot::write(&backup, &ledger, &bookmark, 0).expect("room");
    let error = resume(&backup).err().expect("what the snapshot was made after is not there");
    assert!(error.to_string().contains("older than the snapshot") || matches!(error, JournalError::Io { .. }), "{error}");
    assert_eq!(backup.content("durable"), backup.reopened().content("durable"));
}

#[test]
fn an_archive_in_the_journals_own_folder_is_refused() {
    let (storage, ..) = filled();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let journal = folder.path().join("journal");
    std::fs::create_dir(&journal).expect("a folder");
    laid_out(&storage, &journal);
    let link = folder.path().join("archive");
    std::os::unix::fs::symlink(&journal, &link).expect("a link");
    let replica = Replica::open(&journal, None, u64::MAX).expect("a sound journal");
    for archive in [&journal, &link] {
        let error = replica.retire(true, Some(archive)).expect_err("both copies would go");
        assert!(error.contains("is the journal's own folder"), "{error}");
        assert!(journal.join("00000001.segment").exists());
    }
}

#[test]
fn with_one_snapshot_nothing_goes() {
    let (storage, position, _) = filled();
    let older = snapshots(&storage).swap_remove(0);
    storage.remove(&older).expect("there");
    let mut replica = Replica::open_on(shared(&storage), u64::MAX).expect("a sound journal");
    replica.advance(position).expect("durable");
    assert_eq!(replica.retire(true, None), Ok(0));
}

#[test]
fn a_crash_while_segments_go_leaves_a_journal_without_gaps() {
    for changes in 0.. {
        let (storage, position, digest) = filled();
        let replica = Replica::open_on(shared(&storage), u64::MAX).expect("a sound journal");
        storage.crash_after(changes, |_| true);
        let gone = replica.retire(true, None);
        let storage = storage.reopened();
        let resumed = resume(&storage).expect("a sound journal");
        assert_eq!((resumed.ledger.position(), resumed.ledger.digest()), (position, digest));
        if gone.is_ok() {
            assert!(changes >= 1);
            break;
        }
    }
}

/// Copies what a disk in memory holds into a folder.
fn laid_out(storage: &MemoryStorage, folder: &Path) {
    for name in storage.names().expect("a working disk") {
        std::fs::write(folder.join(&name), storage.content(&name).expect("there")).expect("a temporary file");
    }
}

#[test]
fn an_archive_gets_segments_whole_and_an_interrupted_move_is_finished() {
    let (storage, ..) = filled();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (journal, archive) = (folder.path().join("journal"), folder.path().join("archive"));
    std::fs::create_dir(&journal).expect("a folder");
    laid_out(&storage, &journal);
    let first = storage.content("00000001.segment").expect("there");
    // One that had been moved but for its removal.
    std::fs::create_dir(&archive).expect("a folder");
    std::fs::write(archive.join("00000001.segment"), &first).expect("a file");
    let replica = Replica::open(&journal, None, u64::MAX).expect("a sound journal");
    let gone = replica.retire(true, Some(&archive)).expect("a working disk");
    assert!(gone >= 1);
    for number in 1..=gone {
        let name = format!("{number:08}.segment");
        assert!(!journal.join(&name).exists());
        assert_eq!(std::fs::read(archive.join(&name)).expect("archived"), storage.content(&name).expect("there"));
    }
    FolderStorage::new(&journal).remove("durable").expect("there");
    snapshot::resume(Locked::folder(&journal).expect("a journal"), &OPTIONS, &mut |_| ()).expect("a start needs none of them");
}

#[test]
fn an_archive_with_another_file_of_that_name_stops_the_move() {
    let (storage, ..) = filled();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (journal, archive) = (folder.path().join("journal"), folder.path().join("archive"));
    std::fs::create_dir(&journal).expect("a folder");
    laid_out(&storage, &journal);
    std::fs::create_dir(&archive).expect("a folder");
    std::fs::write(archive.join("00000001.segment"), b"somebody else's").expect("a file");
    let replica = Replica::open(&journal, None, u64::MAX).expect("a sound journal");
    let error = replica.retire(true, Some(&archive)).expect_err("two files of one name");
    assert!(error.contains("cannot archive") && error.contains("is another file"), "{error}");
    assert!(journal.join("00000001.segment").exists());
}

/// A folder whose journal was shortened, its archive, its last position and digest.
fn shortened() -> (tempfile::TempDir, u64, [u8; 32]) {
    let (storage, position, digest) = filled();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let journal = folder.path().join("journal");
    std::fs::create_dir(&journal).expect("a folder");
    laid_out(&storage, &journal);
    let replica = Replica::open(&journal, None, u64::MAX).expect("a sound journal");
    assert!(replica.retire(true, Some(&folder.path().join("archive"))).expect("a working disk") >= 1);
    (folder, position, digest)
}

#[test]
fn a_shortened_journal_is_verified_with_its_archive_or_from_the_oldest_snapshot_on() {
    let (folder, position, digest) = shortened();
    let (journal, archive) = (folder.path().join("journal"), folder.path().join("archive"));
    let digest = blake3::Hash::from_bytes(digest).to_hex().to_string();
    let whole = verify(&journal, Some(&archive));
    assert!(whole.ok, "{whole:?}");
    assert_eq!((whole.first_record, whole.records, whole.snapshots, &whole.state_digest), (1, position, 2, &digest));
    let rest = verify(&journal, None);
    assert!(rest.ok, "{rest:?}");
    assert!(rest.first_record > 100, "{rest:?}");
    assert_eq!((rest.records, rest.snapshots, &rest.state_digest), (position, 2, &digest));

    // What was archived is still held to its checksums.
    let segment = archive.join("00000001.segment");
    let mut content = std::fs::read(&segment).expect("archived");
    content[3 * BLOCK_BYTES + 300] ^= 1;
    std::fs::write(&segment, content).expect("a file");
    let damaged = verify(&journal, Some(&archive));
    assert!(!damaged.ok && damaged.first_bad_record.is_some_and(|record| record < rest.first_record), "{damaged:?}");
    assert!(damaged.problem.expect("not ok").contains("archive/00000001.segment"));
}

#[test]
fn a_snapshot_that_is_not_the_state_of_its_record_is_found() {
    let (folder, position, digest) = shortened();
    let (journal, archive) = (folder.path().join("journal"), folder.path().join("archive"));
    // Sound by itself, but of another history: one purchase fewer stands behind it.
    let (other, ..) = filled();
    let mut replica = Replica::open_on(shared(&other), u64::MAX).expect("a sound journal");
    replica.advance(position).expect("durable");
    replica.snapshot().expect("room");
    let newest = format!("{position:012}.snapshot");
    let mut content = other.content(&newest).expect("just written");
    let names: Vec<_> = std::fs::read_dir(&journal).expect("a folder").map(|entry| entry.expect("a file").file_name()).collect();
    let old =
        names.iter().filter_map(|name| name.to_str()).filter(|name| name.contains(".snapshot")).max().expect("two").to_owned();
    // The head and the image say the old one's record; the state is that of the newer one.
    let of_old = std::fs::read(journal.join(&old)).expect("there");
    assert!(of_old.len().abs_diff(content.len()) < 2_000);
    content[..140].copy_from_slice(&of_old[..140]);
    std::fs::write(journal.join(&old), content).expect("a file");
    let found = verify(&journal, Some(&archive));
    assert!(!found.ok && found.first_bad_record.is_none(), "{found:?}");
    assert!(found.problem.as_ref().is_some_and(|problem| problem.contains("it is not the state of its record")), "{found:?}");
    assert_eq!(found.state_digest, blake3::Hash::from_bytes(digest).to_hex().to_string(), "the journal is sound");
}

#[test]
fn evidence_of_a_shortened_journal_is_read_from_the_archive_or_refused() {
    let (folder, position, _) = shortened();
    let (journal, archive) = (folder.path().join("journal"), folder.path().join("archive"));
    let report = |archive: Option<&Path>, from: u64, to: u64| -> Result<Vec<u8>, String> {
        let mut evidence = Evidence::open(&journal, archive, [&from.to_string(), &to.to_string()], "Asia/Shanghai", college::NOON)?;
        let mut lines = Vec::new();
        while let Some(more) = evidence.read()? {
            lines.extend(more);
        }
        Ok(lines)
    };
    let whole = report(Some(&archive), 1, position).expect("all of it is there");
    assert!(whole.windows(13).filter(|bytes| bytes == b"\"line\":\"recor").count() as u64 == position);
    let late = report(Some(&archive), position - 1, position).expect("there");
    assert_eq!(report(None, position - 1, position).expect("behind the snapshot"), late, "the same from a snapshot on");
    let refused = report(None, 1, position).expect_err("the beginning was taken away");
    assert!(refused.contains("name the archive"), "{refused}");
}

// --- images ---

/// An image as blocks.
struct Image(std::vec::IntoIter<Vec<u8>>, Vec<u8>);

impl Image {
    fn of(ledger: &Ledger) -> Vec<Vec<u8>> {
        let mut blocks = Vec::new();
        ledger.image(&mut |block| blocks.push(block[4..].to_vec()));
        blocks
    }

    fn read(blocks: Vec<Vec<u8>>) -> Result<Ledger, String> {
        Ledger::from_image(&mut Self(blocks.into_iter(), Vec::new()))
    }
}

impl Blocks for Image {
    fn next(&mut self) -> Result<&[u8], String> {
        self.1 = self.0.next().ok_or("it ends too early")?;
        Ok(&self.1)
    }
}

/// Takes back, gives back, completes and ends whatever a state says that there is; any outcome will do, and none is a panic.
fn go_on(ledger: &mut Ledger) {
    let (today, terminals) = (ledger.business_date(), ledger.registry().terminals.rows().len() as u32);
    let standing: Vec<_> = ledger.identities().all().filter(|(_, decided)| decided.state == State::Standing).collect();
    let mut stan = 900_000;
    let mut request = |family: Family, mti: u16, terminal: u32, amount: Option<u64>| {
        stan += 1;
        Request {
            identity: Identity::new(family, terminal, today, stan),
            content: Content::new(None, None, amount, false),
            echo: Echo::new(0, None, Some(1), None, false),
            slot: KeySlot::Current,
            mti,
        }
    };
    let mut commands = Vec::new();
    for (date, decided) in standing {
        let (position, own) = (decided.position(), decided.identity(date));
        for terminal in 0..terminals {
            commands.push(Command::Refund { request: request(Family::Financial, 200, terminal, Some(7)), original: position });
            commands.push(Command::Completion { request: request(Family::Financial, 220, terminal, Some(7)), original: position });
        }
        commands.push(Command::Reversal { request: request(Family::Reversal, 400, own.terminal(), None), original: own });
        commands.push(Command::Lapse { hold: position });
    }
    for terminal in 0..terminals {
        let totals = Box::new(Totals::default());
        commands.push(Command::BatchClose { request: request(Family::Batch, 500, terminal, None), totals });
    }
    commands.push(Command::Rules(Box::default()));
    commands.push(Command::Cutover(Date(today.0.saturating_add(1))));
    for command in commands {
        let (mut record, outcome) = (Vec::new(), Outcome::of(Response::Approved));
        encode(&mut record, college::NOON, &command, &outcome);
        let _ = ledger.replay(ledger.position() + 1, &record).map(|_| ());
        assert_eq!(ledger.accounts().sum(), 0);
    }
}

#[test]
fn an_image_that_no_ledger_could_have_is_refused() {
    let (storage, ..) = filled();
    let ledger = resume(&storage).expect("a sound journal").ledger;
    let blocks = Image::of(&ledger);
    assert_eq!(Image::read(blocks.clone()).expect("its own image").digest(), ledger.digest());
    // Without a block, and with every byte changed: refused, or another state; never a panic, never money from nowhere.
    let (mut refused, mut other) = (0, 0);
    for index in 0..blocks.len() {
        let mut fewer = blocks.clone();
        fewer.remove(index);
        assert!(Image::read(fewer).is_err(), "block {index}");
        for at in (0..blocks[index].len()).step_by(if blocks[index].len() > 4_000 { 3 } else { 1 }) {
            let mut changed = blocks.clone();
            changed[index][at] ^= 1 << (at % 8);
            match Image::read(changed.clone()) {
                Err(_) => refused += 1,
                Ok(mut read) => {
                    let is_same = changed.concat().starts_with(&Image::of(&read).concat());
                    assert!(is_same, "block {index} byte {at}: a state's image is what it was taken from");
                    assert_eq!(read.accounts().sum(), 0);
                    go_on(&mut read);
                    other += 1;
                }
            }
        }
    }
    assert!(refused > 500 && other > 500, "{refused} refused, {other} another state");
}

#[test]
fn a_damaged_row_of_any_list_is_refused() {
    let (storage, ..) = filled();
    let blocks = Image::of(&resume(&storage).expect("a sound journal").ledger);
    // The last sections of an image, each with a block that counts its rows and one that holds them: name, bytes of its last row,
    // where in it an index stands that can be too high.
    let sections = [
        ("counts", 16, Some(0)),
        ("holds", 36, Some(8)),
        ("batches", 74, Some(0)),
        ("hotlist", 4, Some(0)),
        ("PINs", 21, Some(0)),
        ("doors", 20, Some(0)),
        ("loans", 27, Some(9)),
        ("late advices", 28, None),
    ];
    let refused = |what: &str, changed: Vec<Vec<u8>>| {
        let Err(error) = Image::read(changed) else { panic!("{what}: taken up") };
        error
    };
    for (place, (name, bytes, index)) in sections.iter().rev().enumerate() {
        let at = blocks.len() - 1 - 2 * place;
        let rows = u64::from_le_bytes(blocks[at - 1][..].try_into().expect("a count"));
        assert!(rows > 0 && blocks[at].len() >= *bytes, "{name} has a row");
        let last = blocks[at].len() - bytes;
        let count = |rows: u64| {
            let mut changed = blocks.clone();
            changed[at - 1] = rows.to_le_bytes().to_vec();
            changed
        };
        // Behind the last section only the file's own end tells.
        if place > 0 || rows > 1 {
            refused(name, count(rows - 1));
        }
        refused(name, count(rows + 1));
        let mut twice = count(rows + 1);
        twice[at].extend_from_slice(&blocks[at][last..]);
        refused(name, twice);
        let mut cut = blocks.clone();
        cut[at].pop();
        assert_eq!(refused(name, cut), format!("one of its {name} is not possible"));
        if let Some(index) = index {
            let mut nobodys = blocks.clone();
            nobodys[at][last + index..last + index + 4].fill(0xfe);
            assert_eq!(refused(name, nobodys), format!("one of its {name} is not possible"));
        }
    }
}

#[test]
fn the_format_stays_what_it_is() {
    let (storage, ..) = filled();
    let mut hasher = blake3::Hasher::new();
    for name in snapshots(&storage) {
        hasher.update(&storage.content(&name).expect("there"));
    }
    assert_eq!(
        hasher.finalize().to_hex().as_str(),
        "3c1380026c0e71b430cbb15d1a1fcbda8abcba021b07483303236a42f46b8286",
        "snapshots on disk would no longer be read: raise the format version"
    );
}
