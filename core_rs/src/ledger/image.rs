//! The whole state as bytes: what a snapshot holds, and what the state's digest is taken over.
//!
//! An image is a row of sections, one a kind of thing, each a count of rows and then the rows in blocks. The order of
//! everything is the order of its numbers, so equal states have equal images, and [`Ledger::digest`] is BLAKE3 over the image.
//! Indexes are not in it; they are made anew.
//!
//! Always true here: an image is taken up whole or not at all, and only where it is a state that the ledger could be in as far
//! as one look tells: every index names somebody, every key one party, the sum over all accounts is zero.
//!
//! ```text
//! block      u32 bytes that follow · whole rows
//! section    one block: u64 rows; then blocks until all rows are there
//! image      head · accounts · merchants · terminals · holders · cards · days (u64 of them), for each: its date, its
//!            decisions · nonces · what few decisions have besides; then rules (one block) · counts of rules · open holds ·
//!            batches · the hotlist's changes · PINs · who went through which door · loans · late advices
//! ```

use super::accounts::{Accounts, Owner};
use super::batches::{Batches, Totals};
use super::bytes::{Decoder, Encoder};
use super::holds::Holds;
use super::hotlist::Hotlist;
use super::identities::{Extra, Identities, Remembered};
use super::loans::Loans;
use super::pins::Pins;
use super::presence::Presence;
use super::registry::{
    Card, CardClass, CardStatus, Category, Holder, HolderId, Keyed, Merchant, MerchantId, NONE, Purses, Registry, Table, Terminal,
    TerminalKind, TerminalStanding, Zone,
};
use super::rules::Rules;
use super::shelf::Shelf;
use super::usage::Counter;
use super::{Ledger, Policy};
use crate::calendar::Date;
use crate::card_number::CardNumber;
use crate::limits::{CLOCK_AHEAD_DAYS, MERCHANT_NAME_BYTES_MAX, POSITION_MAX};
use crate::session::{Nonces, Session};

/// Bytes after which a block is closed.
const BLOCK_BYTES: usize = 64 << 10;
/// Bytes of a block with its last row, at most.
pub const IMAGE_BLOCK_BYTES_MAX: usize = BLOCK_BYTES + 512;

const _: () = assert!(MERCHANT_NAME_BYTES_MAX + 64 < 512, "the longest row, a merchant's, fits behind a block's bound");

/// Where an image's blocks come from.
pub trait Blocks {
    /// The content of the next block.
    ///
    /// # Errors
    /// A sentence, where it cannot be read or is longer than [`IMAGE_BLOCK_BYTES_MAX`].
    fn next(&mut self) -> Result<&[u8], String>;
}

/// Gathers rows into blocks.
struct Writer<'s> {
    sink: &'s mut dyn FnMut(&[u8]),
    block: Vec<u8>,
}

impl Writer<'_> {
    fn close(&mut self) {
        let bytes = (self.block.len() - 4) as u32;
        if bytes > 0 {
            self.block[..4].copy_from_slice(&bytes.to_le_bytes());
            (self.sink)(&self.block);
            self.block.truncate(4);
        }
    }

    fn row(&mut self, write: impl FnOnce(&mut Encoder<'_>)) {
        write(&mut Encoder(&mut self.block));
        if self.block.len() >= BLOCK_BYTES {
            self.close();
        }
    }

    fn section<T>(&mut self, rows: impl ExactSizeIterator<Item = T>, write: impl Fn(&mut Encoder<'_>, T)) {
        self.row(|row| row.u64(rows.len() as u64));
        self.close();
        rows.for_each(|item| self.row(|row| write(row, item)));
        self.close();
    }
}

/// Takes the rows of blocks.
struct Reader<'s> {
    blocks: &'s mut dyn Blocks,
}

impl Reader<'_> {
    fn one<T>(&mut self, what: &str, read: impl FnOnce(&mut Decoder<'_>) -> Option<T>) -> Result<T, String> {
        let mut block = Decoder(self.blocks.next()?);
        read(&mut block).filter(|_| block.0.is_empty()).ok_or_else(|| format!("its {what} cannot be read"))
    }

    fn section(&mut self, what: &str, mut read: impl FnMut(&mut Decoder<'_>) -> Option<()>) -> Result<(), String> {
        let mut rows = self.one(what, count)?;
        while rows > 0 {
            let mut block = Decoder(self.blocks.next()?);
            while !block.0.is_empty() {
                rows = rows.checked_sub(1).ok_or_else(|| format!("it has more {what} than it says"))?;
                read(&mut block).ok_or_else(|| format!("one of its {what} is not possible"))?;
            }
        }
        Ok(())
    }
}

fn put_nonces(row: &mut Encoder<'_>, nonces: Option<Nonces>) {
    row.u8(u8::from(nonces.is_some()));
    if let Some(nonces) = nonces {
        row.bytes(&nonces.terminal);
        row.bytes(&nonces.switch);
    }
}

#[expect(clippy::option_option, reason = "unreadable, absent, there")]
fn take_nonces(row: &mut Decoder<'_>) -> Option<Option<Nonces>> {
    Some(match row.u8()? {
        0 => None,
        1 => Some(Nonces { terminal: row.array()?, switch: row.array()? }),
        _ => return None,
    })
}

fn count(row: &mut Decoder<'_>) -> Option<u64> {
    row.u64()
}

fn day(row: &mut Decoder<'_>) -> Option<Date> {
    row.u16().map(Date)
}

/// Adds a row whose key is new.
fn add<R: Keyed>(table: &mut Table<R>, row: R) -> Option<()> {
    table.find(row.key()).is_none().then(|| {
        table.add(row);
    })
}

impl Ledger {
    /// Gives the state's image to `sink`, block by block.
    pub fn image(&self, sink: &mut dyn FnMut(&[u8])) {
        let mut writer = Writer { sink, block: vec![0; 4] };
        writer.row(|row| {
            row.u64(self.position);
            row.u16(self.business_date.0);
            self.policy.put(row);
            row.u16(self.remembered_from.0);
        });
        writer.close();
        writer.section(0..self.accounts.count(), |row, account| {
            let (kind, index) = self.accounts.owner(account).packed();
            row.u64(self.accounts.balance(account).cast_unsigned());
            row.u8(kind);
            row.u32(index);
        });
        writer.section(self.registry.merchants.rows().iter(), |row, merchant| {
            row.text(merchant.id.as_str());
            row.text(&merchant.name);
            row.u8(merchant.category as u8);
            row.u16(merchant.fee_bp);
            row.u32(merchant.account);
        });
        writer.section(self.registry.terminals.rows().iter(), |row, terminal| {
            row.bytes(&terminal.id);
            row.u32(terminal.merchant);
            row.u8(terminal.kind as u8);
            row.u8(terminal.standing as u8);
            row.text(terminal.zone.as_str());
            row.bytes(&terminal.wrapped_key);
            put_nonces(row, terminal.session.current);
            put_nonces(row, terminal.session.previous);
            row.u64(terminal.last_activity);
            row.u32(terminal.batch);
            terminal.totals.put(row);
        });
        writer.section(self.registry.holders.rows().iter(), |row, holder| {
            row.text(holder.id.as_str());
            row.u32(holder.purses.cash());
            row.u32(holder.live_card);
            row.u64(holder.opening[0].cast_unsigned());
            row.u64(holder.opening[1].cast_unsigned());
        });
        writer.section(self.registry.cards.rows().iter(), |row, card| {
            row.u64(card.number.packed());
            row.u32(card.holder);
            row.u8(card.class as u8);
            row.u8(card.status as u8);
            row.u16(card.expires.0);
            row.u32(card.last_activity);
        });
        writer.row(|row| row.u64(self.identities.shelves().len() as u64));
        writer.close();
        for (date, shelf) in self.identities.shelves() {
            writer.row(|row| row.u16(date.0));
            writer.close();
            writer.section(shelf.entries(), |row, entry| entry.put(row));
            writer.section(shelf.nonces().iter(), |row, (position, nonce)| {
                row.u64(*position);
                row.bytes(nonce);
            });
            writer.section(shelf.extras().iter(), |row, (index, extra)| {
                row.u32(*index);
                extra.put(row);
            });
        }
        self.lists(&mut writer);
    }

    /// What there is little of.
    fn lists(&self, writer: &mut Writer<'_>) {
        writer.row(|row| self.rules.put(row));
        writer.close();
        writer.section(self.usage.begun().iter(), |row, position| row.u64(*position));
        writer.section(self.usage.counters().iter(), |row, counter| counter.put(row));
        writer.section(self.holds.rows(), Holds::put);
        writer.section(self.batches.rows(), Batches::put);
        writer.section(self.hotlist.rows(), Hotlist::put);
        writer.section(self.pins.rows(), Pins::put);
        writer.section(self.presence.rows(), Presence::put);
        writer.section(self.loans.rows(), Loans::put);
        writer.section(self.late.iter(), |row, ((date, identity, content), noted)| {
            row.u16(date.0);
            row.u64(*identity);
            for word in content {
                row.u64(*word);
            }
            row.u16(noted.0);
        });
    }

    /// BLAKE3 over the image: equal digests, equal states.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        self.image(&mut |block| {
            hasher.update(block);
        });
        *hasher.finalize().as_bytes()
    }

    /// The state whose image this is.
    ///
    /// # Errors
    /// A sentence that goes on after "it", where it is no state's.
    pub fn from_image(blocks: &mut dyn Blocks) -> Result<Self, String> {
        let mut reader = Reader { blocks };
        let (position, business_date, policy, remembered_from) = reader.one("head", |row| {
            let (position, business_date) = (row.u64()?, Date(row.u16()?));
            let policy = Policy::take(row)?;
            let head = (position, business_date, policy, Date(row.u16()?));
            (position <= POSITION_MAX && policy.is_possible()).then_some(head)
        })?;
        let accounts = read_accounts(&mut reader)?;
        let registry = read_registry(&mut reader, &accounts)?;
        let mut identities = Identities::default();
        let kept = remembered_from..=Date(business_date.0.saturating_add(CLOCK_AHEAD_DAYS));
        for _ in 0..reader.one("days", count)? {
            let last = identities.shelves().last_key_value().map(|(&date, _)| date);
            let is_next = |date: &Date| kept.contains(date) && last.is_none_or(|last| last < *date);
            let date = reader.one("day", |row| day(row).filter(is_next))?;
            identities.put(date, read_shelf(&mut reader, date, &registry, position)?);
        }
        let payees = Self::find_payees(&accounts);
        let mut ledger =
            Self { position, business_date, policy, remembered_from, registry, accounts, payees, identities, ..Self::new() };
        ledger.take_lists(&mut reader)?;
        if ledger.is_sound() { Ok(ledger) } else { Err("what it says to stand cannot".to_owned()) }
    }

    fn take_lists(&mut self, reader: &mut Reader<'_>) -> Result<(), String> {
        let [cards, holders, terminals] =
            [self.registry.cards.rows().len(), self.registry.holders.rows().len(), self.registry.terminals.rows().len()];
        self.rules = reader.one("rules", Rules::take)?;
        let rules = &self.rules;
        let last_position = self.position;
        reader.section("beginnings of rules", |row| {
            let position = row.u64().filter(|position| *position <= last_position)?;
            self.usage.begin(position);
            Some(())
        })?;
        if self.usage.begun().len() != rules.list().len() {
            return Err("it does not say when each rule came into force".to_owned());
        }
        let mut last = None;
        reader.section("counts", |row| {
            let counter = Counter::take(row, rules, holders)?;
            last.replace(counter).is_none_or(|last| last.is_before(&counter)).then(|| self.usage.put(counter))?
        })?;
        reader.section("holds", |row| self.holds.take(row, [cards, holders, terminals]))?;
        let purses = self.registry.holders.rows().iter().map(|holder| holder.purses.cash());
        for (holder, account) in (0..).zip(purses) {
            self.accounts.set_has_holds(account, self.holds.held(holder) > 0);
        }
        reader.section("batches", |row| self.batches.take_row(row, terminals))?;
        let registry = &self.registry;
        reader.section("hotlist", |row| {
            let card = row.u32()?;
            let number = registry.cards.rows().get(card as usize)?.number;
            self.hotlist.change(card, number);
            Some(())
        })?;
        reader.section("PINs", |row| self.pins.take(row, cards))?;
        reader.section("doors", |row| self.presence.take(row, holders))?;
        reader.section("loans", |row| self.loans.take(row, [cards, holders, terminals]))?;
        reader.section("late advices", |row| {
            let key = (Date(row.u16()?), row.u64()?, [row.u64()?, row.u64()?]);
            let noted = Date(row.u16()?);
            let in_order = self.late.last_key_value().is_none_or(|(&last, _)| last < key);
            self.late.insert(key, noted);
            in_order.then_some(())
        })
    }
}

fn read_accounts(reader: &mut Reader<'_>) -> Result<Accounts, String> {
    let mut accounts = Vec::new();
    reader.section("accounts", |row| {
        accounts.push((row.u64()?.cast_signed(), Owner::from_packed(row.u8()?, row.u32()?)?));
        Some(())
    })?;
    Accounts::restored(accounts.into_iter()).ok_or_else(|| "its accounts are not in order, or their sum is not zero".to_owned())
}

/// The decisions of a day, in a state that reaches to this position.
fn read_shelf(reader: &mut Reader<'_>, date: Date, registry: &Registry, position: u64) -> Result<Shelf, String> {
    let (mut shelf, mut extras, mut last) = (Shelf::default(), 0, 0);
    reader.section("decisions", |row| {
        let entry = Remembered::take(row)?;
        let named = (entry.identity(date).terminal() as usize) < registry.terminals.rows().len()
            && (entry.merchant() as usize) < registry.merchants.rows().len()
            && (last..=position).contains(&entry.position());
        (last, extras) = (entry.position(), extras + usize::from(entry.has_extra));
        shelf.add(&entry).filter(|_| named).map(drop)
    })?;
    let mut last = 0;
    reader.section("nonces", |row| {
        let (decided, nonce) = (row.u64()?, row.array()?);
        let is_next = decided > last && decided <= position;
        last = decided;
        shelf.keep_nonce(decided, nonce);
        is_next.then_some(())
    })?;
    let cards = registry.cards.rows().len();
    reader.section("decisions' rest", |row| {
        let (index, extra) = (row.u32()?, Extra::take(row, cards)?);
        shelf.restore_extra(index, extra)
    })?;
    if shelf.extras().len() == extras { Ok(shelf) } else { Err("one of its decisions lacks its rest".to_owned()) }
}

fn read_registry(reader: &mut Reader<'_>, accounts: &Accounts) -> Result<Registry, String> {
    let mut registry = Registry::new();
    let is = |account: u32, owner: Owner| account < accounts.count() && accounts.owner(account) == owner;
    let merchants = &mut registry.merchants;
    reader.section("merchants", |row| {
        let merchant = Merchant {
            id: MerchantId::new(row.text()?)?,
            name: row.text()?.into(),
            category: Category::from_number(row.u8()?)?,
            fee_bp: row.u16()?,
            account: row.u32()?,
        };
        let owner = Owner::Merchant(merchants.rows().len() as u32);
        is(merchant.account, owner).then(|| add(merchants, merchant))?
    })?;
    let (merchants, terminals) = (registry.merchants.rows().len(), &mut registry.terminals);
    reader.section("terminals", |row| {
        let terminal = Terminal {
            id: row.array()?,
            merchant: row.u32()?,
            kind: TerminalKind::from_number(row.u8()?)?,
            standing: TerminalStanding::from_number(row.u8()?)?,
            zone: Zone::new(row.text()?)?,
            wrapped_key: row.array()?,
            session: Session { current: take_nonces(row)?, previous: take_nonces(row)? },
            last_activity: row.u64()?,
            batch: row.u32()?,
            totals: Totals::take(row)?,
        };
        ((terminal.merchant as usize) < merchants).then(|| add(terminals, terminal))?
    })?;
    let holders = &mut registry.holders;
    holders.reserve(accounts.count() as usize / 2);
    reader.section("holders", |row| {
        let holder = Holder {
            id: HolderId::new(row.text()?)?,
            purses: Purses(row.u32()?),
            live_card: row.u32()?,
            opening: [row.u64()?.cast_signed(), row.u64()?.cast_signed()],
        };
        let index = holders.rows().len() as u32;
        let own = is(holder.purses.cash(), Owner::Cash(index)) && is(holder.purses.subsidy(), Owner::Subsidy(index));
        own.then(|| add(holders, holder))?
    })?;
    let (holders, cards) = (registry.holders.rows(), &mut registry.cards);
    cards.reserve(holders.len());
    reader.section("cards", |row| {
        let (number, holder) = (CardNumber::from_packed(row.u64()?)?, row.u32()?);
        let its_holder = holders.get(holder as usize)?;
        let card = Card {
            number,
            holder,
            purses: its_holder.purses,
            class: CardClass::from_number(row.u8()?)?,
            status: CardStatus::from_number(row.u8()?)?,
            expires: Date(row.u16()?),
            last_activity: row.u32()?,
        };
        let live = its_holder.live_card == cards.rows().len() as u32;
        (live == card.status.is_live()).then(|| add(cards, card))?
    })?;
    let cards = registry.cards.rows().len();
    if registry.holders.rows().iter().any(|holder| holder.live_card != NONE && holder.live_card as usize >= cards) {
        return Err("one of its holders has a card that is not there".to_owned());
    }
    Ok(registry)
}
