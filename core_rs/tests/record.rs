//! A record says what was decided, all of it and nothing else.

use proptest::prelude::*;
use switch_core::calendar::Date;
use switch_core::card_number::CardNumber;
use switch_core::ledger::batches::Totals;
use switch_core::ledger::identities::{Content, Echo, Identity};
use switch_core::ledger::record::{decode, encode};
use switch_core::ledger::registry::{
    Act, CardClass, CardStatus, Category, EventKind, HolderId, MerchantId, Payee, TerminalKind, TerminalStanding, Zone,
};
use switch_core::ledger::rule::{Rule, RuleKind};
use switch_core::ledger::rules::Rules;
use switch_core::ledger::{Command, Movements, Outcome, Pin, Policy, PurseChoice, Request, Response, Told};
use switch_core::pin::PinVerification;
use switch_core::session::KeySlot;

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
            verification: PinVerification(verification)
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
        (request(), told()).prop_map(|(request, told)| Command::Late { request, told }),
    ]
}

fn told() -> impl Strategy<Value = Told<'static>> {
    prop_oneof![
        (one_of(Act::ALL), prop::sample::select(&["", "QA76.73"][..])).prop_map(|(act, item)| Told::Act(act, item)),
        Just(Told::OfflineSale),
        any::<u64>().prop_map(Told::Completion),
        (any::<u64>(), any::<u16>()).prop_map(|(original, date)| Told::Reversal(Identity::from_packed(original, Date(date)))),
        Just(Told::Unknown),
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
