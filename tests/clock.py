"""A wall clock that a test can set: a few lines of C in front of the system's, which add what stands in a file."""

import struct
import subprocess
from pathlib import Path
from typing import Final

import pytest

CLOCK_SOURCE: Final = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    long result = syscall(SYS_clock_gettime, clock, now);
    const char *name = getenv("CLOCK_OFFSET_FILE");
    if (result == 0 && clock == CLOCK_REALTIME && name != NULL) {
        int64_t seconds = 0;
        int file = open(name, O_RDONLY | O_CLOEXEC);
        if (file >= 0) {
            if (pread(file, &seconds, sizeof seconds, 0) == sizeof seconds) now->tv_sec += seconds;
            close(file);
        }
    }
    return (int)result;
}
"""

DAY_SECONDS: Final = 86_400


class Clock:
    """The wall clock of the processes that are started from now on and of those that were, in days ahead of this machine's."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source, library = folder / "clock.c", folder / "clock.so"
        source.write_text(CLOCK_SOURCE, encoding="ascii")
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
        self._file = folder / "offset"
        self._file.touch()
        self.set(0)
        monkeypatch.setenv("CLOCK_OFFSET_FILE", str(self._file))
        monkeypatch.setenv("LD_PRELOAD", str(library))

    def set(self, days: int) -> None:
        # In place and in one write, so that no reader finds a part of it.
        with self._file.open("r+b", buffering=0) as file:
            file.write(struct.pack("=q", days * DAY_SECONDS))
