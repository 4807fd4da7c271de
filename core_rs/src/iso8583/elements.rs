//! The data elements of ISO 8583:1987: how each is encoded, and how its extent and content are checked.

use super::bcd;
use super::sub_elements::SubElements;

/// How a data element is encoded. The comment gives the standard's notation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Not an element that a message may carry here: 0, 1 (the second bitmap) and 65 (a third one).
    Refused,
    /// n: BCD, an odd count of digits padded with a zero nibble on the left.
    Numeric {
        /// Count of digits.
        digits: u8,
    },
    /// x+n: one ASCII byte, C or D, then BCD.
    SignedNumeric {
        /// Count of digits, the sign apart.
        digits: u8,
    },
    /// an, ans: ASCII, padded with spaces on the right.
    Text {
        /// Bytes.
        bytes: u8,
    },
    /// b.
    Binary {
        /// Bytes.
        bytes: u8,
    },
    /// LLVAR n: one BCD byte counting digits, then BCD, an odd count padded with a zero nibble on the right.
    NumericLl {
        /// The fewest digits: a card number has at least one.
        digits_min: u8,
        /// The most digits.
        digits_max: u8,
    },
    /// LLVAR z: as LLVAR n, but the nibble D (`=`) may stand between digits.
    TrackLl {
        /// The most digits.
        digits_max: u8,
    },
    /// LLVAR an, ans: one BCD byte counting bytes, then ASCII.
    TextLl {
        /// The most bytes.
        bytes_max: u8,
    },
    /// LLLVAR an, ans: two BCD bytes counting bytes, then ASCII.
    TextLll {
        /// The most bytes.
        bytes_max: u16,
    },
}

impl Format {
    /// Bytes of the length prefix.
    #[must_use]
    #[inline]
    pub const fn prefix_bytes(self) -> usize {
        match self {
            Self::NumericLl { .. } | Self::TrackLl { .. } | Self::TextLl { .. } => 1,
            Self::TextLll { .. } => 2,
            _ => 0,
        }
    }
}

/// Every data element's format, by its number.
pub static ELEMENTS: [Format; 129] = {
    let mut elements = [Format::Refused; 129];
    let mut element = 0;
    while element < elements.len() {
        elements[element] = format_of(element);
        element += 1;
    }
    elements
};

const fn format_of(element: usize) -> Format {
    match element {
        2 => Format::NumericLl { digits_min: 1, digits_max: 19 },
        32 | 33 | 99 | 100 => Format::NumericLl { digits_min: 0, digits_max: 11 },
        35 => Format::TrackLl { digits_max: 37 },
        27 | 66 => Format::Numeric { digits: 1 },
        25 | 26 | 67 => Format::Numeric { digits: 2 },
        19..=24 | 68..=70 => Format::Numeric { digits: 3 },
        13..=18 | 71 | 72 => Format::Numeric { digits: 4 },
        3 | 11 | 12 | 73 => Format::Numeric { digits: 6 },
        8..=10 => Format::Numeric { digits: 8 },
        7 | 74..=81 => Format::Numeric { digits: 10 },
        4..=6 | 82..=85 => Format::Numeric { digits: 12 },
        53 | 86..=89 => Format::Numeric { digits: 16 },
        90 => Format::Numeric { digits: 42 },
        28..=31 => Format::SignedNumeric { digits: 8 },
        97 => Format::SignedNumeric { digits: 16 },
        91 => Format::Text { bytes: 1 },
        39 | 92 => Format::Text { bytes: 2 },
        40 | 49..=51 => Format::Text { bytes: 3 },
        38 | 93 => Format::Text { bytes: 6 },
        94 => Format::Text { bytes: 7 },
        41 => Format::Text { bytes: 8 },
        37 => Format::Text { bytes: 12 },
        42 => Format::Text { bytes: 15 },
        98 => Format::Text { bytes: 25 },
        43 => Format::Text { bytes: 40 },
        95 => Format::Text { bytes: 42 },
        101 => Format::TextLl { bytes_max: 17 },
        44 => Format::TextLl { bytes_max: 25 },
        34 | 102 | 103 => Format::TextLl { bytes_max: 28 },
        45 => Format::TextLl { bytes_max: 76 },
        104 => Format::TextLll { bytes_max: 100 },
        36 => Format::TextLll { bytes_max: 104 },
        54 => Format::TextLll { bytes_max: 120 },
        46..=48 | 55..=63 | 105..=127 => Format::TextLll { bytes_max: 999 },
        52 | 64 | 128 => Format::Binary { bytes: 8 },
        96 => Format::Binary { bytes: 16 },
        _ => Format::Refused,
    }
}

/// What is wrong with an element.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wrong {
    /// Its content; it ends at this offset, so reading can go on there.
    Content { end: usize, reason: &'static str },
    /// Its extent cannot be known: nothing can be read from here on.
    Extent { reason: &'static str },
}

const CUT_SHORT: Wrong = Wrong::Extent { reason: "cut short" };
const LENGTH: Wrong = Wrong::Extent { reason: "length" };

/// Checks the element that begins at `start` and returns the offset where it ends.
#[inline]
pub(super) fn read(element: u8, format: Format, bytes: &[u8], start: usize) -> Result<usize, Wrong> {
    let (end, reason) = match format {
        Format::Numeric { digits } => {
            let end = reach(bytes, start, usize::from(digits).div_ceil(2))?;
            (end, check_number(bytes, start, end, digits % 2 == 1))
        }
        Format::Text { bytes: length } => {
            let end = reach(bytes, start, usize::from(length))?;
            (end, check_text(bytes, start, end))
        }
        Format::Binary { bytes: length } => (reach(bytes, start, usize::from(length))?, None),
        Format::NumericLl { digits_min, digits_max } => {
            let digits = ll(bytes, start, digits_max)?;
            if digits < digits_min {
                return Err(LENGTH);
            }
            let end = reach(bytes, start + 1, usize::from(digits).div_ceil(2))?;
            let padded_wrong = digits % 2 == 1 && bytes[end - 1] & 0xf != 0;
            (end, if padded_wrong { Some("padding") } else { check_number(bytes, start + 1, end, false) })
        }
        Format::TextLl { bytes_max } => {
            let length = ll(bytes, start, bytes_max)?;
            let end = reach(bytes, start + 1, usize::from(length))?;
            (end, check_text(bytes, start + 1, end))
        }
        Format::TextLll { bytes_max } => {
            let packed = bcd::load_ending(bytes, reach(bytes, start, 2)?, 2);
            let length = bcd::to_number(packed) as usize;
            if !bcd::is_decimal(packed) || length > usize::from(bytes_max) {
                return Err(LENGTH);
            }
            let end = reach(bytes, start + 2, length)?;
            let reason = check_text(bytes, start + 2, end);
            let private = element == 48 && reason.is_none();
            (end, if private { check_sub_elements(&bytes[start + 2..end]) } else { reason })
        }
        Format::SignedNumeric { digits } => {
            let end = reach(bytes, start, 1 + usize::from(digits).div_ceil(2))?;
            let signed = matches!(bytes[start], b'C' | b'D');
            (end, if signed { check_number(bytes, start + 1, end, false) } else { Some("sign") })
        }
        Format::TrackLl { digits_max } => {
            let digits = ll(bytes, start, digits_max)?;
            let end = reach(bytes, start + 1, usize::from(digits).div_ceil(2))?;
            (end, check_track(&bytes[start + 1..end], digits % 2 == 1))
        }
        Format::Refused => return Err(Wrong::Extent { reason: "not allowed" }),
    };
    match reason {
        None => Ok(end),
        Some(reason) => Err(Wrong::Content { end, reason }),
    }
}

/// The offset `length` bytes after `start`, if the message reaches that far.
#[inline]
fn reach(bytes: &[u8], start: usize, length: usize) -> Result<usize, Wrong> {
    let end = start + length;
    if end <= bytes.len() { Ok(end) } else { Err(CUT_SHORT) }
}

/// Reads an LLVAR length.
#[inline]
fn ll(bytes: &[u8], start: usize, max: u8) -> Result<u8, Wrong> {
    let packed = *bytes.get(start).ok_or(CUT_SHORT)?;
    if packed & 0xf > 9 || packed >> 4 > 9 {
        return Err(LENGTH);
    }
    let length = (packed >> 4) * 10 + (packed & 0xf);
    if length > max { Err(LENGTH) } else { Ok(length) }
}

#[inline]
fn check_number(bytes: &[u8], start: usize, end: usize, padded: bool) -> Option<&'static str> {
    if !bcd::all_decimal(bytes, start, end) {
        Some("digit")
    } else if padded && bytes[start] >> 4 != 0 {
        Some("padding")
    } else {
        None
    }
}

#[cold]
fn check_track(content: &[u8], padded: bool) -> Option<&'static str> {
    let is_symbol = |nibble: u8| nibble < 10 || nibble == 0xd;
    if !content.iter().all(|byte| is_symbol(byte >> 4) && is_symbol(byte & 0xf)) {
        Some("digit")
    } else if padded && content.last().is_some_and(|byte| byte & 0xf != 0) {
        Some("padding")
    } else {
        None
    }
}

/// Printable ASCII throughout, eight characters at a time.
#[inline]
fn check_text(bytes: &[u8], start: usize, end: usize) -> Option<&'static str> {
    let (words, rest) = bytes[start..end].as_chunks();
    let filler = u64::from_ne_bytes([b' '; 8]) & !bcd::mask(rest.len());
    let printable = words.iter().all(|word| is_printable(u64::from_be_bytes(*word)))
        && is_printable(bcd::load_ending(bytes, end, rest.len()) | filler);
    if printable { None } else { Some("character") }
}

#[inline]
const fn is_printable(word: u64) -> bool {
    // In the top bit of each byte, and without carries among ASCII bytes: not ASCII; below 0x20; 0x7f.
    const EACH: u64 = 0x0101_0101_0101_0101;
    (word | !word.wrapping_add(EACH * 0x60) | word.wrapping_add(EACH)) & (EACH * 0x80) == 0
}

fn check_sub_elements(content: &[u8]) -> Option<&'static str> {
    if SubElements::new(content).all(|element| element.is_ok()) { None } else { Some("sub-element") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_printable_or_not_at_every_place() {
        for place in 0..8 {
            for byte in 0..=u8::MAX {
                for filler in [0x20, 0x7e] {
                    let mut text = [filler; 8];
                    text[place] = byte;
                    let expected = (0x20..=0x7e).contains(&byte);
                    for (start, end) in [(0, 8), (0, 7), (1, 8), (3, 6), (2, 2)] {
                        let inside = (start..end).contains(&place);
                        let found = check_text(&text, start, end).is_none();
                        assert_eq!(found, expected || !inside, "{byte:#04x} at {place} from {start} to {end}");
                    }
                }
            }
        }
    }
}
