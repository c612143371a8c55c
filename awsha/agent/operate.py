"""What an operator asks for: release, pause, resume, fence (and switchover.py). The agent works; this watches."""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from awsha.agent import ask
from awsha.agent.assembly import Node
from awsha.agent.faults import FaultRecord
from awsha.agent.marks import Marks
from awsha.agent.once import converge
from awsha.agent.watch import Watch
from awsha.aws.errors import Ec2Error
from awsha.core import handover
from awsha.core.errors import EX_TEMPFAIL, AwshaError
from awsha.core.model import ApplicationState, InstanceState
from awsha.core.plain import printable
from awsha.core.plan import PAUSED, RELEASED, STOPPING
from awsha.core.policy import Fence, Group
from awsha.core.volumes import forced_mark
from awsha.host.clock import boottime


def need_agent(name: str) -> None:
    """Planned operations are carried out by the agent. Raises AwshaError when none answers."""
    if ask.ask(f"wake {name}") != "ok":
        raise AwshaError("no agent answers on this node", hint="start it: systemctl start awsha-agent")


def release(names: Sequence[str], timeout_s: float, watch: Watch) -> int:
    """Let everything of some groups go here, then VRRP; this node stays out until `awsha resume`.

    Returns 0, or 75 when one was not done in time. Raises AwshaError when no agent answers, or a group is paused.
    """
    for name in names:
        if PAUSED in Marks(name).all():
            raise AwshaError(f"{name} is paused: nothing is let go", hint=f"awsha resume {name}")
        need_agent(name)
    watch.goes_on = f"the release of {', '.join(names)} goes on; this node stays out until: awsha resume"
    late = _let_go(names, RELEASED, timeout_s, watch)
    return _released(names, late, timeout_s, watch, "; this node stays out until: awsha resume {name}")


def stopping(config: Path, names: Sequence[str], timeout_s: float, watch: Watch) -> int:
    """As `release`, for the time that keepalived is stopped: by the agent, or here if none answers.

    Returns 0, or 75 when one was not done in time. Raises AwshaError when it can't be done without the agent.
    """
    wanted = [name for name in names if PAUSED not in Marks(name).all()]
    for name in set(names) - set(wanted):
        watch.say(f"{name} is paused: nothing is let go")
    if all(ask.ask(f"wake {name}") == "ok" for name in wanted):
        return _released(wanted, _let_go(wanted, STOPPING, timeout_s, watch), timeout_s, watch, "")
    watch.say("no agent answers: letting go without it")
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


def _released(names: Sequence[str], late: Sequence[str], timeout_s: float, watch: Watch, more: str) -> int:
    """Say which groups were let go, and which in time. Returns 0, or 75 when one was not."""
    for name in names:
        if name in late:
            why = f" ({watch.last})" if watch.last else ""
            watch.say(f"{name}: not done after {timeout_s:g} s{why}; it goes on. See: awsha status {name}")
        else:
            watch.say(f"{name} is released here" + more.format(name=name))
    return EX_TEMPFAIL if late else 0


def _let_go(names: Sequence[str], mark: str, timeout_s: float, watch: Watch) -> list[str]:
    """Have the agent let go, all at once. Returns the groups that were not let go in time; the marks stay."""
    for name in names:
        Marks(name).put(mark, who() if mark == RELEASED else "")
        if mark == RELEASED:  # from here on it is no switchover, which would end by itself
            for old in handover.under_way(Marks(name).all()):
                Marks(name).remove(old)
        ask.ask(f"wake {name}")
    deadline = boottime() + timeout_s
    return [n for n in names if not watch.until(partial(_gone, n, mark), deadline, partial(watch.agent, n))]


def _gone(name: str, mark: str) -> bool:
    """Whether the agent has let a group go, and told keepalived."""
    told = (ask.report() or {}).get(name)
    if told is None:
        return False
    if mark == STOPPING and nothing_here(told):
        return True
    return bool(told["goal"] == "release" and told["converged"] and not told["health"]["ok"])


def who() -> str:
    """The person at the keyboard: who became root by sudo, or else the user that this is."""
    try:
        return printable(os.environ.get("SUDO_USER", "")) or pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def pause(name: str) -> None:
    """From now on the agent observes this group and acts on nothing."""
    Marks(name).put(PAUSED, who())
    ask.ask(f"wake {name}")


def resume(name: str) -> bool:
    """End a pause, a release, and the wait after failures as master. False when there was nothing of these."""
    record = FaultRecord(name)
    failed = record.get() is not None
    record.put(None)
    return _end(name, {PAUSED, RELEASED, STOPPING} | handover.under_way(Marks(name).all())) or failed


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
    master_of: tuple[str, ...] = ()  # groups: it is heard as their master now, so it lives

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
    return FencePlan(name, ids[name], method, volumes, tuple(g.name for g in node.policy.groups if name in masters(g)))


def masters(group: Group) -> list[str]:
    """The peers that are masters now, as the agent hears it; none when no agent answers."""
    peers = (ask.report() or {}).get(group.name, {}).get("peers", [])
    return [p["name"] for p in peers if p["heard_priority"] and p["heard_s_ago"] < 3 * group.advert_int + 1]


def fence(node: Node, wanted: FencePlan, timeout_s: float, watch: Watch) -> int:
    """Do it, and wait until EC2 says that it is done. Returns 0, or 75 out of time (safe to run again)."""
    if wanted.method is Fence.FORCE_DETACH and not wanted.volumes:
        watch.say(f"{wanted.name} has no volume: it is left as it is")
        return 0
    watch.goes_on = f"what EC2 was asked for goes on. To watch again: awsha fence {wanted.name} --yes"
    for group in node.policy.groups:
        for volume_id in set(wanted.volumes) & {v.id for v in group.volumes}:
            Marks(group.name).put(forced_mark(volume_id or ""))
    if wanted.method is Fence.STOP_INSTANCE:
        watch.say(f"{wanted.name}: EC2 says {node.ec2.stop_instance(wanted.instance_id, persist=True)}")
    else:
        for volume_id in wanted.volumes:
            node.ec2.detach(volume_id, wanted.instance_id, force=True, persist=True)
            watch.say(f"{volume_id}: detaching by force")

    if watch.until(partial(_fenced, node, wanted, watch), boottime() + timeout_s, lambda: None):
        watch.say(f"{wanted.name} is fenced")
        return 0
    why = f" ({watch.last})" if watch.last else ""
    watch.say(f"EC2 has not finished after {timeout_s:g} s{why}; run the same command again to go on waiting")
    return EX_TEMPFAIL


def _fenced(node: Node, wanted: FencePlan, watch: Watch) -> bool:
    """Whether EC2 says that it is done. One that does not answer is asked again."""
    try:
        if wanted.method is Fence.STOP_INSTANCE:
            instance = node.ec2.describe_instances([wanted.instance_id]).get(wanted.instance_id)
            state = instance.state if instance else InstanceState.TERMINATED
            watch.now(f"EC2: {wanted.instance_id} ({wanted.name}) is {state}")
            return state in (InstanceState.STOPPED, InstanceState.TERMINATED)
        volumes = node.ec2.describe_volumes(wanted.volumes).values() if wanted.volumes else ()
        left = [f"{v.id} {a.state}" for v in volumes for a in v.attachments if a.instance_id == wanted.instance_id]
    except Ec2Error as error:
        watch.now(error.message)
        return False
    watch.now(f"EC2: {', '.join(left)}" if left else "")
    return not left
