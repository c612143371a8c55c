"""What happened in one schedule, for people: a line an event. Off by default, since a line costs more than an event."""

from __future__ import annotations

from awsha.core.pacing import describe
from awsha.core.situation import Plan
from awsha.core.steps import Outcome, Step


class Trace:
    """Lines of (virtual seconds since the start, node, text)."""

    def __init__(self, start: float) -> None:
        self._start = start
        self.lines: list[str] = []
        self._last: dict[str, str] = {}

    def say(self, now: float, who: str, text: str) -> None:
        """One line."""
        self.lines.append(f"{now - self._start:9.3f}  {who:<7} {text}")

    def plan(self, now: float, who: str, plan: Plan) -> None:
        """What a turn decided, when it is something new."""
        reasons = ", ".join(f"{r.code}{'!' if r.blocked else ''}" for r in plan.reasons)
        text = f"{plan.goal}: " + ("done" if plan.done else reasons or "nothing waits")
        starts = ", ".join(describe(step) for step in plan.steps)
        if starts or self._last.get(who) != text:
            self._last[who] = text
            self.say(now, who, f"  {text}" + (f" -> {starts}" if starts else ""))

    def outcome(self, now: float, who: str, step: Step, outcome: Outcome) -> None:
        """How a step ended."""
        how = "ok" if outcome.ok else f"failed ({outcome.failure})"
        self.say(now, who, f"  {describe(step)}: {how}{': ' + outcome.text if outcome.text else ''}")

    def tell(self, last: int | None = None) -> str:
        """All of it, or its end."""
        lines = self.lines if last is None else self.lines[-last:]
        return "\n".join(lines)
