//! Decisions as tables, one row a decision, applied in order to one ledger. After each row: the answer, what the purses
//! paid, what they hold, the sum over all accounts, and that a decline moved nothing.

mod college;

use college::ledger::{CARDS, TODAY, balances, cells, enter, enter_card, ledger_with, pair, purchase, purses, request, rows};
use college::{AMOUNT_MAX, NOON, card, date};
use switch_core::ledger::identities::{Family, Identity, State};
use switch_core::ledger::record::encode;
use switch_core::ledger::registry::{CardClass, CardStatus, HolderId, MerchantId, TerminalKind, Zone};
use switch_core::ledger::{Command, Ledger, Outcome, Pin, Policy, PurseChoice, Response};
use switch_core::limits::{ACCOUNT_FEN_MAX, PURSE_FEN_MAX};

/// A row: terminal | STAN | what | card | amount | answer | cash and subsidy paid or given back | both afterwards.
/// What: `policy`, `cash`, `subsidy` for a purchase by that choice of purses, `undo N` for a reversal of STAN N of the same
/// terminal, `unknown` for an operation that is not known.
fn run(ledger: &mut Ledger, table: &str) {
    for row in rows(table) {
        let cells = cells(row);
        let [terminal, stan] = [cells[0], cells[1]].map(|cell| cell.parse::<u32>().expect("a number"));
        let amount = (cells[4] != "-").then(|| cells[4].parse().expect("fen"));
        let purse = match cells[2] {
            "policy" => Some(PurseChoice::Policy),
            "cash" => Some(PurseChoice::Cash),
            "subsidy" => Some(PurseChoice::Subsidy),
            _ => None,
        };
        let command = match (purse, cells[2].strip_prefix("undo ")) {
            (Some(purse), _) => purchase(terminal, stan, cells[3], amount.expect("an amount"), purse),
            (None, Some(original)) => Command::Reversal {
                request: request(Family::Reversal, 400, terminal, stan, cells[3], amount),
                original: Identity::new(Family::Financial, terminal, date(TODAY), original.parse().expect("a STAN")),
            },
            (None, None) => Command::Unknown(request(Family::Financial, 100, terminal, stan, cells[3], amount)),
        };
        let (before, position) = (balances(ledger), ledger.position());
        let outcome = ledger.apply(NOON, &command);
        assert_eq!(outcome.response.code(), cells[5], "{row}");
        assert_eq!(outcome.paid, if cells[6] == "-" { [0, 0] } else { pair(cells[6]) }, "{row}");
        assert_eq!(ledger.position(), position + 1, "{row}");
        assert_eq!(ledger.accounts().sum(), 0, "{row}");
        let moved: u64 = outcome.movements.as_slice().iter().map(|movement| movement.amount).sum();
        assert_eq!(moved, outcome.paid.iter().sum::<u64>(), "{row}");
        if cells[6] == "-" {
            assert_eq!(balances(ledger), before, "{row}: nothing may move");
        }
        if cells[7] == "-" {
            assert_eq!(outcome.after, None, "{row}");
        } else {
            assert_eq!(outcome.after.or_else(|| purses(ledger, cells[3])), Some(pair(cells[7])), "{row}");
            assert!(cells[3] == "-" || purses(ledger, cells[3]) == Some(pair(cells[7])), "{row}");
        }
        let merchant: u64 = ["CANTEEN", "SHOP"].into_iter().map(|id| takings(ledger, id)).sum();
        let purses: i64 = ledger.registry().holders.rows().iter().flat_map(|holder| ledger.available(holder.purses)).sum();
        let opened: i64 = ledger.registry().holders.rows().iter().flat_map(|holder| holder.opening).sum();
        assert_eq!(opened - purses, merchant.cast_signed(), "{row}: what the purses lack, the merchants have");
        let (_, remembered) = ledger.recall(command.request().expect("a request").identity).expect("every decision is remembered");
        assert_eq!((remembered.response, remembered.position()), (outcome.response, position + 1), "{row}");
    }
}

fn takings(ledger: &Ledger, merchant: &str) -> u64 {
    let merchants = &ledger.registry().merchants;
    let index = merchants.find(&MerchantId::new(merchant).expect("short")).expect("a merchant");
    ledger.accounts().balance(merchants[index].account).unsigned_abs()
}

#[test]
fn a_purchase_is_declined_for_its_card_its_amount_and_its_purses() {
    run(
        &mut ledger_with(CARDS),
        "
        # terminal | STAN | what | card | amount | answer | paid | afterwards
        0 |  1 | policy  | 1001 |    850 | 00 | 350, 500 |  650,    0
        0 |  2 | policy  | 1001 |    651 | 51 | -        |  650,    0
        0 |  3 | policy  | 1001 |    650 | 00 | 650, 0   |    0,    0
        0 |  4 | policy  | 1001 |      1 | 51 | -        |    0,    0
        0 |  5 | policy  | 1001 |      0 | 13 | -        |    0,    0
        # A card on its last valid day is good, one day later it is not.
        0 |  6 | policy  | 1002 |    300 | 00 | 300, 0   |    0,    0
        0 |  7 | policy  | 1105 |      1 | 54 | -        | 1000,  500
        # The status of the card itself counts, not that of its holder's other card.
        0 |  8 | policy  | 1101 |      1 | 41 | -        | 1000,  500
        0 |  9 | policy  | 1106 |      1 | 41 | -        |    0,    0
        0 | 10 | policy  | 1102 |      1 | 62 | -        | 1000,  500
        0 | 11 | policy  | 1103 |      1 | 78 | -        | 1000,  500
        0 | 12 | policy  | 1104 |      1 | 78 | -        | 1000,  500
        0 | 13 | policy  | 9999 |      1 | 14 | -        | -
        # Leading zeros make another number.
        0 | 14 | policy  | 01001 |     1 | 14 | -        | -
        # The subsidy purse is for canteens; a shop takes cash.
        0 | 15 | subsidy | 1003 |   9001 | 51 | -        |    0, 9000
        0 | 16 | subsidy | 1003 |   1000 | 00 | 0, 1000  |    0, 8000
        0 | 17 | cash    | 1003 |      1 | 51 | -        |    0, 8000
        1 | 18 | policy  | 1003 |      1 | 51 | -        |    0, 8000
        1 | 19 | subsidy | 1003 |      1 | 57 | -        |    0, 8000
        0 | 20 | policy  | 1003 |   8000 | 00 | 0, 8000  |    0,    0
        # The ceiling itself is an amount that may be asked for.
        0 | 21 | policy  | 1003 | 100000 | 51 | -        |    0,    0
        0 | 22 | policy  | 1003 | 100001 | 13 | -        |    0,    0
        0 | 23 | policy  | 1003 | 999999999999 | 13 | -  |    0,    0
        0 | 24 | unknown | 1001 |      5 | 12 | -        | -
    ",
    );
}

#[test]
fn a_reversal_undoes_once_and_is_never_refused_but_for_another_card_or_amount() {
    let mut ledger = ledger_with(CARDS);
    run(
        &mut ledger,
        "
        # terminal | STAN | what | card | amount | answer | paid or given back | afterwards
        0 |  1 | policy  | 1001 |  850 | 00 | 350, 500 |  650,    0
        # Another card or amount than the original's: 94, and the purchase stands.
        0 |  1 | undo 1  | 1002 |  850 | 94 | -        | -
        0 |  2 | undo 1  | 1001 |  849 | 94 | -        | -
        # The purses get back what each paid; what the reversal does not name agrees.
        0 |  3 | undo 1  | -    |    - | 00 | 350, 500 | 1000,  500
        # Twice: done already.
        0 |  4 | undo 1  | 1001 |  850 | 00 | -        | 1000,  500
        # Once undone it is still another's.
        0 |  5 | undo 1  | 1002 |  850 | 94 | -        | -
        # Declined, and not known as an operation: nothing to undo.
        0 |  6 | policy  | 1101 |    1 | 41 | -        | 1000,  500
        0 |  7 | undo 6  | 1101 |    1 | 00 | -        | 1000,  500
        0 |  8 | unknown | 1001 |    5 | 12 | -        | -
        0 |  9 | undo 8  | 1001 |    5 | 00 | -        | 1000,  500
        # Unknown: a tombstone. The original that comes later takes nothing, whatever else would be said to it.
        0 | 10 | undo 20 | 1001 |  100 | 00 | -        | 1000,  500
        0 | 11 | undo 20 | 1001 |  100 | 00 | -        | 1000,  500
        0 | 12 | undo 20 | 1002 |    7 | 00 | -        |  300,    0
        0 | 20 | policy  | 1001 |  100 | 12 | -        | 1000,  500
        0 | 13 | undo 20 | 1001 |  100 | 00 | -        | 1000,  500
        0 | 14 | undo 21 | -    |    - | 00 | -        | -
        0 | 21 | policy  | 9999 |    0 | 12 | -        | -
        0 | 15 | undo 22 | 9999 |    - | 00 | -        | -
        0 | 22 | unknown | 1001 |    - | 12 | -        | -
        # Another terminal's STAN is another message.
        1 |  1 | policy  | 1001 |  100 | 00 | 100, 0   |  900,  500
        2 |  1 | undo 1  | 1001 |  100 | 00 | -        |  900,  500
        2 |  1 | policy  | 1001 |  100 | 12 | -        |  900,  500
        1 |  2 | undo 1  | 1001 |  100 | 00 | 100, 0   | 1000,  500
    ",
    );
    assert_eq!((takings(&ledger, "CANTEEN"), takings(&ledger, "SHOP")), (0, 0));
}

#[test]
fn a_card_that_changes_after_the_purchase_is_given_back_all_the_same() {
    for status in [CardStatus::Lost, CardStatus::Frozen, CardStatus::Cancelled] {
        let mut ledger = ledger_with(CARDS);
        run(&mut ledger, "0 | 1 | policy | 1001 | 850 | 00 | 350, 500 | 650, 0");
        enter_card(&mut ledger, "1001", "S1", status, "2026-01-01", [1000, 500]);
        run(&mut ledger, "0 | 2 | undo 1 | 1001 | 850 | 00 | 350, 500 | 1000, 500");
    }
}

#[test]
fn a_merchant_that_lost_its_terminal_gives_back_what_it_was_paid() {
    let mut ledger = ledger_with(CARDS);
    run(&mut ledger, "0 | 1 | policy | 1001 | 850 | 00 | 350, 500 | 650, 0");
    let zone = Zone::new("").expect("short");
    enter(&mut ledger, &Command::Terminal { id: *b"POS00001", merchant: 1, kind: TerminalKind::Pos, zone, wrapped_key: [0; 24] });
    run(
        &mut ledger,
        "
        0 | 2 | policy | 1001 | 100 | 00 | 100, 0   |  550,   0
        0 | 3 | undo 1 | 1001 | 850 | 00 | 350, 500 |  900, 500
    ",
    );
    assert_eq!((takings(&ledger, "CANTEEN"), takings(&ledger, "SHOP")), (0, 100));
}

#[test]
fn of_several_reasons_the_first_in_the_order_of_codes_is_the_answer() {
    let amounts = [("good", None), ("zero", Some("13")), ("above", Some("13"))];
    let cards = [
        ("good", None),
        ("unknown", Some("14")),
        ("lost", Some("41")),
        ("frozen", Some("62")),
        ("inactive", Some("78")),
        ("cancelled", Some("78")),
    ];
    let mut stan = 0;
    let mut combinations = 0;
    for reversed_before in [false, true] {
        for (amount, amount_code) in amounts {
            for (card, card_code) in cards {
                for (expired, subsidy_in_shop, covered) in (0..8).map(|bits| (bits & 1 == 1, bits & 2 == 2, bits & 4 == 4)) {
                    let mut ledger = ledger_with("");
                    let status = CardStatus::from_name(card).unwrap_or(CardStatus::Active);
                    let expires = if expired { "2026-11-21" } else { TODAY };
                    if card != "unknown" {
                        let opening = if covered { [i64::from(AMOUNT_MAX); 2] } else { [0, 0] };
                        enter_card(&mut ledger, "1", "H", status, expires, opening);
                    }
                    stan += 1;
                    if reversed_before {
                        let request = request(Family::Reversal, 400, 1, stan, "-", None);
                        let original = Identity::new(Family::Financial, 1, date(TODAY), stan);
                        enter(&mut ledger, &Command::Reversal { request, original });
                    }
                    // In the order of the protocol's table of response codes.
                    let ladder = [
                        reversed_before.then_some("12"),
                        amount_code,
                        card_code,
                        expired.then_some("54"),
                        subsidy_in_shop.then_some("57"),
                        (!covered).then_some("51"),
                    ];
                    let expected = ladder.into_iter().flatten().next().unwrap_or("00");
                    let fen = [("good", 1), ("zero", 0), ("above", u64::from(AMOUNT_MAX) + 1)];
                    let fen = fen.iter().find(|(name, _)| *name == amount).expect("listed").1;
                    let purse = if subsidy_in_shop { PurseChoice::Subsidy } else { PurseChoice::Cash };
                    let outcome = ledger.apply(NOON, &purchase(1, stan, "1", fen, purse));
                    assert_eq!(
                        outcome.response.code(),
                        expected,
                        "{reversed_before} {amount} {card} {expired} {purse:?} {covered}"
                    );
                    assert_eq!(ledger.accounts().sum(), 0);
                    assert_eq!(takings(&ledger, "SHOP"), u64::from(expected == "00"));
                    combinations += 1;
                }
            }
        }
    }
    assert_eq!(combinations, 2 * 3 * 6 * 8);
}

#[test]
fn a_merchant_at_its_bound_is_a_malfunction_that_leaves_no_trace() {
    let mut ledger = ledger_with("");
    enter(&mut ledger, &Command::Policy(Policy { amount_max: u32::MAX, identity_days: 8, ..Policy::default() }));
    for holder in 1..=11 {
        enter_card(&mut ledger, &holder.to_string(), &format!("H{holder}"), CardStatus::Active, TODAY, [PURSE_FEN_MAX, 0]);
    }
    let amount = 4_000_000_000;
    let refused =
        (0..24 * 11).map(|stan| purchase(1, stan, &(stan / 24 + 1).to_string(), amount, PurseChoice::Policy)).find(|command| {
            let (digest, position) = (ledger.digest(), ledger.position());
            let outcome = ledger.apply(NOON, command);
            if outcome.response == Response::Approved {
                return false;
            }
            assert_eq!(outcome.response, Response::Malfunction);
            assert_eq!((ledger.digest(), ledger.position()), (digest, position));
            assert!(ledger.recall(command.request().expect("a purchase").identity).is_none());
            true
        });
    assert!(ACCOUNT_FEN_MAX.unsigned_abs() - takings(&ledger, "SHOP") < amount);
    run(&mut ledger, "1 | 1000 | undo 0 | 1 | - | 00 | 4000000000, 0 | 7999999999, 0");
    // The same message may come again and is decided afresh.
    assert_eq!(ledger.apply(NOON, &refused.expect("a purchase was refused")).response, Response::Approved);
    assert_eq!(ledger.accounts().sum(), 0);
}

#[test]
fn a_day_that_leaves_the_window_takes_its_identities_along() {
    let mut ledger = ledger_with(CARDS);
    run(&mut ledger, "0 | 1 | policy | 1001 | 850 | 00 | 350, 500 | 650, 0");
    let identity = Identity::new(Family::Financial, 0, date(TODAY), 1);
    assert_eq!(ledger.window(), date("2026-11-15")..=date("2026-11-23"));
    enter(&mut ledger, &Command::Cutover(date("2026-11-29")));
    assert_eq!(*ledger.window().start(), date(TODAY));
    let (place, remembered) = ledger.recall(identity).expect("it is its last day");
    assert_eq!((remembered.state, remembered.business_date), (State::Standing, date(TODAY)));
    assert_eq!(ledger.identities().get(place).position(), remembered.position());
    enter(&mut ledger, &Command::Cutover(date("2026-11-30")));
    assert!(ledger.recall(identity).is_none());
    // A shorter memory forgets at once.
    let mut ledger = ledger_with(CARDS);
    run(&mut ledger, "0 | 1 | policy | 1001 | 850 | 00 | 350, 500 | 650, 0");
    enter(&mut ledger, &Command::Cutover(date("2026-11-23")));
    enter(&mut ledger, &Command::Policy(Policy { amount_max: 1, identity_days: 1, ..Policy::default() }));
    assert!(ledger.recall(identity).is_none());
    assert_eq!(ledger.window(), date("2026-11-23")..=date("2026-11-24"));
}

#[test]
fn a_forgotten_day_stays_outside_the_window_when_the_memory_is_made_longer_again() {
    let mut ledger = ledger_with(CARDS);
    let sale = purchase(0, 1, "1001", 500, PurseChoice::Policy);
    assert_eq!(ledger.apply(NOON, &sale).response, Response::Approved);
    enter(&mut ledger, &Command::Cutover(date("2026-11-24")));
    enter(&mut ledger, &Command::Policy(Policy { amount_max: AMOUNT_MAX, identity_days: 1, ..Policy::default() }));
    enter(&mut ledger, &Command::Policy(Policy { amount_max: AMOUNT_MAX, identity_days: 8, ..Policy::default() }));
    // Were the day asked about again, the sale would be taken a second time.
    assert_eq!(*ledger.window().start(), date("2026-11-24"));
    enter(&mut ledger, &Command::Cutover(date("2026-11-28")));
    assert_eq!(*ledger.window().start(), date("2026-11-24"), "the memory grows day by day");
    enter(&mut ledger, &Command::Cutover(date("2026-12-05")));
    assert_eq!(*ledger.window().start(), date("2026-11-28"));
}

#[test]
fn a_record_that_could_not_have_been_made_here_is_refused_and_changes_nothing() {
    let mut ledger = ledger_with(CARDS);
    let decided = purchase(0, 1, "1001", 500, PurseChoice::Policy);
    ledger.apply(NOON, &decided);
    let bare = |family, mti| request(family, mti, 0, 7, "-", None);
    let card_of = |number: &str, holder: &str, opening| Command::Card {
        number: card(number),
        holder: HolderId::new(holder).expect("a holder's number"),
        class: CardClass::Student,
        status: CardStatus::Active,
        expires: date("2027-01-01"),
        opening,
    };
    let impossible = [
        ("a limit that cannot be", Command::Policy(Policy { amount_max: 1, identity_days: 0, ..Policy::default() })),
        ("back", Command::Cutover(date(TODAY))),
        (
            "merchant",
            Command::Terminal {
                id: *b"POS00009",
                merchant: 2,
                kind: TerminalKind::Pos,
                zone: Zone::new("").expect("short"),
                wrapped_key: [0; 24],
            },
        ),
        ("another holder", card_of("1001", "S2", [0, 0])),
        ("second live card", card_of("7777", "S1", [0, 0])),
        ("impossible balance", card_of("7778", "NEW", [-1, 0])),
        ("terminal", purchase(3, 8, "1001", 1, PurseChoice::Policy)),
        (
            "reverses for a terminal",
            Command::Reversal {
                request: bare(Family::Reversal, 400),
                original: Identity::new(Family::Financial, 3, date(TODAY), 1),
            },
        ),
        ("not that of its message", Command::Unknown(bare(Family::Financial, 400))),
        ("a second time", decided),
        ("lacks a card", Command::Purchase { request: bare(Family::Financial, 200), purse: PurseChoice::Cash, pin: Pin::Absent }),
    ];
    for (reason, command) in impossible {
        let (digest, position) = (ledger.digest(), ledger.position());
        let outcome = Outcome::of(Response::Approved);
        let mut record = Vec::new();
        encode(&mut record, NOON, &command, &outcome);
        let refusal = ledger.replay(position + 1, &record).map(|_| ()).expect_err(reason);
        assert!(refusal.contains(reason), "{refusal}");
        assert_eq!((ledger.digest(), ledger.position()), (digest, position), "{reason}");
    }
}
