//! The sub-elements of DE48: two digits of tag, two digits of length, value, all ASCII, one after another.

use std::fmt;

/// One sub-element.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SubElement<'a> {
    /// Its tag, 0 to 99.
    pub tag: u8,
    /// Its value.
    pub value: &'a [u8],
}

/// The text is not a row of sub-elements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a sub-element's tag or length is not two digits, or its value is cut short")
    }
}

impl std::error::Error for Malformed {}

/// Iterates over sub-elements in their order; after the first that is malformed there are no more.
#[derive(Clone, Debug)]
pub struct SubElements<'a>(&'a [u8]);

impl<'a> SubElements<'a> {
    /// The sub-elements in this text.
    #[must_use]
    pub const fn new(text: &'a [u8]) -> Self {
        Self(text)
    }

    fn take(&mut self) -> Option<SubElement<'a>> {
        let (&[tag_high, tag_low, length_high, length_low], rest) = self.0.split_first_chunk()?;
        let tag = two_digits(tag_high, tag_low)?;
        let (value, rest) = rest.split_at_checked(usize::from(two_digits(length_high, length_low)?))?;
        self.0 = rest;
        Some(SubElement { tag, value })
    }
}

impl<'a> Iterator for SubElements<'a> {
    type Item = Result<SubElement<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let element = self.take();
        if element.is_none() {
            self.0 = &[];
        }
        Some(element.ok_or(Malformed))
    }
}

impl std::iter::FusedIterator for SubElements<'_> {}

fn two_digits(high: u8, low: u8) -> Option<u8> {
    (high.is_ascii_digit() && low.is_ascii_digit()).then(|| (high - b'0') * 10 + (low - b'0'))
}
