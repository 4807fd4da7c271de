//! Card numbers: every form they are read from and written to, and their order.

use proptest::prelude::*;

use switch_core::card_number::CardNumber;

fn unhex(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2), "{hex}");
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal")).collect()
}

#[test]
fn card_numbers_of_every_length() {
    // The packings are dense: the first of a length follows the last of the length before.
    let mut next = 0;
    for length in 1..=19 {
        for digit in ["0", "9"] {
            let digits = digit.repeat(length);
            let card = CardNumber::from_digits(digits.as_bytes()).expect("a card number");
            assert_eq!(card.to_string(), digits);
            assert_eq!(CardNumber::from_packed(card.packed()), Some(card));
            if digit == "0" {
                assert_eq!(card.packed(), next, "{digits}");
            } else {
                next = card.packed() + 1;
            }
        }
    }
    assert_eq!(CardNumber::from_packed(next), None);
    assert_eq!(CardNumber::from_packed(u64::MAX), None);
    for wrong in [b"".as_slice(), b"12 ", b"-1", b"1a", b"12345678901234567890"] {
        assert_eq!(CardNumber::from_digits(wrong), None);
    }
    for (hex, count) in [
        ("", 0),
        ("12", 1),
        ("1234", 2),
        ("12", 3),
        ("1a", 2),
        ("a0", 1),
        ("12345678901234567890", 20),
        ("99999999999999999999", 19),
    ] {
        assert_eq!(CardNumber::from_bcd(&unhex(hex), count), None, "{hex} {count}");
    }
}

proptest! {
    #[test]
    fn card_numbers_go_every_way(digits in "[0-9]{1,19}", other in "[0-9]{1,19}") {
        let card = CardNumber::from_digits(digits.as_bytes()).expect("a card number");
        let mut wire = Vec::new();
        card.write_bcd(&mut wire);
        let expected = if digits.len() % 2 == 1 { format!("{digits}0") } else { digits.clone() };
        prop_assert_eq!(&wire, &unhex(&format!("{:02}{expected}", digits.len())));
        prop_assert_eq!(CardNumber::from_bcd(&wire[1..], digits.len()), Some(card));
        prop_assert_eq!(CardNumber::from_packed(card.packed()), Some(card));
        let written = card.digits();
        prop_assert_eq!(written.as_str(), &digits);
        let another = CardNumber::from_digits(other.as_bytes()).expect("a card number");
        prop_assert_eq!(card.cmp(&another), (digits.len(), &digits).cmp(&(other.len(), &other)));
    }
}
