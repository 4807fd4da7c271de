//! The journal gives back the ledger: after every restart, in every replica, and not at all where a record is not right.

mod college;

use std::path::Path;
use std::sync::Arc;

use college::world::{RECORD_KINDS, Step, World, everything, replaying, step};
use college::{AMOUNT_MAX, IDENTITY_DAYS};
use proptest::prelude::*;
use switch_core::calendar::Date;
use switch_core::card_number::CardNumber;
use switch_core::journal::{
    BLOCK_BYTES, Identity as JournalIdentity, Journal, JournalError, MemoryStorage, Options, Storage, inspect,
};
use switch_core::ledger::identities::{Content, Echo, Identity};
use switch_core::ledger::record::{decode, encode};
use switch_core::ledger::registry::{Category, MerchantId, TerminalStanding};
use switch_core::ledger::{Command, Ledger, Outcome, Pin, Policy, Request, Response, Told};
use switch_core::pin::PinVerification;
use switch_core::replica::Replica;
use switch_core::verification::verify;

const IDENTITY: JournalIdentity = *b"a test's journal";
const DISK_BYTES: u64 = 16 << 20;
/// Small segments, so that some runs need several.
const OPTIONS: Options = Options { segment_bytes: 18 * BLOCK_BYTES as u64, batch_bytes_max: 60_002 };

// --- restarts ---

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_restart_at_any_moment_gives_back_the_state(steps in prop::collection::vec(step(), 1..60)) {
        let memory = MemoryStorage::new(DISK_BYTES);
        Journal::create_on(&memory, IDENTITY, &OPTIONS).expect("an empty disk");
        let storage: Arc<dyn Storage> = Arc::new(memory);
        let journal = Journal::open_on(&storage, &OPTIONS, &mut |_, _| Ok(())).expect("an empty journal");
        let mut world = World::new(journal);
        for step in steps.iter().chain(&[Step::Restart(AMOUNT_MAX)]) {
            if let Step::Restart(amount_max) = step {
                world = world.restarted(*amount_max, |ledger| Journal::open_on(&storage, &OPTIONS, &mut replaying(ledger)));
            } else {
                world.take(step);
            }
        }
    }
}

/// The second field of each row of a binary COPY stream, as a date.
fn dates(stream: &[u8]) -> impl Iterator<Item = Date> {
    let word = |at: usize| i32::from_be_bytes(stream[at..at + 4].try_into().expect("four bytes"));
    let mut at = 19;
    std::iter::from_fn(move || {
        let fields = i16::from_be_bytes([stream[at], stream[at + 1]]);
        at += 2;
        let mut date = None;
        for field in 0..fields {
            if field == 1 {
                date = Some(Date(u16::try_from(word(at + 4)).expect("a date from 2000 on")));
            }
            at += 4 + usize::try_from(word(at)).unwrap_or(0);
        }
        date
    })
}

/// Lets a replica go on to a position, by chunks or at once, and compares.
fn follow(replica: &mut Replica, world: &World, chunk: u64) {
    let durable = replica.durable().expect("the mark");
    assert!(durable <= world.authorizer.log().position());
    if chunk == 0 {
        replica.advance(durable).expect("durable records");
    } else {
        let (mut next, mut date) = (replica.ledger().position() + 1, replica.ledger().business_date());
        while let Some(rows) = replica.collect(chunk).expect("durable records") {
            assert!(rows.first == next && rows.last >= rows.first && rows.last < rows.first + chunk);
            assert_eq!(rows.business_date, date);
            for (table, stream) in &rows.tables {
                let is_kept_by_date = ["transaction", "posting"].contains(table);
                assert!(!is_kept_by_date || dates(stream).all(|row| row == date), "{table} has a row of another date");
            }
            (next, date) = (rows.last + 1, replica.ledger().business_date());
        }
    }
    let position = replica.ledger().position();
    assert!(position >= durable);
    if let Some(digest) = world.digests.get(&position) {
        assert_eq!(replica.ledger().digest(), *digest, "the replica at {position}");
    }
    let sum: i64 = replica.accounts().iter().map(|(.., balance, _)| balance).sum();
    assert_eq!(sum, 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn a_replica_beside_the_running_switch_is_equal_at_every_position(
        steps in prop::collection::vec((step(), 0_u64..9), 1..60)
    ) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Journal::create(folder.path(), &OPTIONS).expect("an empty folder");
        let open = |folder: &Path, ledger: &mut Ledger| Journal::open(folder, &OPTIONS, &mut replaying(ledger));
        let mut world = World::new(open(folder.path(), &mut Ledger::new()).expect("an empty journal"));
        let mut replica = Replica::open(folder.path(), None, u64::MAX).expect("a journal");
        for (step, chunk) in &steps {
            match step {
                Step::Restart(amount_max) => world = world.restarted(*amount_max, |ledger| open(folder.path(), ledger)),
                step => world.take(step),
            }
            follow(&mut replica, &world, *chunk);
        }
        world.take(&Step::Flush);
        follow(&mut replica, &world, 3);
        let digest = world.authorizer.ledger().digest();
        prop_assert_eq!(replica.ledger().digest(), digest);
        drop(world);
        let found = verify(folder.path(), None);
        prop_assert!(found.ok && found.sum == 0, "{:?}", found);
        prop_assert_eq!(found.state_digest, blake3::Hash::from_bytes(digest).to_hex().to_string());
    }
}

// --- records that are not right ---

/// A journal with every kind of record, and them.
fn filled() -> (MemoryStorage, Vec<Vec<u8>>) {
    let memory = MemoryStorage::new(DISK_BYTES);
    Journal::create_on(&memory, IDENTITY, &OPTIONS).expect("an empty disk");
    let storage: Arc<dyn Storage> = Arc::new(memory.clone());
    let mut world = World::new(Journal::open_on(&storage, &OPTIONS, &mut |_, _| Ok(())).expect("an empty journal"));
    for step in &everything() {
        world.take(step);
    }
    drop(world);
    let mut records = Vec::new();
    inspect(&storage, &mut |_, record| {
        records.push(record.to_vec());
        Ok(())
    })
    .expect("a sound journal");
    let kinds: std::collections::BTreeSet<u8> = records.iter().map(|record| record[0]).collect();
    assert_eq!(kinds.len(), RECORD_KINDS, "every kind of record: {kinds:?}");
    (memory, records)
}

#[test]
fn a_record_with_another_outcome_is_refused() {
    let (_, records) = filled();
    let mut refused = 0;
    for (index, record) in records.iter().enumerate() {
        let decoded = decode(record).expect("a record");
        let right = decoded.outcome;
        let wrong = [
            Outcome {
                response: if right.response == Response::Approved { Response::CardLost } else { Response::Approved },
                ..right.clone()
            },
            Outcome { paid: [right.paid[0] + 1, right.paid[1]], ..right.clone() },
            Outcome { paid: [right.paid[0], right.paid[1] + 1], ..right.clone() },
            Outcome { after: right.after.map_or(Some([0, 0]), |[cash, subsidy]| Some([cash, subsidy - 1])), ..right.clone() },
            Outcome { after: right.after.map_or(Some([0, 0]), |_| None), ..right.clone() },
            Outcome { original: right.original.map_or(Some(1), |original| Some(original + 1)), ..right.clone() },
            Outcome { flag: right.flag.map_or(Some(Response::CardLost), |_| None), ..right.clone() },
            Outcome { flag: Some(Response::InvalidAmount), ..right.clone() },
            Outcome { totals: right.totals.as_ref().map_or_else(|| Some(Box::default()), |_| None), ..right.clone() },
        ];
        for wrong in wrong {
            let mut ledger = Ledger::new();
            for (position, record) in (1..).zip(&records[..index]) {
                ledger.replay(position, record).expect("a sound record");
            }
            let mut changed = Vec::new();
            encode(&mut changed, decoded.timestamp, &decoded.command, &wrong);
            let error = ledger.replay(index as u64 + 1, &changed).err().expect("another outcome is refused");
            assert!(error.contains("the journal holds the outcome"), "{error}");
            refused += 1;
        }
    }
    assert_eq!(refused, records.len() * 9);
}

#[test]
fn a_record_out_of_order_is_refused() {
    let (_, records) = filled();
    let mut ledger = Ledger::new();
    ledger.replay(1, &records[0]).expect("a sound record");
    for position in [0, 1, 3] {
        assert!(ledger.replay(position, &records[1]).is_err());
    }
    assert!(ledger.replay(2, b"\xff").is_err());
    assert!(ledger.replay(2, &records[1]).is_ok());
}

#[test]
fn a_byte_flipped_in_a_record_never_passes() {
    let (memory, records) = filled();
    let sound: Arc<dyn Storage> = Arc::new(memory.reopened());
    let name = sound.names().expect("a working disk").into_iter().find(|name| {
        memory.content(name).is_some_and(|content| content.windows(records[0].len()).any(|bytes| bytes == records[0]))
    });
    let name = name.expect("the first segment");
    let content = memory.content(&name).expect("a file");
    let mut flipped = 0;
    let mut from = 0;
    for record in &records {
        let start = from + content[from..].windows(record.len()).position(|bytes| bytes == record).expect("the record");
        from = start + record.len();
        for at in start..from {
            let damaged = memory.reopened();
            damaged.alter(&name, |bytes| bytes[at] ^= 1 << (at % 8));
            let storage: Arc<dyn Storage> = Arc::new(damaged);
            let mut ledger = Ledger::new();
            let error = inspect(&storage, &mut replaying(&mut ledger)).expect_err("a flipped byte is found");
            assert!(matches!(error, JournalError::Damaged { .. }), "byte {at}: {error}");
            let opened = Journal::open_driven(&storage, &OPTIONS, &mut |_, _| Ok(()));
            assert!(matches!(opened, Err(JournalError::Damaged { .. })), "byte {at}");
            flipped += 1;
        }
    }
    assert_eq!(flipped, records.iter().map(Vec::len).sum::<usize>());
}

// --- what verify says of a journal with right checksums and wrong content ---

/// A journal in a folder with these records, each batch three of them, as somebody who knows the format could write it.
fn forged(records: &[Vec<u8>]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    Journal::create(folder.path(), &OPTIONS).expect("an empty folder");
    let mut journal = Journal::open(folder.path(), &OPTIONS, &mut |_, _| Ok(())).expect("an empty journal");
    for batch in records.chunks(3) {
        journal.reserve(batch.iter().map(|record| record.len() + 2).sum()).expect("an empty disk");
        for record in batch {
            journal.append(record);
        }
        journal.flush();
    }
    folder
}

/// The same record with another command or outcome.
fn rewritten(record: &[u8], change: impl FnOnce(&mut Command<'_>, &mut Outcome)) -> Vec<u8> {
    let mut decoded = decode(record).expect("a record");
    change(&mut decoded.command, &mut decoded.outcome);
    let mut out = Vec::new();
    encode(&mut out, decoded.timestamp, &decoded.command, &decoded.outcome);
    out
}

fn request_of<'a>(command: &'a mut Command<'_>) -> &'a mut Request {
    match command {
        Command::Purchase { request, .. } | Command::Reversal { request, .. } => request,
        other => panic!("{other:?} is no purchase and no reversal"),
    }
}

/// What is forged, the record's index, its new content, and what verify says.
type Forgery<'f> = (&'f str, usize, Vec<u8>, &'f str);

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn verify_names_the_first_record_that_breaks_a_rule() {
    let (_, records) = filled();
    let kind = |index: usize| decode(&records[index]).expect("a record").command.name();
    let first = |name: &str| (0..records.len()).find(|&index| kind(index) == name).expect("every kind is there");
    let (purchase, reversal, card, cutover) = (first("purchase"), first("reversal"), first("card"), first("cutover"));
    let next_day = (cutover + 1..records.len()).find(|&index| kind(index) == "cutover").expect("two days");

    let sound = verify(forged(&records).path(), None);
    assert!(sound.ok && sound.first_bad_record.is_none() && sound.records == records.len() as u64, "{sound:?}");

    let purchase_as = |change: &dyn Fn(&mut Request, &mut Outcome)| {
        rewritten(&records[purchase], |command, outcome| change(request_of(command), outcome))
    };
    let reversal_as = |change: &dyn Fn(&mut Request, &mut Outcome)| {
        rewritten(&records[reversal], |command, outcome| change(request_of(command), outcome))
    };
    let day = |days: i16| move |date: Date| Date(date.0.checked_add_signed(days).expect("a day"));
    let moved = |identity: Identity, to: &dyn Fn(Date) -> Date| Identity::from_packed(identity.packed(), to(identity.date));
    let forgeries: Vec<Forgery<'_>> = vec![
        (
            "a purchase that the purses do not cover",
            purchase,
            purchase_as(&|request, outcome| {
                request.content = Content::new(request.content.card(), Some(0), Some(5_000), true);
                (outcome.paid, outcome.after) = ([4_500, 500], Some([-3_500, 0]));
            }),
            "the journal holds the outcome 00",
        ),
        (
            "a purchase that takes from one and gives to nobody",
            purchase,
            purchase_as(&|_, outcome| outcome.paid = [0, 0]),
            "the journal holds the outcome 00",
        ),
        (
            "purses that hold more afterwards than they do",
            purchase,
            purchase_as(&|_, outcome| outcome.after = outcome.after.map(|[cash, subsidy]| [cash + 1, subsidy])),
            "the journal holds the outcome 00",
        ),
        (
            "a reversal that gives back more than was taken",
            reversal,
            reversal_as(&|_, outcome| outcome.paid[0] += 1),
            "the journal holds the outcome 00",
        ),
        (
            "a reversal of what was decided after it",
            reversal,
            reversal_as(&|_, outcome| outcome.original = Some(1_000)),
            "the journal holds the outcome 00",
        ),
        ("the same decision twice", purchase + 1, records[purchase].clone(), "decides an identity a second time"),
        ("the same reversal twice", reversal + 1, records[reversal].clone(), "decides an identity a second time"),
        (
            "a purchase of a day that is not kept",
            purchase,
            purchase_as(&|request, _| request.identity = moved(request.identity, &day(-IDENTITY_DAYS.cast_signed()))),
            "outside the days whose identities are kept",
        ),
        (
            "a purchase of a day to come",
            purchase,
            purchase_as(&|request, _| request.identity = moved(request.identity, &day(2))),
            "outside the days whose identities are kept",
        ),
        (
            "a reversal of a day that is not kept",
            reversal,
            rewritten(&records[reversal], |command, _| {
                let Command::Reversal { original, .. } = command else { panic!("a reversal") };
                *original = moved(*original, &day(-IDENTITY_DAYS.cast_signed()));
            }),
            "outside the days whose identities are kept",
        ),
        (
            "a reversal of no financial message",
            reversal,
            rewritten(&records[reversal], |command, _| {
                let Command::Reversal { original, .. } = command else { panic!("a reversal") };
                *original = Identity::from_packed(original.packed() | 5 << 56, original.date);
            }),
            "no financial message",
        ),
        (
            "an identity with bits that mean nothing",
            purchase,
            purchase_as(&|request, _| {
                request.identity = Identity::from_packed(request.identity.packed() | 1 << 53, request.identity.date);
            }),
            "identity is not that of its message",
        ),
        (
            "a time of day that is none",
            purchase,
            purchase_as(&|request, _| request.echo = Echo::new(246_060, None, None, None, true)),
            "time of day is none",
        ),
        (
            "a purse that is opened with a debt",
            card,
            rewritten(&records[card], |command, _| {
                let Command::Card { opening, .. } = command else { panic!("a card") };
                opening[0] = -1;
            }),
            "opens a purse with an impossible balance",
        ),
        (
            "a second live card",
            card + 1,
            rewritten(&records[card], |command, _| {
                let Command::Card { number, .. } = command else { panic!("a card") };
                *number = CardNumber::from_digits(b"4711").expect("a card number");
            }),
            "a second live card",
        ),
        ("a business date that does not move on", next_day, records[cutover].clone(), "moves the business date back"),
        ("a record of no kind", purchase, vec![0xff; 20], "not one that this version"),
    ];
    for (what, index, record, words) in &forgeries {
        let mut wrong = records.clone();
        assert_ne!(&wrong[*index], record, "{what}: nothing was forged");
        wrong[*index].clone_from(record);
        let folder = forged(&wrong);
        let found = verify(folder.path(), None);
        assert!(!found.ok, "{what}: not found");
        assert_eq!((found.first_bad_record, found.records), (Some(*index as u64 + 1), *index as u64), "{what}: {found:?}");
        assert!(found.problem.as_ref().is_some_and(|problem| problem.contains(words)), "{what}: {found:?}");
    }
}

/// The same record with another request.
fn asked_otherwise(record: &[u8], change: impl FnOnce(&mut Request)) -> Vec<u8> {
    rewritten(record, |command, _| match command {
        Command::OfflineSale { request, .. }
        | Command::Late { request, .. }
        | Command::Reversal { request, .. }
        | Command::Hold { request, .. }
        | Command::Completion { request, .. }
        | Command::Refund { request, .. }
        | Command::Load(request)
        | Command::BillPayment { request, .. }
        | Command::BatchClose { request, .. } => change(request),
        other => panic!("{other:?} is none of these"),
    })
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn a_record_that_says_something_else_than_happened_is_refused() {
    let (_, records) = filled();
    let nth = |name: &str, nth: usize| {
        let kind = |index: &usize| decode(&records[*index]).expect("a record").command.name() == name;
        (0..records.len()).filter(kind).nth(nth).unwrap_or_else(|| panic!("{nth} {name}"))
    };
    let first = |name: &str| nth(name, 0);
    let outcome = "the journal holds the outcome";
    let as_amount = |amount: Option<u64>| {
        move |request: &mut Request| {
            request.content =
                Content::new(request.content.card(), request.content.processing(), amount, request.content.has_currency());
        }
    };
    let as_original = |index: usize, other: u64| {
        rewritten(&records[index], |command, _| match command {
            Command::Completion { original, .. } | Command::Void { original, .. } | Command::Refund { original, .. } => {
                *original = other;
            }
            Command::Lapse { hold } => *hold = other,
            other => panic!("{other:?} refers to nothing"),
        })
    };
    let to_outcome = |index: usize, change: &dyn Fn(&mut Outcome)| rewritten(&records[index], |_, outcome| change(outcome));
    let (offline, late, void, refund) = (first("offline_sale"), nth("offline_sale", 1), first("void"), first("refund"));
    // The third is dated today, and what it names is of long ago.
    let unkept = nth("reversal", 2);
    let (hold, completion, lapse) = (first("hold"), first("completion"), first("lapse"));
    let (load, bill, borrow, door) = (first("load"), first("bill_payment"), first("borrow"), first("enter"));
    let (equal, differing) = (first("batch_close"), nth("batch_close", 1));
    let long: &str = "x".repeat(100).leak();
    let with_pin = nth("purchase", 3);
    let mut forgeries: Vec<Forgery<'_>> = vec![
        ("a lapse of a hold that is not open", lapse, as_original(lapse, 1), "ends a hold that is not open"),
        ("a lapse of less than was held", lapse, to_outcome(lapse, &|outcome| outcome.paid[0] -= 1), outcome),
        ("a hold of more than there is", hold, to_outcome(hold, &|outcome| outcome.paid[0] += 1), outcome),
        ("a hold without an amount", hold, asked_otherwise(&records[hold], as_amount(None)), "lacks a card, an amount"),
        ("a completion of another hold", completion, as_original(completion, 1), outcome),
        ("a completion of another amount", completion, asked_otherwise(&records[completion], as_amount(Some(34))), outcome),
        ("a void of another sale", void, as_original(void, 1), outcome),
        ("a void that gives back to the other purse", void, to_outcome(void, &|outcome| outcome.paid.reverse()), outcome),
        ("a refund of another sale", refund, as_original(refund, 1), outcome),
        ("a refund that gives a fen more", refund, to_outcome(refund, &|outcome| outcome.paid[1] += 1), outcome),
        ("a refund of an amount that is not there", refund, asked_otherwise(&records[refund], as_amount(None)), "lacks a card"),
        ("a load of a fen more", load, asked_otherwise(&records[load], as_amount(Some(451))), outcome),
        ("a bill of a fen less", bill, asked_otherwise(&records[bill], as_amount(Some(21))), outcome),
        ("an offline sale that was never flagged", offline, to_outcome(offline, &|outcome| outcome.flag = None), outcome),
        (
            "an offline sale flagged otherwise",
            offline,
            to_outcome(offline, &|outcome| outcome.flag = Some(Response::CardLost)),
            outcome,
        ),
        ("a door that was flagged", door, to_outcome(door, &|outcome| outcome.flag = Some(Response::NotPermitted)), outcome),
        (
            "totals that were equal and are not",
            equal,
            rewritten(&records[equal], |command, _| {
                let Command::BatchClose { totals, .. } = command else { panic!("a batch") };
                totals.debit(1);
            }),
            outcome,
        ),
        (
            "totals of the switch's that are others",
            differing,
            to_outcome(differing, &|outcome| outcome.totals.as_mut().expect("they differ").debit(1)),
            outcome,
        ),
        ("totals that nobody told", differing, to_outcome(differing, &|outcome| outcome.totals = None), outcome),
        (
            "a batch without a number",
            equal,
            asked_otherwise(&records[equal], |request| request.echo = Echo::new(120_000, None, None, None, false)),
            "a number that its operation needs",
        ),
        (
            "a wrong PIN",
            with_pin,
            rewritten(&records[with_pin], |command, _| {
                let Command::Purchase { pin, .. } = command else { panic!("a purchase") };
                assert_eq!(std::mem::replace(pin, Pin::Wrong), Pin::Right);
            }),
            outcome,
        ),
        ("an advice put off twice", late + 1, records[late].clone(), "puts a message off a second time"),
        ("a reversal put off twice", unkept + 1, records[unkept].clone(), "puts a message off a second time"),
    ];
    let today = decode(&records[load]).expect("a record").command.request().expect("a load").identity.date;
    let dated = |index: usize, date: Date| {
        asked_otherwise(&records[index], |request| request.identity = Identity::from_packed(request.identity.packed(), date))
    };
    forgeries.push(("an advice of today put off", late, dated(late, today), "puts off a message of the days"));
    let kept = rewritten(&records[unkept], |command, _| {
        let Command::Late { told: Told::Reversal(original), .. } = command else { panic!("a late reversal") };
        *original = Identity::from_packed(original.packed(), today);
    });
    forgeries.push(("a reversal of today's put off", unkept, kept, "puts off a message of the days"));
    forgeries.push(("an offline sale of long ago", offline, dated(offline, Date(today.0 - 9)), "outside the days"));
    // Texts that no message has: too long, missing, not printable.
    for reference in ["", long, "\u{5317}"] {
        let forged = rewritten(&records[bill], |command, _| {
            let Command::BillPayment { request, payee, pin, .. } = command else { panic!("a bill") };
            *command = Command::BillPayment { request: *request, payee: *payee, reference, pin: *pin };
        });
        forgeries.push(("a bill's reference", bill, forged, "a text that no message has"));
    }
    for item in ["", long] {
        let forged = rewritten(&records[borrow], |command, _| {
            let Command::Identity { request, act, is_advice, .. } = command else { panic!("a loan") };
            *command = Command::Identity { request: *request, act: *act, item, is_advice: *is_advice };
        });
        forgeries.push(("an item", borrow, forged, "a text that no message has"));
    }
    let own = |command: &Command<'_>| {
        let mut record = Vec::new();
        encode(&mut record, college::NOON, command, &Outcome::of(Response::Approved));
        record
    };
    let nobody = CardNumber::from_digits(b"4711").expect("a card number");
    let policy = Policy { identity_days: IDENTITY_DAYS, ..Policy::default() };
    for (what, command, words) in [
        (
            "a PIN of no card",
            Command::Pin { number: nobody, verification: PinVerification([0; 16]) },
            "gives a PIN to a card that does not exist",
        ),
        (
            "a terminal that is not there suspended",
            Command::Standing { id: *b"NOBODY  ", standing: TerminalStanding::Suspended },
            "terminal that does not exist",
        ),
        ("holds that never end", Command::Policy(Policy { hold_hours: 721, ..policy }), "sets a limit that cannot be"),
        ("no PIN tries", Command::Policy(Policy { pin_tries_max: 0, ..policy }), "sets a limit that cannot be"),
        (
            "a merchant's name",
            Command::Merchant {
                id: MerchantId::new("M-LONG").expect("short"),
                name: &"x".repeat(121),
                category: Category::Shop,
                fee_bp: 0,
            },
            "a name that is too long",
        ),
    ] {
        forgeries.push((what, first("rules"), own(&command), words));
    }
    for (what, index, forged, words) in &forgeries {
        let mut ledger = Ledger::new();
        for (position, record) in (1..).zip(&records[..*index]) {
            ledger.replay(position, record).expect("a sound record");
        }
        assert_ne!(&records[*index], forged, "{what}: nothing was forged");
        let error = ledger.replay(*index as u64 + 1, forged).err().unwrap_or_else(|| panic!("{what}: not found"));
        assert!(error.contains(words), "{what}: {error}");
    }
}

#[test]
fn verify_names_the_first_record_that_cannot_be_trusted() {
    let (_, mut records) = filled();
    // All of them in one segment.
    records.truncate(40);
    let folder = forged(&records);
    let file = folder.path().join("00000001.segment");
    let content = std::fs::read(&file).expect("a segment");
    // A byte within the second batch, which holds the records 4 to 6.
    let at = content.windows(records[4].len()).position(|bytes| bytes == records[4]).expect("the record");
    let mut damaged = content.clone();
    damaged[at] ^= 1;
    std::fs::write(&file, &damaged).expect("a file");
    let found = verify(folder.path(), None);
    assert_eq!((found.ok, found.first_bad_record, found.records), (false, Some(4), 3), "{found:?}");
    // The end is gone although it was acknowledged.
    let last = content.windows(8).rposition(|bytes| bytes == b"SWJBATCH").expect("a batch") / BLOCK_BYTES * BLOCK_BYTES;
    let mut cut = content.clone();
    cut[last..].fill(0);
    std::fs::write(&file, &cut).expect("a file");
    let found = verify(folder.path(), None);
    let kept = (records.len() as u64 - 1) / 3 * 3;
    assert_eq!((found.ok, found.first_bad_record, found.records), (false, Some(kept + 1), kept), "{found:?}");
    std::fs::write(&file, &content).expect("a file");
    assert!(verify(folder.path(), None).ok);
}

#[test]
fn verify_names_the_first_record_of_a_file_that_is_missing() {
    let (_, records) = filled();
    // Enough batches for three segments: the policy is written again and again.
    let many: Vec<Vec<u8>> = std::iter::repeat_n(records[0].clone(), 100).collect();
    let folder = forged(&many);
    let second = folder.path().join("00000002.segment");
    assert!(folder.path().join("00000003.segment").exists());
    let content = std::fs::read(&second).expect("a segment");
    // After the hash, the head has the first position at byte 72.
    let first = u64::from_le_bytes(content[BLOCK_BYTES + 72..BLOCK_BYTES + 80].try_into().expect("eight bytes"));
    std::fs::remove_file(&second).expect("a file");
    let found = verify(folder.path(), None);
    assert!(first > 1 && !found.ok, "{found:?}");
    assert_eq!(found.first_bad_record, Some(first), "{found:?}");
}
