//! Connections: how they come, what epoll watches of them, how they end.

use std::os::fd::OwnedFd;

use rustix::event::epoll;
use rustix::ioctl::{Getter, Opcode, ioctl};
use rustix::net::sockopt;

use super::Reactor;
use crate::limits::{PEER_SILENT_MAX, SOCKET_BUFFER_BYTES};

pub(super) struct Connection {
    pub(super) socket: OwnedFd,
    /// A frame's beginning that has come so far.
    pub(super) partial: Vec<u8>,
    /// When it began, on the monotonic clock; meaningful while `partial` is not empty.
    pub(super) partial_since: u64,
    /// Replies that the socket did not take yet.
    pub(super) unsent: Vec<u8>,
    /// Bytes not sent yet of those that were kept at `behind_since`, on the monotonic clock; meaningful while there are any.
    pub(super) behind: usize,
    pub(super) behind_since: u64,
    /// Replies that wait for the journal.
    pub(super) waiting: u32,
    pub(super) mac_failures: u32,
    /// Whether a message's MAC was right: it is a terminal's, and keeps its place.
    pub(super) proved: bool,
    /// Why it is to be closed, once nothing waits any more.
    pub(super) doomed: Option<&'static str>,
}

impl Connection {
    pub(super) fn is_done(&self) -> bool {
        self.doomed.is_some() && self.waiting == 0 && self.unsent.is_empty()
    }

    /// Whether the peer's side has acknowledged every reply. What the system still holds for it is lost with the connection if
    /// requests that nobody reads any more have come in: the system then ends the connection by a reset.
    pub(super) fn has_its_replies(&self) -> bool {
        // SAFETY: TIOCOUTQ (which SIOCOUTQ of tcp(7) is another name for) writes one `int`.
        let unacknowledged = unsafe { ioctl(&self.socket, Getter::<{ libc::TIOCOUTQ as Opcode }, libc::c_int>::new()) };
        // A socket that cannot say has nothing that could still arrive.
        self.unsent.is_empty() && unacknowledged.unwrap_or(0) == 0
    }
}

#[derive(Default)]
pub(super) struct Slot {
    pub(super) generation: u32,
    pub(super) connection: Option<Connection>,
}

impl Slot {
    /// Whether this generation's connection is there and has not proved a message.
    fn is_unproved(&self, generation: u32) -> bool {
        self.generation == generation && self.connection.as_ref().is_some_and(|connection| !connection.proved)
    }
}

impl Reactor {
    /// Takes a connected socket over. `false`: it was closed at once, because there are too many, the switch is draining, or
    /// the system refused it. Where there are too many, whoever has proved nothing for the longest time makes room: holding
    /// places costs a stranger nothing, and must not keep a terminal out that comes back.
    pub fn adopt(&mut self, socket: OwnedFd) -> bool {
        self.statistics.accepted += 1;
        if self.draining || (self.open >= self.bounds.connections_max && !self.displace()) {
            self.count_closed(if self.draining { "draining" } else { "full" });
            return false;
        }
        let ready = rustix::io::ioctl_fionbio(&socket, true).is_ok();
        // Without these the switch still serves, slower, with dead peers kept longer, and with more of the kernel's memory.
        let _ = sockopt::set_tcp_nodelay(&socket, true);
        let _ = sockopt::set_socket_keepalive(&socket, true);
        let _ = sockopt::set_tcp_keepidle(&socket, PEER_SILENT_MAX);
        let _ = sockopt::set_tcp_keepintvl(&socket, PEER_SILENT_MAX / 4);
        let _ = sockopt::set_tcp_user_timeout(&socket, PEER_SILENT_MAX.as_millis() as u32);
        let _ = sockopt::set_socket_send_buffer_size(&socket, SOCKET_BUFFER_BYTES);
        let _ = sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BUFFER_BYTES);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        let place = &mut self.slots[slot as usize];
        let token = u64::from(place.generation) << 32 | u64::from(slot);
        let added = epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(token), epoll::EventFlags::IN);
        if !ready || added.is_err() {
            self.free.push(slot);
            self.count_closed("refused_by_system");
            return false;
        }
        place.connection = Some(Connection {
            socket,
            partial: Vec::new(),
            partial_since: 0,
            unsent: Vec::new(),
            behind: 0,
            behind_since: 0,
            waiting: 0,
            mac_failures: 0,
            proved: false,
            doomed: None,
        });
        self.open += 1;
        self.unproved.push_back((slot, place.generation));
        if self.unproved.len() > 2 * self.bounds.connections_max {
            // Most are gone: each came and went without a word.
            let slots = &self.slots;
            self.unproved.retain(|&(slot, generation)| slots[slot as usize].is_unproved(generation));
        }
        true
    }

    /// Closes the connection that has proved nothing for the longest time. `false`: all have.
    fn displace(&mut self) -> bool {
        while let Some((slot, generation)) = self.unproved.pop_front() {
            if self.slots[slot as usize].is_unproved(generation) {
                self.close(slot, "displaced");
                return true;
            }
        }
        false
    }

    pub(super) fn count_closed(&mut self, reason: &'static str) {
        *self.statistics.closed.entry(reason).or_default() += 1;
    }

    pub(super) fn close(&mut self, slot: u32, reason: &'static str) {
        let place = &mut self.slots[slot as usize];
        if let Some(connection) = place.connection.take() {
            self.unsent_bytes -= connection.unsent.len();
            // Dropping the socket takes it out of the epoll set; the new generation makes its waiting replies nobody's.
            place.generation = place.generation.wrapping_add(1) & 0x7fff_ffff;
            self.free.push(slot);
            self.open -= 1;
            self.count_closed(reason);
        }
    }

    /// Stops reading from a connection that is to be closed, and closes it as soon as nothing waits for it any more.
    pub(super) fn doom(&mut self, slot: u32, reason: &'static str) {
        if let Some(connection) = &mut self.slots[slot as usize].connection {
            connection.doomed.get_or_insert(reason);
            connection.partial = Vec::new();
            self.dooms.push(slot);
        }
    }

    pub(super) fn close_doomed(&mut self) {
        while let Some(slot) = self.dooms.pop() {
            let Some(connection) = &self.slots[slot as usize].connection else { continue };
            if connection.is_done() {
                let reason = connection.doomed.unwrap_or("peer");
                self.close(slot, reason);
            } else {
                self.watch(slot);
            }
        }
    }

    /// Tells epoll what a connection waits for.
    pub(super) fn watch(&self, slot: u32) {
        let place = &self.slots[slot as usize];
        if let Some(connection) = &place.connection {
            let mut flags = epoll::EventFlags::empty();
            flags.set(epoll::EventFlags::IN, connection.doomed.is_none() && !self.draining);
            flags.set(epoll::EventFlags::OUT, !connection.unsent.is_empty());
            let token = u64::from(place.generation) << 32 | u64::from(slot);
            // It can only fail for a descriptor that is not in the set, and this one is.
            epoll::modify(&self.epoll, &connection.socket, epoll::EventData::new_u64(token), flags)
                .expect("a connection is in the epoll set");
        }
    }
}
