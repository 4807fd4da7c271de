"""What the switch is to reach, and whether a run of the benchmark shows that it does.

Always true here: a target is met or missed by a figure of the same run; what was not measured is said to be so and why, and counts
as neither.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

__all__ = ["Target", "judge"]

ECHO_SHARE: Final = 0.8
DEEP_PER_SECOND: Final = 500_000
POSTGRESQL_TIMES: Final = 20
REDIS_TIMES: Final = 3
P99_MS: Final = 2.0
P999_MS: Final = 5.0
LUNCH_CPU_PERCENT: Final = 2.0
IN_PROCESS_NS: Final = 600
SETTLED_PER_SECOND: Final = 100_000
SETTLING_P99_TIMES: Final = 1.25
GROWTH_TIMES: Final = 1.5
CARD_BYTES: Final = 160
IDENTITY_BYTES: Final = 64
CONNECTION_BYTES: Final = 16_384

NOT_ASKED: Final = "not part of this run"


class Target(NamedTuple):
    """One target. `bound` is the least where `at_least`, else the most; `measured` is None where `why` says why not."""

    name: str
    unit: str
    bound: float
    at_least: bool
    measured: float | None
    why: str = ""

    @property
    def met(self) -> bool | None:
        if self.measured is None:
            return None
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound


def judge(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Every target with what was measured of it, as it goes into the JSON."""
    return [{**target._asdict(), "met": target.met} for target in _targets(results)]


def _targets(results: dict[str, Any]) -> Iterator[Target]:
    cases = {(case["connections"], case["depth"]): case for case in results["cases"]}
    yield from _of_the_echo(cases)
    yield from _of_the_peers(results, cases)
    yield from _in_time(results)
    median = results["in_process"]["nanoseconds"]["p50"]
    yield Target("a purchase in process, one thread, no disk", "ns", IN_PROCESS_NS, at_least=False, measured=median)
    growth = {point["cards"]: point["nanoseconds"]["p50"] for point in results["growth"]}
    few, many = min(growth), max(growth)
    name = f"a purchase by one of {many:,} cards, beside one of {few:,}, {results['in_process']['wave']} messages at a time"
    yield Target(name, "times", GROWTH_TIMES, at_least=False, measured=growth[many] / growth[few])
    yield from _settling(results.get("settling"))
    yield from _memory(results.get("memory"))


def _of_the_echo(cases: dict[tuple[int, int], Any]) -> Iterator[Target]:
    for connections in (64, 512, 5_000):
        name = f"purchases beside the echo, {connections:,} connections, depth 1"
        case = cases.get((connections, 1))
        yield Target(name, "of the echo", ECHO_SHARE, at_least=True, measured=case and case["ratio"], why="" if case else NOT_ASKED)
    case = cases.get((512, 16))
    name = "purchases, 512 connections, depth 16"
    rate = case and case["purchases"]["per_second"]
    yield Target(name, "a second", DEEP_PER_SECOND, at_least=True, measured=rate, why="" if case else NOT_ASKED)


def _of_the_peers(results: dict[str, Any], cases: dict[tuple[int, int], Any]) -> Iterator[Target]:
    best = max(results["postgresql"]["clients"], key=lambda clients: float(clients["purchases"]["per_second"]))
    for (connections, depth), case in cases.items():
        measured, echo = (case[server]["per_second"] / best["purchases"]["per_second"] for server in ("purchases", "echo"))
        name = (
            f"purchases beside PostgreSQL's best ({best['connections']} clients), {connections:,} connections, depth {depth}, "
            f"the echo being {echo:.1f} times"
        )
        yield Target(name, "times", POSTGRESQL_TIMES, at_least=True, measured=measured)
    if results["redis"] is None:
        name, why = "purchases beside Redis, appendfsync always", "Redis is not installed"
        yield Target(name, "times", REDIS_TIMES, at_least=True, measured=None, why=why)
        return
    for redis in results["redis"]["cases"]:
        connections, depth = redis["connections"], redis["depth"]
        if redis["appendfsync"] == "always" and (connections, depth) in cases:
            case = cases[connections, depth]
            measured, echo = (case[server]["per_second"] / redis["purchases"]["per_second"] for server in ("purchases", "echo"))
            name = (
                f"purchases beside Redis, appendfsync always, {connections:,} connections, depth {depth}, the echo being {echo:.1f} times"
            )
            yield Target(name, "times", REDIS_TIMES, at_least=True, measured=measured)


def _in_time(results: dict[str, Any]) -> Iterator[Target]:
    loop = results["open_loop"]
    sync_ms = loop["purchases"]["sync_us"] / 1e3
    load = f"{loop['rate']:,}/s over {loop['connections']:,} connections"
    for name, bound in (("p99", P99_MS), ("p999", P999_MS)):
        shown = name.replace("p999", "p99.9")
        measured = loop["purchases"][f"{name}_us"] / 1e3
        yield Target(f"{shown} at {load}, one sync being {sync_ms:.2f} ms", "ms", bound + sync_ms, at_least=False, measured=measured)
    lunch = results["lunch"]
    share = 100 * (lunch["cpu"]["serve"] + lunch["cpu"]["follow"])
    name = f"CPU of serve and follow at {lunch['rate']}/s"
    yield Target(name, "% of a core", LUNCH_CPU_PERCENT, at_least=False, measured=share)


def _settling(settling: dict[str, Any] | None) -> Iterator[Target]:
    rate = "settlement catching up, the tables logged and indexed"
    moved = "p99 while settlement catches up, beside p99 without"
    if settling is None:
        yield Target(rate, "records a second", SETTLED_PER_SECOND, at_least=True, measured=None, why=NOT_ASKED)
        yield Target(moved, "times", SETTLING_P99_TIMES, at_least=False, measured=None, why=NOT_ASKED)
        return
    yield Target(rate, "records a second", SETTLED_PER_SECOND, at_least=True, measured=settling["catching_up"]["records_per_second"])
    if settling["beside"] is None:
        why = "PostgreSQL had caught up before one round was over"
        yield Target(moved, "times", SETTLING_P99_TIMES, at_least=False, measured=None, why=why)
        return
    beside, alone = (float(settling[when]["purchases"]["p99_us"]) for when in ("beside", "alone"))
    yield Target(moved, "times", SETTLING_P99_TIMES, at_least=False, measured=beside / alone)


def _memory(memory: dict[str, Any] | None) -> Iterator[Target]:
    for name, key, bound in (
        ("a card with its holder and two purses", "card_bytes", CARD_BYTES),
        ("a remembered identity", "identity_bytes", IDENTITY_BYTES),
        ("an idle connection", "connection_bytes", CONNECTION_BYTES),
    ):
        measured = None if memory is None else float(memory[key])
        yield Target(f"memory of {name}", "bytes", bound, at_least=False, measured=measured, why="" if memory else NOT_ASKED)
