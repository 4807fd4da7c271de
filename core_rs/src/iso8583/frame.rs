//! Transport framing: a two-byte length, an optional TPDU, the message.
//!
//! [`split`] is given whatever has arrived and takes the first frame off it; what follows the frame does not matter to it.

use std::fmt;

use crate::limits::FRAME_BYTES_MAX;

/// Bytes of the length before a frame.
pub const LENGTH_BYTES: usize = 2;

/// The first byte of a TPDU. No MTI begins with it.
const TPDU_MARK: u8 = 0x60;

/// A transport protocol data unit: `60`, destination (2 bytes), source (2 bytes).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tpdu(pub [u8; 5]);

impl Tpdu {
    /// The TPDU of the reply: destination and source swapped.
    #[must_use]
    #[inline]
    pub const fn reply(self) -> Self {
        let [mark, destination_high, destination_low, source_high, source_low] = self.0;
        Self([mark, source_high, source_low, destination_high, destination_low])
    }
}

/// What stands at the start of the input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Split<'a> {
    /// Not yet a whole frame.
    Incomplete,
    /// A whole frame.
    Frame {
        /// Its TPDU, if it has one.
        tpdu: Option<Tpdu>,
        /// The message, from its MTI to the frame's end.
        message: &'a [u8],
        /// Bytes of the input that the frame takes, its length included.
        consumed: usize,
    },
    /// No frame can be read here or after: the connection is to be closed.
    Refused(FrameError),
}

/// Why a stream of frames cannot be read on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FrameError {
    /// The length is 0.
    LengthZero,
    /// The length is above [`FRAME_BYTES_MAX`].
    LengthOver,
    /// The frame ends within its TPDU.
    TpduCut,
}

impl FrameError {
    /// A label for counting.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::LengthZero => "length_zero",
            Self::LengthOver => "length_over",
            Self::TpduCut => "tpdu_cut",
        }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LengthZero => formatter.write_str("a frame's length is 0"),
            Self::LengthOver => write!(formatter, "a frame's length is above {FRAME_BYTES_MAX} bytes"),
            Self::TpduCut => formatter.write_str("a frame ends within its TPDU"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Takes the first frame off the input. A length that can never be served is refused as soon as it is seen.
#[must_use]
#[inline]
pub fn split(input: &[u8]) -> Split<'_> {
    let Some((length, rest)) = input.split_first_chunk::<LENGTH_BYTES>() else {
        return Split::Incomplete;
    };
    let length = usize::from(u16::from_be_bytes(*length));
    if length == 0 {
        return Split::Refused(FrameError::LengthZero);
    }
    if length > FRAME_BYTES_MAX {
        return Split::Refused(FrameError::LengthOver);
    }
    let Some(body) = rest.get(..length) else {
        return Split::Incomplete;
    };
    let consumed = LENGTH_BYTES + length;
    if body[0] != TPDU_MARK {
        return Split::Frame { tpdu: None, message: body, consumed };
    }
    match body.split_first_chunk() {
        Some((tpdu, message)) => Split::Frame { tpdu: Some(Tpdu(*tpdu)), message, consumed },
        None => Split::Refused(FrameError::TpduCut),
    }
}

/// The messages of the whole frames at the start of the input.
pub fn messages(mut input: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let Split::Frame { message, consumed, .. } = split(input) else { return None };
        input = &input[consumed..];
        Some(message)
    })
}
