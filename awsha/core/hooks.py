"""When the operator's programs run (docs/hooks.md): in front of which acts, and beside which.

That the hooks of a point have run is a mark of this node: so they run once a transition, also over a restart of the
agent, and again when the agent died in the middle of them. The marks of an acquisition fall with the next release,
those of a release with the next acquisition. A group without hooks plans nothing here.
"""

from __future__ import annotations

from awsha.core.addresses import missing_in, on_eni
from awsha.core.application import DOWN
from awsha.core.model import ApplicationState, Hook, Unknown, VolumeFacts
from awsha.core.situation import Code, Draft, Past, Situation
from awsha.core.steps import Failure, NoteHooks, RunHooks, Scope
from awsha.core.volumes import FENCED, mount_of

ACQUIRING = frozenset({Hook.BEFORE_ACQUIRE, Hook.AFTER_MOUNT, Hook.AFTER_ACQUIRE})
RELEASING = frozenset({Hook.BEFORE_RELEASE, Hook.AFTER_RELEASE})
FAILING = frozenset({Hook.BEFORE_ACQUIRE, Hook.AFTER_MOUNT})  # without these there is no acquisition; others only warn
ONLY_WARNING = tuple(hook for hook in Hook if hook not in FAILING)
# whose marks fall when an acquisition, a release, and the release of a fenced node begin
LEFT_BY_RELEASE = tuple(sorted(RELEASING | {Hook.ON_FENCED}))
LEFT_BY_ACQUISITION = tuple(sorted(ACQUIRING | {Hook.ON_FENCED}))
LEFT_BY_FENCED = tuple(sorted(ACQUIRING))
MARKS = {hook: f"hooks:{hook}" for hook in Hook}
KEYS = {hook: RunHooks(hook).key for hook in Hook}
NEW_S = 5.0  # a role this young has just begun, whatever the facts show: a reboot leaves the addresses where they were


def mark_of(hook: Hook) -> str:
    """The mark that says: the hooks of this point have run, in this transition."""
    return MARKS[hook]


def _ran(s: Situation, hook: Hook) -> bool:
    return MARKS[hook] in s.host.marks


def _failed(s: Situation, hook: Hook) -> Past | None:
    """How the hooks of a point failed in this role; to be refused by the guard is no failure of theirs."""
    past = s.memory.past.get(KEYS[hook])
    return past if past is not None and not past.ok and past.failure is not Failure.REFUSED else None


def _forget(draft: Draft, hooks: tuple[Hook, ...]) -> None:
    """Another transition has begun: what ran for the last one is to run again with the next."""
    for hook in hooks:
        if _ran(draft.s, hook):
            draft.step(NoteHooks(mark_of(hook), present=False))


def _run_or_fail(draft: Draft, hook: Hook) -> None:
    """Once; a failure stands until keepalived has taken the role away, and the peer had its turn."""
    failed = _failed(draft.s, hook)
    if failed is None:
        draft.step(RunHooks(hook))
    else:
        draft.block(Code.HOOK_FAILED, hook, failed.text, failed.hint)


# --- acquire ---------------------------------------------------------------------------------------------------


def before_acquire(draft: Draft) -> bool:
    """Plan what runs before anything is taken. True when the acquisition may go on.

    A node that holds something already is past this point: the hooks that appear there wait for the next acquisition.
    """
    s = draft.s
    _forget(draft, LEFT_BY_RELEASE)
    if s.host.hooks.isdisjoint(ACQUIRING) or _ran(s, Hook.BEFORE_ACQUIRE):
        return True
    begun = _begun(s)
    if isinstance(begun, Unknown):
        code, scope = (Code.HOST_UNKNOWN, Scope.DISKS) if s.group.volumes else (Code.CLOUD_UNKNOWN, Scope.CLOUD)
        draft.unknown(code, "hooks", "it is unknown whether something of the group is here already", begun, scope)
        return False
    if not begun:
        _run_or_fail(draft, Hook.BEFORE_ACQUIRE)
    return begun


def _begun(s: Situation) -> bool | Unknown:
    """Whether something of the group is in use here already."""
    for volume in s.group.volumes:
        disk = s.disk(volume.id or "")
        if isinstance(disk.mount, Unknown):
            return disk.mount
        if disk.others or mount_of(disk) is not None:
            return True
    if s.group.volumes:
        return False
    if s.intent is not None and s.now - s.intent.recorded_at < NEW_S:
        return False
    if s.host.application is ApplicationState.RUNNING:
        return True  # it serves: an EC2 that says nothing moves nothing
    here = on_eni(s)
    return here if isinstance(here, Unknown) else not missing_in(s, here)


def after_mount(draft: Draft, mounted: bool) -> bool:
    """Plan what runs between the mounts and the application. True when the application may stand on them."""
    s = draft.s
    if not mounted or not _owed(s, Hook.AFTER_MOUNT) or not s.group.volumes:
        return mounted
    _run_or_fail(draft, Hook.AFTER_MOUNT)
    return False


def after_acquire(draft: Draft, ready: bool) -> None:
    """Plan what runs once the node serves."""
    if ready and _owed(draft.s, Hook.AFTER_ACQUIRE) and _failed(draft.s, Hook.AFTER_ACQUIRE) is None:
        draft.step(RunHooks(Hook.AFTER_ACQUIRE))


def _owed(s: Situation, hook: Hook) -> bool:
    """Whether an acquisition that began with its hooks has yet to run these."""
    return hook in s.host.hooks and _ran(s, Hook.BEFORE_ACQUIRE) and not _ran(s, hook)


# --- release ---------------------------------------------------------------------------------------------------


def before_release(draft: Draft) -> bool:
    """Plan what runs before anything is let go. True when the release may begin; it waits once, for a bounded time.

    A fenced node has no time for it, and lost what these programs would work on.
    """
    s = draft.s
    _forget(draft, LEFT_BY_FENCED if FENCED in s.host.marks else LEFT_BY_ACQUISITION)
    if s.host.hooks.isdisjoint(RELEASING) or _ran(s, Hook.BEFORE_RELEASE) or not _holds(s):
        return True
    if FENCED in s.host.marks or any(s.disk(v.id or "").stale for v in s.group.volumes):
        draft.step(NoteHooks(mark_of(Hook.BEFORE_RELEASE)))
        return True
    if _failed(s, Hook.BEFORE_RELEASE) is not None:
        return True
    draft.step(RunHooks(Hook.BEFORE_RELEASE))
    return False


def _holds(s: Situation) -> bool:
    """Whether anything of the group is known to be here."""
    app = s.host.application
    if isinstance(app, ApplicationState) and app not in DOWN:
        return True
    for volume in s.group.volumes:
        disk, facts = s.disk(volume.id or ""), s.volume(volume.id or "")
        attached = isinstance(facts, VolumeFacts) and s.mine(facts) is not None
        if attached or disk.others or mount_of(disk) is not None:
            return True
    here = on_eni(s)
    return not isinstance(here, Unknown) and bool(here)


def after_release(draft: Draft, gone: bool) -> None:
    """Plan what runs when nothing is left here of a release that began with its hooks."""
    s, hook = draft.s, Hook.AFTER_RELEASE
    down = s.group.application is None or s.host.application in DOWN
    begun = hook in s.host.hooks and _ran(s, Hook.BEFORE_RELEASE) and not _ran(s, hook)
    if gone and down and begun and _failed(s, hook) is None:
        draft.step(RunHooks(hook))


# --- fenced ----------------------------------------------------------------------------------------------------


def on_fenced(draft: Draft) -> bool:
    """Plan what runs, beside the clean-up, on a node that was fenced. True when it has."""
    s, hook = draft.s, Hook.ON_FENCED
    if hook not in s.host.hooks or _ran(s, hook) or _failed(s, hook) is not None:
        return True
    draft.step(RunHooks(hook))
    return False


def warn(draft: Draft) -> None:
    """Show the failures that stop nothing, as long as the role lasts in which they happened."""
    for hook in ONLY_WARNING:
        failed = _failed(draft.s, hook)
        if failed is not None:
            draft.wait(Code.HOOK_WARNED, hook, failed.text, hint=failed.hint)
