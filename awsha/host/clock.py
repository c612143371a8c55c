"""The two clocks that leave this room: seconds since boot, and which boot it is."""

from __future__ import annotations

import time
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boottime() -> float:
    """Seconds since boot, suspended time included (CLOCK_BOOTTIME): the same for every process of this boot."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """The kernel's random name of this boot; times and pids of another boot mean nothing (random(4))."""
    return _BOOT_ID.read_text(encoding="ascii").strip()
