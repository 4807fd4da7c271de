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
from switch import terminal_books as books_module
from switch import terminal_protocol as protocol_module
from switch.dialect import FrameBuffer, MacKey, ProtocolViolation, decode, encode, frame, pin_block, sub_elements, write_sub_elements
from switch.terminal import Terminal
from switch.terminal_books import Totals
from switch.terminal_protocol import BillKind, Command, EventKind, NoAnswer, Pin, Refused, Reply, Request, TerminalProtocol

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
        (terminal_module, {"switch.terminal_protocol", "switch.terminal_books"}),
        (protocol_module, {"switch.dialect", "switch.terminal_books"}),
        (books_module, {"switch.dialect"}),
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


# --- every operation ---

SOLD = {"2": CARD, "4": "000000000850", "49": "156"}
REFERENCE = "000000000042"

REQUESTS: list[tuple[str, Callable[[TerminalProtocol], Request], str, dict[str, str]]] = [
    ("purchase", lambda t: t.purchase(AT, CARD, 850, purse="20"), "0200", {**SOLD, "3": "002000"}),
    ("offline sale", lambda t: t.offline_sale(AT, CARD, 850, purse="10"), "0220", {**SOLD, "3": "001000"}),
    ("void", lambda t: t.void(AT, REFERENCE), "0200", {"3": "020000", "37": REFERENCE}),
    (
        "void with card and amount",
        lambda t: t.void(AT, REFERENCE, CARD, 850),
        "0200",
        {"2": CARD, "3": "020000", "4": "000000000850", "37": REFERENCE},
    ),
    ("refund", lambda t: t.refund(AT, REFERENCE, 7), "0200", {"3": "200000", "4": "000000000007", "37": REFERENCE}),
    (
        "refund with card",
        lambda t: t.refund(AT, REFERENCE, 7, CARD),
        "0200",
        {"2": CARD, "3": "200000", "4": "000000000007", "37": REFERENCE},
    ),
    ("load", lambda t: t.load(AT, CARD, 10_000), "0200", {"2": CARD, "3": "210000", "4": "000000010000"}),
    (
        "bill payment",
        lambda t: t.bill_payment(AT, CARD, 5, BillKind.WATER, "Room 7"),
        "0200",
        {"2": CARD, "3": "500000", "4": "000000000005", "48": "3002033106Room 7"},
    ),
    ("balance", lambda t: t.balance(AT, CARD), "0100", {"2": CARD, "3": "310000"}),
    ("hold", lambda t: t.hold(AT, CARD, 300), "0100", {"2": CARD, "3": "000000", "4": "000000000300"}),
    ("completion", lambda t: t.completion(AT, REFERENCE, 0), "0220", {"3": "000000", "4": "000000000000", "37": REFERENCE}),
    (
        "completion with card",
        lambda t: t.completion(AT, REFERENCE, 9, CARD),
        "0220",
        {"2": CARD, "3": "000000", "4": "000000000009", "37": REFERENCE},
    ),
    ("enter", lambda t: t.enter(AT, CARD), "0100", {"2": CARD, "3": "910000"}),
    ("leave, told afterwards", lambda t: t.leave(AT, CARD, offline=True), "0120", {"2": CARD, "3": "920000"}),
    ("borrow", lambda t: t.borrow(AT, CARD, "B-1"), "0100", {"2": CARD, "3": "930000", "48": "1103B-1"}),
    ("return", lambda t: t.return_item(AT, CARD, "B-1"), "0100", {"2": CARD, "3": "940000", "48": "1103B-1"}),
    (
        "return, told afterwards",
        lambda t: t.return_item(AT, CARD, "B-1", offline=True),
        "0120",
        {"2": CARD, "3": "940000", "48": "1103B-1"},
    ),
    ("attendance", lambda t: t.attendance(AT, CARD), "0100", {"2": CARD, "3": "950000"}),
    ("verify", lambda t: t.verify(AT, CARD), "0100", {"2": CARD, "3": "900000"}),
    ("loss", lambda t: t.loss(AT, CARD), "0300", {"2": CARD, "91": "1", "101": "HOTLIST"}),
    ("found", lambda t: t.found(AT, CARD), "0300", {"2": CARD, "91": "3", "101": "HOTLIST"}),
    ("hotlist", lambda t: t.read_hotlist(AT), "0300", {"48": "50100000000000", "91": "5", "101": "HOTLIST"}),
    (
        "batch close",
        lambda t: t.batch_close(AT, 3, Totals(1, 2, 3, 4, 50, 60, 70, 80)),
        "0500",
        {
            "60": "000003",
            "74": "0000000001",
            "75": "0000000002",
            "76": "0000000003",
            "77": "0000000004",
            "86": "0000000000000050",
            "87": "0000000000000060",
            "88": "0000000000000070",
            "89": "0000000000000080",
        },
    ),
    ("event", lambda t: t.event(AT, EventKind.OVERLOAD, "301", "2200 W"), "0600", {"48": "400201410330142062200 W"}),
    ("event without place", lambda t: t.event(AT, EventKind.RESTORED), "0600", {"48": "400204"}),
]


@pytest.mark.parametrize(("make", "mti", "elements"), [row[1:] for row in REQUESTS], ids=[row[0] for row in REQUESTS])
def test_a_request_says_what_its_operation_needs(make: Callable[[TerminalProtocol], Request], mti: str, elements: dict[str, str]) -> None:
    terminal = signed_on()
    request = make(terminal)
    identity = {"11": "000002", "12": "120501", "13": "1122", "41": "T0000001", "42": "M00000000000001"}
    assert (request.mti, request.fields) == (mti, {**identity, **elements})
    read = decode(terminal.send(request)[2:])
    assert {element: value for element, value in read.items() if element not in {"64", "128"}} == {
        "t": mti,
        **{element: value.ljust(15) if element == "42" else value for element, value in request.fields.items()},
    }


@pytest.mark.parametrize("original_data", [True, False])
def test_a_reversal_repeats_what_its_original_says(original_data: bool) -> None:
    terminal = TerminalProtocol("T0000001", MASTER_KEY, "M00000000000001", names_batch=True)
    for _, make, mti, _ in REQUESTS:
        original = make(terminal)
        reversal = terminal.reversal(AT, original, original_data=original_data)
        content = {element: value for element, value in original.fields.items() if element in {"2", "3", "4", "42", "49", "60"}}
        assert {element: value for element, value in reversal.fields.items() if element in {*content, "37", "48"}} == content
        named = f"{mti}{original.stan}1122120501" + "0" * 22
        assert reversal.fields.get("90") == (named if original_data else None)
        assert (reversal.stan == original.stan) == (not original_data)


def test_what_moves_money_may_name_its_batch() -> None:
    terminal = TerminalProtocol("T0000001", MASTER_KEY, names_batch=True)
    named = {name for name, make, *_ in REQUESTS if make(terminal).fields.get("60") == "000001"}
    assert named == {name for name, _, mti, elements in REQUESTS if mti[:2] == "02" or name == "hold"}
    terminal.batches.closed(1)
    assert terminal.purchase(AT, CARD, 1).fields["60"] == "000002"


def test_a_pin_is_enciphered_under_the_session_that_it_is_sent_in() -> None:
    terminal = signed_on()
    pin = Pin("1234", bytes(8))
    assert "1234" not in repr(pin)
    for request in (
        terminal.purchase(AT, CARD, 850, pin=pin),
        terminal.hold(AT, CARD, 850, pin=pin),
        terminal.bill_payment(AT, CARD, 850, BillKind.TUITION, "2026", pin=pin),
    ):
        private = sub_elements(decode(terminal.send(request)[2:])["48"])
        assert private["52"] == pin_block(bytes.fromhex(VECTORS["pin_key"]), "1234", CARD, bytes(8))
        assert private.get("31") == ("2026" if "48" in request.fields else None)
        assert "52" not in sub_elements(request.fields.get("48", ""))
    request = terminal.purchase(AT, CARD, 850, pin=pin)
    before = decode(terminal.send(request)[2:])["48"]
    sign_on = terminal.sign_on(AT, bytes(8))
    terminal.send(sign_on)
    private_reply = {"48": write_sub_elements({"02": "0" * 16, "03": "20261122"}), "54": None, "38": None}
    terminal.receive(answer(sign_on, private_reply, MacKey(bytes.fromhex(VECTORS["sign_on_key"]))))
    assert terminal.pin_key is not None
    after = decode(terminal.repeat(request)[2:])["48"]
    assert before != after == write_sub_elements({"52": pin_block(terminal.pin_key, "1234", CARD, bytes(8))})


def test_a_sign_on_that_could_not_be_made_durable_may_be_repeated() -> None:
    terminal = TerminalProtocol("T0000001", MASTER_KEY)
    request = terminal.sign_on(AT, bytes(8))
    key = MacKey(bytes.fromhex(VECTORS["sign_on_key"]))
    terminal.send(request)
    terminal.receive(answer(request, {"39": "91", "54": None, "38": None, "37": None}, key))
    assert not terminal.signed_on
    terminal.repeat(request)
    private_reply = {"48": write_sub_elements({"02": "0" * 16, "03": "20261122"}), "54": None, "38": None}
    terminal.receive(answer(request, private_reply, key, mti="0811"))
    assert terminal.signed_on


@pytest.mark.parametrize("make", [lambda t: t.balance(AT, CARD), lambda t: t.verify(AT, CARD)], ids=["balance", "verify"])
def test_an_inquiry_may_be_answered_differently_each_time(make: Callable[[TerminalProtocol], Request]) -> None:
    terminal = signed_on()
    request = make(terminal)
    assert not request.remembered
    terminal.send(request)
    terminal.send(request)
    terminal.receive(answer(request, {"37": None, "38": None}) + answer(request, {"37": None, "38": None, "39": "14", "54": None}))


@pytest.mark.parametrize(
    "make",
    [
        lambda t: t.hold(AT, CARD, 1),
        lambda t: t.enter(AT, CARD),
        lambda t: t.verify(AT, CARD, offline=True),
        lambda t: t.loss(AT, CARD),
        lambda t: t.batch_close(AT),
        lambda t: t.event(AT, EventKind.FIRE),
        lambda t: t.sign_off(AT),
    ],
)
def test_a_decision_is_answered_alike_each_time(make: Callable[[TerminalProtocol], Request]) -> None:
    terminal = signed_on()
    request = make(terminal)
    assert request.remembered
    terminal.send(request)
    terminal.send(request)
    with pytest.raises(ProtocolViolation, match="two different answers"):
        terminal.receive(answer(request) + answer(request, {"37": "000000000008"}))


def granted(terminal: TerminalProtocol, request: Request, reference: int, **changes: str | None) -> Reply:
    """Sends it and answers it."""
    terminal.send(request)
    (reply,) = terminal.receive(answer(request, {"37": f"{reference:012}", "54": None, **changes}))
    return reply


def test_replies_tell_what_their_operation_asked_for() -> None:
    terminal = signed_on()
    verified = granted(terminal, terminal.verify(AT, CARD), 1, **{"48": "2007student"})
    assert (verified.card_class, verified.command, verified.totals) == ("student", None, None)
    event = granted(terminal, terminal.event(AT, EventKind.FIRE), 2, **{"48": "4304TRIP"})
    assert event.command is Command.TRIP
    spoilt = granted(terminal, terminal.event(AT, EventKind.FIRE), 3, **{"48": "4304TRAP"})
    with pytest.raises(ProtocolViolation, match="no command"):
        _ = spoilt.command
    own = Totals(debits=2, debit_amount=1700)
    close = terminal.batch_close(AT)
    reply = granted(terminal, close, 4, **{"38": None, "39": "95", **own.elements()})
    assert reply.totals == own
    assert terminal.batches.open == 1, "a batch whose totals differ is open still"


def test_a_batch_closes_by_what_was_granted() -> None:
    terminal = signed_on()
    purchase = terminal.purchase(AT, CARD, 850)
    bought = granted(terminal, purchase, 7)
    terminal.repeat(purchase)
    terminal.receive(answer(purchase, {"37": "000000000007", "54": None}, mti="0211"))
    granted(terminal, terminal.purchase(AT, CARD, 1), 8, **{"39": "51", "38": None})
    assert bought.retrieval_reference is not None
    granted(terminal, terminal.refund(AT, bought.retrieval_reference, 50), 9)
    granted(terminal, terminal.reversal(AT, purchase), 10)
    unanswered = terminal.purchase(AT, CARD, 300)
    terminal.send(unanswered)
    granted(terminal, terminal.reversal(AT, unanswered), 11)
    expected = Totals(credits=1, credit_amount=50, debits=1, debit_amount=850, debit_reversals=1, debit_reversal_amount=800)
    close = terminal.batch_close(AT)
    assert Totals.read(close.fields) == expected == terminal.batches.totals(1)
    granted(terminal, close, 12, **{"38": None})
    assert terminal.batches.open == 2
    assert Totals.read(terminal.batch_close(AT).fields) == Totals()


def piece(version: int, *changes: str, more: bool = False) -> str:
    return write_sub_elements([("50", f"{version:010}"), ("52", str(int(more))), *(("53", change) for change in changes)])


def test_the_hotlist_is_read_in_pieces() -> None:
    terminal = signed_on()
    asked = []
    for private in (piece(3, "+12", "+623", more=True), piece(3, "+0623"), piece(5, "-12", "+624")):
        request = terminal.read_hotlist(AT)
        asked.append(sub_elements(request.fields["48"]))
        granted(terminal, request, 1, **{"37": None, "38": None, "48": private})
    assert asked == [{"50": "0000000000"}, {"50": "0000000000", "51": "623"}, {"50": "0000000003"}]
    assert (terminal.hotlist.version, terminal.hotlist.cards) == (5, {"623", "0623", "624"})


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


def approve(fields: dict[str, str], code: str = "00", key: MacKey | None = SESSION_KEY, private: str | None = None) -> bytes:
    echoed = {element: value for element, value in fields.items() if element in {"2", "3", "4", "11", "12", "13", "41", "42", "49", "60"}}
    mti = f"{int(fields['t']) + 10:04}"
    return frame(encode({"t": mti, **echoed, **APPROVED, "39": code, **({"48": private} if private else {})}, key))


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


async def test_every_operation_goes_over_the_wire() -> None:
    def script(_: int, fields: dict[str, str]) -> list[bytes]:
        return [approve(fields, private="43" + "04TRIP" if fields["t"] == "0600" else None)]

    async with connected(script) as (terminal, switch):
        await terminal.sign_on()
        bought = await terminal.purchase(CARD, 850, purse="10", pin="1234")
        assert bought.retrieval_reference is not None
        original = bought.retrieval_reference
        replies = [
            await terminal.offline_sale(CARD, 850, at=AT - datetime.timedelta(hours=1)),
            await terminal.void(original, CARD),
            await terminal.refund(original, 1, CARD),
            await terminal.load(CARD, 100),
            await terminal.bill_payment(CARD, 100, BillKind.OTHER, "x", pin="1234"),
            await terminal.balance(CARD),
            await terminal.hold(CARD, 100, pin="1234"),
            await terminal.completion(original, 100, CARD),
            await terminal.reversal(bought.request),
            *[await ask(CARD) for ask in (terminal.enter, terminal.leave, terminal.attendance, terminal.verify)],
            *[await ask(CARD, "B-1") for ask in (terminal.borrow, terminal.return_item)],
            *[await ask(CARD) for ask in (terminal.loss, terminal.found)],
            await terminal.close_batch(Totals(debits=9)),
            await terminal.event(EventKind.FIRE, "301"),
        ]
    assert all(reply.approved for reply in replies)
    assert replies[-1].command is Command.TRIP
    assert [(fields["t"], fields.get("3")) for fields in switch.requests] == [
        ("0800", None),
        ("0200", "001000"),
        ("0220", "000000"),
        ("0200", "020000"),
        ("0200", "200000"),
        ("0200", "210000"),
        ("0200", "500000"),
        ("0100", "310000"),
        ("0100", "000000"),
        ("0220", "000000"),
        ("0400", "001000"),
        *[("0100", f"{operation}0000") for operation in (91, 92, 95, 90, 93, 94)],
        *[("0300", None)] * 2,
        ("0500", None),
        ("0600", None),
    ]
    with_pin = [fields["3"] for fields in switch.requests if "52" in sub_elements(fields.get("48", ""))]
    assert with_pin == ["001000", "500000", "000000"]
    assert switch.requests[2]["12"] == "110501"
    assert switch.requests[-2]["76"] == "0000000009"


async def test_a_terminal_reads_the_hotlist_to_its_end_even_when_the_switch_forgets_the_reading() -> None:
    # After the first piece the switch starts again: it knows of the version held alone, and the reading begins anew.
    pieces = iter([piece(3, "+1", more=True), piece(0, "+2"), piece(4, "+2", more=True), piece(4, "+3")])

    async with connected(lambda _, fields: [approve(fields, private=next(pieces))]) as (terminal, switch):
        await terminal.sign_on()
        hotlist = await terminal.read_hotlist()
    assert (hotlist.version, hotlist.cards) == (4, {"2", "3"})
    asked = [sub_elements(fields["48"]) for fields in switch.requests if fields["t"] == "0300"]
    assert [private.get("51") for private in asked] == [None, "1", None, "2"]


async def test_a_terminal_that_has_more_than_the_switch_reads_the_whole_hotlist() -> None:
    # Between the readings the switch is set back to a backup from before.
    pieces = iter([piece(7, "+1", "+2"), None, piece(2, "+2")])

    def answer(_: int, fields: dict[str, str]) -> list[bytes]:
        private = next(pieces) if fields["t"] == "0300" else None
        return [approve(fields, private=private) if private or fields["t"] != "0300" else approve(fields, "30")]

    async with connected(answer) as (terminal, switch):
        await terminal.sign_on()
        assert (await terminal.read_hotlist()).version == 7
        hotlist = await terminal.read_hotlist()
    assert (hotlist.version, hotlist.cards) == (2, {"2"})
    assert [sub_elements(fields["48"])["50"] for fields in switch.requests if fields["t"] == "0300"] == [f"{v:010}" for v in (0, 7, 0)]


async def test_a_refused_reading_of_the_hotlist_is_raised() -> None:
    async with connected(lambda _, fields: [approve(fields, "30", key=None)]) as (terminal, _):
        await terminal.sign_on()
        with pytest.raises(Refused, match="30"):
            await terminal.read_hotlist()
