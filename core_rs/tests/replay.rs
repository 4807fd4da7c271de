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
use switch_core::ledger::batches::Totals;
use switch_core::ledger::identities::{Content, Echo, Identity};
use switch_core::ledger::record::{decode, encode};
use switch_core::ledger::registry::{
    Act, CardClass, CardStatus, Category, EventKind, HolderId, MerchantId, Payee, TerminalKind, TerminalStanding, Zone,
};
use switch_core::ledger::rule::{Rule, RuleKind};
use switch_core::ledger::rules::Rules;
use switch_core::ledger::{Command, Ledger, Movements, Outcome, Pin, Policy, PurseChoice, Request, Response};
use switch_core::replica::Replica;
use switch_core::session::KeySlot;
use switch_core::verification::verify;

const IDENTITY: JournalIdentity = *b"a test's journal";
const DISK_BYTES: u64 = 16 << 20;
/// Small segments, so that some runs need several.
const OPTIONS: Options = Options { segment_bytes: 18 * BLOCK_BYTES as u64, batch_bytes_max: 60_002 };

// --- records ---

fn request() -> impl Strategy<Value = Request> {
    let words = (any::<u64>(), any::<u16>(), any::<[u64; 2]>(), any::<u64>());
    (words, 0_u8..3, 0_u16..10_000).prop_map(|((identity, date, content, echo), slot, mti)| Request {
        identity: Identity::from_packed(identity, Date(date)),
        content: Content::from_packed(content),
        echo: Echo::from_packed(echo),
        slot: KeySlot::from_number(slot).expect("a slot"),
        mti,
    })
}

fn one_of<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
    prop::sample::select(all)
}

/// Every kind of command; the names live as long as the test.
fn command() -> impl Strategy<Value = Command<'static>> {
    let text = || prop::sample::select(&["", "North canteen", "\u{5317}\u{98df}\u{5802}"][..]);
    let digits = "[0-9]{1,19}".prop_map(|digits| CardNumber::from_digits(digits.as_bytes()).expect("a card number"));
    prop_oneof![
        (any::<u32>(), any::<u16>(), any::<u16>(), any::<u8>()).prop_map(
            |(amount_max, identity_days, hold_hours, pin_tries_max)| Command::Policy(Policy {
                amount_max,
                identity_days,
                hold_hours,
                pin_tries_max
            })
        ),
        any::<u16>().prop_map(|day| Command::Cutover(Date(day))),
        ("[ -~]{0,15}", text(), one_of(Category::ALL), any::<u16>()).prop_map(|(id, name, category, fee_bp)| {
            Command::Merchant { id: MerchantId::new(&id).expect("short"), name, category, fee_bp }
        }),
        (any::<[u8; 8]>(), any::<u32>(), one_of(TerminalKind::ALL), "[ -~]{0,16}", any::<[u8; 24]>()).prop_map(
            |(id, merchant, kind, zone, wrapped_key)| Command::Terminal {
                id,
                merchant,
                kind,
                zone: Zone::new(&zone).expect("short"),
                wrapped_key
            }
        ),
        (digits, "[ -~]{0,20}", one_of(CardClass::ALL), one_of(CardStatus::ALL), any::<u16>(), any::<[i64; 2]>()).prop_map(
            |(number, holder, class, status, expires, opening)| Command::Card {
                number,
                holder: HolderId::new(&holder).expect("short"),
                class,
                status,
                expires: Date(expires),
                opening
            }
        ),
        (text(), any::<u32>()).prop_map(|(file, rows)| Command::Imported { file, rows }),
        (request(), any::<[u8; 8]>(), any::<[u8; 8]>()).prop_map(|(request, terminal_nonce, switch_nonce)| Command::SignOn {
            request,
            terminal_nonce,
            switch_nonce
        }),
        request().prop_map(Command::SignOff),
        (request(), purses(), pin()).prop_map(|(request, purse, pin)| Command::Purchase { request, purse, pin }),
        (request(), purses()).prop_map(|(request, purse)| Command::OfflineSale { request, purse }),
        (request(), pin()).prop_map(|(request, pin)| Command::Hold { request, pin }),
        (request(), any::<u64>(), any::<u16>()).prop_map(|(request, original, date)| Command::Reversal {
            request,
            original: Identity::from_packed(original, Date(date))
        }),
        request().prop_map(Command::Unknown),
        one_more_command(),
    ]
}

fn purses() -> impl Strategy<Value = PurseChoice> {
    prop::sample::select(&[PurseChoice::Policy, PurseChoice::Cash, PurseChoice::Subsidy][..])
}

fn pin() -> impl Strategy<Value = Pin> {
    prop::sample::select(&[Pin::Absent, Pin::Right, Pin::Wrong][..])
}

fn totals() -> impl Strategy<Value = Totals> {
    any::<[u64; 8]>().prop_map(|values| {
        let mut elements = [(0, 0); 8];
        for (element, value) in elements.iter_mut().zip(values) {
            element.1 = value;
        }
        Totals::from_elements(&elements)
    })
}

/// The kinds that there is no room for above.
fn one_more_command() -> impl Strategy<Value = Command<'static>> {
    let text = || prop::sample::select(&["", "B-4711", "building 7, room 301"][..]);
    let rules = prop::collection::vec(
        (one_of(&[RuleKind::TransactionMax, RuleKind::DayMax, RuleKind::DayCount]), one_of(CardClass::ALL), 0_i64..10_000),
        0..9,
    )
    .prop_filter_map("a rule is said once", |rules| {
        let rule = |(kind, class, value)| Rule { class: Some(class), ..Rule::new(kind, value) };
        Rules::new(rules.into_iter().map(rule).collect()).ok()
    });
    prop_oneof![
        rules.prop_map(|rules| Command::Rules(Box::new(rules))),
        (1_u64..999_999, any::<[u8; 16]>()).prop_map(|(number, verification)| Command::Pin {
            number: CardNumber::from_digits(number.to_string().as_bytes()).expect("a card number"),
            verification
        }),
        any::<u64>().prop_map(|hold| Command::Lapse { hold }),
        (any::<[u8; 8]>(), one_of(TerminalStanding::ALL)).prop_map(|(id, standing)| Command::Standing { id, standing }),
        (request(), any::<u64>()).prop_map(|(request, original)| Command::Completion { request, original }),
        (request(), any::<u64>()).prop_map(|(request, original)| Command::Void { request, original }),
        (request(), any::<u64>()).prop_map(|(request, original)| Command::Refund { request, original }),
        request().prop_map(Command::Load),
        (request(), one_of(Payee::ALL), text(), pin()).prop_map(|(request, payee, reference, pin)| Command::BillPayment {
            request,
            payee,
            reference,
            pin
        }),
        (request(), one_of(Act::ALL), text(), any::<bool>()).prop_map(|(request, act, item, is_advice)| Command::Identity {
            request,
            act,
            item,
            is_advice
        }),
        (request(), any::<bool>()).prop_map(|(request, is_found)| Command::CardReport { request, is_found }),
        (request(), totals()).prop_map(|(request, totals)| Command::BatchClose { request, totals: Box::new(totals) }),
        (request(), one_of(EventKind::ALL), text(), text()).prop_map(|(request, kind, place, value)| Command::Event {
            request,
            kind,
            place,
            value
        }),
        (request(), prop::option::of(one_of(Act::ALL)), text(), any::<u64>())
            .prop_map(|(request, act, item, original)| Command::LateAdvice { request, act, item, original }),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let flag = prop::option::of(one_of(&Response::ALL));
    let rest = (any::<Option<u64>>(), flag, prop::option::of(totals()));
    (one_of(&Response::ALL), any::<[u64; 2]>(), any::<Option<[i64; 2]>>(), rest).prop_map(
        |(response, paid, after, (original, flag, totals))| Outcome {
            response,
            movements: Movements::default(),
            paid,
            after,
            original,
            flag,
            totals: totals.map(Box::new),
            place: None,
        },
    )
}

proptest! {
    #[test]
    fn a_record_says_what_was_decided_and_nothing_else(
        timestamp: u64, command in command(), outcome in outcome(), none_paid: bool, tail: u8, other: u8
    ) {
        let outcome = Outcome { paid: if none_paid { [0, 0] } else { outcome.paid }, ..outcome };
        let mut record = Vec::new();
        encode(&mut record, timestamp, &command, &outcome);
        let decoded = decode(&record).expect("a record");
        prop_assert_eq!((decoded.timestamp, &decoded.command, decoded.outcome), (timestamp, &command, outcome));
        for length in 0..record.len() {
            prop_assert!(decode(&record[..length]).is_none(), "cut at {}", length);
        }
        // What can be read means what is written: no two records say the same.
        for at in 0..record.len() {
            let mut changed = record.clone();
            changed[at] ^= other.max(1);
            if let Some(decoded) = decode(&changed) {
                let mut again = Vec::new();
                encode(&mut again, decoded.timestamp, &decoded.command, &decoded.outcome);
                prop_assert!(again == changed || decoded.outcome.paid == [0, 0], "{} changed unseen", at);
            }
        }
        record.push(tail);
        prop_assert!(decode(&record).is_none());
    }
}

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
    everything().iter().for_each(|step| world.take(step));
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
