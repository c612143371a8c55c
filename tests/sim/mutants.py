"""Deliberately wrong nodes. Each says what is wrong with it, and must be caught; most are wrong in one place only.

A mutant is a Wiring: a planner that sees a falsified situation or spoils the plan, a guard that looks away, a loop, a
lock or a reader of intents that does not do its work.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from awsha.aws.ec2 import CALL_TIMEOUT_S
from awsha.core import guards
from awsha.core.guards import Fresh
from awsha.core.handover import LiftMark, lift
from awsha.core.loop import Loop
from awsha.core.model import (
    ApplicationState,
    AttachmentState,
    Device,
    DiskFacts,
    Heard,
    InstanceState,
    Intent,
    Role,
    Unknown,
    VolumeFacts,
    VolumeState,
)
from awsha.core.plan import PAUSED, plan
from awsha.core.policy import Fence, OpenFiles
from awsha.core.situation import Code, Plan, Situation
from awsha.core.steps import (
    AssignAddresses,
    Detach,
    MountVolume,
    SetMark,
    Signal,
    StartApplication,
    Step,
    StopInstance,
    Unmount,
)
from tests.sim import faults
from tests.sim.node import Node
from tests.sim.schedule import Result, run
from tests.sim.wiring import Wiring

Falsify = Callable[[Situation], Situation]
Spoil = Callable[[Situation, Plan], Plan]
Refusal = Callable[[Step, Fresh, Intent | None, str], str | None]


@dataclass(frozen=True)
class Mutant:
    """One defect, and the rules of which one must notice it."""

    name: str
    wrong: str
    wiring: Wiring
    caught_by: tuple[str, ...]
    favour: tuple[faults.Mishap, ...] = ()  # mishaps without which it does not show


# --- planners that are told something else ---


def _seeing(falsify: Falsify, **wiring: object) -> Wiring:
    def decide(s: Situation) -> Plan:
        return plan(falsify(s))

    return Wiring(loop=partial(Loop, decide=decide), **wiring)  # type: ignore[arg-type]


def _volumes(s: Situation, change: Callable[[VolumeFacts], VolumeFacts]) -> Situation:
    if isinstance(s.cloud.volumes, Unknown):
        return s
    changed = {vid: change(facts) for vid, facts in s.cloud.volumes.items()}
    return replace(s, cloud=replace(s.cloud, volumes=changed))


def _disks(s: Situation, change: Callable[[DiskFacts], DiskFacts]) -> Situation:
    return replace(s, host=replace(s.host, disks={vid: change(d) for vid, d in s.host.disks.items()}))


def _long_since(s: Situation, *codes: Code) -> Situation:
    ids = [v.id or "" for v in s.group.volumes]
    since = {**s.memory.since, **{(code, vid): s.now - 1e6 for code in codes for vid in ids}}
    return replace(s, memory=replace(s.memory, since=since))


def _heard(s: Situation, heard: dict[str, Heard]) -> Situation:
    return replace(s, host=replace(s.host, heard=heard))


def _unmounted(disk: DiskFacts) -> DiskFacts:
    return replace(disk, mount=None, others=(), stale=False)


def _unknown_is_unmounted(disk: DiskFacts) -> DiskFacts:
    return replace(disk, mount=None) if isinstance(disk.mount, Unknown) else disk


def _unknown_is_gone(s: Situation) -> Situation:
    """What EC2 does not say is taken for: that instance is stopped, those volumes are free."""
    cloud = s.cloud
    if isinstance(cloud.instances, Unknown):
        cloud = replace(cloud, instances={})
    if isinstance(cloud.volumes, Unknown):
        free = {v.id or "": VolumeFacts(v.id or "", VolumeState.AVAILABLE) for v in s.group.volumes}
        cloud = replace(cloud, volumes=free)
    return replace(s, cloud=cloud)


def _all_heard_before(s: Situation) -> Situation:
    return _heard(s, {**dict.fromkeys(s.me.peers.values(), Heard(0.0, 0)), **s.host.heard})


def _deaf(s: Situation) -> Situation:
    return _heard(s, {name: replace(heard, at=heard.at - 1000.0) for name, heard in s.host.heard.items()})


def _no_tags(s: Situation) -> Situation:
    return _long_since(_volumes(s, lambda v: replace(v, releasing=None)), Code.GRACE)


def _one_attachment(s: Situation) -> Situation:
    """Multi-Attach is not noticed, nor that somebody else holds the volume too."""

    def mine(facts: VolumeFacts) -> VolumeFacts:
        own = tuple(a for a in facts.attachments if a.instance_id == s.me.instance_id)
        state = facts.state
        if facts.multi_attach and not own:
            state = VolumeState.AVAILABLE
        return replace(
            facts, attachments=own if facts.multi_attach else facts.attachments, multi_attach=False, state=state
        )

    return _volumes(s, mine)


def _never_checked(s: Situation) -> Situation:
    marks = frozenset(m for m in s.host.marks if not m.startswith("forced:"))
    return _as_clean(replace(s, host=replace(s.host, marks=marks)))


def _as_clean(s: Situation) -> Situation:
    def clean(disk: DiskFacts) -> DiskFacts:
        return replace(disk, device=replace(disk.device, unclean=False)) if isinstance(disk.device, Device) else disk

    return _disks(s, clean)


def _any_disk(s: Situation) -> Situation:
    """The first device that there is, whatever its serial."""
    found = next((d.device for d in s.host.disks.values() if isinstance(d.device, Device)), None)
    return _disks(s, lambda d: replace(d, device=found, foreign=False) if found and d.mount is None else d)


def _keepalived_lives(s: Situation) -> Situation:
    return replace(s, host=replace(s.host, keepalived_gone_since=None))


def _always_fences(s: Situation) -> Situation:
    return s if s.group.fence is not Fence.NONE else replace(s, group=replace(s.group, fence=Fence.STOP_INSTANCE))


def _never_waits(s: Situation) -> Situation:
    if s.group.open_files is not OpenFiles.WAIT:
        return s
    return replace(s, group=replace(s.group, open_files=OpenFiles.TERMINATE))


def _stopping_is_stopped(s: Situation) -> Situation:
    if isinstance(s.cloud.instances, Unknown):
        return s
    soon = {
        iid: replace(facts, state=InstanceState.STOPPED) if facts.state is InstanceState.STOPPING else facts
        for iid, facts in s.cloud.instances.items()
    }
    return replace(s, cloud=replace(s.cloud, instances=soon))


def _attaching_is_attached(facts: VolumeFacts) -> VolumeFacts:
    early = AttachmentState.ATTACHING
    there = tuple(replace(a, state=AttachmentState.ATTACHED) if a.state is early else a for a in facts.attachments)
    return replace(facts, attachments=there)


def _not_paused(s: Situation) -> Situation:
    return replace(s, host=replace(s.host, marks=s.host.marks - {PAUSED}))


def _always_master(s: Situation) -> Situation:
    return s if s.intent is None else replace(s, intent=replace(s.intent, role=Role.MASTER))


# --- plans that are spoilt ---


def _spoiling(spoil: Spoil, **wiring: object) -> Wiring:
    def decide(s: Situation) -> Plan:
        return spoil(s, plan(s))

    return Wiring(loop=partial(Loop, decide=decide), **wiring)  # type: ignore[arg-type]


def _with(decided: Plan, *steps: Step, running: frozenset[str] = frozenset()) -> Plan:
    taken = {step.resource for step in decided.steps} | running
    return replace(decided, steps=(*decided.steps, *(s for s in steps if s.resource not in taken)), done=False)


def _vip_first(s: Situation, decided: Plan) -> Plan:
    if decided.goal != "master" or decided.ready:
        return decided
    return _with(decided, AssignAddresses(s.group.vips), running=s.memory.running)


def _detach_first(s: Situation, decided: Plan) -> Plan:
    """The volume is detached, and then one sees whether it was mounted."""
    steps = tuple(
        Detach(step.volume_id, s.me.instance_id) if isinstance(step, Unmount) else step for step in decided.steps
    )
    return replace(decided, steps=steps)


def _application_first(s: Situation, decided: Plan) -> Plan:
    if decided.goal != "master" or s.group.application is None or s.host.application is not ApplicationState.STOPPED:
        return decided
    return _with(decided, StartApplication(), running=s.memory.running)


def _fence_is_over(s: Situation, decided: Plan) -> Plan:
    clean = all(disk.mount is None and not disk.others for disk in s.host.disks.values())
    if "fenced" not in s.host.marks or not clean:
        return decided
    return _with(decided, SetMark("fenced", present=False), running=s.memory.running)


def _one_mark(s: Situation, decided: Plan) -> Plan:
    """The end of a switchover takes a release with it."""
    ends = any(isinstance(step, LiftMark) for step in decided.steps)
    return _with(decided, lift("released"), running=s.memory.running) if ends else decided


def _always_lazy(_s: Situation, decided: Plan) -> Plan:
    steps = tuple(replace(step, lazy=True) if isinstance(step, Unmount) else step for step in decided.steps)
    return replace(decided, steps=steps)


def _kills_at_once(_s: Situation, decided: Plan) -> Plan:
    steps = tuple(replace(step, kill=True) if isinstance(step, Signal) else step for step in decided.steps)
    return replace(decided, steps=steps)


def _force_at_once(s: Situation, decided: Plan) -> Plan:
    steps = tuple(
        replace(step, force=True) if isinstance(step, Detach) and step.instance_id != s.me.instance_id else step
        for step in decided.steps
    )
    return replace(decided, steps=steps)


# --- guards that look away ---


def _but(kind: type[Step] | tuple[type[Step], ...]) -> Refusal:
    """The guard, without its look at one kind of step."""

    def refusal(step: Step, fresh: Fresh, planned: Intent | None, me: str) -> str | None:
        return None if isinstance(step, kind) else guards.refusal(step, fresh, planned, me)

    return refusal


def _old_intent(step: Step, fresh: Fresh, planned: Intent | None, me: str) -> str | None:
    """The guard believes the intent that the step was planned for."""
    return guards.refusal(step, replace(fresh, intent=planned), planned, me)


def _no_marks(step: Step, fresh: Fresh, planned: Intent | None, me: str) -> str | None:
    """The guard does not look whether this node was paused, released or fenced meanwhile."""
    return guards.refusal(step, replace(fresh, marks=frozenset()), planned, me)


def _not_heard(step: Step, fresh: Fresh, planned: Intent | None, me: str) -> str | None:
    """The guard does not listen whether the holder is master again."""
    return guards.refusal(step, replace(fresh, holder_heard=False), planned, me)


def _unknown_means_unmounted(step: Step, fresh: Fresh, planned: Intent | None, me: str) -> str | None:
    disk = fresh.disk
    if disk is not None and isinstance(disk.mount, Unknown):
        disk = replace(disk, mount=None)
    return guards.refusal(step, replace(fresh, disk=disk), planned, me)


def _start_anywhere(step: Step, fresh: Fresh, planned: Intent | None, me: str) -> str | None:
    return guards.refusal(step, replace(fresh, disks=None), planned, me)


# --- loops ---


class AnyFacts(Loop):
    """Old facts permit everything."""

    def _fresh_for(self, step: Step, now: float) -> bool:
        del step, now
        return True


class ManyHands(Loop):
    """It forgets what is under way."""

    def turn(self, *args: object) -> object:  # type: ignore[override]
        self._running.clear()
        self.memory = replace(self.memory, running=frozenset())
        return super().turn(*args)  # type: ignore[arg-type]


class Impatient(Loop):
    """It does not wait longer when it has failed again."""

    def situation(self, *args: object) -> Situation:
        s = super().situation(*args)  # type: ignore[arg-type]
        faults = s.host.faults
        return s if faults is None else replace(s, host=replace(s.host, faults=replace(faults, times=1)))


class Forgetful(Loop):
    """It forgets with each role that it has failed."""

    def situation(self, *args: object) -> Situation:
        s = super().situation(*args)  # type: ignore[arg-type]
        return s if s.intent and s.intent.role is Role.MASTER else replace(s, host=replace(s.host, faults=None))


# --- readers of intents ---


def _last_written(node: Node) -> Intent | None:
    """The order of writing, not of the forks."""
    return node.intents[-1] if node.intents else None


def _first_role(node: Node) -> Intent | None:
    """The lock of chef-server #415: while one notify is worked on, the next is dropped."""
    return node.intents[-2] if len(node.intents) > 1 else node.best


ALL = (
    Mutant("detach-mounted", "detaches first and unmounts later",
           _spoiling(_detach_first, refusal=_but(Detach)), ("detach-mounted",)),
    Mutant("own-detach-guard", "does not look again before it detaches from itself", Wiring(refusal=_but(Detach)),
           ("detach-mounted",), (faults.bind,)),
    Mutant("any-disk", "mounts the first disk that comes, whatever its serial",
           _seeing(_any_disk, refusal=_but(MountVolume), serial_check=False), ("wrong-disk",)),
    Mutant("vip-first", "takes the VIPs before it has the volume", _spoiling(_vip_first), ("vip-without-volume",)),
    Mutant("old-intent", "does not read the intent again before it acts", Wiring(refusal=_old_intent), ("not-master",),
           (faults.stop_keepalived,)),
    Mutant("unknown-is-free", "takes what EC2 does not say for free and stopped", _seeing(_unknown_is_gone),
           ("guess",)),
    Mutant("unknown-mounts", "takes an unreadable mount table for an empty one",
           _seeing(lambda s: _disks(s, _unknown_is_unmounted), refusal=_unknown_means_unmounted),
           ("guess", "detach-mounted"), (faults.unreadable,)),
    Mutant("no-grace", "fences without the grace", _seeing(lambda s: _long_since(s, Code.GRACE)), ("no-grace",)),
    Mutant("unfenced", "forgets that it was fenced as soon as it has cleaned up", _spoiling(_fence_is_over),
           ("fenced-takes",), (faults.split,)),
    Mutant("no-lock", "two processes converge one group", Wiring(lock=False), ("two-steps",)),
    Mutant("never-heard", "fences a node that it has never heard", _seeing(_all_heard_before), ("never-heard",)),
    Mutant("deaf", "fences a master that it hears", _seeing(_deaf, refusal=_but((StopInstance, Detach))),
           ("fenced-master",)),
    Mutant("old-facts", "acts on facts of any age", Wiring(loop=AnyFacts), ("old-facts",)),
    Mutant("no-tags", "ignores the releasing tag and the grace", _seeing(_no_tags), ("no-grace", "releasing")),
    Mutant("tags-only", "ignores the releasing tag",
           _seeing(lambda s: _volumes(s, lambda v: replace(v, releasing=None))), ("releasing", "liveness")),
    Mutant("two-attachments", "does not notice Multi-Attach or a second attachment", _seeing(_one_attachment),
           ("two-writers", "guess")),
    Mutant("unchecked", "mounts a volume that it took by force without a check", _seeing(_never_checked),
           ("unchecked",)),
    Mutant("unclean", "checks only what it took by force itself", _seeing(_as_clean), ("unchecked",)),
    Mutant("application-first", "starts the application before its file system is there",
           _spoiling(_application_first, refusal=_start_anywhere), ("bare-application", "lost")),
    Mutant("start-anywhere", "starts the application without a second look at its disk",
           Wiring(refusal=_start_anywhere), ("lost",), (faults.pull,)),
    Mutant("many-hands", "starts a second step on a resource", Wiring(loop=ManyHands), ("two-steps",)),
    Mutant("order-of-writing", "follows the notify that wrote last", Wiring(newest=_last_written),
           ("not-master", "liveness")),
    Mutant("dropped-event", "drops the newest of two events", Wiring(newest=_first_role), ("not-master", "liveness")),
    Mutant("always-lazy", "unmounts lazily while the disk is there", _spoiling(_always_lazy),
           ("lazy",)),
    Mutant("dead-keepalived", "does not notice that keepalived has died", _seeing(_keepalived_lives),
           ("fenced-healthy",)),
    Mutant("always-master", "follows no other notify than master", _seeing(_always_master), ("not-master", "liveness")),
    Mutant("long-retry", "tries a throttled call again for long, without a second look at the intent",
           Wiring(retry_s=CALL_TIMEOUT_S), ("not-master",), (faults.throttle, faults.stop_keepalived)),
    Mutant("forgetful", "competes again at once after it failed as master", Wiring(loop=Forgetful), ("flaps",)),
    Mutant("impatient", "waits no longer when it fails again", Wiring(loop=Impatient), ("flaps",),
           (faults.crash_application,)),
    Mutant("one-mark", "ends an operator's release with the switchover before it", _spoiling(_one_mark), ("operator",),
           (faults.release,)),
    Mutant("fence-none", "fences with the policy `none`", _seeing(_always_fences), ("policy",),
           (faults.kill_keepalived, faults.crash)),
    Mutant("never-waits", "ends those who hold files open with the policy `wait`", _seeing(_never_waits), ("policy",),
           (faults.hold, faults.stop_keepalived)),
    Mutant("kills-at-once", "kills without asking to end first", _spoiling(_kills_at_once), ("policy",),
           (faults.hold, faults.stop_keepalived)),
    Mutant("stopping-is-stopped", "detaches from an instance that is still stopping", _seeing(_stopping_is_stopped),
           ("policy",), (faults.fence,)),
    Mutant("attaching-is-attached", "mounts what EC2 is still attaching",
           _seeing(lambda s: _volumes(s, _attaching_is_attached)), ("guess",)),
    Mutant("never-pauses", "acts for a group that is paused", _seeing(_not_paused, refusal=_no_marks), ("paused",),
           (faults.pause,)),
    Mutant("no-marks", "does not look again whether it was paused, released or fenced meanwhile",
           Wiring(refusal=_no_marks), ("paused", "kept-out"), (faults.pause, faults.release)),
    Mutant("not-heard", "does not listen again whether the holder is master after all", Wiring(refusal=_not_heard),
           ("fenced-master",), (faults.cut, faults.flap)),
    Mutant("no-rescan", "signals processes that have left the file system", Wiring(rescan=False), ("innocent",),
           (faults.hold,)),
)  # fmt: skip

SCHEDULES_MOST = 4000


def caught(mutant: Mutant, seed: int) -> Result | None:
    """The first schedule of a seed in which a rule that fits notices the mutant; None when none does."""
    for index in range(SCHEDULES_MOST):
        result = run(seed, index, wiring=mutant.wiring, favour=mutant.favour)
        if result.rule in mutant.caught_by:
            return result
        if index % 50 == 0:
            gc.collect()
    return None


def table(seed: int) -> Iterator[str]:
    """Markdown: each mutant, the rule that noticed it, and in which schedule."""
    yield "| mutant | what is wrong with it | noticed by | in schedule |"
    yield "| --- | --- | --- | ---: |"
    for mutant in ALL:
        result = caught(mutant, seed)
        rule, index = (result.rule, str(result.index)) if result else ("nothing", f"none of {SCHEDULES_MOST}")
        yield f"| `{mutant.name}` | {mutant.wrong} | `{rule}` | {index} |"
