"""Waiting in the lab: only looks, often, until a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_never = threading.Event()


def wait_until(look: Callable[[], T], deadline_s: float, period_s: float = 0.005) -> T:
    """Look until the answer counts as true or `deadline_s` has passed; returns the last answer either way."""
    end = time.monotonic() + deadline_s
    while True:
        answer = look()
        if answer or time.monotonic() >= end:
            return answer
        _never.wait(period_s)
