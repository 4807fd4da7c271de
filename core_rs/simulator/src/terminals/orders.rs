//! What terminals ask: drafts of each operation, right ones and spoilt ones.

use super::{CARDS, Done, NOBODY, Receipt, Scene, Terminal};
use crate::message::{Draft, PinEntry};
use crate::model::calendar::month_day;
use crate::model::request::Operation;

/// What libraries lend.
const ITEMS: [&str; 4] = ["QA76.9/17", "TS1080", "K-7", "A0"];

/// What a terminal may set out to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Order {
    /// An operation.
    Asks(Operation),
    /// A reversal of something that was answered.
    Reverses,
    /// A reversal of something that will be sent only later.
    ReversesAhead,
    /// A STAN that was used before.
    UsesStanTwice,
    /// Something that the switch does not know, or that cannot be read.
    Errs,
    /// Something that its kind may not do.
    Oversteps,
}

/// How often each is done by a terminal that may do it.
pub(super) const ORDERS: [(Order, u32); 32] = [
    (Order::Asks(Operation::Purchase), 30),
    (Order::Asks(Operation::OfflineSale), 9),
    (Order::Asks(Operation::Void), 7),
    (Order::Asks(Operation::Refund), 16),
    (Order::Asks(Operation::Load), 12),
    (Order::Asks(Operation::Bill), 12),
    (Order::Asks(Operation::Hold), 20),
    (Order::Asks(Operation::Completion), 34),
    (Order::Asks(Operation::Balance), 4),
    (Order::Asks(Operation::Verify), 4),
    (Order::Asks(Operation::Enter), 14),
    (Order::Asks(Operation::Leave), 12),
    (Order::Asks(Operation::Borrow), 14),
    (Order::Asks(Operation::Return), 18),
    (Order::Asks(Operation::Attendance), 6),
    (Order::Asks(Operation::Advice(900_000)), 2),
    (Order::Asks(Operation::Advice(910_000)), 5),
    (Order::Asks(Operation::Advice(920_000)), 4),
    (Order::Asks(Operation::Advice(930_000)), 4),
    (Order::Asks(Operation::Advice(940_000)), 4),
    (Order::Asks(Operation::Advice(950_000)), 2),
    (Order::Asks(Operation::Loss), 7),
    (Order::Asks(Operation::Found), 7),
    (Order::Asks(Operation::Hotlist), 7),
    (Order::Asks(Operation::BatchClose), 6),
    (Order::Asks(Operation::Event), 24),
    (Order::Asks(Operation::Echo), 2),
    (Order::Asks(Operation::SignOff), 2),
    (Order::Reverses, 16),
    (Order::ReversesAhead, 4),
    (Order::UsesStanTwice, 4),
    (Order::Errs, 4),
];

/// The place of the loss in [`ORDERS`], right behind what 01xx and 02xx ask; the found follows.
pub(super) const LOSS: usize = 21;

/// What some runs are about: kinds of terminals, operations, and whether reversals. They meet there more often what else they
/// hardly meet: the second refund of a sale, reversed, and then a third.
const THEMES: [(&[&str], &[Operation], bool); 10] = [
    (&["pos"], &[Operation::Purchase, Operation::Refund], true),
    (&["pos", "counter"], &[Operation::Purchase, Operation::OfflineSale, Operation::Refund, Operation::Void], true),
    (&["counter"], &[Operation::OfflineSale, Operation::Load, Operation::Bill], true),
    (&["water"], &[Operation::Hold, Operation::Completion], true),
    (&["water", "kiosk"], &[Operation::Hold, Operation::Bill], true),
    (&["water", "pos"], &[Operation::Hold, Operation::Purchase, Operation::OfflineSale], false),
    (&["gate"], &[Operation::Enter, Operation::Leave, Operation::Advice(910_000), Operation::Advice(920_000)], false),
    (&["library"], &[Operation::Borrow, Operation::Return, Operation::Advice(930_000), Operation::Advice(940_000)], false),
    (&["kiosk", "counter"], &[Operation::Loss, Operation::Found, Operation::Hotlist, Operation::Bill], false),
    (&["pos", "counter"], &[Operation::Purchase, Operation::Refund, Operation::BatchClose], false),
];

/// What a run is like.
#[derive(Default)]
pub struct Habits {
    /// By the place in the list of orders, how much more often than otherwise each is given.
    pub weights: Vec<u32>,
    /// The terminals that act, the busy ones several times.
    pub active: Vec<usize>,
    /// How many of [`CARDS`] are mostly used.
    pub cards_in_use: usize,
    /// Whether holders type wrong PINs as often as right ones.
    pub is_forgetful: bool,
}

impl Habits {
    /// Those of a run with terminals of these kinds.
    #[must_use]
    pub fn draw(rng: &mut fastrand::Rng, kinds: &[&'static str]) -> Self {
        let mut weights: Vec<u32> = (0..ORDERS.len()).map(|_| [0, 1, 1, 1, 2, 6][rng.usize(..6)]).collect();
        let theme = THEMES.get(rng.usize(..2 * THEMES.len()));
        let does = |place: &usize| theme.is_none_or(|theme| theme.0.contains(&kinds[*place]));
        let able: Vec<usize> = (0..kinds.len()).filter(does).collect();
        if let Some((_, operations, reverses)) = theme {
            for (weight, (order, _)) in weights.iter_mut().zip(ORDERS) {
                *weight = match order {
                    Order::Asks(operation) => u32::from(operations.contains(&operation)) * rng.u32(1..4),
                    Order::Reverses => u32::from(*reverses) * rng.u32(0..4),
                    _ => rng.u32(..2),
                };
            }
        }
        let mut active: Vec<usize> = (0..rng.usize(4..12)).map(|_| able[rng.usize(..able.len())]).collect();
        active.sort_unstable();
        Self { weights, active, cards_in_use: rng.usize(1..7), is_forgetful: rng.u8(..3) == 0 }
    }
}

/// Reckoned with those of [`ORDERS`].
pub(super) const OVERSTEPS: u32 = 2;

impl Terminal {
    pub(super) fn draft(&mut self, scene: &Scene<'_>, mti: u16) -> Draft {
        self.stan = self.stan % 999_999 + 1;
        Draft::new(mti, self.id, self.stan, scene.time, month_day(scene.today + self.skew_days))
    }

    /// A card: mostly one of the six that everybody knows.
    fn card(scene: &mut Scene<'_>) -> String {
        let first = scene.rng.u8(..3) > 0;
        CARDS[scene.rng.usize(..if first { scene.habits.cards_in_use } else { CARDS.len() })].to_owned()
    }

    fn amount(scene: &mut Scene<'_>) -> u64 {
        match scene.rng.u8(..28) {
            0 => 0,
            1 => u64::from(scene.amount_max) + 1,
            2 => u64::from(scene.amount_max),
            3 => 999_999_999_999,
            _ => scene.rng.u64(1..700),
        }
    }

    /// The customer types a PIN, now and then a wrong one.
    fn type_pin(scene: &mut Scene<'_>, draft: &mut Draft) {
        let known = draft.card.as_ref().and_then(|card| scene.pins.get(card)).cloned();
        draft.pin = match (scene.rng.u8(..16), known) {
            (0..4, _) => None,
            (4..9, Some(pin)) => Some(PinEntry::Digits(pin)),
            (9.., Some(_)) if !scene.habits.is_forgetful && scene.rng.bool() => None,
            (11, _) => Some(PinEntry::NoBlock),
            (_, Some(_)) => Some(PinEntry::Digits(["000000", "4719"][scene.rng.usize(..2)].to_owned())),
            (_, None) => (scene.rng.u8(..4) == 0).then(|| PinEntry::Digits("12345".to_owned())),
        };
    }

    /// The paper that a customer brings: mostly of this merchant, and one that has not been brought yet.
    fn receipt(&self, scene: &mut Scene<'_>, meant: &[Operation]) -> Option<Receipt> {
        let (anything, own, fresh) = (scene.rng.u8(..24) == 0, scene.rng.u8(..16) > 0, scene.rng.u8(..3) > 0);
        let fitting = |receipt: &&mut Receipt| {
            (anything || meant.contains(&receipt.operation))
                && (!own || receipt.merchant == self.merchant)
                && !(fresh && receipt.was_brought)
        };
        let fitting: Vec<&mut Receipt> = scene.receipts.iter_mut().filter(fitting).collect();
        // The newest is brought most.
        let back = scene.rng.usize(..6.min(fitting.len().max(1)));
        let place = if scene.rng.bool() { back } else { scene.rng.usize(..fitting.len().max(1)) };
        let receipt = fitting.into_iter().rev().nth(place)?;
        receipt.was_brought = true;
        Some(receipt.clone())
    }

    /// An item with the card that it was borrowed with, if this terminal knows of one.
    fn borrowed(&self, scene: &mut Scene<'_>) -> Option<(String, String)> {
        let is_loan = |done: &&Done| {
            matches!(Operation::of(&done.draft), Operation::Borrow | Operation::Advice(930_000)) && done.code == "00"
        };
        let last = self.done.iter().rev().filter(is_loan).nth(scene.rng.usize(..3))?;
        Some((last.draft.card.clone()?, last.draft.tag(11)?.to_owned()))
    }

    fn about(scene: &mut Scene<'_>, draft: &mut Draft, receipt: &Receipt) {
        draft.number = Some(format!("{:012}", receipt.number));
        draft.card = match scene.rng.u8(..24) {
            0 => Some(CARDS[scene.rng.usize(..CARDS.len())].to_owned()),
            1..12 => Some(receipt.card.clone()),
            _ => None,
        };
    }

    /// A draft of this operation; `None` where there is nothing that it could be about.
    pub(super) fn order(&mut self, scene: &mut Scene<'_>, operation: Operation) -> Option<Draft> {
        const SALES: [Operation; 3] = [Operation::Purchase, Operation::OfflineSale, Operation::Completion];
        let (mti, processing) = match operation {
            Operation::Purchase => (200, Some([0, 0, 0, 1_000, 2_000][scene.rng.usize(..5)])),
            Operation::OfflineSale => (220, Some([0, 0, 0, 1_000, 2_000][scene.rng.usize(..5)])),
            Operation::Void => (200, Some(20_000)),
            Operation::Refund => (200, Some(200_000)),
            Operation::Load => (200, Some(210_000)),
            Operation::Bill => (200, Some(500_000)),
            Operation::Hold => (100, Some(0)),
            Operation::Completion => (220, Some(0)),
            Operation::Balance => (100, Some(310_000)),
            Operation::Verify => (100, Some(900_000)),
            Operation::Enter => (100, Some(910_000)),
            Operation::Leave => (100, Some(920_000)),
            Operation::Borrow => (100, Some(930_000)),
            Operation::Return => (100, Some(940_000)),
            Operation::Attendance => (100, Some(950_000)),
            Operation::Advice(event) => (120, Some(event)),
            Operation::Loss | Operation::Found | Operation::Hotlist | Operation::Update => (300, None),
            Operation::BatchClose => (500, None),
            Operation::Event => (600, None),
            Operation::Reversal | Operation::Unknown => return None,
            Operation::SignOn | Operation::SignOff | Operation::Echo => (800, None),
        };
        let mut draft = self.draft(scene, mti);
        draft.processing = processing;
        draft.merchant = scene.rng.u8(..4).eq(&0).then_some(self.merchant);
        draft.nii = scene.rng.bool().then_some(3);
        draft.batch = scene.rng.bool().then_some(self.till.open);
        if scene.rng.u8(..10) == 0 {
            draft.time = scene.rng.u32(..24) * 10_000 + scene.rng.u32(..60) * 100;
        }
        match operation {
            Operation::Void => {
                let receipt = self.receipt(scene, &SALES[..2])?;
                Self::about(scene, &mut draft, &receipt);
                draft.amount = scene.rng.u8(..4).eq(&0).then_some(1);
            }
            Operation::Refund => {
                let receipt = self.receipt(scene, &SALES)?;
                Self::about(scene, &mut draft, &receipt);
                let amount = receipt.amount.max(1);
                draft.amount = Some(match scene.rng.u8(..12) {
                    0 => Self::amount(scene),
                    1 => amount + 1,
                    2..6 => amount,
                    _ => scene.rng.u64(..amount) / 2 + 1,
                });
            }
            Operation::Completion => {
                let receipt = self.receipt(scene, &[Operation::Hold])?;
                Self::about(scene, &mut draft, &receipt);
                draft.amount = Some(match scene.rng.u8(..14) {
                    0 => u64::from(scene.amount_max) + 1,
                    1 => receipt.amount + 1,
                    2 | 3 => 0,
                    4 => receipt.amount,
                    _ => scene.rng.u64(..=receipt.amount.min(700)),
                });
            }
            _ => self.fill(scene, operation, &mut draft),
        }
        if scene.rng.u8(..48) == 0 {
            Self::spoil(scene, &mut draft);
        }
        Some(draft)
    }

    fn fill(&mut self, scene: &mut Scene<'_>, operation: Operation, draft: &mut Draft) {
        if operation.is_advice() {
            // It was some days ago.
            let days = [0, 0, 0, 0, 1, 1, 2, 12][scene.rng.usize(..8)];
            draft.month_day = month_day(scene.today + self.skew_days - days);
        }
        match operation {
            Operation::Hotlist => self.list.fill(draft),
            Operation::BatchClose => self.fill_close(scene, draft),
            Operation::Event => {
                draft.private.push((40, format!("{:02}", scene.rng.u8(1..5))));
                if scene.rng.bool() {
                    draft.private.push((41, "3-412".to_owned()));
                    draft.private.push((42, "2350 W".to_owned()));
                }
            }
            Operation::SignOff | Operation::Echo => {
                (draft.merchant, draft.batch) = (None, None);
                draft.network = Some(if operation == Operation::Echo { 301 } else { 2 });
            }
            _ => {
                draft.card = Some(Self::card(scene));
                self.fill_with_card(scene, operation, draft);
            }
        }
    }

    fn fill_with_card(&mut self, scene: &mut Scene<'_>, operation: Operation, draft: &mut Draft) {
        match operation {
            Operation::Purchase | Operation::OfflineSale => {
                draft.amount = Some(Self::amount(scene));
                draft.currency = true;
                draft.merchant = Some(self.merchant);
            }
            Operation::Bill => {
                draft.amount = Some(Self::amount(scene));
                draft.private.push((30, format!("{:02}", scene.rng.u8(1..5))));
                draft.private.push((31, "ROOM 3-412".to_owned()));
            }
            Operation::Hold => draft.amount = Some(Self::amount(scene)),
            Operation::Load => Self::fill_load(scene, draft),
            Operation::Borrow | Operation::Return | Operation::Advice(930_000 | 940_000) => {
                let returns = matches!(operation, Operation::Return | Operation::Advice(940_000));
                let borrowed = if returns && scene.rng.u8(..4) > 0 { self.borrowed(scene) } else { None };
                let item = match borrowed {
                    Some((card, item)) => {
                        draft.card = Some(card);
                        item
                    }
                    None => ITEMS[scene.rng.usize(..ITEMS.len())].to_owned(),
                };
                draft.private.push((11, item));
            }
            Operation::Loss | Operation::Found => {
                draft.file = Some("HOTLIST");
                draft.update = Some(if operation == Operation::Loss { '1' } else { '3' });
            }
            _ => {}
        }
        if matches!(operation, Operation::Purchase | Operation::Bill | Operation::Hold) {
            Self::type_pin(scene, draft);
        }
    }

    fn fill_load(scene: &mut Scene<'_>, draft: &mut Draft) {
        draft.amount = Some(Self::amount(scene));
        match scene.rng.u8(..10) {
            // Into a purse that is nearly full.
            0 => (draft.card, draft.amount) = (Some(CARDS[CARDS.len() - 1].to_owned()), Some(u64::from(scene.amount_max))),
            // After an offline sale, for the debt that it may have left.
            1..6 => {
                let offline = |receipt: &&Receipt| receipt.operation == Operation::OfflineSale;
                let debtor = scene.receipts.iter().rev().find(offline).map(|receipt| receipt.card.clone());
                draft.card = debtor.or(draft.card.take());
            }
            _ => {}
        }
    }

    fn fill_close(&self, scene: &mut Scene<'_>, draft: &mut Draft) {
        let open = self.till.open;
        let batch = match scene.rng.u8(..16) {
            0 => open + scene.rng.u32(1..3),
            1 if open > 1 => open - 1,
            _ => open,
        };
        let mut totals = self.till.totals(batch);
        if scene.rng.u8(..10) == 0 {
            totals[scene.rng.usize(..8)] += 1;
        }
        (draft.batch, draft.totals) = (Some(batch), Some(totals));
    }

    /// Something of it is not as it should be.
    fn spoil(scene: &mut Scene<'_>, draft: &mut Draft) {
        match scene.rng.u8(..12) {
            0 => draft.currency = !draft.currency,
            1 => draft.merchant = Some(NOBODY),
            2 => draft.merchant = None,
            3 => draft.month_day = [229, 230, 1_231, 101, 1_301][scene.rng.usize(..5)],
            4 => draft.card = None,
            5 => draft.amount = None,
            6 => draft.number = [None, Some("17"), Some("000000999999")][scene.rng.usize(..3)].map(str::to_owned),
            7 => draft.private.clear(),
            8 => draft.private.iter_mut().for_each(|(_, value)| "99".clone_into(value)),
            9 => draft.batch = Some(0),
            10 => draft.pin = Some(PinEntry::Short),
            _ => (draft.totals, draft.file) = (None, draft.file.map(|_| "COLDLIST")),
        }
    }

    /// What the switch does not know, or cannot read.
    pub(super) fn erring(&mut self, scene: &mut Scene<'_>) -> Draft {
        let (mti, processing) = [
            (100, Some(960_000)),
            (200, Some(220_000)),
            (220, Some(20_000)),
            (300, None),
            (500, None),
            (600, None),
            (700, None),
            (800, None),
        ][scene.rng.usize(..8)];
        let mut draft = self.draft(scene, mti);
        draft.processing = processing;
        draft.network = (mti == 800).then_some(161);
        draft.card = scene.rng.bool().then(|| CARDS[0].to_owned());
        if mti == 300 && scene.rng.bool() {
            (draft.update, draft.file) = (Some('2'), Some("HOTLIST"));
        }
        if scene.rng.u8(..12) == 0 {
            Self::spoil(scene, &mut draft);
        }
        draft
    }
}
