"""The terminal's side of the protocol, sans-IO: requests with their identity, answers with their proof.

It is the independent side of every test, of the demonstration and of the load test. Of the switch it imports `switch.dialect`, whose
codec, keys and MACs are other people's libraries, and the terminal's own books, so an error in the switch cannot be hidden by the same
error here.

What always holds:

- A request keeps its identity (class, DE41, DE13, DE11) and its content however often it is sent; `repeat` changes only the last
  digit of the MTI.
- A reply is taken only if it belongs to a request of this terminal, echoes what was asked and carries a MAC under a key under
  which that request was sent. 30, 58 and 63 alone may come without a MAC, and an echo test asked without one.
- Two answers to one remembered identity are equal but for MTI and MAC. Anything else raises `ProtocolViolation`.
- A PIN crosses the wire only enciphered, under the session whose key makes the message's MAC.

How it works: `TerminalProtocol` makes a `Request`, `send` and `repeat` turn it into a frame, `receive` turns bytes into replies; time and
nonces are arguments. What is granted is counted in `batches`, and `hotlist` takes what is read of it (`switch.terminal_books`). Whatever
moves bytes drives it: `switch.terminal` by trio, the load test's terminal by greenlets.
"""

import datetime
import enum
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
    pin_block,
    session_keys,
    sign_on_key,
    sub_elements,
    write_sub_elements,
)
from switch.terminal_books import Batches, Hotlist, HotlistPiece, Totals

__all__ = [
    "STAN_MAX",
    "BillKind",
    "Command",
    "EventKind",
    "NoAnswer",
    "Pin",
    "Refused",
    "Reply",
    "Request",
    "TerminalProtocol",
]

STAN_MAX = 999_999
"""A systems trace audit number has six digits; 000001 follows 999999."""

_UNAUTHENTICATED_RESPONSES = frozenset({"30", "58", "63"})
_NOT_REMEMBERED_RESPONSES = frozenset({"30", "58", "63", "91", "96"})
_INQUIRIES = frozenset({"310000", "900000"})
"""DE3 of a 0100 that is answered afresh each time: balance and verify."""

_REVERSED = frozenset({"2", "3", "4", "49", "60"})
_ECHOED = ("2", "3", "4", "11", "12", "13", "24", "41", "42", "49", "60", "70")


class BillKind(enum.StrEnum):
    """DE48 tag 30: to whom a bill is paid."""

    TUITION = "01"
    ELECTRICITY = "02"
    WATER = "03"
    OTHER = "04"


class EventKind(enum.StrEnum):
    """DE48 tag 40: what befell a room."""

    OVERLOAD = "01"
    TAMPER = "02"
    FIRE = "03"
    RESTORED = "04"


class Command(enum.StrEnum):
    """DE48 tag 43: what the switch tells a meter to do."""

    TRIP = "TRIP"
    NONE = "NONE"


@dataclass(frozen=True, slots=True)
class Pin:
    """What a cardholder typed, and eight fresh random bytes for its block."""

    digits: str = field(repr=False)
    random: bytes = field(repr=False)


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
    original: "Request | None" = None
    """What a reversal undoes."""
    pin: Pin | None = None
    """Enciphered anew whenever it is sent, because a new session has a new PIN key."""
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

    @property
    def remembered(self) -> bool:
        """Every further answer is the first one again. Inquiries and echo tests are answered afresh each time."""
        inquiry = self.mti[:2] == "01" and self.mti[2] != "2" and self.fields.get("3") in _INQUIRIES
        return not (inquiry or self.reads_hotlist or self.fields.get("70") == "301")

    @property
    def reads_hotlist(self) -> bool:
        return self.mti[:2] == "03" and self.fields.get("91") == "5"


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

    @property
    def card_class(self) -> str | None:
        """Of a verified card."""
        return self._private.get("20")

    @property
    def command(self) -> Command | None:
        """To a meter. Raises `ProtocolViolation` for one that no meter knows."""
        told = self._private.get("43")
        try:
            return None if told is None else Command(told)
        except ValueError:
            raise ProtocolViolation(f"no command: {told!r}") from None

    @property
    def totals(self) -> Totals | None:
        """The switch's own totals, where they differ from what a batch close named."""
        return Totals.read(self.fields)

    @property
    def _private(self) -> dict[str, str]:
        return sub_elements(self.fields.get("48", ""))


class TerminalProtocol:
    """One terminal's side of the protocol: STAN, session, outstanding requests. No I/O, no clock, no randomness.

    Several requests may be outstanding. Replies are matched by DE41 and DE11, and by the class of the MTI, because a reversal
    without DE90 bears the STAN of its original.
    """

    def __init__(
        self,
        terminal_id: str,
        master_key: bytes,
        merchant_id: str | None = None,
        *,
        tpdu: bytes = b"",
        last_stan: int = 0,
        names_batch: bool = False,
    ) -> None:
        """With `names_batch` what moves money says to which batch it belongs (DE60), however late it arrives."""
        self.terminal_id = terminal_id
        self.merchant_id = merchant_id
        self.pin_key: bytes | None = None
        self.business_date: str | None = None
        """YYYYMMDD, as the switch said at sign-on."""
        self.batches = Batches()
        self.hotlist = Hotlist()
        self._names_batch = names_batch
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
        self,
        at: datetime.datetime,
        card_number: str,
        amount: int,
        *,
        purse: str = "00",
        pin: Pin | None = None,
        more: Mapping[str, str] | None = None,
    ) -> Request:
        """`amount` in fen; `purse` 00 by the switch's policy, 10 cash alone, 20 subsidy alone."""
        return self._money("0200", at, {**_sale(card_number, amount, purse), **(more or {})}, pin)

    def offline_sale(self, at: datetime.datetime, card_number: str, amount: int, *, purse: str = "00") -> Request:
        """A sale that was made without the switch, at that time; it is told afterwards."""
        return self._money("0220", at, _sale(card_number, amount, purse))

    def void(self, at: datetime.datetime, original: str, card_number: str | None = None, amount: int | None = None) -> Request:
        """Undoes a sale of the same business day, named by its transaction number.

        `amount` is what the sale came to. The switch does not look at it; the terminal's own totals do, where the sale was not its own.
        """
        elements = {"3": "020000", "37": original, **_card(card_number)}
        return self._money("0200", at, elements if amount is None else {**elements, "4": f"{amount:012}"})

    def refund(self, at: datetime.datetime, original: str, amount: int, card_number: str | None = None) -> Request:
        """Gives back a part of a sale, named by its transaction number, or all of it."""
        return self._money("0200", at, {"3": "200000", "4": f"{amount:012}", "37": original, **_card(card_number)})

    def load(self, at: datetime.datetime, card_number: str, amount: int) -> Request:
        """Cash that the cardholder handed over."""
        return self._money("0200", at, {"2": card_number, "3": "210000", "4": f"{amount:012}"})

    def bill_payment(
        self, at: datetime.datetime, card_number: str, amount: int, kind: BillKind, reference: str, *, pin: Pin | None = None
    ) -> Request:
        """`reference` says which bill."""
        private = write_sub_elements({"30": kind, "31": reference})
        return self._money("0200", at, {"2": card_number, "3": "500000", "4": f"{amount:012}", "48": private}, pin)

    def balance(self, at: datetime.datetime, card_number: str) -> Request:
        return self.request("0100", at, {"2": card_number, "3": "310000"})

    def hold(self, at: datetime.datetime, card_number: str, amount: int, *, pin: Pin | None = None) -> Request:
        """Reserves up to `amount` of the cash purse for what a meter will say."""
        return self._money("0100", at, {"2": card_number, "3": "000000", "4": f"{amount:012}"}, pin)

    def completion(self, at: datetime.datetime, hold: str, amount: int, card_number: str | None = None) -> Request:
        """Takes what the meter said, 0 to what was held, and frees the rest; `hold` is its transaction number."""
        return self._money("0220", at, {"3": "000000", "4": f"{amount:012}", "37": hold, **_card(card_number)})

    def reversal(self, at: datetime.datetime, original: Request, *, original_data: bool = True) -> Request:
        """Undoes `original`, whose answer did not come. With DE90, or else under the original's own DE11, DE12 and DE13."""
        content = {element: value for element, value in original.fields.items() if element in _REVERSED}
        if original_data:
            # The original's MTI, STAN, date and time; no institution is known: 22 zeros.
            identity = original.mti + original.stan + original.fields["13"] + original.fields["12"]
            reversal = self.request("0400", at, {**content, "90": identity + "0" * 22})
        else:
            own = {"11": original.stan, "12": original.fields["12"], "13": original.fields["13"]}
            reversal = Request("0400", {**own, **self._constant, **content})
        reversal.original = original
        return reversal

    # What concerns a person and no money. `offline`: it happened without the switch, at that time, and is told afterwards.

    def enter(self, at: datetime.datetime, card_number: str, *, offline: bool = False) -> Request:
        return self._presence(at, "910000", card_number, offline=offline)

    def leave(self, at: datetime.datetime, card_number: str, *, offline: bool = False) -> Request:
        return self._presence(at, "920000", card_number, offline=offline)

    def borrow(self, at: datetime.datetime, card_number: str, item: str, *, offline: bool = False) -> Request:
        return self._presence(at, "930000", card_number, item, offline=offline)

    def return_item(self, at: datetime.datetime, card_number: str, item: str, *, offline: bool = False) -> Request:
        return self._presence(at, "940000", card_number, item, offline=offline)

    def attendance(self, at: datetime.datetime, card_number: str, *, offline: bool = False) -> Request:
        return self._presence(at, "950000", card_number, offline=offline)

    def verify(self, at: datetime.datetime, card_number: str, *, offline: bool = False) -> Request:
        """Asks whether the card is good, and of which class."""
        return self._presence(at, "900000", card_number, offline=offline)

    def _presence(
        self, at: datetime.datetime, processing: str, card_number: str, item: str | None = None, *, offline: bool = False
    ) -> Request:
        private = {"48": write_sub_elements({"11": item})} if item is not None else {}
        return self.request("0120" if offline else "0100", at, {"2": card_number, "3": processing, **private})

    def loss(self, at: datetime.datetime, card_number: str) -> Request:
        """An active card becomes a lost one."""
        return self.request("0300", at, {"2": card_number, "91": "1", "101": _HOTLIST})

    def found(self, at: datetime.datetime, card_number: str) -> Request:
        """And back."""
        return self.request("0300", at, {"2": card_number, "91": "3", "101": _HOTLIST})

    def read_hotlist(self, at: datetime.datetime) -> Request:
        """The next piece of the list; whether another follows, `hotlist.reading` tells when the answer is here."""
        return self.request("0300", at, {"48": write_sub_elements(self.hotlist.next()), "91": "5", "101": _HOTLIST})

    def batch_close(self, at: datetime.datetime, batch: int | None = None, totals: Totals | None = None) -> Request:
        """Closes the open batch, or another one, by the terminal's own totals unless others are given."""
        batch = self.batches.open if batch is None else batch
        totals = self.batches.totals(batch) if totals is None else totals
        return self.request("0500", at, {"60": f"{batch:06}", **totals.elements()})

    def event(self, at: datetime.datetime, kind: EventKind, place: str | None = None, value: str | None = None) -> Request:
        """What befell a room, and the meter's reading."""
        private = {"40": kind, "41": place, "42": value}
        return self.request("0600", at, {"48": write_sub_elements({tag: told for tag, told in private.items() if told is not None})})

    def _money(self, mti: str, at: datetime.datetime, elements: Mapping[str, str], pin: Pin | None = None) -> Request:
        batch = {"60": f"{self.batches.open:06}"} if self._names_batch else {}
        request = self.request(mti, at, {**batch, **elements})
        request.pin = pin
        return request

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
        message = encode({"t": mti, **request.fields, **self._enciphered(request)}, key)
        if key is not None and (not request.keys or request.keys[-1] is not key):
            request.keys.append(key)
        request.sent += 1
        self._open[request.mti[:2], request.stan] = request
        return frame(message, self._tpdu)

    def _enciphered(self, request: Request) -> dict[str, str]:
        """DE48 with the PIN's block in it, where the request has a PIN."""
        if request.pin is None:
            return {}
        assert self.pin_key is not None, "a request with a PIN is sent under a session"
        block = pin_block(self.pin_key, request.pin.digits, request.fields["2"], request.pin.random)
        return {"48": request.fields.get("48", "") + write_sub_elements({"52": block})}

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
        if before is not None and request.remembered and not {reply.code, before.code} & _NOT_REMEMBERED_RESPONSES:
            if reply.fields != before.fields:
                raise ProtocolViolation(f"two different answers to STAN {request.stan}: {before.fields} and {reply.fields}")
        elif before is None or before.code in _NOT_REMEMBERED_RESPONSES:
            if reply.approved:
                self._granted(request, reply)
            elif request.reads_hotlist and reply.code == "30":
                self.hotlist.unknown(sub_elements(request.fields["48"]))
            request.reply = reply
        request.answers += 1
        if request.answers >= request.sent:
            self._open.pop((request.mti[:2], request.stan), None)
        return reply

    def _granted(self, request: Request, reply: Reply) -> None:
        """What a terminal does once with what was approved."""
        if request.signing_on is not None:
            self._open_session(request.signing_on, reply)
        elif request.fields.get("70") == "002":
            self._session_key = self.pin_key = None
        elif request.reads_hotlist:
            asked = sub_elements(request.fields["48"])
            self.hotlist.take(asked, HotlistPiece.read(reply.fields.get("48", "")))
        elif request.mti[:2] == "05":
            self.batches.closed(int(request.fields["60"]))
        elif reply.retrieval_reference is not None:
            of = request.original.reply if request.original is not None else None
            undone = of.retrieval_reference if of is not None and of.approved else None
            self.batches.count(request.mti, request.fields, reply.retrieval_reference, undone)

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


_HOTLIST = "HOTLIST"
"""DE101: the only file there is."""


def _sale(card_number: str, amount: int, purse: str) -> dict[str, str]:
    return {"2": card_number, "3": f"00{purse}00", "4": f"{amount:012}", "49": CURRENCY}


def _card(card_number: str | None) -> dict[str, str]:
    return {} if card_number is None else {"2": card_number}
