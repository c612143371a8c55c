"""`awsha converge`: one group, in the foreground, until it is converged or out of time."""

from __future__ import annotations

from pathlib import Path

from awsha import notify
from awsha.agent import intent as intents
from awsha.agent import kept
from awsha.agent.assembly import Node, assemble, group_named
from awsha.agent.converge import Converger
from awsha.agent.history import Recorder, Writer, request, this_run
from awsha.agent.journal import Journal
from awsha.agent.keepalived import KeepalivedWatch
from awsha.agent.lock import GroupLock
from awsha.agent.marks import Marks
from awsha.agent.notices import Notifier
from awsha.agent.paths import health_file, private_dir, write_health
from awsha.core.chronicle import Chronicle
from awsha.core.errors import EX_TEMPFAIL, AwshaError
from awsha.core.model import Role
from awsha.core.plan import GONE, out
from awsha.core.policy import Group
from awsha.host.clock import boottime

END_S = 2.0
NOTICE_S = 5.0  # this process may be one that keepalived's stop waits for
LISTEN_S = 4.0  # whatever the advert interval: at a boot the master may need so long to become one


def converge(config: Path, name: str, role: Role | None, timeout_s: float | None) -> int:
    """Converge a group: to `role`, which is then recorded as a notify would, or to the newest recorded intent.

    Returns 0 when converged, 75 when out of time (safe to run again). Raises AwshaError when an agent has the group.
    """
    journal = Journal()
    if role is None and _lets_go(name):
        config = kept.to_let_go(config)
    node = assemble(config, listen=True, observer=request)
    group = group_named(node.policy, name)
    lock = GroupLock(name)
    if not lock.acquire():
        if role is None:
            journal.say(name, "another awsha process converges this group; it follows the newest role")
            return 0
        raise AwshaError(
            f"another awsha process (the agent?) converges {name}",
            hint="see awsha status; to move the group: awsha switchover",
        )
    if role is not None:
        notify.record(role.value, name)
    elif intents.newest(name) is None:
        raise AwshaError(
            f"keepalived has said nothing about {name} since this node booted",
            hint=f"name a role: awsha converge {name} --role backup",
        )
    history = Writer(lambda text: journal.say("history", text))
    notifier = Notifier(node.policy.notify, journal.warn)
    try:
        while True:
            # it was started because of the newest role, by a notify or by an operator
            chronicle = Chronicle(name, node.name, this_run(), boottime(), told=True)
            recorder = Recorder(chronicle, history, journal, name, notifier.transition)
            gone = KeepalivedWatch().gone_since
            converger = Converger(node.loop(group), node.executor(group), journal, gone, recorder)
            code = _run(node, group, converger, timeout_s)
            lock.release()
            # A notify that found the lock taken has left; what it recorded is taken up here.
            if intents.newest(name) == converger.loop.intent or not lock.acquire():
                return code
    finally:
        lock.release()
        history.close(END_S)
        notifier.close(NOTICE_S)


def _lets_go(name: str) -> bool:
    """Whether what is recorded asks for a release; nothing is taken by a configuration that is not the newest."""
    newest = intents.newest(name)
    return bool(out(Marks(name).all())) or (newest is not None and newest.role is not Role.MASTER)


def _run(node: Node, group: Group, converger: Converger, timeout_s: float | None) -> int:
    limit = group.timeouts
    budget = timeout_s or max(limit.acquire_s, limit.stop_s + limit.unmount_s + limit.handover_s)
    deadline = boottime() + budget
    private_dir(health_file(group.name).parent)
    code = EX_TEMPFAIL
    for turn in converger.turns():
        if not (turn.verdict.ok and GONE in Marks(group.name).all()):  # only an agent lifts what its end has set
            write_health(group.name, ok=turn.verdict.ok)
        damped = turn.verdict.until is not None  # without an agent nobody else would take the failed verdict back
        if turn.plan.done and not converger.loop.running and not damped and _heard_enough(node, group, converger):
            code = 0
            break
        if boottime() > deadline and (timeout_s is not None or not damped):
            for reason in turn.plan.reasons:
                converger.journal.say(group.name, f"out of time: {reason.text}")
            break
    converger.close(END_S)
    return code


def _heard_enough(node: Node, group: Group, converger: Converger) -> bool:
    """A backup listens until it has heard a master once: without an agent nobody else does, and a holder that was
    never heard is never fenced."""
    if converger.last is None or converger.last.plan.goal != "release" or node.hearing.heard(group):
        return True
    intent = converger.loop.intent
    return intent is None or boottime() - intent.recorded_at > max(4 * group.advert_int, LISTEN_S)
