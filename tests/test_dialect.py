"""The dialect against published messages and keys: every element, what cannot be read, frames cut anywhere."""

import json
from pathlib import Path
from typing import Any

import pytest

from switch.dialect import (
    SPECIFICATION,
    FrameBuffer,
    MacKey,
    ProtocolViolation,
    decode,
    derive_key,
    encode,
    frame,
    pin_block,
    session_keys,
    sign_on_key,
    sub_element_pairs,
    sub_elements,
    write_sub_elements,
)

VECTORS: dict[str, Any] = json.loads(Path(__file__).with_name("vectors.json").read_text())
MASTER_KEY = bytes.fromhex(VECTORS["tmk"])
TERMINAL_NONCE = bytes.fromhex(VECTORS["terminal_nonce"])
SWITCH_NONCE = bytes.fromhex(VECTORS["switch_nonce"])


def test_keys_are_those_of_the_vectors() -> None:
    assert sign_on_key(MASTER_KEY, "T0000001").hex() == VECTORS["sign_on_key"]
    mac_key, pin_key = session_keys(MASTER_KEY, "T0000001", TERMINAL_NONCE, SWITCH_NONCE)
    assert (mac_key.hex(), pin_key.hex()) == (VECTORS["mac_key"], VECTORS["pin_key"])
    assert derive_key(MASTER_KEY, b"SIGN-ON", b"T0000001").hex() == VECTORS["sign_on_key"]


def test_the_mac_is_that_of_rfc_4493() -> None:
    key = MacKey(bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c"))
    assert key.tag(b"").hex() == "bb1d6929e9593728"
    assert key.tag(bytes.fromhex("6bc1bee22e409f96e93d7e117393172a")).hex() == "070a16b46b4d4144"
    assert key.verifies(b"", bytes.fromhex("bb1d6929e9593728"))
    assert not key.verifies(b"", bytes.fromhex("bb1d6929e9593729"))


@pytest.mark.parametrize(
    ("key", "pin", "card_number", "random", "block"),
    [
        # The worked example of ANSI X9.24-3-2017's supplement, and that of the ep2 security specification 8.0.0, section 8.4.
        ("af8cb133a78f8dc2d1359f18527593fb", "1234", "4111111111111111", "2f69adde2e9e7ace", "a912150391ab65a67e52883d81ce2d15"),
        ("c1d0f8fb4958670dba40ab1f3752ef0d", "1234", "432198765432109870", "146c6601f4a8035c", "cc17f65586bfd0953010226c4fc5b3ca"),
        # A number shorter than twelve digits, and the longest PIN: by OpenSSL.
        ("00112233445566778899aabbccddeeff", "123456", "1", "ffffffffffffffff", "39b69b1b91fe05d48f7ef0d68eb2cbd6"),
        ("876444cdf3e5e7157e84ae0d0ee106f5", "123456789012", "9" * 19, "0123456789abcdef", "82076ed91c6b9cb43823b59708707b6a"),
    ],
)
def test_pin_blocks_are_the_published_ones(key: str, pin: str, card_number: str, random: str, block: str) -> None:
    assert pin_block(bytes.fromhex(key), pin, card_number, bytes.fromhex(random)) == block.upper()


def test_no_pin_has_less_than_four_digits_or_more_than_twelve() -> None:
    for pin in ("123", "1234567890123", "12a4", ""):
        with pytest.raises(AssertionError, match="digits"):
            pin_block(bytes(16), pin, "1", bytes(8))


def test_a_tag_may_come_again() -> None:
    pairs = [("50", "0000000002"), ("53", "+1"), ("53", "-62")]
    assert sub_element_pairs(write_sub_elements(pairs)) == pairs
    assert sub_elements(write_sub_elements(pairs)) == {"50": "0000000002", "53": "-62"}


@pytest.mark.parametrize("message", VECTORS["messages"], ids=lambda message: message["name"])
def test_vectors_are_written_and_read_to_the_byte(message: dict[str, Any]) -> None:
    wire = bytes.fromhex(message["message"])
    assert encode(message["fields"], MacKey(bytes.fromhex(message["key"]))) == wire
    read = decode(wire)
    mac = read.pop("128" if "128" in read else "64")
    assert read == message["fields"]
    assert bytes.fromhex(mac) == wire[-8:]


def test_every_element_of_1987_is_known_but_65() -> None:
    assert {int(element) for element in SPECIFICATION if element.isdigit()} == set(range(1, 129)) - {65}


@pytest.mark.parametrize(
    ("element", "value", "wire"),
    [
        ("22", "051", "0051"),
        ("25", "00", "00"),
        ("2", "1234567", "0712345670"),
        ("2", "12345678", "0812345678"),
        ("2", "0", "0100"),
        ("28", "D00000123", "4400000123"),
        ("97", "C0000000000000001", "430000000000000001"),
        ("35", "6230=2612", "09" + "6230d26120"),
        ("42", "M1", "4d31" + "20" * 13),
        ("44", "abc", "03616263"),
        ("48", "A" * 120, "0120" + "41" * 120),
        ("52", "0123456789ABCDEF", "0123456789abcdef"),
        ("60", "000001", "0006303030303031"),
    ],
)
def test_elements_are_encoded_as_the_dialect_says(element: str, value: str, wire: str) -> None:
    number = int(element)
    bitmap = (1 << (64 - number)) if number < 65 else (1 << 127 | 1 << (128 - number))
    message = bytes.fromhex("0200") + bitmap.to_bytes(8 if number < 65 else 16, "big") + bytes.fromhex(wire)
    assert encode({"t": "0200", element: value}) == message
    assert decode(message) == {"t": "0200", element: value.ljust(15) if element == "42" else value}


@pytest.mark.parametrize("element", [element for element in SPECIFICATION if element.isdigit() and element != "1"])
def test_each_element_alone_comes_back(element: str) -> None:
    shape = SPECIFICATION[element]
    length = shape["max_len"]
    if element in {"28", "29", "30", "31", "97"}:
        value = "C" + "1" * (2 * length - 2)
    elif shape["data_enc"] == "b":
        value = "7" * (length if shape.get("len_count") == "nibbles" else 2 * length)
    else:
        value = "x" * length
    assert decode(encode({"t": "0200", element: value})) == {"t": "0200", element: value}


@pytest.mark.parametrize(
    "wire",
    [
        "",
        "0200",
        "0200" + "4000000000000000" + "08123456",  # DE2 shorter than it says
        "0200" + "4000000000000000" + "07123456 7f",  # padded with another nibble than zero
        "0200" + "2000000000000000" + "00000a",  # a nibble that is no digit
        "0200" + "0000001000000000" + "5800000123",  # a sign that is neither C nor D
        "0200" + "0000000000800000" + "c3a9" + "20" * 6,  # not ASCII
        "0200" + "2000000000000000" + "00000000",  # something after the last element
        "0200" + "80000000000000008000000000000000" + "00" * 8,  # DE65
        "0200" + "80000000000000008000000000000000" + "80" + "00" * 7 + "00" * 8,
    ],
)
def test_what_cannot_be_read_is_refused(wire: str) -> None:
    with pytest.raises(ProtocolViolation):
        decode(bytes.fromhex(wire))


def test_sub_elements_of_de48() -> None:
    text = write_sub_elements({"01": "0011223344556677", "03": ""})
    assert text == "011600112233445566770300"
    assert sub_elements(text) == {"01": "0011223344556677", "03": ""}
    for malformed in ("0", "01", "0105abcd", "0x02ab", "01-1"):
        with pytest.raises(ProtocolViolation):
            sub_elements(malformed)


def test_frames_are_cut_however_the_bytes_arrive() -> None:
    tpdu = bytes.fromhex("6000010002")
    stream = frame(b"\x02\x00abc") + frame(b"\x08\x00", tpdu) + frame(b"\x02\x10" + b"x" * 2046)
    expected = [(b"", b"\x02\x00abc"), (tpdu, b"\x08\x00"), (b"", b"\x02\x10" + b"x" * 2046)]
    assert list(FrameBuffer().feed(stream)) == expected
    by_byte = FrameBuffer()
    assert [found for byte in stream for found in by_byte.feed(bytes([byte]))] == expected


@pytest.mark.parametrize("length", ["0000", "0801", "ffff"])
def test_impossible_frame_lengths_are_refused(length: str) -> None:
    with pytest.raises(ProtocolViolation):
        list(FrameBuffer().feed(bytes.fromhex(length)))
