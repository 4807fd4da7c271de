"""What a purchase and a batch cost the kernel: the system calls of a real switch under load, counted by strace."""

import re
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.switch_process import FAR_FUTURE, MERCHANTS, SHOP, Switch, in_thread

CONNECTIONS: Final = 64

PURCHASE_MAX: Final = {"recvfrom": 1.01, "sendto": 1.01}
"""Calls a message with one under way on each connection: to read it, and to answer it. One more of a connection finds its end."""

BATCH_MAX: Final = {
    # The batch, then the durable mark.
    "pwrite64": 2.1,
    # To hand a batch to the journal's thread, and to be told that it sleeps again.
    "futex": 4.0,
    # The event that a batch is durable.
    "write": 1.2,
    "read": 1.5,
    # Of the core and of trio, which also tell each other what to watch; with one core these are more than with two.
    "epoll_wait": 4.0,
    "epoll_pwait2": 6.0,
    "epoll_ctl": 3.0,
}
"""Calls a batch of the journal."""

BATCHES: Final = "switch_journal_batch_records_count"
"""The switch's own count of them."""

OTHERS_MAX: Final = 100 + 15 * CONNECTIONS
"""Everything else: connections that are taken in, given their options and closed."""


def campus(folder: Path) -> list[Path]:
    files = {
        "merchants.csv": MERCHANTS,
        "terminals.csv": "terminal_id,merchant_id,kind,zone,key\n"
        + "".join(f"T{number:07},{SHOP},pos,,{number:032x}\n" for number in range(1, CONNECTIONS + 1)),
        "cards.csv": "card_number,holder_id,class,status,expires,cash,subsidy\n"
        + "".join(f"623{number:013},H{number:08},student,active,{FAR_FUTURE},99999999,0\n" for number in range(1, 501)),
    }
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    return [folder / name for name in files]


async def test_a_purchase_is_one_read_and_one_write_and_a_batch_a_dozen_calls(
    driver: Path, make_switch: Callable[..., Switch], tmp_path: Path
) -> None:
    switch = make_switch(campus_timezone="UTC")
    imported = await in_thread(lambda: switch.command("import", "--config", switch.file, *campus(tmp_path)))
    assert imported.returncode == 0, imported.stderr
    trace = tmp_path / "trace"
    # The follower, which starts at the same time, and what starts and ends in the switch itself are not looked at.
    await in_thread(lambda: switch.start("strace", "-D", "-f", "-qq", "-s", "0", "-o", str(trace)))
    before = (await switch.metrics()).value(BATCHES)
    threads = threads_of(switch.pid)
    begin = trace.stat().st_size
    load = ["drive", "--address", switch.ready["terminals"], "--campus", tmp_path, "--warm-up", "0", "--seconds", "1"]
    command = list(map(str, [driver, "--rehearsal", *load, "--connections", CONNECTIONS]))
    driven = await in_thread(lambda: subprocess.run(command, capture_output=True, text=True, check=False, timeout=60))
    assert driven.returncode == 0, driven.stderr
    messages = int(re.findall(r'"answers_total":(\d+)', driven.stdout)[0]) + CONNECTIONS
    lines = trace.read_bytes()[begin:].decode().splitlines()
    calls = Counter(found[2] for line in lines if (found := re.match(r"(\d+) +(\w+)\(", line)) and found[1] in threads)
    batches = (await switch.metrics()).value(BATCHES) - before
    told = f"{messages} messages in {batches:.0f} batches: {dict(calls)}"
    assert messages > 10 * CONNECTIONS, told
    assert batches > 10, told
    for call, most in PURCHASE_MAX.items():
        assert (calls[call] - CONNECTIONS) / messages <= most, f"{call}: {told}"
    for call, most in BATCH_MAX.items():
        assert calls[call] / batches <= most, f"{call}: {told}"
    others = {call: count for call, count in calls.items() if call not in PURCHASE_MAX and call not in BATCH_MAX}
    assert sum(others.values()) <= OTHERS_MAX, f"{others}: {told}"


def threads_of(pid: int) -> set[str]:
    return {thread.name for thread in Path(f"/proc/{pid}/task").iterdir()}
