"""A campus under load whose terminals keep books of their own, and the verdict: those books, the journal and PostgreSQL agree to the fen.

For what: tests that kill, freeze and starve the real process. Whatever they do to it, the terminals go on: they repeat what was not
answered, or reverse it, sometimes while its answer is on the way, and sometimes send the reversed purchase once more.

Always true here: a till writes down what it asks before it asks, and every answer that it gets; it stops only when each of its sales has
ended with an answer. So at the end its books say what was paid, and what the switch holds beyond that is invented, what it lacks is lost.

How it works: `Campus` owns the switch and its tills; `Campus.verdict` compares, with the switch at rest, sale by sale and account by
account.
"""

import math
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

import msgspec
import trio

from switch._core import Replica
from switch.settlement import Settlement
from switch.terminal import Terminal
from switch.terminal_protocol import Reply, Request
from tests.conftest import fetch, run_asyncio
from tests.faults import remake
from tests.switch_process import MERCHANTS, SHOP, Switch, in_thread, now, report_of, until

SEGMENT_BYTES: Final = 8_388_608
"""The smallest: a campaign fills several."""

OPENING: Final = 100_000_000
POOR: Final = (0, 500)
"""Opening balances, cash and subsidy: the plenty of most cards is in `OPENING`, and these run dry, so that 51 is remembered too."""

IMPATIENT: Final = 0.15
"""The share of sales that are given up before long, and reversed."""

PATIENCE_SECONDS: Final = 600.0
"""Of the others: longer than any outage that a test makes."""

PAUSE_SECONDS: Final = 0.004
"""Between two sales of a till."""

Key = Literal["terminal_id", "merchant_id", "card_number"]
KEYS: Final[tuple[Key, ...]] = get_args(Key)


@dataclass(eq=False)
class Sale:
    """One purchase in a till's books."""

    request: Request
    reply: Reply | None = None
    """Its answer; None: it was given up before one came."""
    reversal: Reply | None = None
    late: Reply | None = None
    """The answer to the purchase sent once more after its reversal."""

    @property
    def paid(self) -> bool:
        return self.reply is not None and self.reply.approved and self.reversal is None

    @property
    def replies(self) -> Iterator[Reply]:
        return (reply for reply in (self.reply, self.reversal, self.late) if reply is not None)


@dataclass
class Tally:
    """What a campaign did, for its summary."""

    approved: int = 0
    declined: int = 0
    reversed: int = 0
    in_doubt: int = 0
    """Requests that were sent again because no answer came, or reversed."""
    full: int = 0
    """Answers 91."""
    kills: Counter[str] = field(default_factory=Counter)
    """By what the switch was at."""


class Till:
    """A terminal in use."""

    def __init__(self, terminal: Terminal, cards: list[str], chance: random.Random, tally: Tally) -> None:
        self.sales: list[Sale] = []
        self.terminal = terminal
        self.seconds_max = 0.0
        """The longest that a sale took since this was set to 0."""
        self._cards = cards
        self._chance = chance
        self._tally = tally

    async def serve(self, over: trio.Event) -> None:
        """Sell until it is over, then end the sale at hand."""
        await self.terminal.sign_on()
        while not over.is_set():
            await self._sell()
            await trio.sleep(PAUSE_SECONDS)

    async def _sell(self) -> None:
        protocol, chance = self.terminal.protocol, self._chance
        request = protocol.purchase(now(), chance.choice(self._cards), chance.randint(1, 900))
        sale = Sale(request)
        self.sales.append(sale)
        began, repeats = trio.current_time(), self.terminal.repeats
        with trio.move_on_after(chance.expovariate(200) if chance.random() < IMPATIENT else math.inf):
            sale.reply = await self._answer(request)
        if sale.reply is None:
            sale.reversal = await self._answer(protocol.reversal(now(), request, original_data=chance.random() < 0.5))
            assert sale.reversal.approved, sale.reversal.meaning
            self._tally.reversed += 1
            if chance.random() < 0.3:
                sale.late = await self._answer(request, repeat=True)
                assert sale.late.code in {"00", "12", "51"}, sale.late.meaning
        else:
            self.seconds_max = max(self.seconds_max, trio.current_time() - began)
            assert sale.reply.code in {"00", "51"}, sale.reply.meaning
            self._tally.approved += sale.reply.approved
            self._tally.declined += not sale.reply.approved
        self._tally.in_doubt += sale.reply is None or self.terminal.repeats > repeats

    async def _answer(self, request: Request, *, repeat: bool = False) -> Reply:
        """Ask until it is decided: 91 decides nothing."""
        while (reply := await self.terminal.exchange(request, repeat=repeat)).code == "91":
            self._tally.full += 1
            repeat = True
            await trio.sleep(0.1)
        return reply


class Campus:
    """A switch on a fresh folder, its tills, and what they did."""

    def __init__(self, switch: Switch, database: str | None, chance: random.Random) -> None:
        self.switch = switch
        self.database = database
        """Where the switch settles; None: it has no database."""
        self.chance = chance
        self.tally = Tally()
        self.tills: list[Till] = []
        self.cards: dict[str, int] = {}
        """What each was opened with."""

    @classmethod
    async def open(cls, switch: Switch, database: str | None, chance: random.Random, *, tills: int = 12, cards: int = 40) -> "Campus":
        """Start the switch, on a port that it keeps and no outgoing connection can take, and enter the parties."""
        remake(switch, SEGMENT_BYTES)
        switch.configure(terminals_port=_free_port(chance))
        await in_thread(switch.start)
        await switch.enter(MERCHANTS)
        campus = cls(switch, database, chance)
        rich = await switch.cards(cards - cards // 8, cash=OPENING // 2, subsidy=OPENING // 2)
        poor = await switch.cards(cards // 8, cash=POOR[0], subsidy=POOR[1])
        campus.cards = {**dict.fromkeys(rich, OPENING), **dict.fromkeys(poor, sum(POOR))}
        for device in [*await switch.devices(tills - tills // 4), *await switch.devices(tills // 4, merchant=SHOP)]:
            terminal = switch.terminal(device, patience_seconds=PATIENCE_SECONDS)
            campus.tills.append(Till(terminal, list(campus.cards), random.Random(chance.random()), campus.tally))  # noqa: S311
        return campus

    @asynccontextmanager
    async def open_tills(self) -> AsyncIterator[None]:
        """Sell for the length of the block, and then until every sale has ended with an answer. The switch must run by then."""
        over = trio.Event()
        try:
            async with trio.open_nursery() as nursery:
                for till in self.tills:
                    nursery.start_soon(till.serve, over)
                yield
                over.set()
        finally:
            for till in self.tills:
                till.terminal.close()

    async def goes_on(self, sales: int = 50, *, or_full: bool = False) -> None:
        """Wait until so many more are approved, or, where that may be, answered 91."""

        async def sold() -> int:
            await trio.lowlevel.checkpoint()
            return self.tally.approved + (self.tally.full if or_full else 0)

        wanted = await sold() + sales
        await until(sold, lambda sold: sold >= wanted)

    def forget_seconds(self) -> None:
        """Begin anew to look for the longest sale."""
        for till in self.tills:
            till.seconds_max = 0.0

    def seconds_max(self) -> float:
        """How long the longest sale took that has ended since."""
        return max(till.seconds_max for till in self.tills)

    async def settled(self) -> None:
        """Wait until PostgreSQL has what is durable now."""
        wanted = (await self.switch.metrics()).value("switch_journal_durable_position")
        await until(self.switch.metrics, lambda now: now.value("switch_settled_position") >= wanted)

    # What must hold with nothing running.

    def sound(self) -> dict[str, Any]:
        """What `switch verify` says of a journal whose switch is dead: it is whole, and no answer ran ahead of it."""
        checked = self.switch.verify()
        assert checked["ok"], checked
        assert checked["sum"] == 0
        durable = Replica(self.switch.journal, archive=self.switch.folder / "archive").durable
        answered = max((int(reply.retrieval_reference or 0) for sale in self._sales() for reply in sale.replies), default=0)
        # The mark is noted before anybody is told, so an answer beyond it left before its record was durable.
        assert answered <= durable <= checked["records"], (answered, durable, checked["records"])
        return checked

    async def verdict(self) -> dict[str, Any]:
        """With the switch at rest (ended by order, or nobody asks): books, journal and PostgreSQL agree, and nothing is there twice."""
        checked = self.sound()
        spent = {key: self._spent(key) for key in KEYS}
        replica = Replica(self.switch.journal, archive=self.switch.folder / "archive")
        replica.advance(replica.durable)
        assert (replica.position, replica.digest(), replica.sum()) == (checked["records"], checked["state_digest"], 0)
        for card, opening in self.cards.items():
            shown = _decode(replica.show("card", card))
            assert shown["cash"] + shown["subsidy"] == opening - spent["card_number"][card], (card, shown)
        for merchant, taken in spent["merchant_id"].items():
            assert _decode(replica.show("merchant", merchant))["balance"] == taken, merchant
        (some,) = self.chance.sample(list(self.cards), 1)
        completed = await in_thread(lambda: self.switch.command("show", "--config", self.switch.file, "--json", "card", some))
        assert completed.stdout.encode().strip() == replica.show("card", some), completed
        if self.database is not None:
            await self._verdict_of_postgresql(self.database, checked, spent)
        return checked

    async def _verdict_of_postgresql(self, database: str, checked: dict[str, Any], spent: dict[Key, Counter[str]]) -> None:
        reconciled = report_of(await in_thread(lambda: self.switch.command("reconcile", "--config", self.switch.file)))
        assert (reconciled["ok"], reconciled["position"], reconciled["state_digest"]) == (True, checked["records"], checked["state_digest"])

        async def spending() -> dict[Key, dict[str, int]]:
            async with Settlement.connect(database) as settlement:
                return {key: {name: fen for name, fen in (await settlement.spent(key)).items() if fen} for key in spent}

        assert await in_thread(lambda: run_asyncio(spending())) == {key: +books for key, books in spent.items()}
        twice = "SELECT terminal_id, local_time::date, stan, operation, count(*) FROM transaction GROUP BY 1, 2, 3, 4 HAVING count(*) > 1"
        assert await in_thread(lambda: run_asyncio(fetch(database, twice))) == [], "an identity twice"
        counts = "SELECT count(*), count(DISTINCT position) FROM transaction"
        assert await in_thread(lambda: run_asyncio(fetch(database, counts))) == [(reconciled["transactions"],) * 2]
        found = (
            "SELECT terminal_id, operation, stan, position, response, card_number, amount FROM transaction"
            " WHERE operation IN ('purchase', 'reversal')"
        )
        self._compare({row[:3]: row[3:] for row in await in_thread(lambda: run_asyncio(fetch(database, found)))})

    def _compare(self, rows: dict[tuple[Any, ...], tuple[Any, ...]]) -> None:
        """Row by row: each answer is there as it was given, and nothing else is but what was given up without one."""
        for till in self.tills:
            terminal = till.terminal.protocol.terminal_id
            for sale in till.sales:
                purchase = rows.pop((terminal, "purchase", int(sale.request.stan)), None)
                answer = sale.reply or sale.late
                if answer is not None:
                    assert purchase == _row(answer), (terminal, sale.request.stan)
                if sale.reversal is not None:
                    reversal = rows.pop((terminal, "reversal", int(sale.reversal.request.stan)), None)
                    assert reversal == _row(sale.reversal), (terminal, sale.request.stan)
        assert rows == {}, "invented"

    def _sales(self) -> Iterator[Sale]:
        return (sale for till in self.tills for sale in till.sales)

    def _spent(self, key: Key) -> Counter[str]:
        element = {"terminal_id": "41", "merchant_id": "42", "card_number": "2"}[key]
        spent: Counter[str] = Counter()
        for sale in self._sales():
            assert sale.reply or sale.reversal, "a sale without an end"
            if sale.paid:
                spent[sale.request.fields[element].rstrip()] += sale.request.amount
        return spent


def open_files(pid: int) -> Iterable[str]:
    """The files that a process has open, by name; none once it has ended."""
    try:
        return [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return []


def _row(answer: Reply) -> tuple[int, str, str | None, int]:
    """What PostgreSQL holds of this answer: position, response, card number, amount in fen."""
    return int(answer.retrieval_reference or 0), answer.code, answer.request.card_number, answer.request.amount


def _decode(shown: bytes | None) -> dict[str, Any]:
    assert shown is not None
    return msgspec.json.decode(shown, type=dict[str, Any])


def _free_port(chance: random.Random) -> int:
    """A port below those that the system gives to outgoing connections: a terminal that knocks while nobody listens must not get it."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = chance.randrange(first - 12_000, first)
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                continue
        return port
