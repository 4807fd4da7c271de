"""The figures as Markdown: what `make bench` prints at its end and what stands in the README."""

import statistics
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["machine_line", "report", "versions_line"]

Figures = dict[str, Any]


def report(results: Figures) -> Iterator[str]:
    """All of it, a line at a time, sections with headings of the third level."""
    yield from ("### Targets", "", *_targets(results), "")
    yield from ("### Beside the echo", "", *_cases(results), "")
    yield from ("### Beside Redis and PostgreSQL", "", *_peers(results), "")
    yield from ("### At a set rate", "", *_set_rate(results), "")
    yield from ("### Without sockets", "", *_core(results), "")
    yield from ("### Settling", "", *_settling(results), "")
    if results.get("memory"):
        yield from ("### Memory", "", *_memory(results["memory"]), "")
    yield from ("### Measured on", "", f"{machine_line(results)}.", f"{versions_line(results)}.", "", *_conditions(results))


def machine_line(results: Figures) -> str:
    """The machine, its disk and how the journal writes on it."""
    found = results["machine"]
    return (
        f"{found['cpu']}, {found['cores']} cores, {found['memory_gib']} GiB, Linux {found['kernel']}, {found['file_system']}, "
        f"journal {results['ledger']['journal_mode']}"
    )


def versions_line(results: Figures) -> str:
    """Versions, the date and the command."""
    found, redis = results["machine"], results["redis"]
    peers = f"PostgreSQL {results['postgresql']['version']}, " + (f"Redis {redis['version']}" if redis else "no Redis")
    return f"switch {found['switch']}, {peers}, rustc {found['rust']}, Python {found['python']}; {results['date']}, {results['command']}"


def _table(head: Iterable[str], rows: Iterable[Iterable[object]], *, left: int = 0) -> Iterator[str]:
    """`left`: so many columns are of words, the others of numbers."""
    columns = list(head)
    yield "| " + " | ".join(columns) + " |"
    yield "|" + "---|" * left + "---:|" * (len(columns) - left)
    for row in rows:
        yield "| " + " | ".join(map(str, row)) + " |"


def _targets(results: Figures) -> Iterator[str]:
    def row(target: Figures) -> tuple[str, str, str, str]:
        bound = f"{'≥' if target['at_least'] else '≤'} {_number(target['bound'])} {target['unit']}"
        if target["met"] is None:
            return target["name"], bound, "", f"not measured: {target['why']}"
        return target["name"], bound, _number(target["measured"]), "met" if target["met"] else "**missed**"

    yield from _table(["target", "bound", "measured", ""], map(row, results["targets"]), left=2)
    met = [target["met"] for target in results["targets"]]
    yield ""
    yield f"{met.count(True)} met, {met.count(False)} missed, {met.count(None)} not measured."


def _number(value: float) -> str:
    """With three digits or more, and no more behind the point than that takes."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 or float(value).is_integer() else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def _rate(server: Figures) -> str:
    return f"{server['per_second']:,.0f}"


def _latencies(server: Figures) -> str:
    return f"{server['p50_us'] / 1e3:.2f} / {server['p99_us'] / 1e3:.2f} ms"


def _quiet(measured: Figures) -> str:
    return f"{measured['rounds_quiet']} of {len(measured['rounds'])}"


def _cases(results: Figures) -> Iterator[str]:
    cores = results["machine"]["cores"]

    def row(case: Figures) -> list[object]:
        echo, purchases = case["echo"], case["purchases"]
        return [
            f"{case['connections']:,}",
            case["depth"],
            _rate(echo),
            _rate(purchases),
            f"{case['ratio']:.2f} ({case['ratio_least']:.2f} to {case['ratio_most']:.2f})",
            _latencies(echo),
            _latencies(purchases),
            f"{echo['server_cpu_us']:.1f} / {purchases['server_cpu_us']:.1f} µs",
            f"{echo['client_cpu_us']:.1f} / {purchases['client_cpu_us']:.1f} µs",
            f"{_unused_us(echo, cores):.1f} / {_unused_us(purchases, cores):.1f} µs",
            f"{purchases['batch_records']:.0f}",
            f"{purchases['sync_us'] / 1e3:.2f} ms",
            _quiet(case),
        ]

    head = ["connections", "depth", "echo /s", "purchases /s", "ratio", "echo p50 / p99", "purchase p50 / p99"]
    head += ["server CPU", "client CPU", "neither", "records a batch", "sync", "quiet rounds"]
    yield from _table(head, map(row, results["cases"]))


def _unused_us(server: Figures, cores: int) -> float:
    """Of all cores' time for one request, what neither side used: idle, or the kernel's own threads."""
    used: float = server["server_cpu_us"] + server["client_cpu_us"]
    return max(0.0, cores * 1e6 / float(server["per_second"]) - used)


def _peers(results: Figures) -> Iterator[str]:
    cases = {(case["connections"], case["depth"]): case["purchases"] for case in results["cases"]}
    redis = results["redis"]
    if redis is None:
        yield "Redis is not installed here (Debian, Ubuntu: apt install redis-server)."
    else:
        modes: dict[tuple[int, int], dict[str, Figures]] = {}
        for case in redis["cases"]:
            modes.setdefault((case["connections"], case["depth"]), {})[case["appendfsync"]] = case

        def row(at: tuple[int, int]) -> list[object]:
            always, everysec, switch = modes[at]["always"], modes[at]["everysec"], cases.get(at)
            times = f"{switch['per_second'] / always['purchases']['per_second']:.1f}" if switch else ""
            return [
                *(at[0], at[1], _rate(switch) if switch else "", _rate(always["purchases"]), times, _rate(everysec["purchases"])),
                *(_latencies(always["purchases"]), _latencies(everysec["purchases"]), f"{_quiet(always)}, {_quiet(everysec)}"),
            ]

        head = ["connections", "depth", "switch /s", "Redis, always /s", "switch / Redis", "Redis, everysec /s"]
        yield from _table([*head, "always p50 / p99", "everysec p50 / p99", "quiet rounds"], map(row, modes))
    yield ""
    yield from _table(
        ["clients", "PostgreSQL /s", "p50 / p99", "server CPU", "quiet rounds"],
        (
            [case["connections"], _rate(served := case["purchases"]), _latencies(served), f"{served['server_cpu_us']:.0f} µs", _quiet(case)]
            for case in results["postgresql"]["clients"]
        ),
    )


def _set_rate(results: Figures) -> Iterator[str]:
    loop, lunch = results["open_loop"], results["lunch"]
    purchases = loop["purchases"]
    yield (
        f"Open loop, {loop['rate']:,} purchases a second over {loop['connections']:,} connections, latency from the moment each was due: "
        f"p50 {purchases['p50_us'] / 1e3:.2f} ms, p99 {purchases['p99_us'] / 1e3:.2f} ms, p99.9 {purchases['p999_us'] / 1e3:.2f} ms; "
        f"one sync of the journal {purchases['sync_us'] / 1e3:.2f} ms ({_quiet(loop)} rounds quiet)."
    )
    cpu = lunch["cpu"]
    yield ""
    yield (
        f"At {lunch['rate']} a second over {lunch['connections']} connections for {lunch['seconds']:.0f} s, the database at work: "
        f"of one core `switch serve` took {cpu['serve']:.2%}, `switch follow` {cpu['follow']:.2%}, "
        f"the embedded PostgreSQL {cpu['postgresql']:.2%}."
    )


def _core(results: Figures) -> Iterator[str]:
    nanoseconds, wave = results["in_process"]["nanoseconds"], results["in_process"]["wave"]
    yield (
        f"In process, one thread, no disk: {nanoseconds['p50']} ns a purchase (p10 {nanoseconds['p10']}, p90 {nanoseconds['p90']}), "
        f"{wave} messages handed over at a time."
    )
    yield ""
    head = ["cards", *(f"{point['cards']:,}" for point in results["growth"])]
    rows = ((f"ns a purchase, {wave} at a time", "nanoseconds"), ("ns a purchase, one at a time", "nanoseconds_alone"))
    yield from _table(head, [[name, *(point[kind]["p50"] for point in results["growth"])] for name, kind in rows])
    startup, replay, snapshot = (results["startup"], results["startup"]["replay"], results["startup"]["snapshot"])
    yield ""
    yield (
        f"Starting on {startup['records']:,} records with {startup['cards']:,} cards: {replay['seconds']:.2f} s from the first record on "
        f"({replay['records_per_second']:,} a second); {snapshot['seconds_to_start']:.2f} s from a snapshot of the last, which took "
        f"{snapshot['seconds_to_write']:.2f} s to write."
    )


def _settling(results: Figures) -> Iterator[str]:
    settling = results["settling"]
    if settling is None:
        yield "Not part of this run."
        return
    whole, in_drive, beside = (settling[name] for name in ("catching_up", "catching_up_beside_purchases", "beside"))
    load = f"{results['open_loop']['rate']:,} purchases a second"
    slower = f"; while {load} were made, {in_drive['records_per_second']:,.0f} a second" if in_drive else ""
    yield (
        f"The embedded PostgreSQL, {settling['backlog']:,} records behind: {whole['records']:,} in {whole['seconds']:.0f} s, "
        f"{whole['records_per_second']:,.0f} a second{slower}."
    )
    if beside:
        beside_ms, alone_ms = (settling[when]["purchases"]["p99_us"] / 1e3 for when in ("beside", "alone"))
        rounds = f"{len(beside['rounds'])} and {len(settling['alone']['rounds'])} rounds"
        yield f"p99 at {load}: {beside_ms:.2f} ms while it caught up, {alone_ms:.2f} ms while it was away (medians of {rounds})."
    yield f"Afterwards {settling['reconciled']['accounts']:,} accounts agreed to the fen at record {settling['reconciled']['position']:,}."


def _memory(memory: Figures) -> Iterator[str]:
    yield (
        f"With {memory['cards']:,} cards {memory['card_bytes']:.0f} bytes a card, its holder and two purses; "
        f"with {memory['identities']:,} remembered identities {memory['identity_bytes']:.0f} bytes each; "
        f"with {memory['connections']:,} idle connections {memory['connection_bytes']:,.0f} bytes each in the process, "
        f"and {memory['connection_kernel_bytes']:,.0f} of the kernel's for both ends of one."
    )


def _conditions(results: Figures) -> Iterator[str]:
    runs = [run for case in results["cases"] for each in case["rounds"] for run in each.values()]
    others = statistics.median(run["others_cpu"] for run in runs)
    ledger = results["ledger"]
    yield f"CPU taken by others during a run: {others:.2f} cores (median); load before {results['machine']['load_before']:.1f}."
    yield f"{ledger['approved']:,} purchases of {ledger['fen']:,} fen: terminals, ledger and journal agree."
