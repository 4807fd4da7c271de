//! The cards that have a PIN: what tells whether one is right, and how many wrong ones came in a row.

use std::collections::BTreeMap;

use super::bytes::{Decoder, Encoder};
use super::command::Pin;
use crate::pin::PinVerification;

/// One card's PIN.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct CardPin {
    pub(super) verification: PinVerification,
    /// Wrong ones in a row.
    pub(super) tries: u8,
}

/// The PINs by the index of their cards.
#[derive(Default)]
pub(super) struct Pins(BTreeMap<u32, CardPin>);

impl Pins {
    /// A card has another PIN from now on.
    pub(super) fn set(&mut self, card: u32, verification: PinVerification) {
        self.0.insert(card, CardPin { verification, tries: 0 });
    }

    /// What tells whether a PIN is this card's.
    pub(super) fn verification(&self, card: u32) -> Option<PinVerification> {
        self.0.get(&card).map(|pin| pin.verification)
    }

    /// Wrong PINs in a row.
    pub(super) fn tries(&self, card: u32) -> u8 {
        self.0.get(&card).map_or(0, |pin| pin.tries)
    }

    /// A PIN was asked for, and this was the answer.
    pub(super) fn note(&mut self, card: u32, answer: Pin) {
        if let Some(pin) = self.0.get_mut(&card) {
            match answer {
                Pin::Right => pin.tries = 0,
                Pin::Wrong => pin.tries = pin.tries.saturating_add(1),
                Pin::Absent => {}
            }
        }
    }

    /// All of them, in the order of the cards.
    pub(super) fn rows(&self) -> impl ExactSizeIterator<Item = (u32, CardPin)> {
        self.0.iter().map(|(&card, &pin)| (card, pin))
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        self.0.len() * 2 * size_of::<(u32, CardPin)>()
    }

    pub(super) fn put(row: &mut Encoder<'_>, (card, pin): (u32, CardPin)) {
        row.u32(card);
        row.bytes(&pin.verification.0);
        row.u8(pin.tries);
    }

    /// Takes a row of the image; cards come in order.
    pub(super) fn take(&mut self, row: &mut Decoder<'_>, cards: usize) -> Option<()> {
        let (card, pin) = (row.u32()?, CardPin { verification: PinVerification(row.array()?), tries: row.u8()? });
        let in_order = self.0.last_key_value().is_none_or(|(&last, _)| last < card);
        ((card as usize) < cards && in_order).then(|| {
            self.0.insert(card, pin);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_pins_count_and_a_right_one_forgets_them() {
        let mut pins = Pins::default();
        pins.note(1, Pin::Wrong);
        assert_eq!((pins.tries(1), pins.verification(1)), (0, None));
        pins.set(1, PinVerification([7; 16]));
        for (answer, tries) in [(Pin::Wrong, 1), (Pin::Absent, 1), (Pin::Wrong, 2), (Pin::Right, 0), (Pin::Wrong, 1)] {
            pins.note(1, answer);
            assert_eq!(pins.tries(1), tries);
        }
        pins.set(1, PinVerification([8; 16]));
        assert_eq!((pins.tries(1), pins.verification(1)), (0, Some(PinVerification([8; 16]))));
    }
}
