"""What the application needs next."""

from __future__ import annotations

from awsha.core.model import ApplicationState, Unknown
from awsha.core.policy import Application
from awsha.core.situation import Code, Draft, Situation
from awsha.core.steps import Scope, StartApplication, StopApplication
from awsha.core.volumes import mount_of

UP_S = 5.0  # a start program has ended well: its check may need so long to agree
RAN = (Code.APPLICATION_RAN, "application")
DOWN = frozenset({ApplicationState.STOPPED, ApplicationState.FAILED})


def _journal_hint(application: Application) -> str:
    return f"journalctl -u {application.unit}" if application.unit else f"run it by hand: {' '.join(application.start)}"


def acquire(draft: Draft, stands: bool) -> bool:
    """Plan what makes the application run. `stands`: its file systems and addresses are there. True when it runs."""
    s, application, state = draft.s, draft.s.group.application, draft.s.host.application
    if application is None:
        return stands
    left_over = _left_over(draft)
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
    if past is not None and past.ok and not application.unit and _may_come_up(s, past.at):
        text = "the application was started; its check does not say yet that it runs"
        draft.wait(Code.APPLICATION_STARTING, "application", text, Scope.APPLICATION, until=past.at + UP_S)
        return False
    if past is not None and past.runs > application.retries:
        draft.block(
            Code.APPLICATION_FAILED,
            "application",
            f"the application does not stay up after {past.runs} starts" + (f": {past.text}" if past.text else ""),
            _journal_hint(application),
            Scope.APPLICATION,
        )
        return False
    draft.step(StopApplication() if left_over else StartApplication())
    return False


def _may_come_up(s: Situation, started_at: float) -> bool:
    """Whether a program that was started a moment ago, and has not been seen to run since, may be about to."""
    ran = s.memory.since.get(RAN)
    return s.now - started_at < UP_S and (ran is None or ran < started_at)


def _left_over(draft: Draft) -> bool:
    """Whether something of an earlier run may be here still, which the `stop` program has not been run for yet.

    systemd ends a unit as a whole before it starts it again. What a check program finds down may hang, or keep the
    port: `stop` is run once, whatever comes of it, before the next start. A first start in a role needs none.
    """
    s, application = draft.s, draft.s.group.application
    if application is None or application.unit:
        return False
    ran, started = s.memory.since.get(RAN), s.past(StartApplication, "application")
    stopped = s.past(StopApplication, "application")
    last = max([at for at in (ran, started.at if started else None) if at is not None], default=None)
    left = last is not None and (stopped is None or stopped.at < last)
    if s.host.application is ApplicationState.RUNNING or (ran is not None and left):
        draft.standing(*RAN)
    return left


def _is_gone(draft: Draft) -> bool:
    """Whether "down" means that nothing of it is left here.

    systemd knows. A check that fails may only mean that the application serves no more, above all when its disk was
    taken: then it lives on with its files and its port. So it is stopped once, while anything of its is mounted.
    """
    s = draft.s
    if s.group.application is None or s.group.application.unit:
        return True
    if not any(disk.others or mount_of(disk) for disk in (s.disk(v.id or "") for v in s.group.volumes)):
        return True
    stopped, started = s.past(StopApplication, "application"), s.past(StartApplication, "application")
    return stopped is not None and stopped.ok and (started is None or started.at <= stopped.at)


def release(draft: Draft) -> bool:
    """Plan what stops the application. True when it is down."""
    s, state = draft.s, draft.s.host.application
    if s.group.application is None:
        return True
    if state in DOWN and "application" in s.memory.running:
        # A start is under way and shows nothing yet: without its file system it would come up on the bare mount point.
        text = "the application is being started: it is stopped once that has ended"
        draft.wait(Code.APPLICATION_STARTING, "application", text, Scope.APPLICATION)
        return False
    if state in DOWN and _is_gone(draft):
        return True
    if state is ApplicationState.STOPPING:
        draft.wait(Code.APPLICATION_STOPPING, "application", "the application is stopping", Scope.APPLICATION)
        return False
    draft.step(StopApplication())
    stopped = s.past(StopApplication, "application")
    if stopped is not None and not stopped.ok:
        # It would not stop in its time: it is asked again. What it still holds is dealt with as open files meanwhile.
        draft.wait(
            Code.APPLICATION_STOPPING,
            "application",
            f"the application did not stop: {stopped.text}",
            Scope.APPLICATION,
            hint=_journal_hint(s.group.application),
        )
        return True
    return False
