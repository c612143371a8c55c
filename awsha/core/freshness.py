"""Which facts are still good: a fact is old once something has happened to what it describes after it was asked for."""

from __future__ import annotations

from awsha.core.steps import SCOPES, Scope


class Fact:
    """One kind of fact: where in the order its last change, question and answer stand. `asked` 0: no read is under way.

    `superseded`: an answer to a question asked before is worth nothing. `read_at`: when what is known was asked for, in
    boottime seconds; minus infinity: never.
    """

    __slots__ = ("answered", "asked", "asked_at", "changed", "read_at", "superseded")

    def __init__(self) -> None:
        self.changed = 1
        self.superseded = 0
        self.answered = 0
        self.asked = 0
        self.asked_at = 0.0
        self.read_at = float("-inf")

    @property
    def stale(self) -> bool:
        """Whether something changed since the last answer was asked for."""
        return self.answered < self.changed


class Freshness:
    """Keeps the order of changes, questions and answers, per kind of fact. Order, not time: two can share a moment."""

    def __init__(self) -> None:
        self._order = 0
        self._facts = {scope: Fact() for scope in SCOPES}

    def changed(self, *scopes: Scope) -> None:
        """These facts may be different now: they are to be read (again)."""
        self._order += 1
        for scope in scopes:
            self._facts[scope].changed = self._order

    def superseded(self, scope: Scope) -> None:
        """Something newer was learned: an answer to an earlier question is worth nothing, and is not waited for."""
        self._order += 1
        self._facts[scope].superseded = self._order

    def ask(self, scope: Scope, now: float) -> None:
        """A read begins."""
        self._order += 1
        fact = self._facts[scope]
        fact.asked, fact.asked_at = self._order, now

    def answer(self, scope: Scope, now: float) -> bool:
        """A read ended. False when its answer is older than what is known."""
        self._order += 1
        fact = self._facts[scope]
        order, asked_at = (fact.asked, fact.asked_at) if fact.asked else (self._order, now)
        fact.asked = 0
        if order < fact.superseded:
            return False
        fact.answered = order
        fact.read_at = asked_at
        return True

    def of(self, scope: Scope) -> Fact:
        """How one kind of fact stands."""
        return self._facts[scope]

    def permits(self, scope: Scope, now: float, limit_s: float) -> bool:
        """Whether a step may rely on these facts: not changed since, and not older than `limit_s`."""
        fact = self._facts[scope]
        return not fact.stale and now - fact.read_at <= limit_s
