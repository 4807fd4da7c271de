//! A switch without sockets, driven step by step over any journal, that remembers the digest of each of its states.

use std::collections::BTreeMap;

use proptest::prelude::*;
use switch_core::authorizer::{Authorizer, Settings};
use switch_core::calendar::{Date, Timestamp};
use switch_core::import::import;
use switch_core::journal::{Journal, JournalError};
use switch_core::ledger::batches::Totals;
use switch_core::ledger::{Ledger, Policy};
use switch_core::pin::{Pin, PinKey};

use super::{AMOUNT_MAX, Answer, DAY, Draft, IDENTITY_DAYS, NOON, Terminal, ask_frame, card, college, nonces, settings};

/// What the world has beside the college: metered water, a library, meters.
const MERCHANTS: &str = "merchant_id,name,category,fee_bp
M-BATH,Bath,bath,0
M-LIB,Library,library,0
";
const TERMINALS: &str = "terminal_id,merchant_id,kind,zone,key
WATER006,M-BATH,water,,00000000000000000000000000000006
LIBRY007,M-LIB,library,,00000000000000000000000000000007
METER008,M-BATH,meter,,00000000000000000000000000000008
";
/// The terminals that are signed on, by the last digit of their keys.
const SIGNED_ON: [(&str, u8); 7] =
    [("POS00001", 1), ("POS2", 2), ("GATE0004", 4), ("COUNT005", 5), ("WATER006", 6), ("LIBRY007", 7), ("METER008", 8)];
/// Places in [`SIGNED_ON`].
pub(crate) const GATE: usize = 2;
pub(crate) const COUNTER: usize = 3;
pub(crate) const WATER: usize = 4;
pub(crate) const LIBRARY: usize = 5;
pub(crate) const METER: usize = 6;

const CARDS: [&str; 6] = ["1001", "1002", "1003", "1101", "1105", "9999"];
const HEADER: &str = "rule,class,category,zone,days,from,to,value";
/// Policies, of which a step puts one in the place of another.
const RULES: [&str; 4] = [
    "",
    "day_max,student,*,,,,,3000
day_count,*,canteen,,,,,9
meal,student,canteen,,,11:00,13:30,5
pin_above,*,shop,,,,,400
surcharge,student,canteen,,,,,1500
surcharge,teacher,*,,,,,-2500
door,student,,NORTH,,06:00,23:00,
anti_passback,,,NORTH,,,,30
",
    "day_max,student,*,,,,,3000
day_count,*,canteen,,,,,9
subsidy,*,shop,,,,,yes
transaction_max,*,*,,,,,600
refuse,teacher,canteen,,7,,,
anti_passback,,,NORTH,,,,30
",
    "day_max,*,*,,,,,5000
surcharge,*,canteen,,,,,-10000
door,teacher,,NORTH,,,,
",
];
const PIN: &str = "4821";

#[derive(Clone, Debug)]
pub(crate) enum Step {
    SignOn(usize),
    SignOff(usize),
    /// Terminal, STAN, card, amount.
    Purchase(usize, u32, usize, u32),
    /// The same with a PIN, and whether it is the right one.
    PurchaseWithPin(usize, u32, usize, u32, bool),
    /// Terminal, STAN, card, purse (DE3 00p000), amount.
    OfflineSale(usize, u32, usize, u8, u32),
    /// The same, dated three weeks ago.
    LateSale(usize, u32, usize, u8, u32),
    /// STAN, card, amount.
    Hold(u32, usize, u32),
    /// STAN, which hold, amount.
    Completion(u32, usize, u32),
    /// Terminal, STAN, which sale.
    Void(usize, u32, usize),
    /// Terminal, STAN, which sale, amount.
    Refund(usize, u32, usize, u32),
    /// STAN, card, amount.
    Load(u32, usize, u32),
    /// STAN, card, amount; the kind follows from the amount.
    Bill(u32, usize, u32),
    /// STAN, card, DE3's third digit (1 enter, 2 leave, 5 attendance), whether it is an advice.
    Door(u32, usize, u8, bool),
    /// STAN, card, DE3's third digit (3 borrow, 4 return), item, whether it is an advice.
    Loan(u32, usize, u8, u8, bool),
    /// STAN, card, whether it was found.
    Report(u32, usize, bool),
    /// Terminal, STAN, batch, whether the terminal's totals are the switch's.
    BatchClose(usize, u32, u32, bool),
    /// STAN, kind.
    Event(u32, u8),
    /// Terminal, STAN, the original's STAN.
    Reversal(usize, u32, u32),
    /// The same, of something of three weeks ago, and whether the reversal itself is dated today.
    LateReversal(usize, u32, u32, bool),
    Unknown(usize, u32),
    /// A file, as a new merchant, a card's new status, a terminal's new key.
    Import(u8),
    /// A policy file.
    Rules(usize),
    /// A file of PINs: a card's, the right one or another.
    Pin(usize, bool),
    /// A terminal is suspended, or works again.
    Standing(usize, bool),
    NextDay,
    /// So many hours pass.
    Hours(u8),
    Flush,
    Submit,
    /// The process ends without a word and starts again, with this ceiling of amounts.
    Restart(u32),
}

/// Few numbers, so that they meet.
pub(crate) fn step() -> impl Strategy<Value = Step> {
    let (till, terminal) = (0_usize..2, 0_usize..SIGNED_ON.len());
    prop_oneof![
        2 => terminal.clone().prop_map(Step::SignOn),
        1 => terminal.clone().prop_map(Step::SignOff),
        8 => (till, stan(), card_index(), 0_u32..700).prop_map(|(t, s, c, a)| Step::Purchase(t, s, c, a)),
        6 => (terminal.clone(), stan(), stan()).prop_map(|(t, s, o)| Step::Reversal(t, s, o)),
        1 => (terminal.clone(), stan(), stan(), any::<bool>()).prop_map(|(t, s, o, today)| Step::LateReversal(t, s, o, today)),
        1 => (terminal, stan()).prop_map(|(t, s)| Step::Unknown(t, s)),
        1 => any::<u8>().prop_map(Step::Import),
        1 => Just(Step::NextDay),
        1 => (0_u8..30).prop_map(Step::Hours),
        2 => Just(Step::Flush),
        2 => Just(Step::Submit),
        2 => prop_oneof![3 => Just(AMOUNT_MAX), 1 => Just(500_u32)].prop_map(Step::Restart),
        14 => money_step(),
        10 => other_step(),
    ]
}

fn stan() -> impl Strategy<Value = u32> + Clone {
    0_u32..12
}

fn card_index() -> impl Strategy<Value = usize> + Clone {
    prop_oneof![4 => 0_usize..3, 1 => 3_usize..CARDS.len()]
}

fn money_step() -> impl Strategy<Value = Step> {
    let (till, amount, which) = (0_usize..2, 0_u32..700, 0_usize..6);
    prop_oneof![
        3 => (till.clone(), stan(), card_index(), amount.clone(), any::<bool>())
            .prop_map(|(t, s, c, a, right)| Step::PurchaseWithPin(t, s, c, a, right)),
        3 => (till.clone(), stan(), card_index(), 0_u8..3, amount.clone()).prop_map(|(t, s, c, p, a)| Step::OfflineSale(t, s, c, p, a)),
        1 => (till.clone(), stan(), card_index(), 0_u8..3, amount.clone()).prop_map(|(t, s, c, p, a)| Step::LateSale(t, s, c, p, a)),
        4 => (stan(), card_index(), amount.clone()).prop_map(|(s, c, a)| Step::Hold(s, c, a)),
        3 => (stan(), which.clone(), amount.clone()).prop_map(|(s, w, a)| Step::Completion(s, w, a)),
        2 => (till.clone(), stan(), which.clone()).prop_map(|(t, s, w)| Step::Void(t, s, w)),
        4 => (till, stan(), which, 0_u32..400).prop_map(|(t, s, w, a)| Step::Refund(t, s, w, a)),
        2 => (stan(), card_index(), amount.clone()).prop_map(|(s, c, a)| Step::Load(s, c, a)),
        2 => (stan(), card_index(), amount).prop_map(|(s, c, a)| Step::Bill(s, c, a)),
    ]
}

fn other_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (stan(), card_index(), prop::sample::select(&[1_u8, 2, 5][..]), any::<bool>()).prop_map(|(s, c, a, o)| Step::Door(s, c, a, o)),
        3 => (stan(), card_index(), 3_u8..5, 0_u8..3, any::<bool>()).prop_map(|(s, c, a, i, o)| Step::Loan(s, c, a, i, o)),
        2 => (stan(), card_index(), any::<bool>()).prop_map(|(s, c, found)| Step::Report(s, c, found)),
        2 => (0_usize..2, stan(), 1_u32..4, any::<bool>()).prop_map(|(t, s, b, equal)| Step::BatchClose(t, s, b, equal)),
        1 => (stan(), 1_u8..5).prop_map(|(s, k)| Step::Event(s, k)),
        2 => (0..RULES.len()).prop_map(Step::Rules),
        2 => (0_usize..3, any::<bool>()).prop_map(|(c, right)| Step::Pin(c, right)),
        1 => (0_usize..SIGNED_ON.len(), prop::bool::weighted(0.3)).prop_map(|(t, suspended)| Step::Standing(t, suspended)),
    ]
}

/// Steps that leave a record of every kind, and something in every list of the state.
pub(crate) fn everything() -> Vec<Step> {
    vec![
        Step::Purchase(0, 1, 0, 600),
        Step::Flush,
        Step::Purchase(0, 2, 3, 1),
        Step::Reversal(0, 1, 1),
        Step::Reversal(0, 2, 9),
        Step::Unknown(1, 1),
        Step::Rules(1),
        Step::Pin(1, false),
        Step::Pin(2, true),
        Step::Flush,
        Step::PurchaseWithPin(1, 30, 2, 500, false),
        Step::PurchaseWithPin(1, 31, 2, 500, true),
        Step::Purchase(0, 32, 2, 400),
        Step::Refund(0, 33, 2, 130),
        Step::Purchase(0, 34, 0, 333),
        Step::Void(0, 35, 3),
        Step::OfflineSale(0, 36, 1, 0, 500),
        Step::LateSale(0, 37, 1, 0, 50),
        Step::LateReversal(0, 37, 1, true),
        Step::LateReversal(0, 38, 1, false),
        Step::Load(38, 1, 450),
        Step::Bill(39, 2, 22),
        Step::Hold(40, 0, 50),
        Step::Completion(41, 0, 35),
        Step::Hold(42, 1, 200),
        Step::Door(43, 0, 1, false),
        Step::Door(44, 1, 1, true),
        Step::Loan(45, 0, 3, 0, false),
        Step::Loan(46, 2, 3, 1, false),
        Step::Loan(47, 2, 4, 1, true),
        Step::Report(48, 2, false),
        Step::Report(49, 2, true),
        Step::BatchClose(0, 50, 1, true),
        Step::BatchClose(1, 51, 1, false),
        Step::Event(52, 1),
        Step::Standing(METER, true),
        Step::Flush,
        Step::NextDay,
        Step::Hold(53, 2, 100),
        Step::Purchase(0, 54, 0, 20),
        Step::Purchase(0, 55, 1, 20),
        Step::PurchaseWithPin(1, 57, 1, 500, false),
        Step::Report(56, 2, false),
        Step::SignOff(0),
        Step::Flush,
    ]
}

/// Kinds of records that [`everything`] leaves: all that a switch writes.
pub(crate) const RECORD_KINDS: usize = 27;

/// A switch without sockets, its clock and its terminals.
pub(crate) struct World {
    pub(crate) authorizer: Authorizer<Journal>,
    terminals: Vec<Terminal>,
    pin_keys: Vec<Option<PinKey>>,
    now: Timestamp,
    signed_on: u32,
    /// Transaction numbers of the approved sales and of the approved holds.
    sales: Vec<u64>,
    holds: Vec<u64>,
    /// The digest after each position.
    pub(crate) digests: BTreeMap<u64, [u8; 32]>,
}

/// One sub-element of DE48.
fn sub_element(tag: u8, value: &str) -> String {
    format!("{tag:02}{:02}{value}", value.len())
}

impl World {
    pub(crate) fn new(journal: Journal) -> Self {
        let mut authorizer = college(journal);
        for content in [MERCHANTS, TERMINALS] {
            import(&mut authorizer, NOON, "more.csv", content.as_bytes()).expect("the world's files are right");
        }
        let mut world = Self {
            authorizer,
            terminals: SIGNED_ON.map(|(name, number)| Terminal::new(name, number)).into(),
            pin_keys: SIGNED_ON.map(|_| None).into(),
            now: NOON,
            signed_on: 1_000,
            sales: Vec::new(),
            holds: Vec::new(),
            digests: BTreeMap::new(),
        };
        world.take(&Step::Flush);
        (0..SIGNED_ON.len()).for_each(|terminal| world.take(&Step::SignOn(terminal)));
        world
    }

    fn note(&mut self) {
        let ledger = self.authorizer.ledger();
        assert_eq!(ledger.accounts().sum(), 0);
        assert_eq!(ledger.position(), self.authorizer.log().position());
        self.digests.insert(ledger.position(), ledger.digest());
    }

    fn today(&self) -> Date {
        self.authorizer.ledger().business_date()
    }

    /// Sends what is dated today.
    fn ask(&mut self, terminal: usize, draft: Draft) -> Answer {
        let today = self.today();
        self.ask_of(terminal, today, draft)
    }

    fn ask_of(&mut self, terminal: usize, date: Date, draft: Draft) -> Answer {
        let draft = draft.with(13, &format!("{:04}", date.month_day()));
        let key = self.terminals[terminal].key.as_ref();
        ask_frame(&mut self.authorizer, self.now, &draft.frame(key))
    }

    fn sign_on(&mut self, terminal: usize) {
        self.signed_on += 1;
        let today = self.today().month_day();
        let its = &self.terminals[terminal];
        let draft = its.sign_on_draft(self.signed_on).with(13, &format!("{today:04}"));
        let answer = ask_frame(&mut self.authorizer, self.now, &draft.frame(Some(&its.sign_on_key)));
        // Not so where the terminal has another master key by now.
        if answer.code() == "00" {
            (self.pin_keys[terminal], self.terminals[terminal].key) = (Some(its.pin_key(&answer)), Some(its.session_key(&answer)));
        }
    }

    fn import(&mut self, content: &str) {
        import(&mut self.authorizer, self.now, "file.csv", content.as_bytes()).expect("a good file");
    }

    /// A sale of this terminal, which is remembered where it is approved.
    fn sell(&mut self, terminal: usize, draft: Draft) {
        let answer = self.ask(terminal, draft);
        if answer.code() == "00" {
            self.sales.push(answer.text(37).expect("a transaction number").parse().expect("digits"));
        }
    }

    /// The transaction number of one of them, or one that is nobody's.
    fn one_of(numbers: &[u64], which: usize) -> String {
        format!("{:012}", numbers.len().checked_sub(1).map_or(0, |last| numbers[which % (last + 1)]))
    }

    fn take_money(&mut self, step: &Step) {
        let fen = |amount: u32| format!("{amount:012}");
        match *step {
            Step::Purchase(till, stan, card, amount) => {
                let draft = self.terminals[till].purchase(stan, CARDS[card], u64::from(amount));
                self.sell(till, draft);
            }
            Step::PurchaseWithPin(till, stan, index, amount, is_right) => {
                let draft = self.terminals[till].purchase(stan, CARDS[index], u64::from(amount));
                let Some(key) = &self.pin_keys[till] else { return };
                let pin = Pin::from_digits(if is_right { PIN } else { "0000" }.as_bytes()).expect("a PIN");
                let block = key.encrypt(&pin, card(CARDS[index]), [u8::from(is_right); 8]);
                let block = format!("{:032X}", u128::from_be_bytes(block));
                self.sell(till, draft.with(48, &sub_element(52, &block)));
            }
            Step::OfflineSale(till, stan, card, purse, amount) => {
                let draft = self.terminals[till].purchase(stan, CARDS[card], u64::from(amount)).mti(220);
                let draft = draft.with(3, &format!("00{purse}000")).with(60, &format!("{:06}", 1 + stan % 3));
                self.sell(till, draft);
            }
            Step::LateSale(till, stan, card, purse, amount) => {
                let draft = self.terminals[till].purchase(stan, CARDS[card], u64::from(amount)).mti(220);
                let long_ago = Date(self.today().0 - 21);
                assert_ne!(self.ask_of(till, long_ago, draft.with(3, &format!("00{purse}000"))).code(), "00");
            }
            Step::Hold(stan, card, amount) => {
                let draft = self.terminals[WATER].draft(100, stan).with(2, CARDS[card]).with(3, "000000").with(4, &fen(amount));
                let answer = self.ask(WATER, draft);
                if answer.code() == "00" {
                    self.holds.push(answer.text(37).expect("a transaction number").parse().expect("digits"));
                }
            }
            Step::Completion(stan, which, amount) => {
                let hold = Self::one_of(&self.holds, which);
                let draft = self.terminals[WATER].draft(220, stan).with(3, "000000").with(4, &fen(amount)).with(37, &hold);
                self.sell(WATER, draft);
            }
            Step::Void(till, stan, which) => {
                let sale = Self::one_of(&self.sales, which);
                let draft = self.terminals[till].draft(200, stan).with(3, "020000").with(37, &sale);
                self.ask(till, draft);
            }
            Step::Refund(till, stan, which, amount) => {
                let sale = Self::one_of(&self.sales, which);
                let draft = self.terminals[till].draft(200, stan).with(3, "200000").with(4, &fen(amount)).with(37, &sale);
                self.ask(till, draft);
            }
            Step::Load(stan, card, amount) => {
                let draft = self.terminals[COUNTER].draft(200, stan).with(2, CARDS[card]).with(3, "210000").with(4, &fen(amount));
                self.ask(COUNTER, draft);
            }
            Step::Bill(stan, card, amount) => {
                let bill = sub_element(30, &format!("{:02}", 1 + amount % 4)) + &sub_element(31, "B-4711");
                let draft = self.terminals[COUNTER].draft(200, stan).with(2, CARDS[card]).with(3, "500000").with(4, &fen(amount));
                self.ask(COUNTER, draft.with(48, &bill));
            }
            _ => unreachable!("the others move no money"),
        }
    }

    /// Reverses the message of that STAN; `dates` are the reversal's own and the original's.
    fn reverse(&mut self, terminal: usize, stan: u32, original: u32, dates: [Date; 2]) -> Answer {
        let named = format!("0200{original:06}{:04}120000{}", dates[1].month_day(), "0".repeat(22));
        let draft = self.terminals[terminal].draft(420, stan).with(90, &named);
        self.ask_of(terminal, dates[0], draft)
    }

    fn close_batch(&mut self, terminal: usize, stan: u32, batch: u32, is_equal: bool) {
        let ledger = self.authorizer.ledger();
        let index = ledger.registry().terminals.find(&self.terminals[terminal].id).expect("a terminal");
        let row = &ledger.registry().terminals[index];
        let mut totals: Totals =
            if row.batch == batch { row.totals } else { ledger.batches().totals(index, batch).unwrap_or_default() };
        if !is_equal {
            totals.credit(1);
        }
        let draft = self.terminals[terminal].draft(500, stan).with(60, &format!("{batch:06}"));
        let draft = totals.elements().iter().fold(draft, |draft, (element, number)| draft.with(*element, &number.to_string()));
        let before = self.authorizer.ledger().position();
        let code = self.ask(terminal, draft).code();
        // A message that is known already gets its first answer, whatever totals it has.
        if self.authorizer.ledger().position() > before {
            assert_ne!(code, if is_equal { "95" } else { "00" });
        }
    }

    fn take_other(&mut self, step: &Step) {
        let advice = |is_advice: bool| if is_advice { 120 } else { 100 };
        match *step {
            Step::Door(stan, card, act, is_advice) => {
                let draft = self.terminals[GATE].draft(advice(is_advice), stan);
                self.ask(GATE, draft.with(2, CARDS[card]).with(3, &format!("9{act}0000")));
            }
            Step::Loan(stan, card, act, item, is_advice) => {
                let item = sub_element(11, ["QA76.73", "Z", "3"][usize::from(item)]);
                let draft = self.terminals[LIBRARY].draft(advice(is_advice), stan);
                self.ask(LIBRARY, draft.with(2, CARDS[card]).with(3, &format!("9{act}0000")).with(48, &item));
            }
            Step::Report(stan, card, is_found) => {
                let draft = self.terminals[COUNTER].draft(300, stan).with(2, CARDS[card]);
                self.ask(COUNTER, draft.with(91, if is_found { "3" } else { "1" }).with(101, "HOTLIST"));
            }
            Step::BatchClose(terminal, stan, batch, is_equal) => self.close_batch(terminal, stan, batch, is_equal),
            Step::Event(stan, kind) => {
                let text = sub_element(40, &format!("{kind:02}")) + &sub_element(41, "7-301") + &sub_element(42, "2350 W");
                let draft = self.terminals[METER].draft(600, stan).with(48, &text);
                self.ask(METER, draft);
            }
            Step::Reversal(terminal, stan, original) => {
                self.reverse(terminal, stan, original, [self.today(); 2]);
            }
            Step::LateReversal(terminal, stan, original, is_today) => {
                let long_ago = Date(self.today().0 - 21);
                let own = if is_today { self.today() } else { long_ago };
                let answer = self.reverse(terminal, stan, original, [own, long_ago]);
                assert!(is_today || answer.code() != "00");
            }
            Step::Unknown(terminal, stan) => {
                let draft = self.terminals[terminal].draft(100, stan).with(3, "770000");
                self.ask(terminal, draft);
            }
            _ => unreachable!("the others are taken already"),
        }
    }

    /// Takes a step that is no restart.
    pub(crate) fn take(&mut self, step: &Step) {
        match *step {
            Step::SignOn(terminal) => self.sign_on(terminal),
            Step::SignOff(terminal) => {
                self.signed_on += 1;
                let draft = self.terminals[terminal].draft(800, self.signed_on).with(70, "002");
                self.ask(terminal, draft);
            }
            Step::Import(which) => {
                let content = match which % 3 {
                    0 => format!("merchant_id,name,category,fee_bp\nM{which},New,shop,{which}\n"),
                    1 => {
                        let status = ["lost", "active", "frozen", "blacklisted"][usize::from(which) % 4];
                        let header = "card_number,holder_id,class,status,expires,cash,subsidy";
                        format!(
                            "{header}\n1001,S1,student,{status},2027-01-01,0,0\n3{which},N{which},family,active,2027-01-01,9,0\n"
                        )
                    }
                    _ => format!("terminal_id,merchant_id,kind,zone,key\nPOS2,M-SHOP,pos,Z{which},{:032}\n", 2 + which % 2),
                };
                self.import(&content);
            }
            Step::Rules(which) => self.import(&format!("{HEADER}\n{}", RULES[which])),
            Step::Pin(card, is_right) => {
                self.import(&format!("card_number,pin\n{},{}\n", CARDS[card], if is_right { PIN } else { "9999" }));
            }
            Step::Standing(terminal, is_suspended) => {
                let standing = if is_suspended { "suspended" } else { "active" };
                self.import(&format!("terminal_id,standing\n{},{standing}\n", SIGNED_ON[terminal].0));
            }
            Step::NextDay => {
                self.now += DAY;
                self.authorizer.keep_date(self.now);
            }
            Step::Hours(hours) => {
                self.now += DAY / 24 * u64::from(hours);
                self.authorizer.keep_date(self.now);
            }
            Step::Flush => assert_eq!(self.authorizer.log_mut().flush(), self.authorizer.log().position()),
            Step::Submit => {
                self.authorizer.log_mut().submit();
            }
            Step::Restart(_) => unreachable!("a restart needs the storage"),
            Step::Purchase(..)
            | Step::PurchaseWithPin(..)
            | Step::OfflineSale(..)
            | Step::LateSale(..)
            | Step::Hold(..)
            | Step::Completion(..)
            | Step::Void(..)
            | Step::Refund(..)
            | Step::Load(..)
            | Step::Bill(..) => self.take_money(step),
            _ => self.take_other(step),
        }
        self.note();
    }

    /// The same world with a journal that was opened again: `open` gives each record to its closure.
    pub(crate) fn restarted(self, amount_max: u32, open: impl FnOnce(&mut Ledger) -> Result<Journal, JournalError>) -> Self {
        let promised = self.authorizer.log().durable();
        let Self { authorizer, mut digests, .. } = self;
        drop(authorizer);
        let mut ledger = Ledger::new();
        let journal = open(&mut ledger).expect("a sound journal");
        let position = journal.position();
        assert!(position >= promised, "what was durable is there");
        assert_eq!(ledger.position(), position);
        assert_eq!(ledger.digest(), digests[&position], "the state is that of its position");
        digests.split_off(&(position + 1));
        let policy = Policy { amount_max, identity_days: IDENTITY_DAYS, ..Policy::default() };
        let authorizer =
            Authorizer::new(ledger, journal, Settings { policy, ..settings() }, nonces, self.now).expect("its own keys");
        let mut world = Self { authorizer, digests, ..self };
        world.note();
        world
    }
}

pub(crate) fn replaying(ledger: &mut Ledger) -> impl FnMut(u64, &[u8]) -> Result<(), String> {
    |position, record| ledger.replay(position, record).map(|_| ())
}
