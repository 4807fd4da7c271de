//! The terminals: what they ask, how they insist, how they go wrong, and what each of them was told.
//!
//! A terminal keeps what it has not got an answer to and repeats it (MTI's last digit 1), under a new session if need be, or
//! gives it up and reverses it. It also errs: it uses STANs twice, leaves elements out, signs with wrong keys, has a wrong
//! date, vanishes with all its connection and comes back. It keeps the hotlist ([`list`]) and counts its batch ([`till`]) from
//! the answers that it gets.

mod list;
mod orders;
mod till;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;

use switch_core::iso8583::Tpdu;

use crate::coverage::Coverage;
use crate::message::{Draft, Key, Original, Totals};
use crate::model::calendar::Day;
use crate::model::request::{Operation, class};
use list::{OwnList, Progress};
pub use orders::Habits;
use orders::{LOSS, ORDERS, OVERSTEPS, Order};
use till::Till;

/// Card numbers that terminals read: known, unknown, and some that a file brings later. The last but one is a second card of
/// the first one's holder; the last one's purse is as full as a purse may be.
pub const CARDS: [&str; 16] = [
    "1001",
    "1002",
    "1003",
    "1004",
    "00012",
    "6230000000000000017",
    "1101",
    "1102",
    "1103",
    "1104",
    "1105",
    "9999",
    "2001",
    "2002",
    "1501",
    "8801",
];

/// A merchant that no terminal belongs to.
const NOBODY: &str = "M-SOMEBODY";
/// After so many days a date without a year may be the next year's.
const HALF_YEAR_DAYS: Day = 182;

/// The paper that a customer got.
#[derive(Clone, Debug)]
pub struct Receipt {
    number: u64,
    merchant: &'static str,
    operation: Operation,
    card: String,
    amount: u64,
    was_brought: bool,
}

/// What a terminal hears.
#[derive(Debug, Default)]
pub struct Heard {
    /// DE39.
    pub code: String,
    /// DE37.
    pub number: Option<u64>,
    /// DE60.
    pub batch: Option<u32>,
    /// DE48's sub-elements.
    pub private: Vec<(u8, String)>,
    /// DE74 to 77, 86 to 89.
    pub totals: Option<Totals>,
}

/// Something that a terminal has noticed.
pub enum Notice {
    /// Nothing.
    None,
    /// Its hotlist is whole: its version.
    ListRead(u64),
    /// The switch and the terminal have counted differently, and the terminal is sure of its totals.
    Miscounted(String),
}

/// A message as it was sent.
#[derive(Debug)]
pub struct Sent {
    /// The request that it is, repeats included.
    pub request: usize,
    /// The terminal that sent it.
    pub terminal: usize,
    /// What it says.
    pub draft: Draft,
    /// Its key.
    pub key: Key,
    /// Its TPDU.
    pub tpdu: Option<Tpdu>,
    /// The frame.
    pub bytes: Vec<u8>,
    /// Whether the frame says what the draft says.
    pub intact: bool,
}

impl fmt::Display for Sent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = match self.key {
            Key::None => "no key",
            Key::Wrong => "a wrong key",
            Key::SignOn(_) => "its sign-on key",
            Key::Session(..) => "a session's key",
        };
        write!(formatter, "{} under {key}", self.draft)
    }
}

struct Pending {
    request: usize,
    draft: Draft,
    tries: u32,
    /// The day on which it was asked first, by the right clock.
    asked_on: Day,
}

/// What was asked and answered.
struct Done {
    draft: Draft,
    code: String,
}

/// What a terminal's move needs of the world.
pub struct Scene<'a> {
    /// The run's randomness.
    pub rng: &'a mut fastrand::Rng,
    /// The run's counts.
    pub coverage: &'a mut Coverage,
    /// The campus's day by the right clock.
    pub today: Day,
    /// hhmmss by the right clock.
    pub time: u32,
    /// The highest amount of one operation, in fen.
    pub amount_max: u32,
    /// Requests so far.
    pub requests: &'a mut usize,
    /// The papers that customers have.
    pub receipts: &'a mut Vec<Receipt>,
    /// By card, the PINs as their holders know them.
    pub pins: &'a BTreeMap<String, String>,
    /// What this run is like.
    pub habits: &'a Habits,
}

/// One terminal.
pub struct Terminal {
    index: usize,
    /// DE41.
    pub id: [u8; 8],
    /// What it is.
    pub kind: &'static str,
    /// Its master key, as it stands in the terminal.
    pub master: [u8; 16],
    /// Its merchant, as it stands in the terminal.
    pub merchant: &'static str,
    /// The connection that it uses.
    pub connection: usize,
    tpdu: Option<Tpdu>,
    skew_days: Day,
    session: Option<Key>,
    /// The sign-on under way: its request and nonce.
    signing_on: Option<(usize, [u8; 8])>,
    pending: Vec<Pending>,
    done: Vec<Done>,
    till: Till,
    list: OwnList,
    /// Something that was reversed before it was sent.
    reversed_ahead: Option<Draft>,
    stan: u32,
    away: u32,
    /// Whether its batch was closed with nothing done since.
    is_closed: bool,
}

/// What a terminal did.
pub enum Move {
    /// It sent these.
    Sends(Vec<Sent>),
    /// It lost its connection.
    Vanishes,
}

impl Terminal {
    /// A terminal that has not signed on.
    #[must_use]
    pub fn new(index: usize, id: [u8; 8], kind: &'static str, master: [u8; 16], merchant: &'static str, connection: usize) -> Self {
        Self {
            index,
            id,
            kind,
            master,
            merchant,
            connection,
            tpdu: (connection == 0).then_some(Tpdu([0x60, 1, 2, 3, 4])),
            skew_days: 0,
            session: None,
            signing_on: None,
            pending: Vec::new(),
            done: Vec::new(),
            till: Till::new(),
            list: OwnList::default(),
            reversed_ahead: None,
            stan: 0,
            away: 0,
            is_closed: false,
        }
    }

    /// Its clock is wrong by so many days from now on.
    pub fn set_skew(&mut self, days: Day) {
        self.skew_days = days;
    }

    /// It is back, if it was away.
    pub fn come_back(&mut self) {
        self.away = 0;
    }

    /// Whether it waits for an answer.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Its hotlist: its version and its cards.
    #[must_use]
    pub fn hotlist(&self) -> (u64, &BTreeSet<String>) {
        (self.list.version, &self.list.cards)
    }

    fn send(&self, request: usize, draft: Draft, key: Key) -> Sent {
        let bytes = draft.frame(self.tpdu, key);
        Sent { request, terminal: self.index, draft, key, tpdu: self.tpdu, bytes, intact: true }
    }

    /// Sends something new and waits for its answer.
    fn ask(&mut self, scene: &mut Scene<'_>, draft: Draft) -> Vec<Sent> {
        *scene.requests += 1;
        self.is_closed = false;
        let request = *scene.requests;
        let key = if draft.nonce.is_some() {
            self.signing_on = draft.nonce.map(|nonce| (request, nonce));
            Key::SignOn(self.master)
        } else {
            match scene.rng.u8(..40) {
                0 => {
                    scene.coverage.count("terminal.wrong_key");
                    [Key::Wrong, Key::None, Key::SignOn(self.master)][scene.rng.usize(..3)]
                }
                _ => self.session.unwrap_or(Key::None),
            }
        };
        match Operation::of(&draft) {
            Operation::Hotlist => self.list.ask(request),
            Operation::BatchClose => {
                if let (Some(batch), Some(totals)) = (draft.batch, draft.totals) {
                    self.till.begin_close(request, batch, totals);
                }
            }
            _ => {}
        }
        let sent = self.send(request, draft.clone(), key);
        self.pending.push(Pending { request, draft, tries: 0, asked_on: scene.today });
        if scene.rng.u8(..20) == 0 {
            scene.coverage.count("terminal.doubled");
            let bytes = sent.bytes.clone();
            return vec![Sent { draft: sent.draft.clone(), bytes, ..sent }, sent];
        }
        vec![sent]
    }

    /// Its next move.
    pub fn act(&mut self, scene: &mut Scene<'_>) -> Move {
        if self.away > 0 {
            self.away -= 1;
            return Move::Sends(Vec::new());
        }
        if scene.rng.u8(..80) == 0 {
            self.away = scene.rng.u32(1..10);
            scene.coverage.count("terminal.vanished");
            return Move::Vanishes;
        }
        Move::Sends(if self.session.is_none() && self.signing_on.is_none() {
            self.sign_on(scene)
        } else if !self.pending.is_empty() && (self.pending.len() > 2 || scene.rng.bool() || self.session.is_none()) {
            let place = scene.rng.usize(..self.pending.len());
            self.insist(scene, place, false)
        } else {
            self.begin(scene)
        })
    }

    /// Insists on an answer to everything that it waits for, and reverses nothing any more.
    pub fn insist_on_all(&mut self, scene: &mut Scene<'_>) -> Vec<Sent> {
        if self.session.is_none() && self.signing_on.is_none() {
            return self.sign_on(scene);
        }
        (0..self.pending.len()).flat_map(|place| self.insist(scene, place, true)).collect()
    }

    fn sign_on(&mut self, scene: &mut Scene<'_>) -> Vec<Sent> {
        let mut draft = self.draft(scene, 800);
        draft.network = Some(1);
        draft.nonce = Some(scene.rng.u64(..).to_be_bytes());
        self.ask(scene, draft)
    }

    fn insist(&mut self, scene: &mut Scene<'_>, place: usize, patiently: bool) -> Vec<Sent> {
        let is_sign_on = self.pending[place].draft.nonce.is_some();
        if !is_sign_on && self.session.is_none() {
            return Vec::new();
        }
        let pending = &mut self.pending[place];
        pending.tries += 1;
        let tries = pending.tries;
        if scene.today - pending.asked_on > HALF_YEAR_DAYS {
            // DE13 has no year: what was counted then may be counted once more as this year's.
            self.till.give_up(&pending.draft);
        }
        let can_be_reversed = class(pending.draft.mti) == 2 && pending.draft.mti != 120;
        if !patiently && can_be_reversed && tries > 1 && scene.rng.u8(..3) == 0 {
            scene.coverage.count("terminal.reversed_unanswered");
            let original = self.pending.swap_remove(place).draft;
            self.till.doubt(&original);
            return self.reverse(scene, &original);
        }
        if !patiently && tries > 5 && ![4, 5].contains(&class(pending.draft.mti)) {
            scene.coverage.count("terminal.gave_up");
            let given_up = self.pending.swap_remove(place);
            if self.signing_on.is_some_and(|(request, _)| request == given_up.request) {
                self.signing_on = None;
            }
            self.list.give_up(given_up.request);
            self.till.give_up(&given_up.draft);
            return Vec::new();
        }
        scene.coverage.count("terminal.repeated");
        let mut draft = pending.draft.clone();
        if scene.rng.u8(..4) > 0 {
            draft.mti |= 1;
        }
        if scene.rng.u8(..4) == 0 {
            // What is no content may differ.
            (draft.time, draft.nii) = (scene.time, Some(17));
        }
        if class(draft.mti) == 2 && scene.rng.u8(..40) == 0 {
            draft.batch = Some(self.till.open + 1);
            self.till.doubt(&draft);
        }
        let (request, key) =
            (pending.request, if is_sign_on { Key::SignOn(self.master) } else { self.session.unwrap_or(Key::None) });
        vec![self.send(request, draft, key)]
    }

    fn reverse(&mut self, scene: &mut Scene<'_>, reversed: &Draft) -> Vec<Sent> {
        let mti = if scene.rng.bool() { 400 } else { 420 };
        let mut draft = self.draft(scene, mti);
        match scene.rng.u8(..3) {
            // By its own STAN and date.
            0 => (draft.stan, draft.month_day) = (reversed.stan, reversed.month_day),
            _ => {
                let Draft { mti, stan, month_day, time, .. } = *reversed;
                draft.original = Some(Original { mti, stan, month_day, time });
            }
        }
        if scene.rng.bool() {
            draft.card.clone_from(&reversed.card);
        }
        if scene.rng.u8(..4) == 0 {
            draft.amount = reversed.amount;
        }
        draft.batch = scene.rng.bool().then_some(self.till.open);
        match scene.rng.u8(..30) {
            0 => draft.card = Some(CARDS[scene.rng.usize(..CARDS.len())].to_owned()),
            1 => draft.amount = Some(1),
            4 => draft.merchant = Some(NOBODY),
            2 => draft.merchant = Some(self.merchant),
            3 => draft.original = draft.original.map(|original| Original { mti: 800, ..original }),
            _ => {}
        }
        self.ask(scene, draft)
    }

    /// An order that its kind may give, by the run's habits.
    fn choose(&self, scene: &mut Scene<'_>) -> Order {
        let weight = |place: usize| match ORDERS[place] {
            (Order::Asks(operation), _) if !operation.is_allowed_to(self.kind) => 0,
            (_, weight) => weight * scene.habits.weights[place],
        };
        let weights: Vec<u32> = (0..ORDERS.len()).map(weight).collect();
        let mut chosen = scene.rng.u32(..weights.iter().sum::<u32>() + OVERSTEPS);
        for (place, weight) in weights.into_iter().enumerate() {
            if chosen < weight {
                return ORDERS[place].0;
            }
            chosen -= weight;
        }
        Order::Oversteps
    }

    fn begin(&mut self, scene: &mut Scene<'_>) -> Vec<Sent> {
        if self.till.is_closing() {
            return Vec::new();
        }
        if scene.rng.u8(..33) == 0 {
            return self.sign_on(scene);
        }
        let ahead = self.reversed_ahead.take_if(|_| scene.rng.u8(..3) == 0);
        let goes_on = self.list.goes_on() && scene.rng.bool();
        let order = match ahead {
            Some(draft) => return self.ask(scene, draft),
            None if goes_on => Order::Asks(Operation::Hotlist),
            None => self.choose(scene),
        };
        let draft = match order {
            Order::Asks(Operation::BatchClose) if !self.pending.is_empty() => None,
            Order::Asks(Operation::Hotlist) if self.list.waits() => None,
            Order::Asks(operation) => self.order(scene, operation),
            Order::Reverses => {
                let Some(done) = self.done.len().checked_sub(1).map(|last| last - scene.rng.usize(..=last.min(11))) else {
                    return Vec::new();
                };
                // Purchases are many: what is rarer is reversed as often.
                let rarer = scene.rng.bool();
                let approved = |place: &usize| {
                    let Done { draft, code } = &self.done[*place];
                    code == "00" && class(draft.mti) == 2 && !(rarer && Operation::of(draft) == Operation::Purchase)
                };
                let place = (done..self.done.len()).find(approved).filter(|_| scene.rng.u8(..4) > 0).unwrap_or(done);
                let original = self.done[place].draft.clone();
                return self.reverse(scene, &original);
            }
            Order::ReversesAhead => {
                let orders = [Operation::Purchase, Operation::Load, Operation::Bill, Operation::Hold, Operation::Refund]
                    .into_iter()
                    .chain([Operation::OfflineSale, Operation::Completion, Operation::Void, Operation::Enter, Operation::Borrow])
                    .chain([Operation::Advice(950_000), Operation::Leave, Operation::Return, Operation::Attendance]);
                let able: Vec<Operation> = orders.filter(|order| order.is_allowed_to(self.kind)).collect();
                let Some(operation) = (!able.is_empty()).then(|| able[scene.rng.usize(..able.len())]) else { return Vec::new() };
                let Some(draft) = self.order(scene, operation) else { return Vec::new() };
                self.reversed_ahead = Some(draft.clone());
                return self.reverse(scene, &draft);
            }
            Order::UsesStanTwice if !self.done.is_empty() => {
                scene.coverage.count("terminal.stan_used_twice");
                let place = scene.rng.usize(..self.done.len());
                let (stan, month_day) = (self.done[place].draft.stan, self.done[place].draft.month_day);
                let reports = class(self.done[place].draft.mti) == 3;
                let orders = if reports { LOSS..=LOSS + 1 } else { 0..=LOSS - 1 };
                let Order::Asks(operation) = ORDERS[scene.rng.usize(orders)].0 else { return Vec::new() };
                let draft = self.order(scene, operation);
                draft.map(|draft| Draft { stan, month_day, ..draft })
            }
            Order::UsesStanTwice => None,
            Order::Errs => Some(self.erring(scene)),
            Order::Oversteps => {
                let Order::Asks(operation) = ORDERS[scene.rng.usize(..28)].0 else { return Vec::new() };
                let quiet = [Operation::Hotlist, Operation::BatchClose].contains(&operation);
                if quiet { None } else { self.order(scene, operation) }
            }
        };
        draft.map_or_else(Vec::new, |draft| self.ask(scene, draft))
    }

    /// At the end: reads the hotlist until it is whole, and closes its batch.
    pub fn wind_up(&mut self, scene: &mut Scene<'_>, whole: u64) -> Vec<Sent> {
        if self.is_waiting() {
            return self.insist_on_all(scene);
        }
        if self.session.is_none() {
            return self.sign_on(scene);
        }
        if self.list.goes_on() || self.list.version != whole {
            let mut draft = self.draft(scene, 300);
            self.list.fill(&mut draft);
            return self.ask(scene, draft);
        }
        if self.is_closed {
            return Vec::new();
        }
        let mut draft = self.draft(scene, 500);
        (draft.batch, draft.totals) = (Some(self.till.open), Some(self.till.totals(self.till.open)));
        self.ask(scene, draft)
    }

    /// Whether it has nothing more to do at the end.
    #[must_use]
    pub fn is_wound_up(&self, whole: u64) -> bool {
        self.is_closed && !self.is_waiting() && self.list.version == whole && !self.list.goes_on()
    }

    /// An answer to one of its requests has arrived.
    pub fn hear(&mut self, request: usize, heard: &Heard, receipts: &mut Vec<Receipt>, coverage: &mut Coverage) -> Notice {
        let code = heard.code.as_str();
        if code == "63" {
            // The sign-on key may be another by now; a sign-on that is refused is given up and begun again.
            self.session = None;
            if self.signing_on.is_some_and(|(asked, _)| asked == request) {
                self.signing_on = None;
                self.pending.retain(|pending| pending.request != request);
            }
            return Notice::None;
        }
        if code == "91" {
            return Notice::None;
        }
        let Some(place) = self.pending.iter().position(|pending| pending.request == request) else { return Notice::None };
        let draft = self.pending.swap_remove(place).draft;
        let mut notice = Notice::None;
        match Operation::of(&draft) {
            Operation::SignOn => {
                if let Some((_, own)) = self.signing_on.take_if(|(asked, _)| *asked == request) {
                    let nonce = heard.private.iter().find(|(tag, _)| *tag == 2);
                    let nonce = nonce.and_then(|(_, text)| u64::from_str_radix(text, 16).ok());
                    self.session = nonce.map(|nonce| Key::Session(self.master, (own, nonce.to_be_bytes())));
                }
            }
            Operation::SignOff if code == "00" => self.session = None,
            Operation::Hotlist => match self.list.hear(request, heard) {
                Progress::None => {}
                Progress::Anew => coverage.count("hotlist.read_anew"),
                Progress::Whole => notice = Notice::ListRead(self.list.version),
            },
            Operation::BatchClose => match self.till.hear_close(request, &draft, heard) {
                Ok(sure) => {
                    self.is_closed = code == "00";
                    if sure {
                        coverage.count("terminal.counted_alike");
                    }
                }
                Err(difference) => notice = Notice::Miscounted(difference),
            },
            operation => {
                self.till.note(&draft, heard, self.merchant, Self::voided(receipts, &draft));
                self.keep_receipt(operation, &draft, heard, receipts);
            }
        }
        if class(draft.mti) == 2 || matches!(draft.update, Some('1' | '3')) {
            self.done.push(Done { draft, code: code.to_owned() });
        }
        notice
    }

    /// What the original of a void was about, where its paper is known.
    fn voided(receipts: &[Receipt], draft: &Draft) -> Option<u64> {
        let number: u64 = draft.number.as_ref()?.parse().ok()?;
        receipts.iter().find(|receipt| receipt.number == number).map(|receipt| receipt.amount)
    }

    /// The customer gets a paper, by which the terminals of the merchant know the transaction.
    fn keep_receipt(&mut self, operation: Operation, draft: &Draft, heard: &Heard, receipts: &mut Vec<Receipt>) {
        let Some(number) = heard.number.filter(|_| heard.code == "00" && class(draft.mti) == 2) else { return };
        if receipts.iter().any(|receipt| receipt.number == number) {
            return;
        }
        let of_original = draft.number.as_ref().and_then(|text| text.parse::<u64>().ok());
        let original = receipts.iter().find(|receipt| Some(receipt.number) == of_original);
        let card = draft.card.clone().or_else(|| original.map(|original| original.card.clone()));
        let (card, amount) = (card.unwrap_or_default(), draft.amount.unwrap_or(0));
        if !card.is_empty() {
            receipts.push(Receipt { number, merchant: self.merchant, operation, card, amount, was_brought: false });
        }
    }
}

/// A frame with one bit of its message turned over.
#[must_use]
pub fn corrupted(sent: &Sent, rng: &mut fastrand::Rng) -> Rc<Sent> {
    let mut bytes = sent.bytes.clone();
    let start = 2 + if sent.tpdu.is_some() { 5 } else { 0 };
    let at = rng.usize(start..bytes.len());
    bytes[at] ^= 1 << rng.u8(..8);
    Rc::new(Sent { draft: sent.draft.clone(), bytes, intact: false, ..*sent })
}
