"""What an operator asks for: release, switchover, pause, resume, fence. The agent works; this tells and watches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from awsha.agent import ask
from awsha.agent.assembly import Node
from awsha.agent.faults import FaultRecord
from awsha.agent.marks import Marks
from awsha.agent.once import converge
from awsha.core.errors import EX_TEMPFAIL, AwshaError
from awsha.core.model import ApplicationState, AttachmentState, CloudFacts, InstanceState, Unknown
from awsha.core.plan import PAUSED, RELEASED, STOPPING
from awsha.core.policy import Fence, Group
from awsha.core.volumes import forced_mark
from awsha.host.clock import boottime

LOOK_S = 0.25
Say = Callable[[str], None]


@dataclass(frozen=True)
class Holders:
    """Who holds a group by EC2: node names, or instance ids of strangers; `unknown` says why it can't be told."""

    volumes: frozenset[str]
    addresses: frozenset[str]
    unknown: str = ""

    def all_at(self, name: str, group: Group) -> bool:
        """Whether one node has everything."""
        there = frozenset({name})
        return not self.unknown and self.addresses == there and (not group.volumes or self.volumes == there)


def holders(node: Node, group: Group) -> Holders:
    """Ask EC2."""
    me = node.places[group.name].me
    names = {me.instance_id: me.name, **me.peers}
    facts: CloudFacts = node.ec2.look([v.id for v in group.volumes if v.id], list(names))
    if isinstance(facts.volumes, Unknown) or isinstance(facts.instances, Unknown):
        why = facts.volumes if isinstance(facts.volumes, Unknown) else facts.instances
        return Holders(frozenset(), frozenset(), why.reason if isinstance(why, Unknown) else "")
    held = [a for v in facts.volumes.values() for a in v.attachments]
    if any(a.state is not AttachmentState.ATTACHED for a in held):
        return Holders(frozenset(), frozenset(), "a volume is on its way")
    attached = {names.get(a.instance_id, a.instance_id) for a in held}
    addressed = {names[i.id] for i in facts.instances.values() if i.addresses & set(group.vips)}
    return Holders(frozenset(attached), frozenset(addressed))


def need_agent(name: str) -> None:
    """Planned operations are carried out by the agent. Raises AwshaError when none answers."""
    if ask.ask(f"wake {name}") != "ok":
        raise AwshaError("no agent answers on this node", hint="start it: systemctl start awsha-agent")


def release(names: Sequence[str], timeout_s: float, say: Say) -> int:
    """Let everything of some groups go here, then VRRP; this node stays out until `awsha resume`.

    Returns 0, or 75 when one was not done in time. Raises AwshaError when no agent answers, or a group is paused.
    """
    for name in names:
        if PAUSED in Marks(name).all():
            raise AwshaError(f"{name} is paused: nothing is let go", hint=f"awsha resume {name}")
        need_agent(name)
    late = _let_go(names, RELEASED, timeout_s, say)
    return _released(names, late, timeout_s, say, "; this node stays out until: awsha resume {name}")


def stopping(config: Path, names: Sequence[str], timeout_s: float, say: Say) -> int:
    """As `release`, for the time that keepalived is stopped: by the agent, or here if none answers.

    Returns 0, or 75 when one was not done in time. Raises AwshaError when it can't be done without the agent.
    """
    wanted = [name for name in names if PAUSED not in Marks(name).all()]
    for name in set(names) - set(wanted):
        say(f"{name} is paused: nothing is let go")
    if all(ask.ask(f"wake {name}") == "ok" for name in wanted):
        return _released(wanted, _let_go(wanted, STOPPING, timeout_s, say), timeout_s, say, "")
    say("no agent answers: letting go without it")
    deadline, code = boottime() + timeout_s, 0
    for name in wanted:
        Marks(name).put(STOPPING)
        code = max(code, converge(config, name, None, max(1.0, deadline - boottime())))
    return code


def kernel_free(told: dict[str, Any]) -> bool:
    """Whether a group has no address, device, mount or application here, whatever EC2 says of it.

    `told`: a group of the agent's report.
    """
    free = all(v["kernel"] is False for v in told["vips"])
    free = free and all(v["device"] is None and v["mounted"] is False for v in told["volumes"])
    return free and told["application"] in (None, ApplicationState.STOPPED.value)


def nothing_here(told: dict[str, Any]) -> bool:
    """Whether the kernel alone says that a group has nothing on this node: then no EC2 needs to be waited for."""
    return kernel_free(told) and told["goal"] == "release" and not told["running"]


def _released(names: Sequence[str], late: Sequence[str], timeout_s: float, say: Say, more: str) -> int:
    """Say which groups were let go, and which in time. Returns 0, or 75 when one was not."""
    for name in names:
        if name in late:
            say(f"{name}: not done after {timeout_s:g} s; it goes on. See: awsha status {name}")
        else:
            say(f"{name} is released here" + more.format(name=name))
    return EX_TEMPFAIL if late else 0


def _let_go(names: Sequence[str], mark: str, timeout_s: float, say: Say) -> list[str]:
    """Have the agent let go, all at once. Returns the groups that were not let go in time; the marks stay."""
    for name in names:
        Marks(name).put(mark)
        ask.ask(f"wake {name}")
    deadline = boottime() + timeout_s
    return [
        name
        for name in names
        if not _until(partial(_gone, name, mark), deadline - boottime(), partial(_progress, name, say))
    ]


def _gone(name: str, mark: str) -> bool:
    """Whether the agent has let a group go, and told keepalived."""
    told = (ask.report() or {}).get(name)
    if told is None:
        return False
    if mark == STOPPING and nothing_here(told):
        return True
    return bool(told["goal"] == "release" and told["converged"] and not told["health"]["ok"])


def switchover(node: Node, group: Group, to: str | None, timeout_s: float, say: Say, *, dry_run: bool) -> int:
    """Hand a group to a peer: released here first, then VRRP gives way; this node is a backup after it.

    Returns 0 when the peer has everything, 75 when it did not take over in time (then this node competes again).
    Raises AwshaError with every reason why it is refused.
    """
    me = node.places[group.name].me
    _refuse_switchover(node, group, to)
    if dry_run:
        say(f"would stop the application, unmount and detach {group.name} on {me.name}, then let VRRP give way")
        return 0
    marks = Marks(group.name)
    deadline = boottime() + timeout_s
    try:
        if _let_go([group.name], RELEASED, timeout_s, say):
            say(f"{group.name} was not let go within {timeout_s:g} s; {me.name} competes again")
        else:
            last: list[Holders] = []

            def taken() -> bool:
                last[:] = [holders(node, group)]
                return any(last[0].all_at(peer, group) for peer in me.peers.values())

            if _until(taken, deadline - boottime(), lambda: None):
                say(f"{next(iter(last[0].addresses))} has {group.name} now")
                return 0
            say(f"nobody took {group.name} over within {timeout_s:g} s; {me.name} competes again")
        return EX_TEMPFAIL
    finally:
        marks.remove(RELEASED)
        ask.ask(f"wake {group.name}")


def _refuse_switchover(node: Node, group: Group, to: str | None) -> None:
    """Raise with all reasons why a switchover can't be begun."""
    need_agent(group.name)
    me, reasons = node.places[group.name].me, []
    told = (ask.report() or {}).get(group.name, {})
    if not told.get("serving"):
        reasons.append(f"{me.name} does not serve {group.name}: run it on the node that does")
    if to is not None and to not in me.peers.values():
        reasons.append(f"{to} is no peer of {me.name} ({', '.join(me.peers.values())})")
    facts = node.ec2.look([], list(me.peers))
    states = {} if isinstance(facts.instances, Unknown) else {me.peers[i.id]: i.state for i in facts.instances.values()}
    if isinstance(facts.instances, Unknown):
        reasons.append(f"EC2 does not say how the peers are: {facts.instances.reason}")
    for name in (to,) if to else tuple(me.peers.values()):
        if states.get(name) is InstanceState.RUNNING:
            break
    else:
        if states:
            reasons.append("no peer is running: " + ", ".join(f"{n} is {s}" for n, s in states.items()))
    if to is not None and len(me.peers) > 1:
        others = [n for n in me.peers.values() if n != to]
        reasons.append(f"VRRP chooses among {len(me.peers)} peers: on {', '.join(others)} run awsha release first")
    if reasons:
        raise AwshaError(f"{group.name} is not switched over: " + "; ".join(reasons), hint=f"awsha status {group.name}")


def pause(name: str) -> None:
    """From now on the agent observes this group and acts on nothing."""
    Marks(name).put(PAUSED)
    ask.ask(f"wake {name}")


def resume(name: str) -> bool:
    """End a pause, a release, and the wait after failures as master. False when there was nothing of these."""
    record = FaultRecord(name)
    failed = record.get() is not None
    record.put(None)
    return _end(name, {PAUSED, RELEASED, STOPPING}) or failed


def starting(name: str) -> bool:
    """keepalived starts: end what `stopping` began, and nothing that an operator asked for. False without it."""
    return _end(name, {STOPPING})


def _end(name: str, marks: Set[str]) -> bool:
    found = Marks(name).all() & marks
    for mark in found:
        Marks(name).remove(mark)
    ask.ask(f"wake {name}")
    return bool(found)


@dataclass(frozen=True)
class FencePlan:
    """What `awsha fence` would do: stop the instance, or detach these volumes from it by force."""

    name: str
    instance_id: str
    method: Fence
    volumes: tuple[str, ...]

    def __str__(self) -> str:
        if self.method is Fence.STOP_INSTANCE:
            return f"stop instance {self.instance_id} ({self.name}), without waiting for its operating system"
        return f"detach {', '.join(self.volumes) or 'nothing'} from {self.instance_id} ({self.name}) by force"


def plan_fence(node: Node, name: str, method: Fence | None) -> FencePlan:
    """What fencing a node means. Raises AwshaError for this node itself, or for one that does not exist."""
    place = next(iter(node.places.values())).me
    ids = {peer: instance for instance, peer in place.peers.items()}
    if name not in ids:
        what = "this node itself" if name == place.name else "no node of this configuration"
        raise AwshaError(f"{name} is {what}", hint=f"the peers are: {', '.join(ids)}")
    if method is None:
        policies = {g.fence for g in node.policy.groups}
        method = Fence.FORCE_DETACH if policies == {Fence.FORCE_DETACH} else Fence.STOP_INSTANCE
    wanted = [v.id for g in node.policy.groups for v in g.volumes if v.id]
    held = node.ec2.describe_volumes(wanted) if wanted else {}
    volumes = tuple(v.id for v in held.values() if any(a.instance_id == ids[name] for a in v.attachments))
    return FencePlan(name, ids[name], method, volumes)


def fence(node: Node, wanted: FencePlan, timeout_s: float, say: Say) -> int:
    """Do it, and wait until EC2 says that it is done. Returns 0, or 75 out of time (safe to run again)."""
    for group in node.policy.groups:
        for volume_id in set(wanted.volumes) & {v.id for v in group.volumes}:
            Marks(group.name).put(forced_mark(volume_id or ""))
    if wanted.method is Fence.STOP_INSTANCE:
        say(f"{wanted.name}: EC2 says {node.ec2.stop_instance(wanted.instance_id, persist=True)}")
    else:
        for volume_id in wanted.volumes:
            node.ec2.detach(volume_id, wanted.instance_id, force=True, persist=True)
            say(f"{volume_id}: detaching by force")

    def done() -> bool:
        if wanted.method is Fence.STOP_INSTANCE:
            instance = node.ec2.describe_instances([wanted.instance_id]).get(wanted.instance_id)
            return instance is None or instance.state in (InstanceState.STOPPED, InstanceState.TERMINATED)
        volumes = node.ec2.describe_volumes(wanted.volumes).values() if wanted.volumes else ()
        return not any(a.instance_id == wanted.instance_id for v in volumes for a in v.attachments)

    if _until(done, timeout_s, lambda: None):
        say(f"{wanted.name} is fenced")
        return 0
    say(f"EC2 has not finished after {timeout_s:g} s; run the same command again to go on waiting")
    return EX_TEMPFAIL


def _until(look: Callable[[], bool], timeout_s: float, meanwhile: Callable[[], None]) -> bool:
    """Look until it is so; False after `timeout_s`."""
    deadline, pause_between = boottime() + timeout_s, threading.Event()
    while not look():
        if boottime() > deadline:
            return False
        meanwhile()
        pause_between.wait(LOOK_S)
    return True


_said: dict[str, str] = {}


def _progress(name: str, say: Say) -> None:
    """What the agent does and waits for, when it changed."""
    told = (ask.report() or {}).get(name, {})
    words = [*told.get("running", []), *(r["text"] for r in (*told.get("waiting", []), *told.get("blocked", [])))]
    text = "; ".join(w for w in words if not w.startswith(("released by", "waits for the step")))
    if text and _said.get(name) != text:
        _said[name] = text
        say(text)
