"""The reference terminal: its requests against published messages, its checks of what a switch answers, its conduct over TCP."""

import ast
import datetime
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio

from switch import dialect as dialect_module
from switch import terminal as terminal_module
from switch import terminal_protocol as protocol_module
from switch.dialect import FrameBuffer, MacKey, ProtocolViolation, decode, encode, frame, write_sub_elements
from switch.terminal import Terminal
from switch.terminal_protocol import NoAnswer, Refused, Reply, Request, TerminalProtocol

VECTORS: dict[str, Any] = json.loads(Path(__file__).with_name("vectors.json").read_text())
MASTER_KEY = bytes.fromhex(VECTORS["tmk"])
TERMINAL_NONCE = bytes.fromhex(VECTORS["terminal_nonce"])
AT = datetime.datetime(2026, 11, 22, 12, 5, 1)  # noqa: DTZ001 - a terminal's clock shows the campus's local time
CARD = "6230000000000017"
APPROVED = {"15": "1122", "37": "000000000007", "38": "000007", "39": "00", "54": "1002156C0000000009502002156D000000000100"}


def vector(name: str) -> dict[str, Any]:
    (found,) = (message for message in VECTORS["messages"] if message["name"] == name)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("module", "of_the_switch"),
    [
        (terminal_module, {"switch.terminal_protocol"}),
        (protocol_module, {"switch.dialect"}),
        (dialect_module, set()),
    ],
)
def test_it_shares_no_code_with_the_switch(module: ModuleType, of_the_switch: set[str]) -> None:
    assert module.__file__ is not None
    imported = set()
    for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or ".")
    assert {name for name in imported if name.startswith((".", "switch"))} == of_the_switch
    # The walk finds imports at all: each module has something to stand on.
    assert imported & {"iso8583", "trio", "switch.dialect"}


# --- the protocol ---


def signed_on(tpdu: bytes = b"") -> TerminalProtocol:
    """The terminal of the vectors, after their sign-on."""
    terminal = TerminalProtocol("T0000001", MASTER_KEY, "M00000000000001", tpdu=tpdu)
    terminal.send(terminal.sign_on(AT, TERMINAL_NONCE))
    back = tpdu[:1] + tpdu[3:] + tpdu[1:3]
    (reply,) = terminal.receive(frame(bytes.fromhex(vector("sign-on reply")["message"]), back))
    assert reply.approved
    assert reply.authenticated
    return terminal


SESSION_KEY = MacKey(bytes.fromhex(VECTORS["mac_key"]))


def answer(
    request: Request, changes: dict[str, str | None] | None = None, key: MacKey | None = SESSION_KEY, mti: str | None = None
) -> bytes:
    """What a switch answers, or should not: `changes` replaces elements, or leaves them out by None."""
    fields = {element: value for element, value in request.fields.items() if element not in {"90", "48"}}
    wanted = {"t": mti or f"{int(request.mti) + 10:04}", **fields, **APPROVED, **(changes or {})}
    return frame(encode({element: value for element, value in wanted.items() if value is not None}, key))


def test_sign_on_and_purchase_are_the_vectors() -> None:
    terminal = TerminalProtocol("T0000001", MASTER_KEY, "M00000000000001")
    assert not terminal.signed_on
    with pytest.raises(RuntimeError, match="not signed on"):
        terminal.send(terminal.purchase(AT, CARD, 850))
    terminal = TerminalProtocol("T0000001", MASTER_KEY, "M00000000000001")
    assert terminal.send(terminal.sign_on(AT, TERMINAL_NONCE))[2:].hex() == vector("sign-on")["message"]
    terminal.receive(frame(bytes.fromhex(vector("sign-on reply")["message"])))
    assert terminal.signed_on
    assert terminal.business_date == "20261122"
    assert terminal.pin_key == bytes.fromhex(VECTORS["pin_key"])
    assert terminal.send(terminal.purchase(AT, CARD, 850))[2:].hex() == vector("purchase")["message"]


def test_reversal_with_de90_is_the_vector_and_without_it_bears_the_identity_of_its_original() -> None:
    terminal = signed_on()
    original = terminal.purchase(AT, CARD, 850)
    terminal.request("0800", AT, {})  # STAN 3
    reversal = terminal.reversal(AT, original)
    assert terminal.send(reversal)[2:].hex() == vector("reversal with DE90")["message"]
    bare = terminal.reversal(AT + datetime.timedelta(minutes=1), original, original_data=False)
    assert "90" not in bare.fields
    assert {element: bare.fields[element] for element in ("2", "3", "4", "11", "12", "13", "49")} == {
        element: original.fields[element] for element in ("2", "3", "4", "11", "12", "13", "49")
    }


def test_an_answer_is_read() -> None:
    terminal = signed_on()
    request = terminal.purchase(AT, CARD, 850)
    terminal.send(request)
    assert terminal.unanswered == [request]
    (reply,) = terminal.receive(answer(request))
    assert (reply.approved, reply.meaning, reply.retrieval_reference) == (True, "approved", "000000000007")
    assert reply.balances == {"10": 950, "20": -100}
    assert not reply.again
    assert terminal.unanswered == []
    with pytest.raises(ProtocolViolation):
        terminal.receive(answer(request))


def test_replies_are_matched_out_of_order_and_a_reversal_apart_from_its_original() -> None:
    terminal = signed_on()
    first, second = terminal.purchase(AT, CARD, 850), terminal.purchase(AT, CARD, 300)
    reversal = terminal.reversal(AT, first, original_data=False)
    for request in (first, second, reversal):
        terminal.send(request)
    replies = terminal.receive(answer(reversal) + answer(second) + answer(first))
    assert [reply.request for reply in replies] == [reversal, second, first]


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda request: answer(request, key=None),
        lambda request: answer(request, key=MacKey(b"another key, no?")),
        lambda request: answer(request)[:-1] + b"\x00",
        lambda request: answer(request, {"11": "000099"}),
        lambda request: answer(request, {"41": "T0000002"}),
        lambda request: answer(request, {"4": "000000000851"}),
        lambda request: answer(request, {"2": None}),
        lambda request: answer(request, {"60": "000001"}),
        lambda request: answer(request, {"39": None}),
        lambda request: answer(request, mti="0230"),
        lambda request: answer(request, mti="0200"),
        lambda request: answer(request, {"39": "51"}, key=None),
        lambda request: frame(answer(request)[2:], bytes.fromhex("6000020001")),
    ],
    ids=[
        "no MAC",
        "a foreign MAC",
        "a damaged MAC",
        "another STAN",
        "another terminal",
        "another amount",
        "no card",
        "an element not asked",
        "no response code",
        "another kind",
        "a request",
        "a decline without MAC",
        "a TPDU not asked",
    ],
)
def test_a_wrong_answer_is_a_violation(spoilt: Callable[[Request], bytes]) -> None:
    terminal = signed_on()
    request = terminal.purchase(AT, CARD, 850)
    terminal.send(request)
    with pytest.raises(ProtocolViolation):
        terminal.receive(spoilt(request))
    assert terminal.unanswered == [request]


@pytest.mark.parametrize("code", ["30", "58", "63"])
def test_refusals_may_come_without_mac_and_are_told_apart(code: str) -> None:
    terminal = signed_on()
    request = terminal.purchase(AT, CARD, 850)
    terminal.send(request)
    (reply,) = terminal.receive(answer(request, {"39": code, "54": None, "38": None, "37": None}, key=None))
    assert not reply.authenticated
    assert not reply.approved


def test_a_malformed_request_may_be_echoed_in_part() -> None:
    terminal = signed_on()
    request = terminal.purchase(AT, CARD, 850)
    terminal.send(request)
    (reply,) = terminal.receive(answer(request, {"39": "30", "2": None, "4": None}, key=None))
    assert reply.code == "30"


def test_the_tpdu_comes_back_swapped() -> None:
    terminal = signed_on(bytes.fromhex("6000010002"))
    request = terminal.purchase(AT, CARD, 850)
    assert terminal.send(request)[2:7].hex() == "6000010002"
    with pytest.raises(ProtocolViolation):
        terminal.receive(answer(request))
    (reply,) = terminal.receive(frame(answer(request)[2:], bytes.fromhex("6000020001")))
    assert reply.approved


def test_a_doubled_send_gets_one_answer_twice() -> None:
    terminal = signed_on()
    request = terminal.purchase(AT, CARD, 850)
    assert terminal.send(request) == terminal.send(request)
    first, second = terminal.receive(answer(request) * 2)
    assert (first.again, second.again) == (False, True)
    assert request.reply is first


def test_two_different_answers_to_one_identity_are_a_violation() -> None:
    terminal = signed_on()
    request = terminal.purchase(AT, CARD, 850)
    terminal.send(request)
    terminal.send(request)
    terminal.receive(answer(request))
    with pytest.raises(ProtocolViolation, match="two different answers"):
        terminal.receive(answer(request, {"37": "000000000008"}))


def test_a_repeat_differs_in_the_mti_alone_and_takes_the_stored_answer() -> None:
    terminal = signed_on()
    request = terminal.purchase(AT, CARD, 850)
    sent = terminal.send(request)
    terminal.receive(answer(request))
    repeated = terminal.repeat(request)
    assert repeated[2:4].hex() == "0201"
    assert repeated[4:-8] == sent[4:-8]
    (reply,) = terminal.receive(answer(request, mti="0211"))
    assert reply.again


def test_an_answer_that_was_not_remembered_may_be_followed_by_another() -> None:
    terminal = signed_on()
    request = terminal.purchase(AT, CARD, 850)
    terminal.send(request)
    terminal.receive(answer(request, {"39": "91"}))
    terminal.repeat(request)
    (reply,) = terminal.receive(answer(request, mti="0211"))
    assert request.reply is reply


def test_after_a_lost_connection_the_unanswered_is_known_and_half_a_frame_forgotten() -> None:
    terminal = signed_on()
    request = terminal.purchase(AT, CARD, 850)
    terminal.send(request)
    assert terminal.receive(answer(request)[:20]) == []
    terminal.connection_lost()
    assert terminal.unanswered == [request]
    terminal.repeat(request)
    (reply,) = terminal.receive(answer(request, mti="0211"))
    assert reply.approved


def test_sign_off_ends_the_session() -> None:
    terminal = signed_on()
    request = terminal.sign_off(AT)
    terminal.send(request)
    terminal.receive(answer(request, {"54": None, "38": None}))
    assert not terminal.signed_on


def test_an_echo_test_may_go_without_mac_and_before_sign_on() -> None:
    terminal = TerminalProtocol("T0000001", MASTER_KEY)
    request = terminal.echo(AT, authenticated=False)
    wire = terminal.send(request)
    assert "64" not in decode(wire[2:])
    (reply,) = terminal.receive(answer(request, {"54": None, "38": None, "37": None}, key=None))
    assert reply.approved


def test_stan_follows_999999_by_000001() -> None:
    terminal = TerminalProtocol("T0000001", MASTER_KEY, last_stan=999_998)
    assert [terminal.echo(AT).stan for _ in range(2)] == ["999999", "000001"]


# --- over TCP ---

Script = Callable[[int, dict[str, str]], Iterable[bytes] | None]
"""Number of the connection and a request's fields to the frames of its answers; None closes the connection."""


class ScriptedSwitch:
    """Answers by a script; sign-on by itself. Remembers what it was sent."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[dict[str, str]] = []
        self.connections = 0
        self.sign_on_code = "00"

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        number = self.connections
        frames = FrameBuffer()
        # A terminal may break off before it reads its answer.
        with suppress(trio.BrokenResourceError):
            async with stream:
                await self.converse(number, stream, frames)

    async def converse(self, number: int, stream: trio.SocketStream, frames: FrameBuffer) -> None:
        async for data in stream:
            for _, message in frames.feed(data):
                fields = decode(message)
                self.requests.append(fields)
                replies = self.answer(number, fields)
                if replies is None:
                    return
                for reply in replies:
                    await stream.send_all(reply)

    def answer(self, connection: int, fields: dict[str, str]) -> Iterable[bytes] | None:
        if fields.get("70") == "001":
            echoed = {element: fields[element] for element in ("11", "12", "13", "41", "42", "70")}
            if self.sign_on_code != "00":
                return [frame(encode({"t": "0810", **echoed, "39": self.sign_on_code}))]
            private = write_sub_elements({"02": VECTORS["switch_nonce"], "03": "20261122"})
            reply = {"t": "0810", **echoed, "15": "1122", "39": "00", "48": private}
            return [frame(encode(reply, MacKey(bytes.fromhex(VECTORS["sign_on_key"]))))]
        return self.script(connection, fields)


def approve(fields: dict[str, str], code: str = "00", key: MacKey | None = SESSION_KEY) -> bytes:
    echoed = {element: value for element, value in fields.items() if element in {"2", "3", "4", "11", "12", "13", "41", "42", "49"}}
    return frame(encode({"t": fields["t"][:2] + "1" + fields["t"][3], **echoed, **APPROVED, "39": code}, key))


@asynccontextmanager
async def connected(
    script: Script, *, answer_seconds: float = 60.0, patience_seconds: float = 60.0
) -> AsyncIterator[tuple[Terminal, ScriptedSwitch]]:
    switch = ScriptedSwitch(script)
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port: int = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, switch.serve, [listener])
        terminal = Terminal(
            TerminalProtocol("T0000001", MASTER_KEY, "M00000000000001"),
            "127.0.0.1",
            port,
            answer_seconds=answer_seconds,
            patience_seconds=patience_seconds,
            now=lambda: AT,
            nonce=lambda _: TERMINAL_NONCE,
        )
        async with terminal:
            yield terminal, switch
        nursery.cancel_scope.cancel()


async def test_a_terminal_signs_on_and_buys() -> None:
    async with connected(lambda _, fields: [approve(fields)]) as (terminal, switch):
        await terminal.sign_on()
        reply = await terminal.purchase(CARD, 850)
        assert reply.approved
        assert [fields["t"] for fields in switch.requests] == ["0800", "0200"]


async def test_a_terminal_repeats_on_a_new_connection_without_signing_on() -> None:
    async with connected(lambda connection, fields: None if connection == 1 else [approve(fields)]) as (terminal, switch):
        await terminal.sign_on()
        reply = await terminal.purchase(CARD, 850)
        assert reply.approved
        assert switch.connections == 2
        assert [fields["t"] for fields in switch.requests] == ["0800", "0200", "0201"]
        assert terminal.repeats == 1


async def test_a_terminal_repeats_after_its_time_out_and_takes_a_late_answer() -> None:
    waiting: list[bytes] = []

    def script(_: int, fields: dict[str, str]) -> list[bytes]:
        if fields["t"] == "0200":
            waiting.append(approve(fields))
            return []
        return [*waiting, approve(fields)]

    async with connected(script, answer_seconds=0.01) as (terminal, switch):
        await terminal.sign_on()
        reply = await terminal.purchase(CARD, 850)
        assert reply.approved
        assert switch.connections == 1
        assert terminal.protocol.unanswered == []


async def test_a_terminal_signs_on_again_when_its_mac_is_refused() -> None:
    signed: list[str] = []

    def script(_: int, fields: dict[str, str]) -> list[bytes]:
        signed.append(fields["t"])
        return [approve(fields, "63", key=None)] if len(signed) == 1 else [approve(fields)]

    async with connected(script) as (terminal, switch):
        await terminal.sign_on()
        reply = await terminal.purchase(CARD, 850)
        assert reply.approved
        assert [fields["t"] for fields in switch.requests] == ["0800", "0200", "0800", "0200"]


async def test_a_terminal_without_an_answer_says_which_request_is_open() -> None:
    async with connected(lambda _, __: [], answer_seconds=0.01, patience_seconds=0.05) as (terminal, _):
        await terminal.sign_on()
        with pytest.raises(NoAnswer) as raised:
            await terminal.purchase(CARD, 850)
        assert terminal.protocol.unanswered == [raised.value.request]


async def test_an_abandoned_purchase_is_repeated_or_reversed_later() -> None:
    async with connected(lambda _, fields: [approve(fields)]) as (terminal, switch):
        await terminal.sign_on()
        request = terminal.protocol.purchase(AT, CARD, 850)
        await terminal.abandon(request)
        repeated: Reply = await terminal.exchange(request, repeat=True)
        assert repeated.approved
        reversal = await terminal.reversal(request)
        assert reversal.approved
        assert [fields["t"] for fields in switch.requests if fields["t"] != "0200"] == ["0800", "0201", "0400"]


async def test_a_refused_sign_on_is_raised() -> None:
    async with connected(lambda _, __: []) as (terminal, switch):
        switch.sign_on_code = "58"
        with pytest.raises(Refused, match="58"):
            await terminal.sign_on()
        assert not terminal.protocol.signed_on
