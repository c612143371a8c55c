"""What happened, one line a step, readable by a tired person; systemd's journal keeps it.

Under systemd it goes to the journal with fields: GROUP, STEP, CODE, TRANSITION_ID. Elsewhere to standard error.
"""

from __future__ import annotations

import logging
import os
import sys

from awsha.agent import journald
from awsha.aws.discreet import hide
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
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    form = "%(message)s" if "JOURNAL_STREAM" in os.environ else "%(asctime)s.%(msecs)03d %(message)s"
    handler.setFormatter(Discreet(form, "%H:%M:%S"))
    if journald.is_stderr(sys.stderr, os.environ):
        handler = journald.Handler(handler)
        handler.setFormatter(Discreet())
    # This logger alone: botocore's own, at DEBUG, tells every signed request.
    _LOG.addHandler(handler)
    _LOG.setLevel(logging.DEBUG if verbose else logging.INFO)


class Discreet(logging.Formatter):
    """The second look for secrets: a traceback quotes whatever a library has put into its exceptions."""

    def format(self, record: logging.LogRecord) -> str:
        """As text, without secrets."""
        return hide(super().format(record))


class Journal:
    """Tells changes, not states: a reason is logged when it appears and when it ends."""

    def __init__(self) -> None:
        self._shown: dict[str, dict[tuple[Code, str], str]] = {}
        self._goal: dict[str, tuple[str, bool, bool]] = {}
        self._transition: dict[str, str] = {}

    def transition(self, group: str, name: str) -> None:
        """Lines about this group belong to this transition from now on (empty: to none)."""
        self._transition[group] = name

    def say(self, group: str, text: str) -> None:
        """One line about a group."""
        self._log(logging.INFO, group, text)

    def warn(self, group: str, text: str) -> None:
        """One line about something that went wrong and stops nothing."""
        self._log(logging.WARNING, group, text)

    def _log(self, level: int, group: str, text: str, **fields: str) -> None:
        """One line; `fields` are for the journal. Their names are in lower case here."""
        known = {"GROUP": group, "TRANSITION_ID": self._transition.get(group, "")}
        told = known | {key.upper(): value for key, value in fields.items()}
        _LOG.log(level, "%s: %s", group, text, extra={"fields": told})

    def intent(self, group: str, intent: Intent | None) -> None:
        """keepalived said something new."""
        self.say(group, f"role {intent.role}" if intent else "no role")

    def started(self, group: str, step: Step) -> None:
        """A step begins."""
        self._log(logging.DEBUG, group, f"{describe(step)} …", step=type(step).__name__)

    def finished(self, group: str, step: Step, outcome: Outcome, took_s: float) -> None:
        """A step ended."""
        tail = f": {outcome.text}" if outcome.text else ""
        if isinstance(step, ListHolders) and outcome.ok:
            return
        kind = type(step).__name__
        if outcome.ok:
            self._log(logging.INFO, group, f"{describe(step)}: done in {took_s:.2f} s{tail}", step=kind)
            return
        hint = f" (hint: {outcome.hint})" if outcome.hint else ""
        code = outcome.failure or ""
        text = f"{describe(step)} failed after {took_s:.2f} s{tail}{hint}"
        self._log(logging.WARNING, group, text, step=kind, code=code)

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
            self._log(logging.WARNING, group, f"unhealthy: {turn.verdict.text}")
        if turn.verdict.ok and before is not None and not before[2]:
            self.say(group, "healthy again")

    def broken(self, group: str) -> None:
        """A defect has ended a group's loop; called where it is caught."""
        _LOG.exception("%s: the loop has broken down", group, extra={"fields": {"GROUP": group}})

    def _reason(self, group: str, reason: Reason) -> None:
        if reason.blocked:
            text = f"blocked: {reason.text}. Next: {reason.hint}"
            self._log(logging.WARNING, group, text, code=reason.code)
        else:
            self._log(logging.INFO, group, f"waits: {reason.text}", code=reason.code)
