//! Messages: whatever the bytes, every accessor answers; and what it answers, written again, is what was read.

use switch_core::iso8583::{ELEMENTS, Format, Message, Writer, card_number_ahead};
use switch_core::limits::FRAME_BYTES_MAX;
use switch_core::mac::MacKey;

/// Elements that a message may carry, the bitmaps' own apart.
fn elements() -> impl Iterator<Item = u8> {
    (2..=128).filter(|&element| ELEMENTS[usize::from(element)] != Format::Refused)
}

/// Writes every readable element of a message again as it was sent.
fn written_again(message: &Message<'_>) -> Vec<u8> {
    let mut frame = Vec::new();
    let mut writer = Writer::begin(&mut frame, None, message.mti(), message.has_second_bitmap());
    elements().for_each(|element| writer.echo(message, element));
    writer.finish(None);
    frame.split_off(2)
}

/// The element as a writer makes it from what the accessors say.
fn element_from_value(message: &Message<'_>, element: u8) -> Option<Vec<u8>> {
    let mut frame = Vec::new();
    let mut writer = Writer::begin(&mut frame, None, 200, true);
    match ELEMENTS[usize::from(element)] {
        Format::Numeric { digits } if digits <= 16 => writer.number(element, message.number(element)?),
        Format::Text { .. } | Format::TextLl { .. } | Format::TextLll { .. } => writer.text(element, message.text(element)?),
        Format::Binary { .. } => writer.bytes(element, message.bytes(element)?),
        Format::NumericLl { .. } if element == 2 => writer.card_number(message.card_number()?),
        _ => return message.wire(element).map(<[u8]>::to_vec),
    }
    writer.finish(None);
    Some(frame.split_off(2 + 2 + 16))
}

/// The digits of a fixed n element, one by one: what the fast conversion must agree with.
fn plain_number(wire: &[u8]) -> u64 {
    wire.iter().fold(0, |number, byte| number * 100 + u64::from(byte >> 4) * 10 + u64::from(byte & 15))
}

/// Reads `data` as a message.
pub fn check(data: &[u8]) {
    let ahead = card_number_ahead(data);
    let Ok(message) = Message::parse(data) else { return };
    assert!(message.card_number().is_none_or(|number| ahead == Some(number)));
    assert!(message.mti() <= 9_999);
    for element in 1..=128 {
        let wire = message.wire(element);
        let value = (message.number(element), message.text(element), message.bytes(element));
        assert!(message.has(element) || (wire, value) == (None, (None, None, None)));
        assert_eq!(wire.is_some(), message.has(element));
        if message.has(element) && element > 1 {
            assert_eq!(element_from_value(&message, element).as_deref(), wire, "DE{element}");
            if let (Format::Numeric { .. }, Some(number), Some(wire)) = (ELEMENTS[usize::from(element)], value.0, wire) {
                assert_eq!(number, plain_number(wire), "DE{element}");
            }
        }
        assert!(message.sub_elements(element).all(|found| element != 48 || found.is_ok()), "DE48 was checked");
    }
    if let Some(named) = message.original_data_elements() {
        assert!(named.mti <= 9_999 && named.trace < 1_000_000 && named.local_date <= 9_999 && named.local_time < 1_000_000);
    }
    for tag in 0..=99 {
        assert!(message.sub_element(tag).is_none_or(|value| value.len() <= 99));
    }
    if let Some((covered, tag)) = message.mac() {
        let key = MacKey::new(&[7; 16]);
        assert_eq!(key.verify(covered, &tag).is_ok(), key.tag(covered) == tag);
    }
    assert!(!format!("{message:?} {:?}", message.fault().map(|fault| fault.to_string())).is_empty());
    if data.len() > FRAME_BYTES_MAX {
        return;
    }
    let again = written_again(&message);
    assert!(message.fault().is_some() || again == data, "a faultless message is its elements and nothing else");
    let reread = Message::parse(&again).expect("what a writer made can be read");
    assert_eq!((reread.fault(), reread.mti(), reread.has_second_bitmap()), (None, message.mti(), message.has_second_bitmap()));
    for element in elements() {
        assert_eq!(reread.wire(element), message.wire(element), "DE{element}");
    }
    assert_eq!(reread.card_number(), message.card_number());
    assert_eq!(reread.original_data_elements(), message.original_data_elements());
}

/// Messages of all elements, those of variable length short or long, besides the published ones that `examples/seeds.rs` adds.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let content = |element: u8, count: u8| -> Vec<u8> {
        let count_packed = count / 10 * 16 + count % 10;
        let text = vec![b'1'; usize::from(count)];
        match ELEMENTS[usize::from(element)] {
            Format::Refused => Vec::new(),
            Format::Numeric { digits } => vec![0; usize::from(digits).div_ceil(2)],
            Format::SignedNumeric { digits } => [vec![b'C'], vec![0; usize::from(digits).div_ceil(2)]].concat(),
            Format::Text { bytes } => vec![b' '; usize::from(bytes)],
            Format::Binary { bytes } => vec![0; usize::from(bytes)],
            Format::NumericLl { .. } | Format::TrackLl { .. } => {
                [vec![count_packed], vec![0x11; usize::from(count / 2)], vec![0x10; usize::from(count % 2)]].concat()
            }
            Format::TextLl { .. } => [vec![count_packed], text].concat(),
            Format::TextLll { .. } if element == 48 => [&[0, 5], &b"01019"[..]].concat(),
            Format::TextLll { .. } => [vec![0, count_packed], text].concat(),
        }
    };
    let mut seeds = Vec::new();
    for (second, count) in [(false, 1), (false, 11), (true, 1), (true, 11)] {
        let mut frame = Vec::new();
        let mut writer = Writer::begin(&mut frame, None, 200, second);
        for element in elements().filter(|&element| if second { element != 64 } else { element <= 64 }) {
            writer.wire(element, &content(element, count));
        }
        writer.finish(None);
        seeds.push(frame.split_off(2));
    }
    seeds
}
