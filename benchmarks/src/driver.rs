//! Terminals at the other end of the wire: one thread, one connection a terminal, each with its own key and session.
//!
//! Closed loop: every terminal has `depth` purchases under way and sends the next when an answer has come. One answer that is
//! late beyond reason, wrong in any byte or not approved ends the run: a figure is given only where everything was right.
//!
//! How it works: level-triggered epoll; for each readable socket one `recv`, its answers checked, the purchases that take their
//! place encoded and sent in one `send`. Figures are of a window after the warm-up; answers outside it are checked and counted in
//! the totals, which the ledger must agree with, but not in the rate.

use std::collections::VecDeque;
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::event::{Timespec, epoll};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use switch_core::card_number::CardNumber;
use switch_core::iso8583::Message;
use switch_core::iso8583::frame::{self, Split};
use switch_core::reactor::wall_clock;

use crate::Failure;
use crate::terminal::{Campus, Clock, Purchase, Stamp, Terminal, sample_reply};

const EVENTS_MAX: usize = 1024;
const READ_BYTES: usize = 64 << 10;
/// Without any answer for so long, the run has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// The switch.
    Switch,
    /// The bare echo: there is no sign-on, and what its answers say means nothing.
    Echo,
}

/// One run.
pub(crate) struct Plan {
    pub(crate) peer: Peer,
    pub(crate) address: SocketAddr,
    /// Where the campus's files are.
    pub(crate) campus: PathBuf,
    /// The first terminal to use: a terminal's numbers are spent once a day, so each run takes others.
    pub(crate) first_terminal: usize,
    pub(crate) connections: usize,
    /// Purchases under way on each connection.
    pub(crate) depth: usize,
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

struct Connection {
    stream: TcpStream,
    terminal: Terminal,
    under_way: VecDeque<Purchase>,
    partial: Vec<u8>,
}

/// What was counted.
struct Tally {
    /// Nanoseconds from send to answer, of the answers in the window.
    latency: Histogram<u64>,
    /// All answers, in and out of the window.
    answers: u64,
    /// Fen of them all.
    fen: u64,
    in_window: bool,
}

/// Runs a plan and gives its figures.
pub(crate) fn drive(plan: &Plan) -> Result<Value, Failure> {
    let campus = Campus::read(&plan.campus)?;
    let tills = campus.tills.iter().skip(plan.first_terminal).take(plan.connections);
    let mut connections =
        tills.map(|till| Connection::open(plan.address, Terminal::new(till))).collect::<Result<Vec<_>, Failure>>()?;
    if connections.len() < plan.connections {
        return Err(format!("there are not {} terminals from number {} on", plan.connections, plan.first_terminal).into());
    }
    let mut clock = Clock::new()?;
    if plan.peer == Peer::Switch {
        sign_on(&mut connections, clock.stamp(wall_clock()))?;
    }
    let mut run = Run {
        peer: plan.peer,
        cards: &campus.cards,
        began: Instant::now(),
        input: vec![0; READ_BYTES],
        output: Vec::new(),
        expected: sample_reply(),
        tally: Tally { latency: Histogram::new_with_bounds(1_000, 60_000_000_000, 3)?, answers: 0, fen: 0, in_window: false },
    };
    let (window, client_cpu) = run.all(plan, &mut connections, &mut clock)?;
    let Tally { latency, answers, fen, .. } = run.tally;
    Ok(json!({
        "connections": plan.connections,
        "depth": plan.depth,
        "window_ns": window,
        "answers": latency.len(),
        "latency_ns": {
            "p50": latency.value_at_quantile(0.5),
            "p90": latency.value_at_quantile(0.9),
            "p99": latency.value_at_quantile(0.99),
            "p999": latency.value_at_quantile(0.999),
            "max": latency.max(),
        },
        "client_cpu_ns": client_cpu,
        "answers_total": answers,
        "fen_total": fen,
    }))
}

/// All terminals ask before the first answer is read, so that they share the journal's batches.
fn sign_on(connections: &mut [Connection], stamp: Stamp) -> Result<(), Failure> {
    let mut frame = Vec::new();
    for connection in &mut *connections {
        frame.clear();
        connection.terminal.sign_on(stamp, &mut frame);
        connection.stream.write_all(&frame)?;
    }
    for connection in connections {
        let mut length = [0; frame::LENGTH_BYTES];
        connection.stream.set_nonblocking(false)?;
        connection.stream.read_exact(&mut length)?;
        frame.resize(usize::from(u16::from_be_bytes(length)), 0);
        connection.stream.read_exact(&mut frame)?;
        connection.terminal.signed_on(&frame)?;
        connection.stream.set_nonblocking(true)?;
    }
    Ok(())
}

impl Connection {
    fn open(address: SocketAddr, terminal: Terminal) -> Result<Self, Failure> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, terminal, under_way: VecDeque::new(), partial: Vec::new() })
    }

    /// Writes a purchase behind those in `output`.
    fn purchase(&mut self, cards: &[CardNumber], stamp: Stamp, now: u64, output: &mut Vec<u8>) {
        let purchase = self.terminal.purchase(cards, stamp, now, output);
        self.under_way.push_back(purchase);
    }

    fn send(&mut self, output: &[u8]) -> Result<(), Failure> {
        // At the depths that are driven, what is under way is far below a socket's buffer.
        let sent = self.stream.write(output)?;
        if sent == output.len() { Ok(()) } else { Err("a socket took less than was sent; drive with less depth".into()) }
    }
}

struct Run<'a> {
    peer: Peer,
    cards: &'a [CardNumber],
    began: Instant,
    input: Vec<u8>,
    output: Vec<u8>,
    /// The echo's constant answer.
    expected: Vec<u8>,
    tally: Tally,
}

impl Run<'_> {
    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// Warm-up, window, and the answers still owed. Gives the window's length and this process's CPU time in it, in nanoseconds.
    fn all(&mut self, plan: &Plan, connections: &mut [Connection], clock: &mut Clock) -> Result<(u64, u64), Failure> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let opens = self.now() + plan.warm_up.as_nanos() as u64;
        let closes = opens + plan.measured.as_nanos() as u64;
        for (index, connection) in connections.iter_mut().enumerate() {
            epoll::add(&epoll, connection.stream.as_fd(), epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN)?;
            self.output.clear();
            let (stamp, now) = (clock.stamp(wall_clock()), self.now());
            (0..plan.depth).for_each(|_| connection.purchase(self.cards, stamp, now, &mut self.output));
            connection.send(&self.output)?;
        }
        let timeout = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let mut window = None;
        let mut measured = None;
        let mut owed = plan.connections * plan.depth;
        while owed > 0 {
            events.clear();
            epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout))?;
            if events.is_empty() {
                return Err(format!("{owed} answers have not come within {} s", PATIENCE.as_secs()).into());
            }
            let now = self.now();
            if window.is_none() && now >= opens {
                window = Some((now, cpu_nanoseconds()));
                self.tally.in_window = true;
            }
            if let (Some((since, cpu)), None, true) = (window, measured, now >= closes) {
                measured = Some((now - since, cpu_nanoseconds() - cpu));
                self.tally.in_window = false;
            }
            let stamp = clock.stamp(wall_clock());
            for event in &events {
                let connection = &mut connections[event.data.u64() as usize];
                let answered = self.take_answers(connection, measured.is_none().then_some(stamp))?;
                if measured.is_some() {
                    owed -= answered;
                }
            }
        }
        measured.ok_or_else(|| "the window never closed".into())
    }

    /// Reads a socket, checks the answers, and sends as many purchases if there is a `stamp` for them.
    fn take_answers(&mut self, connection: &mut Connection, stamp: Option<Stamp>) -> Result<usize, Failure> {
        let mut filled = connection.partial.len();
        self.input[..filled].copy_from_slice(&connection.partial);
        connection.partial.clear();
        match connection.stream.read(&mut self.input[filled..])? {
            0 => return Err("the peer has closed a connection".into()),
            count => filled += count,
        }
        let now = self.now();
        let (mut taken, mut answered) = (0, 0);
        while let Split::Frame { message, consumed, .. } = frame::split(&self.input[taken..filled]) {
            let reply = Message::parse(message)?;
            let wire = &self.input[taken..taken + consumed];
            let purchase = check(self.peer, connection, &reply, wire, &self.expected)?;
            if self.tally.in_window {
                self.tally.latency.record(now - purchase.sent)?;
            }
            self.tally.answers += 1;
            self.tally.fen += purchase.amount;
            taken += consumed;
            answered += 1;
        }
        connection.partial.extend_from_slice(&self.input[taken..filled]);
        if let Some(stamp) = stamp.filter(|_| answered > 0) {
            self.output.clear();
            (0..answered).for_each(|_| connection.purchase(self.cards, stamp, now, &mut self.output));
            connection.send(&self.output)?;
        }
        Ok(answered)
    }
}

/// Finds the purchase that a reply answers, and checks it.
fn check(peer: Peer, connection: &mut Connection, reply: &Message<'_>, wire: &[u8], expected: &[u8]) -> Result<Purchase, Failure> {
    let stan = reply.number(11);
    let place = match peer {
        Peer::Switch => connection.under_way.iter().position(|purchase| Some(u64::from(purchase.stan)) == stan),
        Peer::Echo => black_box(stan).map(|_| 0),
    };
    let purchase = place.and_then(|place| connection.under_way.remove(place)).ok_or("an answer came that nobody had asked for")?;
    let fault = connection.terminal.mistrust(&purchase, reply);
    match peer {
        Peer::Switch if wire.len() != expected.len() => {
            Err(format!("an answer has {} bytes and the echo's {}: not comparable", wire.len(), expected.len()).into())
        }
        Peer::Switch => fault.map_or(Ok(purchase), |fault| Err(format!("{fault}: {reply:?} {:?}", reply.text(39)).into())),
        Peer::Echo => {
            black_box(fault);
            if wire == expected { Ok(purchase) } else { Err("the echo answered something else".into()) }
        }
    }
}

fn cpu_nanoseconds() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    (time.tv_sec * 1_000_000_000 + time.tv_nsec).cast_unsigned()
}
