"""The reference terminal: what a device in a canteen does, written without a line of the switch's own codec.

It is the independent side of every test, of the demonstration and of the load test. The messages are encoded and decoded by
pyiso8583 from a specification of the dialect (ISO 8583:1987, binary), keys and MACs come from `cryptography`, and nothing is
imported from `switch._core`, so an error in the switch's codec cannot be hidden by the same error here.

What always holds:

- A request keeps its identity (class, DE41, DE13, DE11) and its content however often it is sent; `repeat` changes only the last
  digit of the MTI.
- A reply is taken only if it belongs to a request of this terminal, echoes what was asked and carries a MAC under a key under
  which that request was sent. 30, 58 and 63 alone may come without a MAC, and an echo test asked without one.
- Two answers to one remembered identity are equal but for MTI and MAC. Anything else raises `ProtocolViolation`.

How it works: `TerminalProtocol` is sans-IO. It makes a `Request`, `send` and `repeat` turn it into a frame, `receive` turns bytes into
replies; time and nonces are arguments. `Terminal` drives it over a trio TCP stream, one request outstanding; anything else that moves
bytes (threads, greenlets, a simulator) may drive the protocol itself.
"""

import datetime
import hmac
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import iso8583
import trio
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC

FRAME_BYTES_MAX = 2048
"""The longest frame, length prefix excluded; a longer one closes the connection."""

STAN_MAX = 999_999
"""A systems trace audit number has six digits; 000001 follows 999999."""

MAC_BYTES = 8

CONNECT_PAUSE_SECONDS = 0.1
"""Between two attempts to reach a switch that is away."""

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

_UNAUTHENTICATED_RESPONSES = frozenset({"30", "58", "63"})
_NOT_REMEMBERED_RESPONSES = frozenset({"30", "58", "63", "91", "96"})
_REMEMBERED_CLASSES = frozenset({"02", "04"})
_REVERSED = frozenset({"2", "3", "4", "49", "60"})
_ECHOED = ("2", "3", "4", "11", "12", "13", "24", "41", "42", "49", "60", "70")


class ProtocolViolation(Exception):
    """What arrived is not what a switch may send: unreadable, not authentic, or not an answer to what was asked."""


class NoAnswer(Exception):
    """No answer within the terminal's patience. The outcome of `request` is unknown: repeat it later, or reverse it."""

    def __init__(self, request: "Request") -> None:
        super().__init__(f"no answer to {request.mti} with STAN {request.stan} of terminal {request.fields['41'].rstrip()}")
        self.request = request


class Refused(Exception):
    """The switch answered, and the answer ends what was attempted (a sign-on that was not granted)."""

    def __init__(self, reply: "Reply") -> None:
        super().__init__(f"terminal {reply.request.fields['41'].rstrip()}: {reply.request.mti} answered {reply.code}, {reply.meaning}")
        self.reply = reply


# --- the dialect ------------------------------------------------------------------------------------------------------------------


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


def sub_elements(text: str) -> dict[str, str]:
    """The sub-elements of DE48: two digits of tag, two digits of length, value. Raises `ProtocolViolation` where they do not fit."""
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        tag, length = text[at : at + 2], text[at + 2 : at + 4]
        value = text[at + 4 : at + 4 + int(length)] if length.isdigit() and len(length) == 2 else None
        if value is None or len(value) != int(length) or not tag.isdigit():
            raise ProtocolViolation(f"DE48 is malformed at character {at}")
        found[tag] = value
        at += 4 + len(value)
    return found


def write_sub_elements(values: Mapping[str, str]) -> str:
    """DE48 from its sub-elements, in the order given."""
    return "".join(f"{tag}{len(value):02}{value}" for tag, value in values.items())


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


# --- the protocol, without I/O ----------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Request:
    """One request with its identity. It may be sent any number of times; what it says never changes."""

    mti: str
    fields: dict[str, str]
    unauthenticated: bool = False
    """An echo test without MAC."""
    signing_on: bytes | None = None
    """The terminal nonce, for a sign-on."""
    sent: int = 0
    """How many answers may still come on this connection, or have come."""
    answers: int = 0
    keys: list[MacKey] = field(default_factory=list)
    """Keys under which it was sent; newest last."""
    reply: "Reply | None" = None

    @property
    def stan(self) -> str:
        return self.fields["11"]

    @property
    def amount(self) -> int:
        """DE4 in fen; 0 where there is none."""
        return int(self.fields.get("4", "0"))

    @property
    def card_number(self) -> str | None:
        return self.fields.get("2")


@dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """An answer that belongs to its request and, unless `authenticated` is false, was proved by its MAC."""

    request: Request
    fields: Mapping[str, str]
    authenticated: bool
    again: bool
    """The request had been answered before: this is the answer to a repeat or a doubled send."""

    @property
    def code(self) -> str:
        return self.fields["39"]

    @property
    def approved(self) -> bool:
        return self.fields["39"] == "00"

    @property
    def meaning(self) -> str:
        return RESPONSES.get(self.code, f"response {self.code}")

    @property
    def retrieval_reference(self) -> str | None:
        """DE37, the transaction number, where the decision is remembered."""
        return self.fields.get("37")

    @property
    def balances(self) -> dict[str, int]:
        """DE54 as fen by account type: "10" cash, "20" subsidy. A debt is negative. Empty where there is no DE54."""
        text = self.fields.get("54", "")
        found: dict[str, int] = {}
        for at in range(0, len(text), 20):
            entry = text[at : at + 20]
            if len(entry) != 20 or entry[2:4] != "02" or entry[7] not in "CD" or not entry[8:].isdigit():
                raise ProtocolViolation(f"DE54 entry malformed: {entry!r}")
            found[entry[:2]] = int(entry[8:]) * (-1 if entry[7] == "D" else 1)
        return found


class TerminalProtocol:
    """One terminal's side of the protocol: STAN, session, outstanding requests. No I/O, no clock, no randomness.

    Several requests may be outstanding. Replies are matched by DE41 and DE11, and by the class of the MTI, because a reversal
    without DE90 bears the STAN of its original.
    """

    def __init__(
        self, terminal_id: str, master_key: bytes, merchant_id: str | None = None, *, tpdu: bytes = b"", last_stan: int = 0
    ) -> None:
        self.terminal_id = terminal_id
        self.merchant_id = merchant_id
        self.pin_key: bytes | None = None
        self.business_date: str | None = None
        """YYYYMMDD, as the switch said at sign-on."""
        self._master_key = master_key
        self._sign_on_key = MacKey(sign_on_key(master_key, terminal_id))
        self._session_key: MacKey | None = None
        self._tpdu = tpdu
        self._reply_tpdu = tpdu[:1] + tpdu[3:5] + tpdu[1:3]
        self._last_stan = last_stan
        self._frames = FrameBuffer()
        self._open: dict[tuple[str, str], Request] = {}
        self._constant = {"41": terminal_id.ljust(8)} | ({"42": merchant_id.ljust(15)} if merchant_id else {})

    @property
    def signed_on(self) -> bool:
        return self._session_key is not None

    @property
    def unanswered(self) -> list[Request]:
        """Requests that were sent and have no answer yet: after a lost connection, repeat or reverse them."""
        return [request for request in self._open.values() if request.reply is None]

    # Requests. `at` is the campus's local time.

    def request(self, mti: str, at: datetime.datetime, fields: Mapping[str, str], *, authenticated: bool = True) -> Request:
        """Any message: `fields` besides DE11, 12, 13, 41 and 42, which are added unless `fields` has its own."""
        return Request(
            mti,
            {"11": self._next_stan(), "12": f"{at:%H%M%S}", "13": f"{at:%m%d}", **self._constant, **fields},
            unauthenticated=not authenticated,
        )

    def sign_on(self, at: datetime.datetime, nonce: bytes) -> Request:
        """`nonce` is eight fresh random bytes."""
        request = self.request("0800", at, {"48": write_sub_elements({"01": nonce.hex().upper()}), "70": "001"})
        request.signing_on = nonce
        return request

    def sign_off(self, at: datetime.datetime) -> Request:
        return self.request("0800", at, {"70": "002"})

    def echo(self, at: datetime.datetime, *, authenticated: bool = True) -> Request:
        return self.request("0800", at, {"70": "301"}, authenticated=authenticated)

    def purchase(
        self, at: datetime.datetime, card_number: str, amount: int, *, purse: str = "00", more: Mapping[str, str] | None = None
    ) -> Request:
        """`amount` in fen; `purse` 00 by the switch's policy, 10 cash alone, 20 subsidy alone."""
        return self.request("0200", at, {"2": card_number, "3": f"00{purse}00", "4": f"{amount:012}", "49": CURRENCY, **(more or {})})

    def balance(self, at: datetime.datetime, card_number: str) -> Request:
        return self.request("0100", at, {"2": card_number, "3": "310000"})

    def reversal(self, at: datetime.datetime, original: Request, *, original_data: bool = True) -> Request:
        """Undoes `original`, whose answer did not come. With DE90, or else under the original's own DE11, DE12 and DE13."""
        content = {element: value for element, value in original.fields.items() if element in _REVERSED}
        if original_data:
            # The original's MTI, STAN, date and time; no institution is known: 22 zeros.
            identity = original.mti + original.stan + original.fields["13"] + original.fields["12"]
            return self.request("0400", at, {**content, "90": identity + "0" * 22})
        return Request("0400", {"11": original.stan, "12": original.fields["12"], "13": original.fields["13"], **self._constant, **content})

    # Bytes out.

    def send(self, request: Request) -> bytes:
        """The frame of `request`, and one more answer expected. Raises `RuntimeError` where a session is needed and there is none."""
        return self._write(request, request.mti)

    def repeat(self, request: Request) -> bytes:
        """The same identity and content again, marked as a repeat by the last digit of the MTI."""
        return self._write(request, request.mti[:3] + "1")

    def _write(self, request: Request, mti: str) -> bytes:
        key: MacKey | None
        if request.unauthenticated:
            key = None
        elif request.signing_on is not None:
            key = self._sign_on_key
        elif self._session_key is not None:
            key = self._session_key
        else:
            raise RuntimeError(f"terminal {self.terminal_id} is not signed on")
        message = encode({"t": mti, **request.fields}, key)
        if key is not None and (not request.keys or request.keys[-1] is not key):
            request.keys.append(key)
        request.sent += 1
        self._open[request.mti[:2], request.stan] = request
        return frame(message, self._tpdu)

    # Bytes in.

    def receive(self, data: bytes | bytearray) -> list[Reply]:
        """Replies completed by `data`. Raises `ProtocolViolation`; the connection is of no further use then."""
        return [self._accept(tpdu, message) for tpdu, message in self._frames.feed(data)]

    def connection_lost(self) -> None:
        """Forgets half a frame and the answers that can no longer come. `unanswered` requests stay, the session too."""
        self._frames = FrameBuffer()
        self._open = {identity: request for identity, request in self._open.items() if request.reply is None}
        for request in self._open.values():
            request.sent = request.answers = 0

    def _accept(self, tpdu: bytes, message: bytes) -> Reply:
        fields = decode(message)
        mti = fields.pop("t")
        request = self._open.get((mti[:2], fields.get("11", "")))
        if request is None or fields.get("41") != self._constant["41"]:
            raise ProtocolViolation(f"{mti} for {fields.get('41')}, STAN {fields.get('11')}: not asked by {self.terminal_id}")
        if mti[:3] != f"{int(request.mti) + 10:04}"[:3] or mti[3] not in (request.mti[3], "1") or "39" not in fields:
            raise ProtocolViolation(f"{mti} is no answer to {request.mti}")
        if tpdu != self._reply_tpdu:
            raise ProtocolViolation(f"TPDU {tpdu.hex()} in an answer to {self._tpdu.hex()}")
        authenticated = self._authenticate(request, fields, message)
        for element in _ECHOED:
            asked = request.fields.get(element)
            # A malformed request's echo holds what could be read of it; an 08xx never echoes a card.
            if fields.get(element, asked if fields["39"] == "30" else None) != asked and not (element == "2" and mti[:2] == "08"):
                raise ProtocolViolation(f"{mti} echoes DE{element} as {fields.get(element)}, asked {asked}")
        return self._answered(request, Reply(request, fields, authenticated, again=request.reply is not None))

    def _authenticate(self, request: Request, fields: dict[str, str], message: bytes) -> bool:
        tag = fields.pop("64", None) or fields.pop("128", None)
        if tag is None:
            if fields["39"] in _UNAUTHENTICATED_RESPONSES or request.unauthenticated:
                return False
            raise ProtocolViolation(f"answer {fields['39']} to {request.mti} without MAC")
        if not any(key.verifies(message[:-MAC_BYTES], bytes.fromhex(tag)) for key in reversed(request.keys)):
            raise ProtocolViolation(f"answer {fields['39']} to {request.mti} with a wrong MAC")
        return True

    def _answered(self, request: Request, reply: Reply) -> Reply:
        before = request.reply
        remembered = request.mti[:2] in _REMEMBERED_CLASSES and not {reply.code, before.code if before else ""} & _NOT_REMEMBERED_RESPONSES
        if before is not None and remembered and reply.fields != before.fields:
            raise ProtocolViolation(f"two different answers to STAN {request.stan}: {before.fields} and {reply.fields}")
        request.answers += 1
        if before is None or before.code in _NOT_REMEMBERED_RESPONSES:
            request.reply = reply
        if request.answers >= request.sent:
            self._open.pop((request.mti[:2], request.stan), None)
        if reply.approved and request.signing_on is not None and not reply.again:
            self._open_session(request.signing_on, reply)
        elif reply.approved and request.fields.get("70") == "002":
            self._session_key = self.pin_key = None
        return reply

    def _open_session(self, terminal_nonce: bytes, reply: Reply) -> None:
        private = sub_elements(reply.fields.get("48", ""))
        switch_nonce = private.get("02", "")
        try:
            nonce = bytes.fromhex(switch_nonce)
        except ValueError:
            nonce = b""
        if len(nonce) != 8 or len(private.get("03", "")) != 8:
            raise ProtocolViolation(f"sign-on answered without nonce or business date: {reply.fields.get('48')}")
        mac_key, self.pin_key = session_keys(self._master_key, self.terminal_id, terminal_nonce, nonce)
        self._session_key = MacKey(mac_key)
        self.business_date = private["03"]

    def _next_stan(self) -> str:
        self._last_stan = self._last_stan % STAN_MAX + 1
        return f"{self._last_stan:06}"


# --- over TCP, by trio ------------------------------------------------------------------------------------------------------------


class Terminal:
    """A terminal on its own TCP connection; one request outstanding, as with a person who taps and waits.

    Resource handling: `async with Terminal(...)` closes the connection. A lost connection is opened again by the next exchange.

    Error handling: an exchange repeats its request after `answer_seconds` without an answer, and after a lost connection, until
    `patience_seconds` are over, then raises `NoAnswer`. An answer 63 is met by one sign-on and another try. `ProtocolViolation`
    is never caught.
    """

    def __init__(
        self,
        protocol: TerminalProtocol,
        host: str,
        port: int,
        *,
        answer_seconds: float = 10.0,
        patience_seconds: float = 60.0,
        now: Callable[[], datetime.datetime] = datetime.datetime.now,
        nonce: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.protocol = protocol
        self.repeats = 0
        """Requests sent again because an answer did not come."""
        self._host = host
        self._port = port
        self._answer_seconds = answer_seconds
        self._patience_seconds = patience_seconds
        self._now = now
        self._nonce = nonce
        self._stream: trio.SocketStream | None = None

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    async def connect(self) -> None:
        """Opens the connection if it is not open. Raises `OSError`."""
        if self._stream is None:
            self._stream = await trio.open_tcp_stream(self._host, self._port)

    async def sign_on(self) -> Reply:
        """Raises `Refused` where the switch does not grant it."""
        reply = await self.exchange(self.protocol.sign_on(self._now(), self._nonce(8)))
        if not reply.approved:
            raise Refused(reply)
        return reply

    async def sign_off(self) -> Reply:
        return await self.exchange(self.protocol.sign_off(self._now()))

    async def echo(self, *, authenticated: bool = True) -> Reply:
        return await self.exchange(self.protocol.echo(self._now(), authenticated=authenticated))

    async def purchase(self, card_number: str, amount: int, *, purse: str = "00", copies: int = 1) -> Reply:
        """`amount` in fen. `copies` above 1 sends the same frame that many times at once, as a doubling network would."""
        return await self.exchange(self.protocol.purchase(self._now(), card_number, amount, purse=purse), copies=copies)

    async def balance(self, card_number: str) -> Reply:
        return await self.exchange(self.protocol.balance(self._now(), card_number))

    async def reversal(self, original: Request, *, original_data: bool = True, copies: int = 1) -> Reply:
        return await self.exchange(self.protocol.reversal(self._now(), original, original_data=original_data), copies=copies)

    async def exchange(self, request: Request, *, copies: int = 1, repeat: bool = False) -> Reply:
        """Sends `request`, `copies` times in one go, and waits until every copy is answered; returns the first answer.

        With `repeat` already the first send is marked as a repeat. Raises `NoAnswer` and `ProtocolViolation`.
        """
        signed_on_again = False
        with trio.move_on_after(self._patience_seconds):
            while True:
                reply = await self._attempt(request, copies, repeat)
                if reply is None:
                    repeat = True
                    self.repeats += 1
                elif reply.code == "63" and request.signing_on is None and not signed_on_again:
                    signed_on_again = True
                    await self.sign_on()
                else:
                    return reply
        raise NoAnswer(request)

    async def abandon(self, request: Request) -> None:
        """Sends `request` and drops the connection before any answer is read, as a power cut would."""
        await self.connect()
        assert self._stream is not None
        await self._stream.send_all(self.protocol.send(request))
        self.close()

    async def _attempt(self, request: Request, copies: int, repeat: bool) -> Reply | None:
        """One send and its answers; nothing if the time is over or the connection lost."""
        try:
            await self.connect()
        except OSError:
            # The switch is away, perhaps starting again: a short pause, and the caller's patience bounds the whole.
            await trio.sleep(CONNECT_PAUSE_SECONDS)
            return None
        assert self._stream is not None
        write = self.protocol.repeat if repeat else self.protocol.send
        whole = False
        try:
            with trio.move_on_after(self._answer_seconds):
                await self._stream.send_all(b"".join([write(request) for _ in range(copies)]))
                whole = True
                if reply := await self._answers(self._stream, request, copies):
                    return reply
                whole = False
        except trio.BrokenResourceError:
            whole = False
        except trio.Cancelled:
            # The caller gave up: what was sent and not answered must not be mistaken for an answer to what comes next.
            self.close()
            raise
        if not whole:
            # Lost, or broken off in the middle of a frame. After a mere time-out the connection stays, and a late answer is welcome.
            self.close()
        return None

    async def _answers(self, stream: trio.SocketStream, request: Request, copies: int) -> Reply | None:
        """The first of `copies` answers, once all are here; nothing if the switch closes the connection."""
        first: Reply | None = None
        while data := await stream.receive_some():
            for reply in self.protocol.receive(data):
                # A late answer to something earlier was checked by the protocol and needs nothing more.
                if reply.request is request:
                    first = first or reply
                    copies -= 1
            if copies <= 0 and first is not None:
                return first
        return None

    def close(self) -> None:
        """Closes the connection at once. Unanswered requests stay known to the protocol."""
        stream, self._stream = self._stream, None
        self.protocol.connection_lost()
        if stream is not None:
            stream.socket.close()
