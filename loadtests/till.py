"""A terminal on a plain TCP socket: what a load test's user holds, one request under way.

Always true here: an answer counts only if the reference terminal's protocol took it (its MAC, and that it says what was asked) and if it
holds everything that an answer of its kind must. Nothing is tried again: a load test wants to know of an answer that did not come.

How it works: the socket blocks. Under gevent it lets other greenlets run meanwhile, and nothing here knows of that.
"""

import datetime
import secrets
import socket
import zoneinfo
from collections.abc import Mapping
from typing import Final

from switch.campus import Card, TerminalRow
from switch.dialect import ProtocolViolation
from switch.replay import Entry, Operation
from switch.terminal_protocol import STAN_MAX, NoAnswer, Refused, Reply, Request, TerminalProtocol

__all__ = ["FAILURES", "Expectations", "NoSession", "Till", "WrongAnswer", "zone"]

RECEIVE_BYTES: Final = 4096

STANS_A_SECOND: Final = STAN_MAX // 86_400


class WrongAnswer(Exception):
    """One sentence: an answer that is authentic, and wrong."""


class NoSession(Exception):
    """One sentence: a terminal that was not signed on, or whose connection broke, asks nothing more."""

    def __init__(self, terminal_id: str) -> None:
        super().__init__(f"terminal {terminal_id} has no session")


FAILURES: Final = (NoSession, WrongAnswer, ProtocolViolation, NoAnswer, Refused, OSError)
"""What may go wrong with a request."""


class Expectations:
    """What may be answered on this campus, on this day. Whether a purse suffices is left to the sums."""

    def __init__(self, cards: Mapping[str, Card], today: datetime.date) -> None:
        self._cards = cards
        self._today = today

    def answers(self, operation: str, card_number: str) -> frozenset[str]:
        """Values of DE39."""
        if operation == Operation.REVERSAL:
            return _DONE
        card = self._cards.get(card_number)
        if card is None:
            return _NO_SUCH_CARD
        if operation == Operation.LOAD:
            return card.load_answers(self._today)
        return _DONE if operation == Operation.BALANCE else card.purchase_answers(self._today)


_DONE: Final = frozenset({"00"})
_NO_SUCH_CARD: Final = frozenset({"14"})


class Till:
    """One terminal of `terminals.csv` and its connection.

    Its numbers (DE11) go on from a place in the day, because a number that it has used today stands for what it asked then: so that it may
    come back, with nothing kept, as long as it asks fewer than `STANS_A_SECOND` on average.
    """

    def __init__(self, row: TerminalRow, address: tuple[str, int], zone: datetime.tzinfo, patience_seconds: float) -> None:
        at = datetime.datetime.now(zone)
        last_stan = (at.hour * 3600 + at.minute * 60 + at.second) * STANS_A_SECOND
        self._protocol = TerminalProtocol(row.terminal_id, row.key, row.merchant_id, last_stan=last_stan)
        self._address = address
        self._zone = zone
        self._patience_seconds = patience_seconds
        self._socket: socket.socket | None = None
        self._last_purchase: Request | None = None
        self._undone = False

    def sign_on(self) -> None:
        """Connects if need be and opens a session. Raises one of `FAILURES`."""
        if self._socket is None:
            self._socket = socket.create_connection(self._address, timeout=self._patience_seconds)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = self._protocol.sign_on(self._now(), secrets.token_bytes(8))
        reply = self._exchange(request, self._protocol.send(request))
        if not reply.approved:
            raise Refused(reply)

    def ask(self, entry: Entry, expected: frozenset[str]) -> tuple[Reply, int]:
        """Asks what a replay's line says: the answer, and the fen that it moved. Raises one of `FAILURES`."""
        if self._socket is None or not self._protocol.signed_on:
            raise NoSession(entry.terminal_id)
        if entry.operation is Operation.PURCHASE:
            request = self._protocol.purchase(self._now(), entry.card_number, entry.amount)
            self._last_purchase, self._undone = request, False
        elif entry.operation is Operation.BALANCE:
            request = self._protocol.balance(self._now(), entry.card_number)
        elif entry.operation is Operation.LOAD:
            request = self._protocol.load(self._now(), entry.card_number, entry.amount)
        elif entry.operation is Operation.REVERSAL:
            request = self._protocol.reversal(self._now(), self._bought())
        else:
            request = self._bought()
        write = self._protocol.repeat if entry.operation is Operation.REPEAT else self._protocol.send
        reply = self._exchange(request, write(request))
        _check(entry.operation, reply, expected)
        return reply, self._moved(entry, reply)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self._protocol.connection_lost()

    def _now(self) -> datetime.datetime:
        return datetime.datetime.now(self._zone).replace(tzinfo=None)

    def _bought(self) -> Request:
        assert self._last_purchase is not None, "a replay that was read has a purchase before each reversal and repeat"
        return self._last_purchase

    def _moved(self, entry: Entry, reply: Reply) -> int:
        if entry.operation in {Operation.PURCHASE, Operation.LOAD}:
            return entry.amount if reply.approved else 0
        if entry.operation is Operation.REVERSAL and not self._undone:
            self._undone = True
            original = self._bought()
            return original.amount if original.reply is not None and original.reply.approved else 0
        return 0

    def _exchange(self, request: Request, frame: bytes) -> Reply:
        assert self._socket is not None, "asked of a till that is not open"
        try:
            self._socket.sendall(frame)
            while data := self._socket.recv(RECEIVE_BYTES):
                for reply in self._protocol.receive(data):
                    if reply.request is request:
                        return reply
        except TimeoutError:
            pass
        except BaseException:
            # Half an answer, or a broken connection: whatever came next on it could not be believed.
            self.close()
            raise
        self.close()
        raise NoAnswer(request)


def _check(operation: Operation, reply: Reply, expected: frozenset[str]) -> None:
    if reply.code not in expected:
        raise WrongAnswer(f"a {operation} was answered {reply.code}, {reply.meaning}; expected was {' or '.join(sorted(expected))}")
    if not reply.authenticated:
        raise WrongAnswer(f"a {operation} was answered {reply.code} without a MAC")
    if operation is Operation.BALANCE:
        needed = {"54"} if reply.approved else set()
    else:
        needed = {"37", "38", "54"} if operation in {Operation.PURCHASE, Operation.LOAD} and reply.approved else {"37"}
    if missing := needed - reply.fields.keys():
        raise WrongAnswer(f"a {operation} was answered {reply.code} without DE{', DE'.join(sorted(missing))}")
    if "54" in needed and reply.balances.keys() != {"10", "20"}:
        raise WrongAnswer(f"a {operation} was answered with the purses {', '.join(reply.balances)}, not with 10 and 20")


def zone(name: str) -> datetime.tzinfo:
    """The campus's time zone. Raises `ValueError` for a name that nobody knows."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, OSError):
        raise ValueError(f"{name!r} is no time zone; name one such as Asia/Shanghai") from None
