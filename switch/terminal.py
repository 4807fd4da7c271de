"""The reference terminal: what a device in a canteen does, over TCP by trio.

How it works: `Terminal` drives the sans-IO `TerminalProtocol`, one request outstanding, as with a person who taps and waits. What it
promises about requests and answers is the protocol's (`switch.terminal_protocol`).
"""

import datetime
import secrets
from collections.abc import Callable
from types import TracebackType
from typing import Self

import trio

from switch.terminal_books import Hotlist, Totals
from switch.terminal_protocol import BillKind, EventKind, NoAnswer, Pin, Refused, Reply, Request, TerminalProtocol

__all__ = ["Terminal"]

CONNECT_PAUSE_SECONDS = 0.1
"""Between two attempts to reach a switch that is away."""


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

    async def purchase(self, card_number: str, amount: int, *, purse: str = "00", pin: str | None = None, copies: int = 1) -> Reply:
        """`amount` in fen. `copies` above 1 sends the same frame that many times at once, as a doubling network would."""
        request = self.protocol.purchase(self._now(), card_number, amount, purse=purse, pin=self._typed(pin))
        return await self.exchange(request, copies=copies)

    async def offline_sale(self, card_number: str, amount: int, *, purse: str = "00", at: datetime.datetime | None = None) -> Reply:
        """Tells of a sale that was made without the switch, `at` some moment before now."""
        return await self.exchange(self.protocol.offline_sale(at or self._now(), card_number, amount, purse=purse))

    async def void(self, original: str, card_number: str | None = None) -> Reply:
        """`original` is a transaction number, here and below."""
        return await self.exchange(self.protocol.void(self._now(), original, card_number))

    async def refund(self, original: str, amount: int, card_number: str | None = None) -> Reply:
        return await self.exchange(self.protocol.refund(self._now(), original, amount, card_number))

    async def load(self, card_number: str, amount: int) -> Reply:
        return await self.exchange(self.protocol.load(self._now(), card_number, amount))

    async def bill_payment(self, card_number: str, amount: int, kind: BillKind, reference: str, *, pin: str | None = None) -> Reply:
        request = self.protocol.bill_payment(self._now(), card_number, amount, kind, reference, pin=self._typed(pin))
        return await self.exchange(request)

    async def balance(self, card_number: str) -> Reply:
        return await self.exchange(self.protocol.balance(self._now(), card_number))

    async def hold(self, card_number: str, amount: int, *, pin: str | None = None) -> Reply:
        return await self.exchange(self.protocol.hold(self._now(), card_number, amount, pin=self._typed(pin)))

    async def completion(self, hold: str, amount: int, card_number: str | None = None) -> Reply:
        return await self.exchange(self.protocol.completion(self._now(), hold, amount, card_number))

    async def reversal(self, original: Request, *, original_data: bool = True, copies: int = 1) -> Reply:
        return await self.exchange(self.protocol.reversal(self._now(), original, original_data=original_data), copies=copies)

    async def enter(self, card_number: str) -> Reply:
        return await self.exchange(self.protocol.enter(self._now(), card_number))

    async def leave(self, card_number: str) -> Reply:
        return await self.exchange(self.protocol.leave(self._now(), card_number))

    async def borrow(self, card_number: str, item: str) -> Reply:
        return await self.exchange(self.protocol.borrow(self._now(), card_number, item))

    async def return_item(self, card_number: str, item: str) -> Reply:
        return await self.exchange(self.protocol.return_item(self._now(), card_number, item))

    async def attendance(self, card_number: str) -> Reply:
        return await self.exchange(self.protocol.attendance(self._now(), card_number))

    async def verify(self, card_number: str) -> Reply:
        return await self.exchange(self.protocol.verify(self._now(), card_number))

    async def loss(self, card_number: str) -> Reply:
        return await self.exchange(self.protocol.loss(self._now(), card_number))

    async def found(self, card_number: str) -> Reply:
        return await self.exchange(self.protocol.found(self._now(), card_number))

    async def read_hotlist(self) -> Hotlist:
        """Reads all pieces; the terminal's copy is then that of the switch at the first piece. Raises `Refused`."""
        hotlist = self.protocol.hotlist
        while True:
            reply = await self.exchange(self.protocol.read_hotlist(self._now()))
            begins_anew = reply.code == "30" and hotlist.reading
            if not (reply.approved or begins_anew):
                raise Refused(reply)
            if not hotlist.reading:
                return hotlist

    async def close_batch(self, totals: Totals | None = None) -> Reply:
        """Closes the open batch by the terminal's own totals, or by others. The reply 95 has those of the switch."""
        return await self.exchange(self.protocol.batch_close(self._now(), totals=totals))

    async def event(self, kind: EventKind, place: str | None = None, value: str | None = None) -> Reply:
        return await self.exchange(self.protocol.event(self._now(), kind, place, value))

    def _typed(self, pin: str | None) -> Pin | None:
        return None if pin is None else Pin(pin, self._nonce(8))

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
