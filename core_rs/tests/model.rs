//! The switch against a naive model of it: maps, no ledger, no codec. Purchases, reversals and repeats in any order give
//! the same answers, the same balances and the same sums.

mod college;

use std::collections::{HashMap, HashSet};

use college::{AMOUNT_MAX, Memory, Terminal, ask, college};
use proptest::prelude::*;
use switch_core::ledger::registry::{HolderId, MerchantId};

/// Card, holder, why it may not pay. As in the college's file, written down apart.
const CARDS: [(&str, &str, Option<&str>); 10] = [
    ("1001", "S1", None),
    ("1002", "S2", None),
    ("1003", "S3", None),
    ("1101", "L1", Some("41")),
    ("1102", "F1", Some("62")),
    ("1103", "I1", Some("78")),
    ("1104", "C1", Some("78")),
    ("1105", "X1", Some("54")),
    ("1106", "S1", Some("41")),
    ("9999", "", Some("14")),
];
const OPENED: [(&str, i64, i64); 8] = [
    ("S1", 1000, 500),
    ("S2", 300, 0),
    ("S3", 1000, 9000),
    ("L1", 1000, 500),
    ("F1", 1000, 500),
    ("I1", 1000, 500),
    ("C1", 1000, 500),
    ("X1", 1000, 500),
];

#[derive(Clone, Debug)]
enum Step {
    /// Terminal, STAN, card, purse (00, 10, 20), amount.
    Purchase(usize, u32, usize, u32, i64),
    /// Terminal, STAN, the original's STAN, card and amount where named.
    Reversal(usize, u32, u32, Option<usize>, Option<i64>),
    /// An earlier step again.
    Again(prop::sample::Index),
}

/// Few numbers, so that they meet.
fn step() -> impl Strategy<Value = Step> {
    let amount = prop_oneof![8 => 1_i64..700, 1 => Just(0), 1 => Just(i64::from(AMOUNT_MAX) + 1), 1 => Just(9_500_i64)];
    let card = prop_oneof![6 => 0_usize..3, 1 => 3_usize..CARDS.len()];
    let amount = amount.boxed();
    prop_oneof![
        6 => (0_usize..2, 0_u32..12, card.clone(), 0_u32..3, amount.clone()).prop_map(|(t, s, c, p, a)| Step::Purchase(t, s, c, p, a)),
        3 => (0_usize..2, 0_u32..8, 0_u32..12, prop::option::of(card), prop::option::weighted(0.3, amount))
            .prop_map(|(t, s, o, c, a)| Step::Reversal(t, s, o, c, a)),
        2 => any::<prop::sample::Index>().prop_map(Step::Again),
    ]
}

/// DE39 and DE54.
type Answer = (&'static str, Option<[i64; 2]>);
/// Terminal and STAN.
type Key = (usize, u32);
/// A purchase's card, purse and amount.
type Paid = (usize, u32, i64);
/// A reversal's card and amount.
type Named = (Option<usize>, Option<i64>);

struct Model {
    cash: HashMap<&'static str, i64>,
    subsidy: HashMap<&'static str, i64>,
    /// The canteen's and the shop's.
    takings: [i64; 2],
    purchases: HashMap<Key, (Paid, Answer)>,
    reversals: HashMap<Key, (Named, Answer)>,
    /// Purchases that stand: whose, and what the purses paid.
    standing: HashMap<Key, (&'static str, i64, i64)>,
    tombstones: HashSet<Key>,
}

impl Model {
    fn new() -> Self {
        Self {
            cash: OPENED.iter().map(|(holder, cash, _)| (*holder, *cash)).collect(),
            subsidy: OPENED.iter().map(|(holder, _, subsidy)| (*holder, *subsidy)).collect(),
            takings: [0, 0],
            purchases: HashMap::new(),
            reversals: HashMap::new(),
            standing: HashMap::new(),
            tombstones: HashSet::new(),
        }
    }

    fn purses(&self, holder: &str) -> Option<[i64; 2]> {
        Some([*self.cash.get(holder)?, *self.subsidy.get(holder)?])
    }

    fn purchase(&mut self, terminal: usize, stan: u32, card: usize, purse: u32, amount: i64) -> Answer {
        if let Some((content, answer)) = self.purchases.get(&(terminal, stan)) {
            return if *content == (card, purse, amount) { *answer } else { ("94", None) };
        }
        let answer = self.pay(terminal, stan, card, purse, amount);
        self.purchases.insert((terminal, stan), ((card, purse, amount), answer));
        answer
    }

    fn pay(&mut self, terminal: usize, stan: u32, card: usize, purse: u32, amount: i64) -> Answer {
        let (_, holder, fault) = CARDS[card];
        if self.tombstones.contains(&(terminal, stan)) {
            return ("12", None);
        }
        if amount == 0 || amount > i64::from(AMOUNT_MAX) {
            return ("13", None);
        }
        if let Some(fault) = fault {
            return (fault, None);
        }
        let canteen = terminal == 0;
        if purse == 2 && !canteen {
            return ("57", None);
        }
        let [cash, subsidy] = self.purses(holder).expect("a known holder");
        let from_subsidy = match purse {
            0 if canteen && subsidy < amount => subsidy,
            0 if canteen => amount,
            2 => amount,
            _ => 0,
        };
        if from_subsidy > subsidy || amount - from_subsidy > cash {
            return ("51", None);
        }
        self.move_money(holder, terminal, amount - from_subsidy, from_subsidy);
        self.standing.insert((terminal, stan), (holder, amount - from_subsidy, from_subsidy));
        ("00", self.purses(holder))
    }

    fn move_money(&mut self, holder: &'static str, terminal: usize, cash: i64, subsidy: i64) {
        *self.cash.get_mut(holder).expect("a known holder") -= cash;
        *self.subsidy.get_mut(holder).expect("a known holder") -= subsidy;
        self.takings[terminal] += cash + subsidy;
    }

    fn reversal(&mut self, terminal: usize, stan: u32, original: u32, card: Option<usize>, amount: Option<i64>) -> Answer {
        if let Some((content, answer)) = self.reversals.get(&(terminal, stan)) {
            return if *content == (card, amount) { *answer } else { ("94", None) };
        }
        let answer = match self.purchases.get(&(terminal, original)) {
            Some(((paid_by, _, paid), _))
                if card.is_some_and(|card| card != *paid_by) || amount.is_some_and(|fen| fen != *paid) =>
            {
                ("94", None)
            }
            known => {
                if known.is_none() {
                    self.tombstones.insert((terminal, original));
                } else if let Some((holder, cash, subsidy)) = self.standing.remove(&(terminal, original)) {
                    self.move_money(holder, terminal, -cash, -subsidy);
                }
                ("00", card.and_then(|card| self.purses(CARDS[card].1)))
            }
        };
        self.reversals.insert((terminal, stan), ((card, amount), answer));
        answer
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_switch_and_the_model_agree(steps in prop::collection::vec(step(), 1..80)) {
        let mut authorizer = college(Memory::default());
        let mut tills = [Terminal::new("POS00001", 1), Terminal::new("POS2", 2)];
        for till in &mut tills {
            till.sign_on(&mut authorizer, 900_000);
        }
        let mut model = Model::new();
        let mut bodies = HashMap::new();
        for (index, step) in steps.iter().enumerate() {
            let mut step = step.clone();
            while let Step::Again(earlier) = step {
                step = if index == 0 { Step::Purchase(0, 0, 0, 0, 1) } else { steps[earlier.index(index)].clone() };
                if matches!(step, Step::Again(_)) {
                    step = Step::Purchase(1, 1, 1, 1, 1);
                }
            }
            let (draft, expected) = match step {
                Step::Purchase(terminal, stan, card, purse, amount) => {
                    let draft = tills[terminal].purchase(stan, CARDS[card].0, amount.unsigned_abs());
                    (draft.with(3, &format!("00{purse}000")), model.purchase(terminal, stan, card, purse, amount))
                }
                Step::Reversal(terminal, stan, original, card, amount) => {
                    let mut draft = tills[terminal].reversal(stan, original);
                    if let Some(card) = card {
                        draft = draft.with(2, CARDS[card].0);
                    }
                    if let Some(amount) = amount {
                        draft = draft.with(4, &amount.to_string());
                    }
                    (draft, model.reversal(terminal, stan, original, card, amount))
                }
                Step::Again(_) => unreachable!("resolved above"),
            };
            let terminal = usize::from(draft.elements[&41] != "POS00001");
            let answer = ask(&mut authorizer, &draft, Some(tills[terminal].key()));
            let code = answer.code();
            prop_assert_eq!((code.as_str(), answer.purses()), expected, "{:?}", draft);
            // A message that was seen before gets what it got before.
            let body = answer.body().to_vec();
            prop_assert_eq!(bodies.entry(format!("{draft:?}")).or_insert_with(|| body.clone()), &body);

            let ledger = authorizer.ledger();
            let registry = ledger.registry();
            for (holder, ..) in OPENED {
                let index = registry.holders.find(&HolderId::new(holder).expect("short")).expect("a known holder");
                prop_assert_eq!(Some(ledger.available(registry.holders[index].purses)), model.purses(holder), "{}", holder);
            }
            for (merchant, takings) in ["M-CANTEEN", "M-SHOP"].into_iter().zip(model.takings) {
                let index = registry.merchants.find(&MerchantId::new(merchant).expect("short")).expect("a known merchant");
                prop_assert_eq!(ledger.accounts().balance(registry.merchants[index].account), takings);
            }
            prop_assert_eq!(ledger.accounts().sum(), 0);
        }
    }
}
