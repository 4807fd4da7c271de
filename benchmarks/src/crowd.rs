//! Terminals and their connections, opened and signed on.

use std::collections::VecDeque;
use std::net::SocketAddr;

use switch_core::reactor::wall_clock;

use crate::Failure;
use crate::campus::Till;
use crate::link::{Link, allow_connections};
use crate::schedule::Arrival;
use crate::terminal::{Clock, Memory, Terminal};

/// Terminals that sign on together. They share the journal's batches, their connections fit into a listener's queue, and their answers
/// into what a peer keeps for a connection that is not read.
const WAVE: usize = 512;

/// A terminal at its place.
pub(crate) struct Seat {
    pub(crate) terminal: Terminal,
    /// Which connection it speaks on.
    pub(crate) link: u32,
    /// Requests that have no answer yet.
    pub(crate) under_way: usize,
    /// What is due and waits for an answer to come first.
    pub(crate) held: VecDeque<Arrival>,
}

/// All of them.
pub(crate) struct Crowd {
    pub(crate) seats: Vec<Seat>,
    pub(crate) links: Vec<Link>,
}

impl Crowd {
    /// Opens the connections, the terminals spread over them in turn, and signs on if asked to.
    pub(crate) fn gather(
        address: SocketAddr,
        tills: &[&Till],
        connections: usize,
        memory: Memory,
        sign_on: Option<&mut Clock>,
    ) -> Result<Self, Failure> {
        if connections == 0 || connections > tills.len() {
            return Err(format!("{} terminals cannot have {connections} connections", tills.len()).into());
        }
        allow_connections(connections)?;
        let seat = |(index, till): (usize, &&Till)| Seat {
            terminal: Terminal::new(till, memory),
            link: (index % connections) as u32,
            under_way: 0,
            held: VecDeque::new(),
        };
        let mut crowd = Self { seats: tills.iter().enumerate().map(seat).collect(), links: Vec::new() };
        let mut clock = sign_on;
        let mut seated = 0;
        for wave in crowd.seats.chunks_mut(WAVE) {
            seated += wave.len();
            while crowd.links.len() < seated.min(connections) {
                crowd.links.push(Link::open(address)?);
            }
            if let Some(clock) = clock.as_deref_mut() {
                enter(wave, &mut crowd.links, clock)?;
            }
        }
        crowd.links.iter().try_for_each(Link::unblock)?;
        Ok(crowd)
    }
}

/// All of them ask before the first answer is read.
fn enter(wave: &mut [Seat], links: &mut [Link], clock: &mut Clock) -> Result<(), Failure> {
    let mut message = Vec::new();
    for seat in &mut *wave {
        message.clear();
        seat.terminal.sign_on(clock.stamp(wall_clock()), &mut message);
        links[seat.link as usize].send_all(&message)?;
    }
    for seat in wave {
        links[seat.link as usize].receive(&mut message)?;
        seat.terminal.signed_on(&message)?;
    }
    Ok(())
}
