//! ISO 8583:1987 in its binary form: bytes in, elements out, and back.
//!
//! It does no I/O, reads no clock, and allocates nothing to read a message. Always true here: bytes from a peer never reach a
//! panic; what can be read of a wrong message stays readable, so that it can be answered; an element that an accessor returns is
//! well-formed.
//!
//! [`frame`] cuts a stream into messages; [`Message`] reads one in a single pass over its bitmaps, driven by the table
//! [`ELEMENTS`]; [`Writer`] appends a framed reply, MAC included, to a buffer.

pub(crate) mod bcd;
mod elements;
pub mod frame;
mod message;
mod sub_elements;
mod writer;

pub use elements::{ELEMENTS, Format};
pub use frame::Tpdu;
pub use message::{Fault, Message, OriginalDataElements, Unreadable, card_number_ahead};
pub use sub_elements::{Malformed, SubElement, SubElements};
pub use writer::Writer;
