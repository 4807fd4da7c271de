//! What must hold: of every answer, of every recovery, and when all has come to rest.

use std::sync::Arc;

use switch_core::calendar::Date;
use switch_core::iso8583::frame::{self, Split};
use switch_core::iso8583::{Message, Tpdu};
use switch_core::journal::inspect_from;
use switch_core::ledger::Ledger;
use switch_core::ledger::accounts::House;
use switch_core::ledger::identities::{Family, Identity};
use switch_core::ledger::registry::{HolderId, MerchantId};
use switch_core::replica::Replica;
use switch_core::snapshot;

use crate::disk::Lie;
use crate::model::{self, Model, NO_DAY, civil, month_day};
use crate::terminals::Sent;
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

/// DE39 of a reply as its terminal hears it, and the nonce of an approved sign-on.
pub(crate) fn heard(reply: &[u8]) -> Result<(String, Option<[u8; 8]>), Failure> {
    let (_, message, _) = unframed(reply)?;
    let nonce = message.sub_element(2).and_then(|text| u64::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok());
    Ok((text(&message, 39).unwrap_or_default(), nonce.map(u64::to_be_bytes)))
}

fn purses(available: [i64; 2]) -> String {
    format!("1002156C{:012}2002156C{:012}", available[0], available[1])
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
        let private = expected.session.map(|(nonce, day)| {
            let (year, month, day) = civil(day);
            format!("0216{:016X}0308{year:04}{month:02}{day:02}", u64::from_be_bytes(nonce))
        });
        let said = [(39, text(&message, 39)), (41, text(&message, 41)), (37, text(&message, 37)), (38, text(&message, 38))];
        let approval = position.as_ref().filter(|_| expected.approval).map(|position| position[6..].to_owned());
        let own = String::from_utf8_lossy(&draft.terminal).into_owned();
        let should = [(39, Some(expected.code.to_owned())), (41, Some(own)), (37, position), (38, approval)];
        ensure!(said == should, "the answer to {sent} says {said:?} and should say {should:?}");
        let said = (text(&message, 54), text(&message, 48), message.number(11), message.number(13), message.number(15));
        let should = (
            expected.purses.map(purses),
            private,
            Some(u64::from(draft.stan)),
            Some(u64::from(draft.month_day)),
            Some(u64::from(month_day(expected.day))),
        );
        ensure!(said == should, "the answer to {sent} says {said:?} and should say {should:?}");
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
    pub(crate) fn judge_told(&mut self, sent: &Sent, identity: Option<model::Identity>, reply: &[u8]) -> Result<(), Failure> {
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
        let replayed = snapshot::begin_whole(&*self.storage).and_then(|mut loaded| {
            let start = loaded.start();
            inspect_from(&self.storage, start.as_ref(), &mut loaded.ledger).map(|_| loaded.ledger)
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
        let follower = followed.map_err(|error| Failure(format!("the follower cannot follow: {error}")))?;
        ensure!(follower.ledger().digest() == digest, "the follower's state is another");
        self.coverage.count("follower.compared");
        Ok(())
    }
}

/// A ledger holds what the model holds, its accounts sum to zero, and no purse is below it.
fn judge_ledger(model: &Model, ledger: &Ledger) -> Result<(), Failure> {
    let (registry, accounts) = (ledger.registry(), ledger.accounts());
    let date = |date: Date| i64::from(date.0) + NO_DAY;
    let policy = (ledger.policy().amount_max, i64::from(ledger.policy().identity_days));
    let held = (ledger.position(), date(ledger.business_date()), date(*ledger.window().start()), policy);
    let should = (model.position, model.day, model.remembered_from, model.policy);
    ensure!(held == should, "the ledger stands at {held:?}, the model at {should:?}");
    ensure!(accounts.sum() == 0, "the sum over all accounts is {}", accounts.sum());
    let mut total = 0;
    for (holder, purses) in model.all_purses() {
        let found = HolderId::new(holder).and_then(|id| registry.holders.find(&id));
        let index = found.ok_or_else(|| Failure(format!("holder {holder} is not in the ledger")))?;
        let held = ledger.available(registry.holders[index].purses);
        ensure!(held == purses, "holder {holder} has {held:?}, and should have {purses:?}");
        ensure!(held.iter().all(|fen| *fen >= 0), "holder {holder} has less than nothing: {held:?}");
        total += held[0] + held[1];
    }
    for (merchant, takings) in model.all_takings() {
        let found = MerchantId::new(merchant).and_then(|id| registry.merchants.find(&id));
        let index = found.ok_or_else(|| Failure(format!("merchant {merchant} is not in the ledger")))?;
        let held = accounts.balance(registry.merchants[index].account);
        ensure!(held == takings, "merchant {merchant} has {held}, and should have {takings}");
        total += held;
    }
    let sources = [House::Suspense, House::Grants].map(|house| accounts.balance(house.account()));
    ensure!(sources == model.sources(), "suspense and grants are {sources:?}, and should be {:?}", model.sources());
    ensure!(total + sources[0] + sources[1] == 0, "purses, takings and sources do not cancel out");
    let sizes = [registry.cards.rows().len(), registry.terminals.rows().len()];
    ensure!(sizes == model.sizes(), "the ledger has {sizes:?} cards and terminals, and should have {:?}", model.sizes());
    Ok(())
}
