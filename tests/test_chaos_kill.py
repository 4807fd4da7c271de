"""`kill -9` at random moments, round after round on one folder, which grows over starts and segments.

Twenty rounds in the ordinary run; `make chaos ROUNDS=200 SEED=n` is the long one, with a line a round and a summary at its end.
"""

import json
import os
import random
import signal
import time
from collections.abc import Callable
from typing import Final

import httpx
import pytest
import trio

from tests.chaos import Campus, open_files
from tests.switch_process import CARDS_HEADER, DEADLINE_SECONDS, FAR_FUTURE, Switch, in_thread

IMPORTED_CARDS: Final = 2000


class Rounds:
    """What is done to the switch of a campus that sells. Each round ends with the switch dead."""

    def __init__(self, campus: Campus) -> None:
        self.switch = campus.switch
        self.start_seconds_max = 0.0
        self._campus = campus
        self._chance = campus.chance
        self._imports = 0
        self._start_seconds = 0.5

    async def selling(self) -> None:
        await self._pause(0.6)
        await in_thread(self.switch.kill)

    async def starting(self) -> None:
        """Anywhere between the command and a moment behind the ready line."""
        await self.selling()
        self.switch.spawn()
        await self._pause(1.1 * self._start_seconds)
        await in_thread(self.switch.kill)

    async def replaying(self) -> None:
        """With the journal's lock in hand, about where no terminal is served yet."""
        await self.selling()
        self.switch.spawn()
        lock = str(self.switch.journal / "lock")
        with trio.fail_after(DEADLINE_SECONDS):
            # As often as can be: what is to be met takes some milliseconds.
            while lock not in open_files(self.switch.pid):
                await trio.lowlevel.checkpoint()
        await self._pause(0.02)
        await in_thread(self.switch.kill)

    async def importing(self) -> None:
        """All of the file is there afterwards, or nothing; all of it if that was said."""
        self._imports += 1
        numbers = [f"77{self._imports:06}{card:06}" for card in range(IMPORTED_CARDS)]
        content = "\n".join([CARDS_HEADER, *(f"{number},I{number},student,active,{FAR_FUTURE},700,50" for number in numbers)])
        said: list[int] = []

        async def load() -> None:
            try:
                response = await self.switch.http("POST", "/v1/import", params={"name": "cards.csv"}, content=content.encode())
            except httpx.HTTPError:
                return
            said.append(response.status_code)

        before = (await self.switch.metrics()).value("switch_entries", kind="cards")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load)
            await self._pause(0.12)
            await in_thread(self.switch.kill)
        await self.start()
        added = (await self.switch.metrics()).value("switch_entries", kind="cards") - before
        assert added in ({IMPORTED_CARDS} if said == [200] else {0, IMPORTED_CARDS}), (added, said)
        await self.switch.enter(content)
        assert await self.switch.purses(numbers[0]) == await self.switch.purses(numbers[-1]) == (700, 50)
        await in_thread(self.switch.kill)

    async def draining(self) -> None:
        await self._pause(0.3)
        self.switch.signal(signal.SIGTERM)
        await self._pause(0.05)
        self.switch.signal(signal.SIGKILL)
        assert await in_thread(self.switch.ended) in {0, -signal.SIGKILL}

    async def settling(self) -> None:
        """The follower dies first."""
        follower = await self.switch.follower()
        await self._pause(0.3)
        os.kill(follower, signal.SIGKILL)
        await self.selling()

    async def start(self) -> None:
        """Start it after a look at what it left."""
        await in_thread(self._campus.sound)
        began = time.monotonic()
        await in_thread(self.switch.start)
        self._start_seconds = time.monotonic() - began
        self.start_seconds_max = max(self.start_seconds_max, self._start_seconds)

    async def _pause(self, seconds_max: float) -> None:
        """Up to a moment that nothing in the switch knows of."""
        await trio.sleep(self._chance.uniform(0, seconds_max))


async def test_killed_again_and_again(
    make_switch: Callable[..., Switch], database_url: str, chance: random.Random, pytestconfig: pytest.Config
) -> None:
    rounds_wanted: int = pytestconfig.getoption("chaos_rounds")
    # Snapshots are made, and segments go, all the while.
    switch = make_switch(database=database_url, journal_snapshot_records=1_000, journal_old_segments="archive")
    campus = await Campus.open(switch, database_url, chance)
    rounds = Rounds(campus)
    # Half of them while it sells, which is what it does; of the rest each kind as often as any other.
    kinds = [rounds.selling, rounds.starting, rounds.selling, rounds.replaying, rounds.selling, rounds.importing, rounds.draining]
    kinds += [rounds.selling, rounds.settling]
    began = time.monotonic()
    async with campus.open_tills():
        await campus.goes_on()
        for number in range(rounds_wanted):
            kind = kinds[number % len(kinds)]
            await kind()
            campus.tally.kills[kind.__name__] += 1
            await rounds.start()
            await campus.goes_on(20)
            print(f"round {number + 1} of {rounds_wanted}: killed while {kind.__name__}, {campus.tally.approved} purchases approved")  # noqa: T201
    await campus.settled()
    await in_thread(campus.switch.stop)
    checked = await campus.verdict()
    summary = {
        "rounds": rounds_wanted,
        **vars(campus.tally),
        "records": checked["records"],
        "segments": len(list(campus.switch.journal.glob("*.segment"))),
        "archived": len(list((campus.switch.folder / "archive").glob("*.segment"))),
        "start_seconds_max": round(rounds.start_seconds_max, 2),
        "seconds": round(time.monotonic() - began),
    }
    print(json.dumps(summary))  # noqa: T201
    # What was to be met was met.
    assert list(campus.switch.journal.glob("*.snapshot"))
    assert campus.tally.in_doubt > rounds_wanted
    assert campus.tally.reversed > 0
    assert campus.tally.declined > 0
