//! A small college for tests: its parties, its terminals' keys, and messages as a terminal would write them.

#![allow(dead_code, reason = "every test file uses its own part")]

// These are not where the fuzzing takes this college along.
#[cfg(test)]
pub(crate) mod ledger;
#[cfg(test)]
pub(crate) mod world;

use std::cell::Cell;
use std::collections::BTreeMap;

use switch_core::authorizer::{Authorizer, Handled, Log, Replies, Settings};
use switch_core::calendar::{Date, Timestamp};
use switch_core::card_number::CardNumber;
use switch_core::import::import;
use switch_core::iso8583::frame::{self, Split};
use switch_core::iso8583::{Message, Tpdu, Writer};
use switch_core::ledger::{Ledger, Policy};
use switch_core::mac::{KeyEncryptionKey, MacKey, MasterKey};
use switch_core::pin::PinKey;

/// Noon of 2026-11-22 in Shanghai.
pub(crate) const NOON: Timestamp = 1_795_320_000_000_000;
/// Microseconds of a day.
pub(crate) const DAY: Timestamp = 86_400_000_000;
/// The highest amount of one operation, in fen.
pub(crate) const AMOUNT_MAX: u32 = 100_000;
/// Days for which identities are kept.
pub(crate) const IDENTITY_DAYS: u16 = 8;

pub(crate) const MERCHANTS: &str = "merchant_id,name,category,fee_bp
M-CANTEEN,North canteen,canteen,100
M-SHOP,Shop,shop,0
";
pub(crate) const TERMINALS: &str = "terminal_id,merchant_id,kind,zone,key
POS00001,M-CANTEEN,pos,,00000000000000000000000000000001
POS2,M-SHOP,pos,,00000000000000000000000000000002
KIOSK003,M-SHOP,kiosk,,00000000000000000000000000000003
GATE0004,M-SHOP,gate,NORTH,00000000000000000000000000000004
COUNT005,M-CANTEEN,counter,,00000000000000000000000000000005
";
/// Card, holder, class, status, last valid day, opening balances. The business date is 2026-11-22.
pub(crate) const CARDS: &str = "card_number,holder_id,class,status,expires,cash,subsidy
1001,S1,student,active,2027-01-01,1000,500
1002,S2,student,active,2026-11-22,300,0
1003,S3,teacher,active,2027-01-01,1000,9000
1101,L1,student,lost,2027-01-01,1000,500
1102,F1,student,frozen,2027-01-01,1000,500
1103,I1,student,inactive,2027-01-01,1000,500
1104,C1,student,cancelled,2027-01-01,1000,500
1105,X1,student,active,2026-11-21,1000,500
1106,S1,student,lost,2026-11-21,0,0
";

/// What a college may have besides: metered water, a library, meters.
pub(crate) const MORE_MERCHANTS: &str = "merchant_id,name,category,fee_bp
M-BATH,Bath,bath,0
M-LIB,Library,library,0
";
pub(crate) const MORE_TERMINALS: &str = "terminal_id,merchant_id,kind,zone,key
WATER006,M-BATH,water,,00000000000000000000000000000006
LIBRY007,M-LIB,library,,00000000000000000000000000000007
METER008,M-BATH,meter,,00000000000000000000000000000008
";

/// Where the tests' records go; it can be full.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) records: Vec<Vec<u8>>,
    pub(crate) full: bool,
}

impl Log for Memory {
    fn has_room(&self, _bytes: usize) -> bool {
        !self.full
    }
    fn reserve(&mut self, _bytes: usize) -> Result<(), String> {
        if self.full { Err("the disk is full".to_owned()) } else { Ok(()) }
    }
    fn append(&mut self, record: &[u8]) -> u64 {
        assert!(!self.full, "a record is appended only where room was promised");
        self.records.push(record.to_vec());
        self.records.len() as u64
    }
}

pub(crate) fn key_encryption_key() -> KeyEncryptionKey {
    KeyEncryptionKey::new(&[7; KeyEncryptionKey::BYTES])
}

pub(crate) fn settings() -> Settings {
    let policy = Policy { amount_max: AMOUNT_MAX, identity_days: IDENTITY_DAYS, ..Policy::default() };
    Settings { policy, timezone: "Asia/Shanghai".to_owned(), key: key_encryption_key(), accept_date: None }
}

/// Nonces that differ from each other and are the same in every run.
pub(crate) fn nonces() -> [u8; 8] {
    thread_local!(static COUNT: Cell<u64> = const { Cell::new(0) });
    COUNT.with(|count| {
        count.set(count.get() + 1);
        (count.get() | 0xabcd << 48).to_be_bytes()
    })
}

/// An authorizer over an empty ledger, with no party yet.
pub(crate) fn empty<L: Log>(log: L) -> Authorizer<L> {
    Authorizer::new(Ledger::new(), log, settings(), nonces, NOON).expect("the time zone is known")
}

/// An authorizer with the whole college.
pub(crate) fn college<L: Log>(log: L) -> Authorizer<L> {
    let mut authorizer = empty(log);
    for (name, content) in [("merchants.csv", MERCHANTS), ("terminals.csv", TERMINALS), ("cards.csv", CARDS)] {
        import(&mut authorizer, NOON, name, content.as_bytes()).expect("the college's files are right");
    }
    authorizer
}

pub(crate) fn date(text: &str) -> Date {
    Date::parse(text).expect("a date")
}

pub(crate) fn card(digits: &str) -> CardNumber {
    CardNumber::from_digits(digits.as_bytes()).expect("a card number")
}

/// The nonce of every terminal, as its sign-on has it.
const TERMINAL_NONCE: [u8; 8] = 0x0011_2233_4455_6677_u64.to_be_bytes();

/// The switch's nonce in the answer to a sign-on.
fn switch_nonce(answer: &Answer) -> [u8; 8] {
    let private = answer.text(48).expect("DE48 of a sign-on's answer");
    assert_eq!(&private[..4], "0216");
    u64::from_str_radix(&private[4..20], 16).expect("hexadecimal").to_be_bytes()
}

/// A terminal as it stands in the field: its number, its master key, its sessions' keys.
pub(crate) struct Terminal {
    pub(crate) id: [u8; 8],
    pub(crate) master: MasterKey,
    pub(crate) sign_on_key: MacKey,
    pub(crate) key: Option<MacKey>,
}

impl Terminal {
    /// The terminal of this name; `number` is the last digit of its key.
    pub(crate) fn new(name: &str, number: u8) -> Self {
        let mut id = *b"        ";
        id[..name.len()].copy_from_slice(name.as_bytes());
        let mut master = [0; 16];
        master[15] = number;
        let master = MasterKey::new(master);
        Self { id, sign_on_key: master.sign_on_key(&id), master, key: None }
    }

    pub(crate) fn name(&self) -> &str {
        std::str::from_utf8(&self.id).expect("ASCII")
    }

    pub(crate) fn key(&self) -> &MacKey {
        self.key.as_ref().expect("signed on")
    }

    /// A draft of a request of this terminal at noon of the business date.
    pub(crate) fn draft(&self, mti: u16, stan: u32) -> Draft {
        Draft::new(mti).with(11, &format!("{stan:06}")).with(12, "120000").with(13, "1122").with(41, self.name())
    }

    pub(crate) fn sign_on_draft(&self, stan: u32) -> Draft {
        self.draft(800, stan).with(48, "01160011223344556677").with(70, "001")
    }

    /// The session's key that the answer to [`Self::sign_on_draft`] leads to.
    pub(crate) fn session_key(&self, answer: &Answer) -> MacKey {
        self.master.session_mac_key(&self.id, &TERMINAL_NONCE, &switch_nonce(answer))
    }

    /// That session's key of PINs.
    pub(crate) fn pin_key(&self, answer: &Answer) -> PinKey {
        PinKey::new(&self.master.session_pin_key_bytes(&self.id, &TERMINAL_NONCE, &switch_nonce(answer)))
    }

    pub(crate) fn sign_on<L: Log>(&mut self, authorizer: &mut Authorizer<L>, stan: u32) -> Answer {
        let answer = ask(authorizer, &self.sign_on_draft(stan), Some(&self.sign_on_key));
        assert_eq!(answer.code(), "00");
        self.key = Some(self.session_key(&answer));
        answer
    }

    pub(crate) fn purchase(&self, stan: u32, card: &str, amount: u64) -> Draft {
        let merchant = if self.name() == "POS2    " { "M-SHOP" } else { "M-CANTEEN" };
        let draft = self.draft(200, stan).with(2, card).with(3, "000000").with(4, &format!("{amount:012}"));
        draft.with(42, merchant).with(49, "156")
    }

    /// A reversal that names its original in DE90.
    pub(crate) fn reversal(&self, stan: u32, original: u32) -> Draft {
        self.draft(400, stan).with(90, &format!("0200{original:06}1122120000{}", "0".repeat(22)))
    }
}

/// A message before it is written: elements as digits or text.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) mti: u16,
    pub(crate) elements: BTreeMap<u8, String>,
    pub(crate) tpdu: Option<Tpdu>,
}

impl Draft {
    pub(crate) fn new(mti: u16) -> Self {
        Self { mti, elements: BTreeMap::new(), tpdu: None }
    }

    pub(crate) fn with(mut self, element: u8, value: &str) -> Self {
        self.elements.insert(element, value.to_owned());
        self
    }

    pub(crate) fn without(mut self, element: u8) -> Self {
        self.elements.remove(&element);
        self
    }

    pub(crate) fn mti(mut self, mti: u16) -> Self {
        self.mti = mti;
        self
    }

    /// The frame, with a MAC where there is a key.
    pub(crate) fn frame(&self, key: Option<&MacKey>) -> Vec<u8> {
        let mut out = Vec::new();
        let second = self.elements.keys().any(|element| *element > 64);
        let mut writer = Writer::begin(&mut out, self.tpdu, self.mti, second);
        for (element, value) in &self.elements {
            match element {
                2 => writer.card_number(card(value)),
                90 => writer.digits(90, value.as_bytes()),
                3..=31 | 70 | 74..=77 | 86..=89 => writer.number(*element, value.parse().expect("digits")),
                _ => writer.text(*element, value.as_bytes()),
            }
        }
        writer.finish(key);
        out
    }
}

/// In which of the two buffers an answer was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Leaves {
    AtOnce,
    Durable,
}

/// One answer.
pub(crate) struct Answer {
    pub(crate) handled: Handled,
    pub(crate) leaves: Leaves,
    pub(crate) tpdu: Option<Tpdu>,
    /// From the MTI on.
    pub(crate) bytes: Vec<u8>,
}

impl Answer {
    pub(crate) fn message(&self) -> Message<'_> {
        let message = Message::parse(&self.bytes).expect("an answer can be read");
        assert_eq!(message.fault(), None);
        message
    }

    pub(crate) fn text(&self, element: u8) -> Option<String> {
        self.message().text(element).map(|text| String::from_utf8(text.to_vec()).expect("ASCII"))
    }

    pub(crate) fn number(&self, element: u8) -> Option<u64> {
        self.message().number(element)
    }

    pub(crate) fn code(&self) -> String {
        self.text(39).expect("every answer has DE39")
    }

    /// Cash and subsidy of DE54.
    pub(crate) fn purses(&self) -> Option<[i64; 2]> {
        self.text(54).map(|text| {
            assert_eq!(text.len(), 40);
            [(0, "1002156"), (20, "2002156")].map(|(start, head)| {
                let (mark, rest) = text[start..start + 20].split_at(7);
                assert_eq!(mark, head);
                let fen: i64 = rest[1..].parse().expect("digits");
                if rest.starts_with('D') { -fen } else { fen }
            })
        })
    }

    pub(crate) fn has_mac(&self) -> bool {
        self.message().mac().is_some()
    }

    pub(crate) fn is_proved_by(&self, key: &MacKey) -> bool {
        self.message().mac().is_some_and(|(covered, tag)| key.verify(covered, &tag).is_ok())
    }

    /// All but the MTI and the MAC.
    pub(crate) fn body(&self) -> &[u8] {
        &self.bytes[2..self.bytes.len() - 8]
    }
}

/// Takes the one frame off a buffer.
pub(crate) fn unframed(frame: &[u8]) -> (Option<Tpdu>, &[u8]) {
    match frame::split(frame) {
        Split::Frame { tpdu, message, consumed } if consumed == frame.len() => (tpdu, message),
        other => panic!("not one whole frame: {other:?}"),
    }
}

/// Has a frame handled, and checks that there is one answer, in one of the two buffers.
pub(crate) fn ask_frame<L: Log>(authorizer: &mut Authorizer<L>, now: Timestamp, request: &[u8]) -> Answer {
    let (tpdu, message) = unframed(request);
    let mut replies = Replies::default();
    let handled = authorizer.handle(now, tpdu, message, &mut replies).expect("a message that can be read");
    let (leaves, frame) = match (replies.at_once.as_slice(), replies.durable.as_slice()) {
        (frame, []) => (Leaves::AtOnce, frame),
        ([], frame) => (Leaves::Durable, frame),
        _ => panic!("one answer, not two"),
    };
    let (tpdu, message) = unframed(frame);
    let answer = Answer { handled, leaves, tpdu, bytes: message.to_vec() };
    assert_eq!(answer.code(), handled.response.code(), "what is counted is what was answered");
    answer
}

pub(crate) fn ask<L: Log>(authorizer: &mut Authorizer<L>, draft: &Draft, key: Option<&MacKey>) -> Answer {
    ask_frame(authorizer, NOON, &draft.frame(key))
}
