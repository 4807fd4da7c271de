//! What fuzzing asks of the core, target by target.
//!
//! Each module has `check`, which takes any bytes and panics where the core does what it must not, and `seeds`, inputs to begin
//! with. The targets in `fuzz_targets` hand libFuzzer's bytes to `check`; `make fuzz` at the root runs them.
//!
//! | target | reads | holds against it |
//! |---|---|---|
//! | [`frame`] | a stream of bytes | the same frames whole, and in pieces |
//! | [`message`] | a message | every accessor against what a writer makes of it |
//! | [`authorizer`] | a plan of requests, with right MACs where the plan says so | the invariants of the switch after each |
//! | [`record`] | journal records | no record ends a replay but by a sentence; the sum stays zero |
//! | [`journal`] | a plan of damage to a sound journal | refused, or what was acknowledged |
//! | [`snapshot`] | a plan of damage to a state's image | refused, or a state to go on from |

pub mod authorizer;
#[path = "../../tests/college/mod.rs"]
mod college;
pub mod frame;
pub mod journal;
pub mod message;
pub mod record;
pub mod snapshot;

/// Takes an input apart from its front. What is missing at its end reads as the end of the plan.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (&array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(array)
    }

    /// Up to `count` bytes, as many as there are.
    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        bytes
    }
}
