"""Where the time of the real process goes while terminals pay: a flame graph of `switch serve`, sampled by perf, drawn by inferno.

    benchmarks/flamegraph.py                      # writes docs/purchase.svg
    benchmarks/flamegraph.py --connections 512 --depth 16 --output /tmp/deep.svg

The width of a box is its share of the samples, kernel included; boxes stand by the thread that they belong to. The driver is not in it.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from benchmarks.processes import BenchmarkFailed, Driver, Switch, progress, work_folder
from benchmarks.run import make_campus

ROOT: Final = Path(__file__).resolve().parent.parent
CARDS: Final = 10_000
SAMPLES_PER_SECOND: Final = 999
STACK_BYTES: Final = 16_384
"""Kept of the stack with each sample, to find the callers in it: the release build keeps no frame pointers."""
SHARE_MIN: Final = 0.2
"""Boxes narrower than this, in percent, are left out."""
TOOLS: Final = {
    "perf": "install it (Debian: apt install linux-perf; Ubuntu: apt install linux-tools-generic)",
    "inferno-collapse-perf": "install it (cargo install inferno)",
    "inferno-flamegraph": "install it (cargo install inferno)",
}


def draw(program: Path, folder: Path, connections: int, depth: int, seconds: int) -> bytes:
    """The picture of a switch under this load, as SVG."""
    files = make_campus(connections, CARDS).write(folder)
    Switch.make(folder / "switch", files)
    samples = folder / "perf.data"
    with Switch(folder / "switch", database=False) as switch:
        record = ["perf", "record", "--quiet", "--freq", str(SAMPLES_PER_SECOND), "--call-graph", f"dwarf,{STACK_BYTES}"]
        # From a second before the load until it is over; waiting takes no samples.
        command = [*record, "--pid", str(switch.pid), "--output", str(samples), "--", "sleep", str(seconds + 2)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as perf:
            figures = Driver(program, folder, rehearsal=False).drive(switch, connections, depth, seconds, 1.0)
            _, said = perf.communicate()
        if perf.returncode != 0:
            raise BenchmarkFailed(f"perf took no samples: {said.strip()}")
    title = f"switch serve: {connections} connections, {depth} under way on each, {figures['per_second']:,.0f} purchases a second"
    script = _said(["perf", "script", "--no-inline", "--input", str(samples)], b"")
    folded = _said(["inferno-collapse-perf", "--pid"], script)
    options = ["--title", title, "--countname", "ns", "--minwidth", str(SHARE_MIN), "--deterministic"]
    return _said(["inferno-flamegraph", *options], folded)


def refuse_missing() -> None:
    missing = [f"{tool} is missing; {advice}" for tool, advice in TOOLS.items() if shutil.which(tool) is None]
    if missing:
        raise BenchmarkFailed("; ".join(missing))


def _said(command: list[str], given: bytes) -> bytes:
    done = subprocess.run(command, input=given, capture_output=True, check=False)
    if done.returncode != 0:
        raise BenchmarkFailed(f"{command[0]}: {done.stderr.decode().strip()}")
    return done.stdout


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks/flamegraph.py", description="A flame graph of the switch under load.")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--depth", type=int, default=1, help="purchases under way on each connection")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--driver", type=Path, default=ROOT / "target" / "release" / "switch_benchmarks", metavar="FILE")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "purchase.svg", metavar="FILE.svg")
    options = parser.parse_args(arguments)
    try:
        refuse_missing()
        with work_folder(ROOT / "target") as folder:
            picture = draw(options.driver, folder, options.connections, options.depth, options.seconds)
    except BenchmarkFailed as failure:
        print(f"benchmarks/flamegraph.py: {failure}", file=sys.stderr)
        return 1
    options.output.write_bytes(picture)
    progress(f"{options.output}: {len(picture) / 1024:.0f} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
