"""The disk fails, fills or the process dies at the very system calls by which the journal is written, prepared, and read at a start.

`make chaos` walks over many more calls than the ordinary run.
"""

import dataclasses
import functools
import random
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import pytest
import trio

from tests.chaos import SEGMENT_BYTES, Campus
from tests.faults import Fault, Place, lift, unprepare
from tests.switch_process import CARDS_HEADER, FAR_FUTURE, Switch, in_thread, until

KILLED: Final = -signal.SIGKILL
REFUSED: Final = 1
CANNOT_WRITE: Final = 74

START_WRITES: Final = 2
"""Of the main thread at a start: the last batch once more, and the mark. What it writes later is the journal's thread's."""

ZERO_WRITES: Final = SEGMENT_BYTES // (256 << 10)
"""By which a segment is filled with zeros; one more writes its header."""

SAID: Final = {
    CANNOT_WRITE: "the switch stops, because what it decides can no longer be made durable",
    REFUSED: "switch serve: cannot ",
}


def writes(calls: Iterable[int], effect: str) -> list[Fault]:
    """At writes of batches and marks, which take turns."""
    died = KILLED if "KILL" in effect else None
    return [Fault("pwrite64", "journal", effect, n, died or (REFUSED if n <= START_WRITES else CANNOT_WRITE)) for n in calls]


def preparing(effect: str, code: int | None, *, every: int) -> list[Fault]:
    """At each kind of call by which the next segment is made, and every so many of the zeros."""
    kinds: list[tuple[str, Place, list[int]]] = [
        ("openat", "next", [1, 2]),
        ("fallocate", "next", [1]),
        ("pwrite64", "next", [*range(1, ZERO_WRITES + 1, every), ZERO_WRITES + 1]),
        ("fsync", "next", [1]),
        ("rename", "next", [1]),
    ]
    return [Fault(call, place, effect, n, code) for call, place, calls in kinds for n in calls]


def starting(effect: str, code: int, opens: range, reads: range) -> list[Fault]:
    """At what a start reads."""
    return [
        Fault("flock", "lock", effect, 1, code),
        Fault("pwrite64", "probe", effect, 1, code),
        # The names that a process before has given. The thread that prepares segments syncs the folder too, but strace counts thread by
        # thread, and at a start this one comes first.
        Fault("fsync", "folder", effect, 1, code),
        *(Fault("openat", "journal", effect, n, code) for n in opens),
        *(Fault("pread64", "journal", effect, n, code) for n in reads),
    ]


class Sweep:
    """Fault after fault on one folder, under one load."""

    def __init__(self, campus: Campus, folder: Path) -> None:
        self._campus = campus
        self._switch = campus.switch
        self._trace = folder / "trace"

    async def meet(self, fault: Fault, *, cached: bool = False) -> None:
        """Start under it, until it has ended the switch as it should."""
        said_before = len(self._switch.log)
        await in_thread(lambda: self._switch.spawn(*fault.command(self._switch, self._trace, cached=cached)))
        code = await in_thread(self._switch.ended)
        said = self._switch.log[said_before:]
        assert code == fault.code, (str(fault), code, said, self._trace.read_text()[-2000:])
        if code != KILLED:
            assert "(INJECTED)" in self._trace.read_text()
            assert SAID[code] in said, (str(fault), said)
            assert "Input/output error" in said or "No space left" in said, (str(fault), said)
            assert "Traceback" not in said, said
        await in_thread(self._campus.sound)

    async def run(self, faults: Iterable[Fault], *, before: Callable[[], None] = lambda: None, cached: bool = False) -> None:
        """Meet all of them, `before` each of which the folder is made ready; then start without one, and hold the books together."""
        campus = self._campus
        async with campus.open_tills():
            await campus.goes_on()
            await in_thread(self._switch.kill)
            for fault in faults:
                before()
                await self.meet(fault, cached=cached)
            # At this start all that was in doubt is settled.
            await in_thread(self._switch.start)
            await campus.goes_on()
        await campus.settled()
        await in_thread(self._switch.stop)
        await campus.verdict()


@pytest.fixture
async def campus(make_switch: Callable[..., Switch], database_url: str, chance: random.Random) -> Campus:
    return await Campus.open(make_switch(database=database_url), database_url, chance, tills=8)


async def test_a_fault_at_any_call_of_the_journal(campus: Campus, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    wide: bool = pytestconfig.getoption("chaos_wide")
    faults = [
        *writes(range(1, 31) if wide else [1, 2, 3, 4, 9, 12], "error=EIO"),
        # Room was promised for what is written: a disk that has none all the same cannot be believed any more.
        *writes(range(3, 13) if wide else [3, 4], "error=ENOSPC"),
        *writes(range(1, 41) if wide else [1, 2, 3, 4, 7, 10], "signal=KILL"),
        *starting("error=EIO", REFUSED, range(1, 5), range(1, 13 if wide else 5)),
        *starting("signal=KILL", KILLED, range(1, 5) if wide else range(3, 4), range(1, 13) if wide else range(5, 6)),
    ]
    await Sweep(campus, tmp_path).run(faults)


async def test_a_fault_at_any_call_that_prepares_the_next_segment(campus: Campus, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    wide: bool = pytestconfig.getoption("chaos_wide")
    faults = [
        *preparing("error=EIO", CANNOT_WRITE, every=1 if wide else 16),
        *preparing("signal=KILL", KILLED, every=1 if wide else 40),
    ]
    await Sweep(campus, tmp_path).run(faults, before=lambda: unprepare(campus.switch.journal))


async def test_a_failed_sync_where_there_is_no_direct_io(campus: Campus, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    wide: bool = pytestconfig.getoption("chaos_wide")
    calls = range(1, 13) if wide else [1, 2, 5]
    faults = [Fault("fdatasync", "journal", "error=EIO", n, REFUSED if n == 1 else CANNOT_WRITE) for n in calls]
    faults += [Fault("fdatasync", "journal", "signal=KILL", n, KILLED) for n in (range(1, 13) if wide else [3])]
    await Sweep(campus, tmp_path).run(faults, cached=True)


async def test_no_room_for_the_next_segment(campus: Campus, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Terminals are served until the segment in use is full, then answered 91, and served again as soon as there is room."""
    switch, trace = campus.switch, tmp_path / "trace"
    wide: bool = pytestconfig.getoption("chaos_wide")
    faults = preparing("error=ENOSPC", None, every=ZERO_WRITES)
    full = faults if wide else faults[2:3]

    async def prepared() -> int:
        return (await switch.metrics()).value("switch_journal_next_segment_ready")

    async def met() -> bool:
        return "(INJECTED)" in await trio.Path(trace).read_text()

    async with campus.open_tills():
        for number, fault in enumerate(faults):
            await in_thread(switch.stop)
            unprepare(switch.journal)
            lasting = fault.when == 1
            command = dataclasses.replace(fault, when="" if lasting else fault.when).command(switch, trace, liftable=True)
            await in_thread(functools.partial(switch.start, *command))
            await until(met, bool)
            if lasting:
                assert await prepared() == 0
                # The end of the segment in use may have come near by itself.
                await (fill(campus, number) if fault in full else campus.goes_on(or_full=True))
            lift(switch)
            await until(prepared, bool)
            await campus.goes_on()
    assert campus.tally.full > 0
    await campus.settled()
    await in_thread(switch.stop)
    await campus.verdict()


async def fill(campus: Campus, number: int) -> None:
    """Import cards of a range of their own until the segment in use has no room for more, and wait for the first 91."""
    for file in range(100):
        rows = [f"88{number:02}{file:02}{card:06},F{number}-{file}-{card},student,active,{FAR_FUTURE},0,0" for card in range(2000)]
        content = "\n".join([CARDS_HEADER, *rows]).encode()
        response = await campus.switch.http("POST", "/v1/import", params={"name": "cards.csv"}, content=content)
        if response.status_code == 422:
            assert "nothing was applied" in response.text, response.text
            break
        assert response.status_code == 200, response.text
    else:
        raise AssertionError("the segment is never full")

    async def full() -> int:
        await trio.lowlevel.checkpoint()
        return campus.tally.full

    refused = campus.tally.full
    await until(full, lambda full: full > refused)
