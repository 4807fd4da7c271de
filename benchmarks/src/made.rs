//! A campus as commands to the ledger itself, without messages: tills of one canteen, any number of cards, and what they pay.
//!
//! Always true here: the same numbers make the same commands.

use switch_core::calendar::{Date, Timestamp};
use switch_core::card_number::CardNumber;
use switch_core::ledger::identities::{Content, Echo, Family, Identity};
use switch_core::ledger::registry::{CardClass, CardStatus, Category, HolderId, MerchantId, TerminalKind, Zone};
use switch_core::ledger::{Command, Pin, Policy, PurseChoice, Request};
use switch_core::session::KeySlot;

/// Tills, each of which has STANs for a million purchases a day.
pub(crate) const TILLS: u32 = 256;
/// Days for which identities are kept.
pub(crate) const IDENTITY_DAYS: u16 = 8;
/// The first business date: 2026-11-24.
pub(crate) const TODAY: Date = Date(9_824);
/// When everything is decided: noon of that day in China.
pub(crate) const NOW: Timestamp = 1_795_492_800_000_000;
const PURSE_FEN: i64 = 99_999_999;

/// The policy, the business date, one canteen and its tills.
pub(crate) fn parties() -> impl Iterator<Item = Command<'static>> {
    let merchant = MerchantId::new("M1").expect("short");
    let first = [
        Command::Policy(Policy { amount_max: 5_000_000, identity_days: IDENTITY_DAYS, ..Policy::default() }),
        Command::Cutover(TODAY),
        Command::Merchant { id: merchant, name: "Canteen", category: Category::Canteen, fee_bp: 0 },
    ];
    let tills = (0..TILLS).map(|number| Command::Terminal {
        id: format!("T{number:07}").into_bytes().try_into().expect("eight bytes"),
        merchant: 0,
        kind: TerminalKind::Pos,
        zone: Zone::new("").expect("short"),
        wrapped_key: [1; 24],
    });
    first.into_iter().chain(tills)
}

/// The card with this index, its holder and both purses.
pub(crate) fn card(index: u64) -> Command<'static> {
    Command::Card {
        number: card_number(index),
        holder: HolderId::new(&format!("H{index:09}")).expect("short"),
        class: CardClass::Student,
        status: CardStatus::Active,
        expires: Date(u16::MAX),
        opening: [PURSE_FEN, 10_000],
    }
}

fn card_number(index: u64) -> CardNumber {
    let digits = format!("6230{index:012}");
    CardNumber::from_digits(digits.as_bytes()).expect("sixteen digits")
}

/// The purchase number `index` of `date`, of `fen` with the card `card`; the tills take turns.
pub(crate) fn purchase(index: u64, date: Date, card: u64, fen: u64) -> Command<'static> {
    let (till, stan) = ((index % u64::from(TILLS)) as u32, (index / u64::from(TILLS) % 1_000_000) as u32);
    let content = Content::new(Some(card_number(card)), Some(0), Some(fen), true);
    let identity = Identity::new(Family::Financial, till, date, stan);
    let echo = Echo::new(120_000, None, Some(1), None, true);
    Command::Purchase {
        request: Request { identity, content, echo, slot: KeySlot::Current, mti: 200 },
        purse: PurseChoice::Policy,
        pin: Pin::Absent,
    }
}
