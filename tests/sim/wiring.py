"""What a simulated node is made of. The mutants of test_mutants.py put something wrong in one of these places."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from awsha.core import guards
from awsha.core.guards import Fresh
from awsha.core.loop import Loop
from awsha.core.model import Hook, Intent, Self
from awsha.core.policy import Group
from awsha.core.steps import Step

if TYPE_CHECKING:
    from tests.sim.node import Node


@dataclass(frozen=True)
class Wiring:
    """loop: makes a node's converge loop. refusal: the guard. newest: reads the intent (None: as the agent does).

    lock: one process a group on a node. serial_check: mount and fsck read the serial again.
    rescan: holders are looked for once more just before a signal. retry_s: a call that EC2 throttles is tried again
    for so long behind its second look (never, in awsha: the loop decides again). hooks: the points that have programs,
    which take up to three seconds, and fail now and then.
    """

    loop: Callable[[Group, Self], Loop] = Loop
    refusal: Callable[[Step, Fresh, Intent | None, str], str | None] = guards.refusal
    newest: Callable[[Node], Intent | None] | None = None
    lock: bool = True
    serial_check: bool = True
    rescan: bool = True
    retry_s: float = 0.0
    hooks: frozenset[Hook] = frozenset()


REAL = Wiring()
