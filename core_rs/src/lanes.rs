//! When a reply may leave: the rule that nobody is told of what is not durable, without a socket or a thread.
//!
//! [`Lanes`] takes messages to the authorizer, hands batches to the journal, and gives out replies. The reactor sends what it
//! gives out over sockets; the simulator over a network of its own. So what is proved there is what serves here.
//!
//! Always true here: a reply that says or rests on a decision is given out only after the batch of that decision, and so
//! every record before it, is on stable storage; each message has one reply, given out once; replies to one connection that
//! wait for the same batch are given out in the order in which their messages were handled.
//!
//! How it works: `at_once` holds replies that rest on nothing, `filling` those that belong to the batch that is still taking
//! records, `waiting` those of the batch that the journal is writing. When it is durable, `waiting` is given out and `filling`
//! takes its place. A lane that was given out comes back empty, so that its memory serves again.

use crate::authorizer::{Authorizer, Handled, Replies};
use crate::calendar::Timestamp;
use crate::iso8583::{Tpdu, Unreadable};
use crate::journal::Journal;
use crate::stats::Histogram;

/// Where a message came from, and so where its reply goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The connection's place.
    pub slot: u32,
    /// Which of the connections that have had this place.
    pub generation: u32,
    /// When its first byte was read, on a monotonic clock.
    pub since: u64,
}

impl Origin {
    fn is_same_connection(&self, other: &Self) -> bool {
        (self.slot, self.generation) == (other.slot, other.generation)
    }
}

struct Entry {
    origin: Origin,
    end: usize,
}

/// Replies that leave together.
#[derive(Default)]
pub struct Lane {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

impl Lane {
    /// The replies, those to one connection that stand side by side in one piece: the connection, how many, their frames.
    pub fn runs(&self) -> impl Iterator<Item = (Origin, u32, &[u8])> {
        let mut start = 0;
        self.entries.chunk_by(|one, next| one.origin.is_same_connection(&next.origin)).map(move |run| {
            let end = run[run.len() - 1].end;
            let bytes = &self.bytes[start..end];
            start = end;
            (run[0].origin, run.len() as u32, bytes)
        })
    }

    /// Where each reply's message came from.
    pub fn origins(&self) -> impl Iterator<Item = &Origin> {
        self.entries.iter().map(|entry| &entry.origin)
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// What was counted of batches.
#[derive(Default)]
pub struct Batches {
    /// Microseconds that each took to be written and synced.
    pub sync: Histogram,
    /// Records in each.
    pub records: Histogram,
}

/// The authorizer with its journal, and the replies that have not been given out.
pub struct Lanes {
    authorizer: Authorizer<Journal>,
    at_once: Lane,
    filling: Lane,
    waiting: Lane,
    /// The position that `waiting` waits for.
    waiting_for: u64,
    /// The position up to which batches have been handed over, for counting records a batch.
    handed_over: u64,
    replies: Replies,
    batches: Batches,
}

impl Lanes {
    /// Takes an authorizer over.
    #[must_use]
    pub fn new(authorizer: Authorizer<Journal>) -> Self {
        let handed_over = authorizer.log().durable();
        Self {
            authorizer,
            at_once: Lane::default(),
            filling: Lane::default(),
            waiting: Lane::default(),
            waiting_for: 0,
            handed_over,
            replies: Replies::default(),
            batches: Batches::default(),
        }
    }

    /// The authorizer.
    #[must_use]
    pub fn authorizer(&self) -> &Authorizer<Journal> {
        &self.authorizer
    }

    /// The authorizer, for commands that do not come from terminals. What they append leaves with the next batch;
    /// [`Self::after_command`] is called when they have.
    pub fn authorizer_mut(&mut self) -> &mut Authorizer<Journal> {
        &mut self.authorizer
    }

    /// What was counted of batches.
    #[must_use]
    pub fn batches(&self) -> &Batches {
        &self.batches
    }

    /// Bytes of replies that have not been handed to a batch: what the bound on them is about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.filling.bytes.len() + self.at_once.bytes.len()
    }

    /// Bytes of memory held.
    #[must_use]
    pub fn memory(&self) -> usize {
        [&self.at_once, &self.filling, &self.waiting].iter().map(|lane| lane.bytes.capacity()).sum()
    }

    /// Whether replies wait for a batch that the journal is writing.
    #[must_use]
    pub fn are_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether everything appended is durable and no reply waits.
    #[must_use]
    pub fn are_settled(&self) -> bool {
        let journal = self.authorizer.log();
        journal.durable() == journal.position() && [&self.at_once, &self.filling, &self.waiting].iter().all(|lane| lane.is_empty())
    }

    /// Has a message handled. Its one reply will be given out by [`Self::leaving`].
    ///
    /// # Errors
    /// [`Unreadable`] where MTI or bitmap cannot be read: there is no reply, and the connection is to be closed.
    pub fn handle(&mut self, now: Timestamp, tpdu: Option<Tpdu>, message: &[u8], origin: Origin) -> Result<Handled, Unreadable> {
        self.replies.at_once = std::mem::take(&mut self.at_once.bytes);
        self.replies.durable = std::mem::take(&mut self.filling.bytes);
        let handled = self.authorizer.handle(now, tpdu, message, &mut self.replies);
        self.at_once.bytes = std::mem::take(&mut self.replies.at_once);
        self.filling.bytes = std::mem::take(&mut self.replies.durable);
        let handled = handled?;
        let mut replies = 0;
        for lane in [&mut self.at_once, &mut self.filling] {
            let start = lane.entries.last().map_or(0, |entry| entry.end);
            if lane.bytes.len() > start {
                lane.entries.push(Entry { origin, end: lane.bytes.len() });
                replies += 1;
            }
        }
        assert_eq!(replies, 1, "a message has one reply");
        Ok(handled)
    }

    /// Takes note of a batch that has become durable. To be called when the journal's event is readable; at any other time it
    /// is cheap.
    pub fn note_completed(&mut self) {
        let journal = self.authorizer.log_mut();
        if journal.completed().is_some() {
            self.batches.sync.record(journal.statistics().sync_nanoseconds_last / 1_000);
        }
    }

    /// Replies that wait for the batch which is still taking records.
    #[must_use]
    pub fn open_replies(&self) -> usize {
        self.filling.entries.len()
    }

    /// When the message of the last of them came, by its origin; 0: there are none.
    #[must_use]
    pub fn open_since(&self) -> u64 {
        self.filling.entries.last().map_or(0, |entry| entry.origin.since)
    }

    /// Replies of the batch that the journal was writing, if it is durable: those that [`Self::leaving`] gives out next.
    pub fn durable_replies(&mut self) -> usize {
        self.look_for_completed();
        if self.is_durable() { self.waiting.entries.len() } else { 0 }
    }

    /// The next replies that may leave, and on the way there hands the open batch to the journal if that is free, unless it is
    /// to be `held` open for a moment. To be asked until there are none, and each lane to be given back to [`Self::take_back`].
    pub fn leaving(&mut self, held: bool) -> Option<Lane> {
        if !self.at_once.is_empty() {
            return Some(std::mem::take(&mut self.at_once));
        }
        self.look_for_completed();
        let done = self.take_durable();
        // The next batch goes to the disk before the last one's replies go out: the disk is the slower of the two.
        if !held {
            self.submit();
        }
        done.or_else(|| self.take_durable())
    }

    /// Takes note of the batch for which replies wait, if it is durable, before its event comes: that may stand behind many others.
    fn look_for_completed(&mut self) {
        if !self.waiting.is_empty() {
            self.note_completed();
        }
    }

    fn is_durable(&self) -> bool {
        !self.waiting.is_empty() && self.authorizer.log().durable() >= self.waiting_for
    }

    fn take_durable(&mut self) -> Option<Lane> {
        self.is_durable().then(|| std::mem::take(&mut self.waiting))
    }

    /// Hands the open batch to the journal, if that is free, and moves the replies that wait for it along.
    fn submit(&mut self) {
        let journal = self.authorizer.log_mut();
        let position = journal.position();
        if journal.submit() {
            self.batches.records.record(position - self.handed_over);
            self.handed_over = position;
        }
        if self.filling.is_empty() || !self.waiting.is_empty() || self.handed_over < position {
            return;
        }
        std::mem::swap(&mut self.waiting, &mut self.filling);
        self.waiting_for = position;
    }

    /// Takes a lane back whose replies are on their way.
    pub fn take_back(&mut self, mut lane: Lane) {
        lane.bytes.clear();
        lane.entries.clear();
        let mut lanes = [&mut self.waiting, &mut self.filling, &mut self.at_once].into_iter();
        if let Some(place) = lanes.find(|place| place.bytes.capacity() == 0) {
            *place = lane;
        }
    }

    /// After a command that did not come from a terminal: the journal may have flushed on its own to make room.
    pub fn after_command(&mut self) {
        self.handed_over = self.handed_over.max(self.authorizer.log().durable());
    }
}
