//! Decisions of every operation beside the plain purchase as tables, one row a decision, applied in order to one ledger. After each
//! row: the answer with its flag, each movement of money, what is available in the purses, the sum over all accounts, and that a
//! decline moved nothing.

mod college;

use college::ledger::{CARDS, balances, cells, enter, ledger_with, pair, purses, rows};
use college::{DAY, NOON, card, date};
use switch_core::calendar::{Date, Timestamp};
use switch_core::ledger::accounts::Owner;
use switch_core::ledger::identities::{Content, Echo, Family, Identity};
use switch_core::ledger::registry::{Act, CardClass, CardStatus, Category, HolderId, MerchantId, Payee, TerminalKind, Zone};
use switch_core::ledger::rule::{ALL_DAYS, Rule, RuleKind, Window};
use switch_core::ledger::rules::Rules;
use switch_core::ledger::{Command, Ledger, Outcome, Pin, PurseChoice, Request, Response};
use switch_core::pin::PinVerification;
use switch_core::session::KeySlot;

/// A ledger, and the terminals' clock.
struct Campus {
    ledger: Ledger,
    now: Timestamp,
    /// DE12.
    time: u32,
}

/// What a row says.
struct Row<'t> {
    terminal: u32,
    stan: u32,
    /// `buy`, `sold` (offline), `hold`, `complete N`, `void N`, `refund N`, `load`, `bill KIND`, `undo N`, `lapse N`, `enter`,
    /// `leave`, `attendance`, `borrow ITEM`, `return ITEM`, the last five also as `told ...` (advices), `loss`, `found`. `cash` or
    /// `subsidy` behind a sale names the purse, `right` or `wrong` the PIN. N is a STAN of this terminal, or of another as
    /// `TERMINAL/STAN`.
    what: &'t str,
    /// `-`: not named.
    card: &'t str,
    amount: Option<u64>,
}

impl Campus {
    /// The terminals at 0 and 2 stand in a canteen, the one at 1 in a shop, the one at 3 in a bath, the one at 4 is a counter of the
    /// canteen's, the one at 5 a door to the zone NORTH, the one at 6 the library's.
    fn new() -> Self {
        let mut ledger = ledger_with(CARDS);
        for (id, category) in [("BATH", Category::Bath), ("LIBRARY", Category::Library)] {
            enter(&mut ledger, &Command::Merchant { id: MerchantId::new(id).expect("short"), name: id, category, fee_bp: 0 });
        }
        let kinds = [
            (b"WATER004", 2, TerminalKind::Water, ""),
            (b"COUNT005", 0, TerminalKind::Counter, ""),
            (b"GATE0006", 0, TerminalKind::Gate, "NORTH"),
            (b"LIBRY007", 3, TerminalKind::Library, ""),
        ];
        for (id, merchant, kind, zone) in kinds {
            let zone = Zone::new(zone).expect("short");
            enter(&mut ledger, &Command::Terminal { id: *id, merchant, kind, zone, wrapped_key: [9; 24] });
        }
        for (number, holder, class) in [("2001", "T1", CardClass::Teacher), ("3001", "Y1", CardClass::Family)] {
            let (holder, status) = (HolderId::new(holder).expect("short"), CardStatus::Active);
            let expires = date("2027-01-01");
            enter(&mut ledger, &Command::Card { number: card(number), holder, class, status, expires, opening: [1000, 0] });
        }
        Self { ledger, now: NOON, time: 120_000 }
    }

    /// The campus with these rules in force.
    fn with(rules: &[Rule]) -> Self {
        let mut campus = Self::new();
        campus.rules(rules);
        campus
    }

    fn rules(&mut self, rules: &[Rule]) {
        enter(&mut self.ledger, &Command::Rules(Box::new(Rules::new(rules.to_vec()).expect("rules"))));
    }

    fn cut_over(&mut self, days: u16) {
        self.now += u64::from(days) * DAY;
        let next = Date(self.ledger.business_date().0 + days);
        enter(&mut self.ledger, &Command::Cutover(next));
    }

    fn request(&self, row: &Row<'_>, family: Family, mti: u16) -> Request {
        let card = (row.card != "-").then(|| card(row.card));
        let processing = row.what.starts_with("void").then_some(20_000);
        Request {
            identity: Identity::new(family, row.terminal, self.ledger.business_date(), row.stan),
            content: Content::new(card, processing, row.amount, false),
            echo: Echo::new(self.time, None, None, None, false),
            slot: KeySlot::Current,
            mti,
        }
    }

    /// The message that a word names, of whatever day is remembered.
    fn named(&self, row: &Row<'_>, word: &str) -> Identity {
        let (terminal, stan) =
            word.split_once('/').map_or((row.terminal, word), |(terminal, stan)| (terminal.parse().expect("one"), stan));
        let stan = stan.parse().expect("a STAN");
        let today = self.ledger.business_date();
        let of = |day: u16| Identity::new(Family::Financial, terminal, Date(today.0 - day), stan);
        (0..20).map(of).find(|&identity| self.ledger.recall(identity).is_some()).unwrap_or_else(|| of(0))
    }

    fn position(&self, row: &Row<'_>, word: &str) -> u64 {
        self.ledger.recall(self.named(row, word)).map_or(999_999, |(_, decided)| decided.position())
    }

    fn command<'t>(&self, row: &Row<'t>) -> Command<'t> {
        let words: Vec<&'t str> = row.what.split(' ').collect();
        let has = |word: &str| words.contains(&word);
        let purse = match (has("cash"), has("subsidy")) {
            (false, false) => PurseChoice::Policy,
            (true, _) => PurseChoice::Cash,
            _ => PurseChoice::Subsidy,
        };
        let pin = match (has("right"), has("wrong")) {
            (false, false) => Pin::Absent,
            (true, _) => Pin::Right,
            _ => Pin::Wrong,
        };
        let financial = |mti| self.request(row, Family::Financial, mti);
        let original = || self.position(row, words[1]);
        let told = words[0] == "told";
        if let Some(act) = Act::from_name(words[usize::from(told)]) {
            let item = words.get(1 + usize::from(told)).copied().unwrap_or_default();
            return Command::Identity { request: financial(if told { 120 } else { 100 }), act, item, is_advice: told };
        }
        match words[0] {
            "buy" => Command::Purchase { request: financial(200), purse, pin },
            "sold" => Command::OfflineSale { request: financial(220), purse },
            "hold" => Command::Hold { request: financial(100), pin },
            "complete" => Command::Completion { request: financial(220), original: original() },
            "void" => Command::Void { request: financial(200), original: original() },
            "refund" => Command::Refund { request: financial(200), original: original() },
            "load" => Command::Load(financial(200)),
            "bill" => {
                let payee = Payee::from_name(words[1]).expect("a payee");
                Command::BillPayment { request: financial(200), payee, reference: "B-1", pin }
            }
            "undo" => Command::Reversal { request: self.request(row, Family::Reversal, 400), original: self.named(row, words[1]) },
            "lapse" => Command::Lapse { hold: original() },
            "loss" | "found" => {
                Command::CardReport { request: self.request(row, Family::File, 300), is_found: words[0] == "found" }
            }
            other => panic!("{other} is no operation"),
        }
    }

    /// Movements as `c>CANTEEN 350, s>CANTEEN 500`: c and s are the holder's purses. What is held, or is free again, moves nothing:
    /// `held 50`.
    fn moved(&self, outcome: &Outcome) -> String {
        let name = |account| match self.ledger.accounts().owner(account) {
            Owner::Cash(_) => "c",
            Owner::Subsidy(_) => "s",
            owner => self.ledger.owner_names(owner).1,
        };
        let movements = outcome.movements.as_slice();
        if movements.is_empty() && outcome.paid != [0, 0] {
            assert_eq!(outcome.paid[1], 0, "only cash is held");
            return format!("held {}", outcome.paid[0]);
        }
        let mut purses = [0_i64; 2];
        let texts = movements.iter().map(|movement| {
            for (account, sign) in [(movement.debit, -1), (movement.credit, 1)] {
                match self.ledger.accounts().owner(account) {
                    Owner::Cash(_) => purses[0] += sign * movement.amount.cast_signed(),
                    Owner::Subsidy(_) => purses[1] += sign * movement.amount.cast_signed(),
                    _ => {}
                }
            }
            format!("{}>{} {}", name(movement.debit), name(movement.credit), movement.amount)
        });
        let text = texts.collect::<Vec<_>>().join(", ");
        assert_eq!(outcome.paid, purses.map(i64::unsigned_abs), "what was paid is what the purses lost or got");
        if text.is_empty() { "-".to_owned() } else { text }
    }

    /// Rows: terminal | STAN | what | card | amount | answer, flag | movements | available in cash and subsidy purse.
    fn run(&mut self, table: &str) {
        for text in rows(table) {
            let cells = cells(text);
            assert_eq!(cells.len(), 8, "{text}");
            let [terminal, stan] = [cells[0], cells[1]].map(|cell| cell.parse::<u32>().expect("a number"));
            let amount = (cells[4] != "-").then(|| cells[4].parse().expect("fen"));
            let row = Row { terminal, stan, what: cells[2], card: cells[3], amount };
            let command = self.command(&row);
            let (before, position) = (balances(&self.ledger), self.ledger.position());
            let outcome = self.ledger.apply(self.now, &command);
            let flag = outcome.flag.map_or(String::new(), |flag| format!(" {}", flag.code()));
            assert_eq!(format!("{}{flag}", outcome.response.code()), cells[5], "{text}");
            assert_eq!(self.moved(&outcome), cells[6], "{text}");
            assert_eq!(self.ledger.position(), position + 1, "{text}");
            assert_eq!(self.ledger.accounts().sum(), 0, "{text}");
            if outcome.response != Response::Approved {
                let opened = balances(&self.ledger);
                assert_eq!(
                    (&opened[..before.len()], outcome.original.is_none() || cells[5] == "94"),
                    (&before[..], true),
                    "{text}"
                );
            }
            let available = if cells[7] == "-" { None } else { Some(pair(cells[7])) };
            let is_known = row.card != "-" && available.is_some();
            let now = if is_known { purses(&self.ledger, row.card) } else { None };
            assert_eq!(outcome.after.or(now), available, "{text}");
            assert!(now.is_none_or(|now| Some(now) == available), "{text}");
            if let Some(request) = command.request() {
                let (_, remembered) = self.ledger.recall(request.identity).expect("every decision is remembered");
                assert_eq!((remembered.response, remembered.position()), (outcome.response, position + 1), "{text}");
                assert_eq!(remembered.after(), outcome.after, "{text}: the stored answer has the same balances");
            }
        }
    }

    /// What an account holds: a house account's name, a merchant's or a payee's.
    fn balance(&self, name: &str) -> i64 {
        let accounts = self.ledger.accounts();
        let is = |account: &u32| self.ledger.owner_names(accounts.owner(*account)).1 == name;
        accounts.balance((0..accounts.count()).find(is).expect("an account"))
    }
}

fn of(class: CardClass, category: Option<Category>, kind: RuleKind, value: i64) -> Rule {
    Rule { class: Some(class), category, ..Rule::new(kind, value) }
}

#[test]
fn what_is_given_back_of_a_surcharge_or_a_discount_is_the_same_part_as_of_the_amount() {
    let mut campus = Campus::with(&[
        of(CardClass::Student, None, RuleKind::Surcharge, 1_500),
        of(CardClass::Teacher, Some(Category::Canteen), RuleKind::Surcharge, -2_500),
        of(CardClass::Family, None, RuleKind::Surcharge, -10_000),
    ]);
    campus.run(
        "
        # terminal | STAN | what | card | amount | answer, flag | movements | available
        # 15 % of 333 are 49.95, and so 50. Of 383 in all a refund gives back as much as all refunds so far must have, rounded down.
        0 |  1 | buy       | 1001 |  333 | 00 | s>CANTEEN 333, s>fees 50                   | 1000,  117
        0 |  2 | refund 1  | 1001 |  100 | 00 | CANTEEN>s 100, fees>s 15                   | 1000,  232
        0 |  3 | refund 1  | -    |  100 | 00 | CANTEEN>s 100, fees>s 15                   | 1000,  347
        0 |  4 | refund 1  | 1001 |  134 | 61 | -                                          | 1000,  347
        0 |  5 | refund 1  | 1001 |  133 | 00 | CANTEEN>s 133, fees>s 20                   | 1000,  500
        0 |  6 | refund 1  | 1001 |    1 | 61 | -                                          | 1000,  500
        # The purse that was debited last, cash, is given back to first; a reversal gives the rest.
        0 |  7 | buy       | 1001 | 1000 | 00 | c>CANTEEN 500, s>CANTEEN 500, c>fees 150   |  350,    0
        0 |  8 | refund 7  | 1001 |  600 | 00 | CANTEEN>c 560, CANTEEN>s 40, fees>c 90     | 1000,   40
        0 |  9 | undo 7    | 1001 | 1000 | 00 | CANTEEN>s 400, fees>s 60                   | 1000,  500
        # What the purses do not cover with the surcharge they do not cover.
        0 | 10 | buy       | 1001 | 1305 | 51 | -                                          | 1000,  500
        0 | 11 | buy       | 1001 | 1304 | 00 | c>CANTEEN 804, s>CANTEEN 500, c>fees 196   |    0,    0
        0 | 12 | void 11   | -    |    - | 00 | CANTEEN>c 804, CANTEEN>s 500, fees>c 196   | 1000,  500
        # A discount of a quarter, which the grants pay: of 850 the holder pays 638.
        0 | 13 | buy       | 2001 |  850 | 00 | c>CANTEEN 638, grants>CANTEEN 212          |  362,    0
        0 | 14 | refund 13 | 2001 |  425 | 00 | CANTEEN>c 319, CANTEEN>grants 106          |  681,    0
        0 | 15 | undo 14   | 2001 |  425 | 00 | c>CANTEEN 319, grants>CANTEEN 106          |  362,    0
        0 | 16 | void 13   | 2001 |  850 | 00 | CANTEEN>c 638, CANTEEN>grants 212          | 1000,    0
        0 | 17 | sold      | 2001 | 1600 | 00 51 | c>CANTEEN 1200, grants>CANTEEN 400      | -200,    0
        0 | 18 | undo 17   | 2001 | 1600 | 00 | CANTEEN>c 1200, CANTEEN>grants 400         | 1000,    0
        # All of it: nobody pays but the grants.
        0 | 19 | buy       | 3001 |  100 | 00 | grants>CANTEEN 100                         | 1000,    0
        0 | 20 | refund 19 | 3001 |   40 | 00 | CANTEEN>grants 40                          | 1000,    0
        0 | 21 | undo 19   | 3001 |  100 | 00 | CANTEEN>grants 60                          | 1000,    0
        # Holds and bills have neither.
        3 | 22 | hold        | 1001 | 100 | 00 | held 100                                  |  900,  500
        3 | 23 | complete 22 | -    | 100 | 00 | c>BATH 100                                |  900,  500
        4 | 24 | bill water  | 1001 |  50 | 00 | c>water 50                                |  850,  500
    ",
    );
    assert_eq!(["CANTEEN", "BATH", "water", "fees"].map(|name| campus.balance(name)), [0, 100, 50, 0]);
}

#[test]
fn however_refunds_are_taken_back_the_fees_pay_no_discount_and_the_grants_get_no_surcharge() {
    let mut campus = Campus::with(&[
        of(CardClass::Student, None, RuleKind::Surcharge, 5_000),
        of(CardClass::Teacher, None, RuleKind::Surcharge, -5_000),
    ]);
    let grants = campus.balance("grants");
    campus.run(
        "
        # terminal | STAN | what | card | amount | answer, flag | movements | available
        # Of a surcharge of 2 the refunds that stand have given back all.
        0 |  1 | buy       | 1001 | 4 | 00 | s>CANTEEN 4, s>fees 2       | 1000,  494
        0 |  2 | refund 1  | 1001 | 1 | 00 | CANTEEN>s 1                 | 1000,  495
        0 |  3 | refund 1  | 1001 | 1 | 00 | CANTEEN>s 1, fees>s 1       | 1000,  497
        0 |  4 | refund 1  | 1001 | 1 | 00 | CANTEEN>s 1                 | 1000,  498
        0 |  5 | refund 1  | 1001 | 1 | 00 | CANTEEN>s 1, fees>s 1       | 1000,  500
        0 |  6 | undo 2    | 1001 | 1 | 00 | s>CANTEEN 1                 | 1000,  499
        0 |  7 | undo 4    | 1001 | 1 | 00 | s>CANTEEN 1                 | 1000,  498
        0 |  8 | refund 1  | 1001 | 1 | 00 | CANTEEN>s 1                 | 1000,  499
        0 |  9 | refund 1  | 1001 | 1 | 00 | CANTEEN>s 1                 | 1000,  500
        # Of a discount of 4 the refunds that stand have given back all to the grants.
        0 | 10 | buy       | 2001 | 8 | 00 | c>CANTEEN 4, grants>CANTEEN 4 |  996,    0
        0 | 11 | refund 10 | 2001 | 1 | 00 | CANTEEN>grants 1            |  996,    0
        0 | 12 | refund 10 | 2001 | 1 | 00 | CANTEEN>c 1                 |  997,    0
        0 | 13 | refund 10 | 2001 | 1 | 00 | CANTEEN>grants 1            |  997,    0
        0 | 14 | refund 10 | 2001 | 1 | 00 | CANTEEN>c 1                 |  998,    0
        0 | 15 | refund 10 | 2001 | 1 | 00 | CANTEEN>grants 1            |  998,    0
        0 | 16 | refund 10 | 2001 | 1 | 00 | CANTEEN>c 1                 |  999,    0
        0 | 17 | refund 10 | 2001 | 1 | 00 | CANTEEN>grants 1            |  999,    0
        0 | 18 | undo 12   | 2001 | 1 | 00 | c>CANTEEN 1                 |  998,    0
        0 | 19 | undo 14   | 2001 | 1 | 00 | c>CANTEEN 1                 |  997,    0
        0 | 20 | undo 16   | 2001 | 1 | 00 | c>CANTEEN 1                 |  996,    0
        0 | 21 | refund 10 | 2001 | 1 | 00 | CANTEEN>c 1                 |  997,    0
        0 | 22 | undo 10   | 2001 | 8 | 00 | CANTEEN>c 3                 | 1000,    0
    ",
    );
    assert_eq!(["CANTEEN", "fees", "grants"].map(|name| campus.balance(name)), [0, 0, grants]);
}

#[test]
fn a_refund_that_is_taken_back_after_the_subsidy_was_spent_is_a_debt() {
    let mut campus = Campus::new();
    campus.run(
        "
        0 |  1 | buy         | 1001 |  850 | 00 | c>CANTEEN 350, s>CANTEEN 500 |  650,    0
        0 |  2 | refund 1    | -    |  600 | 00 | CANTEEN>c 350, CANTEEN>s 250 | 1000,  250
        0 |  3 | buy subsidy | 1001 |  200 | 00 | s>CANTEEN 200                | 1000,   50
        0 |  4 | buy cash    | 1001 | 1000 | 00 | c>CANTEEN 1000               |    0,   50
        # Of what the subsidy purse got, 50 are still there; the rest is owed by the cash purse.
        0 |  5 | undo 2      | -    |    - | 00 | c>CANTEEN 550, s>CANTEEN 50  | -550,    0
        0 |  6 | undo 2      | 1001 |  600 | 00 | -                            | -550,    0
        # A debt blocks both purses, and a hold; a load repays it.
        4 |  7 | load        | 1001 |  500 | 00 | cash_desk>c 500              |  -50,    0
        0 |  8 | buy         | 1001 |    1 | 51 | -                            |  -50,    0
        3 |  9 | hold        | 1001 |    1 | 51 | -                            |  -50,    0
        4 | 10 | bill other  | 1001 |    1 | 51 | -                            |  -50,    0
        4 | 11 | load        | 1001 |   51 | 00 | cash_desk>c 51               |    1,    0
        0 | 12 | buy         | 1001 |    1 | 00 | c>CANTEEN 1                  |    0,    0
        # The sale can be refunded again, all of it.
        0 | 13 | refund 1    | 1001 |  851 | 61 | -                            |    0,    0
        0 | 14 | refund 1    | 1001 |  850 | 00 | CANTEEN>c 350, CANTEEN>s 500 |  350,  500
        # A load that is taken back after it was spent is a debt as well.
        0 | 15 | buy cash    | 1001 |  350 | 00 | c>CANTEEN 350                |    0,  500
        4 | 16 | undo 11     | 1001 |   51 | 00 | c>cash_desk 51               |  -51,  500
        0 | 17 | buy subsidy | 1001 |    1 | 51 | -                            |  -51,  500
        4 | 18 | undo 11     | 1001 |   51 | 00 | -                            |  -51,  500
    ",
    );
}

#[test]
fn what_was_undone_cannot_be_given_back_again() {
    let mut campus = Campus::new();
    campus.run(
        "
        0 |  1 | buy      | 1001 |  850 | 00 | c>CANTEEN 350, s>CANTEEN 500 |  650,    0
        0 |  2 | refund 1 | 1001 |  300 | 00 | CANTEEN>c 300                |  950,    0
        # Refunded in part: no void.
        0 |  3 | void 1   | 1001 |  850 | 12 | -                            |  950,    0
        0 |  4 | undo 1   | -    |    - | 00 | CANTEEN>c 50, CANTEEN>s 500  | 1000,  500
        # All of it is back, and the refund with it.
        0 |  5 | undo 2   | 1001 |  300 | 00 | -                            | 1000,  500
        0 |  6 | undo 2   | -    |    - | 00 | -                            | -
        0 |  7 | refund 1 | 1001 |    1 | 12 | -                            | 1000,  500
        0 |  8 | void 1   | 1001 |    - | 12 | -                            | 1000,  500
        # A void is undone by nothing, and its amount means nothing.
        0 |  9 | buy      | 1001 |  100 | 00 | s>CANTEEN 100                | 1000,  400
        0 | 10 | void 9   | 1001 |    7 | 00 | CANTEEN>s 100                | 1000,  500
        0 | 11 | undo 10  | 1001 |  100 | 00 | -                            | 1000,  500
        0 | 12 | undo 10  | 1002 |    7 | 94 | -                            |  300,    0
        0 | 13 | void 9   | 1001 |    - | 12 | -                            | 1000,  500
        # A refund that was taken back leaves room for a void.
        0 | 14 | buy      | 1001 |  100 | 00 | s>CANTEEN 100                | 1000,  400
        0 | 15 | refund 14 | 1001 |  40 | 00 | CANTEEN>s 40                 | 1000,  440
        0 | 16 | undo 15  | 1001 |   40 | 00 | s>CANTEEN 40                 | 1000,  400
        0 | 17 | void 14  | 1001 |    - | 00 | CANTEEN>s 100                | 1000,  500
    ",
    );
    assert_eq!(campus.balance("CANTEEN"), 0);
}

#[test]
fn an_undone_sale_whose_day_is_forgotten_is_not_paid_for_again() {
    for undone in [true, false] {
        let mut campus = Campus::new();
        campus.run("0 | 1 | buy | 1001 | 850 | 00 | c>CANTEEN 350, s>CANTEEN 500 | 650, 0");
        campus.cut_over(7);
        campus.run("0 | 2 | refund 1 | 1001 | 300 | 00 | CANTEEN>c 300 | 950, 0");
        if undone {
            campus.run("0 | 3 | undo 1 | 1001 | 850 | 00 | CANTEEN>c 50, CANTEEN>s 500 | 1000, 500");
        }
        campus.cut_over(1);
        campus.run(if undone {
            "0 | 4 | undo 2 | 1001 | 300 | 00 | - | 1000, 500"
        } else {
            "0 | 4 | undo 2 | 1001 | 300 | 00 | c>CANTEEN 300 | 650, 0"
        });
    }
}

#[test]
fn void_refund_and_completion_name_an_original_that_they_may() {
    let mut campus = Campus::new();
    campus.run(
        "
        0 |  1 | buy         | 1001 |  100 | 00 | s>CANTEEN 100 | 1000,  400
        0 |  2 | buy         | 1101 |  100 | 41 | -             | 1000,  500
        3 |  3 | hold        | 1001 |  100 | 00 | held 100      |  900,  400
        4 |  4 | load        | 1001 |  100 | 00 | cash_desk>c 100 | 1000, 400
        # Nothing of that number, a decline, another kind of original, another merchant's, another card's, no card.
        0 |  5 | void 77     | 1001 |    - | 25 | -             | 1000,  400
        0 |  6 | refund 2    | 1101 |    1 | 25 | -             | 1000,  500
        0 |  7 | void 4/4    | 1001 |    - | 25 | -             | 1000,  400
        4 |  8 | refund 4    | 1001 |    1 | 25 | -             | 1000,  400
        3 |  9 | refund 3    | 1001 |    1 | 25 | -             | 1000,  400
        3 | 10 | complete 0/1 | 1001 |   1 | 25 | -             | 1000,  400
        0 | 11 | complete 3/3 | 1001 |   1 | 25 | -             | 1000,  400
        1 | 12 | void 0/1    | 1001 |    - | 25 | -             | 1000,  400
        1 | 13 | refund 0/1  | 1001 |    1 | 25 | -             | 1000,  400
        0 | 14 | void 1      | 1002 |    - | 25 | -             |  300,    0
        0 | 15 | refund 1    | 1002 |    1 | 25 | -             |  300,    0
        3 | 16 | complete 3  | 1002 |    1 | 25 | -             |  300,    0
        0 | 17 | void 1      | 9999 |    - | 14 | -             | -
        0 | 18 | refund 1    | 9999 |    1 | 14 | -             | -
        3 | 19 | complete 3  | 9999 |    1 | 14 | -             | -
        # The amount stands before the original; of a void it means nothing.
        0 | 20 | refund 77   | 1001 |    0 | 13 | -             | 1000,  400
        0 | 21 | refund 77   | 1001 | 100001 | 13 | -           | 1000,  400
        3 | 22 | complete 77 | 1001 | 100001 | 13 | -           | 1000,  400
        3 | 23 | complete 77 | 1001 |    0 | 25 | -             | 1000,  400
        0 | 24 | void 77     | 1001 | 100001 | 25 | -           | 1000,  400
        # Undone before they came.
        0 | 25 | undo 40     | -    |    - | 00 | -             | -
        0 | 26 | undo 41     | -    |    - | 00 | -             | -
        3 | 27 | undo 42     | -    |    - | 00 | -             | -
        0 | 40 | void 1      | 1001 |    - | 12 | -             | 1000,  400
        0 | 41 | refund 1    | 1001 |    0 | 12 | -             | 1000,  400
        3 | 42 | complete 3  | 1001 |    1 | 12 | -             | 1000,  400
        # Another terminal of the same merchant may.
        2 | 43 | void 0/1    | 1001 |    - | 00 | CANTEEN>s 100 | 1000,  500
    ",
    );
    // A sale of yesterday is no void's, but a refund's; what another merchant owns by now is still that of the sale's.
    campus.run("0 | 50 | buy | 1001 | 100 | 00 | s>CANTEEN 100 | 1000, 400");
    campus.cut_over(1);
    campus.run(
        "
        0 | 51 | void 50   | 1001 |   - | 12 | -             | 1000, 400
        0 | 52 | refund 50 | 1001 | 100 | 00 | CANTEEN>s 100 | 1000, 500
    ",
    );
}

#[test]
fn a_hold_is_completed_undone_or_lapses_once() {
    let mut campus = Campus::new();
    campus.run(
        "
        3 |  1 | hold       | 1001 |  300 | 00 | held 300   |  700,  500
        # As much as there is of what is asked for; the subsidy is no water.
        3 |  2 | hold       | 1001 |  900 | 00 | held 700   |    0,  500
        3 |  3 | hold       | 1001 |    1 | 51 | -          |    0,  500
        0 |  4 | buy cash   | 1001 |    1 | 51 | -          |    0,  500
        0 |  5 | buy        | 1001 |  500 | 00 | s>CANTEEN 500 | 0,    0
        3 |  6 | complete 1 | 1001 |  301 | 61 | -          |    0,    0
        3 |  7 | complete 2 | 1001 |  701 | 61 | -          |    0,    0
        3 |  8 | complete 1 | -    |  120 | 00 | c>BATH 120 |  180,    0
        3 |  9 | complete 1 | -    |  120 | 12 | -          | -
        # Its reversal changes nothing any more; that of the completion gives back what was taken, and the hold stays gone.
        3 | 10 | undo 1     | 1001 |  300 | 00 | -          |  180,    0
        3 | 11 | undo 8     | 1001 |  120 | 00 | BATH>c 120 |  300,    0
        3 | 12 | complete 1 | 1001 |    1 | 12 | -          |  300,    0
        3 | 13 | undo 2     | -    |    - | 00 | held 700   | 1000,    0
        3 | 14 | undo 2     | -    |    - | 00 | -          | -
        3 | 15 | complete 2 | 1001 |    1 | 12 | -          | 1000,    0
        # Nothing was used.
        3 | 16 | hold       | 1001 | 1000 | 00 | held 1000  |    0,    0
        3 | 17 | complete 16 | -   |    0 | 00 | -          | 1000,    0
        3 | 18 | undo 17    | 1001 |    0 | 00 | -          | 1000,    0
        # A completion can be refunded.
        3 | 19 | hold       | 1001 |  100 | 00 | held 100   |  900,    0
        3 | 20 | complete 19 | -   |   80 | 00 | c>BATH 80  |  920,    0
        3 | 21 | refund 20  | -    |   30 | 00 | BATH>c 30  |  950,    0
        3 | 22 | undo 20    | -    |    - | 00 | BATH>c 50  | 1000,    0
        3 | 23 | hold       | 1001 |  400 | 00 | held 400   |  600,    0
        3 | 24 | hold       | 1002 |  100 | 00 | held 100   |  200,    0
    ",
    );
    let first = campus.ledger.holds().rows().next().expect("two are open").0;
    assert_eq!(campus.ledger.lapsing(campus.now + DAY - 1), None);
    assert_eq!(campus.ledger.lapsing(campus.now + DAY), Some(first));
    campus.run(
        "
        3 | 30 | lapse 23    | 1001 |   - | 00 | held 400 | 1000, 0
        3 | 31 | complete 23 | 1001 |   1 | 12 | -        | 1000, 0
        3 | 32 | undo 23     | 1001 | 400 | 00 | -        | 1000, 0
    ",
    );
    // What is held at the change of day is held the next day, and after its own day is forgotten.
    campus.cut_over(1);
    campus.run("3 | 33 | buy | 1002 | 201 | 54 | - | 200, 0");
    campus.cut_over(8);
    assert_eq!(campus.ledger.holds().count(), 1);
    let open = campus.ledger.holds().rows().next().expect("one is open").0;
    let outcome = campus.ledger.apply(campus.now, &Command::Lapse { hold: open });
    assert_eq!((outcome.paid, outcome.after, outcome.original), ([100, 0], Some([300, 0]), Some(open)));
    assert_eq!((campus.ledger.holds().count(), campus.balance("BATH")), (0, 0));
}

#[test]
fn of_several_reasons_against_a_hold_a_bill_or_a_load_the_first_is_the_answer() {
    let always = Rule::new(RuleKind::TransactionMax, 400);
    let mut campus = Campus::with(&[
        always,
        Rule::new(RuleKind::PinAbove, 200),
        Rule::new(RuleKind::DayMax, 500),
        of(CardClass::Family, None, RuleKind::Refuse, 0),
    ]);
    let number = card("1001");
    enter(&mut campus.ledger, &Command::Pin { number, verification: PinVerification([7; 16]) });
    campus.run(
        "
        3 |  1 | undo 2     | -    |    - | 00 | -        | -
        3 |  2 | hold       | 9999 |    0 | 12 | -        | -
        3 |  3 | hold       | 9999 |    0 | 13 | -        | -
        3 |  4 | hold       | 9999 | 100001 | 13 | -      | -
        3 |  5 | hold       | 9999 |    1 | 14 | -        | -
        3 |  6 | hold       | 1101 |    1 | 41 | -        | 1000, 500
        3 |  7 | hold       | 1102 |    1 | 62 | -        | 1000, 500
        3 |  8 | hold       | 1103 |    1 | 78 | -        | 1000, 500
        3 |  9 | hold       | 1105 |    1 | 54 | -        | 1000, 500
        3 | 10 | hold       | 3001 | 9999 | 57 | -        | 1000,   0
        3 | 11 | hold       | 1001 | 9999 | 55 | -        | 1000, 500
        3 | 12 | hold right | 1001 |  401 | 61 | -        | 1000, 500
        3 | 13 | hold       | 1003 |    1 | 51 | -        |    0, 9000
        4 | 14 | bill water | 3001 | 9999 | 57 | -        | 1000,   0
        4 | 15 | bill water | 1001 | 9999 | 55 | -        | 1000, 500
        4 | 16 | bill water right | 1001 | 401 | 61 | -   | 1000, 500
        4 | 17 | bill water right | 1001 | 400 | 00 | c>water 400 | 600, 500
        4 | 18 | bill water | 1001 |  101 | 61 | -        |  600, 500
        4 | 19 | bill water | 1003 |    1 | 51 | -        |    0, 9000
        4 | 20 | undo 17    | 1001 |  400 | 00 | water>c 400 | 1000, 500
        # A load asks no rule, but the card.
        4 | 21 | load       | 3001 | 9999 | 00 | cash_desk>c 9999 | 10999, 0
        4 | 22 | load       | 1101 |    1 | 41 | -        | 1000, 500
        4 | 23 | load       | 1105 |    1 | 54 | -        | 1000, 500
        4 | 24 | load       | 1001 |    0 | 13 | -        | 1000, 500
        4 | 25 | load       | 9999 |    1 | 14 | -        | -
    ",
    );
}

#[test]
fn wrong_pins_in_a_row_are_counted_and_missing_ones_are_not() {
    let mut campus = Campus::with(&[Rule::new(RuleKind::PinAbove, 100)]);
    let number = card("1001");
    let set = Command::Pin { number, verification: PinVerification([7; 16]) };
    enter(&mut campus.ledger, &set);
    campus.run(
        "
        # Not above the amount: no PIN is looked at.
        0 |  1 | buy wrong | 1001 |  100 | 00 | s>CANTEEN 100 | 1000, 400
        0 |  2 | buy       | 1001 |  101 | 55 | -             | 1000, 400
        0 |  3 | buy wrong | 1001 |  101 | 55 | -             | 1000, 400
        0 |  4 | buy wrong | 1001 |  101 | 55 | -             | 1000, 400
        # The right one forgets them, whatever it is declined for later.
        0 |  5 | buy right | 1001 | 9999 | 51 | -             | 1000, 400
        0 |  6 | buy wrong | 1001 |  101 | 55 | -             | 1000, 400
        0 |  7 | buy wrong | 1001 |  101 | 55 | -             | 1000, 400
        0 |  8 | buy       | 1001 |  101 | 55 | -             | 1000, 400
        0 |  9 | buy wrong | 1001 |  101 | 55 | -             | 1000, 400
        # The third in a row was the last: not even the right one helps.
        0 | 10 | buy right | 1001 |  101 | 75 | -             | 1000, 400
        3 | 11 | hold right | 1001 | 101 | 75 | -             | 1000, 400
        4 | 12 | bill other right | 1001 | 101 | 75 | -       | 1000, 400
        0 | 13 | buy       | 1001 |  100 | 00 | s>CANTEEN 100 | 1000, 300
        0 | 14 | sold      | 1001 |  101 | 00 75 | s>CANTEEN 101 | 1000, 199
        # A card without a PIN has none that is right, and no tries to use up.
        0 | 15 | buy wrong | 1002 |  101 | 55 | -             |  300,   0
        0 | 16 | sold      | 1002 |  101 | 00 55 | c>CANTEEN 101 | 199, 0
    ",
    );
    assert_eq!((campus.ledger.pin_tries(&number), campus.ledger.pin_tries(&card("1002"))), (3, 0));
    enter(&mut campus.ledger, &set);
    campus.run("0 | 20 | buy right | 1001 | 150 | 00 | s>CANTEEN 150 | 1000, 49");
    assert_eq!(campus.ledger.pin_tries(&number), 0);
}

#[test]
fn what_was_sold_offline_is_posted_and_flagged() {
    let mut campus = Campus::with(&[
        Rule { category: Some(Category::Shop), ..Rule::new(RuleKind::TransactionMax, 200) },
        of(CardClass::Family, Some(Category::Shop), RuleKind::Refuse, 0),
        of(CardClass::Student, Some(Category::Canteen), RuleKind::DayCount, 4),
    ]);
    campus.run(
        "
        0 |  1 | sold         | 1001 |  850 | 00    | c>CANTEEN 350, s>CANTEEN 500 |  650,   0
        # Too little, with a debt, by a card that is lost, frozen, inactive, expired: it has happened.
        0 |  2 | sold         | 1001 |  700 | 00 51 | c>CANTEEN 700                |  -50,   0
        0 |  3 | sold         | 1001 |    1 | 00 51 | c>CANTEEN 1                  |  -51,   0
        0 |  4 | sold         | 1101 |    1 | 00 41 | s>CANTEEN 1                  | 1000, 499
        0 |  5 | sold         | 1102 |    1 | 00 62 | s>CANTEEN 1                  | 1000, 499
        0 |  6 | sold         | 1103 |    1 | 00 78 | s>CANTEEN 1                  | 1000, 499
        0 |  7 | sold         | 1104 |    1 | 00 78 | s>CANTEEN 1                  | 1000, 499
        0 |  8 | sold         | 1105 |    1 | 00 54 | s>CANTEEN 1                  | 1000, 499
        # By a purse that does not cover it, or is not taken: the cash purse pays the rest.
        0 |  9 | sold subsidy | 1105 |  500 | 00 54 | c>CANTEEN 1, s>CANTEEN 499   |  999,   0
        1 | 10 | sold subsidy | 1003 |   10 | 00 57 | c>SHOP 10                    |  -10, 9000
        1 | 11 | sold         | 3001 |  201 | 00 57 | c>SHOP 201                   |  799,   0
        1 | 12 | sold         | 2001 |  201 | 00 61 | c>SHOP 201                   |  799,   0
        0 | 13 | sold subsidy | 2001 |    5 | 00 51 | c>CANTEEN 5                  |  794,   0
        # The fifth of the day by this holder; the third counted too.
        0 | 14 | sold cash    | 1001 |    1 | 00 51 | c>CANTEEN 1                  |  -52,   0
        4 | 15 | load         | 1001 |  100 | 00    | cash_desk>c 100              |   48,   0
        0 | 16 | sold         | 1001 |    1 | 00 65 | c>CANTEEN 1                  |   47,   0
        # Only these are refused.
        0 | 17 | sold         | 1001 |    0 | 13    | -                            |   47,   0
        0 | 18 | sold         | 9999 |    1 | 14    | -                            | -
        0 | 19 | undo 20      | -    |    - | 00    | -                            | -
        0 | 20 | sold         | 1001 |    1 | 12    | -                            |   47,   0
        # It is undone, refunded and voided like any other sale.
        0 | 21 | undo 2       | 1001 |  700 | 00    | CANTEEN>c 700                |  747,   0
        0 | 22 | refund 9     | 1105 |    2 | 00    | CANTEEN>c 1, CANTEEN>s 1     | 1000,   1
        0 | 23 | void 14      | 1001 |    - | 00    | CANTEEN>c 1                  |  748,   0
    ",
    );
}

#[test]
fn what_is_given_back_on_the_same_day_may_be_spent_again() {
    let lunch = Window { days: ALL_DAYS, from: 660, to: 810 };
    let limits = [
        of(CardClass::Student, None, RuleKind::DayMax, 600),
        of(CardClass::Student, None, RuleKind::DayCount, 3),
        Rule { window: lunch, ..of(CardClass::Student, Some(Category::Canteen), RuleKind::Meal, 1) },
    ];
    let mut campus = Campus::with(&limits);
    campus.run(
        "
        0 |  1 | buy      | 1001 | 400 | 00 | s>CANTEEN 400 | 1000, 100
        0 |  2 | buy      | 1001 |   1 | 65 | -             | 1000, 100
        0 |  3 | buy      | 1001 | 201 | 61 | -             | 1000, 100
        1 |  4 | buy      | 1001 | 200 | 00 | c>SHOP 200    |  800, 100
        # A refund gives back the amount, not that something was bought; taken back, it is spent again.
        0 |  5 | refund 1 | 1001 | 100 | 00 | CANTEEN>s 100 |  800, 200
        0 |  6 | buy      | 1001 |   1 | 65 | -             |  800, 200
        0 |  7 | undo 5   | 1001 | 100 | 00 | s>CANTEEN 100 |  800, 100
        1 |  8 | buy      | 1001 |   1 | 61 | -             |  800, 100
        # A void gives back both.
        0 |  9 | void 1   | 1001 |   - | 00 | CANTEEN>s 400 |  800, 500
        0 | 10 | buy      | 1001 |   1 | 00 | s>CANTEEN 1   |  800, 499
        # A hold counts by what it holds; a completion gives back what was not used, a reversal or a lapse all of it.
        3 | 11 | hold     | 1001 | 400 | 61 | -             |  800, 499
        3 | 12 | hold     | 1001 | 399 | 00 | held 399      |  401, 499
        1 | 13 | buy      | 1001 |   1 | 61 | -             |  401, 499
        3 | 14 | complete 12 | - |  99 | 00 | c>BATH 99     |  701, 499
        1 | 15 | buy      | 1001 |   1 | 65 | -             |  701, 499
        3 | 16 | undo 14  | -    |   - | 00 | BATH>c 99     |  800, 499
        3 | 17 | hold     | 1001 | 399 | 00 | held 399      |  401, 499
        3 | 18 | undo 17  | -    |   - | 00 | held 399      |  800, 499
        3 | 19 | hold     | 1001 | 399 | 00 | held 399      |  401, 499
        3 | 20 | lapse 19 | 1001 |   - | 00 | held 399      |  800, 499
        4 | 21 | bill other | 1001 | 399 | 00 | c>other 399 |  401, 499
        4 | 22 | undo 21  | 1001 | 399 | 00 | other>c 399   |  800, 499
        3 | 23 | hold     | 1001 | 399 | 00 | held 399      |  401, 499
    ",
    );
    // After the change of day nothing of what was given back is taken from the new day's counters: neither a sale's, nor that of a
    // completion whose hold was counted the day before.
    campus.cut_over(1);
    campus.run(
        "
        3 | 30 | complete 23 | - | 300 | 00 | c>BATH 300    |  500, 499
        1 | 31 | buy      | 1001 | 500 | 00 | c>SHOP 500    |    0, 499
        1 | 32 | refund 4 | 1001 | 200 | 00 | SHOP>c 200    |  200, 499
        3 | 33 | undo 30  | -    |   - | 00 | BATH>c 300    |  500, 499
        1 | 34 | buy      | 1001 | 101 | 61 | -             |  500, 499
        1 | 35 | buy      | 1001 | 100 | 00 | c>SHOP 100    |  400, 499
    ",
    );
    // A rule that is in force again, as it was, goes on counting; one with another value begins anew.
    campus.rules(&limits);
    campus.run("1 | 36 | buy | 1001 | 1 | 61 | - | 400, 499");
    campus.rules(&[Rule { value: 601, ..limits[0] }]);
    campus.run("1 | 37 | buy | 1001 | 400 | 00 | c>SHOP 400 | 0, 499");
}

#[test]
fn doors_let_through_whom_the_rules_name_and_nobody_twice() {
    let zone = Zone::new("NORTH");
    let mut campus = Campus::with(&[
        Rule {
            zone,
            class: Some(CardClass::Student),
            window: Window { days: ALL_DAYS, from: 360, to: 1_380 },
            ..Rule::new(RuleKind::Door, 0)
        },
        Rule { zone, ..Rule::new(RuleKind::AntiPassback, 10) },
    ]);
    campus.run(
        "
        5 |  1 | enter      | 1001 | - | 00    | - | 1000, 500
        # The same way again, until ten minutes have passed or the other way was gone.
        5 |  2 | enter      | 1001 | - | 57    | - | 1000, 500
        5 |  3 | enter      | 1002 | - | 00    | - |  300,   0
        5 |  4 | leave      | 1001 | - | 00    | - | 1000, 500
        5 |  5 | enter      | 1001 | - | 00    | - | 1000, 500
        # What happened offline is recorded, and flagged; it counts.
        5 |  6 | told enter | 1001 | - | 00 57 | - | 1000, 500
        5 |  7 | told leave | 2001 | - | 00 57 | - | 1000,   0
        5 |  8 | enter      | 2001 | - | 57    | - | 1000,   0
        5 |  9 | enter      | 1101 | - | 41    | - | 1000, 500
        5 | 10 | told enter | 1101 | - | 00 41 | - | 1000, 500
        5 | 11 | told enter | 1102 | - | 00 62 | - | 1000, 500
        5 | 12 | told enter | 1103 | - | 00 78 | - | 1000, 500
        5 | 13 | told enter | 1105 | - | 00 54 | - | 1000, 500
        5 | 14 | told enter | 9999 | - | 14    | - | -
        5 | 15 | enter      | 9999 | - | 14    | - | -
        # Attendance is no door, and another zone has no rule.
        5 | 16 | attendance | 2001 | - | 00    | - | 1000,   0
        5 | 17 | attendance | 1102 | - | 62    | - | 1000, 500
        5 | 18 | told verify | 2001 | - | 00   | - | 1000,   0
        6 | 19 | enter      | 2001 | - | 00    | - | 1000,   0
        6 | 20 | enter      | 2001 | - | 00    | - | 1000,   0
    ",
    );
    campus.time = 120_900;
    campus.run("5 | 30 | enter | 1001 | - | 57 | - | 1000, 500");
    campus.time = 121_000;
    campus.run(
        "
        5 | 31 | enter | 1001 | - | 00 | - | 1000, 500
        5 | 32 | enter | 1001 | - | 57 | - | 1000, 500
    ",
    );
    campus.time = 230_000;
    campus.run(
        "
        5 | 33 | leave | 1001 | - | 57 | - | 1000, 500
        5 | 34 | told leave | 1001 | - | 00 57 | - | 1000, 500
    ",
    );
    campus.rules(&[]);
    campus.run(
        "
        5 | 35 | leave | 1001 | - | 00 | - | 1000, 500
        5 | 36 | leave | 2001 | - | 00 | - | 1000,   0
    ",
    );
}

#[test]
fn an_item_is_lent_once_and_comes_back_from_whom_it_was_lent_to() {
    let mut campus = Campus::new();
    campus.run(
        "
        6 |  1 | borrow QA76      | 1001 | - | 00    | - | 1000, 500
        6 |  2 | borrow QA76      | 1001 | - | 12    | - | 1000, 500
        6 |  3 | borrow QA76      | 1002 | - | 12    | - |  300,   0
        6 |  4 | return QA76      | 1002 | - | 57    | - |  300,   0
        6 |  5 | return QA77      | 1002 | - | 25    | - |  300,   0
        6 |  6 | borrow QA77      | 1101 | - | 41    | - | 1000, 500
        # The card before the item; for an advice the item alone.
        6 |  7 | return QA77      | 1102 | - | 62    | - | 1000, 500
        6 |  8 | told return QA77 | 1102 | - | 25    | - | 1000, 500
        6 |  9 | told return QA76 | 1102 | - | 57    | - | 1000, 500
        6 | 10 | told borrow QA76 | 1102 | - | 12    | - | 1000, 500
        6 | 11 | told borrow QA77 | 1102 | - | 00 62 | - | 1000, 500
        6 | 12 | told return QA77 | 1102 | - | 00 62 | - | 1000, 500
        6 | 13 | told borrow QA77 | 9999 | - | 14    | - | -
        # The holder's, not the card's: a lost card's book comes back with another one.
        6 | 14 | told return QA76 | 1106 | - | 00 41 | - |  1000, 500
        6 | 15 | borrow QA76      | 1002 | - | 00    | - |  300,   0
        6 | 16 | undo 17          | -    | - | 00    | - | -
        6 | 17 | return QA76      | 1002 | - | 12    | - |  300,   0
        # A reversal gives no book back.
        6 | 18 | undo 15          | 1002 | - | 00    | - |  300,   0
        6 | 19 | return QA76      | 1002 | - | 00    | - |  300,   0
        6 | 20 | return QA76      | 1002 | - | 25    | - |  300,   0
    ",
    );
    assert_eq!(campus.ledger.loans().count(), 0);
}

#[test]
fn a_card_is_lost_and_found_while_it_is_its_holders_one() {
    let mut campus = Campus::new();
    let version = campus.ledger.hotlist().version();
    campus.run(
        "
        4 |  1 | loss  | 1001 | - | 00 | - | 1000, 500
        4 |  2 | loss  | 1001 | - | 00 | - | 1000, 500
        0 |  3 | buy   | 1001 | 1 | 41 | - | 1000, 500
        4 |  4 | found | 1001 | - | 00 | - | 1000, 500
        4 |  5 | found | 1001 | - | 00 | - | 1000, 500
        0 |  6 | buy   | 1001 | 1 | 00 | s>CANTEEN 1 | 1000, 499
        # Its holder has another live card by now.
        4 |  7 | found | 1106 | - | 78 | - | 1000, 499
        4 |  8 | loss  | 1106 | - | 00 | - | 1000, 499
        4 |  9 | loss  | 1102 | - | 62 | - | 1000, 500
        4 | 10 | found | 1102 | - | 62 | - | 1000, 500
        4 | 11 | loss  | 1103 | - | 78 | - | 1000, 500
        4 | 12 | found | 1104 | - | 78 | - | 1000, 500
        4 | 13 | loss  | 9999 | - | 14 | - | -
        # An expired card too.
        4 | 14 | loss  | 1105 | - | 00 | - | 1000, 500
        0 | 15 | buy   | 1105 | 1 | 41 | - | 1000, 500
        4 | 16 | found | 1105 | - | 00 | - | 1000, 500
        0 | 17 | buy   | 1105 | 1 | 54 | - | 1000, 500
    ",
    );
    assert_eq!(campus.ledger.hotlist().version(), version + 4, "two cards were listed and taken off again");
}
