//! The limit of the machine: a server that does nothing but its system calls.
//!
//! One thread, level-triggered epoll, one `recv` and one `send` for each readable socket. Each frame is answered with a
//! constant frame as long as the switch's answer to a purchase; nothing is read but the frames' lengths.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::event::epoll;
use switch_core::iso8583::frame::{self, Split};

use crate::Failure;
use crate::link::allow_all_connections;
use crate::terminal::sample_reply;

const EVENTS_MAX: usize = 1024;
/// Connections that may wait to be accepted: a driver opens thousands at once.
const BACKLOG: i32 = 4096;
const LISTENER: u64 = u64::MAX;
const INPUT: u64 = u64::MAX - 1;

struct Peer {
    stream: TcpStream,
    partial: Vec<u8>,
}

/// Serves on a free port of loopback, which it prints, until standard input ends.
pub(crate) fn serve() -> Result<(), Failure> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    listener.set_nonblocking(true)?;
    // The library has asked for a short queue; asking again changes it.
    rustix::net::listen(&listener, BACKLOG)?;
    allow_all_connections()?;
    println!("{}", serde_json::json!({ "ready": true, "address": listener.local_addr()?.to_string() }));
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let watch = |token: u64, descriptor: BorrowedFd<'_>| {
        epoll::add(&epoll, descriptor, epoll::EventData::new_u64(token), epoll::EventFlags::IN)
    };
    watch(LISTENER, listener.as_fd())?;
    watch(INPUT, std::io::stdin().as_fd())?;
    let reply = sample_reply();
    // By descriptor: to hash it would be a cost that is not the machine's.
    let mut peers: Vec<Option<Peer>> = Vec::new();
    let mut events = Vec::with_capacity(EVENTS_MAX);
    let mut input = vec![0; 64 << 10];
    let mut output = Vec::new();
    loop {
        events.clear();
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            match event.data.u64() {
                INPUT => return Ok(()),
                LISTENER => {
                    let (stream, _) = listener.accept()?;
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    let place = stream.as_raw_fd().cast_unsigned() as usize;
                    watch(place as u64, stream.as_fd())?;
                    peers.resize_with(peers.len().max(place + 1), || None);
                    peers[place] = Some(Peer { stream, partial: Vec::new() });
                }
                token => {
                    let place = &mut peers[token as usize];
                    let peer = place.as_mut().expect("a peer is kept until it is closed");
                    if !answer(peer, &mut input, &reply, &mut output)? {
                        *place = None;
                    }
                }
            }
        }
    }
}

/// False once the peer has closed.
fn answer(peer: &mut Peer, input: &mut [u8], reply: &[u8], output: &mut Vec<u8>) -> Result<bool, Failure> {
    let mut filled = peer.partial.len();
    input[..filled].copy_from_slice(&peer.partial);
    peer.partial.clear();
    match peer.stream.read(&mut input[filled..]) {
        Ok(0) | Err(_) => return Ok(false),
        Ok(count) => filled += count,
    }
    let mut taken = 0;
    output.clear();
    while let Split::Frame { consumed, .. } = frame::split(&input[taken..filled]) {
        taken += consumed;
        output.extend_from_slice(reply);
    }
    peer.partial.extend_from_slice(&input[taken..filled]);
    peer.stream.write_all(output)?;
    Ok(true)
}
