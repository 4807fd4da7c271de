"""The figures as pictures, drawn from the JSON alone, so that they can be drawn again without measuring.

Always true here: equal figures give equal files, and every picture says on what machine, with which versions, in which sync mode and
by which command its figures were measured.
"""

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks.report import machine_line, versions_line
from benchmarks.targets import CARD_BYTES, CONNECTION_BYTES, GROWTH_TIMES, IDENTITY_BYTES, IN_PROCESS_NS, P99_MS, P999_MS

__all__ = ["draw"]

Figures = dict[str, Any]

COLOURS: Final = {
    "bare echo": "#9e9e9e",
    "switch": "#1565c0",
    "Redis, everysec": "#f4a7a0",
    "Redis, always": "#c62828",
    "PostgreSQL": "#2e7d32",
}
TARGET: Final = "#e65100"
INCHES_WIDE: Final = 10.0
MEDIAN_NINES: Final = 0.3


def draw(results: Figures, folder: Path) -> list[Path]:
    """Draw every picture that there are figures for into `folder`; gives their paths."""
    pictures: dict[str, Callable[[Figures], Figure]] = {"rates": _rates, "latencies": _latencies, "cards": _growth}
    if results.get("memory"):
        pictures["memory"] = _memory
    paths = []
    with mpl.rc_context(
        {
            "svg.hashsalt": "campus-card-switch",
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 11,
            "axes.titleweight": "bold",
            "axes.axisbelow": True,
            "grid.color": "#e0e0e0",
            "legend.frameon": False,
        }
    ):
        for name, picture in pictures.items():
            figure = picture(results)
            lines = textwrap.wrap(f"{machine_line(results)}; {versions_line(results)}", 150)
            figure.text(0.01, 0.01, "\n".join(lines), fontsize=7.5, color="#616161", va="bottom")
            _settle(figure)
            path = folder / f"{name}.svg"
            figure.savefig(path, metadata={"Date": None})
            paths.append(path)
    return paths


def _settle(figure: Figure) -> None:
    """Fix the places that the layout came to, rounded: its solver's last digits differ between two runs, and with them the names of
    clips in the file.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        axes.set_position(tuple(round(edge, 4) for edge in axes.get_position().bounds))


def _figure(inches_high: float) -> Figure:
    """Room is left at the foot, for what the figures hang on."""
    foot = 0.45 / inches_high
    return Figure((INCHES_WIDE, inches_high), layout=ConstrainedLayoutEngine(rect=(0, foot, 1, 1 - foot)))


def _rates(results: Figures) -> Figure:
    """Purchases a second, at depth 1 and with more under way."""
    depths = sorted({case["depth"] for case in results["cases"]})
    groups = {depth: list(_bars(results, depth)) for depth in depths}
    figure = _figure(6.2)
    axes = figure.subplots(1, len(depths), squeeze=False)
    places = max(_draw_bars(panel, groups[depth]) for panel, depth in zip(axes[0], depths, strict=True))
    for panel, depth in zip(axes[0], depths, strict=True):
        # Bars of one width in both panels, the first at the top.
        panel.set_ylim(places - 1, -0.8)
        panel.set_title("one purchase under way on a connection" if depth == 1 else f"{depth} under way on a connection")
    handles = [Patch(color=colour) for colour in COLOURS.values()]
    title = "Each purchase is on disk before its answer; not so with the echo, nor with Redis's everysec."
    figure.legend(handles, COLOURS, loc="outside upper center", ncols=len(COLOURS), title=title)
    return figure


def _bars(results: Figures, depth: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Groups of bars: their label, and rates by who made them."""
    modes = {
        (case["appendfsync"], case["connections"]): case["purchases"]["per_second"]
        for case in (results["redis"] or {"cases": []})["cases"]
        if case["depth"] == depth
    }
    for case in results["cases"]:
        if case["depth"] == depth:
            rates = {"bare echo": case["echo"]["per_second"], "switch": case["purchases"]["per_second"]}
            for mode in ("everysec", "always"):
                if (mode, case["connections"]) in modes:
                    rates[f"Redis, {mode}"] = modes[mode, case["connections"]]
            yield f"{case['connections']:,}\nconnections", rates
    if depth == 1:
        best = max(results["postgresql"]["clients"], key=lambda case: float(case["purchases"]["per_second"]))
        yield f"{best['connections']} clients,\nits best", {"PostgreSQL": best["purchases"]["per_second"]}


def _draw_bars(axes: Axes, groups: list[tuple[str, dict[str, float]]]) -> float:
    """Gives the places that they take."""
    most = max(rate for _, rates in groups for rate in rates.values())
    place, ticks, labels = 0.0, [], []
    for label, rates in groups:
        first = place
        for name, rate in rates.items():
            axes.barh(place, rate, 0.9, color=COLOURS[name])
            axes.text(rate + most * 0.01, place, f"{rate:,.0f}", va="center", fontsize=8.5)
            place += 1
        ticks.append((first + place - 1) / 2)
        labels.append(label)
        place += 0.8
    axes.set_yticks(ticks, labels)
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, most * 1.17)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate / 1000:,.0f}"))
    axes.set_xlabel("thousand a second")
    axes.grid(axis="x")
    return place


def _latencies(results: Figures) -> Figure:
    """Percentiles: in the open loop with its targets, and as fast as it goes."""
    figure = _figure(6.2)
    open_loop, closed = figure.subplots(1, 2, sharey=True)
    loop = results["open_loop"]
    sync_ms = loop["purchases"]["sync_us"] / 1e3
    open_loop.plot(*_milliseconds(loop["purchases"]), color=COLOURS["switch"], linewidth=2, label="switch")
    marks = [(2, P99_MS + sync_ms, "p99"), (3, P999_MS + sync_ms, "p99.9")]
    open_loop.plot([mark[0] for mark in marks], [mark[1] for mark in marks], "v", color=TARGET, label="targets, one sync included")
    for nines, bound, name in marks:
        open_loop.annotate(f"{name} ≤ {bound:.2f} ms", (nines, bound), (8, -3), textcoords="offset points", fontsize=8.5)
    open_loop.axhline(sync_ms, color="#bdbdbd", linestyle=":", label=f"one sync of the journal, {sync_ms:.2f} ms")
    open_loop.set_title(f"open loop: {loop['rate']:,}/s over {loop['connections']:,} connections")
    open_loop.set_ylabel("latency, ms")
    styles = dict(zip(sorted({case["connections"] for case in results["cases"] if case["depth"] == 1}), ("-", "--", ":"), strict=False))
    for case in results["cases"]:
        if case["depth"] == 1:
            for key, name in (("echo", "bare echo"), ("purchases", "switch")):
                label = f"{name}, {case['connections']:,}"
                closed.plot(*_milliseconds(case[key]), styles[case["connections"]], color=COLOURS[name], label=label)
    for case in (results["redis"] or {"cases": []})["cases"]:
        if case["depth"] == 1 and case["appendfsync"] == "always" and case["connections"] in styles:
            label = f"Redis, always, {case['connections']:,}"
            closed.plot(*_milliseconds(case["purchases"]), styles[case["connections"]], color=COLOURS["Redis, always"], label=label)
    best = max(results["postgresql"]["clients"], key=lambda case: float(case["purchases"]["per_second"]))
    closed.plot(*_milliseconds(best["purchases"]), color=COLOURS["PostgreSQL"], label=f"PostgreSQL, {best['connections']}")
    closed.set_title("closed loop at full speed, by connections")
    for axes in (open_loop, closed):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xticks([MEDIAN_NINES, 1, 2, 3, 4, 5], ["50 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %"], fontsize=8.5)
        axes.set_xlabel("of all answers came within")
        axes.grid(visible=True)
        axes.legend(fontsize=8.5, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3 if axes is closed else 1)
    return figure


def _milliseconds(server: Figures) -> tuple[list[float], list[float]]:
    """From the median on."""
    curve = [(nines, microseconds / 1e3) for nines, microseconds in server["curve"] if nines >= MEDIAN_NINES]
    return [nines for nines, _ in curve], [value for _, value in curve]


def _growth(results: Figures) -> Figure:
    """A purchase in process, by the number of cards."""
    figure = _figure(5.0)
    axes = figure.subplots()
    cards = [point["cards"] for point in results["growth"]]
    middle, low, high = ([point["nanoseconds"][name] for point in results["growth"]] for name in ("p50", "p10", "p90"))
    axes.fill_between(cards, low, high, color=COLOURS["switch"], alpha=0.15, linewidth=0, label="p10 to p90 of blocks of 512")
    axes.plot(cards, middle, "o-", color=COLOURS["switch"], label=f"median, {results['in_process']['wave']} messages at a time")
    alone = [point["nanoseconds_alone"]["p50"] for point in results["growth"]]
    axes.plot(cards, alone, "o:", color=COLOURS["switch"], alpha=0.6, label="median, one message at a time")
    for count, nanoseconds in zip(cards, middle, strict=True):
        axes.annotate(f"{nanoseconds} ns", (count, nanoseconds), (0, 9), textcoords="offset points", ha="center")
    bound = GROWTH_TIMES * middle[0]
    axes.axhline(bound, color=TARGET, linestyle="--", label=f"target: {GROWTH_TIMES} times the fewest cards' = {bound:.0f} ns")
    axes.axhline(
        IN_PROCESS_NS, color=TARGET, linestyle=":", label=f"target with {results['in_process']['cards']:,} cards: {IN_PROCESS_NS} ns"
    )
    axes.set_xscale("log")
    axes.set_xticks(cards, [f"{count:,}" for count in cards])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(0, 1.25 * max(*high, *alone, bound))
    axes.set_xlabel("cards")
    axes.set_ylabel("one purchase in process, one thread, no disk: ns")
    axes.set_title("What a purchase costs by the number of cards")
    axes.grid(axis="y")
    axes.legend(loc="upper left", ncols=2)
    return figure


def _memory(results: Figures) -> Figure:
    """Bytes of each while their number grows, and how long one decision takes where a table grows."""
    figure = _figure(7.6)
    (cards, identities), (connections, pauses) = figure.subplots(2, 2)
    names = {
        "cards": (cards, "a card, its holder and two purses", CARD_BYTES),
        "identities": (identities, "a remembered identity", IDENTITY_BYTES),
        "connections": (connections, "an idle connection, signed on", CONNECTION_BYTES),
    }
    measures = {"resident": "resident", "resident_peak": "resident at most within a step", "allocated": "with places not filled yet"}
    styles = {"resident": "-", "resident_peak": ":", "allocated": "--", "kernel": "--"}
    for kind, (axes, name, target) in names.items():
        steps = results["memory"]["grown"][kind]["steps"]
        # What the process holds besides would hide the first few.
        steps = [step for step in steps if step["count"] >= steps[-1]["count"] / 20]
        labels = {"resident": "of the process", "kernel": "of the kernel, for both ends"} if kind == "connections" else measures
        for measure, label in labels.items():
            each = [step[measure] / step["count"] for step in steps]
            marker = "o" if kind == "connections" else None
            axes.plot([step["count"] for step in steps], each, styles[measure], marker=marker, color=COLOURS["switch"], label=label)
        axes.axhline(target, color=TARGET, linestyle="--", label=f"target: {target:,} bytes")
        last = steps[-1]
        axes.set_title(f"{name}: {last['resident'] / last['count']:,.0f} bytes at {last['count']:,}")
        axes.set_ylabel("bytes each")
    for kind, colour in (("identities", COLOURS["switch"]), ("cards", COLOURS["PostgreSQL"])):
        steps = results["memory"]["grown"][kind]["steps"]
        longest = [step["longest_ns"] / 1e6 for step in steps]
        pauses.plot([step["longest_at"] for step in steps], longest, ".", color=colour, label=f"{kind}: {max(longest):,.1f} ms at most")
    pauses.set_yscale("log")
    pauses.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    pauses.set_title("the longest decision within a step")
    pauses.set_ylabel("ms")
    for axes in (cards, identities, connections, pauses):
        axes.xaxis.set_major_formatter(FuncFormatter(_count))
        axes.set_xlim(left=0)
        axes.grid(visible=True)
        axes.legend(fontsize=8)
        if axes is not pauses:
            axes.set_ylim(0, 1.35 * axes.get_ylim()[1])
    return figure


def _count(number: float, _: int | None) -> str:
    return f"{number / 1e6:g} M" if number >= 1e6 else f"{number:,.0f}"
