"""Terminals first: what settles, the follower and the embedded PostgreSQL, gives way to whatever else wants the processors.

How it works: by a nice value, which any user may raise. A kernel that groups processes by session (autogroup, `man 7 sched`) compares
nice values only within a group and shares time out equally among groups. The follower is of the switch's own session; but each process of
a PostgreSQL makes a session of its own. So a group that is not this process's gets the value too.
"""

import os
from pathlib import Path
from typing import Final

__all__ = ["NICE", "give_way"]

NICE: Final = 10
"""A tenth of a processor's time where others want all of it. Less would help terminals little more, and where something else keeps the
processors busy, reports and the follower still get on."""


def give_way(pid: int) -> bool:
    """Raise a process's nice value, and its group's; never lower them.

    False: the kernel, which takes few of these a second, wants to be asked again. Whatever else it refuses stays as it is.
    """
    try:
        os.setpriority(os.PRIO_PROCESS, pid, max(NICE, os.getpriority(os.PRIO_PROCESS, pid)))
        group = Path(f"/proc/{pid}/autogroup")
        name, _, nice = group.read_text(encoding="ascii").partition(" nice ")
        if name != Path("/proc/self/autogroup").read_text(encoding="ascii").partition(" nice ")[0] and int(nice) < NICE:
            group.write_text(str(NICE), encoding="ascii")
    except BlockingIOError:
        return False
    except OSError:
        # It has ended, it is another user's, or the kernel has no groups.
        pass
    return True
