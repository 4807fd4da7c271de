//! Packed decimal (BCD), two digits a byte, sixteen digits at a time.
//!
//! A run of digits is loaded into a `u64` or two, checked and converted by arithmetic on all nibbles at once: this is the
//! innermost loop of reading a message. Wrapping arithmetic is used where a lane's overflow cannot happen by the masks.

/// Powers of ten that fit 64 bits, by exponent.
pub(crate) const POWERS_OF_TEN: [u64; 20] = {
    let mut powers = [1; 20];
    let mut exponent = 1;
    while exponent < 20 {
        powers[exponent] = powers[exponent - 1] * 10;
        exponent += 1;
    }
    powers
};

/// The most digits whose number always fits 64 bits.
pub(crate) const NUMBER_DIGITS_MAX: usize = 19;

/// Whether every nibble is a decimal digit.
#[inline]
pub(crate) const fn is_decimal(packed: u64) -> bool {
    // A nibble is above nine where its bit 3 is set together with bit 2 or bit 1.
    packed & ((packed << 1) | (packed << 2)) & 0x8888_8888_8888_8888 == 0
}

/// The number that sixteen decimal nibbles stand for.
#[inline]
pub(crate) const fn to_number(packed: u64) -> u64 {
    let tens = (packed >> 4) & 0x0f0f_0f0f_0f0f_0f0f;
    let pairs = packed.wrapping_sub(tens.wrapping_mul(6));
    let fours = (pairs & 0x00ff_00ff_00ff_00ff).wrapping_add(((pairs >> 8) & 0x00ff_00ff_00ff_00ff).wrapping_mul(100));
    let eights = (fours & 0x0000_ffff_0000_ffff).wrapping_add(((fours >> 16) & 0x0000_ffff_0000_ffff).wrapping_mul(10_000));
    (eights & 0xffff_ffff).wrapping_add((eights >> 32).wrapping_mul(100_000_000))
}

/// The sixteen decimal nibbles of a number below 10^16.
#[inline]
pub(crate) const fn from_number(number: u64) -> u64 {
    debug_assert!(number < POWERS_OF_TEN[16]);
    (eight_digits(number / 100_000_000) << 32) | eight_digits(number % 100_000_000)
}

/// The eight decimal nibbles of a number below 10^8.
#[inline]
const fn eight_digits(number: u64) -> u64 {
    // Two lanes below 10^4, then four below 10^2, then eight digits; the divisions are exact in these ranges.
    let fours = ((number / 10_000) << 32) | (number % 10_000);
    let hundreds = (fours.wrapping_mul(5_243) >> 19) & 0x0000_007f_0000_007f;
    let pairs = (hundreds << 16) | fours.wrapping_sub(hundreds.wrapping_mul(100));
    let tens = (pairs.wrapping_mul(103) >> 10) & 0x000f_000f_000f_000f;
    let bytes = (tens << 4) | pairs.wrapping_sub(tens.wrapping_mul(10));
    let words = (bytes | (bytes >> 8)) & 0x0000_ffff_0000_ffff;
    (words | (words >> 16)) & 0xffff_ffff
}

/// The sixteen digits of a number below 10^16 in ASCII.
#[inline]
pub(crate) const fn to_ascii(number: u64) -> [u8; 16] {
    let packed = from_number(number);
    ((eight_characters(packed >> 32) as u128) << 64 | eight_characters(packed & 0xffff_ffff) as u128).to_be_bytes()
}

/// The ASCII digits of eight decimal nibbles.
#[inline]
const fn eight_characters(nibbles: u64) -> u64 {
    let halves = (nibbles | nibbles << 16) & 0x0000_ffff_0000_ffff;
    let pairs = (halves | halves << 8) & 0x00ff_00ff_00ff_00ff;
    let digits = (pairs | pairs << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    digits | 0x3030_3030_3030_3030
}

/// Loads up to eight bytes as the low end of a big-endian word.
#[inline]
pub(crate) fn load(bytes: &[u8]) -> u64 {
    load_ending(bytes, bytes.len(), bytes.len())
}

/// Loads the `length` bytes (up to eight) that end at `end` as the low end of a big-endian word. Where eight bytes stand before
/// `end`, as they do before the end of every element of a message, this is one load and a mask.
#[inline]
pub(crate) fn load_ending(bytes: &[u8], end: usize, length: usize) -> u64 {
    debug_assert!(length <= 8 && length <= end);
    let before = &bytes[..end];
    match before.last_chunk() {
        Some(word) => u64::from_be_bytes(*word) & mask(length),
        None => before[end - length..].iter().fold(0, |word, byte| (word << 8) | u64::from(*byte)),
    }
}

/// The low `length` bytes of a word.
#[inline]
pub(crate) const fn mask(length: usize) -> u64 {
    u64::MAX.unbounded_shr(64 - 8 * length as u32)
}

/// The number in `digit_count` digits (1 to 19) packed from the left, an odd count padded with one zero nibble on the right.
/// `None` where a nibble is no digit, the padding is not zero, or the bytes are not as many as the digits need.
#[inline]
pub(crate) fn read_left_aligned(bytes: &[u8], digit_count: usize) -> Option<u64> {
    if bytes.len() != digit_count.div_ceil(2) || digit_count == 0 || digit_count > NUMBER_DIGITS_MAX {
        return None;
    }
    let padding = 4 * (digit_count as u32 % 2);
    let (high, low) = bytes.split_at(bytes.len().saturating_sub(8));
    let (high, low) = (if high.is_empty() { 0 } else { load(high) }, load(low));
    let is_padded = low & ((1 << padding) - 1) == 0;
    if !is_decimal(high) || !is_decimal(low) || !is_padded {
        return None;
    }
    if high == 0 {
        return Some(to_number(low >> padding));
    }
    let (high, low) = (high >> padding, low >> padding | high.unbounded_shl(64 - padding));
    Some(to_number(high) * POWERS_OF_TEN[16] + to_number(low))
}

/// Whether every nibble from `start` to `end` is a decimal digit.
#[inline]
pub(crate) fn all_decimal(bytes: &[u8], start: usize, end: usize) -> bool {
    let (words, rest) = bytes[start..end].as_chunks();
    words.iter().all(|word| is_decimal(u64::from_be_bytes(*word))) && is_decimal(load_ending(bytes, end, rest.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nibbles_above_nine_are_told_at_every_place() {
        for place in 0..16 {
            for nibble in 0..16_u64 {
                assert_eq!(is_decimal(nibble << (place * 4)), nibble < 10, "nibble {nibble} at {place}");
                let nines = 0x9999_9999_9999_9999_u64 & !(0xf << (place * 4));
                assert_eq!(is_decimal(nines | (nibble << (place * 4))), nibble < 10, "nibble {nibble} among nines");
            }
        }
    }

    #[test]
    fn every_four_digit_group_converts_both_ways_in_every_lane() {
        for number in 0..10_000 {
            for scale in [1, POWERS_OF_TEN[4], POWERS_OF_TEN[8], POWERS_OF_TEN[12]] {
                let packed = from_number(number * scale);
                assert_eq!(format!("{packed:016x}"), format!("{:016}", number * scale));
                assert_eq!(to_number(packed), number * scale);
                assert_eq!(to_ascii(number * scale), *format!("{:016}", number * scale).as_bytes());
            }
        }
        assert_eq!(to_number(from_number(POWERS_OF_TEN[16] - 1)), POWERS_OF_TEN[16] - 1);
    }
}
