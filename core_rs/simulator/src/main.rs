//! Runs seeds on all cores, each run in one thread: `make simulate SEEDS=100000 FIRST=1`, and with TRACE=1 one after another,
//! a line an event. Ends at the first failure with its seed and the command that shows it again; of ten thousand seeds, all kinds of
//! events and answers must have occurred.

use std::cell::Cell;
use std::io::Write;
use std::num::NonZero;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use switch_simulator::coverage::{Coverage, SEEDS_FOR_ALL};
use switch_simulator::run;

/// Seeds that a thread takes at a time.
const PORTION: u64 = 16;
const PROGRESS: Duration = Duration::from_secs(10);

thread_local! {
    /// The seed that this thread runs, for the panics of the core itself.
    static SEED: Cell<u64> = const { Cell::new(0) };
}

struct Arguments {
    first: u64,
    seeds: u64,
    threads: usize,
    trace: bool,
}

fn arguments() -> Result<Arguments, lexopt::Error> {
    use lexopt::prelude::*;
    let mut found =
        Arguments { first: 1, seeds: 1_000, threads: thread::available_parallelism().map_or(1, NonZero::get), trace: false };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("first") => found.first = parser.value()?.parse()?,
            Long("seeds") => found.seeds = parser.value()?.parse()?,
            Long("threads") => found.threads = parser.value()?.parse()?,
            Long("trace") => found.trace = true,
            other => return Err(other.unexpected()),
        }
    }
    Ok(found)
}

/// Seeds a second.
fn rate(seeds: u64, took: Duration) -> u128 {
    u128::from(seeds) * 1_000 / took.as_millis().max(1)
}

fn report(seed: u64, what: &str) {
    let mut out = std::io::stderr().lock();
    // Nothing can be done where even this cannot be written.
    let _ = writeln!(out, "seed {seed}: {what}\nTo see it again: make simulate SEEDS=1 FIRST={seed} TRACE=1");
}

fn main() -> ExitCode {
    let Arguments { first, seeds, threads, trace } = match arguments() {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("simulate: {error}; known are --first N, --seeds N, --threads N and --trace");
            return ExitCode::from(2);
        }
    };
    std::panic::set_hook(Box::new(|panic| report(SEED.get(), &panic.to_string())));
    let (next, done, failed) = (AtomicU64::new(first), AtomicU64::new(0), AtomicU64::new(0));
    let (begun, last) = (Instant::now(), first + seeds);
    let total = Mutex::new(Coverage::default());
    println!("simulating {seeds} seeds from {first} on {threads} threads");
    let work = || {
        let mut coverage = Coverage::default();
        while failed.load(Ordering::Relaxed) == 0 {
            let start = next.fetch_add(PORTION, Ordering::Relaxed);
            if start >= last {
                break;
            }
            for seed in start..(start + PORTION).min(last) {
                SEED.set(seed);
                match run(seed, trace) {
                    Ok(outcome) => coverage.add(&outcome.coverage),
                    Err(failure) => {
                        failed.fetch_add(1, Ordering::Relaxed);
                        report(seed, &failure.to_string());
                        break;
                    }
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
        }
        total.lock().expect("nobody panicked").add(&coverage);
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..if trace { 1 } else { threads }).map(|_| scope.spawn(work)).collect();
        let mut told = Instant::now();
        while workers.iter().any(|worker| !worker.is_finished()) {
            thread::park_timeout(Duration::from_millis(20));
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                let done = done.load(Ordering::Relaxed);
                println!("{done} seeds, {} a second", rate(done, begun.elapsed()));
            }
        }
    });
    let (done, took) = (done.into_inner(), begun.elapsed());
    let coverage = total.into_inner().expect("nobody panicked");
    if !trace {
        println!("{coverage}");
    }
    println!("{done} seeds in {:.1} s, {} a second", took.as_secs_f64(), rate(done, took));
    let mut missing: Vec<String> = coverage.missing_kinds().into_iter().map(str::to_owned).collect();
    missing.extend(coverage.missing_answers());
    if !trace && !missing.is_empty() {
        println!("did not occur: {}", missing.join(", "));
    }
    let shows_too_little = done >= SEEDS_FOR_ALL && !missing.is_empty();
    if failed.into_inner() > 0 || shows_too_little { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
