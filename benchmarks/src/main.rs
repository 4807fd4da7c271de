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
use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::{Arg, Parser, ValueExt};

use drive::{Plan, above_zero};

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

/// The commands with their options. What a command does not take is refused: a figure must not be of something else than was asked for.
const USAGE: [(&str, &str); 9] = [
    ("echo", ""),
    (
        "drive",
        "--address IP:PORT --campus FOLDER [--echo] [--first-terminal N] [--terminals N] [--connections N] [--depth N]
    [--rate PER_SECOND [--arrivals constant|poisson]] [--warm-up SECONDS] [--seconds SECONDS]
    [--popularity uniform|zipf:EXPONENT|hot:CARDS:REQUESTS] [--mix purchase=N,balance=N,reversal=N,repeat=N]
    [--allow-declines] [--patience SECONDS] [--histogram] [--progress] [--announce]",
    ),
    (
        "replay",
        "--address IP:PORT --campus FOLDER --replay FILE.csv [--speed X] [--connections N] [--allow-declines]
    [--answers FILE.csv] [--patience SECONDS] [--histogram] [--progress] [--announce]",
    ),
    (
        "drive-postgresql",
        "--address IP:PORT --campus FOLDER [--first-terminal N] [--connections N] [--depth N]
    [--warm-up SECONDS] [--seconds SECONDS] [--patience SECONDS] [--histogram]",
    ),
    (
        "drive-redis",
        "--address IP:PORT --campus FOLDER --script SHA1 [--first-terminal N] [--connections N] [--depth N]
    [--warm-up SECONDS] [--seconds SECONDS] [--patience SECONDS] [--histogram]",
    ),
    ("in-process", "--campus FOLDER [--purchases N] [--cards N] [--wave N]"),
    ("instructions", "[--count N]"),
    ("memory", "[--cards N] [--identities N]"),
    ("startup", "--folder FOLDER [--records N] [--cards N] [--batch N]"),
];

fn usage() -> String {
    let commands = USAGE.map(|(command, options)| format!("switch_benchmarks {command} {options}"));
    format!("{}\nall: [--rehearsal]", commands.join("\n"))
}

/// Whether a command takes an option.
fn takes(options: &str, name: &str) -> bool {
    let words = options.split(|letter: char| letter != '-' && !letter.is_ascii_alphanumeric());
    words.filter_map(|word| word.strip_prefix("--")).any(|option| option == name)
}

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
    let mut given = Vec::new();
    let mut options = Options::default();
    let mut arguments = Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Value(value) if command.is_none() => command = Some(value.string()?),
            Arg::Long("rehearsal") => rehearsal = true,
            Arg::Long("help") => {
                println!("{}", usage());
                return Ok(());
            }
            Arg::Long(name) => {
                let name = name.to_owned();
                if !options.take(&name, &mut arguments).map_err(|error| format!("--{name}: {error}"))? {
                    return Err(format!("there is no option --{name}; the usage is:\n{}", usage()).into());
                }
                given.push(name);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let command = command.unwrap_or_default();
    let known = USAGE.iter().find(|(name, _)| *name == command);
    let (_, known) = known.ok_or_else(|| format!("which command? The usage is:\n{}", usage()))?;
    if let Some(name) = given.iter().find(|name| !takes(known, name)) {
        return Err(format!("{command} takes no --{name}; the usage is:\n{}", usage()).into());
    }
    if cfg!(debug_assertions) && !rehearsal {
        return Err("this is a debug build, whose figures mislead; build with --release (or pass --rehearsal in a test)".into());
    }
    let Options { plan, script, purchases, folder, records, batch, count, cards, wave, identities } = options;
    let figures = match command.as_str() {
        "echo" => return echo::serve(),
        "drive" => drive::drive(&plan)?,
        "replay" => replay::replay(&plan)?,
        "drive-postgresql" => peers::drive(&peers::Peer::PostgreSql, &plan)?,
        "drive-redis" => peers::drive(&peers::Peer::Redis { script: script.ok_or("drive-redis needs --script")? }, &plan)?,
        "in-process" => in_process::measure(&plan.campus, purchases, cards, wave)?,
        "instructions" => instructions::run(count)?,
        "memory" => memory::measure(cards.unwrap_or(CARDS), identities)?,
        "startup" => {
            let folder = folder.ok_or("startup needs --folder")?;
            startup::measure(&folder, &startup::Scale { records, cards: cards.unwrap_or(CARDS), batch })?
        }
        _ => unreachable!("{command} has a usage"),
    };
    println!("{figures}");
    Ok(())
}

/// What is said on the command line.
struct Options {
    plan: Plan,
    script: Option<String>,
    purchases: usize,
    folder: Option<PathBuf>,
    records: u64,
    batch: u64,
    count: usize,
    cards: Option<u64>,
    wave: usize,
    identities: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            plan: Plan::default(),
            script: None,
            purchases: 1_000_000,
            folder: None,
            records: 10_000_000,
            batch: 256,
            count: 2_048,
            cards: None,
            wave: in_process::WAVE,
            identities: 20_000_000,
        }
    }
}

impl Options {
    /// Takes an option. False if it is none.
    fn take(&mut self, name: &str, arguments: &mut Parser) -> Result<bool, lexopt::Error> {
        match name {
            "script" => self.script = Some(arguments.value()?.parse_with(digest)?),
            "purchases" => self.purchases = arguments.value()?.parse_with(above_zero)?,
            "folder" => self.folder = Some(arguments.value()?.into()),
            "records" => self.records = arguments.value()?.parse_with(above_zero)?,
            "batch" => self.batch = arguments.value()?.parse_with(above_zero)?,
            "count" => self.count = arguments.value()?.parse_with(above_zero)?,
            "cards" => self.cards = Some(arguments.value()?.parse_with(above_zero)?),
            "wave" => self.wave = arguments.value()?.parse_with(above_zero)?,
            "identities" => self.identities = arguments.value()?.parse_with(above_zero)?,
            _ => return self.plan.option(name, arguments),
        }
        Ok(true)
    }
}

fn digest(text: &str) -> Result<String, String> {
    let is_digest = text.len() == 40 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    if is_digest { Ok(text.to_owned()) } else { Err(format!("{text:?} is no SHA-1 of 40 hex digits")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_takes_what_its_usage_names_and_nothing_else() {
        let takes = |command: &str, name: &str| super::takes(USAGE.iter().find(|(other, _)| *other == command).unwrap().1, name);
        for name in ["address", "connections", "rate", "arrivals", "warm-up", "mix", "announce"] {
            assert!(takes("drive", name), "{name}");
        }
        for name in ["rate", "mix", "terminal", "first", "up", "warm", "script", ""] {
            assert!(!takes("drive-postgresql", name), "{name}");
        }
        assert!(takes("drive-redis", "script") && takes("startup", "folder") && !takes("echo", "address"));
    }
}
