//! Terminals at the other end of the wire: one thread, many connections, each terminal with its own key and session.
//!
//! Closed loop: every terminal has `depth` requests under way and asks the next when an answer has come. Open loop: what is
//! asked when was set before the run; what is late, by whosever fault, is sent as soon as possible, and its latency counts from the
//! moment for which it was set, so that a peer that stands still is not spared what would have come meanwhile. One answer
//! that is missing, wrong in any byte or a decline that was not allowed ends the run: a figure is given only where everything was
//! right.
//!
//! How it works: level-triggered epoll; for each readable socket one `recv`, its answers checked, the requests that take their
//! place encoded and sent in one `send`. Between waits, what has become due is sent, each in a `send` of its own. The wait ends when
//! the next is due, by the kernel's precise timers; in the last microseconds before it the driver polls instead. Figures are of a
//! window after the warm-up: in the closed loop of answers that came in it, in the open loop of what was due in it. Everything
//! outside is checked and counted in the totals, which the ledger must agree with.

use std::hint::black_box;
use std::iter::Peekable;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use switch_core::iso8583::Message;
use switch_core::iso8583::frame::{self, Split};
use switch_core::reactor::wall_clock;

use crate::Failure;
use crate::answers::Answers;
use crate::chance::{Cards, Mix};
use crate::crowd::{Crowd, Seat};
use crate::figures::Tally;
use crate::link::Link;
use crate::schedule::Arrival;
use crate::terminal::{Clock, Errand, Operation, Request, SPENT, Said, Stamp, sample_reply};

const EVENTS_MAX: usize = 1024;
const READ_BYTES: usize = 64 << 10;
/// Nanoseconds before something is due in which the driver polls: going to sleep and waking would take as long. Not more: where cores
/// are shared with the switch, a driver that polls takes them from it, and is set back itself for milliseconds as the one who had most.
const POLLED: u64 = 5_000;
/// What is due that is sent before answers have their turn, at most.
const SENT_AT_ONCE: usize = 64;
const SECOND: u64 = 1_000_000_000;

/// Who answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// The switch.
    Switch,
    /// The bare echo: there is no sign-on, and what its answers say means nothing.
    Echo,
}

/// What decides when a terminal asks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loop {
    /// The answer before.
    Closed,
    /// The schedule.
    Open,
}

/// How a run goes.
pub(crate) struct Rules {
    pub(crate) peer: Peer,
    pub(crate) pace: Loop,
    /// Requests that a terminal may have under way.
    pub(crate) depth: usize,
    /// What is asked where the schedule leaves it open.
    pub(crate) mix: Mix,
    /// Whether a card may be refused.
    pub(crate) allow_declines: bool,
    /// Whether every answer must have as many bytes as the echo's, for the two to be compared.
    pub(crate) as_long_as_echo: bool,
    /// The window, in nanoseconds from the beginning.
    pub(crate) opens: u64,
    pub(crate) closes: u64,
    /// Whether a line is printed each second.
    pub(crate) progress: bool,
    /// Nanoseconds without any answer, although some are owed, after which the run has failed.
    pub(crate) patience: u64,
}

impl Rules {
    /// Whether something that was due at this moment of the open loop is of the window.
    const fn counts(&self, due: u64) -> bool {
        self.opens <= due && due < self.closes
    }
}

/// What a run gives.
pub(crate) struct Outcome {
    pub(crate) tally: Tally,
    /// The window's length in nanoseconds; in the open loop to the last answer.
    pub(crate) window: u64,
    /// This process's CPU time in it, in nanoseconds.
    pub(crate) cpu: u64,
}

/// One run.
pub(crate) struct Driver<'a> {
    rules: Rules,
    crowd: &'a mut Crowd,
    /// None where the schedule names every card.
    cards: Option<Cards>,
    chance: Rng,
    arrivals: Peekable<Box<dyn Iterator<Item = Arrival> + 'a>>,
    clock: &'a mut Clock,
    stamp: Stamp,
    epoll: OwnedFd,
    began: Instant,
    input: Vec<u8>,
    output: Vec<u8>,
    /// The echo's constant answer.
    expected: Vec<u8>,
    tally: Tally,
    /// Where each answer is written down, if that was asked for.
    answers: Option<Answers>,
    /// Answers that are still to come, those to what is held too.
    owed: usize,
    /// Since when nothing has come although something is owed.
    quiet_since: u64,
    /// When the window opened, with the CPU time until then.
    opened: Option<(u64, u64)>,
    closed: Option<(u64, u64)>,
    progress: Progress,
}

/// What the last line of progress said.
struct Progress {
    next: u64,
    answers: u64,
}

impl<'a> Driver<'a> {
    pub(crate) fn new(
        rules: Rules,
        crowd: &'a mut Crowd,
        cards: Option<Cards>,
        arrivals: Box<dyn Iterator<Item = Arrival> + 'a>,
        clock: &'a mut Clock,
        answers: Option<Answers>,
    ) -> Result<Self, Failure> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for (index, link) in crowd.links.iter().enumerate() {
            epoll::add(&epoll, link.descriptor(), epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN)?;
        }
        Ok(Self {
            crowd,
            cards,
            chance: Rng::new(),
            arrivals: arrivals.peekable(),
            stamp: clock.stamp(wall_clock()),
            clock,
            epoll,
            began: Instant::now(),
            input: vec![0; READ_BYTES],
            output: Vec::new(),
            expected: sample_reply(),
            tally: Tally::new()?,
            answers,
            owed: 0,
            quiet_since: 0,
            opened: None,
            closed: None,
            progress: Progress { next: if rules.progress { SECOND } else { u64::MAX }, answers: 0 },
            rules,
        })
    }

    /// Nanoseconds since the run began.
    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// Warm-up, window, and the answers still owed.
    pub(crate) fn run(mut self) -> Result<Outcome, Failure> {
        // By default the kernel may let a thread sleep 50 µs longer than it asked for.
        rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
        self.began = Instant::now();
        if self.rules.pace == Loop::Closed {
            self.fill()?;
        }
        let mut events = Vec::with_capacity(EVENTS_MAX);
        loop {
            self.send_due()?;
            if self.is_over() {
                break;
            }
            let timeout = self.timeout();
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            self.look_at_the_clock()?;
            for event in &events {
                let (flags, index) = (event.flags, event.data.u64() as usize);
                if flags.contains(epoll::EventFlags::OUT) && self.crowd.links[index].send_rest()? {
                    self.watch(index, epoll::EventFlags::IN)?;
                }
                if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
                    self.take_answers(index)?;
                }
            }
        }
        if let Some(answers) = self.answers.take() {
            answers.close()?;
        }
        let (since, cpu) = self.opened.ok_or("the window never opened")?;
        let (until, cpu_until) = match (self.rules.pace, self.closed) {
            (Loop::Closed, Some(closed)) => closed,
            _ => (self.now(), cpu_nanoseconds()),
        };
        Ok(Outcome { tally: self.tally, window: until - since, cpu: cpu_until - cpu })
    }

    /// Gives every terminal as much to do as it may have under way.
    fn fill(&mut self) -> Result<(), Failure> {
        for seat in 0..self.crowd.seats.len() {
            let now = self.now();
            self.output.clear();
            for _ in 0..self.rules.depth {
                self.ask(seat as u32, now, None)?;
            }
            self.owed += self.rules.depth;
            self.send(self.crowd.seats[seat].link as usize)?;
        }
        self.quiet_since = self.now();
        Ok(())
    }

    /// Opens and closes the window, tells the progress, and gives up on a peer that has answered nothing for long.
    fn look_at_the_clock(&mut self) -> Result<(), Failure> {
        let now = self.now();
        self.stamp = self.clock.stamp(wall_clock());
        if self.opened.is_none() && now >= self.rules.opens {
            // In the open loop its bounds were set with the schedule, whenever the driver wakes.
            let since = if self.rules.pace == Loop::Open { self.rules.opens } else { now };
            self.opened = Some((since, cpu_nanoseconds()));
        }
        if self.closed.is_none() && now >= self.rules.closes {
            self.closed = Some((now, cpu_nanoseconds()));
        }
        if now >= self.progress.next {
            self.tell_progress(now)?;
        }
        if self.owed > 0 && now.saturating_sub(self.quiet_since) >= self.rules.patience {
            return Err(format!(
                "{} answers have not come within {} s",
                self.owed,
                Duration::from_nanos(self.rules.patience).as_secs_f64()
            )
            .into());
        }
        Ok(())
    }

    fn is_over(&mut self) -> bool {
        self.closed.is_some() && self.owed == 0 && self.arrivals.peek().is_none()
    }

    /// How long there is nothing to do but to wait for answers.
    fn timeout(&mut self) -> Timespec {
        let now = self.now();
        let mut wake = self.progress.next;
        if self.owed > 0 {
            wake = wake.min(self.quiet_since.saturating_add(self.rules.patience));
        }
        for bound in [(self.opened.is_none(), self.rules.opens), (self.closed.is_none(), self.rules.closes)] {
            if bound.0 {
                wake = wake.min(bound.1);
            }
        }
        if let Some(arrival) = self.arrivals.peek() {
            wake = wake.min(if arrival.due <= now + POLLED { 0 } else { arrival.due });
        }
        let rest = wake.saturating_sub(now);
        Timespec { tv_sec: (rest / SECOND).cast_signed(), tv_nsec: (rest % SECOND).cast_signed() }
    }

    fn tell_progress(&mut self, now: u64) -> Result<(), Failure> {
        let answers = self.tally.total - self.progress.answers;
        let behind = self.progress.next;
        self.progress = Progress { next: now - now % SECOND + SECOND, answers: self.tally.total };
        let latency = self.tally.latency()?;
        #[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
        let (rate, p50, p99) = (
            answers as f64 / (1.0 + (now - behind) as f64 / SECOND as f64),
            latency.value_at_quantile(0.5) as f64 / 1e6,
            latency.value_at_quantile(0.99) as f64 / 1e6,
        );
        eprintln!(
            "{} s: {rate:.0} answers a second, {} in all, {} owed; latency so far p50 {p50:.3} ms, p99 {p99:.3} ms",
            now / SECOND,
            self.tally.total,
            self.owed
        );
        Ok(())
    }

    /// Sends what has become due, or leaves it with its terminal where that may ask no more.
    fn send_due(&mut self) -> Result<(), Failure> {
        if self.arrivals.peek().is_none() {
            return Ok(());
        }
        self.stamp = self.clock.stamp(wall_clock());
        for _ in 0..SENT_AT_ONCE {
            let now = self.now();
            let Some(arrival) = self.arrivals.next_if(|arrival| arrival.due <= now) else { return Ok(()) };
            let counts = self.rules.counts(arrival.due);
            if self.owed == 0 {
                self.quiet_since = now;
            }
            self.owed += 1;
            let seat = &mut self.crowd.seats[arrival.seat as usize];
            if seat.under_way >= self.rules.depth {
                seat.held.push_back(arrival);
                self.tally.held += u64::from(counts);
            } else {
                let link = seat.link as usize;
                self.output.clear();
                self.ask(arrival.seat, arrival.due, arrival.errand)?;
                self.send(link)?;
            }
            if counts {
                self.tally.late(now - arrival.due);
            }
        }
        Ok(())
    }

    /// Writes a request behind those in `output`; what is asked is drawn if it is not said.
    #[inline]
    fn ask(&mut self, index: u32, due: u64, errand: Option<Errand>) -> Result<(), Failure> {
        let seat = &mut self.crowd.seats[index as usize];
        let errand = match (errand, &mut self.cards) {
            (Some(errand), _) => errand,
            (None, Some(cards)) => draw(self.rules.mix, cards, seat, &mut self.chance),
            (None, None) => return Err("nothing says what is to be asked".into()),
        };
        if seat.terminal.is_spent() {
            return Err(SPENT.into());
        }
        let mut request = seat.terminal.ask(&errand, self.stamp, due, &mut self.output);
        request.seat = index;
        seat.under_way += 1;
        self.crowd.links[seat.link as usize].under_way.push_back(request);
        Ok(())
    }

    fn send(&mut self, link: usize) -> Result<(), Failure> {
        if self.crowd.links[link].send(&self.output)? {
            self.watch(link, epoll::EventFlags::IN | epoll::EventFlags::OUT)?;
        }
        Ok(())
    }

    fn watch(&self, link: usize, flags: epoll::EventFlags) -> Result<(), Failure> {
        let descriptor = self.crowd.links[link].descriptor();
        Ok(epoll::modify(&self.epoll, descriptor, epoll::EventData::new_u64(link as u64), flags)?)
    }

    /// Reads a socket, checks the answers, and sends what may be asked in their place.
    fn take_answers(&mut self, index: usize) -> Result<(), Failure> {
        let mut input = std::mem::take(&mut self.input);
        let filled = self.crowd.links[index].read(&mut input)?;
        let now = self.now();
        let mut taken = 0;
        self.output.clear();
        loop {
            match frame::split(&input[taken..filled]) {
                Split::Incomplete => break,
                Split::Refused(error) => return Err(format!("the peer sent what is no frame: {error}").into()),
                Split::Frame { message, consumed, .. } => {
                    self.take_answer(index, now, message, &input[taken..taken + consumed])?;
                    taken += consumed;
                }
            }
        }
        self.crowd.links[index].keep(&input[taken..filled]);
        self.input = input;
        if taken > 0 {
            self.quiet_since = now;
        }
        if self.output.is_empty() { Ok(()) } else { self.send(index) }
    }

    /// Checks an answer, counts it, and writes what its terminal asks next.
    #[inline]
    fn take_answer(&mut self, index: usize, now: u64, message: &[u8], wire: &[u8]) -> Result<(), Failure> {
        let reply = Message::parse(message)?;
        let Crowd { seats, links } = &mut *self.crowd;
        let request = find(self.rules.peer, &mut links[index], seats, &reply).ok_or("an answer came that nobody had asked for")?;
        let seat = &mut seats[request.seat as usize];
        let said = check(&self.rules, seat, &request, &reply, message, wire, &self.expected)?;
        let counts = match self.rules.pace {
            Loop::Closed => self.opened.is_some() && self.closed.is_none(),
            Loop::Open => self.rules.counts(request.due),
        };
        self.tally.answer(request.operation, said.response, counts.then(|| now.saturating_sub(request.due)));
        if let Some(answers) = &mut self.answers {
            answers.write(&request, &seat.terminal, said.response, now)?;
        }
        let place = request.seat;
        seat.terminal.take(request, said, message);
        seat.under_way -= 1;
        if let Some(held) = seat.held.pop_front() {
            self.owed -= 1;
            self.ask(place, held.due, held.errand)
        } else if self.rules.pace == Loop::Closed && self.closed.is_none() {
            self.ask(place, now, None)
        } else {
            self.owed -= 1;
            Ok(())
        }
    }
}

/// What a terminal asks next. Where it has no purchase yet that it could reverse or repeat, it makes one.
#[inline]
fn draw(mix: Mix, cards: &mut Cards, seat: &Seat, chance: &mut Rng) -> Errand {
    match mix.draw(chance) {
        Operation::Balance => Errand::Balance { card: cards.draw(chance) },
        Operation::Reversal if seat.terminal.can_reverse() => Errand::Reversal,
        Operation::Repeat if seat.terminal.can_repeat() => Errand::Repeat,
        _ => Errand::purchase(cards.draw(chance), chance),
    }
}

/// Takes the request that a reply answers from what is under way.
#[inline]
fn find(peer: Peer, link: &mut Link, seats: &[Seat], reply: &Message<'_>) -> Option<Request> {
    let (stan, terminal) = (reply.number(11), reply.text(41));
    let asked = |request: &Request| {
        Some(u64::from(request.stan)) == stan && Some(&seats[request.seat as usize].terminal.id()[..]) == terminal
    };
    let place = match peer {
        Peer::Switch => link.under_way.iter().position(asked),
        Peer::Echo => black_box(stan).map(|_| 0),
    };
    link.under_way.remove(place?)
}

/// What the reply says, if it may be believed.
#[inline]
fn check(
    rules: &Rules,
    seat: &Seat,
    request: &Request,
    reply: &Message<'_>,
    message: &[u8],
    wire: &[u8],
    expected: &[u8],
) -> Result<Said, Failure> {
    let terminal = &seat.terminal;
    let said = terminal.mistrust(request, reply).and_then(|said| {
        let doubt = terminal.disbelieve(request, said, message, rules.allow_declines);
        doubt.map_or(Ok(said), Err)
    });
    match rules.peer {
        Peer::Echo => {
            black_box(said).ok();
            if wire == expected { Ok(Said::APPROVED) } else { Err("the echo answered something else".into()) }
        }
        Peer::Switch => match said {
            Ok(_) if rules.as_long_as_echo && wire.len() != expected.len() => {
                Err(format!("an answer has {} bytes and the echo's {}: not comparable", wire.len(), expected.len()).into())
            }
            Ok(said) => Ok(said),
            Err(fault) => {
                let code = reply.text(39).map_or("none".into(), String::from_utf8_lossy);
                Err(format!("an answer to a {} is not good, {fault}: {reply:?}, response code {code}", request.operation.name())
                    .into())
            }
        },
    }
}

pub(crate) fn cpu_nanoseconds() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    (time.tv_sec * 1_000_000_000 + time.tv_nsec).cast_unsigned()
}
