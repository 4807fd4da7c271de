//! The authorizer: a college in memory and a plan of what its terminals send, with the invariants of the switch after each step.
//!
//! The plan may have the right MAC made for whatever bytes it sends, so that the search gets behind the wall that no search
//! guesses its way through. It may also let days pass, fill the disk, and restart the switch.

use std::cell::{Cell, OnceCell};

use switch_core::authorizer::{Authorizer, Handled, Replies};
use switch_core::calendar::{Date, Timestamp};
use switch_core::import::import;
use switch_core::iso8583::frame::{self, Split};
use switch_core::iso8583::{Message, Tpdu};
use switch_core::ledger::accounts::Owner;
use switch_core::ledger::{Ledger, Response};
use switch_core::limits::{CLOSURE_DAYS_MAX, CUTOVER_DAYS_MAX};
use switch_core::mac::MacKey;
use switch_core::stats::Operation;

use crate::Input;
use crate::college::{DAY, Draft, MORE_MERCHANTS, MORE_TERMINALS, Memory, NOON, Terminal, ask, college, settings};

type Core = Authorizer<Memory>;

/// Steps of one plan: enough for every state that the college can get into, few enough for thousands of plans a second.
const STEPS_MAX: usize = 48;
const STANS: u8 = 16;
/// DE48 of the college's sign-ons.
const TERMINAL_NONCE: [u8; 8] = 0x0011_2233_4455_6677_u64.to_be_bytes();
const CARDS: [&str; 10] = ["1001", "1002", "1003", "1101", "1102", "1103", "1104", "1105", "1106", "999"];

thread_local!(static NONCES: Cell<u64> = const { Cell::new(0) });
thread_local!(static BEGUN: OnceCell<Begun> = const { OnceCell::new() });

/// What every plan starts from, worked out once.
struct Begun {
    records: Vec<Vec<u8>>,
    /// The switch's nonce of each terminal's session.
    nonces: Vec<Option<[u8; 8]>>,
}

fn nonces() -> [u8; 8] {
    NONCES.with(|count| {
        count.set(count.get() + 1);
        count.get().to_be_bytes()
    })
}

/// The terminals of the college, none signed on: two tills, a kiosk, a door, a counter, a tap, a library, a meter.
fn terminals() -> Vec<Terminal> {
    let names = ["POS00001", "POS2", "KIOSK003", "GATE0004", "COUNT005", "WATER006", "LIBRY007", "METER008"];
    (1..).zip(names).map(|(number, name)| Terminal::new(name, number)).collect()
}
const TERMINALS: usize = 8;
const GATE: usize = 3;
const COUNTER: usize = 4;
const WATER: usize = 5;
const LIBRARY: usize = 6;
const METER: usize = 7;
/// A policy of everything that a policy can say.
const RULES: &str = "rule,class,category,zone,days,from,to,value
day_max,student,*,,,,,2000
day_count,*,canteen,,,,,20
meal,student,canteen,,,11:00,13:30,9
pin_above,*,shop,,,,,400
surcharge,student,canteen,,,,,1500
surcharge,teacher,*,,,,,-2500
door,student,,NORTH,,,,
anti_passback,,,NORTH,,,,30
";
const PINS: &str = "card_number,pin
1001,4821
1002,0000
";

impl Begun {
    /// The college at noon, all terminals but the kiosk signed on, one purchase made.
    fn new() -> Self {
        let mut core = college(Memory::default());
        for content in [MORE_MERCHANTS, MORE_TERMINALS, RULES, PINS] {
            import(&mut core, NOON, "more.csv", content.as_bytes()).expect("the college's files are right");
        }
        let mut terminals = terminals();
        let mut nonces = vec![None; terminals.len()];
        for terminal in [0, 1, GATE, COUNTER, WATER, LIBRARY, METER] {
            terminals[terminal].sign_on(&mut core, 900_000);
            nonces[terminal] = core.ledger().registry().terminals[terminal as u32].session.current.map(|session| session.switch);
        }
        let purchase = terminals[0].purchase(900_001, "1003", 5);
        ask(&mut core, &purchase, terminals[0].key.as_ref());
        Self { records: core.log().records.clone(), nonces }
    }

    fn open(&self) -> (Core, Vec<Terminal>) {
        let mut terminals = terminals();
        for (terminal, nonce) in terminals.iter_mut().zip(&self.nonces) {
            terminal.key = nonce.map(|nonce| terminal.master.session_mac_key(&terminal.id, &TERMINAL_NONCE, &nonce));
        }
        (restarted(&self.records, NOON), terminals)
    }
}

/// The switch with a college at work, and every terminal that it has.
fn begun() -> (Core, Vec<Terminal>) {
    BEGUN.with(|begun| begun.get_or_init(Begun::new).open())
}

/// The records that lead there.
pub(crate) fn begun_records() -> Vec<Vec<u8>> {
    BEGUN.with(|begun| begun.get_or_init(Begun::new).records.clone())
}

/// What these records make of an empty ledger.
pub(crate) fn replayed(records: &[Vec<u8>]) -> Ledger {
    let mut ledger = Ledger::new();
    for (position, record) in (1..).zip(records) {
        ledger.replay(position, record).expect("its own records");
    }
    ledger
}

/// The switch that finds these records when it starts.
fn restarted(records: &[Vec<u8>], now: Timestamp) -> Core {
    Authorizer::new(replayed(records), Memory { records: records.to_vec(), full: false }, settings(), nonces, now)
        .expect("its own keys")
}

/// How many of [`sample_records`] make a state in which much stands.
pub(crate) const STATE_SAMPLES: usize = 6;

/// Records of one request of each kind, for the targets that read records and states.
pub(crate) fn sample_records() -> Vec<Vec<u8>> {
    let (mut authorizer, terminals) = begun();
    let till = &terminals[0];
    let before = authorizer.log().records.len();
    let number = |place: u64| format!("{:012}", before as u64 + place);
    let drafts = [
        (0, till.purchase(1, "1001", 100)),
        (WATER, operation(&terminals[WATER], 10, 2, "1002", 90)),
        (0, operation(till, 14, 3, "1003", 700)),
        (0, operation(till, 15, 4, "1003", 7).with(37, &number(3))),
        (LIBRARY, operation(&terminals[LIBRARY], 19, 5, "1001", 1)),
        (COUNTER, operation(&terminals[COUNTER], 16, 6, "1001", 500)),
        // Up to here a state, from here on what can be done in it.
        (0, till.purchase(7, "1101", 100)),
        (0, till.reversal(8, 1)),
        (0, till.reversal(9, 77)),
        (0, till.draft(770, 10)),
        (0, till.reversal(11, 4)),
        (0, operation(till, 12, 12, "1003", 700).with(37, &number(3))),
        (WATER, operation(&terminals[WATER], 11, 13, "1002", 40).with(37, &number(2))),
        (WATER, operation(&terminals[WATER], 10, 14, "1002", 40)),
        (COUNTER, operation(&terminals[COUNTER], 17, 15, "1001", 50)),
        (COUNTER, terminals[COUNTER].reversal(16, 6)),
        (GATE, operation(&terminals[GATE], 18, 17, "1001", 1)),
        (LIBRARY, operation(&terminals[LIBRARY], 19, 18, "1001", 4)),
        (COUNTER, operation(&terminals[COUNTER], 20, 19, "1003", 1)),
        (COUNTER, operation(&terminals[COUNTER], 20, 20, "1003", 3)),
        (0, operation(till, 22, 21, "1001", 1)),
        (METER, operation(&terminals[METER], 23, 22, "1001", 1)),
        (0, operation(till, 14, 23, "1003", 100).with(13, "1001")),
        (0, till.draft(800, 24).with(70, "002")),
    ];
    for (terminal, draft) in drafts {
        let decided = authorizer.log().records.len();
        ask(&mut authorizer, &draft, terminals[terminal].key.as_ref());
        assert_eq!(authorizer.log().records.len(), decided + 1, "{draft:?} leaves a record");
    }
    authorizer.keep_date(NOON + 2 * DAY);
    authorizer.log().records[before..].to_vec()
}

/// A message of one of the operations beside purchase, reversal and network management, by its number from 10 on. What else it needs
/// follows from its amount.
fn operation(terminal: &Terminal, number: u8, stan: u32, card: &str, amount: u64) -> Draft {
    let fen = format!("{amount:012}");
    let low = amount % 4;
    let named = |mti: u16, processing: &str| terminal.draft(mti, stan).with(2, card).with(3, processing);
    let money = |mti: u16, processing: &str| named(mti, processing).with(4, &fen);
    let original = |draft: Draft| draft.with(37, &format!("{:012}", amount / 4));
    match number {
        10 => money(100, "000000"),
        11 => original(money(220, "000000").without(2)),
        12 => original(named(200, "020000")).without(2),
        13 => original(money(200, "200000")).without(2),
        14 => terminal.purchase(stan, card, amount).mti(220),
        15 => original(money(200, "200000")),
        16 => money(200, "210000"),
        17 => money(200, "500000").with(48, &format!("30020{}3104B-17", 1 + low)),
        18 => named(if amount & 64 == 0 { 100 } else { 120 }, ["900000", "910000", "920000", "950000"][low as usize]),
        19 => {
            let processing = if low == 0 { "940000" } else { "930000" };
            named(if amount & 64 == 0 { 100 } else { 120 }, processing).with(48, "1104QA76")
        }
        20 => terminal.draft(300, stan).with(2, card).with(91, &low.to_string()).with(101, "HOTLIST"),
        21 => {
            let private = format!("5010{low:010}");
            terminal.draft(300, stan).with(91, "5").with(101, "HOTLIST").with(48, &private)
        }
        22 => {
            let totals = [74, 75, 76, 77, 86, 87, 88, 89].into_iter();
            totals.fold(terminal.draft(500, stan).with(60, &format!("{:06}", 1 + low)), |draft, element| draft.with(element, "0"))
        }
        _ => terminal.draft(600, stan).with(48, &format!("40020{}41047-30", 1 + low)),
    }
}

struct Run {
    core: Core,
    terminals: Vec<Terminal>,
    /// Each terminal's session key before the newest.
    previous: Vec<Option<MacKey>>,
    now: Timestamp,
    /// The business date of [`NOON`].
    first: Date,
    /// The request before: TPDU and message.
    last: Option<(Option<Tpdu>, Vec<u8>)>,
}

/// Which key a request is proved under.
#[derive(Clone, Copy)]
struct Signature {
    terminal: usize,
    /// 0: the session's, 1: the sign-on key, 2: the previous session's, 3: none.
    key: u8,
}

impl Signature {
    fn of(byte: u8) -> Self {
        Self { terminal: usize::from(byte >> 2) % TERMINALS, key: byte & 3 }
    }
}

/// Carries out the plan that `data` is.
pub fn check(data: &[u8]) {
    NONCES.with(|count| count.set(1 << 48));
    let (core, terminals) = begun();
    let first = core.ledger().business_date();
    let mut run = Run { core, first, previous: terminals.iter().map(|_| None).collect(), terminals, now: NOON, last: None };
    let mut input = Input(data);
    for _ in 0..STEPS_MAX {
        if run.step(&mut input).is_none() {
            break;
        }
    }
    run.restart();
}

impl Run {
    /// One step; `None` at the plan's end.
    fn step(&mut self, input: &mut Input<'_>) -> Option<()> {
        match input.byte()? % 8 {
            0..=2 => {
                let (draft, signature) = self.draft(input.array()?);
                let mut message = unframed(&draft.frame(None)).1.to_vec();
                for _ in 0..input.byte()? % 4 {
                    let [at, byte] = input.array()?;
                    let place = usize::from(at) % message.len();
                    message[place] = byte;
                }
                self.send(draft.tpdu, message, signature);
            }
            3 => {
                let [signature, tpdu, high, low] = input.array()?;
                let message = input.bytes(usize::from(u16::from_be_bytes([high & 3, low])));
                let tpdu = (tpdu & 1 == 1).then_some(Tpdu([0x60, 1, 2, 3, tpdu]));
                self.send(tpdu, message.to_vec(), Signature::of(signature));
            }
            4 => {
                // Also back: a clock that is set back changes no date.
                let hours = u64::from(input.byte()?) * 3_600_000_000;
                self.now = (self.now + hours).saturating_sub(DAY);
                let date = self.core.ledger().business_date();
                self.core.keep_date(self.now);
                let after = self.core.ledger().business_date();
                assert!((date..=Date(date.0 + CUTOVER_DAYS_MAX)).contains(&after), "a date moves on, and not far at a time");
                self.hold();
            }
            5 => self.core.log_mut().full ^= true,
            6 => {
                let (tpdu, message) = self.last.clone()?;
                self.handle(tpdu, &message);
            }
            _ => self.restart(),
        }
        Some(())
    }

    /// A request that makes sense, more or less.
    fn draft(&self, [kind, signature, stan, card, amount, more, days, extras, original]: [u8; 9]) -> (Draft, Signature) {
        let signature = Signature::of(signature);
        let till = &self.terminals[signature.terminal];
        let stan = u32::from(stan % STANS);
        let card = CARDS[usize::from(card) % CARDS.len()];
        let amount = u64::from(amount) | u64::from(more) << 8;
        let mut draft = match kind % 24 {
            0..=2 => till.purchase(stan, card, amount).with(3, ["000000", "001000", "002000"][usize::from(kind % 3)]),
            3 => till.reversal(stan, u32::from(original % STANS)),
            4 => till.draft(420, stan).with(2, card).with(4, &format!("{amount:012}")),
            5 => till.sign_on_draft(stan),
            6 => till.draft(800, stan).with(70, "002"),
            7 => till.draft(800, stan).with(70, "301"),
            8 => till.draft(100, stan).with(2, card).with(3, "310000"),
            number @ 10.. => operation(till, number, stan, card, amount),
            _ => till.draft(u16::from(kind) * 37, stan).with(2, card),
        };
        let date = Date((self.core.ledger().business_date().0 + u16::from(days % 16)).saturating_sub(10));
        draft = draft.with(13, &format!("{:04}", date.month_day()));
        if extras & 1 != 0 {
            draft = draft.with(60, &format!("{:06}", extras >> 4)).with(24, "003");
        }
        if extras & 2 != 0 {
            draft = draft.with(42, ["M-CANTEEN", "M-SHOP"][usize::from(extras >> 7)]);
        }
        if extras & 4 != 0 {
            draft.mti = (draft.mti + 1) % 10_000;
        }
        draft.tpdu = (extras & 8 != 0).then_some(Tpdu([0x60, 9, 8, 7, 6]));
        (draft, signature)
    }

    /// Sends a message, its MAC made by `signature`; where it was decided, sends it once more.
    fn send(&mut self, tpdu: Option<Tpdu>, mut message: Vec<u8>, signature: Signature) {
        let terminal = &self.terminals[signature.terminal];
        let key = match signature.key {
            0 => terminal.key.as_ref(),
            1 => Some(&terminal.sign_on_key),
            2 => self.previous[signature.terminal].as_ref(),
            _ => None,
        };
        if let Some(key) = key {
            // Its bit is set first: it covers what it stands behind, wrong as that may be.
            let place = if message.get(2).is_some_and(|first| first & 0x80 != 0) { 17 } else { 9 };
            if let Some(bits) = message.get_mut(place) {
                *bits |= 1;
            }
            message.extend_from_slice(&key.tag(&message));
        }
        let first = self.handle(tpdu, &message);
        if let Some((handled, reply)) = first
            && Message::parse(&reply).is_ok_and(|reply| reply.has(37))
            && handled.operation != Operation::SignOff
        {
            let position = self.core.ledger().position();
            let second = self.handle(tpdu, &message);
            assert_eq!(second, Some((handled, reply)), "a message sent again gets the stored answer");
            assert_eq!(self.core.ledger().position(), position, "and changes nothing");
        }
        self.last = Some((tpdu, message));
    }

    /// Has one message handled, and holds what came of it against what always holds. Gives the reply from its MTI on.
    fn handle(&mut self, tpdu: Option<Tpdu>, message: &[u8]) -> Option<(Handled, Vec<u8>)> {
        // As it comes off the wire: not every message can, and one that begins as TPDUs do is taken for one.
        let before = tpdu.map_or(Vec::new(), |Tpdu(bytes)| bytes.to_vec());
        let frame = [&((before.len() + message.len()) as u16).to_be_bytes()[..], &before, message].concat();
        let Split::Frame { tpdu, message: bytes, .. } = frame::split(&frame) else { return None };
        let (position, digest) = (self.core.ledger().position(), self.core.ledger().digest());
        let mut replies = Replies::default();
        let handled = self.core.handle(self.now, tpdu, bytes, &mut replies);
        self.hold();
        let after = self.core.ledger().position();
        let decided = after == position + 1;
        assert!(decided || (after == position && self.core.ledger().digest() == digest), "what leaves no record changes nothing");
        let Ok(handled) = handled else {
            assert!(replies.at_once.is_empty() && replies.durable.is_empty() && !decided);
            return None;
        };
        assert!(handled.proved || !decided, "what proves nothing decides nothing");
        let echo = handled.operation == Operation::Echo && handled.response == Response::Approved;
        let refused = ["30", "58", "63", "91", "96"].contains(&handled.response.code());
        let (reply, other) = if echo || refused { (replies.at_once, replies.durable) } else { (replies.durable, replies.at_once) };
        assert!(other.is_empty(), "{handled:?} was put in the other lane");
        let request = Message::parse(bytes).expect("what was answered can be read");
        if tpdu.is_none() && (5_990..=5_999).contains(&request.mti()) {
            // The reply's MTI begins with 60, as TPDUs do. No such message exists in ISO 8583:1987.
            return None;
        }
        let (reply_tpdu, reply) = unframed(&reply);
        assert_eq!(reply_tpdu, tpdu.map(Tpdu::reply));
        let answer = Message::parse(reply).expect("a reply can be read");
        self.hold_reply(&request, &answer, handled, decided);
        self.follow(&request, &answer, handled);
        Some((handled, reply.to_vec()))
    }

    fn hold_reply(&self, request: &Message<'_>, answer: &Message<'_>, handled: Handled, decided: bool) {
        assert_eq!((answer.fault(), answer.mti()), (None, (request.mti() + 10) % 10_000));
        assert_eq!(answer.text(39), Some(handled.response.code().as_bytes()));
        for element in [2, 3, 4, 11, 13, 41, 49].into_iter().filter(|&element| element != 2 || request.mti() / 100 != 8) {
            assert_eq!(answer.wire(element), request.wire(element), "DE{element} is echoed");
        }
        let number = answer.text(37).map(|digits| std::str::from_utf8(digits).expect("ASCII").parse::<u64>().expect("digits"));
        let position = self.core.ledger().position();
        assert!(number.is_none_or(|number| (1..=position).contains(&number)), "a transaction number is a record's");
        if decided {
            // An advice or a reversal of long ago is written down, and answered as if it were not.
            let may_be_late = matches!(request.mti() / 10, 12 | 22 | 40 | 42);
            let is_late = number.is_none() && handled.response == Response::InvalidTransaction && may_be_late;
            assert!(is_late || number == Some(position), "what was decided now has the number of its record");
            assert!(handled.response.is_remembered());
        }
        if number.is_none() {
            for element in [12, 24, 42, 60, 70] {
                assert_eq!(answer.wire(element), request.wire(element), "DE{element} is echoed");
            }
        }
        assert_eq!(answer.mac().is_some(), handled.proved, "a reply is proved as its request was");
    }

    /// A terminal takes the answer to its sign-on; and the MAC of an answer is right under one of its keys.
    fn follow(&mut self, request: &Message<'_>, answer: &Message<'_>, handled: Handled) {
        let Some((covered, tag)) = answer.mac() else { return };
        let index = self.terminals.iter().position(|terminal| answer.text(41) == Some(&terminal.id)).expect("only they prove");
        let terminal = &mut self.terminals[index];
        let keys = [Some(&terminal.sign_on_key), terminal.key.as_ref(), self.previous[index].as_ref()];
        assert!(keys.into_iter().flatten().any(|key| key.verify(covered, &tag).is_ok()), "an answer's MAC is its terminal's");
        let nonces = (handled.operation == Operation::SignOn).then(|| (request.sub_element(1), answer.sub_element(2)));
        if let Some((Some(own), Some(switch))) = nonces {
            let nonce = |text: &[u8]| u64::from_str_radix(std::str::from_utf8(text).expect("ASCII"), 16).expect("hexadecimal");
            let key = terminal.master.session_mac_key(&terminal.id, &nonce(own).to_be_bytes(), &nonce(switch).to_be_bytes());
            self.previous[index] = terminal.key.replace(key);
        }
    }

    /// What holds after every step.
    fn hold(&self) {
        let ledger = self.core.ledger();
        assert_eq!(ledger.accounts().sum(), 0);
        assert_eq!(ledger.position(), self.core.log().records.len() as u64);
        for account in 0..ledger.accounts().count() {
            let balance = ledger.accounts().balance(account);
            assert!(
                balance >= 0 || matches!(ledger.accounts().owner(account), Owner::House(_) | Owner::Cash(_)),
                "account {account} owes {balance}"
            );
        }
    }

    /// The switch as the next process would find it: the same records, the same state.
    fn restart(&mut self) {
        assert_eq!(replayed(&self.core.log().records).digest(), self.core.ledger().digest());
        let date = self.core.ledger().business_date();
        let noon = NOON + DAY * u64::from(date.0 - self.first.0);
        if self.now > noon + DAY * u64::from(CLOSURE_DAYS_MAX) {
            // A start would not believe this clock: it is set right first.
            self.now = noon;
        }
        self.core = restarted(&self.core.log().records, self.now);
        self.hold();
    }
}

/// TPDU and message of the one frame.
fn unframed(bytes: &[u8]) -> (Option<Tpdu>, &[u8]) {
    match frame::split(bytes) {
        Split::Frame { tpdu, message, consumed } if consumed == bytes.len() => (tpdu, message),
        other => panic!("not one whole frame: {other:?}"),
    }
}

/// Plans of one request of each kind, of a terminal's whole morning, and of raw messages that the college's till might send.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let session = 0;
    let sign_on = 1;
    let step = |kind: u8, signature: u8, stan: u8, original: u8| vec![0, kind, signature, stan, 0, 100, 0, 10, 0, original, 0];
    let mut seeds: Vec<Vec<u8>> = (0..10).map(|kind| step(kind, u8::from(kind == 5), 1, 0)).collect();
    let by = [WATER, WATER, 0, 0, 0, 0, COUNTER, COUNTER, GATE, LIBRARY, COUNTER, 0, 0, METER];
    seeds.extend((10..).zip(by).map(|(kind, terminal)| step(kind, (terminal as u8) << 2 | session, 1, 0)));
    seeds.push(
        [
            step(0, session, 1, 0),
            vec![6, 4, 48],
            step(3, session, 2, 1),
            step(5, sign_on, 3, 0),
            step(1, session, 4, 0),
            vec![5],
            step(2, session, 5, 0),
            vec![5, 7],
            step(6, session, 6, 0),
            step(8, session, 7, 0),
        ]
        .concat(),
    );
    let (_, terminals) = begun();
    let till = &terminals[0];
    let private = "5010000000000051041001";
    for draft in [
        till.purchase(1, "1001", 100).with(22, "051").with(60, "000001"),
        till.reversal(2, 1).with(2, "1001").with(4, "000000000100"),
        till.sign_on_draft(3),
        till.draft(800, 4).with(70, "301"),
        till.draft(300, 5).with(91, "5").with(101, "HOTLIST").with(48, private),
    ] {
        seeds.push(raw(unframed(&draft.frame(None)).1, u8::from(draft.elements.get(&70).is_some_and(|code| code == "001"))));
    }
    seeds
}

/// The plan that sends one message as it is.
#[must_use]
pub fn raw(message: &[u8], signature: u8) -> Vec<u8> {
    let [high, low] = (message.len() as u16).to_be_bytes();
    [&[3, signature, 0, high, low], message].concat()
}
