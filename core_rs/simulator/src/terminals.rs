//! The terminals: what they ask, how they insist, how they go wrong, and what each of them was told.
//!
//! A terminal keeps what it has not got an answer to and repeats it (MTI's last digit 1), under a new session if need be, or
//! gives it up and reverses it. It also errs: it uses STANs twice, leaves elements out, signs with wrong keys, has a wrong
//! date, vanishes with all its connection and comes back.

use std::fmt;
use std::rc::Rc;

use switch_core::iso8583::Tpdu;

use crate::coverage::Coverage;
use crate::message::{Draft, Key, Original};
use crate::model::{Day, class, month_day};

/// Card numbers that terminals read: known, unknown, and some that a file brings later.
pub const CARDS: [&str; 14] = [
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
];

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
}

/// One terminal.
pub struct Terminal {
    index: usize,
    id: [u8; 8],
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
    done: Vec<Draft>,
    /// A purchase that was reversed before it was sent.
    reversed_ahead: Option<Draft>,
    stan: u32,
    away: u32,
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
    pub fn new(index: usize, id: [u8; 8], master: [u8; 16], merchant: &'static str, connection: usize) -> Self {
        Self {
            index,
            id,
            master,
            merchant,
            connection,
            tpdu: (connection == 0).then_some(Tpdu([0x60, 1, 2, 3, 4])),
            skew_days: 0,
            session: None,
            signing_on: None,
            pending: Vec::new(),
            done: Vec::new(),
            reversed_ahead: None,
            stan: 0,
            away: 0,
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

    fn draft(&mut self, scene: &Scene<'_>, mti: u16) -> Draft {
        self.stan = self.stan % 999_999 + 1;
        Draft::new(mti, self.id, self.stan, scene.time, month_day(scene.today + self.skew_days))
    }

    fn send(&self, request: usize, draft: Draft, key: Key) -> Sent {
        let bytes = draft.frame(self.tpdu, key);
        Sent { request, terminal: self.index, draft, key, tpdu: self.tpdu, bytes, intact: true }
    }

    /// Sends something new and waits for its answer.
    fn ask(&mut self, scene: &mut Scene<'_>, draft: Draft) -> Vec<Sent> {
        *scene.requests += 1;
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
        let sent = self.send(request, draft.clone(), key);
        self.pending.push(Pending { request, draft, tries: 0 });
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
        let is_purchase = pending.draft.mti == 200;
        if !patiently && is_purchase && pending.tries > 1 && scene.rng.u8(..3) == 0 {
            scene.coverage.count("terminal.reversed_unanswered");
            let purchase = self.pending.swap_remove(place).draft;
            return self.reverse(scene, &purchase);
        }
        if !patiently && pending.tries > 5 && pending.draft.mti / 100 != 4 {
            scene.coverage.count("terminal.gave_up");
            let given_up = self.pending.swap_remove(place);
            if self.signing_on.is_some_and(|(request, _)| request == given_up.request) {
                self.signing_on = None;
            }
            return Vec::new();
        }
        scene.coverage.count("terminal.repeated");
        let mut draft = pending.draft.clone();
        if scene.rng.u8(..4) > 0 {
            draft.mti |= 1;
        }
        if scene.rng.u8(..4) == 0 {
            // What is no content may differ.
            (draft.time, draft.nii, draft.batch) = (scene.time, Some(17), Some(3));
        }
        let (request, key) =
            (pending.request, if is_sign_on { Key::SignOn(self.master) } else { self.session.unwrap_or(Key::None) });
        vec![self.send(request, draft, key)]
    }

    fn reverse(&mut self, scene: &mut Scene<'_>, purchase: &Draft) -> Vec<Sent> {
        let mti = if scene.rng.bool() { 400 } else { 420 };
        let mut draft = self.draft(scene, mti);
        match scene.rng.u8(..3) {
            // By its own STAN and date.
            0 => (draft.stan, draft.month_day) = (purchase.stan, purchase.month_day),
            _ => {
                let Draft { mti, stan, month_day, time, .. } = *purchase;
                draft.original = Some(Original { mti, stan, month_day, time });
            }
        }
        if scene.rng.bool() {
            draft.card.clone_from(&purchase.card);
        }
        if scene.rng.u8(..4) == 0 {
            draft.amount = purchase.amount;
        }
        match scene.rng.u8(..24) {
            0 => draft.card = Some(CARDS[scene.rng.usize(..CARDS.len())].to_owned()),
            1 => draft.amount = Some(1),
            2 => draft.merchant = Some(self.merchant),
            _ => {}
        }
        self.ask(scene, draft)
    }

    fn purchase(&mut self, scene: &mut Scene<'_>) -> Draft {
        let mut draft = self.draft(scene, 200);
        let known = scene.rng.u8(..3) > 0;
        draft.card = Some(CARDS[scene.rng.usize(..if known { 6 } else { CARDS.len() })].to_owned());
        draft.processing = Some([0, 0, 0, 1_000, 2_000][scene.rng.usize(..5)]);
        draft.amount = Some(match scene.rng.u8(..24) {
            0 => 0,
            1 => u64::from(scene.amount_max) + 1,
            2 => u64::from(scene.amount_max),
            3 => 999_999_999_999,
            _ => scene.rng.u64(1..700),
        });
        draft.currency = true;
        draft.merchant = Some(self.merchant);
        draft.nii = scene.rng.bool().then_some(3);
        draft.batch = scene.rng.bool().then_some(1);
        draft
    }

    fn begin(&mut self, scene: &mut Scene<'_>) -> Vec<Sent> {
        let kind = scene.rng.u8(..100);
        let draft = match kind {
            0..55 => {
                let mut draft = match self.reversed_ahead.take() {
                    Some(ahead) if scene.rng.bool() => ahead,
                    _ => self.purchase(scene),
                };
                match scene.rng.u8(..60) {
                    0 => draft.currency = false,
                    1 => draft.merchant = Some("M-SOMEBODY"),
                    2 => draft.merchant = None,
                    3 => draft.month_day = [229, 230, 1_231, 101, 1_301][scene.rng.usize(..5)],
                    _ => {}
                }
                draft
            }
            55..65 => {
                let mut draft = self.draft(scene, 100);
                draft.card = Some(CARDS[scene.rng.usize(..CARDS.len())].to_owned());
                draft.processing = Some(310_000);
                draft
            }
            65..77 if !self.done.is_empty() => {
                let purchase = self.done[scene.rng.usize(..self.done.len())].clone();
                return self.reverse(scene, &purchase);
            }
            77..81 => {
                let purchase = self.purchase(scene);
                self.reversed_ahead = Some(purchase.clone());
                return self.reverse(scene, &purchase);
            }
            81..85 if !self.done.is_empty() => {
                scene.coverage.count("terminal.stan_used_twice");
                let before = self.done[scene.rng.usize(..self.done.len())].clone();
                let mut draft = self.purchase(scene);
                (draft.stan, draft.month_day) = (before.stan, before.month_day);
                draft
            }
            85..92 => {
                let (mti, processing) = [
                    (100, Some(300_000)),
                    (220, Some(3_000)),
                    (320, None),
                    (520, None),
                    (700, None),
                    (200, Some(300_000)),
                    (800, None),
                ][scene.rng.usize(..7)];
                let mut draft = self.draft(scene, mti);
                draft.processing = processing;
                draft.network = (mti == 800).then_some(161);
                draft.card = scene.rng.bool().then(|| CARDS[0].to_owned());
                draft
            }
            92..95 => {
                let mut draft = self.draft(scene, 800);
                draft.network = Some(301);
                draft
            }
            95..97 => {
                let mut draft = self.draft(scene, 800);
                draft.network = Some(2);
                draft
            }
            _ => return self.sign_on(scene),
        };
        self.ask(scene, draft)
    }

    /// An answer to one of its requests has arrived: DE39, and the switch's nonce of an approved sign-on.
    pub fn hear(&mut self, request: usize, code: &str, nonce: Option<[u8; 8]>) {
        if code == "63" {
            // The sign-on key may be another by now; a sign-on that is refused is given up and begun again.
            self.session = None;
            if self.signing_on.is_some_and(|(asked, _)| asked == request) {
                self.signing_on = None;
                self.pending.retain(|pending| pending.request != request);
            }
            return;
        }
        if code == "91" {
            return;
        }
        let Some(place) = self.pending.iter().position(|pending| pending.request == request) else { return };
        let draft = self.pending.swap_remove(place).draft;
        if let Some((asked, own)) = self.signing_on
            && asked == request
        {
            self.signing_on = None;
            self.session = nonce.map(|nonce| Key::Session(self.master, (own, nonce)));
        }
        if draft.network == Some(2) && code == "00" {
            self.session = None;
        }
        if draft.mti == 200 && class(draft.mti) == 2 {
            self.done.push(draft);
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
