//! What must hold: of every answer, of every recovery, and when all has come to rest.

use std::collections::BTreeMap;
use std::sync::Arc;

use switch_core::calendar::Date;
use switch_core::iso8583::frame::{self, Split};
use switch_core::iso8583::{Message, Tpdu};
use switch_core::journal::{PerRecord, inspect_from};
use switch_core::ledger::Ledger;
use switch_core::ledger::accounts::{House, Owner};
use switch_core::ledger::identities::{Family, Identity};
use switch_core::replica::Replica;
use switch_core::snapshot;

use crate::disk::Lie;
use crate::message::{TOTALS, Totals};
use crate::model::calendar::{NO_DAY, month_day};
use crate::model::request::{self, class};
use crate::model::{Limits, Model};
use crate::terminals::{Heard, Sent};
use crate::world::{Ticket, Told, World};
use crate::{Failure, ensure};

/// In microseconds.
const HALF_YEAR: u64 = 182 * 86_400 * 1_000_000;
/// Bytes of a MAC.
const MAC_BYTES: usize = 8;

fn unframed(reply: &[u8]) -> Result<(Option<Tpdu>, Message<'_>, &[u8]), Failure> {
    let Split::Frame { tpdu, message, .. } = frame::split(reply) else { return Err(Failure("a reply is no frame".to_owned())) };
    let parsed = Message::parse(message).map_err(|error| Failure(format!("a reply cannot be read: {error}")))?;
    ensure!(parsed.fault().is_none(), "a reply is malformed: {parsed:?}");
    Ok((tpdu, parsed, message))
}

fn text(message: &Message<'_>, element: u8) -> Option<String> {
    message.text(element).map(|text| String::from_utf8_lossy(text).into_owned())
}

/// All of a reply but its MTI and its MAC.
fn body<'a>(message: &Message<'_>, bytes: &'a [u8]) -> &'a [u8] {
    &bytes[2..bytes.len() - if message.mac().is_some() { MAC_BYTES } else { 0 }]
}

/// DE74 to 77 and 86 to 89, where all of them are there; `Err` where only some are.
fn totals(message: &Message<'_>) -> Result<Option<Totals>, Failure> {
    let found = TOTALS.map(|element| message.number(element));
    ensure!(found.iter().all(Option::is_some) || found.iter().all(Option::is_none), "totals are not whole: {found:?}");
    Ok(found[0].map(|_| found.map(Option::unwrap_or_default)))
}

/// DE48's sub-elements, told apart a second time.
fn sub_elements(data: &str) -> Result<Vec<(u8, String)>, Failure> {
    let mut found = Vec::new();
    let mut rest = data;
    while !rest.is_empty() {
        let number = |text: Option<&str>| text.and_then(|text| text.parse::<u8>().ok());
        let (tag, length) = (number(rest.get(..2)), number(rest.get(2..4)));
        let value = length.and_then(|length| rest.get(4..4 + usize::from(length)));
        let (Some(tag), Some(value)) = (tag, value) else { return Err(Failure(format!("DE48 cannot be read: {data:?}"))) };
        found.push((tag, value.to_owned()));
        rest = &rest[4 + value.len()..];
    }
    Ok(found)
}

/// A reply as its terminal hears it.
pub(crate) fn heard(reply: &[u8]) -> Result<Heard, Failure> {
    let (_, message, _) = unframed(reply)?;
    Ok(Heard {
        code: text(&message, 39).unwrap_or_default(),
        number: text(&message, 37).and_then(|text| text.parse().ok()),
        batch: text(&message, 60).and_then(|text| text.parse().ok()),
        private: sub_elements(&text(&message, 48).unwrap_or_default())?,
        totals: totals(&message)?,
    })
}

fn purses(available: [i64; 2]) -> String {
    let purse = |kind: &str, fen: i64| format!("{kind}02156{}{:012}", if fen < 0 { 'D' } else { 'C' }, fen.unsigned_abs());
    purse("10", available[0]) + &purse("20", available[1])
}

impl World {
    /// A reply that leaves the switch says what the model says, and the same as before where its request was decided before.
    pub(crate) fn judge_reply(&mut self, ticket: &Ticket, reply: &[u8]) -> Result<(), Failure> {
        let sent = &ticket.sent;
        let (tpdu, message, bytes) = unframed(reply)?;
        let Some(expected) = &ticket.expected else {
            ensure!(message.mac().is_none(), "a reply to a corrupted frame carries a MAC");
            return Ok(());
        };
        ensure!(tpdu == sent.tpdu.map(Tpdu::reply), "the TPDU of {message:?} is not its request's, turned around");
        let draft = &sent.draft;
        ensure!(message.mti() == draft.mti + 10, "{message:?} answers MTI {}", draft.mti);
        let position = expected.position.map(|position| format!("{position:012}"));
        let said = [(39, text(&message, 39)), (41, text(&message, 41)), (37, text(&message, 37)), (38, text(&message, 38))];
        let approval = position
            .as_ref()
            .filter(|_| expected.code == "00" && [2, 4].contains(&class(draft.mti)))
            .map(|position| position[6..].to_owned());
        let own = String::from_utf8_lossy(&draft.terminal).into_owned();
        let should = [(39, Some(expected.code.to_owned())), (41, Some(own)), (37, position), (38, approval)];
        ensure!(said == should, "the answer to {sent} says {said:?} and should say {should:?}");
        let said = (text(&message, 54), text(&message, 48), message.number(11), message.number(13), message.number(15));
        let should = (
            expected.purses.map(purses),
            expected.private.clone(),
            Some(u64::from(draft.stan)),
            Some(u64::from(draft.month_day)),
            Some(u64::from(month_day(expected.day))),
        );
        ensure!(said == should, "the answer to {sent} says {said:?} and should say {should:?}");
        ensure!(totals(&message)? == expected.totals, "the totals in the answer to {sent} should be {:?}", expected.totals);
        if expected.is_new {
            judge_echo(sent, &message)?;
        }
        let proof = message
            .mac()
            .map(|(covered, tag)| sent.key.working(&draft.terminal).is_some_and(|key| key.verify(covered, &tag).is_ok()));
        ensure!(proof == expected.proved.then_some(true), "the MAC of the answer to {sent} is {proof:?}");
        if let Some(position) = expected.position {
            let body = body(&message, bytes);
            let first = self.bodies.entry(position).or_insert_with(|| body.to_vec());
            ensure!(first == body, "{sent} is answered otherwise than before: {first:x?}, now {body:x?}");
        }
        if expected.waits {
            self.told = self.told.max(expected.rests_on);
        }
        Ok(())
    }

    /// A terminal hears an answer: what it hears of a decision it has heard before, if it has heard any. DE13 has no year, so
    /// after half of one, by the right clock, the same message may be another.
    pub(crate) fn judge_told(&mut self, sent: &Sent, identity: Option<request::Identity>, reply: &[u8]) -> Result<(), Failure> {
        let (_, message, bytes) = unframed(reply)?;
        let position = text(&message, 37).and_then(|text| text.parse().ok());
        let (Some(position), Some(identity)) = (position, identity) else { return Ok(()) };
        let body = body(&message, bytes);
        let told = Told { position, identity, body: body.to_vec(), at: self.now };
        if let Some(before) = self.told_terminals.get(&sent.request)
            && self.now - before.at < HALF_YEAR
        {
            ensure!(before.body == body, "the terminal of {sent} was told {:x?}, now {body:x?}", before.body);
            return Ok(());
        }
        self.told_terminals.insert(sent.request, told);
        Ok(())
    }

    /// A start has found the journal to end at `position`; `lie` and `mark` are what the disk had done and what it said before.
    pub(crate) fn judge_recovery(&mut self, position: u64, lie: Option<Lie>, mark: u64, ledger: &Ledger) -> Result<(), Failure> {
        let appended = self.model.position;
        ensure!(position <= appended, "record {position} was recovered, and only {appended} were made");
        ensure!(ledger.position() == position, "the ledger was replayed to {} of {position}", ledger.position());
        let is_lost = position < self.told;
        if is_lost {
            let excuse = lie.filter(|lie| lie.takes_batch && !lie.followed && lie.power_cut && mark <= position);
            ensure!(excuse.is_some(), "record {} was acknowledged, and the journal ends at {position}, mark {mark}", self.told);
            let before = self.batch_ends.range(..self.told).next_back().copied().unwrap_or(0);
            ensure!(position >= before, "more than one batch is lost: it ends at {position} instead of {before}");
            self.coverage.count("lie.undetectable");
            self.over = true;
        }
        if let Some(digest) = self.boundaries.get(&position) {
            ensure!(*digest == ledger.digest(), "the state recovered at {position} is not the state that was there");
        } else {
            ensure!(position == 0, "record {position} ends no batch that was handed over");
        }
        let kind =
            if position < appended { "recovery.decision_lost_unacknowledged" } else { "recovery.decision_kept_unacknowledged" };
        if self.told < appended && appended > 0 {
            self.coverage.count(kind);
        }
        if let Some(follower) = &self.follower {
            let follows = follower.ledger().position();
            ensure!(
                self.disk.lie().is_some() || follows <= position,
                "the follower stands at {follows}, the journal ends at {position}"
            );
        }
        ensure!(self.model.go_back_to(position), "the journal ends at {position}, in the middle of a file");
        judge_ledger(&self.model, ledger)?;
        if !is_lost {
            self.judge_terminals(ledger)?;
        }
        self.boundaries.split_off(&(position + 1));
        self.batch_ends.split_off(&(position + 1));
        self.batch_ends.insert(position);
        self.bodies.split_off(&(position + 1));
        if self.disk.lie().is_some() && !is_lost {
            self.coverage.count("lie.outlived");
        }
        Ok(())
    }

    /// Every decision that a terminal was told of is in the ledger, as it was told.
    fn judge_terminals(&self, ledger: &Ledger) -> Result<(), Failure> {
        for (request, told) in &self.told_terminals {
            let position = told.position;
            ensure!(position <= ledger.position(), "request {request} was told of record {position}, which is not there");
            let (class, terminal, day, stan) = told.identity;
            let (Some(terminal), Ok(day)) = (ledger.registry().terminals.find(&terminal), u16::try_from(day - NO_DAY)) else {
                return Err(Failure(format!("the terminal of request {request} is not there")));
            };
            if !ledger.window().contains(&Date(day)) {
                continue;
            }
            let identity = Identity::new(Family::of(u16::from(class) * 100), terminal, Date(day), stan);
            let recalled = ledger.recall(identity).map(|(_, remembered)| remembered.position());
            ensure!(
                recalled == Some(position),
                "request {request} was told of record {position}, and the ledger knows {recalled:?}"
            );
        }
        Ok(())
    }

    /// The running switch and the model hold the same.
    pub(crate) fn judge_state(&self) -> Result<(), Failure> {
        match &self.server {
            Some(server) => judge_ledger(&self.model, server.lanes.authorizer().ledger()),
            None => Ok(()),
        }
    }

    /// All has come to rest: live ledger, a fresh replay and the follower are the same, and so is the model.
    pub(crate) fn judge_end(&mut self) -> Result<(), Failure> {
        for _ in 0..20 {
            self.drive()?;
        }
        self.judge_state()?;
        let Some(server) = &self.server else { return Err(Failure("the switch is gone although all is well".to_owned())) };
        ensure!(server.lanes.are_settled() && self.tickets.is_empty(), "replies {:?} never left", self.tickets.keys());
        let ledger = server.lanes.authorizer().ledger();
        self.judge_terminals(ledger)?;
        let digest = ledger.digest();
        // From the first record, or from the oldest snapshot where the beginning was taken away.
        let mut flags = BTreeMap::new();
        let mut replayed_from = 0;
        let replayed = snapshot::begin_whole(&*self.storage).and_then(|mut loaded| {
            let start = loaded.start();
            replayed_from = loaded.ledger.position();
            let mut each = |position: u64, record: &[u8]| {
                let flag = loaded.ledger.replay(position, record)?.0.outcome.flag;
                flags.extend(flag.map(|flag| (position, flag.code())));
                Ok(())
            };
            inspect_from(&self.storage, start.as_ref(), &mut PerRecord(&mut each)).map(|_| loaded.ledger)
        });
        let followed = (|| {
            let mut follower = match self.follower.take() {
                Some(follower) => follower,
                None => Replica::open_on(Arc::clone(&self.storage), u64::MAX).map_err(|error| error.to_string())?,
            };
            follower.advance(ledger.position())?;
            Ok::<_, String>(follower)
        })();
        if self.disk.lie().is_some() && (replayed.is_err() || followed.is_err()) {
            // The next start will refuse, and the follower says so now.
            self.coverage.count("follower.refused_damage");
            return Ok(());
        }
        let again = replayed.map_err(|error| Failure(format!("the journal cannot be replayed: {error}")))?;
        ensure!(again.digest() == digest, "a fresh replay gives another state");
        let should = self.model.flags().iter().filter(|(position, _)| **position > replayed_from);
        ensure!(
            should.clone().eq(flags.iter()),
            "the journal marks {flags:?} of what happened offline, and should mark {:?}",
            should.collect::<Vec<_>>()
        );
        let follower = followed.map_err(|error| Failure(format!("the follower cannot follow: {error}")))?;
        ensure!(follower.ledger().digest() == digest, "the follower's state is another");
        self.coverage.count("follower.compared");
        Ok(())
    }
}

/// The reply to something that was decided just now has the elements of its request that replies repeat.
fn judge_echo(sent: &Sent, message: &Message<'_>) -> Result<(), Failure> {
    let draft = &sent.draft;
    // A reversal may name the merchant that the terminal had before, and hears the one that it has.
    let merchant = text(message, 42).map(|own| own.trim_end().to_owned());
    let named = draft.merchant.map(str::to_owned);
    let named = if draft.mti / 100 == 4 && merchant.is_some() { named.and(merchant.clone()) } else { named };
    let said = (
        message.card_number().map(|card| card.digits().as_str().to_owned()),
        [3, 4, 12, 24, 70].map(|element| message.number(element)),
        (merchant, [49, 60].map(|element| text(message, element))),
    );
    let should = (
        draft.card.clone().filter(|_| draft.mti / 100 != 8),
        [
            draft.processing.map(u64::from),
            draft.amount,
            Some(u64::from(draft.time)),
            draft.nii.map(u64::from),
            draft.network.map(u64::from),
        ],
        (named, [draft.currency.then(|| "156".to_owned()), draft.batch.map(|batch| format!("{batch:06}"))]),
    );
    ensure!(said == should, "the answer to {sent} repeats {said:?} and should repeat {should:?}");
    Ok(())
}

/// A ledger holds what the model holds, and its accounts sum to zero.
fn judge_ledger(model: &Model, ledger: &Ledger) -> Result<(), Failure> {
    let accounts = ledger.accounts();
    let date = |date: Date| i64::from(date.0) + NO_DAY;
    let policy = ledger.policy();
    let limits = Limits {
        amount_max: policy.amount_max,
        identity_days: i64::from(policy.identity_days),
        hold_hours: policy.hold_hours,
        pin_tries_max: policy.pin_tries_max,
    };
    let held = (ledger.position(), date(ledger.business_date()), date(*ledger.window().start()), limits);
    let should = (model.position, model.day, model.remembered_from, model.limits);
    ensure!(held == should, "the ledger stands at {held:?}, the model at {should:?}");
    ensure!(accounts.sum() == 0, "the sum over all accounts is {}", accounts.sum());
    judge_accounts(model, ledger)?;
    judge_lists(model, ledger)
}

/// Every account holds what it should.
fn judge_accounts(model: &Model, ledger: &Ledger) -> Result<(), Failure> {
    let (registry, accounts) = (ledger.registry(), ledger.accounts());
    let house = model.house();
    let mut held = BTreeMap::new();
    let mut payees = [0; 4];
    let mut takings = BTreeMap::new();
    for account in 0..accounts.count() {
        let balance = accounts.balance(account);
        match accounts.owner(account) {
            Owner::House(own) => {
                let should = match own {
                    House::Suspense => house.suspense,
                    House::Grants => house.grants,
                    House::Fees => house.fees,
                    House::CashDesk => house.cash_desk,
                    House::BankClearing => 0,
                };
                ensure!(balance == should, "{} has {balance}, and should have {should}", own.name());
            }
            Owner::Cash(holder) => {
                let holder = &registry.holders[holder];
                let purses = [balance, accounts.balance(holder.purses.subsidy()), ledger.held(holder.purses)];
                held.insert(holder.id.as_str(), purses);
            }
            Owner::Subsidy(_) => {}
            Owner::Merchant(merchant) => drop(takings.insert(registry.merchants[merchant].id.as_str(), balance)),
            Owner::Payee(payee) => payees[payee as usize - 1] = balance,
        }
    }
    ensure!(payees == house.payees, "the payees have {payees:?}, and should have {:?}", house.payees);
    let should: BTreeMap<&str, i64> = model.all_takings().collect();
    ensure!(takings == should, "merchants have {takings:?}, and should have {should:?}");
    if !held.iter().map(|(id, purses)| (*id, *purses)).eq(model.all_purses()) {
        for (holder, should) in model.all_purses() {
            let held = held.get(holder);
            ensure!(held == Some(&should), "holder {holder} has {held:?}, and should have {should:?}: cash, subsidy, held");
        }
        return Err(Failure("there are holders that nobody knows".to_owned()));
    }
    Ok(())
}

/// Holds, loans, the hotlist, the rules and the terminals' batches are as they should be.
fn judge_lists(model: &Model, ledger: &Ledger) -> Result<(), Failure> {
    let registry = ledger.registry();
    let sizes = [registry.cards.rows().len(), registry.terminals.rows().len(), ledger.holds().count(), ledger.loans().count()];
    ensure!(
        sizes == model.sizes(),
        "the ledger has {sizes:?} cards, terminals, holds and loans, and should have {:?}",
        model.sizes()
    );
    for (number, amount) in model.all_holds() {
        let held = ledger.holds().get(number).map(|hold| hold.amount.cast_signed());
        ensure!(held == Some(amount), "hold {number} is of {held:?}, and should be of {amount}");
    }
    for (item, holder) in model.all_loans() {
        let lent = ledger.loans().find(item).map(|loan| registry.holders[loan.holder].id.as_str());
        ensure!(lent == Some(holder), "{item} is lent to {lent:?}, and should be to {holder}");
    }
    let (listed, version) = (ledger.hotlist().count(), ledger.hotlist().version());
    ensure!(
        (listed, version) == (model.listed().len(), model.hotlist_version()),
        "version {version} of the hotlist has {listed} cards, and should have {} and be {}",
        model.listed().len(),
        model.hotlist_version()
    );
    let rules = (ledger.rules().list().len(), model.rules().len());
    ensure!(rules.0 == rules.1, "{} rules are in force instead of {}", rules.0, rules.1);
    for terminal in registry.terminals.rows() {
        let open = model.open_batch(terminal.id);
        let should = (open, model.batch_totals(terminal.id, open));
        let held = (terminal.batch, terminal.totals.elements().map(|(_, total)| total));
        ensure!(
            held == should,
            "the open batch of {} is {held:?}, and should be {should:?}",
            String::from_utf8_lossy(&terminal.id)
        );
    }
    Ok(())
}
