//! Every bound of the core, with its unit and its reason. Past a bound the switch answers 91 or closes a connection; it
//! never grows.

use std::time::Duration;

/// The last year a date may name: a day is held in 16 bits from 2000 on.
pub const DATE_YEAR_MAX: i16 = 2178;

/// The most a purse or a merchant may hold, in fen: DE54 and reports have twelve digits for it.
pub const ACCOUNT_FEN_MAX: i64 = 999_999_999_999;

/// The most one of the campus's own accounts may hold or owe, in fen: what ten million of the fullest purses hold, and far
/// within 64 bits.
pub const HOUSE_FEN_MAX: i64 = 999_999_999_999_999_999;

/// The most a purse may be opened with, in fen: a tenth of an account's bound, so that giving back always has room.
pub const PURSE_FEN_MAX: i64 = 99_999_999_999;

/// Bytes of a sub-element's value: its length has two digits.
pub const SUB_ELEMENT_BYTES_MAX: usize = 99;

/// The longest time for which an amount can be held, in hours: thirty days.
pub const HOLD_HOURS_MAX: u16 = 720;

/// The most wrong PINs in a row that can be allowed.
pub const PIN_TRIES_MAX: u8 = 10;

/// The highest transaction number: DE37 has twelve digits.
pub const POSITION_MAX: u64 = 999_999_999_999;

/// Bytes of the record of one decision on a terminal's message, at most: what is asked for before it is made.
pub const DECISION_BYTES_MAX: usize = 384;

/// Microseconds after which a terminal that signs on again and again is given one more session. Each sign-on is a record and is
/// remembered for days; a fleet with a fault that signs on without end would otherwise fill memory and disk.
pub const SIGN_ON_MICROSECONDS: u64 = 60_000_000;

/// Sign-ons that a terminal may have at once before [`SIGN_ON_MICROSECONDS`] hold: a hundred restarts on a bad day.
pub const SIGN_ONS_AT_ONCE: u64 = 100;

/// Changes in one piece of the hotlist: forty of the longest card numbers, with the version, fit the 999 bytes of DE48.
pub const HOTLIST_PIECE_CARDS_MAX: usize = 40;

/// Holds that lapse at a time before terminals have their turn again.
pub const LAPSES_AT_ONCE: usize = 64;

/// Days by which a terminal's date may be ahead of the business date: a terminal whose clock passes midnight first.
pub const CLOCK_AHEAD_DAYS: u16 = 1;

/// Days by which the clock of a running switch may move the business date on at once: a long weekend of a machine that slept.
/// A clock that is further ahead is wrong until an operator says otherwise, because the business date never goes back.
pub const CUTOVER_DAYS_MAX: u16 = 3;

/// Days by which a start may move the business date on: the longest holiday. With the days for which identities are kept it
/// stays below half a year, beyond which DE13, which has no year, would make an old message another year's and so a new one.
pub const CLOSURE_DAYS_MAX: u16 = 100;

/// Bytes of one file to import: a whole file is one batch of the journal, so that all of it is there after a crash or nothing.
pub const IMPORT_BYTES_MAX: usize = 256 << 20;

/// Bytes of a merchant's name.
pub const MERCHANT_NAME_BYTES_MAX: usize = 120;

/// Rules of a policy file: all of them are one journal record, and a college has some dozens.
pub const RULES_MAX: usize = 1_000;

/// The most that a rule on a count may allow: more than anybody swipes in a day, so that a slip of the pen is noticed.
pub const RULE_COUNT_MAX: i64 = 10_000;

/// Minutes for which a door may ask for the way back, at most: a week, after which nobody is still inside.
pub const ANTI_PASSBACK_MINUTES_MAX: i64 = 7 * 24 * 60;

/// Bytes read from one connection at a time: a fair share, some dozens of messages of a concentrator's burst. As many, and one share
/// more, are read from all connections before any of it is handled.
pub const READ_BYTES: usize = 8 << 10;

/// Microseconds for which ready connections are served before batches and replies have their turn: long enough for a batch
/// of some thousand records, which costs little more than a small one; short enough for nobody to notice a flood.
pub const SLICE_MICROSECONDS: u64 = 4_000;

/// Bytes of replies kept for a terminal that does not read. A terminal past it is closed: its own replies are what it
/// does not read, and it finds their answers again by repeating.
pub const UNSENT_BYTES_MAX: usize = 256 << 10;

/// Bytes of replies kept for all terminals that do not read: a quarter of a thousand of the worst, whoever connects.
pub const UNSENT_TOTAL_BYTES_MAX: usize = 64 << 20;

/// Microseconds in which a terminal must take what was kept for it at their beginning: longer than any waits for an answer. So
/// a peer that reads a byte a second holds its replies, and their share of the bound above, no longer than that.
pub const UNSENT_MICROSECONDS_MAX: u64 = 60_000_000;

/// Bytes of a socket's buffers in the kernel, each way; it takes twice that at most. Left alone it lets each grow to some
/// megabytes, for peers that do not read as well: ten thousand of them would take all of the machine's memory for sockets.
pub const SOCKET_BUFFER_BYTES: usize = 64 << 10;

/// Bytes of replies waiting for one batch of the journal. Past it the sockets wait.
pub const REPLY_BYTES_MAX: usize = 16 << 20;

/// Microseconds that a begun frame may take to arrive whole. A peer that sends half a frame and stops is closed.
pub const FRAME_MICROSECONDS_MAX: u64 = 30_000_000;

/// How long a peer may leave a probe or a reply without acknowledging it: a terminal that lost its power or its cable.
/// It is known by then, and its connection's place is free for its return.
pub const PEER_SILENT_MAX: Duration = Duration::from_secs(60);

/// Events taken from epoll at a time.
pub const EVENTS_MAX: usize = 1024;

/// Microseconds without anything to do after which a wave ends: while traffic is dense, waiting a moment in the core is
/// cheaper than a turn of trio's loop.
pub const LINGER_MICROSECONDS: u64 = 60;

/// Records that a batch may wait for: from there on its own work weighs little beside theirs.
pub const COMPANY_RECORDS: usize = 64;

/// Replies that leave together, from which on others are soon expected: fewer come from terminals at which somebody is served.
pub const COMPANY_REPLIES_MIN: usize = 8;

/// Microseconds without a newcomer after which a batch waits no longer: longer than a busy core takes to serve the next one. As in
/// all waits this short, Linux adds up to 50 (its timer slack).
pub const COMPANY_PAUSE_MICROSECONDS: u64 = 80;

/// Microseconds for which a batch is kept open at most after replies have left: as long as a disk takes for some batches.
pub const COMPANY_MICROSECONDS: u64 = 400;

/// Bytes of one journal record: its length is written in 16 bits.
pub const JOURNAL_RECORD_BYTES_MAX: usize = 60_000;

/// Bytes of a journal segment unless configured: an archive's unit, and seconds of the busiest traffic, in which the next one is made.
pub const JOURNAL_SEGMENT_BYTES: u64 = 64 << 20;

/// Bytes of records that may wait in one batch: what the busiest traffic brings while the disk stands still for 100 ms.
pub const JOURNAL_BATCH_BYTES_MAX: usize = 4 << 20;

/// Bytes of one batch that recovery reads at most: it must fit in memory; an import is far below it.
pub const JOURNAL_EXTENT_BYTES_MAX: u64 = 1 << 30;

/// Milliseconds after which a full disk is tried again for the journal's next segment.
pub const JOURNAL_PREPARE_RETRY_MILLISECONDS: u64 = 1000;

/// Bytes of a frame after its length: the protocol's bound, far above the longest message that the switch serves.
pub const FRAME_BYTES_MAX: usize = 2_048;
