//! A connection: bytes that were read in part, bytes that the socket has not taken yet, and what was asked on it.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use switch_core::iso8583::frame::LENGTH_BYTES;

use crate::Failure;
use crate::terminal::Request;

/// A peer that does not accept a connection or answer a sign-on within this has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Descriptors of this process besides its connections.
const OTHER_DESCRIPTORS: u64 = 32;

pub(crate) struct Link {
    stream: TcpStream,
    /// In the order in which they were asked.
    pub(crate) under_way: VecDeque<Request>,
    partial: Vec<u8>,
    unsent: Vec<u8>,
}

impl Link {
    /// Connects. The socket blocks until [`Self::unblock`].
    pub(crate) fn open(address: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(|error| format!("connecting to {address}: {error}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, under_way: VecDeque::new(), partial: Vec::new(), unsent: Vec::new() })
    }

    pub(crate) fn unblock(&self) -> Result<(), Failure> {
        Ok(self.stream.set_nonblocking(true)?)
    }

    /// Sends all of it; only while the socket blocks.
    pub(crate) fn send_all(&mut self, frame: &[u8]) -> Result<(), Failure> {
        Ok(self.stream.write_all(frame)?)
    }

    /// Waits for one frame and puts its message into `message`; only while the socket blocks.
    pub(crate) fn receive(&mut self, message: &mut Vec<u8>) -> Result<(), Failure> {
        let mut length = [0; LENGTH_BYTES];
        self.stream.read_exact(&mut length).map_err(|error| format!("waiting for the answer to a sign-on: {error}"))?;
        message.resize(usize::from(u16::from_be_bytes(length)), 0);
        Ok(self.stream.read_exact(message)?)
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Sends what the socket takes and keeps the rest. True if there is a rest now where there was none.
    #[inline]
    pub(crate) fn send(&mut self, output: &[u8]) -> Result<bool, Failure> {
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(output);
            return Ok(false);
        }
        let sent = self.write(output)?;
        self.unsent.extend_from_slice(&output[sent..]);
        Ok(sent < output.len())
    }

    /// Sends what was kept, as far as the socket takes it. True if nothing is left.
    pub(crate) fn send_rest(&mut self) -> Result<bool, Failure> {
        let unsent = std::mem::take(&mut self.unsent);
        let sent = self.write(&unsent)?;
        self.unsent.extend_from_slice(&unsent[sent..]);
        Ok(self.unsent.is_empty())
    }

    fn write(&self, output: &[u8]) -> Result<usize, Failure> {
        match (&self.stream).write(output) {
            Ok(sent) => Ok(sent),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(format!("the peer does not take what is sent: {error}").into()),
        }
    }

    /// Reads what has arrived behind what was there in part. Gives how much of `input` that is.
    #[inline]
    pub(crate) fn read(&mut self, input: &mut [u8]) -> Result<usize, Failure> {
        let filled = self.partial.len();
        input[..filled].copy_from_slice(&self.partial);
        self.partial.clear();
        match self.stream.read(&mut input[filled..]) {
            Ok(0) => Err("the peer has closed a connection".into()),
            Ok(count) => Ok(filled + count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(filled),
            Err(error) => Err(format!("the peer has broken a connection: {error}").into()),
        }
    }

    /// Keeps the beginning of a frame for the next [`Self::read`].
    #[inline]
    pub(crate) fn keep(&mut self, partial: &[u8]) {
        self.partial.extend_from_slice(partial);
    }
}

/// Makes sure that this process may have so many connections, beyond the limit that it was started with if need be.
pub(crate) fn allow_connections(count: usize) -> Result<(), Failure> {
    let needed = count as u64 + OTHER_DESCRIPTORS;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let maximum = limit.maximum.map(|maximum| maximum.max(needed));
    setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum }).map_err(|error| {
        let allowed = limit.maximum.unwrap_or_default();
        format!("{count} connections need {needed} open files, and this process may have {allowed}: {error}; raise it (ulimit -Hn {needed})").into()
    })
}

/// Lets this process have as many connections as it may at all.
pub(crate) fn allow_all_connections() -> Result<(), Failure> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?)
}
