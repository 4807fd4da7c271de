//! What a terminal does: its keys, its requests, and its mistrust of every answer.
//!
//! Always true here: a request is encoded and its MAC made when it is sent, as a till does it, never before; an answer is
//! good only if its MAC proves it and every element says what this terminal asked for; what was asked for under one number is
//! counted once, however often it was asked.

use switch_core::calendar::{CampusCalendar, Timestamp};
use switch_core::card_number::CardNumber;
use switch_core::iso8583::{Message, Writer};
use switch_core::ledger::Response;
use switch_core::mac::{MacKey, MasterKey};

use crate::Failure;
use crate::campus::Till;

/// Fen; with the cards' opening balances nobody runs out of money within a run.
pub(crate) const AMOUNT_MAX: u64 = 2_000;

/// The last STAN of a day.
pub(crate) const STAN_MAX: u32 = 999_999;
/// What is wrong where there is none left.
pub(crate) const SPENT: &str = "a terminal has used its 999,999 numbers of a day; drive more terminals";

const MAC_BYTES: usize = 8;
const MTI_BYTES: usize = 2;

/// Answers that say something about the card or the amount, so that nothing is wrong with the switch: 13, 14, 41, 62, 78, 54 and 51.
const DECLINES: [Response; 7] = [
    Response::InvalidAmount,
    Response::NoSuchCard,
    Response::CardLost,
    Response::CardFrozen,
    Response::CardInactive,
    Response::CardExpired,
    Response::InsufficientFunds,
];

/// The moment that a request carries: DE13 (MMDD) and DE12 (hhmmss), in the time zone of the campus, which is UTC here.
#[derive(Clone, Copy)]
pub(crate) struct Stamp {
    date: u16,
    time: u32,
}

/// Gives stamps; works one out once a second.
pub(crate) struct Clock {
    calendar: CampusCalendar,
    second: u64,
    stamp: Stamp,
}

impl Clock {
    pub(crate) fn new() -> Result<Self, Failure> {
        Ok(Self { calendar: CampusCalendar::new("UTC")?, second: 0, stamp: Stamp { date: 101, time: 0 } })
    }

    pub(crate) fn stamp(&mut self, now: Timestamp) -> Stamp {
        let second = now / 1_000_000;
        if second != self.second {
            self.second = second;
            let of_day = (second % 86_400) as u32;
            let time = of_day / 3_600 * 10_000 + of_day / 60 % 60 * 100 + of_day % 60;
            self.stamp = Stamp { date: self.calendar.date(now).month_day(), time };
        }
        self.stamp
    }
}

/// What can be asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Operation {
    /// 0200.
    Purchase = 0,
    /// 0100.
    Balance = 1,
    /// 0400 of an earlier purchase.
    Reversal = 2,
    /// An earlier purchase's request once more, as 0200 or 0201.
    Repeat = 3,
    /// 0200 with DE3 210000: cash for the purse. Replays alone ask for it, because only a counter may.
    Load = 4,
}

impl Operation {
    pub(crate) const ALL: [Self; 5] = [Self::Purchase, Self::Balance, Self::Reversal, Self::Repeat, Self::Load];
    /// What a mix may have.
    pub(crate) const MIXED: [Self; 4] = [Self::Purchase, Self::Balance, Self::Reversal, Self::Repeat];

    pub(crate) const fn name(self) -> &'static str {
        ["purchase", "balance", "reversal", "repeat", "load"][self as usize]
    }

    /// DE3; that of a reversal and a repeat is their purchase's.
    const fn processing(self) -> u64 {
        match self {
            Self::Balance => 310_000,
            Self::Load => 210_000,
            Self::Purchase | Self::Reversal | Self::Repeat => 0,
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.name() == name)
    }
}

/// What a terminal is told to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Errand {
    Purchase {
        card: CardNumber,
        /// Fen.
        amount: u64,
    },
    Balance {
        card: CardNumber,
    },
    Load {
        card: CardNumber,
        /// Fen.
        amount: u64,
    },
    /// Of its newest purchase whose money is still with the merchant, or else of its newest.
    Reversal,
    /// Of one of its purchases.
    Repeat,
}

impl Errand {
    /// A purchase for some yuan.
    #[inline]
    pub(crate) fn purchase(card: CardNumber, chance: &mut fastrand::Rng) -> Self {
        Self::Purchase { card, amount: chance.u64(1..=AMOUNT_MAX) }
    }
}

/// A purchase that was decided and may be reversed or repeated.
pub(crate) struct Decided {
    stan: u32,
    stamp: Stamp,
    card: CardNumber,
    amount: u64,
    response: Response,
    /// Whether its money is still with the merchant.
    stands: bool,
    /// Its answer without MTI and MAC: what a repeat is answered.
    answer: Vec<u8>,
}

/// A request that has no answer yet.
pub(crate) struct Request {
    /// DE11.
    pub(crate) stan: u32,
    mti: u16,
    pub(crate) operation: Operation,
    /// Which terminal asked, by the driver's count.
    pub(crate) seat: u32,
    /// When it was to be sent, by the driver's clock, in nanoseconds.
    pub(crate) due: u64,
    /// Fen; of a reversal or repeat the purchase's.
    amount: u64,
    card: CardNumber,
    stamp: Stamp,
    /// The purchase that is reversed or repeated. It is out of the terminal's memory until the answer has come.
    original: Option<Box<Decided>>,
}

impl Request {
    pub(crate) const fn card(&self) -> CardNumber {
        self.card
    }

    /// The fen that an answer has moved: a purchase's or a load's amount, or what a reversal gave back.
    pub(crate) fn moved(&self, response: Response) -> u64 {
        match (self.operation, &self.original) {
            (Operation::Purchase | Operation::Load, _) if response == Response::Approved => self.amount,
            (Operation::Reversal, Some(original)) if original.stands => original.amount,
            _ => 0,
        }
    }
}

/// What an answer says.
#[derive(Clone, Copy)]
pub(crate) struct Said {
    /// DE39.
    pub(crate) response: Response,
    /// DE37; 0 where there is none.
    transaction: u64,
}

impl Said {
    /// What the echo's answers stand for.
    pub(crate) const APPROVED: Self = Self { response: Response::Approved, transaction: 0 };
}

/// What a terminal's answers come to: what the ledger must hold of it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Totals {
    /// Purchases approved, repeats not counted.
    pub(crate) approved: u64,
    pub(crate) approved_fen: u64,
    /// Reversals that gave money back.
    pub(crate) reversed: u64,
    pub(crate) reversed_fen: u64,
    /// Decisions that the journal has a record of, the sign-on too.
    pub(crate) records: u64,
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.approved += other.approved;
        self.approved_fen += other.approved_fen;
        self.reversed += other.reversed;
        self.reversed_fen += other.reversed_fen;
        self.records += other.records;
    }
}

/// One terminal with its session.
pub(crate) struct Terminal {
    id: [u8; 8],
    merchant: [u8; 15],
    master: MasterKey,
    nonce: [u8; 8],
    /// The sign-on key, then the session's.
    key: MacKey,
    stan: u32,
    /// DE37 of the newest decision.
    transaction: u64,
    totals: Totals,
    memory: Memory,
    remembered: Vec<Decided>,
}

/// What a terminal keeps of its purchases, to reverse or repeat one of them.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    /// How many; of the newest.
    pub(crate) purchases: usize,
    /// Their answers too, which a repeat must get again.
    pub(crate) answers: bool,
}

impl Memory {
    pub(crate) const NONE: Self = Self { purchases: 0, answers: false };
}

impl Terminal {
    pub(crate) fn new(till: &Till, memory: Memory) -> Self {
        let nonce = fastrand::u64(..).to_be_bytes();
        Self {
            id: till.id,
            merchant: till.merchant,
            master: till.key.clone(),
            nonce,
            key: till.key.sign_on_key(&till.id),
            stan: 0,
            transaction: 0,
            totals: Totals::default(),
            memory,
            remembered: Vec::new(),
        }
    }

    pub(crate) const fn id(&self) -> &[u8; 8] {
        &self.id
    }

    pub(crate) fn merchant(&self) -> String {
        String::from_utf8_lossy(self.merchant.trim_ascii_end()).into_owned()
    }

    pub(crate) const fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Writes the request for a session.
    pub(crate) fn sign_on(&mut self, stamp: Stamp, out: &mut Vec<u8>) {
        self.stan += 1;
        let mut request = Writer::begin(out, None, 800, true);
        request.number(11, u64::from(self.stan));
        request.number(12, u64::from(stamp.time));
        request.number(13, u64::from(stamp.date));
        request.text(41, &self.id);
        request.text(42, &self.merchant);
        request.text(48, format!("0116{:016X}", u64::from_be_bytes(self.nonce)).as_bytes());
        request.number(70, 1);
        request.finish(Some(&self.key));
    }

    /// Takes the answer to [`Self::sign_on`]; from here on the session's key proves messages.
    pub(crate) fn signed_on(&mut self, reply: &[u8]) -> Result<(), Failure> {
        let message = Message::parse(reply)?;
        let proved = message.mac().is_some_and(|(covered, tag)| self.key.verify(covered, &tag).is_ok());
        let nonce = message.sub_element(2).and_then(|text| u64::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok());
        match nonce {
            Some(nonce) if proved && message.text(39) == Some(b"00") => {
                self.key = self.master.session_mac_key(&self.id, &self.nonce, &nonce.to_be_bytes());
                self.totals.records += 1;
                Ok(())
            }
            _ => {
                let code = message.text(39).map_or("none".into(), String::from_utf8_lossy);
                let proof = if proved { "good" } else { "wrong" };
                Err(format!("a sign-on was answered {message:?}, response code {code}, MAC {proof}").into())
            }
        }
    }

    /// Whether there is no number left for another request today.
    pub(crate) const fn is_spent(&self) -> bool {
        self.stan >= STAN_MAX
    }

    /// Whether there is a purchase whose money a reversal would give back.
    pub(crate) fn can_reverse(&self) -> bool {
        self.remembered.iter().any(|purchase| purchase.stands)
    }

    /// Whether there is a purchase to repeat.
    pub(crate) const fn can_repeat(&self) -> bool {
        !self.remembered.is_empty()
    }

    /// Writes a request.
    ///
    /// # Panics
    /// If it is a reversal or a repeat and nothing is remembered, or there is no number left.
    #[inline]
    pub(crate) fn ask(&mut self, errand: &Errand, stamp: Stamp, due: u64, out: &mut Vec<u8>) -> Request {
        let (operation, mti, card, amount) = match *errand {
            Errand::Purchase { card, amount } => (Operation::Purchase, 200, card, amount),
            Errand::Balance { card } => (Operation::Balance, 100, card, 0),
            Errand::Load { card, amount } => (Operation::Load, 200, card, amount),
            Errand::Reversal => return self.ask_of_earlier(Operation::Reversal, stamp, due, out),
            Errand::Repeat => return self.ask_of_earlier(Operation::Repeat, stamp, due, out),
        };
        let request = Request { stan: self.next_stan(), mti, operation, seat: 0, due, amount, card, stamp, original: None };
        self.write(&request, out);
        request
    }

    #[inline(never)]
    fn ask_of_earlier(&mut self, operation: Operation, stamp: Stamp, due: u64, out: &mut Vec<u8>) -> Request {
        let newest = self.remembered.len().checked_sub(1).expect("there is a purchase to reverse or to repeat");
        let place = match operation {
            Operation::Repeat => fastrand::usize(..=newest),
            _ => self.remembered.iter().rposition(|purchase| purchase.stands).unwrap_or(newest),
        };
        let original = self.remembered.remove(place);
        let (card, amount) = (original.card, original.amount);
        let (stan, mti, stamp) = match operation {
            Operation::Repeat => (original.stan, 200 + u16::from(fastrand::bool()), original.stamp),
            _ => (self.next_stan(), 400, stamp),
        };
        let request = Request { stan, mti, operation, seat: 0, due, amount, card, stamp, original: Some(Box::new(original)) };
        self.write(&request, out);
        request
    }

    fn next_stan(&mut self) -> u32 {
        assert!(!self.is_spent(), "{SPENT}");
        self.stan += 1;
        self.stan
    }

    #[inline]
    fn write(&self, request: &Request, out: &mut Vec<u8>) {
        let reversed = request.original.as_ref().filter(|_| request.operation == Operation::Reversal);
        let balance = request.operation == Operation::Balance;
        let mut message = Writer::begin(out, None, request.mti, reversed.is_some());
        message.card_number(request.card);
        message.number(3, request.operation.processing());
        if !balance {
            message.number(4, request.amount);
        }
        message.number(11, u64::from(request.stan));
        message.number(12, u64::from(request.stamp.time));
        message.number(13, u64::from(request.stamp.date));
        message.text(41, &self.id);
        message.text(42, &self.merchant);
        message.text(49, b"156");
        if let Some(original) = reversed {
            let Stamp { date, time } = original.stamp;
            message.digits(90, format!("0200{:06}{date:04}{time:06}{:022}", original.stan, 0).as_bytes());
        }
        message.finish(Some(&self.key));
    }

    /// What an answer says, or what is wrong with it. All of it is looked at whatever is wrong first (`&`, not `&&`), so that a
    /// bare echo's answers cost the driver the same.
    #[inline]
    pub(crate) fn mistrust(&self, request: &Request, reply: &Message<'_>) -> Result<Said, &'static str> {
        let number = |element: u8, expected: u64| reply.number(element) == Some(expected);
        let code = reply.text(39).unwrap_or_default();
        let response = if code == b"00" {
            Some(Response::Approved)
        } else {
            Response::ALL.into_iter().find(|response| response.code().as_bytes() == code)
        };
        let approved = response == Some(Response::Approved);
        let balance = request.operation == Operation::Balance;
        let transaction = reply.text(37).and_then(number_of);
        let content = number(3, request.operation.processing()) & if balance { !reply.has(4) } else { number(4, request.amount) };
        let numbers = if balance {
            !reply.has(37) && !reply.has(38)
        } else {
            transaction.is_some() && reply.text(38) == reply.text(37).map(|digits| &digits[6..]).filter(|_| approved)
        };
        // An undone purchase with an unknown card has no purses to show.
        let stranger = request.original.as_ref().is_some_and(|original| original.response == Response::NoSuchCard);
        let purses = if approved && !stranger { reply.text(54).is_some_and(are_purses) } else { !reply.has(54) };
        let checks = [
            (reply.mac().is_some_and(|(covered, tag)| self.key.verify(covered, &tag).is_ok()), "its MAC proves nothing"),
            ((reply.mti() == request.mti + 10) & reply.fault().is_none(), "it is no reply to such a request"),
            (number(11, request.stan.into()) & number(13, request.stamp.date.into()), "it answers another request"),
            (content & (reply.card_number() == Some(request.card)), "it has another content"),
            (number(12, request.stamp.time.into()) & (reply.text(49) == Some(b"156")), "its time or currency is another"),
            ((reply.text(41) == Some(&self.id)) & (reply.text(42) == Some(&self.merchant)), "it is for another terminal"),
            (response.is_some(), "its response code is none"),
            (!response.is_some_and(Response::is_remembered) || numbers, "its numbers do not agree"),
            (reply.has(15) & purses, "date or balances are missing or wrong"),
        ];
        let fault = checks.into_iter().find(|(good, _)| !good).map(|(_, fault)| fault);
        match (fault, response) {
            (None, Some(response)) => Ok(Said { response, transaction: transaction.unwrap_or_default() }),
            (fault, _) => Err(fault.unwrap_or("its response code is none")),
        }
    }

    /// Holds a proved answer against what this terminal knows of the request, beyond what the request itself said: whether this
    /// response may come, that a repeat is answered as the first was, that transaction numbers rise. `message` is the answer's
    /// bytes from the MTI on.
    #[inline]
    pub(crate) fn disbelieve(&self, request: &Request, said: Said, message: &[u8], allow_declines: bool) -> Option<&'static str> {
        let response = said.response;
        let first = matches!(request.operation, Operation::Purchase | Operation::Balance | Operation::Load);
        if response != Response::Approved && !(first && allow_declines && DECLINES.contains(&response)) {
            let repeated = request.original.as_ref().filter(|_| request.operation == Operation::Repeat);
            if repeated.is_none_or(|original| original.response != response) {
                return Some("it is not approved");
            }
        }
        match (request.operation, &request.original) {
            (Operation::Repeat, Some(original)) if original.answer != content_of(message) => {
                Some("a repeat is answered otherwise than the first")
            }
            (Operation::Purchase | Operation::Reversal | Operation::Load, _) if said.transaction <= self.transaction => {
                Some("its transaction number does not rise")
            }
            _ => None,
        }
    }

    /// Takes note of an answer that was found good.
    #[inline]
    pub(crate) fn take(&mut self, request: Request, said: Said, message: &[u8]) {
        let response = said.response;
        match request.operation {
            Operation::Purchase => {
                let approved = response == Response::Approved;
                self.transaction = said.transaction;
                self.totals.records += 1;
                if approved {
                    self.totals.approved += 1;
                    self.totals.approved_fen += request.amount;
                }
                if self.memory.purchases > 0 {
                    let answer = if self.memory.answers { content_of(message).to_vec() } else { Vec::new() };
                    let Request { stan, stamp, card, amount, .. } = request;
                    self.remember(Decided { stan, stamp, card, amount, response, stands: approved, answer });
                }
            }
            Operation::Balance => {}
            Operation::Load => {
                self.transaction = said.transaction;
                self.totals.records += 1;
            }
            Operation::Reversal => {
                self.transaction = said.transaction;
                self.totals.records += 1;
                let mut original = request.original.expect("a reversal has an original");
                if original.stands {
                    original.stands = false;
                    self.totals.reversed += 1;
                    self.totals.reversed_fen += original.amount;
                }
                self.remember(*original);
            }
            Operation::Repeat => self.remember(*request.original.expect("a repeat has an original")),
        }
    }

    /// In the order of their numbers, so that the newest is last; without more room the oldest goes.
    fn remember(&mut self, decided: Decided) {
        let place = self.remembered.partition_point(|other| other.stan < decided.stan);
        self.remembered.insert(place, decided);
        if self.remembered.len() > self.memory.purchases {
            self.remembered.remove(0);
        }
    }
}

/// An answer without MTI and MAC.
fn content_of(message: &[u8]) -> &[u8] {
    message.get(MTI_BYTES..message.len().saturating_sub(MAC_BYTES)).unwrap_or_default()
}

/// The number that twelve digits say.
#[inline]
fn number_of(text: &[u8]) -> Option<u64> {
    let digits: &[u8; 12] = text.try_into().ok()?;
    // Without a way out in the middle, so that it is a few wide instructions.
    let decimal = digits.iter().fold(true, |decimal, digit| decimal & digit.is_ascii_digit());
    decimal.then(|| digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit & 15)))
}

/// Whether DE54 has a cash purse and a subsidy purse.
#[inline]
fn are_purses(text: &[u8]) -> bool {
    let is = |purse: &[u8; 20], kind: &[u8; 7]| {
        purse[..7] == *kind
            && matches!(purse[7], b'C' | b'D')
            && purse[8..].iter().fold(true, |all, digit| all & digit.is_ascii_digit())
    };
    match text.as_chunks::<20>() {
        ([cash, subsidy], []) => is(cash, b"1002156") && is(subsidy, b"2002156"),
        _ => false,
    }
}

/// A purchase's answer with its frame, as long as the switch's: what the bare echo sends.
pub(crate) fn sample_reply() -> Vec<u8> {
    let mut out = Vec::new();
    let mut reply = Writer::begin(&mut out, None, 210, false);
    reply.card_number(CardNumber::from_digits(b"6230000000000017").expect("sixteen digits"));
    for (element, value) in [(3, 0), (4, 850), (11, 2), (12, 120_501), (13, 1_122), (15, 1_122)] {
        reply.number(element, value);
    }
    let texts: [(u8, &[u8]); 7] = [
        (37, b"000000000001"),
        (38, b"000001"),
        (39, b"00"),
        (41, b"T0000001"),
        (42, b"M00000000000001"),
        (49, b"156"),
        (54, b"1002156C0000000099992002156C000000000000"),
    ];
    for (element, text) in texts {
        reply.text(element, text);
    }
    reply.finish(Some(&MacKey::new(&[0; 16])));
    out
}
