//! Accounts and the one way money moves between them.
//!
//! Always true here: the sum over all accounts is zero, because the only change is [`Accounts::post`], which takes from one
//! account what it gives to another. A balance is what the campus owes the account's owner, so a purse with money in it is
//! positive and the account that the money came from is negative. No account is taken below its floor ([`Owner::floor`]) or
//! filled beyond its ceiling: that is asked before a decision and asserted when it is posted.

use super::registry::Payee;
use crate::limits::{ACCOUNT_FEN_MAX, HOUSE_FEN_MAX};

/// An account's number. The first are the campus's own, in the order of [`House::ALL`].
pub type AccountId = u32;

/// The campus's own accounts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum House {
    /// Cash in the drawers of the counters.
    CashDesk = 0,
    /// Owed by the bank for top-ups.
    BankClearing = 1,
    /// Fees earned: management fees, card replacement.
    Fees = 2,
    /// Grants and subsidies handed out; the subsidies that cards are imported with come from here.
    Grants = 3,
    /// What has no home yet; the cash balances that cards are imported with come from here until the predecessor's books are closed.
    Suspense = 4,
}

impl House {
    /// All of them, in account order.
    pub const ALL: [Self; 5] = [Self::CashDesk, Self::BankClearing, Self::Fees, Self::Grants, Self::Suspense];

    /// Its account.
    #[must_use]
    pub fn account(self) -> AccountId {
        AccountId::from(self as u8)
    }

    /// Its name in reports and in PostgreSQL.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CashDesk => "cash_desk",
            Self::BankClearing => "bank_clearing",
            Self::Fees => "fees",
            Self::Grants => "grants",
            Self::Suspense => "suspense",
        }
    }
}

/// Whose an account is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// The campus itself.
    House(House),
    /// The cash purse of the holder with this index.
    Cash(u32),
    /// The subsidy purse of the holder with this index.
    Subsidy(u32),
    /// The merchant with this index.
    Merchant(u32),
    /// Whom the bills of this kind are owed to.
    Payee(Payee),
}

impl Owner {
    /// The kind's name in reports and in PostgreSQL.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::House(_) => "house",
            Self::Cash(_) => "cash",
            Self::Subsidy(_) => "subsidy",
            Self::Merchant(_) => "merchant",
            Self::Payee(_) => "payee",
        }
    }

    /// The least that its account may hold, in fen.
    #[must_use]
    #[inline]
    pub const fn floor(self) -> i64 {
        match self {
            Self::House(_) => -HOUSE_FEN_MAX,
            // What was sold offline, or taken back after it was spent, is a debt.
            Self::Cash(_) => -ACCOUNT_FEN_MAX,
            // A subsidy is never owed. A merchant and a payee give back what they took, and are paid out nothing yet.
            Self::Subsidy(_) | Self::Merchant(_) | Self::Payee(_) => 0,
        }
    }

    /// The most that its account may hold, in fen.
    #[must_use]
    #[inline]
    pub const fn ceiling(self) -> i64 {
        if matches!(self, Self::House(_)) { HOUSE_FEN_MAX } else { ACCOUNT_FEN_MAX }
    }

    /// The owner as a kind and an index, for the state's image.
    pub(super) const fn packed(self) -> (u8, u32) {
        match self {
            Self::House(house) => (0, house as u32),
            Self::Cash(holder) => (1, holder),
            Self::Subsidy(holder) => (2, holder),
            Self::Merchant(merchant) => (3, merchant),
            Self::Payee(payee) => (4, payee as u32),
        }
    }

    /// From the state's image.
    pub(super) fn from_packed(kind: u8, index: u32) -> Option<Self> {
        match kind {
            0 => House::ALL.get(index as usize).map(|&house| Self::House(house)),
            1 => Some(Self::Cash(index)),
            2 => Some(Self::Subsidy(index)),
            3 => Some(Self::Merchant(index)),
            4 => Payee::from_number(u8::try_from(index).ok()?).map(Self::Payee),
            _ => None,
        }
    }
}

/// One movement of money: `amount` fen from `debit` to `credit`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Movement {
    /// The account that gives.
    pub debit: AccountId,
    /// The account that receives.
    pub credit: AccountId,
    /// Fen, above zero.
    pub amount: u64,
}

impl Movement {
    /// By how much it changes this account, in fen.
    #[inline]
    fn change_of(&self, account: AccountId) -> i64 {
        let amount = self.amount.cast_signed();
        match (account == self.debit, account == self.credit) {
            (true, _) => -amount,
            (_, true) => amount,
            _ => 0,
        }
    }
}

/// The movements of one decision: none, one a purse, and one more where a surcharge or a discount is shared otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Movements {
    list: [Movement; 3],
    count: u8,
}

impl Movements {
    /// Adds a movement; one of nothing is left out.
    pub(super) fn push(&mut self, debit: AccountId, credit: AccountId, amount: u64) {
        if amount > 0 {
            self.list[usize::from(self.count)] = Movement { debit, credit, amount };
            self.count += 1;
        }
    }

    /// Them, in the order in which they were posted.
    #[must_use]
    pub fn as_slice(&self) -> &[Movement] {
        &self.list[..usize::from(self.count)]
    }

    /// What moved, in fen: the sum of the debits, and of the credits.
    #[must_use]
    #[inline]
    pub fn total(&self) -> u64 {
        self.as_slice().iter().map(|movement| movement.amount).sum()
    }
}

#[derive(Clone, Copy)]
struct Account {
    balance: i64,
    /// The owner's index, packed with the kind beside it: sixteen bytes in all.
    index: u32,
    kind: u8,
    /// Whether a part of it is held.
    has_holds: bool,
}

const _: () = assert!(size_of::<Account>() == 16, "millions are kept");

/// The floor and the ceiling of each kind of owner.
const BOUNDS: [(i64, i64); 5] = {
    let kinds = [Owner::House(House::Fees), Owner::Cash(0), Owner::Subsidy(0), Owner::Merchant(0), Owner::Payee(Payee::Other)];
    let mut bounds = [(0, 0); 5];
    let mut index = 0;
    while index < kinds.len() {
        bounds[kinds[index].packed().0 as usize] = (kinds[index].floor(), kinds[index].ceiling());
        index += 1;
    }
    bounds
};

impl Account {
    fn new(owner: Owner) -> Self {
        let (kind, index) = owner.packed();
        Self { balance: 0, index, kind, has_holds: false }
    }

    /// The least and the most that it may hold: those of its owner, by the kind alone.
    #[inline]
    fn bounds(&self) -> (i64, i64) {
        BOUNDS[usize::from(self.kind)]
    }

    #[inline]
    fn owner(&self) -> Owner {
        Owner::from_packed(self.kind, self.index).expect("it was packed from an owner")
    }
}

/// Every account there is.
pub struct Accounts {
    accounts: Vec<Account>,
}

impl Accounts {
    pub(super) fn new() -> Self {
        Self { accounts: House::ALL.iter().map(|&house| Account::new(Owner::House(house))).collect() }
    }

    /// Accounts with balances, from the state's image; `None` where the campus's own do not come first,
    /// one is beyond its floor or ceiling, or the sum is not zero.
    pub(super) fn restored(accounts: impl Iterator<Item = (i64, Owner)>) -> Option<Self> {
        let restored = Self { accounts: accounts.map(|(balance, owner)| Account { balance, ..Account::new(owner) }).collect() };
        let houses = restored.accounts.iter().take_while(|account| matches!(account.owner(), Owner::House(_)));
        let in_order = houses.map(Account::owner).eq(House::ALL.map(Owner::House));
        let rest = restored.accounts.get(House::ALL.len()..)?;
        let bounded = |account: &Account| (account.bounds().0..=account.bounds().1).contains(&account.balance);
        let parties = rest.iter().all(|account| !matches!(account.owner(), Owner::House(_)));
        let bounded = restored.accounts.iter().all(bounded);
        (in_order && parties && bounded && restored.sum() == 0).then_some(restored)
    }

    pub(super) fn open(&mut self, owner: Owner) -> AccountId {
        self.accounts.push(Account::new(owner));
        self.accounts.len() as AccountId - 1
    }

    /// The balance in fen.
    ///
    /// # Panics
    /// If there is no such account.
    #[must_use]
    pub fn balance(&self, account: AccountId) -> i64 {
        self.accounts[account as usize].balance
    }

    /// Whose it is.
    ///
    /// # Panics
    /// If there is no such account.
    #[must_use]
    pub fn owner(&self, account: AccountId) -> Owner {
        self.accounts[account as usize].owner()
    }

    /// The balance in fen, and whether a part of it is held.
    #[inline]
    pub(super) fn balance_and_holds(&self, account: AccountId) -> (i64, bool) {
        let account = &self.accounts[account as usize];
        (account.balance, account.has_holds)
    }

    /// Takes note of whether a part of it is held.
    pub(super) fn set_has_holds(&mut self, account: AccountId, has_holds: bool) {
        self.accounts[account as usize].has_holds = has_holds;
    }

    /// How many there are; their numbers run from 0.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.accounts.len() as u32
    }

    /// The sum over all accounts in fen. Zero, or the ledger is broken.
    #[must_use]
    pub fn sum(&self) -> i128 {
        self.accounts.iter().map(|account| i128::from(account.balance)).sum()
    }

    /// Whether these movements, one after the other, keep every account between its floor and its ceiling. Asked before the point
    /// of no return.
    pub(super) fn can_post(&self, movements: &Movements) -> bool {
        let list = movements.as_slice();
        // Where there is room for all of it at once there is room for each, in whatever order.
        let fits = |amount: i64| {
            list.iter().all(|movement| {
                let (debit, credit) = (&self.accounts[movement.debit as usize], &self.accounts[movement.credit as usize]);
                debit.balance >= debit.bounds().0 + amount && credit.balance <= credit.bounds().1 - amount
            })
        };
        movements.total() <= ACCOUNT_FEN_MAX.unsigned_abs() && fits(movements.total().cast_signed()) || self.can_post_in_turn(list)
    }

    #[cold]
    fn can_post_in_turn(&self, list: &[Movement]) -> bool {
        list.iter().enumerate().all(|(index, movement)| {
            let balance = |account: AccountId| {
                self.balance(account) + list[..index].iter().map(|before| before.change_of(account)).sum::<i64>()
            };
            i64::try_from(movement.amount).is_ok_and(|amount| {
                amount <= ACCOUNT_FEN_MAX
                    && balance(movement.debit) >= self.accounts[movement.debit as usize].bounds().0 + amount
                    && balance(movement.credit) <= self.accounts[movement.credit as usize].bounds().1 - amount
            })
        })
    }

    /// Moves the money.
    pub(super) fn post(&mut self, movements: &Movements) {
        for movement in movements.as_slice() {
            assert!(
                movement.amount > 0 && movement.debit != movement.credit,
                "a movement takes something from one account to another"
            );
            let amount = i64::try_from(movement.amount).expect("an amount is checked before it is posted");
            let debit = &mut self.accounts[movement.debit as usize];
            debit.balance = debit.balance.checked_sub(amount).expect("room is checked before it is posted");
            assert!(debit.balance >= debit.bounds().0, "no account is taken below its floor");
            let credit = &mut self.accounts[movement.credit as usize];
            credit.balance = credit.balance.checked_add(amount).expect("room is checked before it is posted");
            assert!(credit.balance <= credit.bounds().1, "no account is filled beyond its ceiling");
        }
    }

    /// Bytes held.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.accounts.capacity() * size_of::<Account>()
    }

    /// Changes a balance by itself, which nothing in the ledger can: a fault for the tests of those who look for faults.
    #[cfg(test)]
    pub(crate) fn tamper(&mut self, account: AccountId, fen: i64) {
        self.accounts[account as usize].balance += fen;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn posting_keeps_the_sum_at_zero() {
        let mut accounts = Accounts::new();
        let (cash, merchant) = (accounts.open(Owner::Cash(0)), accounts.open(Owner::Merchant(0)));
        let mut movements = Movements::default();
        movements.push(House::Suspense.account(), cash, 500);
        movements.push(cash, merchant, 120);
        accounts.post(&movements);
        assert_eq!((accounts.balance(cash), accounts.balance(merchant), accounts.balance(4)), (380, 120, -500));
        assert_eq!(accounts.sum(), 0);
    }

    fn one(debit: AccountId, credit: AccountId, amount: u64) -> Movements {
        let mut movements = Movements::default();
        movements.push(debit, credit, amount);
        movements
    }

    #[test]
    fn floors_are_kept_by_the_question_and_by_the_answer() {
        let mut accounts = Accounts::new();
        let (cash, subsidy) = (accounts.open(Owner::Cash(0)), accounts.open(Owner::Subsidy(0)));
        let merchant = accounts.open(Owner::Merchant(0));
        let debt = ACCOUNT_FEN_MAX.unsigned_abs();
        for (account, amount, owed) in [(cash, 300, debt), (subsidy, 200, 0), (merchant, 100, 0)] {
            accounts.post(&one(4, account, amount));
            accounts.post(&one(account, 0, amount));
            assert!(owed == 0 || accounts.can_post(&one(account, 0, owed)));
            assert!(!accounts.can_post(&one(account, 0, owed + 1)));
            accounts.post(&one(0, account, amount));
        }
        accounts.tamper(4, 600 - HOUSE_FEN_MAX);
        assert!(accounts.can_post(&one(4, cash, 0)) && !accounts.can_post(&one(4, cash, 1)));
    }

    #[test]
    #[should_panic(expected = "no account is taken below its floor")]
    fn a_purse_is_not_overdrawn_unseen() {
        let mut accounts = Accounts::new();
        let (subsidy, merchant) = (accounts.open(Owner::Subsidy(0)), accounts.open(Owner::Merchant(0)));
        accounts.post(&one(subsidy, merchant, 1));
    }

    #[test]
    #[should_panic(expected = "no account is filled beyond its ceiling")]
    fn an_account_is_not_overfilled_unseen() {
        let mut accounts = Accounts::new();
        let cash = accounts.open(Owner::Cash(0));
        accounts.post(&one(0, cash, ACCOUNT_FEN_MAX.unsigned_abs()));
        accounts.post(&one(2, cash, 1));
    }

    #[test]
    fn nothing_is_no_movement_and_the_ceiling_is_kept() {
        let mut accounts = Accounts::new();
        let cash = accounts.open(Owner::Cash(0));
        let mut movements = Movements::default();
        movements.push(0, cash, 0);
        assert!(movements.as_slice().is_empty());
        movements.push(0, cash, ACCOUNT_FEN_MAX.unsigned_abs());
        assert!(accounts.can_post(&movements));
        accounts.post(&movements);
        let mut one = Movements::default();
        one.push(1, cash, 1);
        assert!(!accounts.can_post(&one));
        let mut over = Movements::default();
        over.push(1, 2, ACCOUNT_FEN_MAX.unsigned_abs() + 1);
        assert!(!accounts.can_post(&over));
        // Two that fit alone, but not together; and one that has room only behind the other.
        let merchant = accounts.open(Owner::Merchant(0));
        let movements = |list: &[(AccountId, AccountId, u64)]| {
            let mut movements = Movements::default();
            for &(debit, credit, amount) in list {
                movements.push(debit, credit, amount);
            }
            movements
        };
        assert!(!accounts.can_post(&movements(&[(0, merchant, 1), (1, merchant, ACCOUNT_FEN_MAX.unsigned_abs())])));
        accounts.post(&movements(&[(0, merchant, 100)]));
        assert!(!accounts.can_post(&movements(&[(merchant, 0, 60), (merchant, 1, 41)])));
        assert!(accounts.can_post(&movements(&[(merchant, 0, 60), (merchant, 1, 40)])));
        assert!(accounts.can_post(&movements(&[(0, merchant, 50), (merchant, 1, 150)])));
    }
}
