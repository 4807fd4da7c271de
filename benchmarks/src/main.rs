//! Figures of this machine.

fn main() {}
