"""What a card, a remembered identity and an idle connection take, in small numbers; `make bench` measures a million and more."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.switch_process import FAR_FUTURE, MERCHANTS, SHOP, Switch

CARD_BYTES_MAX: Final = 160
IDENTITY_BYTES_MAX: Final = 80
CONNECTION_BYTES_MAX: Final = 6 * 1024
"""In the process: the rest of 16 KiB is the kernel's, which keeps about 5 KiB for a connection that waits."""

CARDS: Final = 100_000
IDENTITIES: Final = 400_000
CONNECTIONS: Final = 500


def test_cards_and_identities_take_no_more_than_they_may(driver: Path) -> None:
    command = [str(driver), "--rehearsal", "memory", "--cards", str(CARDS), "--identities", str(IDENTITIES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    for kind, most in (("cards", CARD_BYTES_MAX), ("identities", IDENTITY_BYTES_MAX)):
        steps = figures[kind]["steps"]
        last = steps[-1]
        assert last["count"] == {"cards": CARDS, "identities": IDENTITIES}[kind]
        # Not where a table has just grown: places that nothing was put into are not in memory yet, but the index has all of its.
        assert 24 < last["resident"] / last["count"] <= most, f"{kind}: {last}"
        assert last["resident"] <= last["allocated"] * 1.1 + (1 << 20)
        assert all(step["resident"] <= step["resident_peak"] and step["longest_ns"] > 0 for step in steps)
        assert sum(figures[kind]["parts"].values()) > 0


def test_an_idle_connection_takes_little(driver: Path, make_switch: Callable[..., Switch], tmp_path: Path) -> None:
    files = {
        "merchants.csv": MERCHANTS,
        "terminals.csv": "terminal_id,merchant_id,kind,zone,key\n"
        + "".join(f"T{number:07},{SHOP},pos,,{number:032x}\n" for number in range(1, CONNECTIONS + 1)),
        "cards.csv": f"card_number,holder_id,class,status,expires,cash,subsidy\n6230000000000017,H1,student,active,{FAR_FUTURE},1,0\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    switch = make_switch(campus_timezone="UTC")
    imported = switch.command("import", "--config", switch.file, *(tmp_path / name for name in files))
    assert imported.returncode == 0, imported.stderr
    switch.start()
    before = resident_bytes(switch.pid)
    load = ["drive", "--address", switch.ready["terminals"], "--campus", tmp_path, "--connections", CONNECTIONS]
    command = list(map(str, [driver, "--rehearsal", *load, "--rate", "0", "--warm-up", "0", "--seconds", "60", "--announce"]))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as terminals:
        try:
            assert terminals.stdout is not None
            assert json.loads(terminals.stdout.readline())["terminals"] == CONNECTIONS
            held = resident_bytes(switch.pid) - before
        finally:
            terminals.kill()
    assert held / CONNECTIONS <= CONNECTION_BYTES_MAX


def resident_bytes(pid: int) -> int:
    found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024
