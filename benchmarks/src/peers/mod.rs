//! Others that make the same debit durable: one thread, one connection a terminal, a closed loop as the switch is driven in.
//!
//! Always true here: every answer is an approval that fits its connection's order, or the run fails. At the end each terminal sends
//! its last purchase once more and must be answered as before: whoever does not remember is not compared.
//!
//! How it works: level-triggered epoll; for each readable socket one `recv`, and one `send` of as many purchases as were
//! answered. What is sent and what comes is the dialect's (PostgreSQL's or Redis's own protocol). There are no MACs.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Instant;

use bytes::BytesMut;
use hdrhistogram::Histogram;
use rustix::event::{Timespec, epoll};
use serde_json::{Value, json};
use switch_core::calendar::{CampusCalendar, Date};
use switch_core::card_number::CardNumber;
use switch_core::reactor::wall_clock;

use crate::Failure;
use crate::campus::{Campus, Till};
use crate::drive::Plan;
use crate::driver::cpu_nanoseconds;
use crate::figures::{export, percentiles};
use crate::link::PATIENCE;
use crate::terminal::{AMOUNT_MAX, SPENT, STAN_MAX};

mod postgresql;
mod redis;

const EVENTS_MAX: usize = 1024;
const READ_BYTES: usize = 64 << 10;

/// Who answers.
pub(crate) enum Peer {
    /// `peers/purchase.sql` is loaded; anybody may connect.
    PostgreSql,
    /// `peers/purchase.lua` is loaded and has this digest, of 40 hex digits.
    Redis { script: String },
}

/// What a till asks for.
struct Purchase {
    terminal: String,
    merchant: String,
    date: Date,
    stan: u32,
    card: CardNumber,
    /// Fen.
    amount: u64,
}

/// What was decided.
#[derive(PartialEq, Eq)]
struct Answer {
    approved: bool,
    /// Number of the transaction.
    position: u64,
    /// Fen left in the purse.
    balance: u64,
}

/// One connection's side of a protocol.
trait Dialect {
    /// Says what a new connection has to say, while the stream blocks.
    fn open(&mut self, stream: &mut TcpStream) -> Result<(), Failure>;

    /// Writes a request.
    fn ask(&mut self, purchase: &Purchase, out: &mut BytesMut) -> Result<(), Failure>;

    /// Takes the next answer from `input`, if it is there whole.
    fn answer(&mut self, input: &mut BytesMut) -> Result<Option<Answer>, Failure>;
}

struct Connection {
    stream: TcpStream,
    dialect: Box<dyn Dialect>,
    purchase: Purchase,
    /// When each purchase under way was sent, in nanoseconds of the run.
    sent: VecDeque<u64>,
    input: BytesMut,
    last: Option<Answer>,
}

impl Connection {
    fn open(address: SocketAddr, peer: &Peer, till: &Till, date: Date) -> Result<Self, Failure> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut dialect: Box<dyn Dialect> = match peer {
            Peer::PostgreSql => Box::new(postgresql::Prepared::default()),
            Peer::Redis { script } => Box::new(redis::Script(script.clone())),
        };
        dialect.open(&mut stream)?;
        stream.set_nonblocking(true)?;
        let card = CardNumber::from_digits(b"0").expect("a digit");
        let purchase = Purchase { terminal: text(&till.id)?, merchant: text(&till.merchant)?, date, stan: 0, card, amount: 0 };
        Ok(Self { stream, dialect, purchase, sent: VecDeque::new(), input: BytesMut::new(), last: None })
    }

    fn send(&mut self, output: &[u8]) -> Result<(), Failure> {
        // At the depths that are driven, what is under way is far below a socket's buffer.
        let sent = self.stream.write(output)?;
        if sent == output.len() { Ok(()) } else { Err("a socket took less than was sent; drive with less depth".into()) }
    }

    /// The last purchase once more, which must find what it was answered.
    fn repeat(&mut self) -> Result<(), Failure> {
        let mut output = BytesMut::new();
        self.dialect.ask(&self.purchase, &mut output)?;
        self.stream.set_nonblocking(false)?;
        self.stream.write_all(&output)?;
        let mut buffer = [0; 4096];
        loop {
            if let Some(answer) = self.dialect.answer(&mut self.input)? {
                return if Some(answer) == self.last { Ok(()) } else { Err("a purchase sent again was made again".into()) };
            }
            match self.stream.read(&mut buffer)? {
                0 => return Err("the peer has closed a connection".into()),
                count => self.input.extend_from_slice(&buffer[..count]),
            }
        }
    }
}

struct Run {
    cards: Vec<CardNumber>,
    began: Instant,
    buffer: Vec<u8>,
    output: BytesMut,
    /// Nanoseconds from send to answer, of the answers in the window.
    latency: Histogram<u64>,
    in_window: bool,
    answers: u64,
    fen: u64,
}

/// Runs a plan, as far as it is of purchases in a closed loop, and gives its figures.
pub(crate) fn drive(peer: &Peer, plan: &Plan) -> Result<Value, Failure> {
    let address = plan.address.ok_or("driving needs --address")?;
    let count = plan.connections.unwrap_or(64);
    let campus = Campus::read(&plan.campus)?;
    let date = CampusCalendar::new("UTC")?.date(wall_clock());
    let tills = campus.tills.iter().skip(plan.first_terminal).take(count);
    let mut connections = tills.map(|till| Connection::open(address, peer, till, date)).collect::<Result<Vec<_>, Failure>>()?;
    if connections.len() < count || campus.cards.is_empty() {
        return Err(format!("there are not {count} terminals from number {} on, or no cards", plan.first_terminal).into());
    }
    let mut run = Run {
        cards: campus.cards,
        began: Instant::now(),
        buffer: vec![0; READ_BYTES],
        output: BytesMut::new(),
        latency: Histogram::new_with_bounds(1_000, 60_000_000_000, 3)?,
        in_window: false,
        answers: 0,
        fen: 0,
    };
    let (window, client_cpu) = run.all(plan, &mut connections)?;
    for connection in &mut connections {
        connection.repeat()?;
    }
    let mut figures = json!({
        "connections": count,
        "window_ns": window,
        "answers": run.latency.len(),
        "latency_ns": percentiles(&run.latency),
        "client_cpu_ns": client_cpu,
        "answers_total": run.answers,
        "fen_total": run.fen,
    });
    if plan.histogram {
        figures["histogram"] = export(&run.latency);
    }
    Ok(figures)
}

fn text(field: &[u8]) -> Result<String, Failure> {
    Ok(std::str::from_utf8(field)?.trim_end().to_owned())
}

impl Run {
    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// Warm-up, window, and the answers still owed. Gives the window's length and this process's CPU time in it, in nanoseconds.
    fn all(&mut self, plan: &Plan, connections: &mut [Connection]) -> Result<(u64, u64), Failure> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let depth = plan.depth.unwrap_or(1);
        let opens = self.now() + plan.warm_up.as_nanos() as u64;
        let closes = opens + plan.measured.as_nanos() as u64;
        for (index, connection) in connections.iter_mut().enumerate() {
            epoll::add(&epoll, connection.stream.as_fd(), epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN)?;
            self.ask(connection, depth)?;
        }
        let timeout = Timespec { tv_sec: plan.patience.as_secs().cast_signed(), tv_nsec: plan.patience.subsec_nanos().into() };
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let mut window = None;
        let mut measured = None;
        let mut owed = connections.len() * depth;
        while owed > 0 {
            events.clear();
            epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout))?;
            if events.is_empty() {
                return Err(format!("{owed} answers have not come within {} s", plan.patience.as_secs_f64()).into());
            }
            let now = self.now();
            if window.is_none() && now >= opens {
                window = Some((now, cpu_nanoseconds()));
                self.in_window = true;
            }
            if let (Some((since, cpu)), None, true) = (window, measured, now >= closes) {
                measured = Some((now - since, cpu_nanoseconds() - cpu));
                self.in_window = false;
            }
            for event in &events {
                let connection = &mut connections[event.data.u64() as usize];
                let answered = self.take_answers(connection)?;
                if measured.is_some() {
                    owed -= answered;
                } else {
                    self.ask(connection, answered)?;
                }
            }
        }
        measured.ok_or_else(|| "the window never closed".into())
    }

    fn ask(&mut self, connection: &mut Connection, count: usize) -> Result<(), Failure> {
        if count == 0 {
            return Ok(());
        }
        self.output.clear();
        let now = self.now();
        for _ in 0..count {
            let purchase = &mut connection.purchase;
            if purchase.stan >= STAN_MAX {
                return Err(SPENT.into());
            }
            purchase.stan += 1;
            purchase.card = self.cards[fastrand::usize(..self.cards.len())];
            purchase.amount = fastrand::u64(1..=AMOUNT_MAX);
            self.fen += purchase.amount;
            connection.dialect.ask(&connection.purchase, &mut self.output)?;
            connection.sent.push_back(now);
        }
        connection.send(&self.output)
    }

    /// Reads a socket and checks the answers; gives their number.
    fn take_answers(&mut self, connection: &mut Connection) -> Result<usize, Failure> {
        match connection.stream.read(&mut self.buffer)? {
            0 => return Err("the peer has closed a connection".into()),
            count => connection.input.extend_from_slice(&self.buffer[..count]),
        }
        let now = self.now();
        let mut answered = 0;
        while let Some(answer) = connection.dialect.answer(&mut connection.input)? {
            let sent = connection.sent.pop_front().ok_or("an answer came that nobody had asked for")?;
            if !answer.approved {
                return Err("a purchase was not approved".into());
            }
            if connection.last.as_ref().is_some_and(|last| last.position >= answer.position) {
                return Err("a new purchase was answered as an old one".into());
            }
            if self.in_window {
                self.latency.record(now - sent)?;
            }
            connection.last = Some(answer);
            self.answers += 1;
            answered += 1;
        }
        Ok(answered)
    }
}
