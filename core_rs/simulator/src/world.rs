//! One run: the switch in the middle, and around it what a seed makes happen.
//!
//! How it works: [`World::run`] takes some hundred steps. A step is a terminal's move, a delivery, a batch written by the
//! journal, a look of the follower, an operator's file, a move of a clock, or a fault. Whatever the switch does is held against
//! the model at once ([`crate::judge`]). At the end everything works again, every terminal insists until it has its answers,
//! and all is compared once more.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use switch_core::iso8583::frame::{self, Split};
use switch_core::journal::{Journal, Options, RECORD_OVERHEAD_BYTES, Storage};
use switch_core::lanes::{Lanes, Origin};
use switch_core::limits::{DECISION_BYTES_MAX, JOURNAL_RECORD_BYTES_MAX};
use switch_core::replica::Replica;

use crate::coverage::Coverage;
use crate::disk::{Change, Disk, Fault};
use crate::model::calendar::{campus_day, day_number};
use crate::model::request::{Identity, Operation};
use crate::model::{Expected, Limits, Model};
use crate::terminals::{Habits, Move, Notice, Receipt, Scene, Sent, Terminal, corrupted};
use crate::{Failure, Outcome, ensure};

/// A line of the trace, where one is wanted.
macro_rules! note {
    ($world:expr, $($words:tt)+) => {
        if $world.trace {
            println!($($words)+);
        }
    };
}
pub(crate) use note;

/// The smallest batches and segments that the journal takes, so that a run goes through several.
const BATCH_BYTES_MAX: usize = JOURNAL_RECORD_BYTES_MAX + RECORD_OVERHEAD_BYTES;
pub(crate) const OPTIONS: Options =
    Options { segment_bytes: (BATCH_BYTES_MAX as u64 + 112).next_multiple_of(4096) + 2 * 4096, batch_bytes_max: BATCH_BYTES_MAX };
pub(crate) const DISK_BYTES: u64 = 64 << 20;
/// Connections that terminals share.
pub(crate) const CONNECTIONS: usize = 7;
pub(crate) const SECOND: u64 = 1_000_000;
pub(crate) const DAY_MICROSECONDS: u64 = 86_400 * SECOND;

/// Limits as a campus may have them.
pub(crate) fn limits(rng: &mut fastrand::Rng) -> Limits {
    Limits {
        amount_max: rng.u32(500..5_000),
        identity_days: rng.i64(1..10),
        hold_hours: [1, 1, 2, 24, 72][rng.usize(..5)],
        pin_tries_max: rng.u8(1..4),
    }
}

thread_local! {
    /// The switch's nonces: a count, so that the model knows the next one.
    static NONCE: Cell<u64> = const { Cell::new(0) };
}

fn next_nonce() -> [u8; 8] {
    (NONCE.get() | 0xabcd << 48).to_be_bytes()
}

pub(crate) fn take_nonce() -> [u8; 8] {
    let nonce = next_nonce();
    NONCE.set(NONCE.get() + 1);
    nonce
}

/// A reply that the switch owes.
pub(crate) struct Ticket {
    pub(crate) sent: Rc<Sent>,
    /// Under which it is decided; `None` where its date is none.
    identity: Option<Identity>,
    /// `None` for a frame that was corrupted on its way.
    pub(crate) expected: Option<Expected>,
}

/// What a terminal was told of a decision.
pub(crate) struct Told {
    pub(crate) position: u64,
    pub(crate) identity: Identity,
    /// The answer without MTI and MAC.
    pub(crate) body: Vec<u8>,
    /// When, by the right clock.
    pub(crate) at: u64,
}

/// On its way.
pub(crate) enum Packet {
    Request(Rc<Sent>, u32),
    Garbage(Vec<u8>, usize),
    Reply { sent: Rc<Sent>, identity: Option<Identity>, generation: u32, bytes: Rc<Vec<u8>> },
}

/// The process.
pub(crate) struct Server {
    pub(crate) lanes: Lanes,
    pub(crate) segment: u64,
}

/// One run.
pub struct World {
    /// How often replies were let go.
    settlings: u64,
    pub(crate) rng: fastrand::Rng,
    pub(crate) trace: bool,
    pub(crate) hasher: blake3::Hasher,
    pub(crate) coverage: Coverage,
    pub(crate) disk: Disk,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) server: Option<Server>,
    pub(crate) follower: Option<Replica>,
    pub(crate) model: Model,
    pub(crate) terminals: Vec<Terminal>,
    /// What this run is like.
    pub(crate) habits: Habits,
    receipts: Vec<Receipt>,
    /// By card, the PINs as their holders know them.
    pub(crate) pins: BTreeMap<String, String>,
    pub(crate) generations: Vec<u32>,
    pub(crate) network: Vec<Packet>,
    pub(crate) tickets: BTreeMap<u64, Ticket>,
    messages: u64,
    pub(crate) cards_entered: u32,
    requests: usize,
    /// The right time.
    pub(crate) now: u64,
    /// What the switch's clock is ahead by, in microseconds.
    pub(crate) clock_error: i64,
    pub(crate) limits: Limits,
    pub(crate) disk_is_full: bool,
    /// Positions after which a batch may have ended, with the state's digest.
    pub(crate) boundaries: BTreeMap<u64, [u8; 32]>,
    /// The highest position that anybody was told of.
    pub(crate) told: u64,
    /// Positions after which batches have ended.
    pub(crate) batch_ends: BTreeSet<u64>,
    /// The operator's files that are not known to be durable: their last position.
    pub(crate) imported: Option<u64>,
    /// By position, the stored answer: all but MTI and MAC.
    pub(crate) bodies: BTreeMap<u64, Vec<u8>>,
    /// By request.
    pub(crate) told_terminals: BTreeMap<usize, Told>,
    /// Ended by damage that was refused or cannot be detected.
    pub(crate) over: bool,
}

impl World {
    /// A campus on a new disk, with its switch started.
    ///
    /// # Errors
    /// Where not even that goes right.
    pub fn new(seed: u64, trace: bool) -> Result<Self, Failure> {
        let mut rng = fastrand::Rng::with_seed(seed);
        NONCE.set(1);
        let disk = Disk::new(rng.u64(..), rng.u8(..3) == 0, DISK_BYTES);
        let days = [(2026, 11, 22), (2026, 12, 30), (2028, 2, 27), (2027, 6, 30), (2027, 12, 31)];
        let (year, month, day) = days[rng.usize(..days.len())];
        let midnight = u64::try_from(day_number(year, month, day).expect("a day")).expect("after 1970") * 86_400 - 8 * 3_600;
        let mut world = Self {
            now: midnight * SECOND + rng.u64(..DAY_MICROSECONDS),
            trace,
            hasher: blake3::Hasher::new(),
            coverage: Coverage::default(),
            storage: Arc::new(disk.clone()),
            disk,
            server: None,
            follower: None,
            model: Model::default(),
            terminals: Vec::new(),
            habits: Habits::default(),
            receipts: Vec::new(),
            pins: BTreeMap::new(),
            generations: vec![0; CONNECTIONS],
            network: Vec::new(),
            tickets: BTreeMap::new(),
            messages: 0,
            cards_entered: 0,
            requests: 0,
            clock_error: 0,
            limits: limits(&mut rng),
            disk_is_full: false,
            boundaries: BTreeMap::new(),
            told: 0,
            batch_ends: BTreeSet::new(),
            imported: None,
            bodies: BTreeMap::new(),
            told_terminals: BTreeMap::new(),
            over: false,
            settlings: 0,
            rng,
        };
        let created = Journal::create_on(&*world.storage, *b"simulated campus", &OPTIONS);
        created.map_err(|error| Failure(format!("no journal could be made: {error}")))?;
        world.start(None)?;
        world.import_campus()?;
        let kinds: Vec<&str> = world.terminals.iter().map(|terminal| terminal.kind).collect();
        world.habits = Habits::draw(&mut world.rng, &kinds);
        Ok(world)
    }

    /// The whole run.
    ///
    /// # Errors
    /// What it showed to be wrong.
    pub fn run(mut self) -> Result<Outcome, Failure> {
        let steps = self.rng.u32(80..500);
        let wildness = self.rng.u32(1..6);
        for _ in 0..steps {
            self.step(wildness)?;
            if self.over {
                break;
            }
        }
        if !self.over {
            self.calm_down()?;
        }
        self.coverage.add(&self.disk.take_coverage());
        self.hasher.update(&self.model.position.to_le_bytes());
        Ok(Outcome { coverage: self.coverage, digest: *self.hasher.finalize().as_bytes() })
    }

    fn step(&mut self, wildness: u32) -> Result<(), Failure> {
        self.now += self.rng.u64(..5 * SECOND);
        if self.server.is_none() && self.rng.u8(..3) == 0 {
            return self.start_somehow(wildness);
        }
        let kind = self.rng.u32(..1_000);
        self.hasher.update(&kind.to_le_bytes());
        match kind {
            0..300 => self.terminal_moves(),
            300..640 => return self.deliver(),
            640..830 => return self.drive(),
            830..900 => return self.follow(),
            900..920 => return self.operate(),
            920..930 => self.let_pass(SECOND, [600, 40_000, 90_000]),
            930..945 => self.disk.write_back(),
            _ if self.rng.u32(..6) >= wildness => {}
            945..953 => self.move_clock(),
            953..978 => self.arm(6),
            978..982 => {
                self.disk_is_full = !self.disk_is_full && self.rng.u8(..3) > 0;
                self.disk.resize(if self.disk_is_full { self.disk.used() } else { DISK_BYTES });
                note!(self, "the disk is {}", if self.disk_is_full { "full" } else { "not full any more" });
            }
            982..991 => {
                let power = self.rng.bool();
                self.coverage.count(if power { "crash.power_idle" } else { "crash.process_idle" });
                self.end(power);
            }
            991..996 => return self.stop(),
            _ => {
                self.disk.flip();
                note!(self, "a bit may have turned over: {:?}", self.disk.lie());
            }
        }
        Ok(())
    }

    pub(crate) fn arm(&mut self, changes_max: u64) {
        let fault = match self.rng.u8(..16) {
            0..5 => Fault::ProcessCrash,
            5..10 => Fault::PowerCut,
            10..14 => Fault::Error,
            14 => Fault::Lost,
            _ => Fault::Misdirected,
        };
        let rare = [Change::OtherWrite, Change::Create, Change::Rename, Change::Remove];
        match rare.get(self.rng.usize(..12)) {
            Some(change) => {
                note!(self, "armed: {fault:?} at the next {change:?}");
                self.disk.arm_at(fault, *change);
            }
            None => {
                let changes = self.rng.u64(..changes_max);
                note!(self, "armed: {fault:?} after {changes} changes");
                self.disk.arm(fault, changes);
            }
        }
    }

    // --- terminals and the network ---

    pub(crate) fn scene<T>(&mut self, with: impl FnOnce(&mut Vec<Terminal>, &mut Scene<'_>) -> T) -> T {
        let seconds = self.now / SECOND + 8 * 3_600;
        let of_day = u32::try_from(seconds % 86_400).expect("seconds of a day");
        let mut scene = Scene {
            rng: &mut self.rng,
            coverage: &mut self.coverage,
            today: campus_day(self.now),
            time: of_day / 3_600 * 10_000 + of_day / 60 % 60 * 100 + of_day % 60,
            amount_max: self.limits.amount_max,
            requests: &mut self.requests,
            receipts: &mut self.receipts,
            pins: &self.pins,
            habits: &self.habits,
        };
        with(&mut self.terminals, &mut scene)
    }

    fn terminal_moves(&mut self) {
        let index = self.habits.active[self.rng.usize(..self.habits.active.len())];
        let moved = self.scene(|terminals, scene| (index, terminals[index].act(scene)));
        match moved {
            (_, Move::Sends(sent)) => self.send(sent),
            (index, Move::Vanishes) => self.drop_connection(self.terminals[index].connection),
        }
    }

    fn drop_connection(&mut self, connection: usize) {
        self.generations[connection] += 1;
        self.coverage.count("network.connection_lost");
    }

    fn send(&mut self, sent: Vec<Sent>) {
        for sent in sent.into_iter().map(Rc::new) {
            let connection = self.terminals[sent.terminal].connection;
            let generation = self.generations[connection];
            note!(self, "T{} sends {}: {sent}", sent.terminal, sent.request);
            match self.rng.u8(..40) {
                0..2 => self.coverage.count("network.dropped"),
                2..4 => {
                    self.coverage.count("network.doubled");
                    self.network.push(Packet::Request(Rc::clone(&sent), generation));
                    self.network.push(Packet::Request(sent, generation));
                }
                4 if sent.key != crate::message::Key::None => {
                    self.coverage.count("network.corrupted");
                    let packet = Packet::Request(corrupted(&sent, &mut self.rng), generation);
                    self.network.push(packet);
                }
                5 => {
                    self.coverage.count("network.garbage");
                    let bytes = (0..self.rng.usize(1..40)).map(|_| self.rng.u8(..)).collect();
                    self.network.push(Packet::Garbage(bytes, connection));
                    self.network.push(Packet::Request(sent, generation));
                }
                _ => self.network.push(Packet::Request(sent, generation)),
            }
        }
    }

    fn deliver(&mut self) -> Result<(), Failure> {
        let mut handled = false;
        self.note_completed();
        self.keep_date()?;
        for _ in 0..self.rng.u8(1..5) {
            if self.network.is_empty() {
                break;
            }
            let place = self.rng.usize(..self.network.len());
            match self.network.swap_remove(place) {
                Packet::Reply { sent, identity, generation, bytes } => self.hear(&sent, identity, generation, &bytes)?,
                _ if self.server.is_none() => self.coverage.count("network.lost_for_a_dead_switch"),
                Packet::Request(sent, generation) => {
                    if generation == self.generations[self.terminals[sent.terminal].connection] {
                        self.handle(&sent, generation)?;
                        handled = true;
                    }
                }
                Packet::Garbage(bytes, connection) => self.take_garbage(&bytes, connection)?,
            }
        }
        if self.rng.u8(..16) == 0 {
            self.judge_state()?;
        }
        if handled { self.settle() } else { Ok(()) }
    }

    /// Random bytes on a connection: whatever they are taken for, they change nothing.
    fn take_garbage(&mut self, bytes: &[u8], connection: usize) -> Result<(), Failure> {
        let Some(server) = &mut self.server else { return Ok(()) };
        let origin = Origin { slot: connection as u32, generation: u32::MAX, since: u64::MAX };
        let wall = self.now.saturating_add_signed(self.clock_error);
        let closes = match frame::split(bytes) {
            Split::Incomplete => false,
            Split::Refused(_) => true,
            Split::Frame { tpdu, message, .. } => server.lanes.handle(wall, tpdu, message, origin).is_err(),
        };
        if closes {
            self.drop_connection(connection);
        }
        self.check_position()
    }

    pub(crate) fn handle(&mut self, sent: &Rc<Sent>, generation: u32) -> Result<(), Failure> {
        let wall = self.wall();
        let Some(server) = &mut self.server else { return Ok(()) };
        let Split::Frame { tpdu, message, consumed } = frame::split(&sent.bytes) else {
            return Err(Failure("a terminal's own frame is none".to_owned()));
        };
        ensure!(consumed == sent.bytes.len() && tpdu == sent.tpdu, "a terminal's own frame is taken apart otherwise");
        let room = server.lanes.authorizer().log().has_room(DECISION_BYTES_MAX);
        let expected = sent.intact.then(|| self.model.handle(wall, &sent.draft, sent.key, room, next_nonce()));
        self.messages += 1;
        let slot = self.terminals[sent.terminal].connection as u32;
        let handled = server.lanes.handle(wall, tpdu, message, Origin { slot, generation, since: self.messages });
        self.hasher.update(&sent.bytes);
        match (handled, expected) {
            (Ok(handled), Some(expected)) => {
                let code = handled.response.code();
                note!(self, "the switch handles {}: {code}, at {}", sent.request, self.model.position);
                ensure!(
                    code == expected.code,
                    "request {} is answered {code}, and should be {}: {sent}",
                    sent.request,
                    expected.code
                );
                ensure!(handled.proved == expected.proved, "the proof of {sent} is seen otherwise");
                let operation = Operation::of(&sent.draft).name();
                ensure!(handled.operation.name() == operation, "{sent} is taken for {}", handled.operation.name());
                self.coverage.answer(operation, code);
                expected.events.iter().for_each(|event| self.coverage.count(event));
                let identity = self.model.identity(&sent.draft);
                self.tickets.insert(self.messages, Ticket { sent: Rc::clone(sent), identity, expected: Some(expected) });
            }
            (Ok(handled), None) => {
                let code = handled.response.code();
                ensure!(["30", "58", "63"].contains(&code), "a corrupted frame is answered {code}: {sent}");
                self.tickets.insert(self.messages, Ticket { sent: Rc::clone(sent), identity: None, expected: None });
            }
            (Err(_), None) => self.drop_connection(slot as usize),
            (Err(error), Some(_)) => return Err(Failure(format!("{sent} cannot be read: {error}"))),
        }
        self.check_position()
    }

    /// Lets everything leave that may.
    pub(crate) fn settle(&mut self) -> Result<(), Failure> {
        self.note_boundary();
        // The pump may keep a batch open for a moment; here every fourth time, until the next.
        self.settlings += 1;
        let held = self.settlings.is_multiple_of(4);
        while let Some(lane) = self.server.as_mut().and_then(|server| server.lanes.leaving(held)) {
            let mut origins = lane.origins();
            for (origin, replies, mut bytes) in lane.runs() {
                for _ in 0..replies {
                    let Split::Frame { consumed, .. } = frame::split(bytes) else {
                        return Err(Failure(format!("a reply is no frame: {bytes:x?}")));
                    };
                    let (reply, rest) = bytes.split_at(consumed);
                    let own = origins.next().ok_or_else(|| Failure("a reply without an origin".to_owned()))?;
                    ensure!(
                        (own.slot, own.generation) == (origin.slot, origin.generation),
                        "a reply leaves for another connection"
                    );
                    self.emit(*own, reply)?;
                    bytes = rest;
                }
                ensure!(bytes.is_empty(), "more leaves than replies");
            }
            drop(origins);
            if let Some(server) = &mut self.server {
                server.lanes.take_back(lane);
            }
        }
        let Some(server) = &mut self.server else { return Ok(()) };
        let journal = server.lanes.authorizer().log();
        self.batch_ends.insert(journal.durable());
        if self.imported.is_some_and(|position| journal.durable() >= position) {
            self.told = self.told.max(self.imported.take().unwrap_or(0));
            self.coverage.count("import.applied");
        }
        if journal.statistics().segment > server.segment {
            server.segment = journal.statistics().segment;
            self.coverage.count("switch.segment_begun");
        }
        Ok(())
    }

    /// A reply has left the switch: from now on it counts as told.
    fn emit(&mut self, origin: Origin, reply: &[u8]) -> Result<(), Failure> {
        self.hasher.update(reply);
        if origin.since == u64::MAX {
            return Ok(());
        }
        let ticket = self.tickets.remove(&origin.since).ok_or_else(|| Failure(format!("reply {} comes twice", origin.since)))?;
        self.judge_reply(&ticket, reply)?;
        let Ticket { sent, identity, .. } = ticket;
        match self.rng.u8(..20) {
            0 => self.coverage.count("network.dropped"),
            chance => {
                let bytes = Rc::new(reply.to_vec());
                let generation = origin.generation;
                let packet = || Packet::Reply { sent: Rc::clone(&sent), identity, generation, bytes: Rc::clone(&bytes) };
                if chance == 1 {
                    self.coverage.count("network.doubled");
                    self.network.push(packet());
                }
                self.network.push(packet());
            }
        }
        Ok(())
    }

    pub(crate) fn hear(
        &mut self,
        sent: &Rc<Sent>,
        identity: Option<Identity>,
        generation: u32,
        bytes: &[u8],
    ) -> Result<(), Failure> {
        let terminal = &mut self.terminals[sent.terminal];
        if generation != self.generations[terminal.connection] || !sent.intact {
            return Ok(());
        }
        let heard = crate::judge::heard(bytes)?;
        let notice = terminal.hear(sent.request, &heard, &mut self.receipts, &mut self.coverage);
        note!(self, "T{} hears {} to {}", sent.terminal, heard.code, sent.request);
        match notice {
            Notice::None => {}
            Notice::Miscounted(difference) => return Err(Failure(format!("T{}: {difference}", sent.terminal))),
            Notice::ListRead(version) => {
                self.coverage.count("hotlist.read");
                let listed = self.model.hotlist_at(version);
                let (_, own) = self.terminals[sent.terminal].hotlist();
                ensure!(*own == listed, "T{} has the hotlist {own:?}, and version {version} is {listed:?}", sent.terminal);
            }
        }
        self.judge_told(sent, identity, bytes)
    }

    pub(crate) fn note_boundary(&mut self) {
        if let Some(server) = &self.server {
            let ledger = server.lanes.authorizer().ledger();
            self.boundaries.entry(ledger.position()).or_insert_with(|| ledger.digest());
        }
    }
}
