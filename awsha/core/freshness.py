"""Which facts are still good: a fact is old once something has happened to what it describes after it was asked for."""

from __future__ import annotations

from awsha.core.steps import Scope


class Freshness:
    """Keeps the order of changes, questions and answers, per kind of fact. Order, not time: two can share a moment."""

    def __init__(self) -> None:
        self._order = 0
        self._changed = dict.fromkeys(Scope, 1)
        self._superseded = dict.fromkeys(Scope, 0)
        self._answered = dict.fromkeys(Scope, 0)
        self._asked: dict[Scope, tuple[int, float]] = {}
        self._read_at = dict.fromkeys(Scope, float("-inf"))

    def changed(self, *scopes: Scope) -> None:
        """These facts may be different now: they are to be read (again)."""
        self._order += 1
        for scope in scopes:
            self._changed[scope] = self._order

    def superseded(self, scope: Scope) -> None:
        """Something newer was learned: an answer to an earlier question is worth nothing, and is not waited for."""
        self._order += 1
        self._superseded[scope] = self._order

    def ask(self, scope: Scope, now: float) -> None:
        """A read begins."""
        self._order += 1
        self._asked[scope] = (self._order, now)

    def answer(self, scope: Scope, now: float) -> bool:
        """A read ended. False when its answer is older than what is known."""
        self._order += 1
        order, asked_at = self._asked.pop(scope, (self._order, now))
        if order < self._superseded[scope]:
            return False
        self._answered[scope] = order
        self._read_at[scope] = asked_at
        return True

    def stale(self, scope: Scope) -> bool:
        """Whether something changed since the last answer was asked for."""
        return self._answered[scope] < self._changed[scope]

    def in_flight(self, scope: Scope) -> bool:
        """Whether a read is under way."""
        return scope in self._asked

    def permits(self, scope: Scope, now: float, limit_s: float) -> bool:
        """Whether a step may rely on these facts: not changed since, and not older than `limit_s`."""
        return not self.stale(scope) and now - self._read_at[scope] <= limit_s

    def read_at(self, scope: Scope) -> float:
        """When (boottime seconds) the newest answer was asked for; minus infinity: never."""
        return self._read_at[scope]
