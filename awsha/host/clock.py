"""The two clocks that leave this room: seconds since boot, and which boot it is."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boottime() -> float:
    """Seconds since boot, suspended time included (CLOCK_BOOTTIME): the same for every process of this boot."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@cache
def boot_id() -> str:
    """The kernel's random name of this boot; times and pids of another boot mean nothing (random(4)).

    Read once: no process outlives a boot.
    """
    return _BOOT_ID.read_text(encoding="ascii").strip()
