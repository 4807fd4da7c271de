//! Reading a message.
//!
//! [`Message::parse`] walks the bitmaps once, checks every element, and notes where each stands; the accessors convert on
//! demand. A malformed element is noted as the message's fault and not readable itself, but what stands before it is, and what
//! stands after it too where its extent is still known.

use std::fmt;

use super::bcd;
use super::elements::{self, ELEMENTS, Format, Wrong};
use super::sub_elements::SubElements;
use crate::card_number::CardNumber;

/// Bytes of the MTI.
const MTI_BYTES: usize = 2;
/// Bytes of one bitmap.
const BITMAP_BYTES: usize = 8;

/// A message whose MTI or bitmaps cannot be read. It cannot be answered: its connection is closed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Unreadable {
    /// The MTI is cut short or not four decimal digits.
    Mti,
    /// A bitmap is cut short.
    Bitmap,
    /// The message is longer than any frame.
    Length,
}

impl Unreadable {
    /// A label for counting.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Mti => "mti",
            Self::Bitmap => "bitmap",
            Self::Length => "message_length",
        }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Mti => "the message type cannot be read",
            Self::Bitmap => "a bitmap is cut short",
            Self::Length => "the message is longer than any frame",
        })
    }
}

impl std::error::Error for Unreadable {}

/// What is wrong first in a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The malformed data element; 0 for bytes after the last element.
    pub element: u8,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DE{}: {}", self.element, self.reason)
    }
}

/// DE90: what names the original of a reversal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OriginalDataElements {
    /// Its MTI, 0 to 9999.
    pub mti: u16,
    /// Its systems trace audit number, DE11.
    pub trace: u32,
    /// Its local date MMDD, DE13.
    pub local_date: u16,
    /// Its local time hhmmss, DE12.
    pub local_time: u32,
}

/// Where an element stands in the message, its length prefix included.
#[derive(Clone, Copy, Default)]
struct Span {
    start: u16,
    end: u16,
}

/// A message that was read, borrowing its bytes.
#[derive(Clone)]
pub struct Message<'a> {
    bytes: &'a [u8],
    /// The elements that are present and well-formed; element 1 is the top bit.
    readable: u128,
    fault: Option<Fault>,
    mti: u16,
    spans: [Span; 129],
}

impl<'a> Message<'a> {
    /// Reads a message: `bytes` is all that stands in its frame after the TPDU.
    ///
    /// # Errors
    /// [`Unreadable`] where MTI or bitmaps cannot be read. Anything else that is wrong is the message's [`Self::fault`].
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Unreadable> {
        if bytes.len() > usize::from(u16::MAX) {
            return Err(Unreadable::Length);
        }
        let (mti, rest) = bytes.split_first_chunk::<MTI_BYTES>().ok_or(Unreadable::Mti)?;
        let mti = u64::from(u16::from_be_bytes(*mti));
        if !bcd::is_decimal(mti) {
            return Err(Unreadable::Mti);
        }
        let (first, rest) = rest.split_first_chunk::<BITMAP_BYTES>().ok_or(Unreadable::Bitmap)?;
        let first = u64::from_be_bytes(*first);
        let second = if first >> 63 == 1 {
            let (second, _) = rest.split_first_chunk::<BITMAP_BYTES>().ok_or(Unreadable::Bitmap)?;
            Some(u64::from_be_bytes(*second))
        } else {
            None
        };
        let readable = u128::from(second.is_some()) << 127;
        let mti = bcd::to_number(mti) as u16;
        let mut message = Self { bytes, readable, fault: None, mti, spans: [Span::default(); 129] };
        message.read_elements(first & !(1 << 63), second);
        Ok(message)
    }

    #[inline]
    fn read_elements(&mut self, first: u64, second: Option<u64>) {
        let at = MTI_BYTES + BITMAP_BYTES * if second.is_some() { 2 } else { 1 };
        let mut end = self.read_half(0, first, at);
        if let (Some(second), Some(at)) = (second, end) {
            if self.has(64) {
                self.readable &= !bit_of(64);
                self.note(64, "not allowed with a second bitmap");
            }
            end = self.read_half(64, second, at);
        }
        if end.is_some_and(|end| end != self.bytes.len()) {
            self.note(0, "trailing bytes");
        }
    }

    /// Reads the elements of one bitmap, the first of which is `before` + 1, and returns where they end, if that is known.
    #[inline]
    fn read_half(&mut self, before: usize, bitmap: u64, mut at: usize) -> Option<usize> {
        let mut ahead = bitmap;
        let mut malformed = 0_u64;
        while ahead != 0 {
            let zeros = ahead.leading_zeros();
            let bit = 1_u64 << 63 >> zeros;
            let element = before + zeros as usize + 1;
            match elements::read(element as u8, ELEMENTS[element], self.bytes, at) {
                Ok(end) => {
                    self.spans[element] = Span { start: at as u16, end: end as u16 };
                    at = end;
                }
                Err(Wrong::Content { end, reason }) => {
                    self.note(element as u8, reason);
                    malformed |= bit;
                    at = end;
                }
                Err(Wrong::Extent { reason }) => {
                    self.note(element as u8, reason);
                    malformed |= ahead;
                    break;
                }
            }
            ahead ^= bit;
        }
        self.readable |= u128::from(bitmap & !malformed) << (64 - before);
        (ahead == 0).then_some(at)
    }

    #[cold]
    fn note(&mut self, element: u8, reason: &'static str) {
        self.fault.get_or_insert(Fault { element, reason });
    }

    /// The message type identifier, 0 to 9999.
    #[must_use]
    #[inline]
    pub const fn mti(&self) -> u16 {
        self.mti
    }

    /// The first thing that is wrong with the message, in the order of its bytes.
    #[must_use]
    #[inline]
    pub const fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Whether the message has a second bitmap.
    #[must_use]
    #[inline]
    pub const fn has_second_bitmap(&self) -> bool {
        self.readable >> 127 == 1
    }

    /// Whether the element is there and well-formed.
    #[must_use]
    #[inline]
    pub const fn has(&self, element: u8) -> bool {
        self.readable & bit_of(element) != 0
    }

    /// The element as it was sent, length prefix included.
    #[must_use]
    #[inline]
    pub fn wire(&self, element: u8) -> Option<&'a [u8]> {
        if !self.has(element) {
            return None;
        }
        let Span { start, end } = self.spans[usize::from(element)];
        self.bytes.get(usize::from(start)..usize::from(end))
    }

    /// The value of an n element of up to 19 digits, fixed or LLVAR. `None` too where an LLVAR element has no digits.
    #[must_use]
    #[inline]
    pub fn number(&self, element: u8) -> Option<u64> {
        let wire = self.wire(element)?;
        match ELEMENTS[usize::from(element)] {
            // From the whole message: before the end of every element eight bytes stand, and are one load.
            Format::Numeric { .. } if wire.len() <= 8 => {
                let end = usize::from(self.spans[usize::from(element)].end);
                Some(bcd::to_number(bcd::load_ending(self.bytes, end, wire.len())))
            }
            Format::NumericLl { .. } => {
                let (count, content) = wire.split_first()?;
                bcd::read_left_aligned(content, bcd::to_number(u64::from(*count)) as usize)
            }
            _ => None,
        }
    }

    /// The content of an an or ans element, fixed (padding included) or of variable length (length prefix excluded).
    #[must_use]
    #[inline]
    pub fn text(&self, element: u8) -> Option<&'a [u8]> {
        match ELEMENTS[usize::from(element)] {
            format @ (Format::Text { .. } | Format::TextLl { .. } | Format::TextLll { .. }) => {
                self.wire(element)?.get(format.prefix_bytes()..)
            }
            _ => None,
        }
    }

    /// The content of a b element.
    #[must_use]
    #[inline]
    pub fn bytes(&self, element: u8) -> Option<&'a [u8]> {
        match ELEMENTS[usize::from(element)] {
            Format::Binary { .. } => self.wire(element),
            _ => None,
        }
    }

    /// The card number, DE2.
    #[must_use]
    #[inline]
    pub fn card_number(&self) -> Option<CardNumber> {
        read_card_number(self.wire(2)?)
    }

    /// The original data elements, DE90.
    #[must_use]
    pub fn original_data_elements(&self) -> Option<OriginalDataElements> {
        // MTI 4, STAN 6, MMDDhhmmss 10, then the institutions, which name nobody here.
        let (numbers, _) = self.wire(90)?.split_first_chunk::<10>()?;
        Some(OriginalDataElements {
            mti: bcd::to_number(bcd::load(&numbers[..2])) as u16,
            trace: bcd::to_number(bcd::load(&numbers[2..5])) as u32,
            local_date: bcd::to_number(bcd::load(&numbers[5..7])) as u16,
            local_time: bcd::to_number(bcd::load(&numbers[7..])) as u32,
        })
    }

    /// What the MAC covers, which is the message up to it, and the MAC: DE128 where there is a second bitmap, else DE64.
    #[must_use]
    #[inline]
    pub fn mac(&self) -> Option<(&'a [u8], [u8; 8])> {
        let element = if self.has_second_bitmap() { 128 } else { 64 };
        let tag = self.wire(element)?.try_into().ok()?;
        let covered = self.bytes.get(..usize::from(self.spans[usize::from(element)].start))?;
        Some((covered, tag))
    }

    /// The sub-elements of a text element; none where it is absent. Those of DE48 were checked when the message was read.
    #[must_use]
    pub fn sub_elements(&self, element: u8) -> SubElements<'a> {
        SubElements::new(self.text(element).unwrap_or_default())
    }

    /// The value of the first sub-element of DE48 with this tag.
    #[must_use]
    pub fn sub_element(&self, tag: u8) -> Option<&'a [u8]> {
        self.sub_elements(48).map_while(Result::ok).find(|element| element.tag == tag).map(|element| element.value)
    }
}

impl fmt::Debug for Message<'_> {
    /// Shows which elements there are, not what is in them: card numbers do not belong in a log.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Message({:04}", self.mti)?;
        for element in (2..=128).filter(|element| self.has(*element)) {
            write!(formatter, " {element}")?;
        }
        match self.fault {
            Some(fault) => write!(formatter, "; {fault})"),
            None => formatter.write_str(")"),
        }
    }
}

/// The card number of a message that nobody has read or proved yet, where it seems to have one: DE2 is the first element after the
/// bitmaps. Good for fetching what the message may need, and for nothing else.
#[must_use]
#[inline]
pub fn card_number_ahead(message: &[u8]) -> Option<CardNumber> {
    let (_, bitmap) = message.split_first_chunk::<MTI_BYTES>()?;
    let (has_second, has_card) = (bitmap.first()? & 0x80 != 0, bitmap.first()? & 0x40 != 0);
    let elements = bitmap.get(if has_second { 2 * BITMAP_BYTES } else { BITMAP_BYTES }..).filter(|_| has_card)?;
    read_card_number(elements)
}

/// DE2 at the start of these bytes: a length in digits, then as many.
#[inline]
fn read_card_number(bytes: &[u8]) -> Option<CardNumber> {
    let (count, nibbles) = bytes.split_first()?;
    let count = bcd::to_number(u64::from(*count)) as usize;
    CardNumber::from_bcd(nibbles.get(..count.div_ceil(2))?, count)
}

/// An element's bit in both bitmaps together.
#[inline]
const fn bit_of(element: u8) -> u128 {
    assert!(element >= 1 && element <= 128, "data elements are numbered 1 to 128");
    1 << (128 - element)
}
