//! The processes: the switch's clock, its journal's thread, its ends and its starts; and the follower's.

use std::sync::Arc;

use switch_core::authorizer::{Authorizer, Settings};
use switch_core::calendar::Date;
use switch_core::journal::{JournalError, Locked};
use switch_core::lanes::Lanes;
use switch_core::ledger::Policy;
use switch_core::limits::DECISION_BYTES_MAX;
use switch_core::mac::KeyEncryptionKey;
use switch_core::replica::Replica;
use switch_core::snapshot::{self, Resumed};

use crate::disk::Fault;
use crate::model::FOLLOWED_DAYS;
use crate::model::calendar::{Day, NO_DAY, campus_day, civil};
use crate::world::{DAY_MICROSECONDS, OPTIONS, Server, World, limits, note, take_nonce};
use crate::{Failure, ensure};

impl World {
    // --- the clock ---

    /// Time passes: up to one of these many units.
    pub(crate) fn let_pass(&mut self, unit: u64, most: [u64; 3]) {
        let most = most[self.rng.usize(..3)];
        self.now += self.rng.u64(..most) * unit;
    }

    pub(crate) fn move_clock(&mut self) {
        let hour = 3_600 * 1_000_000_i64;
        let day = 24 * hour;
        let (error, kind) = match self.rng.u8(..10) {
            0..3 => (0, "clock.jump_back"),
            3..5 => (self.clock_error + self.rng.i64(-14..14) * hour, "clock.jump_hours"),
            5..8 => (self.clock_error + self.rng.i64(-9..9) * day, "clock.jump_days"),
            _ => (self.rng.i64(-3..4) * 365 * day + self.rng.i64(-2..3) * day, "clock.jump_years"),
        };
        self.coverage.count(kind);
        self.clock_error = error;
        note!(self, "the switch's clock is ahead by {} h", error / hour);
    }

    /// What the switch's clock says.
    pub(crate) fn wall(&self) -> u64 {
        self.now.saturating_add_signed(self.clock_error)
    }

    pub(crate) fn keep_date(&mut self) -> Result<(), Failure> {
        let wall = self.wall();
        let Some(server) = &mut self.server else { return Ok(()) };
        let room = server.lanes.authorizer().log().has_room(DECISION_BYTES_MAX);
        if self.model.keep_date(wall, FOLLOWED_DAYS[0], room) {
            self.coverage.count("clock.cutover");
        }
        server.lanes.authorizer_mut().keep_date(wall);
        // Whatever the switch let lapse is let lapse, if it was due.
        let authorizer = server.lanes.authorizer();
        let room = authorizer.log().has_room(DECISION_BYTES_MAX);
        let lapsed = authorizer.ledger().position().saturating_sub(self.model.position);
        if self.model.let_lapse(wall, lapsed, room).is_none() {
            return Err(Failure(format!("{lapsed} holds lapsed, and not those that should")));
        }
        for _ in 0..lapsed {
            self.coverage.count("hold.lapsed");
        }
        let ahead = Some(campus_day(wall) - self.model.day).filter(|ahead| *ahead > FOLLOWED_DAYS[0] && self.model.day != NO_DAY);
        if ahead.is_some() {
            self.coverage.count("clock.ahead_not_followed");
        }
        let said = Day::from(server.lanes.authorizer().clock_ahead_days());
        ensure!(said == ahead.unwrap_or(0), "the clock is {ahead:?} days ahead, and the switch says {said}");
        self.check_position()
    }

    pub(crate) fn check_position(&self) -> Result<(), Failure> {
        let Some(server) = &self.server else { return Ok(()) };
        let authorizer = server.lanes.authorizer();
        let (ledger, journal) = (authorizer.ledger().position(), authorizer.log().position());
        ensure!(
            ledger == self.model.position && journal == ledger,
            "the model stands at {}, the ledger at {ledger}, the journal at {journal}",
            self.model.position
        );
        Ok(())
    }

    // --- the journal's thread ---

    pub(crate) fn drive(&mut self) -> Result<(), Failure> {
        let Some(server) = &mut self.server else { return Ok(()) };
        let honest = self.disk.lie().is_none();
        let driven = server.lanes.authorizer_mut().log_mut().drive();
        if let Some(lie) = self.disk.lie().filter(|_| honest) {
            note!(self, "the disk has lied: {lie:?}");
            if lie.takes_batch && driven.is_ok() && self.rng.bool() {
                // Somebody is told, and nothing more is written before the end.
                self.note_completed();
                self.settle()?;
                let power = self.rng.bool();
                self.end(power);
                return Ok(());
            }
        }
        match driven {
            // The batch's event is looked at now, or with the next messages.
            Ok(()) if self.rng.u8(..4) == 0 => Ok(()),
            Ok(()) => {
                self.note_completed();
                self.settle()
            }
            Err(error) => self.failed(&error.to_string()),
        }
    }

    pub(crate) fn note_completed(&mut self) {
        if let Some(server) = &mut self.server {
            server.lanes.note_completed();
        }
    }

    /// The process ends because its disk failed or the machine crashed; anything else is a failure of the run.
    pub(crate) fn failed(&mut self, error: &str) -> Result<(), Failure> {
        note!(self, "the switch ends: {error}");
        match self.disk.crash() {
            Some(fault) => self.end(fault == Fault::PowerCut),
            None if self.disk.take_failed() => {
                let power = self.rng.u8(..3) == 0;
                self.end(power);
            }
            None => return Err(Failure(format!("the switch ends without a fault of its disk: {error}"))),
        }
        Ok(())
    }

    /// The process is gone.
    pub(crate) fn end(&mut self, power_cut: bool) {
        note!(self, "{}", if power_cut { "power cut" } else { "process crash" });
        self.note_boundary();
        self.server = None;
        if power_cut {
            self.follower = None;
        }
        self.tickets.clear();
        self.imported = None;
        self.disk.restart(power_cut);
        (0..self.generations.len()).for_each(|connection| self.generations[connection] += 1);
    }

    /// An operator stops the switch: everything becomes durable first.
    pub(crate) fn stop(&mut self) -> Result<(), Failure> {
        for _ in 0..20 {
            self.drive()?;
            match &self.server {
                None => return Ok(()),
                Some(server) if server.lanes.are_settled() => break,
                Some(_) => {}
            }
        }
        if let Some(server) = &self.server {
            ensure!(server.lanes.are_settled(), "a switch that is told to end does not get done");
            self.coverage.count("switch.stopped");
            self.end(false);
        }
        Ok(())
    }

    // --- starts ---

    pub(crate) fn start_somehow(&mut self, wildness: u32) -> Result<(), Failure> {
        if wildness > 1 && self.rng.bool() && self.disk.has_unfinished() {
            // A start that is interrupted while it tidies up.
            self.arm(1);
        }
        match self.rng.u32(..30) {
            0 => {
                self.coverage.count("clock.closure");
                self.let_pass(DAY_MICROSECONDS, [9, 120, 400]);
            }
            1..4 => {
                self.limits = limits(&mut self.rng);
                self.coverage.count("switch.policy_changed");
            }
            4..11 if wildness > 1 => self.arm(3),
            11 => self.disk.arm_read(self.rng.u64(..12)),
            _ => {}
        }
        self.start(None)
    }

    pub(crate) fn start(&mut self, accepted: Option<Day>) -> Result<(), Failure> {
        // As they were before the start wrote anything.
        let (lie, mark) = (self.disk.lie(), self.disk.mark());
        let opened = Locked::on(&self.storage).and_then(|locked| snapshot::resume_driven(locked, &OPTIONS));
        let Resumed { ledger, journal, snapshot, passed_over } = match opened {
            Ok(resumed) => resumed,
            Err(error) => return self.start_refused(&error),
        };
        if !passed_over.is_empty() {
            self.coverage.count("snapshot.passed_over");
            let explained = self.disk.lie().is_some() || self.disk.take_failed();
            ensure!(explained, "a snapshot was passed over, and the disk has not lied: {passed_over:?}");
        }
        if snapshot.is_some() {
            self.coverage.count("snapshot.started_from");
        }
        note!(self, "started at {}, model {}, told {}", journal.position(), self.model.position, self.told);
        if journal.statistics().torn_bytes > 0 {
            self.coverage.count("recovery.torn_tail");
        }
        self.judge_recovery(journal.position(), lie, mark, &ledger)?;
        if self.over {
            return Ok(());
        }
        let wall = self.wall();
        let today = campus_day(wall);
        let ahead = today - self.model.day;
        let refuses = ahead > FOLLOWED_DAYS[1] && self.model.day != NO_DAY && accepted.is_none();
        let policy = Policy {
            amount_max: self.limits.amount_max,
            identity_days: u16::try_from(self.limits.identity_days).expect("a few days"),
            hold_hours: self.limits.hold_hours,
            pin_tries_max: self.limits.pin_tries_max,
        };
        let date = |day: Day| {
            let (year, month, day) = civil(day);
            Date::new(year as i16, month as i8, day as i8).expect("a day")
        };
        let settings = Settings {
            policy,
            timezone: "Asia/Shanghai".to_owned(),
            key: KeyEncryptionKey::new(&[7; KeyEncryptionKey::BYTES]),
            accept_date: accepted.map(date),
        };
        let authorizer = match Authorizer::new(ledger, journal, settings, take_nonce, wall) {
            Ok(authorizer) => authorizer,
            Err(error) => {
                if refuses {
                    self.coverage.count("clock.start_refused");
                    ensure!(error.contains("--accept-date"), "a start far ahead is refused otherwise: {error}");
                    self.end(false);
                    // The operator sets the clock right, or confirms the date where it is.
                    if std::mem::take(&mut self.clock_error) == 0 {
                        self.coverage.count("clock.closure_confirmed");
                        return self.start(Some(today));
                    }
                    return Ok(());
                }
                if self.disk_is_full && self.disk.crash().is_none() && error.contains("no room") {
                    self.end(false);
                    return Ok(());
                }
                return self.failed(&error);
            }
        };
        ensure!(!refuses, "a start {ahead} days ahead of the business date is not refused");
        if self.model.limits != self.limits {
            self.model.set_limits(self.limits);
        }
        self.model.keep_date(wall, Day::MAX, true);
        let segment = authorizer.log().statistics().segment;
        let mut lanes = Lanes::new(authorizer);
        lanes.after_command();
        self.server = Some(Server { lanes, segment });
        self.coverage.count("recovery.started");
        self.check_position()?;
        self.judge_state()?;
        self.settle()
    }

    fn start_refused(&mut self, error: &JournalError) -> Result<(), Failure> {
        note!(self, "the start is refused: {error}");
        let kind = match error {
            // Cut: the one snapshot that could stand in for what was taken away cannot be read.
            JournalError::Damaged { .. } | JournalError::Rejected { .. } | JournalError::Cut { .. } => Some("lie.refused_damaged"),
            JournalError::Lost { .. } => Some("lie.refused_lost"),
            // The repair itself was misdirected, and what is written once more is verified once more.
            JournalError::Io { error, .. } if error.to_string().contains("reads differently") => Some("lie.refused_damaged"),
            _ => None,
        };
        if let (Some(kind), Some(_)) = (kind, self.disk.lie()) {
            self.coverage.count(kind);
            self.over = true;
            return Ok(());
        }
        if matches!(error, JournalError::Io { .. }) {
            self.coverage.count("crash.while_starting");
            return self.failed(&error.to_string());
        }
        Err(Failure(format!("the start is refused, and the disk has not lied: {error}")))
    }

    // --- the follower ---

    pub(crate) fn follow(&mut self) -> Result<(), Failure> {
        if self.rng.u8(..40) == 0 {
            self.disk.arm_read(self.rng.u64(..3));
        }
        let followed = self.follow_once();
        match followed {
            Ok(()) => {}
            Err(error) => {
                self.follower = None;
                if self.disk.take_failed() {
                    return Ok(());
                }
                if self.disk.lie().is_none() {
                    return Err(Failure(format!("the follower refuses to go on, and the disk has not lied: {error}")));
                }
                self.coverage.count("follower.refused_damage");
                return Ok(());
            }
        }
        if self.rng.u8(..4) == 0 {
            self.take_snapshot()?;
        }
        let Some(replica) = &self.follower else { return Ok(()) };
        let ledger = replica.ledger();
        ensure!(ledger.accounts().sum() == 0, "the follower's accounts do not sum to zero");
        if let Some(digest) = self.boundaries.get(&ledger.position()) {
            ensure!(ledger.digest() == *digest, "the follower's state at {} is another", ledger.position());
            self.coverage.count("follower.compared");
        }
        Ok(())
    }

    /// The follower makes a snapshot of where it stands, and takes away what that makes superfluous. Whatever PostgreSQL has
    /// is not simulated: it is taken to be where the follower is.
    fn take_snapshot(&mut self) -> Result<(), Failure> {
        let Some(replica) = self.follower.as_ref().filter(|replica| replica.ledger().position() > 0) else { return Ok(()) };
        let position = replica.ledger().position();
        let retires = self.rng.bool();
        let done = replica.snapshot().and_then(|newest| {
            self.coverage.count(if newest == position { "snapshot.made" } else { "snapshot.newer_is_there" });
            replica.retire(retires, None)
        });
        note!(self, "a snapshot of record {position}: {done:?}");
        match done {
            Ok(retired) => {
                if retired > 0 {
                    self.coverage.count("snapshot.retired");
                }
                Ok(())
            }
            Err(error) if self.disk.crash().is_some() => self.failed(&error),
            // It is told and tried again later; a full disk, an error, or a snapshot that the disk has spoilt.
            Err(error) => {
                self.coverage.count("snapshot.refused");
                let explained = self.disk.take_failed() || self.disk_is_full || self.disk.lie().is_some();
                ensure!(explained, "a snapshot is refused without a fault of the disk: {error}");
                Ok(())
            }
        }
    }

    fn follow_once(&mut self) -> Result<(), String> {
        if self.follower.is_none() {
            // PostgreSQL may be new, or put back from a backup: then it is behind the snapshots.
            let until = if self.rng.u8(..4) == 0 { self.rng.u64(..=self.told) } else { u64::MAX };
            let opened = match Replica::open_on(Arc::clone(&self.storage), until) {
                Err(JournalError::Cut { .. }) => Replica::open_on(Arc::clone(&self.storage), u64::MAX),
                opened => opened,
            };
            let replica = opened.map_err(|error| error.to_string())?;
            if !replica.passed_over().is_empty() {
                self.coverage.count("snapshot.passed_over");
            }
            self.follower = Some(replica);
            self.coverage.count("follower.opened");
        }
        let Some(replica) = &mut self.follower else { return Ok(()) };
        if self.rng.bool() {
            let durable = replica.durable().map_err(|error| error.to_string())?;
            return if durable >= replica.ledger().position() { replica.advance(durable) } else { Ok(()) };
        }
        let most = self.rng.u64(1..30);
        for _ in 0..self.rng.u8(1..4) {
            if replica.collect(most).map_err(|error| error.to_string())?.is_some() {
                self.coverage.count("follower.chunk");
            }
        }
        Ok(())
    }
}
