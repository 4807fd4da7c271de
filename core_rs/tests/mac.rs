//! Keys and MAC against the protocol's vectors, the published ones, and another implementation.

use aes::Aes128;
use cmac::{Cmac, KeyInit, Mac};
use proptest::prelude::*;
use serde_json::Value;

use switch_core::mac::{KeyEncryptionKey, MacKey, MasterKey, UnwrapError};

fn unhex(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2), "{hex}");
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal")).collect()
}

fn unhex_array<const N: usize>(hex: &str) -> [u8; N] {
    unhex(hex).try_into().expect("the length asked for")
}

fn string<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} is text"))
}

#[test]
fn vector_keys() {
    let vectors: Value = serde_json::from_str(include_str!("vectors.json")).expect("the vectors are JSON");
    let master = MasterKey::new(unhex_array(string(&vectors, "tmk")));
    let (terminal_nonce, switch_nonce) =
        (unhex_array(string(&vectors, "terminal_nonce")), unhex_array(string(&vectors, "switch_nonce")));
    let terminal = b"T0000001";
    assert_eq!(master.sign_on_key_bytes(terminal), unhex_array(string(&vectors, "sign_on_key")));
    assert_eq!(master.session_mac_key_bytes(terminal, &terminal_nonce, &switch_nonce), unhex_array(string(&vectors, "mac_key")));
    assert_eq!(master.session_pin_key_bytes(terminal, &terminal_nonce, &switch_nonce), unhex_array(string(&vectors, "pin_key")));
    let message = b"proved under the ready keys as under their bytes";
    assert_eq!(master.sign_on_key(terminal).tag(message), MacKey::new(&master.sign_on_key_bytes(terminal)).tag(message));
    assert_eq!(
        master.session_mac_key(terminal, &terminal_nonce, &switch_nonce).tag(message),
        MacKey::new(&unhex_array(string(&vectors, "mac_key"))).tag(message)
    );
}

/// RFC 4493 section 4.
#[test]
fn cmac_of_the_standard() {
    let key = MacKey::new(&unhex_array("2b7e151628aed2a6abf7158809cf4f3c"));
    let message = unhex(concat!(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51",
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    ));
    for (length, tag) in [(0, "bb1d6929e9593728"), (16, "070a16b46b4d4144"), (40, "dfa66747de9ae630"), (64, "51f0bebf7e3b9d92")] {
        assert_eq!(key.tag(&message[..length]), unhex_array(tag), "{length} bytes");
    }
}

/// RFC 3394 section 4.3.
#[test]
fn key_wrap_of_the_standard() {
    let own = KeyEncryptionKey::new(&unhex_array("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"));
    let master = MasterKey::new(unhex_array("00112233445566778899aabbccddeeff"));
    let wrapped: [u8; 24] = unhex_array("64e8c3f9ce0f5ba263e9777905818a2a93c8191e7d6e8ae7");
    assert_eq!(own.wrap(&master), wrapped);
    assert_eq!(own.unwrap(&wrapped), Ok(master));
    for bit in 0..192 {
        let mut wrong = wrapped;
        wrong[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(own.unwrap(&wrong), Err(UnwrapError), "bit {bit}");
    }
}

#[test]
fn keys_do_not_show() {
    let bytes = [0x5a; 16];
    assert_eq!(format!("{:?}", MasterKey::new(bytes)), "MasterKey(..)");
    assert_eq!(format!("{:?}", MacKey::new(&bytes)), "MacKey(..)");
    assert_eq!(format!("{:?}", KeyEncryptionKey::new(&[0x5a; 32])), "KeyEncryptionKey(..)");
}

proptest! {
    #[test]
    fn cmac_as_the_reference_has_it(key in any::<[u8; 16]>(), message in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut reference = Cmac::<Aes128>::new(&key.into());
        reference.update(&message);
        let tag = MacKey::new(&key).tag(&message);
        prop_assert_eq!(&tag, &reference.finalize().into_bytes()[..8]);
    }
}
