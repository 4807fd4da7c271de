//! A simulator of the whole switch but its sockets and threads: protocol, MACs, sessions, ledger, authorizer, imports, the
//! lanes that hold replies back, the real journal, a follower's replica and its snapshots, in one thread, over a simulated disk, network and
//! clock. A seed decides everything, so a run that fails can be run again.
//!
//! | room | what it holds |
//! |---|---|
//! | [`disk`] | files that crash, tear, lie, fill up and fail |
//! | [`terminals`], [`message`] | what terminals do, and the bytes of it |
//! | [`model`] | what the switch should answer and hold, written down a second time |
//! | [`world`] | one run: its steps, the network |
//! | [`process`] | the switch's and the follower's processes: clocks, crashes, starts |
//! | [`operators`] | files |
//! | [`calm`] | the end of a run |
//! | [`judge`] | what must hold of answers, of recoveries, and at the end |
//! | [`coverage`] | what really happened |
//!
//! **What is shown.** Whatever a terminal or an operator was told is in the state after any crash; nothing is posted twice
//! or invented; a message sent again gets the same bytes again; the sum over all accounts is zero and no purse is below it; live
//! ledger, a fresh replay of the journal and the follower's replica have equal digests; every start succeeds unless the disk
//! lied, and then it is refused or the state is right.
//!
//! **What cannot be detected**, by this or any journal on one disk: the disk acknowledges the write of a batch that it never
//! makes (or makes elsewhere), no later batch or footer reaches it, and the power is cut before the durable mark, a plain write
//! in the page cache, reaches it as well. Then the disk looks as it did before the batch. The run ends there, and counts as
//! `lie.undetectable`, if and only if all three hold and the state is exactly that before the one batch.

pub mod calm;
pub mod coverage;
pub mod disk;
pub mod judge;
pub mod message;
pub mod model;
pub mod operators;
pub mod process;
pub mod terminals;
pub mod world;

use std::fmt;

use coverage::Coverage;

/// Something that must not be.
#[derive(Debug)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// A claim about the run: a [`Failure`] where it does not hold.
#[macro_export]
macro_rules! ensure {
    ($holds:expr, $($words:tt)+) => {
        if !$holds {
            return Err($crate::Failure(format!($($words)+)));
        }
    };
}

/// What a run showed.
pub struct Outcome {
    /// What happened.
    pub coverage: Coverage,
    /// Over everything that happened, in order: the same seed, the same digest.
    pub digest: [u8; 32],
}

/// Runs one seed. `trace` prints what happens, a line an event.
///
/// # Errors
/// What the run showed to be wrong.
pub fn run(seed: u64, trace: bool) -> Result<Outcome, Failure> {
    world::World::new(seed, trace)?.run()
}
