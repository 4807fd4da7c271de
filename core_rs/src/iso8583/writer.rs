//! Writing a message.

use super::bcd::{self, NUMBER_DIGITS_MAX, POWERS_OF_TEN};
use super::elements::{ELEMENTS, Format};
use super::frame::{LENGTH_BYTES, Tpdu};
use super::message::Message;
use crate::card_number::CardNumber;
use crate::limits::FRAME_BYTES_MAX;
use crate::mac::MacKey;

/// Appends one framed message to a buffer. What it is given is the switch's own, so what does not fit an element is an
/// assertion, not an error.
///
/// The frame's length and the bitmaps are left open at first and set by [`Self::finish`]; without it the frame is void.
#[derive(Debug)]
#[must_use = "a frame is void until it is finished"]
pub struct Writer<'b> {
    out: &'b mut Vec<u8>,
    /// Where the frame's length stands.
    frame: usize,
    /// Where the MTI stands.
    message: usize,
    /// The elements so far, 1 to 64 and 65 to 128; the first is the top bit.
    bitmaps: [u64; 2],
    /// The last element so far, and so the least that the next may be above.
    last: u8,
}

impl<'b> Writer<'b> {
    /// Begins a message of type `mti` (0 to 9999), with a second bitmap if it will have an element above 64.
    ///
    /// # Panics
    /// If `mti` has more than four digits.
    #[inline]
    pub fn begin(out: &'b mut Vec<u8>, tpdu: Option<Tpdu>, mti: u16, second_bitmap: bool) -> Self {
        assert!(mti <= 9_999, "an MTI has four digits");
        // One check of the buffer's capacity here makes the many small appends cheap.
        out.reserve(LENGTH_BYTES + FRAME_BYTES_MAX);
        let frame = out.len();
        out.extend_from_slice(&[0; LENGTH_BYTES]);
        if let Some(Tpdu(tpdu)) = tpdu {
            out.extend_from_slice(&tpdu);
        }
        let message = out.len();
        out.extend_from_slice(&(bcd::from_number(u64::from(mti)) as u16).to_be_bytes());
        if second_bitmap {
            out.extend_from_slice(&[0; 16]);
        } else {
            out.extend_from_slice(&[0; 8]);
        }
        Self { out, frame, message, bitmaps: [u64::from(second_bitmap) << 63, 0], last: 1 }
    }

    #[inline]
    fn add(&mut self, element: u8) -> Format {
        assert!(element > self.last && element <= 128, "elements are written in ascending order");
        assert!(element <= 64 || self.has_second_bitmap(), "an element above 64 needs a second bitmap");
        self.last = element;
        let place = u32::from(element - 1);
        self.bitmaps[(place / 64) as usize] |= 1 << (63 - place % 64);
        ELEMENTS[usize::from(element)]
    }

    #[inline]
    const fn has_second_bitmap(&self) -> bool {
        self.bitmaps[0] >> 63 == 1
    }

    /// Adds an n element: of fixed length, up to 16 digits, or LLVAR without leading zeros.
    ///
    /// # Panics
    /// If the element is of another kind, or the value has too many digits.
    #[inline]
    pub fn number(&mut self, element: u8, value: u64) {
        match self.add(element) {
            Format::Numeric { digits } if digits <= 16 => {
                assert!(value < POWERS_OF_TEN[usize::from(digits)], "DE{element} has {digits} digits");
                let packed = bcd::from_number(value).to_be_bytes();
                self.out.extend_from_slice(&packed[8 - usize::from(digits).div_ceil(2)..]);
            }
            Format::NumericLl { digits_max, .. } => {
                let digits = value.checked_ilog10().unwrap_or(0) as usize + 1;
                assert!(digits <= usize::from(digits_max).min(NUMBER_DIGITS_MAX), "DE{element} has up to {digits_max} digits");
                let ascii = format!("{value}");
                self.out.push(bcd::from_number(digits as u64) as u8);
                pack_digits(self.out, ascii.as_bytes(), false);
            }
            format => panic!("DE{element} is {format:?}, not a number"),
        }
    }

    /// Adds an n element of any fixed length from its digits in ASCII.
    ///
    /// # Panics
    /// If the element is of another kind, or the digits are not as many as it has, or no digits.
    pub fn digits(&mut self, element: u8, ascii: &[u8]) {
        match self.add(element) {
            Format::Numeric { digits } if usize::from(digits) == ascii.len() => pack_digits(self.out, ascii, true),
            format => panic!("DE{element} is {format:?}, not {} digits", ascii.len()),
        }
    }

    /// Adds an an or ans element: of fixed length, padded with spaces on the right, or of variable length, prefixed.
    ///
    /// # Panics
    /// If the element is of another kind, or the text too long or not printable ASCII.
    #[inline]
    pub fn text(&mut self, element: u8, text: &[u8]) {
        debug_assert!(text.iter().all(|byte| matches!(byte, 0x20..=0x7e)), "text is printable ASCII");
        let format = self.add(element);
        let bytes_max = match format {
            Format::Text { bytes } => usize::from(bytes),
            Format::TextLl { bytes_max } => usize::from(bytes_max),
            Format::TextLll { bytes_max } => usize::from(bytes_max),
            _ => panic!("DE{element} is {format:?}, not text"),
        };
        assert!(text.len() <= bytes_max, "DE{element} has up to {bytes_max} bytes");
        let length = bcd::from_number(text.len() as u64).to_be_bytes();
        self.out.extend_from_slice(&length[8 - format.prefix_bytes()..]);
        self.out.extend_from_slice(text);
        if matches!(format, Format::Text { .. }) {
            self.out.resize(self.out.len() + bytes_max - text.len(), b' ');
        }
    }

    /// Adds a b element.
    ///
    /// # Panics
    /// If the element is of another kind or of another length.
    #[inline]
    pub fn bytes(&mut self, element: u8, bytes: &[u8]) {
        let format = self.add(element);
        assert!(
            matches!(format, Format::Binary { bytes: length } if usize::from(length) == bytes.len()),
            "DE{element} is {format:?}, not {} bytes",
            bytes.len()
        );
        self.out.extend_from_slice(bytes);
    }

    /// Adds an element as it was sent in another message ([`Message::wire`]).
    #[inline]
    pub fn wire(&mut self, element: u8, wire: &[u8]) {
        let format = self.add(element);
        debug_assert_eq!(super::elements::read(element, format, wire, 0), Ok(wire.len()), "DE{element} is copied whole");
        self.out.extend_from_slice(wire);
    }

    /// Adds an element as it stands in a request, if it is there.
    #[inline]
    pub fn echo(&mut self, request: &Message<'_>, element: u8) {
        if let Some(wire) = request.wire(element) {
            self.wire(element, wire);
        }
    }

    /// Adds DE2.
    #[inline]
    pub fn card_number(&mut self, card: CardNumber) {
        self.add(2);
        card.write_bcd(self.out);
    }

    /// Sets the bitmaps, adds the MAC under `key` (DE128 where there is a second bitmap, else DE64), and sets the frame's length.
    ///
    /// # Panics
    /// If the frame is longer than frames may be.
    #[inline]
    pub fn finish(mut self, key: Option<&MacKey>) {
        if key.is_some() {
            self.add(if self.has_second_bitmap() { 128 } else { 64 });
        }
        let bitmaps = self.bitmaps.map(u64::to_be_bytes);
        self.out[self.message + 2..][..8].copy_from_slice(&bitmaps[0]);
        if self.has_second_bitmap() {
            self.out[self.message + 10..][..8].copy_from_slice(&bitmaps[1]);
        }
        if let Some(key) = key {
            let tag = key.tag(&self.out[self.message..]);
            self.out.extend_from_slice(&tag);
        }
        let length = self.out.len() - self.frame - LENGTH_BYTES;
        assert!(length <= FRAME_BYTES_MAX, "a frame has up to {FRAME_BYTES_MAX} bytes");
        self.out[self.frame..][..LENGTH_BYTES].copy_from_slice(&(length as u16).to_be_bytes());
    }
}

/// Packs ASCII digits two a byte; an odd count is padded with a zero nibble on the left or on the right.
fn pack_digits(out: &mut Vec<u8>, ascii: &[u8], pad_left: bool) {
    assert!(ascii.iter().all(u8::is_ascii_digit), "digits are decimal");
    let (head, pairs) = ascii.split_at(if pad_left { ascii.len() % 2 } else { 0 });
    out.extend(head.iter().map(|digit| digit - b'0'));
    out.extend(pairs.chunks(2).map(|pair| ((pair[0] - b'0') << 4) | pair.get(1).map_or(0, |digit| digit - b'0')));
}
