//! Card numbers of 1 to 19 digits in eight bytes.
//!
//! A card number is a string of digits, not a number: leading zeros count (`0012` is another card than `12`). [`CardNumber`]
//! packs it injectively: its value plus the number of all shorter digit strings, which is (10^length - 10) / 9. So shorter
//! card numbers come before longer ones, and among those of one length the order is that of their digits.

use std::fmt;

use crate::iso8583::bcd::{self, POWERS_OF_TEN};

/// The most digits of a card number (ISO/IEC 7812-1; DE2 is LLVAR n..19).
pub const CARD_NUMBER_DIGITS_MAX: usize = 19;

/// How many digit strings are shorter than the index's length and not empty; one past the longest ends the last range.
const SHORTER: [u64; CARD_NUMBER_DIGITS_MAX + 2] = {
    let mut shorter = [0; CARD_NUMBER_DIGITS_MAX + 2];
    let mut length = 2;
    while length < shorter.len() {
        shorter[length] = shorter[length - 1] + POWERS_OF_TEN[length - 1];
        length += 1;
    }
    shorter
};

// The end of the last range must fit, or two card numbers could share a packing.
const _: () = assert!(SHORTER[CARD_NUMBER_DIGITS_MAX + 1] == 11_111_111_111_111_111_110);

/// A card number, packed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CardNumber(u64);

impl CardNumber {
    /// The packing, for records and keys.
    #[must_use]
    #[inline]
    pub const fn packed(self) -> u64 {
        self.0
    }

    /// The card number with this packing, if there is one.
    #[must_use]
    #[inline]
    pub const fn from_packed(packed: u64) -> Option<Self> {
        if packed < SHORTER[CARD_NUMBER_DIGITS_MAX + 1] { Some(Self(packed)) } else { None }
    }

    /// Reads 1 to 19 ASCII digits and nothing else.
    #[must_use]
    pub fn from_digits(digits: &[u8]) -> Option<Self> {
        if digits.is_empty() || digits.len() > CARD_NUMBER_DIGITS_MAX || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let value = digits.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));
        Some(Self(SHORTER[digits.len()] + value))
    }

    /// Reads the digits of an LLVAR n element: packed from the left, an odd count padded with a zero nibble on the right.
    /// `nibbles` must be exactly the bytes that `digit_count` digits take.
    #[must_use]
    #[inline]
    pub fn from_bcd(nibbles: &[u8], digit_count: usize) -> Option<Self> {
        let value = bcd::read_left_aligned(nibbles, digit_count)?;
        Some(Self(SHORTER[digit_count] + value))
    }

    /// Appends it as an LLVAR n element: the count of digits in one BCD byte, then the digits as [`Self::from_bcd`] reads them.
    pub fn write_bcd(self, out: &mut Vec<u8>) {
        let (value, length) = self.value_and_length();
        out.push(bcd::from_number(length as u64) as u8);
        // The digits from the left, in two words of sixteen: the high one holds what 64 bits of nibbles cannot.
        let high = bcd::from_number(value / POWERS_OF_TEN[16]);
        let low = bcd::from_number(value % POWERS_OF_TEN[16]);
        let packed = (u128::from(high) << 64 | u128::from(low)) << (4 * (length % 2));
        out.extend_from_slice(&packed.to_be_bytes()[16 - length.div_ceil(2)..]);
    }

    /// Its digits as text.
    #[must_use]
    pub fn digits(self) -> Digits {
        let (mut value, length) = self.value_and_length();
        let mut ascii = [b'0'; CARD_NUMBER_DIGITS_MAX];
        for digit in ascii[..length].iter_mut().rev() {
            *digit = b'0' + (value % 10) as u8;
            value /= 10;
        }
        Digits { ascii, length: length as u8 }
    }

    fn value_and_length(self) -> (u64, usize) {
        let length = SHORTER[1..].partition_point(|shorter| *shorter <= self.0);
        (self.0 - SHORTER[length], length)
    }
}

impl fmt::Display for CardNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.digits().as_str())
    }
}

impl fmt::Debug for CardNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "CardNumber({self})")
    }
}

/// The digits of a card number, on the stack.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digits {
    ascii: [u8; CARD_NUMBER_DIGITS_MAX],
    length: u8,
}

impl Digits {
    /// As ASCII bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.ascii[..usize::from(self.length)]
    }

    /// As text.
    #[must_use]
    #[allow(clippy::missing_panics_doc, reason = "decimal digits are UTF-8")]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("decimal digits are UTF-8")
    }
}

impl fmt::Display for Digits {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl fmt::Debug for Digits {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Digits({self})")
    }
}
