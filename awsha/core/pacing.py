"""When a planned step may start, and when to look again. A wait only looks; nothing sleeps for a fixed time."""

from __future__ import annotations

from awsha.core.situation import Code, Memory, Past, Reason
from awsha.core.steps import (
    ApplicationStep,
    AssignAddresses,
    Attach,
    Detach,
    Failure,
    KernelAddresses,
    ListHolders,
    RunHooks,
    Scope,
    Signal,
    Step,
    StopInstance,
    TagReleasing,
    UnassignAddresses,
    Unmount,
)

FIRST_LOOK_S = 0.8  # an attach or detach takes at least this long (EC2.md: most take 1 to 4 s)
NEAR_LOOK_S = 0.1  # the device has come or gone: EC2 says `attached` or `available` at about the same time
NEAR_S = 3.0
NEAR = {Code.ATTACHING: Code.DEVICE_HERE, Code.DETACHING_HERE: Code.DEVICE_LEFT}
OWN_DOING = frozenset({Code.ATTACHING, Code.DETACHING_HERE, Code.SETTLING})
SETTLE_S = 5.0  # EC2's views lag: the same call is not repeated sooner after it succeeded
STEADY_S = 60.0  # a periodic look when nothing waits: events can be missed
BLOCKED_S = 5.0  # EC2 is asked this often when only somebody else can help
DISKS_STEADY_S = 2.0  # a file system that turns read-only, a disk that is pulled: the kernel tells neither
ADDRESSES_STEADY_S = 10.0  # netlink tells of each change, and of messages that were lost
APPLICATION_STEADY_S = 5.0
APPLICATION_WAITS_S = 1.0  # so that its state is fresh at the moment at which it may start
DEVICE_LOOK_S = 0.02
LOCAL_LOOK_S = 0.1
LOCAL_BLOCKED_S = 1.0  # only somebody else can end it; the kernel's own events come on top
DENIED_RETRY_S = 30.0
CLOUD_STEPS = (Attach, Detach, StopInstance, TagReleasing, AssignAddresses, UnassignAddresses)


def look_delay(waited_s: float) -> float:
    """Seconds until EC2 is asked again about something under way for `waited_s` seconds.

    First at 0.8 s, every 0.15 s to 5 s, every 0.5 s to 15 s, every 1 s after: less than 0.1 s added on average to what
    takes its usual time (ADR 7), where botocore's own waiters add up to 15 s.
    """
    if waited_s < FIRST_LOOK_S:
        return FIRST_LOOK_S - waited_s
    if waited_s < 5:
        return 0.15
    return 0.5 if waited_s < 15 else 1.0


def retry_delay(past: Past) -> float:
    """Seconds after a failure before the same step is tried again; doubling from 0.25 s to 5 s."""
    if past.failure is Failure.DENIED:
        return DENIED_RETRY_S
    if past.failure in (Failure.REFUSED, Failure.NAME_TAKEN):
        return 0.1
    return float(min(0.25 * 2 ** min(past.runs - 1, 10), 5.0))


def _held_back(step: Step, past: Past | None, now: float) -> Reason | None:
    """Why a step must not start yet, from how its kind ended last on the same resource."""
    if past is None:
        return None
    if past.ok:
        repeats = isinstance(step, CLOUD_STEPS) and past.step == step
        if repeats and now - past.at < SETTLE_S:
            return Reason(
                Code.SETTLING,
                step.resource,
                f"EC2 accepted {describe(step)}; its views do not show it yet",
                watch=(Scope.CLOUD,),
                until=past.at + SETTLE_S,
            )
        return None
    if isinstance(step, ListHolders | Signal) or (
        isinstance(step, Unmount) and past.failure is Failure.BUSY and past.runs < 3
    ):
        return None
    until = past.at + retry_delay(past)
    if now >= until:
        return None
    code = Code.DENIED if past.failure is Failure.DENIED else Code.RETRY
    return Reason(
        code,
        step.resource,
        f"{describe(step)} failed: {past.text}",
        past.hint,
        past.failure is Failure.DENIED,
        until=until,
    )


def pace(steps: list[Step], memory: Memory, now: float) -> tuple[tuple[Step, ...], tuple[Reason, ...]]:
    """Split planned steps into those that may start now, and reasons for those that may not."""
    if not steps:
        return (), ()
    start: list[Step] = []
    reasons: list[Reason] = []
    taken = set(memory.running)
    for step in steps:
        if step.resource in taken:
            reasons.append(Reason(Code.RUNNING, step.resource, f"waits for the step under way on {step.resource}"))
            continue
        held = _held_back(step, memory.past.get(step.key), now)
        if held is not None:
            reasons.append(held)
            continue
        taken.add(step.resource)
        start.append(step)
    return tuple(start), tuple(reasons)


def cloud_delay(reasons: tuple[Reason, ...], done: bool, memory: Memory, now: float) -> float:
    """Seconds from the last look at EC2 to the next."""
    delay = STEADY_S if done else BLOCKED_S
    for reason in reasons:
        if Scope.CLOUD in reason.watch:
            delay = min(delay, BLOCKED_S if reason.blocked else _waiting_delay(reason, memory, now))
    return delay


def _waiting_delay(reason: Reason, memory: Memory, now: float) -> float:
    """Seconds between two looks at EC2 for one reason that ends by itself."""
    device_since = _device_since(reason, memory)
    if device_since is not None and now - device_since < NEAR_S:
        return NEAR_LOOK_S
    waited = now - memory.since.get((reason.code, reason.subject), now)
    if reason.code is Code.SETTLING and reason.until is not None:
        waited = SETTLE_S - (reason.until - now)  # since EC2 accepted the call
    # what a peer does may be done at any moment; only what was set going here takes its time
    return look_delay(waited if reason.code in OWN_DOING else max(waited, FIRST_LOOK_S))


def _device_since(reason: Reason, memory: Memory) -> float | None:
    """Since when the guest has a device that EC2 still calls attaching, or has none more that it calls detaching."""
    near = NEAR.get(reason.code)
    return None if near is None else memory.since.get((near, reason.subject))


def device_moved(reasons: tuple[Reason, ...], memory: Memory) -> bool:
    """Whether a device has come or gone of which EC2 does not know yet: then a look at EC2 pays at any moment."""
    return any(_device_since(reason, memory) is not None for reason in reasons)


def local_delay(scope: Scope, reasons: tuple[Reason, ...]) -> float:
    """Seconds from the last look at one kind of local facts to the next. Kernel events come on top."""
    watching = [r for r in reasons if scope in r.watch]
    if watching:
        if all(r.blocked for r in watching):
            return LOCAL_BLOCKED_S
        device = scope is Scope.DISKS and any(r.code is Code.DEVICE or r.code is Code.ATTACHING for r in watching)
        return DEVICE_LOOK_S if device else LOCAL_LOOK_S
    if scope is Scope.DISKS:
        return DISKS_STEADY_S
    if scope is Scope.APPLICATION:
        waits = any(r.code is Code.APPLICATION_WAITS for r in reasons)
        return APPLICATION_WAITS_S if waits else APPLICATION_STEADY_S
    return ADDRESSES_STEADY_S


WORDS = {
    "TagReleasing": "telling the peer of the release",
    "ClearReleasing": "clearing the releasing tag",
    "Attach": "attach",
    "Detach": "detach",
    "StopInstance": "stop-instance",
    "Check": "file system check",
    "MountVolume": "mount",
    "Unmount": "unmount",
    "ListHolders": "looking for open files",
    "Signal": "signal to holders",
    "AssignAddresses": "assign addresses",
    "UnassignAddresses": "unassign addresses",
    "KernelAddresses": "interface addresses",
    "StartApplication": "application start",
    "StopApplication": "application stop",
    "SetMark": "mark",
    "RunHooks": "hooks",
    "NoteHooks": "note",
}


def describe(step: Step) -> str:
    """A step in a few words, for people."""
    name = WORDS[type(step).__name__]
    if isinstance(step, Detach) and step.force:
        name = "forced detach"
    if isinstance(step, Unmount) and step.lazy:
        name = "lazy unmount"
    if isinstance(step, Signal):
        name = f"{'SIGKILL' if step.kill else 'SIGTERM'} to holders"
    if isinstance(step, RunHooks):
        return f"{step.hook} hooks"
    if isinstance(step, AssignAddresses | UnassignAddresses | KernelAddresses):
        return f"{name} ({', '.join(step.addresses)})"
    return name if isinstance(step, ApplicationStep) else f"{name} ({step.resource})"
