//! What a card and a remembered identity take, while their number grows: in bytes, and in the time that a table's growing takes.
//!
//! The ledger is fed the commands that a journal would hold, one after the other, as a start or an import does. Counted is what the
//! allocator has given out, capacity that is not filled yet included, and what the kernel has given to the process (resident), with the
//! most of it within a step: a table that grows holds the old and the new one for a moment. The allocator is the one that serves: one
//! that counts would change how large tables grow, which is by remapping their pages.

use std::fs;
use std::time::Instant;

use serde_json::{Value, json};
use switch_core::calendar::Date;
use switch_core::ledger::{Command, Ledger};

use crate::Failure;
use crate::made::{self, IDENTITY_DAYS, NOW, TODAY};

/// Points of a curve.
const STEPS: u64 = 200;

/// How many bytes this process holds.
#[derive(Clone, Copy)]
struct Held {
    allocated: usize,
    resident: usize,
    resident_peak: usize,
}

impl Held {
    fn now() -> Result<Self, Failure> {
        // SAFETY: mallinfo2 (glibc) takes nothing and gives numbers.
        let allocated = unsafe { libc::mallinfo2() };
        let status = fs::read_to_string("/proc/self/status")?;
        let kibibytes = |name: &str| -> Result<usize, Failure> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("/proc/self/status has no resident size")?;
            Ok(line.trim().trim_end_matches(" kB").parse::<usize>()? << 10)
        };
        Ok(Self {
            allocated: allocated.uordblks + allocated.hblkhd,
            resident: kibibytes("VmRSS:")?,
            resident_peak: kibibytes("VmHWM:")?,
        })
    }

    /// The peak begins anew at what is held now.
    fn begin() -> Result<(), Failure> {
        // proc(5): 5 resets the peak resident set size.
        Ok(fs::write("/proc/self/clear_refs", "5")?)
    }

    fn since(self, before: Self) -> Value {
        let more = |now: usize, before: usize| now.saturating_sub(before);
        json!({
            "allocated": more(self.allocated, before.allocated),
            "resident": more(self.resident, before.resident),
            "resident_peak": more(self.resident_peak, before.resident),
        })
    }
}

/// Bytes of the ledger's parts by its own account, which is what the metrics show.
fn parts(ledger: &Ledger) -> Value {
    json!({
        "cards": ledger.registry().cards.memory(),
        "holders": ledger.registry().holders.memory(),
        "accounts": ledger.accounts().memory(),
        "identities": ledger.identities().memory(),
    })
}

/// Applies what `command` makes for each number below `count`, and gives the curve.
fn grow(ledger: &mut Ledger, count: u64, mut command: impl FnMut(&mut Ledger, u64) -> Command<'static>) -> Result<Value, Failure> {
    let before = Held::now()?;
    let mut steps = Vec::new();
    let mut done = 0;
    for step in 1..=STEPS.min(count) {
        Held::begin()?;
        let until = count * step / STEPS.min(count);
        let mut longest = (0, done);
        while done < until {
            let command = command(ledger, done);
            let began = Instant::now();
            let outcome = ledger.apply(NOW, &command);
            let took = began.elapsed().as_nanos();
            assert!(outcome.response.is_remembered(), "what is made here is decided");
            done += 1;
            longest = longest.max((took, done));
        }
        let mut point = Held::now()?.since(before);
        point["count"] = done.into();
        point["longest_ns"] = (longest.0 as u64).into();
        point["longest_at"] = longest.1.into();
        steps.push(point);
    }
    Ok(json!({ "steps": steps, "parts": parts(ledger) }))
}

/// Grows a ledger to so many cards, then to so many identities, an equal number on each day of the window.
pub(crate) fn measure(cards: u64, identities: u64) -> Result<Value, Failure> {
    let mut ledger = Ledger::new();
    for command in made::parties() {
        ledger.apply(NOW, &command);
    }
    let of_cards = grow(&mut ledger, cards, |_, index| made::card(index))?;
    let mut chance = fastrand::Rng::with_seed(1);
    let days = u64::from(IDENTITY_DAYS).min(identities);
    let a_day = identities.div_ceil(days);
    let (mut day, mut date) = (0, TODAY);
    let of_identities = grow(&mut ledger, identities, |ledger, index| {
        if index / a_day > day {
            day = index / a_day;
            date = Date(TODAY.0 + day as u16);
            ledger.apply(NOW, &Command::Cutover(date));
        }
        made::purchase(index, date, chance.u64(..cards), chance.u64(1..900))
    })?;
    if ledger.identities().count() as u64 != identities {
        return Err("the ledger does not remember what it was given".into());
    }
    Ok(json!({ "cards": of_cards, "identities": of_identities }))
}
