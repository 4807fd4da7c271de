"""The terminals' dialect of ISO 8583:1987 (binary), written without a line of the switch's own codec: messages, keys, frames.

The reference terminal (`switch.terminal_protocol`) speaks it, and tests that make single messages use it directly. Messages are encoded and
decoded by pyiso8583, keys and MACs come from `cryptography`.

What always holds:

- Nothing is imported from the switch, so an error in the switch's codec cannot be hidden by the same error here.
- `decode` gives back what `encode` was given, fixed text padded and hex in capitals; bytes that cannot be read raise
  `ProtocolViolation`.

How it works: `SPECIFICATION` is the table of elements in pyiso8583's terms; `encode` and `decode` add what that library does not know
(signed amounts, DE35's separator, digits alone in numeric elements, the MAC). `frame` and `FrameBuffer` are the transport's framing. No
I/O, no clock, no randomness.
"""

import hmac
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import iso8583
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from cryptography.hazmat.primitives.cmac import CMAC

FRAME_BYTES_MAX = 2048
"""The longest frame, length prefix excluded; a longer one closes the connection."""

MAC_BYTES = 8

CURRENCY = "156"
"""ISO 4217 numeric code of the yuan."""

RESPONSES: Mapping[str, str] = {
    "00": "approved",
    "12": "not possible, or already undone",
    "13": "amount outside the limits",
    "14": "no such card",
    "25": "original not found",
    "30": "message malformed",
    "41": "card lost",
    "51": "balance too low",
    "54": "card expired",
    "55": "PIN wrong",
    "57": "not allowed for this card",
    "58": "not allowed for this terminal",
    "61": "amount limit reached",
    "62": "card frozen or blacklisted",
    "63": "MAC wrong, sign on again",
    "65": "count limit reached",
    "75": "PIN tries used up",
    "78": "card not active or cancelled",
    "91": "try again",
    "94": "identity used for something else",
    "95": "totals differ",
    "96": "malfunction",
}
"""Response codes (DE39) in words."""


class ProtocolViolation(Exception):
    """What arrived is not what a switch may send: unreadable, not authentic, or not an answer to what was asked."""


# --- messages ---------------------------------------------------------------------------------------------------------------------


def _elements(*ranges: int | tuple[int, int]) -> Iterator[str]:
    for entry in ranges:
        first, last = entry if isinstance(entry, tuple) else (entry, entry)
        yield from (str(element) for element in range(first, last + 1))


_NUMERIC_DIGITS: dict[int, tuple[int | tuple[int, int], ...]] = {
    1: (27, 66),
    2: (25, 26, 67),
    3: ((19, 24), (68, 70)),
    4: (13, 14, 15, 16, 17, 18, 71, 72),
    6: (3, 11, 12, 73),
    8: (8, 9, 10),
    10: (7, (74, 81)),
    12: (4, 5, 6, (82, 85)),
    16: (53, (86, 89)),
    42: (90,),
}
_SIGNED_DIGITS: dict[int, tuple[int | tuple[int, int], ...]] = {8: ((28, 31),), 16: (97,)}
_NUMERIC_VARIABLE: dict[int, tuple[int | tuple[int, int], ...]] = {19: (2,), 11: (32, 33, 99, 100), 37: (35,)}
_TEXT_BYTES: dict[int, tuple[int | tuple[int, int], ...]] = {
    1: (91,),
    2: (39, 92),
    3: (40, (49, 51)),
    6: (38, 93),
    7: (94,),
    8: (41,),
    12: (37,),
    15: (42,),
    25: (98,),
    40: (43,),
    42: (95,),
}
_TEXT_LLVAR: dict[int, tuple[int | tuple[int, int], ...]] = {28: (34, 102, 103), 25: (44,), 76: (45,), 17: (101,)}
_TEXT_LLLVAR: dict[int, tuple[int | tuple[int, int], ...]] = {
    104: (36,),
    100: (104,),
    120: (54,),
    999: (46, 47, 48, (55, 63), (105, 127)),
}
_BYTES: dict[int, tuple[int | tuple[int, int], ...]] = {8: (52, 64, 128), 16: (96,)}


def _specification() -> dict[str, dict[str, Any]]:
    spec: dict[str, dict[str, Any]] = {
        "h": {"data_enc": "b", "len_enc": "b", "len_type": 0, "max_len": 0},
        "t": {"data_enc": "b", "len_enc": "b", "len_type": 0, "max_len": 2},
        "p": {"data_enc": "b", "len_enc": "b", "len_type": 0, "max_len": 8},
        "1": {"data_enc": "b", "len_enc": "b", "len_type": 0, "max_len": 8},
    }
    fixed_numeric = {"data_enc": "b", "len_enc": "bcd", "len_type": 0, "len_count": "nibbles", "left_pad": "0"}
    variable_numeric = {"data_enc": "b", "len_enc": "bcd", "len_type": 1, "len_count": "nibbles", "right_pad": "0"}
    fixed_bytes = {"data_enc": "b", "len_enc": "b", "len_type": 0}
    families = (
        (fixed_numeric, _NUMERIC_DIGITS),
        (variable_numeric, _NUMERIC_VARIABLE),
        ({"data_enc": "ascii", "len_enc": "bcd", "len_type": 0}, _TEXT_BYTES),
        ({"data_enc": "ascii", "len_enc": "bcd", "len_type": 1}, _TEXT_LLVAR),
        ({"data_enc": "ascii", "len_enc": "bcd", "len_type": 2}, _TEXT_LLLVAR),
        (fixed_bytes, _BYTES),
        # The sign is one ASCII byte, the digits are BCD: pyiso8583 sees bytes, encode and decode turn the sign.
        (fixed_bytes, {1 + digits // 2: elements for digits, elements in _SIGNED_DIGITS.items()}),
    )
    for shape, lengths in families:
        for length, ranges in lengths.items():
            for element in _elements(*ranges):
                spec[element] = {**shape, "max_len": length}
    return spec


SPECIFICATION: Mapping[str, Mapping[str, Any]] = _specification()
"""The dialect in pyiso8583's own terms: every element of 1987 but DE65, which this dialect refuses."""

_TEXT_WIDTHS = {element: length for length, ranges in _TEXT_BYTES.items() for element in _elements(*ranges)}
_SIGNED = frozenset(element for ranges in _SIGNED_DIGITS.values() for element in _elements(*ranges))
_NUMERIC = frozenset(
    element for lengths in (_NUMERIC_DIGITS, _NUMERIC_VARIABLE) for ranges in lengths.values() for element in _elements(*ranges)
) - {"35"}
_SIGN_BYTES = {"C": "43", "D": "44"}
_SIGNS = {value: sign for sign, value in _SIGN_BYTES.items()}


def encode(fields: Mapping[str, str], key: "MacKey | None" = None) -> bytes:
    """Encodes one message, MTI first, with its MAC as the last element if `key` is given.

    `fields` maps "t" to the four digits of the MTI and an element's number to its value: digits for `n`, text for `an`/`ans` (padded with
    spaces here), hex for `b`, a sign C or D before the digits of a signed amount, `=` as the separator of DE35.

    Raises `iso8583.EncodeError` for a value that does not fit its element.
    """
    document: dict[str, str] = {}
    second_bitmap = False
    for element, value in fields.items():
        if element in _TEXT_WIDTHS:
            document[element] = value.ljust(_TEXT_WIDTHS[element])
        elif element in _SIGNED:
            document[element] = _SIGN_BYTES[value[0]] + value[1:]
        elif element == "35":
            document[element] = value.replace("=", "D")
        else:
            document[element] = value
        second_bitmap = second_bitmap or (element != "t" and int(element) > 64)
    if key is not None:
        # Room for the MAC: it is the last element, computed over all that stands before it with its own bitmap bit set.
        document["128" if second_bitmap else "64"] = "00" * MAC_BYTES
    message: bytearray
    message, _ = iso8583.encode(document, SPECIFICATION)
    if key is not None:
        message[-MAC_BYTES:] = key.tag(bytes(message[:-MAC_BYTES]))
    return bytes(message)


def decode(message: bytes) -> dict[str, str]:
    """Decodes one message into the values that `encode` takes, padding of fixed text included, MAC included, bitmaps left out.

    Raises `ProtocolViolation` for a message that cannot be read.
    """
    try:
        document: dict[str, str] = iso8583.decode(message, SPECIFICATION)[0]
    except (iso8583.DecodeError, KeyError) as error:
        raise ProtocolViolation(f"unreadable message: {error}") from error
    document.pop("p")
    # To pyiso8583 bit 65 announces a third bitmap; this dialect has neither that nor an element 65.
    if len(document.pop("1", "")) > 16:
        raise ProtocolViolation("DE65 in a message")
    for element, value in document.items():
        if element in _NUMERIC:
            # pyiso8583 reads any nibble; this dialect knows digits only.
            if not value.isdigit():
                raise ProtocolViolation(f"DE{element} is not numeric: {value}")
        elif element in _SIGNED:
            if value[:2] not in _SIGNS or not value[2:].isdigit():
                raise ProtocolViolation(f"DE{element} is not a signed amount: {value}")
            document[element] = _SIGNS[value[:2]] + value[2:]
        elif element == "35":
            document[element] = value.replace("D", "=")
    return document


def sub_element_pairs(text: str) -> list[tuple[str, str]]:
    """The sub-elements of DE48 in their order, tag and value: two digits of tag, two digits of length, the value. A tag may come again.

    Raises `ProtocolViolation` where they do not fit.
    """
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        tag, length = text[at : at + 2], text[at + 2 : at + 4]
        value = text[at + 4 : at + 4 + int(length)] if length.isdigit() and len(length) == 2 else None
        if value is None or len(value) != int(length) or not tag.isdigit():
            raise ProtocolViolation(f"DE48 is malformed at character {at}")
        found.append((tag, value))
        at += 4 + len(value)
    return found


def sub_elements(text: str) -> dict[str, str]:
    """The sub-elements of DE48 by tag; of a tag that comes again, the last. Raises `ProtocolViolation` where they do not fit."""
    return dict(sub_element_pairs(text))


def write_sub_elements(values: Mapping[str, str] | Iterable[tuple[str, str]]) -> str:
    """DE48 from its sub-elements, in the order given."""
    pairs = values.items() if isinstance(values, Mapping) else values
    return "".join(f"{tag}{len(value):02}{value}" for tag, value in pairs)


# --- keys -------------------------------------------------------------------------------------------------------------------------


class MacKey:
    """An AES-128-CMAC key (NIST SP 800-38B), prepared once; tags are the first eight bytes."""

    def __init__(self, key: bytes) -> None:
        self._prepared = CMAC(AES(key))

    def tag(self, covered: bytes) -> bytes:
        cmac = self._prepared.copy()
        cmac.update(covered)
        return cmac.finalize()[:MAC_BYTES]

    def verifies(self, covered: bytes, tag: bytes) -> bool:
        return hmac.compare_digest(self.tag(covered), tag)


def derive_key(master_key: bytes, label: bytes, context: bytes) -> bytes:
    """NIST SP 800-108r1 in counter mode, PRF AES-128-CMAC, one block: 16 bytes."""
    cmac = CMAC(AES(master_key))
    cmac.update(b"\x00\x00\x00\x01" + label + b"\x00" + context + b"\x00\x00\x00\x80")
    return cmac.finalize()


def sign_on_key(master_key: bytes, terminal_id: str) -> bytes:
    """The key of sign-on and its reply."""
    return derive_key(master_key, b"SIGN-ON", _terminal_bytes(terminal_id))


def session_keys(master_key: bytes, terminal_id: str, terminal_nonce: bytes, switch_nonce: bytes) -> tuple[bytes, bytes]:
    """The MAC key and the PIN key of the session that the two nonces open."""
    context = _terminal_bytes(terminal_id) + terminal_nonce + switch_nonce
    return derive_key(master_key, b"MAC", context), derive_key(master_key, b"PIN", context)


def pin_block(pin_key: bytes, pin: str, card_number: str, random: bytes) -> str:
    """A PIN of 4 to 12 digits as DE48 tag 52 carries it: ISO 9564-1 format 4 under the session's PIN key, 32 hex digits.

    `random` is eight fresh bytes, so that the same PIN never looks the same.
    """
    assert re.fullmatch("[0-9]{4,12}", pin), "a PIN has 4 to 12 digits"
    pin_field = bytes.fromhex(f"4{len(pin):X}{pin}".ljust(16, "A")) + random
    # A number of fewer than twelve digits is filled up on the left; the first nibble counts the digits beyond twelve.
    number = card_number.rjust(12, "0")
    card_field = bytes.fromhex(f"{len(number) - 12}{number}".ljust(32, "0"))
    cipher = Cipher(AES(pin_key), ECB())  # noqa: S305 - one block at a time is what the standard's format is made of
    once = cipher.encryptor().update(pin_field)
    mixed = bytes(left ^ right for left, right in zip(once, card_field, strict=True))
    return cipher.encryptor().update(mixed).hex().upper()


def _terminal_bytes(terminal_id: str) -> bytes:
    return terminal_id.ljust(8).encode("ascii")


# --- transport --------------------------------------------------------------------------------------------------------------------


def frame(message: bytes, tpdu: bytes = b"") -> bytes:
    """Two bytes of length, the TPDU if there is one, the message."""
    return (len(tpdu) + len(message)).to_bytes(2, "big") + tpdu + message


class FrameBuffer:
    """Cuts a byte stream into frames, however the bytes arrive."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes | bytearray) -> Iterator[tuple[bytes, bytes]]:
        """Yields (TPDU or nothing, message) for each frame that is now complete. Raises `ProtocolViolation` for an impossible length."""
        self._bytes += data
        while len(self._bytes) >= 2:
            length = int.from_bytes(self._bytes[:2], "big")
            if not 1 <= length <= FRAME_BYTES_MAX:
                raise ProtocolViolation(f"frame of {length} bytes")
            if len(self._bytes) < 2 + length:
                return
            content = bytes(self._bytes[2 : 2 + length])
            del self._bytes[: 2 + length]
            # An MTI never begins with 60, so this byte tells a TPDU.
            yield (content[:5], content[5:]) if content[0] == 0x60 else (b"", content)
