//! Frames: a stream gives the same ones however it is cut up on its way.

use switch_core::iso8583::frame::{self, FrameError, Split};
use switch_core::iso8583::{Tpdu, Writer};
use switch_core::limits::FRAME_BYTES_MAX;

/// TPDU and message of each frame, and what ended the stream.
type Frames = (Vec<(Option<Tpdu>, Vec<u8>)>, Option<FrameError>);

/// Takes all frames off the front of `buffer`.
fn drain(buffer: &mut Vec<u8>, frames: &mut Frames) {
    while frames.1.is_none() {
        let consumed = match frame::split(buffer) {
            Split::Incomplete => return,
            Split::Refused(error) => {
                frames.1 = Some(error);
                return;
            }
            Split::Frame { tpdu, message, consumed } => {
                let tpdu_bytes = if tpdu.is_some() { 5 } else { 0 };
                assert_eq!(consumed, frame::LENGTH_BYTES + tpdu_bytes + message.len());
                assert!(tpdu.is_none_or(|tpdu| tpdu.reply().reply() == tpdu && buffer[2..7] == tpdu.0));
                frames.0.push((tpdu, message.to_vec()));
                consumed
            }
        };
        buffer.drain(..consumed);
    }
}

/// Reads `data` as a peer's stream: whole, byte by byte, and in pieces of a length that its last byte says.
pub fn check(data: &[u8]) {
    let read_in = |piece_bytes: usize| {
        let (mut buffer, mut frames) = (Vec::new(), Frames::default());
        for piece in data.chunks(piece_bytes.max(1)) {
            buffer.extend_from_slice(piece);
            drain(&mut buffer, &mut frames);
        }
        (frames, buffer)
    };
    let whole = read_in(data.len());
    let piece_bytes = usize::from(data.last().copied().unwrap_or(1));
    for (frames, rest) in [read_in(1), read_in(piece_bytes)] {
        assert_eq!(frames, whole.0);
        // Behind a refusal nothing is read, so there the rests differ by how much had come.
        assert!(frames.1.is_some() || rest == whole.1);
        let bytes_announced = rest.first_chunk().map(|length| usize::from(u16::from_be_bytes(*length)));
        assert!(
            frames.1.is_some() || bytes_announced.is_none_or(|bytes| (1..=FRAME_BYTES_MAX).contains(&bytes)),
            "nobody waits for a frame that can never be served"
        );
    }
}

/// Frames with and without a TPDU, and streams that break off or cannot be read on.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut stream = Vec::new();
    for tpdu in [None, Some(Tpdu([0x60, 1, 2, 3, 4]))] {
        let mut writer = Writer::begin(&mut stream, tpdu, 800, true);
        writer.number(11, 1);
        writer.number(70, 301);
        writer.finish(None);
    }
    let ends: [&[u8]; 5] = [&[], &[0, 0], &[8, 1], &[0, 3, 0x60, 1, 2], &[8, 0, 2, 0]];
    ends.iter().map(|end| [&stream, *end].concat()).collect()
}
