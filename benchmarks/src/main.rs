//! The native side of the benchmarks; `run.py` beside it puts the parts together.
//!
//! | command | does |
//! |---|---|
//! | `echo` | serves the bare echo until its standard input ends |
//! | `drive` | drives terminals against the switch or the echo, prints one JSON object |
//! | `replay` | asks of the switch what a file says, prints one JSON object |
//! | `drive-postgresql`, `drive-redis` | makes the same purchases there, prints one JSON object |
//! | `in-process` | times the core alone, prints one JSON object |
//! | `instructions` | does the same work every time, for counting its instructions |
//! | `memory` | measures what cards and remembered identities take, prints one JSON object |
//! | `startup` | times starts on a journal that it makes, prints one JSON object |
//!
//! A debug build refuses to measure: its figures would mislead. `--rehearsal` lets it run all the same, for tests.

use std::error::Error;
use std::num::NonZeroUsize;
use std::process::ExitCode;

use lexopt::{Arg, Parser, ValueExt};

use drive::Plan;

mod answers;
mod campus;
mod chance;
mod crowd;
mod drive;
mod driver;
mod echo;
mod figures;
mod in_process;
mod instructions;
mod link;
mod made;
mod memory;
mod peers;
mod replay;
mod schedule;
mod startup;
mod terminal;

/// Why there is no figure: one sentence.
type Failure = Box<dyn Error>;

/// Unless said.
const CARDS: u64 = 1_000_000;

const USAGE: &str = "switch_benchmarks echo
switch_benchmarks drive --address HOST:PORT --campus FOLDER [--echo] [--first-terminal N] [--terminals N] [--connections N]
                        [--depth N] [--rate PER_SECOND [--arrivals constant|poisson]] [--warm-up SECONDS] [--seconds SECONDS]
                        [--popularity uniform|zipf:EXPONENT|hot:CARDS:REQUESTS] [--allow-declines]
                        [--mix purchase=N,balance=N,reversal=N,repeat=N] [--patience SECONDS] [--histogram] [--progress]
                        [--announce]
switch_benchmarks replay --address HOST:PORT --campus FOLDER --replay FILE.csv [--speed X] [--connections N]
                        [--allow-declines] [--answers FILE.csv] [--patience SECONDS] [--histogram] [--progress] [--announce]
switch_benchmarks drive-postgresql --address HOST:PORT --campus FOLDER [--first-terminal N] [--connections N] [--depth N]
                        [--warm-up SECONDS] [--seconds SECONDS] [--histogram]
switch_benchmarks drive-redis --script SHA1, and the rest as above
switch_benchmarks in-process --campus FOLDER [--purchases N] [--cards N] [--wave N]
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
    let mut script = String::new();
    let mut purchases = 1_000_000;
    let mut folder = None;
    let mut plan = Plan::default();
    let mut scale = startup::Scale { records: 10_000_000, cards: 0, batch: 256 };
    let mut count = 2_048;
    let mut cards = None;
    let mut wave = in_process::WAVE;
    let mut identities = 20_000_000;
    let mut arguments = Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Value(value) if command.is_none() => command = Some(value.string()?),
            Arg::Long("rehearsal") => rehearsal = true,
            Arg::Long("script") => script = arguments.value()?.string()?,
            Arg::Long("purchases") => purchases = arguments.value()?.parse()?,
            Arg::Long("folder") => folder = Some(arguments.value()?),
            Arg::Long("records") => scale.records = arguments.value()?.parse()?,
            Arg::Long("count") => count = arguments.value()?.parse()?,
            Arg::Long("cards") => cards = Some(arguments.value()?.parse()?),
            Arg::Long("wave") => wave = arguments.value()?.parse::<NonZeroUsize>()?.get(),
            Arg::Long("identities") => identities = arguments.value()?.parse()?,
            Arg::Long("batch") => scale.batch = arguments.value()?.parse()?,
            Arg::Long("help") => {
                println!("{USAGE}");
                return Ok(());
            }
            Arg::Long(name) => {
                let name = name.to_owned();
                if !plan.option(&name, &mut arguments)? {
                    return Err(format!("there is no option --{name}; the usage is:\n{USAGE}").into());
                }
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
            println!("{}", drive::drive(&plan)?);
            Ok(())
        }
        Some("replay") => {
            println!("{}", replay::replay(&plan)?);
            Ok(())
        }
        Some("drive-postgresql") => {
            println!("{}", peers::drive(&peers::Peer::PostgreSql, &plan)?);
            Ok(())
        }
        Some("drive-redis") => {
            println!("{}", peers::drive(&peers::Peer::Redis { script }, &plan)?);
            Ok(())
        }
        Some("in-process") => {
            println!("{}", in_process::measure(&plan.campus, purchases, cards, wave)?);
            Ok(())
        }
        Some("instructions") => {
            println!("{}", instructions::run(count)?);
            Ok(())
        }
        Some("memory") => {
            println!("{}", memory::measure(cards.unwrap_or(CARDS), identities)?);
            Ok(())
        }
        Some("startup") => {
            let folder = folder.ok_or("startup needs --folder")?;
            scale.cards = cards.unwrap_or(CARDS);
            println!("{}", startup::measure(folder.as_ref(), &scale)?);
            Ok(())
        }
        _ => Err(format!("which command? The usage is:\n{USAGE}").into()),
    }
}
