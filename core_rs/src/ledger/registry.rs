//! Who takes part: merchants, their terminals, cardholders and their cards.
//!
//! Always true here: nothing is ever removed, so an index, once given, names the same party for ever; one holder has at
//! most one live card; every terminal belongs to a known merchant.

use std::hash::{BuildHasher, Hash};

use hashbrown::{DefaultHashBuilder, HashTable};

use super::accounts::AccountId;
use super::batches::Totals;
use super::label::Label;
use crate::calendar::Date;
use crate::card_number::CardNumber;
use crate::session::Session;

/// An enumeration whose variants have a permanent number in the journal and a name in files, reports and PostgreSQL.
macro_rules! named {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $number:literal $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum $name { $($(#[$variant_meta])* $variant = $number),+ }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Its name in files, reports and PostgreSQL.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// The one with this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|candidate| candidate.name() == name)
            }

            /// The one with this journal number.
            #[must_use]
            pub fn from_number(number: u8) -> Option<Self> {
                Self::ALL.iter().copied().find(|candidate| *candidate as u8 == number)
            }
        }
    };
}
pub(super) use named;

named! {
    /// What a merchant sells.
    Category {
        /// Meals; takes the subsidy purse.
        Canteen = 1 "canteen",
        /// Supermarkets and kiosks of goods.
        Shop = 2 "shop",
        /// The clinic.
        Clinic = 3 "clinic",
        /// Baths.
        Bath = 4 "bath",
        /// Electricity and water.
        Utility = 5 "utility",
        /// The library.
        Library = 6 "library",
        /// Doors.
        Gate = 7 "gate",
        /// Counters of the administration.
        Office = 8 "office",
    }
}

impl Category {
    /// Whether the subsidy purse may be spent here where no rule says otherwise: a meal subsidy is for meals.
    #[must_use]
    pub fn takes_subsidy(self) -> bool {
        self == Self::Canteen
    }
}

named! {
    /// What a terminal is, and so what it may do.
    TerminalKind {
        /// A till.
        Pos = 1 "pos",
        /// A self-service machine.
        Kiosk = 2 "kiosk",
        /// A staffed counter, allowed to load.
        Counter = 3 "counter",
        /// A door.
        Gate = 4 "gate",
        /// A metered tap.
        Water = 5 "water",
        /// A lending desk.
        Library = 6 "library",
        /// An electricity meter.
        Meter = 7 "meter",
    }
}

named! {
    /// Whether a terminal may work.
    TerminalStanding {
        /// It may.
        Active = 1 "active",
        /// It may not: it was stolen, or is under repair.
        Suspended = 2 "suspended",
    }
}

named! {
    /// Whom a card is for.
    CardClass {
        /// Staff.
        Teacher = 1 "teacher",
        /// Students.
        Student = 2 "student",
        /// People who work for a merchant.
        Merchant = 3 "merchant",
        /// Family of staff.
        Family = 4 "family",
        /// Guests.
        Temporary = 5 "temporary",
    }
}

named! {
    /// Whom bills are owed to, by the kind of the bill (DE48 tag 30).
    Payee {
        /// Tuition.
        Tuition = 1 "tuition",
        /// Electricity of rooms.
        Electricity = 2 "electricity",
        /// Water of rooms.
        Water = 3 "water",
        /// Every other bill.
        Other = 4 "other",
    }
}

named! {
    /// What a person did with a card that moves no money (DE3 9x0000).
    Act {
        /// Showed it.
        Verify = 1 "verify",
        /// Went in.
        Enter = 2 "enter",
        /// Went out.
        Leave = 3 "leave",
        /// Borrowed something.
        Borrow = 4 "borrow",
        /// Brought it back.
        Return = 5 "return",
        /// Was there.
        Attendance = 6 "attendance",
    }
}

named! {
    /// What a meter reports (DE48 tag 40).
    EventKind {
        /// Too much current.
        Overload = 1 "overload",
        /// Somebody is at the meter.
        Tamper = 2 "tamper",
        /// Fire.
        Fire = 3 "fire",
        /// All is well again.
        Restored = 4 "restored",
    }
}

impl EventKind {
    /// Whether the room is to be cut off.
    #[must_use]
    pub fn trips(self) -> bool {
        matches!(self, Self::Overload | Self::Fire)
    }
}

named! {
    /// Where a card stands in its life.
    CardStatus {
        /// In use.
        Active = 1 "active",
        /// Issued, not yet in use.
        Inactive = 2 "inactive",
        /// Reported lost.
        Lost = 3 "lost",
        /// Stopped by the administration.
        Frozen = 4 "frozen",
        /// Out of use for ever.
        Cancelled = 5 "cancelled",
        /// Stopped for misuse.
        Blacklisted = 6 "blacklisted",
    }
}

impl CardStatus {
    /// Whether the card is, or may become without a new paper, the one card of its holder. A lost card may have been
    /// replaced, a cancelled one is out of use.
    #[must_use]
    pub fn is_live(self) -> bool {
        matches!(self, Self::Active | Self::Inactive | Self::Frozen | Self::Blacklisted)
    }

    /// Whether the card stands on the hotlist.
    #[must_use]
    pub fn is_listed(self) -> bool {
        matches!(self, Self::Lost | Self::Frozen | Self::Blacklisted | Self::Cancelled)
    }
}

/// A merchant's number as DE42 carries it, without its padding.
pub type MerchantId = Label<15>;
/// A holder's number: student number, staff number.
pub type HolderId = Label<20>;
/// A part of the campus that doors guard.
pub type Zone = Label<16>;
/// DE41: eight bytes, padded with spaces on the right.
pub type TerminalId = [u8; 8];

/// A merchant.
pub struct Merchant {
    /// Its number.
    pub id: MerchantId,
    /// Its name, UTF-8.
    pub name: Box<str>,
    /// What it sells.
    pub category: Category,
    /// Management fee in basis points of its turnover.
    pub fee_bp: u16,
    /// Where its takings stand.
    pub account: AccountId,
}

/// A terminal.
pub struct Terminal {
    /// DE41.
    pub id: TerminalId,
    /// Index of its merchant.
    pub merchant: u32,
    /// What it is.
    pub kind: TerminalKind,
    /// Whether it may work.
    pub standing: TerminalStanding,
    /// Where it stands.
    pub zone: Zone,
    /// Its master key, wrapped under the switch's key encryption key (RFC 3394).
    pub wrapped_key: [u8; 24],
    /// Its session.
    pub session: Session,
    /// When its last remembered decision was made; 0: never.
    pub last_activity: u64,
    /// Its open batch.
    pub batch: u32,
    /// What was approved in its open batch.
    pub totals: Totals,
}

/// A holder's purses: the cash purse's account and, right behind it, the subsidy purse's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Purses(pub(super) AccountId);

impl Purses {
    /// The cash purse's account.
    #[must_use]
    pub fn cash(self) -> AccountId {
        self.0
    }

    /// The subsidy purse's account.
    #[must_use]
    pub fn subsidy(self) -> AccountId {
        self.0 + 1
    }
}

/// A cardholder.
pub struct Holder {
    /// Its number.
    pub id: HolderId,
    /// Its money.
    pub purses: Purses,
    /// Index of the live card, or [`NONE`].
    pub live_card: u32,
    /// The balances the holder was imported with, cash and subsidy, in fen.
    pub opening: [i64; 2],
}

/// A card.
pub struct Card {
    /// DE2.
    pub number: CardNumber,
    /// Index of its holder.
    pub holder: u32,
    /// Its holder's purses, here as well: a payment does without a look at the holder, who in a large college is not in the cache.
    pub purses: Purses,
    /// Whom it is for.
    pub class: CardClass,
    /// Where it stands in its life.
    pub status: CardStatus,
    /// The last day on which it is valid.
    pub expires: Date,
    /// When its last remembered decision was made, in seconds since 1970; 0: never.
    pub last_activity: u32,
}

/// No index.
pub const NONE: u32 = u32::MAX;

/// A party with the number or name by which it is found.
pub trait Keyed {
    /// What names it.
    type Key: Hash + Eq;

    /// Its name.
    fn key(&self) -> &Self::Key;
}

macro_rules! keyed {
    ($($row:ident by $field:ident: $key:ty),+) => {
        $(impl Keyed for $row {
            type Key = $key;

            #[inline]
            fn key(&self) -> &$key {
                &self.$field
            }
        })+
    };
}

keyed!(Merchant by id: MerchantId, Terminal by id: TerminalId, Holder by id: HolderId, Card by number: CardNumber);

/// Rows that are found by a key and never removed.
pub struct Table<R> {
    rows: Vec<R>,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl<R: Keyed> Table<R> {
    fn new() -> Self {
        Self { rows: Vec::new(), index: HashTable::new(), hasher: DefaultHashBuilder::default() }
    }

    /// The index of the row with this key.
    #[must_use]
    #[inline]
    pub fn find(&self, key: &R::Key) -> Option<u32> {
        self.index.find(self.hasher.hash_one(key), |&row| self.rows[row as usize].key() == key).copied()
    }

    /// Where the index of the row with this key stands, if there is one: not looked at yet, and in rare cases another row's.
    #[inline]
    pub(super) fn place(&self, key: &R::Key) -> Option<&u32> {
        self.index.iter_hash(self.hasher.hash_one(key)).next()
    }

    pub(super) fn add(&mut self, row: R) -> u32 {
        assert!(self.find(row.key()).is_none(), "a key names one row");
        let index = self.rows.len() as u32;
        let hash = self.hasher.hash_one(row.key());
        self.rows.push(row);
        let (rows, hasher) = (&self.rows, &self.hasher);
        self.index.insert_unique(hash, index, |&row| hasher.hash_one(rows[row as usize].key()));
        index
    }

    /// Makes room for so many more rows at once.
    pub(super) fn reserve(&mut self, rows: usize) {
        self.rows.reserve(rows);
        let (held, hasher) = (&self.rows, &self.hasher);
        self.index.reserve(rows, |&row| hasher.hash_one(held[row as usize].key()));
    }

    pub(super) fn row_mut(&mut self, index: u32) -> &mut R {
        &mut self.rows[index as usize]
    }

    /// All rows, by index.
    #[must_use]
    pub fn rows(&self) -> &[R] {
        &self.rows
    }

    /// Bytes held, without what the rows themselves point to.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.rows.capacity() * size_of::<R>() + self.index.allocation_size()
    }
}

impl<R> std::ops::Index<u32> for Table<R> {
    type Output = R;

    #[inline]
    fn index(&self, index: u32) -> &R {
        &self.rows[index as usize]
    }
}

/// Every party.
pub struct Registry {
    /// Merchants by number.
    pub merchants: Table<Merchant>,
    /// Terminals by DE41.
    pub terminals: Table<Terminal>,
    /// Holders by number.
    pub holders: Table<Holder>,
    /// Cards by number.
    pub cards: Table<Card>,
}

impl Registry {
    pub(super) fn new() -> Self {
        Self { merchants: Table::new(), terminals: Table::new(), holders: Table::new(), cards: Table::new() }
    }

    /// The holder of a card.
    #[must_use]
    pub fn holder_of(&self, card: &Card) -> &Holder {
        &self.holders[card.holder]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_row_is_nearly_always_its_own() {
        let mut terminals = Table::new();
        let id = |number: u32| format!("T{number:07}").into_bytes().try_into().unwrap();
        let new = |number| Terminal {
            id: id(number),
            merchant: 0,
            kind: TerminalKind::Pos,
            standing: TerminalStanding::Active,
            zone: Zone::new("").unwrap(),
            wrapped_key: [0; 24],
            session: Session::default(),
            last_activity: 0,
            batch: 1,
            totals: Totals::default(),
        };
        for number in 0..10_000 {
            terminals.add(new(number));
        }
        let own = (0..10_000).filter(|&number| terminals.place(&id(number)) == Some(&number)).count();
        assert!(own > 9_000, "{own}");
        let strangers = (10_000..20_000).filter(|&number| terminals.place(&id(number)).is_some()).count();
        assert!(strangers < 2_000, "{strangers}");
    }
}
