"""`awsha switchover`: the agent lets go and comes back by itself; this begins it, and watches the peer through EC2."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

from awsha.agent import ask
from awsha.agent.assembly import Node
from awsha.agent.marks import Marks
from awsha.agent.operate import masters, need_agent
from awsha.agent.watch import Watch
from awsha.core import handover, successors
from awsha.core.errors import EX_TEMPFAIL, AwshaError
from awsha.core.handover import Seen, Stage
from awsha.core.model import CloudFacts, Self, Unknown
from awsha.core.plan import PAUSED
from awsha.core.policy import Group
from awsha.host.clock import boottime

BACK_S = 10.0  # this node is master again: so long its peer has to say why


def switchover(node: Node, group: Group, to: str | None, timeout_s: float, watch: Watch, *, dry_run: bool) -> int:
    """Hand a group to a peer: released here first, then VRRP gives way; this node is a backup after it.

    Returns 0 when the peer says that it serves (a group without volumes: when it has the addresses), 75 when that was
    not seen in time or the peer gave it back. Raises AwshaError with every reason why it is refused.
    """
    me, name = node.places[group.name].me, group.name
    cloud = _look(node, group, me)
    _refuse(group, me, cloud, to)
    if dry_run:
        watch.say(f"would stop the application, unmount and detach {name} on {me.name}, then let VRRP give way")
        return 0
    deadline = boottime() + timeout_s
    watch.goes_on = f"the switchover of {name} goes on; {me.name} comes back as a backup. See: awsha status {name}"
    _begin(name, deadline)
    if not watch.until(partial(_let_go, name), deadline, partial(watch.agent, name)):
        why = f" ({watch.last})" if watch.last else ""
        if ask.report() is None:
            late = f"{name} was not let go within {timeout_s:g} s"
            watch.say(f"{late}: no agent answers, and {me.name} competes again when it runs")
            watch.say("next: systemctl status awsha-agent; systemctl start awsha-agent")
            return EX_TEMPFAIL
        watch.say(f"{name} was not let go within {timeout_s:g} s{why}; {me.name} competes again")
        watch.say(f"next: awsha status {name}")
        return EX_TEMPFAIL
    watch.say(f"{name} is let go here; VRRP gives way")
    seen = _watch_peer(node, group, handover.words(cloud), deadline, watch)
    code, lines = _outcome(group, me, seen, timeout_s)
    for line in lines:
        watch.say(line)
    if code == 0 and to not in (None, seen.peer):
        watch.say(f"{to} was to have it. Next: awsha status {name} on {to}")
        return EX_TEMPFAIL
    return code


def _begin(name: str, deadline: float) -> None:
    """Ask the agent to let go, and to compete again when a peer is master, or at `deadline` (boottime seconds)."""
    marks = Marks(name)
    before = handover.under_way(marks.all())
    marks.put(handover.mark(deadline))
    for old in before - {handover.mark(deadline)}:
        marks.remove(old)
    ask.ask(f"wake {name}")


def _let_go(name: str) -> bool:
    """Whether the agent has let a group go here. What follows from it, VRRP giving way, needs nobody."""
    told = (ask.report() or {}).get(name)
    return told is not None and bool(told["goal"] == "release" and told["converged"])


def _look(node: Node, group: Group, me: Self) -> CloudFacts:
    return node.ec2.look([v.id for v in group.volumes if v.id], [me.instance_id, *me.peers])


def _watch_peer(node: Node, group: Group, before: handover.Words, deadline: float, watch: Watch) -> Seen:
    """Look until a peer serves, or gives back, or this node is master again. Returns the last look."""
    me = node.places[group.name].me
    last = Seen(Stage.FREE, "nobody has it yet")

    again: list[float] = []  # when this node was first seen to be master again

    def over() -> bool:
        nonlocal last
        last = handover.seen(group, me, _look(node, group, me), before, last.peer)
        if (ask.report() or {}).get(group.name, {}).get("goal") == "master":
            again.append(boottime())
        ended = last.stage in (Stage.SERVES, Stage.BACK) or (last.stage is Stage.HOLDS and not group.volumes)
        return ended or (bool(again) and boottime() - again[0] > BACK_S)

    watch.until(over, deadline, lambda: watch.now(last.text))
    if again and last.stage is not Stage.SERVES:
        return replace(last, stage=Stage.BACK)
    return last


def _outcome(group: Group, me: Self, seen: Seen, timeout_s: float) -> tuple[int, list[str]]:
    """The exit code, and what there is to say."""
    name, peer = group.name, seen.peer
    if seen.stage is Stage.SERVES:
        return 0, [f"{peer} has {name} now, and says that it serves"]
    if seen.stage is Stage.HOLDS and not group.volumes:
        more = f"; whether its application runs, only {peer} knows: there: awsha status {name}"
        return 0, [f"{peer} has the addresses of {name} now{more if group.application else ''}"]
    again = f"{me.name} competes again"
    if seen.stage is Stage.BACK:
        there = peer or " and ".join(me.peers.values())
        return EX_TEMPFAIL, [
            f"{name} is not switched over: {seen.text}; {again}",
            f"next: on {there}: awsha status {name}; awsha history",
        ]
    if peer:
        text = f"{seen.text}; it has not said within {timeout_s:g} s that it serves {name}"
        return EX_TEMPFAIL, [text, f"next: on {peer}: awsha status {name}"]
    if seen.stage is Stage.UNKNOWN:
        return EX_TEMPFAIL, [f"it can't be told who has {name}: {seen.text}", f"next: awsha status {name}"]
    late = f"nobody took {name} over within {timeout_s:g} s"
    if heard := " and ".join(masters(group)):
        text = f"{late}: {heard} is heard as master, and has taken nothing (paused? a before-acquire hook?)"
        return EX_TEMPFAIL, [
            f"{text}; nobody serves {name} until it does, or gives way",
            f"next: on {heard}: awsha status {name}",
        ]
    why = "no peer is heard as master (keepalived stopped there? released, fenced or unhealthy there?)"
    return EX_TEMPFAIL, [
        f"{late}: {why}; {again}",
        f"next: on {' and '.join(me.peers.values())}: awsha status {name}",
    ]


def _refuse(group: Group, me: Self, cloud: CloudFacts, to: str | None) -> None:
    """Raise with all reasons why a switchover can't be begun."""
    need_agent(group.name)
    reasons = []
    told = (ask.report() or {}).get(group.name, {})
    marks = Marks(group.name).all()
    if handover.until(marks) is not None:
        reasons.append("a switchover of it is under way already")
    elif PAUSED in marks:
        reasons.append(f"it is paused on {me.name}: nothing is let go")
    elif not told.get("serving"):
        reasons.append(f"{me.name} does not serve {group.name}: run it on the node that does")
    if to is not None and to not in me.peers.values():
        reasons.append(f"{to} is no peer of {me.name} ({', '.join(me.peers.values())})")
    elif isinstance(cloud.instances, Unknown):
        reasons.append(f"EC2 does not say how the peers are: {cloud.instances.reason}")
    else:
        reasons += successors.refusals(successors.peers(group, me, cloud.instances, time.time()), to)
    if reasons:
        hint = f"awsha resume {group.name}" if PAUSED in marks else f"awsha status {group.name} --all"
        raise AwshaError(
            f"{group.name} is not switched over: {'; '.join(reasons)}",
            hint=f"{hint} (what a peer says arrives here within two minutes)" if PAUSED not in marks else hint,
        )
