//! A switch without sockets, driven step by step over any journal, that remembers the digest of each of its states.

use std::collections::BTreeMap;

use proptest::prelude::*;
use switch_core::authorizer::{Authorizer, Settings};
use switch_core::calendar::Timestamp;
use switch_core::import::import;
use switch_core::journal::{Journal, JournalError};
use switch_core::ledger::{Ledger, Policy};

use super::{AMOUNT_MAX, DAY, Draft, IDENTITY_DAYS, NOON, Terminal, ask_frame, college, nonces, settings};

#[derive(Clone, Debug)]
pub(crate) enum Step {
    SignOn(usize),
    SignOff(usize),
    /// Terminal, STAN, card, amount.
    Purchase(usize, u32, usize, u32),
    /// Terminal, STAN, the original's STAN.
    Reversal(usize, u32, u32),
    Unknown(usize, u32),
    /// A file, as a new merchant, a card's new status, a terminal's new key.
    Import(u8),
    NextDay,
    Flush,
    Submit,
    /// The process ends without a word and starts again, with this ceiling of amounts.
    Restart(u32),
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let (terminal, stan) = (0_usize..2, 0_u32..12);
    prop_oneof![
        3 => terminal.clone().prop_map(Step::SignOn),
        1 => terminal.clone().prop_map(Step::SignOff),
        8 => (terminal.clone(), stan.clone(), 0_usize..6, 0_u32..700).prop_map(|(t, s, c, a)| Step::Purchase(t, s, c, a)),
        4 => (terminal.clone(), stan.clone(), stan.clone()).prop_map(|(t, s, o)| Step::Reversal(t, s, o)),
        1 => (terminal, stan).prop_map(|(t, s)| Step::Unknown(t, s)),
        1 => any::<u8>().prop_map(Step::Import),
        1 => Just(Step::NextDay),
        2 => Just(Step::Flush),
        2 => Just(Step::Submit),
        2 => prop_oneof![3 => Just(AMOUNT_MAX), 1 => Just(500_u32)].prop_map(Step::Restart),
    ]
}

/// A switch without sockets, its clock and its two tills.
pub(crate) struct World {
    pub(crate) authorizer: Authorizer<Journal>,
    tills: [Terminal; 2],
    now: Timestamp,
    signed_on: u32,
    /// The digest after each position.
    pub(crate) digests: BTreeMap<u64, [u8; 32]>,
}

impl World {
    pub(crate) fn new(journal: Journal) -> Self {
        let mut world = Self {
            authorizer: college(journal),
            tills: [Terminal::new("POS00001", 1), Terminal::new("POS2", 2)],
            now: NOON,
            signed_on: 1_000,
            digests: BTreeMap::new(),
        };
        world.take(&Step::Flush);
        (0..2).for_each(|till| world.take(&Step::SignOn(till)));
        world
    }

    fn note(&mut self) {
        let ledger = self.authorizer.ledger();
        assert_eq!(ledger.accounts().sum(), 0);
        assert_eq!(ledger.position(), self.authorizer.log().position());
        self.digests.insert(ledger.position(), ledger.digest());
    }

    fn ask(&mut self, till: usize, draft: &Draft) {
        let today = self.authorizer.ledger().business_date().month_day();
        let draft = draft.clone().with(13, &format!("{today:04}"));
        let key = self.tills[till].key.as_ref();
        ask_frame(&mut self.authorizer, self.now, &draft.frame(key));
    }

    /// Takes a step that is no restart.
    pub(crate) fn take(&mut self, step: &Step) {
        match *step {
            Step::SignOn(till) => {
                self.signed_on += 1;
                let today = self.authorizer.ledger().business_date().month_day();
                let terminal = &self.tills[till];
                let draft = terminal.sign_on_draft(self.signed_on).with(13, &format!("{today:04}"));
                let answer = ask_frame(&mut self.authorizer, self.now, &draft.frame(Some(&terminal.sign_on_key)));
                // Not so where the terminal has another master key by now.
                if answer.code() == "00" {
                    self.tills[till].key = Some(terminal.session_key(&answer));
                }
            }
            Step::SignOff(till) => {
                self.signed_on += 1;
                let draft = self.tills[till].draft(800, self.signed_on).with(70, "002");
                self.ask(till, &draft);
            }
            Step::Purchase(till, stan, card, amount) => {
                let number = ["1001", "1002", "1003", "1101", "1105", "9999"][card];
                let draft = self.tills[till].purchase(stan, number, u64::from(amount));
                self.ask(till, &draft);
            }
            Step::Reversal(till, stan, original) => {
                let today = self.authorizer.ledger().business_date().month_day();
                let named = format!("0200{original:06}{today:04}120000{}", "0".repeat(22));
                let draft = self.tills[till].draft(420, stan).with(90, &named);
                self.ask(till, &draft);
            }
            Step::Unknown(till, stan) => {
                let draft = self.tills[till].draft(100, stan).with(3, "920000");
                self.ask(till, &draft);
            }
            Step::Import(which) => {
                let content = match which % 3 {
                    0 => format!("merchant_id,name,category,fee_bp\nM{which},New,shop,{which}\n"),
                    1 => {
                        let status = ["lost", "active", "frozen"][usize::from(which) % 3];
                        let header = "card_number,holder_id,class,status,expires,cash,subsidy";
                        format!(
                            "{header}\n1001,S1,student,{status},2027-01-01,0,0\n3{which},N{which},family,active,2027-01-01,9,0\n"
                        )
                    }
                    _ => format!("terminal_id,merchant_id,kind,zone,key\nPOS2,M-SHOP,pos,Z{which},{:032}\n", 2 + which % 2),
                };
                import(&mut self.authorizer, self.now, "file.csv", content.as_bytes()).expect("a good file");
            }
            Step::NextDay => {
                self.now += DAY;
                self.authorizer.keep_date(self.now);
            }
            Step::Flush => assert_eq!(self.authorizer.log_mut().flush(), self.authorizer.log().position()),
            Step::Submit => {
                self.authorizer.log_mut().submit();
            }
            Step::Restart(_) => unreachable!("a restart needs the storage"),
        }
        self.note();
    }

    /// The same world with a journal that was opened again: `open` gives each record to its closure.
    pub(crate) fn restarted(self, amount_max: u32, open: impl FnOnce(&mut Ledger) -> Result<Journal, JournalError>) -> Self {
        let promised = self.authorizer.log().durable();
        let Self { authorizer, tills, now, signed_on, mut digests } = self;
        drop(authorizer);
        let mut ledger = Ledger::new();
        let journal = open(&mut ledger).expect("a sound journal");
        let position = journal.position();
        assert!(position >= promised, "what was durable is there");
        assert_eq!(ledger.position(), position);
        assert_eq!(ledger.digest(), digests[&position], "the state is that of its position");
        digests.split_off(&(position + 1));
        let policy = Policy { amount_max, identity_days: IDENTITY_DAYS, ..Policy::default() };
        let authorizer = Authorizer::new(ledger, journal, Settings { policy, ..settings() }, nonces, now).expect("its own keys");
        let mut world = Self { authorizer, tills, now, signed_on, digests };
        world.note();
        world
    }
}

pub(crate) fn replaying(ledger: &mut Ledger) -> impl FnMut(u64, &[u8]) -> Result<(), String> {
    |position, record| ledger.replay(position, record).map(|_| ())
}
