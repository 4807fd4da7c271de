//! PIN blocks and what is kept of a PIN, against a published block, against blocks and values that another implementation of AES
//! and CMAC gave (OpenSSL through Python's `cryptography`), and against whatever bytes may come.

use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use aes::{Aes128Enc, Aes256};
use cmac::{Cmac, Mac};
use proptest::prelude::*;

use switch_core::card_number::CardNumber;
use switch_core::mac::{KeyEncryptionKey, MasterKey};
use switch_core::pin::{Pin, PinKey, PinVerification, PinVerificationKey};
use switch_core::session::{KeyRing, KeySlot, Nonces, Session};

fn unhex<const N: usize>(hex: &str) -> [u8; N] {
    assert_eq!(hex.len(), 2 * N, "{hex}");
    std::array::from_fn(|index| u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).expect("hexadecimal"))
}

fn card(digits: &str) -> CardNumber {
    CardNumber::from_digits(digits.as_bytes()).expect("a card number")
}

fn pin(digits: &str) -> Pin {
    Pin::from_digits(digits.as_bytes()).expect("a PIN")
}

#[test]
fn blocks_are_those_of_the_standard() {
    // Key | PIN | card number | random part | block. The first is published: ep2 security specification 8.0.0, section 8.4.
    const TABLE: &str = "
        c1d0f8fb4958670dba40ab1f3752ef0d | 1234         | 432198765432109870  | 146c6601f4a8035c | cc17f65586bfd0953010226c4fc5b3ca
        00112233445566778899aabbccddeeff | 1234         | 1234567890123456789 | ffffffffffffffff | 28b41fddd29b743e93124bd8e32d921e
        00112233445566778899aabbccddeeff | 123456       | 1                   | ffffffffffffffff | 39b69b1b91fe05d48f7ef0d68eb2cbd6
        876444cdf3e5e7157e84ae0d0ee106f5 | 1234         | 6230000000000017    | 0123456789abcdef | f2119ea270e04e8b0a257b2b68d0a813
        876444cdf3e5e7157e84ae0d0ee106f5 | 000000       | 1234567             | 0123456789abcdef | 48afd690b63cbc9ddd707954f28955e9
        876444cdf3e5e7157e84ae0d0ee106f5 | 123456789012 | 9999999999999999999 | 0123456789abcdef | 82076ed91c6b9cb43823b59708707b6a
        876444cdf3e5e7157e84ae0d0ee106f5 | 98765        | 000000000012        | 0123456789abcdef | 828da858d52b8e0c7f4512d4c0be3168
        876444cdf3e5e7157e84ae0d0ee106f5 | 4321         | 0                   | 0123456789abcdef | 208dcd3031c5c44cec1e0daf6bc9aac3
    ";
    let mut rows = 0;
    for row in TABLE.lines().map(str::trim).filter(|row| !row.is_empty()) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let (key, number, block) = (PinKey::new(&unhex(cells[0])), card(cells[2]), unhex(cells[4]));
        assert_eq!(key.encrypt(&pin(cells[1]), number, unhex(cells[3])), block, "{row}");
        assert_eq!(key.decrypt(&block, number), Some(pin(cells[1])), "{row}");
        // Another card, another key, another bit: no PIN, or another one, but never this one.
        assert_eq!(key.decrypt(&block, card("55")), None, "{row}");
        assert_eq!(PinKey::new(&[7; 16]).decrypt(&block, number), None, "{row}");
        for bit in 0..128 {
            let mut wrong: [u8; 16] = block;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(key.decrypt(&wrong, number), Some(pin(cells[1])), "{row} bit {bit}");
        }
        rows += 1;
    }
    assert_eq!(rows, 8);
}

#[test]
fn a_field_that_is_none_is_no_pin() {
    // PIN field | the PIN in it.
    const TABLE: [(&str, Option<&str>); 14] = [
        ("441234aaaaaaaaaa0123456789abcdef", Some("1234")),
        ("4c123456789012aa0123456789abcdef", Some("123456789012")),
        ("341234aaaaaaaaaa0123456789abcdef", None),
        ("541234aaaaaaaaaa0123456789abcdef", None),
        ("43123aaaaaaaaaaa0123456789abcdef", None),
        ("4d1234567890123a0123456789abcdef", None),
        ("4e123456789012340123456789abcdef", None),
        ("4f123456789012340123456789abcdef", None),
        ("40aaaaaaaaaaaaaa0123456789abcdef", None),
        ("44123aaaaaaaaaaa0123456789abcdef", None),
        ("4412f4aaaaaaaaaa0123456789abcdef", None),
        ("4412345aaaaaaaaa0123456789abcdef", None),
        ("441234aaaaaaaaab0123456789abcdef", None),
        ("441234ffffffffff0123456789abcdef", None),
    ];
    let bytes = unhex("876444cdf3e5e7157e84ae0d0ee106f5");
    let cipher = Aes128Enc::new(&Array::from(bytes));
    for (field, expected) in TABLE {
        // The block of any field, by the standard's two steps; the card field of 6230000000000017 in full.
        let mut block = Array::from(unhex::<16>(field));
        cipher.encrypt_block(&mut block);
        block.iter_mut().zip(unhex::<16>("46230000000000017000000000000000")).for_each(|(byte, mask)| *byte ^= mask);
        cipher.encrypt_block(&mut block);
        assert_eq!(PinKey::new(&bytes).decrypt(&block.0, card("6230000000000017")), expected.map(pin), "{field}");
    }
}

#[test]
fn a_pin_is_four_to_twelve_digits() {
    for text in ["", "123", "1234567890123", "12a4", "12 4", " 1234", "+1234", "12\u{664}4", "123\0"] {
        assert_eq!(Pin::from_digits(text.as_bytes()), None, "{text:?}");
    }
    assert!(pin("1234") == pin("1234"));
    assert!(pin("1234") != pin("1235") && pin("1234") != pin("12340") && pin("0000") != pin("00000"));
}

#[test]
fn what_is_kept_is_keyed_and_the_cards_own() {
    let own = KeyEncryptionKey::new(&std::array::from_fn(|index| index as u8));
    let bytes = own.pin_verification_key_bytes();
    assert_eq!(bytes, unhex("38970761b1982247b42afc1ed9ab8c7d"));
    let key = PinVerificationKey::new(&bytes);
    for (number, digits, value) in [
        ("6230000000000017", "1234", "f9b3a0b6ae1c70e34a3d2d886f6874c8"),
        ("12", "123456789012", "0923d1926246246c286b7e9c3e14deb0"),
        ("0012", "123456789012", "1cbedad4cc25138da087c2947f3eabe4"),
    ] {
        let kept = PinVerification(unhex(value));
        assert_eq!(key.value(card(number), &pin(digits)), kept, "{number}");
        assert!(key.is_right(card(number), &pin(digits), kept));
        for (other, wrong) in [(number, "1235"), (number, "12340"), ("13", digits)] {
            assert!(!key.is_right(card(other), &pin(wrong), kept), "{other} {wrong}");
        }
    }
    // Another switch's key keeps it otherwise.
    assert_ne!(KeyEncryptionKey::new(&[0; 32]).pin_verification_key_bytes(), bytes);
}

#[test]
fn pins_and_their_keys_do_not_show() {
    assert_eq!(format!("{:?}", pin("123456")), "Pin(..)");
    assert_eq!(format!("{:?}", PinKey::new(&[0x5a; 16])), "PinKey(..)");
    assert_eq!(format!("{:?}", PinVerificationKey::new(&[0x5a; 16])), "PinVerificationKey(..)");
    assert_eq!(format!("{:?}", PinVerification([0x5a; 16])), "PinVerification(..)");
}

#[test]
fn a_pin_key_is_the_sessions_whose_key_proved_the_message() {
    let mut keys = KeyRing::new(KeyEncryptionKey::new(&[7; 32]));
    let master = MasterKey::new(unhex("2b7e151628aed2a6abf7158809cf4f3c"));
    let id = b"T0000001";
    let nonces = Nonces { terminal: unhex("0011223344556677"), switch: unhex("8899aabbccddeeff") };
    let later = Nonces { terminal: [1; 8], switch: [2; 8] };
    let mut session = Session::default();
    keys.refresh(0, id, &keys.wrap(&master), session);
    let block = PinKey::new(&unhex("876444cdf3e5e7157e84ae0d0ee106f5")).encrypt(&pin("1234"), card("12"), [9; 8]);
    let read = |keys: &KeyRing, session: Session, slot: KeySlot| {
        keys.pin_key(0, id, session, slot).and_then(|key| key.decrypt(&block, card("12")))
    };
    assert_eq!(read(&keys, session, KeySlot::Current), None);
    session.sign_on(nonces);
    assert_eq!(read(&keys, session, KeySlot::Current), Some(pin("1234")));
    assert!(keys.pin_key(0, id, session, KeySlot::Previous).is_none() && keys.pin_key(0, id, session, KeySlot::SignOn).is_none());
    session.sign_on(later);
    assert_eq!(read(&keys, session, KeySlot::Previous), Some(pin("1234")));
    assert_eq!(read(&keys, session, KeySlot::Current), None);
}

proptest! {
    #[test]
    fn whatever_comes_is_a_pin_or_none(key in any::<[u8; 16]>(), block in any::<[u8; 16]>(), number in "[0-9]{1,19}") {
        // One block in 2^24 is a PIN of 12 digits by chance, so no more is asked than that it is read.
        let key = PinKey::new(&key);
        prop_assert_eq!(key.decrypt(&block, card(&number)), key.decrypt(&block, card(&number)));
    }

    #[test]
    fn a_block_gives_back_its_pin(
        key in any::<[u8; 16]>(), digits in "[0-9]{4,12}", number in "[0-9]{1,19}", random in any::<[u8; 8]>()
    ) {
        let key = PinKey::new(&key);
        prop_assert_eq!(key.decrypt(&key.encrypt(&pin(&digits), card(&number), random), card(&number)), Some(pin(&digits)));
    }

    #[test]
    fn the_verification_key_is_derived_as_the_reference_has_it(own in any::<[u8; 32]>()) {
        let mut reference = <Cmac<Aes256> as KeyInit>::new(&own.into());
        reference.update(b"\0\0\0\x01PIN-VERIFY\0\0\0\0\x80");
        let derived = KeyEncryptionKey::new(&own).pin_verification_key_bytes();
        prop_assert_eq!(&derived[..], &reference.finalize().into_bytes()[..]);
    }
}
