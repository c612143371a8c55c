"""The second look: what is dangerous is checked again, on facts read just before the act."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from awsha.core.hooks import ACQUIRING, RELEASING
from awsha.core.model import Device, DiskFacts, Hook, Intent, Mount, Role, Unknown
from awsha.core.plan import PAUSED, out
from awsha.core.steps import (
    AssignAddresses,
    Attach,
    Check,
    Detach,
    KernelAddresses,
    MountVolume,
    RunHooks,
    Signal,
    StartApplication,
    Step,
    StopInstance,
    TagServing,
    Unmount,
    VolumeStep,
)
from awsha.core.volumes import FENCED, mount_of

_TAKING = (Attach, AssignAddresses, StopInstance, MountVolume, Check, StartApplication, TagServing)


@dataclass(frozen=True, slots=True)
class Fresh:
    """Read by the executor just before a step. `intent`: the newest on record. `disk`: of the step's volume.

    `disks`: of all volumes of the group, by id, with devices that answer a read; for a start of the application only.
    """

    intent: Intent | None
    marks: frozenset[str]
    disk: DiskFacts | None
    holder_heard: bool  # the instance that the step acts against is heard as master right now
    disks: Mapping[str, DiskFacts] | None = None


def refusal(step: Step, fresh: Fresh, planned: Intent | None, me: str) -> str | None:
    """Why a step must not be carried out after all; None when it may. `planned`: the intent it was planned for."""
    if PAUSED in fresh.marks:
        return "this group is paused"
    if _takes(step, me):
        if fresh.intent is None or fresh.intent.role is not Role.MASTER:
            return f"this node is no longer master ({fresh.intent.role if fresh.intent else 'no role'})"
        if kept_out := out(fresh.marks) | (fresh.marks & {FENCED}):
            return f"this node is {', '.join(sorted(kept_out))}"
        if isinstance(step, StopInstance | Detach) and fresh.holder_heard:
            return "the holder is heard as master again"
    if isinstance(step, Detach) and step.instance_id == me:
        return _detach_own(fresh.disk)
    if _lets_go(step) and planned != fresh.intent and fresh.intent is not None and fresh.intent.role is Role.MASTER:
        return "this node has become master again"
    if isinstance(step, Unmount) and fresh.disk is not None and fresh.disk.stale and FENCED not in fresh.marks:
        return f"the disk of {step.volume_id} is gone: this node has been fenced, and says so first"
    if isinstance(step, RunHooks) and step.hook is Hook.ON_FENCED and FENCED not in fresh.marks:
        return "this node is not fenced any more"
    if isinstance(step, MountVolume | Check):
        return _use_device(step, fresh.disk)
    if isinstance(step, StartApplication):
        return _stand(fresh.disks or {})
    return None


def _takes(step: Step, me: str) -> bool:
    """Whether the step takes or uses something that only a master may."""
    if isinstance(step, Detach):
        return step.instance_id != me
    if isinstance(step, KernelAddresses):
        return step.present
    if isinstance(step, RunHooks):
        return step.hook in ACQUIRING
    return isinstance(step, _TAKING)


def _lets_go(step: Step) -> bool:
    """Whether the step takes from under a service what only a node that is no master may take."""
    if isinstance(step, RunHooks):
        return step.hook in RELEASING
    return isinstance(step, Unmount | Signal) or (isinstance(step, KernelAddresses) and not step.present)


def _detach_own(disk: DiskFacts | None) -> str | None:
    """A volume is detached from this node only when it is known that nothing of it is mounted."""
    if disk is None or isinstance(disk.mount, Unknown):
        return "the mount table can't be read"
    if (disk.mount is not None and not disk.foreign) or disk.others:
        where = [m.target for m in (*disk.others, disk.mount) if isinstance(m, Mount)]
        return f"it is mounted at {', '.join(where)}"
    if isinstance(disk.device, Unknown):
        return f"it can't be told where else it is mounted: {disk.device.reason}"
    return None


def _use_device(step: VolumeStep, disk: DiskFacts | None) -> str | None:
    """A device is checked or mounted only when it carries the volume's serial now and is not mounted."""
    assert isinstance(step, MountVolume | Check)  # noqa: S101
    if disk is None or not isinstance(disk.device, Device):
        return f"no device carries the serial of {step.volume_id}"
    if (disk.device.path, disk.device.number) != (step.device, step.number):
        return f"{step.volume_id} is {disk.device.path} now, not {step.device}"
    if disk.mount is not None or disk.others:
        return "something is mounted there"
    return None


def _stand(disks: Mapping[str, DiskFacts]) -> str | None:
    """The application is started only on file systems whose disks are there.

    It may have ended because its disk was taken. What it could not flush is still in the page cache, and passes for
    clean there: started again, it would find those records, flush without an error, and acknowledge them.
    """
    for volume_id, disk in disks.items():
        mount = mount_of(disk)
        if isinstance(disk.device, Unknown):
            return f"it can't be told whether the disk of {volume_id} is there: {disk.device.reason}"
        if disk.device is None:
            return f"the disk of {volume_id} is not there"
        if mount is None or disk.stale:
            return f"{volume_id} is not mounted"
        if mount.read_only:
            return f"{mount.target} is read-only"
    return None
