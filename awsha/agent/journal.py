"""What happened, one line a step, readable by a tired person; systemd's journal keeps it.

It writes to standard error: under systemd that is the journal, in a terminal the terminal.
"""

from __future__ import annotations

import logging
import os
import sys

from awsha.core.loop import Turn
from awsha.core.model import Intent
from awsha.core.pacing import describe
from awsha.core.situation import Code, Reason
from awsha.core.steps import ListHolders, Outcome, Step

# shown in status; in the log they would only be noise, or were told when they happened
QUIET = frozenset({Code.LOOKING, Code.RUNNING, Code.SETTLING, Code.HOOK_WARNED})
_LOG = logging.getLogger("awsha")


def log_to_stderr(verbose: bool = False) -> None:
    """Set the log up: message only under systemd, which adds the time itself."""
    handler = logging.StreamHandler(sys.stderr)
    form = "%(message)s" if "JOURNAL_STREAM" in os.environ else "%(asctime)s.%(msecs)03d %(message)s"
    handler.setFormatter(logging.Formatter(form, "%H:%M:%S"))
    _LOG.addHandler(handler)
    _LOG.setLevel(logging.DEBUG if verbose else logging.INFO)


class Journal:
    """Tells changes, not states: a reason is logged when it appears and when it ends."""

    def __init__(self) -> None:
        self._shown: dict[str, dict[tuple[Code, str], str]] = {}
        self._goal: dict[str, tuple[str, bool, bool]] = {}

    def say(self, group: str, text: str) -> None:
        """One line about a group."""
        _LOG.info("%s: %s", group, text)

    def intent(self, group: str, intent: Intent | None) -> None:
        """keepalived said something new."""
        self.say(group, f"role {intent.role}" if intent else "no role")

    def started(self, group: str, step: Step) -> None:
        """A step begins."""
        _LOG.debug("%s: %s …", group, describe(step))

    def finished(self, group: str, step: Step, outcome: Outcome, took_s: float) -> None:
        """A step ended."""
        tail = f": {outcome.text}" if outcome.text else ""
        if isinstance(step, ListHolders) and outcome.ok:
            return
        if outcome.ok:
            self.say(group, f"{describe(step)}: done in {took_s:.2f} s{tail}")
            return
        hint = f" (hint: {outcome.hint})" if outcome.hint else ""
        _LOG.warning("%s: %s failed after %.2f s%s%s", group, describe(step), took_s, tail, hint)

    def turn(self, group: str, turn: Turn) -> None:
        """What changed since the last turn: what waits, and whether the goal is reached."""
        reasons = {(r.code, r.subject): r for r in turn.plan.reasons if r.code not in QUIET}
        shown = self._shown.get(group, {})
        for key, reason in reasons.items():
            if key not in shown:
                self._reason(group, reason)
        self._shown[group] = {key: r.text for key, r in reasons.items()}
        goal = (turn.plan.goal, turn.plan.done, turn.verdict.ok)
        before = self._goal.get(group)
        if goal == before:
            return
        self._goal[group] = goal
        if turn.plan.done and (before is None or not before[1] or before[0] != turn.plan.goal):
            self.say(group, "converged: " + ("everything is here" if turn.plan.goal == "master" else "nothing is here"))
        if not turn.verdict.ok and (before is None or before[2]):
            _LOG.warning("%s: unhealthy: %s", group, turn.verdict.text)
        if turn.verdict.ok and before is not None and not before[2]:
            self.say(group, "healthy again")

    def broken(self, group: str) -> None:
        """A defect has ended a group's loop; called where it is caught."""
        _LOG.exception("%s: the loop has broken down", group)

    def _reason(self, group: str, reason: Reason) -> None:
        if reason.blocked:
            _LOG.warning("%s: blocked: %s. Next: %s", group, reason.text, reason.hint)
        else:
            self.say(group, f"waits: {reason.text}")
