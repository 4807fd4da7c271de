"""From runs to figures: medians over the rounds in which nobody else took the machine, and the latencies of them all together."""

import math
import statistics
from collections import Counter
from itertools import accumulate
from typing import Any, Final

__all__ = ["QUIET_CORES", "summary"]

QUIET_CORES: Final = 0.15
"""A round in which everything else on the machine took more than this is left out of the medians, as long as quieter ones are left."""

MEDIANS: Final = ("per_second", "server_cpu_us", "client_cpu_us", "others_cpu", "batch_records", "sync_us")
TENTHS_OF_NINES: Final = 50
"""How far a latency's curve goes: to the quantile 0.99999, in tenths of a nine."""


def summary(rounds: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Of rounds, each of which has a run of one or more servers by name. What makes a round quiet is other work alone, never its result.

    Rates, costs and percentiles are medians over the rounds; `curve` is of all answers together. Histograms are dropped from
    `rounds`, whose other figures stay.
    """
    quiet = [run for run in rounds if max(each["others_cpu"] for each in run.values()) <= QUIET_CORES]
    counted = quiet or rounds
    figures: dict[str, Any] = {"rounds_quiet": len(quiet), "rounds": rounds}
    if "echo" in rounds[0]:
        ratios = [run["purchases"]["per_second"] / run["echo"]["per_second"] for run in counted]
        figures |= {"ratio": statistics.median(ratios), "ratio_least": min(ratios), "ratio_most": max(ratios)}
    for server in rounds[0]:
        runs = [run[server] for run in counted]
        figures[server] = {
            **{name: statistics.median(run[name] for run in runs) for name in MEDIANS if name in runs[0]},
            **{f"{name}_us": statistics.median(run["latency_ns"][name] for run in runs) / 1e3 for name in ("p50", "p99", "p999")},
            "curve": _curve([run["histogram"] for run in runs]),
        }
    for run in rounds:
        for each in run.values():
            each.pop("histogram", None)
    return figures


def _curve(histograms: list[list[tuple[int, int]]]) -> list[tuple[float, float]]:
    """Latency in microseconds by the number of nines of its quantile (1 is the 90th percentile, 3 the 99.9th), where it is known."""
    counts: Counter[int] = Counter()
    for histogram in histograms:
        for nanoseconds, count in histogram:
            counts[nanoseconds] += count
    values = sorted(counts)
    total = counts.total()
    below = list(accumulate(counts[value] for value in values))
    curve = []
    place = 0
    for tenth in range(TENTHS_OF_NINES + 1):
        nines = tenth / 10
        beyond = total * 10**-nines
        if beyond < 1:
            # Fewer than one answer lies beyond: nothing is known of it.
            break
        while below[place] < math.ceil(total - beyond):
            place += 1
        curve.append((nines, values[place] / 1e3))
    return curve
