//! The pump: sockets in, decisions, durable batches, sockets out, in waves.
//!
//! trio owns the process and calls [`Reactor::wave`] when the epoll descriptor is readable; one wave drains every ready
//! socket, has each message handled, hands the records to the journal's thread and sends the replies whose records are
//! durable. A wave goes on while there is something to do, within its budget, and lingers a moment where traffic is dense.
//!
//! What several connections have sent is read before the first of it is handled, so that the core can look ahead at what
//! their messages will need.
//!
//! Always true here: only one thread is ever in here, so there are no locks; a reply that waits for a batch leaves after
//! that batch is on stable storage and not before; every buffer has a bound from `limits`; a peer that breaks the protocol
//! loses its own connection and nothing else.
//!
//! How replies wait is the business of [`crate::lanes`], which knows no sockets: here they are sent when it gives them out.

mod company;
mod connection;
mod report;

pub use report::Statistics;

use company::Company;
use connection::{Connection, Slot};

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

use crate::authorizer::Authorizer;
use crate::calendar::Timestamp;
use crate::iso8583::Unreadable;
use crate::iso8583::frame::{self, Split};
use crate::journal::Journal;
use crate::lanes::{Lanes, Origin};
use crate::ledger::Response;
use crate::limits::{
    EVENTS_MAX, FRAME_BYTES_MAX, FRAME_MICROSECONDS_MAX, LINGER_MICROSECONDS, READ_BYTES, REPLY_BYTES_MAX, SLICE_MICROSECONDS,
    UNSENT_BYTES_MAX, UNSENT_MICROSECONDS_MAX, UNSENT_TOTAL_BYTES_MAX,
};

/// Bounds that the configuration sets.
#[derive(Clone, Copy)]
pub struct Bounds {
    /// Connections at a time.
    pub connections_max: usize,
    /// Messages in a row without a good MAC after which a connection is closed.
    pub mac_failures_max: u32,
}

/// The token of the journal's event in the epoll set; sockets have slot and generation.
const JOURNAL_TOKEN: u64 = u64::MAX;

/// The most that is read from one connection at a time, with the beginning of a frame that came before.
const SHARE_BYTES: usize = READ_BYTES + FRAME_BYTES_MAX + 2;

/// What a connection has sent and nobody has handled yet: the bytes of the reactor's input from `start` to `end`.
struct Arrival {
    slot: u32,
    generation: u32,
    start: usize,
    end: usize,
    /// When the first frame among them began, on the monotonic clock.
    since: u64,
}

/// The pump with all that it pumps through.
pub struct Reactor {
    epoll: OwnedFd,
    lanes: Lanes,
    company: Company,
    bounds: Bounds,
    slots: Vec<Slot>,
    free: Vec<u32>,
    open: usize,
    input: Box<[u8]>,
    /// What stands in the input, in its order; never two of one connection.
    arrivals: Vec<Arrival>,
    dooms: Vec<u32>,
    /// Slot and generation of those that had proved nothing when they came, the longest there first; at most two for each
    /// place, for some of them have gone or have proved themselves since.
    unproved: VecDeque<(u32, u32)>,
    /// Connections that epoll has reported and that were not served yet: token and what they are ready for.
    ready: VecDeque<(u64, epoll::EventFlags)>,
    /// When epoll reported them.
    gathered: u64,
    /// Bytes in all connections' `unsent`.
    unsent_bytes: usize,
    /// Whether the open batch is being kept open although the journal is free.
    held: bool,
    draining: bool,
    started: Instant,
    /// The wall clock of this turn: the moment of its decisions.
    wall: Timestamp,
    statistics: Statistics,
}

/// Microseconds since 1970.
#[must_use]
pub fn wall_clock() -> Timestamp {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

impl Reactor {
    /// A pump around an authorizer.
    ///
    /// # Errors
    /// The system's, where it gives no epoll descriptor.
    pub fn new(authorizer: Authorizer<Journal>, bounds: Bounds) -> std::io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, authorizer.log().event(), epoll::EventData::new_u64(JOURNAL_TOKEN), epoll::EventFlags::IN)?;
        Ok(Self {
            epoll,
            lanes: Lanes::new(authorizer),
            company: Company::default(),
            bounds,
            slots: Vec::new(),
            free: Vec::new(),
            open: 0,
            input: vec![0; READ_BYTES + SHARE_BYTES].into_boxed_slice(),
            arrivals: Vec::new(),
            dooms: Vec::new(),
            unproved: VecDeque::new(),
            ready: VecDeque::new(),
            gathered: 0,
            unsent_bytes: 0,
            held: false,
            draining: false,
            started: Instant::now(),
            wall: wall_clock(),
            statistics: Statistics::default(),
        })
    }

    /// The epoll descriptor: readable when a wave has something to do.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// The authorizer.
    #[must_use]
    pub fn authorizer(&self) -> &Authorizer<Journal> {
        self.lanes.authorizer()
    }

    /// The authorizer, for commands that do not come from terminals. What they append leaves with the next batch.
    pub fn authorizer_mut(&mut self) -> &mut Authorizer<Journal> {
        self.lanes.authorizer_mut()
    }

    /// What was counted.
    #[must_use]
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// Connections that are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.open
    }

    fn monotonic(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    /// Does all there is to do, for about `budget` microseconds. `true`: there is more, call again without waiting.
    ///
    /// # Panics
    /// Where epoll itself fails: nothing can be served then.
    pub fn wave(&mut self, budget: u64) -> bool {
        self.statistics.waves += 1;
        let start = self.monotonic();
        let mut linger = 0;
        loop {
            if self.ready.is_empty() && !self.gather(linger) && !self.held {
                return false;
            }
            self.wall = wall_clock();
            self.lanes.authorizer_mut().keep_date(self.wall);
            self.serve_ready();
            self.settle(true);
            self.close_doomed();
            if self.lanes.bytes() >= REPLY_BYTES_MAX {
                self.wait_for_journal();
            }
            let spent = self.monotonic() - start;
            if spent >= budget {
                return true;
            }
            linger = if self.held {
                self.patience()
            } else if self.lanes.are_waiting() {
                // A batch that is being written reports within this wave's time or soon after, so that is worth waiting for.
                budget - spent
            } else {
                LINGER_MICROSECONDS
            };
        }
    }

    /// Asks epoll what is ready, waiting for at most `linger` microseconds. `false`: nothing is.
    fn gather(&mut self, linger: u64) -> bool {
        let mut events = Vec::<epoll::Event>::with_capacity(EVENTS_MAX);
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(linger as u32) * 1_000 };
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => panic!("epoll_wait failed: {error}"),
        }
        self.gathered = self.monotonic();
        for event in &events {
            let (token, flags) = (event.data.u64(), event.flags);
            if token == JOURNAL_TOKEN {
                self.lanes.note_completed();
            } else {
                self.ready.push_back((token, flags));
            }
        }
        !events.is_empty()
    }

    /// Serves ready connections in turn, for a slice of time: where many peers send without end, batches still leave and come
    /// back between two slices, and the last in the row is reached.
    fn serve_ready(&mut self) {
        let end = self.monotonic() + SLICE_MICROSECONDS;
        while let Some((token, flags)) = self.ready.pop_front() {
            let (slot, generation) = (token as u32, (token >> 32) as u32);
            if self.slots[slot as usize].generation != generation || self.slots[slot as usize].connection.is_none() {
                continue;
            }
            if flags.contains(epoll::EventFlags::OUT) {
                self.send_unsent(slot);
            }
            if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
                // Level-triggered: what is left for lack of room is reported again.
                if self.lanes.bytes() < REPLY_BYTES_MAX {
                    self.read(slot, generation, self.gathered);
                    if self.arrived() > READ_BYTES {
                        self.handle_arrivals(self.gathered);
                    }
                }
            }
            if self.monotonic() >= end {
                break;
            }
        }
        self.handle_arrivals(self.gathered);
    }

    /// Bytes of the input that wait to be handled.
    fn arrived(&self) -> usize {
        self.arrivals.last().map_or(0, |arrival| arrival.end)
    }

    fn read(&mut self, slot: u32, generation: u32, now: u64) {
        let start = self.arrived();
        let Some(connection) = &mut self.slots[slot as usize].connection else { return };
        let share = &mut self.input[start..start + SHARE_BYTES];
        let mut filled = connection.partial.len();
        share[..filled].copy_from_slice(&connection.partial);
        let since = if filled > 0 { connection.partial_since } else { now };
        match recv(&connection.socket, &mut share[filled..], RecvFlags::DONTWAIT) {
            Ok((_, 0)) => {
                // The peer has said its last word; what it asked before is still answered.
                return if connection.doomed.is_some() { self.close(slot, "peer") } else { self.doom(slot, "peer") };
            }
            Ok((_, count)) => filled += count,
            Err(Errno::AGAIN | Errno::INTR) => return,
            Err(_) => return self.close(slot, "reset"),
        }
        self.statistics.bytes[0] += (filled - connection.partial.len()) as u64;
        if connection.doomed.is_some() {
            return;
        }
        connection.partial.clear();
        self.arrivals.push(Arrival { slot, generation, start, end: start + filled, since });
    }

    /// Handles what has arrived, in the order in which it was read.
    fn handle_arrivals(&mut self, now: u64) {
        if self.arrivals.is_empty() {
            return;
        }
        let (input, mut arrivals) = (std::mem::take(&mut self.input), std::mem::take(&mut self.arrivals));
        // Only for those who hold a terminal's key: what a stranger sends is not looked at before its MAC.
        let known = arrivals
            .iter()
            .filter(|arrival| self.slots[arrival.slot as usize].connection.as_ref().is_some_and(|connection| connection.proved));
        self.lanes.authorizer().look_ahead(known.flat_map(|arrival| frame::messages(&input[arrival.start..arrival.end])));
        for arrival in arrivals.drain(..) {
            self.handle_arrival(&arrival, &input[arrival.start..arrival.end], now);
        }
        (self.input, self.arrivals) = (input, arrivals);
    }

    fn handle_arrival(&mut self, arrival: &Arrival, input: &[u8], now: u64) {
        let Arrival { slot, generation, mut since, .. } = *arrival;
        let mut ahead = input;
        let end = loop {
            match frame::split(ahead) {
                Split::Incomplete => break None,
                Split::Refused(error) => break Some(error.reason()),
                Split::Frame { tpdu, message, consumed } => {
                    ahead = &ahead[consumed..];
                    if let Err(reason) = self.handle(slot, generation, tpdu, message, since) {
                        break Some(reason);
                    }
                    since = now;
                }
            }
        };
        if let Some(reason) = end {
            return self.doom(slot, reason);
        }
        if !ahead.is_empty()
            && let Some(connection) = &mut self.slots[slot as usize].connection
        {
            connection.partial.extend_from_slice(ahead);
            connection.partial_since = since;
        }
    }

    fn handle(
        &mut self,
        slot: u32,
        generation: u32,
        tpdu: Option<frame::Tpdu>,
        message: &[u8],
        since: u64,
    ) -> Result<(), &'static str> {
        let handled = self.lanes.handle(self.wall, tpdu, message, Origin { slot, generation, since });
        let handled = handled.map_err(Unreadable::reason)?;
        self.statistics.answers.count(handled.operation, handled.response);
        let Some(connection) = &mut self.slots[slot as usize].connection else { return Ok(()) };
        connection.waiting += 1;
        if handled.response == Response::SecurityViolation {
            self.statistics.mac_failures += 1;
            connection.mac_failures += 1;
            if connection.mac_failures >= self.bounds.mac_failures_max {
                return Err("mac_failures");
            }
        } else if handled.proved {
            connection.mac_failures = 0;
            connection.proved = true;
        }
        Ok(())
    }

    /// Microseconds for which the open batch is worth keeping open.
    fn patience(&self) -> u64 {
        self.company.patience(self.lanes.open_replies(), self.lanes.open_since(), self.monotonic())
    }

    /// Hands over what was appended and sends what may leave. A batch that expects company is kept open if it `may_wait`.
    fn settle(&mut self, may_wait: bool) {
        loop {
            let leaving = self.lanes.durable_replies();
            if leaving > 0 {
                self.company.note_leaving(leaving, self.lanes.open_replies(), self.monotonic());
            }
            let journal_is_free = leaving > 0 || !self.lanes.are_waiting();
            self.held = may_wait && journal_is_free && self.patience() > 0;
            let Some(lane) = self.lanes.leaving(self.held) else { break };
            for (origin, replies, bytes) in lane.runs() {
                self.send(origin.slot, origin.generation, replies, bytes);
            }
            let now = self.monotonic();
            for origin in lane.origins() {
                self.statistics.latency.record(now.saturating_sub(origin.since));
            }
            self.lanes.take_back(lane);
            if leaving > 0 {
                self.company.note_left(now);
            }
        }
    }

    fn send(&mut self, slot: u32, generation: u32, replies: u32, bytes: &[u8]) {
        let place = &mut self.slots[slot as usize];
        let Some(connection) = place.connection.as_mut().filter(|_| place.generation == generation) else { return };
        connection.waiting -= replies;
        let mut sent = 0;
        if connection.unsent.is_empty() {
            match send(&connection.socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => sent = count,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => return self.close(slot, "reset"),
            }
        }
        self.statistics.bytes[1] += sent as u64;
        if sent < bytes.len() {
            if connection.unsent.is_empty() {
                (connection.behind, connection.behind_since) = (bytes.len() - sent, self.started.elapsed().as_micros() as u64);
            }
            connection.unsent.extend_from_slice(&bytes[sent..]);
            self.unsent_bytes += bytes.len() - sent;
            if connection.unsent.len() > UNSENT_BYTES_MAX || self.unsent_bytes > UNSENT_TOTAL_BYTES_MAX {
                return self.close(slot, "slow_reader");
            }
            self.watch(slot);
        }
        self.note_done(slot);
    }

    fn note_done(&mut self, slot: u32) {
        if self.slots[slot as usize].connection.as_ref().is_some_and(Connection::is_done) {
            self.dooms.push(slot);
        }
    }

    fn send_unsent(&mut self, slot: u32) {
        let now = self.monotonic();
        let Some(connection) = &mut self.slots[slot as usize].connection else { return };
        match send(&connection.socket, &connection.unsent, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(count) => {
                connection.unsent.drain(..count);
                connection.behind = connection.behind.saturating_sub(count);
                if connection.behind == 0 {
                    (connection.behind, connection.behind_since) = (connection.unsent.len(), now);
                }
                self.unsent_bytes -= count;
                self.statistics.bytes[1] += count as u64;
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => return self.close(slot, "reset"),
        }
        if let Some(connection) = &mut self.slots[slot as usize].connection
            && connection.unsent.is_empty()
        {
            // Given back: those who were slow once would together hold what only a few may at a time.
            connection.unsent = Vec::new();
            self.watch(slot);
            self.note_done(slot);
        }
    }

    /// After a command that did not come from a terminal: hands over what it appended.
    pub fn after_command(&mut self) {
        self.lanes.after_command();
        self.settle(false);
        self.close_doomed();
    }

    /// Waits a moment for the journal alone: replies have reached their bound, and reading on would only add to them.
    fn wait_for_journal(&mut self) {
        let mut descriptors = [PollFd::from_borrowed_fd(self.authorizer().log().event(), PollFlags::IN)];
        let timeout = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        // An interruption or a time-out only means that the next turn looks again.
        let _ = poll(&mut descriptors, Some(&timeout));
    }

    /// Once a second: the business date, and peers that began a frame and never ended it, or do not take their replies.
    pub fn tick(&mut self) {
        self.tick_at(self.monotonic(), wall_clock());
    }

    /// [`Self::tick`] at a moment of the monotonic clock, in microseconds since the start, and of the wall clock.
    pub fn tick_at(&mut self, now: u64, wall: Timestamp) {
        self.lanes.authorizer_mut().keep_date(wall);
        for slot in 0..self.slots.len() as u32 {
            let Some(connection) = &self.slots[slot as usize].connection else { continue };
            if !connection.unsent.is_empty() && now.saturating_sub(connection.behind_since) > UNSENT_MICROSECONDS_MAX {
                self.close(slot, "slow_reader");
            } else if !connection.partial.is_empty() && now.saturating_sub(connection.partial_since) > FRAME_MICROSECONDS_MAX {
                self.doom(slot, "half_frame");
            }
        }
        self.settle(false);
        self.close_doomed();
    }

    /// Ends the service: reads what has arrived, takes nothing more, and answers. `true` once everything is durable and every
    /// peer has its answers.
    pub fn drain(&mut self) -> bool {
        if !self.draining {
            let now = self.monotonic();
            self.wall = wall_clock();
            for slot in 0..self.slots.len() as u32 {
                let place = &self.slots[slot as usize];
                // Whoever is to be closed is not read any more, but still waits for answers.
                if place.connection.as_ref().is_some_and(|connection| connection.doomed.is_none()) {
                    self.read(slot, place.generation, now);
                    self.handle_arrivals(now);
                    self.settle(false);
                }
            }
            self.draining = true;
            (0..self.slots.len() as u32).for_each(|slot| self.watch(slot));
        }
        self.lanes.note_completed();
        self.settle(false);
        self.close_doomed();
        let mut done = self.lanes.are_settled();
        for connection in self.slots.iter().filter_map(|slot| slot.connection.as_ref()) {
            done &= connection.has_its_replies();
        }
        if done {
            for connection in self.slots.iter().filter_map(|slot| slot.connection.as_ref()) {
                // The peer may be gone already.
                let _ = shutdown(&connection.socket, Shutdown::Write);
            }
        }
        done
    }
}
