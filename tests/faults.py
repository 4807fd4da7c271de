"""Faults of the disk, injected by strace at the system calls that a real switch makes on its journal.

Always true here: the switch stays the process that was started (`strace -D` watches from beside it, which a user may do to programs of
his own), so signals and exit codes are its own. A call at which it is failed or killed is not made. strace counts calls thread by thread:
the first writes on the journal are those of the start, on the main thread, and then again from one those of the journal's two threads.
"""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from switch._core import Core
from tests.switch_process import Switch

BLOCK_BYTES: Final = 4096

Place = Literal["journal", "next", "lock", "probe", "folder"]
"""Of the journal: the segments and the mark; the segment that is being prepared; files of the start; the folder itself."""


@dataclass(frozen=True)
class Fault:
    """What happens at the `when`-th `call` of a thread on these files, and what becomes of the switch."""

    call: str
    place: Place
    effect: str
    """As strace has it: `error=EIO`, `signal=KILL`."""
    when: int | str
    """Which call; empty: every one."""
    code: int | None
    """The exit code; None: it goes on."""

    def __str__(self) -> str:
        return f"{self.effect} at {self.call} {self.when} on {self.place}"

    def command(self, switch: Switch, trace: Path, *, liftable: bool = False, cached: bool = False) -> list[str]:
        """What to put before the switch's command. `cached` has it believe that the disk knows no direct I/O."""
        when = f":when={self.when}" if self.when else ""
        # A rename has a name of its own on each architecture; the question mark lets strace pass over those that are not here.
        names = ("rename", "renameat", "renameat2") if self.call == "rename" else (self.call,)
        calls = ",".join(f"?{name}" for name in names)
        command = ["strace", "-D", "-f", "-I", "1", "-qq", "-o", str(trace)]
        if self.effect.startswith("error") and not liftable:
            # Quicker, but no signal is injected then, and the calls fail once the tracer has gone.
            command.append("--seccomp-bpf")
        places = _paths(switch.journal, self.place)
        if cached:
            # The main thread's first open among these files is the probe's.
            places += _paths(switch.journal, "probe")
            command += ["-e", "inject=openat:error=EINVAL:when=1", "-e", f"trace={calls},openat"]
        else:
            command += ["-e", f"trace={calls}"]
        command += ["-e", f"inject={calls}:{self.effect}{when}"]
        return [*command, *(part for path in places for part in ("-P", str(path)))]


def _paths(journal: Path, place: Place) -> list[Path]:
    last = max(_numbers(journal), default=0)
    match place:
        case "journal":
            return [journal / "durable", *(journal / f"{number:08}.segment" for number in range(1, last + 2))]
        case "next":
            return [journal / f"{number:08}.segment.new" for number in (last, last + 1, last + 2)]
        case "lock":
            return [journal / "lock"]
        case "probe":
            return [journal / "probe.new"]
        case "folder":
            return [journal]


def _numbers(journal: Path) -> Iterator[int]:
    return (int(file.stem) for file in journal.glob("*.segment"))


def unprepare(journal: Path) -> None:
    """Take away a segment that is ready and unused, so that the next start has to prepare one. The switch must not run."""
    file = journal / f"{max(_numbers(journal)):08}.segment"
    with file.open("rb") as opened:
        opened.seek(BLOCK_BYTES)
        if not any(opened.read(BLOCK_BYTES)):
            file.unlink()


def lift(switch: Switch) -> None:
    """Let go of a switch that was started with a fault that can be lifted: from here on every call succeeds."""
    (line,) = (line for line in Path(f"/proc/{switch.pid}/status").read_text().splitlines() if line.startswith("TracerPid:"))
    os.kill(int(line.split()[1]), signal.SIGTERM)


def remake(switch: Switch, segment_bytes: int) -> None:
    """An empty journal with segments of this size."""
    for file in switch.journal.iterdir():
        file.unlink()
    switch.journal.rmdir()
    Core.create(switch.journal, segment_bytes=segment_bytes)
