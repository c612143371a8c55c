"""What the application needs next."""

from __future__ import annotations

from awsha.core.model import ApplicationState, Unknown
from awsha.core.policy import Application
from awsha.core.situation import Code, Draft
from awsha.core.steps import Scope, StartApplication, StopApplication

DOWN = frozenset({ApplicationState.STOPPED, ApplicationState.FAILED})


def _journal_hint(application: Application) -> str:
    return f"journalctl -u {application.unit}" if application.unit else f"run it by hand: {' '.join(application.start)}"


def acquire(draft: Draft, stands: bool) -> bool:
    """Plan what makes the application run. `stands`: its file systems and addresses are there. True when it runs."""
    s, application, state = draft.s, draft.s.group.application, draft.s.host.application
    if application is None:
        return stands
    if not stands:
        if state not in DOWN and not isinstance(state, Unknown):
            return False  # it runs while something below it is being mended: stopping it would only make it worse
        draft.wait(Code.APPLICATION_WAITS, "application", "the application waits for its file systems and addresses")
        return False
    if isinstance(state, Unknown) or state is None:
        why = Unknown("its check gave no answer") if state is None else state
        draft.unknown(Code.HOST_UNKNOWN, "application", "the application's state is unknown", why, Scope.APPLICATION)
        return False
    if state is ApplicationState.RUNNING:
        return True
    if state not in DOWN:
        draft.wait(Code.APPLICATION_STARTING, "application", f"the application is {state}", Scope.APPLICATION)
        return False
    past = s.past(StartApplication, "application")
    if past is not None and past.runs > application.retries:
        draft.block(
            Code.APPLICATION_FAILED,
            "application",
            f"the application does not stay up after {past.runs} starts" + (f": {past.text}" if past.text else ""),
            _journal_hint(application),
            Scope.APPLICATION,
        )
        return False
    draft.step(StartApplication())
    return False


def release(draft: Draft) -> bool:
    """Plan what stops the application. True when it is down."""
    s, state = draft.s, draft.s.host.application
    if s.group.application is None or state in DOWN:
        return True
    if state is ApplicationState.STOPPING:
        draft.wait(Code.APPLICATION_STOPPING, "application", "the application is stopping", Scope.APPLICATION)
        return False
    stopped = s.past(StopApplication, "application")
    if stopped is not None and not stopped.ok:
        # It would not stop in its time. What it still holds is dealt with as open files, by the policy for these.
        draft.wait(
            Code.APPLICATION_STOPPING,
            "application",
            f"the application did not stop: {stopped.text}",
            Scope.APPLICATION,
            hint=_journal_hint(s.group.application),
        )
        return True
    draft.step(StopApplication())
    return False
