"""The terminal's side of the protocol, sans-IO: requests with their identity, answers with their proof.

It is the independent side of every test, of the demonstration and of the load test. Of the switch it imports `switch.dialect` alone,
whose codec, keys and MACs are other people's libraries, so an error in the switch's codec cannot be hidden by the same error here.

What always holds:

- A request keeps its identity (class, DE41, DE13, DE11) and its content however often it is sent; `repeat` changes only the last
  digit of the MTI.
- A reply is taken only if it belongs to a request of this terminal, echoes what was asked and carries a MAC under a key under
  which that request was sent. 30, 58 and 63 alone may come without a MAC, and an echo test asked without one.
- Two answers to one remembered identity are equal but for MTI and MAC. Anything else raises `ProtocolViolation`.

How it works: `TerminalProtocol` makes a `Request`, `send` and `repeat` turn it into a frame, `receive` turns bytes into replies; time and
nonces are arguments. Whatever moves bytes drives it: `switch.terminal` by trio, the load test's terminal by greenlets.
"""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field

from switch.dialect import (
    CURRENCY,
    MAC_BYTES,
    RESPONSES,
    FrameBuffer,
    MacKey,
    ProtocolViolation,
    decode,
    encode,
    frame,
    session_keys,
    sign_on_key,
    sub_elements,
    write_sub_elements,
)

__all__ = ["STAN_MAX", "NoAnswer", "Refused", "Reply", "Request", "TerminalProtocol"]

STAN_MAX = 999_999
"""A systems trace audit number has six digits; 000001 follows 999999."""

_UNAUTHENTICATED_RESPONSES = frozenset({"30", "58", "63"})
_NOT_REMEMBERED_RESPONSES = frozenset({"30", "58", "63", "91", "96"})
_REMEMBERED_CLASSES = frozenset({"02", "04"})
_REVERSED = frozenset({"2", "3", "4", "49", "60"})
_ECHOED = ("2", "3", "4", "11", "12", "13", "24", "41", "42", "49", "60", "70")


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
