"""How a command watches work that others do: lines that stay, what is under way now, and an end that harms nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from awsha.agent import ask
from awsha.core.situation import Code
from awsha.host.clock import boottime

Say = Callable[[str], None]
SLOWER = ((5.0, 0.25), (15.0, 0.5))  # (until, pause): EC2 is asked at each look
SLOWEST_S = 1.0
WELL_KNOWN = (Code.RELEASED, Code.RUNNING)  # to the one who asked for it


def _nothing(_: str) -> None:
    pass


@dataclass
class Watch:
    """Where a command tells: `say` lines that stay, `doing` what is under way now.

    `goes_on`: what is still done when the watching ends early; "" while nothing was set going. `last`: of `doing`.
    """

    say: Say
    doing: Say = _nothing
    goes_on: str = ""
    last: str = field(default="", init=False)

    def now(self, text: str) -> None:
        """What is under way."""
        if text:
            self.last = text
            self.doing(text)

    def agent(self, name: str) -> None:
        """What the agent of this node does for a group, and what it waits for."""
        told = ask.report()
        self.now("the agent does not answer" if told is None else words(told.get(name, {})))

    def until(self, look: Callable[[], bool], deadline: float, meanwhile: Callable[[], None]) -> bool:
        """Look until it is so; False after `deadline` (boottime seconds)."""
        began, pause = boottime(), threading.Event()
        while not look():
            now = boottime()
            if now > deadline:
                return False
            meanwhile()
            pause.wait(next((s for until, s in SLOWER if now - began < until), SLOWEST_S))
        return True


def words(told: dict[str, Any]) -> str:
    """A group of the agent's report: what it does, and what it waits for; once each, what needs somebody first."""
    running: list[str] = told.get("running", [])
    reasons = [r for r in (*told.get("blocked", []), *told.get("waiting", [])) if r["code"] not in WELL_KNOWN]
    telling = [r["text"] for r in reasons if r["code"] != Code.SETTLING]
    return "; ".join(dict.fromkeys((*running, *telling))) or "; ".join(r["text"] for r in reasons)
