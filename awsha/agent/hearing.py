"""Which peers were heard as VRRP masters: from adverts, kept over restarts of the agent, not over a boot."""

from __future__ import annotations

import contextlib
import threading

from awsha.agent.marks import Marks
from awsha.core.model import Heard
from awsha.core.policy import Group, Policy
from awsha.host.clock import boottime
from awsha.host.vrrp import Advert, Listener, Table

HEARD_MARK = "heard-"
BEFORE = Heard(0.0, 0)  # heard since boot, but before this agent listened


class Hearing:
    """Adverts of the peers of all groups. Thread-safe. Without a listener (a dry run) it knows what was kept."""

    def __init__(self, policy: Policy, *, listen: bool) -> None:
        self.listener = Listener() if listen else None
        self._names = {node.address: node.name for node in policy.nodes}
        addresses = {node.name: node.address for node in policy.nodes}
        self._marks = {g.virtual_router_id: Marks(g.name) for g in policy.groups}
        self._lock = threading.Lock()
        kept = {
            (router, addresses[name]): BEFORE
            for router, marks in self._marks.items()
            for name in addresses
            if HEARD_MARK + name in marks.all()
        }
        self._kept = set(kept)
        self._table = Table(addresses, kept, {g.virtual_router_id: g.advert_int for g in policy.groups})

    def drain(self) -> list[Advert]:
        """Take in what has come; returns the adverts of configured peers in configured groups.

        What can't be kept (no space in RUN) is tried again with the next advert: until then only this process knows it.
        """
        if self.listener is None:
            return []
        with self._lock:
            came = self.listener.drain(boottime())
            adverts = [a for a in came if a.source in self._names and a.router_id in self._marks]
            for advert in adverts:
                if (heard := (advert.router_id, advert.source)) not in self._kept:
                    with contextlib.suppress(OSError):
                        self._marks[advert.router_id].put(HEARD_MARK + self._names[advert.source])
                        self._kept.add(heard)
            self._table.note(adverts)
            return adverts

    def heard(self, group: Group) -> dict[str, Heard]:
        """For each peer that was ever heard in this group since boot: its last advert."""
        self.drain()
        with self._lock:
            return self._table.heard(group.virtual_router_id)
