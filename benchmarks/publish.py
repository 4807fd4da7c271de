"""Makes figures public: the JSON and the pictures into `benchmarks/results`, the tables into `benchmarks/README.md`.

Of what `make bench` measured last, unless another file is named: one that is committed, say, to draw its pictures again.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.plot import draw
from benchmarks.report import report
from benchmarks.targets import judge

ROOT: Final = Path(__file__).resolve().parent.parent
BEGIN: Final = "<!-- What follows is written by publish.py. -->\n"
END: Final = "<!-- Here it ends. -->\n"
PICTURES: Final = {
    "rates": "Purchases a second beside the echo, Redis and PostgreSQL",
    "latencies": "Latencies by percentile",
    "cards": "Nanoseconds a purchase by the number of cards",
    "memory": "Memory by the number of cards and of identities",
}


def publish(figures: Path, folder: Path) -> None:
    """Put figures, pictures and tables into `folder`, whose README.md has the two marks.

    Raises `ValueError` with a sentence where that cannot be.
    """
    results: dict[str, Any] = json.loads(figures.read_text())
    if results["command"].endswith("--rehearsal"):
        raise ValueError(f"{figures} is of a rehearsal, whose figures mean nothing")
    readme = folder / "README.md"
    head, begin, rest = readme.read_text().partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{readme} has no place for the figures: the lines {BEGIN.strip()} and {END.strip()} are not there")
    # A target may have moved since.
    results["targets"] = judge(results)
    place = folder / "results"
    place.mkdir(exist_ok=True)
    kept = place / f"{results['date']}.json"
    if not kept.exists() or not kept.samefile(figures):
        shutil.copyfile(figures, kept)
    pictures = draw(results, place)
    readme.write_text("".join([head, begin, *_section(results, kept.name, pictures), end, tail]))


def _section(results: dict[str, Any], figures: str, pictures: list[Path]) -> Iterator[str]:
    yield f"\nAll figures, every round: [results/{figures}](results/{figures}).\n\n"
    for picture in pictures:
        yield f"![{PICTURES[picture.stem]}](results/{picture.name})\n\n"
    yield from (f"{line}\n" for line in report(results))
    yield "\n"


def main() -> int:
    """One JSON file, or what `make bench` wrote last."""
    parser = argparse.ArgumentParser(prog="benchmarks/publish.py", description="Put figures, plots and tables into benchmarks/.")
    parser.add_argument("figures", nargs="?", type=Path, default=ROOT / "target" / "benchmark.json", metavar="FILE.json")
    parser.add_argument("--folder", type=Path, default=ROOT / "benchmarks", help="where README.md and results are")
    options = parser.parse_args()
    try:
        publish(options.figures, options.folder)
    except (OSError, ValueError) as error:
        print(f"benchmarks/publish.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
