//! A ledger without messages: parties that are entered by commands, and tables that are run against it.

use switch_core::ledger::identities::{Content, Echo, Family, Identity};
use switch_core::ledger::registry::{CardClass, CardStatus, Category, HolderId, MerchantId, TerminalKind, Zone};
use switch_core::ledger::{Command, Ledger, Outcome, Pin, Policy, PurseChoice, Request, Response};
use switch_core::session::KeySlot;

use super::{AMOUNT_MAX, NOON, card, date};

pub(crate) const TODAY: &str = "2026-11-22";

/// Card, holder, status, last valid day, opening cash and subsidy.
pub(crate) const CARDS: &str = "
    1001 | S1 | active    | 2027-01-01 | 1000,  500
    1002 | S2 | active    | 2026-11-22 |  300,    0
    1003 | S3 | active    | 2027-01-01 |    0, 9000
    1101 | L1 | lost      | 2027-01-01 | 1000,  500
    1102 | F1 | frozen    | 2027-01-01 | 1000,  500
    1103 | I1 | inactive  | 2027-01-01 | 1000,  500
    1104 | C1 | cancelled | 2027-01-01 | 1000,  500
    1105 | X1 | active    | 2026-11-21 | 1000,  500
    1106 | S1 | lost      | 2026-11-21 |    0,    0
";

pub(crate) fn cells(row: &str) -> Vec<&str> {
    row.split('|').map(str::trim).collect()
}

pub(crate) fn rows(table: &str) -> impl Iterator<Item = &str> {
    table.lines().map(str::trim).filter(|row| !row.is_empty() && !row.starts_with('#'))
}

pub(crate) fn pair<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> [T; 2] {
    let numbers: Vec<T> = text.split(',').map(|number| number.trim().parse().expect("a number")).collect();
    numbers.try_into().unwrap_or_else(|_| panic!("{text} is not a pair"))
}

pub(crate) fn enter(ledger: &mut Ledger, command: &Command<'_>) -> Outcome {
    let outcome = ledger.apply(NOON, command);
    assert_eq!(outcome.response, Response::Approved);
    assert_eq!(ledger.accounts().sum(), 0);
    outcome
}

pub(crate) fn enter_card(ledger: &mut Ledger, number: &str, holder: &str, status: CardStatus, expires: &str, opening: [i64; 2]) {
    let holder = HolderId::new(holder).expect("a holder's number");
    let class = CardClass::Student;
    enter(ledger, &Command::Card { number: card(number), holder, class, status, expires: date(expires), opening });
}

/// The terminal at index 0 stands in a canteen, the one at 1 in a shop, the one at 2 in the same canteen.
pub(crate) fn ledger_with(cards: &str) -> Ledger {
    let mut ledger = Ledger::new();
    enter(&mut ledger, &Command::Policy(Policy { amount_max: AMOUNT_MAX, identity_days: 8, ..Policy::default() }));
    enter(&mut ledger, &Command::Cutover(date(TODAY)));
    for (id, category) in [("CANTEEN", Category::Canteen), ("SHOP", Category::Shop)] {
        enter(&mut ledger, &Command::Merchant { id: MerchantId::new(id).expect("short"), name: id, category, fee_bp: 0 });
    }
    for (id, merchant) in [(b"POS00001", 0), (b"POS00002", 1), (b"POS00003", 0)] {
        let zone = Zone::new("").expect("short");
        let kind = TerminalKind::Pos;
        enter(&mut ledger, &Command::Terminal { id: *id, merchant, kind, zone, wrapped_key: [merchant as u8; 24] });
    }
    for row in rows(cards) {
        let cells = cells(row);
        let status = CardStatus::from_name(cells[2]).expect("a status");
        enter_card(&mut ledger, cells[0], cells[1], status, cells[3], pair(cells[4]));
    }
    ledger
}

pub(crate) fn request(family: Family, mti: u16, terminal: u32, stan: u32, card: &str, amount: Option<u64>) -> Request {
    let card = (card != "-").then(|| self::card(card));
    let processing = (family == Family::Financial).then_some(0);
    Request {
        identity: Identity::new(family, terminal, date(TODAY), stan),
        content: Content::new(card, processing, amount, amount.is_some()),
        echo: Echo::new(120_000, None, None, None, false),
        slot: KeySlot::Current,
        mti,
    }
}

pub(crate) fn purchase(terminal: u32, stan: u32, card: &str, amount: u64, purse: PurseChoice) -> Command<'static> {
    Command::Purchase { request: request(Family::Financial, 200, terminal, stan, card, Some(amount)), purse, pin: Pin::Absent }
}

pub(crate) fn balances(ledger: &Ledger) -> Vec<i64> {
    (0..ledger.accounts().count()).map(|account| ledger.accounts().balance(account)).collect()
}

pub(crate) fn purses(ledger: &Ledger, number: &str) -> Option<[i64; 2]> {
    let registry = ledger.registry();
    let card = registry.cards.find(&card(number))?;
    Some(ledger.available(registry.cards[card].purses))
}
