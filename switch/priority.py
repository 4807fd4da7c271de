"""Terminals first: what settles, the follower and the embedded PostgreSQL, gives way to whatever else wants the processors.

How it works: by a nice value, which any user may raise. A kernel that groups processes by session (autogroup, `man 7 sched`) compares
nice values only within a group and shares time out equally among groups. The follower is of the switch's own session; but each process of
a PostgreSQL makes a session of its own. So a group that is not this process's gets the value too. A process may also be in no such group,
as the first one of a container and what it starts without a session are; then its nice value is all there is.
"""

import os
from pathlib import Path
from typing import Final

__all__ = ["NICE", "give_way"]

NICE: Final = 19
"""As far as it goes: at 10 payments beside a settlement that had much to do still waited for it, one in a hundred of them 5 ms.
Where something else keeps all processors busy for good, reports and the follower get on slowly: a seventieth of one is theirs."""


def give_way(pid: int) -> bool:
    """Give a process, and its group, the lowest priority.

    False: the kernel, which takes few of these a second, wants to be asked again. Whatever else it refuses stays as it is.
    """
    try:
        os.setpriority(os.PRIO_PROCESS, pid, NICE)
        group = Path(f"/proc/{pid}/autogroup")
        if _must_be_told(group.read_text(encoding="ascii"), Path("/proc/self/autogroup").read_text(encoding="ascii")):
            group.write_text(str(NICE), encoding="ascii")
    except BlockingIOError:
        return False
    except OSError:
        # It has ended, it is another user's, or the kernel has no groups.
        pass
    return True


def _must_be_told(group: str, own: str) -> bool:
    """Whether a group needs the value too: it is one, not this process's own, and has another value.

    `group` and `own` are what the kernel says of both (`/autogroup-42 nice 0`); of a process that is in none it says nothing.
    """
    name, _, nice = group.strip().partition(" nice ")
    return bool(name) and name != own.partition(" nice ")[0] and nice != str(NICE)
