//! From bytes to bytes: the ladder of refusals before and after the MAC, stored answers, sessions, full disks, and which
//! reply may leave before the journal is durable.

mod college;

use college::{
    Answer, DAY, Draft, IDENTITY_DAYS, Leaves, Memory, NOON, Terminal, ask, ask_frame, card, college, key_encryption_key, nonces,
    settings, unframed,
};
use proptest::prelude::*;
use switch_core::authorizer::{Authorizer, Replies, Settings};
use switch_core::calendar::Timestamp;
use switch_core::import::import;
use switch_core::iso8583::{Message, Tpdu, frame};
use switch_core::ledger::Ledger;
use switch_core::ledger::identities::State;
use switch_core::limits::{CLOSURE_DAYS_MAX, CUTOVER_DAYS_MAX, SIGN_ON_MICROSECONDS, SIGN_ONS_AT_ONCE};
use switch_core::mac::MacKey;
use switch_core::stats::Operation;

type Core = Authorizer<Memory>;

/// The college with the canteen's till signed on.
fn signed_on() -> (Core, Terminal) {
    let mut authorizer = college(Memory::default());
    let mut till = Terminal::new("POS00001", 1);
    till.sign_on(&mut authorizer, 1);
    (authorizer, till)
}

/// What the same records make of an empty ledger: the switch after a restart.
fn restarted(authorizer: &Core) -> Core {
    restarted_at(authorizer, settings(), NOON).expect("its own keys")
}

fn restarted_at(authorizer: &Core, settings: Settings, now: Timestamp) -> Result<Core, String> {
    let mut ledger = Ledger::new();
    for (position, record) in (1..).zip(&authorizer.log().records) {
        ledger.replay(position, record).expect("its own records");
    }
    assert_eq!(ledger.digest(), authorizer.ledger().digest());
    let log = Memory { records: authorizer.log().records.clone(), full: false };
    Authorizer::new(ledger, log, settings, nonces, now)
}

/// Asks, and checks that nothing changed.
fn ask_in_vain(authorizer: &mut Core, draft: &Draft, key: Option<&MacKey>) -> Answer {
    let before = (authorizer.ledger().digest(), authorizer.log().records.len());
    let answer = ask(authorizer, draft, key);
    assert_eq!((authorizer.ledger().digest(), authorizer.log().records.len()), before, "{draft:?} changed something");
    answer
}

#[test]
fn refusals_before_the_mac_come_in_order_without_a_mac_and_leave_at_once() {
    let (mut authorizer, till) = signed_on();
    let stranger = Terminal::new("NOBODY", 9);
    let good = till.purchase(10, "1001", 100);
    let wrong_key = MacKey::new(&[9; 16]);
    let foreign = |draft: &Draft| draft.clone().with(41, stranger.name());
    let malformed = |draft: &Draft| draft.clone().with(48, "no sub-elements");
    let rows: &[(&str, Draft, Option<&MacKey>)] = &[
        ("30", good.clone().without(11), Some(till.key())),
        ("30", good.clone().without(12), Some(till.key())),
        ("30", good.clone().without(13), Some(till.key())),
        ("30", good.clone().without(41), Some(till.key())),
        ("30", malformed(&good), Some(till.key())),
        ("30", malformed(&foreign(&good)), None),
        ("30", foreign(&good).without(11), None),
        ("58", foreign(&good), Some(till.key())),
        ("58", foreign(&good.clone().without(2)), None),
        ("58", foreign(&till.sign_on_draft(10)), Some(&stranger.sign_on_key)),
        ("63", good.clone(), None),
        ("63", good.clone(), Some(&wrong_key)),
        ("63", good.clone(), Some(&till.sign_on_key)),
        // 63 comes before everything that only an authenticated message may learn.
        ("63", good.clone().without(2), Some(&wrong_key)),
        ("63", good.clone().with(42, "M-SHOP"), Some(&wrong_key)),
        ("63", good.clone().with(13, "0101"), Some(&wrong_key)),
        ("63", till.sign_on_draft(10), Some(till.key())),
        ("63", till.sign_on_draft(10), None),
        ("63", till.draft(800, 10).with(70, "002"), None),
        ("63", till.draft(800, 10).with(70, "301"), Some(&wrong_key)),
        ("63", till.draft(100, 10).with(2, "1001").with(3, "310000"), None),
    ];
    for (code, draft, key) in rows {
        let answer = ask_in_vain(&mut authorizer, draft, *key);
        assert_eq!((answer.code().as_str(), answer.leaves, answer.has_mac()), (*code, Leaves::AtOnce, false), "{draft:?}");
        assert_eq!((answer.number(37), answer.text(38), answer.text(54)), (None, None, None), "{draft:?}");
        assert_eq!(answer.message().mti(), draft.mti + 10);
    }
    // None of it was remembered: the same message is decided when it comes right.
    assert_eq!(ask(&mut authorizer, &good, Some(till.key())).code(), "00");
}

#[test]
fn refusals_after_the_mac_come_in_order_with_a_mac() {
    let (mut authorizer, till) = signed_on();
    let mut gate = Terminal::new("GATE0004", 4);
    gate.sign_on(&mut authorizer, 1);
    let good = till.purchase(10, "1001", 100);
    let balance = till.draft(100, 10).with(2, "1001").with(3, "310000");
    let reversal = till.reversal(11, 10);
    let original = |digits: &str| reversal.clone().with(90, &format!("{digits}{}", "0".repeat(22)));
    let (at_once, durable) = (Leaves::AtOnce, Leaves::Durable);
    let rows: &[(&str, Leaves, Draft)] = &[
        ("30", at_once, good.clone().without(2)),
        ("30", at_once, good.clone().without(3)),
        ("30", at_once, good.clone().without(4)),
        ("30", at_once, good.clone().without(42)),
        ("30", at_once, good.clone().without(49)),
        ("30", at_once, good.clone().with(49, "840")),
        ("30", at_once, good.clone().with(12, "240000")),
        ("30", at_once, good.clone().with(12, "236000")),
        ("30", at_once, good.clone().with(12, "235960")),
        ("30", at_once, good.clone().with(13, "0000")),
        ("30", at_once, good.clone().with(13, "1301")),
        ("30", at_once, good.clone().with(13, "0230")),
        ("30", at_once, good.clone().with(60, "000000")),
        ("30", at_once, good.clone().with(60, "00001")),
        ("30", at_once, good.clone().with(60, "00000x")),
        ("30", at_once, balance.clone().without(2)),
        ("30", at_once, till.draft(800, 10)),
        ("30", at_once, original("08000000101122120000")),
        ("30", at_once, original("02000000101301120000")),
        // 30 before 58 before 12.
        ("30", at_once, good.clone().without(2).with(42, "M-SHOP").with(13, "0101")),
        ("58", at_once, good.clone().with(42, "M-SHOP").with(13, "0101")),
        ("58", at_once, good.clone().with(42, "M-CANTEEN2")),
        ("58", at_once, good.clone().with(42, "M-CANTEE")),
        ("58", at_once, good.clone().with(3, "999999").with(42, "M-SHOP")),
        ("58", at_once, till.draft(800, 10).with(42, "M-SHOP").with(70, "301")),
        ("12", durable, good.clone().with(13, "1114")),
        ("12", durable, good.clone().with(13, "1124")),
        ("12", durable, good.clone().with(13, "0101").with(4, "0")),
        ("12", durable, balance.clone().with(13, "1114")),
        ("12", durable, till.draft(0, 10).with(13, "1114")),
        ("14", durable, balance.clone().with(2, "9999")),
    ];
    for (code, leaves, draft) in rows {
        let answer = ask_in_vain(&mut authorizer, draft, Some(till.key()));
        assert_eq!((answer.code().as_str(), answer.leaves), (*code, *leaves), "{draft:?}");
        assert!(answer.is_proved_by(till.key()), "{draft:?}");
        assert_eq!((answer.number(37), answer.text(38), answer.text(54)), (None, None, None), "{draft:?}");
    }
    // What a terminal may do follows from its kind.
    for draft in [good.clone().with(42, "M-SHOP"), balance.clone()] {
        let draft = draft.with(41, gate.name());
        assert_eq!(ask_in_vain(&mut authorizer, &draft, Some(gate.key())).code(), "58", "{draft:?}");
    }
    assert_eq!(ask(&mut authorizer, &gate.reversal(11, 10), Some(gate.key())).code(), "00");
    let mut kiosk = Terminal::new("KIOSK003", 3);
    kiosk.sign_on(&mut authorizer, 1);
    assert_eq!(ask(&mut authorizer, &balance.with(41, kiosk.name()), Some(kiosk.key())).code(), "00");
    let at_kiosk = good.with(41, kiosk.name()).with(42, "M-SHOP");
    assert_eq!(ask_in_vain(&mut authorizer, &at_kiosk, Some(kiosk.key())).code(), "58");
}

#[test]
fn the_identity_window_has_the_days_it_should() {
    let (mut authorizer, till) = signed_on();
    let days = [("1114", "12"), ("1115", "00"), ("1122", "00"), ("1123", "00"), ("1124", "12"), ("0522", "12"), ("0523", "12")];
    for (stan, (day, code)) in (10..).zip(days) {
        let answer = ask(&mut authorizer, &till.purchase(stan, "1001", 1).with(13, day), Some(till.key()));
        assert_eq!((answer.code().as_str(), answer.number(15)), (code, Some(1122)), "{day}");
    }
    // The business date moves on at local midnight, and the window with it; a clock set back moves nothing.
    let stan_11 = till.purchase(11, "1001", 1).with(13, "1115");
    authorizer.keep_date(NOON + DAY / 2 - 1);
    assert_eq!(ask(&mut authorizer, &stan_11, Some(till.key())).code(), "00");
    authorizer.keep_date(NOON + DAY / 2);
    assert_eq!(ask_in_vain(&mut authorizer, &stan_11, Some(till.key())).code(), "12");
    authorizer.keep_date(NOON);
    assert_eq!(authorizer.ledger().business_date(), college::date("2026-11-23"));
    let answer = ask(&mut authorizer, &till.purchase(30, "1001", 1).with(13, "1124"), Some(till.key()));
    assert_eq!((answer.code().as_str(), answer.number(15)), ("00", Some(1123)));
    // A stored answer keeps the business date of its decision.
    let answer = ask(&mut authorizer, &till.purchase(12, "1001", 1), Some(till.key()));
    assert_eq!((answer.code().as_str(), answer.number(15)), ("00", Some(1122)));
}

#[test]
fn a_running_switch_does_not_follow_a_clock_that_is_far_ahead() {
    let (mut authorizer, till) = signed_on();
    let purchase = till.purchase(10, "1001", 850);
    let first = ask(&mut authorizer, &purchase, Some(till.key()));
    let days = |days: u16| NOON + u64::from(days) * DAY;
    // A year on, the same DE13 would be another day's, and the purchase a new one.
    for jump in [CUTOVER_DAYS_MAX + 1, 100, 183, 365, 366, 20_000] {
        let before = authorizer.log().records.len();
        authorizer.keep_date(days(jump));
        assert_eq!((authorizer.ledger().business_date(), authorizer.clock_ahead_days()), (college::date("2026-11-22"), jump));
        assert_eq!(authorizer.log().records.len(), before);
        assert_eq!(ask_in_vain(&mut authorizer, &purchase, Some(till.key())).body(), first.body());
    }
    authorizer.keep_date(NOON);
    assert_eq!(authorizer.clock_ahead_days(), 0);
    authorizer.keep_date(days(CUTOVER_DAYS_MAX));
    assert_eq!((authorizer.ledger().business_date(), authorizer.clock_ahead_days()), (college::date("2026-11-25"), 0));
    assert_eq!(ask_in_vain(&mut authorizer, &purchase, Some(till.key())).body(), first.body());
}

#[test]
fn no_hold_lapses_by_a_clock_that_is_not_followed() {
    let (mut authorizer, _) = signed_on();
    let tap = "terminal_id,merchant_id,kind,zone,key\nWATER006,M-SHOP,water,,00000000000000000000000000000006\n";
    import(&mut authorizer, NOON, "tap.csv", tap.as_bytes()).expect("a good file");
    let mut tap = Terminal::new("WATER006", 6);
    tap.sign_on(&mut authorizer, 1);
    let hold = ask(&mut authorizer, &tap.draft(100, 10).with(2, "1001").with(3, "000000").with(4, "300"), Some(tap.key()));
    assert_eq!(hold.purses(), Some([700, 500]));
    for jump in [CUTOVER_DAYS_MAX + 1, 365] {
        authorizer.keep_date(NOON + u64::from(jump) * DAY);
        assert_eq!(authorizer.ledger().holds().count(), 1, "{jump} days ahead");
    }
    authorizer.keep_date(NOON + DAY - 1);
    assert_eq!(authorizer.ledger().holds().count(), 1);
    authorizer.keep_date(NOON + DAY);
    assert_eq!(authorizer.ledger().holds().count(), 0);
    // One that was made meanwhile does not wait for its moment, nor keep those behind it: it lapses with the next one.
    let draft = |stan: u32| tap.draft(100, stan).with(2, "1001").with(3, "000000").with(4, "100");
    for (stan, now) in [(11, NOON + 365 * DAY), (12, NOON + DAY)] {
        assert_eq!(ask_frame(&mut authorizer, now, &draft(stan).frame(Some(tap.key()))).code(), "00");
    }
    authorizer.keep_date(NOON + 2 * DAY - 1);
    assert_eq!(authorizer.ledger().holds().count(), 2);
    authorizer.keep_date(NOON + 2 * DAY);
    assert_eq!(authorizer.ledger().holds().count(), 0);
}

#[test]
fn an_advice_that_was_given_to_a_person_is_not_posted_when_its_day_comes() {
    let (mut authorizer, till) = signed_on();
    let days = |days: u64| NOON + days * DAY;
    let sold = |mti: u16| Draft { mti, ..till.purchase(10, "1001", 100).with(13, "1126") };
    assert_eq!(ask(&mut authorizer, &sold(220), Some(till.key())).code(), "12");
    // By then the day on which it was written down may be forgotten.
    for (today, mti) in [(0, 221), (3, 221), (4, 220), (6, 221), (9, 221)] {
        authorizer.keep_date(days(today));
        assert_eq!(ask_in_vain(&mut authorizer, &sold(mti), Some(till.key())).code(), "12", "day {today}");
    }
    // Another one is posted, even if the terminal did not count its STANs on; and of two that are too late both are written down.
    assert_eq!(ask(&mut authorizer, &sold(220).with(4, "200"), Some(till.key())).code(), "00");
    for amount in ["300", "400"] {
        let late = sold(220).with(13, "1101").with(4, amount);
        assert_eq!(ask(&mut authorizer, &late, Some(till.key())).code(), "12");
        assert_eq!(ask_in_vain(&mut authorizer, &late, Some(till.key())).code(), "12");
    }
    assert_eq!(authorizer.log().records.len() as u64, authorizer.ledger().position());
    restarted(&authorizer);
}

#[test]
fn a_reversal_that_comes_too_late_is_given_to_a_person_once() {
    let (mut authorizer, till) = signed_on();
    assert_eq!(ask(&mut authorizer, &till.purchase(10, "1001", 100), Some(till.key())).code(), "00");
    // Of long ago, of what is known, by a clock that is ahead, and by its own DE11 and DE13.
    let of_long_ago = till.draft(420, 20).with(90, &format!("02000000101101120000{}", "0".repeat(22)));
    let late = [
        of_long_ago,
        till.reversal(21, 10).with(13, "1101"),
        till.reversal(22, 10).with(13, "1126"),
        till.draft(400, 10).with(13, "1101"),
    ];
    for draft in &late {
        let answer = ask(&mut authorizer, draft, Some(till.key()));
        assert_eq!((answer.code().as_str(), answer.text(37), answer.leaves), ("12", None, Leaves::Durable), "{draft:?}");
        assert_eq!(ask_in_vain(&mut authorizer, &draft.clone().mti(421), Some(till.key())).code(), "12", "{draft:?}");
    }
    assert_eq!(authorizer.log().records.len() as u64, authorizer.ledger().position());
    restarted(&authorizer);
    // What a person has been given is not undone when its day comes.
    for days in [2, 4] {
        authorizer.keep_date(NOON + days * DAY);
    }
    assert_eq!(authorizer.ledger().business_date(), college::date("2026-11-26"));
    assert_eq!(ask_in_vain(&mut authorizer, &late[2], Some(till.key())).code(), "12");
    // But the purchase is, by a reversal that comes in time.
    let reversed = ask(&mut authorizer, &till.reversal(23, 10).with(2, "1001").with(13, "1126"), Some(till.key()));
    assert_eq!((reversed.code().as_str(), reversed.purses()), ("00", Some([1000, 500])));
}

#[test]
fn a_reversal_is_answered_again_when_its_original_has_left_the_window() {
    let (mut authorizer, till) = signed_on();
    assert_eq!(ask(&mut authorizer, &till.purchase(10, "1001", 100), Some(till.key())).code(), "00");
    authorizer.keep_date(NOON + DAY);
    let reversal = till.reversal(11, 10).with(13, "1123");
    let first = ask(&mut authorizer, &reversal, Some(till.key()));
    assert_eq!(first.code(), "00");
    for days in [3, 6, u64::from(IDENTITY_DAYS)] {
        authorizer.keep_date(NOON + days * DAY);
    }
    assert!(!authorizer.ledger().window().contains(&college::date("2026-11-22")));
    let again = ask_in_vain(&mut authorizer, &reversal.clone().mti(421), Some(till.key()));
    assert_eq!((again.code(), again.text(37)), (first.code(), first.text(37)));
    assert_eq!(ask_in_vain(&mut authorizer, &reversal.with(4, "1"), Some(till.key())).code(), "94");
}

#[test]
fn a_start_far_ahead_of_the_business_date_must_be_confirmed() {
    let (authorizer, _) = signed_on();
    let at = |days: u16, accept_date: Option<&str>| {
        let settings = Settings { accept_date: accept_date.map(college::date), ..settings() };
        restarted_at(&authorizer, settings, NOON + u64::from(days) * DAY)
    };
    for days in [0, CUTOVER_DAYS_MAX + 1, CLOSURE_DAYS_MAX] {
        let started = at(days, None).expect("a closure that needs no word");
        assert_eq!(started.ledger().business_date().0, authorizer.ledger().business_date().0 + days);
    }
    let refused = |days, accept_date| at(days, accept_date).err().expect("refused");
    let sentence = refused(CLOSURE_DAYS_MAX + 1, None);
    for part in ["2027-03-03", "101 days after the business date 2026-11-22", "switch serve --accept-date 2027-03-03"] {
        assert!(sentence.contains(part), "{sentence}");
    }
    assert!(refused(365, None).contains("--accept-date 2027-11-22"));
    // Whatever is confirmed, it must be today.
    for (days, date) in [(101, "2027-03-02"), (101, "2027-03-04"), (0, "2026-11-23")] {
        assert!(refused(days, Some(date)).contains(&format!("--accept-date names {date}, but")), "{days} {date}");
    }
    let confirmed = at(365, Some("2027-11-22")).expect("confirmed");
    assert_eq!((confirmed.ledger().business_date(), confirmed.clock_ahead_days()), (college::date("2027-11-22"), 0));
    // A ledger without a date takes whatever comes first, at its start or, where the clock was not set yet, while it runs.
    let mut early = Authorizer::new(Ledger::new(), Memory::default(), settings(), nonces, 0).expect("the first start");
    early.keep_date(NOON);
    assert_eq!(early.ledger().business_date(), college::date("2026-11-22"));
}

#[test]
fn an_approved_purchase_says_all_that_it_should() {
    let (mut authorizer, till) = signed_on();
    let mut draft = till.purchase(10, "1001", 850).with(24, "017").with(60, "000042").with(7, "1122040000").with(22, "051");
    draft.tpdu = Some(Tpdu([0x60, 1, 2, 3, 4]));
    let answer = ask(&mut authorizer, &draft, Some(till.key()));
    assert!(answer.is_proved_by(till.key()));
    assert_eq!(answer.tpdu, Some(Tpdu([0x60, 3, 4, 1, 2])));
    assert_eq!((answer.message().mti(), answer.leaves), (210, Leaves::Durable));
    assert_eq!(answer.handled.operation, Operation::Purchase);
    let position = authorizer.ledger().position();
    let position_text = format!("{position:012}");
    assert_eq!(answer.text(37).as_deref(), Some(position_text.as_str()));
    assert_eq!(answer.text(38).as_deref(), Some(&position_text[6..]));
    assert_eq!((answer.code().as_str(), answer.purses()), ("00", Some([650, 0])));
    for element in [2, 3, 4, 11, 12, 13, 24, 41, 42, 49, 60] {
        let frame = draft.frame(None);
        let request = Message::parse(unframed(&frame).1).expect("readable");
        assert_eq!(answer.message().wire(element), request.wire(element), "DE{element}");
    }
    let present: Vec<u8> = (2..=128).filter(|element| answer.message().has(*element)).collect();
    assert_eq!(present, [2, 3, 4, 11, 12, 13, 15, 24, 37, 38, 39, 41, 42, 49, 54, 60, 64]);
    // A decline has its number, but neither approval nor balances.
    let declined = ask(&mut authorizer, &till.purchase(11, "1001", 651), Some(till.key()));
    assert_eq!((declined.code().as_str(), declined.purses(), declined.text(38)), ("51", None, None));
    assert_eq!(declined.text(37), Some(format!("{:012}", position + 1)));
    assert_eq!(declined.leaves, Leaves::Durable);
}

#[test]
fn a_message_sent_again_gets_the_stored_answer_whatever_else_it_says() {
    let (mut authorizer, till) = signed_on();
    let reversal = till.reversal(21, 10).with(2, "1001").with(4, "850");
    let firsts = [
        till.purchase(10, "1001", 850).with(24, "017").with(60, "000042"),
        till.purchase(11, "1001", 651).with(60, "000042"),
        till.purchase(12, "9999", 1),
        till.purchase(13, "1101", 1).with(24, "000"),
        reversal,
        till.reversal(22, 99),
        till.draft(700, 14).with(48, "40020141011"),
        till.draft(100, 15).with(2, "1001").with(3, "300000").with(4, "1").with(42, "M-CANTEEN"),
    ];
    let stored: Vec<Answer> = firsts.iter().map(|draft| ask(&mut authorizer, draft, Some(till.key()))).collect();
    let codes: Vec<String> = stored.iter().map(Answer::code).collect();
    assert_eq!(codes, ["00", "51", "14", "41", "00", "00", "12", "12"]);
    authorizer.keep_date(NOON + DAY);
    for mut authorizer in [restarted(&authorizer), authorizer] {
        for (draft, first) in firsts.iter().zip(&stored) {
            let other =
                draft.clone().with(12, "235959").with(24, "999").with(60, "000043").with(7, "0101000000").with(37, "CHANGED");
            let repeats = [
                draft.clone(),
                draft.clone().mti(draft.mti + 1),
                other.clone().mti(draft.mti + 1),
                other,
                draft.clone().without(42).without(60),
            ];
            for repeat in repeats {
                // A purchase needs its DE42.
                let repeat = if draft.mti == 200 { repeat.with(42, "M-CANTEEN") } else { repeat };
                let again = ask_in_vain(&mut authorizer, &repeat, Some(till.key()));
                assert_eq!(again.body(), first.body(), "{repeat:?}");
                assert_eq!((again.message().mti(), again.leaves), (repeat.mti + 10, Leaves::Durable), "{repeat:?}");
                assert!(again.is_proved_by(till.key()));
            }
        }
    }
}

#[test]
fn a_repeat_under_another_type_of_its_family_gets_the_stored_answer_too() {
    let (mut authorizer, till) = signed_on();
    let purchase = till.purchase(10, "1001", 850);
    let first = ask(&mut authorizer, &purchase, Some(till.key()));
    for mti in [201, 220, 221] {
        let again = ask_in_vain(&mut authorizer, &purchase.clone().mti(mti), Some(till.key()));
        assert_eq!(again.body(), first.body(), "{mti:04}");
    }
    let reversal = till.reversal(11, 10).with(2, "1001");
    let first = ask(&mut authorizer, &reversal, Some(till.key()));
    for mti in [401, 420, 421, 400] {
        assert_eq!(ask_in_vain(&mut authorizer, &reversal.clone().mti(mti), Some(till.key())).body(), first.body(), "{mti:04}");
    }
}

#[test]
fn a_stored_answer_does_not_change_when_its_card_becomes_known() {
    let (mut authorizer, till) = signed_on();
    let reversal = till.reversal(11, 10).with(2, "2002");
    let first = ask(&mut authorizer, &reversal, Some(till.key()));
    assert_eq!((first.code().as_str(), first.purses()), ("00", None));
    let cards = "card_number,holder_id,class,status,expires,cash,subsidy\n2002,N1,student,active,2027-01-01,50,0\n";
    import(&mut authorizer, NOON, "cards.csv", cards.as_bytes()).expect("a good file");
    assert_eq!(ask_in_vain(&mut authorizer, &reversal, Some(till.key())).body(), first.body());
}

#[test]
fn a_known_identity_with_other_content_is_refused() {
    let (mut authorizer, till) = signed_on();
    let purchase = till.purchase(10, "1001", 850);
    let first = ask(&mut authorizer, &purchase, Some(till.key()));
    let others = [
        purchase.clone().with(2, "1002"),
        purchase.clone().with(2, "01001"),
        purchase.clone().with(3, "001000"),
        purchase.clone().with(4, "851"),
        // 94 comes before what a decision would say: no such amount, no such card.
        purchase.clone().with(4, "0"),
        purchase.clone().with(2, "9999"),
    ];
    for other in &others {
        let answer = ask_in_vain(&mut authorizer, other, Some(till.key()));
        assert_eq!((answer.code().as_str(), answer.number(37), answer.leaves), ("94", None, Leaves::Durable), "{other:?}");
        assert!(answer.is_proved_by(till.key()));
    }
    // An operation that is not known is answered 12 before any look at what is remembered.
    assert_eq!(ask_in_vain(&mut authorizer, &purchase.clone().with(3, "030000"), Some(till.key())).code(), "12");
    // Reversals have identities of their own.
    let reversal = till.reversal(10, 10);
    assert_eq!(ask(&mut authorizer, &reversal, Some(till.key())).code(), "00");
    assert_eq!(ask_in_vain(&mut authorizer, &reversal.clone().with(4, "1"), Some(till.key())).code(), "94");
    // A reversal that names another amount than its original is refused, and that is remembered.
    let confused = till.reversal(11, 10).with(4, "1");
    let refused = ask(&mut authorizer, &confused, Some(till.key()));
    assert_eq!((refused.code().as_str(), refused.number(37).is_none(), refused.text(37).is_some()), ("94", true, true));
    assert_eq!(ask_in_vain(&mut authorizer, &confused, Some(till.key())).body(), refused.body());
    assert_eq!(ask_in_vain(&mut authorizer, &purchase, Some(till.key())).body(), first.body());
}

#[test]
fn a_reversal_finds_its_original_with_and_without_de90() {
    let (mut authorizer, till) = signed_on();
    for (stan, mti, named) in [(10, 400, true), (11, 400, false), (12, 420, true), (13, 421, false)] {
        let purchase = till.purchase(stan, "1001", 100);
        ask(&mut authorizer, &purchase, Some(till.key()));
        let reversal = if named { till.reversal(stan + 20, stan) } else { till.draft(400, stan) };
        let answer = ask(&mut authorizer, &reversal.mti(mti).with(2, "1001"), Some(till.key()));
        assert_eq!((answer.code().as_str(), answer.purses()), ("00", Some([1000, 500])), "{stan}");
        assert_eq!(ask(&mut authorizer, &purchase, Some(till.key())).code(), "00", "the stored answer stands");
    }
    // Before its original: a tombstone, on the day that it names.
    let early = till.draft(400, 50).with(13, "1123");
    assert_eq!(ask(&mut authorizer, &early, Some(till.key())).code(), "00");
    assert_eq!(ask(&mut authorizer, &till.purchase(50, "1001", 1), Some(till.key())).code(), "00", "another day's message");
    assert_eq!(ask(&mut authorizer, &till.purchase(50, "1001", 1).with(13, "1123"), Some(till.key())).code(), "12");
    // DE54 only where DE2 is there.
    assert_eq!(ask(&mut authorizer, &till.reversal(60, 50), Some(till.key())).purses(), None);
}

#[test]
fn unknown_operations_are_answered_12_and_remembered_where_they_are_authentic() {
    let (mut authorizer, till) = signed_on();
    let drafts = [
        till.draft(200, 10).with(3, "030000"),
        till.draft(200, 11).with(3, "003000"),
        till.draft(220, 12).with(3, "001000").with(37, "000000000001"),
        till.draft(120, 13).with(3, "960000"),
        till.draft(202, 14).with(3, "000000"),
        till.draft(320, 15).with(91, "5").with(101, "HOTLIST"),
        till.draft(520, 16).with(60, "000001"),
        till.draft(700, 17),
        till.draft(800, 18).with(70, "303"),
        till.draft(210, 19).with(3, "000000"),
        till.draft(9989, 20),
        till.draft(9999, 21),
    ];
    for draft in drafts {
        let before = authorizer.log().records.len();
        let answer = ask(&mut authorizer, &draft, Some(till.key()));
        assert_eq!((answer.code().as_str(), answer.handled.operation), ("12", Operation::Unknown), "{draft:?}");
        assert_eq!((answer.leaves, authorizer.log().records.len()), (Leaves::Durable, before + 1), "{draft:?}");
        assert_eq!(answer.message().mti(), (draft.mti + 10) % 10_000);
        assert_eq!(ask_in_vain(&mut authorizer, &draft, Some(till.key())).body(), answer.body());
        assert_eq!(ask_in_vain(&mut authorizer, &draft, None).code(), "63");
    }
}

#[test]
fn a_sign_on_repeated_gets_the_same_nonce_and_the_previous_key_lives_until_the_new_one_is_used() {
    let (mut authorizer, mut till) = signed_on();
    let old = till.key.take().expect("signed on");
    let balance = |stan| Terminal::new("POS00001", 1).draft(100, stan).with(2, "1001").with(3, "310000");
    let first = till.sign_on(&mut authorizer, 2);
    assert!(first.is_proved_by(&till.sign_on_key));
    assert_eq!((first.leaves, &first.text(48).expect("DE48")[20..]), (Leaves::Durable, "030820261122"));
    let again = ask_in_vain(&mut authorizer, &till.sign_on_draft(2).mti(801), Some(&till.sign_on_key));
    assert_eq!(again.body(), first.body());
    // The old key, also after a restart, and with its own key's MAC on the reply.
    for mut authorizer in [restarted(&authorizer), authorizer] {
        for stan in [20, 21] {
            let answer = ask(&mut authorizer, &till.purchase(stan, "1001", 1), Some(&old));
            assert_eq!(answer.code(), "00");
            assert!(answer.is_proved_by(&old) && !answer.is_proved_by(till.key()));
        }
        // The first message under the new one ends it: for an inquiry too, though it leaves no record.
        assert_eq!(ask_in_vain(&mut authorizer, &balance(22), Some(till.key())).code(), "00");
        assert_eq!(ask_in_vain(&mut authorizer, &balance(23), Some(&old)).code(), "63");
        assert_eq!(ask(&mut authorizer, &till.purchase(24, "1001", 1), Some(till.key())).code(), "00");
        let mut authorizer = restarted(&authorizer);
        assert_eq!(ask_in_vain(&mut authorizer, &balance(25), Some(&old)).code(), "63");
        assert_eq!(ask(&mut authorizer, &balance(26), Some(till.key())).code(), "00");
        // Sign-off: answered under the session's key, which then proves nothing more, nor does the one before.
        let answer = ask(&mut authorizer, &till.draft(800, 30).with(70, "002"), Some(till.key()));
        assert_eq!((answer.code().as_str(), answer.number(70)), ("00", Some(2)));
        assert!(answer.is_proved_by(till.key()));
        for mut authorizer in [restarted(&authorizer), authorizer] {
            for key in [till.key(), &old] {
                assert_eq!(ask_in_vain(&mut authorizer, &balance(31), Some(key)).code(), "63");
            }
            assert_eq!(ask_in_vain(&mut authorizer, &till.draft(800, 32).with(70, "301"), None).code(), "00");
            Terminal::new("POS00001", 1).sign_on(&mut authorizer, 33);
        }
    }
}

#[test]
fn a_terminal_that_signs_on_without_end_is_put_off_and_harms_nobody() {
    let (mut authorizer, mut till) = signed_on();
    let before = authorizer.log().records.len() as u64;
    let mut stan = 10;
    let mut storm = |authorizer: &mut Core, till: &mut Terminal, now| {
        for given in 0.. {
            stan += 1;
            let draft = till.sign_on_draft(stan);
            let answer = ask_frame(authorizer, now, &draft.frame(Some(&till.sign_on_key)));
            assert!(answer.is_proved_by(&till.sign_on_key));
            if answer.code() == "91" {
                assert_eq!((answer.leaves, answer.text(37), answer.text(48)), (Leaves::AtOnce, None, None));
                return given;
            }
            till.key = Some(till.session_key(&answer));
        }
        unreachable!("it is put off before it runs out of numbers")
    };
    // One was had by signing on at noon.
    assert_eq!(storm(&mut authorizer, &mut till, NOON), SIGN_ONS_AT_ONCE - 1);
    assert_eq!(authorizer.log().records.len() as u64, before + SIGN_ONS_AT_ONCE - 1, "what is put off leaves no record");
    // Its last session goes on, what it was given is given again, and others sign on.
    assert_eq!(ask(&mut authorizer, &till.purchase(900, "1001", 1), Some(till.key())).code(), "00");
    assert_eq!(ask_in_vain(&mut authorizer, &till.sign_on_draft(11), Some(&till.sign_on_key)).code(), "00");
    Terminal::new("POS2", 2).sign_on(&mut authorizer, 1);
    // Time gives it one after another back, but no more than it had at first.
    assert_eq!(storm(&mut authorizer, &mut till, NOON + SIGN_ON_MICROSECONDS - 1), 0);
    assert_eq!(storm(&mut authorizer, &mut till, NOON + SIGN_ON_MICROSECONDS), 1);
    assert_eq!(storm(&mut authorizer, &mut till, NOON + 4 * SIGN_ON_MICROSECONDS), 3);
    assert_eq!(storm(&mut authorizer, &mut till, NOON + DAY), SIGN_ONS_AT_ONCE);
    // A clock that is set back locks nobody out.
    assert_eq!(storm(&mut authorizer, &mut till, NOON), SIGN_ONS_AT_ONCE);
    assert_eq!(storm(&mut authorizer, &mut till, NOON - 1), SIGN_ONS_AT_ONCE, "be it by a little");
}

#[test]
fn a_sign_off_that_repeats_another_message_ends_no_session() {
    let (mut authorizer, till) = signed_on();
    // DE70 is no part of what makes a message the same: this is the sign-on's identity, and gets the sign-on's answer.
    let stored = ask_in_vain(&mut authorizer, &till.draft(800, 1).with(70, "002"), Some(till.key()));
    assert_eq!((stored.code().as_str(), stored.number(70)), ("00", Some(1)));
    for mut authorizer in [restarted(&authorizer), authorizer] {
        assert_eq!(ask(&mut authorizer, &till.purchase(10, "1001", 1), Some(till.key())).code(), "00");
    }
}

#[test]
fn a_terminal_that_changed_its_merchant_may_still_repeat_and_reverse_what_it_did_before() {
    let (mut authorizer, till) = signed_on();
    let sale = till.purchase(10, "1001", 100);
    let first = ask(&mut authorizer, &sale, Some(till.key()));
    let moved = "terminal_id,merchant_id,kind,zone,key\nPOS00001,M-SHOP,pos,,00000000000000000000000000000001\n";
    import(&mut authorizer, NOON, "moved.csv", moved.as_bytes()).expect("a good file");
    assert_eq!(ask_in_vain(&mut authorizer, &sale, Some(till.key())).body(), first.body());
    let reversal = till.reversal(11, 10).with(2, "1001").with(42, "M-CANTEEN");
    let reversed = ask(&mut authorizer, &reversal, Some(till.key()));
    assert_eq!(
        (reversed.purses(), reversed.text(42)),
        (Some([1000, 500]), Some("M-CANTEEN      ".to_owned())),
        "DE42 as it was sent"
    );
    assert_eq!(ask_in_vain(&mut authorizer, &reversal, Some(till.key())).body(), reversed.body());
    // What is new goes to the new merchant alone.
    assert_eq!(ask_in_vain(&mut authorizer, &till.purchase(12, "1001", 100), Some(till.key())).code(), "58");
    assert_eq!(ask(&mut authorizer, &till.purchase(13, "1001", 100).with(42, "M-SHOP"), Some(till.key())).code(), "00");
}

#[test]
fn a_terminal_with_a_new_master_key_signs_on_again() {
    let (mut authorizer, till) = signed_on();
    let same = "terminal_id,merchant_id,kind,zone,key\nPOS00001,M-CANTEEN,pos,SOUTH,00000000000000000000000000000001\n";
    import(&mut authorizer, NOON, "same.csv", same.as_bytes()).expect("a good file");
    assert_eq!(ask(&mut authorizer, &till.purchase(10, "1001", 1), Some(till.key())).code(), "00");
    import(&mut authorizer, NOON, "new.csv", same.replace("0001\n", "0011\n").as_bytes()).expect("a good file");
    assert_eq!(ask_in_vain(&mut authorizer, &till.purchase(11, "1001", 1), Some(till.key())).code(), "63");
    assert_eq!(ask_in_vain(&mut authorizer, &till.sign_on_draft(12), Some(&till.sign_on_key)).code(), "63");
    let mut till = Terminal::new("POS00001", 0x11);
    till.sign_on(&mut authorizer, 13);
    for mut authorizer in [restarted(&authorizer), authorizer] {
        assert_eq!(ask(&mut authorizer, &till.purchase(14, "1001", 1), Some(till.key())).code(), "00");
    }
}

#[test]
fn without_room_in_the_journal_new_decisions_are_put_off_and_all_else_goes_on() {
    let (mut authorizer, till) = signed_on();
    let known = till.purchase(10, "1001", 100);
    let stored = ask(&mut authorizer, &known, Some(till.key()));
    authorizer.log_mut().full = true;
    let new = [
        till.purchase(11, "1001", 100),
        till.purchase(12, "1101", 0),
        till.reversal(13, 10),
        till.draft(700, 14),
        till.draft(800, 15).with(70, "002"),
    ];
    for draft in &new {
        let answer = ask_in_vain(&mut authorizer, draft, Some(till.key()));
        assert_eq!((answer.code().as_str(), answer.leaves, answer.text(37)), ("91", Leaves::AtOnce, None), "{draft:?}");
        assert!(answer.is_proved_by(till.key()));
    }
    assert_eq!(ask_in_vain(&mut authorizer, &till.sign_on_draft(16), Some(&till.sign_on_key)).code(), "91");
    assert_eq!(ask_in_vain(&mut authorizer, &known, Some(till.key())).body(), stored.body());
    assert_eq!(ask_in_vain(&mut authorizer, &known.clone().with(4, "1"), Some(till.key())).code(), "94");
    let balance = till.draft(100, 20).with(2, "1001").with(3, "310000");
    assert_eq!(ask_in_vain(&mut authorizer, &balance, Some(till.key())).code(), "00");
    authorizer.keep_date(NOON + DAY);
    assert_eq!(authorizer.ledger().business_date(), college::date("2026-11-22"), "the date waits for room as well");
    assert!(import(&mut authorizer, NOON, "m.csv", b"merchant_id,name,category,fee_bp\nM3,New,shop,0\n").is_err());
    authorizer.log_mut().full = false;
    let codes: Vec<String> = new.iter().map(|draft| ask(&mut authorizer, draft, Some(till.key())).code()).collect();
    assert_eq!(codes, ["00", "13", "00", "12", "00"]);
}

#[test]
fn what_rests_on_the_ledger_waits_for_the_journal() {
    let (mut authorizer, till) = signed_on();
    let balance = till.draft(100, 10).with(2, "1001").with(3, "310000");
    let answer = ask_in_vain(&mut authorizer, &balance, Some(till.key()));
    assert_eq!((answer.leaves, answer.purses(), answer.text(37)), (Leaves::Durable, Some([1000, 500]), None));
    ask(&mut authorizer, &till.purchase(11, "1001", 850), Some(till.key()));
    // An inquiry is answered afresh, whatever its number, and for any card that is known.
    for (number, purses) in [("1001", [650, 0]), ("1101", [1000, 500]), ("1105", [1000, 500])] {
        let answer = ask_in_vain(&mut authorizer, &balance.clone().with(2, number), Some(till.key()));
        assert_eq!((answer.leaves, answer.purses()), (Leaves::Durable, Some(purses)), "{number}");
    }
    for key in [None, Some(till.key())] {
        let echo = ask_in_vain(&mut authorizer, &till.draft(800, 11).with(70, "301"), key);
        assert_eq!((echo.code().as_str(), echo.leaves, echo.number(70)), ("00", Leaves::AtOnce, Some(301)));
        assert_eq!(echo.has_mac(), key.is_some());
    }
}

#[test]
fn a_switch_with_another_own_key_does_not_start() {
    let (authorizer, _) = signed_on();
    let mut ledger = Ledger::new();
    for (position, record) in (1..).zip(&authorizer.log().records) {
        ledger.replay(position, record).expect("its own records");
    }
    let key = switch_core::mac::KeyEncryptionKey::new(&[8; 32]);
    let error = Authorizer::new(ledger, Memory::default(), Settings { key, ..settings() }, nonces, NOON).err();
    assert!(error.is_some_and(|error| error.contains("POS00001")));
    let timezone = "Campus/Nowhere".to_owned();
    let settings = Settings { key: key_encryption_key(), timezone, ..settings() };
    assert!(Authorizer::new(Ledger::new(), Memory::default(), settings, nonces, NOON).is_err());
}

// --- peers that mean harm ---

/// Which valid message, the bytes to change in it, where to cut it, what to append, and whether its MAC is made afterwards.
type Damage = (usize, Vec<(usize, u8)>, Option<usize>, Vec<u8>, bool);

fn damaged() -> impl Strategy<Value = Damage> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    (
        0..8_usize,
        changes,
        prop::option::weighted(0.2, any::<prop::sample::Index>()),
        prop::collection::vec(any::<u8>(), 0..4),
        any::<bool>(),
    )
        .prop_map(|(which, changes, cut, tail, signed)| {
            let changes = changes.into_iter().map(|(at, byte)| (at.index(200), byte)).collect();
            (which, changes, cut.map(|cut| cut.index(200)), tail, signed)
        })
}

#[test]
fn looking_ahead_changes_nothing_and_stumbles_over_nothing() {
    let (mut authorizer, till) = signed_on();
    let known = ["1001", "1002", "1003", "1101", "1105", "9", "9999999999999999999"];
    let mut frames: Vec<u8> = Vec::new();
    for stan in 10..210 {
        frames.extend(till.purchase(stan, known[stan as usize % known.len()], 1).frame(Some(till.key())));
    }
    let mut garbage = frames.clone();
    for (place, byte) in garbage.iter_mut().enumerate().filter(|(place, _)| place % 7 == 3) {
        *byte = byte.wrapping_add(place as u8);
    }
    let before = authorizer.ledger().digest();
    for messages in [&frames[..], &garbage, &[]] {
        authorizer.look_ahead(frame::messages(messages));
        authorizer.look_ahead(messages.chunks(60));
    }
    assert_eq!((authorizer.ledger().digest(), authorizer.log().records.len() as u64), (before, authorizer.ledger().position()));
    let mut other = restarted(&authorizer);
    for message in frame::messages(&frames) {
        let mut replies = [Replies::default(), Replies::default()];
        authorizer.look_ahead(std::iter::once(message));
        let handled = authorizer.handle(NOON, None, message, &mut replies[0]);
        assert_eq!(handled, other.handle(NOON, None, message, &mut replies[1]));
        assert_eq!((&replies[0].durable, &replies[0].at_once), (&replies[1].durable, &replies[1].at_once));
    }
    assert_eq!(authorizer.ledger().digest(), other.ledger().digest());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_of_a_peer_end_the_switch(messages in prop::collection::vec(damaged(), 1..8)) {
        let (mut authorizer, till) = signed_on();
        for (which, changes, cut, tail, signed) in messages {
            let purchase = till.purchase(10, "1001", 10);
            let draft = match which {
                0 => purchase,
                1 => purchase.with(60, "000001").with(24, "001"),
                2 => till.reversal(11, 10).with(2, "1001"),
                3 => till.draft(400, 10),
                4 => till.sign_on_draft(12),
                5 => till.draft(800, 13).with(70, "002"),
                6 => till.draft(100, 14).with(2, "1001").with(3, "310000"),
                _ => till.draft(300, 15).with(91, "5").with(101, "HOTLIST").with(48, "5010000000000051041001"),
            };
            let frame = draft.frame(None);
            let mut message = unframed(&frame).1.to_vec();
            // The MAC's bit is set before anything is damaged, so that the MAC can be right over what is wrong.
            let second = message[2] & 0x80 != 0;
            let mac_bit = if second { 17 } else { 9 };
            message[mac_bit] |= u8::from(signed);
            let length = message.len();
            for (at, byte) in changes {
                message[at % length] = byte;
            }
            message.truncate(cut.map_or(length, |cut| cut % (length + 1)));
            message.extend_from_slice(&tail);
            if signed {
                let key = if which == 4 { &till.sign_on_key } else { till.key() };
                let tag = key.tag(&message);
                message.extend_from_slice(&tag);
            }
            let position = authorizer.ledger().position();
            let mut replies = Replies::default();
            let handled = authorizer.handle(NOON, None, &message, &mut replies);
            let written = replies.at_once.len() + replies.durable.len();
            prop_assert_eq!(handled.is_ok(), written > 0, "whoever can be answered is answered");
            prop_assert!(replies.at_once.is_empty() || replies.durable.is_empty());
            prop_assert_eq!(authorizer.ledger().accounts().sum(), 0);
            prop_assert!(authorizer.ledger().position() <= position + 1);
            prop_assert_eq!(authorizer.ledger().position(), authorizer.log().records.len() as u64);
            for frame in [&replies.at_once, &replies.durable].into_iter().filter(|frame| !frame.is_empty()) {
                // No MTI begins with 60, and the protocol has none whose reply would.
                if !matches!(message[0], 0x59 | 0x60) {
                    let (tpdu, reply) = unframed(frame);
                    prop_assert_eq!(tpdu, None);
                    let reply = Message::parse(reply).expect("a reply can be read");
                    prop_assert_eq!(reply.fault(), None);
                }
            }
        }
        restarted(&authorizer);
    }
}

#[test]
fn a_stored_purchase_shows_its_state() {
    let (mut authorizer, till) = signed_on();
    ask(&mut authorizer, &till.purchase(10, "1001", 10), Some(till.key()));
    ask_frame(&mut authorizer, NOON + DAY, &till.reversal(11, 10).frame(Some(till.key())));
    let ledger = authorizer.ledger();
    let terminal = ledger.registry().terminals.find(&till.id).expect("known");
    let identity = switch_core::ledger::identities::Identity::new(
        switch_core::ledger::identities::Family::Financial,
        terminal,
        college::date("2026-11-22"),
        10,
    );
    assert_eq!(ledger.recall(identity).map(|(_, remembered)| remembered.state), Some(State::Undone));
    assert_eq!(ledger.registry().terminals[terminal].last_activity, NOON + DAY);
    let card = ledger.registry().cards.find(&card("1001")).expect("known");
    assert_eq!(u64::from(ledger.registry().cards[card].last_activity), NOON / 1_000_000);
    assert_eq!(ledger.policy().identity_days, IDENTITY_DAYS);
}
