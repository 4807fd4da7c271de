//! The core of the campus card switch.
//!
//! | room | what it holds |
//! |---|---|
//! | [`limits`] | every bound, with its reason |
//! | [`calendar`], [`card_number`] | days and card numbers |
//! | [`iso8583`], [`mac`] | the terminals' protocol: bytes in, elements out, and the keys that prove them |
//! | [`pin`] | PINs: enciphered on their way from a terminal, and as they are kept |
//! | [`session`] | which key a terminal speaks under |
//! | [`ledger`] | accounts, parties, what was decided; deterministic |
//! | [`journal`] | what was decided, on stable storage |
//! | [`authorizer`] | from a message's bytes to its reply's, through all of the above |
//! | [`import`] | files of merchants, terminals and cards |
//! | [`lanes`] | when a reply may leave |
//! | [`reactor`] | sockets and waves |
//! | [`replica`], [`rows`], [`copy`] | a second ledger fed from the journal, and the rows it gives to PostgreSQL |
//! | [`verification`] | what must hold after every record |
//! | [`evidence`] | a part of the journal as a report that is checked without a switch |
//! | [`show`], [`stats`] | what operators see |
//!
//! `iso8583`, `mac`, `pin`, `session` and `ledger` do no I/O and read no clock or randomness.

pub mod authorizer;
pub mod calendar;
pub mod card_number;
pub mod copy;
pub mod evidence;
pub mod import;
pub mod iso8583;
pub mod journal;
pub mod lanes;
pub mod ledger;
pub mod limits;
pub mod mac;
pub mod pin;
#[cfg(feature = "python")]
mod python;
pub mod reactor;
pub mod replica;
pub mod rows;
pub mod session;
pub mod show;
pub mod snapshot;
pub mod stats;
pub mod verification;
