//! PINs: as a terminal sends one, and as the switch keeps one.
//!
//! On its way a PIN is in a block of 16 bytes (ISO 9564-1 format 4, AES-128) that holds for one card and one session. Kept is
//! only a [`PinVerificationKey::value`], from which nobody gets the PIN back: a PIN has few digits and could be found by trying
//! all of them, but not without the switch's own key.
//!
//! Always true here: a PIN and its keys wipe themselves when they are dropped, and no `Debug` shows them; values are compared in
//! constant time; whatever the 16 bytes are, they are a PIN or they are none, and never the cause of a panic.
//!
//! ```text
//! PIN field    4 · length · digits · A ... A (16 nibbles) · 8 random bytes
//! card field   length - 12 · digits · 0 ... 0 (32 nibbles); a number below 12 digits is filled with zeros on the left
//! block        E(E(PIN field) xor card field)
//! ```

use std::fmt;

use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Block};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::card_number::CardNumber;
use crate::mac::Cmac;

/// The fewest digits of a PIN (ISO 9564-1).
pub const PIN_DIGITS_MIN: usize = 4;
/// The most digits of a PIN (ISO 9564-1).
pub const PIN_DIGITS_MAX: usize = 12;
/// Digits up to which a card field says nothing about its card number's length.
const CARD_DIGITS_MIN: usize = 12;

const CONTROL: u8 = 4;
const FILL: u8 = 0xa;

/// A PIN in the clear.
pub struct Pin {
    /// ASCII; zero bytes behind the last digit.
    digits: [u8; PIN_DIGITS_MAX],
    length: u8,
}

impl Pin {
    /// Reads 4 to 12 ASCII digits and nothing else.
    #[must_use]
    pub fn from_digits(text: &[u8]) -> Option<Self> {
        if !(PIN_DIGITS_MIN..=PIN_DIGITS_MAX).contains(&text.len()) || !text.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let mut digits = [0; PIN_DIGITS_MAX];
        digits[..text.len()].copy_from_slice(text);
        Some(Self { digits, length: text.len() as u8 })
    }

    fn digits(&self) -> &[u8] {
        &self.digits[..usize::from(self.length)]
    }
}

impl PartialEq for Pin {
    fn eq(&self, other: &Self) -> bool {
        (self.digits.ct_eq(&other.digits) & self.length.ct_eq(&other.length)).into()
    }
}

impl Eq for Pin {}

impl Drop for Pin {
    fn drop(&mut self) {
        self.digits.zeroize();
        self.length.zeroize();
    }
}

impl ZeroizeOnDrop for Pin {}

impl fmt::Debug for Pin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Pin(..)")
    }
}

/// Writes nibbles from the left.
struct Nibbles {
    block: Block,
    count: usize,
}

impl Nibbles {
    fn new() -> Self {
        Self { block: Block::default(), count: 0 }
    }

    fn push(&mut self, nibble: u8) {
        self.block[self.count / 2] |= nibble << (4 * (1 - self.count % 2));
        self.count += 1;
    }

    fn push_digits(&mut self, ascii: &[u8]) {
        for digit in ascii {
            self.push(digit - b'0');
        }
    }
}

/// The field by which a block holds for one card only.
fn card_field(number: CardNumber) -> Block {
    let digits = number.digits();
    let digits = digits.as_bytes();
    let mut field = Nibbles::new();
    field.push(digits.len().saturating_sub(CARD_DIGITS_MIN) as u8);
    (digits.len()..CARD_DIGITS_MIN).for_each(|_| field.push(0));
    field.push_digits(digits);
    field.block
}

fn mix(block: &mut Block, field: &Block) {
    block.iter_mut().zip(field).for_each(|(byte, mask)| *byte ^= mask);
}

/// A key of PIN blocks: a session's.
pub struct PinKey(Aes128);

impl PinKey {
    /// Prepares a key.
    #[must_use]
    pub fn new(key: &[u8; 16]) -> Self {
        Self(Aes128::new(&Array::from(*key)))
    }

    /// The PIN in a block that was made under this key for this card; `None` where the block is none of those.
    #[must_use]
    pub fn decrypt(&self, block: &[u8; 16], card: CardNumber) -> Option<Pin> {
        let mut field = Array::from(*block);
        self.0.decrypt_block(&mut field);
        mix(&mut field, &card_field(card));
        self.0.decrypt_block(&mut field);
        let pin = Self::read(&field);
        field.as_mut_slice().zeroize();
        pin
    }

    fn read(field: &Block) -> Option<Pin> {
        let nibble = |index: usize| field[index / 2] >> (4 * (1 - index % 2)) & 0xf;
        let length = usize::from(nibble(1));
        let is_field = nibble(0) == CONTROL
            && (PIN_DIGITS_MIN..=PIN_DIGITS_MAX).contains(&length)
            && (2..2 + length).all(|index| nibble(index) < 10)
            && (2 + length..16).all(|index| nibble(index) == FILL);
        is_field.then(|| {
            let mut pin = Pin { digits: [0; PIN_DIGITS_MAX], length: length as u8 };
            pin.digits[..length].iter_mut().zip(2..).for_each(|(digit, index)| *digit = b'0' + nibble(index));
            pin
        })
    }

    /// The block of a PIN for this card, as a terminal makes it; `random` is new for each.
    #[must_use]
    pub fn encrypt(&self, pin: &Pin, card: CardNumber, random: [u8; 8]) -> [u8; 16] {
        let mut field = Nibbles::new();
        field.push(CONTROL);
        field.push(pin.length);
        field.push_digits(pin.digits());
        (pin.digits().len()..14).for_each(|_| field.push(FILL));
        // In place, so that the PIN in the clear is not left behind.
        let block = &mut field.block;
        block[8..].copy_from_slice(&random);
        self.0.encrypt_block(block);
        mix(block, &card_field(card));
        self.0.encrypt_block(block);
        block.0
    }
}

impl fmt::Debug for PinKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PinKey(..)")
    }
}

/// What is kept of a card's PIN: it tells whether a PIN is the card's, and nothing of it without the switch's own key. Who had
/// both would soon have the PIN, so it is shown nowhere.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PinVerification(pub [u8; 16]);

impl fmt::Debug for PinVerification {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PinVerification(..)")
    }
}

/// The key under which PINs are kept: the switch's own, derived by [`crate::mac::KeyEncryptionKey::pin_verification_key_bytes`].
pub struct PinVerificationKey(Cmac);

impl PinVerificationKey {
    /// Prepares a key.
    #[must_use]
    pub fn new(key: &[u8; 16]) -> Self {
        Self(Cmac::new(key))
    }

    /// What is kept of a card's PIN: AES-128-CMAC over the card number's packing (8 bytes, big-endian), the count of digits (a
    /// byte) and the digits in ASCII. Two cards with the same PIN have different values.
    #[must_use]
    pub fn value(&self, card: CardNumber, pin: &Pin) -> PinVerification {
        let mut message = [0; 9 + PIN_DIGITS_MAX];
        message[..8].copy_from_slice(&card.packed().to_be_bytes());
        message[8] = pin.length;
        message[9..].copy_from_slice(&pin.digits);
        let value = self.0.compute(&message[..9 + pin.digits().len()]);
        message.zeroize();
        PinVerification(value)
    }

    /// Whether this is the card's PIN, of which `kept` is kept; in constant time.
    #[must_use]
    pub fn is_right(&self, card: CardNumber, pin: &Pin, kept: PinVerification) -> bool {
        self.value(card, pin).0.ct_eq(&kept.0).into()
    }
}

impl fmt::Debug for PinVerificationKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PinVerificationKey(..)")
    }
}
