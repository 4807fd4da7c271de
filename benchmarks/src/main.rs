//! The native side of the benchmarks; `run.py` beside it puts the parts together.
//!
//! | command | does |
//! |---|---|
//! | `echo` | serves the bare echo until its standard input ends |
//! | `drive` | drives terminals against the switch or the echo, prints one JSON object |
//! | `in-process` | times the core alone, prints one JSON object |
//! | `instructions` | does the same work every time, for counting its instructions |
//! | `memory` | measures what cards and remembered identities take, prints one JSON object |
//! | `startup` | times starts on a journal that it makes, prints one JSON object |
//!
//! A debug build refuses to measure: its figures would mislead. `--rehearsal` lets it run all the same, for tests.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};

use driver::{Peer, Plan};

mod driver;
mod echo;
mod in_process;
mod instructions;
mod made;
mod memory;
mod startup;
mod terminal;

/// Why there is no figure: one sentence.
type Failure = Box<dyn Error>;

const USAGE: &str = "switch_benchmarks echo
switch_benchmarks drive --address HOST:PORT --campus FOLDER [--echo] [--first-terminal N] [--connections N] [--depth N]
                        [--warm-up SECONDS] [--seconds SECONDS]
switch_benchmarks in-process --campus FOLDER [--purchases N]
switch_benchmarks instructions [--count N]
switch_benchmarks memory [--cards N] [--identities N]
switch_benchmarks startup --folder FOLDER [--records N] [--cards N] [--batch N]
all: [--rehearsal]";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("switch_benchmarks: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let mut command = None;
    let mut rehearsal = false;
    let mut address = None;
    let mut purchases = 1_000_000;
    let mut folder = None;
    let mut scale = startup::Scale { records: 10_000_000, cards: 0, batch: 256 };
    let mut count = 2_048;
    let mut cards = 1_000_000;
    let mut identities = 20_000_000;
    let mut plan = Plan {
        peer: Peer::Switch,
        address: ([127, 0, 0, 1], 0).into(),
        campus: ".".into(),
        first_terminal: 0,
        connections: 64,
        depth: 1,
        warm_up: Duration::from_millis(500),
        measured: Duration::from_secs(2),
    };
    let mut arguments = Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Value(value) if command.is_none() => command = Some(value.string()?),
            Arg::Long("rehearsal") => rehearsal = true,
            Arg::Long("echo") => plan.peer = Peer::Echo,
            Arg::Long("address") => address = Some(arguments.value()?.parse()?),
            Arg::Long("campus") => plan.campus = arguments.value()?.into(),
            Arg::Long("first-terminal") => plan.first_terminal = arguments.value()?.parse()?,
            Arg::Long("connections") => plan.connections = arguments.value()?.parse()?,
            Arg::Long("depth") => plan.depth = arguments.value()?.parse()?,
            Arg::Long("warm-up") => plan.warm_up = Duration::try_from_secs_f64(arguments.value()?.parse()?)?,
            Arg::Long("seconds") => plan.measured = Duration::try_from_secs_f64(arguments.value()?.parse()?)?,
            Arg::Long("purchases") => purchases = arguments.value()?.parse()?,
            Arg::Long("folder") => folder = Some(arguments.value()?),
            Arg::Long("records") => scale.records = arguments.value()?.parse()?,
            Arg::Long("count") => count = arguments.value()?.parse()?,
            Arg::Long("cards") => cards = arguments.value()?.parse()?,
            Arg::Long("identities") => identities = arguments.value()?.parse()?,
            Arg::Long("batch") => scale.batch = arguments.value()?.parse()?,
            Arg::Long("help") => {
                println!("{USAGE}");
                return Ok(());
            }
            other => return Err(other.unexpected().into()),
        }
    }
    if cfg!(debug_assertions) && !rehearsal {
        return Err("this is a debug build, whose figures mislead; build with --release (or pass --rehearsal in a test)".into());
    }
    match command.as_deref() {
        Some("echo") => echo::serve(),
        Some("drive") => {
            plan.address = address.ok_or("drive needs --address")?;
            println!("{}", driver::drive(&plan)?);
            Ok(())
        }
        Some("in-process") => {
            println!("{}", in_process::measure(&plan.campus, purchases)?);
            Ok(())
        }
        Some("instructions") => {
            println!("{}", instructions::run(count)?);
            Ok(())
        }
        Some("memory") => {
            println!("{}", memory::measure(cards, identities)?);
            Ok(())
        }
        Some("startup") => {
            let folder = folder.ok_or("startup needs --folder")?;
            scale.cards = cards;
            println!("{}", startup::measure(folder.as_ref(), &scale)?);
            Ok(())
        }
        _ => Err(format!("which command? The usage is:\n{USAGE}").into()),
    }
}
