//! The pump over real sockets and a real journal: what is answered, when, and who is closed.

mod college;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use college::{Answer, Draft, Terminal, card, nonces, settings, unframed};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;
use switch_core::authorizer::{Authorizer, Handled, Settings};
use switch_core::import::import;
use switch_core::iso8583::frame::{self, Split};
use switch_core::journal::{Journal, Options};
use switch_core::ledger::{Ledger, Response};
use switch_core::limits::{PEER_SILENT_MAX, READ_BYTES, SOCKET_BUFFER_BYTES, UNSENT_BYTES_MAX, UNSENT_MICROSECONDS_MAX};
use switch_core::reactor::{Bounds, Reactor, wall_clock};
use switch_core::stats::Operation;
use switch_core::verification::verify;

const OPTIONS: Options = Options { segment_bytes: 1 << 20, batch_bytes_max: 1 << 18 };
const BOUNDS: Bounds = Bounds { connections_max: 8, mac_failures_max: 5 };
/// Far longer than anything here takes: a hang fails instead of hanging.
const PATIENCE: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };

/// A switch in a folder of its own.
struct Switch {
    reactor: Reactor,
    folder: tempfile::TempDir,
    /// What the last wave said: there is more to do at once.
    more: bool,
}

fn open(folder: &Path, bounds: Bounds) -> Reactor {
    let mut ledger = Ledger::new();
    let journal = Journal::open(folder, &OPTIONS, &mut |position, record| ledger.replay(position, record).map(|_| ()));
    let settings = Settings { ..settings() };
    let journal = journal.expect("a sound journal");
    let authorizer = Authorizer::new(ledger, journal, settings, nonces, wall_clock()).expect("its own keys");
    Reactor::new(authorizer, bounds).expect("an epoll descriptor")
}

impl Switch {
    fn new(bounds: Bounds) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Journal::create(folder.path(), &OPTIONS).expect("an empty folder");
        let mut reactor = open(folder.path(), bounds);
        for content in [college::MERCHANTS, college::TERMINALS, college::CARDS] {
            // Cards that are good whenever the test runs.
            let content = content.replace("2027-01-01", "2178-12-31");
            import(reactor.authorizer_mut(), wall_clock(), "file.csv", content.as_bytes()).expect("a good file");
            reactor.after_command();
        }
        Self { reactor, folder, more: false }
    }

    fn connect(&mut self) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let peer = TcpStream::connect(listener.local_addr().expect("an address")).expect("a listener");
        assert!(self.reactor.adopt(OwnedFd::from(listener.accept().expect("a connection").0)));
        peer
    }

    /// A wave as the gateway calls it: at once where the last one said that there is more, else when there is something to do.
    fn wave(&mut self) {
        let mut descriptors = [PollFd::from_borrowed_fd(self.reactor.descriptor(), PollFlags::IN)];
        assert!(self.more || poll(&mut descriptors, Some(&PATIENCE)) == Ok(1), "the switch has nothing to do");
        self.more = self.reactor.wave(0);
    }

    fn serve_until(&mut self, mut done: impl FnMut(&Reactor) -> bool) {
        while !done(&self.reactor) {
            self.wave();
        }
    }

    fn drain(&mut self) {
        let end = Instant::now() + Duration::try_from(PATIENCE).expect("a positive time");
        while !self.reactor.drain() {
            assert!(Instant::now() < end, "draining does not end");
            // A peer's acknowledgement of the last reply is no event.
            let mut descriptors = [PollFd::from_borrowed_fd(self.reactor.descriptor(), PollFlags::IN)];
            poll(&mut descriptors, Some(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 })).expect("an epoll set");
        }
    }

    fn closed(&self, reason: &str) -> u64 {
        self.reactor.statistics().closed.get(reason).copied().unwrap_or(0)
    }

    fn durable(&self) -> u64 {
        self.reactor.authorizer().log().durable()
    }

    /// The answer that comes next to `peer`, which must not be there before its record is durable.
    fn answer(&mut self, peer: &mut TcpStream) -> Answer {
        peer.set_nonblocking(true).expect("a socket");
        let mut frame = Vec::new();
        loop {
            let wanted = match frame::split(&frame) {
                Split::Frame { .. } => break,
                Split::Incomplete if frame.len() < 2 => 2 - frame.len(),
                Split::Incomplete => usize::from(u16::from_be_bytes([frame[0], frame[1]])) + 2 - frame.len(),
                Split::Refused(error) => panic!("{error}"),
            };
            let mut bytes = vec![0; wanted];
            match peer.read(&mut bytes) {
                Ok(0) => panic!("closed without an answer"),
                Ok(count) => frame.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wave(),
                Err(error) => panic!("{error}"),
            }
        }
        let (tpdu, message) = unframed(&frame);
        let handled = Handled { operation: Operation::Unknown, response: Response::Approved, proved: true };
        let answer = Answer { handled, leaves: college::Leaves::Durable, tpdu, bytes: message.to_vec() };
        if let Some(position) = answer.text(37) {
            assert!(position.parse::<u64>().expect("digits") <= self.durable(), "a reply before its record is durable");
        }
        answer
    }

    /// Whether nothing more comes to `peer` but the end.
    fn ends(&mut self, peer: &mut TcpStream) -> bool {
        peer.set_nonblocking(true).expect("a socket");
        loop {
            match peer.read(&mut [0]) {
                Ok(count) => return count == 0,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wave(),
                Err(error) => return error.kind() == ErrorKind::ConnectionReset,
            }
        }
    }

    fn till(&mut self, peer: &mut TcpStream) -> Terminal {
        let mut till = Terminal::new("POS00001", 1);
        let draft = today(&self.reactor, till.sign_on_draft(1));
        peer.write_all(&draft.frame(Some(&till.sign_on_key))).expect("an open connection");
        let answer = self.answer(peer);
        assert_eq!(answer.code(), "00");
        till.key = Some(till.session_key(&answer));
        till
    }

    fn request(&self, till: &Terminal, draft: Draft) -> Vec<u8> {
        today(&self.reactor, draft).frame(Some(till.key()))
    }
}

/// The draft dated on the switch's own business date.
fn today(reactor: &Reactor, draft: Draft) -> Draft {
    draft.with(13, &format!("{:04}", reactor.authorizer().ledger().business_date().month_day()))
}

fn echo(till: &Terminal, stan: u32) -> Draft {
    till.draft(800, stan).with(70, "301")
}

fn is_silent(peer: &mut TcpStream) -> bool {
    peer.set_nonblocking(true).expect("a socket");
    peer.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn a_reply_leaves_when_its_record_is_durable_and_others_at_once() {
    let mut switch = Switch::new(BOUNDS);
    let mut peer = switch.connect();
    let till = switch.till(&mut peer);
    let mut other = switch.connect();
    // One turn of the pump takes the request, decides it and hands it to the journal; only a later one sends the reply.
    for stan in 10..30 {
        let position = switch.reactor.authorizer().log().position();
        peer.write_all(&switch.request(&till, till.purchase(stan, "1003", 1))).expect("an open connection");
        switch.serve_until(|reactor| reactor.authorizer().log().position() > position);
        assert!(switch.durable() == position && is_silent(&mut peer), "the journal has not reported");
        let answer = switch.answer(&mut peer);
        assert_eq!((answer.code(), answer.number(11), switch.durable()), ("00".to_owned(), Some(u64::from(stan)), position + 1));
    }
    // An echo test does not wait, neither for its connection's purchase nor for another's; a balance does.
    let position = switch.reactor.authorizer().log().position();
    let balance = till.draft(100, 41).with(2, "1003").with(3, "310000");
    let requests = [till.purchase(40, "1003", 1), balance, echo(&till, 42)].map(|draft| switch.request(&till, draft));
    other.write_all(&requests.concat()).expect("an open connection");
    switch.serve_until(|reactor| reactor.authorizer().log().position() > position);
    assert_eq!(switch.durable(), position);
    assert_eq!(switch.answer(&mut other).number(11), Some(42));
    assert_eq!(switch.answer(&mut other).number(11), Some(40));
    let answer = switch.answer(&mut other);
    assert_eq!((answer.number(11), answer.purses(), switch.durable()), (Some(41), Some([1000, 9000 - 21]), position + 1));
    assert_eq!(switch.reactor.statistics().latency.report().count, 1 + 20 + 3);
}

#[test]
fn a_frame_may_come_byte_by_byte_and_many_at_once() {
    let mut switch = Switch::new(BOUNDS);
    let mut peer = switch.connect();
    let till = switch.till(&mut peer);
    for byte in switch.request(&till, till.purchase(10, "1001", 1)) {
        let bytes = switch.reactor.statistics().bytes[0];
        peer.write_all(&[byte]).expect("an open connection");
        switch.serve_until(|reactor| reactor.statistics().bytes[0] == bytes + 1);
        // A half frame that is young is left alone.
        switch.reactor.tick();
    }
    assert_eq!(switch.answer(&mut peer).code(), "00");
    let mut many: Vec<u8> = Vec::new();
    for stan in 1000..2000 {
        many.extend(switch.request(&till, till.purchase(stan, "1003", 1)));
    }
    peer.set_nonblocking(false).expect("a socket");
    peer.write_all(&many).expect("the socket takes them");
    for stan in 1000..2000 {
        assert_eq!(switch.answer(&mut peer).number(11), Some(stan), "in the order in which they were asked");
    }
    assert!(is_silent(&mut peer));
    assert_eq!(switch.reactor.connections(), 1);
}

#[test]
fn what_many_connections_send_at_once_is_kept_apart() {
    const EACH: u32 = 50;
    let mut switch = Switch::new(BOUNDS);
    let mut peers: Vec<TcpStream> = (0..BOUNDS.connections_max).map(|_| switch.connect()).collect();
    let till = switch.till(&mut peers[0]);
    let mut ends = Vec::new();
    for (stan, peer) in (1_000..).step_by(EACH as usize).zip(&mut peers) {
        let mut requests = Vec::new();
        for stan in stan..stan + EACH {
            requests.extend(switch.request(&till, till.purchase(stan, ["1001", "1003"][stan as usize % 2], 1)));
        }
        // More in all than is read before any of it is handled, and of each peer the last frame is not whole.
        assert!(BOUNDS.connections_max * requests.len() > 3 * READ_BYTES);
        ends.push(requests.split_off(requests.len() - 1 - stan as usize / EACH as usize));
        peer.set_nonblocking(false).expect("a socket");
        peer.write_all(&requests).expect("the socket takes them");
    }
    for ((stan, peer), end) in (1_000..).step_by(EACH as usize).zip(&mut peers).zip(ends) {
        for stan in stan..stan + EACH - 1 {
            let answer = switch.answer(peer);
            assert_eq!((answer.code(), answer.number(11)), ("00".to_owned(), Some(u64::from(stan))));
        }
        assert!(is_silent(peer));
        peer.set_nonblocking(false).expect("a socket");
        peer.write_all(&end).expect("an open connection");
        assert_eq!(switch.answer(peer).number(11), Some(u64::from(stan + EACH - 1)));
    }
    assert_eq!(switch.reactor.connections(), BOUNDS.connections_max);
}

#[test]
fn a_frame_that_is_begun_and_never_ended_loses_its_connection() {
    let mut switch = Switch::new(BOUNDS);
    let mut idle = switch.connect();
    let mut peer = switch.connect();
    peer.write_all(&[0, 60, 2]).expect("an open connection");
    switch.serve_until(|reactor| reactor.statistics().bytes[0] == 3);
    // An hour is longer than any frame may take, and an idle connection may be idle for it.
    switch.reactor.tick_at(3_600_000_000, 0);
    assert_eq!(switch.reactor.statistics().closed.get("half_frame"), Some(&1));
    assert_eq!(switch.reactor.connections(), 1);
    assert_eq!(peer.read(&mut [0]).expect("an end of file"), 0);
    assert!(is_silent(&mut idle));
}

#[test]
fn a_peer_that_breaks_the_protocol_is_answered_for_what_came_before_and_closed() {
    for (garbage, reason) in [
        (vec![0, 0], "length_zero"),
        (vec![0x08, 0x01], "length_over"),
        (vec![0, 3, 0x60, 1, 2], "tpdu_cut"),
        (vec![0, 3, 0x0a, 0, 0], "mti"),
        (vec![0, 4, 2, 0, 0xf0, 0], "bitmap"),
    ] {
        let mut switch = Switch::new(BOUNDS);
        let mut bystander = switch.connect();
        let till = switch.till(&mut bystander);
        let mut peer = switch.connect();
        let purchases = [10, 11].map(|stan| switch.request(&till, till.purchase(stan, "1001", 1)));
        // What stands behind the garbage is not read.
        peer.write_all(&[purchases[0].as_slice(), &garbage, &purchases[1]].concat()).expect("an open connection");
        assert_eq!(switch.answer(&mut peer).number(11), Some(10), "{reason}");
        assert!(switch.ends(&mut peer), "{reason}");
        assert_eq!((switch.closed(reason), switch.reactor.connections()), (1, 1), "{reason}");
        bystander.write_all(&switch.request(&till, echo(&till, 12))).expect("an open connection");
        assert_eq!(switch.answer(&mut bystander).code(), "00");
    }
}

#[test]
fn a_connection_whose_messages_prove_nothing_is_closed() {
    let mut switch = Switch::new(BOUNDS);
    let mut peer = switch.connect();
    let till = switch.till(&mut peer);
    let bad = today(&switch.reactor, till.purchase(10, "1001", 1)).frame(None);
    for _ in 0..2 {
        for _ in 1..BOUNDS.mac_failures_max {
            peer.write_all(&bad).expect("an open connection");
            assert_eq!(switch.answer(&mut peer).code(), "63");
        }
        // A good one between them, and the count begins again.
        peer.write_all(&switch.request(&till, echo(&till, 11))).expect("an open connection");
        assert_eq!(switch.answer(&mut peer).code(), "00");
    }
    for _ in 0..BOUNDS.mac_failures_max {
        peer.write_all(&bad).expect("an open connection");
        assert_eq!(switch.answer(&mut peer).code(), "63");
    }
    assert!(switch.ends(&mut peer));
    assert_eq!((switch.closed("mac_failures"), switch.reactor.statistics().mac_failures), (1, 13));
}

#[test]
fn past_the_bound_a_stranger_makes_room_and_terminals_do_not() {
    let mut switch = Switch::new(Bounds { connections_max: 2, ..BOUNDS });
    let mut terminal = switch.connect();
    let till = switch.till(&mut terminal);
    // Strangers come and go, and some of them speak, but none proves itself: the one that was there longest goes.
    let mut strangers: Vec<TcpStream> = Vec::new();
    for count in 1..40 {
        let mut stranger = switch.connect();
        if count % 3 == 0 {
            stranger.write_all(&today(&switch.reactor, echo(&till, 11)).frame(None)).expect("an open connection");
            assert_eq!(switch.answer(&mut stranger).code(), "00");
        }
        if let Some(before) = strangers.last_mut() {
            assert!(switch.ends(before), "it made room");
        }
        assert_eq!((switch.reactor.connections(), switch.closed("displaced")), (2, count - 1));
        strangers.push(stranger);
    }
    // A terminal comes in among them, and then there is no room for anybody else.
    let mut other = switch.connect();
    other.write_all(&switch.request(&till, till.purchase(12, "1003", 1))).expect("an open connection");
    assert_eq!(switch.answer(&mut other).code(), "00");
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    assert!(!switch.reactor.adopt(OwnedFd::from(theirs)));
    assert_eq!((&ours).read(&mut [0]).expect("the end"), 0);
    assert_eq!((switch.closed("full"), switch.closed("displaced"), switch.reactor.connections()), (1, 39, 2));
    for peer in [&mut terminal, &mut other] {
        peer.write_all(&switch.request(&till, echo(&till, 13))).expect("an open connection");
        assert_eq!(switch.answer(peer).code(), "00");
    }
}

#[test]
fn those_who_come_and_go_leave_nothing_behind() {
    let mut switch = Switch::new(BOUNDS);
    let mut most = 0;
    for _ in 0..1000 {
        drop(switch.connect());
        switch.serve_until(|reactor| reactor.connections() == 0);
        most = most.max(switch.reactor.connection_memory());
    }
    assert!(most < 4096, "{most} bytes for one connection at a time");
}

#[test]
fn past_the_bound_connections_are_refused_until_one_goes() {
    let mut switch = Switch::new(Bounds { connections_max: 2, ..BOUNDS });
    let mut peers = [switch.connect(), switch.connect()];
    let till = switch.till(&mut peers[0]);
    peers[1].write_all(&switch.request(&till, echo(&till, 10))).expect("an open connection");
    assert_eq!(switch.answer(&mut peers[1]).code(), "00");
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    assert!(!switch.reactor.adopt(OwnedFd::from(theirs)));
    assert_eq!((&ours).read(&mut [0]).expect("the end"), 0);
    assert_eq!((switch.closed("full"), switch.reactor.connections()), (1, 2));
    drop(peers);
    switch.serve_until(|reactor| reactor.connections() == 0);
    let mut peer = switch.connect();
    switch.till(&mut peer);
    assert_eq!((switch.closed("peer"), switch.reactor.statistics().accepted), (2, 4));
}

#[test]
fn a_terminal_that_does_not_read_is_closed_at_the_bound_and_no_other_notices() {
    let mut switch = Switch::new(BOUNDS);
    let mut bystander = switch.connect();
    let till = switch.till(&mut bystander);
    let (mut ours, theirs) = UnixStream::pair().expect("a pair");
    assert!(switch.reactor.adopt(OwnedFd::from(theirs)));
    ours.set_nonblocking(true).expect("a socket");
    // A refusal of a kilobyte.
    let request = today(&switch.reactor, echo(&till, 10)).with(60, &"9".repeat(999)).frame(Some(till.key()));
    let mut rounds = 0;
    while switch.closed("slow_reader") == 0 {
        match ours.write(&request.repeat(16)) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        switch.wave();
        assert!(switch.reactor.connection_memory() < 4 * UNSENT_BYTES_MAX, "what it does not read is bounded");
        bystander.write_all(&switch.request(&till, echo(&till, 11))).expect("an open connection");
        assert_eq!(switch.answer(&mut bystander).code(), "00");
        rounds += 1;
        assert!(rounds < 10_000);
    }
    assert_eq!(switch.reactor.connections(), 1);
}

/// A connection that has been asked more than its socket takes of the answers, and its other end.
fn behind(switch: &mut Switch, till: &Terminal) -> UnixStream {
    let (mut ours, theirs) = UnixStream::pair().expect("a pair");
    assert!(switch.reactor.adopt(OwnedFd::from(theirs)));
    let request = today(&switch.reactor, echo(till, 10)).with(60, &"9".repeat(999)).frame(Some(till.key()));
    ours.set_nonblocking(true).expect("a socket");
    let before = switch.reactor.connection_memory();
    while switch.reactor.connection_memory() < before + UNSENT_BYTES_MAX / 2 {
        match ours.write(&request) {
            Ok(count) => assert_eq!(count, request.len(), "a socket takes a frame whole or not"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        switch.wave();
    }
    ours
}

#[test]
fn what_was_kept_for_slow_readers_is_given_back_when_they_have_read() {
    let mut switch = Switch::new(BOUNDS);
    let mut peer = switch.connect();
    let till = switch.till(&mut peer);
    let before = switch.reactor.connection_memory();
    let mut slow: Vec<UnixStream> = (0..4).map(|_| behind(&mut switch, &till)).collect();
    for peer in &mut slow {
        let sent = |switch: &Switch| switch.reactor.statistics().bytes[1];
        // Once a wave sends nothing any more, all is sent.
        loop {
            let at = sent(&switch);
            while peer.read(&mut [0; 4096]).is_ok() {}
            switch.more = switch.reactor.wave(0);
            if sent(&switch) == at {
                break;
            }
        }
    }
    assert_eq!(switch.reactor.connections(), 5);
    assert!(switch.reactor.connection_memory() < before + 4 * READ_BYTES, "{}", switch.reactor.connection_memory());
}

#[test]
fn a_peer_that_does_not_take_its_answers_in_time_loses_its_connection() {
    let mut switch = Switch::new(BOUNDS);
    let mut idle = switch.connect();
    let till = switch.till(&mut idle);
    let _never_reads = behind(&mut switch, &till);
    let mut trickles = behind(&mut switch, &till);
    assert_eq!(trickles.read(&mut [0; 100]).expect("answers"), 100);
    switch.reactor.tick_at(UNSENT_MICROSECONDS_MAX / 2, 0);
    assert_eq!(switch.reactor.connections(), 3, "they may be slow for a while");
    switch.reactor.tick_at(2 * UNSENT_MICROSECONDS_MAX, 0);
    assert_eq!((switch.closed("slow_reader"), switch.reactor.connections()), (2, 1));
    assert!(is_silent(&mut idle));
}

#[test]
fn a_peer_that_vanishes_is_noticed_and_the_kernel_keeps_little_for_anyone() {
    let mut switch = Switch::new(BOUNDS);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let _peer = TcpStream::connect(listener.local_addr().expect("an address")).expect("a listener");
    let theirs = listener.accept().expect("a connection").0;
    let same = theirs.try_clone().expect("a descriptor");
    assert!(switch.reactor.adopt(OwnedFd::from(theirs)));
    // Half-open connections: the system probes idle ones and gives up on those that acknowledge nothing.
    assert_eq!(sockopt::socket_keepalive(&same), Ok(true));
    assert_eq!(sockopt::tcp_keepidle(&same), Ok(PEER_SILENT_MAX));
    assert_eq!(sockopt::tcp_keepintvl(&same), Ok(PEER_SILENT_MAX / 4));
    assert_eq!(sockopt::tcp_user_timeout(&same), Ok(PEER_SILENT_MAX.as_millis() as u32));
    assert_eq!(sockopt::tcp_nodelay(&same), Ok(true));
    assert!(sockopt::socket_send_buffer_size(&same).expect("a size") <= 2 * SOCKET_BUFFER_BYTES);
    assert!(sockopt::socket_recv_buffer_size(&same).expect("a size") <= 2 * SOCKET_BUFFER_BYTES);
}

#[test]
fn a_slow_reader_below_the_bound_gets_everything() {
    let mut switch = Switch::new(BOUNDS);
    let mut peer = switch.connect();
    let till = switch.till(&mut peer);
    let (mut ours, theirs) = UnixStream::pair().expect("a pair");
    sockopt::set_socket_send_buffer_size(&theirs, 4096).expect("a socket");
    assert!(switch.reactor.adopt(OwnedFd::from(theirs)));
    let request = today(&switch.reactor, echo(&till, 10)).with(60, &"9".repeat(999)).frame(Some(till.key()));
    ours.write_all(&request.repeat(100)).expect("the socket takes them");
    switch.serve_until(|reactor| reactor.statistics().bytes[0] >= 100 * request.len() as u64);
    ours.shutdown(Shutdown::Write).expect("a socket");
    ours.set_nonblocking(true).expect("a socket");
    let mut replies = Vec::new();
    loop {
        let mut bytes = [0; 3000];
        match ours.read(&mut bytes) {
            Ok(0) => break,
            Ok(count) => replies.extend_from_slice(&bytes[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => switch.wave(),
            Err(error) => panic!("{error}"),
        }
    }
    let mut count = 0;
    let mut rest = replies.as_slice();
    while let Split::Frame { consumed, .. } = frame::split(rest) {
        rest = &rest[consumed..];
        count += 1;
    }
    assert_eq!((count, rest.len()), (100, 0));
}

#[test]
fn a_peer_that_closes_its_sending_side_still_gets_its_answers() {
    let mut switch = Switch::new(BOUNDS);
    let mut peer = switch.connect();
    let till = switch.till(&mut peer);
    peer.write_all(&switch.request(&till, till.purchase(10, "1001", 850))).expect("an open connection");
    peer.shutdown(Shutdown::Write).expect("a socket");
    assert_eq!(switch.answer(&mut peer).purses(), Some([650, 0]));
    assert!(switch.ends(&mut peer));
    assert_eq!((switch.closed("peer"), switch.reactor.connections()), (1, 0));
}

#[test]
fn an_answer_to_somebody_who_is_gone_reaches_nobody_else() {
    let mut switch = Switch::new(BOUNDS);
    let mut peer = switch.connect();
    let till = switch.till(&mut peer);
    drop(peer);
    switch.serve_until(|reactor| reactor.connections() == 0);
    for stan in 10..40 {
        let position = switch.reactor.authorizer().log().position();
        let (mut gone, theirs) = UnixStream::pair().expect("a pair");
        assert!(switch.reactor.adopt(OwnedFd::from(theirs)));
        gone.write_all(&switch.request(&till, till.purchase(stan, "1003", 1))).expect("an open connection");
        switch.serve_until(|reactor| reactor.authorizer().log().position() > position);
        drop(gone);
        switch.serve_until(|reactor| reactor.connections() == 0);
        // The next connection has its place; what still waits for the journal is not for it.
        let mut next = switch.connect();
        next.write_all(&switch.request(&till, till.purchase(stan + 100, "1003", 1))).expect("an open connection");
        assert_eq!(switch.answer(&mut next).number(11), Some(u64::from(stan) + 100));
        assert!(is_silent(&mut next));
        drop(next);
        switch.serve_until(|reactor| reactor.connections() == 0);
    }
}

#[test]
fn draining_answers_what_has_come_and_takes_nothing_more() {
    let mut switch = Switch::new(BOUNDS);
    let mut peers: Vec<TcpStream> = (0..4).map(|_| switch.connect()).collect();
    let till = switch.till(&mut peers[0]);
    for (stan, peer) in (10..).zip(&mut peers) {
        peer.set_nonblocking(false).expect("a socket");
        let requests = [stan, stan + 10].map(|stan| switch.request(&till, till.purchase(stan, "1003", 1)));
        peer.write_all(&requests.concat()).expect("an open connection");
    }
    switch.drain();
    assert_eq!(switch.durable(), switch.reactor.authorizer().log().position());
    let (_, theirs) = UnixStream::pair().expect("a pair");
    assert!(!switch.reactor.adopt(OwnedFd::from(theirs)));
    assert_eq!(switch.closed("draining"), 1);
    for (stan, peer) in (10..).zip(&mut peers) {
        for stan in [stan, stan + 10] {
            let answer = switch.answer(peer);
            assert_eq!((answer.number(11), answer.code()), (Some(stan), "00".to_owned()));
        }
        assert!(switch.ends(peer));
    }
    let digest = switch.reactor.authorizer().ledger().digest();
    let Switch { reactor, folder, .. } = switch;
    drop(reactor);
    let found = verify(folder.path(), None);
    assert!(found.ok, "{found:?}");
    assert_eq!((found.state_digest, found.sum), (blake3::Hash::from_bytes(digest).to_hex().to_string(), 0));
    // The next start knows the session, the balances and what was decided.
    let mut switch = Switch { reactor: open(folder.path(), BOUNDS), folder, more: false };
    assert_eq!(switch.reactor.authorizer().ledger().digest(), digest);
    let mut peer = switch.connect();
    for (stan, purses) in [(10, None), (50, Some([1000, 9000 - 9]))] {
        peer.write_all(&switch.request(&till, till.purchase(stan, "1003", 1))).expect("an open connection");
        let answer = switch.answer(&mut peer);
        assert_eq!(answer.code(), "00");
        assert!(purses.is_none() || answer.purses() == purses);
    }
}

#[test]
fn draining_still_answers_a_peer_that_is_to_be_closed() {
    let mut switch = Switch::new(BOUNDS);
    let mut peer = switch.connect();
    let till = switch.till(&mut peer);
    let position = switch.reactor.authorizer().log().position();
    let request = switch.request(&till, till.purchase(10, "1001", 1));
    peer.write_all(&[request.as_slice(), &[0, 0]].concat()).expect("an open connection");
    switch.serve_until(|reactor| reactor.authorizer().log().position() > position);
    peer.shutdown(Shutdown::Write).expect("a socket");
    switch.drain();
    assert_eq!(switch.answer(&mut peer).code(), "00");
    assert!(switch.ends(&mut peer));
}

/// The receive buffer of a peer that is slow is the system's: what it has no room for stays with the switch's own.
#[test]
fn draining_ends_when_every_peer_has_its_answers() {
    let mut switch = Switch::new(BOUNDS);
    let mut peer = switch.connect();
    let till = switch.till(&mut peer);
    peer.set_nonblocking(false).expect("a socket");
    rustix::net::sockopt::set_socket_recv_buffer_size(&peer, 4096).expect("a socket");
    let position = switch.reactor.authorizer().log().position();
    for stan in 10..1010 {
        peer.write_all(&switch.request(&till, till.purchase(stan, "1003", 1))).expect("an open connection");
        switch.more = switch.reactor.wave(0);
    }
    switch.serve_until(|reactor| reactor.authorizer().log().position() == position + 1000);
    switch.serve_until(|reactor| reactor.authorizer().log().durable() == position + 1000);
    assert!(!switch.reactor.drain(), "much of it is on its way");
    // It goes on asking, and nobody reads that any more.
    peer.write_all(&switch.request(&till, till.purchase(2000, "1003", 1))).expect("an open connection");
    let reader = std::thread::spawn(move || {
        let mut answers = Vec::new();
        let end = peer.read_to_end(&mut answers);
        assert!(end.is_ok() || end.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
        answers
    });
    switch.drain();
    drop(switch);
    let answers = reader.join().expect("a reader");
    let mut rest = answers.as_slice();
    let mut count = 0;
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        rest = behind.get(usize::from(u16::from_be_bytes(*length))..).expect("a whole frame");
        count += 1;
    }
    assert_eq!(count, 1000);
}

#[test]
fn an_import_between_waves_delays_nobody() {
    let mut switch = Switch::new(BOUNDS);
    let mut peer = switch.connect();
    let till = switch.till(&mut peer);
    for stan in 10..20 {
        let position = switch.reactor.authorizer().log().position();
        peer.write_all(&switch.request(&till, till.purchase(stan, "1003", 1))).expect("an open connection");
        switch.serve_until(|reactor| reactor.authorizer().log().position() > position);
        // It flushes what was decided before it, and its own records follow as one batch.
        let header = "card_number,holder_id,class,status,expires,cash,subsidy";
        let row = |row| format!("{stan}{row:03},H{stan}{row},student,active,2178-12-31,5,0");
        let content = format!("{header}\n{}\n", (0..100).map(row).collect::<Vec<_>>().join("\n"));
        let report = import(switch.reactor.authorizer_mut(), wall_clock(), "cards.csv", content.as_bytes()).expect("a good file");
        assert_eq!(report.added, 100);
        switch.reactor.after_command();
        assert_eq!(switch.answer(&mut peer).number(11), Some(u64::from(stan)));
        switch.serve_until(|reactor| reactor.authorizer().log().durable() == report.position);
        assert!(switch.reactor.authorizer().ledger().registry().cards.find(&card(&format!("{stan}000"))).is_some());
    }
    let report = switch.reactor.report();
    assert_eq!(report["position"], report["durable"]);
    assert_eq!(report["connections"]["open"], 1);
}
