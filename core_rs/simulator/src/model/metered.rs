//! Metered use: holds, their completions, and what lapses.

use super::calendar::{NO_DAY, campus_day};
use super::money::{Deed, Kind};
use super::{Asked, Effect, Event, FOLLOWED_DAYS, Model, Ruling};

/// Holds that lapse at a look at the clock.
const LAPSES_AT_ONCE: u64 = 64;
/// In microseconds.
const HOUR: u64 = 3_600_000_000;

/// A hold that stands.
#[derive(Clone)]
pub(super) struct OpenHold {
    pub(super) holder: String,
    pub(super) amount: i64,
    /// When it was decided, by the switch's clock.
    at: u64,
}

impl Model {
    /// What is held of a holder's cash.
    pub(super) fn held_of(&self, holder: &str) -> i64 {
        self.holds.values().filter(|hold| hold.holder == holder).map(|hold| hold.amount).sum()
    }

    pub(super) fn hold(&mut self, asked: &Asked<'_>) -> Ruling {
        let (amount, number) = self.amount_and_card(asked)?;
        let holder = self.good_card(number)?;
        let sale = self.sale(asked, number, amount, false);
        self.object(asked, &sale)?;
        let cash = self.available_of(number).expect("a known card")[0];
        if cash <= 0 {
            return Err("51");
        }
        let held = amount.min(cash);
        if held < amount {
            self.events.push("decided.held_less");
        }
        self.rules.use_up(&sale.spending, held, self.day);
        self.holds.insert(asked.position, OpenHold { holder, amount: held, at: asked.now });
        Ok(Effect { deed: Some(Deed::new(Kind::Hold, number, held, [held, 0])), ..Effect::default() })
    }

    pub(super) fn completion(&mut self, asked: &Asked<'_>) -> Ruling {
        let amount = asked.draft.amount.expect("asked for").cast_signed();
        if amount > i64::from(self.limits.amount_max) {
            return Err("13");
        }
        self.know_card(asked)?;
        let hold = self.original(asked, &[Kind::Hold]).ok_or("25")?;
        let decided = &self.decisions[&hold];
        let (number, deed) = (decided.position, decided.deed.clone().expect("a hold"));
        if !deed.stands {
            if deed.has_lapsed {
                self.events.push("decided.completion_of_lapsed");
            }
            return Err("12");
        }
        if amount > deed.amount {
            return Err("61");
        }
        self.holds.remove(&number);
        self.deed(&hold).stands = false;
        self.give_use_back(&hold, deed.amount - amount, false);
        self.move_cash(&deed.card, -amount);
        self.merchants.get_mut(asked.merchant).expect("known").takings += amount;
        self.count(asked, super::batches::Column::Debit, amount);
        self.events.push(if amount == 0 { "decided.completed_unused" } else { "decided.completed" });
        let mut done = Deed::new(Kind::Completion, &deed.card, amount, [amount, 0]);
        done.about = number;
        Ok(Effect { deed: Some(done), ..Effect::default() })
    }

    /// The oldest hold by transaction number, where it has lasted as long as it may: by its own moment, or if that is still to come by that
    /// of the next one.
    fn due(&self, now: u64) -> Option<u64> {
        for hold in self.holds.values() {
            if hold.at + u64::from(self.limits.hold_hours) * HOUR <= now {
                return self.holds.keys().next().copied();
            }
            if hold.at <= now {
                break;
            }
        }
        None
    }

    /// The clock was looked at, and so many holds lapsed. `None`: more were due, or fewer; but for a journal without room, and by a
    /// clock that is not followed none may.
    pub fn let_lapse(&mut self, now: u64, lapsed: u64, room: bool) -> Option<()> {
        if self.day != NO_DAY && campus_day(now) - self.day > FOLLOWED_DAYS[0] {
            return (lapsed == 0).then_some(());
        }
        for _ in 0..lapsed {
            let hold = self.due(now)?;
            self.lapse(hold);
        }
        let is_done = lapsed == LAPSES_AT_ONCE || !room || self.due(now).is_none();
        (is_done && lapsed <= LAPSES_AT_ONCE).then_some(())
    }

    pub(super) fn lapse(&mut self, number: u64) {
        self.position += 1;
        let hold = self.holds.remove(&number).expect("an open hold");
        if let Some(identity) = self.numbers.get(&number).copied() {
            let deed = self.deed(&identity);
            (deed.stands, deed.has_lapsed) = (false, true);
            self.give_use_back(&identity, hold.amount, true);
        }
        self.keep(Event::Lapse(number));
    }

    /// The open holds: transaction number and amount.
    pub fn all_holds(&self) -> impl Iterator<Item = (u64, i64)> {
        self.holds.iter().map(|(number, hold)| (*number, hold.amount))
    }
}
