//! The codec against the protocol's vectors, the standard's table of elements, and whatever bytes a peer may send.

use proptest::prelude::*;
use serde_json::Value;

use switch_core::card_number::CardNumber;
use switch_core::iso8583::frame::{self, FrameError, Split};
use switch_core::iso8583::{Message, OriginalDataElements, SubElements, Tpdu, Unreadable, Writer, card_number_ahead};
use switch_core::mac::{MacKey, MacMismatch};

/// The elements in the standard's order, written down apart from the code's table: `n`, `x` (signed), `t` (text), `b` and
/// their length; `LLn`, `LLz`, `LLt`, `LLLt` and their bound; `-` where a message may carry none.
const STANDARD: [&str; 128] = [
    "-", "LLn19", "n6", "n12", "n12", "n12", "n10", "n8", "n8", "n8", // 1-10
    "n6", "n6", "n4", "n4", "n4", "n4", "n4", "n4", "n3", "n3", // 11-20
    "n3", "n3", "n3", "n3", "n2", "n2", "n1", "x8", "x8", "x8", // 21-30
    "x8", "LLn11", "LLn11", "LLt28", "LLz37", "LLLt104", "t12", "t6", "t2", "t3", // 31-40
    "t8", "t15", "t40", "LLt25", "LLt76", "LLLt999", "LLLt999", "LLLt999", "t3", "t3", // 41-50
    "t3", "b8", "n16", "LLLt120", "LLLt999", "LLLt999", "LLLt999", "LLLt999", "LLLt999", "LLLt999", // 51-60
    "LLLt999", "LLLt999", "LLLt999", "b8", "-", "n1", "n2", "n3", "n3", "n3", // 61-70
    "n4", "n4", "n6", "n10", "n10", "n10", "n10", "n10", "n10", "n10", // 71-80
    "n10", "n12", "n12", "n12", "n12", "n16", "n16", "n16", "n16", "n42", // 81-90
    "t1", "t2", "t6", "t7", "t42", "b16", "x16", "t25", "LLn11", "LLn11", // 91-100
    "LLt17", "LLt28", "LLt28", "LLLt100", "LLLt999", "LLLt999", "LLLt999", "LLLt999", "LLLt999", "LLLt999", // 101-110
    "LLLt999", "LLLt999", "LLLt999", "LLLt999", "LLLt999", "LLLt999", "LLLt999", "LLLt999", "LLLt999", "LLLt999", // 111-120
    "LLLt999", "LLLt999", "LLLt999", "LLLt999", "LLLt999", "LLLt999", "LLLt999", "b8", // 121-128
];

fn standard(element: u8) -> (&'static str, usize) {
    let format = STANDARD[usize::from(element) - 1];
    let kind = format.trim_end_matches(|character: char| character.is_ascii_digit());
    (kind, format[kind.len()..].parse().unwrap_or(0))
}

/// A message of these elements, in ascending order, each as it is sent.
fn message_with(mti: u16, elements: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let second = elements.iter().any(|(element, _)| *element > 64);
    let mut bitmap = u128::from(second) << 127;
    let mut content = Vec::new();
    for (element, wire) in elements {
        bitmap |= 1 << (128 - element);
        content.extend_from_slice(wire);
    }
    let mut message = unhex(&format!("{mti:04}"));
    message.extend_from_slice(&bitmap.to_be_bytes()[..if second { 16 } else { 8 }]);
    message.extend_from_slice(&content);
    message
}

fn unhex(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2), "{hex}");
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal")).collect()
}

/// `length` digits that differ from place to place.
fn some_digits(length: usize) -> String {
    (0..length).map(|place| char::from(b'1' + (place % 9) as u8)).collect()
}

/// An element's content of this length, and the bytes that the protocol's section 2 makes of it.
fn encoded(element: u8, length: usize) -> (String, Vec<u8>) {
    let digits = some_digits(length);
    // DE48 must be sub-elements: one that fills it, as far as two digits of length allow.
    let text: String = if element == 48 {
        format!("7799{}", "v".repeat(99)).repeat(length / 103)
    } else {
        (0..length).map(|place| char::from(b' ' + (place % 95) as u8)).collect()
    };
    let pad = |right: bool| match (length % 2, right) {
        (0, _) => digits.clone(),
        (_, true) => format!("{digits}0"),
        (_, false) => format!("0{digits}"),
    };
    match standard(element).0 {
        "n" => (digits.clone(), unhex(&pad(false))),
        "x" => (format!("C{digits}"), [b"C", unhex(&pad(false)).as_slice()].concat()),
        "t" => (text.clone(), text.clone().into_bytes()),
        "b" => (String::new(), (0..length as u8).map(|byte| byte ^ 0xa5).collect()),
        "LLn" => (digits.clone(), [unhex(&format!("{length:02}")), unhex(&pad(true))].concat()),
        "LLz" => {
            let track = pad(true).replacen('2', "d", 1);
            (digits.clone(), [unhex(&format!("{length:02}")), unhex(&track)].concat())
        }
        "LLt" => (text.clone(), [unhex(&format!("{:02}", text.len())), text.into_bytes()].concat()),
        "LLLt" => (text.clone(), [unhex(&format!("{:04}", text.len())), text.into_bytes()].concat()),
        kind => panic!("DE{element}: {kind}"),
    }
}

/// A message of the vectors.
struct Vector {
    name: String,
    key: MacKey,
    mti: u16,
    /// Element and its digits or text, in ascending order, the MAC apart.
    fields: Vec<(u8, String)>,
    bytes: Vec<u8>,
}

fn vectors() -> Vec<Vector> {
    let vectors: Value = serde_json::from_str(include_str!("vectors.json")).expect("the vectors are JSON");
    let read = |vector: &Value| {
        let all = vector["fields"].as_object().expect("fields");
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let mut fields: Vec<(u8, String)> =
            all.iter().filter_map(|(name, value)| Some((name.parse().ok()?, text(value)))).collect();
        fields.sort();
        assert_eq!(fields.len(), all.len() - 1, "all but the MTI are elements");
        Vector {
            name: text(&vector["name"]),
            key: MacKey::new(&unhex(&text(&vector["key"])).try_into().expect("16 bytes")),
            mti: text(&all["t"]).parse().expect("an MTI"),
            fields,
            bytes: unhex(&text(&vector["message"])),
        }
    };
    vectors["messages"].as_array().expect("a list").iter().map(read).collect()
}

/// Everything that can be asked of a message; nothing of it may panic.
fn ask_everything(message: &Message<'_>) -> usize {
    let mut answers = usize::from(message.card_number().is_some()) + usize::from(message.mac().is_some());
    answers += usize::from(message.original_data_elements().is_some());
    for element in 1..=128 {
        answers += usize::from(message.has(element)) + usize::from(message.number(element).is_some());
        answers += message.text(element).map_or(0, <[u8]>::len) + message.bytes(element).map_or(0, <[u8]>::len);
        answers += message.wire(element).map_or(0, <[u8]>::len) + message.sub_elements(element).count();
    }
    for tag in 0..=99 {
        answers += message.sub_element(tag).map_or(0, <[u8]>::len);
    }
    answers + format!("{message:?}").len()
}

#[test]
fn vector_messages_are_written_byte_for_byte() {
    for Vector { name, key, mti, fields, bytes } in vectors() {
        let tpdu = Tpdu([0x60, 1, 2, 3, 4]);
        for tpdu in [None, Some(tpdu)] {
            let second = fields.iter().any(|(element, _)| *element > 64);
            let mut out = b"before".to_vec();
            let mut writer = Writer::begin(&mut out, tpdu, mti, second);
            for (element, value) in &fields {
                match standard(*element).0 {
                    "LLn" => writer.card_number(CardNumber::from_digits(value.as_bytes()).expect("a card number")),
                    "n" if value.len() <= 16 => writer.number(*element, value.parse().expect("a number")),
                    "n" => writer.digits(*element, value.as_bytes()),
                    _ => writer.text(*element, value.as_bytes()),
                }
            }
            writer.finish(Some(&key));
            let head = tpdu.map_or(Vec::new(), |tpdu| tpdu.0.to_vec());
            let length = ((bytes.len() + head.len()) as u16).to_be_bytes();
            assert_eq!(out, [b"before", length.as_slice(), &head, &bytes].concat(), "{name}");
        }
    }
}

#[test]
fn vector_messages_are_read() {
    for Vector { name, key, mti, fields, bytes } in vectors() {
        let message = Message::parse(&bytes).expect("readable");
        assert_eq!(message.fault(), None, "{name}");
        assert_eq!(message.mti(), mti, "{name}");
        for (element, value) in &fields {
            match standard(*element) {
                ("LLn", _) => {
                    assert_eq!(message.card_number().map(|card| card.to_string()).as_ref(), Some(value), "{name}");
                    assert_eq!(message.number(2), value.parse().ok(), "{name}");
                }
                ("n", 42) => assert_eq!(
                    message.original_data_elements(),
                    Some(OriginalDataElements { mti: 200, trace: 2, local_date: 1122, local_time: 120_501 }),
                    "{name}"
                ),
                ("n", _) => assert_eq!(message.number(*element), value.parse().ok(), "{name} DE{element}"),
                _ => assert_eq!(message.text(*element), Some(value.as_bytes()), "{name} DE{element}"),
            }
        }
        let mac = if message.has_second_bitmap() { 128 } else { 64 };
        for element in 2..=128 {
            let expected = element == mac || fields.iter().any(|(field, _)| *field == element);
            assert_eq!(message.has(element), expected, "{name} DE{element}");
        }
        let (covered, tag) = message.mac().expect("a MAC");
        assert_eq!(covered, &bytes[..bytes.len() - 8], "{name}");
        assert_eq!(key.verify(covered, &tag), Ok(()), "{name}");
        for bit in 0..64 {
            let mut wrong = tag;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.verify(covered, &wrong), Err(MacMismatch), "{name} bit {bit}");
        }
    }
}

#[test]
fn sub_elements_of_the_vectors() {
    let reply = vectors().into_iter().find(|vector| vector.name == "sign-on reply").expect("it is there").bytes;
    let message = Message::parse(&reply).expect("readable");
    assert_eq!(message.sub_element(2), Some(b"8899AABBCCDDEEFF".as_slice()));
    assert_eq!(message.sub_element(3), Some(b"20261122".as_slice()));
    assert_eq!(message.sub_element(1), None);
    let tags: Vec<u8> = message.sub_elements(48).map(|element| element.expect("well-formed").tag).collect();
    assert_eq!(tags, [2, 3]);
    assert_eq!(message.sub_elements(60).count(), 0, "an absent element has none");
}

#[test]
fn malformed_sub_elements() {
    for (text, good) in
        [("", 0), ("0103abc", 1), ("0100", 1), ("0103abcx", 1), ("0104abc", 0), ("0x03abc", 0), ("01 3abc", 0), ("010", 0)]
    {
        let mut elements = SubElements::new(text.as_bytes());
        let well_formed = elements.by_ref().take_while(Result::is_ok).count();
        assert_eq!(well_formed, good, "{text:?}");
        assert_eq!(elements.next(), None, "after the first malformed one there are no more: {text:?}");
        let wire = [unhex(&format!("{:04}", text.len())), text.as_bytes().to_vec()].concat();
        let bytes = message_with(800, &[(48, wire), (70, vec![0, 1])]);
        let message = Message::parse(&bytes).expect("readable");
        let is_whole = SubElements::new(text.as_bytes()).all(|element| element.is_ok());
        assert_eq!(message.fault().is_none(), is_whole, "{text:?}");
        assert_eq!(message.has(48), is_whole, "{text:?}");
        assert_eq!(message.number(70), Some(1), "what follows stays readable: {text:?}");
    }
}

#[test]
fn every_element_alone_goes_both_ways_and_stops_at_its_bound() {
    for element in 2..=128_u8 {
        let (kind, bound) = standard(element);
        if kind == "-" {
            continue;
        }
        let variable = kind.starts_with("LL");
        let lengths = if variable { vec![1, 2, bound - 1, bound] } else { vec![bound] };
        for length in lengths {
            let (content, wire) = encoded(element, length);
            let bytes = message_with(200, &[(element, wire.clone())]);
            let message = Message::parse(&bytes).expect("readable");
            let at = format!("DE{element} of {length}");
            if element == 64 {
                assert_eq!(message.mac().map(|(covered, _)| covered.len()), Some(10), "{at}");
            }
            assert_eq!(message.fault(), None, "{at}");
            assert_eq!(message.wire(element), Some(wire.as_slice()), "{at}");
            let number = content.parse().ok().filter(|_| kind.ends_with('n') && bound <= 19);
            assert_eq!(message.number(element), number, "{at}");
            assert_eq!(message.text(element), Some(content.as_bytes()).filter(|_| kind.ends_with('t')), "{at}");
            assert_eq!(message.bytes(element), Some(wire.as_slice()).filter(|_| kind == "b"), "{at}");
            // Written again, each by its kind and as it was sent.
            for by_wire in [true, false] {
                let mut out = Vec::new();
                let mut writer = Writer::begin(&mut out, None, 200, element > 64);
                match (by_wire, kind) {
                    (true, _) | (_, "x" | "LLz") => writer.echo(&message, element),
                    (_, "n") if bound <= 16 => writer.number(element, content.parse().expect("a number")),
                    (_, "n") => writer.digits(element, content.as_bytes()),
                    (_, "LLn") => writer.number(element, content.parse().expect("a number")),
                    (_, "b") => writer.bytes(element, &wire),
                    _ => writer.text(element, content.as_bytes()),
                }
                writer.finish(None);
                assert_eq!(out[2..], bytes, "{at}");
                assert_eq!(usize::from(u16::from_be_bytes([out[0], out[1]])), bytes.len(), "{at}");
            }
            // Cut anywhere it is a fault, and whatever trails is one.
            for cut in if element > 64 { 18 } else { 10 }..bytes.len() {
                let message = Message::parse(&bytes[..cut]).expect("its bitmaps are there");
                assert_eq!(
                    message.fault().map(|fault| (fault.element, fault.reason)),
                    Some((element, "cut short")),
                    "{at} cut at {cut}"
                );
                assert!(!message.has(element), "{at} cut at {cut}");
            }
            let trailed = [bytes.as_slice(), b"\0"].concat();
            let message = Message::parse(&trailed).expect("readable");
            assert_eq!(message.fault().map(|fault| fault.element), Some(0), "{at}");
            assert_eq!(message.wire(element), Some(wire.as_slice()), "{at}");
        }
        if variable {
            let (_, mut wire) = encoded(element, bound);
            let prefix = if kind == "LLLt" { 2 } else { 1 };
            let over = unhex(&format!("{:0width$}", bound + 1, width = prefix * 2));
            // One more than the bound, and lengths that are no BCD.
            for length in [over, vec![0x0a; prefix], vec![0xa0; prefix]] {
                wire[..prefix].copy_from_slice(&length);
                wire.extend_from_slice(&[b' '; 200]);
                let bytes = message_with(200, &[(element, wire.clone())]);
                let message = Message::parse(&bytes).expect("readable");
                let fault = message.fault().map(|fault| (fault.element, fault.reason));
                assert_eq!(fault, Some((element, "length")), "DE{element} with length {length:02x?}");
            }
        }
    }
}

#[test]
fn faults() {
    let trace = || (11_u8, unhex("000123"));
    let terminal = || (41_u8, b"T0000001".to_vec());
    let in_place = |element: u8, hex: &str| {
        let mut elements = vec![trace(), terminal(), (element, unhex(hex))];
        elements.sort();
        message_with(200, &elements)
    };
    // Content that is wrong, where its extent is known: what follows stays readable.
    for (element, hex, reason) in [
        (2, "0412a4", "digit"),
        (2, "03123a", "padding"),
        (2, "031231", "padding"),
        (3, "00a000", "digit"),
        (22, "1051", "padding"),
        (24, "0f03", "digit"),
        (28, "5812345678", "sign"),
        (28, "431234567f", "digit"),
        (32, "031231", "padding"),
        (35, "031e10", "digit"),
        (35, "031231", "padding"),
        (37, "30303030303030303030301f", "character"),
        (38, "30303030307f", "character"),
        (39, "30ff", "character"),
        (48, "000530313032c3", "character"),
    ] {
        let bytes = in_place(element, hex);
        let message = Message::parse(&bytes).expect("readable");
        assert_eq!(message.fault().map(|fault| (fault.element, fault.reason)), Some((element, reason)), "DE{element} {hex}");
        assert!(!message.has(element) && message.wire(element).is_none(), "DE{element} {hex}");
        assert_eq!(message.number(11), Some(123), "DE{element} {hex}");
        assert_eq!(message.text(41), Some(b"T0000001".as_slice()), "DE{element} {hex}");
    }
    // The first fault is the one that counts.
    let bytes = message_with(200, &[(3, unhex("00000f")), (4, unhex("00000000000f")), trace()]);
    let message = Message::parse(&bytes).expect("readable");
    assert_eq!(message.fault().map(|fault| fault.element), Some(3));
    assert_eq!((message.number(3), message.number(4), message.number(11)), (None, None, Some(123)));
    // A length that is wrong: nothing can be read from there on.
    for (element, hex) in [(2, "00"), (2, "2012345678901234567890"), (2, "1a12"), (32, "12123456789012"), (48, "100030")] {
        let bytes = in_place(element, hex);
        let message = Message::parse(&bytes).expect("readable");
        assert_eq!(message.fault().map(|fault| (fault.element, fault.reason)), Some((element, "length")), "DE{element} {hex}");
        assert_eq!(message.has(11), element > 11, "DE{element} {hex}");
        assert_eq!(message.has(41), element > 41, "DE{element} {hex}");
    }
    // DE65 stops the reading; what stands before it is there.
    let bytes = message_with(200, &[trace(), terminal(), (65, vec![0; 8]), (70, vec![0, 1])]);
    let message = Message::parse(&bytes).expect("readable");
    assert_eq!(message.fault().map(|fault| (fault.element, fault.reason)), Some((65, "not allowed")));
    assert!(message.has(11) && message.has(41) && !message.has(65) && !message.has(70));
    // DE64 has no place beside a second bitmap, and the MAC is then DE128 alone.
    for (then, mac) in [(70, false), (65, false), (128, true)] {
        let bytes = message_with(200, &[trace(), (64, vec![1; 8]), (then, if then == 128 { vec![2; 8] } else { vec![0, 1] })]);
        let message = Message::parse(&bytes).expect("readable");
        assert_eq!(message.fault().map(|fault| fault.element), Some(64));
        assert!(!message.has(64));
        assert_eq!(message.mac().map(|(_, tag)| tag), Some([2; 8]).filter(|_| mac));
    }
    // A second bitmap without a bit is no fault.
    let bytes = unhex("08008000000000000000 0000000000000000".replace(' ', "").as_str());
    let message = Message::parse(&bytes).expect("readable");
    assert_eq!((message.fault(), message.has_second_bitmap(), message.mac()), (None, true, None));
}

#[test]
fn unreadable_messages() {
    for (hex, expected) in [
        ("", Unreadable::Mti),
        ("02", Unreadable::Mti),
        ("0a00", Unreadable::Mti),
        ("02f00000000000000000", Unreadable::Mti),
        ("0200", Unreadable::Bitmap),
        ("020070380000000000", Unreadable::Bitmap),
        ("02008000000000000000", Unreadable::Bitmap),
        ("0200800000000000000000000000000000", Unreadable::Bitmap),
    ] {
        assert_eq!(Message::parse(&unhex(hex)).err(), Some(expected), "{hex}");
    }
    assert_eq!(Message::parse(&vec![0; 70_000]).err(), Some(Unreadable::Length));
    assert!(Message::parse(&unhex("02000000000000000000")).expect("no element is readable").fault().is_none());
}

#[test]
fn vectors_cut_at_every_byte() {
    for Vector { name, bytes, .. } in vectors() {
        let whole = Message::parse(&bytes).expect("readable");
        let header = if whole.has_second_bitmap() { 18 } else { 10 };
        for cut in 0..bytes.len() {
            match Message::parse(&bytes[..cut]) {
                Err(Unreadable::Mti) => assert!(cut < 2, "{name} at {cut}"),
                Err(_) => assert!((2..header).contains(&cut), "{name} at {cut}"),
                Ok(message) => {
                    assert!(cut >= header, "{name} at {cut}");
                    let fault = message.fault().expect("a message that is cut has a fault").element;
                    for element in 2..=128 {
                        let expected = whole.wire(element).filter(|_| element < fault);
                        assert_eq!(message.wire(element), expected, "{name} at {cut}: DE{element}");
                    }
                }
            }
        }
    }
}

#[test]
fn frames_fed_whole_byte_by_byte_and_with_more_behind() {
    for Vector { name, bytes: message, .. } in vectors() {
        for tpdu in [None, Some(Tpdu([0x60, 0x12, 0x34, 0xab, 0xcd]))] {
            let body = [tpdu.map_or(Vec::new(), |tpdu| tpdu.0.to_vec()), message.clone()].concat();
            let frame = [(body.len() as u16).to_be_bytes().as_slice(), &body].concat();
            for cut in 0..frame.len() {
                assert_eq!(frame::split(&frame[..cut]), Split::Incomplete, "{name} at {cut}");
            }
            let expected = Split::Frame { tpdu, message: &message, consumed: frame.len() };
            assert_eq!(frame::split(&frame), expected, "{name}");
            for trailing in [b"\0\0".as_slice(), b"\xff\xff\xff", &frame] {
                assert_eq!(frame::split(&[frame.as_slice(), trailing].concat()), expected, "{name}");
            }
        }
    }
}

#[test]
fn frames_refused() {
    for (hex, error) in [
        ("0000", FrameError::LengthZero),
        ("000008", FrameError::LengthZero),
        ("0801", FrameError::LengthOver),
        ("ffff", FrameError::LengthOver),
        ("000160", FrameError::TpduCut),
        ("000460010203", FrameError::TpduCut),
    ] {
        assert_eq!(frame::split(&unhex(hex)), Split::Refused(error), "{hex}");
    }
    let longest = [[8, 0].as_slice(), &[2; 2_048]].concat();
    assert_eq!(frame::split(&longest), Split::Frame { tpdu: None, message: &longest[2..], consumed: 2_050 });
    // A TPDU with nothing behind it is a frame; its message is what cannot be read.
    let split = frame::split(&[0, 5, 0x60, 0, 1, 0, 2]);
    assert_eq!(split, Split::Frame { tpdu: Some(Tpdu([0x60, 0, 1, 0, 2])), message: &[], consumed: 7 });
}

#[test]
fn tpdu_of_a_reply() {
    assert_eq!(Tpdu([0x60, 1, 2, 3, 4]).reply(), Tpdu([0x60, 3, 4, 1, 2]));
}

#[test]
#[should_panic(expected = "ascending order")]
fn writer_refuses_elements_out_of_order() {
    let mut out = Vec::new();
    let mut writer = Writer::begin(&mut out, None, 210, false);
    writer.number(4, 1);
    writer.number(3, 1);
}

#[test]
#[should_panic(expected = "needs a second bitmap")]
fn writer_refuses_a_high_element_without_its_bitmap() {
    Writer::begin(&mut Vec::new(), None, 210, false).number(70, 1);
}

#[test]
#[should_panic(expected = "DE3 has 6 digits")]
fn writer_refuses_a_number_that_is_too_long() {
    Writer::begin(&mut Vec::new(), None, 210, false).number(3, 1_000_000);
}

#[test]
#[should_panic(expected = "up to 2048 bytes")]
fn writer_refuses_a_frame_that_is_too_long() {
    let mut out = Vec::new();
    let mut writer = Writer::begin(&mut out, None, 210, false);
    for element in 61..=63 {
        writer.text(element, &[b'x'; 999]);
    }
    writer.finish(None);
}

#[test]
fn writer_pads_text() {
    let mut out = Vec::new();
    let mut writer = Writer::begin(&mut out, None, 210, false);
    writer.text(39, b"0");
    writer.text(42, b"");
    writer.text(44, b"");
    writer.finish(None);
    let message = Message::parse(&out[2..]).expect("readable");
    assert_eq!(message.fault(), None);
    assert_eq!(message.text(39), Some(b"0 ".as_slice()));
    assert_eq!(message.text(42), Some([b' '; 15].as_slice()));
    assert_eq!(message.text(44), Some(b"".as_slice()));
}

#[test]
fn a_message_does_not_show_its_content() {
    let bytes = message_with(200, &[(2, unhex("166230000000000017"))]);
    let shown = format!("{:?}", Message::parse(&bytes).expect("readable"));
    assert_eq!(shown, "Message(0200 2)");
}

#[test]
fn a_card_number_is_known_ahead_of_reading_the_message() {
    for digits in 1..=19 {
        for elements in [&[4][..], &[4, 90]] {
            let mut frame = Vec::new();
            let mut writer = Writer::begin(&mut frame, None, 420, elements.contains(&90));
            let number = CardNumber::from_digits(some_digits(digits).as_bytes()).unwrap();
            writer.card_number(number);
            writer.number(4, 1);
            writer.finish(None);
            assert_eq!(card_number_ahead(&frame[2..]), Some(number), "{digits} digits, {elements:?}");
        }
    }
    // Without DE2, the first element is another.
    assert_eq!(card_number_ahead(&message_with(200, &[(3, vec![0x16, 0x62, 0x30])])), None);
}

/// Whatever the bytes, a look ahead gives the card number that reading gives, if that gives one; of what cannot be read it may give any.
fn look_ahead(bytes: &[u8]) {
    let ahead = card_number_ahead(bytes);
    if let Some(number) = Message::parse(bytes).ok().and_then(|message| message.card_number()) {
        assert_eq!(ahead, Some(number));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(message) = Message::parse(&bytes) {
            ask_everything(&message);
        }
        look_ahead(&bytes);
        assert!(frame::messages(&bytes).map(<[u8]>::len).sum::<usize>() <= bytes.len());
        let _ = frame::split(&bytes);
    }

    /// Most random bytes fail early; these are vectors with a few bytes changed, so that reading goes deep.
    #[test]
    fn vectors_with_damage_are_read_without_panic(
        which in 0_usize..5,
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut bytes = vectors().swap_remove(which).bytes;
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        look_ahead(&bytes);
        if let Ok(message) = Message::parse(&bytes) {
            ask_everything(&message);
            // What is readable is well-formed, so it can be written again, and is then read as the same.
            let mut out = Vec::new();
            let mut writer = Writer::begin(&mut out, None, message.mti(), message.has_second_bitmap());
            for element in 2..=128 {
                writer.echo(&message, element);
            }
            writer.finish(None);
            let again = Message::parse(&out[2..]).expect("what was written is readable");
            prop_assert_eq!(again.fault(), None);
            for element in 1..=128 {
                prop_assert_eq!(again.wire(element).filter(|_| element > 1), message.wire(element).filter(|_| element > 1));
            }
        }
    }

    #[test]
    fn what_trails_changes_nothing_that_was_read(which in 0_usize..5, trailing in proptest::collection::vec(any::<u8>(), 1..50)) {
        let bytes = vectors().swap_remove(which).bytes;
        let whole = Message::parse(&bytes).expect("readable");
        let longer = [bytes.as_slice(), &trailing].concat();
        let trailed = Message::parse(&longer).expect("readable");
        prop_assert_eq!(trailed.fault().map(|fault| fault.element), Some(0));
        prop_assert_eq!(trailed.mac(), whole.mac());
        for element in 1..=128 {
            prop_assert_eq!(trailed.wire(element), whole.wire(element));
        }
        let framed = [(bytes.len() as u16).to_be_bytes().as_slice(), &bytes].concat();
        let followed = [framed.as_slice(), &trailing].concat();
        prop_assert_eq!(frame::split(&followed), frame::split(&framed));
    }
}
