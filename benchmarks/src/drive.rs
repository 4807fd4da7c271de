//! `drive`: a load that is made up, against the switch or the bare echo.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use lexopt::{Parser, ValueExt};
use serde_json::{Value, json};

use crate::Failure;
use crate::campus::{Campus, Till};
use crate::chance::{Cards, Mix, Popularity};
use crate::crowd::Crowd;
use crate::driver::{Driver, Loop, Outcome, Peer, Rules};
use crate::figures::{export, ledger, percentiles};
use crate::link::PATIENCE;
use crate::schedule::{Schedule, Spacing};
use crate::terminal::{Clock, Memory, Operation};

/// Purchases that a terminal keeps in mind where there are any to reverse or to repeat.
const REMEMBERED: usize = 8;

/// How long something may be measured or waited for.
const SECONDS_MIN: f64 = 0.001;
const SECONDS_MAX: f64 = 1_000_000.0;

/// What is said on the command line; not everything for every command.
#[expect(clippy::struct_excessive_bools, reason = "a command line has switches")]
pub(crate) struct Plan {
    pub(crate) peer: Peer,
    pub(crate) address: Option<SocketAddr>,
    /// Where the campus's files are.
    pub(crate) campus: PathBuf,
    /// The first terminal to use: a terminal's numbers are spent once a day, so each run takes others.
    pub(crate) first_terminal: usize,
    /// As many as there are connections, unless said.
    pub(crate) terminals: Option<usize>,
    pub(crate) connections: Option<usize>,
    /// Requests under way at a terminal; without it one in the closed loop and any number in the open.
    pub(crate) depth: Option<usize>,
    /// A second, in the open loop; without it the loop is closed.
    pub(crate) rate: Option<f64>,
    pub(crate) spacing: Spacing,
    pub(crate) popularity: Popularity,
    pub(crate) mix: Mix,
    pub(crate) allow_declines: bool,
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
    /// Without any answer for so long, although some are owed, the run has failed.
    pub(crate) patience: Duration,
    pub(crate) histogram: bool,
    pub(crate) progress: bool,
    pub(crate) announce: bool,
    pub(crate) replay: Option<PathBuf>,
    /// Where a replay's answers are written down.
    pub(crate) answers: Option<PathBuf>,
    pub(crate) speed: f64,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            peer: Peer::Switch,
            address: None,
            campus: ".".into(),
            first_terminal: 0,
            terminals: None,
            connections: None,
            depth: None,
            rate: None,
            spacing: Spacing::default(),
            popularity: Popularity::default(),
            mix: Mix::PURCHASES,
            allow_declines: false,
            warm_up: Duration::from_millis(500),
            measured: Duration::from_secs(2),
            patience: PATIENCE,
            histogram: false,
            progress: false,
            announce: false,
            replay: None,
            answers: None,
            speed: 1.0,
        }
    }
}

impl Plan {
    /// Takes an option that drives. False if it is none.
    pub(crate) fn option(&mut self, name: &str, arguments: &mut Parser) -> Result<bool, lexopt::Error> {
        match name {
            "echo" => self.peer = Peer::Echo,
            "address" => self.address = Some(arguments.value()?.parse()?),
            "campus" => self.campus = arguments.value()?.into(),
            "first-terminal" => self.first_terminal = arguments.value()?.parse()?,
            "terminals" => self.terminals = Some(arguments.value()?.parse()?),
            "connections" => self.connections = Some(arguments.value()?.parse()?),
            "depth" => self.depth = Some(arguments.value()?.parse_with(above_zero)?),
            "rate" => self.rate = Some(arguments.value()?.parse_with(|text| number(text, 0.0))?),
            "arrivals" => self.spacing = arguments.value()?.parse()?,
            "popularity" => self.popularity = arguments.value()?.parse()?,
            "mix" => self.mix = arguments.value()?.parse()?,
            "allow-declines" => self.allow_declines = true,
            "warm-up" => self.warm_up = arguments.value()?.parse_with(|text| seconds(text, 0.0))?,
            "seconds" => self.measured = arguments.value()?.parse_with(|text| seconds(text, SECONDS_MIN))?,
            "patience" => self.patience = arguments.value()?.parse_with(|text| seconds(text, SECONDS_MIN))?,
            "histogram" => self.histogram = true,
            "progress" => self.progress = true,
            "announce" => self.announce = true,
            "answers" => self.answers = Some(arguments.value()?.into()),
            "replay" => self.replay = Some(arguments.value()?.into()),
            "speed" => self.speed = arguments.value()?.parse_with(|text| number(text, f64::MIN_POSITIVE))?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Says on standard output that the terminals are signed on, for who has asked to be told.
    pub(crate) fn say_ready(&self, crowd: &Crowd, sign_on: Duration) {
        if self.announce {
            let ready = json!({
                "ready": true,
                "connections": crowd.links.len(),
                "terminals": crowd.seats.len(),
                "sign_on_ns": sign_on.as_nanos() as u64,
            });
            println!("{ready}");
        }
    }
}

fn number(text: &str, least: f64) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number >= least);
    number.ok_or_else(|| format!("{text:?} is no such number"))
}

fn seconds(text: &str, least: f64) -> Result<Duration, String> {
    let seconds = number(text, least).ok().filter(|seconds| *seconds <= SECONDS_MAX);
    seconds.map(Duration::from_secs_f64).ok_or_else(|| format!("{text:?} is no number of seconds from {least} to {SECONDS_MAX}"))
}

pub(crate) fn above_zero<N: FromStr + PartialOrd + Default>(text: &str) -> Result<N, String> {
    let number = text.parse().ok().filter(|number| *number > N::default());
    number.ok_or_else(|| format!("{text:?} is no whole number above 0"))
}

/// Runs a plan and gives its figures.
pub(crate) fn drive(plan: &Plan) -> Result<Value, Failure> {
    let address = plan.address.ok_or("drive needs --address")?;
    let campus = Campus::read(&plan.campus)?;
    let connections = plan.connections.or(plan.terminals).unwrap_or(64);
    let terminals = plan.terminals.unwrap_or(connections);
    let tills: Vec<&Till> = campus.tills.iter().skip(plan.first_terminal).take(terminals).collect();
    if tills.len() < terminals {
        return Err(format!("there are not {terminals} terminals from number {} on", plan.first_terminal).into());
    }
    let memory = match (plan.mix.has(Operation::Reversal), plan.mix.has(Operation::Repeat)) {
        (false, false) => Memory::NONE,
        (_, answers) => Memory { purchases: REMEMBERED, answers },
    };
    let mut clock = Clock::new()?;
    let signing_on = Instant::now();
    let mut crowd = Crowd::gather(address, &tills, connections, memory, (plan.peer == Peer::Switch).then_some(&mut clock))?;
    let sign_on = signing_on.elapsed();
    plan.say_ready(&crowd, sign_on);
    let length = plan.warm_up + plan.measured;
    let rules = Rules {
        peer: plan.peer,
        pace: if plan.rate.is_some() { Loop::Open } else { Loop::Closed },
        depth: plan.depth.unwrap_or(if plan.rate.is_some() { usize::MAX } else { 1 }),
        mix: plan.mix,
        allow_declines: plan.allow_declines,
        as_long_as_echo: plan.mix == Mix::PURCHASES && !plan.allow_declines,
        opens: plan.warm_up.as_nanos() as u64,
        closes: length.as_nanos() as u64,
        progress: plan.progress,
        patience: plan.patience.as_nanos() as u64,
    };
    let arrivals = Schedule::new(plan.spacing, plan.rate.unwrap_or_default(), terminals as u32, length, fastrand::u64(..));
    let cards = Cards::new(campus.cards, plan.popularity)?;
    let outcome = Driver::new(rules, &mut crowd, Some(cards), Box::new(arrivals), &mut clock, None)?.run()?;
    let mut figures = figures(plan, &outcome, &crowd, sign_on)?;
    figures["depth"] = plan.depth.or(plan.rate.is_none().then_some(1)).into();
    if let Some(rate) = plan.rate {
        figures["rate"] = rate.into();
        figures["arrivals"] = plan.spacing.name().into();
    }
    Ok(figures)
}

/// What every run tells.
pub(crate) fn figures(plan: &Plan, outcome: &Outcome, crowd: &Crowd, sign_on: Duration) -> Result<Value, Failure> {
    let latency = outcome.tally.latency()?;
    let (totals, ledger, merchants) = ledger(crowd.seats.iter().map(|seat| &seat.terminal));
    let mut figures = json!({
        "connections": crowd.links.len(),
        "terminals": crowd.seats.len(),
        "sign_on_ns": sign_on.as_nanos() as u64,
        "window_ns": outcome.window,
        "answers": latency.len(),
        "latency_ns": percentiles(&latency),
        "lateness_ns": outcome.tally.lateness(),
        "held": outcome.tally.held,
        "client_cpu_ns": outcome.cpu,
        "answers_total": outcome.tally.total,
        "fen_total": totals.approved_fen - totals.reversed_fen,
        "operations": outcome.tally.operations(),
        "ledger": ledger,
        "merchants": merchants,
    });
    if plan.histogram {
        figures["histogram"] = export(&latency);
    }
    Ok(figures)
}
