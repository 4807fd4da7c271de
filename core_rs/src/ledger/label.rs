//! Short printable names held in place.

use std::fmt;

/// A printable ASCII name of at most `N` bytes, held without an allocation: a college has many.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label<const N: usize> {
    length: u8,
    bytes: [u8; N],
}

impl<const N: usize> Label<N> {
    /// The name, or `None` where it is longer than `N` bytes or not printable ASCII. It may be empty.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        Self::from_bytes(text.as_bytes())
    }

    /// The same from bytes.
    #[must_use]
    pub fn from_bytes(text: &[u8]) -> Option<Self> {
        if text.len() > N || !text.iter().all(|byte| (0x20..=0x7e).contains(byte)) {
            return None;
        }
        let mut bytes = [0; N];
        bytes[..text.len()].copy_from_slice(text);
        Some(Self { length: text.len() as u8, bytes })
    }

    /// The name's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl<const N: usize> fmt::Debug for Label<N> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), formatter)
    }
}

impl<const N: usize> fmt::Display for Label<N> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}
