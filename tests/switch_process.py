"""A real switch for tests: its folder, its process, and parties whose messages are written field by field or byte by byte.

Always true here: the switch is another process, reached over TCP alone; what is sent and read goes through the reference terminal's
codec, none of the switch's own. Its clock is real, but its campus lies where it is about noon, so that no business day ends under a test.
Whatever is waited for has a deadline, and a switch that ends otherwise than it should shows its log.
"""

import contextlib
import datetime
import itertools
import json
import math
import os
import random
import re
import selectors
import shutil
import signal
import subprocess
import sys
import zoneinfo
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import httpx
import trio
from prometheus_client.parser import text_string_to_metric_families

from switch import config as configuration
from switch._core import verify
from switch.terminal import (
    MAC_BYTES,
    FrameBuffer,
    MacKey,
    Terminal,
    TerminalProtocol,
    decode,
    encode,
    frame,
    session_keys,
    sign_on_key,
    sub_elements,
)

DEADLINE_SECONDS: Final = 60
"""For whatever is waited for; reached only where something is broken."""

POLL_SECONDS: Final = 0.02

PROGRAM: Final = Path(sys.executable).with_name("switch")

NO_DATABASE: Final = "postgresql://nobody@127.0.0.1:1/none"
"""Nothing listens there: the switch authorizes without PostgreSQL, and starts at once."""

CANTEEN: Final = "M00000000000001"
SHOP: Final = "M2"
MERCHANTS: Final = f"merchant_id,name,category,fee_bp\n{CANTEEN},第一食堂,canteen,120\n{SHOP},Corner shop,shop,0\n"

AMOUNT_MAX: Final = 5_000_000

Fields = dict[str, str]


def _noon() -> str:
    """A time zone in which it is about noon."""
    ahead = 12 - datetime.datetime.now(datetime.UTC).hour
    # POSIX counts the hours westward.
    return f"Etc/GMT{-ahead:+d}" if ahead else "Etc/GMT"


ZONE: Final = _noon()


def now() -> datetime.datetime:
    """The campus's local time, as a terminal's clock shows it."""
    return datetime.datetime.now(zoneinfo.ZoneInfo(ZONE)).replace(tzinfo=None)


def today(days: int = 0) -> datetime.date:
    return now().date() + datetime.timedelta(days=days)


async def until[T](look: Callable[[], Awaitable[T]], holds: Callable[[T], bool]) -> T:
    """Look again and again until what is seen holds, and give it. Fails with what was seen last."""
    seen = await look()
    with trio.move_on_after(DEADLINE_SECONDS):
        while not holds(seen):
            await trio.sleep(POLL_SECONDS)
            seen = await look()
    assert holds(seen), f"not within {DEADLINE_SECONDS} seconds; seen last: {seen}"
    return seen
