"""Processes told apart by start time, keepalived above all: is the one that ran a notify still there?"""

from __future__ import annotations

import os
import select
from pathlib import Path

from awsha.host.clock import boot_id, boottime

__all__ = ["Watch", "boot_id", "boottime", "start_time"]


def start_time(pid: int, proc: str = "/proc") -> int | None:
    """Start time in clock ticks since boot: field 22 of /proc/PID/stat (proc_pid_stat(5)); None when there is none.

    The command, field 2, may hold blanks and parentheses: fields are counted from the last one.
    """
    try:
        text = Path(f"{proc}/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(text[text.rindex(")") + 2 :].split()[19])
    except (OSError, ValueError, IndexError):
        return None


class Watch:
    """Tells when a process ends: `fileno()` is readable once it has. A pid given to another process counts as ended."""

    def __init__(self, pid: int, started: int) -> None:
        self.pid = pid
        self.started = started
        self._ended = False
        try:
            self._fd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._fd = self._end()
        else:
            if start_time(pid) != started:  # asked with the pidfd open: it cannot change hands any more
                os.close(self._fd)
                self._fd = self._end()

    def _end(self) -> int:
        """A descriptor that is always readable."""
        self._ended = True
        return os.eventfd(1, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def fileno(self) -> int:
        """For a selector, EVENT_READ."""
        return self._fd

    def alive(self) -> bool:
        """Whether it still runs. One that has ended but was not waited for yet does not."""
        if not self._ended:
            poll = select.poll()
            poll.register(self._fd, select.POLLIN)
            self._ended = bool(poll.poll(0))
        return not self._ended

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
