"""Every operation of the terminal protocol in any order, over real sockets, against a small model of the campus.

Hypothesis draws who asks for what, under which policy and when there is another one, and what befalls each message on its way: it is
doubled, its answer or itself is lost, its connection is cut at any moment, it is repeated or reversed later, several terminals speak at
once, the power fails. Each reply must be, element by element, what `tests.campus_model` says; where terminals spoke at once, the
transaction numbers say in which order the switch decided. At the end ledger, PostgreSQL and model agree to the fen, and after a power cut
every remembered answer is given again; and every operation has been approved somewhere.

`--model-examples N` plays more campuses, `--seed N` the same ones again. What Hypothesis prints of a failure is the shortest list of
steps that it found, to be read as a script: terminals and cards are named by their places in `TERMINALS` and `CARDS`.
"""

import itertools
import json
import random
import secrets
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import httpx
import hypothesis
import pytest
from hypothesis import HealthCheck
from hypothesis import strategies as st
from hypothesis.internal.conjecture.engine import ConjectureRunner
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, initialize, multiple, rule, run_state_machine_as_test

from switch import evidence
from switch._core import Replica
from switch.dialect import FrameBuffer, decode, frame
from switch.terminal_books import Hotlist
from switch.terminal_protocol import BillKind, EventKind, Pin, Request, TerminalProtocol
from tests.campus_model import KINDS, LIVE, Campus, Fields, operation_of
from tests.campus_policy import RULES_HEADER
from tests.conftest import fetch, run_asyncio
from tests.switch_process import CARDS_HEADER, DEADLINE_SECONDS, POLL_SECONDS, TERMINALS_HEADER, Switch, now, report_of, today

STEPS: Final = 60
"""Of one campus."""

CAMPUSES: Final = 20
"""So many have every operation approved: in ten runs each was seven times at least."""

MERCHANTS_HEADER: Final = "merchant_id,name,category,fee_bp"
MERCHANTS: Final = {"C": "canteen", "S": "shop", "B": "bath", "L": "library", "G": "gate", "O": "office", "U": "utility"}
TERMINALS: Final = (
    *(("pos", "C"), ("pos", "C"), ("pos", "S"), ("counter", "O"), ("kiosk", "O")),
    *(("water", "B"), ("gate", "G"), ("library", "L"), ("meter", "U")),
)
"""Kind and merchant of each."""

KIOSK: Final = 4

CARDS: Final = (
    ("student", "active", 20_000, 1_500),
    ("teacher", "active", 100_000, 0),
    ("student", "active", 300, 700),
    ("temporary", "active", 0, 0),
    ("family", "frozen", 5_000, 100),
    ("merchant", "inactive", 5_000, 0),
    ("student", "expired", 5_000, 500),
)
"""Class, status and opening balances of each."""

REPLACEMENT: Final = len(CARDS)
"""In the place of a card: a second one for the first one's holder, who has none at first."""

STRANGER: Final = REPLACEMENT + 1
"""In the place of a card: a number that nobody has."""

PIN: Final = "4711"
WITH_PIN: Final = (0, 1, 2)
"""The cards that have it."""


class Till:
    """A terminal's side of the protocol, and its connection. It signs on before it first sends."""

    def __init__(self, protocol: TerminalProtocol, connect: Callable[[], socket.socket]) -> None:
        self.protocol = protocol
        self._connect = connect
        self._stream: socket.socket | None = None
        self._frames = FrameBuffer()

    @property
    def stream(self) -> socket.socket:
        """Opened when it is first needed."""
        if self._stream is None:
            self._stream, self._frames = self._connect(), FrameBuffer()
        return self._stream

    def open(self) -> None:
        """Signs on, if it has not."""
        if not self.protocol.signed_on:
            self.stream.sendall(self.protocol.send(self.protocol.sign_on(now(), secrets.token_bytes(8))))
            self.hear(self.receive(1)[0])

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._stream = None
        self.protocol.connection_lost()

    def hear(self, message: bytes) -> None:
        """The terminal checks by itself what it is told."""
        self.protocol.receive(frame(message))

    def receive(self, count: int) -> list[bytes]:
        """So many messages. Fails where they do not come."""
        messages: list[bytes] = []
        while len(messages) < count:
            data = self.stream.recv(65_536)
            assert data, "the switch closed the connection"
            messages += [message for _, message in self._frames.feed(data)]
        return messages


@dataclass(eq=False)
class Asked:
    """A request that was made, and perhaps sent."""

    till: Till
    request: Request


# --- what is drawn ---


@dataclass(frozen=True)
class Ask:
    """What somebody asks for. Terminals and cards by their places, so that equal draws are equal on every campus."""

    operation: str
    terminal: int
    card: int
    amount: int
    variant: int
    """Which purse, kind of bill or event, item; of a request that names another, whether it names its card, too."""
    pin: str | None = None


SALES: Final = ("purchase", "offline_sale")
NAMING: Final = ("void", "refund", "completion")
INQUIRIES: Final = ("balance", "verify")
OPERATIONS: Final = frozenset().union(*KINDS.values(), {"reversal", "hotlist", "batch_close", "echo"})
OTHERS: Final = tuple(sorted(set().union(*KINDS.values()) - {*SALES, *NAMING, "hold", "load", "bill_payment"}))
ANY: Final = (*SALES, "hold", "load", "bill_payment", *OTHERS)


def asks(*operations: str) -> st.SearchStrategy[Ask]:
    """Mostly at a terminal that may do it, with a card that pays, and an amount that is none too high."""
    amounts = st.sampled_from([1, 7, 100, 333, 850, 850, 1_200, 5_000, 5_000, 850, 300, 1, 0, 5_000_001]) | st.integers(1, 3_000)

    def of(operation: str) -> st.SearchStrategy[Ask]:
        places = [place for place, (kind, _) in enumerate(TERMINALS) if operation in KINDS[kind]]
        # What was sold by a pos can be voided and refunded by it.
        places += [place for place in places if TERMINALS[place][0] == "pos"] * 3
        return st.builds(
            Ask,
            st.just(operation),
            st.sampled_from(places * (40 // len(places)) + [0, 3, 6]),
            st.sampled_from([0, 1, 2] * 5 + [*range(STRANGER + 1)]),
            amounts,
            st.sampled_from([0, 1, 2, 3, 3, 3, 3, 3]) if operation in NAMING else st.integers(0, 5),
            st.sampled_from([None, PIN, None, PIN, "0815"]) if operation in {"purchase", "hold", "bill_payment"} else st.none(),
        )

    return st.sampled_from(operations).flatmap(of)


def some(*operations: str, least: int = 1, most: int = 4) -> st.SearchStrategy[list[Ask]]:
    """One after the other."""
    return st.lists(asks(*operations), min_size=least, max_size=most)


FATES: Final = st.sampled_from([""] * 9 + ["doubled", "doubled", "request lost", "answer lost", "answer lost", "cut", "reset"])
"""What befalls a message."""


def _rule_of(line: str) -> str:
    """What makes it the same rule with another value."""
    return line.rpartition(",")[0]


def policies() -> st.SearchStrategy[list[str]]:
    """Lines of the policy file."""

    def lines(name: str, *values: str, of: Sequence[str] = ("*,*",), windows: Sequence[str] = (",,",)) -> st.SearchStrategy[str]:
        parts = (st.sampled_from(part) for part in ([f"{of}," if of.count(",") == 1 else of for of in of], windows, values))
        return st.tuples(*parts).map(lambda drawn: ",".join((name, *drawn)))

    concerned = [f"{card_class},{category}" for card_class in ("*", "student", "teacher") for category in ("*", "canteen", "shop", "bath")]
    # Terminals' clocks show about noon.
    today_is = now().isoweekday()
    windows = (",,", ",06:00,18:00", ",20:00,17:00", ",18:00,06:00", f"{today_is},08:00,16:00", f"{today_is % 7 + 1},,", "1-7,05:00,19:00")
    doors = [f"{card_class},,{zone}" for card_class in ("*", "student", "teacher") for zone in ("NORTH", "SOUTH")]
    return st.lists(
        st.one_of(
            lines("transaction_max", "1000", "4000", of=concerned),
            lines("day_max", "2000", "9000", of=concerned),
            lines("day_count", "2", "6", of=concerned),
            lines("meal", "1", "3", of=concerned, windows=windows[1:]),
            lines("pin_above", "0", "800", of=concerned),
            lines("subsidy", "yes", "no", of=concerned),
            lines("surcharge", "250", "-1000", "3333", "-10000", of=concerned),
            lines("refuse", "", of=concerned, windows=windows),
            lines("door", "", of=doors, windows=windows),
            lines("anti_passback", "1", "60", of=[",,NORTH"]),
        ),
        max_size=6,
        unique_by=_rule_of,
    )


class World:
    """The running switch, and what all campuses that were played on it came to."""

    def __init__(self, switch: Switch, database: str) -> None:
        self.switch = switch
        self.database = database
        self.numbers = itertools.count(1)
        self.played: list[Campus] = []
        self.answered: Counter[tuple[str, str]] = Counter()
        """Replies compared with the model, by operation and response."""
        self.last: CampusMachine | None = None
        self._reader: Till | None = None
        self.open()

    def open(self) -> None:
        """The operators' door, which is another one after each start."""
        token = (self.switch.folder / "keys" / "admin.token").read_text().strip()
        self.http = httpx.Client(
            base_url=f"http://{self.switch.ready['admin']}",
            headers={"authorization": f"Bearer {token}"},
            trust_env=False,
            timeout=DEADLINE_SECONDS,
        )

    def connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.switch.port), timeout=DEADLINE_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def power_cut(self) -> None:
        """And a new start."""
        self.close()
        self.switch.kill()
        self.switch.start()
        self.open()

    def enter(self, header: str, rows: Sequence[str]) -> None:
        """Imports a file."""
        response = self.http.post("/v1/import", params={"name": "model.csv"}, content="\n".join([header, *rows, ""]).encode())
        assert response.status_code == 200, response.text

    def look(self, path: str) -> dict[str, Any]:
        response = self.http.get(path)
        assert response.status_code == 200, response.text
        seen: dict[str, Any] = response.json()
        return seen

    def hotlist(self) -> Hotlist:
        """As it is now, by a terminal that reads what has changed since it was last asked."""
        if self._reader is None:
            key = secrets.token_bytes(16)
            self.enter(MERCHANTS_HEADER, ["READER,Reader,office,0"])
            self.enter(TERMINALS_HEADER, [f"READER,READER,kiosk,,{key.hex()}"])
            self._reader = Till(TerminalProtocol("READER", key, "READER"), self.connect)
        self._reader.open()
        while True:
            self._reader.stream.sendall(self._reader.protocol.send(self._reader.protocol.read_hotlist(now())))
            self._reader.hear(self._reader.receive(1)[0])
            if not self._reader.protocol.hotlist.reading:
                return self._reader.protocol.hotlist

    def close(self) -> None:
        self.http.close()
        if self._reader is not None:
            self._reader.close()

    def closed_and_position(self) -> tuple[int, int]:
        """Terminals' connections that the switch has seen the end of, and the last record that it decided."""
        told = self.look("/v1/statistics")
        return sum(told["connections"]["closed"].values()), told["position"]


class CampusMachine(RuleBasedStateMachine):
    """One campus: its parties are new, the switch is not."""

    sales: Bundle[Asked] = Bundle("sales")
    holds: Bundle[Asked] = Bundle("holds")
    moves: Bundle[Asked] = Bundle("moves")
    """All that moved money, or may have."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.number = next(world.numbers)
        self.sent: list[Asked] = []
        self.tills: list[Till] = []
        self.is_sound = False
        """As far as it was played."""
        self.cards = [f"623{self.number:06}{place:04}" for place in range(STRANGER + 1)]
        self.campus = Campus(today())
        self.policy: list[str] = []
        """Lines of the policy file."""

    @initialize(policy=policies())
    def open(self, policy: list[str]) -> None:
        world, number = self.world, self.number
        keys = [secrets.token_bytes(16) for _ in TERMINALS]
        names = [f"{number:05}T{place:02}" for place in range(len(TERMINALS))]
        zones = ["NORTH" if kind == "gate" else "" for kind, _ in TERMINALS]
        merchants = {letter: f"{letter}{number}" for letter in MERCHANTS}
        rows = [(name, merchants[of], kind, zone) for name, (kind, of), zone in zip(names, TERMINALS, zones, strict=True)]
        world.enter(MERCHANTS_HEADER, [f"{merchants[letter]},{letter},{category},0" for letter, category in MERCHANTS.items()])
        world.enter(TERMINALS_HEADER, [",".join([*row, key.hex()]) for row, key in zip(rows, keys, strict=True)])
        self._enter_policy(policy)
        self.tills = [
            Till(TerminalProtocol(name, key, merchant), world.connect) for (name, merchant, *_), key in zip(rows, keys, strict=True)
        ]
        hotlist = world.hotlist()
        self.campus = Campus(today(), hotlist.version, frozenset(hotlist.cards))
        self.campus.enter_parties({merchants[letter]: category for letter, category in MERCHANTS.items()}, rows, policy)
        self._enter_cards(*((place, *row) for place, row in enumerate(CARDS)))
        world.enter("card_number,pin", [f"{self.cards[place]},{PIN}" for place in WITH_PIN])
        for place in WITH_PIN:
            self.campus.cards[self.cards[place]]["pin"] = PIN
        self.is_sound = True

    def _enter_cards(self, *rows: tuple[int, str, str, int, int]) -> None:
        """Place, class, status and opening balances of each."""
        lines: list[str] = []
        entered: list[tuple[str, dict[str, Any]]] = []
        for place, card_class, status, cash, subsidy in rows:
            number, holder, expires = self.cards[place], f"H{self.number}-{place % REPLACEMENT}", today(-1 if status == "expired" else 700)
            known = {"holder": holder, "class": card_class, "status": "active" if status == "expired" else status, "expires": expires}
            lines.append(f"{number},{holder},{card_class},{known['status']},{expires},{cash},{subsidy}")
            entered.append((number, known))
        self.world.enter(CARDS_HEADER, lines)
        for (number, known), (*_, cash, subsidy) in zip(entered, rows, strict=True):
            self.campus.enter_card(number, cash, subsidy, **known)

    def _enter_policy(self, policy: list[str]) -> None:
        self.world.enter(RULES_HEADER, policy)
        self.policy = policy

    def _till(self, place: int) -> Till:
        self.tills[place].open()
        return self.tills[place]

    # --- making requests ---

    def _build(self, ask: Ask) -> Asked:
        till, at = self._till(ask.terminal), now()
        name, _, advice = ask.operation.partition(" ")
        more: dict[str, Any] = {"pin": Pin(ask.pin, bytes(8))} if ask.pin else {}
        arguments: list[Any] = [self.cards[ask.card]]
        match name:
            case "purchase" | "offline_sale":
                arguments, more = [*arguments, ask.amount], more | {"purse": ("00", "10", "20")[ask.variant % 3]}
            case "load" | "hold":
                arguments = [*arguments, ask.amount]
            case "bill_payment":
                arguments = [*arguments, ask.amount, [*BillKind][ask.variant % 4], "Room 7"]
            case "event":
                arguments = [[*EventKind][ask.variant % 4], *(["301"] if ask.variant > 2 else [])]
            case "borrow" | "return":
                arguments, more = [*arguments, f"I{self.number}-{ask.variant % 2}"], {"offline": bool(advice)}
            case "enter" | "leave" | "attendance" | "verify":
                more = {"offline": bool(advice)}
        make = getattr(till.protocol, "return_item" if name == "return" else name)
        return Asked(till, make(at, *arguments, **more))

    def _build_after(self, original: Asked, ask: Ask) -> Asked:
        """What names an earlier transaction: at its own terminal or another, with its card, another or none."""
        till = self._till(ask.terminal) if ask.variant == 0 else original.till
        reply = original.request.reply
        reference = (reply.retrieval_reference if reply is not None else None) or "000000000000"
        card = {1: None, 2: self.cards[ask.card]}.get(ask.variant, original.request.card_number)
        # Mostly a part of what there is.
        amount = ask.amount if ask.card == STRANGER else min(ask.amount, original.request.amount)
        if ask.operation == "void":
            return Asked(till, till.protocol.void(now(), reference, card, original.request.amount if ask.amount % 2 else None))
        return Asked(till, getattr(till.protocol, ask.operation)(now(), reference, amount, card))

    # --- messages out and in ---

    def _exchange(self, *messages: tuple[Asked, bool]) -> None:
        """Sends them all, those marked as repeats, and compares every reply with the model's."""
        self.is_sound = False
        expected: Counter[str] = Counter()
        for asked, repeat in messages:
            write = asked.till.protocol.repeat if repeat else asked.till.protocol.send
            asked.till.stream.sendall(write(asked.request))
            expected[asked.till.protocol.terminal_id] += 1
        heard = [(till, message) for till in self.tills for message in till.receive(expected[till.protocol.terminal_id])]
        self._compare([message for _, message in heard], messages)
        for till, message in heard:
            till.hear(message)
        self.is_sound = True

    def _compare(self, heard: Sequence[bytes], messages: Sequence[tuple[Asked, bool]]) -> None:
        """In the order in which the switch decided: by the transaction number, where there is one."""
        waiting = list(messages)
        for reply in sorted((_read(message) for message in heard), key=lambda reply: reply.get("37", "")):
            asked, repeat = next(sent for sent in waiting if _belongs(reply, *sent))
            waiting.remove((asked, repeat))
            expected = self._decide(asked, reply.get("37"), repeat=repeat)
            assert reply == expected, f"\nasked    {asked.request.mti} {asked.request.fields}\nmodel    {expected}\nswitch   {reply}"
            self.world.answered[operation_of({"t": asked.request.mti, **asked.request.fields}), reply["39"]] += 1

    def _decide(self, asked: Asked, reference: str | None, *, repeat: bool = False) -> Fields:
        request = asked.request
        mti = request.mti[:3] + "1" if repeat else request.mti
        return self.campus.decide({"t": mti, **request.fields}, reference, request.pin.digits if request.pin else None)

    def _deliver(self, *messages: Asked, fate: str = "") -> MultipleResults[Asked]:
        """What befalls the last of them; nothing befalls the others. Those that were granted, or nobody knows, are for bundles."""
        for asked in messages[:-1]:
            self._exchange((asked, False))
        self._befall(messages[-1], fate)
        self.sent += messages
        return multiple(*(asked for asked in messages if asked.request.reply is None or asked.request.reply.approved))

    def _deliver_after(self, first: Ask, then: Ask, fate: str) -> MultipleResults[Asked]:
        """The one, and what names it."""
        original = self.send(first)
        return self._deliver(self._build_after(original, then), fate=fate)

    def _befall(self, asked: Asked, fate: str) -> None:
        match fate:
            case "doubled":
                self._exchange((asked, False), (asked, False))
            case "request lost":
                asked.till.protocol.send(asked.request)
            case "answer lost":
                asked.till.stream.sendall(asked.till.protocol.send(asked.request))
                self._compare(asked.till.receive(1), [(asked, False)])
                asked.till.protocol.connection_lost()
            case "cut" | "reset":
                self._cut(asked, reset=fate == "reset")
            case _:
                self._exchange((asked, False))

    def _cut(self, asked: Asked, *, reset: bool) -> None:
        """The connection ends behind the request. Whether the switch read it, only its journal tells: a decision is a record."""
        closed, position = self.world.closed_and_position()
        asked.till.stream.sendall(asked.till.protocol.send(asked.request))
        if reset:
            asked.till.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        asked.till.close()
        while self.world.closed_and_position()[0] == closed:
            time.sleep(POLL_SECONDS / 10)
        # Whoever is answered now was read after it.
        self._exchange((Asked(asked.till, asked.till.protocol.echo(now())), False))
        if self.world.closed_and_position()[1] > position:
            self._decide(asked, None)

    def send(self, ask: Ask) -> Asked:
        """One of a script's."""
        asked = self._build(ask)
        self._deliver(asked)
        return asked

    def code_of(self, ask: Ask) -> str:
        """What it is answered."""
        reply = self.send(ask).request.reply
        assert reply is not None
        return reply.code

    def send_after(self, original: Asked, ask: Ask) -> Asked:
        """And one that names an earlier one."""
        asked = self._build_after(original, ask)
        self._deliver(asked)
        return asked

    # --- steps ---

    @rule(targets=[sales, moves], asks=some("purchase", "offline_sale"), fate=FATES)
    def sell(self, asks: list[Ask], fate: str) -> MultipleResults[Asked]:
        return self._deliver(*(self._build(ask) for ask in asks), fate=fate)

    @rule(targets=[holds, moves], asks=some("hold"), fate=FATES)
    def hold(self, asks: list[Ask], fate: str) -> MultipleResults[Asked]:
        return self._deliver(*(self._build(ask) for ask in asks), fate=fate)

    @rule(target=moves, asks=some("load", "bill_payment"), fate=FATES)
    def load_or_pay(self, asks: list[Ask], fate: str) -> MultipleResults[Asked]:
        return self._deliver(*(self._build(ask) for ask in asks), fate=fate)

    @rule(asks=some(*OTHERS, *INQUIRIES, "enter", "leave", least=4, most=8), fate=FATES)
    def ask(self, asks: list[Ask], fate: str) -> None:
        self._deliver(*(self._build(ask) for ask in asks), fate=fate)

    @rule(targets=[sales, moves], original=holds, asks=some("completion"), fate=FATES)
    def complete(self, original: Asked, asks: list[Ask], fate: str) -> MultipleResults[Asked]:
        return self._deliver(*(self._build_after(original, ask) for ask in asks), fate=fate)

    @rule(target=moves, original=sales, asks=some("refund"), fate=FATES)
    def refund(self, original: Asked, asks: list[Ask], fate: str) -> MultipleResults[Asked]:
        return self._deliver(*(self._build_after(original, ask) for ask in asks), fate=fate)

    @rule(original=sales, ask=asks("void"), fate=FATES)
    def void(self, original: Asked, ask: Ask, fate: str) -> None:
        self._deliver(self._build_after(original, ask), fate=fate)

    @rule(target=moves, first=asks("hold"), then=asks("completion"), fate=FATES)
    def meter(self, first: Ask, then: Ask, fate: str) -> MultipleResults[Asked]:
        return self._deliver_after(first, then, fate)

    @rule(target=moves, first=asks(*SALES), then=asks("refund", "void"), fate=FATES)
    def sell_and_give_back(self, first: Ask, then: Ask, fate: str) -> MultipleResults[Asked]:
        return self._deliver_after(first, then, fate)

    @rule(first=asks("borrow", "borrow advice"), then=asks("return", "return advice"), fate=FATES)
    def lend(self, first: Ask, then: Ask, fate: str) -> None:
        """And take it back, at the same place and from the same card."""
        self._deliver(self._build(first))
        self._deliver(self._build(replace(first, operation=then.operation)), fate=fate)

    @rule(original=moves, named=st.booleans(), fate=FATES)
    def reverse(self, original: Asked, named: bool, fate: str) -> None:
        request = original.till.protocol.reversal(now(), original.request, original_data=named)
        self._deliver(Asked(original.till, request), fate=fate)

    @rule(back=st.integers(0, 20), power_cut=st.sampled_from([False] * 60 + [True]))
    def repeat(self, back: int, power_cut: bool) -> None:
        """What was sent so many messages ago, or the first; seldom, because a start takes its time, after a power cut."""
        if power_cut:
            self.world.power_cut()
            for till in self.tills:
                till.close()
        if self.sent:
            self._exchange((self.sent[max(0, len(self.sent) - 1 - back)], True))

    @rule(back=st.integers(0, 20), ask=asks(*NAMING), named=st.booleans(), wrong=st.sampled_from(["", "2", "4"]), names=st.booleans())
    def undo_anything(self, back: int, ask: Ask, named: bool, wrong: str, names: bool) -> None:
        """Also what cannot be undone, and naming another card or amount."""
        if not self.sent:
            return
        original = self.sent[max(0, len(self.sent) - 1 - back)]
        if names:
            self._deliver(self._build_after(original, ask))
            return
        request = original.till.protocol.reversal(now(), original.request, original_data=named)
        if wrong:
            request.fields[wrong] = {"2": self.cards[3], "4": f"{850:012}"}[wrong]
        self._deliver(Asked(original.till, request))

    @rule(
        wave=st.lists(
            st.tuples(asks(*(name for name in ANY if name not in INQUIRIES)), st.sampled_from(["", "", "undone", "undone before"])),
            min_size=2,
            max_size=6,
        )
    )
    def ask_at_once(self, wave: list[tuple[Ask, str]]) -> None:
        """Several, from whatever terminals, and reversals of some of them, before any answer is read."""
        messages: list[Asked] = []
        for ask, undone in wave:
            asked = self._build(ask)
            reversal = [Asked(asked.till, asked.till.protocol.reversal(now(), asked.request))] if undone else []
            messages += [*reversal, asked] if undone == "undone before" else [asked, *reversal]
        self.sent += messages
        self._exchange(*((asked, False) for asked in messages))

    @rule(
        ask=asks(*ANY),
        wrong=st.sampled_from(
            ["mac", "number", *(f"day {days}" for days in (-9, -8, -7, -1, 1, 2)), *("2", "3", "4", "42", "48", "49", "91", "101")]
        ),
        back=st.integers(0, 20),
    )
    def ask_wrongly(self, ask: Ask, wrong: str, back: int) -> None:
        """An element is missing, the merchant is another one, the MAC is wrong, the number was used already, the day is not this one."""
        asked = self._build(ask)
        elements, stream = asked.request.fields, asked.till.stream
        if wrong == "42":
            elements["42"] = "SOMEBODY".ljust(15)
        elif wrong.startswith("day "):
            elements["13"] = f"{today(int(wrong[4:])):%m%d}"
        elif wrong == "number":
            own = [sent for sent in self.sent if sent.till is asked.till]
            elements.update({element: own[max(0, len(own) - 1 - back)].request.fields[element] for element in ("11", "12")} if own else {})
            asked.till.protocol.connection_lost()
        elif wrong == "mac":
            stream.sendall(asked.till.protocol.send(asked.request)[:-8] + bytes(8))
            (answer,) = asked.till.receive(1)
            assert decode(answer)["39"] == "63"
            asked.till.hear(answer)
            # Nothing was changed and its number is free still; and wrong MACs in a row would close the connection.
        else:
            elements.pop(wrong, None)
            asked.request.pin = None
        self._deliver(asked)

    @rule(place=st.integers(0, len(TERMINALS) - 1), lost=st.sampled_from([None, 3, 4, 0]))
    def read_hotlist(self, place: int, lost: int | None) -> None:
        """To its end, while a card is reported lost."""
        till, kiosk = self._till(place), self._till(KIOSK)
        while True:
            self._exchange((Asked(till, till.protocol.read_hotlist(now())), False))
            if not till.protocol.hotlist.reading:
                break
            if lost is not None:
                self._exchange((Asked(kiosk, kiosk.protocol.loss(now(), self.cards[lost])), False))
        hotlist = till.protocol.hotlist
        assert hotlist.cards == self.campus.lists[hotlist.version]

    @rule(place=st.integers(0, len(TERMINALS) - 1), wrong=st.sampled_from([0, 0, 1]))
    def close_batch(self, place: int, wrong: int) -> None:
        """By what the terminal counted itself, or by something else; and where that is not right, by the switch's own totals."""
        till = self._till(place)
        asked = Asked(till, till.protocol.batch_close(now()))
        asked.request.fields["88"] = f"{int(asked.request.fields['88']) + wrong:016}"
        self._exchange((asked, False))
        totals = asked.request.reply.totals if asked.request.reply is not None else None
        if totals is not None:
            self._exchange((Asked(till, till.protocol.batch_close(now(), totals=totals)), False))

    @rule(
        place=st.integers(0, REPLACEMENT),
        status=st.sampled_from(["active", "active", "active", "frozen", "blacklisted", "cancelled", "inactive"]),
    )
    def change_status(self, place: int, status: str) -> None:
        """By the operator. Nobody has two cards that live: who has none gets a second one in its place."""
        number, holder = self.cards[place], f"H{self.number}-{place % REPLACEMENT}"
        others = {card["status"] for other, card in self.campus.cards.items() if card["holder"] == holder and other != number}
        if not (status in LIVE and others & LIVE):
            self._enter_cards((place, CARDS[place % REPLACEMENT][0], status, 0, 0))

    @rule(policy=policies(), keep=st.sets(st.integers(0, 5)))
    def change_rules(self, policy: list[str], keep: set[int]) -> None:
        """All of them at once; some stay as they were, and go on counting."""
        lines = {_rule_of(line): line for line in policy}
        lines |= {_rule_of(line): line for place, line in enumerate(self.policy) if place in keep}
        self._enter_policy([*lines.values()])
        self.campus.enter_policy(self.policy)

    def teardown(self) -> None:
        try:
            if self.is_sound:
                self._look()
        finally:
            for till in self.tills:
                till.close()

    def _look(self) -> None:
        """At every card and merchant of this campus."""
        accounts = self.campus.accounts
        assert sum(accounts.values()) == 0
        for number, card in self.campus.cards.items():
            cash, subsidy = (accounts[kind, card["holder"]] for kind in ("cash", "subsidy"))
            held = cash - self.campus.available(card["holder"])[0]
            expected = {"cash": cash, "subsidy": subsidy, "holds": held, "status": card["status"], "class": card["class"]}
            shown = self.world.look(f"/v1/show/card/{number}")
            assert {key: shown[key] for key in expected} == expected, number
        for merchant in self.campus.merchants:
            assert self.world.look(f"/v1/show/merchant/{merchant}")["balance"] == accounts["merchant", merchant]
        self.world.played.append(self.campus)
        self.world.last = self

    def ask_again(self) -> None:
        """Everything that was ever sent, on new connections: it is answered as before."""
        for asked in self.sent:
            self._exchange((asked, True))
        for till in self.tills:
            till.close()


def _read(message: bytes) -> Fields:
    fields = decode(message)
    assert fields.pop("64", None) or fields.pop("128", None), fields
    return fields


def _belongs(reply: Fields, asked: Asked, repeat: bool) -> bool:
    elements = asked.request.fields
    mti = f"{int(asked.request.mti) + 10:04}"[:3] + ("1" if repeat else "0")
    return reply["t"] == mti and all(reply[element] == elements[element] for element in ("11", "13", "41"))


@pytest.fixture
def world(make_switch: Callable[..., Switch], database_url: str) -> Iterator[World]:
    """A switch with a hotlist that has more pieces than one."""
    switch = make_switch(database=database_url)
    switch.start()
    world = World(switch, database_url)
    world.enter(CARDS_HEADER, [f"1{number:04},L{number},student,lost,{today(700)},0,0" for number in range(100)])
    yield world
    world.close()


def test_what_refunds_gave_back_is_neither_given_twice_nor_to_another_purse(world: World) -> None:
    """A sale of both purses, two refunds, the first of them taken back, then the sale: to the fen what was paid."""
    for policy in ([], ["surcharge,*,*,,,,,3333"], ["surcharge,*,*,,,,,-3333"]):
        campus = CampusMachine(world)
        campus.open(policy=policy)
        sale = campus.send(Ask("purchase", 0, 0, 2_000, 0))
        first, _ = (campus.send_after(sale, Ask("refund", 0, 0, amount, 3)) for amount in (500, 701))
        campus.reverse(original=first, named=True, fate="")
        campus.reverse(original=sale, named=True, fate="")
        _, _, cash, subsidy = CARDS[0]
        assert campus.campus.available(f"H{campus.number}-0") == (cash, subsidy)
        campus.teardown()


def test_a_rule_counts_from_where_it_comes_into_force(world: World) -> None:
    """What was made before is neither counted nor given back, whatever becomes of it; a rule that stays as it was goes on."""
    campus = CampusMachine(world)
    campus.open(policy=[])
    hold, sale = campus.send(Ask("hold", 5, 1, 500, 0)), campus.send(Ask("purchase", 0, 1, 700, 0))
    campus.change_rules(policy=["day_max,*,*,,,,,1000", "day_count,*,*,,,,,3"], keep=set())
    campus.send(Ask("purchase", 0, 1, 600, 0))
    used = campus.send_after(hold, Ask("completion", 5, 1, 300, 3))
    refund = campus.send_after(sale, Ask("refund", 0, 1, 200, 3))
    assert campus.code_of(Ask("purchase", 0, 1, 400, 0)) == "00"
    for undone in (used, refund, sale):
        campus.reverse(original=undone, named=True, fate="")
        assert campus.code_of(Ask("purchase", 0, 1, 1, 0)) == "61"
    # The count stays at two, the amount begins anew.
    campus.change_rules(policy=["day_max,*,*,,,,,900"], keep={1})
    assert campus.code_of(Ask("purchase", 0, 1, 901, 0)) == "61"
    assert campus.code_of(Ask("purchase", 0, 1, 900, 0)) == "00"
    assert campus.code_of(Ask("purchase", 0, 1, 1, 0)) == "61"
    campus.change_rules(policy=[], keep={1})
    assert campus.code_of(Ask("purchase", 0, 1, 1, 0)) == "65"
    campus.change_rules(policy=[], keep=set())
    assert campus.code_of(Ask("purchase", 0, 1, 1, 0)) == "00"
    campus.teardown()


def test_every_operation_in_any_order_is_answered_as_the_model_says(
    world: World, pytestconfig: pytest.Config, chance: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of six campuses five would be copies of another with a part of it repeated; a campus costs too much for that.
    monkeypatch.setattr(ConjectureRunner, "generate_mutations_from", lambda *_: None)
    settings = hypothesis.settings(
        max_examples=pytestconfig.getoption("model_examples"),
        stateful_step_count=STEPS,
        deadline=None,
        report_multiple_bugs=False,
        database=None,
        phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    machine = hypothesis.seed(chance.getrandbits(64))(lambda: CampusMachine(world))
    run_state_machine_as_test(machine, settings=settings)  # type: ignore[arg-type] # it takes a factory as well
    if pytestconfig.getoption("model_examples") >= CAMPUSES:
        approved = {name for name, code in world.answered if code == "00"}
        assert approved == OPERATIONS
    _all_books_agree(world)


def _all_books_agree(world: World) -> None:
    """Ledger, PostgreSQL and all models together; and what the last campus asked is answered alike after a power cut."""
    switch = world.switch
    while world.look("/readyz")["settlement"]["lag"]:
        time.sleep(POLL_SECONDS)
    reconciled = report_of(switch.command("reconcile", "--config", switch.file))
    assert reconciled["ok"], reconciled
    assert reconciled["settlement_sum"] == reconciled["ledger_sum"] == 0
    replica = Replica(switch.journal)
    replica.advance(reconciled["position"])
    modelled: Counter[tuple[str, str]] = Counter()
    for campus in world.played:
        modelled.update(campus.accounts)
    held = {(kind, owner): balance for _, kind, owner, balance, _ in json.loads(replica.accounts()) if balance}
    assert held == {account: balance for account, balance in modelled.items() if balance}
    _tables_agree(world)
    _evidence_is_sound(world, reconciled["position"])
    world.power_cut()
    assert world.last is not None
    world.last.ask_again()


def _evidence_is_sound(world: World, last: int) -> None:
    """What is told of all of it to somebody outside follows from the records, whole and in a part that begins later."""
    for first in (1, last // 2):
        report = world.switch.folder / f"evidence-from-{first}"
        made = world.switch.command("audit", "--config", world.switch.file, "--from", str(first), "--to", str(last), "--output", report)
        assert made.returncode == 0, made
        found = evidence.check(report)
        assert (found.ok, found.last) == (True, last), found


def _tables_agree(world: World) -> None:
    """What PostgreSQL tells of decisions, holds, loans and batches is what the models say."""
    decided: dict[int, tuple[Any, ...]] = {}
    holds: Counter[str] = Counter()
    loans: dict[str, str] = {}
    batches: dict[tuple[str, int], list[int]] = {}
    for campus in world.played:
        for identity, (_, reply, name) in campus.answers.items():
            # The number of a reply that was lost and never asked for again is not known.
            if reply["37"]:
                flag = campus.deeds[identity]["flag"] if identity in campus.deeds and reply["39"] == "00" else None
                is_advice = name.endswith("advice") or name in {"offline_sale", "completion"}
                decided[int(reply["37"])] = (name.removesuffix(" advice"), reply["39"], flag, is_advice)
        for deed in campus.deeds.values():
            holds.update({deed["holder"]: deed["held"]} if deed["held"] else {})
        loans |= campus.loans
        batches |= {key: totals for key, totals in campus.totals.items() if any(totals)}

    def rows(query: str) -> list[tuple[Any, ...]]:
        return run_asyncio(fetch(world.database, query))

    told = {row[0]: row[1:] for row in rows("SELECT position, operation, response, flag, is_advice FROM transaction")}
    assert {position: told.get(position) for position in decided} == decided
    assert dict(rows("SELECT holder_id, sum(amount)::bigint FROM hold GROUP BY 1")) == holds
    assert dict(rows("SELECT item, holder_id FROM loan")) == loans
    parts = [f"{side}{back}_{what}" for what in ("count", "amount") for side in ("credit", "debit") for back in ("", "_reversal")]
    counted = {(row[0], row[1]): [*row[2:]] for row in rows(f"SELECT terminal_id, number, {', '.join(parts)} FROM batch")}  # noqa: S608
    assert {key: totals for key, totals in counted.items() if any(totals)} == batches
