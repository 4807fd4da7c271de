"""Instructions of the hot paths, counted by Callgrind and held against the committed figures: it stays fast.

A time differs with every run and every machine; the instructions of a fixed work do not (two runs are within a tenth of a percent of
each other), so a path that became slower by its own code shows at once. `switch_benchmarks instructions` does the work and this script
runs it under Valgrind, divides by the operations, and compares with `instructions.json` beside it.

    benchmarks/instructions.py check     # fails where a path takes more than 5 % above its committed figure
    benchmarks/instructions.py update    # commits to what is counted now: benchmarks/instructions.json
    benchmarks/instructions.py show      # where the instructions of a purchase go, as Markdown; --write puts it into docs/performance.md

Always true here: nothing is left out because the toolchain is another one. The counts hang on the compiler, the C library, Valgrind
and what the processor can do; where one of these differs from what the figures were committed with, the bound is wider, and that is said.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
COMMITTED: Final = ROOT / "benchmarks" / "instructions.json"
DOCUMENT: Final = ROOT / "docs" / "performance.md"

BOUND: Final = 0.05
"""By so much more than its committed figure a path may take."""
BOUND_ELSEWHERE: Final = 0.25
"""The same with another compiler, C library, Valgrind or processor: another vectorisation of a copy or a hash is within it, a second MAC or
a lost inlining is not."""

COUNT: Final = 2048
"""Operations of each path: enough that what a table's growth costs is spread as in service."""

PATHS: Final = {
    "purchase": "a purchase, approved: from the first byte of its frame to the last of its answer",
    "repeat": "the same message again",
    "balance": "a balance",
    "decline": "a purchase that is declined (51)",
    "reversal": "a reversal by original data elements",
    "parse": "of a purchase: reading the message alone",
    "mac": "of a purchase: one MAC alone",
    "batch": "a record in a batch of 128: head, hash, hand-over to the writer",
    "replay": "a record replayed",
    "rows": "a record for PostgreSQL: read, replayed, its rows in COPY's format",
}
ALLOCATORS: Final = frozenset({"malloc", "calloc", "realloc", "memalign", "posix_memalign", "aligned_alloc"})
BOUND_ALLOCATIONS: Final = 0.05
"""By so many more allocations an operation, besides the bound, may do: growing tables and buffers have some in a thousand operations, a
buffer made for each message has one in each."""
ALLOCATING: Final = {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=65536"}
"""Large tables lie in mappings of their own and grow by remapping, as they do in service; else it hangs on their neighbours in the heap
whether growing copies them, byte by byte as Valgrind counts."""
CPU_FEATURES: Final = ("aes", "avx", "avx2", "bmi2", "erms", "fsrm", "pclmulqdq", "sse4_1", "sse4_2", "ssse3")
"""What the crates and the C library ask the processor for, as far as Valgrind shows it to them (it hides AVX-512)."""


class NotCounted(Exception):
    """One sentence: why there is no figure."""


def circumstances() -> dict[str, Any]:
    """What the counts hang on besides the source."""
    rust = _said("rustc", "-vV")
    flags = set(re.findall(r"^(?:flags|Features)\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[0].split())
    return {
        "rustc": re.findall(r"^release: (.*)$", rust, re.MULTILINE)[0],
        "target": re.findall(r"^host: (.*)$", rust, re.MULTILINE)[0],
        "libc": " ".join(platform.libc_ver()),
        "valgrind": _said("valgrind", "--version").strip(),
        "cpu": [feature for feature in CPU_FEATURES if feature in flags],
    }


def _said(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        raise NotCounted(f"{command[0]} is missing; install it (Debian, Ubuntu: apt install {command[0]})") from None


def build() -> Path:
    """The program as it serves: the release profile, whatever the environment would make of it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CARGO_PROFILE_") and name != "RUSTFLAGS"}
    command = ["cargo", "build", "--release", "--locked", "--quiet", "--package", "switch_benchmarks"]
    built = subprocess.run(command, cwd=ROOT, env=environment, check=False)
    if built.returncode != 0:
        raise NotCounted("the benchmarks cannot be built")
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "switch_benchmarks"


def count(program: Path, folder: Path) -> dict[str, Path]:
    """Runs it; gives each path's profile."""
    profile = folder / "profile"
    command = [
        *("valgrind", "--tool=callgrind", f"--callgrind-out-file={profile}", f"--log-file={folder / 'log'}"),
        *("--toggle-collect=*counted_*", "--dump-before=*end_of_path*", "--dump-instr=yes", "--compress-pos=no"),
        *(str(program), "instructions", "--count", str(COUNT)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **ALLOCATING})
    if done.returncode != 0:
        log = (folder / "log").read_text() if (folder / "log").exists() else ""
        raise NotCounted(f"the counted run failed: {done.stderr.strip() or log.strip()}")
    paths = json.loads(done.stdout)["paths"]
    profiles = {path: folder / f"profile.{number}" for number, path in enumerate(paths, start=1)}
    if set(profiles) != set(PATHS) or not all(profile.exists() for profile in profiles.values()):
        raise NotCounted(f"counted were {', '.join(paths)}; the paths described here are {', '.join(PATHS)}")
    return profiles


def per_operation(profile: Path) -> float:
    found = re.search(r"^totals: (\d+)$", profile.read_text(), re.MULTILINE)
    if found is None or int(found[1]) == 0:
        raise NotCounted(f"{profile} counts nothing: no function is named as Callgrind was told")
    return round(int(found[1]) / COUNT, 1)


def allocations(profile: Path) -> float:
    """Calls of the allocator for memory, an operation: how often the first instruction of its functions was run. (The calls that
    Callgrind notes are those outside the counted functions too.)
    """
    names: dict[str, str] = {}
    first: dict[str, tuple[int, int]] = {}
    function, called = "", False
    for line in profile.read_text().splitlines():
        if found := re.match(r"(c?)fn=(\(\d+\))(?: (.+))?$", line):
            name = names.setdefault(found[2], found[3] or "")
            function = function if found[1] else name
        elif line.startswith("0x") and function in ALLOCATORS and not called:
            address, _, runs = line.split()
            first[function] = min(first.get(function, (sys.maxsize, 0)), (int(address, 16), int(runs)))
        called = line.startswith("calls=")
    return round(sum(runs for _, runs in first.values()) / COUNT, 3)


def compare(
    committed: dict[str, Any], counted: dict[str, float], allocated: dict[str, float], here: dict[str, Any]
) -> tuple[list[str], list[str]]:
    """What is wrong, and what else is to be said: sentences."""
    others = [f"{name} {_text(here[name])} instead of {_text(value)}" for name, value in committed["with"].items() if here[name] != value]
    bound = BOUND_ELSEWHERE if others else BOUND
    notes = []
    if others:
        notes.append(
            f"COMPARED LOOSELY: the figures were committed with another toolchain or machine ({'; '.join(others)}), so up to "
            f"{bound:.0%} more is allowed here and not {BOUND:.0%}. If this one is to stay, commit figures of it by: "
            f"benchmarks/instructions.py update"
        )
    wrong = []
    for path in PATHS:
        before, now = committed["instructions"].get(path), counted[path]
        if before is None:
            wrong.append(f"{path} has no committed figure; add it by: benchmarks/instructions.py update")
        elif now > before * (1 + bound):
            wrong.append(
                f"{path} takes {now:,.0f} instructions, {now / before - 1:.1%} more than the committed {before:,.0f} ({PATHS[path]}). "
                f"Where they are: benchmarks/instructions.py show --path {path}. If it is worth it: benchmarks/instructions.py update"
            )
        if before is not None and allocated[path] > committed["allocations"][path] * (1 + bound) + BOUND_ALLOCATIONS:
            wrong.append(f"{path} asks the allocator {allocated[path]} times, and not {committed['allocations'][path]} times as committed")
        if before is not None and now < before * (1 - bound):
            notes.append(f"{path} takes {now:,.0f} instructions, {1 - now / before:.1%} less than committed; `update` keeps it so")
    return wrong, notes


def _text(value: Any) -> str:
    return " ".join(value) if isinstance(value, list) else str(value)


def table(committed: dict[str, Any], counted: dict[str, float], allocated: dict[str, float]) -> Iterator[str]:
    yield "| path | instructions | committed | allocations | |"
    yield "|---|---:|---:|---:|---|"
    for path, meaning in PATHS.items():
        before = committed["instructions"].get(path)
        yield f"| {path} | {counted[path]:,.0f} | {'' if before is None else f'{before:,.0f}'} | {allocated[path]} | {meaning} |"


ONE_MESSAGE: Final = "switch_benchmarks::instructions::handle_all"
"""`Authorizer::handle` is inlined into it."""
ROW: Final = re.compile(r"^ *([\d,]+) \( *[\d.]+%\)  (.*)$", re.MULTILINE)


def annotated(profile: Path, *, inclusive: bool) -> Iterator[tuple[str, str, float]]:
    """Source file, function and instructions an operation. What called the counted function is left out."""
    text = _said("callgrind_annotate", f"--inclusive={'yes' if inclusive else 'no'}", "--threshold=100", "--auto=no", str(profile))
    total = per_operation(profile)
    for number, name in ROW.findall(text):
        file, _, function = re.sub(r" \[[^]]*\]$", "", name).partition(":")
        value = int(number.replace(",", "")) / COUNT
        # Callgrind gives the functions in which nothing was counted all that was.
        if function and (function == ONE_MESSAGE or round(value, 1) < total):
            yield file, function, value


def functions(profile: Path) -> dict[str, tuple[float, float]]:
    """Of each function the instructions an operation, with and without those of what it calls; inlined code is its caller's."""
    found: dict[str, list[float]] = defaultdict(lambda: [0, 0])
    for _, function, value in annotated(profile, inclusive=True):
        # A function has a row for each file that code was inlined from. What it calls is counted anew in each.
        found[function][0] = max(found[function][0], value)
    for _, function, value in annotated(profile, inclusive=False):
        found[function][1] += value
    return {name: (with_called, alone) for name, (with_called, alone) in found.items()}


def rooms(profile: Path) -> dict[str, float]:
    """Instructions an operation by the source file that they come from, wherever they were inlined."""
    found: dict[str, float] = defaultdict(float)
    for file, _, value in annotated(profile, inclusive=False):
        found[_room(file)] += value
    return found


def _room(file: str) -> str:
    if own := re.search(r"core_rs/src/(.*)\.rs$", file):
        return own[1]
    if crate := re.search(r"/registry/src/[^/]*/([a-z0-9_-]+?)-\d", file):
        return f"crate {crate[1]}"
    if "/rustc/" in file:
        return "Rust's library, inlined"
    return "the benchmark itself" if "benchmarks/src" in file else "the C library (copies)"


def profile_table(profile: Path, rows: int) -> Iterator[str]:
    found = functions(profile)
    yield "| function | with what it calls | alone |"
    yield "|---|---:|---:|"
    for name, (inclusive, exclusive) in sorted(found.items(), key=lambda item: -item[1][0])[:rows]:
        shown = "one message, whole" if name == ONE_MESSAGE else f"`{name.replace('switch_core::', '')}`"
        yield f"| {shown} | {inclusive:,.0f} | {exclusive:,.0f} |"
    yield ""
    yield "| source | instructions |"
    yield "|---|---:|"
    for name, instructions in sorted(rooms(profile).items(), key=lambda item: -item[1])[:rows]:
        yield f"| {name} | {instructions:,.0f} |"


def write_into(document: Path, name: str, lines: list[str]) -> None:
    """Puts lines between the document's marks of this name."""
    text = document.read_text()
    begin, end = f"<!-- {name}: made by a command, see above -->\n", f"<!-- {name}: end -->\n"
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise NotCounted(f"{document} has no marks for {name}")
    document.write_text(before + begin + "\n".join(lines) + "\n" + end + after)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks/instructions.py", description="Instructions of the hot paths.")
    parser.add_argument("action", choices=["check", "update", "show"])
    parser.add_argument("--committed", type=Path, default=COMMITTED, metavar="FILE", help="figures to compare with")
    parser.add_argument("--path", choices=PATHS, default="purchase", help="with show: whose functions")
    parser.add_argument("--rows", type=int, default=24, help="with show: how many functions")
    parser.add_argument("--write", action="store_true", help="with show: into docs/performance.md")
    options = parser.parse_args(arguments)
    try:
        here = circumstances()
        with tempfile.TemporaryDirectory(prefix="instructions-") as folder:
            profiles = count(build(), Path(folder))
            counted = {path: per_operation(profiles[path]) for path in PATHS}
            allocated = {path: allocations(profiles[path]) for path in PATHS}
            if options.action == "update":
                options.committed.write_text(json.dumps({"with": here, "instructions": counted, "allocations": allocated}, indent=1) + "\n")
            committed = json.loads(options.committed.read_text())
            print("\n".join(table(committed, counted, allocated)))
            if options.action == "show":
                lines = [*table(committed, counted, allocated), "", *profile_table(profiles[options.path], options.rows)]
                if options.write:
                    write_into(DOCUMENT, "instructions", lines)
                print("\n" + "\n".join(profile_table(profiles[options.path], options.rows)))
                return 0
        wrong, notes = compare(committed, counted, allocated, here)
    except NotCounted as failure:
        print(f"benchmarks/instructions.py: {failure}", file=sys.stderr)
        return 1
    for sentence in (*notes, *wrong):
        print(f"benchmarks/instructions.py: {sentence}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
