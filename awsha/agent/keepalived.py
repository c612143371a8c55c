"""Notices that keepalived is gone: a master whose VRRP has died must let go."""

from __future__ import annotations

import selectors
import threading
from collections.abc import Callable

from awsha.host.clock import boottime
from awsha.host.keepalived import Watch


class KeepalivedWatch:
    """Watches the keepalived processes that the intents name. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watches: dict[tuple[int, int], Watch] = {}
        self._gone: dict[tuple[int, int], float] = {}
        self._selector: selectors.BaseSelector | None = None
        self._on_end: Callable[[], None] = lambda: None

    def attach(self, selector: selectors.BaseSelector, on_end: Callable[[], None]) -> None:
        """Have a selector call `on_end` at once when a watched process ends."""
        self._selector, self._on_end = selector, on_end

    def gone_since(self, process: tuple[int, int] | None) -> float | None:
        """When (boottime) this keepalived was first seen to be gone; None while it lives, or when it is not known."""
        if process is None:
            return None
        with self._lock:
            if process in self._gone:
                return self._gone[process]
            watch = self._watches.get(process)
            if watch is None:
                watch = self._watches[process] = Watch(*process)
                if self._selector is not None and watch.fileno() >= 0:
                    self._selector.register(watch, selectors.EVENT_READ, lambda: self._ended(process))
            if watch.alive():
                return None
            return self._end(process)

    def _ended(self, process: tuple[int, int]) -> None:
        with self._lock:
            if process in self._watches:
                self._end(process)
        self._on_end()

    def _end(self, process: tuple[int, int]) -> float:
        watch = self._watches.pop(process)
        if self._selector is not None and watch.fileno() >= 0:
            self._selector.unregister(watch)
        watch.close()
        now = boottime()
        self._gone = {process: now, **dict(list(self._gone.items())[:16])}
        return now
